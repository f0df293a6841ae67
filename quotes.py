"""The words every layer of Pluto shares: tickers, quotes, states, and the errors a user can cause.

This file owns what a ticker may look like, how a price is read from text and written as text, and what a quote is.
It never does I/O, starts no thread and imports only the standard library, so any layer and any thread may use it.

A price is a decimal string; a float is derived from it, never the other way round, so every digit the page shows
survives.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, NewType, Protocol

DEFAULT_EXCHANGE = "BINANCE"
MAX_PRICE_DIGITS = 20
NO_SIGN_OF_LIFE = "the page's feed gives no sign of life"
ANSWER_LIMIT_S = 2.0  # how long whoever asks a source of quotes waits for it

Ticker = NewType("Ticker", str)
"""What the user typed, made canonical by `parse_ticker`: "BTCUSD"; "COINBASE:BTCUSD" elsewhere than at BINANCE."""

_TICKER_PART = r"[A-Z0-9._!]{1,32}"
_TICKER = re.compile(rf"(?:(?P<exchange>{_TICKER_PART}):)?(?P<symbol>{_TICKER_PART})")
_ONLY_DOTS = re.compile(r"\.+")

# en-US, the only locale the scraper opens pages in: groups of exactly three after commas, one decimal point. Indian
# groups (1,10,910.19) can't be mistaken for anything else: one or two digits, then twos, then three.
_NUMBER = re.compile(r"(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|[1-9]\d*)(?:\.\d+)?", re.ASCII)
_EXPONENTIAL = re.compile(r"\d+(?:\.\d+)?[eE][+-]?\d{1,2}", re.ASCII)  # TradingView's form above pricescale 1e10
_UNIT_AFTER_NUMBER = re.compile(r"[\d.,]+[\s\u2006]*[KMBT]", re.ASCII)
_BIDI_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c"))
_MINUS_SIGNS = ("-", "\u2212")
_PLACEHOLDERS = ("—", "---", "–", "")


class State(StrEnum):
    """What a ticker's price is worth at this moment; the meanings are those of the wire contract."""

    STARTING = "starting"
    SNAPSHOT = "snapshot"
    LIVE = "live"
    STALE = "stale"
    CLOSED = "closed"
    NOT_FOUND = "not_found"
    BLOCKED = "blocked"
    ERROR = "error"


class Source(StrEnum):
    """Where on the page a price was read, in descending order of trust."""

    SOCKET = "socket"
    DOM = "dom"
    SCRIPT = "script"
    TITLE = "title"


class PlutoError(Exception):
    """An error whose text is meant for the user: it says what to do. `code` is its name on the wire."""

    code = "error"


class SourceState(StrEnum):
    """Whether a source of quotes works. One that is `down` comes back by itself, one that is `dead` by `restart`."""

    RUNNING = "running"
    DOWN = "down"
    DEAD = "dead"


class QuoteSource(Protocol):
    """What feeds the broadcaster with quotes, such as the scraper. Any thread may call it.

    `last_tick` is the monotonic time, in seconds, at which its thread was last seen running.
    """

    counters: Counter[str]
    last_tick: float

    @property
    def state(self) -> SourceState: ...

    @property
    def health(self) -> Mapping[str, str]:
        """What /health says about it in addition; empty while nothing is known."""

    def add(self, ticker: Ticker) -> None:
        """From now on quotes of this ticker come."""

    def remove(self, ticker: Ticker) -> None:
        """From now on none comes."""

    def why(self, ticker: Ticker) -> Mapping[str, Any] | None:
        """Why the ticker's quote is what it is, as plain JSON; None when the source has no such ticker.

        It may block for ANSWER_LIMIT_S, so never call it on the hub thread. Raises SourceBusy after that.
        """

    def retry(self, ticker: Ticker) -> str:
        """Tries to get the ticker's price now. Returns what came of it; raises RetryRefused or RetriedTooSoon."""

    def start(self) -> None: ...

    def begin_stop(self) -> None:
        """It ends soon, and its end is no news."""

    def stop(self) -> None: ...

    def restart(self) -> None:
        """Starts again after its thread has died."""


class SourceBusy(PlutoError):
    """The source of quotes has no time to answer."""

    code = "source_busy"


class RetryRefused(PlutoError):
    """A ticker isn't tried again now; the text says why."""

    code = "retry_refused"


