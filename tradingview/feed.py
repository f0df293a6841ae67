"""The feed layer: turns the messages of one ticker's pages into its current quote.

This file owns the ticker's quote: its price, its state and its times, across all documents of its page. It never
decides what to believe of one document (document.py). It is pure: no clock, no browser, no thread, no I/O. The scraper
gives it the probe's messages with their times.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from quotes import NO_SIGN_OF_LIFE, Quote, Source, State, Ticker, split_ticker
from tradingview.document import TRUST, Document
from tradingview.frames import NUMBER_FIELDS
from tradingview.messages import Reading, is_number, is_time, printable
from tradingview.proof import SETTLING_MS
from tradingview.tally import Tally
from tradingview.trouble import PageTrouble, Trouble

__all__ = ["CLOCK_STEP_MS", "Feed", "PageTrouble", "Trouble", "clock_problem", "printable"]

CLOCK_STEP_MS = 5_000  # a timestamp that jumps back further means that someone set the machine's clock
CATCH_UP_MS, LAG_MS = 5_000, 500  # longest time to read a backlog; a message this late is part of it
HELD_UP_MS = 6_000  # a page speaks every 2 s: after a silence this long, its messages were held up
STOPPED_MS = 2_000  # a page whose timers are this late was stopped: its sockets' messages may be as old
CLOCK_LIMIT_MS = 5 * 60_000  # how far off the machine's clock may be
FUTURE_MS = 60_000  # if a trade is dated further ahead of the site's clock, Pluto ignores the date
KEPT_MS = 60_000  # how long the socket's figures stay beside a price that was read from the page's text

Status = tuple[State, str | None, int | None, float | None]  # state, reason, next try, end of its proof
COLUMNS = {"change_percent": "change", "volume": "volume", "high": "high", "low": "low"}  # for users
PLACES = {
    Source.SOCKET: "the page's quotes have",
    Source.DOM: "the price element shows",
    Source.TITLE: "the title shows",
}
NO_NUMBERS: dict[str, Any] = dict.fromkeys(NUMBER_FIELDS.values())


class Feed:
    """Turns the messages of one ticker's pages into its current quote.

    Pure: it has no clock and no browser. Times are ms: `at` by the page's clock, `now` by ours (it never jumps and
    counts sleep), `wall` since the epoch. Only a quote's own times come from `wall`. `counters` counts refused messages
    and prices, among others. One object serves a ticker until the ticker is removed or its page renewed. `host` is the
    host from which Pluto requests its pages; `proof_factor` is that of Proofs.
    """

    def __init__(
        self, ticker: Ticker, *, simulated: bool, counters: Counter[str], host: str = "", proof_factor: float = 1.0
    ) -> None:
        self.ticker = ticker
        exchange, symbol = split_ticker(ticker)
        self.symbol = f"{exchange}:{symbol}"
        self.trouble: Trouble | None = None
        self._host, self._proof_factor = host, proof_factor
        self._counters = counters
        self._tally = Tally(counters)
        self._site_ahead: float | None = None  # ms that the site's clock is ahead of ours
        self.loads = 0  # how often its page was requested, by Pluto or by itself
        self.http_status: int | None = None  # of the last answer
        self._values: dict[str, Any] = {"exchange": exchange, "simulated": simulated}  # the quote's, without its state
        self._kept: dict[str, float] = {}  # the figures known when the source fell back
        self._kept_until = 0.0  # by our clock
        self._quote: Quote | None = None  # the last one built; None when something is new
        self._built_of: Status | None = None
        self._begin(None)

    def _begin(self, doubt: str | None) -> None:
        """Forgets the last document: the next one starts from nothing."""
        self._page: object = None  # identifies the document
        self._heard_at = 0.0  # by the page's clock
        self._heard_now = float("inf")  # the same by ours
        self._lag = 0.0  # delay of the last message beyond the least one
        self._late = 0.0  # how late the page's timers are
        self._caught_at = float("-inf")  # when the last backlog began to arrive, by our clock
        self._held_until: float | None = None  # until when the price was proven at that moment
        self._document = Document(self.symbol, self._host, self._tally, doubt, self._proof_factor)
        self._shown: tuple[Source, Reading] | None = None  # the reading shown, of this document
        self._is_disagreement_counted = False

    @property
    def has_price(self) -> bool:
        """Whether the page that is open now has shown a price."""
        return self._shown is not None

    @property
    def due_at(self) -> float:
        """When the scraper may open its page, by our clock."""
        return 0.0 if self.trouble is None else self.trouble.retry_at

    @property
    def refusal(self) -> PageTrouble | None:
        """TradingView's reason why the page may never show a price. The page fails with it at its deadline."""
        return self._document.refusal

    def quote(self, now: float) -> Quote:
        """The ticker's quote: the same object until something changes. `Quote.as_of` tells whether its proof holds."""
        status = self._status(now)
        if self._quote is None or status != self._built_of:
            self._quote, self._built_of = self._build(status), status
        return self._quote

    def _build(self, status: Status) -> Quote:
        state, reason, next_try_at, until = status
        told: dict[str, Any] = {"reason": reason, "next_try_at": next_try_at, "proven_until": until}
        told["alternative"] = None if self.trouble is None else self.trouble.alternative
        return Quote(self.ticker, state, **told, **self._values)

    def _status(self, now: float) -> Status:
        if (trouble := self.trouble) is not None:
            return trouble.state, trouble.reason, trouble.next_try_at, None
        return *self._state(now), None, self._proven_until(now)

    def _state(self, now: float) -> tuple[State, str | None]:
        source = self._source
        if source is None:
            return State.STARTING, "its page has not shown a price yet"
        if source is Source.SCRIPT:
            return State.SNAPSHOT, "a dated price: the page's feed has not spoken yet"
        document = self._document
        stale = document.why_stale(source, now) or (None if self.has_price else NO_SIGN_OF_LIFE)
        closed = document.why_closed(self._values.get("source_time"), self._site_ms(now))
        if stale is None and closed is None:
            stale = document.why_delayed(source)
        if stale is not None:
            return State.STALE, stale
        return (State.LIVE, self._why_incomplete(source)) if closed is None else (State.CLOSED, closed)

    def _why_incomplete(self, source: Source) -> str | None:
        """Why figures that a live price usually has are unknown."""
        unknown = [word for name, word in COLUMNS.items() if self._values.get(name) is None]
        return f"{PLACES[source]} no {', '.join(unknown)}" if unknown else None

    @property
    def _source(self) -> Source | None:
        source: Source | None = self._values.get("source")
        return source

    def _proven_until(self, now: float) -> float | None:
        """When the proof of the shown price runs out, by our clock; None without one. A backlog renews no proof."""
        if self.has_price and self._is_catching_up(now):
            return self._held_until
        return None if self._source is None else self._document.proofs.until(self._source)

    def _site_ms(self, now: float) -> float | None:
        return None if self._site_ahead is None else now + self._site_ahead

    # Called by the scraper.

    def reopen(self) -> None:
        """A new document begins: earlier messages prove nothing. A trouble stays until the page works."""
        self._begin("its page is being opened again")

    def doubt(self, reason: str, *, slept: bool = False) -> None:
        """Ignores all evidence until SETTLING_MS after the page's next message.

        If the machine `slept`, the page's clock stood still; ours didn't.
        """
        self._document.distrust(reason, slept=slept)

    def succeed(self, old: Feed) -> None:
        """Takes the place of the old page's feed. If both show the same price, the older times are kept."""
        self.loads += old.loads
        before, shown = old._values, self._values
        if before.get("timestamp") is None or shown.get("timestamp") is None:
            return
        if before["price_text"] == shown["price_text"]:
            self._learn(timestamp=before["timestamp"], received_at=before["received_at"])
        else:
            self._learn(timestamp=max(before["timestamp"], shown["timestamp"]))

    def fail(self, trouble: Trouble, *, void_price: bool) -> None:
        self.trouble = trouble
        if void_price:  # only what the ticker itself says remains known
            self._values = {name: self._values[name] for name in ("exchange", "simulated")}
            self._quote = None

    def hear_date(self, date: str, now: float) -> None:
        """Sets the site's clock by a `Date` header of the site. A trade's age is measured by that clock."""
        with suppress(ValueError, OverflowError):
            self._site_ahead = parsedate_to_datetime(date).timestamp() * 1000 - now

    def clock_behind_ms(self, now: float, wall: float) -> float | None:
        """How far this machine's clock is behind the site's; negative when it is ahead, None when unknown."""
        return None if (site_ms := self._site_ms(now)) is None else site_ms - wall

    def hear(self, message: dict[str, Any], now: float, wall: float) -> None:
        """Takes a message of the probe. Raises PageTrouble if the page is useless, ValueError if it is malformed."""
        at, kind = message.get("at"), message.get("kind")
        if not is_time(at):
            raise ValueError("a message without its time")
        if kind == "start":
            self.reopen()
            self._page = message.get("page")
        elif message.get("page") != self._page:
            self._counters["messages_of_old_pages"] += 1
            return
        if at < self._heard_at:
            self._counters["messages_out_of_order"] += 1
            return
        self._note_delay(message.get("late"), now)
        self._heard_at, self._heard_now = at, now
        self._document.hear(message, at, now, (self._site_ms(now) or wall) + FUTURE_MS)
        self._lag = now - self._document.clock.ours(at)
        if kind == "page":
            self._take_facts(now, wall)
        elif kind == "frames":
            self._describe(self._document.frames.described)
        self.choose(now, wall)
        self._take_figures(now)

    def why(self, now: float, wall: float) -> dict[str, Any]:
        """For a person: why the quote is what it is, as plain JSON. Ages and spans are in ms. Changes nothing."""
        quote = self._build(self._status(now)).as_of(now)
        site_ms, traded_at = self._site_ms(now), self._values.get("source_time")
        behind = self.clock_behind_ms(now, wall)
        return {
            "ticker": self.ticker,
            "symbol": self.symbol,
            "state": quote.state.value,
            "reason": quote.reason,
            "source": quote.source and quote.source.value,
            "priceText": quote.price_text,
            "nextTryAt": quote.next_try_at,
            "tradedAt": traded_at,
            "tradeAgeMs": None if traded_at is None or site_ms is None else round(site_ms - traded_at),
            "clockBehindMs": None if behind is None else round(behind),
            "clockProblem": clock_problem(behind),
            "host": self._host,
            "httpStatus": self.http_status,
            "loads": self.loads,
            "refused": dict(self._tally.refused),
            **self._document.why(now),
        }

    # Building the quote.

    def _learn(self, **values: Any) -> None:
        if any(self._values.get(name) != value for name, value in values.items()):
            self._values |= values
            self._quote = None

    def _take_facts(self, now: float, wall: float) -> None:
        """Takes the page's facts; they show that the page works."""
        facts = self._document.facts
        self.trouble = None
        self._describe({"description": facts.description, "currency": facts.currency})
        if facts.is_simulated:
            self._learn(simulated=True)
        if facts.reading is not None and "price_text" not in self._values:
            self._know(Source.SCRIPT, facts.reading, now, wall)

    def _take_figures(self, now: float) -> None:
        """Updates the figures of a price that is already shown. `_know` sets those of a new price."""
        if self._shown is not None and self._shown[1] == self._document.reading(self._shown[0]):
            self._learn(**self._figures(self._shown[0], now))

    def _figures(self, source: Source, now: float) -> dict[str, Any]:
        """The figures that the price's own strategy read. Those that a page's text lacks are kept for KEPT_MS."""
        beside = self._document.values_beside(source)
        if source is Source.SOCKET or now >= self._kept_until:
            self._kept = {}
        told = {name: value for name, value in beside.items() if value is not None}
        return NO_NUMBERS | self._kept | told

    def _keep_figures(self, now: float) -> None:
        """Keeps the socket's figures when the source falls back."""
        known = {name: value for name in NO_NUMBERS if (value := self._values.get(name)) is not None}
        self._kept, self._kept_until = known, now + KEPT_MS

    def _describe(self, texts: dict[str, str]) -> None:
        self._learn(**{name: text for name, text in texts.items() if text})
        if description := texts.get("description"):
            self._learn(calculated="calculated by tradingview" in description.lower())

    def choose(self, now: float, wall: float) -> None:
        """Shows the document's best reading. While Pluto reads a backlog of messages, the shown reading stays."""
        self._document.proofs.settle(now)
        if self.has_price and self._is_catching_up(now):
            return
        if (best := self._document.best(now)) is None:
            return
        disagrees = self._document.disagrees(now)
        self._counters["disagreements"] += disagrees and not self._is_disagreement_counted
        self._is_disagreement_counted = disagrees
        self._show(*best, now, wall)

    def _note_delay(self, late: object, now: float) -> None:
        """Notes whether a backlog begins or goes on. `late` is how late the page's timers are."""
        late_ms, was_catching_up = late if is_number(late) else 0.0, self._is_catching_up(now)
        is_stopped = late_ms > STOPPED_MS and not was_catching_up
        if is_stopped or now - self._heard_now > HELD_UP_MS:
            self._held_until = self._proven_until(now)
            self._caught_at = now
        self._late = late_ms if is_stopped or was_catching_up else 0.0

    def _is_catching_up(self, now: float) -> bool:
        """Whether messages may be old: the page or Pluto still reads a backlog, which arrives in order."""
        since = now - self._caught_at
        is_behind = self._lag > LAG_MS and now - self._heard_now < SETTLING_MS
        return self._late > LAG_MS or since < SETTLING_MS or (is_behind and since < CATCH_UP_MS)

    def _show(self, source: Source, reading: Reading, now: float, wall: float) -> None:
        if (source, reading) == self._shown:
            return
        shown_at = reading.at
        if self._shown is not None and source is not self._shown[0]:
            is_same_price = reading.text == self._values.get("price_text")
            if reading.at < self._shown[1].at and not is_same_price:
                return  # the shown reading is newer
            verb = "climbed" if TRUST.index(source) < TRUST.index(self._shown[0]) else "fell"
            self._counters[f"{verb}_to_{source}"] += 1
            shown_at = self._shown[1].at if is_same_price else reading.at
        self._shown = source, reading
        self._counters[f"prices_{source}"] += 1
        self._know(source, Reading(reading.text, shown_at, reading.source_time), now, wall)

    def _know(self, source: Source, reading: Reading, now: float, wall: float) -> None:
        shown_at = round(wall - max(0.0, now - self._document.clock.ours(reading.at)))
        if self._source is Source.SOCKET and source is not Source.SOCKET:
            self._keep_figures(now)
        before = self._values.get("timestamp")
        if before is not None and self.has_price and shown_at > before - CLOCK_STEP_MS:
            shown_at = max(before, shown_at)
        self._learn(
            price_text=reading.text,
            source=source,
            source_time=reading.source_time,
            timestamp=shown_at,
            received_at=round(wall),
            **self._figures(source, now),
        )


def clock_problem(behind_ms: float | None) -> str | None:
    """What is wrong with a clock that is this far behind the site's; None if nothing is, or nothing is known."""
    if behind_ms is None or abs(behind_ms) <= CLOCK_LIMIT_MS:
        return None
    side = "behind" if behind_ms > 0 else "ahead of"
    return f"this machine's clock is {round(abs(behind_ms) / 60_000)} minutes {side} TradingView's: set it right"
