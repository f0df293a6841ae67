/* Owns the translation from what the server says to what the store understands. Never touches the document, and lets
   nothing malformed through: what it can't read it leaves out. */

import { store } from "./store.js";

export function feed(message) {
  if (message.type === "connected") store.beginHearing();
  else if (message.type === "tickers" && Array.isArray(message.tickers)) store.receiveTickers(message.tickers.filter(isText));
  else if (message.type === "status") receive(message);
  else if (message.type === "alert" && isText(message.id) && isText(message.ticker)) store.receiveAlert(message);
  else if (message.type === "batch_update") {
    receive(message);
    if ("resumed" in message) store.finishSnapshot(message.resumed);
  }
}

function receive({ updates, timestamp }) {
  if (Array.isArray(updates)) store.receiveQuotes(updates.filter(isQuote), timestamp ?? Date.now());
}

const isText = (value) => typeof value === "string" && value !== "";
const isQuote = (value) => isText(value?.ticker) && isText(value.state);
