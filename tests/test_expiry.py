"""No transport shows a price as live for longer than it is proven, whatever becomes of the scraper.

Witnesses of every transport look on: some ask again and again, some open a stream again and again and look at its first
batch, some keep one stream. Whoever asks after the proof has run out must not be told that the price is live; a stream
that is open must say so within one tick and one batch. The proof's end and the witnesses' moments are of one clock.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from running import Pluto, quote_server, running_pluto, running_simulator, wait_until
from stories import Outcomes, Stories, Story
from transports import TRANSPORTS, Transport

from broadcast import FLUSH_INTERVAL_S, TICK_S
from quotes import steady_ms
from tradingview.proof import MIN_SOCKET_PROOF_MS, SETTLING_MS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no clock counts the machine's sleep")

TICKER = "BTCUSD"
ASK_S = 0.1  # how long a witness waits before it asks again,
CALM_ASK_S = 0.25  # while nothing can happen
BUSY_MS = 1000.0  # by which a machine that runs other tests too may be late
STALE_WITHIN_MS = 1000 * (TICK_S + FLUSH_INTERVAL_S) + BUSY_MS
HEARTBEAT_S = 1.0  # of the simulator's socket
SCRAPER_TICK_S = 0.5
PROOF_FACTOR = 0.2
# What hangs right after a proof has not renewed the one before.
EARLY_MS = 1000 * (HEARTBEAT_S + SCRAPER_TICK_S) + BUSY_MS


class Sighting(NamedTuple):
    """A state that a witness was told: from when it asked to when it had the answer. A stream is not asked."""

    asked_at: float
    state: str
    had_at: float


class Witnesses:
    """All of one server: what each was told about TICKER, by the witness's name."""

    def __init__(self, port: int) -> None:
        self.answers: dict[str, list[Sighting]] = {}
        self.streams: dict[str, list[Sighting]] = {transport.name: [] for transport in TRANSPORTS}
        self.ask_s = ASK_S
        self._address, self._url = ("127.0.0.1", port), f"http://127.0.0.1:{port}"
        self._has_ended = threading.Event()
        asks: dict[str, Callable[[httpx.Client], str]] = {
            "a ticker by REST": self._ask_for_one,
            "all tickers by REST": self._ask_for_all,
            "GetTickers": self._ask_by_connect,
        }
        self._threads = [threading.Thread(target=self._keep_asking, args=ask) for ask in asks.items()]
        for transport in TRANSPORTS:
            self._threads.append(threading.Thread(target=self._keep_coming, args=[transport]))
            self._threads.append(threading.Thread(target=self._stay, args=[transport]))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._has_ended.set()
        for thread in self._threads:
            thread.join()

    def all_are_told(self, state: str, since: float = 0.0) -> bool:
        """Whether every stream that is open, and every kind of question, has had this answer."""
        told = [*self.streams.values(), *self.answers.values()]
        is_complete = len(told) == len(self._threads)
        recent = (takewhile(lambda sighting: sighting.asked_at >= since, reversed(seen_by)) for seen_by in told)
        return is_complete and all(any(sighting.state == state for sighting in seen_by) for seen_by in recent)

    def _keep_asking(self, name: str, ask: Callable[[httpx.Client], str]) -> None:
        with httpx.Client(base_url=self._url, timeout=10.0) as http:
            while not self._has_ended.wait(self.ask_s):
                asked_at = steady_ms()
                self._note(name, asked_at, ask(http))

    def _ask_for_one(self, http: httpx.Client) -> str:
        return str(http.get(f"/api/tickers/{TICKER}").raise_for_status().json()["state"])

    def _ask_for_all(self, http: httpx.Client) -> str:
        [price] = http.get("/api/tickers").raise_for_status().json()["prices"]
        return str(price["state"])

    def _ask_by_connect(self, http: httpx.Client) -> str:
        answer = http.post("/crypto.v1.CryptoPriceService/GetTickers", json={})
        [price] = answer.raise_for_status().json()["prices"]
        return _plain(price["state"])

    def _keep_coming(self, transport: Transport) -> None:
        while not self._has_ended.wait(self.ask_s):
            asked_at = steady_ms()
            if (first := next(self._read(transport), None)) is not None:
                self._note(f"first batch, {transport.name}", asked_at, first)

    def _note(self, name: str, asked_at: float, state: str) -> None:
        self.answers.setdefault(name, []).append(Sighting(asked_at, state, steady_ms()))

    def _stay(self, transport: Transport) -> None:
        for state in self._read(transport):
            self.streams[transport.name].append(Sighting(now := steady_ms(), state, now))

    def _read(self, transport: Transport) -> Iterator[str]:
        """The ticker's states as a stream tells them."""
        with socket.create_connection(self._address, timeout=0.1) as connection:
            connection.sendall(transport.request(""))
            unread = b""
            while b"\r\n\r\n" not in unread and not self._has_ended.is_set():
                unread += self._receive(connection)
            unread = unread.partition(b"\r\n\r\n")[2]
            while not self._has_ended.is_set():
                messages, unread = transport.read(unread)
                for message in messages:
                    yield from (_plain(update["state"]) for update in message.get("updates", ()))
                unread += self._receive(connection)

    def _receive(self, connection: socket.socket) -> bytes:
        try:
            return connection.recv(65536)
        except TimeoutError:
            return b""


