"""Slow pages are waited for, slim ones give way where they show no price, silent ones are opened again.

One simulator with a light page; its times of faults are a fifth of the real ones, and so is the patience for a price.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from running import Simulator, running_simulator, wait_until
from scraping import LESS_PATIENT, Lines, Watched, scraping, warnings_of
from stories import Outcomes, Stories, Story

from quotes import InvalidTicker, Quote, RetriedTooSoon, RetryRefused, State, Ticker, parse_ticker
from tradingview.patience import Patience

FIFTH = replace(LESS_PATIENT, first_price=20 / 5, retry_first=0.2)
apart = Stories(at_once=2)  # each has a scraper of its own; the longest is the first


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator("--weight", "0", "--heartbeat", "2", "--delays", "0.2") as simulator:
        yield simulator


LATE = {"VETUSD": "document_after_25_s", "HBARUSD": "price_after_55_s"}  # the price: long after the first deadline
UNSEEN = ("TONUSD", "FTMUSD")  # these pages fill only when they are seen


@pytest.fixture(scope="module")
def outcomes(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    with warnings_of("pluto") as lines, apart.telling(request, simulator, lines) as outcomes:
        yield outcomes


@pytest.fixture(scope="module")
def shared(simulator: Simulator, outcomes: Outcomes) -> Iterator[Watched]:
    """Late pages and pages that want to be seen, which came all at once beside a usual one, until all were live."""
    for ticker in UNSEEN:
        simulator.fault(ticker, "fills_when_seen")
    for ticker, fault in LATE.items():
        simulator.fault(ticker, fault)
    patience = replace(FIFTH, not_found_retry=600.0, blocked_retry=600.0)
    with scraping(simulator.url, patience) as watched, watched.tracking("BTCUSD", *LATE, *UNSEEN):
        watched.wait_until_live("BTCUSD", *LATE, *UNSEEN, timeout=80)
        yield watched


def opened(watched: Watched) -> int:
    return watched.counters["pages_opened"]


# --- pages that give no sign of life ----------------------------------------------------------------------------------


SILENT = {"GRTUSD": "delayed", "ICPUSD": "price_after_25_s"}  # another silence: of late data, of a page that opens


@apart
def a_page_whose_feed_gives_no_sign_of_life_is_opened_again_and_then_less_and_less_often(
    simulator: Simulator, lines: Lines
) -> None:
    """And no other page that is silent."""
    for ticker, fault in SILENT.items():
        simulator.fault(ticker, fault)
    patience = replace(
        FIFTH,
        proof_factor=0.3,  # 4.5 s
        first_price=20.0,
        first_price_in_all=20.0,
        no_life=1.0,
        no_life_of_element=0.5,
        reopening_waits=(0.0, 40.0),
    )
    with scraping(simulator.url, patience) as watched, watched.tracking("XMRUSD", *SILENT):
        watched.wait_until_live("XMRUSD")
        simulator.fault("XMRUSD", "socket_silent")
        wait_until(lambda: watched.counters["pages_reopened"] == 1, timeout=40)
        simulator.clear("XMRUSD")
        watched.wait_until_live("XMRUSD")
        before = len(watched.quotes)
        simulator.fault("XMRUSD", "socket_silent")
        watched.wait_for("XMRUSD", State.STALE, reason="shows no sign of life", after=before)

        def planned() -> Quote | None:
            quotes = (quote for quote in watched.quotes[before:] if quote.ticker == "XMRUSD")
            return next((quote for quote in quotes if quote.next_try_at is not None), None)

        quote = wait_until(planned)
        assert quote is not None
        assert 0 < (quote.next_try_at or 0) - time.time() * 1000 < 40_000
        time.sleep(2.0)
        assert watched.counters["pages_reopened"] == 1, "not sooner than it said"
        assert opened(watched) == 4, "the others' once"
        watched.wait_for("GRTUSD", State.STALE, reason="delayed")
    assert lines.count("XMRUSD: its feed gives no sign of life; Pluto opens its page again") == 1


# --- the first price --------------------------------------------------------------------------------------------------


def test_patience_for_a_price_grows_with_each_failure() -> None:
    patience = Patience()
    assert [patience.slack(failures) for failures in (0, 1, 2, 3, 4, 2000)] == [1, 2, 4, 8, 8, 8]
    assert (patience.first_price, patience.first_price_in_all, patience.frozen) == (20, 60, 12)


@pytest.mark.timeout(120)  # for `shared`
def test_the_deadline_counts_from_the_document_not_from_the_request(shared: Watched) -> None:
    """Its document takes 5 s here: longer than a price may take after it."""
    assert State.ERROR not in shared.states_since(0, "VETUSD")


@apart
def pages_that_have_no_price_yet_are_few_at_a_time(simulator: Simulator, _: Lines) -> None:
    """One that never has a price holds others up for a while, one that is slow to load for longer.

    50 heavy pages, all opened at once, each missed its deadline.
    """
    simulator.fault("SEIUSD", "unreadable_price")
    simulator.fault("EOSUSD", "document_after_25_s")  # 5 s here
    patience = replace(FIFTH, first_price=8.0, max_loading=1, loading=2.0)
    tickers = ("SEIUSD", "EOSUSD", "XTZUSD")
    with scraping(simulator.url, patience, opening_spacing=0.0) as watched, watched.tracking(*tickers):
        watched.wait_for("EOSUSD", State.LIVE)
        assert opened(watched) <= 3, "and the next one's"
        watched.wait_until_live("XTZUSD")
        live = [quote.ticker for quote in watched.quotes if quote.state is State.LIVE]
        assert live[0] == "EOSUSD", "the other one's page opened after that"
        assert State.LIVE not in watched.states_since(0, "SEIUSD")


def test_a_price_that_comes_late_is_waited_for_longer_after_a_failure(shared: Watched, simulator: Simulator) -> None:
    shared.wait_for("HBARUSD", State.ERROR, reason="the page shows no price that can be read")
    assert simulator.pages()["loads"]["BINANCE:HBARUSD"] <= 3, "after 4, 8 and 16 s; the price takes 11"


# --- slim pages -------------------------------------------------------------------------------------------------------


@apart
def slim_pages_give_way_where_they_show_no_price(simulator: Simulator, lines: Lines) -> None:
    tickers = ("ARBUSD", "OPUSD", "ETCUSD")
    for ticker in tickers:
        simulator.fault(ticker, "fills_when_seen")
    with scraping(simulator.url, FIFTH) as watched, watched.tracking(*tickers[:2]):
        assert "pages" not in watched.scraper.health
        watched.wait_for(tickers[0], State.ERROR, reason="the page shows no price that can be read")
        watched.wait_until_live(*tickers[:2])
        assert watched.scraper.health["pages"].startswith("not slim: slim pages showed no price")
        before = opened(watched)
        with watched.tracking(tickers[2]):
            watched.wait_until_live(tickers[2])
            assert opened(watched) == before + 1, "at the first try"
    assert len([line for line in lines if "slim pages showed no price" in line]) == 1
    for ticker in tickers:
        simulator.clear(ticker)


def test_slim_pages_stay_where_one_has_shown_a_price(shared: Watched) -> None:
    for ticker in UNSEEN:
        shared.wait_for(ticker, State.ERROR, reason="the page shows no price that can be read")
    assert "pages" not in shared.scraper.health
    look = "() => getComputedStyle(document.body).display"
    assert shared.run_in_page("BTCUSD", look) == "none"
    assert shared.run_in_page(UNSEEN[0], look) != "none"


# --- all of them, and what needs the machine for itself --------------------------------------------------------------


@pytest.mark.timeout(120)  # for the first, that has them all
@apart.each
def test_stories_of_pages(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()


def test_a_page_that_computes_while_it_loads_is_not_stopped_and_puts_nobody_apart(simulator: Simulator) -> None:
    """Its loop is longer than a page may be frozen; its neighbour, which is silent meanwhile, stays what it is."""
    patience = replace(FIFTH, frozen=1.0, pulse=0.2, first_price_in_all=30.0)
    with scraping(simulator.url, patience, group_size=2) as watched, watched.tracking("BCHUSD"):
        watched.wait_until_live("BCHUSD")
        neighbours, before = watched.group("BCHUSD"), len(watched.quotes)
        simulator.fault("SUIUSD", "busy_loading")
        with watched.tracking("SUIUSD"):
            watched.wait_until_live("SUIUSD")
            assert watched.group("SUIUSD") is neighbours
        assert watched.states_since(before, "BCHUSD") <= {State.LIVE}
        assert not watched.counters["pages_frozen"]
        assert not watched.counters["pages_cut_off"]
        simulator.clear("SUIUSD")


# --- a user who asks --------------------------------------------------------------------------------------------------


def test_a_user_may_not_ask_again_and_again(shared: Watched, simulator: Simulator) -> None:
    watched = shared
    simulator.fault("AXSUSD", "not_found")
    with watched.tracking("AXSUSD"):
        watched.wait_for("AXSUSD", State.NOT_FOUND)
        before = len(watched.quotes)
        watched.scraper.retry(Ticker("AXSUSD"))
        watched.wait_for("AXSUSD", State.NOT_FOUND, after=before)
        with pytest.raises(RetriedTooSoon, match="tried a moment ago") as refused:
            watched.scraper.retry(Ticker("AXSUSD"))
        assert 1 <= refused.value.retry_after_s <= 10
    assert simulator.pages()["loads"]["BINANCE:AXSUSD"] == 2
    simulator.clear("AXSUSD")


def test_a_user_may_ask_for_a_try_now(shared: Watched, simulator: Simulator) -> None:
    watched = shared
    simulator.fault("SANDUSD", "not_found")
    simulator.fault("MANAUSD", "forbidden")
    sand, mana, btc = Ticker("SANDUSD"), Ticker("MANAUSD"), Ticker("BTCUSD")
    with watched.tracking(sand, mana):
        watched.wait_for(sand, State.NOT_FOUND)
        watched.wait_for(mana, State.BLOCKED)
        watched.wait_until_live(btc)
        assert watched.scraper.retry(btc) == "BTCUSD is live: its page is left as it is."
        with pytest.raises(RetryRefused, match="TradingView blocks MANAUSD"):
            watched.scraper.retry(mana)
        with pytest.raises(RetryRefused, match="has no page"):
            watched.scraper.retry(Ticker("LTCUSD"))
        simulator.clear(sand)
        assert watched.scraper.retry(sand) == "SANDUSD: its page is opened now."
        watched.wait_until_live(sand)
    simulator.clear(mana)


@pytest.mark.parametrize("text", ["BTCUSDT.P_OI", "binance:btcusdt.p_oi", "BTCUSD_OI"])
def test_open_interest_is_refused_when_added(text: str) -> None:
    with pytest.raises(InvalidTicker, match="open interest, not a price"):
        parse_ticker(text)
