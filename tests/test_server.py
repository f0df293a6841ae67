"""The HTTP server on real sockets: deadlines, sizes, the malformed, the many, and what keeps working meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import TLS, QuoteServer, quote_server, wait_until

from web.http1 import MAX_BODY
from web.server import Limits
from web.websocket import Closing, WebSocketReader

HOST = b"\r\nHost: localhost"
LIVEZ = b"GET /livez HTTP/1.1" + HOST + b"\r\n\r\n"
POST = b"POST /api/tickers HTTP/1.1" + HOST + b"\r\nContent-Type: application/json\r\n"
STREAM = b"GET /api/stream HTTP/1.1" + HOST + b"\r\n\r\n"
CHARTS = b"GET /vendor/lightweight-charts.js HTTP/1.1" + HOST + b"\r\n\r\n"
SOON = ("first_byte", "head", "body", "idle", "answer")
# The machine may be busy.
UNHURRIED = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server() as server:
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[QuoteServer]:
    """A server that waits for nothing longer than half a second."""
    with quote_server(*[part for name in SOON for part in ("--limit", name, "0.5")]) as server:
        yield server


def connect(server: QuoteServer, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(data)
    return connection


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """Of a failure in the one shape there is, with all that goes with it, and the end of its connection."""
        failure = json.loads(self.body)
        assert (failure["success"], bool(failure["message"])) == (False, True)
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in self.headers["Content-Security-Policy"]
        assert self.headers["Connection"] == "close"
        return str(failure["code"])


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


def ask(server: QuoteServer, request: bytes) -> Answer:
    """The answer to a request on a connection of its own, which is over then if the answer says so."""
    with connect(server, request) as connection:
        answer = read_answer(connection)
        if answer.headers["Connection"] == "close":
            assert read_to_end(connection) == b""
        return answer


def figures(server: QuoteServer) -> dict[str, Any]:
    figures: dict[str, Any] = httpx.get(f"{server.url}/api/performance", verify=TLS).json()["server"]["http"]
    return figures


def count(server: QuoteServer, reason: str) -> int:
    return int(figures(server)["counters"].get(reason, 0))


def add(ticker: str) -> bytes:
    body = json.dumps({"ticker": ticker}).encode()
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


# --- what goes on working ---------------------------------------------------------------------------------------------


def test_requests_may_be_pipelined_and_come_byte_by_byte(server: QuoteServer) -> None:
    with connect(server, LIVEZ * 3 + add("PIPEUSD") + LIVEZ) as connection:
        statuses = []
        with connection.makefile("rb") as answers:
            for _ in range(5):
                statuses.append(int(answers.readline().split()[1]))
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                answers.read(length)
        assert statuses == [200, 200, 200, 201, 200]
        for byte in add("DRIPUSD"):
            connection.sendall(bytes([byte]))
        assert read_answer(connection).status == 201


def test_a_head_has_no_body_also_when_it_is_refused(server: QuoteServer) -> None:
    with connect(server, b"HEAD /livez HTTP/1.1" + HOST + b"\r\n\r\n") as connection:
        assert read_answer(connection, "HEAD").headers["Content-Length"] == "16"
        connection.sendall(b"HEAD /livez HTTP/1.1" + HOST + b"\r\nContent-Length: 70000\r\n\r\n")
        assert read_to_end(connection).endswith(b"\r\n\r\n")


def test_http_1_0_is_answered_and_keeps_its_connection_if_asked(server: QuoteServer) -> None:
    with connect(server, b"GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n") as connection:
        assert read_answer(connection).headers["Connection"] == "keep-alive"
        connection.sendall(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert read_to_end(connection).endswith(b'{"status":"ok"}\n')


def test_an_unknown_method_is_the_application_s_to_refuse(server: QuoteServer) -> None:
    answer = ask(server, LIVEZ.replace(b"GET", b"BREW") + b"\r\n\r\n")
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


def test_a_whole_url_is_as_good_as_its_path(server: QuoteServer) -> None:
    assert ask(server, b"GET http://localhost/livez HTTP/1.1" + HOST + b"\r\n\r\n").status == 200


def test_who_expects_100_continue_gets_it_before_the_body_and_only_if_it_is_wanted(server: QuoteServer) -> None:
    with connect(server, POST + b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"ticker":"WAITUSD"}')
        assert read_answer(connection).status == 201
    large = POST + b"Content-Length: 70000\r\nExpect: 100-continue\r\n\r\n"
    assert ask(server, large).code == "too_large"
    assert ask(server, POST + b"Content-Length: 2\r\nExpect: luck\r\n\r\n{}").status == 417


def test_a_chunked_body_is_as_good_as_one_with_a_length(server: QuoteServer) -> None:
    body = b'5;ext=1\r\n{"tic\r\n10\r\nker":"CHUNKUSD"}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    assert ask(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body).status == 201


def test_a_field_with_an_underscore_passes_for_no_other(server: QuoteServer) -> None:
    request = add("UNDERUSD").replace(b"Content-Type", b"Content_Type")
    assert ask(server, request).status == 415


# --- the malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0" * 100,
        b"GET /livez\r\n\r\n",
        LIVEZ.replace(b"\r\n", b"\n"),
        LIVEZ.replace(b"Host", b"Host "),
        LIVEZ.replace(b"localhost", b"localhost\r\n folded"),
        LIVEZ.replace(b"localhost", b"local\0host"),
        LIVEZ.replace(HOST, HOST + HOST),
        LIVEZ.replace(HOST, b""),
        POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + add("SMUGGLEDUSD"),
        POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + add("SMUGGLEDUSD"),
        POST + b"Transfer-Encoding: identity\r\n\r\n" + add("SMUGGLEDUSD"),
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + add("SMUGGLEDUSD"),
        POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"a" * 300 + b"\r\n{}\r\n0\r\n\r\n" + add("SMUGGLEDUSD"),
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n" + add("SMUGGLEDUSD"),
    ],
)
def test_the_malformed_is_refused_and_nothing_after_it_is_heard(server: QuoteServer, request_bytes: bytes) -> None:
    answer = ask(server, request_bytes)
    assert (answer.status, answer.code) == (400, "malformed_request")
    assert "SMUGGLEDUSD" not in server.prices()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /" + b"a" * 9000, 414, "target_too_long"),
        (LIVEZ[:-2] + b"X: " + b"a" * 17_000, 431, "headers_too_large"),
        (LIVEZ[:-2] + b"X: y\r\n" * 100 + b"\r\n", 431, "headers_too_large"),
        (POST + b"Content-Length: 65537\r\n\r\n", 413, "too_large"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n", 413, "too_large"),
        (LIVEZ.replace(b"/1.1", b"/3.0"), 505, "unknown_version"),
    ],
)
def test_the_large_and_the_unknown_are_refused_before_they_have_come(
    server: QuoteServer, request_bytes: bytes, status: int, code: str
) -> None:
    before = count(server, f"refused: {code}")
    answer = ask(server, request_bytes)
    assert (answer.status, answer.code) == (status, code)
    assert count(server, f"refused: {code}") == before + 1


def test_a_body_may_have_64_kib(server: QuoteServer) -> None:
    body = b'{"ticker":"BODYUSD"}'.ljust(MAX_BODY)
    assert ask(server, POST + b"Content-Length: %d\r\n\r\n%b" % (MAX_BODY, body)).status == 201


@pytest.mark.parametrize("path", ["/api/tickers", "/crypto.v1.CryptoPriceService/AddTicker"])
def test_a_client_that_sends_far_too_much_hears_that_it_does(server: QuoteServer, path: str) -> None:
    with connect(
        server, b"POST %b HTTP/1.1%b\r\nContent-Length: 8000000\r\n\r\n" % (path.encode(), HOST)
    ) as connection:
        for _ in range(80):
            connection.sendall(bytes(100_000))
        assert read_answer(connection).code == "too_large"


def test_what_is_refused_is_logged_when_debugging_without_its_control_characters(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with quote_server("--log-level", "DEBUG") as server:
        ask(server, b"GET /\x1b[31m HTTP/1.1\r\n\r\n")
    assert re.search(r"DEBUG:pluto.server:refused .*malformed_request.*\\x1b\[31m", capfd.readouterr().err)


def test_an_application_that_fails_is_one_answer_and_one_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with quote_server() as server:
        answer = ask(server, b"GET /trial/fail HTTP/1.1" + HOST + b"\r\n\r\n")
        assert (answer.status, answer.code) == (500, "internal")
        assert b"as was asked" not in answer.body
    assert capfd.readouterr().err.count("RuntimeError: as was asked") == 1


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_the_limits_are_those_in_the_readme() -> None:
    assert Limits() == Limits(10, 10, 20, 60, 20, 1, 2000)


def test_a_client_that_says_nothing_is_closed_without_a_word(hasty: QuoteServer) -> None:
    with connect(hasty) as connection:
        began = time.monotonic()
        assert read_to_end(connection) == b""
        assert 0.3 < time.monotonic() - began < 3
    assert count(hasty, "closed: silent") >= 1


def test_an_idle_connection_is_closed_and_a_used_one_is_not(hasty: QuoteServer) -> None:
    with connect(hasty) as connection:
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            connection.sendall(LIVEZ)
            assert read_answer(connection).status == 200
            time.sleep(0.02)
        assert read_to_end(connection) == b""
    assert count(hasty, "closed: idle") >= 1


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", POST + b"Content-Length: 1000\r\n\r\n"])
def test_a_byte_now_and_then_is_no_reason_to_wait(hasty: QuoteServer, start: bytes) -> None:
    with connect(hasty, start) as connection:
        connection.settimeout(0.05)
        began, received = time.monotonic(), b""
        while not received:
            assert time.monotonic() - began < 3
            connection.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b'"code": "too_slow"' in received
        assert time.monotonic() - began > 0.3


def test_a_client_that_takes_nothing_of_its_answer_is_closed(hasty: QuoteServer) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall(CHARTS * 40)
        wait_until(lambda: count(hasty, "closed: stuck") == 1)


# --- the many ---------------------------------------------------------------------------------------------------------


def test_beyond_the_most_connections_the_one_that_waits_longest_goes() -> None:
    with quote_server("--limit", "max_connections", "20") as server, ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(10)]
        wait_until(lambda: figures(server)["connections"] >= 10)
        slow = [stack.enter_context(connect(server, b"GET / HTTP/1.1\r\n")) for _ in range(30)]
        for connection in slow[-5:]:
            connection.sendall(b"Host: localhost\r\n\r\n")
            assert read_answer(connection).status == 200
        assert all(read_to_end(connection) == b"" for connection in silent)
        assert figures(server)["connections"] <= 20
        assert count(server, "closed: evicted") >= 20


def test_idle_connections_slow_ones_and_streams_leave_a_request_its_answer(server: QuoteServer) -> None:
    with ExitStack() as stack:
        for data, number in (
            (b"", 1000),
            (b"GET / HT", 300),
            (POST + b"Content-Length: 9\r\n\r\n{", 300),
            (STREAM, 300),
        ):
            for _ in range(number):
                stack.enter_context(connect(server, data))
        wait_until(lambda: figures(server)["connections"] >= 1600 and server.server()["clients"]["sse"] == 300)
        began = time.monotonic()
        assert ask(server, LIVEZ).status == 200
        assert time.monotonic() - began < 3
    wait_until(lambda: figures(server)["connections"] < 10)


def test_without_descriptors_the_server_says_so_once_idles_and_recovers(capfd: pytest.CaptureFixture[str]) -> None:
    with quote_server("--open-files", "40") as server:
        process = psutil.Process(server.process.pid)
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(connect(server, STREAM))
            wait_until(lambda: "can't accept connections" in capfd.readouterr().err)
            before = sum(process.cpu_times()[:2])
            time.sleep(0.5)
            assert sum(process.cpu_times()[:2]) - before < 0.25
        wait_until(lambda: ask(server, LIVEZ).status == 200)
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(connect(server))
            assert ask(server, LIVEZ).status == 200, "who only waits makes room"
        assert count(server, "accept failed") >= 2
    assert capfd.readouterr().err == ""


# --- whatever else may come -------------------------------------------------------------------------------------------

REQUESTS = [
    LIVEZ,
    LIVEZ * 2,
    add("FUZZUSD"),
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    b"GET /api/tickers/BTCUSD?a=%00&b=%ff HTTP/1.1"
    + HOST
    + b"\r\nAccept: */*\r\nIf-None-Match: x\r\nRange: bytes=0-\r\n\r\n",
    b"DELETE /api/tickers/%F0%9F HTTP/1.1" + HOST + b"\r\nOrigin: http://localhost:3000\r\n\r\n",
    b"GET /static/page.css HTTP/1.1" + HOST + b"\r\nRange: bytes=0-5\r\nIf-Modified-Since: 0\r\n\r\n",
    b"GET /api/ws HTTP/1.1"
    + HOST
    + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"POST /crypto.v1.CryptoPriceService/GetTickers HTTP/1.1"
    + HOST
    + b"\r\nContent-Type: application/json\r\nConnect-Timeout-Ms: 99\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /crypto.v1.CryptoPriceService/StreamPrices HTTP/1.1"
    + HOST
    + b"\r\nContent-Type: application/connect+json\r\nConnect-Timeout-Ms: 9\r\nContent-Length: 7\r\n\r\n\0\0\0\0\2{}",
]
SCRAPS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b" ",
    b":",
    b"%",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"/",
]
Mutation = tuple[float, int, bytes]
MUTATIONS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 6), st.sampled_from(SCRAPS) | st.binary(max_size=6)), max_size=4
)


def mutated(request: bytes, mutations: list[Mutation]) -> bytes:
    for where, length, scrap in mutations:
        start = round(where * len(request))
        request = request[:start] + scrap + request[start + length :]
    return request


@contextmanager
def unshaken_server(capfd: pytest.CaptureFixture[str]) -> Iterator[QuoteServer]:
    """A server that answers at the end as at the beginning, has closed what was opened, and had nothing to log."""
    with quote_server("--limit", "linger", "0.2") as server:
        yield server
        assert ask(server, LIVEZ).status == 200
        wait_until(lambda: figures(server)["connections"] <= 2 and not sum(server.server()["clients"].values()))
    assert capfd.readouterr().err == ""


def check_answer(server: QuoteServer, data: bytes) -> None:
    """An answer, or several, or none: but nothing that isn't one, and no failure of ours."""
    with connect(server, data) as connection:
        with contextlib.suppress(OSError):  # it is closed already
            connection.shutdown(socket.SHUT_WR)
        received = read_to_end(connection)
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    for status in re.findall(rb"HTTP/1\.1 ([0-9]+) ", received):
        assert 100 <= int(status) < 500 or int(status) in (503, 505), received


