"""Alerts on their way to receivers of all kinds: real HTTP and SMTP on loopback, real child processes, a real file."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from receivers import SECRET, HttpReceiver, MailReceiver, receiving
from running import QuoteServer, alive, descendants, quote_server, refusing_port, run_to_end, running_pluto, wait_until
from test_alerts import ABOVE, Session, session

from alerts.courier import CantNotify, target_of
from alerts.messages import message_of
from alerts.outbox import NO_LONGER_SET, Pace, begin, couriers_of
from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import DELIVERY_STATE_DELIVERED, GetRaisedAlertsRequest
from settings import Settings, read_settings
from storage.ledger import AlertLimits, Delivery, DeliveryState, FileLedger, Ledger
from storage.schema import connect
from store import Store, StoreState

T = TypeVar("T")
QUICK = Pace(limit=4.0, first_pause=0.05, longest_pause=0.2)
DAY_MS = 86_400_000
NOTHING_ANSWERS = (
    "Nothing answers at the receiver's host and port: check them in the notify URL, and whether the receiver runs."
)
LOGIN_REFUSED = (
    "The mail server refused the login: check the user name and the password in the notify URL "
    "(some services want an app password)."
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pluto.db"


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    with refusing_port() as port:
        yield f"json://127.0.0.1:{port}/{SECRET}"


def deliveries(run: Session) -> list[dict[str, Any]]:
    """Those of what was raised last."""
    found: list[dict[str, Any]] = (run.raised() or [{}])[0].get("deliveries", [])
    return found


def ring(run: Session, price: str = "101", **fields: Any) -> None:
    rings = len(run.rang)
    run.make(**fields)
    run.put(price)
    run.wait_for(rings + 1)


def wait_for_states(run: Session, *states: str) -> list[dict[str, Any]]:
    wait_until(lambda: tuple(delivery["state"] for delivery in deliveries(run)) == states, 20, what=f"{states}")
    return deliveries(run)


# --- receivers --------------------------------------------------------------------------------------------------------


def test_each_receiver_gets_it_and_none_delays_another(path: Path, nobody: str) -> None:
    fine, failing, hanging, mail = (
        HttpReceiver("slow"),
        HttpReceiver(500, "break", 500),
        HttpReceiver("hang"),
        MailReceiver(),
    )
    with receiving(fine, failing, hanging, mail) as urls:
        with session(path, urls=[*urls, nobody], pace=QUICK) as run:
            ring(run, note="sell")
            wait_until(lambda: hanging.ids and mail.ids and fine.ids, what="it comes while one hangs")
            wait_until(lambda: failing.bodies[3:], what="another is tried again meanwhile")
            assert len(hanging.bodies) == 1
            states = wait_for_states(run, *["delivered"] * 4, "waiting")
            assert [delivery["to"] for delivery in states] == [
                *(f"{ordinal}: JSON" for ordinal in range(1, 4)), "4: E-Mail", "5: JSON",
            ]  # fmt: skip
            assert [delivery["tries"] for delivery in states[:4]] == [1, 4, 2, 1]
            assert all("error" not in delivery and "nextTryAt" not in delivery for delivery in states[:4])
            assert states[4]["error"] == NOTHING_ANSWERS
            assert states[4]["nextTryAt"] >= run.wall
            assert {*fine.ids, *failing.ids, *hanging.ids, *mail.ids} == {run.raised()[0]["id"]}
            assert fine.bodies[0]["title"] == "BTCUSD is above 100"
            assert "Price: 101\n" in fine.bodies[0]["message"]
            assert "Note: sell\n" in fine.bodies[0]["message"]
            assert SECRET not in str(run.raised())
            assert SECRET.encode() not in path.read_bytes() + Path(f"{path}-wal").read_bytes()
            # The second mail comes 5.5 s after the first: Apprise's own pause is not counted among the 4 s of a try.
            ring(run)
            assert [delivery["tries"] for delivery in wait_for_states(run, *["delivered"] * 4, "waiting")[:4]] == [
                1
            ] * 4
        with session(path) as run:  # without any notify URL
            *delivered, gone = deliveries(run)
            assert {delivery["state"] for delivery in delivered} == {"delivered"}
            assert (gone["state"], gone["error"]) == ("failed", NO_LONGER_SET)


def test_after_a_day_it_has_failed_and_a_clock_that_is_set_changes_nothing(path: Path, nobody: str) -> None:
    receiver = HttpReceiver(500)
    with receiving(receiver) as urls:
        with session(path, urls=urls, pace=Pace(first_pause=0.3, longest_pause=0.3)) as run:
            ring(run)
            wait_until(lambda: receiver.bodies, what="the first try")
            run.wall += 10 * DAY_MS
            assert wait_for_states(run, "delivered")[0]["tries"] == 2
        receiver.ways = [503] * 1000
        with session(path, urls=urls, pace=Pace(first_pause=600, longest_pause=600), wall=5 * DAY_MS) as run:
            ring(run)
            wait_until(lambda: [delivery["tries"] for delivery in deliveries(run)] == [1], what="a try")
        receiver.ways = []
        with session(path, urls=urls, pace=Pace(first_pause=0.05, longest_pause=0.2, give_up=0.1)) as run:
            assert wait_for_states(run, "delivered")[0]["tries"] == 2  # the wall clock is days behind
            receiver.ways = [503] * 1000
            ring(run)
            (failed,) = wait_for_states(run, "failed")
            assert failed["error"] == "The receiver answered 503 (Service Unavailable)."
            assert run.alerts.figures.lanes[0][1:4] == (0, 1, 1)


class ReadLate:
    """The store, whose answers come when all that was submitted before is written: they are out of date then."""

    is_off = False

    def __init__(self, store: Store) -> None:
        self._store, self.submit = store, store.submit

    def read(self, question: Callable[[Ledger], T]) -> T:
        answer, written = self._store.read(question), Written()
        self.submit(written)
        wait_until(lambda: written.is_done)
        return answer


class Written:
    """An order that writes nothing."""

    is_done = False

    def write(self, ledger: Ledger) -> None:
        pass

    def done(self) -> None:
        self.is_done = True

    failed = done


def test_what_finds_no_room_in_memory_comes_from_the_file(path: Path) -> None:
    receiver, pace = HttpReceiver(*[500] * 6), Pace(first_pause=0.1, in_memory=2)
    with receiving(receiver) as urls, session(path, urls=urls, pace=pace, keeping=ReadLate) as run:
        for _ in range(6):
            run.make()
        run.put("101")
        run.wait_for(6)
        (lane,) = run.alerts.figures.lanes
        assert lane.waiting + lane.delivered == 6
        wait_until(lambda: run.alerts.figures.lanes[0].delivered == 6, what="all are delivered")
        wait_until(lambda: len(set(receiver.ids)) == 6, what="all have come")
        assert len(receiver.bodies) == 12
        assert run.alerts.figures.lanes[0].waiting == 0


def test_a_degraded_store_delays_no_message(path: Path) -> None:
    receiver = HttpReceiver(500, 500)
    with receiving(receiver) as urls, session(path, urls=urls, pace=QUICK) as run:
        run.make()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            run.put("101")
            wait_until(lambda: run.alerts.figures.lanes[0].delivered, what="the message")
            assert "a restart may lose or repeat this alert" in receiver.bodies[0]["message"]
            assert run.raised() == []
            other.execute("ROLLBACK")
        assert wait_for_states(run, "delivered")[0]["tries"] == 3
        assert len(receiver.bodies) == 3
        path.unlink()
        wait_until(lambda: path.exists() and run.store.state is StoreState.RUNNING, what="a fresh file")
        receiver.ways = [500] * 3
        ring(run)
        wait_for_states(run, "delivered")


def test_what_was_raised_is_kept_until_it_is_delivered_as_far_as_there_is_room(path: Path) -> None:
    waiting = Delivery("", "target", "1: JSON", DeliveryState.WAITING, 0, 0)
    with closing(connect(path, 1.0)) as connection:
        ledger = FileLedger(connection, AlertLimits(raised=3, undelivered=5))

        def keep(number: int, state: DeliveryState) -> int:
            delivery = waiting._replace(raised=str(number), state=state)
            return ledger.keep_raised(str(number), number, {"id": number}, [delivery])

        assert not keep(0, DeliveryState.WAITING)
        assert not any(keep(number, DeliveryState.DELIVERED) for number in range(1, 6))
        assert [fields["id"] for fields in ledger.raised(100)] == [5, 4, 3, 0]
        assert connection.execute("SELECT count(*) FROM delivery").fetchone() == (4,)
        assert [keep(number, DeliveryState.WAITING) for number in range(6, 11)] == [0, 0, 0, 0, 1]
        assert [fields["id"] for fields in ledger.raised(100)] == [10, 9, 8, 7, 6]
        assert ledger.count_waiting("target") == 5
        ledger.keep_delivery(waiting._replace(raised="6", state=DeliveryState.DELIVERED))
        ledger.keep_delivery(waiting._replace(raised="9", state=DeliveryState.DELIVERED))
        assert [fields["id"] for fields in ledger.raised(100)] == [10, 9, 8, 7]
        ledger.give_up_others([], 0, "")
        assert [fields["id"] for fields in ledger.raised(100)] == [10, 9, 8]

        ledger = FileLedger(connection, AlertLimits(raised=3, undelivered=1_000))
        steps = [steps_of(connection, lambda at=at: keep(at, DeliveryState.WAITING)) for at in range(11, 300)]  # type: ignore[misc]
        assert max(steps[-10:]) < 2 * max(steps[:10]), "what waits makes no ring slower"


def steps_of(connection: sqlite3.Connection, write: Callable[[], object]) -> int:
    """What SQLite does for it, in instructions of its machine."""
    counter = itertools.count()
    connection.set_progress_handler(lambda: next(counter) < 0, 1)
    write()
    connection.set_progress_handler(None, 0)
    return next(counter)


# --- kills ------------------------------------------------------------------------------------------------------------


def test_a_kill_between_raising_and_sending_loses_nothing(tmp_path: Path) -> None:
    receiver = HttpReceiver("hang")
    with receiving(receiver) as (url,):
        with quote_server("--data", str(tmp_path), PLUTO_NOTIFY=url) as server:
            server.track("BTCUSD")
            server.http.post("/api/alerts", json=ABOVE).raise_for_status()
            server.put(("BTCUSD", "live", "101"))
            wait_until(lambda: receiver.bodies, what="a first try")
            assert 'pluto_deliveries_waiting{to="1: JSON"} 1.0' in server.http.get("/metrics").text
            children = descendants(server.process.pid)
            server.process.kill()
            receiver.is_over.set()
            wait_until(lambda: not alive(children), what="the process that sends ends, too")
        with quote_server("--data", str(tmp_path), PLUTO_NOTIFY=url) as server:
            wait_until(lambda: raised(server)[0]["deliveries"][0]["state"] == "delivered", what="the second try")
            assert receiver.ids == [raised(server)[0]["id"]] * 2
            told = CryptoPriceServiceClientSync(server.url).get_raised_alerts(GetRaisedAlertsRequest()).raised[0]
            (delivery,) = told.deliveries
            assert (delivery.to, delivery.tries) == ("1: JSON", 1)
            assert delivery.state == DELIVERY_STATE_DELIVERED
            metrics = server.http.get("/metrics").text
            assert 'pluto_deliveries_total{state="delivered",to="1: JSON"} 1.0' in metrics


def raised(server: QuoteServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.http.get("/api/alerts/raised").json()["raised"]
    return found


# --- the whole program ------------------------------------------------------------------------------------------------


def test_no_url_shows_anywhere_and_what_is_simulated_says_so(tmp_path: Path, nobody: str) -> None:
    receiver, log = HttpReceiver(), tmp_path / "log"
    with (
        receiving(receiver) as (url,),
        running_pluto(
            *("--demo", "--tickers", "BTCUSD", "--data", str(tmp_path), "--log-level", "debug"),
            log=str(log),
            PLUTO_STORE="on",
            PLUTO_NOTIFY=f"{url}, {nobody}",
        ) as pluto,
    ):
        pluto.wait_for("BTCUSD", "live")
        pluto.http.post("/api/alerts", json={**ABOVE, "value": "1"}).raise_for_status()
        wait_until(lambda: receiver.bodies, what="the message")
        assert receiver.bodies[0]["title"].startswith("SIMULATED: BTCUSD is above 1 ")
        for child in alive(descendants(pluto.process.pid)):
            try:
                assert SECRET not in str(child.cmdline()) + str(child.environ())
            except psutil.Error:
                continue
        wait_until(lambda: "notify URL 2: JSON fails" in log.read_text())
        answers = [pluto.http.get(f"/{path}").text for path in ("api/alerts/raised", "metrics", "health")]
    assert SECRET not in log.read_text() + str(answers)


def test_the_trial_sends_to_each_url_and_says_what_came_of_it(nobody: str) -> None:
    receiver, mail, closed = HttpReceiver(), MailReceiver(), MailReceiver(refuses=True)

    def trial(*options: str, notify: str) -> subprocess.CompletedProcess[str]:
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")  # not for this machine
        return run_to_end("alerts.trial", *options, program="-m", PLUTO_NOTIFY=notify, **proxies)

    with receiving(receiver, mail, closed) as (here, *mails):
        done = trial(notify=here)
        assert (done.returncode, done.stdout) == (0, "1: JSON: delivered\n")
        away = nobody.replace("json://", "mailto://").replace(SECRET, f"?mode=insecure&from={SECRET}@b.com&to=c@d.com")
        failed = trial("--notify", " ".join([*mails, away]), notify="unused://")
        assert (failed.returncode, failed.stdout.splitlines()) == (
            1, ["1: E-Mail: delivered", f"2: E-Mail: {LOGIN_REFUSED}", f"3: E-Mail: {NOTHING_ANSWERS}"]
        )  # fmt: skip
        assert SECRET not in failed.stdout + failed.stderr
    assert len(receiver.bodies) == 1
    assert len(mail.texts) == 1


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_url_that_is_not_understood_is_named_by_its_number() -> None:
    with pytest.raises(CantNotify, match=r"^Notify URL 2 is none that Apprise understands") as refused:
        begin(couriers_of(["json://localhost", f"nosuchservice://{SECRET}"], 1.0))
    assert SECRET not in str(refused.value)


def test_without_apprise_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CantNotify, match=r"^Apprise is not installed: start Pluto by \./run\.sh"):
        begin(couriers_of(["json://localhost"], 1.0))


def test_urls_are_told_apart_as_apprise_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUTO_NOTIFY", "json://a/b,c;d ,ntfy://e\n mailto://f?to=g,h@i")
    assert read_settings([]).notify_urls == ["json://a/b,c;d", "ntfy://e", "mailto://f?to=g,h@i"]
    settings = read_settings(["--notify", "json://a json://b", "--notify=ntfy://c"])
    assert settings.notify_urls == ["json://a", "json://b", "ntfy://c"]
    assert "json://" not in repr(settings)
    assert Settings().notify_urls == []
    assert len({target_of(url) for url in settings.notify_urls}) == 3


# --- words ------------------------------------------------------------------------------------------------------------

RAISED = {
    "id": "0123456789abcdef", "ticker": "BTCUSD", "condition": "above", "value": "65000", "price": 65000.1,
    "priceText": "65000.10", "currency": "USD", "at": 1_795_680_000_000, "gap": False, "simulated": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({}, "BTCUSD is above 65,000 USD"),
        ({"priceText": "65000.00"}, "BTCUSD is at 65,000 USD"),
        ({"condition": "crosses", "direction": "both"}, "BTCUSD has risen above 65,000 USD"),
        ({"condition": "crosses", "value": "65000.5"}, "BTCUSD has fallen below 65,000.5 USD"),
        ({"condition": "moves", "value": "2.5", "direction": "both", "within": 600},
         "BTCUSD has moved by 2.5 % or more within 10 min"),
        ({"condition": "moves", "value": "2", "direction": "down", "within": 90},
         "BTCUSD has fallen by 2 % or more within 90 s"),
        ({"condition": "state", "within": 3600}, "BTCUSD has had no live price for over 1 h"),
        ({"simulated": True, "currency": None}, "SIMULATED: BTCUSD is above 65,000"),
    ],
)  # fmt: skip
def test_a_title_says_what_has_happened(fields: dict[str, Any], title: str) -> None:
    assert message_of({**RAISED, **fields}).title == title


def test_a_body_says_all_that_is_known() -> None:
    fields = {"note": "sell\nnow", "gap": True, "simulated": True}
    assert message_of({**RAISED, **fields}, may_be_lost=True).body.splitlines() == [
        "Price: 65000.10 USD",
        "Time: 2026-11-26 08:00:00 UTC",
        "Note: sell",
        "now",
        "After a gap: for some time before, the price was not known.",
        "SIMULATED: this is not a real price.",
        "Pluto can't write its file: a restart may lose or repeat this alert.",
        "Id: 0123456789abcdef",
    ]
    silent = {"condition": "state", "within": 60, "reason": "stale: no proof"}
    assert message_of({**RAISED, **silent}).body.splitlines()[:2] == [
        "Last price: 65000.10 USD",
        "Reason: stale: no proof",
    ]
