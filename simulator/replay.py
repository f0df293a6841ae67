"""Recorded pages to serve again: header markup, facts, socket messages and price changes, each at its time.

Owns: how a recording is read. Never does: send it (replay_socket.py does). Runs before the server starts.

There are three formats:

1. A report of `./run.sh doctor --report`: a JSON file, or a zip file with `report.json` in it.

    {
      "symbol": "BINANCE:BTCUSD",
      "url": "https://www.tradingview.com/symbols/BTCUSD/?exchange=BINANCE",
      "recorded_at": 1795170000000,     ms since the epoch, when at_ms was 0
      "facts": {…},                     the page's initData.symbolInfo
      "header_html": "<div class=…>",   the markup of .js-symbol-page-header-root; markup.py cleans it
      "messages": [                     of the page's quote sockets, oldest first
        {"at_ms": 1417, "direction": "received" or "sent", "text": "~m~…"}      text: a message, or one payload of it
      ],
      "changes": [{"at_ms": 1500, "price": "67012.45"}],    of the header; used where there are no messages
      "answers": [{"status": 403, "headers": {…}}],         to the request for the page; the last one counts
      "document": {"title": "Just a moment", "symbol": false, "notFound": false, "check": false}
    }

   `symbol` is required, and so is one of: messages, changes, or a document without a symbol, which the simulator then
   serves instead of the page. The simulator's own page provides what is missing.
2. `{"messages": [[seconds, [part, …]], …]}`: what one quote socket received. A part is {"session", "n", "s", "v"},
   {"m": "quote_completed"} or {"heartbeat": 1}. The recording is of the symbol that is named most often.
3. `{"runs": {"BTCUSD": [[[seconds, "price"], …], …]}}`: price changes of BINANCE's symbols, run after run.

The times of trades (`lp_time`, `rtc_time`) are shifted when they are sent, as if the recording began now.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from simulator.faults import NOT_FOUND, Notice
from simulator.frames import as_json, frame, unframe
from simulator.markup import clean
from simulator.scale import Scale
from simulator.symbols import Symbol, Unknown, find_symbol

SIZE_LIMIT = 50_000_000  # bytes of a recording
RUN_PAUSE_S = 10.0  # between two runs; the real gap is unknown
NOTICE_HEADERS = ("cf-mitigated", "x-amzn-waf-action", "retry-after")
TRADE_TIME = re.compile(r'("(?:lp|rtc)_time":)(\d{10})\b')


class NotARecording(Exception):
    """The file can't be replayed; the text says why."""


@dataclass(frozen=True)
class Recording:
    """What one page received and showed. Times are in seconds since the page was opened."""

    symbol: Symbol
    started_at: float = 0  # seconds since the epoch
    facts: dict[str, Any] = field(default_factory=dict)
    header: str = ""
    messages: list[tuple[float, str]] = field(default_factory=list)
    changes: list[tuple[float, Decimal]] = field(default_factory=list)
    notice: Notice | None = None  # the document that the site served instead of the page


def read_recordings(path: str) -> list[Recording]:
    """All recordings in a file, one per page. Raises NotARecording."""
    try:
        data = json.loads(read_text(Path(path)))
        recordings = [*read_report(data), *read_socket(data), *read_runs(data)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, InvalidOperation, zipfile.BadZipFile) as error:
        raise NotARecording(f"{path} can't be replayed: {type(error).__name__}: {error}") from error
    if not recordings:
        raise NotARecording(f"{path} can't be replayed: it has neither messages nor price changes")
    return recordings


