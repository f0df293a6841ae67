"""The scraper layer: one TradingView page per ticker in a real Chromium, and every price those pages show.

This file owns the browser, its pages, and how each comes back after a failure.
It imports neither Flask nor gevent and knows nothing of clients: quotes leave through one callable, `emit`.

Threads: `Scraper`'s public methods may be called from any thread; all else runs on the scraper thread, which sleeps in
one Playwright call while events, commands and the tick run as greenlets inside that thread's event loop. A sync
Playwright call made in a bare loop callback would hang, so `Session._soon` is the only way in.

    Scraper   the thread, the wanted tickers, starting the browser again when it ends
    Session   one life of the browser: its groups and tabs, reconciled with the wanted tickers
    Group     one browser context: its tabs share a renderer, a main thread and a crash
    Tab       one open page and its channel

What is believed of what pages tell is decided in feed.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import psutil
from greenlet import greenlet
from playwright.sync_api import BrowserContext, CDPSession, Dialog, Page, Playwright, sync_playwright
from playwright.sync_api import Error as BrowserError

from quotes import PlutoError, Quote, State, Ticker, steady_ms
from tradingview.browser import environment, launch, temporary_folder, temporary_root
from tradingview.feed import Feed, PageTrouble, Trouble, printable
from tradingview.probe import probe_script
from tradingview.site import BINDING, COOKIE_CHOICE, COOKIE_NAME, page_url
from watchlist import Change

log = logging.getLogger("pluto.scraper")

PULSE_S = 2.0  # how often the probe says that its page is running
SILENCE_LIMIT_S = 6.0  # a page silent for this long is frozen
FROZEN_LIMIT_S = 12.0  # a page that stays frozen after its script was stopped is opened again
RELOAD_MEMORY_S = 600.0  # a page that freezes again this soon after it was reloaded is replaced
SETTLED_S = 5.0  # a page that has shown prices for this long has done well
GOOD_SESSION_S = 5.0  # and a browser
PRICE_DEADLINE_S = 20.0  # a page that shows no readable price by then is unreadable
GOTO_TIMEOUT_S = 20.0
OPENING_LIMIT_S = 45.0  # for all that comes before a page's first document
TICK_S = 1.0
PING_S, PING_LIMIT_S = 3.0, 20.0  # the browser is asked this often for its processes, and hangs if it takes this long
END_GRACE_S = 0.1  # for processes to follow a browser that has ended; then they are killed
WEIGH_S = 60.0  # how often memory is looked at
MAX_OPENING = 4  # pages that wait for their first document at once
# Pages that have no price yet at once: more would only keep each other from the processor, and all come late.
MAX_LOADING = 3 * (os.cpu_count() or 1)
LOADING_S = 3.0  # a page that takes longer than this is in nobody's way
MAX_MESSAGE = 64 * 1024  # characters of one message of the probe

# What a page may cause us, a second and at once. Events are all that we read of it: 1 each, and 1 more per 16 KiB;
# a frame costs the whole renderer as much as many. A busy symbol has 20 a second.
# Disturbances are windows, dialogs, downloads, and leaving or loading itself again.
FLOOD_RATE, FLOOD_BURST, EVENT_SIZE, FRAME_COST = 200.0, 600.0, 16 * 1024, 5.0
DISTURBANCE_RATE, DISTURBANCE_BURST = 0.1, 20.0
HEAP_CHECK_S = 10.0
HEAP_PARTS = ("totalSize", "embedderHeapUsedSize", "backingStorageSize")  # script's, the document's, and buffers
HEAP_EXCESS = 600.0  # MB by which a renderer may exceed its pages' share before it is given up

RETRY_FIRST_S, RETRY_LIMIT_S = 1.0, 60.0
NOT_FOUND_RETRY_S = 600.0
BLOCKED_RETRY_S, BLOCKED_LIMIT_S = 120.0, 1800.0
BLOCKED_SPACING_S = 2.0  # after a refusal the next page opens this much later, twice that after the next
SPACING_LIMIT_S = 60.0
RECYCLE_RETRY_S = 600.0

# What Chromium calls a failed request, in a user's words.
NETWORK_ERRORS = {
    "ERR_NAME_NOT_RESOLVED": "its name is not resolved",
    "ERR_CONNECTION_REFUSED": "the connection was refused",
    "ERR_CONNECTION_RESET": "the connection was reset",
    "ERR_CONNECTION_CLOSED": "the connection was closed",
    "ERR_INTERNET_DISCONNECTED": "there is no network",
    "ERR_NETWORK_CHANGED": "the network changed",
    "ERR_TIMED_OUT": "it doesn't answer",
    "ERR_CONNECTION_TIMED_OUT": "it doesn't answer",
    "ERR_PROXY_CONNECTION_FAILED": "the proxy can't be reached",
    "ERR_TUNNEL_CONNECTION_FAILED": "the proxy refused",
    "ERR_EMPTY_RESPONSE": "it sent an empty answer",
    "ERR_TOO_MANY_REDIRECTS": "it sends the page round in circles",
    "ERR_UNSAFE_REDIRECT": "it sent the page where no web page may go",
}


class BrowserEnded(PlutoError):
    code = "browser_ended"


@dataclass(frozen=True)
class ScraperSettings:
    """`source_url` has no trailing slash; `browser` is a path or None; `simulated` marks every quote from the start.

    `group_size` is how many tickers share a renderer, `opening_spacing` the seconds between two openings,
    `page_max_age` the hours after which a page is renewed. `page_max_heap` (a page's share of its renderer's heap) and
    `browser_max_memory` (PSS of all the browser's processes) are in MB.
    """

    source_url: str = "https://www.tradingview.com"
    browser: str | None = None
    headed: bool = False
    simulated: bool = False
    group_size: int = 16
    opening_spacing: float = 0.1
    page_max_age: float = 6.0
    page_max_heap: float = 150.0
    browser_max_memory: float = 6000.0

    @property
    def host(self) -> str:
        return urlsplit(self.source_url).netloc


# --- one life of the browser ------------------------------------------------------------------------------------------


class TokenBucket:
    """So much at once, and so much a second after that."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._filled_at = time.monotonic()

    def take(self, cost: float = 1.0) -> bool:
        """Whether that much was left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate) - cost
        self._filled_at = now
        return self._left >= 0


@dataclass(eq=False)
class Group:
    """A context, None while it is being made. Nothing is opened any more in one that retires.

    One that is apart has a single tab, of a ticker whose page was cut off before.
    """

    context: BrowserContext | None = None
    tabs: set[Tab] = field(default_factory=set)
    is_retiring: bool = False
    is_apart: bool = False
    is_tidy: bool = True  # what opening left behind has been collected
    stopped_at: float | None = None  # when an endless loop in it was stopped last


@dataclass(eq=False)
class Tab:
    """One page and its channel. Times are monotonic seconds; `began_at` is None until its first document is there."""

    feed: Feed
    group: Group
    page: Page | None = None
    channel: CDPSession | None = None
    frame_id: str = ""  # of the page itself, not of a frame in it
    born_at: float = field(default_factory=time.monotonic)
    began_at: float | None = None
    heard_at: float = 0.0
    reloaded_at: float = float("-inf")
    renew_at: float = float("-inf")  # no renewal before: the last one failed
    refused_host: str = ""  # where it was sent and not let go
    is_closed: bool = False
    events: TokenBucket = field(default_factory=lambda: TokenBucket(FLOOD_RATE, FLOOD_BURST))
    disturbances: TokenBucket = field(default_factory=lambda: TokenBucket(DISTURBANCE_RATE, DISTURBANCE_BURST))


class Session:
    """One life of the browser: groups of tabs that are kept in step with the wanted tickers."""

    def __init__(self, playwright: Playwright, scraper: Scraper) -> None:
        self._playwright = playwright
        self._scraper = scraper
        self._settings = scraper.settings
        self._counters = scraper.counters
        self._control: BrowserContext | None = None  # stays empty; the thread sleeps until it closes
        self._watch: CDPSession | None = None  # the browser's own channel
        self._groups: list[Group] = []
        self._tabs: dict[Ticker, Tab] = {}
        self._successor: Tab | None = None  # opened to take the place of an old one; one at a time
        self._end_reason = "it ended by itself"
        self._pids: set[int] = set()
        self._asked_at: float | None = None  # when the browser was asked something it hasn't answered yet
        self._ticked_at = time.monotonic()
        self._slept = _slept_s()
        self._next_opening_at = 0.0
        self._opening_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        # Calls that are under way when the browser ends have nobody left to take their errors.
        self._loop.set_exception_handler(lambda _, context: log.debug("%s", context["message"]))

    def run(self) -> None:
        """Starts the browser and returns when `Scraper.stop` was called; raises BrowserEnded when it ends otherwise."""
        self._soon(self._tick)
        browser = launch(self._playwright, self._settings.browser, headed=self._settings.headed)
        try:
            self._watch = browser.new_browser_cdp_session()
            self._ping()
            self._browser, self._control = browser, browser.new_context()
            self._scraper.on_session(self)
            self._soon(self._reconcile if self._scraper.wanted_feeds() else self._check_source)
            self._loop.call_later(WEIGH_S, self._soon, self._weigh)
            self._loop.call_later(HEAP_CHECK_S, self._soon, self._check_heaps)
            with suppress(BrowserError):
                self._control.wait_for_event("close", timeout=0)
            if not self._scraper.stopping:
                self._scraper.doubt_all(self._end_reason)
        finally:
            self._control = None
            with suppress(BrowserError):
                browser.close()
        if not self._scraper.stopping:
            raise BrowserEnded(self._end_reason)

    def _new_context(self) -> BrowserContext:
        """Pages in en-US and UTC, whatever the machine's: prices are parsed in that locale only."""
        agent = (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/{self._browser.version.partition('.')[0]}.0.0.0 Safari/537.36"
        )
        context = self._browser.new_context(
            viewport={"width": 1280, "height": 800},
            locale="en-US",
            timezone_id="UTC",
            user_agent=agent,
            service_workers="block",
            accept_downloads=False,
        )
        context.add_cookies([{"name": COOKIE_NAME, "value": COOKIE_CHOICE, "url": self._settings.source_url}])
        return context

    def _check_source(self) -> None:
        """Says so once, when the pages' host can't be reached: there is no ticker yet to say it."""
        if self._control is None:
            return
        page = self._control.new_page()
        try:
            page.goto(f"{self._settings.source_url}/robots.txt", timeout=GOTO_TIMEOUT_S * 1000)
        except BrowserError as error:
            if not self._scraper.stopping and self._control is not None:
                log.warning("%s; its prices come as soon as it can be", self._network_reason(error))
        page.close()

    # Greenlets of the loop.

    def wake(self) -> None:
        """Any thread: the wanted tickers changed, or the end was asked for."""
        with suppress(RuntimeError):  # the loop is closed: the next session reconciles from the start
            self._loop.call_soon_threadsafe(self._spawn, self._reconcile)

    def _soon(self, work: Callable[..., None], *arguments: object) -> None:
        """Inside the loop: runs work that may call Playwright. Not at once: who calls may be a greenlet itself."""
        self._loop.call_soon(self._spawn, work, *arguments)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        """No error may escape: it would resurface in somebody else's call."""

        def body() -> None:
            try:
                work(*arguments)
            except BrowserError as error:
                log.debug("%s: %s", work.__name__, _first_line(error))
            except Exception:
                log.exception("%s failed", work.__name__)

        greenlet(body).switch()

    # Once a second: what nobody tells.

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._spawn, self._tick)
        now = self._scraper.last_tick = time.monotonic()
        if self._control is None:
            return
        self._notice_sleep()
        if now - self._ticked_at > 3 * TICK_S:  # we were late ourselves: what we haven't heard may be waiting
            self._excuse_silence(now)
        self._ticked_at = now
        self._check_hang(now)
        for group in list(self._groups):
            self._check_frozen(group, now)
            self._tidy(group, now)
        for tab in list(self._tabs.values()):
            self._check_price(tab, now)
        self._renew(now)
        self._reconcile()

    def _notice_sleep(self) -> None:
        slept = _slept_s()
        if slept - self._slept > 1:
            log.warning("this computer was asleep for %.0f s", slept - self._slept)
            self._counters["sleeps"] += 1
            self._excuse_silence(time.monotonic())
            self._scraper.doubt_all("this computer was asleep", slept=True)
        self._slept = slept

    def _excuse_silence(self, now: float) -> None:
        self._asked_at = None if self._asked_at is None else now
        for tab in self._tabs.values():
            tab.heard_at = now

    def _check_hang(self, now: float) -> None:
        """A stopped browser or driver says nothing at all, so it is asked, and killed when it doesn't answer."""
        if self._asked_at is not None and now - self._asked_at > PING_LIMIT_S:
            self._asked_at = None
            self._end_reason = "it hung and was killed"
            self._counters["browser_hangs"] += 1
            self._scraper.kill_driver()

    def _ping(self) -> None:
        assert self._watch is not None
        self._asked_at = time.monotonic()
        processes = self._watch.send("SystemInfo.getProcessInfo")["processInfo"]
        self._asked_at = None
        self._pids = {process["id"] for process in processes}
        self._loop.call_later(PING_S, self._spawn, self._ping)

    def _check_frozen(self, group: Group, now: float) -> None:
        """Tabs of a group share a main thread: an endless loop in one silences all, and one order ends it.

        A page that has said nothing since it began is still loading, and says nothing about the others either.
        """
        begun = [tab for tab in group.tabs if tab.began_at is not None]
        silent = [tab for tab in begun if now - tab.heard_at > SILENCE_LIMIT_S]
        speaking = [tab for tab in begun if tab not in silent and tab.heard_at != tab.began_at]
        for tab in silent:
            tab.feed.doubt("the page is frozen")
            self._scraper.tell(tab.feed)
        if silent and not speaking:
            self._check_loop(group, silent, now)
            return
        for tab in silent:
            if now - tab.heard_at > FROZEN_LIMIT_S:
                self._reload(tab, now)

    def _check_loop(self, group: Group, silent: list[Tab], now: float) -> None:
        """All is silent in a group: first the script that runs there is stopped, then the group is given up."""
        if group.stopped_at is None or now - group.stopped_at > FROZEN_LIMIT_S:
            group.stopped_at = now
            self._counters["pages_frozen"] += len(silent)
            names = ", ".join(sorted(tab.feed.ticker for tab in silent))
            log.warning("%s: frozen, the script that runs there is stopped", names)
            # V8 ends an endless loop at this order even while the page's main thread is busy.
            self._soon(self._ask, silent[0], "Runtime.terminateExecution")
        elif all(now - tab.heard_at > FROZEN_LIMIT_S for tab in silent):
            self._drop(group, "the page is frozen")

    def _ask(self, tab: Tab, order: str) -> None:
        if tab.channel is not None:
            tab.channel.send(order)

    def _drop(self, group: Group, reason: str) -> None:
        """Gives up a whole renderer: closing the context kills even one that hangs."""
        group.is_retiring = True
        for tab in list(group.tabs):
            self._fail(tab, PageTrouble(State.ERROR, reason, delay=_delay_of_accident(tab.feed)))

    def _reload(self, tab: Tab, now: float) -> None:
        """A page that froze is loaded again once; when that was of no use, another takes its place."""
        if now - tab.reloaded_at < RELOAD_MEMORY_S:
            self._cut_off(tab, "the page freezes again and again")
            return
        self._counters["pages_reloaded"] += 1
        log.warning("%s: the page froze, it is loaded again", tab.feed.ticker)
        tab.reloaded_at = tab.heard_at = now
        self._soon(self._visit, tab)

    def _check_price(self, tab: Tab, now: float) -> None:
        if tab.began_at is None:
            if now - tab.born_at > OPENING_LIMIT_S:
                self._fail(tab, PageTrouble(State.ERROR, "the page could not be opened: the browser doesn't get to it"))
            return
        tab.feed.choose(steady_ms(), _wall_ms())
        self._scraper.tell(tab.feed)
        if tab.page is not None and tab.page.is_closed():
            self._fail(tab, PageTrouble(State.ERROR, "the page closed itself"))
        elif not tab.feed.has_price and now - tab.began_at > PRICE_DEADLINE_S:
            no_price = PageTrouble(State.ERROR, "the page shows no price that can be read")
            self._fail(tab, tab.feed.refusal or no_price)
        elif tab.feed.has_price and now - tab.began_at > SETTLED_S:
            tab.feed.failures = 0

    # Renewal: long-lived pages grow.

    def _weigh(self) -> None:
        self._loop.call_later(WEIGH_S, self._spawn, self._weigh)
        weight = sum(_memory_mb(pid) for pid in self._pids)
        if weight > self._settings.browser_max_memory:
            self._end_reason = f"it took {weight:.0f} MB and is started anew"
            self._counters["browser_too_big"] += 1
            if self._control is not None:
                self._control.close()

    def _check_heaps(self) -> None:
        self._loop.call_later(HEAP_CHECK_S, self._spawn, self._check_heaps)
        for group in list(self._groups):
            tab = next((tab for tab in group.tabs if tab.channel is not None and tab.began_at is not None), None)
            if tab is not None:
                self._soon(self._check_heap, group, tab.channel)

    def _check_heap(self, group: Group, channel: CDPSession) -> None:
        """A renderer that has grown is renewed; one that grows at once, nobody knows by which page, is given up."""
        usage = channel.send("Runtime.getHeapUsage")
        share = self._settings.page_max_heap * max(1, len(group.tabs))
        group.is_retiring |= usage["totalSize"] / 1e6 > share
        heap = sum(usage.get(part, 0) for part in HEAP_PARTS) / 1e6
        if heap > share + HEAP_EXCESS:
            for tab in list(group.tabs):
                self._cut_off(tab, f"the page's renderer took {heap:.0f} MB")

    def _tidy(self, group: Group, now: float) -> None:
        """Collects once what the opening of its pages left behind, a third of the heap; idle pages wouldn't soon."""
        has_settled = all(tab.began_at is not None and now - tab.began_at > SETTLED_S for tab in group.tabs)
        if has_settled and not group.is_tidy and (tab := next(iter(group.tabs), None)) is not None:
            group.is_tidy = True
            self._soon(self._ask, tab, "HeapProfiler.collectGarbage")

    def _renew(self, now: float) -> None:
        """Opens a page beside one whose group is too old or too big; it takes over once it is live."""
        if self._successor is not None:
            if now - self._successor.born_at > PRICE_DEADLINE_S:
                self._fail(self._successor, PageTrouble(State.ERROR, "the page that was to take over shows no price"))
            return
        for ticker, tab in self._tabs.items():
            tab.group.is_retiring |= now - tab.born_at > self._settings.page_max_age * 3600
            if tab.group.is_retiring and tab.feed.has_price and now > tab.renew_at and self._may_open():
                feed = Feed(ticker, simulated=self._settings.simulated, counters=self._counters)
                self._successor = self._begin(feed)
                return

    def _take_over(self, tab: Tab) -> None:
        """The successor is live: from this moment it is the ticker's page."""
        old = self._tabs[tab.feed.ticker]
        self._successor = None
        tab.feed.succeed(old.feed)
        if not self._scraper.replace(old.feed, tab.feed):
            self._close(tab)
            return
        self._tabs[tab.feed.ticker] = tab
        self._counters["pages_recycled"] += 1
        log.info("%s: its page was renewed", tab.feed.ticker)
        self._close(old)

    # Opening and closing.

    def _reconcile(self) -> None:
        if self._control is None:
            return
        if self._scraper.stopping:
            self._control.close()
            return
        feeds = self._scraper.wanted_feeds()
        for ticker in [ticker for ticker, tab in self._tabs.items() if feeds.get(ticker) is not tab.feed]:
            self._drop_successor(ticker)
            self._close(self._tabs.pop(ticker))
        waiting = [feed for ticker, feed in feeds.items() if ticker not in self._tabs]
        for feed in sorted(waiting, key=lambda feed: feed.due_at):  # who failed waits behind who was never tried
            if feed.due_at > steady_ms() or not self._may_open() or (tab := self._begin(feed)) is None:
                return
            self._tabs[feed.ticker] = tab

    def _may_open(self) -> bool:
        """Pages open with some spacing and few at a time: nobody is hammered, and the first price comes soon."""
        wait = self._next_opening_at - self._loop.time()
        if wait > 0:
            if self._opening_timer is None or self._opening_timer.when() <= self._loop.time():
                self._opening_timer = self._loop.call_later(wait, self._spawn, self._reconcile)
            return False
        tabs = [tab for group in self._groups for tab in group.tabs]
        opening = sum(tab.began_at is None for tab in tabs)
        loading = sum(not tab.feed.has_price and time.monotonic() - tab.born_at < LOADING_S for tab in tabs)
        return opening < MAX_OPENING and loading < MAX_LOADING

    def _begin(self, feed: Feed) -> Tab | None:
        """A tab that starts to open, in a group with room; None while a new group is being made."""
        if any(group.context is None for group in self._groups):
            return None
        group = self._group_with_room(feed)
        tab = Tab(feed, group)
        group.tabs.add(tab)
        group.is_tidy = False
        self._next_opening_at = self._loop.time() + self._scraper.spacing
        self._soon(self._open, tab)
        return tab

    def _group_with_room(self, feed: Feed) -> Group:
        """The emptiest of as few groups as hold all tickers: so that several renderers share the work of opening.

        A ticker whose page was cut off gets one of its own.
        """
        is_apart = feed.cut_offs > 0
        sharing = sum(feed.cut_offs == 0 for feed in self._scraper.wanted_feeds().values())
        needed = math.ceil(sharing / self._settings.group_size)
        groups = [group for group in self._groups if not group.is_retiring and not group.is_apart]
        if is_apart or len(groups) < needed or not groups:
            self._groups.append(group := Group(is_apart=is_apart))
            return group
        return min(groups, key=lambda group: len(group.tabs))

    def _open(self, tab: Tab) -> None:
        self._counters["pages_opened"] += 1
        tab.feed.reopen()
        self._scraper.tell(tab.feed)
        try:
            if (context := tab.group.context) is None:
                context = tab.group.context = self._new_context()
                self._soon(self._reconcile)
            page = tab.page = context.new_page()
            page.on("crash", lambda _: self._on_crash(tab))
            self._refuse(tab, page)
            self._attach(tab, page, context.new_cdp_session(page))
            self._visit(tab)
        except BrowserError as error:
            self._fail(tab, PageTrouble(State.ERROR, self._network_reason(error)))
        if tab.is_closed:  # while it was being opened
            self._release(tab)

    def _attach(self, tab: Tab, page: Page, channel: CDPSession) -> None:
        slim = not self._settings.headed
        rate = 5 * FLOOD_RATE
        script = probe_script(tab.feed.symbol, slim=slim, pulse=PULSE_S, max_message=MAX_MESSAGE, max_rate=rate)
        page.add_init_script(script)
        channel.on("Runtime.bindingCalled", lambda event: self._on_message(tab, event))
        channel.on("Fetch.requestPaused", lambda event: self._soon(self._on_document, tab, event))
        for name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            channel.on(name, lambda event: self._on_event(tab, 1 + len(str(event)) / EVENT_SIZE))
        channel.on("Runtime.executionContextCreated", lambda _: self._on_event(tab, FRAME_COST))
        channel.send("Runtime.enable")
        channel.send("Runtime.addBinding", {"name": BINDING})
        stages = [{"resourceType": "Document", "requestStage": stage} for stage in ("Request", "Response")]
        channel.send("Fetch.enable", {"patterns": stages})
        tab.frame_id = channel.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        tab.channel = channel

    def _visit(self, tab: Tab) -> None:
        if tab.page is None:  # it was given up meanwhile
            return
        url = page_url(self._settings.source_url, tab.feed.ticker)
        tab.refused_host = ""
        try:
            tab.page.goto(url, wait_until="commit", timeout=GOTO_TIMEOUT_S * 1000)
            tab.began_at = tab.heard_at = time.monotonic()
        except BrowserError as error:
            self._fail(tab, self._visit_trouble(tab, error))
        self._reconcile()

    def _visit_trouble(self, tab: Tab, error: BrowserError) -> PageTrouble:
        if tab.refused_host:
            reason = f"asked {self._settings.host}, was sent to {tab.refused_host}"
            return PageTrouble(State.ERROR, reason, void_price=True)
        return PageTrouble(State.ERROR, self._network_reason(error))

    def _network_reason(self, error: BrowserError) -> str:
        host, text = self._settings.host, _first_line(error)
        if found := re.search(r"net::(ERR_\w+)", text):
            return f"{host} can't be reached: {NETWORK_ERRORS.get(found[1], found[1])}"
        if "Timeout" in text:
            return f"{host} can't be reached: no answer within {GOTO_TIMEOUT_S:.0f} s"
        return f"the page could not be opened: {text}"

    def _on_document(self, tab: Tab, event: dict[str, Any]) -> None:
        """A document, of the page or of a frame in it, is asked for or answered: the one place where it is judged."""
        if tab.is_closed or tab.channel is None:
            return
        request = {"requestId": event["requestId"]}
        is_page = event["frameId"] == tab.frame_id
        host = urlsplit(event["request"]["url"]).netloc
        if host != self._settings.host or not (is_page or self._settings.headed):
            self._count_refused_document(tab, printable(host) if is_page else "")
            tab.channel.send("Fetch.failRequest", {**request, "errorReason": "Aborted"})
            return
        try:
            if is_page and (status := event.get("responseStatusCode")) is not None:
                _judge(status, {header["name"].lower(): header["value"] for header in event["responseHeaders"]})
        except PageTrouble as trouble:
            self._fail(tab, trouble)
        else:
            tab.channel.send("Fetch.continueRequest", request)

    # What a page may not do, and how much of the rest.

    def _count_refused_document(self, tab: Tab, host: str) -> None:
        """Pages may show many frames, which are advertisements, but have nowhere to go; `host` is empty for a frame."""
        tab.refused_host = host
        if host:
            self._disturb(tab, "navigations_refused", "the page keeps leaving")
        else:
            self._counters["frames_refused"] += 1
            self._on_event(tab, 1)

    def _refuse(self, tab: Tab, page: Page) -> None:
        """Windows, dialogs and downloads; those of a window that it opened are its own."""
        page.on("popup", lambda popup: self._on_popup(tab, popup))
        page.on("dialog", lambda dialog: self._on_dialog(tab, dialog))
        page.on("download", lambda _: self._disturb(tab, "downloads_refused", "the page keeps offering downloads"))

    def _on_popup(self, tab: Tab, popup: Page) -> None:
        self._refuse(tab, popup)
        self._soon(popup.close)
        self._disturb(tab, "popups_refused", "the page keeps opening windows")

    def _on_dialog(self, tab: Tab, dialog: Dialog) -> None:
        self._soon(dialog.accept if dialog.type == "beforeunload" else dialog.dismiss)
        self._disturb(tab, "dialogs_refused", "the page keeps opening dialogs")

    def _disturb(self, tab: Tab, counter: str, reason: str) -> None:
        self._counters[counter] += 1
        if not tab.is_closed and not tab.disturbances.take():
            self._cut_off(tab, reason)

    def _on_event(self, tab: Tab, cost: float) -> None:
        """All that we have to read because of a page."""
        if not tab.is_closed and not tab.events.take(cost):
            self._cut_off(tab, "the page floods")

    def _cut_off(self, tab: Tab, reason: str) -> None:
        """The end of a page that would hurt others: its ticker's next one waits, longer each time, and is apart."""
        self._counters["pages_cut_off"] += 1
        tab.feed.cut_offs += 1
        self._fail(tab, PageTrouble(State.ERROR, reason, delay=_backoff(tab.feed.cut_offs)))

    def _on_message(self, tab: Tab, event: dict[str, Any]) -> None:
        """A message of the probe. Runs in Playwright's dispatcher, so nothing may escape."""
        payload = event["payload"]
        self._on_event(tab, 1 + len(payload) / EVENT_SIZE)
        if event.get("name") != BINDING or tab.is_closed:
            return
        if len(payload) > MAX_MESSAGE:
            self._cut_off(tab, "the page's texts are too long")
            return
        self._counters["messages"] += 1
        self._notice_sleep()
        tab.heard_at = time.monotonic()
        had_price = tab.feed.has_price
        try:
            message = json.loads(payload)
            tab.feed.hear(message, steady_ms(), _wall_ms())
        except PageTrouble as trouble:
            self._fail(tab, trouble)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            self._counters["messages_malformed"] += 1
            log.debug("%s: malformed message: %s", tab.feed.ticker, printable(str(error)))
        else:
            self._after(tab, message["kind"])
            if tab.feed.has_price and not had_price:  # another page may load now
                self._soon(self._reconcile)

    def _after(self, tab: Tab, kind: str) -> None:
        if kind == "start" and tab.began_at is not None:
            tab.began_at = tab.heard_at
            self._disturb(tab, "pages_begun_again", "the page keeps loading itself again")
        stopped_at = tab.group.stopped_at
        if kind == "long" and stopped_at is not None and tab.heard_at - stopped_at < FROZEN_LIMIT_S:
            self._reload(tab, tab.heard_at)
        self._scraper.tell(tab.feed)
        if tab is self._successor and tab.feed.quote(steady_ms()).state is State.LIVE:
            self._take_over(tab)

    def _on_crash(self, tab: Tab) -> None:
        self._counters["pages_crashed"] += 1
        if tab.feed.failures:
            self._cut_off(tab, "the page crashes again and again")
        else:
            self._fail(tab, PageTrouble(State.ERROR, "the page crashed", delay=0.0))

    def _fail(self, tab: Tab, trouble: PageTrouble) -> None:
        """The one place where a page is given up: its ticker says why and when it is tried again."""
        ticker = tab.feed.ticker
        if tab is self._successor:
            log.warning("%s: its page is not renewed: %s", ticker, trouble.reason)
            self._drop_successor(ticker)
        elif self._tabs.get(ticker) is tab:
            self._drop_successor(ticker)
            del self._tabs[ticker]
            self._scraper.fail(tab.feed, trouble)
            self._close(tab)

    def _drop_successor(self, ticker: Ticker) -> None:
        tab = self._successor
        if tab is not None and tab.feed.ticker == ticker:
            self._successor = None
            self._tabs[ticker].renew_at = time.monotonic() + RECYCLE_RETRY_S
            self._close(tab)

    def _close(self, tab: Tab) -> None:
        """Closes the tab's page, soon: the caller may be a handler that Playwright waits for."""
        tab.is_closed = True
        tab.group.tabs.discard(tab)
        self._soon(self._release, tab)
        self._soon(self._reconcile)

    def _release(self, tab: Tab) -> None:
        group, page, tab.page = tab.group, tab.page, None
        if group.tabs:
            if page is not None:
                page.close()
            return
        if group in self._groups:
            self._groups.remove(group)
        context, group.context = group.context, None
        if context is not None:
            context.close()

    def end_processes(self) -> None:
        """After the end: kills what is left of the browser, such as a renderer that was stopped."""
        left = [process for pid in self._pids if (process := _browser_process(pid)) is not None]
        for process in psutil.wait_procs(left, timeout=END_GRACE_S)[1]:
            self._counters["processes_left"] += 1
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _judge(status: int, headers: dict[str, str]) -> None:
    """Raises PageTrouble for an answer that is no symbol page."""
    delay = _retry_after(headers.get("retry-after", ""))
    if status == 404:
        raise PageTrouble(State.NOT_FOUND, "TradingView has no such symbol (HTTP 404)", void_price=True)
    if status in (403, 429):
        raise PageTrouble(State.BLOCKED, f"TradingView refuses (HTTP {status})", delay=delay)
    if status >= 400:
        raise PageTrouble(State.ERROR, f"TradingView has a problem (HTTP {status})", delay=delay)


