"""The names under which a quote session can have a symbol: "BINANCE:BTCUSD", or a spec ={"symbol":"BINANCE:BTCUSD",…}.

A spec can ask for another currency or for extended hours: that is another price. This file owns which names stand for
the price that the page shows. It is pure and runs on the thread of its feed.
"""

from __future__ import annotations

import json
from typing import Any

from tradingview.messages import MAX_TEXT, printable

COIN_PREFIX = "XTVC"  # of a currency's id at TradingView, where the currency is a coin: XTVCUSDT


def symbol_in(name: str) -> object:
    """The symbol that a name stands for; the name itself where it is no spec."""
    return _spec_in(name).get("symbol") if name.startswith("=") else name


def _spec_in(name: str) -> dict[str, Any]:
    try:
        spec = json.loads(name[1:]) if name.startswith("=") else {}
    except (ValueError, RecursionError):
        return {}
    return spec if isinstance(spec, dict) else {}


class Names:
    """Which names stand for the page's own price. Until its currency is known, none that names one does."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._currencies: dict[str, str] = {}  # by who said so
        self._extra_keys: dict[str, str | None] = {}  # remembered while the currencies are the same

    def know_currency(self, source: str, currency: object) -> None:
        """The page's currency, or its id, as the page or one of its frames says."""
        code = printable(currency).removeprefix(COIN_PREFIX)
        if code and self._currencies.get(source) != code:
            self._currencies[source] = code
            self._extra_keys.clear()

    def mean_symbol(self, name: str) -> bool:
        """Whether the name stands for the symbol, in whatever currency."""
        return len(name) <= MAX_TEXT and symbol_in(name) == self._symbol

    def extra_key(self, name: str) -> str | None:
        """The key of a spec that makes its price another than the page's; None when it is the page's."""
        if name == self._symbol:
            return None
        if name not in self._extra_keys:
            if len(self._extra_keys) > 100:
                self._extra_keys.clear()
            extra = (key for key, value in _spec_in(name).items() if not self._is_own(key, value))
            self._extra_keys[name] = next((printable(key)[:32] for key in extra), None)
        return self._extra_keys[name]

    def _is_own(self, key: str, value: object) -> bool:
        match key:
            case "symbol" | "adjustment":
                return True
            case "session":
                return value == "regular"
            case "currency-id":
                return printable(value).removeprefix(COIN_PREFIX) in self._currencies.values()
        return False
