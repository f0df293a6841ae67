"""A TradingView of our own: symbol pages, quote sockets and their faults, for demo, tests and bench.

Owns: the invented markets (seeded random walks), the pages that show them (`simulator/` holds what a
browser gets of them), the quote sockets, and the faults that put pages into trouble. Never does: import
another module of Pluto, call anyone, write to disk. Runs in a process of its own, all in one thread:
gevent's hub, unpatched.

Each page says `<meta name="generator" content="pluto-simulator">`: so Pluto knows a simulated price.

How tests and people steer it (a ticker is `BTCUSD`; `?exchange=` means another than BINANCE):

    GET    /truth/{ticker}           every price sent so far, with its time in ms, newest last
    POST   /price/{ticker}/{price}   sets the price now and ends the walk
    POST   /rate/{ticker}/{rate}     changes a second; 0 is a quiet market
    GET    /fault                    the faults there are
    POST   /fault/{ticker}/{fault}   into trouble: at once and, where it lasts, at each later opening
    DELETE /fault/{ticker}           out of trouble
    GET    /pages                    of each symbol: open quote sockets, pages that faults reach at once, page loads
"""

from __future__ import annotations

import argparse
import atexit
import functools
import gc
import json
import logging
import math
import os
import random
import re
import signal
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gevent
from flask import Blueprint, Flask, Response, current_app, render_template, request, send_from_directory
from flask.typing import ResponseReturnValue
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import wait_read
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler
from werkzeug.exceptions import HTTPException

TRUTH_LIMIT = 10_000  # changes remembered of a symbol; older ones are forgotten
OUTBOX_LIMIT = 2_000  # frames waiting for one socket; who reads slower than that is disconnected
SUBSCRIPTION_LIMIT = 100  # subscriptions of one socket; further ones are ignored
LOADS_LIMIT = 5_000  # symbols whose page loads are counted; further ones are not
SEND_SECONDS = 10  # a write that takes longer ends the socket
HANG_SECONDS = 60  # how long the fault `hangs` keeps a request waiting
CARD_RATE = 0.5  # at most so many changes a second of a symbol that only menus and cards show
MAX_RATE = 1_000
VOLATILITY = 0.0002  # a step of the walk, as a part of the price
HOMING = 0.001  # how strongly the walk is drawn back to where it began

PAGE_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pages")
QUOTE_PATH = "/socket.io/websocket"
PUSH_PATH = "/message-pipe-ws/public"  # TradingView's pushstream: no quotes on it

EXCHANGES = ("BINANCE", "COINBASE", "BITSTAMP", "KRAKEN", "BYBIT", "OKX")
CURRENCIES = {"USD": "U.S. Dollar", "USDT": "TetherUS", "USDC": "USD Coin", "EUR": "Euro"}
EURO = Decimal("0.92")

# Code, name, and a price with as many decimals as the coin is quoted with. The first ten are the "top 10".
COINS = """
BTC,Bitcoin,67012.45       ETH,Ethereum,2641.38       SOL,Solana,171.62          BNB,BNB,598.41
XRP,XRP,0.5423             ADA,Cardano,0.3647         DOGE,Dogecoin,0.15842      TRX,TRON,0.16215
AVAX,Avalanche,27.91       DOT,Polkadot,4.312         LINK,Chainlink,11.84       TON,Toncoin,5.127
LTC,Litecoin,70.53         BCH,Bitcoin Cash,361.7     ATOM,Cosmos,4.486          UNI,Uniswap,7.634
XLM,Stellar,0.09512        NEAR,NEAR Protocol,4.871   APT,Aptos,9.16             SUI,Sui,1.9832
ARB,Arbitrum,0.5614        OP,Optimism,1.672          FIL,Filecoin,3.718         HBAR,Hedera,0.05233
VET,VeChain,0.02264        ICP,Internet Computer,8.03 ETC,Ethereum Classic,18.94 XMR,Monero,158.2
ALGO,Algorand,0.1201       AAVE,Aave,148.37           MKR,Maker,1247.0           GRT,The Graph,0.1683
SAND,The Sandbox,0.2563    MANA,Decentraland,0.2901   AXS,Axie Infinity,4.83     THETA,Theta,1.246
EOS,EOS,0.4718             XTZ,Tezos,0.6732           FTM,Fantom,0.6918          RUNE,THORChain,5.274
INJ,Injective,20.61        SEI,Sei,0.4137             TIA,Celestia,5.382         STX,Stacks,1.714
IMX,Immutable,1.3521       LDO,Lido DAO,1.128         CRV,Curve DAO,0.2664       SNX,Synthetix,1.463
COMP,Compound,44.52        ZEC,Zcash,38.17            DASH,Dash,24.86            KAVA,Kava,0.3294
SHIB,Shiba Inu,0.00001742  PEPE,Pepe,0.00000812       BONK,Bonk,0.00002135       FLOKI,Floki,0.00013867
WIF,dogwifhat,2.346        JUP,Jupiter,0.8712         ENA,Ethena,0.3716          1000SATS,1000SATS,0.00021430
"""


