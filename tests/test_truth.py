"""The proof that the fault drills rest on tells a right price from a wrong one, a stale one and another symbol's."""

from __future__ import annotations

import pytest
from truth import FRESH_MS, TOLERANCE_MS, Change, Sighting, wrongs

T = 1_795_000_000_000
TRUTH = {
    "BTCUSDT": [Change(T, "100.0"), Change(T + 1_000, "101.0"), Change(T + 60_000, "102.0")],
    "ETHUSDT": [Change(T, "200.0")],
}


def seen(price: str | None, at: int, *, ticker: str = "BTCUSDT", state: str = "live", until: float = 0) -> list[str]:
    """What is said of a price that a page showed so many ms after T, and clients until so many."""
    shown = Sighting(ticker, state, price, T + at, T + at + 50, 7, T + until if until else 0.0)
    return list(wrongs([shown], TRUTH))


def test_a_price_that_was_true_then_is_right() -> None:
    assert seen("100.0", 0, until=900) == []
    assert seen("101.0", 1_000, until=60_100) == []
    assert seen("200.0", 3_600_000, ticker="ETHUSDT", until=7_200_000) == [], "it stood still for two hours"


def test_a_price_that_never_was_is_wrong() -> None:
    assert "never its price" in seen("100.5", 500)[0]
    assert "never its price" in seen(None, 500)[0]


def test_another_symbols_price_is_wrong() -> None:
    assert "never its price" in seen("200.0", 500)[0]
    assert "never its price" in seen("200.0", 500, ticker="XRPUSDT")[0], "a ticker that the simulator knows nothing of"


def test_a_price_told_before_it_was_true_is_wrong() -> None:
    assert "never its price until then" in seen("102.0", 59_000)[0]


def test_a_price_told_long_after_its_time_is_wrong() -> None:
    assert "told 9051 ms after it had ceased" in seen("100.0", 10_000)[0]


@pytest.mark.parametrize(("late", "is_right"), [(TOLERANCE_MS - 1, True), (TOLERANCE_MS + 1, False)])
def test_a_page_may_be_a_little_late(late: float, is_right: bool) -> None:
    assert (seen("100.0", 1_000 + int(late)) == []) is is_right


@pytest.mark.parametrize(("longer", "is_right"), [(FRESH_MS - 1, True), (FRESH_MS + 1, False)])
def test_a_price_may_not_stay_live_after_its_time(longer: float, is_right: bool) -> None:
    found = seen("101.0", 1_000, until=60_000 + longer)
    assert (found == []) is is_right
    assert is_right or f"still shown as live {FRESH_MS + 1:.0f} ms after" in found[0]


def test_the_limit_is_that_of_a_proof_a_tick_and_a_batch() -> None:
    assert FRESH_MS == 15_550


def test_nothing_is_true_while_the_source_is_down() -> None:
    truth = {"BTCUSDT": [*TRUTH["BTCUSDT"][:2], Change(T + 10_000, None)]}
    shown = Sighting("BTCUSDT", "live", "101.0", T + 1_000, T + 1_000, 7)
    shown.until = T + 10_000 + FRESH_MS
    assert list(wrongs([shown], truth)) == []
    shown.until += 1
    assert len(list(wrongs([shown], truth))) == 1
    told_later = Sighting("BTCUSDT", "live", "101.0", T + 13_000, T + 13_000, 8)
    assert len(list(wrongs([told_later], truth))) == 1


def test_what_is_not_told_as_live_may_be_old() -> None:
    assert seen("100.0", 50_000, state="stale", until=90_000) == []
