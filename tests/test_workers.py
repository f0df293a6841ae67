"""Several web workers at one port, with a real Redis: clients find the same at each, and none loses anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis_server import RedisServer, redis_server, with_redis
from relays import scraping
from running import (
    PROJECT,
    TLS,
    Pluto,
    alive,
    clean_environment,
    descendants,
    running_pluto,
    running_program,
    wait_until,
)
from stories import Outcomes, Stories, Story
from told import Told, live, settings_for

from app import _share as share_of
from quotes import Ticker
from web.limits import limit_of

BTC = Ticker("BTCUSD")
REPLACED_LIMIT_S = 40.0  # on a slow machine


class Stream:
    """A client of server-sent events, which reads what has come when it is asked, and comes back when it is cut off."""

    def __init__(self, pluto: Pluto) -> None:
        self._address = ("127.0.0.1", int(pluto.url.rpartition(":")[2]))
        self.prices: dict[str, str] = {}  # by the id of the batch
        self.resumed: list[bool] = []  # of each connection
        self.last_id = ""
        self.endings: list[str] = []  # the last event of each connection that ended
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=5)
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        self._socket.sendall(f"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
        self._text, self._event = "", ""
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def read(self) -> None:
        try:
            while data := self._socket.recv(65536):
                self._take(data.decode())
        except BlockingIOError:
            return
        except OSError:
            pass
        self._socket.close()
        self.endings.append(self._event)
        wait_until(self._comes_back)

    def _comes_back(self) -> bool:
        try:
            self._connect()
        except OSError:
            return False
        return True

    def _take(self, text: str) -> None:
        *blocks, self._text = (self._text + text.replace("\r\n", "\n")).split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            self._event = fields.get("event", "message") if "data" in fields else self._event
            batch = json.loads(fields["data"]) if "data" in fields else {}
            if "resumed" in batch:
                self.resumed.append(batch["resumed"])
            self.last_id = fields.get("id", self.last_id)
            for update in batch.get("updates", []):
                if fields.get("event") != "status":
                    self.prices[fields["id"]] = update["priceText"]

    def wait_for(self, price: str) -> str:
        """Returns the id of the batch with this price."""

        def found() -> str | None:
            self.read()
            return next((id for id, text in self.prices.items() if text == price), None)

        return wait_until(found, what=f"{price} in {self.prices}, {self.endings}") or ""


class Crew:
    """A Pluto of two web workers, and the scraper that feeds it, which is the test's own."""

    def __init__(self, pluto: Pluto, source: Told, log: Path) -> None:
        self.pluto, self.source, self._log = pluto, source, log
        self._prices = 0

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> Any:
        """On a connection of its own, which any of the workers may get."""
        return httpx.get(f"{self.pluto.url}{path}", timeout=5, verify=TLS).raise_for_status().json()

    def health(self) -> dict[str, Any]:
        """What both workers say of themselves, by their name."""
        found: dict[str, Any] = {}

        def ask() -> bool:
            told = self.get("/health")
            found[told["worker"]] = told
            return len(found) == 2

        wait_until(ask, what="both workers answer")
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """The workers, by their names."""
        found = {}
        for process in descendants(self.pluto.process.pid):
            with suppress(psutil.Error, IndexError):  # it has just ended
                found[process.cmdline()[-1]] = process
        return found

    def workers_of(self, streams: list[Stream]) -> list[str]:
        """The workers that have the other ends; one that has not been accepted yet has none."""
        found, ports = [], {stream.port for stream in streams}
        for name, process in self.processes().items():
            with suppress(psutil.Error):
                ends = [connection.raddr.port for connection in process.net_connections() if connection.raddr]
                found += [name] * len(ports.intersection(ends))
        return found

    @property
    def prices(self) -> list[str]:
        """All that were shown."""
        return [str(number + 1) for number in range(self._prices)]

    def show(self) -> str:
        """A new price. Returns it."""
        self._prices += 1
        self.source.show(live(BTC, self._prices))
        return str(self._prices)


