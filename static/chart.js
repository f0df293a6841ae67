/* Owns the session chart of the detail view, drawn by TradingView's open-source lightweight-charts, which is loaded when the
   first chart is asked for and not before. Never knows of the store: it is given a session. */

import { figure } from "./format.js";

const SCRIPT = "/vendor/lightweight-charts.js"; // a classic script that sets window.LightweightCharts
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const TIME_SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const WITH_SECONDS = 4; // lightweight-charts' TickMarkType.TimeWithSeconds

let loading = null;

/** The library, or a rejected promise where the server doesn't have it. A failure is tried again next time. */
function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.onload = () => (window.LightweightCharts ? resolve(window.LightweightCharts) : reject(new Error("not the library")));
    script.onerror = () => reject(new Error("no library"));
    document.head.append(script);
  }).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

export class SessionChart {
  #chart = null;
  #series = null;
  #step = 0; // of the session's points as drawn
  #shown = 0; // how many points the view was last fitted to
  #follows = true; // the whole session stays in view until someone scrolls or zooms

  /** Draw into `box`; false where there is no library. */
  async open(box, session, places) {
    const charts = await library().catch(() => null);
    if (!charts || !box.isConnected) return false;
    this.#chart = charts.createChart(box, { autoSize: true, ...looks(box), localization: { timeFormatter: time, priceFormatter: fixed(places) } });
    this.#series = this.#chart.addSeries(charts.AreaSeries, seriesLooks(box, places));
    this.update(session);
    for (const touch of ["wheel", "pointerdown"]) box.addEventListener(touch, () => (this.#follows = false), { once: true, passive: true });
    return true;
  }

  /** The newest point, or all of them when older ones were merged since. */
  update(session) {
    if (!this.#series) return;
    const newest = session.newest();
    if (session.step !== this.#step) this.#setAll(session);
    else if (newest) this.#series.update(newest);
    if (!this.#follows || session.length === this.#shown) return;
    this.#shown = session.length;
    this.#chart.timeScale().fitContent();
  }

  restyle(box, places) {
    this.#chart?.applyOptions(looks(box));
    this.#series?.applyOptions(seriesLooks(box, places));
  }

  close() {
    this.#chart?.remove();
    this.#chart = null;
    this.#series = null;
  }

  #setAll(session) {
    this.#step = session.step;
    this.#series.setData(session.points());
  }
}

const time = (seconds) => TIME_SECONDS.format(seconds * 1000);
const fixed = (places) => (price) => figure(price, places);

/** Colours come from the page's own palette, so a chart follows the theme. */
function looks(box) {
  const colour = palette(box);
  const line = { color: colour("--line") };
  return {
    layout: {
      background: { color: "transparent" },
      textColor: colour("--muted"),
      fontFamily: getComputedStyle(box).fontFamily,
      fontSize: 12,
      attributionLogo: false, // It brings an inline style, which our policy forbids; the view names TradingView in words.
    },
    grid: { vertLines: { visible: false }, horzLines: line },
    rightPriceScale: { borderVisible: false, entireTextOnly: true, scaleMargins: { top: 0.12, bottom: 0.08 } },
    timeScale: { borderVisible: false, timeVisible: true, secondsVisible: true, tickMarkFormatter: tickMark, minBarSpacing: 0.05, maxBarSpacing: 10, rightOffset: 1 },
    crosshair: { vertLine: { labelBackgroundColor: colour("--ink-soft") }, horzLine: { labelBackgroundColor: colour("--ink-soft") } },
    handleScale: { axisPressedMouseMove: false },
  };
}

const tickMark = (seconds, type) => (type === WITH_SECONDS ? TIME_SECONDS : TIME).format(seconds * 1000);

function seriesLooks(box, places) {
  const colour = palette(box);
  return {
    lineColor: colour("--accent"),
    topColor: colour("--chart-fill"),
    bottomColor: "transparent",
    lineWidth: 2,
    priceLineColor: colour("--muted"),
    priceFormat: { type: "custom", formatter: fixed(places), minMove: 10 ** -places },
  };
}

/** Custom properties as plain rgb(), which is all the library reads: the browser resolves them on a probe. */
function palette(box) {
  const probe = document.createElement("span");
  return (name) => {
    probe.style.color = `var(${name})`;
    box.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
}
