"""Whatever fails under load passes: all is well again within seconds, and no client was ever shown a wrong price.

One Pluto with six tickers in two groups and 60 clients of every transport goes through the drills of `drills.py`, one
after another; `bench/faults.py` runs the long ones, with 20 tickers and proofs of full length. What jumps of the clock
do to a page's own is tested on the feed alone, which is given its clocks.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from drills import CRAWLERS, SHORT, Drill, Stage, staged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import wait_until

from quotes import State, Ticker
from tradingview.feed import CLOCK_STEP_MS, Feed
from tradingview.proof import MIN_SOCKET_PROOF_MS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the crowd and the drills take Linux")

JUMPS = st.integers(-86_400_000, 86_400_000)  # ms: up to a day


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    shorter = 0.25  # 3.75 s
    with staged(0.0, "--group-size", "4", tickers=6, clients=60, proof_factor=shorter, weight=20_000) as stage:
        yield stage


@pytest.mark.parametrize("drill", SHORT, ids=lambda drill: drill.name)
def test_a_fault_passes_and_no_client_sees_a_wrong_price(stage: Stage, drill: Drill) -> None:
    if drill.needs_disk and stage.disk is None:
        pytest.skip("a disk of its own can't be mounted here")
    outcome = drill.run(stage)
    print(f"{drill.name}: well again after {outcome.recovered_s:.1f} s")
    assert outcome.left == 0
    assert stage.wrongs() == []


def test_clients_that_read_one_byte_a_second_are_let_go_and_cost_the_others_nothing(stage: Stage) -> None:
    """They take nothing of what waits for them for too long; they come back meanwhile."""

    def let_go() -> int:
        counters = stage.pluto.http.get("/api/performance").raise_for_status().json()["server"]["counters"]
        return int(counters.get("dropped: stuck", 0)) + stage.crowd.counters["lost, slow"]

    wait_until(lambda: let_go() > CRAWLERS // 2, 30.0, what="most were let go")
    assert stage.crowd.counters["lost"] == 0, "nobody else was"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(JUMPS, st.booleans()), min_size=1, max_size=8))
def test_when_the_clock_jumps_a_live_price_stays_live_and_a_silent_one_does_not(steps: list[tuple[int, bool]]) -> None:
    """A document reads the wall once, when it begins, and counts from there; our own clock never jumps."""
    stage = Clocks()
    for jump, is_reloaded in [(0, True), *steps]:
        stage.wait(1_000, jump)
        if is_reloaded:
            stage.load()
        stage.show(64_000 + stage.now % 1_000)
        quote = stage.feed.quote(stage.now).as_of(stage.now)
        assert quote.state is State.LIVE
        assert quote.timestamp is not None
        assert 0 <= quote.timestamp - stage.wall <= CLOCK_STEP_MS
    stage.wait(MIN_SOCKET_PROOF_MS + 1, steps[-1][0])
    assert stage.feed.quote(stage.now).has_expired(stage.now)


class Clocks:
    """A feed, and the three clocks that it is told the time by."""

    def __init__(self) -> None:
        self.feed = Feed(Ticker("BTCUSDT"), simulated=True, counters=Counter())
        self.wall, self.now, self.page = 1_795_000_000_000, 50_000_000, 0
        self.document = 0

    def wait(self, ms: int, jump: int) -> None:
        self.wall, self.now, self.page = self.wall + ms + jump, self.now + ms, self.page + ms

    def load(self) -> None:
        self.page, self.document = self.wall, self.document + 1
        self._tell("start")
        self._tell("page", resolved="BINANCE:BTCUSDT", url="https://www.tradingview.com/symbols/BTCUSDT/")

    def show(self, price: int) -> None:
        frame = {"session": "qs_1", "name": "BINANCE:BTCUSDT", "status": "ok", "fields": {"lp": price}}
        self._tell("frames", socket=1, frames=[frame])

    def _tell(self, kind: str, **message: object) -> None:
        self.feed.hear({"kind": kind, "page": self.document, "at": self.page, **message}, self.now, self.wall)
