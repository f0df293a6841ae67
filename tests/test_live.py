"""The whole way: a price that changes on a page in a real Chromium reaches clients, and what goes wrong is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from httpx_sse import ServerSentEvent
from running import Pluto, Simulator, wait_until


@contextmanager
def tracked(pluto: Pluto, *tickers: str) -> Iterator[None]:
    """These tickers are tracked inside, and no longer afterwards."""
    for ticker in tickers:
        assert pluto.add(ticker).status_code == 201
    try:
        yield
    finally:
        for ticker in tickers:
            pluto.remove(ticker)


def updates_of(events: Iterator[ServerSentEvent], ticker: str, count: int) -> list[dict[str, Any]]:
    """The next `count` updates of a ticker in a stream's batches."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        event = next(events)
        if event.event == "message" and "updates" in event.json():
            found += [update for update in event.json()["updates"] if update["ticker"] == ticker]
    return found[:count]


def shown_at(truth: list[dict[str, Any]], time: float) -> set[str]:
    """The prices the simulator sent in the second before `time`, and the one that stood before."""
    before = [change["price"] for change in truth if change["time"] <= time - 1000][-1:]
    return {*before, *(change["price"] for change in truth if time - 1000 < change["time"] <= time + 1)}


def test_a_ticker_starts_and_becomes_live(pluto: Pluto) -> None:
    with pluto.stream() as events, tracked(pluto, "ADAUSD"):
        assert_starts(events, "ADAUSD")


def assert_starts(events: Iterator[ServerSentEvent], ticker: str) -> None:
    """It is first told as starting, and becomes live."""
    states: list[str] = []
    while "live" not in states:
        updates = next(events).json().get("updates", [])
        states += [update["state"] for update in updates if update["ticker"] == ticker]
    assert states[0] == "starting"
    assert set(states) <= {"starting", "snapshot", "live"}


def test_a_live_quote_says_everything_the_page_knows(pluto: Pluto) -> None:
    with tracked(pluto, "DOTUSD", "DOTUSDT"):
        quote = pluto.wait_for("DOTUSD", "live")
        assert quote["source"] == "socket"
        assert quote["currency"] == "USD"
        assert quote["exchange"] == "BINANCE"
        assert quote["calculated"] is True
        assert quote["simulated"] is True, "the simulator's pages say what they are, also without --demo"
        assert quote["price"] == float(quote["priceText"])
        assert quote["low"] <= quote["price"] <= quote["high"]
        assert abs(quote["receivedAt"] - quote["timestamp"]) < 3000
        assert pluto.wait_for("DOTUSDT", "live")["calculated"] is False


def test_every_price_of_the_stream_was_shown_at_that_time(pluto: Pluto, simulator: Simulator) -> None:
    for ticker in ("LINKUSD", "1000SATSUSDT"):
        simulator.rate(ticker, 10)
    with tracked(pluto, "LINKUSD", "1000SATSUSDT"):
        pluto.wait_for("LINKUSD", "live")
        pluto.wait_for("1000SATSUSDT", "live")
        for ticker in ("LINKUSD", "1000SATSUSDT"):
            with pluto.stream() as events:
                updates = updates_of(events, ticker, 10)
            truth = simulator.truth(ticker)
            for update in updates:
                assert update["priceText"] in shown_at(truth, update["timestamp"])
            assert [update["timestamp"] for update in updates] == sorted(update["timestamp"] for update in updates)


def test_two_clients_see_the_same(pluto: Pluto, simulator: Simulator) -> None:
    simulator.rate("UNIUSD", 10)
    with tracked(pluto, "UNIUSD"):
        pluto.wait_for("UNIUSD", "live")
        with pluto.stream() as one, pluto.stream() as other:
            seen_by_one = {event.id: event.data for event in _some_batches(one, 12)}
            seen_by_other = {event.id: event.data for event in _some_batches(other, 12)}
        common = seen_by_one.keys() & seen_by_other.keys()
        assert len(common) >= 5
        assert all(seen_by_one[id] == seen_by_other[id] for id in common)


