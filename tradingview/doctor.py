"""The doctor: opens one ticker's page as Pluto does, watches it, and says what works and what to do about the rest.

    python -m tradingview.doctor [TICKER] [--seconds N] [--report FILE] [options of Pluto's]     ./run.sh doctor

This file owns one examination: the browser's start, the page, how long it is watched, and the output. It never judges
the findings (verdict.py) nor decides what a report holds (report.py). All runs on the main thread, which drives
Playwright.
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

from playwright.sync_api import Browser, Page, WebSocket
from playwright.sync_api import Error as BrowserError

from quotes import InvalidTicker, PlutoError, Source, State, Ticker, parse_ticker, steady_ms, wall_ms
from settings import Settings, add_options, forget_secrets, settings_of
from tradingview.browser import Launcher, LaunchSettings
from tradingview.diagnosis import first_line
from tradingview.driver import Driver, waiting
from tradingview.feed import Feed, PageTrouble, Trouble
from tradingview.group import HEAP_PARTS, Groups
from tradingview.loop import Loop
from tradingview.machine import temporary_folder
from tradingview.patience import Patience
from tradingview.report import CONTENTS, Record, Report, Sockets
from tradingview.site import QUOTE_SOCKET_PATH
from tradingview.tab import Tab
from tradingview.verdict import Observed, judge
from tradingview.walls import Wall

TICK_S = 0.25
SECONDS = 30.0  # how long a page is watched after its first price
MARKUP_LIMIT_MS = 3_000  # for the page to give the header's markup
GRACE_S = 120.0  # how much longer driver and browser may take in all, before they are killed
INTERRUPTED = 130  # exit code after Ctrl-C, as in a shell
OPTIONS = ("source_url", "browser", "browser_mode", "sandbox", "page_max_heap")
HEADER = ".js-symbol-page-header-root, .js-symbol-header-ticker"


def examine(ticker: Ticker, settings: Settings, seconds: float) -> Record:
    """Watches the ticker's page in a browser of its own. A browser that doesn't start is a finding, too."""
    source_url, patience, counters = settings.source_url.rstrip("/"), Patience(), Counter[str]()
    host = urlsplit(source_url).netloc
    feed = Feed(ticker, simulated=False, counters=counters, host=host)
    seen = Observed(ticker, feed.symbol, host, heap_limit_mb=settings.page_max_heap)
    record = Record(seen, Sockets(feed.symbol))
    or_headless = settings.browser_mode == "auto"
    launcher = Launcher(LaunchSettings(settings.browser or None, settings.headed, or_headless, settings.sandbox))
    limit = patience.first_price_in_all + seconds + GRACE_S
    try:
        with temporary_folder() as folder:
            driver = Driver(folder)
            with driver.running() as playwright, waiting(limit, driver.kill):
                browser, _ = launcher.launch(playwright, driver.kill_browsers)
                try:
                    Watch(feed, source_url, seconds, patience, counters, browser, launcher, record).run()
                finally:
                    with suppress(BrowserError):
                        browser.close()
    except (BrowserError, PlutoError, OSError) as error:
        if not seen.why:
            seen.browser_failure = first_line(error)
    return record


class Watch:
    """One page in a browser, watched until `seconds` after its first price, or until it is given up."""

    def __init__(
        self,
        feed: Feed,
        source_url: str,
        seconds: float,
        patience: Patience,
        counters: Counter[str],
        browser: Browser,
        launcher: Launcher,
        record: Record,
    ) -> None:
        self._feed, self._source_url, self._seconds = feed, source_url, seconds
        self._patience, self._counters, self._browser, self._record = patience, counters, browser, record
        self._seen = record.seen
        self._seen.browser = _how_it_runs(browser, launcher)
        self._began = time.monotonic()  # when the page was requested
        self._trouble: PageTrouble | None = None
        self._is_over = False
        self._loop = Loop()
        self._control = browser.new_context()  # an empty one: the thread sleeps until it closes
        self._group = Groups(self._loop, patience, counters, size=1).with_room(1, is_apart=False)
        self._tab = Tab(
            feed,
            source_url,
            self._loop,
            on_message=self._on_message,
            on_trouble=self._on_trouble,
            patience=patience,
            counters=counters,
            is_headed=launcher.headed,
            is_slim=not launcher.headed,
        )
        self._group.add(self._tab)

    def run(self) -> None:
        self._loop.soon(self._open)
        with suppress(BrowserError):
            self._control.wait_for_event("close", timeout=0)
        if not self._is_over and self._trouble is None:
            self._trouble = PageTrouble(State.ERROR, "the browser ended while the page was watched")
        self._observe()

    # The page. These run on the loop.

    def _open(self) -> None:
        context = self._group.prepare(self._browser, self._source_url)
        context.on("page", lambda page: page.on("websocket", self._on_socket))
        self._record.began_at, self._began = time.time(), time.monotonic()
        self._loop.later(TICK_S, self._tick)
        self._tab.open(context)

    def _tick(self) -> None:
        if self._is_over:
            return
        now, tab = time.monotonic(), self._tab
        if tab.wall is None and isinstance(self._trouble, Wall):
            self._trouble = None  # a person has solved the check
        if tab.began_at is not None:
            self._feed.choose(steady_ms(), wall_ms())
        self._group.check(now)
        tab.check(now)
        is_unsolved = tab.wall is not None and not tab.is_being_solved(now) and now > tab.deadline
        if is_unsolved or (tab.priced_at is not None and now - tab.priced_at > self._seconds):
            self._finish()
        else:
            self._show_progress()
            self._loop.later(TICK_S, self._tick)

    def _on_message(self, tab: Tab, message: dict[str, Any]) -> None:
        seen = self._seen
        seen.frames += len(message["frames"]) if message["kind"] == "frames" else 0
        if tab.loaded_at is not None and seen.loaded_after is None:
            seen.loaded_after = self._since_start
        strategies = self._feed.why(steady_ms(), wall_ms())["strategies"]
        for source in Source:
            if strategies[source.value]["priceText"] is not None:
                seen.first.setdefault(source, self._since_start)

    def _on_trouble(self, tab: Tab, trouble: PageTrouble) -> None:
        if self._trouble is None:
            self._trouble = trouble
        if tab.wall is None:
            self._loop.soon(self._finish)

    def _on_socket(self, socket: WebSocket) -> None:
        if urlsplit(socket.url).path == QUOTE_SOCKET_PATH:
            socket.on("framereceived", lambda text: self._take("received", text))
            socket.on("framesent", lambda text: self._take("sent", text))

    def _take(self, direction: str, text: str | bytes) -> None:
        if isinstance(text, str):
            self._record.sockets.hear(round(self._since_start * 1000), direction, text)

    @property
    def _since_start(self) -> float:
        return time.monotonic() - self._began

    def _finish(self) -> None:
        """Reads what only an open page has (heap and header), then ends the wait. A frozen page would never answer."""
        if self._is_over:
            return
        self._is_over = True
        page, tab = self._tab.page, self._tab
        is_silent = time.monotonic() - tab.heard_at > self._patience.frozen
        if page is not None and tab.began_at is not None and not is_silent:
            with suppress(BrowserError):
                usage = tab.ask("Runtime.getHeapUsage")
                self._seen.heap_mb = sum(usage.get(part, 0) for part in HEAP_PARTS) / 1e6
                self._record.markup = _header_of(page)
        self._control.close()

    # Findings.

    def _observe(self) -> None:
        seen, tab, feed = self._seen, self._tab, self._feed
        if (trouble := self._trouble) is not None:
            told = Trouble(trouble.state, trouble.reason, wall_ms())
            feed.fail(told, void_price=trouble.void_price)
        seen.why = feed.why(steady_ms(), wall_ms())
        seen.is_simulated = feed.quote(steady_ms()).simulated
        seen.answers = tab.answers
        seen.answered_after = None if tab.began_at is None else tab.began_at - self._began
        seen.disagreements = self._counters["disagreements"]
        self._record.document = tab.document

    def _show_progress(self) -> None:
        if not sys.stderr.isatty():
            return
        quote = self._feed.quote(now := steady_ms()).as_of(now)
        told = quote.reason or quote.price_text or ""
        person = "; you may solve the check in its window" if self._tab.wall is not None else ""
        print(f"\r\033[K{self._since_start:3.0f} s  {quote.state} {told}{person}", end="", file=sys.stderr, flush=True)


def _how_it_runs(browser: Browser, launcher: Launcher) -> str:
    mode = "headed" if launcher.headed else "headless"
    without = "" if launcher.sandbox is None or launcher.sandbox.is_on else ", without its sandbox"
    return f"Chromium {browser.version}, {mode}{without}"


def _header_of(page: Page) -> str:
    """The markup of the header with the ticker; empty without one."""
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


def main(arguments: list[str]) -> int:
    options, settings = read_options(arguments)
    forget_secrets()
    logging.getLogger().addHandler(logging.NullHandler())
    host = urlsplit(settings.source_url).netloc
    print(f"Watching the page of {options.ticker} at {host}, for up to 2 minutes…", file=sys.stderr)
    try:
        record = examine(options.ticker, settings, options.seconds)
    except KeyboardInterrupt:
        return INTERRUPTED
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    verdict = judge(record.seen)
    print(verdict)
    if options.report:
        try:
            Report(verdict, record).write(Path(options.report))
        except OSError as error:
            print(f"doctor: {options.report} can't be written: {error.strerror}", file=sys.stderr)
            return 1
        print(f"\n{options.report} is written. {CONTENTS}")
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
