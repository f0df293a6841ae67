"""A feed believes what a page tells only as far as it is proven, and calls a price live only while it is.

`Feed` has no clock and no browser, so these tests are the page and the clocks.
"""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import NOW, OFFER, OFFER_TIME, SYMBOL, TITLE, URL, Part, Stage

from quotes import Quote, Source, State, Ticker, UnreadablePrice, parse_price, wire_fields
from tradingview.feed import PageTrouble
from tradingview.messages import DISAGREEMENT_LIMIT_MS
from tradingview.proof import MAX_SOCKET_PROOF_MS, MIN_SOCKET_PROOF_MS, TEXT_PROOF_MS


@pytest.fixture
def stage() -> Stage:
    """A page that has only begun."""
    return Stage()


@pytest.fixture
def page(stage: Stage) -> Stage:
    """A page that has said whose it is."""
    stage.page()
    return stage


@pytest.fixture
def live(page: Stage) -> Stage:
    """A page whose socket has shown 64001.50."""
    page.frame(lp=64001.5, pricescale=100, minmov=1, lp_time=1_794_999_999)
    return page


# --- the page's own quote frames --------------------------------------------------------------------------------------


def test_a_ticker_is_starting_until_its_page_shows_a_price(stage: Stage) -> None:
    starting = Quote(Ticker("BTCUSD"), State.STARTING, exchange="BINANCE", reason="its page has not shown a price yet")
    assert stage.quote == starting
    stage.page()
    stage.frame(volume=12.5)
    stage.pulse(socket=0)
    assert stage.quote.state is State.STARTING
    assert not stage.feed.has_price


def test_a_frame_gives_a_live_price_with_all_its_times(live: Stage) -> None:
    quote = live.quote
    assert (quote.state, quote.price_text, quote.source) == (State.LIVE, "64001.50", Source.SOCKET)
    assert (quote.timestamp, quote.received_at, quote.source_time) == (NOW, NOW, 1_794_999_999_000)
    assert quote.reason == "the page's quotes have no change, volume, high, low"
    live.frame(chp=-0.5, volume=7, high_price=65000, low_price=63000)
    assert live.quote.reason is None
    assert live.feed.has_price


def test_partial_frames_are_merged(page: Stage) -> None:
    page.frame(pricescale=100, minmov=1, currency_code="USD", description="Bitcoin / U.S. Dollar")
    page.frame(lp=64001.5)
    page.frame(ch=-10.25, chp=-0.5)
    page.frame(volume=1234.5, high_price=65000, low_price=63000.5, open_price=64000)
    page.frame(bid=64001.25)
    page.frame(ask=64001.75)
    quote = page.quote
    assert (quote.price_text, quote.change, quote.change_percent, quote.volume) == ("64001.50", -10.25, -0.5, 1234.5)
    assert (quote.high, quote.low, quote.open, quote.bid, quote.ask) == (65000, 63000.5, 64000, 64001.25, 64001.75)
    assert (quote.currency, quote.description) == ("USD", "Bitcoin / U.S. Dollar")


def test_a_null_changes_nothing(live: Stage) -> None:
    live.frame(chp=-0.5, volume=7)
    before = live.quote
    live.wait(1)
    live.frame(lp=None, lp_time=None, chp=None, volume=None, pricescale=None, minmov=None, description=None)
    assert live.quote == before
    live.frame(lp=64002)
    assert (live.quote.price_text, live.quote.source_time) == ("64002.00", 1_794_999_999_000)


def test_a_price_is_printed_anew_when_its_decimals_become_known(page: Stage) -> None:
    page.frame(lp=64001.5)
    assert page.quote.price_text == "64001.5"
    page.wait(1)
    page.frame(pricescale=100, minmov=1)
    assert (page.quote.price_text, page.quote.timestamp) == ("64001.50", NOW)


def test_decimals_alone_are_no_refused_price(page: Stage) -> None:
    page.frame(pricescale=100)
    assert not any(name.startswith("refused") for name in page.counters)


def test_frames_of_another_symbol_are_refused(live: Stage) -> None:
    before = live.quote
    names = ("COINBASE:BTCUSD", "BINANCE:ETHUSD", "BTCUSD", "", None, 7, [SYMBOL], "=", "=[]", "={}", "=" + "[" * 9000)
    for name in names:
        live.frames(Part({"lp": 1.5}, name=name))
        assert live.quote == before
    assert live.refused["socket: frame: unreadable"] == len(names)


def test_frames_count_only_once_the_page_is_known_not_to_be_anothers(stage: Stage) -> None:
    stage.frame(lp=64001.5)
    assert stage.quote.price_text is None
    stage.page()
    assert stage.shown == (State.LIVE, "64001.5", Source.SOCKET)


@pytest.mark.parametrize(
    ("url", "price"),
    [
        (URL, "64001.5"),
        ("https://www.tradingview.com/symbols/BINANCE-BTCUSD/", "64001.5"),
        ("https://www.tradingview.com/symbols/ETHUSD/?exchange=BINANCE", None),
        ("https://www.tradingview.com/symbols/BTCUSDT/", None),
    ],
)
def test_the_address_says_whose_page_it_is_when_the_page_itself_does_not(
    stage: Stage, url: str, price: str | None
) -> None:
    stage.page(resolved=None, url=url)
    stage.frame(lp=64001.5)
    assert stage.quote.price_text == price


def test_an_older_price_never_replaces_a_newer_one(live: Stage) -> None:
    live.tell("frames", at=NOW - 500, socket=1, frames=[Part({"lp": 1}).told()])
    assert (live.quote.price_text, live.quote.timestamp) == ("64001.50", NOW)
    assert live.counters["messages_out_of_order"] == 1


def test_two_prices_within_one_millisecond_are_taken_in_the_order_they_came(live: Stage) -> None:
    live.frame(lp=64002)
    live.frame(lp=64003)
    assert live.quote.price_text == "64003.00"
    assert live.counters["messages_out_of_order"] == 0


def test_what_a_page_said_before_it_was_loaded_anew_no_longer_counts(live: Stage) -> None:
    old = live.document
    live.start()
    live.page()
    live.tell("frames", page=old, socket=1, frames=[Part({"lp": 64002}).told()])
    live.tell("pulse", page=old, sockets=[{"id": 1, "open": True, "heard": NOW - 2, "beats": []}])
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    assert live.counters["messages_of_old_pages"] == 2


# --- the price element ------------------------------------------------------------------------------------------------


def test_the_price_element_is_believed_only_once_the_page_said_whose_it_is(stage: Stage) -> None:
    stage.price("64,001.50")
    assert stage.quote.price_text is None
    stage.page(resolved=None)
    stage.price("64,002.50")
    stage.pulse(dom=0, text="64,002.50")
    assert stage.quote.price_text is None
    stage.page()
    stage.price("64,003.50")
    assert stage.shown == (State.LIVE, "64003.50", Source.DOM)


