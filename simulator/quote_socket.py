"""The quote socket: TradingView's protocol of sessions, whole and partial quotes, heartbeats and errors.

Owns: what one page's socket has asked for, and what it is told. Never does: move a price. Runs in the simulator's one
thread, on gevent's hub.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

from simulator.faults import FAULTS
from simulator.frames import as_json, frame, unframe
from simulator.simulation import Simulation
from simulator.sockets import PageSocket
from simulator.symbols import Symbol, Unknown, symbol_of_quote

SUBSCRIPTION_LIMIT = 100  # subscriptions of one socket; further ones are ignored


class QuoteSocket(PageSocket):
    """Speaks TradingView's quote protocol: sessions, whole and partial quotes, heartbeats."""

    kind = "sockets"

    def __init__(self, websocket: Any, page: Symbol | None, simulation: Simulation) -> None:
        super().__init__(websocket, page, simulation)
        self._sessions: set[str] = set()
        self._names: dict[Symbol, list[tuple[str, str]]] = {}  # each (session, name) that asked for a symbol
        self._beats = 0
        self._beat_due = time.monotonic() + simulation.heartbeat
        self._tell({"session_id": f"<0.{id(self)}>", "timestamp": int(time.time()), "protocol": "json"})

    @property
    def trouble(self) -> str:
        """What the lasting faults of its page do to this socket, see Fault.socket; empty: nothing."""
        troubles = (FAULTS[name].socket for name in self._simulation.faults_of(self.page))
        return next(filter(None, troubles), "")

    def meet(self, fault: str | None) -> None:
        if fault and FAULTS[fault].socket == "closed":
            self.close()
        elif self.page in self._names:
            for session, name in self._names[self.page]:
                self._tell_whole(session, name, self.page)

    def leave(self) -> None:
        for symbol in self._names:
            self._simulation.market(symbol).leave(self)

    def tell_update(self, symbol: Symbol, quote: str) -> None:
        """A partial quote, as JSON; where the page has several names for the symbol, under one of them."""
        if symbol != self.page or not self.trouble:
            self._tell_quote(*random.choice(self._names[symbol]), quote)

    def patience(self) -> float | None:
        return max(0, self._beat_due - time.monotonic())

    def next_message(self) -> str:
        """All frames since the last message, as one: each carries its length."""
        if time.monotonic() >= self._beat_due:
            self._beats += 1
            self._beat_due += self._simulation.heartbeat
            self._outbox.append(frame(f"~h~{self._beats}"))
        message = "".join(self._outbox)
        self._outbox.clear()
        return "" if self.trouble == "silent" else message

    def hear(self, message: str) -> None:
        for payload in unframe(message):
            if payload.startswith("{"):
                self._obey(json.loads(payload))

    def _obey(self, order: dict[str, Any]) -> None:
        session, *names = map(str, order.get("p") or [""])
        match order.get("m"):
            case "quote_create_session" if len(self._sessions) < SUBSCRIPTION_LIMIT:
                self._sessions.add(session)
            case "quote_add_symbols" if session not in self._sessions:
                self._tell({"m": "critical_error", "p": [session, "invalid_session", "quote_add_symbols"]})
            case "quote_add_symbols":
                for name in names:
                    self._subscribe(session, name)

    def _subscribe(self, session: str, name: str) -> None:
        try:
            symbol = symbol_of_quote(name)
        except (Unknown, ValueError, LookupError):
            self._tell_error(session, name, "no_such_symbol")
            return
        if sum(map(len, self._names.values())) < SUBSCRIPTION_LIMIT:
            self._names.setdefault(symbol, []).append((session, name))
            self._simulation.market(symbol).join(self)
            self._tell_whole(session, name, symbol)

    def _tell_whole(self, session: str, name: str, symbol: Symbol) -> None:
        trouble = self.trouble if symbol == self.page else ""
        if trouble in ("no_such_symbol", "permission_denied"):
            self._tell_error(session, name, trouble)
        elif trouble != "withheld":
            self._tell_quote(session, name, as_json(self._simulation.market(symbol).whole_quote()))
            self._tell({"m": "quote_completed", "p": [session, name]})

    def _tell_quote(self, session: str, name: str, quote: str) -> None:
        head = f'{{"m":"qsd","p":[{as_json(session)},{{"n":{as_json(name)},"s":"ok","v":'
        self.send(frame(f"{head}{quote}}}]}}"))

    def _tell_error(self, session: str, name: str, error: str) -> None:
        status = error if error == "permission_denied" else "error"
        self._tell({"m": "qsd", "p": [session, {"n": name, "s": status, "errmsg": error, "v": {}}]})

    def _tell(self, payload: dict[str, Any]) -> None:
        self.send(frame(as_json(payload)))
