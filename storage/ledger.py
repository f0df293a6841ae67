"""The ledger: all that alerts keep, which is the alerts, what was raised, and what came of each delivery.

This file owns the one door between alerts and where they are kept, and the ledger in the store's file; that in Redis is
in `relay.ledger`. A ledger is open for one transaction, and each of its methods is a part of that. It decides nothing
about alerts. The store's thread writes; any thread that has a reader may read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from quotes import State, compact_json
from storage.changes import STATES


@dataclass(frozen=True)
class AlertLimits:
    """How many of each are kept. Of what was raised the oldest go first."""

    all: int = 1_000  # alerts
    of_ticker: int = 100
    raised: int = 1_000  # unless a delivery waits
    undelivered: int = 10_000  # of what was raised, with the deliveries that wait


KEEP = (
    "INSERT INTO alert (id, fields, armed, raised_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET armed = excluded.armed, raised_at = excluded.raised_at"
)
LAST_LIVE = (
    "SELECT price FROM change JOIN ticker ON ticker.id = change.ticker "
    f"WHERE name = ? AND mark & 15 = {STATES.index(State.LIVE)} AND price IS NOT NULL ORDER BY at DESC, n DESC LIMIT 1"
)
EDGE = "(SELECT n FROM raised ORDER BY n DESC LIMIT 1 OFFSET ?)"  # the newest that is one too many
UNLESS_WAITING = "AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.raised = raised.id AND state = 'waiting')"
DROP_OLD = f"DELETE FROM raised WHERE n <= {EDGE} {UNLESS_WAITING}"
DROP_EDGE = f"DELETE FROM raised WHERE n = {EDGE} {UNLESS_WAITING}"  # the older ones wait
DROP_ENDED = f"DELETE FROM raised WHERE id = ? AND n <= {EDGE} {UNLESS_WAITING}"
DROP_UNDELIVERED = (
    "DELETE FROM raised WHERE n IN (SELECT n FROM raised ORDER BY n LIMIT max(0, (SELECT count(*) FROM raised) - ?))"
)
RAISED = (
    "SELECT newest.n, fields, delivery.raised, target, name, state, tries, delivery.at, next_try_at, error "
    "FROM (SELECT n, id, fields FROM raised ORDER BY n DESC LIMIT ?) AS newest "
    "LEFT JOIN delivery ON delivery.raised = newest.id ORDER BY newest.n DESC, delivery.rowid"
)
WAITING = (
    "SELECT fields, raised, target, name, state, tries, delivery.at, next_try_at, error "
    "FROM delivery JOIN raised ON raised.id = delivery.raised "
    "WHERE target = ? AND state = 'waiting' ORDER BY delivery.rowid LIMIT ?"
)
KEEP_DELIVERY = (
    "UPDATE delivery SET state = ?, tries = ?, at = ?, next_try_at = ?, error = ? WHERE raised = ? AND target = ?"
)


class AlertRow(NamedTuple):
    """An alert as it is kept. `raised_at` is when it last rang, in ms since the epoch; None: never."""

    id: str
    fields: dict[str, Any]
    armed: bool
    raised_at: int | None


class DeliveryState(StrEnum):
    """`failed` is for good."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(NamedTuple):
    """What came of sending to `target` what was raised. Times are in ms since the epoch; `at`: since when it is so."""

    raised: str
    target: str
    name: str
    state: DeliveryState
    tries: int
    at: int
    next_try_at: int | None = None
    error: str = ""


class Ledger(Protocol):
    """What alerts keep, within one transaction."""

    def alerts(self) -> list[AlertRow]:
        """In the order of their making."""

    def keep_alert(self, row: AlertRow) -> None:
        """Adds the alert, or what has become of it."""

    def forget_alert(self, id: str) -> None: ...

    def last_live_price(self, ticker: str) -> str | None:
        """The ticker's last live price that is kept."""

    def keep_raised(self, id: str, at: int, fields: Mapping[str, Any], deliveries: Iterable[Delivery]) -> int:
        """Adds what has rung at `at`, in ms since the epoch, with its deliveries; what is there already stays.

        Returns how many others had to go although deliveries waited, if that is known already.
        """

    def raised(self, limit: int) -> list[dict[str, Any]]:
        """What was raised, the newest first, as JSON objects with their deliveries."""

    def keep_delivery(self, delivery: Delivery) -> None:
        """What has become of one that is kept."""

    def waiting(self, target: str, limit: int) -> Iterable[tuple[dict[str, Any], Delivery]]:
        """What waits to be delivered to the target, the oldest first, each with what was raised."""

    def count_waiting(self, target: str) -> int: ...

    def give_up_others(self, targets: Collection[str], at: int, error: str) -> None:
        """Deliveries that wait for other targets than these have failed."""


