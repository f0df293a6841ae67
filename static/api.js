/* Owns the requests to Pluto; here are those about one ticker: track it, untrack it, try it again, look it up, read its
   past. Every outcome, also no answer at all, comes back as one object. Never touches the document or the store. */

const NO_ANSWER = "Pluto doesn't answer. Is it still running?";

export function track(ticker) {
  return post("/api/tickers", { ticker });
}

export function untrack(ticker) {
  return send(addressOf(ticker), { method: "DELETE" });
}

/** Open its page again now. */
export function tryAgain(ticker) {
  return send(`${addressOf(ticker)}/retry`, { method: "POST" });
}

/** Everything known of a ticker's price. */
export function lookUp(ticker) {
  return send(addressOf(ticker));
}

/** What its page has told, and why its price is what it is. */
export function explain(ticker) {
  return send(`${addressOf(ticker)}/why`);
}

/** What is kept of its prices, as candles: `wishes` are the query of /history. */
export function candles(ticker, wishes) {
  return send(`${historyOf(ticker)}?${new URLSearchParams(wishes)}`);
}

export const historyOf = (ticker) => `${addressOf(ticker)}/history`;
const addressOf = (ticker) => `/api/tickers/${encodeURIComponent(ticker)}`;

export function post(url, body) {
  return send(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** {ok, message, status, answer}: `answer` is what Pluto sent, an empty object when it sent nothing. */
export async function send(url, request = {}) {
  try {
    const response = await fetch(url, { ...request, signal: AbortSignal.timeout(10_000) });
    const answer = await response.json().catch(() => ({}));
    const ok = response.ok && answer.success !== false;
    return { ok, status: response.status, answer, message: answer.message ?? (ok ? "" : `Pluto answered ${response.status}.`) };
  } catch {
    return { ok: false, status: 0, answer: {}, message: NO_ANSWER };
  }
}
