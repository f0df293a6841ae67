"""The broadcaster: sends quotes to every client, at most one batch every 50 ms, encoded once for all.

This file owns the newest quote of every ticker, the sequence that numbers the flushes, and every client's socket from
the moment its stream begins. It knows nothing of browsers, routes, settings or any transport's format. Everything runs
on the hub thread except `Broadcaster.put`, `mark` and `announce`, which any thread may call: quotes, and alerts that
have rung, cross threads there and nowhere else.

    put → hand-off (newest per ticker) → flush → table → one frame per audience → one non-blocking send per client

    Table        the newest quote per ticker, the changes since a given flush, the end of each proof
    Frames       the bytes to send, encoded once for all clients that need the same
    Client       one client's socket, how it lags and how it catches up
    Clients      admits and drops clients, owns the audiences, sends
    Broadcaster  the hand-off, the flush every 50 ms and the tick every 0.5 s

An audience is the clients that want the same bytes: one format, one set of tickers, one rate. A client has no greenlet
and no queue. If its socket is full, it is *lagging*: the broadcaster keeps only the unsent rest of the current frame.
When the socket has drained, the client is sent one frame with everything that changed meanwhile. So a slow client uses
no more memory, delays nobody, and is up to date once it has caught up. A client that drains nothing for 15 s is closed.
"""

from __future__ import annotations

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
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

import gevent
from gevent.event import Event

from quotes import (
    NO_SIGN_OF_LIFE,
    NOT_OPENED,
    PlutoError,
    Quote,
    State,
    Ticker,
    compact_json,
    parse_tickers,
    steady_ms,
    wall_ms,
    wire_fields,
)

log = logging.getLogger("pluto.broadcast")

FLUSH_INTERVAL_S = 0.05  # the design card's figure
TICK_S = 0.5  # between two checks of proofs, clients and heartbeats
MIN_RATE, MAX_RATE = 0.1, 20.0  # batches per second that a stream may ask for
LEAVE_LIMIT_S = 1.0  # for a client to read its last bytes and close its side
VANISHED_AFTER = 4 / 3  # times the lag limit: a peer that acknowledges nothing for this long is gone
CHECKS_A_ROUND = 10  # each tick checks one in so many peers
SEND_BUFFER = 32 * 1024  # bytes that the kernel keeps per client
DRAIN_LIMIT = 256  # quotes taken from the hand-off at once; the rest goes with the next flush
MAX_UNREAD = 64 * 1024  # bytes that a client may send although no handler reads them
MAX_TAIL = 256 * 1024  # unsent bytes at which Pluto drops a lagging client
MAX_ANNOUNCED = 10_000  # alerts that wait for the next flush
MAX_REMOVED = 1_000  # removals remembered for clients that resume
MAX_FRAMES = 256  # frames cached
WHOLE_EVERY_S = 1.0  # how often whole frames are sent again
RETRY_MS = 2_000  # how long a client waits before it connects again
TCP_INFO = struct.Struct("=3xB20xI28xI")  # Linux's struct tcp_info, see _unacknowledged_ms
DELAY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)  # of histograms
READABLE, WRITABLE = 1, 2  # libev's events of an io watcher
LAST_CHUNK = b"0\r\n\r\n"


class Selection(frozenset[Ticker]):
    """The tickers that a client asked for. It computes derived values once."""

    _list: list[Ticker] | None = None
    _found: list[Ticker]

    @cached_property
    def mark(self) -> str:
        """Identifies the selection in the id of a batch."""
        return f"{crc32(','.join(sorted(self)).encode()):08x}"

    def of(self, tickers: list[Ticker]) -> list[Ticker]:
        """Its tickers among those of this list, in the list's order. The list must never change afterwards."""
        if self._list is not tickers:
            self._list, self._found = tickers, [ticker for ticker in tickers if ticker in self]
        return self._found


Filter = Selection | None
"""None means all."""


@dataclass(frozen=True)
class StreamLimits:
    """Limits of the streams. Times are in seconds."""

    max_streams: int = 10_000
    max_streams_per_address: int = 100
    interval: float = FLUSH_INTERVAL_S
    heartbeat: float = 5.0  # Pluto sends an audience a heartbeat after this silence
    lag_limit: float = 15.0  # Pluto closes a client that drains nothing for this long
    slice: int = 1_000  # clients of one audience served before the hub gets a turn
    turn: float = 0.001  # spent on other audiences before the hub gets a turn


