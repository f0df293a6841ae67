"""The relay's halves with a real Redis: what one process publishes, every other one has, and nothing that is stale."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_server import RedisServer, redis_server
from relays import in_redis, live, reading, scraping, settings_for, shown
from running import wait_until

from quotes import Ticker
from relay.link import Link
from relay.publisher import Publisher
from relay.scripts import CHANGE, How

BTC, ETH, SOL = Ticker("BTCUSD"), Ticker("ETHUSD"), Ticker("SOLUSD")


@pytest.fixture(scope="module")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running_redis: RedisServer) -> RedisServer:
    running_redis.client.flushall()
    return running_redis


def change(server: RedisServer, how: How, *tickers: Ticker, max_tickers: int = 50) -> list[str]:
    """Changes the list in Redis. Returns the tickers for which there is no room."""
    settings = settings_for(server.url, "changer", max_tickers=max_tickers)
    link = Link(settings, __import__("collections").Counter())
    link.begin()
    refused: list[str] = link.run(CHANGE, *settings.change(how, tickers))[1]
    link.redis.close()
    return refused


def owns(publisher: Publisher, *tickers: Ticker) -> None:
    wait_until(lambda: publisher.owned.keys() >= set(tickers), what=f"{tickers} are owned")


def test_a_quote_reaches_every_reader_as_it_was_told(server: RedisServer) -> None:
    change(server, How.ADD, BTC, ETH)
    with (
        scraping(settings_for(server.url, "one")) as (source, publisher),
        reading(settings_for(server.url, "left")) as (left, _),
        reading(settings_for(server.url, "right")) as (right, _),
    ):
        owns(publisher, BTC, ETH)
        quote = live(BTC, "0.00000812")
        source.show(quote)
        source.show(live(ETH, 2))
        wait_until(lambda: left.quotes.get(BTC) == right.quotes.get(BTC) == quote, what="both have it")
        proof = left.quotes[BTC].proven_until
        assert proof is not None
        assert quote.proven_until is not None
        assert quote.proven_until - 50 < proof <= quote.proven_until, "a proof never gets longer on its way"
        wait_until(lambda: shown(left) == shown(right) == in_redis(server.client), what="all have the same")
        assert left.mark == right.mark
        assert left.mark[1] == left.quotes[ETH].position
