"""What a batch is in bytes, and what every client of a stream ends up knowing, however slow it is or often it leaves.

The broadcaster runs on the real hub and is fed by real threads. Waits end with what they wait for.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import gevent
import gevent.socket
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadcast import (
    TICK_S,
    Batch,
    Broadcaster,
    Entry,
    Selection,
    ShuttingDown,
    StreamLimits,
    Subscription,
    TooManyStreams,
)
from quotes import NO_SIGN_OF_LIFE, Quote, Source, State, Ticker, steady_ms, wire_fields
from web.formats import SSE, WEBSOCKET, encode_sse, messages
from web.stream import Stream

PATIENCE_S = 10.0
FOREVER_S = 3600.0  # an interval or heartbeat that doesn't come during a test
BUSY_MS = 1000.0  # by which a machine that runs other tests too may be late
BTC, ETH, SOL = Ticker("BTCUSD"), Ticker("ETHUSD"), Ticker("SOLUSD")

Table = dict[str, dict[str, Any]]
Event = tuple[str, Any]  # its name ("" for unnamed) and its data


def live(ticker: Ticker, price: object) -> Quote:
    return Quote(ticker, State.LIVE, str(price), 0.5, 1_795_000_000_000, Source.SOCKET, proven_until=math.inf)


def stale(ticker: Ticker, reason: str) -> Quote:
    return Quote(ticker, State.STALE, price_text="1", source=Source.SOCKET, reason=reason)


def entry(quote: Quote, sequence: int) -> Entry:
    text = json.dumps(wire_fields(quote, sequence), separators=(",", ":"), ensure_ascii=False)
    return Entry(quote, sequence, tracked=1, wire_json=text)


class Client:
    """A reader of one stream of server-sent events, which keeps the table a client would show."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        tickers: Iterable[Ticker] | None = None,
        last_event_id: str = "",
        *,
        interval: float = 0.0,
    ) -> None:
        subscription = Subscription(SSE, None if tickers is None else Selection(tickers), interval)
        self.admitted = broadcaster.clients.admit(subscription, last_event_id)
        self._response = Stream(self.admitted, None)
        self.stream: Iterator[bytes] = self._response
        self.table: Table = {}
        self.events: list[Event] = []
        self.last_id = ""
        self._broadcaster = broadcaster
        self._unread = b""

    def read(self) -> list[Event]:
        """The events that come next, at least one; raises StopIteration when the stream ends."""
        *blocks, self._unread = self._unread.split(b"\n\n")
        while not blocks:
            with gevent.Timeout(PATIENCE_S):
                *blocks, self._unread = (self._unread + next(self.stream)).split(b"\n\n")
        events = [event for block in blocks if (event := self._take(block.decode()))]
        self.events += events
        return events

    def _take(self, block: str) -> Event | None:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        self.last_id = lines.get("id", self.last_id)
        if "data" not in lines:
            return None
        data = json.loads(lines["data"])
        if data["type"] == "tickers":
            self.table = {ticker: self.table.get(ticker, {}) for ticker in data["tickers"]}
        for update in data.get("updates", ()):
            self.table[update["ticker"]] = update
        return lines.get("event", ""), data

    def read_to_the_end(self) -> None:
        with contextlib.suppress(StopIteration):
            while True:
                self.read()

    def catch_up(self) -> None:
        """Reads up to the last flush; for clients of all tickers."""
        while self.last_id != f"{self._broadcaster.table.epoch}-{self._broadcaster.table.sequence}":
            self.read()

    def leave(self) -> None:
        """What a WSGI server does when the connection is gone."""
        self._response.close()


def table_of(broadcaster: Broadcaster) -> Table:
    return {entry.quote.ticker: wire_fields(entry.quote, entry.sequence) for entry in broadcaster.table.entries}


def updates(events: list[Event], name: str = "") -> dict[str, str | None]:
    """The tickers of all events of this name, each with its last price text."""
    found = [update for event, data in events if event == name for update in data.get("updates", ())]
    return {update["ticker"]: update.get("priceText") for update in found}