def test_whatever_becomes_of_a_request_the_answer_is_http(capfd: pytest.CaptureFixture[str]) -> None:
    with unshaken_server(capfd) as server:

        @settings(UNHURRIED, max_examples=300)
        @given(request=st.sampled_from(REQUESTS), mutations=MUTATIONS)
        def check(request: bytes, mutations: list[Mutation]) -> None:
            check_answer(server, mutated(request, mutations))

        check()


def test_whatever_comes_the_answer_is_http(capfd: pytest.CaptureFixture[str]) -> None:
    with unshaken_server(capfd) as server:

        @settings(UNHURRIED, max_examples=50)
        @given(st.binary(max_size=200))
        def check(data: bytes) -> None:
            check_answer(server, data)

        check()


def frame(first: int, payload: bytes, *, is_masked: bool = True) -> bytes:
    """A WebSocket frame with the mask 0, so that the payload stands in it as it is."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    mask = b"\0" * 4 if is_masked else b""
    return bytes([first, length[0] | (0x80 if is_masked else 0)]) + length[1:] + mask + payload


FRAMES = st.builds(
    frame,
    st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x88, 0x89, 0x8A, 0x83, 0xC1, 0x09]),
    st.sampled_from(
        [b"", b"{}", b'{"tickers":["BTCUSD"]}', b"\xff", b"\x03\xe8", b"a" * 126, b"a" * 4096, b"a" * 4097]
    ),
    is_masked=st.sampled_from([True, True, True, False]),
)
CONVERSATIONS = st.lists(FRAMES | st.binary(max_size=8), max_size=6).map(b"".join)


def read_frames(data: bytes, step: int) -> tuple[list[tuple[int, bytes]], int | None]:
    """The messages in what a client says, so many bytes at a time, and the close code if that ended it."""
    reader, messages = WebSocketReader(), []
    try:
        for start in range(0, len(data), step):
            for message in reader.feed(data[start : start + step]):
                messages.append(message)
    except Closing as closing:
        return messages, closing.close_code
    return messages, None


@settings(UNHURRIED, max_examples=150)
@given(CONVERSATIONS)
def test_frames_that_come_byte_by_byte_say_the_same(data: bytes) -> None:
    messages, close_code = read_frames(data, max(1, len(data)))
    assert (messages, close_code) == read_frames(data, 1)
    assert close_code in (None, 1002, 1003, 1009)
    assert all(len(payload) <= 4096 for _, payload in messages)


HANDSHAKE = (
    b"GET /api/ws HTTP/1.1"
    + HOST
    + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_whatever_is_said_on_a_websocket_ends_it_at_worst(capfd: pytest.CaptureFixture[str]) -> None:
    with unshaken_server(capfd) as server:

        @settings(UNHURRIED, max_examples=60)
        @given(CONVERSATIONS)
        def check(data: bytes) -> None:
            with connect(server, HANDSHAKE) as connection:
                assert connection.recv(12) == b"HTTP/1.1 101"
                with contextlib.suppress(OSError):  # closed while we speak
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)

        check()
