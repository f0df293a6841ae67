"""Of several quote sessions that tell of a symbol, the right one is believed, and a socket proves what it can.

All rules are those of the state table of the wire contract, and of what recordings of the real page show.
"""

from __future__ import annotations

import json

import pytest
from pages import NOW, SYMBOL, URL, Part, Stage

from quotes import NO_SIGN_OF_LIFE, Source, State
from tradingview.feed import PageTrouble
from tradingview.proof import MAX_SOCKET_PROOF_MS, MIN_SOCKET_PROOF_MS
from tradingview.sessions import MAX_NAMES, MAX_SESSIONS, MAX_SOCKETS

T = NOW // 1000  # a trade's time, in seconds
FULL, SIMPLE, SNAPSHOT = "qs_multiplexer_full_a", "qs_multiplexer_simple_b", "qs_snapshoter_basic-symbol-quotes_c"


def spec(**keys: object) -> str:
    return "=" + json.dumps({"symbol": SYMBOL, "adjustment": "splits", **keys})


@pytest.fixture
def page() -> Stage:
    """A page that has said whose it is."""
    stage = Stage()
    stage.page()
    return stage


@pytest.fixture
def live(page: Stage) -> Stage:
    """A page of which the full session, on the first socket, has shown 100.00, traded at T."""
    page.frames(Part({"lp": 100.0, "pricescale": 100, "lp_time": T}, session=FULL))
    return page


def price_of(stage: Stage) -> str | None:
    assert stage.shown[0] is State.LIVE
    return stage.shown[1]


# --- which price counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lp_time", [T + 1, T, T - 60, None, "now", 0])
def test_within_a_session_the_last_price_counts_whatever_its_time(live: Stage, lp_time: object) -> None:
    live.frames(Part({"lp": 101.0, "lp_time": lp_time}, session=FULL))
    assert price_of(live) == "101.00"


@pytest.mark.parametrize(("lp_time", "counts"), [(T + 1, True), (T, True), (None, True), (T - 13, False)])
def test_under_another_name_of_its_session_an_older_price_does_not_count(
    live: Stage, lp_time: int | None, counts: bool
) -> None:
    """A name that was added later said a price 13 s older than the one that the session had told already."""
    live.frames(Part({"lp": 101.0, "lp_time": lp_time}, session=FULL, name=spec(session="regular")))
    assert price_of(live) == ("101.00" if counts else "100.00")


@pytest.mark.parametrize(("lp_time", "counts"), [(T + 1, True), (T, False), (T - 13, False), (None, False)])
def test_another_sessions_price_counts_only_if_its_trade_was_later(
    live: Stage, lp_time: int | None, counts: bool
) -> None:
    """One session of the recording said a price 13 s older after another had said the newer."""
    live.frames(Part({"lp": 101.0, "lp_time": lp_time, "chp": 7.5, "volume": 9}, session=SIMPLE))
    assert price_of(live) == ("101.00" if counts else "100.00")
    assert live.quote.change_percent == (7.5 if counts else None), "its figures are as old as its price"
    assert live.quote.volume == (9 if counts else None)
    assert live.refused.get("socket: price: older than the one that counts", 0) == (not counts)


def test_a_session_whose_price_counted_goes_on_to_count(live: Stage) -> None:
    live.frames(Part({"lp": 101.0, "lp_time": T + 1}, session=SIMPLE))
    live.frames(Part({"lp": 102.0}, session=SIMPLE))
    assert price_of(live) == "102.00"
    live.frames(Part({"lp": 103.0, "lp_time": T + 1}, session=FULL))
    assert price_of(live) == "102.00"
    live.frames(Part({"lp": 104.0, "lp_time": T + 2}, session=FULL))
    assert price_of(live) == "104.00"


@pytest.mark.parametrize("end", ["quote_delete_session", "critical_error", "protocol_error", "remove", "close", "gone"])
def test_when_the_session_that_gave_the_price_is_over_any_others_counts(live: Stage, end: str) -> None:
    live.frames(Part({"volume": 7}, session=SIMPLE), socket=2)
    sockets = [{"id": 1, "open": True, "heard": NOW}, {"id": 2, "open": True, "heard": NOW}]
    live.wait(1)
    live.pulse(sockets=sockets)
    match end:
        case "remove":
            live.session("quote_remove_symbols", SYMBOL, session=FULL)
        case "close":
            live.pulse(sockets=[{**sockets[0], "open": False}, sockets[1]])
        case "gone":
            live.pulse(sockets=sockets[1:])
        case _:
            live.session(end, session=FULL)
    assert price_of(live) == "100.00", "it stands until another is told"
    live.frames(Part({"lp": 99.0, "lp_time": T - 13}, session=SIMPLE), socket=2)
    assert price_of(live) == "99.00"
    live.frames(Part({"lp": 100.0, "lp_time": T + 5}, session=FULL))
    assert price_of(live) == "99.00", "what was under way of a session that is over counts no more"


