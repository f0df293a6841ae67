"""The page in a real Chromium, with what Pluto has kept: the last 24 hours in the rows, the chart, its export."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect
from running import QuoteServer, quote_server, wait_until
from stores import BTC, write_past

from quotes import State

MINUTE = 60_000
MISSING = (20 * 60, 17 * 60)  # minutes ago, between which nothing was recorded
STILL = (9 * 60, 8 * 60)  # the price stood still
BELOW = [f"COIN{number:02}" for number in range(30)]  # tickers of rows most of which are out of sight
SPY = """() => {
    window.drawn = [];  // each call that draws on a chart: ["setData", bars] or ["update", bar]
    let charts;
    Object.defineProperty(window, "LightweightCharts", { get: () => charts, set(library) {
        const spied = (series) => {
            for (const name of ["setData", "update"]) {
                const draw = series[name].bind(series);
                series[name] = (what, ...more) => { drawn.push([name, structuredClone(what)]); draw(what, ...more); };
            }
            return series;
        };
        charts = { ...library, createChart(...places) {
            const chart = library.createChart(...places), add = chart.addSeries.bind(chart);
            chart.addSeries = (...looks) => spied(add(...looks));
            return chart;
        } };
    } });
}"""


def past() -> Iterator[tuple[int, State, str]]:
    """A price each half minute for 30 hours, up to now, with a gap and a stand-still."""
    now = round(time.time() * 1000)
    for half in range(60 * 60, 0, -1):
        ago = half / 2
        if ago == MISSING[0]:
            yield now - half * MINUTE // 2, State.STALE, "100.00"
        elif not (MISSING[0] > ago > MISSING[1] or STILL[0] > ago > STILL[1]):
            yield now - half * MINUTE // 2, State.LIVE, f"{100 + half % 17 / 10:.2f}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_past(folder, {BTC: past()})
    return folder


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[QuoteServer]:
    with quote_server("--data", str(data)) as server:
        server.put(("BTCUSD", "live", "101.00"))
        yield server


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Asia/Kolkata")
    context.add_init_script(f"({SPY})()")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """What the user has chosen is still chosen where the server is the same."""
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert faults == []


def asked(source: Page | BrowserContext) -> list[str]:
    """The questions about history from now on, as ticker?query."""
    questions: list[str] = []

    def note(request: Request) -> None:
        if match := re.search(r"/api/tickers/(.+)/history(.*)", request.url):
            questions.append("".join(match.groups()))

    source.on("request", note)
    return questions


def open_details(page: Page, server: QuoteServer) -> None:
    page.goto(server.url)
    page.locator('price-row[data-ticker="BTCUSD"][data-state=live]').click(position={"x": 4, "y": 4})
    page.locator("canvas").first.wait_for()


def last_bars(page: Page) -> list[dict[str, Any]]:
    """What the newest setData drew."""
    bars: list[dict[str, Any]] = page.evaluate('drawn.findLast(([name]) => name === "setData")[1]')
    return bars


def steps(bars: list[dict[str, Any]]) -> set[int]:
    """The distances between bars, in s."""
    return {bar["time"] - before["time"] for before, bar in pairwise(bars)}


def test_rows_in_sight_show_24_hours_and_go_on_live(page: Page, server: QuoteServer) -> None:
    server.http.put("/api/watchlist", json={"tickers": ["BTCUSD", *BELOW]}).raise_for_status()
    questions = asked(page)
    page.goto(server.url)
    trend = page.locator('price-row[data-ticker="BTCUSD"] spark-line')
    expect(trend).to_have_attribute("aria-label", "Last 24 h")
    assert questions.count("BTCUSD?interval=15m&since=24h&limit=100") == 1
    first_view = page.wait_for_function("""() => {
        const [first] = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/history"));
        return first && [first.startTime, performance.getEntriesByType("navigation")[0].loadEventStart];
    }""")
    asked_at, loaded_at = first_view.json_value()
    assert asked_at >= loaded_at, "nothing is asked before it"
    assert trend.locator("path").get_attribute("d").count("M") == 2, "the gap is empty"  # type: ignore[union-attr]
    before = trend.locator("path").get_attribute("d")
    server.put(("BTCUSD", "live", "109.00"))
    expect(trend.locator("path")).not_to_have_attribute("d", before or "")
    assert not any(BELOW[-1] in question for question in questions)
    page.locator(f'price-row[data-ticker="{BELOW[-1]}"]').scroll_into_view_if_needed()
    wait_until(lambda: page.evaluate("1") and any(BELOW[-1] in question for question in questions), what="asked for")
    server.http.put("/api/watchlist", json={"tickers": ["BTCUSD"]}).raise_for_status()


def test_without_a_store_all_is_of_this_session(page: Page) -> None:
    with quote_server() as server:
        server.track("BTCUSD", "ETHUSD")
        questions = asked(page)
        server.put(("BTCUSD", "live", "101.00"))
        page.goto(server.url)
        server.put(("BTCUSD", "live", "102.00"))
        trend = page.locator('price-row[data-ticker="BTCUSD"] spark-line')
        wait_until(lambda: page.evaluate("1") and questions, what="asked for")
        for step in range(100):  # a line takes prices of two seconds
            server.put(("BTCUSD", "live", f"{103 + step}"))
            if "This session" in (trend.get_attribute("aria-label") or ""):
                break
            page.wait_for_timeout(100)
        expect(trend).to_have_attribute("aria-label", re.compile("^This session, "))
        page.locator('price-row[data-ticker="BTCUSD"]').click(position={"x": 4, "y": 4})
        page.locator("canvas").first.wait_for()
        expect(page.get_by_role("group", name="Interval")).to_be_hidden()
        expect(page.get_by_role("link", name="Export CSV")).to_be_hidden()
        assert len(questions) <= 3, "two rows at once, and the chart"


def test_the_chart_reads_back_marks_gaps_and_draws_the_open_candle(page: Page, server: QuoteServer) -> None:
    server.put(("BTCUSD", "live", "101.00"))
    open_details(page, server)
    questions = asked(page)
    page.get_by_role("button", name="15 minutes").click()
    wait_until(lambda: page.evaluate("1") and "BTCUSD?interval=15m&limit=300" in questions, what="asked for")
    chart = page.locator("price-chart .chart")
    expect(chart).to_have_attribute("aria-label", re.compile(r"from \d.* to 101\.00, with \d+ gaps?$"))
    wait_until(lambda: steps(last_bars(page)) == {900}, what="a quarter of an hour each")
    bars = last_bars(page)
    assert 10 <= len([bar for bar in bars if "open" not in bar]) <= 12, "three hours of nothing"
    assert len([bar for bar in bars if "open" in bar and bar["high"] == bar["low"]]) >= 3

    page.get_by_role("button", name="1 day").click()
    wait_until(lambda: len(last_bars(page)) <= 3, what="the days")
    calls = page.evaluate("drawn.length")
    legend = page.locator("price-chart .legend")
    for price in ("103.00", "120.00", "99.00", "104.50"):
        server.put(("BTCUSD", "live", price))
        expect(legend).to_contain_text(f"C\u00a0{price}")
    expect(legend).to_contain_text(re.compile(r"H.120\.00\s+L.99\.00"))
    since = page.evaluate(f"drawn.slice({calls}).map(([name]) => name)")
    assert since == ["update"] * len(since), "a price draws its candle, and nothing anew"

    page.get_by_role("button", name="1 minute").click()
    wait_until(lambda: len(last_bars(page)) >= 300, what="the minutes")
    first = last_bars(page)[0]["time"]
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    for _ in range(5):
        page.mouse.wheel(-3000, 0)
    wait_until(lambda: last_bars(page)[0]["time"] < first, what="the past as one scrolls")
    assert any("cursor=b" in question for question in questions)

    page.get_by_role("button", name="Line").click()
    wait_until(lambda: "value" in last_bars(page)[-1], what="a line")
    page.emulate_media(reduced_motion="reduce")
    seen = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "best-practice"]})
    assert seen.violations_count == 0, seen.generate_report()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    assert download.value.suggested_filename == "BTCUSD 1m.csv"
    assert download.value.path().read_text().startswith("start,open,high,low,close,count,gap,isOpen,simulated")
    open_details(page, server)
    expect(page.get_by_role("button", name="1 minute")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Line")).to_have_attribute("aria-pressed", "true")


def test_what_was_missed_is_read_when_the_connection_is_back(page: Page, tmp_path: Path) -> None:
    write_past(tmp_path, {BTC: past()})
    with quote_server("--data", str(tmp_path)) as server:
        server.put(("BTCUSD", "live", "101.00"))
        open_details(page, server)
        page.get_by_role("button", name="1 day").click()
        legend = page.locator("price-chart .legend")
        expect(legend).to_contain_text("C\u00a0101.00")
        server.process.kill()
        page.locator("#outage:not([hidden])").wait_for(state="attached")
        page.keyboard.press("Escape")
        page.locator("price-row").click(position={"x": 4, "y": 4})
        expect(page.locator("price-chart")).to_contain_text("Since this page was opened. Pluto doesn't answer.")
        expect(page.locator("canvas").first).to_be_visible()
    with quote_server("--data", str(tmp_path), "--port", str(server.port)) as again:
        for price in ("777.00", "102.00"):
            again.put(("BTCUSD", "live", price))
        wait_until(lambda: "777.00" in again.http.get("/api/tickers/BTCUSD/history?limit=9").text)
        page.evaluate("document.querySelector('#outage button').click()")  # the sheet is before it
        expect(legend).to_contain_text(re.compile(r"H.777\.00.*C.102\.00"), timeout=15_000)
        again.untrack("BTCUSD")
        expect(page.locator("ticker-detail dialog")).to_be_hidden()
        again.track("ETHUSD")
        again.put(("ETHUSD", "live", "5.00"))
        page.locator('price-row[data-ticker="ETHUSD"][data-state=live]').click(position={"x": 4, "y": 4})
        expect(legend).to_contain_text("C\u00a05.00")


def test_candles_follow_the_store_and_then_the_stream(page: Page, server: QuoteServer) -> None:
    page.goto(server.url + "/livez")
    told = page.evaluate("""async () => {
        const { Candles } = await import("/static/candles.js");
        const minute = (at, price, gap = false) =>
            ({ start: at * 60_000, open: price, high: price, low: price, close: price, gap });
        const candles = new Candles(60_000);
        const words = ({ candle, isFlat, ends }) =>
            candle ? `${candle.high}/${candle.low}/${candle.close}${isFlat ? "=" : ""}${ends ? "|" : ""}` : "-";
        const shown = () => candles.slots().map(words).join(" ");
        candles.take([minute(1, "1.0"), minute(4, "2.0"), minute(6, "3.0", true)], 370_000);
        const first = shown();
        candles.hear(380_000, "3.5");
        candles.take([minute(6, "3.2")], 375_000, 360_000);  // it was asked before the stream said more
        const joined = shown();
        candles.take([minute(6, "3.2"), minute(7, "4.0")], 430_000, 360_000);
        const replaced = shown();
        candles.hear(500_000, "5.0");
        candles.prepend([minute(0, "0.5")]);
        const lost = [candles.lose(501_000).length, candles.newest.gap, candles.lose(502_000).length];
        const month = new Candles(60_000);
        month.take([minute(0, "1.0"), minute(43_200, "2.0", true)], 0);
        return { first, joined, replaced, last: shown(), month: month.slots().length, lost };
    }""")
    begin = "1.0/1.0/1.0 1.0/1.0/1.0= 1.0/1.0/1.0= 2.0/2.0/2.0| -"
    assert told == {
        "first": f"{begin} 3.0/3.0/3.0",
        "joined": f"{begin.replace('| -', ' 2.0/2.0/2.0=')} 3.5/3.0/3.5",
        "replaced": f"{begin.replace('| -', ' 2.0/2.0/2.0=')} 3.2/3.2/3.2 4.0/4.0/4.0",
        "last": f"0.5/0.5/0.5 {begin.replace('| -', ' 2.0/2.0/2.0=')} 3.2/3.2/3.2 4.0/4.0/4.0 5.0/5.0/5.0",
        "month": 302,
        "lost": [1, True, 0],
    }
