"""The broadcaster: fan-out of quotes to every client, at most one batch every 50 ms, encoded once for all.

This file owns the newest quote of every ticker, the sequence that numbers the flushes, and the subscribers' buffers.
It knows nothing of browsers, HTTP or settings. Everything runs on the hub thread but `Broadcaster.put`, which any
thread may call: quotes cross threads there and nowhere else.

    put → hand-off (newest per ticker) → flush → table → one frame per (format, tickers) → every subscriber of it

A slow subscriber's buffer is bounded: when it is full it is emptied, and the subscriber gets one frame with all that
changed since what it last had. So it costs no more memory for being slow, and is right again when it has caught up.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gevent
from gevent.event import Event

from quotes import Quote, State, Ticker, wire_fields

log = logging.getLogger("pluto.broadcast")

FLUSH_INTERVAL_S = 0.05  # the design card's figure
HEARTBEAT_S = 15.0
MAX_QUEUED_FRAMES = 64  # per subscriber, 3 s of batches
RETRY_MS = 2_000  # how long a client waits before it connects again

Filter = frozenset[Ticker] | None
"""The tickers a client asked for; None means all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A ticker's newest quote, the flush it came with, and its JSON, made once for all frames that carry it."""

    quote: Quote
    sequence: int
    json: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one frame carries: `tickers` when the list changed, and entries: those with a current price, and the rest.

    `resumed` is None but in the first batch of a stream, where it says whether only what changed was sent.
    """

    id: str
    timestamp: int
    tickers: list[Ticker] | None
    statuses: list[Entry]
    updates: list[Entry]
    resumed: bool | None = None

    @property
    def is_empty(self) -> bool:
        return self.tickers is None and not self.statuses and not self.updates and self.resumed is None


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
    lines = []
    for name, data in messages(batch):
        lines += [f"event: {name}"] if name else []
        lines += [f"data: {data}", ""]
    if lines:
        lines.insert(_start_of_last_event(lines), f"id: {batch.id}")
    return "".join(f"{line}\n" for line in lines).encode()


def greeting_sse(client_id: str) -> bytes:
    return f'retry: {RETRY_MS}\n\ndata: {{"type":"connected","clientId":"{client_id}"}}\n\n'.encode()


def _start_of_last_event(lines: list[str]) -> int:
    start = len(lines) - 2
    return start - 1 if start > 0 and lines[start - 1].startswith("event: ") else start


def _updates(kind: str, entries: list[Entry], timestamp: int, resumed: bool | None = None) -> str:
    updates = ",".join(entry.json for entry in entries)
    suffix = "" if resumed is None else f',"resumed":{_json(resumed)}'
    return f'{{"type":"{kind}","updates":[{updates}],"timestamp":{timestamp}{suffix}}}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


HEARTBEAT_SSE = b": keep-alive\n\n"
SHUTDOWN_SSE = b'event: shutdown\ndata: {"type":"shutdown"}\n\n'


@dataclass(eq=False)
class Subscriber:
    """One client's buffer: frames that wait to be sent to it. `sequence` is the last flush put there."""

    tickers: Filter
    sequence: int
    frames: deque[bytes] = field(default_factory=deque)
    ready: Event = field(default_factory=Event)
    lagging: bool = False
    ended: bool = False


