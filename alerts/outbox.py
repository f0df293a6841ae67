"""The outbox: brings what was raised to every notify URL, at least once, however long a receiver is away.

This file owns a lane for each notify URL, with a queue and a thread, so that a slow or dead receiver delays nobody.
What waits is in the store's file, from the transaction on that keeps what was raised, until its receiver has it or a
day is over; a lane has a bounded part of it in memory. What can't be kept is sent from memory, and says so. The store's
thread tells the outbox what was raised; the outbox never makes anyone wait, and writes no file itself.

    put → lane: letters (bounded; the rest stays in the file) → courier → an order to the store: what came of it
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from alerts.courier import CantNotify, Courier, Gone
from alerts.messages import message_of
from quotes import PlutoError, steady_ms, wall_ms
from storage.ledger import Delivery, DeliveryState, Ledger
from store import Keeping

MAX_UNWRITTEN = 10_000  # records of a lane
STOP_GRACE_S = 1.0  # for a message that is on its way
NO_LONGER_SET = "Its notify URL is no longer in Pluto's settings."
TOO_MANY_WAIT = "%d alerts that waited for their delivery are dropped: too many wait"  # for the log

log = logging.getLogger("pluto.alerts")


@dataclass(frozen=True)
class Pace:
    """Times are in seconds. `in_memory` is how many letters a lane has there."""

    limit: float = 10.0  # of one try
    first_pause: float = 1.0  # doubled after each try
    longest_pause: float = 900.0
    give_up: float = 86_400.0
    in_memory: int = 1_000

    def pause_ms(self, tries: int) -> float:
        """Until the next try, after so many."""
        pause = min(self.first_pause * 2.0 ** min(tries - 1, 30), self.longest_pause)
        return pause * 1000 * random.uniform(0.75, 1.0)


@dataclass(slots=True, eq=False)
class Letter:
    """What was raised, on its way to one notify URL. `since`: when that was; `due`: its next try; both in steady ms."""

    raised: Mapping[str, Any]
    since: float
    due: float
    tries: int = 0
    may_be_lost: bool = False

    @property
    def id(self) -> str:
        return str(self.raised["id"])


class LaneFigures(NamedTuple):
    """What /metrics says of a lane."""

    name: str
    waiting: int
    delivered: int
    failed: int
    oldest_s: float


@dataclass(slots=True, eq=False)
class Record:
    """An order to the store: what has become of a delivery, which may go on changing until it is written."""

    delivery: Delivery
    then: Callable[[Record], None]
    written: Delivery | None = None

    def write(self, ledger: Ledger) -> None:
        self.written = self.delivery
        ledger.keep_delivery(self.written)

    def done(self) -> None:
        self.then(self)

    def failed(self) -> None:
        pass  # it is tried again; or else the message is sent again after a restart


class Lane:
    """One notify URL: its letters, its thread, its courier.

    `may_send` is asked before each try. `wall` is in ms since the epoch.
    """

    def __init__(
        self,
        courier: Courier,
        store: Keeping,
        pace: Pace,
        may_send: Callable[[], bool],
        wall: Callable[[], int],
    ) -> None:
        self.courier, self._store, self._pace, self._wall = courier, store, pace, wall
        self._may_send = may_send
        self._lock = threading.Lock()
        self._letters: dict[str, Letter] = {}  # by the id of what was raised
        self._records: dict[str, Record] = {}  # by the same id: what the file may not have yet
        self._is_more_in_file = False
        self._waiting = 0  # in memory and in the file
        self._counts: Counter[DeliveryState] = Counter()
        self._wake = threading.Event()
        self._is_failing = False  # since the last try
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"notify {courier.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Begins the end: the lane finishes the message that is on its way."""
        self._is_stopping = True
        self._wake.set()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._thread.join(STOP_GRACE_S)
            self.courier.kill()
            self._thread.join(STOP_GRACE_S)
        else:
            self.courier.stop()

    # --- for all others -----------------------------------------------------------------------------------------------

    def delivery_of(self, id: str, at: int) -> Delivery:
        """A new delivery of what was raised, at `at`."""
        return Delivery(id, self.courier.target, self.courier.name, DeliveryState.WAITING, 0, at)

    def put(self, raised: Mapping[str, Any], may_be_lost: bool) -> None:
        """Any thread: it is to be sent now. What finds no room is read from the file later."""
        with self._lock:
            self._waiting += 1
            if raised["id"] in self._letters or raised["id"] in self._records:  # the lane's thread has read it already
                return
            if len(self._letters) >= self._pace.in_memory:
                self._is_more_in_file = True
                return
            now = steady_ms()
            letter = Letter(raised, now, now, may_be_lost=may_be_lost)
            self._letters[letter.id] = letter
        self._wake.set()

    def load(self, ledger: Ledger) -> None:
        with self._lock:
            self._waiting = ledger.count_waiting(self.courier.target)
            self._is_more_in_file = self._waiting > 0
        self._wake.set()

    def refill(self, ledger: Ledger) -> None:
        with self._lock:
            letters = list(self._letters.values())
            self._waiting, self._is_more_in_file = len(letters), False
        for letter in letters:
            at = letter.raised["at"]
            delivery = self.delivery_of(letter.id, at)._replace(tries=letter.tries)
            ledger.keep_raised(letter.id, at, letter.raised, [delivery])

    @property
    def figures(self) -> LaneFigures:
        with self._lock:
            oldest = min((letter.since for letter in self._letters.values()), default=None)
            age = 0.0 if oldest is None else max(0.0, steady_ms() - oldest) / 1000
            delivered, failed = self._counts[DeliveryState.DELIVERED], self._counts[DeliveryState.FAILED]
            return LaneFigures(self.courier.name, self._waiting, delivered, failed, age)

    # --- the lane's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            pause_ms: float | None = self._pace.first_pause * 1000
            try:
                self._read_more()
                letter, due_in_ms = self._next()
                if letter is None:
                    pause_ms = due_in_ms
                elif self._may_send():
                    self._try(letter)
                    continue
            except PlutoError:
                pass  # it can't be read now
            except Exception:
                log.exception("notify URL %s: delivery failed unexpectedly", self.courier.name)
            if not self._is_stopping:
                self._wake.wait(None if pause_ms is None else pause_ms / 1000)
        self.courier.stop()

    def _next(self) -> tuple[Letter | None, float | None]:
        """The letter to try now: of those that are due, the one with the fewest tries; else how long to wait, in ms."""
        with self._lock:
            letters, now = self._letters.values(), steady_ms()
            due = [letter for letter in letters if letter.due <= now]
            if due:
                return min(due, key=lambda letter: (letter.tries, letter.since)), None
            return None, min((letter.due - now for letter in letters), default=None)

    def _read_more(self) -> None:
        """Fills the memory from the file, as far as there is room. Raises PlutoError."""
        with self._lock:
            if not self._is_more_in_file or len(self._letters) > self._pace.in_memory // 2:
                return
            self._is_more_in_file = False  # unless `put` says meanwhile that there is
            limit = self._pace.in_memory + len(self._records)
            known = self._letters.keys() | self._records.keys()  # the answer may be out of date when it is here
        try:
            found = self._store.read(lambda ledger: list(ledger.waiting(self.courier.target, limit)))
        except PlutoError:
            self._is_more_in_file = True
            raise
        with self._lock:
            for raised, delivery in found:
                if delivery.raised in known or delivery.raised in self._letters:
                    continue
                if len(self._letters) >= self._pace.in_memory:
                    self._is_more_in_file = True
                    break
                self._letters[delivery.raised] = self._letter_of(raised, delivery)
            self._is_more_in_file = self._is_more_in_file or len(found) == limit

    def _letter_of(self, raised: Mapping[str, Any], delivery: Delivery) -> Letter:
        """A letter from the file. The wall clock may have been set: it can't bring a letter's end before a try."""
        now, wall = steady_ms(), self._wall()
        age = min(max(0, wall - raised["at"]), self._pace.give_up * 1000)
        wait = min(max(0, (delivery.next_try_at or 0) - wall), self._pace.longest_pause * 1000)
        return Letter(raised, now - age, now + wait, delivery.tries)

    def _try(self, letter: Letter) -> None:
        error = self.courier.send(message_of(letter.raised, may_be_lost=letter.may_be_lost))
        if error and self._is_stopping:
            return
        letter.tries += 1
        now, at, next_try_at = steady_ms(), self._wall(), None
        if not error:
            state = DeliveryState.DELIVERED
        elif now - letter.since >= self._pace.give_up * 1000:
            state = DeliveryState.FAILED
            log.error("notify URL %s: %s is given up: %s", self.courier.name, letter.id, error)
        else:
            state, pause = DeliveryState.WAITING, self._pace.pause_ms(letter.tries)
            letter.due, next_try_at = now + pause, at + round(pause)
        self._tell(error)
        name, target = self.courier.name, self.courier.target
        self._record(Delivery(letter.id, target, name, state, letter.tries, at, next_try_at, error))

    def _tell(self, error: str) -> None:
        """Logs only what is new."""
        was_failing, self._is_failing = self._is_failing, bool(error)
        if error and not was_failing:
            log.warning("notify URL %s fails: %s", self.courier.name, error)
        elif was_failing and not error:
            log.info("notify URL %s works again", self.courier.name)

    def _record(self, delivery: Delivery) -> None:
        """Has the store write it, by one order at a time, so that a store that fails isn't flooded."""
        with self._lock:
            if delivery.state is not DeliveryState.WAITING:
                del self._letters[delivery.raised]
                self._waiting -= 1
                self._counts[delivery.state] += 1
            if (record := self._records.get(delivery.raised)) is not None:
                record.delivery = delivery
                return
            record = self._records[delivery.raised] = Record(delivery, self._settle)
            if len(self._records) > MAX_UNWRITTEN:
                del self._records[next(iter(self._records))]
        self._store.submit(record)

    def _settle(self, record: Record) -> None:
        """The store's thread: it is on the disk as it was when it was written."""
        with self._lock:
            if record.delivery is record.written:
                self._records.pop(record.delivery.raised, None)
                return
        self._store.submit(record)


