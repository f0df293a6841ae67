"""What goes wrong with pages, renderers, browser and driver has a state, a line in the log and a counter, and passes.

The scraper runs in this process, against the simulator, with a real Chromium. Its patience is shortened, not its ways.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import pytest
from running import Simulator, alive, descendants, running_simulator, wait_until
from scraping import (
    BROWSER,
    DRIVER,
    LESS_PATIENT,
    RENDERER,
    Look,
    Watched,
    processes_of,
    scraping,
    send_signal,
    wait_until_ended,
    warnings_of,
)
from stories import Outcomes, Stories, Story

from quotes import ANSWER_LIMIT_S, Quote, Source, SourceBusy, State, Ticker
from scraper import Scraper, ScraperSettings
from tradingview import browser
from tradingview.feed import PageTrouble
from tradingview.machine import environment
from tradingview.patience import Patience

KEEPER = "UNIUSD"
together, apart = Stories(), Stories()  # in one scraper, and each in a scraper of its own
neighbours = Stories(at_once=1)  # in one scraper, in groups of two: some share a renderer, others don't
killed = Stories(at_once=1)  # in one scraper, whose browser is killed, or stands still with all its pages


@contextmanager
def told_in_one_scraper(
    stories: Stories, request: pytest.FixtureRequest, simulator: Simulator, patience: Patience, **settings: Any
) -> Iterator[Outcomes]:
    if not stories.selected(request):
        yield {}
        return
    with (
        scraping(simulator.url, patience, **settings) as watched,
        stories.telling(request, watched, simulator) as outcomes,
    ):
        yield outcomes


@pytest.fixture(scope="module")
def outcomes_killed(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """They go on beside the tests before theirs: they wait more than they compute."""
    patience = replace(LESS_PATIENT, ping_limit=6.0, retry_first=0.1)
    with told_in_one_scraper(killed, request, simulator, patience) as outcomes:
        yield outcomes


@pytest.fixture(scope="module")
def outcomes_of_neighbours(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    patience = replace(LESS_PATIENT, first_price=30.0, first_price_in_all=40.0, retry_first=0.1)
    settings = {"group_size": 2, "page_max_heap": 40.0}
    with told_in_one_scraper(neighbours, request, simulator, patience, **settings) as outcomes:
        yield outcomes


@pytest.fixture(scope="module")
def roomy(simulator: Simulator) -> Iterator[Watched]:
    """All pages share a renderer, and refusals hardly slow down the next openings.

    One page is always live: else TradingView would count as blocking all.
    """
    patience = replace(LESS_PATIENT, answer=6.0, blocked_spacing=0.1, spacing_limit=0.1)
    with scraping(simulator.url, patience, opening_spacing=0.01) as watched, watched.tracking(KEEPER):
        watched.wait_until_live(KEEPER)
        yield watched


def empty(watched: Watched) -> None:
    """Waits until no page is left of the story before; then a page opens as soon as at the start."""
    wait_until(lambda: not watched.session.groups.all, timeout=30, what="no page is left")
    watched.scraper.pace.spacing = watched.scraper.settings.opening_spacing


# --- pages that give no price -----------------------------------------------------------------------------------------


FAULTS = {  # a ticker each, so that all are in trouble at the same time
    "ICPUSD": ("not_found", State.NOT_FOUND, r"TradingView has no such symbol \(HTTP 404\)"),
    "VETUSD": ("no_such_symbol", State.NOT_FOUND, "TradingView has no symbol BINANCE:VETUSD"),
    "HBARUSD": ("permission_denied", State.ERROR, "TradingView refuses to quote BINANCE:HBARUSD: permission_denied"),
    "BCHUSD": ("bot_wall", State.BLOCKED, 'TradingView asks "Just a moment..."'),
    "TRXUSD": ("forbidden", State.BLOCKED, r"TradingView refuses \(HTTP 403\)"),
    "SUIUSD": ("too_many_requests", State.BLOCKED, r"TradingView refuses \(HTTP 429\)"),
    "ARBUSD": ("server_error", State.ERROR, r"TradingView has a problem \(HTTP 503\)"),
    "OPUSD": (
        "redirects_away",
        State.ERROR,
        r"asked 127.0.0.1:\d+, was sent to localhost:\d+; .* use --source-url http://localhost:\d+",
    ),
    "ETCUSD": (
        "wrong_symbol",
        State.ERROR,
        "TradingView shows visitors COINBASE:ETCUSD instead of BINANCE:ETCUSD; to see it, track COINBASE:ETCUSD",
    ),
    "TONUSD": ("hangs", State.ERROR, r"127.0.0.1:\d+ can't be reached: no answer within 6 s"),
    "FTMUSD": ("unreadable_price", State.ERROR, "the page shows no price that can be read"),
}


FAIL_TWICE = ("server_error", "forbidden")  # the others have their fault until they were told once


@dataclass
class Troubled:
    """What was told and logged of tickers while each had its fault, what was counted, and who was live afterwards."""

    quotes: dict[str, list[Quote]]  # by ticker
    warnings: list[str]
    counters: Counter[str]
    live_again: set[str]


def is_as_expected(quote: Quote) -> bool:
    """Whether it tells its ticker's fault: a busy machine may have told another one before, such as a late answer."""
    _, state, reason = FAULTS[quote.ticker]
    return quote.state is state and bool(re.fullmatch(reason, quote.reason or ""))


