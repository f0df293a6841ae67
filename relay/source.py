"""The relay: several Plutos act as one, over Redis or Valkey. Nothing of it is loaded without --redis.

This file owns what a process is of the whole: one that scrapes, one that serves, or both. It serves no client, opens no
page and knows no route.

    scraper → Publisher (newest per ticker) → publish script → quotes, stream → Reader → broadcaster, store, alerts
    watchlist → Relay.change → change script → quotes, stream → Reader → watchlist

Threads: the publisher's, the reader's, and the caller's own in `Relay.change` and `Relay.retry`, which block. Each has
a connection of its own. All else returns at once, on any thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from quotes import (
    BETWEEN_TRIES_S,
    Quote,
    QuoteSource,
    RetriedTooSoon,
    RetryRefused,
    SourceBusy,
    SourceState,
    Ticker,
    answer_without_try,
)
from relay.link import MAY_BE_DONE, NO_REDIS, Link, RelaySettings
from relay.publisher import Publisher
from relay.reader import Reader
from relay.scripts import CHANGE, RETRY, How


class Relay:
    """A QuoteSource: what a scraper tells goes to Redis, what Redis tells comes from here.

    It also keeps the watchlist in Redis (watchlist.Backing), and follows this process's own (watchlist.Subscriber).
    `scraper` is None in a process that only serves, `reader` in one that only scrapes.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.scraper: QuoteSource | None = None
        self.publisher: Publisher | None = None
        self.reader: Reader | None = None
        self._commands = Link(settings)
        self._turn = threading.Lock()  # of that connection

    def scrape(self, make_scraper: Callable[[Callable[[Quote], None]], QuoteSource]) -> None:
        """Before all else: this process scrapes. The scraper tells its quotes to what it is made with."""
        self.publisher = Publisher(self.settings, make_scraper)
        self.scraper, self.counters = self.publisher.scraper, self.publisher.scraper.counters

    def serve(self, tell: Callable[[Quote], None], mark: Callable[[str, int], None]) -> Reader:
        """Before the start: this process serves. See Reader."""
        self.reader = Reader(self.settings, self.counters, tell, mark)
        return self.reader

    # --- the source (quotes.QuoteSource) ------------------------------------------------------------------------------

    @property
    def state(self) -> SourceState:
        """`down` until everything was read once, and while this process's scraper has no browser."""
        states = [] if self.scraper is None else [self.scraper.state]
        if any(part.is_dead for part in self._parts) or SourceState.DEAD in states:
            return SourceState.DEAD
        has_loaded = self.reader is None or self.reader.has_loaded
        return SourceState.RUNNING if has_loaded and SourceState.DOWN not in states else SourceState.DOWN

    @property
    def last_tick(self) -> float:
        return min(part.last_tick for part in (*self._parts, *filter(None, [self.scraper])))

    @property
    def trouble(self) -> str:
        """Why Redis can't be used, for people; empty while it can."""
        return next((part.link.trouble for part in self._parts if part.link.trouble), "")

    @property
    def health(self) -> Mapping[str, str]:
        said = {} if self.scraper is None else dict(self.scraper.health)
        said["redis"] = "down" if self.trouble else "running"
        return said | ({"redisReason": f"{self.trouble}."} if self.trouble else {})

    @property
    def figures(self) -> Mapping[str, float]:
        """What is so at this moment, by the names of `web/metrics.py`."""
        figures = {"up": float(not self.trouble), "round_trip": max(part.link.round_trip_s for part in self._parts)}
        if (reader := self.reader) is not None:
            figures |= {"behind": reader.behind, "owned": len(reader.owners)}
            figures |= {"scrapers": len(set(reader.owners.values()))}
        if (publisher := self.publisher) is not None:
            figures |= {"leases": len(publisher.owned), "homeless": publisher.homeless}
            figures |= {"scrapers": len(publisher.peers)}
        return figures

    def add(self, ticker: Ticker) -> None:
        if self.reader is not None:
            self.reader.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        if self.reader is not None:
            self.reader.remove(ticker)

    def why(self, ticker: Ticker) -> Mapping[str, Any] | None:
        """What its page has told, if the page is here; else which scraper has it."""
        if self.scraper is not None and (told := self.scraper.why(ticker)) is not None:
            return told
        if self.reader is None:
            return None
        if (quote := self.reader.quote(ticker)) is None:
            if not self.reader.has_loaded:
                raise SourceBusy(f"{NO_REDIS}. Try again in a moment.")
            return None
        why = {"ticker": ticker, "state": quote.state, "reason": quote.reason, "nextTryAt": quote.next_try_at}
        return why | {"scraper": self.reader.owners.get(ticker)}

    def retry(self, ticker: Ticker) -> str:
        if self.scraper is not None and self.publisher is not None and ticker in self.publisher.owned:
            return self.scraper.retry(ticker)
        assert self.reader is not None
        quote = self.reader.quote(ticker)
        if quote is not None and (answer := answer_without_try(ticker, quote.state)):
            return answer
        waits_ms = self._command(RETRY, ticker, round(BETWEEN_TRIES_S * 1000), else_say=f"{ticker} can't be tried now")
        if waits_ms > 0:
            raise RetriedTooSoon(ticker, waits_ms / 1000)
        if waits_ms < 0:
            raise RetryRefused(f"No scraper has a page of {ticker} yet. Pluto opens one by itself.")
        return f"{ticker}: the scraper that has its page opens it now."

    def start(self) -> None:
        for part in (*filter(None, [self.scraper]), *self._parts):
            part.start()

    def begin_stop(self) -> None:
        if self.scraper is not None:
            self.scraper.begin_stop()

    def stop(self) -> None:
        for part in (*self._parts, *filter(None, [self.scraper])):
            part.stop()

    def restart(self) -> None:
        if self.scraper is not None and self.scraper.state is SourceState.DEAD:
            self.scraper.restart()
        for part in self._parts:
            if part.is_dead:
                part.start()

    @property
    def _parts(self) -> list[Publisher | Reader]:
        return [part for part in (self.publisher, self.reader) if part is not None]

    # --- the watchlist (see watchlist.Backing) ------------------------------------------------------------------------

    def offer(self, known: list[Ticker], asked: list[Ticker]) -> None:
        """Before the start: what a Redis without a list gets, and what is added to its list in any case."""
        assert self.reader is not None
        self.reader.offered, self.reader.asked = known, asked

    def change(self, how: str, tickers: Sequence[Ticker]) -> list[Ticker]:
        """Changes the list for all processes, and waits until this one follows. Returns those beyond the limit.

        It blocks: never call it on the hub thread. Raises SourceBusy if Redis can't be used now.
        """
        assert self.reader is not None
        args = self.settings.change(How(how), tickers)
        _, refused, position = self._command(CHANGE, *args, else_say="The watchlist can't change now")
        if not self.reader.wait_for(self._commands.epoch, position):
            raise SourceBusy("Redis has the change, but this process hasn't read it yet: look again in a moment.")
        return [Ticker(ticker) for ticker in refused]

    def _command(self, script: str, *args: str | int, else_say: str) -> Any:
        """What the script returns. Raises SourceBusy if Redis can't be used now."""
        may_be_done = ""

        def run() -> Any:
            nonlocal may_be_done
            may_be_done = MAY_BE_DONE
            return self._commands.run(script, *args)

        with self._turn:
            try:
                return self._commands.call(run, self._commands.begin)
            except RedisError as error:
                self._commands.fail(error)
                raise SourceBusy(f"{else_say}: Redis can't be reached.{may_be_done}") from None
