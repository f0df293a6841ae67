"""One TradingView page: how it is opened, what it may do, and when it is given up.

This file owns a page and its CDP channel from the first request to the close: it visits the symbol's address, judges
the documents that come, hands the probe's messages to the page's feed, and refuses windows, dialogs, downloads and
iframes. It never decides when a ticker is tried again and knows no other page; which prices are believed is decided in
feed.py. Everything runs on the thread that drives Playwright.

    Tab      one page, with the callbacks of its owner
    Guard    how much a page may cause Pluto to do
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, CDPSession, Dialog, Page
from playwright.sync_api import Error as BrowserError

from limiter import Limiter
from quotes import State, Ticker, steady_ms
from tradingview.feed import Feed, PageTrouble, printable
from tradingview.loop import Loop
from tradingview.patience import Patience
from tradingview.site import BINDING, COOKIE_CHOICE, COOKIE_NAME, NETWORK_ERRORS, PROBE, page_url

log = logging.getLogger("pluto.tab")


class Harmful(PageTrouble):
    """The page would hurt other tickers' pages."""


class Crashed(PageTrouble):
    """The page's renderer died: perhaps by this page, perhaps by another."""


class Guard:
    """Refuses windows, dialogs and downloads, and says when a page causes more than it may.

    `on_harm` is called with the reason, perhaps several times.
    """

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
        """Pluto had to read something because of the page."""
        self._spend(1 + characters / self._patience.event_size)

    def count_disturbance(self, counter: str, reason: str) -> None:
        self._counters[counter] += 1
        if not self._disturbances.take():
            self._on_harm(reason)

    def _spend(self, cost: float) -> None:
        if not self._events.take(cost):
            self._on_harm("the page floods")

    def _refuse_popups_of(self, page: Page) -> None:
        """Those of a window that the page opened are the page's own."""
        page.on("popup", self._on_popup)
        page.on("dialog", self._on_dialog)
        page.on("download", lambda _: self.count_disturbance("downloads_refused", "the page keeps offering downloads"))

    def _on_popup(self, popup: Page) -> None:
        self._refuse_popups_of(popup)
        self._loop.soon(popup.close)
        self.count_disturbance("popups_refused", "the page keeps opening windows")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._loop.soon(dialog.accept if dialog.type == "beforeunload" else dialog.dismiss)
        self.count_disturbance("dialogs_refused", "the page keeps opening dialogs")


