"""Alerts that several processes share over a real Redis: one judges at a time, and nothing that was kept is lost."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from desks import ABOVE, Desk, desk
from receivers import HttpReceiver, receiving
from redis_server import RedisServer, redis_server, with_redis
from relays import change, owns, scraping
from running import Pluto, running_pluto, wait_until
from scraping import warnings_of
from stories import Outcomes, Stories, Story
from told import FEW, Told, live, settings_for

from alerts.book import NoSuchAlert, TooManyAlerts, new_row
from alerts.fields import alert_of
from quotes import SourceBusy, Ticker
from relay.ledger import LEAVE, MAKE, TAKE, WRITE, RedisLedger, rest_of
from relay.link import Link
from relay.scripts import How
from storage.history import History
from storage.ledger import AlertRow, Delivery, DeliveryState, FileLedger
from storage.schema import connect
from watchlist import NotTracked

BTC, ETH = Ticker("BTCUSD"), Ticker("ETHUSD")


stories = Stories()  # each has a Redis of its own


@contextmanager
def running_source(redis: RedisServer) -> Iterator[Told]:
    """The scraper of a process that owns BTCUSD and ETHUSD."""
    change(redis, How.ADD, BTC, ETH)
    with scraping(settings_for(redis.url, "scraper")) as (source, publisher):
        owns(publisher, BTC, ETH)
        yield source


def with_source(story: Callable[[RedisServer, Told], None]) -> Callable[[Path], None]:
    """The story with a Redis of its own, and such a scraper."""

    @with_redis
    @wraps(story)
    def told(redis: RedisServer) -> None:
        with running_source(redis) as source:
            story(redis, source)

    return told


def holder_of(*desks: Desk) -> Desk:
    wait_until(lambda: any(desk.is_holder for desk in desks), what="one has the lease")
    return next(desk for desk in desks if desk.is_holder)


def wait_to_track(*desks: Desk) -> None:
    """And until they hear of what rings."""
    wait_until(lambda: all(desk.has_loaded and desk.tracked == {BTC, ETH} for desk in desks), what="all track both")


def copy_of(path: Path) -> list[AlertRow]:
    """The alerts that a store's file has."""
    try:
        return History(path, 1.0).ledger(lambda ledger: ledger.alerts())
    except sqlite3.Error:
        return []


# --- making, ringing, telling -----------------------------------------------------------------------------------------


@stories
@with_source
def an_alert_is_made_on_one_process_and_rings_on_all(redis: RedisServer, source: Told) -> None:
    path = redis.folder / "pluto.db"
    with desk(redis, "left", path=path) as left, desk(redis, "right") as right:
        wait_to_track(left, right)
        source.show(live(BTC, 99))
        holder = holder_of(left, right)
        other = right if holder is left else left
        first, deleted, repeated = other.make(), other.make(), holder.make(repeat=True, note="é")
        with pytest.raises(TooManyAlerts, match="BTCUSD has"):
            other.make()
        replaced, repeated = repeated, other.make(repeat=True, note="é", replaces=repeated)
        with pytest.raises(NoSuchAlert):
            holder.make(replaces=replaced)
        with pytest.raises(NotTracked):
            other.make(ticker="NEVERUSD")
        assert left.ids == right.ids == [first, deleted, repeated]
        assert other.alerts.delete(deleted) is not None
        assert other.alerts.delete(deleted) is None
        source.show(live(BTC, 101))
        wait_until(lambda: len(left.rang) == len(right.rang) == 2, what="both are told")
        assert left.announced == right.announced == list(reversed(left.alerts.raised(10)))
        assert set(left.rang) == {first, repeated}
        assert left.ids == right.ids == [repeated]
        source.show(live(ETH, 1000))
        other.make(ticker="ETHUSD")
        wait_until(lambda: len(left.rang) == len(right.rang) == 3, what="a price that stands is judged")
        source.show(live(BTC, 90))
        wait_until(lambda: [row.armed for row in copy_of(path)] == [True], what="the file has what became of it")
        assert copy_of(path)[0].raised_at == next(ring["at"] for ring in left.announced if ring["alert"] == repeated)
        redis.client.client_kill_filter(_type="normal", skipme=True)
        outcomes: list[object] = []

        def delete() -> list[object]:
            with suppress(SourceBusy):  # once the holder's connection is known to be cut, it isn't even tried
                outcomes.append(other.alerts.delete(repeated))
            return outcomes

        wait_until(delete)
        assert outcomes != [None], "it was there, although the connection had been cut"


# --- the lease --------------------------------------------------------------------------------------------------------


