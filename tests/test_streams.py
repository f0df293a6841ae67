"""Streams on real sockets: SSE and WebSocket, the quick and the slow, the dead, the malformed and the many.

The stories wait more than they compute: each has a server of its own, and all are told at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from running import TLS, QuoteServer, quote_server, wait_until
from stories import Outcomes, Stories, Story
from transports import CONNECT_PATH, unchunked

SO_ATTACH_FILTER = 26  # Linux: a program that says which packets a socket may hear

TICKERS = [f"COIN{number}USD" for number in range(20)]
MANY = [f"COIN{number}USD" for number in range(200)]  # fill the buffers of a client sooner
BUSY_S = 1.5  # by which a machine that runs other tests too may be late


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server() as server:
        server.track(*TICKERS)
        yield server


class RawStream:
    """A client that reads a stream from its socket, byte by byte if need be, and keeps the table the stream tells.

    Of chunks it takes whole ones only: so all events of a batch are there at once. `buffer` is how many bytes the
    kernel keeps for it.
    """

    def __init__(
        self, port: int, request: str = "GET /api/stream HTTP/1.1", *, headers: str = "", buffer: int = 0
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(10)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(f"{request}\r\nHost: localhost\r\n{headers}\r\n".encode())
        self.received = bytearray()
        self.head = ""
        self.table: dict[str, str | None] = {}
        self.last_id = ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._raw = b""  # what is not a whole chunk yet,
        self._body = b""  # and not a whole event

    def close(self) -> None:
        self.socket.close()

    def read(self) -> bool:
        """Takes what comes next; False when the server has ended the connection."""
        data = self.socket.recv(65536)
        self.received += data
        self._parse(data)
        return bool(data)

    def read_until(self, condition: Any) -> None:
        while not condition():
            assert self.read(), "the server closed the stream"

    def read_to_end(self) -> None:
        while self.read():
            pass

    def _parse(self, data: bytes) -> None:
        self._raw += data
        if not self.head:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            self.head, self._raw = head.decode(), rest
        is_chunked = "Transfer-Encoding: chunked" in self.head
        content, self._raw = unchunked(self._raw) if is_chunked else (self._raw, b"")
        *blocks, self._body = (self._body + content).split(b"\n\n")
        for block in blocks:
            self._take(dict(line.partition(": ")[::2] for line in block.decode().split("\n")))

    def _take(self, fields: dict[str, str]) -> None:
        self.last_id = fields.get("id", self.last_id)
        if "data" not in fields:
            return
        data = json.loads(fields["data"])
        self.events.append((fields.get("event", "message"), data))
        keep_table(self.table, data)


def keep_table(table: dict[str, str | None], message: dict[str, Any]) -> None:
    """What a client does with a message: the list says which tickers there are, updates what they cost."""
    if message["type"] == "tickers":
        for ticker in set(table) - set(message["tickers"]):
            del table[ticker]
    for update in message.get("updates", []):
        table[update["ticker"]] = update.get("priceText")


@contextmanager
def raw_stream(server: QuoteServer, *arguments: Any, **options: Any) -> Iterator[RawStream]:
    stream = RawStream(server.port, *arguments, **options)
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def web_socket(server: QuoteServer, query: str = "", **options: Any) -> Iterator[websocket.WebSocket]:
    connection = websocket.create_connection(f"ws://127.0.0.1:{server.port}/api/ws{query}", timeout=10, **options)
    try:
        yield connection
    finally:
        connection.shutdown()  # type: ignore[no-untyped-call]


def receive_until(connection: websocket.WebSocket, kind: str) -> dict[str, Any]:
    while (message := json.loads(connection.recv()))["type"] != kind:
        pass
    found: dict[str, Any] = message
    return found


def connected(server: QuoteServer) -> int:
    return sum(server.server()["clients"].values())


def when_settled(server: QuoteServer) -> int:
    """How many clients are connected: none, once those of the tests before have gone."""
    wait_until(lambda: connected(server) == 0, what="all clients of earlier tests are gone")
    return 0


def dropped(server: QuoteServer, reason: str) -> int:
    count: int = server.server()["counters"].get(f"dropped: {reason}", 0)
    return count


# --- stories ----------------------------------------------------------------------------------------------------------

stories = Stories()
HASTY = ("--heartbeat", "0.6", "--lag-limit", "2")


@stories
def each_path_to_a_client_tells_the_same() -> None:
    for path, options in (("takeover", ()), ("http10", ()), ("foreign", ("--foreign",))):
        request = f"GET /api/stream HTTP/1.{0 if path == 'http10' else 1}"
        with quote_server("--heartbeat", "0.6", *options) as server:
            server.track("BTCUSD", "ETHUSD")
            with raw_stream(server, request) as stream:
                stream.read_until(lambda stream=stream: stream.last_id)
                assert set(stream.table) == {"BTCUSD", "ETHUSD"}, path
                assert stream.events[0][1]["type"] == "connected"
                assert [event for event, _ in stream.events[:4]] == ["message", "tickers", "status", "message"]
                assert stream.events[3][1]["resumed"] is False
                server.put(("BTCUSD", "live", "67000.10"))
                stream.read_until(lambda stream=stream: stream.table["BTCUSD"] == "67000.10")
                stream.read_until(lambda stream=stream: stream.events[-1][0] == "heartbeat")
                server.untrack("ETHUSD")
                stream.read_until(lambda stream=stream: "ETHUSD" not in stream.table)
                server.process.terminate()
                stream.read_to_end()
                assert stream.events[-1] == ("shutdown", {"type": "shutdown"})
                assert path == "http10" or stream.received.endswith(b"0\r\n\r\n"), "the response is whole"
                assert server.process.wait(5) == 0


@stories
def a_rate_is_kept_and_the_newest_price_comes() -> None:
    with quote_server() as server:
        server.track("BTCUSD")
        with raw_stream(server, "GET /api/stream?tickers=BTCUSD&max_rate=4 HTTP/1.1") as stream:
            stream.read_until(lambda: stream.last_id)
            started, seen = time.monotonic(), len(stream.events)
            for number in range(100):
                server.put(("BTCUSD", "live", f"{number + 1}.5"))
                time.sleep(0.01)
            stream.read_until(lambda: stream.table["BTCUSD"] == "100.5")
            batches = len(stream.events) - seen
            assert batches <= (time.monotonic() - started) * 4 + 2
            assert batches >= 2


def fill(server: QuoteServer, rounds: int, tickers: list[str] = TICKERS) -> None:
    """Enough batches to fill the buffers of a client that doesn't read."""
    for number in range(rounds):
        server.put(*[(ticker, "live", f"{number + 1}.{number:04}") for ticker in tickers])
        time.sleep(0.055)