@dataclass(slots=True, eq=False)
class Entry:
    """A ticker's newest quote, the flush it came with (`sequence`), and the one the ticker came with (`tracked`).

    `number` is what clients are told as its sequence: that of the relay's stream if the quote came from there.

    `wire_json` is the quote as REST, SSE and WebSocket send it. In `encoded` every other format keeps its own bytes,
    under its own name. A later proof replaces `quote` by an equal one; any other change makes a new entry.
    """

    quote: Quote
    sequence: int
    tracked: int
    wire_json: str
    number: int = 0
    encoded: dict[str, bytes] = field(default_factory=dict)
    is_complete: bool = field(init=False)  # the quote's own, asked for once: every filter that has the ticker needs it

    def __post_init__(self) -> None:
        self.is_complete = self.quote.is_complete


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one frame: `tickers` if the list changed, complete `updates`, and `statuses`: all other quotes.

    `timestamp` is in ms. `resumed` is only set in the first batch of a stream: True if it contains only what changed
    since the client's last batch. `not_tracked` goes with `tickers`: those of the client's filter that aren't tracked.
    """

    id: str
    timestamp: int
    tickers: list[Ticker] | None
    statuses: list[Entry]
    updates: list[Entry]
    resumed: bool | None = None
    not_tracked: tuple[Ticker, ...] = ()


def _say_nothing(_: object) -> bytes:
    return b""


@dataclass(frozen=True, eq=False)
class Format:
    """How a transport writes: pure functions to bytes. `end` takes the ms after which the client may come back.

    `heartbeat` takes the time in ms since the epoch; None if a transport has none. `expired` is sent to a client whose
    own deadline has passed. `alert` takes an alert's JSON; None if a transport has none.
    `is_whole` means that each frame has all tickers, and is also sent again every second because it has their ages.
    """

    name: str
    encode: Callable[[Batch], bytes]
    greet: Callable[[str], bytes] = _say_nothing
    heartbeat: Callable[[int], bytes] | None = None
    end: Callable[[int], bytes] = _say_nothing
    expired: bytes = b""
    alert: Callable[[str], bytes] | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client wants: everything that makes its bytes differ from another client's.

    `interval` is the least time between batches, in seconds. `chunked` means that the broadcaster writes HTTP chunks
    itself, because the HTTP server has handed the socket over.
    """

    format: Format
    tickers: Filter = None
    interval: float = 0.0
    chunked: bool = False


def filter_of(texts: Iterable[str], limit: int) -> Filter:
    """The tickers that a client lists, at most `limit`; all if it lists none. Raises FilterTooLarge, InvalidTicker."""
    listed = [ticker for text in texts for ticker in parse_tickers(text)]
    if len(listed) > limit:
        raise FilterTooLarge(
            f"The filter has {len(listed)} tickers, but --max-tickers allows {limit}: list fewer, or none to get all."
        )
    return Selection(listed) or None


def interval_of(max_rate: float | str) -> float:
    """The least seconds between batches for a client that wants at most `max_rate` a second. Raises InvalidRate."""
    try:
        rate = float(max_rate)
    except ValueError:
        rate = 0.0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidRate(f"max_rate is a number of batches a second from {MIN_RATE} to {MAX_RATE}, not {max_rate!r}.")
    return 0.0 if rate == MAX_RATE else round(1 / rate, 2)


class TooManyStreams(PlutoError):
    code = "too_many_streams"


class TooManyStreamsPerAddress(PlutoError):
    code = "too_many_streams_per_address"


class ShuttingDown(PlutoError):
    code = "shutting_down"


class FilterTooLarge(PlutoError):
    code = "filter_too_large"


class InvalidRate(PlutoError):
    code = "invalid_rate"


# --- figures ----------------------------------------------------------------------------------------------------------


class Histogram:
    """Counts durations: `counts` has one place per upper bound, in seconds, and one for the rest."""

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
    """How long a price takes on each part of its way. Observed outside the hot loop.

    `page` and `handoff` are computed from the quote's own times: whole milliseconds of the machine's clock.
    """

    page: Histogram = field(default_factory=Histogram)  # from the page showing a price to Pluto receiving it
    handoff: Histogram = field(default_factory=Histogram)  # from there to the flush that sends it
    flush: Histogram = field(default_factory=Histogram)  # a flush itself
    lateness: Histogram = field(default_factory=Histogram)  # how late a flush was
    relay: Histogram = field(default_factory=Histogram)  # from Redis having a change to this process reading it
    lag: Histogram = field(default_factory=Histogram)  # from a client's socket being full to its catching up


class Since(NamedTuple):
    """What a client has: everything up to this flush of ours, or up to this position of the relay's stream."""

    sequence: int
    position: int | None = None

    def lacks(self, entry: Entry) -> bool:
        if self.position is None:
            return entry.sequence > self.sequence
        return entry.quote.position is None or entry.quote.position > self.position


NOTHING = Since(-1)


# --- the table --------------------------------------------------------------------------------------------------------


