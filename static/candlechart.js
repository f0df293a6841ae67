/* Owns the chart of a ticker's kept prices, as candles or as a line of their closes: it draws what a Past tells, and has it read
   on where someone looks further back. A gap stays empty; a candle with a gap inside is grey. Asks nobody itself. */

import { clockTime, dayWords, momentWords, priceWords } from "./format.js";
import { nextFrame } from "./frame.js";
import { looks, palette, priceFormat, watchScale } from "./plot.js";

const NEAR = 30; // candles beyond the left edge below which the page before is read
const DAY = "1d";
const TIME = 3; // lightweight-charts' TickMarkType: below are days, months and years

export class CandleChart {
  #box;
  #past;
  #places;
  #charts;
  #chart;
  #series = null;
  #kind = "";
  #colours = {};
  #due = new Map(); // start → slot to draw in the next frame
  #allDue = true;
  #lastTime = -Infinity; // of the newest slot drawn, in seconds
  #isOver = false;
  #onLook;
  #onScale;
  #ahead; // seconds by which the axis is ahead of UTC, so that its days begin at the reader's midnight

  /** Draw into `box` by the library, as "candles" or a "line". `onLook` is told the candle pointed at, or the newest one, `onScale`
      where prices stand. */
  constructor(charts, box, past, { kind, places, onLook, onScale }) {
    [this.#charts, this.#box, this.#past, this.#places] = [charts, box, past, places];
    [this.#onLook, this.#onScale] = [onLook, onScale];
    this.#ahead = past.interval === DAY ? 0 : -60 * new Date().getTimezoneOffset();
    this.#chart = charts.createChart(box, { autoSize: true, ...this.#looks });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => range && range.from < NEAR && past.readOlder());
    this.#chart.subscribeCrosshairMove(({ time }) => this.#look(time));
    past.onSlots = (slots) => this.#draw(slots);
    past.onAll = () => this.#drawAll();
    this.drawAs(kind);
  }

  get past() { return this.#past; }

  drawAs(kind) {
    if (kind === this.#kind) return;
    this.#kind = kind;
    if (this.#series) this.#chart.removeSeries(this.#series);
    this.#colours = colours(this.#box);
    this.#series = this.#chart.addSeries(kind === "line" ? this.#charts.LineSeries : this.#charts.CandlestickSeries, this.#seriesLooks);
    watchScale(this.#chart, this.#series, this.#onScale);
    this.#allDue = true;
    this.#paint();
  }

  restyle() {
    this.#colours = colours(this.#box);
    this.#chart.applyOptions(this.#looks);
    this.#series.applyOptions(this.#seriesLooks);
    this.#drawAll();
  }

  close() {
    this.#isOver = true;
    this.#past.close();
    this.#chart.remove();
  }

  /** The chart is a picture; this is what it shows. */
  get words() {
    const { oldest, newest, gaps } = this.#past.candles;
    if (!oldest) return ", without a price yet";
    const missing = gaps ? `, with ${gaps === 1 ? "a gap" : `${gaps} gaps`}` : "";
    return ` since ${clockTime(oldest.start)}: from ${priceWords(oldest.open)} to ${priceWords(newest.close)}${missing}`;
  }

  // -- draw

  #draw(slots) {
    for (const slot of slots) this.#due.set(slot.start, slot);
    if (slots.length) nextFrame(this.#paint);
  }

  #drawAll() {
    this.#allDue = true;
    nextFrame(this.#paint);
  }

  #paint = () => {
    if (this.#isOver) return;
    if (this.#allDue) this.#setAll();
    else for (const slot of this.#due.values()) this.#update(this.#bar(slot));
    this.#allDue = false;
    this.#due.clear();
    this.#look();
  };

  #setAll() {
    const bars = this.#past.candles.slots().map((slot) => this.#bar(slot));
    this.#series.setData(bars);
    this.#lastTime = bars.at(-1)?.time ?? -Infinity;
  }

  #update(bar) {
    this.#series.update(bar, bar.time < this.#lastTime);
    this.#lastTime = Math.max(this.#lastTime, bar.time);
  }

  /** A slot as the library wants it. */
  #bar({ start, candle, isFlat, ends }) {
    const time = start / 1000 + this.#ahead;
    if (!candle) return { time };
    const { muted } = this.#colours;
    if (this.#kind === "line") return { time, value: Number(candle.close), ...(ends && { color: "transparent" }) };
    const grey = (isFlat || candle.gap) && { color: muted, borderColor: muted, wickColor: muted };
    return { time, open: Number(candle.open), high: Number(candle.high), low: Number(candle.low), close: Number(candle.close), ...grey };
  }

  #look(time) {
    const { candles } = this.#past;
    const isNewest = time === undefined;
    this.#onLook(isNewest ? candles.newest : candles.at(this.#momentOf(time)), isNewest);
  }

  #momentOf(time) {
    return (time - this.#ahead) * 1000;
  }

  // -- looks

  /** A day's candle is one of UTC's days, wherever its reader is. */
  get #looks() {
    const isUtc = this.#past.interval === DAY;
    const common = looks(this.#box, this.#places);
    const timeFormatter = (time) => (isUtc ? `${dayWords(this.#momentOf(time), isUtc)} UTC` : momentWords(this.#momentOf(time)));
    const tickMarkFormatter = (time, type) => (type < TIME ? dayWords(this.#momentOf(time), isUtc) : clockTime(this.#momentOf(time), this.#momentOf(time)));
    return {
      ...common,
      localization: { ...common.localization, timeFormatter },
      timeScale: { ...common.timeScale, secondsVisible: false, tickMarkFormatter },
    };
  }

  get #seriesLooks() {
    const { up, down, ground, accent, muted } = this.#colours;
    const line = { color: accent, lineWidth: 2 };
    const candles = { upColor: ground, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down };
    return { ...(this.#kind === "line" ? line : candles), priceLineColor: muted, priceFormat: priceFormat(this.#places) };
  }
}

function colours(box) {
  const colour = palette(box);
  return { up: colour("--up"), down: colour("--down"), ground: colour("--raised"), accent: colour("--accent"), muted: colour("--edge") };
}
