"""What was recorded of the real page is live from the first price to the end, at the price the page shows.

The recordings are told to a feed at their own times, by a clock of the test's. They are no part of this repository:
where they aren't, these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import NOW, SYMBOL, Part, Stage

from quotes import Source, State

HEARTBEAT_S, PULSE_S, STEP_S = 10.0, 2.0, 0.25
PROJECT = Path(__file__).parent.parent


def recording(name: str) -> dict[str, Any]:
    found = (folder / "shared" / "recorded" / name for folder in PROJECT.parents)
    path = next((path for path in found if path.exists()), None)
    if path is None:
        pytest.skip(f"the recording {name} is not here: it belongs in ../shared/recorded")
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


class Probe:
    """A socket as the probe tells of it: a pulse every 2 s, and at once when it speaks after a silence."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.heard = 0
        self.beats: list[int] = []
        self.pulse_due = stage.now

    def go_on_until(self, moment: int) -> Iterator[Stage]:
        """Each moment at which something could have become stale, up to that one."""
        while self.stage.now < moment:
            self.stage.now = min(moment, self.stage.now + round(STEP_S * 1000))
            if self.stage.now >= self.pulse_due:
                self.pulse()
            self.stage.tick()
            yield self.stage

    def pulse(self) -> None:
        self.pulse_due = self.stage.now + round(PULSE_S * 1000)
        self.stage.pulse(sockets=[{"id": 1, "open": True, "heard": self.heard, "beats": self.beats[-6:]}])

    def beat(self) -> None:
        was_silent = self.stage.now - self.heard > PULSE_S * 1000
        self.heard = self.stage.now - 2
        self.beats.append(self.heard)
        if was_silent:
            self.pulse()

    def frames(self, *parts: Part) -> None:
        self.heard = self.stage.now - 2
        self.stage.frames(*parts)


def runs_of(ticker: str) -> list[list[tuple[float, str]]]:
    runs: list[list[tuple[float, str]]] = recording("changes-2025.json")["runs"][ticker]
    return runs


@pytest.mark.parametrize("phase", [0.5, 3.0, 5.5, 9.9])
@pytest.mark.parametrize("ticker", ["BTCUSD", "ETHUSD", "SOLUSD"])
def test_recorded_prices_are_live_all_the_time(ticker: str, phase: float) -> None:
    """They were stale 5 to 17 % of it. The heartbeats, `phase` s from the first price, are those of a recording."""
    for run in runs_of(ticker):
        stage = Stage()
        stage.page()
        probe = Probe(stage)
        heartbeats = [(phase + HEARTBEAT_S * index, "") for index in range(round(run[-1][0] / HEARTBEAT_S) + 2)]
        shown, seen = "", 0
        for second, price in sorted([*((at, price) for at, price in run), *heartbeats]):
            for _ in probe.go_on_until(NOW + round(second * 1000)):
                if shown:
                    assert stage.shown == (State.LIVE, shown, Source.SOCKET), f"at {stage.now - NOW} ms"
                    seen += 1
            if price:
                shown = f"{float(price):.2f}"
                probe.frames(Part({"lp": float(price), "pricescale": 100, "lp_time": stage.now // 1000}))
            else:
                probe.beat()
        assert seen > 4 * run[-1][0] * 0.9


def test_a_recorded_socket_with_many_sessions_is_live_at_the_pages_price() -> None:
    """One socket of a stock's page, with three sessions, spec names, snapshots of others, and heartbeats."""
    messages = recording("socket-2025-1.json")["messages"]
    symbol = "NSE:JUNIPER"
    stage = Stage(ticker=symbol)
    stage.page(resolved=symbol, url="https://in.tradingview.com/symbols/NSE-JUNIPER/", currency="INR")
    probe, states = Probe(stage), []
    for second, parts in messages:
        for _ in probe.go_on_until(NOW + round(second * 1000)):
            states.append(stage.shown)
        told = [_part(part) for part in parts if symbol in part.get("n", "")]
        if told:
            probe.frames(*told)
        if any("heartbeat" in part for part in parts):
            probe.beat()
    prices = [shown for shown in states if shown[1] is not None]
    assert set(prices) == {(State.LIVE, "253.40", Source.SOCKET)}, "its ticks are 0.05 from 250 on"
    assert len(prices) > 4 * 85
    assert stage.quote.bid == 253.0
    assert stage.refused == {"socket: session: snapshot": 1, "socket: price: older than the one that counts": 2}
    why = stage.feed.why(stage.uptime, stage.now)
    assert [round(socket["heartbeatMs"], -2) for socket in why["sockets"]] == [10_000]


def _part(told: dict[str, Any]) -> Part:
    fields = {name: value for name, value in told["v"].items() if value is not None}
    return Part(fields, name=told["n"], session=told["session"], status=told["s"])


def test_these_tests_would_see_a_price_that_is_stale_for_a_while() -> None:
    """Without heartbeats half a minute between two prices is no life."""
    stage = Stage()
    stage.page()
    probe = Probe(stage)
    probe.frames(Part({"lp": 100.0}, name=SYMBOL))
    states = {shown.shown[0] for shown in probe.go_on_until(NOW + 30_000)}
    assert states == {State.LIVE, State.STALE}
