"""What hangs or dies inside Pluto is noticed and said once; what can't come back ends it with one sentence.

Pluto runs as its own process with real pages; `faulty_server.py` only says when a fault strikes.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Pluto, Simulator, alive, descendants, running_pluto, wait_until
from stories import Outcomes, Stories, Story

BLOCKED, TURNS_AGAIN = "the hub hasn't turned for 2.0 s", "the hub turns again, after"
DEATH = "the thread 'scraper' died"


class Faulty:
    """A Pluto whose faults are ordered, and what it logs."""

    def __init__(self, pluto: Pluto, log: Path) -> None:
        self.pluto, self._log = pluto, log

    def logged(self, text: str) -> int:
        return self._log.read_text(errors="replace").count(text)  # Pluto may be in the middle of a character

    def health(self) -> dict[str, Any]:
        health: dict[str, Any] = self.pluto.http.get("/health").json()
        return health

    def answer(self, path: str) -> tuple[int, str]:
        """The status, and the code or the status that the body says."""
        answer = self.pluto.http.get(path)
        return answer.status_code, answer.json().get("code") or answer.json()["status"]


@contextmanager
def faulty_pluto(log: Path, patience: str, *options: str) -> Iterator[Faulty]:
    program = "tests/faulty_server.py"
    with running_pluto(*options, program=program, log=str(log), FAULTY_PATIENCE=patience) as pluto:
        yield Faulty(pluto, log)


apart = Stories()  # each has a Pluto of its own, beside that of the tests


@pytest.fixture(scope="module")
def outcomes(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Outcomes]:
    with apart.telling(request, simulator, tmp_path_factory.mktemp("apart")) as outcomes:
        yield outcomes


@pytest.fixture(scope="module")
def faulty(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory, outcomes: Outcomes) -> Iterator[Faulty]:
    """Tests share it; each waits until all is well again.

    It takes a hang of 9 s for one for good, and waits so long before it starts a dead scraper that the tests see it.
    """
    log = tmp_path_factory.mktemp("faulty") / "log"
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD", "--max-streams", "1")
    with faulty_pluto(log, "hang=9,restart=2", *options) as faulty:
        faulty.pluto.wait_for("BTCUSD", "live", timeout=30)
        yield faulty


def test_a_scraper_that_hangs_is_said_until_it_is_back_and_after_long_that_pluto_must_be_started_anew(
    faulty: Faulty,
) -> None:
    """When its prices become stale is in test_expiry.py."""
    before = faulty.logged("the scraper hangs; "), faulty.logged("the scraper is back")
    faulty.pluto.order("hang")
    wait_until(lambda: faulty.health()["scraper"] == "hanging")
    assert faulty.health()["status"] == "degraded"
    assert faulty.answer("/readyz") == (503, "not_ready")
    assert faulty.answer("/livez") == (200, "ok"), "it may well come back"
    wait_until(lambda: faulty.answer("/livez") == (503, "needs_restart"), timeout=20)
    assert faulty.pluto.http.get("/livez").json()["message"] == "Restart Pluto: the scraper hangs for good."
    assert faulty.health()["scraper"] == "hanging"
    faulty.pluto.order("go on")
    wait_until(lambda: faulty.answer("/livez") == (200, "ok"), what="it came back after all")
    wait_until(lambda: faulty.health()["scraper"] == "running")
    faulty.pluto.wait_for("BTCUSD", "live")
    wait_until(lambda: faulty.health()["status"] == "ok")
    assert faulty.answer("/readyz") == (200, "ok")
    after = faulty.logged("the scraper hangs; "), faulty.logged("the scraper is back")
    assert after == (before[0] + 1, before[1] + 1)


def test_a_scraper_that_dies_is_said_once_and_started_again(faulty: Faulty) -> None:
    left = descendants(faulty.pluto.process.pid)
    faulty.pluto.order("die", 1)
    wait_until(lambda: faulty.health()["scraper"] == "restarting")
    assert faulty.health()["status"] == "degraded"
    assert faulty.answer("/readyz") == (503, "not_ready")
    assert faulty.answer("/livez") == (200, "ok")
    faulty.pluto.wait_for("BTCUSD", "live")
    wait_until(lambda: faulty.health()["scraper"] == "running")
    assert faulty.logged(DEATH) == 1
    assert faulty.logged("Unforeseen: as ordered") == 1
    wait_until(lambda: not alive(left), what="nothing is left of the browser before")
    counters = faulty.pluto.http.get("/api/performance").json()["server"]["counters"]
    assert counters["scraper_deaths"] == 1


def test_a_blocked_hub_is_said_once_with_where_it_stands(faulty: Faulty) -> None:
    def blocked() -> int:
        counters = faulty.pluto.http.get("/api/performance").json()["server"]["counters"]
        return int(counters.get("hub_blocked", 0))

    counted, said, ended = blocked(), faulty.logged(BLOCKED), faulty.logged(TURNS_AGAIN)
    faulty.pluto.order("block")
    wait_until(lambda: faulty.logged(BLOCKED) > said)
    faulty.pluto.order("go on")
    wait_until(lambda: faulty.logged(TURNS_AGAIN) > ended)
    assert faulty.logged(BLOCKED) == said + 1
    assert faulty.logged("in stand_still") == 1
    assert blocked() == counted + 1
    faulty.pluto.wait_for("BTCUSD", "live")


def test_an_exception_in_a_callback_of_the_hub_is_said_once_and_harms_nobody(faulty: Faulty) -> None:
    faulty.pluto.order("raise")
    wait_until(lambda: faulty.logged("Unforeseen: in the hub"))
    assert faulty.answer("/livez") == (200, "ok")
    assert faulty.logged("Unforeseen: in the hub") == 1


def test_new_clients_are_sent_elsewhere_while_all_streams_are_taken(faulty: Faulty) -> None:
    with faulty.pluto.stream() as events:
        next(events)
        assert faulty.answer("/readyz") == (503, "too_many_streams")
    wait_until(lambda: faulty.answer("/readyz") == (200, "ok"))


def test_without_its_flush_loop_pluto_says_that_it_must_be_started_anew(faulty: Faulty) -> None:
    """The last one with this Pluto."""
    faulty.pluto.order("end")
    wait_until(lambda: faulty.answer("/livez") == (503, "needs_restart"))
    assert faulty.health()["broadcaster"] == "failed"


@apart
def a_scraper_that_dies_again_and_again_ends_pluto_with_one_sentence(simulator: Simulator, folder: Path) -> None:
    with faulty_pluto(folder / "log", "", "--source-url", simulator.url) as faulty:
        wait_until(lambda: faulty.health()["browser"] == "running", timeout=30)
        left = descendants(faulty.pluto.process.pid)
        faulty.pluto.order("die", 5)
        assert faulty.pluto.process.wait(30) == 3
        assert faulty.logged("pluto: The scraper died 5 times within a minute, so Pluto ends;") == 1
        assert faulty.logged(DEATH) == 5
        wait_until(lambda: not alive(left), what="nothing is left of it")


@contextmanager
def full_folder() -> Iterator[Path]:
    """A folder for temporary files in which nothing more can be made; its path is short, as sockets in it need."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=1", "tmpfs", folder], check=False)
        if mounted.returncode != 0:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@apart
def a_full_disk_is_an_error_in_words_and_passes(simulator: Simulator, _: Path) -> None:
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD")
    with full_folder() as folder, running_pluto(*options, TMPDIR=str(folder)) as pluto:
        quote = pluto.wait_for("BTCUSD", "error")
        assert quote["reason"].startswith(f"no browser: the folder for temporary files is full ({folder})")
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=10000", folder], check=True)
        pluto.wait_for("BTCUSD", "live", timeout=40)


@apart.each
def test_stories_of_other_plutos(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()
