/* Owns what the page says about its own line to Pluto: <connection-state>, always there, and <outage-banner>, there while
   prices aren't current, with a countdown. Never opens or closes anything; "try now" goes to link.js. */

import { clockTime, duration } from "./format.js";
import { clock } from "./frame.js";
import { link } from "./link.js";
import { Part, write } from "./part.js";
import { store } from "./store.js";

const WORDS = { open: "connected", connecting: "connecting", closed: "not connected" };

class ConnectionState extends Part {
  connectedCallback() {
    store.addEventListener("connection", this.#show, { signal: this.listen() });
    this.#show();
  }

  #show = () => {
    const { state, lostAt } = store.connection;
    this.dataset.state = state;
    write(this.querySelector("[data-words]"), lostAt && state === "connecting" ? "reconnecting" : WORDS[state]);
  };
}

class OutageBanner extends Part {
  #lostAt = 0;

  connectedCallback() {
    const signal = this.listen();
    store.addEventListener("connection", this.#show, { signal });
    clock.addEventListener("second", this.#countDown, { signal });
    this.querySelector("button").addEventListener("click", () => link.retryNow(), { signal });
    this.#show();
  }

  /** What is lost is announced once; the countdown isn't. */
  #show = () => {
    const { lostAt, isStopping } = store.connection;
    this.hidden = !lostAt;
    if (lostAt && lostAt !== this.#lostAt) {
      const what = isStopping ? "Pluto is stopping" : `Connection to Pluto lost at ${clockTime(lostAt)}`;
      write(this.querySelector("[data-what]"), `${what}. Prices are stale.`);
    } else if (!lostAt) write(this.querySelector("[data-what]"), "");
    this.#lostAt = lostAt;
    this.#countDown();
  };

  #countDown = () => {
    if (this.hidden) return;
    const { retryAt, state } = store.connection;
    const waiting = state === "closed" && retryAt > Date.now();
    write(this.querySelector("[data-next]"), waiting ? `Trying again in ${duration(Math.max(1000, retryAt - Date.now()))}.` : "Trying now…");
  };
}

customElements.define("connection-state", ConnectionState);
customElements.define("outage-banner", OutageBanner);