# ---- Symbols -------------------------------------------------------------------------------------


class Unknown(Exception):
    """There is no such symbol, fault or file; the text says which."""


@dataclass(frozen=True)
class Coin:
    code: str
    name: str
    price: Decimal
    rank: int

    @property
    def decimals(self) -> int:
        return -int(self.price.as_tuple().exponent)


def read_coins(table: str) -> dict[str, Coin]:
    rows = re.findall(r"(\w+),([^,]+),([\d.]+)", table)
    return {code: Coin(code, name, Decimal(price), rank) for rank, (code, name, price) in enumerate(rows, 1)}


COIN_TABLE = read_coins(COINS)
TICKER = re.compile(r"([0-9A-Z]+?)(USDT|USDC|USD|EUR)(\.P)?")


@dataclass(frozen=True)
class Symbol:
    exchange: str
    ticker: str
    coin: Coin
    currency: str
    perpetual: bool

    @property
    def name(self) -> str:
        return f"{self.exchange}:{self.ticker}"

    @property
    def calculated(self) -> bool:
        """Binance trades nothing against the U.S. dollar: TradingView computes those pairs."""
        return self.exchange == "BINANCE" and self.currency == "USD"

    @property
    def description(self) -> str:
        contract = " Perpetual Contract" if self.perpetual else ""
        origin = " (calculated by TradingView)" if self.calculated else ""
        return f"{self.coin.name} / {CURRENCIES[self.currency]}{contract}{origin}"

    @property
    def title(self) -> str:
        if self.currency != "USD":
            return f"{self.ticker} Charts and Quotes — TradingView"
        top = ", a Top 10 Coin" if self.coin.rank <= 10 else ""
        return f"{self.coin.code} USD — {self.coin.name} Price and Chart{top} — TradingView"

    @property
    def home(self) -> int:
        """The price around which its market walks, in ticks; a little different on each exchange."""
        price = self.coin.price * (EURO if self.currency == "EUR" else 1)
        return round(price.scaleb(self.coin.decimals) * (1 + Decimal(EXCHANGES.index(self.exchange)) / 2000))

    def price_text(self, ticks: int) -> str:
        return f"{Decimal(ticks).scaleb(-self.coin.decimals):f}"

    def elsewhere(self) -> Symbol:
        """The same pair on another exchange."""
        return find_symbol(self.ticker, "KRAKEN" if self.exchange == "COINBASE" else "COINBASE")


@functools.cache
def find_symbol(ticker: str, exchange: str) -> Symbol:
    """The symbol behind `BTCUSD` and an exchange, or behind the path form `BINANCE-BTCUSD`."""
    if "-" in ticker:
        exchange, _, ticker = ticker.partition("-")
    pair = TICKER.fullmatch(ticker)
    if pair is None or pair[1] not in COIN_TABLE or exchange not in EXCHANGES:
        raise Unknown(f"there is no {exchange}:{ticker} here")
    return Symbol(exchange, ticker, COIN_TABLE[pair[1]], pair[2], pair[3] is not None)


def symbol_of_page(address: str) -> Symbol:
    """The symbol whose page is `symbols/BTCUSD/?exchange=BINANCE`."""
    parts = urlsplit(address)
    exchange = parse_qs(parts.query).get("exchange", ["BITSTAMP"])[0]
    return find_symbol(parts.path.strip("/").split("/")[-1], exchange)


def symbol_of_quote(name: str) -> Symbol:
    """The symbol that `BINANCE:BTCUSD` or a spec string names on a quote socket."""
    if name.startswith("="):
        name = json.loads(name[1:])["symbol"]
    exchange, _, ticker = name.partition(":")
    return find_symbol(ticker, exchange)


# ---- Markets -------------------------------------------------------------------------------------


def as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_number(value: Decimal | float) -> int | float:
    """As JavaScript writes numbers: a whole one has no point."""
    return int(value) if value == int(value) else float(value)