def track_only(server: QuoteServer, tickers: list[str]) -> None:
    server.http.put("/api/watchlist", json={"tickers": tickers}).raise_for_status()


@stories
def a_slow_client_is_told_the_present_when_it_reads_again() -> None:
    with quote_server() as server:
        track_only(server, MANY)
        with raw_stream(server, buffer=4096) as slow, raw_stream(server) as quick:
            slow.read_until(lambda: slow.last_id)

            def flushes_left_out() -> int:
                fill(server, 5, MANY)
                return int(server.server()["counters"].get("conflated", 0))

            wait_until(lambda: flushes_left_out() >= 5, timeout=30)
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            server.put(*[(ticker, "live", "99.99") for ticker in MANY])
            quick.read_until(lambda: set(quick.table.values()) == {"99.99"})
            slow.read_until(lambda: set(slow.table.values()) == {"99.99"})
            assert slow.table == server.prices()
            assert len(slow.events) < len(quick.events), "it got fewer, not older, batches"
            assert server.server()["lagging"] == 0


@stories
def a_slow_client_that_reads_is_not_given_up() -> None:
    """What waits for it is more than its window takes, longer than one that acknowledges nothing may take."""
    with quote_server(*HASTY) as server:
        track_only(server, MANY)
        with raw_stream(server, buffer=4096) as slow:

            def reads_a_little() -> int:
                fill(server, 4, MANY)
                assert slow.socket.recv(4096), "the server closed the stream"
                return int(server.server()["counters"].get("lagging", 0))

            wait_until(reads_a_little, timeout=30)
            began = time.monotonic()
            while time.monotonic() - began < 4:
                reads_a_little()


