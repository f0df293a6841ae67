"""Whoever asks why a price is what it is gets what the page has told, and may have the page opened again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from running import Pluto, Simulator, wait_until
from test_live import tracked
from test_openapi import matches

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import RetryTickerRequest


def why(pluto: Pluto, ticker: str) -> dict[str, Any]:
    told: dict[str, Any] = pluto.http.get(f"/api/tickers/{ticker}/why").raise_for_status().json()
    assert matches(told, "Why")
    return told


def retry(pluto: Pluto, ticker: str) -> tuple[int, str]:
    answer = pluto.http.post(f"/api/tickers/{ticker}/retry")
    assert answer.status_code != 429 or 1 <= int(answer.headers["retry-after"]) <= 10
    assert answer.json()["success"] is (answer.status_code == 200)
    return answer.status_code, answer.json().get("code", "")


def connect_code(pluto: Pluto, ticker: str) -> Code | None:
    """How the same call by Connect fails; None if it doesn't."""
    try:
        answer = CryptoPriceServiceClientSync(pluto.url).retry_ticker(RetryTickerRequest(ticker=ticker))
    except ConnectError as error:
        return error.code
    assert answer.success
    return None


def test_a_wrong_clock_of_this_machine_is_told(pluto: Pluto, simulator: Simulator) -> None:
    assert "clock" not in pluto.http.get("/health").json()
    simulator.fault("EOSUSDC", "clock_ahead")
    problem = "this machine's clock is 10 minutes behind TradingView's: set it right"
    with tracked(pluto, "EOSUSDC"):
        wait_until(lambda: pluto.http.get("/health").json().get("clock") == problem, 20)
        assert why(pluto, "EOSUSDC")["clockProblem"] == problem
    simulator.clear("EOSUSDC")


@pytest.fixture(scope="module")
def grtusdc(pluto: Pluto) -> Iterator[None]:
    """This ticker is tracked before it is looked at: heartbeats take long."""
    with tracked(pluto, "GRTUSDC"):
        yield


@pytest.mark.usefixtures("grtusdc")
def test_why_tells_what_answered_in_place_of_the_page(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("SANDUSDC", "not_found")
    simulator.fault("MANAUSDC", "forbidden")
    with tracked(pluto, "SANDUSDC"), tracked(pluto, "MANAUSDC"):
        pluto.wait_for("SANDUSDC", "not_found")
        pluto.wait_for("MANAUSDC", "blocked")
        missing, blocked = why(pluto, "SANDUSDC"), why(pluto, "MANAUSDC")
        assert (missing["httpStatus"], missing["loads"], missing["failures"]) == (404, 1, 1)
        assert missing["reason"] == "TradingView has no such symbol (HTTP 404)"
        assert (blocked["state"], blocked["httpStatus"]) == ("blocked", 403)
        assert blocked["nextTryAt"] > time.time() * 1000 + 60_000

        assert retry(pluto, "MANAUSDC") == (409, "retry_refused")
        assert connect_code(pluto, "MANAUSDC") is Code.FAILED_PRECONDITION
        simulator.clear("SANDUSDC")
        assert connect_code(pluto, "SANDUSDC") is None
        assert connect_code(pluto, "SANDUSDC") is Code.RESOURCE_EXHAUSTED
        assert retry(pluto, "SANDUSDC") == (429, "retried_too_soon")
        pluto.wait_for("SANDUSDC", "live")
        assert why(pluto, "SANDUSDC")["loads"] == 2
        assert retry(pluto, "SANDUSDC") == (200, ""), "the page of a live ticker is left as it is"
    simulator.clear("MANAUSDC")


@pytest.mark.parametrize("text", ["INJUSDC", "KRAKEN:BTCUSD"])
def test_of_what_is_not_tracked_nothing_is_told(pluto: Pluto, text: str) -> None:
    assert pluto.http.get(f"/api/tickers/{text}/why").json()["code"] == "not_tracked"
    assert retry(pluto, text) == (404, "not_tracked")
    assert connect_code(pluto, text) is Code.NOT_FOUND


@pytest.mark.usefixtures("grtusdc")
def test_why_tells_what_the_page_of_a_live_ticker_has_told(pluto: Pluto, simulator: Simulator) -> None:
    told = wait_until(lambda: with_a_heartbeat(why(pluto, "GRTUSDC")), 30)
    assert told["symbol"] == "BINANCE:GRTUSDC"
    assert (told["state"], told["reason"], told["source"]) == ("live", None, "socket")
    assert (told["httpStatus"], told["loads"], told["failures"]) == (200, 1, 0)
    assert told["host"] == simulator.url.removeprefix("http://")
    assert told["header"]["chosen"] >= 1
    assert told["page"]["resolvedSymbol"] == "BINANCE:GRTUSDC"
    assert abs(told["clockBehindMs"]) < 3_000
    assert told["clockProblem"] is None
    assert any(session["givesPrice"] for session in told["sockets"][0]["sessions"])
    socket, title = told["strategies"]["socket"], told["strategies"]["title"]
    assert socket["isProven"]
    assert socket["priceText"] == told["priceText"]
    assert 0.99 < socket["successRate"] <= 1
    assert (title["priceText"], title["successRate"]) == (None, None)


def with_a_heartbeat(told: dict[str, Any]) -> dict[str, Any]:
    """What was told of a live ticker, once its socket's heartbeats come as often as the simulator sends them."""
    heartbeat = told["sockets"][0]["heartbeatMs"] if told["sockets"] else None
    return told if told["state"] == "live" and abs((heartbeat or 0) - 2_000) < 500 else {}
