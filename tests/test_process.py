"""Starting and ending: what Pluto prints, how long it takes, and that nothing is left running, however it ends."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from running import (
    PROJECT,
    TLS,
    Pluto,
    alive,
    commands,
    descendants,
    is_browser,
    ports_of,
    refusing_port,
    run_to_end,
    running_pluto,
    wait_until,
)

from app import host_in_url, main
from settings import Settings
from web.descriptors import KEPT_FREE
from web.server import listen

DEMO_TICKERS = ("BTCUSD", "ETHUSD", "SOLUSD")


@dataclass(frozen=True)
class Demo:
    """A demo, its log, the folder of its temporary files and what was there before."""

    pluto: Pluto
    log: Path
    folder: Path
    left: set[Path]


@contextmanager
def running_demo(folder: Path, log: Path, starter: str, *options: str) -> Iterator[Demo]:
    left = set(folder.iterdir())
    with running_pluto("--demo", *options, starter=starter, log=str(log), TMPDIR=str(folder)) as pluto:
        yield Demo(pluto, log, folder, left)


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A folder with a short path, as the sockets in it need."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def narrow(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that may open few files. The next one begins with its end."""
    log = tmp_path_factory.mktemp("narrow") / "log"
    with running_demo(temporary, log, "prlimit --nofile=256:256", "--tickers", "BTCUSD") as demo:
        yield demo


