"""The web layer: the watchlist, routes, errors as answers, and the start and end of the whole program.

This file owns the watchlist's rules, the REST, SSE and WebSocket surface and the order in which the layers start and
stop. Routes translate, they never decide. Everything here runs on the hub thread, so nothing here may block: the
browser lives on the scraper's thread, the simulator in a process of its own.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import logging
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
from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from gevent.event import Event
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import Header, WebSocket
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from broadcast import (
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
    Wish,
    filter_of,
    interval_of,
    websocket_frame,
    websocket_text,
)
from connect import ConnectApplication
from logs import log_failure, start_logging
from metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from metrics import Metrics
from quotes import InvalidTicker, PlutoError, State, Ticker, TooManyTickers, parse_ticker, wire_fields
from scraper import Scraper, find_browser
from server import MAX_BODY, listen, make_server
from settings import VERSION, Settings, read_settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PROJECT = Path(__file__).parent
MAX_WEBSOCKET_MESSAGE = 4 * 1024
STOP_GRACE_S = 0.3  # for streams to send their last event
# Front ends of the original Pluto Crypto Tracker run there.
CORS_ORIGINS = frozenset({"http://localhost:3000", "http://127.0.0.1:3000"})
CORS_HEADERS = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Content-Type, Last-Event-ID, Connect-Protocol-Version, Connect-Timeout-Ms, Connect-Content-Encoding, "
        "Connect-Accept-Encoding, X-Grpc-Web, X-User-Agent, Grpc-Timeout, Grpc-Encoding, Grpc-Accept-Encoding"
    ),
    "Access-Control-Expose-Headers": (
        "Content-Encoding, Connect-Content-Encoding, Grpc-Encoding, Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin"
    ),
    "Access-Control-Max-Age": "600",
}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

log = logging.getLogger("pluto")


# --- the watchlist ----------------------------------------------------------------------------------------------------


class Watchlist:
    """Which tickers are tracked: the one place that adds and removes them, for every transport."""

    def __init__(self, scraper: Scraper, broadcaster: Broadcaster, settings: Settings) -> None:
        self.scraper, self.broadcaster, self.settings = scraper, broadcaster, settings
        self.started_at = time.time()

    def add(self, ticker: Ticker) -> bool:
        """Tracks a ticker and says whether it is new. Raises TooManyTickers at the cap."""
        if self.broadcaster.entry(ticker) is not None:
            return False
        if len(self.broadcaster.tickers) >= self.settings.max_tickers:
            raise TooManyTickers(
                f"{self.settings.max_tickers} tickers are tracked, the most allowed: remove one, "
                "or start Pluto with a higher --max-tickers."
            )
        self.broadcaster.track(ticker, simulated=self.settings.demo)
        self.scraper.add(ticker)
        return True

    def remove(self, ticker: Ticker) -> bool:
        """Stops tracking a ticker and says whether it was tracked."""
        if self.broadcaster.entry(ticker) is None:
            return False
        self.scraper.remove(ticker)
        self.broadcaster.untrack(ticker)
        return True


# --- errors as answers ------------------------------------------------------------------------------------------------


class NotTracked(PlutoError):
    code = "not_tracked"


class ForbiddenOrigin(PlutoError):
    code = "forbidden_origin"


class NoWebSocket(PlutoError):
    code = "no_websocket"


class Answer(NamedTuple):
    """How an error is said: by HTTP, the WebSocket's handshake included, and by Connect."""

    status: int
    connect: str


ANSWERS: dict[type[PlutoError], Answer] = {
    InvalidTicker: Answer(400, "invalid_argument"),
    InvalidRate: Answer(400, "invalid_argument"),
    ForbiddenOrigin: Answer(403, "permission_denied"),
    NotTracked: Answer(404, "not_found"),
    TooManyTickers: Answer(409, "resource_exhausted"),
    NoWebSocket: Answer(426, "unimplemented"),
    TooManyStreams: Answer(503, "unavailable"),
    ShuttingDown: Answer(503, "unavailable"),
}
RETRY_AFTER_S = "5"  # sent with every 503
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
    response = jsonify(success=False, message=message, code=code)
    response.status_code = status
    return response


