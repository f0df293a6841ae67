"""The page in a real Chromium, against a real Pluto and the simulator: what a user sees, does, and must not meet."""

from __future__ import annotations

import gzip
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, Response, expect
from running import Pluto, Simulator, quote_server, running_pluto, wait_until

SLOW_MS = 15_000  # for what waits on a page of the scraper's browser
OUTAGE = "Pluto is stopping"
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

    def __init__(self, page: Page, pluto: Pluto) -> None:
        self.page, self.pluto = page, pluto
        self.faults: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        expected = "Failed to load resource" in message.text  # A refusal: a sentence on the page.
        if message.type in ("error", "warning") and not expected:
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        here, there = urlsplit(self.pluto.url), urlsplit(request.url)
        if there.scheme != "data" and there.netloc != here.netloc:
            self.faults.append(f"request: {request.url}")

    def open(self, query: str = "") -> Page:
        self.page.goto(self.pluto.url + "/" + query)
        self.page.locator("#connection[data-state=open]").wait_for()
        return self.page

    def blank(self) -> Page:
        """A page of the same origin with nothing on it, to import modules into."""
        self.page.goto(self.pluto.url + "/livez")
        return self.page

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


@pytest.fixture
def visitor(browser_page: Page, pluto: Pluto) -> Iterator[Visitor]:
    visitor = Visitor(browser_page, pluto)
    yield visitor
    assert visitor.faults == []


@contextmanager
def tracked(pluto: Pluto, *tickers: str) -> Iterator[None]:
    """These tickers are there at the start and gone at the end, whoever added or removed them meanwhile."""
    for ticker in tickers:
        pluto.add(ticker)
    try:
        yield
    finally:
        for ticker in tickers:
            pluto.remove(ticker)


@contextmanager
def removed_after(pluto: Pluto, *tickers: str) -> Iterator[None]:
    """These tickers will be added by the test itself."""
    try:
        yield
    finally:
        for ticker in tickers:
            pluto.remove(ticker)


@pytest.fixture(scope="module", autouse=True)
def troubled(pluto: Pluto, simulator: Simulator) -> Iterator[None]:
    """Tickers in trouble, on the board all through these tests: a page takes seconds to be known as stale."""
    with tracked(pluto, "PAGENONE", "XMREUR"):
        pluto.wait_for("XMREUR", "live")
        simulator.fault("XMREUR", "socket_silent")
        yield
    simulator.clear("XMREUR")


# --- a price, the whole way -------------------------------------------------------------------------------------------


def test_an_added_ticker_starts_at_its_place_and_goes_live(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "ICPEUR", "INJEUR"), removed_after(pluto, "IMXEUR"):
        page = visitor.open()
        expect(visitor.row("INJEUR")).to_be_visible()
        _note_states(page)
        visitor.add("imxeur")
        expect(visitor.row("IMXEUR")).to_be_visible()
        assert [ticker for ticker in visitor.tickers if ticker.startswith("I")] == ["ICPEUR", "IMXEUR", "INJEUR"]
        visitor.wait_for("IMXEUR", "live")
        assert page.evaluate("states").index("IMXEUR starting") < page.evaluate("states").index("IMXEUR live")
        expect(visitor.row("IMXEUR").locator(".state")).to_have_text("live")
        expect(page.locator("#add-field")).to_have_value("")


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


def test_a_price_is_printed_as_given_and_marked_by_direction(
    visitor: Visitor, pluto: Pluto, simulator: Simulator
) -> None:
    with tracked(pluto, "BTCEUR"):
        simulator.price("BTCEUR", "12345.60")
        visitor.open()
        price = visitor.row("BTCEUR").locator(".price")
        expect(price).to_have_text("12,345.60", timeout=SLOW_MS)
        expect(price).not_to_have_class(re.compile("up|down"))
        simulator.price("BTCEUR", "12345.75")
        visitor.row("BTCEUR").locator(".price.up").wait_for()
        assert price.text_content() == "12,345.75"
        assert price.locator(".moved").all_text_contents() == ["75"]
        assert visitor.row("BTCEUR").locator(".arrow").text_content() == "▲"
        simulator.price("BTCEUR", "12344.75")
        visitor.row("BTCEUR").locator(".price.down").wait_for()
        expect(price).not_to_have_class(re.compile("up|down"))  # The mark fades.