@stories
def a_client_that_takes_nothing_is_closed_and_delays_nobody() -> None:
    with quote_server(*HASTY) as server, ExitStack() as stack:
        server.track(*TICKERS)
        for _ in range(10):
            stack.enter_context(raw_stream(server, buffer=4096))
        quick = stack.enter_context(raw_stream(server))
        quick.read_until(lambda: quick.last_id)

        def all_stuck_are_gone() -> bool:
            server.put(*[(ticker, "live", f"{time.time():.4f}") for ticker in TICKERS])
            quick.read()
            return dropped(server, "stuck") == 10

        wait_until(all_stuck_are_gone, timeout=40)
        server.put(("COIN0USD", "live", "7.7"))
        quick.read_until(lambda: quick.table["COIN0USD"] == "7.7")


@stories
def fifty_that_do_not_read_among_500_leave_the_others_their_latency() -> None:
    with quote_server() as server, ExitStack() as stack:
        server.track(*TICKERS)
        for _ in range(50):
            stack.enter_context(raw_stream(server, buffer=4096))
        healthy = [stack.enter_context(raw_stream(server)) for _ in range(450)]
        wait_until(lambda: connected(server) == 500)

        def some_lag() -> bool:
            fill(server, 4)
            for stream in healthy:
                stream.socket.recv(1 << 20)
            return int(server.server()["lagging"]) >= 50

        wait_until(some_lag, timeout=40)
        server.put(*[(ticker, "live", "42.42") for ticker in TICKERS])
        for stream in healthy:
            seen = b""
            while b"42.42" not in seen:
                seen = seen[-100:] + stream.socket.recv(1 << 20)
        assert server.server()["lagging"] >= 50, "they lag still, and nobody waited for them"


if sys.platform == "linux":  # only Linux tells what was acknowledged

    @stories
    def a_peer_that_vanishes_is_let_go() -> None:
        """Its machine is gone: nothing comes back, not even an acknowledgement."""
        with quote_server("--heartbeat", "0.6", "--lag-limit", "0.5") as server, raw_stream(server) as stream:
            stream.read_until(lambda: stream.last_id)
            drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
            filter = struct.pack("HP", 1, ctypes.addressof(drop_all))
            stream.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter)
            wait_until(lambda: dropped(server, "vanished") == 1, timeout=20)


@stories
def websocket_gets_heartbeats_when_nothing_happens() -> None:
    with quote_server("--heartbeat", "0.6") as server, web_socket(server) as connection:
        assert receive_until(connection, "heartbeat").keys() == {"type", "timestamp"}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, server: QuoteServer) -> Iterator[Outcomes]:
    with stories.telling(request) as outcomes:
        yield outcomes


@stories.each
def test_stories_of_streams(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()


# --- server-sent events -----------------------------------------------------------------------------------------------


def test_a_batch_leaves_in_one_chunk(server: QuoteServer) -> None:
    """A flush may come between two quotes of a line: not every time."""
    with raw_stream(server) as stream:
        stream.read_until(lambda: stream.last_id)
        for number in range(1, 50):
            before, price = len(stream.received), f"{number}.5"
            server.put(*[(ticker, "live", price) for ticker in TICKERS])
            stream.read_until(lambda price=price: set(stream.table.values()) == {price})
            if (chunks := stream.received[before:].count(b"\r\nid: ")) == 1:
                break
        assert chunks == 1


def test_a_client_that_comes_during_a_storm_misses_nothing(server: QuoteServer) -> None:
    with ExitStack() as stack:
        streams = []
        for round_number in range(30):
            streams.append(stack.enter_context(raw_stream(server)))
            server.put(*[(ticker, "live", f"{round_number + 1}.25") for ticker in TICKERS])
        for stream in streams:
            stream.read_until(lambda stream=stream: set(stream.table.values()) == {"30.25"})
            assert stream.table == server.prices()


def test_a_filter_keeps_others_out_and_unknown_tickers_are_no_error(server: QuoteServer) -> None:
    with raw_stream(server, "GET /api/stream?tickers=coin1usd,NEVERTRACKED HTTP/1.1") as stream:
        stream.read_until(lambda: "COIN1USD" in stream.table)
        server.put(("COIN2USD", "live", "2.2"))
        server.put(("COIN1USD", "live", "1.1"))
        stream.read_until(lambda: stream.table["COIN1USD"] == "1.1")
        assert set(stream.table) == {"COIN1USD"}
        told = {"type": "tickers", "tickers": ["COIN1USD"], "notTracked": ["NEVERTRACKED"]}
        assert ("tickers", told) in stream.events


def test_a_filter_hears_of_its_own_tickers_coming_and_going_only(server: QuoteServer) -> None:
    with raw_stream(server, "GET /api/stream?tickers=LATEUSD HTTP/1.1") as stream:
        stream.read_until(lambda: stream.last_id)
        server.track("OTHERUSD")
        server.track("LATEUSD")
        stream.read_until(lambda: "LATEUSD" in stream.table)
        server.untrack("LATEUSD", "OTHERUSD")
        stream.read_until(lambda: "LATEUSD" not in stream.table)
        lists = [data["tickers"] for event, data in stream.events if event == "tickers"]
        assert lists == [[], ["LATEUSD"], []]


@pytest.mark.parametrize("rate", ["0", "21", "fast", "-1", "nan"])
def test_a_rate_that_is_none_is_refused(server: QuoteServer, rate: str) -> None:
    answer = server.http.get(f"/api/stream?max_rate={rate}")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_rate"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the timers of a connection")
