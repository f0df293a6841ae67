"""The ledger: the alerts in the store's file, and what was raised.

This file owns the queries of these tables. Each function is a part of its caller's transaction. It decides nothing. The
store's thread writes; `read_raised` is for any thread that has a reader.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

from quotes import State
from storage.changes import STATES

MAX_RAISED = 1_000  # kept; the oldest go

KEEP = (
    "INSERT INTO alert (id, fields, armed, raised_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET armed = excluded.armed, raised_at = excluded.raised_at"
)
LAST_LIVE = (
    "SELECT price FROM change JOIN ticker ON ticker.id = change.ticker "
    f"WHERE name = ? AND mark & 15 = {STATES.index(State.LIVE)} AND price IS NOT NULL ORDER BY at DESC, n DESC LIMIT 1"
)
DROP_OLD = "DELETE FROM raised WHERE n IN (SELECT n FROM raised ORDER BY n DESC LIMIT -1 OFFSET ?)"


class AlertRow(NamedTuple):
    """An alert as it is kept. `raised_at` is when it last rang, in ms since the epoch; None: never."""

    id: str
    fields: dict[str, Any]
    armed: bool
    raised_at: int | None


def read_alerts(connection: sqlite3.Connection) -> list[AlertRow]:
    rows = connection.execute("SELECT id, fields, armed, raised_at FROM alert ORDER BY rowid")
    return [AlertRow(id, json.loads(fields), bool(armed), raised_at) for id, fields, armed, raised_at in rows]


def keep_alert(connection: sqlite3.Connection, row: AlertRow) -> None:
    """Adds the alert, or what has become of it."""
    connection.execute(KEEP, (row.id, _json(row.fields), row.armed, row.raised_at))


def forget_alert(connection: sqlite3.Connection, id: str) -> None:
    connection.execute("DELETE FROM alert WHERE id = ?", (id,))


def keep_raised(connection: sqlite3.Connection, id: str, at: int, fields: Mapping[str, Any]) -> None:
    """Adds what has rung at `at`, in ms since the epoch."""
    connection.execute("INSERT INTO raised (id, at, fields) VALUES (?, ?, ?)", (id, at, _json(fields)))
    connection.execute(DROP_OLD, (MAX_RAISED,))


def read_raised(connection: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """What was raised, the newest first, as JSON objects."""
    rows = connection.execute("SELECT fields FROM raised ORDER BY n DESC LIMIT ?", (limit,))
    return [json.loads(fields) for (fields,) in rows]


def last_live_price(connection: sqlite3.Connection, ticker: str) -> str | None:
    """The ticker's last live price in the file."""
    row = connection.execute(LAST_LIVE, (ticker,)).fetchone()
    return None if row is None else row[0]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
