"""What it costs and brings to run several Plutos over Redis.

    .venv/bin/python bench/scale.py                 everything, about five minutes
    .venv/bin/python bench/scale.py --seconds 3     short rounds, to see that it works
    .venv/bin/python bench/scale.py --part relay    one part: relay, workers, full or moves

A real Redis server on loopback; every Pluto is a process of its own. In the first three parts a publisher of the relay
is fed with quotes in a scraper's place; in the last one scrapers open pages of the simulator.

- relay: from a quote being put until a reader in another thread has it, beside the bare way (XADD and XREAD of the same
  text by the same client library), in turn. Redis' own CPU time a change, of the relay and of the bare way.
- workers: 20 tickers, ten changes a second each, to clients of one and of two web processes on one port: the CPU time
  of the web processes for each event that a client got, and the time from the quote until a client has read it. Half
  of the clients belong to each of two processes, as the kernel shares them out.
- full: one web process with 10,000 changes a second of 1,000 tickers: the most clients at a p99 below 100 ms, and how
  much of a core each process takes there.
- moves: two scrapers share ten tickers. One is killed: until the other owns all, and until all are live by its own
  pages. Then one comes and goes in order: how long any price was not live.

Prints tables, and writes results/scale.json. Linux only. It needs what the tests need (requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent))  # not this folder first: this file is no room

import psutil
import redis
from clients import Receipts, connected, percentile
from redis_server import RedisServer, redis_server
from relays import Table, change, reading, scraping
from running import Pluto, running_pluto, running_simulator, wait_until
from told import Told, live, settings_for

from quotes import Quote, Ticker
from relay.publisher import Publisher
from relay.scripts import How

RESULTS = Path(__file__).parent / "results"
HEADER = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
RECEIVED = re.compile(rb'"receivedAt":(\d{13})')
FEEDER = "feeder"
RATES = (200, 1_000)  # changes a second
FEW, MANY, CLIENTS = 20, 1_000, 1_000  # tickers, tickers, clients
FULL_RATE, FULL_LIMIT_MS = 10_000, 100.0
STEPS = (10, 25, 50, 100, 150, 200, 300, 400, 600, 800)  # clients of the full process
MOVED = [Ticker(f"{name}USD") for name in ("BTC", "ETH", "SOL", "ADA", "XRP", "DOT", "LTC", "BCH", "TRX", "UNI")]

Figures = dict[str, float]


def tickers(count: int) -> list[Ticker]:
    return [Ticker(f"T{number}USD") for number in range(count)]


def track(scraper: Told, publisher: Publisher, server: RedisServer, wanted: list[Ticker]) -> None:
    """Makes this the watchlist, and waits until the publisher owns it."""
    change(server, How.REPLACE, *wanted, max_tickers=MANY)
    wait_until(lambda: publisher.owned.keys() == scraper.pages == set(wanted), 20)


def redis_cpu_s(server: RedisServer) -> float:
    return float(sum(server.client.info("cpu")[f"used_cpu_{kind}"] for kind in ("sys", "user")))


def in_ms(took_ns: list[float]) -> Figures:
    took_ns.sort()
    return {f"p{part}_ms": percentile(took_ns, part / 100) / 1e6 for part in (50, 99)}


# --- relay ------------------------------------------------------------------------------------------------------------


class Timed(Table):
    """Notes how long each quote took. The price is the number of the quote."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str | None, int] = {}
        self.took: list[float] = []

    def tell(self, quote: Quote) -> None:
        if (at := self.made.pop(quote.price_text, None)) is not None:
            self.took.append(time.monotonic_ns() - at)
        super().tell(quote)


def measure_relay(server: RedisServer, rate: int, seconds: float) -> dict[str, Figures]:
    wanted, timed = tickers(FEW), Timed()
    settings = settings_for(server.url, FEEDER, capacity=MANY, max_tickers=MANY)
    with scraping(settings) as (scraper, publisher), reading(settings, timed):
        track(scraper, publisher, server, wanted)
        wait_until(lambda: len(timed.quotes) == FEW)
        before = redis_cpu_s(server)

        def put(number: int) -> None:
            timed.made[str(number)] = time.monotonic_ns()
            scraper.show(live(wanted[number % FEW], str(number)))

        count = paced(rate, seconds, put)
        time.sleep(0.2)
        redis_us = (redis_cpu_s(server) - before) / count * 1e6
    relayed = in_ms(timed.took) | {"redis_us": redis_us, "delivered": len(timed.took) / count}
    return {"relay": relayed, "bare": measure_bare(server, rate, seconds)}