def _on_pluto_error(error: PlutoError) -> Response:
    failure = _failure(ANSWERS[type(error)].status, error.code, str(error))
    if failure.status_code == 503:
        failure.headers["Retry-After"] = RETRY_AFTER_S
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


@routes.get("/")
def page() -> str:
    return render_template("index.html", simulated=watchlist().settings.demo, version=VERSION)


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
    is_new = watchlist().add(ticker)
    message = f"{ticker} is tracked now." if is_new else f"{ticker} is tracked already."
    return jsonify(success=True, message=message, ticker=_price(ticker)), 201 if is_new else 200


@routes.delete("/api/tickers/<text>")
def remove_ticker(text: str) -> Response:
    ticker = parse_ticker(text)
    was_tracked = watchlist().remove(ticker)
    return jsonify(
        success=True, message=f"{ticker} is no longer tracked." if was_tracked else f"{ticker} was not tracked."
    )


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
    client = watchlist().broadcaster.admit(_wish(SSE, chunked=hand_over is not None), _last_event_id())
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
    client = broadcaster.admit(_wish(WEBSOCKET), _last_event_id())
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


def _websocket_accept() -> str:
    """The handshake's answer (RFC 6455, 4.2). Raises what is wrong with the question."""
    headers = request.headers
    if (origin := headers.get("Origin")) and not _is_allowed_origin(origin):
        raise ForbiddenOrigin(f"Pages of {origin[:200]} may not read prices here.")
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_key = False
    if not is_key or headers.get("Sec-WebSocket-Version") != "13":
        raise NoWebSocket("The handshake lacks a valid Sec-WebSocket-Key, or Sec-WebSocket-Version: 13.")
    return base64.b64encode(hashlib.sha1((key + WebSocketHandler.GUID).encode()).digest()).decode()


def _is_allowed_origin(origin: str) -> bool:
    return origin in CORS_ORIGINS or origin == f"http://{request.host}"


@routes.get("/health")
def health() -> Response:
    entries = watchlist().broadcaster.entries
    states = {state: sum(entry.quote.state is state for entry in entries) for state in State}
    troubled = states[State.STALE] + states[State.BLOCKED] + states[State.ERROR]
    browser = "running" if watchlist().scraper.has_browser else "down"
    return jsonify(
        status="degraded" if troubled or browser == "down" else "ok",
        browser=browser,
        tickers={state: count for state, count in states.items() if count},
        simulated=watchlist().settings.demo,
        version=VERSION,
        timestamp=_iso_now(),
    )


@routes.get("/livez")
def livez() -> Response:
    return jsonify(status="ok")


@routes.get("/readyz")
def readyz() -> tuple[Response, int]:
    ready = watchlist().scraper.has_browser
    return jsonify(status="ok" if ready else "starting"), 200 if ready else 503


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
            "counters": dict(broadcaster.counters),
        },
        timestamp=_iso_now(),
    )


@routes.get("/metrics")
def metrics() -> Response:
    collected = cast(Metrics, current_app.extensions["pluto.metrics"])
    return Response(collected.text(), content_type=METRICS_CONTENT_TYPE, headers={"Cache-Control": "no-store"})


@routes.get("/openapi.json")
def openapi() -> Response:
    """The REST part, described for programs."""
    return current_app.send_static_file("openapi.json")


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
        error = {"type": "error", "success": False, "message": message, "code": code}
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


