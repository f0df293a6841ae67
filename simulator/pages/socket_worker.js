// The page's quote socket in its own worker: the main thread sees its messages, never its frames.
"use strict";
let socket;

self.onmessage = ({ data }) => {
  if (data.open) open(data.open);
  else if (data.close) socket.close(data.close);
  else socket.send(data.send);
};

function open(url) {
  socket = new WebSocket(url);
  socket.onopen = () => self.postMessage({ type: "open" });
  socket.onclose = () => self.postMessage({ type: "close" });
  socket.onmessage = (message) => self.postMessage({ type: "message", data: message.data });
}
