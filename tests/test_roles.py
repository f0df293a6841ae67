"""Pluto's roles with real pages: one process scrapes, one serves, one does both, and a ticker moves between them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from redis_server import RedisServer, redis_server
from running import PROJECT, Pluto, Simulator, clean_environment, commands, descendants, running_pluto, wait_until
from stories import Outcomes, Stories, Story

from relay.publisher import Peer, assign
from relay.scripts import LEASES, SCRAPERS

TICKERS = ("ADAUSDT", "BNBUSDT", "DOGEUSDT", "XRPUSDT")
TAKE_OVER_LIMIT_S = 20.0


stories = Stories()


def owners(redis: RedisServer) -> dict[str, str]:
    client: Any = redis.client
    return {ticker: lease.split()[1] for ticker, lease in client.hgetall(LEASES).items()}


def scrapers(redis: RedisServer) -> list[str]:
    client: Any = redis.client
    return list(client.hgetall(SCRAPERS))


def prices(pluto: Pluto) -> dict[str, str]:
    found = pluto.http.get("/api/tickers").json()["prices"]
    return {price["ticker"]: price["priceText"] for price in found if price["state"] == "live"}


def why(pluto: Pluto) -> dict[str, Any]:
    found: dict[str, Any] = pluto.http.get(f"/api/tickers/{TICKERS[0]}/why").raise_for_status().json()
    return found


def have_changed(pluto: Pluto, before: dict[str, str]) -> bool:
    """Whether all have other live prices now."""
    now = prices(pluto)
    return all(ticker in now and now[ticker] != before.get(ticker) for ticker in TICKERS)


class Watcher:
    """Reads a stream on a thread of its own, and keeps the states it was told of each ticker, in order."""

    def __init__(self, pluto: Pluto) -> None:
        self.states: dict[str, list[str]] = {ticker: [] for ticker in TICKERS}
        self._pluto = pluto
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._pluto.stream() as events:
            for event in events:
                for update in json.loads(event.data).get("updates", ()):
                    self.states[update["ticker"]].append(update["state"])


@stories
def tickers_move_to_another_scraper_without_a_stale_price_and_survive_a_killed_one(
    redis: RedisServer, simulator: Simulator
) -> None:
    options = ("--source-url", simulator.url)
    with (
        running_pluto("--role", "web", PLUTO_REDIS=redis.url) as web,
        running_pluto(*options, "--tickers", ",".join(TICKERS), PLUTO_REDIS=redis.url) as both,
    ):
        wait_until(lambda: prices(web).keys() == prices(both).keys() == set(TICKERS), 40, what="all are live")
        watcher = Watcher(web)
        (first,) = scrapers(redis)
        wait_until(lambda: why(web)["scraper"] == first, what="the one that serves knows who scrapes")
        assert why(both)["symbol"] == f"BINANCE:{TICKERS[0]}"
        answer = web.http.post(f"/api/tickers/{TICKERS[0]}/retry")
        assert answer.json()["message"] == f"{TICKERS[0]} is live: its page is left as it is."
        assert not [command for command in commands(descendants(web.process.pid)).values() if "chrom" in command]
        with running_pluto(*options, "--role", "scraper", PLUTO_REDIS=redis.url) as other:
            wait_until(lambda: len(scrapers(redis)) == 2, what="the other one is alive")
            wanted = assign(TICKERS, {name: Peer(50, has_browser=True) for name in scrapers(redis)})
            wait_until(lambda: owners(redis) == wanted, 20, what="each has the tickers it should have")
            before = prices(web)
            wait_until(lambda: have_changed(web, before), what="prices go on")
            assert {state for states in watcher.states.values() for state in states} == {"live"}
            family = [*descendants(both.process.pid), psutil.Process(both.process.pid)]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            killed = time.monotonic()
            wait_until(lambda: first not in owners(redis).values(), what="all are owned by the other one")
            before = prices(web)
            wait_until(lambda: have_changed(web, before), TAKE_OVER_LIMIT_S, what="all are live again")
            assert time.monotonic() - killed < TAKE_OVER_LIMIT_S
            wait_until(lambda: other.http.get("/health").json()["status"] == "ok", what="it is well")
            assert other.http.get("/api/tickers").status_code == 404


@stories
def nothing_of_redis_is_loaded_without_it_and_nothing_of_playwright_in_a_process_that_serves(*_: object) -> None:
    program = """
import sys
from app import assemble
from settings import Settings
assemble(Settings(store=False, redis=sys.argv[1], role=sys.argv[2]))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"redis", "playwright", "relay"}))
"""

    def loaded(*settings: str) -> list[str]:
        command = [sys.executable, "-c", program, *settings]
        run = subprocess.run(command, cwd=PROJECT, env=clean_environment(), capture_output=True, text=True, check=True)
        return run.stdout.split()

    assert loaded("", "all") == ["playwright"]
    assert loaded("redis://127.0.0.1:9", "web") == ["redis", "relay"]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator: Simulator
) -> Iterator[Outcomes]:
    with (
        redis_server(tmp_path_factory.mktemp("redis")) as redis,
        stories.telling(request, redis, simulator) as outcomes,
    ):
        yield outcomes


@pytest.mark.timeout(120)  # for the first, that has both
@stories.each
def test_stories_of_roles(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
