"""TradingView's price formatter: prints a number of a quote frame exactly as the page does.

This file owns the page's arithmetic (IEEE doubles, as in JavaScript) and how a symbol's format is read. It never reads
a page and never guesses a format: without one it prints the number's own digits. It keeps no state; any thread may call
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from quotes import MAX_PRICE_DIGITS, UnreadablePrice, checked_price
from tradingview.messages import is_number

FORMAT_FIELDS = frozenset({"pricescale", "minmov", "variable_tick_size", "fractional"})
MAX_STEPS = 20  # of a variable tick size


@dataclass(frozen=True, slots=True)
class PriceFormat:
    """`steps` are pairs (minmov, the price below which it applies), in rising order; the last has no upper limit."""

    pricescale: float
    decimals: int
    steps: tuple[tuple[float, float], ...]

    def minmov(self, price: float) -> float:
        return next(minmov for minmov, below in self.steps if price < below)

    def tick(self, price: float) -> float:
        """The least difference between two prices."""
        return self.minmov(price) / self.pricescale

    def text(self, price: float) -> str:
        """The price rounded half up to the tick, always with all decimals of the pricescale."""
        minmov = self.minmov(price)
        ticks = _round_half_up(price * self.pricescale / minmov)
        return f"{ticks * minmov / self.pricescale:.{self.decimals}f}"


def price_format(fields: Mapping[str, Any]) -> PriceFormat | None:
    """The format in a frame's fields; None if there is none, or if it prints fractions such as 115'05."""
    pricescale = fields.get("pricescale")
    minmov = 1 if fields.get("minmov") is None else fields["minmov"]
    if not is_number(pricescale) or not is_number(minmov) or not 1e-9 <= minmov <= 1e20:
        return None
    decimals = next((digits for digits in range(MAX_PRICE_DIGITS + 1) if 10**digits == pricescale), None)
    if decimals is None or fields.get("fractional") is True:
        return None
    steps = _variable_steps(fields.get("variable_tick_size"), decimals) or ((float(minmov), math.inf),)
    return PriceFormat(float(pricescale), decimals, steps)


def number_text(number: object, form: PriceFormat | None) -> str:
    """The price text of a number in a quote frame. Raises UnreadablePrice when the number is no price."""
    if not is_number(number) or number != number or abs(number) == math.inf:
        raise UnreadablePrice("not a number")
    if number < 0:
        raise UnreadablePrice("negative")
    if number >= 10**MAX_PRICE_DIGITS:
        raise UnreadablePrice("too many digits")
    price = float(number)
    return checked_price(f"{Decimal(repr(price)).normalize():f}" if form is None else form.text(price))


def _variable_steps(text: object, decimals: int) -> tuple[tuple[float, float], ...]:
    """The steps in a text: "0.01 250 0.05" means tick 0.01 below 250, and 0.05 from there on; () if there are none."""
    words = text.split()[: 2 * MAX_STEPS] if isinstance(text, str) else []
    if len(words) % 2 == 0:
        return ()
    try:
        numbers = [Decimal(word) for word in words]
        minmovs = [number.scaleb(decimals) for number in numbers[::2]]
    except ArithmeticError:
        return ()
    limits = [*(float(number) for number in numbers[1::2]), math.inf]
    are_whole = all(minmov.is_finite() and 0 < minmov < 10**20 and minmov % 1 == 0 for minmov in minmovs)
    if not are_whole or limits != sorted(set(limits)):
        return ()
    return tuple((float(minmov), limit) for minmov, limit in zip(minmovs, limits, strict=True))


def _round_half_up(number: float) -> float:
    """JavaScript's Math.round for numbers from 0 up: floor and remainder are exact in doubles."""
    whole = math.floor(number)
    return float(whole + (number - whole >= 0.5))