@stories
@with_source
def never_do_two_judge_and_each_ring_comes_once(redis: RedisServer, source: Told) -> None:
    held, is_over = [], threading.Event()
    with ExitStack() as layers:
        desks = [layers.enter_context(desk(redis, name)) for name in ("one", "two", "three")]
        wait_to_track(*desks)

        def look() -> None:
            while not is_over.wait(0.001):
                holders = [desk for desk in list(desks) if desk.is_holder]
                held.append(sum(desk.is_holder for desk in holders) if holders[1:] else len(holders))

        looking = threading.Thread(target=look)
        looking.start()
        layers.callback(is_over.set)
        chance, made = random.Random(1), []
        for number in range(4):
            holder = holder_of(*desks)
            source.show(live(BTC, 99))
            made.append(chance.choice(desks).make())
            holder.alerts.stop()  # it frees the lease: another one has it at once
            source.show(live(BTC, 101 + number))
            desks.remove(holder)
            others = list(desks)
            desks.append(layers.enter_context(desk(redis, f"more-{number}")))
            wait_to_track(*desks)
            wait_until(lambda others=others: all(made[-1] in o.rang for o in others), what="it is judged")  # type: ignore[misc]
        is_over.set()
        looking.join()
        for other in others:
            assert other.rang == made[-len(other.rang) :], "each once, since it is there"
        assert [ring["alert"] for ring in reversed(desks[0].alerts.raised(10))] == made
    assert max(held) == 1


@stories
@with_redis
def the_lease_goes_to_a_process_that_can_deliver(redis: RedisServer) -> None:
    link = Link(settings_for(redis.url, "any"), Counter())
    link.begin()

    def take(name: str, fence: int, notifies: int) -> int:
        return int(link.run(TAKE, name, fence, 60_000, notifies, "{}")[1])

    first = take("left", 0, 0)
    assert take("right", 0, 0) == 0
    assert take("left", first, 0) == first
    assert take("right", 0, 1) == 0
    assert take("left", first, 0) == 0, "it leaves it to the one with a notify URL"
    second = take("right", 0, 1)
    assert second > first
    assert link.run(WRITE, first, "[]", 1, 1) == ["lost", 0]
    link.run(LEAVE, "right", first)
    assert take("left", 0, 0) == 0, "the end of an earlier term doesn't end a later one"
    link.run(LEAVE, "right", second)
    third = take("left", 0, 0)
    assert third > second
    assert take("left", 0, 0) > third, "a process that has ended its term gets another one"
    link.redis.close()


@stories
@with_source
def without_redis_nobody_judges_and_nothing_is_made(redis: RedisServer, source: Told) -> None:
    with desk(redis, "one") as one:
        wait_to_track(one)
        source.show(live(BTC, 99))
        holder_of(one)
        early, late = one.make(), one.make(value="200")
        wait_until(lambda: one.alerts.figures.held == 2, what="it judges both")
        redis.pause()
        try:
            one.tell(live(BTC, 101))
            wait_until(lambda: not one.is_holder, what="the lease ends by the process's own clock")
            for call in (one.alerts.all, one.make):  # the second one isn't even tried
                with pytest.raises(SourceBusy, match=r"now: Redis at .* doesn't answer within 3 s"):
                    call()
            one.tell(live(BTC, 201))
        finally:
            redis.resume()
        holder_of(one)
        wait_until(lambda: one.ids == [late], what="what was judged in time is kept")
        source.show(live(BTC, 202))
        wait_until(lambda: len(one.announced) == 2, what="it judges again")
        assert [(ring["alert"], ring["priceText"]) for ring in one.announced] == [(early, "101"), (late, "202")]


@contextmanager
def web_process(redis: RedisServer, log: Path, url: str) -> Iterator[Pluto]:
    options = ("--role", "web", "--redis", redis.url)
    with running_pluto(*options, log=str(log), PLUTO_NOTIFY=url) as pluto:
        wait_until(lambda: pluto.http.get("/api/tickers").json()["tickers"] == [BTC, ETH], what="it has the list")
        yield pluto


def is_holder(pluto: Pluto) -> bool:
    return "pluto_alert_lease_held 1.0" in pluto.http.get("/metrics").text


def post(pluto: Pluto, value: str) -> str:
    answer = pluto.http.post("/api/alerts", json={**ABOVE, "value": value}).raise_for_status().json()
    assert answer["message"] == f"Alert made: BTCUSD above {value}."
    return str(answer["alert"]["id"])


def raised(pluto: Pluto) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pluto.http.get("/api/alerts/raised").raise_for_status().json()["raised"]
    return found


def states(pluto: Pluto) -> list[str]:
    """Those of all deliveries."""
    return [delivery["state"] for ring in raised(pluto) for delivery in ring["deliveries"]]


