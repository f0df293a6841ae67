"""How a price is rounded: as TradingView's page does it, in JavaScript's doubles.

Owns: ticks, rounding, decimals. Never does: print separators or exponents (pages/format.js does, in the page). Any
thread may use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Scale:
    """`variable_tick_size` "0.01 250 0.05" means tick 0.01 below 250, and 0.05 from there on; empty: one tick."""

    pricescale: int = 100
    minmov: int = 1
    variable_tick_size: str = ""

    @property
    def decimals(self) -> int:
        return round(math.log10(self.pricescale))

    def tick(self, price: float) -> int:
        """The smallest step at this price, in units of 1 / pricescale."""
        ticks, limits = self.variable_tick_size.split()[::2], self.variable_tick_size.split()[1::2]
        if not ticks:
            return self.minmov
        size = ticks[sum(price >= float(limit) for limit in limits)]
        return max(1, round(float(size) * self.pricescale))

    def rounded(self, price: float) -> int:
        """The price rounded to the tick, in units of 1 / pricescale."""
        tick = self.tick(price)
        return round_half_up(price * self.pricescale / tick) * tick

    def text(self, units: int) -> str:
        """The price in plain decimals, such as 0.00000812."""
        return f"{Decimal(units).scaleb(-self.decimals):f}"


def round_half_up(number: float) -> int:
    """JavaScript's Math.round."""
    whole = math.floor(number)
    return whole + (number - whole >= 0.5)
