"""The routes: REST, streams, the page and the figures. Each route only translates.

This file owns all addresses but those of Connect, of what is kept (history.py) and of alerts (alerts.py): it parses the
request, calls the part that decides, and writes the answer, also that of a failure. It decides nothing. Everything here
runs on the hub thread, so nothing here may block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, cast
from urllib.parse import unquote

from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed
from werkzeug.routing import UnicodeConverter
from werkzeug.routing.exceptions import WebsocketMismatch
from werkzeug.wrappers import Response as BaseResponse

from broadcast import MAX_RATE, Format, Subscription, filter_of, interval_of
from quotes import PlutoError, Quote, SourceState, State, Ticker, parse_ticker, wire_fields
from store import StoreState
from watchlist import NotTracked
from web.board import COLUMNS, MAX_COLUMNS, MAX_ROWS, MIN_COLUMNS, MIN_ROWS, board_format, size_of
from web.errors import CODES, NeedsRestart, NotReady, NoWebSocket, Unauthenticated, answer, failure
from web.formats import SSE, WEBSOCKET
from web.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from web.metrics import Figures, performance, prometheus_text
from web.parts import Parts
from web.reading import on_pool, until_kept
from web.stream import Stream
from web.supervision import ScraperState
from web.websocket import WebSocketSession, websocket_accept
from web.wsgi import ADDRESS, HAND_OVER, HTTP_FIGURES

BOARD_RATE = 5.0  # frames a second that a board in a terminal gets unless it asks for another rate

routes = Blueprint("pluto", __name__)


def parts() -> Parts:
    return cast(Parts, current_app.extensions["pluto"])


class Segment(UnicodeConverter):
    """A variable segment of a path. The server leaves %2F in it as it is, so that a bare slash always ends it."""

    def to_python(self, value: str) -> str:
        return unquote(value)


# --- the page ---------------------------------------------------------------------------------------------------------


@routes.get("/")
def page() -> BaseResponse:
    if not parts().access.is_authenticated(request.environ):
        return _login_page()
    settings = parts().settings
    return Response(render_template("index.html", simulated=settings.demo, version=settings.version))


@routes.get("/login")
def login() -> BaseResponse:
    return redirect("/", 303)


@routes.post("/login")
def log_in() -> BaseResponse:
    """Opens a session if the token is right, and redirects to the page with the same query."""
    try:
        cookie = parts().access.log_in(request.form.get("token", ""), request.environ)
    except PlutoError as error:
        return _login_page(error)
    response = redirect("/" + _query(), 303)
    response.headers["Set-Cookie"] = cookie
    return response


def _login_page(error: PlutoError | None = None) -> BaseResponse:
    """The login form. A browser that follows a link from another site sends no cookie: the form then asks again."""
    shown = render_template(
        "login.html",
        action="/login" + _query(),
        message=str(error or ""),
        again=request.headers.get("Sec-Fetch-Site") == "cross-site",
        simulated=parts().settings.demo,
    )
    response = answer(error or Unauthenticated())
    response.set_data(shown)
    response.content_type = "text/html; charset=utf-8"
    return response


def _query() -> str:
    query = request.query_string.decode("ascii", "ignore")
    return f"?{query}" if query else ""


@routes.get("/vendor/lightweight-charts.js")
def chart_script() -> Response:
    """TradingView's open-source chart library, from the package litecharts."""
    return Response(
        _chart_script(), content_type="text/javascript; charset=utf-8", headers={"Cache-Control": "max-age=86400"}
    )


@cache
def _chart_script() -> bytes:
    return (resources.files("litecharts") / "js" / "lightweight-charts.js").read_bytes()


# --- tickers ----------------------------------------------------------------------------------------------------------


@routes.post("/api/tickers")
def add_ticker() -> tuple[Response, int]:
    """`understood` is the ticker, if the text was written in another way."""
    text = json_object().get("ticker")
    ticker = parse_ticker(text)
    outcome = parts().watchlist.add(ticker)
    answer: dict[str, Any] = {"success": True, "message": outcome.message, "ticker": wire_fields(*_entry(ticker))}
    if str(text).strip().upper() != ticker:
        answer["understood"] = ticker
    until_kept(parts().store)
    return jsonify(answer), 201 if outcome.has_changed else 200