@contextmanager
def two_processes(redis: RedisServer, receiver: HttpReceiver) -> Iterator[tuple[Pluto, Pluto]]:
    """The holder of the lease, and another one; both notify the receiver."""
    with receiving(receiver) as (url,), ExitStack() as layers:
        one, two = (layers.enter_context(web_process(redis, redis.folder / name, url)) for name in ("one", "two"))
        wait_until(lambda: is_holder(one) or is_holder(two), what="one has the lease")
        yield (one, two) if is_holder(one) else (two, one)


@stories
@with_source
def a_killed_holder_loses_nothing(redis: RedisServer, source: Told) -> None:
    receiver = HttpReceiver("hang")
    with two_processes(redis, receiver) as (one, two):
        alert = post(two, "100")
        source.show(live(BTC, 101))
        wait_until(lambda: receiver.bodies, 20, what="a first try")
        one.process.kill()
        wait_until(lambda: is_holder(two), what="the lease moves")
        wait_until(lambda: states(two) == ["delivered"], 20, what="it is delivered by the other")
        (ring,) = raised(two)
        assert ring["alert"] == alert
        assert receiver.ids == [ring["id"]] * 2


@stories
@with_source
def a_stopped_holder_does_nothing(redis: RedisServer, source: Told) -> None:
    receiver = HttpReceiver(500, 500, 500)
    with two_processes(redis, receiver) as (one, two):
        first, second = post(two, "200"), post(two, "300")
        source.show(live(BTC, 201))
        wait_until(lambda: [d["tries"] for ring in raised(two) for d in ring["deliveries"]] > [0], 20, what="a failure")
        one.process.send_signal(signal.SIGSTOP)
        receiver.ways.clear()
        failures = len(receiver.bodies)
        try:
            wait_until(lambda: is_holder(two), what="the lease moves")
            source.show(live(BTC, 301))
            wait_until(lambda: states(two) == ["delivered"] * 2, 20, what="it delivers what waited and what rings")
        finally:
            one.process.send_signal(signal.SIGCONT)
        said = "this process no longer judges and delivers the alerts"
        logs = [redis.folder / name for name in ("one", "two")]
        wait_until(lambda: any(said in log.read_text() for log in logs), what="the stopped one knows")
        assert is_holder(two)
        assert not is_holder(one)
        rings = raised(two)
        assert raised(one) == rings
        assert [ring["alert"] for ring in rings] == [second, first]
        assert states(one) == ["delivered"] * 2
        assert Counter(receiver.ids) == {rings[0]["id"]: 1, rings[1]["id"]: failures + 1}


# --- a Redis that was emptied -----------------------------------------------------------------------------------------


@stories
@with_source
def an_emptied_redis_gets_the_alerts_back_although_a_new_process_has_made_one(redis: RedisServer, source: Told) -> None:
    with desk(redis, "one") as one:
        wait_to_track(one)
        one.make()
        wait_until(lambda: one.alerts.figures.held == 1, what="the process has read of it")
        redis.client.flushall()
        link = Link(settings_for(redis.url, "new"), Counter())
        link.begin()
        row = new_row(alert_of({"ticker": BTC, "condition": "above", "value": "9000"}, "0" * 16, 1))
        assert link.run(MAKE, 1000, 100, BTC, row.id, rest_of(row), "") == ""
        wait_until(lambda: redis.client.hlen("{pluto}:alerts") == 2, what="Redis has both")


@stories
@with_source
def an_emptied_redis_gets_the_alerts_back(redis: RedisServer, source: Told) -> None:
    path = redis.folder / "pluto.db"
    with warnings_of("pluto.relay") as lines, desk(redis, "one", path=path) as one:
        wait_to_track(one)
        holder_of(one)
        made = [one.make(), one.make(condition="crosses", across_gaps=True)]
        wait_until(lambda: one.alerts.figures.held == 2, what="the process has read of both")
        redis.client.flushall()
        wait_until(lambda: redis.client.hlen("{pluto}:alerts") == 2, what="Redis has them again")
        said = "Redis lacked the alerts: this process has refilled it with 2;"
        wait_until(lambda: any(line.startswith(said) for line in lines), what=said)
        wait_until(lambda: one.is_holder and one.ids == made, what="the process goes on")
        wait_until(lambda: [row.id for row in copy_of(path)] == made, what="the file has a copy")
    redis.client.flushall()
    change(redis, How.ADD, BTC, ETH)
    with desk(redis, "two", path=path) as two:
        wait_until(lambda: redis.client.hlen("{pluto}:alerts") == 2, what="Redis has them from the file")
        wait_to_track(two)
        wait_until(lambda: source.show(live(BTC, 101)) or two.rang, what="they are judged")
        assert two.rang == made[:1]
        assert two.alerts.delete(made[1]) is not None
        wait_until(lambda: copy_of(path) == [], what="the copy has none, too")
    redis.client.hdel("{pluto}:state", "epoch")
    with desk(redis, "three", path=path) as three:
        holder_of(three)
        assert three.ids == [], "an empty list is a list"


