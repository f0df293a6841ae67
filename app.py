"""The web layer: the watchlist, routes, errors as answers, and the start and end of the whole program.

This file owns the watchlist's rules, the REST, SSE and WebSocket surface and the order in which the layers start and
stop. Routes translate, they never decide. Everything here runs on the hub thread, so nothing here may block: the
browser lives on the scraper's thread, the simulator in a process of its own.
"""

from __future__ import annotations

import atexit
import base64
import errno
import gc
import hashlib
import io
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import gevent
import psutil
from flask import Blueprint, Flask, Response, current_app, jsonify, redirect, render_template, request
from gevent.event import AsyncResult
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import Header, WebSocket
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch
from werkzeug.wrappers import Response as BaseResponse

from access import (
    SECURITY_HEADERS,
    Access,
    AccessSettings,
    ForbiddenHost,
    ForbiddenOrigin,
    TooManyRequests,
    Unauthenticated,
)
from broadcast import (
    ADDRESS,
    HAND_OVER,
    MAX_RATE,
    SSE,
    WEBSOCKET,
    Broadcaster,
    Client,
    Format,
    InvalidRate,
    ShuttingDown,
    Stream,
    TooManyStreams,
    TooManyStreamsPerAddress,
    Wish,
    filter_of,
    interval_of,
    websocket_frame,
    websocket_text,
)
from connect import ConnectApplication, error_json
from http1 import MAX_BODY
from logs import log_failure, start_logging
from metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from metrics import Metrics
from quotes import (
    InvalidTicker,
    PlutoError,
    State,
    Ticker,
    TooManyTickers,
    failure_fields,
    parse_ticker,
    wire_fields,
)
from scraper import Scraper, find_browser
from server import HTTP_SERVER, RETRY_AFTER_S, Server, listen, make_server
from settings import VERSION, Settings, read_settings, variable_of
from supervision import HubWatchdog, ScraperState, Supervisor

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PROJECT = Path(__file__).parent
MAX_WEBSOCKET_MESSAGE = 4 * 1024
CANT_START, GAVE_UP = 1, 3  # exit codes; 2 is argparse's, for a wrong setting
STOP_GRACE_S = 0.3  # for streams to send their last event

log = logging.getLogger("pluto")


# --- the watchlist ----------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """What came of adding or removing a ticker: whether anything did, and the sentence that every transport says."""

    is_new: bool
    message: str


class Watchlist:
    """Which tickers are tracked: the one place that adds and removes them, for every transport."""

    def __init__(self, scraper: Scraper, broadcaster: Broadcaster, settings: Settings) -> None:
        self.scraper, self.broadcaster, self.settings = scraper, broadcaster, settings
        self.started_at = time.time()

    def add(self, ticker: Ticker) -> Change:
        """Tracks a ticker. Raises TooManyTickers at the cap."""
        if self.broadcaster.entry(ticker) is not None:
            return Change(False, f"{ticker} is tracked already.")
        if len(self.broadcaster.tickers) >= self.settings.max_tickers:
            raise TooManyTickers(
                f"{self.settings.max_tickers} tickers are tracked, the most allowed: remove one, "
                "or start Pluto with a higher --max-tickers."
            )
        self.broadcaster.track(ticker, simulated=self.settings.demo)
        self.scraper.add(ticker)
        return Change(True, f"{ticker} is tracked now.")

    def remove(self, ticker: Ticker) -> Change:
        """Stops tracking a ticker."""
        if self.broadcaster.entry(ticker) is None:
            return Change(False, f"{ticker} was not tracked.")
        self.scraper.remove(ticker)
        self.broadcaster.untrack(ticker)
        return Change(True, f"{ticker} is no longer tracked.")


# --- errors as answers ------------------------------------------------------------------------------------------------


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


def _on_pluto_error(error: PlutoError) -> Response:
    return _advise(_failure(ANSWERS[type(error)].status, error.code, str(error)), error)


def _on_connect_error(error: PlutoError) -> Response:
    """To a Connect call that doesn't get as far as the Connect library."""
    status, code = ANSWERS[type(error)]
    return _advise(Response(error_json(error, code), status, content_type="application/json"), error)


