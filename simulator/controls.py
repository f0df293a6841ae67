"""How tests and people steer the simulation: the orders that the package's docstring lists.

Owns: reading an order and refusing nonsense in words. Never does: what is ordered. Runs in the simulator's one thread,
inside a request.
"""

from __future__ import annotations

import re
from decimal import Decimal

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from simulator.faults import FAULTS
from simulator.routes import the_simulation
from simulator.symbols import Symbol, Unknown, find_symbol

MAX_RATE = 1_000

controls = Blueprint("controls", __name__)


class BadOrder(Exception):
    """What is asked for makes no sense; the text says why."""


def asked_symbol(ticker: str) -> Symbol:
    return find_symbol(ticker, request.args.get("exchange", "BINANCE"))


@controls.get("/truth/<ticker>")
def tell_truth(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    return {"symbol": symbol.name, "changes": the_simulation().market(symbol).truth()}


@controls.post("/price/<ticker>/<price>")
def set_price(ticker: str, price: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    decimals = symbol.coin.decimals
    form = rf"(?=.*[1-9])\d{{1,{15 - decimals}}}(\.\d{{1,{decimals}}})?"  # no more digits than a double holds
    if not re.fullmatch(form, price, re.ASCII):
        raise BadOrder(f"{price} is no price of {symbol.name}: above 0, with up to {decimals} decimals")
    the_simulation().market(symbol).set_price(Decimal(price))
    return {"symbol": symbol.name, "price": price}


@controls.post("/rate/<ticker>/<rate>")
def set_rate(ticker: str, rate: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", rate, re.ASCII) or float(rate) > MAX_RATE:
        raise BadOrder(f"{rate} is no rate: take the number of changes a second, from 0 to {MAX_RATE}")
    the_simulation().market(symbol).set_rate(float(rate))
    return {"symbol": symbol.name, "rate": float(rate)}


@controls.get("/fault")
def list_faults() -> ResponseReturnValue:
    return {name: fault.explanation for name, fault in FAULTS.items()}


@controls.post("/fault/<ticker>/<fault>")
def strike(ticker: str, fault: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    if fault not in FAULTS:
        raise Unknown(f"there is no fault {fault}; there are {', '.join(FAULTS)}")
    the_simulation().strike(symbol.ticker, fault)
    return {"ticker": symbol.ticker, "fault": fault, "lasts": not FAULTS[fault].once}


@controls.delete("/fault/<ticker>")
def heal(ticker: str) -> ResponseReturnValue:
    symbol = asked_symbol(ticker)
    the_simulation().heal(symbol.ticker)
    return {"ticker": symbol.ticker}


@controls.get("/pages")
def count_pages() -> ResponseReturnValue:
    return the_simulation().census()
