/* Owns <alert-list>: the sheet with all alerts or those that have rung, and the settings about ringing. Painted only while open.
   Never changes an alert but by alertactions.js. */

import { discard } from "./alertactions.js";
import { alertRow, contentOf, fill, paintAlert, paintRaised, raisedRow } from "./alertitems.js";
import { alerts, MOST_RAISED } from "./alerts.js";
import { clock } from "./frame.js";
import { Part, write } from "./part.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const DELIVERIES_EVERY = 5; // seconds between two looks at what is still to be delivered
const LEAVES = {
  default: "When you make an alert, the browser asks whether Pluto may show notifications.",
  granted: "The browser shows a notification, too.",
  denied: "Notifications are blocked in the browser's settings for this page.",
};

export class AlertList extends Part {
  #parts = {};
  #dialog = null;
  #shown = "alerts"; // or "raised"
  #seconds = 0;

  connectedCallback() {
    this.append(contentOf("list-template"));
    this.#dialog = this.querySelector("dialog");
    for (const part of this.querySelectorAll("[data-list]")) this.#parts[part.dataset.list] = part;
  }

  open() {
    if (this.#dialog.open) return;
    const signal = this.listen();
    alerts.addEventListener("change", this.#paint, { signal });
    store.addEventListener("tickers", this.#paint, { signal });
    clock.addEventListener("second", this.#strike, { signal });
    this.#parts.sound.addEventListener("change", ({ target }) => settings.set("sound", target.checked), { signal });
    this.#dialog.addEventListener("click", this.#click, { signal });
    this.#dialog.addEventListener("close", () => this.unlisten(), { signal });
    this.#shown = alerts.raised.some(({ at }) => at > settings.seen) ? "raised" : "alerts";
    this.#paint();
    this.#dialog.showModal();
    alerts.read();
  }

  #click = ({ target }) => {
    const { list } = target.closest("[data-list]")?.dataset ?? {};
    const { item } = target.closest("[data-item]")?.dataset ?? {};
    if (target === this.#dialog || list === "close") this.#dialog.close();
    if (list === "showalerts" || list === "showraised") {
      this.#shown = target.value;
      this.#paint();
    }
    if (!["ticker", "delete"].includes(item)) return;
    const { id } = target.closest("li").dataset;
    if (item === "delete") discard(alerts.all.find((alert) => alert.id === id));
    else {
      this.#dialog.close();
      document.dispatchEvent(new CustomEvent("open-ticker", { detail: target.textContent }));
    }
  };

  #strike = () => {
    const waits = alerts.raised.some(({ deliveries }) => deliveries?.some(({ state }) => state === "waiting"));
    if (!waits) return;
    if (++this.#seconds % DELIVERIES_EVERY === 0) alerts.read();
    else this.#paint();
  };

  #paint = () => {
    const { all, raised, why } = alerts;
    const parts = this.#parts;
    if (this.#shown === "alerts") fill(parts.alerts, all, alertRow, paintAlert);
    else fill(parts.raised, raised, raisedRow, paintRaised);
    write(parts.showalerts, `Waiting to ring: ${all.length}`);
    write(parts.showraised, `Have rung: ${raised.length}${raised.length < MOST_RAISED ? "" : "+"}`);
    for (const button of [parts.showalerts, parts.showraised]) button.setAttribute("aria-pressed", button.value === this.#shown);
    for (const part of this.querySelectorAll("[data-shown]")) part.hidden = part.dataset.shown !== this.#shown;
    write(parts.why, why);
    parts.noalerts.hidden = all.length > 0;
    parts.noraised.hidden = raised.length > 0;
    parts.last.hidden = raised.length < MOST_RAISED;
    parts.sound.checked = settings.get("sound");
    const leave = globalThis.Notification?.permission;
    write(parts.leave, isSecureContext && leave ? LEAVES[leave] : "The browser shows notifications only of pages on https or localhost.");
    if (raised.length && this.#shown === "raised") settings.see(raised[0].at);
  };
}
