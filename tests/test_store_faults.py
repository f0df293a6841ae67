"""The store when its process is killed, and when its disk, its file or the clock fail, while prices come."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from drills import small_disk
from running import PROJECT, wait_until
from stores import BTC, ETH, Kept, changes, kept, live, plain_candles, told, write_past

from quotes import State, wall_ms
from storage.candles import INTERVALS
from storage.history import History, Range
from store import StoreState

KILLS = 30
EVERYTHING = Range(limit=1_000_000, since=0)
QUICK = {"patience": 0.05, "turn": 0.02}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pluto.db"


@contextmanager
def prices_coming(one: Kept) -> Iterator[Callable[[], int]]:
    """Prices 1, 2, 3, … while this lasts; yields how many came. The store is never waited for."""
    ended, count = threading.Event(), [0]

    def put() -> None:
        while not ended.wait(0.001):
            count[0] += 1
            one.put(live(str(count[0])))

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        ended.set()
        thread.join()


def prices_of(path: Path) -> list[str | None]:
    return [price for state, price in told(path) if state is State.LIVE]


def assert_candles_are_true(path: Path) -> None:
    history, all_of_it = History(path, 1.0), changes(path)
    for width in INTERVALS.values():
        page = history.candles(BTC, width, EVERYTHING)
        assert page is not None
        assert page.items == plain_candles(all_of_it, width)


def test_what_is_written_survives_every_kill(path: Path) -> None:
    path.parent.mkdir()
    command = [sys.executable, str(PROJECT / "tests/store_nursery.py"), str(path), str(KILLS), "16"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT)}, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    prices: dict[int, list[str]] = {run: [] for run in range(KILLS)}
    for state, price in told(path):
        assert state in (State.LIVE, None), "the only gaps are those that the kills left"
        if price is not None:
            prices[int(price.partition(".")[0])].append(price)
    for line in done.stdout.splitlines():
        run, put, written = map(int, line.split())
        found = prices[run]
        assert found == [f"{run}.{number:06d}" for number in range(1, len(found) + 1)], "a prefix of what was shown"
        assert written - 1 <= len(found) <= put, "the first thing written may be the gap before"
    gaps = [state is None for state, _ in told(path)]
    assert gaps.count(True) >= sum(map(bool, prices.values())) - 1
    assert_candles_are_true(path)


def fill(ballast: Path) -> None:
    """Writes until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_delays_nothing_and_loses_nothing() -> None:
    with small_disk() as disk:
        if disk is None:
            pytest.skip("only root can mount a small disk")
        path = disk / "pluto.db"
        with kept(path, **QUICK) as one, prices_coming(one) as count:
            one.store.add(BTC)
            one.wait_until_written(1)
            ballast = disk / "ballast"
            fill(ballast)
            wait_until(lambda: "full" in one.store.reason, what="it says so")  # closing the file may free some space
            seen = count()
            wait_until(lambda: count() > seen + 50, what="prices go on")
            ballast.unlink()
            one.wait_until(StoreState.RUNNING)
        assert prices_of(path) == [str(number) for number in range(int(prices_of(path)[0] or 0), count() + 1)]
        assert one.store.intake.left_out == 0


def test_a_read_only_folder_is_read_and_written_once_it_can_be() -> None:
    with small_disk() as disk:
        if disk is None:
            pytest.skip("only root can mount a small disk")
        path = disk / "pluto.db"
        with kept(path, **QUICK) as one:
            one.store.add(BTC)
            one.put(live("1"))
        remount(disk, "ro")
        with kept(path, **QUICK) as two:
            assert two.found == [BTC]
            for ticker in two.found:
                two.store.add(ticker)
            assert [quote.price_text for quote in two.shown] == ["1"]
            assert two.store.state is StoreState.DEGRADED
            two.put(live("2"))
            remount(disk, "rw")
            two.wait_until(StoreState.RUNNING)
            two.wait_until_written(1)
            assert told(path) == [(State.LIVE, "1"), (None, None), (State.LIVE, "2")]


def test_an_unusable_file_in_a_read_only_folder_is_set_aside_once_it_can_be() -> None:
    with small_disk() as disk:
        if disk is None:
            pytest.skip("only root can mount a small disk")
        path = disk / "pluto.db"
        path.write_bytes(b"no database" * 1_000)
        path.with_name("pluto.db.lock").touch()
        remount(disk, "ro")
        with kept(path, **QUICK) as one:
            one.store.add(BTC)
            one.wait_until(StoreState.DEGRADED)
            remount(disk, "rw")
            one.wait_until(StoreState.RUNNING)
            one.put(live("1"))
            wait_until(lambda: prices_of(path) == ["1"])


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_file_that_is_deleted_begins_anew_with_what_is_true_now(path: Path, whole_folder: bool) -> None:
    with kept(path, **QUICK) as one, prices_coming(one) as count:
        one.store.add(BTC)
        one.store.add(ETH)
        one.put(live("7", ETH))
        one.wait_until_written(10)
        if whole_folder:
            path.parent.rename(path.parent.with_name("gone"))  # in one step: the store may make it anew at once
        else:
            path.unlink()
        wait_until(lambda: path.exists() and ("live", "7") in told(path, ETH), what="a fresh file")
        seen = count()
        wait_until(lambda: str(seen + 20) in prices_of(path))
    with kept(path) as two:
        assert two.found == [BTC, ETH]
    assert_candles_are_true(path)


