"""The doctor: opens one ticker's page as Pluto does, watches it, and says what works and what to do about the rest.

    python -m tradingview.doctor [TICKER] [--seconds N] [--report FILE] [options of Pluto's]     ./run.sh doctor

This file owns one examination: the browser's start, the page, how long it is watched, and the output. What is found is
judged in verdict.py; what a report holds is decided in report.py. All runs on the main thread, which drives Playwright.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, WebSocket
from playwright.sync_api import Error as BrowserError

from quotes import InvalidTicker, PlutoError, Source, Ticker, parse_ticker, steady_ms
from settings import Settings, add_options, settings_of
from tradingview.browser import Launcher, LaunchSettings
from tradingview.driver import Driver, waiting
from tradingview.feed import Feed, PageTrouble, Trouble
from tradingview.group import HEAP_PARTS, Groups
from tradingview.loop import Loop
from tradingview.machine import temporary_folder
from tradingview.patience import Patience
from tradingview.report import CONTENTS, Report, Sockets
from tradingview.site import QUOTE_SOCKET_PATH
from tradingview.tab import Tab
from tradingview.verdict import Observed, Verdict, judge

TICK_S = 0.25
SECONDS = 30.0  # a page is watched for so long after its first price
MARKUP_LIMIT_MS = 3_000  # for the page to give the header's markup
GRACE_S = 60.0  # by which the browser may be late in all
OPTIONS = ("source_url", "browser", "browser_mode", "sandbox", "page_max_heap")
HEADER = ".js-symbol-page-header-root, .js-symbol-header-ticker"


class Examination:
    """One page in a browser of its own, watched until `seconds` after its first price, or until it is given up."""

    def __init__(self, ticker: Ticker, settings: Settings, seconds: float, patience: Patience | None = None) -> None:
        self._settings, self._seconds = settings, seconds
        self._patience = patience or Patience()
        self._source_url = settings.source_url.rstrip("/")
        host = urlsplit(self._source_url).netloc
        self._counters: Counter[str] = Counter()
        self.feed = Feed(ticker, simulated=False, counters=self._counters, host=host)
        self.seen = Observed(ticker, self.feed.symbol, host, heap_limit_mb=settings.page_max_heap)
        self.sockets = Sockets(self.feed.symbol)
        self.document: dict[str, Any] = {}  # what sort of document the page had
        self.markup = ""  # of the header
        self.began_at = time.time()  # when the page was asked for
        self._began = 0.0  # the same by the clock that doesn't jump
        self._trouble: PageTrouble | None = None
        self._is_over = False

    def run(self) -> None:
        """Watches the page. A browser that doesn't start is among what was seen."""
        settings = self._settings
        launch = LaunchSettings(
            settings.browser or None, settings.headed, settings.browser_mode == "auto", settings.sandbox
        )
        launcher = Launcher(launch)
        limit = self._patience.first_price_in_all + self._seconds + 2 * GRACE_S
        try:
            with temporary_folder() as folder:
                driver = Driver(folder)
                with driver.running(lambda: None) as playwright, waiting(lambda: None, limit, driver.kill):
                    browser, _ = launcher.launch(playwright, driver.kill_browsers)
                    try:
                        self._watch(browser, launcher)
                    finally:
                        with suppress(BrowserError):
                            browser.close()
        except (BrowserError, PlutoError, OSError) as error:
            if not self.seen.why:
                self.seen.browser_failure = str(error).splitlines()[0]

    def _watch(self, browser: Browser, launcher: Launcher) -> None:
        mode = "headed" if launcher.headed else "headless"
        without = "" if launcher.sandbox is None or launcher.sandbox.is_on else ", without its sandbox"
        self.seen.browser = f"Chromium {browser.version}, {mode}{without}"
        self._loop, self._browser = Loop(), browser
        self._control = browser.new_context()
        groups = Groups(self._loop, self._patience, self._counters, size=1)
        self._group = groups.with_room(1, is_apart=False)
        self._tab = Tab(
            self.feed,
            self._source_url,
            self._loop,
            on_message=self._on_message,
            on_trouble=self._on_trouble,
            patience=self._patience,
            counters=self._counters,
            is_headed=launcher.headed,
            is_slim=not launcher.headed,
        )
        self._group.add(self._tab)
        self._loop.soon(self._open)
        with suppress(BrowserError):
            self._control.wait_for_event("close", timeout=0)
        self._observe()

    # The page. These run on the loop.

    def _open(self) -> None:
        context: BrowserContext = self._group.prepare(self._browser, self._source_url)
        context.on("page", lambda page: page.on("websocket", self._on_socket))
        self.began_at, self._began = time.time(), time.monotonic()
        self._loop.later(TICK_S, self._tick)
        self._tab.open(context)

    def _tick(self) -> None:
        if self._is_over:
            return
        now, tab = time.monotonic(), self._tab
        if tab.wall is None and self._trouble is not None and tab.document.get("symbol") is True:
            self._trouble = None  # a person has solved the check
        if tab.began_at is not None:
            self.feed.choose(steady_ms(), time.time() * 1000)
        self._group.check(now)
        tab.check(now)
        waited_for_a_person = tab.wall is not None and not tab.is_being_solved(now) and now > tab.deadline
        if waited_for_a_person or (tab.priced_at is not None and now - tab.priced_at > self._seconds):
            self._finish()
        else:
            self._show_progress()
            self._loop.later(TICK_S, self._tick)

    def _on_message(self, tab: Tab, message: dict[str, Any]) -> None:
        self.seen.frames += len(message["frames"]) if message["kind"] == "frames" else 0
        if tab.loaded_at is not None and self.seen.loaded_after is None:
            self.seen.loaded_after = self._since_start
        strategies = self.feed.why(steady_ms(), time.time() * 1000)["strategies"]
        for source in Source:
            if strategies[source.value]["priceText"] is not None:
                self.seen.first.setdefault(source, self._since_start)

    def _on_trouble(self, tab: Tab, trouble: PageTrouble) -> None:
        if self._trouble is None:
            self._trouble = trouble
        if tab.wall is None:
            self._loop.soon(self._finish)

    def _on_socket(self, socket: WebSocket) -> None:
        if urlsplit(socket.url).path == QUOTE_SOCKET_PATH:
            socket.on("framereceived", lambda text: self._record("received", text))
            socket.on("framesent", lambda text: self._record("sent", text))

    def _record(self, direction: str, text: str | bytes) -> None:
        if isinstance(text, str):
            self.sockets.hear(round(self._since_start * 1000), direction, text)

    @property
    def _since_start(self) -> float:
        return time.monotonic() - self._began

    def _finish(self) -> None:
        """Takes from the page what only an open one can give, then ends the wait."""
        if self._is_over:
            return
        self._is_over = True
        if (page := self._tab.page) is not None and self._tab.began_at is not None and not page.is_closed():
            with suppress(BrowserError):
                usage = self._tab.ask("Runtime.getHeapUsage")
                self.seen.heap_mb = sum(usage.get(part, 0) for part in HEAP_PARTS) / 1e6
                self.markup = _header_of(page)
        self._control.close()

    # What was seen.

    def _observe(self) -> None:
        if (trouble := self._trouble) is not None:
            told = Trouble(trouble.state, trouble.reason, round(time.time() * 1000))
            self.feed.fail(told, void_price=trouble.void_price)
        seen, tab = self.seen, self._tab
        seen.why = self.feed.why(steady_ms(), time.time() * 1000)
        seen.is_simulated = self.feed.quote(steady_ms()).simulated
        seen.answers = tab.answers
        seen.answered_after = None if tab.began_at is None else tab.began_at - self._began
        seen.disagreements = self._counters["disagreements"]
        self.document = tab.document

    def _show_progress(self) -> None:
        if not sys.stderr.isatty():
            return
        quote = self.feed.quote(now := steady_ms()).as_of(now)
        waiting_for = quote.reason or quote.price_text or ""
        person = "; you may solve the check in its window" if self._tab.wall is not None else ""
        print(f"\r\033[K{self._since_start:3.0f} s  {quote.state} {waiting_for}{person}", end="", file=sys.stderr)


