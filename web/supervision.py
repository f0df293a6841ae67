"""Supervision: what hangs or dies inside Pluto is noticed, said once, and started again where that helps.

This file owns two watches: a hub that doesn't turn, and a scraper thread that hangs or dies. It never touches the
browser and answers no request: it tells the broadcaster which prices are no longer proven, restarts the scraper's
thread, and says when the whole program had better be restarted.

`Supervisor` belongs to the hub thread; `HubWatchdog` has a thread of its own, as whatever it watches
for keeps the hub from doing anything. gevent's own monitor doesn't see what blocks inside a callback of the loop, and
slows every switch down.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

import gevent

from broadcast import Broadcaster
from quotes import QuoteSource, State

log = logging.getLogger("pluto.supervision")

HUB_LIMIT_S = 2.0  # the hub turns many times a second; after this long nobody is told anything
HUB_BEAT_S = 0.25
CHECK_S = 0.5
TICK_LIMIT_S = 5.0  # the scraper's thread shows itself about once a second
HANG_LIMIT_S = 60.0  # a thread that hangs for this long won't come back, and can't be killed
RESTART_FIRST_S = 0.25  # before the first restart of a thread that died; doubled with each that soon dies again
DEATHS, DEATHS_WINDOW_S = 5, 60.0  # so many deaths in so many seconds, and restarting the thread is of no use


class ScraperState(StrEnum):
    """What /health says of the scraper's thread."""

    RUNNING = "running"
    HANGING = "hanging"
    RESTARTING = "restarting"
    FAILED = "failed"


# --- the hub ----------------------------------------------------------------------------------------------------------


class HubWatchdog:
    """Says once per incident that the hub doesn't turn, and where it stands."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._hub_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._timer = gevent.get_hub().loop.timer(HUB_BEAT_S, HUB_BEAT_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub watchdog", daemon=True)

    def start(self) -> None:
        self._timer.start(self._beat, update=True)
        self._thread.start()

    def stop(self) -> None:
        self._timer.stop()
        self._timer.close()
        self._ended.set()
        self._thread.join(1.0)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()

    def _watch(self) -> None:
        blocked_since: float | None = None
        while not self._ended.wait(HUB_BEAT_S):
            beat_at = self._beat_at
            if blocked_since is not None and beat_at != blocked_since:
                log.error("the hub turns again, after %.1f s", beat_at - blocked_since)
                blocked_since = None
            if blocked_since is None and time.monotonic() - beat_at > HUB_LIMIT_S:
                blocked_since = beat_at
                self._counters["hub_blocked"] += 1
                log.error("the hub hasn't turned for %.1f s; it stands here:\n%s", HUB_LIMIT_S, self._stack())

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._hub_thread)
        return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


# --- the scraper ------------------------------------------------------------------------------------------------------


class Supervisor:
    """Watches the scraper's thread: no price stays live behind its back, and it is started again when it dies."""

    def __init__(self, source: QuoteSource, broadcaster: Broadcaster) -> None:
        self.state = ScraperState.RUNNING
        self.counters: Counter[str] = Counter()
        self._source, self._broadcaster = source, broadcaster
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._give_up: Callable[[str], None] = log.critical
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self, give_up: Callable[[str], None]) -> None:
        """`give_up` is called, once, with a sentence for the user when only a new process can help."""
        self._give_up = give_up
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill()

    @property
    def failure(self) -> str | None:
        """Why only a restart of the whole program would help; None while it wouldn't."""
        if self.state is ScraperState.FAILED:
            return "the scraper died again and again"
        if self.state is ScraperState.HANGING and time.monotonic() - self._source.last_tick > HANG_LIMIT_S:
            return "the scraper hangs for good"
        if self._greenlet is not None and self._greenlet.dead:
            return "nobody watches the scraper any more"
        return None if self._broadcaster.is_flushing else "the flush loop has ended"

    def _watch(self) -> None:
        while self.state is not ScraperState.FAILED:
            gevent.sleep(CHECK_S)
            if not self._source.is_running:
                self._on_death()
            elif time.monotonic() - self._source.last_tick > TICK_LIMIT_S:
                self._on_hang()
            elif self.state is ScraperState.HANGING:
                self._on_return()

    def _on_hang(self) -> None:
        if self.state is not ScraperState.HANGING:
            self.state = ScraperState.HANGING
            self.counters["scraper_hangs"] += 1
            log.error("the scraper hangs; its prices are stale until it is back")
        self._doubt("the scraper hangs")

    def _doubt(self, reason: str) -> None:
        """Every price that the table has as live is stale from now on."""
        for entry in self._broadcaster.entries:
            if entry.quote.state is State.LIVE:
                self._broadcaster.put(replace(entry.quote, state=State.STALE, reason=reason))

    def _on_return(self) -> None:
        self.state = ScraperState.RUNNING
        log.warning("the scraper is back")
        self._source.tell_again()

    def _on_death(self) -> None:
        self.state = ScraperState.RESTARTING
        self.counters["scraper_deaths"] += 1
        self._doubt("the scraper died and is started again")
        now = time.monotonic()
        self._deaths.append(now)
        recent = sum(now - died_at < DEATHS_WINDOW_S for died_at in self._deaths)
        if recent == DEATHS:
            self.state = ScraperState.FAILED
            self._give_up(f"The scraper died {DEATHS} times within a minute, so Pluto ends; the log says of what.")
            return
        gevent.sleep(RESTART_FIRST_S * 2.0 ** (recent - 1))
        self._source.restart()
        self.state = ScraperState.RUNNING
