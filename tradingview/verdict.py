"""The verdict on one page: the observations, a line for each finding, and what to do.

This file owns the judgement that a person reads; it observes nothing itself (see doctor.py). It is pure: no browser, no
clock, no I/O. Any thread may use it. Times and spans are in seconds, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from quotes import Source, State, Ticker
from tradingview.gate import Answer

NAMES = {Source.SOCKET: "socket", Source.DOM: "element", Source.TITLE: "title", Source.SCRIPT: "script"}
NO_READING = {
    Source.SOCKET: "no price in quote frames",
    Source.DOM: "no price in the header",
    Source.TITLE: "no price in the title (symbol pages seldom have one)",
    Source.SCRIPT: "no dated price in structured data",
}
FINE = "Prices come: there is nothing to do."
ADVICE = {
    State.NOT_FOUND: "Look the ticker's name up at TradingView; another exchange than BINANCE goes before it, as in "
    "COINBASE:BTCUSD.",
    State.BLOCKED: "Wait half an hour and track fewer tickers; with --browser-mode headed you can solve a check "
    "yourself in the window.",
    State.STALE: "Read the reason above; if the page shows a moving price in your own browser, send a report "
    "(docs/reports.md).",
    State.ERROR: "Read the reason above, try again in a minute, and send a report if it stays (docs/reports.md).",
}
UNREACHABLE = "Check the internet connection, the proxy and --source-url, then try again."
NO_BROWSER = "Pluto needs a Chromium that starts: do what the line about the browser says."
ELEMENT_ONLY = (
    "Prices come, but only from what the page shows and not from its quote socket: send a report (docs/reports.md)."
)


@dataclass
class Observed:
    """The observations of one page. `why` is its feed's `why` at the end; empty if no page was opened."""

    ticker: Ticker
    symbol: str
    host: str
    browser: str = ""  # its version and how it runs; without its path
    browser_failure: str = ""
    why: dict[str, Any] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    answered_after: float | None = None
    loaded_after: float | None = None  # DOMContentLoaded
    first: dict[Source, float] = field(default_factory=dict)  # when each strategy had its first price
    frames: int = 0  # quote frames of the symbol
    disagreements: int = 0
    heap_mb: float | None = None
    heap_limit_mb: float = 0.0
    is_simulated: bool = False


@dataclass(frozen=True)
class Finding:
    name: str
    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'✔' if self.is_good else '✘'} {self.name:<10} {self.text}"


@dataclass(frozen=True)
class Verdict:
    """`is_good`: a live or closed price was proven."""

    ticker: Ticker
    state: State
    is_good: bool
    findings: tuple[Finding, ...]
    advice: str

    def __str__(self) -> str:
        return "\n".join([f"Pluto's doctor on {self.ticker}", "", *map(str, self.findings), "", self.advice])


def judge(seen: Observed) -> Verdict:
    if seen.browser_failure:
        finding = Finding("browser", False, seen.browser_failure)
        return Verdict(seen.ticker, State.ERROR, False, (finding,), NO_BROWSER)
    state = State(seen.why["state"])
    is_good = state in (State.LIVE, State.CLOSED)
    findings = [Finding("browser", True, seen.browser), _reachability(seen)]
    if seen.answers:
        findings += [_redirects(seen), _wall(seen, state), _identity(seen)]
        findings += [_strategy(seen, source) for source in NAMES]
        findings += [_memory(seen), _clock(seen)]
    findings.append(_price(seen, state, is_good))
    return Verdict(seen.ticker, state, is_good, tuple(findings), _advice(seen, state))


def _reachability(seen: Observed) -> Finding:
    if not seen.answers:
        return Finding("reachable", False, seen.why["reason"] or f"{seen.host} gave no answer")
    answer = f"HTTP {seen.answers[-1].status} from {seen.host}{_after(seen.answered_after)}"
    loaded = "" if seen.loaded_after is None else f", DOMContentLoaded{_after(seen.loaded_after)}"
    return Finding("reachable", seen.answers[-1].status < 400, answer + loaded)


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f" after {seconds:.1f} s"


def _redirects(seen: Observed) -> Finding:
    hosts = [urlsplit(answer.url).netloc for answer in seen.answers]
    sent_on = [f"from {host}" for host, answer in zip(hosts, seen.answers, strict=True) if 300 <= answer.status < 400]
    is_lost = 300 <= seen.answers[-1].status < 400
    text = f"{', '.join(sent_on)} to {'where Pluto does not go' if is_lost else hosts[-1]}" if sent_on else "none"
    return Finding("redirects", not is_lost, text)


def _wall(seen: Observed, state: State) -> Finding:
    return Finding("wall", state is not State.BLOCKED, seen.why["reason"] if state is State.BLOCKED else "none")


def _identity(seen: Observed) -> Finding:
    resolved = seen.why["page"]["resolvedSymbol"]
    text = f"the page says that it is {resolved}" if resolved else "the page doesn't say whose it is"
    return Finding("identity", resolved == seen.symbol, text)


def _strategy(seen: Observed, source: Source) -> Finding:
    told = seen.why["strategies"][source.value]
    if (first := seen.first.get(source)) is None:
        refused = f"; {told['refused']} texts refused" if told["refused"] else ""
        return Finding(NAMES[source], False, NO_READING[source] + refused)
    parts = [f"first price after {first:.1f} s"]
    if source is Source.SOCKET:
        beats = [socket["heartbeatMs"] for socket in seen.why["sockets"] if socket["heartbeatMs"]]
        parts.append(f"{seen.frames} frames")
        parts.append(
            f"a heartbeat every {min(beats) / 1000:.1f} s" if beats else "too few heartbeats to tell their pace"
        )
    elif source is Source.DOM:
        header = seen.why["header"]
        parts.append(f"{told['read']} repaints read, {told['refused']} refused")
        parts.append(f"header {header['chosen']} of {header['count']}")
        parts.append("disagrees with the socket" if seen.disagreements else "agrees with the socket")
    return Finding(NAMES[source], not (source is Source.DOM and seen.disagreements), ", ".join(parts))


def _memory(seen: Observed) -> Finding:
    if seen.heap_mb is None:
        return Finding("memory", True, "unknown: the page is gone")
    is_good = seen.heap_mb <= seen.heap_limit_mb
    return Finding("memory", is_good, f"{seen.heap_mb:.0f} MB of heap; --page-max-heap is {seen.heap_limit_mb:.0f}")


def _clock(seen: Observed) -> Finding:
    behind, problem = seen.why["clockBehindMs"], seen.why["clockProblem"]
    if behind is None:
        return Finding("clock", True, "unknown: the site didn't tell its own")
    return Finding("clock", problem is None, problem or "within 5 minutes of the site's")


def _price(seen: Observed, state: State, is_good: bool) -> Finding:
    told = " ".join(filter(None, (seen.why["priceText"], "(SIMULATED)" if seen.is_simulated else "")))
    reason = f": {seen.why['reason']}" if seen.why["reason"] else ""
    return Finding("price", is_good, f"{state} {told}".rstrip() + reason)


def _advice(seen: Observed, state: State) -> str:
    """The one sentence of advice: first for what prevents prices, then for what only harms them."""
    if not seen.answers:
        return UNREACHABLE
    if state not in (State.LIVE, State.CLOSED):
        return ADVICE.get(state, ADVICE[State.ERROR])
    if (problem := seen.why["clockProblem"]) is not None:
        return f"Prices come, but {problem}."
    return FINE if Source.SOCKET in seen.first else ELEMENT_ONLY
