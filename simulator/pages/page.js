// The document's facts: its symbol, its language and its faults. The page's other scripts read them here.

const { dataset } = document.querySelector("script[data-faults][type=module]");

export const page = {
  own: window.initData.symbolInfo.resolved_symbol,
  other: dataset.other, // the symbol of the hidden header
  currencyId: dataset.currencyId,
  locale: dataset.locale,
  busyMs: Number(dataset.busyMs),
  snapshots: dataset.snapshots.split(" "), // symbols whose prices the page requests once
  faults: dataset.faults.split(" ").filter(Boolean),
  isRenamed: false, // whether the header's classes are reversed now
};
page.isRenamed = suffers("classes_renamed");

export function suffers(fault) {
  return page.faults.includes(fault);
}

/** Keeps the main thread busy for a while, and the processor idle. */
export function block() {
  const request = new XMLHttpRequest();
  request.open("GET", "/static/late?ms=100", false);
  try { request.send(); } catch { /* the loop goes on without a simulator */ }
}

export const backwards = (names) => names.split(" ").map((name) => [...name].reverse().join("")).join(" ");
export const named = (names) => (page.isRenamed ? backwards(names) : names);
export const find = (root, name) => root.querySelector(`.${named(name)}`);
