"""The scraper's side of the relay: which tickers a scraper owns, and how their quotes get to Redis.

This file owns which scraper should own which ticker, and how a ticker moves from one to another without a stale price.
It never opens a page itself, and never reads the stream. Any thread may call `put` and read figures; all else runs on
the thread "relay publisher".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

from redis.exceptions import RedisError

from quotes import PlutoError, Quote, QuoteSource, SourceState, State, Ticker, steady_ms
from relay.link import CALL_LIMIT_S, FIRST_PAUSE_S, MAX_PAUSE_S, Link, RelaySettings, sentence_of
from relay.scripts import CLAIM, LISTED, PUBLISH, RELEASE, TICK, from_json, pairs_of, text_of, to_json

log = logging.getLogger("pluto.relay")

TICK_S = 1.0  # between two heartbeats and renewals
LEASE_MS = 4_000
REFILL_TICK = 3  # of an epoch: if no process that serves has refilled the list by then, none knows it
BATCH = 250  # quotes in one entry
MAX_WARMING = 8  # pages that a scraper opens at a time for tickers which another one still owns
TAKEN_OVER = "the price is from before another scraper took over"


class Peer(NamedTuple):
    """A scraper that is alive, as its heartbeat says."""

    capacity: int
    has_browser: bool


@lru_cache(200_000)
def _weight(scraper: str, ticker: str) -> bytes:
    return blake2b(f"{scraper} {ticker}".encode(), digest_size=8).digest()


def assign(tickers: Iterable[str], peers: Mapping[str, Peer], owned: Container[str] = ()) -> dict[Ticker, str]:
    """Which scraper should own each ticker: rendezvous hashing, the next best where one is full.

    Every scraper computes the same. One without a browser gets tickers only if none has one. Where room is short, those
    in `owned` come first, and a ticker for which nobody has room is left out.
    """
    able = {name: peer.capacity for name, peer in peers.items() if peer.has_browser} or {
        name: peer.capacity for name, peer in peers.items()
    }
    assigned = {}
    for ticker in sorted(tickers, key=lambda ticker: (ticker not in owned, ticker)):
        if (best := max(able, key=lambda name: _weight(name, ticker), default=None)) is None:
            break
        assigned[Ticker(ticker)] = best
        able[best] -= 1
        if not able[best]:
            del able[best]
    return assigned


class Publisher:
    """The scraper's side: owns tickers, has its scraper open their pages, publishes their quotes and renews proofs.

    A ticker that another scraper still owns is opened first and taken over when its page is as good: until then the
    other one publishes. After a take-over nothing worse than the former owner's price is told while its proof holds.
    """

    def __init__(self, settings: RelaySettings, make_scraper: Callable[[Callable[[Quote], None]], QuoteSource]) -> None:
        self.scraper = make_scraper(self.put)
        self.link = Link(settings, self.scraper.counters)
        self.owned: dict[Ticker, int] = {}  # the fence of each ticker's lease
        self.peers: dict[str, Peer] = {}
        self.homeless = 0  # tickers for which no scraper has room
        self.last_tick = time.monotonic()
        self._settings, self._counters = settings, self.scraper.counters
        self._due = 0.0  # monotonic s; the next tick
        self._ticks = 0  # in this epoch
        self._known: list[Ticker] = []  # the watchlist at the last tick
        self._asked: Mapping[str, str] = {}  # when a try of a ticker was last asked for, at the last tick
        self._former: list[Ticker] = []  # that of the epoch before, until this one has a list
        self._lock = threading.Lock()  # of the next four
        self._newest: dict[Ticker, Quote] = {}  # of each open page
        self._changed: set[Ticker] = set()  # its newest quote isn't published
        self._published: dict[Ticker, Quote] = {}
        self._inherited: dict[Ticker, Quote] = {}  # the former owner's, until our page has told a price
        self._open: set[Ticker] = set()  # that the scraper was told to open
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread()  # each start begins another one

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="relay publisher", daemon=True)
        self.last_tick = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Frees the leases, so that others open the pages at once."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(CALL_LIMIT_S)

    @property
    def is_dead(self) -> bool:
        return not self._thread.is_alive()

    def put(self, quote: Quote) -> None:
        """Any thread: the newest quote of a page."""
        with self._lock:
            before = self._published.get(quote.ticker)
            self._newest[quote.ticker] = quote
            if before == quote and quote.proven_until is not None and not before.has_expired(steady_ms()):
                self._published[quote.ticker] = quote  # only its proof is new, which goes with the tick
                return
            self._changed.add(quote.ticker)
        self._wake.set()

    # --- the publisher's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._is_stopping:
            try:
                self.last_tick = time.monotonic()
                self._begin()
                while not self._is_stopping:
                    self._turn()
                    pause = FIRST_PAUSE_S
            except RedisError as error:
                self.link.fail(error)
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
        self._release()

    def _begin(self) -> None:
        """Every connection gets fences of its own, so that nothing which comes late from an earlier one is taken."""
        epoch = self.link.epoch
        self.link.begin()
        self.owned.clear()
        if self.link.epoch != epoch:
            self._former, self._ticks = self._known, 0
        self._due = time.monotonic()

    def _turn(self) -> None:
        self._publish()
        if (now := time.monotonic()) >= self._due:
            self._due = now + TICK_S
            self._tick()
            self.last_tick = time.monotonic()
        else:
            self._wake.wait(self._due - now)
            self._wake.clear()

    def _publish(self) -> None:
        """Publishes the newest quote of each owned ticker that changed. What can't be sent now goes later."""
        with self._lock:
            changed, self._changed = self._changed, set()
            news = [quote for ticker in changed if ticker in self.owned and (quote := self._news(ticker)) is not None]
            self._published.update({quote.ticker: quote for quote in news})
        sent = 0
        try:
            for sent in range(0, len(news), BATCH):
                self._send(news[sent : sent + BATCH])
            sent = len(news)
        finally:
            with self._lock:
                for quote in news[sent:]:
                    del self._published[quote.ticker]
                    self._changed.add(quote.ticker)

    def _send(self, quotes: list[Quote]) -> None:
        args: list[str | int] = []
        for quote in quotes:
            proof = self.link.clock.proof(quote)
            args += [quote.ticker, self.owned[quote.ticker], text_of(proof), to_json(quote, proof)]
        refused = self.link.run(PUBLISH, self._settings.name, self._settings.stream_length, *args)
        self._counters["relay_published"] += len(quotes) - len(refused)
        self._counters["relay_refused"] += len(refused)
        for ticker in refused:
            del self.owned[ticker]

    def _news(self, ticker: Ticker) -> Quote | None:
        """What to publish of the ticker, if anything."""
        before, quote = self._published.get(ticker), self._told(self._newest.get(ticker))
        is_known = before == quote and (before is None or not before.has_expired(steady_ms()))
        return None if is_known else quote

    def _told(self, quote: Quote | None) -> Quote | None:
        """The quote as it is published; None while the former owner's price is better."""
        if quote is None or (old := self._inherited.get(quote.ticker)) is None:
            return quote
        if quote.is_current or quote.state is State.NOT_FOUND:
            del self._inherited[quote.ticker]
            return quote
        if old.is_current and not old.has_expired(steady_ms()):
            return None
        if quote.price_text is not None:
            return quote
        if quote.state is State.STARTING:
            return replace(old, state=State.STALE, reason=TAKEN_OVER, next_try_at=None, proven_until=None)
        return replace(old, state=quote.state, reason=quote.reason, next_try_at=quote.next_try_at, proven_until=None)

    # Once a second.

    def _tick(self) -> None:
        settings, has_browser = self._settings, self.scraper.state is SourceState.RUNNING
        renewals = self._renewals()
        asked = steady_ms()
        told, lost, alive, flat_leases, tickers, listed, asked_tries = self.link.run(
            TICK, settings.name, settings.capacity, int(has_browser), LEASE_MS, *chain(*renewals)
        )
        self.link.note_time(asked, told)
        self._shorten()
        for ticker in lost:
            del self.owned[ticker]
        self._counters["relay_leases_lost"] += len(lost)
        self.peers = {
            name: Peer(int(capacity), has_browser == "1")
            for name, capacity, has_browser in zip(alive[::3], alive[1::3], alive[2::3], strict=True)
        }
        if self._awaits_list(tickers, listed):
            return
        leases = pairs_of(flat_leases)
        assigned = assign(tickers, self.peers, leases)
        mine = {ticker for ticker, name in assigned.items() if name == settings.name}
        homeless = {Ticker(ticker) for ticker in tickers} - assigned.keys()
        self.homeless = len(homeless)
        self._claim(mine | (homeless if settings.name == min(self.peers) else set()), leases)
        self._open_pages(mine, leases)
        self._speak_for(homeless)
        told_ms = int(told[0]) * 1000 + int(told[1]) // 1000
        self._hasten(leases, told_ms)
        self._try_again(pairs_of(asked_tries), told_ms)

    def _awaits_list(self, tickers: list[str], listed: str) -> bool:
        """A new epoch lacks what we know of the list: no page is closed until that is refilled, in the end by us."""
        self._ticks += 1
        if listed == LISTED or set(tickers) >= set(self._former):
            self._former = []
        if not self._former:
            self._known = [Ticker(ticker) for ticker in tickers]
            return False
        if self._ticks >= REFILL_TICK:
            self.link.refill(self._former)
            self._former = []
        return True

    def _shorten(self) -> None:
        """What was proven before our clock stood still is proven for less time by it."""
        lost_ms, self.link.lost_ms = self.link.lost_ms, 0.0
        if not lost_ms:
            return
        with self._lock:
            for quotes in (self._newest, self._published, self._inherited):
                for ticker, quote in quotes.items():
                    if quote.proven_until is not None:
                        quotes[ticker] = replace(quote, proven_until=quote.proven_until - lost_ms)

    def _renewals(self) -> list[tuple[str | int, ...]]:
        with self._lock:
            published = dict(self._published)
        proofs = {ticker: self.link.clock.proof(quote) for ticker, quote in published.items()}
        return [(ticker, fence, text_of(proofs.get(ticker))) for ticker, fence in self.owned.items()]

    def _claim(self, wanted: set[Ticker], leases: Mapping[str, str]) -> None:
        """Takes what is free, what was ours, and what another scraper owns if our page is as good."""
        args: list[str | int] = []
        ours = {Ticker(ticker) for ticker, lease in leases.items() if lease.split(" ")[1] == self._settings.name}
        for ticker in sorted((wanted | ours) - self.owned.keys()):
            quote = self._newest.get(ticker)
            fence = leases.get(ticker, "").partition(" ")[0]
            args += [ticker, fence, quote.as_of(steady_ms()).state] if quote is not None else [ticker, "", ""]
        claimed = self.link.run(CLAIM, self._settings.name, LEASE_MS, *args) if args else []
        for ticker, fence, text, proof in zip(*(claimed[place::4] for place in range(4)), strict=True):
            position, _, content = text.partition(" ")
            old = self.link.clock.proven(from_json(content, int(position))[0], int(proof) if proof else None)
            self._own(Ticker(ticker), int(fence), None if ticker in ours or old.price_text is None else old)
            self._counters["relay_hand_overs"] += ticker in leases and ticker not in ours

    def _own(self, ticker: Ticker, fence: int, former: Quote | None) -> None:
        """`former` is the former owner's quote; what we published ourselves is no better than what we know now."""
        self.owned[ticker] = fence
        with self._lock:
            if former is not None:
                self._inherited[ticker] = former
            self._published.pop(ticker, None)
            self._changed.add(ticker)

    def _open_pages(self, mine: set[Ticker], leases: Mapping[str, str]) -> None:
        """Has the scraper open what is owned or may soon be, and close all else."""
        warming = sorted(mine - self.owned.keys())[:MAX_WARMING]
        wanted = (mine & self.owned.keys()) | (self._open & self.owned.keys()) | set(warming)
        for ticker in self._open - wanted:
            self.scraper.remove(ticker)
        for ticker in sorted(wanted - self._open):
            self.scraper.add(ticker)
        self._open = wanted
        with self._lock:
            for kept in (self._newest, self._published, self._inherited):
                for ticker in kept.keys() - wanted - self.owned.keys():
                    del kept[ticker]
            self._changed.update(self._inherited)  # what was held back may be told now

    def _speak_for(self, homeless: set[Ticker]) -> None:
        """Says of tickers that we own and nobody has room for why they have no page."""
        room = sum(peer.capacity for peer in self.peers.values())
        reason = f"no room: the scrapers take {room} tickers; start another one, or raise --scraper-capacity"
        for ticker in (homeless & self.owned.keys()) - self._open:
            self.put(Quote(ticker, State.ERROR, simulated=self._settings.simulated, reason=reason))

    def _hasten(self, leases: Mapping[str, str], told_ms: int) -> None:
        """Sets the next tick to the moment at which a lease of another scraper ends, if that is sooner."""
        ends = (int(lease.rpartition(" ")[2]) for ticker, lease in leases.items() if ticker not in self.owned)
        soonest = min((end for end in ends if end >= told_ms), default=told_ms + 1000 * TICK_S)
        self._due = min(self._due, time.monotonic() + (soonest - told_ms) / 1000 + 0.01)

    def _try_again(self, asked: Mapping[str, str], told_ms: int) -> None:
        """Does what users want tried now, and have asked another process for."""
        news, self._asked = asked.items() - self._asked.items(), asked
        for ticker, at in news:
            if ticker in self.owned and told_ms - int(at) < LEASE_MS:
                try:
                    self.scraper.retry(Ticker(ticker))
                except PlutoError as refused:
                    log.info("%s", refused)

    def _release(self) -> None:
        if self.link.trouble:
            return
        try:
            self.link.run(RELEASE, self._settings.name, *(part for lease in self.owned.items() for part in lease))
        except RedisError as error:
            log.warning("the leases aren't freed, and end by themselves: %s", sentence_of(error, self.link.place))