class RetriedTooSoon(PlutoError):
    """A user asked for a try a moment ago. The next one is allowed after `retry_after_s`."""

    code = "retried_too_soon"

    def __init__(self, ticker: Ticker, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(f"{ticker} was tried a moment ago. Try again in {self.retry_after_s} s.")


class InvalidTicker(PlutoError):
    code = "invalid_ticker"


class UnreadablePrice(PlutoError):
    """A text that isn't certainly one price. `reason` is one of a few fixed phrases: refusals are counted by it."""

    code = "unreadable_price"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Quote:
    """Everything known about one ticker at one moment. None means unknown and is left out on the wire.

    Times are whole milliseconds since the epoch. `timestamp` is when the page showed the price, `source_time` the
    exchange's own time of it, `received_at` when Pluto had it. `change_percent` is over 24 h, in percent, signed.
    `proven_until` is the end of the proof that the price is current, in ms of `steady_ms`: past it nobody shows the
    price as live. It never leaves Pluto's own processes, and quotes that differ in nothing else are equal.
    """

    ticker: Ticker
    state: State
    price_text: str | None = None
    change_percent: float | None = None
    timestamp: int | None = None
    source: Source | None = None
    source_time: int | None = None
    received_at: int | None = None
    change: float | None = None
    volume: float | None = None
    high: float | None = None
    low: float | None = None
    open: float | None = None
    bid: float | None = None
    ask: float | None = None
    currency: str | None = None
    exchange: str | None = None
    description: str | None = None
    calculated: bool = False
    simulated: bool = False
    reason: str | None = None
    next_try_at: int | None = None
    proven_until: float | None = field(default=None, compare=False)

    @property
    def price(self) -> float | None:
        return None if self.price_text is None else float(self.price_text)

    @property
    def is_current(self) -> bool:
        """Whether the price is the one of this moment: live, or the last one of a closed market."""
        return self.price_text is not None and self.state in (State.LIVE, State.CLOSED)

    @property
    def is_complete(self) -> bool:
        """Whether it is current and has what the original's page counts on: price, change in percent and timestamp."""
        return self.is_current and self.change_percent is not None and self.timestamp is not None

    def has_expired(self, now: float) -> bool:
        """Whether it says that the price is live, and no proof of that holds at `now`, in ms of `steady_ms`."""
        return self.state in (State.LIVE, State.CLOSED) and (self.proven_until is None or self.proven_until < now)

    def as_of(self, now: float) -> Quote:
        """The quote as it may be shown at `now`: the one place which decides that a price is no longer live."""
        if not self.has_expired(now):
            return self
        return replace(self, state=State.STALE, reason=NO_SIGN_OF_LIFE, proven_until=None)


def parse_ticker(text: object) -> Ticker:
    """The canonical ticker in what a user typed. Raises InvalidTicker, whose message says what is accepted."""
    if not isinstance(text, str):
        raise InvalidTicker('A ticker is a text such as "BTCUSD".')
    match = _TICKER.fullmatch(text.strip().upper()) if text.isascii() else None  # "ß".upper() is "SS"
    if match is None or any(_ONLY_DOTS.fullmatch(part) for part in match.groups() if part):
        raise InvalidTicker(
            "A ticker is 1 to 32 letters, digits, '.', '_' or '!', such as BTCUSD; "
            "another exchange than BINANCE goes before it: COINBASE:BTCUSD."
        )
    exchange, symbol = match["exchange"], match["symbol"]
    if symbol.endswith("_OI"):
        raise InvalidTicker(f"{symbol} is open interest, not a price: leave _OI away to track the price.")
    return Ticker(symbol if exchange in (None, DEFAULT_EXCHANGE) else f"{exchange}:{symbol}")


def split_ticker(ticker: Ticker) -> tuple[str, str]:
    """("BINANCE", "BTCUSD"): the exchange and the symbol at it."""
    exchange, _, symbol = ticker.rpartition(":")
    return exchange or DEFAULT_EXCHANGE, symbol


def parse_price(text: str) -> str:
    """The exact decimal in a price text such as "45,554.10", without separators: "45554.10"; "12.3e-9" in full.

    Raises UnreadablePrice for whatever isn't certainly one positive price in the en-US locale.
    """
    text = text.translate(_BIDI_MARKS).strip()
    if _EXPONENTIAL.fullmatch(text) is not None:
        digits = f"{Decimal(text):f}"
    elif _NUMBER.fullmatch(text) is not None:
        digits = text.replace(",", "")
    else:
        raise UnreadablePrice(_why_unreadable(text))
    return checked_price(digits)


def checked_price(digits: str) -> str:
    """A decimal without separators, if it can be a price: not zero, and of bounded length."""
    if len(digits.replace(".", "")) > MAX_PRICE_DIGITS:
        raise UnreadablePrice("too many digits")
    if not any(digit in digits for digit in "123456789"):
        raise UnreadablePrice("zero")
    return digits


def _why_unreadable(text: str) -> str:
    if text in _PLACEHOLDERS:
        return "no price yet"
    if text.startswith(_MINUS_SIGNS):
        return "negative"
    if _UNIT_AFTER_NUMBER.fullmatch(text):
        return "rounded to a unit"
    if len(re.findall(r"\d[\d.,]*", text)) > 1:
        return "more than one number"
    return "not a number"


_WIRE_NAMES = {
    field.name: re.sub(r"_(\w)", lambda match: match[1].upper(), field.name)
    for field in fields(Quote)
    if field.name != "proven_until"  # it stays between Pluto's own processes
}


def wire_fields(quote: Quote, sequence: int) -> dict[str, Any]:
    """The quote as the wire contract's JSON object: camelCase, unknown fields left out, `price` taken from the text."""
    wire: dict[str, Any] = {"ticker": quote.ticker}
    if quote.price_text is not None:
        wire["price"] = quote.price
    for name, wire_name in _WIRE_NAMES.items():
        value = getattr(quote, name)
        if value is not None:
            wire[wire_name] = value
    wire["sequence"] = sequence
    return wire


def steady_ms() -> float:
    """Our clock, in ms: it never jumps, and counts what the machine slept."""
    return time.clock_gettime(_STEADY_CLOCK) * 1000


def slept_s() -> float:
    """How long the machine has slept in all; only differences mean anything."""
    return time.clock_gettime(_STEADY_CLOCK) - time.clock_gettime(_AWAKE_CLOCK)


# CLOCK_MONOTONIC stops during sleep on Linux, and doesn't on macOS, where it is adjusted besides.
_CLOCKS = (
    ("CLOCK_MONOTONIC_RAW", "CLOCK_UPTIME_RAW") if sys.platform == "darwin" else ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC")
)
_STEADY_CLOCK, _AWAKE_CLOCK = (getattr(time, name, time.CLOCK_MONOTONIC) for name in _CLOCKS)
