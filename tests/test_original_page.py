"""A page with the original's calls and assumptions, in Chromium, from the original's origin, beside the real Pluto."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from running import running_pluto, running_simulator, wait_until

PORT = 3000
ORIGIN = f"http://localhost:{PORT}"
PAGE = (Path(__file__).parent / "original_page.html").read_text(encoding="utf-8")
PRICE = re.compile(r"^(BTC|SOL|ADA)USD\d+\.\d\d[+-]\d+\.\d\d%20\d\d-\d\d-\d\dT[\d:.]+Z$")


class Original(BaseHTTPRequestHandler):
    """The original's web server: the same page at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """No line on standard error for a request."""


@pytest.fixture
def original() -> Iterator[None]:
    try:
        server = ThreadingHTTPServer(("127.0.0.1", PORT), Original)
    except OSError:
        pytest.skip(f"port {PORT} is taken")
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("original")
def test_a_page_like_the_originals_lives_through_whatever_happens(browser_page: Page) -> None:
    rows = browser_page.locator("tr")
    with ExitStack() as source:
        simulator = source.enter_context(running_simulator("--weight", "0", "--heartbeat", "2"))
        with running_pluto("--source-url", simulator.url) as pluto:
            browser_page.goto(f"{ORIGIN}/?server={pluto.url}")
            for ticker in ("BTCUSD", "ETHUSD", "SOLUSD"):
                browser_page.evaluate("(ticker) => add(ticker)", ticker)
            expect(rows).to_have_count(3, timeout=20_000)
            browser_page.evaluate("() => remove('ETHUSD')")
            expect(rows).to_have_count(2)

            simulator.fault("ADAUSD", "socket_in_worker")  # only the price element tells
            browser_page.evaluate("() => add('ADAUSD')")
            expect(rows).to_have_count(3, timeout=20_000)
            assert pluto.quote("ADAUSD")["source"] == "dom"
            assert "volume" in (pluto.quote("ADAUSD").get("reason") or ""), "empty columns have a reason"

            source.close()
            browser_page.evaluate("() => add('DOGEUSD')")
            pluto.wait_for("DOGEUSD", "error")
            streamed = wait_until(lambda: browser_page.evaluate("streamed"))
            shown = rows.all_text_contents()

    assert len(shown) == 3, browser_page.content()
    assert all(PRICE.match(text) for text in shown), shown
    assert {price["ticker"] for price in streamed} == {"BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD"}
    assert all(price["price"] > 0 and price["timestamp"] > 0 for price in streamed)