class Table:
    """The newest quote of every tracked ticker, numbered by the flush it came with.

    `sequence` is the number of the last flush. Later changes belong to the next flush, but readers see them at once,
    with expired prices already stale. `version` grows with every change. `on_change` is called when something changes
    outside a flush. `why_expired` gives the reason that a price is told with once its proof has run out.

    Behind a relay, the table has all of its stream up to `position`. While nothing but the stream has told what is in
    the table, a batch's id is that position: then another process can resume the client.
    """

    def __init__(
        self, clock: Callable[[], float], on_change: Callable[[], None], counters: Counter[str], *, simulated: bool
    ) -> None:
        self.epoch = secrets.token_hex(4)  # a sequence is only valid within one run of the server
        self.sequence = 0
        self.version = 0
        self.stream, self.position = "", 0  # the epoch of the relay's stream; empty without one
        self.why_expired: Callable[[Ticker], str] = lambda ticker: NO_SIGN_OF_LIFE
        self._clock, self._on_change, self._counters = clock, on_change, counters
        self._own: set[Ticker] = set()  # behind a relay: their entries say what the stream doesn't
        self._simulated = simulated  # marks the quotes of tickers that are starting
        self._entries: dict[Ticker, Entry] = {}
        self._tickers: list[Ticker] = []  # sorted
        self._removed: dict[Ticker, int] = {}  # the flush with which a ticker was removed
        self._forgotten = 0  # removals up to this flush are no longer remembered
        self._list_changed = 0  # the flush in which a ticker was last added or removed
        self._has_changed = False  # since the last flush
        self._flushed_at = wall_ms()

    @property
    def tickers(self) -> list[Ticker]:
        return list(self._tickers)

    @property
    def entries(self) -> list[Entry]:
        self.expire()
        return [self._entries[ticker] for ticker in self._tickers]

    def entry(self, ticker: Ticker) -> Entry | None:
        self.expire()
        return self._entries.get(ticker)

    def add(self, ticker: Ticker) -> None:
        """Accepts quotes of this ticker from now on. Until the first one, its state is starting."""
        self._removed.pop(ticker, None)
        quote = Quote(ticker, State.STARTING, simulated=self._simulated, reason=NOT_OPENED)
        self._set(quote, self.sequence + 1)
        self._change_list()

    def remove(self, ticker: Ticker) -> None:
        if self._entries.pop(ticker, None) is None:
            return
        self._own.discard(ticker)
        self._removed[ticker] = self.sequence + 1
        if len(self._removed) > MAX_REMOVED:
            self._forgotten = self._removed.pop(next(iter(self._removed)))
        self._change_list()

    def _change_list(self) -> None:
        self._tickers = sorted(self._entries)
        self._list_changed = self.sequence + 1
        self._mark()
        self._on_change()

    def put(self, quote: Quote) -> Quote | None:
        """Takes a ticker's newest quote. Returns the previous one, or None if only its proof is new.

        Drops a quote of an untracked ticker, which came too late.
        """
        entry = self._entries.get(quote.ticker)
        if entry is None:
            return None
        before, quote = entry.quote, quote.as_of(self._clock(), self.why_expired(quote.ticker))
        if quote == before:
            self._keep(quote, entry)
            return None
        self._set(quote, entry.tracked)
        return before

    def _keep(self, quote: Quote, entry: Entry) -> None:
        """The entry's quote once more: with a later proof, or at another position. No client is told."""
        if quote.position == entry.quote.position:
            entry.quote = quote
        else:
            self._entries[quote.ticker] = self._entry(quote, entry.sequence, entry.tracked)
            self.version += 1
        self._note_origin(quote)

    def expire(self) -> None:
        """Turns every live price whose proof has run out into a stale one."""
        now = self._clock()
        expired = [entry for entry in self._entries.values() if entry.quote.has_expired(now)]
        for entry in expired:
            quote = entry.quote.as_of(now, self.why_expired(entry.quote.ticker))
            log.info("%s: %s: %s", quote.ticker, quote.state, quote.reason)
            self._set(quote, entry.tracked)
        if expired:
            self._counters["prices_expired"] += len(expired)
            self._on_change()

    def _set(self, quote: Quote, tracked: int) -> None:
        self._entries[quote.ticker] = self._entry(quote, self.sequence + 1, tracked)
        self._note_origin(quote)
        self._mark()

    def _entry(self, quote: Quote, sequence: int, tracked: int) -> Entry:
        number = max(quote.position or 0, self.position) if self.stream else sequence
        text = compact_json(wire_fields(quote, number))
        return Entry(quote, sequence, tracked, text, number)

    def _note_origin(self, quote: Quote) -> None:
        if quote.position is None:
            self._own.add(quote.ticker)
        else:
            self._own.discard(quote.ticker)

    def follow(self, stream: str, position: int) -> None:
        """The table has all of the relay's stream up to this position."""
        self.stream, self.position = stream, position

    def _mark(self) -> None:
        self._has_changed = True
        self.version += 1

    def flush(self, now_ms: int) -> bool:
        """Makes one flush of everything that changed since the last one. Returns whether anything did."""
        has_changed, self._has_changed = self._has_changed, False
        if has_changed:
            self.sequence += 1
            self.version += 1
            self._flushed_at = now_ms
        return has_changed

    def changes(self, since: Since, tickers: Filter, resumed: bool | None) -> Batch:
        """Everything that a client lacks."""
        wanted = self._tickers if tickers is None else tickers.of(self._tickers)
        changed = [entry for ticker in wanted if since.lacks(entry := self._entries[ticker])]
        listed = resumed is not None or self._has_list_changed(since.sequence, tickers)
        return Batch(
            id=self._id(tickers),
            timestamp=self._flushed_at,
            tickers=wanted if listed else None,
            statuses=[entry for entry in changed if not entry.is_complete],
            updates=[entry for entry in changed if entry.is_complete],
            resumed=resumed,
            not_tracked=tuple(sorted(tickers - self._entries.keys())) if listed and tickers else (),
        )

    def _has_list_changed(self, since: int, tickers: Filter) -> bool:
        if self._list_changed <= since or tickers is None:
            return self._list_changed > since
        added = (entry.tracked for ticker in tickers if (entry := self._entries.get(ticker)) is not None)
        removed = (self._removed.get(ticker, 0) for ticker in tickers)
        return any(sequence > since for sequence in (*added, *removed))

    def _id(self, tickers: Filter) -> str:
        """Of a batch that has everything: the position in the stream if nothing else has told what is in the table."""
        if self.stream and not self._own:
            return f"{_named(self.stream, tickers)}-{self.position}"
        return f"{_named(self.epoch, tickers)}-{self.sequence}"

    def resume_point(self, last_event_id: str, tickers: Filter) -> Since | None:
        """What a client has, from the id of its last batch; None if that id is unknown here."""
        epoch, _, text = last_event_id.partition("-")
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            return None
        if self.stream and epoch == _named(self.stream, tickers):
            return Since(-1, int(text)) if int(text) <= self.position else None
        if epoch != _named(self.epoch, tickers):
            return None
        return Since(int(text)) if self._forgotten <= int(text) <= self.sequence else None


