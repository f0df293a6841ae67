"""The simulator's server: pywsgi with WebSockets, and the Flask application behind it.

Owns: how connections are accepted and errors answered. Never does: start or end by itself (see __main__.py). Runs in
the simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
from flask import Flask
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from werkzeug.exceptions import HTTPException

from simulator.controls import BadOrder, controls
from simulator.documents import PAGE_FILES
from simulator.routes import QUOTE_PATH, SOCKETS, page_of, refusal, routes
from simulator.simulation import Simulation
from simulator.symbols import Unknown


class SimulatorServer(WSGIServer):
    """Accepts WebSockets only on their own paths. The library alone would accept them on any path."""

    logger = logging.getLogger("geventwebsocket")

    def __init__(self, host: str, port: int, simulation: Simulation) -> None:
        self._simulation = simulation
        super().__init__(
            (host, port),
            create_app(simulation),
            log=None,
            handler_class=WebSocketHandler,
            environ={"SERVER_NAME": host},  # else pywsgi looks up its own name at the start
        )

    def handle(self, sock: gevent.socket.socket, address: Any) -> None:
        """Sets TCP_NODELAY: else the kernel holds each packet until the one before is acknowledged, up to 40 ms."""
        sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        super().handle(sock, address)

    def pre_start_hook(self, handler: WebSocketHandler) -> bool:
        """Returns True if Flask shall answer the request, because the socket is refused."""
        path = handler.environ["PATH_INFO"]
        refused = path == QUOTE_PATH and refusal(self._simulation, page_of(handler.environ))
        return path not in SOCKETS or bool(refused)


def create_app(simulation: Simulation) -> Flask:
    app = Flask(__name__, static_folder=None, template_folder=PAGE_FILES)
    app.config.update(SIMULATION=simulation)
    app.register_blueprint(routes)
    app.register_blueprint(controls)
    app.register_error_handler(BadOrder, lambda error: ({"message": str(error)}, 400))
    app.register_error_handler(Unknown, lambda error: ({"message": str(error)}, 404))
    app.register_error_handler(HTTPException, lambda error: ({"message": error.description}, error.code))
    return app
