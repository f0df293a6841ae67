"""The quote socket of a recorded page: sends the recorded messages at their times, whatever the page asks for.

Owns: when each message is due. Never does: invent a price. After the last message it sends only heartbeats. Runs in the
simulator's one thread, on gevent's hub.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

from simulator.faults import FAULTS
from simulator.frames import frame, unframe
from simulator.replay import Recording, shifted
from simulator.simulation import Simulation
from simulator.sockets import PageSocket
from simulator.symbols import Symbol, Unknown, read_name


class ReplaySocket(PageSocket):
    """Plays the recording from its beginning, for each socket that the page opens."""

    kind = "sockets"

    def __init__(self, websocket: Any, page: Symbol, simulation: Simulation, recording: Recording) -> None:
        super().__init__(websocket, page, simulation)
        self._symbol = page
        self._opened_at = time.monotonic()
        self._age = time.time() - recording.started_at if recording.started_at else 0.0
        self._messages = deque(recording.messages)
        self._beats = 0
        self._beat_due = self._opened_at + recording.messages[-1][0] + simulation.options.heartbeat

    def meet(self, fault: str | None) -> None:
        if fault and FAULTS[fault].socket in ("closed", "oldest"):
            self.close()

    def patience(self) -> float | None:
        due = self._opened_at + self._messages[0][0] if self._messages else self._beat_due
        return max(0, due - time.monotonic())

    def next_message(self) -> str:
        now = time.monotonic()
        if self._messages and self._opened_at + self._messages[0][0] <= now:
            message = self._messages.popleft()[1]
            self._beats = next((int(each[3:]) for each in unframe(message) if each.startswith("~h~")), self._beats)
            self._book(message)
            return shifted(message, self._age)
        if not self._messages and self._beat_due <= now:
            self._beats += 1
            self._beat_due += self._simulation.options.heartbeat
            return frame(f"~h~{self._beats}")
        return ""

    def _book(self, message: str) -> None:
        """Records the prices of the page's symbol in its market."""
        for payload in unframe(message):
            try:
                quote = json.loads(payload)["p"][1]
                quoted, price = read_name(quote["n"]), float(quote["v"]["lp"])
            except (Unknown, ValueError, LookupError, TypeError, AttributeError):
                continue
            if quoted.symbol is self._symbol and quoted.is_plain:
                self._simulation.market(self._symbol).record(price)
