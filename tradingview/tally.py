"""The tally: counts the prices read on a ticker's pages and all that was refused, for the metrics and for "why".

This file owns the counting. It bounds the number of counters, because pages choose some of their names. It judges
nothing and runs on the thread of its feed.
"""

from __future__ import annotations

from collections import Counter

from quotes import Source

MAX_REASONS = 64
OTHERS = "others"


class Tally:
    """`counters` are the scraper's, for all tickers; the rest is for this one."""

    def __init__(self, counters: Counter[str]) -> None:
        self.counters = counters
        self.read: Counter[Source] = Counter()  # valid prices, by strategy
        self.unread: Counter[Source] = Counter()  # invalid prices, by strategy
        self.refused: Counter[str] = Counter()  # by strategy and reason

    def refuse(self, source: Source, reason: str) -> None:
        key = f"{source}: {reason}"
        if key not in self.refused and len(self.refused) >= MAX_REASONS:
            key = OTHERS
        self.refused[key] += 1

    def success_rate(self, source: Source) -> float | None:
        """The share of valid prices among all read, 0 to 1; None before the first."""
        all_told = self.read[source] + self.unread[source]
        return round(self.read[source] / all_told, 4) if all_told else None

    def note_price(self, source: Source, refused: str | None) -> None:
        """Counts a valid price, or one refused for this reason."""
        if refused is None:
            self.read[source] += 1
            return
        self.unread[source] += 1
        self.refuse(source, refused)
        self.counters[f"refused: {refused}"] += 1
