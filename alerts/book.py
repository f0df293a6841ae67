"""The book of alerts: which there are, and what becomes of each when a live price meets it.

This file owns the alerts, the judge of each, and a thread that looks at what only time decides. It judges every live
price as it enters Pluto, on the thread that brings it, and never one that is stale, closed, dated, or simulated in a
session of real prices. It never does I/O: the store's thread writes, and announces what has been raised once that is on
the disk. Any thread may call it; one lock covers all that it has, and is held for moments only.

    put → judges of the ticker → Ring (an order to the store) → on the disk → announced
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from alerts.conditions import (
    NEVER_CALM,
    Alert,
    Calm,
    CrossJudge,
    Hit,
    Judge,
    LevelJudge,
    MoveJudge,
    StateJudge,
    judge_of,
)
from alerts.fields import Raised, alert_fields, alert_of, kept_alert, raised_fields, sentence_of
from quotes import PlutoError, Quote, State, Ticker, steady_ms
from storage.changes import is_known
from storage.intake import wall_ms
from storage.ledger import AlertRow, forget_alert, keep_alert, keep_raised, last_live_price, read_alerts
from store import NoStore, Store, StoreState
from watchlist import NotTracked

MAX_ALERTS, MAX_PER_TICKER = 1_000, 100
LOOK_EVERY_S = 0.25

log = logging.getLogger("pluto.alerts")


class TooManyAlerts(PlutoError):
    code = "too_many_alerts"


class Fate(Enum):
    """What has become of something that the store was asked to write."""

    WAITING = "waiting"
    KEPT = "kept"
    FAILED = "failed"  # for now


@dataclass(slots=True, eq=False)
class Writing:
    """An order to the store. `then` is told once whether it was kept; if it wasn't, it may still be, later."""

    write: Callable[[sqlite3.Connection], None]
    then: Callable[[bool], None] = lambda is_kept: None
    fate: Fate = Fate.WAITING

    def done(self) -> None:
        self._end(Fate.KEPT)

    def failed(self) -> None:
        self._end(Fate.FAILED)

    def _end(self, fate: Fate) -> None:
        is_first, self.fate = self.fate is Fate.WAITING, fate
        if is_first:
            self.then(fate is Fate.KEPT)


@dataclass(slots=True, eq=False)
class Watch:
    """An alert with its judge, and when it last rang, in ms since the epoch."""

    alert: Alert
    judge: Judge | StateJudge
    raised_at: int | None = None

    def row(self) -> AlertRow:
        return AlertRow(self.alert.id, alert_fields(self.alert), self.judge.armed, self.raised_at)


@dataclass(slots=True, eq=False)
class Line:
    """What is known of one ticker: its newest quote, whether there was a gap since its last live price, its alerts.

    While it stays live and between the prices of `calm`, only its `movers` have to be asked.
    """

    is_tracked: bool = False
    quote: Quote | None = None
    had_price: bool = False
    gap: bool = False
    calm: Calm = NEVER_CALM
    movers: list[Watch] = field(default_factory=list)
    watches: dict[str, Watch] = field(default_factory=dict)


