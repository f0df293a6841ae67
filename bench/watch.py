"""Whether Pluto tells the truth, at every moment, while known troubles strike: `soak.py --pace real` runs it.

There are 20 tickers at the simulator's real pace. Nothing happens to most; the troubles of PLAN strike the others at
known times, again and again. One SSE client notes all that it is told. Pluto is right at a moment if the ticker's
troubles allow the state, and if a price shown as live is the simulator's. For a while after a trouble strikes or ends,
Pluto may not know of it yet: then every state is right, but a wrong price only for as long as a proof lasts. Prints
what was wrong, and for each state the fraction of time in which Pluto was right.

It runs real programs. One thread reads the stream; the main thread strikes, and asks the simulator what was true.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from running import Pluto, Simulator, descendants, running_pluto, running_simulator, wait_until

from broadcast import FLUSH_INTERVAL_S, TICK_S
from tradingview.proof import MAX_SOCKET_PROOF_MS

ALL = ""  # as a ticker: all tickers
WELL = ["BTCUSD", "ETHUSD", "ADAUSD", "XRPUSD", "DOGEUSD", "BTCUSDT", "SHIBUSD", "BNBUSD", "BCHUSD"]
FROZEN = "DOTUSD"  # its page gets an endless loop, which also blocks the pages of its group
FOR_EVER = {"NEARUSD": "socket_expires"}  # faults that last, and that no client may notice
PAINTED_S = 2.0  # in which a price reaches a client even on a busy machine
PROVEN_S = MAX_SOCKET_PROOF_MS / 1000 + TICK_S + FLUSH_INTERVAL_S + PAINTED_S
OPENING_S = 240.0
MINUTE = 60.0
NOT_LIVE = frozenset({"stale", "error", "starting", "snapshot", "blocked"})
RENDERER = "--type=renderer"
STOPPED = "renderer stopped"  # no fault of the simulator: a signal stops the process


@dataclass(frozen=True)
class Trouble:
    """What strikes a ticker, again and again.

    From `known` s after it struck until it ends, only `states` are right; from `over` s after its end, only live is.
    """

    ticker: str
    faults: tuple[str, ...]
    first: float  # minutes after the watch began
    every: float  # minutes
    lasts: float = 0.0  # seconds; 0: it strikes once
    known: float = PROVEN_S
    over: float = 0.0
    states: frozenset[str] = NOT_LIVE

    def strikes(self, minutes: float) -> Iterator[float]:
        """When it strikes, in seconds after the watch began. Leaves out those whose end the watch would miss."""
        at = self.first * MINUTE
        while at + self.lasts + self.over < minutes * MINUTE:
            yield at
            at += self.every * MINUTE


PLAN = [
    Trouble("LTCUSD", ("socket_silent",), 1, 10, 150, over=150),
    Trouble("TRXUSD", ("socket_closed",), 2, 10, 90, over=200),
    Trouble("LINKUSD", ("session_deleted",), 3, 10, over=PROVEN_S + 60),
    Trouble("XLMUSD", ("socket_dropped",), 3.5, 5),
    Trouble("XMRUSD", ("page_reloads",), 4, 5, over=10),
    Trouble("ETHUSDT", ("price_element_replaced",), 4.5, 5),
    Trouble("UNIUSD", ("bot_wall", "page_reloads"), 5, 10, 60, over=200, states=frozenset({"blocked"})),
    Trouble("SOLUSD", ("halted",), 6, 10, 120, known=5, over=30, states=frozenset({"closed"})),
    Trouble("AVAXUSD", ("delayed",), 7, 10, 60, known=5, over=5, states=frozenset({"stale"})),
    Trouble(ALL, ("page_frozen",), 8, 20, over=70),
    Trouble(ALL, (STOPPED,), 18, 20, 20, known=20, over=70),
]
TICKERS = [*WELL, FROZEN, *FOR_EVER, *dict.fromkeys(trouble.ticker for trouble in PLAN if trouble.ticker)]


@dataclass(frozen=True)
class Episode:
    """A trouble that has struck. Times are in seconds since the epoch, `known` is a span."""

    ticker: str
    faults: tuple[str, ...]
    begun: float
    ended: float
    known: float
    over: float
    states: frozenset[str]

    def concerns(self, ticker: str) -> bool:
        return self.ticker in (ticker, ALL)

    def allows(self, state: str, at: float) -> bool | None:
        """Whether the state is right at that moment; None if the trouble has no effect then."""
        if self.begun + self.known <= at < self.ended:
            return state in self.states
        return True if self.begun <= at < self.over else None


@dataclass(frozen=True)
class Told:
    at: float
    state: str
    price: str
    reason: str


@dataclass(frozen=True)
class Stretch:
    """A time in which the client was shown one state and price."""

    ticker: str
    begun: float
    ended: float
    told: Told
    complaint: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


# --- judging: pure ----------------------------------------------------------------------------------------------------


def judge(
    ticker: str,
    told: Sequence[Told],
    truth: Sequence[tuple[float, str]],
    episodes: Iterable[Episode],
    begun: float,
    ended: float,
) -> Iterator[Stretch]:
    """The whole watch, cut where anything changes. A stretch that was wrong has a complaint."""
    own = [episode for episode in episodes if episode.concerns(ticker)]
    edges = [edge for one in own for edge in (one.begun, one.begun + one.known, one.ended, one.over)]
    for one, after in zip(told, [*(later.at for later in told[1:]), ended], strict=True):
        start, end = max(one.at, begun), min(after, ended)
        if end <= start:
            continue
        cuts = sorted({start, end, *(edge for edge in edges if start < edge < end)})
        for start, end in pairwise(cuts):
            yield from judge_price(Stretch(ticker, start, end, one, complain(one.state, start, own)), truth, own)


def complain(state: str, at: float, own: Sequence[Episode]) -> str:
    verdicts = [verdict for one in own if (verdict := one.allows(state, at)) is not None]
    if all(verdicts) and (verdicts or state == "live"):
        return ""
    return f"{state} without a cause" if state != "live" else "live in trouble"


def judge_price(stretch: Stretch, truth: Sequence[tuple[float, str]], own: Sequence[Episode]) -> Iterator[Stretch]:
    """Cuts a live stretch in two where its price ceased to be true for too long; the second part is wrong."""
    if stretch.told.state != "live" or stretch.complaint:
        yield stretch
        return
    is_calm = all(one.allows("live", stretch.begun) is None for one in own)
    last = last_true(stretch.told.price, truth, stretch.ended)
    until = last + (PAINTED_S if is_calm else PROVEN_S)
    if until >= stretch.ended:
        yield stretch
        return
    middle = max(stretch.begun, until)
    if middle > stretch.begun:
        yield Stretch(stretch.ticker, stretch.begun, middle, stretch.told)
    yield Stretch(stretch.ticker, middle, stretch.ended, stretch.told, "live with a price that was no longer true")


def last_true(price: str, truth: Sequence[tuple[float, str]], until: float) -> float:
    """The last moment before `until` at which this was the true price; 0: never."""
    after = bisect_left(truth, (until, ""))
    for index in range(after - 1, -1, -1):
        if truth[index][1] == price:
            return until if index == after - 1 else truth[index + 1][0]
    return 0.0


# --- watching ---------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """All that the client was told, all true prices, and the troubles that struck."""

    pluto: Pluto
    simulator: Simulator
    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    truth: dict[str, dict[float, str]] = field(default_factory=lambda: defaultdict(dict))
    episodes: list[Episode] = field(default_factory=list)
    has_ended: bool = False

    def read_stream(self) -> None:
        with self.pluto.stream() as events:
            for event in events:
                if self.has_ended:
                    return
                for update in event.json().get("updates", ()) if event.event in ("message", "status") else ():
                    self.take(update)
        raise RuntimeError("the stream has ended")

    def take(self, update: dict[str, Any]) -> None:
        told = Told(time.time(), update["state"], update.get("priceText", ""), update.get("reason", ""))
        before = self.told[update["ticker"]][-1:]
        if not before or (told.state, told.price, told.reason) != (before[0].state, before[0].price, before[0].reason):
            self.told[update["ticker"]].append(told)

    def read_truth(self) -> None:
        """Copies the simulator's prices before it forgets them."""
        for ticker in TICKERS:
            for change in self.simulator.truth(ticker):
                self.truth[ticker][change["time"] / 1000] = change["price"]

    def strike(self, trouble: Trouble) -> None:
        begun = time.time()
        say(f"strikes: {trouble.ticker or 'all'} {' '.join(trouble.faults)}")
        if trouble.faults == (STOPPED,):
            threading.Thread(target=stop_renderer, args=[self.pluto, trouble.lasts], daemon=True).start()
        for fault in trouble.faults if trouble.faults != (STOPPED,) else ():
            self.simulator.fault(trouble.ticker or FROZEN, fault)
        if trouble.lasts and trouble.ticker:
            threading.Timer(trouble.lasts, self.simulator.clear, [trouble.ticker]).start()
        ended = begun + trouble.lasts
        self.episodes.append(
            Episode(trouble.ticker, trouble.faults, begun, ended, trouble.known, ended + trouble.over, trouble.states)
        )

    def stretches(self, begun: float, ended: float) -> Iterator[Stretch]:
        for ticker in TICKERS:
            truth = sorted(self.truth[ticker].items())
            yield from judge(ticker, self.told[ticker], truth, self.episodes, begun, ended)


