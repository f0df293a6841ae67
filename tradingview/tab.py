"""One TradingView page: how it is opened, how long it may take, and when it is given up.

This file owns a page and its CDP channel from the first request to the close: it visits the symbol's address and hands
the probe's messages to the page's feed. What may be loaded is decided in gate.py, what stands in place of the page in
walls.py, what it may cost in guard.py, and which prices are believed in feed.py. It never decides when a ticker is
tried again and knows no other page. Everything runs on the thread that drives Playwright.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page
from playwright.sync_api import Error as BrowserError

from quotes import State, Ticker, steady_ms
from tradingview.feed import Feed, PageTrouble, printable
from tradingview.gate import Answer, Gate, SocketRefused
from tradingview.guard import Guard
from tradingview.loop import Loop
from tradingview.origins import origin_of
from tradingview.patience import Patience
from tradingview.probe import probe_script
from tradingview.site import (
    BINDING,
    CHALLENGES,
    COOKIE_CHOICE,
    COOKIE_NAME,
    NETWORK_ERRORS,
    page_url,
)
from tradingview.walls import Wall, is_symbol_page, judge_document

log = logging.getLogger("pluto.tab")


class Harmful(PageTrouble):
    """The page would hurt other tickers' pages."""


class Crashed(PageTrouble):
    """The page's renderer died: perhaps by this page, perhaps by another."""


class NoPrice(PageTrouble):
    """The page was there in time, but no price that can be read."""


