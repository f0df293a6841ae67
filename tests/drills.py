"""Fault drills: what is done to Pluto, its browser, its source and its machine while a crowd of clients looks on.

A drill harms, waits until that shows, mends, and says when all was well again: every client of every transport sees
every ticker live, by a price had after the mending. What clients were shown meanwhile is kept and compared with the
simulator's truth. `test_faults.py` runs the short ones, `bench/faults.py` all. Linux only.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from crowd import Client, Crowd, Pace, crowd_of
from running import Pluto, Simulator, descendants, running_pluto, running_simulator, wait_until
from truth import Change, Sighting, wrongs

from web.descriptors import KEPT_FREE

COINS = "BTC ETH SOL BNB XRP ADA DOGE TRX AVAX DOT LINK TON LTC BCH ATOM UNI XLM NEAR APT SUI"
TICKERS = [f"{coin}USDT" for coin in COINS.split()]
RATE = 2.0  # changes a second of each
WEIGHT = 200_000  # of a page, in bytes
CLIENTS = 200
CRAWLERS, CRAWL = 8, Pace(1, 1.0, 4096)  # clients that read one byte a second, all the time
START_LIMIT_S = 60.0  # for all tickers to be live, from nothing
RECOVERY_LIMIT_S = 30.0
HANG_LIMIT_S = 60.0  # a browser that says nothing is asked for 20 s before it is taken to hang
TROUBLE_LIMIT_S = 30.0  # for harm to show at clients: a proof lasts for 15 to 22 s
SETTLE_S = 5.5
DISK_SIZE = "256m"
SCRAPER_BLOCK_S = 20.0
CLOCK_JUMP_S = 3600.0
FEW_DESCRIPTORS = 5
NEWCOMERS = 50


class Source:
    """The simulator, which may go down and come back under the same address, and all that it told."""

    def __init__(self, tickers: list[str], weight: int) -> None:
        self._tickers, self._weight = tickers, weight
        self._process = ExitStack()
        self._past: dict[str, list[Change]] = defaultdict(list)
        self.simulator = self._start("--rate", str(RATE))

    def _start(self, *options: str) -> Simulator:
        options = ("--weight", str(self._weight), "--heartbeat", "2", *options)
        return self._process.enter_context(running_simulator(*options))

    def truth(self) -> dict[str, list[Change]]:
        return {ticker: self._past[ticker] + self._present(ticker) for ticker in self._tickers}

    def _present(self, ticker: str) -> list[Change]:
        return [Change(change["time"], change["price"]) for change in self.simulator.truth(ticker)]

    def stop(self) -> None:
        """Prices stand still first: none may be told after the truth was read."""
        for ticker in self._tickers:
            self.simulator.rate(ticker, 0)
        self._past.update(self.truth())
        self._process.close()
        for ticker in self._tickers:
            self._past[ticker].append(Change(time.time() * 1000, None))

    def start(self) -> None:
        port = self.simulator.url.rpartition(":")[2]
        self.simulator = self._start("--rate", str(RATE), "--port", port)

    def close(self) -> None:
        self._process.close()


@dataclass
class Stage:
    """All that takes part. `disk` is where Pluto's browser keeps its files, when that could be made small."""

    source: Source
    tickers: list[str]
    pluto: Pluto
    crowd: Crowd
    disk: Path | None
    settle_s: float
    known: set[str] = field(default_factory=set)

    def settle(self) -> None:
        """A browser that lasted less than some seconds is not started anew at once: that is no part of a fault."""
        time.sleep(self.settle_s)

    def is_well(self, since: float) -> bool:
        return self.crowd.all_live(self.tickers, since)

    def all_had_since(self, since: float) -> bool:
        """Whether whoever sees prices sees none from before."""
        return all(shown.received_at > since for table in self.crowd.tables() for shown in table.values())

    def none_is_ahead(self) -> bool:
        """Whether nobody sees a price that is dated later than now."""
        now = time.time() * 1000 + 1
        return all(shown.received_at <= now for table in self.crowd.tables() for shown in table.values())

    def wait_until_well(self, since: float, limit: float = RECOVERY_LIMIT_S) -> float:
        """The seconds it takes from now on."""
        begun = time.monotonic()
        wait_until(lambda: self.is_well(since), limit, what="every client sees every ticker live")
        return time.monotonic() - begun

    def wait_until_troubled(self, limit: float = TROUBLE_LIMIT_S) -> None:
        wait_until(lambda: not self.is_well(0.0), limit, what="clients are told of the trouble")

    def browser_failures(self) -> int:
        """How often the browser ended, or didn't start."""
        performance = self.pluto.http.get("/api/performance").raise_for_status().json()
        return int(performance["scraper"]["counters"].get("browser_failures", 0))

    def wrongs(self) -> list[str]:
        """What was wrong with what clients were shown since this was asked last."""
        sightings = map(_by_true_clock, self.crowd.sightings())
        found = [wrong for wrong in wrongs(sightings, self.source.truth()) if wrong not in self.known]
        self.known.update(found)
        return found

    def processes(self, part: str) -> list[psutil.Process]:
        """Those of the renderers, the most used first, of the browser, or of the driver."""
        found = [process for process in descendants(self.pluto.process.pid) if _is(process, part)]
        return sorted(found, key=_resident_bytes, reverse=True)


