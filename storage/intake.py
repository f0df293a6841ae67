"""The intake: what has changed since the writer last took it.

This file owns the hand-off to the writer: the newest quote of each tracked ticker, the changes that wait, bounded, and
what the watchlist has become. It never does I/O and holds its lock for moments only. Any thread may call it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from quotes import Quote, Ticker, steady_ms, wall_ms
from storage.changes import Arrival

MAX_WAITING = 50_000  # changes: 50 s of 50 tickers at 20 a second


class Batch(NamedTuple):
    """What one transaction writes: whether each of these tickers is tracked now, and the arrivals in their order."""

    tracked: dict[Ticker, bool]
    arrivals: list[Arrival]


class Intake:
    """Takes in quotes as they come. A change that finds no room is left out and counted, and leaves a gap."""

    def __init__(
        self, limit: int = MAX_WAITING, *, clock: Callable[[], float] = steady_ms, wall: Callable[[], int] = wall_ms
    ) -> None:
        self.left_out = 0
        self.list_changes = 0  # how often the watchlist has changed
        self._limit, self._clock, self._wall = limit, clock, wall
        self._lock = threading.Lock()
        self._newest: dict[Ticker, Quote | None] = {}  # of the tracked tickers
        self._tracked: dict[Ticker, bool] = {}  # what changed
        self._waiting: list[Arrival] = []
        self._cut: dict[Ticker, int] = {}  # when the first change was left out

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, ticker: Ticker) -> None:
        with self._lock:
            self._newest[ticker] = None
            self._tracked[ticker] = True
            self.list_changes += 1

    def remove(self, ticker: Ticker) -> None:
        with self._lock:
            if self._newest.pop(ticker, None) is not None:
                self._append(ticker, None)
            self._tracked[ticker] = False
            self.list_changes += 1

    def put(self, quote: Quote) -> None:
        """A quote as it comes: it counts if its price or its state is new."""
        with self._lock:
            if quote.ticker not in self._newest:
                return
            now = self._clock()
            self._expire(quote.ticker, now)  # the proof of the one before may have run out meanwhile
            self._set(quote.as_of(now))

    def _expire(self, ticker: Ticker, now: float) -> None:
        before = self._newest[ticker]
        if before is not None and before.has_expired(now):
            self._set(before.as_of(now))

    def _set(self, quote: Quote) -> None:
        before = self._newest[quote.ticker]
        self._newest[quote.ticker] = quote
        if before is None or (before.state, before.price_text) != (quote.state, quote.price_text):
            self._append(quote.ticker, quote)

    def _append(self, ticker: Ticker, quote: Quote | None) -> None:
        at = self._wall()
        if len(self._waiting) < self._limit:
            self._waiting.append(Arrival(at, ticker, quote))
        else:
            self.left_out += 1
            self._cut.setdefault(ticker, at)

    def take(self) -> Batch:
        """All that waits. Where changes were left out, the gap follows, and then what is true now."""
        with self._lock:
            batch, cut = self._take()
            batch.arrivals.extend(Arrival(at, ticker, None) for ticker, at in cut.items())
            batch.arrivals.extend(self._repeated(cut))
            return batch

    def take_for_fresh_file(self, pending: Batch) -> Batch:
        """All tickers, what is pending and what waits, and the newest quote of each ticker that has nothing there."""
        with self._lock:
            batch, _ = self._take()
            arrivals = pending.arrivals + batch.arrivals
            missing = self._newest.keys() - {arrival.ticker for arrival in arrivals}
            return Batch(dict.fromkeys(self._newest, True), arrivals + self._repeated(missing))

    def _take(self) -> tuple[Batch, dict[Ticker, int]]:
        now = self._clock()
        for ticker in self._newest:
            self._expire(ticker, now)
        batch, cut = Batch(self._tracked, self._waiting), self._cut
        self._tracked, self._waiting, self._cut = {}, [], {}
        return batch, cut

    def is_removed(self, ticker: Ticker) -> bool:
        """Whether the watchlist has lost it since the writer last took anything."""
        return self._tracked.get(ticker) is False

    def _repeated(self, tickers: Iterable[Ticker]) -> list[Arrival]:
        at = self._wall()
        return [Arrival(at, ticker, quote) for ticker in tickers if (quote := self._newest.get(ticker)) is not None]
