// The page's views of symbols: cards, menu entries and the header, each painted at most every 125 ms.

import { decimalsOf, printed, signed } from "./format.js";
import { backwards, find, named, page, suffers } from "./page.js";

const PAINT_MS = 125;
const COLOUR_MS = 750;
const UNREADABLE = ["3.77", "\u2006T"];

const TEXTS = {
  "de-DE": {
    "Market open": "Markt geöffnet", "Market closed": "Markt geschlossen", "Pre-market": "Vorbörslich",
    "Post-market": "Nachbörslich", Holiday: "Feiertag", Delisted: "Delisted", "As of today at": "Stand heute um", "As of": "Stand",
  },
  "fr-FR": {
    "Market open": "Marché ouvert", "Market closed": "Marché fermé", "Pre-market": "Pré-marché",
    "Post-market": "Post-marché", Holiday: "Jour férié", Delisted: "Retiré", "As of today at": "Aujourd'hui à", "As of": "Au",
  },
};
const translated = (text) => TEXTS[page.locale]?.[text] ?? text;

const SESSIONS = {
  market: "Market open", out_of_session: "Market closed", pre_market: "Pre-market", post_market: "Post-market",
  holiday: "Holiday", delisted: "Delisted",
};

function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

function sharedLength(one, other) {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  return length;
}

// The element that shows a price: unchanged digits, changed digits in a coloured span, the last one raised if it is the
// fifth decimal, a unit. Each part alone is wrong; their text together is right. All are set in one task.
class PriceElement {
  constructor(element) {
    this.element = element;
    this.text = "";
  }

  paint(text, unit, hasRaised, colour) {
    if (text + unit === this.text) return;
    const body = hasRaised ? text.slice(0, -1) : text;
    const length = sharedLength(body, this.text);
    const changed = document.createElement("span");
    changed.textContent = body.slice(length);
    const parts = [length ? body.slice(0, length) : "", changed, hasRaised ? raised(text.slice(-1)) : "", unit];
    this.element.replaceChildren(...parts.filter(Boolean));
    if (this.text) this.colour(changed, colour);
    this.text = text + unit;
  }

  colour(span, name) {
    span.className = name;
    setTimeout(() => { span.className = ""; }, COLOUR_MS);
  }
}

function raised(digit) {
  const sup = document.createElement("sup");
  sup.textContent = digit;
  return sup;
}

export class CardView {
  constructor(root, symbol = root.dataset.symbol) {
    this.symbol = symbol;
    this.root = root;
    this.price = new PriceElement(find(root, "js-symbol-last") ?? root.querySelector(".js-symbol-last"));
    this.quote = {};
    this.waiting = 0;
    this.changed = false;
  }

  merge(values) {
    for (const [field, value] of Object.entries(values)) if (value !== null) this.quote[field] = value;
    this.changed = true;
    if (!this.waiting) this.repaint();
  }

  repaint() {
    clearTimeout(this.waiting);
    this.changed = false;
    this.show();
    this.waiting = setTimeout(() => { this.waiting = 0; if (this.changed) this.repaint(); }, PAINT_MS);
  }

  show() {
    if (this.quote.lp !== undefined) this.showPrice(this.quote.lp);
  }

  showPrice(price) {
    const colour = price < this.shown ? "falling-KLji300y" : "growing-KLji300y";
    this.price.paint(printed(price, this.quote, page.locale), "", decimalsOf(this.quote) === 5, colour);
    this.shown = price;
  }
}

// A ticker in the page's header: the page's own, or the hidden one of another symbol.
export class HeaderView extends CardView {
  get isOwn() { return this.symbol !== page.other; }

  show() {
    if (this.isOwn && suffers("unreadable_price")) this.price.paint(...UNREADABLE, false, "growing-KLji300y");
    else if (this.quote.lp !== undefined) this.showQuote();
  }

  showQuote() {
    const { quote } = this;
    this.showPrice(quote.lp * (this.isOwn && suffers("dom_disagrees") ? 1.01 : 1));
    this.root.classList.add(named("quote-ticker-inited"));
    if (quote.ch !== undefined) this.setText("js-symbol-change", signed(quote.ch, decimalsOf(quote), page.locale));
    if (quote.chp !== undefined) this.setText("js-symbol-change-pt", `${signed(quote.chp, 2, page.locale)}%`);
    if (quote.currency_code) this.setText("js-symbol-currency", quote.currency_code);
    this.showSession(quote.typespecs?.includes("discontinued") ? "delisted" : quote.current_session);
    if (quote.lp_time) this.setText("js-symbol-lp-time", tradeTime(new Date(quote.lp_time * 1000)));
    this.showDataMode(modeOf(quote.update_mode));
    this.showExtendedHours(quote);
  }

