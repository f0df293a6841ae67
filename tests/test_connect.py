"""Connect and gRPC-Web on real sockets: the official Python client, and the protocol byte by byte."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
import pytest
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from google.protobuf import json_format
from google.protobuf.message import Message
from running import TLS, QuoteServer, quote_server, wait_until

from broadcast import Entry
from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import (
    AddTickerRequest,
    AddTickerResponse,
    Failure,
    GetTickersRequest,
    GetTickersResponse,
    PriceUpdate,
    RemoveTickerRequest,
    RetryTickerRequest,
    State,
    StreamPricesRequest,
)
from quotes import Quote, Source, parse_ticker
from quotes import State as QuoteState
from web.connect import as_json, as_proto, price_update

SERVICE = "/crypto.v1.CryptoPriceService"
TEXT = "application/grpc-web-text"
TYPES = [
    "application/connect+json", "application/connect+proto", "application/grpc-web+json", "application/grpc-web", TEXT,
]  # fmt: skip
CLIENTS = [
    (protocol, codec)
    for protocol in (ProtocolType.CONNECT, ProtocolType.GRPC_WEB)
    for codec in (google_protobuf_json_codec(), google_protobuf_binary_codec())
]
BUSY_S = 1.5  # by which a machine that runs other tests too may be late
CLIENT_NAMES = [f"{protocol.name}-{codec.name()}" for protocol, codec in CLIENTS]


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server("--lag-limit", "5") as server:
        server.track("BTCUSD", "ETHUSD", "SOLUSD")
        put(server, ("BTCUSD", "live", "45000.10"), ("ETHUSD", "stale", "2500.5"))
        yield server


@pytest.fixture(params=CLIENTS, ids=CLIENT_NAMES)
def client(server: QuoteServer, request: pytest.FixtureRequest) -> CryptoPriceServiceClientSync:
    protocol, codec = request.param
    return CryptoPriceServiceClientSync(server.url, protocol=protocol, codec=codec)


def put(server: QuoteServer, *quotes: tuple[str, str, str | None]) -> None:
    """Puts quotes and waits until the table has them."""
    server.put(*quotes)
    wanted = {ticker: price for ticker, _, price in quotes}
    wait_until(lambda: server.prices().items() >= wanted.items())


def envelope(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    """The whole envelopes in a body, as (flags, message)."""
    found = []
    while len(body) >= 5:
        flags, size = struct.unpack(">BI", body[:5])
        if len(body) < 5 + size:
            break
        found.append((flags, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def read_price(content_type: str, message: bytes) -> PriceUpdate:
    if content_type.endswith("json"):
        return json_format.Parse(message, PriceUpdate())
    return PriceUpdate.FromString(message)


def end_of(flags: int, message: bytes) -> tuple[str, str]:
    """(code, message) of the envelope that ends a stream; the code is a number's text in gRPC-Web."""
    if flags == 0x02:
        error = json.loads(message).get("error", {})
        return error.get("code", ""), error.get("message", "")
    assert flags == 0x80
    trailers = dict(line.split(": ", 1) for line in message.decode().split("\r\n") if line)
    return trailers["grpc-status"], unquote(trailers.get("grpc-message", ""))


class RawStream:
    """StreamPrices read from its socket, chunk by chunk."""

    def __init__(
        self, server: QuoteServer, content_type: str, request: Message | None = None, headers: str = ""
    ) -> None:
        self.content_type = content_type
        message = request or StreamPricesRequest(all_states=True)
        is_json = content_type.endswith("json")
        body = envelope(json_format.MessageToJson(message).encode() if is_json else message.SerializeToString())
        if content_type == TEXT:
            body = base64.b64encode(body)
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.sendall(
            f"POST {SERVICE}/StreamPrices HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n".encode()
            + body
        )
        self._file = self.socket.makefile("rb")
        self.head = b"".join(iter(self._file.readline, b"\r\n")).decode()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def chunk(self) -> bytes:
        """The next HTTP chunk; empty at the end of the response."""
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        assert self._file.read(2) == b"\r\n"
        return base64.b64decode(data, validate=True) if self.content_type == TEXT else data

    def prices(self) -> list[PriceUpdate]:
        """Those of the next chunk."""
        found = envelopes(self.chunk())
        assert all(flags == 0 for flags, _ in found)
        return [read_price(self.content_type, message) for _, message in found]

    def end(self) -> tuple[str, str]:
        """How the stream ends: (code, message). Prices before it are passed over."""
        while (last := envelopes(self.chunk()))[-1][0] == 0:
            pass
        assert self.chunk() == b""
        assert self._file.read(1) == b""
        return end_of(*last[-1])


