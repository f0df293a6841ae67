"""A page with the original's calls and assumptions, in Chromium, from the original's origin, beside the real Pluto."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Page, expect
from running import running_pluto, running_simulator, wait_until

ORIGIN = "http://localhost:3000"
PAGE = (Path(__file__).parent / "original_page.html").read_text(encoding="utf-8")
PRICE = re.compile(r"^(BTC|SOL|ADA)USD\d+\.\d\d[+-]\d+\.\d\d%20\d\d-\d\d-\d\dT[\d:.]+Z$")


def test_a_page_like_the_originals_lives_through_whatever_happens(browser_page: Page) -> None:
    browser_page.route(f"{ORIGIN}/**", lambda route: route.fulfill(content_type="text/html", body=PAGE))
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
