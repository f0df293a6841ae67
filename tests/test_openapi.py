"""/openapi.json says what there is: all of the REST part and nothing else, and the server answers as it says.

Schemathesis makes requests of the document, right ones and wrong ones, and holds each answer against it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from running import PROJECT, TLS, QuoteServer, quote_server, wait_until

from proto.crypto.v1.crypto_service_pb2 import DESCRIPTOR
from quotes import Quote, Source, State, parse_ticker, wire_fields
from settings import VERSION

DOCUMENT: dict[str, Any] = json.loads((PROJECT / "static" / "openapi.json").read_text(encoding="utf-8"))
SERVICE = DESCRIPTOR.services_by_name["CryptoPriceService"]
METHODS = {"get", "put", "post", "delete", "patch"}
FOR_PAGES = ("/static", "/vendor", "/login")
# Held against the document here: to Schemathesis a stream would never be over, and 503 without a browser a fault.
NOT_FOR_SCHEMATHESIS = ("/api/stream", "/api/ws", "/board", "/readyz")


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server("--max-tickers", "20", "--max-streams", "1") as server:
        yield server


def matches(value: object, schema: str) -> bool:
    """Whether the value is what components/schemas has under that name."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return bool(OAS31Validator(root).is_valid(value))


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["info"]["version"] == VERSION


def test_every_route_is_documented_and_nothing_else(application: Flask) -> None:
    rules = application.url_map.iter_rules()
    served = {
        (re.sub(r"<(?:[^>:]+:)?(\w+)>", r"{\1}", rule.rule).replace("{text}", "{ticker}"), method.lower())
        for rule in rules
        if rule.rule != "/" and not rule.rule.startswith(FOR_PAGES)
        for method in rule.methods or ()
    }
    documented = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS}
    assert {(path, method) for path, method in served if method in METHODS} == documented


def test_the_server_hands_it_out(server: QuoteServer) -> None:
    answer = server.http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_every_answer_in_json_ends_with_a_newline(server: QuoteServer, application: Flask) -> None:
    """For curl in a terminal. Each address is called in each way, and most of the ways are wrong."""
    addresses = {re.sub(r"<\w+>", "NOSUCHUSD", rule.rule) for rule in application.url_map.iter_rules()}
    addresses -= {"/api/stream", "/api/alerts/NOSUCHUSD"}
    addresses |= {"/api/stream?max_rate=x", "/api/tickers/A B/history", "/api/tickers/NOSUCHUSD/history?limit=x", "/x"}
    addresses |= {f"/{SERVICE.full_name}/{method.name}" for method in SERVICE.methods} | {f"/{SERVICE.full_name}/X"}
    bodies = {"GET": (b"",), "POST": (b"", b"{", b'{"ticker":"NOSUCHUSD"}'), "PUT": (b'{"tickers":["BTCUSD"]}',)}
    told: dict[tuple[str, str, int], bool] = {}
    for address, method in product(sorted(addresses), bodies):
        for body in bodies[method]:
            headers = {"Content-Type": "application/json"} if body else {}
            answer = server.http.request(method, address, content=body, headers=headers)
            if answer.headers.get("content-type") == "application/json":
                told[method, address, answer.status_code] = answer.content.endswith(b"\n")
    assert {status for _, _, status in told} >= {200, 201, 400, 404, 405, 409, 415}
    assert not [answered for answered, ends_well in told.items() if not ends_well]


def test_a_price_with_everything_in_it_is_documented() -> None:
    known = {"price_text": "1.5", "source": Source.DOM, "reason": "x", "currency": "USD", "exchange": "X"}
    numbers = dict.fromkeys(("change_percent", "change", "volume", "high", "low", "open", "bid", "ask"), 1.5)
    times = dict.fromkeys(("timestamp", "source_time", "received_at", "next_try_at"), 1)
    quote = Quote(parse_ticker("BTCUSD"), State.STALE, description="x", **known, **numbers, **times)  # type: ignore[arg-type]
    wire = json.loads(json.dumps(wire_fields(quote, 7)))
    assert matches(wire, "Price")
    assert wire.keys() == DOCUMENT["components"]["schemas"]["Price"]["properties"].keys()
    states = DOCUMENT["components"]["schemas"]["Price"]["properties"]["state"]["enum"]
    assert states == list(State)
    assert not matches({**wire, "state": "alive"}, "Price")