stories = Stories()


@contextmanager
def running_crew(folder: Path, *options: str) -> Iterator[Crew]:
    (folder / "redis").mkdir(parents=True)
    log = folder / "log"
    with (
        redis_server(folder / "redis") as redis,
        scraping(settings_for(redis.url, "test")) as (source, publisher),
        running_pluto(
            *("--role", "web", "--workers", "2", "--store", "--data", str(folder), *options),
            log=str(log),
            PLUTO_REDIS=redis.url,
        ) as pluto,
    ):
        pluto.add(BTC)
        wait_until(lambda: BTC in publisher.owned, what="the scraper owns it")
        yield Crew(pluto, source, log)


@contextmanager
def streams_of_both(crew: Crew) -> Iterator[list[Stream]]:
    """Streams, of which each worker has at least one."""
    with ExitStack() as all_streams:
        streams = [all_streams.enter_context(closing(Stream(crew.pluto)))]

        def have_both() -> bool:
            workers = crew.workers_of(streams)
            if len(workers) == len(streams) and len(set(workers)) < 2:
                streams.append(all_streams.enter_context(closing(Stream(crew.pluto))))
            return len(set(workers)) == 2

        wait_until(have_both, what="each worker has a stream")
        yield streams


@stories
def workers_stand_in_for_each_other(folder: Path) -> None:
    with running_crew(folder / "stand-in") as crew, streams_of_both(crew) as streams:

        def have_the_same_id() -> bool:
            """Unless a batch has one of them before all that came with it."""
            price = crew.show()
            return len({stream.wait_for(price) for stream in streams}) == 1

        wait_until(have_the_same_id, what="each worker has the same ids")
        both_keep_the_same(crew)
        each_has_an_address_of_its_own(crew)
        a_killed_worker_is_replaced(crew, streams)
        all_are_replaced_one_after_the_other(crew, streams)
        both_keep_the_same(crew)
        a_signal_ends_all(crew, streams)


def both_keep_the_same(crew: Crew) -> None:
    def has_one_writer() -> bool:
        return sorted(told["storeWriter"] for told in crew.health().values()) == [False, True]

    wait_until(has_one_writer, what="one of them writes")
    prices = crew.prices

    def kept() -> bool:
        points = [crew.get(f"/api/tickers/{BTC}/history")["points"] for _ in range(6)]
        assert not any(point["state"] == "unrecorded" for point in points[0]), "there is no gap"
        return all([p["priceText"] for p in some if p["state"] == "live"] == prices for some in points)

    wait_until(kept, what="each worker gives the same history")


def each_has_an_address_of_its_own(crew: Crew) -> None:
    port = int(crew.pluto.url.rpartition(":")[2])
    for number in (1, 2):
        if f"port {port + number} can't be had" not in crew.log:  # another test may have it
            told = httpx.get(f"http://localhost:{port + number}/health", timeout=5, verify=TLS).json()
            assert told["worker"] == f"web {number}"


def a_killed_worker_is_replaced(crew: Crew, streams: list[Stream]) -> None:
    writer = next(name for name, told in crew.health().items() if told["storeWriter"])
    killed = crew.processes()[writer]
    killed.kill()
    price = crew.show()
    for stream in streams:
        stream.wait_for(price)
    ended = [stream for stream in streams if stream.endings]
    assert ended
    assert all(stream.resumed[1:] == [True] for stream in ended), "they go on where they were"
    wait_until(lambda: set(crew.processes()) == {"web 1", "web 2"})
    other = "web 1" if writer == "web 2" else "web 2"
    wait_until(lambda: crew.health()[other]["storeWriter"], what="the other one writes")
    for line in (f"{writer} has ended (SIGKILL); it starts again in 0.25 s", f"{other}: this worker writes"):
        wait_until(lambda line=line: line in crew.log, what=line)  # type: ignore[misc]