def test_a_repaint_before_the_page_said_whose_it_is_proves_nothing(stage: Stage) -> None:
    """Found by chance: the text that a later pulse carries was taken for live by the proof of that repaint."""
    stage.price("64,001.50")
    stage.page()
    stage.pulse(dom=-1, text="64,001.50")
    assert stage.quote.state is State.STARTING


def test_the_price_element_serves_when_the_socket_says_nothing_of_the_price(page: Stage) -> None:
    page.frame(volume=12.5)
    page.price("64,001.50")
    assert page.shown == (State.LIVE, "64001.50", Source.DOM)


@pytest.mark.parametrize("useless", [None, 0, -1, "64000", {}, [], float("nan"), float("inf"), 1e300])
def test_the_price_element_serves_when_the_socket_gives_no_readable_price(page: Stage, useless: object) -> None:
    page.frame(lp=useless)
    page.price("64,001.50")
    assert page.shown == (State.LIVE, "64001.50", Source.DOM)


def test_the_price_element_takes_over_when_the_socket_closes_and_gives_back(live: Stage) -> None:
    live.wait(1)
    live.pulse(is_open=False, socket=1)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET), "a closed socket ends no proof"
    live.price("64,005.00")
    assert live.shown == (State.LIVE, "64005.00", Source.DOM)
    live.wait(1)
    live.frames(Part({"lp": 64006}), socket=2)
    assert live.shown == (State.LIVE, "64006.00", Source.SOCKET)
    assert (live.counters["fell_to_dom"], live.counters["climbed_to_socket"]) == (1, 1)


def test_what_the_socket_told_stays_beside_the_pages_price_for_a_minute(live: Stage) -> None:
    """Then it is unknown, with a reason in words, until a socket tells it again."""
    live.frame(ch=-5, chp=-0.5, volume=7, high_price=65000, low_price=63000)
    live.pulse(is_open=False, socket=0)
    live.wait(0.1)
    live.price("64,005.00", percent="\u22120.49%")
    quote = live.quote
    assert (quote.state, quote.source, quote.reason) == (State.LIVE, Source.DOM, None)
    assert (quote.change, quote.change_percent, quote.volume) == (-5, -0.49, 7), "what the page shows itself is newer"
    for second in range(1, 61):
        live.wait(1)
        live.price(f"64,005.{second:02}", percent="\u22120.48%")
        assert live.quote.volume == (7 if second < 60 else None)
    quote = live.quote
    assert (quote.state, quote.change_percent, quote.change) == (State.LIVE, -0.48, None)
    assert quote.reason == "the price element shows no volume, high, low"
    for price in (64006, 64007):  # a proof that comes after a silence counts a second later
        live.wait(1.1)
        live.frames(Part({"lp": price, "chp": -0.5, "volume": 8}), socket=2)
    assert (live.quote.change_percent, live.quote.volume, live.quote.high) == (-0.5, 8, None)


def test_a_change_that_is_painted_after_its_price_is_told_too(page: Stage) -> None:
    at = page.now
    page.tell("price", element={"text": "64,001.50", "painted": at - 2, "changed": at - 2, "percent": ""})
    before = page.quote
    page.tell("pulse", element={"text": "64,001.50", "painted": at - 2, "changed": at - 2, "percent": "+0.79%"})
    assert (before.change_percent, page.quote.change_percent) == (None, 0.79)


def test_a_text_that_repeats_the_socket_proves_no_more_than_the_socket(live: Stage) -> None:
    live.wait(0.1)
    live.price("64,001.50")
    live.session("critical_error")
    for age in range(1, 20):
        live.wait(1)
        live.pulse(sockets=[{"id": 1, "open": True, "heard": live.now - 2}], dom=age, text="64,001.50")
    assert live.quote.state is State.STALE
    assert live.quote.source is Source.SOCKET


def test_the_element_tells_the_change_beside_its_price(page: Stage) -> None:
    page.price("64,001.50", change="\u22121,234.50", percent="\u22121.89%")
    assert (page.quote.change, page.quote.change_percent) == (-1234.5, -1.89)
    page.price("64,002.50", change="+0.00", percent="0.00%")
    assert (page.quote.change, page.quote.change_percent) == (0, 0)
    for text in ("", "—", "1.234,5", "3.77\u2006T", "1 2", None, 7):
        page.price("64,003.50", change=text, percent=text)
        page.price("64,004.50", change=text, percent=text)
        assert (page.quote.change, page.quote.change_percent) == (None, None)


def test_a_price_that_another_source_has_too_stays_as_old_as_it_is(live: Stage) -> None:
    live.wait(MIN_SOCKET_PROOF_MS / 1000 - 1)
    live.pulse(is_open=False, dom=0, text="64,001.50")
    live.wait(2)
    live.feed.choose(live.uptime, live.now)
    assert live.shown == (State.LIVE, "64001.50", Source.DOM)
    assert live.quote.timestamp == NOW


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("—", "no price yet"),
        ("3.77\u2006T", "rounded to a unit"),
        ("64,001.50 64,002.00", "more than one number"),
        ("\u221264,001.50", "negative"),
        ("1.234,5", "not a number"),
        (None, "not a number"),
        ({"text": "5"}, "not a number"),
    ],
)
def test_an_unreadable_price_is_counted_by_its_reason(page: Stage, text: object, reason: str) -> None:
    page.price(text)
    assert page.quote.state is State.STARTING
    assert page.counters[f"refused: {reason}"] == 1


def test_a_price_older_than_the_one_shown_does_not_take_over(live: Stage) -> None:
    live.price("63,999.00")
    live.wait(1)
    live.frame(lp=64500)
    live.pulse(is_open=False, dom=1, text="63,999.00")
    assert live.quote.price_text == "64500.00"


# --- the title --------------------------------------------------------------------------------------------------------


def test_a_title_with_symbol_price_and_arrow_is_the_last_resort(page: Stage) -> None:
    page.title("BTCUSD 64,001.50 ▲ +0.79% Unnamed")
    assert page.shown == (State.LIVE, "64001.50", Source.TITLE)
    page.price("64,002.50")
    assert page.shown == (State.LIVE, "64002.50", Source.DOM)


@pytest.mark.parametrize(
    "title",
    [
        TITLE,
        "10 Year Treasury Yield (US10Y) ▲",
        "BTCUSD 64,001.50",
        "ETHUSD 3,001.50 ▲ +0.79%",
        "BTCUSDT 64,001.50 ▲ +0.79%",
        "Why BTCUSD 64,001.50 ▲ +0.79%",
        "BTCUSD +0.79% ▲ 64,001.50",
        "BTCUSD 3.77T ▲ +0.79%",
        "BTCUSD 1.234,5 ▲ +0.79%",
        None,
        7,
    ],
)
def test_any_other_title_is_no_price(page: Stage, title: object) -> None:
    page.title(title)
    page.pulse(title={"text": title, "changed": page.now - 2})
    assert page.quote.price_text is None