class Frames:
    """The table's changes as bytes, encoded once for all clients that need the same."""

    def __init__(self, table: Table, counters: Counter[str]) -> None:
        self._table, self._counters = table, counters
        self._frames: dict[tuple[object, ...], bytes] = {}
        self._version = table.version  # of the table when the frames were made

    def payload(self, subscription: Subscription, since: int) -> bytes:
        """Everything that changed after flush `since`."""
        return self._encode(subscription, Since(since), None)

    def first_payload(self, subscription: Subscription, since: Since | None) -> bytes:
        """The first batch of a stream: everything, or (if it resumes) all that the client lacks."""
        self._table.expire()
        return self._encode(subscription, since or NOTHING, since is not None)

    def _encode(self, subscription: Subscription, since: Since, resumed: bool | None) -> bytes:
        if self._version != self._table.version:
            self._version = self._table.version
            self._frames.clear()
        if subscription.format.is_whole:
            since, resumed = NOTHING, None
        key = (subscription.format, subscription.tickers, since, resumed)
        payload = None if subscription.format.is_whole else self._frames.get(key)
        if payload is None:
            self._counters["encodes"] += 1
            payload = subscription.format.encode(self._table.changes(since, subscription.tickers, resumed))
            if len(self._frames) >= MAX_FRAMES:
                self._frames.clear()
            self._frames[key] = payload
        return payload


# --- clients ----------------------------------------------------------------------------------------------------------


class Audience:
    """The clients with one subscription: they share one bytes object. `sequence` is the flush that all have."""

    __slots__ = ("due_at", "members", "sent_at", "sequence", "subscription")

    def __init__(self, subscription: Subscription, sequence: int) -> None:
        self.subscription = subscription
        self.sequence = sequence
        self.members: dict[Client, None] = {}  # in the order of joining, which is also memory order
        self.sent_at = time.monotonic()
        self.due_at = 0.0

    def frame(self, payload: bytes) -> bytes:
        return http_chunk(payload) if payload and self.subscription.chunked else payload


