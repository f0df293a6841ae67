"""The holder of the alert lease: of all processes that serve, the one that judges the alerts and delivers them.

This file owns who that is, and that nobody else writes what alerts keep. Every process that serves runs a Holder, on
its thread "alert lease"; any thread may call what is said to be for all. It tells no client anything.

    lease → Term: a book of alerts, its outbox → orders → WRITE, with the fence of the lease

The lease is the process's as long as it renews it, by the earlier of two clocks: its own, from before it asked. So a
process that was stopped, or that can't reach Redis, judges and sends nothing any more before another one begins; and
what it wants written is refused.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from alerts.book import Alerts
from alerts.courier import Courier
from alerts.outbox import TOO_MANY_WAIT, Outbox, Pace
from quotes import Quote, Ticker, compact_json, steady_ms
from relay.ledger import LEAVE, TAKE, WRITE, RedisLedger, row_of
from relay.link import CALL_LIMIT_S, FIRST_PAUSE_S, MAX_PAUSE_S, Link, RelaySettings, sentence_of
from storage.ledger import Ledger
from store import MAX_ORDERS, Order

TICK_MS = 1_000  # between two renewals
LEASE_MS = 4_000  # at Redis
MARGIN_MS = 250  # by which it ends earlier for us
STOP_LIMIT_S = 0.5  # while Redis can't be used

T = TypeVar("T")

log = logging.getLogger("pluto.relay")


class Term:
    """One holding of the lease, until `ends`, in steady ms. Its book keeps in Redis what it keeps (store.Keeping)."""

    is_off = False

    def __init__(
        self,
        fence: int,
        ends: float,
        couriers: list[Courier],
        pace: Pace | None,
        *,
        simulated: bool,
        wake: Callable[[], None],
        read: Callable[[Callable[[Ledger], object]], object],
    ) -> None:
        self.fence, self.ends = fence, ends
        self.orders: deque[Order] = deque()  # the first one stays until it is written
        own = [courier.another() for courier in couriers]  # a thread of an earlier term may still end
        outbox = Outbox(self, own, pace, may_send=lambda: self.holds)
        self.book = Alerts(self, lambda raised, may_be_lost: None, outbox, simulated=simulated)
        self._wake, self._read = wake, read

    @property
    def holds(self) -> bool:
        return steady_ms() < self.ends

    def submit(self, order: Order) -> None:
        """Any thread. What is never written has not happened: the next term judges again."""
        if len(self.orders) >= MAX_ORDERS:
            self.ends = 0.0
        self.orders.append(order)
        self._wake()

    def read(self, question: Callable[[Ledger], T]) -> T:
        return self._read(question)  # type: ignore[return-value]


class Holder:
    """Gets the lease when it is free, and has a Term while it holds it.

    `begin` begins a connection. `read` asks the ledger, on any thread. `on_term` is called when a term has begun: then
    the newest quotes are put again.
    """

    def __init__(
        self,
        settings: RelaySettings,
        couriers: list[Courier],
        pace: Pace | None,
        *,
        begin: Callable[[Link], None],
        read: Callable[[Callable[[Ledger], object]], object],
        on_term: Callable[[], None],
    ) -> None:
        self.link = Link(settings)
        self.term: Term | None = None
        self.taken = 0  # terms
        self.tracked: set[Ticker] = set()
        self._settings, self._couriers, self._pace = settings, couriers, pace
        self._begin_link, self._read, self._on_term = begin, read, on_term
        self._ended: Term | None = None  # what it judged in time is still written, unless another process has begun
        self._due = 0.0  # steady ms; the next renewal or try
        self._beginning = threading.Lock()  # a term begins, or a note is followed
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="alert lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Frees the lease, so that another process gets it at once."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(STOP_LIMIT_S if self.link.trouble else CALL_LIMIT_S)

    # --- any thread ---------------------------------------------------------------------------------------------------

    def put(self, quote: Quote) -> None:
        if (term := self.term) is not None and term.holds:
            term.book.put(quote)

    def add(self, ticker: Ticker) -> None:
        self.tracked.add(ticker)
        if (term := self.term) is not None:
            term.book.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        self.tracked.discard(ticker)
        if (term := self.term) is not None:
            term.book.remove(ticker)

    def follow(self, kind: str, id: str, text: str) -> None:
        """A note: an alert was made, or is gone."""
        with self._beginning:
            if (term := self.term) is None:
                return
            if kind == "alert":
                term.book.adopt(row_of(id, text))
            elif kind == "gone":
                term.book.forget(id)

    # --- the lease's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._is_stopping:
            try:
                self._begin()
                while not self._is_stopping:
                    self._turn()
                    pause = FIRST_PAUSE_S
            except RedisError as error:
                self.link.fail(error)
                self._end_if_over()
                self._wait(pause * 1000)
                pause = min(2 * pause, MAX_PAUSE_S)
            except Exception:
                log.exception("the alert lease failed")
                self._end_term()
                self._ended = None
                self._wait(MAX_PAUSE_S * 1000)
        self._leave()

    def _begin(self) -> None:
        epoch = self.link.epoch
        self._begin_link(self.link)
        if self.link.epoch != epoch:
            self._end_term()
            self._ended = None  # a fence of another epoch means nothing
        self._due = 0.0

    def _turn(self) -> None:
        self._end_if_over()
        self._finish()
        if (now := steady_ms()) >= self._due:
            self._take()
        elif self.term is not None and self.term.orders:
            self._write(self.term)
        else:
            self._wait(self._due - now)

    def _wait(self, ms: float) -> None:
        if not self._is_stopping:
            self._wake.wait(ms / 1000)
            self._wake.clear()

    def _take(self) -> None:
        """Renews the lease, or gets it if it is free."""
        term, asked = self.term, steady_ms()
        fence, judged = (0, {}) if term is None else (term.fence, term.book.last_prices())
        notifies = int(bool(self._couriers))
        told, got, ends = self.link.run(TAKE, self._settings.name, fence, LEASE_MS, notifies, compact_json(judged))
        self.link.note_time(asked, told)
        self._due = asked + TICK_MS
        if term is not None and int(got) == fence:
            term.ends = asked + LEASE_MS - MARGIN_MS
            return
        self._end_term()
        if int(got):
            self._begin_term(int(got), asked + LEASE_MS - MARGIN_MS)
        else:
            left_ms = int(ends) - (int(told[0]) * 1000 + int(told[1]) // 1000)
            self._due = min(self._due, asked + max(left_ms, TICK_MS / 4) + 10)

    def _begin_term(self, fence: int, ends: float) -> None:
        """From the next live price on, this process judges. What it reads is final: nobody else writes any more."""
        term = Term(
            fence,
            ends,
            self._couriers,
            self._pace,
            simulated=self._settings.simulated,
            wake=self._wake.set,
            read=self._read,
        )
        with self._beginning:
            ledger = RedisLedger(self.link)
            term.book.load(ledger)
            if ledger.parts:
                self.link.run(WRITE, fence, *ledger.written)
            self.term = term
        self.taken += 1
        term.book.start()
        log.info("this process judges and delivers the alerts now (fence %d)", fence)
        for ticker in list(self.tracked):
            term.book.add(ticker)
        self._on_term()

    def _end_if_over(self) -> None:
        if self.term is not None and not self.term.holds:
            self._end_term()

    def _end_term(self) -> None:
        term, self.term = self.term, None
        if term is not None:
            term.ends = 0.0
            term.book.stop()
            log.info("this process no longer judges and delivers the alerts")
            self._ended = term

    def _finish(self) -> None:
        """Writes what a term that has ended has left."""
        while self._ended is not None and self._ended.orders:
            self._write(self._ended)
        self._ended = None

    def _write(self, term: Term) -> None:
        order, ledger = term.orders[0], RedisLedger(self.link)
        order.write(ledger)
        outcome, dropped = self.link.run(WRITE, term.fence, *ledger.written)
        if dropped:
            log.error(TOO_MANY_WAIT, dropped)
        if outcome == "lost":
            term.orders.clear()
            self._end_term()
            return
        term.orders.popleft()
        if outcome == "kept":
            order.done()

    def _leave(self) -> None:
        """Ends the term, writes what it has left, and frees the lease."""
        term = self.term
        self._end_term()
        if self.link.trouble:
            return
        try:
            self._finish()
            self.link.run(LEAVE, self._settings.name, 0 if term is None else term.fence)
        except RedisError as error:
            log.warning("the alert lease isn't freed, and ends by itself: %s", sentence_of(error, self.link.place))
