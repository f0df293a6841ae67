"""A stream as a WSGI response: its first bytes, then everything that the broadcaster sends.

This file owns how a client's socket gets from the HTTP server to the broadcaster. It encodes nothing and decides
nothing about clients. Everything here runs on the hub thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from gevent import socket as hub_socket

from broadcast import SEND_BUFFER, Client

HandOver = Callable[[Callable[[socket.socket], None]], None]


class Stream:
    """The body of a stream's response.

    A server that can hand its socket over does so after the first bytes, to the function that `hand_over` was given.
    For any other server (HTTP/1.0, foreign WSGI servers) `hand_over` is None: the broadcaster writes into a pipe
    instead, and what comes out is passed on. Everything else is the same path.
    """

    def __init__(self, client: Client, hand_over: HandOver | None) -> None:
        self._client, self._hand_over = client, hand_over
        self._pipe: Any = None
        self._has_begun = False
        self._is_handed_over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            if self._hand_over is not None:
                self._hand_over(self._start)
            return self._client.first
        if self._pipe is None:
            self._pipe, theirs = hub_socket.socketpair()
            self._client.start(socket.socket(fileno=theirs.detach()))
        data: bytes = self._pipe.recv(SEND_BUFFER)
        if not data:
            raise StopIteration
        return data

    def _start(self, connection: socket.socket) -> None:
        self._is_handed_over = True
        self._client.start(connection)

    def close(self) -> None:
        """The WSGI server's last call, whatever happened."""
        if self._pipe is not None:
            self._pipe.close()
        if not self._is_handed_over:
            self._client.drop("closed")
