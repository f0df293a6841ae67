"""The message that a receiver outside the page gets when an alert has rung: a title and a body, in plain English.

This file owns the words. It makes them of what was raised as REST writes it, so that a message from before a restart
reads the same. It does no I/O: pure functions, for any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from alerts.conditions import Condition, Direction

WAYS = {Direction.UP: "risen", Direction.DOWN: "fallen", Direction.BOTH: "moved"}
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))  # seconds


class Message(NamedTuple):
    """Plain text. The body's last line has the id of what was raised: the same in each copy."""

    title: str
    body: str


def message_of(raised: Mapping[str, Any], *, may_be_lost: bool = False) -> Message:
    """The message about `raised`, the fields of `raised_fields`."""
    simulated = raised["simulated"]
    moment = datetime.fromtimestamp(raised["at"] / 1000, UTC)
    is_state = raised["condition"] == Condition.STATE
    price = " ".join(filter(None, (raised.get("priceText"), raised.get("currency"))))
    lines = (
        f"{'Last price' if is_state else 'Price'}: {price}" if "priceText" in raised else "",
        f"Reason: {raised['reason']}" if "reason" in raised else "",
        f"Time: {moment:%Y-%m-%d %H:%M:%S} UTC",
        f"Note: {raised['note']}" if raised.get("note") else "",
        "After a gap: for some time before, the price was not known." if raised["gap"] else "",
        "SIMULATED: this is not a real price." if simulated else "",
        "Pluto can't write its file: a restart may lose or repeat this alert." if may_be_lost else "",
        f"Id: {raised['id']}",
    )
    title = f"{'SIMULATED: ' if simulated else ''}{_title(raised)}"
    return Message(title, "\n".join(filter(None, lines)))


def trial_message(id: str) -> Message:
    """What `./run.sh notify-test` sends."""
    return Message("Pluto can reach you", f"This is a test. Alerts will come this way.\nId: {id}")


def _title(raised: Mapping[str, Any]) -> str:
    """What has happened: "BTCUSD is above 65,000 USD"."""
    ticker, condition = raised["ticker"], raised["condition"]
    if condition == Condition.STATE:
        return f"{ticker} has had no live price for over {_span(raised['within'])}"
    if condition == Condition.MOVES:
        way = WAYS[Direction(raised["direction"])]
        return f"{ticker} has {way} by {raised['value']} % or more within {_span(raised['within'])}"
    level, price = Decimal(raised["value"]), Decimal(raised["priceText"])
    where = " ".join(filter(None, (f"{level:,f}", raised.get("currency"))))
    if condition == Condition.CROSSES:
        return f"{ticker} has risen above {where}" if price > level else f"{ticker} has fallen below {where}"
    return f"{ticker} is {'at' if price == level else condition} {where}"


def _span(seconds: int) -> str:
    for size, unit in UNITS:
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
