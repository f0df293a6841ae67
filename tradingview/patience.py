"""Patience: how long Pluto waits for a page, a renderer and the browser, and how much one page may cost.

This file owns the figures and how waits grow; it starts no timer and holds no state. Any thread may read it. Pluto runs
with the defaults; tests are less patient.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from quotes import State
from tradingview.feed import PageTrouble
from tradingview.machine import usable_cpus


@dataclass(frozen=True)
class Patience:
    """Times are in seconds, unless a line says otherwise."""

    # A page.
    answer: float = 20.0  # for its host to answer
    opening: float = 45.0  # for all that comes before its first document
    first_price: float = 20.0  # for a price that can be read, from DOMContentLoaded on,
    first_price_in_all: float = 60.0  # and from the request on; both grow with each failure
    recognised: float = 10.0  # for a symbol's facts or header, from DOMContentLoaded on
    passing: float = 10.0  # for a check that leads on by itself
    solving: float = 60.0  # since a check's iframe was loaded last, a person may be at it
    leisurely: float = 3.0  # a wall that loads itself again no sooner than this does no harm
    settled: float = 5.0  # a page that has shown prices for this long has done well
    pulse: float = 2.0  # between two signs of the probe that the page is running

    most_slack: float = 8.0  # the factor by which patience for a price grows at most

    # What a page may cost Pluto, a second (rate) and at once (burst).
    max_message: int = 64 * 1024  # characters of one message of the probe
    event_rate: float = 200.0  # events are all that Pluto has to read because of a page; a busy symbol has 20 a second
    event_burst: float = 600.0
    event_size: int = 16 * 1024  # characters that count as one more event
    iframe_cost: float = 5.0  # in events: it costs the whole renderer as much as many
    disturbance_rate: float = 0.1  # windows, dialogs, downloads, and pages that leave or load themselves again
    disturbance_burst: float = 20.0

    # A group of pages, which share a renderer.
    frozen: float = 12.0  # a page that has shown a price and is silent for this long is frozen
    reload_memory: float = 600.0  # a page that freezes again this soon after it was reloaded is replaced
    heap_check: float = 10.0  # between two looks at the heaps
    heap_excess: float = 600.0  # MB by which a renderer may exceed its pages' share before it is given up

    # The browser.
    tick: float = 1.0
    ping: float = 3.0  # between an answer of the browser and the next question
    ping_limit: float = 20.0  # for its answer; then it hangs
    weigh: float = 60.0  # between two looks at its memory
    room_memory: float = 600.0  # memory that is exceeded again this soon has no room for so many pages
    no_room_retry: float = 600.0
    good_session: float = 5.0  # a browser that ran for longer, with a live page, did well
    end_grace: float = 0.1  # for processes to follow a browser that has ended; then they are killed

    # Opening pages, and opening them again.
    max_opening: int = 4  # pages that wait for their first document at once
    # Pages that have no price yet at once: more would only keep each other from the processor, and all come late.
    max_loading: int = 3 * usable_cpus()
    loading: float = 3.0  # a page that has loaded and shows none for longer no longer holds up others
    retry_first: float = 1.0
    retry_limit: float = 60.0
    not_found_retry: float = 600.0
    blocked_retry: float = 120.0
    blocked_limit: float = 1800.0
    blocked_spacing: float = 2.0  # after a refusal the next page opens this much later, twice that after the next
    spacing_limit: float = 60.0
    renewal_retry: float = 600.0
    no_life: float = 30.0  # a price that was live and whose socket gives no sign of life has its page opened again,
    no_life_of_element: float = 180.0  # one that was read from the element alone later
    reopening_waits: tuple[float, ...] = (0.0, 120.0, 600.0, 1800.0)  # between two such openings
    reopening_memory: float = 600.0  # a page that is live for longer begins at the first wait again
    asked_retry: float = 10.0  # between two tries that a user asks for

    def slack(self, failures: int) -> float:
        """The factor by which a page may take longer for its price, after so many failures in a row."""
        return min(2.0 ** min(failures, 10), self.most_slack)

    def backoff(self, failures: int) -> float:
        """Until the next try: doubling up to a limit, spread by a quarter so that tickers don't retry as one."""
        delay: float = min(self.retry_first * 2.0 ** min(failures - 1, 10), self.retry_limit)
        return delay * random.uniform(0.75, 1.0)

    def retry_delay(self, trouble: PageTrouble, failures: int) -> float:
        """Until a ticker is tried again that has failed so often in a row, for the last time by this trouble."""
        if trouble.state is State.NOT_FOUND or trouble.alternative is not None:
            return self.not_found_retry
        if trouble.state is State.BLOCKED:
            wait = min(self.blocked_retry * 2.0 ** min(failures - 1, 10), self.blocked_limit)
            asked = trouble.delay or 0.0
            return asked if asked and failures == 1 else max(asked, wait * random.uniform(1.0, 1.25))
        return self.backoff(failures) if trouble.delay is None else trouble.delay
