"""The limiter: a burst at once, then so much a second, for each key on its own, in bounded memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import limiter as module
from limiter import Limiter


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=20))
def test_a_minutes_worth_passes_at_once_and_then_as_it_grows(per_minute: int, pauses: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 1000.0
        passed: list[float] = []
        patch.setattr("limiter.time", SimpleNamespace(monotonic=lambda: now))  # no other thread's clock
        limiter = Limiter(per_minute / 60, per_minute)
        for pause in (0, *pauses):
            now += pause
            while not limiter.wait_s("a"):
                assert limiter.take(key="a")
                passed.append(now)
            assert limiter.wait_s("a") <= 60 / per_minute + 1e-6
        assert passed.count(1000.0) >= per_minute
        assert len(passed) <= per_minute + sum(pauses) / 60 * per_minute + 1e-3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.5, 10)), max_size=30))
def test_what_is_taken_beyond_the_burst_must_be_made_up_for(takes: list[tuple[float, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now, left = 1000.0, 20.0
        patch.setattr("limiter.time", SimpleNamespace(monotonic=lambda: now))  # no other thread's clock
        limiter = Limiter(2, 20)
        for pause, cost in takes:
            now += pause
            left = min(20.0, left + 2 * pause) - cost
            if abs(left) > 1e-5:
                assert limiter.take(cost) == (left > 0)
            else:
                limiter.take(cost)


def test_each_key_is_counted_on_its_own() -> None:
    limiter = Limiter(1 / 60, 1)
    assert limiter.take(key="a")
    assert not limiter.take(key="a")
    assert limiter.take(key="b")


def test_beyond_the_most_keys_the_one_that_was_counted_longest_ago_is_forgotten() -> None:
    limiter = Limiter(1 / 60, 1)
    for number in range(module.MAX_KEYS):
        limiter.take(key=f"address {number}")
    assert limiter.wait_s("address 0") > 50
    limiter.take(key="one more")
    assert limiter.wait_s("address 0") == 0
    assert limiter.wait_s("address 1") > 50
