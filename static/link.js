/* Owns how this tab hears Pluto: from the browser's one stream in the worker, or, where there are no shared workers, by a
   WebSocket of its own. Judges by itself whether it still hears: a tab may have slept, a worker may have died. */

import { feed } from "./feed.js";
import { clock } from "./frame.js";
import { eventLine, socketLine } from "./line.js";
import { store } from "./store.js";
import { parse, SILENCE_LIMIT, Stream } from "./stream.js";

const WORKER = "/static/worker.js";
const ANSWER_LIMIT = 5_000; // ms for the worker to answer before this tab does without it

class Link {
  #worker = null; // its port, while there is one
  #stream = null; // of our own, while there is no worker
  #told = null; // the connection as the worker last told it
  #wordAt = 0; // when Pluto's last word came here
  #askedAt = 0; // when the worker was asked whether it lives; 0: it has answered
  #listening = null;

  start() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    addEventListener("online", () => this.retryNow(), { signal });
    addEventListener("offline", () => this.#order("doubt"), { signal });
    document.addEventListener("visibilitychange", this.#wake, { signal });
    clock.addEventListener("second", this.#judge, { signal });
    if ("SharedWorker" in window) this.#join();
    else this.#openOwn();
  }

  /** Also when the page goes to the back/forward cache, from where start() brings it back. */
  stop() {
    this.#listening.abort();
    this.#leave();
    this.#stream?.close();
    this.#stream = null;
  }

  retryNow() {
    this.#order("retry");
  }

  #join() {
    const worker = new SharedWorker(WORKER, { type: "module", name: "pluto" });
    worker.addEventListener("error", () => this.#openOwn());
    this.#worker = worker.port;
    this.#worker.addEventListener("message", ({ data }) => this.#hear(data));
    this.#worker.start();
    this.#say("hello");
    this.#askedAt = Date.now();
  }

  #leave() {
    if (!this.#worker) return;
    this.#say("bye");
    this.#worker.close();
    this.#worker = null;
  }

  #openOwn() {
    if (this.#stream || this.#listening.signal.aborted) return;
    this.#leave();
    this.#stream = new Stream({
      lines: [socketLine, eventLine],
      onWord: (text, message) => feed(message),
      onState: (connection) => store.setConnection(connection),
    });
    this.#stream.start();
  }

  #order(kind) {
    if (this.#worker) this.#say(kind);
    else if (kind === "retry") this.#stream?.retryNow();
    else this.#stream?.doubt();
  }

  #say(kind) {
    this.#worker.postMessage({ kind });
  }

  // -- what the worker says

  #hear({ kind, text, picture, connection }) {
    if (!this.#worker) return;
    this.#askedAt = 0;
    if (kind === "picture") this.#take(picture);
    else if (kind === "state") this.#believe(connection);
    else this.#hearWord(text);
  }

  #take(picture) {
    this.#wordAt = Date.now();
    this.#told = picture.connection;
    store.fromMessage(picture);
  }

  #believe(connection) {
    this.#told = connection;
    if (connection.state !== "open" || Date.now() - this.#wordAt < SILENCE_LIMIT) store.setConnection(connection);
    if (connection.state === "open" && store.connection.state !== "open") this.#wordAt = Date.now();
  }

  #hearWord(text) {
    this.#wordAt = Date.now();
    if (store.connection !== this.#told) store.setConnection(this.#told);
    const message = parse(text);
    if (message) feed(message);
  }

  // -- whether we hear

  #wake = () => {
    if (document.hidden) return;
    this.#stream?.look();
    this.#judge();
    this.retryNow();
  };

  /** Before anything is painted: a silent worker means the same as a silent line, until it answers. */
  #judge = () => {
    if (!this.#worker) return;
    const now = Date.now();
    const isSilent = now - this.#wordAt > SILENCE_LIMIT + 1_000;
    if (isSilent && store.connection.state === "open") store.setConnection({ state: "connecting", retryAt: 0, lostAt: this.#wordAt });
    if (this.#askedAt && now - this.#askedAt > ANSWER_LIMIT) this.#openOwn();
    else if (isSilent && !this.#askedAt) {
      this.#askedAt = now;
      this.#say("ask");
    }
  };
}

export const link = new Link();
