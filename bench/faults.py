"""Faults under load: how long Pluto takes to recover from each, and whether clients are shown a wrong price meanwhile.

    .venv/bin/python bench/faults.py                      all long drills, about eight minutes
    .venv/bin/python bench/faults.py --only killed,hub    the drills whose name contains one of these words

The drills are in tests/drills.py: Pluto has 20 tickers that change twice a second each, and 200 clients of all
transports. No client may be shown a wrong price, or a price as live that isn't (tests/truth.py). Pluto has recovered
when every client sees every ticker live, with a price that Pluto had after the fault. Recovery is counted from the
kill, or from the end of a fault that ends: the process runs again, the disk has room again.

Prints the table of docs/measurements.md, and writes results/faults.json. A drill that fails says so in its row; the
next one starts when all tickers are live. Linux only. The drill of the full disk mounts a tmpfs, which requires root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from drills import LONG, SETTLE_S, Drill, Stage, staged
from fanout import RESULTS, keep, markdown, raise_open_files, warn_of_company

PATIENCE_S = 120.0  # for recovery after a drill that failed

Row = dict[str, Any]


def measure(drills: list[Drill]) -> list[Row]:
    rows = []
    with staged(SETTLE_S) as stage:
        for drill in drills:
            rows.append(run(stage, drill))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def run(stage: Stage, drill: Drill) -> Row:
    if drill.needs_disk and stage.disk is None:
        return {"drill": drill.name, "failed": "not run: no disk may be mounted here"}
    row: Row = {"drill": drill.name}
    try:
        outcome = drill.run(stage)
        row |= {"recovered_s": outcome.recovered_s, "left": outcome.left}
    except AssertionError as failure:
        row["failed"] = str(failure)
        row["well_after_s"] = stage.wait_until_well(0.0, PATIENCE_S)
    return row | {"wrong": stage.wrongs()}


def report(rows: list[Row]) -> str:
    headings = ("fault", "until all is well again, s", "wrong or falsely live prices", "processes left")
    return markdown(headings, [cells(row) for row in rows])


def cells(row: Row) -> list[str]:
    if "recovered_s" not in row:
        return [row["drill"], row["failed"], str(len(row.get("wrong", ()))), "–"]
    return [row["drill"], f"{row['recovered_s']:.1f}", str(len(row["wrong"])), str(row["left"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="words separated by commas; drills whose name has one of them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [bench/results]")
    arguments = parser.parse_args()
    raise_open_files()
    warn_of_company()
    words = arguments.only.split(",")
    rows = measure([drill for drill in LONG if any(word in drill.name for word in words)])
    print(report(rows))
    keep(arguments.out / "faults.json", drills=rows)


if __name__ == "__main__":
    main()
