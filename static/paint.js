/* Owns when each row of the board is painted: what changed in sight once a frame, all else in the second's round, a few rows
   a frame. Never decides where a row stands, and makes or removes none. */

import { proposals } from "./actions.js";
import { nextFrame } from "./frame.js";
import { store } from "./store.js";
import { trends } from "./trends.js";

const FADE_EVERY = 150; // ms
const ROWS_A_FRAME = 8; // brought up to date in one frame by the second's round, so that no frame has all of them
const KEPT_EVERY = 2_500; // ms between two drawings of a trend that is hours long
const NEARLY = "200px"; // rows this far out of sight are painted as if they were in it
const LOST = ["not_found", "error"]; // states in which another ticker may be the right one

export class Painter {
  #board; // the element whose style has the width of the price column
  #rows; // ticker → row, as the board keeps them
  #changed = new Set(); // tickers to paint in the next frame
  #marked = new Set(); // rows whose mark has to fade
  #fadeTimer = 0;
  #round = []; // rows whose age, day and trend are due, and their paint if they are out of sight
  #watcher = new IntersectionObserver((entries) => this.#watch(entries), { rootMargin: NEARLY });
  #inSight = new Set(); // rows painted as soon as they change, the others wait for the round; and trends
  #digits = 0; // of the longest price so far: the price column is as wide

  constructor(board, rows) {
    this.#board = board;
    this.#rows = rows;
  }

  stop() {
    this.#watcher.disconnect();
    clearTimeout(this.#fadeTimer);
  }

  /** The row is on the board. Its trend can be out of sight where the row is in it: narrow boards have no trends. */
  watch(row) {
    for (const part of [row, row.trend]) this.#watcher.observe(part);
  }

  forget(row) {
    this.#marked.delete(row);
    for (const part of [row, row.trend]) {
      this.#watcher.unobserve(part);
      this.#inSight.delete(part);
    }
  }

  /** Now, and whole: the row is new or stands elsewhere. */
  paintWhole(row) {
    this.#paintRow(row.ticker, store.now());
    this.#paintTrend(row);
  }

  repaint(tickers) {
    for (const ticker of tickers) this.#changed.add(ticker);
    nextFrame(this.#paint);
  }

  beginRound = () => {
    if (this.#round.length) return; // very many rows take more than a second
    this.#round = [...this.#rows.values()];
    this.#goRound();
  };

  #goRound = () => {
    const now = store.now();
    for (const row of this.#round.splice(0, ROWS_A_FRAME).filter(({ isConnected }) => isConnected)) {
      const view = store.view(row.ticker);
      if (this.#changed.has(row.ticker)) this.#paintRow(row.ticker, now);
      else row.paintAge(view, now);
      row.paintDay(view);
      this.#paintTrend(row);
    }
    if (this.#round.length) nextFrame(this.#goRound);
  };

  #paint = () => {
    const now = store.now();
    for (const ticker of this.#changed) {
      const row = this.#rows.get(ticker);
      if (!row || this.#inSight.has(row)) this.#paintRow(ticker, now);
    }
  };

  #watch(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#inSight.add(target);
      else this.#inSight.delete(target);
    }
    nextFrame(this.#paint);
  }

  #paintRow(ticker, now) {
    this.#changed.delete(ticker);
    const row = this.#rows.get(ticker);
    if (!row) return;
    const view = store.view(ticker);
    row.paint(view, now);
    if (row.shown.length > this.#digits) this.#widen(row.shown);
    const lost = LOST.includes(view.state) ? view.state : "";
    if (row.lost !== lost) this.#propose(row, lost);
    if (row.marked) this.#fadeLater(row);
  }

  #paintTrend(row) {
    if (!this.#inSight.has(row.trend)) return;
    trends.want(row.ticker);
    const now = Date.now();
    if (row.trendDueAt > now) return;
    const trend = trends.of(row.ticker);
    row.trendDueAt = now + (trend.isSession ? 0 : KEPT_EVERY);
    row.paintTrend(trend);
  }

  /** A ticker that TradingView doesn't have, or not under this name: what to track instead is asked for once. */
  async #propose(row, lost) {
    row.lost = lost;
    const proposed = lost ? await proposals(row.ticker) : [];
    if (row.lost === lost) row.propose(proposed);
  }

  /** A separator is half as wide as a digit. */
  #widen(price) {
    const digits = (price.length + price.replace(/\D/g, "").length) / 2;
    if (digits <= this.#digits) return;
    this.#digits = digits;
    this.#board.style.setProperty("--digits", digits);
  }

  #fadeLater(row) {
    this.#marked.add(row);
    this.#fadeTimer ||= setTimeout(this.#fade, FADE_EVERY);
  }

  #fade = () => {
    const now = store.now();
    for (const row of this.#marked) if (!row.fade(now)) this.#marked.delete(row);
    this.#fadeTimer = this.#marked.size ? setTimeout(this.#fade, FADE_EVERY) : 0;
  };
}
