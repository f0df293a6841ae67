"""The addresses of this TradingView: symbol pages, their files, their sockets.

Owns: what an address leads to. Never does: steer the simulation (see controls.py). Runs in the simulator's one thread,
inside a request.
"""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, current_app, request, send_from_directory
from flask.typing import ResponseReturnValue

from simulator.answers import answer
from simulator.assets import ASSETS, count_assets, make_asset, make_image
from simulator.documents import PAGE_FILES, notice
from simulator.faults import NOT_FOUND
from simulator.quote_socket import QuoteSocket
from simulator.simulation import Simulation
from simulator.sockets import PageSocket, PushSocket
from simulator.symbols import Symbol, Unknown, find_symbol, symbol_of_page

QUOTE_PATH = "/socket.io/websocket"
PUSH_PATH = "/message-pipe-ws/public"  # TradingView's pushstream: no quotes on it
SOCKETS: dict[str, type[PageSocket]] = {QUOTE_PATH: QuoteSocket, PUSH_PATH: PushSocket}

routes = Blueprint("pages", __name__)


def the_simulation() -> Simulation:
    simulation: Simulation = current_app.config["SIMULATION"]
    return simulation


@routes.get("/symbols/<ticker>/")
def show_symbol(ticker: str) -> Response:
    exchange = request.args.get("exchange", "BITSTAMP")
    try:
        symbol = find_symbol(ticker, exchange)
    except Unknown:
        the_simulation().count_load(f"{exchange}:{ticker}"[:64])
        return notice(NOT_FOUND)
    the_simulation().count_load(symbol.name)
    return answer(the_simulation(), symbol)


@routes.get(QUOTE_PATH, websocket=True)
@routes.get(PUSH_PATH, websocket=True)
def attend_socket() -> ResponseReturnValue:
    websocket = request.environ.get("wsgi.websocket")
    if websocket is None:
        return "", 429  # no handshake: so TradingView refuses those who open too many
    socket = SOCKETS[request.path](websocket, page_of(request.environ), the_simulation())
    the_simulation().attend(socket)
    return ""


def page_of(environ: dict[str, Any]) -> Symbol | None:
    """Whose page opens a socket, as `from` in its address says."""
    try:
        return symbol_of_page(parse_qs(environ["QUERY_STRING"])["from"][0])
    except (Unknown, LookupError, ValueError):
        return None


@routes.get("/static/<name>")
def send_page_file(name: str) -> Response:
    return send_from_directory(PAGE_FILES, name, max_age=3600)


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
    weight = the_simulation().weight
    if number >= count_assets(weight).get(name, 0):
        raise Unknown(f"there is no {name}/{number}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(make_asset(name, number, weight), mimetype=ASSETS[name].mimetype, headers=headers)
