"""The faults: each way in which a page of this TradingView, or its socket, can be in trouble.

Owns: the table, as data. Never does: answer a request or send a frame; who reads the table does (answers.py for what is
served in place of a page, quote_socket.py for a socket, pages/symbol_page.js and pages/hostile.js for the page itself).
Any thread may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HANG_SECONDS = 60  # how long the fault `hangs` keeps a request waiting


@dataclass(frozen=True)
class Notice:
    """A document that says no more than its title."""

    status: int
    title: str
    template: str = "notice.html"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What a fault does: to loading the page, to its quote socket, or else in the page's own script.

    A `hostile` one wants to hurt whoever opened the page, in pages opened later: see hostile.js.
    """

    explanation: str
    notice: Notice | None = None  # is served in place of the page
    answer: str = ""  # the name of what answers in place of the page, see answers.py
    socket: str = ""  # closed, silent, withheld (none of the page's symbol), or the error in frames
    once: bool = False  # strikes what is open now; what opens later is well
    hostile: bool = False


NOT_FOUND = Notice(404, "Page not found — TradingView", "not_found.html")
UNAVAILABLE = Notice(503, "503 Service Unavailable")
TOO_MANY_REQUESTS = Notice(429, "429 Too Many Requests", headers={"Retry-After": "2"})

FAULTS = {
    "not_found": Fault("404, the page TradingView has for what it doesn't know", NOT_FOUND),
    "bot_wall": Fault("200, but a page that asks whether you are human", Notice(200, "Just a moment...")),
    "forbidden": Fault("403", Notice(403, "403 Forbidden")),
    "too_many_requests": Fault("429 with Retry-After: 2", TOO_MANY_REQUESTS),
    "server_error": Fault("503", UNAVAILABLE),
    "hangs": Fault(f"the page is asked for and nothing answers, for {HANG_SECONDS} s", answer="hangs"),
    "redirects_away": Fault("302 to the same page under another host name", answer="redirects_away"),
    "wrong_symbol": Fault("page and quotes are those of another exchange", answer="wrong_symbol"),
    "no_such_symbol": Fault("frames say that there is no such symbol", socket="no_such_symbol"),
    "permission_denied": Fault("frames say that its quotes are not permitted", socket="permission_denied"),
    "socket_closed": Fault("the quote socket closes, and new ones are refused", socket="closed"),
    "socket_dropped": Fault("the quote socket closes once; the page reopens it", socket="closed", once=True),
    "socket_silent": Fault("the quote socket says nothing more, no heartbeat either", socket="silent"),
    "page_frozen": Fault("an endless loop in the open page; loaded anew it is well", once=True),
    "page_reloads": Fault("the open page reloads itself", once=True),
    "price_element_replaced": Fault("the open page's price moves into a new element", once=True),
    "classes_renamed": Fault("the header's classes and data-qa-id have other names; frames go on"),
    "socket_in_worker": Fault("pages opened later keep their quote socket in a worker: only the DOM tells"),
    "dom_disagrees": Fault("the page paints a price 1 % above that of the frames"),
    "unreadable_price": Fault("the page paints 3.77 T, and no frames of its symbol come", socket="withheld"),
    "redirects_to_port": Fault("302 to another port of this machine", answer="redirects_to_port"),
    "redirects_to_file": Fault("302 to a file: URL", answer="redirects_to_file"),
    "redirects_to_data": Fault("302 to a data: URL", answer="redirects_to_data"),
    "redirects_round": Fault("302 to itself", answer="redirects_round"),
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
