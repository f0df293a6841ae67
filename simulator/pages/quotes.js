// The page's quote socket: several sessions for the same symbol, as the recorded page had them.
//
//   qs_multiplexer_simple   plain names of the symbols in cards and menus, and of the page's symbol
//   qs_multiplexer_full     spec names of the page's symbol, and a second later its plain name: the header shows these
//   qs_snapshoter           plain names that are quoted once, and removed after that

import { page, suffers } from "./page.js";

const SILENCE_MS = 20_000;
const REOPEN_MS = 5_000;
const REOPENINGS = 20;
const PLAIN_MS = 1_000; // until the plain name of the page's symbol joins the full session

const randomName = () => Math.random().toString(36).slice(2, 14);

export function address(path, host = location.host) {
  const from = encodeURIComponent(location.pathname.slice(1) + location.search);
  return `ws://${host}${path}?from=${from}&date=2026-11-20T10%3A12`;
}

class WorkerSocket {
  constructor(url) {
    this.worker = new Worker("/static/socket_worker.js");
    this.worker.onmessage = ({ data }) => {
      this[`on${data.type}`](data);
      if (data.type === "close") this.worker.terminate();
    };
    this.worker.postMessage({ open: url });
  }

  send(data) { this.worker.postMessage({ send: data }); }

  close(code) { this.worker.postMessage({ close: code }); }
}

const specOf = (symbol, keys) => `=${JSON.stringify({ adjustment: "splits", ...keys, symbol })}`;

/** The names of the page's own symbol in its full session, in their order. */
function specsOfOwn() {
  const id = { "currency-id": page.currencyId };
  const specs = [specOf(page.own, { ...id, session: "regular" }), specOf(page.own, {})];
  if (suffers("other_currency")) specs.push(specOf(page.own, { "currency-id": "EUR" }), specOf(page.own, { "currency-id": "XTVCUSDC" }));
  if (suffers("extended_session")) specs.push(specOf(page.own, { ...id, session: "extended" }));
  return specs;
}

/** What a name means: the spec in it, or a plain symbol; null if it is unreadable. */
function wanted(name) {
  if (!name.startsWith("=")) return { symbol: name };
  try {
    return JSON.parse(name.slice(1));
  } catch {
    return null;
  }
}

function isOwnPrice(name) {
  const spec = wanted(name);
  const currency = spec?.["currency-id"] ?? page.currencyId;
  return spec?.symbol === page.own && currency === page.currencyId && (spec.session ?? "regular") === "regular";
}

export class Quotes {
  static open = new Set();

  static reopenings = 0;

