"""The faults: each way in which a page of this TradingView, its socket or its market can be in trouble.

Owns: the table, as data. Never does: answer a request or send a frame. The table's readers do: answers.py replaces
pages, quote_socket.py troubles sockets, market.py prices, and pages/ the page itself (every fault with nothing but an
explanation here). Any thread may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.market import Condition

MINUTE, HOUR, DAY = 60, 3600, 86_400

# Seconds; the option --delays multiplies all of them.
HANG = 60  # how long `hangs` keeps a request waiting
LAG = 13  # delay of the sessions of `session_lags`, as recorded
SOCKET_LIFE = 70  # until a socket of `socket_expires` is closed; 65 to 75 were seen
PASSING = 5  # until a check that passes by itself has passed


@dataclass(frozen=True)
class Notice:
    """A document with little more than a title."""

    status: int
    title: str
    template: str = "notice.html"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What a fault affects: loading the page, its quote socket, its market, or else the page's own script.

    A `hostile` fault attacks the browser from pages opened later: see hostile.js.
    """

    explanation: str
    notice: Notice | None = None  # served instead of the page
    answer: str = ""  # the answer instead of the page, by its name in answers.py
    socket: str = ""  # the trouble of the page's quote socket: see quote_socket.py
    market: Condition | None = None
    seconds: float = 0  # delay of the page's document or first price
    clock: float = 0  # seconds by which the site's clock is ahead of this machine's
    once: bool = False  # affects only what is open now
    hostile: bool = False


def market(**fields: Any) -> Condition:
    return Condition(fields)


NOT_FOUND = Notice(404, "Page not found — TradingView", "not_found.html")
UNAVAILABLE = Notice(503, "503 Service Unavailable")
TOO_MANY_REQUESTS = Notice(429, "429 Too Many Requests", headers={"Retry-After": "2"})
BARE = "www.tradingview.com"  # a title without any information
CHALLENGE = {"x-amzn-waf-action": "challenge"}

WALLS = {
    "bot_wall": Fault("200, but a page that asks whether you are human", Notice(200, "Just a moment...")),
    "wall_verify": Fault("200 and the title Verify you are human", Notice(200, "Verify you are human")),
    "wall_attention": Fault("200 and the title Attention Required!", Notice(200, "Attention Required! | Cloudflare")),
    "wall_one_more_step": Fault(
        "200 and TradingView's own captcha form, Just one more step", Notice(200, "Just one more step", "captcha.html")
    ),
    "wall_robot": Fault(
        "200 and a form: Please confirm that you are not a robot",
        Notice(200, "Please confirm that you are not a robot", "captcha.html"),
    ),
    "wall_cf_mitigated": Fault(
        "200, a title that says nothing, the header cf-mitigated",
        Notice(200, BARE, headers={"cf-mitigated": "challenge"}),
    ),
    "wall_waf_action": Fault(
        "200, a title that says nothing, the header x-amzn-waf-action", Notice(200, BARE, headers=CHALLENGE)
    ),
    "wall_405": Fault("405", Notice(405, BARE)),
    "wall_202": Fault("202 that never leads on", Notice(202, BARE, headers=CHALLENGE)),
    "wall_202_passes": Fault(f"202 that leads on to the page by itself after {PASSING} s", answer="wall_202_passes"),
    "wall_reloads": Fault("200, Just a moment..., and loads itself again every 5 s", answer="wall_reloads"),
    "wall_solvable": Fault(
        "403, Just a moment..., and a frame of another host whose button leads on to the page", answer="wall_solvable"
    ),
    "empty_document": Fault(
        "200 and the usual title, but neither symbolInfo nor a header", Notice(200, "", "empty.html")
    ),
    "forbidden": Fault("403", Notice(403, "403 Forbidden")),
    "too_many_requests": Fault("429 with Retry-After: 2", TOO_MANY_REQUESTS),
}