def _advise(failure: Response, error: PlutoError) -> Response:
    """Adds the headers that say how to do better."""
    if failure.status_code == 401:
        failure.headers["WWW-Authenticate"] = 'Bearer realm="Pluto"'
    if failure.status_code in (429, 503):
        failure.headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    return failure


def _on_websocket_mismatch(_: WebsocketMismatch) -> Response:
    return _on_pluto_error(NoWebSocket("/api/ws is a WebSocket, connected to with ws://; nothing else here is one."))


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return cast(Response, error.get_response())
    message = HTTP_MESSAGES.get(status, error.description or error.name)
    failure = _failure(status, HTTP_CODES.get(status, "bad_request"), message)
    failure.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return failure


# --- routes -----------------------------------------------------------------------------------------------------------

routes = Blueprint("pluto", __name__)


def watchlist() -> Watchlist:
    return cast(Watchlist, current_app.extensions["pluto"])


def access() -> Access:
    return cast(Access, current_app.extensions["access"])


def supervisor() -> Supervisor:
    return cast(Supervisor, current_app.extensions["supervisor"])


@routes.get("/")
def page() -> Response:
    if not access().is_authenticated(request.environ):
        return _login_page()
    return Response(render_template("index.html", simulated=watchlist().settings.demo, version=VERSION))


@routes.get("/login")
def login() -> BaseResponse:
    return redirect("/", 303)


@routes.post("/login")
def log_in() -> BaseResponse:
    """Opens a session for the right token, and goes on to the page with the query it was asked for with."""
    try:
        cookie = access().log_in(request.form.get("token", ""), request.environ)
    except PlutoError as error:
        return _login_page(error)
    response = redirect("/" + _query(), 303)
    response.headers["Set-Cookie"] = cookie
    return response


def _login_page(error: PlutoError | None = None) -> Response:
    """The form; one who follows a link from elsewhere is sent here again, because the cookie didn't come with that."""
    shown = render_template(
        "login.html",
        action="/login" + _query(),
        message=str(error or ""),
        again=request.headers.get("Sec-Fetch-Site") == "cross-site",
        simulated=watchlist().settings.demo,
    )
    error = error or Unauthenticated()
    return _advise(Response(shown, ANSWERS[type(error)].status), error)


def _query() -> str:
    query = request.query_string.decode("ascii", "ignore")
    return f"?{query}" if query else ""


@routes.get("/vendor/lightweight-charts.js")
def chart_script() -> Response:
    """TradingView's open-source charts, as the package litecharts carries them."""
    return Response(
        _chart_script(), content_type="text/javascript; charset=utf-8", headers={"Cache-Control": "max-age=86400"}
    )


@cache
def _chart_script() -> bytes:
    return (resources.files("litecharts") / "js" / "lightweight-charts.js").read_bytes()


@routes.post("/api/tickers")
def add_ticker() -> tuple[Response, int]:
    ticker = parse_ticker(_json_object().get("ticker"))
    change = watchlist().add(ticker)
    return jsonify(success=True, message=change.message, ticker=_price(ticker)), 201 if change.is_new else 200


@routes.delete("/api/tickers/<text>")
def remove_ticker(text: str) -> Response:
    return jsonify(success=True, message=watchlist().remove(parse_ticker(text)).message)


@routes.get("/api/tickers")
def get_tickers() -> Response:
    broadcaster = watchlist().broadcaster
    prices = [wire_fields(entry.quote, entry.sequence) for entry in broadcaster.entries]
    return jsonify(tickers=broadcaster.tickers, prices=prices)


@routes.get("/api/tickers/<text>")
def get_ticker(text: str) -> Response:
    return jsonify(_price(parse_ticker(text)))


