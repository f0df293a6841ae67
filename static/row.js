/* Owns <price-row>: one ticker on the board. It is told what to show and writes only what differs from what it shows
   already. Never reads the store, never listens: the board does both for all its rows. */

import { age, amount, decimals, difference, direction, figure, nextTry, percent, priceRuns, reason, STATE_WORDS } from "./format.js";

const MARK_FOR = 900; // ms for which digits that moved stay marked
const CALCULATED = / \(calculated by TradingView\)$/; // said by a mark beside the name
const NOTHING = { text: "" };
export const ARROWS = { up: "▲", down: "▼", flat: "", "": "" };

class PriceRow extends HTMLElement {
  #parts = {};
  #priceText = null; // as painted; "" when there is none
  #price = NaN;
  #markedAt = 0;

  connectedCallback() {
    if (this.firstChild) return;
    this.append(document.getElementById("row-template").content.cloneNode(true));
    for (const part of this.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    this.setAttribute("role", "row");
    this.tabIndex = -1;
    const [symbol, exchange] = this.ticker.split(":").reverse();
    this.#parts.exchange.textContent = exchange ? `${exchange}:` : "";
    this.#parts.symbol.textContent = symbol;
    this.#parts.remove.setAttribute("aria-label", `Remove ${this.ticker}`);
    this.#parts.open.title = this.ticker;
  }

  get ticker() {
    return this.dataset.ticker;
  }

  /** Is a mark on the price that will have to fade? */
  get marked() {
    return this.#markedAt > 0;
  }

  /** Only the row in use is in the tab order, with what it holds. */
  set reachable(reachable) {
    this.tabIndex = reachable ? 0 : -1;
    for (const part of ["open", "price", "remove"]) this.#parts[part].tabIndex = this.tabIndex;
  }

  /** What a price brings with it. The day's figures follow within a second, unless this is a new beginning. */
  paint(view, now) {
    const begins = this.dataset.state !== view.state;
    if (begins) this.dataset.state = view.state;
    this.toggleAttribute("data-priced", Boolean(view.priceText));
    this.#paintName(view);
    this.#paintPrice(view, now);
    this.#paintChange(view);
    this.paintAge(view, now);
    if (begins) this.paintDay(view);
  }

  /** The exchange stands before the ticker, unless it is the usual one. */
  #paintName({ description, calculated }) {
    const name = description?.replace(CALCULATED, "") ?? "";
    if (write(this.#parts.description, name)) this.#parts.description.title = name;
    if (this.#parts.calculated.hidden === Boolean(calculated)) this.#parts.calculated.hidden = !calculated;
  }

  #paintPrice({ priceText = "", price, currency = "", state }, now) {
    write(this.#parts.currency, currency);
    if (priceText === this.#priceText) return;
    const moved = direction(price - this.#price);
    const { price: element, arrow } = this.#parts;
    writeRuns(element, priceText ? priceRuns(priceText, this.#priceText) : [{ text: "—" }]);
    element.disabled = !priceText;
    element.classList.toggle("up", moved === "up" && state === "live");
    element.classList.toggle("down", moved === "down" && state === "live");
    write(arrow, ARROWS[moved]);
    arrow.dataset.direction = moved;
    this.#markedAt = moved ? now : 0;
    this.#priceText = priceText;
    this.#price = priceText ? price : NaN;
  }

  /** Take the mark off again; true while it still has to stay. */
  fade(now) {
    if (!this.#markedAt) return false;
    if (now - this.#markedAt < MARK_FOR) return true;
    this.#markedAt = 0;
    this.#parts.price.classList.remove("up", "down");
    return false;
  }

  #paintChange({ changePercent, change, priceText = "" }) {
    const { percent: shown, change: absolute } = this.#parts;
    write(shown, percent(changePercent));
    write(absolute, difference(change, decimals(priceText)));
    const way = direction(changePercent);
    if (shown.dataset.direction !== way) shown.dataset.direction = way;
  }

  /** The day's figures: once a second, since nobody reads them while they flicker. */
  paintDay(view) {
    this.#paintRange(view);
    this.#paintVolume(view);
  }

  #paintRange({ low, high, price, priceText = "" }) {
    const known = Number.isFinite(low) && Number.isFinite(high) && high > low && Number.isFinite(price);
    this.#parts.range.hidden = !known;
    if (!known) return;
    const at = Math.min(1, Math.max(0, (price - low) / (high - low))).toFixed(3);
    if (this.#parts.range.dataset.at !== at) {
      this.#parts.range.dataset.at = at;
      this.#parts.range.style.setProperty("--at", at);
    }
    write(this.#parts.low, figure(low, decimals(priceText)));
    write(this.#parts.high, figure(high, decimals(priceText)));
  }

  #paintVolume({ volume, price, currency = "" }) {
    write(this.#parts.volume, amount(volume));
    const value = amount(volume * price);
    write(this.#parts.value, value && `≈ ${value} ${currency}`.trim());
  }

  /** What changes by the clock alone. */
  paintAge(view, now) {
    write(this.#parts.state, STATE_WORDS[view.state] ?? view.state);
    write(this.#parts.age, age(view, now));
    const why = reason(view);
    const next = nextTry(view, now);
    if (write(this.#parts.reason, why)) this.#parts.reason.title = why;
    write(this.#parts.next, next);
    this.toggleAttribute("data-reason", Boolean(why || next));
  }

  drawTrend(session) {
    this.#parts.trend.draw(session);
  }
}

/** Write a text if it differs; true when it did. */
export function write(element, text) {
  const shown = element.firstChild;
  if (shown ? shown.data === text : text === "") return false;
  if (shown) shown.data = text; // No new node for each price: collecting them would cost more than all the rest.
  else element.textContent = text;
  return true;
}

/** Runs of a price as spans, reusing those that are there; what is left over stays, empty, for the next price. */
export function writeRuns(element, runs) {
  while (element.children.length < runs.length) element.append(document.createElement("span"));
  [...element.children].forEach((span, at) => {
    const { text, moved, faint, gap } = runs[at] ?? NOTHING;
    write(span, text);
    const look = `${moved ? "moved " : ""}${faint ? "faint " : ""}${gap ? "gap" : ""}`.trim();
    if (span.className !== look) span.className = look;
  });
}

customElements.define("price-row", PriceRow);
