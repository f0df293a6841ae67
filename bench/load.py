"""Load for minutes: thousands of clients of all kinds, and whether any of them misses anything.

    .venv/bin/python bench/load.py                                  5,000 clients for 10 minutes
    .venv/bin/python bench/load.py --minutes 2 --clients 1000
    .venv/bin/python bench/load.py --quick                          400 clients for 20 s, to check that it works

The simulator, Pluto and its browser run as in real use: 20 tickers that change twice a second each. The clients are
SSE, WebSocket, Connect binary and Connect JSON, a quarter each, in one process (tests/crowd.py). 5 % of them read only
8 KB a second, less than Pluto sends; another 5 % disconnect about every ten seconds and resume with their last id. All
share the machine's cores; nothing is pinned, so the clients take time from Pluto.

- p50, p99: from when the page showed a price until a client that isn't slow has read it. If a client reads several
  batches at once, their oldest price counts.
- lost: at the end the prices stop, the slow clients read like the others, and each client's own table is compared with
  the server's. A client whose table still differs after ten seconds has lost something.
- cut off: clients whose connection the server closed or refused. It may cut off slow ones; they reconnect.
- wrong: prices shown as live that, by the simulator's /truth, were not true (tests/truth.py).
- memory (PSS) and CPU: of Pluto's own process, and of its browser's processes together, every five seconds.

Prints tables, and writes results/load.json and, if matplotlib is installed (requirements.txt), results/load.png. Linux
only, loopback only. Requires 10,500 open files a process.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crowd import Crowd, Pace, crowd_of
from drills import RATE, TICKERS
from fanout import RESULTS, keep, markdown, raise_open_files, warn_of_company
from running import Pluto, Simulator, descendants, running_pluto, running_simulator, wait_until
from transports import TRANSPORTS
from truth import Change, wrongs

SLOW, CHURNING = 0.05, 0.05  # parts of all clients
SLOW_PACE = Pace(4096, 0.5, 64 * 1024)
CHURN_S = 10.0
WAVE = 200  # clients that connect at once
LIVE_LIMIT_S = 60.0
WAVE_LIMIT_S = 30.0
SETTLE_S = 5.0
SAMPLE_S = 5.0
AGREE_LIMIT_S = 10.0
QUICK_CLIENTS, QUICK_MINUTES = 400, 1 / 3
COLOURS = ("#0b7a75", "#d1495b", "#edae49", "#30638e")

Histogram = Sequence[int]
Histograms = dict[str, "array[int]"]


@dataclass(frozen=True)
class Sample:
    """What was delivered since the sample before, and what Pluto's own process and its browser take at this moment.

    Delays are in ms, memory is PSS in MB, CPU in cores.
    """

    second: float
    receipts: int
    p50_ms: float
    p99_ms: float
    pluto_mb: float
    browser_mb: float
    descriptors: int
    pluto_cpu: float
    browser_cpu: float
    lagging: int


# --- measuring --------------------------------------------------------------------------------------------------------


class Watch:
    """Takes samples of Pluto and the crowd; each is about the time since the sample before."""

    def __init__(self, pluto: Pluto, crowd: Crowd) -> None:
        self._pluto, self._crowd = pluto, crowd
        self._process = psutil.Process(pluto.process.pid)
        self._begun = self._looked_at = time.monotonic()
        self._delays = copied(crowd.delays)
        self._cpu = self._cpu_s()

    def look(self) -> Sample:
        now, cpu, delays = time.monotonic(), self._cpu_s(), copied(self._crowd.delays)
        passed, self._looked_at = now - self._looked_at, now
        recent = [sum(counts) for counts in zip(*delays.values(), strict=True)]
        before = [sum(counts) for counts in zip(*self._delays.values(), strict=True)]
        news = [count - old for count, old in zip(recent, before, strict=True)]
        pluto_cpu, browser_cpu = ((new - old) / passed for new, old in zip(cpu, self._cpu, strict=True))
        self._delays, self._cpu = delays, cpu
        server = self._pluto.http.get("/api/performance").raise_for_status().json()["server"]
        return Sample(
            round(now - self._begun, 1),
            sum(news),
            percentile(news, 0.50),
            percentile(news, 0.99),
            memory_mb([self._process]),
            memory_mb(descendants(self._process.pid)),
            self._process.num_fds(),
            pluto_cpu,
            browser_cpu,
            server["lagging"],
        )

    def _cpu_s(self) -> tuple[float, float]:
        return cpu_s([self._process]), cpu_s(descendants(self._process.pid))


def copied(delays: Histograms) -> Histograms:
    return {name: array("q", counts) for name, counts in delays.items()}


def memory_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def percentile(histogram: Histogram, part: float) -> float:
    """The ms within which this part (0 to 1) of all came; NaN if none came."""
    left = part * sum(histogram)
    for ms, count in enumerate(histogram):
        left -= count
        if left <= 0 < count:
            return float(ms)
    return float("nan")


def gather(crowd: Crowd, clients: int) -> None:
    """Connects the clients in waves, so that none has to wait until the server accepts it."""
    slow, churning = round(SLOW * clients), round(CHURNING * clients)
    crowd.join(slow, pace=SLOW_PACE)
    crowd.join(churning, churn_s=CHURN_S)
    for start in range(slow + churning, clients, WAVE):
        crowd.join(min(WAVE, clients - start))
        wait_until(lambda: crowd.absent <= churning, WAVE_LIMIT_S, what="a wave of clients was answered")


def measure(clients: int, seconds: float) -> dict[str, Any]:
    with (
        running_simulator("--rate", str(RATE)) as simulator,
        running_pluto("--source-url", simulator.url, "--tickers", ",".join(TICKERS), "--log-level", "warning") as pluto,
        crowd_of(int(pluto.url.rpartition(":")[2])) as crowd,
    ):
        wait_until(lambda: all_live(pluto), LIVE_LIMIT_S, what="every ticker is live")
        gather(crowd, clients)
        time.sleep(SETTLE_S)
        before, watch, samples = copied(crowd.delays), Watch(pluto, crowd), []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(SAMPLE_S, max(0.1, deadline - time.monotonic())))
            samples.append(watch.look())
            print(progress(samples[-1]), file=sys.stderr, flush=True)
        return {
            "clients": clients,
            "seconds": seconds,
            "delivery": delivery(before, crowd.delays),
            "samples": [asdict(sample) for sample in samples],
            **verdict(simulator, pluto, crowd),
        }


def all_live(pluto: Pluto) -> bool:
    prices = pluto.http.get("/api/tickers").raise_for_status().json()["prices"]
    return all(price["state"] == "live" for price in prices)


def delivery(before: Histograms, after: Histograms) -> dict[str, dict[str, float]]:
    rows = {}
    for transport in TRANSPORTS:
        counts = [new - old for new, old in zip(after[transport.name], before[transport.name], strict=True)]
        figures = {f"p{part}_ms": percentile(counts, part / 100) for part in (50, 99, 100)}
        rows[transport.name] = {"receipts": sum(counts), **figures}
    return rows


def verdict(simulator: Simulator, pluto: Pluto, crowd: Crowd) -> dict[str, Any]:
    """Stops the prices, then counts the clients whose table differs from the server's, and all wrong prices."""
    for ticker in TICKERS:
        simulator.rate(ticker, 0)
    crowd.hurry()
    stopped = time.monotonic()
    while (lost := losers(pluto, crowd)) and time.monotonic() - stopped < AGREE_LIMIT_S:
        time.sleep(0.1)
    agreed_s = time.monotonic() - stopped
    truth = {ticker: [Change(**change) for change in simulator.truth(ticker)] for ticker in TICKERS}
    wrong = list(wrongs(crowd.sightings(), truth))
    return {"lost": lost, "agreed_s": agreed_s, "wrong": wrong[:20], "counters": dict(crowd.counters)}


