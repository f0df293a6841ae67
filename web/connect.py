"""The Connect surface: crypto.v1.CryptoPriceService for clients of Connect and gRPC-Web, as JSON and as protobuf.

This file owns the service, how quotes are written as its messages, and what plain gRPC is told. The official library
reads every request, answers the unary ones and begins the streams; a stream's bytes come from the broadcaster, to which
the four formats here are formats like any other. Everything runs on the hub thread, and nothing here waits.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote as percent_encoded

from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.request import RequestContext
from google.protobuf.message import Message
from protobuf.wkt import Any as AnyMessage

from broadcast import (
    MAX_RATE,
    Batch,
    Broadcaster,
    Entry,
    Format,
    Stream,
    Wish,
    filter_of,
    interval_of,
)
from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceSync, CryptoPriceServiceWSGIApplication
from proto.crypto.v1.crypto_service_pb2 import (
    AddTickerRequest,
    AddTickerResponse,
    Failure,
    GetTickersRequest,
    GetTickersResponse,
    PriceUpdate,
    RemoveTickerRequest,
    RemoveTickerResponse,
    Source,
    State,
    StreamPricesRequest,
)
from quotes import InvalidTicker, PlutoError, Ticker, parse_ticker, wire_fields
from watchlist import Outcome, Watchlist
from web.wsgi import ADDRESS, BEGAN_AT, HAND_OVER

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_MESSAGE = 64 * 1024  # bytes of a request
FAILURE = Failure.DESCRIPTOR.full_name  # the message in which an error has its name
CONNECT_END, GRPC_WEB_TRAILERS = 0b0000_0010, 0b1000_0000  # flags of the envelope that ends a stream
GRPC_STATUS = {Code.DEADLINE_EXCEEDED: 4, Code.UNAVAILABLE: 14}  # those a stream may end with
ONLY_CONNECT = "Pluto speaks Connect and gRPC-Web, over HTTP/1.1; gRPC itself needs HTTP/2, which Pluto has not."
GRPC_REFUSAL = [("Content-Type", "application/grpc"), ("grpc-status", "12"), ("grpc-message", ONLY_CONNECT)]
LAST_WORDS = "Pluto is shutting down; come back in a moment."
TIME_IS_UP = "The deadline that came with the request has passed."

HTTP2_PREFACE = "PRI * HTTP/2.0"  # the first line of what a client sends that begins with HTTP/2, as gRPC does
HTTP2_PREFACE_REST = len("\r\nSM\r\n\r\n")
MAX_HTTP2_FRAME = 16 * 1024
MAX_HTTP2_FRAMES = 16  # before the first request; gRPC sends two
HEADERS, SETTINGS, GOAWAY = 1, 4, 7  # types of frames
END_STREAM, END_HEADERS = 1, 4  # flags of HEADERS


# --- messages ---------------------------------------------------------------------------------------------------------


def price_update(entry: Entry) -> PriceUpdate:
    """The entry as the service's message."""
    return PriceUpdate(**{_FIELD_NAMES[name]: _NUMBERS.get(name, _same)(value) for name, value in _known(entry)})


def as_proto(entry: Entry) -> bytes:
    """The entry as a binary PriceUpdate, made once for all."""
    data = entry.encoded.get("proto")
    if data is None:
        data = entry.encoded["proto"] = price_update(entry).SerializeToString()
    return data


def as_json(entry: Entry) -> bytes:
    """The entry as a PriceUpdate in protobuf's JSON, made once for all; google's encoder takes ten times as long."""
    data = entry.encoded.get("json")
    if data is None:
        fields = {name: _TEXTS.get(name, _same)(value) for name, value in _known(entry)}
        data = entry.encoded["json"] = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return data


def _known(entry: Entry) -> list[tuple[str, Any]]:
    """What there is to say, by JSON names; in protobuf a flag that isn't set says nothing."""
    return [(name, value) for name, value in wire_fields(entry.quote, entry.sequence).items() if value is not False]


def _same(value: Any) -> Any:
    return value


_FIELD_NAMES = {field.json_name: field.name for field in PriceUpdate.DESCRIPTOR.fields}
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "state": lambda state: State.Value(f"STATE_{state.upper()}"),
    "source": lambda source: Source.Value(f"SOURCE_{source.upper()}"),
}
_TEXTS: dict[str, Callable[[Any], Any]] = {
    "state": lambda state: f"STATE_{state.upper()}",
    "source": lambda source: f"SOURCE_{source.upper()}",
    # A 64-bit whole number is a text in protobuf's JSON.
    **dict.fromkeys(("timestamp", "sourceTime", "receivedAt", "sequence", "nextTryAt"), str),
}


# --- formats ----------------------------------------------------------------------------------------------------------