def test_a_stream_s_messages_are_documented(server: QuoteServer) -> None:
    server.track("BTCUSD")
    server.put(("BTCUSD", "live", "67000.1"))
    wait_until(lambda: server.prices()["BTCUSD"] == "67000.1")
    with httpx.stream("GET", f"{server.url}/api/stream", timeout=10, verify=TLS) as answer:
        assert answer.headers["content-type"] in DOCUMENT["paths"]["/api/stream"]["get"]["responses"]["200"]["content"]
        messages = [json.loads(line[6:]) for line in islice(data_lines(answer), 3)]
    assert all(matches(message, "StreamMessage") for message in messages)
    assert {message["type"] for message in messages} == {"connected", "tickers", "batch_update"}


def data_lines(answer: httpx.Response) -> Iterator[str]:
    return (line for line in answer.iter_lines() if line.startswith("data: "))


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/api/stream?max_rate=21", {}, 400),
        ("GET", "/api/stream?tickers=..", {}, 400),
        ("GET", "/api/ws", {}, 426),
        ("GET", "/api/ws", {"headers": {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "null"}}, 403),
        ("GET", "/api/nothing", {}, 404),
        ("PATCH", "/api/tickers", {}, 405),
        ("POST", "/api/tickers", {"content": b"{}"}, 415),
        ("POST", "/api/tickers", {"json": {"ticker": "B" * 70_000}}, 413),
    ],
)
def test_each_failure_is_the_documented_one(
    server: QuoteServer, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    answer = server.http.request(method, path, **more)
    assert answer.status_code == status
    assert matches(answer.json(), "Failure")
    documented = DOCUMENT["paths"].get(path.partition("?")[0], {}).get(method.lower(), {"responses": {}})["responses"]
    assert str(status) in documented or status in (404, 405)
    assert status != 405 or answer.headers["allow"]


def test_without_a_browser_it_is_not_ready_as_documented(server: QuoteServer) -> None:
    answer = server.http.get("/readyz")
    assert answer.status_code == 503
    assert DOCUMENT["paths"]["/readyz"]["get"]["responses"]["503"] == {"$ref": "#/components/responses/Unavailable"}
    assert matches(answer.json(), "Failure")


def test_a_full_server_fails_as_documented(server: QuoteServer) -> None:
    wait_until(lambda: not any(server.server()["clients"].values()))
    with httpx.stream("GET", f"{server.url}/api/stream", timeout=10, verify=TLS) as first:
        lines = first.iter_lines()
        next(lines)
        refused = server.http.get("/api/stream")
    assert refused.status_code == 503
    assert refused.headers["retry-after"].isdecimal()
    assert matches(refused.json(), "Failure")


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"ticker":' * 6_000, b"9" * 60_000, b'{"ticker":"\xff"}', b"nul"])
def test_a_body_that_no_parser_likes_is_malformed_and_no_more(server: QuoteServer, body: bytes) -> None:
    answer = server.http.post("/api/tickers", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert matches(answer.json(), "Failure")


def test_schemathesis_finds_no_answer_that_is_not_documented(server: QuoteServer, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    bounds = ["--generation-deterministic", "--max-examples", "10", "--phases", "examples,coverage,fuzzing"]
    bounds += ["--exclude-checks", "positive_data_acceptance"]  # a ticker is a text, and most texts are none
    bounds += [option for path in NOT_FOR_SCHEMATHESIS for option in ("--exclude-path", path)]
    checked = subprocess.run(
        [str(program), "run", str(PROJECT / "static" / "openapi.json"), "--url", server.url, *bounds],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,  # it keeps what it found beside it
    )
    assert checked.returncode == 0, checked.stdout[-8000:] + checked.stderr