class Tab:
    """One page of one symbol, and what it tells its feed. Times are monotonic seconds.

    `on_message` is called with each message of the probe after the feed has heard it. `on_trouble` is called when the
    page is of no use; the callee then closes the tab. Only a tab whose `wall` is set is to be kept: a person may solve
    the check in its window. Both are called on the loop and must not block.

    `slack` is the factor by which this page may take longer than usual. A slim page isn't laid out.
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
        slack: float = 1.0,
        is_headed: bool = False,
        is_slim: bool = True,
        challenges: Iterable[str] = CHALLENGES,
    ) -> None:
        self.feed, self.is_headed, self.is_slim, self.slack = feed, is_headed, is_slim, slack
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.page: Page | None = None
        self.wall: Wall | None = None  # what is shown in place of the page, in a window
        self.born_at = self.asked_at = time.monotonic()  # when it was last asked for a price
        self.began_at: float | None = None  # when its document came
        self.loaded_at: float | None = None  # DOMContentLoaded
        self.priced_at: float | None = None  # when its document showed its first price
        self.document: dict[str, Any] = {}  # what the probe said last of what sort of document it is
        self.heard_at = 0.0
        self.reloaded_at = float("-inf")
        self.is_closed = False
        self._is_symbol_page = False
        self._started_at: float | None = None  # the last document, since the page was last asked for
        self._source_url, self._source, self._loop = source_url, origin_of(source_url), loop
        self._patience = patience or Patience()
        self._on_message_heard, self._on_trouble = on_message, on_trouble
        self._guard = Guard(loop, self._patience, self.counters, self.cut_off)
        self._gate = Gate(
            self._source,
            loop,
            self._guard,
            self.counters,
            on_load=self._on_load,
            on_answer=self._on_answer,
            on_trouble=self.fail,
            is_headed=is_headed,
            challenges=challenges,
        )
        self._channel: CDPSession | None = None

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
            self.fail(PageTrouble(State.ERROR, network_reason(str(self._source), error, self._patience.answer)))
        if self.is_closed:  # while it was being opened
            self.close()

    def load(self) -> None:
        """Visits the symbol's page, for the first time or once more."""
        if self.page is None or self.is_closed:
            return
        self._gate.begin()
        self.wall, self._gate.shows_wall = None, False
        self.began_at, self._started_at, self.asked_at = None, None, time.monotonic()
        url = page_url(self._source_url, self.ticker)
        try:
            self.page.goto(url, wait_until="commit", timeout=self._patience.answer * 1000)
            self.began_at = self.heard_at = time.monotonic()
        except BrowserError as error:
            reason = network_reason(str(self._source), error, self._patience.answer)
            self.fail(self._gate.refusal() or PageTrouble(State.ERROR, reason))

    def close(self) -> None:
        self.is_closed = True
        if self.page is not None:
            self.page.close()

    def ask(self, method: str) -> dict[str, Any]:
        """What the browser answers about this page; nothing once it has no channel."""
        return {} if self._channel is None or self.is_closed else self._channel.send(method)

    def _attach(self, page: Page, channel: CDPSession) -> None:
        patience = self._patience
        script = probe_script(
            self.feed.symbol,
            slim=self.is_slim,
            pulse=patience.pulse,
            max_message=patience.max_message,
            max_rate=5 * patience.event_rate,
        )
        page.add_init_script(script)
        channel.on("Runtime.bindingCalled", self._on_binding)
        self._guard.watch(page, channel)
        channel.send("Runtime.enable")
        channel.send("Runtime.addBinding", {"name": BINDING})
        self._gate.watch(page, channel)
        self._channel = channel

    # Judging.

    def check(self, now: float) -> None:
        """Gives the page up when it has closed itself or missed a deadline. Call it about once a second."""
        if self.page is not None and self.page.is_closed():
            self.fail(PageTrouble(State.ERROR, "the page closed itself"))
        elif self.began_at is None:
            if now - self.asked_at > self._patience.opening:
                self.fail(PageTrouble(State.ERROR, "the page could not be opened: the browser doesn't get to it"))
        elif self.wall is None and not self.feed.has_price:
            self._check_loading(now)

    def _check_loading(self, now: float) -> None:
        loaded_for = 0.0 if self.loaded_at is None else now - self.loaded_at
        passing = self._gate.passing_since
        if passing is not None and now - passing > self._patience.passing:
            self.fail(Wall("TradingView asks for a check that doesn't pass by itself (HTTP 202)"))
        elif passing is None and not self._is_symbol_page and loaded_for > self._patience.recognised:
            self.fail(Wall("a bot wall, or TradingView has changed its page: try ./run.sh doctor"))
        elif loaded_for > self._patience.first_price * self.slack or now > self.deadline:
            self.fail(self.feed.refusal or NoPrice(State.ERROR, "the page shows no price that can be read"))

    @property
    def answers(self) -> list[Answer]:
        """The site's answers to the last request for the page, redirects included."""
        return self._gate.answers

    @property
    def deadline(self) -> float:
        """When it has taken too long for a price, whatever it waited for."""
        return self.asked_at + self._patience.first_price_in_all * self.slack

    def is_loading(self, now: float) -> bool:
        """Whether it still may show its first price: then its silence says nothing."""
        return self.priced_at is None and self.wall is None and now <= self.deadline

    def holds_up_others(self, now: float) -> bool:
        """Whether further pages had better wait: without a price, its scripts still load, or did so a moment ago."""
        if self.feed.has_price:
            return False
        if self.loaded_at is None:
            return now - self.born_at < self._patience.first_price
        return now - self.loaded_at < self._patience.loading

    @property
    def has_spoken(self) -> bool:
        """Whether its probe has said anything since its document came."""
        return self.began_at is not None and self.heard_at > self.began_at

    def has_settled(self, now: float) -> bool:
        return self.priced_at is not None and now - self.priced_at > self._patience.settled

    def is_being_solved(self, now: float) -> bool:
        """Whether a person seems to be at the wall's check."""
        return self.wall is not None and now - self._gate.challenged_at < self._patience.solving

    def fail(self, trouble: PageTrouble) -> None:
        """The page is of no use any more, unless a person solves the check in its window."""
        if self.is_closed:
            return
        if self.is_headed and isinstance(trouble, Wall) and not isinstance(trouble, SocketRefused):
            if self.wall is not None:
                return
            self.wall, self._gate.shows_wall = trouble, True
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

    def _on_load(self) -> None:
        self.feed.loads += 1

    def _on_answer(self, answer: Answer) -> None:
        self.feed.http_status = answer.status
        if answer.date is not None:
            self.feed.hear_date(answer.date, steady_ms())

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
            self._hear(message)
        except PageTrouble as trouble:
            self.fail(trouble)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            self.counters["messages_malformed"] += 1
            log.debug("%s: malformed message: %s", self.ticker, printable(str(error)))
        else:
            if not self.is_closed:
                self._on_message_heard(self, message)

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "document":
            self._on_document(message)
            return
        if kind != "start" and self.wall is not None:  # it stands in place of the page
            return
        self.feed.hear(message, steady_ms(), time.time() * 1000)
        if kind == "start":
            self._on_start()
        elif self.priced_at is None and self.feed.has_price:
            self.priced_at = self.heard_at

    def _on_start(self) -> None:
        """Another document. What reloads itself before it showed a price gains no time by it."""
        if self.priced_at is not None:
            self.asked_at = self.heard_at
        self._is_symbol_page, self.loaded_at, self.priced_at = False, None, None
        before, self._started_at = self._started_at, self.heard_at
        if before is None:
            return
        is_leisurely = self.heard_at - before > self._patience.leisurely
        if self.wall is None or not is_leisurely:
            self._guard.count_disturbance("pages_begun_again", "the page keeps loading itself again")

    def _on_document(self, facts: dict[str, Any]) -> None:
        """What sort of document it is; while the site says that it will lead on by itself, it isn't judged."""
        self.document, self._is_symbol_page = facts, is_symbol_page(facts)
        if facts.get("loaded") is True and self.loaded_at is None:
            self.loaded_at = self.heard_at
        trouble = judge_document(facts)
        if trouble is not None and (self._gate.passing_since is None or not isinstance(trouble, Wall)):
            self.fail(trouble)
        elif self._is_symbol_page and self.wall is not None:
            self.wall, self._gate.shows_wall, self.asked_at = None, False, self.heard_at
            self.counters["walls_passed"] += 1
            log.info("%s: the check is solved", self.ticker)


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


def network_reason(host: str, error: BrowserError, limit_s: float) -> str:
    """Why a page could not be loaded within `limit_s`, in a user's words."""
    text = first_line(error)
    if found := re.search(r"net::(ERR_\w+)", text):
        return f"{host} can't be reached: {NETWORK_ERRORS.get(found[1], found[1])}"
    if "Timeout" in text:
        return f"{host} can't be reached: no answer within {limit_s:.0f} s"
    return f"the page could not be opened: {text}"


def why_unreachable(context: BrowserContext, source_url: str, limit_s: float) -> str | None:
    """Why the pages' host can't be reached, if so; a small file of it is asked for."""
    page = context.new_page()
    try:
        page.goto(f"{source_url}/robots.txt", timeout=limit_s * 1000)
    except BrowserError as error:
        return network_reason(str(origin_of(source_url)), error, limit_s)
    finally:
        page.close()
    return None


def first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])
