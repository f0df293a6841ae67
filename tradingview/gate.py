"""The gate of a page: which documents it may load, and whether TradingView refuses its sockets.

This file sees every document request of the page and its iframes, before it is sent and when it is answered. It allows
or refuses the request and judges the response. It never decides what happens to the page. Everything runs on the thread
that drives Playwright.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import CDPSession, Page, WebSocket

from quotes import State, steady_ms
from tradingview.feed import Feed, PageTrouble, printable
from tradingview.guard import Guard
from tradingview.loop import Loop
from tradingview.origins import Origin, may_lead, origin_of
from tradingview.site import QUOTE_SOCKET_PATH
from tradingview.walls import PASSING_STATUS, Wall, is_challenge, judge_response

STAGES = [{"resourceType": "Document", "requestStage": stage} for stage in ("Request", "Response")]
MAX_ANSWERS = 10
REFUSED_UPGRADES = {f"Unexpected response code: {status}": status for status in (403, 429)}


class SocketRefused(Wall):
    """TradingView refuses the page's quote socket, though not the page."""

    def __init__(self, status: int) -> None:
        super().__init__(f"TradingView refuses the page's quote socket (HTTP {status})")


@dataclass(frozen=True)
class Answer:
    """A response to a request for the page's own document. Header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]

    @property
    def date(self) -> str | None:
        """When it was sent, by the site's clock; None if a cache answered."""
        return self.headers.get("date") if self.headers.get("age", "0") == "0" else None


class Gate:
    """Watches one page, once `watch` is called.

    It tells the feed of each request for the page's document and of each response (redirects too), and calls
    `on_trouble` with each response that is no symbol page.
    """

    def __init__(
        self,
        feed: Feed,
        source: Origin,
        loop: Loop,
        guard: Guard,
        counters: Counter[str],
        *,
        on_trouble: Callable[[PageTrouble], None],
        is_headed: bool,
        challenges: Iterable[str],
    ) -> None:
        self.shows_wall = False  # set by the page's owner: iframes of the check may load
        self.answers: list[Answer] = []  # to the last request for the page's document, redirects included
        self.passing_since: float | None = None  # since when the site shows a check that passes by itself
        self.challenged_at = float("-inf")  # when an iframe of a check last loaded
        self._feed, self._source, self._loop, self._guard, self._counters = feed, source, loop, guard, counters
        self._on_trouble, self._is_headed, self._challenges = on_trouble, is_headed, tuple(challenges)
        self._channel: CDPSession | None = None
        self._frame_id = ""  # of the page itself, not of an iframe in it
        self._refused: Origin | None = None  # the target of a redirect that Pluto refused

    def watch(self, page: Page, channel: CDPSession) -> None:
        self._channel = channel
        channel.on("Fetch.requestPaused", lambda event: self._loop.soon(self._on_document, event))
        channel.send("Fetch.enable", {"patterns": STAGES})
        self._frame_id = channel.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        page.on("websocket", self._on_socket)

    def begin(self) -> None:
        """The page is about to be loaded."""
        self._refused, self.passing_since = None, None

    def refusal(self) -> PageTrouble | None:
        """Why Pluto refused the redirect; None if there was none."""
        if self._refused is None:
            return None
        reason = f"asked {self._source}, was sent to {printable(str(self._refused))}"
        if self._refused.scheme in ("http", "https"):
            reason += f"; if that is where your prices are, use --source-url {printable(self._refused.url)}"
        return PageTrouble(State.ERROR, reason, void_price=True)

    def _on_document(self, event: dict[str, Any]) -> None:
        if self._channel is None:
            return
        request, url = {"requestId": event["requestId"]}, event["request"]["url"]
        is_page = event["frameId"] == self._frame_id
        if not (self._may_load(url) if is_page else self._may_embed(url)):
            self._refuse(url, is_page=is_page)
            self._channel.send("Fetch.failRequest", {**request, "errorReason": "Aborted"})
        elif not is_page or self._may_go_on(event):
            self._channel.send("Fetch.continueRequest", request)

    def _may_load(self, url: str) -> bool:
        return may_lead(self._source, origin_of(url))

    def _may_embed(self, url: str) -> bool:
        """Whether an iframe may load: only in a headed browser, the site's own, and a check's while a wall shows."""
        if self._is_headed and self.shows_wall and is_challenge(url, self._challenges):
            self._counters["challenge_iframes"] += 1
            self.challenged_at = time.monotonic()
            return True
        return self._is_headed and origin_of(url) == self._source

    def _refuse(self, url: str, *, is_page: bool) -> None:
        """Counts an iframe, such as an advertisement, as an event; the page's attempt to leave as a disturbance."""
        if is_page:
            self._refused = origin_of(url)
            self._guard.count_disturbance("navigations_refused", "the page keeps leaving")
        else:
            self._counters["iframes_refused"] += 1
            self._guard.count_event()

    def _may_go_on(self, event: dict[str, Any]) -> bool:
        """Whether to send the request for the page's document, or to show its response."""
        if (status := event.get("responseStatusCode")) is not None:
            return self._judge(status, event)
        if "redirectedRequestId" not in event:
            self.answers = []
            self._feed.loads += 1
        return True

    def _judge(self, status: int, event: dict[str, Any]) -> bool:
        """Whether the response may be shown."""
        headers = {header["name"].lower(): header["value"] for header in event["responseHeaders"]}
        answer = Answer(event["request"]["url"], status, headers)
        self.answers = [*self.answers, answer][-MAX_ANSWERS:]
        self._feed.http_status = status
        if answer.date is not None:
            self._feed.hear_date(answer.date, steady_ms())
        if status != PASSING_STATUS:
            self.passing_since = None
        elif self.passing_since is None:
            self.passing_since = time.monotonic()
        trouble = judge_response(status, headers)
        if trouble is None:
            return True
        self._on_trouble(trouble)
        return self._is_headed and isinstance(trouble, Wall)  # a person may solve the check

    def _on_socket(self, socket: WebSocket) -> None:
        self._guard.count_event()
        if urlsplit(socket.url).path == QUOTE_SOCKET_PATH:
            socket.on("socketerror", self._on_socket_error)

    def _on_socket_error(self, text: str) -> None:
        status = next((status for known, status in REFUSED_UPGRADES.items() if known in text), None)
        if status is not None:
            self._counters["sockets_refused"] += 1
            self._on_trouble(SocketRefused(status))