class FileLedger:
    """The ledger in the store's file, within a transaction of this connection."""

    def __init__(self, connection: sqlite3.Connection, limits: AlertLimits | None = None) -> None:
        self._limits = limits or AlertLimits()
        self._execute = connection.execute
        self._execute_many = connection.executemany

    # --- alerts -------------------------------------------------------------------------------------------------------

    def alerts(self) -> list[AlertRow]:
        rows = self._execute("SELECT id, fields, armed, raised_at FROM alert ORDER BY rowid")
        return [AlertRow(id, json.loads(fields), bool(armed), raised_at) for id, fields, armed, raised_at in rows]

    def keep_alert(self, row: AlertRow) -> None:
        self._execute(KEEP, (row.id, compact_json(row.fields), row.armed, row.raised_at))

    def forget_alert(self, id: str) -> None:
        self._execute("DELETE FROM alert WHERE id = ?", (id,))

    def last_live_price(self, ticker: str) -> str | None:
        row = self._execute(LAST_LIVE, (ticker,)).fetchone()
        return None if row is None else row[0]

    # --- what was raised ----------------------------------------------------------------------------------------------

    def keep_raised(self, id: str, at: int, fields: Mapping[str, Any], deliveries: Iterable[Delivery]) -> int:
        self._execute("INSERT OR IGNORE INTO raised (id, at, fields) VALUES (?, ?, ?)", (id, at, compact_json(fields)))
        rows = "INSERT OR IGNORE INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._execute_many(rows, deliveries)
        self._execute(DROP_EDGE, (self._limits.raised,))
        return self._execute(DROP_UNDELIVERED, (self._limits.undelivered,)).rowcount

    def raised(self, limit: int) -> list[dict[str, Any]]:
        rows = self._execute(RAISED, (limit,))
        return [_with_deliveries(list(group)) for _, group in groupby(rows, lambda row: row[0])]

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def keep_delivery(self, delivery: Delivery) -> None:
        raised, target, _, *rest = delivery
        self._execute(KEEP_DELIVERY, (*rest, raised, target))
        if delivery.state is not DeliveryState.WAITING:
            self._execute(DROP_ENDED, (raised, self._limits.raised))

    def waiting(self, target: str, limit: int) -> Iterator[tuple[dict[str, Any], Delivery]]:
        for fields, *columns in self._execute(WAITING, (target, limit)):
            yield json.loads(fields), delivery_of(columns)

    def count_waiting(self, target: str) -> int:
        count: int = self._execute(
            "SELECT count(*) FROM delivery WHERE target = ? AND state = 'waiting'", (target,)
        ).fetchone()[0]
        return count

    def give_up_others(self, targets: Collection[str], at: int, error: str) -> None:
        others = f"state = 'waiting' AND target NOT IN ({','.join('?' * len(targets))})"
        change = "UPDATE delivery SET state = 'failed', at = ?, next_try_at = NULL, error = ? WHERE"
        self._execute(f"{change} {others}", (at, error, *targets))
        self._execute(DROP_OLD, (self._limits.raised,))


def _with_deliveries(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    deliveries = [delivery_of(columns) for _, _, *columns in rows if columns[0] is not None]
    return with_deliveries(json.loads(rows[0][1]), deliveries)


def with_deliveries(raised: dict[str, Any], deliveries: list[Delivery]) -> dict[str, Any]:
    """What was raised as a JSON object with what came of it."""
    return raised | ({"deliveries": [_fields(delivery) for delivery in deliveries]} if deliveries else {})


def delivery_of(columns: Iterable[Any]) -> Delivery:
    delivery = Delivery(*columns)
    return delivery._replace(state=DeliveryState(delivery.state))


def _fields(delivery: Delivery) -> dict[str, Any]:
    fields = {"to": delivery.name, "state": delivery.state, "tries": delivery.tries}
    known = {"error": delivery.error or None, "nextTryAt": delivery.next_try_at}
    return fields | {name: value for name, value in known.items() if value is not None}
