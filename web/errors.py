"""Errors as answers: what each protocol says for each error code.

This file owns the one table from an error's code to its HTTP status, Connect code and WebSocket close code, the errors
that `web/` itself raises, and how a failure is written as JSON. It decides nothing: whoever raises an error has
decided. It keeps no state. Everything here runs on the hub thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from werkzeug.wrappers import Response

from quotes import PlutoError

RETRY_AFTER_S = 5  # sent with every 503


class Answer(NamedTuple):
    """What each protocol says.

    `status` is the HTTP status, also of a refused WebSocket handshake. `connect` is the Connect code; the Connect
    protocol fixes the HTTP status that goes with it. `close` is the code that ends an open WebSocket; None where the
    error can't end one. `message` is for errors that Flask raises by itself.
    """

    status: int
    connect: str
    close: int | None = None
    message: str = ""


ANSWERS = {
    # The request isn't HTTP as Pluto accepts it (web/http1.py, web/server.py), or a WebSocket frame isn't.
    "malformed_request": Answer(400, "invalid_argument", 1002),
    "not_utf8": Answer(400, "invalid_argument", 1007),
    "too_slow": Answer(408, "deadline_exceeded"),
    "too_large": Answer(413, "resource_exhausted", 1009),
    "target_too_long": Answer(414, "invalid_argument"),
    "unknown_expectation": Answer(417, "invalid_argument"),
    "headers_too_large": Answer(431, "resource_exhausted"),
    "unknown_version": Answer(505, "unimplemented"),
    # The caller isn't allowed to ask (web/access.py).
    "unauthenticated": Answer(401, "unauthenticated"),
    "forbidden_host": Answer(403, "permission_denied"),
    "forbidden_origin": Answer(403, "permission_denied"),
    "too_many_requests": Answer(429, "resource_exhausted", 1008),
    # The request asks for something that Pluto doesn't offer.
    "bad_request": Answer(
        400, "invalid_argument", message='Send a JSON object as the body, such as {"ticker":"BTCUSD"}.'
    ),
    "invalid_ticker": Answer(400, "invalid_argument"),
    "did_you_mean": Answer(400, "invalid_argument"),
    "several_tickers": Answer(400, "invalid_argument"),
    "invalid_rate": Answer(400, "invalid_argument"),
    "filter_too_large": Answer(400, "resource_exhausted"),
    "invalid_size": Answer(400, "invalid_argument"),
    "invalid_range": Answer(400, "invalid_argument"),
    "invalid_alert": Answer(400, "invalid_argument"),
    "not_found": Answer(
        404, "unimplemented", message="There is nothing at this address. GET /openapi.json lists all addresses."
    ),
    "not_tracked": Answer(404, "not_found"),
    "no_such_alert": Answer(404, "not_found"),
    "method_not_allowed": Answer(405, "unimplemented", message="Use one of the methods in the Allow header."),
    "not_json": Answer(
        415,
        "invalid_argument",
        1003,
        "Send the body as JSON, with the header Content-Type: application/json.",
    ),
    "range_not_satisfiable": Answer(416, "out_of_range", message="Ask for a range within the file, or for all of it."),
    "no_websocket": Answer(426, "unimplemented"),
    # Pluto can't do it, or can't do it now.
    "retry_refused": Answer(409, "failed_precondition"),
    "retried_too_soon": Answer(429, "resource_exhausted"),
    "no_store": Answer(409, "failed_precondition"),
    "too_many_tickers": Answer(409, "resource_exhausted"),
    "too_many_alerts": Answer(409, "resource_exhausted"),
    "too_many_streams_per_address": Answer(429, "resource_exhausted"),
    "internal": Answer(500, "internal", message="Something failed inside Pluto. Its log shows what."),
    "too_many_streams": Answer(503, "unavailable"),
    "shutting_down": Answer(503, "unavailable", 1001),
    "history_unreadable": Answer(503, "unavailable"),
    "not_ready": Answer(503, "unavailable"),
    "source_busy": Answer(503, "unavailable"),
    "needs_restart": Answer(503, "unavailable"),
}
CODES = {answer.status: code for code, answer in ANSWERS.items() if answer.message}
"""The code of an error that Flask raises, by its HTTP status."""


# --- the errors that web/ raises --------------------------------------------------------------------------------------


class Unauthenticated(PlutoError):
    code = "unauthenticated"


class ForbiddenHost(PlutoError):
    code = "forbidden_host"


class ForbiddenOrigin(PlutoError):
    code = "forbidden_origin"


class TooManyRequests(PlutoError):
    """An address asks for something too often. It may ask again after `retry_after_s`."""

    code = "too_many_requests"

    def __init__(self, what: str, wait_s: float) -> None:
        self.retry_after_s = math.ceil(wait_s)
        super().__init__(f"Too many {what} from your address. Try again in {self.retry_after_s} s.")


class NoWebSocket(PlutoError):
    code = "no_websocket"


class NotReady(PlutoError):
    code = "not_ready"


class NeedsRestart(PlutoError):
    code = "needs_restart"


# --- how a failure is written -----------------------------------------------------------------------------------------


def failure_fields(code: str, message: str, proposals: Sequence[str] = ()) -> dict[str, Any]:
    """A failure as REST, WebSocket and the HTTP server say it in JSON. `proposals` are tickers to send instead."""
    fields: dict[str, Any] = {"success": False, "message": message, "code": code}
    return fields | {"proposals": list(proposals)} if proposals else fields


def failure_json(code: str, message: str, proposals: Sequence[str] = ()) -> bytes:
    return json.dumps(failure_fields(code, message, proposals), ensure_ascii=False).encode() + b"\n"


def failure_headers(status: int, retry_after_s: int = RETRY_AFTER_S) -> dict[str, str]:
    """The headers that say what the caller can do."""
    headers = {"Content-Type": "application/json"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Pluto"'
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after_s)
    return headers


def failure(
    code: str, message: str = "", retry_after_s: int = RETRY_AFTER_S, proposals: Sequence[str] = ()
) -> Response:
    """The HTTP response for a failure, with the table's message unless another is given."""
    status, body = ANSWERS[code].status, failure_json(code, message or ANSWERS[code].message, proposals)
    return Response(body, status, failure_headers(status, retry_after_s))


def answer(error: PlutoError) -> Response:
    retry_after_s, proposals = getattr(error, "retry_after_s", RETRY_AFTER_S), getattr(error, "proposals", ())
    return failure(error.code, str(error), retry_after_s, proposals)