def losers(pluto: Pluto, crowd: Crowd) -> int:
    prices = pluto.http.get("/api/tickers").raise_for_status().json()["prices"]
    table = {price["ticker"]: price["sequence"] for price in prices}
    return sum(
        not client.is_told or {ticker: shown.sequence for ticker, shown in client.view.table.items()} != table
        for client in crowd.clients
    )


# --- telling ----------------------------------------------------------------------------------------------------------


def progress(sample: Sample) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in asdict(sample).items())


def report(results: dict[str, Any]) -> str:
    samples, counters = results["samples"], results["counters"]
    first, last = samples[0], samples[-1]
    rows = [
        [name, f"{row['receipts']:,}", *(f"{row[f'p{part}_ms']:.0f}" for part in (50, 99, 100))]
        for name, row in results["delivery"].items()
    ]
    growth = [
        [
            title,
            f"{first[name]:.{digits}f}",
            f"{max(it[name] for it in samples):.{digits}f}",
            f"{last[name]:.{digits}f}",
        ]
        for title, name, digits in ROWS
    ]
    cut_off = counters.get("lost", 0) + counters.get("refused", 0)
    slow = counters.get("lost, slow", 0) + counters.get("refused, slow", 0)
    return "\n\n".join(
        (
            f"{results['clients']:,} clients for {results['seconds'] / 60:.1f} minutes, {len(TICKERS)} tickers, "
            f"{RATE:g} changes a second each; ms from the page to a client",
            markdown(("transport", "batches read", "p50", "p99", "max"), rows),
            markdown(("", "first", "most", "last"), growth),
            f"lost: {results['lost']} clients; all agreed after {results['agreed_s']:.1f} s · wrong prices: "
            f"{len(results['wrong'])} · cut off: {cut_off}, of the slow {slow} · hung up and resumed: "
            f"{counters.get('churned', 0):,}",
        )
    )