def _some_batches(events: Iterator[ServerSentEvent], count: int) -> list[ServerSentEvent]:
    """The next batches that are no first ones."""
    batches: list[ServerSentEvent] = []
    while len(batches) < count:
        event = next(events)
        if event.event == "message" and "updates" in event.json() and "resumed" not in event.json():
            batches.append(event)
    return batches


def test_removing_a_ticker_closes_its_page_and_its_prices(pluto: Pluto, simulator: Simulator) -> None:
    with tracked(pluto, "ATOMUSD"):
        pluto.wait_for("ATOMUSD", "live")
        with pluto.stream() as events:
            assert pluto.remove("ATOMUSD").json()["success"] is True
            for event in events:
                if event.event == "tickers" and "ATOMUSD" not in event.json()["tickers"]:
                    break
        assert pluto.http.get("/api/tickers/ATOMUSD").status_code == 404
        wait_until(lambda: simulator.pages()["sockets"].get("BINANCE:ATOMUSD", 0) == 0)


def test_a_ticker_removed_and_added_again_is_live_again(pluto: Pluto, simulator: Simulator) -> None:
    simulator.rate("XLMUSD", 0)
    with tracked(pluto, "XLMUSD"):
        pluto.wait_for("XLMUSD", "live")
        pluto.remove("XLMUSD")
        with pluto.stream() as events:
            assert pluto.add("XLMUSD").status_code == 201
            assert_starts(events, "XLMUSD")


def test_a_symbol_that_does_not_exist_is_not_found(pluto: Pluto) -> None:
    with tracked(pluto, "NOSUCHCOIN"):
        quote = pluto.wait_for("NOSUCHCOIN", "not_found")
        assert "price" not in quote
        assert "404" in quote["reason"]
        assert quote["nextTryAt"] > 0


def test_a_bot_wall_is_blocked_and_without_a_price(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("AVAXUSD", "bot_wall")
    with tracked(pluto, "AVAXUSD"):
        quote = pluto.wait_for("AVAXUSD", "blocked")
        assert "Just a moment" in quote["reason"]
        assert "price" not in quote
    simulator.clear("AVAXUSD")


def test_renamed_classes_are_still_read_by_frames(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("NEARUSD", "classes_renamed")
    with tracked(pluto, "NEARUSD"):
        quote = pluto.wait_for("NEARUSD", "live")
        assert quote["source"] == "socket"
        simulator.price("NEARUSD", "5.432")
        wait_until(lambda: pluto.quote("NEARUSD")["priceText"] == "5.432")
    simulator.clear("NEARUSD")


def test_a_page_whose_socket_is_out_of_sight_is_read_from_its_element(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("ALGOUSD", "socket_in_worker")
    with tracked(pluto, "ALGOUSD"):
        assert pluto.wait_for("ALGOUSD", "live")["source"] == "dom"
        simulator.fault("ALGOUSD", "price_element_replaced")
        simulator.price("ALGOUSD", "0.4321")
        wait_until(lambda: pluto.quote("ALGOUSD")["priceText"] == "0.4321")
    simulator.clear("ALGOUSD")


def test_a_page_of_another_symbol_gives_no_price(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("FILUSD", "wrong_symbol")
    with tracked(pluto, "FILUSD"):
        quote = pluto.wait_for("FILUSD", "error")
        assert quote["reason"].startswith("TradingView shows visitors COINBASE:FILUSD instead of BINANCE:FILUSD")
        assert "price" not in quote
    simulator.clear("FILUSD")


def test_a_price_is_written_with_the_decimals_of_its_symbol(pluto: Pluto, simulator: Simulator) -> None:
    with tracked(pluto, "SHIBUSDT"):
        pluto.wait_for("SHIBUSDT", "live")
        simulator.price("SHIBUSDT", "0.00000810")
        with pluto.stream() as events:
            while (update := updates_of(events, "SHIBUSDT", 1)[0])["priceText"] != "0.00000810":
                pass
        assert update["price"] == 8.1e-06
