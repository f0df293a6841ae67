"""Live means live and stale means stale, at the real site's pace: every trouble of a feed at once, for 34 seconds.

One Pluto, one simulator whose prices change as seldom as recorded, a ticker for each line of the table. Struck are
faults of sockets, sessions, headers and markets; what clients were told is compared with what was true. Heartbeats and
proofs are as long as the real ones. A silent page is opened again sooner; faults that take a time take half of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from running import Pluto, Simulator, running_pluto, running_simulator, wait_until
from truth import Change, Sighting, wrongs

from broadcast import FLUSH_INTERVAL_S, TICK_S
from quotes import NO_SIGN_OF_LIFE
from tradingview.proof import MAX_SOCKET_PROOF_MS, MIN_SOCKET_PROOF_MS, TEXT_PROOF_MS

pytestmark = pytest.mark.timeout(420)  # for the first, that waits for all pages and watches them

WATCH_S = 34.0  # longer than every proof
NO_LIFE_S = 3.0  # how long a price that was live is stale before its page is opened again
RETURN_S = 40.0  # for a page that is opened again to be live, since the watch's end, on a busy machine
OPENING_S = 150.0  # for all pages, on a busy machine
LATE_S = 3.0  # by which a busy machine may be late to tell
TOLD_S = TICK_S + FLUSH_INTERVAL_S + LATE_S
DOUBTS = ("socket and page disagree",)


@dataclass(frozen=True)
class Told:
    """What clients were told of a ticker, so many seconds after its fault was struck."""

    at: float
    state: str
    reason: str
    price: str


Check = Callable[[list[Told]], None]


@dataclass(frozen=True)
class Line:
    """A ticker with its fault. `before`: it strikes before the page is opened, for it is one of pages opened later."""

    ticker: str
    fault: str
    check: Check
    before: bool = False
    quiet: bool = False  # its price stands still

    @property
    def id(self) -> str:
        return self.fault or f"well, {self.ticker}"


def stays_live(told: list[Told]) -> None:
    assert {one.state for one in told} == {"live"}, told


def becomes_stale(told: list[Told]) -> None:
    """Within the limit of a proof; and its page is opened again soon after."""
    stale = next(one for one in told if one.state == "stale")
    assert stale.reason == NO_SIGN_OF_LIFE
    assert stale.price, "the last one is still told, as what it is"
    assert MIN_SOCKET_PROOF_MS / 1000 - 13 < stale.at < MAX_SOCKET_PROOF_MS / 1000 + TOLD_S
    assert told[-1].state == "live", told


def stays_stale(told: list[Told]) -> None:
    stale = next(one for one in told if one.state == "stale")
    assert stale.reason == NO_SIGN_OF_LIFE
    assert stale.at < MAX_SOCKET_PROOF_MS / 1000 + TOLD_S
    assert "live" not in {one.state for one in told if one.at > stale.at}, told


def is_stale_as(mode: str) -> Check:
    def check(told: list[Told]) -> None:
        later = [one for one in told if one.at > TOLD_S]
        assert {one.state for one in later} <= {"stale"}, told
        assert f"({mode})" in told[-1].reason

    return check


def is_closed_as(reason: str) -> Check:
    def check(told: list[Told]) -> None:
        assert {one.state for one in told if one.at > TOLD_S} <= {"closed"}, told
        assert told[-1].state == "closed"
        assert reason in told[-1].reason

    return check


def never_is_wrong(told: list[Told]) -> None:
    """Live or in doubt: what it was told is compared with the truth for every line."""
    assert {one.state for one in told} <= {"live", "stale"}, told
    assert {one.reason for one in told if one.state == "stale"} <= {*DOUBTS, NO_SIGN_OF_LIFE}, told


def gives_no_price(told: list[Told]) -> None:
    """But a dated one of its own, until the deadline."""
    assert {one.state for one in told if one.price} <= {"snapshot"}, told
    assert (told[-1].state, told[-1].price) == ("error", "")
    assert "instead of BINANCE:XTZUSD" in told[-1].reason


LINES = [
    Line("BTCUSD", "", stays_live),
    Line("ADAUSD", "", stays_live),
    Line("XRPUSDT", "", stays_live),
    Line("DOTUSD", "", stays_live, quiet=True),
    Line("LTCUSD", "critical_error", becomes_stale, quiet=True),
    Line("LINKUSD", "session_deleted", becomes_stale, quiet=True),
    Line("UNIUSD", "symbol_removed", becomes_stale, quiet=True),
    Line("ATOMUSD", "hibernated", becomes_stale, quiet=True),
    Line("TRXUSD", "socket_silent", stays_stale, quiet=True),
    Line("XLMUSD", "socket_dropped", stays_live, quiet=True),
    Line("NEARUSD", "socket_expires", stays_live, before=True),
    Line("APTUSD", "two_sockets", stays_live, before=True),
    Line("SUIUSD", "broken_frames", stays_live),
    Line("ARBUSD", "session_lags", never_is_wrong),
    Line("OPUSD", "other_currency", stays_live, before=True),
    Line("FILUSD", "extended_session", stays_live, before=True),
    Line("HBARUSD", "spec_refused", stays_live, before=True),
    Line("VETUSD", "hidden_header_first", stays_live, before=True),
    Line("ICPUSD", "header_of_another", stays_live, before=True),
    Line("ETCUSD", "header_swaps", stays_live),
    Line("XMRUSD", "delisted", is_closed_as("delisted")),
    Line("ALGOUSD", "out_of_session", is_closed_as("out_of_session")),
    Line("AAVEUSD", "pre_market", is_closed_as("pre_market")),
    Line("MKRUSD", "halted", is_closed_as("no trade since")),
    Line("GRTUSD", "connecting", is_stale_as("connecting")),
    Line("SANDUSD", "replayed", is_stale_as("replay")),
    Line("MANAUSD", "delayed", is_stale_as("delayed_streaming_900")),
    Line("AXSUSD", "end_of_day", is_stale_as("endofday")),
    Line("THETAUSD", "lp_time_ahead", stays_live),
    Line("EOSUSD", "clock_behind", stays_live, before=True),
    Line("XTZUSD", "permission_denied_alternative", gives_no_price, before=True),
]


@dataclass
class Watch:
    """All that one client is told, by ticker."""

    told: dict[str, list[Told]] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    truth: dict[str, list[Change]] = field(default_factory=dict)
    struck_at: float = float("inf")
    has_ended: bool = False

    def have_returned(self) -> bool:
        """Whether all that must become stale for a while are live again."""
        tickers = [line.ticker for line in LINES if line.check is becomes_stale]
        return all({one.state for one in self.told[ticker][-1:]} == {"live"} for ticker in tickers)

    def read(self, pluto: Pluto) -> None:
        """Until the stream ends, on a thread of its own."""
        with pluto.stream() as events:
            for event in events:
                body = event.json() if event.event in ("message", "status") else {}
                for update in body.get("updates", ()):
                    self.take(update)
                if self.has_ended:
                    return

    def take(self, update: dict[str, Any]) -> None:
        told = Told(
            time.monotonic() - self.struck_at, update["state"], update.get("reason", ""), update.get("priceText", "")
        )
        self.told.setdefault(update["ticker"], []).append(told)
        if told.state == "live":
            times = update["timestamp"], update["receivedAt"], update["sequence"]
            self.sightings.append(Sighting(update["ticker"], "live", told.price, *times))

    def since_struck(self, ticker: str) -> list[Told]:
        """From what was told last before that."""
        told = self.told[ticker]
        before = [Told(0.0, one.state, one.reason, one.price) for one in told if one.at < 0][-1:]
        return before + [one for one in told if one.at >= 0]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    watch = Watch()
    options = ("--opening-spacing", "0.05", "--max-tickers", "60")
    with (
        running_simulator("--pace", "real", "--weight", "0", "--delays", "0.5") as simulator,
        running_pluto(
            *("--source-url", simulator.url, *options),
            program="tests/faulty_server.py",
            SCRAPER_PATIENCE=f"no_life={NO_LIFE_S}",
        ) as pluto,
    ):
        for line in LINES:
            if line.quiet:
                simulator.rate(line.ticker, 0)
            if line.before:
                simulator.fault(line.ticker, line.fault)
            assert pluto.add(line.ticker).status_code == 201
        reader = threading.Thread(target=watch.read, args=[pluto], daemon=True)
        reader.start()
        _wait_until_all_are_open(pluto)
        for line in LINES:
            if line.fault and not line.before:
                simulator.fault(line.ticker, line.fault)
        watch.struck_at = time.monotonic()
        time.sleep(WATCH_S)
        wait_until(watch.have_returned, RETURN_S, what="those that became stale are live again")
        wait_until(lambda: simulator.pages()["upgrades"]["BINANCE:NEARUSD"] > 1, what="a socket has expired")
        watch.has_ended = True
        reader.join(10)  # before the truth is asked for: it must know all that was told
        assert not reader.is_alive()
        watch.truth = {line.ticker: _truth(simulator, line.ticker) for line in LINES}
        yield watch


def _wait_until_all_are_open(pluto: Pluto) -> None:
    def waiting() -> list[str]:
        quotes = {quote["ticker"]: quote["state"] for quote in pluto.http.get("/api/tickers").json()["prices"]}
        return [line.ticker for line in LINES if line.check is not gives_no_price and quotes[line.ticker] != "live"]

    wait_until(lambda: not waiting(), OPENING_S, what="all are live")


def _truth(simulator: Simulator, ticker: str) -> list[Change]:
    return [Change(change["time"], change["price"]) for change in simulator.truth(ticker)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.id)
def test_what_is_told_of_a_ticker_is_what_its_page_is_worth(watch: Watch, line: Line) -> None:
    line.check(watch.since_struck(line.ticker))


def test_no_price_told_as_live_was_wrong(watch: Watch) -> None:
    assert list(wrongs(watch.sightings, watch.truth)) == []
    assert len({sighting.ticker for sighting in watch.sightings}) > 20


def test_the_watch_is_longer_than_every_proof() -> None:
    assert max(MAX_SOCKET_PROOF_MS, TEXT_PROOF_MS) / 1000 + TOLD_S < WATCH_S
