"""A crowd of clients of one server, by every transport, in one thread: what each has been told, at next to no cost.

What most clients get is the same bytes in the same order. So a client is little more than a socket and a View: all that
it knows. The step from one View to the next, by the bytes that came, is worked out once and looked up by all others;
clients that know the same share one View. A client that was cut off comes back by itself and resumes with the id it
had, as a browser does. Linux only (epoll), loopback only.

The crowd's thread owns it all. Other threads look at what the properties give, and have the rest done in order.
"""

from __future__ import annotations

import errno
import heapq
import random
import select
import socket
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from transports import TRANSPORTS, Transport
from truth import Sighting

READ_SIZE = 16 * 1024
POLL_S = 0.02
RETRY_S = 1.0  # on average, until a client that was cut off or refused comes back
DELAY_LIMIT_MS = 60_000
ORDER_LIMIT_S = 30.0


class OutOfOrder(AssertionError):
    """A client was told an older quote after a newer one."""


class Refused(Exception):
    """The server answered that it has no place for a client."""


# --- what clients know ------------------------------------------------------------------------------------------------


class View:
    """All that a client knows: the newest quote of each ticker, the id of its last batch, bytes not yet whole.

    `has_begun` says that this connection's first batch is in it; before, the table is what it knew before it was cut
    off, and shows nobody a price. `steps` is where bytes lead from here.
    """

    __slots__ = ("__weakref__", "has_begun", "is_headed", "last_id", "rest", "steps", "table")

    def __init__(self, table: dict[str, Sighting], last_id: str) -> None:
        self.table, self.last_id = table, last_id
        self.rest = b""
        self.is_headed = False  # the response's head has been read
        self.has_begun = False
        self.steps: dict[bytes, Step] = {}

    @property
    def key(self) -> tuple[object, ...]:
        shown = tuple(id(self.table[ticker]) for ticker in sorted(self.table))
        return self.is_headed, self.has_begun, self.last_id, self.rest, shown


@dataclass(frozen=True, slots=True)
class Step:
    """Where bytes lead: the next View, what is no longer shown there, when a page had the oldest price that came."""

    view: View
    ended: tuple[Sighting, ...] = ()
    shown_at: float = 0.0


@dataclass(frozen=True)
class Pace:
    """How a slow client reads: so many bytes, every so many seconds, of what the kernel keeps for it."""

    size: int
    seconds: float
    buffer: int


@dataclass(eq=False)
class Client:
    """`churn_s` says after how long it hangs up and resumes, on average; `is_in`, that it belongs to the crowd."""

    transport: Transport
    pace: Pace | None = None
    churn_s: float = 0.0
    is_prompt: bool = True  # has always read as fast as it could: what it shows is no older than it must be
    view: View = field(default_factory=lambda: View({}, ""))
    socket: socket.socket | None = None
    has_asked: bool = False  # on this socket
    is_in: bool = True

    @property
    def is_told(self) -> bool:
        return self.socket is not None and self.view.has_begun


# --- the crowd --------------------------------------------------------------------------------------------------------