def read_text(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > SIZE_LIMIT:
            raise ValueError(f"more than {SIZE_LIMIT} bytes")
        return path.read_text(encoding="utf-8")
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("report.json").file_size > SIZE_LIMIT:
            raise ValueError(f"more than {SIZE_LIMIT} bytes")
        return archive.read("report.json").decode()


# ---- The three formats -----------------------------------------------------------------------------


def read_report(data: dict[str, Any]) -> Iterator[Recording]:
    if "symbol" not in data:
        return
    received = [each for each in data.get("messages", ()) if each["direction"] == "received"]
    messages = [(each["at_ms"] / 1000, as_message(each["text"])) for each in received]
    changes = [(each["at_ms"] / 1000, Decimal(each["price"])) for each in data.get("changes", ())]
    notice = notice_of(data)
    if messages or changes or notice:
        facts = data.get("facts") or {}
        yield Recording(
            symbol=make_symbol(data["symbol"], fields_of(data["symbol"], messages), facts, changes),
            started_at=data.get("recorded_at", 0) / 1000 or guess_start(messages),
            facts=facts,
            header=clean(data.get("header_html") or ""),
            messages=messages,
            changes=[] if messages else changes,
            notice=notice,
        )


def notice_of(data: dict[str, Any]) -> Notice | None:
    """The document that the site served instead of the symbol's page; None if it served the page."""
    answers, document = data.get("answers") or [], data.get("document") or {"symbol": True}
    if not answers or document["symbol"]:
        return None
    status, title = int(answers[-1]["status"]), str(document.get("title") or "")
    headers = {name: str(value) for name, value in answers[-1]["headers"].items() if name in NOTICE_HEADERS}
    if status == 404 or document.get("notFound"):
        return NOT_FOUND
    if document.get("check"):
        return Notice(status, title, "captcha.html", headers)
    return Notice(status, title, headers=headers) if title or status != 200 else Notice(200, "", "empty.html", headers)


def read_socket(data: dict[str, Any]) -> Iterator[Recording]:
    if "symbol" in data or "messages" not in data:
        return
    messages = [(seconds, "".join(map(frame, as_payloads(parts)))) for seconds, parts in data["messages"]]
    names = Counter(symbol for _, text in messages for symbol, _ in quotes_of(text))
    ((name, _),) = names.most_common(1)
    yield Recording(
        symbol=make_symbol(name, fields_of(name, messages), {}, []),
        started_at=guess_start(messages),
        messages=messages,
    )


def read_runs(data: dict[str, Any]) -> Iterator[Recording]:
    for ticker, runs in data.get("runs", {}).items():
        changes: list[tuple[float, Decimal]] = []
        for run in runs:
            start = changes[-1][0] + RUN_PAUSE_S if changes else 0.0
            changes += [(start + seconds, Decimal(price)) for seconds, price in run]
        yield Recording(symbol=make_symbol(f"BINANCE:{ticker}", {}, {}, changes), changes=changes)


# ---- Messages --------------------------------------------------------------------------------------


def as_message(text: str) -> str:
    return text if text.startswith("~m~") else frame(text)


def as_payloads(parts: list[dict[str, Any]]) -> Iterator[str]:
    """The payloads of a message's parts. A `quote_completed` is about the quote before it."""
    last: list[str] = []
    for part in parts:
        if "heartbeat" in part:
            yield f"~h~{part['heartbeat']}"
        elif "n" in part:
            last = [part["session"], part["n"]]
            yield as_json({"m": "qsd", "p": [part["session"], {name: part[name] for name in ("n", "s", "v")}]})
        else:
            yield as_json({"m": part["m"], "p": last})


def quotes_of(message: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Symbol and fields of each quote in a message, except those of extended sessions."""
    for payload in unframe(message):
        try:
            quote = json.loads(payload)["p"][1]
            name, values = quote["n"], quote["v"]
            spec = json.loads(name[1:]) if name.startswith("=") else {"symbol": name}
            if spec.get("session", "regular") == "regular":
                yield spec["symbol"], values
        except (ValueError, LookupError, TypeError, AttributeError):
            continue


def fields_of(symbol: str, messages: list[tuple[float, str]]) -> dict[str, Any]:
    """The first value of each field in a symbol's quotes."""
    fields: dict[str, Any] = {}
    for _, text in messages:
        for name, values in quotes_of(text):
            fields |= {key: value for key, value in values.items() if name == symbol and key not in fields}
    return fields


def guess_start(messages: list[tuple[float, str]]) -> float:
    """When a recording began, in seconds since the epoch; 0: unknown.

    Assumes that no trade arrived before it was made, and that one arrived at once.
    """
    starts = [int(time) - seconds for seconds, text in messages for _, time in TRADE_TIME.findall(text)]
    return max(starts, default=0)


def shifted(message: str, seconds: float) -> str:
    """The message with its trades' times shifted. They keep ten digits, so the frames' lengths stay right."""
    return TRADE_TIME.sub(lambda found: f"{found[1]}{int(found[2]) + round(seconds)}", message)


# ---- The symbol ------------------------------------------------------------------------------------


def make_symbol(
    name: str, fields: dict[str, Any], facts: dict[str, Any], changes: list[tuple[float, Decimal]]
) -> Symbol:
    """The symbol as the quotes' fields and the page's facts describe it, and else as in the simulator's table."""
    exchange, _, ticker = name.partition(":")
    try:
        known = find_symbol(ticker, exchange)
    except Unknown:
        known = Symbol(exchange, ticker, ticker, ticker, "USD", Decimal(1), Scale(), ticker, session="")
    price = changes[0][1] if changes else Decimal(str(fields.get("lp", known.home)))
    scale = Scale(
        fields.get("pricescale", known.scale.pricescale),
        fields.get("minmov", known.scale.minmov),
        fields.get("variable_tick_size", known.scale.variable_tick_size) or "",
    )
    currency = str(fields.get("currency_code") or facts.get("currency") or known.currency)
    return replace(
        known,
        home=price,
        scale=scale,
        currency=currency,
        currency_id=str(fields.get("currency_id") or (known.currency_id if currency == known.currency else currency)),
        description=str(fields.get("description") or facts.get("description") or known.description),
        kind=str(fields.get("type") or facts.get("type") or known.kind),
        typespecs=tuple(fields.get("typespecs") or facts.get("typespecs") or known.typespecs),
        session=str(fields.get("session") or known.session),
    )
