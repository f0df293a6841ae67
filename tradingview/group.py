"""Groups: pages that share a browser context, and so a renderer, a main thread, a heap and a crash.

This file owns the contexts, which page is in which, and what affects all pages of a group: endless loops and a growing
heap. It never decides which ticker gets a page or when. Everything runs on the thread that drives Playwright.
"""

from __future__ import annotations

import logging
import math
from collections import Counter

from playwright.sync_api import Browser, BrowserContext

from quotes import State
from tradingview.feed import PageTrouble
from tradingview.loop import Loop
from tradingview.patience import Patience
from tradingview.tab import Tab, new_context

log = logging.getLogger("pluto.group")

HEAP_PARTS = ("totalSize", "embedderHeapUsedSize", "backingStorageSize")  # script's, the document's, and buffers


class Frozen(PageTrouble):
    """The page's renderer stays busy; which of its pages causes it is unknown."""


class Group:
    """A context (None while it is being made) and its tabs.

    No page opens in a retiring group. A group that is apart has a single tab, of a ticker whose page was cut off
    before.
    """

    def __init__(self, loop: Loop, patience: Patience, counters: Counter[str], *, is_apart: bool) -> None:
        self.context: BrowserContext | None = None
        self.tabs: set[Tab] = set()
        self.is_retiring, self.is_apart = False, is_apart
        self._loop, self._patience, self._counters = loop, patience, counters
        self._is_tidy = True  # the garbage that opening pages left has been collected
        self._heap_mb: float | None = None  # since the last page opened here
        self._stopped_at: float | None = None  # when an endless loop was last stopped

    def add(self, tab: Tab) -> None:
        self.tabs.add(tab)
        self._is_tidy, self._heap_mb = False, None

    def prepare(self, browser: Browser, source_url: str) -> BrowserContext:
        """Makes the context. Raises BrowserError when the browser can't."""
        self.context = new_context(browser, source_url)
        return self.context

    def release(self, tab: Tab) -> None:
        """Closes the page of a tab that has left the group; after the last tab, the context."""
        if self.tabs:
            tab.close()
            return
        context, self.context = self.context, None
        if context is not None:  # closing it kills even a renderer that hangs
            context.close()

    # Called once a second.

    def check(self, now: float) -> None:
        self._check_frozen(now)
        self._tidy(now)

    def _check_frozen(self, now: float) -> None:
        """Finds pages that froze. An endless loop in one page silences all; one order stops it.

        A loading page may keep the renderer busy: until its deadline nothing is stopped. A neighbour's silence says
        nothing then.
        """
        silent = {tab for tab in self.tabs if tab.priced_at is not None and self._is_silent(tab, now)}
        if not silent or any(tab.is_loading(now) for tab in self.tabs):
            return
        if any(tab.has_spoken and not self._is_silent(tab, now) for tab in self.tabs):
            for tab in silent:
                self._reload(tab, now)
        else:
            self._check_loop(silent, now)

    def _is_silent(self, tab: Tab, now: float) -> bool:
        return now - tab.heard_at > self._patience.frozen

    def _check_loop(self, silent: set[Tab], now: float) -> None:
        """All pages are silent: stops the running script first; if that doesn't help, gives the group up."""
        if self._stopped_at is None or any(tab.heard_at > self._stopped_at for tab in silent):
            self._stopped_at = now
            self._counters["pages_frozen"] += len(silent)
            names = ", ".join(sorted(tab.ticker for tab in silent))
            log.warning("%s: frozen, the script that runs there is stopped", names)
            # V8 obeys this order even while the page's main thread is busy.
            self._loop.soon(next(iter(silent)).ask, "Runtime.terminateExecution")
        elif now - self._stopped_at > self._patience.frozen:
            self.is_retiring = True
            for tab in list(self.tabs):
                tab.fail(Frozen(State.ERROR, "the page is frozen"))

    def on_long_task(self, tab: Tab) -> None:
        """The tab's page kept the renderer busy. If a loop was just stopped, it was this page's.

        The page is cut off at once, so that it can't freeze its neighbours again.
        """
        if self._stopped_at is not None and tab.heard_at - self._stopped_at < self._patience.frozen:
            tab.cut_off(f"the page kept its renderer busy for {self._patience.frozen:.0f} s and was stopped")

    def _reload(self, tab: Tab, now: float) -> None:
        """Loads a frozen page again, once; if it freezes again soon, cuts it off."""
        if now - tab.reloaded_at < self._patience.reload_memory:
            tab.cut_off("the page freezes again and again")
            return
        self._counters["pages_reloaded"] += 1
        log.warning("%s: the page froze, it is loaded again", tab.ticker)
        tab.reloaded_at = tab.heard_at = now
        self._loop.soon(tab.load)

    def _tidy(self, now: float) -> None:
        """Collects the garbage that opening pages left, once: a third of the heap, which idle pages keep for long.

        A large heap is left to the browser: its collection takes longer, but never delays prices for seconds.
        """
        if self._is_tidy or self._heap_mb is None or not all(tab.has_settled(now) for tab in self.tabs):
            return
        self._is_tidy = True
        if self.tabs and self._heap_mb < self._patience.tidy_heap:
            self._loop.soon(next(iter(self.tabs)).ask, "HeapProfiler.collectGarbage")

    # Called less often.

    def check_heap(self, page_max_mb: float) -> None:
        """Retires a group whose heap has grown. Far above its limit, cuts off all its pages: any may be the cause."""
        tab = next((tab for tab in self.tabs if tab.began_at is not None), None)
        if tab is None:
            return
        usage = tab.ask("Runtime.getHeapUsage")
        share = page_max_mb * max(1, len(self.tabs))
        self.is_retiring |= usage.get("totalSize", 0) / 1e6 > share
        self._heap_mb = heap = sum(usage.get(part, 0) for part in HEAP_PARTS) / 1e6
        if heap > share + self._patience.heap_excess:
            for other in list(self.tabs):
                other.cut_off(f"the page's renderer took {heap:.0f} MB")


class Groups:
    """All groups of one browser."""

    def __init__(self, loop: Loop, patience: Patience, counters: Counter[str], *, size: int) -> None:
        self.all: list[Group] = []
        self._loop, self._patience, self._counters, self._size = loop, patience, counters, size

    @property
    def is_making(self) -> bool:
        """Whether a context is being made: until it is ready, the room is unknown."""
        return any(group.context is None for group in self.all)

    @property
    def tabs(self) -> list[Tab]:
        return [tab for group in self.all for tab in group.tabs]

    def of(self, tab: Tab) -> Group:
        return next(group for group in self.all if tab in group.tabs)

    def with_room(self, sharing: int, *, is_apart: bool) -> Group:
        """A group for one more page, when `sharing` tickers share groups; a page apart gets a group of its own.

        Pluto makes no more groups than these tickers need, and takes the emptiest: so the renderers share the work.
        """
        groups = [group for group in self.all if not group.is_retiring and not group.is_apart]
        if is_apart or len(groups) < math.ceil(sharing / self._size) or not groups:
            self.all.append(group := Group(self._loop, self._patience, self._counters, is_apart=is_apart))
            return group
        return min(groups, key=lambda group: len(group.tabs))

    def close(self, tab: Tab) -> None:
        """Closes the tab's page soon, not at once: the caller may be a handler that Playwright waits for."""
        group = self.of(tab)
        tab.is_closed = True
        group.tabs.discard(tab)
        self._loop.soon(self.release, group, tab)

    def release(self, group: Group, tab: Tab) -> None:
        if not group.tabs and group in self.all:
            self.all.remove(group)
        group.release(tab)