# --- structured data --------------------------------------------------------------------------------------------------


def test_structured_data_is_a_dated_snapshot(stage: Stage) -> None:
    stage.page(offer=OFFER)
    quote = stage.quote
    assert (quote.state, quote.price_text, quote.source) == (State.SNAPSHOT, "63000.10", Source.SCRIPT)
    assert (quote.source_time, quote.timestamp, quote.received_at) == (OFFER_TIME, NOW, NOW)
    assert not quote.is_current
    assert not stage.feed.has_price


def test_a_snapshot_never_becomes_live_by_itself(stage: Stage) -> None:
    stage.page(offer=OFFER)
    stage.frame(volume=12.5)
    stage.pulse(socket=0)
    assert stage.quote.state is State.SNAPSHOT
    stage.frame(lp=64001.5)
    assert stage.shown == (State.LIVE, "64001.5", Source.SOCKET)


def test_a_snapshot_never_replaces_what_a_page_showed(live: Stage) -> None:
    live.page(offer=OFFER)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.start()
    live.page(offer=OFFER)
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)


@pytest.mark.parametrize(
    "offer",
    [
        None,
        [],
        "63,000.10",
        {},
        {"price": "63,000.10"},
        {"price": "63,000.10", "priceValidUntil": None},
        {"price": "63,000.10", "priceValidUntil": "yesterday"},
        {"price": "63,000.10", "priceValidUntil": 1_795_003_200},
        {"price": "", "priceValidUntil": "2026-11-18T12:00:00Z"},
        {"price": None, "priceValidUntil": "2026-11-18T12:00:00Z"},
        {"price": "-5", "priceValidUntil": "2026-11-18T12:00:00Z"},
        {"price": ["63,000.10"], "priceValidUntil": "2026-11-18T12:00:00Z"},
    ],
)
def test_a_snapshot_without_a_price_or_a_date_is_none(stage: Stage, offer: object) -> None:
    stage.page(offer=offer)
    assert stage.shown == (State.STARTING, None, None)


def test_a_snapshot_needs_the_right_symbol(stage: Stage) -> None:
    stage.page(resolved=None, offer=OFFER)
    assert stage.quote.state is State.STARTING


def test_a_tiny_snapshot_price_keeps_its_digits_as_a_number_too(stage: Stage) -> None:
    stage.page(offer={"price": 8.12e-06, "priceValidUntil": "2026-11-18T12:00:00Z"})
    assert stage.shown == (State.SNAPSHOT, "0.00000812", Source.SCRIPT)


@pytest.mark.parametrize("moment", ["2026-11-18T12:00:00", "2026-11-18T12:00:00+00:00", "2026-11-18T21:00:00+09:00"])
def test_a_snapshots_date_is_utc_wherever_pluto_runs(
    stage: Stage, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        stage.page(offer={"price": "5", "priceValidUntil": moment})
    time.tzset()
    assert stage.quote.source_time == OFFER_TIME


# --- pages that are no use --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["COINBASE:BTCUSD", "BINANCE:BTCUSDT", "BTCUSD"])
def test_a_page_of_another_symbol_takes_the_price_away(live: Stage, shown: str) -> None:
    with pytest.raises(PageTrouble, match=f"TradingView shows visitors {shown} instead of {SYMBOL}") as raised:
        live.page(resolved=shown, offer=OFFER)
    live.fail(raised.value)
    assert live.shown == (State.ERROR, None, None)


def test_a_page_that_went_elsewhere_takes_the_price_away(live: Stage) -> None:
    with pytest.raises(PageTrouble, match=f"asked for {SYMBOL}, page went to /markets/") as raised:
        live.page(url="https://www.tradingview.com/markets/", resolved=None)
    live.fail(raised.value)
    assert live.shown == (State.ERROR, None, None)


def test_a_page_that_is_not_found_takes_the_price_away(live: Stage) -> None:
    with pytest.raises(PageTrouble, match="no symbol BINANCE:BTCUSD") as raised:
        live.page(notFound=True, resolved=None, title="Page not found — TradingView")
    live.fail(raised.value)
    assert live.shown == (State.NOT_FOUND, None, None)


def test_a_symbol_that_the_socket_does_not_know_is_not_found(live: Stage) -> None:
    with pytest.raises(PageTrouble) as raised:
        live.frames(Part(status="error", error="no_such_symbol"))
    live.fail(raised.value)
    assert live.shown == (State.NOT_FOUND, None, None)


def test_a_frame_that_refuses_is_an_error_with_its_reason(live: Stage) -> None:
    with pytest.raises(PageTrouble, match="permission_denied") as raised:
        live.frames(Part({"lp": 1}, status="permission_denied"))
    assert raised.value.state is State.ERROR


def test_a_failed_page_says_why_and_when_it_is_tried_again(live: Stage) -> None:
    live.fail(PageTrouble(State.ERROR, "the page crashed"))
    quote = live.quote
    assert (quote.state, quote.reason, quote.next_try_at) == (State.ERROR, "the page crashed", NOW + 1000)
    assert quote.price_text == "64001.50"
    assert not quote.is_current
    live.feed.reopen()
    assert live.quote == quote, "to be tried again is not to do well"
    live.start()
    live.page()
    assert (live.quote.state, live.quote.next_try_at) == (State.STALE, None)


def test_the_next_page_ends_the_trouble_when_it_says_whose_it_is(live: Stage) -> None:
    live.fail(PageTrouble(State.ERROR, "the page crashed"))
    live.feed.reopen()
    live.start()
    live.frame(lp=64002.5, pricescale=100)
    assert live.quote.state is State.ERROR
    live.page()
    assert live.shown == (State.LIVE, "64002.50", Source.SOCKET)


def test_a_void_price_leaves_only_what_the_ticker_itself_says() -> None:
    stage = Stage(simulated=True)
    stage.page(description="Bitcoin", currency="USD")
    stage.frame(lp=64001.5, volume=7)
    stage.fail(PageTrouble(State.NOT_FOUND, "gone", void_price=True))
    assert stage.quote.price_text is None
    stage.feed.reopen()
    stage.start()
    stage.page()
    reason = "its page has not shown a price yet"
    assert stage.quote == Quote(Ticker("BTCUSD"), State.STARTING, exchange="BINANCE", simulated=True, reason=reason)


def test_a_price_that_can_no_longer_be_read_is_not_live(live: Stage) -> None:
    live.frame(lp=0)
    assert (live.quote.state, live.quote.reason) == (State.STALE, "the page's price can't be read: zero")
    live.frame(lp=64003.5)
    assert live.shown == (State.LIVE, "64003.50", Source.SOCKET)


def test_an_element_that_shows_a_placeholder_is_not_live(stage: Stage) -> None:
    stage.page()
    stage.price("64,001.50")
    assert stage.shown == (State.LIVE, "64001.50", Source.DOM)
    stage.price("—")
    assert stage.quote.state is State.STALE


# --- freshness --------------------------------------------------------------------------------------------------------


def test_a_price_is_stale_after_fifteen_seconds_without_proof(live: Stage) -> None:
    live.now = NOW + MIN_SOCKET_PROOF_MS
    assert live.quote.state is State.LIVE
    live.now += 1
    assert (live.quote.state, live.quote.reason) == (State.STALE, "TradingView's page shows no sign of life")
    assert live.quote.price_text == "64001.50"


def test_a_price_that_stands_still_stays_live_while_its_feed_is_proven(live: Stage) -> None:
    for _ in range(200):
        live.wait(2)
        live.pulse(socket=1)
        assert live.quote.state is State.LIVE
    assert live.quote.timestamp == NOW


def test_what_was_held_up_within_the_proof_is_read_before_any_of_it_is_shown(live: Stage) -> None:
    """As after a renderer that stood still for 8 s: prices that are long replaced come first."""
    live.wait(8)
    live.frame(lp=64002)
    live.frame(lp=64003)
    live.pulse(socket=0)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.wait(0.9)
    live.frame(lp=64004)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.wait(0.1)
    live.tick()
    assert live.shown == (State.LIVE, "64004.00", Source.SOCKET)
    live.frame(lp=64005)
    assert live.shown == (State.LIVE, "64005.00", Source.SOCKET)


@pytest.mark.parametrize(("silence", "before"), [(8, State.LIVE), (30, State.STALE)])
def test_what_was_held_up_is_not_shown_however_slowly_it_is_read(live: Stage, silence: int, before: State) -> None:
    live.wait(silence)
    for age in (3000, 2500, 2000, 1500, 1000, 600):  # ms between the page's telling and our hearing
        told = [Part(fields={"lp": 60000 + age}).told()]
        live.hear({"kind": "frames", "page": live.document, "at": live.now - age, "socket": 1, "frames": told})
        live.tick()
        assert live.shown == (before, "64001.50", Source.SOCKET), age
        live.wait(0.4)
    live.frame(lp=64005)
    assert live.shown == (State.LIVE, "64005.00", Source.SOCKET)


def test_what_was_held_up_is_shown_once_no_more_of_it_comes(live: Stage) -> None:
    live.wait(8)
    live.frame(lp=64002)
    live.wait(0.9)
    live.tick()
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.wait(0.1)
    live.tick()
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)