def measure_bare(server: RedisServer, rate: int, seconds: float) -> Figures:
    text = "x" * 300
    took: list[float] = []
    writer, reader = (redis.Redis(port=server.port, decode_responses=True) for _ in range(2))
    ends = threading.Event()

    def read() -> None:
        position = "$"
        while not ends.is_set():
            found: Any = reader.xread({"bare": position}, block=200)
            for position, values in found[0][1] if found else ():  # noqa: B007
                took.append(time.monotonic_ns() - int(values["at"]))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.1)
    before = redis_cpu_s(server)
    count = paced(
        rate, seconds, lambda number: writer.xadd("bare", {"at": time.monotonic_ns(), "text": text}, maxlen=10_000)
    )
    time.sleep(0.1)
    ends.set()
    thread.join()
    return in_ms(took) | {"redis_us": (redis_cpu_s(server) - before) / count * 1e6, "delivered": len(took) / count}


def paced(rate: int, seconds: float, do: Any) -> int:
    """Calls `do` with 0, 1, 2 … at this rate. Returns how often."""
    began, count = time.monotonic(), round(rate * seconds)
    for number in range(count):
        if (wait := began + number / rate - time.monotonic()) > 0:
            time.sleep(wait)
        do(number)
    return count


# --- web processes ----------------------------------------------------------------------------------------------------


def feed(url: str, count: int, rate: int) -> None:
    """A process of its own: publishes `rate` changes a second of so many tickers until it is killed."""
    wanted, settings = tickers(count), settings_for(url, FEEDER, capacity=MANY, max_tickers=MANY)
    with scraping(settings) as (scraper, publisher):
        wait_until(lambda: len(publisher.owned) == count, 30)
        began, number = time.monotonic(), 0
        while True:
            due = round((time.monotonic() - began) * rate)
            for number in range(number, due):  # noqa: B020
                scraper.show(live(wanted[number % count], f"{1000 + number % 997}.25"))
            number = due
            time.sleep(0.005)


@contextmanager
def feeding(server: RedisServer, count: int, rate: int) -> Iterator[psutil.Process]:
    settings = settings_for(server.url, "list", capacity=MANY, max_tickers=MANY)
    server.client.flushall()
    with scraping(settings) as (scraper, publisher):
        track(scraper, publisher, server, tickers(count))
    process = subprocess.Popen([sys.executable, __file__, "--feed", server.url, str(count), str(rate)])
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(time.clock_gettime(~process.pid << 3 | 2) for process in processes)


def web_options(server: RedisServer, workers: int) -> list[str]:
    options = {"--redis": server.url, "--role": "web", "--workers": str(workers), "--max-tickers": str(MANY)}
    return [*(text for pair in options.items() for text in pair), "--no-store"]


def measure_web(server: RedisServer, workers: int, count: int, rate: int, clients: int, seconds: float) -> Figures:
    with feeding(server, count, rate) as feeder, running_pluto(*web_options(server, workers)) as pluto:
        wait_until(lambda: is_all_live(pluto, count), 30)
        parent = psutil.Process(pluto.process.pid)
        web = [parent, *parent.children(recursive=True)]
        with connected(int(pluto.url.rpartition(":")[2]), HEADER, clients) as crowd:
            crowd.listen(1.0)
            parts = {"web": web, "feeder": [feeder], "redis": [psutil.Process(server.process.pid)]}
            before, began = {name: cpu_s(part) for name, part in parts.items()}, time.monotonic()
            receipts = crowd.listen(seconds)
            elapsed = time.monotonic() - began
            shares = {f"{name}_share": (cpu_s(part) - before[name]) / elapsed for name, part in parts.items()}
            events = sum(len(times) for times in receipts.values())
            return delays(receipts) | shares | {
                "us_per_event": shares["web_share"] * elapsed / events * 1e6, "events_per_s": events / elapsed,
                "changes_per_s": changes(receipts, clients) / elapsed, "lost": crowd.lost,
            }  # fmt: skip


def is_all_live(pluto: Pluto, count: int, since: float = 0.0) -> bool:
    """Whether so many prices are live, and came after that time in ms since the epoch."""
    prices = pluto.http.get("/api/tickers").json()["prices"]
    return len(prices) == count and all(price["state"] == "live" and price["receivedAt"] > since for price in prices)


