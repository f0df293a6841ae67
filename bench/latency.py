"""The whole way: from a price that changes in a page in Chromium to the client that reads it.

    .venv/bin/python bench/latency.py            about a minute and a half
    .venv/bin/python bench/latency.py --quick    to check that it works

The simulator, Pluto and its browser run as in real use, each in processes of its own: 20 tickers that change twice a
second each, and 1, 100 and 1,000 SSE clients. All share the machine's cores; nothing is pinned. Requires the tests'
packages (requirements-dev.txt). Times are in ms and end when a client has read the price:

- page: since the page received the price, by the page's own clock (the quote's `timestamp`)
- sent: since the simulator made the price, before it sent it to the page (/truth)
- Pluto: since Pluto had the price (`receivedAt`): the time of the broadcaster and the clients

Pluto sends a batch at once after a quiet spell, else at most every 50 ms. At forty changes a second there are few quiet
spells, so most times include a part of that wait. Every change that a client receives counts. Prints a table, and
writes results/latency.json. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from clients import Receipts, connected, percentile
from contenders import PLUTO_SSE
from fanout import RESULTS, keep, markdown, raise_open_files, warn_of_company
from running import Pluto, Simulator, running_pluto, running_simulator, wait_until

COINS = "BTC ETH SOL BNB XRP ADA DOGE TRX AVAX DOT LINK TON LTC BCH ATOM UNI XLM NEAR APT SUI"
TICKERS = [f"{coin}USDT" for coin in COINS.split()]
RATE = 2.0  # changes a second of each
COUNTS = (1, 100, 1_000)
LIVE_LIMIT_S = 60.0  # for all tickers to be live
WARM_UP_S = 3.0
EVENT = re.compile(rb"id: \w+-(\d+)\ndata: (\{[^\n]*\})\n\n")
TARGET_COUNT, TARGET_P50_MS, TARGET_P99_MS = 100, 15.0, 75.0  # from the page

WAYS = ("page", "sent", "Pluto")
Figures = dict[str, float]


@dataclass
class Event:
    """A batch as it came, and when each client read it, in ns since the epoch."""

    updates: list[dict[str, Any]]
    times: array[int] = field(default_factory=lambda: array("q"))


def events_of(receipts: Receipts) -> list[Event]:
    """The batches in the order of their sequence. If a client read two at once, that moment counts for both."""
    events: dict[int, Event] = {}
    for data, times in receipts.items():
        for sequence, text in EVENT.findall(data):
            event = events.setdefault(int(sequence), Event(json.loads(text)["updates"]))
            event.times.extend(times)
    return [events[sequence] for sequence in sorted(events)]


def changes(events: list[Event]) -> Iterator[tuple[dict[str, Any], array[int]]]:
    """Each change of a price, with the times of its receipts. The first price of a ticker may be old: no change."""
    shown: dict[str, str] = {}
    for event in events:
        for update in event.updates:
            before = shown.get(update["ticker"])
            shown[update["ticker"]] = update["priceText"]
            if before not in (None, update["priceText"]):
                yield update, event.times


def sent_at(truth: list[dict[str, Any]], price: str, before_ms: float) -> float | None:
    """When the simulator last made this price, before it was received."""
    return next((it["time"] for it in reversed(truth) if it["price"] == price and it["time"] <= before_ms), None)


def delays(events: list[Event], simulator: Simulator) -> dict[str, list[float]]:
    truths = {ticker: simulator.truth(ticker) for ticker in TICKERS}
    took: dict[str, list[float]] = defaultdict(list)
    for update, times in changes(events):
        received = [at / 1e6 for at in times]
        sent = sent_at(truths[update["ticker"]], update["priceText"], min(received))
        for way, start in zip(WAYS, (update["timestamp"], sent, update["receivedAt"]), strict=True):
            if start is not None:
                took[way] += [at - start for at in received]
    return took


def measure(count: int, seconds: float, pluto: Pluto, simulator: Simulator) -> Figures:
    port = int(pluto.url.rpartition(":")[2])
    with connected(port, PLUTO_SSE.request, count) as clients:
        clients.listen(WARM_UP_S)
        events = events_of(clients.listen(seconds))
    took = delays(events, simulator)
    figures: Figures = {"changes": len(took["page"]) / count, "batches_per_s": len(events) / seconds}
    for way in WAYS:
        took[way].sort()
        figures[f"{way}_p50_ms"] = percentile(took[way], 0.50)
        figures[f"{way}_p99_ms"] = percentile(took[way], 0.99)
    return figures


def measure_all(seconds: float) -> dict[int, Figures]:
    with (
        running_simulator("--rate", str(RATE)) as simulator,
        running_pluto("--source-url", simulator.url, "--log-level", "warning") as pluto,
    ):
        for ticker in TICKERS:
            pluto.add(ticker).raise_for_status()
        wait_until(lambda: all_live(pluto), LIVE_LIMIT_S, what="every ticker is live")
        time.sleep(WARM_UP_S)
        return {count: measure(count, seconds, pluto, simulator) for count in COUNTS}


def all_live(pluto: Pluto) -> bool:
    prices = pluto.http.get("/api/tickers").raise_for_status().json()["prices"]
    return len(prices) == len(TICKERS) and all(price["state"] == "live" for price in prices)


def report(results: dict[int, Figures]) -> str:
    headings = ["clients", "batches/s", *(f"{way} {part}" for way in WAYS for part in ("p50", "p99"))]
    keys = ["batches_per_s", *(f"{way}_{part}_ms" for way in WAYS for part in ("p50", "p99"))]
    rows = [[f"{count:,}", *(f"{figures[key]:.1f}" for key in keys)] for count, figures in results.items()]
    p50, p99 = (results[TARGET_COUNT][f"page_{part}_ms"] for part in ("p50", "p99"))
    verdict = "reached" if p50 <= TARGET_P50_MS and p99 <= TARGET_P99_MS else "MISSED"
    return (
        f"{len(TICKERS)} tickers, {RATE:g} changes a second each; ms until a client has read the price\n\n"
        f"{markdown(headings, rows)}\n\n"
        f"target, from the page, {TARGET_COUNT} clients: p50 at most {TARGET_P50_MS:g} ms, p99 at most "
        f"{TARGET_P99_MS:g} ms; measured {p50:.1f} and {p99:.1f}: {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="measure for 5 s each instead of 15")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [bench/results]")
    arguments = parser.parse_args()
    raise_open_files()
    warn_of_company()
    results = measure_all(5.0 if arguments.quick else 15.0)
    print(report(results))
    keep(arguments.out / "latency.json", results=results)


if __name__ == "__main__":
    main()