class StreamResponse(Response):
    """A response whose body is a Stream. Werkzeug gives a 101 none, and would not close the one HEAD has no use for."""

    def get_app_iter(self, environ: dict[str, Any]) -> Iterable[bytes]:
        stream = cast(Stream, self.response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return stream
        stream.close()
        return ()


@routes.get("/api/stream")
def stream() -> Response:
    hand_over = request.environ.get(HAND_OVER)
    client = watchlist().broadcaster.admit(_wish(SSE, chunked=hand_over is not None), _last_event_id(), _address())
    return StreamResponse(
        Stream(watchlist().broadcaster, client, hand_over),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@routes.get("/api/ws", websocket=True)
def websocket() -> Response:
    """Upgrades the connection; from there the broadcaster sends, and a WebSocketSession takes what the client says."""
    if (hand_over := request.environ.get(HAND_OVER)) is None:
        raise NoWebSocket("WebSocket takes HTTP/1.1 without TLS here; use /api/stream instead.")
    accept = _websocket_accept()
    broadcaster = watchlist().broadcaster
    client = broadcaster.admit(_wish(WEBSOCKET), _last_event_id(), _address())
    client.receive = WebSocketSession(broadcaster, client).receive
    return StreamResponse(
        Stream(broadcaster, client, hand_over),
        status=101,
        headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept},
    )


def _wish(format: Format, *, chunked: bool = False) -> Wish:
    """What a stream's query asks for."""
    tickers = filter_of(request.args.get("tickers", "").split(","))
    return Wish(format, tickers, interval_of(request.args.get("max_rate", MAX_RATE)), chunked)


def _last_event_id() -> str:
    return request.headers.get("Last-Event-ID") or request.args.get("lastEventId", "")


def _address() -> str:
    """What the caller's streams count for."""
    return cast(str, request.environ.get(ADDRESS, ""))


def _websocket_accept() -> str:
    """The handshake's answer (RFC 6455, 4.2). Raises what is wrong with the question."""
    headers = request.headers
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_key = False
    if not is_key or headers.get("Sec-WebSocket-Version") != "13":
        raise NoWebSocket("The handshake lacks a valid Sec-WebSocket-Key, or Sec-WebSocket-Version: 13.")
    return base64.b64encode(hashlib.sha1((key + WebSocketHandler.GUID).encode()).digest()).decode()


@routes.get("/health")
def health() -> Response:
    entries = watchlist().broadcaster.entries
    states = {state: sum(entry.quote.state is state for entry in entries) for state in State}
    troubled = states[State.STALE] + states[State.BLOCKED] + states[State.ERROR]
    browser = "running" if watchlist().scraper.has_browser else "down"
    scraper, flushing = supervisor().state, watchlist().broadcaster.is_flushing
    is_well = not troubled and browser == "running" and scraper is ScraperState.RUNNING and flushing
    return jsonify(
        status="ok" if is_well else "degraded",
        browser=browser,
        scraper=scraper,
        broadcaster="running" if flushing else "failed",
        tickers={state: count for state, count in states.items() if count},
        simulated=watchlist().settings.demo,
        version=VERSION,
        timestamp=_iso_now(),
    )


@routes.get("/livez")
def livez() -> Response:
    """Fails only when it helps to start Pluto anew."""
    if (failure := supervisor().failure) is not None:
        raise NeedsRestart(f"Start Pluto anew: {failure}.")
    return jsonify(status="ok")


@routes.get("/readyz")
def readyz() -> Response:
    """Fails while new clients had better go elsewhere."""
    watchlist().broadcaster.check_room()
    if supervisor().state is not ScraperState.RUNNING:
        raise NotReady(f"The scraper is {supervisor().state}; come back in a moment.")
    if not watchlist().scraper.has_browser:
        raise NotReady("There is no browser yet; come back in a moment.")
    return jsonify(status="ok")


@routes.get("/api/performance")
def performance() -> Response:
    broadcaster, scraper = watchlist().broadcaster, watchlist().scraper
    memory, clients = psutil.Process().memory_info(), broadcaster.clients
    return jsonify(
        scraper={
            "activeTickers": len(broadcaster.tickers),
            "callbacksRegistered": 1,
            "queuedUpdates": broadcaster.waiting,
            "monitoringActive": scraper.has_browser,
            "counters": dict(scraper.counters),
        },
        server={
            "activeSSEClients": clients["sse"],
            "queuedBroadcasts": broadcaster.lagging,
            "uptime": round(time.time() - watchlist().started_at, 3),
            "memoryUsage": {"rss": memory.rss, "vms": memory.vms},
            "clients": dict(clients),
            "handoffDepth": broadcaster.waiting,
            "lagging": broadcaster.lagging,
            "sequence": broadcaster.sequence,
            "flushSecondsMax": round(broadcaster.flush_max_s, 6),
            "latenessSecondsMax": round(broadcaster.lateness_max_s, 6),
            "counters": {**broadcaster.counters, **supervisor().counters},
            "http": _http_figures(),
            "refusedRequests": dict(access().refused),
        },
        timestamp=_iso_now(),
    )


@routes.get("/metrics")
def metrics() -> Response:
    collected, http = cast(Metrics, current_app.extensions["pluto.metrics"]), _http_figures()
    shown = collected.text(http.get("connections", 0), http.get("counters", {}))
    return Response(shown, content_type=METRICS_CONTENT_TYPE, headers={"Cache-Control": "no-store"})


@routes.get("/openapi.json")
def openapi() -> Response:
    """The REST part, described for programs."""
    return current_app.send_static_file("openapi.json")


def _http_figures() -> dict[str, Any]:
    """The HTTP server's, as far as it is ours."""
    server: Server | None = request.environ.get(HTTP_SERVER)
    return {} if server is None else {"connections": server.connections, "counters": dict(server.counters)}


def _json_object() -> dict[str, Any]:
    try:
        body = request.get_json()
    except RecursionError:  # thousands of brackets
        raise BadRequest from None
    if not isinstance(body, dict):
        raise BadRequest
    return body


def _price(ticker: Ticker) -> dict[str, Any]:
    entry = watchlist().broadcaster.entry(ticker)
    if entry is None:
        raise NotTracked(f"{ticker} is not tracked; add it with POST /api/tickers.")
    return wire_fields(entry.quote, entry.sequence)


def _iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- WebSocket --------------------------------------------------------------------------------------------------------


class Closing(Exception):
    """A conversation ends: the close code (RFC 6455, 7.4) that the client is told, and whose doing it is."""

    def __init__(self, close_code: int, reason: str = "violation") -> None:
        super().__init__(close_code)
        self.close_code, self.reason = close_code, reason


class WebSocketReader:
    """What a client says on a WebSocket: bytes in, (opcode, payload) messages out. Bounded, and it never waits.

    The frame headers are gevent-websocket's; what its 2017 release lets pass is refused here.
    """

    def __init__(self) -> None:
        self._unread = b""
        self._opcode: int | None = None  # of the fragmented message under way
        self._fragments = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises Closing at a violation; what was yielded before it still counts."""
        self._unread += data
        while (frame := self._next_frame()) is not None:
            header, payload = frame
            if header.opcode >= WebSocket.OPCODE_CLOSE:
                yield header.opcode, payload
            elif (message := self._defragment(header, payload)) is not None:
                yield message

    def _next_frame(self) -> tuple[Header, bytes] | None:
        stream = io.BytesIO(self._unread)
        try:
            header = Header.decode_header(stream)
        except WebSocketError as error:
            if "Unexpected EOF" in str(error):
                return None
            raise Closing(1002) from None
        if header.flags or not header.mask:
            raise Closing(1002)
        if header.length + len(self._fragments) > MAX_WEBSOCKET_MESSAGE:
            raise Closing(1009)
        payload = stream.read(header.length)
        if len(payload) < header.length:
            return None
        self._unread = stream.read()
        return header, bytes(header.unmask_payload(payload))

    def _defragment(self, header: Header, payload: bytes) -> tuple[int, bytes] | None:
        is_continuation = header.opcode == WebSocket.OPCODE_CONTINUATION
        if is_continuation != (self._opcode is not None):
            raise Closing(1002)
        if not is_continuation:
            if header.opcode != WebSocket.OPCODE_TEXT:
                raise Closing(1003 if header.opcode == WebSocket.OPCODE_BINARY else 1002)
            self._opcode = header.opcode
        self._fragments += payload
        if not header.fin:
            return None
        message = self._opcode or 0, self._fragments
        self._opcode, self._fragments = None, b""
        return message


class WebSocketSession:
    """One client's side of the conversation: its filter, its pings, its goodbye."""

    def __init__(self, broadcaster: Broadcaster, client: Client) -> None:
        self._broadcaster, self._client = broadcaster, client
        self._reader = WebSocketReader()

    def receive(self, data: bytes) -> None:
        try:
            for opcode, payload in self._reader.feed(data):
                self._on_message(opcode, payload)
        except Closing as closing:
            self._leave(closing)
        except UnicodeDecodeError:
            self._leave(Closing(1007))

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if opcode == WebSocket.OPCODE_PING:
            self._broadcaster.write(self._client, websocket_frame(WebSocket.OPCODE_PONG, payload))
        elif opcode == WebSocket.OPCODE_CLOSE:
            raise Closing(_close_code_of(payload), "closed")
        elif opcode == WebSocket.OPCODE_TEXT:
            self._on_text(payload.decode())
        elif opcode != WebSocket.OPCODE_PONG:
            raise Closing(1002)

    def _on_text(self, text: str) -> None:
        try:
            message = json.loads(text)
            tickers = filter_of(str(ticker) for ticker in message["tickers"])
        except PlutoError as error:
            self._refuse(error.code, str(error))
        except (ValueError, TypeError, KeyError, RecursionError):
            self._refuse("bad_request", 'Send {"tickers":["BTCUSD"]} to choose tickers; an empty list chooses all.')
        else:
            self._broadcaster.change_wish(self._client, replace(self._client.wish, tickers=tickers))

    def _refuse(self, code: str, message: str) -> None:
        error = {"type": "error", **failure_fields(code, message)}
        self._broadcaster.write(self._client, websocket_text(json.dumps(error)))

    def _leave(self, closing: Closing) -> None:
        last_words = websocket_frame(WebSocket.OPCODE_CLOSE, struct.pack("!H", closing.close_code))
        self._broadcaster.leave(self._client, last_words, closing.reason)


def _close_code_of(payload: bytes) -> int:
    """The code a client closes with, to be echoed. Raises Closing when it may not be sent."""
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2], "big")
    payload[2:].decode()
    is_defined = code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011) or 3000 <= code < 5000
    if len(payload) < 2 or not is_defined:
        raise Closing(1002)
    return code


