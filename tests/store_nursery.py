"""Kills stores while they write: forks processes with a store alone, and ends each by SIGKILL at a random moment.

    store_nursery.py FILE KILLS SEED

Each child puts the prices RUN.000001, RUN.000002, … as fast as it can. After each kill a line says how many it had put,
and how many it knew to be written. Run by test_store_faults.py.
"""

from __future__ import annotations

import math
import mmap
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

from quotes import Quote, Source, State, Ticker
from storage.remembered import Remembered
from store import Store, StoreSettings

COUNTS = struct.Struct("=QQ")
TICKER = Ticker("BTCUSD")


def write(path: Path, run: int, counts: mmap.mmap) -> None:
    store = Store(StoreSettings(path, turn=0.01), Remembered(lambda quote: None))
    if not store.start(lambda tickers: None) and run:
        raise AssertionError("the watchlist is lost")
    store.add(TICKER)
    put = 0
    while True:
        put += 1
        counts[:] = COUNTS.pack(put, store.written)  # before: a kill may come at once after the put
        now = round(time.time() * 1000)
        store.put(Quote(TICKER, State.LIVE, f"{run}.{put:06d}", 0.5, now, Source.SOCKET, now, proven_until=math.inf))
        if put % 20 == 0:
            time.sleep(0.001)


def main(path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    for run in range(kills):
        counts = mmap.mmap(-1, COUNTS.size)
        counts[:] = COUNTS.pack(0, 0)
        if not (child := os.fork()):
            try:
                write(path, run, counts)
            finally:
                os._exit(1)
        while not COUNTS.unpack(counts[:])[1]:
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit(f"run {run} ended by itself")
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(run, *COUNTS.unpack(counts[:]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
