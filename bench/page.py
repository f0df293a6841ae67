"""The page under full load: how much script a frame takes, and whether anything grows.

    .venv/bin/python bench/page.py               ten minutes
    .venv/bin/python bench/page.py --minutes 1   to check that it works
    .venv/bin/python bench/page.py --details     with one ticker's details open, and its chart of candles

A real Chromium has the page open. `page_server.py` (Pluto's own web layer, broadcaster and store) changes all of 50
tickers in each of 20 batches a second. Script time comes from the browser's own trace: the time that the page's thread
spends in functions, timers, animation frames and garbage collection, from one animation frame to the next. CPU time is
the work itself; time by the clock includes what other programs took of the cores meanwhile. DOM nodes and the
JavaScript heap are read after a garbage collection, every 20 s. Requires the tests' packages
(requirements-dev.txt). Prints two tables, and writes results/page.json. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from clients import percentile
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from tradingview.browser import find_browser

HERE = Path(__file__).parent
TICKERS = 50
RATE = 20  # batches a second
SLICE_S = 20.0  # of trace at a time: the browser keeps a trace in memory
WARM_UP_S = 5.0
TARGET_MS = 8.0  # of script a frame, at p99
CATEGORIES = ["devtools.timeline", "v8"]
SCRIPT = frozenset(
    {"FunctionCall", "FireAnimationFrame", "TimerFire", "EventDispatch", "EvaluateScript", "RunMicrotasks"}
    | {"MajorGC", "MinorGC", "V8.GCIncrementalMarking", "V8.GCIncrementalMarkingStart", "V8.GCFinalizeMC"}
)
RENDERING = frozenset({"UpdateLayoutTree", "Layout", "PrePaint", "Paint", "Layerize"})

Event = dict[str, Any]


@dataclass
class Frames:
    """What each frame took, in ms: script, in CPU time and by the clock; style, layout and paint, in CPU time."""

    cpu: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    rendering: list[float] = field(default_factory=list)

    def add(self, trace: bytes) -> None:
        events = _of_page(json.loads(trace)["traceEvents"])
        starts = sorted(event["ts"] for event in events if event["name"] == "FireAnimationFrame")
        script = list(_outermost(events, SCRIPT))
        rendering = list(_outermost(events, RENDERING))
        self.cpu += _per_frame(starts, script, "tdur")
        self.clock += _per_frame(starts, script, "dur")
        self.rendering += _per_frame(starts, rendering, "tdur")


def _of_page(events: list[Event]) -> list[Event]:
    """The events of the thread that runs the page's animation frames, oldest first."""
    threads = Counter((event["pid"], event["tid"]) for event in events if event["name"] == "FireAnimationFrame")
    page = threads.most_common(1)[0][0]
    return sorted((event for event in events if (event["pid"], event["tid"]) == page), key=lambda event: event["ts"])


def _outermost(events: list[Event], names: frozenset[str]) -> Iterator[Event]:
    """The events of these names that lie in no other of them, so that no time counts twice."""
    end = 0
    for event in events:
        if event["ph"] == "X" and event["name"] in names and event["ts"] >= end:
            end = event["ts"] + event["dur"]
            yield event


def _per_frame(starts: list[int], events: list[Event], duration: str) -> list[float]:
    """For each frame, the sum of these events' durations in ms, until the next frame starts."""
    sums = [0.0] * max(0, len(starts) - 1)
    frame = -1
    for event in events:
        while frame + 1 < len(starts) and event["ts"] >= starts[frame + 1]:
            frame += 1
        if 0 <= frame < len(sums):
            sums[frame] += event.get(duration, 0) / 1000
    return sums


# --- measuring --------------------------------------------------------------------------------------------------------


@contextmanager
def running_server() -> Iterator[str]:
    command = [sys.executable, str(HERE / "page_server.py"), "--tickers", str(TICKERS), "--rate", str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def counts(page: Page, session: CDPSession) -> dict[str, float]:
    """DOM nodes and heap of the page, after a garbage collection."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    elements = page.evaluate("document.querySelectorAll('*').length")
    return {"elements": elements, "nodes": metrics["Nodes"], "heap_kb": round(metrics["JSHeapUsedSize"] / 1024)}


def measure(browser: Browser, url: str, minutes: float, *, details: bool) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    page.locator("price-row[data-state=live]").nth(TICKERS - 1).wait_for()
    page.locator('spark-line[aria-label="Last 24 h"]').first.wait_for()
    if details:
        page.locator("price-row").first.click(position={"x": 4, "y": 4})
        page.locator("price-chart canvas").first.wait_for()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.evaluate("""() => {
        window.batches = 0;
        const source = new EventSource("/api/stream?tickers=COIN00USDT"); // to count; the page has a stream of its own
        source.onmessage = () => window.batches++;
    }""")
    page.wait_for_timeout(WARM_UP_S * 1000)
    frames, grown = Frames(), []
    began, batches = time.monotonic(), page.evaluate("batches")
    while time.monotonic() - began < minutes * 60:
        browser.start_tracing(page=page, categories=CATEGORIES)
        page.wait_for_timeout(SLICE_S * 1000)
        frames.add(browser.stop_tracing())
        grown.append({"minute": round((time.monotonic() - began) / 60, 2), **counts(page, session)})
    elapsed = time.monotonic() - began
    return {
        "minutes": round(elapsed / 60, 1),
        "batches_per_second": round((page.evaluate("batches") - batches) / elapsed, 1),
        "frames": len(frames.cpu),
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
        "browser": browser.version,
        "ms": {
            name: {
                "p50": round(percentile(sorted(values), 0.5), 2),
                "p99": round(percentile(sorted(values), 0.99), 2),
                "max": round(max(values), 2),
            }
            for name, values in vars(frames).items()
        },
        "grown": grown,
    }


# --- telling ----------------------------------------------------------------------------------------------------------

NAMES = {"cpu": "script, CPU", "clock": "script, by the clock", "rendering": "style, layout, paint, CPU"}


def table(results: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("a frame, ms", "p50", "p99", "max"), ("---",) * 4]
    rows += [(NAMES[name], *(f"{value:.2f}" for value in ms.values())) for name, ms in results["ms"].items()]
    rows += [("",) * 4, ("minute", "elements", "DOM nodes", "heap, KiB"), ("---",) * 4]
    shown = results["grown"][:: max(1, len(results["grown"]) // 6)]
    rows += [
        (f"{row['minute']:g}", f"{row['elements']:.0f}", f"{row['nodes']:.0f}", f"{row['heap_kb']:.0f}")
        for row in shown
    ]
    return "\n".join("| " + " | ".join(row) + " |" if any(row) else "" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="to measure for (default: 10)")
    parser.add_argument("--details", action="store_true", help="open one ticker's details, with its chart")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results [bench/results]")
    options = parser.parse_args()

    with running_server() as url, sync_playwright() as playwright:
        path = find_browser(os.environ.get("PLUTO_BROWSER"), playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        results = measure(browser, url, options.minutes, details=options.details)
        browser.close()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "page.json").write_text(json.dumps(results, indent=1) + "\n")
    print(
        f"{TICKERS} tickers, {results['batches_per_second']} batches/s, {results['frames']} frames "
        f"in {results['minutes']} min; load {results['load'][1]:.1f} on {results['cores']} cores"
    )
    print(table(results))
    sys.exit(results["ms"]["cpu"]["p99"] > TARGET_MS)


if __name__ == "__main__":
    main()