def create_app(watchlist: Watchlist) -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["pluto"] = watchlist
    app.extensions["pluto.metrics"] = Metrics(watchlist)
    app.register_blueprint(routes)
    app.register_error_handler(PlutoError, _on_pluto_error)
    app.register_error_handler(WebsocketMismatch, _on_websocket_mismatch)
    app.register_error_handler(HTTPException, _on_http_error)
    app.before_request(_answer_preflight)
    app.after_request(_add_headers)
    connect = ConnectApplication(watchlist, lambda error: ANSWERS[type(error)].connect)
    app.wsgi_app = _beside(connect, app.wsgi_app)  # type: ignore[assignment, method-assign]
    return app


def _beside(connect: ConnectApplication, flask: WSGIApplication) -> WSGIApplication:
    """Connect's calls to Connect, all else to Flask, preflights included; the same headers from both."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(connect.path) or environ["REQUEST_METHOD"] == "OPTIONS":
            return flask(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object]:
            more = {**SECURITY_HEADERS, "Vary": "Origin", **_cors_headers(environ.get("HTTP_ORIGIN"))}
            return start_response(status, [*headers, *more.items()])

        return connect(environ, cast("StartResponse", start))

    return application


def _answer_preflight() -> Response | None:
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return Response(status=204)
    return None


def _add_headers(response: Response) -> Response:
    response.headers.extend(SECURITY_HEADERS)
    response.vary.add("Origin")
    response.headers.extend(_cors_headers(request.headers.get("Origin")))
    return response


def _cors_headers(origin: str | None) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, **CORS_HEADERS} if origin in CORS_ORIGINS else {}


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
    """Runs Pluto until SIGINT or SIGTERM. Returns the exit code: 0, or 1 after one sentence when it can't start."""
    settings = read_settings(arguments)
    start_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(0.0005)  # else a busy scraper thread keeps the hub waiting for 5 ms at a time
    try:
        run(settings)
    except (PlutoError, OSError) as error:
        _tell(settings, log.error, f"pluto: {_start_failure(error, settings)}", sys.stderr)
        return 1
    return 0


def _start_failure(error: Exception, settings: Settings) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken: stop what listens there, or choose another with --port."
    return f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."


def run(settings: Settings) -> None:
    """Starts the layers from the bottom up, waits for a signal, stops them from the top down."""
    if settings.browser:
        find_browser(settings.browser)
    stop = Event()
    gevent.get_hub().print_exception = log_failure  # type: ignore[method-assign, assignment]
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    listener = listen(settings.host, settings.port)
    with ExitStack() as layers:
        source_url = settings.source_url.rstrip("/")
        if settings.demo:
            simulator = Simulator()
            layers.callback(simulator.stop)
            source_url = simulator.url
        broadcaster = Broadcaster(max_streams=settings.max_streams)
        scraper = Scraper(settings.for_scraper(source_url), broadcaster.put)
        watchlist = Watchlist(scraper, broadcaster, settings)
        server = make_server(listener, create_app(watchlist))
        scraper.start()
        layers.callback(scraper.stop)
        server.start()
        layers.callback(server.stop, timeout=STOP_GRACE_S)
        broadcaster.start()
        layers.callback(broadcaster.stop)
        for ticker in settings.start_tickers:
            watchlist.add(ticker)
        _announce(settings, listener.getsockname()[1], source_url)
        stop.wait()
        log.info("stopping")


def _announce(settings: Settings, port: int, source_url: str) -> None:
    host = "localhost" if settings.host in ("127.0.0.1", "localhost", "::1", "0.0.0.0") else settings.host
    mode = "headed" if settings.headed else "headless"
    source = f"SIMULATED, by a simulator at {source_url}" if settings.demo else source_url
    lines = f"Pluto {VERSION}", f"  page     http://{host}:{port}", f"  prices   {source}", f"  browser  {mode}"
    _tell(settings, log.info, "\n".join(lines), sys.stdout)


def _tell(settings: Settings, log_it: Callable[..., None], text: str, stream: TextIO) -> None:
    """What a user in front of a terminal is told; where programs read the log, it is a line of that."""
    if settings.log_format == "json":
        log_it("%s", " ".join(text.split()))
    else:
        print(text, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