@pytest.mark.parametrize(
    "request_line", ["GET /api/stream HTTP/1.1", f"POST {CONNECT_PATH} HTTP/1.1", "GET /livez HTTP/1.1"]
)
def test_the_system_looks_whether_a_silent_peer_is_still_there(server: QuoteServer, request_line: str) -> None:
    """Of a Connect stream nothing is sent for hours, if its tickers are quiet; 30 s after its peer vanished it ends."""
    headers = "Content-Type: application/connect+json\r\nContent-Length: 7\r\n\r\n\0\0\0\0\x02{}"
    with raw_stream(server, request_line, headers=headers if "POST" in request_line else "") as stream:
        stream.read()
        peer = stream.socket.getsockname()[1]
        wait_until(lambda: keep_alive_in_s(server.port, peer) in range(1, 16))


def keep_alive_in_s(port: int, peer: int) -> int | None:
    """In how many seconds the server's connection to this peer probes it; None: never. See proc_net_tcp.txt."""
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{peer:04X}"):
            timer, ticks = (int(part, 16) for part in fields[5].split(":"))
            return -(-ticks // os.sysconf("SC_CLK_TCK")) if timer == 2 else None
    return None


@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
def test_a_client_that_is_gone_is_noticed_within_a_second(server: QuoteServer, end: str) -> None:
    before = when_settled(server)
    with raw_stream(server) as stream:
        wait_until(lambda: connected(server) == before + 1)
        if end == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if end == "half_close":
            stream.socket.shutdown(socket.SHUT_WR)
        else:
            stream.close()
        wait_until(lambda: connected(server) == before, timeout=1 + BUSY_S)


def test_garbage_after_the_request_is_let_pass_up_to_a_limit(server: QuoteServer) -> None:
    with raw_stream(server) as stream:
        stream.read_until(lambda: stream.last_id)
        stream.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(1000))
        server.put(("COIN4USD", "live", "4.4"))
        stream.read_until(lambda: stream.table["COIN4USD"] == "4.4")
        before = dropped(server, "flooding")
        with contextlib.suppress(OSError):  # the socket is reset while we write
            stream.socket.sendall(bytes(10_000_000))
        wait_until(lambda: dropped(server, "flooding") == before + 1)


def test_a_thousand_abrupt_ends_leak_no_descriptor() -> None:
    with quote_server() as server:
        server.track("BTCUSD")
        before = server.descriptors()
        request = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for round_number in range(4):
            connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(250)]
            for connection in connections:
                connection.sendall(request)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for number, connection in enumerate(connections):
                if number % 2:
                    connection.recv(4096)
                connection.close()
            server.put(("BTCUSD", "live", f"{round_number + 1}.5"))
        wait_until(lambda: connected(server) == 0)
        wait_until(lambda: server.descriptors() <= before + 5)


