"""One document of a page: what each strategy has read in it, what proves its price, and what makes it doubtful.

This file owns all that Pluto forgets when the page loads again. It never decides what clients are told (feed.py). It is
pure and runs on the thread of its feed. Times are ms: `at` by the page's clock, `now` by ours, `latest` and `site_ms`
since the epoch.
"""

from __future__ import annotations

from typing import Any

from quotes import Source, UnreadablePrice
from tradingview.facts import Facts
from tradingview.frames import Frames
from tradingview.messages import DISAGREEMENT_LIMIT_MS, Reading, bounded, printable
from tradingview.proof import TEXT_PROOF_MS, PageClock, Proofs
from tradingview.tally import Tally
from tradingview.texts import Element, Title
from tradingview.trouble import PageTrouble

TRUST = (Source.SOCKET, Source.DOM, Source.TITLE)  # the strategies that can be live, the most trusted first
LIVE_MODES = ("", "streaming", "pulsed")  # TradingView's update modes without delay
LIVE_MARKS = ("", "realtime")  # the same for its marks beside the price


class Document:
    """`doubt` says why nothing is proven yet; `host` is the host from which it was requested.

    `proof_factor` is that of Proofs.
    """

    def __init__(
        self, symbol: str, host: str, tally: Tally, doubt: str | None = None, proof_factor: float = 1.0
    ) -> None:
        self.clock = PageClock()
        self.proofs = Proofs(doubt, proof_factor)
        self.facts = Facts(symbol, host, tally)
        self.frames = Frames(symbol, tally)
        self.header: dict[str, Any] = {}  # of the price element
        self.element, self.title = Element(), Title()
        self._short_name = symbol.partition(":")[2]
        self._tally = tally
        self._disagreeing_since: float | None = None
        self._is_english = False  # the socket has confirmed a decimal point; only counts where another host answered

    def distrust(self, reason: str, *, slept: bool) -> None:
        """Drops every proof so far. If the machine `slept`, the page's clock stood still, so it is measured again."""
        self.proofs.distrust(reason)
        if slept:
            self.clock = PageClock()

    @property
    def refusal(self) -> PageTrouble | None:
        """TradingView's reason why the document may never show a price."""
        return self.frames.refusal

    # Messages of the probe.

    def hear(self, message: dict[str, Any], at: float, now: float, latest: float) -> None:
        """Takes a message of the probe. A trade dated after `latest` counts as undated."""
        self.clock.hear(at, now)
        self.proofs.hear(at)
        match message.get("kind"):
            case "start" | "long":
                pass
            case "frames":
                if (limit := self.frames.hear(message, at, latest)) is not None:
                    self._prove(Source.SOCKET, at, limit, now)
                    self._compare(at, is_element_new=False)
            case "session":
                self.frames.sessions.hear(message)
            case "price":
                self._hear_element(message.get("element"), at, now)
            case "title":
                self._hear_title(message.get("title"), at, now)
            case "pulse":
                self._hear_pulse(message, at, now)
            case "page":
                self._hear_facts(message, at)
            case kind:
                raise ValueError(f"a message of unknown kind {printable(kind)!r}")

    def _hear_facts(self, message: dict[str, Any], at: float) -> None:
        self.facts.hear(message, at, None if self.refusal is None else self.refusal.alternative)
        self.frames.names.know_currency("page", self.facts.currency)

    def _hear_pulse(self, message: dict[str, Any], at: float, now: float) -> None:
        for heard, limit in self.frames.sessions.hear_sockets(message.get("sockets"), at):
            self._prove(Source.SOCKET, heard, limit, now)
        header = message.get("header")
        self.header = header if isinstance(header, dict) else {}
        self._hear_element(message.get("element"), at, now)
        self._hear_title(message.get("title"), at, now)

    def _hear_element(self, told: object, at: float, now: float) -> None:
        if not isinstance(told, dict):
            self.element, self._disagreeing_since = Element(), None
            return
        if self.element.hear(told, at):
            self._tally.note_price(Source.DOM, self.element.unreadable)
        reading = self.element.reading
        if reading is not None and "." in reading.text and self._socket_said_until(reading.text) is not None:
            self._is_english = True
        self._compare(at, is_element_new=True)
        self._prove_text(Source.DOM, reading, self.element.changed_at, now)

    def _compare(self, at: float, *, is_element_new: bool) -> None:
        """Notes since when the element has shown a price that the socket has not told recently."""
        reading = self.element.reading
        said_until = None if reading is None else self._socket_said_until(reading.text)
        if reading is None or (said_until is not None and at - said_until <= DISAGREEMENT_LIMIT_MS):
            self._disagreeing_since = None
        elif self._disagreeing_since is None and is_element_new:
            self._disagreeing_since = max(reading.at, said_until or 0.0)

    def _hear_title(self, told: object, at: float, now: float) -> None:
        try:
            is_new = self.title.hear(told, at, self._short_name)
        except UnreadablePrice as refused:
            self._tally.note_price(Source.TITLE, refused.reason)
            return
        if is_new:
            self._tally.note_price(Source.TITLE, None)
        self._prove_text(Source.TITLE, self.title.reading, self.title.changed_at, now)

    def _prove_text(self, source: Source, reading: Reading | None, changed_at: float, now: float) -> None:
        """Renews the proof of a text strategy, unless the text only repeats the socket's price."""
        said_until = None if reading is None else self._socket_said_until(reading.text)
        is_echo = said_until is not None and changed_at <= self.frames.sessions.heard_at + DISAGREEMENT_LIMIT_MS
        if self.facts.is_resolved and not is_echo:
            self._prove(source, changed_at, TEXT_PROOF_MS, now)

    def _prove(self, source: Source, at: float, limit: float, now: float) -> None:
        if at > 0:
            self.proofs.renew(source, at, self.clock.ours(at), limit, now)

    # What Pluto believes of it.

    def reading(self, source: Source) -> Reading | None:
        """A strategy's reading, if this is the symbol's page. Texts count only if their number format is known."""
        if source is Source.SOCKET:
            return self.frames.reading if self.facts.is_ours else None
        if not self.facts.is_resolved or (self.facts.is_elsewhere and not self._is_english):
            return None
        if self.refusal is not None and self.refusal.alternative is not None:
            return None  # the page may show the alternative's price
        return self.element.reading if source is Source.DOM else self.title.reading

    def best(self, now: float) -> tuple[Source, Reading] | None:
        """The most trusted strategy that works, and its reading. If socket and element disagree, the newer reading."""
        source = next((source for source in TRUST if self._works(source, now)), None)
        reading = None if source is None else self.reading(source)
        if source is None or reading is None:
            return None
        element = self.reading(Source.DOM)
        if source is Source.SOCKET and element is not None and self.disagrees(now):
            is_newer = element.at - (reading.source_time or reading.at) > DISAGREEMENT_LIMIT_MS
            return (Source.DOM, element) if is_newer else (source, reading)
        return source, reading

    def _works(self, source: Source, now: float) -> bool:
        if self.reading(source) is None or not self.proofs.holds(source, now):
            return False
        return source is not Source.SOCKET or not self._has_element_gone_on(now)

    def _has_element_gone_on(self, now: float) -> bool:
        """Whether the element shows a newer price while no session has the symbol: then frames are not its source."""
        element, frame = self.reading(Source.DOM), self.frames.reading
        if element is None or frame is None or element.at <= frame.at or not self.proofs.holds(Source.DOM, now):
            return False
        return not self.frames.sessions.have_symbol and self._socket_said_until(element.text) is None

    def _socket_said_until(self, text: str) -> float | None:
        """Until when the socket told this price, within a tick or the last decimal that the page prints."""
        price, step = float(text), 10.0 ** -len(text.partition(".")[2])
        tick = 0.0 if self.frames.form is None else self.frames.form.tick(price)
        return self.frames.said_until(price, max(tick * 1.001, step * 0.501))

    def disagrees(self, now: float) -> bool:
        """Whether socket and element have shown different prices for too long, when the probe last looked."""
        since = self._disagreeing_since
        if since is None or self.reading(Source.DOM) is None or not self._works(Source.SOCKET, now):
            return False
        return self.element.seen_at - since > DISAGREEMENT_LIMIT_MS

    def why_stale(self, source: Source, now: float) -> str | None:
        """Why the price of this strategy is doubtful; None if it isn't."""
        if self.proofs.doubt is not None:
            return self.proofs.doubt
        if self.disagrees(now):
            return "socket and page disagree"
        if self.reading(source) is None:
            why = self.frames.unreadable if source is Source.SOCKET else self.element.unreadable
            return f"the page's price can't be read: {why}" if why else "the page's price can't be read"
        return None

    def why_delayed(self, source: Source) -> str | None:
        """Why the price is delayed. The mark "connecting" counts for the element only: a socket shows its own life."""
        mode, mark = self.frames.told("update_mode"), printable(self.header.get("mode"))
        if mode in LIVE_MODES:
            mode = "" if mark in LIVE_MARKS or (mark == "connecting" and source is Source.SOCKET) else mark
        return f"TradingView doesn't give this price as it happens ({mode})" if mode else None

    def why_closed(self, traded_at: int | None, site_ms: float | None) -> str | None:
        """Why no further price is expected; None while one is."""
        facts, mark = self.frames.symbol_facts, printable(self.header.get("market"))
        return self.facts.why_closed(facts, self.frames.told("current_session"), mark, traded_at, site_ms)

    def values_beside(self, source: Source) -> dict[str, Any]:
        """A quote's figures, from the strategy that gives its price."""
        if source is Source.SOCKET:
            return self.frames.values()
        return self.element.values if source is Source.DOM else {}

    def why(self, now: float) -> dict[str, Any]:
        """For a person: each strategy's reading and proof. Ages and spans are in ms."""
        readings = {source: self.reading(source) for source in TRUST} | {Source.SCRIPT: self.facts.reading}
        at = self.clock.theirs(now)
        facts = self.frames.symbol_facts
        return {
            "strategies": {
                source.value: self._why_strategy(source, reading, now) for source, reading in readings.items()
            },
            "sockets": self.frames.sessions.why(at, self.frames.giver),
            "header": {name: bounded(self.header.get(name)) for name in ("chosen", "count", "mode", "market")},
            "page": self.facts.why(),
            "symbolFacts": {name: facts[name] for name in sorted(facts)},
        }

    def _why_strategy(self, source: Source, reading: Reading | None, now: float) -> dict[str, Any]:
        until = self.proofs.until(source)
        return {
            "priceText": reading and reading.text,
            "ageMs": reading and round(now - self.clock.ours(reading.at)),
            "isProven": self.proofs.holds(source, now),
            "provenForMs": None if until is None else round(until - now),
            "read": self._tally.read[source],
            "refused": self._tally.unread[source],
            "successRate": self._tally.success_rate(source),
        }
