"""The simulator does what `tradingview.md` says of the real page, in a real Chromium and on a bare socket.

Owns its own simulators and browser (both light), waits on conditions, and never looks inside the process.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, WebSocket
from playwright.sync_api import TimeoutError as BrowserTimeout

PROJECT = Path(__file__).resolve().parent.parent
PRICE = ".js-symbol-header-ticker .js-symbol-last"
READY = ".quote-ticker-inited"
EMPTY_PRICE = '<span translate="no" class="last-KLji300y js-symbol-last" data-qa-id="symbol-last-value"></span>'


class Simulation:
    """A running simulator, as its users see it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("simulator: http://127.0.0.1:")
        self.process = process
        self.url = line.removeprefix("simulator: ")
        self.client = httpx.Client(base_url=self.url, timeout=5)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def post(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.post(path).raise_for_status().json()
        return answer

    def strike(self, ticker: str, *faults: str) -> None:
        for fault in faults:
            self.post(f"/fault/{quote(ticker, safe='')}/{fault}")

    def heal(self, ticker: str) -> None:
        self.client.delete(f"/fault/{ticker}").raise_for_status()

    def set_fields(self, ticker: str, **fields: Any) -> None:
        self.client.post(f"/fields/{ticker}", json=fields).raise_for_status()

    def listen(self, ticker: str, exchange: str = "BINANCE") -> QuoteClient:
        """A quote socket that says it is of the ticker's page."""
        return QuoteClient(self.url, f"symbols/{quote(ticker, safe='')}/?exchange={exchange}")

    def truth(self, ticker: str) -> list[str]:
        return [change["price"] for change in self.get(f"/truth/{ticker}").json()["changes"]]

    def html(self, ticker: str) -> str:
        return self.get(f"/symbols/{ticker}/?exchange=BINANCE").raise_for_status().text

    def sockets(self, name: str) -> int:
        count: int = self.get("/pages").json()["sockets"].get(name, 0)
        return count

    def loads(self, name: str) -> int:
        count: int = self.get("/pages").json()["loads"].get(name, 0)
        return count


@contextmanager
def simulation(*options: str) -> Iterator[Simulation]:
    command = [sys.executable, "-m", "simulator", "--port", "0", "--until-stdin-closes", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        running = Simulation(process)
        with running.client:
            yield running
        process.terminate()


def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


class QuoteClient:
    """A WebSocket from bare bytes: what the simulator says, with no page in between."""

    def __init__(self, url: str, page: str = "") -> None:
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=5)
        self.stream = self.socket.makefile("rb")
        self.status = self._shake_hands(place.netloc, f"/socket.io/websocket?from={quote(page, safe='')}")
        self.messages: list[list[str]] = []
        self.close_code = 0

    def __enter__(self) -> QuoteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def _shake_hands(self, host: str, path: str) -> int:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status = int(self.stream.readline().split()[1])
        while self.stream.readline().strip():
            pass
        return status

    def say(self, name: str, *parameters: str) -> None:
        payload = json.dumps({"m": name, "p": parameters}, ensure_ascii=True)
        message = f"~m~{len(payload)}~m~{payload}".encode()
        self.socket.sendall(struct.pack(">BBHI", 0x81, 0xFE, len(message), 0) + message)

    def subscribe(self, *names: str, session: str = "qs_test") -> None:
        self.say("quote_create_session", session)
        self.say("quote_add_symbols", session, *names)

    def payloads(self) -> Iterator[str]:
        """Every payload until the server closes; `messages` keeps how they came."""
        while (message := self._message()) is not None:
            self.messages.append(split_frames(message))
            yield from self.messages[-1]

    def quotes(self) -> Iterator[dict[str, Any]]:
        """The quote part of every qsd."""
        for _, part in self.parts():
            yield part

    def parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Session and quote part of every qsd."""
        for payload in self.payloads():
            if '"m":"qsd"' in payload:
                session, part = json.loads(payload)["p"]
                yield session, part

    def prices(self) -> Iterator[tuple[str, float]]:
        """Name and price of every quote that has one."""
        return ((part["n"], part["v"]["lp"]) for part in self.quotes() if part["v"].get("lp") is not None)

    def beats(self, count: int) -> list[str]:
        """All payloads until so many heartbeats have come."""
        heard: list[str] = []
        for payload in self.payloads():
            heard.append(payload)
            if sum(each.startswith("~h~") for each in heard) == count:
                break
        return heard

    def _message(self) -> str | None:
        opcode, length = self.stream.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.stream.read(2))
        body = self.stream.read(length)
        if opcode == 0x88:
            (self.close_code,) = struct.unpack(">H", body[:2])
            return None
        return str(body.decode())


def split_frames(message: str) -> list[str]:
    payloads = []
    while message:
        head = re.match(r"~m~(\d+)~m~", message)
        assert head, message
        end = head.end() + int(head[1])
        payloads.append(message[head.end() : end])
        message = message[end:]
    return payloads


@pytest.fixture(scope="module")
def tradingview() -> Iterator[Simulation]:
    """Light and fast: the seconds of faults pass in 40 ms."""
    with simulation("--weight", "0", "--rate", "20", "--heartbeat", "0.2", "--delays", "0.04") as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def open_symbol(tab: Page, tradingview: Simulation, ticker: str, ready: str = READY) -> None:
    tab.goto(f"{tradingview.url}/symbols/{ticker}/?exchange=BINANCE", wait_until="commit")
    tab.wait_for_selector(ready, timeout=5000)


def hurry(tab: Page) -> None:
    """The page's 5 s and 20 s pass in 0.25 s and 1 s; `closeCodes` tells how it closed its sockets."""
    tab.add_init_script(
        """{
          const [wait, close] = [setTimeout, WebSocket.prototype.close];
          window.setTimeout = (call, ms) => wait(call, ms < 5000 ? ms : ms / 20);
          window.closeCodes = [];
          WebSocket.prototype.close = function (code) { closeCodes.push(code); close.call(this, code); };
        }"""
    )


def shown(tab: Page) -> str:
    return tab.text_content(PRICE) or ""


def wait_until_shown(tab: Page, text: str) -> None:
    tab.wait_for_function(f"document.querySelector({PRICE!r})?.textContent === {text!r}", timeout=5000)


def record_texts(tab: Page) -> None:
    """From now on, `window.texts` holds each text the price element gets, with its time."""
    tab.evaluate(
        """(selector) => {
          window.texts = [];
          const element = document.querySelector(selector);
          const look = () => window.texts.push([element.textContent, performance.now()]);
          new MutationObserver(look).observe(element, {childList: true, characterData: true, subtree: true});
        }""",
        PRICE,
    )


# ---- The process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(end: signal.Signals) -> None:
    with simulation() as running:
        running.process.send_signal(end)
        assert running.process.wait(3) == 0


def test_the_end_of_standard_input_ends_it_while_a_socket_is_open() -> None:
    with simulation("--weight", "0") as running, QuoteClient(running.url) as client:
        client.subscribe("BINANCE:BTCUSD")
        next(client.quotes())
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.process.wait(3) == 0


def test_a_taken_port_is_one_sentence_and_exit_code_1(tradingview: Simulation) -> None:
    port = str(urlsplit(tradingview.url).port)
    command = [sys.executable, "-m", "simulator", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=5)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(rf"simulator: can't listen on 127.0.0.1:{port}: .*\n", ended.stderr)


# ---- The page --------------------------------------------------------------------------------------


def test_the_html_has_an_empty_price_between_decoys(tradingview: Simulation) -> None:
    html = tradingview.html("BTCUSD")
    before, empty, after = html.partition(EMPTY_PRICE)
    assert empty
    assert "js-symbol-last" in before
    assert "js-symbol-last" in after
    assert "3.77&#x2006;T" in after
    assert "Market closed / No trades" in after
    assert '<meta name="generator" content="pluto-simulator">' in html


def test_the_html_has_an_old_price_in_its_structured_data(tradingview: Simulation) -> None:
    scripts = re.findall(r'<script type="application/ld\+json">(.*?)</script>', tradingview.html("BTCUSD"))
    blocks = {block["@type"]: block for block in map(json.loads, scripts)}
    offers = blocks["FinancialProduct"]["offers"]
    assert len(scripts) == 5
    assert offers["price"] not in tradingview.truth("BTCUSD")
    assert offers["priceCurrency"] == "USD"
    assert offers["priceValidUntil"] < time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    assert offers["price"] in json.dumps(blocks["FAQPage"])


@pytest.mark.parametrize(
    ("path", "symbol"),
    [
        ("BTCUSD/?exchange=BINANCE", "BINANCE:BTCUSD"),
        ("BTCUSD/", "BITSTAMP:BTCUSD"),
        ("BINANCE-BTCUSDT/", "BINANCE:BTCUSDT"),
        ("BTCUSDT.P/?exchange=BYBIT", "BYBIT:BTCUSDT.P"),
        ("1000SATSUSDT/?exchange=BINANCE", "BINANCE:1000SATSUSDT"),
    ],
)
def test_the_page_says_which_symbol_it_is(tradingview: Simulation, path: str, symbol: str) -> None:
    html = tradingview.get(f"/symbols/{path}").text
    assert f'"resolved_symbol": "{symbol}"' in html
    assert tradingview.loads(symbol)


def test_only_binance_dollars_are_calculated_by_tradingview(tradingview: Simulation) -> None:
    assert "calculated by TradingView" in tradingview.html("BTCUSD")
    assert "calculated by TradingView" not in tradingview.html("BTCUSDT")


def test_titles_hold_numbers_that_are_no_price(tradingview: Simulation) -> None:
    assert "<title>BTC USD — Bitcoin Price and Chart, a Top 10 Coin — TradingView</title>" in tradingview.html("BTCUSD")


@pytest.mark.parametrize("path", ["NOPEUSD/?exchange=BINANCE", "BTCUSD/?exchange=NOWHERE", "btcusd/"])
def test_an_unknown_symbol_gets_the_real_404_page(tradingview: Simulation, path: str) -> None:
    answer = tradingview.get(f"/symbols/{path}")
    assert answer.status_code == 404
    assert "<title>Page not found — TradingView</title>" in answer.text
    assert 'class="tv-http-error-page"' in answer.text
    assert 'class="tv-http-error-page__title"' in answer.text


def test_what_the_price_element_shows_is_true_and_painted_at_most_every_125_ms(
    tradingview: Simulation, tab: Page
) -> None:
    open_symbol(tab, tradingview, "BTCUSD")
    record_texts(tab)
    tab.wait_for_function("window.texts.length >= 8", timeout=5000)
    texts: list[tuple[str, float]] = tab.evaluate("window.texts")
    truth = tradingview.truth("BTCUSD")
    assert all("," in text and text.replace(",", "") in truth for text, _ in texts)
    times = sorted({moment for _, moment in texts})
    assert min(later - sooner for sooner, later in pairwise(times)) > 100


def test_the_price_is_in_parts_and_the_header_tells_the_rest(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/DOGEUSD/0.15842")
    open_symbol(tab, tradingview, "DOGEUSD")
    tradingview.post("/price/DOGEUSD/0.15839")
    wait_until_shown(tab, "0.15839")
    parts = tab.eval_on_selector(PRICE, "e => [...e.childNodes].map(n => [n.nodeName, n.textContent])")
    assert parts == [["#text", "0.158"], ["SPAN", "3"], ["SUP", "9"]]
    assert tab.get_attribute(f"{PRICE} span", "class") == "falling-KLji300y"
    tab.wait_for_selector(f"{PRICE} span[class='']", state="attached", timeout=2000)
    assert re.fullmatch(r"[+−]\d\.\d\d%", tab.text_content("span.js-symbol-change-pt") or "")
    assert tab.text_content("[data-qa-id=symbol-currency]") == "USD"
    assert tab.text_content(".js-symbol-session-status") == "Market open"
    assert tab.query_selector(".js-data-mode.tv-data-mode--realtime")


def test_decoys_show_other_prices_while_the_page_lives(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "SOLUSD")
    filled = "[...document.querySelectorAll('.js-symbol-last')].every(e => e.textContent)"
    tab.wait_for_function(filled, timeout=5000)
    texts = tab.eval_on_selector_all(".js-symbol-last", "all => all.map(e => e.textContent)")
    assert len(texts) == 8
    assert texts[0].replace(",", "") in tradingview.truth("BTCUSD?exchange=BITSTAMP")
    assert texts[7] == "3.77\u2006T"


def test_an_equal_price_changes_nothing_in_the_page(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/PEPEUSD/0.00000812")
    open_symbol(tab, tradingview, "PEPEUSD")
    wait_until_shown(tab, "0.00000812")
    record_texts(tab)
    tradingview.post("/price/PEPEUSD/0.00000812")
    tradingview.post("/price/PEPEUSD/0.00000813")
    wait_until_shown(tab, "0.00000813")
    assert {text for text, _ in tab.evaluate("window.texts")} == {"0.00000813"}


class SocketLog:
    """What a tab's quote sockets say and hear, as (is it sent, payload)."""

    def __init__(self, tab: Page) -> None:
        self._tab = tab
        self.entries: list[tuple[bool, str]] = []
        tab.on("websocket", self._follow)

    def _follow(self, websocket: WebSocket) -> None:
        if "socket.io" in websocket.url:
            websocket.on("framesent", lambda text: self._add(True, str(text)))
            websocket.on("framereceived", lambda text: self._add(False, str(text)))

    def _add(self, is_sent: bool, text: str) -> None:
        self.entries += [(is_sent, payload) for payload in split_frames(text)]

    def orders(self) -> list[tuple[str, list[str]]]:
        """Name and parameters of each, oldest first."""
        sent = [json.loads(payload) for is_sent, payload in self.entries if is_sent and payload.startswith("{")]
        return [(order["m"], order["p"]) for order in sent]

    def quotes(self) -> list[tuple[str, dict[str, Any]]]:
        """Session and quote part of each qsd."""
        heard = [json.loads(payload) for is_sent, payload in self.entries if not is_sent and '"m":"qsd"' in payload]
        return [(message["p"][0], message["p"][1]) for message in heard]

    def prices(self, symbol: str) -> list[tuple[str, str, float]]:
        """Session, name and price of each quote of a symbol that has a price."""
        return [
            (session, part["n"], part["v"]["lp"])
            for session, part in self.quotes()
            if symbol in part["n"] and part["v"].get("lp") is not None
        ]

    def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        def holds() -> bool:
            self._tab.wait_for_timeout(20)  # the log is written meanwhile
            return condition()

        eventually(holds, seconds)


def spec(symbol: str, **keys: str) -> str:
    """As the page writes it: spec("BINANCE:BTCUSD", currency_id="USD")."""
    named = {name.replace("_", "-"): value for name, value in keys.items()}
    return "=" + json.dumps({"adjustment": "splits", **named, "symbol": symbol}, separators=(",", ":"))


def test_the_page_has_several_sessions_for_its_symbol(tradingview: Simulation, tab: Page) -> None:
    log = SocketLog(tab)
    open_symbol(tab, tradingview, "BTCUSDT")
    own = "BINANCE:BTCUSDT"
    full = {spec(own, currency_id="XTVCUSDT", session="regular"), spec(own), own}

    def names(beginning: str) -> set[str]:
        return {name for session, name, _ in log.prices(own) if session.startswith(beginning)}

    log.until(lambda: names("qs_multiplexer_full") == full)
    assert names("qs_multiplexer_simple") == {own}
    assert any(is_sent and payload == "~h~1" for is_sent, payload in log.entries)
    snapshots = [part["v"] for session, part in log.quotes() if session.startswith("qs_snapshoter")]
    assert all("lp_time" not in values for values in snapshots)
    assert sum("pricescale" in values for values in snapshots) == 4
    fast = [(names[0], set(names[1:])) for order, names in log.orders() if order == "quote_fast_symbols"]
    assert fast[-1][0].startswith("qs_multiplexer_full")
    assert fast[-1][1] == full


def test_what_is_asked_for_once_is_removed_when_it_has_come(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/rate/AAPL/100?exchange=NASDAQ")
    log = SocketLog(tab)
    open_symbol(tab, tradingview, "TRXUSD")

    def removed() -> set[str]:
        return {names[1] for order, names in log.orders() if order == "quote_remove_symbols"}

    log.until(lambda: {"NASDAQ:AAPL", "BINANCE:TRXUSD"} <= removed())
    tab.wait_for_timeout(300)
    once = log.prices("NASDAQ:AAPL")
    tab.wait_for_timeout(300)
    assert log.prices("NASDAQ:AAPL") == once
    assert log.prices("BINANCE:TRXUSD")[-1][0].startswith("qs_multiplexer")


def test_a_session_in_which_nothing_is_fast_is_hibernated_at_its_beginning(tradingview: Simulation, tab: Page) -> None:
    log = SocketLog(tab)
    open_symbol(tab, tradingview, "BCHUSD")
    orders = [(order, names[0][:17]) for order, names in log.orders() if names[0].startswith("qs_multiplexer_si")]
    assert [order for order, _ in orders[:3]] == ["quote_create_session", "quote_hibernate_all", "quote_add_symbols"]
    count = len(log.prices("BITSTAMP:ETHUSD"))
    log.until(lambda: len(log.prices("BITSTAMP:ETHUSD")) > count)


def test_a_closed_page_is_counted_out(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "LTCUSD")
    assert tradingview.sockets("BINANCE:LTCUSD") == 1
    tab.close()
    eventually(lambda: tradingview.sockets("BINANCE:LTCUSD") == 0)


def test_a_page_weighs_what_was_asked_for() -> None:
    with simulation("--weight", "600000") as heavy:
        html = heavy.html("BTCUSD")
        paths = set(re.findall(r'(?:src="|url\(")(/static/\w+/\d+)"', html))
        answers = [heavy.get(path).raise_for_status() for path in paths]
        assert {path.split("/")[2] for path in paths} == {"bundles", "images", "fonts"}
        assert sum(len(answer.content) for answer in answers) == pytest.approx(600_000, rel=0.05)
        assert all("immutable" in answer.headers["Cache-Control"] for answer in answers)
        assert "<iframe" in html


def test_a_light_page_has_neither_assets_nor_an_ad(tradingview: Simulation) -> None:
    html = tradingview.html("BTCUSD")
    assert not re.search(r"<iframe|<img|@font-face|/static/bundles/", html)
    assert tradingview.get("/static/bundles/0").status_code == 404


# ---- The socket ------------------------------------------------------------------------------------


def test_a_quote_comes_whole_and_then_in_parts_that_merge_to_the_truth(tradingview: Simulation) -> None:
    tradingview.post("/rate/ETHUSDT/200")
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:ETHUSDT")
        payloads = client.payloads()
        hello = json.loads(next(payloads))
        assert "session_id" in hello
        assert "m" not in hello
        first = json.loads(next(payloads))["p"][1]
        assert json.loads(next(payloads)) == {"m": "quote_completed", "p": ["qs_test", "BINANCE:ETHUSDT"]}
        partial = list(islice(client.quotes(), 200))
    assert (first["s"], first["n"], first["v"]["pricescale"]) == ("ok", "BINANCE:ETHUSDT", 100)
    assert any("lp" not in part["v"] for part in partial)
    assert any(part["v"].keys() == {"lp", "lp_time"} for part in partial)
    assert any(len(message) > 1 for message in client.messages)
    assert_merges_to_truth([first, *partial], tradingview.truth("ETHUSDT"))


def assert_merges_to_truth(parts: list[dict[str, Any]], truth: list[str]) -> None:
    merged: dict[str, Any] = {}
    prices = []
    for part in parts:
        merged |= part["v"]
        assert merged["low_price"] <= merged["lp"] <= merged["high_price"]
        prices += [f"{part['v']['lp']:.2f}"] if "lp" in part["v"] else []
        if {"lp", "ch"} <= part["v"].keys():
            assert merged["ch"] == pytest.approx(merged["lp"] - merged["open_price"], abs=0.001)
    start = truth.index(prices[0])
    assert prices == truth[start : start + len(prices)]


def test_a_full_session_is_told_in_parts_and_others_less(tradingview: Simulation) -> None:
    with tradingview.listen("VETUSDT") as client:
        tradingview.post("/rate/VETUSDT/0")
        name = "BINANCE:VETUSDT"
        told: dict[str, list[dict[str, Any]]] = {}
        for kind in ("full", "simple"):
            client.subscribe(name, session=f"qs_multiplexer_{kind}_1")
        client.subscribe(name, session="qs_snapshoter_basic-symbol-quotes_1")
        for session, part in islice(client.parts(), 6):
            told.setdefault(session, []).append(part["v"])
    empty, book, whole, status = told["qs_multiplexer_full_1"]
    (simple,), (snapshot,) = told["qs_multiplexer_simple_1"], told["qs_snapshoter_basic-symbol-quotes_1"]
    assert empty == {}
    assert book.keys() == {"trade_loaded", "bid", "ask"}
    assert whole.keys() > simple.keys() > snapshot.keys()
    assert {"lp_time", "ch", "session"} <= simple.keys()
    assert "lp_time" not in snapshot
    assert status.keys() == {"market-status"}
    assert (whole["session"], whole["typespecs"], whole["currency_id"]) == ("24x7", ["crypto"], "XTVCUSDT")
    assert whole["rtc"] is whole["rch"] is whole["rchp"] is None


def test_other_currencies_and_sessions_are_other_prices(tradingview: Simulation) -> None:
    tradingview.post("/price/SNXUSDT/2")
    own = "BINANCE:SNXUSDT"
    names = [
        own,
        spec(own, currency_id="XTVCUSDT", session="regular"),
        spec(own, currency_id="USDT"),
        spec(own, currency_id="EUR"),
        spec(own, currency_id="XTVCUSDC"),
        spec(own, session="extended"),
        spec(own, currency_id="XXX"),
        '={"adjustment":"splits"}',
    ]
    with QuoteClient(tradingview.url) as client:
        client.subscribe(*names)
        parts = {part["n"]: part for part in islice(client.quotes(), len(names))}
    assert [parts[name]["v"].get("lp") for name in names] == [2, 2, 2, 1.839, 1.999, 2.01, None, None]
    assert [parts[name]["v"].get("currency_id") for name in names[2:5]] == ["XTVCUSDT", "EUR", "XTVCUSDC"]
    assert [parts[name]["s"] for name in names[6:]] == ["error", "error"]


@pytest.mark.parametrize(
    ("orders", "hears"),
    [
        ([("quote_hibernate_all", "qs_test")], False),
        ([("quote_fast_symbols", "qs_test", "BINANCE:COMPUSD"), ("quote_hibernate_all", "qs_test")], True),
        ([("quote_hibernate_all", "qs_test"), ("quote_fast_symbols", "qs_test", "BINANCE:COMPUSD")], True),
        ([("quote_hibernate_all", "qs_other")], True),
        ([("quote_remove_symbols", "qs_test", "BINANCE:COMPUSD")], False),
        ([("quote_delete_session", "qs_test")], False),
    ],
)
def test_what_silences_a_session(tradingview: Simulation, orders: list[tuple[str, ...]], hears: bool) -> None:
    tradingview.post("/rate/COMPUSD/0")
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:COMPUSD")
        for order in orders:
            client.say(*order)
        client.beats(2)
        tradingview.post("/price/COMPUSD/45.67")
        assert ("45.67" in "".join(client.beats(2))) is hears


def test_heartbeats_go_on_in_a_quiet_market(tradingview: Simulation) -> None:
    tradingview.post("/rate/XRPUSD/0")
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:XRPUSD")
        beats: list[str] = []
        for payload in client.payloads():
            beats += [payload] if payload.startswith("~h~") else []
            if len(beats) == 3:
                break
    assert beats == ["~h~1", "~h~2", "~h~3"]
    assert len(tradingview.truth("XRPUSD")) == 1


def test_a_symbol_nobody_has_is_an_error_and_a_session_is_needed(tradingview: Simulation) -> None:
    with QuoteClient(tradingview.url) as client:
        client.say("quote_add_symbols", "qs_none", "BINANCE:BTCUSD")
        client.subscribe("BINANCE:NOPEUSD", "=nonsense")
        payloads = [json.loads(payload) for payload in islice(client.payloads(), 4)]
    assert payloads[1]["m"] == "critical_error"
    assert payloads[2]["p"][1] == {"n": "BINANCE:NOPEUSD", "s": "error", "errmsg": "no_such_symbol", "v": {}}
    assert payloads[3]["p"][1]["n"] == "=nonsense"


def test_nonsense_on_a_socket_ends_that_socket_alone(tradingview: Simulation) -> None:
    with QuoteClient(tradingview.url) as client:
        client.socket.sendall(struct.pack(">BBI", 0x81, 0x8A, 0) + b"~m~4~m~{{{{")
        assert all("session_id" in payload for payload in client.payloads())
    assert tradingview.get("/pages").status_code == 200


def test_the_same_seed_gives_the_same_prices_whoever_else_is_open() -> None:
    def prices(seed: str, *names: str) -> list[str]:
        with simulation("--seed", seed, "--rate", "1000") as running, QuoteClient(running.url) as client:
            client.subscribe(*names)
            eventually(lambda: len(running.truth("SHIBUSDT")) > 50)
            return running.truth("SHIBUSDT")[:50]

    alone = prices("7", "BINANCE:SHIBUSDT")
    assert prices("7", "BINANCE:BTCUSD", "OKX:SHIBUSDT", "BINANCE:SHIBUSDT") == alone
    assert prices("8", "BINANCE:SHIBUSDT") != alone
    assert all(re.fullmatch(r"0\.\d{8}", price) for price in alone)


# ---- Control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/price/BTCUSD/0", "/price/BTCUSD/1.234", "/price/BTCUSD/1e5", "/price/BTCUSD/-1", "/rate/BTCUSD/fast"],
)
def test_nonsense_is_refused_with_a_sentence(tradingview: Simulation, path: str) -> None:
    answer = tradingview.client.post(path)
    assert answer.status_code == 400
    assert path.split("/")[-1] in answer.json()["message"]


def test_unknown_tickers_and_faults_are_404(tradingview: Simulation) -> None:
    assert tradingview.get("/truth/NOPEUSD").status_code == 404
    answer = tradingview.client.post("/fault/BTCUSD/earthquake")
    assert answer.status_code == 404
    assert all(name in answer.json()["message"] for name in tradingview.get("/fault").json())


@pytest.mark.parametrize(
    ("number", "price"),
    [("1.005", "1.00"), ("0.125", "0.13"), ("27.009999999999999787", "27.01"), ("2.7e1", "27.00"), ("-3", "-3.00")],
)
def test_a_number_is_sent_digit_by_digit(tradingview: Simulation, number: str, price: str) -> None:
    tradingview.post(f"/number/AVAXUSDC/{number}")
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:AVAXUSDC")
        assert any(f'"lp":{number},' in payload for payload in islice(client.payloads(), 3))
    assert tradingview.truth("AVAXUSDC")[-1] == price


def test_fields_take_the_place_of_the_quotes_own(tradingview: Simulation) -> None:
    with tradingview.listen("UNIUSDC") as client:
        client.subscribe("BINANCE:UNIUSDC")
        assert next(client.quotes())["v"]["update_mode"] == "streaming"
        tradingview.set_fields("UNIUSDC", update_mode="pulsed", lp_time=None, lp=3.5)
        values = next(part["v"] for part in client.quotes() if "update_mode" in part["v"])
        assert (values["update_mode"], values["lp"], "lp_time" in values) == ("pulsed", 3.5, False)
        assert all("lp_time" not in part["v"] for part in islice(client.quotes(), 20))
    tradingview.set_fields("UNIUSDC")
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:UNIUSDC")
        assert "lp_time" in next(client.quotes())["v"]


def test_a_set_price_stays(tradingview: Simulation) -> None:
    with QuoteClient(tradingview.url) as client:
        client.subscribe("BINANCE:BNBUSD")
        next(client.quotes())
        tradingview.post("/price/BNBUSD/600.5")
        beats = 0
        for payload in client.payloads():
            beats = 0 if '"lp"' in payload else beats + payload.startswith("~h~")
            if beats == 2:
                break
    assert tradingview.truth("BNBUSD")[-1] == "600.50"


# ---- Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        ("not_found", 404, "Page not found — TradingView"),
        ("bot_wall", 200, "Just a moment..."),
        ("forbidden", 403, "403 Forbidden"),
        ("too_many_requests", 429, "429 Too Many Requests"),
        ("server_error", 503, "503 Service Unavailable"),
    ],
)
def test_pages_that_are_refused(tradingview: Simulation, fault: str, status: int, title: str) -> None:
    assert tradingview.post(f"/fault/ADAUSD/{fault}")["lasts"]
    answer = tradingview.get("/symbols/ADAUSD/?exchange=BINANCE")
    assert (answer.status_code, title in answer.text) == (status, True)
    assert answer.headers.get("Retry-After") == ("2" if status == 429 else None)
    tradingview.heal("ADAUSD")
    assert EMPTY_PRICE in tradingview.html("ADAUSD")


def test_hangs(tradingview: Simulation) -> None:
    tradingview.post("/fault/DOTUSD/hangs")
    with pytest.raises(httpx.ReadTimeout):
        tradingview.client.get("/symbols/DOTUSD/", timeout=0.3)
    tradingview.heal("DOTUSD")
    assert tradingview.html("DOTUSD")


def test_redirects_away(tradingview: Simulation) -> None:
    tradingview.post("/fault/DOTUSD/redirects_away")
    answer = tradingview.get("/symbols/DOTUSD/?exchange=BINANCE")
    assert answer.status_code == 302
    assert urlsplit(answer.headers["Location"]).hostname == "localhost"
    there = urlsplit(answer.headers["Location"])
    assert EMPTY_PRICE in tradingview.get(f"{there.path}?{there.query}").text
    tradingview.heal("DOTUSD")


def test_wrong_symbol(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/fault/AVAXUSD/wrong_symbol")
    open_symbol(tab, tradingview, "AVAXUSD")
    assert tab.evaluate("initData.symbolInfo.resolved_symbol") == "COINBASE:AVAXUSD"
    assert shown(tab) in tradingview.truth("AVAXUSD?exchange=COINBASE")
    tradingview.heal("AVAXUSD")


@pytest.mark.parametrize(("fault", "status"), [("no_such_symbol", "error"), ("permission_denied", "permission_denied")])
def test_errors_by_frame(tradingview: Simulation, fault: str, status: str) -> None:
    page = "symbols/LINKUSD/?exchange=BINANCE"
    with QuoteClient(tradingview.url, page) as early, QuoteClient(tradingview.url, page) as late:
        early.subscribe("BINANCE:LINKUSD")
        next(early.quotes())
        tradingview.post(f"/fault/LINKUSD/{fault}")
        error = next(part for part in early.quotes() if part["s"] != "ok")
        late.subscribe("BINANCE:LINKUSD", "BINANCE:BTCUSD")
        heard = late.quotes()
        assert next(heard) == error
        assert error == {"n": "BINANCE:LINKUSD", "s": status, "errmsg": fault, "v": {}}
        assert next(heard)["n"] == "BINANCE:BTCUSD"
        tradingview.heal("LINKUSD")
        assert "description" in next(part for part in heard if "LINK" in part["n"])["v"]


def test_socket_closed(tradingview: Simulation) -> None:
    page = "symbols/TONUSD/?exchange=BINANCE"
    with QuoteClient(tradingview.url, page) as open_before:
        open_before.subscribe("BINANCE:TONUSD")
        next(open_before.quotes())
        tradingview.post("/fault/TONUSD/socket_closed")
        assert list(open_before.payloads()) is not None
    with QuoteClient(tradingview.url, page) as refused:
        assert refused.status == 429
    tradingview.heal("TONUSD")
    with QuoteClient(tradingview.url, page) as accepted:
        assert accepted.status == 101


def test_socket_dropped_and_the_page_reopens_it(tradingview: Simulation, tab: Page) -> None:
    hurry(tab)
    open_symbol(tab, tradingview, "TRXUSD")
    tab.evaluate(
        """() => {
          window.modes = "";
          const mode = document.querySelector(".js-data-mode");
          new MutationObserver(() => (modes += mode.className)).observe(mode, { attributes: true });
        }"""
    )
    with tab.expect_websocket(timeout=5000) as reopened:
        assert not tradingview.post("/fault/TRXUSD/socket_dropped")["lasts"]
    tab.wait_for_function("modes.includes('tv-data-mode--connecting')", timeout=5000)
    assert "socket.io" in reopened.value.url
    tab.wait_for_selector(".tv-data-mode--realtime", state="attached", timeout=5000)
    assert tradingview.sockets("BINANCE:TRXUSD") == 1


def test_socket_silent_until_the_page_gives_up(tradingview: Simulation, tab: Page) -> None:
    hurry(tab)
    open_symbol(tab, tradingview, "XLMUSD")
    tradingview.post("/fault/XLMUSD/socket_silent")
    with QuoteClient(tradingview.url, "symbols/XLMUSD/?exchange=BINANCE") as client:
        client.subscribe("BINANCE:XLMUSD")
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            next(client.payloads())
    tab.wait_for_function("closeCodes.length === 2", timeout=5000)
    assert tab.evaluate("closeCodes") == [4000, 4000]
    tradingview.heal("XLMUSD")
    tab.wait_for_selector(".tv-data-mode--realtime", state="attached", timeout=5000)


def test_page_frozen_but_a_new_one_is_well(tradingview: Simulation, browser: Browser, tab: Page) -> None:
    frozen = browser.new_context().new_page()
    open_symbol(frozen, tradingview, "ATOMUSD")
    tradingview.post("/fault/ATOMUSD/page_frozen")
    with pytest.raises(BrowserTimeout):
        frozen.wait_for_function("new Promise(done => setTimeout(done, 100))", timeout=500)
    open_symbol(tab, tradingview, "ATOMUSD")
    frozen.context.close()


def test_page_reloads(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "UNIUSD")
    with tab.expect_navigation(wait_until="commit"):
        tradingview.post("/fault/UNIUSD/page_reloads")
    assert tradingview.loads("BINANCE:UNIUSD") == 2


def test_faults_of_the_same_moment_all_reach_the_page(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "GRTUSD")
    place = urlsplit(tradingview.url)
    head = f"HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n"
    with (
        tab.expect_navigation(wait_until="commit") as reloaded,
        socket.create_connection((place.hostname, place.port), timeout=5) as client,
    ):
        client.sendall(f"POST /fault/GRTUSD/server_error {head}POST /fault/GRTUSD/page_reloads {head}".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert reloaded.value is not None
    assert reloaded.value.status == 503
    tradingview.heal("GRTUSD")


def test_price_element_replaced(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "NEARUSD")
    old = tab.query_selector(PRICE)
    assert old is not None
    tradingview.post("/fault/NEARUSD/price_element_replaced")
    tab.wait_for_function("old => !old.isConnected", arg=old, timeout=5000)
    tradingview.post("/price/NEARUSD/5.123")
    wait_until_shown(tab, "5.123")


def test_classes_renamed_in_open_and_later_pages(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "APTUSD")
    tradingview.post("/fault/APTUSD/classes_renamed")
    gone = f"!document.querySelector({PRICE!r}) && !document.querySelector('[data-qa-id^=symbol]')"
    tab.wait_for_function(gone, timeout=5000)
    open_symbol(tab, tradingview, "APTUSD", ready=".detini-rekcit-etouq")
    assert tab.evaluate(gone)
    tradingview.post("/price/APTUSD/9.87")
    tab.wait_for_function("document.querySelector('.tsal-lobmys-sj').textContent === '9.87'", timeout=5000)
    tradingview.heal("APTUSD")
    wait_until_shown(tab, "9.87")


def test_socket_in_worker_leaves_only_the_dom(tradingview: Simulation, tab: Page) -> None:
    tab.add_init_script(
        """{
          const Real = WebSocket;
          window.paths = [];
          window.WebSocket = function (url) { paths.push(new URL(url).pathname); return new Real(url); };
        }"""
    )
    tradingview.post("/fault/SUIUSD/socket_in_worker")
    open_symbol(tab, tradingview, "SUIUSD")
    assert tab.evaluate("paths") == ["/message-pipe-ws/public"]
    assert tradingview.sockets("BINANCE:SUIUSD") == 1
    assert shown(tab) in tradingview.truth("SUIUSD")
    tradingview.heal("SUIUSD")


def test_dom_disagrees_with_the_frames(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "AAVEUSD")
    tradingview.post("/fault/AAVEUSD/dom_disagrees")
    tradingview.post("/price/AAVEUSD/200")
    wait_until_shown(tab, "202.00")
    assert tradingview.truth("AAVEUSD")[-1] == "200.00"
    tradingview.heal("AAVEUSD")
    wait_until_shown(tab, "200.00")


def test_unreadable_price_in_open_and_later_pages(tradingview: Simulation, tab: Page) -> None:
    unreadable = "3.77\u2006T"
    open_symbol(tab, tradingview, "MKRUSD")
    tradingview.post("/fault/MKRUSD/unreadable_price")
    wait_until_shown(tab, unreadable)
    tab.reload(wait_until="commit")
    wait_until_shown(tab, unreadable)
    with QuoteClient(tradingview.url, "symbols/MKRUSD/?exchange=BINANCE") as client:
        client.subscribe("BINANCE:MKRUSD")
        assert all("lp" not in payload for payload in islice(client.payloads(), 3))
    tradingview.heal("MKRUSD")
    tab.wait_for_function(f"document.querySelector({PRICE!r}).textContent !== {unreadable!r}", timeout=5000)


def test_every_fault_is_explained_and_tried(tradingview: Simulation) -> None:
    faults = tradingview.get("/fault").json()
    tests = Path(__file__).read_text()
    hostile = Path(__file__).with_name("test_hostile.py").read_text()
    assert all(explanation for explanation in faults.values())
    assert [name for name in faults if not re.search(rf'["/]{name}"', tests + hostile)] == []
