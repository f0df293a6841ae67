"""What is read back: the history's pages, candles and CSV by REST and Connect, and the watchlist as a whole."""

from __future__ import annotations

import csv
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from running import PROJECT, QuoteServer, quote_server, wait_until

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import AddTickerRequest, GetHistoryRequest, Interval, State
from web.reading import moment_of

PRICES = ["10.50", "10.40", "0.00000812", "10.60", "10.45"]
NOW = 1_795_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuoteServer]:
    """A server that keeps BTCUSD's five prices, and that its page then went silent."""
    with quote_server("--data", str(tmp_path_factory.mktemp("data")), "--max-tickers", "3") as server:
        server.track("BTCUSD")
        for price in PRICES:
            server.put(("BTCUSD", "live", price))
        server.put(("BTCUSD", "stale", "10.45"))
        wait_until(lambda: len(points(server)) == 6)
        yield server


def points(server: QuoteServer, query: str = "") -> list[dict[str, Any]]:
    answer = server.http.get(f"/api/tickers/BTCUSD/history{query}")
    return [] if answer.status_code == 404 else answer.raise_for_status().json()["points"]


def pages(server: QuoteServer, query: str, name: str) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        page = server.http.get(f"/api/tickers/BTCUSD/history?{query}&cursor={cursor}").raise_for_status().json()
        yield page[name]
        if (cursor := page["next"]) is None:
            return


def test_every_change_comes_back_exactly(server: QuoteServer) -> None:
    found = points(server)
    answer = server.http.get("/api/tickers/BTCUSD/history?limit=1").json()
    assert answer["recordedSince"] == found[0]["at"]
    assert [(point.get("priceText"), point["state"]) for point in found] == [
        *((price, "live") for price in PRICES),
        ("10.45", "stale"),
    ]
    assert found[0]["source"] == "socket"
    places = [point["at"] for point in found]
    assert places == sorted(places)
    assert points(server, "?until=5m") == []
    assert points(server, f"?since={places[0]}&until={places[-1] + 1}") == found


@pytest.mark.parametrize(
    ("query", "is_forward"),
    [("since=1h&limit=2", True), ("limit=2", False), ("limit=2&until=99999999999999", False)],
)
def test_pages_hold_everything_once_whichever_way_they_lead(server: QuoteServer, query: str, is_forward: bool) -> None:
    found = list(pages(server, query, "points"))
    assert [len(page) for page in found] == [2, 2, 2]
    assert [point for page in (found if is_forward else found[::-1]) for point in page] == points(server)


@pytest.mark.parametrize("interval", ["1s", "1m", "5m", "15m", "1h", "4h", "1d"])
def test_candles_hold_the_live_prices(server: QuoteServer, interval: str) -> None:
    (candles,) = pages(server, f"interval={interval}", "candles")
    assert sum(candle["count"] for candle in candles) == 5
    assert (candles[0]["open"], candles[-1]["close"]) == ("10.50", "10.45")
    assert "0.00000812" in [candle["low"] for candle in candles]
    assert "10.60" in [candle["high"] for candle in candles]
    assert candles[0]["gap"] is True, "nothing was known before the first price"
    if interval == "1d":
        assert candles[-1]["isOpen"] is True
    if interval != "1s":
        assert {candle["start"] % 60_000 for candle in candles} == {0}
    assert list(pages(server, f"interval={interval}&since=1d&limit=5000", "candles")) == [candles]


def test_csv_has_the_exact_decimals(server: QuoteServer) -> None:
    answer = server.http.get("/api/tickers/BTCUSD/history", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["priceText"] for row in rows] == [*PRICES, "10.45"]
    link = server.http.get("/api/tickers/BTCUSD/history?format=csv", headers={"Accept": "text/html,*/*;q=0.8"})
    assert link.text == answer.text
    bounded = server.http.get("/api/tickers/BTCUSD/history?limit=2", headers={"Accept": "text/csv"})
    assert list(csv.DictReader(bounded.text.splitlines())) == rows[:2]
    candles = server.http.get("/api/tickers/BTCUSD/history?interval=1d", headers={"Accept": "text/csv"})
    assert candles.text.splitlines()[1].split(",")[1] == "10.50"


def test_connect_has_the_same_history(server: QuoteServer) -> None:
    client = CryptoPriceServiceClientSync(server.url)
    first = client.get_history(GetHistoryRequest(ticker="btcusd", since="1h", limit=4))
    second = client.get_history(GetHistoryRequest(ticker="BTCUSD", since="1h", cursor=first.next))
    assert [point.price_text for point in [*first.points, *second.points]] == [*PRICES, "10.45"]
    assert [point.at for point in first.points] == [point["at"] for point in points(server)][:4]
    assert second.points[-1].state == State.STATE_STALE
    assert not second.next
    (candle,) = client.get_history(GetHistoryRequest(ticker="BTCUSD", interval=Interval.INTERVAL_1D)).candles
    assert (candle.open, candle.low, candle.count, candle.is_open) == ("10.50", "0.00000812", 5, True)
    with pytest.raises(ConnectError) as refused:
        client.get_history(GetHistoryRequest(ticker="BTCUSD", interval=99))  # type: ignore[arg-type]
    assert refused.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(ConnectError) as unknown:
        client.get_history(GetHistoryRequest(ticker="NEVERSEEN"))
    assert unknown.value.code is Code.NOT_FOUND


