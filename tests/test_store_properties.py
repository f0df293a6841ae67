"""Whatever happens to a store: it holds a prefix of what was shown, and its candles are those of its changes."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import BTC, ETH, changes, plain_candles

from quotes import Quote, Source, State, Ticker
from storage.candles import HOUR, INTERVALS, MINUTE, SECOND, Candle
from storage.changes import Change
from storage.file import StoreFile
from storage.history import Cursor, History, Range
from storage.intake import Batch, Intake
from storage.retention import Keep, Retention

START = 1_795_000_000_000
WIDTHS = [INTERVALS[name] for name in ("1s", "1m", "15m", "4h")]
DAY = 24 * HOUR
Told = tuple[State | None, str | None]

tickers = st.sampled_from([BTC, ETH])
prices = st.sampled_from(["1", "1.0", "0.5", "0.00000812", "12", "9.99"])
states = st.sampled_from([State.LIVE, State.LIVE, State.LIVE, State.STALE, State.CLOSED, State.ERROR])
steps = st.sampled_from([0, 1, 400, SECOND, 20 * SECOND, MINUTE, 7 * MINUTE, HOUR, 5 * HOUR, DAY, -HOUR, -3 * SECOND])
ages = st.floats(0.0001, 2)  # days
events = st.one_of(
    st.tuples(st.just("put"), tickers, states, prices, steps),
    st.tuples(st.just("put"), tickers, states, prices, st.sampled_from([0, 1, 400, SECOND])),
    st.tuples(st.just("put"), st.just(BTC), st.just(State.LIVE), prices, steps),
    st.tuples(st.sampled_from(["remove", "add"]), tickers),
    st.tuples(st.sampled_from(["write", "kill", "restart"])),
)


@dataclass
class World:
    """A store without its thread, and what was shown since it was last sure to be written."""

    path: Path
    now: int = START
    written: dict[Ticker, list[Told]] = field(default_factory=lambda: {BTC: [], ETH: []})
    waiting: dict[Ticker, list[Told]] = field(default_factory=lambda: {BTC: [], ETH: []})
    tracked: set[Ticker] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.intake = Intake(clock=lambda: 0.0, wall=lambda: self.now)
        self.file = StoreFile(self.path, 1.0)
        self.file.connection.execute("PRAGMA synchronous = OFF")  # no power cut here
        assert set(self.file.watchlist()) == self.tracked
        self.file.write(Batch({}, self.file.end_all(self.file.alive_at)), self.now)
        for told in self.written.values():
            if told and told[-1][0] is not None:
                told.append((None, None))
        for ticker in self.tracked or {BTC, ETH}:
            self.add(ticker)
        self.write()

    def add(self, ticker: Ticker) -> None:
        """The watchlist tells this only of a ticker that is new to it."""
        if ticker not in self.intake._newest:
            self.tracked.add(ticker)
            self.intake.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        if self._last(ticker)[0] is not None:
            self.waiting[ticker].append((None, None))
        self.tracked.discard(ticker)
        self.intake.remove(ticker)

    def put(self, ticker: Ticker, state: State, price: str, step: int) -> None:
        self.now += step
        self.intake.put(Quote(ticker, state, price, None, self.now - 5, Source.DOM, proven_until=math.inf))
        if ticker in self.tracked and self._last(ticker) != (state, price):
            self.waiting[ticker].append((state, price))

    def _last(self, ticker: Ticker) -> Told:
        return [(None, None), *self.written[ticker], *self.waiting[ticker]][-1]

    def write(self) -> None:
        self.file.write(self.intake.take(), self.now)
        for ticker, told in self.waiting.items():
            self.written[ticker] += told
            told.clear()

    def kill(self) -> None:
        """What was not written is lost; the watchlist is written at once, as the store does."""
        self.file.write(Batch(self.intake.take().tracked, []), self.now)
        self.file.close()
        for told in self.waiting.values():
            told.clear()
        self.begin()

    def restart(self) -> None:
        self.write()
        self.file.write(Batch({}, self.file.end_all(self.now)), self.now)
        self.file.close()
        self.begin()


def all_candles(history: History, ticker: Ticker, width: int, limit: int, *, is_forward: bool) -> list[Candle]:
    """All of them, page by page."""
    found: list[Candle] = []
    cursor: Cursor | None = None
    while True:
        page = history.candles(ticker, width, Range(limit, 0 if is_forward else None, None, cursor))
        assert page is not None
        assert len(page.items) <= limit
        found = [*found, *page.items] if is_forward else [*page.items, *found]
        if (cursor := page.next) is None:
            return found


def all_changes(history: History, ticker: Ticker, limit: int, *, is_forward: bool) -> list[Change]:
    found: list[Change] = []
    cursor: Cursor | None = None
    while True:
        page = history.changes(ticker, Range(limit, 0 if is_forward else None, None, cursor))
        assert page is not None
        found = [*found, *page.items] if is_forward else [*page.items, *found]
        if (cursor := page.next) is None:
            return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(events, min_size=15, max_size=40),
    st.integers(1, 3),
    st.booleans(),
    st.floats(0.0001, 2),
    st.floats(0.05, 2),
)
def test_nothing_is_invented_and_candles_are_those_of_the_changes(
    happened: list[tuple[object, ...]], limit: int, is_forward: bool, keep_changes: float, keep_minutes: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "pluto.db")
        for name, *more in happened:
            getattr(world, str(name))(*more)
        world.write()
        history = History(world.path, 1.0)
        before = {ticker: changes(world.path, ticker) for ticker in (BTC, ETH)}
        for ticker, found in before.items():
            assert [(change.state, change.price_text) for change in found] == world.written[ticker]
            assert all_changes(history, ticker, limit, is_forward=is_forward) == found
            for width in WIDTHS:
                kept = all_candles(history, ticker, width, limit, is_forward=is_forward)
                assert kept == plain_candles(found, width), width
        trim(world, Keep(keep_changes, keep_minutes))
        for ticker, found in before.items():
            still = changes(world.path, ticker)
            assert still == found[len(found) - len(still) :], "only the oldest go"
            oldest_kept = world.now - keep_changes * DAY
            assert len([change for change in found if change.at >= oldest_kept]) <= len(still)
            check_after_trimming(history, ticker, found, still, world.now - keep_minutes * DAY)
        world.file.close()


def trim(world: World, keep: Keep) -> None:
    retention = Retention(world.file.connection, keep)
    while retention.is_due(world.now):
        with world.file.transaction():
            retention.step(world.now)


def check_after_trimming(
    history: History, ticker: Ticker, found: list[Change], still: list[Change], oldest_minute: float
) -> None:
    """Every candle that is left is the one it was, and only old ones are gone."""
    for width in WIDTHS:
        left, all_of_it = all_candles(history, ticker, width, 5, is_forward=True), plain_candles(found, width)
        assert left == all_of_it[len(all_of_it) - len(left) :]
        if width >= HOUR:
            assert left == all_of_it
        elif width > SECOND:
            assert len(left) >= len([candle for candle in all_of_it if candle.start >= oldest_minute])
        elif still:
            assert len(left) == len(plain_candles(still, width))
