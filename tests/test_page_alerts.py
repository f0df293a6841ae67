"""Alerts on the page in a real Chromium: made, moved, deleted, taken back; and what the page does when one has rung."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect
from running import QuoteServer, quote_server, wait_until

VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
BROWSER_SPY = """
    window.told = [];  // what the page asks of the browser
    window.Notification = class {
        static permission = "default";
        static async requestPermission() { told.push("asked"); return Notification.permission = "granted"; }
        constructor(title, { body, tag }) { told.push(title, body, tag); }
        addEventListener() {}
    };
    const Real = AudioContext;
    window.AudioContext = class extends Real { constructor() { super(); told.push("sound"); } };
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuoteServer]:
    with quote_server("--data", str(tmp_path_factory.mktemp("data"))) as server:
        yield server


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture(scope="module")
def shared_page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.add_init_script(BROWSER_SPY)
    return page


@pytest.fixture
def page(shared_page: Page) -> Iterator[Page]:
    """The page of the test before. It may fail to load something, and raises no error."""
    faults: list[str] = []

    def note(error: object) -> None:
        faults.append(str(error))

    shared_page.on("pageerror", note)
    shared_page.emulate_media(color_scheme="null")
    shared_page.set_viewport_size(VIEWPORT)
    yield shared_page
    shared_page.remove_listener("pageerror", note)
    assert faults == []


@pytest.fixture(scope="module")
def blank(context: BrowserContext, server: QuoteServer) -> Page:
    """A page of the same origin with nothing on it, to import modules into."""
    page = context.new_page()
    page.goto(server.url + "/livez")
    return page


def visit(page: Page, server: QuoteServer) -> None:
    """The server's board, loaded only if the page shows another one."""
    if page.url != server.url + "/":
        page.goto(server.url)
    while page.evaluate("Boolean(document.querySelector('dialog[open]'))"):
        page.keyboard.press("Escape")


def row(page: Page, ticker: str) -> Locator:
    return page.locator(f'price-row[data-ticker="{ticker}"]')


def begin(page: Page, ticker: str) -> Locator:
    """The form for a new alert, by the key."""
    row(page, ticker).focus()
    page.keyboard.press("n")
    value = page.get_by_role("textbox", name=re.compile("^Price"))
    expect(value).to_be_focused()
    return value


def make(page: Page, ticker: str, condition: str, value: str) -> None:
    begin(page, ticker).fill(value)
    page.get_by_label("Tell me when it").select_option(condition)
    page.get_by_role("button", name="Make alert").click()
    expect(page.get_by_role("button", name="New alert")).to_be_focused()


def values(server: QuoteServer, ticker: str) -> list[str]:
    alerts: list[dict[str, Any]] = server.http.get("/api/alerts").raise_for_status().json()["alerts"]
    return [alert["value"] for alert in alerts if alert["ticker"] == ticker]


def assert_clean(page: Page) -> None:
    seen = Axe().run(page)
    assert seen.violations_count == 0, seen.generate_report()


def assert_covers_nothing(page: Page, toast: Locator) -> None:
    """Both ends of the open details can be clicked, at once or once they are scrolled clear."""
    details = page.get_by_role("dialog", name="ZECEUR")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 700})
        expect(toast).to_be_in_viewport(ratio=1)
        details.locator(".sheet-head button").click(trial=True)
        details.get_by_role("button", name="Remove", exact=True).click(trial=True)