def delays(receipts: Receipts) -> Figures:
    """From a quote's `receivedAt` until clients had read it, in ms; a read may end within an event."""
    took = array("d")
    for data, times in receipts.items():
        for received in set(map(int, RECEIVED.findall(data))):
            took.extend(at / 1e6 - received for at in times)
    ordered = sorted(took)
    return {"p50_ms": percentile(ordered, 0.5), "p99_ms": percentile(ordered, 0.99)}


def changes(receipts: Receipts, clients: int) -> float:
    return sum(len(RECEIVED.findall(data)) * len(times) for data, times in receipts.items()) / clients


def measure_full(server: RedisServer, seconds: float) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for clients in STEPS:
        figures = found[f"{clients} clients"] = measure_web(server, 1, MANY, FULL_RATE, clients, seconds)
        if figures["p99_ms"] > FULL_LIMIT_MS or figures["lost"]:
            break
    return found


# --- moves ------------------------------------------------------------------------------------------------------------


def measure_moves(server: RedisServer, folder: Path) -> Figures:
    server.client.flushall()
    with ExitStack() as stack:
        simulator = stack.enter_context(running_simulator("--weight", "200000"))
        web = stack.enter_context(running_pluto("--redis", server.url, "--role", "web", "--no-store"))
        scraper = ("--redis", server.url, "--role", "scraper", "--source-url", simulator.url)
        first = stack.enter_context(running_pluto(*scraper))
        stack.enter_context(running_pluto(*scraper))
        for ticker in MOVED:
            web.add(ticker)
        wait_until(lambda: is_all_live(web, len(MOVED)) and len(owners(web)) == 2, 60)
        os.killpg(first.process.pid, signal.SIGKILL)
        began, killed = time.monotonic(), 1000 * time.time()
        wait_until(lambda: len(owners(web)) == 1 and None not in owners(web), 30)
        owned = time.monotonic() - began
        wait_until(lambda: is_all_live(web, len(MOVED), since=killed), 60)
        alive = time.monotonic() - began
        with watching(web) as stale:
            third = stack.enter_context(running_pluto(*scraper))
            wait_until(lambda: len(owners(web)) == 2, 60)
            time.sleep(3)
            third.process.send_signal(signal.SIGTERM)
            wait_until(lambda: len(owners(web)) == 1, 60)
            wait_until(lambda: is_all_live(web, len(MOVED)), 60)
        return {"owned_s": owned, "live_s": alive, "coming_and_going_not_live_s": max(stale.values(), default=0.0)}


def owners(web: Pluto) -> set[str | None]:
    return {web.http.get(f"/api/tickers/{ticker}/why").json().get("scraper") for ticker in MOVED}


@contextmanager
def watching(web: Pluto) -> Iterator[dict[str, float]]:
    """Sums for each ticker the seconds in which it is not live."""
    sums: dict[str, float] = dict.fromkeys(MOVED, 0.0)
    ends = threading.Event()

    def watch() -> None:
        with Pluto(web.url, web.process).http as http:
            before = time.monotonic()
            while not ends.wait(0.05):
                prices, now = http.get("/api/tickers").json()["prices"], time.monotonic()
                for price in prices:
                    sums[price["ticker"]] += (now - before) * (price["state"] != "live")
                before = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sums
    finally:
        ends.set()
        thread.join()


# --- the program ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--part", choices=("relay", "workers", "full", "moves"))
    parser.add_argument("--feed", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as app.main has it
    if options.feed:
        url, count, rate = options.feed
        feed(url, int(count), int(rate))
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        if options.part in (None, "relay"):
            for rate in RATES:
                for name, figures in measure_relay(server, rate, options.seconds).items():
                    tell(results, f"{name}, {rate:,} changes/s", figures)
        if options.part in (None, "workers"):
            for workers in (1, 2):
                figures = measure_web(server, workers, FEW, 10 * FEW, CLIENTS, options.seconds)
                tell(results, f"{workers} web, {CLIENTS:,} clients", figures)
        if options.part in (None, "full"):
            for name, figures in measure_full(server, options.seconds).items():
                tell(results, f"full, {name}", figures)
        if options.part in (None, "moves"):
            tell(results, "moves", measure_moves(server, Path(folder)))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scale.json").write_text(json.dumps(results, indent=1))


def tell(results: dict[str, Figures], name: str, figures: Figures) -> None:
    results[name] = figures
    print(f"{name:<28}" + ", ".join(f"{key} {value:,.3g}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
