/* Owns <price-board>: which rows stand where, painting those that changed once a frame, moving among them by keyboard, and
   what a click on them means. Never talks to the server; what a user asks for goes to actions.js, or up as "open-ticker". */

import { add, copyPrice, proposals, remove, retry } from "./actions.js";
import { clock, nextFrame } from "./frame.js";
import { watchDrags, watchSwipes } from "./hands.js";
import { notify } from "./notices.js";
import { nextSort, ordered } from "./order.js";
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
const LOOK = 3; // characters of a symbol that make tickers look alike
const LOST = ["not_found", "error"]; // states in which another ticker may be the right one

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
  #numbers = "common";
  #current = ""; // the ticker whose row is in the tab order
  #listening = null;

  connectedCallback() {
    this.#list = this.querySelector("[data-rows]");
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.#watcher = new IntersectionObserver(this.#watch, { rootMargin: NEARLY });
    store.addEventListener("tickers", () => nextFrame(this.#arrange), { signal });
    store.addEventListener("quotes", ({ detail }) => this.#repaint(detail), { signal });
    settings.addEventListener("change", this.#resettle, { signal });
    clock.addEventListener("second", () => this.#strike(), { signal });
    this.addEventListener("click", this.#click, { signal });
    this.addEventListener("keydown", this.#key, { signal });
    this.addEventListener("pointermove", this.#noteHand, { signal, passive: true });
    this.addEventListener("keydown", this.#noteHand, { signal, capture: true });
    this.addEventListener("focusin", ({ target }) => this.#reach(target.closest("price-row")), { signal });
    watchSwipes(this.#list, (row) => remove(row.ticker), signal);
    watchDrags(this.#list, () => settings.arrange(this.#standing), signal);
    this.#resettle();
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

  get #standing() {
    return [...this.#list.children].map((row) => row.ticker);
  }

  #resettle = () => {
    const [key, way] = settings.get("sort").split("-");
    this.dataset.sort = key;
    for (const button of this.querySelectorAll("[data-sort]")) {
      const sense = way === "down" ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", button.dataset.sort === key ? sense : "none");
    }
    if (this.#numbers !== settings.get("numbers")) this.#rewrite();
    nextFrame(this.#arrange);
  };

  #rewrite() {
    this.#numbers = settings.get("numbers");
    for (const row of this.#rows.values()) row.rewrite();
    this.#repaint(this.#rows.keys());
  }

  #arrange = () => {
    if ("dragging" in this.#list.dataset) return;
    const order = ordered(store.shown(), settings.get("sort"), settings.own, (ticker) => store.view(ticker));
    if (order.join() === this.#standing.join()) return;
    const before = this.#tops();
    const focused = this.contains(document.activeElement) ? document.activeElement : null;
    const place = this.#list.contains(focused) ? [...this.#list.children].indexOf(focused.closest("price-row")) : -1;
    this.#drop(order);
    order.forEach((ticker, at) => this.#place(ticker, at));
    this.#keepFocus(focused, place);
    this.#tellApart(order);
    this.#slide(before);
    this.hidden = order.length === 0;
  };

  /** The market is told of tickers that look alike. */
  #tellApart(order) {
    const look = (ticker) => ticker.split(":").at(-1).slice(0, LOOK);
    const looks = order.map(look);
    for (const [ticker, row] of this.#rows) row.toggleAttribute("data-alike", looks.filter((one) => one === look(ticker)).length > 1);
  }

  /** Up or down by one place, into the user's own order. */
  #move(row, by) {
    const order = this.#standing;
    const at = order.indexOf(row.ticker);
    if (!order[at + by]) return;
    [order[at], order[at + by]] = [order[at + by], order[at]];
    settings.arrange(order);
  }

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
    if (row.shown.length > this.#digits) this.#widen(row.shown);
    const lost = LOST.includes(view.state) ? view.state : "";
    if (row.lost !== lost) this.#propose(row, lost);
    if (row.marked) this.#fadeLater(row);
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
    const head = target.closest("button[data-sort]");
    if (head) settings.set("sort", nextSort(settings.get("sort"), head.dataset.sort));
    const row = target.closest("price-row");
    if (!row) return;
    const part = target.closest("[data-part]");
    const doing = {
      remove: () => remove(row.ticker),
      retry: () => retry(row.ticker),
      proposal: () => this.#take(part.value),
      price: () => row.hasAttribute("data-priced") && copyPrice(row.ticker),
    }[part?.dataset.part];
    if (doing) doing();
    else if (!String(getSelection())) this.#open(row);
  };

  async #take(proposed) {
    const { why } = await add(proposed);
    if (why) notify(why);
  }

  #key = (event) => {
    const row = event.target.closest("price-row");
    if (!row || event.ctrlKey || event.metaKey) return;
    if (!this.#act(event, row)) return;
    event.preventDefault();
    event.stopPropagation();
  };

  #act({ key, target, altKey }, row) {
    const rows = [...this.#list.children];
    const at = rows.indexOf(row);
    const goals = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (altKey) return this.#actOnOrder(key, row);
    if (key in goals) goTo(rows[goals[key]], target);
    else if (step) goAlong(row, target, step);
    else if (key === "Enter" && target === row) this.#open(row);
    else if (key === "Delete" || key === "Backspace") remove(row.ticker);
    else if (key === "c" && settings.get("shortcuts")) copyPrice(row.ticker);
    else return false;
    return true;
  }

  #actOnOrder(key, row) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (by) this.#move(row, by);
    return Boolean(by);
  }

  #open(row) {
    row.focus();
    this.dispatchEvent(new CustomEvent("open-ticker", { bubbles: true, detail: row.ticker }));
  }
}

/** Up and down the cells of one column stay one column. */
function goTo(row, from) {
  const part = from.dataset.part;
  const same = part && row?.querySelector(`button[data-part="${part}"]:not([hidden], :disabled)`);
  (same || row)?.focus();
}

/** From the row to what can be done in its cells, and back. */
function goAlong(row, from, step) {
  const stops = [row, ...row.querySelectorAll("button:not(:disabled)")].filter((stop) => stop.checkVisibility?.() ?? true);
  stops[stops.indexOf(from) + step]?.focus();
}

customElements.define("price-board", PriceBoard);