def test_the_example_prints_candles(server: QuoteServer) -> None:
    command = [sys.executable, "examples/history.py", server.url, "BTCUSD"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True, timeout=20).stdout
    assert printed.splitlines()[0].split(",")[1] == "10.50"


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "until=1.5h",
        "limit=0",
        "limit=5001",
        "limit=x",
        "interval=2m",
        "format=xml",
        "cursor=f1",
        "cursor=x",
    ],
)
def test_a_question_that_means_nothing_is_refused(server: QuoteServer, query: str) -> None:
    answer = server.http.get(f"/api/tickers/BTCUSD/history?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_range")


def test_what_is_unknown_is_not_tracked_and_what_is_removed_stays(server: QuoteServer) -> None:
    assert server.http.get("/api/tickers/NEVERSEEN/history").json()["code"] == "not_tracked"
    server.track("NOPRICE")
    assert server.http.get("/api/tickers/NOPRICE/history?interval=1m").json() == {
        "candles": [],
        "next": None,
        "recordedSince": None,
    }
    server.untrack("NOPRICE")
    server.track("GONE")
    server.put(("GONE", "live", "3"))

    def kept() -> list[str]:
        answer = server.http.get("/api/tickers/GONE/history")
        return [point["state"] for point in answer.json().get("points", [])]

    wait_until(lambda: kept() == ["live"])
    server.untrack("GONE")
    wait_until(lambda: kept() == ["live", "unrecorded"])


def test_without_a_store_there_is_no_history() -> None:
    with quote_server() as server:
        answer = server.http.get("/api/tickers/BTCUSD/history")
        assert (answer.status_code, answer.json()["code"]) == (409, "no_store")
        assert "--no-store" in answer.json()["message"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", None),
        ("0", 0),
        ("1795000000123", 1_795_000_000_123),
        ("24h", NOW - 86_400_000),
        ("2w", NOW - 14 * 86_400_000),
        ("2026-11-18T11:06:40Z", NOW),
        ("2026-11-18T11:06:40", NOW),
        ("2026-11-18T12:06:40.250+01:00", NOW + 250),
        ("2026-11-18", NOW - 40_000_000),
    ],
)
def test_a_moment_is_an_iso_time_or_ms_or_an_age(text: str, moment: int | None) -> None:
    assert moment_of(text, NOW) == moment


def test_a_ticker_that_was_answered_survives_a_kill_at_once(tmp_path: Path) -> None:
    """Once by each way to change the list."""
    tickers = [f"T{number}USD" for number in range(5)]
    with quote_server("--data", str(tmp_path)) as server:
        server.track(*tickers[1:])
        with closing(sqlite3.connect(tmp_path / "pluto.db", isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")  # the writer has to wait, and so has the answer
            unlock = threading.Timer(0.1, other.rollback)
            unlock.start()
            server.track(tickers[0])
            server.process.kill()
            unlock.join()
    with quote_server("--data", str(tmp_path)) as server:
        assert server.http.get("/api/watchlist").json()["tickers"] == tickers
        server.untrack(tickers[0])
        CryptoPriceServiceClientSync(server.url).add_ticker(AddTickerRequest(ticker="ZECUSD"))
        server.process.kill()
    with quote_server("--data", str(tmp_path)) as server:
        assert server.http.get("/api/watchlist").json()["tickers"] == [*tickers[1:], "ZECUSD"]
        put(server, json={"tickers": ["XMRUSD"]})
        server.process.kill()
    with quote_server("--data", str(tmp_path)) as server:
        assert server.http.get("/api/watchlist").json()["tickers"] == ["XMRUSD"]


# --- the watchlist ----------------------------------------------------------------------------------------------------


def put(server: QuoteServer, **body: Any) -> Any:
    return server.http.put("/api/watchlist", **body)


def test_the_watchlist_goes_out_and_comes_back(server: QuoteServer) -> None:
    before = server.http.get("/api/watchlist").json()
    assert put(server, json={"tickers": ["ethusd", "COINBASE:BTCUSD"]}).json()["tickers"] == [
        "COINBASE:BTCUSD",
        "ETHUSD",
    ]
    lines = server.http.get("/api/watchlist", headers={"Accept": "text/plain"})
    assert lines.text == "COINBASE:BTCUSD\nETHUSD\n"
    server.untrack("ETHUSD")
    text = {"Content-Type": "text/plain"}
    answer = put(server, content=f"\ufeff{lines.text}\r\n\n..\nAAVEUSD\nBNBUSD\n", headers=text)
    assert answer.json()["tickers"] == ["AAVEUSD", "COINBASE:BTCUSD", "ETHUSD"]
    assert [(one["text"], one["code"]) for one in answer.json()["refused"]] == [
        ("..", "invalid_ticker"),
        ("BNBUSD", "too_many_tickers"),
    ]
    assert put(server, json=before).json()["tickers"] == before["tickers"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"json": {"tickers": "BTCUSD"}}, 400),
        ({"json": ["BTCUSD"]}, 400),
        ({"json": {"tickers": [7, "no ticker"]}}, 400),
        ({"content": "<html>\n</html>", "headers": {"Content-Type": "text/plain"}}, 400),
        ({"content": b"BTCUSD\n\xff\xfe", "headers": {"Content-Type": "text/plain"}}, 400),
        ({"content": "{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"data": {"tickers": "BTCUSD"}}, 415),
        ({"content": "A" * 70_000, "headers": {"Content-Type": "text/plain"}}, 413),
    ],
)
def test_a_list_that_can_t_be_read_changes_nothing(server: QuoteServer, body: dict[str, Any], status: int) -> None:
    before = server.http.get("/api/watchlist").json()
    answer = put(server, **body)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert server.http.get("/api/watchlist").json() == before
