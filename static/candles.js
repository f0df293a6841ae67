/* Owns the candles of one ticker as the page knows them: pages of the store, and what the stream brings on top. What the store
   says later replaces what was heard. Never touches the document, the network or the clock.

   A slot is what stands at one place of the time axis: {start, candle, isFlat, ends}. Without a candle nothing was known
   there. `isFlat`: the price stood still. `ends`: a gap follows, so that no line leads on. */

export const WIDTHS = { "1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "4h": 14_400_000, "1d": 86_400_000 };

const MOST_MISSING = 300; // slots drawn of a stretch without candles: Pluto may have been off for a month

export class Candles {
  #width; // ms
  #all = []; // oldest first: {start, open, high, low, close, gap, heardAt}, prices as exact texts

  constructor(width) {
    this.#width = width;
  }

  get length() { return this.#all.length; }
  get oldest() { return this.#all[0]; }
  get newest() { return this.#all.at(-1); }

  /** How many candles have a gap inside or before them. The very first one has, since nothing was known before. */
  get gaps() { return this.#all.filter(({ gap }, at) => gap && at > 0).length; }

  /** The candle that begins at this moment, or undefined. */
  at(start) {
    return this.#all.findLast((candle) => candle.start === start);
  }

  /** All that the store has from `since` on, or from a page's first candle. It can't have what was heard after `writtenUntil`. */
  take(page, writtenUntil, since = page[0]?.start) {
    const told = new Map(page.map((candle) => [candle.start, candle]));
    const isNews = ({ heardAt }) => heardAt > writtenUntil;
    const isKept = (candle) => !told.has(candle.start) && (candle.start < this.#startOf(since) || isNews(candle));
    const kept = this.#all.filter(isKept);
    for (const candle of this.#all.filter(isNews)) if (told.has(candle.start)) told.set(candle.start, joined(told.get(candle.start), candle));
    this.#all = [...kept, ...told.values()].sort((a, b) => a.start - b.start);
  }

  /** An older page. */
  prepend(page) {
    const { oldest } = this;
    this.#all = [...page.filter(({ start }) => !oldest || start < oldest.start), ...this.#all];
  }

  /** A new price of the stream, at its time in ms: the slots that are new or different, oldest first. */
  hear(at, price) {
    const { newest } = this;
    const start = this.#startOf(at);
    if (newest && start <= newest.start) {
      extend(newest, price, at);
      return [slotOf(newest)];
    }
    this.#all.push({ start, open: price, high: price, low: price, close: price, gap: !newest, heardAt: at });
    return this.#slotsFrom(Math.max(0, this.length - 2));
  }

  /** From now on the price is unknown: the slots that are different. */
  lose(at) {
    const { newest } = this;
    if (!newest || newest.gap || this.#startOf(at) > newest.start) return [];
    newest.gap = true;
    return [slotOf(newest)];
  }

  /** Everything, oldest first. */
  slots() {
    return this.#slotsFrom(0);
  }

  #startOf(at) {
    return at - (at % this.#width);
  }

  #slotsFrom(first) {
    return this.#all.slice(first).flatMap((candle, at) => {
      const next = this.#all[first + at + 1];
      const between = next ? this.#missing(candle, next) : [];
      return [{ ...slotOf(candle), ends: between.length > 0 && next.gap }, ...between];
    });
  }

  /** The price stood still, unless the next candle says that there was a gap. */
  #missing({ start: before, close }, next) {
    const count = Math.min(MOST_MISSING, Math.round((next.start - before) / this.#width) - 1);
    return Array.from({ length: count }, (_, at) => {
      const start = next.start - (count - at) * this.#width;
      return next.gap ? { start, candle: null } : { start, candle: { start, open: close, high: close, low: close, close }, isFlat: true };
    });
  }
}

const slotOf = (candle) => ({ start: candle.start, candle });

function extend(candle, price, at) {
  if (Number(price) > Number(candle.high)) candle.high = price;
  if (Number(price) < Number(candle.low)) candle.low = price;
  candle.close = price;
  candle.heardAt = at;
}

/** The store's candle with what the stream has brought since. */
function joined(told, heard) {
  const candle = { ...told };
  for (const price of [heard.high, heard.low, heard.close]) extend(candle, price, heard.heardAt);
  return candle;
}
