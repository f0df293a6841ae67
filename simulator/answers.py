"""Answers requests for a symbol page, also while its ticker has a fault.

Owns: redirects, delays, and the pages of other symbols. Never does: keep state between requests. Runs in the
simulator's one thread, inside a request.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import gevent
from flask import Response, request

from simulator.documents import LOCALES, notice, other_origin, symbol_page
from simulator.faults import FAULTS, HANG, PASSING, UNAVAILABLE, Notice
from simulator.simulation import Simulation
from simulator.symbols import Symbol, find_symbol

Answer = Callable[[Simulation, Symbol], Response]

CHALLENGE = Notice(200, "Just a moment...", "challenge.html")
CHALLENGE_202 = Notice(202, "www.tradingview.com", "challenge.html", {"x-amzn-waf-action": "challenge"})
CHALLENGE_403 = Notice(403, "Just a moment...", "challenge.html", {"cf-mitigated": "challenge"})
FRAME_PATH = "/challenge-frame"


def answer(simulation: Simulation, symbol: Symbol) -> Response:
    """The answer of the first fault that replaces the page; else a recorded answer; else the symbol's page."""
    for name in simulation.faults_of(symbol):
        if fault_notice := FAULTS[name].notice:
            return notice(fault_notice)
        if name in ANSWERS:
            return ANSWERS[name](simulation, symbol)
    recording = simulation.recordings.get(symbol)
    if recording and recording.notice:
        return notice(recording.notice)
    return own_page(simulation, symbol)


def own_page(simulation: Simulation, symbol: Symbol) -> Response:
    """The symbol's page. If the host name begins with a region, in that region's language."""
    region = request.host.partition(".")[0]
    return symbol_page(simulation, symbol, *([LOCALES[region]] if region in LOCALES else []))


# ---- Walls that can pass -------------------------------------------------------------------------


def clearance_of(symbol: Symbol) -> str:
    """The name of the cookie with which a browser passes the wall."""
    return "clearance_" + re.sub(r"\W", "_", symbol.ticker, flags=re.ASCII)


def wall_202_passes(simulation: Simulation, symbol: Symbol) -> Response:
    cookie = clearance_of(symbol)
    if cookie in request.cookies:
        return own_page(simulation, symbol)
    return notice(CHALLENGE_202, cookie=cookie, passes=True, seconds=PASSING * simulation.options.delays)


def wall_reloads(simulation: Simulation, symbol: Symbol) -> Response:
    return notice(CHALLENGE, cookie=clearance_of(symbol), seconds=PASSING * simulation.options.delays)


def wall_solvable(simulation: Simulation, symbol: Symbol) -> Response:
    cookie = clearance_of(symbol)
    if cookie in request.cookies:
        return own_page(simulation, symbol)
    return notice(CHALLENGE_403, cookie=cookie, frame_origin=other_origin(), frame=other_origin() + FRAME_PATH)


# ---- Delays, redirects, other pages --------------------------------------------------------------


def hangs(simulation: Simulation, _: Symbol) -> Response:
    gevent.sleep(HANG * simulation.options.delays)
    return notice(UNAVAILABLE)


def redirects_away(simulation: Simulation, symbol: Symbol) -> Response:
    """Redirects to the same page under this host's other name, where the page is shown."""
    if "redirected" in request.args:
        return own_page(simulation, symbol)
    return redirect(f"{other_origin()}{request.path}?exchange={symbol.exchange}&redirected=1")


def redirects_to_region(region: str) -> Answer:
    """Redirects www.localhost to de.localhost, and a host without `www.` to this machine's other name."""

    def redirects(simulation: Simulation, symbol: Symbol) -> Response:
        if "region" in request.args:
            return symbol_page(simulation, symbol, LOCALES[region])
        siblings = request.host.removeprefix("www.")
        origin = f"http://{region}.{siblings}" if siblings != request.host else other_origin()
        return redirect(f"{origin}{request.path}?exchange={symbol.exchange}&region={region}")

    return redirects


def redirects_round(*_: object) -> Response:
    return redirect(request.url)


def wrong_symbol(simulation: Simulation, symbol: Symbol) -> Response:
    return symbol_page(simulation, symbol.elsewhere())


def renamed(simulation: Simulation, symbol: Symbol) -> Response:
    return symbol_page(simulation, find_symbol(f"POL{symbol.currency}", symbol.exchange))


def redirect(place: str) -> Response:
    return Response(status=302, headers={"Location": place})


def redirects_to(place: str) -> Answer:
    return lambda *_: redirect(place)


ANSWERS: dict[str, Answer] = {  # by fault
    "wall_202_passes": wall_202_passes,
    "wall_reloads": wall_reloads,
    "wall_solvable": wall_solvable,
    "hangs": hangs,
    "redirects_away": redirects_away,
    "region_de": redirects_to_region("de"),
    "region_fr": redirects_to_region("fr"),
    "region_in": redirects_to_region("in"),
    "redirects_round": redirects_round,
    "redirects_to_port": redirects_to("http://127.0.0.1:9/"),
    "redirects_to_file": redirects_to("file:///etc/passwd"),
    "redirects_to_data": redirects_to("data:text/html,gone"),
    "wrong_symbol": wrong_symbol,
    "renamed": renamed,
}