@pytest.mark.parametrize(("silence", "before"), [(3, State.LIVE), (30, State.STALE)])
def test_what_a_stopped_page_held_up_is_not_shown_until_its_timers_are_on_time(
    live: Stage, silence: int, before: State
) -> None:
    """Such a page stamps what waited in its sockets when it reads it, so that old prices look new."""
    live.wait(silence)
    until = live.quote.proven_until
    for late in (silence * 1000, silence * 1000, 1400, 1400, 501):
        told = [Part(fields={"lp": 60000 + late}).told()]
        live.hear({"kind": "frames", "page": live.document, "at": live.now, "late": late, "socket": 1, "frames": told})
        live.tick()
        assert (live.shown, live.quote.proven_until) == ((before, "64001.50", Source.SOCKET), until), late
        live.wait(0.7)
    live.frame(lp=64005)
    assert live.shown == (State.LIVE, "64005.00", Source.SOCKET)


def test_a_busy_page_that_was_not_stopped_holds_nothing_up(live: Stage) -> None:
    told = [Part(fields={"lp": 64002}).told()]
    live.hear({"kind": "frames", "page": live.document, "at": live.now, "late": 1999, "socket": 1, "frames": told})
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)


def test_a_backlog_renews_no_proof_of_the_price_from_before_it(live: Stage) -> None:
    until = live.quote.proven_until
    live.wait(14.5)
    live.frame(lp=64002)
    live.wait(0.4)
    assert (live.shown, live.quote.proven_until) == ((State.LIVE, "64001.50", Source.SOCKET), until)
    live.wait(0.2)
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    live.wait(0.4)
    live.tick()
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)


def test_a_proof_after_a_silence_counts_a_second_later_by_itself(live: Stage) -> None:
    """As after a lost network, which brings all that was sent into it, at once and in order."""
    live.wait(30)
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    live.frame(lp=64002)
    live.wait(0.5)
    live.frame(lp=64003)
    live.pulse(socket=0)
    live.tick()
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    live.wait(0.4)
    live.tick()
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    live.wait(0.1)
    live.tick()
    assert live.shown == (State.LIVE, "64003.00", Source.SOCKET)
    live.wait(14)
    assert live.shown == (State.LIVE, "64003.00", Source.SOCKET)
    live.wait(0.6)
    assert live.shown == (State.STALE, "64003.00", Source.SOCKET), "it lasts from when it came, not from when it counts"


def test_any_frame_of_the_symbol_is_proof(live: Stage) -> None:
    live.wait(14)
    live.frame(volume=13)
    live.wait(14)
    assert live.quote.state is State.LIVE


PROVES_NOTHING: list[object] = [0, -1, None, "now", True, NOW - 60_000, NOW + 60_000, float("nan"), [], 10**400]


@pytest.mark.parametrize("moment", PROVES_NOTHING)
def test_a_pulse_proves_nothing_but_when_the_feed_last_spoke(live: Stage, moment: object) -> None:
    live.wait(30)
    for sockets in ([{"id": 1, "open": True, "heard": moment}], [{"id": 1, "open": True, "beats": [moment]}], moment):
        live.tell("pulse", sockets=sockets)
        live.wait(1.1)
        live.tick()
        assert live.quote.state is State.STALE


def test_a_repaint_does_not_prove_the_sockets_price(live: Stage) -> None:
    live.wait(30)
    live.pulse(socket=30, dom=0, text="64,001.50")
    live.wait(1.1)
    live.tick()
    assert (live.quote.state, live.quote.source) == (State.LIVE, Source.DOM), "it is a price of its own"


@pytest.mark.parametrize("ahead", [-3_600_000, -5_000, 5_000, 3_600_000])
def test_the_pages_clock_need_not_be_ours(ahead: int) -> None:
    stage = Stage()
    stage.feed.reopen()
    told: list[tuple[str, dict[str, object]]] = [
        ("start", {}),
        ("page", {"resolved": SYMBOL, "url": URL}),
        ("frames", {"socket": 1, "frames": [Part({"lp": 64001.5}).told()]}),
    ]
    for kind, message in told:
        stage.tell(kind, at=stage.now + ahead, **message)
    assert (stage.quote.state, stage.quote.timestamp) == (State.LIVE, NOW)
    stage.wait(16)
    assert stage.quote.state is State.STALE