@pytest.fixture(scope="module")
def troubled(roomy: Watched, simulator: Simulator, outcomes_killed: Outcomes) -> Troubled:
    for ticker, (fault, *_) in FAULTS.items():
        simulator.fault(ticker, fault)
    before, told = Counter(roomy.counters), dict[str, list[Quote]]()
    count = len(roomy.quotes)

    def are_told() -> bool:
        for ticker in FAULTS.keys() - told.keys():
            quotes = [quote for quote in roomy.quotes[count:] if quote.ticker == ticker]
            fault, tries = FAULTS[ticker][0], {quote.next_try_at for quote in quotes if is_as_expected(quote)}
            if len(tries) >= (2 if fault in FAIL_TWICE else 1):
                told[ticker] = quotes
                simulator.clear(ticker)
        return told.keys() == FAULTS.keys()

    def live() -> set[str]:
        return {ticker for ticker in FAULTS if State.LIVE in roomy.states_since(count, ticker)}

    with warnings_of("pluto") as warnings, roomy.tracking(*FAULTS):
        wait_until(Look(are_told, lambda: {ticker: roomy.now[ticker] for ticker in FAULTS.keys() - told.keys()}), 60)
        seen = Troubled(told, list(warnings), Counter(roomy.counters) - before, set())
        wait_until(Look(lambda: live() == FAULTS.keys(), lambda: f"only {live()} are live"), 60)
        seen.live_again = live()
    return seen


@pytest.mark.timeout(180)  # for the first, that has them all
@pytest.mark.parametrize("ticker", FAULTS, ids=[fault for fault, *_ in FAULTS.values()])
def test_a_page_that_gives_no_price_says_why_and_is_tried_again(troubled: Troubled, ticker: str) -> None:
    state, quotes = FAULTS[ticker][1], troubled.quotes[ticker]
    quote = next(quote for quote in quotes if is_as_expected(quote))
    assert quote.next_try_at is not None
    assert not quote.is_current
    assert State.LIVE not in {quote.state for quote in quotes}
    assert troubled.counters[f"pages_{state}"] >= 1
    reasons = [reason for reason, _ in groupby(quote.reason for quote in quotes if quote.next_try_at is not None)]
    lines = [line for line in troubled.warnings if line.startswith(f"{ticker}: {state}: {quote.reason}")]
    assert len(lines) == reasons.count(quote.reason), "once each time that it is another one"
    assert ticker in troubled.live_again


@neighbours
def a_refusal_slows_every_opening_down(watched: Watched, simulator: Simulator) -> None:
    empty(watched)
    simulator.fault("XMRUSD", "forbidden")
    before, refusals = watched.scraper.pace.spacing, watched.counters["pages_blocked"]
    with watched.tracking("XMRUSD"):
        watched.wait_for("XMRUSD", State.BLOCKED)
        assert watched.scraper.pace.spacing >= LESS_PATIENT.blocked_spacing > before
        simulator.clear("XMRUSD")
        watched.wait_until_live("XMRUSD")
        doublings = watched.counters["pages_blocked"] - refusals - 1
        assert watched.scraper.pace.spacing < LESS_PATIENT.blocked_spacing * 2**doublings