def all_are_replaced_one_after_the_other(crew: Crew, streams: list[Stream]) -> None:
    before = {process.pid for process in crew.processes().values()}
    crew.pluto.process.send_signal(signal.SIGHUP)

    def are_replaced() -> bool:
        crew.get("/health")  # somebody always answers
        price = crew.show()
        for stream in streams:
            stream.wait_for(price)
        return before.isdisjoint(process.pid for process in alive(descendants(crew.pluto.process.pid)))

    wait_until(are_replaced, REPLACED_LIMIT_S, what="all are replaced")
    price = crew.show()
    for stream in streams:
        stream.wait_for(price)
        assert "shutdown" in stream.endings
        assert all(stream.resumed[1:])


def a_signal_ends_all(crew: Crew, streams: list[Stream]) -> None:
    processes = descendants(crew.pluto.process.pid)
    started = time.monotonic()
    crew.pluto.process.terminate()
    assert crew.pluto.process.wait(10) == 0
    assert time.monotonic() - started < 3
    assert alive(processes) == []
    assert "did not end in time" not in crew.log


@stories
def a_killed_supervisor_takes_its_workers_along(folder: Path) -> None:
    with running_crew(folder / "killed") as crew:
        port = crew.pluto.url.rpartition(":")[2]
        processes = crew.processes()
        assert not any("redis://" in text for process in processes.values() for text in told_openly(process))
        crew.pluto.process.kill()
        crew.pluto.process.wait(5)
        wait_until(lambda: alive(list(processes.values())) == [], what="no worker outlives it")
        wait_until(lambda: is_free(int(port)), what="the port is free")


def is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@stories
@with_redis
def a_closed_terminal_ends_all_although_a_hangup_replaces_workers(redis: RedisServer) -> None:
    ours, theirs = os.openpty()
    options = ("--role", "web", "--workers", "2", "--port", "0", "--no-open", "--redis", redis.url)
    pluto = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, sys.executable, str(PROJECT / "app.py"), *options],
        stdin=theirs,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=clean_environment(),
    )
    os.close(theirs)
    assert pluto.stdout is not None
    with pluto.stdout:
        assert pluto.stdout.readline().startswith(b"Pluto ")
        processes = descendants(pluto.pid)
        os.close(ours)
        assert pluto.wait(20) == 0
    assert alive(processes) == []


def told_openly(process: psutil.Process) -> list[str]:
    """What others may read of it."""
    return [*process.cmdline(), *process.environ()]


def test_processes_share_a_limit_and_each_has_its_own_without_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        settings = settings_for(redis.url, "test")
        one, two = (limit_of("failures", 10, share_of(settings)) for _ in range(2))
        for limit in (one, two) * 5:
            assert limit.wait_s("192.0.2.7") == 0
            limit.take(key="192.0.2.7")
        assert wait_until(lambda: two.wait_s("192.0.2.7")) == pytest.approx(6, abs=1), "ten a minute"
        assert one.wait_s("192.0.2.8") == 0
        redis.pause()
        started = time.monotonic()
        assert two.wait_s("192.0.2.7") == 0, "it counts alone"
        assert time.monotonic() - started < 1
        redis.resume()
        wait_until(lambda: two.wait_s("192.0.2.7"))


def failure(log: Path, *options: str) -> tuple[int, str]:
    """The exit code of a Pluto that can't start with these options, and what it says."""
    with running_program("app.py", "--no-open", *options, log=str(log)) as process:
        code = process.wait(20)
    return code, log.read_text()


@stories
def what_workers_need_is_said(folder: Path) -> None:
    code, said = failure(folder / "alone", "--workers", "2")
    assert code == 2
    assert "--workers above 1 needs --redis, by which they share the prices: start a Redis" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = failure(folder / "refused", "--workers", "2", "--redis", "redis://127.0.0.1:1", "--port", port)
    assert refused == (1, f"pluto: Port {port} is taken: stop what listens there, or choose another with --port.\n")


outcomes = stories.in_a_folder()


@pytest.mark.timeout(120)  # for the first, that has them all
@stories.each
def test_stories_of_workers(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
