"""The words every layer of Pluto shares: tickers, quotes, states, and the errors a user can cause.

This file owns what a text means as a ticker, how a price is read from text and written as text, what a quote is, and
which clocks all layers use. It reads the facts about coins once, when it is imported. Apart from that it does no I/O;
it starts no thread and imports only the standard library, so any layer and any thread may use it.

A price is a decimal string; a float is derived from it, never the other way round, so every digit the page shows
survives.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NewType, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_EXCHANGE = "BINANCE"
MAX_PRICE_DIGITS = 20
NO_SIGN_OF_LIFE = "TradingView's page shows no sign of life"
NOT_OPENED = "its page has not been opened yet"
ANSWER_LIMIT_S = 2.0  # how long whoever asks a source of quotes waits for it
BETWEEN_TRIES_S = 10.0  # that users request, of one ticker

Ticker = NewType("Ticker", str)
"""What the user typed, made canonical by `parse_ticker`: "BTCUSD"; "COINBASE:BTCUSD" elsewhere than at BINANCE."""

# Once it is cleaned: upper-case letters and digits of any script, and the signs that TradingView has in symbols.
_PLAIN = r"[\w.!&]"
_EXCHANGE = re.compile(rf"{_PLAIN}{{1,32}}")
_SYMBOL = re.compile(rf"(?=.{{1,32}}\Z){_PLAIN}+(?:/{_PLAIN}+)*")
_CANONICAL = re.compile(r"(?:[A-Z0-9]{1,32}:)?[A-Z0-9]{1,32}")  # most tickers
_SYMBOL_NAME = re.compile(rf"{_EXCHANGE.pattern}:{_SYMBOL.pattern}")
_ONLY_DOTS = re.compile(r"(?:.*/)?\.+(?:/.*)?")
_ADDRESS = re.compile(r"(?:HTTPS?://)?(?:[\w-]+\.)*TRADINGVIEW\.COM(?::\d*)?(?:[/?#].*)?")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
MAX_TICKER_TEXT = 2_000  # characters of a text that may hold one ticker, such as a page's address

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

    @property
    def counters(self) -> Counter[str]: ...

    @property
    def last_tick(self) -> float: ...

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
        """Tries to get the ticker's price now. Returns what came of it.

        It may block as `why` may. Raises RetryRefused, RetriedTooSoon and SourceBusy.
        """

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


def answer_without_try(ticker: Ticker, state: State) -> str:
    """The answer to a user who wants a try, if the ticker's state needs none; else empty. Raises RetryRefused."""
    if state is State.BLOCKED:
        raise RetryRefused(f"TradingView blocks {ticker}; asking sooner would only prolong it.")
    return f"{ticker} is live: its page is left as it is." if state is State.LIVE else ""