def _by_true_clock(sighting: Sighting) -> Sighting:
    """As it would have been dated had Pluto's clock not been ahead."""
    ahead = 1000 * CLOCK_JUMP_S if sighting.received_at > time.time() * 1000 + 500 * CLOCK_JUMP_S else 0.0
    return replace(
        sighting, timestamp=round(sighting.timestamp - ahead), received_at=round(sighting.received_at - ahead)
    )


@dataclass(frozen=True)
class Outcome:
    """How long until all was well again; how many processes outlived what they belonged to."""

    recovered_s: float
    left: int = 0


MARKS = {"renderer": "--type=renderer", "browser": "--remote-debugging-pipe", "driver": "run-driver"}


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _is(process: psutil.Process, part: str) -> bool:
    with suppress(psutil.Error):
        command = process.cmdline()
        return any(MARKS[part] in word for word in command)
    return False


@contextmanager
def staged(
    settle_s: float,
    *options: str,
    tickers: int = len(TICKERS),
    clients: int = CLIENTS,
    proof_factor: float = 1.0,
    weight: int = WEIGHT,
) -> Iterator[Stage]:
    """Pluto with its tickers, all of them live at every client, and a few clients that read one byte a second.

    A proof lasts `proof_factor` times as long as usual.
    """
    tracked = TICKERS[:tickers]
    with ExitStack() as stack:
        source = Source(tracked, weight)
        stack.callback(source.close)
        disk = stack.enter_context(small_disk())
        environment = {"SCRAPER_PATIENCE": f"proof_factor={proof_factor}"}
        if disk is not None:
            environment["TMPDIR"] = str(disk)
        pluto = stack.enter_context(
            running_pluto(
                "--source-url", source.simulator.url, "--tickers", ",".join(tracked), "--log-level", "warning",
                *options, program="tests/faulty_server.py", **environment,
            )
        )  # fmt: skip
        crowd = stack.enter_context(crowd_of(int(pluto.url.rpartition(":")[2]), clients))
        crowd.join(CRAWLERS, pace=CRAWL)
        stage = Stage(source, tracked, pluto, crowd, disk, settle_s)
        stage.wait_until_well(0.0, START_LIMIT_S)
        yield stage


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A disk of its own in memory; None where it may not be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


# --- the drills -------------------------------------------------------------------------------------------------------


def kill(stage: Stage, part: str) -> Outcome:
    stage.settle()
    victims = stage.processes(part)[:1]
    family = [*stage.processes("renderer"), *stage.processes("browser")] if part != "renderer" else []
    begun = time.time() * 1000
    for victim in victims:
        victim.kill()
    stage.wait_until_troubled()
    stage.wait_until_well(begun)
    return Outcome(time.time() - begun / 1000, len(psutil.wait_procs([*victims, *family], timeout=3)[1]))


