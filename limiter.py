"""Limits how often something may happen: a token bucket for each key.

This file owns the arithmetic and nothing else. It never waits, starts no thread and imports only the standard library.
A limiter belongs to the thread that made it.
"""

from __future__ import annotations

import time
from collections import OrderedDict

MAX_KEYS = 10_000  # with more, it forgets the key counted longest ago


class Limiter:
    """Allows `burst` at once, then `rate` a second, for each key on its own.

    It keeps one number for a key: the time at which the key's whole burst is available again.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str = "") -> float:
        """Seconds until `take` would allow the key once more; 0 if it would now."""
        now = time.monotonic()
        wait = max(self._whole_at.get(key, 0.0), now) - now + (1 - self._burst) / self._rate
        return wait if wait > 1e-6 else 0.0

    def take(self, cost: float = 1.0, key: str = "") -> bool:
        """Counts the cost, allowed or not. Returns whether it was allowed."""
        now = time.monotonic()
        whole_at = self._whole_at[key] = max(self._whole_at.get(key, 0.0), now) + cost / self._rate
        self._whole_at.move_to_end(key)
        if len(self._whole_at) > MAX_KEYS:
            self._whole_at.popitem(last=False)
        return whole_at - now <= self._burst / self._rate + 1e-6
