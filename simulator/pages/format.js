// Prints prices as TradingView's own page code does: rounded half up to the tick, in doubles, with as many decimals as
// the pricescale has zeros, whatever minmov is. Bonds are printed as fractions, counts as volumes.

const EXPONENT_ABOVE = 1e10; // a greater pricescale prints exponents
const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
const MINUS = "\u2212";

/** The smallest step of a price, in units of 1 / pricescale. "0.01 250 0.05": 0.01 below 250, 0.05 from there on. */
export function tickOf(price, { pricescale = 100, minmov = 1, variable_tick_size: variable }) {
  if (!variable) return minmov;
  const [first, ...steps] = variable.split(" ").map(Number);
  let tick = first;
  for (let index = 0; index < steps.length; index += 2) if (price >= steps[index]) tick = steps[index + 1];
  return Math.max(1, Math.round(tick * pricescale));
}

export const decimalsOf = ({ pricescale = 100 }) => Math.round(Math.log10(pricescale));

export function printed(price, quote, locale) {
  const { pricescale = 100 } = quote;
  const tick = tickOf(price, quote);
  const units = Math.round((price * pricescale) / tick) * tick;
  if (quote.format === "volume") return volume(price, locale);
  if (quote.fractional) return fraction(units, pricescale);
  return pricescale > EXPONENT_ABOVE ? exponential(units, decimalsOf(quote), locale) : fixed(units, decimalsOf(quote), locale);
}

/** A whole number of units as text: its last `decimals` digits stand behind the point. */
function fixed(units, decimals, locale) {
  const digits = String(Math.abs(units)).padStart(decimals + 1, "0");
  const whole = BigInt(digits.slice(0, digits.length - decimals)).toLocaleString(locale);
  const rest = decimals ? pointOf(locale) + digits.slice(-decimals) : "";
  return (units < 0 ? MINUS : "") + whole + rest;
}

/** 115'05: 115 and 5 / 32, where pricescale is 32. */
function fraction(units, pricescale) {
  const digits = String(pricescale - 1).length;
  return `${Math.floor(units / pricescale)}'${String(units % pricescale).padStart(digits, "0")}`;
}

/** 1.235 K, with U+2006. The number of decimals is inferred. */
function volume(number, locale) {
  const unit = UNITS.find(([size]) => number >= size);
  const text = (number / (unit?.[0] ?? 1)).toLocaleString(locale, { maximumFractionDigits: 3 });
  return unit ? `${text}\u2006${unit[1]}` : text;
}

/** 12.340e-9. The number of decimals is inferred from examples. */
function exponential(units, decimals, locale) {
  const magnitude = String(Math.abs(units)).length - 1 - decimals;
  const exponent = Math.min(0, Math.floor(magnitude / 3) * 3);
  return fixed(units, Math.max(0, decimals + exponent), locale) + (exponent ? `e${exponent}` : "");
}

function pointOf(locale) {
  return new Intl.NumberFormat(locale).formatToParts(1.5).find(({ type }) => type === "decimal").value;
}

export function signed(number, decimals, locale) {
  const text = fixed(Math.round(Math.abs(number) * 10 ** decimals), decimals, locale);
  return (number < 0 ? MINUS : "+") + text;
}
