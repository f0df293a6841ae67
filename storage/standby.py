"""The standby: what a worker keeps ready while another worker of the same Pluto writes the file.

This file owns the last seconds of what came in, and decides which of it the file lacks when its writer has ended. It
never writes. Only the store's thread uses it.
"""

from __future__ import annotations

from collections import deque

from storage.changes import Arrival, Change
from storage.file import StoreFile
from storage.intake import Batch, Intake

KEPT = 5  # turns of the store: longer than a writer needs to write, and another worker to notice its end


class Standby:
    """Takes what comes in. `began_at` is when that began, in ms since the epoch."""

    def __init__(self, began_at: int) -> None:
        self._batches: deque[Batch] = deque()
        self._forgotten_until = began_at  # what came before is not here any more

    def take(self, batch: Batch) -> None:
        self._batches.append(batch)
        if len(self._batches) > KEPT:
            forgotten = self._batches.popleft().arrivals
            self._forgotten_until = max([self._forgotten_until, *(arrival.at for arrival in forgotten)])

    def continuation(self, file: StoreFile, intake: Intake) -> Batch:
        """What the file lacks. If something is lost, there is a gap in it, and after that what is true now."""
        self.take(intake.take())
        arrivals = [arrival for batch in self._batches for arrival in batch.arrivals]
        if file.alive_at < self._forgotten_until:
            whole = intake.take_for_fresh_file(Batch({}, arrivals))
            return Batch(whole.tracked, file.end_all(file.alive_at) + whole.arrivals)
        tracked = {ticker: is_tracked for batch in self._batches for ticker, is_tracked in batch.tracked.items()}
        return Batch(tracked, _lacking(file, arrivals))


def _lacking(file: StoreFile, arrivals: list[Arrival]) -> list[Arrival]:
    """Those after the last change that the file has of their ticker."""
    lacking: list[Arrival] = []
    for ticker in {arrival.ticker: None for arrival in arrivals}:
        own = [arrival for arrival in arrivals if arrival.ticker == ticker]
        last = file.last_change(ticker)
        lacking += own if last is None else _after(last, own)
    return sorted(lacking, key=lambda arrival: arrival.at)


def _after(last: Change, arrivals: list[Arrival]) -> list[Arrival]:
    """Each worker has its own `at` of the same change; what the page said is the same for all."""
    same = [number for number, arrival in enumerate(arrivals) if _told(arrival) == _told_in(last)]
    if same:
        return arrivals[same[-1] + 1 :]
    later = [arrival for arrival in arrivals if arrival.at > last.at]
    while later and _told(later[0])[:2] == _told_in(last)[:2]:  # a renewed proof
        del later[0]
    return later


def _told(arrival: Arrival) -> tuple[object, ...]:
    return _told_in(arrival.change(arrival.at, 0))


def _told_in(change: Change) -> tuple[object, ...]:
    return change.state, change.price_text, change.timestamp