LOADING = {
    "not_found": Fault("404, the page TradingView has for what it doesn't know", NOT_FOUND),
    "server_error": Fault("503", UNAVAILABLE),
    "hangs": Fault(f"the page is asked for and nothing answers, for {HANG} s", answer="hangs"),
    "document_after_25_s": Fault("DOMContentLoaded comes after 25 s", seconds=25),
    "busy_loading": Fault("the page's script computes for 7 s before it shows anything", seconds=7),
    "redirects_away": Fault("302 to the same page under another host name", answer="redirects_away"),
    "region_de": Fault("302 to the region's host: German texts and numbers, 1.234,56", answer="region_de"),
    "region_fr": Fault("302 to the region's host: French texts and numbers, 1 234,56 with U+202F", answer="region_fr"),
    "region_in": Fault("302 to the region's host: Indian grouping, 12,34,567.89", answer="region_in"),
    "renamed": Fault("the page at this address is that of POLUSD, and says so", answer="renamed"),
    "wrong_symbol": Fault("page and quotes are those of another exchange", answer="wrong_symbol"),
    "redirects_to_port": Fault("302 to another port of this machine", answer="redirects_to_port"),
    "redirects_to_file": Fault("302 to a file: URL", answer="redirects_to_file"),
    "redirects_to_data": Fault("302 to a data: URL", answer="redirects_to_data"),
    "redirects_round": Fault("302 to itself", answer="redirects_round"),
}

SOCKETS = {
    "no_such_symbol": Fault("frames say that there is no such symbol", socket="no_such_symbol"),
    "permission_denied": Fault("frames say that its quotes are not permitted", socket="permission_denied"),
    "permission_denied_alternative": Fault(
        "the same, with another exchange's symbol that the page then shows", socket="alternative"
    ),
    "quote_timeout": Fault(f"frames say timeout, and {PASSING} s later the price", socket="timeout"),
    "spec_refused": Fault("frames say no_such_symbol of spec names; plain names are quoted", socket="spec_refused"),
    "critical_error": Fault("the sessions that have the symbol end with critical_error", socket="critical", once=True),
    "protocol_error": Fault("protocol_error, and the socket closes; the page reopens it", socket="protocol", once=True),
    "session_deleted": Fault("the page deletes its sessions that have the symbol; heartbeats go on", once=True),
    "symbol_removed": Fault("the page removes the symbol from all its sessions; heartbeats go on", once=True),
    "hibernated": Fault("the page hibernates its sessions, none has the symbol fast; heartbeats go on", once=True),
    "session_lags": Fault(f"all but one name of the symbol tell what was {LAG} s ago", socket="lags"),
    "other_currency": Fault("the page also asks for the price in EUR and in XTVCUSDC, by spec name"),
    "extended_session": Fault("the page also asks for the price of the extended session, by spec name"),
    "broken_frames": Fault("before each good part a broken one, and one without a name", socket="broken"),
    "two_sockets": Fault("the page keeps two quote sockets, both with the symbol"),
    "one_socket_dropped": Fault("the oldest quote socket closes; the page reopens it", socket="oldest", once=True),
    "socket_closed": Fault("the quote socket closes, and new ones are refused", socket="closed"),
    "socket_refused": Fault("upgrades to a quote socket are refused with 429", socket="refused_429"),
    "socket_forbidden": Fault("upgrades to a quote socket are refused with 403", socket="refused_403"),
    "socket_redirected": Fault("the first message sends the page to another host's socket", socket="redirected"),
    "socket_expires": Fault(f"a quote socket is closed with code 1000 after {SOCKET_LIFE} s", socket="expires"),
    "socket_dropped": Fault("the quote socket closes once; the page reopens it", socket="closed", once=True),
    "socket_silent": Fault("the quote socket says nothing more, no heartbeat either", socket="silent"),
    "socket_in_worker": Fault("pages opened later keep their quote socket in a worker: only the DOM tells"),
    "price_after_25_s": Fault("a socket's first quote of the symbol comes after 25 s", seconds=25, socket="late"),
    "price_after_55_s": Fault("a socket's first quote of the symbol comes after 55 s", seconds=55, socket="late"),
}

