// The other work of a heavy page: it keeps state on its heap and sends telemetry to its own server.
"use strict";
(() => {
  const OBJECT_BYTES = 94; // measured size of one entry of the store
  const heap = Number(document.currentScript.dataset.heap);
  const makeEntry = (_, id) => ({ id, name: `entry ${id}`, values: [id, id * 1.5, id % 7], next: null });

  window.store = Array.from({ length: heap / OBJECT_BYTES }, makeEntry);
  const report = (event) => navigator.sendBeacon("/telemetry", JSON.stringify({ event, at: performance.now() }));
  addEventListener("load", () => report("load"));
  setInterval(() => report("alive"), 5000);
  new PerformanceObserver((list) => report(list.getEntries().length)).observe({ entryTypes: ["largest-contentful-paint"] });
})();
