"""A scraper in the test's own process, with a real Chromium, and all that it has told. Its patience is shortened."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import psutil
from running import descendants, wait_until

from quotes import Quote, SourceState, State, Ticker, steady_ms
from scraper import Scraper, ScraperSettings, Session
from tradingview.group import Group
from tradingview.patience import Patience
from tradingview.tab import Tab

LESS_PATIENT = Patience(
    answer=3.0,
    first_price=5.0,
    first_price_in_all=20.0,
    recognised=4.0,
    passing=2.0,
    settled=1.0,
    pulse=0.5,
    frozen=4.0,
    heap_check=1.0,
    ping=0.5,
    ping_limit=4.0,
    weigh=1.0,
    good_session=0.5,
    not_found_retry=1.0,
    blocked_retry=1.0,
    blocked_spacing=0.3,
)
Lines = list[str]
starting = threading.Lock()

RENDERER, BROWSER, DRIVER = "--type=renderer", "--remote-debugging-pipe", "run-driver"


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

    def wait_for(self, ticker: str, state: State, timeout: float = 20.0, *, reason: str = "", after: int = 0) -> Quote:
        """The first quote in this state, with this in its reason, since `after` quotes had been emitted."""

        def found() -> Quote | None:
            quotes = (quote for quote in self.quotes[after:] if quote.ticker == ticker and quote.state is state)
            return next((quote for quote in quotes if reason in (quote.reason or "")), None)

        quote = wait_until(found, timeout, what=f"{ticker} is {state} {reason}, not {self.now.get(ticker)}")
        assert quote is not None
        return quote

    def wait_until_live(self, *tickers: str, timeout: float = 20.0) -> None:
        def all_live() -> bool:
            quotes = [self.now.get(ticker) for ticker in tickers]
            return all(quote is not None and quote.as_of(steady_ms()).state is State.LIVE for quote in quotes)

        wait_until(all_live, timeout, what=f"all live: {self.now}")

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
        """What the script gives in the ticker's page."""
        results = SimpleQueue[Any]()
        page = self.tab(ticker).page
        assert page is not None
        self.session.loop.call(lambda: results.put(page.evaluate(script)))
        return results.get(timeout=10)

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


class Stories:
    """What becomes of some pages: functions that are tests, but for their fixtures.

    All are told at the same time, because they wait more than they compute.
    """

    def __init__(self) -> None:
        self.all: list[Callable[..., None]] = []

    def __call__(self, story: Callable[..., None]) -> Callable[..., None]:
        self.all.append(story)
        return story

    def tell(self, *arguments: Any) -> dict[Callable[..., None], Future[None]]:
        """Their outcomes, when all have ended."""
        with ThreadPoolExecutor(len(self.all)) as pool:
            return {story: pool.submit(story, *arguments) for story in self.all}


@contextmanager
def scraping(url: str, patience: Patience = LESS_PATIENT, **settings: Any) -> Iterator[Watched]:
    settings.setdefault("opening_spacing", 0.05)
    watched = Watched(ScraperSettings(url, os.environ.get("PLUTO_BROWSER"), **settings), patience)
    watched.scraper.start()
    try:
        yield watched
    finally:
        processes = processes_of(watched, "")
        watched.scraper.stop(timeout=10)
        assert watched.scraper.state is SourceState.DEAD
        assert psutil.wait_procs(processes, timeout=3)[1] == []


@contextmanager
def scraping_beside(url: str, patience: Patience = LESS_PATIENT, **settings: Any) -> Iterator[Watched]:
    """The same beside others that start now: each sets the environment of this process, so they take turns."""
    with ExitStack() as stack:
        with starting:
            watched = stack.enter_context(scraping(url, patience, **settings))
            wait_until(lambda: watched.scraper.session, timeout=30, what="its browser has started")
        yield watched


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


def processes_of(watched: Watched, mark: str) -> list[psutil.Process]:
    """The driver itself, the browser, or its renderers, of this scraper; all with an empty mark."""
    driver = None if watched.scraper._driver is None else watched.scraper._driver.process
    family = [] if driver is None else [driver, *descendants(driver.pid)]
    found = [process for process in family if is_of(process, mark)]
    return [process for process in found if mark is not BROWSER or not is_of(process, "--type=")]