def stop_renderer(pluto: Pluto, seconds: float) -> None:
    """Stops the largest renderer of Pluto's browser for this long."""
    renderers = [process for process in descendants(pluto.process.pid) if RENDERER in " ".join(process.cmdline())]
    victim = max(renderers, key=lambda process: process.memory_info().rss)
    victim.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    try:
        victim.send_signal(signal.SIGCONT)
    except psutil.Error:
        say("the renderer that was stopped is gone")


def say(text: str) -> None:
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    print(f"{clock(time.time())} load {load} {text}", flush=True)


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))


def watch_over(minutes: float, weight: str, log: str) -> list[Stretch]:
    with (
        running_simulator("--pace", "real", "--weight", weight) as simulator,
        running_pluto("--source-url", simulator.url, log=log) as pluto,
    ):
        watch = Watch(pluto, simulator)
        reader = threading.Thread(target=watch.read_stream, daemon=True)
        reader.start()
        open_all(watch)
        begun = time.time()
        run_plan(watch, reader, begun, minutes)
        ended = time.time()
        watch.has_ended = True
        reader.join(10)
        watch.read_truth()
    return list(watch.stretches(begun, ended))


def open_all(watch: Watch) -> None:
    began = time.monotonic()
    for ticker, fault in FOR_EVER.items():
        watch.simulator.fault(ticker, fault)
    for ticker in TICKERS:
        watch.pluto.add(ticker).raise_for_status()
    live = lambda: all(watch.told[ticker] and watch.told[ticker][-1].state == "live" for ticker in TICKERS)  # noqa: E731
    wait_until(live, OPENING_S, what="all are live")
    say(f"all {len(TICKERS)} are live after {time.monotonic() - began:.1f} s")


