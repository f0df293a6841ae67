"""The scraper layer: one TradingView page per ticker in a real Chromium, and every price those pages show.

This file owns the browser, its pages, what is believed of what they tell, and how each comes back after a failure.
It imports neither Flask nor gevent and knows nothing of clients: quotes leave through one callable, `emit`.

Threads: `Scraper`'s public methods may be called from any thread; all else runs on the scraper thread, which sleeps in
one Playwright call while events, commands and the tick run as greenlets inside that thread's event loop. A sync
Playwright call made in a bare loop callback would hang, so `_spawn` is the only way in.

    Scraper   the thread, the wanted tickers, starting the browser again when it ends
    Session   one life of the browser: its context and tabs, reconciled with the wanted tickers
    Tab       one open page and its channel
    Feed      what the pages of one ticker have told, and what of it is true now; pure
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote
from urllib.parse import urlsplit

import psutil
from greenlet import greenlet
from playwright.sync_api import BrowserContext, CDPSession, Page, Playwright, Response, sync_playwright
from playwright.sync_api import Error as BrowserError

from quotes import (
    PlutoError,
    Quote,
    Source,
    State,
    Ticker,
    UnreadablePrice,
    decimals_of,
    parse_price,
    price_from_number,
    split_ticker,
)

log = logging.getLogger("pluto.scraper")

PROOF_LIMIT_MS = 10_000  # a price is live while its feed was proven alive this recently: the wire contract's figure
PULSE_S = 2.0  # how often the probe says that its page is running
PULSE_LIMIT_S = 8.0  # a page silent for this long is frozen
FROZEN_LIMIT_S = 12.0  # a page that stays frozen after its script was stopped is replaced
DISAGREEMENT_LIMIT_MS = 2_000  # the page paints what its socket said within 125 ms; this long apart is no throttle
PRICE_DEADLINE_S = 20.0  # a page that shows no readable price by then is unreadable
GOTO_TIMEOUT_S = 20.0
TICK_S = 1.0
MAX_OPENING = 4  # pages opening at once: more only slows each other down
MAX_MESSAGE = 64 * 1024  # characters of one message of the probe
MAX_TEXT = 200  # characters kept of a text the page gave us

RETRY_FIRST_S, RETRY_LIMIT_S = 1.0, 60.0
NOT_FOUND_RETRY_S = 600.0
BLOCKED_RETRY_S = 120.0

BINDING = "plutoProbe"
PROBE = (Path(__file__).parent / "probe.js").read_text(encoding="utf-8")

BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--process-per-site",  # the pages of a context share one renderer: 10-12 MB a page instead of 57
    "--blink-settings=imagesEnabled=false",
    "--disable-remote-fonts",
]

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
}
BOT_WALL_TITLES = ("Just a moment", "Verify you are human")
LIVE_TITLE = re.compile(r"(?P<symbol>\S+)\s+(?P<price>[\d,.]+)\s+[▲▼]")

NUMBER_FIELDS = {  # TradingView's name of a quote field, and ours
    "ch": "change",
    "chp": "change_percent",
    "volume": "volume",
    "high_price": "high",
    "low_price": "low",
    "open_price": "open",
    "bid": "bid",
    "ask": "ask",
}
TEXT_FIELDS = {"currency_code": "currency", "description": "description"}


class BrowserMissing(PlutoError):
    code = "browser_missing"


class PageTrouble(PlutoError):
    """A page that can't give a price: the state its ticker gets, the reason, and whether the last price is void."""

    code = "page_trouble"

    def __init__(self, state: State, reason: str, *, void_price: bool = False) -> None:
        super().__init__(reason)
        self.state, self.reason, self.void_price = state, reason, void_price


@dataclass(frozen=True)
class ScraperSettings:
    """`source_url` has no trailing slash; `browser` is a path or None; `simulated` marks every quote from the start."""

    source_url: str = "https://www.tradingview.com"
    browser: str | None = None
    headed: bool = False
    simulated: bool = False


def page_url(source_url: str, ticker: Ticker) -> str:
    exchange, symbol = split_ticker(ticker)
    return f"{source_url}/symbols/{url_quote(symbol, safe='')}/?exchange={url_quote(exchange, safe='')}"


