"""The book of alerts: which there are, and what becomes of each when a live price meets it.

This file owns the alerts, the judge of each, and a thread that looks at what only time decides. It judges every live
price as it enters Pluto, on the thread that brings it, and never one that is stale, closed, dated, or simulated in a
session of real prices. It never does I/O but in `raised`: the store's thread writes, and announces what has been raised
once that is on the disk. Any thread may call it; one lock covers all that it has, and is held for moments only.

    put → judges of the ticker → Ring (an order to the store) → on the disk → announced, and in the outbox

With --redis alerts are kept there, and of all processes only one has a book at a time: see `relay.holder`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, Protocol

from alerts.conditions import (
    NEVER_CALM,
    Alert,
    Calm,
    CrossJudge,
    Hit,
    Judge,
    MoveJudge,
    StateJudge,
    Window,
    judge_of,
)
from alerts.fields import Raised, alert_fields, alert_of, kept_alert, raised_fields, replaced_by, sentence_of
from alerts.outbox import LaneFigures, Outbox
from quotes import PlutoError, Quote, State, Ticker, steady_ms, wall_ms
from storage.changes import is_known
from storage.ledger import AlertLimits, AlertRow, Ledger
from store import Keeping, NoStore
from watchlist import NotTracked

LIMITS = AlertLimits()
LOOK_EVERY_S = 0.25

log = logging.getLogger("pluto.alerts")


class TooManyAlerts(PlutoError):
    """Of the ticker; of all, without one."""

    code = "too_many_alerts"

    def __init__(self, limits: AlertLimits, ticker: Ticker | None = None) -> None:
        whose = f"There are {limits.all}" if ticker is None else f"{ticker} has {limits.of_ticker}"
        super().__init__(f"{whose} alerts, the most allowed: delete one.")


class NoSuchAlert(PlutoError):
    code = "no_such_alert"

    def __init__(self) -> None:
        super().__init__("The alert to replace is gone: it has rung, has ended or was deleted.")


class Fate(Enum):
    """What has become of something that the store was asked to write."""

    WAITING = "waiting"
    KEPT = "kept"
    FAILED = "failed"  # for now


@dataclass(slots=True, eq=False)
class Writing:
    """An order to the store. `then` is told once whether it was kept; if it wasn't, it may still be, later."""

    write: Callable[[Ledger], None]
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

    While it stays live and between the prices of `calm`, no judge has to be asked. Its `window` takes prices as long as
    one of its alerts is on moves.
    """

    is_tracked: bool = False
    quote: Quote | None = None
    last_price: str | None = None  # that was live
    gap: bool = False
    calm: Calm = NEVER_CALM
    window: Window = field(default_factory=Window)
    has_moves: bool = False
    watches: dict[str, Watch] = field(default_factory=dict)


class AlertFigures(NamedTuple):
    """How many alerts there are, and how many have rung since the start: kept at once, and not."""

    held: int
    raised_kept: int
    raised_unkept: int
    lanes: list[LaneFigures]
    lease: LeaseFigures | None = None


class LeaseFigures(NamedTuple):
    """Of several processes, one judges all alerts: whether this one does now, and how often it began to."""

    is_held: bool
    taken: int


class AlertDesk(Protocol):
    """The alerts as they are asked for: those of this process, or those that several share.

    If they are shared, the last four methods block; else only `raised` does. They raise PlutoErrors, also if the alerts
    can't be reached now.
    """

    @property
    def is_shared(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def put(self, quote: Quote) -> None: ...

    def add(self, ticker: Ticker) -> None: ...

    def remove(self, ticker: Ticker) -> None: ...

    def load(self, ledger: Ledger) -> None: ...

    def refill(self, ledger: Ledger) -> None: ...

    @property
    def figures(self) -> AlertFigures: ...

    def make(self, fields: Mapping[str, Any]) -> tuple[Alert, Writing]: ...

    def delete(self, id: str) -> Writing | None: ...

    def all(self) -> list[Alert]: ...

    def raised(self, limit: int) -> list[dict[str, Any]]: ...


class Alerts:
    """All alerts. `announce` takes what was raised, and whether it may be lost; on the store's thread.

    `clock` is in ms like `steady_ms`, `wall` in ms since the epoch.
    """

    is_shared = False

    def __init__(
        self,
        store: Keeping,
        announce: Callable[[Raised, bool], None],
        outbox: Outbox | None = None,
        *,
        simulated: bool = False,
        clock: Callable[[], float] = steady_ms,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        self._store, self._announce, self._simulated = store, announce, simulated
        self._clock, self._wall = clock, wall
        self._outbox = outbox or Outbox(store)
        self._raised: Counter[bool] = Counter()  # by whether it was kept at once
        self._lock = threading.Lock()
        self._lines: dict[Ticker, Line] = {}
        self._line_of: dict[str, Line] = {}  # by the alert's id, in the order of making
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Raises CantNotify: a notify URL can't be used."""
        self._outbox.start()
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()
        self._outbox.stop()

    @property
    def figures(self) -> AlertFigures:
        """What /metrics says of them."""
        return AlertFigures(len(self._line_of), self._raised[True], self._raised[False], self._outbox.figures)

    # --- making and ending --------------------------------------------------------------------------------------------

    def all(self) -> list[Alert]:
        """In the order of their making."""
        with self._lock:
            return [line.watches[id].alert for id, line in self._line_of.items()]

    def raised(self, limit: int) -> list[dict[str, Any]]:
        """What was raised, the newest first. It blocks. Raises HistoryUnreadable."""
        return [] if self._store.is_off else self._store.read(lambda ledger: ledger.raised(limit))

    def make(self, fields: Mapping[str, Any]) -> tuple[Alert, Writing]:
        """A new alert, judged from the current price on, and its way to the disk. The one that it replaces is deleted.

        Raises NoStore, TooManyAlerts, NoSuchAlert, NotTracked, InvalidAlert, InvalidTicker.
        """
        if self._store.is_off:
            raise NoStore("Pluto runs with --no-store and can't keep an alert. Start it without that.")
        replaces, fields = replaced_by(fields)
        alert = alert_of(fields, secrets.token_hex(8), self._wall())
        row = new_row(alert)
        with self._lock:
            line = self._lines.get(alert.ticker)
            if line is None or not line.is_tracked:
                raise NotTracked(alert.ticker)
            if replaces and replaces not in self._line_of:
                raise NoSuchAlert
            all_others, others = len(self._line_of) - bool(replaces), len(line.watches) - (replaces in line.watches)
            _check_room(all_others, others, alert.ticker)
            if replaces:
                self._take_out(self._line_of[replaces], replaces)
            writing = self._write(lambda ledger: _put_in_place(ledger, row, replaces))
            self._begin(line, alert, row)
        return alert, writing

    def adopt(self, row: AlertRow) -> None:
        """Another process has made the alert and kept it: judges it from the current price on, unless it is known."""
        alert = kept_alert(row.fields)
        with self._lock:
            if alert.id not in self._line_of:
                self._begin(self._lines.setdefault(alert.ticker, Line()), alert, row)

    def forget(self, id: str) -> None:
        """Another process has deleted the alert, here and where it was kept."""
        with self._lock:
            if (line := self._line_of.get(id)) is not None:
                self._take_out(line, id)

    def _begin(self, line: Line, alert: Alert, row: AlertRow) -> None:
        now = self._clock()
        self._expire(line, now)
        price = None if line.quote is None else _live_price(line.quote)
        if price is not None and not line.has_moves:
            line.window.take(price, now, False)
        begin = line.window.number + (price is None)
        watch = Watch(alert, judge_of(alert, line.window, begin=begin, armed=row.armed), row.raised_at)
        self._put_in(line, watch)
        if line.quote is not None:
            self._judge(line, watch, line.quote, price, now, gap=False)

    def delete(self, id: str) -> Writing | None:
        """None if there is no such alert: it was deleted, or has rung or ended."""
        with self._lock:
            line = self._line_of.get(id)
            return None if line is None else self._drop(line, id)

    def _put_in(self, line: Line, watch: Watch) -> None:
        line.watches[watch.alert.id] = watch
        self._has_changed(line)
        self._line_of[watch.alert.id] = line

    def _take_out(self, line: Line, id: str) -> None:
        del line.watches[id], self._line_of[id]
        self._has_changed(line)

    def _has_changed(self, line: Line) -> None:
        """Its alerts have."""
        line.calm = NEVER_CALM
        line.has_moves = any(isinstance(watch.judge, MoveJudge) for watch in line.watches.values())
        if not line.has_moves:
            line.window = Window()

    def _drop(self, line: Line, id: str) -> Writing:
        self._take_out(line, id)
        return self._write(lambda ledger: ledger.forget_alert(id))

    def _write(self, write: Callable[[Ledger], None], then: Callable[[bool], None] = lambda is_kept: None) -> Writing:
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
            line.is_tracked, line.quote, line.gap = False, None, line.last_price is not None
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
            line.gap, line.last_price = False, quote.price_text or line.last_price
        elif not is_known(quote.state):
            line.gap = line.last_price is not None
        if price is not None and line.has_moves:
            line.window.take(price, now, gap)
        quiet_price = price if was_live and not gap else None
        if quiet_price is not None and line.calm.has(quiet_price):
            return
        for watch in list(line.watches.values()):
            if quiet_price is None or not watch.judge.calm.has(quiet_price):
                self._judge(line, watch, quote, price, now, gap=gap)
        calms = [watch.judge.calm for watch in line.watches.values()]
        line.calm = Calm(max(calm.low for calm in calms), min(calm.high for calm in calms)) if calms else Calm()

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
            self._write(lambda ledger: ledger.keep_alert(row))

    def _ring(self, line: Line, watch: Watch, hit: Hit, quote: Quote) -> None:
        alert, at = watch.alert, self._wall()
        if alert.until is not None and at >= alert.until:
            self._drop(line, alert.id)
            return
        reason = f"{quote.state}: {quote.reason or 'no reason is known'}" if alert.value is None else ""
        met = quote.price_text, hit.gap, quote.simulated, reason, quote.currency
        raised = Raised(secrets.token_hex(8), alert, at, *met)
        watch.raised_at = at
        row = watch.row() if alert.repeat else None
        if row is None:
            self._take_out(line, alert.id)

        def write(ledger: Ledger) -> None:
            self._outbox.keep(ledger, raised_fields(raised))
            if row is None:
                ledger.forget_alert(alert.id)
            else:
                ledger.keep_alert(row)

        self._write(write, lambda is_kept: self._tell(raised, is_kept))

    def _tell(self, raised: Raised, is_kept: bool) -> None:
        log.info("raised: %s, at %s", sentence_of(raised.alert), raised.price_text)
        self._raised[is_kept] += 1
        self._announce(raised, not is_kept)
        self._outbox.put(raised_fields(raised), not is_kept)

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

    def load(self, ledger: Ledger) -> None:
        """The alerts from before the restart. Those that can't be read are left in the file."""
        self._outbox.load(ledger)
        with self._lock:
            for row in ledger.alerts():
                alert = _read_alert(row)
                if alert is not None and alert.id not in self._line_of:
                    self._restore(alert, row, ledger.last_live_price(alert.ticker))

    def _restore(self, alert: Alert, row: AlertRow, last_price: str | None) -> None:
        line = self._lines.setdefault(alert.ticker, Line())
        quiet_ms = 0.0
        if row.raised_at is not None:
            quiet_ms = min(max(0.0, alert.cooldown * 1000 - (self._wall() - row.raised_at)), alert.cooldown * 1000)
        judge = judge_of(alert, line.window, armed=row.armed, quiet_until=self._clock() + quiet_ms)
        if last_price is not None:
            line.gap, line.last_price = True, last_price
            if isinstance(judge, CrossJudge):
                judge.seed(Decimal(last_price))
            elif isinstance(judge, MoveJudge):
                line.window.take(Decimal(last_price), self._clock(), False)
        self._put_in(line, Watch(alert, judge, row.raised_at))

    def last_prices(self) -> dict[Ticker, str]:
        """The last live price of each ticker that has alerts."""
        with self._lock:
            return {
                ticker: line.last_price
                for ticker, line in self._lines.items()
                if line.watches and line.last_price is not None
            }

    def refill(self, ledger: Ledger) -> None:
        with self._lock:
            for id, line in self._line_of.items():
                ledger.keep_alert(line.watches[id].row())
        self._outbox.refill(ledger)


def new_row(alert: Alert) -> AlertRow:
    """An alert that was just made."""
    return AlertRow(alert.id, alert_fields(alert), armed=True, raised_at=None)


def _check_room(all: int, of_ticker: int, ticker: Ticker) -> None:
    """Whether there is room beside so many alerts. Raises TooManyAlerts."""
    if all >= LIMITS.all:
        raise TooManyAlerts(LIMITS)
    if of_ticker >= LIMITS.of_ticker:
        raise TooManyAlerts(LIMITS, ticker)


def _put_in_place(ledger: Ledger, row: AlertRow, replaces: str) -> None:
    if replaces:
        ledger.forget_alert(replaces)
    ledger.keep_alert(row)


def _read_alert(row: AlertRow) -> Alert | None:
    """None if it can't be read."""
    try:
        return kept_alert(row.fields)
    except (PlutoError, LookupError, TypeError) as error:
        log.error("alert %s can't be read: %s", row.id, error)
        return None


def _live_price(quote: Quote) -> Decimal | None:
    return Decimal(quote.price_text) if quote.state is State.LIVE and quote.price_text is not None else None
