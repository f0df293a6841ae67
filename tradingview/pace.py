"""Pace: how Pluto opens pages, learned from the results of earlier ones.

This file owns the spacing between two openings, and decides when TradingView blocks Pluto as a whole, whether slim
pages work here, and how many pages there is room for. It never opens a page. It belongs to the scraper thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from quotes import Ticker, wall_ms
from tradingview.patience import Patience

log = logging.getLogger("pluto.pace")

BLOCKED_PAGES = 3  # blocked in a row: TradingView blocks Pluto, not one page
HELPED = 2  # tickers
ROOM_KEPT = 0.9  # the part of the room that is used: pages grow
UNSLIM = "slim pages showed no price, others did: all pages are laid out now, at some 10 MB more a page"


class Pace:
    """How fast Pluto opens pages: the spacing grows with each refusal and shrinks with each page that is live."""

    def __init__(self, spacing: float, patience: Patience) -> None:
        self.spacing = spacing
        self._least, self._patience = spacing, patience
        self._next_at = 0.0
        self._were_blocked: deque[bool] = deque(maxlen=BLOCKED_PAGES)  # the last pages, the newest at the end

    def wait(self, now: float) -> float:
        """Seconds until the next page may be opened."""
        return self._next_at - now

    @property
    def is_blocked(self) -> bool:
        """Whether the last pages were all blocked."""
        return len(self._were_blocked) == BLOCKED_PAGES and all(self._were_blocked)

    def on_opening(self) -> None:
        self._next_at = time.monotonic() + self.spacing

    def on_price(self) -> None:
        self._were_blocked.append(False)

    def on_failure(self, *, is_blocked: bool) -> None:
        self._were_blocked.append(is_blocked)
        if is_blocked:
            self.spacing = min(max(2 * self.spacing, self._patience.blocked_spacing), self._patience.spacing_limit)

    def on_live(self) -> None:
        self.spacing = max(self._least, self.spacing / 2)


class Slimness:
    """Whether Pluto opens pages slim: without layout, with a fraction of the memory.

    In a slim page, a header that fills only when visible stays empty. So if a ticker's slim page shows no price, its
    next page isn't slim. If this has helped two tickers and no slim page has shown a price, no further page is slim.
    """

    def __init__(self) -> None:
        self.is_wanted = False  # only in a headless browser
        self.is_given_up = False
        self._has_worked = False
        self._fat: set[Ticker] = set()  # tickers whose next page isn't slim
        self._helped: set[Ticker] = set()

    def is_slim(self, ticker: Ticker) -> bool:
        """Whether the ticker's next page is to be slim."""
        return self.is_wanted and not self.is_given_up and ticker not in self._fat

    def on_no_price(self, ticker: Ticker, *, was_slim: bool) -> None:
        """The ticker's page showed no price: its next page is opened the other way."""
        if was_slim:
            self._fat.add(ticker)
        else:
            self._fat.discard(ticker)

    def on_price(self, ticker: Ticker, *, was_slim: bool) -> None:
        if was_slim:
            self._has_worked = True
        elif ticker in self._fat:
            self._helped.add(ticker)
        if self.is_wanted and not self._has_worked and not self.is_given_up and len(self._helped) >= HELPED:
            self.is_given_up = True
            log.warning("%s, those of %s among them", UNSLIM, " and ".join(sorted(self._helped)))

    def forget(self, ticker: Ticker) -> None:
        """The ticker is no longer tracked."""
        self._fat.discard(ticker)
        self._helped.discard(ticker)


class Room:
    """How many pages the browser's memory has room for: unknown until its limit was exceeded twice in a row.

    A single excess may come from a page that grew.
    """

    def __init__(self) -> None:
        self._pages: int | None = None
        self._exceeded_at = float("-inf")

    def on_exceeded(self, pages: int, part: float, patience: Patience) -> None:
        """The memory limit was exceeded with this many pages open; it allows only this `part` of their memory."""
        now = time.monotonic()
        if now - self._exceeded_at < patience.room_memory:
            self._pages = max(1, int(pages * part * ROOM_KEPT))
            log.warning("the browser's memory has room for %d pages", self._pages)
        self._exceeded_at = now

    def is_full(self, pages: int) -> bool:
        return self._pages is not None and pages >= self._pages


class Reopening:
    """When Pluto reopens a ticker's page because its feed gives no sign of life.

    The ticker must have been live. The waits between two reopenings grow, until it has been live for long.
    """

    def __init__(self) -> None:
        self.due_at: float | None = None  # monotonic s; None: not planned
        self.next_try_at: int | None = None  # the same in ms since the epoch
        self._live_since: float | None = None
        self._has_been_live = False
        self._silent_since: float | None = None
        self._count = 0
        self._last_at = float("-inf")

    def judge(self, *, is_live: bool, is_silent: bool, wait: float, patience: Patience) -> None:
        """Plans a reopening after `wait` s of silence."""
        now = time.monotonic()
        if is_live:
            self._has_been_live = True
            self._live_since = now if self._live_since is None else self._live_since
            if now - self._live_since > patience.reopening_memory:
                self._count = 0
        else:
            self._live_since = None
        if not is_silent or not self._has_been_live:
            self._silent_since = self.due_at = self.next_try_at = None
        elif self._silent_since is None:
            self._silent_since = now
            waits = patience.reopening_waits
            self.due_at = max(now + wait, self._last_at + waits[min(self._count, len(waits) - 1)])
            self.next_try_at = wall_ms() + round((self.due_at - now) * 1000)

    def begin(self) -> None:
        """The page is being reopened."""
        self._count += 1
        self._last_at = time.monotonic()
        self._silent_since = self.due_at = self.next_try_at = None