def test_the_days_figures_follow_the_price(visitor: Visitor, pluto: Pluto, simulator: Simulator) -> None:
    simulator.rate("APTEUR", 0)
    with tracked(pluto, "APTEUR"):
        visitor.open()
        visitor.wait_for("APTEUR", "live")
        row = visitor.row("APTEUR")
        expect(row.locator("[data-part=volume]")).not_to_be_empty()
        simulator.price("APTEUR", "9876.5")
        expect(row.locator("[data-part=high]")).to_have_text(re.compile(r"^9,876\.50$"))
        expect(row.locator("[data-part=range]")).to_have_attribute("data-at", "1.000")


def test_a_removed_ticker_can_be_taken_back(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "VETEUR"):
        page = visitor.open()
        visitor.row("VETEUR").hover()
        visitor.row("VETEUR").get_by_role("button", name="Remove VETEUR").click()
        expect(visitor.row("VETEUR")).to_have_count(0)
        wait_until(lambda: pluto.http.get("/api/tickers/VETEUR").status_code == 404, what="removed at the server")
        page.get_by_role("button", name="Undo").click()
        expect(visitor.row("VETEUR")).to_be_visible()
        wait_until(lambda: pluto.http.get("/api/tickers/VETEUR").status_code == 200, what="back at the server")


# --- adding -----------------------------------------------------------------------------------------------------------


def test_several_are_added_at_once_and_what_is_refused_says_why(visitor: Visitor, pluto: Pluto) -> None:
    with removed_after(pluto, "KAVAEUR", "COINBASE:MKREUR"):
        page = visitor.open()
        expect(page.locator("#add-field")).to_be_focused()
        visitor.add("kavaeur, coinbase:mkreur; a:b:c")
        expect(visitor.row("KAVAEUR")).to_be_visible()
        expect(visitor.row("COINBASE:MKREUR")).to_be_visible()
        expect(page.locator("#add-error")).to_contain_text("A ticker is 1 to 32 letters")
        expect(page.locator("#add-field")).to_have_value("A:B:C")


def test_what_people_type_is_understood_or_answered_with_proposals(browser_page: Page) -> None:
    page = browser_page
    field, notices = page.locator("#add-field"), page.locator("#notices")
    rows = page.locator("price-row")
    with quote_server() as server:
        page.goto(server.url)
        page.locator("#connection[data-state=open]").wait_for()
        field.fill("btc/usdt")
        page.keyboard.press("Enter")
        expect(notices).to_contain_text("BTC/USDT is BTCUSDT here")
        field.fill("BINANCE:BTCUSDT")
        page.keyboard.press("Enter")
        expect(notices).to_contain_text("BTCUSDT is on the board already")
        expect(rows).to_have_count(1)
        field.fill("BTC")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Track BTCUSD", exact=True).click()
        expect(rows).to_have_count(2)
        expect(page.locator("#add-error")).to_be_empty()
        field.press_sequentially("ethere")
        page.get_by_role("option", name="ETHUSD Ethereum", exact=True).click()
        page.keyboard.press("Enter")
        expect(page.locator('price-row[data-ticker="ETHUSD"]')).to_be_visible()
        field.fill("adausd solusd")
        page.keyboard.press("Enter")
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


def _swipe(page: Page, row: Locator) -> None:
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
    grip, goal = row.locator(".grip").bounding_box(), onto.bounding_box()
    assert grip is not None
    assert goal is not None
    page.mouse.move(grip["x"] + 5, grip["y"] + 20)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, (grip["y"] + goal["y"]) / 2)
    page.mouse.move(grip["x"] + 5, goal["y"] - 5)
    page.mouse.up()


def test_what_the_server_refuses_is_shown_in_its_words(visitor: Visitor) -> None:
    page = visitor.open()
    refusal = {"success": False, "code": "too_many_tickers", "message": "At most 50 tickers; remove one first."}
    page.route("**/api/tickers", lambda route: route.fulfill(status=409, json=refusal))
    visitor.add("SNXEUR")
    expect(page.locator("#add-error")).to_have_text("At most 50 tickers; remove one first.")
    expect(visitor.row("SNXEUR")).to_have_count(0)


