"""WebSocket: the handshake, the messages that a client sends, and how its connection ends.

This file owns the reading half of a WebSocket (RFC 6455): frames in, bounded messages out, the filter that a client
sets, its pings and its close frame. It never sends prices: the broadcaster does. Everything here runs on the hub
thread, and nothing here waits.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import Header, WebSocket
from werkzeug.datastructures import Headers

from broadcast import Client, filter_of
from limiter import Limiter
from quotes import PlutoError
from web.errors import ANSWERS, NoWebSocket, failure_fields
from web.formats import websocket_frame, websocket_text

MAX_WEBSOCKET_MESSAGE = 4 * 1024  # bytes
FRAMES_AT_ONCE, FRAMES_PER_SECOND = 100, 10  # that a client may send: messages, their fragments, pings
CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011}  # those that a client may send (RFC 6455, 7.4)


class Closing(Exception):
    """The connection ends, with this close code (RFC 6455, 7.4). `reason` is the name under which it is counted."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code)
        self.close_code, self.reason = close_code, reason


def violation(code: str) -> Closing:
    """The client broke a rule; `code` is the error's name in the table of errors."""
    return Closing(ANSWERS[code].close or 1002, "violation")


class WebSocketReader:
    """Reads what a client sends on a WebSocket: bytes in, (opcode, payload) messages out. Bounded, and it never waits.

    gevent-websocket decodes the frame headers. This class refuses the violations that its release of 2017 accepts.
    """

    def __init__(self) -> None:
        self._unread = b""
        self._opcode: int | None = None  # of the message whose fragments are arriving
        self._fragments = b""
        self._frames = Limiter(FRAMES_PER_SECOND, FRAMES_AT_ONCE)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields the complete messages. Raises Closing at a violation; the messages before it are valid."""
        self._unread += data
        while (frame := self._next_frame()) is not None:
            if not self._frames.take():
                raise violation("too_many_requests")
            header, payload = frame
            if header.opcode >= WebSocket.OPCODE_CLOSE:
                yield header.opcode, payload
            elif (message := self._defragment(header, payload)) is not None:
                yield message

    def _next_frame(self) -> tuple[Header, bytes] | None:
        stream = io.BytesIO(self._unread)
        try:
            header = Header.decode_header(stream)
        except WebSocketError as error:
            if "Unexpected EOF" in str(error):
                return None
            raise violation("malformed_request") from None
        if header.flags or not header.mask:
            raise violation("malformed_request")
        is_control = header.opcode >= WebSocket.OPCODE_CLOSE  # which may come between fragments, and isn't one
        if header.length + (0 if is_control else len(self._fragments)) > MAX_WEBSOCKET_MESSAGE:
            raise violation("too_large")
        payload = stream.read(header.length)
        if len(payload) < header.length:
            return None
        self._unread = stream.read()
        return header, bytes(header.unmask_payload(payload))

    def _defragment(self, header: Header, payload: bytes) -> tuple[int, bytes] | None:
        is_continuation = header.opcode == WebSocket.OPCODE_CONTINUATION
        if is_continuation != (self._opcode is not None):
            raise violation("malformed_request")
        if not is_continuation:
            if header.opcode != WebSocket.OPCODE_TEXT:
                raise violation("not_json" if header.opcode == WebSocket.OPCODE_BINARY else "malformed_request")
            self._opcode = header.opcode
        self._fragments += payload
        if not header.fin:
            return None
        message = self._opcode or 0, self._fragments
        self._opcode, self._fragments = None, b""
        return message


class WebSocketSession:
    """What one client sends: its filter, its pings, its close frame."""

    def __init__(self, client: Client, max_tickers: int) -> None:
        self._client, self._max_tickers = client, max_tickers
        self._reader = WebSocketReader()

    def receive(self, data: bytes) -> None:
        try:
            for opcode, payload in self._reader.feed(data):
                self._on_message(opcode, payload)
        except Closing as closing:
            self._leave(closing)
        except UnicodeDecodeError:
            self._leave(violation("not_utf8"))

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if opcode == WebSocket.OPCODE_PING:
            self._client.write(websocket_frame(WebSocket.OPCODE_PONG, payload))
        elif opcode == WebSocket.OPCODE_CLOSE:
            raise Closing(_close_code_of(payload), "closed")
        elif opcode == WebSocket.OPCODE_TEXT:
            self._on_text(payload.decode())
        elif opcode != WebSocket.OPCODE_PONG:
            raise violation("malformed_request")

    def _on_text(self, text: str) -> None:
        try:
            message = json.loads(text)
            tickers = filter_of(map(str, message["tickers"]), self._max_tickers)
        except PlutoError as error:
            self._refuse(error.code, str(error), getattr(error, "proposals", ()))
        except (ValueError, TypeError, KeyError, RecursionError):
            self._refuse("bad_request", 'Send {"tickers":["BTCUSD"]} to choose tickers. An empty list means all.')
        else:
            self._client.subscribe(replace(self._client.subscription, tickers=tickers))

    def _refuse(self, code: str, message: str, proposals: Sequence[str] = ()) -> None:
        error = {"type": "error", **failure_fields(code, message, proposals)}
        self._client.write(websocket_text(json.dumps(error)))

    def _leave(self, closing: Closing) -> None:
        last_words = websocket_frame(WebSocket.OPCODE_CLOSE, struct.pack("!H", closing.close_code))
        self._client.leave(last_words, closing.reason)


def _close_code_of(payload: bytes) -> int:
    """The code in a client's close frame; the answer repeats it. Raises Closing if no client may send it."""
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2], "big")
    payload[2:].decode()
    if len(payload) < 2 or not (code in CLOSE_CODES or 3000 <= code < 5000):
        raise violation("malformed_request")
    return code


def websocket_accept(headers: Headers) -> str:
    """The value of Sec-WebSocket-Accept that answers a handshake (RFC 6455, 4.2). Raises NoWebSocket."""
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_key = False
    if not is_key or headers.get("Sec-WebSocket-Version") != "13":
        raise NoWebSocket("Send a handshake with a valid Sec-WebSocket-Key and with Sec-WebSocket-Version: 13.")
    return base64.b64encode(hashlib.sha1((key + WebSocketHandler.GUID).encode()).digest()).decode()
