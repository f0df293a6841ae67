/* Owns what is remembered between visits in this browser: theme, density, sort, own order, numbers, shortcuts, the chart's
   look, tickers tracked before, the sound of alerts and which of them were seen. Emits "change". Never asks the server, and
   works, forgetfully, where storage is off. */

import { writeNumbers } from "./format.js";
import { SORTS } from "./order.js";

const KEY = "pluto.settings";
const REMEMBERED_TICKERS = 100;
const CHOICES = {
  theme: ["system", "light", "dark"],
  density: ["normal", "compact", "large"],
  sort: SORTS,
  numbers: ["common", "browser"], // 66,751.91, or as the browser's own locale has it
  shortcuts: [true, false],
  interval: ["1m", "5m", "15m", "1h", "4h", "1d"], // of the chart
  chart: ["candles", "line"],
  sound: [true, false], // when an alert has rung
};

class Settings extends EventTarget {
  #kept = read();

  constructor() {
    super();
    writeNumbers(this.get("numbers"));
    addEventListener("storage", ({ key }) => key === KEY && this.#reread()); // Another tab chose.
  }

  #reread() {
    this.#kept = read();
    this.#tell();
  }

  get(name) {
    return CHOICES[name].includes(this.#kept[name]) ? this.#kept[name] : CHOICES[name][0];
  }

  set(name, value) {
    if (!CHOICES[name].includes(value) || this.get(name) === value) return;
    this.#keep({ [name]: value });
  }

  /** The choice after the present one, round and round. */
  cycle(name) {
    const choices = CHOICES[name];
    this.set(name, choices[(choices.indexOf(this.get(name)) + 1) % choices.length]);
  }

  /** Tickers tracked before, newest first. */
  get known() {
    return this.#list("known");
  }

  /** Tickers in the order that the user gave them. */
  get own() {
    return this.#list("own");
  }

  /** From now on the board stands in this order. */
  arrange(own) {
    this.#keep({ own, sort: "own" });
  }

  /** Until when, in ms since the epoch, the list of raised alerts was seen. */
  get seen() {
    return Number(this.#kept.seen) || 0;
  }

  see(at) {
    if (at > this.seen) this.#keep({ seen: at });
  }

  #list(name) {
    const kept = this.#kept[name];
    return Array.isArray(kept) ? kept.filter((ticker) => typeof ticker === "string") : [];
  }

  remember(tickers) {
    const known = this.known;
    const fresh = tickers.filter((ticker) => !known.includes(ticker));
    if (fresh.length) this.#keep({ known: [...fresh, ...known].slice(0, REMEMBERED_TICKERS) });
  }

  #keep(changes) {
    this.#kept = { ...read(), ...this.#kept, ...changes };
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#kept));
    } catch {
      // Storage is off or full: the choice lasts until the page is closed.
    }
    this.#tell();
  }

  #tell() {
    writeNumbers(this.get("numbers")); // before anyone writes one
    this.dispatchEvent(new Event("change"));
  }
}

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return kept && typeof kept === "object" ? kept : {};
  } catch {
    return {};
  }
}

export const settings = new Settings();
