/* Owns one EventSource and its return: it resumes after the last id it heard, counts down to the next try, and replaces a
   connection that has fallen silent. Says what happens through onEvent and onState. Never parses or keeps a price. */

const URL = "/api/stream";
const NAMES = ["message", "tickers", "status", "alert", "heartbeat"];
const DELAYS = [2, 2, 3, 5, 8, 10]; // seconds before each try; the last one repeats
const OPENING_LIMIT = 8_000; // ms for a connection to say "connected"
const SILENCE_LIMIT = 45_000; // ms without an event before the connection is replaced; keep-alives don't show here
const LOOK_EVERY = 5_000; // ms

export class Stream {
  #onEvent; // (name, data, id)
  #onState; // ({state, retryAt, lostAt})
  #source = null;
  #lastEventId = "";
  #state = "closed";
  #lostAt = 0; // ms at which prices stopped being current; 0 while they are
  #failures = 0;
  #heardAt = 0;
  #openingTimer = 0;
  #retryTimer = 0;
  #lookTimer = 0;

  constructor({ onEvent, onState }) {
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  /** Start, resuming after `lastEventId`. `stillOpen`: another tab's stream just ended; nothing is lost unless this one fails. */
  open({ lastEventId = "", stillOpen = false } = {}) {
    this.#lastEventId = lastEventId;
    if (stillOpen) this.#state = "open";
    this.#connect();
    this.#lookTimer = setInterval(() => this.#look(), LOOK_EVERY);
    addEventListener("online", this.retryNow);
    document.addEventListener("visibilitychange", this.#wake);
  }

  close() {
    removeEventListener("online", this.retryNow);
    document.removeEventListener("visibilitychange", this.#wake);
    clearInterval(this.#lookTimer);
    this.#disconnect();
  }

  /** Don't wait for the countdown. */
  retryNow = () => {
    if (this.#state !== "open") this.#connect();
  };

  /** Somebody looks again: timers of a hidden page may have been far behind. */
  #wake = () => {
    if (document.hidden) return;
    this.retryNow();
    this.#look();
  };

  #connect() {
    this.#disconnect();
    if (this.#state !== "open") this.#tell("connecting");
    const resume = this.#lastEventId ? `?lastEventId=${encodeURIComponent(this.#lastEventId)}` : "";
    const source = new EventSource(URL + resume);
    for (const name of NAMES) source.addEventListener(name, (event) => this.#hear(name, event));
    source.addEventListener("shutdown", () => this.#fail());
    source.addEventListener("error", () => this.#fail());
    this.#source = source;
    this.#heardAt = Date.now();
    this.#openingTimer = setTimeout(() => this.#fail(), OPENING_LIMIT);
  }

  #disconnect() {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#openingTimer);
    clearTimeout(this.#retryTimer);
  }

  #hear(name, event) {
    if (event.currentTarget !== this.#source) return;
    clearTimeout(this.#openingTimer);
    this.#heardAt = Date.now();
    if (event.lastEventId) this.#lastEventId = event.lastEventId;
    if (this.#state !== "open" || this.#failures) this.#arrive();
    this.#onEvent(name, event.data, this.#lastEventId);
  }

  #arrive() {
    this.#failures = 0;
    this.#lostAt = 0;
    this.#tell("open");
  }

  #fail() {
    this.#disconnect();
    this.#lostAt ||= Date.now();
    const seconds = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)];
    this.#tell("closed", Date.now() + seconds * 1000);
    this.#retryTimer = setTimeout(() => this.#connect(), seconds * 1000);
  }

  /** Nothing heard for long: perhaps all is quiet, perhaps the line is dead. A new connection tells. */
  #look() {
    if (this.#state === "open" && Date.now() - this.#heardAt > SILENCE_LIMIT) this.#connect();
  }

  #tell(state, retryAt = 0) {
    this.#state = state;
    this.#onState({ state, retryAt, lostAt: this.#lostAt });
  }
}
