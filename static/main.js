/* Owns the start: it brings the parts together and passes on what one part asks of another. Never holds state. */

import "./add.js";
import "./board.js";
import "./connection.js";
import "./detail.js";
import "./filter.js";
import "./keys.js";
import "./summary.js";
import "./tools.js";
import { addOrTell } from "./actions.js";
import { later } from "./later.js";
import { link } from "./link.js";
import { notify } from "./notices.js";
import { settings } from "./settings.js";
import { store } from "./store.js";
import { keepTitle } from "./title.js";

const ALERTS_AFTER = 1_000; // ms after the first prices

const find = (selector) => document.querySelector(selector);

document.addEventListener("open-ticker", ({ detail }) => {
  find("ticker-detail").open(detail);
  later("alerting");
});
document.addEventListener("make-alert", () => {
  const ticker = find("price-board").current;
  if (!ticker) return notify("An alert needs a ticker: add one first.");
  find("ticker-detail").open(ticker);
  withAlerts(({ make }) => make());
});
document.addEventListener("show-alerts", () => withAlerts(({ showList }) => showList()));
store.addEventListener("alert", ({ detail }) => withAlerts(({ hear }) => hear(detail)));
store.addEventListener("quotes", () => setTimeout(later, ALERTS_AFTER, "alerting"), { once: true });
document.addEventListener("point-out", ({ detail }) => find("price-board").pointOut(detail));
document.addEventListener("leave-field", () => find("price-board").focusRow());
document.addEventListener("focus-field", () => find("add-ticker").focusField());
document.addEventListener("show-keys", () => find("key-help").open());

find("#empty").addEventListener("click", ({ target }) => {
  const ticker = target.closest("button")?.value;
  if (ticker) addOrTell(ticker);
});

async function withAlerts(then) {
  const alerting = await later("alerting");
  if (alerting) then(alerting);
  else notify("Alerts can't be shown now: Pluto doesn't answer.");
}

/** Once simulated, always simulated: a page that showed one invented price doesn't take the badge off again. */
function showSimulated() {
  if (!store.simulated) return;
  document.documentElement.setAttribute("data-simulated", "");
  find("#simulated-badge").hidden = false;
}

function showEmpty() {
  const { state } = store.connection;
  find("#empty").hidden = store.all.length > 0 || store.filter !== null || state !== "open";
}

store.addEventListener("quotes", showSimulated);
store.addEventListener("connection", showEmpty);
store.addEventListener("tickers", () => {
  showEmpty();
  settings.remember(store.all);
});

keepTitle();
link.start();
addEventListener("pagehide", () => link.stop());
addEventListener("pageshow", ({ persisted }) => persisted && link.start());
