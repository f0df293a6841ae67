"""Pluto itself, whose faults are at the command of whoever writes to its standard input.

Run by test_supervision.py and drills.py.

A line is one fault: `hang 7` stops the scraper's thread for so many seconds, `die 2` ends it so many times in a row by
an exception that nobody foresees, `block 3` stops the hub, `raise 0` fails in a callback of the hub, `end 0` ends the
flush loop, `clock 3600` sets the clock so many seconds off, for this process alone. Nothing of Pluto is replaced but
the moment at which a fault strikes.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import gevent

import app
from broadcast import Broadcaster
from scraper import Scraper
from web.supervision import Supervisor

true_time = time.time


class Unforeseen(BaseException):
    """Nothing in Pluto expects this one."""


class FaultyScraper(Scraper):
    """A scraper whose session ends as badly as it was told."""

    deaths_due = 0

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

    def __init__(self, scraper: FaultyScraper, broadcaster: Broadcaster) -> None:
        super().__init__(scraper, broadcaster)
        obey = (gevent.get_hub().loop, scraper, broadcaster)
        threading.Thread(target=obey_orders, args=obey, daemon=True).start()


def obey_orders(loop: Any, scraper: FaultyScraper, broadcaster: Broadcaster) -> None:
    for line in sys.stdin:
        fault, number = line.split()
        match fault:
            case "hang":
                assert scraper.session is not None
                scraper.session.loop.call(time.sleep, float(number))
            case "die":
                scraper.deaths_due = int(number)
                scraper.kill_driver()
            case "block":
                loop.run_callback_threadsafe(block_the_hub, float(number))
            case "raise":
                loop.run_callback_threadsafe(fail_in_the_hub)
            case "clock":
                set_clock(float(number))
            case "end":
                loop.run_callback_threadsafe(broadcaster._greenlets[0].kill, gevent.GreenletExit, False)


def set_clock(ahead_s: float) -> None:
    time.time = lambda: true_time() + ahead_s


def block_the_hub(seconds: float) -> None:
    time.sleep(seconds)


def fail_in_the_hub() -> None:
    raise Unforeseen("in the hub")


if __name__ == "__main__":
    vars(app).update(Scraper=FaultyScraper, Supervisor=FaultySupervisor)
    sys.exit(app.main(sys.argv[1:]))