def _retry_after(text: str) -> float | None:
    """The seconds that an answer asks us to wait, given as such or as a date; an hour at most."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 1.0), 3600.0)


def _delay_of_accident(feed: Feed) -> float | None:
    """A page that did well opens again at once; one that fails again and again waits."""
    return 0.0 if feed.failures == 0 else None


def _browser_process(pid: int) -> psutil.Process | None:
    """The process, if it is one of the browser's; None if it has ended, or its number is somebody else's now."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return process if "--type=" in command or "--remote-debugging-pipe" in command else None


def _memory_mb(pid: int) -> float:
    """PSS, which counts shared memory once; where it can't be read, what a process has for itself."""
    with suppress(psutil.Error, AttributeError):
        process = psutil.Process(pid)
        try:
            return float(process.memory_full_info().pss / 1e6)
        except psutil.AccessDenied:
            memory = process.memory_info()
            return float(memory.rss - memory.shared) / 1e6
    return 0.0


# --- the thread -------------------------------------------------------------------------------------------------------


class Scraper:
    """Keeps one page open per wanted ticker, for as long as it runs, and emits a quote at every change.

    `emit` is called on the scraper thread with each new quote and must return at once. `last_tick` is the monotonic
    time at which the thread was last seen running, about once a second: where it stops, nothing told is current.
    """

    def __init__(self, settings: ScraperSettings, emit: Callable[[Quote], None]) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.stopping = False
        self.last_tick = time.monotonic()
        self.spacing = settings.opening_spacing  # grows with each refusal, shrinks with each page that is live
        self._emit = emit
        self._lock = threading.Lock()
        self._wanted: dict[Ticker, Feed] = {}  # changed by any thread, under the lock
        self._session: Session | None = None
        self._driver: psutil.Process | None = None
        self._was_live = False  # in this session
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def restart(self) -> None:
        """Any thread: a new thread in the place of one that died, for the same tickers. Theirs are doubted until then.

        The thread that died left its browser behind: that is killed.
        """
        self.kill_driver()
        self._session = None
        self.last_tick = time.monotonic()
        self.doubt_all("the scraper was started again")
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._thread.start()

    def tell_again(self) -> None:
        """Any thread: within a second every quote that is shown is emitted anew, whether it has changed or not."""
        for feed in self.wanted_feeds().values():
            feed.told = None

    def follow(self, change: Change) -> None:
        """The watchlist changed."""
        if change.is_tracked:
            self.add(change.ticker)
        else:
            self.remove(change.ticker)

    def add(self, ticker: Ticker) -> None:
        """Any thread: from now on this ticker has a page."""
        with self._lock:
            self._wanted.setdefault(ticker, Feed(ticker, simulated=self.settings.simulated, counters=self.counters))
        self._wake()

    def remove(self, ticker: Ticker) -> None:
        """Any thread: from now on this ticker has none."""
        with self._lock:
            self._wanted.pop(ticker, None)
        self._wake()

    def begin_stop(self) -> None:
        """Any thread: the browser ends soon, and its end is no news: Ctrl-C in a terminal may have ended it already."""
        self.stopping = True
        self._wake()

    def stop(self, timeout: float = 2.0) -> None:
        """Any thread but the scraper's: ends the browser and the thread; what doesn't end in `timeout` s is killed."""
        self.begin_stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("the browser doesn't end by itself and is killed")
        self.kill_driver()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    @property
    def has_browser(self) -> bool:
        return self._session is not None

    def _wake(self) -> None:
        if (session := self._session) is not None:
            session.wake()

    # The scraper thread's part.

    def _run(self) -> None:
        failures = 0
        while not self.stopping:
            started, self._was_live = time.monotonic(), False
            try:
                self._run_session()
            except (BrowserError, PlutoError, OSError) as error:
                reason = _session_reason(error)
            except Exception as error:
                log.exception("the browser's session failed")
                reason = _first_line(error)
            else:
                continue
            did_well = self._was_live and time.monotonic() - started > GOOD_SESSION_S
            failures = 0 if did_well else failures + 1
            self._pause(reason, _backoff(failures) if failures else 0.0)

    def _run_session(self) -> None:
        with temporary_folder() as folder:
            before = set(psutil.Process().children())
            with environment("TMPDIR", folder):
                playwright = sync_playwright().start()
            started = (child for child in psutil.Process().children() if child not in before)
            self._driver = next((child for child in started if "run-driver" in child.cmdline()), None)
            session = Session(playwright, self)
            try:
                session.run()
            finally:
                self._session = None
                playwright.stop()
                session.end_processes()

    def _pause(self, reason: str, seconds: float) -> None:
        """Tells every ticker that there is no browser, and waits until it is tried again."""
        if self.stopping:
            return
        self.counters["browser_failures"] += 1
        log.warning("no browser: %s; next try in %.0f s", reason, seconds)
        deadline = time.monotonic() + seconds
        trouble = Trouble(State.ERROR, f"no browser: {reason}", round(_wall_ms() + seconds * 1000))
        while not self.stopping:
            self.last_tick = time.monotonic()
            for feed in self.wanted_feeds().values():
                feed.fail(trouble, void_price=False)
                self.tell(feed)
            if self.last_tick >= deadline:
                return
            time.sleep(0.1)

    def kill_driver(self) -> None:
        """Kills Playwright's driver and all it started. The browser's session then ends as after any other death."""
        if self._driver is None:
            return
        with suppress(psutil.NoSuchProcess):
            for process in [*self._driver.children(recursive=True), self._driver]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def on_session(self, session: Session) -> None:
        self.counters["browser_starts"] += 1
        self._session = session

    def wanted_feeds(self) -> dict[Ticker, Feed]:
        """The feeds of the wanted tickers; they outlive pages and browsers."""
        with self._lock:
            return dict(self._wanted)

    def doubt_all(self, reason: str, *, slept: bool = False) -> None:
        """No price is live any more until its page has proven it anew."""
        for feed in self.wanted_feeds().values():
            feed.doubt(reason, slept=slept)
            self.tell(feed)

    def replace(self, old: Feed, new: Feed) -> bool:
        """Puts the feed of a renewed page in the place of the old one, if its ticker is still wanted."""
        with self._lock:
            if self._wanted.get(old.ticker) is not old:
                return False
            self._wanted[old.ticker] = new
        self.tell(new)
        return True

    def tell(self, feed: Feed) -> None:
        """Emits the feed's quote if it says anything new."""
        quote = feed.quote(steady_ms())
        if quote == feed.told or self._wanted.get(feed.ticker) is not feed:
            return
        before, feed.told = feed.told, quote
        if before is None or before.state is not quote.state:
            self._note_state(feed, quote, before)
        self._emit(quote)

    def _note_state(self, feed: Feed, quote: Quote, before: Quote | None) -> None:
        if quote.state is State.LIVE:
            self._was_live = True
            self.spacing = max(self.settings.opening_spacing, self.spacing / 2)
            if feed.complaint is not None:
                log.info("%s: live again", feed.ticker)
            feed.complaint = None
        elif quote.state is State.STALE and before is not None and before.state is State.LIVE:
            self.counters["prices_stale"] += 1
            log.info("%s: stale: %s", feed.ticker, quote.reason)
            feed.complaint = quote.reason

    def fail(self, feed: Feed, trouble: PageTrouble) -> None:
        """Says why the ticker has no page, and when it is tried again."""
        feed.failures += 1
        self.counters[f"pages_{trouble.state}"] += 1
        if trouble.state is State.BLOCKED:
            self.spacing = min(max(2 * self.spacing, BLOCKED_SPACING_S), SPACING_LIMIT_S)
        delay = _retry_delay(trouble, feed.failures)
        level = logging.DEBUG if feed.complaint == trouble.reason else logging.WARNING
        log.log(level, "%s: %s: %s; next try in %.0f s", feed.ticker, trouble.state, trouble.reason, delay)
        feed.complaint = trouble.reason
        told = Trouble(
            trouble.state, trouble.reason, round(_wall_ms() + delay * 1000), retry_at=steady_ms() + delay * 1000
        )
        feed.fail(told, void_price=trouble.void_price)
        self.tell(feed)


