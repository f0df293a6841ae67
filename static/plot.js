/* Owns TradingView's open-source lightweight-charts: loading it when the first chart is asked for and not before, and how every
   chart of the page looks. Never holds a price. */

import { clockTime, figure, secondTime } from "./format.js";

const SCRIPT = "/vendor/lightweight-charts.js"; // a classic script that sets window.LightweightCharts

let loading = null;

/** The library, or null where the server doesn't have it. A failure is tried again next time. */
export async function library() {
  loading ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.onload = () => resolve(window.LightweightCharts ?? null);
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
  const charts = await loading;
  if (!charts) loading = null;
  return charts;
}

/** Colours come from the page's own palette, so a chart follows the theme. */
export function looks(box, places) {
  const colour = palette(box);
  const label = { labelBackgroundColor: colour("--ink-soft") };
  return {
    layout: {
      background: { color: "transparent" },
      textColor: colour("--muted"),
      fontFamily: getComputedStyle(box).fontFamily,
      fontSize: 12,
      attributionLogo: false, // It brings an inline style, which our policy forbids; the view names TradingView in words.
    },
    localization: { timeFormatter: (seconds) => secondTime(seconds * 1000), priceFormatter: (price) => figure(price, places) },
    grid: { vertLines: { visible: false }, horzLines: { color: colour("--line") } },
    rightPriceScale: { borderVisible: false, entireTextOnly: true, scaleMargins: { top: 0.12, bottom: 0.08 } },
    timeScale: { borderVisible: false, timeVisible: true, minBarSpacing: 0.05, rightOffset: 1, tickMarkFormatter: tickMark },
    crosshair: { vertLine: label, horzLine: label },
    handleScale: { axisPressedMouseMove: false },
  };
}

/** With each drawing of a chart, tell `onScale` where its prices stand, in px from the top: {yOf, priceAt, size}. */
export function watchScale(chart, series, onScale) {
  const scale = {
    yOf: (price) => series.priceToCoordinate(price),
    priceAt: (y) => series.coordinateToPrice(y),
    get size() { return chart.paneSize(); },
  };
  series.attachPrimitive({ updateAllViews: () => onScale(scale) });
}

export const priceFormat = (places) => ({ type: "custom", formatter: (price) => figure(price, places), minMove: 10 ** -places });

const WITH_SECONDS = 4; // lightweight-charts' TickMarkType.TimeWithSeconds
const tickMark = (seconds, type) => (type === WITH_SECONDS ? secondTime : clockTime)(seconds * 1000);

/** Custom properties as plain rgb(), which is all the library reads: the browser resolves them on a probe. */
export function palette(box) {
  const probe = document.createElement("span");
  return (name) => {
    probe.style.color = `var(${name})`;
    box.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
}
