"""Connect: crypto.v1.CryptoPriceService for clients of Connect and gRPC-Web, as JSON and as protobuf.

This file owns the service, the formats of its streams, how quotes are written as its messages, and the refusal of plain
gRPC. The official library reads every request, answers the unary ones and begins the streams. The broadcaster sends a
stream's bytes. Everything runs on the hub thread; a call that takes a disk or Redis waits on the hub's thread pool.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote as percent_encoded

from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.request import RequestContext
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from protobuf.wkt import Any as AnyMessage
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from broadcast import MAX_RATE, Batch, Entry, Format, Subscription, filter_of, interval_of
from proto.crypto.v1 import crypto_service_pb2 as pb
from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceSync, CryptoPriceServiceWSGIApplication
from quotes import InvalidTicker, PlutoError, Ticker, compact_json, parse_ticker, wire_fields
from storage.changes import UNRECORDED
from web.alerting import all_alerts, delete_alert, make_alert, raised_alerts
from web.errors import ANSWERS, CODES, answer
from web.parts import Parts
from web.reading import NO_HISTORY, Found, find, limit_of, off_hub, on_pool, question_of, until_kept
from web.stream import Stream
from web.wsgi import ADDRESS, BEGAN_AT, HAND_OVER

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_MESSAGE = 64 * 1024  # bytes of a request, after decompression
FAILURE = pb.Failure.DESCRIPTOR.full_name  # the detail of a Connect error that has the error's code
CONNECT_END, GRPC_WEB_TRAILERS = 0b0000_0010, 0b1000_0000  # flags of the envelope that ends a stream
PADDED = re.compile(rb"[^=]+=*")  # base64 may be several texts, each padded
NO_GRPC = "Use Connect or gRPC-Web over HTTP/1.1. Plain gRPC needs HTTP/2, which Pluto does not support."


M = TypeVar("M", bound=Message)


class End(NamedTuple):
    """How a stream ends: the Connect code, the gRPC status that goes with it, and the sentence for the user."""

    code: Code
    grpc_status: int
    message: str


SHUTTING_DOWN = End(Code.UNAVAILABLE, 14, "Pluto is shutting down. Try again in a moment.")
TIME_IS_UP = End(Code.DEADLINE_EXCEEDED, 4, "The request's deadline has passed.")


# --- messages ---------------------------------------------------------------------------------------------------------


def price_update(entry: Entry) -> pb.PriceUpdate:
    return message_of(pb.PriceUpdate, _known(entry))


def as_proto(entry: Entry) -> bytes:
    """The entry's quote as a binary PriceUpdate; encoded once for all clients."""
    data = entry.encoded.get("proto")
    if data is None:
        data = entry.encoded["proto"] = price_update(entry).SerializeToString()
    return data


def as_json(entry: Entry) -> bytes:
    """The entry's quote as a PriceUpdate in protobuf's JSON; encoded once for all clients.

    Google's encoder takes ten times as long.
    """
    data = entry.encoded.get("proto_json")
    if data is None:
        fields = {name: _TEXTS.get(name, _same)(value) for name, value in _known(entry).items()}
        data = entry.encoded["proto_json"] = compact_json(fields).encode()
    return data


def message_of(kind: type[M], fields: Mapping[str, Any]) -> M:
    """A message of the service, from the fields of REST's JSON object."""
    return kind(**{_FIELD_NAMES.get(name, name): _NUMBERS.get(name, _same)(value) for name, value in fields.items()})


def asked_alert(message: pb.Alert) -> dict[str, Any]:
    """The alert of a request with the fields that REST would have; an unknown value of an enum stays a number."""
    return {field.name: _name_of(field, value) for field, value in message.ListFields()}


