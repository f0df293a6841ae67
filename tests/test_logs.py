"""The log: one line an event, in either format, that nothing from outside can forge, and that holds no secret."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import httpx
import pytest
from httpx_sse import connect_sse
from running import (
    PROJECT,
    TEST_OPTIONS,
    TLS,
    Simulator,
    clean_environment,
    ending,
    ports_of,
    run_to_end,
    start_program,
    wait_until,
)

from web.logs import FORMATTERS, MAX_LINE, MAX_LINES, MAX_WAITING, LineHandler, Outlet, log_failure

HOSTILE = [
    "BTC\r\n12:00:00 INFO    all is well",
    "\x1b[2J\x1b]0;title\x07cleared",
    "\u202elived\u202c \u2066isolated\u2069 \u200bnothing",
    "one\u2028two\u2029three\x85four\x0bfive\x0csix",
    "\x00\x7f\x9b31m",
    "a lone \ud800 surrogate, a \ufeffmark",
]
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
SECRETS = [
    ("Authorization: Bearer s3cr3t-abc.def", "s3cr3t"),
    ("{'Authorization': 'Basic dXNlcjpzM2NyM3Q=', 'Host': 'localhost'}", "dXNlcjpzM2NyM3Q"),
    ("Cookie: theme=dark; session=s3cr3t", "s3cr3t"),
    ("set-cookie: id=s3cr3t; HttpOnly", "s3cr3t"),
    ("GET /api/stream?tickers=BTCUSD&token=s3cr3t HTTP/1.1", "s3cr3t"),
    ('{"password": "s3cr3t"}', "s3cr3t"),
    ("X-Api-Key: s3cr3t", "s3cr3t"),
    ("the proxy http://user:s3cr3t@proxy.example:3128 refused", "s3cr3t"),
    ("told bearer s3cr3t.s3cr3t", "s3cr3t"),
]


@contextmanager
def logged(format: str) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with one of our formatters, and what it has written; beside all others, so that nobody captures it."""
    written, logger = io.StringIO(), logging.Logger(f"pluto.test.{format}")
    handler = logging.StreamHandler(written)
    handler.setFormatter(FORMATTERS[format]())
    logger.addHandler(handler)
    yield logger, written


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("format", FORMATTERS)
def test_no_text_ends_a_line_or_turns_it(format: str, text: str) -> None:
    with logged(format) as (logger, written):
        logger.warning("%s: live again", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("reading %s failed", text)
    lines = written.getvalue().splitlines()  # which splits at all that anything takes for the end of a line
    assert written.getvalue().count("\n") == len(lines)
    assert not UNSAFE.search(written.getvalue())
    if format == "json":
        records = [json.loads(line) for line in lines]
        assert len(records) == 2
        assert not any(UNSAFE.search(part) for record in records for part in record.values())
        assert "ValueError" in records[1]["exception"]
        assert "\n" not in records[0]["message"]
    else:
        assert [line for line in lines if not line.startswith("    ")] == [lines[0], lines[1]]
        assert all(re.match(r"\d\d:\d\d:\d\d (WARNING|ERROR  ) ", line) for line in lines[:2])


def test_a_line_of_json_has_these_fields() -> None:
    with logged("json") as (logger, written):
        before = time.time()
        logger.warning("no browser: %s; next try in %.0f s", "ß is no program", 2.5)
    line = json.loads(written.getvalue())
    assert set(line) == {"time", "level", "logger", "message"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert line["time"][:16] in [
        time.strftime("%Y-%m-%dT%H:%M", time.gmtime(moment)) for moment in (before, time.time())
    ]
    assert (line["level"], line["logger"]) == ("warning", "pluto.test.json")
    assert line["message"] == "no browser: ß is no program; next try in 2 s"


@pytest.mark.parametrize("format", FORMATTERS)
@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_hidden_wherever_it_is(format: str, text: str, secret: str) -> None:
    with logged(format) as (logger, written):
        logger.error("%s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed")
    assert secret not in written.getvalue()
    assert written.getvalue().count("[hidden]") >= 2


def test_ordinary_words_stay_as_they_are() -> None:
    words = "BTCUSD: error: www.tradingview.com can't be reached: it doesn't answer; a basic try in 4 s at http://[::1]:8080/"
    with logged("plain") as (logger, written):
        logger.info("%s", words)
    assert words in written.getvalue()


@pytest.mark.parametrize("filling", ["x", "\x00", "token=", "a://b:", "token ", "cookie:  ", "bearer "])
def test_no_line_is_long_and_none_takes_long(filling: str) -> None:
    with logged("json") as (logger, written):
        started = time.process_time()
        logger.error("%s", filling * (1_000_000 // len(filling)))
        assert time.process_time() - started < 1
    assert len(written.getvalue()) < 8 * MAX_LINE


def test_a_traceback_has_its_last_lines() -> None:
    with logged("plain") as (logger, written):
        try:
            raise ValueError("\n".join(f"line {number}" for number in range(1000)))
        except ValueError:
            logger.exception("failed")
    lines = written.getvalue().splitlines()
    assert len(lines) == 1 + MAX_LINES
    assert lines[-1] == "    line 999"


def test_words_that_do_not_fit_their_arguments_are_logged_all_the_same() -> None:
    record = logging.LogRecord("pluto", logging.WARNING, __file__, 1, "%d tickers and %s", ("three",), None)
    assert FORMATTERS["plain"]().format(record).endswith("WARNING %d tickers and %s ('three',)")


def test_a_greenlet_s_failure_is_a_record_without_its_environment(caplog: pytest.LogCaptureFixture) -> None:
    hub = gevent.get_hub()
    hub.print_exception = log_failure  # type: ignore[method-assign, assignment]
    try:
        gevent.spawn(int, "gone").join()
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/ws", "HTTP_COOKIE": "s3cr3t"}
        hub.handle_error(request, ValueError, ValueError("odd"), None)
    finally:
        del hub.print_exception
    first, second = caplog.records
    assert first.getMessage().startswith("<Greenlet")
    assert first.exc_info is not None
    assert second.getMessage() == "the request GET '/api/ws' failed"


class Reader:
    """Takes what comes out of a descriptor, from now on, and closes it after the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._data = descriptor, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._descriptor, 65536):
                self._data += data
        except OSError:  # a terminal whose last program has ended
            pass
        os.close(self._descriptor)

    def join(self) -> None:
        """Waits for the end, which comes once nobody can write any more."""
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def text(self) -> str:
        return bytes(self._data).decode(errors="replace").lstrip("\0")

    def lines(self) -> list[str]:
        """Those that were put."""
        return [line for line in self.text.splitlines(keepends=True) if not line.startswith("dropped")]

    def dropped(self) -> list[int]:
        return [int(number) for number in re.findall(r"^dropped (\d+)\n", self.text, re.MULTILINE)]


@contextmanager
def pluto_on(
    output: int | None, errors: int, *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Pluto with these streams, listening. It need not be able to say where."""
    started = start_program("app.py", *TEST_OPTIONS, *options, environment=environment, output=output, errors=errors)
    with ending(started) as process:
        ports = wait_until(lambda: ports_of(process.pid), 20, what="it listens")
        with httpx.Client(base_url=f"http://127.0.0.1:{ports.pop()}", timeout=5.0, verify=TLS) as http:
            yield process, http


def send_and_read(http: httpx.Client, request: bytes) -> bytes:
    """What a client is told that sends this and nothing more."""
    port = http.base_url.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=5) as rude:
        rude.sendall(request)
        return rude.recv(4096)


NO_BROWSER = {"PLUTO_BROWSER": sys.executable}  # it runs, and is no browser


def test_every_line_of_a_running_pluto_is_an_object_and_no_request_is_one() -> None:
    reading, writing = os.pipe()
    reader = Reader(reading)
    options = ("--log-format", "json", "--log-level", "debug", "--tickers", "BTCUSD")
    with pluto_on(None, writing, *options, **NO_BROWSER) as (process, http):
        os.close(writing)
        headers = {"Authorization": "Bearer s3cr3t-1234", "Cookie": "session=s3cr3t-1234"}
        for path in ("/livez", "/api/nothing%0Aforged?token=s3cr3t-1234", "/api/tickers/%E2%80%AE%1B%5B2J"):
            http.get(path, headers=headers)
        assert send_and_read(http, b"NO\x1bSENSE /?token=s3cr3t-1234 HTTP/9.9\r\nCookie: s3cr3t-1234\r\n\r\n")
        for told in (r"http://localhost:\d+", "refused ", "no browser: "):
            wait_until(lambda told=told: re.search(told, reader.text), 20, what=told)  # type: ignore[misc]
    reader.join()
    records: list[dict[str, Any]] = [json.loads(line) for line in reader.lines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    assert "s3cr3t" not in reader.text
    assert not UNSAFE.search(reader.text)
    assert "/livez" not in reader.text
    assert "stopping" in [record["message"] for record in records]
    assert process.returncode == 0


def test_in_json_what_keeps_it_from_starting_is_an_object_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_end("--port", str(port), "--log-format", "json")
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["message"].startswith(f"pluto: Port {port} is taken")


# --- streams that nobody takes anything from --------------------------------------------------------------------------


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more: the ends to read from and to write to."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"\0" * 1024):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_full_stream_delays_nobody_and_what_was_dropped_is_counted(is_blocking: bool) -> None:
    reading, writing = full_pipe()
    os.set_blocking(writing, is_blocking)
    lines = [f"{number} {'x' * 100}\n" for number in range(5 * MAX_WAITING // 100)]
    with open(writing, "w") as stream:
        outlet = Outlet(stream, lambda dropped: f"dropped {dropped}\n")
        started = time.monotonic()
        for line in lines:
            outlet.put(line)
        assert time.monotonic() - started < 1
        outlet.close(0.1)
        assert time.monotonic() - started < 2, "the end waits for a bounded time"
        reader = Reader(reading)
        outlet.close(5)
        wait_until(lambda: sum(reader.dropped()) + len(reader.lines()) == len(lines))
    reader.join()
    written = reader.lines()
    assert sum(reader.dropped()) > len(lines) / 2
    assert written == sorted(written, key=lambda line: int(line.split()[0])), "in their order"
    assert set(written) <= set(lines)
    assert sum(map(len, written)) <= 2 * MAX_WAITING


def test_lines_that_a_stream_refuses_are_counted_as_dropped(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream, (tmp_path / "log").open("w") as log:
        outlet = Outlet(stream, lambda dropped: f"dropped {dropped}\n")
        outlet.put("to nobody\n")
        wait_until(lambda: outlet._dropped == 1)
        os.dup2(log.fileno(), writing)
        outlet.put("to a file\n")
        outlet.close(5)
    assert (tmp_path / "log").read_text() == "to a file\ndropped 1\n"


def test_a_record_that_cannot_be_shown_is_a_line_all_the_same(tmp_path: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            raise OSError("no words")

    with (tmp_path / "log").open("w") as stream:
        outlet = Outlet(stream, str)
        handler = LineHandler(outlet)
        handler.setFormatter(FORMATTERS["plain"]())
        handler.handle(logging.LogRecord("pluto.odd", logging.INFO, __file__, 1, "%s", (Odd(),), None))
        outlet.close(5)
    first, *trace = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("ERROR   a record of pluto.odd can't be shown")
    assert trace[-1] == "    OSError: no words"


def tells_prices_after(http: httpx.Client, moment: float) -> bool:
    """Whether a new client is told a live price that was received after this moment."""
    with connect_sse(http, "GET", "/api/stream") as source:
        for event in source.iter_sse():
            for update in json.loads(event.data).get("updates", []) if event.data else []:
                if update["state"] == "live" and update["receivedAt"] > moment:
                    return True
    return False


def test_prices_go_on_while_nobody_takes_the_log_and_the_terminal_is_stopped(simulator: Simulator) -> None:
    """The log goes to a full pipe, and the output to a terminal: Ctrl-S from the start on, until Ctrl-Q."""
    reading, writing = full_pipe()
    master, slave = pty.openpty()
    os.write(master, b"\x13")
    options = ("--source-url", simulator.url, "--tickers", "FLOKIUSD", "--log-level", "debug")
    with pluto_on(slave, writing, *options) as (process, http):
        os.close(writing)
        os.close(slave)
        for _ in range(MAX_WAITING // 150):  # each is a line of the log of over 150 characters
            assert send_and_read(http, b"NO SENSE " * 12 + b"\r\n\r\n")
        terminal = Reader(master)
        wait_until(lambda: http.get("/api/tickers/FLOKIUSD").json()["state"] == "live", 20)
        assert tells_prices_after(http, time.time() * 1000)
        assert http.get("/health").json()["scraper"] == "running"
        assert "http://localhost" not in terminal.text, "the terminal is stopped"
        os.write(master, b"\x11")
        wait_until(lambda: "http://localhost" in terminal.text)
        log = Reader(reading)
        wait_until(lambda: re.search(r"\d+ lines were dropped: nobody took them\n", log.text))
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    for reader in (log, terminal):
        reader.join()
    assert "stopping" in log.text


def test_it_ends_in_time_while_nobody_takes_the_log() -> None:
    reading, writing = full_pipe()
    with ExitStack() as stack:
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        options = ("--tickers", "FLOKIUSD", "--log-level", "debug")
        process, http = stack.enter_context(pluto_on(writing, writing, *options, **NO_BROWSER))
        wait_until(lambda: http.get("/api/tickers/FLOKIUSD").json()["state"] == "error", 20)
        started = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - started < 5


def test_the_traceback_of_a_crash_gets_out() -> None:
    options = ["--port", "0", "--log-format", "json"]
    crash = f"import app; app.listen = lambda *_, **__: 1 / 0; app.sys.exit(app.main({options}))"
    ended = subprocess.run(
        [sys.executable, "-c", crash], capture_output=True, text=True, timeout=20, cwd=PROJECT, env=clean_environment()
    )
    assert ended.returncode == 1
    record = json.loads(ended.stderr)
    assert record["message"] == "Pluto ends with ZeroDivisionError"
    assert record["exception"].endswith("ZeroDivisionError: division by zero")
