"""Receivers of notifications on real sockets of this machine: HTTP ones that do as they are told, and a mail server."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

ID = re.compile(r"Id: ([0-9a-f]{16})")
SECRET = "s3cr3t-of-the-owner"


class HttpReceiver:
    """Answers each POST as the next of `ways` says, and 200 when there is none left.

    A way is a status, or "hang" (until the test ends), "slow" (0.3 s) or "break" (ends in mid-answer).
    """

    def __init__(self, *ways: int | str) -> None:
        self.ways = list(ways)
        self.bodies: list[dict[str, Any]] = []
        self.is_over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.bodies.append(body)
                way = receiver.ways.pop(0) if receiver.ways else 200
                if way == "hang":
                    receiver.is_over.wait()
                elif way == "slow":
                    time.sleep(0.3)
                self.send_response(way if isinstance(way, int) else 200)
                self.send_header("Content-Length", "9" if way == "break" else "0")
                self.end_headers()
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"json://127.0.0.1:{self.port}/{SECRET}"

    @property
    def ids(self) -> list[str]:
        return [id_of(body["message"]) for body in self.bodies]

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()


class AnyPort(Controller):
    """Asks the system for a free port."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class MailReceiver:
    """A mail server that takes all, or one that refuses each login."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.texts: list[str] = []
        self._user = f"owner:{SECRET}@" if refuses else ""
        ways: dict[str, Any] = {}
        if refuses:
            ways = {"authenticator": lambda *_: AuthResult(success=False, handled=False), "auth_require_tls": False}
        self._controller = AnyPort(self, hostname="127.0.0.1", port=0, **ways)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.texts.append(envelope.content.decode())
        return "250 OK"

    @property
    def url(self) -> str:
        place = f"{self._user}127.0.0.1:{self._controller.port}"
        return f"mailto://{place}?mode=insecure&from=pluto@example.com&to={SECRET}@example.com"

    @property
    def ids(self) -> list[str]:
        return [id_of(text) for text in self.texts]

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()


@contextmanager
def receiving(*receivers: HttpReceiver | MailReceiver) -> Iterator[list[str]]:
    """Runs the receivers; their URLs."""
    for receiver in receivers:
        receiver.start()
    try:
        yield [receiver.url for receiver in receivers]
    finally:
        for receiver in receivers:
            receiver.stop()


def id_of(text: str) -> str:
    """The id in a message."""
    match = ID.search(text)
    assert match is not None, text
    return match[1]
