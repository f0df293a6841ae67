"""Pluto without a browser: pluto_server.py RATE SIZE [TICKERS] prints its port and serves until it is ended.

All of Pluto but the scraper is real, composed as `app.run` composes it. In place of the scraper, a thread outside the
hub puts a quote of each ticker RATE times a second. The quote's description says when it was put, and pads the JSON of
a batch of one to SIZE bytes. bench/contenders.py starts this with the project on the module path.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import gevent

from app import assemble, create_app
from broadcast import Batch, Broadcaster, Entry
from quotes import Quote, Source, State, Ticker, wire_fields
from settings import Settings
from web.formats import messages
from web.server import Server, listen

TICKER = Ticker("BTCUSD")


def main(rate: float, size: int, count: int = 1) -> None:
    sys.setswitchinterval(0.0005)  # as app.main has it
    parts = assemble(Settings(demo=True, store=False))  # its scraper is never started
    broadcaster = parts.broadcaster
    (listener,) = listen("127.0.0.1", 0)
    server = Server(listener, create_app(parts))
    server.start()
    broadcaster.start()
    tickers = [TICKER, *(Ticker(f"COIN{number}USD") for number in range(1, count))]
    for ticker in tickers:
        broadcaster.add(ticker)
    if rate:
        threading.Thread(target=feed, args=(broadcaster, tickers, rate, padding(size)), daemon=True).start()
    print(f"port {listener.getsockname()[1]}", flush=True)
    gevent.get_hub().join()


def feed(broadcaster: Broadcaster, tickers: list[Ticker], rate: float, pad: str) -> None:
    due = time.monotonic()
    while True:
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        for ticker in tickers:
            broadcaster.put(quote(ticker, pad))


def quote(ticker: Ticker, pad: str) -> Quote:
    now_us = time.time_ns() // 1000
    return Quote(
        ticker,
        State.LIVE,
        price_text="67012.45",
        change_percent=1.25,
        timestamp=now_us // 1000,
        source=Source.SOCKET,
        received_at=now_us // 1000,
        description=f"at={now_us} {pad}",
        simulated=True,
    )


def padding(size: int) -> str:
    """What a description must add so that a batch's JSON has `size` bytes, if its sequence has three digits."""
    unpadded = quote(TICKER, "")
    text = json.dumps(wire_fields(unpadded, 100), separators=(",", ":"))
    [(_, message)] = messages(Batch("", unpadded.timestamp or 0, None, [], [Entry(unpadded, 100, 0, text)]))
    return "x" * (size - len(message))


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
