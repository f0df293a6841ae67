"""A page that wants to do harm hurts only its own ticker, is cut off, and says nothing that was not checked.

One scraper with a real Chromium meets all hostile pages of the simulator at once, together with two honest ones; its
patience is shortened, and so are its limits of a renderer's memory and of disturbances.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import Pluto, Simulator, commands, descendants, running_pluto, running_simulator, wait_until
from scraping import LESS_PATIENT, Watched, scraping

from quotes import Quote, State, Ticker, steady_ms

HONEST = ("BTCUSD", "ETHUSD")
CUT_OFF = {  # what is an error then, by what, and why; those that take longest first, those that come alone last
    "VETUSD": ("forges_messages", "the page shows no price that can be read"),
    "OPUSD": ("leaves", "the page keeps leaving"),
    "TONUSD": ("downloads", "the page keeps offering downloads"),
    "ETCUSD": ("reloads_without_end", "the page keeps loading itself again"),
    "GRTUSD": ("redirects_round", "it sends the page round in circles"),
    "BCHUSD": ("floods_messages", "the page floods"),
    "TRXUSD": ("floods_console", "the page floods"),
    "SUIUSD": ("huge_message", "the page's texts are too long"),
    "HBARUSD": ("redirects_to_port", "was sent to 127.0.0.1:9"),
    "XMRUSD": ("redirects_to_file", "it redirected the page to an address that web pages may not open"),
    "MKRUSD": ("redirects_to_data", "it redirected the page to an address that web pages may not open"),
    "ARBUSD": ("loops_dialogs", "the page keeps opening dialogs"),
    "XLMUSD": ("breeds_frames", "the page floods"),
    "FTMUSD": ("hoards_memory", "the page's renderer took "),
}
HARMLESS = {  # what stays live: nothing comes of it
    "ICPUSD": "closes_itself",
    "SANDUSD": "huge_price",
    "MANAUSD": "huge_document",
    "AXSUSD": "opens_windows",
    "THETAUSD": "leaves_by_refresh",
    "EOSUSD": "names_itself_badly",
    "XTZUSD": "sets_traps",
}
AT_ONCE = 3  # hostile pages: more only wait for the processor
FLOODS = {"BCHUSD", "TRXUSD", "SUIUSD"}  # one of them at a time: together they keep a slow machine busy for minutes
ALONE = {"ARBUSD", "XLMUSD", "FTMUSD"}  # beside the honest: each keeps their renderer from all else
STARTING_S, CUT_OFF_LIMIT_S = 60.0, 300.0  # on a slow machine
PATIENCE = replace(
    LESS_PATIENT,
    answer=10.0,
    first_price=6.0,
    first_price_in_all=12.0,
    frozen=6.0,
    ping_limit=20.0,
    heap_excess=60.0,
    event_burst=300.0,
    disturbance_burst=4.0,
)


@dataclass
class Attacked:
    """What was told and counted while all were at it, and how the scraper's thread bore it."""

    watched: Watched
    quotes: list[Quote]
    counters: Counter[str]
    live: set[str]
    lateness_s: float  # of its tick, at worst
    grown_mb: float
    facts: dict[str, Any]  # of the page that sets traps


FACTS = """async () => ({
  permission: await window.permission, place: await window.place,
  workers: [typeof navigator.serviceWorker, typeof window.ServiceWorkerContainer],
  inFrame: (() => {
    const frame = document.body.appendChild(document.createElement("iframe"));
    return [typeof frame.contentWindow.navigator.serviceWorker, typeof frame.contentWindow.plutoProbe];
  })(),
})"""


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator("--weight", "0", "--heartbeat", "1") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def attacked(simulator: Simulator) -> Iterator[Attacked]:
    for ticker, (fault, _) in CUT_OFF.items():
        simulator.fault(ticker, fault)
    for ticker, fault in HARMLESS.items():
        simulator.fault(ticker, fault)
    with scraping(simulator.url, PATIENCE, page_max_heap=30.0) as watched, watched.tracking(*HONEST):
        yield attack(watched)


