"""How often a price changes: at a chosen rate, or as seldom as recorded.

Owns: the gaps between two changes, and the figures behind them. Never does: wait. Any thread may use it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from simulator.symbols import Symbol

TRADED_RATE = 5.0  # changes a second of a pair that an exchange trades: a guess, no recording was found

# Quantiles of the seconds between two changes of a calculated pair. Fitted to readings of live pages, one a second,
# that others published in September and October 2025: 232, 80 and 16 gaps. Of ADAUSD only the mean is known, 33.7 s.
PARTS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
BTC = (0.7, 1.2, 2.4, 4.8, 6.1, 8.6, 12.8, 18.8, 56.0)
ETH = (1.2, 3.7, 4.1, 6.0, 8.3, 14.7, 27.6, 34.8, 79.0)
SOL = (1.1, 1.1, 2.8, 4.5, 6.8, 10.4, 11.6, 16.5, 20.3)
ADA = tuple(round(gap * 33.7 / 12.4, 1) for gap in ETH)  # ETHUSD's, scaled
GAPS = {"BTC": BTC, "ETH": ETH, "SOL": SOL}


class Pace(Protocol):
    def gap(self, draws: Random) -> float:
        """Seconds until the next change."""


@dataclass(frozen=True)
class Lively:
    rate: float  # changes a second

    def gap(self, draws: Random) -> float:
        return draws.uniform(0.5, 1.5) / self.rate


@dataclass(frozen=True)
class Recorded:
    quantiles: Sequence[float]  # at PARTS

    def gap(self, draws: Random) -> float:
        """A random gap; between two quantiles all are equally likely, on a logarithmic scale."""
        part = draws.random()
        after = bisect(PARTS, part)
        (low, high), (short, long) = PARTS[after - 1 : after + 1], self.quantiles[after - 1 : after + 1]
        return float(short * (long / short) ** ((part - low) / (high - low)))


def real_pace(symbol: Symbol, rate: float | None) -> Pace:
    """TradingView's pace: a calculated pair changes as seldom as recorded, any other at a rate."""
    if symbol.calculated:
        return Recorded(GAPS.get(symbol.base, ADA))
    return Lively(TRADED_RATE if rate is None else rate)