def wait_until(condition: Callable[[], object], what: str) -> None:
    """On the hub, so that others run meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        gevent.sleep(0.001)


def next_flush(broadcaster: Broadcaster) -> None:
    before = broadcaster.table.sequence
    wait_until(lambda: broadcaster.table.sequence > before, "a flush")


def settle(broadcaster: Broadcaster) -> None:
    """Until flushes have taken all that was put before."""
    next_flush(broadcaster)
    wait_until(lambda: broadcaster.waiting == 0, "the last flush")


def get_going(broadcaster: Broadcaster, *clients: Client) -> None:
    """From now on these clients are sent every flush, whether they read or not."""
    broadcaster.put(live(BTC, "0.5"))
    settle(broadcaster)
    for client in clients:
        client.catch_up()
        client.events.clear()


class Stage:
    """Makes broadcasters and their clients, and ends them with the test."""

    def __init__(self) -> None:
        self._ends = contextlib.ExitStack()

    def broadcaster(
        self,
        *tickers: Ticker,
        interval: float = 0.001,
        heartbeat: float = FOREVER_S,
        max_streams: int = 1000,
        simulated: bool = False,
        clock: Callable[[], float] = steady_ms,
        **limits: Any,
    ) -> Broadcaster:
        """A started one that has told of its tickers."""
        limits |= {"interval": interval, "heartbeat": heartbeat, "max_streams": max_streams}
        broadcaster = Broadcaster(StreamLimits(**limits), simulated=simulated, clock=clock)
        broadcaster.start()
        self._ends.callback(broadcaster.stop)
        for ticker in tickers:
            broadcaster.add(ticker)
        if tickers:
            settle(broadcaster)
        return broadcaster

    def client(
        self,
        broadcaster: Broadcaster,
        tickers: Iterable[Ticker] | None = None,
        last_event_id: str = "",
        *,
        interval: float = 0.0,
    ) -> Client:
        """One that has read the first frame."""
        client = Client(broadcaster, tickers, last_event_id, interval=interval)
        self._ends.callback(client.leave)
        while client.last_id == "":
            client.read()
        return client

    def end(self) -> None:
        self._ends.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def broadcaster(stage: Stage) -> Broadcaster:
    """One that has told that it tracks BTCUSD, ETHUSD and SOLUSD, and flushes every ms."""
    return stage.broadcaster(BTC, ETH, SOL)


# --- exact bytes ------------------------------------------------------------------------------------------------------

PRICE = entry(live(BTC, "64001.50"), 7)
PRICE_JSON = (
    '{"ticker":"BTCUSD","price":64001.5,"state":"live","priceText":"64001.50","changePercent":0.5,'
    '"timestamp":1795000000000,"source":"socket","calculated":false,"simulated":false,"sequence":7}'
)
STATUS = entry(Quote(ETH, State.ERROR, reason="größer, 日本 \n\u2028", next_try_at=1_795_000_001_000), 7)
STATUS_JSON = (
    '{"ticker":"ETHUSD","state":"error","calculated":false,"simulated":false,'
    '"reason":"größer, 日本 \\n\u2028","nextTryAt":1795000001000,"sequence":7}'
)


def batch(
    tickers: list[Ticker] | None = None,
    statuses: Iterable[Entry] = (),
    updates: Iterable[Entry] = (),
    resumed: bool | None = None,
) -> Batch:
    return Batch("7f3a-7", 1_795_000_000_005, tickers, list(statuses), list(updates), resumed)


def test_a_price_is_one_unnamed_event() -> None:
    assert (
        encode_sse(batch(updates=[PRICE]))
        == (
            f'id: 7f3a-7\ndata: {{"type":"batch_update","updates":[{PRICE.wire_json}],"timestamp":1795000000005}}\n\n'
        ).encode()
    )
    assert json.loads(PRICE.wire_json) == json.loads(PRICE_JSON)


def test_a_state_without_a_price_is_one_status_event() -> None:
    assert (
        encode_sse(batch(statuses=[STATUS]))
        == (
            "id: 7f3a-7\n"
            "event: status\n"
            f'data: {{"type":"status","updates":[{STATUS.wire_json}],"timestamp":1795000000005}}\n'
            "\n"
        ).encode()
    )
    assert json.loads(STATUS.wire_json) == json.loads(STATUS_JSON)


def test_only_the_last_event_of_a_batch_has_the_id() -> None:
    assert (
        encode_sse(batch([BTC, ETH], [STATUS], [PRICE]))
        == (
            "event: tickers\n"
            'data: {"type":"tickers","tickers":["BTCUSD","ETHUSD"]}\n'
            "\n"
            "event: status\n"
            f'data: {{"type":"status","updates":[{STATUS.wire_json}],"timestamp":1795000000005}}\n'
            "\n"
            "id: 7f3a-7\n"
            f'data: {{"type":"batch_update","updates":[{PRICE.wire_json}],"timestamp":1795000000005}}\n'
            "\n"
        ).encode()
    )


def test_a_list_alone_has_the_id_too() -> None:
    assert encode_sse(batch([])) == b'id: 7f3a-7\nevent: tickers\ndata: {"type":"tickers","tickers":[]}\n\n'


@pytest.mark.parametrize("resumed", [True, False])
def test_the_first_batch_says_whether_it_resumes_even_when_it_holds_no_price(resumed: bool) -> None:
    word = b"true" if resumed else b"false"
    assert encode_sse(batch(resumed=resumed)) == (
        b'id: 7f3a-7\ndata: {"type":"batch_update","updates":[],"timestamp":1795000000005,"resumed":' + word + b"}\n\n"
    )


def test_several_prices_stand_in_one_event_in_the_order_given() -> None:
    other = entry(live(ETH, "3.5"), 7)
    assert f'"updates":[{PRICE.wire_json},{other.wire_json}]'.encode() in encode_sse(batch(updates=[PRICE, other]))


@pytest.mark.parametrize("lacking", ["price_text", "change_percent", "timestamp"])
def test_a_quote_that_lacks_what_the_original_page_counts_on_is_told_by_a_status_event(
    stage: Stage, lacking: str
) -> None:
    broadcaster = stage.broadcaster(BTC)
    client = stage.client(broadcaster)
    broadcaster.put(replace(live(BTC, 1), **dict[str, Any]({lacking: None})))
    settle(broadcaster)
    client.catch_up()
    assert updates(client.events, "status") == {BTC: None if lacking == "price_text" else "1"}
    assert updates(client.events) == {}


@pytest.mark.parametrize("state", State)
def test_unnamed_events_carry_live_and_closed_prices_only(stage: Stage, state: State) -> None:
    """Also in the first batch; a status event has the last price of any other state."""
    broadcaster = stage.broadcaster(BTC)
    broadcaster.put(replace(live(BTC, 1), state=state))
    settle(broadcaster)
    client = stage.client(broadcaster)
    name, other = ("", "status") if state in (State.LIVE, State.CLOSED) else ("status", "")
    assert (updates(client.events, name), updates(client.events, other)) == ({BTC: "1"}, {})


def test_an_empty_batch_is_no_bytes() -> None:
    assert encode_sse(batch()) == b""


def test_messages_name_their_events() -> None:
    named = messages(batch([BTC], [STATUS], [PRICE], resumed=True))
    assert [(name, json.loads(text)["type"]) for name, text in named] == [
        ("tickers", "tickers"),
        ("status", "status"),
        ("", "batch_update"),
    ]
    assert messages(batch()) == []


def test_no_text_of_a_page_can_end_an_event() -> None:
    frame = encode_sse(batch(statuses=[STATUS]))
    assert len(frame.splitlines()) == 4
    assert b"\r" not in frame


def test_a_heartbeat_is_exactly_the_wire_contracts() -> None:
    text = b'{"type":"heartbeat","timestamp":1795000000005}'
    assert SSE.heartbeat is not None
    assert WEBSOCKET.heartbeat is not None
    assert SSE.heartbeat(1_795_000_000_005) == b"event: heartbeat\ndata: " + text + b"\n\n"
    assert WEBSOCKET.heartbeat(1_795_000_000_005) == b"\x81" + bytes([len(text)]) + text


def test_a_greeting_is_exactly_the_wire_contracts() -> None:
    assert SSE.greet("c0ffee") == b'retry: 2000\n\ndata: {"type":"connected","clientId":"c0ffee"}\n\n'


# --- the first frame --------------------------------------------------------------------------------------------------


def test_a_stream_begins_with_a_greeting_and_every_current_price(stage: Stage, broadcaster: Broadcaster) -> None:
    broadcaster.put(live(BTC, "64001.50"))
    broadcaster.put(stale(ETH, "silence"))
    settle(broadcaster)
    client = stage.client(broadcaster)
    connected, tickers, status, prices = client.events
    assert connected[1]["type"] == "connected"
    assert tickers == ("tickers", {"type": "tickers", "tickers": ["BTCUSD", "ETHUSD", "SOLUSD"]})
    assert updates([status], "status") == {"ETHUSD": "1", "SOLUSD": None}
    assert updates([prices]) == {"BTCUSD": "64001.50"}
    assert prices[1]["resumed"] is False
    assert client.table == table_of(broadcaster)


def test_every_client_has_an_id_of_its_own(stage: Stage, broadcaster: Broadcaster) -> None:
    assert len({stage.client(broadcaster).events[0][1]["clientId"] for _ in range(20)}) == 20


def test_a_stream_of_nothing_begins_all_the_same(stage: Stage) -> None:
    client = stage.client(stage.broadcaster())
    assert [name for name, _ in client.events] == ["", "tickers", ""]
    assert client.table == {}


def test_what_changes_between_admission_and_the_first_read_is_not_lost(stage: Stage, broadcaster: Broadcaster) -> None:
    late = Client(broadcaster)
    broadcaster.put(live(BTC, 1))
    broadcaster.remove(SOL)
    settle(broadcaster)
    late.catch_up()
    assert late.table == table_of(broadcaster)
    late.leave()


# --- the flush --------------------------------------------------------------------------------------------------------


def test_the_first_change_after_a_quiet_spell_leaves_at_once_and_the_next_waits(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, interval=FOREVER_S)  # it has told of BTCUSD, an hour early
    assert broadcaster.table.sequence == 1
    broadcaster.put(live(BTC, 1))
    gevent.sleep(0.2)
    assert (broadcaster.table.sequence, broadcaster.waiting) == (1, 1)


def test_there_is_at_most_one_flush_an_interval_and_the_last_holds_the_newest(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, interval=0.05)
    client = stage.client(broadcaster)
    get_going(broadcaster, client)
    before, began = broadcaster.table.sequence, time.monotonic()
    for price in range(1, 41):
        broadcaster.put(live(BTC, price))
        gevent.sleep(0.005)
    wait_until(lambda: broadcaster.waiting == 0, "the last flush")
    flushes = broadcaster.table.sequence - before
    assert 2 <= flushes <= (time.monotonic() - began) / 0.05 + 1
    client.catch_up()
    assert client.table[BTC]["priceText"] == "40"
    assert len(client.events) == flushes


def test_only_the_newest_of_a_tickers_quotes_is_sent(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    for price in range(1, 10):
        broadcaster.put(live(BTC, price))
        broadcaster.put(live(ETH, price * 2))
    ((name, data),) = client.read()
    assert name == ""
    assert [update["priceText"] for update in data["updates"]] == ["9", "18"]


def test_a_batch_holds_only_what_changed_since_the_one_before(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    for ticker, price in ((BTC, 1), (ETH, 2), (BTC, 3)):
        broadcaster.put(live(ticker, price))
        settle(broadcaster)
        assert updates(client.read()) == {ticker: str(price)}


def test_a_state_without_a_current_price_is_told_as_a_status(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    client.events.clear()
    broadcaster.put(stale(BTC, "silence"))
    broadcaster.put(live(ETH, 2))
    settle(broadcaster)
    client.catch_up()
    assert updates(client.events, "status") == {"BTCUSD": "1"}
    assert updates(client.events) == {"ETHUSD": "2"}


def test_the_sequence_grows_only_with_changes_and_stands_in_every_update(
    stage: Stage, broadcaster: Broadcaster
) -> None:
    client = stage.client(broadcaster)
    before = broadcaster.table.sequence
    for price in (1, 2, 3):
        broadcaster.put(live(BTC, price))
        client.read()
        assert client.table[BTC]["sequence"] == broadcaster.table.sequence == before + price
    gevent.sleep(0.05)
    assert broadcaster.table.sequence == before + 3
    assert client.last_id == f"{broadcaster.table.epoch}-{broadcaster.table.sequence}"


def test_a_quote_put_by_a_foreign_thread_reaches_a_stream_of_an_idle_hub(
    stage: Stage, broadcaster: Broadcaster
) -> None:
    client = stage.client(broadcaster)
    thread = threading.Timer(0.1, broadcaster.put, [live(BTC, "64001.50")])
    thread.start()
    assert updates(client.read()) == {"BTCUSD": "64001.50"}
    thread.join()


def test_a_thread_that_never_pauses_is_heard_to_its_last_word(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)

    def hammer() -> None:
        for price in range(1, 5_001):
            for ticker in (BTC, ETH, SOL):
                broadcaster.put(live(ticker, price))

    thread = threading.Thread(target=hammer)
    thread.start()
    wait_until(lambda: not thread.is_alive() and broadcaster.waiting == 0, "the end of the thread")
    client.catch_up()
    assert [update["priceText"] for update in client.table.values()] == ["5000", "5000", "5000"]


def test_no_ticker_waits_for_long_behind_busier_ones(stage: Stage) -> None:
    quiet, *busy = (Ticker(f"T{number}") for number in range(600))
    broadcaster = stage.broadcaster(quiet, *busy)
    broadcaster.put(live(quiet, "7.5"))
    for price in range(1, 20):
        for ticker in busy:
            broadcaster.put(live(ticker, price))
        next_flush(broadcaster)
    told = broadcaster.table.entry(quiet)
    assert told is not None
    assert told.quote.price_text == "7.5"


def test_a_quote_that_still_waits_does_not_outlive_its_tickers_removal() -> None:
    broadcaster = Broadcaster()  # not started: it flushes when we say so
    tickers = [Ticker(f"T{number}") for number in range(1000)]
    for ticker in tickers:
        broadcaster.add(ticker)
        broadcaster.put(live(ticker, 1))
    broadcaster.flush()
    waiting = [entry.quote.ticker for entry in broadcaster.table.entries if entry.quote.state is State.STARTING]
    assert waiting
    for ticker in waiting:
        broadcaster.remove(ticker)
        broadcaster.add(ticker)
    while broadcaster.waiting:
        broadcaster.flush()
    assert {entry.quote.state for entry in broadcaster.table.entries if entry.quote.ticker in waiting} == {
        State.STARTING
    }


# --- the list of tickers ----------------------------------------------------------------------------------------------


def test_a_new_ticker_is_listed_and_starting(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, ETH, SOL, simulated=True)
    client = stage.client(broadcaster)
    broadcaster.add(Ticker("ADAUSD"))
    settle(broadcaster)
    client.catch_up()
    assert list(client.table) == broadcaster.table.tickers == ["ADAUSD", "BTCUSD", "ETHUSD", "SOLUSD"]
    assert client.table["ADAUSD"]["state"] == "starting"
    assert client.table["ADAUSD"]["simulated"] is True


def test_a_removed_ticker_is_no_longer_listed(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    broadcaster.remove(ETH)
    assert client.read() == [("tickers", {"type": "tickers", "tickers": ["BTCUSD", "SOLUSD"]})]
    assert broadcaster.table.entry(ETH) is None
    assert client.table == table_of(broadcaster)


def test_the_last_words_of_a_removed_ticker_are_dropped(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    broadcaster.put(live(ETH, 1))
    broadcaster.remove(ETH)
    settle(broadcaster)
    broadcaster.put(live(ETH, 2))
    broadcaster.put(live(BTC, 3))
    settle(broadcaster)
    client.catch_up()
    assert updates(client.events) == {"BTCUSD": "3"}
    assert set(client.table) == {"BTCUSD", "SOLUSD"}
    assert client.table == table_of(broadcaster)


def test_quotes_of_unknown_tickers_cost_nothing(broadcaster: Broadcaster) -> None:
    before = broadcaster.table.sequence
    for number in range(1000):
        broadcaster.put(live(Ticker(f"X{number}"), 1))
    wait_until(lambda: broadcaster.waiting == 0, "the hand-off to be taken")
    broadcaster.remove(Ticker("X1"))
    gevent.sleep(0.05)
    assert broadcaster.table.sequence == before
    assert broadcaster.table.tickers == [BTC, ETH, SOL]


def test_a_ticker_that_comes_back_starts_anew(stage: Stage, broadcaster: Broadcaster) -> None:
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    broadcaster.remove(BTC)
    broadcaster.put(live(BTC, 2))
    broadcaster.add(BTC)
    settle(broadcaster)
    client = stage.client(broadcaster)
    assert client.table[BTC]["state"] == "starting"
    assert "priceText" not in client.table[BTC]


# --- expiry -----------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only the test moves, in ms."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def proven(ticker: Ticker, price: object, until: float) -> Quote:
    return replace(live(ticker, price), proven_until=until)


def state_of(broadcaster: Broadcaster, ticker: Ticker) -> State:
    entry = broadcaster.table.entry(ticker)
    assert entry is not None
    return entry.quote.state


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(stage: Stage, clock: Clock) -> Broadcaster:
    """One whose table has BTCUSD live at 7.5, proven for another 10 s of a clock that stands still."""
    broadcaster = stage.broadcaster(BTC, ETH, clock=clock)
    broadcaster.put(proven(BTC, "7.5", clock.now + 10_000))
    settle(broadcaster)
    return broadcaster


def test_a_price_past_its_proof_is_told_as_stale_within_a_tick_and_a_batch(stage: Stage) -> None:
    """By the real clock, at several phases of the tick."""

    def look(phase: float) -> None:
        broadcaster = stage.broadcaster(BTC, interval=0.05)
        client = stage.client(broadcaster)
        until = steady_ms() + 300 + 1000 * phase
        broadcaster.put(proven(BTC, "7.5", until))
        while client.table[BTC]["state"] != "live":
            client.read()
        while client.table[BTC]["state"] == "live":
            client.read()
        assert 0 < steady_ms() - until < 1000 * (TICK_S + 0.05) + BUSY_MS
        assert client.events[-1][0] == "status"
        assert client.table[BTC]["state"] == "stale"
        assert client.table[BTC]["priceText"] == "7.5"
        assert client.table[BTC]["reason"] == NO_SIGN_OF_LIFE

    looks = [gevent.spawn(look, phase) for phase in (0.0, 0.13, 0.29, 0.41)]
    gevent.joinall(looks, raise_error=True)


def test_whoever_asks_after_the_proof_ran_out_is_not_shown_a_live_price(
    stage: Stage, held: Broadcaster, clock: Clock
) -> None:
    """Nothing runs between the moment at which the proof runs out and the answers: no tick, no flush."""
    known = stage.client(held)
    assert known.table[BTC]["state"] == "live"
    clock.now += 10_000
    assert state_of(held, BTC) is State.LIVE, "the proof holds up to its last moment"
    clock.now += 1
    fresh, back = Client(held), Client(held, last_event_id=known.last_id)
    assert state_of(held, BTC) is State.STALE
    assert [entry.quote.state for entry in held.table.entries] == [State.STALE, State.STARTING]
    for client in (fresh, back):
        while client.last_id == "":
            client.read()
        assert client.table[BTC]["state"] == "stale"
        assert client.table[BTC]["priceText"] == "7.5"
        client.leave()
    assert back.events[-1][1]["resumed"] is True


def test_a_client_that_subscribes_anew_after_the_proof_ran_out_is_not_shown_a_live_price(
    stage: Stage, held: Broadcaster, clock: Clock
) -> None:
    client = stage.client(held, [ETH])
    held.put(stale(ETH, "silence"))
    client.read()
    clock.now += 10_001
    client.admitted.subscribe(Subscription(SSE, Selection({BTC})))
    while BTC not in client.table or "state" not in client.table[BTC]:
        client.read()
    assert client.table[BTC]["state"] == "stale"


def test_renewing_a_proof_that_holds_sends_nothing(stage: Stage, held: Broadcaster, clock: Clock) -> None:
    client = stage.client(held)
    get_going(held, client)
    held.put(proven(BTC, "7.5", clock.now + 10_000))
    client.read()
    sequence, counters = held.table.sequence, held.counters.copy()
    for _ in range(20):
        clock.now += 9_000
        held.put(proven(BTC, "7.5", clock.now + 10_000))
        wait_until(lambda: held.waiting == 0, "the hand-off to be taken")
        assert state_of(held, BTC) is State.LIVE
    gevent.sleep(TICK_S + 0.1)
    assert held.table.sequence == sequence
    assert held.counters == counters, "nothing was flushed, encoded or sent"
    clock.now += 10_001
    client.read()
    assert client.table[BTC]["state"] == "stale", "the last renewal counts, no other"


def test_renewing_a_proof_that_has_run_out_is_told_as_live_again(stage: Stage, held: Broadcaster, clock: Clock) -> None:
    client = stage.client(held)
    clock.now += 10_001
    client.read()
    assert client.table[BTC]["state"] == "stale"
    before = held.table.sequence
    held.put(proven(BTC, "7.5", clock.now + 10_000))
    assert updates(client.read()) == {"BTCUSD": "7.5"}
    assert client.table[BTC]["state"] == "live"
    assert "reason" not in client.table[BTC]
    assert held.table.sequence == before + 1


def test_a_quote_that_arrives_after_its_proof_is_never_told_as_live(
    stage: Stage, held: Broadcaster, clock: Clock
) -> None:
    client = stage.client(held)
    client.events.clear()
    held.put(proven(ETH, 3, clock.now - 1))
    held.put(replace(live(BTC, 8), proven_until=None))
    settle(held)
    client.catch_up()
    assert updates(client.events) == {}
    assert updates(client.events, "status") == {"BTCUSD": "8", "ETHUSD": "3"}


def test_after_the_machine_slept_no_price_is_live(stage: Stage, held: Broadcaster, clock: Clock) -> None:
    """The clock jumps by an hour: it counts what the machine slept."""
    client = stage.client(held)
    woken = time.monotonic()
    clock.now += 3_600_000
    assert state_of(held, BTC) is State.STALE
    client.read()
    assert client.table[BTC]["state"] == "stale"
    assert time.monotonic() - woken < TICK_S + BUSY_MS / 1000


def test_only_live_prices_run_out(stage: Stage, held: Broadcaster, clock: Clock) -> None:
    dated = Quote(BTC, State.SNAPSHOT, price_text="7", source=Source.SCRIPT)
    held.put(dated)
    held.put(stale(ETH, "the page is frozen"))
    settle(held)
    clock.now += 86_400_000
    assert [entry.quote for entry in held.table.entries] == [dated, stale(ETH, "the page is frozen")]


def test_a_renewal_does_not_delay_the_change_after_it(stage: Stage) -> None:
    broadcaster = stage.broadcaster(interval=1.0)
    broadcaster.add(BTC)
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    client = stage.client(broadcaster)
    assert updates(client.events) == {"BTCUSD": "1"}
    gevent.sleep(1.1)
    broadcaster.put(live(BTC, 1))
    wait_until(lambda: broadcaster.waiting == 0, "the hand-off to be taken")
    changed = time.monotonic()
    broadcaster.put(live(BTC, 2))
    assert updates(client.read()) == {"BTCUSD": "2"}
    assert time.monotonic() - changed < 0.5


STEPS = st.lists(
    st.tuples(st.sampled_from(["quote", "wait", "tick", "flush"]), st.sampled_from([BTC, ETH]), st.integers(1, 15_000)),
    max_size=40,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_price_is_live_exactly_while_its_last_proof_holds(steps: list[tuple[str, Ticker, int]]) -> None:
    """Whatever comes in which order, and whether anyone looked in between or not."""
    clock = Clock()
    broadcaster = Broadcaster(clock=clock)  # not started: it ticks and flushes when we say so
    for ticker in (BTC, ETH):
        broadcaster.add(ticker)
    proofs: dict[Ticker, float] = {}
    for step, ticker, number in steps:
        match step:
            case "quote":
                proofs[ticker] = clock.now + number
                broadcaster.put(proven(ticker, 7, proofs[ticker]))
                broadcaster.flush()
            case "wait":
                clock.now += number
            case "tick":
                broadcaster.table.expire()
            case "flush":
                broadcaster.flush()
        shown = {entry.quote.ticker: entry.quote.state for entry in broadcaster.table.entries}
        for tracked, until in proofs.items():
            assert shown[tracked] is (State.LIVE if clock.now <= until else State.STALE)


# --- many clients -----------------------------------------------------------------------------------------------------


def test_all_clients_of_the_same_tickers_see_the_same(stage: Stage, broadcaster: Broadcaster) -> None:
    clients = [stage.client(broadcaster) for _ in range(3)]
    get_going(broadcaster, *clients)
    for price in range(1, 6):
        broadcaster.put(live(BTC, price))
        broadcaster.put(stale(ETH, f"silence {price}"))
        settle(broadcaster)
    for client in clients:
        client.catch_up()
    assert clients[0].events == clients[1].events == clients[2].events
    assert len(clients[0].events) == 10
    assert broadcaster.clients.by_transport.total() == 3


def test_a_frame_is_encoded_once_for_all_clients(stage: Stage, broadcaster: Broadcaster) -> None:
    clients = [stage.client(broadcaster) for _ in range(20)]
    get_going(broadcaster, *clients)
    before = broadcaster.counters["encodes"]
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    for client in clients:
        client.catch_up()
    assert broadcaster.counters["encodes"] == before + 1


def test_a_filter_lets_only_its_tickers_through(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster, [BTC, Ticker("NOSUCH")])
    assert set(client.table) == {"BTCUSD"}
    broadcaster.put(live(ETH, 1))
    settle(broadcaster)
    broadcaster.remove(SOL)
    settle(broadcaster)
    broadcaster.put(live(ETH, 2))
    broadcaster.put(live(BTC, 3))
    assert updates(client.read()) == {"BTCUSD": "3"}
    broadcaster.remove(BTC)
    not_tracked = ["BTCUSD", "NOSUCH"]
    assert client.read() == [("tickers", {"type": "tickers", "tickers": [], "notTracked": not_tracked})]
    broadcaster.add(Ticker("NOSUCH"))
    client.read()
    assert set(client.table) == {"NOSUCH"}


def test_a_filter_of_nothing_is_not_a_filter_of_everything(stage: Stage, broadcaster: Broadcaster) -> None:
    assert stage.client(broadcaster, []).table == {}


def test_a_client_that_asked_for_a_low_rate_gets_few_batches_and_the_newest(
    stage: Stage, broadcaster: Broadcaster
) -> None:
    seldom = stage.client(broadcaster, interval=0.2)
    get_going(broadcaster, seldom)
    began = time.monotonic()
    for price in range(1, 51):
        broadcaster.put(live(BTC, price))
        gevent.sleep(0.01)
    settled = broadcaster.table.sequence
    seldom.catch_up()
    assert broadcaster.table.sequence == settled
    assert seldom.table == table_of(broadcaster)
    assert seldom.table[BTC]["priceText"] == "50"
    assert 2 <= len(seldom.events) <= (time.monotonic() - began) / 0.2 + 2


def test_there_are_no_more_streams_than_allowed(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, max_streams=2)
    first, _ = stage.client(broadcaster), stage.client(broadcaster)
    with pytest.raises(TooManyStreams):
        Client(broadcaster)
    first.leave()
    stage.client(broadcaster)


# --- slow clients -----------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_is_conflated_and_ends_with_the_right_table(
    stage: Stage, broadcaster: Broadcaster
) -> None:
    slow, brisk = stage.client(broadcaster), stage.client(broadcaster)
    get_going(broadcaster, slow, brisk)
    for price in range(1, 301):
        broadcaster.put(live(BTC, price))
        broadcaster.put(stale(ETH, f"{price} " * 1000))  # soon more than a socket's buffers hold
        if price == 200:  # only once each: lost, if what was never sent counts as sent
            broadcaster.add(Ticker("ADAUSD"))
            broadcaster.remove(SOL)
        settle(broadcaster)
        brisk.catch_up()
    assert broadcaster.clients.lagging == 1
    slow.catch_up()
    assert slow.table == brisk.table == table_of(broadcaster)
    assert len(updates_of(slow.events)) < 100
    wait_until(lambda: broadcaster.clients.lagging == 0, "the slow client to count as caught up")
    broadcaster.put(live(BTC, 301))
    assert updates(slow.read()) == {"BTCUSD": "301"}
    assert broadcaster.counters["conflated"] > 200


def test_a_frame_that_was_sent_in_part_is_continued_where_it_broke_off(broadcaster: Broadcaster) -> None:
    """On a TCP socket whose other end reads late, writes are short."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = gevent.socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    slow = Client(broadcaster)
    slow.leave()
    slow.stream = iter(lambda: ours.recv(1000), b"")
    with ours:
        broadcaster.clients.admit(Subscription(SSE)).start(theirs)
        for number in range(1, 201):
            broadcaster.put(stale(ETH, f"{number} " * 20_000))
            settle(broadcaster)
        assert broadcaster.clients.lagging == 1
        slow.catch_up()
    assert slow.table[ETH] == table_of(broadcaster)[ETH]
    assert len(slow.events) < 200
    wait_until(lambda: broadcaster.clients.by_transport.total() == 0, "the end of the connection to be noticed")


