/* Owns how alerts are written. Pure functions, text out. Never touches the document. */

import { count, duration, momentWords, priceWords, secondTime } from "./format.js";

const WAYS = { up: " upwards", down: " downwards" };
const USUAL_BACK = "0.1"; // percent
const MOVES = { up: "rises", down: "falls" };

/** Seconds, exactly: "10 minutes", "1 hour", "90 seconds". */
export function spanWords(seconds) {
  const [size, unit] = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([size]) => seconds % size === 0);
  return count(seconds / size, unit);
}

/** "crosses 64,250.5", "rises 2.5% within 10 minutes". */
export function conditionWords({ condition, value, direction, within }) {
  if (condition === "state") return `no live price for ${spanWords(within)}`;
  if (condition === "moves") return `${MOVES[direction] ?? "moves"} ${value}% within ${spanWords(within)}`;
  if (condition === "crosses") return `crosses ${priceWords(value)}${WAYS[direction] ?? ""}`;
  return `at or ${condition} ${priceWords(value)}`;
}

export const sentence = (alert) => `${alert.ticker} ${conditionWords(alert)}`;

/** When it rings again, what is unusual about that, its end and its note. */
export function moreWords({ repeat, cooldown, hysteresis = USUAL_BACK, across_gaps: acrossGaps, until, note }) {
  const back = hysteresis === USUAL_BACK ? "" : `, after the price was back by ${hysteresis}%`;
  return [repeat && `again, at most once in ${spanWords(cooldown)}${back}`, acrossGaps && "also while the price is unknown", until && `until ${momentWords(until)}`, note].filter(Boolean).join(" · ");
}

/** When, at which price, and what casts a doubt on it. */
export function raisedWords({ at, priceText, gap, reason, mayBeLost }) {
  const isToday = new Date(at).toDateString() === new Date().toDateString();
  return [
    isToday ? secondTime(at) : momentWords(at),
    priceText && `price ${priceWords(priceText)}`,
    reason,
    gap && "the price was unknown for a time before",
    mayBeLost && "Pluto couldn't save this: after a restart it is gone",
  ].filter(Boolean).join(" · ");
}

/** What came of a delivery. */
export function deliveryWords({ to, state, tries, error, nextTryAt }, now) {
  if (state === "delivered") return `Sent to ${to}`;
  const why = error ? `: ${error}` : "";
  if (state === "failed") return `Not sent to ${to}, given up after ${tries === 1 ? "1 try" : `${tries} tries`}${why}`;
  const next = nextTryAt > now ? `, next try in ${duration(nextTryAt - now)}` : "";
  return `Not yet sent to ${to}${next}${why}`;
}
