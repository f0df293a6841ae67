"""Reading what the store has kept: what a caller may ask for, and how it is read without keeping the hub waiting.

This file owns the meaning of a question's texts (times, intervals, limits), its bounds, and how changes and candles are
written as JSON and CSV. A file is read, and its rows written, on the hub's thread pool; the rest runs on the hub
thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import gevent
from gevent.threadpool import ThreadPool

from quotes import PlutoError, Ticker, compact_json, iso_milliseconds, wall_ms
from storage.candles import INTERVALS, Candle
from storage.changes import UNRECORDED, Change
from storage.history import Cursor, History, Page, Range
from store import Store, StoreState, ask

DEFAULT_LIMIT, MAX_LIMIT = 1_000, 5_000  # items of one answer
CSV_PAGE = 1_000  # rows read at once
KEEP_LIMIT_S = 1.0
NO_HISTORY = ", and there is no history of it"  # what an untracked ticker lacks besides
AGES_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
POINT_COLUMNS = ("at", "priceText", "timestamp", "sourceTime", "source", "state", "simulated", "shifted")
CANDLE_COLUMNS = ("start", "open", "high", "low", "close", "count", "gap", "isOpen", "simulated")

_AGE = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_MS = re.compile(r"\d{1,15}", re.ASCII)

T = TypeVar("T")


class InvalidRange(PlutoError):
    code = "invalid_range"


@dataclass(frozen=True)
class Question:
    """What of a ticker's history a caller wants: candles of `width` ms, or changes if that is None."""

    ticker: Ticker
    width: int | None
    range: Range

    @property
    def name(self) -> str:
        return "points" if self.width is None else "candles"

    @property
    def columns(self) -> tuple[str, ...]:
        return POINT_COLUMNS if self.width is None else CANDLE_COLUMNS


class Found(NamedTuple):
    """A page as JSON objects, where the next one begins, and since when this machine has recorded the ticker, in ms."""

    items: list[dict[str, Any]]
    next: Cursor | None
    since: int | None


class CsvPage(NamedTuple):
    """Rows as text, how many they are, and where the next page begins."""

    text: bytes
    rows: int
    next: Cursor | None


def question_of(ticker: Ticker, texts: Mapping[str, str]) -> Question:
    """The question in a query's texts: since, until, limit, interval, cursor. Raises InvalidRange, InvalidCursor."""
    now = wall_ms()
    since, until = (moment_of(texts.get(name, ""), now) for name in ("since", "until"))
    cursor = Cursor.parse(texts["cursor"]) if texts.get("cursor") else None
    width, limit = width_of(texts.get("interval", "")), limit_of(texts.get("limit", ""))
    return Question(ticker, width, Range(limit, since, until, cursor))


def moment_of(text: str, now: int) -> int | None:
    """A moment in ms since the epoch: an ISO time (UTC unless it says otherwise), ms, or an age such as "24h"."""
    if not text:
        return None
    if age := _AGE.fullmatch(text):
        return max(0, now - int(age[1]) * AGES_MS[age[2]])
    if _MS.fullmatch(text):
        return int(text)
    if (moment := iso_milliseconds(text)) is None:
        raise InvalidRange(
            f"{text[:40]!r} is not a time: use ISO (2026-11-26T08:00:00Z), ms since the epoch, or an age such as 24h."
        )
    return max(0, moment)


def width_of(text: str) -> int | None:
    """The width of candles in ms; None for changes."""
    if text and text not in INTERVALS:
        raise InvalidRange(
            f"interval must be one of {', '.join(INTERVALS)}, or absent to get each change, not {text[:40]!r}."
        )
    return INTERVALS.get(text)


def wants_csv(text: str, prefers_csv: bool) -> bool:
    """Whether the answer is CSV: as the query's format says, for a link can say no more, or else as Accept does."""
    if text not in ("", "csv", "json"):
        raise InvalidRange(f"format is csv or json, or absent to follow the Accept header, not {text[:40]!r}.")
    return text == "csv" if text else prefers_csv


def limit_of(text: str) -> int:
    """How many items one answer has at most."""
    if not text:
        return DEFAULT_LIMIT
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidRange(f"limit must be a number from 1 to {MAX_LIMIT}, not {text[:40]!r}.")


# --- reading ----------------------------------------------------------------------------------------------------------


