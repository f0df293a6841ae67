/* Owns what a user can do to the board: add, remove, undo, copy, share. The same from a key, a click or a touch. The store
   shows the outcome at once, the server confirms or refuses it. Never touches the document but for the clipboard. */

import { track, untrack } from "./api.js";
import { notify } from "./notices.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const UNDO_FOR = 5_000; // ms
const PART = /^[A-Z0-9._!]{1,32}$/;

let undoable = null; // {ticker, notice, removal} of the newest removal, while it can be taken back

/** What was typed, as single tickers: upper case, separated by spaces, commas or semicolons, each once. */
export function splitTickers(text) {
  return [...new Set(text.toUpperCase().split(/[\s,;]+/).filter(Boolean))];
}

/** Why this can't be a ticker; empty when it can. */
export function fault(ticker) {
  const parts = ticker.split(":");
  if (parts.length > 2) return `“${ticker}” has more than one colon. Write EXCHANGE:TICKER, such as COINBASE:BTCUSD.`;
  if (parts.some((part) => part.length > 32)) return `“${ticker.slice(0, 12)}…” is too long: 32 characters at most.`;
  if (parts.some((part) => part === "")) return `“${ticker}” is incomplete. Write EXCHANGE:TICKER, such as COINBASE:BTCUSD.`;
  if (!parts.every((part) => PART.test(part))) return `“${ticker}” isn't a ticker. Letters, digits, “.”, “_” and “!” only.`;
  return "";
}

/** Add one. Its row is there before the server answers. Resolves to why it was refused, empty when it wasn't. */
export async function add(ticker) {
  const wrong = fault(ticker);
  if (wrong) return wrong;
  store.expect(ticker);
  const answer = await track(ticker);
  if (!answer.ok) {
    store.unexpect(ticker);
    return answer.message;
  }
  store.accept(ticker);
  settings.remember([ticker]);
  return "";
}

export async function remove(ticker) {
  if (!store.has(ticker)) return;
  store.dismiss(ticker);
  undoable?.notice.close();
  const notice = notify(`${ticker} removed.`, { action: "Undo", onAction: undo, lasts: UNDO_FOR, onClose: () => (undoable = null) });
  const removal = untrack(ticker);
  undoable = { ticker, notice, removal };
  const answer = await removal;
  if (answer.ok) return;
  store.undismiss(ticker);
  notice.close();
  notify(`${ticker} could not be removed. ${answer.message}`);
}

export async function undo() {
  if (!undoable) return;
  const { ticker, notice, removal } = undoable;
  notice.close();
  await removal; // Else the server might hear of the removal last.
  const refused = await add(ticker);
  if (refused) notify(refused);
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
