/* Owns the trend of each ticker: its last 24 hours. Pluto's store is asked for them after the first view, a few at a time and
   only for tickers in sight, and again when something was missed; from there the session goes on. Where nothing is kept,
   the session is all there is. Never draws. */

import { candles } from "./api.js";
import { isKnown, store } from "./store.js";

const DAY = 86_400; // seconds
const YOUNG = 7_200; // seconds of history below which wide candles would be too few for a line
const WIDE = { interval: "15m", since: "24h", limit: 100 };
const NARROW = { interval: "1m", since: "2h", limit: 125 };
const SECONDS = { "15m": 900, "1m": 60 };
const AT_ONCE = 2; // requests
const AGAIN_AFTER = 30_000; // ms between two questions about one ticker
const WRITTEN_AFTER = 2_000; // ms in which the store has written what has just been heard
const POINTS = 60; // of the session

class Trends {
  #kept = new Map(); // ticker → {points, until, isKnown, askedAt, dueAt}: `until` in seconds, the others in ms
  #waiting = new Set(); // tickers to ask about
  #asking = 0;
  #isReady = false; // the first view is there
  #isOff = false; // this Pluto keeps nothing

  constructor() {
    if (document.readyState === "complete") this.#settle();
    else addEventListener("load", () => this.#settle(), { once: true });
    store.addEventListener("connection", () => (this.#isOff &&= store.connection.state === "open")); // the next one may
    store.addEventListener("tickers", () => this.#forget());
  }

  #settle() {
    const wait = window.requestIdleCallback ?? setTimeout;
    wait(() => (this.#isReady = true));
  }

  #forget() {
    for (const ticker of this.#kept.keys()) if (!store.has(ticker)) this.#kept.delete(ticker);
  }

  /** The ticker is in sight: ask what is kept of it, unless that is known. After a gap that takes a question again. */
  want(ticker) {
    if (!this.#isReady || this.#isOff || store.connection.state !== "open") return;
    const isKnownNow = isKnown(store.view(ticker));
    const kept = this.#kept.get(ticker) ?? { points: [], until: 0, isKnown: isKnownNow, dueAt: 0, askedAt: -Infinity };
    this.#kept.set(ticker, kept);
    if (isKnownNow && !kept.isKnown) kept.dueAt = Math.max(Date.now() + WRITTEN_AFTER, kept.askedAt + AGAIN_AFTER);
    kept.isKnown = isKnownNow;
    if (kept.dueAt > Date.now()) return;
    this.#waiting.add(ticker);
    this.#askNext();
  }

  /** {points, end, isSession}: points as <spark-line> draws them, up to now. */
  of(ticker) {
    const session = store.session(ticker).sample(POINTS);
    const { points, until } = this.#kept.get(ticker) ?? {};
    if (!points?.length) return { points: session, end: session.at(-1)?.time, isSession: true };
    const end = Math.floor(store.now() / 1000);
    const line = points.filter(({ time }) => time > end - DAY);
    for (const point of session) if (point.time > until) line.push(point);
    if (line.length && isKnown(store.view(ticker))) line.push({ time: end, value: line.at(-1).value });
    return { points: line, end, isSession: false };
  }

  #askNext() {
    for (const ticker of this.#waiting) {
      if (this.#asking === AT_ONCE) return;
      this.#waiting.delete(ticker);
      this.#ask(ticker);
    }
  }

  async #ask(ticker) {
    const kept = this.#kept.get(ticker);
    if (!kept || this.#isOff) return;
    this.#asking++;
    kept.dueAt = Infinity;
    kept.askedAt = Date.now();
    const until = Math.floor(store.now() / 1000);
    const { ok, answer, interval } = await this.#find(ticker, until);
    this.#asking--;
    if (ok) Object.assign(kept, { points: lineOf(answer.candles, SECONDS[interval], until), until });
    else if (answer.code === "no_store") this.#isOff = true;
    else kept.dueAt = Math.min(kept.dueAt, Date.now() + AGAIN_AFTER);
    this.#askNext();
  }

  async #find(ticker, until) {
    const wide = await candles(ticker, WIDE);
    const first = wide.ok && wide.answer.candles[0];
    const isYoung = first && first.start / 1000 > until - YOUNG;
    return isYoung ? { ...(await candles(ticker, NARROW)), ...NARROW } : { ...wide, ...WIDE };
  }
}

/** Closes as points; where candles are missing, the price stood still, or after a gap the line begins anew. */
function lineOf(candles, width, until) {
  const points = [];
  let before = null;
  for (const candle of candles) {
    const start = candle.start / 1000;
    const isNext = before?.time === start;
    if (!isNext && before && !candle.gap) points.push({ time: start, value: before.value });
    if (!before || (!isNext && candle.gap)) points.push({ time: start, value: Number(candle.open), begins: true });
    before = { time: start + width, value: Number(candle.close) };
    points.push({ time: Math.min(before.time, until), value: before.value });
  }
  return points;
}

export const trends = new Trends();
