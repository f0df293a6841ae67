"""A page's facts about itself, before any price: its symbol, its host and its structured data.

This file decides which symbol a page belongs to. It also owns the script strategy (the dated price in structured data)
and combines the page's facts with those in frames, such as the kind of symbol. It is pure and runs on the thread of its
feed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from quotes import Source, State, UnreadablePrice, iso_milliseconds, parse_price
from tradingview.formatter import number_text
from tradingview.messages import Reading, items, printable, texts
from tradingview.origins import origin_of
from tradingview.tally import Tally
from tradingview.trouble import PageTrouble, other_symbol

DAY_MS = 24 * 3600 * 1000  # a symbol traded around the clock is closed after so long without a trade


class Facts:
    """The facts of one document. `host` is the host from which it was requested; if empty, any host is right."""

    def __init__(self, symbol: str, host: str, tally: Tally) -> None:
        self.reading: Reading | None = None  # the dated price in structured data
        self.is_ours = False  # nothing shows that it is another symbol's page
        self.is_resolved = False  # the page itself names our symbol
        self.is_elsewhere = False  # another host than the requested one answered
        self.url = self.resolved = self.title = ""
        self.description = self.currency = ""
        self.is_simulated = False
        self._symbol, self._host = symbol, host
        self._tally = tally
        self._typespecs: list[str] = []  # what kind of symbol it is
        self._hours = ""  # when it is traded

    def hear(self, message: dict[str, Any], at: float, alternative: str | None) -> None:
        """Raises PageTrouble if the page is useless. A page that shows the `alternative` may still quote our symbol."""
        self.title, self.url = printable(message.get("title")), printable(message.get("url"))
        self.resolved = printable(message.get("resolved"))
        if message.get("notFound") is True:
            raise PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {self._symbol}", void_price=True)
        if self.resolved not in ("", self._symbol, alternative):
            raise other_symbol(self._symbol, self.resolved)
        path = self._judge_address()
        self.is_resolved = self.resolved == self._symbol
        self.is_ours = self.resolved != "" or self._symbol.partition(":")[2] in re.split("[/-]", path)
        self.description, self.currency = printable(message.get("description")), printable(message.get("currency"))
        self.is_simulated = message.get("simulated") is True
        self._typespecs, self._hours = texts(message.get("typespecs")), printable(message.get("session"))
        self.reading = self._read_offer(message.get("offer"), at) if self.is_resolved else None

    def _judge_address(self) -> str:
        """The address's path. Raises PageTrouble if it isn't the address of a symbol page."""
        try:
            address = urlsplit(self.url)
        except ValueError:
            raise PageTrouble(State.ERROR, f"asked for {self._symbol}, page went to {self.url}") from None
        path = printable(unquote(address.path))
        if self.url and not path.startswith("/symbols/"):
            raise PageTrouble(State.ERROR, f"asked for {self._symbol}, page went to {path}", void_price=True)
        self.is_elsewhere = bool(self._host) and origin_of(self.url) != origin_of(f"{address.scheme}://{self._host}")
        return path

    def _read_offer(self, offer: object, at: float) -> Reading | None:
        """A price in structured data counts only with its date."""
        dated = iso_milliseconds(offer.get("priceValidUntil")) if isinstance(offer, dict) else None
        if not isinstance(offer, dict) or dated is None:
            return None
        price = offer.get("price")
        try:
            text = parse_price(price) if isinstance(price, str) else number_text(price, None)
        except UnreadablePrice as refused:
            self._tally.note_price(Source.SCRIPT, refused.reason)
            return None
        self._tally.note_price(Source.SCRIPT, None)
        return Reading(text, at, dated)

    def why_closed(
        self, told: Mapping[str, Any], current_session: str, mark: str, traded_at: int | None, site_ms: float | None
    ) -> str | None:
        """Why no further price is expected; None while one is.

        `told` are the frames' facts about the symbol, `mark` is the market's state in the header, `traded_at` the time
        of the last trade, `site_ms` now by the site's clock, if known.
        """
        typespecs = [*self._typespecs, *items(told.get("typespecs"))]
        if "discontinued" in typespecs or mark == "delisted":
            return "delisted: this is its last price"
        hours = printable(told.get("session")) or self._hours
        if hours != "24x7" and (hours or "crypto" not in typespecs):
            is_closed = current_session not in ("", "market")
            return f"its market is closed ({current_session})" if is_closed else None
        if traded_at is not None and site_ms is not None and site_ms - traded_at > DAY_MS:
            return f"no trade since {datetime.fromtimestamp(traded_at / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        return None

    def why(self) -> dict[str, Any]:
        """For a person: the page's facts about itself."""
        return {
            "url": self.url,
            "title": self.title,
            "resolvedSymbol": self.resolved,
            "isOnAnotherHost": self.is_elsewhere,
            "description": self.description,
            "currency": self.currency,
            "typespecs": self._typespecs,
            "session": self._hours,
        }
