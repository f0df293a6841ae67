"""The HTTP server: connections, deadlines, limits, and the moment at which a stream's socket is passed on.

This file owns what gevent's WSGI server lacks: deadlines, a limit on connections, refusals, and requests that are
complete and well formed (`http1` decides) before the application sees them. It knows nothing of tickers, routes or
settings. Everything runs on the hub thread. Each connection has a greenlet until its socket is passed on. A connection
is in one of two states:

    waiting    for its client, which has to send a request or to read an answer. If there are too many connections, the
               server closes the one that has waited longest. The application never waits, so its time doesn't count
    streaming  it has an answer without an end: `broadcast` limits these, and the server no longer counts them
"""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import gevent
from gevent import GreenletExit
from gevent import socket as hub_socket
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from web.descriptors import left
from web.errors import ANSWERS, failure_headers, failure_json
from web.http1 import Head, Refusal, find_head_end, malformed, parse_head, read_chunked
from web.wsgi import BEGAN_AT, HAND_OVER, HTTP_FIGURES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BACKLOG = 4096
RECEIVE_SIZE = 16 * 1024
MAX_LINGER = 16 * 1024 * 1024  # bytes of a refused request that the server reads and drops
ACCEPT_PAUSE_S = 0.1  # before the next try to accept when no descriptor is left
ACCEPT_LOG_INTERVAL_S = 60.0
IDLE_S = 1.0  # a connection that has been idle for this long may be closed for its descriptor
KEEP_ALIVE = {  # of TCP, by the names of the socket option
    ("TCP_KEEPIDLE", "TCP_KEEPALIVE"): 15,  # seconds of silence before the first probe; the second name is macOS's
    ("TCP_KEEPINTVL",): 5,  # seconds between probes
    ("TCP_KEEPCNT",): 3,  # probes without an answer that end the connection
}
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger("pluto.server")


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and the number of connections. `http1` has the sizes."""

    first_byte: float = 10.0  # from the start of a connection to its first byte
    head: float = 10.0  # from the first byte of a request to the end of its head
    body: float = 20.0  # from the end of the head to the end of the body
    idle: float = 60.0  # between two requests
    answer: float = 20.0  # for the client to read an answer
    linger: float = 1.0  # for a refused client to read the refusal and to close
    max_connections: int = 2_000  # streams not counted
    kept_descriptors: int = 0  # that no client gets


class Inbox:
    """The bytes that a client has sent and nobody has read yet. One deadline holds for all reads until the next one."""

    def __init__(self, connection: socket.socket) -> None:
        self.unread = bytearray()  # bounded by its readers: they refuse requests that grow too long
        self._connection = connection
        self._deadline = 0.0

    def allow(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def fill(self) -> None:
        """Waits for more bytes. Raises TimeoutError at the deadline, EOFError when the client has closed its side."""
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
        """A line of a chunked body, without its CR LF."""
        while (end := self.unread.find(b"\r\n", 0, limit + 2)) < 0:
            if len(self.unread) > limit + 1 or b"\n" in self.unread:
                raise malformed(f"End each line of a chunked body with CR LF, after at most {limit} bytes.")
            self.fill()
        return self.read(end + 2)[:-2]

    def read_head(self) -> bytes:
        """A request's head, without the empty line after it."""
        looked_at = 0
        while (end := find_head_end(self.unread, looked_at)) < 0:
            looked_at = len(self.unread)
            self.fill()
        return self.read(end + 4)[:-4]


