"""The proof that a page's price is current: until when it holds, and how the page's clock is converted to ours.

This file owns the limits of a proof and the rules by which Pluto accepts one. It is pure: it reads no clock and has no
thread. Times are ms; `at` is by the page's clock, `now` and `moment` by ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from quotes import Source

# The wire contract's figures.
HEARTBEAT_MS = 10_000  # the assumed interval of a socket that has sent fewer than two heartbeats
HEARTBEATS_PER_PROOF = 1.5
MIN_SOCKET_PROOF_MS, MAX_SOCKET_PROOF_MS = 15_000, 22_000
TEXT_PROOF_MS = 30_000  # how long a change of the price element or the title proves a price
GAPS = 5  # the interval is the median of the last gaps between heartbeats, of this many

SETTLING_MS = 1_000  # after a silence, outdated messages of the backlog arrive within this time
CLOCK_WINDOW_MS = 60_000  # how long the least delay of a page's messages is remembered


def heartbeat_interval(beats: Sequence[float]) -> float | None:
    """The median of the last gaps between a socket's heartbeats; None until there are two."""
    gaps = [later - earlier for earlier, later in pairwise(beats)][-GAPS:]
    return median(gaps) if gaps else None


def socket_proof_limit(beats: Sequence[float]) -> float:
    """How long a message of a socket proves its quotes, from the times of its last heartbeats."""
    interval = heartbeat_interval(beats)
    limit = HEARTBEATS_PER_PROOF * (HEARTBEAT_MS if interval is None else interval)
    return min(max(limit, MIN_SOCKET_PROOF_MS), MAX_SOCKET_PROOF_MS)


class PageClock:
    """Converts a page's time to ours. Assumes that the fastest message of the last one to two minutes took no time."""

    def __init__(self) -> None:
        self._least = self._least_before = float("inf")
        self._began_at = float("-inf")

    def hear(self, at: float, now: float) -> None:
        if now - self._began_at > CLOCK_WINDOW_MS:
            self._least_before, self._least, self._began_at = self._least, float("inf"), now
        self._least = min(self._least, now - at)

    def ours(self, at: float) -> float:
        return at + min(self._least, self._least_before)

    def theirs(self, now: float) -> float:
        return now - min(self._least, self._least_before)


class Proofs:
    """Until when each strategy's price is proven.

    A proof that arrives after the last one has run out counts only SETTLING_MS later: messages may have been held up,
    and Pluto reads the whole backlog first. All limits are multiplied by `factor`.
    """

    def __init__(self, doubt: str | None, factor: float = 1.0) -> None:
        self.doubt = doubt  # why no proof counts yet
        self._factor = factor
        self._until: dict[Source, float] = {}
        self._settling: dict[Source, tuple[float, float]] = {}  # when the proof begins to count, and its end
        self._counts_after: float | None = float("-inf")  # by the page's clock; None: the next message sets it

    def distrust(self, reason: str) -> None:
        """Drops all proofs, and ignores evidence until SETTLING_MS after the page's next message."""
        self._until.clear()
        self._settling.clear()
        self._counts_after, self.doubt = None, reason

    def hear(self, at: float) -> None:
        """Notes a message that the page sent."""
        if self._counts_after is None:
            self._counts_after = at + SETTLING_MS

    def renew(self, source: Source, at: float, moment: float, limit: float, now: float) -> None:
        """The strategy's source was alive `at` this time, `moment` by our clock: this proves its price for `limit`."""
        if self._counts_after is None or at <= self._counts_after:
            return
        self.settle(now)
        until, end = self._until.get(source), moment + limit * self._factor
        if until is None or now <= until:
            self._until[source] = max(end, until or end)
            self.doubt = None
        elif end > now:
            counts_at, settling_end = self._settling.get(source, (now + SETTLING_MS, end))
            self._settling[source] = counts_at, max(end, settling_end)

    def settle(self, now: float) -> None:
        """Accepts the proofs that have waited SETTLING_MS."""
        for source, (counts_at, until) in list(self._settling.items()):
            if now >= counts_at:
                del self._settling[source]
                self._until[source] = max(until, self._until.get(source, until))
                self.doubt = None

    def until(self, source: Source) -> float | None:
        """The end of the strategy's proof; None if it never had one."""
        return self._until.get(source)

    def holds(self, source: Source, now: float) -> bool:
        return now <= self._until.get(source, float("-inf"))
