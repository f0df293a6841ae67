"""The store: the watchlist and every price, in a file that outlives the process.

This file owns the writer's thread, which alone writes the file, and what is done when the file or its disk fails:
streaming goes on, the store says that it is degraded and why, and tries again. It never makes anyone wait for a disk.
Any thread may `put`; the hub thread starts and stops it and follows the watchlist. What is read is in
`storage.history`.

Of several workers of one Pluto, one writes the file. The others read it, and one of them goes on when the writer ends.

    put → intake (bounded) → writer, at most once a second → one transaction: changes, candles, newest quotes
    submit → orders (bounded) → writer, at once → a transaction for each order
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from quotes import PlutoError, Quote, Ticker, wall_ms
from storage.file import StoreFile, tracked_of
from storage.history import History
from storage.intake import MAX_WAITING, Batch, Intake
from storage.ledger import FileLedger, Ledger
from storage.remembered import Remembered
from storage.retention import Keep, Retention
from storage.schema import FromTheFuture, Lock, StoreInUse, WrittenByCrew, is_unusable, read_watchlist, set_aside
from storage.standby import Standby

__all__ = ["HistoryUnreadable", "NoStore", "Store", "StoreInUse", "StoreSettings", "StoreState"]

TURN_S = 1.0
SHORTEST_TURN_S = 0.02
PULSE_MS = 10_000  # with nothing to write, the file is told this often that Pluto is alive
SLOW_S = 5.0  # after which a writer that has not come back is told
NO_FILE = 0  # in place of an inode's number
END_LIMIT_S = 3.0  # for the last transaction
MAX_ORDERS = 10_000  # that wait for the writer

log = logging.getLogger("pluto.store")

T = TypeVar("T")


class NoStore(PlutoError):
    """Pluto keeps nothing: it runs with --no-store."""

    code = "no_store"


class HistoryUnreadable(PlutoError):
    code = "history_unreadable"


class StoreState(StrEnum):
    """What /health says of the store."""

    OFF = "off"
    RUNNING = "running"
    DEGRADED = "degraded"


@dataclass(frozen=True)
class StoreSettings:
    """`path` is None if nothing is kept. Times are in seconds.

    `patience` is for another program's lock, `turn` the least between two transactions that write prices. `crew` is the
    name that all workers of one Pluto share; empty if it has one process.
    """

    path: Path | None
    keep: Keep = field(default_factory=Keep)
    max_waiting: int = MAX_WAITING
    patience: float = 1.0
    turn: float = TURN_S
    crew: str = ""


class Order(Protocol):
    """What is written in a transaction of its own. All of its calls come on the writer's thread."""

    def write(self, ledger: Ledger) -> None: ...

    def done(self) -> None:
        """It is on the disk."""

    def failed(self) -> None:
        """It can't be written now, and is tried again as long as Pluto runs."""


class Keeping(Protocol):
    """Where alerts are kept: the store, or Redis. Any thread may call it; `read` blocks."""

    @property
    def is_off(self) -> bool:
        """Nothing is kept."""

    def submit(self, order: Order) -> None:
        """Writes it soon, after those before it."""

    def read(self, question: Callable[[Ledger], T]) -> T:
        """Raises PlutoError if it can't be read now."""


class Keeper(Protocol):
    """Has more in the store's file than prices. Both calls come while nobody else writes."""

    def load(self, ledger: Ledger) -> None:
        """Reads what an earlier run has left."""

    def refill(self, ledger: Ledger) -> None:
        """Writes all that it has into a fresh file, or one that another worker has written, inside a transaction."""


