"""A report: what a maintainer needs to know about a page that only its user can open, and nothing personal.

This file decides what a report may contain. It is an allowlist: a report holds only data known to be harmless. Of a
page it has: the header's markup without texts, personal classes or addresses; the socket's messages about the page's
own symbol, field by field; of other symbols only the names; status and a few headers of each answer. Never: cookies,
tokens, storage, addresses, or anything outside the header. It opens no page and runs on the doctor's thread. `python -m
simulator --replay FILE` serves a report again.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tradingview.frames import FRAME_FIELDS
from tradingview.gate import Answer
from tradingview.messages import bounded, items, printable
from tradingview.names import symbol_in
from tradingview.site import NOT_FOUND_TITLE, WALL_TITLES
from tradingview.verdict import Observed, Verdict

MAX_MESSAGES, MAX_NAMES, MAX_MARKUP = 5_000, 2_000, 200_000
CONTENTS = (
    "It holds the verdict, the markup of the page's header without its texts, what the quote socket said of this "
    "symbol, the names of other symbols it spoke of, and status and a few headers of the site's answers. It holds no "
    "cookies, tokens, storage, addresses, or anything else of the page. Open it and look; docs/reports.md says how to "
    "send it."
)

# --- texts ------------------------------------------------------------------------------------------------------------

HIDDEN = "…"
SITE = re.compile(r"(?:[\w-]+\.)*tradingview\.com", re.IGNORECASE)
KNOWN_WORDS = ("run.sh", "reports.md", *WALL_TITLES)
PERSONAL = (
    re.compile(r"\S+@\S+"),
    re.compile(r'(?<=")[^"]*(?=")'),  # quotations of a page
    re.compile(r"(?<![\w.])(?:/[^\s/:;,]+)+/?"),  # paths
    re.compile(r"\[[0-9a-fA-F:.]+\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\blocalhost(?::\d+)?\b"),
    re.compile(r"\b(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?\b", re.IGNORECASE),  # hosts
    re.compile(r"\b[\w-]{24,}\b"),  # keys
)


def harmless(text: str) -> str:
    """A sentence of Pluto's without its addresses, paths, hosts and quotations."""
    for pattern in PERSONAL:
        text = pattern.sub(lambda found: found[0] if _is_known(found[0]) else HIDDEN, text)
    return text


def _is_known(text: str) -> bool:
    return text in KNOWN_WORDS or SITE.fullmatch(text) is not None


def harmless_host(url: str) -> str:
    host = (urlsplit(url).hostname or "") if "//" in url else url
    return host if SITE.fullmatch(host) else HIDDEN


def known_title(text: object) -> str:
    """The beginning of a title, if it is known from a wall or a missing page; else empty."""
    title = printable(text)
    return next((known for known in (NOT_FOUND_TITLE, *WALL_TITLES) if title.startswith(known)), "")


# --- answers ----------------------------------------------------------------------------------------------------------

DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
HEADERS = {  # the headers kept, and their allowed values
    "age": re.compile(r"\d{1,9}"),
    "cf-mitigated": re.compile(r"challenge"),
    "content-language": re.compile(r"[a-z]{2}(-[A-Z]{2})?"),
    "content-type": re.compile(r"text/html(; ?charset=[\w-]{1,12})?"),
    "date": DATE,
    "retry-after": re.compile(rf"\d{{1,6}}|{DATE.pattern}"),
    "server": re.compile(r"tv|cloudflare|nginx|CloudFront|awselb/2\.0"),
    "x-amzn-waf-action": re.compile(r"challenge|captcha"),
}


def harmless_answer(answer: Answer) -> dict[str, Any]:
    known = {name: value for name in HEADERS if (value := answer.headers.get(name)) is not None}
    kept = {name: value for name, value in known.items() if HEADERS[name].fullmatch(value)}
    return {"status": answer.status, "host": harmless_host(answer.url), "headers": kept}


# --- the header's markup ----------------------------------------------------------------------------------------------

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
DROPPED = {"script", "style", "iframe", "object", "svg", "template", "noscript", "textarea", "title"}
OWN_CLASS = re.compile(r"(?:js|tv|i|quote)-[a-z][a-z-]{0,60}")
HASHED_CLASS = re.compile(r"([a-z]{1,16})-[\w-]{8}")  # last-KLji300y: such names change every few months
SYMBOL = re.compile(r"[A-Z0-9_]{1,20}:[\w.!&/]{1,32}")
KNOWN_IDS = ("symbol-last-value",)
OF_THE_PRICE = {*KNOWN_IDS, "js-symbol-last", "js-symbol-change-direction", "js-symbol-change-pt"}
FIGURES = re.compile(r"[\d.,\s%()+−—-]*")