class Market:
    """One symbol's price, how it moves, all that it was, and who listens.

    Seed and symbol alone decide about the prices; how changes are cut into frames is drawn apart from them.
    """

    def __init__(self, symbol: Symbol, seed: int, rate: float) -> None:
        self.symbol = symbol
        self._rate = rate
        self._prices = random.Random(f"{seed} {symbol.name}")
        self._cuts = random.Random(f"{seed} {symbol.name} frames")
        self._changes: deque[tuple[float, str]] = deque(maxlen=TRUTH_LIMIT)
        self._listeners: set[QuoteSocket] = set()
        self._walker: gevent.Greenlet[[float], None] | None = None
        self._pace = 0.0  # changes a second at which the walker walks now
        self._open = round(symbol.home * self._prices.uniform(0.98, 1.02))
        self._last = self._high = self._low = self._open  # these four in ticks
        self._volume = round(self._cuts.uniform(1e3, 1e5), 4)
        self._move_to(symbol.home)

    def join(self, listener: QuoteSocket) -> None:
        self._listeners.add(listener)
        self._set_pace()

    def leave(self, listener: QuoteSocket) -> None:
        self._listeners.discard(listener)
        self._set_pace()

    def set_rate(self, rate: float) -> None:
        self._rate = rate
        self._set_pace()

    def set_price(self, price: Decimal) -> None:
        self.set_rate(0)
        self._publish(int(price.scaleb(self.symbol.coin.decimals)))

    def truth(self) -> list[dict[str, Any]]:
        return [{"time": at, "price": price} for at, price in self._changes]

    def whole_quote(self) -> dict[str, Any]:
        symbol = self.symbol
        return {
            **self._price(),
            **self._change(),
            **self._book(),
            "volume": self._volume,
            "open_price": self._number(self._open),
            "prev_close_price": self._number(self._open),
            "high_price": self._number(self._high),
            "low_price": self._number(self._low),
            "currency_code": symbol.currency,
            "description": symbol.description,
            "exchange": symbol.exchange,
            "pricescale": 10**symbol.coin.decimals,
            "minmov": 1,
            "minmove2": 0,
            "pro_name": symbol.name,
            "short_name": symbol.ticker,
            "type": "swap" if symbol.perpetual else "spot",
            "update_mode": "streaming",
            "current_session": "market",
        }

    def _set_pace(self) -> None:
        """Walks only while someone listens, and slowly while only menus and cards do."""
        shown = any(listener.page in (None, self.symbol) for listener in self._listeners)
        pace = 0.0 if not self._listeners else self._rate if shown else min(self._rate, CARD_RATE)
        if pace == self._pace:
            return
        self._pace = pace
        if self._walker is not None:
            self._walker.kill(block=False)
        self._walker = gevent.spawn(self._walk, pace) if pace else None

    def _walk(self, pace: float) -> None:
        due = time.monotonic()
        while True:
            due += self._cuts.uniform(0.5, 1.5) / pace
            gevent.sleep(max(0, due - time.monotonic()))
            if gevent.getcurrent() is not self._walker:
                return  # its end was decided when its timer was due already
            self._step()

    def _step(self) -> None:
        """The next price of the walk: another than the last, and never far from home."""
        pull = (self.symbol.home - self._last) * HOMING
        move = round(self._prices.gauss(pull, self._last * VOLATILITY)) or self._prices.choice((-1, 1))
        self._publish(max(1, self._last + move))

    def _publish(self, price: int) -> None:
        """Truth first, then the listeners: no price is sent that `/truth` doesn't know."""
        extremes = self._move_to(price)
        for values in self._cut_into_frames(extremes):
            quote = as_json(values)
            for listener in self._listeners:
                listener.tell_update(self.symbol, quote)

    def _move_to(self, price: int) -> dict[str, Any]:
        """Books the price; returns what it changed in the day's extremes."""
        extremes: dict[str, Any] = {}
        if price > self._high:
            extremes["high_price"] = self._number(price)
        if price < self._low:
            extremes["low_price"] = self._number(price)
        self._last, self._high, self._low = price, max(self._high, price), min(self._low, price)
        self._volume = round(self._volume + self._cuts.expovariate(2), 4)
        self._changes.append((time.time() * 1000, self.symbol.price_text(price)))
        return extremes

    def _cut_into_frames(self, extremes: dict[str, Any]) -> list[dict[str, Any]]:
        """One change as the site sends it: seldom whole, mostly in parts."""
        price, change, volume = self._price() | extremes, self._change(), {"volume": self._volume}
        cuts = [
            [price | change | volume],
            [price | change],
            [volume, price | change],
            [price, change, volume],
            [self._book(), price | change],
            [price | change, self._book() | volume],
        ]
        return self._cuts.choice(cuts)

    def _price(self) -> dict[str, Any]:
        return {"lp": self._number(self._last), "lp_time": int(time.time())}

    def _change(self) -> dict[str, Any]:
        change = self._last - self._open
        return {"ch": self._number(change), "chp": as_number(round(100 * change / self._open, 2))}

    def _book(self) -> dict[str, Any]:
        """What is calculated has no order book: the site says null, which means nothing new."""
        if self.symbol.calculated:
            return {"bid": None, "ask": None}
        return {"bid": self._number(max(1, self._last - 1)), "ask": self._number(self._last + 1)}

    def _number(self, ticks: int) -> int | float:
        return as_number(Decimal(ticks).scaleb(-self.symbol.coin.decimals))


