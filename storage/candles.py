"""Candles: what a ticker's changes within a stretch of time amount to.

This file owns how changes become candles, and small candles larger ones. It never does I/O: any thread may use it.
The minutes and the hours are kept in the file; all other candles are made of those or of changes when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from quotes import State
from storage.changes import Change, is_known

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000  # ms
LEVELS = (MINUTE, HOUR)  # the candles that a file keeps
INTERVALS = {
    "1s": SECOND,
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "4h": 4 * HOUR,
    "1d": 24 * HOUR,
}
"""The widths of candles, in ms. They begin at multiples of their width since the epoch, so at UTC's boundaries."""


@dataclass(slots=True)
class Candle:
    """The live prices from `start` on (ms since the epoch), as exact decimals. Without any, `count` is 0.

    `gap` means that for some of its time the price was not known: the ticker was neither live nor closed.
    """

    start: int
    gap: bool
    simulated: bool = False
    count: int = 0
    open: str = ""
    high: str = ""
    low: str = ""
    close: str = ""

    def add(self, price_text: str) -> None:
        self.join(Candle(self.start, False, self.simulated, 1, price_text, price_text, price_text, price_text))

    def join(self, later: Candle) -> None:
        """Takes in a candle whose changes come after its own."""
        self.gap |= later.gap
        self.simulated |= later.simulated
        if not later.count:
            return
        if not self.count:
            self.open, self.high, self.low = later.open, later.high, later.low
        elif Decimal(later.high) > Decimal(self.high):
            self.high = later.high
        if Decimal(later.low) < Decimal(self.low):
            self.low = later.low
        self.close = later.close
        self.count += later.count


class Rollup:
    """Makes candles of one width, in ms, of one ticker's changes in their order.

    `state` is the ticker's before the next change, `candle` the newest one; both can come from a file.
    """

    def __init__(self, width: int, state: State | None = None, candle: Candle | None = None) -> None:
        self.width, self.state, self.candle = width, state, candle

    def take(self, change: Change) -> Candle:
        """The candle into which the change falls, with the change in it."""
        start, candle = change.at - change.at % self.width, self.candle
        if candle is None or candle.start != start:
            candle = self.candle = Candle(start, not is_known(self.state))
        candle.simulated |= change.simulated
        if change.state is State.LIVE and change.price_text is not None:
            candle.add(change.price_text)
        elif not change.is_known:
            candle.gap = True
        self.state = change.state
        return candle


def widened(candles: Iterable[Candle], width: int) -> Iterator[Candle]:
    """Candles of this width, made of smaller ones in their order."""
    wide: Candle | None = None
    for candle in candles:
        start = candle.start - candle.start % width
        if wide is None or wide.start != start:
            if wide is not None:
                yield wide
            wide = Candle(start, False)
        wide.join(candle)
    if wide is not None:
        yield wide