def test_an_alert_is_made_by_key_rings_and_is_listed(page: Page, tmp_path: Path) -> None:
    with quote_server("--demo", "--data", str(tmp_path)) as server:
        server.track("ZECEUR")
        server.tell("ZECEUR", "live", "5.25", simulated=True)
        visit(page, server)
        row(page, "ZECEUR").and_(page.locator("[data-state=live]")).wait_for()
        expect(begin(page, "ZECEUR")).to_have_value(re.compile(r"^\d+\.\d+$"))
        assert_clean(page)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        make(page, "ZECEUR", "below", "0.01")
        assert page.evaluate("told") == ["asked"]
        page.keyboard.press("Escape")
        bell = row(page, "ZECEUR").get_by_role("button", name="ZECEUR: 1 alert")
        expect(bell).to_be_visible()

        make(page, "ZECEUR", "above", "0.01")
        server.tell("ZECEUR", "live", "5.50", simulated=True)
        toast = page.locator(".toast")
        toast.wait_for()
        words = r"ZECEUR at or above 0\.01 SIMULATED\d\d:\d\d:\d\d · price \d"
        expect(toast).to_contain_text(re.compile(words))
        wait_until(lambda: len(page.evaluate("told")) == 5, what="the browser is told")
        (raised,) = server.http.get("/api/alerts/raised").json()["raised"]
        assert {"sound", "SIMULATED · ZECEUR at or above 0.01", raised["id"]} < set(page.evaluate("told"))
        assert_clean(page)
        assert_covers_nothing(page, toast)
        toast.get_by_role("button", name="Close").click()
        expect(toast).to_have_count(0)
        page.keyboard.press("Escape")
        expect(bell).to_be_visible()

        page.get_by_role("button", name="Alerts: 1 new").click()
        sheet = page.get_by_role("dialog", name="Alerts")
        expect(sheet.get_by_role("region", name="Have rung")).to_contain_text(re.compile(words))
        sheet.get_by_role("button", name="Waiting to ring: 1").click()
        expect(sheet.get_by_role("region", name="Waiting to ring")).to_contain_text("ZECEUR at or below 0.01")
        expect(sheet.get_by_role("region", name="Have rung")).to_be_hidden()
        page.get_by_label("Sound when an alert rings").uncheck()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Alerts", exact=True)).to_be_focused()


def test_alerts_come_although_a_part_of_them_failed_to_load(page: Page, server: QuoteServer) -> None:
    page.route("**/static/alerts.html", lambda route: route.abort(), times=1)
    page.goto(server.url)
    page.get_by_role("button", name="Alerts").click()
    expect(page.get_by_role("dialog", name="Alerts")).to_be_visible()


def test_a_level_is_dragged_on_the_chart_and_the_move_undone(page: Page, server: QuoteServer) -> None:
    server.track("BTCUSD")
    server.put(("BTCUSD", "live", "100.00"), ("BTCUSD", "live", "101.00"))
    visit(page, server)
    value = begin(page, "BTCUSD")
    draft = page.get_by_role("slider", name="new: crosses")
    expect(draft).to_have_attribute("aria-valuetext", "101.00")
    drag(page, draft, -30)
    assert float(value.input_value()) > 101
    value.fill("103.00")
    expect(draft).to_have_attribute("aria-valuetext", "103.00")
    page.get_by_text("More", exact=True).click()
    page.locator("[name=cooldown]").select_option("each time, at most once in 5 minutes")
    page.get_by_label("Note").fill("sell half")
    page.get_by_label("Also if it happens while the price is unknown").check()
    back = page.get_by_label("Ring again only after the price was back by")
    back.fill("60")
    back.press("Enter")
    expect(page.locator("label:has([name=hysteresis]) + .refused")).to_have_text(
        'The distance is a percentage of the value, from 0 to 50, such as "0.1".'
    )
    back.fill("0.5")
    page.get_by_role("button", name="Make alert").click()
    expect(page.get_by_role("button", name="New alert")).to_be_focused()
    level = page.get_by_role("slider", name="Level of the alert: crosses", exact=True)
    expect(level).to_have_attribute("aria-valuetext", "103.00")
    (made,) = server.http.get("/api/alerts").json()["alerts"]

    with page.expect_request(lambda request: request.method == "POST") as asked:
        drag(page, level, 20)
    assert f'"replaces":"{made["id"]}"' in str(asked.value.post_data)
    wait_until(lambda: stands_elsewhere(server), what="moved")
    (moved,) = server.http.get("/api/alerts").json()["alerts"]
    assert moved == {**made, "id": moved["id"], "value": moved["value"]}
    assert {"note": "sell half", "cooldown": 300, "hysteresis": "0.5", "across_gaps": True}.items() <= moved.items()
    expect(page.locator(".alerts li")).to_contain_text(f"crosses {moved['value']}")
    page.get_by_role("button", name="Undo").last.click()
    wait_until(lambda: values(server, "BTCUSD") == ["103.00"], what="where it was")
    expect(level).to_have_attribute("aria-valuetext", "103.00")

    level.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Escape")
    expect(level).to_have_attribute("aria-valuetext", "103.00")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    wait_until(lambda: stands_elsewhere(server), what="moved by key")
    assert float(values(server, "BTCUSD")[0]) > 103
    expect(level).to_be_focused()
    expect(page.get_by_role("button", name="Undo").last).to_be_visible()
    page.keyboard.press("u")
    wait_until(lambda: values(server, "BTCUSD") == ["103.00"], what="taken back by key")

    far = {"ticker": "BTCUSD", "condition": "above", "value": "2000"}
    server.http.post("/api/alerts", json=far).raise_for_status()
    page.keyboard.press("Escape")
    row(page, "BTCUSD").get_by_role("button", name="BTCUSD", exact=True).click()
    beyond = page.locator('.level[data-beyond="above"]')
    expect(beyond.and_(page.locator(".behind"))).to_have_text("at or above 2,000")
    nearest = beyond.and_(page.locator(":not(.behind)")).locator(".level-tag")
    expect(nearest).to_have_text("crosses 103.00")
    expect(nearest).to_have_attribute("data-more", " +1")