# --- the application --------------------------------------------------------------------------------------------------


def create_app(
    watchlist: Watchlist, settings: AccessSettings | None = None, supervisor: Supervisor | None = None
) -> Flask:
    """Flask and Connect beside each other, behind the checks of who may call."""
    supervisor = supervisor or Supervisor(watchlist.scraper, watchlist.broadcaster)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["pluto"] = watchlist
    app.extensions["supervisor"] = supervisor
    app.register_blueprint(routes)
    app.register_error_handler(PlutoError, _on_pluto_error)
    app.register_error_handler(WebsocketMismatch, _on_websocket_mismatch)
    app.register_error_handler(HTTPException, _on_http_error)
    connect = ConnectApplication(watchlist, lambda error: ANSWERS[type(error)].connect)
    flask = app.wsgi_app

    def is_connect(environ: WSGIEnvironment) -> bool:
        return cast(str, environ["PATH_INFO"]).startswith(connect.path)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return connect(environ, start_response) if is_connect(environ) else flask(environ, start_response)

    def refuse(error: PlutoError, environ: WSGIEnvironment) -> WSGIApplication:
        return _on_connect_error(error) if is_connect(environ) else _on_pluto_error(error)

    additions = frozenset({"/api/tickers", f"{connect.path}AddTicker"})
    checked = Access(application, settings or Settings().for_access("127.0.0.1"), refuse, additions)
    app.extensions["access"] = checked
    app.extensions["pluto.metrics"] = Metrics(watchlist, checked.refused, supervisor.counters)
    app.wsgi_app = checked  # type: ignore[method-assign]
    return app


