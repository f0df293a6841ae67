/* Owns <ticker-detail>: everything known about one ticker, in a sheet beside the board. Painted in the same frames as the
   rows, and only while open. Never changes anything but by actions.js. */

import { addOrTell, copyPrice, proposals, remove, retry } from "./actions.js";
import { explain } from "./api.js";
import { age, amount, dayRange, decimals, difference, direction, exactTime, figure, latency, nextTry, percent, priceRuns, priceWords, reason, secondTime, stateWords, tradeAge, waits } from "./format.js";
import { clock, nextFrame } from "./frame.js";
import { later } from "./later.js";
import { fit, Part, write } from "./part.js";
import { ARROWS, proposal, writeRuns } from "./row.js";
import { store } from "./store.js";
import { sentencesOf } from "./why.js";

const CHANGES_SHOWN = 12;
const ONE_COLUMN = 9; // characters of a price above which its changes stand in one column
const MARK_FOR = 900; // ms
const WHY_EVERY = 3; // seconds between two questions while the answer is in sight
const SOURCES = {
  socket: "the page's own quote feed",
  dom: "what the page displays",
  script: "the page's structured data",
  title: "the page's title",
};

class TickerDetail extends Part {
  #dialog = null;
  #parts = {};
  #ticker = "";
  #isCharted = false;
  #priceText = "";
  #markedAt = 0;
  #lost = ""; // the state in which a ticker to track instead was asked for
  #seconds = 0;