# ---- Sockets -------------------------------------------------------------------------------------

FRAME_HEAD = re.compile(r"~m~(\d{1,6})~m~")


def frame(payload: str) -> str:
    units = len(payload.encode("utf-16-le")) // 2
    return f"~m~{units}~m~{payload}"


def unframe(message: str) -> Iterator[str]:
    """The payloads of a page's message; pages send nothing but ASCII."""
    end = 0
    while head := FRAME_HEAD.match(message, end):
        end = head.end() + int(head[1])
        yield message[head.end() : end]


class PageSocket:
    """One WebSocket of a page. Anyone may fill its outbox; only the greenlet in `run` writes."""

    def __init__(self, websocket: Any, page: Symbol | None, simulator: Simulator) -> None:
        self.page = page  # whose page opened it; None for a client that is no page
        self._simulator = simulator
        self._websocket = websocket
        self._outbox: list[str] = []
        self._wake = Event()
        self._closing = False

    def run(self) -> None:
        reader = gevent.spawn(self._read)
        reader.link(lambda _: self.close())
        try:
            self._write()
        finally:
            reader.kill()

    def send(self, text: str) -> None:
        if len(self._outbox) >= OUTBOX_LIMIT:
            self.close()
            return
        self._outbox.append(text)
        self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def meet(self, fault: str | None) -> None:
        """A fault strikes the open page; None: look what there is now."""

    def leave(self) -> None:
        """The socket is closed."""

    def hear(self, message: str) -> None:
        """The page has said something."""

    def patience(self) -> float | None:
        """Seconds until there is something to write without being woken; None: never."""
        return 0 if self._outbox else None

    def next_message(self) -> str:
        """The oldest of what waits to be said; empty: nothing."""
        return self._outbox.pop(0) if self._outbox else ""

    def _read(self) -> None:
        try:
            while (message := self._websocket.receive()) is not None:
                self.hear(str(message))
        except (WebSocketError, OSError, ValueError):
            return

    def _write(self) -> None:
        while not self._closing:
            self._wake.wait(self.patience())
            self._wake.clear()
            message = self.next_message()
            if message and not self._sent(message):
                return

    def _sent(self, message: str) -> bool:
        try:
            with gevent.Timeout(SEND_SECONDS):
                self._websocket.send(message)
            return True
        except (WebSocketError, OSError, gevent.Timeout):
            return False


class QuoteSocket(PageSocket):
    """Speaks TradingView's quote protocol: sessions, whole and partial quotes, heartbeats."""

    def __init__(self, websocket: Any, page: Symbol | None, simulator: Simulator) -> None:
        super().__init__(websocket, page, simulator)
        self._sessions: set[str] = set()
        self._names: dict[Symbol, list[tuple[str, str]]] = {}  # each (session, name) that asked for a symbol
        self._beats = 0
        self._beat_due = time.monotonic() + simulator.heartbeat
        self._tell({"session_id": f"<0.{id(self)}>", "timestamp": int(time.time()), "protocol": "json"})

    @property
    def trouble(self) -> str:
        """What the lasting faults of its page do to this socket, see Fault.socket; empty: nothing."""
        troubles = (FAULTS[name].socket for name in self._simulator.faults_of(self.page))
        return next(filter(None, troubles), "")

    def meet(self, fault: str | None) -> None:
        if fault and FAULTS[fault].socket == "closed":
            self.close()
        elif self.page in self._names:
            for session, name in self._names[self.page]:
                self._tell_whole(session, name, self.page)

    def leave(self) -> None:
        for symbol in self._names:
            self._simulator.market(symbol).leave(self)

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
            self._beat_due += self._simulator.heartbeat
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
            self._simulator.market(symbol).join(self)
            self._tell_whole(session, name, symbol)

    def _tell_whole(self, session: str, name: str, symbol: Symbol) -> None:
        trouble = self.trouble if symbol == self.page else ""
        if trouble in ("no_such_symbol", "permission_denied"):
            self._tell_error(session, name, trouble)
        elif trouble != "withheld":
            self._tell_quote(session, name, as_json(self._simulator.market(symbol).whole_quote()))
            self._tell({"m": "quote_completed", "p": [session, name]})

    def _tell_quote(self, session: str, name: str, quote: str) -> None:
        head = f'{{"m":"qsd","p":[{as_json(session)},{{"n":{as_json(name)},"s":"ok","v":'
        self.send(frame(f"{head}{quote}}}]}}"))

    def _tell_error(self, session: str, name: str, error: str) -> None:
        status = error if error == "permission_denied" else "error"
        self._tell({"m": "qsd", "p": [session, {"n": name, "s": status, "errmsg": error, "v": {}}]})

    def _tell(self, payload: dict[str, Any]) -> None:
        self.send(frame(as_json(payload)))