def test_a_page_whose_clock_leaps_ahead_proves_nothing_about_the_future(live: Stage) -> None:
    live.tell("frames", at=NOW + 3_600_000, socket=1, frames=[Part({"lp": 64002}).told()])
    assert (live.quote.timestamp or 0) <= live.now
    live.wait(16)
    assert live.quote.state is State.STALE


def test_a_message_that_was_long_under_way_is_not_fresh(live: Stage) -> None:
    """The scraper's thread was busy: what it hears now was true then."""
    live.wait(20)
    live.tell("frames", at=NOW + 3_000, socket=1, frames=[Part({"lp": 64002}).told()])
    live.wait(1.1)
    live.tick()
    assert live.quote.state is State.STALE


def test_a_doubt_holds_until_the_page_sees_something_after_it(live: Stage) -> None:
    live.feed.doubt("the page is frozen")
    assert (live.quote.state, live.quote.reason) == (State.STALE, "the page is frozen")
    live.frame(volume=7)  # this may have waited since before
    assert live.quote.reason == "the page is frozen"
    live.wait(0.9)
    live.frame(lp=64002)  # so may this
    live.wait(1)
    live.pulse(socket=2)
    assert live.quote.state is State.STALE
    live.wait(1)
    live.pulse(socket=0.5)
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)


def test_after_a_doubt_no_source_is_proven_by_another(live: Stage) -> None:
    live.feed.doubt("the page is frozen")
    live.pulse()
    live.wait(1)
    live.pulse(socket=1, dom=0, text="—")
    assert live.quote.state is State.STALE


def test_a_proof_is_not_taken_back_by_an_older_one(live: Stage) -> None:
    live.wait(14)
    live.frame(volume=7)
    live.pulse(socket=14)
    live.wait(5)
    assert live.quote.state is State.LIVE


def test_the_delay_of_messages_is_not_forgotten_from_one_minute_to_the_next(live: Stage) -> None:
    live.wait(7)
    for _ in range(5):
        live.frame(volume=7)
        live.wait(12)
    live.frame(volume=7)
    live.wait(9)
    live.tell("frames", at=live.now - 8_000, socket=1, frames=[Part({"volume": 7}).told()])
    live.wait(6.5)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.wait(1)
    assert live.quote.state is State.STALE


def test_after_a_sleep_nothing_is_live_until_the_page_sees_something_new(live: Stage) -> None:
    """The page's clock stood still meanwhile: 64001.50 seems to be of a moment ago."""
    page_clock = live.now
    live.wait(3600)
    live.feed.doubt("this computer was asleep", slept=True)
    live.tell("pulse", at=page_clock + 10, sockets=[{"id": 1, "open": True, "heard": page_clock - 2}])
    live.tick()
    assert live.quote.state is State.STALE
    live.wait(1.01)
    live.tell("frames", at=page_clock + 1_020, socket=1, frames=[Part({"lp": 64002}).told()])
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)
    assert live.quote.timestamp == live.now


@pytest.mark.parametrize("anew", ["opened again", "reloaded itself"])
def test_an_old_price_is_not_live_until_the_new_page_has_shown_one(live: Stage, anew: str) -> None:
    if anew == "opened again":
        live.feed.reopen()
        assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    live.start()
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    assert live.quote.reason == "its page is being opened again"
    live.wait(1)
    live.page(offer=OFFER)
    live.frame(volume=7, pricescale=10)
    live.pulse(socket=0)
    assert live.shown == (State.STALE, "64001.50", Source.SOCKET)
    assert not live.feed.has_price
    live.frame(lp=64010)
    assert live.shown == (State.LIVE, "64010.0", Source.SOCKET)


def test_a_new_page_has_to_say_anew_whose_price_element_it_is(live: Stage) -> None:
    live.start()
    live.price("1.50")
    assert live.quote.price_text == "64001.50"


@pytest.mark.parametrize(
    "mode", ["delayed", "delayed_streaming_900", "endofday", "snapshot", "forbidden", "connecting", "replay", "later"]
)
def test_a_price_in_a_mode_that_is_not_now_is_stale_with_its_name(live: Stage, mode: str) -> None:
    live.frame(update_mode=mode)
    assert (live.quote.state, live.quote.reason) == (
        State.STALE,
        f"TradingView doesn't give this price as it happens ({mode})",
    )


@pytest.mark.parametrize("mode", ["streaming", "pulsed"])
def test_a_price_in_a_mode_that_is_now_is_live(live: Stage, mode: str) -> None:
    live.frame(update_mode="delayed")
    live.frame(update_mode=mode)
    assert live.quote.state is State.LIVE


@pytest.mark.parametrize("mark", ["delayed", "endofday", "snapshot", "forbidden", "replay", "later"])
def test_a_price_that_the_page_marks_as_not_now_is_stale_with_its_name(live: Stage, mark: str) -> None:
    live.pulse(socket=0, mode=mark)
    assert live.shown[0] is State.STALE
    assert f"({mark})" in (live.quote.reason or "")
    live.pulse(socket=0, mode="realtime")
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)


def test_a_page_that_marks_its_element_as_connecting_says_nothing_of_a_socket_that_lives(live: Stage) -> None:
    """A page that connects anew does so, and a proof that still holds is no less a proof."""
    live.pulse(socket=0, mode="connecting")
    assert live.shown[0] is State.LIVE
    live.wait(0.1)
    live.price("64,900.00")
    live.pulse(is_open=False, dom=0, text="64,900.00", mode="connecting")
    assert (live.shown[0], live.quote.source) == (State.STALE, Source.DOM)
    assert "(connecting)" in (live.quote.reason or "")


def test_a_renewed_page_takes_over_without_a_price_going_back_in_time(live: Stage) -> None:
    new = Stage()
    new.wait(5)
    new.page()
    new.frame(lp=64001.5, pricescale=100)
    new.feed.succeed(live.feed)
    assert new.shown == live.shown
    assert new.quote.timestamp == NOW


def test_a_renewed_page_with_another_price_is_as_new_as_that(live: Stage) -> None:
    new = Stage()
    new.wait(5)
    new.page()
    new.frame(lp=64002, pricescale=100)
    new.feed.succeed(live.feed)
    assert (new.quote.price_text, new.quote.timestamp) == ("64002.00", NOW + 5000)
    live.wait(9)
    live.frame(lp=64003)
    live.wait(1)
    live.tick()
    new.feed.succeed(live.feed)
    assert (new.quote.price_text, new.quote.timestamp) == ("64002.00", NOW + 9000)