PAGES = {
    "page_frozen": Fault("an endless loop in the open page; loaded anew it is well", once=True),
    "page_reloads": Fault("the open page reloads itself", once=True),
    "price_element_replaced": Fault("the open page's price moves into a new element", once=True),
    "classes_renamed": Fault("the header's classes and data-qa-id have other names; frames go on"),
    "hidden_header_first": Fault("in pages opened later the hidden header, of another symbol, comes first"),
    "header_unmarked": Fault("in pages opened later no header has data-symbol"),
    "header_of_another": Fault("in pages opened later the shown header's data-symbol is another symbol"),
    "header_swaps": Fault("the shown header is hidden, and the other one shows the symbol", once=True),
    "fills_when_seen": Fault("in pages opened later nothing of the symbol is asked for until the header is displayed"),
    "dom_disagrees": Fault("the page paints a price 1 % above that of the frames"),
    "unreadable_price": Fault("the page paints 3.77 T, and no frames of its symbol come", socket="withheld"),
}

MARKETS = {
    "delisted": Fault(
        "typespecs has discontinued, the mark says delisted, the price stands still",
        market=Condition({"typespecs": ["crypto", "discontinued"]}, halted_for=90 * DAY),
    ),
    "out_of_session": Fault(
        "its exchange is closed for the night",
        market=Condition({"session": "0930-1600", "current_session": "out_of_session"}, halted_for=5 * HOUR),
    ),
    "holiday": Fault(
        "its exchange has a holiday",
        market=Condition({"session": "0930-1600", "current_session": "holiday"}, halted_for=20 * HOUR),
    ),
    "pre_market": Fault(
        "before the opening: lp stands still, rtc moves",
        market=Condition({"session": "0930-1600", "current_session": "pre_market"}, extended=True),
    ),
    "post_market": Fault(
        "after the close: lp stands still, rtc moves",
        market=Condition({"session": "0930-1600", "current_session": "post_market"}, extended=True),
    ),
    "halted": Fault("a 24x7 symbol whose last trade was 3 days ago", market=Condition(halted_for=3 * DAY)),
    "delayed": Fault(
        "update_mode is delayed_streaming_900",
        market=Condition({"update_mode": "delayed_streaming_900"}, time_shift=-15 * MINUTE),
    ),
    "end_of_day": Fault("update_mode is endofday", market=market(update_mode="endofday")),
    "connecting": Fault("update_mode is connecting", market=market(update_mode="connecting")),
    "replayed": Fault("update_mode is replay", market=market(update_mode="replay")),
    "lp_time_ahead": Fault("lp_time is an hour ahead of the site's clock", market=Condition(time_shift=HOUR)),
    "clock_ahead": Fault(
        "the site's clock is 10 minutes ahead: Date and lp_time",
        market=Condition(time_shift=10 * MINUTE),
        clock=10 * MINUTE,
    ),
    "clock_behind": Fault(
        "the site's clock is 10 minutes behind: Date and lp_time",
        market=Condition(time_shift=-10 * MINUTE),
        clock=-10 * MINUTE,
    ),
}

HOSTILE = {
    "floods_messages": Fault("10,000 quote frames a second", hostile=True),
    "floods_console": Fault("10,000 lines of 1 kB a second in the console", hostile=True),
    "huge_message": Fault("a quote frame of 10 MB", hostile=True),
    "huge_price": Fault("a price and a title of 10 MB", hostile=True),
    "huge_document": Fault("200,000 elements", hostile=True),
    "hoards_memory": Fault("100 MB more a second", hostile=True),
    "loops_dialogs": Fault("alert, confirm and prompt in an endless loop", hostile=True),
    "opens_windows": Fault("opens windows without end", hostile=True),
    "closes_itself": Fault("window.close", hostile=True),
    "leaves": Fault("goes to another port, to a file: and to a data: URL, again and again", hostile=True),
    "leaves_by_refresh": Fault("goes to another port by meta refresh", hostile=True),
    "reloads_without_end": Fault("loads itself again and again", hostile=True),
    "downloads": Fault("offers downloads without end", hostile=True),
    "breeds_frames": Fault("10,000 frames a second, each removed again", hostile=True),
    "forges_messages": Fault("all that is read of it speaks of another symbol", hostile=True),
    "names_itself_badly": Fault("a description of control characters, far too long", hostile=True),
    "sets_traps": Fault("beforeunload, permission prompts, print, 5,000 steps of history", hostile=True),
}

FAULTS = {**WALLS, **LOADING, **SOCKETS, **PAGES, **MARKETS, **HOSTILE}
