/* Owns what a user can do to the board: add, remove, undo, try again, copy, share. The same from a key, a click or a
   touch. The store shows the outcome at once, the server confirms or refuses it. Touches the document only for the
   clipboard and to ask that a row be pointed out. */

import { lookUp, track, tryAgain, untrack } from "./api.js";
import { notify } from "./notices.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const UNDO_FOR = 8_000; // ms
const PLAIN = /^(?!BINANCE:)([A-Z0-9._!]{1,32}:)?[A-Z0-9._!]{4,32}$/; // surely a ticker as the server will have it

const undoable = []; // how to take back each deed that can be, the newest last

/** What was typed, as texts of one ticker each; Pluto knows what spaces mean. */
export function splitTexts(text) {
  return [...new Set(text.toUpperCase().split(/[,;\n]+/).map((part) => part.trim()).filter(Boolean))];
}

/**
 * Add what one text means. The row of a plain ticker is there before the server answers, unless it `isCoin`: then the
 * server will ask back. Resolves to {why, text, proposals, added}: `why` it was refused is empty when it wasn't.
 */
export async function add(text, { isCoin = false } = {}) {
  if (store.has(text)) return pointOut(text);
  const guess = PLAIN.test(text) && !isCoin ? text : "";
  if (guess) store.expect(guess);
  const { ok, status, answer, message } = await track(text);
  const ticker = answer.ticker?.ticker;
  if (guess && guess !== ticker) store.unexpect(guess);
  if (answer.code === "several_tickers") return addAll(answer.proposals);
  if (!ok) return { why: message, text, proposals: answer.proposals ?? [], added: [] };
  if (status === 200 && store.has(ticker) && guess !== ticker) return pointOut(ticker);
  store.expect(ticker);
  store.accept(ticker);
  settings.remember([ticker]);
  if (answer.understood) notify(`${text} is ${answer.understood} here.`);
  return { why: "", text, proposals: [], added: [ticker] };
}

/** Add one ticker; if it is refused, a notice says why. */
export async function addOrTell(ticker) {
  const { why } = await add(ticker);
  if (why) notify(why);
}

/** Several texts as one outcome. */
export async function addAll(texts, options) {
  const outcomes = await Promise.all(texts.map((text) => add(text, options?.(text))));
  const refused = outcomes.filter(({ why }) => why);
  return {
    why: [...new Set(refused.map(({ why }) => why))].join(" "),
    text: refused.map((one) => one.text).join(", "),
    proposals: refused.flatMap((one) => one.proposals),
    added: outcomes.flatMap((one) => one.added),
  };
}

/** It is there already: show where, aloud. */
function pointOut(ticker) {
  document.dispatchEvent(new CustomEvent("point-out", { detail: ticker }));
  notify(`${ticker} is on the board already.`);
  return { why: "", text: ticker, proposals: [], added: [] };
}

export async function remove(ticker) {
  if (!store.has(ticker)) return;
  store.dismiss(ticker);
  const removal = untrack(ticker);
  const notice = offerUndo(`${ticker} removed.`, async () => {
    await removal; // Else the server might hear of the removal last.
    addOrTell(ticker);
  });
  const answer = await removal;
  if (answer.ok) return;
  store.undismiss(ticker);
  notice.close();
  notify(`${ticker} could not be removed. ${answer.message}`);
}

/** Say what was done; for a while it can be taken back, by button or key. Returns {close}. */
export function offerUndo(text, takeBack) {
  const undoThis = () => {
    notice.close();
    takeBack();
  };
  const forget = () => undoable.splice(undoable.indexOf(undoThis), 1);
  const notice = notify(text, { action: "Undo", onAction: undoThis, lasts: UNDO_FOR, onClose: forget });
  undoable.push(undoThis);
  return notice;
}

/** Take the newest deed back. */
export function undo() {
  if (undoable.length) undoable.at(-1)();
  else notify("Nothing to undo.");
}

/** Don't wait for the ticker's next try. */
export async function retry(ticker) {
  const { message } = await tryAgain(ticker);
  notify(message);
}

/** Tickers to track instead of one that TradingView doesn't have. */
export async function proposals(ticker) {
  const { answer } = await lookUp(ticker);
  return answer.proposals ?? [];
}

export async function copyPrice(ticker) {
  const { priceText } = store.view(ticker);
  if (!priceText) return;
  const copied = await copy(priceText);
  notify(copied ? `Copied ${priceText}` : "The browser didn't allow copying.");
}

export async function share() {
  const address = new URL(location.pathname, location.href);
  address.search = `?tickers=${store.shown().map(encodeURIComponent).join(",").replaceAll("%3A", ":")}`;
  const copied = await copy(address.href);
  notify(copied ? "Link to these tickers copied." : address.href);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // No clipboard over plain HTTP from another machine.
  }
}

function copyBySelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
