/* Owns how GET /api/tickers/X/why reads to a person: as pairs of a name and a sentence. Never touches the document, and
   leaves out what it isn't told. */

import { count, duration, exactTime, priceWords, stateWords } from "./format.js";

const STRATEGIES = { socket: "Quote feed", dom: "Price on the page", title: "Page's title", script: "Structured data" };

/** [[name, sentence]] of all that was told. */
export function sentencesOf(why) {
  return [
    ["State", [stateWords(why.state), why.reason].filter(Boolean).join(": ")],
    ["Clock", why.clockProblem],
    ...Object.entries(STRATEGIES).map(([name, words]) => [words, strategy(why.strategies?.[name])]),
    ...(why.sockets ?? []).map((socket, at) => [`Connection ${at + 1}`, socketWords(socket)]),
    ["Header", headerWords(why.header)],
    ["Not believed", refusals(why.refused)],
    ["Page", pageWords(why)],
    ["Last trade", why.tradedAt ? `${exactTime(why.tradedAt)}, ${duration(why.tradeAgeMs)} ago by the site's clock` : ""],
  ].filter(([, sentence]) => sentence);
}

function strategy(told) {
  if (!told || !(told.read || told.refused)) return "not read yet";
  const { priceText, ageMs, isProven, provenForMs, read, refused } = told;
  const price = priceText === null ? "no price" : `${priceWords(priceText)}, ${duration(ageMs)} ago`;
  const left = Number.isFinite(provenForMs) ? duration(Math.abs(provenForMs)) : "";
  const proof = isProven ? ["proven", left && `for ${left} more`] : ["not proven", left && `for ${left}`];
  return [price, proof.filter(Boolean).join(" "), `${read} read`, refused && `${refused} refused`].filter(Boolean).join("; ");
}

function socketWords({ isOpen, silentMs, heartbeatMs, sessions }) {
  const heard = Number.isFinite(silentMs) ? `last word ${duration(silentMs)} ago` : "no word yet";
  const beat = heartbeatMs ? `heartbeat every ${(heartbeatMs / 1000).toFixed(1)} s` : "";
  const mine = sessions.filter(({ hasSymbol, isOver }) => hasSymbol && !isOver).length;
  return [isOpen ? "open" : "closed", heard, beat, `${mine} of ${count(sessions.length, "session")} with this ticker`].filter(Boolean).join("; ");
}

function headerWords(header) {
  if (!header?.count) return "none found";
  const marks = [header.mode, header.market].filter(Boolean).join(", ");
  return `${header.chosen ? `number ${header.chosen}` : "none"} of ${header.count}${marks && `; ${marks}`}`;
}

function refusals(refused = {}) {
  return Object.entries(refused).map(([what, often]) => `${what} (${often}×)`).join("; ");
}

function pageWords({ host, httpStatus, loads, failures }) {
  return [host, httpStatus && `HTTP ${httpStatus}`, Number.isFinite(loads) && `loaded ${loads}×`, failures && `failed ${failures}× in a row`].filter(Boolean).join("; ");
}