def stands_elsewhere(server: QuoteServer) -> bool:
    levels = values(server, "BTCUSD")
    return len(levels) == 1 and levels != ["103.00"]


def drag(page: Page, level: Locator, by: float) -> None:
    tag = level.locator(".level-tag")
    tag.scroll_into_view_if_needed()
    box = tag.bounding_box()
    assert box is not None
    x, y = box["x"] + 20, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + by, steps=3)
    page.mouse.up()


def test_what_is_refused_says_why_beside_its_field_and_what_is_deleted_comes_back(
    page: Page, server: QuoteServer
) -> None:
    server.track("ETHUSD")
    server.put(("ETHUSD", "live", "5.00"))
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    visit(page, server)
    value = begin(page, "ETHUSD")
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("Ring again")).to_be_hidden()
    page.locator("[name=cooldown]").select_option("each time, at most once in 5 minutes")
    expect(page.get_by_label("Ring again")).to_be_visible()
    value.fill("five")
    page.keyboard.press("Enter")
    expect(page.locator("label:has([name=value]) + .refused")).to_have_text(
        'Price is a decimal above 0, without separators, such as "64250.5".'
    )
    expect(value).to_have_attribute("aria-invalid", "true")
    assert page.evaluate("document.querySelector('dialog[open]').scrollWidth") <= 360
    assert_clean(page)
    value.fill("6")
    page.keyboard.press("Enter")
    expect(page.locator("ticker-detail .alerts li")).to_have_count(1)
    page.keyboard.press("Escape")

    page.keyboard.press("a")
    sheet = page.get_by_role("dialog", name="Alerts")
    sheet.get_by_role("button", name="Waiting to ring").click()
    sheet.get_by_role("button", name="Delete the alert: ETHUSD crosses 6").click()
    wait_until(lambda: values(server, "ETHUSD") == [], what="deleted")
    page.get_by_role("button", name="Undo").last.click()
    wait_until(lambda: values(server, "ETHUSD") == ["6"], what="back")
    expect(sheet).to_contain_text("ETHUSD crosses 6")
    assert page.evaluate("document.querySelector('dialog[open]').scrollWidth") <= 360
    assert_clean(page)


