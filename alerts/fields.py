"""An alert as text: what a caller may send, and how alerts and what was raised are written as JSON objects.

This file owns the names of the fields, their defaults and their bounds. It does no I/O: pure functions, for any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from alerts.conditions import Alert, Condition, Direction
from quotes import MAX_PRICE_DIGITS, PlutoError, iso_milliseconds, parse_ticker

MAX_NOTE = 200  # characters
DAY_S = 86_400
MAX_WITHIN_S, MAX_COOLDOWN_S, MIN_COOLDOWN_S = DAY_S, 30 * DAY_S, 10
MAX_HYSTERESIS, MAX_MOVE, MAX_FALL = Decimal(50), Decimal(1000), Decimal(100)
FAR_FUTURE = 253_402_300_800_000  # the year 10,000, in ms since the epoch

LEVELS = (Condition.ABOVE, Condition.BELOW, Condition.CROSSES)
FIELDS = {
    "ticker": tuple(Condition),
    "condition": tuple(Condition),
    "value": (*LEVELS, Condition.MOVES),
    "direction": (Condition.CROSSES, Condition.MOVES),
    "within": (Condition.MOVES, Condition.STATE),
    "repeat": tuple(Condition),
    "cooldown": tuple(Condition),
    "hysteresis": LEVELS,
    "across_gaps": (Condition.CROSSES, Condition.MOVES),
    "until": tuple(Condition),
    "note": tuple(Condition),
}
"""Each field, and the conditions that have it."""

_DECIMAL = re.compile(r"(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_NO_TEXT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the newline, those that turn the direction of text, and half characters."""


class InvalidAlert(PlutoError):
    code = "invalid_alert"


@dataclass(frozen=True, slots=True)
class Raised:
    """What has rung: the alert as it was, and the price that met it, at a time in ms since the epoch.

    `price_text` is None if there was none, and `currency` what it is in, if known. `reason` says why the ticker is in
    trouble, of a `state`.
    """

    id: str
    alert: Alert
    at: int
    price_text: str | None
    gap: bool
    simulated: bool
    reason: str = ""
    currency: str | None = None


# --- reading ----------------------------------------------------------------------------------------------------------