  constructor(views, host) {
    this.views = views;
    this.names = new Map(); // by session
    this.headerName = ""; // session and name of the header's quote
    this.alternative = "";
    this.askedForOwn = false;
    const Socket = suffers("socket_in_worker") ? WorkerSocket : WebSocket;
    this.socket = new Socket(address("/socket.io/websocket", host));
    this.socket.onopen = () => this.subscribe();
    this.socket.onmessage = ({ data }) => this.hear(data);
    this.socket.onclose = () => this.reopen();
    Quotes.open.add(this);
    this.watch();
  }

  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(4000), SILENCE_MS);
  }

  // ---- Orders -------------------------------------------------------------------------------------------------------

  subscribe() {
    this.order("set_auth_token", "unauthorized_user_token");
    [this.simple, this.full, this.snapshoter] = [
      "qs_multiplexer_simple_", "qs_multiplexer_full_", "qs_snapshoter_basic-symbol-quotes_",
    ].map((beginning) => beginning + randomName());
    this.create(this.simple);
    this.order("quote_hibernate_all", this.simple); // nothing in it is fast, but later names are quoted nevertheless
    this.create(this.full);
    this.create(this.snapshoter);
    this.add(this.simple, this.views.cards.map((view) => view.symbol));
    this.add(this.snapshoter, page.snapshots);
    this.views.whenSeen(() => this.askForOwn());
  }

  askForOwn() {
    if (this.askedForOwn) return;
    this.askedForOwn = true;
    this.addFast(specsOfOwn());
    this.add(this.simple, [page.own]);
    this.add(this.snapshoter, [page.own]);
    setTimeout(() => this.addFast([page.own]), PLAIN_MS);
  }

  addFast(names) {
    this.add(this.full, names);
    this.order("quote_fast_symbols", this.full, ...this.names.get(this.full) ?? []);
  }

  create(session) {
    this.names.set(session, new Set());
    this.order("quote_create_session", session);
  }

  add(session, names) {
    if (!this.names.has(session)) return;
    for (const name of names) this.names.get(session).add(name);
    if (names.length) this.order("quote_add_symbols", session, ...new Set(names));
  }

  remove(session, names) {
    for (const name of names) this.names.get(session)?.delete(name);
    this.order("quote_remove_symbols", session, ...names);
  }

  ownNames(session) {
    return [...this.names.get(session)].filter((name) => wanted(name)?.symbol === page.own);
  }

  /** Each session that has the page's symbol, with the symbol's names. */
  ownSessions() {
    return [...this.names.keys()].map((session) => [session, this.ownNames(session)]).filter(([, names]) => names.length);
  }

  deleteOwnSessions() {
    for (const [session] of this.ownSessions()) {
      this.order("quote_delete_session", session);
      this.names.delete(session);
    }
  }

  removeOwn() {
    for (const [session, names] of this.ownSessions()) this.remove(session, names);
  }

  hibernateOwn() {
    for (const [session] of this.ownSessions()) {
      this.order("quote_fast_symbols", session);
      this.order("quote_hibernate_all", session);
    }
  }

  order(name, ...parameters) {
    this.say(JSON.stringify({ m: name, p: parameters }));
  }

  say(payload) {
    if (this.socket.readyState === undefined || this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(`~m~${payload.length}~m~${payload}`);
    }
  }

  // ---- What comes ---------------------------------------------------------------------------------------------------

  hear(message) {
    this.watch();
    for (let start = 0; start < message.length;) {
      const [head, length] = message.slice(start, start + 20).match(/^~m~(\d+)~m~/);
      const end = start + head.length + Number(length);
      this.take(message.slice(start + head.length, end));
      start = end;
    }
  }

  take(payload) {
    if (payload.startsWith("~h~")) return this.say(payload);
    let message;
    try {
      message = JSON.parse(payload);
    } catch {
      return;
    }
    const { m, p, redirect } = message;
    if (redirect) this.moveTo(redirect);
    else if (m === "qsd") this.takeQuote(...p);
    else if (m === "quote_completed" && p[0] === this.snapshoter) this.remove(p[0], [p[1]]);
  }

  takeQuote(session, { n: name, s: status, v: values }) {
    if (!name) return;
    if (status !== "ok") this.takeError(name, values);
    else if (session.startsWith("qs_multiplexer_full")) this.takeForHeader(session, name, values);
    else for (const view of this.views.cards) if (view.symbol === name) view.merge(values);
  }

  takeForHeader(session, name, values) {
    if (!(isOwnPrice(name) || name === this.alternative)) return;
    if (values.lp !== undefined) this.headerName ||= `${session} ${name}`;
    if (this.headerName === `${session} ${name}`) this.views.own.merge(values);
  }

  takeError(name, { alternative } = {}) {
    if (!alternative || this.alternative || !isOwnPrice(name)) return;
    this.alternative = alternative; // visitors see this symbol instead
    this.addFast([alternative]);
  }

  moveTo(host) {
    this.socket.onclose = null;
    this.end();
    this.socket.close();
    new Quotes(this.views, host);
  }

  end() {
    clearTimeout(this.silence);
    Quotes.open.delete(this);
  }

  reopen() {
    this.end();
    this.views.own.showDataMode("connecting");
    Quotes.reopenings += 1;
    if (Quotes.reopenings <= REOPENINGS) setTimeout(() => new Quotes(this.views), REOPEN_MS);
  }
}
