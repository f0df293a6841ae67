"""Walls are judged in their order, told in words, never got round, and asked as seldom as it says.

The simulator serves them; the scraper runs in this process with a real Chromium.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from running import Simulator, running_simulator, wait_until
from scraping import LESS_PATIENT, Watched, scraping

from quotes import Quote, State, Ticker, steady_ms
from tradingview.feed import Feed, PageTrouble
from tradingview.loop import Loop
from tradingview.origins import may_lead, origin_of
from tradingview.patience import Patience
from tradingview.site import CHALLENGES
from tradingview.tab import Tab, new_context
from tradingview.walls import Wall, is_challenge, judge_document, judge_response, retry_after

# --- judgement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "state", "reason"),
    [
        (200, {}, None, ""),
        (302, {}, None, ""),
        (404, {"cf-mitigated": "challenge"}, State.NOT_FOUND, "no such symbol"),
        (503, {"cf-mitigated": "challenge"}, State.ERROR, "HTTP 503"),
        (403, {}, State.BLOCKED, "HTTP 403"),
        (405, {}, State.BLOCKED, "HTTP 405"),
        (429, {}, State.BLOCKED, "HTTP 429"),
        (400, {}, State.ERROR, "HTTP 400"),
        (200, {"cf-mitigated": "challenge"}, State.BLOCKED, "cf-mitigated"),
        (200, {"x-amzn-waf-action": "captcha"}, State.BLOCKED, "x-amzn-waf-action"),
        (202, {"x-amzn-waf-action": "challenge"}, None, "it may lead on by itself"),
    ],
)
def test_a_response_is_judged_in_order(status: int, headers: dict[str, str], state: State | None, reason: str) -> None:
    trouble = judge_response(status, headers)
    assert (None if trouble is None else trouble.state) is state
    assert trouble is None or reason in trouble.reason


TITLES = ["Just a moment...", "Verify you are human", " \u202aJust a moment…", "Attention Required! | Cloudflare"]


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"title": "BTC USD — Bitcoin Price and Chart — TradingView", "symbol": True}, None),
        ({"title": "Sign in", "symbol": True, "check": True}, None),  # a captcha beside a symbol's page is no wall
        ({"title": "www.tradingview.com"}, None),  # not yet: its script may still run
        ({"title": "www.tradingview.com", "check": True}, State.BLOCKED),
        *(({"title": title}, State.BLOCKED) for title in [*TITLES, "Just one more step"]),
        ({"title": "Page not found — TradingView"}, State.NOT_FOUND),
        ({"title": "Just a moment...", "notFound": True}, State.NOT_FOUND),
        ({"title": 5, "symbol": "yes", "check": 1}, None),
    ],
)
def test_a_document_is_judged_by_what_it_is(facts: dict[str, Any], state: State | None) -> None:
    trouble = judge_document(facts)
    assert (None if trouble is None else trouble.state) is state


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("120", 120, 120), ("0", 1, 1), ("999999", 3600, 3600), ("Thu, 01 Jan 2015 00:00:00 GMT", 1, 1)],
)
def test_retry_after_is_seconds_or_a_date(text: str, least: float, most: float) -> None:
    assert least <= (retry_after(text) or 0) <= most


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "Thu, 99 Jan 2015 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_ignored(text: str) -> None:
    assert retry_after(text) is None


@pytest.mark.parametrize(
    ("source", "target", "may"),
    [
        ("https://www.tradingview.com", "https://www.tradingview.com/symbols/BTCUSD/", True),
        ("https://WWW.TradingView.com:443", "https://www.tradingview.com/", True),
        ("https://www.tradingview.com", "https://de.tradingview.com/", True),
        ("https://www.tradingview.com", "https://tradingview.com/", False),
        ("https://www.tradingview.com", "https://eviltradingview.com/", False),
        ("https://www.tradingview.com", "https://www.tradingview.com.evil.com/", False),
        ("https://www.tradingview.com", "https://evil.com/@www.tradingview.com/", False),
        ("https://www.tradingview.com", "http://www.tradingview.com/", False),
        ("https://www.tradingview.com", "https://www.tradingview.com:8443/", False),
        ("http://www.tradingview.com", "https://de.tradingview.com/", True),
        ("https://prices.example", "https://prices.example/x", True),
        ("https://prices.example", "https://de.prices.example/", False),
        ("https://www.prices.example", "https://de.prices.example/", True),
        ("https://www.prices.example", "https://a.de.prices.example/", False),
        ("https://www.prices.example", "https://prices.example/", False),
        ("https://www.prices.example:8443", "https://de.prices.example:8443/", True),
        ("https://www.prices.example:8443", "https://de.prices.example/", False),
        ("http://127.0.0.1:8090", "http://127.0.0.1:9/", False),
        ("http://127.0.0.1:8090", "http://127.0.0.1:99999/", False),
        ("http://127.0.0.1:8090", "file:///etc/passwd", False),
        ("http://127.0.0.1:8090", "data:text/html,gone", False),
        ("https://www.tradingview.com", "https://[oops", False),
    ],
)
def test_a_page_may_be_sent_to_its_site_only(source: str, target: str, may: bool) -> None:
    assert may_lead(origin_of(source), origin_of(target)) is may


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://challenges.cloudflare.com/cdn-cgi/challenge-platform/h/b/turnstile", True),
        ("https://newassets.hcaptcha.com/captcha/v1/x", True),
        ("https://0f3.edge.captcha.awswaf.com/x", True),
        ("https://www.google.com/recaptcha/api2/anchor?k=1", True),
        ("https://www.google.com/search?q=x", False),
        ("https://evil.com/challenges.cloudflare.com/", False),
        ("https://challenges.cloudflare.com.evil.com/", False),
        ("https://evilhcaptcha.com/", False),
        ("https://challenges.cloudflare.com:8443/", False),
    ],
)
def test_an_iframe_is_a_check_by_its_host_and_path(url: str, may: bool) -> None:
    assert is_challenge(url, CHALLENGES) is may


# --- in a browser that nobody looks at --------------------------------------------------------------------------------

DOCTOR = "a bot wall, or TradingView has changed its page: try ./run.sh doctor"
WALLS = {  # a ticker each: its fault, the reason, and how many page loads it may make in the time it is watched
    "BCHUSD": ("bot_wall", 'TradingView asks "Just a moment..."', 1),
    "VETUSD": ("wall_verify", 'TradingView asks "Verify you are human"', 1),
    "HBARUSD": ("wall_attention", 'TradingView asks "Attention Required! | Cloudflare"', 1),
    "TRXUSD": ("wall_one_more_step", 'TradingView asks "Just one more step"', 1),
    "SUIUSD": ("wall_robot", 'TradingView asks "Please confirm that you are not a robot"', 1),
    "ARBUSD": ("wall_cf_mitigated", "TradingView asks for a check (header cf-mitigated)", 1),
    "OPUSD": ("wall_waf_action", "TradingView asks for a check (header x-amzn-waf-action)", 1),
    "ETCUSD": ("wall_405", "TradingView refuses (HTTP 405)", 1),
    "TONUSD": ("wall_202", "TradingView asks for a check that doesn't pass by itself (HTTP 202)", 1),
    "FTMUSD": ("wall_reloads", 'TradingView asks "Just a moment..."', 3),
    "XMRUSD": ("wall_solvable", "TradingView refuses (HTTP 403)", 1),
    "GRTUSD": ("empty_document", DOCTOR, 1),
    "ICPUSD": ("forbidden", "TradingView refuses (HTTP 403)", 1),
    "SANDUSD": ("socket_refused", "TradingView refuses the page's quote socket (HTTP 429)", 1),
    "MANAUSD": ("socket_forbidden", "TradingView refuses the page's quote socket (HTTP 403)", 1),
}
MAX_SOCKETS = 3
STARTING_S = 40.0  # for a browser and its first page, on a slow machine
HALF = 0.5  # of the product's own times
WATCHED_S = 18.0  # a page that goes on has opened its socket more often than MAX_SOCKETS by then: every 5 s


@dataclass
class Walled:
    """What was told and counted until that time, in ms since the epoch."""

    at: float
    quotes: list[Quote]
    loads: dict[str, int]
    upgrades: dict[str, int]
    now: dict[str, Quote]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator("--weight", "0", "--heartbeat", "2", "--delays", str(HALF)) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def walling(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[Future[Walled]]:
    """What comes of all walls, once they have been watched for long: meanwhile this file's other tests run.

    They are beside one ticker that is live, one whose check passes by itself, and one that is sent to another site.
    """
    if not any("walled" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield Future()  # no test asks for it
        return
    patience = replace(
        Patience(),
        passing=HALF * Patience.passing,
        leisurely=HALF * Patience.leisurely,
        recognised=HALF * Patience.recognised,
        blocked_retry=HALF * Patience.blocked_retry,
        blocked_spacing=0.1,
        spacing_limit=0.1,
    )
    for ticker, (fault, *_) in WALLS.items():
        simulator.fault(ticker, fault)
    simulator.fault("UNIUSD", "wall_202_passes")
    simulator.fault("ZECUSD", "redirects_away")
    with (
        scraping(simulator.url, patience) as watched,
        watched.tracking("BTCUSD"),
        ThreadPoolExecutor(1) as thread,
    ):
        watched.wait_until_live("BTCUSD", timeout=STARTING_S)
        yield thread.submit(watch_walls, watched, simulator)


def watch_walls(watched: Watched, simulator: Simulator) -> Walled:
    began = time.monotonic()
    with watched.tracking("UNIUSD", "ZECUSD", *WALLS):
        for ticker in WALLS:
            watched.wait_for(ticker, State.BLOCKED, timeout=60)
        watched.wait_until_live("UNIUSD")
        watched.wait_for("ZECUSD", State.ERROR)
        time.sleep(max(0.0, began + WATCHED_S - time.monotonic()))
        counts = simulator.pages()
        now = time.time() * 1000
        return Walled(now, list(watched.quotes), counts["loads"], counts["upgrades"], dict(watched.now))


@pytest.fixture(scope="module")
def walled(walling: Future[Walled]) -> Walled:
    return walling.result()


# --- a person at the window -------------------------------------------------------------------------------------------


@dataclass
class Window:
    """A tab alone, without the scraper, as a headed browser has it; what was told of it."""

    tab: Tab
    troubles: list[PageTrouble]

    @property
    def page(self) -> Page:
        assert self.tab.page is not None
        return self.tab.page

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < deadline, f"not within 40 s; {self.troubles}, {self.tab.counters}"
            self.page.wait_for_timeout(50)

    def is_live(self) -> bool:
        self.tab.feed.choose(steady_ms(), time.time() * 1000)
        return self.tab.feed.quote(steady_ms()).state is State.LIVE


@contextmanager
def window(simulator: Simulator, browser: Browser, *challenges: str) -> Iterator[Window]:
    counters: Counter[str] = Counter()
    troubles: list[PageTrouble] = []
    tab = Tab(
        Feed(Ticker("LTCUSD"), simulated=True, counters=counters),
        simulator.url,
        Loop(),
        on_message=lambda tab, message: None,
        on_trouble=lambda tab, trouble: troubles.append(trouble),
        counters=counters,
        is_headed=True,
        is_slim=False,
        challenges=challenges or CHALLENGES,
    )
    context = new_context(browser, simulator.url)
    simulator.fault("LTCUSD", "wall_solvable")
    try:
        tab.open(context)
        yield Window(tab, troubles)
    finally:
        simulator.clear("LTCUSD")
        tab.close()
        context.close()


ADD_IFRAME = "url => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }"


@pytest.mark.usefixtures("walling")
def test_a_person_may_solve_the_check_in_the_window(simulator: Simulator, browser: Browser) -> None:
    port = simulator.url.rpartition(":")[2]
    check = f"localhost:{port}/challenge-frame"
    with window(simulator, browser, check) as shown:
        counters = shown.tab.counters
        shown.wait_until(lambda: shown.page.title() == "Just a moment...")
        assert isinstance(shown.tab.wall, Wall)
        shown.wait_until(lambda: any(check in frame.url for frame in shown.page.frames))
        frame = next(frame for frame in shown.page.frames if check in frame.url)
        assert frame.evaluate("typeof window.plutoProbe") == "undefined"
        assert counters["challenge_iframes"] >= 1
        shown.page.evaluate(ADD_IFRAME, f"http://localhost:{port}/robots.txt")
        shown.wait_until(lambda: counters["iframes_refused"] >= 1)
        assert not shown.is_live()
        frame.click("#solve")
        shown.wait_until(shown.is_live)
        assert shown.tab.wall is None
        assert (counters["walls_passed"], len(shown.troubles)) == (1, 1), "it was told once, and the page kept"
        let_through, refused = counters["challenge_iframes"], counters["iframes_refused"]
        shown.page.evaluate(ADD_IFRAME, f"http://{check}")
        shown.wait_until(lambda: counters["iframes_refused"] > refused)
        assert counters["challenge_iframes"] == let_through, "only while the wall shows"


@pytest.mark.usefixtures("walling")
def test_an_iframe_of_a_wall_from_an_unknown_host_is_refused(simulator: Simulator, browser: Browser) -> None:
    with window(simulator, browser) as shown:
        shown.wait_until(lambda: shown.tab.counters["iframes_refused"] >= 1)
        assert shown.tab.counters["challenge_iframes"] == 0


SHOW_IMAGE = "() => document.body.append(Object.assign(new Image(), { id: 'image', src: '/favicon.ico' }))"
LOOK = "() => [getComputedStyle(document.body).display, document.getElementById('image').naturalWidth > 0]"


@pytest.mark.usefixtures("walling", "display")
def test_in_windows_pluto_goes_on_when_a_check_is_solved_or_a_walls_time_has_come(simulator: Simulator) -> None:
    """In the same windows, which show the pages as they are."""
    port = simulator.url.rpartition(":")[2]
    challenges = (f"localhost:{port}/challenge-frame",)
    simulator.fault("SOLUSD", "wall_solvable")
    simulator.fault("ADAUSD", "bot_wall")
    patience = replace(LESS_PATIENT, blocked_retry=1.5)
    with (
        scraping(simulator.url, patience, headed=True, challenges=challenges) as watched,
        watched.tracking("SOLUSD", "ADAUSD"),
    ):
        watched.wait_for("SOLUSD", State.BLOCKED, STARTING_S, reason="TradingView refuses (HTTP 403)")
        watched.wait_for("ADAUSD", State.BLOCKED, reason="Just a moment")
        page = watched.tab("SOLUSD").page
        assert page is not None
        wait_until(lambda: watched.counters["challenge_iframes"] >= 1)
        simulator.clear("ADAUSD")
        watched.wait_until_live("ADAUSD")
        assert simulator.pages()["loads"]["BINANCE:SOLUSD"] == 1, "not asked again: a person may be solving it"
        watched.session.loop.call(lambda: page.frames[1].click("#solve"))
        watched.wait_until_live("SOLUSD")
        assert watched.tab("SOLUSD").page is page
        assert watched.counters["pages_opened"] == 2
        watched.run_in_page("ADAUSD", SHOW_IMAGE)
        wait_until(lambda: watched.run_in_page("ADAUSD", LOOK) == ["block", True])
    simulator.clear("SOLUSD")


# --- a region's host --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def regional(simulator: Simulator) -> Iterator[Watched]:
    """At a host of which there are regions; it asks a wall as seldom as the product."""
    port = simulator.url.rpartition(":")[2]
    with scraping(f"http://www.localhost:{port}", replace(LESS_PATIENT, blocked_retry=120.0)) as watched:
        yield watched


@pytest.mark.usefixtures("walling")
def test_a_regions_host_is_followed(regional: Watched, simulator: Simulator) -> None:
    simulator.fault("DASHUSD", "region_in")
    with regional.tracking("DASHUSD"):
        regional.wait_until_live("DASHUSD", timeout=STARTING_S)
        assert regional.run_in_page("DASHUSD", "() => location.hostname") == "in.localhost"
    simulator.clear("DASHUSD")


# --- TradingView blocks Pluto as a whole ------------------------------------------------------------------------------


@pytest.mark.usefixtures("walling")
def test_one_ticker_asks_for_all_while_none_gets_through(simulator: Simulator) -> None:
    tickers, late = ["NEARUSD", "APTUSD", "FILUSD", "ALGOUSD"], "AAVEUSD"
    for ticker in (*tickers, late):
        simulator.fault(ticker, "forbidden")
    patience = replace(
        LESS_PATIENT, tick=0.25, blocked_retry=0.5, blocked_limit=0.5, blocked_spacing=0.1, spacing_limit=0.1
    )

    def loads() -> dict[str, int]:
        counted = simulator.pages()["loads"]
        return {ticker: counted.get(f"BINANCE:{ticker}", 0) for ticker in (*tickers, late)}

    with scraping(simulator.url, patience) as watched, watched.tracking(*tickers):
        wait_until(lambda: all_but_the_asker_wait(watched), STARTING_S, what="no earlier page is under way")
        before = loads()
        with watched.tracking(late):
            held = watched.wait_for(late, State.BLOCKED, reason="asks for all tickers")
            assert held.next_try_at is not None
            asker = re.search(r"Pluto: (\w+) asks", held.reason or "")
            wait_until(lambda: sum(loads().values()) > sum(before.values()) + 1)
            grown = {ticker for ticker, count in loads().items() if count > before[ticker]}
            assert asker is not None
            assert grown == {asker[1]}
            for ticker in (*tickers, late):
                simulator.clear(ticker)
            watched.wait_until_live(*tickers, late)


def all_but_the_asker_wait(watched: Watched) -> bool:
    tickers = watched.scraper.tickers
    asker, tracked = tickers.asker, tickers.tracked()
    others = [one for ticker, one in tracked.items() if ticker != asker]
    return asker in tracked and all(one.is_held and one.feed.ticker not in watched.session.tabs for one in others)


@pytest.mark.usefixtures("walling")
def test_a_browser_that_dies_doesnt_ask_a_wall_sooner(regional: Watched, simulator: Simulator) -> None:
    simulator.fault("KAVAUSD", "forbidden")
    with regional.tracking("KAVAUSD", "BTCUSD"):
        regional.wait_for("KAVAUSD", State.BLOCKED)
        regional.wait_until_live("BTCUSD")
        before = simulator.pages()["loads"]["BINANCE:KAVAUSD"]
        starts = regional.counters["browser_starts"]
        regional.scraper.kill_driver()
        wait_until(lambda: regional.counters["browser_starts"] > starts, timeout=20)
        regional.wait_until_live("BTCUSD")  # whose page opens after the other's, if that does
        assert regional.now["KAVAUSD"].state is State.BLOCKED
        assert simulator.pages()["loads"]["BINANCE:KAVAUSD"] == before
    simulator.clear("KAVAUSD")


# --- what has come of all walls, told in the end: they are watched for long -------------------------------------------


@pytest.mark.timeout(150)  # for the first, that waits for them all
@pytest.mark.parametrize("ticker", WALLS, ids=[fault for fault, *_ in WALLS.values()])
def test_a_wall_is_told_and_not_asked_again_before_its_time(walled: Walled, ticker: str) -> None:
    _, reason, loads = WALLS[ticker]
    quote = walled.now[ticker]
    assert (quote.state, quote.reason) == (State.BLOCKED, reason)
    assert (quote.next_try_at or 0) > walled.at, "it isn't tried again before this"
    assert walled.loads[f"BINANCE:{ticker}"] <= loads
    assert walled.upgrades.get(f"BINANCE:{ticker}", 0) <= MAX_SOCKETS
    assert State.LIVE not in {quote.state for quote in walled.quotes if quote.ticker == ticker}


def test_a_check_that_passes_by_itself_is_no_wall(walled: Walled) -> None:
    states = {quote.state for quote in walled.quotes if quote.ticker == "UNIUSD"}
    assert State.LIVE in states
    assert State.BLOCKED not in states
    assert walled.loads["BINANCE:UNIUSD"] == 2


def test_a_wall_takes_nobody_elses_price(walled: Walled) -> None:
    states = [quote.state for quote in walled.quotes if quote.ticker == "BTCUSD"]
    assert set(states[states.index(State.LIVE) :]) == {State.LIVE}


def test_a_redirect_to_another_site_names_the_setting(walled: Walled) -> None:
    quote = next(quote for quote in walled.quotes if quote.ticker == "ZECUSD" and quote.state is State.ERROR)
    assert re.fullmatch(
        r"asked 127.0.0.1:(\d+), was sent to localhost:\1; "
        r"if that is where your prices are, use --source-url http://localhost:\1",
        quote.reason or "",
    )