@apart
def an_unreachable_host_is_an_error_until_it_can_be_reached(_: Simulator) -> None:
    with socket.socket() as reserved:  # nobody else gets this port, and nobody listens there yet
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        refused = f"127.0.0.1:{port} can't be reached: the connection was refused"
        with ExitStack() as stack:
            watched = stack.enter_context(scraping(f"http://127.0.0.1:{port}"))
            stack.enter_context(watched.tracking("BTCUSD"))
            watched.wait_for("BTCUSD", State.ERROR, reason=refused)
            with environment:
                stack.enter_context(running_simulator("--port", str(port), "--weight", "0"))
            watched.wait_until_live("BTCUSD")


@pytest.mark.parametrize(
    ("trouble", "failures", "least", "most"),
    [
        (PageTrouble(State.ERROR, ""), 1, 0.75, 1),
        (PageTrouble(State.ERROR, ""), 3, 3, 4),
        (PageTrouble(State.ERROR, ""), 50, 45, 60),
        (PageTrouble(State.ERROR, "", delay=30), 1, 30, 30),
        (PageTrouble(State.NOT_FOUND, ""), 5, 600, 600),
        (PageTrouble(State.BLOCKED, ""), 1, 120, 150),
        (PageTrouble(State.BLOCKED, ""), 3, 480, 600),
        (PageTrouble(State.BLOCKED, ""), 99, 1800, 2250),
        (PageTrouble(State.BLOCKED, "", delay=7), 1, 7, 7),
        (PageTrouble(State.BLOCKED, "", delay=7), 2, 240, 300),
        (PageTrouble(State.BLOCKED, "", delay=3600), 2, 3600, 3600),
    ],
)
def test_the_next_try_is_as_far_away_as_the_trouble_deserves(
    trouble: PageTrouble, failures: int, least: float, most: float
) -> None:
    assert least <= Patience().retry_delay(trouble, failures) <= most


# --- strategies -------------------------------------------------------------------------------------------------------

PAINT = """() => {
  let price = 900000;
  window.painting = setInterval(() => {
    const element = document.querySelector('[data-qa-id="symbol-last-value"]');
    document.querySelector(".js-data-mode").className = "js-data-mode tv-data-mode--realtime";
    element.textContent = `${(price += 7) / 100}`;
  }, 250);
}"""
TITLES = """() => {
  let price = 123456;
  window.titling = setInterval(() => { document.title = `GRTUSD ${(price += 1) / 10000} ▲ +0.79% Unnamed`; }, 250);
}"""


def wait_for_source(watched: Watched, ticker: str, source: Source) -> None:
    wait_until(Look(lambda: watched.now[ticker].source is source, lambda: f"{source}: {watched.now[ticker]}"), 20)


@together
def the_element_takes_over_from_a_dead_socket_and_gives_back(watched: Watched, simulator: Simulator) -> None:
    with watched.tracking("MKRUSD"):
        watched.wait_until_live("MKRUSD")
        wait_for_source(watched, "MKRUSD", Source.SOCKET)
        simulator.fault("MKRUSD", "socket_closed")
        watched.run_in_page("MKRUSD", PAINT)
        wait_for_source(watched, "MKRUSD", Source.DOM)
        watched.wait_until_live("MKRUSD")
        assert watched.now["MKRUSD"].volume is not None, "what frames said is kept beside it for a minute"
        assert watched.now["MKRUSD"].change_percent is not None, "the page shows it, too"
        watched.run_in_page("MKRUSD", "() => clearInterval(window.painting)")
        simulator.clear("MKRUSD")
        strike_open_page(simulator, "MKRUSD", "price_element_replaced")
        wait_for_source(watched, "MKRUSD", Source.SOCKET)
        watched.wait_until_live("MKRUSD")
        assert watched.counters["fell_to_dom"] >= 1
        assert watched.counters["climbed_to_socket"] >= 1


