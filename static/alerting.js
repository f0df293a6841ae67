/* Owns the start of all that the page shows of alerts: its looks and its templates, the bells of the board, the count at the
   toolbar's bell. Loaded after the first prices, not before. Never holds an alert. */

import { AlertForm } from "./alertform.js";
import { AlertList } from "./alertlist.js";
import { alerts } from "./alerts.js";
import { count } from "./format.js";
import { nextFrame } from "./frame.js";
import "./ring.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const MOST_SAID = 9; // unseen; more are "9+"
const AGAIN_AFTER = 1_000; // ms

const looks = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/static/alerts.css" });
const styled = new Promise((resolve) => ["load", "error"].forEach((name) => looks.addEventListener(name, resolve)));
document.head.append(looks);
document.body.append(...new DOMParser().parseFromString(await templates(), "text/html").querySelectorAll("template"));
await styled;

customElements.define("alert-form", AlertForm);
customElements.define("alert-list", AlertList);
const list = document.createElement("alert-list");
document.querySelector("ticker-detail").before(list);

export const hear = (raised) => alerts.hear(raised);
export const showList = () => list.open();

/** In the ticker's details, which are open. */
export const make = () => document.querySelector("alert-form").begin();

/** Asks until it has them: a module that fails once can't be had again before the page is loaded anew. */
async function templates() {
  const answer = await fetch("/static/alerts.html").catch(() => null);
  if (answer?.ok) return answer.text();
  await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER));
  return templates();
}

/** A bell on each row whose ticker has alerts. */
function paintBells() {
  const counts = new Map();
  for (const { ticker } of alerts.all) counts.set(ticker, (counts.get(ticker) ?? 0) + 1);
  for (const row of document.querySelectorAll("price-row")) paintBell(row, counts.get(row.ticker) ?? 0);
}

function paintBell(row, alertCount) {
  let bell = row.querySelector(".bell");
  if (!bell && alertCount) {
    bell = document.getElementById("bell-template").content.firstElementChild.cloneNode(true);
    bell.tabIndex = row.tabIndex;
    row.querySelector(".named").append(bell);
  }
  if (!bell) return;
  bell.hidden = alertCount === 0;
  const words = `${row.ticker}: ${count(alertCount, "alert")}`;
  if (bell.title === words) return;
  bell.title = words;
  bell.setAttribute("aria-label", words);
}

function paintUnseen() {
  const unseen = alerts.raised.filter(({ at }) => at > settings.seen).length;
  const button = document.getElementById("alerts");
  const said = unseen > MOST_SAID ? `${MOST_SAID}+` : String(unseen);
  if (unseen) button.dataset.unseen = said;
  else delete button.dataset.unseen;
  const words = unseen ? `Alerts: ${said} new` : "Alerts";
  button.setAttribute("aria-label", words);
  button.title = words;
}

alerts.addEventListener("change", () => {
  nextFrame(paintBells);
  paintUnseen();
});
store.addEventListener("tickers", () => nextFrame(paintBells));
settings.addEventListener("change", paintUnseen);
document.addEventListener("visibilitychange", () => document.hidden || alerts.read()); // others may have made some
alerts.read();
