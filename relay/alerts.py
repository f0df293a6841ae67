"""The alerts that several processes share, over Redis.

This file owns how an alert is made and deleted there, on any process that serves; how each of them follows what becomes
of all alerts; and the copy in each store's file, for a Redis that has none. It judges no price: see `relay.holder`.

    make, delete → script → alerts, notes → each process: the copy; the holder of the lease: its book
    the holder's order → WRITE → raised, notes → each process: announced to its streams

Threads: the holder's; "alert notes"; and the caller's own in what blocks. Each has a connection of its own.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TypeVar

from redis.exceptions import RedisError

from alerts.book import (
    AlertFigures,
    Fate,
    LeaseFigures,
    NoSuchAlert,
    TooManyAlerts,
    Writing,
    new_row,
)
from alerts.conditions import Alert
from alerts.courier import Courier
from alerts.fields import alert_of, kept_alert, replaced_by
from alerts.outbox import Pace, begin
from quotes import Quote, SourceBusy, Ticker, wall_ms
from relay.holder import Holder
from relay.ledger import ALERTS, DELETE, LISTED, MAKE, NOTES, REFILL, RedisLedger, rest_of, row_of
from relay.link import FIRST_PAUSE_S, MAX_PAUSE_S, MAY_BE_DONE, NOT_YET, EpochEnded, Link, RelaySettings
from relay.scripts import BEGUN, STATE
from storage.ledger import AlertRow, Ledger
from store import Store
from watchlist import NotTracked

PULSE_S = 1.0
BATCH = 250  # notes read at once
COMPARE_S = 30.0  # between two comparisons of the copy in the file with what it shall be
STOP_LIMIT_S = 0.2  # the thread has nothing to do at the end, and may be waiting for Redis

T = TypeVar("T")

log = logging.getLogger("pluto.relay")


class SharedAlerts:
    """All alerts of all processes, as one of them has them (alerts.book.AlertDesk).

    `announce` gets the fields of what was raised, on the thread of the notes. `tell_again` has every newest quote put
    once more.
    """

    is_shared = True

    def __init__(
        self,
        settings: RelaySettings,
        store: Store,
        announce: Callable[[Mapping[str, Any]], None],
        couriers: list[Courier],
        pace: Pace | None = None,
        *,
        tell_again: Callable[[], None],
        counters: Counter[str],
    ) -> None:
        self._store, self._announce, self._couriers, self._counters = store, announce, couriers, counters
        self._holder = Holder(
            settings,
            couriers,
            pace,
            begin=self._begin,
            read=lambda question: self._call(lambda link: question(RedisLedger(link)), "read"),
            on_term=tell_again,
        )
        self._link = Link(settings)  # of the notes
        self._commands = Link(settings)  # of callers
        self._command = threading.Lock()  # of that connection
        self._rows: dict[str, AlertRow] = {}  # as Redis has them
        self._offered: list[AlertRow] = []  # as the store's file had them, until Redis has a list
        self._has_loaded = False
        self._epoch, self._position = "", 0  # of the last note
        self._is_listed = False  # Redis has a list, even if that is empty
        self._saving = kept_writing()  # of the copy in the file
        self._is_unsaved = False
        self._compare_at = 0.0  # monotonic s
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="alert notes", daemon=True)

    def start(self) -> None:
        """Raises CantNotify: a notify URL can't be used."""
        begin(self._couriers)
        for courier in self._couriers:
            courier.stop()  # until this process delivers
        self._thread.start()
        self._holder.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._holder.stop()
        self._thread.join(STOP_LIMIT_S)

    # --- for all others -----------------------------------------------------------------------------------------------

    def put(self, quote: Quote) -> None:
        self._holder.put(quote)

    def add(self, ticker: Ticker) -> None:
        self._holder.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        self._holder.remove(ticker)

    @property
    def figures(self) -> AlertFigures:
        term = self._holder.term
        lease = LeaseFigures(term is not None and term.holds, self._holder.taken)
        if term is None:
            return AlertFigures(len(self._rows), 0, 0, [], lease)
        return term.book.figures._replace(held=len(self._rows), lease=lease)

    def make(self, fields: Mapping[str, Any]) -> tuple[Alert, Writing]:
        """A new alert; the one that it replaces is deleted.

        Raises SourceBusy, TooManyAlerts, NoSuchAlert, NotTracked, InvalidAlert, InvalidTicker.
        """
        replaces, fields = replaced_by(fields)
        alert = alert_of(fields, secrets.token_hex(8), wall_ms())
        if alert.ticker not in self._holder.tracked:
            raise NotTracked(alert.ticker)
        rest = rest_of(new_row(alert))
        limits = self._commands.settings.alerts
        args = limits.all, limits.of_ticker, alert.ticker, alert.id, rest, replaces
        refused = self._call(lambda link: link.run(MAKE, *args), "changed")
        if refused == "gone":
            raise NoSuchAlert
        if refused:
            raise TooManyAlerts(limits, alert.ticker if refused == "ticker" else None)
        return alert, kept_writing()

    def delete(self, id: str) -> Writing | None:
        """None if there is no such alert. Raises SourceBusy."""
        if not self._call(lambda link: link.run(DELETE, id), "changed"):
            return None
        return kept_writing()

    def all(self) -> list[Alert]:
        """In the order of their making. Raises SourceBusy."""
        rows = self._call(lambda link: RedisLedger(link).alerts(), "read")
        return [kept_alert(row.fields) for row in rows]

    def raised(self, limit: int) -> list[dict[str, Any]]:
        """What was raised, the newest first. Raises SourceBusy."""
        return self._call(lambda link: RedisLedger(link).raised(limit), "read")

    def _call(self, call: Callable[[Link], T], done: str) -> T:
        """Calls Redis on this thread, which waits for it. Raises SourceBusy: at once, if it is known to be away."""
        with self._command:
            if (trouble := self._holder.link.trouble) and trouble != NOT_YET:
                raise SourceBusy(f"Alerts can't be {done} now: {trouble}.")
            try:
                return self._commands.call(lambda: call(self._commands), lambda: self._begin(self._commands))
            except RedisError as error:
                self._commands.fail(error)
                trouble = self._commands.trouble or "Redis was emptied or restarted"
                may_be_done = MAY_BE_DONE if done == "changed" else ""
                raise SourceBusy(f"Alerts can't be {done} now: {trouble}.{may_be_done}") from None

    def _begin(self, link: Link) -> None:
        """Begins a connection. Redis gets the alerts that it lacks."""
        link.begin()
        if not (rows := self._lacking(link)):
            return
        if link.run(REFILL, *chain(*((row.id, rest_of(row)) for row in rows))):
            log.warning(
                "Redis lacked the alerts: this process has refilled it with %d; what was raised, and what waited to be "
                "delivered, is lost",
                len(rows),
            )

    def _lacking(self, link: Link) -> list[AlertRow]:
        """All that we know, if Redis has no list at all, not even an empty one.

        Also what we know of the former epoch, if a process that may have known none has begun the list.
        """
        listed: Any = link.redis.hget(STATE, LISTED)
        if not listed:
            return self._known()
        return list(self._rows.values()) if listed == BEGUN and link.epoch != self._epoch else []

    def _known(self) -> list[AlertRow]:
        return list(self._rows.values()) if self._is_listed else self._offered

    # --- the thread of the notes --------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._is_stopping:
            try:
                self._begin(self._link)
                if self._link.epoch != self._epoch or not self._has_loaded:
                    self._load(continues=self._has_loaded)
                pause = FIRST_PAUSE_S
                self._read_notes()
            except RedisError as error:
                self._link.fail(error)
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
            except Exception:
                log.exception("following the alerts failed")
                self._has_loaded = False
                time.sleep(MAX_PAUSE_S)

    def _load(self, *, continues: bool) -> None:
        """Reads all alerts. `continues`: no note was missed, and those after the last one are still to be told."""
        with self._link.redis.pipeline(transaction=True) as pipe:
            pipe.hmget(STATE, "epoch", "notes", LISTED)
            pipe.hgetall(ALERTS)
            (epoch, notes, listed), values = pipe.execute()
        self._link.check()
        if epoch != self._link.epoch:
            raise EpochEnded
        self._rows = {id: row_of(id, value.partition(" ")[2]) for id, value in values.items()}
        last = int(notes or 0)
        self._position = min(self._position, last) if continues else last
        self._epoch, self._has_loaded, self._is_listed = epoch, True, bool(listed)
        self._note_change()

    def _read_notes(self) -> None:
        """Returns when everything has to be read again. Raises RedisError."""
        due = time.monotonic()
        while not self._is_stopping:
            if (now := time.monotonic()) >= due:
                due = now + PULSE_S
                self._pulse()
            wait_ms = max(1, round(1000 * (due - time.monotonic())))
            found: Any = self._link.redis.xread({NOTES: f"{self._position}-0"}, count=BATCH, block=wait_ms)
            self._link.check()
            for number, values in found[0][1] if found else ():
                if int(number.partition("-")[0]) != self._position + 1:
                    self._counters["relay_alert_notes_missed"] += 1
                    self._load(continues=False)
                    break
                self._position += 1
                self._take(**values)

    def _take(self, kind: str, id: str, text: str) -> None:
        if kind == "raised":
            self._announce(json.loads(text))
            return
        self._is_listed = True
        self._note_change()
        self._holder.follow(kind, id, text)  # first: what is counted as held is judged
        if kind == "alert":
            self._rows[id] = row_of(id, text)
        else:
            self._rows.pop(id, None)

    def _note_change(self) -> None:
        self._is_unsaved = True
        if self._is_listed:
            self._offered = []  # a later Redis without a list gets this one

    # Once a second.

    def _pulse(self) -> None:
        """Notices an emptied Redis, and brings the copy in the file up to date."""
        epoch, listed = self._link.redis.hmget(STATE, "epoch", LISTED)
        self._link.check()
        if epoch != self._epoch or (not listed and self._known()):
            raise EpochEnded
        now = time.monotonic()
        is_due = now >= self._compare_at or (self._is_unsaved and self._saving.fate is Fate.KEPT)
        if self._is_listed and is_due and not self._store.is_off:
            self._compare_at, self._is_unsaved = now + COMPARE_S, False
            self._saving = Writing(lambda ledger: save(ledger, dict(self._rows)))
            self._store.submit(self._saving)

    # --- the store's file (store.Keeper) ------------------------------------------------------------------------------

    def load(self, ledger: Ledger) -> None:
        """What a Redis without a list gets."""
        self._offered = ledger.alerts()

    def refill(self, ledger: Ledger) -> None:
        self._saving = kept_writing()  # an order that failed while another worker wrote isn't tried again
        save(ledger, {row.id: row for row in self._known()})


def kept_writing() -> Writing:
    """What is in Redis already."""
    return Writing(lambda ledger: None, fate=Fate.KEPT)


def save(ledger: Ledger, rows: Mapping[str, AlertRow]) -> None:
    """Makes the ledger's alerts those in `rows`."""
    kept = {row.id: row for row in ledger.alerts()}
    for id in kept.keys() - rows.keys():
        ledger.forget_alert(id)
    for id, row in rows.items():
        if row != kept.get(id):
            ledger.keep_alert(row)