def find_browser(path: str | None, playwrights_own: str | None = None) -> str:
    """The browser to start: the path if given, else Playwright's own if installed, else one on the PATH.

    Raises BrowserMissing with what to do about it.
    """
    if path:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        raise BrowserMissing(f"{path} is no program that can be run; set PLUTO_BROWSER to a Chromium, or unset it.")
    if playwrights_own and os.access(playwrights_own, os.X_OK):
        return playwrights_own
    for name in BROWSER_NAMES:
        if found := shutil.which(name):
            return found
    raise BrowserMissing("No Chromium found: install the package 'chromium', or set PLUTO_BROWSER to a browser's path.")


# --- what a page tells ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Why a ticker has no page that works, and when (ms) it is tried again."""

    state: State
    reason: str
    next_try_at: int


class Feed:
    """What the pages of one ticker have told, and what of it is true now.

    Pure: it has no clock and no browser. Times are ms since the epoch: `at` by the page's clock, `now` by ours.
    Counts what it refuses into `counters`. One object serves a ticker from when it is added until it is removed.
    """

    def __init__(self, ticker: Ticker, *, simulated: bool, counters: Counter[str]) -> None:
        self.ticker = ticker
        self.told: Quote | None = None  # the quote last emitted
        self.failures = 0  # in a row
        self.complaint: str | None = None  # the reason last logged
        exchange, symbol = split_ticker(ticker)
        self.symbol = f"{exchange}:{symbol}"
        self.trouble: Trouble | None = None
        self._counters = counters
        self._known = Quote(ticker, State.STARTING, exchange=exchange, simulated=simulated)
        self._frame: dict[str, Any] = {}  # the page's quote frames, merged: each holds only what changed
        self._proven_at = 0.0  # when the page's feed last gave a sign of life
        self._doubt: str | None = None  # why the last sign of life no longer counts
        self._resolved = False  # the page said that it shows our symbol
        self._confirmed = False  # the page that is open now has shown a price
        self._feed_open = False
        self._disagreeing_since: float | None = None

    @property
    def has_price(self) -> bool:
        """Whether the page that is open now has shown a price."""
        return self._confirmed

    def quote(self, now: float) -> Quote:
        """The ticker's quote as it is true at `now`."""
        if self.trouble is not None:
            state, reason = self.trouble.state, self.trouble.reason
            return replace(self._known, state=state, reason=reason, next_try_at=self.trouble.next_try_at)
        state, stale_reason = self._state(now)
        return replace(self._known, state=state, reason=stale_reason)

    def _state(self, now: float) -> tuple[State, str | None]:
        if self._known.price_text is None:
            return State.STARTING, None
        if self._known.source is Source.SCRIPT:
            return State.SNAPSHOT, None
        if self._doubt is not None:
            return State.STALE, self._doubt
        if self._disagreeing_since is not None and now - self._disagreeing_since > DISAGREEMENT_LIMIT_MS:
            return State.STALE, "socket and page disagree"
        if not self._confirmed or now - self._proven_at > PROOF_LIMIT_MS:
            return State.STALE, "the page's feed gives no sign of life"
        return State.LIVE, None

    def reopen(self) -> None:
        """A page begins anew: nothing the one before said still proves anything."""
        self.trouble = None
        self._frame = {}
        self._resolved = self._confirmed = self._feed_open = False
        self._disagreeing_since = None
        self.doubt("its page is being opened again")

    def doubt(self, reason: str) -> None:
        """Nothing counts as proof until the page gives a new sign of life."""
        self._doubt = reason
        self._proven_at = 0.0

    def fail(self, trouble: Trouble, *, void_price: bool) -> None:
        self.trouble = trouble
        if void_price:
            self._known = Quote(
                self.ticker, State.STARTING, exchange=self._known.exchange, simulated=self._known.simulated
            )

    def hear(self, message: dict[str, Any], now: float) -> None:
        """Takes a message of the probe. Raises PageTrouble when the page is no use, ValueError when it isn't a message."""
        at = message.get("at")
        if not isinstance(at, int | float):
            raise ValueError("a message without its time")
        match message.get("kind"):
            case "start":
                self.reopen()
            case "frame":
                self._on_frame(message, at, now)
            case "price":
                self._on_price(str(message.get("text", "")), at, now)
            case "pulse":
                self._on_pulse(message, at)
            case "page":
                self._on_page(message, at, now)
            case kind:
                raise ValueError(f"a message of unknown kind {kind!r}")

    def _on_frame(self, message: dict[str, Any], at: float, now: float) -> None:
        if message.get("symbol") != self.symbol:
            raise ValueError("a frame of another symbol")
        if message.get("status") != "ok":
            raise _frame_trouble(self.symbol, _clean(message.get("error") or message.get("status")))
        fields = message.get("fields")
        if not isinstance(fields, dict):
            raise ValueError("a frame without fields")
        self._frame.update(fields)
        self._feed_open = True
        self._prove(at)
        if fields.get("lp") is not None or "pricescale" in fields:
            self._take_frame_price(at, now, is_new=fields.get("lp") is not None)
        self._known = replace(self._known, **_frame_values(fields))

    def _take_frame_price(self, at: float, now: float, *, is_new: bool) -> None:
        decimals = decimals_of(self._frame.get("pricescale"), self._frame.get("minmov"))
        source_time = _milliseconds(self._frame.get("lp_time"))
        try:
            text = price_from_number(self._frame.get("lp"), decimals)
        except UnreadablePrice as refused:
            self._refuse(refused)
            return
        shown_at = at if is_new or self._known.timestamp is None else self._known.timestamp
        self._show(text, Source.SOCKET, shown_at, now, source_time)

    def _on_price(self, text: str, at: float, now: float) -> None:
        if not self._resolved:
            return
        try:
            price_text = parse_price(text)
        except UnreadablePrice as refused:
            self._refuse(refused)
            return
        if self._feed_open and "lp" in self._frame:
            self._compare(price_text, at)
        else:
            self._prove(at)
            self._show(price_text, Source.DOM, at, now, None)

    def _on_pulse(self, message: dict[str, Any], at: float) -> None:
        self._feed_open = message.get("feed") == "open"
        proven = message.get("proven")
        if isinstance(proven, int | float) and 0 < proven <= at:
            self._prove(proven)
        if message.get("explained") is True:
            self._disagreeing_since = None

    def _on_page(self, message: dict[str, Any], at: float, now: float) -> None:
        title = _clean(message.get("title"))
        if message.get("notFound") is True:
            raise PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {self.symbol}", void_price=True)
        if title.startswith(BOT_WALL_TITLES):
            raise PageTrouble(State.BLOCKED, f'TradingView asks "{title}"')
        resolved = _clean(message.get("resolved"))
        if resolved and resolved != self.symbol:
            raise PageTrouble(State.ERROR, f"asked for {self.symbol}, page shows {resolved}", void_price=True)
        self._resolved = bool(resolved)
        self._describe(message)
        self._take_snapshot(message.get("offer"), at, now)

    def _describe(self, message: dict[str, Any]) -> None:
        description = _clean(message.get("description")) or self._known.description
        self._known = replace(
            self._known,
            description=description,
            currency=_clean(message.get("currency")) or self._known.currency,
            calculated="calculated by tradingview" in (description or "").lower(),
            simulated=self._known.simulated or message.get("simulated") is True,
        )

    def _take_snapshot(self, offer: object, at: float, now: float) -> None:
        """Structured data carries a dated price: the best there is until the page's feed has spoken."""
        if not self._resolved or self._known.price_text is not None or not isinstance(offer, dict):
            return
        try:
            text = parse_price(str(offer.get("price")))
        except UnreadablePrice as refused:
            self._refuse(refused)
            return
        if (dated := _iso_milliseconds(offer.get("priceValidUntil"))) is not None:
            self._known = replace(
                self._known,
                price_text=text,
                source=Source.SCRIPT,
                source_time=dated,
                timestamp=round(at),
                received_at=round(now),
            )

    def _show(self, text: str, source: Source, at: float, now: float, source_time: int | None) -> None:
        timestamp = self._known.timestamp
        if timestamp is not None and round(at) < timestamp and self._confirmed:
            self._counters["prices_out_of_order"] += 1
            return
        self._confirmed = True
        self._counters[f"prices_{source}"] += 1
        self._known = replace(
            self._known,
            price_text=text,
            source=source,
            source_time=source_time,
            timestamp=round(at),
            received_at=round(now),
        )

    def _compare(self, shown: str, at: float) -> None:
        """The DOM showed a price that no recent frame explains."""
        if float(shown) == float(self._frame["lp"]):
            self._disagreeing_since = None
        elif self._disagreeing_since is None:
            self._disagreeing_since = at
            self._counters["disagreements"] += 1

    def _prove(self, at: float) -> None:
        if at > self._proven_at:
            self._proven_at = at
            self._doubt = None

    def _refuse(self, refused: UnreadablePrice) -> None:
        self._counters[f"refused: {refused.reason}"] += 1


