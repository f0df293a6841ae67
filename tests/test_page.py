"""The page in a real Chromium: what a user sees, does, and must not meet.

To load it costs more than most tests do on it: two pages stay open for all tests, one on a real Pluto, which shows the
simulator's prices, one on a server without a browser. A test leaves them as it found them.
"""

from __future__ import annotations

import gzip
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    ViewportSize,
    expect,
)
from running import Pluto, QuoteServer, Simulator, quote_server, wait_until

SLOW_MS = 15_000  # for what waits on a page of the scraper's browser
OUTAGE = "Pluto is stopping"
VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
FIRST_VIEW_BYTES = 60_000  # compressed
FIRST_PRICE_SPY = """
    let pricedAt = 0;
    new MutationObserver(() => {
        if (!pricedAt && document.querySelector("price-row[data-priced]")) pricedAt = performance.now();
    }).observe(document, { subtree: true, childList: true, attributeFilter: ["data-priced"] });
    window.after = () => performance.getEntriesByType("resource")
        .filter(({ startTime }) => startTime > pricedAt).map(({ name }) => name);
"""  # after(): the addresses asked for after the first price


class Visitor:
    """A page that notes what must not happen: console errors (a breach of the policy is one), requests to elsewhere."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.faults: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        expected = "Failed to load resource" in message.text  # A refusal: a sentence on the page.
        if message.type in ("error", "warning") and not expected:
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        here, there = urlsplit(self.url), urlsplit(request.url)
        if there.scheme != "data" and there.netloc != here.netloc:
            self.faults.append(f"request: {request.url}")

    def open(self, query: str = "", *, anew: bool = False) -> Page:
        """The board, in touch with its server; loaded if the page shows another address, or `anew`."""
        address = f"{self.url}/{query}"
        if anew or self.page.url != address:
            self.page.goto(address)
        self.page.locator("#connection[data-state=open]").wait_for()
        return self.page

    def tidy(self) -> None:
        """As a test should find it."""
        self.page.unroute_all()
        self.page.emulate_media(color_scheme="null", reduced_motion="null")
        self.page.set_viewport_size(VIEWPORT)
        self.page.mouse.move(0, 0)
        while self.page.evaluate("Boolean(document.querySelector('dialog[open]'))"):
            self.page.keyboard.press("Escape")
        self.page.locator("#add-field").fill("")
        self.page.locator("#add-field").focus()

    def row(self, ticker: str) -> Locator:
        return self.page.locator(f'price-row[data-ticker="{ticker}"]')

    def add(self, text: str) -> None:
        self.page.locator("#add-field").fill(text)
        self.page.keyboard.press("Enter")

    def wait_for(self, ticker: str, state: str) -> None:
        """As soon as the row is so: this waits frame by frame, where expect() looks ever more rarely."""
        self.page.locator(f'price-row[data-ticker="{ticker}"][data-state="{state}"]').wait_for(timeout=SLOW_MS)

    @property
    def tickers(self) -> list[str]:
        """As they stand on the board, from top to bottom."""
        tickers: list[str] = self.page.eval_on_selector_all("price-row", "rows => rows.map(row => row.dataset.ticker)")
        return tickers


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=VIEWPORT, permissions=["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@contextmanager
def watched(visitor: Visitor) -> Iterator[Visitor]:
    """A visitor for one test."""
    visitor.faults.clear()
    yield visitor
    assert visitor.faults == []


@pytest.fixture(scope="module")
def page_on_pluto(context: BrowserContext, pluto: Pluto) -> Visitor:
    return Visitor(context.new_page(), pluto.url)


@pytest.fixture
def visitor(page_on_pluto: Visitor) -> Iterator[Visitor]:
    """On the real Pluto."""
    with watched(page_on_pluto):
        page_on_pluto.open()
        page_on_pluto.tidy()
        yield page_on_pluto


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server() as server:
        yield server


@pytest.fixture(scope="module")
def page_on_server(context: BrowserContext, server: QuoteServer) -> Visitor:
    return Visitor(context.new_page(), server.url)


@pytest.fixture
def reader(page_on_server: Visitor, server: QuoteServer) -> Iterator[Visitor]:
    """On the server without a browser, which tracks nothing."""
    server.http.put("/api/watchlist", json={"tickers": []}).raise_for_status()
    with watched(page_on_server):
        page = page_on_server.open()
        page_on_server.tidy()
        expect(page.locator("price-row")).to_have_count(0)
        yield page_on_server


@pytest.fixture
def newcomer(browser_page: Page, server: QuoteServer) -> Iterator[Visitor]:
    """A blank page of a context of its own, since a context has one clock, to go to the server without a browser."""
    server.http.put("/api/watchlist", json={"tickers": []}).raise_for_status()
    with watched(Visitor(browser_page, server.url)) as newcomer:
        yield newcomer


@contextmanager
def removed_after(pluto: Pluto, *tickers: str) -> Iterator[None]:
    """These tickers will be added by the test itself."""
    try:
        yield
    finally:
        for ticker in tickers:
            pluto.remove(ticker)


@pytest.fixture(scope="module", autouse=True)
def tracked(pluto: Pluto, simulator: Simulator) -> Iterator[None]:
    """What Pluto tracks all through these tests: HBAREUR stands still, the others are in trouble."""
    tickers = ("HBAREUR", "PAGENONE", "XMREUR")
    for ticker in tickers:
        pluto.add(ticker)
    pluto.wait_for("XMREUR", "live")
    simulator.fault("XMREUR", "socket_silent")
    pluto.wait_for("HBAREUR", "live")
    simulator.rate("HBAREUR", 0)
    yield
    for ticker in tickers:
        pluto.remove(ticker)
    simulator.clear("XMREUR")


# --- a price, the whole way -------------------------------------------------------------------------------------------


def test_an_added_ticker_starts_at_its_place_and_goes_live(visitor: Visitor, pluto: Pluto) -> None:
    with removed_after(pluto, "IMXEUR"):
        page = visitor.page
        expect(visitor.row("XMREUR")).to_be_visible()
        _note_states(page)
        visitor.add("imxeur")
        expect(visitor.row("IMXEUR")).to_be_visible()
        assert visitor.tickers == ["HBAREUR", "IMXEUR", "PAGENONE", "XMREUR"]
        visitor.wait_for("IMXEUR", "live")
        assert page.evaluate("states").index("IMXEUR starting") < page.evaluate("states").index("IMXEUR live")
        expect(visitor.row("IMXEUR").locator(".state")).to_have_text("live")
        expect(page.locator("#add-field")).to_have_value("")
        expect(page.locator("#simulated-badge")).to_be_visible()
        expect(page).to_have_title(re.compile(r"^SIMULATED · "))


def _note_states(page: Page) -> None:
    """From now on `states` holds each state each row is in, in order."""
    page.evaluate("""() => {
        window.states = [];
        const note = () => document.querySelectorAll("price-row").forEach((row) => {
            const state = `${row.dataset.ticker} ${row.dataset.state}`;
            if (!states.includes(state)) states.push(state);
        });
        new MutationObserver(note).observe(document.querySelector("price-board"), {
            subtree: true, childList: true, attributeFilter: ["data-state"],
        });
    }""")


def test_a_price_is_printed_as_given_and_marked_by_direction(visitor: Visitor, simulator: Simulator) -> None:
    simulator.price("HBAREUR", "0.12360")
    price = visitor.row("HBAREUR").locator(".price")
    expect(price).to_have_text("0.12360")
    expect(price).not_to_have_class(re.compile("up|down"))
    simulator.price("HBAREUR", "0.12375")
    visitor.row("HBAREUR").locator(".price.up").wait_for()
    assert price.text_content() == "0.12375"
    assert price.locator(".moved").all_text_contents() == ["75"]
    assert visitor.row("HBAREUR").locator(".arrow").text_content() == "▲"
    simulator.price("HBAREUR", "0.11375")
    visitor.row("HBAREUR").locator(".price.down").wait_for()
    expect(price).not_to_have_class(re.compile("up|down"))  # The mark fades.


def test_the_days_figures_follow_the_price(visitor: Visitor, simulator: Simulator) -> None:
    row = visitor.row("HBAREUR")
    expect(row.locator("[data-part=volume]")).not_to_be_empty()
    simulator.price("HBAREUR", "9876.5")
    expect(row.locator("[data-part=high]")).to_have_text(re.compile(r"^9,876\.50"))
    expect(row.locator("[data-part=range]")).to_have_attribute("data-at", "1.000")


def test_a_removed_ticker_can_be_taken_back(reader: Visitor, server: QuoteServer) -> None:
    server.track("VETEUR")
    reader.row("VETEUR").hover()
    reader.row("VETEUR").get_by_role("button", name="Remove VETEUR").click()
    expect(reader.row("VETEUR")).to_have_count(0)
    wait_until(lambda: server.http.get("/api/tickers/VETEUR").status_code == 404, what="removed at the server")
    reader.page.get_by_role("button", name="Undo").click()
    expect(reader.row("VETEUR")).to_be_visible()
    wait_until(lambda: server.http.get("/api/tickers/VETEUR").status_code == 200, what="back at the server")


# --- adding -----------------------------------------------------------------------------------------------------------


def test_several_are_added_at_once_and_what_is_refused_says_why(reader: Visitor) -> None:
    reader.add("kavaeur, coinbase:mkreur; a:b:c")
    expect(reader.row("KAVAEUR")).to_be_visible()
    expect(reader.row("COINBASE:MKREUR")).to_be_visible()
    expect(reader.page.locator("#add-error")).to_contain_text("A ticker is 1 to 32 letters")
    expect(reader.page.locator("#add-field")).to_have_value("A:B:C")


def test_what_people_type_is_understood_or_answered_with_proposals(reader: Visitor) -> None:
    page = reader.page
    field, notices = page.locator("#add-field"), page.locator("#notices")
    rows = page.locator("price-row")
    reader.add("btc/usdt")
    expect(notices).to_contain_text("BTC/USDT is BTCUSDT here")
    reader.add("BINANCE:BTCUSDT")
    expect(notices).to_contain_text("BTCUSDT is on the board already")
    expect(rows).to_have_count(1)
    reader.add("BTC")
    page.get_by_role("button", name="Track BTCUSD", exact=True).click()
    expect(rows).to_have_count(2)
    expect(page.locator("#add-error")).to_be_empty()
    field.press_sequentially("ethere")
    page.get_by_role("option", name="ETHUSD Ethereum", exact=True).click()
    page.keyboard.press("Enter")
    expect(reader.row("ETHUSD")).to_be_visible()
    reader.add("adausd solusd")
    expect(rows).to_have_count(5)


def test_every_removal_can_be_undone_and_rows_stand_as_the_user_wants(browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 740}, has_touch=True, locale="de-DE")
    page = context.new_page()
    tickers = "[...document.querySelectorAll('price-row')].map((row) => row.dataset.ticker).join()"
    with quote_server() as server:
        server.track("ADAUSD", "BTCUSD", "ETHUSD")
        server.put(("BTCUSD", "live", "66751.91"))
        page.goto(server.url)
        expect(_price(page, "BTCUSD")).to_have_text("66,751.91")
        page.get_by_role("button", name="Keys and settings").click()
        page.get_by_label("Numbers as in my browser's language").check()
        expect(_price(page, "BTCUSD")).to_have_text("66.751,91")
        page.keyboard.press("Escape")

        _swipe(page, page.locator('price-row[data-ticker="BTCUSD"]'))
        expect(page.locator("price-row")).to_have_count(2)
        page.get_by_role("button", name="Remove ADAUSD").click()
        expect(page.locator("price-row")).to_have_count(1)
        for ticker in ("BTCUSD", "ADAUSD"):
            page.locator(".notice", has_text=f"{ticker} removed").get_by_role("button").click()
        wait_until(lambda: page.evaluate(tickers) == "ADAUSD,BTCUSD,ETHUSD", what="both are back")
        page.locator('price-row[data-ticker="ADAUSD"]').focus()
        page.keyboard.press("u")
        expect(page.locator("#notices")).to_contain_text("Nothing to undo")

        page.keyboard.press("ArrowRight")
        expect(page.locator('price-row[data-ticker="ADAUSD"] .open')).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(page.locator('price-row[data-ticker="BTCUSD"] .open')).to_be_focused()
        page.keyboard.press("Alt+ArrowUp")
        wait_until(lambda: page.evaluate(tickers) == "BTCUSD,ADAUSD,ETHUSD", what="one up")
        _drag(page, page.locator('price-row[data-ticker="ETHUSD"]'), page.locator("price-row").first)
        wait_until(lambda: page.evaluate(tickers) == "ETHUSD,BTCUSD,ADAUSD", what="dragged to the top")
        page.reload()
        wait_until(lambda: page.evaluate(tickers) == "ETHUSD,BTCUSD,ADAUSD", what="as it was left")
    context.close()


def _wait_for_rows(page: Page) -> None:
    """Until those that move to other places have arrived."""
    still = "[...document.querySelectorAll('price-row')].every((row) => row.getAnimations().length === 0)"
    wait_until(lambda: page.evaluate(still), what="no row moves")


def _swipe(page: Page, row: Locator) -> None:
    _wait_for_rows(page)
    box = row.bounding_box()
    assert box is not None
    session, y = page.context.new_cdp_session(page), box["y"] + 20

    def touch(kind: str, *places: float) -> None:
        points = [{"x": x, "y": y} for x in places]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 300)
    for x in (270, 200, 120, 60):
        touch("touchMove", x)
    touch("touchEnd")


def _drag(page: Page, row: Locator, onto: Locator) -> None:
    _wait_for_rows(page)
    grip, goal = row.locator(".grip").bounding_box(), onto.bounding_box()
    assert grip is not None
    assert goal is not None
    page.mouse.move(grip["x"] + 5, grip["y"] + 20)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, (grip["y"] + goal["y"]) / 2)
    page.mouse.move(grip["x"] + 5, goal["y"] - 5)
    page.mouse.up()


def test_what_the_server_refuses_is_shown_in_its_words(reader: Visitor) -> None:
    refusal = {"success": False, "code": "too_many_tickers", "message": "At most 50 tickers; remove one first."}
    reader.page.route("**/api/tickers", lambda route: route.fulfill(status=409, json=refusal))
    reader.add("SNXEUR")
    expect(reader.page.locator("#add-error")).to_have_text("At most 50 tickers; remove one first.")
    expect(reader.row("SNXEUR")).to_have_count(0)


def test_the_field_offers_what_was_tracked_before(reader: Visitor, server: QuoteServer) -> None:
    page = reader.page
    server.track("SANDEUR")
    expect(reader.row("SANDEUR")).to_be_visible()
    server.untrack("SANDEUR")
    expect(reader.row("SANDEUR")).to_have_count(0)
    page.locator("#add-field").press_sequentially("ndeu")
    expect(page.get_by_role("listbox").get_by_role("option")).to_have_text(["SANDEUR"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#add-field")).to_have_value("SANDEUR")
    page.keyboard.press("Enter")
    expect(reader.row("SANDEUR")).to_be_visible()


# --- truth on screen --------------------------------------------------------------------------------------------------


def test_trouble_is_said_in_words(visitor: Visitor) -> None:
    for ticker, state, words in [("PAGENONE", "not_found", "not found"), ("XMREUR", "stale", "stale")]:
        visitor.wait_for(ticker, state)
        expect(visitor.row(ticker).locator(".state")).to_have_text(words)
    expect(visitor.row("PAGENONE").locator(".price")).to_have_text("—")
    expect(visitor.row("PAGENONE").locator(".c-reason")).to_contain_text("no such symbol")
    expect(visitor.row("XMREUR").locator(".age")).to_have_text(re.compile(r"since \d\d:\d\d"))
    expect(visitor.row("XMREUR").locator(".price")).to_have_css("text-decoration-line", "line-through")


def test_a_bot_wall_is_said_in_words_with_the_next_try(reader: Visitor, server: QuoteServer) -> None:
    server.track("ETCEUR")
    server.tell("ETCEUR", "blocked", reason="TradingView asks", next_try_at=round(time.time() * 1000) + 90_000)
    reader.wait_for("ETCEUR", "blocked")
    expect(reader.row("ETCEUR").locator(".state")).to_have_text("blocked")
    expect(reader.row("ETCEUR").locator(".c-reason")).to_contain_text(
        re.compile(r"TradingView asks.*Next try in \d+ (s|min)")
    )


def test_the_title_shows_the_first_price(reader: Visitor, server: QuoteServer) -> None:
    server.track("1000SATSEUR", "BTCEUR")
    server.put(("BTCEUR", "live", "61000.5"), ("1000SATSEUR", "live", "0.00000812"))
    expect(reader.page).to_have_title(re.compile(r"^▲ 0\.00000812 1000SATSEUR"))
    expect(reader.page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))


def test_an_empty_board_offers_tickers_to_begin_with(reader: Visitor) -> None:
    page = reader.page
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_role("button", name="ETHUSD").click()
    reader.wait_for("ETHUSD", "starting")
    expect(page.locator("#empty")).to_be_hidden()


def test_fifty_tickers_change_without_anything_moving(reader: Visitor, server: QuoteServer) -> None:
    page, tickers = reader.page, [f"COIN{number:02}" for number in range(50)]
    server.http.put("/api/watchlist", json={"tickers": tickers}).raise_for_status()
    server.put(*((ticker, "live", "0.00000812") for ticker in tickers))
    expect(page.locator("price-row[data-state=live]")).to_have_count(50)
    expect(_price(page, "COIN49")).to_have_text("0.00000812")
    places = """() => [...document.querySelectorAll("price-row, .price")].slice(0, 16).map((element) => {
        const { left, top, width, height } = element.getBoundingClientRect();
        return [left, top, width, height].map(Math.round);
    })"""
    before = page.evaluate(places)
    server.put(*((ticker, "live", "0.00001111") for ticker in tickers))
    expect(_price(page, "COIN49")).to_have_text("0.00001111")
    assert page.evaluate(places) == before


def test_the_page_outlives_a_restart_of_pluto(context: BrowserContext) -> None:
    page = context.new_page()
    live = page.locator('price-row[data-ticker="RUNEEUR"][data-state=live]')
    with quote_server() as server:
        server.track("RUNEEUR")
        server.put(("RUNEEUR", "live", "5.25"))
        page.goto(server.url)
        live.wait_for()
        page.evaluate("document.never = 'reloaded'")
        server.process.send_signal(signal.SIGTERM)
        page.locator("#connection[data-state=closed]").wait_for()
        expect(page.locator("price-row")).to_have_attribute("data-state", "stale")
        expect(page.locator("#outage")).to_contain_text(OUTAGE)
        expect(page.locator("#outage")).to_contain_text(re.compile(r"Trying again in \d+ s|Trying now"))
        expect(page).to_have_title(re.compile("Not connected"))
    with quote_server("--port", str(server.port)) as server:
        server.track("RUNEEUR")
        server.put(("RUNEEUR", "live", "5.50"))
        page.locator("#connection[data-state=open]").wait_for(timeout=SLOW_MS)
        live.wait_for()
        expect(_price(page, "RUNEEUR")).to_have_text("5.50")
        expect(page.locator("#outage")).to_be_hidden()
        assert page.evaluate("document.never") == "reloaded"
    page.close()


def test_try_now_does_not_wait_for_the_countdown(newcomer: Visitor) -> None:
    page = newcomer.page
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # No countdown ends by itself.
    page.add_init_script("delete window.SharedWorker")  # a worker's clock can't be stopped
    page.route_web_socket("**/api/ws*", lambda socket: socket.close())  # then it tries server-sent events
    page.goto(newcomer.url)
    page.locator("#connection[data-state=closed]").wait_for()
    page.get_by_role("button", name="Try now").click()
    page.locator("#connection[data-state=open]").wait_for()


# --- the detail view --------------------------------------------------------------------------------------------------


def test_a_row_opens_its_details_and_without_the_chart_they_say_so(visitor: Visitor, simulator: Simulator) -> None:
    page = visitor.open(anew=True)
    scripts = _requests(page, "lightweight-charts")
    visitor.wait_for("HBAREUR", "live")
    page.route("**/vendor/*", lambda route: route.fulfill(status=404))
    assert scripts == []
    visitor.row("HBAREUR").click(position={"x": 4, "y": 4})
    expect(page.locator(".nochart")).to_be_visible()
    page.keyboard.press("Escape")
    page.unroute_all()
    assert len(scripts) == 1
    visitor.row("HBAREUR").get_by_role("button", name="HBAREUR", exact=True).click()
    sheet = page.get_by_role("dialog", name="HBAREUR")
    expect(sheet.locator("[data-part=source]")).to_be_visible()
    simulator.price("HBAREUR", "0.25")
    expect(sheet.locator("[data-part=changes] li").first).to_be_visible()
    link = sheet.get_by_role("link", name="Open on TradingView")
    expect(link).to_have_attribute("href", "https://www.tradingview.com/symbols/HBAREUR/?exchange=BINANCE")
    expect(sheet.locator("canvas").first).to_be_visible()
    expect(sheet.locator(".nochart")).to_be_hidden()
    assert len(scripts) == 2
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(visitor.row("HBAREUR")).to_be_focused()


def test_the_details_tell_why_and_a_ticker_that_waits_can_be_tried(visitor: Visitor) -> None:
    page = visitor.page
    visitor.wait_for("PAGENONE", "not_found")
    visitor.row("PAGENONE").get_by_role("button", name="Try now").click()
    expect(page.locator("#notices")).to_contain_text("PAGENONE")
    visitor.row("PAGENONE").locator(".open").click()
    page.get_by_text("Why?").click()
    expect(page.locator(".whys")).to_contain_text(
        re.compile(r"State.*not found.*HTTP 404.*loaded", re.S), timeout=SLOW_MS
    )


# --- habits -----------------------------------------------------------------------------------------------------------


def test_the_keyboard_does_everything(reader: Visitor, server: QuoteServer) -> None:
    page = reader.page
    server.track("1000SATSEUR", "1000SATSUSDC")
    server.put(("1000SATSUSDC", "live", "0.00025"))
    reader.wait_for("1000SATSUSDC", "live")
    page.keyboard.press("ArrowDown")
    expect(reader.row("1000SATSEUR")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(reader.row("1000SATSUSDC")).to_be_focused()
    page.keyboard.press("c")
    expect(page.locator("#notices")).to_contain_text("Copied 0.00025")
    assert page.evaluate("navigator.clipboard.readText()") == "0.00025"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="1000SATSUSDC")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")
    expect(reader.row("1000SATSUSDC")).to_have_count(0)
    page.keyboard.press("u")
    expect(reader.row("1000SATSUSDC")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#add-field")).to_be_focused()


def test_a_click_on_a_price_copies_it_and_share_copies_the_address(reader: Visitor, server: QuoteServer) -> None:
    page = reader.page
    server.track("EOSEUR", "XTZEUR")
    server.put(("EOSEUR", "live", "1234.5678"))
    price = reader.row("EOSEUR").locator(".price")
    expect(price).to_have_text("1,234.5678")
    price.click()
    expect(page.locator("#notices")).to_contain_text("Copied 1234.5678")
    assert page.evaluate("navigator.clipboard.readText()") == "1234.5678"
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Copy a link to these tickers").click()
    expect(page.locator("#notices")).to_contain_text("Link to these tickers copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{reader.url}/?tickers=EOSEUR,XTZEUR"


def test_sorting_by_change_puts_the_highest_first(reader: Visitor, server: QuoteServer) -> None:
    page, falling = reader.page, ["DOTEUR", "ADAEUR", "BCHEUR"]
    server.track(*falling)
    for ticker, percent in zip(falling, (2.5, 0.25, -11.0), strict=True):
        server.tell(ticker, "live", "100.00", change_percent=percent)
    for ticker in falling:
        reader.wait_for(ticker, "live")
    page.get_by_role("columnheader", name="24 h change").get_by_role("button").click()
    wait_until(lambda: page.evaluate("1") and reader.tickers == falling, what=f"{falling} in this order")
    page.get_by_role("button", name="24 h change").click()
    wait_until(lambda: page.evaluate("1") and reader.tickers == falling[::-1], what="the lowest first")
    expect(page.get_by_role("columnheader", name="24 h change")).to_have_attribute("aria-sort", "ascending")
    page.get_by_label("Sort by").select_option("A–Z")
    wait_until(lambda: page.evaluate("1") and reader.tickers == sorted(falling), what="alphabetical again")


def test_a_screen_reader_hears_a_summary_every_10_seconds_and_no_tick(newcomer: Visitor, server: QuoteServer) -> None:
    page = newcomer.page
    server.track("FILEUR")
    server.put(("FILEUR", "live", "3.25"))
    page.clock.install()
    newcomer.open()
    newcomer.wait_for("FILEUR", "live")
    page.evaluate("""() => {
        window.spoken = [];
        const summary = document.querySelector("[data-spoken]");
        const note = () => spoken.push(summary.textContent);
        new MutationObserver(note).observe(summary, { childList: true, characterData: true, subtree: true });
    }""")
    live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')]"
    assert not page.evaluate(
        f"{live}.some((region) => region.closest('price-row') || region.querySelector('price-row'))"
    )
    for price in ("3.26", "3.27"):
        server.put(("FILEUR", "live", price))
        expect(_price(page, "FILEUR")).to_have_text(price)
    page.clock.run_for(10_000)
    wait_until(lambda: page.evaluate("spoken.length"), what="a summary")
    assert re.match(r"1 ticker: 1 up, 0 down\. FILEUR \d", page.evaluate("spoken[0]"))
    assert page.evaluate("spoken.length") <= 2


def test_reduced_motion_is_honoured(reader: Visitor, server: QuoteServer) -> None:
    page = reader.page
    server.track("CRVEUR")
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function("document.getAnimations().length === 0")
    page.evaluate("""() => {
        window.moving = 0;
        const look = () => {
            moving += document.getAnimations().length;
            window.looking = requestAnimationFrame(look);
        };
        look();
    }""")
    reader.add("COMPEUR")
    for price in ("5.25", "5.50"):
        server.put(("CRVEUR", "live", price), ("COMPEUR", "live", price))
        expect(_price(page, "COMPEUR")).to_have_text(price)
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.evaluate("cancelAnimationFrame(looking)")
    assert page.evaluate("moving") == 0


def test_theme_density_and_sort_are_remembered(reader: Visitor, server: QuoteServer) -> None:
    page = reader.page
    server.track("BTCUSD")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(ground) != light
    page.get_by_role("button", name="Density: normal").click()
    page.get_by_label("Sort by").select_option("Change, highest first")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("data-density", "compact")
    expect(page.get_by_label("Sort by")).to_have_value("change-down")
    assert page.evaluate(ground) != light
    page.get_by_role("button", name="Theme: dark").click()
    for density in ("compact", "large"):
        page.get_by_role("button", name=f"Density: {density}").click()
    page.get_by_label("Sort by").select_option("A–Z")


def test_an_address_shows_its_tickers_and_adds_none_by_itself(reader: Visitor, server: QuoteServer) -> None:
    server.track("THETAEUR", "SEIEUR")
    page = reader.open("?tickers=THETAEUR,TIAEUR")
    expect(reader.row("THETAEUR")).to_be_visible()
    expect(page.locator("#add-field")).to_be_focused()
    assert reader.tickers == ["THETAEUR"]
    assert server.http.get("/api/tickers/TIAEUR").status_code == 404
    page.get_by_role("button", name="Track TIAEUR").click()
    expect(reader.row("TIAEUR")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(reader.row("SEIEUR")).to_be_visible()
    assert urlsplit(page.url).query == ""


def _price(page: Page, ticker: str) -> Locator:
    return page.locator(f'price-row[data-ticker="{ticker}"] .price')


def _requests(source: Page | BrowserContext, part: str) -> list[Request]:
    """The requests made from now on whose address has this part."""
    requests: list[Request] = []

    def note(request: Request) -> None:
        if part in request.url:
            requests.append(request)

    source.on("request", note)
    return requests


def test_axe_finds_nothing(visitor: Visitor) -> None:
    """Of another colour scheme, only colours are different."""
    page = visitor.page
    visitor.wait_for("HBAREUR", "live")

    def assert_clean() -> None:
        contrast = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
        for scheme, options in {"light": {}, "dark": contrast}.items():
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            seen = Axe().run(page, options=options)
            assert seen.violations_count == 0, seen.generate_report()

    assert_clean()
    visitor.row("HBAREUR").get_by_role("button", name="HBAREUR", exact=True).click()
    expect(page.get_by_role("dialog", name="HBAREUR")).to_be_visible()
    assert_clean()


def test_a_phone_needs_no_scrolling_sideways(visitor: Visitor) -> None:
    page = visitor.page
    page.set_viewport_size({"width": 360, "height": 740})
    visitor.wait_for("HBAREUR", "live")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    visitor.row("HBAREUR").click(position={"x": 4, "y": 4})
    expect(page.get_by_role("dialog", name="HBAREUR")).to_be_visible()
    assert page.evaluate("document.querySelector('dialog[open]').scrollWidth") <= 360


# --- light, and closed to the outside ---------------------------------------------------------------------------------


def test_the_first_view_is_light_and_comes_from_one_place(browser_page: Page, pluto: Pluto) -> None:
    responses: list[Response] = []
    browser_page.add_init_script(FIRST_PRICE_SPY)
    browser_page.on("response", lambda response: responses.append(response))
    browser_page.goto(pluto.url)
    browser_page.locator('price-row[data-ticker="HBAREUR"][data-state=live]').wait_for(timeout=SLOW_MS)
    later = [f"{pluto.url}/static/{name}" for name in ("alerting.js", "alerts.css", "alerts.html")]
    browser_page.wait_for_function("later => later.every((name) => after().includes(name))", arg=later)
    heard = [response for response in responses if "/api/" not in response.url]
    for response in heard:
        response.finished()  # only then the browser tells when it was asked for
    after = set(browser_page.evaluate("after()"))
    files = [response for response in heard if response.url not in after]
    assert {urlsplit(response.url).netloc for response in responses} == {urlsplit(pluto.url).netloc}
    assert {response.status for response in files} == {200}
    assert len({response.url for response in files}) == len(files) > 20
    assert not any("/vendor/" in response.url for response in files)
    weight = sum(len(gzip.compress(response.body())) for response in files)
    assert weight < FIRST_VIEW_BYTES, f"{weight} bytes"


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(pluto: Pluto) -> None:
    response = pluto.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r" on\w+=| style=|<style|<script>|javascript:", response.text)


# --- the modules that are pure ----------------------------------------------------------------------------------------


def test_a_price_is_written_with_every_digit_and_cut_into_runs(reader: Visitor) -> None:
    runs = reader.page.evaluate("""async () => {
        const { priceRuns, priceWords } = await import("/static/format.js");
        return [["65123.45", "65119.45"], ["0.00000812", "0.00000811"], ["100000", "99999"],
            ["12345678901234.5678", ""]].map(([text, before]) => priceRuns(priceWords(text), priceWords(before)));
    }""")
    written = ["".join(run["text"] for run in price) for price in runs]
    assert written == ["65,123.45", "0.00000812", "100,000", "12,345,678,901,234.5678"]
    assert [[run["text"] for run in price if run["moved"]] for price in runs] == [["23.45"], ["2"], ["100,000"], []]
    assert [run["text"] for run in runs[1] if run["faint"]] == ["0.00000"]


def test_a_moment_of_another_year_says_which(reader: Visitor) -> None:
    words = reader.page.evaluate("""async () => {
        const { momentWords } = await import("/static/format.js");
        return [new Date(2099, 0, 1, 8), new Date().setHours(8, 0)].map(momentWords);
    }""")
    assert words[0] == "1 Jan 2099 08:00"
    assert re.fullmatch(r"\d{1,2} \w{3,4} 08:00", words[1])


def test_a_session_of_a_day_stays_bounded_and_in_order(reader: Visitor) -> None:
    session = reader.page.evaluate("""async () => {
        const { Session } = await import("/static/session.js");
        const session = new Session();
        for (let second = 0; second < 86400; second++) session.add(second * 1000, second % 977, String(second % 977));
        const again = Session.fromMessage(structuredClone(session.toMessage()));
        const times = again.points().map(({ time }) => time);
        return {
            length: again.length, newest: again.newest().value, changes: again.changes.length,
            sample: again.sample(60).length, covered: times.at(-1) - times[0],
            ascending: times.every((time, at) => at === 0 || time > times[at - 1]),
        };
    }""")
    assert session["length"] <= 1800
    assert session["sample"] <= 60
    assert session["changes"] == 40
    assert session["ascending"]
    assert session["covered"] > 86000
    assert session["newest"] == 86399 % 977
