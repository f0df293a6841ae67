"""The broadcaster: fan-out of quotes to every client, at most one batch every 50 ms, encoded once for all.

This file owns the newest quote of every ticker, the sequence that numbers the flushes, and every client's socket from
the moment its stream begins. It knows nothing of browsers, routes or settings. Everything runs on the hub thread but
`Broadcaster.put`, which any thread may call: quotes cross threads there and nowhere else.

    put → hand-off (newest per ticker) → flush → table → one frame per group → one non-blocking send per client

A group is the clients that want the same bytes: one format, one set of tickers, one rate. A client has no greenlet and
no queue. One whose socket is full is *lagging*: the broadcaster keeps the unsent rest of the frame under way, nothing
else, and when the socket has drained, sends one frame with all that changed meanwhile. So a slow client costs no more
memory for being slow, delays nobody, and is right again when it has caught up; one that drains nothing for 15 s is
closed.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import socket
import struct
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from zlib import crc32

import gevent
from gevent import socket as hub_socket
from gevent.event import Event
from geventwebsocket.websocket import Header, WebSocket

from quotes import PlutoError, Quote, State, Ticker, parse_ticker, wire_fields
from watchlist import Change

log = logging.getLogger("pluto.broadcast")

FLUSH_INTERVAL_S = 0.05  # the design card's figure
MIN_RATE, MAX_RATE = 0.1, 20.0  # batches a second that a stream may ask for
HEARTBEAT_S = 15.0
TEND_INTERVAL_S = 0.5
LAG_LIMIT_S = 15.0  # a client that drains nothing for this long is closed
LEAVE_LIMIT_S = 1.0  # for a client to take its last words and close its side
VANISHED_AFTER = 4 / 3  # of the lag limit: a peer that acknowledges nothing for this long is no longer there
CHECKS_A_ROUND = 10  # so many times in turn a part of all peers is looked at
SEND_BUFFER = 32 * 1024  # bytes the kernel keeps per client
DRAIN_LIMIT = 256  # quotes taken from the hand-off at once; the rest goes with the next flush
SLICE = 1_000  # clients sent to before the hub gets a turn
MAX_LISTENED = 64 * 1024  # bytes a client may say that nobody reads
MAX_TAIL = 256 * 1024  # unsent bytes at which a lagging client gets no more answers to what it says
MAX_REMOVED = 1_000  # removals remembered for clients that resume
MAX_FRAMES = 256  # frames kept for clients that need the same one
RETRY_MS = 2_000  # how long a client waits before it connects again
TCP_INFO = struct.Struct("=3xB20xI28xI")  # of Linux's struct tcp_info, see _unacknowledged_ms
DELAY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)  # of histograms
READABLE, WRITABLE = 1, 2  # libev's names of what an io watcher waits for

HandOver = Callable[[Callable[[socket.socket], None]], None]
Filter = frozenset[Ticker] | None
"""The tickers a client asked for; None means all."""


class TooManyStreams(PlutoError):
    code = "too_many_streams"


class TooManyStreamsPerAddress(PlutoError):
    code = "too_many_streams_per_address"


class ShuttingDown(PlutoError):
    code = "shutting_down"


class InvalidRate(PlutoError):
    code = "invalid_rate"


@dataclass(frozen=True, slots=True)
class Entry:
    """A ticker's newest quote, the flushes with which it and the ticker came, and its JSON, made once for all.

    `encoded` is for formats that write it otherwise: what each made of it, by a name of the format's own.
    """

    quote: Quote
    sequence: int
    tracked: int
    json: str
    encoded: dict[str, bytes] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one frame carries: `tickers` when the list changed, and entries: those with a current price, and the rest.

    `timestamp` is in ms. `resumed` is None but in the first batch of a stream, where it says whether only what changed
    since the client's last batch is in it.
    """

    id: str
    timestamp: int
    tickers: list[Ticker] | None
    statuses: list[Entry]
    updates: list[Entry]
    resumed: bool | None = None


class Histogram:
    """How often something took how long: `counts` has a place for each bound, in seconds, and one for the rest."""

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: tuple[float, ...] = DELAY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds


