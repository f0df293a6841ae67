"""A line between two programs that a test can make slow, cut, or end TLS on: a TCP proxy on threads of the test."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress


class FaultyLine:
    """Passes on what comes in, `delay_s` later. While `is_cut`, it passes nothing, without a word."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.delay_s, self.is_cut = 0.0, False
        self._target, self._tls = target, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[near], daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            with near, socket.create_connection(("127.0.0.1", self._target)) as far:
                back = threading.Thread(target=self._pass_on, args=[far, near], daemon=True)
                back.start()
                self._pass_on(near, far)
                back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                while self.is_cut:
                    time.sleep(0.01)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
