"""Alerts: what one watches for, and whether a live price meets it.

This file owns the conditions. It does no I/O, reads no clock and keeps nothing but what a condition must know of the
prices before: pure classes, for any thread, one thread at a time.

Prices are exact decimals and are compared exactly. Times are in ms of a clock that never jumps.

    above, below  meets each price at or beyond the level; armed again once the price is back by the hysteresis
    crosses       needs a price on each side of the level; one at the level is on neither
    moves         by so many percent from any price that was true within the time
    state         the ticker is stale, blocked or in error for longer than the time
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, Protocol

from quotes import State, Ticker

MAX_WINDOW = 1_000  # prices of a ticker that are kept each way for `moves`; beyond that every second one goes
INFINITE = Decimal("Infinity")
MAX_WAITING = 100  # prices of a ticker
EXACT = Context(prec=100)  # more digits than any product of a price and a percentage has
TROUBLED = {State.STALE, State.BLOCKED, State.ERROR}
WELL = {State.LIVE, State.CLOSED}


class Condition(StrEnum):
    ABOVE = "above"
    BELOW = "below"
    CROSSES = "crosses"
    MOVES = "moves"
    STATE = "state"


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Alert:
    """What someone watches for.

    `value` is the level, or the percentage of `moves`; None for `state`. `within` is in seconds: the time of `moves`,
    and how long `state` must last. `cooldown`, in seconds, is the least time between two rings of one that repeats.
    `hysteresis` is in percent of the level. `until` is in ms since the epoch; None: for ever.
    """

    id: str
    ticker: Ticker
    condition: Condition
    value: Decimal | None = None
    direction: Direction = Direction.BOTH
    within: int = 0
    repeat: bool = False
    cooldown: int = 300
    hysteresis: Decimal = Decimal("0.1")
    across_gaps: bool = False
    until: int | None = None
    note: str = ""

    @property
    def level(self) -> Decimal:
        assert self.value is not None
        return self.value


@dataclass(frozen=True, slots=True)
class Hit:
    """A price met the condition. `gap`: for some time before it, the price was not known."""

    gap: bool = False


class Calm(NamedTuple):
    """Between these prices, neither included, the next live price without a gap changes nothing, whenever it comes."""

    low: Decimal = -INFINITE
    high: Decimal = INFINITE

    def has(self, price: Decimal) -> bool:
        return self.low < price < self.high


NEVER_CALM = Calm(Decimal(0), Decimal(0))


class Judge(Protocol):
    """Judges one alert on each live price. `gap`: since the price before, the price was not known for some time."""

    armed: bool

    @property
    def calm(self) -> Calm: ...

    def take(self, price: Decimal, now: float, gap: bool) -> Hit | None: ...


class Cooldown:
    """Keeps a repeating alert quiet for a time after it rang."""

    def __init__(self, seconds: float, until: float = 0.0) -> None:
        self._ms, self._until = seconds * 1000, until

    def is_over(self, now: float) -> bool:
        return now >= self._until

    def begin(self, now: float) -> None:
        self._until = now + self._ms


class LevelJudge:
    """`above` and `below`. It isn't armed from its ring until the price is back beyond the hysteresis."""

    def __init__(self, alert: Alert, cooldown: Cooldown, *, armed: bool = True) -> None:
        level, band = alert.level, band_of(alert)
        self._is_above, self._level, self._cooldown = alert.condition is Condition.ABOVE, level, cooldown
        self._back = EXACT.subtract(level, band) if self._is_above else EXACT.add(level, band)
        self.armed = armed

    @property
    def calm(self) -> Calm:
        if self.armed:
            return Calm(high=self._level) if self._is_above else Calm(low=self._level)
        return Calm(low=self._back) if self._is_above else Calm(high=self._back)

    def take(self, price: Decimal, now: float, gap: bool) -> Hit | None:
        is_met = price >= self._level if self._is_above else price <= self._level
        if not is_met:
            if not self.armed:
                self.armed = price <= self._back if self._is_above else price >= self._back
            return None
        if not self.armed or not self._cooldown.is_over(now):
            return None
        self.armed = False
        self._cooldown.begin(now)
        return Hit(gap)


