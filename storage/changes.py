"""Changes: what history is made of, and how one becomes a row of the table `change`.

This file owns the shape of a change and its encoding in few bytes. It never does I/O: pure functions, for any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from quotes import Quote, Source, State, Ticker

UNRECORDED = "unrecorded"
"""From here on nothing was recorded: Pluto was not running, the ticker not tracked, or the disk took nothing."""

SIMULATED, SHIFTED, SOURCE_SHIFT = 16, 32, 6  # bits of a mark, above those of the state
STATES = (
    None,
    State.STARTING,
    State.SNAPSHOT,
    State.LIVE,
    State.STALE,
    State.NOT_FOUND,
    State.BLOCKED,
    State.ERROR,
    State.CLOSED,
)
SOURCES = (None, Source.SOCKET, Source.DOM, Source.SCRIPT, Source.TITLE)

Row = tuple[int, int, int, str | None, int | None, int | None]
"""at, n, mark, price, and by how many ms the page's and the exchange's times come before `at`."""


@dataclass(frozen=True, slots=True)
class Change:
    """A ticker's new price or new state. Times are in ms since the epoch; None means unknown.

    `at` is when Pluto had it, and never goes back in a file; `n` counts changes of one ticker at one `at`. `state` is
    None for UNRECORDED. `shifted` means that the machine's clock was set back, so that `at` is later than it said.
    """

    at: int
    n: int
    state: State | None
    price_text: str | None = None
    timestamp: int | None = None
    source_time: int | None = None
    source: Source | None = None
    simulated: bool = False
    shifted: bool = False

    @property
    def is_known(self) -> bool:
        return is_known(self.state)

    def row(self) -> Row:
        mark = STATES.index(self.state) | SOURCES.index(self.source) << SOURCE_SHIFT
        mark |= SIMULATED * self.simulated | SHIFTED * self.shifted
        shown = None if self.timestamp is None else self.at - self.timestamp
        traded = None if self.source_time is None else self.at - self.source_time
        return self.at, self.n, mark, self.price_text, shown, traded


class Arrival(NamedTuple):
    """A quote that changed something, and the machine's time at which it came; None for UNRECORDED."""

    at: int
    ticker: Ticker
    quote: Quote | None

    def change(self, at: int, n: int) -> Change:
        """The change, at its place in a file."""
        quote, shifted = self.quote, at != self.at
        if quote is None:
            return Change(at, n, None, shifted=shifted)
        times = quote.timestamp, quote.source_time
        return Change(at, n, quote.state, quote.price_text, *times, quote.source, quote.simulated, shifted)


def is_known(state: State | None) -> bool:
    """Whether the price is known in this state, also while it stands still. Any other state is a gap."""
    return state is State.LIVE or state is State.CLOSED


def state_of(mark: int) -> State | None:
    return STATES[mark & 15]


def change_of(row: Row) -> Change:
    at, n, mark, price_text, shown, traded = row
    return Change(
        at,
        n,
        state_of(mark),
        price_text,
        None if shown is None else at - shown,
        None if traded is None else at - traded,
        SOURCES[mark >> SOURCE_SHIFT],
        bool(mark & SIMULATED),
        bool(mark & SHIFTED),
    )
