/* Owns what this page has seen of one ticker: at most POINTS points over the whole session, and the LAST newest changes.
   When full, every two points become one, so a day fits in what an hour did. Never touches the document or the network. */

const POINTS = 1800;
const LAST = 40;

export class Session {
  #times = new Float64Array(POINTS); // seconds since the epoch, ascending, multiples of #step
  #prices = new Float64Array(POINTS);
  #length = 0;
  #step = 1; // seconds one point covers
  #changes = []; // newest first: {at, priceText, difference}
  #price = NaN;

  /** How many points there are, and a number that changes whenever older points were merged. */
  get length() { return this.#length; }
  get step() { return this.#step; }
  get changes() { return this.#changes; }

  /** Take a price seen at `at` (ms). Returns the difference to the one before, NaN for the first. */
  add(at, price, priceText) {
    const difference = price - this.#price;
    this.#price = price;
    if (difference !== 0) this.#keepChange({ at, priceText, difference });
    this.#keepPoint(Math.floor(at / 1000), price);
    return difference;
  }

  #keepChange(change) {
    this.#changes.unshift(change);
    if (this.#changes.length > LAST) this.#changes.pop();
  }

  #keepPoint(second, price) {
    const slot = second - (second % this.#step);
    const newest = this.#length - 1;
    if (newest >= 0 && slot <= this.#times[newest]) {
      this.#prices[newest] = price;
      return;
    }
    if (this.#length === POINTS) this.#merge();
    this.#times[this.#length] = second - (second % this.#step);
    this.#prices[this.#length] = price;
    this.#length++;
  }

  /** Halve: of every two neighbours the later one stays. */
  #merge() {
    this.#step *= 2;
    let kept = 0;
    for (let at = 0; at < this.#length; at++) {
      const slot = this.#times[at] - (this.#times[at] % this.#step);
      if (kept > 0 && this.#times[kept - 1] === slot) this.#prices[kept - 1] = this.#prices[at];
      else {
        this.#times[kept] = slot;
        this.#prices[kept] = this.#prices[at];
        kept++;
      }
    }
    this.#length = kept;
  }

  /** The newest point, {time, value}, or undefined. */
  newest() {
    return this.#length ? this.#point(this.#length - 1) : undefined;
  }

  /** The oldest point, {time, value}, or undefined. */
  oldest() {
    return this.#length ? this.#point(0) : undefined;
  }

  /** Every point, oldest first. */
  points() {
    return Array.from({ length: this.#length }, (_, at) => this.#point(at));
  }

  #point(at) {
    return { time: this.#times[at], value: this.#prices[at] };
  }

  /** At most `count` points spread over the session by time, for a sparkline. The newest is always among them. */
  sample(count) {
    if (this.#length <= count) return this.points();
    const first = this.#times[0];
    const span = this.#times[this.#length - 1] - first;
    const chosen = []; // places, not points: most of a long session's points would be garbage at once
    let filled = -1;
    for (let at = 0; at < this.#length; at++) {
      const slot = Math.min(count - 1, Math.floor(((this.#times[at] - first) / span) * count));
      if (slot !== filled) chosen.push(at);
      else chosen[chosen.length - 1] = at;
      filled = slot;
    }
    return chosen.map((at) => this.#point(at));
  }

  /** What another tab needs to show the same: plain arrays. */
  toMessage() {
    return {
      times: this.#times.slice(0, this.#length),
      prices: this.#prices.slice(0, this.#length),
      step: this.#step,
      changes: this.#changes,
      price: this.#price,
    };
  }

  static fromMessage({ times, prices, step, changes, price }) {
    const session = new Session();
    session.#times.set(times);
    session.#prices.set(prices);
    session.#length = times.length;
    session.#step = step;
    session.#changes = [...changes];
    session.#price = price;
    return session;
  }
}