@dataclass(frozen=True, slots=True)
class Delays:
    """What a price waits for on its way, part by part; observed beside the hot loop, never in it.

    `page` and `handoff` come of the quote's own times: whole milliseconds, by the machine's clock.
    """

    page: Histogram = field(default_factory=Histogram)  # from the page showing a price to Pluto having it
    handoff: Histogram = field(default_factory=Histogram)  # from there to the flush that sends it
    flush: Histogram = field(default_factory=Histogram)  # a flush itself
    lateness: Histogram = field(default_factory=Histogram)  # of a flush after its time
    lag: Histogram = field(default_factory=Histogram)  # from a client's socket being full to its having caught up


# --- formats ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Format:
    """How a transport writes: pure functions to bytes. `end` takes the ms after which the client may come back.

    `heartbeat` is empty where a transport has none. `expired` is what a client hears whose own deadline has passed.
    """

    name: str
    encode: Callable[[Batch], bytes]
    greet: Callable[[str], bytes]
    heartbeat: bytes
    end: Callable[[int], bytes]
    expired: bytes = b""


def messages(batch: Batch) -> list[tuple[str, str]]:
    """A batch as (event name, JSON text) pairs; the name is "" for the unnamed event, which comes last."""
    parts = []
    if batch.tickers is not None:
        parts.append(("tickers", _json({"type": "tickers", "tickers": batch.tickers})))
    if batch.statuses:
        parts.append(("status", _updates("status", batch.statuses, batch.timestamp)))
    if batch.updates or batch.resumed is not None:
        parts.append(("", _updates("batch_update", batch.updates, batch.timestamp, batch.resumed)))
    return parts


