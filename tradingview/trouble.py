"""Trouble with a page: the error that ends the page, and what Pluto remembers of it until the next try.

This file owns these two types. It judges nothing and keeps no state; any thread may use it.
"""

from __future__ import annotations

from dataclasses import dataclass

from quotes import PlutoError, State
from tradingview.messages import printable


class PageTrouble(PlutoError):
    """A page that can't give a price: the state its ticker gets, the reason, and whether the last price is void.

    `delay` is the seconds until the next try; None leaves it to the backoff. `alternative` is the symbol that
    TradingView shows instead of the requested one.
    """

    code = "page_trouble"

    def __init__(
        self,
        state: State,
        reason: str,
        *,
        void_price: bool = False,
        delay: float | None = None,
        alternative: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.state, self.reason, self.void_price, self.delay = state, printable(reason), void_price, delay
        self.alternative = alternative


@dataclass(frozen=True)
class Trouble:
    """Why a ticker has no working page, and when Pluto tries again: in ms since the epoch and by our clock.

    `alternative` is the symbol that TradingView shows instead.
    """

    state: State
    reason: str
    next_try_at: int
    retry_at: float = 0.0
    alternative: str | None = None


def other_symbol(asked: str, shown: str) -> PageTrouble:
    """The page shows another symbol: TradingView renamed ours, or doesn't show it to visitors."""
    reason = f"TradingView shows visitors {shown} instead of {asked}; to see it, track {shown}"
    return PageTrouble(State.ERROR, reason, void_price=True, alternative=shown)