class Crowd:
    """Clients of one server and all they were told. `delays` counts, by transport and ms, from page to client.

    With `may_renumber` the server's sequence may begin anew, as behind a Redis that was emptied: then an older quote is
    one that Pluto also had earlier.
    """

    def __init__(self, port: int, *, may_renumber: bool = False) -> None:
        self.clients: list[Client] = []
        self.delays = {transport.name: array("q", bytes(8 * (DELAY_LIMIT_MS + 1))) for transport in TRANSPORTS}
        self.counters: Counter[str] = Counter()
        self._port, self._may_renumber = port, may_renumber
        self._epoll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._sightings: dict[tuple[object, ...], Sighting] = {}
        self._views: dict[str, WeakValueDictionary[tuple[object, ...], View]] = {
            transport.name: WeakValueDictionary() for transport in TRANSPORTS
        }
        self._due: list[tuple[float, int, Callable[[Client], None], Client]] = []  # a heap
        self._numbers = count()
        self._orders: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._failure: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="crowd")

    # Any other thread's part.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()

    def join(self, total: int, *, pace: Pace | None = None, churn_s: float = 0.0) -> list[Client]:
        """So many more clients, of each transport in turn."""
        clients = [Client(TRANSPORTS[number % len(TRANSPORTS)], pace, churn_s, pace is None) for number in range(total)]
        self._order(lambda: self._admit(clients))
        return clients

    def leave(self, clients: list[Client]) -> None:
        """These hang up and don't come back."""
        self._order(lambda: self._dismiss(clients))

    def reconnect(self) -> None:
        """Everyone but the slow hangs up and comes back, at once."""
        self._order(self._reconnect_prompt)

    def hurry(self) -> None:
        """The slow read as fast as the others from now on, and nobody hangs up any more."""
        self._order(self._hurry_all)

    def sightings(self) -> list[Sighting]:
        """All that anybody was told until now."""
        seen: list[Sighting] = self._order(self._look)
        return seen

    def tables(self) -> list[dict[str, Sighting]]:
        """What those see who read promptly, without repetition. Raises what went wrong in the crowd's thread."""
        self._check()
        return list({id(client.view): client.view.table for client in list(self.clients) if client.is_prompt}.values())

    @property
    def absent(self) -> int:
        """How many of those who read promptly are cut off or not told anything yet."""
        self._check()
        return sum(not client.is_told for client in list(self.clients) if client.is_prompt)

    def all_live(self, tickers: list[str], since: float) -> bool:
        """Whether every client that reads promptly sees each ticker live, by a price had since then (ms)."""
        return not self.absent and all(
            (shown := table.get(ticker)) is not None and shown.state == "live" and shown.received_at >= since
            for table in self.tables()
            for ticker in tickers
        )

    def _order(self, work: Callable[[], Any]) -> Any:
        """Has the thread do this, and gives its result."""
        self._check()
        done: Future[Any] = Future()
        self._orders.append((work, done))
        result = done.result(ORDER_LIMIT_S)
        self._check()
        return result

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The thread's part.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._obey()
                self._do_what_is_due()
                for fd, events in self._epoll.poll(POLL_S):
                    if (client := self._by_fd.get(fd)) is not None:
                        self._on_ready(client, events)
        except BaseException as failure:  # whoever asks now or next is told
            self._failure = failure
            while self._orders:
                self._orders.popleft()[1].set_exception(failure)
        finally:
            for client in self.clients:
                if client.socket is not None:
                    client.socket.close()
            self._epoll.close()

    def _obey(self) -> None:
        while self._orders:
            work, done = self._orders.popleft()
            try:
                done.set_result(work())
            except Exception as failure:  # whoever gave the order is told
                done.set_exception(failure)

    def _do_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, work, client = heapq.heappop(self._due)
            if client.is_in:
                work(client)

    def _after(self, seconds: float, work: Callable[[Client], None], client: Client) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), work, client))

    def _admit(self, clients: list[Client]) -> None:
        self.clients += clients
        for client in clients:
            self._connect(client)
            if client.churn_s:
                self._after(random.uniform(0.5, 1.5) * client.churn_s, self._churn, client)
            if client.pace is not None:
                self._after(client.pace.seconds, self._read_slowly, client)

    def _dismiss(self, clients: list[Client]) -> None:
        gone = set(clients)
        self.clients = [client for client in self.clients if client not in gone]
        for client in clients:
            client.is_in = False
            self._hang_up(client)

    def _reconnect_prompt(self) -> None:
        prompt = [client for client in self.clients if client.is_prompt]
        for client in prompt:
            self._hang_up(client)
        for client in prompt:
            self._connect(client)

    def _hurry_all(self) -> None:
        for client in self.clients:
            client.churn_s = 0.0
            if client.pace is not None:
                client.pace = None
                if client.socket is not None and client.has_asked:
                    self._epoll.modify(client.socket, select.EPOLLIN)

    def _look(self) -> list[Sighting]:
        now = time.time() * 1000
        for client in self.clients:
            self._show_until(client, now)
        return list(self._sightings.values())

    # A client's life.

    def _connect(self, client: Client) -> None:
        if client.socket is not None:
            return
        connection = socket.socket()
        if client.pace is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, client.pace.buffer)
        connection.setblocking(False)
        code = connection.connect_ex(("127.0.0.1", self._port))
        if code not in (0, errno.EINPROGRESS):
            connection.close()
            self._come_back(client, "refused")
            return
        client.socket, client.has_asked = connection, False
        client.view = View(client.view.table if client.view.last_id else {}, client.view.last_id)
        self._by_fd[connection.fileno()] = client
        self._epoll.register(connection, select.EPOLLOUT)

    def _on_ready(self, client: Client, events: int) -> None:
        if not events & select.EPOLLOUT:
            self._read(client, READ_SIZE)
            return
        assert client.socket is not None
        try:
            client.socket.send(client.transport.request(client.view.last_id))
        except OSError:
            self._cut_off(client, "refused")
            return
        client.has_asked = True
        self._epoll.modify(client.socket, 0 if client.pace else select.EPOLLIN)

    def _read_slowly(self, client: Client) -> None:
        if client.pace is None:
            return
        self._after(client.pace.seconds, self._read_slowly, client)
        if client.socket is not None and client.has_asked:
            self._read(client, client.pace.size)

    def _read(self, client: Client, size: int) -> None:
        """The hot path: nearly always, where the bytes lead is known."""
        assert client.socket is not None
        try:
            data = client.socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._cut_off(client, "lost")
            return
        before = client.view
        step = before.steps.get(data) or self._take(client, data)
        client.view = step.view
        if client.is_prompt and before.has_begun:
            now = time.time() * 1000
            for sighting in step.ended:
                sighting.until = now
            if step.shown_at:
                self.delays[client.transport.name][min(max(0, int(now - step.shown_at)), DELAY_LIMIT_MS)] += 1

    def _take(self, client: Client, data: bytes) -> Step:
        """Works out where these bytes lead. One that is refused stays where it was, and comes back."""
        try:
            step = self._step(client.transport, client.view, data)
        except Refused:
            self._cut_off(client, "refused")
            return Step(client.view)
        client.view.steps[data] = step
        return step

    def _step(self, transport: Transport, view: View, data: bytes) -> Step:
        after = View(dict(view.table), view.last_id)
        after.is_headed, after.has_begun = view.is_headed, view.has_begun
        data = view.rest + data
        if not after.is_headed:
            data = _behead(after, data)
        messages, after.rest = transport.read(data) if after.is_headed else ([], data)
        news: list[Sighting] = []
        for message in messages:
            news += self._learn(after, message)
        ended = tuple(it for ticker, it in view.table.items() if after.table.get(ticker) is not it)
        shown = [it.timestamp for it in news if it.state == "live" and _is_change(it, view.table.get(it.ticker))]
        view = self._views[transport.name].setdefault(after.key, after)
        return Step(view, ended, min(shown, default=0.0))

    def _learn(self, view: View, message: dict[str, Any]) -> list[Sighting]:
        """Takes a message into a View; gives the quotes in it."""
        if (tickers := message.get("tickers")) is not None:
            view.table = {ticker: shown for ticker, shown in view.table.items() if ticker in tickers}
        news = [self._sighting(fields) for fields in message.get("updates", ())]
        for sighting in news:
            if (before := view.table.get(sighting.ticker)) is not None and self._is_older(sighting, before):
                raise OutOfOrder(f"{sighting} after {before}")
            view.table[sighting.ticker] = sighting
        view.last_id = message.get("id", view.last_id)
        view.has_begun |= "resumed" in message
        return news

    def _is_older(self, sighting: Sighting, before: Sighting) -> bool:
        has_fallen = before.sequence > sighting.sequence
        if not self._may_renumber:
            return has_fallen
        return has_fallen and sighting.state == "live" and before.received_at > sighting.received_at

    def _sighting(self, fields: Mapping[str, Any]) -> Sighting:
        """The one object for this quote, by whatever transport it came."""
        key = (
            fields["ticker"],
            fields["state"].removeprefix("STATE_").lower(),
            fields.get("priceText"),
            int(fields.get("timestamp", 0)),
            int(fields.get("receivedAt", 0)),
            int(fields.get("sequence", 0)),  # protobuf leaves 0 out
        )
        return self._sightings.setdefault(key, Sighting(*key))

    def _churn(self, client: Client) -> None:
        if client.churn_s:
            self._after(random.uniform(0.5, 1.5) * client.churn_s, self._churn, client)
            self._hang_up(client)
            self._connect(client)
            self.counters["churned"] += 1

    def _cut_off(self, client: Client, reason: str) -> None:
        self._hang_up(client)
        self._come_back(client, reason if client.is_prompt else f"{reason}, slow")

    def _come_back(self, client: Client, reason: str) -> None:
        self.counters[reason] += 1
        self._after(random.uniform(0.5, 1.5) * RETRY_S, self._connect, client)

    def _hang_up(self, client: Client) -> None:
        """From now on the client knows what it knew, and shows none of it."""
        if client.socket is None:
            return
        self._show_until(client, time.time() * 1000)
        del self._by_fd[client.socket.fileno()]
        client.socket.close()
        client.socket = None

    def _show_until(self, client: Client, now: float) -> None:
        if client.is_prompt and client.is_told:
            for sighting in client.view.table.values():
                sighting.until = now


def _behead(view: View, data: bytes) -> bytes:
    """What follows the response's head, once that is whole. Raises Refused."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return data
    if head.split()[1] not in (b"200", b"101"):
        raise Refused
    view.is_headed = True
    return rest


def _is_change(sighting: Sighting, before: Sighting | None) -> bool:
    return before is not None and before.price_text != sighting.price_text


@contextmanager
def crowd_of(port: int, total: int = 0, *, may_renumber: bool = False) -> Iterator[Crowd]:
    """A crowd that begins with so many clients."""
    crowd = Crowd(port, may_renumber=may_renumber)
    crowd.start()
    try:
        crowd.join(total)
        yield crowd
    finally:
        crowd.stop()