def _plain(state: str) -> str:
    return state.removeprefix("STATE_").lower()


@contextmanager
def witnesses_of(url: str) -> Iterator[Witnesses]:
    witnesses = Witnesses(int(url.rpartition(":")[2]))
    witnesses.start()
    try:
        yield witnesses
    finally:
        witnesses.stop()


def check(witnesses: Witnesses, put_at: float, proven_until: float, seen_until: float) -> None:
    """What was told in this time of a price that was put then, and proven until then."""
    for name, sightings in witnesses.answers.items():
        asked = [(at, state) for at, state, _ in sightings if proven_until < at < seen_until]
        late = [at - proven_until for at, state in asked if state == "live"]
        assert not late, f"{name}: asked {late[-1]:.0f} ms after the proof's end, answered that the price is live"
    for name, sightings in witnesses.streams.items():
        told = [(at, state) for at, state, _ in sightings if put_at < at < seen_until]
        assert "live" in [state for _, state in told] or put_at == 0, name
        stale_at = next(at for at, state in told if state != "live" and at > proven_until - EARLY_MS)
        assert stale_at - proven_until < STALE_WITHIN_MS, f"{name}: told {stale_at - proven_until:.0f} ms late"


def answered(witnesses: Witnesses, since: float, until: float) -> set[str]:
    """All that was asked and answered in this time."""
    told = [sighting for sightings in witnesses.answers.values() for sighting in sightings]
    return {sighting.state for sighting in told if since < sighting.asked_at and sighting.had_at < until}


# --- without a browser ------------------------------------------------------------------------------------------------


stories = Stories()


@stories
def no_transport_shows_a_price_as_live_past_its_proof() -> None:
    """Of two lengths: one runs out soon after a tick, one shortly before."""
    with quote_server() as server:
        server.track(TICKER)
        with witnesses_of(server.url) as witnesses:
            wait_until(lambda: witnesses.all_are_told("starting"), what="all are there")
            for proof_ms in (1_500, 1_890):
                put_at = steady_ms()
                end = put_at + proof_ms
                server.put((TICKER, "live", "7.5", end))
                wait_until(partial(witnesses.all_are_told, "live", put_at), what="all see it live")
                wait_until(partial(witnesses.all_are_told, "stale", end), what="all see it stale")
                check(witnesses, put_at, end, steady_ms())


@stories
def a_renewed_price_stays_live_on_every_transport_and_nothing_is_sent() -> None:
    with quote_server() as server:
        server.track(TICKER)

        def renew() -> None:
            server.put((TICKER, "live", "8.5", steady_ms() + 2_000))

        def is_live_everywhere(witnesses: Witnesses) -> bool:
            renew()
            return witnesses.all_are_told("live")

        renew()
        wait_until(lambda: server.http.get(f"/api/tickers/{TICKER}").json()["state"] == "live")
        with witnesses_of(server.url) as witnesses:
            wait_until(partial(is_live_everywhere, witnesses))
            sequence = server.server()["sequence"]
            began = time.monotonic()
            while time.monotonic() - began < 2.5:  # longer than a proof
                renew()
                time.sleep(0.1)
            assert server.server()["sequence"] == sequence
            for name, sightings in {**witnesses.answers, **witnesses.streams}.items():
                assert {sighting.state for sighting in sightings} == {"live"}, name
            assert [len(sightings) for sightings in witnesses.streams.values()] == [1] * len(TRANSPORTS)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """The stories are told while the real page's tests wait."""
    with stories.telling(request) as outcomes:
        yield outcomes