class Handler(WSGIHandler):
    """One connection. After a response's first bytes it can pass its socket on and forget it.

    For this, the application calls the function under HAND_OVER in the environment, with the function that takes the
    socket. A request in HTTP/1.0 can't do that: its environment has no HAND_OVER.
    """

    server: Server

    def __init__(self, connection: Any, address: Any, server: Server) -> None:
        # Without pywsgi's own __init__: it would make a buffered file of the socket, and files have no deadline.
        self.socket, self.client_address, self.server = connection, address, server
        self._greenlet = cast("gevent.Greenlet[..., None]", gevent.getcurrent())
        self._inbox = Inbox(connection)
        self._has_answered = False
        self._taker: Callable[[socket.socket], None] | None = None

    def handle(self) -> None:
        """Serves the connection's requests one after the other, until either side ends it."""
        try:
            # With Nagle's algorithm, each small answer would wait 40 ms for the acknowledgement of the one before.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(self.socket)
            self.server.make_room()
            while self._serve():
                self._has_answered = True
        except Refusal as refusal:
            self._refuse(refusal)
        except TimeoutError:
            self._refuse(Refusal("too_slow", "Request timed out: the rest of the request did not arrive in time."))
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            self.server.forget(self)

    def evict(self) -> None:
        self._greenlet.kill(block=False)

    # --- a request ----------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        """Serves one request. Returns False after the last one."""
        self.server.wait_for(self)
        if not self._has_begun():
            return False
        head = self._read_head()
        began_at = time.monotonic()
        self.environ = self._environ(head, self._read_body(head), began_at)
        self.application = self.server.application
        self.socket.settimeout(self.server.limits.answer)
        self.handle_one_response()
        self.environ = self.wsgi_input = None  # an idle connection holds no body
        return not self.close_connection

    def _has_begun(self) -> bool:
        """Waits for a request's first byte. A client that never sends one gets no answer."""
        limits = self.server.limits
        self._inbox.allow(limits.idle if self._has_answered else limits.first_byte)
        try:
            if not self._inbox.unread:
                self._inbox.fill()
        except TimeoutError:
            self.server.counters["closed: idle" if self._has_answered else "closed: silent"] += 1
            return False
        return True

    def _read_head(self) -> Head:
        self.requestline = None
        self._inbox.allow(self.server.limits.head)
        raw_head = self._inbox.read_head()
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
            if "_" not in name:  # otherwise Content_Length would pass for Content-Length
                environ[_environ_name(name)] = value
        environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"] = head.method, head.version
        environ["PATH_INFO"], environ["QUERY_STRING"] = _decoded(head.path), head.query
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, self.client_address[:2])
        if head.is_chunked:  # the application gets the body as a whole
            del environ["HTTP_TRANSFER_ENCODING"]
        if head.is_chunked or head.content_length is not None:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = self.wsgi_input = Input(cast("io.BufferedReader", io.BytesIO(body)), len(body))
        environ["wsgi.input_terminated"] = True
        environ[BEGAN_AT] = began_at
        if head.version == "HTTP/1.1":
            environ[HAND_OVER] = self._hand_over
        return environ

    # --- its answer ---------------------------------------------------------------------------------------------------

    def _hand_over(self, taker: Callable[[socket.socket], None]) -> None:
        self._taker = taker

    def finalize_headers(self) -> None:
        """The application has answered. From now on the connection waits for its client to read the answer."""
        super().finalize_headers()
        if self.provided_content_length is None and not hasattr(self.result, "__len__"):
            self.server.forget(self)
        else:
            self.server.wait_for(self)

    def process_result(self) -> None:
        """Does the same as pywsgi, until the moment at which the socket is passed on."""
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
            self._sendall(b"0\r\n\r\n")

    def _sendall(self, data: bytes | bytearray) -> None:
        """Reports a client that has gone or reads nothing as a broken pipe, which pywsgi ends without a traceback."""
        try:
            super()._sendall(data)  # type: ignore[misc]
        except OSError as error:
            if isinstance(error, TimeoutError):
                self.server.counters["closed: stuck"] += 1
            raise BrokenPipeError(errno.EPIPE, "the client reads nothing") from None

    def handle_error(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The application failed, or the server closed this connection while its client read the answer."""
        self.close_connection = True
        if isinstance(error, GreenletExit):
            return
        log.error("no answer to %r", self.requestline, exc_info=error)
        if not self.headers_sent:
            self._refuse(Refusal("internal", ANSWERS["internal"].message))

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Sends the refusal and ends the connection."""
        self.server.counters[f"refused: {refusal.code}"] += 1
        said = (self.requestline or bytes(self._inbox.unread).decode("latin-1")).splitlines()[:1]
        log.debug("refused %s, %s: %.100r", self.client_address, refusal.code, said)  # no headers: they hold secrets
        head, body = self.server.failure(refusal)
        is_head = (self.requestline or "").startswith("HEAD ")
        with suppress(OSError, EOFError):
            self.socket.settimeout(self.server.limits.linger)
            self.socket.sendall(head if is_head else head + body)
            self._linger()

    def _linger(self) -> None:
        """Reads until the client has gone: if we closed with bytes unread, the client would lose the refusal."""
        self.socket.shutdown(socket.SHUT_WR)
        self._inbox.allow(self.server.limits.linger)
        for _ in range(MAX_LINGER // RECEIVE_SIZE):
            self._inbox.unread.clear()
            self._inbox.fill()


@lru_cache(256)
def _environ_name(field: str) -> str:
    name = field.replace("-", "_").upper()
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _decoded(path: str) -> str:
    """The path with its segments decoded, all but what would end a segment: %2F, and %25, which would look like it."""
    segments = (unquote(segment, "latin-1") for segment in path.split("/"))
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


class Server(WSGIServer):
    """All connections. `counters` has what the server refused or closed, by reason."""

    def __init__(
        self,
        listener: socket.socket,
        application: WSGIApplication,
        *,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        beside: Server | None = None,
    ) -> None:
        """`headers` go with every refusal. `beside` is a server at another address that counts the same connections."""
        super().__init__(
            cast("Any", listener),
            application,
            log=None,
            error_log=log,
            environ={"SERVER_NAME": "localhost"},  # otherwise pywsgi asks the resolver for the machine's name
            spawn=Pool(),  # unbounded: make_room limits the connections
            handler_class=Handler,
        )
        self.limits = limits or Limits()
        self.counters: Counter[str] = beside.counters if beside else Counter()
        self._headers = dict(headers or {})
        self._waiting: dict[Handler, float] = beside._waiting if beside else {}  # since when; the longest first
        self._log_accept_after = 0.0
        self.environ[HTTP_FIGURES] = self.figures

    def figures(self) -> dict[str, Any]:
        """The number of open connections, streams not counted, and the counters."""
        return {"connections": len(self._waiting), "counters": dict(self.counters)}

    def make_room(self) -> None:
        """Makes room for one more connection: if there are too many, the one that has waited longest is closed."""
        if len(self._waiting) >= self.limits.max_connections:
            self._evict()

    def wait_for(self, handler: Handler) -> None:
        """From now on this connection waits for its client."""
        self.forget(handler)
        self._waiting[handler] = time.monotonic()

    def forget(self, handler: Handler) -> None:
        self._waiting.pop(handler, None)

    def failure(self, refusal: Refusal) -> tuple[bytes, bytes]:
        """A refusal as head and body of a response."""
        status, body = ANSWERS[refusal.code].status, failure_json(refusal.code, refusal.message)
        headers = {"Date": formatdate(usegmt=True), "Connection": "close", "Content-Length": str(len(body))}
        headers |= failure_headers(status) | self._headers
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {headers[name]}" for name in headers)]
        return "\r\n".join([*lines, "\r\n"]).encode(), body

    def _evict(self, waited_s: float = 0.0) -> bool:
        """Closes the connection that has waited longest, if it has waited for so long. Returns whether it did."""
        oldest, since = next(iter(self._waiting.items()), (None, 0.0))
        if oldest is None or time.monotonic() - since < waited_s:
            return False
        self.forget(oldest)
        oldest.evict()
        self.counters["closed: evicted"] += 1
        return True

    def leave_port(self) -> None:
        """Takes what has connected already, and no connection after that. Other workers listen at the port."""
        while self.started and (accepted := self.do_read()) is not None:
            self.do_handle(*accepted)
        self.close()

    # --- accepting ----------------------------------------------------------------------------------------------------

    def do_read(self) -> Any:
        """Does the same as gevent, which would print a traceback at each try while no descriptor is left.

        It leaves some for what isn't a client: a browser that died must be started again.
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
        if self._evict(IDLE_S):  # its descriptor is free soon
            return
        self.stop_accepting()
        self._timer = self.loop.timer(ACCEPT_PAUSE_S)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg]


def keep_alive(connection: socket.socket) -> None:
    """Lets the system end the connection, also one that is handed over, if its peer has vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in KEEP_ALIVE.items():
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """The listening sockets; for localhost that of 127.0.0.1 and, where it can be had, that of ::1.

    Port 0 picks a free one. `shared` sockets take turns with those of other workers at the same port. Raises OSError.
    """
    return _open_all(host, port, partial(_listen, shared=shared))


def reserve(host: str, port: int) -> list[socket.socket]:
    """Holds the port for workers, who listen there with `shared` sockets. Nobody can connect to what holds it.

    Raises OSError if another program has the port.
    """
    return _open_all(host, port, _hold)


def _open_all(host: str, port: int, open: Callable[[str, int], socket.socket]) -> list[socket.socket]:
    if host.lower() != "localhost":
        return [open(host, port)]
    opened = open("127.0.0.1", port)
    port = opened.getsockname()[1]
    try:
        return [opened, open("::1", port)]
    except OSError as error:
        log.warning("not listening on [::1]:%d (%s): use http://127.0.0.1:%d", port, error.strerror, port)
        return [opened]


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    listener = hub_socket.socket(_family_of(host))
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _hold(host: str, port: int) -> socket.socket:
    """Shared only once it is bound: before, another program's shared socket would not be in its way."""
    holder = socket.socket(_family_of(host))
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        holder.close()
        raise
    return holder


def _family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
