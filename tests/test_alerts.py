"""Alerts over a store on a real file: what rings, what is kept, and what a kill or a failing disk leaves of it."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import wait_until
from stores import BTC, ETH, live

from alerts.book import LIMITS, Alerts, Fate, NoSuchAlert, TooManyAlerts
from alerts.fields import Raised
from alerts.outbox import Outbox, Pace, couriers_of
from quotes import Quote, State, Ticker
from storage.history import History
from storage.remembered import Remembered
from storage.schema import MIGRATIONS
from store import Keeping, NoStore, Store, StoreSettings, StoreState
from watchlist import NotTracked

ABOVE = {"ticker": "BTCUSD", "condition": "above", "value": "100"}
CROSSES = {"ticker": "BTCUSD", "condition": "crosses", "value": "100"}


class Session:
    """One run of alerts over a store's file, with clocks of its own."""

    def __init__(
        self,
        path: Path | None,
        *,
        simulated: bool = False,
        now: float = 0,
        wall: int = 1_000_000,
        urls: Iterable[str] = (),
        pace: Pace | None = None,
        keeping: Callable[[Store], Keeping] = lambda store: store,
    ) -> None:
        self.path, self.now, self.wall = path, now, wall
        self.rang: list[tuple[Raised, bool]] = []
        self.kept_when_told: list[int] = []
        self.store = Store(StoreSettings(path, patience=0.05, turn=0.05), Remembered(lambda quote: None))
        couriers = couriers_of(urls, (pace or Pace()).limit)
        self.outbox = Outbox(keeping(self.store), couriers, pace, wall=lambda: self.wall)
        self.alerts = Alerts(
            self.store,
            self.told,
            self.outbox,
            simulated=simulated,
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.store.keep(self.alerts)
        self.store.start(lambda tickers: None)
        self.outbox.start()
        for ticker in (BTC, ETH):
            self.alerts.add(ticker)
            self.store.add(ticker)

    def told(self, raised: Raised, may_be_lost: bool) -> None:
        self.kept_when_told.append(len(self.raised()))
        self.rang.append((raised, may_be_lost))

    def make(self, **fields: Any) -> str:
        alert, writing = self.alerts.make({**ABOVE, **fields})
        wait_until(lambda: writing.fate is not Fate.WAITING, what="the alert is kept")
        return alert.id

    def put(self, *prices: str | Quote) -> None:
        for price in prices:
            quote = live(price) if isinstance(price, str) else price
            self.store.put(quote)
            self.alerts.put(quote)

    def raised(self) -> list[dict[str, Any]]:
        assert self.path is not None
        try:
            return History(self.path, 1.0).ledger(lambda ledger: ledger.raised(100))
        except sqlite3.Error:
            return []

    def wait_for(self, rings: int) -> list[str | None]:
        wait_until(lambda: len(self.rang) >= rings, what=f"{rings} rings")
        return [raised.price_text for raised, _ in self.rang]


@contextmanager
def session(path: Path | None, **options: Any) -> Iterator[Session]:
    session = Session(path, **options)
    try:
        yield session
    finally:
        session.outbox.stop()
        session.store.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pluto.db"


def test_an_alert_rings_on_the_first_live_price_once_it_is_on_the_disk(path: Path) -> None:
    with session(path) as run:
        run.make(note="sell")
        stale = Quote(BTC, State.STALE, "101"), Quote(BTC, State.CLOSED, "102", proven_until=math.inf)
        run.put("99", *stale, Quote(BTC, State.SNAPSHOT, "103"), live("104", ETH), live("105", proven_until=-1.0))
        run.put(replace(live("106"), simulated=True), "107", "108")
        assert run.wait_for(1) == ["107"]
        assert run.kept_when_told == [1]
        assert run.alerts.all() == []
        (kept,) = run.raised()
        assert {"ticker": "BTCUSD", "priceText": "107", "note": "sell", "simulated": False, "gap": True}.items() <= (
            kept.items()
        )
    with session(path, simulated=True) as run:
        run.make()
        run.put("107", replace(live("108"), simulated=True))
        assert run.wait_for(1) == ["108"]


def test_a_new_alert_is_judged_by_the_price_that_holds(path: Path) -> None:
    with session(path) as run:
        run.put("101")
        run.make()
        assert run.wait_for(1) == ["101"]
        run.put(live("99", proven_until=5))
        run.now = 6
        run.make(value="98")
        run.put("102")
        assert run.wait_for(2) == ["101", "102"]


def test_a_restart_forgets_nothing_and_a_crossing_crosses_it_only_if_asked(path: Path) -> None:
    with session(path) as run:
        run.make(repeat=True, cooldown=10)
        run.make(value="97", repeat=True, cooldown=10)
        run.make(**CROSSES, across_gaps=True, note="across")
        run.make(**CROSSES, note="within")
        run.make(value="500", until=2_000_000)
        run.put("97", "98", "90", "99")  # the second one is armed again
        assert sorted(run.wait_for(1), key=str) == ["97"]
        wait_until(lambda: run.store.written >= 3, what="the prices are kept")
    with session(path, wall=2_000_001) as run:
        assert len(run.alerts.all()) == 5
        run.alerts.look()
        assert len(run.alerts.all()) == 4
        run.put("101")
        run.wait_for(3)
        assert sorted((raised.alert.condition, raised.alert.note, raised.gap) for raised, _ in run.rang) == [
            ("above", "", True), ("above", "", True), ("crosses", "across", True),
        ]  # fmt: skip
        run.now, run.wall = 20_000, 1  # the clock is set back: neither a cooldown nor an armed level cares
        run.put("102", "90", "102")
        run.wait_for(6)
    with session(path) as run:
        run.put("103")  # still above: not armed
        run.make(value="103")
        assert run.wait_for(1) == ["103"]
        assert len(run.raised()) == 8


def test_what_is_killed_before_it_is_on_the_disk_is_judged_again(path: Path) -> None:
    with session(path) as run:
        run.make()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"judged\n"
        child.kill()
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM raised").fetchone() == (0,)
    with session(path) as run:
        run.put("102", "103")
        assert run.wait_for(1) == ["102"]
        assert len(run.raised()) == 1


def test_a_degraded_store_rings_and_says_that_it_may_be_lost(path: Path) -> None:
    with session(path) as run:
        run.make()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            run.put("101")
            run.wait_for(1)
            assert run.rang[0][1]
            assert run.raised() == []
            other.execute("ROLLBACK")
        wait_until(lambda: len(run.raised()) == 1, what="it is kept after all")
        assert len(run.rang) == 1


def test_a_fresh_file_has_the_alerts(path: Path) -> None:
    with session(path) as run:
        id = run.make()
        path.unlink()
        wait_until(lambda: path.exists() and run.store.state is StoreState.RUNNING, what="a fresh file")
    with session(path) as run:
        assert [alert.id for alert in run.alerts.all()] == [id]
        assert run.alerts.delete("unknown") is None
        writing = run.alerts.delete(id)
        wait_until(lambda: writing is not None and writing.fate is Fate.KEPT, what="it is deleted")
    with session(path) as run:
        assert run.alerts.all() == []


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_file_of_a_version_before_gets_the_tables(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            f"{' '.join(MIGRATIONS[:version])} PRAGMA user_version = {version}; "
            "INSERT INTO ticker VALUES (1, 'OLD', 1, NULL, 0, 0);"
        )
    with session(path) as run:
        run.make()
        run.put("101")
        run.wait_for(1)
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (3,)
        assert new.execute("SELECT tracked FROM ticker WHERE name = 'OLD'").fetchone() == (1,)


def test_a_trouble_that_lasts_rings_also_when_a_proof_runs_out_in_silence(path: Path) -> None:
    with session(path) as run:
        run.alerts.make({"ticker": "BTCUSD", "condition": "state", "within": 60})
        run.put(live("99", proven_until=1_000))
        for run.now in (2_000, 61_000):
            run.alerts.look()
        assert run.rang == []
        run.now = 62_001
        run.alerts.look()
        run.wait_for(1)
        assert run.rang[0][0].reason.startswith("stale: TradingView's page")


def test_a_removed_ticker_keeps_its_alerts_asleep(path: Path) -> None:
    with session(path) as run:
        run.make()
        run.alerts.remove(BTC)
        run.put("101")
        run.alerts.add(BTC)
        run.put("102")
        assert run.wait_for(1) == ["102"]


def test_alerts_are_bounded_and_need_a_store_and_a_ticker(path: Path) -> None:
    with session(path) as run:
        for number in range(LIMITS.all // LIMITS.of_ticker):
            run.alerts.add(Ticker(f"T{number}"))
            for _ in range(LIMITS.of_ticker):
                run.alerts.make({**ABOVE, "ticker": f"T{number}"})
            if number == 0:
                with pytest.raises(TooManyAlerts, match="T0 has 100"):
                    run.alerts.make({**ABOVE, "ticker": "T0"})
        with pytest.raises(TooManyAlerts, match="1000 alerts"):
            run.alerts.make(ABOVE)
        before = run.alerts.all()[-1]
        with pytest.raises(TooManyAlerts, match="T0 has 100"):
            run.alerts.make({**ABOVE, "ticker": "T0", "replaces": before.id})
        after, _ = run.alerts.make({**ABOVE, "ticker": before.ticker, "replaces": before.id})
        with pytest.raises(NoSuchAlert):
            run.alerts.make({**ABOVE, "replaces": before.id})
        assert run.alerts.all()[-1].id == after.id
        assert len(run.alerts.all()) == LIMITS.all
        with pytest.raises(NotTracked):
            run.alerts.make({**ABOVE, "ticker": "NEVERUSD"})
    with session(None) as run, pytest.raises(NoStore):
        run.alerts.make(ABOVE)


def test_one_of_two_alerts_is_on_the_disk_whatever_fails(path: Path) -> None:
    def kept() -> list[str]:
        with closing(sqlite3.connect(path)) as reader:
            return [id for (id,) in reader.execute("SELECT id FROM alert")]

    with session(path) as run:
        before = run.make()
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TRIGGER fail BEFORE INSERT ON alert BEGIN SELECT RAISE(ABORT, 'as was asked'); END")
        after = run.make(value="200", replaces=before)
        assert kept() == [before]
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TRIGGER fail")
        wait_until(lambda: kept() == [after], what="the step is made")
        run.put("150", "200")
        assert run.wait_for(1) == ["200"]


def judge_and_wait(path: Path) -> None:
    """What is killed: it has judged, and can't write."""
    run = Session(path)
    wait_until(lambda: run.store.has_kept_list, what="the watchlist is kept")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    run.put("101")
    assert run.alerts.all() == []
    print("judged", flush=True)
    signal.pause()


if __name__ == "__main__":
    judge_and_wait(Path(sys.argv[1]))