@together
def a_live_title_is_the_last_resort(watched: Watched, simulator: Simulator) -> None:
    for fault in ("socket_in_worker", "classes_renamed"):
        simulator.fault("GRTUSD", fault)
    with watched.tracking("GRTUSD"):
        watched.wait_for("GRTUSD", State.SNAPSHOT)
        watched.run_in_page("GRTUSD", TITLES)
        wait_for_source(watched, "GRTUSD", Source.TITLE)
        watched.wait_until_live("GRTUSD")
        assert re.fullmatch(r"12\.\d+", watched.now["GRTUSD"].price_text or "")
    simulator.clear("GRTUSD")


@together
def socket_and_page_that_disagree_are_stale(watched: Watched, simulator: Simulator) -> None:
    with watched.tracking("AXSUSD"):
        watched.wait_until_live("AXSUSD")
        simulator.fault("AXSUSD", "dom_disagrees")
        quote = watched.wait_for("AXSUSD", State.STALE, reason="socket and page disagree")
        assert watched.counters["disagreements"] >= 1
        assert quote.source is Source.SOCKET, "its frames are as new as what is painted"
        simulator.clear("AXSUSD")
        watched.wait_until_live("AXSUSD")


SAY = """() => {
  const payload = (v) => JSON.stringify({ m: "qsd", p: ["qs", { n: "%s", s: "ok", v }] });
  const said = %s.map(payload).map((text) => `~m~${text.length}~m~${text}`).join("");
  new WebSocket("ws://127.0.0.1:9").dispatchEvent(new MessageEvent("message", { data: said }));
}"""


@together
def parts_that_come_together_are_told_at_once_and_no_price_between_is_lost(
    watched: Watched, simulator: Simulator
) -> None:
    parts = [
        {"lp": 21.5, "lp_time": round(time.time()) + 30},
        {"ch": 1.5, "chp": 7.5},
        {"volume": 9},
        {"volume": None},
        {"lp": 21.6},
    ]
    with watched.tracking("INJUSD"):
        watched.wait_until_live("INJUSD")
        simulator.rate("INJUSD", 0)
        before = len(watched.quotes)
        watched.run_in_page("INJUSD", SAY % ("BINANCE:INJUSD", json.dumps(parts)))
        wait_until(lambda: (watched.now["INJUSD"].price_text or "").startswith("21.6"))
        own = [quote for quote in watched.quotes[before:] if quote.ticker == "INJUSD"]
        told = [quote for quote in own if (quote.price_text or "").startswith("21.")]
    seen = [(float(quote.price_text or 0), quote.change_percent, quote.volume) for quote in told]
    assert seen[:2] == [(21.5, 7.5, 9.0), (21.6, 7.5, 9.0)]


def strike_open_page(simulator: Simulator, ticker: str, fault: str) -> None:
    """A fault that strikes only what is open now: so the page must be open enough to be told."""
    wait_until(lambda: simulator.pages()["steered"].get(f"BINANCE:{ticker}"))
    simulator.fault(ticker, fault)


# --- pages that change under us ---------------------------------------------------------------------------------------


@together
def a_page_that_reloads_itself_is_not_live_until_it_shows_a_price(watched: Watched, simulator: Simulator) -> None:
    with watched.tracking("SANDUSD"):
        watched.wait_until_live("SANDUSD")
        before = len(watched.quotes)
        strike_open_page(simulator, "SANDUSD", "page_reloads")
        watched.wait_for("SANDUSD", State.STALE, reason="its page is being opened again", after=before)
        watched.wait_until_live("SANDUSD")
        assert watched.states_since(before, "SANDUSD") == {State.STALE, State.LIVE}


@together
def a_page_that_reloads_itself_into_a_refusal_is_blocked(watched: Watched, simulator: Simulator) -> None:
    with watched.tracking("MANAUSD"):
        watched.wait_until_live("MANAUSD")
        simulator.fault("MANAUSD", "too_many_requests")
        struck_at = time.time()
        strike_open_page(simulator, "MANAUSD", "page_reloads")
        quote = watched.wait_for("MANAUSD", State.BLOCKED, reason="HTTP 429")
        next_try_at = (quote.next_try_at or 0) / 1000
        assert struck_at + 2 <= next_try_at <= time.time() + 2.5, "as Retry-After asks, or later after a failure"
        simulator.clear("MANAUSD")
        watched.wait_until_live("MANAUSD")


