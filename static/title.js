/* Owns the tab: its title shows the first price on the board, its icon that ticker's direction over 24 hours. Once a second
   at most, since a flickering tab helps nobody. Led by quotes, not by the clock: a hidden tab's clock may strike once a
   minute. Never changes the page itself. */

import { direction, priceWords } from "./format.js";
import { store } from "./store.js";

const EVERY = 1_000; // ms
const UP = '<circle cx="14" cy="18" r="12" fill="#12805a"/><circle cx="27" cy="6" r="4" fill="#3fbf8f"/><path d="M14 11.5l6 10H8z" fill="#fff"/>';
const DOWN = '<circle cx="14" cy="18" r="12" fill="#c2382a"/><circle cx="27" cy="6" r="4" fill="#ef7a6c"/><path d="M14 24.5l6-10H8z" fill="#fff"/>';
const OFF = '<g fill="none" stroke="#83868e" stroke-width="3"><circle cx="14" cy="18" r="10.5"/><path d="M6 26L22 10"/></g>';
const ARROWS = { up: "▲ ", down: "▼ ", flat: "", "": "" };

/** Keep the tab's title and icon up to date. */
export function keepTitle() {
  const icon = document.querySelector("link[rel=icon]");
  const icons = { "": icon.getAttribute("href"), up: picture(UP), down: picture(DOWN), off: picture(OFF) };
  let shownAt = -EVERY;
  let timer = 0;
  const show = () => {
    clearTimeout(timer);
    timer = 0;
    shownAt = performance.now();
    const { title, look } = tab();
    if (document.title !== title) document.title = title;
    const href = icons[look];
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
  return { title: `${badge}${ARROWS[way]}${priceWords(view.priceText)} ${view.ticker} · Pluto`, look: way === "flat" ? "" : way };
}

/** In the order of the board, however it is sorted; a page that was never in front has no rows yet. */
function firstLive() {
  const rows = [...document.querySelectorAll("price-row")].map((row) => row.ticker);
  const tickers = rows.length ? rows : store.shown();
  return tickers.map((ticker) => store.view(ticker)).find(({ state }) => state === "live");
}

/** An icon that needs no server: the one for an outage least of all. */
function picture(shapes) {
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${shapes}</svg>`)}`;
}