@contextmanager
def raw_stream(*arguments: Any, **options: Any) -> Iterator[RawStream]:
    stream = RawStream(*arguments, **options)
    try:
        yield stream
    finally:
        stream.close()


def post(server: QuoteServer, method: str, body: bytes, content_type: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {"Content-Type": content_type, **named}
    return httpx.post(f"{server.url}{SERVICE}/{method}", content=body, headers=headers, timeout=5.0, verify=TLS)


def streams(server: QuoteServer) -> int:
    return sum(server.server()["clients"].values())


# --- messages ---------------------------------------------------------------------------------------------------------

FULL = Quote(
    parse_ticker("COINBASE:BTCUSD"), QuoteState.NOT_FOUND, "45000.10", -1.25, 1_795_000_000_123, Source.SCRIPT,
    1_795_000_000_000, 1_795_000_000_456, -570.5, 12_345.678, 46_000.0, 44_000.0, 45_500.0, 44_999.9, 45_000.2,
    "USD", "COINBASE", 'Bitcoin "₿" / U.S. dollar', True, True, "not there", 1_795_000_060_000,
)  # fmt: skip
QUOTES = [
    FULL,
    Quote(parse_ticker("BTCUSD"), QuoteState.STARTING),
    Quote(parse_ticker("PEPEUSD"), QuoteState.LIVE, "0.00000812", 0.0, 1, Source.SOCKET, change=0.0),
]


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.ticker)
def test_our_json_and_our_protobuf_are_the_same_message(quote: Quote) -> None:
    entry = Entry(quote, 2**53 + 1, tracked=1, wire_json="")
    message = price_update(entry)
    assert json_format.Parse(as_json(entry), PriceUpdate()) == message
    assert PriceUpdate.FromString(as_proto(entry)) == message


def test_every_field_of_a_quote_has_its_field_in_the_message() -> None:
    message = price_update(Entry(FULL, 7, tracked=1, wire_json="", number=7))
    assert not price_update(Entry(QUOTES[1], 7, tracked=1, wire_json="")).HasField("change_percent")
    assert price_update(Entry(QUOTES[2], 7, tracked=1, wire_json="")).HasField("change_percent"), "0 is known"
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in PriceUpdate.DESCRIPTOR.fields}
    assert (message.price, message.price_text, message.state) == (45000.1, "45000.10", State.STATE_NOT_FOUND)


def test_every_state_and_source_has_a_value() -> None:
    for state in QuoteState:
        entry = Entry(Quote(parse_ticker("BTCUSD"), state), 1, tracked=1, wire_json="")
        assert State.Name(price_update(entry).state) == f"STATE_{state.name}"
    for source in Source:
        entry = Entry(Quote(parse_ticker("BTCUSD"), QuoteState.LIVE, source=source), 1, tracked=1, wire_json="")
        assert json.loads(as_json(entry))["source"] == f"SOURCE_{source.name}"


# --- the official client ----------------------------------------------------------------------------------------------


def test_a_client_adds_lists_and_removes(server: QuoteServer, client: CryptoPriceServiceClientSync) -> None:
    added = client.add_ticker(AddTickerRequest(ticker="dogeusd"))
    assert (added.success, added.message) == (True, "DOGEUSD is tracked now.")
    assert client.add_ticker(AddTickerRequest(ticker="DOGEUSD")).message == "DOGEUSD is tracked already."

    listed = client.get_tickers(GetTickersRequest())
    assert (
        list(listed.tickers) == [price.ticker for price in listed.prices] == ["BTCUSD", "DOGEUSD", "ETHUSD", "SOLUSD"]
    )
    assert listed.prices[0].price == 45000.1
    assert listed.prices[1].state == State.STATE_STARTING

    assert client.remove_ticker(RemoveTickerRequest(ticker="DOGEUSD")).message == "DOGEUSD is no longer tracked."
    assert client.remove_ticker(RemoveTickerRequest(ticker="DOGEUSD")).success
    assert list(client.get_tickers(GetTickersRequest()).tickers) == ["BTCUSD", "ETHUSD", "SOLUSD"]


