"""History as it is read back: changes and candles of one ticker, in bounded pages.

This file owns the queries and the cursors. A cursor names a place in the history, not in an answer, so that it stays
valid while prices come. It never writes. Each call opens a connection of its own and closes it, so any thread may call
it, and other processes of the same Pluto, too; it waits for a disk, so never on the hub thread.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from quotes import PlutoError, State, Ticker
from storage.candles import HOUR, MINUTE, SECOND, Candle, Rollup, widened
from storage.changes import Change, change_of, state_of
from storage.file import candle_of
from storage.ledger import FileLedger, Ledger
from storage.schema import connect_reader

FOR_EVER = 1 << 62  # ms, later than all
_CURSOR = re.compile(r"([fb])(\d{1,18})\.(\d{1,9})", re.ASCII)

CHANGES = "SELECT at, n, mark, price, shown, traded FROM change WHERE ticker = ?"
FORWARD = "AND (at, n) > (?, ?) AND at < ? ORDER BY at, n"
BACKWARD = "AND (at, n) < (?, ?) AND at >= ? ORDER BY at DESC, n DESC"
MARK_BEFORE = "SELECT mark FROM change WHERE ticker = ? AND (at, n) < (?, ?) ORDER BY at DESC, n DESC LIMIT 1"
CANDLES = (
    "SELECT start, mark, count, open, high, low, close FROM candle "
    "WHERE width = ? AND ticker = ? AND start >= ? AND start < ? ORDER BY start"
)

FIRST_CHANGE = "SELECT min(at) FROM change WHERE ticker = ?"
FIRST_HOUR = f"SELECT min(start) FROM candle WHERE width = {HOUR} AND ticker = ?"

T = TypeVar("T")


class InvalidCursor(PlutoError):
    code = "invalid_range"


class Cursor(NamedTuple):
    """Where the next page begins: after this place, or before it when it leads backward."""

    is_forward: bool
    at: int
    n: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises InvalidCursor."""
        if (match := _CURSOR.fullmatch(text)) is None:
            raise InvalidCursor("cursor is the text that the page before gave as next; leave it away to begin.")
        return cls(match[1] == "f", int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{'f' if self.is_forward else 'b'}{self.at}.{self.n}"


@dataclass(frozen=True)
class Range:
    """What to read: from `since` on and before `until`, in ms since the epoch, at most `limit` items.

    With `since` pages lead forward from there, without it backward from `until`. A cursor keeps its direction.
    """

    limit: int
    since: int | None = None
    until: int | None = None
    cursor: Cursor | None = None

    @property
    def is_forward(self) -> bool:
        return self.cursor.is_forward if self.cursor is not None else self.since is not None

    @property
    def end(self) -> int:
        return FOR_EVER if self.until is None else self.until


class Page(NamedTuple, Generic[T]):
    """Items from old to new, whichever way pages lead, and where the next page begins; None if there is none yet.

    `last_at` is the time of the newest change in the file: later than now if the clock was set back. `since` is the
    time from which on the file has anything of the ticker, in ms since the epoch; None if it has nothing.
    """

    items: list[T]
    next: Cursor | None
    last_at: int
    since: int | None


class History:
    """Reads the file at `path`; `patience` is how many seconds it waits for a lock. All calls raise sqlite3.Error."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience

    def changes(self, ticker: Ticker, range: Range) -> Page[Change] | None:
        """None if the file knows nothing of the ticker."""
        with self._reading(ticker) as reader:
            return None if reader is None else reader.changes(range)

    def candles(self, ticker: Ticker, width: int, range: Range) -> Page[Candle] | None:
        """Candles that have a price, of this width in ms. None if the file knows nothing of the ticker."""
        with self._reading(ticker) as reader:
            return None if reader is None else reader.candles(width, range)

    def ledger(self, query: Callable[[Ledger], T]) -> T:
        """What a query finds in what alerts keep."""
        with closing(connect_reader(self._path, self._patience)) as connection:
            return query(FileLedger(connection))

    @contextmanager
    def _reading(self, ticker: Ticker) -> Iterator[Reader | None]:
        with closing(connect_reader(self._path, self._patience)) as connection:
            connection.execute("BEGIN")  # all of a page is of one moment
            row = connection.execute(
                "SELECT id, cut_at, cut_mark, last_at FROM ticker, pulse WHERE name = ?", (ticker,)
            ).fetchone()
            yield None if row is None else Reader(connection, *row)


class Reader:
    """Reads one ticker's history by an open connection."""

    def __init__(self, connection: sqlite3.Connection, id: int, cut_at: int, cut_mark: int, last_at: int) -> None:
        self._execute, self._id, self._cut_mark, self._last_at = connection.execute, id, cut_mark, last_at
        self._since = self._first(FIRST_HOUR) if cut_at else None
        if self._since is None:
            self._since = self._first(FIRST_CHANGE)

    def _first(self, query: str) -> int | None:
        at: int | None = self._execute(query, (self._id,)).fetchone()[0]
        return at

    def changes(self, range: Range) -> Page[Change]:
        rows = self._rows(range)
        found, has_more = _first_groups(map(change_of, rows), range.limit, lambda change: (change.at, change.n))
        items = found if range.is_forward else found[::-1]
        next = Cursor(range.is_forward, found[-1].at, found[-1].n) if has_more else None
        return Page(items, next, self._last_at, self._since)

    def candles(self, width: int, range: Range) -> Page[Candle]:
        whole = _whole(range, width)
        read = self._seconds if width == SECOND else self._kept
        found, has_more = read(width, whole)
        items = [candle for candle in widened(found, width) if candle.count]
        if not has_more:
            return Page(items, None, self._last_at, self._since)
        place = items[-1].start + width if range.is_forward else items[0].start
        return Page(items, Cursor(range.is_forward, place), self._last_at, self._since)

    def _kept(self, width: int, range: Range) -> tuple[list[Candle], bool]:
        """Candles of which wider ones are made."""
        kept_width = HOUR if width % HOUR == 0 else MINUTE
        order = "" if range.is_forward else " DESC"
        rows = self._execute(CANDLES + order, (kept_width, self._id, range.since, range.end))
        found, has_more = _first_groups(
            map(candle_of, rows), range.limit, lambda candle: candle.start // width if candle.count else None
        )
        return (found if range.is_forward else found[::-1]), has_more

    def _seconds(self, width: int, range: Range) -> tuple[list[Candle], bool]:
        """Candles made of changes."""
        changes, has_more = _first_groups(
            map(change_of, self._rows(range)),
            range.limit,
            lambda change: change.at // width if change.state is State.LIVE and change.price_text else None,
        )
        if not range.is_forward:
            changes.reverse()
        rollup = Rollup(width, self._state_before(changes[0]) if changes else None)
        candles = {candle.start: candle for candle in map(rollup.take, changes)}
        return list(candles.values()), has_more

    def _rows(self, range: Range) -> sqlite3.Cursor:
        since, cursor = range.since or 0, range.cursor
        if range.is_forward:
            place = (since, -1) if cursor is None else max((since, -1), (cursor.at, cursor.n))
            return self._execute(f"{CHANGES} {FORWARD}", (self._id, *place, range.end))
        place = (range.end, -1) if cursor is None else min((range.end, -1), (cursor.at, cursor.n))
        return self._execute(f"{CHANGES} {BACKWARD}", (self._id, *place, since))

    def _state_before(self, change: Change) -> State | None:
        row = self._execute(MARK_BEFORE, (self._id, change.at, change.n)).fetchone()
        return state_of(self._cut_mark if row is None else row[0])


def _whole(range: Range, width: int) -> Range:
    """The range with the whole of each candle of which it has a part, and with the cursor's place as its bound."""
    since, end, cursor = range.since or 0, range.end, range.cursor
    if cursor is not None:
        since, end = (max(since, cursor.at), end) if cursor.is_forward else (since, min(end, cursor.at))
    bounds = since - since % width, end if end == FOR_EVER else end + -end % width
    direction = Cursor(range.is_forward, *((bounds[0] - 1, 0) if range.is_forward else (bounds[1], -1)))
    return Range(range.limit, *bounds, direction)


def _first_groups(items: Iterable[T], limit: int, group_of: Callable[[T], Hashable]) -> tuple[list[T], bool]:
    """The items of the first `limit` groups, and whether there are more groups. An item of the group None goes with
    the items around it."""
    found: list[T] = []
    groups: set[Hashable] = set()
    for item in items:
        group = group_of(item)
        if group is not None and group not in groups:
            if len(groups) == limit:
                return found, True
            groups.add(group)
        found.append(item)
    return found, False
