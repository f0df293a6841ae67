/* Owns how one alert, and one that was raised, look in a list or a toast. Never asks for anything itself: whoever shows them
   hears their buttons by `data-item`. */

import { conditionWords, deliveryWords, moreWords, raisedWords, sentence } from "./alertwords.js";
import { nextFrame } from "./frame.js";
import { fit, write } from "./part.js";
import { store } from "./store.js";

const ROWS_A_FRAME = 40;
const runs = new WeakMap(); // list → its newest filling

/** A template's content. */
export function contentOf(id) {
  return document.getElementById(id).content.cloneNode(true);
}

/** From now on a list shows these, in order; the rows of those that were there stay. */
export function fill(list, items, make, paint) {
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const ids = new Set(items.map(({ id }) => id));
  for (const [id, row] of rows) if (!ids.has(id)) row.remove();
  const run = {};
  runs.set(list, run);
  const goOn = (from) => {
    if (runs.get(list) !== run) return;
    items.slice(from, from + ROWS_A_FRAME).forEach((item, step) => {
      const row = rows.get(item.id) ?? make(item);
      if (list.children[from + step] !== row) list.insertBefore(row, list.children[from + step] ?? null);
      paint(row, item);
    });
    if (from + ROWS_A_FRAME < items.length) nextFrame(() => goOn(from + ROWS_A_FRAME));
  };
  goOn(0);
}

export function alertRow({ id }) {
  const row = contentOf("alert-template").firstElementChild;
  row.dataset.id = id;
  return row;
}

export function paintAlert(row, alert, { named = true } = {}) {
  const { ticker, words, more, "delete": remove } = itemsOf(row);
  ticker.hidden = !named;
  paintTicker(ticker, alert);
  write(words, conditionWords(alert));
  write(more, [named && !store.has(alert.ticker) && "sleeps: the ticker isn't tracked", moreWords(alert)].filter(Boolean).join(" · "));
  remove.setAttribute("aria-label", `Delete the alert: ${sentence(alert)}`);
}

export function raisedRow({ id }) {
  const row = document.createElement("li");
  row.dataset.id = id;
  row.append(contentOf("raised-template"));
  return row;
}

export function paintRaised(row, raised) {
  const { ticker, words, simulated, more, note, deliveries } = itemsOf(row);
  paintTicker(ticker, raised);
  write(words, conditionWords(raised));
  simulated.hidden = !raised.simulated;
  write(more, raisedWords(raised));
  write(note, raised.note ?? "");
  const told = raised.deliveries ?? [];
  fit(deliveries, told.length, () => document.createElement("li"));
  told.forEach((delivery, at) => {
    deliveries.children[at].dataset.state = delivery.state;
    write(deliveries.children[at], deliveryWords(delivery, store.now()));
  });
}

/** It leads to the ticker's details, where there are some. */
function paintTicker(button, { ticker }) {
  write(button, ticker);
  button.disabled = !store.has(ticker);
}

function itemsOf(row) {
  return Object.fromEntries([...row.querySelectorAll("[data-item]")].map((item) => [item.dataset.item, item]));
}