def test_a_removed_name_counts_again_when_it_is_added_again(live: Stage) -> None:
    live.session("quote_remove_symbols", SYMBOL, session=FULL)
    live.frames(Part({"lp": 101.0}, session=FULL))
    assert price_of(live) == "100.00"
    live.session("quote_add_symbols", SYMBOL, session=FULL)
    live.frames(Part({"lp": 102.0}, session=FULL))
    assert price_of(live) == "102.00"


def test_a_session_of_the_same_name_can_be_created_again(live: Stage) -> None:
    live.session("quote_delete_session", session=FULL)
    live.session("quote_create_session", session=FULL)
    live.frames(Part({"lp": 101.0}, session=FULL))
    assert price_of(live) == "101.00"


def test_a_snapshot_session_gives_no_price(page: Stage) -> None:
    page.frames(Part({"lp": 99.0, "pricescale": 100}, session=SNAPSHOT))
    assert page.quote.state is State.STARTING
    page.frames(Part({"lp": 100.0, "pricescale": 100, "lp_time": T}, session=FULL))
    page.frames(Part({"lp": 99.0, "lp_time": T + 9}, session=SNAPSHOT))
    assert price_of(page) == "100.00"
    assert page.refused["socket: session: snapshot"] == 2


def test_an_error_in_a_snapshot_session_is_none_of_the_pages(live: Stage) -> None:
    live.frames(Part(session=SNAPSHOT, status="error", error="no_such_symbol"))
    assert price_of(live) == "100.00"


@pytest.mark.parametrize(("ahead", "counts"), [(59, True), (61, False), (86_400, False)])
def test_a_trade_in_the_future_has_no_time(live: Stage, ahead: int, counts: bool) -> None:
    live.frames(Part({"lp": 101.0, "lp_time": T + ahead}, session=SIMPLE))
    assert price_of(live) == ("101.00" if counts else "100.00")
    live.frames(Part({"lp": 102.0, "lp_time": T + ahead}, session=FULL))
    assert price_of(live) == ("101.00" if counts else "102.00")
    if not counts:
        assert live.quote.source_time is None
        assert live.refused["socket: time: in the future"] >= 2


def test_the_future_begins_by_the_sites_clock_not_the_machines(live: Stage) -> None:
    live.feed.hear_date("Wed, 25 Nov 2026 12:00:00 GMT", live.uptime)  # a week ahead
    live.frames(Part({"lp": 101.0, "lp_time": 1_795_608_000}, session=SIMPLE))
    assert live.shown[1] == "101.00"


def test_a_page_that_shows_a_price_that_does_not_count_disagrees(live: Stage) -> None:
    """Whoever is right, socket and page are not of one mind."""
    live.frames(Part({"lp": 99.0, "lp_time": T - 13}, session=SIMPLE))
    live.price("99.00")
    assert live.shown[0] is State.LIVE
    live.wait(2.05)
    live.pulse(socket=0, dom=2.05, text="99.00")
    assert (live.shown[0], live.quote.reason) == (State.STALE, "socket and page disagree")


def test_figures_of_all_sessions_stand_beside_a_price_but_for_its_own(live: Stage) -> None:
    live.frames(Part({"ch": 1, "chp": 1.5, "volume": 7, "bid": 99.5}, session=FULL))
    live.frames(Part({"ch": 2, "chp": 2.5, "volume": 8, "ask": 100.5}, session=SIMPLE))
    quote = live.quote
    assert (quote.change, quote.change_percent) == (1, 1.5), "they belong to the price that the full session told"
    assert (quote.volume, quote.bid, quote.ask) == (8, 99.5, 100.5)
    live.frames(Part({"lp": 101.0, "lp_time": T + 1}, session=SIMPLE))
    quote = live.quote
    assert (quote.change, quote.change_percent, quote.volume, quote.bid) == (2, 2.5, 8, 99.5)