def replaced_by(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id of the alert that a new one replaces, empty without one, and the fields of the new one.

    Raises InvalidAlert.
    """
    alert = dict(fields)
    replaces = alert.pop("replaces", "")
    if not isinstance(replaces, str):
        raise InvalidAlert("replaces is the id of an alert.")
    return replaces, alert


def alert_of(fields: Mapping[str, Any], id: str, now: int) -> Alert:
    """The alert that a caller asks for at `now`, in ms since the epoch. Raises InvalidAlert, InvalidTicker."""
    condition = _choice(fields, "condition", Condition)
    for name in fields:
        if name not in FIELDS:
            raise InvalidAlert(f"An alert has no field {name[:40]!r}. Its fields are {', '.join(FIELDS)}.")
        if condition not in FIELDS[name]:
            raise InvalidAlert(f"{name} doesn't go with {condition}, but with {', '.join(FIELDS[name])}.")
    repeat = _flag(fields, "repeat")
    if "cooldown" in fields and not repeat:
        raise InvalidAlert("cooldown only goes with repeat: true.")
    alert = Alert(
        id,
        parse_ticker(fields.get("ticker")),
        condition,
        _value(fields, condition),
        _choice(fields, "direction", Direction, Direction.BOTH),
        _within(fields, condition),
        repeat,
        _number(fields, "cooldown", MIN_COOLDOWN_S, MAX_COOLDOWN_S, 300),
        _hysteresis(fields),
        _flag(fields, "across_gaps"),
        _until(fields, now),
        _note(fields),
    )
    if condition is Condition.MOVES and alert.direction is not Direction.UP and alert.level > MAX_FALL:
        raise InvalidAlert("A price can't fall by more than 100 percent: use a smaller value, or direction: up.")
    return alert


def _choice(fields: Mapping[str, Any], name: str, kind: Any, default: Any = None) -> Any:
    text = fields.get(name, default)
    if not isinstance(text, str) or text not in tuple(kind):
        raise InvalidAlert(f"{name} is one of {', '.join(kind)}.")
    return kind(text)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    flag = fields.get(name, False)
    if not isinstance(flag, bool):
        raise InvalidAlert(f"{name} is true or false.")
    return flag


def _number(fields: Mapping[str, Any], name: str, least: int, most: int, default: int | None = None) -> int:
    number = fields.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise InvalidAlert(f"{name} is a whole number of seconds from {least} to {most}.")
    return number


def _decimal(text: object, sentence: str) -> Decimal:
    if not isinstance(text, str) or len(text) > MAX_PRICE_DIGITS + 1 or not _DECIMAL.fullmatch(text):
        raise InvalidAlert(sentence)
    return Decimal(text)


def _value(fields: Mapping[str, Any], condition: Condition) -> Decimal | None:
    if condition is Condition.STATE:
        return None
    sentence = 'value is a decimal above 0 as text, without separators, such as "64250.5".'
    if condition is Condition.MOVES:
        sentence = f'value is a percentage as text, above 0 and at most {MAX_MOVE}, such as "2.5".'
    value = _decimal(fields.get("value"), sentence)
    if not value or (condition is Condition.MOVES and value > MAX_MOVE):
        raise InvalidAlert(sentence)
    return value


def _hysteresis(fields: Mapping[str, Any]) -> Decimal:
    sentence = f'hysteresis is a percentage of the value as text, from 0 to {MAX_HYSTERESIS}, such as "0.1".'
    hysteresis = _decimal(fields.get("hysteresis", "0.1"), sentence)
    if hysteresis > MAX_HYSTERESIS:
        raise InvalidAlert(sentence)
    return hysteresis


def _within(fields: Mapping[str, Any], condition: Condition) -> int:
    return _number(fields, "within", 1, MAX_WITHIN_S) if condition in FIELDS["within"] else 0


def _until(fields: Mapping[str, Any], now: int) -> int | None:
    until = fields.get("until")
    if until is None:
        return None
    if isinstance(until, str):
        until = iso_milliseconds(until)
    if not isinstance(until, int) or isinstance(until, bool) or not now < until < FAR_FUTURE:
        raise InvalidAlert("until is a time to come: ISO (2026-11-26T08:00:00Z), or ms since the epoch.")
    return until


def _note(fields: Mapping[str, Any]) -> str:
    note = fields.get("note", "")
    if not isinstance(note, str) or len(note) > MAX_NOTE or _NO_TEXT.search(note):
        raise InvalidAlert(f"note is a text of at most {MAX_NOTE} characters, without control characters.")
    return note


# --- writing ----------------------------------------------------------------------------------------------------------


def alert_fields(alert: Alert) -> dict[str, Any]:
    """The alert as a JSON object, with the fields that its condition has."""
    fields = {
        "ticker": alert.ticker,
        "condition": alert.condition,
        "value": None if alert.value is None else f"{alert.value:f}",
        "direction": alert.direction,
        "within": alert.within,
        "repeat": alert.repeat,
        "cooldown": alert.cooldown if alert.repeat else None,
        "hysteresis": f"{alert.hysteresis:f}",
        "across_gaps": alert.across_gaps,
        "until": alert.until,
        "note": alert.note or None,
    }
    has = (name for name in FIELDS if alert.condition in FIELDS[name] and fields[name] is not None)
    return {"id": alert.id} | {name: fields[name] for name in has}


def kept_alert(fields: Mapping[str, Any]) -> Alert:
    """The alert of which `alert_fields` made these; also if its end has come."""
    known = {name: value for name, value in fields.items() if name in FIELDS and name != "until"}
    return replace(alert_of(known, fields["id"], 0), until=fields.get("until"))


def raised_fields(raised: Raised) -> dict[str, Any]:
    """What has rung as a JSON object; `alert` is the alert's id."""
    alert = alert_fields(raised.alert)
    shown = ("ticker", "condition", "value", "direction", "within", "note")
    fields = {"id": raised.id, "alert": alert.pop("id")} | {name: alert[name] for name in shown if name in alert}
    if raised.price_text is not None:
        fields |= {"price": float(raised.price_text), "priceText": raised.price_text}
    if raised.currency is not None:
        fields["currency"] = raised.currency
    fields |= {"at": raised.at, "gap": raised.gap, "simulated": raised.simulated}
    return fields | {"reason": raised.reason} if raised.reason else fields


def sentence_of(alert: Alert) -> str:
    """The condition in words: "BTCUSD above 64250.5"."""
    ticker, value = alert.ticker, "" if alert.value is None else f"{alert.value:f}"
    if alert.condition is Condition.STATE:
        return f"{ticker} without a live price for {alert.within} s"
    way = "" if alert.direction is Direction.BOTH else f" {alert.direction}"
    if alert.condition is Condition.MOVES:
        return f"{ticker} moves{way} {value} % within {alert.within} s"
    return f"{ticker} {alert.condition}{way} {value}"