def test_streams_are_bounded_and_a_place_is_free_again() -> None:
    with quote_server("--max-streams", "2") as server:
        with raw_stream(server) as one, raw_stream(server) as other:
            one.read_until(lambda: one.last_id)
            other.read_until(lambda: other.last_id)
            refused = server.http.get("/api/stream")
            assert refused.status_code == 503
            assert refused.json()["code"] == "too_many_streams"
            assert int(refused.headers["retry-after"]) > 0
            with pytest.raises(websocket.WebSocketBadStatusException, match="503"):
                websocket.create_connection(f"ws://127.0.0.1:{server.port}/api/ws")
        wait_until(lambda: connected(server) == 0)
        with raw_stream(server) as stream:
            stream.read_until(lambda: stream.last_id)


def test_head_takes_no_place(server: QuoteServer) -> None:
    before = when_settled(server)
    assert server.http.head("/api/stream").status_code == 200
    assert connected(server) == before


def test_resuming_sends_only_what_changed_and_what_went(server: QuoteServer) -> None:
    server.track("GONEUSD")
    with raw_stream(server) as stream:
        server.put(("COIN5USD", "live", "5.1"), ("COIN6USD", "live", "6.1"))
        stream.read_until(lambda: stream.table.get("COIN5USD") == "5.1" and stream.table.get("COIN6USD") == "6.1")
    server.put(("COIN5USD", "live", "5.2"))
    wait_until(lambda: server.prices()["COIN5USD"] == "5.2")
    server.untrack("GONEUSD")
    for query, header in (("", f"Last-Event-ID: {stream.last_id}\r\n"), (f"?lastEventId={stream.last_id}", "")):
        with raw_stream(server, f"GET /api/stream{query} HTTP/1.1", headers=header) as resumed:
            resumed.table = dict(stream.table)
            resumed.read_until(lambda resumed=resumed: first_batches(resumed))
            (batch,) = first_batches(resumed)
            assert batch["resumed"] is True
            assert [update["ticker"] for update in batch["updates"]] == ["COIN5USD"]
            resumed.read_until(lambda resumed=resumed: resumed.table == server.prices())


def test_an_id_of_another_filter_gets_everything(server: QuoteServer) -> None:
    with raw_stream(server, "GET /api/stream?tickers=COIN1USD HTTP/1.1") as narrow:
        narrow.read_until(lambda: narrow.last_id)
    with raw_stream(
        server, "GET /api/stream?tickers=COIN1USD,COIN2USD HTTP/1.1", headers=f"Last-Event-ID: {narrow.last_id}\r\n"
    ) as wide:
        wide.read_until(lambda: set(wide.table) == {"COIN1USD", "COIN2USD"})


def first_batches(stream: RawStream) -> list[dict[str, Any]]:
    """The batch that says whether the stream was resumed, once it has come."""
    return [body for _, body in stream.events if "resumed" in body]


@pytest.mark.parametrize("last_id", ["", "0-0", "nonsense", "-", "x-1", "EPOCH-99999999999", "EPOCH--1", "EPOCH-1x"])
def test_an_id_that_says_nothing_here_gets_everything(server: QuoteServer, last_id: str) -> None:
    with raw_stream(server) as stream:
        stream.read_until(lambda: stream.last_id)
    known = last_id.replace("EPOCH", stream.last_id.partition("-")[0])
    with raw_stream(server, headers=f"Last-Event-ID: {known}\r\n") as fresh:
        fresh.read_until(lambda: first_batches(fresh))
        assert first_batches(fresh)[0]["resumed"] is False
        assert fresh.table == server.prices()


def test_shutdown_tells_every_client_when_to_come_back() -> None:
    with quote_server() as server, ExitStack() as stack:
        server.track("BTCUSD")
        streams = [stack.enter_context(raw_stream(server)) for _ in range(300)]
        socket_client = stack.enter_context(web_socket(server))
        for stream in streams:
            stream.read_until(lambda stream=stream: stream.last_id)
        started = time.monotonic()
        server.process.terminate()
        for stream in streams:
            stream.read_to_end()
            assert stream.events[-1][0] == "shutdown"
            assert stream.received.endswith(b"0\r\n\r\n")
        assert time.monotonic() - started < 2 + BUSY_S
        retries = {int(re.search(rb"shutdown\nretry: (\d+)\n", stream.received)[1]) for stream in streams}  # type: ignore[index]
        assert len(retries) > 50, "they don't all come back at once"
        assert min(retries) >= 2000
        assert receive_until(socket_client, "shutdown")["retry"] >= 2000
        assert socket_client.recv_data() == (websocket.ABNF.OPCODE_CLOSE, struct.pack("!H", 1001))