# --- spec names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "extra"),
    [
        ({}, None),
        ({"adjustment": "dividends"}, None),
        ({"session": "regular"}, None),
        ({"session": "extended"}, "session"),
        ({"session": None}, "session"),
        ({"currency-id": "USD"}, None),
        ({"currency-id": "XTVCUSD"}, None),
        ({"currency-id": "EUR"}, "currency-id"),
        ({"currency-id": "XTVCUSDT"}, "currency-id"),
        ({"currency-id": None}, "currency-id"),
        ({"unit-id": "USD"}, "unit-id"),
        ({"backadjustment": "default"}, "backadjustment"),
    ],
)
def test_a_spec_is_the_pages_price_only_if_it_asks_for_nothing_else(
    page: Stage, keys: dict[str, object], extra: str | None
) -> None:
    """560.70 EUR was shown as the price in USD."""
    page.page(currency="USD")
    page.frames(Part({"lp": 100.0, "pricescale": 100}, name=spec(**keys), session=FULL))
    assert page.shown[1] == ("100.00" if extra is None else None)
    assert page.refused.get(f"socket: spec: {extra}", 0) == (extra is not None)


def test_the_currency_of_a_coin_has_a_name_of_its_own() -> None:
    """`XTVCUSDT` is what TradingView calls the currency of BTCUSDT."""
    for told in ({"currency_code": "USDT", "currency_id": "XTVCUSDT"}, {"currency_code": "USDT"}):
        stage = Stage()
        stage.page()
        stage.frames(Part({"pricescale": 100, **told}, session=FULL))
        for currency in ("XTVCUSDT", "USDT"):
            stage.wait(1)
            stage.frames(Part({"lp": 100.0 + len(currency)}, name=spec(**{"currency-id": currency}), session=FULL))
            assert price_of(stage) == f"{100 + len(currency)}.00"


def test_until_the_currency_is_known_a_spec_that_names_one_is_none_of_the_pages(page: Stage) -> None:
    own = Part({"lp": 560.7}, name=spec(**{"currency-id": "USD"}), session=FULL)
    page.frames(own)
    assert page.quote.state is State.STARTING
    page.frames(Part({"volume": 7, "currency_code": "EUR", "currency_id": "EUR"}, name=own.name, session=FULL))
    page.frames(own)
    assert page.quote.state is State.STARTING, "nor says a spec itself what is the page's"
    page.frames(Part({"currency_code": "USD"}, session=SIMPLE))
    page.frames(own)
    assert price_of(page) == "560.7"


def test_an_error_of_a_spec_name_fails_nothing(live: Stage) -> None:
    live.frames(Part(session=FULL, name=spec(), status="error", error="no_such_symbol"))
    live.frames(Part(session=FULL, name=spec(), status="permission_denied"))
    assert price_of(live) == "100.00"


def test_an_error_in_one_session_fails_nothing_while_another_has_the_symbol(live: Stage) -> None:
    live.frames(Part(session=SIMPLE, status="error", error="no_such_symbol"))
    assert price_of(live) == "100.00"
    with pytest.raises(PageTrouble, match="no symbol"):
        live.frames(Part(session=FULL, status="error", error="no_such_symbol"))


# --- prices that may never come ---------------------------------------------------------------------------------------


def test_an_alternative_is_offered_at_the_deadline_and_its_page_is_not_believed(page: Stage) -> None:
    page.frames(Part({"alternative": "BINANCE:POLUSD"}, status="error", error="permission_denied"))
    assert page.quote.state is State.STARTING, "a price may still come"
    page.page(resolved="BINANCE:POLUSD", url="https://www.tradingview.com/symbols/POLUSD/?exchange=BINANCE")
    page.price("7.00")
    page.frames(Part({"lp": 7.0}, name="BINANCE:POLUSD"))
    page.page()
    page.price("7.10")
    page.title("BTCUSD 7.10 ▲ +1%")
    assert page.quote.price_text is None, "whatever the page calls itself, it may show the alternative"
    refusal = page.feed.refusal
    assert refusal is not None
    assert (refusal.state, refusal.void_price) == (State.ERROR, True)
    assert refusal.reason.startswith("TradingView shows visitors BINANCE:POLUSD instead")
    assert refusal.reason.endswith("track BINANCE:POLUSD")
    assert refusal.alternative == "BINANCE:POLUSD"
    page.frames(Part({"lp": 100.0}))
    assert price_of(page) == "100", "prices of our own symbol that still come count"
    assert page.feed.refusal is None