class Alerts:
    """All alerts. `announce` takes what was raised, and whether it may be lost; on the store's thread.

    `clock` is in ms like `steady_ms`, `wall` in ms since the epoch.
    """

    def __init__(
        self,
        store: Store,
        announce: Callable[[Raised, bool], None],
        *,
        simulated: bool = False,
        clock: Callable[[], float] = steady_ms,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        self._store, self._announce, self._simulated = store, announce, simulated
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._lines: dict[Ticker, Line] = {}
        self._line_of: dict[str, Line] = {}  # by the alert's id, in the order of making
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    # --- making and ending --------------------------------------------------------------------------------------------

    @property
    def list(self) -> list[Alert]:
        """All alerts, in the order of their making."""
        with self._lock:
            return [line.watches[id].alert for id, line in self._line_of.items()]

    def make(self, fields: Mapping[str, Any]) -> tuple[Alert, Writing]:
        """A new alert, judged from the current price on, and its way to the disk.

        Raises NoStore, TooManyAlerts, NotTracked, InvalidAlert, InvalidTicker.
        """
        if self._store.state is StoreState.OFF:
            raise NoStore("Pluto runs with --no-store and can't keep an alert. Start it without that.")
        if self._store.is_shared:
            raise NoStore("Several web workers can't keep alerts yet. Start Pluto without --workers.")
        alert = alert_of(fields, secrets.token_hex(8), self._wall())
        with self._lock:
            line = self._lines.setdefault(alert.ticker, Line())
            if not line.is_tracked:
                raise NotTracked(alert.ticker)
            self._check_room(alert.ticker, line)
            watch = Watch(alert, judge_of(alert))
            self._put_in(line, watch)
            row = watch.row()
            writing = self._write(lambda connection: keep_alert(connection, row))
            if line.quote is not None:
                self._expire(line, self._clock())
                self._judge(line, watch, line.quote, _live_price(line.quote), self._clock(), gap=False)
        return alert, writing

    def _check_room(self, ticker: Ticker, line: Line) -> None:
        if len(self._line_of) >= MAX_ALERTS:
            raise TooManyAlerts(f"There are {MAX_ALERTS} alerts, the most allowed: delete one.")
        if len(line.watches) >= MAX_PER_TICKER:
            raise TooManyAlerts(f"{ticker} has {MAX_PER_TICKER} alerts, the most allowed: delete one.")

    def delete(self, id: str) -> Writing | None:
        """None if there is no such alert: it was deleted, or has rung or ended."""
        with self._lock:
            line = self._line_of.get(id)
            return None if line is None else self._drop(line, id)

    def _put_in(self, line: Line, watch: Watch) -> None:
        line.watches[watch.alert.id] = watch
        line.calm = NEVER_CALM
        self._line_of[watch.alert.id] = line

    def _take_out(self, line: Line, id: str) -> None:
        del line.watches[id], self._line_of[id]
        line.calm = NEVER_CALM

    def _drop(self, line: Line, id: str) -> Writing:
        self._take_out(line, id)
        return self._write(lambda connection: forget_alert(connection, id))

    def _write(
        self, write: Callable[[sqlite3.Connection], None], then: Callable[[bool], None] = lambda is_kept: None
    ) -> Writing:
        writing = Writing(write, then)
        self._store.submit(writing)
        return writing

    # --- the watchlist ------------------------------------------------------------------------------------------------

    def add(self, ticker: Ticker) -> None:
        with self._lock:
            self._lines.setdefault(ticker, Line()).is_tracked = True

    def remove(self, ticker: Ticker) -> None:
        """Its alerts stay, and are judged again when it is tracked again."""
        with self._lock:
            line = self._lines.setdefault(ticker, Line())
            line.is_tracked, line.quote, line.gap = False, None, line.had_price
            for watch in line.watches.values():
                if isinstance(watch.judge, StateJudge):
                    watch.judge.end()
            if not line.watches:
                del self._lines[ticker]

    # --- judging ------------------------------------------------------------------------------------------------------

    def put(self, quote: Quote) -> None:
        """Any thread: a quote as it enters Pluto."""
        with self._lock:
            line = self._lines.get(quote.ticker)
            if line is None or not line.is_tracked or quote.simulated != self._simulated:
                return
            now = self._clock()
            self._expire(line, now)
            self._take(line, quote.as_of(now), now)

    def _expire(self, line: Line, now: float) -> None:
        """The proof of the quote before may have run out since it came."""
        if line.quote is not None and line.quote.has_expired(now):
            self._take(line, line.quote.as_of(now), now)

    def _take(self, line: Line, quote: Quote, now: float) -> None:
        was_live = line.quote is not None and line.quote.state is State.LIVE
        line.quote, gap = quote, line.gap
        price = _live_price(quote) if line.watches else None
        if quote.state is State.LIVE:
            line.gap, line.had_price = False, line.had_price or quote.price_text is not None
        elif not is_known(quote.state):
            line.gap = line.had_price
        is_calm = was_live and not gap and price is not None and line.calm.low < price < line.calm.high
        for watch in list(line.movers if is_calm else line.watches.values()):
            self._judge(line, watch, quote, price, now, gap=gap)
        if not is_calm:
            self._calm(line)

    def _calm(self, line: Line) -> None:
        line.movers = [watch for watch in line.watches.values() if isinstance(watch.judge, MoveJudge)]
        line.calm = Calm()
        for watch in line.watches.values():
            if isinstance(watch.judge, LevelJudge | CrossJudge):
                line.calm = line.calm.within(watch.judge.calm)

    def _judge(self, line: Line, watch: Watch, quote: Quote, price: Decimal | None, now: float, *, gap: bool) -> None:
        judge, hit = watch.judge, None
        if isinstance(judge, StateJudge):
            judge.tell(quote.state, now)
        elif price is not None:
            was_armed, hit = judge.armed, judge.take(price, now, gap)
            if hit is None and judge.armed and not was_armed:
                self._keep(watch)
        if hit is not None:
            self._ring(line, watch, hit, quote)

    def _keep(self, watch: Watch) -> None:
        """What has become of an alert that repeats, so that a restart forgets nothing."""
        if watch.alert.repeat:
            row = watch.row()
            self._write(lambda connection: keep_alert(connection, row))

    def _ring(self, line: Line, watch: Watch, hit: Hit, quote: Quote) -> None:
        alert, at = watch.alert, self._wall()
        if alert.until is not None and at >= alert.until:
            self._drop(line, alert.id)
            return
        reason = f"{quote.state}: {quote.reason or 'no reason is known'}" if alert.value is None else ""
        raised = Raised(secrets.token_hex(8), alert, at, quote.price_text, hit.gap, quote.simulated, reason)
        watch.raised_at = at
        row = watch.row() if alert.repeat else None
        if row is None:
            self._take_out(line, alert.id)

        def write(connection: sqlite3.Connection) -> None:
            keep_raised(connection, raised.id, at, raised_fields(raised))
            if row is None:
                forget_alert(connection, alert.id)
            else:
                keep_alert(connection, row)

        self._write(write, lambda is_kept: self._tell(raised, is_kept))

    def _tell(self, raised: Raised, is_kept: bool) -> None:
        log.info("raised: %s, at %s", sentence_of(raised.alert), raised.price_text)
        self._announce(raised, not is_kept)

    # --- what only time decides ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:
                log.exception("a look at the alerts failed")

    def look(self) -> None:
        """Raises the alerts on states that have lasted, and drops those whose end has come."""
        with self._lock:
            now, wall = self._clock(), self._wall()
            for line in list(self._lines.values()):
                self._expire(line, now)
                for watch in list(line.watches.values()):
                    if watch.alert.until is not None and wall >= watch.alert.until:
                        self._drop(line, watch.alert.id)
                    elif isinstance(watch.judge, StateJudge) and line.quote and (hit := watch.judge.look(now)):
                        self._ring(line, watch, hit, line.quote)

    # --- the store's file ---------------------------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection) -> None:
        """The alerts from before the restart. Those that can't be read are left in the file."""
        with self._lock:
            for row in read_alerts(connection):
                try:
                    alert = kept_alert(row.fields)
                except (PlutoError, LookupError, TypeError) as error:
                    log.error("alert %s can't be read: %s", row.id, error)
                    continue
                if alert.id not in self._line_of:
                    self._restore(alert, row, last_live_price(connection, alert.ticker))

    def _restore(self, alert: Alert, row: AlertRow, last_price: str | None) -> None:
        line = self._lines.setdefault(alert.ticker, Line())
        quiet_ms = 0.0
        if row.raised_at is not None:
            quiet_ms = min(max(0.0, alert.cooldown * 1000 - (self._wall() - row.raised_at)), alert.cooldown * 1000)
        judge = judge_of(alert, armed=row.armed, quiet_until=self._clock() + quiet_ms)
        if last_price is not None:
            line.gap = line.had_price = True
            if not isinstance(judge, StateJudge):
                judge.seed(Decimal(last_price))
        self._put_in(line, Watch(alert, judge, row.raised_at))

    def refill(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            for id, line in self._line_of.items():
                keep_alert(connection, line.watches[id].row())


def _live_price(quote: Quote) -> Decimal | None:
    return Decimal(quote.price_text) if quote.state is State.LIVE and quote.price_text is not None else None