class Outbox:
    """All lanes. With no notify URL, it does nothing but end the deliveries that waited for one."""

    def __init__(
        self,
        store: Keeping,
        couriers: Iterable[Courier] = (),
        pace: Pace | None = None,
        *,
        may_send: Callable[[], bool] = lambda: True,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        pace, self._wall = pace or Pace(), wall
        self._lanes = [Lane(courier, store, pace, may_send, wall) for courier in couriers]

    def start(self) -> None:
        """Raises CantNotify: Apprise is not installed, or doesn't understand a URL."""
        begin([lane.courier for lane in self._lanes])
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.stop()

    def keep(self, ledger: Ledger, raised: Mapping[str, Any]) -> None:
        """Keeps what was raised, as REST writes it, with its deliveries: in one transaction."""
        id, at = raised["id"], raised["at"]
        if dropped := ledger.keep_raised(id, at, raised, [lane.delivery_of(id, at) for lane in self._lanes]):
            log.error(TOO_MANY_WAIT, dropped)

    def put(self, raised: Mapping[str, Any], may_be_lost: bool) -> None:
        """What was raised, as REST writes it, once it is kept, or can't be now. Any thread."""
        for lane in self._lanes:
            lane.put(raised, may_be_lost)

    def load(self, ledger: Ledger) -> None:
        """What an earlier run has left to deliver."""
        ledger.give_up_others([lane.courier.target for lane in self._lanes], self._wall(), NO_LONGER_SET)
        for lane in self._lanes:
            lane.load(ledger)

    def refill(self, ledger: Ledger) -> None:
        """Writes what waits in memory into a fresh file."""
        for lane in self._lanes:
            lane.refill(ledger)

    @property
    def figures(self) -> list[LaneFigures]:
        return [lane.figures for lane in self._lanes]


def couriers_of(urls: Iterable[str], limit: float = Pace.limit) -> list[Courier]:
    """One for each URL; one that is named twice counts once."""
    couriers: dict[str, Courier] = {}
    for ordinal, url in enumerate(urls, 1):
        courier = Courier(ordinal, url, limit)
        couriers.setdefault(courier.target, courier)
    return list(couriers.values())


def begin(couriers: list[Courier]) -> None:
    """Starts those that don't know their URL, and waits until they do. Raises CantNotify; none runs then."""
    couriers = [courier for courier in couriers if not courier.knows_url]
    try:
        for courier in couriers:
            courier.start()
        for courier in couriers:
            try:
                courier.greet()
            except Gone as error:
                raise CantNotify(f"Notify URL {courier.name} can't be used: {error}") from None
    except BaseException:
        for courier in couriers:
            courier.stop()
        raise
