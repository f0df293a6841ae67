"""The load: thousands of clients of one server in one thread. They note which bytes they received, and when.

All clients receive the same bytes, so these are kept only once, with the time of each receipt. Nothing is parsed while
a measurement runs. Linux only.
"""

from __future__ import annotations

import os
import select
import socket
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

WAVE = 100  # clients that connect at the same time
ANSWER_LIMIT_S = 10.0  # for the server to answer a wave
READ_SIZE = 64 * 1024
QUIET_S = 0.02
QUIET_LIMIT_S = 1.0
DEAF_BUFFER = 4096  # bytes that the kernel keeps for a client that doesn't read

Receipts = dict[bytes, "array[int]"]
"""The bytes of one read, and when each client read them, in ns since the epoch."""


class Clients:
    """Clients of one server. `lost` counts those whose connection the server closed.

    With `spin` they never sleep. A server on the same machine would otherwise spend time on waking them, which clients
    elsewhere in the network never cost it.
    """

    def __init__(self, port: int, request: bytes, *, spin: bool) -> None:
        self.lost = 0
        self._spin = spin
        self._port, self._request = port, request
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._deaf: list[socket.socket] = []

    def connect(self, count: int) -> None:
        """Connects `count` more clients. Returns when each has the first bytes of its stream."""
        for start in range(0, count, WAVE):
            unanswered = {self._connect_one() for _ in range(min(WAVE, count - start))}
            deadline = time.monotonic() + ANSWER_LIMIT_S
            while unanswered:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(unanswered)} clients got no answer")
                for fd, _ in self._epoll.poll(0.1):
                    self._read(fd)
                    unanswered.discard(fd)

    def _connect_one(self) -> int:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_LIMIT_S)
        connection.sendall(self._request)
        connection.setblocking(False)
        fd = connection.fileno()
        self._sockets[fd] = connection
        self._epoll.register(fd, select.EPOLLIN)
        return fd

    def connect_deaf(self, count: int) -> None:
        """Connects `count` clients that never read."""
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER)
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(self._request)
            self._deaf.append(connection)

    def listen(self, seconds: float) -> Receipts:
        """All that comes within this time. Begins and ends when nothing is on its way."""
        self._listen_until_quiet({})
        receipts: Receipts = {}
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._take(left, receipts)
        self._listen_until_quiet(receipts)
        return receipts

    def _listen_until_quiet(self, receipts: Receipts) -> None:
        now = time.monotonic()
        quiet_at, deadline = now + QUIET_S, now + QUIET_LIMIT_S
        while now < min(quiet_at, deadline):
            took = self._take(QUIET_S, receipts)
            now = time.monotonic()
            if took:
                quiet_at = now + QUIET_S

    def _take(self, timeout: float, receipts: Receipts) -> bool:
        """Reads from each client for which bytes have come. Returns whether any had."""
        ready = self._epoll.poll(0 if self._spin else timeout)
        for fd, _ in ready:
            data = self._read(fd)
            now = time.time_ns()
            times = receipts.get(data)
            if times is None:
                times = receipts[data] = array("q")
            times.append(now)
        return bool(ready)

    def _read(self, fd: int) -> bytes:
        try:
            data = os.read(fd, READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            self.lost += 1
            self._epoll.unregister(fd)
            self._sockets.pop(fd).close()
        return data

    def close(self) -> None:
        for connection in (*self._sockets.values(), *self._deaf):
            connection.close()
        self._epoll.close()


@contextmanager
def connected(port: int, request: bytes, count: int, *, spin: bool = False) -> Iterator[Clients]:
    clients = Clients(port, request, spin=spin)
    try:
        clients.connect(count)
        yield clients
    finally:
        clients.close()


def percentile(ordered: list[float], part: float) -> float:
    """The value below which this part (0 to 1) of all values lies; NaN if there are none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")