class PushSocket(PageSocket):
    """The page's other socket: no quotes, no frames. Here it tells the page's script about faults."""

    def meet(self, fault: str | None) -> None:
        self.send(as_json({"faults": self._simulator.faults_of(self.page), "struck": fault}))


SOCKETS: dict[str, type[PageSocket]] = {QUOTE_PATH: QuoteSocket, PUSH_PATH: PushSocket}


# ---- Faults --------------------------------------------------------------------------------------


def saying(status: int, title: str, template: str = "notice.html", **headers: str) -> Callable[..., Response]:
    """Answers with a page that says no more than its title."""

    def answer(_: Symbol | None = None) -> Response:
        return Response(render_template(template, title=title), status, headers)

    return answer


not_found = saying(404, "Page not found — TradingView", "not_found.html")
unavailable = saying(503, "503 Service Unavailable")
too_many_requests = saying(429, "429 Too Many Requests", **{"Retry-After": "2"})


def hangs(_: Symbol) -> Response:
    gevent.sleep(HANG_SECONDS)
    return unavailable()


def redirects_away(symbol: Symbol) -> Response:
    """To the same page under another name of this host; there, it is answered."""
    if "redirected" in request.args:
        return symbol_page(symbol)
    host = "localhost" if urlsplit(request.host_url).hostname == "127.0.0.1" else "127.0.0.1"
    place = f"http://{host}:{request.environ['SERVER_PORT']}{request.path}"
    return Response(status=302, headers={"Location": f"{place}?exchange={symbol.exchange}&redirected=1"})


def redirects_to(place: str) -> Callable[..., Response]:
    return lambda _: Response(status=302, headers={"Location": place})


def redirects_round(_: Symbol) -> Response:
    return Response(status=302, headers={"Location": request.url})


def wrong_symbol(symbol: Symbol) -> Response:
    return symbol_page(symbol.elsewhere())


@dataclass(frozen=True)
class Fault:
    """What a fault does: to loading the page, to its quote socket, or else in the page's own script.

    A `hostile` one wants to hurt whoever opened the page, in pages opened later: see hostile.js.
    """

    explanation: str
    page: Callable[[Symbol], Response] | None = None  # answers in place of the page
    socket: str = ""  # closed, silent, withheld (none of the page's symbol), or the error in frames
    once: bool = False  # strikes what is open now; what opens later is well
    hostile: bool = False


