"""Retention: what is old or too much is deleted, in small steps between the writer's other work.

This file owns what may be deleted and in which order: first the changes, then the minutes, both from the oldest on;
hours stay. It deletes whole minutes of changes and whole hours of minutes, so that no candle of what is left is cut.
Only the writer thread uses it, inside its transactions.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from storage.candles import HOUR, MINUTE

DAY_MS = 86_400_000
ROWS_A_STEP = 2_000  # about; more than a second brings
LOOK_AROUND_MS = 60_000  # how often it looks for work

FIRST_CHANGE = "SELECT at FROM change WHERE ticker = ? ORDER BY at LIMIT 1"
LAST_BEFORE = "SELECT mark FROM change WHERE ticker = ? AND at < ? ORDER BY at DESC, n DESC LIMIT 1"
FIRST_MINUTE = f"SELECT start FROM candle WHERE width = {MINUTE} AND ticker = ? ORDER BY start LIMIT 1"


@dataclass(frozen=True)
class Keep:
    """How long changes and minutes are kept, in days, and the most MB that all may take."""

    changes: float = 7.0
    minutes: float = 365.0
    max_size: float = 2_000.0


class Retention:
    """Deletes from one open file, a step at a time."""

    def __init__(self, connection: sqlite3.Connection, keep: Keep) -> None:
        self._execute, self._keep = connection.execute, keep
        self._looked_at = 0  # ms since the epoch
        self._changes: dict[int, int] = {}  # where each ticker's first change is
        self._minutes: dict[int, int] = {}  # where its first minute is

    def is_due(self, now: int) -> bool:
        return abs(now - self._looked_at) >= LOOK_AROUND_MS

    def step(self, now: int) -> None:
        """Deletes about ROWS_A_STEP of what is too old or too much at `now`, in ms since the epoch."""
        if not (self._changes or self._minutes):
            tickers = [id for (id,) in self._execute("SELECT id FROM ticker")]
            self._changes = self._firsts(FIRST_CHANGE, tickers)
            self._minutes = self._firsts(FIRST_MINUTE, tickers)
        deleted = 0
        while deleted < ROWS_A_STEP:
            is_too_much = self._size() > self._keep.max_size * 1e6
            if rows := self._delete_changes(now, is_too_much) or self._delete_minutes(now, is_too_much):
                deleted += rows
            else:
                self._looked_at = now
                self._changes, self._minutes = {}, {}
                return

    def _firsts(self, query: str, tickers: list[int]) -> dict[int, int]:
        rows = ((ticker, self._execute(query, (ticker,)).fetchone()) for ticker in tickers)
        return {ticker: row[0] for ticker, row in rows if row is not None}

    def _size(self) -> int:
        """Bytes in use; the pages of what was deleted are used again."""
        pages, free, size = (
            self._execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int(size * (pages - free))

    def _delete_changes(self, now: int, is_too_much: bool) -> int:
        """Deletes the oldest minute of changes, if it is time. Returns how many rows went."""
        limit = now - (0 if is_too_much else round(self._keep.changes * DAY_MS))
        if (found := _oldest(self._changes, MINUTE, limit)) is None:
            return 0
        ticker, end = found
        mark = self._execute(LAST_BEFORE, (ticker, end)).fetchone()[0]
        self._execute("UPDATE ticker SET cut_at = ?, cut_mark = ? WHERE id = ?", (end, mark, ticker))
        rows = self._execute("DELETE FROM change WHERE ticker = ? AND at < ?", (ticker, end)).rowcount
        self._changes.pop(ticker)
        self._changes |= self._firsts(FIRST_CHANGE, [ticker])
        return rows

    def _delete_minutes(self, now: int, is_too_much: bool) -> int:
        """Deletes the oldest hour of minutes, if it is time. Returns how many rows went."""
        limit = now - (0 if is_too_much else round(self._keep.minutes * DAY_MS))
        if (found := _oldest(self._minutes, HOUR, limit)) is None:
            return 0
        ticker, end = found
        query = "DELETE FROM candle WHERE width = ? AND ticker = ? AND start < ?"
        rows = self._execute(query, (MINUTE, ticker, end)).rowcount
        self._minutes.pop(ticker)
        self._minutes |= self._firsts(FIRST_MINUTE, [ticker])
        return rows


def _oldest(firsts: dict[int, int], width: int, limit: int) -> tuple[int, int] | None:
    """The ticker with the oldest stretch of this width, and that stretch's end, if it is over at `limit`."""
    if not firsts:
        return None
    ticker = min(firsts, key=firsts.__getitem__)
    end = firsts[ticker] - firsts[ticker] % width + width
    return (ticker, end) if end <= limit else None
