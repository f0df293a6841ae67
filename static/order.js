/* Owns in which order tickers can stand: by a column, up or down, or in the user's own. Pure functions. */

const STATES = ["live", "closed", "snapshot", "stale", "starting", "blocked", "error", "not_found"];

/** What each column but the name is sorted by. */
const WEIGHTS = {
  price: (view) => view.price,
  change: (view) => view.changePercent,
  volume: (view) => view.volume * view.price,
};

/** Every order by its name; the first is the usual one. */
export const SORTS = ["name-up", "name-down", "change-down", "change-up", "price-down", "price-up", "volume-down", "volume-up", "state-up", "state-down", "own"];

/** The order a click on a column's head asks for: first as it is mostly wanted, then the other way round. */
export function nextSort(sort, key) {
  const usual = SORTS.find((name) => name.startsWith(key));
  return sort === usual ? SORTS.find((name) => name.startsWith(key) && name !== usual) : usual;
}

/** Alphabetical tickers in the order asked for. What has no such figure, or isn't live, comes last either way. */
export function ordered(tickers, sort, own, viewOf) {
  const [key, way] = sort.split("-");
  if (key === "name") return way === "down" ? tickers.reverse() : tickers;
  if (key === "own") return inOwnOrder(tickers, own);
  const weigh = key === "state" ? ({ state }) => STATES.indexOf(state) : currentOnly(WEIGHTS[key]);
  const weights = new Map(tickers.map((ticker) => [ticker, weigh(viewOf(ticker))]));
  const sense = way === "down" ? -1 : 1;
  return tickers.sort((a, b) => compare(weights.get(a), weights.get(b), sense) || (a < b ? -1 : 1));
}

/** Tickers that have no place of their own yet follow the others. */
function inOwnOrder(tickers, own) {
  const places = new Map(own.map((ticker, at) => [ticker, at]));
  return tickers.sort((a, b) => (places.get(a) ?? own.length) - (places.get(b) ?? own.length) || (a < b ? -1 : 1));
}

/** When only our own line is lost, the order stays. */
const currentOnly = (weigh) => (view) => (view.state === "live" || view.offline ? weigh(view) : NaN);

function compare(a, b, sense) {
  const known = [a, b].map(Number.isFinite);
  if (known[0] && known[1]) return (a - b) * sense;
  return known[1] - known[0];
}
