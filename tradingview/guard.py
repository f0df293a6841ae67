"""The guard of a page: limits how much work the page causes.

This file refuses windows, dialogs and downloads, counts what a page makes Pluto read, and reports when that is too
much. It never decides what happens to the page then. Everything runs on the thread that drives Playwright.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from playwright.sync_api import CDPSession, Dialog, Page

from limiter import Limiter
from tradingview.loop import Loop
from tradingview.patience import Patience


class Guard:
    """Watches one page. When it causes too much work, calls `on_harm` with the reason, perhaps several times."""

    def __init__(self, loop: Loop, patience: Patience, counters: Counter[str], on_harm: Callable[[str], None]) -> None:
        self._loop, self._patience, self._counters, self._on_harm = loop, patience, counters, on_harm
        self._events = Limiter(patience.event_rate, patience.event_burst)
        self._disturbances = Limiter(patience.disturbance_rate, patience.disturbance_burst)

    def watch(self, page: Page, channel: CDPSession) -> None:
        self._refuse_popups_of(page)
        for name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            channel.on(name, lambda event: self.count_event(len(str(event))))
        channel.on("Runtime.executionContextCreated", lambda _: self._spend(self._patience.iframe_cost))

    def count_event(self, characters: int = 0) -> None:
        """Counts something that Pluto had to read because of the page."""
        self._spend(1 + characters / self._patience.event_size)

    def count_disturbance(self, counter: str, reason: str) -> None:
        self._counters[counter] += 1
        if not self._disturbances.take():
            self._on_harm(reason)

    def _spend(self, cost: float) -> None:
        if not self._events.take(cost):
            self._on_harm("the page floods")

    def _refuse_popups_of(self, page: Page) -> None:
        """Refuses the page's windows, dialogs and downloads. Those of its windows count as its own."""
        offers = "the page keeps offering downloads"
        page.on("popup", self._on_popup)
        page.on("dialog", self._on_dialog)
        page.on("download", lambda _: self.count_disturbance("downloads_refused", offers))

    def _on_popup(self, popup: Page) -> None:
        self._refuse_popups_of(popup)
        self._loop.soon(popup.close)
        self.count_disturbance("popups_refused", "the page keeps opening windows")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._loop.soon(dialog.accept if dialog.type == "beforeunload" else dialog.dismiss)
        self.count_disturbance("dialogs_refused", "the page keeps opening dialogs")
