"""A store on a real file, without the rest of Pluto, and plain Python's idea of what it must hold."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

from running import wait_until

from quotes import Quote, Source, State, Ticker
from storage.candles import Candle
from storage.changes import Arrival, Change, change_of
from storage.file import StoreFile
from storage.intake import Batch
from storage.remembered import Remembered
from storage.schema import connect_reader
from store import Store, StoreSettings, StoreState

BTC, ETH = Ticker("BTCUSD"), Ticker("ETHUSD")


def live(price: str, ticker: Ticker = BTC, proven_until: float = math.inf) -> Quote:
    now = round(time.time() * 1000)
    return Quote(ticker, State.LIVE, price, 1.5, now - 20, Source.SOCKET, now - 300, now, proven_until=proven_until)


class Kept:
    """A store on a file, and what it shows and restores."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.shown: list[Quote] = []
        self.late: list[Ticker] = []
        self.store = Store(StoreSettings(path, **settings), Remembered(self.shown.append))
        self.found = self.store.start(self.late.extend)

    def put(self, *quotes: Quote) -> None:
        for quote in quotes:
            self.store.put(quote)

    def wait_until_written(self, changes: int) -> None:
        wait_until(lambda: self.store.written >= changes, what=f"{changes} changes written")

    def wait_until(self, state: StoreState) -> None:
        wait_until(lambda: self.store.state is state, what=f"the store is {state}")


@contextmanager
def kept(path: Path, **settings: Any) -> Iterator[Kept]:
    kept = Kept(path, **settings)
    try:
        yield kept
    finally:
        kept.store.stop()


def write_past(folder: Path, pasts: Mapping[Ticker, Iterable[tuple[int, State, str]]]) -> None:
    """A file as an earlier Pluto left it: it tracked these tickers, which had these states and prices at these ms."""
    arrivals = [
        Arrival(at, ticker, Quote(ticker, state, price, 0.5, at, Source.SOCKET, at, at))
        for ticker, past in pasts.items()
        for at, state, price in past
    ]
    arrivals.sort(key=lambda arrival: arrival.at)
    file = StoreFile(folder / "pluto.db", 1.0)
    file.write(Batch(dict.fromkeys(pasts, True), arrivals), arrivals[-1].at)
    file.close()


def changes(path: Path, ticker: Ticker = BTC) -> list[Change]:
    """All of the ticker's changes in the file, in their order; none while there is no file."""
    rows = "SELECT at, n, mark, price, shown, traded FROM change JOIN ticker ON id = ticker"
    try:
        with closing(connect_reader(path, 1.0)) as connection:
            found = connection.execute(f"{rows} WHERE name = ? ORDER BY at, n", (ticker,))
            return [change_of(row) for row in found]
    except sqlite3.OperationalError:
        return []


def told(path: Path, ticker: Ticker = BTC) -> list[tuple[State | None, str | None]]:
    return [(change.state, change.price_text) for change in changes(path, ticker)]


def plain_candles(changes: list[Change], width: int) -> list[Candle]:
    """The candles of all changes of a ticker, in the simplest way."""
    candles = []
    state: State | None = None
    for start, group in groupby(changes, lambda change: change.at // width * width):
        inside = list(group)
        prices = [change.price_text or "" for change in inside if change.state is State.LIVE]
        states = [state, *(change.state for change in inside)]
        state = states[-1]
        if prices:
            gap = any(state not in (State.LIVE, State.CLOSED) for state in states)
            high, low = max(prices, key=Decimal), min(prices, key=Decimal)
            simulated = any(change.simulated for change in inside)
            candles.append(Candle(start, gap, simulated, len(prices), prices[0], high, low, prices[-1]))
    return candles