@together
def a_dropped_socket_is_opened_again(watched: Watched, simulator: Simulator) -> None:
    simulator.rate("EOSUSD", 0)
    with watched.tracking("EOSUSD"):
        watched.wait_until_live("EOSUSD")
        simulator.fault("EOSUSD", "socket_dropped")
        wait_until(lambda: simulator.pages()["sockets"].get("BINANCE:EOSUSD", 0) == 0)
        simulator.price("EOSUSD", "0.5555")
        wait_until(lambda: watched.now["EOSUSD"].price_text == "0.5555", timeout=20)
        watched.wait_until_live("EOSUSD")


@together
def a_page_may_not_leave_open_windows_or_ask_for_anything(watched: Watched, simulator: Simulator) -> None:
    port = simulator.url.rpartition(":")[2]
    with watched.tracking("THETAUSD"):
        watched.wait_until_live("THETAUSD")
        before = len(watched.quotes)
        watched.run_in_page("THETAUSD", f"() => {{ location.href = 'http://localhost:{port}/robots.txt' }}")
        wait_until(lambda: watched.counters["navigations_refused"] >= 1)
        watched.run_in_page("THETAUSD", "() => { window.open('/robots.txt'); alert('look here') }")
        wait_until(lambda: watched.counters["popups_refused"] >= 1)
        assert watched.run_in_page("THETAUSD", "() => typeof window.plutoProbe") == "undefined"
        assert watched.run_in_page("THETAUSD", "() => document.querySelector('iframe').contentWindow.length") == 0
        wait_until(lambda: watched.counters["iframes_refused"] >= 1)
        reach = "host => fetch(`http://${host}/robots.txt`, {mode: 'no-cors'}).then(() => true, () => false)"
        assert watched.run_in_page("THETAUSD", f"() => ({reach})('other.localhost:{port}')") is True
        assert watched.run_in_page("THETAUSD", f"() => ({reach})('telemetry.localhost:{port}')") is False
        assert watched.run_in_page("THETAUSD", "() => [navigator.language, new Date().getTimezoneOffset()]") == [
            "en-US",
            0,
        ]
        assert "cookiePrivacyPreferenceBannerProduction=ignored" in watched.run_in_page(
            "THETAUSD", "() => document.cookie"
        )
        assert watched.states_since(before, "THETAUSD") <= {State.LIVE}


@together
def a_page_that_goes_elsewhere_on_its_host_is_an_error(watched: Watched, _: Simulator) -> None:
    with watched.tracking("RUNEUSD"):
        watched.wait_until_live("RUNEUSD")
        watched.run_in_page("RUNEUSD", "() => { history.pushState({}, '', '/chart/') }")
        watched.wait_for("RUNEUSD", State.ERROR, reason="asked for BINANCE:RUNEUSD, page went to /chart/")
        watched.wait_until_live("RUNEUSD")


@pytest.fixture(scope="module")
def outcomes_together(
    roomy: Watched, simulator: Simulator, request: pytest.FixtureRequest, outcomes_killed: Outcomes
) -> Outcomes:
    with together.telling(request, roomy, simulator) as outcomes:
        return outcomes


@pytest.mark.timeout(180)  # for the first, that has them all
@together.each
def test_stories_of_a_page(outcomes_together: Outcomes, story: Story) -> None:
    outcomes_together[story].result()


# --- what freezes, and what is killed ---------------------------------------------------------------------------------


def check_restart(watched: Watched, mark: str, number: signal.Signals, reason: str) -> None:
    """The browser or its driver gets this signal: all else ends, too, and both are started again."""
    empty(watched)
    with watched.tracking("COMPUSD", "ZECUSD"), warnings_of("pluto") as lines:
        watched.wait_until_live("COMPUSD", "ZECUSD")
        before, starts = len(watched.quotes), watched.counters["browser_starts"]
        driver, *_ = processes_of(watched, DRIVER)
        processes = alive([driver, *descendants(driver.pid)])
        send_signal(number, processes_of(watched, mark)[:1])
        watched.wait_for("COMPUSD", State.ERROR, reason=f"no browser: {reason}", after=before)
        watched.wait_until_live("COMPUSD", "ZECUSD")
        assert len([line for line in lines if line.startswith(f"no browser: {reason}")]) == 1
        assert watched.counters["browser_starts"] == starts + 1
        wait_until_ended(processes)