def _name_of(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is None or (known := field.enum_type.values_by_number.get(value)) is None:
        return value
    return known.name.partition("_")[2].lower()


def raised_alert(fields: Mapping[str, Any]) -> pb.RaisedAlert:
    """What has rung, as REST writes it, as the service's message."""
    deliveries = [_delivery(delivery) for delivery in fields.get("deliveries", [])]
    return message_of(pb.RaisedAlert, {**fields, "deliveries": deliveries})


def _delivery(fields: Mapping[str, Any]) -> pb.Delivery:
    state = pb.DeliveryState.Value(f"DELIVERY_STATE_{fields['state'].upper()}")
    return pb.Delivery(**{_FIELD_NAMES[name]: value for name, value in fields.items()} | {"state": state})


def _known(entry: Entry) -> dict[str, Any]:
    """The known fields of REST's JSON object. Protobuf leaves out a flag that is false."""
    return {name: value for name, value in wire_fields(entry.quote, entry.number).items() if value is not False}


def _same(value: Any) -> Any:
    return value


_FIELD_NAMES = {
    field.json_name: field.name
    for kind in (pb.PriceUpdate, pb.Point, pb.Candle, pb.RaisedAlert, pb.Delivery)
    for field in kind.DESCRIPTOR.fields
}
_INTERVALS = {number: name for name, number in pb.Interval.items()}
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "condition": lambda condition: pb.Condition.Value(f"CONDITION_{condition.upper()}"),
    "direction": lambda direction: pb.Direction.Value(f"DIRECTION_{direction.upper()}"),
    "state": lambda state: 0 if state == UNRECORDED else pb.State.Value(f"STATE_{state.upper()}"),
    "source": lambda source: pb.Source.Value(f"SOURCE_{source.upper()}"),
}
_TEXTS: dict[str, Callable[[Any], Any]] = {
    "state": lambda state: f"STATE_{state.upper()}",
    "source": lambda source: f"SOURCE_{source.upper()}",
    # Protobuf's JSON writes 64-bit integers as text.
    **dict.fromkeys(("timestamp", "sourceTime", "receivedAt", "sequence", "nextTryAt"), str),
}


# --- formats ----------------------------------------------------------------------------------------------------------


