"""The web layer: REST as the wire contract has it, bad input, CORS, and settings that the README shows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
from flask import Flask
from running import PROJECT, TLS, Pluto, Simulator, running_pluto
from test_live import tracked

import settings
from quotes import parse_ticker

README = (PROJECT / "README.md").read_text(encoding="utf-8")
SETTINGS = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_adding_answers_at_once_and_says_whether_it_is_new(pluto: Pluto) -> None:
    started = time.monotonic()
    first = pluto.add("sushiusd ")
    elapsed = time.monotonic() - started
    again = pluto.add("SUSHIUSD")
    pluto.remove("SUSHIUSD")
    assert first.status_code == 201
    assert first.json()["success"] is True
    assert first.json()["ticker"]["ticker"] == "SUSHIUSD"
    assert first.json()["ticker"]["state"] == "starting"
    assert "price" not in first.json()["ticker"]
    assert again.status_code == 200
    assert elapsed < 3, "it doesn't wait for the page"


def test_removing_succeeds_also_when_it_was_not_tracked(pluto: Pluto) -> None:
    answer = pluto.remove("NEVERTRACKED")
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "NEVERTRACKED was not tracked."}


def test_tickers_and_prices_are_sorted_and_complete(pluto: Pluto) -> None:
    with tracked(pluto, "TRXUSD", "COINBASE:BTCUSD", "EOSUSD"):
        answer = pluto.http.get("/api/tickers").json()
        assert answer["tickers"] == sorted(answer["tickers"])
        assert {"TRXUSD", "COINBASE:BTCUSD", "EOSUSD"} <= set(answer["tickers"])
        assert [price["ticker"] for price in answer["prices"]] == answer["tickers"]
        assert pluto.wait_for("COINBASE:BTCUSD", "live", timeout=40)["exchange"] == "COINBASE"


def test_binance_need_not_be_named(pluto: Pluto) -> None:
    with tracked(pluto, "BINANCE:ICPUSD"):
        assert pluto.quote("ICPUSD")["ticker"] == "ICPUSD"
    assert pluto.http.get("/api/tickers/ICPUSD").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "request_body", "status", "code", "advice"),
    [
        ("POST", "/api/tickers", {"json": {"ticker": "BTC-PERP"}}, 400, "invalid_ticker", "1 to 32 letters"),
        ("POST", "/api/tickers", {"json": {"ticker": ""}}, 400, "invalid_ticker", "1 to 32 letters"),
        ("POST", "/api/tickers", {"json": {"ticker": "../etc/passwd"}}, 400, "invalid_ticker", "1 to 32 letters"),
        ("POST", "/api/tickers", {"json": {"ticker": "X" * 33}}, 400, "invalid_ticker", "1 to 32 letters"),
        ("POST", "/api/tickers", {"json": {"ticker": 7}}, 400, "invalid_ticker", 'a text such as "BTCUSD"'),
        ("POST", "/api/tickers", {"json": {}}, 400, "invalid_ticker", 'a text such as "BTCUSD"'),
        ("POST", "/api/tickers", {"json": ["BTCUSD"]}, 400, "bad_request", "Send a JSON object as the body"),
        (
            "POST",
            "/api/tickers",
            {"content": "{", "headers": {"Content-Type": "application/json"}},
            400,
            "bad_request",
            "Send a JSON object as the body",
        ),
        (
            "POST",
            "/api/tickers",
            {"data": {"ticker": "BTCUSD"}},
            415,
            "not_json",
            "Send the body as JSON, with the header",
        ),
        (
            "POST",
            "/api/tickers",
            {"content": "ticker=BTCUSD", "headers": {"Content-Type": "text/plain"}},
            415,
            "not_json",
            "Send the body as JSON, with the header",
        ),
        ("POST", "/api/tickers", {"json": {"ticker": "B" * 70_000}}, 413, "too_large", "Send a body of at most"),
        ("DELETE", "/api/tickers/BTC-PERP", {}, 400, "invalid_ticker", "1 to 32 letters"),
        ("GET", "/api/tickers/NOTTRACKED", {}, 404, "not_tracked", "Add it with POST /api/tickers"),
        ("GET", "/api/stream?tickers=BTC-PERP", {}, 400, "invalid_ticker", "1 to 32 letters"),
        ("GET", "/api/nothing", {}, 404, "not_found", "GET /openapi.json lists all addresses"),
        ("PUT", "/api/tickers", {}, 405, "method_not_allowed", "Use GET or"),
    ],
)
def test_a_failure_is_json_and_says_what_to_do(
    pluto: Pluto, method: str, path: str, request_body: dict[str, object], status: int, code: str, advice: str
) -> None:
    answer = pluto.http.request(method, path, **request_body)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["code"] == code
    assert advice in answer.json()["message"]
    assert "Traceback" not in answer.text


@pytest.fixture(scope="module")
def small() -> Iterator[Pluto]:
    """One of two tickers, whose source can't be reached, and that no page of another origin may call."""
    options = ("--source-url", "http://127.0.0.1:9", "--max-tickers", "2", "--tickers", "X,Y")
    with running_pluto(*options, PLUTO_ALLOWED_ORIGINS="") as pluto:
        yield pluto


