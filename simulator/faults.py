"""The faults: each way in which a page of this TradingView, its socket or its market can be in trouble.

Owns: the table, as data. Never does: answer a request or send a frame. Others do, by the names here: answers.py
replaces the page (LOADING and some of WALLS), quote_socket.py troubles the socket, market.py the price, and pages/ the
page itself (each fault that has only an explanation here). Any thread may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.market import Condition

MINUTE, HOUR, DAY = 60, 3600, 86_400

# In seconds; the option --delays multiplies all of them.
HANG = 60  # how long `hangs` keeps a request waiting
LAG = 13  # how late `session_lags` sends quotes, as recorded
SOCKET_LIFE = 70  # how long a socket stays open with `socket_expires`; 65 to 75 were seen
PASSING = 5  # how long a check takes that passes by itself


@dataclass(frozen=True)
class Notice:
    """A document with little more than a title."""

    status: int
    title: str
    template: str = "notice.html"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What a fault affects: the document, the page's quote socket, its market, or else the page's own script."""

    explanation: str
    notice: Notice | None = None  # served instead of the page
    socket: str = ""  # the trouble of the page's quote socket: see quote_socket.py
    market: Condition | None = None
    seconds: float = 0  # delay of the page's document or first price
    clock: float = 0  # seconds by which the site's clock is ahead of this machine's
    once: bool = False  # affects only what is open now


NOT_FOUND = Notice(404, "Page not found — TradingView", "not_found.html")
UNAVAILABLE = Notice(503, "503 Service Unavailable")
TOO_MANY_REQUESTS = Notice(429, "429 Too Many Requests", headers={"Retry-After": "2"})
BARE = "www.tradingview.com"  # a title that says nothing about the document
CHALLENGE = {"x-amzn-waf-action": "challenge"}

WALLS = {
    "bot_wall": Fault("200, but a page that asks whether the visitor is human", Notice(200, "Just a moment...")),
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
        "200, a title that says nothing, and the header cf-mitigated",
        Notice(200, BARE, headers={"cf-mitigated": "challenge"}),
    ),
    "wall_waf_action": Fault(
        "200, a title that says nothing, and the header x-amzn-waf-action", Notice(200, BARE, headers=CHALLENGE)
    ),
    "wall_405": Fault("405", Notice(405, BARE)),
    "wall_202": Fault("202 with a check that never passes", Notice(202, BARE, headers=CHALLENGE)),
    "wall_202_passes": Fault(f"202 with a check that passes by itself after {PASSING} s"),
    "wall_reloads": Fault(f"200 and the title Just a moment...; it loads itself again every {PASSING} s"),
    "wall_solvable": Fault(
        "403, the title Just a moment..., and an iframe of another host whose button leads to the page"
    ),
    "empty_document": Fault(
        "200 and the usual title, but neither symbolInfo nor a header", Notice(200, "", "empty.html")
    ),
    "forbidden": Fault("403", Notice(403, "403 Forbidden")),
    "too_many_requests": Fault("429 with Retry-After: 2", TOO_MANY_REQUESTS),
}

LOADING = {
    "not_found": Fault("404 and TradingView's page for unknown symbols", NOT_FOUND),
    "server_error": Fault("503", UNAVAILABLE),
    "hangs": Fault(f"the request for the page gets no answer for {HANG} s"),
    "document_after_25_s": Fault("DOMContentLoaded comes after 25 s", seconds=25),
    "busy_loading": Fault("the page's script computes for 7 s before it shows anything", seconds=7),
    "redirects_away": Fault("302 to the same page under another host name"),
    "region_de": Fault("302 to the region's host: German texts and numbers, 1.234,56"),
    "region_fr": Fault("302 to the region's host: French texts and numbers, 1 234,56 with U+202F"),
    "region_in": Fault("302 to the region's host: Indian grouping, 12,34,567.89"),
    "renamed": Fault("the page at this address is that of POLUSD, and it says so"),
    "wrong_symbol": Fault("page and quotes are those of another exchange"),
    "redirects_to_port": Fault("302 to another port of this machine"),
    "redirects_to_file": Fault("302 to a file: URL"),
    "redirects_to_data": Fault("302 to a data: URL"),
    "redirects_round": Fault("302 to itself"),
}

