"""What answers a request for a symbol page while a fault of its ticker is in the way.

Owns: redirects, delays, and pages of something else. Never does: keep anything between two requests. Runs in the
simulator's one thread, inside a request.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import gevent
from flask import Response, request

from simulator.documents import notice, symbol_page
from simulator.faults import FAULTS, HANG_SECONDS, UNAVAILABLE
from simulator.simulation import Simulation
from simulator.symbols import Symbol

Answer = Callable[[Simulation, Symbol], Response]


def answer(simulation: Simulation, symbol: Symbol) -> Response:
    """What the first fault that is in the way says, or else the symbol's page."""
    for name in simulation.faults_of(symbol):
        fault = FAULTS[name]
        if fault.notice:
            return notice(fault.notice)
        if fault.answer:
            return ANSWERS[fault.answer](simulation, symbol)
    return symbol_page(simulation, symbol)


def hangs(*_: object) -> Response:
    gevent.sleep(HANG_SECONDS)
    return notice(UNAVAILABLE)


def redirects_away(simulation: Simulation, symbol: Symbol) -> Response:
    """To the same page under another name of this host; there, it is answered."""
    if "redirected" in request.args:
        return symbol_page(simulation, symbol)
    host = "localhost" if urlsplit(request.host_url).hostname == "127.0.0.1" else "127.0.0.1"
    place = f"http://{host}:{request.environ['SERVER_PORT']}{request.path}"
    return redirect(f"{place}?exchange={symbol.exchange}&redirected=1")


def redirects_round(*_: object) -> Response:
    return redirect(request.url)


def wrong_symbol(simulation: Simulation, symbol: Symbol) -> Response:
    return symbol_page(simulation, symbol.elsewhere())


def redirect(place: str) -> Response:
    return Response(status=302, headers={"Location": place})


def redirects_to(place: str) -> Answer:
    return lambda *_: redirect(place)


ANSWERS: dict[str, Answer] = {
    "hangs": hangs,
    "redirects_away": redirects_away,
    "redirects_round": redirects_round,
    "redirects_to_port": redirects_to("http://127.0.0.1:9/"),
    "redirects_to_file": redirects_to("file:///etc/passwd"),
    "redirects_to_data": redirects_to("data:text/html,gone"),
    "wrong_symbol": wrong_symbol,
}
