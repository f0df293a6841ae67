/* Owns who of a browser's tabs holds the stream: HTTP/1.1 allows six connections, so one tab leads (it has the Web Lock)
   and tells the others over a BroadcastChannel. Whoever follows knows the last event id, so when the leader closes, crashes
   or falls silent the next one resumes where it was. Where locks or channels don't exist, each tab has its own stream. */

import { Stream } from "./stream.js";
import { feed } from "./feed.js";
import { store } from "./store.js";

const NAME = "pluto.stream";
const LOOK_EVERY = 2_000; // ms
const ASK_AFTER = 6_000; // ms of silence after which a follower asks whether the leader is there
const DEPOSE_AFTER = 10_000; // ms of silence after which it takes the lead
const ALONE_AFTER = 10_000; // ms without a word from another tab, and none in line: nobody needs to be told

class Tabs {
  #stream = null; // only while this tab leads
  #channel = null;
  #lastEventId = "";
  #joined = false; // this tab has the whole picture, by its own stream or from the leader
  #heardAt = 0; // when the leader, or to the leader anyone, last said something
  #followed = true; // somebody may listen to what this tab tells
  #release = null; // gives the lock back
  #waiting = new AbortController(); // ends our place in the line for the lock
  #saidHelloAt = 0;
  #lookTimer = 0;

  start() {
    if (!navigator.locks || !("BroadcastChannel" in window)) return this.#lead();
    this.#channel = new BroadcastChannel(NAME);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#heardAt = Date.now();
    this.#lookTimer = setInterval(() => this.#look(), LOOK_EVERY);
    this.#hello();
    this.#queue();
  }

  /** Also when the page goes to the back/forward cache, from where start() brings it back. */
  stop() {
    clearInterval(this.#lookTimer);
    this.#waiting.abort();
    this.#stepDown();
    this.#channel?.close();
    this.#channel = null;
    this.#joined = false;
  }

  retryNow() {
    if (this.#stream) this.#stream.retryNow();
    else this.#say({ kind: "retry" });
  }

  get leads() {
    return this.#stream !== null;
  }

  /** Wait in line for the lock. */
  #queue() {
    this.#waiting = new AbortController();
    this.#hold({ signal: this.#waiting.signal });
  }

  /** Take the lock from a leader that no longer answers. */
  #depose() {
    this.#waiting.abort();
    this.#hold({ steal: true });
  }

  async #hold(options) {
    try {
      await navigator.locks.request(NAME, options, () => {
        if (!this.#channel || this.#stream) return undefined;
        this.#lead();
        return new Promise((release) => (this.#release = release));
      });
    } catch {
      if (options.signal?.aborted) return; // We stopped, or took the lock by force instead.
      this.#stepDown(); // It was taken from us: this tab had been asleep.
      if (this.#channel) this.#queue();
    }
  }

  #lead() {
    this.#followed = true;
    this.#heardAt = Date.now();
    this.#stream = new Stream({
      onEvent: (name, data, id) => {
        this.#lastEventId = id;
        this.#joined = true;
        if (this.#followed) this.#say({ kind: "event", name, data, id });
        feed(name, data);
      },
      onState: (connection) => {
        this.#say({ kind: "state", connection });
        store.setConnection(connection);
      },
    });
    const stillOpen = this.#joined && store.connection.state === "open";
    this.#stream.open({ lastEventId: this.#joined ? this.#lastEventId : "", stillOpen });
  }

  #stepDown() {
    this.#stream?.close();
    this.#stream = null;
    this.#release?.();
    this.#release = null;
  }

  #hear(message) {
    if (this.#stream) this.#answer(message);
    else this.#follow(message);
  }

  #answer({ kind }) {
    this.#followed = true;
    this.#heardAt = Date.now();
    if (kind === "hello") this.#welcome();
    if (kind === "ask") this.#say({ kind: "here" });
    if (kind === "retry") this.#stream.retryNow();
  }

  #welcome() {
    if (this.#joined) this.#say({ kind: "welcome", picture: store.toMessage(), id: this.#lastEventId });
    else this.#say({ kind: "state", connection: store.connection });
  }

  #follow(message) {
    if (["hello", "ask", "retry"].includes(message.kind)) return; // said by another follower
    this.#heardAt = Date.now();
    if (message.kind === "welcome" && !this.#joined) {
      this.#joined = true;
      this.#lastEventId = message.id;
      store.fromMessage(message.picture);
    }
    if (message.kind === "state") store.setConnection(message.connection);
    if (!this.#joined) return this.#hello();
    if (message.kind === "event") {
      this.#lastEventId = message.id;
      feed(message.name, message.data);
    }
  }

  /** Ask the leader for the whole picture; what it says before that is not enough to show anything. */
  #hello() {
    if (Date.now() - this.#saidHelloAt < 500) return;
    this.#saidHelloAt = Date.now();
    this.#say({ kind: "hello" });
  }

  #look() {
    const silence = Date.now() - this.#heardAt;
    if (this.#stream) this.#lookBehind(silence);
    else if (silence > DEPOSE_AFTER) {
      this.#heardAt = Date.now();
      this.#depose();
    } else if (silence > ASK_AFTER) this.#say({ kind: this.#joined ? "ask" : "hello" });
  }

  /** A batch for nobody would cost as much as all the rest of a frame. Whoever follows stands in line for the lock. */
  async #lookBehind(silence) {
    if (silence < ALONE_AFTER) return;
    const { pending } = await navigator.locks.query();
    if (Date.now() - this.#heardAt >= ALONE_AFTER) this.#followed = pending.some(({ name }) => name === NAME);
  }

  #say(message) {
    this.#channel?.postMessage(message);
  }
}

export const tabs = new Tabs();