def test_a_malformed_ticker_is_no_success_and_says_why(client: CryptoPriceServiceClientSync) -> None:
    added, removed = client.add_ticker(AddTickerRequest(ticker="a b")), client.remove_ticker(RemoveTickerRequest())
    for answer in (added, removed):
        assert (answer.success, answer.HasField("success")) == (False, True)
    assert "such as BTCUSD" in added.message
    assert "such as BTCUSD" in removed.message
    assert not client.retry_ticker(RetryTickerRequest(ticker="..")).success


def test_a_stream_begins_with_every_ticker_and_goes_on_with_changes(
    server: QuoteServer, client: CryptoPriceServiceClientSync
) -> None:
    stream = client.stream_prices(StreamPricesRequest(all_states=True))
    first = {price.ticker: price for price in (next(stream) for _ in range(3))}
    assert set(first) == {"BTCUSD", "ETHUSD", "SOLUSD"}
    assert first["ETHUSD"].state == State.STATE_STALE
    server.put(("BTCUSD", "live", "45001.5"))
    changed = next(stream)
    assert (changed.ticker, changed.price_text, changed.state) == ("BTCUSD", "45001.5", State.STATE_LIVE)
    put(server, ("BTCUSD", "live", "45000.10"))


def test_a_stream_holds_live_and_closed_prices_only_unless_all_states_are_asked_for(
    server: QuoteServer, client: CryptoPriceServiceClientSync
) -> None:
    """For clients of four fields, which would take no price for 0 and an old one for a new one."""
    stream = client.stream_prices(StreamPricesRequest(), timeout_ms=5000)
    seen = [next(stream)]
    for state, price in (("stale", "1"), ("closed", "2"), ("error", None), ("snapshot", "3"), ("live", "4")):
        put(server, ("BTCUSD", state, price))
    while seen[-1].price_text != "4":
        seen.append(next(stream))
    assert [(price.ticker, price.price_text) for price in seen] == [("BTCUSD", text) for text in ("45000.10", "2", "4")]
    put(server, ("BTCUSD", "live", "45000.10"))


def test_a_stream_of_chosen_tickers_holds_only_those(server: QuoteServer, client: CryptoPriceServiceClientSync) -> None:
    stream = client.stream_prices(
        StreamPricesRequest(tickers=["ethusd"], max_rate=20, all_states=True), timeout_ms=5000
    )
    assert next(stream).ticker == "ETHUSD"
    server.put(("BTCUSD", "live", "45000.10"), ("ETHUSD", "live", "2501"))
    assert next(stream).price_text == "2501"
    put(server, ("ETHUSD", "stale", "2500.5"))


def test_an_unknown_change_is_absent_and_no_change_is_zero() -> None:
    unknown, zero = (
        Entry(Quote(parse_ticker("BTCUSD"), QuoteState.LIVE, "1", change), 1, tracked=1, wire_json="")
        for change in (None, 0.0)
    )
    assert not price_update(unknown).HasField("change_percent")
    assert price_update(zero).HasField("change_percent")
    assert ("changePercent" in json.loads(as_json(unknown)), json.loads(as_json(zero))["changePercent"]) == (False, 0)


def test_a_deadline_ends_a_stream(client: CryptoPriceServiceClientSync) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectError) as ended:
        for _ in client.stream_prices(StreamPricesRequest(), timeout_ms=200):
            pass
    assert ended.value.code is Code.DEADLINE_EXCEEDED
    assert 0.15 < time.monotonic() - began < 0.2 + BUSY_S


def test_a_wrong_wish_is_an_error_with_its_name(client: CryptoPriceServiceClientSync) -> None:
    wishes = [
        (StreamPricesRequest(max_rate=50), "invalid_rate"),
        (StreamPricesRequest(max_rate=float("nan")), "invalid_rate"),
        (StreamPricesRequest(tickers=["BTCUSD", "a-b"]), "invalid_ticker"),
    ]
    for wish, name in wishes:
        with pytest.raises(ConnectError) as refused:
            next(client.stream_prices(wish))
        assert refused.value.code is Code.INVALID_ARGUMENT
        (detail,) = refused.value.details
        assert detail.type_name == "crypto.v1.Failure"
        assert Failure.FromString(detail.message_bytes).code == name


