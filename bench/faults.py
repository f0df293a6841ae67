"""Faults under load, the long ones: what is done to Pluto, how long until all is well again, what clients were shown.

    .venv/bin/python bench/faults.py                      all drills, about eight minutes
    .venv/bin/python bench/faults.py --only killed,hub    those whose name holds one of these words

The drills are those of tests/drills.py: Pluto with 20 tickers that change twice a second each, 200 clients of all
transports, of whom none may ever be shown a wrong price, nor one as live that is not (tests/truth.py). What is well
again: every client sees every ticker live, by a price that Pluto had after the harm was over: counted from a kill or a
stop for good; else from when what was stopped, filled or taken away was given back.

Prints the table of docs/measurements.md, and writes results/faults.json. A drill that fails says so in its row, and the
next goes on as soon as all is well. Linux only; the full disk is a tmpfs that takes root.
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

PATIENCE_S = 120.0  # after a drill that failed

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
    parser.add_argument("--only", default="", help="words, separated by commas: only drills whose name holds one")
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
