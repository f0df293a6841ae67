"""The HTTP server: connections, how long and how many there may be, and how a stream's socket is given away.

This file owns what gevent's WSGI server lacks: deadlines, counts, refusals, and requests that are whole and well formed
(says `http1`) before the application sees them. It knows nothing of tickers, routes or settings. Everything runs on the
hub thread; each connection has a greenlet until its socket is given away. A connection is in one of three states:

    waiting    for its client: to send a request, or to take an answer. Who has waited longest makes room for others
    answering  the application runs and nothing is sent yet: `max_requests` bounds these
    streaming  an answer without an end: `broadcast` bounds these, and they are no longer counted here
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import gevent
from gevent import GreenletExit
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer
from gevent.timeout import Timeout

from broadcast import LAST_CHUNK
from quotes import failure_fields
from web.connect import HTTP2_PREFACE, refuse_http2
from web.descriptors import left
from web.http1 import Head, Refusal, find_head_end, malformed, parse_head, read_chunked
from web.wsgi import BEGAN_AT, HAND_OVER, HTTP_SERVER, RETRY_AFTER_S

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BACKLOG = 4096
RECEIVE_SIZE = 16 * 1024
MAX_LINGER = 16 * 1024 * 1024  # bytes of a refused request that are read and thrown away
PREFACE_LINE = f"{HTTP2_PREFACE}\r\n".encode()
ACCEPT_PAUSE_S = 0.1  # until accepting is tried again when there is no descriptor left
ACCEPT_LOG_INTERVAL_S = 60.0
IDLE_S = 1.0  # a connection on which nothing was said for so long may be closed for its descriptor
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger("pluto.server")


@dataclass(frozen=True)
class Limits:
    """How long, in seconds, and how many. Sizes are in `http1`."""

    first_byte: float = 10.0  # for a new connection to say anything
    head: float = 10.0  # from its first byte to its last
    body: float = 20.0  # from the head's end to its own
    idle: float = 60.0  # between two requests
    answer: float = 20.0  # for a client to take what is sent at once
    linger: float = 1.0  # for a refused client to hear that it is, and to go
    max_requests: int = 256  # being answered at once
    max_connections: int = 2_000  # streams not counted
    kept_descriptors: int = 0  # that no client gets

    def __post_init__(self) -> None:
        if self.max_connections <= self.max_requests:
            raise ValueError("of more connections than requests, one always waits and can make room")


class Inbox:
    """What a connection's client has said and nobody has read yet. The deadline is for all reads until the next."""

    def __init__(self, connection: socket.socket) -> None:
        self.unread = bytearray()  # bounded by those who read: they refuse what grows too long
        self._connection = connection
        self._deadline = 0.0

    def allow(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def fill(self) -> None:
        """Waits for more. Raises TimeoutError at the deadline, EOFError when the client has said all."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        data = self._connection.recv(RECEIVE_SIZE)
        if not data:
            raise EOFError
        self.unread += data

    def read(self, size: int) -> bytes:
        while len(self.unread) < size:
            self.fill()
        data = bytes(self.unread[:size])
        del self.unread[:size]
        return data

    def read_line(self, limit: int) -> bytes:
        """A line of a chunked body, without its end."""
        while (end := self.unread.find(b"\r\n", 0, limit + 2)) < 0:
            if len(self.unread) > limit + 1 or b"\n" in self.unread:
                raise malformed("A line of a chunked body is too long, or doesn't end with CR LF.")
            self.fill()
        return self.read(end + 2)[:-2]

    def read_head(self) -> bytes | None:
        """A request's head up to its empty line; None when a connection in HTTP/2 begins instead."""
        looked_at = 0
        while not self.unread.startswith(PREFACE_LINE):
            if (end := find_head_end(self.unread, looked_at)) >= 0:
                return self.read(end + 4)[:-4]
            looked_at = len(self.unread)
            self.fill()
        self.read(len(PREFACE_LINE))
        return None


class Handler(WSGIHandler):
    """One connection. It can give its socket away after a response's first bytes, and forget it.

    The application calls what it finds under HAND_OVER in the environment, with a function that takes the socket. Only
    plain HTTP/1.1 can do that; elsewhere there is nothing under HAND_OVER.
    """

    server: Server

    def __init__(self, connection: Any, address: Any, server: Server) -> None:
        # Not pywsgi's own: it would make a buffered file of the socket, and files know no deadline.
        self.socket, self.client_address, self.server = connection, address, server
        self._greenlet = cast("gevent.Greenlet[..., None]", gevent.getcurrent())
        self._inbox = Inbox(connection)
        self._has_answered = False
        self._taker: Callable[[socket.socket], None] | None = None

    def handle(self) -> None:
        """The connection's requests, one after the other, until either side ends it."""
        try:
            # With Nagle's algorithm each small answer would wait 40 ms for the acknowledgement of the one before.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.server.make_room()
            while self._serve():
                self._has_answered = True
        except Refusal as refusal:
            self._refuse(refusal)
        except TimeoutError:
            self._refuse(Refusal(408, "too_slow", "Send the whole request sooner; Pluto waits no longer for the rest."))
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            self.server.forget(self)

    def evict(self) -> None:
        self._greenlet.kill(block=False)

    # --- a request ----------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        """One request. False when it was the last."""
        self.server.wait_for(self)
        if not self._has_begun() or (head := self._read_head()) is None:
            return False
        began_at = time.monotonic()
        body = self._read_body(head)
        self.server.answer(self)
        self.environ = self._environ(head, body, began_at)
        self.application = self.server.application
        self.socket.settimeout(self.server.limits.answer)
        self.handle_one_response()
        self.environ = self.wsgi_input = None  # who is idle keeps no body
        return not self.close_connection

    def _has_begun(self) -> bool:
        """Waits for a request's first byte. A client that never says one needs no answer."""
        limits = self.server.limits
        self._inbox.allow(limits.idle if self._has_answered else limits.first_byte)
        try:
            if not self._inbox.unread:
                self._inbox.fill()
        except TimeoutError:
            self.server.counters["closed: idle" if self._has_answered else "closed: silent"] += 1
            return False
        return True

    def _read_head(self) -> Head | None:
        """The head of a request in HTTP/1, None if it is in HTTP/2."""
        self.requestline = None
        self._inbox.allow(self.server.limits.head)
        raw_head = self._inbox.read_head()
        if raw_head is None:
            self._refuse_http2()
            return None
        self.requestline = raw_head.partition(b"\r\n")[0].decode("latin-1")
        head = parse_head(raw_head)
        self.request_version = head.version
        self.close_connection = not head.keeps_alive
        return head

    def _read_body(self, head: Head) -> bytes:
        if not head.has_body:
            return b""
        self._inbox.allow(self.server.limits.body)
        if head.expects_continue and not self._inbox.unread:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.is_chunked:
            return read_chunked(self._inbox.read_line, self._inbox.read)
        return self._inbox.read(head.content_length or 0)

    def _environ(self, head: Head, body: bytes, began_at: float) -> dict[str, Any]:
        environ: dict[str, Any] = self.server.get_environ()
        for name, value in head.fields.items():
            if "_" not in name:  # else Content_Length would pass for Content-Length
                environ[_environ_name(name)] = value
        environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"] = head.method, head.version
        environ["PATH_INFO"], environ["QUERY_STRING"] = unquote(head.path, "latin-1"), head.query
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, self.client_address[:2])
        if head.is_chunked:  # no longer: the application gets the body whole
            del environ["HTTP_TRANSFER_ENCODING"]
        if head.is_chunked or head.content_length is not None:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = self.wsgi_input = Input(cast("io.BufferedReader", io.BytesIO(body)), len(body))
        environ["wsgi.input_terminated"] = True
        environ[BEGAN_AT] = began_at
        if head.version == "HTTP/1.1" and environ["wsgi.url_scheme"] == "http":
            environ[HAND_OVER] = self._hand_over
        return environ

    # --- its answer ---------------------------------------------------------------------------------------------------

    def _hand_over(self, taker: Callable[[socket.socket], None]) -> None:
        self._taker = taker

    def finalize_headers(self) -> None:
        """The application has answered. From here on it is the client that is waited for."""
        super().finalize_headers()
        if self.provided_content_length is None and not hasattr(self.result, "__len__"):
            self.server.forget(self)
        else:
            self.server.wait_for(self)

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
            self._sendall(LAST_CHUNK)

    def _sendall(self, data: bytes | bytearray) -> None:
        """A client that goes, or takes nothing for too long, is to pywsgi a broken pipe, not worth a traceback."""
        try:
            super()._sendall(data)  # type: ignore[misc]
        except OSError as error:
            if isinstance(error, TimeoutError):
                self.server.counters["closed: stuck"] += 1
            raise BrokenPipeError(errno.EPIPE, "the client takes nothing") from None

    def handle_error(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The application failed, or this connection was evicted while its client was to take the answer."""
        self.close_connection = True
        if isinstance(error, GreenletExit):
            return
        log.error("no answer to %r", self.requestline, exc_info=error)
        if not self.headers_sent:
            self._refuse(Refusal(500, "internal", "Something went wrong inside Pluto; its log says what."))

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Says so, and ends the connection."""
        self.server.counters[f"refused: {refusal.code}"] += 1
        said = (self.requestline or bytes(self._inbox.unread).decode("latin-1")).splitlines()[:1]
        log.debug("refused %s, %s: %.100r", self.client_address, refusal.code, said)  # no more: fields hold secrets
        head, body = self.server.failure(refusal)
        is_head = (self.requestline or "").startswith("HEAD ")
        with suppress(OSError, EOFError):
            self.socket.settimeout(self.server.limits.linger)
            self.socket.sendall(head if is_head else head + body)
            self._linger()

    def _refuse_http2(self) -> None:
        self.server.counters["refused: http2"] += 1
        self._inbox.allow(self.server.limits.linger)
        with suppress(OSError, EOFError):
            refuse_http2(self._inbox.read, self.socket.sendall)
            self._linger()

    def _linger(self) -> None:
        """Reads until the client has gone: to close on unread words would cut ours off."""
        self.socket.shutdown(socket.SHUT_WR)
        self._inbox.allow(self.server.limits.linger)
        for _ in range(MAX_LINGER // RECEIVE_SIZE):
            self._inbox.unread.clear()
            self._inbox.fill()


@lru_cache(256)
def _environ_name(field: str) -> str:
    name = field.replace("-", "_").upper()
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class Server(WSGIServer):
    """All connections. `counters` say what was refused or closed, and why; `headers` go with every refusal."""

    def __init__(
        self,
        listener: socket.socket,
        application: WSGIApplication,
        *,
        headers: Mapping[str, str],
        limits: Limits,
        **tls: Any,
    ) -> None:
        super().__init__(
            cast("Any", listener),
            application,
            log=None,
            error_log=log,
            environ={"SERVER_NAME": "localhost"},  # else pywsgi asks the resolver for the machine's own name
            spawn=Pool(),  # unbounded: make_room bounds connections
            handler_class=Handler,
            **tls,
        )
        self.limits, self.counters = limits, Counter[str]()
        self._headers = dict(headers)
        self._waiting: dict[Handler, float] = {}  # since when; who waits longest comes first
        self._answering: set[Handler] = set()
        self._log_accept_after = 0.0
        self.environ[HTTP_SERVER] = self

    @property
    def connections(self) -> int:
        """Streams not counted."""
        return len(self._waiting) + len(self._answering)

    def make_room(self) -> None:
        """For one more connection: the one that has waited longest for its client goes."""
        if self.connections >= self.limits.max_connections:
            self._evict()

    def wait_for(self, handler: Handler) -> None:
        self.forget(handler)
        self._waiting[handler] = time.monotonic()

    def answer(self, handler: Handler) -> None:
        """Raises Refusal when enough are being answered."""
        if len(self._answering) >= self.limits.max_requests:
            raise Refusal(503, "too_many_requests", "Pluto is answering as many requests as it can; come back later.")
        self.forget(handler)
        self._answering.add(handler)

    def forget(self, handler: Handler) -> None:
        self._waiting.pop(handler, None)
        self._answering.discard(handler)

    def failure(self, refusal: Refusal) -> tuple[bytes, bytes]:
        """A refusal as an answer: head and body."""
        body = json.dumps(failure_fields(refusal.code, refusal.message)).encode()
        headers = {"Date": formatdate(usegmt=True), "Connection": "close"}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = RETRY_AFTER_S
        lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **self._headers}.items()]
        return "\r\n".join([*lines, "\r\n"]).encode(), body

    def _evict(self, waited_s: float = 0.0) -> bool:
        """Closes the connection that has waited longest for its client, if for so long. Says whether it did."""
        oldest, since = next(iter(self._waiting.items()), (None, 0.0))
        if oldest is None or time.monotonic() - since < waited_s:
            return False
        self.forget(oldest)
        oldest.evict()
        self.counters["closed: evicted"] += 1
        return True

    # --- accepting ----------------------------------------------------------------------------------------------------

    def wrap_socket_and_handle(self, connection: Any, address: Any) -> None:
        """As gevent has it; but a handshake has a deadline, and one that fails is no traceback."""
        try:
            with Timeout(self.limits.first_byte, TimeoutError):
                tls_connection = self.wrap_socket(connection, **self.ssl_args)  # type: ignore[misc, arg-type]
        except OSError:
            self.counters["closed: no TLS"] += 1
            return
        with tls_connection:
            self.handle(tls_connection, address)

    def do_read(self) -> Any:
        """As gevent has it; but it would print a traceback at each try while there is no descriptor left.

        Some are left for what isn't a client: a browser that died must be started again.
        """
        try:
            if self.limits.kept_descriptors and left(self.socket.fileno()) <= self.limits.kept_descriptors:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().do_read()
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
            self._on_no_descriptor(error)
            return None

    def _on_no_descriptor(self, error: OSError) -> None:
        self.counters["accept failed"] += 1
        if time.monotonic() >= self._log_accept_after:
            self._log_accept_after = time.monotonic() + ACCEPT_LOG_INTERVAL_S
            log.warning("can't accept connections (%s): raise the limit of open files, ulimit -n", error.strerror)
        if self._evict(IDLE_S):  # so there is one soon
            return
        self.stop_accepting()
        self._timer = self.loop.timer(ACCEPT_PAUSE_S)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener: socket.socket = WSGIServer.get_listener((host, port), backlog=BACKLOG, family=family)
    return listener


def make_server(
    listener: socket.socket,
    application: WSGIApplication,
    *,
    headers: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    **tls: Any,
) -> Server:
    return Server(listener, application, headers=headers or {}, limits=limits or Limits(), **tls)
