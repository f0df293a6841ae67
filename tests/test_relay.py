"""The relay's halves with a real Redis: what one process publishes, every other one has, and nothing that is stale."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from redis_server import RedisServer, with_redis
from relays import Table, change, in_redis, owns, reading, scraping, shown, ticker_for
from running import wait_until
from stories import Outcomes, Stories, Story
from told import PROOF_MS, live, settings_for

from broadcast import NOTHING, Since
from broadcast import Table as BroadcastTable
from quotes import NO_SIGN_OF_LIFE, Quote, RetriedTooSoon, RetryRefused, SourceBusy, State, Ticker, steady_ms
from relay.link import Link, RedisClock, RedisRefused, check_redis
from relay.publisher import Peer, assign
from relay.reader import Reader
from relay.scripts import LEASES, PROOFS, PUBLISH, SCRAPERS, STATE, STREAM, How, to_json
from relay.source import Relay

BTC, ETH, SOL = Ticker("BTCUSD"), Ticker("ETHUSD"), Ticker("SOLUSD")
LONG_MS = 60_000  # a proof that outlasts a slow machine

stories = Stories()  # each has a Redis of its own


@stories
@with_redis
def a_quote_reaches_every_reader_as_it_was_told(redis: RedisServer) -> None:
    change(redis, How.ADD, BTC, ETH)
    with (
        scraping(settings_for(redis.url, "one")) as (source, publisher),
        reading(settings_for(redis.url, "left")) as (left, _),
        reading(settings_for(redis.url, "right")) as (right, _),
    ):
        owns(publisher, BTC, ETH)
        quote = live(BTC, "0.00000812")
        source.show(quote)
        source.show(live(ETH, 2))
        wait_until(lambda: left.quotes.get(BTC) == right.quotes.get(BTC) == quote, what="both have it")
        proof = left.quotes[BTC].proven_until
        assert proof is not None
        assert quote.proven_until is not None
        assert quote.proven_until - 1_000 < proof <= quote.proven_until, "a proof never gets longer on its way"
        wait_until(lambda: shown(left) == shown(right) == in_redis(redis.client), what="all have the same")
        position = left.quotes[ETH].position
        wait_until(lambda: left.mark[1] == right.mark[1] == position, what="both are marked up to there")
        assert left.mark == right.mark


@stories
@with_redis
def redis_orders_the_changes_of_the_list_and_only_a_missing_one_is_refilled(redis: RedisServer) -> None:
    with reading(settings_for(redis.url, "web")) as (table, reader):
        assert change(redis, How.ADD, ETH, BTC, SOL, max_tickers=2) == [SOL]
        wait_until(lambda: reader.tickers() == [BTC, ETH])
        assert change(redis, How.REPLACE, SOL, ETH, BTC, max_tickers=2) == [SOL], "those that stay keep their place"
        assert change(redis, How.REPLACE, SOL, ETH, max_tickers=2) == []
        wait_until(lambda: table.quotes.keys() == {ETH, SOL})
        assert change(redis, How.REMOVE, SOL, ETH, BTC) == []
        wait_until(lambda: not table.quotes)
        change(redis, How.REFILL, BTC)
        assert in_redis(redis.client) == {}, "an empty list is a list"
        redis.client.flushall()
        change(redis, How.REFILL, BTC)
        wait_until(lambda: table.quotes.keys() == {BTC})


@stories
@with_redis
def a_change_is_followed_when_it_returns_although_its_connection_was_cut_or_redis_emptied(redis: RedisServer) -> None:
    relay, table, followed = Relay(settings_for(redis.url, "web")), Table(), list[Ticker]()
    reader = relay.serve(table.tell, table.note)

    def follow() -> None:
        followed[:] = reader.tickers()
        reader.list_followed()

    reader.on_list = follow
    relay.start()
    relay.change("replace", [BTC, ETH])
    assert followed == [BTC, ETH]
    redis.client.client_kill_filter(_type="normal", skipme=True)
    relay.change("remove", [ETH])
    assert followed == [BTC]
    relay.change("add", [ETH])
    assert followed == [BTC, ETH]
    redis.client.flushall()
    with suppress(SourceBusy):  # on a slow machine
        relay.change("add", [SOL])  # its position is one that the reader had reached before
        assert followed == [BTC, ETH, SOL]
    relay.stop()


@stories
@with_redis
def a_list_that_a_new_process_begins_in_an_emptied_redis_gets_all_that_others_know(redis: RedisServer) -> None:
    with reading(settings_for(redis.url, "web")) as (table, reader):
        change(redis, How.ADD, ETH, BTC)
        wait_until(lambda: table.quotes.keys() == {ETH, BTC})
        redis.client.flushall()
        change(redis, How.ADD, SOL)
        wait_until(lambda: reader.tickers() == [BTC, ETH, SOL])
        change(redis, How.REMOVE, ETH)
        wait_until(lambda: table.quotes.keys() == {BTC, SOL})
        change(redis, How.REFILL, ETH)
        assert in_redis(redis.client).keys() == {BTC, SOL}


@stories
@with_redis
def a_list_that_only_scrapers_still_know_is_refilled_and_no_page_is_closed_meanwhile(redis: RedisServer) -> None:
    change(redis, How.ADD, ETH, BTC)
    with scraping(settings_for(redis.url, "one")) as (source, publisher):
        owns(publisher, BTC, ETH)
        source.show(live(BTC, 100))
        wait_until(lambda: source.pages == {BTC, ETH} and in_redis(redis.client)[BTC][1] == "100")
        redis.client.flushall()
        change(redis, How.ADD, SOL)  # by a process that knows no list
        wait_until(lambda: in_redis(redis.client).keys() == {BTC, ETH, SOL})
        wait_until(lambda: in_redis(redis.client)[BTC][:2] == (State.LIVE, "100"))
        change(redis, How.REMOVE, BTC)
        wait_until(lambda: source.pages == {ETH, SOL}, what="nothing removed comes back")
    assert source.closed == [BTC]


@stories
@with_redis
def a_ticker_moves_when_the_new_page_is_live_and_the_old_one_publishes_until_then(
    redis: RedisServer,
) -> None:
    ticker = ticker_for("new", [BTC, ETH, SOL], beside="old")
    change(redis, How.ADD, ticker)
    with (
        scraping(settings_for(redis.url, "old")) as (old, publisher),
        reading(settings_for(redis.url, "web")) as (table, _),
    ):
        owns(publisher, ticker)
        old.show(live(ticker, 100, LONG_MS))
        with scraping(settings_for(redis.url, "new")) as (new, successor):
            wait_until(lambda: ticker in new.pages, what="the new page is opened")
            old.show(live(ticker, 101, LONG_MS))
            wait_until(lambda: table.price(ticker) == "101")
            assert ticker in old.pages
            new.show(live(ticker, 102, LONG_MS))
            owns(successor, ticker)
            wait_until(lambda: ticker not in old.pages, what="the old page is closed")
            wait_until(lambda: table.price(ticker) == "102")
            old.show(live(ticker, 103, LONG_MS))  # too late
            new.show(live(ticker, 104, LONG_MS))
            wait_until(lambda: table.price(ticker) == "104")
        owns(publisher, ticker)  # at once: the other one has freed its leases
        wait_until(lambda: ticker in old.pages)
        old.show(live(ticker, 105, LONG_MS))
        wait_until(lambda: table.price(ticker) == "105")
    told = [quote for quote in table.history if quote.price_text is not None]
    assert {quote.state for quote in told} == {State.LIVE}, "never stale"
    assert "103" not in {quote.price_text for quote in told}


@stories
@with_redis
def a_fence_of_the_past_publishes_nothing(redis: RedisServer) -> None:
    ticker = ticker_for("other", [BTC, ETH, SOL], beside="one")
    change(redis, How.ADD, ticker)
    with scraping(settings_for(redis.url, "one")) as (source, publisher):
        owns(publisher, ticker)
        source.show(live(ticker, 100))
        wait_until(lambda: in_redis(redis.client)[ticker][1] == "100")
        before = in_redis(redis.client)
        redis.client.hset(SCRAPERS, "other", "9999999999999 50 1")
        redis.client.hset(LEASES, ticker, f"{publisher.owned[ticker] + 1} other 9999999999999")
        source.show(live(ticker, 101))
        wait_until(lambda: source.counters["relay_refused"] + source.counters["relay_leases_lost"] == 1)
        wait_until(lambda: source.closed == [ticker], what="it leaves the page to the other one")
        assert in_redis(redis.client) == before


@stories
@with_redis
def what_was_sent_before_a_new_connection_and_comes_late_replaces_nothing(redis: RedisServer) -> None:
    ticker = ticker_for("new", [BTC, ETH, SOL], beside="old")
    change(redis, How.ADD, ticker)
    settings = settings_for(redis.url, "old")
    with scraping(settings) as (source, publisher):
        owns(publisher, ticker)
        source.show(live(ticker, 100))
        wait_until(lambda: in_redis(redis.client)[ticker][1] == "100")
        with scraping(settings_for(redis.url, "new")) as (new, _):
            wait_until(lambda: ticker in new.pages, what="a page that is not as good")
            fence = publisher.owned[ticker]
            redis.client.client_kill_filter(_type="normal", skipme=True)
            source.show(live(ticker, 101))
            wait_until(lambda: publisher.owned.get(ticker, fence) != fence, what="a fence for the new connection")
            wait_until(lambda: in_redis(redis.client)[ticker][1] == "101")
            link = Link(settings, Counter())
            link.begin()
            late, proof = live(ticker, 100), link.clock.theirs(steady_ms() + 15_000)
            link.run(PUBLISH, "old", 100, ticker, fence, proof, to_json(late, proof))
            assert in_redis(redis.client)[ticker][:2] == (State.LIVE, "101")
            redis.client.client_pause(10_000, all=False)
            source.show(Quote(ticker, State.ERROR, reason="another symbol's page"))
            wait_until(lambda: any(c["name"] == "pluto-old" and "b" in c["flags"] for c in redis.client.client_list()))
            redis.client.client_kill_filter(_type="normal", skipme=True)
            redis.client.client_unpause()
            wait_until(
                lambda: in_redis(redis.client)[ticker][0] is State.ERROR, 5, what="it inherits no price of its own"
            )
            assert ticker in source.pages
            assert source.counters["relay_hand_overs"] == 0


@stories
@with_redis
def an_older_price_gets_no_proof_of_a_newer_one(redis: RedisServer) -> None:
    change(redis, How.ADD, BTC)
    reader = Reader(settings_for(redis.url, "web"), Counter(), lambda quote: None, lambda epoch, position: None)
    reader._begin()
    with scraping(settings_for(redis.url, "one")) as (source, publisher):
        owns(publisher, BTC)
        for price, proof_ms in ((100, 5_000), (101, 15_000)):
            source.show(live(BTC, price, proof_ms))
            wait_until(lambda price=price: in_redis(redis.client)[BTC][1] == str(price))  # type: ignore[misc]
        reader._read_pulse()
        found: Any = redis.client.xrange(STREAM)
        for at, values in found:
            position = int(at.partition("-")[0])
            if position > reader._position:
                reader._take(position, values)
                reader._renew_some()
            if json.loads(values.get(BTC) or "{}").get("price_text") == "100":
                quote = reader.quote(BTC)
                assert quote is not None
                assert (quote.price_text, quote.has_expired(steady_ms() + 5_000)) == ("100", True)
    quote = reader.quote(BTC)
    assert quote is not None
    assert (quote.price_text, quote.has_expired(steady_ms() + 10_000)) == ("101", False)


@stories
@with_redis
def a_redis_that_comes_back_with_older_prices_proves_none_of_them(redis: RedisServer) -> None:
    with reading(settings_for(redis.url, "web")) as (table, reader):
        change(redis, How.ADD, BTC, ETH)
        with scraping(settings_for(redis.url, "one")) as (source, publisher):
            owns(publisher, BTC, ETH)
            source.show(live(BTC, 100, LONG_MS))
            source.show(live(ETH, 10, LONG_MS))
            wait_until(lambda: {state for state, _, _ in in_redis(redis.client).values()} == {State.LIVE})
            redis.client.save()
            source.show(live(BTC, 101, LONG_MS))
            wait_until(lambda: table.price(BTC) == "101")
            epoch = reader.link.epoch
            redis.kill()
        redis.start()  # as a replica that lagged
        wait_until(lambda: table.mark[0] != epoch and table.mark[1] > 0, what="all of the new epoch is told")
        assert table.price(BTC) == "100"
        told = [(quote.price_text, quote.state) for quote in table.history if quote.price_text is not None]
        after = told[told.index(("101", State.LIVE)) + 1 :]
        assert ("100", State.STALE) in after
        assert not {("100", State.LIVE), ("10", State.STALE)} & set(after), "ETHUSD is as it was, and its proof holds"
        with scraping(settings_for(redis.url, "two")) as (source, publisher):
            owns(publisher, BTC)
            source.show(live(BTC, 102))
            wait_until(lambda: table.price(BTC) == "102" and table.state(BTC) is State.LIVE)


class Clock:
    """The relay's clock, in ms. It loses `lost` from the moment on at which the module `at` asks it next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
        self.lost = self._lost = 0.0
        self.lost_at = float("inf")  # monotonic s
        monkeypatch.setattr(f"relay.{at}.steady_ms", self._asked)
        monkeypatch.setattr("relay.link.steady_ms", self.now)

    def now(self) -> float:
        return steady_ms() - self._lost

    def _asked(self) -> float:
        if self._lost != self.lost:
            self._lost, self.lost_at = self.lost, time.monotonic()
        return self.now()


