"""The watchlist: which tickers are tracked.

This file owns the list: only it adds and removes tickers, for every transport. It tells each subscriber (the
broadcaster, the store, the scraper) of each change, in the order of subscription. It never opens a page, never does
I/O, never limits how often callers change it (`web/access.py` does), and imports only `quotes`. It belongs to the hub
thread.

With a backing, several processes share one list. Then a change is made there first, and the list follows what the
backing has: so all processes have the changes in one order, and nothing that was told by the backing goes back to it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import NamedTuple, Protocol

from quotes import PlutoError, Ticker


class NotTracked(PlutoError):
    """Nothing is known of the ticker; `but` says what is missing besides."""

    code = "not_tracked"

    def __init__(self, ticker: Ticker, but: str = "") -> None:
        super().__init__(f"{ticker} is not tracked{but}. Add it with POST /api/tickers.")


class TooManyTickers(PlutoError):
    code = "too_many_tickers"


class Subscriber(Protocol):
    """Follows the list, such as a QuoteSource. Both calls must return at once."""

    def add(self, ticker: Ticker) -> None:
        """The ticker is tracked from now on."""

    def remove(self, ticker: Ticker) -> None:
        """The ticker is no longer tracked."""


class Outcome(NamedTuple):
    """The result of adding or removing a ticker: whether the list changed, and the sentence for the user."""

    has_changed: bool
    message: str


Backing = Callable[[str, list[Ticker]], list[Ticker]]
"""Makes a change ("add", "remove" or "replace") in the list that processes share, and returns the tickers beyond the
cap. When it returns, `Watchlist.follow` has been called. It raises SourceBusy if nothing can be changed now."""


class Watchlist:
    """The tracked tickers, at most `max_tickers`, in alphabetical order."""

    def __init__(self, max_tickers: int, backing: Backing | None = None) -> None:
        self.max_tickers = max_tickers
        self._backing = backing
        self._tickers: list[Ticker] = []
        self._unplaced: set[Ticker] = set()  # beyond the cap at the start; the store has them still
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tells `subscriber` of every change from now on."""
        self._subscribers.append(subscriber)

    @property
    def tickers(self) -> list[Ticker]:
        return list(self._tickers)

    def __contains__(self, ticker: Ticker) -> bool:
        return ticker in self._tickers

    def check(self, ticker: Ticker, but: str = "") -> None:
        """Raises NotTracked if the ticker isn't tracked; `but` says what is missing besides."""
        if ticker not in self._tickers:
            raise NotTracked(ticker, but)

    def add(self, ticker: Ticker) -> Outcome:
        """Tracks a ticker. Raises TooManyTickers at the cap."""
        if ticker in self._tickers:
            return Outcome(False, f"{ticker} is tracked already.")
        if self._backing is not None:
            if self._backing("add", [ticker]):
                raise self._too_many()
        elif len(self._tickers) >= self.max_tickers:
            raise self._too_many()
        else:
            self._add(ticker)
        return Outcome(True, f"{ticker} is tracked now.")

    def _add(self, ticker: Ticker) -> None:
        insort(self._tickers, ticker)
        self._unplaced.discard(ticker)
        for subscriber in self._subscribers:
            subscriber.add(ticker)

    def _too_many(self) -> TooManyTickers:
        return TooManyTickers(
            f"{self.max_tickers} tickers are tracked, the most allowed: remove one, "
            "or start Pluto with a higher --max-tickers."
        )

    def follow(self, tickers: list[Ticker]) -> None:
        """With a backing: it has exactly these tickers, or had them when this process last ran."""
        for ticker in [*self._tickers, *self._unplaced]:
            if ticker not in tickers:
                self._remove(ticker)
        for ticker in tickers:
            if ticker not in self._tickers:
                self._add(ticker)

    def begin(self, tickers: list[Ticker]) -> list[tuple[Ticker, TooManyTickers]]:
        """Tracks these from the start on. Returns those beyond the cap, each with the reason; subscribers keep them."""
        beyond = self._add_all(tickers)
        self._unplaced.update(ticker for ticker, _ in beyond)
        return beyond

    def replace(self, tickers: list[Ticker]) -> list[tuple[Ticker, TooManyTickers]]:
        """Tracks exactly these tickers, in one step. Returns those beyond the cap, each with the reason."""
        if self._backing is not None:
            return [(ticker, self._too_many()) for ticker in self._backing("replace", tickers)]
        for ticker in [*self._tickers, *self._unplaced]:
            if ticker not in tickers or ticker in self._unplaced:
                self.remove(ticker)
        return self._add_all(tickers)

    def _add_all(self, tickers: list[Ticker]) -> list[tuple[Ticker, TooManyTickers]]:
        beyond = []
        for ticker in tickers:
            try:
                self.add(ticker)
            except TooManyTickers as error:
                beyond.append((ticker, error))
        return beyond

    def remove(self, ticker: Ticker) -> Outcome:
        """Stops tracking a ticker. An untracked one changes nothing."""
        if ticker not in self._tickers and ticker not in self._unplaced:
            return Outcome(False, f"{ticker} was not tracked.")
        if self._backing is not None:
            self._backing("remove", [ticker])
        else:
            self._remove(ticker)
        return Outcome(True, f"{ticker} is no longer tracked.")

    def _remove(self, ticker: Ticker) -> None:
        if ticker in self._tickers:
            self._tickers.remove(ticker)
        self._unplaced.discard(ticker)
        for subscriber in self._subscribers:
            subscriber.remove(ticker)
