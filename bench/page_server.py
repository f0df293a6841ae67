"""Pluto without a scraper, for `page.py`: web layer, broadcaster and store, with invented prices at full rate.

Every ticker changes in every batch, in all the fields that a row shows, and the store has a day of it. Prints its
address; ends with SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import gevent
from gevent.event import Event

from app import assemble, create_app
from quotes import Quote, Source, State, Ticker
from settings import Settings
from storage.changes import Arrival
from storage.file import StoreFile
from storage.intake import Batch
from storage.schema import path_of
from web.parts import Parts
from web.server import Server, listen

DECIMALS = (2, 4, 5, 8)
VOLATILITY = 0.0003  # a step of the walk, as a part of the price
MINUTE, DAY = 60_000, 86_400_000  # ms


class Market:
    """One ticker's random walk."""

    def __init__(self, number: int) -> None:
        self.ticker = Ticker(f"COIN{number:02}USDT")
        self._walk = random.Random(number)
        self._places = DECIMALS[number % len(DECIMALS)]
        self._open = self._price = 10.0 ** (4 - self._places)
        self._low = self._high = self._price

    def quote(self, now: int) -> Quote:
        """The next price, at this time in ms."""
        self._price *= 1 + self._walk.gauss(0, VOLATILITY)
        self._low, self._high = min(self._low, self._price), max(self._high, self._price)
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


def fill(path: Path, markets: list[Market]) -> None:
    """A day with a price a minute."""
    now = round(time.time() * 1000)
    arrivals = [
        Arrival(at, market.ticker, market.quote(at)) for at in range(now - DAY, now, MINUTE) for market in markets
    ]
    file = StoreFile(path, 1.0)
    file.write(Batch({market.ticker: True for market in markets}, arrivals), now)
    file.close()


def feed(parts: Parts, markets: list[Market], period: float) -> None:
    """Puts a quote of every market every `period` s; a late round doesn't delay the next."""
    due = time.monotonic()
    while True:
        for market in markets:
            quote = market.quote(round(time.time() * 1000))
            parts.broadcaster.put(quote)
            parts.store.put(quote)
        due = max(due + period, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tickers", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0, help="batches a second (default: 20)")
    options = parser.parse_args()

    markets = [Market(number) for number in range(options.tickers)]
    with tempfile.TemporaryDirectory() as folder:
        fill(path_of(folder, demo=True), markets)
        parts = assemble(Settings(demo=True, data=folder, max_tickers=1000))
        for ticker in parts.store.start(lambda tickers: None):
            parts.broadcaster.add(ticker)
            parts.store.add(ticker)
        (listener,) = listen("127.0.0.1", 0)
        server = Server(listener, create_app(parts))
        parts.broadcaster.start()
        server.start()
        threading.Thread(target=feed, args=[parts, markets, 1 / options.rate], daemon=True).start()
        stop = Event()
        gevent.signal_handler(signal.SIGTERM, stop.set)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        stop.wait()
        parts.broadcaster.stop()
        server.stop(timeout=0.3)
        parts.store.stop()


if __name__ == "__main__":
    main()
