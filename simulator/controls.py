"""The requests by which tests and people control the simulation; the package's docstring lists them.

Owns: how a request is read, and why an invalid one is refused. Never does: carry it out (simulation.py and market.py
do). Runs in the simulator's one thread, inside a request.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from decimal import Decimal

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from simulator.faults import FAULTS
from simulator.paces import Lively
from simulator.routes import the_simulation
from simulator.symbols import Symbol, Unknown, find_symbol

MAX_RATE = 1_000
DIGITS = 15  # significant digits of a double
PACES = ("lively", "real")
SCALE = {  # name: the pattern of a valid value, and the same in words
    "pricescale": ("10{0,15}", "a power of ten up to 1e15"),
    "minmov": (r"[1-9]\d{0,5}", "a whole number from 1 to 999999"),
    "variable_tick_size": (
        r"([\d.]+( [\d.]+ [\d.]+)*)?",
        "a tick, then pairs of a price and the tick from there on, as in 0.01 250 0.05",
    ),
}

controls = Blueprint("controls", __name__)


class BadOrder(Exception):
    """The request is invalid; the text says why."""


def asked_symbol(ticker: str) -> Symbol:
    return find_symbol(ticker, request.args.get("exchange", "BINANCE"))


@controls.get("/truth/<path:ticker>")
def tell_truth(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    return {"symbol": symbol.name, "changes": the_simulation().market(symbol).truth()}


@controls.post("/price/<path:ticker>/<price>")
def set_price(ticker: str, price: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    market = the_simulation().market(symbol)
    decimals = market.scale.decimals
    whole = rf"\d{{1,{max(1, DIGITS - decimals)}}}"
    form = rf"(?=.*[1-9]){whole}(\.\d{{1,{decimals}}})?" if decimals else rf"(?=.*[1-9]){whole}"
    if not re.fullmatch(form, price, re.ASCII):
        raise BadOrder(f"{price} is no price of {symbol.name}: it must be above 0, with up to {decimals} decimals")
    market.set_price(Decimal(price))
    return {"symbol": symbol.name, "price": price}


@controls.post("/number/<path:ticker>/<number>")
def set_number(ticker: str, number: str) -> ResponseReturnValue:
    """Sets the price to any JSON number: also between two ticks, with 20 digits, with an exponent, or negative."""
    symbol = asked_symbol(ticker)
    if not re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.\d{1,30})?([eE][+-]?\d{1,2})?", number, re.ASCII):
        raise BadOrder(f"{number} is no JSON number, or it is too long")
    the_simulation().market(symbol).set_number(number)
    return {"symbol": symbol.name, "number": number}


@controls.post("/rate/<path:ticker>/<rate>")
def set_rate(ticker: str, rate: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", rate, re.ASCII) or float(rate) > MAX_RATE:
        raise BadOrder(f"{rate} is no rate: it is a number of changes a second, from 0 to {MAX_RATE}")
    the_simulation().market(symbol).set_pace(Lively(float(rate)) if float(rate) else None)
    return {"symbol": symbol.name, "rate": float(rate)}


@controls.post("/pace/<path:ticker>/<pace>")
def set_pace(ticker: str, pace: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if pace not in PACES:
        raise BadOrder(f"{pace} is no pace: there are {', '.join(PACES)}")
    the_simulation().market(symbol).set_pace(the_simulation().pace(symbol, pace))
    return {"symbol": symbol.name, "pace": pace}


@controls.post("/scale/<path:ticker>")
def set_scale(ticker: str) -> ResponseReturnValue:
    """Sets how prices are rounded and printed: ?pricescale=&minmov=&variable_tick_size=. A missing one stays."""
    symbol = asked_symbol(ticker)
    market = the_simulation().market(symbol)
    given = {name: text for name, text in request.args.items() if name in SCALE}
    for name, text in given.items():
        form, explanation = SCALE[name]
        if not re.fullmatch(form, text, re.ASCII):
            raise BadOrder(f"{text} is no {name}: {explanation}")
    numbers = {name: int(text) for name, text in given.items() if name != "variable_tick_size"}
    variable = given.get("variable_tick_size", market.scale.variable_tick_size)
    market.set_scale(replace(market.scale, **numbers, variable_tick_size=variable))
    the_simulation().tell_open_pages(symbol.ticker)
    return {"symbol": symbol.name, **asdict(market.scale)}


@controls.post("/fields/<path:ticker>")
def set_fields(ticker: str) -> ResponseReturnValue:
    """Overrides the quote's fields from now on: the body is a JSON object, in which null removes a field."""
    symbol = asked_symbol(ticker)
    fields = request.get_json()
    if not isinstance(fields, dict):
        raise BadOrder("the body must be a JSON object of fields")
    the_simulation().market(symbol).overrides = fields
    the_simulation().tell_open_pages(symbol.ticker)
    return {"symbol": symbol.name, "fields": fields}


@controls.get("/fault")
def list_faults() -> ResponseReturnValue:
    return {name: fault.explanation for name, fault in FAULTS.items()}


@controls.post("/fault/<path:ticker>/<fault>")
def strike(ticker: str, fault: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if fault not in FAULTS:
        raise Unknown(f"there is no fault {fault}; there are {', '.join(FAULTS)}")
    the_simulation().strike(symbol.ticker, fault)
    return {"ticker": symbol.ticker, "fault": fault, "lasts": not FAULTS[fault].once}


@controls.delete("/fault/<path:ticker>")
def heal(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    the_simulation().heal(symbol.ticker)
    return {"ticker": symbol.ticker}


@controls.get("/pages")
def count_pages() -> ResponseReturnValue:
    return the_simulation().census()