def found_json(store: Store, question: Question) -> bytes | None:
    """The answer as JSON; None if nothing is kept of the ticker."""

    def read(history: History) -> bytes | None:
        if (found := find(history, question)) is None:
            return None
        next = None if found.next is None else str(found.next)
        answer = {question.name: found.items, "next": next, "recordedSince": found.since}
        return compact_json(answer).encode() + b"\n"

    return off_hub(store, read)


def found_csv(store: Store, question: Question, *, is_bounded: bool) -> Iterator[bytes] | None:
    """The answer as CSV from old to new, page by page; all that there is unless it is bounded.

    The first page is read at once. None if nothing is kept of the ticker.
    """
    asked = question.range
    limit = min(asked.limit, CSV_PAGE) if is_bounded else CSV_PAGE
    question = replace(question, range=replace(asked, limit=limit, since=asked.since or 0))
    first = _read_csv(store, question)
    return None if first is None else _csv_pages(store, question, first, asked.limit if is_bounded else None)


def _csv_pages(store: Store, question: Question, first: CsvPage, left: int | None) -> Iterator[bytes]:
    yield (",".join(question.columns) + "\r\n").encode()
    page: CsvPage | None = first
    while page is not None:  # it is, if a fresh file has taken the place of this one
        yield page.text
        left = None if left is None else left - page.rows
        if page.next is None or left == 0:
            return
        limit = CSV_PAGE if left is None else min(left, CSV_PAGE)
        page = _read_csv(store, replace(question, range=replace(question.range, cursor=page.next, limit=limit)))


def _read_csv(store: Store, question: Question) -> CsvPage | None:
    """No field can hold a comma or a quote."""

    def read(history: History) -> CsvPage | None:
        if (found := find(history, question)) is None:
            return None
        lines = (",".join(_csv_text(item.get(name)) for name in question.columns) for item in found.items)
        return CsvPage("".join(f"{line}\r\n" for line in lines).encode(), len(found.items), found.next)

    return off_hub(store, read)


def _csv_text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def until_kept(store: Store) -> None:
    """Waits until the watchlist would survive a kill, so that what is answered is true.

    A store in trouble isn't waited for.
    """
    deadline = time.monotonic() + KEEP_LIMIT_S
    while not store.has_kept_list and store.state is StoreState.RUNNING and time.monotonic() < deadline:
        gevent.sleep(0.002)


def off_hub(store: Store, read: Callable[[History], T]) -> T:
    """What `read` returns, on a thread of the pool. Raises NoStore, HistoryUnreadable."""
    return on_pool(lambda: ask(store, read))


def on_pool(call: Callable[[], T], pool: ThreadPool | None = None) -> T:
    """What `call` returns, on a thread of the pool, by default the hub's: it may block. Raises its PlutoErrors."""

    def attempt() -> T | PlutoError:
        """The pool would print what is raised there."""
        try:
            return call()
        except PlutoError as error:
            return error

    value: T | PlutoError = (gevent.get_hub().threadpool if pool is None else pool).apply(attempt)
    if isinstance(value, PlutoError):
        raise value
    return value


def find(history: History, question: Question) -> Found | None:
    """A page of what is asked for; None if nothing is kept of the ticker."""
    if question.width is None:
        if (points := history.changes(question.ticker, question.range)) is None:
            return None
        return Found([point_fields(change) for change in points.items], points.next, points.since)
    candles = history.candles(question.ticker, question.width, question.range)
    return None if candles is None else _candles_found(candles, question.width)


def _candles_found(page: Page[Candle], width: int) -> Found:
    clock = max(wall_ms(), page.last_at)
    items = [candle_fields(candle, candle.start + width > clock) for candle in page.items]
    return Found(items, page.next, page.since)


def point_fields(change: Change) -> dict[str, Any]:
    """A change as the wire contract's JSON object; what is unknown is absent."""
    fields = {
        "at": change.at,
        "priceText": change.price_text,
        "timestamp": change.timestamp,
        "sourceTime": change.source_time,
        "source": change.source,
        "state": change.state or UNRECORDED,
        "simulated": change.simulated or None,
        "shifted": change.shifted or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def candle_fields(candle: Candle, is_open: bool) -> dict[str, Any]:
    fields = {
        "start": candle.start,
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "count": candle.count,
        "gap": candle.gap,
        "isOpen": is_open,
    }
    return {**fields, "simulated": True} if candle.simulated else fields