def encode_sse(batch: Batch) -> bytes:
    """A batch as server-sent events. Only the last one has the id: a client that lost the rest must get them again."""
    events = [f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n" for name, data in messages(batch)]
    if events:
        events[-1] = f"id: {batch.id}\n{events[-1]}"
    return "".join(events).encode()


def greet_sse(client_id: str) -> bytes:
    return f'retry: {RETRY_MS}\n\ndata: {{"type":"connected","clientId":"{client_id}"}}\n\n'.encode()


def end_sse(retry_ms: int) -> bytes:
    return f'event: shutdown\nretry: {retry_ms}\ndata: {{"type":"shutdown"}}\n\n'.encode()


def encode_websocket(batch: Batch) -> bytes:
    """A batch as text frames, the last one with the batch's id: what resumes an SSE stream resumes this one."""
    texts = [data for _, data in messages(batch)]
    if texts:
        texts[-1] = f'{texts[-1][:-1]},"id":"{batch.id}"}}'
    return b"".join(websocket_text(text) for text in texts)


def greet_websocket(client_id: str) -> bytes:
    return websocket_text(_json({"type": "connected", "clientId": client_id}))


def end_websocket(retry_ms: int) -> bytes:
    going_away = websocket_frame(WebSocket.OPCODE_CLOSE, struct.pack("!H", 1001))
    return websocket_text(_json({"type": "shutdown", "retry": retry_ms})) + going_away


def websocket_text(text: str) -> bytes:
    return websocket_frame(WebSocket.OPCODE_TEXT, text.encode())


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    return bytes(Header.encode_header(True, opcode, b"", len(payload), 0)) + payload


def http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _updates(kind: str, entries: list[Entry], timestamp: int, resumed: bool | None = None) -> str:
    updates = ",".join(entry.json for entry in entries)
    suffix = "" if resumed is None else f',"resumed":{_json(resumed)}'
    return f'{{"type":"{kind}","updates":[{updates}],"timestamp":{timestamp}{suffix}}}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


LAST_CHUNK = b"0\r\n\r\n"

SSE = Format("sse", encode_sse, greet_sse, b": keep-alive\n\n", end_sse)
WEBSOCKET = Format(
    "websocket", encode_websocket, greet_websocket, websocket_frame(WebSocket.OPCODE_PING, b""), end_websocket
)


# --- clients ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants: everything that makes its bytes differ from another's.

    `interval` is the least time between batches, in seconds. `chunked` says that the broadcaster writes HTTP chunks
    itself, as it must after taking a response over.
    """

    format: Format
    tickers: Filter = None
    interval: float = 0.0
    chunked: bool = False


def filter_of(texts: Iterable[str]) -> Filter:
    """The tickers that a client lists; all, when it lists none. Raises InvalidTicker."""
    return frozenset(parse_ticker(text) for text in texts if text.strip()) or None


def interval_of(max_rate: float | str) -> float:
    """The least seconds between batches, when a client wants so many a second at most. Raises InvalidRate."""
    try:
        rate = float(max_rate)
    except ValueError:
        rate = 0.0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidRate(f"max_rate is a number of batches a second from {MIN_RATE} to {MAX_RATE}, not {max_rate!r}.")
    return 0.0 if rate == MAX_RATE else round(1 / rate, 2)


class Group:
    """The clients with one wish: they get the same bytes object. `sequence` is the flush they all have."""

    __slots__ = ("due_at", "members", "sent_at", "sequence", "wish")

    def __init__(self, wish: Wish, sequence: int) -> None:
        self.wish = wish
        self.sequence = sequence
        self.members: dict[Client, None] = {}  # in the order of joining, which is that of memory
        self.sent_at = time.monotonic()
        self.due_at = 0.0

    def frame(self, payload: bytes) -> bytes:
        return http_chunk(payload) if payload and self.wish.chunked else payload


class Client:
    """One client: admitted, then attached to its socket, then gone.

    `tail` is None while it keeps up; else the unsent rest of the frame under way. `sequence` is the flush it has when
    lagging, `lagging_since` when its socket was found full. `receive` takes what the client says; without it, that is
    thrown away. `address` is what its stream counts for; empty, when it isn't counted.
    """

    __slots__ = (
        "address", "drained_at", "expiry", "first", "group", "heard", "lagging_since", "left_at", "reader", "receive",
        "send", "sequence", "socket", "tail", "was_silent", "wish", "writer",
    )  # fmt: skip

    def __init__(self, wish: Wish, sequence: int, first: bytes, address: str = "") -> None:
        self.wish, self.sequence, self.first, self.address = wish, sequence, first, address
        self.group: Group | None = None
        self.socket: socket.socket | None = None
        self.send: Callable[[bytes], int] = _send_nowhere
        self.receive: Callable[[bytes], None] | None = None
        self.reader: Any = None
        self.writer: Any = None
        self.expiry: Any = None
        self.tail: bytes | None = None
        self.drained_at = 0.0
        self.lagging_since: float | None = None
        self.left_at: float | None = None
        self.heard = 0
        self.was_silent = False  # had acknowledged nothing for too long when it was looked at last


def _send_nowhere(data: bytes) -> int:
    raise OSError("not attached")


class Broadcaster:
    """Keeps the newest quote of every tracked ticker and tells every client what changed."""

    def __init__(
        self,
        *,
        simulated: bool = False,
        max_streams: int = 10_000,
        max_streams_per_address: int = 100,
        interval: float = FLUSH_INTERVAL_S,
        heartbeat: float = HEARTBEAT_S,
        lag_limit: float = LAG_LIMIT_S,
    ) -> None:
        self.epoch = secrets.token_hex(4)  # a sequence means something only within one run of the server
        self.sequence = 0
        self.counters: Counter[str] = Counter()
        self.lateness_max_s = 0.0  # of a flush after its time
        self.flush_max_s = 0.0
        self.delays = Delays()
        self._simulated = simulated  # every quote of a ticker whose page has said nothing yet
        self._max_streams, self._max_streams_per_address = max_streams, max_streams_per_address
        self._interval, self._heartbeat, self._lag_limit = interval, heartbeat, lag_limit
        self._vanished_after_ms = 1000 * VANISHED_AFTER * lag_limit
        self._lock = threading.Lock()  # of the hand-off
        self._handoff: dict[Ticker, Quote] = {}  # newest per ticker: bounded by their number, never overflows
        self._taken: dict[Ticker, Quote] = {}  # what was taken from it and not yet flushed
        self._table: dict[Ticker, Entry] = {}
        self._tickers: list[Ticker] = []  # the table's, sorted
        self._removed: dict[Ticker, int] = {}  # the flush with which a ticker went
        self._forgotten = 0  # removals up to this flush are no longer remembered
        self._list_changed = 0  # the flush in which a ticker last came or went
        self._flushed_at = _now_ms()
        self._groups: dict[Wish, Group] = {}
        self._clients: set[Client] = set()
        self._unchecked: list[Client] = []  # whose peers have still to be looked at in this round
        self._streams_of: Counter[str] = Counter()  # by address; none that has no stream
        self._frames: dict[tuple[object, ...], bytes] = {}  # of the sequence that is current, by what they hold
        self._stopping = False
        self._loop = gevent.get_hub().loop
        self._dirty = Event()
        self._wakeup = self._loop.async_()
        self._greenlets: list[gevent.Greenlet[[], None]] = []

    def start(self) -> None:
        self._wakeup.start(self._dirty.set)
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._tend)]

    def stop(self) -> None:
        """Ends every stream in order: last words, then the end of what we send, then the client's own close."""
        self._stopping = True
        self._wakeup.stop()
        gevent.killall(self._greenlets)
        for client in list(self._clients):
            spread = random.uniform(0, max(RETRY_MS, len(self._clients)))  # at most 1,000 come back a second
            self.leave(client, client.wish.format.end(round(RETRY_MS + spread)), "shutdown")
        deadline = time.monotonic() + LEAVE_LIMIT_S
        while self._clients and time.monotonic() < deadline:
            gevent.sleep(0.01)
        for client in list(self._clients):
            self.drop(client, "shutdown")

    def put(self, quote: Quote) -> None:
        """Any thread: the newest quote of a ticker."""
        with self._lock:
            self._handoff[quote.ticker] = quote
        self._wakeup.send()

    # --- the table ----------------------------------------------------------------------------------------------------

    def follow(self, change: Change) -> None:
        """The watchlist changed."""
        if change.is_tracked:
            self.track(change.ticker)
        else:
            self.untrack(change.ticker)

    def track(self, ticker: Ticker) -> None:
        """From now on quotes of this ticker are taken; until the first comes, it is starting."""
        with self._lock:
            self._handoff.pop(ticker, None)
        self._taken.pop(ticker, None)
        self._removed.pop(ticker, None)
        self._set_entry(Quote(ticker, State.STARTING, simulated=self._simulated), self.sequence + 1)
        self._change_list()

    def untrack(self, ticker: Ticker) -> None:
        if self._table.pop(ticker, None) is None:
            return
        self._removed[ticker] = self.sequence + 1
        if len(self._removed) > MAX_REMOVED:
            self._forgotten = self._removed.pop(next(iter(self._removed)))
        self._change_list()

    def entry(self, ticker: Ticker) -> Entry | None:
        return self._table.get(ticker)

    @property
    def tickers(self) -> list[Ticker]:
        return list(self._tickers)

    @property
    def entries(self) -> list[Entry]:
        return [self._table[ticker] for ticker in self._tickers]

    @property
    def clients(self) -> Counter[str]:
        """How many clients each transport has."""
        return Counter(client.wish.format.name for client in self._clients)

    @property
    def is_flushing(self) -> bool:
        """Whether the flush loop runs, as it should until the end; without it nobody is told anything."""
        return self._stopping or all(not greenlet.dead for greenlet in self._greenlets)

    @property
    def lagging(self) -> int:
        return sum(client.tail is not None for client in self._clients)

    @property
    def waiting(self) -> int:
        """Quotes in the hand-off."""
        return len(self._handoff) + len(self._taken)

    def _change_list(self) -> None:
        self._tickers = sorted(self._table)
        self._list_changed = self.sequence + 1
        self._dirty.set()

    def _set_entry(self, quote: Quote, tracked: int) -> None:
        sequence = self.sequence + 1
        text = _json(wire_fields(quote, sequence))
        self._table[quote.ticker] = Entry(quote, sequence, tracked, text)

    # --- the flush ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Leading edge: the first change after a quiet spell leaves at once, then at most one batch an interval."""
        while True:
            self._dirty.wait(self._seconds_until_due())
            self._dirty.clear()
            started = time.monotonic()
            try:
                self.flush()
            except Exception:
                log.exception("a flush failed")
            flushed = time.monotonic()
            due = max(flushed, started + self._interval)
            gevent.sleep(due - flushed)
            self._note_flush(flushed - started, time.monotonic() - due)

    def _note_flush(self, duration_s: float, lateness_s: float) -> None:
        self.flush_max_s = max(self.flush_max_s, duration_s)
        self.lateness_max_s = max(self.lateness_max_s, lateness_s)
        self.delays.flush.observe(duration_s)
        self.delays.lateness.observe(lateness_s)

    def _seconds_until_due(self) -> float | None:
        """When the next group that asked for a lower rate may get what it doesn't have yet."""
        due = [group.due_at for group in self._groups.values() if group.sequence < self.sequence]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def flush(self) -> None:
        """Takes what waits in the hand-off into the table, and sends each group that is due what it doesn't have."""
        if self._commit():
            self.counters["flushes"] += 1
        now = time.monotonic()
        for group in list(self._groups.values()):
            if group.sequence < self.sequence and group.due_at <= now:
                self._deliver(group, now)

    def _commit(self) -> bool:
        """Makes the next sequence of all that changed, and says whether anything did."""
        has_changed = self._list_changed > self.sequence
        quotes, now_ms = self._take(), _now_ms()
        for quote in quotes:
            if (entry := self._table.get(quote.ticker)) is not None:  # else it was removed: these words come too late
                self._note_way(entry.quote, quote, now_ms)
                self._set_entry(quote, entry.tracked)
                has_changed = True
        if self.waiting:
            self._dirty.set()
        if has_changed:
            self.sequence += 1
            self._flushed_at = now_ms
            self._frames.clear()
        return has_changed

    def _note_way(self, before: Quote, quote: Quote, now_ms: int) -> None:
        """Observes a price that is new and live; another was shown long before Pluto looked, or is told once more."""
        shown_at, received_at = quote.timestamp, quote.received_at
        if quote.state is State.LIVE and shown_at and received_at and received_at != before.received_at:
            self.delays.page.observe(max(0, received_at - shown_at) / 1000)
            self.delays.handoff.observe(max(0, now_ms - received_at) / 1000)

    def _take(self) -> list[Quote]:
        """A bounded bite of the hand-off; all of it has its turn before any ticker has the next."""
        if not self._taken:
            with self._lock:
                self._taken, self._handoff = self._handoff, self._taken
        return [self._taken.pop(ticker) for ticker in list(islice(self._taken, DRAIN_LIMIT))]

    def _deliver(self, group: Group, now: float) -> None:
        """Sends a group what it doesn't have, slice by slice; only then is it what the group has."""
        sequence, members = self.sequence, list(group.members)
        if frame := group.frame(self._payload(group.wish, group.sequence)):
            group.sent_at, group.due_at = now, now + group.wish.interval
            self._send(members[:SLICE], frame, sequence)
            for start in range(SLICE, len(members), SLICE):
                gevent.sleep(0)
                still_members = [client for client in members[start : start + SLICE] if client.group is group]
                self._send(still_members, frame, sequence)
        group.sequence = sequence

    def _send(self, members: list[Client], frame: bytes, sequence: int) -> None:
        """The hot loop: the same bytes to each, one system call a client. `sequence` is the flush they have with it."""
        size, conflated = len(frame), 0
        for client in members:
            if client.tail is not None:
                conflated += 1
                continue
            try:
                sent = client.send(frame)
            except BlockingIOError:
                self._fall_behind(client, b"", self._group_sequence(client))
            except OSError:
                self.drop(client, "reset")
            else:
                if sent != size:
                    self._fall_behind(client, frame[sent:], sequence)
        self.counters["conflated"] += conflated
        self.counters["sends"] += len(members) - conflated
        self.counters["bytes"] += (len(members) - conflated) * size

    def _payload(self, wish: Wish, since: int, *, resumed: bool | None = None) -> bytes:
        """All that changed after flush `since`, encoded once for everyone who needs just that."""
        key = (wish.format, wish.tickers, since, resumed)
        payload = self._frames.get(key)
        if payload is None:
            self.counters["encodes"] += 1
            payload = wish.format.encode(self._changes(since, wish.tickers, resumed))
            if len(self._frames) >= MAX_FRAMES:
                self._frames.clear()
            self._frames[key] = payload
        return payload

    def _changes(self, since: int, tickers: Filter, resumed: bool | None) -> Batch:
        wanted = [ticker for ticker in self._tickers if tickers is None or ticker in tickers]
        changed = [entry for ticker in wanted if (entry := self._table[ticker]).sequence > since]
        listed = resumed is not None or self._has_list_changed(since, tickers)
        return Batch(
            id=f"{self._epoch_of(tickers)}-{self.sequence}",
            timestamp=self._flushed_at,
            tickers=wanted if listed else None,
            statuses=[entry for entry in changed if not entry.quote.is_current],
            updates=[entry for entry in changed if entry.quote.is_current],
            resumed=resumed,
        )

    def _has_list_changed(self, since: int, tickers: Filter) -> bool:
        if self._list_changed <= since or tickers is None:
            return self._list_changed > since
        came = (entry.tracked for ticker in tickers if (entry := self._table.get(ticker)) is not None)
        went = (self._removed.get(ticker, 0) for ticker in tickers)
        return any(sequence > since for sequence in (*came, *went))

    # --- a client's life ----------------------------------------------------------------------------------------------

    def check_room(self, address: str = "") -> None:
        """Raises ShuttingDown, TooManyStreams or TooManyStreamsPerAddress when no new client would be admitted."""
        if self._stopping:
            raise ShuttingDown("Pluto is shutting down; come back in a moment.")
        if len(self._clients) >= self._max_streams:
            raise TooManyStreams(f"{self._max_streams} streams are open, the most allowed; come back later.")
        if self._streams_of.get(address, 0) >= self._max_streams_per_address:
            raise TooManyStreamsPerAddress(
                f"{self._max_streams_per_address} streams are open to your address, the most allowed: close one, "
                "or start Pluto with a higher --max-streams-per-address."
            )

    def admit(self, wish: Wish, last_event_id: str = "", address: str = "") -> Client:
        """A place for a client, with the first bytes of its stream: a greeting, and what it doesn't have yet.

        It counts until it is dropped. Raises TooManyStreams, TooManyStreamsPerAddress or ShuttingDown.
        """
        try:
            self.check_room(address)
        except (TooManyStreams, TooManyStreamsPerAddress):
            self.counters["refused"] += 1
            raise
        since = self._resume_point(last_event_id, wish.tickers)
        first = self._payload(wish, -1 if since is None else since, resumed=since is not None)
        client = Client(wish, self.sequence, wish.format.greet(secrets.token_hex(8)) + first, address)
        self._clients.add(client)
        if address:
            self._streams_of[address] += 1
        return client

    def _epoch_of(self, tickers: Filter) -> str:
        """Of this run and these tickers: a sequence says nothing of tickers that a client had not asked for then."""
        return self.epoch if tickers is None else f"{self.epoch}{crc32(','.join(sorted(tickers)).encode()):08x}"

    def _resume_point(self, last_event_id: str, tickers: Filter) -> int | None:
        """The flush a client has, by the id of its last event; None when that says nothing here."""
        epoch, _, text = last_event_id.partition("-")
        if epoch != self._epoch_of(tickers) or not (text.isascii() and text.isdecimal()) or len(text) > 18:
            return None
        return int(text) if self._forgotten <= int(text) <= self.sequence else None

    def attach(self, client: Client, connection: socket.socket) -> None:
        """From now on this socket is the broadcaster's; the client's first bytes are sent already."""
        if client not in self._clients:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.socket, client.send, client.first = connection, connection.send, b""
        client.reader = self._loop.io(connection.fileno(), READABLE)
        client.reader.start(self._on_readable, client)
        self._join(client, client.sequence)

    def _join(self, client: Client, has: int) -> None:
        """Puts a client into the group of its wish; a flush that came since its first bytes were made is caught up."""
        wish = client.wish
        group = self._groups.get(wish)
        if group is None:
            group = self._groups[wish] = Group(wish, self.sequence)
        group.members[client] = None
        client.group = group
        if has < self.sequence:  # the group itself may be amid a flush
            self._follow(client, b"", has)

    def _quit_group(self, client: Client) -> None:
        if (group := client.group) is not None:
            group.members.pop(client, None)
            if not group.members:
                self._groups.pop(group.wish, None)
            client.group = None

    def change_wish(self, client: Client, wish: Wish) -> None:
        """From now on the client gets this, beginning with all of it."""
        if client not in self._clients or client.left_at is not None:
            return
        self._quit_group(client)
        client.wish = wish
        self._join(client, self.sequence)
        self.write(client, self._payload(wish, -1, resumed=False))

    def write(self, client: Client, data: bytes) -> None:
        """Sends bytes for this client alone, in their place: never inside a frame that is half sent."""
        if client.tail is not None:
            if len(client.tail) + len(data) > MAX_TAIL:
                self.drop(client, "flooding")
            else:
                client.tail += data
            return
        try:
            sent = client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(client, "reset")
            return
        if sent != len(data):
            self._fall_behind(client, data[sent:], self._group_sequence(client))

    def expire(self, client: Client, seconds: float) -> None:
        """The client's own deadline: so long from now, its stream ends."""
        client.expiry = self._loop.timer(seconds)
        client.expiry.start(self._on_expiry, client)

    def _on_expiry(self, client: Client) -> None:
        self.leave(client, client.wish.format.expired, "deadline")

    def leave(self, client: Client, last_words: bytes, reason: str) -> None:
        """Ends a client's stream in order. One that is lagging can't be told, and is dropped."""
        if client.socket is None or client.tail is not None or client.left_at is not None:
            self.drop(client, reason)
            return
        if client.wish.chunked:
            last_words = http_chunk(last_words) + LAST_CHUNK
        self._quit_group(client)
        try:
            client.send(last_words)
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(client, reason)
            return
        client.left_at = time.monotonic()
        self.counters[f"left: {reason}"] += 1

    def drop(self, client: Client, reason: str) -> None:
        """The end of a client: its place, its watchers and its socket are free again."""
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._quit_group(client)
        if client.address:
            self._streams_of[client.address] -= 1
            if not self._streams_of[client.address]:
                del self._streams_of[client.address]
        if client.left_at is None:
            self.counters[f"dropped: {reason}"] += 1
        for watcher in (client.reader, client.writer, client.expiry):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        client.reader = client.writer = client.expiry = client.receive = None
        client.send = _send_nowhere
        if client.socket is not None:
            client.socket.close()

    def _group_sequence(self, client: Client) -> int:
        return self.sequence if client.group is None else client.group.sequence

    def _fall_behind(self, client: Client, tail: bytes, has: int) -> None:
        """The client's socket is full."""
        self.counters["lagging"] += 1
        client.lagging_since = time.monotonic()
        self._follow(client, tail, has)

    def _follow(self, client: Client, tail: bytes, has: int) -> None:
        """Sends the tail as the socket takes it, then all that came after flush `has`."""
        assert client.socket is not None
        client.tail, client.sequence, client.drained_at = tail, has, time.monotonic()
        client.writer = self._loop.io(client.socket.fileno(), WRITABLE)
        client.writer.start(self._on_writable, client)

    def _on_writable(self, client: Client) -> None:
        try:
            while client.tail or self._refill(client):
                sent = client.send(client.tail or b"")
                client.tail = (client.tail or b"")[sent:]
                client.drained_at = time.monotonic()
        except BlockingIOError:
            return
        except OSError:
            self.drop(client, "reset")
            return
        client.tail = None
        client.writer.stop()
        client.writer.close()
        client.writer = None
        if client.lagging_since is not None:
            self.delays.lag.observe(time.monotonic() - client.lagging_since)
            client.lagging_since = None

    def _refill(self, client: Client) -> bool:
        """A lagging client's tail is sent: the next is all that changed meanwhile. Says whether anything did."""
        group = client.group
        if group is None or client.sequence >= self.sequence:
            return False
        had, client.sequence = client.sequence, self.sequence
        client.tail = group.frame(self._payload(client.wish, had))
        return bool(client.tail)

    def _on_readable(self, client: Client) -> None:
        assert client.socket is not None
        try:
            data = client.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(client, "closed")
        elif client.left_at is None and client.receive is not None:
            client.receive(data)
        else:
            client.heard += len(data)
            if client.heard > MAX_LISTENED:
                self.drop(client, "flooding")

    def _tend(self) -> None:
        """Twice a second: the door for the stuck and for those who were told to go, a heartbeat for the silent."""
        while True:
            gevent.sleep(TEND_INTERVAL_S)
            try:
                self._drop_overdue(time.monotonic())
                self._drop_vanished()
                self._send_heartbeats(time.monotonic())
            except Exception:
                log.exception("tending the clients failed")

    def _drop_overdue(self, now: float) -> None:
        for client in list(self._clients):
            if client.tail is not None and now - client.drained_at > self._lag_limit:
                self.drop(client, "stuck")
            elif client.left_at is not None and now - client.left_at > LEAVE_LIMIT_S:
                self.drop(client, "left")

    def _drop_vanished(self) -> None:
        """Whose machine or network is gone says no goodbye; what was sent is never acknowledged.

        Linux's own TCP_USER_TIMEOUT would also end a peer that reads, but slowly and with a small window.
        """
        if not self._unchecked:
            self._unchecked = list(self._clients)
        for _ in range(min(len(self._unchecked), 1 + len(self._clients) // CHECKS_A_ROUND)):
            client = self._unchecked.pop()
            is_silent = client.socket is not None and _unacknowledged_ms(client.socket) > self._vanished_after_ms
            if is_silent and client.was_silent:  # once may be a packet that is on its way after a quiet time
                self.drop(client, "vanished")
            client.was_silent = is_silent

    def _send_heartbeats(self, now: float) -> None:
        for group in list(self._groups.values()):
            if (heartbeat := group.wish.format.heartbeat) and now - group.sent_at >= self._heartbeat:
                group.sent_at = now
                self._send(list(group.members), group.frame(heartbeat), group.sequence)


class Stream:
    """A stream as a WSGI response: its first bytes, then whatever the broadcaster sends.

    A server that can give its connection away does so after the first bytes: it calls back what `hand_over` is given.
    For any other (TLS, HTTP/1.0, foreign WSGI servers) `hand_over` is None: the broadcaster writes into a pipe instead,
    and what comes out is passed on. All else is the same path.
    """

    def __init__(self, broadcaster: Broadcaster, client: Client, hand_over: HandOver | None) -> None:
        self._broadcaster, self._client, self._hand_over = broadcaster, client, hand_over
        self._pipe: Any = None
        self._has_begun = False
        self._is_given_away = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            first, self._client.first = self._client.first, b""
            if self._hand_over is not None:
                self._hand_over(self._take_over)
            return first
        if self._pipe is None:
            self._pipe, theirs = hub_socket.socketpair()
            self._broadcaster.attach(self._client, socket.socket(fileno=theirs.detach()))
        data: bytes = self._pipe.recv(SEND_BUFFER)
        if not data:
            raise StopIteration
        return data

    def _take_over(self, connection: socket.socket) -> None:
        self._is_given_away = True
        self._broadcaster.attach(self._client, connection)

    def close(self) -> None:
        """The WSGI server's last call, whatever happened."""
        if self._pipe is not None:
            self._pipe.close()
        if not self._is_given_away:
            self._broadcaster.drop(self._client, "closed")


def _unacknowledged_ms(connection: socket.socket) -> int:
    """For how long the peer has acknowledged nothing while something was to be; 0 where the system can't tell.

    The fields of Linux's struct tcp_info, which only grows at its end: probes of a closed window that have no answer
    (the fourth byte), packets out without one (at 24), and ms since the last acknowledgement (at 56).
    """
    if sys.platform != "linux" or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    except OSError:  # it is closed
        return 0
    probes, packets, silent_ms = TCP_INFO.unpack(info)
    return silent_ms if probes or packets else 0


def _now_ms() -> int:
    return round(time.time() * 1000)
