"""The feed layer: what the pages of one ticker have told, and what of it is true now.

This file owns the rules by which a price is believed: whose it is, which of several strategies has it, how fresh its
proof is, and what it means that two of them disagree. It is pure: no clock, no browser, no thread, no I/O. The scraper
tells it what the probe said, and at what time.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from quotes import (
    PlutoError,
    Quote,
    Source,
    State,
    Ticker,
    UnreadablePrice,
    decimals_of,
    parse_price,
    price_from_number,
    split_ticker,
)

SETTLING_MS = 1_000  # after a silence, what had to wait meanwhile comes within this time: it is true no longer
PROOF_LIMIT_MS = 10_000  # a price is live while its feed was proven alive this recently: the wire contract's figure
DISAGREEMENT_LIMIT_MS = 2_000  # the page paints what its socket said within 125 ms; this long apart is no throttle
EXPLAINED_MS = 2_500  # the probe's figure: how long a price that a frame replaced still explains what is painted
CLOCK_WINDOW_MS = 60_000  # how long the least delay seen between a page's clock and ours is remembered
CLOCK_STEP_MS = 5_000  # a timestamp further back than this means that the machine's clock was set
MAX_TEXT = 200  # characters kept of a text the page gave us

BOT_WALL_TITLES = ("Just a moment", "Verify you are human")
LIVE_TITLE = re.compile(r"(?P<symbol>\S+)\s+(?P<price>[\d,.]+)\s+[▲▼]")
DELAYED_MODES = ("delayed", "endofday", "snapshot", "forbidden")  # how data modes begin that are not the price now

TRUST = (Source.SOCKET, Source.DOM, Source.TITLE)  # what can be live, the most trusted first
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
NO_NUMBERS: dict[str, Any] = dict.fromkeys(NUMBER_FIELDS.values())
TEXT_FIELDS = {"currency_code": "currency", "description": "description"}
FRAME_FIELDS = frozenset({"lp", "lp_time", "pricescale", "minmov", "update_mode", *NUMBER_FIELDS, *TEXT_FIELDS})


class PageTrouble(PlutoError):
    """A page that can't give a price: the state its ticker gets, the reason, and whether the last price is void.

    `delay` is in how many seconds to try again; None leaves it to the backoff.
    """

    code = "page_trouble"

    def __init__(self, state: State, reason: str, *, void_price: bool = False, delay: float | None = None) -> None:
        super().__init__(reason)
        self.state, self.reason, self.void_price, self.delay = state, printable(reason), void_price, delay


@dataclass(frozen=True)
class Trouble:
    """Why a ticker has no page that works; when it is tried again, in ms since the epoch and by our own clock."""

    state: State
    reason: str
    next_try_at: int
    retry_at: float = 0.0


@dataclass(frozen=True)
class Reading:
    """A price as one strategy had it: when the page showed it, by its clock, and the exchange's own time of it."""

    text: str
    at: float
    source_time: int | None = None


class PageClock:
    """Tells a page's time in ours: the least delay of a message seen in the last minute or two is taken for none."""

    def __init__(self) -> None:
        self._least = self._least_before = float("inf")
        self._began_at = float("-inf")

    def hear(self, at: float, now: float) -> None:
        if now - self._began_at > CLOCK_WINDOW_MS:
            self._least_before, self._least, self._began_at = self._least, float("inf"), now
        self._least = min(self._least, now - at)

    def ours(self, at: float) -> float:
        return at + min(self._least, self._least_before)


