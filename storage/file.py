"""One database file, as its writer has it: each batch of arrivals is one transaction.

This file owns what is written: the watchlist, every change, the candles kept of them, and the newest quote of each
ticker. It decides nothing about threads, failures or time. Only the writer thread uses it, after its opening.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from quotes import Quote, Source, State, Ticker, compact_json
from storage.candles import LEVELS, Candle, Rollup
from storage.changes import SIMULATED, Arrival, Change, Row, change_of, state_of
from storage.intake import Batch
from storage.schema import WATCHLIST, connect

GAP = 1  # a bit of a candle's mark, beside SIMULATED
QUOTE_FIELDS = {field.name for field in fields(Quote)} - {"proven_until", "position"}

INSERT_CHANGE = "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?)"
INSERT_CANDLE = "INSERT OR REPLACE INTO candle VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
SET_TRACKED = (
    "INSERT INTO ticker (name, tracked) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET tracked = excluded.tracked"
)
LAST_CHANGE = "SELECT at, n, mark FROM change WHERE ticker = ? ORDER BY at DESC, n DESC LIMIT 1"
LAST_WHOLE_CHANGE = (
    "SELECT at, n, mark, price, shown, traded FROM change JOIN ticker ON ticker.id = change.ticker "
    "WHERE name = ? ORDER BY at DESC, n DESC LIMIT 1"
)
LAST_CANDLE = (
    "SELECT start, mark, count, open, high, low, close FROM candle "
    "WHERE width = ? AND ticker = ? ORDER BY start DESC LIMIT 1"
)


@dataclass(slots=True)
class Line:
    """Where one ticker's history in the file ends."""

    id: int
    at: int
    n: int
    rollups: list[Rollup]

    @property
    def state(self) -> State | None:
        return self.rollups[0].state


class StoreFile:
    """An open file. After a failed `write` nothing of that batch is in it, and it can be tried again."""

    def __init__(self, path: Path, patience: float) -> None:
        """Raises sqlite3.Error or FromTheFuture."""
        self.connection = connect(path, patience)
        self._lines: dict[Ticker, Line] = {}
        self._last_at, self.alive_at = self._read_pulse()

    def close(self) -> None:
        self.connection.close()

    def watchlist(self) -> dict[Ticker, Quote | None]:
        """The tracked tickers, each with its newest quote that has a price."""
        return dict(map(tracked_of, self.connection.execute(WATCHLIST)))

    def last_change(self, ticker: Ticker) -> Change | None:
        """The newest one that the file has of the ticker."""
        row = self.connection.execute(LAST_WHOLE_CHANGE, (ticker,)).fetchone()
        return None if row is None else change_of(row)

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def write(self, batch: Batch, now: int, *more: Callable[[], None]) -> None:
        """Writes the batch, and what `more` writes, in one transaction at `now`, in ms since the epoch."""
        try:
            with self.transaction():
                self.connection.executemany(SET_TRACKED, batch.tracked.items())
                self._append(batch.arrivals)
                self.alive_at = max(now, self.alive_at)
                self.connection.execute("UPDATE pulse SET last_at = ?, alive_at = ?", (self._last_at, self.alive_at))
                for step in more:
                    step()
        except BaseException:
            self._lines.clear()
            self._last_at, self.alive_at = self._read_pulse()
            raise

    def end_all(self, at: int) -> list[Arrival]:
        """What says that from `at` on nothing was recorded, for each ticker for which something was."""
        names = [Ticker(name) for (name,) in self.connection.execute("SELECT name FROM ticker")]
        return [Arrival(at, name, None) for name in names if self._line(name).state is not None]

    def _append(self, arrivals: list[Arrival]) -> None:
        """Adds each arrival to the end of its ticker's history: to the changes, and to the candles."""
        rows: list[tuple[int, *Row]] = []
        candles: dict[tuple[int, int, int], Candle] = {}
        quotes: dict[int, Quote] = {}
        for arrival in arrivals:
            line = self._line(arrival.ticker)
            at = arrival.at if arrival.at >= self._last_at else self._last_at + 1
            line.n = line.n + 1 if at == line.at else 0
            line.at = self._last_at = at
            change = arrival.change(at, line.n)
            rows.append((line.id, *change.row()))
            for rollup in line.rollups:
                candle = rollup.take(change)
                candles[rollup.width, line.id, candle.start] = candle
            if arrival.quote is not None and arrival.quote.price_text is not None:
                quotes[line.id] = arrival.quote
        self.connection.executemany(INSERT_CHANGE, rows)
        self.connection.executemany(INSERT_CANDLE, [(*key, *columns_of(candle)) for key, candle in candles.items()])
        texts = ((quote_text(quote), id) for id, quote in quotes.items())
        self.connection.executemany("UPDATE ticker SET quote = ? WHERE id = ?", texts)

    # --- where histories end ------------------------------------------------------------------------------------------

    def _read_pulse(self) -> tuple[int, int]:
        last_at, alive_at = self.connection.execute("SELECT last_at, alive_at FROM pulse").fetchone()
        return last_at, alive_at

    def _line(self, ticker: Ticker) -> Line:
        if (line := self._lines.get(ticker)) is None:
            line = self._lines[ticker] = self._read_line(ticker)
        return line

    def _read_line(self, ticker: Ticker) -> Line:
        execute = self.connection.execute
        execute("INSERT OR IGNORE INTO ticker (name, tracked) VALUES (?, 0)", (ticker,))
        id, cut_at, cut_mark = execute("SELECT id, cut_at, cut_mark FROM ticker WHERE name = ?", (ticker,)).fetchone()
        at, n, mark = execute(LAST_CHANGE, (id,)).fetchone() or (cut_at, 0, cut_mark)
        state = state_of(mark)
        candles = (execute(LAST_CANDLE, (width, id)).fetchone() for width in LEVELS)
        rollups = [
            Rollup(width, state, None if row is None else candle_of(row))
            for width, row in zip(LEVELS, candles, strict=True)
        ]
        return Line(id, at, n, rollups)


# --- how candles and quotes are written -------------------------------------------------------------------------------


def columns_of(candle: Candle) -> tuple[int, int, str, str, str, str]:
    """The candle's columns after its start."""
    mark = GAP * candle.gap | SIMULATED * candle.simulated
    return mark, candle.count, candle.open, candle.high, candle.low, candle.close


def candle_of(row: tuple[int, int, int, str, str, str, str]) -> Candle:
    start, mark, count, open, high, low, close = row
    return Candle(start, bool(mark & GAP), bool(mark & SIMULATED), count, open, high, low, close)


def quote_text(quote: Quote) -> str:
    known = {name: value for name in QUOTE_FIELDS if (value := getattr(quote, name)) is not None}
    return compact_json(known)


def tracked_of(row: tuple[str, str | None]) -> tuple[Ticker, Quote | None]:
    """A tracked ticker and its quote."""
    name, text = row
    return Ticker(name), None if text is None else _quote_of(json.loads(text))


def _quote_of(known: dict[str, Any]) -> Quote:
    """Leaves out what another version of Pluto knew."""
    known = {name: value for name, value in known.items() if name in QUOTE_FIELDS}
    source = known.get("source")
    known |= {"state": State(known["state"]), "source": None if source is None else Source(source)}
    return Quote(**known)
