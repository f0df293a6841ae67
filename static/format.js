/* Owns how things are written: prices, changes, amounts, times, states. Pure functions, text in and text out.
   Never touches the document, and never rounds a price: what the exchange gave is what is printed. */

const DAY_MS = 86_400_000;
const MINUS = "\u2212";
const MOST_PLACES = 20; // decimals that every browser writes
const formats = new Map(); // places, or how amounts are written → Intl.NumberFormat
let locale = "en-US";
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const UTC_DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** What a state is called on screen: "not_found" is "not found". */
export const stateWords = (state) => state.replace("_", " ");

/** Decimals in a price text: "0.00000812" has 8. An unknown one is written with two. */
export function decimals(priceText = "0.00") {
  const point = priceText.indexOf(".");
  return point < 0 ? 0 : priceText.length - point - 1;
}

/** Numbers as everybody knows them, 66,751.91, or as the browser's own locale writes them. */
export function writeNumbers(choice) {
  const before = locale;
  locale = choice === "browser" ? undefined : "en-US";
  if (locale !== before) formats.clear();
}

function written(value, kind, options) {
  let format = formats.get(kind);
  if (!format) formats.set(kind, (format = new Intl.NumberFormat(locale, options())));
  return format.format(value);
}

/** A number, or the exact text of one, with so many decimals. */
function fixed(value, places) {
  const kept = Math.min(places, MOST_PLACES);
  return written(value, kept, () => ({ minimumFractionDigits: kept, maximumFractionDigits: kept }));
}

/** "66751.91" → "66,751.91": every digit stays. */
export function priceWords(priceText) {
  return priceText && fixed(priceText, decimals(priceText));
}

/** A written price cut into runs that look alike, for digits that moved and leading zeros: [{text, moved, faint}]. */
export function priceRuns(shown, before) {
  const firstMoved = firstDifference(shown, before);
  const significant = /^0\D00/.test(shown) ? shown.search(/[1-9]/) : 0;
  const cuts = [...new Set([0, significant, firstMoved, shown.length])].filter((at) => at >= 0).sort((a, b) => a - b);
  return cuts.slice(0, -1).map((at, number) => ({
    text: shown.slice(at, cuts[number + 1]),
    moved: at >= firstMoved,
    faint: at < significant,
  }));
}

function firstDifference(text, before) {
  if (!before || before === text) return text.length;
  if (text.replace(/\d/g, "0") !== before.replace(/\d/g, "0")) return 0;
  let at = 0;
  while (text[at] === before[at]) at++;
  return at;
}

/** A figure with as many decimals as the price has; empty when unknown. */
export function figure(value, places) {
  return Number.isFinite(value) ? fixed(value, places) : "";
}

/** The day's lowest and highest price; the page may tell a new price before it tells the new bound. */
export function dayRange({ low, high, price }) {
  return { low: price < low ? price : low, high: price > high ? price : high };
}

/** "+0.79%", with a real minus; empty when unknown. */
export function percent(value) {
  return Number.isFinite(value) ? `${sign(value, 2)}${fixed(Math.abs(value), 2)}%` : "";
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
  const isSmall = Math.abs(value) < 1000;
  return written(value, isSmall ? "small" : "compact", () => ({ notation: isSmall ? "standard" : "compact", maximumSignificantDigits: 4 }));
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

/** "26 Nov", by the reader's clock or by UTC. */
export function dayWords(ms, isUtc = false) {
  return (isUtc ? UTC_DAY : DAY).format(ms);
}

/** "26 Nov 14:02", and the year if it isn't this one: "26 Nov 2031 14:02". */
export function momentWords(ms) {
  const isThisYear = new Date(ms).getFullYear() === new Date().getFullYear();
  return `${(isThisYear ? DAY : DATE).format(ms)} ${CLOCK.format(ms)}`;
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

const OLD_TRADE = 60_000; // ms from which the age of the last trade is told

/** What stands after the state: "3 s", "last trade 4 min ago", "since 14:02", "from 09:30". */
export function age(view, now) {
  if (view.state === "live" || view.state === "closed") {
    if (now - view.sourceTime > OLD_TRADE) return `last trade ${tradeAge(view, now)}`;
    const quiet = now - view.timestamp;
    return quiet >= 2500 ? duration(quiet) : "";
  }
  if (view.state === "stale") return `since ${clockTime(view.since, now)}`;
  if (view.state === "snapshot" && view.timestamp) return `from ${clockTime(view.timestamp, now)}`;
  return "";
}

/** How long ago the exchange last traded: "4 min ago", "3 days ago"; empty when unknown. */
export function tradeAge({ sourceTime }, now) {
  const ms = now - sourceTime;
  if (!Number.isFinite(ms)) return "";
  return ms < 2 * DAY_MS ? `${duration(ms)} ago` : `${Math.floor(ms / DAY_MS)} days ago`;
}

const FIGURES_WITHIN = 5_000; // ms after which a live price without its change is told

/** Why a price isn't live, or not all of it is known, as sentences; empty when nothing is known or nothing is wrong. */
export function reason(view, now) {
  if (view.reason) return sentence(view.reason);
  if (view.state === "not_found") return "TradingView has no such symbol.";
  const isBare = view.state === "live" && !Number.isFinite(view.changePercent) && now - view.since > FIGURES_WITHIN;
  return isBare ? "TradingView's page shows no change over 24 hours." : "";
}

/** The first sentence without what stands in brackets; the rest is its detail. */
export function headline(sentences) {
  const first = /^.+?[.!?…](?=\s|$)/.exec(sentences)?.[0] ?? sentences;
  return first.replace(/ \([^)]*\)(?=.?$)/, "");
}

/** "Next try in 12 s." */
export function nextTry(view, now) {
  if (!waits(view)) return "";
  return view.nextTryAt > now ? `Next try in ${duration(view.nextTryAt - now)}.` : "Trying again now.";
}

/** Does it wait for a next try? */
export function waits({ nextTryAt, state }) {
  return Boolean(nextTryAt) && state !== "live";
}

function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

/** "3 tickers", "1 ticker". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
