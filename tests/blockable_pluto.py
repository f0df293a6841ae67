"""Pluto, whose hub SIGUSR1 blocks for two seconds, as a call would that does not give way. Run by `drills.py`."""

from __future__ import annotations

import signal
import sys
import time

import gevent

from app import main

BLOCK_S = 2.0

if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR1, time.sleep, BLOCK_S)
    sys.exit(main(sys.argv[1:]))
