/* Owns <price-row>: one ticker on the board. It is told what to show and writes only what differs from what it shows
   already. Never reads the store, never listens: the board does both for all its rows. */

import { age, amount, dayRange, decimals, difference, direction, figure, headline, nextTry, percent, priceRuns, priceWords, reason, stateWords, waits } from "./format.js";
import { write } from "./part.js";

const MARK_FOR = 900; // ms for which digits that moved stay marked
const CALCULATED = / \(calculated by TradingView\)$/; // said by a mark beside the name
const USUAL_EXCHANGE = "BINANCE";
const NOTHING = { text: "" };
export const ARROWS = { up: "▲", down: "▼", flat: "", "": "" };

class PriceRow extends HTMLElement {
  trendDueAt = 0; // when its trend is drawn again, ms
  lost = ""; // the state for which the board has asked what to track instead
  #parts = {};
  #priceText = null; // as painted; "" when there is none
  #shown = ""; // the same, as written
  #price = NaN;
  #low = NaN; // of the range as painted
  #high = NaN;
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
    this.#parts.market.textContent = [exchange ?? USUAL_EXCHANGE, symbol.endsWith(".P") && "perpetual"].filter(Boolean).join(" · ");
    this.#parts.remove.setAttribute("aria-label", `Remove ${this.ticker}`);
    this.#parts.open.title = this.ticker;
  }

  get ticker() {
    return this.dataset.ticker;
  }

  /** The price as written. */
  get shown() {
    return this.#shown;
  }

  /** Is a mark on the price that will have to fade? */
  get marked() {
    return this.#markedAt > 0;
  }

  /** Only the row in use is in the tab order, with what it holds. */
  set reachable(reachable) {
    this.tabIndex = reachable ? 0 : -1;
    for (const part of this.querySelectorAll("button")) part.tabIndex = this.tabIndex;
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
    if (begins || this.#isOutside(view.price)) this.paintDay(view);
  }

  /** From now on numbers are written in another way. */
  rewrite() {
    this.#priceText = null;
    this.#shown = "";
    this.#markedAt = 0;
  }

  /** Tickers to track instead of this one. */
  propose(tickers) {
    this.#parts.proposals.replaceChildren(...tickers.map((ticker) => proposal(ticker, this.tabIndex)));
  }

  /** A price outside the range that is shown waits for no second to pass. */
  #isOutside(price) {
    return price < this.#low || price > this.#high;
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
    const shown = priceWords(priceText);
    writeRuns(element, shown ? priceRuns(shown, this.#shown) : [{ text: "—" }]);
    element.disabled = !priceText;
    element.classList.toggle("up", moved === "up" && state === "live");
    element.classList.toggle("down", moved === "down" && state === "live");
    write(arrow, ARROWS[moved]);
    arrow.dataset.direction = moved;
    this.#markedAt = moved ? now : 0;
    this.#priceText = priceText;
    this.#shown = shown;
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

  #paintRange(view) {
    const { price, priceText = "" } = view;
    const { low, high } = dayRange(view);
    [this.#low, this.#high] = [low, high];
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
    write(this.#parts.state, stateWords(view.state));
    write(this.#parts.age, age(view, now));
    const why = reason(view, now);
    const next = nextTry(view, now);
    write(this.#parts.reason, headline(why));
    if (this.#parts.reason.title !== why) this.#parts.reason.title = why;
    write(this.#parts.next, next);
    const canTry = waits(view) && view.state !== "blocked";
    if (this.#parts.retry.hidden === canTry) this.#parts.retry.hidden = !canTry;
    this.toggleAttribute("data-reason", Boolean(why || next));
  }

  get trend() {
    return this.#parts.trend;
  }

  paintTrend(trend) {
    this.#parts.trend.draw(trend);
  }
}

export function proposal(ticker, tabIndex = 0) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small";
  button.dataset.part = "proposal";
  button.value = ticker;
  button.tabIndex = tabIndex;
  button.textContent = `Track ${ticker}`;
  return button;
}

/** Runs of a price as spans, reusing those that are there; what is left over stays, empty, for the next price. */
export function writeRuns(element, runs) {
  while (element.children.length < runs.length) element.append(document.createElement("span"));
  [...element.children].forEach((span, at) => {
    const { text, moved, faint } = runs[at] ?? NOTHING;
    write(span, text);
    const look = `${moved ? "moved " : ""}${faint ? "faint" : ""}`.trim();
    if (span.className !== look) span.className = look;
  });
}

customElements.define("price-row", PriceRow);
