"""How the page hears Pluto: one stream for all tabs, by any name; a line that dies silently is noticed in time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect
from running import QuoteServer, quote_server, wait_until

from tradingview.browser import find_browser

NAME = "pluto.test"
NOTICED_WITHIN_S = 12.0
LATE_S = 4.0  # for a busy machine
WITHOUT_WORKERS = "delete window.SharedWorker"


class Line:
    """A TCP proxy before Pluto. While it is cut, it forwards and closes nothing, as a network that stalls does."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        self._flows.clear()

    def mend(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self._flows.set()
        with self._listener, suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the thread's wait
        self._accepting.join(1.0)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here = self._listener.accept()[0]
                self._sockets.append(here)
                there = socket.create_connection(self._to)
                self._sockets.append(there)
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._forward, args=[source, target], daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def line_to(server: QuoteServer) -> Iterator[Line]:
    with closing(Line(server.port)) as line:
        yield line


@pytest.fixture(scope="module")
def elsewhere(browser: Browser) -> Iterator[Browser]:
    """A browser for which Pluto's machine has a name of its own."""
    path = find_browser(os.environ.get("PLUTO_BROWSER"), browser.browser_type.executable_path)
    arguments = [f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--process-per-site", "--disable-gpu"]
    elsewhere = browser.browser_type.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0, args=arguments)
    yield elsewhere
    elsewhere.close()


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server("--allowed-hosts", NAME, "--heartbeat", "5") as server:
        server.track("BTCUSD")
        yield server


@dataclass(frozen=True)
class Dying:
    """A page whose line has died without a word at this moment, in s since the epoch; it notes when it shows that."""

    page: Page
    line: Line
    cut_at: float


@pytest.fixture(scope="module")
def dying(elsewhere: Browser) -> Iterator[Dying]:
    """It takes the page 12 s to notice, during which other tests run: it has a server of its own."""
    with quote_server("--heartbeat", "5") as server, line_to(server) as line:
        server.track("BTCUSD")
        server.put(("BTCUSD", "live", "30.25"))
        context = elsewhere.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{line.port}/")
        page.locator('price-row[data-state="live"]').wait_for()
        server.put(("BTCUSD", "live", "30.50"))
        wait_for_price(page, "30.50")
        page.evaluate("""() => {
            const row = document.querySelector("price-row");
            const note = () => { if (row.dataset.state === "stale") window.staleAt ??= Date.now(); };
            new MutationObserver(note).observe(row, { attributeFilter: ["data-state"] });
        }""")
        line.cut()
        yield Dying(page, line, time.time())
        context.close()


def price_of(page: Page, ticker: str = "BTCUSD") -> str:
    return page.locator(f'price-row[data-ticker="{ticker}"] .price').text_content() or ""


def wait_for_price(page: Page, price: str) -> None:
    wait_until(lambda: price_of(page) == price, what=f"{price} in every tab")


@pytest.mark.parametrize(("script", "count"), [("", 2), (WITHOUT_WORKERS, 7)], ids=["worker", "sockets"])
def test_tabs_by_a_name_without_tls_all_hear_and_can_add(
    elsewhere: Browser, server: QuoteServer, dying: Dying, script: str, count: int
) -> None:
    """A browser has six connections to a host. Where a worker hears Pluto, it takes one for all tabs."""
    server.put(("BTCUSD", "live", "10.25"))
    context = elsewhere.new_context()
    context.add_init_script(script)
    tabs = [context.new_page() for _ in range(count)]
    for tab in tabs:  # they load side by side
        tab.goto(f"http://{NAME}:{server.port}/", wait_until="commit")
    for tab in tabs:
        tab.locator("#connection[data-state=open]").wait_for()
    streams = 0 if script else 1
    wait_until(lambda: server.server()["activeSSEClients"] == streams, what="no more streams than that")
    server.put(("BTCUSD", "live", "10.50"))
    for tab in tabs:
        wait_for_price(tab, "10.50")
    tabs[-1].locator("#add-field").fill("ETHUSD")
    tabs[-1].keyboard.press("Enter")
    tabs[0].locator('price-row[data-ticker="ETHUSD"]').wait_for()
    server.untrack("ETHUSD")
    tabs[0].close()
    server.put(("BTCUSD", "live", "10.75"))
    for tab in tabs[1:]:
        wait_for_price(tab, "10.75")
    context.close()


def test_a_tab_without_a_worker_judges_before_it_paints(elsewhere: Browser, server: QuoteServer) -> None:
    server.put(("BTCUSD", "live", "40.25"))
    with line_to(server) as line:
        context = elsewhere.new_context()
        context.add_init_script(WITHOUT_WORKERS)
        page = context.new_page()
        page.clock.install()
        page.goto(f"http://127.0.0.1:{line.port}/")
        page.locator('price-row[data-state="live"]').wait_for()
        line.cut()
        page.clock.pause_at(time.time() + 60)  # asleep: no timer strikes on the way
        state = page.evaluate("""async () => {
            const { store } = await import("/static/store.js");
            document.dispatchEvent(new Event("visibilitychange"));
            return store.view("BTCUSD").state;
        }""")
        assert state == "stale"
        context.close()


def test_a_network_that_goes_away_is_noticed_at_once(elsewhere: Browser, server: QuoteServer) -> None:
    server.put(("BTCUSD", "live", "50.25"))
    context = elsewhere.new_context()
    context.add_init_script(WITHOUT_WORKERS)  # a worker's network can't be taken away by itself
    page = context.new_page()
    page.goto(f"http://{NAME}:{server.port}/")
    page.locator('price-row[data-state="live"]').wait_for()
    context.set_offline(True)
    page.locator('price-row[data-state="stale"]').wait_for(timeout=3000)
    context.set_offline(False)
    page.locator('price-row[data-state="live"]').wait_for()
    context.close()


def test_a_line_that_dies_without_a_word_is_noticed_within_12_s_and_dated_by_its_last(dying: Dying) -> None:
    page, line = dying.page, dying.line
    page.locator('price-row[data-state="stale"]').wait_for(timeout=(NOTICED_WITHIN_S + LATE_S) * 1000)
    assert page.evaluate("window.staleAt") / 1000 - dying.cut_at < NOTICED_WITHIN_S + LATE_S
    expect(page.locator("#connection")).to_have_text("reconnecting")
    lost_at = page.evaluate('import("/static/store.js").then(({ store }) => store.connection.lostAt)')
    assert dying.cut_at - 6 < lost_at / 1000 < dying.cut_at + 1
    line.mend()
    page.locator('price-row[data-state="live"]').wait_for()
    expect(page.locator("#outage")).to_be_hidden()
    later = page.context.new_page()  # it sees what was seen before it came
    later.goto(f"http://127.0.0.1:{line.port}/")
    later.locator("price-row .open").click()
    expect(later.locator("[data-part=changes] li")).to_contain_text(["30.50", "30.25"])