class Client:
    """One client: admitted, then started on its socket, then dropped. `Clients` makes them.

    `first` is the first bytes of its stream, until they are sent. `receive` takes the client's bytes; without it they
    are discarded. `tail` is None while the client keeps up, otherwise the unsent rest of the current frame; `sequence`
    is the flush that a lagging client has. Its stream counts for `address`; empty: for none.
    """

    __slots__ = (
        "_clients", "_deadline", "_lagging_since", "_reader", "_socket", "_unread", "_writer", "address", "audience",
        "drained_at", "first", "left_at", "receive", "send", "sequence", "subscription", "tail", "was_silent",
    )  # fmt: skip

    def __init__(self, clients: Clients, subscription: Subscription, sequence: int, first: bytes, address: str) -> None:
        self.subscription, self.sequence, self.first, self.address = subscription, sequence, first, address
        self.audience: Audience | None = None
        self.send: Callable[[bytes], int] = _send_nowhere
        self.receive: Callable[[bytes], None] | None = None
        self.tail: bytes | None = None
        self.drained_at = 0.0
        self.left_at: float | None = None
        self.was_silent = False  # at the last check it had acknowledged nothing for too long
        self._clients = clients
        self._socket: socket.socket | None = None
        self._reader: Any = None
        self._writer: Any = None
        self._deadline: Any = None
        self._lagging_since: float | None = None
        self._unread = 0

    @property
    def audience_sequence(self) -> int:
        return self._clients.table.sequence if self.audience is None else self.audience.sequence

    def start(self, connection: socket.socket) -> None:
        """Continues the stream on this socket, which the broadcaster owns from now on. `first` has been sent."""
        if self not in self._clients:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self.send, self.first = connection, connection.send, b""
        self._reader = gevent.get_hub().loop.io(connection.fileno(), READABLE)
        self._reader.start(self._on_readable)
        self._clients.join(self, self.sequence)

    def subscribe(self, subscription: Subscription) -> None:
        """Changes the subscription, and sends everything in it once."""
        if self not in self._clients or self.left_at is not None:
            return
        self._clients.quit_audience(self)
        self.subscription = subscription
        self._clients.join(self, self._clients.table.sequence)
        self.write(self._clients.frames.first_payload(subscription, None))

    def write(self, data: bytes) -> None:
        """Sends bytes to this client alone, never inside a half-sent frame."""
        if self.tail is not None:
            if len(self.tail) + len(data) > MAX_TAIL:
                self.drop("flooding")
            else:
                self.tail += data
            return
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop("reset")
            return
        if sent != len(data):
            self.fall_behind(data[sent:], self.audience_sequence)

    def end_after(self, seconds: float) -> None:
        """Ends the stream at the client's own deadline."""
        self._deadline = gevent.get_hub().loop.timer(seconds)
        self._deadline.start(self._on_deadline)

    def _on_deadline(self) -> None:
        self.leave(self.subscription.format.expired, "deadline")

    def leave(self, last_bytes: bytes, reason: str) -> None:
        """Ends the stream in order: last bytes, then the end. Drops a lagging client, which can't receive them."""
        if self._socket is None or self.tail is not None or self.left_at is not None:
            self.drop(reason)
            return
        if self.subscription.chunked:
            last_bytes = http_chunk(last_bytes) + LAST_CHUNK
        self._clients.quit_audience(self)
        try:
            self.send(last_bytes)
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(reason)
            return
        self.left_at = time.monotonic()
        self._clients.counters[f"left: {reason}"] += 1

    def drop(self, reason: str) -> None:
        """Ends the client: frees its place, its watchers and its socket."""
        if self not in self._clients:
            return
        self._clients.discard(self)
        if self.left_at is None:
            self._clients.counters[f"dropped: {reason}"] += 1
        for watcher in (self._reader, self._writer, self._deadline):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._reader = self._writer = self._deadline = self.receive = None
        self.send = _send_nowhere
        if self._socket is not None:
            self._socket.close()

    # --- lagging ------------------------------------------------------------------------------------------------------

    def fall_behind(self, tail: bytes, has: int) -> None:
        """The socket is full: `tail` and everything after flush `has` are unsent."""
        self._clients.counters["lagging"] += 1
        self._lagging_since = time.monotonic()
        self.catch_up(tail, has)

    def catch_up(self, tail: bytes, has: int) -> None:
        """Sends the tail as the socket accepts it, then everything after flush `has`."""
        assert self._socket is not None
        self.tail, self.sequence, self.drained_at = tail, has, time.monotonic()
        self._writer = gevent.get_hub().loop.io(self._socket.fileno(), WRITABLE)
        self._writer.start(self._on_writable)

    def _on_writable(self) -> None:
        try:
            while self.tail or self._refill():
                sent = self.send(self.tail or b"")
                self.tail = (self.tail or b"")[sent:]
                self.drained_at = time.monotonic()
        except BlockingIOError:
            return
        except OSError:
            self.drop("reset")
            return
        self.tail = None
        self._writer.stop()
        self._writer.close()
        self._writer = None
        if self._lagging_since is not None:
            self._clients.delays.lag.observe(time.monotonic() - self._lagging_since)
            self._lagging_since = None

    def _refill(self) -> bool:
        """Once the tail is sent, makes the next one of all that changed meanwhile. Returns whether anything did."""
        if self.audience is None or self.sequence >= self._clients.table.sequence:
            return False
        had, self.sequence = self.sequence, self._clients.table.sequence
        self.tail = self.audience.frame(self._clients.frames.payload(self.subscription, had))
        return bool(self.tail)

    # --- the other direction ------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop("closed")
        elif self.left_at is None and self.receive is not None:
            self.receive(data)
        else:
            self._unread += len(data)
            if self._unread > MAX_UNREAD:
                self.drop("flooding")

    def unacknowledged_ms(self) -> int:
        return 0 if self._socket is None else _unacknowledged_ms(self._socket)


def _send_nowhere(data: bytes) -> int:
    raise OSError("not started")


