"""The store: what it writes, on real files, and what it does when a file or its disk fails."""

from __future__ import annotations

import math
import shutil
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from running import Simulator, run_to_end, running_pluto, wait_until
from stores import BTC, ETH, Kept, changes, kept, live, plain_candles, told

from quotes import Quote, Source, State, Ticker
from storage import schema
from storage.candles import HOUR, INTERVALS, SECOND
from storage.changes import Arrival
from storage.file import StoreFile
from storage.history import History, Range
from storage.intake import Batch
from storage.remembered import BEFORE_RESTART, Remembered
from storage.retention import Keep, Retention
from storage.schema import path_of
from store import Store, StoreInUse, StoreSettings, StoreState
from watchlist import Watchlist

STANDBY_TURN_S = 0.3  # it remembers for five of them: longer than a busy machine's disk takes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pluto.db"


def test_the_watchlist_survives_a_restart_and_shows_its_last_prices_as_stale(path: Path) -> None:
    with kept(path) as first:
        assert first.found == []
        for ticker in (BTC, ETH, Ticker("GONE")):
            first.store.add(ticker)
        first.store.remove(Ticker("GONE"))
        first.put(live("0.00000812"))
    with kept(path) as second:
        assert second.found == [BTC, ETH]
        second.store.add(BTC)
        second.store.add(ETH)
        (shown,) = second.shown
        assert (shown.ticker, shown.state, shown.price_text) == (BTC, State.STALE, "0.00000812")
        assert shown.reason == BEFORE_RESTART
        assert shown.timestamp is not None
        assert shown.change_percent == 1.5


def test_tickers_beyond_the_cap_are_kept_until_the_list_is_replaced(path: Path) -> None:
    with kept(path) as first:
        for ticker in (BTC, ETH, Ticker("GONE")):
            first.store.add(ticker)
    for expected, replaces in (([BTC, ETH, Ticker("GONE")], False), ([BTC, ETH, Ticker("GONE")], True), ([BTC], False)):
        with kept(path) as again:
            assert again.found == expected
            watchlist = Watchlist(max_tickers=1)
            watchlist.subscribe(again.store)
            beyond = [ticker for ticker, _ in watchlist.begin(again.found)]
            assert [*watchlist.tickers, *beyond] == expected
            if replaces:
                assert [ticker for ticker, _ in watchlist.replace([BTC, ETH])] == [ETH]


def test_an_old_price_is_shown_until_the_page_speaks() -> None:
    shown: list[Quote] = []
    remembered = Remembered(shown.append)
    remembered.keep({BTC: live("7")})
    remembered.add(BTC)
    remembered.put(Quote(BTC, State.STARTING, reason="its page has not shown a price yet"))
    remembered.put(Quote(BTC, State.ERROR, reason="unreachable", next_try_at=5))
    remembered.put(live("8"))
    remembered.put(Quote(BTC, State.ERROR, reason="unreachable"))
    assert [(quote.state, quote.price_text) for quote in shown] == [
        (State.STALE, "7"),
        (State.STALE, "7"),
        (State.ERROR, "7"),
        (State.LIVE, "8"),
        (State.ERROR, None),
    ]


def test_every_change_is_kept_with_its_times_and_nothing_else(path: Path) -> None:
    first = live("1.50")
    with kept(path) as one:
        one.store.add(BTC)
        one.put(first, live("1.50"), live("1.51"), Quote(BTC, State.CLOSED, "1.51", proven_until=math.inf))
        one.put(live("9", ETH))
    assert told(path) == [
        (State.LIVE, "1.50"),
        (State.LIVE, "1.51"),
        (State.CLOSED, "1.51"),
        (None, None),
    ], "an equal price is no change, and the end is a gap"
    change = changes(path)[0]
    assert (change.timestamp, change.source_time, change.source) == (first.timestamp, first.source_time, Source.SOCKET)
    assert change.at >= (first.received_at or 0)
    assert told(path, ETH) == [], "nobody tracks it"


def test_a_proof_that_runs_out_is_a_change(path: Path) -> None:
    with kept(path) as one:
        one.store.add(BTC)
        one.put(live("5", proven_until=0.0))
        one.wait_until_written(1)
        one.put(live("5"))
    assert told(path) == [(State.STALE, "5"), (State.LIVE, "5"), (None, None)]


