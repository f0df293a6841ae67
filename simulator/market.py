"""One symbol's market: its price, how it moves, all that it was, and the sockets that listen.

Owns: the seeded random walk and the parts in which a change is told. Never does: speak to a socket in the protocol's
words (see quote_socket.py), know of pages or faults. Runs in the simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

import random
import time
from collections import deque
from decimal import Decimal
from typing import Any, Protocol

import gevent

from simulator.frames import as_json, as_number
from simulator.symbols import Symbol

TRUTH_LIMIT = 10_000  # changes remembered of a symbol; older ones are forgotten
CARD_RATE = 0.5  # at most so many changes a second of a symbol that only menus and cards show
VOLATILITY = 0.0002  # a step of the walk, as a part of the price
HOMING = 0.001  # how strongly the walk is drawn back to where it began


class Listener(Protocol):
    """A quote socket, as a market sees it."""

    page: Symbol | None

    def tell_update(self, symbol: Symbol, quote: str) -> None: ...


class Market:
    """One symbol's price, how it moves, all that it was, and who listens.

    Seed and symbol alone decide about the prices; how changes are cut into frames is drawn apart from them.
    """

    def __init__(self, symbol: Symbol, seed: int, rate: float) -> None:
        self.symbol = symbol
        self._rate = rate
        self._prices = random.Random(f"{seed} {symbol.name}")
        self._cuts = random.Random(f"{seed} {symbol.name} frames")
        self._changes: deque[tuple[float, str]] = deque(maxlen=TRUTH_LIMIT)
        self._listeners: set[Listener] = set()
        self._walker: gevent.Greenlet[[float], None] | None = None
        self._pace = 0.0  # changes a second at which the walker walks now
        self._open = round(symbol.home * self._prices.uniform(0.98, 1.02))
        self._last = self._high = self._low = self._open  # these four in ticks
        self._volume = round(self._cuts.uniform(1e3, 1e5), 4)
        self._move_to(symbol.home)

    def join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        self._set_pace()

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._set_pace()

    def set_rate(self, rate: float) -> None:
        self._rate = rate
        self._set_pace()

    def set_price(self, price: Decimal) -> None:
        self.set_rate(0)
        self._publish(int(price.scaleb(self.symbol.coin.decimals)))

    def truth(self) -> list[dict[str, Any]]:
        return [{"time": at, "price": price} for at, price in self._changes]

    def whole_quote(self) -> dict[str, Any]:
        symbol = self.symbol
        return {
            **self._price(),
            **self._change(),
            **self._book(),
            "volume": self._volume,
            "open_price": self._number(self._open),
            "prev_close_price": self._number(self._open),
            "high_price": self._number(self._high),
            "low_price": self._number(self._low),
            "currency_code": symbol.currency,
            "description": symbol.description,
            "exchange": symbol.exchange,
            "pricescale": 10**symbol.coin.decimals,
            "minmov": 1,
            "minmove2": 0,
            "pro_name": symbol.name,
            "short_name": symbol.ticker,
            "type": "swap" if symbol.perpetual else "spot",
            "update_mode": "streaming",
            "current_session": "market",
        }

    def _set_pace(self) -> None:
        """Walks only while someone listens, and slowly while only menus and cards do."""
        shown = any(listener.page in (None, self.symbol) for listener in self._listeners)
        pace = 0.0 if not self._listeners else self._rate if shown else min(self._rate, CARD_RATE)
        if pace == self._pace:
            return
        self._pace = pace
        if self._walker is not None:
            self._walker.kill(block=False)
        self._walker = gevent.spawn(self._walk, pace) if pace else None

    def _walk(self, pace: float) -> None:
        due = time.monotonic()
        while True:
            due += self._cuts.uniform(0.5, 1.5) / pace
            gevent.sleep(max(0, due - time.monotonic()))
            if gevent.getcurrent() is not self._walker:
                return  # its end was decided when its timer was due already
            self._step()

    def _step(self) -> None:
        """The next price of the walk: another than the last, and never far from home."""
        pull = (self.symbol.home - self._last) * HOMING
        move = round(self._prices.gauss(pull, self._last * VOLATILITY)) or self._prices.choice((-1, 1))
        self._publish(max(1, self._last + move))

    def _publish(self, price: int) -> None:
        """Truth first, then the listeners: no price is sent that `/truth` doesn't know."""
        extremes = self._move_to(price)
        for values in self._cut_into_frames(extremes):
            quote = as_json(values)
            for listener in self._listeners:
                listener.tell_update(self.symbol, quote)

    def _move_to(self, price: int) -> dict[str, Any]:
        """Books the price; returns what it changed in the day's extremes."""
        extremes: dict[str, Any] = {}
        if price > self._high:
            extremes["high_price"] = self._number(price)
        if price < self._low:
            extremes["low_price"] = self._number(price)
        self._last, self._high, self._low = price, max(self._high, price), min(self._low, price)
        self._volume = round(self._volume + self._cuts.expovariate(2), 4)
        self._changes.append((time.time() * 1000, self.symbol.price_text(price)))
        return extremes

    def _cut_into_frames(self, extremes: dict[str, Any]) -> list[dict[str, Any]]:
        """One change as the site sends it: seldom whole, mostly in parts."""
        price, change, volume = self._price() | extremes, self._change(), {"volume": self._volume}
        cuts = [
            [price | change | volume],
            [price | change],
            [volume, price | change],
            [price, change, volume],
            [self._book(), price | change],
            [price | change, self._book() | volume],
        ]
        return self._cuts.choice(cuts)

    def _price(self) -> dict[str, Any]:
        return {"lp": self._number(self._last), "lp_time": int(time.time())}

    def _change(self) -> dict[str, Any]:
        change = self._last - self._open
        return {"ch": self._number(change), "chp": as_number(round(100 * change / self._open, 2))}

    def _book(self) -> dict[str, Any]:
        """What is calculated has no order book: the site says null, which means nothing new."""
        if self.symbol.calculated:
            return {"bid": None, "ask": None}
        return {"bid": self._number(max(1, self._last - 1)), "ask": self._number(self._last + 1)}

    def _number(self, ticks: int) -> int | float:
        return as_number(Decimal(ticks).scaleb(-self.symbol.coin.decimals))