SOCKETS = {
    "no_such_symbol": Fault("the quotes are the error no_such_symbol", socket="no_such_symbol"),
    "permission_denied": Fault("the quotes are the error permission_denied", socket="permission_denied"),
    "permission_denied_alternative": Fault(
        "permission_denied, with another exchange's symbol as the alternative; the page shows that",
        socket="alternative",
    ),
    "quote_timeout": Fault(
        f"the first quote is the error timeout; {PASSING} s later comes the price", socket="timeout"
    ),
    "spec_refused": Fault(
        "specs as names are answered with no_such_symbol; plain names are quoted", socket="spec_refused"
    ),
    "critical_error": Fault("the sessions that have the symbol end with critical_error", socket="critical", once=True),
    "protocol_error": Fault("protocol_error, and the socket closes; the page reopens it", socket="protocol", once=True),
    "session_deleted": Fault("the page deletes its sessions that have the symbol; heartbeats go on", once=True),
    "symbol_removed": Fault("the page removes the symbol from all its sessions; heartbeats go on", once=True),
    "hibernated": Fault(
        "the page hibernates its sessions, and none wants the symbol fast; heartbeats go on", once=True
    ),
    "session_lags": Fault(f"the quotes of all names of the symbol but one are {LAG} s late", socket="lags"),
    "other_currency": Fault("the page also asks for the price in EUR and in XTVCUSDC, by spec name"),
    "extended_session": Fault("the page also asks for the price of the extended session, by spec name"),
    "broken_frames": Fault("a broken frame and one without a name come before each good one", socket="broken"),
    "two_sockets": Fault("the page keeps two quote sockets, both with the symbol"),
    "one_socket_dropped": Fault("the oldest quote socket closes; the page reopens it", socket="oldest", once=True),
    "socket_closed": Fault("the quote socket closes, and new ones are refused", socket="closed"),
    "socket_refused": Fault("upgrades to a quote socket are refused with 429", socket="refused_429"),
    "socket_forbidden": Fault("upgrades to a quote socket are refused with 403", socket="refused_403"),
    "socket_redirected": Fault("the first message sends the page to another host's socket", socket="redirected"),
    "socket_expires": Fault(f"a quote socket is closed with code 1000 after {SOCKET_LIFE} s", socket="expires"),
    "socket_dropped": Fault("the quote socket closes once; the page reopens it", socket="closed", once=True),
    "socket_silent": Fault("the quote socket sends nothing more, not even heartbeats", socket="silent"),
    "socket_in_worker": Fault("pages opened later have their quote socket in a worker: only the DOM shows prices"),
    "price_after_25_s": Fault("a socket's first quote of the symbol comes after 25 s", seconds=25, socket="late"),
    "price_after_55_s": Fault("a socket's first quote of the symbol comes after 55 s", seconds=55, socket="late"),
}

PAGES = {
    "page_frozen": Fault(
        "an endless loop in the open page that leaves the processor idle; a reload ends it", once=True
    ),
    "page_reloads": Fault("the open page reloads itself", once=True),
    "price_element_replaced": Fault("the open page's price moves into a new element", once=True),
    "classes_renamed": Fault("the header's classes and data-qa-id have other names; frames go on"),
    "hidden_header_first": Fault("in pages opened later the hidden header, of another symbol, comes first"),
    "header_unmarked": Fault("in pages opened later no header has data-symbol"),
    "header_of_another": Fault("in pages opened later the shown header's data-symbol is another symbol"),
    "header_swaps": Fault("the shown header is hidden, and the other one shows the symbol", once=True),
    "fills_when_seen": Fault("pages opened later request no quotes of the symbol until the header is displayed"),
    "dom_disagrees": Fault("the page paints a price 1 % above that of its quotes"),
    "unreadable_price": Fault(
        "the page paints 3.77 T, and its socket sends no quotes of its symbol", socket="withheld"
    ),
}

MARKETS = {
    "delisted": Fault(
        "typespecs has discontinued, the mark says delisted, and the price stands still",
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
    "end_of_day": Fault("update_mode is endofday", market=Condition({"update_mode": "endofday"})),
    "connecting": Fault("update_mode is connecting", market=Condition({"update_mode": "connecting"})),
    "replayed": Fault("update_mode is replay", market=Condition({"update_mode": "replay"})),
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

HOSTILE = {  # attacks on the browser, from pages opened later: see hostile.js
    "floods_messages": Fault("3,000 quote frames a second"),
    "floods_console": Fault("3,000 lines of 1 kB a second in the console"),
    "huge_message": Fault("a quote frame of 10 MB"),
    "huge_price": Fault("a price and a title of 10 MB"),
    "huge_document": Fault("200,000 elements"),
    "hoards_memory": Fault("100 MB more a second"),
    "loops_dialogs": Fault("alert, confirm and prompt in an endless loop"),
    "opens_windows": Fault("opens windows without end"),
    "closes_itself": Fault("window.close"),
    "leaves": Fault("goes to another port, to a file: and to a data: URL, again and again"),
    "leaves_by_refresh": Fault("goes to another port by meta refresh"),
    "reloads_without_end": Fault("loads itself again and again"),
    "downloads": Fault("offers downloads without end"),
    "breeds_frames": Fault("adds and removes 500 iframes a second"),
    "forges_messages": Fault("all its messages and texts are about another symbol"),
    "names_itself_badly": Fault("a description that is far too long and full of control characters"),
    "sets_traps": Fault("beforeunload, permission prompts, print, 5,000 steps of history"),
}

FAULTS = {**WALLS, **LOADING, **SOCKETS, **PAGES, **MARKETS, **HOSTILE}
