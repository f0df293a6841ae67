"""Pluto's web layer and broadcaster with invented prices at full rate, for `page.py`: no browser scrapes here.

Every ticker changes in every batch, with all the fields that a row shows. Prints its address; ends with SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import gevent
from gevent.event import Event

from app import assemble, create_app
from broadcast import Broadcaster
from quotes import Quote, Source, State, Ticker
from settings import Settings
from web.server import Server, listen

DECIMALS = (2, 4, 5, 8)
VOLATILITY = 0.0003  # a step of the walk, as a part of the price


class Market:
    """One ticker's random walk."""

    def __init__(self, number: int) -> None:
        self.ticker = Ticker(f"COIN{number:02}USDT")
        self._walk = random.Random(number)
        self._places = DECIMALS[number % len(DECIMALS)]
        self._open = self._price = 10.0 ** (4 - self._places)
        self._low = self._high = self._price

    def quote(self) -> Quote:
        self._price *= 1 + self._walk.gauss(0, VOLATILITY)
        self._low, self._high = min(self._low, self._price), max(self._high, self._price)
        now = round(time.time() * 1000)
        change = self._price - self._open
        return Quote(
            self.ticker,
            State.LIVE,
            f"{self._price:.{self._places}f}",
            change_percent=100 * change / self._open,
            timestamp=now,
            source=Source.SOCKET,
            source_time=now,
            received_at=now,
            proven_until=math.inf,
            change=change,
            volume=self._walk.uniform(1e6, 1e7),
            high=self._high,
            low=self._low,
            open=self._open,
            bid=self._price * 0.9999,
            ask=self._price * 1.0001,
            currency="USDT",
            exchange="BINANCE",
            description=f"Coin {self.ticker[4:6]} / TetherUS",
        )


def feed(broadcaster: Broadcaster, markets: list[Market], period: float) -> None:
    """Puts a quote of every market every `period` s, without drifting."""
    due = time.monotonic()
    while True:
        for market in markets:
            broadcaster.put(market.quote())
        due = max(due + period, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tickers", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0, help="batches a second")
    options = parser.parse_args()

    parts = assemble(Settings(demo=True, store=False, max_tickers=1000))
    broadcaster = parts.broadcaster
    markets = [Market(number) for number in range(options.tickers)]
    for market in markets:
        broadcaster.add(market.ticker)
    (listener,) = listen("127.0.0.1", 0)
    server = Server(listener, create_app(parts))
    broadcaster.start()
    server.start()
    threading.Thread(target=feed, args=[broadcaster, markets, 1 / options.rate], daemon=True).start()
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    stop.wait()
    broadcaster.stop()
    server.stop(timeout=0.3)


if __name__ == "__main__":
    main()
