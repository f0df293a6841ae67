"""Whether Pluto's scraper grows: its memory, handles and latency, once a minute.

    python bench/soak.py --minutes 20 [--tickers 20] [--rate 2] [--json FILE]
    python bench/soak.py --pace real --minutes 60 [--log FILE]    checks instead whether Pluto tells the truth: watch.py

Growth is from the median of the second quarter to that of the last; in the first quarter caches fill. PSS depends on
other Chromiums on the machine; its anonymous part (written memory) doesn't. Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import watch


def load_bench() -> Any:
    """bench/scraper.py, by a name that isn't that of Pluto's scraper."""
    spec = importlib.util.spec_from_file_location("bench_scraper", Path(__file__).with_name("scraper.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load_bench()
COLUMNS = ("minute", "pss_mb", "anon_mb", "handles", "processes", "p50_ms", "p99_ms")


def handles(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.num_fds()
        except psutil.Error:
            continue
    return total


def look(contender: Any, http: Any, minute: float, since: float) -> dict[str, Any]:
    parts = contender.parts()
    every = [process for processes in parts.values() for process in processes]
    row = {f"{part}_anon_mb": bench.memory_mb(processes, "Pss_Anon") for part, processes in parts.items()}
    total, own = bench.memory_mb(every), sum(row.values())
    latency = bench.latencies(contender.ask("receipts")["receipts"], http, since)
    return {
        "minute": minute,
        "pss_mb": total,
        "anon_mb": own,
        "handles": handles(every),
        "processes": len(every),
        **row,
        **latency,
    }


def growth(rows: list[dict[str, Any]], name: str) -> float:
    """In percent."""
    values = [row[name] for row in rows if row[name] is not None]
    quarter = max(1, len(values) // 4)
    before, after = statistics.median(values[quarter : 2 * quarter] or values), statistics.median(values[-quarter:])
    return float(100 * (after / before - 1))


def soak(minutes: float, tickers: int, rate: float) -> list[dict[str, Any]]:
    rows = []
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    with bench.simulator() as (url, http):
        for coin in bench.COINS[:tickers]:
            http.post(f"/rate/{coin}USD/{rate}").raise_for_status()
        contender = bench.Contender("pluto", url, tickers)
        try:
            time.sleep(bench.SETTLE_S)
            started = time.monotonic()
            while (passed := (time.monotonic() - started) / 60) < minutes:
                since = time.time() * 1000
                time.sleep(min(60.0, 60 * (minutes - passed)))
                rows.append(look(contender, http, round((time.monotonic() - started) / 60, 1), since))
                print("| " + " | ".join(bench.cell(rows[-1][name]) for name in COLUMNS) + " |", flush=True)
        finally:
            contender.end()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="default: 20")
    parser.add_argument("--tickers", type=int, default=20, help="default: 20")
    parser.add_argument("--rate", type=float, default=2.0, help="changes a second of each price (default: 2)")
    parser.add_argument("--json", help="file to write the results to")
    parser.add_argument("--pace", choices=("lively", "real"), default="lively", help="real: what watch.py describes")
    parser.add_argument("--weight", default="2000000", help="with --pace real: the simulator's option --weight")
    parser.add_argument("--log", default="", help="with --pace real: file for Pluto's log")
    options = parser.parse_args()
    if options.pace == "real":
        watch.run(options.minutes, options.weight, options.log)
        return
    rows = soak(options.minutes, options.tickers, options.rate)
    grown = {name: growth(rows, name) for name in ("pss_mb", "anon_mb", "handles", "p50_ms")}
    for name, percent in grown.items():
        print(f"{name}: {percent:+.1f} %")
    if options.json:
        Path(options.json).write_text(json.dumps({"rows": rows, "growth": grown}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