def test_a_timeout_passes(page: Stage) -> None:
    page.frames(Part(status="error", error="timeout"))
    assert page.quote.state is State.STARTING
    assert "in time" in (page.feed.refusal.reason if page.feed.refusal else "")
    page.frames(Part({"lp": 100.0}))
    assert price_of(page) == "100"
    assert page.feed.refusal is None


# --- what a socket proves ---------------------------------------------------------------------------------------------


def beat(stage: Stage, *, seconds: float = 10.0, beats: int = 1, **socket: object) -> None:
    """The first socket goes on with heartbeats alone, and the probe tells of each at once."""
    for _ in range(beats):
        stage.wait(seconds)
        at = stage.now - 2
        stage.pulse(sockets=[{"id": 1, "open": True, "heard": at, "beats": [at], **socket}])


def test_heartbeats_alone_keep_a_price_live(live: Stage) -> None:
    for _ in range(360):
        beat(live)
        assert live.shown == (State.LIVE, "100.00", Source.SOCKET)
    assert live.quote.timestamp == NOW


@pytest.mark.parametrize(
    ("gaps", "limit"),
    [
        ((), 15_000),
        ((10_000,) * 5, 15_000),
        ((1_000,) * 5, MIN_SOCKET_PROOF_MS),
        ((12_000,) * 5, 18_000),
        ((30_000,) * 5, MAX_SOCKET_PROOF_MS),
        ((12_000,), 18_000),
        ((12_000, 12_000, 12_000, 30_000, 30_000), 18_000),  # the median
        ((12_000, 12_000, 12_000, 14_000, 14_000, 14_000), 21_000),  # of the last five
        ((17_000, 3_000, 10_000, 10_000, 10_000), 15_000),  # a page that was busy for 7 s
    ],
)
def test_a_proof_lasts_one_and_a_half_heartbeats(page: Stage, gaps: tuple[int, ...], limit: int) -> None:
    last = page.now - 2
    beats = [last - sum(gaps[index:]) for index in range(len(gaps))] + [last]
    page.pulse(sockets=[{"id": 1, "open": True, "heard": 0, "beats": beats[-6:]}])
    page.frames(Part({"lp": 100.0}))
    assert page.quote.proven_until == page.uptime + limit
    page.now += limit
    assert page.shown[0] is State.LIVE
    page.now += 1
    assert (page.shown[0], page.quote.reason) == (State.STALE, NO_SIGN_OF_LIFE)


def test_a_proof_can_be_shorter_in_tests() -> None:
    page = Stage(proof_factor=0.2)
    page.page()
    page.frames(Part({"lp": 100.0}))
    assert page.quote.proven_until == page.uptime + 3_000


def test_each_socket_has_its_own_interval(live: Stage) -> None:
    """The second one's heartbeats are slow, and say nothing of the first."""
    at = live.now - 2
    slow = {"id": 2, "open": True, "heard": at, "beats": [at - 40_000, at - 20_000, at]}
    live.pulse(sockets=[{"id": 1, "open": True, "heard": at, "beats": [at - 10_000, at]}, slow])
    assert live.quote.proven_until == live.uptime + 15_000, "no session of the second one has the symbol"
    live.frames(Part({"lp": 100.0, "lp_time": T}, session=SIMPLE), socket=2)
    assert live.quote.proven_until == live.uptime + MAX_SOCKET_PROOF_MS


def test_a_reconnect_within_the_proof_is_no_flip(live: Stage) -> None:
    states = set()
    live.pulse(is_open=False, socket=0)
    for _ in range(10):
        live.wait(0.5)
        live.tick()
        states.add(live.shown)
    live.frames(Part({"lp": 100.0, "pricescale": 100, "lp_time": T}, session="qs_multiplexer_full_z"), socket=2)
    live.pulse(sockets=[{"id": 2, "open": True, "heard": live.now - 2}])
    live.wait(14)
    assert states | {live.shown} == {(State.LIVE, "100.00", Source.SOCKET)}


def test_of_two_sockets_one_may_close(live: Stage) -> None:
    """A price was forgotten when either did."""
    live.frames(Part({"lp": 100.0, "lp_time": T}, session=SIMPLE), socket=2)
    for _ in range(20):
        live.wait(2)
        live.pulse(sockets=[{"id": 1, "open": False}, {"id": 2, "open": True, "heard": live.now - 2}])
        assert live.shown == (State.LIVE, "100.00", Source.SOCKET)