def _retry_delay(trouble: PageTrouble, failures: int) -> float:
    if trouble.state is State.NOT_FOUND or trouble.alternative is not None:
        return NOT_FOUND_RETRY_S
    if trouble.state is State.BLOCKED:
        patience = min(BLOCKED_RETRY_S * 2.0 ** min(failures - 1, 10), BLOCKED_LIMIT_S) * random.uniform(1.0, 1.25)
        asked = trouble.delay or 0.0
        return asked if asked and failures == 1 else max(asked, patience)
    return _backoff(failures) if trouble.delay is None else trouble.delay


def _backoff(failures: int) -> float:
    """Seconds until the next try: doubling from 1 s to 60 s, spread by a quarter so that tickers don't retry as one."""
    delay: float = min(RETRY_FIRST_S * 2.0 ** min(failures - 1, 10), RETRY_LIMIT_S)
    return delay * random.uniform(0.75, 1.0)


def _session_reason(error: BaseException) -> str:
    if "ENOSPC" in str(error) or "No space left" in str(error):
        return f"the folder for temporary files is full ({printable(temporary_root())})"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def _wall_ms() -> float:
    """The time of day, which jumps when the machine's clock is set."""
    return time.time() * 1000


def _slept_s() -> float:
    """How long the machine has slept in all; only differences mean anything."""
    return steady_ms() / 1000 - time.monotonic()
