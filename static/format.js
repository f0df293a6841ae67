/* Owns how things are written: prices, changes, amounts, times, states. Pure functions, text in and text out.
   Never touches the document, and never rounds a price: what the exchange gave is what is printed. */

const MINUS = "\u2212";
const THIN = "\u202f"; // a narrow space at which no line breaks
const AMOUNT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const SMALL_AMOUNT = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** What each state is called on screen. */
export const STATE_WORDS = {
  starting: "starting",
  snapshot: "snapshot",
  live: "live",
  stale: "stale",
  closed: "closed",
  not_found: "not found",
  blocked: "blocked",
  error: "error",
};

/** Decimals in a price text: "0.00000812" has 8. */
export function decimals(priceText) {
  const point = priceText.indexOf(".");
  return point < 0 ? 0 : priceText.length - point - 1;
}

/**
 * A price cut into runs that look alike, so that the text stays exactly the price while digits that moved, leading zeros
 * and thousands can be styled: [{text, moved, faint, gap}]. `gap` asks for air before a group of thousands.
 */
export function priceRuns(text, before) {
  const point = text.indexOf(".") < 0 ? text.length : text.indexOf(".");
  const firstMoved = firstDifference(text, before);
  const significant = text.startsWith("0.00") ? text.search(/[1-9]/) : 0;
  const runs = [];
  for (let at = 0; at < text.length; at++) {
    const moved = at >= firstMoved;
    const faint = at < significant;
    const gap = at > 0 && at < point && (point - at) % 3 === 0 && text[at - 1] !== "-";
    const last = runs[runs.length - 1];
    if (last && !gap && last.moved === moved && last.faint === faint) last.text += text[at];
    else runs.push({ text: text[at], moved, faint, gap });
  }
  return runs;
}

function firstDifference(text, before) {
  if (!before || before === text) return text.length;
  if (text.length !== before.length || text.indexOf(".") !== before.indexOf(".")) return 0;
  let at = 0;
  while (text[at] === before[at]) at++;
  return at;
}

/** "66754.54" → "66 754.54": the air a price has before its thousands, in figures that are plain text. */
export function grouped(text) {
  const [whole, ...rest] = text.split(".");
  return [whole.replace(/\d(?=(\d{3})+$)/g, `$&${THIN}`), ...rest].join(".");
}

/** A figure with as many decimals as the price has; empty when unknown. */
export function figure(value, places) {
  return Number.isFinite(value) ? grouped(value.toFixed(places)) : "";
}

/** "+0.79%", with a real minus; empty when unknown. */
export function percent(value) {
  return Number.isFinite(value) ? `${sign(value, 2)}${Math.abs(value).toFixed(2)}%` : "";
}

/** A difference of prices, with as many decimals as the price itself has. */
export function difference(value, places) {
  return Number.isFinite(value) ? `${sign(value, places)}${figure(Math.abs(value), places)}` : "";
}

function sign(value, places) {
  const shown = Number(value.toFixed(places));
  return shown > 0 ? "+" : shown < 0 ? MINUS : "";
}

/** 24_130_000 → "24.13M". */
export function amount(value) {
  if (!Number.isFinite(value)) return "";
  return Math.abs(value) < 1000 ? SMALL_AMOUNT.format(value) : AMOUNT.format(value);
}

/** "up", "down" or "flat"; empty when unknown. */
export function direction(value) {
  if (!Number.isFinite(value)) return "";
  return value > 0 ? "up" : value < 0 ? "down" : "flat";
}

/** "14:02", and the day before it when that isn't today. */
export function clockTime(ms, now = Date.now()) {
  const time = CLOCK.format(ms);
  return DAY.format(ms) === DAY.format(now) ? time : `${DAY.format(ms)} ${time}`;
}

/** "14:02:11". */
export function secondTime(ms) {
  return CLOCK_SECONDS.format(ms);
}

/** "14:02:11.094"; "14:02:11" of a time that is only known to the second. */
export function exactTime(ms) {
  if (ms % 1000 === 0) return secondTime(ms);
  return `${CLOCK_SECONDS.format(ms)}.${String(ms % 1000).padStart(3, "0")}`;
}

/** "3 s", "4 min", "2 h". */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** A latency: "3 ms", "1.2 s". Clocks that disagree give nonsense, and nonsense is not printed. */
export function latency(ms) {
  if (!Number.isFinite(ms) || ms < 0 || ms > 3_600_000) return "";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** What stands after the state: "3 s", "since 14:02", "from 09:30". */
export function age(view, now) {
  if (view.state === "live") {
    const quiet = now - view.timestamp;
    return quiet >= 2500 ? duration(quiet) : "";
  }
  if (view.state === "stale") return `since ${clockTime(view.since, now)}`;
  if (view.state === "snapshot" && view.timestamp) return `from ${clockTime(view.timestamp, now)}`;
  return "";
}

/** Why a price isn't live, as a sentence; empty when nothing is known or nothing is wrong. */
export function reason(view) {
  if (view.reason) return sentence(view.reason);
  return view.state === "not_found" ? "TradingView has no such symbol." : "";
}

/** "Next try in 12 s." */
export function nextTry(view, now) {
  if (!view.nextTryAt || view.state === "live") return "";
  return view.nextTryAt > now ? `Next try in ${duration(view.nextTryAt - now)}.` : "Trying again now.";
}

function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

/** "3 tickers", "1 ticker". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
