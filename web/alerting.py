"""Alerts as every transport asks for them, and the message that a stream sends when one has rung.

This file owns how long a caller waits for an alert to be kept, and what the answer says if it isn't. It decides nothing
about prices. Everything here runs on the hub thread but what announces, which any thread may call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gevent

from alerts.book import AlertDesk, Fate, Writing
from alerts.fields import Raised, alert_fields, raised_fields, sentence_of
from broadcast import Broadcaster
from quotes import compact_json
from store import Store
from web.reading import KEEP_LIMIT_S, on_pool

T = TypeVar("T")


def make_alert(alerts: AlertDesk, store: Store, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Makes an alert. Returns the sentence for the user, and the alert's fields."""
    alert, writing = _asked(alerts, lambda: alerts.make(fields))
    return f"Alert made: {sentence_of(alert)}.{_unless_kept(store, writing)}", alert_fields(alert)


def delete_alert(alerts: AlertDesk, store: Store, id: str) -> str:
    """Deletes an alert. Returns the sentence for the user."""
    writing = _asked(alerts, lambda: alerts.delete(id))
    return "There was no such alert." if writing is None else f"Alert deleted.{_unless_kept(store, writing)}"


def all_alerts(alerts: AlertDesk) -> list[dict[str, Any]]:
    return [alert_fields(alert) for alert in _asked(alerts, alerts.all)]


def raised_alerts(alerts: AlertDesk, limit: int) -> list[dict[str, Any]]:
    """What was raised, the newest first."""
    return on_pool(lambda: alerts.raised(limit))


def announce(broadcaster: Broadcaster, raised: Raised, may_be_lost: bool) -> None:
    """Sends what was raised to the streams that have its ticker."""
    announce_fields(broadcaster, raised_fields(raised) | ({"mayBeLost": True} if may_be_lost else {}))


def announce_fields(broadcaster: Broadcaster, raised: Mapping[str, Any]) -> None:
    """The same, of what another process may have raised."""
    text = compact_json({"type": "alert", **raised})
    broadcaster.announce(raised["ticker"], text)


def _asked(alerts: AlertDesk, call: Callable[[], T]) -> T:
    """What `call` returns, which may have to wait for Redis."""
    return on_pool(call) if alerts.is_shared else call()


def _unless_kept(store: Store, writing: Writing) -> str:
    """Waits until it is on the disk, so that what is answered is true; else a sentence that says so."""
    deadline = time.monotonic() + KEEP_LIMIT_S
    while writing.fate is Fate.WAITING and time.monotonic() < deadline:
        gevent.sleep(0.002)
    if writing.fate is Fate.KEPT:
        return ""
    return f" A restart may lose this: {store.reason or 'the disk is slow.'}"