class Clients:
    """All clients: admits them, puts each into its audience, sends to the audiences, and drops clients that left."""

    def __init__(self, table: Table, counters: Counter[str], delays: Delays, limits: StreamLimits) -> None:
        self.table, self.counters, self.delays = table, counters, delays
        self.frames = Frames(table, counters)
        self._limits = limits
        self._vanished_after_ms = 1000 * VANISHED_AFTER * limits.lag_limit
        self._clients: set[Client] = set()
        self._audiences: dict[Subscription, Audience] = {}
        self._streams_of: Counter[str] = Counter()  # open streams by address, without zeros
        self._unchecked: list[Client] = []  # clients still to check in this round
        self._is_closed = False

    def __contains__(self, client: Client) -> bool:
        return client in self._clients

    @property
    def by_transport(self) -> Counter[str]:
        return Counter(client.subscription.format.name for client in self._clients)

    @property
    def lagging(self) -> int:
        return sum(client.tail is not None for client in self._clients)

    def check_room(self, address: str = "") -> None:
        """Raises ShuttingDown, TooManyStreams or TooManyStreamsPerAddress if no new client would be admitted."""
        if self._is_closed:
            raise ShuttingDown("Pluto is shutting down; come back in a moment.")
        limits = self._limits
        if len(self._clients) >= limits.max_streams:
            raise TooManyStreams(f"{limits.max_streams} streams are open, the most allowed; come back later.")
        if self._streams_of.get(address, 0) >= limits.max_streams_per_address:
            raise TooManyStreamsPerAddress(
                f"{limits.max_streams_per_address} streams are open to your address, the most allowed: close one, "
                "or start Pluto with a higher --max-streams-per-address."
            )

    def admit(self, subscription: Subscription, last_event_id: str = "", address: str = "") -> Client:
        """Admits a client. Its `first` bytes are a greeting and everything that it doesn't have yet.

        It takes a place until it is dropped. Raises TooManyStreams, TooManyStreamsPerAddress or ShuttingDown.
        """
        try:
            self.check_room(address)
        except (TooManyStreams, TooManyStreamsPerAddress):
            self.counters["refused"] += 1
            raise
        since = self.table.resume_point(last_event_id, subscription.tickers)
        first = subscription.format.greet(secrets.token_hex(8)) + self.frames.first_payload(subscription, since)
        client = Client(self, subscription, self.table.sequence, first, address)
        self._clients.add(client)
        if address:
            self._streams_of[address] += 1
        return client

    def discard(self, client: Client) -> None:
        """Frees the place of a client; `Client.drop` frees the rest."""
        self._clients.discard(client)
        self.quit_audience(client)
        if client.address:
            self._streams_of[client.address] -= 1
            if not self._streams_of[client.address]:
                del self._streams_of[client.address]

    def join(self, client: Client, has: int) -> None:
        """Puts a client that has flush `has` into its subscription's audience, and sends it later flushes."""
        audience = self._audiences.get(client.subscription)
        if audience is None:
            audience = self._audiences[client.subscription] = Audience(client.subscription, self.table.sequence)
        audience.members[client] = None
        client.audience = audience
        if has < self.table.sequence:  # the audience itself may be in the middle of a flush
            client.catch_up(b"", has)

    def quit_audience(self, client: Client) -> None:
        if (audience := client.audience) is not None:
            audience.members.pop(client, None)
            if not audience.members:
                self._audiences.pop(audience.subscription, None)
            client.audience = None

    # --- sending ------------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Sends each due audience the changes that it doesn't have."""
        now = time.monotonic()
        for audience in self._in_turns():
            if audience.sequence < self.table.sequence and audience.due_at <= now:
                self._deliver(audience, now)

    def _in_turns(self) -> Iterator[Audience]:
        """Every audience with members, those without a filter first. Gives the hub its turns."""
        ends_at = time.monotonic() + self._limits.turn
        for audience in sorted(
            self._audiences.values(), key=lambda audience: audience.subscription.tickers is not None
        ):
            if time.monotonic() > ends_at:
                gevent.sleep(0)
                ends_at = time.monotonic() + self._limits.turn
            if audience.members:
                yield audience

    def seconds_until_due(self) -> float | None:
        """Seconds until an audience with a lower rate may get its next changes; None if none waits."""
        due = [audience.due_at for audience in self._audiences.values() if audience.sequence < self.table.sequence]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _deliver(self, audience: Audience, now: float) -> None:
        """Sends an audience its changes slice by slice; it has them only after the last slice."""
        sequence = self.table.sequence
        if frame := audience.frame(self.frames.payload(audience.subscription, audience.sequence)):
            audience.sent_at, audience.due_at = now, now + audience.subscription.interval
            self._send_in_slices(audience, frame, sequence)
        audience.sequence = sequence

    def _send_in_slices(self, audience: Audience, frame: bytes, sequence: int) -> None:
        """Sends to all current members, and gives the hub a turn after each slice."""
        members, size = list(audience.members), self._limits.slice
        self._send(members[:size], frame, sequence)
        for start in range(size, len(members), size):
            gevent.sleep(0)
            still_members = [client for client in members[start : start + size] if client.audience is audience]
            self._send(still_members, frame, sequence)

    def _send(self, members: list[Client], frame: bytes, sequence: int) -> None:
        """The hot loop: the same bytes to each client, one system call each. After it they have flush `sequence`."""
        size, conflated = len(frame), 0
        for client in members:
            if client.tail is not None:
                conflated += 1
                continue
            try:
                sent = client.send(frame)
            except BlockingIOError:
                client.fall_behind(b"", client.audience_sequence)
            except OSError:
                client.drop("reset")
            else:
                if sent != size:
                    client.fall_behind(frame[sent:], sequence)
        self.counters["conflated"] += conflated
        self.counters["sends"] += len(members) - conflated
        self.counters["bytes"] += (len(members) - conflated) * size

    def announce(self, ticker: Ticker, text: str) -> None:
        """Sends an alert to each client that has its ticker. A lagging one gets it after what it lacks."""
        for audience in self._in_turns():
            encode, tickers = audience.subscription.format.alert, audience.subscription.tickers
            if encode is None or (tickers is not None and ticker not in tickers):
                continue
            frame = audience.frame(encode(text))
            for number, client in enumerate(list(audience.members), 1):
                client.write(frame)
                if number % self._limits.slice == 0:
                    gevent.sleep(0)

    # --- every tick ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Drops clients that are stuck, vanished or have left, and sends heartbeats."""
        self._drop_overdue(time.monotonic())
        self._drop_vanished()
        self._send_heartbeats(time.monotonic())
        self._send_whole(time.monotonic())

    def _drop_overdue(self, now: float) -> None:
        for client in list(self._clients):
            if client.tail is not None and now - client.drained_at > self._limits.lag_limit:
                client.drop("stuck")
            elif client.left_at is not None and now - client.left_at > LEAVE_LIMIT_S:
                client.drop("left")

    def _drop_vanished(self) -> None:
        """Drops clients whose machine or network is gone: they acknowledge nothing and never close.

        Linux's TCP_USER_TIMEOUT would also end a slow peer with a small window.
        """
        if not self._unchecked:
            self._unchecked = list(self._clients)
        for _ in range(min(len(self._unchecked), 1 + len(self._clients) // CHECKS_A_ROUND)):
            client = self._unchecked.pop()
            is_silent = client.unacknowledged_ms() > self._vanished_after_ms
            if is_silent and client.was_silent:  # once may be a packet in flight after a quiet time
                client.drop("vanished")
            client.was_silent = is_silent

    def _send_heartbeats(self, now: float) -> None:
        for audience in self._in_turns():
            heartbeat = audience.subscription.format.heartbeat
            if heartbeat and now - audience.sent_at >= self._limits.heartbeat:
                audience.sent_at = now
                self._send_in_slices(audience, audience.frame(heartbeat(wall_ms())), audience.sequence)

    def _send_whole(self, now: float) -> None:
        for audience in list(self._audiences.values()):
            if audience.subscription.format.is_whole and now - audience.sent_at >= WHOLE_EVERY_S:
                self._deliver(audience, now)

    def close(self) -> None:
        """Ends every stream in order: last bytes, then our end of the connection, then the client's."""
        self._is_closed = True
        for client in list(self._clients):
            spread = random.uniform(0, max(RETRY_MS, len(self._clients)))  # at most 1,000 reconnect a second
            client.leave(client.subscription.format.end(round(RETRY_MS + spread)), "shutdown")
        deadline = time.monotonic() + LEAVE_LIMIT_S
        while self._clients and time.monotonic() < deadline:
            gevent.sleep(0.01)
        for client in list(self._clients):
            client.drop("shutdown")


# --- the broadcaster --------------------------------------------------------------------------------------------------


class Broadcaster:
    """Takes quotes from any thread, and sends every client the changes.

    `clock` is the clock of proofs, in ms like `steady_ms`.
    """

    def __init__(
        self, limits: StreamLimits | None = None, *, simulated: bool = False, clock: Callable[[], float] = steady_ms
    ) -> None:
        limits = limits or StreamLimits()
        self.counters: Counter[str] = Counter()
        self.delays = Delays()
        self.lateness_max_s = 0.0  # how late a flush was, at most
        self.flush_max_s = 0.0
        self._dirty = Event()
        self.table = Table(clock, self._dirty.set, self.counters, simulated=simulated)
        self.clients = Clients(self.table, self.counters, self.delays, limits)
        self._interval = limits.interval
        self._lock = threading.Lock()  # of the hand-off
        self._handoff: dict[Ticker, Quote] = {}  # newest per ticker: bounded by their number
        self._announced: list[tuple[Ticker, str]] = []
        self._marked = self._mark_taken = "", 0  # how far the relay's stream is in the hand-off, and in what was taken
        self._taken: dict[Ticker, Quote] = {}  # taken from the hand-off and not yet flushed
        self._is_stopping = False
        self._wakeup = gevent.get_hub().loop.async_()
        self._greenlets: list[gevent.Greenlet[[], None]] = []

    def start(self) -> None:
        self._wakeup.start(self._dirty.set)
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._tick)]

    def stop(self) -> None:
        self._is_stopping = True
        self._wakeup.stop()
        gevent.killall(self._greenlets)
        self.clients.close()

    def put(self, quote: Quote) -> None:
        """Any thread: the newest quote of a ticker."""
        with self._lock:
            self._handoff[quote.ticker] = quote
        self._wakeup.send()

    def mark(self, stream: str, position: int) -> None:
        """Any thread: all quotes of the relay's stream up to this position have been put."""
        with self._lock:
            self._marked = stream, position
        self._wakeup.send()

    def announce(self, ticker: Ticker, text: str) -> None:
        """Any thread: an alert's JSON, for the next flush. What finds no room is left out and counted."""
        with self._lock:
            if len(self._announced) < MAX_ANNOUNCED:
                self._announced.append((ticker, text))
            else:
                self.counters["alerts_left_out"] += 1
        self._wakeup.send()

    def add(self, ticker: Ticker) -> None:
        """Tracks the ticker from now on, and drops quotes put before."""
        with self._lock:
            self._handoff.pop(ticker, None)
        self._taken.pop(ticker, None)
        self.table.add(ticker)

    def remove(self, ticker: Ticker) -> None:
        self.table.remove(ticker)

    @property
    def is_flushing(self) -> bool:
        """Whether flush and tick loops run, as they must until the end; without them clients receive nothing."""
        return self._is_stopping or all(not greenlet.dead for greenlet in self._greenlets)

    @property
    def waiting(self) -> int:
        """How many quotes are in the hand-off."""
        return len(self._handoff) + len(self._taken)

    # --- the flush ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Sends the first change after a quiet time at once, then at most one batch per interval."""
        while True:
            self._dirty.wait(self.clients.seconds_until_due())
            self._dirty.clear()
            started, has_changed = time.monotonic(), True
            try:
                has_changed = self.flush()
            except Exception:
                log.exception("a flush failed")
            flushed = time.monotonic()
            due = max(flushed, started + self._interval) if has_changed else flushed
            gevent.sleep(due - flushed)
            self._note_flush(flushed - started, time.monotonic() - due)

    def _note_flush(self, duration_s: float, lateness_s: float) -> None:
        self.flush_max_s = max(self.flush_max_s, duration_s)
        self.lateness_max_s = max(self.lateness_max_s, lateness_s)
        self.delays.flush.observe(duration_s)
        self.delays.lateness.observe(lateness_s)

    def flush(self) -> bool:
        """Moves quotes from the hand-off into the table, and sends them. Returns whether anything changed."""
        now_ms = wall_ms()
        taken = self._take()
        if self._mark_taken[0] != self.table.stream:
            self.table.follow(self._mark_taken[0], 0)  # the numbers of the stream before mean nothing in this one
        for quote in taken:
            if (before := self.table.put(quote)) is not None:
                self._note_way(before, quote, now_ms)
        if not self._taken:
            self.table.follow(*self._mark_taken)
        if self.waiting:
            self._dirty.set()
        has_changed = self.table.flush(now_ms)
        self.counters["flushes"] += has_changed
        self.clients.deliver()
        for ticker, text in self._take_announced():
            self.clients.announce(ticker, text)
        return has_changed

    def _take_announced(self) -> list[tuple[Ticker, str]]:
        with self._lock:
            announced, self._announced = self._announced, []
        return announced

    def _take(self) -> list[Quote]:
        """Takes a bounded part of the hand-off. Every waiting ticker has its turn before any has a second."""
        if not self._taken:
            with self._lock:
                self._taken, self._handoff = self._handoff, self._taken
                self._mark_taken = self._marked
        return [self._taken.pop(ticker) for ticker in list(islice(self._taken, DRAIN_LIMIT))]

    def _note_way(self, before: Quote, quote: Quote, now_ms: int) -> None:
        """Observes new, live prices only: any other was on the page long before, or is a repetition."""
        shown_at, received_at = quote.timestamp, quote.received_at
        if quote.state is State.LIVE and shown_at and received_at and received_at != before.received_at:
            self.delays.page.observe(max(0, received_at - shown_at) / 1000)
            if quote.position is None:  # else another machine's clock said when Pluto had it
                self.delays.handoff.observe(max(0, now_ms - received_at) / 1000)

    def _tick(self) -> None:
        """Every TICK_S, without drift: finds what no event reports."""
        due = time.monotonic()
        while True:
            due = max(due + TICK_S, time.monotonic())
            gevent.sleep(due - time.monotonic())
            try:
                self.table.expire()
                self.clients.tick()
            except Exception:
                log.exception("a tick failed")


def _named(epoch: str, tickers: Filter) -> str:
    """Names an epoch and these tickers: a sequence is meaningless for tickers that the client hadn't asked for."""
    return epoch if tickers is None else epoch + tickers.mark


def http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _unacknowledged_ms(connection: socket.socket) -> int:
    """For how long the peer has failed to acknowledge, in ms; 0 where the system can't tell.

    Reads Linux's struct tcp_info, which only grows at its end: unanswered probes of a closed window (byte 3),
    unacknowledged packets (at 24), ms since the last acknowledgement (at 56).
    """
    if sys.platform != "linux" or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    except OSError:  # closed
        return 0
    probes, packets, silent_ms = TCP_INFO.unpack(info)
    return silent_ms if probes or packets else 0
