"""What macOS does otherwise, as far as it can be tried elsewhere: the system's calls answer as they do there."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import psutil
import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from running import PROJECT, Simulator
from scraping import LESS_PATIENT, scraping
from test_metrics import reading_of

from app import assemble
from quotes import State
from settings import Settings

MacMemory = namedtuple("MacMemory", "rss vms pfaults pageins")

CLOCKS = """
import sys, time

sys.platform = "darwin"
del time.CLOCK_BOOTTIME
time.CLOCK_MONOTONIC_RAW, time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW = 4, 6, 8
awake = slept = 0.0
time.monotonic = lambda: awake
time.clock_gettime = lambda clock: {4: awake + slept, 6: awake + slept + 0.5, 8: awake}[clock]

from quotes import slept_s, steady_ms

before = steady_ms(), slept_s()
awake += 2
assert (steady_ms() - before[0], slept_s() - before[1]) == (2_000, 0)
slept += 3600
assert (steady_ms() - before[0], slept_s() - before[1]) == (3_602_000, 3600)
"""


def test_sleep_is_told_by_the_clock_that_counts_it() -> None:
    subprocess.run([sys.executable, "-c", CLOCKS], check=True, timeout=20, cwd=PROJECT)


def test_a_browser_that_is_too_big_is_started_anew_where_pss_is_not_told(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(psutil, "LINUX", False)
    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: MacMemory(50_000_000, 1 << 40, 1, 1))
    caplog.set_level("INFO")
    patience = replace(LESS_PATIENT, weigh=0.2, retry_first=0.1)
    with scraping(simulator.url, patience, browser_max_memory=40.0) as watched, watched.tracking("SHIBUSDT"):
        quote = watched.wait_for("SHIBUSDT", State.ERROR, reason="MB and is started anew")
        watched.wait_for("SHIBUSDT", State.ERROR, reason="MB and is started anew", after=len(watched.quotes))
    assert (quote.reason or "").startswith("no browser: it took ")
    assert caplog.text.count("this system doesn't tell the browser's PSS") == 1


def refuse(_: psutil.Process) -> None:
    raise psutil.AccessDenied


def test_metrics_have_the_figures_of_the_process_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    usual = {family.name: family for family in registry.collect()}

    def no_proc(_: ProcessCollector) -> float:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(ProcessCollector, "_boot_time", no_proc)
    ours = {family.name: family for family in reading_of(assemble(Settings(store=False))).families}
    assert len(usual) == 6
    for name, family in usual.items():
        assert ours[name].type == family.type
        [expected], [told] = family.samples, ours[name].samples
        assert told.name == expected.name
        assert told.value == pytest.approx(expected.value, rel=0.2, abs=2)
