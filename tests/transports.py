"""The transports as a client sees them: how to ask for a stream, and which messages are in the bytes that come.

Pure: bytes in, messages out, and what is left of bytes that are not whole yet. Every message is a dict such as
server-sent events carry, `{"type":"batch_update","updates":[…]}`; the id of a batch, where there is one, is its `id`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict

from proto.crypto.v1.crypto_service_pb2 import PriceUpdate

SSE_EVENT = re.compile(rb"(?:id: (?P<id>[\w-]+)\n)?(?:event: \w+\n)?(?:retry: \d+\n)?data: (?P<data>[^\n]+)\n\n")
STREAM_PATH, WEBSOCKET_PATH = "/api/stream", "/api/ws"
CONNECT_PATH = "/crypto.v1.CryptoPriceService/StreamPrices"

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Transport:
    """How a client asks, by the id it had last, and what it reads in bytes that came: messages, and what is left."""

    name: str
    request: Callable[[str], bytes]
    read: Callable[[bytes], tuple[Messages, bytes]]


def sse_request(last_id: str) -> bytes:
    return _request("GET", STREAM_PATH, **({"Last-Event-ID": last_id} if last_id else {}))


def websocket_request(last_id: str) -> bytes:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    path = f"{WEBSOCKET_PATH}?lastEventId={last_id}" if last_id else WEBSOCKET_PATH
    return _request("GET", path, **headers, **{"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="})


def connect_request(content_type: str, body: bytes) -> Callable[[str], bytes]:
    """Asks for all states. Connect and gRPC-Web have no ids: who comes back is told everything."""
    message = struct.pack(">BI", 0, len(body)) + body
    headers = {"Connect-Protocol-Version": "1"} if "connect" in content_type else {"X-Grpc-Web": "1"}
    headers |= {"Content-Type": f"application/{content_type}"}
    request = _request("POST", CONNECT_PATH, **headers, **{"Content-Length": str(len(message))}) + message
    return lambda last_id: request


def _request(method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def unchunked(data: bytes) -> tuple[bytes, bytes]:
    """What whole HTTP chunks hold, and the rest."""
    content: list[bytes] = []
    while True:
        size, found, rest = data.partition(b"\r\n")
        if not found or len(rest) < (length := int(size, 16)) + 2:
            return b"".join(content), data
        content.append(rest[:length])
        data = rest[length + 2 :]


def read_sse(data: bytes) -> tuple[Messages, bytes]:
    content, rest = unchunked(data)
    return [
        json.loads(event["data"]) | ({"id": event["id"].decode()} if event["id"] else {})
        for event in SSE_EVENT.finditer(content)
    ], rest


def read_websocket(data: bytes) -> tuple[Messages, bytes]:
    messages: Messages = []
    while len(data) >= 2:
        opcode, length, start = data[0] & 15, data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            break
        if opcode == 1:
            messages.append(json.loads(data[start : start + length]))
        data = data[start + length :]
    return messages, data


def connect_reader(decode: Callable[[bytes], dict[str, Any]]) -> Callable[[bytes], tuple[Messages, bytes]]:
    def read(data: bytes) -> tuple[Messages, bytes]:
        content, rest = unchunked(data)
        updates = []
        while content:
            flags, length = struct.unpack_from(">BI", content)
            if not flags:
                updates.append(decode(content[5 : 5 + length]))
            content = content[5 + length :]
        return [{"type": "batch_update", "updates": updates, "resumed": False}] if updates else [], rest

    return read


def decode_proto(data: bytes) -> dict[str, Any]:
    return MessageToDict(PriceUpdate.FromString(data))


TRANSPORTS = (
    Transport("SSE", sse_request, read_sse),
    Transport("WebSocket", websocket_request, read_websocket),
    Transport("Connect, binary", connect_request("connect+proto", b"\x18\x01"), connect_reader(decode_proto)),
    Transport("Connect, JSON", connect_request("connect+json", b'{"allStates":true}'), connect_reader(json.loads)),
    Transport("gRPC-Web", connect_request("grpc-web+proto", b"\x18\x01"), connect_reader(decode_proto)),
)
