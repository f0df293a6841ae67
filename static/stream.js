/* Owns one line to Pluto and its return: it resumes after the last id it heard, counts down to the next try, and gives up a
   line that has fallen silent. Says what happens through onWord and onState. Never keeps a price, and never touches the
   document: it runs in the worker, or in a page where there are no workers. */

const DELAYS = [2, 2, 3, 5, 8, 10]; // seconds before each try; the last one repeats
const OPENING_LIMIT = 8_000; // ms for a line to say "connected"
export const SILENCE_LIMIT = 11_000; // ms without a word before a line is dead, known within 12 s: Pluto's heart beats every 5 s
const LOOK_EVERY = 1_000; // ms

export class Stream {
  #lines; // ways to open a line, in the order in which they are tried until one has connected
  #onWord; // (text, message)
  #onState; // ({state, retryAt, lostAt, isStopping})
  #way = 0; // which of the lines
  #line = null;
  #lastEventId = "";
  #state = "closed";
  #everOpen = false;
  #wordAt = 0; // when Pluto last said something; 0 before its first word
  #lostAt = 0; // the last word before prices stopped being current; 0 while they are
  #isStopping = false; // Pluto said so
  #failures = 0;
  #openingTimer = 0;
  #retryTimer = 0;
  #lookTimer = 0;

  constructor({ lines, onWord, onState }) {
    this.#lines = lines;
    this.#onWord = onWord;
    this.#onState = onState;
  }

  start() {
    this.#connect();
    this.#lookTimer = setInterval(() => this.look(), LOOK_EVERY);
  }

  close() {
    clearInterval(this.#lookTimer);
    this.#disconnect();
    this.#state = "closed";
  }

  /** Don't wait for the countdown. */
  retryNow() {
    if (this.#state !== "open") this.#connect();
  }

  /** The network may be gone: a new line tells, and nothing is lost if it comes up. */
  doubt() {
    this.#connect();
  }

  /** Judge the line now: timers may have slept. */
  look() {
    if (this.#state !== "open" || Date.now() - this.#wordAt < SILENCE_LIMIT) return;
    this.#lostAt = this.#wordAt;
    this.#state = "closed";
    this.#connect();
  }

  #connect() {
    this.#disconnect();
    if (this.#state !== "open") this.#tell("connecting");
    const heard = (then) => (...words) => line === this.#line && then(...words);
    const open = this.#lines[this.#way % this.#lines.length];
    const line = open(this.#lastEventId, heard((text, id) => this.#hear(text, id)), heard(() => this.#fail()));
    this.#line = line;
    this.#openingTimer = setTimeout(() => this.#fail(), OPENING_LIMIT);
  }

  #disconnect() {
    this.#line?.close();
    this.#line = null;
    clearTimeout(this.#openingTimer);
    clearTimeout(this.#retryTimer);
  }

  #hear(text, id) {
    const message = parse(text);
    if (!message) return;
    if (message.type === "shutdown") return this.#stop();
    if (message.type === "connected") this.#arrive();
    else if (this.#state !== "open") return;
    this.#wordAt = Date.now();
    this.#lastEventId = id || message.id || this.#lastEventId;
    this.#onWord(text, message);
  }

  #arrive() {
    clearTimeout(this.#openingTimer);
    this.#failures = 0;
    this.#lostAt = 0;
    this.#isStopping = false;
    this.#everOpen = true;
    if (this.#state !== "open") this.#tell("open");
  }

  #stop() {
    this.#wordAt = Date.now();
    this.#isStopping = true;
    this.#fail();
  }

  #fail() {
    this.#disconnect();
    if (!this.#everOpen) this.#way++;
    this.#lostAt ||= this.#wordAt || Date.now();
    const seconds = DELAYS[Math.min(this.#failures++, DELAYS.length - 1)];
    this.#tell("closed", Date.now() + seconds * 1000);
    this.#retryTimer = setTimeout(() => this.#connect(), seconds * 1000);
  }

  #tell(state, retryAt = 0) {
    this.#state = state;
    this.#onState({ state, retryAt, lostAt: this.#lostAt, isStopping: this.#isStopping });
  }
}

/** A message, or null when it is none. */
export function parse(text) {
  try {
    const message = JSON.parse(text);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null;
  }
}