class Tab:
    """One page of one symbol, and what it tells its feed. Times are monotonic seconds.

    `on_message` is called with each message of the probe after the feed has heard it. `on_trouble` is called when the
    page is of no use; the callee then closes the tab. Both run on the loop and must not block. `began_at` is None until
    the first document is there.
    """

    def __init__(
        self,
        feed: Feed,
        source_url: str,
        loop: Loop,
        *,
        on_message: Callable[[Tab, dict[str, Any]], None],
        on_trouble: Callable[[Tab, PageTrouble], None],
        patience: Patience | None = None,
        counters: Counter[str] | None = None,
        is_slim: bool = True,
    ) -> None:
        self.feed, self.is_slim = feed, is_slim
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.page: Page | None = None
        self.born_at = time.monotonic()
        self.began_at: float | None = None
        self.heard_at = 0.0
        self.priced_at: float | None = None  # when the document that is open now showed its first price
        self.reloaded_at = float("-inf")
        self.is_closed = False
        self._patience = patience or Patience()
        self._source_url, self._host, self._loop = source_url, urlsplit(source_url).netloc, loop
        self._on_message_heard, self._on_trouble = on_message, on_trouble
        self._guard = Guard(loop, self._patience, self.counters, self.cut_off)
        self._channel: CDPSession | None = None
        self._main_frame_id = ""
        self._refused_host = ""  # where the page was sent and not let go

    @property
    def ticker(self) -> Ticker:
        return self.feed.ticker

    # Opening, loading, closing. These call Playwright.

    def open(self, context: BrowserContext) -> None:
        """Opens the page and returns when its first document is there, or after `on_trouble`."""
        self.counters["pages_opened"] += 1
        try:
            page = self.page = context.new_page()
            page.on("crash", lambda _: self._on_crash())
            self._attach(page, context.new_cdp_session(page))
            self.load()
        except BrowserError as error:
            self.fail(PageTrouble(State.ERROR, network_reason(self._host, error, self._patience.answer)))
        if self.is_closed:  # while it was being opened
            self.close()

    def load(self) -> None:
        """Visits the symbol's page, for the first time or once more."""
        if self.page is None or self.is_closed:
            return
        self._refused_host = ""
        url = page_url(self._source_url, self.ticker)
        try:
            self.page.goto(url, wait_until="commit", timeout=self._patience.answer * 1000)
            self.began_at = self.heard_at = time.monotonic()
        except BrowserError as error:
            self.fail(self._load_trouble(error))

    def close(self) -> None:
        self.is_closed = True
        if self.page is not None:
            self.page.close()

    def ask(self, method: str) -> dict[str, Any]:
        """What the browser answers about this page; nothing once it has no channel."""
        return {} if self._channel is None or self.is_closed else self._channel.send(method)

    def _attach(self, page: Page, channel: CDPSession) -> None:
        settings = {"symbol": self.feed.symbol, "binding": BINDING, "slim": self.is_slim, "pulse": self._patience.pulse}
        settings |= {"maxMessage": self._patience.max_message, "maxRate": 5 * self._patience.event_rate}
        page.add_init_script(f"{PROBE}({json.dumps(settings)})")
        channel.on("Runtime.bindingCalled", self._on_binding)
        channel.on("Fetch.requestPaused", lambda event: self._loop.soon(self._on_document, event))
        self._guard.watch(page, channel)
        channel.send("Runtime.enable")
        channel.send("Runtime.addBinding", {"name": BINDING})
        stages = [{"resourceType": "Document", "requestStage": stage} for stage in ("Request", "Response")]
        channel.send("Fetch.enable", {"patterns": stages})
        self._main_frame_id = channel.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        self._channel = channel

    def _load_trouble(self, error: BrowserError) -> PageTrouble:
        if self._refused_host:
            reason = f"asked {self._host}, was sent to {self._refused_host}"
            return PageTrouble(State.ERROR, reason, void_price=True)
        return PageTrouble(State.ERROR, network_reason(self._host, error, self._patience.answer))

    # Judging.

    def check(self, now: float) -> None:
        """Gives the page up when it has closed itself or missed a deadline. Call it about once a second."""
        if self.began_at is None:
            if now - self.born_at > self._patience.opening:
                self.fail(PageTrouble(State.ERROR, "the page could not be opened: the browser doesn't get to it"))
        elif self.page is not None and self.page.is_closed():
            self.fail(PageTrouble(State.ERROR, "the page closed itself"))
        elif not self.feed.has_price and now - self.began_at > self._patience.first_price:
            self.fail(PageTrouble(State.ERROR, "the page shows no price that can be read"))

    def has_settled(self, now: float) -> bool:
        return self.began_at is not None and now - self.began_at > self._patience.settled

    def fail(self, trouble: PageTrouble) -> None:
        """The page is of no use any more."""
        if not self.is_closed:
            self._on_trouble(self, trouble)

    def cut_off(self, reason: str) -> None:
        """The page would hurt other pages."""
        if self.is_closed:
            return
        self.counters["pages_cut_off"] += 1
        self.fail(Harmful(State.ERROR, reason))

    def _on_crash(self) -> None:
        self.counters["pages_crashed"] += 1
        self.fail(Crashed(State.ERROR, "the page crashed"))

    def _on_document(self, event: dict[str, Any]) -> None:
        """A document, of the page or of an iframe, is asked for or answered: the one place where it is judged."""
        if self.is_closed or self._channel is None:
            return
        request = {"requestId": event["requestId"]}
        is_page = event["frameId"] == self._main_frame_id
        host = urlsplit(event["request"]["url"]).netloc
        if host != self._host or (self.is_slim and not is_page):
            self._count_refused_document(printable(host) if is_page else "")
            self._channel.send("Fetch.failRequest", {**request, "errorReason": "Aborted"})
            return
        try:
            if is_page and (status := event.get("responseStatusCode")) is not None:
                judge_answer(status, {header["name"].lower(): header["value"] for header in event["responseHeaders"]})
        except PageTrouble as trouble:
            self.fail(trouble)
        else:
            self._channel.send("Fetch.continueRequest", request)

    def _count_refused_document(self, host: str) -> None:
        """A page may show many iframes, which are advertisements, but may go nowhere; `host` is empty for an iframe."""
        self._refused_host = host
        if host:
            self._guard.count_disturbance("navigations_refused", "the page keeps leaving")
        else:
            self.counters["iframes_refused"] += 1
            self._guard.count_event()

    # What the probe says. Runs in Playwright's dispatcher, so no error may escape.

    def _on_binding(self, event: dict[str, Any]) -> None:
        payload = event["payload"]
        self._guard.count_event(len(payload))
        if event.get("name") != BINDING or self.is_closed:
            return
        if len(payload) > self._patience.max_message:
            self.cut_off("the page's texts are too long")
            return
        self.counters["messages"] += 1
        self.heard_at = time.monotonic()
        try:
            message = json.loads(payload)
            self.feed.hear(message, steady_ms(), time.time() * 1000)
        except PageTrouble as trouble:
            self.fail(trouble)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            self.counters["messages_malformed"] += 1
            log.debug("%s: malformed message: %s", self.ticker, printable(str(error)))
        else:
            self._note(message["kind"])
            if not self.is_closed:
                self._on_message_heard(self, message)

    def _note(self, kind: str) -> None:
        if kind == "start" and self.began_at is not None:
            self.began_at = self.heard_at
            self._guard.count_disturbance("pages_begun_again", "the page keeps loading itself again")
        if not self.feed.has_price:
            self.priced_at = None
        elif self.priced_at is None:
            self.priced_at = self.heard_at