class InvalidTicker(PlutoError):
    """No ticker is in the text. `proposals` are texts to send instead, if any are known."""

    code = "invalid_ticker"

    def __init__(self, message: str, proposals: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.proposals = list(proposals)


class DidYouMean(InvalidTicker):
    """The text names a coin: each of `proposals` is a ticker of it."""

    code = "did_you_mean"


class SeveralTickers(InvalidTicker):
    """The text has more tickers than one: each of `proposals` is the text of one of them."""

    code = "several_tickers"


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
    `position` is where the relay's stream has the quote; None: it isn't from there. It isn't sent either.
    `alternative` is the symbol that TradingView shows instead, such as that of a renamed coin; it isn't sent either.
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
    alternative: str | None = None
    proven_until: float | None = field(default=None, compare=False)
    position: int | None = field(default=None, compare=False)

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

    @property
    def proposals(self) -> list[Ticker]:
        """Tickers to track instead, while TradingView has no such symbol, or shows another one."""
        if self.alternative is not None and _SYMBOL_NAME.fullmatch(self.alternative):
            return [ticker_at(*self.alternative.split(":"))]
        return proposals_for(self.ticker) if self.state is State.NOT_FOUND else []

    def has_expired(self, now: float) -> bool:
        """Whether it says that the price is live, and no proof of that holds at `now`, in ms of `steady_ms`."""
        return self.state in (State.LIVE, State.CLOSED) and (self.proven_until is None or self.proven_until < now)

    def as_of(self, now: float, reason: str = NO_SIGN_OF_LIFE) -> Quote:
        """The quote as it may be shown at `now`: the one place which decides that a price is no longer live.

        `reason` is told with one that no longer is.
        """
        if not self.has_expired(now):
            return self
        return replace(self, state=State.STALE, reason=reason, proven_until=None, position=None)


# --- what a text means as a ticker ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coin:
    """A coin of static/coins.json: its code, its name, and tickers under which TradingView has it."""

    code: str
    name: str
    tickers: list[Ticker]


def parse_ticker(text: object) -> Ticker:
    """The ticker that a text means: "btcusd", "BTC/USDT", "COINBASE:BTC-USD", a TradingView address, "$SOLUSD" …

    Raises InvalidTicker, whose message says what is accepted; DidYouMean for a bare coin, and SeveralTickers.
    """
    if not isinstance(text, str) or len(text) > MAX_TICKER_TEXT:
        raise InvalidTicker('A ticker is a text such as "BTCUSD".')
    texts = _split(text)
    if len(texts) > 1:
        raise SeveralTickers(f"These are {len(texts)} tickers: send each on its own, such as BTCUSD.", texts)
    return _read(texts[0] if texts else "")


def parse_tickers(text: str) -> list[Ticker]:
    """All tickers in a text that separates them by commas, semicolons, spaces or lines. Raises as `parse_ticker`."""
    return [_read(part) for part in _split(text)]


def _split(text: str) -> list[str]:
    """The cleaned texts of one ticker each."""
    texts: list[str] = []
    for part in re.split(r"[,;\n\r]", _clean(text)):
        if _is_canonical(part):
            texts.append(part)
            continue
        words = [word.removeprefix("$") for word in re.sub(r"\s*([-/:])\s*", r"\1", part).split()]
        texts += [" ".join(words)] if _coin_called(part) else _join(words)
    return [text for text in texts if text]


def _clean(text: str) -> str:
    """NFKC, without invisible marks, in upper case; "ß" stays, because its upper case is "SS"."""
    if text.isascii():
        return text.upper()
    text = unicodedata.normalize("NFKC", text.encode(errors="replace").decode()).translate(_DASHES)
    visible = (char for char in text if unicodedata.category(char) != "Cf")
    return "".join(up if len(up := char.upper()) == 1 and up.isascii() == char.isascii() else char for char in visible)


def _join(words: list[str]) -> list[str]:
    """Words between spaces as tickers: "KRAKEN BTC USD" is one, KRAKEN:BTC/USD; "BTCUSD ETHUSD" are two."""
    texts: list[str] = []
    for word in words:
        before = texts[-1] if texts else ""
        if before in _EXCHANGES:
            texts[-1] = f"{before}:{word}"
        elif before and _is_currency(word, _MONEY) and not re.search("[-/]", before):
            texts[-1] = f"{before}/{word}"
        else:
            texts.append(word)
    return texts


def _read(text: str) -> Ticker:
    """The ticker that a cleaned text means."""
    if _is_canonical(text):
        return Ticker(text)
    text = _symbol_in_address(text) if _ADDRESS.fullmatch(text) else text
    exchange, symbol = _read_pair(text)
    if exchange == DEFAULT_EXCHANGE and (coin := _coin_called(symbol)):
        raise DidYouMean(f"{coin.name} is a coin. Did you mean {' or '.join(coin.tickers)}?", coin.tickers)
    if not (_is_written_right(exchange, _EXCHANGE) and _is_written_right(symbol, _SYMBOL)):
        raise InvalidTicker(
            "A ticker is 1 to 32 letters, digits, '.', '_', '!' or '&', such as BTCUSD; "
            "another exchange than BINANCE goes before it: COINBASE:BTCUSD."
        )
    if "/" in symbol and exchange == DEFAULT_EXCHANGE:
        raise InvalidTicker("A ticker with '/' needs its exchange before it, as in NYSE:NEE/PW; a pair is as BTCUSD.")
    if symbol.endswith("_OI"):
        raise InvalidTicker(f"{symbol} is open interest, not a price: remove _OI to track the price.")
    return ticker_at(exchange, symbol)


def _is_canonical(text: str) -> bool:
    """Whether a text is a ticker as it stands; quickly, because a client's filter may have a thousand of them."""
    is_coin = text in _COINS or text in _RENAMED
    return not is_coin and bool(_CANONICAL.fullmatch(text)) and not text.startswith(f"{DEFAULT_EXCHANGE}:")


def _is_written_right(part: str, pattern: re.Pattern[str]) -> bool:
    return part == part.upper() and bool(pattern.fullmatch(part)) and not _ONLY_DOTS.fullmatch(part)


def _symbol_in_address(address: str) -> str:
    """EXCHANGE:SYMBOL in the cleaned address of a symbol's page or of a chart; raises InvalidTicker for any other."""
    url = urlsplit(re.sub("^(HTTPS?:)?(//)?", "//", address))
    query, path = parse_qs(url.query), url.path.split("/")
    symbol = query.get("SYMBOL", [""])[0]
    if not symbol and len(path) > 2 and path[1] == "SYMBOLS":
        symbol = unquote(path[2])
        if "EXCHANGE" in query:
            symbol = f"{query['EXCHANGE'][0]}:{symbol}"
        elif "-" in symbol:
            symbol = symbol.replace("-", ":", 1)
    symbol = _clean(symbol)
    if not symbol or _ADDRESS.fullmatch(symbol):
        raise InvalidTicker(
            "This address has no ticker. Paste that of a symbol's page, or type a ticker such as BTCUSD."
        )
    return symbol


def _read_pair(text: str) -> tuple[str, str]:
    """The exchange and the symbol in a text such as COINBASE:BTC-USD, BINANCE-BTCUSDT, BTC/USDT or NYSE:NEE/PW."""
    exchange, colon, symbol = text.rpartition(":")
    first, separator, rest = _partition(symbol)
    if not colon:
        exchange = DEFAULT_EXCHANGE
        if separator and first in _EXCHANGES:
            exchange, symbol = first, rest
            first, separator, rest = _partition(symbol)
    if first and separator and _is_currency(rest, _CURRENCIES):
        symbol = first + rest
    return exchange, symbol


def _partition(symbol: str) -> tuple[str, str, str]:
    first, *rest = re.split("([-/])", symbol, maxsplit=1)
    return first, rest[0] if rest else "", rest[-1] if rest else ""


def _is_currency(text: str, currencies: frozenset[str]) -> bool:
    return text.removesuffix(".P") in currencies


def _squeezed(text: str) -> str:
    return re.sub(r"[\s.-]", "", text)


def _coin_called(text: str) -> Coin | None:
    """The coin that has this code or name, with or without its spaces and dots; under its old code, too."""
    code = _squeezed(text)
    return _COINS.get(_RENAMED.get(code, code))


@lru_cache(1_000)
def proposals_for(ticker: Ticker) -> list[Ticker]:
    """Tickers to try instead of one that TradingView doesn't have: of the renamed coin, the coin, or similar ones."""
    exchange, symbol = split_ticker(ticker)
    code, currency = _split_pair(symbol)
    if new := _RENAMED.get(code):
        proposals = [ticker_at(exchange, new + (currency or "USD")), *(_COINS[new].tickers if new in _COINS else [])]
    elif coin := _COINS.get(code):
        proposals = [ticker_at(exchange, code + "USD"), *coin.tickers] if exchange != DEFAULT_EXCHANGE else coin.tickers
    else:
        similar = get_close_matches(symbol, _WAYS_TO_WRITE, 3, 0.75)
        proposals = [_WAYS_TO_WRITE[way] for way in similar]
    return [proposal for proposal in dict.fromkeys(proposals) if proposal != ticker][:3]


def _split_pair(symbol: str) -> tuple[str, str]:
    """("BTC", "USDT.P"): the coin's code and the currency; ("BTC", "") without a currency."""
    ends = (symbol[at:] for at in range(1, len(symbol)))
    currency = next((end for end in ends if _is_currency(end, _CURRENCIES)), "")
    return symbol.removesuffix(currency), currency


def ticker_at(exchange: str, symbol: str) -> Ticker:
    return Ticker(symbol if exchange == DEFAULT_EXCHANGE else f"{exchange}:{symbol}")


def split_ticker(ticker: Ticker) -> tuple[str, str]:
    """("BINANCE", "BTCUSD"): the exchange and the symbol at it."""
    exchange, _, symbol = ticker.rpartition(":")
    return exchange or DEFAULT_EXCHANGE, symbol


_FACTS = json.loads((Path(__file__).parent / "static" / "coins.json").read_text(encoding="utf-8"))
_EXCHANGES = frozenset(_FACTS["exchanges"])
_MONEY = frozenset(_FACTS["money"])
_CURRENCIES = _MONEY | frozenset(_FACTS["coinsThatPrice"])  # after a space, a coin is a ticker of its own
_RENAMED: dict[str, str] = _FACTS["renamed"]
_COINS = {
    _squeezed(way.upper()): coin
    for coin in (Coin(**coin) for coin in _FACTS["coins"])
    for way in (coin.name, coin.code)
}
_WAYS_TO_WRITE = {split_ticker(ticker)[1]: ticker for coin in _COINS.values() for ticker in coin.tickers}


# --- prices -----------------------------------------------------------------------------------------------------------


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
    if field.name not in ("proven_until", "position", "alternative")  # they stay between Pluto's own processes
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


def compact_json(value: object) -> str:
    """JSON without spaces, in which letters of any script stay as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def iso_milliseconds(text: object) -> int | None:
    """An ISO time in ms since the epoch, UTC unless it says otherwise; None if it isn't one."""
    try:
        moment = datetime.fromisoformat(str(text))
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def steady_ms() -> float:
    """Our clock, in ms: it never jumps, and counts what the machine slept."""
    return time.clock_gettime(_STEADY_CLOCK) * 1000


def wall_ms() -> int:
    """The machine's clock, in ms since the epoch; it jumps when someone sets it."""
    return round(time.time() * 1000)


def slept_s() -> float:
    """How long the machine has slept in all; only differences mean anything."""
    return time.clock_gettime(_STEADY_CLOCK) - time.clock_gettime(_AWAKE_CLOCK)


# CLOCK_MONOTONIC stops during sleep on Linux, and doesn't on macOS, where it is adjusted besides.
_CLOCKS = (
    ("CLOCK_MONOTONIC_RAW", "CLOCK_UPTIME_RAW") if sys.platform == "darwin" else ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC")
)
_STEADY_CLOCK, _AWAKE_CLOCK = (getattr(time, name, time.CLOCK_MONOTONIC) for name in _CLOCKS)