class Feed:
    """What the pages of one ticker have told, and what of it is true now.

    Pure: it has no clock and no browser. Times are ms: `at` by the page's clock, `now` by ours, which never jumps and
    counts what the machine slept, `wall` since the epoch. Only a quote's own times are told by the wall's clock.
    Counts what it refuses into `counters`. One object serves a ticker until it is removed, or its page is renewed.
    """

    def __init__(self, ticker: Ticker, *, simulated: bool, counters: Counter[str]) -> None:
        self.ticker = ticker
        self.told: Quote | None = None  # the quote last emitted
        self.failures = 0  # in a row
        self.cut_offs = 0  # how often its page had to be kept from hurting others
        self.complaint: str | None = None  # the reason last logged
        exchange, symbol = split_ticker(ticker)
        self.symbol = f"{exchange}:{symbol}"
        self.trouble: Trouble | None = None
        self._counters = counters
        self._known = Quote(ticker, State.STARTING, exchange=exchange, simulated=simulated)
        self._begin()
        self._doubt: str | None = None  # why no sign of life counts yet

    def _begin(self) -> None:
        """All that one document of a page tells; the next one starts from nothing."""
        self._page: object = None  # which document this is
        self._clock = PageClock()
        self._is_ours = False  # it is not known to be another symbol's page
        self._resolved = False  # it said itself that it is our symbol's
        self._confirmed = False  # it has shown a price
        self._frame: dict[str, Any] = {}  # its quote frames, merged: each holds only what changed
        self._heard_at = 0.0  # by the page's clock
        self._feed_open = False
        self._mode = ""  # "realtime", "delayed" … beside its price
        self._readings: dict[Source, Reading] = {}
        self._proven: dict[Source, float] = {}  # when each strategy last saw its feed alive, by our clock
        self._counts_after: float | None = float("-inf")  # by the page's clock; None: the next message says
        self._shown: tuple[Source, Reading] | None = None
        self._disagreeing_since: float | None = None
        self._disagreement_counted = False

    @property
    def has_price(self) -> bool:
        """Whether the page that is open now has shown a price."""
        return self._confirmed

    @property
    def due_at(self) -> float:
        """When a page may be opened for it, by our clock."""
        return 0.0 if self.trouble is None else self.trouble.retry_at

    def quote(self, now: float) -> Quote:
        """The ticker's quote as it is true at `now`."""
        if self.trouble is not None:
            state, reason = self.trouble.state, self.trouble.reason
            return replace(self._known, state=state, reason=reason, next_try_at=self.trouble.next_try_at)
        state, stale_reason = self._state(now)
        return replace(self._known, state=state, reason=stale_reason, proven_until=self._proven_until())

    def _proven_until(self) -> float | None:
        """When the proof of what is shown runs out, by our clock; None without one."""
        proven = None if self._known.source is None else self._proven.get(self._known.source)
        return None if proven is None else proven + PROOF_LIMIT_MS

    def _state(self, now: float) -> tuple[State, str | None]:
        if self._known.price_text is None or self._known.source is None:
            return State.STARTING, None
        if self._known.source is Source.SCRIPT:
            return State.SNAPSHOT, None
        if self._doubt is not None:
            return State.STALE, self._doubt
        if self._disagrees(now):
            return State.STALE, "socket and page disagree"
        if not self._confirmed or not self._is_proven(self._known.source, now):
            return State.STALE, "the page's feed gives no sign of life"
        if self._known.source not in self._readings and (self._feed_open or self._known.source is not Source.SOCKET):
            return State.STALE, "the page's price can't be read"
        for mode in (self._mode, printable(self._frame.get("update_mode"))):
            if mode.startswith(DELAYED_MODES):
                return State.STALE, f"TradingView doesn't give this price as it happens ({mode})"
        return State.LIVE, None

    def reopen(self) -> None:
        """A page begins anew: nothing the one before said still proves anything. A trouble lasts until it does well."""
        self._begin()
        self._doubt = "its page is being opened again"

    def doubt(self, reason: str, *, slept: bool = False) -> None:
        """From now on only that counts as proof which the page sees SETTLING_MS after the next message it sends.

        When the machine `slept`, so did the page's clock, but not ours.
        """
        self._doubt = reason
        self._proven.clear()
        self._counts_after = None
        if slept:
            self._clock = PageClock()

    def succeed(self, old: Feed) -> None:
        """Takes the place of the feed whose page was open until now; a price that both show stays as old as it is."""
        self.told, self.failures, self.complaint = old.told, old.failures, old.complaint
        before, shown = old._known, self._known
        if before.timestamp is None or shown.timestamp is None:
            return
        if before.price_text == shown.price_text:
            self._known = replace(shown, timestamp=before.timestamp, received_at=before.received_at)
        else:
            self._known = replace(shown, timestamp=max(before.timestamp, shown.timestamp))

    def fail(self, trouble: Trouble, *, void_price: bool) -> None:
        self.trouble = trouble
        if void_price:
            self._known = Quote(
                self.ticker, State.STARTING, exchange=self._known.exchange, simulated=self._known.simulated
            )

    def hear(self, message: dict[str, Any], now: float, wall: float) -> None:
        """Takes a message of the probe. Raises PageTrouble when the page is no use, ValueError when it is none."""
        at = message.get("at")
        if not _is_time(at):
            raise ValueError("a message without its time")
        if message.get("kind") == "start":
            self.reopen()
            self._page = message.get("page")
        elif message.get("page") != self._page:
            self._counters["messages_of_old_pages"] += 1
            return
        if at < self._heard_at:
            self._counters["messages_out_of_order"] += 1
            return
        self._heard_at = at
        self._clock.hear(at, now)
        if self._counts_after is None:
            self._counts_after = at + SETTLING_MS
        self._take(message, at, now, wall)
        self.choose(now, wall)

    def _take(self, message: dict[str, Any], at: float, now: float, wall: float) -> None:
        match message.get("kind"):
            case "start" | "long":
                pass
            case "frame":
                self._on_frame(message, at)
            case "price":
                self._prove(Source.DOM, at)
                self._on_text(message.get("text"), at, now, is_new=True, explained=False)
            case "title":
                self._prove(Source.TITLE, at)
                self._on_title(message.get("text"), at)
            case "pulse":
                self._on_pulse(message, at, now)
            case "page":
                self._on_page(message, at, now, wall)
            case kind:
                raise ValueError(f"a message of unknown kind {kind!r}")

    # What each strategy reads.

    def _on_frame(self, message: dict[str, Any], at: float) -> None:
        if message.get("symbol") != self.symbol:
            raise ValueError("a frame of another symbol")
        if message.get("status") != "ok":
            raise _frame_trouble(self.symbol, printable(message.get("error") or message.get("status")))
        fields = message.get("fields")
        if not isinstance(fields, dict):
            raise ValueError("a frame without fields")
        news = {name: value for name, value in fields.items() if name in FRAME_FIELDS and value is not None}
        self._frame.update(news)
        self._feed_open = True
        self._prove(Source.SOCKET, at)
        if "lp" in self._frame and ("lp" in news or "pricescale" in news):
            self._read_frame(at, is_new="lp" in news)
        if "lp" not in news:  # else it is told with the price
            values = _frame_values(news)
            if self._known.source in (Source.DOM, Source.TITLE):
                values = {name: value for name, value in values.items() if name not in NO_NUMBERS}
            self._known = replace(self._known, **values)

    def _read_frame(self, at: float, *, is_new: bool) -> None:
        decimals = decimals_of(self._frame.get("pricescale"), self._frame.get("minmov"))
        try:
            text = price_from_number(self._frame["lp"], decimals)
        except UnreadablePrice as refused:
            self._refuse(refused)
            self._readings.pop(Source.SOCKET, None)
            return
        before = self._readings.get(Source.SOCKET)
        shown_at = at if is_new or before is None else before.at
        self._readings[Source.SOCKET] = Reading(text, shown_at, _milliseconds(self._frame.get("lp_time")))

    def _on_text(self, text: object, at: float, now: float, *, is_new: bool, explained: bool) -> None:
        """The price element's text: new, or in a pulse as it stands. `explained` says that a recent frame has it."""
        if explained:
            self._disagreeing_since = None
        if not self._resolved:
            return
        try:
            price = parse_price(str(text))
        except UnreadablePrice as refused:
            self._readings.pop(Source.DOM, None)
            if is_new:
                self._refuse(refused)
            return
        self._readings[Source.DOM] = Reading(price, at)
        frame = self._readings.get(Source.SOCKET)
        if frame is None or explained or _is_same_price(frame.text, price):
            self._disagreeing_since = None
        elif self._disagreeing_since is None:
            self._disagreeing_since = now if is_new else now - EXPLAINED_MS
            self._disagreement_counted = False

    def _on_title(self, text: object, at: float) -> None:
        """Only "SYMBOL PRICE ▲", as on chart pages, is a price: other titles hold numbers that are none."""
        match = LIVE_TITLE.match(printable(text))
        if match is None or match["symbol"] != self.symbol.partition(":")[2] or not self._resolved:
            self._readings.pop(Source.TITLE, None)
            return
        try:
            self._readings[Source.TITLE] = Reading(parse_price(match["price"]), at)
        except UnreadablePrice as refused:
            self._refuse(refused)

    def _on_pulse(self, message: dict[str, Any], at: float, now: float) -> None:
        self._feed_open = message.get("feed") == "open"
        if not self._feed_open:  # what it said last is no longer what it would say
            self._readings.pop(Source.SOCKET, None)
            self._frame.pop("lp", None)
        self._mode = printable(message.get("mode"))
        proven = message.get("proven")
        times = proven if isinstance(proven, dict) else {}
        for source in TRUST:
            if _is_time(moment := times.get(source)) and moment <= at:
                self._prove(source, moment)
        explained = message.get("explained") is True
        if isinstance(text := message.get("text"), str) and _is_time(times.get(Source.DOM)):
            self._on_text(text, times[Source.DOM], now, is_new=False, explained=explained)
        elif explained:
            self._disagreeing_since = None
        if _is_time(times.get(Source.TITLE)):
            self._on_title(message.get("title"), times[Source.TITLE])

    def _on_page(self, message: dict[str, Any], at: float, now: float, wall: float) -> None:
        title, url = printable(message.get("title")), printable(message.get("url"))
        if message.get("notFound") is True:
            raise PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {self.symbol}", void_price=True)
        if title.startswith(BOT_WALL_TITLES):
            raise PageTrouble(State.BLOCKED, f'TradingView asks "{title}"')
        resolved = printable(message.get("resolved"))
        if resolved and resolved != self.symbol:
            raise PageTrouble(State.ERROR, f"asked for {self.symbol}, page shows {resolved}", void_price=True)
        path = printable(unquote(urlsplit(url).path))
        if url and not path.startswith("/symbols/"):
            raise PageTrouble(State.ERROR, f"asked for {self.symbol}, page went to {path}", void_price=True)
        self.trouble = None
        self._resolved = bool(resolved)
        self._is_ours = self._resolved or self.symbol.partition(":")[2] in re.split("[/-]", path)
        self._describe(message)
        self._take_snapshot(message.get("offer"), at, now, wall)

    def _describe(self, message: dict[str, Any]) -> None:
        description = printable(message.get("description")) or self._known.description
        self._known = replace(
            self._known,
            description=description,
            currency=printable(message.get("currency")) or self._known.currency,
            calculated="calculated by tradingview" in (description or "").lower(),
            simulated=self._known.simulated or message.get("simulated") is True,
        )

    def _take_snapshot(self, offer: object, at: float, now: float, wall: float) -> None:
        """Structured data carries a dated price: the best there is until the page's feed has spoken."""
        if not self._resolved or self._known.price_text is not None or not isinstance(offer, dict):
            return
        try:
            price = offer.get("price")
            text = parse_price(price) if isinstance(price, str) else price_from_number(price, None)
        except UnreadablePrice as refused:
            self._refuse(refused)
            return
        if (dated := _iso_milliseconds(offer.get("priceValidUntil"))) is not None:
            self._know(Source.SCRIPT, Reading(text, at, dated), now, wall)

    def _prove(self, source: Source, at: float) -> None:
        """The strategy's feed was alive at this time of the page's."""
        moment, before = self._clock.ours(at), self._proven.get(source, float("-inf"))
        if self._counts_after is None or at <= self._counts_after or moment <= before:
            return
        if source is not Source.SOCKET and not self._resolved:  # nobody has said yet whose element or title this is
            return
        if source is Source.SOCKET and PROOF_LIMIT_MS < moment - before < float("inf"):
            del self._proven[source]
            self._counts_after = at + SETTLING_MS
            return
        self._proven[source] = moment
        self._doubt = None

    def _refuse(self, refused: UnreadablePrice) -> None:
        self._counters[f"refused: {refused.reason}"] += 1

    # What is believed of it.

    def choose(self, now: float, wall: float) -> None:
        """Shows what the most trusted strategy that works has; where two disagree, the newer."""
        for source in TRUST:
            if self._works(source, now):
                break
        else:
            return
        if self._disagrees(now):
            self._counters["disagreements"] += not self._disagreement_counted
            self._disagreement_counted = True
            if self._is_dom_newer():
                source = Source.DOM
        self._show(source, self._readings[source], now, wall)

    def _works(self, source: Source, now: float) -> bool:
        if source not in self._readings or not self._is_proven(source, now):
            return False
        return self._feed_open and self._is_ours if source is Source.SOCKET else self._resolved

    def _is_proven(self, source: Source, now: float) -> bool:
        return now - self._proven.get(source, float("-inf")) <= PROOF_LIMIT_MS

    def _disagrees(self, now: float) -> bool:
        """Whether socket and page have shown different prices for too long."""
        since = self._disagreeing_since
        return (
            since is not None
            and now - since > DISAGREEMENT_LIMIT_MS
            and Source.DOM in self._readings
            and self._works(Source.SOCKET, now)
        )

    def _is_dom_newer(self) -> bool:
        frame, dom = self._readings[Source.SOCKET], self._readings[Source.DOM]
        return dom.at - (frame.source_time or frame.at) > DISAGREEMENT_LIMIT_MS

    def _show(self, source: Source, reading: Reading, now: float, wall: float) -> None:
        if (source, reading) == self._shown:
            return
        is_same_price = self._confirmed and reading.text == self._known.price_text
        if self._shown is not None and source is not self._shown[0]:
            if reading.at < self._shown[1].at and not is_same_price:
                return  # what is shown is newer
            verb = "climbed" if TRUST.index(source) < TRUST.index(self._shown[0]) else "fell"
            self._counters[f"{verb}_to_{source}"] += 1
            if is_same_price:
                reading = replace(reading, at=self._shown[1].at)
        self._shown = source, self._readings[source]
        self._confirmed = True
        self._counters[f"prices_{source}"] += 1
        self._know(source, reading, now, wall)

    def _know(self, source: Source, reading: Reading, now: float, wall: float) -> None:
        shown_at = round(wall - max(0.0, now - self._clock.ours(reading.at)))
        if (before := self._known.timestamp) is not None and self._confirmed and shown_at > before - CLOCK_STEP_MS:
            shown_at = max(before, shown_at)
        numbers = NO_NUMBERS | (_frame_values(self._frame) if source is Source.SOCKET else {})
        self._known = replace(
            self._known,
            price_text=reading.text,
            source=source,
            source_time=reading.source_time,
            timestamp=shown_at,
            received_at=round(wall),
            **numbers,
        )


