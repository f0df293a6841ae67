"""A page's WebSocket: reading, the outbox, closing; and the socket by which faults reach a page.

Owns: the outbox and the greenlets of one socket. Never does: know what quotes are (quote_socket.py does). Runs in the
simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

import struct
from typing import Any

import gevent
from gevent.event import Event
from geventwebsocket.exceptions import WebSocketError

from simulator.frames import as_json
from simulator.simulation import Simulation
from simulator.symbols import Symbol

OUTBOX_LIMIT = 2_000  # frames waiting for one socket; a slower reader is disconnected
NORMAL = 1000  # the close code
SEND_SECONDS = 10  # a write that takes longer ends the socket


class PageSocket:
    """One WebSocket of a page. Any greenlet may fill its outbox; only the one in `run` writes."""

    kind = ""

    def __init__(self, websocket: Any, page: Symbol | None, simulation: Simulation) -> None:
        self.page = page  # the symbol of the page that opened it; None: no page did
        self._simulation = simulation
        self._websocket = websocket
        self._outbox: list[str] = []
        self._wake = Event()
        self._closing = False

    def run(self) -> None:
        reader = gevent.spawn(self._read)
        reader.link(lambda _: self.close())
        try:
            self._write()
        finally:
            reader.kill()
            self._end()

    def send(self, text: str) -> None:
        if len(self._outbox) >= OUTBOX_LIMIT:
            self._outbox.clear()
            self.close()
            return
        self._outbox.append(text)
        self._wake.set()

    def close(self) -> None:
        """Sends what waits, then closes with code 1000."""
        self._closing = True
        self._wake.set()

    def other_host(self) -> str:
        """This server's address by the name localhost, if the socket came by 127.0.0.1; else empty."""
        name, _, port = str(self._websocket.environ.get("HTTP_HOST", "")).partition(":")
        return f"localhost:{port}" if name == "127.0.0.1" else ""

    def meet(self, fault: str | None) -> None:
        """A fault strikes the open page; None: its faults, fields or scale may have changed."""

    def leave(self) -> None:
        """The socket is closed."""

    def hear(self, message: str) -> None:
        """The page has sent a message."""

    def patience(self) -> float | None:
        """Seconds until the next message must be sent; None: no time is known."""
        return 0 if self._outbox else None

    def next_message(self) -> str:
        """The oldest message in the outbox; empty: none."""
        return self._outbox.pop(0) if self._outbox else ""

    def _read(self) -> None:
        try:
            while (message := self._websocket.receive()) is not None:
                self.hear(str(message))
        except (WebSocketError, OSError, ValueError):
            return

    def _write(self) -> None:
        while True:
            if not self._closing:
                self._wake.wait(self.patience())
                self._wake.clear()
            is_last = self._closing
            message = self.next_message()
            if (message and not self._sent(message)) or is_last:
                return

    def _end(self) -> None:
        """Closes with a close code: the library's own close frame has none."""
        try:
            self._websocket.send_frame(struct.pack(">H", NORMAL), self._websocket.OPCODE_CLOSE)
        except (WebSocketError, OSError):
            return

    def _sent(self, message: str) -> bool:
        try:
            with gevent.Timeout(SEND_SECONDS):
                self._websocket.send(message)
            return True
        except (WebSocketError, OSError, gevent.Timeout):
            return False


class PushSocket(PageSocket):
    """The page's other socket, which has no quotes. It tells the page's script about faults."""

    kind = "steered"

    def meet(self, fault: str | None) -> None:
        self.send(as_json({"faults": self._simulation.faults_of(self.page), "struck": fault}))