# --- with a real page, while the scraper hangs or is dead -------------------------------------------------------------

HANG_S = PROOF_FACTOR * MIN_SOCKET_PROOF_MS / 1000 + 2.5  # after a proof, longer than it lasts


class Faulty(NamedTuple):
    """A Pluto whose faults are ordered, with one price that stands still: only heartbeats prove it."""

    pluto: Pluto
    log: Path

    def proven_until(self) -> float:
        """As the scraper's thread said when it began to hang last."""
        found = re.findall(r"hangs, proven until ([\d.]+)", self.log.read_text())
        return float(found[-1]) if found else 0.0


@pytest.fixture(scope="module")
def faulty(outcomes: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    log = tmp_path_factory.mktemp("expiry") / "log"
    patience = {
        "FAULTY_PATIENCE": "restart=60",
        "SCRAPER_PATIENCE": f"proof_factor={PROOF_FACTOR},tick={SCRAPER_TICK_S}",
    }
    with running_simulator("--weight", "20000", "--heartbeat", str(HEARTBEAT_S)) as simulator:
        simulator.rate(TICKER, 0)
        options = ("--source-url", simulator.url, "--tickers", TICKER)
        with running_pluto(*options, program="tests/faulty_server.py", log=str(log), **patience) as pluto:
            yield Faulty(pluto, log)


@pytest.mark.parametrize("phase_s", [0.0, 0.7])
def test_a_scraper_that_hangs_leaves_no_price_live_past_its_proof(faulty: Faulty, phase_s: float) -> None:
    """The scraper's thread hangs so long after a proof: before it has told of it, and after that."""
    faulty.pluto.wait_for(TICKER, "live")
    before = faulty.proven_until()
    with witnesses_of(faulty.pluto.url) as witnesses:
        wait_until(lambda: witnesses.all_are_told("live"))
        witnesses.ask_s = CALM_ASK_S
        faulty.pluto.order("hang", HANG_S - phase_s, phase_s)
        wait_until(lambda: faulty.proven_until() > before, what="it hangs")
        hung_at, end = steady_ms(), faulty.proven_until()
        wait_until(lambda: steady_ms() > end - EARLY_MS)
        witnesses.ask_s = ASK_S
        wait_until(lambda: witnesses.all_are_told("stale", end - EARLY_MS), 15, what="all see it stale")
        time.sleep(0.3)
        assert answered(witnesses, hung_at, end - EARLY_MS) <= {"live"}, "its proof holds still"
        check(witnesses, 0.0, end, steady_ms())


def test_after_the_machine_slept_no_price_is_live_until_it_is_proven_anew(faulty: Faulty) -> None:
    """Its steady clock is ahead of ours from now on, so the ends of its proofs mean nothing to us."""
    faulty.pluto.wait_for(TICKER, "live")
    with witnesses_of(faulty.pluto.url) as witnesses:
        wait_until(lambda: witnesses.all_are_told("live"))
        ordered = steady_ms()
        faulty.pluto.order("sleep", 3_600)
        wait_until(lambda: "slept\n" in faulty.log.read_text())
        woken = steady_ms()
        streams = witnesses.streams.values()
        wait_until(lambda: all("stale" in [state for at, state, _ in seen] for seen in streams), what="all were told")
        stale_at = [next(at for at, state, _ in seen if state == "stale") for seen in streams]
        assert max(stale_at) - woken < STALE_WITHIN_MS
        proven_anew = ordered + SETTLING_MS  # at the earliest
        wait_until(lambda: steady_ms() > proven_anew)
        assert answered(witnesses, woken, proven_anew) <= {"stale"}


def test_a_scraper_that_died_leaves_no_price_live_past_its_proof(faulty: Faulty) -> None:
    """The last one with this Pluto: its scraper isn't started again for a minute."""
    faulty.pluto.wait_for(TICKER, "live")
    with witnesses_of(faulty.pluto.url) as witnesses:
        wait_until(lambda: witnesses.all_are_told("live"))
        began = steady_ms()
        faulty.pluto.order("die", 1)
        wait_until(lambda: faulty.pluto.http.get("/health").json()["scraper"] == "restarting")
        wait_until(lambda: witnesses.all_are_told("stale", began), 15, what="all see it stale")
        seen = steady_ms()
        time.sleep(0.3)
        assert answered(witnesses, seen, steady_ms()) <= {"stale"}


@stories.each
def test_stories_without_a_browser(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