def test_a_killed_run_leaves_a_gap(path: Path) -> None:
    with kept(path) as one:
        one.store.add(BTC)
        one.put(live("5"))
        one.wait_until_written(1)
        after_kill = path.parent.with_name("after-kill") / path.name
        shutil.copytree(path.parent, after_kill.parent)
    with kept(after_kill) as two:
        assert two.found == [BTC]
        two.store.add(BTC)
        two.put(live("6"))
    assert told(after_kill)[:3] == [(State.LIVE, "5"), (None, None), (State.LIVE, "6")]


def test_two_plutos_never_share_a_file(path: Path) -> None:
    with kept(path), pytest.raises(StoreInUse, match="--data"):
        Kept(path)
    with kept(path) as next_one:
        assert next_one.store.state is StoreState.RUNNING


def test_a_file_of_a_newer_pluto_is_set_aside_and_its_watchlist_kept(path: Path) -> None:
    with kept(path) as one:
        one.store.add(BTC)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with kept(path) as two:
        assert two.found == [BTC]
        two.store.add(BTC)
        wait_until(lambda: two.store.state is StoreState.RUNNING)
    assert len(list(path.parent.glob("pluto.db.newer-*Z"))) == 1
    with kept(path) as three:
        assert three.found == [BTC]


def test_a_file_that_is_no_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"hello" * 5000)
    with kept(path) as one:
        one.store.add(BTC)
        wait_until(lambda: one.store.state is StoreState.RUNNING)
        assert one.store.files_set_aside == 1
    (aside,) = path.parent.glob("pluto.db.damaged-*")
    assert aside.read_bytes() == b"hello" * 5000


def test_each_version_of_the_schema_is_made_of_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    for version in range(1, len(schema.MIGRATIONS) + 1):
        StoreFile(path, 1.0).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),), version
    with kept(path) as one:
        one.store.add(BTC)
    more = (*schema.MIGRATIONS, "ALTER TABLE ticker ADD COLUMN note TEXT;")
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    with kept(path) as two:
        assert two.found == [BTC], "a later version takes over what an earlier one wrote"
    monkeypatch.setattr(schema, "MIGRATIONS", (*more, "ALTER TABLE ticker ADD COLUMN other TEXT; nonsense;"))
    with pytest.raises(sqlite3.OperationalError):
        StoreFile(path, 1.0)
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    StoreFile(path, 1.0).close()


