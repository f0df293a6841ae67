"""The web process's side of the relay: all quotes as Redis has them, told as they change.

This file owns the mirror of Redis, how far the stream was read, and what happens when it can't be continued. It changes
nothing in Redis but a list that is missing. It runs on the thread "relay reader", except what is said to be for any
thread. The hub is met by `tell` and `mark` (the broadcaster's hand-off) and by `on_list`, which must return at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError

from quotes import NO_SIGN_OF_LIFE, Quote, Ticker, steady_ms
from relay.link import FIRST_PAUSE_S, MAX_PAUSE_S, NO_REDIS, EpochEnded, Link, RelaySettings
from relay.scripts import BEGUN, CHANGE, LEASES, PROOFS, QUOTES, STATE, STREAM, How, from_json

log = logging.getLogger("pluto.relay")

PULSE_S = 1.0  # between two readings of the renewed proofs
BATCH = 250  # entries read at once
RENEWALS = 25  # proofs renewed between two readings of the stream
CLOCK_STEP_MS = 500  # more than clocks differ by from one pulse to the next
NO_SCRAPER = "no scraper has the ticker's page open"
STOP_LIMIT_S = 0.2  # the thread has nothing to do at the end, and may be waiting for Redis
FOLLOW_LIMIT_S = 2.0  # for a change of the list to come back through the stream


class Reader:
    """The web process's side: a mirror of all quotes in Redis, kept up to date from the stream.

    It tells quotes of the tickers that this process tracks, and marks how far the stream was told. `on_list` is called
    whenever the tickers in Redis may be others than those tracked; then someone calls `list_followed`.
    """

    def __init__(
        self,
        settings: RelaySettings,
        counters: Counter[str],
        tell: Callable[[Quote], None],
        mark: Callable[[str, int], None],
    ) -> None:
        self.link = Link(settings, counters)
        self.has_loaded = False
        self.last_tick = time.monotonic()
        self.behind = 0  # entries of the stream not read at the last pulse
        self.owners: dict[str, str] = {}  # the scraper that owns each ticker, at the last pulse
        self.on_list: Callable[[], object] = lambda: None
        self.observe: Callable[[float], None] = lambda seconds: None  # from an entry's writing to its reading
        self.offered: list[Ticker] = []  # for a Redis that has no list
        self.asked: list[Ticker] = []  # to be added to the list
        self._settings, self._counters = settings, counters
        self._tell, self._mark = tell, mark
        self._position = 0  # of the last entry that was told
        self._epoch = ""  # of that position
        self._pulse = 0  # where the stream was at the last pulse
        self._renewals: list[tuple[Ticker, int]] = []  # proofs of that moment which were not looked at yet
        self._lock = threading.Lock()  # of the next six
        self._mirror: dict[Ticker, Quote] = {}
        self._proofs: dict[Ticker, int] = {}  # as Redis has them
        self._tracked: set[Ticker] = set()
        self._expired: set[Ticker] = set()  # told as stale, because nobody renews their proof
        self._list_changes = self._following = self._list_followed = 0  # the list's changes are counted
        self._told: tuple[str, int] | None = None  # epoch and position; nothing while a new epoch is read
        self._followed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread()  # each start begins another one

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="relay reader", daemon=True)
        self.last_tick = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._thread.join(STOP_LIMIT_S)

    @property
    def is_dead(self) -> bool:
        return not self._thread.is_alive()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def add(self, ticker: Ticker) -> None:
        """This process tracks the ticker: tells its quote at once."""
        with self._lock:
            self._tracked.add(ticker)
            if (quote := self._mirror.get(ticker)) is not None:
                self._say(quote)

    def remove(self, ticker: Ticker) -> None:
        with self._lock:
            self._tracked.discard(ticker)

    def tell_again(self) -> None:
        """Tells the quotes of all tickers that this process tracks, in their order among later ones."""
        with self._lock:
            for ticker in self._tracked & self._mirror.keys():
                self._say(self._mirror[ticker])

    def quote(self, ticker: Ticker) -> Quote | None:
        """The ticker's quote as it may be shown now."""
        return (quote := self._mirror.get(ticker)) and quote.as_of(steady_ms(), self.why_expired(ticker))

    def tickers(self) -> list[Ticker]:
        """Those in Redis."""
        with self._lock:
            self._following = self._list_changes
            return sorted(self._mirror)

    def list_followed(self) -> None:
        """This process tracks what `tickers` has returned."""
        self._list_followed = self._following
        self._mark_position()
        with self._followed:
            self._followed.notify_all()

    def wait_for(self, epoch: str, position: int) -> bool:
        """Blocks until the list was followed up to this position. Returns whether it was."""

        def is_followed() -> bool:
            with self._lock:
                told, is_list_followed = self._told, self._list_followed == self._list_changes
            return is_list_followed and told is not None and told[0] == epoch and told[1] >= position

        with self._followed:
            return self._followed.wait_for(is_followed, FOLLOW_LIMIT_S)

    # --- the reader's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._is_stopping:
            try:
                self.last_tick = time.monotonic()
                self._begin()
                pause = FIRST_PAUSE_S
                self._read_stream()
            except RedisError as error:
                self.link.fail(error)
                self._tell_expired()
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)

    def _begin(self) -> None:
        """Reads everything, unless the stream can be continued from where it was left."""
        self.link.begin()
        if self.link.epoch != self._epoch or not self.has_loaded:
            self._load()

    def _read_stream(self) -> None:
        """Returns when everything has to be read again, because entries were missed. Raises RedisError."""
        due = time.monotonic()
        while not self._is_stopping:
            if (now := time.monotonic()) >= due:
                due = now + PULSE_S
                self._read_pulse()
            wait_ms = 1 if self._renewals else max(1, round(1000 * (due - time.monotonic())))
            found: Any = self.link.redis.xread({STREAM: f"{self._position}-0"}, count=BATCH, block=wait_ms)
            self.link.check()
            self.last_tick = time.monotonic()
            for position, values in found[0][1] if found else ():
                if not self._take(int(position.partition("-")[0]), values):
                    self._counters["relay_gaps"] += 1
                    self._load()
                    break
            self._mark_position()
            self._renew_some()

    def _load(self) -> None:
        """Reads everything at one moment: an emptied Redis gets the list that we have."""
        with self.link.redis.pipeline(transaction=True) as pipe:
            pipe.hmget(STATE, "epoch", "sequence", "listed")
            pipe.hgetall(QUOTES)
            pipe.hgetall(PROOFS)
            (epoch, sequence, listed), quotes, proofs = pipe.execute()
        self.link.check()
        if epoch != self.link.epoch:
            raise EpochEnded
        is_begun = listed == BEGUN and epoch != self._epoch  # by a new process, which may have known no list
        if (is_begun or not listed) and (known := sorted(self._mirror) or (not listed and self.offered)):
            self.link.refill(known)
            raise EpochEnded  # and it is read again
        self._counters["relay_loads"] += 1
        if epoch != self._epoch:
            with self._lock:
                self._told = None
            self._mark(epoch, 0)
        position = int(sequence or 0)
        for ticker in self._mirror.keys() - quotes.keys():
            self._drop(ticker)
        for ticker, value in quotes.items():
            number, _, text = value.partition(" ")
            self._put(from_json(text, int(number))[0], int(proofs[ticker]) if ticker in proofs else None)
        self._epoch, self.has_loaded = epoch, True
        self._pulse, self._renewals = position, []  # those of another epoch mean nothing
        self._reach(position, has_list_changed=True)

    def _take(self, position: int, values: Mapping[str, str]) -> bool:
        """Takes one entry; False if entries before it are missing."""
        if position != self._position + 1:
            return False
        has_list_changed = False
        for ticker, text in values.items():
            if ticker == "at":
                self.observe(max(0.0, (steady_ms() - self.link.clock.ours(int(text))) / 1000))
            elif text:
                has_list_changed |= ticker not in self._mirror
                self._put(*from_json(text, position))
            else:
                has_list_changed = True
                self._drop(Ticker(ticker))
        self._reach(position, has_list_changed=has_list_changed)
        return True

    def _put(self, quote: Quote, proof: int | None) -> None:
        """The ticker's quote, and its proof in Redis. A new epoch has no proofs: ours of the same quote holds."""
        known = self._mirror.get(quote.ticker)
        if proof is None and known == quote:
            quote = replace(quote, proven_until=known.proven_until)
        else:
            quote = self.link.clock.proven(quote, proof)
        with self._lock:
            self._mirror[quote.ticker] = quote
            self._proofs[quote.ticker] = proof or 0
            if quote.ticker in self._tracked:
                self._say(quote)

    def _drop(self, ticker: Ticker) -> None:
        with self._lock:
            self._mirror.pop(ticker, None)
            self._proofs.pop(ticker, None)
            self._expired.discard(ticker)

    def _reach(self, position: int, *, has_list_changed: bool) -> None:
        """All up to this position was told. Nobody sees it without the change of the list that is there."""
        self._position = position
        with self._lock:
            self._told = self._epoch, position
            self._list_changes += has_list_changed
        if has_list_changed:
            self.on_list()

    def _mark_position(self) -> None:
        """A client that has the stream up to here also has the list."""
        with self._lock:
            if self._told is not None and self._list_followed == self._list_changes:
                self._mark(*self._told)

    # Once a second.

    def _read_pulse(self) -> None:
        """Reads the renewed proofs and who owns what, and notices another Redis, or an emptied one."""
        asked = steady_ms()
        with self.link.redis.pipeline(transaction=True) as pipe:
            pipe.info("server")
            pipe.time()
            pipe.hmget(STATE, "epoch", "sequence", "listed", "run")
            pipe.hgetall(PROOFS)
            pipe.hgetall(LEASES)
            server, told, (epoch, sequence, listed, run), proofs, leases = pipe.execute()
        self.link.note_time(asked, told)
        if epoch != self._epoch or run != server["run_id"]:  # behind a proxy, a replica takes over without a word
            raise EpochEnded
        if not listed or int(sequence or 0) < self._position:
            self._load()
        if self.asked:
            self._add_asked()
        self._pulse = int(sequence or 0)
        self.behind = self._pulse - self._position
        now = told[0] * 1000 + told[1] // 1000
        shares = {ticker: lease.split(" ") for ticker, lease in leases.items()}
        self.owners = {ticker: holder for ticker, (_, holder, ends) in shares.items() if int(ends) >= now}
        self._renewals = [(Ticker(ticker), int(proof)) for ticker, proof in proofs.items()]
        if not proofs:
            self._tell_expired()

    def _renew_some(self) -> None:
        """A few at a time, so that no change waits for a thousand. They prove no price from before the pulse."""
        if not self._renewals or self._position < self._pulse:
            return
        some, self._renewals = self._renewals[:RENEWALS], self._renewals[RENEWALS:]
        for ticker, proof in some:
            self._renew(ticker, proof)
        if not self._renewals:
            self._tell_expired()

    def _renew(self, ticker: Ticker, proof: int) -> None:
        """The quote is as it was, and proven for longer; for less, if our clock stood still, as in a paused machine."""
        with self._lock:
            quote = self._mirror.get(ticker)
            if quote is None or (quote.position or 0) > self._pulse:  # it has a newer proof of its own
                return
            is_known = proof == self._proofs.get(ticker)
            if is_known and self.link.clock.ours(proof) > (quote.proven_until or 0.0) - CLOCK_STEP_MS:
                return
            self._proofs[ticker] = proof
            self._mirror[ticker] = quote = self.link.clock.proven(quote, proof)
            if ticker in self._tracked:
                self._say(quote)

    def _tell_expired(self) -> None:
        """Tells of prices that nobody proves any more: the store and the alerts don't judge that themselves."""
        with self._lock:
            for ticker in self._tracked - self._expired:
                if (quote := self._mirror.get(ticker)) is not None and quote.has_expired(steady_ms()):
                    self._say(quote)

    def _say(self, quote: Quote) -> None:
        """Tells the quote as it may be shown now. The lock is held."""
        if quote.has_expired(now := steady_ms()):
            self._expired.add(quote.ticker)
            quote = quote.as_of(now, self.why_expired(quote.ticker))
        else:
            self._expired.discard(quote.ticker)
        self._tell(quote)

    def why_expired(self, ticker: Ticker) -> str:
        """Why nobody renews the proof of the ticker's price."""
        if self.link.trouble:
            return NO_REDIS
        return NO_SIGN_OF_LIFE if ticker in self.owners else NO_SCRAPER

    def _add_asked(self) -> None:
        _, refused, _ = self.link.run(CHANGE, *self._settings.change(How.ADD, self.asked))
        self.asked = []
        if refused:
            log.warning("%s: not tracked, because %d tickers are", ", ".join(refused), self._settings.max_tickers)
