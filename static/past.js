/* Owns what the page asks of one ticker's kept prices: the newest page first, older ones when someone looks there, and what was
   missed: each minute, after each candle's end and after each gap. Between those the stream goes on with the newest
   candle. Never draws: it tells `onSlots(slots)` what is new, and `onAll()` when all is to be drawn anew. */

import { candles } from "./api.js";
import { Candles, WIDTHS } from "./candles.js";
import { isKnown, store } from "./store.js";

const PAGE = 300; // candles
const MOST = 20_000; // candles kept; what was before them, a wider interval shows
const WRITTEN_AFTER = 2_000; // ms in which the store has written what has just been heard
const CATCH_UP_EVERY = 60_000; // ms: the stream has but the last of the prices between two flushes
const AGAIN_AFTER = 10_000; // ms until the next try when the store didn't answer

export class Past {
  onSlots = () => {};
  onAll = () => {};
  #ticker;
  #width;
  #interval;
  #candles;
  #older = null; // where the page before the oldest candle begins; null: there is none
  #isAsking = false; // for an older page
  #writtenUntil = 0; // ms: what is before is as the store has it
  #priceText = ""; // as heard last
  #isKnown = false; // the price is current, and nothing of it was missed
  #dueAt = Infinity; // when to ask for what was missed
  #notBefore = 0; // when to ask again after a failure
  #listening = new AbortController();

  constructor(ticker, interval) {
    this.#ticker = ticker;
    this.#interval = interval;
    this.#width = WIDTHS[interval];
    this.#candles = new Candles(this.#width);
  }

  get candles() { return this.#candles; }
  get interval() { return this.#interval; }

  /** Read the newest page, and resolve to Pluto's answer. Then it goes on by itself, until close(). */
  async open() {
    const told = await this.#reload();
    if (!told.ok || this.#isOver) return told;
    this.#catchUpSoon();
    store.addEventListener("quotes", ({ detail }) => detail.includes(this.#ticker) && this.#hear(), { signal: this.#listening.signal });
    return told;
  }

  close() {
    this.#listening.abort();
  }

  get #isOver() {
    return this.#listening.signal.aborted;
  }

  /** Each second: ask for what was missed, when that is due. */
  strike() {
    if (document.hidden || store.connection.state !== "open" || Date.now() < this.#dueAt) return;
    this.#dueAt = Date.now() + CATCH_UP_EVERY;
    this.#catchUp();
  }

  async readOlder() {
    if (this.#isAsking || !this.#older || this.#candles.length >= MOST) return;
    this.#isAsking = true;
    const asked = this.#candles;
    const { ok, answer } = await this.#ask({ cursor: this.#older });
    this.#isAsking = false;
    if (!ok || this.#isOver || this.#candles !== asked) return;
    this.#older = answer.next;
    this.#candles.prepend(answer.candles);
    this.onAll();
  }

  async #reload() {
    const askedAt = store.now();
    const told = await this.#ask({});
    if (!told.ok || this.#isOver) return told;
    this.#candles = new Candles(this.#width);
    this.#older = told.answer.next;
    this.#settle(told.answer.candles, askedAt);
    return told;
  }

  async #catchUp() {
    const askedAt = store.now();
    const since = Math.max(0, this.#writtenUntil);
    const told = await this.#ask({ since });
    if (this.#isOver) return;
    if (!told.ok) this.#dueAt = this.#notBefore = Date.now() + AGAIN_AFTER;
    else if (told.answer.next) await this.#reload(); // too much to bridge
    else this.#settle(told.answer.candles, askedAt, since);
  }

  /** A price that is current now has been so since its last candle: its return would have made one. */
  #settle(page, askedAt, since) {
    this.#writtenUntil = askedAt - WRITTEN_AFTER;
    this.#candles.take(page, this.#writtenUntil, since);
    this.#priceText = this.#candles.newest?.close ?? "";
    this.#isKnown = isKnown(store.view(this.#ticker));
    this.onAll();
    this.#hear();
  }

  #ask(wishes) {
    return candles(this.#ticker, { interval: this.#interval, limit: PAGE, ...wishes });
  }

  /** Each quote counts, also while nothing is painted. After a gap the store speaks first. */
  #hear() {
    const view = store.view(this.#ticker);
    if (!isKnown(view)) this.#lose();
    else if (!this.#isKnown) this.#catchUpSoon();
    else if (view.state === "live" && view.priceText && view.priceText !== this.#priceText) this.#take(view);
  }

  #lose() {
    this.#isKnown = false;
    this.onSlots(this.#candles.lose(store.now()));
  }

  #take({ priceText, receivedAt, timestamp }) {
    const before = this.#candles.newest?.start;
    this.#priceText = priceText;
    this.onSlots(this.#candles.hear(receivedAt ?? timestamp ?? store.now(), priceText));
    if (this.#candles.newest.start !== before) this.#catchUpSoon();
  }

  #catchUpSoon() {
    this.#dueAt = Math.min(this.#dueAt, Math.max(this.#notBefore, Date.now() + WRITTEN_AFTER));
  }
}