# --- WebSocket --------------------------------------------------------------------------------------------------------


def test_websocket_tells_the_same_as_the_event_stream(server: QuoteServer) -> None:
    table: dict[str, str | None] = {}
    with web_socket(server) as connection:
        assert json.loads(connection.recv())["type"] == "connected"
        server.put(("COIN7USD", "live", "7.25"))
        while table.get("COIN7USD") != "7.25":
            message = json.loads(connection.recv())
            keep_table(table, message)
        assert table == server.prices()
        assert re.fullmatch(r"[0-9a-f]{8}-\d+", message["id"])


def test_websocket_resumes_by_the_id_of_its_last_message(server: QuoteServer) -> None:
    with web_socket(server) as connection:
        last_id = receive_until(connection, "batch_update")["id"]
    server.put(("COIN8USD", "live", "8.75"))
    wait_until(lambda: server.prices()["COIN8USD"] == "8.75")
    with web_socket(server, f"?lastEventId={last_id}") as connection:
        batch = receive_until(connection, "batch_update")
        assert batch["resumed"] is True
        assert [update["ticker"] for update in batch["updates"]] == ["COIN8USD"]


def test_websocket_changes_its_filter_by_a_message(server: QuoteServer) -> None:
    server.put(("COIN1USD", "live", "1.1"), ("COIN2USD", "live", "2.2"))
    wait_until(lambda: server.prices()["COIN2USD"] == "2.2")
    with web_socket(server, "?tickers=COIN1USD") as connection:
        assert receive_until(connection, "tickers")["tickers"] == ["COIN1USD"]
        connection.send('{"tickers":["coin2usd"]}')
        while receive_until(connection, "tickers")["tickers"] != ["COIN2USD"]:
            pass
        batch = receive_until(connection, "batch_update")
        assert [update["ticker"] for update in batch["updates"]] == ["COIN2USD"]
        connection.send('{"tickers":[]}')
        assert len(receive_until(connection, "tickers")["tickers"]) >= len(TICKERS)


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"tickers":7}', "{}", '{"tickers":["A?B"]}'])
def test_websocket_answers_a_message_it_cannot_use(server: QuoteServer, text: str) -> None:
    with web_socket(server) as connection:
        connection.send(text)
        error = receive_until(connection, "error")
        assert error["success"] is False
        assert error["code"] in ("bad_request", "invalid_ticker")
        connection.send('{"tickers":["COIN1USD"]}')
        receive_until(connection, "tickers")


def send_raw(connection: websocket.WebSocket, data: bytes) -> None:
    assert connection.sock is not None
    connection.sock.sendall(data)


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, flags: int = 0) -> bytes:
    """A client's frame, right or wrong."""
    head = bytes([fin << 7 | flags << 4 | opcode])
    size = len(payload)
    length = b"\x7f" + struct.pack("!Q", size)
    if size <= 65535:
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack("!H", size)
    if not mask:
        return head + length + payload
    masked = bytes(byte ^ b"mask"[index % 4] for index, byte in enumerate(payload))
    return head + bytes([length[0] | 0x80]) + length[1:] + b"mask" + masked