FAULTS = {
    "not_found": Fault("404, the page TradingView has for what it doesn't know", not_found),
    "bot_wall": Fault("200, but a page that asks whether you are human", saying(200, "Just a moment...")),
    "forbidden": Fault("403", saying(403, "403 Forbidden")),
    "too_many_requests": Fault("429 with Retry-After: 2", too_many_requests),
    "server_error": Fault("503", unavailable),
    "hangs": Fault(f"the page is asked for and nothing answers, for {HANG_SECONDS} s", hangs),
    "redirects_away": Fault("302 to the same page under another host name", redirects_away),
    "wrong_symbol": Fault("page and quotes are those of another exchange", wrong_symbol),
    "no_such_symbol": Fault("frames say that there is no such symbol", socket="no_such_symbol"),
    "permission_denied": Fault("frames say that its quotes are not permitted", socket="permission_denied"),
    "socket_closed": Fault("the quote socket closes, and new ones are refused", socket="closed"),
    "socket_dropped": Fault("the quote socket closes once; the page reopens it", socket="closed", once=True),
    "socket_silent": Fault("the quote socket says nothing more, no heartbeat either", socket="silent"),
    "page_frozen": Fault("an endless loop in the open page; loaded anew it is well", once=True),
    "page_reloads": Fault("the open page reloads itself", once=True),
    "price_element_replaced": Fault("the open page's price moves into a new element", once=True),
    "classes_renamed": Fault("the header's classes and data-qa-id have other names; frames go on"),
    "socket_in_worker": Fault("pages opened later keep their quote socket in a worker: only the DOM tells"),
    "dom_disagrees": Fault("the page paints a price 1 % above that of the frames"),
    "unreadable_price": Fault("the page paints 3.77 T, and no frames of its symbol come", socket="withheld"),
    "redirects_to_port": Fault("302 to another port of this machine", redirects_to("http://127.0.0.1:9/")),
    "redirects_to_file": Fault("302 to a file: URL", redirects_to("file:///etc/passwd")),
    "redirects_to_data": Fault("302 to a data: URL", redirects_to("data:text/html,gone")),
    "redirects_round": Fault("302 to itself", redirects_round),
    "floods_messages": Fault("10,000 quote frames a second", hostile=True),
    "floods_console": Fault("10,000 lines of 1 kB a second in the console", hostile=True),
    "huge_message": Fault("a quote frame of 10 MB", hostile=True),
    "huge_price": Fault("a price and a title of 10 MB", hostile=True),
    "huge_document": Fault("200,000 elements", hostile=True),
    "hoards_memory": Fault("100 MB more a second", hostile=True),
    "loops_dialogs": Fault("alert, confirm and prompt in an endless loop", hostile=True),
    "opens_windows": Fault("opens windows without end", hostile=True),
    "closes_itself": Fault("window.close", hostile=True),
    "leaves": Fault("goes to another port, to a file: and to a data: URL, again and again", hostile=True),
    "leaves_by_refresh": Fault("goes to another port by meta refresh", hostile=True),
    "reloads_without_end": Fault("loads itself again and again", hostile=True),
    "downloads": Fault("offers downloads without end", hostile=True),
    "breeds_frames": Fault("10,000 frames a second, each removed again", hostile=True),
    "forges_messages": Fault("all that is read of it speaks of another symbol", hostile=True),
    "names_itself_badly": Fault("a description of control characters, far too long", hostile=True),
    "sets_traps": Fault("beforeunload, permission prompts, print, 5,000 steps of history", hostile=True),
}


# ---- The whole of it -----------------------------------------------------------------------------


class Simulator:
    """All markets, all open sockets, all faults that last."""

    def __init__(self, seed: int, rate: float, heartbeat: float) -> None:
        self.heartbeat = heartbeat
        self._seed = seed
        self._rate = rate
        self._markets: dict[Symbol, Market] = {}
        self._sockets: set[PageSocket] = set()
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

    def attend(self, socket: PageSocket) -> None:
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
            name: Counter(socket.page.name for socket in self._sockets if isinstance(socket, kind) and socket.page)
            for name, kind in (("sockets", QuoteSocket), ("steered", PushSocket))
        }
        return {**open_sockets, "loads": self._loads}

    def _tell_open_pages(self, ticker: str, fault: str | None) -> None:
        for socket in self._sockets:
            if socket.page and socket.page.ticker == ticker:
                socket.meet(fault)


routes = Blueprint("simulator", __name__)


def the_simulator() -> Simulator:
    simulator: Simulator = current_app.config["SIMULATOR"]
    return simulator


# ---- Pages ---------------------------------------------------------------------------------------


@routes.get("/symbols/<ticker>/")
def show_symbol(ticker: str) -> Response:
    exchange = request.args.get("exchange", "BITSTAMP")
    try:
        symbol = find_symbol(ticker, exchange)
    except Unknown:
        the_simulator().count_load(f"{exchange}:{ticker}"[:64])
        return not_found()
    the_simulator().count_load(symbol.name)
    answers = (FAULTS[name].page for name in the_simulator().faults_of(symbol))
    return next(filter(None, answers), symbol_page)(symbol)