def test_a_locked_file_is_waited_for_and_nothing_is_lost(path: Path) -> None:
    with kept(path, **QUICK) as one, prices_coming(one) as count:
        one.store.add(BTC)
        one.wait_until_written(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            one.wait_until(StoreState.DEGRADED)
            assert "locked" in one.store.reason
            one.store.add(ETH)
            seen = count()
            wait_until(lambda: count() > seen + 50, what="prices go on")
            other.execute("ROLLBACK")
        one.wait_until(StoreState.RUNNING)
    first = int(prices_of(path)[0] or 0)
    assert prices_of(path) == [str(number) for number in range(first, count() + 1)]
    with kept(path) as two:
        assert two.found == [BTC, ETH]


def test_what_finds_no_room_is_counted_and_leaves_a_gap(path: Path) -> None:
    with kept(path, max_waiting=10, **QUICK) as one:
        one.store.add(BTC)
        one.put(live("1"))
        one.wait_until_written(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            one.put(live("2"))
            one.wait_until(StoreState.DEGRADED)
            one.put(*(live(str(number)) for number in range(3, 103)))
            other.execute("ROLLBACK")
        one.wait_until(StoreState.RUNNING)
        assert one.store.health == {"store": "running", "storeLeftOut": one.store.intake.left_out}
        wait_until(lambda: prices_of(path)[-1:] == ["102"])
    found = told(path)
    gap = found.index((None, None))
    assert found[: gap + 2] == [
        *((State.LIVE, str(number)) for number in range(1, gap + 1)),
        (None, None),
        (State.LIVE, "102"),
    ]
    assert one.store.intake.left_out == 102 - gap
    assert_candles_are_true(path)


def damage(path: Path) -> sqlite3.Error:
    """What a reader meets."""
    with pytest.raises(sqlite3.DatabaseError) as met:
        History(path, 1.0).changes(BTC, EVERYTHING)
    return met.value


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_a_damaged_page_sets_the_file_aside_whoever_meets_it(path: Path, who: str) -> None:
    path.parent.mkdir()
    now = wall_ms()
    write_past(path.parent, {BTC: [(now - 2_000 + number, State.LIVE, f"{number}.5") for number in range(2_000)]})
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(pages - 5, pages - (who == "reader")):  # all are changes, and the writer needs the last ones
            file.seek(page * 4096)
            file.write(b"\xff" * 512)
    met = damage(path)
    with kept(path, **QUICK) as two, prices_coming(two) as count:
        assert two.found == [BTC]
        two.store.add(BTC)
        if who == "reader":
            two.wait_until_written(1)
            assert two.store.files_set_aside == 0
            two.store.suspect(met, 0)
        wait_until(lambda: two.store.files_set_aside, what="set aside")
        two.store.suspect(met, 0)  # another reader met it before: the fresh file is not at fault
        seen = count()
        wait_until(lambda: str(seen + 20) in prices_of(path))
        wait_until(lambda: two.store.state is StoreState.RUNNING)
        assert two.store.files_set_aside == 1
    assert len(list(path.parent.glob("pluto.db.damaged-*Z"))) == 1
    with kept(path) as three:
        assert three.found == [BTC]
    assert_candles_are_true(path)


def test_times_never_go_back_whatever_the_clock_does(path: Path) -> None:
    first = wall_ms()
    clock = [first]
    with kept(path, **QUICK) as one:
        one.store.intake._wall = lambda: clock[0]
        one.store.add(BTC)
        for number, step in enumerate((0, 10, -3_600_000, 10, 10, 3_700_000, 86_400_000, -86_400_000, 5)):
            clock[0] += step
            one.put(live(str(number)))
    found = [change for change in changes(path) if change.state is State.LIVE]
    assert [change.at - first for change in found] == [
        0, 10, 11, 12, 13, 100_030, 86_500_030, 86_500_031, 86_500_032,
    ]  # fmt: skip
    assert [change.shifted for change in found] == [False, False, True, True, True, False, False, True, True]
    assert_candles_are_true(path)
