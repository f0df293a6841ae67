"""The addresses of this TradingView: symbol pages, their files, their sockets.

Owns: the answer to each address. Never does: control the simulation (controls.py does). Runs in the simulator's one
thread, inside a request.
"""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import parse_qs, quote

import gevent
from flask import Blueprint, Response, current_app, render_template, request, send_from_directory
from flask.typing import ResponseReturnValue

from simulator.answers import FRAME_PATH, answer, redirect
from simulator.documents import PAGE_FILES, notice
from simulator.faults import NOT_FOUND
from simulator.quote_socket import QuoteSocket
from simulator.replay_socket import ReplaySocket
from simulator.simulation import Simulation
from simulator.sockets import PageSocket, PushSocket
from simulator.symbols import RENAMED, Symbol, Unknown, find_symbol, symbol_of_page
from simulator.weight import ASSETS, count_assets, make_asset, make_image

QUOTE_PATH = "/socket.io/websocket"
PUSH_PATH = "/message-pipe-ws/public"  # of TradingView's pushstream, which has no quotes
SOCKETS: dict[str, type[PageSocket]] = {QUOTE_PATH: QuoteSocket, PUSH_PATH: PushSocket}
REFUSALS = {"closed": 429, "refused_429": 429, "refused_403": 403}
LATEST_MS = 60_000

routes = Blueprint("pages", __name__)


def the_simulation() -> Simulation:
    simulation: Simulation = current_app.config["SIMULATION"]
    return simulation


@routes.get("/symbols/<path:ticker>/")
def show_symbol(ticker: str) -> Response:
    exchange = request.args.get("exchange", "BITSTAMP")
    try:
        symbol = find_symbol(ticker, exchange)
    except Unknown:
        the_simulation().count_load(f"{exchange}:{ticker}"[:64])
        if ticker in RENAMED:
            return redirect(f"/symbols/{RENAMED[ticker]}/?exchange={quote(exchange)}")
        return notice(NOT_FOUND)
    the_simulation().count_load(symbol.name)
    return answer(the_simulation(), symbol)


@routes.get(QUOTE_PATH, websocket=True)
@routes.get(PUSH_PATH, websocket=True)
def attend_socket() -> ResponseReturnValue:
    """Serves a socket until it ends, or refuses it without a handshake, as TradingView does."""
    page, websocket = page_of(request.environ), request.environ.get("wsgi.websocket")
    if request.path == QUOTE_PATH:
        the_simulation().count_upgrade(page)
    if websocket is None:
        return "", refusal(the_simulation(), page) or 429
    the_simulation().attend(make_socket(websocket, page))
    return ""


def make_socket(websocket: Any, page: Symbol | None) -> PageSocket:
    recording = the_simulation().recordings.get(page) if page else None
    if page and recording and recording.messages and request.path == QUOTE_PATH:
        return ReplaySocket(websocket, page, the_simulation(), recording)
    return SOCKETS[request.path](websocket, page, the_simulation())


def refusal(simulation: Simulation, page: Symbol | None) -> int:
    """The HTTP status with which that page's quote socket is refused; 0: it isn't refused."""
    fault = simulation.first(page, lambda fault: fault.socket in REFUSALS)
    return REFUSALS[fault.socket] if fault else 0


def page_of(environ: dict[str, Any]) -> Symbol | None:
    """The symbol whose page opens a socket: `from` in the socket's address names it."""
    try:
        return symbol_of_page(parse_qs(environ["QUERY_STRING"])["from"][0])
    except (Unknown, LookupError, ValueError):
        return None


@routes.get("/static/<name>")
def send_page_file(name: str) -> Response:
    return send_from_directory(PAGE_FILES, name, max_age=3600)


@routes.get("/static/late")
def send_late_script() -> Response:
    """A script that comes late: the document waits for it."""
    gevent.sleep(min(request.args.get("ms", 0, type=int), LATEST_MS) / 1000)
    return Response("", mimetype="text/javascript", headers={"Cache-Control": "no-store"})


@routes.get(FRAME_PATH)
def send_challenge_frame() -> str:
    return render_template("challenge_frame.html")


@routes.get("/favicon.ico")
def send_icon() -> Response:
    return Response(make_image(random.Random("icon"), 16 * 16 * 3), mimetype="image/bmp")


@routes.get("/robots.txt")
def send_robots() -> Response:
    return Response("User-agent: *\nAllow: /\n", mimetype="text/plain")


@routes.post("/telemetry")
def take_telemetry() -> ResponseReturnValue:
    return "", 204


@routes.get("/static/<name>/<int:number>")
def send_asset(name: str, number: int) -> Response:
    weight = the_simulation().options.weight
    if number >= count_assets(weight).get(name, 0):
        raise Unknown(f"there is no {name}/{number}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(make_asset(name, number, weight), mimetype=ASSETS[name].mimetype, headers=headers)