@pytest.mark.parametrize("end", ["quote_delete_session", "critical_error", "remove"])
def test_a_socket_on_which_no_session_has_the_symbol_proves_nothing(live: Stage, end: str) -> None:
    """Nor does one that tells what the symbol is called and never its price. It was live for ever."""
    live.frames(Part({"lp": 99.0}, session=SNAPSHOT), Part({"lp": 9.0}, session=FULL, name=spec(session="extended")))
    live.frames(Part({"description": "Bitcoin", "volume": 7}, session=SIMPLE))
    if end == "remove":
        live.session("quote_remove_symbols", SYMBOL, session=FULL)
    else:
        live.session(end, session=FULL)
    beat(live, beats=2)
    assert (live.shown[0], live.quote.reason) == (State.STALE, NO_SIGN_OF_LIFE)


def test_a_session_that_was_asked_and_has_not_answered_proves_nothing(live: Stage) -> None:
    live.session("quote_delete_session", session=FULL)
    live.session("quote_create_session", session=SIMPLE)
    live.session("quote_add_symbols", SYMBOL, session=SIMPLE)
    beat(live, beats=2)
    assert live.shown[0] is State.STALE


def test_of_several_sessions_one_may_end(live: Stage) -> None:
    live.frames(Part({"lp": 100.0, "lp_time": T}, session=SIMPLE))
    live.session("quote_delete_session", session=FULL)
    beat(live, beats=3)
    assert price_of(live) == "100.00"


def test_while_the_symbol_is_hibernated_only_its_frames_prove_it(live: Stage) -> None:
    live.session("quote_hibernate_all", session=FULL)
    beat(live)
    assert price_of(live) == "100.00", "the proof still holds"
    beat(live)
    assert (live.shown[0], live.quote.reason) == (State.STALE, NO_SIGN_OF_LIFE)
    live.frames(Part({"volume": 7}, session=FULL))
    live.wait(1.1)
    live.tick()
    assert live.shown[0] is State.LIVE


def test_a_symbol_among_the_fast_ones_is_awake(live: Stage) -> None:
    live.session("quote_hibernate_all", session=FULL)
    live.session("quote_fast_symbols", SYMBOL, session=FULL)
    beat(live, beats=3)
    assert price_of(live) == "100.00"
    live.session("quote_fast_symbols", session=FULL)
    beat(live, beats=2)
    assert live.shown[0] is State.STALE


def test_fast_symbols_are_no_bad_sign(live: Stage) -> None:
    live.session("quote_fast_symbols", SYMBOL, session=FULL)
    live.session("quote_fast_symbols", session=FULL)
    beat(live, beats=3)
    assert live.shown[0] is State.LIVE


def test_a_symbol_may_be_hibernated_in_one_session_if_it_is_awake_in_another(live: Stage) -> None:
    live.frames(Part({"lp": 100.0, "lp_time": T}, session=SIMPLE))
    live.session("quote_hibernate_all", session=FULL)
    beat(live, beats=3)
    assert live.shown[0] is State.LIVE


@pytest.mark.parametrize("broken", [{"name": None}, {"fields": None}, {"fields": "lp"}, {"fields": [["lp", 1]]}])
def test_a_frame_that_cannot_be_read_proves_nothing_nor_does_its_session(
    live: Stage, broken: dict[str, object]
) -> None:
    """Its price may be another by now."""
    for _ in range(3):
        beat(live, seconds=5)
        live.frames(Part(**{"session": FULL, **broken}))
    live.wait(6)
    assert (live.shown[0], live.quote.reason) == (State.STALE, NO_SIGN_OF_LIFE)
    live.frames(Part({"volume": 7}, session=FULL))
    live.wait(1.1)
    live.tick()
    assert price_of(live) == "100.00"


def test_a_frame_of_nobody_knows_which_session_is_one_of_any(live: Stage) -> None:
    live.frames(Part({"volume": 7}, session=SIMPLE))
    live.frames(Part(name=None, session=None))
    beat(live, beats=2)
    assert live.shown[0] is State.STALE


def test_a_good_part_after_a_broken_one_is_read(live: Stage) -> None:
    live.frames(Part(name=None, session=FULL), Part({"lp": 101.0}, session=FULL))
    assert price_of(live) == "101.00"
    beat(live, beats=3)
    assert live.shown[0] is State.LIVE


