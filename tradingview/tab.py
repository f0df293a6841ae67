"""One TradingView page: how Pluto opens it, how long it may take, and when Pluto gives it up.

This file owns a page and its CDP channel from the first request to the close. It visits the symbol's address and hands
the probe's messages to the page's feed. It never decides what may load (gate.py), what counts as a wall (walls.py),
what the page may cost (guard.py), which prices to believe (feed.py), or when to try a ticker again. It knows no other
page. Everything runs on the thread that drives Playwright.
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

from quotes import State, Ticker, steady_ms, wall_ms
from tradingview.diagnosis import first_line
from tradingview.feed import Feed, PageTrouble, printable
from tradingview.gate import Answer, Gate, SocketRefused
from tradingview.guard import Guard
from tradingview.loop import Loop
from tradingview.origins import origin_of
from tradingview.patience import Patience
from tradingview.probe import BINDING, probe_script
from tradingview.site import CHALLENGES, COOKIE_CHOICE, COOKIE_NAME, NETWORK_ERRORS, page_url
from tradingview.walls import Wall, is_symbol_page, judge_document

log = logging.getLogger("pluto.tab")


class Harmful(PageTrouble):
    """The page would hurt other tickers' pages."""


class Crashed(PageTrouble):
    """The page's renderer died; this page or another one in it is the cause."""


class NoPrice(PageTrouble):
    """The page loaded in time, but showed no readable price."""