class Store:
    """Follows the watchlist, takes in every quote, and writes what changed. Without a path it does nothing."""

    def __init__(self, settings: StoreSettings, remembered: Remembered) -> None:
        self.path, self.is_off = settings.path, settings.path is None
        self.intake = Intake(settings.max_waiting)
        self.files_set_aside = 0
        self.written = 0  # changes
        self.history = None if settings.path is None else History(settings.path, settings.patience)
        self._suspected: tuple[sqlite3.Error, int] | None = None  # what a reader met; files set aside before
        self._settings, self._remembered = settings, remembered
        self._reason = ""  # why it is degraded
        self._lock: Lock | None = None
        self._file: StoreFile | None = None
        self._retention: Retention | None = None  # of that file
        self._file_number = NO_FILE  # of the file that was open last
        self._pending = Batch({}, [])  # taken, and not yet written
        self._standby: Standby | None = None  # while another worker writes
        self._list_taken = self._list_written = 0  # changes of the watchlist
        self._orders: deque[Order] = deque()  # the first one stays until it is written
        self._keeper: Keeper | None = None
        self._restore: Callable[[list[Ticker]], None] = lambda tickers: None
        self._has_loaded = False
        self._beat_at = time.monotonic()
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    # --- for all others -----------------------------------------------------------------------------------------------

    def start(self, restore: Callable[[list[Ticker]], None]) -> list[Ticker]:
        """Opens the file and returns the watchlist in it. Raises StoreInUse.

        What can only be read later goes to `restore`, on the writer's thread.
        """
        if self.path is None:
            return []
        found: list[Ticker] = []
        self._restore = found.extend
        try:
            self._open(self.path)
        except WrittenByCrew:
            self._load_unwritten(self.path)
            self._stand_by()
        except (sqlite3.Error, OSError, FromTheFuture) as error:
            self._fail(error)
        self._restore = restore
        self._thread.start()
        return found

    def stop(self) -> None:
        """Writes what waits, and that nothing is recorded from now on."""
        if self._thread.is_alive():
            self._is_stopping = True
            self._wake.set()
            self._thread.join(END_LIMIT_S)

    def put(self, quote: Quote) -> None:
        """Any thread: a quote as it enters Pluto."""
        if self.path is not None:
            self.intake.put(quote)

    def keep(self, keeper: Keeper) -> None:
        """Before the start: who has more in the file."""
        self._keeper = keeper

    def submit(self, order: Order) -> None:
        """Any thread: writes it soon, after those before it. One that finds no room has failed."""
        if self.path is None or len(self._orders) >= MAX_ORDERS:
            order.failed()
            return
        self._orders.append(order)
        self._wake.set()

    def read(self, question: Callable[[Ledger], T]) -> T:
        """Any thread: what alerts keep. See `ask`."""
        return ask(self, lambda history: history.ledger(question))

    def add(self, ticker: Ticker) -> None:
        if self.path is not None:
            self.intake.add(ticker)
            self._remembered.add(ticker)
            self._wake.set()

    def remove(self, ticker: Ticker) -> None:
        if self.path is not None:
            self.intake.remove(ticker)
            self._remembered.remove(ticker)
            self._wake.set()

    def suspect(self, error: sqlite3.Error, files_set_aside: int) -> None:
        """Any thread: a reader met this when so many files had been set aside. A damaged file is set aside."""
        if is_unusable(error) and self._standby is None:
            self._suspected = error, files_set_aside
            self._wake.set()

    @property
    def has_kept_list(self) -> bool:
        """Whether the watchlist as it is now would survive a kill; True where nothing is kept."""
        return self.path is None or self._list_written == self.intake.list_changes

    @property
    def state(self) -> StoreState:
        if self.path is None:
            return StoreState.OFF
        return StoreState.DEGRADED if self.reason else StoreState.RUNNING

    @property
    def reason(self) -> str:
        """Why it is degraded, for people; empty if it isn't."""
        silence = time.monotonic() - self._beat_at
        if not self._reason and self._thread.is_alive() and silence > SLOW_S:
            return f"nothing could be written to {self.path} for {silence:.0f} s: its disk is slow or hangs."
        return self._reason

    @property
    def health(self) -> dict[str, str | int]:
        """What /health says about it."""
        health: dict[str, str | int] = {"store": self.state}
        if self._settings.crew:
            health["storeWriter"] = self._standby is None
        if reason := self.reason:
            health["storeReason"] = reason
        if self.intake.left_out:
            health["storeLeftOut"] = self.intake.left_out
        return health

    # --- the writer's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_stopping:
            self._wake.wait(max(0.0, due + self._settings.turn - time.monotonic()))
            time.sleep(max(0.0, due + min(self._settings.turn, SHORTEST_TURN_S) - time.monotonic()))
            self._wake.clear()
            due = time.monotonic()
            self._turn()
        self._end()

    def _turn(self) -> None:
        assert self.path is not None
        self._beat_at = time.monotonic()
        try:
            suspected, self._suspected = self._suspected, None
            if suspected is not None and suspected[1] == self.files_set_aside:
                raise suspected[0]
            if self._lock is not None and self._lock.is_lost:
                self._close()
                self._release()
            if self._file is not None and _file_number(self.path) != self._file_number:
                log.error("%s is gone, or another file has taken its place. A fresh one begins", self.path)
                self._close()
                self._file_number = NO_FILE
            if self._file is None:
                self._open(self.path)
            self._fill_orders()
            self._write()
        except WrittenByCrew:
            self._stand_by()
        except (sqlite3.Error, OSError, FromTheFuture, StoreInUse) as error:
            self._fail(error)
        except Exception:
            self._close()
            log.exception("the store's writer failed")
            self._reason = "The store failed unexpectedly. The log has the error."
            self._tell_orders()
        else:
            self._recover()
        self._beat_at = time.monotonic()

    def _fill_orders(self) -> None:
        assert self._file is not None
        while self._orders:
            order = self._orders[0]
            with self._file.transaction():
                order.write(FileLedger(self._file.connection))
            self._orders.popleft()
            order.done()

    def _write(self) -> None:
        """Writes what could not be written before, then what waits."""
        if any(self._pending):
            self._write_pending()
        self._list_taken = self.intake.list_changes
        self._pending = self.intake.take()
        self._write_pending()

    def _write_pending(self) -> None:
        assert self._file is not None
        assert self._retention is not None
        now = wall_ms()
        more = [partial(self._retention.step, now)] if self._retention.is_due(now) else []
        if any(self._pending) or more or self._is_stopping or now - self._file.alive_at >= PULSE_MS:
            self._file.write(self._pending, now, *more)
            self.written += len(self._pending.arrivals)
        self._pending = Batch({}, [])
        self._list_written = self._list_taken

    def _end(self) -> None:
        """The last transactions: what waits, then that nothing is recorded from now on. Another worker goes on."""
        if self._file is not None:
            self._turn()
        if self._file is not None and not self._settings.crew:
            self._pending = Batch({}, self._file.end_all(wall_ms()))
            self._turn()
        self._close()
        self._release()

    # --- opening and failing ------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        """Opens the file, or begins one, and loads the watchlist if that has not been done."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._lock or Lock(path, self._settings.crew)
        number = _file_number(path)  # before its opening: a new file may get the number of the one that was deleted
        is_known = number == self._file_number != NO_FILE
        self._file = StoreFile(path, self._settings.patience)
        self._retention = Retention(self._file.connection, self._settings.keep)
        if not self._has_loaded:
            self._load(self._file)
            # What an earlier run, if it was killed, could not write: that nothing was recorded after its last pulse.
            self._pending = Batch({}, self._file.end_all(self._file.alive_at))
        elif self._standby is not None or not is_known:
            if self._standby is not None:
                log.info("this worker writes %s from now on", path)
                self._pending, self._standby = self._standby.continuation(self._file, self.intake), None
            else:
                self._pending = self.intake.take_for_fresh_file(self._pending)
            if self._keeper is not None:
                with self._file.transaction():
                    self._keeper.refill(FileLedger(self._file.connection))
        self._file_number = _file_number(path)

    def _stand_by(self) -> None:
        """Another worker writes. What it might not get to write is kept ready."""
        self._standby = self._standby or Standby(wall_ms())
        self._standby.take(self.intake.take())
        self._list_written = self.intake.list_changes
        self._has_loaded, self._reason = True, ""
        while self._orders:
            self._orders.popleft().failed()

    def _load(self, file: StoreFile) -> None:
        watchlist = file.watchlist()
        if self._keeper is not None:
            self._keeper.load(FileLedger(file.connection))
        self._has_loaded = True
        kept = {ticker: quote for ticker, quote in watchlist.items() if not self.intake.is_removed(ticker)}
        self._remembered.keep(kept)
        self._restore(list(kept))

    def _load_unwritten(self, path: Path) -> None:
        """The watchlist of a file that may be readable although it can't be written."""
        try:
            rows = read_watchlist(path, self._settings.patience)
        except sqlite3.Error:
            return
        watchlist = dict(map(tracked_of, rows))
        self._remembered.keep(watchlist)
        self._restore(list(watchlist))

    def _close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except sqlite3.Error:
                log.debug("closing %s failed", self.path, exc_info=True)
            self._file = None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _fail(self, error: Exception) -> None:
        """Says why nothing can be written now; a file that is at fault itself is closed and set aside."""
        assert self.path is not None
        self._close()
        if is_unusable(error):
            reason, path = f"{self.path} can't be used: {error}.", set_aside(self.path, error)
            self._file_number, self.files_set_aside = NO_FILE, self.files_set_aside + (path != self.path)
        else:
            reason = str(error) if isinstance(error, StoreInUse) else f"{self.path} can't be written: {error}."
            path = self.path
            if reason != self._reason:
                log.error("the store is degraded, prices go on: %s", reason)
        if not (self._has_loaded or self._reason):
            self._load_unwritten(path)
        self._reason = reason
        self._tell_orders()

    def _tell_orders(self) -> None:
        for order in list(self._orders):
            order.failed()

    def _recover(self) -> None:
        if self._reason:
            log.warning("the store works again; %d changes were left out in all", self.intake.left_out)
        self._reason = ""


def ask(store: Store, question: Callable[[History], T]) -> T:
    """Any thread: what the file has. It blocks. Raises NoStore, HistoryUnreadable."""
    if store.history is None:
        raise NoStore("Pluto runs with --no-store and keeps no history. Start it without that.")
    files_set_aside = store.files_set_aside
    try:
        return question(store.history)
    except sqlite3.Error as error:
        store.suspect(error, files_set_aside)
        raise HistoryUnreadable(f"The history can't be read: {error}. Try again in a moment.") from error


def _file_number(path: Path) -> int:
    """The inode's number, NO_FILE if there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return NO_FILE