# --- closed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said_by", ["frame", "page", "mark"])
def test_a_delisted_symbol_is_closed(live: Stage, said_by: str) -> None:
    match said_by:
        case "frame":
            live.frames(Part({"typespecs": ["crypto", "discontinued"]}, session=FULL))
        case "page":
            live.page(typespecs=["crypto", "discontinued"])
        case _:
            live.pulse(socket=0, market="delisted")
    assert (live.shown[0], live.quote.reason) == (State.CLOSED, "delisted: this is its last price")
    assert live.quote.is_current


@pytest.mark.parametrize(
    ("fields", "is_closed"),
    [
        ({"session": "0930-1600", "typespecs": ["common"]}, True),
        ({"typespecs": ["common"]}, True),
        ({}, True),
        ({"session": "0930-1600", "typespecs": ["crypto"]}, True),
        ({"session": "24x7", "typespecs": ["common"]}, False),
        ({"typespecs": ["crypto"]}, False),
    ],
)
@pytest.mark.parametrize("current", ["out_of_session", "pre_market", "post_market", "holiday"])
def test_out_of_its_hours_a_symbol_that_has_some_is_closed(
    live: Stage, fields: dict[str, object], is_closed: bool, current: str
) -> None:
    live.frames(Part({**fields, "current_session": current}, session=FULL))
    assert (live.shown[0] is State.CLOSED) is is_closed
    assert not is_closed or live.quote.reason == f"its market is closed ({current})"
    live.frames(Part({"current_session": "market"}, session=FULL))
    assert live.shown[0] is State.LIVE


def test_the_page_can_say_itself_that_its_symbol_is_always_traded(live: Stage) -> None:
    live.page(session="24x7")
    live.frames(Part({"current_session": "out_of_session"}, session=FULL))
    assert live.shown[0] is State.LIVE


