"""Limits on how often a caller may try, counted for all processes together where there are several.

This file owns how a process asks for the common count without keeping the hub waiting, and that it counts alone when
nobody answers. It knows no caller and no Redis. It belongs to the hub thread.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from limiter import Limiter

Ask = Callable[[str, float], float | None]
"""Counts a cost for a key, for all. Returns the seconds until one more is allowed, None if nobody can tell.

It gives the hub turns, and takes a moment at most.
"""

Share = Callable[[str, float, float], Ask]
"""Makes the common count of what has this name, at a rate a second and in a burst."""


class SharedLimiter:
    """A limiter that also knows what the other processes have counted, as far as `ask` knows it."""

    def __init__(self, own: Limiter, ask: Ask) -> None:
        self._own, self._ask = own, ask

    def wait_s(self, key: str = "") -> float:
        """Asks for the own count last: between that and what the caller does then, nobody else has a turn."""
        common = self._ask(key, 0.0) or 0.0
        return max(common, self._own.wait_s(key))

    def take(self, cost: float = 1.0, key: str = "") -> bool:
        gevent.spawn(self._ask, key, cost)
        return self._own.take(cost, key)


def limit_of(name: str, per_minute: float, share: Share | None) -> Limiter | SharedLimiter:
    """Allows so many a minute, for each key on its own; of all processes together, if they share."""
    rate = per_minute / 60
    own = Limiter(rate, per_minute)
    return own if share is None else SharedLimiter(own, share(name, rate, per_minute))