@pytest.mark.parametrize("keep", [Keep(changes=0.1, minutes=0.25), Keep(max_size=0.15)], ids=["age", "size"])
def test_what_is_too_old_or_too_much_goes_without_cutting_a_candle(path: Path, keep: Keep) -> None:
    path.parent.mkdir()
    start, step, number = 1_795_000_000_000, 7_300, 6_000  # half a day
    file = StoreFile(path, 1.0)
    quotes = [replace(live(f"{price}.5"), timestamp=None, source_time=None) for price in range(1, 8)]
    arrivals = [Arrival(start + step * count, BTC, quotes[count * count % 7]) for count in range(number)]
    file.write(Batch({BTC: True}, arrivals), start + step * number)
    before, now = changes(path), start + step * number
    retention = Retention(file.connection, keep)
    steps = 0
    while retention.is_due(now):
        with file.transaction():
            retention.step(now)
        steps += 1
    assert steps > 1, "in small steps"
    after, history = changes(path), History(path, 1.0)
    assert 0 < len(after) < number
    assert after == before[-len(after) :]
    assert keep.max_size < 1 or len(after) == pytest.approx(0.1 * 86_400_000 / step, abs=60_000 / step)
    for width in INTERVALS.values():
        page, all_of_it = history.candles(BTC, width, Range(100_000, 0)), plain_candles(before, width)
        assert page is not None
        assert page.since == start // HOUR * HOUR, "the candles of hours stay"
        assert page.items == all_of_it[-len(page.items) :]
        assert (len(page.items) < len(all_of_it)) == (width == SECOND or (width < HOUR and keep.minutes == 0.25))
    pages, free = (file.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    assert (pages - free) * 4096 <= keep.max_size * 1e6
    file.close()


def test_simulated_prices_have_a_file_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert path_of("", demo=False).name != path_of("", demo=True).name
    assert path_of("", demo=False).is_relative_to(tmp_path)
    assert path_of("/data", demo=False) == Path("/data/pluto.db")


def test_pluto_itself_remembers_across_a_kill(simulator: Simulator, tmp_path: Path) -> None:
    options = ("--store", "--data", str(tmp_path))
    with running_pluto("--source-url", simulator.url, *options) as first:
        assert first.http.get("/health").json()["store"] == "running"
        first.add("KAVAUSD")
        price = first.wait_for("KAVAUSD", "live")["priceText"]
        first.add("GRTUSD")
        wait_until(
            lambda: [price for state, price in told(tmp_path / "pluto.db", Ticker("KAVAUSD")) if state == "live"]
        )
        second = run_to_end("--port", "0", "--source-url", simulator.url, *options)
        assert second.returncode == 1
        assert "Another Pluto" in second.stderr
        first.process.kill()
        first.process.wait()
    with running_pluto("--source-url", "http://127.0.0.1:9", "--tickers", "LPTUSD", *options) as again:
        assert again.http.get("/api/tickers").json()["tickers"] == ["GRTUSD", "KAVAUSD", "LPTUSD"]
        old = again.quote("KAVAUSD")
        assert old["state"] != "live"
        assert "timestamp" in old
        assert float(old["priceText"]) == pytest.approx(float(price), rel=0.1)


# --- several workers at one file --------------------------------------------------------------------------------------


def test_one_worker_writes_and_another_goes_on_where_it_ended(path: Path) -> None:
    with ExitStack() as workers:
        first, second = (workers.enter_context(kept(path, crew="ours", turn=turn)) for turn in (0.1, STANDBY_TURN_S))
        assert [worker.store.health["storeWriter"] for worker in (first, second)] == [True, False]
        for number in range(300):
            if number == 0:
                for worker in (first, second):
                    worker.store.add(BTC)
            quote = live(str(number))
            if number < 150:
                first.put(quote)
            second.put(quote)
            if number == 100:
                first.wait_until_written(100)
            if number == 149:
                first.store.stop()
        wait_until(lambda: second.store.health["storeWriter"], what="the second one writes")
        wait_until(lambda: len(changes(path)) == 300)
        with pytest.raises(StoreInUse):
            workers.enter_context(kept(path))
        with pytest.raises(StoreInUse):
            workers.enter_context(kept(path, crew="theirs"))
    assert told(path) == [(State.LIVE, str(number)) for number in range(300)]


def test_a_killed_writer_costs_at_most_its_last_transaction(path: Path) -> None:
    """What it had not written is written by the other worker, and nothing twice."""
    with kept(path, crew="ours", turn=0.1) as second:
        pass
    first = Store(StoreSettings(path, crew="ours", turn=0.1), Remembered(lambda quote: None))
    first.start(lambda tickers: None)
    with kept(path, crew="ours", turn=STANDBY_TURN_S) as second:
        for store in (first, second.store):
            store.add(BTC)
        for number in range(50):
            for store in (first, second.store):
                store.put(live(str(number)))
        wait_until(lambda: len(changes(path)) == 50)
        for number in range(50, 60):
            second.put(live(str(number)))
        abandon(first)
        wait_until(lambda: len(changes(path)) == 60)
    assert told(path) == [(State.LIVE, str(number)) for number in range(60)]


def abandon(store: Store) -> None:
    """Leaves it as a kill of its process would: without a last transaction, its lock free."""
    store._turn = lambda: None  # type: ignore[method-assign]
    store._release()


def test_a_worker_that_was_away_for_long_leaves_a_gap(path: Path) -> None:
    with kept(path, crew="ours", turn=0.05) as first:
        first.store.add(BTC)
        first.put(live("1"))
        first.wait_until_written(1)
        with kept(path, crew="ours", turn=0.05) as second:
            second.store.add(BTC)
            standby = second.store._standby
            assert standby is not None
            second.put(live("2"))
            wait_until(lambda: standby._forgotten_until > file_alive_at(path), what="it has forgotten the change")
            abandon(first.store)
            wait_until(lambda: second.store.written >= 2)
    assert told(path) == [(State.LIVE, "1"), (None, None), (State.LIVE, "2")]


def file_alive_at(path: Path) -> int:
    with closing(schema.connect_reader(path, 1.0)) as connection:
        return int(connection.execute("SELECT alive_at FROM pulse").fetchone()[0])