class OldTrade:
    """A symbol that is always traded, and was last 23 h 59 min before now by the site's clock, which is a day ahead."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.site_ahead = 86_400
        stage.feed.hear_date("Thu, 19 Nov 2026 11:06:40 GMT", stage.uptime)
        stage.frames(Part({"lp": 100.0, "typespecs": ["crypto"], "lp_time": T + 60}, session=FULL))


def test_a_symbol_that_has_not_been_traded_for_a_day_is_closed_by_the_sites_clock(page: Stage) -> None:
    old = OldTrade(page)
    assert price_of(page) == "100"
    for _ in range(7):
        beat(page)
    assert (page.shown[0], page.quote.reason) == (State.CLOSED, "no trade since 2026-11-18 11:07 UTC")
    assert page.quote.source_time == (T + 60) * 1000
    assert page.feed.why(page.uptime, page.now)["tradeAgeMs"] > 86_400_000
    page.wait(1)
    page.frames(Part({"lp": 100.5, "lp_time": T + old.site_ahead}, session=FULL))
    assert page.shown[0] is State.LIVE, "the next price ends it at once"


def test_a_closed_price_needs_the_proof_of_a_live_one(page: Stage) -> None:
    OldTrade(page)
    for _ in range(7):
        beat(page)
    assert page.shown[0] is State.CLOSED
    proven_until = page.uptime + MIN_SOCKET_PROOF_MS
    page.wait(1)  # Pluto first reads what a silence of 10 s held up
    assert page.quote.proven_until == proven_until
    page.now += MIN_SOCKET_PROOF_MS - 999
    assert (page.shown[0], page.quote.reason) == (State.STALE, NO_SIGN_OF_LIFE)


def test_no_age_closes_a_price_without_a_time_or_beside_a_clock_that_is_unknown(page: Stage) -> None:
    page.frames(Part({"lp": 100.0, "typespecs": ["crypto"], "lp_time": T - 90_000}, session=FULL))
    assert price_of(page) == "100", "the site's clock is unknown"
    page.feed.hear_date("no date", page.uptime)
    assert price_of(page) == "100"
    page.feed.hear_date("Thu, 19 Nov 2026 11:06:40 GMT", page.uptime)
    assert page.shown == (State.CLOSED, "100", Source.SOCKET)
    page.frames(Part({"lp": 100.0, "lp_time": None}, session=SIMPLE))
    page.session("quote_delete_session", session=FULL)
    page.frames(Part({"lp": 100.0}, session=SIMPLE))
    assert price_of(page) == "100", "without a time no age closes it"


# --- another host -----------------------------------------------------------------------------------------------------


def elsewhere(url: str, host: str = "www.tradingview.com") -> Stage:
    stage = Stage(host=host)
    stage.page(url=url)
    return stage


GERMAN = URL.replace("www.", "de.")


def test_on_another_host_the_element_counts_once_the_socket_has_confirmed_its_decimal_point() -> None:
    """A German page prints 1,234 as 1.234."""
    page = elsewhere(GERMAN)
    page.price("1.234")
    assert page.quote.state is State.STARTING
    page.frames(Part({"lp": 1234}))
    page.wait(3)
    page.pulse(socket=0, dom=3, text="1.234")
    assert page.shown == (State.LIVE, "1234", Source.SOCKET), "nor does what is not read disagree"
    page.price("1,234")
    assert page.feed.why(page.uptime, page.now)["strategies"]["dom"]["priceText"] is None, "it has no decimal point"
    page.frames(Part({"lp": 1234.5}))
    page.price("1,234.5")
    assert page.feed.why(page.uptime, page.now)["strategies"]["dom"]["priceText"] == "1234.5"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (URL, "www.tradingview.com"),
        (URL, "WWW.TradingView.com:443"),
        (URL, ""),
        ("http://127.0.0.1:5001/symbols/BTCUSD/", "127.0.0.1:5001"),
    ],
)
def test_on_the_host_that_was_asked_the_element_counts_at_once(url: str, host: str) -> None:
    page = elsewhere(url, host)
    page.price("1.234")
    assert page.shown == (State.LIVE, "1.234", Source.DOM)


@pytest.mark.parametrize("host", ["tradingview.com", "www.tradingview.com:8443", "in.tradingview.com"])
def test_another_port_or_name_is_another_host(host: str) -> None:
    page = elsewhere(URL, host)
    page.price("1.234")
    assert page.quote.state is State.STARTING


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_page_that_invents_sockets_sessions_and_names_is_kept_within_bounds(live: Stage) -> None:
    for number in range(3 * MAX_SOCKETS):
        for session in range(3 * MAX_SESSIONS):
            live.session("quote_create_session", session=f"qs_{session}", socket=number)
        live.frames(*(Part({"volume": 7}, name=spec(adjustment=index)) for index in range(60)), socket=number)
        live.frames(*(Part({"volume": 7}, name=spec(**{f"key{number}-{index}": 1})) for index in range(60)))
        for index in range(99):
            live.session("quote_remove_symbols", spec(adjustment=index), session="qs_9", socket=number)
    why = live.feed.why(live.uptime, live.now)
    assert len(why["sockets"]) <= MAX_SOCKETS
    assert max(len(socket["sessions"]) for socket in why["sockets"]) <= MAX_SESSIONS
    assert max(len(session["names"]) for socket in why["sockets"] for session in socket["sessions"]) <= MAX_NAMES
    assert len(why["refused"]) < 70
    assert len(json.dumps(why)) < 200_000


def test_why_says_what_was_heard_and_what_was_refused(live: Stage) -> None:
    live.frames(Part({"lp": 560.7}, name=spec(**{"currency-id": "EUR"}), session=FULL))
    beat(live)
    live.pulse(socket=0, chosen=2, count=3, mode="realtime", text="100.00", dom=10)
    why = live.feed.why(live.uptime, live.now)
    assert json.loads(json.dumps(why)) == why
    assert (why["state"], why["source"], why["priceText"]) == ("live", "socket", "100.00")
    assert why["refused"] == {"socket: spec: currency-id": 1}
    assert why["header"] == {"chosen": 2, "count": 3, "mode": "realtime", "market": None}
    (socket,) = why["sockets"]
    assert (socket["isOpen"], socket["silentMs"], socket["proofMs"]) == (True, 0, 15_000)
    (session,) = socket["sessions"]
    assert (session["id"], session["names"], session["hasSymbol"], session["givesPrice"]) == (
        FULL,
        [SYMBOL],
        True,
        True,
    )
    told = why["strategies"]["socket"]
    assert (told["priceText"], told["ageMs"], told["isProven"], told["provenForMs"]) == ("100.00", 10_000, True, 15_000)
    assert (told["read"], told["refused"]) == (1, 0)
    assert why["page"]["resolvedSymbol"] == SYMBOL
    assert why["symbolFacts"]["pricescale"] == 100