  setText(name, text) { setText(find(this.root, name), text); }

  showSession(session = "market") {
    const element = find(this.root, "js-symbol-session-status");
    if (!element) return;
    setText(element, translated(SESSIONS[session] ?? session));
    const names = `js-symbol-session-status tv-market-status tv-market-status--${session.replaceAll("_", "-")}`;
    if (element.className !== named(names)) element.className = named(names);
  }

  showDataMode(mode) {
    const element = find(this.root, "js-data-mode");
    const names = named(`dataMode-zoF9r75I js-data-mode tv-data-mode--${mode}`);
    if (element && element.className !== names) element.className = names;
  }

  showExtendedHours({ rtc }) {
    const element = find(this.root, "js-symbol-ext-hrs-close");
    if (!element || rtc === undefined) return;
    element.classList.remove("i-hidden");
    setText(element, printed(rtc, this.quote, page.locale));
  }

  // Moves the ticker to a new element, as a new rendering does. Its data stay.
  moveTo(root) {
    const { quote, shown, symbol } = this;
    clearTimeout(this.waiting);
    Object.assign(this, new HeaderView(root, symbol), { quote, shown });
    this.repaint();
  }

  replacePrice() {
    const old = this.price.element;
    const fresh = old.cloneNode(false);
    old.replaceWith(fresh);
    this.price = new PriceElement(fresh);
    this.repaint();
  }
}

function modeOf(updateMode = "streaming") {
  if (updateMode === "streaming" || updateMode === "pulsed") return "realtime";
  return updateMode.startsWith("delayed") ? "delayed" : updateMode;
}

/** "As of today at 12:38 GMT". */
function tradeTime(date) {
  const [day, clock] = [date.toISOString().slice(0, 10), date.toISOString().slice(11, 16)];
  const isToday = day === new Date().toISOString().slice(0, 10);
  return isToday ? `${translated("As of today at")} ${clock} GMT` : `${translated("As of")} ${day} ${clock} GMT`;
}

/** Renders the page's header into a new element, with all its class names reversed, or restored. */
export function rename(views) {
  const header = views[0].root.closest(`.${named("js-symbol-page-header-root")}`);
  const fresh = header.cloneNode(true);
  for (const element of [fresh, ...fresh.querySelectorAll("*")]) {
    if (element.className) element.className = backwards(element.className);
    if (element.dataset.qaId) element.dataset.qaId = backwards(element.dataset.qaId);
  }
  const places = tickers(header);
  header.replaceWith(fresh);
  page.isRenamed = !page.isRenamed;
  const freshPlaces = tickers(fresh);
  for (const view of views) view.moveTo(freshPlaces[places.indexOf(view.root)]);
}

/** Shows the hidden ticker with our symbol, and hides the shown one. */
export function swap(own, hidden) {
  const [mine, theirs] = [own.root, hidden.root];
  [mine.dataset.symbol, theirs.dataset.symbol] = [theirs.dataset.symbol, mine.dataset.symbol];
  mine.classList.add("i-hidden");
  theirs.classList.remove("i-hidden");
  own.moveTo(theirs);
  hidden.moveTo(mine);
}

export function tickers(root) {
  return [...root.querySelectorAll(`.${named("js-symbol-header-ticker")}`)];
}

const isHidden = (ticker) => ticker.classList.contains(named("i-hidden"));

/** The page's own ticker and, if there is one, the hidden one. */
export function findHeaders() {
  const all = tickers(document);
  if (!all.length) all.push(document.querySelector(".js-symbol-page-header-root")); // of a recorded page
  const shown = all.filter((ticker) => !isHidden(ticker));
  const own = shown.find((ticker) => ticker.dataset.symbol === page.own) ?? shown[0];
  const hidden = all.find(isHidden);
  return [own && new HeaderView(own, page.own), hidden && new HeaderView(hidden, page.other)].filter(Boolean);
}
