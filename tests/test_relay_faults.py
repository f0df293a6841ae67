"""The relay under faults, with real processes: web processes of Pluto, scrapers' halves, and a real Redis.

After each fault every web process has what Redis has. Several stages play the stories at the same time.
"""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from connectrpc.code import Code
from faulty_line import FaultyLine
from redis_server import RedisServer, redis_server
from relays import in_redis, ticker_for
from running import Pluto, running_pluto, running_program, wait_until
from separate_network import separate_network
from stories import Stories, Story
from test_why import connect_code

from relay.link import NO_REDIS
from relay.publisher import LEASE_MS
from relay.scripts import LEASES, SCRAPERS, STATE, STREAM

TICKERS = ("BTCUSD", "ETHUSD", "SOLUSD")
OWNED_LIMIT_MS = 5_000
STAGES = 4

stories = Stories()  # in an order by which all stages take about as long
Outcomes = dict[Callable[..., None], Exception | None]


class Scraper:
    """A process of told_scraper.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def show(self, ticker: str, price: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([ticker, price]) + "\n")
        self.process.stdin.flush()


class Stage:
    """One Redis, two web processes (the second one behind a faulty line), and the scrapers that a story starts."""

    def __init__(self, folder: Path, redis: RedisServer, left: Pluto, right: Pluto, line: FaultyLine) -> None:
        self.folder, self.redis, self.webs, self.line = folder, redis, (left, right), line

    @contextmanager
    def scraper(
        self, name: str, *, port: int | None = None, capacity: int = 50, proof_s: float = 15, length: int = 10_000
    ) -> Iterator[Scraper]:
        url = self.redis.url if port is None else f"redis://127.0.0.1:{port}"
        options = url, name, str(capacity), str(proof_s), str(length)
        with running_program("tests/told_scraper.py", *options) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
                yield Scraper(process)
            finally:
                process.kill()

    def now(self) -> int:
        """Redis' clock, in ms."""
        client: Any = self.redis.client
        seconds, micros = client.time()
        return int(seconds * 1000 + micros // 1000)

    def leases(self) -> dict[str, tuple[str, int]]:
        """The scraper and the end of each lease that has not ended."""
        client: Any = self.redis.client
        leases = {ticker: lease.split() for ticker, lease in client.hgetall(LEASES).items()}
        now = self.now()
        return {ticker: (name, int(end)) for ticker, (_, name, end) in leases.items() if int(end) >= now}

    def wait_for_owner(self, name: str, *tickers: str) -> None:
        wanted = dict.fromkeys(tickers or TICKERS, name)
        wait_until(lambda: {ticker: name for ticker, (name, _) in self.leases().items()} == wanted, what=f"{name} owns")

    def peers(self) -> set[str]:
        """The scrapers that are alive, as Redis has them."""
        client: Any = self.redis.client
        return set(client.hkeys(SCRAPERS))

    def track(self, *tickers: str) -> None:
        self.webs[0].http.put("/api/watchlist", json={"tickers": tickers or TICKERS}).raise_for_status()

    def shown(self, web: Pluto) -> dict[str, tuple[str, str | None, int]]:
        prices = web.http.get("/api/tickers").raise_for_status().json()["prices"]
        return {price["ticker"]: (price["state"], price.get("priceText"), price["sequence"]) for price in prices}

    def are_equal(self) -> bool:
        return all(self.shown(web) == in_redis(self.redis.client) for web in self.webs)

    def wait_until_equal(self) -> None:
        wait_until(self.are_equal, what="all web processes have what Redis has")

    def wait_for_price(self, price: str, *tickers: str) -> None:
        """Until it is live on all web processes, for all these tickers."""

        def is_shown() -> bool:
            shown = [self.shown(web) for web in self.webs]
            return all(prices.get(ticker, ())[:2] == ("live", price) for prices in shown for ticker in tickers)

        wait_until(is_shown, what=f"{tickers} {price}")

    def clear(self) -> None:
        """For the next story. No scraper runs."""
        self.line.delay_s, self.line.is_cut = 0.0, False
        empty = {"tickers": list[str]()}
        wait_until(lambda: self.webs[0].http.put("/api/watchlist", json=empty).is_success, what="an empty list")
        self.redis.client.delete(LEASES, SCRAPERS)
        self.wait_until_equal()


@contextmanager
def running_stage(folder: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        line = FaultyLine(redis.port)
        stack.callback(line.close)
        left = stack.enter_context(running_pluto("--role", "web", PLUTO_REDIS=redis.url))
        right = stack.enter_context(running_pluto("--role", "web", PLUTO_REDIS=f"redis://127.0.0.1:{line.port}"))
        yield Stage(folder, redis, left, right, line)


@stories
def while_redis_cant_be_reached_prices_become_stale_with_the_reason_and_then_catch_up(stage: Stage) -> None:
    """The scraper is cut off, too: what it couldn't publish comes later. So does a change of the list."""
    assert stage.webs[1].add("BTCUSD").status_code == 201
    with stage.scraper("one", port=stage.line.port, proof_s=6) as scraper:
        scraper.show("BTCUSD", "100")
        stage.wait_for_price("100", "BTCUSD")
        stage.line.is_cut = True
        scraper.show("BTCUSD", "101")
        unanswered = stage.webs[1].add("ETHUSD")
        quote = wait_until(lambda: (quote := stage.webs[1].quote("BTCUSD"))["state"] == "stale" and quote, 20)
        wait_until(lambda: "Redis" in stage.webs[1].http.get("/health").json().get("redisReason", ""))
        assert (quote["priceText"], quote["reason"]) == ("100", NO_REDIS)
        assert stage.webs[1].http.get("/health").json()["status"] == "degraded"
        unsent = stage.webs[1].add("SOLUSD")
        for answer, more in (unanswered, " The change may have been made: look before you repeat it."), (unsent, ""):
            assert (answer.status_code, answer.json()["code"]) == (503, "source_busy")
            assert answer.json()["message"] == f"The watchlist can't change now: Redis can't be reached.{more}"
        stage.webs[0].wait_for("BTCUSD", "stale")
        stage.line.is_cut = False
        stage.wait_for_price("101", "BTCUSD")
        stage.wait_until_equal()
        wait_until(lambda: stage.webs[0].http.get("/api/tickers").json()["tickers"] == ["BTCUSD", "ETHUSD"])


@stories
def a_web_process_that_starts_without_redis_shows_its_stores_prices_as_stale(stage: Stage) -> None:
    options = ("--role", "web", "--store", "--data", str(stage.folder / "data"))
    stage.track("BTCUSD", "ETHUSD")
    with stage.scraper("one") as scraper:
        scraper.show("BTCUSD", "100")
        scraper.show("ETHUSD", "10")
        with running_pluto(*options, PLUTO_REDIS=stage.redis.url) as pluto:
            pluto.wait_for("BTCUSD", "live")
            pluto.wait_for("ETHUSD", "live")
        stage.webs[0].remove("ETHUSD")
        stage.line.is_cut = True
        with running_pluto(*options, PLUTO_REDIS=f"redis://127.0.0.1:{stage.line.port}") as pluto:
            shown = {price["ticker"]: price for price in pluto.http.get("/api/tickers").json()["prices"]}
            assert {ticker: price["priceText"] for ticker, price in shown.items()} == {"BTCUSD": "100", "ETHUSD": "10"}
            assert {(price["state"], price["reason"]) for price in shown.values()} == {("stale", NO_REDIS)}
            assert pluto.http.get("/api/tickers/BTCUSD/why").json()["code"] == "source_busy"
            assert pluto.remove("BTCUSD").json()["code"] == "source_busy"
            assert pluto.http.get("/readyz").status_code == 503
            stage.line.is_cut = False
            pluto.wait_for("BTCUSD", "live")
            wait_until(lambda: pluto.http.get("/api/tickers").json()["tickers"] == ["BTCUSD"], what="it has the list")


@stories
def a_scraper_that_was_stopped_past_its_lease_gets_nothing_through(stage: Stage) -> None:
    ticker = ticker_for("new", TICKERS, beside="old")  # it stays there
    stage.track(ticker)
    with stage.scraper("old") as old:
        old.show(ticker, "100")
        stage.wait_for_price("100", ticker)
        old.process.send_signal(signal.SIGSTOP)
        before = sequence(stage)
        with stage.scraper("new") as new:
            new.show(ticker, "200")
            stage.wait_for_owner("new", ticker)
            stage.wait_for_price("200", ticker)
            wait_until(lambda: stage.peers() == {"new"})
            old.show(ticker, "101")
            old.process.send_signal(signal.SIGCONT)
            old.show(ticker, "102")
            wait_until(lambda: stage.peers() == {"new", "old"}, what="the stopped one has ticked")
            new.show(ticker, "201")
            stage.wait_for_price("201", ticker)
            assert not published(stage, ticker, before) & {"101", "102"}, "the stopped one's prices are in no entry"
            stage.wait_until_equal()


def published(stage: Stage, ticker: str, after: int) -> set[str]:
    """The ticker's prices in the stream after that position."""
    client: Any = stage.redis.client
    texts = [values.get(ticker) for _, values in client.xrange(STREAM, f"{after + 1}-0")]
    return {price for text in texts if text and (price := json.loads(text).get("price_text")) is not None}


@stories
def a_slow_redis_delays_prices_and_makes_none_stale(stage: Stage) -> None:
    """One changes again and again; the other one stands for longer than a proof holds."""
    stage.line.delay_s, proof_s = 0.15, 8.0
    stage.track("BTCUSD", "ETHUSD")
    with stage.scraper("one", port=stage.line.port, proof_s=proof_s) as scraper:
        scraper.show("BTCUSD", "100")
        scraper.show("ETHUSD", "10")
        stage.wait_for_price("100", "BTCUSD")
        stage.wait_for_price("10", "ETHUSD")
        price, ends = 200, time.monotonic() + proof_s + 0.5

        def all_have_it() -> bool:
            shown = [stage.shown(web) for web in stage.webs]
            assert {state for prices in shown for state, _, _ in prices.values()} == {"live"}
            return {prices["BTCUSD"][1] for prices in shown} == {str(price)}

        while time.monotonic() < ends:
            price += 1
            scraper.show("BTCUSD", str(price))
            wait_until(all_have_it, what=f"{price}")
        stage.wait_until_equal()


@stories
def both_web_processes_change_one_list(stage: Stage) -> None:
    left, right = stage.webs
    assert left.add("BTCUSD").status_code == 201
    assert right.add("BTCUSD").is_success
    assert right.http.get("/api/tickers").json()["tickers"] == ["BTCUSD"]
    assert right.add("BTCUSD").status_code == 200
    with left.stream("/api/stream?tickers=BTCUSD") as events:
        right.remove("BTCUSD")
        next(event for event in events if '"notTracked":["BTCUSD"]' in event.data)
    assert left.http.get("/api/tickers").json()["tickers"] == []


@stories
def an_emptied_redis_is_refilled_and_begins_a_new_epoch(stage: Stage) -> None:
    client: Any = stage.redis.client
    a_new_epoch(stage, client.flushall)


def a_new_epoch(stage: Stage, lose_all: Callable[[], None]) -> None:
    stage.track()
    with stage.scraper("one") as scraper:
        for ticker in TICKERS:
            scraper.show(ticker, "100")
        stage.wait_for_price("100", *TICKERS)
        stage.wait_until_equal()
        old = last_id(stage.webs[0])
        lose_all()
        stage.wait_for_owner("one")
        scraper.show("SOLUSD", "101")
        stage.wait_for_price("101", "SOLUSD")
        stage.wait_until_equal()
        assert {ticker: price for ticker, (_, price, _) in in_redis(stage.redis.client).items()}["BTCUSD"] == "100"
        with stage.webs[1].stream(**{"Last-Event-ID": old}) as events:
            first = next(event for event in events if event.id)
        assert json.loads(first.data)["resumed"] is False
        assert first.id.partition("-")[0] != old.partition("-")[0]


def last_id(web: Pluto) -> str:
    with web.stream() as events:
        return next(event.id for event in events if event.id)


@stories
def a_redis_that_was_killed_is_refilled_and_begins_a_new_epoch(stage: Stage) -> None:
    def restart() -> None:
        stage.redis.kill()
        assert stage.shown(stage.webs[0])["SOLUSD"][:2] == ("live", "100"), "its proof still holds"
        stage.redis.start()

    a_new_epoch(stage, restart)


@stories
def a_killed_scrapers_tickers_are_owned_elsewhere_within_five_seconds_and_never_stale(stage: Stage) -> None:
    stage.track()
    with stage.scraper("old") as old, stage.webs[1].stream() as events:
        for ticker in TICKERS:
            old.show(ticker, "100")
        stage.wait_for_owner("old")
        stage.wait_for_price("100", *TICKERS)
        with stage.scraper("new", capacity=3) as new:
            wait_until(lambda: stage.peers() == {"old", "new"}, what="the other one is alive")
            killed_at = stage.now()
            old.process.kill()
            stage.wait_for_owner("new")
            taken_at = max(end for _, end in stage.leases().values()) - LEASE_MS  # or renewed, after that
            assert taken_at - killed_at < OWNED_LIMIT_MS
            for ticker in TICKERS:
                new.show(ticker, "200")
            stage.wait_for_price("200", *TICKERS)
            stage.wait_until_equal()
        states = statuses_until(events, "200")
    assert "stale" not in states


def statuses_until(events: Any, price: str) -> set[str]:
    """The states told until all tickers have this price."""
    states, missing = set(), set(TICKERS)
    for event in events:
        for update in json.loads(event.data).get("updates", ()):
            states.add(update["state"])
            if update.get("priceText") == price:
                missing.discard(update["ticker"])
        if not missing:
            return states
    raise AssertionError("the stream ended")


@stories
def a_list_that_is_too_long_for_the_scrapers_says_so(stage: Stage) -> None:
    stage.track()
    with stage.scraper("one", capacity=1), stage.scraper("two", capacity=1):

        def is_told() -> bool:
            told = [quote.get("reason", "") for quote in map(stage.webs[0].quote, TICKERS) if quote["state"] == "error"]
            return [reason.partition(";")[0] for reason in told] == ["no room: the scrapers take 2 tickers"]

        wait_until(is_told)
        [homeless] = [ticker for ticker in TICKERS if stage.webs[0].quote(ticker)["state"] == "error"]
        assert stage.webs[0].http.post(f"/api/tickers/{homeless}/retry").status_code == 200
        assert connect_code(stage.webs[1], homeless) is Code.RESOURCE_EXHAUSTED


@stories
def a_client_of_a_killed_web_process_resumes_at_another_one(stage: Stage) -> None:
    stage.track("BTCUSD", "ETHUSD")
    with stage.scraper("one") as scraper:
        scraper.show("BTCUSD", "100")
        scraper.show("ETHUSD", "10")
        stage.wait_for_price("10", "ETHUSD")
        with running_pluto("--role", "web", PLUTO_REDIS=stage.redis.url) as third:
            third.wait_for("ETHUSD", "live")
            with third.stream() as events:
                last = next(event.id for event in events if event.id)
                scraper.show("BTCUSD", "101")
                last = next(event.id for event in events if '"101"' in event.data)
                third.process.kill()
        scraper.show("BTCUSD", "102")
        stage.wait_for_price("102", "BTCUSD")
        with stage.webs[0].stream(**{"Last-Event-ID": last}) as events:
            first = next(json.loads(event.data) for event in events if event.id)
        assert first["resumed"] is True
        assert [(update["ticker"], update["priceText"]) for update in first["updates"]] == [("BTCUSD", "102")]


@stories
def a_reader_that_was_too_slow_for_the_stream_reads_everything_again(stage: Stage) -> None:
    stage.redis.client.config_set("stream-node-max-entries", 10)  # Redis cuts the stream by whole nodes
    stage.track("BTCUSD")
    with stage.scraper("one", length=10) as scraper:
        scraper.show("BTCUSD", "100")
        stage.wait_for_price("100", "BTCUSD")
        stage.wait_until_equal()
        gaps, right = gaps_of(stage.webs[1]), stage.webs[1].process
        right.send_signal(signal.SIGSTOP)
        try:
            for number in range(1, 41):
                start = sequence(stage)
                scraper.show("BTCUSD", str(1_000 + number))
                wait_until(lambda start=start: sequence(stage) > start)  # type: ignore[misc]
        finally:
            right.send_signal(signal.SIGCONT)
        stage.wait_for_price("1040", "BTCUSD")
        stage.wait_until_equal()
        assert gaps_of(stage.webs[1]) == gaps + 1


@stories
def what_a_network_loses_is_told_as_soon_as_it_is_mended(stage: Stage) -> None:
    """Redis gets what is sent, and the answers are lost. A line that is cut loses nothing; a network does."""
    folder = stage.folder / "elsewhere"
    folder.mkdir()
    with separate_network() as network:
        if network is None:
            raise SkipTest("no network namespaces here: they need root, and ip of Debian's package iproute2")
        with (
            redis_server(folder, address=network.address, starter=network.starter) as redis,
            running_pluto("--role", "web", PLUTO_REDIS=redis.url) as web,
        ):
            there = Stage(folder, redis, web, web, stage.line)
            there.track("BTCUSD")
            with there.scraper("one", proof_s=2) as scraper:
                scraper.show("BTCUSD", "100")
                there.wait_for_price("100", "BTCUSD")
                network.cut()
                scraper.show("BTCUSD", "101")
                wait_until(lambda: web.quote("BTCUSD").get("reason") == NO_REDIS)
                assert there.shown(web)["BTCUSD"][:2] == ("stale", "100")
                assert web.add("ETHUSD").json()["code"] == "source_busy"
                scraper.show("BTCUSD", "102")
                network.mend()
                there.wait_for_price("102", "BTCUSD")
                there.wait_until_equal()


def gaps_of(web: Pluto) -> float:
    found = re.search(r'^pluto_relay_events_total{event="gaps"} (.*)$', web.http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def sequence(stage: Stage) -> int:
    client: Any = stage.redis.client
    return int(client.hget(STATE, "sequence"))


def start_failure(url: str, folder: Path) -> str:
    """What Pluto says when it can't start with this URL."""
    log = folder / "refused"
    with (
        pytest.raises(AssertionError, match=r"Pluto ended with [12] before"),
        running_pluto("--role", "web", log=str(log), PLUTO_REDIS=url),
    ):
        pass
    return log.read_text().strip().splitlines()[-1]


@stories
def a_wrong_password_is_told_at_the_start_and_no_password_is(stage: Stage) -> None:
    folder = stage.folder / "locked"
    folder.mkdir()
    with redis_server(folder, "--requirepass", "correct-horse") as server:
        said = start_failure(f"redis://:battery-staple@127.0.0.1:{server.port}", folder)
        right, log = f"redis://:correct-horse@127.0.0.1:{server.port}", folder / "told"
        with running_pluto("--role", "web", log=str(log), PLUTO_REDIS=right) as pluto:
            assert pluto.add("BTCUSD").status_code == 201
            told = pluto.http.get("/health").text + pluto.http.get("/metrics").text + log.read_text()
    assert said == f"pluto: Redis at 127.0.0.1:{server.port} refuses the password: correct it in PLUTO_REDIS."
    assert "correct-horse" not in told


def test_a_connection_with_tls_is_checked(redis: RedisServer, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    key, chain = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    with closing(FaultyLine(redis.port, tls)) as line:
        said = start_failure(f"rediss://localhost:{line.port}", tmp_path)
        url = f"rediss://localhost:{line.port}?ssl_ca_certs={chain}"
        with running_pluto("--role", "web", PLUTO_REDIS=url) as pluto:
            assert pluto.add("BTCUSD").status_code == 201
    assert said.startswith(f"pluto: no TLS connection to Redis at localhost:{line.port}: ")


# --- all of them ------------------------------------------------------------------------------------------------------


def play(folder: Path, some: list[Callable[..., None]]) -> Outcomes:
    """These stories, one after the other on a stage of their own. Returns how each failed."""
    outcomes: Outcomes = {}
    with running_stage(folder) as stage:
        for story in some:
            outcomes[story] = None
            try:
                try:
                    story(stage)
                finally:
                    stage.clear()
            except Exception as error:
                outcomes[story] = error
    return outcomes


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with ThreadPoolExecutor(STAGES) as pool:
        folders = [tmp_path_factory.mktemp("stage") for _ in range(STAGES)]
        shares = [stories.selected(request)[number::STAGES] for number in range(STAGES)]
        return dict(chain(*(played.items() for played in pool.map(play, folders, shares))))


@pytest.mark.timeout(120)  # for the first, that has them all
@stories.each
def test_stories_of_faults(outcomes: Outcomes, story: Story) -> None:
    if (failure := outcomes[story]) is not None:
        raise failure
