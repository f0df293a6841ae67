"""Patience: how long Pluto waits for a page, a renderer and the browser, and how much one page may cost.

This file owns the figures and how waits grow; it starts no timer and holds no state. Any thread may read it. Pluto runs
with the defaults; tests are less patient.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from quotes import BETWEEN_TRIES_S, State
from tradingview.feed import PageTrouble
from tradingview.machine import usable_cpus


@dataclass(frozen=True)
class Patience:
    """Times are in seconds, unless a line says otherwise."""

    # A page.
    answer: float = 20.0  # for its host to answer
    opening: float = 45.0  # for everything before its first document
    first_price: float = 20.0  # for a readable price, since DOMContentLoaded;
    first_price_in_all: float = 60.0  # since the request; both grow with each failure
    recognised: float = 10.0  # for a symbol's facts or header, since DOMContentLoaded
    passing: float = 10.0  # for a check that passes by itself
    solving: float = 60.0  # since a check's iframe last loaded: a person may be solving it
    leisurely: float = 3.0  # a wall that reloads itself less often than this does no harm
    settled: float = 5.0  # a page that has shown prices for this long works
    proof_factor: float = 1.0  # how many times as long as in proof.py a proof lasts; less: tests
    pulse: float = 2.0  # between two pulses of the probe

    most_slack: float = 8.0  # the highest factor by which patience for a price grows

    # What a page may cost Pluto: per second (rate) and at once (burst).
    max_message: int = 64 * 1024  # characters of one probe message
    event_rate: float = 200.0  # an event is anything that a page makes Pluto read; a busy symbol has 20 a second
    event_burst: float = 600.0
    event_size: int = 16 * 1024  # characters that count as one more event
    iframe_cost: float = 5.0  # in events: what each iframe costs the renderer
    disturbance_rate: float = 0.1  # windows, dialogs, downloads, and pages that leave or reload themselves
    disturbance_burst: float = 20.0

    # A group of pages, which share a renderer.
    frozen: float = 12.0  # a page that has shown a price is frozen after this silence
    reload_memory: float = 600.0  # a page that freezes again this soon after its reload is replaced
    heap_check: float = 10.0  # between two checks of the heaps
    tidy_heap: float = 100.0  # MB; Pluto never orders the collection of a larger heap: that takes 5 s a GB
    heap_excess: float = 600.0  # MB above its pages' share at which Pluto gives a renderer up

    # The browser.
    tick: float = 1.0
    ping: float = 3.0  # between an answer of the browser and the next question
    ping_limit: float = 20.0  # for its answer; after that it counts as hung
    weigh: float = 60.0  # between two checks of its memory
    room_memory: float = 600.0  # if the memory limit is exceeded again this soon, there are too many pages
    no_room_retry: float = 600.0
    good_session: float = 5.0  # a browser that ran longer, with a live page, worked
    end_grace: float = 0.1  # for processes to end after their browser; then Pluto kills them

    # Opening pages, and opening them again.
    max_opening: int = 4  # pages waiting for their first document at once
    # Pages without a price yet at once: more would compete for the processors, and all would be late.
    max_loading: int = 3 * usable_cpus()
    loading: float = 3.0  # a loaded page without a price holds up others for this long
    retry_first: float = 1.0
    retry_limit: float = 60.0
    not_found_retry: float = 600.0
    blocked_retry: float = 120.0
    blocked_limit: float = 1800.0
    blocked_spacing: float = 2.0  # until the next page after a refusal; doubles with each further refusal
    spacing_limit: float = 60.0
    renewal_retry: float = 600.0
    no_life: float = 30.0  # after this silence of a live price's socket, its page is reopened;
    no_life_of_element: float = 180.0  # the same for a price read from the element alone
    reopening_waits: tuple[float, ...] = (0.0, 120.0, 600.0, 1800.0)  # between two reopenings
    reopening_memory: float = 300.0  # after this time of being live, a page's waits begin anew
    asked_retry: float = BETWEEN_TRIES_S

    def slack(self, failures: int) -> float:
        """The factor by which a page may take longer for its price, after this many failures in a row."""
        return min(2.0 ** min(failures, 10), self.most_slack)

    def backoff(self, failures: int) -> float:
        """Seconds to the next try: doubling up to a limit, minus up to a quarter so that tickers don't retry as one."""
        delay: float = min(self.retry_first * 2.0 ** min(failures - 1, 10), self.retry_limit)
        return delay * random.uniform(0.75, 1.0)

    def retry_delay(self, trouble: PageTrouble, failures: int) -> float:
        """Seconds until Pluto tries a ticker again, after this trouble and this many failures in a row."""
        if trouble.state is State.NOT_FOUND or trouble.alternative is not None:
            return self.not_found_retry
        if trouble.state is State.BLOCKED:
            wait = min(self.blocked_retry * 2.0 ** min(failures - 1, 10), self.blocked_limit)
            asked = trouble.delay or 0.0
            return asked if asked and failures == 1 else max(asked, wait * random.uniform(1.0, 1.25))
        return self.backoff(failures) if trouble.delay is None else trouble.delay
