/* Owns the board in one line: <board-summary> for eyes, and a polite sentence for screen readers every SPOKEN_EVERY seconds,
   when something changed; never a word for each tick. Never touches a row. */

import { count, direction, percent, priceWords, stateWords } from "./format.js";
import { clock, nextFrame } from "./frame.js";
import { Part, write } from "./part.js";
import { store } from "./store.js";

const SPOKEN_EVERY = 10; // seconds
const SPOKEN_PRICES = 3;

class BoardSummary extends Part {
  #seconds = 0;

  connectedCallback() {
    const signal = this.listen();
    for (const news of ["tickers", "connection"]) store.addEventListener(news, () => nextFrame(this.#show), { signal });
    clock.addEventListener("second", this.#strike, { signal });
    this.#show();
  }

  #strike = () => {
    if (document.hidden) return;
    this.#show();
    if (++this.#seconds % SPOKEN_EVERY === 0) write(this.querySelector("[data-spoken]"), spoken());
  };

  #show = () => {
    const tally = tallied();
    this.hidden = tally.all === 0;
    write(this.querySelector("[data-count]"), count(tally.all, "ticker"));
    for (const way of ["up", "down"]) {
      const number = this.querySelector(`[data-${way}]`);
      write(number, String(tally[way]));
      number.parentElement.dataset.direction = tally[way] ? way : "";
    }
    write(this.querySelector("[data-other]"), tally.other ? `${tally.other} not live` : "");
  };
}

function tallied() {
  const tally = { all: 0, up: 0, down: 0, other: 0 };
  for (const ticker of store.shown()) {
    const { state, changePercent } = store.view(ticker);
    tally.all++;
    if (state !== "live") tally.other++;
    else if (changePercent > 0) tally.up++;
    else if (changePercent < 0) tally.down++;
  }
  return tally;
}

function spoken() {
  const tally = tallied();
  if (!tally.all) return "";
  const heads = store.shown().slice(0, SPOKEN_PRICES).map((ticker) => spokenPrice(store.view(ticker)));
  const other = tally.other ? `, ${tally.other} not live` : "";
  return `${count(tally.all, "ticker")}: ${tally.up} up, ${tally.down} down${other}. ${heads.join(". ")}.`;
}

function spokenPrice({ ticker, priceText, changePercent, state }) {
  if (state !== "live") return `${ticker} ${stateWords(state)}`;
  const way = direction(changePercent);
  return `${ticker} ${priceWords(priceText)}${way && way !== "flat" ? `, ${way} ${percent(Math.abs(changePercent)).slice(1)}` : ""}`;
}

customElements.define("board-summary", BoardSummary);
