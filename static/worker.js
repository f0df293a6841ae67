/* Owns the one stream of all of a browser's tabs, in a SharedWorker: HTTP/1.1 allows a host six connections. It tells each
   word to every tab, and the whole picture to one that comes later. Never touches a document; it ends with its last tab. */

import { feed } from "./feed.js";
import { eventLine, socketLine } from "./line.js";
import { store } from "./store.js";
import { Stream } from "./stream.js";

const ports = new Set(); // one a tab
const stream = new Stream({
  lines: [eventLine, socketLine],
  onWord: (text, message) => {
    feed(message);
    tell({ kind: "word", text });
  },
  onState: (connection) => {
    store.setConnection(connection);
    tell({ kind: "state", connection });
  },
});

const ANSWERS = {
  hello: (port) => {
    stream.look();
    port.postMessage({ kind: "picture", picture: store.toMessage() });
    ports.add(port);
    if (ports.size === 1) stream.start();
  },
  bye: (port) => {
    if (ports.delete(port) && ports.size === 0) stream.close();
  },
  ask: (port) => {
    stream.look();
    port.postMessage({ kind: "state", connection: store.connection });
  },
  retry: () => stream.retryNow(),
  doubt: () => stream.doubt(),
};

self.addEventListener("connect", ({ ports: [port] }) => {
  port.addEventListener("message", ({ data }) => ANSWERS[data.kind]?.(port));
  port.addEventListener("close", () => ANSWERS.bye(port)); // The tab crashed, where the browser tells.
  port.start();
});

function tell(message) {
  for (const port of ports) port.postMessage(message);
}
