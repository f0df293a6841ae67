/* Owns <price-board>: which rows stand where, painting those that changed once a frame, moving among them by keyboard, and
   what a click on them means. Never talks to the server; what a user asks for goes to actions.js, or up as "open-ticker". */

import { copyPrice, remove } from "./actions.js";
import { clock, nextFrame } from "./frame.js";
import { settings } from "./settings.js";
import { store } from "./store.js";
import "./row.js";
import "./sparkline.js";

const RESORT_EVERY = 5; // seconds between new orders when sorted by something that moves
const HELD_FOR = 10_000; // ms after a hand was last on the board, for which rows don't run away from it
const FADE_EVERY = 150; // ms
const ROWS_A_FRAME = 8; // brought up to date in one frame by the second's round, so that no frame has all of them
const NEARLY = "200px"; // rows this far out of sight are painted as if they were in it
const SLIDE = { duration: 180, easing: "ease-out" };

/** What the board can be sorted by, besides the name. A price that isn't live doesn't compete. */
const WEIGHTS = {
  change: (view) => view.changePercent,
  volume: (view) => view.volume * view.price,
};

class PriceBoard extends HTMLElement {
  #rows = new Map(); // ticker → row
  #list = null; // the element that holds them
  #changed = new Set(); // tickers to paint in the next frame
  #marked = new Set(); // rows whose mark has to fade
  #fadeTimer = 0;
  #round = []; // rows whose age, day and sparkline are due, and their paint if they are out of sight
  #watcher = null; // knows which rows are in sight
  #inSight = new Set(); // rows painted as soon as they change; the others wait for the round
  #seconds = 0;
  #handAt = 0; // when the pointer last moved here or a key was pressed
  #digits = 0; // of the longest price so far: the price column is as wide
  #current = ""; // the ticker whose row is in the tab order
  #listening = null;

