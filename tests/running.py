"""The real programs the tests talk to: Pluto and the simulator, each started as its own process on a free port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from nursery import Forked

PROJECT = Path(__file__).parent.parent
START_TIMEOUT_S = 20.0
NPM_LIMIT_S = 50.0
MIN_POLL_S, MAX_POLL_S, POLL_PART = 0.02, 0.1, 0.05  # what takes long is looked at less often: looking costs, too
# Tests add tickers faster than anyone.
TEST_OPTIONS = ("--port", "0", "--browser-mode", "headless", "--additions-per-minute", "100000")

# A bench measures programs that are started as people start them.
CAN_FORK = sys.platform == "linux" and "PYTEST_VERSION" in os.environ
TLS = ssl.create_default_context()  # for all clients: each would read the authorities' certificates, for 30 ms

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10.0, *, what: str = "") -> T:
    """The condition's first true value; fails the test when there is none within `timeout` s."""
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < timeout, f"not within {timeout} s: {what or condition}"
        time.sleep(min(max(MIN_POLL_S, POLL_PART * waited), MAX_POLL_S))
    return value


class Simulator:
    """A client of a running simulator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=5.0, verify=TLS)

    def close(self) -> None:
        self._http.close()

    def fault(self, ticker: str, fault: str) -> None:
        self._http.post(f"/fault/{ticker}/{fault}").raise_for_status()

    def clear(self, ticker: str) -> None:
        self._http.delete(f"/fault/{ticker}").raise_for_status()

    def price(self, ticker: str, price: str) -> None:
        self._http.post(f"/price/{ticker}/{price}").raise_for_status()

    def rate(self, ticker: str, rate: float) -> None:
        self._http.post(f"/rate/{ticker}/{rate}").raise_for_status()

    def truth(self, ticker: str) -> list[dict[str, Any]]:
        """The ticker's price changes, oldest first: {"time": ms, "price": text}."""
        changes: list[dict[str, Any]] = self._http.get(f"/truth/{ticker}").raise_for_status().json()["changes"]
        return changes

    def pages(self) -> dict[str, Any]:
        pages: dict[str, Any] = self._http.get("/pages").raise_for_status().json()
        return pages


class Pluto:
    """A client of a running Pluto, and its process."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process
        self.http = httpx.Client(base_url=url, timeout=5.0, verify=TLS)

    def close(self) -> None:
        self.http.close()

    def add(self, ticker: str) -> httpx.Response:
        return self.http.post("/api/tickers", json={"ticker": ticker})

    def remove(self, ticker: str) -> httpx.Response:
        return self.http.delete(f"/api/tickers/{ticker}")

    def order(self, fault: str, *numbers: float) -> None:
        """Tells `faulty_server.py`, if that is the program, which fault strikes now."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([fault, *map(str, numbers)]) + "\n")
        self.process.stdin.flush()

    def quote(self, ticker: str) -> dict[str, Any]:
        quote: dict[str, Any] = self.http.get(f"/api/tickers/{ticker}").raise_for_status().json()
        return quote

    def wait_for(self, ticker: str, state: str, timeout: float = 20.0) -> dict[str, Any]:
        """The ticker's quote as soon as it is in this state."""

        def found() -> dict[str, Any] | None:
            quote = self.quote(ticker)
            return quote if quote["state"] == state else None

        return wait_until(found, timeout, what=f"{ticker} is {state}") or {}

    @contextmanager
    def stream(self, path: str = "/api/stream", **headers: str) -> Iterator[Iterator[ServerSentEvent]]:
        """The server-sent events of a stream, as they come."""
        with (
            httpx.Client(timeout=20.0, verify=TLS) as client,
            connect_sse(client, "GET", self.url + path, headers=headers) as source,
        ):
            yield (event for event in source.iter_sse() if event.data)