class Tab:
    """One page of one symbol, and what it tells its feed. Times are monotonic seconds.

    The tab gives each message of the probe to the feed, then to `on_message`. It calls `on_trouble` when the page is
    useless: that must close the tab, unless its `wall` is set, because a person may solve the check in its window. Both
    are called on the loop and must not block.

    `slack` is the factor by which this page may take longer than usual. A slim page has no layout.
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
        self.wall: Wall | None = None  # the wall that its window shows instead of the page
        self.born_at = self.asked_at = time.monotonic()  # asked_at: since when Pluto waits for its price
        self.began_at: float | None = None  # when its document arrived
        self.loaded_at: float | None = None  # DOMContentLoaded
        self.priced_at: float | None = None  # when its document showed its first price
        self.document: dict[str, Any] = {}  # what sort of document it is, as the probe last said
        self.heard_at = 0.0
        self.reloaded_at = float("-inf")
        self.is_closed = False
        self._is_symbol_page = False
        self._started_at: float | None = None  # when its document began; None: none has since asked_at
        self._source_url, self._source, self._loop = source_url, origin_of(source_url), loop
        self._patience = patience or Patience()
        self._on_message_heard, self._on_trouble = on_message, on_trouble
        self._guard = Guard(loop, self._patience, self.counters, self.cut_off)
        self._gate = Gate(
            feed,
            self._source,
            loop,
            self._guard,
            self.counters,
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
        """Opens the page. Returns when its first document has arrived, or after `on_trouble`."""
        self.counters["pages_opened"] += 1
        try:
            page = self.page = context.new_page()
            page.on("crash", lambda _: self._on_crash())
            self._attach(page, context.new_cdp_session(page))
            self.load()
        except BrowserError as error:
            self.fail(PageTrouble(State.ERROR, network_reason(str(self._source), error, self._patience.answer)))
        if self.is_closed:  # closed while it was opening
            self.close()

    def load(self) -> None:
        """Visits the symbol's address, for the first time or again."""
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
        """The browser's answer about this page; empty without a channel."""
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
        """Gives the page up if it has closed itself or missed a deadline. Call it about once a second."""
        if self.page is not None and self.page.is_closed():
            self.fail(PageTrouble(State.ERROR, "the page closed itself"))
        elif self.began_at is None:
            if now - self.asked_at > self._patience.opening:
                self.fail(PageTrouble(State.ERROR, "the browser is too busy to open the page"))
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
        """The latest time for its first price, whatever delays it."""
        return self.asked_at + self._patience.first_price_in_all * self.slack

    def is_loading(self, now: float) -> bool:
        """Whether it may still show its first price. Until then its silence means nothing."""
        return self.priced_at is None and self.wall is None and now <= self.deadline

    def holds_up_others(self, now: float) -> bool:
        """Whether other pages should wait: it has no price, and its scripts are loading or have just loaded.

        A page that was slow to load may be as slow to show its price.
        """
        patience = self._patience
        if self.feed.has_price:
            return False
        if self.loaded_at is None:
            return now - self.asked_at < patience.first_price
        took = min(self.loaded_at - self.asked_at, patience.first_price)
        return now - self.loaded_at < max(patience.loading, took)

    @property
    def has_spoken(self) -> bool:
        """Whether its probe has sent a message since its document arrived."""
        return self.began_at is not None and self.heard_at > self.began_at

    def has_settled(self, now: float) -> bool:
        return self.priced_at is not None and now - self.priced_at > self._patience.settled

    def is_being_solved(self, now: float) -> bool:
        """Whether a person seems to be solving the wall's check."""
        return self.wall is not None and now - self._gate.challenged_at < self._patience.solving

    def fail(self, trouble: PageTrouble) -> None:
        """Reports that the page is useless. A headed page with a wall stays open: a person may solve the check."""
        if self.is_closed:
            return
        if self.is_headed and isinstance(trouble, Wall) and not isinstance(trouble, SocketRefused):
            if self.wall is not None:
                return
            self.wall, self._gate.shows_wall = trouble, True
        self._on_trouble(self, trouble)

    def cut_off(self, reason: str) -> None:
        """Gives the page up because it would hurt other pages."""
        if self.is_closed:
            return
        self.counters["pages_cut_off"] += 1
        self.fail(Harmful(State.ERROR, reason))

    def _on_crash(self) -> None:
        self.counters["pages_crashed"] += 1
        self.fail(Crashed(State.ERROR, "the page crashed"))

    # Messages of the probe. These run in Playwright's dispatcher, so no error may escape.

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
            if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
                self.counters["messages_malformed"] += 1
                return
            self._hear(message["kind"], message)
        except PageTrouble as trouble:
            self.fail(trouble)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            self.counters["messages_malformed"] += 1
            log.debug("%s: malformed message: %s", self.ticker, printable(str(error)))
        else:
            if not self.is_closed:
                self._on_message_heard(self, message)

    def _hear(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "document":
            self._on_document(message)
            return
        if kind != "start" and self.wall is not None:  # the messages are the wall's
            return
        self.feed.hear(message, steady_ms(), wall_ms())
        if kind == "start":
            self._on_start()
        elif self.priced_at is None and self.feed.has_price:
            self.priced_at = self.heard_at

    def _on_start(self) -> None:
        """A new document begins. A page that reloads before its first price gains no time."""
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
        """Judges the document. While the site shows a check that passes by itself, a wall is no trouble."""
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
    """A context in en-US and UTC, whatever the machine's settings: Pluto parses prices in that locale only."""
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
    """Why a page could not load within `limit_s`, in a user's words."""
    text = first_line(error)
    if found := re.search(r"net::(ERR_\w+)", text):
        return f"{host} can't be reached: {NETWORK_ERRORS.get(found[1], found[1])}"
    if "Timeout" in text:
        return f"{host} can't be reached: no answer within {limit_s:.0f} s"
    return f"the page could not be opened: {text}"


def why_unreachable(context: BrowserContext, source_url: str, limit_s: float) -> str | None:
    """Why the pages' host can't be reached; None if it can. Requests a small file from it."""
    page = context.new_page()
    try:
        page.goto(f"{source_url}/robots.txt", timeout=limit_s * 1000)
    except BrowserError as error:
        return network_reason(str(origin_of(source_url)), error, limit_s)
    finally:
        page.close()
    return None
