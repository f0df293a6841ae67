"""A scraper without a browser, for the relay: its pages show what a test says. It needs no library of the tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from quotes import Quote, Source, SourceState, State, Ticker, steady_ms
from relay.link import RelaySettings
from storage.ledger import AlertLimits

FEW = AlertLimits(of_ticker=3, raised=4, undelivered=9)
PROOF_MS = 15_000.0


class Told:
    """A QuoteSource whose pages show what the test says. A page shows nothing before that."""

    def __init__(self, show: Callable[[Quote], None]) -> None:
        self.show = show
        self.counters: Counter[str] = Counter()
        self.state = SourceState.RUNNING
        self.health: Mapping[str, str] = {}
        self.pages: set[Ticker] = set()
        self.closed: list[Ticker] = []
        self.tried: list[Ticker] = []  # because users asked for that

    @property
    def last_tick(self) -> float:
        return time.monotonic()

    def add(self, ticker: Ticker) -> None:
        self.show(Quote(ticker, State.STARTING))  # first: what a test shows once the page is open comes later
        self.pages.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        self.pages.discard(ticker)
        self.closed.append(ticker)

    def why(self, ticker: Ticker) -> Mapping[str, Any] | None:
        return {"ticker": ticker} if ticker in self.pages else None

    def retry(self, ticker: Ticker) -> str:
        self.tried.append(ticker)
        return f"{ticker}: its page is opened now."

    def start(self) -> None:
        pass

    begin_stop = stop = restart = start


def settings_for(
    url: str, name: str, *, capacity: int = 50, max_tickers: int = 50, length: int = 10_000
) -> RelaySettings:
    return RelaySettings(url, name, capacity, max_tickers, stream_length=length, alerts=FEW)


def live(ticker: Ticker, price: float | str, proof_ms: float = PROOF_MS) -> Quote:
    at = round(time.time() * 1000)
    told = (ticker, State.LIVE, str(price), 0.5, at, Source.SOCKET)
    return Quote(*told, received_at=at, proven_until=steady_ms() + proof_ms)
