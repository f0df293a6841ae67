"""Takes the README's pictures of the page: `./run.sh screenshots [folder]`, about two minutes.

The real Pluto and the simulator, which makes the same prices from the same seed; headless Chromium looks at them. The
day before is invented here, between the day's open and the price, as an earlier Pluto would have kept it. What can't be
the same each time are the moments: times of day, and where in its walk a price is caught.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from running import PROJECT, Pluto, Simulator, running_pluto, running_simulator
from stores import write_past

from quotes import State, Ticker
from tradingview.browser import find_browser

SEED = "7"
TICKERS = ("1000SATSUSDT", "BTCUSD", "BTCUSDT.P", "COINBASE:BTCUSD", "ETHUSD", "PEPEUSDT", "SOLUSD")
TROUBLES = {"LTCUSDT": "bot_wall", "ATOMUSDT": "server_error", "UNIUSDT": "wrong_symbol", "LINKUSDT": "socket_silent"}
WIDE: ViewportSize = {"width": 1280, "height": 688}
LOW: ViewportSize = {"width": 1280, "height": 560}
TROUBLED: ViewportSize = {"width": 1280, "height": 646}
STALE: ViewportSize = {"width": 1280, "height": 647}
DETAIL: ViewportSize = {"width": 1120, "height": 688}
ALERT: ViewportSize = {"width": 1120, "height": 760}
SIZES: dict[str, ViewportSize] = {
    "phone": {"width": 360, "height": 740},
    "narrow": {"width": 740, "height": 760},
    "zoomed": {"width": 640, "height": 400},  # 1280 × 800 at 200 %
    "small": {"width": 320, "height": 640},
}
SESSION_MS = 12_000  # so that prices have moved
NOTICE_MS = 5_000  # until a notice has gone
DAY_S, STEP_S = 86_400, 30
OFF_S = (8 * 3600, 6 * 3600)  # how long ago Pluto was off: a gap in every trend
MOST_BYTES = 150_000
LIVE_S = 60.0
ALERTS: list[dict[str, Any]] = [
    {"ticker": "ETHUSD", "condition": "moves", "value": "2.5", "direction": "down", "within": 600, "repeat": True},
    {"ticker": "SOLUSD", "condition": "state", "within": 300, "repeat": True, "cooldown": 3600},
    {"ticker": "SOLUSD", "condition": "above", "value": "100", "note": "Sell a half."},
]  # the last rings at once


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, running_simulator("--seed", SEED, "--weight", "200000") as simulator:
        path = find_browser(os.environ.get("PLUTO_BROWSER"), playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        take_well(browser, simulator, folder)
        take_trouble(browser, simulator, folder)
        take_alerts(browser, folder)
        browser.close()
    for picture in sorted(folder.glob("*.png")):
        size = picture.stat().st_size
        print(f"{picture.name:12} {size / 1000:4.0f} kB")
        assert size <= MOST_BYTES, f"{picture.name} is too large for a README"


def take_well(browser: Browser, simulator: Simulator, folder: Path) -> None:
    """All is well: one page, whose session goes on, seen in several ways; and at the end Pluto goes away."""
    with running_pluto("--source-url", simulator.url) as pluto, board(browser, pluto) as page:
        page.set_viewport_size(LOW)
        page.locator("#empty").wait_for()
        take(page, folder / "empty.png")
        for ticker in TICKERS:
            pluto.add(ticker)
        quotes = [pluto.wait_for(ticker, "live", LIVE_S) for ticker in TICKERS]
    with tempfile.TemporaryDirectory() as data:
        write_past(Path(data), {Ticker(quote["ticker"]): day_before(quote) for quote in quotes})
        with kept_pluto(simulator, data) as pluto, board(browser, pluto) as page:
            take_each(page, pluto, folder)


def take_each(page: Page, pluto: Pluto, folder: Path) -> None:
    for ticker in TICKERS:
        pluto.wait_for(ticker, "live", LIVE_S)
    page.wait_for_timeout(SESSION_MS)
    page.set_viewport_size(WIDE)
    take(page, folder / "wide.png")
    page.emulate_media(color_scheme="dark")
    take(page, folder / "dark.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DETAIL)
    page.get_by_role("button", name="BTCUSDT.P", exact=True).click()
    page.get_by_role("button", name="15 minutes").click()
    page.locator("canvas").first.wait_for()
    take(page, folder / "detail.png")
    page.get_by_text("Why?").click()
    page.locator(".whys dd").last.scroll_into_view_if_needed()
    take(page, folder / "why.png")
    page.keyboard.press("Escape")
    for name, size in SIZES.items():
        page.set_viewport_size(size)
        take(page, folder / f"{name}.png")
    page.set_viewport_size(STALE)
    pluto.process.terminate()
    page.locator("#outage:not([hidden])").wait_for()
    take(page, folder / "stale.png")
    page.set_viewport_size(SIZES["small"])
    page.mouse.wheel(0, 300)
    take(page, folder / "stale-small.png")


def day_before(quote: dict[str, Any]) -> Iterator[tuple[int, State, str]]:
    """A walk from the day's open to the price, between the day's bounds."""
    now, walk = round(time.time() * 1000), random.Random(quote["ticker"])
    low, high, places = quote["low"], quote["high"], len(quote["priceText"].partition(".")[2])
    aside, was_off = 0.0, False
    for ago in range(DAY_S, 0, -STEP_S):
        aside = 0.995 * aside + walk.gauss(0, (high - low) / 60)
        price = quote["open"] + (quote["price"] - quote["open"]) * (1 - ago / DAY_S) + aside * min(1, ago / 3600)
        price = low + abs(high - abs(high - price) - low)  # beyond a bound it turns back
        is_off = OFF_S[0] > ago > OFF_S[1]
        if not is_off or not was_off:
            yield now - ago * 1000, State.STALE if is_off else State.LIVE, f"{price:.{places}f}"
        was_off = is_off


@contextmanager
def kept_pluto(simulator: Simulator, data: str) -> Iterator[Pluto]:
    with running_pluto("--source-url", simulator.url, "--data", data, PLUTO_STORE="on") as pluto:
        yield pluto


def take_trouble(browser: Browser, simulator: Simulator, folder: Path) -> None:
    """Each kind of trouble in a row of its own, the refusal last: it slows down what opens after it."""
    with running_pluto("--source-url", simulator.url) as pluto, board(browser, pluto) as page:
        page.set_viewport_size(TROUBLED)
        for ticker in ("LINKUSDT", "ETHUSD"):
            pluto.add(ticker)
            pluto.wait_for(ticker, "live", LIVE_S)
        for ticker, fault in TROUBLES.items():
            simulator.fault(ticker, fault)
        pluto.add("NOSUCHCOIN")
        for ticker, state in (("UNIUSDT", "error"), ("ATOMUSDT", "error"), ("LTCUSDT", "blocked")):
            pluto.add(ticker)
            pluto.wait_for(ticker, state, LIVE_S)
        pluto.wait_for("NOSUCHCOIN", "not_found", LIVE_S)
        pluto.wait_for("LINKUSDT", "stale", LIVE_S)
        take(page, folder / "error.png")


def take_alerts(browser: Browser, folder: Path) -> None:
    """Alerts ring on simulated prices in a demo only."""
    tickers = ("BTCUSD", "ETHUSD", "SOLUSD")
    options = ("--demo", "--tickers", ",".join(tickers))
    with running_pluto(*options) as pluto:
        quotes = [pluto.wait_for(ticker, "live", LIVE_S) for ticker in tickers]
    with tempfile.TemporaryDirectory() as data:
        write_past(Path(data), {Ticker(quote["ticker"]): day_before(quote) for quote in quotes})
        (Path(data) / "pluto.db").rename(Path(data) / "demo.db")
        with (
            running_pluto(*options, "--data", data, PLUTO_STORE="on") as pluto,
            board(browser, pluto) as page,
        ):
            for ticker in tickers:
                pluto.wait_for(ticker, "live", LIVE_S)
            page.wait_for_timeout(SESSION_MS)
            take_each_alert(page, pluto, folder)


def take_each_alert(page: Page, pluto: Pluto, folder: Path) -> None:
    page.set_viewport_size(ALERT)
    page.locator('price-row[data-ticker="BTCUSD"]').focus()
    page.keyboard.press("n")
    page.get_by_role("button", name="15 minutes").click()
    page.locator("canvas").first.wait_for()
    level = page.get_by_role("slider", name="new: crosses")
    level.focus()
    for _ in range(4):
        level.press("PageUp")
    page.locator("[name=value]").focus()
    take(page, folder / "alert.png")
    page.get_by_role("button", name="Make alert").click()
    page.keyboard.press("Escape")
    for alert in ALERTS:
        pluto.http.post("/api/alerts", json=alert).raise_for_status()
    page.locator(".toast").wait_for()
    page.set_viewport_size(LOW)
    page.wait_for_timeout(NOTICE_MS)
    take(page, folder / "toast.png")
    page.locator("#alerts").click()
    page.locator(".toast").get_by_role("button", name="Close").click()
    page.get_by_text("Waiting to ring").click()
    take(page, folder / "alerts.png")


@contextmanager
def board(browser: Browser, pluto: Pluto) -> Iterator[Page]:
    context = browser.new_context(viewport=WIDE, device_scale_factor=1, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.goto(pluto.url)
    yield page
    context.close()


def take(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    if path.stem not in ("empty", "detail", "why", "alert"):
        page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1500)  # for a resized or recoloured page to settle; nothing tells
    page.screenshot(path=path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "docs" / "screenshots")