@stories
@with_source
def the_copy_in_the_file_goes_on_with_the_next_worker_that_writes_it(redis: RedisServer, source: Told) -> None:
    path = redis.folder / "pluto.db"
    with desk(redis, "one", path=path, crew="crew") as one, desk(redis, "two", path=path, crew="crew") as two:
        wait_to_track(one, two)
        made = [one.make(), two.make(value="200"), one.make(value="300")]
        wait_until(lambda: [row.id for row in copy_of(path)] == made, what="the first one writes")
        two.alerts.delete(made[0])
        one.store.stop()
        wait_until(lambda: [row.id for row in copy_of(path)] == made[1:], what="the second one has taken over")
        two.alerts.delete(made[1])
        wait_until(lambda: [row.id for row in copy_of(path)] == made[2:], what="and goes on")


@stories
def a_redis_that_writes_its_disk_loses_nothing_by_a_kill(folder: Path) -> None:
    own = folder / "disk"
    own.mkdir()
    with (
        redis_server(own, "--appendonly", "yes", "--appendfsync", "always") as redis,
        running_source(redis) as source,
        desk(redis, "one") as one,
    ):
        wait_to_track(one)
        holder_of(one)
        made = [one.make(), one.make(value="200")]
        source.show(live(BTC, 101))
        wait_until(lambda: one.rang == made[:1], what="one rings")
        raised = one.alerts.raised(10)
        terms = one.terms
        redis.kill()
        redis.start()
        wait_until(lambda: one.is_holder and one.terms > terms, what="another term begins")
        assert one.ids == made[1:]
        assert one.alerts.raised(10) == raised
        wait_until(lambda: source.show(live(BTC, 201)) or one.rang == made, what="the other one rings")


# --- the ledger -------------------------------------------------------------------------------------------------------


@stories
@with_redis
def the_ledger_in_redis_keeps_what_the_one_in_a_file_keeps(redis: RedisServer) -> None:
    connection = connect(redis.folder / "pluto.db", 1.0)
    connection.execute("PRAGMA synchronous = OFF")
    link = Link(settings_for(redis.url, "ledger"), Counter())
    link.begin()
    _, fence, _ = link.run(TAKE, "ledger", 0, 60_000, 1, "{}")
    in_file, chance = FileLedger(connection, FEW), random.Random(2)

    def write(*calls: tuple[str, *tuple[Any, ...]]) -> str:
        in_redis = RedisLedger(link)
        dropped = 0
        for name, *args in calls:
            getattr(in_redis, name)(*args)
            dropped += getattr(in_file, name)(*args) or 0
        outcome: str
        outcome, count = link.run(WRITE, fence, *in_redis.written)
        assert count == dropped
        return outcome

    fields = {"ticker": "BTCUSD", "note": "é"}
    redis.client.hset("{pluto}:alerts", "a", "1 BTCUSD 1 - {}")
    in_file.keep_alert(AlertRow("a", fields, True, None))
    for number in range(60):
        id, at = f"{number:016x}", 1_000 + number
        deliveries = [Delivery(id, target, target, DeliveryState.WAITING, 0, at) for target in ("t1", "t2")]
        raised = "keep_raised", id, at, {"id": id, "alert": "a", "at": at}, deliveries[: chance.randrange(3)]
        assert write(raised, ("keep_alert", AlertRow("a", fields, False, at))) == "kept"
        assert write(raised) == "kept", "what is there stays"
        ended = [chance.choice(["t1", "t2"]), chance.choice(["delivered", "failed", "waiting"])]
        for waiting in list(in_file.waiting(ended[0], 2))[: chance.randrange(3)]:
            write(("keep_delivery", waiting[1]._replace(state=DeliveryState(ended[1]), tries=number, error="é")))
        in_redis = RedisLedger(link)
        assert in_redis.raised(20) == in_file.raised(20)
        assert in_redis.alerts() == in_file.alerts()
        for target in ("t1", "t2"):
            assert list(in_redis.waiting(target, 3)) == list(in_file.waiting(target, 3))
            assert in_redis.count_waiting(target) == in_file.count_waiting(target)
    write(("forget_alert", "a"))
    assert write(("keep_raised", "f" * 16, 1, {"alert": "a"}, [])) == "void"
    assert link.run(WRITE, int(fence) - 1, "[]", 1, 1) == ["lost", 0]
    link.redis.close()
    connection.close()


# --- all of them ------------------------------------------------------------------------------------------------------


outcomes = stories.in_a_folder()


@pytest.mark.timeout(120)  # for the first, that has them all
@stories.each
def test_stories_of_shared_alerts(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