def _frame_trouble(symbol: str, error: str) -> PageTrouble:
    if error == "no_such_symbol":
        return PageTrouble(State.NOT_FOUND, f"TradingView has no symbol {symbol}", void_price=True)
    return PageTrouble(State.ERROR, f"TradingView refuses to quote {symbol}: {error}")


def _frame_values(fields: dict[str, Any]) -> dict[str, Any]:
    """The parts of a quote that a frame's fields give: only what is there, finite and of the right type."""
    values: dict[str, Any] = {}
    for theirs, ours in NUMBER_FIELDS.items():
        number = fields.get(theirs)
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e18:
            values[ours] = float(number)
    for theirs, ours in TEXT_FIELDS.items():
        if text := _clean(fields.get(theirs)):
            values[ours] = text
    if "description" in values:
        values["calculated"] = "calculated by tradingview" in values["description"].lower()
    return values


def _clean(text: object) -> str:
    """A text of the page made fit to keep, log and send: printable, on one line, of bounded length."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text[:MAX_TEXT] if character.isprintable()).strip()


def _milliseconds(seconds: object) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return None
    return round(seconds * 1000)


def _iso_milliseconds(text: object) -> int | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return round(moment.timestamp() * 1000)


# --- one life of the browser ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Tab:
    """One page and its channel. `heard_at` and `opened_at` are monotonic seconds; None while it is opening."""

    feed: Feed
    page: Page | None = None
    channel: CDPSession | None = None
    opened_at: float | None = None
    heard_at: float = 0.0
    stopped_script: bool = False


class Session:
    """One life of the browser: a context whose tabs are kept in step with the wanted tickers."""

    def __init__(self, playwright: Playwright, scraper: Scraper) -> None:
        self._playwright = playwright
        self._scraper = scraper
        self._settings = scraper.settings
        self._counters = scraper.counters
        self._tabs: dict[Ticker, Tab] = {}
        self._loop = asyncio.get_running_loop()
        # Calls that are under way when the browser ends have nobody left to take their errors.
        self._loop.set_exception_handler(lambda _, context: log.debug("%s", context["message"]))

    def run(self) -> None:
        """Starts the browser and returns when `Scraper.stop` was called; raises BrowserError when it ends by itself."""
        settings = self._settings
        path = find_browser(settings.browser, self._playwright.chromium.executable_path)
        browser = self._playwright.chromium.launch(
            executable_path=path,
            args=BROWSER_ARGS,
            headless=not settings.headed,
            chromium_sandbox=os.geteuid() != 0,  # Chromium refuses to be sandboxed as root
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        try:
            self._context = self._new_context(browser.version, browser.new_context)
            self._control = self._context.new_page()
            self._control.bring_to_front()
            mode = "headed" if settings.headed else "headless"
            log.info("browser: %s (%s), version %s", path, mode, browser.version)
            self._scraper.on_session(self)
            self._loop.call_soon(self._spawn, self._check_source)
            self._loop.call_soon(self._spawn, self._tick)
            self._context.wait_for_event("close", timeout=0)
        finally:
            if browser.is_connected():
                browser.close()

    def _new_context(self, version: str, new_context: Callable[..., BrowserContext]) -> BrowserContext:
        """Pages in en-US and UTC, whatever the machine's: prices are parsed in that locale only."""
        agent = (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/{version.partition('.')[0]}.0.0.0 Safari/537.36"
        )
        return new_context(
            viewport={"width": 1280, "height": 800},
            locale="en-US",
            timezone_id="UTC",
            user_agent=agent,
            service_workers="block",
            accept_downloads=False,
        )

    def _check_source(self) -> None:
        """Says so once, when the pages' host can't be reached: there may be no ticker yet to say it."""
        try:
            self._control.goto(f"{self._settings.source_url}/robots.txt", timeout=GOTO_TIMEOUT_S * 1000)
            self._control.goto("about:blank")
        except BrowserError as error:
            if not self._scraper.stopping:
                log.warning("%s; its prices come as soon as it can be", self._network_reason(error))

    def wake(self) -> None:
        """Any thread: the wanted tickers changed, or the end was asked for."""
        try:
            self._loop.call_soon_threadsafe(self._spawn, self._reconcile)
        except RuntimeError:  # the loop is closed: the next session reconciles from the start
            return

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        """Inside the loop: runs work that may call Playwright, up to its first wait.

        No error may escape: it would resurface in somebody else's call.
        """

        def body() -> None:
            try:
                work(*arguments)
            except BrowserError as error:
                log.debug("%s: %s", work.__name__, _first_line(error))
            except Exception:
                log.exception("%s failed", work.__name__)

        greenlet(body).switch()

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._spawn, self._tick)
        now = time.monotonic()
        open_tabs = [tab for tab in self._tabs.values() if tab.opened_at is not None]
        self._check_frozen(open_tabs, now)
        for tab in open_tabs:
            self._check_unreadable(tab, now)
            self._scraper.tell(tab.feed)
        self._reconcile()

    def _check_frozen(self, tabs: list[Tab], now: float) -> None:
        """Pages of a context share a main thread: an endless loop in one silences all, so they are doubted together."""
        if all(now - tab.heard_at <= PULSE_LIMIT_S for tab in tabs):
            return
        for tab in tabs:
            silence = now - tab.heard_at
            if silence > FROZEN_LIMIT_S:
                self._fail(tab, PageTrouble(State.ERROR, "the page is frozen"))
            elif silence > PULSE_LIMIT_S - PULSE_S:
                tab.feed.doubt("the page is frozen")
                if not tab.stopped_script:
                    self._counters["pages_frozen"] += 1
                    tab.stopped_script = True
                    self._spawn(self._stop_script, tab)

    def _check_unreadable(self, tab: Tab, now: float) -> None:
        opened_at = tab.opened_at or now
        if self._is_current(tab) and not tab.feed.has_price and now - opened_at > PRICE_DEADLINE_S:
            self._fail(tab, PageTrouble(State.ERROR, "the page shows no price that can be read"))

    def _stop_script(self, tab: Tab) -> None:
        """Ends an endless loop from outside; V8 takes this even while the page's main thread is busy."""
        log.warning("%s: the page is frozen, its script is stopped", tab.feed.ticker)
        if tab.channel is not None:
            tab.channel.send("Runtime.terminateExecution")

    def _reconcile(self) -> None:
        if self._scraper.stopping:
            self._context.close()
            return
        feeds = self._scraper.wanted_feeds()
        for ticker in [ticker for ticker, tab in self._tabs.items() if feeds.get(ticker) is not tab.feed]:
            self._close(self._tabs.pop(ticker))
        now = _now_ms()
        for ticker, feed in feeds.items():
            if sum(tab.opened_at is None for tab in self._tabs.values()) >= MAX_OPENING:
                return
            if ticker not in self._tabs and (feed.trouble is None or feed.trouble.next_try_at <= now):
                self._tabs[ticker] = tab = Tab(feed)
                self._spawn(self._open, tab)

    def _open(self, tab: Tab) -> None:
        feed = tab.feed
        feed.reopen()
        self._scraper.tell(feed)
        self._counters["pages_opened"] += 1
        try:
            page = tab.page = self._context.new_page()
            page.on("crash", lambda _: self._on_crash(tab))
            self._attach_probe(tab, page)
            tab.heard_at = time.monotonic()
            response = page.goto(
                page_url(self._settings.source_url, feed.ticker),
                wait_until="commit",
                timeout=GOTO_TIMEOUT_S * 1000,
            )
            self._judge(response)
            tab.opened_at = tab.heard_at = time.monotonic()
        except PageTrouble as trouble:
            self._fail(tab, trouble)
        except BrowserError as error:
            self._fail(tab, PageTrouble(State.ERROR, self._network_reason(error)))
        self._reconcile()
        if not self._is_current(tab):
            self._close(tab)

    def _attach_probe(self, tab: Tab, page: Page) -> None:
        slim = not self._settings.headed
        probe_settings = {"symbol": tab.feed.symbol, "binding": BINDING, "slim": slim, "pulse": PULSE_S}
        page.add_init_script(f"{PROBE}({json.dumps(probe_settings)})")
        channel = tab.channel = self._context.new_cdp_session(page)
        channel.send("Runtime.enable")
        channel.send("Runtime.addBinding", {"name": BINDING})
        channel.on("Runtime.bindingCalled", lambda event: self._on_message(tab, event))

    def _judge(self, response: Response | None) -> None:
        """Raises PageTrouble for an answer that is no symbol page."""
        if response is None:
            raise PageTrouble(State.ERROR, "the browser gave no answer")
        host, asked = urlsplit(response.url).netloc, urlsplit(self._settings.source_url).netloc
        if host != asked:
            raise PageTrouble(State.ERROR, f"asked {asked}, was sent to {host}", void_price=True)
        if response.status == 404:
            raise PageTrouble(State.NOT_FOUND, "TradingView has no such symbol (HTTP 404)", void_price=True)
        if response.status in (403, 429):
            raise PageTrouble(State.BLOCKED, f"TradingView refuses (HTTP {response.status})")
        if response.status >= 400:
            raise PageTrouble(State.ERROR, f"TradingView has a problem (HTTP {response.status})")

    def _network_reason(self, error: BrowserError) -> str:
        host = urlsplit(self._settings.source_url).netloc
        text = _first_line(error)
        if found := re.search(r"net::(ERR_\w+)", text):
            return f"{host} can't be reached: {NETWORK_ERRORS.get(found[1], found[1])}"
        if "Timeout" in text:
            return f"{host} can't be reached: no answer within {GOTO_TIMEOUT_S:.0f} s"
        return f"the page could not be opened: {text}"

    def _is_current(self, tab: Tab) -> bool:
        return self._tabs.get(tab.feed.ticker) is tab

    def _on_message(self, tab: Tab, event: dict[str, Any]) -> None:
        """A message of the probe. Runs in Playwright's dispatcher, so nothing may escape."""
        if event.get("name") != BINDING or not self._is_current(tab):
            return
        self._counters["messages"] += 1
        tab.heard_at = time.monotonic()
        tab.stopped_script = False
        try:
            payload = event["payload"]
            if len(payload) > MAX_MESSAGE:
                raise ValueError("a message that is too long")
            tab.feed.hear(json.loads(payload), _now_ms())
        except PageTrouble as trouble:
            self._fail(tab, trouble)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            self._counters["messages_malformed"] += 1
            log.debug("%s: malformed message: %s", tab.feed.ticker, error)
        else:
            self._scraper.tell(tab.feed)

    def _on_crash(self, tab: Tab) -> None:
        self._counters["pages_crashed"] += 1
        self._fail(tab, PageTrouble(State.ERROR, "the page crashed"))

    def _fail(self, tab: Tab, trouble: PageTrouble) -> None:
        """The one place where a page is given up: its ticker says why and when it is tried again."""
        if not self._is_current(tab):
            return
        del self._tabs[tab.feed.ticker]
        self._scraper.fail(tab.feed, trouble)
        self._close(tab)

    def _close(self, tab: Tab) -> None:
        """Closes the tab's page, soon: the caller may be a handler that Playwright waits for."""
        if tab.page is not None:
            self._loop.call_soon(self._spawn, tab.page.close)
            tab.page = None


