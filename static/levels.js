/* Owns the lines of alerts' levels on the open chart, and what a pointer or the keyboard does to one: it can be moved. Never
   changes an alert: it tells `onDrag(id, value)` while a line moves and `onDrop(id, value)` when it stays. */

import { contentOf } from "./alertitems.js";
import { priceWords } from "./format.js";
import { write } from "./part.js";

const EDGE = 13; // px: a line beyond the chart waits there
const BEGINS = 3; // px
const SETTLES = 1_200; // ms after the last key
const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };

export class Levels {
  #overlay;
  #onDrag;
  #onDrop;
  #places = 0; // most decimals of a level
  #scale = null; // where prices stand: {yOf, priceAt, size}; null: there is no chart
  #width = NaN; // of the overlay, px
  #height = NaN;
  #lines = new Map(); // id → {element, tag, id, value, words, isNew, before, y, beyond, distance, timer}; `before` is the value
  // it had before it moves, `distance` how many px it stands from its price
  #grip = null; // the line that the pointer holds: {line, from, offset, isMoved}

  constructor(overlay, { onDrag, onDrop }) {
    [this.#overlay, this.#onDrag, this.#onDrop] = [overlay, onDrag, onDrop];
    overlay.addEventListener("pointerdown", this.#grab);
    overlay.addEventListener("pointermove", this.#drag);
    for (const name of ["pointerup", "pointercancel"]) overlay.addEventListener(name, this.#release);
    overlay.addEventListener("keydown", this.#key);
    overlay.addEventListener("focusin", ({ target }) => this.#bound(this.#lineOf(target)));
    overlay.addEventListener("focusout", ({ target }) => this.#settle(this.#lineOf(target)));
  }

  /** Show these lines, {id, value, words, isNew}, and no others. One that moves stays where it is. */
  show(lines, places) {
    this.#places = places;
    const ids = new Set(lines.map(({ id }) => id));
    for (const [id, line] of this.#lines) if (!ids.has(id)) this.#drop(line);
    for (const { id, value, words, isNew = false } of lines) {
      const line = this.#lines.get(id) ?? this.#add(id);
      Object.assign(line, { words, isNew });
      if (line.before === null) this.#put(line, value);
      else line.before = value;
    }
    this.#join();
  }

  /** The line of an alert is now that of the one that stands for it. */
  rename(from, to) {
    const line = this.#lines.get(from);
    if (!line) return;
    this.#lines.delete(from);
    this.#lines.set(to, line);
    line.id = to;
  }

  /** The chart was drawn, or is gone. */
  place = (scale) => {
    this.#scale = scale;
    this.#overlay.hidden = !scale;
    if (!scale) return;
    const { width, height } = scale.size;
    if (this.#width !== width) this.#overlay.style.width = `${width}px`;
    if (this.#height !== height) this.#overlay.style.height = `${height}px`;
    [this.#width, this.#height] = [width, height]; // Asking the element instead would make the browser lay out the page.
    for (const line of this.#lines.values()) this.#stand(line, height);
    this.#join();
  };

  // -- lines

  #add(id) {
    const element = contentOf("level-template").firstElementChild;
    const tag = element.querySelector(".level-tag");
    const line = { element, tag, id, value: "", words: "", isNew: false, before: null, y: NaN, beyond: "", distance: 0, timer: 0 };
    this.#lines.set(id, line);
    this.#overlay.append(element);
    return line;
  }

  #drop(line) {
    clearTimeout(line.timer);
    if (this.#grip?.line === line) this.#grip = null;
    this.#lines.delete(line.id);
    line.element.remove();
  }

  #lineOf(target) {
    const element = target.closest(".level");
    return [...this.#lines.values()].find((line) => line.element === element);
  }

  #put(line, value) {
    line.value = value;
    const words = priceWords(value);
    write(line.tag, `${line.words} ${words}`);
    line.element.setAttribute("aria-label", `Level of the alert: ${line.words}`);
    line.element.setAttribute("aria-valuetext", words);
    this.#bound(line);
    if (this.#scale) this.#stand(line, this.#scale.size.height);
  }

  /** A slider says between which values it moves: those that the chart shows, and its own. */
  #bound({ element, value }) {
    const shown = this.#scale ? [this.#scale.priceAt(this.#scale.size.height), this.#scale.priceAt(0)] : [];
    const ends = [Number(value), ...shown].filter(Number.isFinite);
    const bounds = { now: Number(value), min: Math.min(...ends), max: Math.max(...ends) };
    for (const [name, bound] of Object.entries(bounds)) element.setAttribute(`aria-value${name}`, bound);
  }

  #stand(line, height) {
    const y = this.#scale.yOf(Number(line.value));
    line.element.hidden = y === null;
    if (y === null) return;
    const shown = Math.round(Math.min(height - EDGE, Math.max(EDGE, y)));
    line.beyond = y < 0 ? "above" : y > height ? "below" : "";
    line.distance = Math.abs(y - shown);
    if (line.y !== shown) line.element.style.transform = `translateY(${shown}px)`;
    line.y = shown;
    if (line.element.dataset.beyond !== line.beyond) line.element.dataset.beyond = line.beyond;
  }

  /** Of the lines beyond an edge one is in front, a new one or else the nearest, and says how many are behind it. */
  #join() {
    for (const edge of ["above", "below"]) {
      const joined = [...this.#lines.values()].filter(({ beyond, element }) => beyond === edge && !element.hidden);
      joined.sort((one, other) => other.isNew - one.isNew || one.distance - other.distance);
      joined.forEach((line, at) => mark(line, at > 0, at === 0 && joined.length > 1 ? ` +${joined.length - 1}` : ""));
    }
    for (const line of this.#lines.values()) if (!line.beyond) mark(line, false, "");
  }

  // -- moving

  /** A round number of a price's smallest steps, about a pixel. */
  get #step() {
    const pixel = Math.abs(this.#scale.priceAt(0) - this.#scale.priceAt(1));
    return Math.max(-this.#places, Math.floor(Math.log10(pixel)));
  }

  #move(line, price) {
    const power = this.#step;
    const step = 10 ** power;
    const value = (Math.max(1, Math.round(price / step)) * step).toFixed(Math.max(0, -power));
    if (value === line.value) return;
    line.before ??= line.value;
    this.#put(line, value);
    this.#join();
    this.#onDrag(line.id, value);
  }

  #settle(line) {
    if (!line || line.before === null) return;
    clearTimeout(line.timer);
    const isMoved = line.before !== line.value;
    line.before = null;
    if (isMoved) this.#onDrop(line.id, line.value);
  }

  #revert(line) {
    clearTimeout(line.timer);
    this.#put(line, line.before);
    line.before = null;
    this.#onDrag(line.id, line.value);
  }

  #grab = (event) => {
    const line = this.#lineOf(event.target);
    if (!line || event.button || !this.#scale) return;
    event.preventDefault();
    event.target.setPointerCapture(event.pointerId);
    line.element.focus({ preventScroll: true });
    this.#grip = { line, from: event.clientY, offset: line.y - event.clientY, isMoved: false };
  };

  #drag = ({ clientY }) => {
    const grip = this.#grip;
    if (!grip || !this.#scale) return;
    grip.isMoved ||= Math.abs(clientY - grip.from) > BEGINS;
    const price = this.#scale.priceAt(Math.min(this.#scale.size.height, Math.max(0, clientY + grip.offset)));
    if (grip.isMoved && price !== null) this.#move(grip.line, price);
  };

  #release = ({ type }) => {
    const line = this.#grip?.line;
    this.#grip = null;
    if (!line || line.before === null) return;
    if (type === "pointercancel") this.#revert(line);
    else this.#settle(line);
  };

  #key = (event) => {
    const line = this.#lineOf(event.target);
    if (!line || !this.#scale || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = STEPS[event.key] * (event.shiftKey ? 10 : 1);
    const moves = line.before !== null;
    if (steps) this.#move(line, Number(line.value) + steps * 10 ** this.#step);
    else if (event.key === "Enter") this.#settle(line);
    else if (event.key === "Escape" && moves) this.#revert(line);
    else return;
    event.preventDefault();
    clearTimeout(line.timer);
    if (line.before !== null) line.timer = setTimeout(() => this.#settle(line), SETTLES);
  };
}

function mark({ element, tag }, isBehind, more) {
  element.classList.toggle("behind", isBehind);
  if (tag.dataset.more !== more) tag.dataset.more = more;
}