def envelope(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def connect_end(code: Code, message: str) -> bytes:
    """The envelope that ends a Connect stream with an error."""
    end = {"error": {"code": code.value, "message": message}}
    return envelope(json.dumps(end, separators=(",", ":")).encode(), CONNECT_END)


def grpc_web_end(code: Code, message: str) -> bytes:
    """The envelope of trailers that ends a gRPC-Web stream with an error."""
    trailers = f"grpc-status: {GRPC_STATUS[code]}\r\ngrpc-message: {percent_encoded(message, safe=' ')}\r\n"
    return envelope(trailers.encode(), GRPC_WEB_TRAILERS)


def _format(name: str, as_message: Callable[[Entry], bytes], end: Callable[[Code, str], bytes]) -> Format:
    """Each price is a message of its own. Neither protocol has words for a removed ticker, a greeting, a heartbeat."""

    def encode(batch: Batch) -> bytes:
        return b"".join(envelope(as_message(entry)) for entry in (*batch.statuses, *batch.updates))

    return Format(
        name,
        encode,
        greet=lambda client_id: b"",
        heartbeat=b"",
        end=lambda retry_ms: end(Code.UNAVAILABLE, LAST_WORDS),
        expired=end(Code.DEADLINE_EXCEEDED, TIME_IS_UP),
    )


CONNECT_JSON = _format("connect+json", as_json, connect_end)
CONNECT_PROTO = _format("connect+proto", as_proto, connect_end)
GRPC_WEB_JSON = _format("grpc-web+json", as_json, grpc_web_end)
GRPC_WEB_PROTO = _format("grpc-web+proto", as_proto, grpc_web_end)
FORMATS = {
    "application/connect+json": CONNECT_JSON,
    "application/connect+proto": CONNECT_PROTO,
    "application/grpc-web+json": GRPC_WEB_JSON,
    "application/grpc-web+proto": GRPC_WEB_PROTO,
    "application/grpc-web": GRPC_WEB_PROTO,
    "json": CONNECT_JSON,  # malformed, but the library lets it pass, as the one in Go does
    "proto": CONNECT_PROTO,
}
"""A stream's format by the content type of its request."""


# --- the service ------------------------------------------------------------------------------------------------------


Changed = TypeVar("Changed", AddTickerResponse, RemoveTickerResponse)


class Listing:
    """The answer to GetTickers as of one moment, with its bytes in either codec."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.message = GetTickersResponse(
            tickers=[entry.quote.ticker for entry in entries], prices=[price_update(entry) for entry in entries]
        )
        tickers = json.dumps(list(self.message.tickers), separators=(",", ":")).encode()
        prices = b",".join(as_json(entry) for entry in entries)
        self.encoded = {
            "proto": self.message.SerializeToString(),
            "json": b'{"tickers":%b,"prices":[%b]}' % (tickers, prices),
        }


class ListingCodec(Codec[Message, Any]):
    """One of the library's codecs, which doesn't encode the newest listing again for everyone who asks."""

    def __init__(self, codec: Codec[Any, Any], service: Service) -> None:
        self._codec, self._service = codec, service

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        listing = self._service.listing
        return listing.encoded[self.name()] if message is listing.message else self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        return self._codec.decode(data, message_class)


class Call:
    """One request on its way through the library, which has no place for what a stream needs and what comes of it."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.hand_over, self.address = environ.get(HAND_OVER), environ.get(ADDRESS, "")
        now = time.monotonic()
        self.waited_ms = 1000 * (now - environ.get(BEGAN_AT, now))  # for the rest of the request
        self.stream: Stream | None = None


_call: ContextVar[Call] = ContextVar("call")


class Service(CryptoPriceServiceSync):
    """The four calls. `code_of` gives the Connect code of an error of ours."""

    def __init__(self, watchlist: Watchlist, broadcaster: Broadcaster, code_of: Callable[[PlutoError], str]) -> None:
        self._watchlist, self._broadcaster, self._code_of = watchlist, broadcaster, code_of
        self.listing = Listing([])

    def add_ticker(self, request: AddTickerRequest, context: RequestContext[Any, Any]) -> AddTickerResponse:
        return self._change(self._watchlist.add, request.ticker, context, AddTickerResponse)

    def remove_ticker(self, request: RemoveTickerRequest, context: RequestContext[Any, Any]) -> RemoveTickerResponse:
        return self._change(self._watchlist.remove, request.ticker, context, RemoveTickerResponse)

    def _change(
        self, change: Callable[[Ticker], Outcome], text: str, context: RequestContext[Any, Any], response: type[Changed]
    ) -> Changed:
        """A malformed ticker is no error here, but an answer that says so, as in the original."""
        with self._answering(context):
            try:
                return response(success=True, message=change(parse_ticker(text)).message)
            except InvalidTicker as invalid:
                return response(success=False, message=str(invalid))

    def get_tickers(self, request: GetTickersRequest, context: RequestContext[Any, Any]) -> GetTickersResponse:
        with self._answering(context):
            entries = self._broadcaster.entries
            if self.listing.entries != entries:
                self.listing = Listing(entries)
            context.response_headers["cache-control"] = "no-store"
            return self.listing.message

    def stream_prices(self, request: StreamPricesRequest, context: RequestContext[Any, Any]) -> Iterator[PriceUpdate]:
        """Admits the client. To the library the stream is empty: what it holds is the broadcaster's to send."""
        with self._answering(context) as seconds_left:
            call, broadcaster = _call.get(), self._broadcaster
            wish = Wish(
                _format_of(context),
                filter_of(request.tickers),
                interval_of(request.max_rate or MAX_RATE),
                chunked=call.hand_over is not None,
            )
            client = broadcaster.admit(wish, address=call.address)
            if seconds_left is not None:
                broadcaster.expire(client, seconds_left)
            call.stream = Stream(broadcaster, client, call.hand_over)
            context.response_headers["cache-control"] = "no-cache"
            context.response_headers["x-accel-buffering"] = "no"
            return iter(())

    @contextmanager
    def _answering(self, context: RequestContext[Any, Any]) -> Iterator[float | None]:
        """Gives the seconds up to the client's deadline, None without one. Raises our errors as Connect's."""
        left_ms = context.timeout_ms
        if left_ms is not None and (left_ms := left_ms - _call.get().waited_ms) <= 0:
            raise ConnectError(Code.DEADLINE_EXCEEDED, TIME_IS_UP)
        try:
            yield None if left_ms is None else left_ms / 1000
        except PlutoError as error:
            failure = AnyMessage(type_url=f"type.googleapis.com/{FAILURE}", value=_failure_of(error))
            raise ConnectError(Code(self._code_of(error)), str(error), [ErrorDetail(failure)]) from error


def error_json(error: PlutoError, code: str) -> bytes:
    """One of our errors as a Connect client reads it, for a call that is refused before it gets here."""
    detail = {"type": FAILURE, "value": base64.b64encode(_failure_of(error)).rstrip(b"=").decode()}
    return json.dumps({"code": code, "message": str(error), "details": [detail]}).encode()


def _failure_of(error: PlutoError) -> bytes:
    return Failure(code=error.code).SerializeToString()


def _format_of(context: RequestContext[Any, Any]) -> Format:
    return FORMATS[context.request_headers["content-type"].partition(";")[0].strip().lower()]


# --- the application --------------------------------------------------------------------------------------------------


class ConnectApplication:
    """The service as a WSGI application, to be mounted at `path`."""

    def __init__(self, watchlist: Watchlist, broadcaster: Broadcaster, code_of: Callable[[PlutoError], str]) -> None:
        service = Service(watchlist, broadcaster, code_of)
        codecs = [ListingCodec(codec, service) for codec in google_protobuf_codecs()]
        self._library = CryptoPriceServiceWSGIApplication(service, read_max_bytes=MAX_MESSAGE, codecs=codecs)
        self.path = f"{self._library.path}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _is_plain_grpc(environ.get("CONTENT_TYPE", "")):
            return _refuse_grpc(start_response)
        if environ["PATH_INFO"].endswith("/StreamPrices"):  # a stream's bytes are the same for all, so never compressed
            environ.pop("HTTP_CONNECT_ACCEPT_ENCODING", None)
            environ.pop("HTTP_GRPC_ACCEPT_ENCODING", None)
        call = Call(environ)
        _call.set(call)
        body = self._library(environ, start_response)
        return body if call.stream is None else call.stream


def _is_plain_grpc(content_type: str) -> bool:
    return content_type.partition(";")[0].strip() == "application/grpc" or content_type.startswith("application/grpc+")


def _refuse_grpc(start_response: StartResponse) -> Iterable[bytes]:
    """What a gRPC client takes for an answer; over HTTP/1.1 one comes here only through a proxy."""
    start_response("200 OK", GRPC_REFUSAL)
    return []


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------


def refuse_http2(read: Callable[[int], bytes], send: Callable[[bytes], object]) -> None:
    """Answers a connection's first request in HTTP/2, with what a gRPC client understands, and says goodbye.

    `read` begins after the line HTTP2_PREFACE. Whatever isn't HTTP/2 after all ends it without an answer.
    """
    read(HTTP2_PREFACE_REST)
    send(_http2_frame(SETTINGS, 0, 0, b""))
    for _ in range(MAX_HTTP2_FRAMES):
        header = read(9)
        length, stream = int.from_bytes(header[:3], "big"), int.from_bytes(header[5:], "big")
        if len(header) < 9 or length > MAX_HTTP2_FRAME:
            return
        read(length)
        if header[3] == HEADERS:
            fields = b"".join(_http2_field(name, value) for name, value in ((":status", "200"), *GRPC_REFUSAL))
            send(_http2_frame(HEADERS, END_STREAM | END_HEADERS, stream, fields))
            send(_http2_frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0)))
            return


def _http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _http2_field(name: str, value: str) -> bytes:
    """A header as HPACK's literal, neither indexed nor compressed; both texts are shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.lower().encode() + bytes([len(value)]) + value.encode()
