/* Owns the requests that change something: track and untrack a ticker. Every outcome, also no answer at all, comes back
   as {ok, message}. Never touches the document or the store. */

const NO_ANSWER = "Pluto doesn't answer. Is it still running?";

export function track(ticker) {
  return send("/api/tickers", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ticker }),
  });
}

export function untrack(ticker) {
  return send(`/api/tickers/${encodeURIComponent(ticker)}`, { method: "DELETE" });
}

async function send(url, request) {
  try {
    const response = await fetch(url, { ...request, signal: AbortSignal.timeout(10_000) });
    const answer = await response.json().catch(() => ({}));
    const ok = response.ok && answer.success !== false;
    return { ok, message: answer.message ?? (ok ? "" : `Pluto answered ${response.status}.`) };
  } catch {
    return { ok: false, message: NO_ANSWER };
  }
}