def stop(stage: Stage, part: str, seconds: float) -> Outcome:
    """SIGSTOP, and so many seconds later SIGCONT, if it is still there."""
    stage.settle()
    victim = stage.processes(part)[0]
    victim.suspend()
    stopped = time.monotonic()
    stage.wait_until_troubled()
    time.sleep(max(0.0, stopped + seconds - time.monotonic()))
    with suppress(psutil.NoSuchProcess):  # Pluto has ended it and goes on with another
        victim.resume()
    return Outcome(stage.wait_until_well(time.time() * 1000))


def stop_for_good(stage: Stage, part: str) -> Outcome:
    """SIGSTOP, and no SIGCONT: Pluto has to notice, to end what hangs and to replace it."""
    stage.settle()
    victim = stage.processes(part)[0]
    begun = time.time() * 1000
    victim.suspend()
    stage.wait_until_troubled()
    stage.wait_until_well(begun, HANG_LIMIT_S)
    return Outcome(time.time() - begun / 1000, len(psutil.wait_procs([victim], timeout=3)[1]))


def take_source_down(stage: Stage, seconds: float) -> Outcome:
    stage.source.stop()
    time.sleep(seconds)
    stage.source.start()
    return Outcome(stage.wait_until_well(time.time() * 1000, RECOVERY_LIMIT_S + seconds))


def block_hub(stage: Stage, seconds: float) -> Outcome:
    stage.pluto.order("block", seconds)
    time.sleep(seconds)
    return Outcome(stage.wait_until_well(time.time() * 1000))


def fill_disk(stage: Stage) -> Outcome:
    """The browser's disk is full, and the browser has to start anew, which fails."""
    assert stage.disk is not None
    stage.settle()
    failures = stage.browser_failures()
    filler = stage.disk / "filler"

    def another_start_failed() -> bool:
        _fill(filler)  # also what the ended browser has left
        return stage.browser_failures() >= failures + 2

    try:
        _fill(filler)
        stage.processes("browser")[0].kill()
        wait_until(another_start_failed, TROUBLE_LIMIT_S, what="no other browser starts")
    finally:
        filler.unlink()
    return Outcome(stage.wait_until_well(time.time() * 1000))


def _fill(path: Path) -> None:
    """Makes this file larger until its disk is full."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def run_out_of_descriptors(stage: Stage) -> Outcome:
    """Newcomers find no place, those who are there miss nothing; when there is place again, the newcomers come in."""
    with few_descriptors(stage) as newcomers:
        begun = time.time() * 1000
        wait_until(lambda: stage.all_had_since(begun), RECOVERY_LIMIT_S, what="those who are in hear all that is new")
        assert stage.crowd.absent > NEWCOMERS // 2
    recovered_s = stage.wait_until_well(time.time() * 1000)
    stage.crowd.leave(newcomers)
    return Outcome(recovered_s)


def kill_browser_without_descriptors(stage: Stage) -> Outcome:
    """A new browser comes while newcomers wait for a place, because some descriptors are kept for it."""
    stage.settle()
    browser = stage.processes("browser")[0]
    with few_descriptors(stage) as newcomers:
        begun = time.time() * 1000
        browser.kill()
        wait_until(lambda: stage.all_had_since(begun), RECOVERY_LIMIT_S, what="those who are in hear of a new browser")
        assert stage.crowd.absent > NEWCOMERS // 2
    stage.wait_until_well(begun)
    stage.crowd.leave(newcomers)
    return Outcome(time.time() - begun / 1000, len(psutil.wait_procs([browser], timeout=3)[1]))


@contextmanager
def few_descriptors(stage: Stage) -> Iterator[list[Client]]:
    """Pluto has as good as none for clients, and newcomers come."""
    process = psutil.Process(stage.pluto.process.pid)
    before = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + KEPT_FREE + FEW_DESCRIPTORS, before[1]))
    try:
        yield stage.crowd.join(NEWCOMERS)
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, before)


def jump_clock(stage: Stage) -> Outcome:
    """Pluto's clock is an hour ahead, then right again: prices are dated by it, and nobody is cut off."""
    cut_off = stage.crowd.counters["lost"]
    stage.pluto.order("clock", CLOCK_JUMP_S)
    stage.wait_until_well((time.time() + CLOCK_JUMP_S) * 1000)
    stage.pluto.order("clock", 0)
    begun = time.monotonic()
    wait_until(lambda: stage.is_well(0.0) and stage.none_is_ahead(), RECOVERY_LIMIT_S, what="all is dated right again")
    assert stage.crowd.counters["lost"] == cut_off
    return Outcome(time.monotonic() - begun)