def _frame_trouble(symbol: str, error: str) -> PageTrouble:
    if error == "no_such_symbol":
        return PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {symbol}", void_price=True)
    return PageTrouble(State.ERROR, f"TradingView refuses to quote {symbol}: {error}")


def _frame_values(fields: dict[str, Any]) -> dict[str, Any]:
    """The parts of a quote that a frame's fields give: only what is there, finite and of the right type."""
    values: dict[str, Any] = {}
    for theirs, ours in NUMBER_FIELDS.items():
        number = fields.get(theirs)
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e18:
            values[ours] = float(number)
    for theirs, ours in TEXT_FIELDS.items():
        if text := printable(fields.get(theirs)):
            values[ours] = text
    if "description" in values:
        values["calculated"] = "calculated by tradingview" in values["description"].lower()
    return values


def _is_same_price(framed: str, shown: str) -> bool:
    """Whether the page shows what a frame said: it may print fewer decimals."""
    step = 10.0 ** -len(shown.partition(".")[2])
    return abs(float(framed) - float(shown)) <= step * 0.501


def printable(text: object) -> str:
    """A text of the page made fit to keep, log and send: printable, on one line, of bounded length."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text[:MAX_TEXT] if character.isprintable()).strip()


def _is_time(value: object) -> TypeGuard[float]:
    """Whether this can be a time in ms since the epoch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e14


def _milliseconds(seconds: object) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return None
    return round(seconds * 1000)


def _iso_milliseconds(text: object) -> int | None:
    """A date without a time zone is UTC, as the pages are opened in that zone."""
    try:
        moment = datetime.fromisoformat(str(text))
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
