"""The socket strategy: reads the quote frames about a page's symbol and chooses which of their prices counts.

A page's quote sessions quote one symbol under several names, some late, some in another currency. This file owns the
choice among their prices and remembers recent ones. It is pure and runs on the thread of its feed. Times are ms by the
page's clock, except `latest`, which is since the epoch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from quotes import Source, State, UnreadablePrice
from tradingview.formatter import FORMAT_FIELDS, PriceFormat, number_text, price_format
from tradingview.messages import Reading, bounded, is_number, items, milliseconds, printable
from tradingview.names import Names
from tradingview.sessions import Line, Session, Sessions, Socket
from tradingview.tally import Tally
from tradingview.trouble import PageTrouble, other_symbol

NUMBER_FIELDS = {  # TradingView's name of a quote field, and ours
    "ch": "change",
    "chp": "change_percent",
    "volume": "volume",
    "high_price": "high",
    "low_price": "low",
    "open_price": "open",
    "bid": "bid",
    "ask": "ask",
}
OF_THE_PRICE = frozenset({"ch", "chp"})  # figures that belong to one price, that of the same session
TEXT_FIELDS = {"currency_code": "currency", "description": "description"}
CURRENCY_FIELDS = ("currency_code", "currency_id")
SYMBOL_FIELDS = FORMAT_FIELDS | {"description", "typespecs", "session", *CURRENCY_FIELDS}
FRAME_FIELDS = SYMBOL_FIELDS | {"lp", "lp_time", "update_mode", "current_session", "alternative", *NUMBER_FIELDS}

REMEMBERED_MS = 5_000  # how long a replaced price is remembered
MAX_REMEMBERED = 1_000
MAX_FIGURE = 1e18


@dataclass(slots=True)
class Said:
    """A price that the socket told, and `until` when it counted; infinity for the last one."""

    price: float
    until: float = float("inf")


class Frames:
    """All quote frames of one document about the page's own symbol. Counts what it refuses."""

    def __init__(self, symbol: str, tally: Tally) -> None:
        self.reading: Reading | None = None
        self.unreadable: str | None = None  # why the price that counts can't be read
        self.refusal: PageTrouble | None = None  # why a price may never come; one still can
        self.symbol_facts: dict[str, Any] = {}  # facts that don't change with the price
        self.described: dict[str, str] = {}  # its texts, by a quote's names
        self.form: PriceFormat | None = None
        self.names = Names(symbol)
        self.sessions = Sessions(self.names)
        self.giver: Line | None = None  # the line whose price counts
        self._symbol = symbol
        self._tally = tally
        self._told: tuple[object, float, int | None] | None = None  # the price that counts, when told, its trade's time
        self._figures: dict[str, Any] = {}  # the last ones told, by TradingView's names
        self._said: deque[Said] = deque(maxlen=MAX_REMEMBERED)

    def hear(self, message: dict[str, Any], at: float, latest: float) -> float | None:
        """Takes the frames of one message. Returns for how many ms they prove the price; None if they prove nothing.

        A trade dated after `latest` counts as undated. Raises PageTrouble when TradingView no longer quotes the symbol
        in any session.
        """
        socket, trouble, is_proof = self.sessions.socket(message.get("socket")), None, False
        for frame in items(message.get("frames")):
            try:
                is_proof |= self._take(socket, frame, at, latest)
            except ValueError:
                self._tally.refuse(Source.SOCKET, "frame: unreadable")
                _mark_unreadable(socket, frame)
            except PageTrouble as refused:
                trouble = refused
        if is_proof:
            socket.heard_at = max(socket.heard_at, at)
            self.sessions.note_life(socket)
            return socket.proof_limit
        if trouble is not None and not self.sessions.have_symbol:
            raise trouble
        return None

    def _take(self, socket: Socket, frame: object, at: float, latest: float) -> bool:
        """Takes a frame. Returns whether it proves the page's price: it doesn't if its line has no price yet."""
        name = frame.get("name") if isinstance(frame, dict) else None
        if not isinstance(frame, dict) or not isinstance(name, str) or not self.names.mean_symbol(name):
            raise ValueError("a frame of another symbol")
        session, fields = socket.session(frame.get("session")), frame.get("fields")
        if (reason := self._why_foreign(session, name)) is not None:
            self._tally.refuse(Source.SOCKET, reason)
            return False
        if frame.get("status") != "ok":
            session.lines.pop(name, None)
            self._judge_error(name, frame, fields if isinstance(fields, dict) else {})
            return False
        if not isinstance(fields, dict):
            raise ValueError("a frame without fields")
        line, session.is_unreadable = session.line(name), False
        self._merge(line, _news_in(fields), at, latest)
        return "lp" in line.fields

    def _why_foreign(self, session: Session, name: str) -> str | None:
        """Why this name in this session is not the page's own price; None if it is."""
        if session.is_over or name in session.removed:
            return "session: over"
        if session.is_snapshot:
            return "session: snapshot"
        return None if (key := self.names.extra_key(name)) is None else f"spec: {key}"

    def _judge_error(self, name: str, frame: dict[str, Any], fields: dict[str, Any]) -> None:
        """Raises PageTrouble for a final error. Only notes an error that may pass. Ignores the error of a spec."""
        error = printable(frame.get("error") or frame.get("status"))
        self._tally.refuse(Source.SOCKET, f"error: {error[:32]}")
        if name != self._symbol:
            return
        if error == "permission_denied" and (alternative := printable(fields.get("alternative"))):
            self.refusal = other_symbol(self._symbol, alternative)
        elif error == "timeout":
            self.refusal = PageTrouble(State.ERROR, f"TradingView has no quotes of {self._symbol} in time")
        elif error == "no_such_symbol":
            raise PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {self._symbol}", void_price=True)
        else:
            raise PageTrouble(State.ERROR, f"TradingView refuses to quote {self._symbol}: {error}")

    def _merge(self, line: Line, news: dict[str, Any], at: float, latest: float) -> None:
        line.fields.update(news)
        if facts := {name: value for name, value in news.items() if name in SYMBOL_FIELDS}:
            self._learn(facts)
        if "lp" in news and not self._counts(line, latest):
            self._tally.refuse(Source.SOCKET, "price: older than the one that counts")
            return
        self._take_figures(line, news)
        if "lp" in news:
            self.giver, self.refusal = line, None
            self._told = news["lp"], at, milliseconds(self._trade_time(line, latest))
            self._read()

    def _counts(self, line: Line, latest: float) -> bool:
        """Whether the line's new price counts. It always does if the line's price counted before.

        A price of another line of that session counts unless its trade is older; a price of another session only if its
        trade is newer.
        """
        giver = self.giver
        if giver is None or giver is line or giver.is_over:
            return True
        time, givers_time = self._trade_time(line, latest), self._trade_time(giver, latest)
        if giver.session is line.session:
            return time is None or givers_time is None or time >= givers_time
        return time is not None and time > (givers_time or 0)

    def _trade_time(self, line: Line, latest: float) -> float | None:
        """In seconds; None if missing, invalid or in the future. Counts those in the future."""
        if (moment := milliseconds(line.fields.get("lp_time"))) is None:
            return None
        if moment > latest:
            self._tally.refuse(Source.SOCKET, "time: in the future")
            return None
        return moment / 1000

    def _take_figures(self, line: Line, news: dict[str, Any]) -> None:
        """Takes figures from any session, but those that belong to one price only with that price."""
        figures = {name: value for name, value in news.items() if name in NUMBER_FIELDS}
        is_same = self.giver is not None and line.session is self.giver.session
        if "lp" in news and line is not self.giver:
            is_over = self.giver is None or self.giver.is_over
            kept = {} if is_over else _without_prices_own(self._figures)
            self._figures = {name: value for name, value in line.fields.items() if name in NUMBER_FIELDS} | kept
        elif not is_same:
            figures = _without_prices_own(figures)
        self._figures |= figures

    def _learn(self, facts: dict[str, Any]) -> None:
        """Learns facts about the symbol. If they change the price format, a known price is printed again."""
        self.symbol_facts |= facts
        told = {ours: printable(self.symbol_facts.get(theirs)) for theirs, ours in TEXT_FIELDS.items()}
        self.described = {name: text for name, text in told.items() if text}
        for source in CURRENCY_FIELDS:
            self.names.know_currency(source, facts.get(source))
        if (form := price_format(self.symbol_facts)) != self.form:
            self.form = form
            self._read()

    def _read(self) -> None:
        if self._told is None:
            return
        number, at, source_time = self._told
        try:
            text = number_text(number, self.form)
        except UnreadablePrice as refused:
            self._tally.note_price(Source.SOCKET, refused.reason)
            self.reading, self.unreadable = None, refused.reason
            return
        self._tally.note_price(Source.SOCKET, None)
        self.reading, self.unreadable = Reading(text, at, source_time), None
        self._remember(float(text), at)

    def _remember(self, price: float, at: float) -> None:
        while self._said and self._said[0].until < at - REMEMBERED_MS:
            self._said.popleft()
        if self._said and self._said[-1].price != price:
            self._said[-1].until = at
        if not self._said or self._said[-1].price != price:
            self._said.append(Said(price))

    def said_until(self, price: float, tolerance: float) -> float | None:
        """Until when a price this close counted; infinity if it still does, None if none did recently."""
        return max((said.until for said in self._said if abs(said.price - price) <= tolerance), default=None)

    def told(self, name: str) -> str:
        """The last value of a text, such as `update_mode`, in the session whose price counts."""
        if self.giver is None:
            return ""
        lines = (self.giver, *self.giver.session.lines.values())
        return next((printable(line.fields[name]) for line in lines if name in line.fields), "")

    def values(self) -> dict[str, Any]:
        """A quote's figures and texts; None where unknown."""
        figures = {ours: self._figures.get(theirs) for theirs, ours in NUMBER_FIELDS.items()}
        return {name: None if value is None else float(value) for name, value in figures.items()} | self.described


def _without_prices_own(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in OF_THE_PRICE}


def _mark_unreadable(socket: Socket, frame: object) -> None:
    """After an unreadable frame, its session proves nothing until the next readable frame."""
    told = frame.get("session") if isinstance(frame, dict) else None
    for session in socket.sessions.values():
        session.is_unreadable |= session.id == told or not isinstance(told, str)


def _news_in(fields: dict[str, Any]) -> dict[str, Any]:
    """The valid fields that are not null. An invalid price stays: it makes the price unreadable."""
    news: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in NUMBER_FIELDS:
            if is_number(value) and abs(value) < MAX_FIGURE:
                news[name] = value
        elif name == "lp":
            news[name] = value
        elif name in FRAME_FIELDS and (name not in TEXT_FIELDS or printable(value)):
            news[name] = bounded(value)
    return news
