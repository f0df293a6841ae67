"""A scraper's half of the relay as a process of its own, without a browser: its pages show what standard input says.

Each line is a JSON list: [ticker, price]; the price is then live for as long as the process runs, its proof renewed
every second as a page does it. Options: the URL of Redis, a name, capacity, seconds of a proof, length of the stream.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from told import Told, live, settings_for

from quotes import Quote, Ticker, steady_ms
from relay.publisher import Publisher


class Renewed(Told):
    """Shows only the pages that are open, and renews their proofs."""

    def __init__(self, show: Callable[[Quote], None]) -> None:
        super().__init__(show)
        self.prices: dict[Ticker, Quote] = {}
        self._telling = threading.Lock()  # else an old price might be told after a new one

    def add(self, ticker: Ticker) -> None:
        super().add(ticker)
        self.tell(ticker, PROOF_MS)

    def tell(self, ticker: Ticker, proof_ms: float) -> None:
        with self._telling:
            if ticker in self.pages and (quote := self.prices.get(ticker)) is not None:
                self.show(replace(quote, proven_until=steady_ms() + proof_ms))

    def renew(self, every_s: float) -> None:
        while True:
            time.sleep(every_s)
            for ticker in list(self.prices):
                self.tell(ticker, PROOF_MS)


logging.basicConfig(level="INFO")
url, name, capacity, proof_s, length = sys.argv[1:]
PROOF_MS = 1000 * float(proof_s)
publisher = Publisher(settings_for(url, name, capacity=int(capacity), length=int(length)), Renewed)
scraper = publisher.scraper
assert isinstance(scraper, Renewed)
threading.Thread(target=scraper.renew, args=[min(1.0, float(proof_s) / 4)], daemon=True).start()
publisher.start()
print("started", flush=True)
for line in sys.stdin:
    ticker, price = json.loads(line)
    scraper.prices[ticker] = live(ticker, price)
    scraper.tell(ticker, PROOF_MS)
publisher.stop()
