"""The formats of server-sent events and of WebSocket: how a batch becomes bytes.

This file owns what both have in common, the JSON messages of a batch, and how each frames them. It reads nothing,
sends nothing and decides nothing: pure functions, for any thread. Connect's formats are in `connect`, the board's in
`board`. A further format is a `broadcast.Format` in a file of its own, which `routes` gives to a Subscription.
"""

from __future__ import annotations

import struct

from geventwebsocket.websocket import Header, WebSocket

from broadcast import RETRY_MS, Batch, Entry, Format
from quotes import compact_json


def messages(batch: Batch, *, with_id: bool = False) -> list[tuple[str, str]]:
    """A batch as (event name, JSON text) pairs; the name is "" for the unnamed event, which comes last.

    If asked for, the batch's id is in the last message: a client that misses it must get the others again, too.
    """
    named: list[tuple[str, str]] = []  # the event's name, and the members of its JSON object
    if batch.tickers is not None:
        not_tracked = f',"notTracked":{compact_json(batch.not_tracked)}' if batch.not_tracked else ""
        named.append(("tickers", f'"type":"tickers","tickers":{compact_json(batch.tickers)}{not_tracked}'))
    if batch.statuses:
        named.append(("status", _updates("status", batch.statuses, batch.timestamp)))
    if batch.updates or batch.resumed is not None:
        resumed = "" if batch.resumed is None else f',"resumed":{compact_json(batch.resumed)}'
        named.append(("", _updates("batch_update", batch.updates, batch.timestamp) + resumed))
    if with_id and named:
        name, members = named[-1]
        named[-1] = name, f'{members},"id":{compact_json(batch.id)}'
    return [(name, f"{{{members}}}") for name, members in named]


def _updates(kind: str, entries: list[Entry], timestamp: int) -> str:
    updates = ",".join(entry.wire_json for entry in entries)
    return f'"type":"{kind}","updates":[{updates}],"timestamp":{timestamp}'


def _heartbeat(now_ms: int) -> str:
    return f'{{"type":"heartbeat","timestamp":{now_ms}}}'


# --- server-sent events -----------------------------------------------------------------------------------------------


def encode_sse(batch: Batch) -> bytes:
    """A batch as server-sent events. Only the last one has the id, which a browser sends when it comes back."""
    events = [f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n" for name, data in messages(batch)]
    if events:
        events[-1] = f"id: {batch.id}\n{events[-1]}"
    return "".join(events).encode()


def greet_sse(client_id: str) -> bytes:
    return f'retry: {RETRY_MS}\n\ndata: {{"type":"connected","clientId":"{client_id}"}}\n\n'.encode()


def heartbeat_sse(now_ms: int) -> bytes:
    return f"event: heartbeat\ndata: {_heartbeat(now_ms)}\n\n".encode()


def alert_sse(text: str) -> bytes:
    return f"event: alert\ndata: {text}\n\n".encode()


def end_sse(retry_ms: int) -> bytes:
    return f'event: shutdown\nretry: {retry_ms}\ndata: {{"type":"shutdown"}}\n\n'.encode()


SSE = Format("sse", encode_sse, greet_sse, heartbeat_sse, end_sse, alert=alert_sse)


# --- WebSocket --------------------------------------------------------------------------------------------------------


def encode_websocket(batch: Batch) -> bytes:
    """A batch as text frames. The id in the last one resumes a stream of either transport."""
    return b"".join(websocket_text(text) for _, text in messages(batch, with_id=True))


def greet_websocket(client_id: str) -> bytes:
    return websocket_text(compact_json({"type": "connected", "clientId": client_id}))


def heartbeat_websocket(now_ms: int) -> bytes:
    return websocket_text(_heartbeat(now_ms))


def end_websocket(retry_ms: int) -> bytes:
    going_away = websocket_frame(WebSocket.OPCODE_CLOSE, struct.pack("!H", 1001))
    return websocket_text(compact_json({"type": "shutdown", "retry": retry_ms})) + going_away


def websocket_text(text: str) -> bytes:
    return websocket_frame(WebSocket.OPCODE_TEXT, text.encode())


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    return bytes(Header.encode_header(True, opcode, b"", len(payload), 0)) + payload


WEBSOCKET = Format(
    "websocket", encode_websocket, greet_websocket, heartbeat_websocket, end_websocket, alert=websocket_text
)