@killed
def a_browser_that_hangs_is_started_again(watched: Watched, _: Simulator) -> None:
    check_restart(watched, BROWSER, signal.SIGSTOP, "it hung and was killed")


@killed
def a_driver_that_hangs_is_started_again(watched: Watched, _: Simulator) -> None:
    check_restart(watched, DRIVER, signal.SIGSTOP, "it hung and was killed")


@killed
def a_killed_browser_is_started_again(watched: Watched, _: Simulator) -> None:
    check_restart(watched, BROWSER, signal.SIGKILL, "it ended by itself")


@killed
def a_killed_driver_is_started_again(watched: Watched, _: Simulator) -> None:
    check_restart(watched, DRIVER, signal.SIGKILL, "it ended by itself")


@killed
def a_renderer_that_hangs_is_given_up(watched: Watched, _: Simulator) -> None:
    empty(watched)
    with watched.tracking("TIAUSD", "STXUSD"):
        watched.wait_until_live("TIAUSD", "STXUSD")
        before = len(watched.quotes)
        stopped = processes_of(watched, RENDERER)
        send_signal(signal.SIGSTOP, stopped)
        watched.wait_for("TIAUSD", State.ERROR, reason="the page is frozen", after=before)
        watched.wait_until_live("TIAUSD", "STXUSD")
        wait_until(lambda: len(alive(stopped)) < len(stopped), what="its process is killed")
        send_signal(signal.SIGCONT, stopped)  # those that Chromium keeps in reserve


@neighbours
def a_killed_renderer_takes_nobody_elses_price_away(watched: Watched, _: Simulator) -> None:
    empty(watched)
    tickers = ("IMXUSD", "LDOUSD", "CRVUSD", "SNXUSD")
    with watched.tracking(*tickers):
        watched.wait_until_live(*tickers)
        first = [ticker for ticker in tickers if watched.group(ticker) is watched.group("IMXUSD")]
        second = sorted({*tickers} - {*first})
        assert len(first) == len(second) == 2
        before, crashes = len(watched.quotes), watched.counters["pages_crashed"]
        watched.crash("IMXUSD")
        failed = [watched.wait_for(ticker, State.ERROR, reason="the page crashed", after=before) for ticker in first]
        assert max(quote.next_try_at or 0 for quote in failed) <= time.time() * 1000, "tried again at once"
        watched.wait_until_live(*first)
        assert watched.counters["pages_crashed"] == crashes + 2
        assert {state for ticker in second for state in watched.states_since(before, ticker)} <= {State.LIVE}


@neighbours
def a_silent_page_beside_one_that_just_came_is_not_taken_for_an_endless_loop(
    watched: Watched, simulator: Simulator
) -> None:
    empty(watched)
    simulator.fault("FILUSD", "unreadable_price")
    with watched.tracking("ATOMUSD"), warnings_of("pluto") as lines:
        watched.wait_until_live("ATOMUSD")
        before = len(watched.quotes)
        simulator.fault("ATOMUSD", "socket_silent")
        watched.run_in_page("ATOMUSD", "() => { for (let id = 0; id < 10_000; id++) clearInterval(id) }")
        with watched.tracking("FILUSD"):
            wait_until(lambda: Ticker("FILUSD") in watched.session.tabs)
            silent = watched.tab("ATOMUSD")
            too_long = LESS_PATIENT.frozen + 1.5 * LESS_PATIENT.tick
            wait_until(lambda: time.monotonic() - silent.heard_at > too_long, 30, what="it has been silent for long")
            assert not [line for line in lines if "ATOMUSD" in line], "nothing is said while the other one loads"
            simulator.clear("FILUSD")
            wait_until(lambda: [line for line in lines if "ATOMUSD" in line], timeout=20)
            simulator.clear("ATOMUSD")
            watched.wait_for("ATOMUSD", State.STALE, reason="its page is being opened again", after=before)
            watched.wait_until_live("ATOMUSD", "FILUSD")
            assert watched.group("ATOMUSD") is watched.group("FILUSD")
            said = [line for line in lines if "ATOMUSD" in line]
            assert said == ["ATOMUSD: the page froze, it is loaded again"]
            assert not {State.STALE, State.ERROR} & watched.states_since(before, "FILUSD")


