/* Owns the tab: its title shows the first price on the board, its icon that ticker's direction over 24 hours. Once a second
   at most, since a flickering tab helps nobody. Led by quotes, not by the clock: a hidden tab's clock may strike once a
   minute. Never changes the page itself. */

import { direction } from "./format.js";
import { store } from "./store.js";

const EVERY = 1_000; // ms
const ARROWS = { up: "▲ ", down: "▼ ", flat: "", "": "" };

/** Keep the tab's title and icon up to date. */
export function keepTitle() {
  const icon = document.querySelector("link[rel=icon]");
  let shownAt = -EVERY;
  let timer = 0;
  const show = () => {
    clearTimeout(timer);
    timer = 0;
    shownAt = performance.now();
    const { title, look } = tab();
    if (document.title !== title) document.title = title;
    const href = `/static/icon${look ? `-${look}` : ""}.svg`;
    if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
  };
  const showSoon = () => {
    const wait = shownAt + EVERY - performance.now();
    if (wait <= 0) show();
    else timer ||= setTimeout(show, wait);
  };
  for (const news of ["quotes", "tickers"]) store.addEventListener(news, showSoon);
  store.addEventListener("connection", show);
  show();
}

function tab() {
  const badge = document.documentElement.hasAttribute("data-simulated") ? "SIMULATED · " : "";
  if (store.connection.lostAt) return { title: `${badge}Not connected · Pluto`, look: "off" };
  const view = firstLive();
  if (!view) return { title: `${badge}Pluto`, look: "" };
  const way = direction(view.changePercent);
  return { title: `${badge}${ARROWS[way]}${view.priceText} ${view.ticker} · Pluto`, look: way === "flat" ? "" : way };
}

/** In the order of the board, however it is sorted; a page that was never in front has no rows yet. */
function firstLive() {
  const rows = [...document.querySelectorAll("price-row")].map((row) => row.ticker);
  const tickers = rows.length ? rows : store.shown();
  return tickers.map((ticker) => store.view(ticker)).find(({ state }) => state === "live");
}
