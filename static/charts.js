/* Owns <price-chart>: which chart shows a ticker, with its buttons, its legend and its export. Where Pluto keeps prices it is
   that of the kept ones, else that of what this page has seen. Tells by "scale" where prices stand on it, after each
   drawing; null: there is no chart. Loaded with the first detail view, not before. */

import { historyOf } from "./api.js";
import { CandleChart } from "./candlechart.js";
import { SessionChart } from "./chart.js";
import { clockTime, decimals, momentWords, priceWords } from "./format.js";
import { clock } from "./frame.js";
import { Part, write } from "./part.js";
import { Past } from "./past.js";
import { library } from "./plot.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const GAPS = {
  line: "Where there is no line, the price was unknown.",
  candles: "Where there is nothing, the price was unknown. Grey: it stood still, or was unknown for a part of the time.",
};

class PriceChart extends Part {
  #parts = {};
  #ticker = "";
  #chart = null; // a CandleChart or a SessionChart
  #turn = 0; // grows with each chart that is asked for: only the newest is shown
  #charts = null; // the library
  #scale = null; // as told last

  connectedCallback() {
    for (const part of this.querySelectorAll("[data-chart]")) this.#parts[part.dataset.chart] = part;
  }

  disconnectedCallback() {
    this.close();
  }

  /** Resolves to whether there is a chart: not where the library can't be had, or another ticker was opened meanwhile. */
  async open(ticker) {
    this.close();
    this.#ticker = ticker;
    const signal = this.listen();
    this.#charts = await library();
    if (signal.aborted || !this.#charts) return false;
    settings.addEventListener("change", this.#resettle, { signal });
    store.addEventListener("connection", this.#reopen, { signal });
    clock.addEventListener("second", this.#strike, { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#chart?.restyle(), { signal });
    this.addEventListener("click", this.#click, { signal });
    await this.#show();
    return !signal.aborted;
  }

  close() {
    this.unlisten();
    this.#turn++;
    this.#chart?.close();
    this.#chart = null;
    this.#tellScale(null);
  }

  get scale() { return this.#scale; }

  /** What only this page has seen; a chart of kept prices paints itself. */
  paint() {
    if (this.#chart instanceof SessionChart) this.#chart.paint();
  }

  get #places() {
    return decimals(store.view(this.#ticker).priceText);
  }

  // -- which chart

  /** The chart that was there stays until the next one is known. */
  async #show() {
    const turn = ++this.#turn;
    const past = new Past(this.#ticker, settings.get("interval"));
    const { ok, answer, message } = await past.open();
    if (turn !== this.#turn) return past.close();
    this.#chart?.close();
    this.#chart = ok ? this.#drawPast(past) : this.#drawSession(past);
    for (const part of ["bar", "legend", "export"]) this.#parts[part].hidden = !ok;
    write(this.#parts.note, ok || answer.code === "no_store" ? "" : `Since this page was opened. ${message}`);
    this.#name();
  }

  #drawPast(past) {
    const looks = { kind: settings.get("chart"), places: this.#places, onLook: this.#tell, onScale: this.#tellScale };
    return new CandleChart(this.#charts, this.#parts.box, past, looks);
  }

  #drawSession(past) {
    past.close();
    return new SessionChart(this.#charts, this.#parts.box, store.session(this.#ticker), { places: this.#places, onScale: this.#tellScale });
  }

  /** Where the kept prices couldn't be read, they may be now. */
  #reopen = () => {
    if (store.connection.state === "open" && this.#chart instanceof SessionChart) this.#show();
  };

  #resettle = () => {
    const past = this.#chart?.past;
    if (past && past.interval !== settings.get("interval")) this.#show();
    this.#chart?.drawAs?.(settings.get("chart"));
    this.#chart?.restyle();
    this.#name();
  };

  #strike = () => {
    this.#chart?.past?.strike();
    this.#name();
  };

  #click = ({ target }) => {
    const { value } = target;
    if (target.parentElement === this.#parts.intervals) settings.set("interval", value);
    else if (target.parentElement === this.#parts.kinds) settings.set("chart", value);
  };

  // -- words

  #name() {
    if (!this.#chart) return;
    const interval = settings.get("interval");
    press(this.#parts.intervals, interval);
    press(this.#parts.kinds, settings.get("chart"));
    const name = `Chart of ${this.#ticker}${this.#chart.words}`;
    if (this.#parts.box.getAttribute("aria-label") !== name) this.#parts.box.setAttribute("aria-label", name);
    this.#parts.simulated.hidden = !store.simulated;
    if (!this.#chart.past) return;
    const { gaps } = this.#chart.past.candles;
    write(this.#parts.note, gaps ? GAPS[settings.get("chart")] : "");
    this.#parts.export.href = `${historyOf(this.#ticker)}?${new URLSearchParams({ interval, format: "csv" })}`;
    this.#parts.export.download = `${this.#ticker} ${interval}.csv`.replace(/[:/]/g, "-");
  }

  #tellScale = (scale) => {
    this.#scale = scale;
    this.dispatchEvent(new CustomEvent("scale", { detail: scale }));
  };

  /** The candle that is pointed at, or else the newest one. */
  #tell = (candle, isNewest) => {
    const figures = candle && [["O", candle.open], ["H", candle.high], ["L", candle.low], ["C", candle.close]];
    const when = candle && (isNewest ? clockTime : momentWords)(candle.start);
    write(this.#parts.legend, candle ? `${when}  ${figures.map(([name, price]) => `${name}\u00a0${priceWords(price)}`).join("  ")}` : "");
  };
}

function press(group, value) {
  for (const button of group.children) {
    const isPressed = String(button.value === value);
    if (button.getAttribute("aria-pressed") !== isPressed) button.setAttribute("aria-pressed", isPressed);
  }
}

customElements.define("price-chart", PriceChart);