def test_the_field_offers_what_was_tracked_before(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "SANDEUR"):
        page = visitor.open()
        expect(visitor.row("SANDEUR")).to_be_visible()
        pluto.remove("SANDEUR")
        expect(visitor.row("SANDEUR")).to_have_count(0)
        page.locator("#add-field").press_sequentially("ndeu")
        expect(page.get_by_role("listbox").get_by_role("option")).to_have_text(["SANDEUR"])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#add-field")).to_have_value("SANDEUR")
        page.keyboard.press("Enter")
        expect(visitor.row("SANDEUR")).to_be_visible()


# --- truth on screen --------------------------------------------------------------------------------------------------


def test_trouble_is_said_in_words(visitor: Visitor) -> None:
    visitor.open()
    for ticker, state, words in [("PAGENONE", "not_found", "not found"), ("XMREUR", "stale", "stale")]:
        visitor.wait_for(ticker, state)
        expect(visitor.row(ticker).locator(".state")).to_have_text(words)
    expect(visitor.row("PAGENONE").locator(".price")).to_have_text("—")
    expect(visitor.row("PAGENONE").locator(".c-reason")).to_contain_text("no such symbol")
    expect(visitor.row("XMREUR").locator(".age")).to_have_text(re.compile(r"since \d\d:\d\d"))
    expect(visitor.row("XMREUR").locator(".price")).to_have_css("text-decoration-line", "line-through")


def test_a_bot_wall_is_said_in_words_with_the_next_try(browser_page: Page, simulator: Simulator) -> None:
    """With a Pluto of its own: one refusal slows down every page opened later."""
    simulator.fault("ETCEUR", "bot_wall")
    with running_pluto("--source-url", simulator.url, "--tickers", "ETCEUR") as pluto:
        browser_page.goto(pluto.url)
        row = browser_page.locator("price-row[data-state=blocked]")
        row.wait_for(timeout=SLOW_MS)
        expect(row.locator(".state")).to_have_text("blocked")
        expect(row.locator(".c-reason")).to_contain_text(re.compile(r"Next try in \d+ (s|min)"))
    simulator.clear("ETCEUR")


def test_simulated_prices_are_labelled(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "HBAREUR"):
        page = visitor.open()
        visitor.wait_for("HBAREUR", "live")
        expect(page.locator("#simulated-badge")).to_be_visible()
        expect(page).to_have_title(re.compile(r"^SIMULATED · "))


def test_the_title_shows_the_first_price(visitor: Visitor, pluto: Pluto, simulator: Simulator) -> None:
    with tracked(pluto, "1000SATSEUR"):
        simulator.price("1000SATSEUR", "0.00000812")
        page = visitor.open()
        expect(page).to_have_title(re.compile(r"[▲▼] 0\.00000812 1000SATSEUR"), timeout=SLOW_MS)
        expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))


def test_an_empty_board_offers_tickers_to_begin_with(browser_page: Page) -> None:
    with quote_server() as server:
        browser_page.goto(server.url)
        expect(browser_page.locator("#empty")).to_be_visible()
        browser_page.get_by_role("button", name="ETHUSD").click()
        expect(browser_page.locator('price-row[data-ticker="ETHUSD"][data-state=starting]')).to_be_visible()
        expect(browser_page.locator("#empty")).to_be_hidden()


def test_fifty_tickers_change_without_anything_moving(browser_page: Page) -> None:
    tickers = [f"COIN{number:02}" for number in range(50)]
    with quote_server() as server:
        server.track(*tickers)
        server.put(*((ticker, "live", "0.00000812") for ticker in tickers))
        browser_page.goto(server.url)
        expect(browser_page.locator("price-row[data-state=live]")).to_have_count(50)
        expect(_price(browser_page, "COIN49")).to_have_text("0.00000812")
        places = """() => [...document.querySelectorAll("price-row, .price")].slice(0, 16).map((element) => {
            const { left, top, width, height } = element.getBoundingClientRect();
            return [left, top, width, height].map(Math.round);
        })"""
        before = browser_page.evaluate(places)
        server.put(*((ticker, "live", "0.00001111") for ticker in tickers))
        expect(_price(browser_page, "COIN49")).to_have_text("0.00001111")
        assert browser_page.evaluate(places) == before


