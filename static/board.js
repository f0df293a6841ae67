/* Owns <price-board>: which rows there are and where they stand, moving among them by keyboard, and what a click on them
   means. Never paints: paint.js does. What a user asks for goes to actions.js, or up as "open-ticker". */

import { addOrTell, copyPrice, remove, retry } from "./actions.js";
import { clock, nextFrame } from "./frame.js";
import { watchDrags, watchSwipes } from "./hands.js";
import { nextSort, ordered } from "./order.js";
import { Painter } from "./paint.js";
import { Part } from "./part.js";
import { settings } from "./settings.js";
import { store } from "./store.js";
import "./row.js";
import "./sparkline.js";

const RESORT_EVERY = 5; // seconds between new orders when sorted by something that moves
const HELD_FOR = 10_000; // ms after a hand was last on the board, for which rows don't run away from it
const SLIDE = { duration: 180, easing: "ease-out" };
const LOOK = 3; // characters of a symbol that make tickers look alike

class PriceBoard extends Part {
  #rows = new Map(); // ticker → row
  #list = null; // the element that holds them
  #painter = null;
  #seconds = 0;
  #handAt = 0; // when the pointer last moved here or a key was pressed
  #numbers = "common";
  #current = ""; // the ticker whose row is in the tab order

  connectedCallback() {
    this.#list = this.querySelector("[data-rows]");
    const signal = this.listen();
    this.#painter = new Painter(this, this.#rows);
    store.addEventListener("tickers", () => nextFrame(this.#arrange), { signal });
    store.addEventListener("quotes", ({ detail }) => this.#painter.repaint(detail), { signal });
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
    super.disconnectedCallback();
    this.#painter.stop();
  }

  /** Put the focus on a row, on the first when there is no such. */
  focusRow(ticker = this.#current) {
    (this.#rows.get(ticker) ?? this.#list.firstElementChild)?.focus();
  }

  /** The ticker whose row is in use, or was last; empty when there is no row. */
  get current() {
    return this.#rows.has(this.#current) ? this.#current : "";
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
    this.#painter.repaint(this.#rows.keys());
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
      this.#painter.forget(row);
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
    }
    this.#list.insertBefore(row, there ?? null);
    this.#painter.watch(row);
    row.reachable = ticker === this.#current;
    this.#painter.paintWhole(row);
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

  // -- time

  #strike() {
    if (document.hidden) return;
    this.#seconds++;
    nextFrame(this.#painter.beginRound);
    const held = performance.now() - this.#handAt < HELD_FOR;
    if (this.#seconds % RESORT_EVERY === 0 && !held) nextFrame(this.#arrange);
  }

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
      proposal: () => addOrTell(part.value),
      price: () => row.hasAttribute("data-priced") && copyPrice(row.ticker),
    }[part?.dataset.part];
    if (doing) doing();
    else if (!String(getSelection())) this.#open(row);
  };

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