  connectedCallback() {
    this.#list = this.querySelector("[data-rows]");
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.#watcher = new IntersectionObserver(this.#watch, { rootMargin: NEARLY });
    store.addEventListener("tickers", () => nextFrame(this.#arrange), { signal });
    store.addEventListener("quotes", ({ detail }) => this.#repaint(detail), { signal });
    settings.addEventListener("change", () => nextFrame(this.#arrange), { signal });
    clock.addEventListener("second", () => this.#strike(), { signal });
    this.addEventListener("click", this.#click, { signal });
    this.addEventListener("keydown", this.#key, { signal });
    this.addEventListener("pointermove", this.#noteHand, { signal, passive: true });
    this.addEventListener("keydown", this.#noteHand, { signal, capture: true });
    this.addEventListener("focusin", ({ target }) => this.#reach(target.closest("price-row")), { signal });
    nextFrame(this.#arrange);
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#watcher.disconnect();
    clearTimeout(this.#fadeTimer);
  }

  /** Put the focus on a row, on the first when there is no such. */
  focusRow(ticker = this.#current) {
    (this.#rows.get(ticker) ?? this.#list.firstElementChild)?.focus();
  }

  /** Show where a ticker is that was there already. */
  pointOut(ticker) {
    const row = this.#rows.get(ticker);
    row?.scrollIntoView({ block: "nearest" });
    row?.animate([{ backgroundColor: "var(--accent-soft)" }, {}], { duration: 1200 });
  }

  // -- order

  #order() {
    const tickers = store.shown();
    const weigh = WEIGHTS[settings.get("sort")];
    if (!weigh) return tickers;
    const weights = new Map(tickers.map((ticker) => [ticker, weight(store.view(ticker), weigh)]));
    return tickers.sort((a, b) => weights.get(b) - weights.get(a) || (a < b ? -1 : 1));
  }

  #arrange = () => {
    const order = this.#order();
    if (order.join() === [...this.#list.children].map((row) => row.ticker).join()) return;
    const before = this.#tops();
    const focused = this.contains(document.activeElement) ? document.activeElement : null;
    const place = this.#list.contains(focused) ? [...this.#list.children].indexOf(focused.closest("price-row")) : -1;
    this.#drop(order);
    order.forEach((ticker, at) => this.#place(ticker, at));
    this.#keepFocus(focused, place);
    this.#slide(before);
    this.hidden = order.length === 0;
  };

  #drop(order) {
    const wanted = new Set(order);
    for (const [ticker, row] of this.#rows) {
      if (wanted.has(ticker)) continue;
      row.remove();
      this.#rows.delete(ticker);
      this.#marked.delete(row);
      this.#watcher.unobserve(row);
      this.#inSight.delete(row);
    }
  }

  #place(ticker, at) {
    let row = this.#rows.get(ticker);
    const there = this.#list.children[at];
    if (row && row === there) return;
    if (!row) {
      row = document.createElement("price-row");
      row.dataset.ticker = ticker;
      this.#rows.set(ticker, row);
      this.#watcher.observe(row);
    }
    this.#list.insertBefore(row, there ?? null);
    row.reachable = ticker === this.#current;
    this.#paintRow(ticker, store.now());
    row.drawTrend(store.session(ticker));
  }

  /** A row that moved keeps the focus; one that went leaves it to its successor. */
  #keepFocus(focused, place) {
    if (!this.#rows.has(this.#current)) this.#reach(this.#list.children[Math.min(Math.max(place, 0), this.#list.children.length - 1)]);
    if (!focused || document.activeElement === focused) return;
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else if (place >= 0) this.focusRow();
  }

  #tops() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches || document.hidden) return null;
    return new Map([...this.#rows].map(([ticker, row]) => [ticker, row.offsetTop]));
  }

  /** Rows that stand elsewhere now slide there, so that the eye can follow; a new one fades in. */
  #slide(before) {
    if (!before?.size) return;
    const after = [...this.#rows].map(([ticker, row]) => [row, before.get(ticker), row.offsetTop]);
    for (const [row, from, to] of after) {
      if (from === undefined) row.animate([{ opacity: 0 }, {}], SLIDE);
      else if (from !== to) row.animate([{ transform: `translateY(${from - to}px)` }, {}], SLIDE);
    }
  }

  // -- paint

  #repaint(tickers) {
    for (const ticker of tickers) this.#changed.add(ticker);
    nextFrame(this.#paint);
  }

  #paint = () => {
    const now = store.now();
    for (const ticker of this.#changed) {
      const row = this.#rows.get(ticker);
      if (!row || this.#inSight.has(row)) this.#paintRow(ticker, now);
    }
  };

  #watch = (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#inSight.add(target);
      else this.#inSight.delete(target);
    }
    nextFrame(this.#paint);
  };

  #paintRow(ticker, now) {
    this.#changed.delete(ticker);
    const row = this.#rows.get(ticker);
    if (!row) return;
    const view = store.view(ticker);
    row.paint(view, now);
    this.#widen(view.priceText?.length ?? 0);
    if (row.marked) this.#fadeLater(row);
  }

  #widen(digits) {
    if (digits <= this.#digits) return;
    this.#digits = digits;
    this.style.setProperty("--digits", digits);
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

  #strike() {
    if (document.hidden) return;
    this.#seconds++;
    nextFrame(this.#beginRound);
    const held = performance.now() - this.#handAt < HELD_FOR;
    if (this.#seconds % RESORT_EVERY === 0 && !held) nextFrame(this.#arrange);
  }

  #beginRound = () => {
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
      row.drawTrend(store.session(row.ticker));
    }
    if (this.#round.length) nextFrame(this.#goRound);
  };

  // -- hands

  #noteHand = () => {
    this.#handAt = performance.now();
  };

  #reach(row) {
    if (!row || row.ticker === this.#current) return;
    const left = this.#rows.get(this.#current);
    if (left) left.reachable = false;
    this.#current = row.ticker;
    row.reachable = true;
  }

  #click = ({ target }) => {
    const row = target.closest("price-row");
    if (!row) return;
    const part = target.closest("[data-part]")?.dataset.part;
    if (part === "remove") remove(row.ticker);
    else if (part === "price" && row.hasAttribute("data-priced")) copyPrice(row.ticker);
    else if (!String(getSelection())) this.#open(row);
  };

  #key = (event) => {
    const row = event.target.closest("price-row");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.#act(event, row)) return;
    event.preventDefault();
    event.stopPropagation();
  };

  #act({ key, target }, row) {
    const rows = [...this.#list.children];
    const at = rows.indexOf(row);
    const goals = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
    if (key in goals) rows[goals[key]]?.focus();
    else if (key === "Enter" && target === row) this.#open(row);
    else if (key === "Delete" || key === "Backspace") remove(row.ticker);
    else if (key === "c" && settings.get("shortcuts")) copyPrice(row.ticker);
    else return false;
    return true;
  }

  #open(row) {
    row.focus();
    this.dispatchEvent(new CustomEvent("open-ticker", { bubbles: true, detail: row.ticker }));
  }
}

/** Finite, so that weights can be subtracted. When only our own line is lost, the order stays. */
function weight(view, weigh) {
  const value = view.state === "live" || view.offline ? weigh(view) : NaN;
  return Number.isFinite(value) ? value : -Number.MAX_VALUE;
}

customElements.define("price-board", PriceBoard);