def test_the_page_outlives_a_restart_of_pluto(browser_page: Page, simulator: Simulator) -> None:
    page, options = browser_page, ("--source-url", simulator.url, "--tickers", "RUNEEUR")
    with running_pluto(*options) as pluto:
        page.goto(pluto.url)
        live = page.locator('price-row[data-ticker="RUNEEUR"][data-state=live]')
        live.wait_for(timeout=SLOW_MS)
        page.evaluate("document.never = 'reloaded'")
        pluto.process.send_signal(signal.SIGTERM)
        page.locator("#connection[data-state=closed]").wait_for()
        expect(page.locator("price-row")).to_have_attribute("data-state", "stale")
        expect(page.locator("#outage")).to_contain_text(OUTAGE)
        expect(page.locator("#outage")).to_contain_text(re.compile(r"Trying again in \d+ s|Trying now"))
        expect(page).to_have_title(re.compile("Not connected"))
    with running_pluto(*options, "--port", str(urlsplit(pluto.url).port)):
        page.locator("#connection[data-state=open]").wait_for(timeout=SLOW_MS)
        live.wait_for(timeout=SLOW_MS)
        expect(page.locator("#outage")).to_be_hidden()
        assert page.evaluate("document.never") == "reloaded"


def test_try_now_does_not_wait_for_the_countdown(visitor: Visitor) -> None:
    page = visitor.page
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # No countdown ends by itself.
    page.add_init_script("delete window.SharedWorker")  # a worker's clock can't be stopped
    page.route_web_socket("**/api/ws*", lambda socket: socket.close())  # then it tries server-sent events
    page.goto(visitor.pluto.url)
    page.locator("#connection[data-state=closed]").wait_for()
    page.get_by_role("button", name="Try now").click()
    page.locator("#connection[data-state=open]").wait_for()


# --- the detail view --------------------------------------------------------------------------------------------------


def test_a_row_opens_its_details(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "ARBEUR"):
        page = visitor.open()
        scripts = _requests(page, "lightweight-charts")
        visitor.wait_for("ARBEUR", "live")
        assert scripts == []
        visitor.row("ARBEUR").get_by_role("button", name="ARBEUR", exact=True).click()
        sheet = page.get_by_role("dialog", name="ARBEUR")
        expect(sheet.locator("[data-part=source]")).to_be_visible()
        expect(sheet.locator("[data-part=changes] li").first).to_be_visible()
        link = sheet.get_by_role("link", name="Open on TradingView")
        expect(link).to_have_attribute("href", "https://www.tradingview.com/symbols/ARBEUR/?exchange=BINANCE")
        expect(sheet.locator("canvas").first).to_be_visible()
        expect(sheet.locator(".nochart")).to_be_hidden()
        assert len(scripts) == 1
        page.keyboard.press("Escape")
        expect(sheet).to_be_hidden()
        expect(visitor.row("ARBEUR")).to_be_focused()


def test_the_details_tell_why_and_a_ticker_that_waits_can_be_tried(visitor: Visitor) -> None:
    page = visitor.open("?tickers=PAGENONE")
    visitor.wait_for("PAGENONE", "not_found")
    visitor.row("PAGENONE").get_by_role("button", name="Try now").click()
    expect(page.locator("#notices")).to_contain_text("PAGENONE")
    visitor.row("PAGENONE").locator(".open").click()
    page.get_by_text("Why?").click()
    expect(page.locator(".whys")).to_contain_text(
        re.compile(r"State.*not found.*HTTP 404.*loaded", re.S), timeout=SLOW_MS
    )


def test_without_the_chart_the_details_say_so(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "GRTEUR"):
        page = visitor.open()
        page.route("**/vendor/*", lambda route: route.fulfill(status=404))
        visitor.row("GRTEUR").click(position={"x": 4, "y": 4})
        expect(page.locator(".nochart")).to_be_visible()


# --- habits -----------------------------------------------------------------------------------------------------------


