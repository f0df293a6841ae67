"""The documents of this TradingView: the symbol page, and the notices that replace it.

Owns: making a page from a symbol and its faults. Never does: decide which page a request gets (see answers.py). Runs in
the simulator's one thread, inside a request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.handlers import format_date_time

from flask import Response, render_template, request
from markupsafe import Markup

from simulator.faults import FAULTS, HOSTILE, Notice
from simulator.simulation import Simulation
from simulator.symbols import Symbol
from simulator.weight import count_assets, make_filler

PAGE_FILES = Path(__file__).parent / "pages"
FILLER = "<!-- filler -->"
SNAPSHOTS = ["NASDAQ:AAPL", "BINANCE:BNBUSDT", "COINBASE:ETHUSD"]  # a page asks once for the prices of these


@dataclass(frozen=True)
class Locale:
    name: str = "en-US"
    placeholder: str = "Market closed / No trades"
    title: str = ""  # of a page, with {ticker}; empty: the symbol's own title

    @property
    def language(self) -> str:
        return self.name.partition("-")[0]


ENGLISH = Locale()
LOCALES = {
    "de": Locale("de-DE", "Markt geschlossen / Kein Handel", "{ticker} Kurs und Chart — TradingView"),
    "fr": Locale("fr-FR", "Marché fermé / Aucune transaction", "{ticker} Cours et graphique — TradingView"),
    "in": Locale("en-IN"),
}


def symbol_page(simulation: Simulation, symbol: Symbol, locale: Locale = ENGLISH) -> Response:
    faults = simulation.faults_of(symbol)
    recorded_header = simulation.recordings[symbol].header if symbol in simulation.recordings else ""
    weight = simulation.options.weight
    old_price = symbol.home * 987 // 1000 if symbol.home > 1000 else symbol.home * 987 / 1000
    page = render_template(
        "page.html",
        symbol=symbol,
        title=locale.title.format(ticker=symbol.ticker) or symbol.title,
        facts=facts_of(simulation, symbol),
        header=Markup(recorded_header or render_header(symbol, faults, locale)),
        locale=locale,
        faults=faults,
        hostile=[name for name in faults if name in HOSTILE],
        old_price=old_text(round(old_price, symbol.scale.decimals)),
        old_time=(datetime.now(UTC) - timedelta(hours=5)).isoformat(timespec="seconds"),
        late_ms=milliseconds_of(simulation, "document_after_25_s", faults),
        busy_ms=milliseconds_of(simulation, "busy_loading", faults),
        snapshots=SNAPSHOTS,
        weight=weight,
        ad_origin=other_origin() if weight.has_foreign_ads else "",
        count=count_assets(weight),
    )
    if weight.html:
        page = page.replace(FILLER, make_filler(weight.html - len(page.encode())))
    date = format_date_time(time.time() + simulation.clock_shift(symbol))
    return Response(page, headers={"Cache-Control": "no-store", "Date": date})


def facts_of(simulation: Simulation, symbol: Symbol) -> dict[str, Any]:
    """The page's `initData.symbolInfo`."""
    quote = simulation.market(symbol).whole_quote()
    recording = simulation.recordings.get(symbol)
    return {
        "symbol": symbol.name,
        "resolved_symbol": symbol.name,
        "pro_symbol": symbol.name,
        "short_name": symbol.ticker,
        "exchange": symbol.exchange,
        "source2": {"id": symbol.exchange},
        "description": symbol.description,
        "type": symbol.kind,
        "typespecs": quote.get("typespecs", []),
        "currency": symbol.currency,
        **(recording.facts if recording else {}),
    }


def render_header(symbol: Symbol, faults: list[str], locale: Locale) -> str:
    named = backwards if "classes_renamed" in faults else str
    return render_template("header.html", symbol=symbol, faults=faults, locale=locale, named=named)


def backwards(names: str) -> str:
    """The class names reversed, so that they are unknown. page.js does the same."""
    return " ".join(name[::-1] for name in names.split())


def old_text(price: Decimal) -> str:
    """The price as structured data has it: a small one with an exponent, as in "1.2E-7"."""
    return f"{price:f}" if price >= Decimal("1e-5") else f"{price.normalize():E}"


def milliseconds_of(simulation: Simulation, name: str, faults: list[str]) -> int:
    return round(FAULTS[name].seconds * simulation.options.delays * 1000) if name in faults else 0


def other_origin() -> str:
    """This server under this machine's other name."""
    name = "localhost" if urlsplit(request.host_url).hostname == "127.0.0.1" else "127.0.0.1"
    return f"http://{name}:{request.environ['SERVER_PORT']}"


def notice(page: Notice, **values: Any) -> Response:
    text = render_template(page.template, title=page.title, **values)
    return Response(text, page.status, page.headers)