def updates_of(events: list[Event]) -> list[Event]:
    return [event for event in events if event[1]["type"] == "batch_update"]


def test_a_client_that_is_a_little_late_gets_every_flush(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    get_going(broadcaster, client)
    for price in range(1, 11):
        broadcaster.put(live(BTC, price))
        settle(broadcaster)
    client.catch_up()
    assert [data["updates"][0]["priceText"] for _, data in client.events] == [str(price) for price in range(1, 11)]


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_client_that_comes_back_gets_only_what_changed(stage: Stage, broadcaster: Broadcaster) -> None:
    broadcaster.put(live(BTC, 1))
    broadcaster.put(live(ETH, 1))
    settle(broadcaster)
    client = stage.client(broadcaster)
    client.leave()
    broadcaster.put(live(ETH, 2))
    broadcaster.remove(SOL)
    settle(broadcaster)
    back = stage.client(broadcaster, last_event_id=client.last_id)
    assert back.events[-1][1]["resumed"] is True
    assert updates(back.events) == {"ETHUSD": "2"}
    assert updates(back.events, "status") == {}
    assert ("tickers", {"type": "tickers", "tickers": ["BTCUSD", "ETHUSD"]}) in back.events


def test_a_client_that_missed_nothing_is_told_so(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    back = stage.client(broadcaster, last_event_id=client.last_id)
    assert back.events[-1] == ("", {**back.events[-1][1], "resumed": True, "updates": []})


@pytest.mark.parametrize(
    "last_event_id",
    [
        "",
        "-",
        "{epoch}",
        "{epoch}-",
        "{epoch}--1",
        "{epoch}-x",
        "{epoch}-1.0",
        "{epoch}-²",
        "{epoch}-1-1",
        "{epoch}-999999",
        "{epoch}-" + "9" * 5000,
        " {epoch}-1",
        "deadbeef-1",
        "\x00",
        "-1",
    ],
)
def test_an_id_of_another_run_or_none_at_all_gets_everything(
    stage: Stage, broadcaster: Broadcaster, last_event_id: str
) -> None:
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    client = stage.client(broadcaster, last_event_id=last_event_id.format(epoch=broadcaster.table.epoch))
    assert client.events[-1][1]["resumed"] is False
    assert updates(client.events) == {"BTCUSD": "1"}
    assert client.table == table_of(broadcaster)


def test_runs_have_different_epochs() -> None:
    assert len({Broadcaster().table.epoch for _ in range(10)}) == 10


def test_removals_are_remembered_in_bounded_number(stage: Stage, broadcaster: Broadcaster) -> None:
    """A client that was away for more removals than are remembered gets everything instead."""
    client = stage.client(broadcaster)
    for number in range(3_000):
        broadcaster.add(Ticker(f"T{number}"))
        broadcaster.remove(Ticker(f"T{number}"))
        if number % 100 == 0:
            settle(broadcaster)
    settle(broadcaster)
    back = stage.client(broadcaster, last_event_id=client.last_id)
    assert back.events[-1][1]["resumed"] is False
    assert back.table == table_of(broadcaster)


CHANGES = st.tuples(st.sampled_from(["price", "status", "track", "untrack"]), st.sampled_from([BTC, ETH, SOL]))
DOINGS = st.sampled_from(["flush", "read", "leave", "leave", "forget"]).map(lambda doing: (doing, BTC))


def change(broadcaster: Broadcaster, what: str, ticker: Ticker, number: int) -> None:
    match what:
        case "price":
            broadcaster.put(live(ticker, number))
        case "status":
            broadcaster.put(stale(ticker, f"silence {number}"))
        case "track" if broadcaster.table.entry(ticker) is None:
            broadcaster.add(ticker)
        case "untrack":
            broadcaster.remove(ticker)


def come_back(client: Client, broadcaster: Broadcaster, *, remembering: bool) -> Client:
    client.leave()
    back = Client(broadcaster, last_event_id=client.last_id if remembering else "")
    back.table = client.table if remembering else {}
    return back


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(CHANGES | DOINGS, max_size=30))
def test_a_client_that_has_caught_up_holds_the_servers_table_however_often_it_left(
    steps: list[tuple[str, Ticker]],
) -> None:
    stage = Stage()
    broadcaster = stage.broadcaster(BTC, interval=0)
    client = Client(broadcaster)
    for number, (what, ticker) in enumerate(steps, 1):
        match what:
            case "flush":
                gevent.sleep(0.001)
            case "read":
                client.catch_up()
            case "leave" | "forget":
                client = come_back(client, broadcaster, remembering=what == "leave")
            case _:
                change(broadcaster, what, ticker, number)
    broadcaster.add(Ticker("LAST"))
    settle(broadcaster)
    client.catch_up()
    assert client.table == table_of(broadcaster)
    client.leave()
    stage.end()


# --- quiet, and the end -----------------------------------------------------------------------------------------------


def test_silence_is_broken_by_heartbeats(stage: Stage) -> None:
    client = stage.client(stage.broadcaster(BTC, heartbeat=0.05))
    (name, first), (_, second) = client.read() + client.read()
    assert (name, first.keys()) == ("heartbeat", {"type", "timestamp"})
    assert second["timestamp"] > first["timestamp"] > 1_700_000_000_000


def test_heartbeats_go_out_slice_by_slice(stage: Stage) -> None:
    """The hub has a turn after each slice, and nobody is left out."""
    broadcaster = stage.broadcaster(BTC, heartbeat=0.05, slice=2)
    clients = [stage.client(broadcaster) for _ in range(5)]
    get_going(broadcaster, *clients)
    turns: list[int] = []

    def look() -> None:
        while not turns or turns[-1] < sends + len(clients):
            turns.append(broadcaster.counters["sends"])
            gevent.sleep(0)

    sends = broadcaster.counters["sends"]
    looking = gevent.spawn(look)
    assert [client.read()[0][0] for client in clients] == ["heartbeat"] * 5
    looking.join(PATIENCE_S)
    assert {number - sends for number in turns} >= {0, 2, 4, 5}


def test_the_hub_has_a_turn_between_audiences_and_those_without_a_filter_come_first(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, ETH, SOL, turn=0.0)
    clients = [stage.client(broadcaster, tickers) for tickers in ([BTC], [BTC, ETH], [BTC, SOL], None)]
    broadcaster.put(live(BTC, "0.5"))
    for client in clients:
        while client.table[BTC].get("priceText") != "0.5":
            client.read()
    order: list[str] = []
    for name, client in zip("abcd", clients, strict=True):
        client.admitted.send = note_before(order, name, client.admitted.send)

    def take_turns() -> None:
        while len(set(order)) < 5:
            order.append("-")
            gevent.sleep(0)

    taking = gevent.spawn(take_turns)
    broadcaster.put(live(BTC, 7))
    taking.join(PATIENCE_S)
    assert re.fullmatch("-+d-+a-+b-+c-*", "".join(order))


def note_before(notes: list[str], note: str, call: Callable[[bytes], int]) -> Callable[[bytes], int]:
    def noted(data: bytes) -> int:
        notes.append(note)
        return call(data)

    return noted


def test_what_derives_from_a_filter_is_computed_once() -> None:
    selection, tickers = Selection({BTC, SOL}), [BTC, ETH, SOL]
    assert selection.of(tickers) == [BTC, SOL]
    assert selection.of(tickers) is selection.of(tickers)
    assert selection.of([BTC, ETH]) == [BTC]
    assert selection.mark is selection.mark
    assert Selection({SOL, BTC}).mark == selection.mark != Selection({BTC}).mark


def test_a_client_whose_tickers_are_quiet_gets_a_heartbeat_though_others_are_busy(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC, ETH, heartbeat=0.1)
    client = stage.client(broadcaster, [BTC])

    def busy() -> None:
        for price in range(1, 100_000):
            broadcaster.put(live(ETH, price))
            gevent.sleep(0.01)

    others = gevent.spawn(busy)
    try:
        assert [name for name, _ in client.read()] == ["heartbeat"]
    finally:
        others.kill()


def test_stopping_ends_every_stream_with_an_event_that_says_so(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC)
    waiting, behind = stage.client(broadcaster), stage.client(broadcaster)
    get_going(broadcaster, behind)
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    waiting.catch_up()
    stopping = gevent.spawn(broadcaster.stop)
    for client in (waiting, behind):
        client.read_to_the_end()
        client.leave()
        assert client.events[-1][0] == "shutdown"
        assert client.table[BTC]["priceText"] == "1"
    stopping.join(PATIENCE_S)
    assert broadcaster.clients.by_transport.total() == 0


def test_stopping_ends_a_lagging_stream_too(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC)
    client = stage.client(broadcaster)
    get_going(broadcaster, client)
    for number in range(1, 101):
        broadcaster.put(stale(BTC, f"{number} " * 1000))
        settle(broadcaster)
    assert broadcaster.clients.lagging == 1
    broadcaster.stop()
    client.read_to_the_end()
    assert broadcaster.clients.by_transport.total() == 0


def test_a_broadcaster_that_has_stopped_takes_no_more_clients(stage: Stage) -> None:
    broadcaster = stage.broadcaster(BTC)
    broadcaster.stop()
    with pytest.raises(ShuttingDown):
        Client(broadcaster)


def test_a_stream_that_is_closed_frees_its_place(stage: Stage, broadcaster: Broadcaster) -> None:
    clients = [stage.client(broadcaster) for _ in range(10)]
    get_going(broadcaster, *clients[:5])
    assert broadcaster.clients.by_transport.total() == 10
    for client in clients[:9]:
        client.leave()
    assert broadcaster.clients.by_transport.total() == 1
    clients[9].leave()
    broadcaster.put(live(BTC, 1))
    settle(broadcaster)
    assert broadcaster.clients.by_transport.total() == 0


def test_a_stream_that_was_never_read_frees_its_place_too(broadcaster: Broadcaster) -> None:
    Client(broadcaster).leave()
    assert broadcaster.clients.by_transport.total() == 0


def test_a_stream_whose_reader_is_killed_while_it_waits_frees_its_place(stage: Stage, broadcaster: Broadcaster) -> None:
    client = stage.client(broadcaster)
    reader = gevent.spawn(client.read)
    gevent.sleep(0)
    reader.kill()
    client.leave()
    assert broadcaster.clients.by_transport.total() == 0


def test_a_quote_of_a_new_stream_has_its_number_there() -> None:
    broadcaster = Broadcaster()  # not started: it flushes when we say so
    broadcaster.add(BTC)
    quote = Quote(BTC, State.LIVE, "100", 0.5, 1, Source.SOCKET, received_at=1, proven_until=math.inf)
    for stream, position in (("old", 50), ("new", 3)):
        broadcaster.mark(stream, 0)
        broadcaster.put(replace(quote, position=position))
        broadcaster.mark(stream, position)
        broadcaster.flush()
        (entry,) = broadcaster.table.entries
        assert (entry.number, json.loads(entry.wire_json)["sequence"]) == (position, position)
