"""What alerts cost: 1,000 alerts on 50 tickers, 20 on each, at 20 prices a second of each ticker.

    .venv/bin/python bench/judging.py                 half a minute
    .venv/bin/python bench/judging.py --seconds 4     a short round, to check that it works

Prices are random walks that sometimes cross the alerts' levels. The first ones, of which many are new extremes, aren't
counted: a Pluto that has run for minutes has them behind it. In one process, seconds with all alerts take turns with
seconds without any. Alerts are judged on the scraper's thread, which takes turns with the hub's: their CPU time is the
most that the hub can lose. Prints that time as a share of a core, and exits with 1 if the alerts cost more than LIMIT.
On a busy machine the share is larger.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # not this folder first: this file is no room

from alerts.book import LIMITS, Alerts
from quotes import Quote, Source, State, Ticker
from storage.remembered import Remembered
from store import Store, StoreSettings

TICKERS = [Ticker(f"T{number}USD") for number in range(50)]
RATE = 20  # prices a second of each
WARM_UP = 2_000  # prices of each, as fast as they can be judged
A_TICKER = LIMITS.all // len(TICKERS)
LIMIT = 0.02  # a share of a core


@dataclass
class Spent:
    """CPU time of the judging, in seconds."""

    cpu: float = 0.0
    quotes: int = 0

    @property
    def share(self) -> float:
        """The share of a core that this pace takes, even if the machine was too slow for the pace."""
        return self.cpu / self.quotes * RATE * len(TICKERS)


def alerts_of(ticker: Ticker) -> list[dict[str, object]]:
    """Alerts of every condition, at levels around 1,000: the walk crosses some of them."""
    assert LIMITS.of_ticker >= A_TICKER
    found: list[dict[str, object]] = []
    for number in range(A_TICKER // 5):
        up, down, again = str(1010 + 10 * number), str(990 - 10 * number), {"repeat": True, "cooldown": 10}
        found += [
            {"condition": "above", "value": up, **again},
            {"condition": "below", "value": down, **again},
            {"condition": "crosses", "value": up, **again},
            {"condition": "moves", "value": str(2 + number), "within": 600, **again},
            {"condition": "state", "within": 60 + number, **again},
        ]
    return [{"ticker": ticker, **fields} for fields in found]


def book(folder: Path, *, filled: bool) -> tuple[Store, Alerts, list[object]]:
    rang: list[object] = []
    store = Store(StoreSettings(folder / f"{filled}.db"), Remembered(lambda quote: None))
    alerts = Alerts(store, lambda raised, may_be_lost: rang.append(raised))
    store.keep(alerts)
    store.start(lambda tickers: None)
    for ticker in TICKERS:
        alerts.add(ticker)
        for fields in alerts_of(ticker) if filled else ():
            alerts.make(fields)
    return store, alerts, rang


def price_each(alerts: Alerts, walk: dict[Ticker, int], chance: random.Random, spent: Spent) -> None:
    """One price of each ticker."""
    now = round(time.time() * 1000)
    for ticker in TICKERS:
        walk[ticker] = walk[ticker] + chance.choice((-31, -7, 7, 31))
        price = f"{walk[ticker] // 100}.{walk[ticker] % 100:02d}"
        quote = Quote(ticker, State.LIVE, price, 0.5, now, Source.SOCKET, now, now, proven_until=math.inf)
        before = time.thread_time()
        alerts.put(quote)
        spent.cpu += time.thread_time() - before
        spent.quotes += 1


def round_of(alerts: Alerts, walk: dict[Ticker, int], chance: random.Random, spent: Spent) -> None:
    """A second of prices, at their pace."""
    began = time.monotonic()
    for turn in range(RATE):
        time.sleep(max(0.0, began + turn / RATE - time.monotonic()))
        price_each(alerts, walk, chance, spent)
    time.sleep(max(0.0, began + 1 - time.monotonic()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="default: 30")
    options = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        without, empty, _ = book(Path(folder), filled=False)
        store, full, rang = book(Path(folder), filled=True)
        walks = [dict.fromkeys(TICKERS, 100_000) for _ in range(2)]
        for alerts, walk in zip((empty, full), walks, strict=True):
            for _ in range(WARM_UP):
                price_each(alerts, walk, chance, Spent())
        spent = [Spent(), Spent()]
        for _ in range(options.seconds // 2):
            round_of(empty, walks[0], chance, spent[0])
            round_of(full, walks[1], chance, spent[1])
        store.stop()
        without.stop()
    for name, figures in zip(("without alerts", f"{LIMITS.all} alerts"), spent, strict=True):
        print(
            f"{name:>14}: {1e6 * figures.cpu / figures.quotes:6.2f} µs a quote, {100 * figures.share:5.2f} % of a core"
        )
    cost = spent[1].share - spent[0].share
    print(f"the alerts cost {100 * cost:.2f} % (limit {100 * LIMIT:.0f} %); {len(rang)} rings")
    return int(cost > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