# --- the thread -------------------------------------------------------------------------------------------------------


class Scraper:
    """Keeps one page open per wanted ticker, for as long as it runs, and emits a quote at every change.

    `emit` is called on the scraper thread with each new quote and must return at once.
    """

    def __init__(self, settings: ScraperSettings, emit: Callable[[Quote], None]) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.stopping = False
        self._emit = emit
        self._lock = threading.Lock()
        self._wanted: dict[Ticker, Feed] = {}  # changed by any thread, under the lock
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def start(self) -> None:
        self._thread.start()

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

    def stop(self, timeout: float = 2.0) -> None:
        """Any thread but the scraper's: ends the browser and the thread; what doesn't end in `timeout` s is killed."""
        self.stopping = True
        self._wake()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("the browser doesn't end by itself and is killed")
            _kill_drivers()

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
            started = time.monotonic()
            try:
                self._run_session()
            except (BrowserError, PlutoError) as error:
                reason = _first_line(error)
            except Exception as error:
                log.exception("the browser's session failed")
                reason = _first_line(error)
            else:
                continue
            failures = 0 if time.monotonic() - started > RETRY_LIMIT_S else failures + 1
            self._pause(reason, _backoff(failures))

    def _run_session(self) -> None:
        playwright = sync_playwright().start()
        try:
            Session(playwright, self).run()
        finally:
            self._session = None
            playwright.stop()

    def _pause(self, reason: str, seconds: float) -> None:
        """Tells every ticker that there is no browser, and waits until it is tried again."""
        if self.stopping:
            return
        self.counters["browser_failures"] += 1
        log.warning("no browser: %s; next try in %.0f s", reason, seconds)
        deadline = time.monotonic() + seconds
        next_try_at = round(_now_ms() + seconds * 1000)
        while not self.stopping and time.monotonic() < deadline:
            for feed in self.wanted_feeds().values():
                feed.fail(Trouble(State.ERROR, f"no browser: {reason}", next_try_at), void_price=False)
                self.tell(feed)
            time.sleep(0.1)

    def on_session(self, session: Session) -> None:
        self.counters["browser_starts"] += 1
        self._session = session

    def wanted_feeds(self) -> dict[Ticker, Feed]:
        """The feeds of the wanted tickers; they outlive pages and browsers."""
        with self._lock:
            return dict(self._wanted)

    def tell(self, feed: Feed) -> None:
        """Emits the feed's quote if it says anything new."""
        quote = feed.quote(_now_ms())
        if quote == feed.told or self._wanted.get(feed.ticker) is not feed:
            return
        feed.told = quote
        if quote.state is State.LIVE:
            feed.failures, feed.complaint = 0, None
        self._emit(quote)

    def fail(self, feed: Feed, trouble: PageTrouble) -> None:
        """Says why the ticker has no page, and when it is tried again."""
        feed.failures += 1
        self.counters[f"pages_{trouble.state}"] += 1
        delay = _retry_delay(trouble.state, feed.failures)
        level = logging.DEBUG if feed.complaint == trouble.reason else logging.WARNING
        log.log(level, "%s: %s: %s; next try in %.0f s", feed.ticker, trouble.state, trouble.reason, delay)
        feed.complaint = trouble.reason
        next_try_at = round(_now_ms() + delay * 1000)
        feed.fail(Trouble(trouble.state, trouble.reason, next_try_at), void_price=trouble.void_price)
        self.tell(feed)


def _retry_delay(state: State, failures: int) -> float:
    if state is State.NOT_FOUND:
        return NOT_FOUND_RETRY_S
    if state is State.BLOCKED:
        return BLOCKED_RETRY_S
    return _backoff(failures)


def _backoff(failures: int) -> float:
    """Seconds until the next try: doubling from 1 s to 60 s, spread by a quarter so that tickers don't retry as one."""
    delay: float = min(RETRY_FIRST_S * 2.0 ** min(failures - 1, 10), RETRY_LIMIT_S)
    return delay * random.uniform(0.75, 1.0)


def _kill_drivers() -> None:
    """Kills Playwright's driver and all it started."""
    for child in psutil.Process().children():
        if "run-driver" in child.cmdline():
            for process in [*child.children(recursive=True), child]:
                process.kill()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _now_ms() -> float:
    return time.time() * 1000
