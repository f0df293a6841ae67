"""The routes: REST, server-sent events, the page and the figures, each a translation and nothing more.

This file owns the addresses of Pluto and what stands at each: it parses what is asked, calls the layer that decides,
and writes the answer. Everything here runs on the hub thread, so nothing here may block.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, cast

import psutil
from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, request
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as BaseResponse

from broadcast import MAX_RATE, SSE, WEBSOCKET, Format, Stream, Wish, filter_of, interval_of
from quotes import PlutoError, State, Ticker, parse_ticker, wire_fields
from settings import VERSION
from web.access import Access, Unauthenticated
from web.errors import ANSWERS, NeedsRestart, NotReady, NotTracked, NoWebSocket, advise
from web.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from web.metrics import Metrics
from web.parts import Parts
from web.server import Server
from web.supervision import ScraperState
from web.websocket import WebSocketSession, websocket_accept
from web.wsgi import ADDRESS, HAND_OVER, HTTP_SERVER

routes = Blueprint("pluto", __name__)


@dataclass(frozen=True)
class WebParts(Parts):
    """With what the application itself adds."""

    access: Access = field(kw_only=True)
    metrics: Metrics = field(kw_only=True)


def parts() -> WebParts:
    return cast(WebParts, current_app.extensions["pluto"])


@routes.get("/")
def page() -> Response:
    if not parts().access.is_authenticated(request.environ):
        return _login_page()
    return Response(render_template("index.html", simulated=parts().settings.demo, version=VERSION))


@routes.get("/login")
def login() -> BaseResponse:
    return redirect("/", 303)


@routes.post("/login")
def log_in() -> BaseResponse:
    """Opens a session for the right token, and goes on to the page with the query it was asked for with."""
    try:
        cookie = parts().access.log_in(request.form.get("token", ""), request.environ)
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
        simulated=parts().settings.demo,
    )
    error = error or Unauthenticated()
    return advise(Response(shown, ANSWERS[type(error)].status), error)


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
    outcome = parts().watchlist.add(ticker)
    return jsonify(success=True, message=outcome.message, ticker=_price(ticker)), 201 if outcome.has_changed else 200


@routes.delete("/api/tickers/<text>")
def remove_ticker(text: str) -> Response:
    return jsonify(success=True, message=parts().watchlist.remove(parse_ticker(text)).message)


@routes.get("/api/tickers")
def get_tickers() -> Response:
    broadcaster = parts().broadcaster
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
    client = parts().broadcaster.admit(_wish(SSE, chunked=hand_over is not None), _last_event_id(), _address())
    return StreamResponse(
        Stream(parts().broadcaster, client, hand_over),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@routes.get("/api/ws", websocket=True)
def websocket() -> Response:
    """Upgrades the connection; from there the broadcaster sends, and a WebSocketSession takes what the client says."""
    if (hand_over := request.environ.get(HAND_OVER)) is None:
        raise NoWebSocket("WebSocket takes HTTP/1.1 without TLS here; use /api/stream instead.")
    accept = websocket_accept(request.headers)
    broadcaster = parts().broadcaster
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


@routes.get("/health")
def health() -> Response:
    entries = parts().broadcaster.entries
    states = {state: sum(entry.quote.state is state for entry in entries) for state in State}
    troubled = states[State.STALE] + states[State.BLOCKED] + states[State.ERROR]
    browser = "running" if parts().source.has_browser else "down"
    scraper, flushing = parts().supervisor.state, parts().broadcaster.is_flushing
    is_well = not troubled and browser == "running" and scraper is ScraperState.RUNNING and flushing
    return jsonify(
        status="ok" if is_well else "degraded",
        browser=browser,
        **parts().source.health,
        scraper=scraper,
        broadcaster="running" if flushing else "failed",
        tickers={state: count for state, count in states.items() if count},
        simulated=parts().settings.demo,
        version=VERSION,
        timestamp=_iso_now(),
    )


@routes.get("/livez")
def livez() -> Response:
    """Fails only when it helps to start Pluto anew."""
    if (failure := parts().supervisor.failure) is not None:
        raise NeedsRestart(f"Start Pluto anew: {failure}.")
    return jsonify(status="ok")


@routes.get("/readyz")
def readyz() -> Response:
    """Fails while new clients had better go elsewhere."""
    parts().broadcaster.check_room()
    if parts().supervisor.state is not ScraperState.RUNNING:
        raise NotReady(f"The scraper is {parts().supervisor.state}; come back in a moment.")
    if not parts().source.has_browser:
        raise NotReady("There is no browser yet; come back in a moment.")
    return jsonify(status="ok")


@routes.get("/api/performance")
def performance() -> Response:
    broadcaster, source = parts().broadcaster, parts().source
    memory, clients = psutil.Process().memory_info(), broadcaster.clients
    return jsonify(
        scraper={
            "activeTickers": len(broadcaster.tickers),
            "callbacksRegistered": 1,
            "queuedUpdates": broadcaster.waiting,
            "monitoringActive": source.has_browser,
            "counters": dict(source.counters),
        },
        server={
            "activeSSEClients": clients["sse"],
            "queuedBroadcasts": broadcaster.lagging,
            "uptime": round(time.time() - parts().started_at, 3),
            "memoryUsage": {"rss": memory.rss, "vms": memory.vms},
            "clients": dict(clients),
            "handoffDepth": broadcaster.waiting,
            "lagging": broadcaster.lagging,
            "sequence": broadcaster.sequence,
            "flushSecondsMax": round(broadcaster.flush_max_s, 6),
            "latenessSecondsMax": round(broadcaster.lateness_max_s, 6),
            "counters": {**broadcaster.counters, **parts().supervisor.counters},
            "http": _http_figures(),
            "refusedRequests": dict(parts().access.refused),
        },
        timestamp=_iso_now(),
    )


@routes.get("/metrics")
def metrics() -> Response:
    http = _http_figures()
    shown = parts().metrics.text(http.get("connections", 0), http.get("counters", {}))
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
    entry = parts().broadcaster.entry(ticker)
    if entry is None:
        raise NotTracked(f"{ticker} is not tracked; add it with POST /api/tickers.")
    return wire_fields(entry.quote, entry.sequence)


def _iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
