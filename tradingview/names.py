"""A symbol's names in a quote session: "BINANCE:BTCUSD", or a spec such as ={"symbol":"BINANCE:BTCUSD",…}.

A spec can ask for another currency or for extended hours, which is another price. This file decides which names mean
the price that the page shows. It is pure and runs on the thread of its feed.
"""

from __future__ import annotations

import json
from typing import Any

from tradingview.messages import MAX_TEXT, printable

COIN_PREFIX = "XTVC"  # TradingView's id of a currency that is a coin begins so: XTVCUSDT


def symbol_in(name: str) -> object:
    """The symbol that a name means: what a spec says, else the name itself."""
    return _spec_in(name).get("symbol") if name.startswith("=") else name


def _spec_in(name: str) -> dict[str, Any]:
    try:
        spec = json.loads(name[1:]) if name.startswith("=") else {}
    except (ValueError, RecursionError):
        return {}
    return spec if isinstance(spec, dict) else {}


class Names:
    """Which names mean the page's own price. While the page's currency is unknown, no name with a currency does."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._currencies: dict[str, str] = {}  # the page's currency, by who told it
        self._extra_keys: dict[str, str | None] = {}  # cached until the currencies change

    def know_currency(self, source: str, currency: object) -> None:
        """Learns the page's currency or that currency's id; `source` is the page or a frame's field."""
        code = printable(currency).removeprefix(COIN_PREFIX)
        if code and self._currencies.get(source) != code:
            self._currencies[source] = code
            self._extra_keys.clear()

    def mean_symbol(self, name: str) -> bool:
        """Whether the name means the symbol, in any currency."""
        return len(name) <= MAX_TEXT and symbol_in(name) == self._symbol

    def extra_key(self, name: str) -> str | None:
        """The spec's key that asks for another price than the page's; None if the name means the page's price."""
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