def test_a_clock_that_stood_still_prolongs_no_proof(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a virtual machine which was paused, while the scraper ended."""
    clock = Clock(monkeypatch, "reader")
    change(redis, How.ADD, BTC)
    with reading(settings_for(redis.url, "web")) as (table, _):
        with scraping(settings_for(redis.url, "one")) as (source, publisher):
            owns(publisher, BTC)
            source.show(live(BTC, 100))
            wait_until(lambda: table.state(BTC) is State.LIVE)
        proof = table.quotes[BTC].proven_until
        assert proof is not None
        clock.lost = PROOF_MS
        wait_until(lambda: (table.quotes[BTC].proven_until or 0) < proof - PROOF_MS + 500, what="it ends as Redis says")


def test_a_scraper_whose_clock_stood_still_proves_no_price_for_longer(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, "publisher")
    change(redis, How.ADD, BTC, ETH)
    with scraping(settings_for(redis.url, "one")) as (source, publisher):
        owns(publisher, BTC, ETH)
        source.show(live(BTC, 100))
        source.show(live(ETH, 10))
        wait_until(lambda: redis.client.hlen(PROOFS) == 2)
        before, fence = proof_of(redis, ETH), publisher.owned[BTC]
        clock.lost = 20_000
        wait_until(lambda: publisher.last_tick > clock.lost_at, what="it has noticed")
        redis.client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: publisher.owned.get(BTC, fence) != fence)
        source.show(replace(live(ETH, 10), proven_until=clock.now() + PROOF_MS))  # its page lives on
        wait_until(lambda: proof_of(redis, ETH) > before + 500)
        assert proof_of(redis, BTC) < before + 500  # which is how exactly Redis's clock is known, and far from 20 s


def proof_of(redis: RedisServer, ticker: Ticker) -> int:
    return int(redis.client.hget(PROOFS, ticker) or 0)


@stories
@with_redis
def another_server_with_the_data_begins_a_new_epoch_although_the_connection_holds(redis: RedisServer) -> None:
    change(redis, How.ADD, BTC)
    with (
        scraping(settings_for(redis.url, "one")) as (source, publisher),
        reading(settings_for(redis.url, "web")) as (table, _),
    ):
        owns(publisher, BTC)
        source.show(live(BTC, 100))
        wait_until(lambda: table.state(BTC) is State.LIVE)
        epoch = table.mark[0]
        redis.client.hset(STATE, "run", "of the server that was replaced")
        wait_until(lambda: table.mark[0] != epoch)
        wait_until(lambda: redis.client.hexists(PROOFS, BTC), what="the scraper has published again")


@stories
@with_redis
def a_former_owners_price_holds_as_long_as_its_proof(redis: RedisServer) -> None:
    change(redis, How.ADD, BTC)
    with reading(settings_for(redis.url, "web")) as (table, _):
        with scraping(settings_for(redis.url, "old")) as (old, publisher):
            owns(publisher, BTC)
            old.show(quote := live(BTC, 100, proof_ms=2_500))
            wait_until(lambda: table.price(BTC) == "100")
        with scraping(settings_for(redis.url, "new")) as (new, successor):
            owns(successor, BTC)
            new.show(Quote(BTC, State.SNAPSHOT, "90"))
            wait_until(lambda: in_redis(redis.client)[BTC][0] is State.SNAPSHOT, what="the proof has run out")
            assert steady_ms() > (quote.proven_until or 0) - 500, "not before"
            new.show(Quote(BTC, State.ERROR, reason="no browser"))
            wait_until(lambda: table.state(BTC) is State.ERROR)
    assert table.price(BTC) == "100", "an old price is better than none"


@stories
@with_redis
def a_try_that_a_user_wants_reaches_the_owner_at_most_once_in_ten_seconds(redis: RedisServer) -> None:
    settings = settings_for(redis.url, "web")
    relay, table = Relay(settings), Table()
    reader = relay.serve(table.tell, table.note)
    relay.start()
    change(redis, How.ADD, BTC, ETH, SOL)
    with pytest.raises(RetryRefused, match="No scraper has a page of BTCUSD yet"):
        relay.retry(BTC)
    with scraping(settings_for(redis.url, "one")) as (source, publisher):
        owns(publisher, BTC, ETH, SOL)
        assert relay.retry(BTC) == "BTCUSD: the scraper that has its page opens it now."
        with pytest.raises(RetriedTooSoon, match=r"Try again in ([5-9]|10) s"):
            relay.retry(BTC)
        wait_until(lambda: source.tried == [BTC])
        source.show(Quote(ETH, State.BLOCKED))
        source.show(live(SOL, 1))
        states = {ETH: State.BLOCKED, SOL: State.LIVE}
        wait_until(lambda: all((q := reader.quote(ticker)) and q.state is state for ticker, state in states.items()))
        with pytest.raises(RetryRefused, match="TradingView blocks ETHUSD"):
            relay.retry(ETH)
        assert relay.retry(SOL) == "SOLUSD is live: its page is left as it is."
        source.show(live(ETH, 10, proof_ms=1_000))  # nobody renews it
        wait_until(lambda: (why := relay.why(ETH)) and (why["state"], why["reason"]) == (State.STALE, NO_SIGN_OF_LIFE))
        change(redis, How.REMOVE, BTC)
        change(redis, How.ADD, BTC)
        wait_until(lambda: redis.client.hexists(LEASES, BTC))
        relay.retry(BTC)
        wait_until(lambda: source.tried == [BTC, BTC])
    redis.kill()
    with pytest.raises(SourceBusy, match="Redis can't be reached"):
        relay.retry(BTC)
    relay.stop()


def test_tickers_are_shared_by_room_and_few_move_when_a_scraper_comes() -> None:
    tickers = [Ticker(f"T{number}USD") for number in range(100)]
    peers = {name: Peer(100, has_browser=True) for name in ("a", "b", "c")}
    three = assign(tickers, peers)
    four = assign(tickers, peers | {"d": Peer(100, has_browser=True)})
    assert {ticker for ticker in tickers if three[ticker] != four[ticker]} == {t for t in tickers if four[t] == "d"}
    assert all(20 <= count <= 46 for count in Counter(three.values()).values())
    few = assign(tickers, {"a": Peer(60, has_browser=True), "b": Peer(30, has_browser=True)}, owned={tickers[99]})
    assert Counter(few.values()) == {"a": 60, "b": 30}
    assert tickers[99] in few, "those that are owned come first"
    assert set(assign(tickers, peers | {"a": Peer(100, has_browser=False)}).values()) == {"b", "c"}
    assert assign(tickers, {}) == {}


def test_an_id_is_the_streams_until_this_process_judges_by_itself() -> None:
    now = 0.0
    left, right = (BroadcastTable(lambda: now, lambda: None, Counter(), simulated=False) for _ in range(2))
    for table in (left, right):
        for ticker, position in ((BTC, 4), (ETH, 7)):
            table.add(ticker)
            told = Quote(ticker, State.LIVE, "1", 0.5, 1, received_at=1, proven_until=10.0, position=position)
            table.put(told)
        table.follow("epoch", 7)
        table.flush(0)
    assert left.changes(NOTHING, None, resumed=False).id == "epoch-7"
    since = right.resume_point("epoch-6", None)
    assert since is not None
    assert [entry.quote.ticker for entry in right.changes(since, None, resumed=True).updates] == [ETH]
    assert right.resume_point("epoch-8", None) is None, "this process hasn't read that far"
    now = 11.0
    left.expire()
    left.flush(0)
    own = left.changes(NOTHING, None, resumed=False).id
    assert left.resume_point(own, None) is not None
    assert right.resume_point(own, None) is None, "nobody else knows what this client was told"
    assert len(left.changes(Since(-1, 7), None, resumed=True).statuses) == 2, "what this process judged goes along"
    for ticker, position in ((BTC, 4), (ETH, 7)):  # renewed proofs
        left.put(Quote(ticker, State.LIVE, "1", 0.5, 1, received_at=1, proven_until=30.0, position=position))
    left.flush(0)
    assert left.changes(NOTHING, None, resumed=False).id == "epoch-7"


def test_no_proof_gets_longer_by_translation_and_a_clock_that_was_set_is_measured_anew() -> None:
    clock = RedisClock()
    clock.note(1_000.0, 1_200.0, (50, 0))  # 50,000 at some moment between the two
    assert clock.theirs(1_200.0) == 50_000
    assert clock.ours(50_000) == 1_000.0
    clock.note(2_000.0, 2_002.0, (51, 0))
    assert clock.uncertainty == 1.0
    clock.note(3_000.0, 3_002.0, (3_600, 0))
    assert clock.ours(3_600_000) == 3_000.0


@stories
@with_redis
def simulated_and_real_prices_never_share_a_redis(redis: RedisServer) -> None:
    real = settings_for(redis.url, "real")
    Link(real, Counter()).begin()
    with pytest.raises(RedisRefused, match=r"has real prices: give a demo another Redis"):
        check_redis(redis.url, simulated=True)
    with reading(replace(real, name="demo", simulated=True)) as (table, reader):
        wait_until(lambda: "has real prices" in reader.link.trouble)
        assert (reader.has_loaded, table.quotes) == (False, {})
    redis.client.flushall()
    Link(replace(real, name="demo", simulated=True), Counter()).begin()
    with pytest.raises(RedisRefused, match=r"has the simulated prices of a demo: give real ones another"):
        check_redis(redis.url, simulated=False)


outcomes = stories.in_a_folder()


@pytest.mark.timeout(120)  # for the first, that has them all
@stories.each
def test_stories_of_the_relay(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