class Broadcaster:
    """Keeps the newest quote of every tracked ticker and tells every subscriber what changed."""

    def __init__(self, *, interval: float = FLUSH_INTERVAL_S, heartbeat: float = HEARTBEAT_S) -> None:
        self.epoch = secrets.token_hex(4)  # a sequence means something only within one run of the server
        self.sequence = 0
        self.counters: Counter[str] = Counter()
        self._interval = interval
        self._heartbeat = heartbeat
        self._handoff: dict[Ticker, Quote] = {}  # newest per ticker: bounded by their number, never overflows
        self._table: dict[Ticker, Entry] = {}
        self._tickers_changed = 0  # the flush in which a ticker came or went
        self._list_is_new = False
        self._subscribers: set[Subscriber] = set()
        self._dirty = Event()
        self._wakeup = gevent.get_hub().loop.async_()
        self._flusher: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._wakeup.start(self._dirty.set)
        self._flusher = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ends every stream with an event that says so."""
        self._wakeup.stop()
        if self._flusher is not None:
            self._flusher.kill()
        for subscriber in self._subscribers:
            subscriber.frames.append(SHUTDOWN_SSE)
            subscriber.ended = True
            subscriber.ready.set()

    def put(self, quote: Quote) -> None:
        """Any thread: the newest quote of a ticker."""
        self._handoff[quote.ticker] = quote
        self._wakeup.send()

    # --- the table ----------------------------------------------------------------------------------------------------

    def track(self, ticker: Ticker, *, simulated: bool) -> None:
        """From now on quotes of this ticker are taken; until the first comes, it is starting."""
        self._handoff[ticker] = Quote(ticker, State.STARTING, simulated=simulated)
        self._set_entry(self._handoff[ticker])
        self._list_is_new = True
        self._dirty.set()

    def untrack(self, ticker: Ticker) -> None:
        self._table.pop(ticker, None)
        self._list_is_new = True
        self._dirty.set()

    @property
    def tickers(self) -> list[Ticker]:
        return sorted(self._table)

    def entry(self, ticker: Ticker) -> Entry | None:
        return self._table.get(ticker)

    @property
    def entries(self) -> list[Entry]:
        return [self._table[ticker] for ticker in self.tickers]

    @property
    def clients(self) -> int:
        return len(self._subscribers)

    @property
    def queued(self) -> int:
        """Frames that wait in subscribers' buffers."""
        return sum(len(subscriber.frames) for subscriber in self._subscribers)

    @property
    def waiting(self) -> int:
        """Quotes in the hand-off."""
        return len(self._handoff)

    def _set_entry(self, quote: Quote) -> Entry:
        entry = Entry(quote, self.sequence, _json(wire_fields(quote, self.sequence)))
        self._table[quote.ticker] = entry
        return entry

    # --- the flush ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Leading edge: the first change after a quiet spell leaves at once, then at most one batch an interval."""
        while True:
            self._dirty.wait()
            self._dirty.clear()
            try:
                self.flush()
            except Exception:
                log.exception("a flush failed")
            gevent.sleep(self._interval)

    def flush(self) -> None:
        """Takes what waits in the hand-off into the table and offers it to all subscribers, encoded once per filter."""
        quotes = self._drain()
        if not quotes and not self._list_is_new:
            return
        self.sequence += 1
        self.counters["flushes"] += 1
        if self._list_is_new:
            self._list_is_new, self._tickers_changed = False, self.sequence
        for quote in quotes:
            self._set_entry(quote)
        frames: dict[Filter, bytes] = {}
        for subscriber in self._subscribers:
            if subscriber.tickers not in frames:
                frames[subscriber.tickers] = self._frame(self.sequence - 1, subscriber.tickers)
            self._offer(subscriber, frames[subscriber.tickers])

    def _drain(self) -> list[Quote]:
        """The waiting quotes of tracked tickers; of one removed meanwhile, the last words come too late."""
        quotes = []
        for _ in range(len(self._handoff)):
            ticker, quote = self._handoff.popitem()
            if ticker in self._table:
                quotes.append(quote)
        return quotes

    def _frame(self, since: int, tickers: Filter) -> bytes:
        batch = self._changes(since, tickers)
        if batch.is_empty:
            return b""
        self.counters["encodes"] += 1
        return encode_sse(batch)

    def _changes(self, since: int, tickers: Filter, *, resumed: bool | None = None) -> Batch:
        """All that changed after flush `since`, for a client that asked for these tickers."""
        wanted = [entry for entry in self.entries if tickers is None or entry.quote.ticker in tickers]
        changed = [entry for entry in wanted if entry.sequence > since]
        listed = self._tickers_changed > since or resumed is not None
        return Batch(
            id=f"{self.epoch}-{self.sequence}",
            timestamp=round(time.time() * 1000),
            tickers=[entry.quote.ticker for entry in wanted] if listed else None,
            statuses=[entry for entry in changed if not entry.quote.is_current],
            updates=[entry for entry in changed if entry.quote.is_current],
            resumed=resumed,
        )

    def _offer(self, subscriber: Subscriber, frame: bytes) -> None:
        if subscriber.lagging:
            self.counters["conflated"] += 1
        elif len(subscriber.frames) >= MAX_QUEUED_FRAMES:
            self.counters["lagging"] += 1
            subscriber.frames.clear()
            subscriber.lagging = True
        elif frame:
            subscriber.frames.append(frame)
            subscriber.sequence = self.sequence
        subscriber.ready.set()

    # --- streams ------------------------------------------------------------------------------------------------------

    def stream(self, tickers: Iterable[Ticker] | None = None, last_event_id: str = "") -> Iterator[bytes]:
        """The frames of a client's stream: a greeting, what it doesn't have yet, then every flush until it goes away."""
        wanted = None if tickers is None else frozenset(tickers)
        with self._subscription(wanted) as subscriber:
            yield greeting_sse(secrets.token_hex(8)) + self._first_frame(wanted, last_event_id)
            while not (subscriber.ended and not subscriber.frames):
                yield self._next_frame(subscriber)

    @contextmanager
    def _subscription(self, tickers: Filter) -> Iterator[Subscriber]:
        subscriber = Subscriber(tickers, self.sequence)
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def _first_frame(self, tickers: Filter, last_event_id: str) -> bytes:
        epoch, _, sequence = last_event_id.partition("-")
        resumed = epoch == self.epoch and sequence.isdecimal() and int(sequence) <= self.sequence
        since = int(sequence) if resumed else -1
        return encode_sse(self._changes(since, tickers, resumed=resumed))

    def _next_frame(self, subscriber: Subscriber) -> bytes:
        """Waits for the subscriber's next frame; a comment when nothing happens for a heartbeat's time."""
        if not subscriber.frames and not subscriber.lagging and not subscriber.ready.wait(self._heartbeat):
            return HEARTBEAT_SSE
        subscriber.ready.clear()
        if subscriber.lagging:
            subscriber.lagging = False
            since, subscriber.sequence = subscriber.sequence, self.sequence
            return self._frame(since, subscriber.tickers)
        return subscriber.frames.popleft() if subscriber.frames else b""
