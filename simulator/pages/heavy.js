// What a heavy page does beside its quotes: it keeps state on its heap, and tells its own server how it fares.
"use strict";
(() => {
  const OBJECT_BYTES = 94; // what one entry of the store takes, measured
  const heap = Number(document.currentScript.dataset.heap);
  const makeEntry = (_, id) => ({ id, name: `entry ${id}`, values: [id, id * 1.5, id % 7], next: null });

  window.store = Array.from({ length: heap / OBJECT_BYTES }, makeEntry);
  const report = (event) => navigator.sendBeacon("/telemetry", JSON.stringify({ event, at: performance.now() }));
  addEventListener("load", () => report("load"));
  setInterval(() => report("alive"), 5000);
  new PerformanceObserver((list) => report(list.getEntries().length)).observe({ entryTypes: ["largest-contentful-paint"] });
})();
