"""Each condition of an alert, against the plainest idea of it, over random prices, times and gaps."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.conditions import (
    MAX_WINDOW,
    Alert,
    Condition,
    CrossJudge,
    Direction,
    Hit,
    MoveJudge,
    StateJudge,
    Window,
    judge_of,
)
from alerts.fields import LEVELS, InvalidAlert, alert_fields, alert_of, kept_alert
from quotes import State, Ticker

BTC = Ticker("BTCUSD")
LEVEL = Decimal("100.10")
PRICES = st.sampled_from(
    ["90", "99.9", "100", "100.09999999999999999", "100.1", "100.10000000000000001", "100.3", "111"]
)
Step = tuple[Decimal, int, bool]  # a price, the ms since the one before, and whether there was a gap
STEPS = st.lists(
    st.tuples(PRICES.map(Decimal), st.sampled_from([1, 500, 4_000, 12_000]), st.integers(0, 4).map(lambda n: n == 0)),
    max_size=25,
)
DIRECTIONS = st.sampled_from(Direction)
FEW = settings(max_examples=80, deadline=None)


def make(condition: Condition, **fields: object) -> Alert:
    return Alert("a", BTC, condition, **{"value": LEVEL, "repeat": True, "cooldown": 10, **fields})  # type: ignore[arg-type]


class Judging:
    """A judge, and the window that it may look at."""

    def __init__(self, alert: Alert) -> None:
        self.window = Window()
        judge = judge_of(alert, self.window)
        assert not isinstance(judge, StateJudge)
        self.judge = judge

    def take(self, price: Decimal, now: float, gap: bool) -> Hit | None:
        self.window.take(price, now, gap)
        return self.judge.take(price, now, gap)


def rings(alert: Alert, steps: list[Step]) -> list[int]:
    """At which steps it rings."""
    judging, now, found = Judging(alert), 1_000_000, []
    for number, (price, ms, gap) in enumerate(steps):
        now += ms
        if judging.take(price, now, gap) is not None:
            found.append(number)
    return found


def times(steps: list[Step]) -> list[int]:
    return [sum(step[1] for step in steps[: number + 1]) for number in range(len(steps))]


@FEW
@given(STEPS, st.booleans(), st.sampled_from(["0", "0.1", "5"]))
def test_a_level_rings_when_it_is_met_again_after_the_way_back_and_the_cooldown(
    steps: list[Step], is_above: bool, hysteresis: str
) -> None:
    alert = make(Condition.ABOVE if is_above else Condition.BELOW, hysteresis=Decimal(hysteresis))
    sign = 1 if is_above else -1
    band = Fraction(LEVEL) * Fraction(hysteresis) / 100
    distances = [sign * (Fraction(price) - Fraction(LEVEL)) for price, _, _ in steps]
    at = times(steps)
    expected: list[int] = []
    for number, distance in enumerate(distances):
        last = expected[-1] if expected else None
        is_back = last is None or any(past < 0 and past <= -band for past in distances[last:number])
        is_quiet = last is not None and at[number] - at[last] < 10_000
        if distance >= 0 and is_back and not is_quiet:
            expected.append(number)
    assert rings(alert, steps) == expected


@FEW
@given(STEPS, DIRECTIONS, st.booleans())
def test_a_crossing_has_a_price_on_each_side(steps: list[Step], direction: Direction, across_gaps: bool) -> None:
    alert = make(Condition.CROSSES, direction=direction, across_gaps=across_gaps, hysteresis=Decimal(0))
    at = times(steps)
    expected: list[int] = []
    sided = [number for number, (price, _, _) in enumerate(steps) if price != LEVEL]
    for before, after in pairwise(sided):
        is_up = steps[after][0] > LEVEL
        has_gap = any(gap for _, _, gap in steps[before + 1 : after + 1])
        if is_up == (steps[before][0] > LEVEL) or (has_gap and not across_gaps):
            continue
        if direction not in (Direction.BOTH, Direction.UP if is_up else Direction.DOWN):
            continue
        if not expected or at[after] - at[expected[-1]] >= 10_000:
            expected.append(after)
    assert rings(alert, steps) == expected


@FEW
@given(STEPS, DIRECTIONS, st.booleans(), st.sampled_from(["0.3", "10", "11"]))
def test_a_move_is_from_any_price_that_was_true_within_the_time(
    steps: list[Step], direction: Direction, across_gaps: bool, percent: str
) -> None:
    alert = make(Condition.MOVES, value=Decimal(percent), within=5, direction=direction, across_gaps=across_gaps)
    at, begins = times(steps), 0
    expected: list[int] = []
    factor = Fraction(percent) / 100
    bounds = [(Fraction(price) * (1 + factor), Fraction(price) * (1 - factor)) for price, _, _ in steps]
    for number, (price, _, gap) in enumerate(steps):
        if gap and not across_gaps:
            begins = number
        true = [bounds[past] for past in range(begins, number) if at[past + 1] >= at[number] - 5_000]
        now, ups, downs = Fraction(price), direction is not Direction.DOWN, direction is not Direction.UP
        moved = any((ups and now >= high) or (downs and now <= low) for high, low in true)
        if moved and (not expected or at[number] - at[expected[-1]] >= 10_000):
            expected.append(number)
            begins = number
    assert rings(alert, steps) == expected


@FEW
@given(st.lists(st.tuples(st.sampled_from(State), st.sampled_from([1, 900, 3_000, 11_000])), max_size=25))
def test_a_trouble_rings_once_and_a_new_try_does_not_end_it(told: list[tuple[State, int]]) -> None:
    judge, now, since, rang, quiet_until = (
        judge_of(make(Condition.STATE, value=None, within=3), Window()),
        0,
        None,
        False,
        0,
    )
    assert isinstance(judge, StateJudge)
    for state, ms in told:
        judge.tell(state, now)
        if state in (State.LIVE, State.CLOSED):
            since, rang = None, False
        elif state in (State.STALE, State.BLOCKED, State.ERROR) and since is None:
            since = now
        now += ms
        expected = since is not None and not rang and now - since > 3_000 and now >= quiet_until
        assert (judge.look(now) is not None) == expected
        if expected:
            rang, quiet_until = True, now + 10_000


def test_a_price_that_jitters_around_a_level_rings_once() -> None:
    jitter = [(Decimal(text), 20_000, False) for text in ["99.9", *["100.11", "100.09"] * 10]]
    assert rings(make(Condition.ABOVE), jitter) == [1]
    assert rings(make(Condition.CROSSES), jitter) == [1]
    back = [(Decimal(text), 20_000, False) for text in ("99.9", "100.11", "99", "100.11")]
    assert rings(make(Condition.CROSSES), back) == [1, 2, 3]


def test_a_ring_across_a_gap_says_so() -> None:
    crossing = Judging(make(Condition.CROSSES, across_gaps=True))
    assert isinstance(crossing.judge, CrossJudge)
    crossing.judge.seed(Decimal(90))
    assert crossing.take(Decimal(111), 1e6, True) == Hit(gap=True)
    move = Judging(make(Condition.MOVES, value=Decimal(5), within=5, across_gaps=True))
    move.window.take(Decimal(90), 1e6, False)
    assert move.take(Decimal(111), 1e6, True) == Hit(gap=True)
    assert move.take(Decimal(130), 2e6, False) == Hit(gap=False)


def test_a_window_is_bounded_and_keeps_its_ends() -> None:
    judging = Judging(make(Condition.MOVES, value=Decimal(900), within=86_400))
    for number in range(5 * MAX_WINDOW):
        assert judging.take(Decimal(1_000 + number), 1e6 + number, False) is None
    assert max(map(len, judging.window.extremes())) <= MAX_WINDOW
    assert judging.take(Decimal(10_000), 2e6, False) == Hit()


def test_a_later_alert_on_moves_does_not_look_back() -> None:
    window, alert = Window(), make(Condition.MOVES, value=Decimal(5), within=60)
    for number, price in enumerate((90, 100, 100)):
        window.take(Decimal(price), 1e6 + number, False)
    judge = judge_of(alert, window, begin=window.number)
    assert isinstance(judge, MoveJudge)
    assert judge.take(Decimal(100), 1e6 + 3, False) is None
    window.take(Decimal(105), 1e6 + 4, False)
    assert judge.take(Decimal(105), 1e6 + 4, False) == Hit()


GOOD = {"ticker": "btc/usd", "condition": "above", "value": "64250.50"}


def test_an_alert_is_read_and_written_exactly() -> None:
    alert = alert_of({**GOOD, "hysteresis": "0", "until": "2100-01-01", "note": "sell"}, "a", 0)
    assert alert_fields(alert) == {
        "id": "a", "ticker": "BTCUSD", "condition": "above", "value": "64250.50", "repeat": False, "hysteresis": "0",
        "until": 4102444800000, "note": "sell",
    }  # fmt: skip
    assert kept_alert(alert_fields(alert)) == alert
    moves = alert_of({"ticker": "BTCUSD", "condition": "moves", "value": "5", "within": 60, "repeat": True}, "b", 0)
    assert kept_alert(alert_fields(moves)) == moves
    assert moves.cooldown == 300


@pytest.mark.parametrize("note", ["👨‍👩‍👧", "prix\u00a0: 5", "非常\u3000高い", "می\u200cخواهم", "\U0001fae9"])
def test_a_note_has_any_language(note: str) -> None:
    assert alert_of({**GOOD, "note": note}, "a", 0).note == note


@pytest.mark.parametrize(
    "wrong",
    [
        {"condition": "near"}, {"condition": ["above"]}, {"condition": None}, {"value": 64250.5}, {"value": "0"},
        {"value": "1e5"}, {"value": "64,250"}, {"value": "-1"}, {"value": "9" * 22}, {"value": "\u0663"},
        {"direction": "up"}, {"within": 60}, {"across_gaps": True}, {"cooldown": 60}, {"repeat": 1},
        {"repeat": True, "cooldown": 9}, {"repeat": True, "cooldown": True}, {"hysteresis": "51"}, {"hysteresis": 0.1},
        {"until": 1}, {"until": "yesterday"}, {"until": True}, {"until": 10**18}, {"note": "x" * 201},
        {"note": "\x1b[31m"}, {"note": "a\rb"}, {"note": "\u202ea"}, {"note": "\ud800"},
        {"id": "mine"}, {"url": "json://x"},
        {"condition": "moves", "value": "5"}, {"condition": "moves", "value": "100.1", "within": 60},
        {"condition": "moves", "value": "5", "within": 86_401}, {"condition": "state", "within": 60},
    ],
)  # fmt: skip
def test_a_wrong_alert_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidAlert, match=r"\.$"):
        alert_of({**GOOD, **wrong}, "a", 1_000)


@FEW
@given(STEPS, st.sampled_from(LEVELS), st.sampled_from(["0", "0.1", "5"]))
def test_prices_in_the_calm_change_nothing(steps: list[Step], condition: Condition, hysteresis: str) -> None:
    _check_calm(make(condition, hysteresis=Decimal(hysteresis)), steps)


@FEW
@given(STEPS, DIRECTIONS, st.booleans(), st.sampled_from(["0.3", "10", "100"]))
def test_prices_in_the_calm_of_moves_change_nothing(
    steps: list[Step], direction: Direction, across_gaps: bool, percent: str
) -> None:
    moves = {"value": Decimal(percent), "within": 5, "direction": direction, "across_gaps": across_gaps}
    _check_calm(make(Condition.MOVES, **moves), steps)


def _check_calm(alert: Alert, steps: list[Step]) -> None:
    judging, now = Judging(alert), 1_000_000
    found: list[int] = []
    for number, (price, ms, gap) in enumerate(steps):
        now += ms
        judging.window.take(price, now, gap)
        is_calm = number and not gap and judging.judge.calm.low < price < judging.judge.calm.high
        if not is_calm and judging.judge.take(price, now, gap) is not None:
            found.append(number)
    assert rings(alert, steps) == found
