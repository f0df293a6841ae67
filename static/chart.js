/* Owns the chart of what this page has seen of a ticker, where Pluto keeps no prices. Never knows of the store: it is given a
   session. */

import { clockTime, figure } from "./format.js";
import { looks, palette, priceFormat, watchScale } from "./plot.js";

export class SessionChart {
  #box;
  #session;
  #places;
  #chart;
  #series;
  #step = 0; // of the session's points as drawn
  #shown = 0; // how many points the view was last fitted to
  #touches = new AbortController(); // aborted when someone scrolls or zooms: until then the whole session stays in view

  /** Draw into `box` by the library. `onScale` is told where prices stand. */
  constructor(charts, box, session, { places, onScale }) {
    [this.#box, this.#session, this.#places] = [box, session, places];
    this.#chart = charts.createChart(box, { autoSize: true, ...this.#looks });
    this.#series = this.#chart.addSeries(charts.AreaSeries, this.#seriesLooks);
    watchScale(this.#chart, this.#series, onScale);
    const { signal } = this.#touches;
    for (const touch of ["wheel", "pointerdown"]) box.addEventListener(touch, () => this.#touches.abort(), { signal, passive: true });
    this.paint();
  }

  /** The newest point, or all of them when older ones were merged since. */
  paint() {
    const session = this.#session;
    const newest = session.newest();
    if (session.step !== this.#step) this.#setAll();
    else if (newest) this.#series.update(newest);
    if (this.#touches.signal.aborted || session.length === this.#shown) return;
    this.#shown = session.length;
    this.#chart.timeScale().fitContent();
  }

  /** The chart is a picture; this is what it shows. */
  get words() {
    const [first, newest] = [this.#session.oldest(), this.#session.newest()];
    const write = ({ value }) => figure(value, this.#places);
    return first ? ` since ${clockTime(first.time * 1000)}: from ${write(first)} to ${write(newest)}` : "";
  }

  restyle() {
    this.#chart.applyOptions(this.#looks);
    this.#series.applyOptions(this.#seriesLooks);
  }

  close() {
    this.#touches.abort();
    this.#chart.remove();
  }

  #setAll() {
    this.#step = this.#session.step;
    this.#series.setData(this.#session.points());
  }

  get #looks() {
    const common = looks(this.#box, this.#places);
    return { ...common, timeScale: { ...common.timeScale, secondsVisible: true, maxBarSpacing: 10 } };
  }

  get #seriesLooks() {
    const colour = palette(this.#box);
    return {
      lineColor: colour("--accent"),
      topColor: colour("--chart-fill"),
      bottomColor: "transparent",
      lineWidth: 2,
      priceLineColor: colour("--muted"),
      priceFormat: priceFormat(this.#places),
    };
  }
}