def run_plan(watch: Watch, reader: threading.Thread, begun: float, minutes: float) -> None:
    strikes = sorted(((at, trouble) for trouble in PLAN for at in trouble.strikes(minutes)), key=lambda one: one[0])
    minute = 0
    while (passed := time.time() - begun) < minutes * MINUTE:
        if not reader.is_alive():
            raise RuntimeError("the stream has ended")
        while strikes and strikes[0][0] <= passed:
            watch.strike(strikes.pop(0)[1])
        if passed >= minute * MINUTE:
            minute += 1
            watch.read_truth()
            say(f"minute {minute - 1}: {count_states(watch)}")
        time.sleep(0.1)


def count_states(watch: Watch) -> str:
    others = {ticker: told[-1] for ticker, told in sorted(watch.told.items()) if told[-1].state != "live"}
    words = [f"{ticker} {one.state} ({one.reason})" for ticker, one in others.items()]
    return f"{len(watch.told) - len(others)} live; {'; '.join(words) or 'no other'}"


# --- the report -------------------------------------------------------------------------------------------------------


def report(stretches: Sequence[Stretch]) -> None:
    wrong = [one for one in stretches if one.complaint]
    for one in sorted(wrong, key=lambda stretch: stretch.begun):
        print(
            f"{one.ticker} {clock(one.begun)} {one.seconds:.2f} s: {one.complaint} {one.told.price} {one.told.reason}"
        )
    print(f"\n{len(wrong)} stretches wrong\n\n| state | ticker seconds | right |\n|---|---|---|")
    for state in sorted({one.told.state for one in stretches}):
        print_right(state, [one for one in stretches if one.told.state == state])
    print_right("all", stretches)


def print_right(name: str, stretches: Sequence[Stretch]) -> None:
    seconds = sum(one.seconds for one in stretches)
    right = sum(one.seconds for one in stretches if not one.complaint)
    print(f"| {name} | {seconds:.0f} | {100 * right / seconds:.3f} % |")


def run(minutes: float, weight: str, log: str) -> None:
    print(f"{os.cpu_count()} cores, load {Path('/proc/loadavg').read_text(encoding='ascii').strip()}", flush=True)
    report(watch_over(minutes, weight, log))