def attack(watched: Watched) -> Attacked:
    """The hostile come a few at a time, then the harmless."""
    process, latenesses = psutil.Process(), [0.0]
    watched.wait_until_live(*HONEST, timeout=STARTING_S)
    before = process.memory_info().rss
    wait_until_cut_off(watched, latenesses)
    with watched.tracking(*HARMLESS):
        watched.wait_until_live(*HONEST, *HARMLESS, timeout=60)
        return Attacked(
            watched,
            list(watched.quotes),
            watched.counters.copy(),
            live_of(watched),
            max(latenesses),
            (process.memory_info().rss - before) / 1e6,
            watched.run_in_page("XTZUSD", FACTS),
        )


def wait_until_cut_off(watched: Watched, latenesses: list[float]) -> None:
    """Each hostile ticker is tracked until it was cut off; then the next one comes."""
    waiting, tracked, read, cut_off_at = [*CUT_OFF], set[str](), len(watched.quotes), 0.0

    def is_over() -> bool:
        nonlocal read, cut_off_at
        latenesses.append(time.monotonic() - watched.scraper.last_tick)
        for quote in watched.quotes[read:]:
            read += 1
            if (
                quote.ticker in tracked
                and quote.state is State.ERROR
                and CUT_OFF[quote.ticker][1] in (quote.reason or "")
            ):
                tracked.remove(quote.ticker)
                watched.scraper.remove(Ticker(quote.ticker))
                cut_off_at = time.monotonic() if quote.ticker in ALONE else cut_off_at
        if not have_spoken_since(watched, cut_off_at):
            return False
        while (ticker := next((ticker for ticker in waiting if may_come(ticker, tracked)), None)) is not None:
            waiting.remove(ticker)
            tracked.add(ticker)
            watched.scraper.add(Ticker(ticker))
        return not tracked and live_of(watched) >= {*HONEST}

    try:
        wait_until(is_over, CUT_OFF_LIMIT_S)
    except AssertionError:
        now = [watched.now.get(ticker) for ticker in tracked]
        raise AssertionError(f"{tracked}, {waiting} are not cut off: {now}") from None


def may_come(ticker: str, tracked: set[str]) -> bool:
    """Whether this hostile page may come beside the other ones that are there."""
    if {ticker, *tracked} & ALONE:
        return not tracked
    return len(tracked) < AT_ONCE and not (ticker in FLOODS and tracked & FLOODS)


def have_spoken_since(watched: Watched, moment: float) -> bool:
    """Whether the pages of the honest have told anything after that monotonic time."""
    tabs = [watched.session.tabs.get(Ticker(ticker)) for ticker in HONEST]
    return all(tab is not None and tab.heard_at > moment for tab in tabs)


def live_of(watched: Watched) -> set[str]:
    quotes = watched.now.copy()  # the scraper's thread adds some meanwhile
    return {ticker for ticker, quote in quotes.items() if quote.as_of(steady_ms()).state is State.LIVE}


@pytest.mark.timeout(480)  # for the first, that has them all
@pytest.mark.parametrize("ticker", CUT_OFF, ids=[fault for fault, _ in CUT_OFF.values()])
def test_a_hostile_page_is_cut_off_and_says_why(attacked: Attacked, ticker: str) -> None:
    reason = CUT_OFF[ticker][1]
    quote = next(quote for quote in attacked.quotes if quote.ticker == ticker and reason in (quote.reason or ""))
    assert quote.state is State.ERROR
    assert quote.next_try_at is not None
    assert not quote.is_current


@pytest.mark.parametrize("ticker", [*HONEST, *HARMLESS])
def test_who_does_no_harm_is_live_beside_them(attacked: Attacked, ticker: str) -> None:
    assert ticker in attacked.live


def test_the_scraper_stays_responsive_and_small(attacked: Attacked) -> None:
    assert attacked.lateness_s < 5
    assert attacked.grown_mb < 200
    assert attacked.counters["browser_starts"] == 1, "no page took the browser with it"


def test_a_page_speaks_for_its_own_symbol_only(attacked: Attacked) -> None:
    assert attacked.counters["messages_malformed"] > 0
    assert {quote.price_text for quote in attacked.quotes if quote.ticker == "ETHUSD"}.isdisjoint({"1"})
    assert State.LIVE not in {quote.state for quote in attacked.quotes if quote.ticker == "VETUSD"}


