"""Supervision: what hangs or dies inside Pluto is noticed, said once, and started again where that helps.

This file owns three watches: one for a hub that doesn't turn, one for a scraper thread that hangs or dies, one for the
simulator's process. It restarts the latter two, and says when only a new process of Pluto can help. It never touches
the browser, a price or a request.

`Supervisor` and `Simulator` belong to the hub thread. `HubWatchdog` has a thread of its own, because a hub that doesn't
turn can't watch itself. gevent's own monitor doesn't see what blocks inside a callback of the loop, and slows every
switch down.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import gevent

from broadcast import Broadcaster
from quotes import PlutoError, QuoteSource, SourceState

log = logging.getLogger("pluto.supervision")

HUB_LIMIT_S = 2.0  # the hub turns many times a second; after this long nobody is told anything
HUB_BEAT_S = 0.25
CHECK_S = 0.5
SIMULATOR_PAUSE_S, SIMULATOR_MAX_PAUSE_S = 1.0, 30.0  # before another try to start the simulator; doubled each time
PROJECT = Path(__file__).parent.parent


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


@dataclass(frozen=True)
class Patience:
    """How long the scraper may be silent, and how soon it is started again; times are in seconds."""

    tick: float = 5.0  # the scraper's thread shows itself about once a second; silent for this long, it hangs
    hang: float = 60.0  # a thread that hangs for this long won't come back, and can't be killed
    restart: float = 0.25  # before the first restart; doubled with every further death within `deaths_window`
    deaths: int = 5  # after so many deaths within `deaths_window`, restarting is of no use
    deaths_window: float = 60.0


class Supervisor:
    """Watches the source's threads: restarts one that dies, and says so when only a new process can help.

    `name` is what people call the source: the scraper, or the relay where there is none. It doesn't touch prices: when
    nobody renews their proofs, the broadcaster shows them as stale.
    """

    def __init__(
        self, source: QuoteSource, broadcaster: Broadcaster, patience: Patience | None = None, *, name: str = "scraper"
    ) -> None:
        self.name, self.state = name, ScraperState.RUNNING
        self.counters: Counter[str] = Counter()
        self._source, self._broadcaster, self._patience = source, broadcaster, patience or Patience()
        self._deaths: deque[float] = deque(maxlen=self._patience.deaths)
        self._give_up: Callable[[str], None] = log.critical
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self, give_up: Callable[[str], None]) -> None:
        """Calls `give_up` once, with a sentence for the user, when only a new process can help."""
        self._give_up = give_up
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill()

    @property
    def failure(self) -> str | None:
        """Why only a restart of the whole program would help; None if nothing requires one."""
        if self.state is ScraperState.FAILED:
            return f"the {self.name} died again and again"
        if self.state is ScraperState.HANGING and self._silence_s() > self._patience.hang:
            return f"the {self.name} hangs for good"
        if self._greenlet is not None and self._greenlet.dead:
            return f"nobody watches the {self.name} any more"
        return None if self._broadcaster.is_flushing else "the flush loop has ended"

    def _silence_s(self) -> float:
        return time.monotonic() - self._source.last_tick

    def _watch(self) -> None:
        while self.state is not ScraperState.FAILED:
            gevent.sleep(CHECK_S)
            if self._source.state is SourceState.DEAD:
                self._on_death()
            elif self._silence_s() > self._patience.tick:
                self._on_silence()
            elif self.state is ScraperState.HANGING:
                self.state = ScraperState.RUNNING
                log.warning("the %s is back", self.name)

    def _on_silence(self) -> None:
        if self.state is not ScraperState.HANGING:
            self.state = ScraperState.HANGING
            self.counters[f"{self.name}_hangs"] += 1
            log.error("the %s hangs; each price becomes stale when its proof runs out", self.name)

    def _on_death(self) -> None:
        self.state = ScraperState.RESTARTING
        self.counters[f"{self.name}_deaths"] += 1
        patience, now = self._patience, time.monotonic()
        self._deaths.append(now)
        recent = sum(now - died_at < patience.deaths_window for died_at in self._deaths)
        if recent == patience.deaths:
            self.state = ScraperState.FAILED
            self._give_up(f"The {self.name} died {recent} times within a minute, so Pluto ends; the log says why.")
            return
        gevent.sleep(patience.restart * 2.0 ** (recent - 1))
        self._source.restart()
        self.state = ScraperState.RUNNING


# --- the simulator ----------------------------------------------------------------------------------------------------


class SimulatorFailed(PlutoError):
    code = "simulator_failed"


class Simulator:
    """The simulator's process. One that ends is started again at the same address.

    It ends when the pipe to it closes, however Pluto ends.
    """

    def __init__(self) -> None:
        """Waits until it listens. Raises SimulatorFailed."""
        self._process, self.url = _start_simulator(0)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @contextmanager
    def running(self) -> Iterator[Simulator]:
        greenlet = gevent.spawn(self._watch)
        try:
            yield self
        finally:
            greenlet.kill()
            self._stop()

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _watch(self) -> None:
        pause = SIMULATOR_PAUSE_S
        while True:
            gevent.sleep(CHECK_S)
            if self.is_running:
                continue
            log.error("the simulator has ended (exit code %d); Pluto starts it again", self._process.returncode)
            try:
                start = _start_simulator, (urlsplit(self.url).port,)
                self._process, self.url = gevent.get_hub().threadpool.apply(*start)
            except (SimulatorFailed, OSError) as error:
                log.error("%s Next try in %.0f s.", error, pause)
                gevent.sleep(pause)
                pause = min(2 * pause, SIMULATOR_MAX_PAUSE_S)
            else:
                pause = SIMULATOR_PAUSE_S
                log.warning("the simulator is back")


def _start_simulator(port: int) -> tuple[subprocess.Popen[str], str]:
    """Its process and its URL. Waits until it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", str(port), "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        start_new_session=True,  # Ctrl-C is Pluto's to handle
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("simulator: "):
        process.wait()
        raise SimulatorFailed("The simulator didn't start; what it printed above says why.")
    return process, line.split()[1]
