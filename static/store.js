/* Owns everything the page knows: which tickers there are, the newest quote of each, what was seen of them, whether the
   stream is open. Told by the stream and by what the user does; tells by events. Never touches the document or the network.

   Events: "tickers" (which rows there are), "quotes" (detail: Set of tickers that changed), "connection", "filter", "alert"
   (detail: what was raised, which is passed on and not kept). */

import { Session } from "./session.js";

const AGREEING = 1_000; // ms
const FORGET_AFTER = 60_000; // ms for which a removed ticker's session is kept, for undo

/** Is the price of this moment known, also while it stands still? */
export const isKnown = ({ state }) => state === "live" || state === "closed";

class Store extends EventTarget {
  #tickers = []; // as the server has them, sorted
  #quotes = new Map(); // ticker → its newest quote, with `heardAt` and `since`, when its state began; kept as it came, not copied
  #sessions = new Map();
  #expected = new Map(); // asked for, not listed by the server yet → has it said yes?
  #dismissed = new Set(); // removed here; the server may still list them
  #filter = null; // a Set of the tickers to show, or null for all
  #connection = { state: "connecting", retryAt: 0, lostAt: 0 };
  #heard = new Set(); // tickers quoted since the stream connected
  #skew = Infinity; // ms by which this clock is ahead of Pluto's: the least seen since the stream connected

  // -- told by the stream

  setConnection(connection) {
    const lost = this.#connection.lostAt;
    this.#connection = connection;
    this.#emit("connection");
    if (connection.lostAt !== lost) this.#emitQuotes(this.all);
  }

  /** The stream begins anew: until its first batch we note what it mentions. */
  beginHearing() {
    this.#heard.clear();
    this.#skew = Infinity;
  }

  receiveTickers(tickers) {
    const gone = this.#tickers.filter((ticker) => !tickers.includes(ticker));
    this.#tickers = [...tickers].sort();
    for (const ticker of gone) this.#forget(ticker);
    for (const [ticker, accepted] of this.#expected) {
      if (accepted || tickers.includes(ticker)) this.#expected.delete(ticker);
    }
    for (const ticker of this.#dismissed) if (!tickers.includes(ticker)) this.#dismissed.delete(ticker);
    this.#emit("tickers");
  }

  receiveQuotes(quotes, at) {
    this.#skew = Math.min(this.#skew, Date.now() - at);
    for (const quote of quotes) this.#keep(quote, at);
    this.#emitQuotes(quotes.map((quote) => quote.ticker));
  }

  /** A full snapshot leaves nothing from before: what it doesn't mention has no price here any more. */
  finishSnapshot(resumed) {
    if (resumed) return;
    const unheard = this.#tickers.filter((ticker) => !this.#heard.has(ticker) && this.#quotes.has(ticker));
    for (const ticker of unheard) this.#quotes.delete(ticker);
    this.#emitQuotes(unheard);
  }

  receiveAlert(raised) {
    this.dispatchEvent(new CustomEvent("alert", { detail: raised }));
  }

  #keep(quote, at) {
    const { ticker } = quote;
    const known = this.#quotes.get(ticker);
    quote.heardAt = Date.now();
    quote.since = known?.state === quote.state ? known.since : known ? at : (quote.timestamp ?? at);
    this.#heard.add(ticker);
    this.#quotes.set(ticker, quote);
    if (quote.priceText && quote.state === "live") this.session(ticker).add(quote.timestamp ?? at, quote.price, quote.priceText);
  }

  #forget(ticker) {
    this.#quotes.delete(ticker);
    const session = this.#sessions.get(ticker);
    setTimeout(() => {
      if (!this.has(ticker) && this.#sessions.get(ticker) === session) this.#sessions.delete(ticker);
    }, FORGET_AFTER);
  }

  // -- told by the user's actions

  /** Show a ticker as starting before the server has listed it. */
  expect(ticker) {
    this.#dismissed.delete(ticker);
    if (!this.#tickers.includes(ticker)) this.#expected.set(ticker, false);
    if (this.#filter && !this.#filter.has(ticker)) this.setFilter([...this.#filter, ticker]);
    this.#emit("tickers");
  }

  /** The server took it: from its next list on, that list decides. */
  accept(ticker) {
    if (this.#expected.has(ticker)) this.#expected.set(ticker, true);
  }

  /** It was refused after all. */
  unexpect(ticker) {
    if (this.#expected.delete(ticker)) this.#emit("tickers");
  }

  /** Hide a ticker before the server has let it go. */
  dismiss(ticker) {
    this.#expected.delete(ticker);
    if (this.#tickers.includes(ticker)) this.#dismissed.add(ticker);
    this.#emit("tickers");
  }

  /** It couldn't be removed after all. */
  undismiss(ticker) {
    if (this.#dismissed.delete(ticker)) this.#emit("tickers");
  }

  /** Show only these; null shows all. */
  setFilter(tickers) {
    this.#filter = tickers?.length ? new Set(tickers) : null;
    this.#emit("filter");
    this.#emit("tickers");
  }

  // -- asked by the parts

  /** The time by Pluto's clock, by which quotes are dated. */
  now() {
    return Date.now() - (Number.isFinite(this.#skew) ? this.#skew : 0);
  }

  /** Do the two clocks agree well enough to tell a latency? */
  get clocksAgree() {
    return Math.abs(this.#skew) < AGREEING;
  }

  get connection() { return this.#connection; }
  get filter() { return this.#filter; }

  /** Every ticker tracked or about to be, sorted. */
  get all() {
    const all = new Set([...this.#tickers, ...this.#expected.keys()]);
    for (const ticker of this.#dismissed) all.delete(ticker);
    return [...all].sort();
  }

  /** Those to show: all, or those the address asks for. */
  shown() {
    return this.#filter ? this.all.filter((ticker) => this.#filter.has(ticker)) : this.all;
  }

  has(ticker) {
    return (this.#tickers.includes(ticker) && !this.#dismissed.has(ticker)) || this.#expected.has(ticker);
  }

  /** A ticker as it may be shown now: without an open stream nothing is live. */
  view(ticker) {
    const quote = this.#quotes.get(ticker);
    if (!quote) return { ticker, state: "starting", since: 0 };
    const { lostAt } = this.#connection;
    if (!lostAt) return quote;
    const wasCurrent = ["live", "closed", "snapshot"].includes(quote.state);
    const lost = wasCurrent ? { state: "stale", since: lostAt, reason: "" } : {};
    return { ...quote, ...lost, nextTryAt: 0, offline: true };
  }

  session(ticker) {
    let session = this.#sessions.get(ticker);
    if (!session) this.#sessions.set(ticker, (session = new Session()));
    return session;
  }

  get simulated() {
    for (const quote of this.#quotes.values()) if (quote.simulated) return true;
    return false;
  }

  // -- for another tab

  toMessage() {
    return {
      tickers: this.#tickers,
      quotes: [...this.#quotes],
      sessions: [...this.#sessions].map(([ticker, session]) => [ticker, session.toMessage()]),
      connection: this.#connection,
      heard: [...this.#heard],
    };
  }

  fromMessage({ tickers, quotes, sessions, connection, heard }) {
    this.#heard = new Set(heard);
    this.#quotes = new Map(quotes);
    for (const [ticker, message] of sessions) this.#sessions.set(ticker, Session.fromMessage(message));
    this.receiveTickers(tickers);
    this.setConnection(connection);
    this.#emitQuotes(tickers);
  }

  #emitQuotes(tickers) {
    if (tickers.length) this.dispatchEvent(new CustomEvent("quotes", { detail: tickers }));
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }
}

export const store = new Store();
