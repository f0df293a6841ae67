"""Pluto, of which signals block a thread, as a call would that does not return: run by `drills.py`.

SIGUSR1 blocks the hub for two seconds; SIGUSR2 blocks the scraper thread for twenty, inside the loop of its session.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from contextlib import suppress

import gevent

from app import main
from scraper import Session

HUB_BLOCK_S, SCRAPER_BLOCK_S = 2.0, 20.0


def block_scraper() -> None:
    for session in [it for it in gc.get_objects() if isinstance(it, Session)]:
        with suppress(RuntimeError):  # the loop of one that has ended is closed
            session._loop.call_soon_threadsafe(time.sleep, SCRAPER_BLOCK_S)


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR1, time.sleep, HUB_BLOCK_S)
    gevent.signal_handler(signal.SIGUSR2, block_scraper)
    sys.exit(main(sys.argv[1:]))
