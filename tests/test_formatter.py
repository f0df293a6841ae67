"""A number is printed digit by digit as TradingView's page prints it: the page's arithmetic is run in the browser."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

from quotes import MAX_PRICE_DIGITS, UnreadablePrice, parse_price
from tradingview.formatter import number_text, price_format

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("0123456789.e-+ x", max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["", "v", "0"]), inner, max_size=2),
    max_leaves=3,
)


def printed(number: object, **fields: object) -> str:
    return number_text(number, price_format(fields))


def text_or_refusal(number: object, fields: dict[str, object]) -> str:
    try:
        return printed(number, **fields)
    except UnreadablePrice as refused:
        return refused.reason


def decimals_of(**fields: object) -> int | None:
    form = price_format(fields)
    return None if form is None else form.decimals


# --- a symbol's format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", range(MAX_PRICE_DIGITS + 1))
def test_the_pricescale_gives_the_decimals_whatever_the_tick_is(exponent: int) -> None:
    for minmov in (1, 5, 10, 25, None):
        assert decimals_of(pricescale=10**exponent, minmov=minmov) == exponent
    assert decimals_of(pricescale=10.0**exponent) == exponent


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"minmov": 1},
        {"pricescale": 0},
        {"pricescale": -100},
        {"pricescale": 3},
        {"pricescale": 32, "minmov": 1, "fractional": True},  # a bond, in thirty-seconds: 115'05
        {"pricescale": 100, "fractional": True},
        {"pricescale": 100, "minmov": 0},
        {"pricescale": 100, "minmov": -1},
        {"pricescale": 100, "minmov": 1e-300},
        {"pricescale": 100, "minmov": float("nan")},
        {"pricescale": 100, "minmov": "1"},
        {"pricescale": 10**21},
        {"pricescale": 10**400},
        {"pricescale": "100"},
        {"pricescale": True},
        {"pricescale": []},
        {"pricescale": float("nan")},
        {"pricescale": float("inf")},
    ],
)
def test_a_format_that_the_page_does_not_give_is_never_made_up(fields: dict[str, object]) -> None:
    assert price_format(fields) is None
    assert printed(64001.53, **fields) == "64001.53"


@unhurried
@given(JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_no_format_is_an_error(pricescale: object, minmov: object, steps: object) -> None:
    form = price_format({"pricescale": pricescale, "minmov": minmov, "variable_tick_size": steps})
    assert form is None or 0 <= form.decimals <= MAX_PRICE_DIGITS


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "fields", "text"),
    [
        (8.12e-06, {"pricescale": 10**8}, "0.00000812"),
        (8.12e-06, {}, "0.00000812"),
        (1.234e-08, {"pricescale": 10**12}, "0.000000012340"),
        (0.1 + 0.2, {"pricescale": 100}, "0.30"),
        (8004.799999999999, {"pricescale": 100}, "8004.80"),
        (64001.5, {"pricescale": 100}, "64001.50"),
        (64001.5, {}, "64001.5"),
        (64000, {"pricescale": 100}, "64000.00"),
        (64000, {"pricescale": 1}, "64000"),
        (64000.0, {}, "64000"),
        (1e15, {}, "1000000000000000"),
        (10**19, {}, "10000000000000000000"),
        (1.005, {"pricescale": 100}, "1.00"),  # in doubles it is less than that
        (0.125, {"pricescale": 100}, "0.13"),
        (0.135, {"pricescale": 100}, "0.14"),
        (2.5, {"pricescale": 1}, "3"),
        (10.02, {"pricescale": 100, "minmov": 5}, "10.00"),
        (10.03, {"pricescale": 100, "minmov": 5}, "10.05"),
        (10.02, {"pricescale": 100, "minmov": 10}, "10.00"),
        (253.42, {"pricescale": 100, "minmov": 5, "variable_tick_size": "0.01 250 0.05"}, "253.40"),
        (249.99, {"pricescale": 100, "minmov": 5, "variable_tick_size": "0.01 250 0.05"}, "249.99"),
        (250.0, {"pricescale": 100, "minmov": 1, "variable_tick_size": "0.01 250 0.05"}, "250.00"),
        (250.02, {"pricescale": 100, "minmov": 1, "variable_tick_size": "0.01 250 0.05"}, "250.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": ""}, "10.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": "0.01 250"}, "10.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": "0.001 250 0.05"}, "10.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": "0.01 250 0.05 50 1"}, "10.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": "a tick"}, "10.00"),
        (10.02, {"pricescale": 100, "minmov": 5, "variable_tick_size": 0.01}, "10.00"),
    ],
)
def test_a_number_is_printed_as_the_page_prints_it(number: float, fields: dict[str, object], text: str) -> None:
    assert printed(number, **fields) == text


@pytest.mark.parametrize(
    ("number", "pricescale", "reason"),
    [
        (0, 100, "zero"),
        (0.0, None, "zero"),
        (8.12e-06, 100, "zero"),  # its own decimals would print nothing of it
        (-1, 100, "negative"),
        (-8.12e-06, None, "negative"),
        (-(10**400), None, "negative"),
        (float("nan"), 100, "not a number"),
        (float("inf"), 100, "not a number"),
        (float("-inf"), 100, "not a number"),
        (1e20, 1, "too many digits"),
        (1e300, None, "too many digits"),
        (10**400, 100, "too many digits"),
        (1e-300, None, "too many digits"),
        (10**19, 100, "too many digits"),
        (None, 100, "not a number"),
        (True, 100, "not a number"),
        ("64001.5", 100, "not a number"),
        ([64001.5], 100, "not a number"),
    ],
)
def test_a_number_that_is_no_price_is_refused_with_its_reason(
    number: object, pricescale: int | None, reason: str
) -> None:
    with pytest.raises(UnreadablePrice) as refused:
        printed(number, pricescale=pricescale)
    assert refused.value.reason == reason


@unhurried
@given(st.integers(-10, 10**21) | st.floats(), st.none() | st.integers(0, 10))
def test_a_printed_number_is_the_number_to_half_of_its_last_digit(number: float, decimals: int | None) -> None:
    try:
        price = printed(number, pricescale=None if decimals is None else 10**decimals)
    except UnreadablePrice:
        return
    exact = Decimal(repr(float(number)))
    half = Decimal(0) if decimals is None else Decimal(5).scaleb(-decimals - 1)
    assert abs(Decimal(price) - exact) <= half + exact * Decimal(2) ** -52
    assert parse_price(price) == price


@unhurried
@given(JSON_VALUES)
def test_no_number_is_an_unknown_error(number: object) -> None:
    with suppress(UnreadablePrice):
        printed(number, pricescale=100)


# --- beside the page's own arithmetic ---------------------------------------------------------------------------------

FORMATTER = """prices => prices.map(({ number, pricescale, minmov, steps }) => {
    const below = steps.findIndex(([, limit]) => number < limit);
    const ticks = steps.length ? Math.round(steps[below][0] * pricescale) : minmov;
    const rounded = Math.round(number * pricescale / ticks) * ticks / pricescale;
    return rounded.toFixed(Math.round(Math.log10(pricescale)));
})"""
STEPS = st.sampled_from([(), ((0.01, 250), (0.05, 1e999)), ((0.01, 1), (0.1, 10), (1, 1e999))])


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    """A number as frames have them: near a tick, near the middle between two, or anywhere; below 2^53 ticks or not."""
    exponent = draw(st.integers(0, 15))
    minmov = draw(st.sampled_from([1, 1, 1, 2, 5, 10, 25, 50, 125]))
    ticks = draw(st.integers(0, 10**7) | st.integers(0, 10**16))
    offset = draw(st.sampled_from([0, 0, 0.5, 0.25, 0.49999999999999994]) | st.floats(0, 1))
    number = (ticks + offset) * minmov / 10**exponent
    steps = draw(STEPS) if exponent >= 2 else ()
    return {"number": min(number, 1e15), "pricescale": 10**exponent, "minmov": minmov, "steps": steps}


@pytest.mark.timeout(180)
@settings(unhurried, max_examples=150)
@given(st.lists(prices(), min_size=1, max_size=40))
def test_every_digit_is_the_browsers(browser_page: Page, told: list[dict[str, Any]]) -> None:
    shown = browser_page.evaluate(FORMATTER, told)
    for price, text in zip(told, shown, strict=True):
        words = [str(word) for step in price["steps"] for word in step][:-1]
        fields: dict[str, object] = {
            "pricescale": price["pricescale"],
            "minmov": price["minmov"],
            "variable_tick_size": " ".join(words),
        }
        assert text_or_refusal(price["number"], fields) in (text, "zero" if float(text) == 0 else "too many digits")
