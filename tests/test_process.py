"""Starting and ending: what Pluto prints, how long it takes, and that nothing is left running, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import PROJECT, Pluto, alive, clean_environment, descendants, running_pluto, wait_until

from settings import Settings


def run_to_end(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "app.py"), *options],
        capture_output=True,
        text=True,
        timeout=20,
        env={**clean_environment(), **environment},
    )


def with_live_demo(pluto: Pluto) -> list[psutil.Process]:
    """Every process of a demo whose prices are live."""
    for ticker in ("BTCUSD", "ETHUSD", "SOLUSD"):
        assert pluto.wait_for(ticker, "live")["simulated"] is True
    processes = descendants(pluto.process.pid)
    names = " ".join(" ".join(process.cmdline()) for process in alive(processes))
    assert "simulator" in names
    assert "run-driver" in names
    assert "--type=renderer" in names
    return processes


@pytest.mark.parametrize("way", ["ctrl_c", "sigterm"])
def test_a_signal_ends_everything_within_3_seconds(way: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_pluto("--demo", log=str(log)) as pluto:
        processes = with_live_demo(pluto)
        started = time.monotonic()
        with pluto.stream() as events:
            next(events)
            if way == "ctrl_c":  # a terminal tells all processes of the group, the browser's driver too
                os.killpg(pluto.process.pid, signal.SIGINT)
            else:
                pluto.process.terminate()
            told = list(events)
        assert told[-1].event == "shutdown"
        assert pluto.process.wait(10) == 0
        assert time.monotonic() - started < 3
        assert alive(processes) == []
    news = "".join(event.data for event in told) + log.read_text()
    assert "stale" not in news
    assert "no browser" not in news


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short path, as the sockets in it need."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_sigkill_leaves_no_process_behind_and_the_next_start_removes_its_files(temporary: Path) -> None:
    with running_pluto("--demo", TMPDIR=str(temporary)) as pluto:
        processes = with_live_demo(pluto)
        pluto.process.kill()
        wait_until(lambda: alive(processes) == [], timeout=10)
    left = set(temporary.iterdir())
    assert left
    with running_pluto("--demo", TMPDIR=str(temporary)) as pluto:
        wait_until(lambda: pluto.http.get("/readyz").status_code == 200)
        assert left.isdisjoint(temporary.iterdir())
    assert list(temporary.iterdir()) == []


def test_a_killed_browser_is_started_again_and_leaves_no_files(temporary: Path) -> None:
    with running_pluto("--demo", TMPDIR=str(temporary)) as pluto:
        browser = next(
            process
            for process in alive(with_live_demo(pluto))
            if "--remote-debugging-pipe" in process.cmdline() and "--type=" not in " ".join(process.cmdline())
        )
        browser.kill()
        wait_until(lambda: pluto.quote("BTCUSD")["state"] != "live")
        assert pluto.wait_for("BTCUSD", "live")["simulated"] is True
        assert len(list(temporary.iterdir())) == 1


def test_a_killed_renderer_is_replaced() -> None:
    with running_pluto("--demo") as pluto:
        processes = alive(with_live_demo(pluto))
        before = pluto.http.get("/api/performance").json()["scraper"]["counters"]
        for process in processes:
            if "--type=renderer" in " ".join(process.cmdline()):
                process.kill()
        wait_until(
            lambda: pluto.http.get("/api/performance").json()["scraper"]["counters"].get("pages_crashed", 0) >= 3
        )
        for ticker in ("BTCUSD", "ETHUSD", "SOLUSD"):
            pluto.wait_for(ticker, "live")
        after = pluto.http.get("/api/performance").json()["scraper"]["counters"]
        assert after["browser_starts"] == before["browser_starts"], "the browser itself lived on"


def test_it_listens_within_3_seconds_and_says_where() -> None:
    started = time.monotonic()
    with running_pluto("--demo") as pluto:
        assert time.monotonic() - started < 3
        assert pluto.url.startswith("http://localhost:")
        assert pluto.http.get("/health").json()["simulated"] is True


def test_an_unreachable_source_is_said_and_everything_else_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with running_pluto("--source-url", f"http://127.0.0.1:{port}", "--tickers", "BTCUSD") as pluto:
        quote = pluto.wait_for("BTCUSD", "error")
        assert quote["reason"] == f"127.0.0.1:{port} can't be reached: the connection was refused"
        assert 0 < quote["nextTryAt"] - time.time() * 1000 <= 60_000
        assert "price" not in quote
        assert pluto.http.get("/").status_code == 200
        assert pluto.http.get("/health").json()["status"] == "degraded"
        assert pluto.add("ETHUSD").status_code == 201


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        (
            ["--source-url", "ftp://example"],
            {},
            "--source-url: 'ftp://example' does not begin with http:// or https://",
        ),
        (["--tickers", "BTC USD"], {}, "--tickers: A ticker is 1 to 32 letters"),
        (["--max-tickers", "0"], {}, "--max-tickers must be from 1 to 1000, not 0"),
        (
            ["--max-tickers", "1", "--tickers", "BTCUSD,ETHUSD"],
            {},
            "but --max-tickers allows only 1",
        ),
        ([], {"PLUTO_PORT": "http"}, "--port: invalid int value: 'http'"),
        ([], {"PLUTO_DEMO": "perhaps"}, "PLUTO_DEMO is on or off, not 'perhaps'"),
        ([], {"PLUTO_LOG_LEVEL": "loud"}, "--log-level must be one of debug, info, warning, error, not 'loud'"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(options: list[str], environment: dict[str, str], sentence: str) -> None:
    ended = run_to_end(*options, **environment)
    assert ended.returncode == 2
    assert sentence in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "environment"),
    [(["--browser", "/no/such/browser"], {}), ([], {"PLUTO_BROWSER": "/no/such/browser"})],
)
def test_a_browser_that_is_none_is_one_clear_sentence(options: list[str], environment: dict[str, str]) -> None:
    ended = run_to_end("--port", "0", *options, **environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pluto: /no/such/browser is no program that can be run;")
    assert len(ended.stderr.splitlines()) == 1


def test_a_taken_port_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_end("--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr == (f"pluto: Port {port} is taken: stop what listens there, or choose another with --port.\n")


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
