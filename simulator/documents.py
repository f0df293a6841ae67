"""The documents of this TradingView: the symbol page, and the notices that are served in its place.

Owns: how a page is made from a symbol and its faults. Never does: decide which one a request gets (see answers.py).
Runs in the simulator's one thread, inside a request.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from flask import Response, render_template

from simulator.assets import count_assets
from simulator.faults import FAULTS, Notice
from simulator.simulation import Simulation
from simulator.symbols import Symbol

PAGE_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pages")


def symbol_page(simulation: Simulation, symbol: Symbol) -> Response:
    faults = simulation.faults_of(symbol)
    page = render_template(
        "page.html",
        symbol=symbol,
        faults=faults,
        hostile=[name for name in faults if FAULTS[name].hostile],
        named=backwards if "classes_renamed" in faults else str,
        old_price=symbol.price_text(symbol.home * 987 // 1000),
        old_time=(datetime.now(UTC) - timedelta(hours=5)).isoformat(timespec="seconds"),
        weight=simulation.weight,
        count=count_assets(simulation.weight),
    )
    return Response(page, headers={"Cache-Control": "no-store"})


def backwards(names: str) -> str:
    """Class names as nobody knows them; the page's script turns them round in the same way."""
    return " ".join(name[::-1] for name in names.split())


def notice(page: Notice) -> Response:
    return Response(render_template(page.template, title=page.title), page.status, page.headers)