@contextmanager
def running_simulator(*options: str) -> Iterator[Simulator]:
    with running_program("-m", "simulator", "--port", "0", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("simulator: "), line
        with closing(Simulator(line.split()[1])) as simulator:
            yield simulator


@contextmanager
def running_pluto(
    *options: str, program: str = "app.py", starter: str = "", log: str = "", **environment: str
) -> Iterator[Pluto]:
    """Pluto on a free port, listening; ended by SIGTERM at the end if it still runs.

    `starter` is the command that executes it, `log` the file that gets its standard error.
    """
    with (
        running_program(program, *TEST_OPTIONS, *options, starter=starter, log=log, **environment) as process,
        closing(Pluto(_read_url(process), process)) as pluto,
    ):
        yield pluto


def _read_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith("page "):
            return line.split()[1]
    raise AssertionError(f"Pluto ended with {process.wait()} before it listened")


@contextmanager
def running_program(
    file: str, *options: str, starter: str = "", log: str = "", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A Python program of this project, ended by SIGTERM if it still runs. For options see `running_pluto`."""
    with ExitStack() as files:
        errors = files.enter_context(open(log, "w")).fileno() if log else None
        process = start_program(file, *options, environment=environment, starter=starter, errors=errors)
        yield files.enter_context(ending(process))


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Ends it by SIGTERM if it still runs then."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:  # the test fails; no later one shall meet what it started
            process.kill()
            raise
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def start_program(
    file: str,
    *options: str,
    environment: Mapping[str, str],
    starter: str = "",
    output: int | None = None,
    errors: int | None = None,
) -> subprocess.Popen[str]:
    """A Python program in a process group of its own, as a terminal gives it. Without `output`, that is a pipe."""
    arguments = [file if file == "-m" else str(PROJECT / file), *options]
    told = {**clean_environment(), "PYTHONPATH": str(PROJECT), **environment}
    if CAN_FORK and not starter:
        return Forked(arguments, told, output, errors)
    return subprocess.Popen(
        [*starter.split(), sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if output is None else output,
        stderr=errors,
        text=True,
        start_new_session=True,
        env=told,
    )


def run_to_end(
    *options: str, program: str = "app.py", starter: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Pluto, or another program, where it ends by itself."""
    with (
        tempfile.NamedTemporaryFile("r") as log,
        running_program(program, *options, starter=starter, log=log.name, **environment) as process,
    ):
        assert process.stdout is not None
        output = process.stdout.read()
        return subprocess.CompletedProcess(process.args, process.wait(20.0), output, log.read())


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, and nobody else can meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """The environment without Pluto's settings but the browser's path, which says where the machine has its browser.

    Nothing is stored, unless a test says where: the data folder is the user's own.
    """
    keep = {"PLUTO_BROWSER"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLUTO_") or name in keep}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # each of a hundred starts would compile all modules anew
    return {**kept, "PLUTO_STORE": "off"}


def descendants(pid: int) -> list[psutil.Process]:
    """All it started; none if it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def ports_of(pid: int) -> set[int]:
    """Where it listens; none if it has ended."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie has ended and only waits for its parent."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def commands(processes: list[psutil.Process]) -> dict[psutil.Process, str]:
    """The command lines of those that still run."""
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found[process] = " ".join(process.cmdline())
    return {process: command for process, command in found.items() if command}


def is_browser(command: str) -> bool:
    """Whether it is Chromium's first process, from which all others come."""
    return "--remote-debugging-pipe" in command and "--type=" not in command


class QuoteServer:
    """A client of `quote_server.py`: adds tickers by REST and says what they cost."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process
        self.http = httpx.Client(base_url=url, timeout=5.0, verify=TLS)

    def close(self) -> None:
        self.http.close()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def track(self, *tickers: str) -> None:
        for ticker in tickers:
            self.http.post("/api/tickers", json={"ticker": ticker}).raise_for_status()

    def untrack(self, *tickers: str) -> None:
        for ticker in tickers:
            self.http.delete(f"/api/tickers/{ticker}").raise_for_status()

    def put(self, *quotes: tuple[str, str, str | None] | tuple[str, str, str | None, float]) -> None:
        """Quotes as (ticker, state, price text); the fourth is `proven_until`, by default for ever."""
        self._write(quotes)

    def tell(self, ticker: str, state: str, price_text: str | None = None, **more: object) -> None:
        """A quote with more of its fields than `put` gives it, such as `reason`."""
        self._write([(ticker, state, price_text, None, more)])

    def _write(self, quotes: Sequence[object]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(quotes) + "\n")
        self.process.stdin.flush()

    def prices(self) -> dict[str, str | None]:
        """The server's own table: ticker to price text."""
        answer = self.http.get("/api/tickers").raise_for_status().json()
        return {price["ticker"]: price.get("priceText") for price in answer["prices"]}

    def server(self) -> dict[str, Any]:
        """The server's part of /api/performance."""
        performance: dict[str, Any] = self.http.get("/api/performance").raise_for_status().json()["server"]
        return performance

    def descriptors(self) -> int:
        return psutil.Process(self.process.pid).num_fds()


@contextmanager
def quote_server(*options: str, **environment: str) -> Iterator[QuoteServer]:
    with running_program("tests/quote_server.py", *options, **environment) as process:
        assert process.stdout is not None
        with closing(QuoteServer(process.stdout.readline().strip(), process)) as server:
            yield server


def npm_packages(folder: Path) -> Path:
    """A folder's packages from npm, installed once; without Node, npm or a registry the test is skipped."""
    modules = folder / "node_modules"
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node and npm are not there: Debian has them as nodejs and npm")
    installed, wanted = modules / ".package-lock.json", folder / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=NPM_LIMIT_S)
        except (subprocess.SubprocessError, OSError) as failure:
            pytest.skip(f"npm can't install the packages of {folder.name}/: {failure}")
        installed.touch()
    return modules