# --- socket and page --------------------------------------------------------------------------------------------------


def test_a_lasting_disagreement_between_socket_and_page_is_stale(live: Stage) -> None:
    live.price("64,900.00")
    live.wait(DISAGREEMENT_LIMIT_MS / 1000)
    live.pulse(socket=0, dom=2, text="64,900.00")
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)
    live.wait(0.05)
    live.pulse(socket=0, dom=2.05, text="64,900.00")
    assert (live.quote.state, live.quote.reason) == (State.STALE, "socket and page disagree")
    live.wait(2.1)
    live.pulse(socket=0, dom=4.15, text="64,900.00")
    assert live.quote.reason == "socket and page disagree"
    assert live.counters["disagreements"] == 1


def test_of_two_that_disagree_the_newer_by_source_time_is_shown(live: Stage) -> None:
    """The frame says that its price is of a second before; the page has shown another since."""
    live.wait(5)
    live.price("64,900.00")
    live.wait(3)
    live.pulse(socket=0, dom=3, text="64,900.00")
    assert (live.quote.state, live.quote.price_text) == (State.STALE, "64900.00")
    live.wait(1)
    live.frame(lp=64500, lp_time=(live.now - 1000) // 1000)
    assert (live.quote.state, live.quote.price_text) == (State.STALE, "64500.00")


def test_a_disagreement_ends_when_the_page_shows_what_the_socket_said(live: Stage) -> None:
    live.price("64,900.00")
    live.wait(3)
    live.pulse(socket=0, dom=3, text="64,900.00")
    assert live.shown[0] is State.STALE
    live.frame(lp=64900)
    assert live.shown == (State.LIVE, "64900.00", Source.SOCKET)


def test_a_disagreement_ends_with_the_socket(live: Stage) -> None:
    live.wait(0.1)
    live.price("64,900.00")
    live.wait(3)
    live.pulse(socket=0, dom=3, text="64,900.00")
    assert live.quote.state is State.STALE
    live.pulse(is_open=False, dom=3, text="64,900.00")
    assert live.shown == (State.LIVE, "64900.00", Source.DOM)


def test_a_disagreement_ends_when_the_page_shows_no_price(live: Stage) -> None:
    live.price("64,900.00")
    live.price("—")
    live.wait(3)
    live.pulse(socket=0, dom=3, text="—")
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)


def test_a_disagreement_ends_when_the_price_element_is_gone(live: Stage) -> None:
    live.price("64,900.00")
    live.wait(3)
    live.pulse(socket=0)
    assert live.shown == (State.LIVE, "64001.50", Source.SOCKET)


def test_a_page_that_is_late_to_paint_does_not_disagree(live: Stage) -> None:
    live.wait(5)
    live.frame(lp=64002)
    live.wait(1.9)
    live.pulse(socket=0, dom=6.8, text="64,001.50")
    assert live.shown == (State.LIVE, "64002.00", Source.SOCKET)
    assert live.counters["disagreements"] == 0
    live.wait(0.2)
    live.pulse(socket=0, dom=7, text="64,001.50")
    assert live.quote.reason == "socket and page disagree"


def test_a_page_that_is_behind_a_fast_socket_does_not_disagree(live: Stage) -> None:
    """What it shows was said a moment ago, whatever has been said since."""
    for number in range(200):
        live.wait(0.1)
        live.frame(lp=64001 + number)
        live.pulse(socket=0, dom=0.1, text=f"{64000 + max(number, 1)}.00")
        assert live.quote.state is State.LIVE
    assert live.counters["disagreements"] == 0


def test_a_page_that_always_shows_other_prices_disagrees(live: Stage) -> None:
    for number in range(1, 30):
        live.wait(0.1)
        live.frame(lp=64001 + number)
        live.price(f"64,9{number + 10}.00")
        assert (live.quote.state is State.LIVE) is (number <= 21)
    live.frame(lp=64939)
    assert live.quote.state is State.LIVE


def test_a_page_that_stands_still_beside_a_fast_socket_disagrees(live: Stage) -> None:
    live.frame(lp=64001)
    for number in range(100):
        live.wait(0.1)
        live.frame(lp=64002 + number)
        live.pulse(socket=0, dom=0.1 * number, text="64,001.00")
    assert live.quote.reason == "socket and page disagree"


def test_a_frame_is_as_old_as_its_source_says_when_the_page_disagrees(live: Stage) -> None:
    live.wait(10)
    live.frame(lp=64100, lp_time=NOW // 1000)
    live.price("64,900.00")
    live.wait(3)
    live.pulse(socket=0, dom=3, text="64,900.00")
    assert (live.quote.state, live.quote.price_text) == (State.STALE, "64900.00")


def test_neither_the_noise_of_floats_nor_fewer_decimals_disagree(page: Stage) -> None:
    for number, framed in ((0.1 + 0.2, "0.30000"), (0.30412, "0.30412")):
        page.frame(lp=number, pricescale=100_000)
        page.price("0.30")
        page.wait(3)
        page.pulse(socket=0, dom=3, text="0.30")
        assert page.shown == (State.LIVE, framed, Source.SOCKET)
    assert page.counters["disagreements"] == 0


@pytest.mark.parametrize(("text", "agrees"), [("64,001.55", True), ("64,001.45", True), ("64,001.56", False)])
def test_socket_and_page_disagree_only_beyond_one_tick(page: Stage, text: str, agrees: bool) -> None:
    page.frame(lp=64001.5, pricescale=100, minmov=5)
    page.price(text)
    page.wait(3)
    page.pulse(socket=0, dom=3, text=text)
    assert (page.quote.state is State.LIVE) is agrees


# --- hostile pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "frames"},
        {"kind": "pulse", "at": None},
        {"kind": "pulse", "at": "1795000000000"},
        {"kind": "pulse", "at": [NOW]},
        {"kind": "pulse", "at": True},
        {"kind": "pulse", "at": -NOW},
        {"kind": "page", "at": float("nan")},
        {"kind": "page", "at": float("inf")},
        {"kind": "page", "at": 10**400},
        {"at": NOW},
        {"kind": None, "at": NOW},
        {"kind": "frame", "at": NOW},
        {"kind": "Frames", "at": NOW},
        {"kind": ["frames"], "at": NOW},
        {"kind": "frames", "at": NOW, "frames": []},
        {"kind": "frames", "at": NOW, "socket": "1", "frames": []},
        {"kind": "frames", "at": NOW, "socket": True, "frames": []},
        {"kind": "frames", "at": float("nan"), "socket": 1, "frames": [Part({"lp": 1}).told()]},
        {"kind": "session", "at": NOW},
        {"kind": "session", "at": NOW, "socket": 1, "event": "quote_add_symbols"},
        {"kind": "session", "at": NOW, "socket": 1, "event": "quote_dance", "session": "qs_1"},
    ],
)
def test_what_is_no_message_is_refused_and_changes_nothing(live: Stage, message: dict[str, Any]) -> None:
    before = live.quote
    with pytest.raises(ValueError, match=r"an? "):
        live.hear({"page": live.document, **message})
    assert live.quote == before