def envelope(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def connect_end(end: End) -> bytes:
    """The envelope that ends a Connect stream with an error."""
    error = {"error": {"code": end.code.value, "message": end.message}}
    return envelope(compact_json(error).encode(), CONNECT_END)


def grpc_web_end(end: End) -> bytes:
    """The envelope of trailers that ends a gRPC-Web stream with an error."""
    message = percent_encoded(end.message, safe=" ")
    return envelope(f"grpc-status: {end.grpc_status}\r\ngrpc-message: {message}\r\n".encode(), GRPC_WEB_TRAILERS)


class StreamFormats(NamedTuple):
    """A format for streams of current quotes only, and one for streams of all states."""

    current: Format
    all_states: Format


def _formats(
    name: str,
    as_message: Callable[[Entry], bytes],
    as_end: Callable[[End], bytes],
    armour: Callable[[bytes], bytes] = bytes,
) -> StreamFormats:
    """Each quote is a message. The protocols have no message for a removed ticker, a greeting or a heartbeat."""

    def encode(entries: Iterable[Entry]) -> bytes:
        return armour(b"".join(envelope(as_message(entry)) for entry in entries))

    def format_of(encode_batch: Callable[[Batch], bytes]) -> Format:
        return Format(
            name, encode_batch, end=lambda retry_ms: armour(as_end(SHUTTING_DOWN)), expired=armour(as_end(TIME_IS_UP))
        )

    return StreamFormats(
        current=format_of(lambda batch: encode(batch.updates)),
        all_states=format_of(lambda batch: encode((*batch.statuses, *batch.updates))),
    )


CONNECT_JSON = _formats("connect+json", as_json, connect_end)
CONNECT_PROTO = _formats("connect+proto", as_proto, connect_end)
GRPC_WEB_JSON = _formats("grpc-web+json", as_json, grpc_web_end)
GRPC_WEB_PROTO = _formats("grpc-web+proto", as_proto, grpc_web_end)
GRPC_WEB_TEXT = _formats("grpc-web-text", as_proto, grpc_web_end, base64.b64encode)
BINARY_OF = {  # what the library knows, in place of what it doesn't
    "application/grpc-web-text": "application/grpc-web",
    "application/grpc-web-text+proto": "application/grpc-web+proto",
}
FORMATS = {
    "application/connect+json": CONNECT_JSON,
    "application/connect+proto": CONNECT_PROTO,
    "application/grpc-web+json": GRPC_WEB_JSON,
    "application/grpc-web+proto": GRPC_WEB_PROTO,
    "application/grpc-web": GRPC_WEB_PROTO,
    **dict.fromkeys(BINARY_OF, GRPC_WEB_TEXT),
    "json": CONNECT_JSON,  # not a content type, but the library accepts it, as the one in Go does
    "proto": CONNECT_PROTO,
}
"""The formats of a stream, by the content type of its request."""


# --- the service ------------------------------------------------------------------------------------------------------


Context = RequestContext[Any, Any]
Done = TypeVar("Done", pb.AddTickerResponse, pb.RemoveTickerResponse, pb.RetryTickerResponse)


class Listing:
    """The answer to GetTickers at one moment, with its bytes in both codecs."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.message = pb.GetTickersResponse(
            tickers=[entry.quote.ticker for entry in entries], prices=[price_update(entry) for entry in entries]
        )
        tickers = compact_json(list(self.message.tickers)).encode()
        prices = b",".join(as_json(entry) for entry in entries)
        self.encoded = {
            "proto": self.message.SerializeToString(),
            "json": b'{"tickers":%b,"prices":[%b]}\n' % (tickers, prices),
        }


class ListingCodec(Codec[Message, Any]):
    """One of the library's codecs. It encodes the newest listing once, not for every request.

    JSON ends with a newline, for whoever reads it in a terminal.
    """

    def __init__(self, codec: Codec[Any, Any], service: Service) -> None:
        self._codec, self._service = codec, service

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        listing = self._service.listing
        if message is listing.message:
            return listing.encoded[self.name()]
        return self._codec.encode(message) + (b"\n" if self.name() == "json" else b"")

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        return self._codec.decode(data, message_class)


class Call:
    """One request inside the library, which can't carry what a stream needs, nor the stream itself."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.content_type = _content_type(environ)
        self.hand_over, self.address = environ.get(HAND_OVER), environ.get(ADDRESS, "")
        now = time.monotonic()
        self.waited_ms = 1000 * (now - environ.get(BEGAN_AT, now))  # for the request's body
        self.stream: Stream | None = None


_call: ContextVar[Call] = ContextVar("call")


class Service(CryptoPriceServiceSync):
    """The ten calls."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.listing = Listing([])

    def add_ticker(self, request: pb.AddTickerRequest, context: Context) -> pb.AddTickerResponse:
        add = self._parts.watchlist.add
        return self._do(lambda ticker: add(ticker).message, request.ticker, context, pb.AddTickerResponse)

    def remove_ticker(self, request: pb.RemoveTickerRequest, context: Context) -> pb.RemoveTickerResponse:
        remove = self._parts.watchlist.remove
        return self._do(lambda ticker: remove(ticker).message, request.ticker, context, pb.RemoveTickerResponse)

    def retry_ticker(self, request: pb.RetryTickerRequest, context: Context) -> pb.RetryTickerResponse:
        return self._do(self._retry, request.ticker, context, pb.RetryTickerResponse)

    def _retry(self, ticker: Ticker) -> str:
        self._parts.watchlist.check(ticker)
        return on_pool(lambda: self._parts.source.retry(ticker))

    def _do(self, work: Callable[[Ticker], str], text: str, context: Context, response: type[Done]) -> Done:
        """Answers a malformed ticker with success=false and the reason, not with an error, as the original does."""
        with self._answering(context):
            try:
                message = work(parse_ticker(text))
                until_kept(self._parts.store)
                return response(success=True, message=message)
            except InvalidTicker as invalid:
                return response(success=False, message=str(invalid))

    def get_tickers(self, request: pb.GetTickersRequest, context: Context) -> pb.GetTickersResponse:
        with self._answering(context):
            entries = self._parts.broadcaster.table.entries
            if self.listing.entries != entries:
                self.listing = Listing(entries)
            context.response_headers["cache-control"] = "no-store"
            return self.listing.message

    def get_history(self, request: pb.GetHistoryRequest, context: Context) -> pb.GetHistoryResponse:
        with self._answering(context):
            question = question_of(parse_ticker(request.ticker), _texts_of(request))
            found = off_hub(self._parts.store, lambda history: find(history, question))
            if found is None:
                self._parts.watchlist.check(question.ticker, NO_HISTORY)
            context.response_headers["cache-control"] = "no-store"
            items, next, since = found or Found([], None, None)
            kind: type[Message] = pb.Point if question.width is None else pb.Candle
            messages: dict[str, Any] = {question.name: [message_of(kind, item) for item in items]}
            return pb.GetHistoryResponse(**messages, next=str(next or ""), recorded_since=since)

    def create_alert(self, request: pb.CreateAlertRequest, context: Context) -> pb.CreateAlertResponse:
        with self._answering(context):
            asked = {**asked_alert(request.alert), "replaces": request.replaces}
            message, fields = make_alert(self._parts.alerts, self._parts.store, asked)
            return pb.CreateAlertResponse(message=message, alert=message_of(pb.Alert, fields))

    def get_alerts(self, request: pb.GetAlertsRequest, context: Context) -> pb.GetAlertsResponse:
        with self._answering(context):
            context.response_headers["cache-control"] = "no-store"
            alerts = [message_of(pb.Alert, alert) for alert in all_alerts(self._parts.alerts)]
            return pb.GetAlertsResponse(alerts=alerts)

    def delete_alert(self, request: pb.DeleteAlertRequest, context: Context) -> pb.DeleteAlertResponse:
        with self._answering(context):
            return pb.DeleteAlertResponse(message=delete_alert(self._parts.alerts, self._parts.store, request.id))

    def get_raised_alerts(self, request: pb.GetRaisedAlertsRequest, context: Context) -> pb.GetRaisedAlertsResponse:
        with self._answering(context):
            limit = limit_of(str(request.limit) if request.limit else "")
            context.response_headers["cache-control"] = "no-store"
            raised = [raised_alert(fields) for fields in raised_alerts(self._parts.alerts, limit)]
            return pb.GetRaisedAlertsResponse(raised=raised)

    def stream_prices(self, request: pb.StreamPricesRequest, context: Context) -> Iterator[pb.PriceUpdate]:
        """Admits the client. The library gets an empty stream: the broadcaster sends what is in it."""
        with self._answering(context) as seconds_left:
            call = _call.get()
            formats = FORMATS[call.content_type]
            subscription = Subscription(
                formats.all_states if request.all_states else formats.current,
                filter_of(request.tickers, self._parts.watchlist.max_tickers),
                interval_of(request.max_rate or MAX_RATE),
                chunked=call.hand_over is not None,
            )
            client = self._parts.broadcaster.clients.admit(subscription, address=call.address)
            if seconds_left is not None:
                client.end_after(seconds_left)
            call.stream = Stream(client, call.hand_over)
            context.response_headers["cache-control"] = "no-cache"
            context.response_headers["x-accel-buffering"] = "no"
            return iter(())

    @contextmanager
    def _answering(self, context: Context) -> Iterator[float | None]:
        """Yields the seconds until the client's deadline, None without one. Raises Pluto's errors as ConnectError."""
        left_ms = context.timeout_ms
        if left_ms is not None and (left_ms := left_ms - _call.get().waited_ms) <= 0:
            raise ConnectError(TIME_IS_UP.code, TIME_IS_UP.message)
        try:
            yield None if left_ms is None else left_ms / 1000
        except PlutoError as error:
            failure = AnyMessage(type_url=f"type.googleapis.com/{FAILURE}", value=_failure(error.code))
            raise ConnectError(Code(ANSWERS[error.code].connect), str(error), [ErrorDetail(failure)]) from error


def _texts_of(request: pb.GetHistoryRequest) -> dict[str, str]:
    """The request as a query's texts."""
    name = _INTERVALS.get(request.interval, str(request.interval))
    interval = name.removeprefix("INTERVAL_").lower() if request.interval else ""
    limit = str(request.limit) if request.limit else ""
    texts = {"since": request.since, "until": request.until, "cursor": request.cursor}
    return {**texts, "limit": limit, "interval": interval}


def _failure(code: str) -> bytes:
    return pb.Failure(code=code).SerializeToString()


# --- the application --------------------------------------------------------------------------------------------------


class ConnectApplication:
    """The service as a WSGI application for all addresses that begin with `path`."""

    def __init__(self, parts: Parts) -> None:
        service = Service(parts)
        codecs = [ListingCodec(codec, service) for codec in google_protobuf_codecs()]
        self._library = CryptoPriceServiceWSGIApplication(service, read_max_bytes=MAX_MESSAGE, codecs=codecs)
        self.path = f"{self._library.path}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        content_type = _content_type(environ)
        if _is_plain_grpc(content_type):
            return _refuse_grpc(start_response)
        if content_type in BINARY_OF:
            return self._answer_in_text(content_type, environ, start_response)
        return self._answer(Call(environ), environ, start_response)

    def _answer_in_text(
        self, content_type: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """gRPC-Web in base64, which the library doesn't know: the same call in binary. A stream's format is text."""
        try:
            body = b"".join(map(base64.b64decode, PADDED.findall(environ["wsgi.input"].read())))
        except ValueError:
            return refuse(NotBase64())(environ, start_response)
        call, said = Call(environ), Headers()
        environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"] = BINARY_OF[content_type], str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)

        def start(status: str, headers: list[tuple[str, str]], *failure: Any) -> Any:
            said.extend(headers)
            if said["Content-Type"].startswith("application/grpc-web"):  # not a refusal in JSON
                said["Content-Type"] = content_type
            return start_response(status, said.to_wsgi_list(), *failure)

        answer = self._answer(call, environ, start)
        if call.stream is not None or said["Content-Type"] != content_type:
            return answer
        return [base64.b64encode(b"".join(answer))]

    def _answer(self, call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].endswith("/StreamPrices"):  # all clients get the same bytes, so never compressed ones
            environ.pop("HTTP_CONNECT_ACCEPT_ENCODING", None)
            environ.pop("HTTP_GRPC_ACCEPT_ENCODING", None)
        _call.set(call)
        withheld: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *failure: Any) -> Any:
            if int(status[:3]) >= 400:
                return withheld.append((status, headers))
            return start_response(status, headers, *failure)

        body = self._library(environ, start)
        if withheld:
            return _explain(*withheld[0], body)(environ, start_response)
        return body if call.stream is None else call.stream


class NotBase64(PlutoError):
    code = "malformed_request"

    def __init__(self) -> None:
        super().__init__("Send the body of application/grpc-web-text in base64.")


def refuse(error: PlutoError) -> Response:
    """The answer to a call that doesn't get as far as the library."""
    response = answer(error)
    response.set_data(_error_json(error.code, str(error)))
    return response


def _explain(status: str, headers: list[tuple[str, str]], body: Iterable[bytes]) -> Response:
    """The library's refusal, with a newline at its end. One without a body (404, 405, 415) gets advice as its body."""
    response = Response(body, status, headers)
    if refusal := response.get_data():
        response.set_data(refusal + b"\n")
    else:
        code = CODES[response.status_code]
        advice = {
            405: f"Use {response.headers.get('Allow')} for this call.",
            415: f"Send the body as one of: {response.headers.get('Accept-Post')}.",
        }
        response.set_data(_error_json(code, advice.get(response.status_code, ANSWERS[code].message)))
        response.content_type = "application/json"
    return response


def _error_json(code: str, message: str) -> bytes:
    """A failure as a Connect client reads it."""
    detail = {"type": FAILURE, "value": base64.b64encode(_failure(code)).rstrip(b"=").decode()}
    error = {"code": ANSWERS[code].connect, "message": message, "details": [detail]}
    return json.dumps(error, ensure_ascii=False).encode() + b"\n"


def _is_plain_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith("application/grpc+")


def _content_type(environ: WSGIEnvironment) -> str:
    """Without its parameters."""
    return str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()


def _refuse_grpc(start_response: StartResponse) -> Iterable[bytes]:
    """An answer that a gRPC client understands. Over HTTP/1.1, its request comes through a proxy."""
    start_response("200 OK", [("Content-Type", "application/grpc"), ("grpc-status", "12"), ("grpc-message", NO_GRPC)])
    return []
