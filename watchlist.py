"""The watchlist: which tickers are tracked, and nobody else's business.

This file owns the list: the only place that adds and removes a ticker, whatever the transport. Whoever must follow the
list (the scraper, the broadcaster) subscribes to its changes and is told of each one, in the order of subscription. It
never opens a page, never does I/O and imports only `quotes`. It belongs to the hub thread.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import NamedTuple

from quotes import PlutoError, Ticker


class TooManyTickers(PlutoError):
    code = "too_many_tickers"


class Change(NamedTuple):
    """One ticker came or went."""

    ticker: Ticker
    is_tracked: bool


class Outcome(NamedTuple):
    """What came of adding or removing a ticker: whether the list changed, and the sentence every transport says."""

    has_changed: bool
    message: str


class Watchlist:
    """The tracked tickers, at most `max_tickers`, in alphabetical order."""

    def __init__(self, max_tickers: int) -> None:
        self.max_tickers = max_tickers
        self._tickers: list[Ticker] = []
        self._subscribers: list[Callable[[Change], None]] = []

    def subscribe(self, subscriber: Callable[[Change], None]) -> None:
        """From now on `subscriber` is called with every change; it must return at once."""
        self._subscribers.append(subscriber)

    @property
    def tickers(self) -> list[Ticker]:
        return list(self._tickers)

    def __contains__(self, ticker: Ticker) -> bool:
        return ticker in self._tickers

    def add(self, ticker: Ticker) -> Outcome:
        """Tracks a ticker. Raises TooManyTickers at the cap."""
        if ticker in self._tickers:
            return Outcome(False, f"{ticker} is tracked already.")
        if len(self._tickers) >= self.max_tickers:
            raise TooManyTickers(
                f"{self.max_tickers} tickers are tracked, the most allowed: remove one, "
                "or start Pluto with a higher --max-tickers."
            )
        insort(self._tickers, ticker)
        self._tell(Change(ticker, is_tracked=True))
        return Outcome(True, f"{ticker} is tracked now.")

    def remove(self, ticker: Ticker) -> Outcome:
        """Stops tracking a ticker; one that isn't tracked changes nothing."""
        if ticker not in self._tickers:
            return Outcome(False, f"{ticker} was not tracked.")
        self._tickers.remove(ticker)
        self._tell(Change(ticker, is_tracked=False))
        return Outcome(True, f"{ticker} is no longer tracked.")

    def _tell(self, change: Change) -> None:
        for subscriber in self._subscribers:
            subscriber(change)