@pytest.mark.parametrize("value", ["64005", "<b>", True, [], {}, float("nan"), float("inf"), -float("inf"), 10**400])
def test_a_value_of_the_wrong_kind_changes_nothing(live: Stage, value: object) -> None:
    live.frame(chp=1.5, volume=7, bid=8, currency_code="USD")
    before = live.quote
    live.frame(chp=value, volume=value, bid=value)
    assert live.quote == before
    live.frame(lp=value)
    assert live.quote.price_text == "64001.50"
    live.frame(lp=64002, lp_time=value)
    assert (live.quote.price_text, live.quote.source_time) == ("64002.00", None)


@pytest.mark.parametrize("value", [5, True, None, [], {"a": 1}, "", "\n\x00\u202e", float("nan")])
def test_a_text_of_the_wrong_kind_changes_nothing(live: Stage, value: object) -> None:
    live.page(description="Bitcoin", currency="USD")
    live.page(description=value, currency=value)
    live.frame(description=value, currency_code=value)
    assert (live.quote.description, live.quote.currency) == ("Bitcoin", "USD")


@pytest.mark.parametrize("by", ["page", "frame"])
def test_texts_of_the_page_are_made_printable_and_short(page: Stage, by: str) -> None:
    text = "\x1b[31mBit\ncoin\u202e\u0000\ud800 / é€😀" + "x" * 100_000
    if by == "page":
        page.page(description=text)
    else:
        page.frame(description=text)
    description = page.quote.description
    assert description is not None
    assert description.startswith("[31mBitcoin / é€😀xxx")
    assert len(description) <= 200


@pytest.mark.parametrize("fact", ["resolved", "url"])
def test_a_pages_texts_are_made_printable_where_they_become_a_reason(stage: Stage, fact: str) -> None:
    with pytest.raises(PageTrouble) as raised:
        stage.page(**{fact: "https://evil/\n%0a%1b[2JX\x1b[2J\u202e" + "x" * 100_000})
    assert raised.value.reason.isprintable()
    assert len(raised.value.reason) < 300


def test_a_price_that_tradingview_calculates_says_so(page: Stage) -> None:
    page.page(description="Bitcoin / Dollar (Calculated by TradingView)")
    assert page.quote.calculated
    page.frame(description="Bitcoin / Dollar")
    assert not page.quote.calculated
    page.frame(description="BTCUSD, calculated by TradingView")
    assert page.quote.calculated


def test_simulated_is_never_forgotten(stage: Stage) -> None:
    stage.page(simulated="yes")
    assert not stage.quote.simulated
    stage.page(simulated=True)
    stage.page(simulated=False)
    stage.start()
    stage.fail(PageTrouble(State.ERROR, "gone", void_price=True))
    assert stage.quote.simulated


# --- any sequence of messages -----------------------------------------------------------------------------------------

SPEC = f'={{"adjustment":"splits","session":"regular","symbol":"{SYMBOL}"}}'
HOSTILE = st.sampled_from(
    [
        *(None, True, False, -1, 0, 0.5, 1e300, -1e300, 1e-300, 10**400, float("nan"), float("inf"), -float("inf")),
        *("", "ok", "64001", "NaN", "1e-9999999", "—", "\ud800\x00\u202e", "x" * 5000, [], [1], {}, {"a": [1]}),
    ]
)


def mostly(*right: object) -> st.SearchStrategy[object]:
    return st.integers(0, 9).flatmap(lambda dice: st.sampled_from(right) if dice else HOSTILE)


# Whole prices, so that no decimals, whatever a page says of them, change the number.
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "lp": mostly(64001, 64002, 64003.0),
        "lp_time": mostly(1_795_000_000),
        "pricescale": mostly(100),
        "minmov": mostly(1),
        "chp": mostly(0.5),
        "volume": mostly(12.5),
        "update_mode": mostly("streaming"),
        "description": mostly("Bitcoin", "calculated by TradingView"),
        "x" * 50: HOSTILE,
    },
)
PARTS = st.fixed_dictionaries(
    {
        "session": mostly("qs_1", "qs_1", "qs_2", "qs_snapshoter_1"),
        "name": mostly(SYMBOL, SYMBOL, SPEC),
        "status": mostly(*["ok"] * 9, "error"),
        "error": mostly("no_such_symbol", "permission_denied", "timeout"),
        "fields": FIELDS | FIELDS | FIELDS | HOSTILE,
    }
)
SOCKETS = mostly(1, 1, 2)
FRAMES = st.fixed_dictionaries(
    {"kind": st.just("frames"), "socket": SOCKETS, "frames": st.lists(PARTS, min_size=1, max_size=3) | HOSTILE}
)
EVENTS = mostly(
    *("quote_create_session", "quote_add_symbols", "quote_remove_symbols", "quote_delete_session"),
    *("quote_fast_symbols", "quote_hibernate_all", "critical_error", "protocol_error"),
)
SESSIONS = st.fixed_dictionaries(
    {
        "kind": st.just("session"),
        "socket": SOCKETS,
        "event": EVENTS,
        "session": mostly("qs_1", "qs_2"),
        "names": st.just([SYMBOL]) | HOSTILE,
    }
)
TEXTS = mostly("64,001", "64,007.00", "—", "3.77\u2006T")
TITLES = mostly("BTCUSD 64,009.00 ▲ +1%", "ETHUSD 3 ▲", TITLE)
AGES = st.integers(-5_000, 25_000)  # ms ago
ELEMENTS = st.fixed_dictionaries({"text": TEXTS}, optional={"painted": AGES, "changed": AGES}) | HOSTILE
PRICES = st.fixed_dictionaries({"kind": st.just("price"), "element": ELEMENTS})
TITLED = st.fixed_dictionaries({"text": TITLES}, optional={"changed": AGES}) | HOSTILE
TITLE_CHANGES = st.fixed_dictionaries({"kind": st.just("title"), "title": TITLED})
SOCKET_STATES = st.fixed_dictionaries(
    {"id": SOCKETS, "open": mostly(True, True, False)},
    optional={"heard": AGES, "beats": st.lists(AGES, max_size=8) | HOSTILE},
)
PULSES = st.fixed_dictionaries(
    {
        "kind": st.just("pulse"),
        "sockets": st.lists(SOCKET_STATES | HOSTILE, max_size=3) | HOSTILE,
        "header": st.fixed_dictionaries({}, optional={"mode": mostly("realtime"), "market": mostly("open")}) | HOSTILE,
        "element": ELEMENTS,
        "title": TITLED,
    }
)
PAGES = st.fixed_dictionaries(
    {"kind": st.just("page"), "resolved": mostly(SYMBOL)},
    optional={
        "url": mostly(URL, "https://x/symbols/ETHUSD/"),
        "title": mostly(*[TITLE] * 9, "Just a moment..."),
        "notFound": mostly(False),
        "offer": mostly(OFFER) | st.fixed_dictionaries({"price": mostly(5), "priceValidUntil": mostly("0001-01-01")}),
        "simulated": mostly(True),
    },
)
STARTS = st.just({"kind": "start"})
NO_MESSAGES = st.dictionaries(st.sampled_from(["kind", "text"]), HOSTILE)
MESSAGES = PAGES | FRAMES | FRAMES | SESSIONS | PRICES | TITLE_CHANGES | PULSES | STARTS | NO_MESSAGES
PAUSES = st.sampled_from([0, 1, 100, 2_500, 9_000, 16_000, 23_000])
NO_TIMES: st.SearchStrategy[object] = st.sampled_from(
    [None, True, "1795000000000", [], -1, 0, 1e300, 10**400, float("nan"), float("inf")]
)
STEPS = st.lists(st.tuples(PAUSES, MESSAGES, st.integers(0, 15).flatmap(lambda dice: st.none() if dice else NO_TIMES)))
AHEAD = st.sampled_from([0, 0, -20_000, 3_600_000])  # ms that the page's clock is ahead of ours


