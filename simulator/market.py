"""One symbol's market: its price, how it moves, its history, and the sockets that listen.

Owns: the seeded random walk, the quote's fields, and how a change is split into frames. Never does: speak the socket's
protocol (quote_socket.py does), know pages. Runs in the simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import gevent

from simulator.frames import as_number, verbatim
from simulator.paces import Lively, Pace
from simulator.scale import Scale
from simulator.symbols import Symbol

TRUTH_LIMIT = 10_000  # changes kept per symbol
CARD_RATE = 0.5  # most changes a second of a symbol that only menus and cards show
VOLATILITY = 0.0002  # a step of the walk, as a fraction of the price
HOMING = 0.001  # a step's pull back to the start, as a fraction of the distance

Values = dict[str, Any]  # fields of a quote


class Listener(Protocol):
    """What a market needs of a quote socket."""

    page: Symbol | None

    def tell_update(self, symbol: Symbol, values: Values) -> None: ...


@dataclass(frozen=True)
class Condition:
    """The effect of faults on a market."""

    fields: Mapping[str, Any] = field(default_factory=dict)  # override the quote's own
    halted_for: float = 0  # seconds since the last trade; 0: the market goes on
    time_shift: float = 0  # seconds by which the exchange's clock is ahead
    extended: bool = False  # only the price outside regular hours moves


class Market:
    """One symbol's price, how it moves, its history, and its listeners.

    Prices are whole numbers, in units of 1 / pricescale. They depend on seed and symbol only: all other chance comes
    from a second random generator.
    """

    def __init__(self, symbol: Symbol, seed: int, pace: Pace | None) -> None:
        self.symbol = symbol
        self.scale = symbol.scale
        self.overrides: Values = {}  # fields set by the control /fields
        self.condition = Condition()
        self._wanted_pace = pace
        self._prices = random.Random(f"{seed} {symbol.name}")
        self._cuts = random.Random(f"{seed} {symbol.name} frames")
        self._changes: deque[tuple[float, str]] = deque(maxlen=TRUTH_LIMIT)
        self._listeners: set[Listener] = set()
        self._walker: gevent.Greenlet[[Pace], None] | None = None
        self._pace: Pace | None = None  # the walker's current pace
        self._home = self._units(symbol.home)
        self._open = round(self._home * self._prices.uniform(0.98, 1.02))
        self._last = self._high = self._low = self._open
        self._exact = ""  # the last price's digits, if the control /number set it
        self._outside = 0  # the price outside regular hours; 0: none
        self._volume = round(self._cuts.uniform(1e3, 1e5), 4)
        self._traded_at = time.time()
        self._move_to(self._home)

    # ---- Listeners and controls ------------------------------------------------------------------

    def join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        self._set_pace()

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._set_pace()

    def set_pace(self, pace: Pace | None) -> None:
        """None: the price stands still."""
        self._wanted_pace = pace
        self._set_pace()

    def set_price(self, price: Decimal) -> None:
        self.set_pace(None)
        self._publish(self._units(price))

    def set_number(self, number: str) -> None:
        """Sets the price to exactly this JSON number, ignoring ticks."""
        self.set_pace(None)
        self._publish(max(1, self._units(Decimal(number))), number)

    def play(self, changes: Sequence[tuple[float, Decimal]]) -> None:
        """Changes the price at recorded times, in seconds from now; then it stands still."""
        self.set_pace(None)
        for seconds, price in changes:
            gevent.spawn_later(seconds, self.set_price, price)

    def set_scale(self, scale: Scale) -> None:
        """Changes the ticks, and rounds all prices to them."""
        factor = Decimal(scale.pricescale) / self.scale.pricescale
        self.scale = scale
        for name in ("_home", "_open", "_last", "_high", "_low"):
            setattr(self, name, max(1, round(getattr(self, name) * factor)))

    def suffer(self, condition: Condition) -> None:
        if condition.halted_for and condition != self.condition:
            self._traded_at = time.time() - condition.halted_for
        self.condition = condition
        self._outside = self._last if condition.extended else 0
        self._set_pace()

    def truth(self) -> list[dict[str, Any]]:
        return [{"time": at, "price": price} for at, price in self._changes]

    def record(self, number: float) -> None:
        """Adds a price to the history, rounded as the page prints it, in plain decimals."""
        self._changes.append((time.time() * 1000, self.scale.text(self.scale.rounded(number))))

    # ---- The quote -------------------------------------------------------------------------------

    def whole_quote(self) -> Values:
        symbol = self.symbol
        return self._as_faults_have_it(
            {
                **self._price(),
                **self._change(),
                **self._outside_hours(),
                "volume": self._volume,
                "open_price": self._number(self._open),
                "prev_close_price": self._number(self._open),
                "high_price": self._number(self._high),
                "low_price": self._number(self._low),
                "currency_code": symbol.currency,
                "currency_id": symbol.currency_id,
                "description": symbol.description,
                "exchange": symbol.exchange,
                "pricescale": self.scale.pricescale,
                "minmov": self.scale.minmov,
                "minmove2": 0,
                "variable_tick_size": self.scale.variable_tick_size,
                "fractional": False,
                "is_tradable": False,
                "pro_name": symbol.name,
                "short_name": symbol.ticker,
                "type": symbol.kind,
                "typespecs": list(symbol.typespecs),
                "session": symbol.session,
                "update_mode": "streaming",
                "current_session": "market",
            }
        )

    def book(self) -> Values:
        """Bid and ask. A calculated pair has no order book: the site sends null, which changes nothing."""
        if self.symbol.calculated:
            return {"bid": None, "ask": None}
        return {"bid": self._number(max(1, self._last - 1)), "ask": self._number(self._last + 1)}

    def _price(self) -> Values:
        lp = verbatim(self._exact) if self._exact else self._number(self._last)
        return {"lp": lp, "lp_time": int(self._traded_at + self.condition.time_shift)}

    def _change(self) -> Values:
        change = self._last - self._open
        return {"ch": self._number(change), "chp": as_number(round(100 * change / self._open, 2))}

    def _outside_hours(self) -> Values:
        if not self._outside:
            return {"rtc": None, "rch": None, "rchp": None, "rtc_time": None}
        change = self._outside - self._last
        return {
            "rtc": self._number(self._outside),
            "rch": self._number(change),
            "rchp": as_number(round(100 * change / self._last, 2)),
            "rtc_time": int(time.time() + self.condition.time_shift),
        }

    def _as_faults_have_it(self, values: Values, whole: bool = True) -> Values:
        """The values with the overrides of faults and of /fields; None removes a field."""
        others = {**self.condition.fields, **self.overrides}
        values |= others if whole else {name: others[name] for name in values.keys() & others.keys()}
        return {name: value for name, value in values.items() if name not in others or value is not None}

    def _number(self, units: int) -> int | float:
        return as_number(Decimal(units).scaleb(-self.scale.decimals))

    def _units(self, price: Decimal) -> int:
        return round(price.scaleb(self.scale.decimals))

    # ---- The walk --------------------------------------------------------------------------------

    def _set_pace(self) -> None:
        """Moves the price only while a socket listens, and slowly while only menus and cards show it."""
        shown = any(listener.page in (None, self.symbol) for listener in self._listeners)
        pace = self._wanted_pace if self._listeners and not self.condition.halted_for else None
        if isinstance(pace, Lively) and not shown:
            pace = Lively(min(pace.rate, CARD_RATE))
        if pace == self._pace:
            return
        self._pace = pace
        if self._walker is not None:
            self._walker.kill(block=False)
        self._walker = gevent.spawn(self._walk, pace) if pace else None

    def _walk(self, pace: Pace) -> None:
        due = time.monotonic()
        while True:
            due += pace.gap(self._cuts)
            gevent.sleep(max(0, due - time.monotonic()))
            if gevent.getcurrent() is not self._walker:
                return  # it was killed when its timer was already due
            self._step()

    def _step(self) -> None:
        """Moves to the next price: always a different one, never far from the start."""
        price = self._outside or self._last
        tick = self.scale.tick(float(self._number(price)))
        pull = (self._home - price) * HOMING
        ticks = round(self._prices.gauss(pull, price * VOLATILITY) / tick) or self._prices.choice((-1, 1))
        price = max(tick, (price // tick + ticks) * tick)
        if self._outside:
            self._outside = price
            self._tell([self._outside_hours()])
        else:
            self._publish(price)

    def _publish(self, price: int, exact: str = "") -> None:
        """Records the price, then tells the listeners: so `/truth` has every price that is sent."""
        self._tell(self._cut_into_frames(self._move_to(price, exact)))

    def _tell(self, parts: list[Values]) -> None:
        for values in parts:
            told = self._as_faults_have_it(values, whole=False)
            for listener in list(self._listeners):
                listener.tell_update(self.symbol, told)

    def _move_to(self, price: int, exact: str = "") -> Values:
        """Records the price. Returns the day's extremes that it changed."""
        extremes: Values = {}
        if price > self._high:
            extremes["high_price"] = self._number(price)
        if price < self._low:
            extremes["low_price"] = self._number(price)
        self._last, self._high, self._low = price, max(self._high, price), min(self._low, price)
        self._exact = exact
        self._volume = round(self._volume + self._cuts.expovariate(2), 4)
        self._traded_at = time.time()
        self.record(float(exact or self._number(price)))
        return extremes

    def _cut_into_frames(self, extremes: Values) -> list[Values]:
        """Splits a change as the site does: seldom whole, mostly in parts."""
        price, change, volume = self._price() | extremes, self._change(), {"volume": self._volume}
        cuts = [
            [price | change | volume],
            [price | change],
            [volume, price | change],
            [price, change, volume],
            [self.book(), price | change],
            [price | change, self.book() | volume],
        ]
        return self._cuts.choice(cuts)
