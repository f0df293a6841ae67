"""Pluto itself, with faults that strike when a test orders them. Run by test_supervision.py, test_expiry.py, drills.py.

Each line of standard input orders one fault:

    hang          stops the scraper's thread until `go on`
    hang 7        does so for so many seconds
    hang 7 0.5    does so half a second after the next proof of a price
    die 2         ends that thread so many times in a row, by an exception that nobody foresees
    block         stops the hub until `go on`
    block 3       does so for so many seconds
    go on         ends what `hang` or `block` stopped
    raise         fails in a callback of the hub
    end           ends the flush loop
    clock 3600    sets the time of day so many seconds ahead, for this process alone
    sleep 3600    moves the clock that counts the machine's sleep, for this process alone, as if it had slept

FAULTY_PATIENCE in the environment, such as "hang=8,restart=12", replaces figures of the supervisor's Patience, and
SCRAPER_PATIENCE those of the scraper's. Nothing else of Pluto is replaced.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent

import app
from broadcast import Broadcaster
from quotes import Quote, steady_ms
from scraper import Scraper, ScraperSettings
from tradingview.patience import Patience as ScraperPatience
from web.supervision import Patience, Supervisor

true_time, true_clock = time.time, time.clock_gettime
may_go_on = threading.Event()
POLL_S = 0.01


def figures_of(variable: str) -> dict[str, Any]:
    figures = (figure.split("=") for figure in os.environ.get(variable, "").split(",") if figure)
    return {name: float(number) for name, number in figures}


class Unforeseen(BaseException):
    """Nothing in Pluto expects this one."""


class FaultyScraper(Scraper):
    """A scraper whose session ends as badly as it was told."""

    deaths_due = 0

    def __init__(self, settings: ScraperSettings, emit: Callable[[Quote], None]) -> None:
        super().__init__(settings, emit, ScraperPatience(**figures_of("SCRAPER_PATIENCE")))

    def _run_session(self) -> None:
        try:
            if not self.deaths_due:
                super()._run_session()
        finally:
            if self.deaths_due:
                self.deaths_due -= 1
                raise Unforeseen("as ordered")


class FaultySupervisor(Supervisor):
    """Is given the program's scraper and broadcaster, which is what the faults need."""

    def __init__(self, scraper: FaultyScraper, broadcaster: Broadcaster, *, name: str) -> None:
        figures = figures_of("FAULTY_PATIENCE")
        patience = Patience(**{name: type(getattr(Patience, name))(number) for name, number in figures.items()})
        super().__init__(scraper, broadcaster, patience, name=name)
        obey = (gevent.get_hub().loop, scraper, broadcaster)
        threading.Thread(target=obey_orders, args=obey, daemon=True).start()


def obey_orders(loop: Any, scraper: FaultyScraper, broadcaster: Broadcaster) -> None:
    for line in sys.stdin:
        match line.split():
            case ("hang",):
                assert scraper.session is not None
                scraper.session.loop.call(stand_still)
            case "hang", seconds:
                assert scraper.session is not None
                scraper.session.loop.call(hang, scraper, float(seconds))
            case "hang", seconds, delay:
                assert scraper.session is not None
                scraper.session.loop.call(hang_after_proof, scraper, float(seconds), float(delay), proof_end(scraper))
            case "die", times:
                scraper.deaths_due = int(times)
                scraper.kill_driver()
            case ("block",):
                loop.run_callback_threadsafe(stand_still)
            case "block", seconds:
                loop.run_callback_threadsafe(time.sleep, float(seconds))
            case "go", "on":
                may_go_on.set()
            case "raise", *_:
                loop.run_callback_threadsafe(fail_in_the_hub)
            case "clock", seconds:
                set_clock(float(seconds))
            case "sleep", seconds:
                sleep(float(seconds))
            case "end", *_:
                loop.run_callback_threadsafe(broadcaster._greenlets[0].kill, gevent.GreenletExit, False)


def proof_end(scraper: Scraper) -> float:
    """Until when the price proven for longest is proven, in ms of our steady clock; 0 if none is."""
    ends = [one.feed.quote(steady_ms()).proven_until for one in scraper.tickers.tracked().values()]
    return max((end for end in ends if end is not None), default=0.0)


def hang(scraper: Scraper, seconds: float) -> None:
    print(f"hangs, proven until {proof_end(scraper)}", file=sys.stderr, flush=True)
    time.sleep(seconds)


def hang_after_proof(scraper: Scraper, seconds: float, delay: float, before: float) -> None:
    assert scraper.session is not None
    if proof_end(scraper) == before:
        scraper.session.loop.later(POLL_S, hang_after_proof, scraper, seconds, delay, before)
    else:
        scraper.session.loop.later(delay, hang, scraper, seconds)


def sleep(seconds: float) -> None:
    time.clock_gettime = lambda clock: true_clock(clock) + (seconds if clock == time.CLOCK_BOOTTIME else 0.0)
    print("slept", file=sys.stderr, flush=True)


def set_clock(ahead_s: float) -> None:
    time.time = lambda: true_time() + ahead_s


def stand_still() -> None:
    may_go_on.wait()
    may_go_on.clear()


def fail_in_the_hub() -> None:
    raise Unforeseen("in the hub")


if __name__ == "__main__":
    vars(sys.modules["scraper"]).update(Scraper=FaultyScraper)
    vars(app).update(Supervisor=FaultySupervisor)
    sys.exit(app.main(sys.argv[1:]))