class Model:
    """What the document that is open now has told at most, by a simpler reading than the feed's."""

    def __init__(self) -> None:
        self.has_facts = False
        self.prices: set[Decimal] = set()
        self.proven_until = dict.fromkeys(Source, 0.0)

    def tell(self, message: dict[str, Any], now: float) -> None:
        match message:
            case {"kind": "frames", "frames": list(frames)}:
                for frame in frames:
                    self.tell_frame(frame, now)
            case {"kind": "page"}:
                self.has_facts = True
            case {"kind": "price", "element": element}:
                self.tell_text(Source.DOM, element, message, now)
            case {"kind": "title", "title": title}:
                self.tell_text(Source.TITLE, title, message, now)
            case {"kind": "pulse", "at": int(at), "sockets": list(sockets)}:
                heard = [socket.get("heard") for socket in sockets if isinstance(socket, dict)]
                times = [moment for moment in heard if isinstance(moment, int) and moment <= at]
                self.prove(Source.SOCKET, now - at + max(times, default=0), MAX_SOCKET_PROOF_MS)
        if message.get("kind") == "pulse":
            self.tell_text(Source.DOM, message["element"], message, now)
            self.tell_text(Source.TITLE, message["title"], message, now)

    def tell_frame(self, frame: dict[str, Any], now: float) -> None:
        match frame:
            case {"name": str(name), "status": "ok", "fields": dict(fields)} if name in (SYMBOL, SPEC):
                if not str(frame["session"]).startswith("qs_snapshoter"):
                    self.prove(Source.SOCKET, now, MAX_SOCKET_PROOF_MS)
                    if isinstance(price := fields.get("lp"), int | float) and 0 < price < 1e20:
                        self.prices.add(Decimal(price))

    def tell_text(self, source: Source, told: object, message: dict[str, Any], now: float) -> None:
        if isinstance(told, dict) and isinstance(at := message.get("at"), int) and self.has_facts:
            self.prices |= readable(told.get("text"))
            if isinstance(changed := told.get("changed"), int) and changed <= at:
                self.prove(source, now - at + changed, TEXT_PROOF_MS)

    def prove(self, source: Source, moment: float, limit: float) -> None:
        self.proven_until[source] = max(self.proven_until[source], moment + limit)


def readable(text: object) -> set[Decimal]:
    words = [text, *str(text).split()[1:2]]
    prices = set()
    for word in words:
        try:
            prices.add(Decimal(parse_price(str(word))))
        except UnreadablePrice:
            continue
    return prices


def check(quote: Quote, document: Model, now: float) -> None:
    """What holds of every quote at any time, whatever the page did."""
    json.dumps(wire_fields(quote, 1), allow_nan=False, ensure_ascii=False).encode()
    assert quote.price_text is None or Decimal(quote.price_text) > 0
    assert quote.timestamp is None or quote.timestamp <= now
    if quote.state is State.LIVE:
        assert quote.price_text is not None
        assert Decimal(quote.price_text) in document.prices
        assert quote.source in (Source.SOCKET, Source.DOM, Source.TITLE)
        assert document.has_facts
        assert now <= document.proven_until[quote.source]
    if quote.state is State.SNAPSHOT:
        assert quote.source is Source.SCRIPT
        assert quote.source_time is not None


def timed(told: Any, page_clock: int) -> Any:
    """The message as the page would tell it now, by its own clock: ages become times."""
    if isinstance(told, list):
        return [timed(item, page_clock) for item in told]
    if not isinstance(told, dict):
        return told
    times = {name: timed(value, page_clock) for name, value in told.items()}
    for name in ("heard", "painted", "changed", "beats"):
        if isinstance(age := times.get(name), int) and not isinstance(age, bool) and abs(age) < 1e9:
            times[name] = page_clock - age
        elif isinstance(age, list):
            times[name] = [page_clock - age if type(age) is int else age for age in age]
    return times


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, AHEAD)
def test_whatever_a_page_tells_only_a_proven_price_of_its_own_is_live(
    steps: list[tuple[int, dict[str, Any], object]], ahead: int
) -> None:
    stage, document, shown_until = Stage(), Model(), 0
    for pause, untimed, no_time in steps:
        stage.now += pause
        message = {"at": stage.now + ahead, **timed(untimed, stage.now + ahead)}
        if message.get("kind") == "start":
            stage.document += 1
            document, shown_until = Model(), 0
        elif no_time is not None:
            message["at"] = no_time
        message["page"] = stage.document
        document.tell(message, stage.now)
        try:
            stage.hear(message)
        except PageTrouble as trouble:
            stage.fail(trouble)
        except (ValueError, TypeError, AttributeError, LookupError):  # what the scraper counts as a malformed message
            pass
        check(stage.quote, document, stage.now)
        check(stage.feed.quote(later := stage.uptime + 14_000).as_of(later), document, stage.now + 14_000)
        json.dumps(stage.feed.why(stage.uptime, stage.now), allow_nan=False)
        if stage.quote.state is State.LIVE:
            assert (stage.quote.timestamp or 0) >= shown_until, "the price went back in time"
            shown_until = stage.quote.timestamp or 0
