"""The whole of a simulation: all markets, all open sockets, the faults that last.

Owns: which market belongs to a symbol, which faults a ticker has, who is connected. Never does: speak HTTP. Runs in the
simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from simulator.faults import FAULTS
from simulator.market import Market
from simulator.symbols import Symbol

LOADS_LIMIT = 5_000  # symbols whose page loads are counted; further ones are not


class Socket(Protocol):
    """An open WebSocket, as the simulation sees it."""

    kind: str  # under which it is counted
    page: Symbol | None

    def run(self) -> None: ...

    def meet(self, fault: str | None) -> None: ...

    def leave(self) -> None: ...


class Simulation:
    """All markets, all open sockets, all faults that last."""

    def __init__(self, seed: int, rate: float, heartbeat: float, weight: int) -> None:
        self.heartbeat = heartbeat
        self.weight = weight  # bytes of a page
        self._seed = seed
        self._rate = rate
        self._markets: dict[Symbol, Market] = {}
        self._sockets: set[Socket] = set()
        self._faults: dict[str, list[str]] = {}  # of each ticker, in the order in which they came
        self._loads: Counter[str] = Counter()

    def market(self, symbol: Symbol) -> Market:
        if symbol not in self._markets:
            self._markets[symbol] = Market(symbol, self._seed, self._rate)
        return self._markets[symbol]

    def faults_of(self, page: Symbol | None) -> list[str]:
        return self._faults.get(page.ticker, []) if page else []

    def refuses_quotes(self, page: Symbol | None) -> bool:
        return any(FAULTS[name].socket == "closed" for name in self.faults_of(page))

    def strike(self, ticker: str, name: str) -> None:
        faults = self._faults.setdefault(ticker, [])
        if not FAULTS[name].once and name not in faults:
            faults.append(name)
        self._tell_open_pages(ticker, name)

    def heal(self, ticker: str) -> None:
        self._faults.pop(ticker, None)
        self._tell_open_pages(ticker, None)

    def attend(self, socket: Socket) -> None:
        self._sockets.add(socket)
        socket.meet(None)  # the page may be older than a fault
        try:
            socket.run()
        finally:
            self._sockets.discard(socket)
            socket.leave()

    def count_load(self, name: str) -> None:
        if name in self._loads or len(self._loads) < LOADS_LIMIT:
            self._loads[name] += 1

    def census(self) -> dict[str, dict[str, int]]:
        open_sockets = {
            kind: Counter(socket.page.name for socket in self._sockets if socket.kind == kind and socket.page)
            for kind in ("sockets", "steered")
        }
        return {**open_sockets, "loads": self._loads}

    def _tell_open_pages(self, ticker: str, fault: str | None) -> None:
        for socket in self._sockets:
            if socket.page and socket.page.ticker == ticker:
                socket.meet(fault)