def _header_of(page: Page) -> str:
    """The markup of the header with the ticker; nothing where there is none."""
    header = page.locator(HEADER).first
    return "" if not header.count() else str(header.evaluate("node => node.outerHTML", timeout=MARKUP_LIMIT_MS))


# --- as a program -----------------------------------------------------------------------------------------------------


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(
        prog="./run.sh doctor",
        description="Opens one ticker's page, watches it, and says what works and what to do about the rest.",
        epilog="The exit code is 0 when a live or closed price was proven, otherwise 1.",
        allow_abbrev=False,
    )
    parser.add_argument("ticker", nargs="?", default="BTCUSD", metavar="TICKER", help="default: BTCUSD")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="to watch after the first price (default: 30)")
    parser.add_argument("--report", metavar="FILE", help="write a report (zip) for those who maintain Pluto")
    add_options(parser, OPTIONS)
    options = parser.parse_args(arguments)
    try:
        options.ticker = parse_ticker(options.ticker)
    except InvalidTicker as error:
        parser.error(str(error))
    if not 0 <= options.seconds <= 3600:
        parser.error("--seconds is from 0 to 3600")
    return options, settings_of(parser, options)


def write_report(path: Path, examination: Examination, verdict: Verdict) -> None:
    """Writes the report and says what is in it. Raises OSError."""
    report = Report(
        verdict,
        examination.seen,
        examination.sockets,
        examination.document,
        examination.markup,
        began_at_ms=round(examination.began_at * 1000),
    )
    report.write(path)
    print(f"\n{path} is written. {CONTENTS}")


def main(arguments: list[str]) -> int:
    options, settings = read_options(arguments)
    logging.getLogger().addHandler(logging.NullHandler())
    examination = Examination(options.ticker, settings, options.seconds)
    print(f"Opening the page of {options.ticker} at {examination.seen.host}: up to 2 minutes…", file=sys.stderr)
    examination.run()
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    verdict = judge(examination.seen)
    print(verdict)
    if options.report:
        try:
            write_report(Path(options.report), examination, verdict)
        except OSError as error:
            print(f"doctor: {options.report} can't be written: {error.strerror}", file=sys.stderr)
            return 1
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