@pytest.mark.parametrize(
    ("data", "close_code"),
    [
        (frame(1, b"{}", mask=False), 1002),
        (frame(2, b"{}"), 1003),
        (frame(1, bytes(4097)), 1009),
        (frame(1, bytes(100_000))[:1000], 1009),
        (frame(1, b"x" * 3000, fin=False) + frame(0, b"x" * 3000), 1009),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(1, b"{}", flags=4), 1002),
        (frame(3, b"{}"), 1002),
        (frame(0xB, b""), 1002),
        (frame(0, b"{}"), 1002),
        (frame(1, b"{", fin=False) + frame(1, b"}"), 1002),
        (frame(9, b"x", fin=False), 1002),
        (frame(9, bytes(126)), 1002),
        (frame(8, b"x"), 1002),
        (frame(8, struct.pack("!H", 1005)), 1002),
        (frame(8, struct.pack("!H", 1000) + b"bye"), 1000),
        (frame(8, struct.pack("!H", 3001)), 3001),
        (frame(8, b""), 1000),
    ],
)
def test_websocket_closes_with_the_right_code(server: QuoteServer, data: bytes, close_code: int) -> None:
    with web_socket(server) as connection:
        send_raw(connection, data)
        while (received := connection.recv_data(control_frame=True))[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
        assert received[1] == struct.pack("!H", close_code)


def test_websocket_takes_a_message_in_pieces_with_a_ping_between(server: QuoteServer) -> None:
    text = b'{"tickers":["COIN9USD"]}'
    data = frame(1, text[:5], fin=False) + frame(9, b"hello") + frame(0, text[5:])
    with web_socket(server) as connection:
        for byte in data:
            send_raw(connection, bytes([byte]))
        pongs = []
        while True:
            opcode, payload = connection.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                pongs.append(payload)
            elif opcode == websocket.ABNF.OPCODE_TEXT and json.loads(payload).get("tickers") == ["COIN9USD"]:
                break
        assert pongs == [b"hello"]


def test_a_ping_between_two_pieces_of_a_large_message_is_no_part_of_it(server: QuoteServer) -> None:
    text = json.dumps({"tickers": ["COIN9USD"]}).encode().ljust(4000)
    with web_socket(server) as connection:
        send_raw(connection, frame(1, text, fin=False) + frame(9, bytes(125)) + frame(0, b" " * 96))
        while receive_until(connection, "tickers")["tickers"] != ["COIN9USD"]:
            pass


@pytest.mark.parametrize("flood", [frame(1, b'{"tickers":["COIN1USD"]}'), frame(9, b""), frame(1, b"", fin=False)])
def test_websocket_closes_with_1008_when_too_much_is_sent(server: QuoteServer, flood: bytes) -> None:
    first, *rest = [flood, *[flood if flood[0] & 0x80 else frame(0, b"", fin=False)] * 150]
    with web_socket(server) as connection:
        send_raw(connection, first + b"".join(rest))
        while (received := connection.recv_data(control_frame=True))[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
        assert received[1] == struct.pack("!H", 1008)


def test_websocket_hears_nothing_after_a_goodbye(server: QuoteServer) -> None:
    before = when_settled(server)
    with web_socket(server) as connection:
        send_raw(connection, frame(8, b"") + frame(1, b'{"tickers":["COIN1USD"]}') + frame(9, b"x"))
        while connection.recv_data(control_frame=True)[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
        assert connection.sock is not None
        assert connection.sock.recv(100) == b"", "the goodbye is the last that is said"
    wait_until(lambda: connected(server) == before)


def test_websocket_is_for_known_origins_only(server: QuoteServer) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(f"ws://127.0.0.1:{server.port}/api/ws", origin="http://evil.example")
    for origin in ("http://localhost:3000", server.url):
        with web_socket(server, origin=origin) as connection:
            assert json.loads(connection.recv())["type"] == "connected"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, 426),
        (
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"},
            426,
        ),
        (
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "8",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
            426,
        ),
    ],
)
def test_a_handshake_that_is_none_is_answered_in_words(
    server: QuoteServer, headers: dict[str, str], status: int
) -> None:
    answer = httpx.get(f"{server.url}/api/ws", headers=headers, verify=TLS)
    assert answer.status_code == status
    assert answer.json()["code"] == "no_websocket"


def test_an_upgrade_anywhere_else_is_answered_in_words(server: QuoteServer) -> None:
    answer = httpx.get(f"{server.url}/health", headers={"Upgrade": "websocket", "Connection": "Upgrade"}, verify=TLS)
    assert answer.status_code == 426
    assert "/api/ws" in answer.json()["message"]


def test_counters_tell_what_happened(server: QuoteServer) -> None:
    with raw_stream(server) as stream, web_socket(server):
        stream.read_until(lambda: stream.last_id)
        wait_until(lambda: server.server()["clients"].get("websocket", 0) >= 1)
        server.put(("COIN0USD", "live", "1.23"))
        stream.read_until(lambda: stream.table["COIN0USD"] == "1.23")
        counted = server.server()
    assert counted["clients"]["sse"] >= 1
    assert {"flushes", "sends", "encodes", "bytes"} <= counted["counters"].keys()
    assert counted["flushSecondsMax"] > 0
    assert counted["handoffDepth"] == 0