class Simulator:
    """The simulator's process, for as long as Pluto runs: it ends when the pipe to it closes, however Pluto ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROJECT / "simulator.py"), "--port", "0", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is Pluto's to handle
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("simulator: "):
            raise SimulatorFailed("The simulator didn't start; what it printed above says why.")
        self.url = line.split()[1]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()


class SimulatorFailed(PlutoError):
    code = "simulator_failed"


def main(arguments: list[str]) -> int:
    """Runs Pluto until SIGINT or SIGTERM. Returns the exit code: 0, or after one sentence CANT_START or GAVE_UP."""
    settings = read_settings(arguments)
    os.environ.pop(variable_of("access_token"), None)  # the browser and the simulator have no use for it
    start_logging(settings.log_level, settings.log_format)
    atexit.register(gc.freeze)  # else the interpreter looks for garbage in all libraries before it ends: 0.2 s and more
    sys.setswitchinterval(0.0005)  # else a busy scraper thread keeps the hub waiting for 5 ms at a time
    try:
        run(settings)
    except GaveUp as error:
        _tell(settings, log.critical, f"pluto: {error}", sys.stderr)
        return GAVE_UP
    except (PlutoError, OSError) as error:
        _tell(settings, log.error, f"pluto: {_start_failure(error, settings)}", sys.stderr)
        return CANT_START
    return 0


class GaveUp(PlutoError):
    """Pluto runs no more, and only a new process can help."""

    code = "gave_up"


def _start_failure(error: Exception, settings: Settings) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken: stop what listens there, or choose another with --port."
    return f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."


def run(settings: Settings) -> None:
    """Starts the layers from the bottom up, waits for a signal, stops them from the top down. Raises GaveUp."""
    if settings.browser:
        find_browser(settings.browser)
    gevent.get_hub().print_exception = log_failure  # type: ignore[assignment, method-assign]
    stop: AsyncResult[None] = AsyncResult()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    listener = listen(settings.host, settings.port)
    with ExitStack() as layers:
        source_url = settings.source_url.rstrip("/")
        if settings.demo:
            simulator = Simulator()
            layers.callback(simulator.stop)
            source_url = simulator.url
        broadcaster = Broadcaster(
            max_streams=settings.max_streams, max_streams_per_address=settings.max_streams_per_address
        )
        scraper = Scraper(settings.for_scraper(source_url), broadcaster.put)
        watchlist = Watchlist(scraper, broadcaster, settings)
        access = settings.for_access(listener.getsockname()[0])
        supervisor = Supervisor(scraper, broadcaster)
        server = make_server(listener, create_app(watchlist, access, supervisor), headers=dict(SECURITY_HEADERS))
        scraper.start()
        layers.callback(scraper.stop)
        server.start()
        layers.callback(server.stop, timeout=STOP_GRACE_S)
        broadcaster.start()
        layers.callback(broadcaster.stop)
        layers.callback(scraper.begin_stop)
        supervisor.start(lambda sentence: stop.set_exception(GaveUp(sentence)))
        layers.callback(supervisor.stop)
        watchdog = HubWatchdog(supervisor.counters)
        watchdog.start()
        layers.callback(watchdog.stop)
        for ticker in settings.start_tickers:
            watchlist.add(ticker)
        _announce(settings, listener.getsockname()[1], source_url, "" if settings.access_token else access.token)
        layers.callback(log.info, "stopping")
        stop.get()


def _announce(settings: Settings, port: int, source_url: str, made_token: str) -> None:
    """Says where Pluto is, and the token it made: the only time that one is written anywhere."""
    host = "localhost" if settings.host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::") else settings.host
    mode = "headed" if settings.headed else "headless"
    source = f"SIMULATED, by a simulator at {source_url}" if settings.demo else source_url
    token = (f"  token    {made_token}",) if made_token else ()
    lines = (
        f"Pluto {VERSION}",
        f"  page     http://{host}:{port}",
        *token,
        f"  prices   {source}",
        f"  browser  {mode}",
    )
    _tell(settings, log.info, "\n".join(lines), sys.stdout)


def _tell(settings: Settings, log_it: Callable[..., None], text: str, stream: TextIO) -> None:
    """What a user in front of a terminal is told; where programs read the log, it is a line of that."""
    if settings.log_format == "json":
        log_it("%s", " ".join(text.split()))
    else:
        print(text, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
