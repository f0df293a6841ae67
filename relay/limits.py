"""Limits that all processes share: how often something happened, counted in Redis.

This file owns the script that counts and how long it may take. It decides nothing: who asks also counts for itself,
and is told None when Redis can't answer in time. It blocks, so never on the hub thread; any other thread may call it.
"""

from __future__ import annotations

import time

from redis.exceptions import RedisError

from relay.link import Link, RelaySettings

ANSWER_LIMIT_S = 0.25
PAUSE_S = 1.0  # without a question after one that failed

# KEYS: the bucket. ARGV: rate a second, burst, cost. Keeps the time, in ms, at which the whole burst is available
# again. Returns the ms until one more is allowed.
COUNT = """
local time = redis.call('TIME')
local now, each = time[1] * 1000 + math.floor(time[2] / 1000), 1000 / ARGV[1]
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + ARGV[3] * each
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', KEYS[1], string.format('%d', math.ceil(whole)), 'PX', math.ceil(whole - now) + 1000)
end
return math.max(0, math.ceil(whole - now + (1 - ARGV[2]) * each))
"""


class RedisLimits:
    """Token buckets in Redis."""

    def __init__(self, settings: RelaySettings) -> None:
        self._redis = Link(settings, limit_s=ANSWER_LIMIT_S).redis
        self._count = self._redis.register_script(COUNT)
        self._again_at = 0.0  # monotonic s

    def wait_s(self, name: str, key: str, rate: float, burst: float, cost: float) -> float | None:
        """Counts the cost. Returns the seconds until one more is allowed; None if Redis doesn't answer."""
        if time.monotonic() < self._again_at:
            return None
        try:
            return int(self._count(keys=[f"{{pluto}}:limit:{name}:{key}"], args=[rate, burst, cost])) / 1000
        except RedisError:
            self._again_at = time.monotonic() + PAUSE_S
            return None
