"""Whether clients were ever told a wrong price, or shown one as live that was not: what they saw beside what was true.

Pure: no clock, no socket, no thread. What was true is the simulator's /truth; all times are ms since the epoch, of one
machine. A price shown as live is right when

- it was the ticker's price at some moment from shortly before the page showed it until Pluto had it, and
- as long as any client showed it, it had been the ticker's price within FRESH_MS: for as long as the proof of a socket
  holds with heartbeats of 10 s or less, and one tick and one batch of the broadcaster. While the source is down,
  there is no price that could be true.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from broadcast import FLUSH_INTERVAL_S, TICK_S
from tradingview.proof import MIN_SOCKET_PROOF_MS

TOLERANCE_MS = 2_000.0  # from the simulator's send until a page on a busy machine has painted it
FRESH_MS = MIN_SOCKET_PROOF_MS + 1000 * (TICK_S + FLUSH_INTERVAL_S)
ROUNDING_MS = 1.0  # Pluto tells whole milliseconds


@dataclass(frozen=True, slots=True)
class Change:
    """From this time on this was the price; None: the source was down and told none."""

    time: float
    price: str | None


@dataclass(eq=False, slots=True)
class Sighting:
    """A quote as clients got it. `until` is the last moment at which one that reads promptly showed it; 0: none did."""

    ticker: str
    state: str
    price_text: str | None
    timestamp: int
    received_at: int
    sequence: int
    until: float = 0.0


def wrongs(sightings: Iterable[Sighting], truth: Mapping[str, Sequence[Change]]) -> Iterator[str]:
    """What was wrong with the prices that were told as live, in words; nothing when nothing was."""
    for sighting in sightings:
        if sighting.state == "live" and (wrong := _wrong(sighting, truth.get(sighting.ticker, ()))):
            yield f"{sighting.ticker} {sighting.price_text}, sequence {sighting.sequence}: {wrong}"


def _wrong(sighting: Sighting, changes: Sequence[Change]) -> str:
    since, till = sighting.timestamp - TOLERANCE_MS, sighting.received_at + ROUNDING_MS
    if not was_price(changes, sighting.price_text, since, till):
        ended = _ended_before(changes, sighting.price_text, till)
        return (
            f"told {till - ended:.0f} ms after it had ceased to be its price" if ended else "never its price until then"
        )
    if sighting.until and not was_price(changes, sighting.price_text, sighting.until - FRESH_MS, sighting.until):
        ended = _ended_before(changes, sighting.price_text, sighting.until)
        return f"still shown as live {sighting.until - ended:.0f} ms after it had ceased to be its price"
    return ""


def was_price(changes: Sequence[Change], price: str | None, since: float, till: float) -> bool:
    """Whether this was the price at any moment of that time, its first included."""
    if price is None:
        return False
    first = max(0, bisect_left(changes, since, key=_time) - 1)  # the change that held just before the time began
    return any(change.price == price for change in changes[first : bisect_right(changes, till, key=_time)])


def _ended_before(changes: Sequence[Change], price: str | None, moment: float) -> float:
    """When this price was last replaced before that moment; 0 when it never was."""
    ends = [after.time for change, after in pairwise(changes) if change.price == price]
    return max((end for end in ends if end <= moment), default=0.0)


def _time(change: Change) -> float:
    return change.time
