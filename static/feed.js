/* Owns the translation from what the server says to what the store understands. Never touches the document, and lets
   nothing malformed through: what it can't read it leaves out. */

import { store } from "./store.js";

export function feed(name, data) {
  const message = parse(data);
  if (!message) return;
  if (message.type === "connected") store.beginHearing();
  else if (name === "tickers" && Array.isArray(message.tickers)) store.receiveTickers(message.tickers.filter(isText));
  else if (name === "status") receive(message);
  else if (name === "message" && message.type === "batch_update") {
    receive(message);
    if ("resumed" in message) store.finishSnapshot(message.resumed);
  }
}

function receive({ updates, timestamp }) {
  if (Array.isArray(updates)) store.receiveQuotes(updates.filter(isQuote), timestamp ?? Date.now());
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

const isText = (value) => typeof value === "string" && value !== "";
const isQuote = (value) => isText(value?.ticker) && isText(value.state);
