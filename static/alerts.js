/* Owns what the page knows of alerts: those there are, and the last that were raised. Asks Pluto for both, makes and deletes.
   Emits "change", "raised" (detail: what was raised, each once, also what a lost connection kept back) and "replaced"
   (detail: the ids of the alert before and after). Never touches the document. */

import { post, send } from "./api.js";
import { store } from "./store.js";

const ADDRESS = "/api/alerts";
export const MOST_RAISED = 100;
const SOON = 1_000; // ms in which what becomes of a raised alert is on the disk

class Alerts extends EventTarget {
  #all = []; // as Pluto has them, in the order of making
  #raised = []; // the newest first
  #deleted = new Set(); // ids deleted here; Pluto may still list them
  #told = new Set(); // ids of what was told as "raised"
  #readUntil = -1; // when the newest that was read was raised, ms since the epoch; -1: nothing is read yet
  #why = ""; // why it can't be read
  #turn = 0; // grows with each reading: only the newest counts
  #soon = 0; // the timer of the next reading
  #isOpen = store.connection.state === "open";
  #tabs = "BroadcastChannel" in window ? new BroadcastChannel("pluto.alerts") : null;

  constructor() {
    super();
    this.#tabs?.addEventListener("message", () => this.read());
    store.addEventListener("connection", this.#connect);
  }

  /** What was missed can be read. */
  #connect = () => {
    const wasOpen = this.#isOpen;
    this.#isOpen = store.connection.state === "open";
    if (this.#isOpen && !wasOpen) this.read();
  };

  get all() { return this.#all.filter(({ id }) => !this.#deleted.has(id)); }
  get raised() { return this.#raised; }
  get why() { return this.#why; }

  of(ticker) {
    return this.all.filter((alert) => alert.ticker === ticker);
  }

  async read() {
    const turn = ++this.#turn;
    clearTimeout(this.#soon);
    const [set, rung] = await Promise.all([send(ADDRESS), send(`${ADDRESS}/raised?limit=${MOST_RAISED}`)]);
    if (turn !== this.#turn) return;
    if (set.ok) this.#all = set.answer.alerts;
    if (rung.ok) this.#take(rung.answer.raised);
    this.#why = [set, rung].find(({ ok }) => !ok)?.message ?? "";
    this.#emit("change");
  }

  /** From the stream. */
  hear(raised) {
    if (this.#told.has(raised.id)) return;
    if (!this.#raised.some(({ id }) => id === raised.id)) this.#raised = [raised, ...this.#raised].slice(0, MOST_RAISED);
    this.#tell(raised);
    this.#emit("change");
    this.#readSoon();
  }

  /** Make an alert; if it `replaces` another one, that is gone in the same step. Resolves to Pluto's answer. */
  async make(wish, replaces = "") {
    const told = await post(ADDRESS, replaces ? { ...wish, replaces } : wish);
    if (!told.ok) return told;
    if (replaces) {
      this.#deleted.add(replaces);
      this.#emit("replaced", [replaces, told.answer.alert.id]);
    }
    await this.#changed();
    return told;
  }

  /** It is gone from here before Pluto says so. Resolves to Pluto's answer. */
  async remove(id) {
    this.#deleted.add(id);
    this.#emit("change");
    const told = await send(`${ADDRESS}/${id}`, { method: "DELETE" });
    if (!told.ok) this.#deleted.delete(id);
    await this.#changed();
    return told;
  }

  #changed() {
    this.#tabs?.postMessage("");
    return this.read();
  }

  #readSoon() {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.read(), SOON);
  }

  /** What may be lost is in no file: it stays as it was heard. */
  #take(raised) {
    const ids = new Set(raised.map(({ id }) => id));
    const lost = this.#raised.filter(({ id, mayBeLost }) => mayBeLost && !ids.has(id));
    this.#raised = [...raised, ...lost].sort((one, other) => other.at - one.at).slice(0, MOST_RAISED);
    const missed = this.#readUntil < 0 ? [] : raised.filter(({ id, at }) => at > this.#readUntil && !this.#told.has(id));
    this.#readUntil = Math.max(0, this.#readUntil, raised[0]?.at ?? 0);
    for (const one of missed.reverse()) this.#tell(one);
  }

  #tell(raised) {
    this.#told.add(raised.id);
    if (this.#told.size > 10 * MOST_RAISED) this.#told.delete(this.#told.values().next().value);
    this.#emit("raised", raised);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

export const alerts = new Alerts();
