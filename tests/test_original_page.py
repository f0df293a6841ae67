"""A page with the original's calls and assumptions, in Chromium, from the original's origin, beside the real Pluto."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from running import PROJECT, npm_packages, quote_server, running_pluto, running_simulator, wait_until

PORT = 3000
FOLDER = PROJECT / "tests" / "original"
PRICE = re.compile(r"^(BTC|SOL|ADA)USD\d+\.\d\d[+-]\d+\.\d\d%(20\d\d-\d\d-\d\dT[\d:.]+Z)$")


class Original(SimpleHTTPRequestHandler):
    """The original's web server: its page, and the page's packages."""

    def log_message(self, format: str, *arguments: object) -> None:
        """No line on standard error for a request."""


@pytest.fixture
def original() -> Iterator[str]:
    """The address of the page."""
    npm_packages(FOLDER)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", PORT), functools.partial(Original, directory=str(FOLDER)))
    except OSError:
        pytest.skip(f"port {PORT} is taken")
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{PORT}/page.html"
        server.shutdown()
        thread.join()


def test_a_page_like_the_originals_lives_through_whatever_happens(original: str, own_tab: Page, tmp_path: Path) -> None:
    """After the restart without a browser: what the page is told is then the test's to say."""
    rows = own_tab.locator("tr")
    with running_simulator("--weight", "0", "--heartbeat", "2") as simulator:
        options = ("--source-url", simulator.url, "--data", str(tmp_path))
        with running_pluto(*options, PLUTO_STORE="on") as pluto:
            own_tab.goto(f"{original}?server={pluto.url}")
            own_tab.wait_for_function("window.streamed")
            for ticker in ("BTCUSD", "ETHUSD", "SOLUSD"):
                own_tab.evaluate("(ticker) => add(ticker)", ticker)
            expect(rows).to_have_count(3, timeout=20_000)
            own_tab.evaluate("() => remove('ETHUSD')")
            expect(rows).to_have_count(2)

            simulator.fault("ADAUSD", "socket_in_worker")  # only the price element tells
            own_tab.evaluate("() => add('ADAUSD')")
            expect(rows).to_have_count(3, timeout=20_000)
            assert pluto.quote("ADAUSD")["source"] == "dom"
            assert "volume" in (pluto.quote("ADAUSD").get("reason") or ""), "empty columns have a reason"
            streamed = wait_until(
                lambda: own_tab.evaluate("streamed.some(({ ticker }) => ticker === 'ADAUSD') && streamed")
            )
            port = pluto.url.rpartition(":")[2]

    assert "[unavailable] Pluto is shutting down" in wait_until(lambda: own_tab.evaluate("ended"))
    restarted = datetime.now(UTC).isoformat()
    with quote_server("--port", port, "--data", str(tmp_path)) as server:
        assert server.prices().keys() == {"ADAUSD", "BTCUSD", "SOLUSD"}
        server.put(*((ticker, "live", "4.25") for ticker in server.prices()))
        wait_until(lambda: all(time > restarted for time in times(rows.all_text_contents())), 30)
        own_tab.evaluate("() => add('DOGEUSD')")
        wait_until(lambda: "DOGEUSD" in server.prices())
        server.tell("DOGEUSD", "error", reason="it can't be reached")
        wait_until(lambda: server.http.get("/api/tickers/DOGEUSD").json()["state"] == "error")
        shown = rows.all_text_contents()

    assert len(times(shown)) == len(shown) == 3, own_tab.content()
    assert {price["ticker"] for price in streamed} == {"BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD"}
    assert all(price["price"] > 0 and price["timestamp"] > 0 for price in streamed)


def times(texts: list[str]) -> list[str]:
    """When the prices in the page's rows were shown, as ISO; every row is a price."""
    return [match[2] for match in map(PRICE.match, texts) if match]