@routes.delete("/api/tickers/<text>")
def remove_ticker(text: str) -> Response:
    message = parts().watchlist.remove(parse_ticker(text)).message
    until_kept(parts().store)
    return jsonify(success=True, message=message)


@routes.get("/api/tickers")
def get_tickers() -> Response:
    entries = parts().broadcaster.table.entries
    prices = [wire_fields(entry.quote, entry.number) for entry in entries]
    return jsonify(tickers=[entry.quote.ticker for entry in entries], prices=prices)


@routes.get("/api/tickers/<text>")
def get_ticker(text: str) -> Response:
    """`proposals` are tickers to track instead, while TradingView has no such symbol or shows another one."""
    quote, sequence = _entry(parse_ticker(text))
    proposals = quote.proposals
    return jsonify(**wire_fields(quote, sequence), **({"proposals": proposals} if proposals else {}))


@routes.get("/api/tickers/<text>/why")
def why_ticker(text: str) -> Response:
    """What the ticker's page has told. The source is asked on a thread of its own: it may take a while."""
    ticker = parse_ticker(text)
    source = parts().source
    if (told := on_pool(lambda: source.why(ticker))) is None:
        raise NotTracked(ticker)
    return jsonify(told)


@routes.post("/api/tickers/<text>/retry")
def retry_ticker(text: str) -> Response:
    ticker = parse_ticker(text)
    parts().watchlist.check(ticker)
    source = parts().source
    return jsonify(success=True, message=on_pool(lambda: source.retry(ticker)))


def json_body() -> Any:
    """What the request's JSON says. Raises BadRequest."""
    try:
        return request.get_json()
    except RecursionError:  # thousands of brackets
        raise BadRequest from None


def json_object() -> dict[str, Any]:
    """The same, of a body that must be an object."""
    if not isinstance(body := json_body(), dict):
        raise BadRequest
    return body


def _entry(ticker: Ticker) -> tuple[Quote, int]:
    """The ticker's quote and its sequence. Raises NotTracked."""
    entry = parts().broadcaster.table.entry(ticker)
    if entry is None:
        raise NotTracked(ticker)
    return entry.quote, entry.number


# --- streams ----------------------------------------------------------------------------------------------------------