@neighbours
def a_page_with_an_endless_loop_is_stopped_and_put_apart_the_first_time(watched: Watched, simulator: Simulator) -> None:
    """Its neighbours pay once: a second loop keeps nobody else's price."""
    empty(watched)
    pair = ("NEARUSD", "SEIUSD")  # of one renderer
    with watched.tracking(*pair), warnings_of("pluto") as lines:
        watched.wait_until_live(*pair)
        assert watched.group("NEARUSD") is watched.group("SEIUSD")
        neighbours = watched.group("SEIUSD")
        watched.run_in_page("NEARUSD", "() => { setTimeout(() => { for (;;); }) }")
        watched.wait_for("NEARUSD", State.ERROR, reason="the page kept its renderer busy for 4 s and was stopped")
        watched.wait_until_live(*pair)
        assert watched.group("SEIUSD") is neighbours
        assert watched.group("NEARUSD") is not neighbours
        before = len(watched.quotes)
        strike_open_page(simulator, "NEARUSD", "page_frozen")
        watched.wait_for("NEARUSD", State.ERROR, reason="was stopped", after=before)
        assert watched.states_since(before, "SEIUSD") <= {State.LIVE}
        assert State.ERROR not in watched.states_since(0, "SEIUSD")
        assert not [line for line in lines if line.startswith("SEIUSD: error")]


# --- renewal ----------------------------------------------------------------------------------------------------------


HOARD = "() => { window.hoard = Array.from({ length: 60 }, () => new Array(2 ** 18).fill(0.5)) }"  # 2 MB each


def check_renewal(watched: Watched, simulator: Simulator, *tickers: str, script: str = "") -> None:
    watched.wait_until_live(*tickers)
    before, recycled = len(watched.quotes), watched.counters["pages_recycled"]
    if script:
        watched.run_in_page(tickers[0], script)
    wait_until(lambda: watched.counters["pages_recycled"] >= recycled + 2, timeout=60, what="both are renewed")
    for ticker in tickers:
        assert watched.states_since(before, ticker) == {State.LIVE}
        quotes = [quote for quote in watched.quotes[before:] if quote.ticker == ticker]
        times = [quote.timestamp or 0 for quote in quotes]
        assert times == sorted(times)
        assert len(set(quotes)) == len(quotes)
        assert max(later - earlier for earlier, later in pairwise(times)) < 5000

    def sockets() -> int:
        opened = simulator.pages()["sockets"]
        return max(int(opened.get(f"BINANCE:{ticker}", 0)) for ticker in tickers)

    wait_until(lambda: sockets() <= 2, what="no page is left")


@apart
def old_pages_are_renewed_without_a_gap_or_a_duplicate(simulator: Simulator) -> None:
    with scraping(simulator.url, page_max_age=2 / 3600) as watched, watched.tracking("LDOUSDT", "CRVUSDT"):
        check_renewal(watched, simulator, "LDOUSDT", "CRVUSDT")


@neighbours
def pages_whose_heap_has_grown_are_renewed_without_a_gap_or_a_duplicate(watched: Watched, simulator: Simulator) -> None:
    empty(watched)
    with watched.tracking("DASHUSD", "KAVAUSD"):
        check_renewal(watched, simulator, "DASHUSD", "KAVAUSD", script=HOARD)


