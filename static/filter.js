/* Owns what the address asks to show (/?tickers=BTCUSD,ETHUSD): <address-filter> says that not all is shown, and offers to
   track what isn't tracked here. An address never adds a ticker by itself: opening a link changes nothing on the server. */

import { addOrTell, splitTexts } from "./actions.js";
import { count } from "./format.js";
import { Part, write } from "./part.js";
import { store } from "./store.js";

const TICKER = /^(?:[^\s:]{1,32}:)?[^\s:]{1,32}$/; // Pluto judges the rest

class AddressFilter extends Part {
  connectedCallback() {
    const signal = this.listen();
    store.addEventListener("tickers", this.#show, { signal });
    store.addEventListener("filter", this.#write, { signal });
    store.addEventListener("connection", this.#show, { signal });
    addEventListener("popstate", this.#read, { signal });
    this.addEventListener("click", this.#click, { signal });
    this.#read();
  }

  #read = () => {
    const query = new URLSearchParams(location.search);
    const asked = [...query.getAll("tickers"), ...query.getAll("ticker")].join(",");
    store.setFilter(splitTexts(asked).filter((ticker) => TICKER.test(ticker)));
  };

  /** The address follows the filter, without a new entry in the history. */
  #write = () => {
    const tickers = store.filter && [...store.filter].sort().map((ticker) => encodeURIComponent(ticker).replace("%3A", ":"));
    const asked = tickers ? `?tickers=${tickers.join(",")}` : "";
    if (location.search !== asked) history.replaceState(null, "", location.pathname + asked + location.hash);
  };

  #click = ({ target }) => {
    const button = target.closest("button");
    if (button?.dataset.ticker) addOrTell(button.dataset.ticker);
    else if (button) store.setFilter(null);
  };

  #show = () => {
    const { filter } = store;
    this.hidden = !filter;
    if (!filter) return;
    const all = store.all.length;
    const missing = store.connection.state === "open" ? [...filter].filter((ticker) => !store.has(ticker)).sort() : [];
    write(this.querySelector("[data-what]"), `The address shows ${store.shown().length} of ${count(all, "ticker")}.`);
    const offers = this.querySelector("[data-missing]");
    if (offers.dataset.tickers === missing.join()) return;
    offers.dataset.tickers = missing.join();
    offers.replaceChildren(...missing.map(offer));
  };
}

function offer(ticker) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.ticker = ticker;
  button.textContent = `Track ${ticker}`;
  return button;
}

customElements.define("address-filter", AddressFilter);
