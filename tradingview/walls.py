"""Walls: recognises, from a response or a document, what the site shows instead of a symbol page.

This file owns the judgement and its order: not found, a fault of the site, a bot wall. It is pure and knows no browser;
site.py says what a wall looks like. Any thread may use it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from quotes import State
from tradingview.feed import PageTrouble, printable
from tradingview.site import NOT_FOUND_TITLE, WALL_HEADERS, WALL_STATUSES, WALL_TITLES

PASSING_STATUS = 202  # a challenge that may pass by itself
LONGEST_RETRY_AFTER_S = 3600.0


class Wall(PageTrouble):
    """TradingView asks for a check or refuses, instead of showing the page."""

    def __init__(self, reason: str, *, delay: float | None = None) -> None:
        super().__init__(State.BLOCKED, reason, delay=delay)


def judge_response(status: int, headers: Mapping[str, str]) -> PageTrouble | None:
    """What is wrong with a response to the request for a symbol page; None if nothing. Header names are lower case."""
    delay = retry_after(headers.get("retry-after", ""))
    if status == 404:
        return PageTrouble(State.NOT_FOUND, "TradingView has no such symbol (HTTP 404)", void_price=True)
    if status >= 500:
        return PageTrouble(State.ERROR, f"TradingView has a problem (HTTP {status})", delay=delay)
    if status in WALL_STATUSES:
        return Wall(f"TradingView refuses (HTTP {status})", delay=delay)
    if status >= 400:
        return PageTrouble(State.ERROR, f"TradingView has a problem (HTTP {status})", delay=delay)
    if status != PASSING_STATUS and (header := next((name for name in WALL_HEADERS if name in headers), None)):
        return Wall(f"TradingView asks for a check (header {header})")
    return None


def judge_document(facts: Mapping[str, Any]) -> PageTrouble | None:
    """What is wrong with a document, from the probe's facts; None if nothing."""
    title = printable(facts.get("title"))
    if facts.get("notFound") is True or title.startswith(NOT_FOUND_TITLE):
        return PageTrouble(State.NOT_FOUND, "TradingView has no such symbol (its page says so)", void_price=True)
    if title.startswith(WALL_TITLES):
        return Wall(f'TradingView asks "{title}"')
    if facts.get("check") is True and not is_symbol_page(facts):
        return Wall("TradingView asks whether a human is there")
    return None


def is_symbol_page(facts: Mapping[str, Any]) -> bool:
    """Whether the document has a symbol's facts or header. A wall has neither."""
    return facts.get("symbol") is True


def retry_after(text: str) -> float | None:
    """The seconds that a response asks Pluto to wait, from a number or a date; an hour at most."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 1.0), LONGEST_RETRY_AFTER_S)


def is_challenge(url: str, places: Iterable[str]) -> bool:
    """Whether an iframe's address is a wall's check. `places` have the form of CHALLENGES in site.py."""
    parts = urlsplit(url)
    host = parts.netloc.lower()
    for place in places:
        known, _, path = place.partition("/")
        is_host = host.endswith(known) if known.startswith(".") else host == known
        if is_host and parts.path.startswith(f"/{path}"):
            return True
    return False
