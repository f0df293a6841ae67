"""A scraper in the test's own process, with a real Chromium, and all that it has told. Its patience is shortened."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import psutil
from playwright.sync_api import Error as BrowserError
from running import descendants, wait_until

from quotes import Quote, SourceState, State, Ticker, steady_ms
from scraper import Scraper, ScraperSettings, Session
from tradingview.group import Group
from tradingview.patience import Patience
from tradingview.tab import Tab

LESS_PATIENT = Patience(
    first_price=5.0,
    first_price_in_all=20.0,
    recognised=4.0,
    passing=2.0,
    settled=1.0,
    pulse=0.5,
    frozen=4.0,
    heap_check=1.0,
    ping=0.5,
    weigh=1.0,
    good_session=0.5,
    not_found_retry=1.0,
    blocked_retry=1.0,
    blocked_spacing=0.3,
)
Lines = list[str]

RENDERER, BROWSER, DRIVER = "--type=renderer", "--remote-debugging-pipe", "run-driver"
START_LIMIT_S, END_LIMIT_S = 40.0, 10.0  # for a scraper, and all that it starts
WAIT_LIMIT_S = 40.0  # for what a page becomes; a slow machine may need most of it


@dataclass(frozen=True)
class Look:
    """A condition to wait for. Its text is what is there instead, when the wait ends."""

    condition: Callable[[], Any]
    instead: Callable[[], object]

    def __call__(self) -> Any:
        return self.condition()

    def __str__(self) -> str:
        return str(self.instead())


class Watched:
    """A running scraper, and everything that it has emitted, without renewals: they only prolong a proof."""

    def __init__(self, settings: ScraperSettings, patience: Patience) -> None:
        self.quotes: list[Quote] = []
        self.now: dict[str, Quote] = {}
        self.scraper = Scraper(settings, self._emit, patience)
        self.counters = self.scraper.counters

    def _emit(self, quote: Quote) -> None:
        assert threading.current_thread().name == "scraper"
        if quote != self.now.get(quote.ticker):
            self.quotes.append(quote)
        self.now[quote.ticker] = quote

    def wait_for(
        self, ticker: str, state: State, timeout: float = WAIT_LIMIT_S, *, reason: str = "", after: int = 0
    ) -> Quote:
        """The first quote in this state, with this in its reason, since `after` quotes had been emitted."""

        def found() -> Quote | None:
            quotes = (quote for quote in self.quotes[after:] if quote.ticker == ticker and quote.state is state)
            return next((quote for quote in quotes if reason in (quote.reason or "")), None)

        quote: Quote = wait_until(
            Look(found, lambda: f"{ticker}: {state} {reason}, not {self.now.get(ticker)}"), timeout
        )
        return quote

    def wait_until_live(self, *tickers: str, timeout: float = WAIT_LIMIT_S) -> None:
        def all_live() -> bool:
            quotes = [self.now.get(ticker) for ticker in tickers]
            return all(quote is not None and quote.as_of(steady_ms()).state is State.LIVE for quote in quotes)

        wait_until(Look(all_live, lambda: f"all live, not {[self.now.get(ticker) for ticker in tickers]}"), timeout)

    def states_since(self, count: int, ticker: str) -> set[State]:
        return {quote.state for quote in self.quotes[count:] if quote.ticker == ticker}

    @contextmanager
    def tracking(self, *tickers: str) -> Iterator[None]:
        for ticker in tickers:
            self.scraper.add(Ticker(ticker))
        try:
            yield
        finally:
            for ticker in tickers:
                self.scraper.remove(Ticker(ticker))

    def run_in_page(self, ticker: str, script: str) -> Any:
        """What the script gives in the ticker's page. Raises BrowserError if it fails there."""
        results = SimpleQueue[Any]()
        page = self.tab(ticker).page
        assert page is not None

        def run() -> None:
            try:
                results.put(page.evaluate(script))
            except BrowserError as error:
                results.put(error)

        self.session.loop.call(run)
        result = results.get(timeout=20)
        if isinstance(result, BrowserError):
            raise result
        return result

    def crash(self, ticker: str) -> None:
        """Kills the renderer that shows this ticker; the call itself never returns."""
        self.session.loop.call(self.tab(ticker).ask, "Page.crash")

    def tab(self, ticker: str) -> Tab:
        return self.session.tabs[Ticker(ticker)]

    def group(self, ticker: str) -> Group:
        return self.session.groups.of(self.tab(ticker))

    @property
    def session(self) -> Session:
        assert self.scraper.session is not None
        return self.scraper.session


@contextmanager
def scraping(url: str, patience: Patience = LESS_PATIENT, **settings: Any) -> Iterator[Watched]:
    """A scraper whose browser has started. At the end nothing is left of it."""
    settings.setdefault("opening_spacing", 0.05)
    watched = Watched(ScraperSettings(url, os.environ.get("PLUTO_BROWSER"), **settings), patience)
    watched.scraper.start()
    try:
        wait_until(lambda: watched.scraper.session, START_LIMIT_S, what="its browser has started")
        yield watched
    finally:
        processes = processes_of(watched, "")
        watched.scraper.stop(timeout=END_LIMIT_S)
        wait_until(lambda: watched.scraper.state is SourceState.DEAD, what="its thread has ended")
        wait_until_ended(processes)


@contextmanager
def warnings_of(logger: str) -> Iterator[Lines]:
    """What is logged inside as a warning or worse, in any thread."""
    lines: Lines = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(logger).removeHandler(handler)


def is_of(process: psutil.Process, *marks: str) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return any(mark in part for part in command for mark in marks)


def wait_until_ended(processes: list[psutil.Process]) -> None:
    assert psutil.wait_procs(processes, timeout=END_LIMIT_S)[1] == []


def send_signal(number: signal.Signals, processes: list[psutil.Process]) -> None:
    """To those that still run."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def processes_of(watched: Watched, mark: str) -> list[psutil.Process]:
    """The driver itself, the browser, or its renderers, of this scraper; all with an empty mark. Parents come first."""
    driver = None if watched.scraper._driver is None else watched.scraper._driver.process
    family = [] if driver is None else [driver, *descendants(driver.pid)]
    found = [process for process in family if is_of(process, mark)]
    return [process for process in found if mark is not BROWSER or not is_of(process, "--type=")]
