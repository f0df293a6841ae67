"""The doctor says of one page what works and what to do; its report shows that again, and holds nothing personal.

It runs as the program that it is, with a real Chromium and the product's own patience.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pages import URL, Stage
from quote_site import QuoteSite, quote_site
from running import PROJECT, clean_environment, running_simulator, wait_until

from quotes import Source, State, Ticker
from tradingview.feed import Trouble
from tradingview.gate import Answer
from tradingview.report import Sockets, harmless, harmless_answer, known_title, skeleton
from tradingview.verdict import ELEMENT_ONLY, FINE, NO_BROWSER, UNREACHABLE, Observed, Verdict, judge

REPORTS = sorted((PROJECT / "tests" / "reports").glob("*.zip"))
SECRETS = ("Wanda Sekrit", "Wanda", "sekrit", "wanda@sekrit.example", "T0KEN", "10.11.12.13", "555-0199")


def examine(url: str, ticker: str, report: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """The exit code, what was printed, and the report's JSON."""
    command = [sys.executable, "-m", "tradingview.doctor", ticker, "--source-url", url, "--report", str(report)]
    done = subprocess.run(
        [*command, "--browser-mode", "headless", *options],
        cwd=report.parent,
        env={**clean_environment(), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, read(report)


def read(report: Path) -> dict[str, Any]:
    with zipfile.ZipFile(report) as archive:
        assert archive.namelist() == ["report.json", "report.md"]
        told: dict[str, Any] = json.loads(archive.read("report.json"))
    return told


def essence(report: dict[str, Any]) -> dict[str, Any]:
    """What of a verdict doesn't depend on the machine."""
    verdict = report["verdict"]
    findings = {finding["name"]: finding["is_good"] for finding in verdict["findings"]}
    return {"state": verdict["state"], "is_good": verdict["is_good"], "advice": verdict["advice"], "findings": findings}


Examined = tuple[int, str, dict[str, Any]]


@dataclass
class Cases:
    """What the doctor says of each report that is replayed; and of the page of secrets, its report and its host."""

    replayed: dict[str, Examined]
    planted: tuple[Path, str]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """All at the same time: they wait more than they compute."""

    def replay(path: Path) -> Examined:
        ticker, again = read(path)["verdict"]["ticker"], tmp_path_factory.mktemp(path.stem) / "again.zip"
        with running_simulator("--weight", "0", "--replay", str(path)) as site:
            return examine(site.url, ticker, again, "--seconds", "3")

    def plant(report: Path) -> tuple[Path, str]:
        with quote_site() as site:
            site.html = PLANTED
            site.headers = ("Set-Cookie: sessionid=T0KEN; Path=/", "X-User: Wanda Sekrit", "Server: wanda/T0KEN")
            threading.Thread(target=speak, args=[site], daemon=True).start()
            examine(f"http://{site.host}", "BTCUSD", report, "--seconds", "1")
            return report, site.host

    with ThreadPoolExecutor() as pool:
        planted = pool.submit(plant, tmp_path_factory.mktemp("planted") / "wanda.zip")
        replayed = dict(zip([path.stem for path in REPORTS], pool.map(replay, REPORTS), strict=True))
        return Cases(replayed, planted.result())


@pytest.mark.timeout(180)  # for the first, that has them all
@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_that_is_replayed_has_its_verdict_again(cases: Cases, path: Path) -> None:
    recorded = read(path)
    code, printed, again = cases.replayed[path.stem]
    assert essence(again) == essence(recorded), printed
    assert code == (0 if recorded["verdict"]["is_good"] else 1)
    assert recorded["verdict"]["advice"] in printed
    assert "again.zip is written. It holds the verdict" in printed
    assert "127.0.0.1" not in json.dumps([recorded, again])
    assert path.stem != "live" or is_told_well(printed, again)


def is_told_well(printed: str, report: dict[str, Any]) -> bool:
    assert printed.startswith("Pluto's doctor on BTCUSD\n")
    assert "✔ socket     first price after " in printed
    assert "✘ title      no price in the title" in printed
    assert "✔ price      live 6" in printed
    assert "(SIMULATED)" in printed
    assert FINE in printed
    assert "js-symbol-last" in report["header_html"]
    assert {message["direction"] for message in report["messages"]} == {"received", "sent"}
    assert any('"lp":6' in message["text"] for message in report["messages"])
    assert "NASDAQ:AAPL" in {other["name"] for other in report["others"]}
    return True


def test_there_are_reports_of_several_kinds() -> None:
    assert {read(path)["verdict"]["state"] for path in REPORTS} == {State.LIVE, State.BLOCKED, State.STALE}


# --- nothing personal -------------------------------------------------------------------------------------------------

PLANTED = """<!doctype html><html lang="en"><head><title>BTCUSD for Wanda Sekrit</title>
<script>
document.cookie = "sessionid=T0KEN";
localStorage.user = "wanda@sekrit.example";
window.initData = {user: "Wanda", symbolInfo: {resolved_symbol: "BINANCE:BTCUSD", currency: "USD", user: "Wanda"}};
const socket = new WebSocket("ws://" + location.host + "/socket.io/websocket?auth=T0KEN");
const say = (m, ...p) => { const text = JSON.stringify({m, p}); socket.send(`~m~${text.length}~m~${text}`); };
socket.onopen = () => {
  say("set_auth_token", "T0KEN");
  say("quote_create_session", "qs_Wanda_T0KEN");
  say("quote_add_symbols", "qs_Wanda_T0KEN", "BINANCE:BTCUSD", "NASDAQ:AAPL", {user: "Wanda"});
};
</script></head><body data-user="Wanda"><p>Wanda Sekrit, wanda@sekrit.example, T0KEN</p>
<div class="js-symbol-page-header-root user-wanda wanda_sekrit" id="T0KEN" title="Wanda Sekrit" data-user="T0KEN">
<a href="/u/wanda/?token=T0KEN">Wanda Sekrit</a><script>"T0KEN"</script><img alt="Wanda" src="/wanda.png">
<!-- Wanda --><wanda-sekrit>555-0199</wanda-sekrit>
<div class="js-symbol-header-ticker" data-symbol="BINANCE:BTCUSD"><span class="js-symbol-last last-KLji300y"
 data-qa-id="symbol-last-value" data-mail="wanda@sekrit.example">67,<b>012.45</b></span>
<i class="js-symbol-lp-time">Wanda, 555-0199</i></div></div></body></html>"""


def speak(site: QuoteSite) -> None:
    line = wait_until(lambda: site.lines, 30)[0]
    session, other = "qs_Wanda_T0KEN", {"lp": 1.5, "description": "Wanda Sekrit", "user": "T0KEN"}
    ours = {"lp": 67012.45, "pricescale": 100, "user": "Wanda", "token": "T0KEN"}
    line.say({"session_id": "T0KEN", "via": "10.11.12.13:443", "auth": "wanda@sekrit.example"})
    line.say({"m": "qsd", "p": [session, {"n": "BINANCE:BTCUSD", "s": "ok", "v": ours}]}, "~h~1")
    line.say({"m": "qsd", "p": [session, {"n": "NASDAQ:AAPL", "s": "ok", "v": other}]})
    spec = '={"symbol":"BINANCE:BTCUSD","currency-id":"EUR","user":"Wanda Sekrit"}'
    line.say({"m": "qsd", "p": [session, {"n": spec, "s": "ok", "v": ours}]})
    line.say({"m": "critical_error", "p": ["qs_other", "Wanda Sekrit"]}, {"m": "user_T0KEN", "p": ["Wanda"]})


def test_no_secret_gets_into_a_report(cases: Cases) -> None:
    path, host = cases.planted
    report = read(path)
    with zipfile.ZipFile(path) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist()]
    assert not [secret for secret in SECRETS for text in texts if secret.lower() in text.lower()]
    assert host not in texts[0]
    assert report["verdict"]["state"] == "live", "it was the page that was meant"
    told = [message["text"] for message in report["messages"]]
    assert '{"m":"quote_add_symbols","p":["qs_1","BINANCE:BTCUSD"]}' in told
    assert '{"m":"qsd","p":["qs_1",{"n":"BINANCE:BTCUSD","s":"ok","v":{"lp":67012.45,"pricescale":100}}]}' in told
    assert "~h~1" in told
    assert report["left_out"] == {"set_auth_token": 1, "…": 2}
    assert "<b>012.45</b></span>" in report["header_html"]
    assert [name["name"] for name in report["others"]] == ["NASDAQ:AAPL", "NASDAQ:AAPL"]


def test_a_sentence_loses_what_may_be_personal() -> None:
    reason = "asked 10.11.12.13:80, was sent to wanda.sekrit.example:8443; if that is where your prices are, use …"
    assert harmless(reason) == "asked …, was sent to …; if that is where your prices are, use …"
    assert harmless("asked www.tradingview.com, was sent to de.tradingview.com") == (
        "asked www.tradingview.com, was sent to de.tradingview.com"
    )
    assert harmless("asked for BINANCE:BTCUSD, page went to /u/wanda/") == "asked for BINANCE:BTCUSD, page went to …"
    assert harmless('TradingView asks "Just a moment"') == 'TradingView asks "Just a moment"'
    assert harmless('TradingView asks "Just a moment, Wanda"') == 'TradingView asks "…"'
    assert harmless("try ./run.sh doctor (docs/reports.md)") == "try ./run.sh doctor (docs/reports.md)"
    assert known_title("Just a moment, Wanda") == "Just a moment"
    assert known_title("Wanda's page") == ""


def test_of_an_answer_only_harmless_headers_are_kept() -> None:
    headers = {
        "set-cookie": "T0KEN",
        "server": "wanda",
        "cf-mitigated": "challenge",
        "retry-after": "Wanda",
        "age": "7",
    }
    answer = Answer("https://www.tradingview.com/u/wanda/?token=T0KEN", 403, headers)
    kept = {"age": "7", "cf-mitigated": "challenge"}
    assert harmless_answer(answer) == {"status": 403, "host": "www.tradingview.com", "headers": kept}


@pytest.mark.parametrize(
    "text", ["~m~3~m~[1]", '~m~9~m~{"m":"qsd"}', "no frame", '~m~2~m~{"m":"qsd","p":[{},{}]}', "~h~x"]
)
def test_a_message_that_cannot_be_read_is_left_out(text: str) -> None:
    sockets = Sockets("BINANCE:BTCUSD")
    sockets.hear(1, "received", text)
    assert sockets.messages == []


@pytest.mark.parametrize("markup", ["<div", "</p></div>x", "<p><b></p></b>", "<script>Wanda", "<!--", "<" * 5000])
def test_markup_that_is_broken_stays_harmless(markup: str) -> None:
    assert "Wanda" not in skeleton(markup)


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_without_a_browser_it_says_what_the_browser_needs() -> None:
    verdict = judge(Observed(Ticker("BTCUSD"), "BINANCE:BTCUSD", "x", browser_failure="No Chromium found: install it"))
    assert (verdict.is_good, verdict.state, verdict.advice) == (False, State.ERROR, NO_BROWSER)
    assert "✘ browser    No Chromium found: install it" in str(verdict)


def judged(stage: Stage, *answers: Answer, **seen: Any) -> Verdict:
    why = stage.feed.why(stage.uptime, stage.now)
    return judge(Observed(Ticker("BTCUSD"), "BINANCE:BTCUSD", "x", why=why, answers=[*answers], **seen))


def test_a_host_that_cannot_be_reached_is_named() -> None:
    stage = Stage()
    stage.feed.fail(Trouble(State.ERROR, "x can't be reached: there is no network", 0), void_price=False)
    verdict = judged(stage)
    assert "✘ reachable  x can't be reached: there is no network" in str(verdict)
    assert (verdict.is_good, verdict.advice) == (False, UNREACHABLE)


def test_it_says_when_prices_come_but_not_as_they_should() -> None:
    stage = Stage()
    stage.page()
    stage.frame(lp=100.0, pricescale=100)
    stage.wait(2)
    stage.frame(lp=100.5)
    answer = Answer(URL, 200, {})
    assert judged(stage, answer, first={Source.SOCKET: 1.0}).advice == FINE
    assert judged(stage, answer, first={Source.DOM: 1.0}).advice == ELEMENT_ONLY
    stage.feed.hear_date("Thu, 19 Nov 2026 11:06:40 GMT", stage.uptime)  # a day ahead
    verdict = judged(stage, Answer(URL, 302, {}), answer, first={Source.SOCKET: 1.0}, disagreements=1)
    assert "Prices come, but this machine's clock is 1440 minutes behind" in verdict.advice
    assert "✔ redirects  from www.tradingview.com to www.tradingview.com" in str(verdict)