def symbol_page(symbol: Symbol) -> Response:
    faults = the_simulator().faults_of(symbol)
    weight = current_app.config["WEIGHT"]
    page = render_template(
        "page.html",
        symbol=symbol,
        faults=faults,
        hostile=[name for name in faults if FAULTS[name].hostile],
        named=backwards if "classes_renamed" in faults else str,
        old_price=symbol.price_text(symbol.home * 987 // 1000),
        old_time=(datetime.now(UTC) - timedelta(hours=5)).isoformat(timespec="seconds"),
        weight=weight,
        count=count_assets(weight),
    )
    return Response(page, headers={"Cache-Control": "no-store"})


def backwards(names: str) -> str:
    """Class names as nobody knows them; the page's script turns them round in the same way."""
    return " ".join(name[::-1] for name in names.split())


@routes.get(QUOTE_PATH, websocket=True)
@routes.get(PUSH_PATH, websocket=True)
def attend_socket() -> ResponseReturnValue:
    websocket = request.environ.get("wsgi.websocket")
    if websocket is None:
        return "", 429  # no handshake: so TradingView refuses those who open too many
    socket = SOCKETS[request.path](websocket, page_of(request.environ), the_simulator())
    the_simulator().attend(socket)
    return ""


def page_of(environ: dict[str, Any]) -> Symbol | None:
    """Whose page opens a socket, as `from` in its address says."""
    try:
        return symbol_of_page(parse_qs(environ["QUERY_STRING"])["from"][0])
    except (Unknown, LookupError, ValueError):
        return None


@routes.get("/static/<name>")
def send_page_file(name: str) -> Response:
    return send_from_directory(PAGE_FILES, name, max_age=3600)


@routes.get("/favicon.ico")
def send_icon() -> Response:
    return Response(make_image(random.Random("icon"), 16 * 16 * 3), mimetype="image/bmp")


@routes.get("/robots.txt")
def send_robots() -> Response:
    return Response("User-agent: *\nAllow: /\n", mimetype="text/plain")


@routes.post("/telemetry")
def take_telemetry() -> ResponseReturnValue:
    return "", 204


# ---- The weight of a page ------------------------------------------------------------------------

MODULE = """
(self.bundle=self.bundle||{{}}).m{name}=((e,t,n)=>{{const o="{text}";let r={base};
for(let i=0;i<o.length;i++)r=(r*{factor}+o.charCodeAt(i))%65521;
return{{sum:r,words:o.match(/.{{8}}/g),run(a){{return a.map(u=>u*r+{base}).filter(u=>u%{factor})}}}}}})();"""
MODULE_BYTES = 543


def make_script(noise: random.Random, size: int) -> bytes:
    """Modules as a bundler writes them: each is parsed, run once, and partly kept."""
    count = size // MODULE_BYTES
    numbers = [(noise.randrange(10**9), noise.randrange(999), noise.randrange(3, 99)) for _ in range(count)]
    modules = (
        MODULE.format(name=name, base=base, factor=factor, text=noise.randbytes(160).hex())
        for name, base, factor in numbers
    )
    return "".join(modules).encode()


def make_image(noise: random.Random, size: int) -> bytes:
    """A square bitmap of coloured noise."""
    side = math.isqrt(size // 3) // 4 * 4
    pixels = noise.randbytes(side * side * 3)
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54 + len(pixels), 0, 54, 40, side, side, 1, 24, *[0] * 6)
    return header + pixels


def make_font(noise: random.Random, size: int) -> bytes:
    """Noise as well: a browser has loaded all of it before it can tell."""
    return noise.randbytes(size)


@dataclass(frozen=True)
class AssetKind:
    share: int  # percent of a page's weight
    size: int  # bytes of one file at most
    mimetype: str
    make: Callable[[random.Random, int], bytes]


ASSETS = {
    "bundles": AssetKind(60, 240_000, "text/javascript", make_script),
    "images": AssetKind(25, 100_000, "image/bmp", make_image),
    "fonts": AssetKind(15, 100_000, "font/woff2", make_font),
}


def count_assets(weight: int) -> dict[str, int]:
    return {name: math.ceil(weight * kind.share / 100 / kind.size) for name, kind in ASSETS.items()}


@functools.cache
def make_asset(name: str, number: int, weight: int) -> bytes:
    """The same at each start, so that a browser may keep it. Only numbers that exist get here."""
    size = weight * ASSETS[name].share // 100 // count_assets(weight)[name]
    return ASSETS[name].make(random.Random(f"{name} {number}"), size)


@routes.get("/static/<name>/<int:number>")
def send_asset(name: str, number: int) -> Response:
    weight = current_app.config["WEIGHT"]
    if number >= count_assets(weight).get(name, 0):
        raise Unknown(f"there is no {name}/{number}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(make_asset(name, number, weight), mimetype=ASSETS[name].mimetype, headers=headers)


# ---- Control -------------------------------------------------------------------------------------


class BadOrder(Exception):
    """What is asked for makes no sense; the text says why."""


def asked_symbol(ticker: str) -> Symbol:
    return find_symbol(ticker, request.args.get("exchange", "BINANCE"))


@routes.get("/truth/<ticker>")
def tell_truth(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    return {"symbol": symbol.name, "changes": the_simulator().market(symbol).truth()}


@routes.post("/price/<ticker>/<price>")
def set_price(ticker: str, price: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    decimals = symbol.coin.decimals
    form = rf"(?=.*[1-9])\d{{1,{15 - decimals}}}(\.\d{{1,{decimals}}})?"  # no more digits than a double holds
    if not re.fullmatch(form, price, re.ASCII):
        raise BadOrder(f"{price} is no price of {symbol.name}: above 0, with up to {decimals} decimals")
    the_simulator().market(symbol).set_price(Decimal(price))
    return {"symbol": symbol.name, "price": price}


@routes.post("/rate/<ticker>/<rate>")
def set_rate(ticker: str, rate: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", rate, re.ASCII) or float(rate) > MAX_RATE:
        raise BadOrder(f"{rate} is no rate: take the number of changes a second, from 0 to {MAX_RATE}")
    the_simulator().market(symbol).set_rate(float(rate))
    return {"symbol": symbol.name, "rate": float(rate)}


@routes.get("/fault")
def list_faults() -> ResponseReturnValue:
    return {name: fault.explanation for name, fault in FAULTS.items()}


@routes.post("/fault/<ticker>/<fault>")
def strike(ticker: str, fault: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if fault not in FAULTS:
        raise Unknown(f"there is no fault {fault}; there are {', '.join(FAULTS)}")
    the_simulator().strike(symbol.ticker, fault)
    return {"ticker": symbol.ticker, "fault": fault, "lasts": not FAULTS[fault].once}


@routes.delete("/fault/<ticker>")
def heal(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    the_simulator().heal(symbol.ticker)
    return {"ticker": symbol.ticker}


@routes.get("/pages")
def count_pages() -> ResponseReturnValue:
    return the_simulator().census()


# ---- The process ---------------------------------------------------------------------------------


class SimulatorServer(WSGIServer):
    """pywsgi with WebSockets, but only where there are some: the library would shake hands on any path."""

    logger = logging.getLogger("geventwebsocket")

    def __init__(self, host: str, port: int, simulator: Simulator, weight: int) -> None:
        self._simulator = simulator
        super().__init__(
            (host, port),
            create_app(simulator, weight),
            log=None,
            handler_class=WebSocketHandler,
            environ={"SERVER_NAME": host},  # or pywsgi looks its own name up at the start
        )

    def handle(self, sock: gevent.socket.socket, address: Any) -> None:
        """Without this, the kernel keeps what follows a first packet back until that one is acknowledged: 40 ms."""
        sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        super().handle(sock, address)

    def pre_start_hook(self, handler: WebSocketHandler) -> bool:
        """True leaves a request to Flask, which then refuses the socket."""
        path = handler.environ["PATH_INFO"]
        refused = path == QUOTE_PATH and self._simulator.refuses_quotes(page_of(handler.environ))
        return path not in SOCKETS or refused


def create_app(simulator: Simulator, weight: int) -> Flask:
    app = Flask(__name__, static_folder=None, template_folder=PAGE_FILES)
    app.config.update(SIMULATOR=simulator, WEIGHT=weight)
    app.register_blueprint(routes)
    app.register_error_handler(BadOrder, lambda error: ({"message": str(error)}, 400))
    app.register_error_handler(Unknown, lambda error: ({"message": str(error)}, 404))
    app.register_error_handler(HTTPException, lambda error: ({"message": error.description}, error.code))
    return app


def within(low: float, high: float) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        value = as_number(float(text))
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return number


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A TradingView of our own: symbol pages with simulated prices, and faults on demand.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=within(0, 65_535), default=8090, help="port to listen on; 0 takes a free one")
    parser.add_argument("--rate", type=within(0, MAX_RATE), default=2, help="changes a second of each price")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same prices")
    parser.add_argument("--weight", type=within(0, 10**9), default=2_000_000, help="bytes of a page; 0: light, no ad")
    parser.add_argument("--heartbeat", type=within(0.05, 3600), default=5, help="seconds between heartbeats")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input does")
    return parser.parse_args()


def main() -> None:
    options = read_arguments()
    atexit.register(gc.freeze)  # no search for garbage when it ends: whoever started it waits
    simulator = Simulator(options.seed, options.rate, options.heartbeat)
    server = SimulatorServer(options.host, options.port, simulator, options.weight)
    try:
        server.start()
    except OSError as error:
        reason = str(error.strerror).partition(": (")[0]  # gevent appends the address
        sys.exit(f"simulator: can't listen on {options.host}:{options.port}: {reason}; try another --port")
    print(f"simulator: http://{options.host}:{server.server_port}", flush=True)
    wait_for_the_end(options.until_stdin_closes)


def wait_for_the_end(until_stdin_closes: bool) -> None:
    ended = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signal_number, ended.set)
    if until_stdin_closes:
        gevent.spawn(watch_stdin, ended)
    ended.wait()


def watch_stdin(ended: Event) -> None:
    """At the end of standard input whoever started this process is gone."""
    while not ended.is_set():
        wait_read(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()


if __name__ == "__main__":
    main()