class Skeleton(HTMLParser):
    """Rewrites markup: keeps tags, known classes, symbols and the price's figures; all other texts become x and 0."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.written: list[str] = []
        self._open: list[tuple[str, bool]] = []  # each open element, and whether it keeps its figures

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = dict(_harmless_attributes(dict(attrs)))
        if not self._is_dropped and tag not in DROPPED:
            told = "".join(f' {name}="{value}"' for name, value in kept.items())
            self.written.append(f"<{_harmless_tag(tag)}{told}>")
        if tag not in VOID:
            has_figures = bool(OF_THE_PRICE & {*kept.get("class", "").split(), kept.get("data-qa-id", "")})
            self._open.append((tag, has_figures or (bool(self._open) and self._open[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        while any(tag == opened for opened, _ in self._open):
            closed, _ = self._open.pop()
            if not self._is_dropped and closed not in DROPPED:
                self.written.append(f"</{_harmless_tag(closed)}>")
            if closed == tag:
                return

    def handle_data(self, data: str) -> None:
        if self._is_dropped:
            return
        is_kept = bool(self._open) and self._open[-1][1] and FIGURES.fullmatch(data) is not None
        self.written.append(data if is_kept else re.sub(r"\S", lambda one: "0" if one[0].isdigit() else "x", data))

    @property
    def _is_dropped(self) -> bool:
        return any(tag in DROPPED for tag, _ in self._open)


def _harmless_tag(tag: str) -> str:
    return tag if re.fullmatch(r"[a-z][a-z0-9]{0,9}", tag) else "span"


def _harmless_attributes(attrs: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    if kept := " ".join(filter(None, map(_harmless_class, (attrs.get("class") or "").split()))):
        yield "class", kept
    if SYMBOL.fullmatch(symbol := attrs.get("data-symbol") or ""):
        yield "data-symbol", symbol.replace("&", "&amp;")
    if (own := attrs.get("data-qa-id") or "") in KNOWN_IDS:
        yield "data-qa-id", own


def _harmless_class(name: str) -> str:
    if OWN_CLASS.fullmatch(name):
        return name
    return f"{hashed[1]}-hash" if (hashed := HASHED_CLASS.fullmatch(name)) else ""


def skeleton(markup: str) -> str:
    writer = Skeleton()
    writer.feed(markup[:MAX_MARKUP])
    writer.close()
    return "".join(writer.written)


# --- the sockets' messages --------------------------------------------------------------------------------------------

PAYLOAD = re.compile(r"~m~\d+~m~")
KINDS = ("qs_multiplexer_full_", "qs_multiplexer_simple_", "qs_snapshoter_", "qs_")  # beginnings of sessions' names
EVENTS = {
    "quote_completed",
    "critical_error",
    "protocol_error",
    "quote_create_session",
    "quote_add_symbols",
    "quote_remove_symbols",
    "quote_fast_symbols",
    "quote_hibernate_all",
    "quote_delete_session",
}
FIELDS = FRAME_FIELDS | {"rtc", "rch", "rchp", "rtc_time", "type", "exchange"}
SPEC_VALUE = re.compile(r"[A-Za-z]\w{0,15}")
WORD = re.compile(r"[a-z_]{1,32}")


class Sockets:
    """The messages of a page's quote sockets about its symbol, with their times in ms since the page was requested."""

    def __init__(self, symbol: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []  # only the names of other symbols
        self.left_out: Counter[str] = Counter()  # kinds of messages without a symbol
        self._symbol = symbol
        self._sessions: dict[str, str] = {}

    def hear(self, at_ms: int, direction: str, text: str) -> None:
        for payload in filter(None, PAYLOAD.split(text)):
            kept = payload if re.fullmatch(r"~h~\d{1,9}", payload) else self._harmless_payload(at_ms, payload)
            if kept is not None and len(self.messages) < MAX_MESSAGES:
                self.messages.append({"at_ms": at_ms, "direction": direction, "text": kept})

    def _harmless_payload(self, at_ms: int, payload: str) -> str | None:
        try:
            message = json.loads(payload)
            kind, parts = message.get("m"), message.get("p")
            if kind == "qsd":
                kept = self._harmless_quote(at_ms, parts[0], parts[1])
            elif kind in EVENTS:
                kept = [self._session(parts[0]), *self._own_names(at_ms, parts[1:])] if parts else []
            else:
                self.left_out[kind if isinstance(kind, str) and WORD.fullmatch(kind) else HIDDEN] += 1
                return None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.left_out["unreadable"] += 1
            return None
        return None if kept is None else json.dumps({"m": kind, "p": kept}, separators=(",", ":"))

    def _harmless_quote(self, at_ms: int, session: object, quote: dict[str, Any]) -> list[Any] | None:
        if not (names := self._own_names(at_ms, [quote["n"]])):
            return None
        told = {"n": names[0], "s": "ok" if quote.get("s") == "ok" else "error"}
        if isinstance(error := quote.get("errmsg"), str):
            told["errmsg"] = error if WORD.fullmatch(error) else HIDDEN
        fields = quote.get("v") or {}
        values = {name: bounded(fields[name]) for name in sorted(FIELDS & fields.keys())}
        return [self._session(session), told | {"v": values}]

    def _own_names(self, at_ms: int, names: list[Any]) -> list[str]:
        """The names that stand for the page's symbol. Notes the others."""
        own = []
        for name in filter(lambda name: isinstance(name, str), items(names)):
            symbol = symbol_in(name)
            if symbol == self._symbol:
                own.append(_harmless_name(name))
            elif isinstance(symbol, str) and SYMBOL.fullmatch(symbol) and len(self.others) < MAX_NAMES:
                self.others.append({"at_ms": at_ms, "name": symbol})
        return own

    def _session(self, name: object) -> str:
        """Our own name for a session: the end of TradingView's may identify its user."""
        text = printable(name)
        if text not in self._sessions:
            kind = next((kind for kind in KINDS if text.startswith(kind)), "qs_")
            self._sessions[text] = f"{kind}{len(self._sessions) + 1}"
        return self._sessions[text]


def _harmless_name(name: str) -> str:
    if not name.startswith("="):
        return name
    spec = {}
    for key, value in json.loads(name[1:]).items():
        is_known = key == "symbol" or (isinstance(value, str) and SPEC_VALUE.fullmatch(value))
        spec[key if re.fullmatch(r"[a-z-]{1,32}", key) else HIDDEN] = value if is_known else HIDDEN
    return "=" + json.dumps(spec, separators=(",", ":"))


# --- the file ---------------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """The result of one examination: the observations, and what else a report needs."""

    seen: Observed
    sockets: Sockets
    document: dict[str, Any] = field(default_factory=dict)  # what sort of document it is, as the probe said
    markup: str = ""  # of the header
    began_at: float = 0.0  # when the page was requested, in seconds since the epoch


class Report:
    """One examination, safe to send."""

    def __init__(self, verdict: Verdict, record: Record) -> None:
        self._verdict, self._record = verdict, record

    def as_json(self) -> dict[str, Any]:
        seen, sockets = self._record.seen, self._record.sockets
        return {
            "symbol": seen.symbol,
            "host": harmless_host(seen.host),
            "recorded_at": round(self._record.began_at * 1000),
            "simulated": seen.is_simulated,
            "verdict": self._harmless_verdict(),
            "answers": [harmless_answer(answer) for answer in seen.answers],
            "document": self._harmless_document(),
            "facts": self._harmless_facts(),
            "header_html": skeleton(self._record.markup),
            "messages": sockets.messages,
            "others": sockets.others,
            "left_out": dict(sockets.left_out),
            "refused": {harmless(reason): count for reason, count in seen.why.get("refused", {}).items()},
            "header": seen.why.get("header", {}),
        }

    def _harmless_verdict(self) -> dict[str, Any]:
        verdict = asdict(self._verdict)
        for finding in verdict["findings"]:
            finding["text"] = harmless(finding["text"])
        return verdict | {"advice": harmless(verdict["advice"])}

    def _harmless_document(self) -> dict[str, Any]:
        facts = {name: self._record.document.get(name) is True for name in ("symbol", "notFound", "check")}
        return {"title": known_title(self._record.document.get("title")), **facts}

    def _harmless_facts(self) -> dict[str, Any]:
        page = self._record.seen.why.get("page", {})
        if not page.get("resolvedSymbol"):
            return {}
        names = {
            "resolved_symbol": "resolvedSymbol",
            "currency": "currency",
            "typespecs": "typespecs",
            "session": "session",
        }
        return {theirs: page[ours] for theirs, ours in names.items() if page[ours]}

    def as_markdown(self) -> str:
        verdict = self._harmless_verdict()
        rows = [
            f"| {'✔' if finding['is_good'] else '✘'} | {finding['name']} | {finding['text']} |"
            for finding in verdict["findings"]
        ]
        table = "\n".join(["| | | |", "|---|---|---|", *rows])
        return f"# Pluto's doctor on {verdict['ticker']}\n\n{table}\n\n{verdict['advice']}\n\n{CONTENTS}\n"

    def write(self, path: Path) -> None:
        """Writes the zip file. Raises OSError."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("report.json", json.dumps(self.as_json(), indent=1, ensure_ascii=False))
            archive.writestr("report.md", self.as_markdown())
