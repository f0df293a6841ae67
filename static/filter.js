/* Owns what the address asks to show (/?tickers=BTCUSD,ETHUSD): <address-filter> says that not all is shown, and offers to
   track what isn't tracked here. An address never adds a ticker by itself: opening a link changes nothing on the server. */

import { add, fault, splitTickers } from "./actions.js";
import { notify } from "./notices.js";
import { write } from "./row.js";
import { count } from "./format.js";
import { store } from "./store.js";

class AddressFilter extends HTMLElement {
  #listening = null;

  connectedCallback() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    store.addEventListener("tickers", this.#show, { signal });
    store.addEventListener("filter", this.#write, { signal });
    store.addEventListener("connection", this.#show, { signal });
    addEventListener("popstate", this.#read, { signal });
    this.addEventListener("click", this.#click, { signal });
    this.#read();
  }

  disconnectedCallback() {
    this.#listening.abort();
  }

  #read = () => {
    const asked = new URLSearchParams(location.search).get("tickers") ?? "";
    store.setFilter(splitTickers(asked).filter((ticker) => !fault(ticker)));
  };

  /** The address follows the filter, without a new entry in the history. */
  #write = () => {
    const asked = store.filter ? `?tickers=${[...store.filter].sort().join(",")}` : "";
    if (location.search !== asked) history.replaceState(null, "", location.pathname + asked + location.hash);
  };

  #click = async ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (!button.dataset.ticker) return store.setFilter(null);
    const refused = await add(button.dataset.ticker);
    if (refused) notify(refused);
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