def test_the_keyboard_does_everything(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "1000SATSEUR", "1000SATSUSDC"):
        page = visitor.open()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        visitor.wait_for("1000SATSUSDC", "live")
        page.keyboard.press("ArrowDown")
        expect(visitor.row("1000SATSEUR")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(visitor.row("1000SATSUSDC")).to_be_focused()
        page.keyboard.press("c")
        expect(page.locator("#notices")).to_contain_text("Copied")
        assert re.fullmatch(r"\d+(\.\d+)?", page.evaluate("navigator.clipboard.readText()"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="1000SATSUSDC")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("Delete")
        expect(visitor.row("1000SATSUSDC")).to_have_count(0)
        page.keyboard.press("u")
        expect(visitor.row("1000SATSUSDC")).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        expect(page.locator("#add-field")).to_be_focused()


def test_a_click_on_a_price_copies_it_and_share_copies_the_address(
    visitor: Visitor, pluto: Pluto, simulator: Simulator
) -> None:
    with tracked(pluto, "EOSEUR", "XTZEUR"):
        simulator.price("EOSEUR", "1234.5678")
        page = visitor.open("?tickers=EOSEUR,XTZEUR")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        price = visitor.row("EOSEUR").locator(".price")
        expect(price).to_have_text("1,234.5678", timeout=SLOW_MS)
        price.click()
        expect(page.locator("#notices")).to_contain_text("Copied 1234.5678")
        assert page.evaluate("navigator.clipboard.readText()") == "1234.5678"
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Copy a link to these tickers").click()
        expect(page.locator("#notices")).to_contain_text("Link to these tickers copied")
        assert page.evaluate("navigator.clipboard.readText()") == f"{pluto.url}/?tickers=EOSEUR,XTZEUR"


def test_sorting_by_change_puts_the_highest_first(visitor: Visitor, pluto: Pluto, simulator: Simulator) -> None:
    tickers = ["ADAEUR", "BCHEUR", "DOTEUR"]
    with tracked(pluto, *tickers):
        for ticker in tickers:
            pluto.wait_for(ticker, "live")
            simulator.rate(ticker, 0)
        page = visitor.open(f"?tickers={','.join(tickers)}")
        for ticker in tickers:
            visitor.wait_for(ticker, "live")
        page.get_by_role("columnheader", name="24 h change").get_by_role("button").click()
        changes = {ticker: pluto.quote(ticker)["changePercent"] for ticker in tickers}
        falling = sorted(tickers, key=lambda ticker: -changes[ticker])
        wait_until(lambda: page.evaluate("1") and visitor.tickers == falling, what=f"{falling} in this order")
        page.get_by_role("button", name="24 h change").click()
        wait_until(lambda: page.evaluate("1") and visitor.tickers == falling[::-1], what="the lowest first")
        expect(page.get_by_role("columnheader", name="24 h change")).to_have_attribute("aria-sort", "ascending")
        page.get_by_label("Sort by").select_option("A–Z")
        wait_until(lambda: page.evaluate("1") and visitor.tickers == tickers, what="alphabetical again")


def test_a_screen_reader_hears_a_summary_every_10_seconds_and_no_tick(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "FILEUR"):
        page = visitor.page
        page.clock.install()
        visitor.open("?tickers=FILEUR")
        visitor.wait_for("FILEUR", "live")
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
        page.clock.run_for(10_000)
        wait_until(lambda: page.evaluate("spoken.length"), what="a summary")
        assert re.match(r"1 ticker: [01] up, [01] down\. FILEUR \d", page.evaluate("spoken[0]"))
        assert page.evaluate("spoken.length") <= 2


def test_reduced_motion_is_honoured(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "CRVEUR"), removed_after(pluto, "COMPEUR"):
        visitor.page.emulate_media(reduced_motion="reduce")
        page = visitor.open()
        visitor.wait_for("CRVEUR", "live")
        page.evaluate("""() => {
            window.moving = 0;
            const look = () => { moving += document.getAnimations().length; requestAnimationFrame(look); };
            look();
        }""")
        visitor.add("COMPEUR")
        visitor.wait_for("COMPEUR", "live")
        page.get_by_role("button", name="Keys").click()
        assert page.evaluate("moving") == 0


def test_theme_density_and_sort_are_remembered(visitor: Visitor) -> None:
    page = visitor.open()
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


def test_an_address_shows_its_tickers_and_adds_none_by_itself(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "THETAEUR", "SEIEUR"), removed_after(pluto, "TIAEUR"):
        page = visitor.open("?tickers=THETAEUR,TIAEUR")
        expect(visitor.row("THETAEUR")).to_be_visible()
        assert visitor.tickers == ["THETAEUR"]
        assert pluto.http.get("/api/tickers/TIAEUR").status_code == 404
        page.get_by_role("button", name="Track TIAEUR").click()
        expect(visitor.row("TIAEUR")).to_be_visible()
        page.get_by_role("button", name="Show all").click()
        expect(visitor.row("SEIEUR")).to_be_visible()
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visitor: Visitor, pluto: Pluto, scheme: str) -> None:
    with tracked(pluto, "AAVEEUR"):
        visitor.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page = visitor.open()
        visitor.wait_for("AAVEEUR", "live")
        board = Axe().run(page)
        assert board.violations_count == 0, board.generate_report()
        visitor.row("AAVEEUR").get_by_role("button", name="AAVEEUR", exact=True).click()
        expect(page.get_by_role("dialog", name="AAVEEUR")).to_be_visible()
        sheet = Axe().run(page)
        assert sheet.violations_count == 0, sheet.generate_report()


def test_a_phone_needs_no_scrolling_sideways(visitor: Visitor, pluto: Pluto) -> None:
    with tracked(pluto, "1000SATSUSDC"):
        visitor.page.set_viewport_size({"width": 360, "height": 740})
        page = visitor.open()
        visitor.wait_for("1000SATSUSDC", "live")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        visitor.row("1000SATSUSDC").click(position={"x": 4, "y": 4})
        expect(page.get_by_role("dialog", name="1000SATSUSDC")).to_be_visible()
        assert page.evaluate("document.querySelector('dialog[open]').scrollWidth") <= 360


# --- light, and closed to the outside ---------------------------------------------------------------------------------


def test_the_first_view_is_light_and_comes_from_one_place(browser_page: Page, pluto: Pluto) -> None:
    with tracked(pluto, "STXEUR"):
        responses: list[Response] = []
        browser_page.add_init_script(FIRST_PRICE_SPY)
        browser_page.on("response", lambda response: responses.append(response))
        browser_page.goto(pluto.url)
        browser_page.locator('price-row[data-ticker="STXEUR"][data-state=live]').wait_for(timeout=SLOW_MS)
        browser_page.locator("alert-list").wait_for(state="attached")
        after = set(browser_page.evaluate("after()"))
        assert {f"{pluto.url}/static/{name}" for name in ("alerting.js", "alerts.css", "alerts.html")} < after
        files = [response for response in responses if "/api/" not in response.url and response.url not in after]
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


def test_a_price_is_written_with_every_digit_and_cut_into_runs(visitor: Visitor) -> None:
    page = visitor.blank()
    runs = page.evaluate("""async () => {
        const { priceRuns, priceWords } = await import("/static/format.js");
        return [["65123.45", "65119.45"], ["0.00000812", "0.00000811"], ["100000", "99999"],
            ["12345678901234.5678", ""]].map(([text, before]) => priceRuns(priceWords(text), priceWords(before)));
    }""")
    written = ["".join(run["text"] for run in price) for price in runs]
    assert written == ["65,123.45", "0.00000812", "100,000", "12,345,678,901,234.5678"]
    assert [[run["text"] for run in price if run["moved"]] for price in runs] == [["23.45"], ["2"], ["100,000"], []]
    assert [run["text"] for run in runs[1] if run["faint"]] == ["0.00000"]


def test_a_moment_of_another_year_says_which(visitor: Visitor) -> None:
    words = visitor.blank().evaluate("""async () => {
        const { momentWords } = await import("/static/format.js");
        return [new Date(2099, 0, 1, 8), new Date().setHours(8, 0)].map(momentWords);
    }""")
    assert words[0] == "1 Jan 2099 08:00"
    assert re.fullmatch(r"\d{1,2} \w{3,4} 08:00", words[1])


def test_a_session_of_a_day_stays_bounded_and_in_order(visitor: Visitor) -> None:
    page = visitor.blank()
    session = page.evaluate("""async () => {
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