def test_without_a_store_the_form_says_so_and_without_pluto_the_list_does(page: Page) -> None:
    with quote_server() as server:
        server.track("BTCUSD")
        server.put(("BTCUSD", "live", "100.00"))
        page.goto(server.url)
        begin(page, "BTCUSD")
        page.keyboard.press("Enter")
        expect(page.locator(".refused:not(:empty)")).to_have_text(
            "Pluto runs with --no-store and can't keep an alert. Start it without that."
        )
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        server.process.kill()
        page.get_by_role("button", name="Alerts").click()
        expect(page.get_by_role("dialog", name="Alerts").get_by_role("alert")).to_contain_text("Pluto doesn't answer")


def test_what_a_lost_connection_kept_back_is_told_once(blank: Page, server: QuoteServer) -> None:
    server.track("SOLUSD")
    server.put(("SOLUSD", "live", "5.00"))
    wish = {"ticker": "SOLUSD", "condition": "above"}
    for value in ("6", "7", "8"):
        server.http.post("/api/alerts", json={**wish, "value": value}).raise_for_status()
        if value != "8":
            server.put(("SOLUSD", "live", value))
            wait_until(lambda value=value: raised(server)[:1] == [value], what="it has rung")  # type: ignore[misc]
        if value == "6":
            blank.evaluate("""async () => {
                ({ alerts: window.alerts } = await import("/static/alerts.js"));
                window.told = [];
                alerts.addEventListener("raised", ({ detail }) => told.push(detail.value));
                await alerts.read();
            }""")
    told = blank.evaluate("""async () => {
        await alerts.read();
        const lost = { ...alerts.raised[0], id: "lost", value: "9", mayBeLost: true };
        for (const raised of [alerts.raised[0], lost, lost]) alerts.hear(raised);
        await alerts.read();
        return { told, raised: alerts.raised.map(({ value }) => value), set: alerts.of("SOLUSD").length };
    }""")
    assert told["told"] == ["7", "9"], "not what had rung before"
    assert sorted(told["raised"][:3]) == ["6", "7", "9"]
    assert told["set"] == 1


def raised(server: QuoteServer) -> list[str]:
    return [raised["value"] for raised in server.http.get("/api/alerts/raised").json()["raised"]]


def test_alerts_are_written_in_words(blank: Page) -> None:
    words = blank.evaluate("""async () => {
        const { conditionWords, deliveryWords, moreWords, raisedWords } = await import("/static/alertwords.js");
        const delivery = { to: "2: ntfy", tries: 3, error: "HTTP 500" };
        return [
            conditionWords({ condition: "below", value: "64250.50" }),
            conditionWords({ condition: "crosses", value: "0.00000812", direction: "down" }),
            conditionWords({ condition: "moves", value: "2.5", direction: "up", within: 5400 }),
            conditionWords({ condition: "state", within: 3600 }),
            moreWords({ repeat: true, cooldown: 90, hysteresis: "1", across_gaps: true, note: "x" }),
            raisedWords({ at: Date.now(), reason: "blocked: 403", gap: true, mayBeLost: true }).slice(8),
            deliveryWords({ ...delivery, state: "failed" }),
            deliveryWords({ ...delivery, state: "waiting", nextTryAt: 60_000 }, 15_000),
            deliveryWords({ ...delivery, state: "delivered" }),
        ];
    }""")
    assert words == [
        "at or below 64,250.50",
        "crosses 0.00000812 downwards",
        "rises 2.5% within 90 minutes",
        "no live price for 1 hour",
        "again, at most once in 90 seconds, after the price was back by 1% · also while the price is unknown · x",
        " · blocked: 403 · the price was unknown for a time before"
        " · Pluto couldn't save this: after a restart it is gone",
        "Not sent to 2: ntfy, given up after 3 tries: HTTP 500",
        "Not yet sent to 2: ntfy, next try in 45 s: HTTP 500",
        "Sent to 2: ntfy",
    ]
