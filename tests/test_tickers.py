"""Tickers as people have them, on every way into Pluto; `test_quotes` has what each text means."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote as url_quote

import httpx
import pytest
from connectrpc.errors import ConnectError
from running import TLS, Pluto, QuoteServer, quote_server, wait_until

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import AddTickerRequest, StreamPricesRequest
from settings import Settings

CHINESE, SLASH, AMPERSAND = "币安人生USDT", "NYSE:NEE/PW", "NSE:M&M"


@pytest.fixture(scope="module")
def shared() -> Iterator[QuoteServer]:
    with quote_server() as server:
        yield server


@pytest.fixture
def server(shared: QuoteServer) -> Iterator[QuoteServer]:
    yield shared
    shared.untrack(*(url_quote(ticker, safe="") for ticker in shared.prices()))


def add(server: QuoteServer, text: str) -> httpx.Response:
    return server.http.post("/api/tickers", json={"ticker": text})


def test_the_answer_says_what_a_text_was_read_as(server: QuoteServer) -> None:
    added = add(server, "https://www.tradingview.com/symbols/ETHUSD/?exchange=BINANCE")
    assert added.status_code == 201
    assert added.json()["understood"] == added.json()["ticker"]["ticker"] == "ETHUSD"
    again = add(server, "BINANCE:ETHUSD")
    assert again.status_code == 200
    assert again.json()["understood"] == "ETHUSD"
    assert again.json()["message"] == "ETHUSD is tracked already."
    assert "understood" not in add(server, " ethusd ").json()


def test_what_is_no_single_ticker_is_refused_with_proposals(server: QuoteServer) -> None:
    refused = add(server, "Bitcoin")
    assert refused.status_code == 400
    assert refused.json() == {
        "success": False,
        "message": "Bitcoin is a coin. Did you mean BTCUSD or BTCUSDT?",
        "code": "did_you_mean",
        "proposals": ["BTCUSD", "BTCUSDT"],
    }
    assert refused.text.endswith("}\n")
    assert add(server, "BTC/USD ethusd").json()["proposals"] == ["BTC/USD", "ETHUSD"]
    assert "proposals" not in add(server, "?").json()
    assert server.prices() == {}


def test_connect_and_the_option_understand_the_same(server: QuoteServer) -> None:
    client = CryptoPriceServiceClientSync(server.url)
    assert client.add_ticker(AddTickerRequest(ticker="COINBASE:BTC-USD")).message == "COINBASE:BTCUSD is tracked now."
    for method, message in (("GetTickers", {}), ("AddTicker", {"ticker": "BTC"}), ("Nothing", {})):
        answer = server.http.post(f"/crypto.v1.CryptoPriceService/{method}", json=message)
        assert answer.text.endswith("}\n"), "for a terminal"
    refused = client.add_ticker(AddTickerRequest(ticker="Bitcoin"))
    assert (refused.success, "BTCUSDT" in refused.message) == (False, True)
    with pytest.raises(ConnectError, match="BTCUSDT"):
        next(client.stream_prices(StreamPricesRequest(tickers=["btc"])))
    assert Settings(tickers="btc/usdt, kraken eth usd;$SOLUSD").start_tickers == ["BTCUSDT", "KRAKEN:ETHUSD", "SOLUSD"]


@pytest.mark.parametrize("ticker", [CHINESE, SLASH, AMPERSAND])
def test_every_ticker_has_its_path_and_its_filter(server: QuoteServer, ticker: str) -> None:
    server.track("BTCUSD", ticker)
    in_address = url_quote(ticker, safe="")
    assert server.http.get(f"/api/tickers/{in_address}").json()["ticker"] == ticker
    with httpx.stream("GET", f"{server.url}/api/stream?tickers={in_address}", timeout=10, verify=TLS) as answer:
        read_until(answer.iter_lines(), {"type": "tickers", "tickers": [ticker]})
    assert server.http.delete(f"/api/tickers/{in_address}").json()["message"] == f"{ticker} is no longer tracked."
    assert server.prices().keys() == {"BTCUSD"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/tickers/NYSE%3ANEE%2FPW", b"200"),
        ("/api/tickers/NYSE:NEE%2fPW", b"200"),
        ("/api/tickers/NYSE%3ANEE/PW", b"404"),  # a bare slash ends the ticker
        ("/api/tickers/NYSE%3ANEE%252FPW", b"400"),  # the ticker NEE%2FPW
        ("/api%2Ftickers/NYSE%3ANEE%2FPW", b"404"),
    ],
)
def test_a_path_is_matched_as_it_was_sent(server: QuoteServer, path: str, status: bytes) -> None:
    server.track(SLASH)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "query",
    ["tickers=BTCUSD,ETHUSD,FOO", "tickers=BTCUSD&tickers=eth-usd+foo", "ticker=FOO&tickers=BTCUSD&ticker=ETHUSD"],
)
def test_a_filter_says_which_of_its_tickers_are_not_tracked(server: QuoteServer, query: str) -> None:
    server.track("BTCUSD", "ETHUSD", "SOLUSD")
    with httpx.stream("GET", f"{server.url}/api/stream?{query}", timeout=10, verify=TLS) as answer:
        lines = answer.iter_lines()
        read_until(lines, {"type": "tickers", "tickers": ["BTCUSD", "ETHUSD"], "notTracked": ["FOO"]})
        server.track("FOO")
        read_until(lines, {"type": "tickers", "tickers": ["BTCUSD", "ETHUSD", "FOO"]})
        server.untrack("ETHUSD")
        read_until(lines, {"type": "tickers", "tickers": ["BTCUSD", "FOO"], "notTracked": ["ETHUSD"]})


def read_until(lines: Iterator[str], expected: dict[str, Any]) -> None:
    """Reads events `tickers` up to the expected one: a flush may repeat the one before."""
    seen = []
    for line in lines:
        if line == "event: tickers":
            seen.append(json.loads(next(lines).removeprefix("data: ")))
        if expected in seen:
            return
        assert len(seen) < 5, seen


def test_a_real_page_is_found_under_every_kind_of_name(pluto: Pluto) -> None:
    names = [CHINESE, SLASH, "MATICUSD", "币安人生USTD"]
    try:
        for name in names:
            assert pluto.add(name).status_code == 201
        has_price = ("live", "closed")  # a stock's market may be closed
        for name in names[:2]:
            wait_until(lambda name=name: quote_of(pluto, name)["state"] in has_price, 20, what=name)  # type: ignore[misc]
        assert quote_of(pluto, SLASH)["description"] == "NextEra Energy, Inc. Units"
        wait_until(lambda: quote_of(pluto, "MATICUSD")["state"] == "error", 20)
        assert quote_of(pluto, "MATICUSD")["proposals"] == ["POLUSD"], "what TradingView shows instead"
        wait_until(lambda: quote_of(pluto, "币安人生USTD")["state"] == "not_found", 20)
        assert quote_of(pluto, "币安人生USTD")["proposals"] == [CHINESE]
    finally:
        for name in names:
            pluto.remove(url_quote(name, safe=""))


def quote_of(pluto: Pluto, ticker: str) -> dict[str, Any]:
    return pluto.quote(url_quote(ticker, safe=""))