ROWS = (
    ("PSS of Pluto, MB", "pluto_mb", 0),
    ("PSS of its browser, MB", "browser_mb", 0),
    ("descriptors of Pluto", "descriptors", 0),
    ("CPU of Pluto, cores", "pluto_cpu", 2),
    ("CPU of its browser, cores", "browser_cpu", 2),
    ("clients that lag", "lagging", 0),
)


def draw(results: dict[str, Any], path: Path) -> None:
    pyplot = import_module("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    samples = results["samples"]
    minutes = [sample["second"] / 60 for sample in samples]
    figure, all_axes = pyplot.subplots(1, 4, figsize=(18, 4), layout="constrained")
    for axes, title, names in zip(all_axes, PLOTS, PLOTS.values(), strict=True):
        for (name, label), colour in zip(names.items(), COLOURS, strict=False):
            axes.plot(minutes, [sample[name] for sample in samples], color=colour, label=label)
        axes.set_title(title, loc="left")
        axes.set_xlabel("minutes")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


PLOTS = {
    "From the page to a client, ms": {"p50_ms": "p50", "p99_ms": "p99"},
    "PSS, MB": {"pluto_mb": "Pluto", "browser_mb": "its browser"},
    "CPU, cores": {"pluto_cpu": "Pluto", "browser_cpu": "its browser"},
    "Descriptors of Pluto": {"descriptors": "open", "lagging": "clients that lag"},
}


# --- the program ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    parser.add_argument("--clients", type=int, default=5_000, help="default: 5000")
    parser.add_argument("--quick", action="store_true", help="400 clients for 20 s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [bench/results]")
    arguments = parser.parse_args()
    raise_open_files()
    warn_of_company()
    clients, minutes = (QUICK_CLIENTS, QUICK_MINUTES) if arguments.quick else (arguments.clients, arguments.minutes)
    results = measure(clients, 60 * minutes)
    print(report(results))
    keep(arguments.out / "load.json", **results)
    if find_spec("matplotlib"):
        draw(results, arguments.out / "load.png")
    else:
        print("\nNo plot: matplotlib isn't installed (bench/requirements.txt).")


if __name__ == "__main__":
    main()
