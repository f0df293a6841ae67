"""Alerts as callers meet them: REST, both streams and Connect, on real sockets and over a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from running import TLS, QuoteServer, quote_server, wait_until
from test_openapi import matches

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import (
    Alert,
    Condition,
    CreateAlertRequest,
    DeleteAlertRequest,
    Direction,
    GetAlertsRequest,
    GetRaisedAlertsRequest,
)

ABOVE = {"ticker": "btc-usd", "condition": "above", "value": "100.0000000001", "note": "é\nsell"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuoteServer]:
    with quote_server("--data", str(tmp_path_factory.mktemp("data"))) as server:
        server.track("BTCUSD", "ETHUSD")
        yield server


def raised(server: QuoteServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.http.get("/api/alerts/raised").json()["raised"]
    return found


def messages_of(socket: websocket.WebSocket) -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(str(socket.recv()))


def refusal(server: QuoteServer, body: dict[str, Any]) -> tuple[int, str]:
    answer = server.http.post("/api/alerts", json=body)
    assert matches(answer.json(), "Failure")
    return answer.status_code, answer.json()["code"]


def test_an_alert_is_made_rings_on_every_stream_and_is_kept(server: QuoteServer) -> None:
    made = server.http.post("/api/alerts", json=ABOVE)
    assert made.status_code == 201
    assert made.json()["message"] == "Alert made: BTCUSD above 100.0000000001."
    alert = made.json()["alert"]
    assert matches(alert, "Alert")
    assert server.http.get("/api/alerts").json() == {"alerts": [alert]}
    socket = websocket.create_connection(f"{server.url.replace('http', 'ws')}/api/ws?tickers=BTCUSD", timeout=10)
    others = websocket.create_connection(f"{server.url.replace('http', 'ws')}/api/ws?tickers=ETHUSD", timeout=10)
    for messages in (messages_of(socket), messages_of(others)):
        next(told for told in messages if told["type"] == "batch_update")
    with httpx.stream("GET", f"{server.url}/api/stream", timeout=10, verify=TLS) as events:
        lines = events.iter_lines()
        next(line for line in lines if "batch_update" in line)
        server.put(("BTCUSD", "live", "100.0000000001"), ("BTCUSD", "live", "99"))
        assert next(line for line in lines if line.startswith("event: alert"))
        message = json.loads(next(lines).removeprefix("data: "))
    assert matches(message, "StreamMessage")
    assert message.pop("type") == "alert"
    assert matches(message, "RaisedAlert")
    assert message == raised(server)[0]
    assert {
        "alert": alert["id"],
        "priceText": "100.0000000001",
        "note": "é\nsell",
        "gap": False,
    }.items() <= message.items()
    assert next(told for told in messages_of(socket) if told["type"] == "alert")["id"] == message["id"]
    server.put(("ETHUSD", "live", "1.5"))
    later = messages_of(others)
    told = [next(later)]
    while not any(update.get("priceText") == "1.5" for update in told[-1].get("updates", [])):
        told.append(next(later))
    assert "alert" not in {message["type"] for message in told}
    socket.close()
    others.close()
    assert server.http.get("/api/alerts").json() == {"alerts": []}
    assert server.http.delete(f"/api/alerts/{alert['id']}").json()["message"] == "There was no such alert."


def test_a_wrong_alert_is_refused_by_its_name(server: QuoteServer) -> None:
    assert refusal(server, {**ABOVE, "value": 100}) == (400, "invalid_alert")
    assert refusal(server, {**ABOVE, "ticker": "Bitcoin"}) == (400, "did_you_mean")
    assert refusal(server, {**ABOVE, "ticker": "NEVERUSD"}) == (404, "not_tracked")
    assert refusal(server, {**ABOVE, "replaces": "0" * 16}) == (404, "no_such_alert")
    assert refusal(server, {**ABOVE, "replaces": 5}) == (400, "invalid_alert")
    assert server.http.post("/api/alerts", json=[]).json()["code"] == "bad_request"
    assert server.http.get("/api/alerts/raised?limit=0").json()["code"] == "invalid_range"


def test_connect_has_the_same(server: QuoteServer) -> None:
    client = CryptoPriceServiceClientSync(server.url)
    wish = Alert(
        ticker="ETHUSD", condition=Condition.CONDITION_MOVES, value="2.50", within=60, repeat=True, across_gaps=True,
        direction=Direction.DIRECTION_UP,
    )  # fmt: skip
    made = client.create_alert(CreateAlertRequest(alert=wish))
    assert made.message == "Alert made: ETHUSD moves up 2.50 % within 60 s."
    made = client.create_alert(CreateAlertRequest(alert=wish, replaces=made.alert.id))
    assert list(client.get_alerts(GetAlertsRequest()).alerts) == [made.alert]
    assert server.http.get("/api/alerts").json()["alerts"][0]["cooldown"] == made.alert.cooldown == 300
    before = len(raised(server))
    server.put(("ETHUSD", "live", "1.51"), ("ETHUSD", "live", "1.64"))
    wait_until(lambda: len(raised(server)) == before + 1, what="it rings")
    (rang,) = client.get_raised_alerts(GetRaisedAlertsRequest(limit=1)).raised
    assert (rang.alert, rang.price_text, rang.condition) == (made.alert.id, "1.64", Condition.CONDITION_MOVES)
    assert client.delete_alert(DeleteAlertRequest(id=made.alert.id)).message == "Alert deleted."
    assert list(client.get_alerts(GetAlertsRequest()).alerts) == []
    for wrong in (Alert(ticker="ETHUSD"), Alert(ticker="ETHUSD", condition=99), Alert(id="x", ticker="ETHUSD")):  # type: ignore[arg-type]
        with pytest.raises(ConnectError) as error:
            client.create_alert(CreateAlertRequest(alert=wrong))
        assert error.value.code is Code.INVALID_ARGUMENT


def test_alerts_outlive_the_process(tmp_path: Path) -> None:
    with quote_server("--data", str(tmp_path)) as server:
        server.track("BTCUSD")
        made = server.http.post("/api/alerts", json=ABOVE).json()["alert"]
        server.process.kill()
        server.process.wait()
    with quote_server("--data", str(tmp_path)) as server:
        assert server.http.get("/api/alerts").json() == {"alerts": [made]}


def test_without_a_store_there_are_none() -> None:
    with quote_server() as server:
        server.track("BTCUSD")
        assert refusal(server, ABOVE) == (409, "no_store")
        assert server.http.get("/api/alerts").json() == {"alerts": []}
        assert raised(server) == []
