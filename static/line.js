/* Owns the two ways to hear Pluto, server-sent events and a WebSocket, behind one face: each calls `onWord` with a message's
   text and the id of its event, `onEnd` when it is over, and returns {close}. Never parses anything, and never returns. */

const NAMES = ["message", "tickers", "status", "alert", "heartbeat", "shutdown"];

export function eventLine(lastEventId, onWord, onEnd) {
  const source = new EventSource(address("/api/stream", lastEventId));
  for (const name of NAMES) source.addEventListener(name, (event) => onWord(event.data, event.lastEventId));
  source.addEventListener("error", onEnd);
  return source;
}

/** Not counted among the six connections that a browser allows a host over HTTP/1.1. */
export function socketLine(lastEventId, onWord, onEnd) {
  const socket = new WebSocket(address("/api/ws", lastEventId).replace("http", "ws"));
  socket.addEventListener("message", ({ data }) => onWord(data, ""));
  socket.addEventListener("close", onEnd);
  return socket;
}

function address(path, lastEventId) {
  const url = new URL(path, location.href);
  if (lastEventId) url.searchParams.set("lastEventId", lastEventId);
  return url.href;
}
