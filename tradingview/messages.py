"""Reads values of the probe's messages: whatever a page puts there, each result is bounded and has its type.

This file owns these functions and the type of a reading. It judges and remembers nothing; any thread may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

MAX_TEXT = 200  # characters kept of a page's text
DISAGREEMENT_LIMIT_MS = 2_000  # longest delay of a repaint; the page paints a frame within 125 ms
MAX_ITEMS = 64  # items kept of a page's list


@dataclass(frozen=True, slots=True)
class Reading:
    """A price as one strategy read it: `at` is when the page showed it, `source_time` the exchange's own time."""

    text: str
    at: float
    source_time: int | None = None


def printable(text: object) -> str:
    """A page's text made safe to keep, log and send: printable, one line, of bounded length."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text[:MAX_TEXT] if character.isprintable()).strip()


def texts(value: object) -> list[str]:
    """The texts in a list, made printable."""
    return [text for item in items(value) if (text := printable(item))]


def items(value: object) -> list[Any]:
    """A list's first MAX_ITEMS items; empty if the value is no list."""
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def bounded(value: object) -> object:
    """The value, cut to MAX_TEXT or MAX_ITEMS; None if it is neither text, list of texts nor number."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list):
        return texts(value)
    return value if isinstance(value, bool) or (is_number(value) and abs(value) < 1e100) else None


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_time(value: object) -> TypeGuard[float]:
    """Whether this can be a time in ms since the epoch."""
    return is_number(value) and 0 < value < 1e14


def milliseconds(seconds: object) -> int | None:
    return round(seconds * 1000) if is_number(seconds) and 0 < seconds < 1e11 else None
