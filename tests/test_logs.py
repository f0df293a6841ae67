"""The log: one line an event, in either format, that nothing from outside can forge, and that holds no secret."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import gevent
import httpx
import pytest
from running import PROJECT, clean_environment, wait_until

from web.logs import FORMATTERS, MAX_LINE, MAX_LINES, log_failure

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


class Logging:
    """Pluto with its log on a pipe, read line by line."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROJECT / "app.py"), "--port", "0", "--browser-mode", "headless", *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean_environment(), "PLUTO_BROWSER": sys.executable},  # it runs, and is no browser
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def found(program: Logging, pattern: str) -> re.Match[str]:
    match = wait_until(lambda: re.search(pattern, "".join(program.lines)), 20, what=pattern)
    assert match is not None
    return match


def test_every_line_of_a_running_pluto_is_an_object_and_no_request_is_one() -> None:
    with closing(Logging("--log-format", "json", "--log-level", "debug", "--tickers", "BTCUSD")) as program:
        port = int(found(program, r"http://localhost:(\d+)")[1])
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": "Bearer s3cr3t-1234", "Cookie": "session=s3cr3t-1234"}
        for path in ("/livez", "/api/nothing%0Aforged?token=s3cr3t-1234", "/api/tickers/%E2%80%AE%1B%5B2J"):
            httpx.get(url + path, headers=headers)
        with socket.create_connection(("127.0.0.1", port)) as rude:
            rude.sendall(b"NO\x1bSENSE /?token=s3cr3t-1234 HTTP/9.9\r\nCookie: s3cr3t-1234\r\n\r\n")
            rude.settimeout(5)
            while rude.recv(4096):
                pass
        found(program, "no browser: ")
    records: list[dict[str, Any]] = [json.loads(line) for line in program.lines]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    everything = "".join(program.lines)
    assert "s3cr3t" not in everything
    assert not UNSAFE.search(everything)
    assert "/livez" not in everything
    assert "stopping" in [record["message"] for record in records]
    assert program.process.returncode == 0


def test_in_json_what_keeps_it_from_starting_is_an_object_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, str(PROJECT / "app.py"), "--port", str(port), "--log-format", "json"],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, **clean_environment()},
        )
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["message"].startswith(f"pluto: Port {port} is taken")
