"""The dom and title strategies: read prices from what a page shows as text.

This file owns reading the price element and the title. It never decides whether to believe them (document.py). It is
pure and runs on the thread of its feed. Times are ms by the page's clock.
"""

from __future__ import annotations

import re
from typing import Any

from quotes import UnreadablePrice, parse_price
from tradingview.messages import Reading, is_time, printable

LIVE_TITLE = re.compile(r"(?P<symbol>\S+)\s+(?P<price>[\d,.]+)\s+[▲▼]")  # as on chart pages
_CHANGE = re.compile(r"(?P<sign>[+\-\u2212]?)(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)%?", re.ASCII)


class Element:
    """The price element of the symbol's own header, as the probe last saw it."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.unreadable: str | None = None  # why its text is no price
        self.changed_at = 0.0  # when the price, the change or the time in it last changed
        self.seen_at = 0.0  # when the probe last looked
        self.values: dict[str, float | None] = {}
        self._text: object = ...  # the last text told

    def hear(self, told: dict[str, Any], at: float) -> bool:
        """Takes the probe's element. Returns whether its text has changed."""
        text, painted, changed = told.get("text"), told.get("painted"), told.get("changed")
        is_new, self._text = text != self._text, text
        self.seen_at = at
        self.changed_at = changed if is_time(changed) and changed <= at else 0.0
        self.values = {"change": _signed(told.get("change")), "change_percent": _signed(told.get("percent"))}
        painted_at = painted if is_time(painted) and painted <= at else at
        try:
            self.reading, self.unreadable = Reading(parse_price(str(text)), painted_at), None
        except UnreadablePrice as refused:
            self.reading, self.unreadable = None, refused.reason
        return is_new


class Title:
    """A live title: symbol, price and arrow. Numbers in other titles are no prices."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.changed_at = 0.0

    def hear(self, told: object, at: float, short_name: str) -> bool:
        """Takes the probe's title. Returns whether it has a new price. Raises UnreadablePrice."""
        before, self.reading = self.reading, None
        if not isinstance(told, dict) or not is_time(changed := told.get("changed")) or changed > at:
            return False
        match = LIVE_TITLE.match(printable(told.get("text")))
        if match is None or match["symbol"] != short_name:
            return False
        self.changed_at, self.reading = changed, Reading(parse_price(match["price"]), changed)
        return self.reading != before


def _signed(text: object) -> float | None:
    """A change such as "−1,234.50" or "+0.79%"."""
    match = _CHANGE.fullmatch(printable(text))
    if match is None:
        return None
    number = float(match["number"].replace(",", ""))
    return -number if match["sign"] in ("-", "\u2212") else number