def new_context(browser: Browser, source_url: str) -> BrowserContext:
    """A place for pages in en-US and UTC, whatever the machine's: prices are parsed in that locale only."""
    agent = (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{browser.version.partition('.')[0]}.0.0.0 Safari/537.36"
    )
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        locale="en-US",
        timezone_id="UTC",
        user_agent=agent,
        service_workers="block",
        accept_downloads=False,
    )
    context.add_cookies([{"name": COOKIE_NAME, "value": COOKIE_CHOICE, "url": source_url}])
    return context


def judge_answer(status: int, headers: dict[str, str]) -> None:
    """Raises PageTrouble for an answer that is no symbol page."""
    delay = retry_after(headers.get("retry-after", ""))
    if status == 404:
        raise PageTrouble(State.NOT_FOUND, "TradingView has no such symbol (HTTP 404)", void_price=True)
    if status in (403, 429):
        raise PageTrouble(State.BLOCKED, f"TradingView refuses (HTTP {status})", delay=delay)
    if status >= 400:
        raise PageTrouble(State.ERROR, f"TradingView has a problem (HTTP {status})", delay=delay)


def retry_after(text: str) -> float | None:
    """The seconds that an answer asks us to wait, given as such or as a date; an hour at most."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 1.0), 3600.0)


def network_reason(host: str, error: BrowserError, limit_s: float) -> str:
    """Why a page could not be loaded within `limit_s`, in a user's words."""
    text = first_line(error)
    if found := re.search(r"net::(ERR_\w+)", text):
        return f"{host} can't be reached: {NETWORK_ERRORS.get(found[1], found[1])}"
    if "Timeout" in text:
        return f"{host} can't be reached: no answer within {limit_s:.0f} s"
    return f"the page could not be opened: {text}"


def first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])
