"""The quote socket: TradingView's protocol of sessions, whole and partial quotes, heartbeats and errors.

Owns: one socket's subscriptions, the frames sent on it, and the effect of faults on it. Never does: move a price. Runs
in the simulator's one thread, on gevent's hub.

Values of `Fault.socket`, and what they do to the page's quote socket or to the quotes of the page's own symbol:

    closed, oldest                  the socket closes at once; `closed` also refuses new ones
    refused_429, refused_403        new sockets are refused (see server.py)
    silent                          the server sends nothing more
    withheld, late                  no quotes are sent; `late`: until Fault.seconds after the socket was opened
    no_such_symbol, permission_denied, alternative, spec_refused, timeout: the quotes are errors
    critical, protocol              the sessions, or the whole socket, end with an error
    lags                            the quotes of all names but the first are late
    broken                          broken frames come before good ones
    redirected                      the first message names another host
    expires                         the socket closes after SOCKET_LIFE
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gevent

from simulator.faults import FAULTS, LAG, PASSING, SOCKET_LIFE
from simulator.frames import as_json, frame, unframe
from simulator.market import Values
from simulator.simulation import Simulation
from simulator.sockets import PageSocket
from simulator.symbols import RATES, REGULAR, Quoted, Symbol, Unknown, read_name

SUBSCRIPTION_LIMIT = 100  # most sessions of one socket, and most subscriptions; more are ignored
EXTENDED_PREMIUM = 1.005  # price factor of a symbol's extended session

# The fields that a session receives, by the beginning of its name, as recorded. Other sessions receive all fields.
FULL = "qs_multiplexer_full"
SNAPSHOT = {"update_mode", "typespecs", "type", "pricescale", "minmov", "lp", "fractional"}
SIMPLE = {
    *SNAPSHOT,
    *("volume", "variable_tick_size", "minmove2", "lp_time", "is_tradable", "session", "current_session"),
    *("currency_code", "currency_id", "chp", "ch"),
}
FIELDS = {"qs_multiplexer_simple": SIMPLE, "qs_snapshoter": SNAPSHOT}
MONEY = {"lp", "bid", "ask", "high_price", "low_price", "open_price", "prev_close_price", "ch", "rtc", "rch"}
ERRORS = {"no_such_symbol": "error", "permission_denied": "permission_denied", "timeout": "error"}  # error: status


@dataclass(eq=False)
class Subscription:
    """What a session has subscribed to: a symbol, by one of its names."""

    session: str
    name: str
    quoted: Quoted
    ready_at: float = 0  # monotonic s; no quotes before
    is_fast: bool = False
    is_asleep: bool = False

    def fields_of(self, values: Values) -> Values:
        for beginning, fields in FIELDS.items():
            if self.session.startswith(beginning):
                return {name: value for name, value in values.items() if name in fields}
        return values

    def priced(self, values: Values) -> Values:
        """The values in the currency and session that the name asks for."""
        if self.quoted.is_plain:
            return values
        symbol = self.quoted.symbol
        factor = RATES.get(self.quoted.currency_id, 1) / RATES.get(symbol.currency_id, 1)
        factor *= 1 if self.quoted.session == REGULAR else EXTENDED_PREMIUM
        own = {"currency_code": self.quoted.currency_id.removeprefix("XTVC"), "currency_id": self.quoted.currency_id}
        return {
            name: round(float(str(value).strip("\x01")) * factor, symbol.scale.decimals)
            if name in MONEY and value is not None
            else own.get(name, value)
            for name, value in values.items()
        }


class QuoteSocket(PageSocket):
    """Speaks TradingView's quote protocol: sessions, whole and partial quotes, heartbeats."""

    kind = "sockets"

    def __init__(self, websocket: Any, page: Symbol | None, simulation: Simulation) -> None:
        super().__init__(websocket, page, simulation)
        self._sessions: set[str] = set()
        self._subscriptions: dict[tuple[str, str], Subscription] = {}
        self._late: deque[str] = deque()  # frames that `lags` delays, in order
        self._opened_at = time.monotonic()
        self._expiry: gevent.Greenlet[[], None] | None = None
        self._beats = 0
        self._beat_due = self._opened_at + simulation.options.heartbeat
        elsewhere = self.other_host() if self._suffers("redirected") else ""
        self._is_redirected = elsewhere != ""
        hello = {"session_id": f"<0.{id(self)}>", "timestamp": int(time.time()), "protocol": "json"}
        self._tell({"redirect": elsewhere} if elsewhere else hello)

    # ---- Called by the simulation and by markets -------------------------------------------------

    def meet(self, fault: str | None) -> None:
        match FAULTS[fault].socket if fault else "":
            case "closed" | "oldest":
                self.close()
            case "critical":
                self._end_sessions()
            case "protocol":
                self._tell({"m": "protocol_error", "p": ["wrong data"]})
                self.close()
            case _:
                self._expire()
                for subscription in self._of(self.page):
                    self._tell_whole(subscription)

    def leave(self) -> None:
        for symbol in {subscription.quoted.symbol for subscription in self._subscriptions.values()}:
            self._simulation.market(symbol).leave(self)
        if self._expiry is not None:
            self._expiry.kill(block=False)

    def tell_update(self, symbol: Symbol, values: Values) -> None:
        """Sends a partial quote under each name that is awake."""
        for subscription in self._of(symbol):
            if not (subscription.is_asleep or self._is_withheld(subscription)):
                self._tell_values(subscription, values)

    # ---- The outbox ------------------------------------------------------------------------------

    def patience(self) -> float | None:
        return max(0, self._beat_due - time.monotonic())

    def next_message(self) -> str:
        """All frames since the last message, as one message."""
        if time.monotonic() >= self._beat_due:
            self._beats += 1
            self._beat_due += self._simulation.options.heartbeat
            self._outbox.append(frame(f"~h~{self._beats}"))
        message = "".join(self._outbox)
        self._outbox.clear()
        return "" if self._suffers("silent") else message

    # ---- The page's orders -----------------------------------------------------------------------

    def hear(self, message: str) -> None:
        for payload in unframe(message):
            if payload.startswith("{") and not self._is_redirected:
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
            case "quote_remove_symbols":
                self._unsubscribe([(session, name) for name in names])
            case "quote_delete_session":
                self._end_session(session)
            case "quote_fast_symbols":
                for subscription in self._in(session):
                    subscription.is_fast = subscription.name in names
                    subscription.is_asleep = subscription.is_asleep and not subscription.is_fast
            case "quote_hibernate_all":
                for subscription in self._in(session):
                    subscription.is_asleep = not subscription.is_fast

    def _subscribe(self, session: str, name: str) -> None:
        try:
            quoted = read_name(name)
        except (Unknown, ValueError, LookupError, TypeError, AttributeError):
            self._tell_error(session, name, "no_such_symbol")
            return
        if len(self._subscriptions) >= SUBSCRIPTION_LIMIT:
            return
        subscription = Subscription(session, name, quoted, self._ready_at(quoted.symbol))
        self._subscriptions[session, name] = subscription
        self._simulation.market(quoted.symbol).join(self)
        wait = subscription.ready_at - time.monotonic()
        if wait > 0:
            gevent.spawn_later(wait, self._become_ready, subscription)
        self._tell_whole(subscription)

    def _become_ready(self, subscription: Subscription) -> None:
        subscription.ready_at = 0  # not compared again: a timer can be some ms early
        self._tell_whole(subscription)

    def _ready_at(self, symbol: Symbol) -> float:
        if symbol != self.page:
            return 0
        if self._suffers("timeout"):
            return time.monotonic() + PASSING * self._delays
        late = self._simulation.first(self.page, lambda fault: fault.socket == "late")
        return self._opened_at + late.seconds * self._delays if late else 0

    def _unsubscribe(self, keys: list[tuple[str, str]]) -> None:
        gone = {self._subscriptions.pop(key).quoted.symbol for key in keys if key in self._subscriptions}
        for symbol in gone - {subscription.quoted.symbol for subscription in self._subscriptions.values()}:
            self._simulation.market(symbol).leave(self)

    def _end_session(self, session: str) -> None:
        self._sessions.discard(session)
        self._unsubscribe([(session, subscription.name) for subscription in self._in(session)])

    def _end_sessions(self) -> None:
        """Ends the sessions that have the page's symbol, with an error."""
        for session in {subscription.session: None for subscription in self._of(self.page)}:
            self._tell({"m": "critical_error", "p": [session, "invalid_parameters", "quote_add_symbols"]})
            self._end_session(session)

    def _of(self, symbol: Symbol | None) -> list[Subscription]:
        return [one for one in self._subscriptions.values() if one.quoted.symbol is symbol]

    def _in(self, session: str) -> list[Subscription]:
        return [one for one in self._subscriptions.values() if one.session == session]

    # ---- The quotes ------------------------------------------------------------------------------

    def _suffers(self, trouble: str) -> bool:
        return self._simulation.first(self.page, lambda fault: fault.socket == trouble) is not None

    @property
    def _delays(self) -> float:
        return self._simulation.options.delays

    def _error_of(self, subscription: Subscription) -> str:
        """The error that is sent instead of a quote; empty: none."""
        if subscription.quoted.symbol is not self.page:
            return ""
        if self._suffers("spec_refused") and subscription.name.startswith("="):
            return "no_such_symbol"
        if self._suffers("alternative"):
            return "permission_denied"
        if self._suffers("timeout") and time.monotonic() < subscription.ready_at:
            return "timeout"
        return next((error for error in ("no_such_symbol", "permission_denied") if self._suffers(error)), "")

    def _is_withheld(self, subscription: Subscription) -> bool:
        is_own = subscription.quoted.symbol is self.page
        is_early = time.monotonic() < subscription.ready_at
        return is_own and (is_early or self._suffers("withheld") or self._error_of(subscription) != "")

    def _tell_whole(self, subscription: Subscription) -> None:
        session, name = subscription.session, subscription.name
        if self._subscriptions.get((session, name)) is not subscription:
            return  # it was removed before its time came
        if error := self._error_of(subscription):
            self._tell_error(session, name, error)
        elif not self._is_withheld(subscription):
            for values in self._whole(subscription):
                self._tell_values(subscription, values)
            self._send_in_time(subscription, as_json({"m": "quote_completed", "p": [session, name]}))

    def _whole(self, subscription: Subscription) -> Iterator[Values]:
        market = self._simulation.market(subscription.quoted.symbol)
        if not subscription.session.startswith(FULL):
            yield market.whole_quote() | market.book()
            return
        yield {}
        yield {"trade_loaded": True} | market.book()
        yield market.whole_quote()
        yield {"market-status": {"phase": "regular", "tradingday": time.strftime("%Y%m%d", time.gmtime())}}

    def _tell_values(self, subscription: Subscription, values: Values) -> None:
        told = subscription.fields_of(subscription.priced(values))
        if values and not told:
            return
        head = f'{{"m":"qsd","p":[{as_json(subscription.session)},{{"n":{as_json(subscription.name)},"s":"ok","v":'
        if subscription.quoted.symbol is self.page and self._suffers("broken"):
            self.send(frame(head))
            self._tell({"m": "qsd", "p": [subscription.session, {"s": "ok", "v": told}]})
        self._send_in_time(subscription, f"{head}{as_json(told)}}}]}}")

    def _send_in_time(self, subscription: Subscription, payload: str) -> None:
        """Sends at once, or later if `lags` concerns this subscription."""
        own = self._of(self.page)
        if subscription in own[1:] and self._suffers("lags"):
            self._late.append(frame(payload))  # a queue: timers due at the same time may fire in any order
            gevent.spawn_later(LAG * self._delays, lambda: self.send(self._late.popleft()))
        else:
            self.send(frame(payload))

    def _tell_error(self, session: str, name: str, error: str) -> None:
        values = {"alternative": self.page.elsewhere().name} if self.page and self._suffers("alternative") else {}
        self._tell({"m": "qsd", "p": [session, {"n": name, "s": ERRORS[error], "errmsg": error, "v": values}]})

    def _tell(self, payload: dict[str, Any]) -> None:
        self.send(frame(as_json(payload)))

    def _expire(self) -> None:
        """Plans the socket's end, if it expires."""
        if self._expiry is None and self._suffers("expires"):
            age = time.monotonic() - self._opened_at
            self._expiry = gevent.spawn_later(max(0, SOCKET_LIFE * self._delays - age), self.close)