@killed
def a_browser_that_is_too_big_is_started_anew_and_then_pages_without_room_are_refused(
    watched: Watched, _: Simulator
) -> None:
    """The last one with this scraper: it remembers how little room there is."""
    empty(watched)
    tickers, settings = {"BONKUSDT", "WIFUSDT", "JUPUSDT"}, watched.scraper.settings

    def refused() -> set[str]:
        reason = "no room: more pages would take over 10 MB"
        return {ticker for ticker in tickers if ticker in watched.now and reason in (watched.now[ticker].reason or "")}

    def two_refused() -> set[str]:
        return found if len(found := refused()) == 2 else set()

    watched.scraper.settings = replace(settings, browser_max_memory=10.0)  # of the next browser
    send_signal(signal.SIGKILL, processes_of(watched, BROWSER)[:1])
    with watched.tracking(*tickers):
        too_big = watched.wait_for("BONKUSDT", State.ERROR, reason="MB and is started anew")
        assert (too_big.reason or "").startswith("no browser: it took ")
        without_room = wait_until(two_refused, timeout=20, what="there is room for one")
        assert watched.counters["browser_too_big"] >= 2, "once is no proof"
        watched.scraper.settings = settings
        watched.wait_until_live(*tickers - without_room)
        wait_until(lambda: refused() == without_room, what="the others are told again that there is no room")
        assert all(watched.now[ticker].next_try_at is not None for ticker in without_room)
        assert {watched.now[ticker].state for ticker in without_room} == {State.ERROR}


@pytest.fixture(scope="module")
def outcomes_apart(
    simulator: Simulator, request: pytest.FixtureRequest, outcomes_killed: Outcomes, outcomes_of_neighbours: Outcomes
) -> Outcomes:
    with apart.telling(request, simulator) as outcomes:
        return outcomes


@pytest.mark.timeout(180)  # for the first, that has them all
@apart.each
def test_stories_of_a_scraper(outcomes_apart: Outcomes, story: Story) -> None:
    outcomes_apart[story].result()


@pytest.mark.timeout(180)  # for the first, that waits for what is left
@neighbours.each
def test_stories_of_neighbours(outcomes_of_neighbours: Outcomes, story: Story) -> None:
    outcomes_of_neighbours[story].result()


@pytest.mark.timeout(180)
@killed.each
def test_stories_of_a_browser(outcomes_killed: Outcomes, story: Story) -> None:
    outcomes_killed[story].result()


# --- headless, and time -----------------------------------------------------------------------------------------------


def test_headless_shows_nothing_to_nobody(roomy: Watched) -> None:
    assert roomy.run_in_page(KEEPER, "() => getComputedStyle(document.body).display") == "none"


def test_the_thread_says_that_it_runs(roomy: Watched) -> None:
    ticked = roomy.scraper.last_tick
    wait_until(lambda: roomy.scraper.last_tick > ticked)


def test_a_busy_scraper_is_not_waited_for_for_long(roomy: Watched) -> None:
    asked = threading.Event()
    roomy.session.loop.call(asked.wait, 10 * ANSWER_LIMIT_S)
    began = time.monotonic()
    with pytest.raises(SourceBusy):
        roomy.scraper.why(Ticker(KEEPER))
    asked.set()
    assert time.monotonic() - began < 5 * ANSWER_LIMIT_S


def test_after_the_machine_slept_nothing_is_live_until_it_is_proven(
    roomy: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's clock that counts sleep is replaced; all of Pluto runs on it as after a real sleep.

    The last one with this scraper: afterwards the clock goes back.
    """
    true_clock, slept_s = time.clock_gettime, 3600.0
    before = len(roomy.quotes)
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: true_clock(clock) + slept_s * (clock == time.CLOCK_BOOTTIME)
    )
    roomy.wait_for(KEEPER, State.STALE, reason="this computer was asleep", after=before)
    roomy.wait_until_live(KEEPER)


# --- finding a browser ------------------------------------------------------------------------------------------------


def test_a_candidate_that_only_says_to_install_a_browser_is_passed_over(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {"chromium": "exit 1", "google-chrome": "echo Chrome 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(browser, "BROWSER_NAMES", ("chromium", "google-chrome"))
    assert browser.find_browser(None) == str(tmp_path / "google-chrome")


def test_feed_takes_the_place_of_another_only_while_its_ticker_is_wanted() -> None:
    ticker = Ticker("BTCUSD")
    scraper = Scraper(ScraperSettings(), lambda quote: None)
    old, new = scraper.new_feed(ticker), scraper.new_feed(ticker)
    assert not scraper.tickers.replace(old, new)
    scraper.add(ticker)
    assert scraper.tickers.replace(scraper.tickers.tracked()[ticker].feed, new)
    assert scraper.tickers.tracked()[ticker].feed is new