  connectedCallback() {
    this.#dialog = this.querySelector("dialog");
    for (const part of this.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
  }

  disconnectedCallback() {
    this.#shut();
  }

  open(ticker) {
    if (this.#ticker) this.#shut();
    this.#ticker = ticker;
    this.#priceText = "";
    this.#lost = "";
    this.#parts.proposals.replaceChildren();
    this.#parts.why.open = false;
    const signal = this.listen();
    store.addEventListener("quotes", ({ detail }) => detail.includes(ticker) && nextFrame(this.#paint), { signal });
    store.addEventListener("tickers", () => store.has(ticker) || this.#dialog.close(), { signal });
    store.addEventListener("connection", this.#reopenChart, { signal });
    clock.addEventListener("second", this.#strike, { signal });
    this.#parts.why.addEventListener("toggle", this.#explain, { signal });
    this.#dialog.addEventListener("close", this.#shut, { signal });
    this.#dialog.addEventListener("click", this.#click, { signal });
    this.#name();
    this.#paint();
    this.#parts.alerts.dataset.ticker = ticker;
    this.#dialog.showModal();
    this.#openChart();
  }

  get #places() {
    return decimals(store.view(this.#ticker).priceText);
  }

  #shut = () => {
    this.unlisten();
    this.#parts.chart.close?.();
    delete this.#parts.alerts.dataset.ticker;
    this.#isCharted = false;
    this.#ticker = "";
  };

  #click = ({ target }) => {
    const part = target.closest("[data-part]")?.dataset.part;
    if (target === this.#dialog || part === "close") this.#dialog.close(); // On the dialog itself: beside the sheet.
    else if (part === "price") copyPrice(this.#ticker);
    else if (part === "remove") remove(this.#ticker);
    else if (part === "retry") retry(this.#ticker);
    else if (part === "proposal") addOrTell(target.value);
  };

  #strike = () => {
    nextFrame(this.#paint);
    if (++this.#seconds % WHY_EVERY === 0) this.#explain();
  };

  /** Ask why, as long as someone reads it. */
  #explain = async () => {
    if (!this.#parts.why.open || document.hidden) return;
    const ticker = this.#ticker;
    const { ok, answer, message } = await explain(ticker);
    if (this.#ticker !== ticker) return;
    const sentences = ok ? sentencesOf(answer) : [["", message]];
    const list = this.#parts.whys;
    fit(list, sentences.length, () => this.#parts.because.content.cloneNode(true));
    sentences.forEach((pair, at) => [...list.children[at].children].forEach((element, side) => write(element, pair[side])));
  };

  /** What couldn't be loaded while Pluto was away can be now. */
  #reopenChart = () => {
    if (store.connection.state === "open" && !this.#isCharted && !this.#parts.nochart.hidden) this.#openChart();
  };

  #name() {
    const [symbol, exchange = "BINANCE"] = this.#ticker.split(":").reverse();
    write(this.#parts.title, this.#ticker);
    this.#parts.link.href = `https://www.tradingview.com/symbols/${encodeURIComponent(symbol)}/?exchange=${encodeURIComponent(exchange)}`;
  }

  async #openChart() {
    const ticker = this.#ticker;
    const { chart, nochart } = this.#parts;
    nochart.hidden = true;
    chart.hidden = false;
    const isDrawn = (await later("charts")) && (await chart.open(ticker));
    if (this.#ticker !== ticker || !this.#dialog.open) return;
    chart.hidden = !isDrawn;
    nochart.hidden = isDrawn;
    this.#isCharted = isDrawn;
  }

  // -- paint

  #paint = () => {
    if (!this.#ticker) return;
    const now = store.now();
    const view = store.view(this.#ticker);
    const session = store.session(this.#ticker);
    this.#dialog.dataset.state = view.state;
    write(this.#parts.description, [view.description, view.exchange].filter(Boolean).join(" · "));
    this.#paintPrice(view, now);
    this.#paintState(view, now);
    this.#parts.known.hidden = this.#parts.figures.hidden = !view.priceText && !session.length;
    this.#paintFacts(view, now);
    this.#paintChanges(session);
    if (this.#isCharted) this.#parts.chart.paint();
  };

  #paintPrice({ priceText = "", currency = "", changePercent, change, state }, now) {
    const { price, currency: unit, change: element, arrow } = this.#parts;
    this.#parts.quote.hidden = !priceText;
    if (priceText !== this.#priceText) {
      const moved = direction(Number(priceText) - Number(this.#priceText || priceText));
      writeRuns(price, priceRuns(priceWords(priceText), priceWords(this.#priceText)));
      write(arrow, ARROWS[moved]);
      arrow.dataset.direction = moved;
      price.classList.toggle("up", moved === "up" && state === "live");
      price.classList.toggle("down", moved === "down" && state === "live");
      this.#priceText = priceText;
      this.#markedAt = now;
    } else if (now - this.#markedAt > MARK_FOR) price.classList.remove("up", "down");
    write(unit, currency);
    write(element, [difference(change, this.#places), percent(changePercent)].filter(Boolean).join("  "));
    element.dataset.direction = direction(changePercent);
  }

  #paintState(view, now) {
    write(this.#parts.state, stateWords(view.state));
    write(this.#parts.age, age(view, now));
    write(this.#parts.reason, [reason(view, now), nextTry(view, now)].filter(Boolean).join(" "));
    this.#parts.retry.hidden = !waits(view) || view.state === "blocked";
    this.#propose(view.state);
  }

  async #propose(state) {
    if (!["not_found", "error"].includes(state) || this.#lost === state) return;
    this.#lost = state;
    const ticker = this.#ticker;
    const proposed = await proposals(ticker);
    if (this.#ticker === ticker) this.#parts.proposals.replaceChildren(...proposed.map((one) => proposal(one)));
  }

  #paintFacts(view, now) {
    const places = this.#places;
    const { low, high } = dayRange(view);
    const figures = { open: view.open, high, low, bid: view.bid, ask: view.ask };
    for (const [name, value] of Object.entries(figures)) this.#fact(name, figure(value, places));
    this.#fact("volume", amount(view.volume));
    this.#fact("source", view.source ? (SOURCES[view.source] ?? view.source) : "");
    this.#fact("calculated", view.calculated ? "Calculated by TradingView; the exchange doesn't trade this pair." : "");
    this.#fact("sourceTime", view.sourceTime ? `${exactTime(view.sourceTime)}, ${tradeAge(view, now)}` : "");
    this.#fact("timestamp", view.timestamp ? exactTime(view.timestamp) : "");
    this.#fact("toPluto", latency(view.receivedAt - view.timestamp));
    this.#fact("toHere", store.clocksAgree ? latency(view.heardAt - view.receivedAt) : "");
  }

  /** A fact and its name, or neither. */
  #fact(name, text) {
    const element = this.#parts[name];
    write(element, text);
    element.parentElement.hidden = text === "";
  }

  #paintChanges({ changes }) {
    const shown = changes.slice(0, CHANGES_SHOWN);
    const list = this.#parts.changes;
    fit(list, shown.length, () => this.#parts.line.content.cloneNode(true));
    list.classList.toggle("long", shown.some(({ priceText }) => priceText.length > ONE_COLUMN));
    shown.forEach((change, at) => showChange(list.children[at], change));
    this.#parts.nochanges.hidden = shown.length > 0;
  }
}

function showChange(line, { at, priceText, difference: moved }) {
  const [time, price, by] = line.children;
  write(time, secondTime(at));
  write(price, priceWords(priceText));
  write(by, Number.isFinite(moved) ? `${moved > 0 ? "▲" : "▼"} ${difference(moved, decimals(priceText))}` : "first seen");
  by.dataset.direction = direction(moved);
}

customElements.define("ticker-detail", TickerDetail);