class CrossJudge:
    """`crosses`. After a crossing, prices within the hysteresis can't cross back until one was beyond it."""

    def __init__(self, alert: Alert, cooldown: Cooldown) -> None:
        level, band = alert.level, band_of(alert)
        self._level, self._low, self._high = level, EXACT.subtract(level, band), EXACT.add(level, band)
        self._directions = directions_of(alert)
        self._across_gaps, self._cooldown = alert.across_gaps, cooldown
        self._side: Direction | None = None
        self._had_gap = False  # since the price that gave the side
        self.armed = True

    @property
    def calm(self) -> Calm:
        if self._side is None or self._had_gap:
            return NEVER_CALM
        if self._side is Direction.UP:
            return Calm(low=self._level) if self.armed else Calm(self._level, self._high)
        return Calm(high=self._level) if self.armed else Calm(self._low, self._level)

    def seed(self, price: Decimal) -> None:
        """The last live price of before the restart."""
        if self._across_gaps:
            self._side = self._side_of(price)

    def take(self, price: Decimal, now: float, gap: bool) -> Hit | None:
        if gap and not self._across_gaps:
            self._side, self.armed = None, True
        self._had_gap = self._side is not None and (self._had_gap or gap)
        side = self._side_of(price)
        if side is None:
            return None
        before, is_far = self._side, not self._low < price < self._high
        if side is before or before is None:
            self._side, self._had_gap = side, False
            self.armed = self.armed or is_far
            return None
        if not (self.armed or is_far):
            return None
        hit = Hit(self._had_gap)
        self._side, self.armed, self._had_gap = side, is_far, False
        if side not in self._directions or not self._cooldown.is_over(now):
            return None
        self._cooldown.begin(now)
        return hit

    def _side_of(self, price: Decimal) -> Direction | None:
        if price == self._level:
            return None
        return Direction.UP if price > self._level else Direction.DOWN


class Past(NamedTuple):
    """A price that was true until a time in ms. `number` grows with each price of its ticker."""

    ended_at: float
    number: int
    price: Decimal


class Window:
    """The prices of one ticker, for all its `moves`: the newest, and the extremes of those before it.

    `number` is that of the newest. `gap_at` is when a gap ended last, and `gap_number` the first price after it.
    """

    def __init__(self) -> None:
        self.number, self.gap_number, self.gap_at = 0, 0, 0.0
        self._last: Decimal | None = None
        self._waiting: list[Past] = []  # to be looked at together: most prices are never asked for
        self._lows: list[Past] = []
        self._highs: list[Past] = []

    def take(self, price: Decimal, now: float, gap: bool) -> None:
        """Any live price, or the last one of before the restart."""
        last = self._last
        if price == last and not gap:
            return
        if last is not None:
            self._waiting.append(Past(now, self.number, last))
            if len(self._waiting) >= MAX_WAITING:
                self._settle()
        self.number, self._last = self.number + 1, price
        if gap:
            self.gap_number, self.gap_at = self.number, now

    def extremes(self) -> tuple[list[Past], list[Past]]:
        """Lows and highs: each begins with the most extreme, and leaves out what a later one outdoes.

        They are bounded: of very many they forget some.
        """
        if self._waiting:
            self._settle()
        return self._lows, self._highs

    def _settle(self) -> None:
        lows, highs = self._lows, self._highs
        for past in self._waiting:
            while lows and lows[-1].price >= past.price:
                lows.pop()
            while highs and highs[-1].price <= past.price:
                highs.pop()
            for kept in (lows, highs):
                if len(kept) >= MAX_WINDOW:
                    del kept[1::2]
                kept.append(past)
        self._waiting.clear()


def first_since(kept: list[Past], at: float, begin: int) -> Decimal | None:
    """The first price of these that ended at `at` or later, and has the number `begin` or a higher one."""
    place = max(bisect_left(kept, at, key=attrgetter("ended_at")), bisect_left(kept, begin, key=attrgetter("number")))
    return kept[place].price if place < len(kept) else None


