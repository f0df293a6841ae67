"""The HTTP server: connections, what may be said on them, and how a stream's socket is given away.

This file owns what gevent's WSGI server lacks. It knows nothing of tickers, routes or settings. Everything runs on the
hub thread; each connection has a greenlet until its socket is given away.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from broadcast import HAND_OVER, LAST_CHUNK
from connect import HTTP2_PREFACE, refuse_http2

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

MAX_BODY = 64 * 1024
MAX_CONNECTIONS = 1_000  # requests under way at once, streams not counted; more wait in the backlog
BACKLOG = 4096
REFUSAL_GRACE_S = 1.0  # for a client that speaks HTTP/2 to hear that nobody else does

log = logging.getLogger("pluto.server")


class Handler(WSGIHandler):
    """One connection. It can give its socket away after a response's first bytes, and forget it.

    The application calls what it finds under HAND_OVER in the environment, with a function that takes the socket. Only
    plain HTTP/1.1 can do that; elsewhere there is nothing under HAND_OVER.
    """

    _taker: Callable[[socket.socket], None] | None = None

    def handle(self) -> None:
        # With Nagle's algorithm each small answer would wait 40 ms for the acknowledgement of the one before.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        if self.request_version == "HTTP/1.1" and environ["wsgi.url_scheme"] == "http":
            environ[HAND_OVER] = self._hand_over
        return environ

    def read_requestline(self) -> str:
        line: str = super().read_requestline()
        if not line.startswith(HTTP2_PREFACE):
            return line
        self._refuse_http2()
        return ""

    def _refuse_http2(self) -> None:
        """Says so, and reads until the client has gone: to close on unread words would cut ours off."""
        self.socket.settimeout(REFUSAL_GRACE_S)
        with suppress(OSError):
            refuse_http2(self.rfile.read, self.socket.sendall)
            self.socket.shutdown(socket.SHUT_WR)
            for _ in range(MAX_BODY // 4096):
                if not self.rfile.read(4096):
                    break

    def _hand_over(self, taker: Callable[[socket.socket], None]) -> None:
        self._taker = taker

    def process_result(self) -> None:
        """As pywsgi has it, up to the moment when the socket is given away."""
        for data in self.result or ():
            if data or not self.headers_sent:
                self.write(data)
            if self._taker is not None:
                self.close_connection = True
                family, kind = self.socket.family, self.socket.type
                self._taker(socket.socket(family, kind, fileno=self.socket.detach()))
                return
        if not self.headers_sent:
            self.write(b"")
        if self.response_use_chunked:
            self.socket.sendall(LAST_CHUNK)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener: socket.socket = WSGIServer.get_listener((host, port), backlog=BACKLOG, family=family)
    return listener


def make_server(listener: socket.socket, application: WSGIApplication) -> WSGIServer:
    return WSGIServer(
        listener,
        application,
        log=None,
        error_log=log,
        environ={"SERVER_NAME": "localhost"},  # else pywsgi asks the resolver for the machine's own name
        spawn=Pool(MAX_CONNECTIONS),
        handler_class=Handler,
    )