def block_scraper(stage: Stage) -> Outcome:
    stage.pluto.order("hang", SCRAPER_BLOCK_S)
    time.sleep(SCRAPER_BLOCK_S)
    return Outcome(stage.wait_until_well(time.time() * 1000))


def starve_renderer(stage: Stage) -> Outcome:
    """The busiest renderer may take no more address space than it has, and all pages load themselves anew."""
    stage.settle()
    victim = stage.processes("renderer")[0]
    size = victim.memory_info().vms
    victim.rlimit(resource.RLIMIT_AS, (size, size))
    for ticker in stage.tickers:
        stage.source.simulator.fault(ticker, "page_reloads")
    stage.wait_until_troubled()
    return Outcome(stage.wait_until_well(time.time() * 1000))


def reconnect(stage: Stage, clients: int) -> Outcome:
    """Everyone hangs up and comes back in the same moment."""
    more = stage.crowd.join(clients - len(stage.crowd.clients))
    stage.wait_until_well(0.0)
    stage.crowd.reconnect()
    recovered_s = stage.wait_until_well(time.time() * 1000)
    stage.crowd.leave(more)
    return Outcome(recovered_s)


@dataclass(frozen=True)
class Drill:
    name: str
    run: Callable[[Stage], Outcome]
    needs_disk: bool = False


SHORT = (
    Drill("renderer killed", lambda stage: kill(stage, "renderer")),
    Drill("renderer stopped for 5 s", lambda stage: stop(stage, "renderer", 5.0)),
    Drill("source down for 4 s", lambda stage: take_source_down(stage, 4.0)),
    Drill("hub blocked for 1 s", lambda stage: block_hub(stage, 1.0)),
    Drill("clock an hour ahead, and back", jump_clock),
    Drill("disk full while the browser starts", fill_disk, needs_disk=True),
    Drill("no descriptors for newcomers", run_out_of_descriptors),
    Drill("no descriptors for newcomers, and the browser killed", kill_browser_without_descriptors),
    Drill("1000 clients come back at once", lambda stage: reconnect(stage, 1_000)),
)
LONG = (
    SHORT[0],
    Drill("browser killed", lambda stage: kill(stage, "browser")),
    Drill("driver killed", lambda stage: kill(stage, "driver")),
    Drill("renderer stopped for 8 s", lambda stage: stop(stage, "renderer", 8.0)),
    Drill("renderer stopped for 15 s", lambda stage: stop(stage, "renderer", 15.0)),
    Drill("renderer stopped for good", lambda stage: stop_for_good(stage, "renderer")),
    Drill("browser stopped for 15 s", lambda stage: stop(stage, "browser", 15.0)),
    Drill("browser stopped for good", lambda stage: stop_for_good(stage, "browser")),
    Drill("driver stopped for 15 s", lambda stage: stop(stage, "driver", 15.0)),
    Drill("driver stopped for good", lambda stage: stop_for_good(stage, "driver")),
    Drill("renderer out of address space", starve_renderer),
    Drill("scraper thread blocked for 20 s", block_scraper),
    Drill("source down for 60 s", lambda stage: take_source_down(stage, 60.0)),
    Drill("hub blocked for 2 s", lambda stage: block_hub(stage, 2.0)),
    *SHORT[4:],
)
