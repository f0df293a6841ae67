"""A site of one page and one quote socket, which say only what a test has them say.

One thread accepts, one serves each connection; the test's own thread says what the sockets say.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TEXT, CLOSE = 0x1, 0x8
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Line:
    """One quote socket of a page."""

    def __init__(self, connection: socket.socket, key: str) -> None:
        self._connection = connection
        self.heard: list[str] = []
        self.said = 0  # messages
        accept = base64.b64encode(hashlib.sha1(f"{key}{MAGIC}".encode()).digest()).decode()
        head = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
        connection.sendall("\r\n".join([*head, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode())

    def say(self, *payloads: object) -> None:
        """One message, of a part per payload: texts as they are, all else as JSON."""
        texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
        self.say_raw("".join(f"~m~{len(text)}~m~{text}" for text in texts))

    def say_raw(self, text: str) -> None:
        self.said += 1
        self._send(TEXT, text.encode())

    def close(self, code: int = 1000) -> None:
        self._send(CLOSE, struct.pack("!H", code))

    def _send(self, opcode: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
        self._connection.sendall(bytes([0x80 | opcode]) + size + data)

    def listen(self) -> None:
        while True:
            opcode, size = self._read(2)
            length = size & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._read(2))
            mask, data = self._read(4), self._read(length)
            if opcode & 0xF == TEXT:
                self.heard.append(bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)).decode())

    def _read(self, size: int) -> bytes:
        data = self._connection.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise ConnectionError
        return data


class QuoteSite:
    """`html` is what every address gives, with these `headers` beside its own."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        self.html = ""
        self.headers: tuple[str, ...] = ()
        self.lines: list[Line] = []

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := connection.recv(1)):
                    return
                head += byte
            if key := re.search(r"Sec-WebSocket-Key: (\S+)", head.decode()):
                self.lines.append(line := Line(connection, key[1]))
                line.listen()
            body = self.html.encode()
            about = ("HTTP/1.1 200 OK", "Content-Type: text/html; charset=utf-8", f"Content-Length: {len(body)}")
            connection.sendall("\r\n".join([*about, *self.headers, "Connection: close", "", ""]).encode() + body)


@contextmanager
def quote_site() -> Iterator[QuoteSite]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = QuoteSite(listener)
        threading.Thread(target=site.accept, daemon=True).start()
        yield site
        listener.shutdown(socket.SHUT_RDWR)
