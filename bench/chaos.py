"""Chaos: whatever carries prices is killed, stopped, cut or emptied, while clients of all transports look on.

    .venv/bin/python bench/chaos.py [--seconds 120] [--seed 1] [--logs FOLDER]

Two scrapers with real browsers open pages of the simulator, two web workers with a store serve 500 clients, and one
Redis is between them, behind TCP proxies. Ten tickers change twice a second each, three more come and go. A client that
is cut off comes back by itself: with the id of its last batch or, by Connect and gRPC-Web, with a new stream. All kinds
of harm happen once in a random order, then again until the time is up. Then all is mended, and these must hold:

- All clients see all tickers live again. When prices stop, each client's table has what Redis has. (Connect tells
  nothing of removed tickers, so there it is no fault to show one.)
- No client was told a wrong price as live, or shown one as live for too long (tests/truth.py, by the simulator's
  /truth), or an older quote after a newer one.
- No process that was started is left, nor any of a killed scraper's browser after five seconds.

Prints what happened. Exits with 1 if one of these doesn't hold. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx
import psutil
from crowd import Client, Crowd, crowd_of
from drills import TICKERS as NAMES
from fanout import raise_open_files
from faulty_line import FaultyLine
from redis_server import RedisServer, redis_server
from running import Pluto, Simulator, alive, descendants, running_pluto, running_simulator, wait_until
from truth import Change, Sighting, wrongs

from relay.scripts import QUOTES, from_json

TICKERS, COMERS = NAMES[:10], NAMES[10:13]
CLIENTS = 500
RATE = "2"  # changes a second of each ticker
LIVE_LIMIT_S, AGREE_LIMIT_S, LEFT_LIMIT_S = 60.0, 10.0, 5.0
LISTED_S = 10.0  # for all to be told that a ticker was removed, while Redis is slow or away

Act = Callable[[], None]
Shown = dict[str, tuple[str, str | None, int]]


class Chaos:
    """All that takes part. `problems` is what must not be."""

    def __init__(self, stack: ExitStack, simulator: Simulator, redis: RedisServer, logs: Path, seed: int) -> None:
        self.stack, self.simulator, self.redis = stack, simulator, redis
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.counters: Counter[str] = Counter()
        self.processes: set[psutil.Process] = set()
        self.removals: list[float] = []  # ms since the epoch
        self.began = time.monotonic()
        self.lines = {name: FaultyLine(redis.port) for name in ("web workers", "scrapers")}
        self._logs, self._started = logs, 0
        self.scrapers = [self.start_scraper() for _ in range(2)]
        self.web = self._pluto(
            "web workers", "web", "--workers", "2", "--data", str(self.redis.folder), PLUTO_STORE="on"
        )

    def _pluto(self, line: str, role: str, *options: str, **environment: str) -> Pluto:
        self._started += 1
        environment |= {"PLUTO_REDIS": f"redis://127.0.0.1:{self.lines[line].port}"}
        environment["log"] = str(self._logs / f"{self._started}-{role}.log")
        return self.stack.enter_context(running_pluto("--role", role, *options, **environment))

    def start_scraper(self) -> Pluto:
        return self._pluto("scrapers", "scraper", "--source-url", self.simulator.url)

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def kill_scraper(self) -> None:
        number = self.random.randrange(2)
        family = descendants(self.scrapers[number].process.pid)
        self.tell(f"scraper {number} killed")
        self.scrapers[number].process.kill()
        if left := psutil.wait_procs(family, timeout=LEFT_LIMIT_S)[1]:
            self.problems.append(f"a killed scraper left {len(left)} processes")
        self.scrapers[number] = self.start_scraper()
        self.tell(f"scraper {number} started anew")

    def stop_scraper(self) -> None:
        number = self.random.randrange(2)
        process = psutil.Process(self.scrapers[number].process.pid)
        self.for_a_while(f"scraper {number} stopped", 4, 10, process.suspend, process.resume)

    def kill_worker(self) -> None:
        for worker in psutil.Process(self.web.process.pid).children()[:1]:
            self.tell(f"web worker killed (process {worker.pid})")
            worker.kill()

    def replace_workers(self) -> None:
        self.tell("SIGHUP: the web workers are replaced")
        self.web.process.send_signal(signal.SIGHUP)

    def empty_redis(self) -> None:
        self.tell("FLUSHALL")
        self.redis.client.flushall()

    def cut_lines(self) -> None:
        lines = self.random.sample(list(self.lines), self.random.randint(1, 2))

        def cut(is_cut: bool = True) -> None:
            for line in lines:
                self.lines[line].is_cut = is_cut

        self.for_a_while(f"no network from Redis to {' and '.join(lines)}", 3, 20, cut, lambda: cut(False))

    def slow_lines(self) -> None:
        def slow(delay_s: float = 0.0) -> None:
            for line in self.lines.values():
                line.delay_s = delay_s

        delay_s = self.random.uniform(0.02, 0.3)
        self.for_a_while(f"Redis answers {2000 * delay_s:.0f} ms later", 4, 10, lambda: slow(delay_s), slow)

    def for_a_while(self, what: str, least: float, most: float, harm: Act, mend: Act) -> None:
        ends = time.monotonic() + (seconds := self.random.uniform(least, most))
        self.tell(f"{what} for {seconds:.1f} s")
        harm()
        self.change_list()
        time.sleep(max(0.0, ends - time.monotonic()))
        mend()

    def change_list(self) -> None:
        """Adds or removes one of those that come and go; while Redis is away this may be refused."""
        ticker, method = self.random.choice(COMERS), self.random.choice(("POST", "DELETE"))
        path = "/api/tickers" if method == "POST" else f"/api/tickers/{ticker}"
        asked_at = time.time() * 1000
        self.counters["changes made" if self.ask(method, path, {"ticker": ticker}) else "changes refused"] += 1
        self.removals += [asked_at, time.time() * 1000] * (method == "DELETE")  # slow Redis takes seconds

    def ask(self, method: str, path: str, body: object) -> bool:
        """Whether any of the web workers did this."""
        try:
            return httpx.request(method, self.web.url + path, json=body, timeout=10).is_success
        except httpx.HTTPError:
            return False

    def check_recovery(self, crowd: Crowd) -> None:
        self.tell("all is mended")
        since = time.time() * 1000
        wait_until(lambda: crowd.all_live(TICKERS, since), LIVE_LIMIT_S, what="all clients see all tickers live")
        self.tell("all clients see all tickers live")
        self.removals.append(time.time() * 1000)
        assert self.ask("PUT", "/api/watchlist", {"tickers": TICKERS}), "the list can't be set"
        for ticker in TICKERS:
            self.simulator.rate(ticker, 0)
        wait_until(lambda: not self.behind(crowd), AGREE_LIMIT_S, what="each client's table is equal to that of Redis")
        self.tell(f"the tables of {len(crowd.clients)} clients are equal to that of Redis")

    def behind(self, crowd: Crowd) -> list[Client]:
        found: Any = self.redis.client.hgetall(QUOTES)
        quotes = [from_json(value.partition(" ")[2], 0)[0] for value in found.values()]
        table: Shown = {str(it.ticker): (str(it.state), it.price_text, it.received_at or 0) for it in quotes}
        return [client for client in crowd.clients if not client.is_told or shown_by(client, table) != table]

    def check_prices(self, crowd: Crowd) -> None:
        truth = {it: [Change(**change) for change in self.simulator.truth(it)] for it in (*TICKERS, *COMERS)}
        sightings = [self.as_listed(sighting) for sighting in crowd.sightings()]
        found = list(wrongs(sightings, truth))
        live = sum(sighting.state == "live" for sighting in sightings)
        self.tell(f"{len(found)} of {live:,} live prices that clients were told were wrong or shown for too long")
        self.problems += found

    def as_listed(self, sighting: Sighting) -> Sighting:
        """One of those that come and go, as shown until it was removed, of which Connect says nothing."""
        removed = [time for time in self.removals if time > sighting.received_at and sighting.ticker in COMERS]
        return replace(sighting, until=min([sighting.until, *(time + 1000 * LISTED_S for time in removed)]))


def shown_by(client: Client, table: Shown) -> Shown:
    shown = {ticker: (it.state, it.price_text, it.received_at) for ticker, it in client.view.table.items()}
    has_ids = client.transport.name in ("SSE", "WebSocket")
    return shown if has_ids else {ticker: it for ticker, it in shown.items() if ticker in table}


def run(chaos: Chaos, crowd: Crowd, seconds: float) -> None:
    for ticker in TICKERS:
        chaos.web.add(ticker).raise_for_status()
    crowd.join(CLIENTS)
    wait_until(lambda: crowd.all_live(TICKERS, 0.0), LIVE_LIMIT_S, what="all clients see all tickers live")
    chaos.began = time.monotonic()
    chaos.tell(f"{CLIENTS} clients see {len(TICKERS)} tickers live; chaos begins")
    harms: list[Act] = [
        lambda: chaos.for_a_while("Redis killed", 0, 8, chaos.redis.kill, chaos.redis.start),
        lambda: chaos.for_a_while("Redis stopped", 2, 8, chaos.redis.pause, chaos.redis.resume),
        chaos.kill_scraper, chaos.stop_scraper, chaos.kill_worker, chaos.replace_workers, chaos.empty_redis,
        chaos.cut_lines, chaos.slow_lines,
    ]  # fmt: skip
    waiting: list[Act] = []
    while time.monotonic() - chaos.began < seconds:
        waiting = waiting or chaos.random.sample(harms, len(harms))
        waiting.pop()()
        chaos.change_list()
        chaos.processes.update(descendants(os.getpid()))
        time.sleep(chaos.random.choice((0.0, 1.0, 4.0)))
    chaos.check_recovery(crowd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of chaos [120]")
    parser.add_argument("--seed", type=int, default=1, help="of the order [1]")
    parser.add_argument("--logs", type=Path, help="folder for the logs of all processes")
    options = parser.parse_args()
    raise_open_files()
    sys.setswitchinterval(0.0005)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulator = stack.enter_context(running_simulator("--weight", "200000", "--heartbeat", "2", "--rate", RATE))
        redis = stack.enter_context(redis_server(folder))
        chaos = Chaos(stack, simulator, redis, options.logs or folder, options.seed)
        crowd = stack.enter_context(crowd_of(int(chaos.web.url.rpartition(":")[2]), may_renumber=True))
        try:
            run(chaos, crowd, options.seconds)
        except AssertionError as failure:
            chaos.problems.append(f"{type(failure).__name__}: {failure}")
        chaos.processes.update(descendants(os.getpid()))
        with suppress(AssertionError):  # of the crowd, and known already
            chaos.check_prices(crowd)
        chaos.counters += crowd.counters
    left = alive(psutil.wait_procs(chaos.processes, timeout=LEFT_LIMIT_S)[1])
    chaos.tell(f"{len(left)} of {len(chaos.processes)} processes are left")
    for process in left:
        with suppress(psutil.Error):
            chaos.problems.append(f"left: process {process.pid}: {' '.join(process.cmdline())}")
    print(", ".join(f"{count} {name}" for name, count in chaos.counters.items()))
    print("\n".join(chaos.problems) or "nothing was wrong")
    sys.exit(bool(chaos.problems))


if __name__ == "__main__":
    main()