@pytest.fixture(scope="module")
def demo(narrow: Demo, temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that may open more files than it does at first, started where the narrow one was killed."""
    processes = with_live_demo(narrow.pluto, "BTCUSD")
    narrow.pluto.process.kill()
    wait_until(lambda: alive(processes) == [], timeout=10, what="SIGKILL leaves no process behind")
    log = tmp_path_factory.mktemp("demo") / "log"
    with running_demo(temporary, log, "prlimit --nofile=300:4096") as demo:
        yield demo


def with_live_demo(pluto: Pluto, *tickers: str) -> list[psutil.Process]:
    """Every process of a demo whose prices are live."""
    for ticker in tickers or DEMO_TICKERS:
        assert pluto.wait_for(ticker, "live")["simulated"] is True
    processes = descendants(pluto.process.pid)
    names = " ".join(commands(processes).values())
    assert "simulator" in names
    assert "run-driver" in names
    assert "--type=renderer" in names
    return processes


def browser_of(pluto: Pluto) -> psutil.Process:
    return next(process for process, command in commands(descendants(pluto.process.pid)).items() if is_browser(command))


def stream_of(pluto: Pluto) -> socket.socket:
    host, port = pluto.url.removeprefix("http://").split(":")
    stream = socket.create_connection((host, int(port)), timeout=10)
    stream.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return stream


class Insistent:
    """Connections that ask for nothing; whichever is closed comes again at once."""

    def __init__(self, pluto: Pluto, count: int) -> None:
        self._address = ("127.0.0.1", int(pluto.url.rpartition(":")[2]))
        self._all = selectors.DefaultSelector()
        self._ended = threading.Event()
        for _ in range(count):
            self._connect()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _connect(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self._address)
        self._all.register(connection, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._all.select(0.1):
                self._close(key)
                self._connect()

    def _close(self, key: selectors.SelectorKey) -> None:
        self._all.unregister(key.fileobj)
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._all.get_map().values()):
            self._close(key)


# --- what only runs: few demos, one after the other, each of which is harmed in several ways --------------------------


def test_a_killed_browser_is_started_again_though_clients_take_every_descriptor_they_can_get(narrow: Demo) -> None:
    pluto = narrow.pluto
    with_live_demo(pluto, "BTCUSD")
    with ExitStack() as clients:
        stream = clients.enter_context(pluto.stream())
        statuses = [clients.enter_context(stream_of(pluto)).recv(12) for _ in range(110)]
        assert statuses.count(b"HTTP/1.1 200") == 95, "streams leave room for requests"
        clients.enter_context(closing(Insistent(pluto, 150)))
        process = psutil.Process(pluto.process.pid)
        wait_until(lambda: process.num_fds() >= 256 - KEPT_FREE)
        browser_of(pluto).kill()
        killed_at = time.time() * 1000
        for event in stream:
            updates = json.loads(event.data).get("updates", [])
            if any(update["state"] == "live" and update["receivedAt"] > killed_at + 500 for update in updates):
                break
            assert time.time() * 1000 < killed_at + 30_000, "no price came again"
    wait_until(lambda: len(list(narrow.folder.iterdir())) == 1, what="it leaves no files")


def test_sigkill_leaves_no_process_behind_and_the_next_start_removes_its_files(demo: Demo) -> None:
    wait_until(lambda: demo.pluto.http.get("/readyz").status_code == 200, 30, what="there is a browser")
    assert demo.left
    assert demo.left.isdisjoint(demo.folder.iterdir())


def test_it_says_where_it_listens(demo: Demo) -> None:
    assert demo.pluto.url.startswith("http://localhost:")
    assert demo.pluto.http.get("/health").json()["simulated"] is True
    loopbacks = ("127.0.0.1", "[::1]") if socket.has_dualstack_ipv6() else ("127.0.0.1",)
    for address in loopbacks:
        url = f"http://{address}:{demo.pluto.url.rpartition(':')[2]}/livez"
        assert httpx.get(url, verify=TLS).json() == {"status": "ok"}


def nofile(process: psutil.Process) -> tuple[int, int]:
    return process.rlimit(psutil.RLIMIT_NOFILE)


def test_pluto_may_open_as_many_files_as_the_machine_lets_it_and_what_it_starts_as_many_as_before(demo: Demo) -> None:
    pluto = demo.pluto
    processes = commands(with_live_demo(pluto))
    assert nofile(psutil.Process(pluto.process.pid)) == (4096, 4096)
    for mark in ("-m simulator", "run-driver", "--type=zygote"):  # the browser itself raises its own, as ever
        assert {nofile(process) for process, command in processes.items() if mark in command} == {(300, 4096)}, mark
    assert "pluto_streams_limit 2976.0" in pluto.http.get("/metrics").text
    with ExitStack() as clients:
        streams = [clients.enter_context(stream_of(pluto)) for _ in range(400)]  # more than 300
        assert all(stream.recv(12) == b"HTTP/1.1 200" for stream in streams)
        assert pluto.http.get("/api/performance").json()["server"]["activeSSEClients"] == 400
    assert "2976 streams at most, not --max-streams 10000: raise ulimit -n for more" in demo.log.read_text()


def test_a_killed_renderer_is_replaced(demo: Demo) -> None:
    def counters() -> dict[str, int]:
        counted: dict[str, int] = demo.pluto.http.get("/api/performance").json()["scraper"]["counters"]
        return counted

    processes = commands(with_live_demo(demo.pluto))
    before = counters()
    for process, command in processes.items():
        if "--type=renderer" in command:
            with suppress(psutil.NoSuchProcess):  # a spare one that Chromium has ended meanwhile
                process.kill()
    wait_until(lambda: counters().get("pages_crashed", 0) >= before.get("pages_crashed", 0) + len(DEMO_TICKERS))
    with_live_demo(demo.pluto)
    assert counters()["browser_starts"] == before["browser_starts"], "the browser itself lived on"


def simulator_of(pluto: Pluto) -> psutil.Process:
    found = commands(descendants(pluto.process.pid)).items()
    return next(process for process, command in found if "-m simulator" in command)


def test_a_killed_simulator_is_started_again_at_its_address(demo: Demo) -> None:
    simulator = simulator_of(demo.pluto)
    ports = ports_of(simulator.pid)
    simulator.kill()
    wait_until(lambda: "the simulator is back" in demo.log.read_text())
    assert "the simulator has ended (exit code -9)" in demo.log.read_text()
    assert ports_of(simulator_of(demo.pluto).pid) == ports != set()
    assert demo.pluto.http.get("/readyz").status_code == 200
    demo.pluto.wait_for("BTCUSD", "live", 30)


def ended_within_3_seconds(pluto: Pluto, tell: Callable[[], None]) -> str:
    """What its streams were told after `tell` has told it to end."""
    processes = descendants(pluto.process.pid)
    assert any(map(is_browser, commands(processes).values()))
    with pluto.stream() as events:
        next(events)
        told_at = time.monotonic()
        tell()
        told = list(events)
    assert told[-1].event == "shutdown"
    assert pluto.process.wait(10) == 0
    wait_until(lambda: alive(processes) == [], what="everything has ended")
    assert time.monotonic() - told_at < 3
    return "".join(event.data for event in told)


def test_ctrl_c_ends_everything_within_3_seconds_and_leaves_no_files(demo: Demo) -> None:
    """A terminal tells all processes of the group, the browser's driver too."""
    with_live_demo(demo.pluto)
    log = demo.log.read_text()
    told = ended_within_3_seconds(demo.pluto, lambda: os.killpg(demo.pluto.process.pid, signal.SIGINT))
    news = told + demo.log.read_text().removeprefix(log)
    assert "stale" not in news
    assert "no browser" not in news
    assert list(demo.folder.iterdir()) == []


def test_an_unreachable_source_is_said_and_everything_else_works_until_sigterm_ends_it() -> None:
    with (
        refusing_port() as port,
        running_pluto("--source-url", f"http://127.0.0.1:{port}", "--tickers", "BTCUSD") as pluto,
    ):
        quote = pluto.wait_for("BTCUSD", "error")
        assert quote["reason"] == f"127.0.0.1:{port} can't be reached: the connection was refused"
        assert 0 < quote["nextTryAt"] - time.time() * 1000 <= 60_000
        assert "price" not in quote
        assert pluto.http.get("/").status_code == 200
        assert pluto.http.get("/health").json()["status"] == "degraded"
        assert pluto.add("ETHUSD").status_code == 201
        assert "no browser" not in ended_within_3_seconds(pluto, pluto.process.terminate)


# --- what ends at once, or is no process ------------------------------------------------------------------------------


def test_with_too_few_files_it_says_so() -> None:
    ended = run_to_end("--port", "0", starter="prlimit --nofile=100:200")
    assert ended.returncode == 1
    assert ended.stderr == "pluto: Only 200 files may be open at once, and Pluto needs 256: raise ulimit -n.\n"


def test_an_ipv6_loopback_that_cannot_be_had_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    with ExitStack() as taken:
        while True:  # until there is a port that nobody has by IPv4
            holder = taken.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            port = holder.getsockname()[1]
            with suppress(OSError):
                (listener,) = listen("localhost", port)
                break
    assert listener.getsockname() == ("127.0.0.1", port)
    listener.close()
    assert f"not listening on [::1]:{port} (Address already in use)" in caplog.text


@pytest.mark.parametrize(
    ("host", "called"),
    [
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("pluto.example", "pluto.example"),
    ],
)
def test_the_page_s_address_can_be_opened(host: str, called: str) -> None:
    assert host_in_url(host) == called


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        (
            ["--source-url", "ftp://example"],
            {},
            "--source-url: 'ftp://example' does not begin with http:// or https://",
        ),
        (["--tickers", "BTC-PERP"], {}, "--tickers: A ticker is 1 to 32 letters"),
        (["--tickers", "BTC"], {}, "--tickers: Bitcoin is a coin. Did you mean BTCUSD or BTCUSDT?"),
        (["--max-tickers", "0"], {}, "--max-tickers must be from 1 to 1000, not 0"),
        (
            ["--max-tickers", "1", "--tickers", "BTCUSD,ETHUSD"],
            {},
            "but --max-tickers allows only 1",
        ),
        ([], {"PLUTO_PORT": "http"}, "--port: invalid int value: 'http'"),
        ([], {"PLUTO_PORT": ""}, "PLUTO_PORT is empty: give it a value, such as 8080, or unset it"),
        ([], {"PLUTO_PAGE_MAX_AGE": ""}, "PLUTO_PAGE_MAX_AGE is empty: give it a value, such as 6.0, or unset it"),
        ([], {"PLUTO_LOG_FORMAT": ""}, "PLUTO_LOG_FORMAT is empty: give it a value, such as plain, or unset it"),
        ([], {"PLUTO_HOST": ""}, "--host: give an address, such as 127.0.0.1"),
        ([], {"PLUTO_SOURCE_URL": ""}, "--source-url: '' does not begin with http:// or https://"),
        (["--max-tick", "3"], {}, "unrecognized arguments: --max-tick 3"),
        ([], {"PLUTO_DEMO": "perhaps"}, "PLUTO_DEMO is on or off, not 'perhaps'"),
        ([], {"PLUTO_LOG_LEVEL": "loud"}, "--log-level must be one of debug, info, warning, error, not 'loud'"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_setting_ends_the_program() -> None:
    ended = run_to_end("--port", "http")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].endswith("--port: invalid int value: 'http'")


def test_a_browser_that_is_none_is_one_clear_sentence() -> None:
    ended = run_to_end("--port", "0", PLUTO_BROWSER="/no/such/browser")
    assert ended.returncode == 1
    assert ended.stderr.startswith("pluto: /no/such/browser is not an executable:")
    assert len(ended.stderr.splitlines()) == 1


def test_a_taken_port_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_end("--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr == (f"pluto: Port {port} is taken: stop what listens there, or choose another with --port.\n")


def test_on_windows_it_says_in_one_sentence_what_to_use_instead() -> None:
    """Where the modules that only Unix has aren't there."""
    windows = """
import runpy, sys
sys.platform = "win32"
sys.modules.update(dict.fromkeys(["resource", "fcntl", "termios", "pwd", "gevent", "playwright"]))
sys.argv = ["app.py", "--demo"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", windows], capture_output=True, text=True, timeout=20, cwd=PROJECT)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(r"pluto: .* Windows .* WSL2 .*\n", ended.stderr)


def test_a_simulator_that_cannot_start_is_said_and_ends_pluto(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("""
import os, sys
if "simulator" in sys.orig_argv:
    os.write(2, b"no room for a simulator here\\n")
    os._exit(1)
""")
    ended = run_to_end("--demo", "--port", "0", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "no room for a simulator here",
        "pluto: The simulator didn't start; what it printed above says why.",
    ]


def test_without_any_browser_every_ticker_says_so(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path), "PLUTO_BROWSER": ""}
    with running_pluto("--tickers", "BTCUSD", **nothing) as pluto:
        quote = pluto.wait_for("BTCUSD", "error")
        assert quote["reason"].startswith("no browser: No Chromium found: install")
        assert pluto.http.get("/health").json()["browser"] == "down"
        assert pluto.http.get("/readyz").status_code == 503


def test_headed_is_chosen_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":99")
    assert Settings(browser_mode="auto").headed
    assert not Settings(browser_mode="headless").headed
    monkeypatch.delenv("DISPLAY")
    assert not Settings(browser_mode="auto").headed
    assert Settings(browser_mode="headed").headed
