"""The scraper layer: keeps a TradingView page of each tracked ticker open in a real Chromium, and emits its prices.

This file owns the browser's life, which ticker has which page, and how each recovers from a failure. It never handles
what concerns one page (tab.py) or one renderer (group.py), nor decides which prices to believe (feed.py). It imports
neither Flask nor gevent and knows nothing of clients: quotes leave through one callable, `emit`.

Threads: any thread may call `Scraper`'s public methods. All else runs on the scraper thread, which sleeps in one
Playwright call; events, commands and the tick run as greenlets of its loop.

    Scraper    the thread; starts the browser again when it ends
    Session    one browser session: its groups of tabs, reconciled with the tracked tickers
    Processes  the browser's processes: whether they answer, their memory, and their end
    Tickers    the tracked tickers, and the last quote of each
    Renewal    replaces old and grown pages
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from queue import Empty, SimpleQueue
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
from playwright.sync_api import Browser, BrowserContext, CDPSession, Playwright
from playwright.sync_api import Error as BrowserError

from quotes import (
    ANSWER_LIMIT_S,
    NO_SIGN_OF_LIFE,
    PlutoError,
    Quote,
    RetriedTooSoon,
    RetryRefused,
    Source,
    SourceBusy,
    SourceState,
    State,
    Ticker,
    answer_without_try,
    slept_s,
    steady_ms,
    wall_ms,
)
from tradingview.browser import Launcher, LaunchSettings
from tradingview.diagnosis import death_of, disk_is_full, first_line
from tradingview.driver import Driver
from tradingview.feed import Feed, PageTrouble, Trouble, clock_problem
from tradingview.group import Frozen, Group, Groups
from tradingview.loop import Loop
from tradingview.machine import is_full, temporary_folder, temporary_root
from tradingview.pace import UNSLIM, Pace, Reopening, Room, Slimness
from tradingview.patience import Patience
from tradingview.site import CHALLENGES
from tradingview.tab import Crashed, Harmful, NoPrice, Tab, why_unreachable

log = logging.getLogger("pluto.scraper")

HELD_MS = 1_000  # a held ticker is due this much later than the asker


class BrowserEnded(PlutoError):
    code = "browser_ended"


@dataclass(frozen=True)
class ScraperSettings:
    """`source_url` has no trailing slash; `simulated` marks every quote from the start.

    `browser`, `headed`, `or_headless` and `sandbox` are as in LaunchSettings.

    `group_size` is how many tickers share a renderer, `opening_spacing` the seconds between two openings,
    `page_max_age` the hours until a page is renewed. `page_max_heap` (a page's share of its renderer's heap) and
    `browser_max_memory` (PSS of all the browser's processes) are in MB. `open_files` is the soft limit of descriptors
    for driver and browser; None: Pluto's own.
    """

    source_url: str = "https://www.tradingview.com"
    browser: str | None = None
    headed: bool = False
    or_headless: bool = False
    sandbox: str = "auto"
    simulated: bool = False
    group_size: int = 16
    opening_spacing: float = 0.1
    page_max_age: float = 6.0
    page_max_heap: float = 150.0
    browser_max_memory: float = 6000.0
    open_files: int | None = None
    challenges: tuple[str, ...] = CHALLENGES

    @property
    def host(self) -> str:
        return urlsplit(self.source_url).netloc


# --- the tracked tickers ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Tracked:
    """A tracked ticker: the feed of its page, and what outlives a page. Used on the scraper thread."""

    feed: Feed
    told: Quote | None = None  # the quote last emitted
    failures: int = 0  # in a row
    cut_offs: int = 0  # how often its pages were cut off, since its last renewal
    complaint: str | None = None  # the reason last logged
    renew_at: float = float("-inf")  # monotonic s; no renewal before, after a failed one
    asked_at: float = float("-inf")  # monotonic s; when a user last asked for a try
    is_held: bool = False  # waits while another ticker asks for all
    reopening: Reopening = field(default_factory=Reopening)


class Tickers:
    """The tracked tickers, and the last quote of each. They outlive pages and browsers.

    Any thread may call `add` and `remove`; all else runs on the scraper thread, except where a method says so.
    """

    def __init__(self, pace: Pace, patience: Patience, counters: Counter[str], emit: Callable[[Quote], None]) -> None:
        self.asker: Ticker | None = None  # while TradingView blocks Pluto: the only ticker that tries
        self.has_been_live = False  # whether any ticker was, since the last reset
        self._pace, self._patience, self._counters, self._emit = pace, patience, counters, emit
        self._lock = threading.Lock()
        self._tracked: dict[Ticker, Tracked] = {}  # any thread changes it, under the lock

    def add(self, feed: Feed) -> None:
        """Tracks the feed's ticker, if it isn't tracked yet."""
        with self._lock:
            self._tracked.setdefault(feed.ticker, Tracked(feed))

    def remove(self, ticker: Ticker) -> None:
        with self._lock:
            self._tracked.pop(ticker, None)

    def tracked(self) -> dict[Ticker, Tracked]:
        with self._lock:
            return dict(self._tracked)

    def tracked_of(self, feed: Feed) -> Tracked | None:
        """The ticker that this feed serves now; None if it was removed or its page renewed."""
        one = self._tracked.get(feed.ticker)
        return one if one is not None and one.feed is feed else None

    def doubt_all(self, reason: str, *, slept: bool = False) -> None:
        """Makes every price stale until its page proves it again."""
        for one in self.tracked().values():
            one.feed.doubt(reason, slept=slept)
            self.tell(one.feed)

    def replace(self, old: Feed, new: Feed) -> bool:
        """Replaces the old page's feed by the renewed page's, if the ticker is still tracked."""
        if (one := self.tracked_of(old)) is None:
            return False
        new.succeed(old)
        one.feed, one.cut_offs = new, 0
        self.tell(new)
        return True

    def tell(self, feed: Feed, *, renews: bool = False) -> None:
        """Emits the feed's quote if it has changed. A later end of its proof is a change only with `renews`."""
        if (one := self.tracked_of(feed)) is None:
            return
        quote = feed.quote(now := steady_ms()).as_of(now)
        if quote.state is State.STALE and one.reopening.next_try_at is not None:
            quote = replace(quote, next_try_at=one.reopening.next_try_at)
        before = one.told
        if before is not None and before == quote and not (renews and quote.proven_until != before.proven_until):
            return
        one.told = quote
        if before is None or before.state is not quote.state:
            self._note_state(one, quote, before)
        self._emit(quote)

    def _note_state(self, one: Tracked, quote: Quote, before: Quote | None) -> None:
        if quote.state is State.LIVE:
            self.has_been_live = True
            self._pace.on_live()
            if one.complaint is not None:
                log.info("%s: live again", quote.ticker)
            one.complaint = None
        elif quote.state is State.STALE and before is not None and before.state is State.LIVE:
            self._counters["prices_stale"] += 1
            log.info("%s: stale: %s", quote.ticker, quote.reason)
            one.complaint = quote.reason

    def why(self, ticker: Ticker) -> dict[str, Any] | None:
        """Why the ticker's quote is what it is; None if the ticker isn't tracked."""
        if (one := self.tracked().get(ticker)) is None:
            return None
        why = one.feed.why(steady_ms(), wall_ms()) | {"failures": one.failures}
        return why if why["nextTryAt"] else why | {"nextTryAt": one.reopening.next_try_at}

    def clock_problem(self) -> str | None:
        """Any thread: what is wrong with this machine's clock, by the median of all pages; None if nothing is known."""
        told = [one.feed.clock_behind_ms(steady_ms(), wall_ms()) for one in self.tracked().values()]
        known = [behind for behind in told if behind is not None]
        return clock_problem(median(known)) if known else None

    def fail(self, feed: Feed, trouble: PageTrouble) -> None:
        """Emits why the ticker has no page, and when Pluto tries again."""
        if (one := self.tracked_of(feed)) is None:
            return
        trouble = self._weigh(one, trouble)
        one.failures += 1
        self._counters[f"pages_{trouble.state}"] += 1
        self._pace.on_failure(is_blocked=trouble.state is State.BLOCKED)
        delay = self._patience.retry_delay(trouble, one.failures)
        level = logging.DEBUG if one.complaint == trouble.reason else logging.WARNING
        log.log(level, "%s: %s: %s; next try in %.0f s", feed.ticker, trouble.state, trouble.reason, delay)
        one.complaint = trouble.reason
        next_try_at, retry_at = wall_ms() + round(delay * 1000), steady_ms() + delay * 1000
        remembered = Trouble(trouble.state, trouble.reason, next_try_at, retry_at, trouble.alternative)
        feed.fail(remembered, void_price=trouble.void_price)
        self.tell(feed)

    # While TradingView blocks Pluto as a whole, only one ticker tries: the asker.

    def hold_back(self, busy: Container[Ticker]) -> None:
        """While Pluto is blocked, all tickers but the asker wait. Tickers in `busy`, whose page is open, don't."""
        tracked = self.tracked()
        if not self._pace.is_blocked or any(one.told and one.told.state is State.LIVE for one in tracked.values()):
            self.asker = None
            for one in tracked.values():
                self._release(one)
            return
        if self.asker not in tracked:
            blocked = [one for one in tracked.values() if one.told and one.told.state is State.BLOCKED]
            self.asker = min(blocked or tracked.values(), key=lambda one: one.feed.due_at).feed.ticker
            self._release(tracked[self.asker])
        for ticker, one in tracked.items():
            if ticker != self.asker and ticker not in busy:
                self._hold(one, tracked[self.asker].feed.trouble)

    def _hold(self, one: Tracked, asker: Trouble | None) -> None:
        before = one.feed.trouble
        if asker is None or (before is not None and before.retry_at > asker.retry_at):
            return
        reason = f"TradingView blocks Pluto: {self.asker} asks for all tickers"
        if before is None or before.state is State.BLOCKED:
            before = Trouble(State.BLOCKED, reason, asker.next_try_at)
        one.is_held = True
        one.feed.fail(
            replace(before, next_try_at=asker.next_try_at, retry_at=asker.retry_at + HELD_MS), void_price=False
        )
        self.tell(one.feed)

    def _release(self, one: Tracked) -> None:
        if one.is_held and one.feed.trouble is not None:
            one.feed.fail(replace(one.feed.trouble, retry_at=0.0), void_price=False)
        one.is_held = False

    def _weigh(self, one: Tracked, trouble: PageTrouble) -> PageTrouble:
        """Reopens at once after a first crash or freeze. A harmful page waits, longer each time."""
        if isinstance(trouble, Crashed | Frozen) and not one.failures:
            return PageTrouble(trouble.state, trouble.reason, delay=0.0)
        if isinstance(trouble, Crashed):
            self._counters["pages_cut_off"] += 1
            trouble = Harmful(trouble.state, "the page crashes again and again")
        if isinstance(trouble, Harmful):
            one.cut_offs += 1
            return PageTrouble(trouble.state, trouble.reason, delay=self._patience.backoff(one.cut_offs))
        return trouble


# --- one life of the browser ------------------------------------------------------------------------------------------


class Processes:
    """The browser's processes: whether they answer, how much memory they use. Kills those that outlive the browser."""

    def __init__(self, loop: Loop, patience: Patience, counters: Counter[str]) -> None:
        self._loop, self._patience, self._counters = loop, patience, counters
        self._channel: CDPSession | None = None
        self._pids: set[int] = set()
        self._asked_at: float | None = None  # time of the question that the browser hasn't answered

    def watch(self, channel: CDPSession) -> None:
        """Starts to ping the browser through its own channel."""
        self._channel = channel
        self._ask()

    def _ask(self) -> None:
        assert self._channel is not None
        self._asked_at = time.monotonic()
        processes = self._channel.send("SystemInfo.getProcessInfo")["processInfo"]
        self._asked_at = None
        self._pids = {process["id"] for process in processes}
        self._loop.later(self._patience.ping, self._ask)

    def hang(self, now: float) -> bool:
        """Whether browser or driver hangs: the last question has had no answer for too long."""
        return self._asked_at is not None and now - self._asked_at > self._patience.ping_limit

    def excuse(self, now: float) -> None:
        """Restarts the wait: Pluto itself was late or asleep, so an answer may be waiting."""
        self._asked_at = None if self._asked_at is None else now

    def weight_mb(self) -> float:
        return sum(_memory_mb(pid) for pid in self._pids)

    def end(self) -> None:
        """After the browser's end: kills its remaining processes, such as a stopped renderer."""
        left = [process for pid in self._pids if (process := _browser_process(pid)) is not None]
        for process in psutil.wait_procs(left, timeout=self._patience.end_grace)[1]:
            self._counters["processes_left"] += 1
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Renewal:
    """Long-lived pages grow: chooses the next one to renew, and keeps its successor. One at a time."""

    def __init__(self, groups: Groups, tickers: Tickers, max_age_s: float) -> None:
        self.successor: Tab | None = None
        self._groups, self._tickers, self._max_age_s = groups, tickers, max_age_s

    def due(self, tabs: dict[Ticker, Tab], now: float) -> Tracked | None:
        """A ticker whose page is too old, or whose group is too big."""
        for tab in tabs.values():
            group = self._groups.of(tab)
            group.is_retiring |= now - tab.born_at > self._max_age_s
            one = self._tickers.tracked_of(tab.feed)
            if group.is_retiring and tab.feed.has_price and one is not None and now > one.renew_at:
                return one
        return None

    def check(self, now: float) -> None:
        if (tab := self.successor) is None:
            return
        tab.check(now)
        if tab is self.successor and now > tab.deadline:
            tab.fail(NoPrice(State.ERROR, "the page that was to take over is not live"))

    def is_good(self, old: Tab) -> bool:
        """Whether the successor is live, or in the same state as the old page."""
        now, new = steady_ms(), self.successor
        state = None if new is None or not new.feed.has_price else new.feed.quote(now).as_of(now).state
        return state in (State.LIVE, old.feed.quote(now).as_of(now).state)


class Session:
    """One life of the browser: keeps a page open for each tracked ticker, and for no other."""

    def __init__(self, playwright: Playwright, scraper: Scraper) -> None:
        self.loop = Loop()
        self.tabs: dict[Ticker, Tab] = {}
        self._playwright = playwright
        self._scraper, self._settings, self._patience = scraper, scraper.settings, scraper.patience
        self._tickers, self._pace, self._slimness = scraper.tickers, scraper.pace, scraper.slimness
        self._room, self._counters = scraper.room, scraper.counters
        self.groups = Groups(self.loop, self._patience, self._counters, size=self._settings.group_size)
        self._browser: Browser | None = None
        self._control: BrowserContext | None = None  # an empty context: the thread sleeps until it closes
        self.processes = Processes(self.loop, self._patience, self._counters)
        self._renewal = Renewal(self.groups, self._tickers, self._settings.page_max_age * 3600)
        self._end_reason = "it ended by itself"
        self._ticked_at = time.monotonic()
        self._slept = slept_s()
        self._opening_timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """Starts the browser. Returns after `Scraper.stop`; raises BrowserEnded if the browser ends otherwise."""
        self.loop.soon(self._tick)
        browser, _ = self._scraper.launcher.launch(self._playwright, self._scraper.end_browsers)
        self._browser = browser
        self._settings = replace(self._settings, headed=self._scraper.launcher.headed)
        self._slimness.is_wanted = not self._settings.headed
        try:
            self.processes.watch(browser.new_browser_cdp_session())
            self._control = browser.new_context()
            self._scraper.on_session(self)
            self.loop.soon(self._reconcile if self._tickers.tracked() else self._check_source)
            self.loop.later(self._patience.weigh, self._weigh)
            self.loop.later(self._patience.heap_check, self._check_heaps)
            with suppress(BrowserError):
                self._control.wait_for_event("close", timeout=0)
            if not self._scraper.stopping:
                self._tickers.doubt_all(self._end_reason)
        finally:
            self._control = None
            with suppress(BrowserError):
                browser.close()
        if not self._scraper.stopping:
            raise BrowserEnded(self._end_reason)

    def _check_source(self) -> None:
        """Logs once if the pages' host can't be reached: no ticker is tracked yet that could show it."""
        if self._control is None:
            return
        reason = why_unreachable(self._control, self._settings.source_url, self._patience.answer)
        if reason is not None and not self._scraper.stopping and self._control is not None:
            log.warning("%s; Pluto keeps trying, and prices come once the site answers", reason)

    def wake(self) -> None:
        """Any thread: the tracked tickers changed, or Pluto stops."""
        self.loop.call(self._reconcile)

    # Once a second: finds what no event reports.

    def _tick(self) -> None:
        self.loop.later(self._patience.tick, self._tick)
        now = self._scraper.last_tick = time.monotonic()
        if self._control is None:
            return
        self._notice_sleep(now)
        if now - self._ticked_at > 3 * self._patience.tick:  # this thread was late: messages may be waiting
            self._excuse_silence(now)
        self._ticked_at = now
        if self.processes.hang(now):
            self.processes.excuse(now)
            self._end_reason = "it hung and was killed"
            self._counters["browser_hangs"] += 1
            self._scraper.kill_driver()
        for group in list(self.groups.all):
            group.check(now)
        for tab in list(self.tabs.values()):
            self._check_tab(tab, now)
        self._renew(now)
        self._reconcile()

    def _notice_sleep(self, now: float) -> None:
        slept = slept_s()
        if slept - self._slept > 1:
            log.warning("this computer was asleep for %.0f s", slept - self._slept)
            self._counters["sleeps"] += 1
            self._excuse_silence(now)
            self._tickers.doubt_all("this computer was asleep", slept=True)
        self._slept = slept

    def _excuse_silence(self, now: float) -> None:
        self.processes.excuse(now)
        for tab in self.tabs.values():
            tab.heard_at = now

    def _check_tab(self, tab: Tab, now: float) -> None:
        if tab.began_at is not None:
            tab.feed.choose(steady_ms(), wall_ms())
        tab.check(now)
        if tab.is_closed or (one := self._tickers.tracked_of(tab.feed)) is None:
            return
        self._check_life(one, tab, now)
        self._tickers.tell(tab.feed, renews=True)
        if tab.has_settled(now):
            one.failures = 0
        if tab.wall is not None and steady_ms() > tab.feed.due_at and not tab.is_being_solved(now):
            self.loop.soon(tab.load)

    def _check_life(self, one: Tracked, tab: Tab, now: float) -> None:
        """Reopens a page that was live if its feed gives no sign of life."""
        quote, patience = tab.feed.quote(at := steady_ms()).as_of(at), self._patience
        is_silent = quote.state is State.STALE and quote.reason == NO_SIGN_OF_LIFE and tab.priced_at is not None
        wait = patience.no_life if quote.source is Source.SOCKET else patience.no_life_of_element
        is_live = quote.state is State.LIVE
        one.reopening.judge(is_live=is_live, is_silent=is_silent, wait=wait, patience=patience)
        if one.reopening.due_at is not None and now >= one.reopening.due_at:
            one.reopening.begin()
            self._counters["pages_reopened"] += 1
            log.warning("%s: its feed gives no sign of life; Pluto opens its page again", tab.ticker)
            self._replace(tab)

    def _replace(self, tab: Tab) -> None:
        """Closes the ticker's page, so that a new one opens."""
        self._drop_successor(tab.ticker)
        self._close(self.tabs.pop(tab.ticker))

    def retry(self, ticker: Ticker) -> None:
        """Reopens the ticker's page as soon as the pace allows, unless it is loading."""
        one, tab = self._tickers.tracked().get(ticker), self.tabs.get(ticker)
        if one is None or (tab is not None and tab.is_loading(time.monotonic())):
            return
        if one.feed.trouble is not None:
            one.feed.fail(replace(one.feed.trouble, retry_at=0.0), void_price=False)
        if tab is not None:
            self._replace(tab)
        self._reconcile()

    # Renewal: long-lived pages grow.

    def _weigh(self) -> None:
        self.loop.later(self._patience.weigh, self._weigh)
        weight = self.processes.weight_mb()
        if weight > self._settings.browser_max_memory:
            self._end_reason = f"it took {weight:.0f} MB and is started anew"
            self._counters["browser_too_big"] += 1
            self._room.on_exceeded(len(self.tabs), self._settings.browser_max_memory / weight, self._patience)
            if self._control is not None:
                self._control.close()

    def _check_heaps(self) -> None:
        self.loop.later(self._patience.heap_check, self._check_heaps)
        for group in self.groups.all:
            self.loop.soon(group.check_heap, self._settings.page_max_heap)

    def _renew(self, now: float) -> None:
        """Opens a successor for a page that is too old, or whose group is too big."""
        renewal = self._renewal
        if renewal.successor is not None:
            renewal.check(now)
        elif (one := renewal.due(self.tabs, now)) is not None and self._may_open():
            renewal.successor = self._begin(one, self._scraper.new_feed(one.feed.ticker))

    def _take_over(self, tab: Tab) -> None:
        """Makes the successor the ticker's page."""
        old = self.tabs[tab.ticker]
        self._renewal.successor = None
        if not self._tickers.replace(old.feed, tab.feed):
            self._close(tab)
            return
        self.tabs[tab.ticker] = tab
        self._counters["pages_recycled"] += 1
        log.info("%s: its page was renewed", tab.ticker)
        self._close(old)

    def _drop_successor(self, ticker: Ticker) -> None:
        if (tab := self._renewal.successor) is not None and tab.ticker == ticker:
            self._renewal.successor = None
            self._close(tab)

    # Opening and closing.

    def _reconcile(self) -> None:
        if self._control is None:
            return
        if self._scraper.stopping:
            self._control.close()
            return
        tracked = self._tickers.tracked()
        for ticker, tab in list(self.tabs.items()):
            if ticker not in tracked or tracked[ticker].feed is not tab.feed:
                self._slimness.forget(ticker)
                self._replace(tab)
        self._tickers.hold_back([tab.ticker for tab in self.tabs.values() if tab.wall is None])
        asker = self._tickers.asker
        waiting = [one for ticker, one in tracked.items() if ticker not in self.tabs and asker in (None, ticker)]
        for one in sorted(waiting, key=lambda one: one.feed.due_at):  # new tickers first, then failed ones
            if one.feed.due_at > steady_ms():
                return
            if self._room.is_full(len(self.tabs)):
                self._tickers.fail(one.feed, self._no_room())
                continue
            if not self._may_open() or (new := self._begin(one, one.feed)) is None:
                return
            self.tabs[new.ticker] = new

    def _no_room(self) -> PageTrouble:
        reason = (
            f"no room: more pages would take over {self._settings.browser_max_memory:.0f} MB; "
            "remove tickers, or raise --browser-max-memory"
        )
        return PageTrouble(State.ERROR, reason, delay=self._patience.no_room_retry)

    def _may_open(self) -> bool:
        """Whether a page may open now. Pages open spaced and few at a time, which spares the site and the processor."""
        now = time.monotonic()
        if (wait := self._pace.wait(now)) > 0:
            if self._opening_timer is not None:
                self._opening_timer.cancel()
            self._opening_timer = self.loop.later(wait, self._reconcile)
            return False
        tabs = self.groups.tabs
        opening = sum(tab.began_at is None for tab in tabs)
        loading = sum(tab.holds_up_others(now) for tab in tabs)
        return opening < self._patience.max_opening and loading < self._patience.max_loading

    def _begin(self, tracked: Tracked, feed: Feed) -> Tab | None:
        """Starts to open a tab, in a group with room. Returns None while a new group is being made."""
        if self.groups.is_making:
            return None
        sharing = sum(one.cut_offs == 0 for one in self._tickers.tracked().values())
        group = self.groups.with_room(sharing, is_apart=tracked.cut_offs > 0)
        tab = Tab(
            feed,
            self._settings.source_url,
            self.loop,
            on_message=self._on_message,
            on_trouble=self._fail,
            patience=self._patience,
            counters=self._counters,
            slack=self._patience.slack(tracked.failures),
            is_headed=self._settings.headed,
            is_slim=self._slimness.is_slim(feed.ticker),
            challenges=self._settings.challenges,
        )
        group.add(tab)
        self._pace.on_opening()
        self.loop.soon(self._open, group, tab)
        return tab

    def _open(self, group: Group, tab: Tab) -> None:
        assert self._browser is not None
        tab.feed.reopen()
        self._tickers.tell(tab.feed)
        try:
            if (context := group.context) is None:
                context = group.prepare(self._browser, self._settings.source_url)
                self.loop.soon(self._reconcile)
        except BrowserError as error:
            tab.fail(PageTrouble(State.ERROR, f"the page could not be opened: {first_line(error)}"))
        else:
            tab.open(context)
        if tab.is_closed:  # closed while it was opening
            self.groups.release(group, tab)
        self._reconcile()

    def _on_message(self, tab: Tab, message: dict[str, Any]) -> None:
        if tab.priced_at == tab.heard_at:  # its first price: the next page may open
            self._pace.on_price()
            self._slimness.on_price(tab.ticker, was_slim=tab.is_slim)
            self.loop.soon(self._reconcile)
        if message["kind"] == "long":
            self.groups.of(tab).on_long_task(tab)
        self._tickers.tell(tab.feed)
        if tab is self._renewal.successor and self._renewal.is_good(self.tabs[tab.ticker]):
            self._take_over(tab)

    def _fail(self, tab: Tab, trouble: PageTrouble) -> None:
        """The only place that gives a page up. Its ticker says why, and when Pluto tries again.

        A page that shows a wall in a window stays open: a person may solve the check.
        """
        if isinstance(trouble, NoPrice):
            self._slimness.on_no_price(tab.ticker, was_slim=tab.is_slim)
        if tab is self._renewal.successor:
            log.warning("%s: its page is not renewed: %s", tab.ticker, trouble.reason)
            self._tickers.tracked()[tab.ticker].renew_at = time.monotonic() + self._patience.renewal_retry
            self._drop_successor(tab.ticker)
        elif self.tabs.get(tab.ticker) is tab:
            self._drop_successor(tab.ticker)
            self._tickers.fail(tab.feed, trouble)
            if tab.wall is None:
                del self.tabs[tab.ticker]
                self._close(tab)

    def _close(self, tab: Tab) -> None:
        """Closes the tab's page soon, not at once: the caller may be a handler that Playwright waits for."""
        self.groups.close(tab)
        self.loop.soon(self._reconcile)


# --- the thread -------------------------------------------------------------------------------------------------------


class Scraper:
    """Keeps one page open per tracked ticker, and emits a quote at every change.

    It calls `emit` on the scraper thread with each new quote; `emit` must return at once. `last_tick` is the monotonic
    time at which the thread last ran, updated about once a second. If it stops, no quote is current.
    """

    def __init__(
        self, settings: ScraperSettings, emit: Callable[[Quote], None], patience: Patience | None = None
    ) -> None:
        self.settings, self.patience = settings, patience or Patience()
        self.counters: Counter[str] = Counter()
        self.pace = Pace(settings.opening_spacing, self.patience)
        self.slimness, self.room = Slimness(), Room()
        self.tickers = Tickers(self.pace, self.patience, self.counters, emit)
        self.session: Session | None = None  # of the running browser
        self.stopping = False
        self.last_tick = time.monotonic()
        launch = LaunchSettings(settings.browser, settings.headed, settings.or_headless, settings.sandbox)
        self.launcher = Launcher(launch, self._show_alive)
        self._driver: Driver | None = None
        self._thread = threading.Thread()  # each start begins another one

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Any thread: replaces a dead scraper thread. It has the same tickers; their prices need new proof.

        Kills the browser that the dead thread left behind.
        """
        self.kill_driver()
        self.session = None
        self.last_tick = time.monotonic()
        self.tickers.doubt_all("the scraper was started again")
        self.start()

    def add(self, ticker: Ticker) -> None:
        """Any thread: opens a page for this ticker."""
        self.tickers.add(self.new_feed(ticker))
        self._wake()

    def remove(self, ticker: Ticker) -> None:
        """Any thread: closes this ticker's page."""
        self.tickers.remove(ticker)
        self._wake()

    def retry(self, ticker: Ticker) -> str:
        """Any thread: reopens the ticker's page now. See QuoteSource."""
        one, session = self.tickers.tracked().get(ticker), self.session
        if one is None or one.told is None or session is None:
            raise RetryRefused(f"{ticker} has no page yet. Pluto opens one by itself; a retry is not needed.")
        if answer := answer_without_try(ticker, one.told.state):
            return answer
        now = time.monotonic()
        if (wait := one.asked_at + self.patience.asked_retry - now) > 0:
            raise RetriedTooSoon(ticker, wait)
        one.asked_at = now
        session.loop.call(session.retry, ticker)
        return f"{ticker}: its page is opened now."

    def why(self, ticker: Ticker) -> dict[str, Any] | None:
        """Any thread but the scraper's: see QuoteSource. Without a browser it answers at once."""
        if (session := self.session) is None:
            return self.tickers.why(ticker)
        answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        session.loop.call(lambda: answers.put(self.tickers.why(ticker)))
        try:
            return answers.get(timeout=ANSWER_LIMIT_S)
        except Empty:
            raise SourceBusy("Try again in a moment: the scraper is busy, and doesn't answer.") from None

    def new_feed(self, ticker: Ticker) -> Feed:
        settings = self.settings
        return Feed(
            ticker,
            simulated=settings.simulated,
            counters=self.counters,
            host=settings.host,
            proof_factor=self.patience.proof_factor,
        )

    def begin_stop(self) -> None:
        """Any thread: from now on the browser's end is expected. Ctrl-C in a terminal may have ended it already."""
        self.stopping = True
        self._wake()

    def stop(self, timeout: float = 2.0) -> None:
        """Any thread but the scraper's: ends browser and thread. After `timeout` s it kills the browser."""
        self.begin_stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("the browser doesn't end by itself; Pluto kills it")
        self.kill_driver()

    @property
    def state(self) -> SourceState:
        """Any thread: `down` while there is no browser."""
        if not self._thread.is_alive():
            return SourceState.DEAD
        return SourceState.DOWN if self.session is None else SourceState.RUNNING

    @property
    def health(self) -> Mapping[str, str]:
        said = {} if (sandbox := self.launcher.sandbox) is None else {"sandbox": "on" if sandbox.is_on else "off"}
        if sandbox is not None and not sandbox.is_on:
            said["sandboxReason"] = sandbox.reason
        if self.slimness.is_given_up:
            said["pages"] = f"not slim: {UNSLIM}"
        if (problem := self.tickers.clock_problem()) is not None:
            said["clock"] = problem
        return said

    def _wake(self) -> None:
        if (session := self.session) is not None:
            session.wake()

    # On the scraper thread.

    def _run(self) -> None:
        failures = 0
        while not self.stopping:
            started, self.tickers.has_been_live = time.monotonic(), False
            try:
                self._run_session()
            except (BrowserError, PlutoError, OSError) as error:
                reason = _session_reason(error)
            except Exception as error:
                log.exception("the browser's session failed")
                reason = first_line(error)
            else:
                continue
            did_well = self.tickers.has_been_live and time.monotonic() - started > self.patience.good_session
            failures = 0 if did_well else failures + 1
            self._pause(reason, self.patience.backoff(failures) if failures else 0.0)

    def _run_session(self) -> None:
        with temporary_folder() as folder, ExitStack() as after_driver:
            self._driver = Driver(folder)
            with self._driver.running(self._show_alive) as playwright:
                if self.settings.open_files is not None:
                    self._driver.limit_open_files(self.settings.open_files)
                session = Session(playwright, self)
                after_driver.callback(session.processes.end)
                try:
                    session.run()
                finally:
                    self.session = None

    def _show_alive(self) -> None:
        """Also called from another thread, while the start of driver or browser blocks this one."""
        self.last_tick = time.monotonic()

    def _pause(self, reason: str, seconds: float) -> None:
        """Emits for every ticker that there is no browser, and waits until the next try."""
        if self.stopping:
            return
        self.counters["browser_failures"] += 1
        log.warning("no browser: %s; next try in %.0f s", reason, seconds)
        deadline = time.monotonic() + seconds
        trouble = Trouble(State.ERROR, f"no browser: {reason}", wall_ms() + round(seconds * 1000))
        before = [(one.feed, one.feed.trouble) for one in self.tickers.tracked().values()]
        while not self.stopping:
            self.last_tick = time.monotonic()
            for one in self.tickers.tracked().values():
                one.feed.fail(trouble, void_price=False)
                self.tickers.tell(one.feed)
            if self.last_tick >= deadline:
                break
            time.sleep(0.1)
        for feed, was in before:
            if was is not None and was.retry_at > steady_ms():  # the browser's failure must not shorten the site's wait
                feed.fail(was, void_price=False)
                self.tickers.tell(feed)

    def kill_driver(self) -> None:
        """Kills Playwright's driver and all it started. The browser session then ends as after a crash."""
        if self._driver is not None:
            self._driver.kill()

    def end_browsers(self) -> None:
        if self._driver is not None:
            self._driver.kill_browsers()

    def on_session(self, session: Session) -> None:
        self.counters["browser_starts"] += 1
        self.session = session


def _session_reason(error: BaseException) -> str:
    if isinstance(error, PlutoError):
        return str(error)
    root = temporary_root()
    if isinstance(error, OSError):
        return disk_is_full(root) if error.errno == errno.ENOSPC else first_line(error)
    return death_of("the browser", str(error), root, is_full=is_full(root)).sentence


def _browser_process(pid: int) -> psutil.Process | None:
    """The browser's process with this id; None if it has ended, even if another process has the id now."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return process if "--type=" in command or "--remote-debugging-pipe" in command else None


def _memory_mb(pid: int) -> float:
    """In MB: PSS, which counts shared memory once; if unreadable, private memory; on other systems than Linux, RSS.

    On macOS psutil's memory_full_info() is refused, or hangs forever.
    """
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if not psutil.LINUX:
            _note_rss()
            return float(process.memory_info().rss / 1e6)
        try:
            return float(process.memory_full_info().pss / 1e6)
        except psutil.AccessDenied:
            memory = process.memory_info()
            return float(memory.rss - memory.shared) / 1e6
    return 0.0


@cache
def _note_rss() -> None:
    log.info(
        "this system doesn't tell the browser's PSS: --browser-max-memory counts what processes share once for each"
    )