def test_no_text_of_a_page_is_told_as_it_came(attacked: Attacked) -> None:
    texts = [text for quote in attacked.quotes for text in (quote.description, quote.reason, quote.currency) if text]
    assert all(text.isprintable() and len(text) <= 200 for text in texts)
    descriptions = {quote.description for quote in attacked.quotes if quote.ticker == "EOSUSD"}
    assert any((text or "").startswith("evilname xxx") for text in descriptions)


def test_a_page_gets_nothing_it_asks_for(attacked: Attacked) -> None:
    assert attacked.facts == {
        "permission": "denied",
        "place": "refused",
        "workers": ["undefined", "undefined"],
        "inFrame": ["undefined", "undefined"],
    }
    assert attacked.counters["downloads_refused"] > 0
    assert attacked.counters["popups_refused"] == 0, "none was opened: nobody clicked"


def is_apart_until_it_is_renewed(watched: Watched) -> None:
    with watched.tracking("ADAUSD", "DOTUSD"):
        watched.wait_until_live("ADAUSD", "DOTUSD")
        group = watched.group("ADAUSD")
        assert watched.group("DOTUSD") is group
        watched.run_in_page("DOTUSD", "() => { setTimeout(() => { for (let i = 0; i < 2_000; i++) console.log(i) }) }")
        watched.wait_for("DOTUSD", State.ERROR, reason="the page floods")
        watched.wait_until_live("ADAUSD", "DOTUSD")
        assert watched.group("ADAUSD") is group
        assert watched.group("DOTUSD") is not group


def is_opened_again(watched: Watched) -> None:
    with watched.tracking("LTCUSD"):
        watched.wait_until_live("LTCUSD")
        page = watched.tab("LTCUSD").page
        assert page is not None
        watched.session.loop.call(page.close)
        watched.wait_for("LTCUSD", State.ERROR, reason="the page closed itself")
        watched.wait_until_live("LTCUSD")


Story = Callable[[Watched], None]


@pytest.fixture(scope="module")
def recoveries(attacked: Attacked) -> dict[Story, Future[None]]:
    """Both are told at the same time: they wait more than they compute."""
    wait_until(lambda: only_the_honest_have_pages(attacked.watched), what="the harmless and their renderer have gone")
    with ThreadPoolExecutor() as pool:
        return {
            story: pool.submit(story, attacked.watched) for story in (is_apart_until_it_is_renewed, is_opened_again)
        }


def only_the_honest_have_pages(watched: Watched) -> bool:
    groups = [[tab.ticker for tab in [*group.tabs]] for group in [*watched.session.groups.all]]
    return all(groups) and {ticker for group in groups for ticker in group} == {*HONEST}


def test_a_ticker_whose_page_was_cut_off_is_apart_until_it_is_renewed(recoveries: dict[Story, Future[None]]) -> None:
    recoveries[is_apart_until_it_is_renewed].result()


def test_a_page_that_is_closed_is_opened_again(recoveries: dict[Story, Future[None]]) -> None:
    recoveries[is_opened_again].result()


# --- the sandbox ------------------------------------------------------------------------------------------------------

NOBODY = 65534
# Nobody may read everything here: Python itself may be in the home of root.
AS_NOBODY = (
    f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=+dac_read_search "
    "--ambient-caps=+dac_read_search"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of nobody's own."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, with setpriv, can be somebody else")
    if subprocess.run([*AS_NOBODY.split(), "unshare", "--user", "true"], capture_output=True).returncode != 0:
        pytest.skip("there are no user namespaces here, without which Chromium has no sandbox")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def test_who_is_not_root_has_the_sandbox(simulator: Simulator, home: Path) -> None:
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD")
    with running_pluto(*options, starter=AS_NOBODY, HOME=str(home), TMPDIR=str(home)) as pluto:
        pluto.wait_for("BTCUSD", "live", 40)
        wait_until(lambda: are_confined(pluto), what="a renderer that has just begun is, too")
        assert not any("--no-sandbox" in command for command in commands(descendants(pluto.process.pid)).values())


def are_confined(pluto: Pluto) -> bool:
    """Whether what its renderers may ask the kernel for is filtered, in a user namespace of their own."""
    ours, told = os.readlink("/proc/self/ns/user"), []
    for process, command in commands(descendants(pluto.process.pid)).items():
        if "--type=renderer" in command:
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                told.append("Seccomp:\t2" in status and os.readlink(f"/proc/{process.pid}/ns/user") != ours)
    return bool(told) and all(told)
