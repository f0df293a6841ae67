"""Errors as answers: what each error of Pluto's is called, and with which status every transport says it.

This file owns the one table from an error to its HTTP status and its Connect code, and how a failure is written as
JSON. It decides nothing: whoever raises an error has decided. Everything here runs on the hub thread.
"""

from __future__ import annotations

import json
from typing import NamedTuple, cast

from flask import Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from broadcast import InvalidRate, ShuttingDown, TooManyStreams, TooManyStreamsPerAddress
from quotes import InvalidTicker, PlutoError, failure_fields
from watchlist import TooManyTickers
from web.access import ForbiddenHost, ForbiddenOrigin, TooManyRequests, Unauthenticated
from web.connect import error_json
from web.http1 import MAX_BODY
from web.wsgi import RETRY_AFTER_S


class NotTracked(PlutoError):
    code = "not_tracked"


class NotReady(PlutoError):
    code = "not_ready"


class NeedsRestart(PlutoError):
    code = "needs_restart"


class NoWebSocket(PlutoError):
    code = "no_websocket"


class Answer(NamedTuple):
    """How an error is said: by HTTP, the WebSocket's handshake included, and by Connect."""

    status: int
    connect: str


ANSWERS: dict[type[PlutoError], Answer] = {
    InvalidTicker: Answer(400, "invalid_argument"),
    InvalidRate: Answer(400, "invalid_argument"),
    Unauthenticated: Answer(401, "unauthenticated"),
    ForbiddenHost: Answer(403, "permission_denied"),
    ForbiddenOrigin: Answer(403, "permission_denied"),
    NotTracked: Answer(404, "not_found"),
    TooManyTickers: Answer(409, "resource_exhausted"),
    NoWebSocket: Answer(426, "unimplemented"),
    TooManyRequests: Answer(429, "resource_exhausted"),
    TooManyStreamsPerAddress: Answer(429, "resource_exhausted"),
    TooManyStreams: Answer(503, "unavailable"),
    ShuttingDown: Answer(503, "unavailable"),
    NotReady: Answer(503, "unavailable"),
    NeedsRestart: Answer(503, "unavailable"),
}
HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "not_json",
    500: "internal",
}
HTTP_MESSAGES = {
    400: 'The body is not valid JSON; send an object such as {"ticker":"BTCUSD"}.',
    404: "There is nothing at this address; the README lists what there is.",
    413: f"The body is too large; {MAX_BODY} bytes are the most.",
    415: "Send the body as JSON, with the header Content-Type: application/json.",
    500: "Something went wrong inside Pluto; its log says what.",
}


def _failure(status: int, code: str, message: str) -> Response:
    body = json.dumps(failure_fields(code, message), ensure_ascii=False)
    return Response(body, status, content_type="application/json")


def answer_error(error: PlutoError) -> Response:
    return advise(_failure(ANSWERS[type(error)].status, error.code, str(error)), error)


def answer_connect_error(error: PlutoError) -> Response:
    """To a Connect call that doesn't get as far as the Connect library."""
    status, code = ANSWERS[type(error)]
    return advise(Response(error_json(error, code), status, content_type="application/json"), error)


def advise(failure: Response, error: PlutoError) -> Response:
    """Adds the headers that say how to do better."""
    if failure.status_code == 401:
        failure.headers["WWW-Authenticate"] = 'Bearer realm="Pluto"'
    if failure.status_code in (429, 503):
        failure.headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    return failure


def answer_websocket_mismatch(_: WebsocketMismatch) -> Response:
    return answer_error(NoWebSocket("/api/ws is a WebSocket, connected to with ws://; nothing else here is one."))


def answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return cast(Response, error.get_response())
    message = HTTP_MESSAGES.get(status, error.description or error.name)
    failure = _failure(status, HTTP_CODES.get(status, "bad_request"), message)
    failure.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return failure
