"""The simulator does what `tradingview.md` says of the real page, in a real Chromium and on a bare socket.

Owns its own simulators (mostly light), waits on conditions, and never looks inside the process. What waits most of the
time, and needs no page, is a story: all are told by threads, while the other tests go on in the browser.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import time
import zipfile
from bisect import bisect
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, WebSocket
from running import running_program
from stories import Outcomes, Stories, Story

import simulator
from simulator.paces import real_pace
from simulator.symbols import find_symbol

stories = Stories()  # told by `outcomes`
PROJECT = Path(__file__).resolve().parent.parent
PRICE = ".js-symbol-header-ticker .js-symbol-last"
READY = ".quote-ticker-inited"
SPY = """
  window.closeCodes = [];  // how it closed its sockets
  window.paths = [];  // of the sockets it opened
  window.longest = 0;  // task, in ms
  window.first = {};  // when its header and its first price came, and how complete the document was then
  {
    const wait = setTimeout;
    window.setTimeout = (call, ms) => wait(call, ms < 1000 ? ms : ms / 20);
    window.WebSocket = class extends WebSocket {
      constructor(url) { super(url); paths.push(new URL(url).pathname); }
      close(code) { closeCodes.push(code); super.close(code); }
    };
    new PerformanceObserver((list) => {
      longest = Math.max(longest, ...list.getEntries().map((each) => each.duration));
    }).observe({ entryTypes: ["longtask"] });
    new MutationObserver(() => {
      const parts = { header: ".js-symbol-header-ticker", price: ".quote-ticker-inited:not(.i-hidden)" };
      for (const [part, selector] of Object.entries(parts)) {
        if (document.querySelector(selector)) first[part] ??= { at: performance.now(), document: document.readyState };
      }
    }).observe(document, { subtree: true, childList: true, attributeFilter: ["class"] });
  }"""
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

    def upgrades(self, name: str) -> int:
        count: int = self.get("/pages").json()["upgrades"].get(name, 0)
        return count

    def loads(self, name: str) -> int:
        count: int = self.get("/pages").json()["loads"].get(name, 0)
        return count


@contextmanager
def simulation(*options: str) -> Iterator[Simulation]:
    with running_program("-m", "simulator", "--port", "0", "--until-stdin-closes", *options) as process:
        running = Simulation(process)
        with running.client:
            yield running


def recording(name: str) -> Path:
    """One of the recordings of real pages, which are not part of the project."""
    for folder in PROJECT.parents:  # a worktree may be deeper than the project itself
        path = folder / "shared" / "recorded" / name
        if path.exists():
            return path
    pytest.skip(f"the recording shared/recorded/{name} isn't beside the project")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.03)


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

    def until_all_is_read(self) -> str:
        """What is heard until the simulator has read everything said so far."""
        self.subscribe("BINANCE:NOPEUSD", session="qs_end")
        return "".join(takewhile(lambda payload: "NOPEUSD" not in payload, self.payloads()))

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


@pytest.fixture(scope="module")
def shared_tab(thrifty: BrowserContext) -> Iterator[Page]:
    tab = thrifty.new_page()
    yield tab
    tab.close()


@pytest.fixture
def tab(shared_tab: Page) -> Iterator[Page]:
    """It shows what the test before left, at rest."""
    yield shared_tab
    shared_tab.context.clear_cookies()


@pytest.fixture(scope="module")
def spied_tab(thrifty: BrowserContext) -> Iterator[Page]:
    """Another one. Its pages' waits of a second and more are a twentieth as long."""
    tab = thrifty.new_page()
    tab.add_init_script(SPY)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def outcomes(tradingview: Simulation, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """Of the stories, which begin now."""
    with stories.telling(request, tradingview) as outcomes:
        yield outcomes


@pytest.fixture(scope="module")
def replays(request: pytest.FixtureRequest) -> None:
    """Of recordings, begin now if these are here."""
    for name in ("changes", "juniper"):
        with suppress(pytest.skip.Exception):
            request.getfixturevalue(name)


def open_symbol(tab: Page, tradingview: Simulation, ticker: str, ready: str = READY) -> None:
    tab.goto(address(tradingview, ticker), wait_until="commit")
    tab.wait_for_selector(ready)


def address(tradingview: Simulation, ticker: str) -> str:
    return f"{tradingview.url}/symbols/{ticker}/?exchange=BINANCE"


def show_symbol(tab: Page, tradingview: Simulation, ticker: str) -> None:
    """Opens its page unless the test before left it in the tab."""
    if tab.url != address(tradingview, ticker):
        open_symbol(tab, tradingview, ticker)


def assert_in_time(seconds: float, due: float) -> None:
    """Hardly sooner: a timer counts from its loop's last look at the clock. How much later is the machine's affair."""
    assert due - 0.5 <= seconds < due + 3


def shown(tab: Page) -> str:
    return tab.text_content(PRICE) or ""


def wait_until_shown(tab: Page, text: str) -> None:
    tab.wait_for_function(f"document.querySelector({PRICE!r})?.textContent === {text!r}")


def record_texts(tab: Page) -> None:
    """From now on, `texts` holds each text the price element gets, with its time and the class of its changed part."""
    tab.evaluate(
        """(selector) => {
          window.texts = [];
          window.recorder?.disconnect();
          const element = document.querySelector(selector);
          const name = () => element.querySelector("span").className;
          window.recorder = new MutationObserver(() => texts.push([element.textContent, performance.now(), name()]));
          recorder.observe(element, { childList: true });
        }""",
        PRICE,
    )


# ---- The process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(end: signal.Signals) -> None:
    with simulation() as running:
        running.process.send_signal(end)
        assert running.process.wait(20) == 0


def test_the_end_of_standard_input_ends_it_while_a_socket_is_open() -> None:
    with simulation("--weight", "0") as running, QuoteClient(running.url) as client:
        client.subscribe("BINANCE:BTCUSD")
        next(client.quotes())
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.process.wait(20) == 0


def assert_refused(told: str, path: Path, *options: str) -> None:
    """Its start ends with exit code 1 and this alone. The path is for a file of it."""
    with running_program("-m", "simulator", *options, log=str(path)) as process:
        assert process.stdout is not None
        assert (process.wait(20), process.stdout.read()) == (1, "")
    assert re.fullmatch(told, path.read_text())


def test_a_taken_port_is_one_sentence_and_exit_code_1(tradingview: Simulation, tmp_path: Path) -> None:
    port = str(urlsplit(tradingview.url).port)
    told = rf"simulator: can't listen on 127.0.0.1:{port}: .*\n"
    assert_refused(told, tmp_path / "errors", "--port", port)


def test_a_fault_can_be_every_tickers_from_the_start() -> None:
    with simulation("--weight", "0", "--fault", "bot_wall", "--fault", "delayed") as running:
        assert ["Just a moment..." in running.html(ticker) for ticker in ("BTCUSD", "ETHUSD")] == [True, True]
        with running.listen("BTCUSD") as client:
            client.subscribe("BINANCE:BTCUSD")
            assert next(client.quotes())["v"]["update_mode"] == "delayed_streaming_900"


def test_it_says_at_which_pace_prices_change(tradingview: Simulation) -> None:
    assert tradingview.process.stdout is not None
    assert tradingview.process.stdout.readline().startswith("pace      lively: each price changes 20 times a second")


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


class SocketLog:
    """What a tab's quote sockets say and hear, as (is it sent, payload)."""

    def __init__(self, tab: Page) -> None:
        self._tab = tab
        self.entries: list[tuple[bool, str]] = []
        tab.on("websocket", self._follow)

    def close(self) -> None:
        self._tab.remove_listener("websocket", self._follow)

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

    def sessions_told(self, order: str, since: int) -> set[str]:
        """Those that this order was for, after so many orders."""
        return {names[0] for name, names in self.orders()[since:] if name == order}

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

    def until_silent(self, symbol: str, call: Callable[[], object]) -> None:
        """Until two heartbeats after the call, nothing of the symbol has come: the server has read all orders then."""

        def is_silent() -> bool:
            since = len(self.entries)
            call()
            self.until(lambda: self.beats(since) >= 4)  # the page says each again
            return not any(symbol in payload for is_sent, payload in self.entries[since:] if not is_sent)

        eventually(is_silent)

    def beats(self, since: int) -> int:
        return sum(payload.startswith("~h~") for _, payload in self.entries[since:])

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        def holds() -> bool:
            self._tab.wait_for_timeout(20)  # the log is written meanwhile
            return condition()

        eventually(holds, seconds)


@pytest.fixture
def log(tab: Page) -> Iterator[SocketLog]:
    """Of the test's tab, from its beginning to its end."""
    log = SocketLog(tab)
    yield log
    log.close()


@pytest.fixture
def spied_log(spied_tab: Page) -> Iterator[SocketLog]:
    log = SocketLog(spied_tab)
    yield log
    log.close()


def spec(symbol: str, **keys: str) -> str:
    """As the page writes it: spec("BINANCE:BTCUSD", currency_id="USD")."""
    named = {name.replace("_", "-"): value for name, value in keys.items()}
    return "=" + json.dumps({"adjustment": "splits", **named, "symbol": symbol}, separators=(",", ":"))


@pytest.mark.usefixtures("outcomes", "replays")  # they go on meanwhile
def test_the_page_has_several_sessions(tradingview: Simulation, tab: Page, log: SocketLog) -> None:
    tradingview.post("/rate/AAPL/100?exchange=NASDAQ")
    open_symbol(tab, tradingview, "BTCUSDT")
    own = "BINANCE:BTCUSDT"
    full = {spec(own, currency_id="XTVCUSDT", session="regular"), spec(own), own}

    def names(beginning: str) -> set[str]:
        return {name for session, name, _ in log.prices(own) if session.startswith(beginning)}

    log.until(lambda: names("qs_multiplexer_full") == full)
    log.until(lambda: names("qs_multiplexer_simple") == {own})
    log.until(lambda: (True, "~h~1") in log.entries)
    fast = [(names[0], set(names[1:])) for order, names in log.orders() if order == "quote_fast_symbols"]
    assert fast[-1][0].startswith("qs_multiplexer_full")
    assert fast[-1][1] == full
    assert_asked_for_once(log, own)
    assert_hibernated_at_its_beginning(tradingview, log)


def assert_asked_for_once(log: SocketLog, own: str) -> None:
    """The snapshots' symbols are removed when they have come."""

    def removed() -> set[str]:
        return {names[1] for order, names in log.orders() if order == "quote_remove_symbols"}

    log.until(lambda: {"NASDAQ:AAPL", own} <= removed())
    snapshots = [part["v"] for session, part in log.quotes() if session.startswith("qs_snapshoter")]
    assert all("lp_time" not in values for values in snapshots)
    assert sum("pricescale" in values for values in snapshots) == 4
    log.until_silent("NASDAQ:AAPL", lambda: None)
    assert log.prices(own)[-1][0].startswith("qs_multiplexer")


def assert_hibernated_at_its_beginning(tradingview: Simulation, log: SocketLog) -> None:
    """The session in which nothing is fast; and it is told prices all the same."""
    orders = [(order, names[0][:17]) for order, names in log.orders() if names[0].startswith("qs_multiplexer_si")]
    assert [order for order, _ in orders[:3]] == ["quote_create_session", "quote_hibernate_all", "quote_add_symbols"]
    tradingview.post("/price/ETHUSD/2345.67?exchange=BITSTAMP")
    log.until(lambda: any(price == 2345.67 for *_, price in log.prices("BITSTAMP:ETHUSD")))


def test_what_the_price_element_shows_is_true_and_painted_at_most_every_125_ms(
    tradingview: Simulation, tab: Page
) -> None:
    show_symbol(tab, tradingview, "BTCUSDT")
    record_texts(tab)
    tab.wait_for_function("texts.length >= 8")
    texts: list[tuple[str, float, str]] = tab.evaluate("texts")
    truth = tradingview.truth("BTCUSDT")
    assert all("," in text and text.replace(",", "") in truth for text, *_ in texts)
    assert min(later - sooner for (_, sooner, _), (_, later, _) in pairwise(texts)) > 100


def test_the_price_is_in_parts_and_the_header_tells_the_rest(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/DOGEUSD/0.15842")
    show_symbol(tab, tradingview, "DOGEUSD")
    wait_until_shown(tab, "0.15842")
    record_texts(tab)
    tradingview.post("/price/DOGEUSD/0.15839")
    wait_until_shown(tab, "0.15839")
    parts = tab.eval_on_selector(PRICE, "e => [...e.childNodes].map(n => [n.nodeName, n.textContent])")
    assert parts == [["#text", "0.158"], ["SPAN", "3"], ["SUP", "9"]]
    assert [(text, name) for text, _, name in tab.evaluate("texts")] == [("0.15839", "falling-KLji300y")]
    tab.wait_for_selector(f"{PRICE} span[class='']", state="attached")
    assert re.fullmatch(r"[+−]\d\.\d\d%", tab.text_content("span.js-symbol-change-pt") or "")
    assert tab.text_content("[data-qa-id=symbol-currency]") == "USD"
    assert tab.text_content(".js-symbol-session-status") == "Market open"
    assert tab.query_selector(".js-data-mode.tv-data-mode--realtime")


def test_an_equal_price_changes_nothing_in_the_page(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/DOGEUSD/0.15839")
    show_symbol(tab, tradingview, "DOGEUSD")
    wait_until_shown(tab, "0.15839")
    record_texts(tab)
    tradingview.post("/price/DOGEUSD/0.15839")
    tradingview.post("/price/DOGEUSD/0.15840")
    wait_until_shown(tab, "0.15840")
    assert {text for text, *_ in tab.evaluate("texts")} == {"0.15840"}


def test_decoys_show_other_prices_while_the_page_lives(tradingview: Simulation, tab: Page) -> None:
    show_symbol(tab, tradingview, "DOGEUSD")
    filled = "[...document.querySelectorAll('.js-symbol-last')].every(e => e.textContent)"
    tab.wait_for_function(filled)
    texts = tab.eval_on_selector_all(".js-symbol-last", "all => all.map(e => e.textContent)")
    assert len(texts) == 8
    assert texts[0].replace(",", "") in tradingview.truth("BTCUSD?exchange=BITSTAMP")
    assert texts[7] == "3.77\u2006T"


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


@stories
def a_quote_comes_whole_and_then_in_parts_that_merge_to_the_truth(tradingview: Simulation) -> None:
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


SILENCES: list[tuple[bool, list[tuple[str, ...]]]] = [
    (False, [("quote_hibernate_all", "qs_test")]),
    (True, [("quote_fast_symbols", "qs_test", "BINANCE:COMPUSD"), ("quote_hibernate_all", "qs_test")]),
    (True, [("quote_hibernate_all", "qs_test"), ("quote_fast_symbols", "qs_test", "BINANCE:COMPUSD")]),
    (
        False,
        [
            ("quote_fast_symbols", "qs_test", "BINANCE:COMPUSD"),
            ("quote_fast_symbols", "qs_test"),
            ("quote_hibernate_all", "qs_test"),
        ],
    ),
    (True, [("quote_hibernate_all", "qs_other")]),
    (False, [("quote_remove_symbols", "qs_test", "BINANCE:COMPUSD")]),
    (False, [("quote_delete_session", "qs_test")]),
]


def test_what_silences_a_session(tradingview: Simulation) -> None:
    tradingview.post("/rate/COMPUSD/0")
    with ExitStack() as stack:
        clients = [stack.enter_context(QuoteClient(tradingview.url)) for _ in SILENCES]
        for client, (_, orders) in zip(clients, SILENCES, strict=True):
            client.subscribe("BINANCE:COMPUSD")
            for order in orders:
                client.say(*order)
            client.until_all_is_read()
        tradingview.post("/price/COMPUSD/45.67")
        for client, (hears, orders) in zip(clients, SILENCES, strict=True):
            assert ("45.67" in client.until_all_is_read()) is hears, orders


@stories
def heartbeats_go_on_in_a_quiet_market(tradingview: Simulation) -> None:
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


@stories
def the_same_seed_gives_the_same_prices_whoever_else_is_open(_: Simulation) -> None:
    def prices(seed: str, *names: str) -> list[str]:
        options = ("--weight", "0", "--seed", seed, "--rate", "1000")
        with simulation(*options) as running, QuoteClient(running.url) as client:
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


@stories
def fields_take_the_place_of_the_quotes_own(tradingview: Simulation) -> None:
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


@stories
def a_set_price_stays(tradingview: Simulation) -> None:
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


@stories
def hangs(tradingview: Simulation) -> None:
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


def test_wrong_symbol(tradingview: Simulation) -> None:
    tradingview.post("/fault/AVAXUSD/wrong_symbol")
    assert '"resolved_symbol": "COINBASE:AVAXUSD"' in tradingview.html("AVAXUSD")
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


def test_socket_dropped_and_the_page_reopens_it(tradingview: Simulation, spied_tab: Page) -> None:
    open_symbol(spied_tab, tradingview, "TRXUSD")
    spied_tab.evaluate(
        """() => {
          window.modes = "";
          const mode = document.querySelector(".js-data-mode");
          new MutationObserver(() => (modes += mode.className)).observe(mode, { attributes: true });
        }"""
    )
    with spied_tab.expect_websocket() as reopened:
        assert not tradingview.post("/fault/TRXUSD/socket_dropped")["lasts"]
    spied_tab.wait_for_function("modes.includes('tv-data-mode--connecting')")
    assert "socket.io" in reopened.value.url
    spied_tab.wait_for_selector(".tv-data-mode--realtime", state="attached")
    assert tradingview.sockets("BINANCE:TRXUSD") == 1


def test_socket_silent_until_the_page_gives_up(tradingview: Simulation, spied_tab: Page) -> None:
    open_symbol(spied_tab, tradingview, "XLMUSD")
    tradingview.post("/fault/XLMUSD/socket_silent")
    with tradingview.listen("XLMUSD") as client:
        client.subscribe("BINANCE:XLMUSD")
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            next(client.payloads())
    spied_tab.wait_for_function("closeCodes.length >= 2")
    assert set(spied_tab.evaluate("closeCodes")) == {4000}
    tradingview.heal("XLMUSD")
    spied_tab.wait_for_selector(".tv-data-mode--realtime", state="attached")


def test_page_frozen_but_a_new_one_is_well(tradingview: Simulation, browser: Browser, tab: Page) -> None:
    context = browser.new_context()  # it has a renderer of its own
    frozen = context.new_page()
    open_symbol(frozen, tradingview, "ATOMUSD")
    ticks: list[object] = []
    frozen.on("console", lambda message: ticks.append(message))
    with frozen.expect_console_message():
        frozen.evaluate("setInterval(() => console.log('tick'), 20)")
    tradingview.post("/fault/ATOMUSD/page_frozen")

    def is_silent() -> bool:
        before = len(ticks)
        frozen.wait_for_timeout(300)
        return len(ticks) == before

    eventually(is_silent)
    open_symbol(tab, tradingview, "ATOMUSD")
    context.close()


def test_page_reloads_also_into_a_fault_of_the_same_moment(tradingview: Simulation, tab: Page) -> None:
    open_symbol(tab, tradingview, "GRTUSD")
    with tab.expect_navigation(wait_until="commit"):
        tradingview.strike("GRTUSD", "page_reloads")
    assert tradingview.loads("BINANCE:GRTUSD") == 2
    tab.wait_for_selector(READY)
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
    show_symbol(tab, tradingview, "DOGEUSD")
    old = tab.query_selector(PRICE)
    assert old is not None
    tradingview.post("/fault/DOGEUSD/price_element_replaced")
    tab.wait_for_function("old => !old.isConnected", arg=old)
    tradingview.post("/price/DOGEUSD/0.15123")
    wait_until_shown(tab, "0.15123")


def test_dom_disagrees_with_the_frames(tradingview: Simulation, tab: Page) -> None:
    show_symbol(tab, tradingview, "DOGEUSD")
    tradingview.post("/fault/DOGEUSD/dom_disagrees")
    tradingview.post("/price/DOGEUSD/0.20000")
    wait_until_shown(tab, "0.20200")
    assert tradingview.truth("DOGEUSD")[-1] == "0.20000"
    tradingview.heal("DOGEUSD")
    wait_until_shown(tab, "0.20000")


def test_unreadable_price_in_open_and_later_pages(tradingview: Simulation, tab: Page) -> None:
    unreadable = "3.77\u2006T"
    show_symbol(tab, tradingview, "DOGEUSD")
    tradingview.post("/fault/DOGEUSD/unreadable_price")
    wait_until_shown(tab, unreadable)
    tab.reload(wait_until="commit")
    wait_until_shown(tab, unreadable)
    with tradingview.listen("DOGEUSD") as client:
        client.subscribe("BINANCE:DOGEUSD")
        assert all("lp" not in payload for payload in islice(client.payloads(), 3))
    tradingview.heal("DOGEUSD")
    tab.wait_for_function(f"document.querySelector({PRICE!r}).textContent !== {unreadable!r}")


def test_classes_renamed_in_open_and_later_pages(tradingview: Simulation, tab: Page) -> None:
    show_symbol(tab, tradingview, "DOGEUSD")
    tradingview.post("/fault/DOGEUSD/classes_renamed")
    gone = f"!document.querySelector({PRICE!r}) && !document.querySelector('[data-qa-id^=symbol]')"
    tab.wait_for_function(gone)
    open_symbol(tab, tradingview, "DOGEUSD", ready=".detini-rekcit-etouq")
    assert tab.evaluate(gone)
    tradingview.post("/price/DOGEUSD/0.19876")
    tab.wait_for_function("document.querySelector('.tsal-lobmys-sj').textContent === '0.19876'")
    tradingview.heal("DOGEUSD")
    wait_until_shown(tab, "0.19876")


def test_socket_in_worker_leaves_only_the_dom(tradingview: Simulation, spied_tab: Page) -> None:
    tradingview.post("/fault/SUIUSD/socket_in_worker")
    open_symbol(spied_tab, tradingview, "SUIUSD")
    assert spied_tab.evaluate("paths") == ["/message-pipe-ws/public"]
    assert tradingview.sockets("BINANCE:SUIUSD") == 1
    assert shown(spied_tab) in tradingview.truth("SUIUSD")
    tradingview.heal("SUIUSD")


# ---- Faults: sockets and sessions ------------------------------------------------------------------


@stories
def quote_timeout_passes(tradingview: Simulation) -> None:
    tradingview.strike("LDOUSD", "quote_timeout")
    with tradingview.listen("LDOUSD") as client:
        client.subscribe("BINANCE:LDOUSD")
        quotes = client.quotes()
        assert next(quotes) == {"n": "BINANCE:LDOUSD", "s": "error", "errmsg": "timeout", "v": {}}
        assert next(quote["v"] for quote in quotes if "pricescale" in quote["v"])["pricescale"] == 1000
    tradingview.heal("LDOUSD")


def test_permission_denied_alternative_is_what_the_page_then_shows(
    tradingview: Simulation, tab: Page, log: SocketLog
) -> None:
    tradingview.strike("CRVUSD", "permission_denied_alternative")
    tradingview.post("/price/CRVUSD/0.3333?exchange=COINBASE")
    open_symbol(tab, tradingview, "CRVUSD")
    wait_until_shown(tab, "0.3333")
    denied = next(part for _, part in log.quotes() if part["s"] == "permission_denied")
    assert denied["v"] == {"alternative": "COINBASE:CRVUSD"}
    assert log.prices("BINANCE:CRVUSD") == []
    tradingview.heal("CRVUSD")


def test_spec_refused_leaves_plain_names(tradingview: Simulation) -> None:
    tradingview.strike("SNXUSD", "spec_refused")
    with tradingview.listen("SNXUSD") as client:
        client.subscribe(spec("BINANCE:SNXUSD"), "BINANCE:SNXUSD")
        refused, quoted = islice(client.quotes(), 2)
    assert (refused["s"], refused["errmsg"]) == ("error", "no_such_symbol")
    assert quoted["v"]["lp"]
    tradingview.heal("SNXUSD")


@stories
def critical_error_ends_the_sessions_that_have_the_symbol(tradingview: Simulation) -> None:
    with tradingview.listen("KAVAUSD") as client:
        client.subscribe("BINANCE:KAVAUSD")
        client.subscribe("BINANCE:SNXUSDC", session="qs_other")
        next(client.quotes())
        tradingview.strike("KAVAUSD", "critical_error")
        payloads = client.payloads()
        error = next(json.loads(payload) for payload in payloads if "critical_error" in payload)
        assert error["p"][0] == "qs_test"
        tradingview.post("/price/KAVAUSD/0.3333")
        tradingview.post("/price/SNXUSDC/1.5")
        heard = client.until_all_is_read()
    assert "KAVAUSD" not in heard
    assert "SNXUSDC" in heard


def test_protocol_error_closes_the_socket(tradingview: Simulation) -> None:
    with tradingview.listen("IMXUSD") as client:
        client.subscribe("BINANCE:IMXUSD")
        next(client.quotes())
        tradingview.strike("IMXUSD", "protocol_error")
        assert list(client.payloads())[-1] == '{"m":"protocol_error","p":["wrong data"]}'
    with tradingview.listen("IMXUSD") as client:
        client.subscribe("BINANCE:IMXUSD")
        assert next(client.quotes())["v"]["lp"]


@pytest.mark.parametrize(
    "faults",
    [
        {"hibernated": "quote_hibernate_all", "symbol_removed": "quote_remove_symbols"},
        {"session_deleted": "quote_delete_session"},
    ],
)
def test_the_symbol_falls_silent_while_heartbeats_go_on(
    tradingview: Simulation, spied_tab: Page, spied_log: SocketLog, faults: dict[str, str]
) -> None:
    """What each order silences is proven without a page, above."""
    tradingview.post("/rate/STXUSD/0")
    open_symbol(spied_tab, tradingview, "STXUSD")
    own, log = "BINANCE:STXUSD", spied_log
    log.until(lambda: len({name for session, name, _ in log.prices(own) if "full" in session}) == 3)
    log.until(lambda: any("simple" in session for session, *_ in log.prices(own)))
    sessions = {session for session, *_ in log.prices(own) if session.startswith("qs_multiplexer")}
    prices = (f"1.{number}" for number in range(100, 200))
    for fault, ordered in faults.items():
        before = len(log.orders())
        tradingview.strike("STXUSD", fault)
        log.until(lambda: sessions <= log.sessions_told(ordered, before))  # noqa: B023
        log.until_silent(own, lambda: tradingview.post(f"/price/STXUSD/{next(prices)}"))
    eventually(lambda: tradingview.sockets(own) == 1)


@stories
def session_lags_tells_older_values_after_newer_ones(tradingview: Simulation) -> None:
    """Both prices are set in one packet: however slow the machine, no late value comes between them."""
    place = urlsplit(tradingview.url)
    head = f"HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n"
    tradingview.post("/price/RUNEUSD/5")
    tradingview.strike("RUNEUSD", "session_lags")
    with (
        tradingview.listen("RUNEUSD") as client,
        socket.create_connection((place.hostname, place.port), timeout=5) as orders,
    ):
        client.subscribe("BINANCE:RUNEUSD", session="qs_multiplexer_full_1")
        client.subscribe("BINANCE:RUNEUSD", session="qs_multiplexer_simple_1")
        prices: list[tuple[str, float]] = []
        for session, part in client.parts():
            prices += [(session[15:19], part["v"]["lp"])] if "lp" in part["v"] else []
            if prices == [("full", 5)] and "lp" in part["v"]:
                orders.sendall(f"POST /price/RUNEUSD/6 {head}POST /price/RUNEUSD/7 {head}".encode())
            if ("simp", 7) in prices:
                break
    assert ("simp", 5) in prices
    in_order = [each for each in dict.fromkeys(prices) if each != ("simp", 5)]
    assert in_order == [("full", 5), ("full", 6), ("full", 7), ("simp", 6), ("simp", 7)]
    tradingview.heal("RUNEUSD")


def test_broken_frames_come_before_good_ones(tradingview: Simulation, tab: Page) -> None:
    tradingview.strike("INJUSD", "broken_frames")
    with tradingview.listen("INJUSD") as client:
        client.subscribe("BINANCE:INJUSD")
        _, broken, nameless, good = islice(client.payloads(), 4)
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert "n" not in json.loads(nameless)["p"][1]
    assert json.loads(good)["p"][1]["n"] == "BINANCE:INJUSD"
    open_symbol(tab, tradingview, "INJUSD")
    assert shown(tab) in tradingview.truth("INJUSD")
    tradingview.heal("INJUSD")


def test_the_page_asks_for_other_prices_by_spec_name(tradingview: Simulation, tab: Page, log: SocketLog) -> None:
    tradingview.post("/price/ETHUSD/2000")
    tradingview.strike("ETHUSD", "other_currency", "extended_session")
    open_symbol(tab, tradingview, "ETHUSD")
    own = "BINANCE:ETHUSD"
    for name, factor in [
        (spec(own, currency_id="EUR"), 0.92),
        (spec(own, currency_id="XTVCUSDC"), 0.9998),
        (spec(own, currency_id="USD", session="extended"), 1.005),
    ]:
        log.until(lambda: any(quoted == name for _, quoted, _ in log.prices(own)))  # noqa: B023
        assert [price for _, quoted, price in log.prices(own) if quoted == name] == [round(2000 * factor, 2)]
    assert shown(tab) == "2,000.00"
    tradingview.heal("ETHUSD")


def test_two_sockets_and_one_socket_dropped(tradingview: Simulation, spied_tab: Page) -> None:
    tradingview.strike("TIAUSD", "two_sockets")
    open_symbol(spied_tab, tradingview, "TIAUSD")
    eventually(lambda: tradingview.sockets("BINANCE:TIAUSD") == 2)
    before = tradingview.upgrades("BINANCE:TIAUSD")
    with spied_tab.expect_websocket():
        tradingview.strike("TIAUSD", "one_socket_dropped")
    eventually(lambda: tradingview.sockets("BINANCE:TIAUSD") == 2)
    assert tradingview.upgrades("BINANCE:TIAUSD") == before + 1  # the other socket stayed open
    tradingview.post("/price/TIAUSD/5.432")
    wait_until_shown(spied_tab, "5.432")
    tradingview.heal("TIAUSD")


def test_upgrades_are_refused_and_counted(tradingview: Simulation, spied_tab: Page) -> None:
    with tradingview.listen("SEIUSD") as open_before:
        for fault, status in {"socket_refused": 429, "socket_forbidden": 403}.items():
            tradingview.strike("SEIUSD", fault)
            with tradingview.listen("SEIUSD") as refused:
                assert refused.status == status
            tradingview.heal("SEIUSD")
        tradingview.strike("SEIUSD", "socket_forbidden")
        open_before.subscribe("BINANCE:SEIUSD")
        assert next(open_before.quotes())["v"]["lp"]
    before = tradingview.upgrades("BINANCE:SEIUSD")
    spied_tab.goto(address(tradingview, "SEIUSD"))
    eventually(lambda: tradingview.upgrades("BINANCE:SEIUSD") >= before + 2)
    eventually(lambda: tradingview.sockets("BINANCE:SEIUSD") == 0)
    tradingview.heal("SEIUSD")
    spied_tab.wait_for_selector(READY)


def test_socket_redirected_to_another_host(tradingview: Simulation, spied_tab: Page) -> None:
    port = urlsplit(tradingview.url).port
    tradingview.strike("ENAUSD", "socket_redirected")
    with tradingview.listen("ENAUSD") as client:
        client.subscribe("BINANCE:ENAUSD")
        assert client.beats(1) == [f'{{"redirect":"localhost:{port}"}}', "~h~1"]
    with spied_tab.expect_websocket(lambda socket: socket.url.startswith(f"ws://localhost:{port}/socket.io/")):
        open_symbol(spied_tab, tradingview, "ENAUSD")
    tradingview.heal("ENAUSD")


@stories
def socket_expires_with_code_1000(tradingview: Simulation) -> None:
    tradingview.strike("JUPUSD", "socket_expires")
    started = time.monotonic()
    with tradingview.listen("JUPUSD") as client:
        client.subscribe("BINANCE:JUPUSD")
        assert any('"lp"' in payload for payload in list(client.payloads()))
        assert client.close_code == 1000
    assert_in_time(time.monotonic() - started, 2.8)  # 70 s, times 0.04
    tradingview.heal("JUPUSD")


# ---- Faults: loading, and walls --------------------------------------------------------------------


def test_a_document_and_first_prices_that_are_late(tradingview: Simulation, spied_tab: Page, own_tab: Page) -> None:
    """Both pages load at the same time. 25 s are 1 s here, 55 s are 2.2 s."""
    own_tab.add_init_script(SPY)
    tradingview.strike("WIFUSD", "price_after_55_s")
    tradingview.strike("FILUSD", "document_after_25_s", "price_after_25_s")
    own_tab.goto(address(tradingview, "WIFUSD"), wait_until="commit")
    spied_tab.goto(address(tradingview, "FILUSD"), wait_until="commit")
    price_only, both = first_of(own_tab), first_of(spied_tab)
    assert both["header"]["document"] == "loading"
    assert both["loaded"] - both["header"]["at"] > 800
    assert both["price"]["at"] - both["loaded"] > 900
    assert price_only["price"]["at"] > 2200
    assert price_only["price"]["document"] == "complete"
    tradingview.heal("WIFUSD")
    tradingview.heal("FILUSD")


def first_of(tab: Page) -> dict[str, Any]:
    """When the page's header and first price came, and its document was loaded: ms since the page began."""
    tab.wait_for_function("first.price")
    loaded = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    return dict(tab.evaluate(f"({{ ...first, loaded: {loaded} }})"))


def test_busy_loading_keeps_the_renderer(tradingview: Simulation, spied_tab: Page) -> None:
    tradingview.strike("HBARUSD", "busy_loading")
    open_symbol(spied_tab, tradingview, "HBARUSD")
    spied_tab.wait_for_function("longest >= 280")  # 7 s, times 0.04
    tradingview.heal("HBARUSD")


@pytest.mark.parametrize(
    ("fault", "status", "title", "header"),
    [
        ("wall_verify", 200, "Verify you are human", ""),
        ("wall_attention", 200, "Attention Required! | Cloudflare", ""),
        ("wall_one_more_step", 200, "Just one more step", ""),
        ("wall_robot", 200, "Please confirm that you are not a robot", ""),
        ("wall_cf_mitigated", 200, "www.tradingview.com", "cf-mitigated"),
        ("wall_waf_action", 200, "www.tradingview.com", "x-amzn-waf-action"),
        ("wall_405", 405, "www.tradingview.com", ""),
        ("wall_202", 202, "www.tradingview.com", "x-amzn-waf-action"),
        ("empty_document", 200, "BTC USD — Bitcoin Price and Chart — TradingView", ""),
    ],
)
def test_walls(tradingview: Simulation, fault: str, status: int, title: str, header: str) -> None:
    tradingview.strike("ETCUSD", fault)
    answer = tradingview.get("/symbols/ETCUSD/?exchange=BINANCE")
    tradingview.heal("ETCUSD")
    assert (answer.status_code, re.findall("<title>(.*?)</title>", answer.text)) == (status, [title])
    assert {"cf-mitigated", "x-amzn-waf-action"} & set(answer.headers) == ({header} if header else set())
    assert "symbolInfo" not in answer.text
    assert "js-symbol" not in answer.text
    assert ("<form" in answer.text) is (fault in ("wall_one_more_step", "wall_robot"))


def test_wall_202_passes_by_itself(tradingview: Simulation, tab: Page) -> None:
    tradingview.strike("XMRUSD", "wall_202_passes")
    answer = tab.goto(f"{tradingview.url}/symbols/XMRUSD/?exchange=BINANCE")
    assert answer is not None
    assert answer.status == 202
    tab.wait_for_selector(READY)
    assert tradingview.loads("BINANCE:XMRUSD") == 2
    tradingview.heal("XMRUSD")


def test_wall_202_never_leads_on_and_wall_reloads_leads_nowhere(tradingview: Simulation, tab: Page) -> None:
    tradingview.strike("ZECUSD", "wall_202")
    tab.goto(address(tradingview, "ZECUSD"))
    tab.wait_for_timeout(400)  # a wall that passes does so after 0.2 s
    assert tradingview.loads("BINANCE:ZECUSD") == 1
    tradingview.heal("ZECUSD")
    tradingview.strike("ZECUSD", "wall_reloads")
    tab.goto(address(tradingview, "ZECUSD"))
    eventually(lambda: tradingview.loads("BINANCE:ZECUSD") >= 4)
    tab.wait_for_function("document.title === 'Just a moment...'")
    tradingview.heal("ZECUSD")
    tab.wait_for_selector(READY)


def test_wall_solvable_by_a_person(tradingview: Simulation, tab: Page) -> None:
    tradingview.strike("DASHUSD", "wall_solvable")
    answer = tab.goto(f"{tradingview.url}/symbols/DASHUSD/?exchange=BINANCE")
    assert answer is not None
    assert (answer.status, answer.headers["cf-mitigated"], tab.title()) == (403, "challenge", "Just a moment...")
    (frame,) = tab.frames[1:]
    assert urlsplit(frame.url).hostname == "localhost"
    frame.click("#solve")
    tab.wait_for_selector(READY)
    tradingview.heal("DASHUSD")


def test_regions_print_as_their_people_do(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/BTCUSDC/61234.5")
    tradingview.strike("BTCUSDC", "region_de")
    open_symbol(tab, tradingview, "BTCUSDC")
    assert urlsplit(tab.url).hostname == "localhost"
    wait_until_shown(tab, "61.234,50")
    assert tab.title() == "BTCUSDC Kurs und Chart — TradingView"
    assert tab.text_content(".js-symbol-session-status") == "Markt geöffnet"
    assert re.fullmatch(r"[+−]\d,\d\d%", tab.text_content("span.js-symbol-change-pt") or "")
    assert re.fullmatch(r"Stand heute um \d\d:\d\d GMT", tab.text_content(".js-symbol-lp-time") or "")
    tradingview.heal("BTCUSDC")
    for region, text in {"region_fr": "61\u202f234,50", "region_in": "61,234.50"}.items():
        tradingview.strike("BTCUSDC", region)
        open_symbol(tab, tradingview, "BTCUSDC")
        wait_until_shown(tab, text)
        tradingview.heal("BTCUSDC")
    tradingview.post("/price/BTCUSDC/110910.19")
    wait_until_shown(tab, "1,10,910.19")


def test_a_region_has_the_host_beside_www(tradingview: Simulation) -> None:
    host = f"www.localhost:{urlsplit(tradingview.url).port}"
    tradingview.strike("ETHUSDC", "region_de")
    path = "/symbols/ETHUSDC/?exchange=BINANCE"
    answer = tradingview.client.get(path, headers={"Host": host})
    assert answer.headers["Location"] == f"http://de.{host[4:]}{path}&region=de"
    tradingview.heal("ETHUSDC")
    assert '<html lang="de">' in tradingview.client.get(path, headers={"Host": f"de.{host[4:]}"}).text


def test_a_renamed_symbol_leads_to_its_new_name(tradingview: Simulation) -> None:
    answer = tradingview.get("/symbols/MATICUSD/?exchange=BINANCE")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/symbols/POLUSD/?exchange=BINANCE")
    assert '"resolved_symbol": "BINANCE:POLUSD"' in tradingview.html("POLUSD")
    tradingview.strike("FTMUSD", "renamed")
    assert '"resolved_symbol": "BINANCE:POLUSD"' in tradingview.html("FTMUSD")
    tradingview.heal("FTMUSD")


# ---- Faults: the header ----------------------------------------------------------------------------

HEADERS = """all => all.map((each) => [each.dataset.symbol ?? "", each.classList.contains("i-hidden"),
  each.querySelector(".js-symbol-last").textContent])"""


def headers_of(tab: Page) -> list[list[Any]]:
    """Of each header ticker: data-symbol, whether it is hidden, its price."""
    headers: list[list[Any]] = tab.eval_on_selector_all(".js-symbol-header-ticker", HEADERS)
    return headers


def test_header_tickers_and_how_they_swap_roles(tradingview: Simulation, tab: Page) -> None:
    tradingview.post("/price/BONKUSD/0.00002222")
    tradingview.post("/price/BONKUSD/0.00003333?exchange=COINBASE")
    html = tradingview.html("BONKUSD")
    assert '<span class="dataMode-zoF9r75I js-data-mode tv-data-mode--connecting i-hidden"></span>' in html
    assert html.count("quote-ticker-inited") == 0
    own, hidden = ["BINANCE:BONKUSD", False, "0.00002222"], ["COINBASE:BONKUSD", True, "0.00003333"]
    open_symbol(tab, tradingview, "BONKUSD")
    eventually(lambda: headers_of(tab) == [own, hidden])
    assert tab.query_selector(".js-data-mode.tv-data-mode--realtime:not(.i-hidden)")
    first = tab.eval_on_selector(".js-symbol-header-ticker.i-hidden .js-symbol-last", "e => e.innerHTML")
    assert first == "<span>0.00003333</span>"
    tradingview.strike("BONKUSD", "header_swaps")
    eventually(lambda: headers_of(tab) == [hidden, own])
    tradingview.post("/price/BONKUSD/0.00004444")
    eventually(lambda: headers_of(tab)[1][2] == "0.00004444")


@pytest.mark.parametrize(
    ("fault", "marks"),
    [
        ("hidden_header_first", [("COINBASE:GRTUSDT", True), ("BINANCE:GRTUSDT", False)]),
        ("header_unmarked", [("", False), ("", True)]),
        ("header_of_another", [("COINBASE:GRTUSDT", False), ("COINBASE:GRTUSDT", True)]),
    ],
)
def test_headers_that_mislead(tradingview: Simulation, tab: Page, fault: str, marks: list[tuple[str, bool]]) -> None:
    tradingview.post("/price/GRTUSDT/0.1666")
    tradingview.post("/price/GRTUSDT/0.1777?exchange=COINBASE")
    tradingview.strike("GRTUSDT", fault)
    open_symbol(tab, tradingview, "GRTUSDT", ready=".js-symbol-header-ticker.quote-ticker-inited:not(.i-hidden)")
    prices = [[mark, hidden, "0.1777" if hidden else "0.1666"] for mark, hidden in marks]
    eventually(lambda: headers_of(tab) == prices)
    tradingview.heal("GRTUSDT")


def test_fills_when_seen_never_under_display_none(tradingview: Simulation, own_tab: Page) -> None:
    tradingview.strike("DOGEUSDT", "fills_when_seen")
    own_tab.add_init_script(
        "document.addEventListener('readystatechange', () => { document.body.style.display = 'none'; }, {once: true});"
    )
    log = SocketLog(own_tab)
    own_tab.goto(address(tradingview, "DOGEUSDT"))
    log.until(lambda: bool(log.prices("BITSTAMP:ETHUSD")))
    since = len(log.entries)
    log.until(lambda: log.beats(since) >= 4)
    assert log.prices("BINANCE:DOGEUSDT") == []
    assert shown(own_tab) == ""
    own_tab.evaluate("document.body.style.display = ''")
    own_tab.wait_for_selector(READY)
    tradingview.heal("DOGEUSDT")
    assert tradingview.sockets("BINANCE:DOGEUSDT") == 1
    own_tab.close()
    eventually(lambda: tradingview.sockets("BINANCE:DOGEUSDT") == 0)


# ---- Faults: markets -------------------------------------------------------------------------------


def marks_of(tab: Page) -> tuple[str, str, str]:
    """Of the page's own header: the session's text and class, and the data mode's class."""
    status = tab.query_selector(".js-symbol-session-status")
    mode = tab.query_selector(".js-data-mode")
    assert status
    assert mode
    names = (status.get_attribute("class") or "").split(), (mode.get_attribute("class") or "").split()
    return status.text_content() or "", names[0][-1], names[1][-1]


TICKERS_OF_MARKETS = {
    "delisted": "SANDEUR",
    "out_of_session": "MANAEUR",
    "holiday": "AXSEUR",
    "halted": "THETAEUR",
    "delayed": "EOSEUR",
    "end_of_day": "XTZEUR",
    "connecting": "FTMEUR",
    "replayed": "RUNEEUR",
    "lp_time_ahead": "INJEUR",
}


MARKETS: list[tuple[str, dict[str, Any], float, tuple[str, str, str]]] = [
    ("delisted", {"typespecs": ["crypto", "discontinued"]}, 90 * 86_400, ("Delisted", "delisted", "realtime")),
    (
        "out_of_session",
        {"session": "0930-1600", "current_session": "out_of_session"},
        5 * 3600,
        ("Market closed", "out-of-session", "realtime"),
    ),
    ("holiday", {"current_session": "holiday"}, 20 * 3600, ("Holiday", "holiday", "realtime")),
    ("halted", {"session": "24x7", "current_session": "market"}, 3 * 86_400, ("Market open", "market", "realtime")),
    ("delayed", {"update_mode": "delayed_streaming_900"}, 900, ("Market open", "market", "delayed")),
    ("end_of_day", {"update_mode": "endofday"}, 0, ("Market open", "market", "endofday")),
    ("connecting", {"update_mode": "connecting"}, 0, ("Market open", "market", "connecting")),
    ("replayed", {"update_mode": "replay"}, 0, ("Market open", "market", "replay")),
    ("lp_time_ahead", {}, -3600, ("Market open", "market", "realtime")),
]


@pytest.mark.parametrize(("fault", "fields", "age"), [market[:3] for market in MARKETS])
def test_markets_that_are_not_as_usual(tradingview: Simulation, fault: str, fields: dict[str, Any], age: float) -> None:
    ticker = TICKERS_OF_MARKETS[fault]  # one each: the last trade of a market that stood still is old for a while
    tradingview.strike(ticker, fault)
    with tradingview.listen(ticker) as client:
        client.subscribe(f"BINANCE:{ticker}")
        values = next(client.quotes())["v"]
    assert values | fields == values
    assert time.time() - values["lp_time"] == pytest.approx(age, abs=60)
    tradingview.heal(ticker)


def test_the_header_tells_how_the_market_is(tradingview: Simulation, tab: Page) -> None:
    tradingview.strike("SANDUSDT", "delisted")
    open_symbol(tab, tradingview, "SANDUSDT")
    assert tab.evaluate("initData.symbolInfo.typespecs") == ["crypto", "discontinued"]
    assert re.fullmatch(r"As of 20\d\d-\d\d-\d\d \d\d:\d\d GMT", tab.text_content(".js-symbol-lp-time") or "")
    for fault, _, _, (text, session, mode) in MARKETS:
        tradingview.strike("SANDUSDT", fault)
        marks = (text, f"tv-market-status--{session}", f"tv-data-mode--{mode}")
        eventually(lambda: marks_of(tab) == marks)  # noqa: B023
        tradingview.heal("SANDUSDT")
    for fault, text in {"pre_market": "Pre-market", "post_market": "Post-market"}.items():
        tradingview.strike("SANDUSDT", fault)
        eventually(lambda: marks_of(tab)[0] == text)  # noqa: B023
        tab.wait_for_selector(".js-symbol-ext-hrs-close:not(.i-hidden)")
        last = tradingview.truth("SANDUSDT")[-1]
        eventually(lambda: shown(tab) == last)  # noqa: B023
        tradingview.heal("SANDUSDT")


@stories
def a_market_that_stands_still_goes_on_when_it_is_healed(tradingview: Simulation) -> None:
    for fault in ("delisted", "out_of_session", "holiday", "halted"):
        tradingview.strike("MANAUSD", fault)
        with tradingview.listen("MANAUSD") as client:
            client.subscribe("BINANCE:MANAUSD")
            client.beats(1)
            count = len(tradingview.truth("MANAUSD"))
            client.beats(1)
            assert len(tradingview.truth("MANAUSD")) == count, fault
            tradingview.post("/price/MANAUSD/0.2222")
            values = next(part["v"] for part in client.quotes() if part["v"].get("lp") == 0.2222)
            assert time.time() - values["lp_time"] < 60
            tradingview.post("/rate/MANAUSD/20")
            tradingview.heal("MANAUSD")
            eventually(lambda: len(tradingview.truth("MANAUSD")) > count + 2)  # noqa: B023


@pytest.mark.parametrize("fault", ["pre_market", "post_market"])
def test_only_the_extended_price_moves_outside_of_regular_hours(tradingview: Simulation, fault: str) -> None:
    tradingview.strike("AXSUSD", fault)
    with tradingview.listen("AXSUSD") as client:
        client.subscribe("BINANCE:AXSUSD")
        whole = next(client.quotes())["v"]
        count = len(tradingview.truth("AXSUSD"))
        moves = [part["v"] for part in islice(client.quotes(), 3)]
    assert (whole["current_session"], whole["session"]) == (fault, "0930-1600")
    assert whole["lp"]
    assert all(values.keys() == {"rtc", "rch", "rchp", "rtc_time"} for values in moves)
    assert len({values["rtc"] for values in moves}) > 1
    assert len(tradingview.truth("AXSUSD")) == count
    tradingview.heal("AXSUSD")


@pytest.mark.parametrize(("fault", "ahead"), [("clock_ahead", 600), ("clock_behind", -600), ("", 0)])
def test_the_sites_clock(tradingview: Simulation, fault: str, ahead: float) -> None:
    if fault:
        tradingview.strike("THETAUSD", fault)
    date = tradingview.get("/symbols/THETAUSD/?exchange=BINANCE").headers["Date"]
    assert parsedate_to_datetime(date).timestamp() - time.time() == pytest.approx(ahead, abs=60)
    with tradingview.listen("THETAUSD") as client:
        client.subscribe("BINANCE:THETAUSD")
        assert next(client.quotes())["v"]["lp_time"] - time.time() == pytest.approx(ahead, abs=60)
    tradingview.heal("THETAUSD")


# ---- Numbers and names -----------------------------------------------------------------------------


PRINTED = [
    ("pricescale=100", "1.005", "1.00"),
    ("pricescale=100", "0.125", "0.13"),
    ("pricescale=100&minmov=5", "10.02", "10.00"),
    ("pricescale=100&minmov=5", "1110.03", "1,110.05"),
    ("pricescale=100&minmov=10", "10.06", "10.10"),
    ("pricescale=100&minmov=5&variable_tick_size=0.01 250 0.05", "249.97", "249.97"),
    ("pricescale=100&minmov=5&variable_tick_size=0.01 250 0.05", "253.42", "253.40"),
    ("pricescale=100", "253.41999999999998749", "253.42"),
    ("pricescale=1", "1234567.5", "1,234,568"),
    ("pricescale=1000000000000", "1.234e-8", "12.340e-9"),
    ("pricescale=100000000", "1.261e-5", "0.00001261"),
    ("pricescale=100", "-5", "−5.00"),
]


def test_the_page_prints_as_tradingviews_formatter(tradingview: Simulation, tab: Page) -> None:
    """It paints as soon as there is a price, not every 125 ms."""
    open_symbol(tab, tradingview, "PEPEEUR")
    tab.evaluate("const wait = setTimeout; window.setTimeout = (call, ms) => wait(call, ms === 125 ? 0 : ms);")
    for scale, number, text in PRINTED:
        tradingview.post(f"/scale/PEPEEUR?{scale}&minmov=1&variable_tick_size=")
        tradingview.post(f"/number/PEPEEUR/{number}")
        wait_until_shown(tab, text)
    tradingview.set_fields("PEPEEUR", fractional=True, pricescale=32)
    tradingview.post("/number/PEPEEUR/115.15625")
    wait_until_shown(tab, "115'05")
    tradingview.set_fields("PEPEEUR", format="volume")
    tradingview.post("/number/PEPEEUR/1234567.8")
    wait_until_shown(tab, "1.235\u2006M")


def test_truth_is_what_the_page_prints(tradingview: Simulation, tab: Page) -> None:
    """The page computes in JavaScript, the truth in Python: any doubles, any scale."""
    draws = random.Random(14)
    show_symbol(tab, tradingview, "PEPEEUR")
    for pricescale, minmov in ((100, 1), (1000, 5), (100, 25), (10**8, 1)):
        quote = {"pricescale": pricescale, "minmov": minmov}
        tradingview.post("/scale/SHIBEUR?" + "&".join(f"{name}={value}" for name, value in quote.items()))
        numbers = [repr(round(draws.uniform(0.5, 3000), draws.randrange(2, 12))) for _ in range(20)]
        for number in numbers:
            tradingview.post(f"/number/SHIBEUR/{number}")
        printed = tab.evaluate(
            """async ([numbers, quote]) => {
              const { printed } = await import("/static/format.js");
              return numbers.map((number) => printed(Number(number), quote, "en-US"));
            }""",
            [numbers, quote],
        )
        assert [text.replace(",", "") for text in printed] == tradingview.truth("SHIBEUR")[-len(numbers) :]


@pytest.mark.parametrize(
    ("exchange", "ticker", "kind"),
    [
        ("BINANCE", "币安人生USDT", "spot"),
        ("BINANCE", "BTCUSDT.P_OI", "swap"),
        ("NSE", "M&M", "stock"),
        ("NYSE", "NEE/PW", "stock"),
    ],
)
def test_unusual_names_have_pages_sockets_and_controls(
    tradingview: Simulation, tab: Page, exchange: str, ticker: str, kind: str
) -> None:
    escaped = quote(ticker, safe="")
    tab.goto(f"{tradingview.url}/symbols/{escaped}/?exchange={exchange}", wait_until="commit")
    tab.wait_for_selector(READY)
    assert tab.evaluate("initData.symbolInfo.resolved_symbol") == f"{exchange}:{ticker}"
    assert tab.evaluate("initData.symbolInfo.type") == kind
    assert tradingview.sockets(f"{exchange}:{ticker}") == 1
    assert tradingview.post(f"/rate/{escaped}/0?exchange={exchange}")["symbol"] == f"{exchange}:{ticker}"
    truth = tradingview.truth(f"{escaped}?exchange={exchange}")
    eventually(lambda: shown(tab).replace(",", "") == tradingview.truth(f"{escaped}?exchange={exchange}")[-1])
    assert truth
    assert tradingview.post(f"/fault/{escaped}/halted?exchange={exchange}")["ticker"] == ticker
    tradingview.client.delete(f"/fault/{escaped}?exchange={exchange}").raise_for_status()


# ---- Pace and weight -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ticker", "mean", "median", "tenth", "longest"),
    [("BTCUSD", 7.3, 6.0, 12.9, 56), ("ETHUSD", 12.4, 8.4, 29.4, 79), ("SOLUSD", 6.9, 6.8, 11.5, 20.3)],
)
def test_the_real_pace_has_the_recorded_gaps(
    ticker: str, mean: float, median: float, tenth: float, longest: float
) -> None:
    """As the table of the record has them: the mean, the median, what one gap in ten exceeds, and the longest."""
    pace = real_pace(find_symbol(ticker, "BINANCE"), None)
    draws = random.Random(5)
    gaps = sorted(pace.gap(draws) for _ in range(20_000))
    assert statistics.mean(gaps) == pytest.approx(mean, rel=0.1)
    assert statistics.median(gaps) == pytest.approx(median, rel=0.05)
    assert gaps[18_000] == pytest.approx(tenth, rel=0.1)
    assert gaps[-1] <= longest


def test_the_real_pace_of_others() -> None:
    draws = random.Random(6)

    def mean_gap(ticker: str) -> float:
        pace = real_pace(find_symbol(ticker, "BINANCE"), None)
        return statistics.mean(pace.gap(draws) for _ in range(10_000))

    assert mean_gap("ADAUSD") == pytest.approx(33.7, rel=0.1)
    assert mean_gap("XRPUSD") == pytest.approx(33.7, rel=0.1)
    assert mean_gap("BTCUSDT") == pytest.approx(0.2, rel=0.1)


def test_the_real_pace_is_that_of_the_recording() -> None:
    """The greatest distance between both distributions is what chance gives, of as many gaps, in 99 of 100 cases."""
    for ticker, runs in json.loads(recording("changes-2025.json").read_text())["runs"].items():
        recorded = sorted(later[0] - sooner[0] for run in runs for sooner, later in pairwise(run))
        pace, draws = real_pace(find_symbol(ticker, "BINANCE"), None), random.Random(7)
        drawn = sorted(pace.gap(draws) for _ in range(20_000))
        distances = [abs(bisect(recorded, gap) / len(recorded) - bisect(drawn, gap) / len(drawn)) for gap in recorded]
        assert max(distances) < 1.63 / len(recorded) ** 0.5, ticker


@stories
def pairs_change_at_the_pace_that_was_asked_for(_: Simulation) -> None:
    with simulation("--weight", "0", "--pace", "real") as running, QuoteClient(running.url) as client:
        client.subscribe("BINANCE:BTCUSD", "BINANCE:BTCUSDT", "BINANCE:DOGEUSD")

        def wait_for_changes(count: int) -> None:
            """Of a pair that changes five times a second."""
            before = len(running.truth("BTCUSDT"))
            eventually(lambda: len(running.truth("BTCUSDT")) >= before + count)

        wait_for_changes(10)
        seldom, often = len(running.truth("BTCUSD")), len(running.truth("BTCUSDT"))
        assert seldom < often / 2
        assert len(running.truth("DOGEUSD")) < often / 4
        running.post("/pace/DOGEUSD/lively")
        eventually(lambda: len(running.truth("DOGEUSD")) > 3)
        running.post("/pace/DOGEUSD/real")
        count = len(running.truth("DOGEUSD"))
        wait_for_changes(5)
        assert len(running.truth("DOGEUSD")) <= count + 1


@stories
def heartbeats_come_every_ten_seconds_unless_somebody_wants_them_otherwise(_: Simulation) -> None:
    with simulation("--weight", "0", "--rate", "0") as running:
        began = time.monotonic()
        with QuoteClient(running.url) as client:
            client.socket.settimeout(15)
            assert client.beats(1)[-1] == "~h~1"
            assert_in_time(time.monotonic() - began, 10)


def test_a_page_as_heavy_as_the_real_one(browser_page: Page) -> None:
    with simulation("--weight", "real", "--rate", "0") as heavy:
        html = heavy.html("BTCUSD")
        bundles = re.findall(r'src="(/static/bundles/\d+)"', html)
        assert len(html.encode()) == pytest.approx(570_000, rel=0.02)
        assert sum(len(heavy.get(path).content) for path in bundles) == pytest.approx(7_000_000, rel=0.02)
        assert len(re.findall(r'<iframe src="http://localhost:\d+/static/ad.html"', html)) == 4
        session = browser_page.context.new_cdp_session(browser_page)
        session.send("Network.enable")
        session.send("Network.setBlockedURLs", {"urls": ["*/static/images/*", "*/static/fonts/*", "*/static/ad.html"]})
        with browser_page.expect_request("**/telemetry", timeout=30_000):
            browser_page.goto(f"{heavy.url}/symbols/BTCUSD/?exchange=BINANCE", timeout=30_000)
        browser_page.wait_for_selector(READY, timeout=30_000)
        session.send("Performance.enable")
        session.send("HeapProfiler.enable")
        session.send("HeapProfiler.collectGarbage")
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        assert metrics["JSHeapUsedSize"] == pytest.approx(40e6, rel=0.1)


# ---- Replay ----------------------------------------------------------------------------------------

REPORT = {
    "symbol": "BINANCE:NEWUSDT",
    "url": "https://www.tradingview.com/symbols/NEWUSDT/?exchange=BINANCE",
    "recorded_at": 1_764_000_000_000,
    "facts": {"description": "Newcoin / TetherUS", "currency": "USDT", "resolved_symbol": "BINANCE:NEWUSDT"},
    "header_html": """<div class="row-1 js-symbol-page-header-root"><script>window.evil = true</script>
        <img src="https://elsewhere.example/logo.svg"><h1 onclick="evil()" style="color:red">New &amp; coin</h1>
        <div class="js-symbol-header-ticker quote-ticker-inited" data-symbol="BINANCE:NEWUSDT">
        <span class="js-symbol-last"><span>1.23</span>4</span><br>
        <span class="js-symbol-currency">USDT</span></div></div>""",
    "messages": [
        {"at_ms": 10, "direction": "received", "text": '{"session_id":"0.1"}'},
        {"at_ms": 20, "direction": "sent", "text": '{"m":"quote_add_symbols","p":["qs_multiplexer_full_a"]}'},
        {
            "at_ms": 200,
            "direction": "received",
            "text": '{"m":"qsd","p":["qs_multiplexer_full_a",{"n":"BINANCE:NEWUSDT","s":"ok","v":{"lp":2.5,'
            '"lp_time":1763999998,"pricescale":1000,"minmov":1,"currency_code":"USDT","currency_id":"XTVCUSDT"}}]}',
        },
        {
            "at_ms": 900,
            "direction": "received",
            "text": '~m~93~m~{"m":"qsd","p":["qs_multiplexer_full_a",'
            '{"n":"BINANCE:NEWUSDT","s":"ok","v":{"lp":2.625}}]}',
        },
    ],
}


@pytest.fixture
def reports(tmp_path: Path) -> tuple[Path, Path]:
    """A report as a file, and zipped."""
    plain, zipped = tmp_path / "report.json", tmp_path / "report.zip"
    plain.write_text(json.dumps(REPORT))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(plain, plain.name)
    return plain, zipped


def test_a_report_is_replayed_also_when_it_is_zipped(reports: tuple[Path, Path], tab: Page) -> None:
    plain, zipped = reports
    with (
        simulation("--weight", "0", "--heartbeat", "0.2", "--replay", str(plain)) as running,
        simulation("--weight", "0", "--replay", str(zipped)) as unzipped,
    ):
        assert running.html("NEWUSDT") == unzipped.html("NEWUSDT")
        assert_without_scripts_and_prices(running.html("NEWUSDT"))
        began = time.monotonic()
        with running.listen("NEWUSDT") as client, unzipped.listen("NEWUSDT") as other:
            payloads = client.beats(3)
            assert_in_time(time.monotonic() - began, 1.5)
            assert [prices_of(payloads[1:3]), prices_of([*islice(other.payloads(), 3)][1:])] == [[2.5, 2.625]] * 2
        assert json.loads(payloads[1])["p"][1]["v"]["lp_time"] - time.time() == pytest.approx(-2, abs=60)
        assert payloads[3:] == ["~h~1", "~h~2", "~h~3"]
        assert running.truth("NEWUSDT")[-2:] == ["2.500", "2.625"]
        open_symbol(tab, running, "NEWUSDT")
        wait_until_shown(tab, "2.625")


def assert_without_scripts_and_prices(html: str) -> None:
    """The page of the report."""
    assert re.search(r"<h1>New &amp; coin</h1>", html)
    assert '<span class="js-symbol-last"></span><br>\n' in html
    assert not re.search("evil|elsewhere|1.23", html.partition("<nav")[2])
    assert '"description": "Newcoin / TetherUS"' in html


def prices_of(payloads: list[str]) -> list[float]:
    return [json.loads(payload)["p"][1]["v"]["lp"] for payload in payloads]


@pytest.fixture(scope="module")
def changes() -> Iterator[tuple[Simulation, dict[str, list[list[tuple[float, str]]]]]]:
    """A simulator that has begun to replay recorded changes, and these."""
    path = recording("changes-2025.json")
    runs = json.loads(path.read_text())["runs"]
    with simulation("--weight", "0", "--replay", str(path)) as running:
        for ticker in runs:
            running.html(ticker)
        yield running, runs


Heard = list[tuple[float, str, dict[str, Any]]]  # seconds after the socket was asked for, session, quote part


@pytest.fixture(scope="module")
def juniper(thrifty: BrowserContext) -> Iterator[tuple[Page, SocketLog, Future[tuple[Heard, float, float]]]]:
    """A recorded socket as it is replayed from now on: to a page, and to a client, which also tells the next beat."""
    tab = thrifty.new_page()
    log = SocketLog(tab)
    path = recording("socket-2025-1.json")
    with simulation("--weight", "0", "--replay", str(path)) as running, ThreadPoolExecutor(1) as threads:
        tab.goto(f"{running.url}/symbols/JUNIPER/?exchange=NSE")
        yield tab, log, threads.submit(hear_juniper, running)
        tab.close()


def hear_juniper(running: Simulation) -> tuple[Heard, float, float]:
    began, parts = time.monotonic(), []
    with running.listen("JUNIPER", "NSE") as client:
        client.socket.settimeout(15)
        for session, part in client.parts():
            parts.append((time.monotonic() - began, session, part))
            if "NSE:CNX500" in part["n"] and part["v"]["lp"] == 23418.6:
                break
        assert client.beats(1)[-1] == "~h~1"
        return parts, time.monotonic() - began, time.time()


def test_a_recorded_socket_is_replayed_at_its_own_times(
    juniper: tuple[Page, SocketLog, Future[tuple[Heard, float, float]]],
) -> None:
    tab, log, heard = juniper
    own = "NSE:JUNIPER"
    wait_until_shown(tab, "253.40")  # 253.42 at a tick of 0.05
    log.until(lambda: len({session for session, name, _ in log.prices(own)}) == 3)
    parts, beat, heard_at = heard.result()
    assert_in_time(beat, 9.952)
    assert_in_time(parts[0][0], 1.417)
    assert_in_time(parts[-1][0], 3.86)
    priced = [(part["n"], part["v"]["lp"], part["v"].get("lp_time")) for _, _, part in parts if "lp" in part["v"]]
    of_own = [(price, moment) for name, price, moment in priced if own in name]
    assert [price for price, _ in of_own] == [253.42, 253.42, 253.42, 253.42, 253.5, 253.42]
    times = [moment for _, moment in of_own]
    assert times[3] is None  # a snapshot
    assert (times[0] or 0) - (times[4] or 0) == 13
    assert 0 < heard_at - (times[0] or 0) < 60


def test_recorded_changes_are_replayed_at_their_own_times(
    changes: tuple[Simulation, dict[str, list[list[tuple[float, str]]]]],
) -> None:
    running, runs = changes
    for ticker, (recorded, *_) in runs.items():
        due = sum(moment < 6.5 for moment, _ in recorded)
        eventually(lambda ticker=ticker, due=due: len(running.truth(ticker)) >= due)  # type: ignore[misc]
        told = running.get(f"/truth/{ticker}").json()["changes"][: len(recorded)]
        for change, (moment, _) in zip(told, recorded, strict=False):
            assert_in_time((change["time"] - told[0]["time"]) / 1000, moment)
        assert [float(change["price"]) for change in told] == [float(price) for _, price in recorded[: len(told)]]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"symbol": "X", "messages": [{}]}', '{"messages": [[1, [{}]]]}'])
def test_what_is_no_recording_is_one_sentence_and_exit_code_1(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    told = rf"simulator: {path} can't be replayed: .+\n"
    assert_refused(told, tmp_path / "errors", "--port", "0", "--replay", str(path))


@stories.each
def test_on_a_socket(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()


def test_every_fault_is_explained_and_tried(tradingview: Simulation) -> None:
    faults = tradingview.get("/fault").json()
    tests = Path(__file__).read_text()
    hostile = Path(__file__).with_name("test_hostile.py").read_text()
    assert all(explanation for explanation in faults.values())
    assert [name for name in faults if not re.search(rf'["/]{name}"', tests + hostile)] == []


def test_the_package_says_all_that_it_can_do(tradingview: Simulation) -> None:
    told = simulator.__doc__ or ""
    assert set(re.findall(r"[a-z_0-9]+", told)) >= set(tradingview.get("/fault").json())
    with running_program("-m", "simulator", "--help") as process:
        assert process.stdout is not None
        assert set(re.findall(r"--[a-z-]+", told)) == set(re.findall(r"--[a-z-]+", process.stdout.read()))
    rules = re.findall(r'@controls\.\w+\("(/\w+)', (PROJECT / "simulator" / "controls.py").read_text())
    assert rules
    assert all(f" {rule}" in told for rule in rules)