class MoveJudge:
    """`moves`. It compares with every price that was true within the time, and begins afresh when it rings.

    The ticker's `window` has each price before this judge is asked. `begin` is the first price that counts.
    """

    def __init__(self, alert: Alert, cooldown: Cooldown, window: Window, begin: int) -> None:
        self._within, self._cooldown, self._across_gaps = alert.within * 1000, cooldown, alert.across_gaps
        part, directions = EXACT.divide(alert.level, Decimal(100)), directions_of(alert)
        self._rise = EXACT.add(Decimal(1), part) if Direction.UP in directions else None
        self._fall = EXACT.subtract(Decimal(1), part) if Direction.DOWN in directions else None
        self._window, self._begin = window, begin
        self.calm = NEVER_CALM
        self.armed = True

    def take(self, price: Decimal, now: float, gap: bool) -> Hit | None:
        window, since = self._window, now - self._within
        if gap and not self._across_gaps:
            self._begin = window.number
        low, high = (first_since(kept, since, self._begin) for kept in window.extremes())
        has_moved = low is not None and high is not None and not self._ceiling(low) > price > self._floor(high)
        if not has_moved or not self._cooldown.is_over(now):
            self._calm_between(price if low is None else min(price, low), price if high is None else max(price, high))
            return None
        hit = Hit(window.gap_number > self._begin and window.gap_at >= since)
        self._begin = window.number
        self._cooldown.begin(now)
        self._calm_between(price, price)
        return hit

    def _ceiling(self, low: Decimal) -> Decimal:
        return INFINITE if self._rise is None else EXACT.multiply(low, self._rise)

    def _floor(self, high: Decimal) -> Decimal:
        return -INFINITE if self._fall is None else EXACT.multiply(high, self._fall)

    def _calm_between(self, low: Decimal, high: Decimal) -> None:
        """A price between the extremes moves neither, and one that leaves the window later only widens the bounds."""
        lowest = -INFINITE if self._rise is None else low
        highest = INFINITE if self._fall is None else high
        self.calm = Calm(max(lowest, self._floor(high)), min(highest, self._ceiling(low)))


class StateJudge:
    """`state`: in trouble for longer than the time. Only a current price ends a trouble: a new try doesn't."""

    def __init__(self, alert: Alert, cooldown: Cooldown) -> None:
        self._ms, self._cooldown = alert.within * 1000, cooldown
        self._since: float | None = None
        self.calm = Calm()
        self.armed = True

    def tell(self, state: State, now: float) -> None:
        """The ticker's state from `now` on."""
        if state in WELL:
            self._since, self.armed = None, True
        elif state in TROUBLED and self._since is None:
            self._since = now

    def end(self) -> None:
        """The ticker is no longer tracked."""
        self._since, self.armed = None, True

    def look(self, now: float) -> Hit | None:
        if self._since is None or not self.armed or now - self._since <= self._ms or not self._cooldown.is_over(now):
            return None
        self.armed = False
        self._cooldown.begin(now)
        return Hit()


def judge_of(
    alert: Alert, window: Window, *, begin: int = 0, armed: bool = True, quiet_until: float = 0.0
) -> Judge | StateJudge:
    """`window` and `begin` are those of MoveJudge. `armed` and `quiet_until` are from before a restart: the first only
    counts for a level.
    """
    cooldown = Cooldown(alert.cooldown, quiet_until)
    if alert.condition in (Condition.ABOVE, Condition.BELOW):
        return LevelJudge(alert, cooldown, armed=armed)
    if alert.condition is Condition.CROSSES:
        return CrossJudge(alert, cooldown)
    if alert.condition is Condition.MOVES:
        return MoveJudge(alert, cooldown, window, begin)
    return StateJudge(alert, cooldown)


def band_of(alert: Alert) -> Decimal:
    """The hysteresis in units of the price."""
    return EXACT.divide(EXACT.multiply(alert.level, alert.hysteresis), Decimal(100))


def directions_of(alert: Alert) -> tuple[Direction, ...]:
    return (Direction.UP, Direction.DOWN) if alert.direction is Direction.BOTH else (alert.direction,)