def test_get_tickers_can_be_got(server: QuoteServer) -> None:
    for codec in (google_protobuf_json_codec(), google_protobuf_binary_codec()):
        client = CryptoPriceServiceClientSync(server.url, codec=codec)
        assert client.get_tickers(GetTickersRequest(), use_get=True).prices[0].ticker == "BTCUSD"


def test_what_get_tickers_answers_is_never_old(server: QuoteServer) -> None:
    client = CryptoPriceServiceClientSync(server.url, codec=google_protobuf_json_codec())
    for number in range(8):
        server.track(f"NEW{number}USD")
        assert f"NEW{number}USD" in client.get_tickers(GetTickersRequest()).tickers
        put(server, ("BTCUSD", "live", f"4500{number}"))
        assert client.get_tickers(GetTickersRequest()).prices[0].price_text == f"4500{number}"
    server.untrack(*(f"NEW{number}USD" for number in range(8)))
    put(server, ("BTCUSD", "live", "45000.10"))


# --- the protocol, unary ----------------------------------------------------------------------------------------------


def error_of(response: httpx.Response) -> str:
    code: str = response.json()["code"]
    return code


def test_get_is_for_get_tickers_only(server: QuoteServer) -> None:
    listed = server.http.get(f"{SERVICE}/GetTickers", params={"encoding": "json", "message": "{}"})
    assert listed.json()["tickers"] == ["BTCUSD", "ETHUSD", "SOLUSD"]
    assert listed.headers["Cache-Control"] == "no-store"
    encoded = {"encoding": "proto", "message": "", "base64": "1"}
    binary = server.http.get(f"{SERVICE}/GetTickers", params=encoded)
    assert GetTickersResponse.FromString(binary.content).tickers == ["BTCUSD", "ETHUSD", "SOLUSD"]

    assert error_of(server.http.get(f"{SERVICE}/GetTickers?encoding=json")) == "invalid_argument"
    assert server.http.get(f"{SERVICE}/GetTickers?encoding=xml&message=").status_code == 415
    refused = server.http.get(f"{SERVICE}/AddTicker", params={"encoding": "json", "message": '{"ticker":"BTCUSD"}'})
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert refused.json()["message"] == "Use POST for this call."
    assert server.http.put(f"{SERVICE}/GetTickers").status_code == 405
    assert server.http.get(f"{SERVICE}/StreamPrices").status_code == 405


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/plain", "application/connect+xml", "", "application/grpc-web+xml", "*/*"]
)
@pytest.mark.parametrize("method", ["GetTickers", "StreamPrices"])
def test_an_unknown_codec_is_415_and_says_which_there_are(server: QuoteServer, method: str, content_type: str) -> None:
    refused = post(server, method, b"{}", content_type)
    assert refused.status_code == 415
    assert "json" in refused.headers["Accept-Post"]
    assert error_of(refused) == "invalid_argument"
    assert refused.headers["Accept-Post"] in refused.json()["message"]


def test_a_request_without_a_content_type_is_415_too(server: QuoteServer) -> None:
    for method in ("GetTickers", "StreamPrices", "SetPrice"):
        refused = server.http.post(f"{SERVICE}/{method}", content=b"")
        assert (refused.status_code, refused.headers["content-type"]) == (
            404 if method == "SetPrice" else 415,
            "application/json",
        )
        assert error_of(refused) in ("invalid_argument", "unimplemented")


@pytest.mark.parametrize("content_type", ["application/json", *TYPES])
def test_an_unknown_method_is_404_and_says_where_to_look(server: QuoteServer, content_type: str) -> None:
    refused = post(server, "SetPrice", b"", content_type)
    assert (refused.status_code, error_of(refused)) == (404, "unimplemented")
    assert "/openapi.json" in refused.json()["message"]


def test_a_wrong_protocol_version_is_refused(server: QuoteServer) -> None:
    refused = post(server, "GetTickers", b"{}", "application/json", Connect_Protocol_Version="2")
    assert (refused.status_code, error_of(refused)) == (400, "invalid_argument")
    assert post(server, "GetTickers", b"{}", "application/json", Connect_Protocol_Version="1").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/json", b"{"), ("application/json", b"7"), ("application/proto", b"\x0a")]
)
def test_a_malformed_message_is_an_invalid_argument(server: QuoteServer, content_type: str, body: bytes) -> None:
    refused = post(server, "AddTicker", body, content_type)
    assert (refused.status_code, error_of(refused)) == (400, "invalid_argument")
    assert "Traceback" not in refused.text


def test_a_message_over_64_kib_is_refused_however_it_comes(server: QuoteServer) -> None:
    large = json.dumps({"ticker": "A" * 66_000}).encode()
    for method, content_type in (("AddTicker", "application/json"), ("StreamPrices", "application/connect+json")):
        refused = post(server, method, large, content_type)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    packed = post(server, "AddTicker", gzip.compress(large), "application/json", Content_Encoding="gzip")
    assert error_of(packed) == "resource_exhausted"
    promised = post(server, "StreamPrices", struct.pack(">BI", 0, 2**31), "application/connect+json")
    assert end_of(*envelopes(promised.content)[-1])[0] == "resource_exhausted"


def test_a_request_may_be_gzipped(server: QuoteServer) -> None:
    body = gzip.compress(b'{"ticker":"a b"}')
    assert post(server, "AddTicker", body, "application/json", Content_Encoding="gzip").json() == {
        "success": False,
        "message": CryptoPriceServiceClientSync(server.url).add_ticker(AddTickerRequest(ticker="a b")).message,
    }
    unknown = post(server, "AddTicker", body, "application/json", Content_Encoding="brotli")
    assert error_of(unknown) == "unimplemented"


def test_a_deadline_that_passes_while_the_request_comes_is_kept(server: QuoteServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(
            f"POST {SERVICE}/AddTicker HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Connect-Timeout-Ms: 100\r\nContent-Length: 20\r\n\r\n".encode()
        )
        time.sleep(0.25)
        connection.sendall(b'{"ticker":"LATEUSD"}')
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"deadline_exceeded" in answer
    assert "LATEUSD" not in server.prices()


def test_a_malformed_timeout_is_refused(server: QuoteServer) -> None:
    for timeout in ("soon", "-1", "12345678901"):
        refused = post(server, "GetTickers", b"{}", "application/json", Connect_Timeout_Ms=timeout)
        assert error_of(refused) == "invalid_argument"


def test_an_error_has_its_name_in_a_detail(server: QuoteServer) -> None:
    with quote_server("--max-tickers", "1") as small:
        small.track("BTCUSD")
        refused = post(small, "AddTicker", b'{"ticker":"ETHUSD"}', "application/json")
        assert (refused.status_code, error_of(refused)) == (429, "resource_exhausted")
        (detail,) = refused.json()["details"]
        assert detail["type"] == "crypto.v1.Failure"
        assert Failure.FromString(base64.b64decode(detail["value"] + "==")).code == "too_many_tickers"
        assert small.http.post("/api/tickers", json={"ticker": "ETHUSD"}).json()["code"] == "too_many_tickers"


def test_grpc_web_text_is_grpc_web_in_base64(server: QuoteServer) -> None:
    body = envelope(AddTickerRequest(ticker="BTCUSD").SerializeToString())
    for text in (base64.b64encode(body), base64.b64encode(body[:4]) + base64.b64encode(body[4:])):
        answer = post(server, "AddTicker", text, TEXT)
        assert answer.headers["content-type"] == TEXT
        (_, message), end = envelopes(base64.b64decode(answer.content, validate=True))
        assert AddTickerResponse.FromString(message).message == "BTCUSD is tracked already."
        assert end_of(*end)[0] == "0"
    refused = post(server, "AddTicker", b"A", TEXT)
    assert (refused.status_code, error_of(refused)) == (400, "invalid_argument")


def test_a_filter_has_at_most_as_many_tickers_as_may_be_tracked() -> None:
    with quote_server("--max-tickers", "2") as small:
        with pytest.raises(ConnectError, match="--max-tickers allows 2") as refused:
            next(
                CryptoPriceServiceClientSync(small.url).stream_prices(
                    StreamPricesRequest(tickers=["AUSD", "BUSD", "CUSD"])
                )
            )
        assert refused.value.code is Code.RESOURCE_EXHAUSTED
        assert Failure.FromString(refused.value.details[0].message_bytes).code == "filter_too_large"
        answer = small.http.get("/api/stream?tickers=AUSD,BUSD,CUSD")
        assert (answer.status_code, answer.json()["code"]) == (400, "filter_too_large")


# --- the protocol, streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", TYPES)
def test_the_prices_of_one_flush_are_messages_of_their_own_in_one_write(server: QuoteServer, content_type: str) -> None:
    with raw_stream(server, content_type) as stream:
        assert stream.head.startswith("HTTP/1.1 200 ")
        assert f"content-type: {content_type}" in stream.head.lower()
        assert "cache-control: no-cache" in stream.head.lower()
        assert "x-accel-buffering: no" in stream.head.lower()
        assert sorted(price.ticker for price in stream.prices()) == ["BTCUSD", "ETHUSD", "SOLUSD"]
        changed: list[PriceUpdate] = []
        for price in range(1, 50):  # a flush may come between two quotes of a line: not every time
            server.put(("BTCUSD", "live", f"{price}.5"), ("ETHUSD", "live", f"{price}.25"))
            while f"{price}.25" not in [update.price_text for update in changed]:
                changed = stream.prices()
            if len(changed) == 2:
                break
        put(server, ("BTCUSD", "live", "45000.10"), ("ETHUSD", "stale", "2500.5"))
    assert {update.ticker: update.price_text for update in changed} == {"BTCUSD": f"{price}.5", "ETHUSD": f"{price}.25"}


def test_a_deadline_is_told_in_the_stream(server: QuoteServer) -> None:
    headers = "Connect-Timeout-Ms: 200\r\nGrpc-Timeout: 200m\r\n"
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(raw_stream(server, content_type, headers=headers)) for content_type in TYPES]
        ends = [stream.end() for stream in opened]
    assert [code for code, _ in ends] == ["deadline_exceeded", "deadline_exceeded", "4", "4", "4"]
    assert all("deadline" in message for _, message in ends)
    assert server.server()["counters"]["left: deadline"] >= len(TYPES)
    wait_until(lambda: streams(server) == 0, 1 + BUSY_S)


@pytest.mark.parametrize("content_type", TYPES)
def test_a_client_that_aborts_is_gone_within_a_second(server: QuoteServer, content_type: str) -> None:
    descriptors = server.descriptors()
    with raw_stream(server, content_type) as stream:
        stream.prices()
        wait_until(lambda: streams(server) == 1)
        counted = re.findall(r'^pluto_streams{transport="(.*)"} 1.0$', server.http.get("/metrics").text, re.MULTILINE)
        assert len(counted) == 1
        assert content_type.endswith(counted[0]) or counted == ["grpc-web+proto"]
    wait_until(lambda: streams(server) == 0, 1 + BUSY_S)
    wait_until(lambda: server.descriptors() <= descriptors)


@pytest.mark.parametrize("content_type", TYPES)
def test_a_stream_is_not_compressed_for_each_client(server: QuoteServer, content_type: str) -> None:
    accepts = "Connect-Accept-Encoding: gzip\r\nGrpc-Accept-Encoding: gzip\r\nAccept-Encoding: gzip\r\n"
    with raw_stream(server, content_type, headers=accepts) as stream:
        assert "encoding: identity" in stream.head.lower()
        assert len(stream.prices()) == 3


def test_a_stream_request_may_be_gzipped(server: QuoteServer) -> None:
    body = envelope(gzip.compress(b'{"tickers":["ETHUSD"],"allStates":true}'), flags=1)
    headers = {"Content-Type": TYPES[0], "Connect-Content-Encoding": "gzip"}
    with httpx.stream(
        "POST", f"{server.url}{SERVICE}/StreamPrices", content=body, headers=headers, verify=TLS
    ) as response:
        ((_, message),) = envelopes(next(response.iter_raw()))
    assert json.loads(message)["ticker"] == "ETHUSD"


@pytest.mark.parametrize("codec", ["json", "proto"])
def test_a_bare_codec_is_taken_for_connect_as_the_library_does(server: QuoteServer, codec: str) -> None:
    with raw_stream(server, codec) as stream:
        assert f"content-type: application/connect+{codec}" in stream.head.lower()
        assert len(stream.prices()) == 3


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "unimplemented"),
        (b"\0\0", "invalid_argument"),
        (b"\0\0\0\0\x09{}", "invalid_argument"),
        (envelope(b"{"), "invalid_argument"),
        (envelope(b"{}", flags=4), "invalid_argument"),
        (envelope(b"{}", flags=1), "internal"),
        (envelope(b"{}") + envelope(b"{}"), "unimplemented"),
    ],
    ids=["nothing", "half a prefix", "half a message", "no JSON", "unknown flags", "not compressed", "two messages"],
)
def test_a_malformed_envelope_ends_the_stream_with_an_error(server: QuoteServer, body: bytes, code: str) -> None:
    refused = post(server, "StreamPrices", body, TYPES[0])
    assert refused.status_code == 200
    ((flags, message),) = envelopes(refused.content)
    assert end_of(flags, message)[0] == code
    wait_until(lambda: streams(server) == 0)


def test_a_stream_of_no_tickers_opens_at_once_and_waits() -> None:
    for option in ([], ["--foreign"]):
        with quote_server(*option) as empty:
            client = CryptoPriceServiceClientSync(empty.url)
            if not option:
                with raw_stream(empty, TYPES[0]) as stream:  # its head has come
                    empty.track("BTCUSD")
                    assert [price.ticker for price in stream.prices()] == ["BTCUSD"]
            empty.track("BTCUSD")
            empty.put(("BTCUSD", "live", "7"))
            assert next(client.stream_prices(StreamPricesRequest())).ticker == "BTCUSD"


def test_a_server_that_gives_no_connection_away_streams_too() -> None:
    headers = "Connect-Timeout-Ms: 1500\r\nGrpc-Timeout: 1500m\r\n"
    with quote_server("--foreign") as foreign, contextlib.ExitStack() as stack:
        foreign.track("BTCUSD")
        opened = [stack.enter_context(raw_stream(foreign, content_type, headers=headers)) for content_type in TYPES]
        assert {stream.prices()[0].ticker for stream in opened} == {"BTCUSD"}
        foreign.put(("BTCUSD", "live", "7.5"))
        assert {stream.prices()[0].price_text for stream in opened} == {"7.5"}
        ends = [end_of(*envelopes(stream.chunk())[-1])[0] for stream in opened]
    assert ends == ["deadline_exceeded", "deadline_exceeded", "4", "4", "4"]


def test_shutting_down_is_told_as_unavailable() -> None:
    with quote_server() as going, contextlib.ExitStack() as stack:
        going.track("BTCUSD")
        opened = [stack.enter_context(raw_stream(going, content_type)) for content_type in TYPES]
        for stream in opened:
            stream.prices()
        going.process.send_signal(signal.SIGTERM)
        ends = [stream.end() for stream in opened]
    assert [code for code, _ in ends] == ["unavailable", "unavailable", "14", "14", "14"]
    assert all("shutting down" in message for _, message in ends)


def test_a_full_server_is_unavailable_and_says_so() -> None:
    with quote_server("--max-streams", "1") as full:
        full.track("BTCUSD")
        with raw_stream(full, TYPES[0]) as stream:
            stream.prices()
            for protocol, codec in CLIENTS:
                client = CryptoPriceServiceClientSync(full.url, protocol=protocol, codec=codec)
                with pytest.raises(ConnectError, match="1 streams are open") as refused:
                    next(client.stream_prices(StreamPricesRequest()))
                assert refused.value.code is Code.UNAVAILABLE
                assert Failure.FromString(refused.value.details[0].message_bytes).code == "too_many_streams"
        wait_until(lambda: streams(full) == 0)


def test_many_clients_of_one_kind_cost_one_encoding_a_flush(server: QuoteServer) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(raw_stream(server, TYPES[number % 2])) for number in range(40)]
        for stream in opened:
            stream.prices()
        wait_until(lambda: streams(server) == 40)
        before = server.server()["counters"]
        put(server, ("BTCUSD", "live", "45002"))
        for stream in opened:
            assert stream.prices()[0].price_text == "45002"
        after = server.server()["counters"]
    assert (after["flushes"] - before["flushes"], after["encodes"] - before["encodes"]) == (1, 2)
    assert after["sends"] - before["sends"] == 40
    wait_until(lambda: streams(server) == 0)
    put(server, ("BTCUSD", "live", "45000.10"))


@pytest.mark.parametrize("content_type", [TYPES[0], TYPES[3]])
def test_a_slow_client_gets_whole_messages_and_ends_up_right(content_type: str) -> None:
    tickers = [f"SLOW{number}USD" for number in range(100)]
    long = "0" * 500  # digits that fill the client's socket soon
    with quote_server() as server:
        server.http.put("/api/watchlist", json={"tickers": tickers}).raise_for_status()
        with raw_stream(server, content_type) as stream:
            rounds = 0
            while not server.server()["counters"].get("lagging"):
                rounds += 1
                assert rounds < 1000
                server.put(*((ticker, "live", f"{rounds}.{long}{number}") for number, ticker in enumerate(tickers)))
            last = {ticker: f"9999.{number}" for number, ticker in enumerate(tickers)}
            put(server, *((ticker, "live", price) for ticker, price in last.items()))
            table: dict[str, str] = {}
            while table != last:
                table.update({price.ticker: price.price_text for price in stream.prices()})


# --- gRPC and browsers ------------------------------------------------------------------------------------------------


def test_plain_grpc_fails_soon_and_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with quote_server() as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Callable[..., bytes] = channel.unary_unary(f"{SERVICE}/GetTickers")
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
        assert refused.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 3 + BUSY_S
        assert server.server()["http"]["counters"]["refused: unknown_version"] >= 1
        assert server.http.get("/livez").status_code == 200
    assert capfd.readouterr().err == ""


def test_http_2_is_refused_in_words_that_say_what_to_use(server: QuoteServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 ")
    assert json.loads(body)["code"] == "unknown_version"
    assert "does not support HTTP/2: use Connect or gRPC-Web over HTTP/1.1" in json.loads(body)["message"]


def test_what_only_begins_like_http_2_is_closed_soon_and_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with quote_server() as server:
        for rest in (b"", b"\r\nSM\r\n\r\n", b"\r\nSM\r\n\r\n" + b"\xff" * 100, b"\0" * 65_536):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
                began = time.monotonic()
                connection.sendall(b"PRI * HTTP/2.0\r\n" + rest)
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
                assert time.monotonic() - began < 1 + BUSY_S
        assert server.http.get("/livez").status_code == 200
    assert capfd.readouterr().err == ""


def test_plain_grpc_over_http_1_is_told_in_its_own_words(server: QuoteServer) -> None:
    for content_type in ("application/grpc", "application/grpc+proto"):
        refused = post(server, "GetTickers", envelope(b""), content_type)
        assert refused.headers["content-type"] == "application/grpc"
        assert refused.headers["grpc-status"] == "12"
        assert "Use Connect or gRPC-Web" in refused.headers["grpc-message"]


def test_a_preflight_allows_the_headers_of_both_protocols(server: QuoteServer) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "connect-protocol-version,connect-timeout-ms,content-type,x-grpc-web",
    }
    answer = server.http.options(f"{SERVICE}/StreamPrices", headers=asked)
    assert answer.status_code == 204
    allowed = {name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {"connect-protocol-version", "connect-timeout-ms", "content-type", "x-grpc-web", "x-user-agent"}
    assert allowed >= {"grpc-timeout", "connect-accept-encoding", "connect-content-encoding"}
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


def test_answers_expose_their_headers_to_our_origins_only(server: QuoteServer) -> None:
    ours = post(server, "GetTickers", b"{}", "application/json", Origin="http://localhost:3000")
    assert ours.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert {"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} <= set(
        ours.headers["Access-Control-Expose-Headers"].split(", ")
    )
    assert "Origin" in ours.headers.get_list("vary")[-1]
    with raw_stream(server, TYPES[0], headers="Origin: http://localhost:3000\r\n") as stream:
        assert "Access-Control-Allow-Origin: http://localhost:3000" in stream.head
    theirs = post(server, "GetTickers", b"{}", "application/json", Origin="http://evil.example")
    assert "Access-Control-Allow-Origin" not in theirs.headers


def test_rest_and_streams_are_still_there_beside_it(server: QuoteServer) -> None:
    assert server.http.get("/api/tickers").status_code == 200
    assert server.http.get("/crypto.v1.CryptoPriceService").status_code == 404
    assert server.http.get("/nothing").json()["code"] == "not_found"