def test_the_cap_on_tickers_is_a_conflict_that_names_the_setting(small: Pluto) -> None:
    answer = small.add("Z")
    assert answer.status_code == 409
    assert answer.json()["code"] == "too_many_tickers"
    assert "--max-tickers" in answer.json()["message"]
    assert small.http.get("/api/tickers").json()["tickers"] == ["X", "Y"]
    small.remove("X")
    assert small.add("Z").status_code == 201


def test_without_allowed_origins_no_page_of_another_origin_may_call(small: Pluto) -> None:
    answer = small.http.get("/api/tickers", headers={"Origin": "http://localhost:3000"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:3000"])
def test_the_original_front_end_may_call_from_its_origin(pluto: Pluto, origin: str) -> None:
    answer = pluto.http.get("/api/tickers", headers={"Origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]
    preflight = pluto.http.options("/api/tickers", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("origin", ["http://localhost:3001", "https://localhost:3000", "http://evil.example", "null"])
def test_no_other_origin_may_read(pluto: Pluto, origin: str) -> None:
    answer = pluto.http.get("/api/tickers", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_stream_has_the_headers_that_keep_it_flowing(pluto: Pluto) -> None:
    with httpx.stream("GET", f"{pluto.url}/api/stream", verify=TLS) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"


def test_health_counts_the_tickers_in_trouble(pluto: Pluto, simulator: Simulator) -> None:
    simulator.fault("KAVAUSD", "wall_405")
    with tracked(pluto, "XTZUSD"):
        pluto.wait_for("XTZUSD", "live")
        with tracked(pluto, "KAVAUSD"):
            pluto.wait_for("KAVAUSD", "blocked")
            health = pluto.http.get("/health").json()
            assert (health["status"], health["tickers"]) == ("degraded", {"live": 1, "blocked": 1})
        simulator.clear("KAVAUSD")
        health = pluto.http.get("/health").json()
        assert (health["status"], health["tickers"]) == ("ok", {"live": 1})
        assert (health["browser"], health["scraper"], health["broadcaster"]) == ("running",) * 3
        assert abs(datetime.fromisoformat(health["timestamp"]).timestamp() - time.time()) < 5
        assert pluto.http.get("/livez").status_code == 200
        assert pluto.http.get("/readyz").status_code == 200


def test_performance_has_the_original_names(pluto: Pluto) -> None:
    performance = pluto.http.get("/api/performance").json()
    assert {"activeTickers", "callbacksRegistered", "queuedUpdates", "monitoringActive"} <= performance[
        "scraper"
    ].keys()
    assert {"activeSSEClients", "queuedBroadcasts", "uptime", "memoryUsage"} <= performance["server"].keys()
    assert performance["server"]["memoryUsage"]["rss"] > 1_000_000
    with pluto.stream() as events:
        next(events)
        assert pluto.http.get("/api/performance").json()["server"]["activeSSEClients"] >= 1


def test_every_answer_has_the_security_headers(pluto: Pluto) -> None:
    for path in ("/", "/api/tickers", "/api/nothing", "/static/main.js"):
        headers = pluto.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_the_chart_script_comes_from_the_package(pluto: Pluto) -> None:
    answer = pluto.http.get("/vendor/lightweight-charts.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "LightweightCharts" in answer.text


def test_the_documented_settings_are_the_settings_table() -> None:
    rows = [
        f"| `{flag}` | `{variable}` | {f'`{default}`' if default else ''} | {text} |"
        for flag, variable, default, text in settings.settings_table()
    ]
    assert "\n".join(rows) in SETTINGS


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings.read_settings(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for flag, variable, default, _ in settings.settings_table():
        assert flag in shown
        assert f"[{variable}, default: {default or 'none'}]" in shown


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUTO_PORT", "9001")
    assert settings.read_settings([]).port == 9001
    assert settings.read_settings(["--port", "9002"]).port == 9002
    monkeypatch.setenv("PLUTO_DEMO", "on")
    assert settings.read_settings([]).demo is True
    assert settings.read_settings(["--no-demo"]).demo is False


@pytest.mark.parametrize(
    "name", ["tickers", "access_token", "allowed_hosts", "allowed_origins", "trusted_proxies", "browser"]
)
def test_an_empty_variable_is_an_empty_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(settings.variable_of(name), "")
    assert getattr(settings.read_settings([]), name) == ""


def test_an_empty_variable_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUTO_DEMO", "")
    assert settings.read_settings([]).demo is False


def test_the_readme_lists_every_route(application: Flask) -> None:
    documented = README.split("## API")[1].split("## Settings")[0]
    rules = [str(rule) for rule in application.url_map.iter_rules()]
    for rule in rules:
        if rule != "/" and not rule.startswith(("/static", "/vendor")):
            assert re.sub("<[^>]*:id>", "ID", rule.replace("<text>", "BTCUSD")) in documented


def test_the_tickers_at_start_are_canonical() -> None:
    assert settings.Settings(tickers="btcusd, BINANCE:ETHUSD").start_tickers == [
        parse_ticker("BTCUSD"),
        parse_ticker("ETHUSD"),
    ]
