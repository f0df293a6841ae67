"""A whole simulation: all markets, open sockets and lasting faults.

Owns: each symbol's market, each ticker's faults, and the open sockets. Never does: speak HTTP. Runs in the simulator's
one thread, on gevent's hub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from simulator.faults import FAULTS, Fault
from simulator.market import Condition, Market
from simulator.paces import Lively, Pace, real_pace
from simulator.replay import Recording
from simulator.symbols import LISTED, Symbol
from simulator.weight import Weight

COUNT_LIMIT = 5_000  # symbols whose page loads and upgrades are counted, at most
LIVELY_RATE = 2.0  # default changes a second of each price


@dataclass(frozen=True)
class Options:
    weight: Weight
    seed: int = 1
    pace: str = "lively"  # or real
    rate: float | None = None
    heartbeat: float = 10.0  # seconds, as recorded
    delays: float = 1.0  # factor for all times of faults
    faults: tuple[str, ...] = ()  # of every ticker, from the start


class Socket(Protocol):
    """What the simulation needs of an open WebSocket."""

    kind: str  # the name it is counted under
    page: Symbol | None

    def run(self) -> None: ...

    def meet(self, fault: str | None) -> None: ...

    def leave(self) -> None: ...


class Simulation:
    """All markets, open sockets and lasting faults."""

    def __init__(self, options: Options, recordings: Sequence[Recording] = ()) -> None:
        self.options = options
        self.recordings = {recording.symbol: recording for recording in recordings}
        LISTED.update({symbol.name: symbol for symbol in self.recordings})
        self._markets: dict[Symbol, Market] = {}
        self._sockets: dict[Socket, None] = {}  # the oldest first
        self._faults: dict[str, list[str]] = {}  # by ticker, in the order of arrival
        self._loads: Counter[str] = Counter()
        self._upgrades: Counter[str] = Counter()

    def market(self, symbol: Symbol) -> Market:
        if symbol not in self._markets:
            market = self._markets[symbol] = Market(symbol, self.options.seed, self.pace(symbol, self.options.pace))
            market.suffer(self._condition(symbol.ticker))
            if recording := self.recordings.get(symbol):
                market.play(recording.changes[1:])  # the first is already its price
        return self._markets[symbol]

    def pace(self, symbol: Symbol, name: str) -> Pace | None:
        if name == "real":
            return real_pace(symbol, self.options.rate)
        rate = LIVELY_RATE if self.options.rate is None else self.options.rate
        return Lively(rate) if rate else None

    # ---- Faults ----------------------------------------------------------------------------------

    def faults_of(self, page: Symbol | None) -> list[str]:
        return self._present(page.ticker) if page else []

    def first(self, page: Symbol | None, quality: Callable[[Fault], object]) -> Fault | None:
        """The first of the page's faults for which `quality` is true."""
        return next((FAULTS[name] for name in self.faults_of(page) if quality(FAULTS[name])), None)

    def clock_shift(self, page: Symbol) -> float:
        """Seconds by which the site's clock, as this page shows it, is ahead of ours."""
        return sum(FAULTS[name].clock for name in self.faults_of(page))

    def strike(self, ticker: str, name: str) -> None:
        faults = self._faults.setdefault(ticker, [])
        if not FAULTS[name].once and name not in faults:
            faults.append(name)
        self._adjust_markets(ticker)
        self.tell_open_pages(ticker, name)

    def heal(self, ticker: str) -> None:
        self._faults.pop(ticker, None)
        self._adjust_markets(ticker)
        self.tell_open_pages(ticker)

    def _present(self, ticker: str) -> list[str]:
        own = self._faults.get(ticker, [])
        return [*own, *(name for name in self.options.faults if name not in own)]

    def _condition(self, ticker: str) -> Condition:
        conditions = [condition for name in self._present(ticker) if (condition := FAULTS[name].market)]
        return Condition(
            fields={name: value for condition in conditions for name, value in condition.fields.items()},
            halted_for=max((condition.halted_for for condition in conditions), default=0),
            time_shift=sum(condition.time_shift for condition in conditions),
            extended=any(condition.extended for condition in conditions),
        )

    def _adjust_markets(self, ticker: str) -> None:
        for symbol, market in self._markets.items():
            if symbol.ticker == ticker:
                market.suffer(self._condition(ticker))

    # ---- Sockets ---------------------------------------------------------------------------------

    def attend(self, socket: Socket) -> None:
        self._sockets[socket] = None
        socket.meet(None)  # a fault may have started before the socket
        try:
            socket.run()
        finally:
            del self._sockets[socket]
            socket.leave()

    def tell_open_pages(self, ticker: str, fault: str | None = None) -> None:
        """Tells a ticker's pages which fault strikes; None: its faults, fields or scale have changed."""
        reached = [socket for socket in self._sockets if socket.page and socket.page.ticker == ticker]
        if fault and FAULTS[fault].socket == "oldest":
            reached = [socket for socket in reached if socket.kind == "sockets"][:1]
        for socket in reached:
            socket.meet(fault)

    # ---- What is counted -------------------------------------------------------------------------

    def count_load(self, name: str) -> None:
        self._count(self._loads, name)

    def count_upgrade(self, page: Symbol | None) -> None:
        self._count(self._upgrades, page.name if page else "")

    def census(self) -> dict[str, dict[str, int]]:
        open_sockets = {
            kind: Counter(socket.page.name for socket in self._sockets if socket.kind == kind and socket.page)
            for kind in ("sockets", "steered")
        }
        return {**open_sockets, "loads": self._loads, "upgrades": self._upgrades}

    @staticmethod
    def _count(counter: Counter[str], name: str) -> None:
        if name in counter or len(counter) < COUNT_LIMIT:
            counter[name] += 1
