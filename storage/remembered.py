"""Remembered prices: what tickers show after a restart, until their pages speak.

This file owns the quotes from before the restart, and decides what is shown of them. It never reads them from a disk.
Quotes pass on the scraper's thread; the watchlist's changes come on the hub thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from quotes import Quote, State, Ticker

BEFORE_RESTART = "the price is from before the restart"


class Remembered:
    """Stands before `show`, and adds the old price to a quote that has none. `reason` goes with it."""

    def __init__(self, show: Callable[[Quote], None], reason: str = BEFORE_RESTART) -> None:
        self._show, self._reason = show, reason
        self._quotes: dict[Ticker, Quote] = {}

    def keep(self, quotes: Mapping[Ticker, Quote | None]) -> None:
        """Remembers these, from before the restart."""
        for ticker, quote in quotes.items():
            if quote is not None:
                self._quotes[ticker] = replace(quote, state=State.STALE, reason=self._reason, next_try_at=None)

    def add(self, ticker: Ticker) -> None:
        """The ticker is tracked again: its old price is shown at once."""
        if (quote := self._quotes.get(ticker)) is not None:
            self._show(quote)

    def remove(self, ticker: Ticker) -> None:
        self._quotes.pop(ticker, None)

    def put(self, quote: Quote) -> None:
        """Shows the quote of a page, with the old price until the page has told one."""
        self._show(self._with_price(quote) if self._quotes else quote)

    def _with_price(self, quote: Quote) -> Quote:
        old = self._quotes.get(quote.ticker)
        if old is None:
            return quote
        if quote.price_text is not None or quote.state is State.NOT_FOUND:
            self._quotes.pop(quote.ticker, None)
            return quote
        if quote.state is State.STARTING:
            return old
        return replace(old, state=quote.state, reason=quote.reason, next_try_at=quote.next_try_at)