class StreamResponse(Response):
    """A response whose body is a Stream. Werkzeug drops the body of a 101, and doesn't close the body of a HEAD."""

    def get_app_iter(self, environ: dict[str, Any]) -> Iterable[bytes]:
        stream = cast(Stream, self.response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return stream
        stream.close()
        return ()


@routes.get("/api/stream")
def stream() -> Response:
    hand_over = request.environ.get(HAND_OVER)
    subscription = _subscription(SSE, chunked=hand_over is not None)
    client = parts().broadcaster.clients.admit(subscription, _last_event_id(), _address())
    return StreamResponse(
        Stream(client, hand_over),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@routes.get("/api/ws", websocket=True)
def websocket() -> Response:
    """Upgrades the connection. Then the broadcaster writes to it, and a WebSocketSession reads from it."""
    if (hand_over := request.environ.get(HAND_OVER)) is None:
        raise NoWebSocket("Use HTTP/1.1 for a WebSocket, or use /api/stream.")
    accept = websocket_accept(request.headers)
    client = parts().broadcaster.clients.admit(_subscription(WEBSOCKET), _last_event_id(), _address())
    client.receive = WebSocketSession(client, parts().settings.max_tickers).receive
    return StreamResponse(
        Stream(client, hand_over),
        status=101,
        headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept},
    )


@routes.get("/board")
def board() -> Response:
    """The board as text for a terminal: printed once, or with ?live kept up to date in place."""
    wants, is_live = request.args, "live" in request.args
    columns = size_of(wants.get("columns", str(COLUMNS)), MIN_COLUMNS, MAX_COLUMNS)
    rows = size_of(wants["rows"], MIN_ROWS, MAX_ROWS) if "rows" in wants else None
    format = board_format(columns, rows, is_plain="plain" in wants, is_live=is_live)
    subscription = _subscription(format, BOARD_RATE, chunked=is_live and HAND_OVER in request.environ)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    text = "text/plain; charset=utf-8"
    if not is_live:
        shown = parts().broadcaster.clients.frames.first_payload(subscription, None)
        return Response(shown, content_type=text, headers=headers)
    client = parts().broadcaster.clients.admit(subscription, "", _address())
    return StreamResponse(Stream(client, request.environ.get(HAND_OVER)), content_type=text, headers=headers)


def _subscription(format: Format, max_rate: float = MAX_RATE, *, chunked: bool = False) -> Subscription:
    """What the query asks for."""
    tickers = filter_of(request.args.getlist("tickers") + request.args.getlist("ticker"), parts().settings.max_tickers)
    return Subscription(format, tickers, interval_of(request.args.get("max_rate", max_rate)), chunked)


def _last_event_id() -> str:
    return request.headers.get("Last-Event-ID") or request.args.get("lastEventId", "")


def _address() -> str:
    """The address for which the caller's streams are counted."""
    return cast(str, request.environ.get(ADDRESS, ""))


# --- health and figures -----------------------------------------------------------------------------------------------


@routes.get("/health")
def health() -> Response:
    states = Counter(entry.quote.state for entry in parts().broadcaster.table.entries)
    troubled = states[State.STALE] + states[State.BLOCKED] + states[State.ERROR]
    source, supervisor, store = parts().source, parts().supervisor, parts().store
    is_running, flushing = source.state is SourceState.RUNNING, parts().broadcaster.is_flushing
    is_well = not troubled and is_running and supervisor.state is ScraperState.RUNNING and flushing
    is_well = is_well and store.state is not StoreState.DEGRADED and source.health.get("redis") != "down"
    browser = {"browser": "running" if is_running else "down"} if parts().settings.role != "web" else {}
    place = parts().place
    return jsonify(
        status="ok" if is_well else "degraded",
        **({} if place is None else {"worker": place.name}),
        **browser,
        **source.health,
        **{supervisor.name: supervisor.state},
        broadcaster="running" if flushing else "failed",
        **store.health,
        tickers={state: states[state] for state in State if states[state]},
        simulated=parts().settings.demo,
        version=parts().settings.version,
        timestamp=_iso_now(),
    )


@routes.get("/livez")
def livez() -> Response:
    """Fails only if a restart of Pluto would help."""
    if (failure := parts().supervisor.failure) is not None:
        raise NeedsRestart(f"Restart Pluto: {failure}.")
    return jsonify(status="ok")


@routes.get("/readyz")
def readyz() -> Response:
    """Fails while new clients should wait."""
    parts().broadcaster.clients.check_room()
    if parts().supervisor.state is not ScraperState.RUNNING:
        raise NotReady(f"Try again in a moment: the {parts().supervisor.name} is {parts().supervisor.state}.")
    if parts().source.state is not SourceState.RUNNING:
        why = relay.trouble if (relay := parts().relay) is not None else ""
        raise NotReady(f"Try again in a moment: {why or 'there is no browser yet'}.")
    if (simulator := parts().simulator) is not None and not simulator.is_running:
        raise NotReady("Try again in a moment: the simulator has ended, and Pluto starts it again.")
    return jsonify(status="ok")


@routes.get("/api/performance")
def performance_figures() -> Response:
    return jsonify(**performance(_figures()), timestamp=_iso_now())


@routes.get("/metrics")
def metrics() -> Response:
    shown = prometheus_text(_figures())
    return Response(shown, content_type=METRICS_CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def _figures() -> Figures:
    read_http = request.environ.get(HTTP_FIGURES, dict)
    return Figures(parts(), read_http())


def _iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@routes.get("/openapi.json")
def openapi() -> Response:
    """The description of all addresses but those of Connect, for programs."""
    return current_app.send_static_file("openapi.json")


# --- failures ---------------------------------------------------------------------------------------------------------


routes.app_errorhandler(PlutoError)(answer)


@routes.app_errorhandler(WebsocketMismatch)
def answer_websocket_mismatch(_: WebsocketMismatch) -> BaseResponse:
    return answer(NoWebSocket("Connect to /api/ws with ws://. No other address is a WebSocket."))


@routes.app_errorhandler(HTTPException)
def answer_http_error(error: HTTPException) -> BaseResponse:
    """Flask's own errors, with the code and the message of the table."""
    if error.code is not None and error.code < 400:
        return error.get_response()
    message = ""
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        message = f"Use {' or '.join(sorted(error.valid_methods))} at this address."
    response = failure(CODES.get(error.code or 500, "bad_request"), message)
    response.headers.extend((name, value) for name, value in error.get_headers() if name in ("Allow", "Content-Range"))
    return response
