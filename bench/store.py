"""What the store costs: its writes, its file, its queries, and its effect on delivery; the same data in DuckDB.

    .venv/bin/python bench/store.py                  everything, about ten minutes
    .venv/bin/python bench/store.py --changes 200000 --seconds 3      a short round, to check that it works
    .venv/bin/python bench/store.py --part delivery  one part: writing, delivery or file

- Writing: 50 tickers go through the running store: with ten changes a second each, then with one every two seconds
  (about the real pace). CPU is that of the whole process, which makes the prices and writes them. "Bytes a change"
  counts the table of changes only; candles are counted apart.
- Filling: a day of changes, in transactions of 5,000, with their candles. SQL then adds the month before, ticker by
  ticker, because only its size matters: 10 million changes in all.
- Reading: the calls that the routes make, each with a connection of its own, of a random ticker and time.
- Restart: from the start of Python to the first answer of a server that uses that file.
- Delivery: 50 tickers with ten changes a second each, to one SSE client, with and without a store, in turn. It is the
  time from when the price was made until the client has read it.
- DuckDB (requirements.txt): the same changes. It keeps no candles, so a query makes them of changes. A commit has 500
  changes, as many as a second brings; the store's commits of as many, with candles, stand beside it.

Prints tables and writes results/store.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent))  # before this folder: else this file would be imported as store

import httpx
from clients import percentile
from running import QuoteServer, quote_server

from quotes import Quote, Source, State, Ticker
from storage.candles import HOUR, MINUTE
from storage.changes import Arrival
from storage.file import StoreFile
from storage.history import History, Range
from storage.intake import Batch
from storage.remembered import Remembered
from store import Store, StoreSettings

RESULTS = Path(__file__).parent / "results"
TICKERS = [Ticker(f"T{number}USD") for number in range(50)]
DAY = 24 * HOUR
END = 1_795_000_000_000  # ms, of the filled file
BATCH = 5_000
QUERIES = 300
ROUNDS = 3  # of delivery, each with and without a store


def walk(seed: int) -> Iterator[str]:
    """A random walk of prices with two decimals."""
    chance = random.Random(seed)
    price = chance.uniform(0.5, 90_000)
    while True:
        price *= 1 + chance.gauss(0, 2e-5)
        yield f"{price:.2f}"


def quote(ticker: Ticker, price: str, at: int) -> Quote:
    return Quote(ticker, State.LIVE, price, 0.5, at - 20, Source.SOCKET, at - 150, at, proven_until=math.inf)


def shares(spent: list[float]) -> dict[str, float]:
    return {"p50 ms": median(spent), "p99 ms": percentile(sorted(spent), 0.99)}


# --- writing ----------------------------------------------------------------------------------------------------------


def writing(folder: Path, interval: float, seconds: float) -> dict[str, float]:
    """Puts a change of each ticker every `interval` s."""
    path = folder / "pluto.db"
    store = Store(StoreSettings(path), Remembered(lambda quote: None))
    store.start(lambda tickers: None)
    prices = {ticker: walk(number) for number, ticker in enumerate(TICKERS)}
    for ticker in TICKERS:
        store.add(ticker)
    wal, puts, cpu, began = 0, list[float](), time.process_time(), time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        for ticker, price in prices.items():
            new = quote(ticker, next(price), round(time.time() * 1000))
            put = time.perf_counter()
            store.put(new)
            puts.append(time.perf_counter() - put)
            time.sleep(interval / len(TICKERS) / 2)
        wal = max(wal, path.with_name("pluto.db-wal").stat().st_size)
        time.sleep(max(0.0, now + interval - time.monotonic()))
    lasted, cpu = time.monotonic() - began, time.process_time() - cpu
    store.stop()
    return {
        "changes/s": len(puts) / lasted,
        "CPU %": 100 * cpu / lasted,
        "put p50 µs": 1e6 * median(puts),
        "put p99 µs": 1e6 * percentile(sorted(puts), 0.99),
        "WAL MB": wal / 1e6,
        **sizes(path),
    }


def sizes(path: Path) -> dict[str, float]:
    with closing(sqlite3.connect(path)) as connection:
        tables = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
        (changes,) = connection.execute("SELECT count(*) FROM change").fetchone()
    return {"bytes/change": tables["change"] / changes, "candles MB": tables["candle"] / 1e6, "changes": changes}


def filling(folder: Path, changes: int) -> dict[str, float]:
    """Fills a file with a month of evenly spread changes. Its figures are those of the last day."""
    file, step = StoreFile(folder / "pluto.db", 1.0), 30 * DAY / changes
    file.write(Batch(dict.fromkeys(TICKERS, True), []), END - 30 * DAY)
    prices = [walk(number) for number in range(len(TICKERS))]
    days = changes // 30
    arrivals = (
        Arrival(at, TICKERS[number % 50], quote(TICKERS[number % 50], next(prices[number % 50]), at))
        for number in range(days)
        for at in [END - DAY + int(number * step)]
    )
    spent = 0.0
    while batch := list(islice(arrivals, BATCH)):
        began = time.perf_counter()
        file.write(Batch({}, batch), batch[-1].at)
        spent += time.perf_counter() - began
    figures = {"changes/s": days / spent, **sizes(folder / "pluto.db")}
    fill_past(file.connection, changes - days, step)
    file.close()
    return {**figures, "file MB": (folder / "pluto.db").stat().st_size / 1e6}


def fill_past(connection: sqlite3.Connection, changes: int, step: float) -> None:
    """Adds changes by SQL. Their candles are not right: SQL compares prices as text."""
    begin, each = END - 30 * DAY, changes // len(TICKERS)
    connection.execute("BEGIN")
    for ticker in range(1, len(TICKERS) + 1):
        rows = (
            (
                ticker,
                begin + int(number * step * len(TICKERS)),
                0,
                67,
                f"{1000 + number % 977}.{number % 90 + 10}",
                20,
                150,
            )
            for number in range(each)
        )
        connection.executemany("INSERT OR IGNORE INTO change VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    for width in (MINUTE, HOUR):
        connection.execute(
            "INSERT OR IGNORE INTO candle SELECT ?1, ticker, at / ?1 * ?1, 0, count(*), min(price), max(price), "
            "min(price), max(price) FROM change WHERE at < ?2 GROUP BY ticker, at / ?1",
            (width, END - DAY),
        )
    connection.execute("COMMIT")


# --- reading ----------------------------------------------------------------------------------------------------------


def timed(read: Callable[[Ticker, int], Any], queries: int = QUERIES) -> dict[str, float]:
    """The time that `read` takes, in ms. It gets a random ticker, and a random end of the range to read."""
    chance, spent = random.Random(7), []
    for _ in range(queries):
        ticker, end = chance.choice(TICKERS), END - chance.randrange(29) * DAY
        began = time.perf_counter()
        read(ticker, end)
        spent.append(1000 * (time.perf_counter() - began))
    return shares(spent)


def reading(folder: Path) -> dict[str, dict[str, float]]:
    history = History(folder / "pluto.db", 1.0)
    return {
        "a day of 1 m candles": timed(lambda t, end: history.candles(t, MINUTE, Range(1440, end - DAY, end))),
        "a month of 1 h candles": timed(lambda t, end: history.candles(t, HOUR, Range(720, END - 30 * DAY, END))),
        "1,000 newest changes": timed(lambda t, end: history.changes(t, Range(1000))),
        "1,000 candles of 1 s": timed(lambda t, end: history.candles(t, 1000, Range(1000, None, end))),
    }


def restart(folder: Path) -> float:
    """Seconds from the start of a server with this file to its first answer."""
    began = time.monotonic()
    with quote_server("--data", str(folder)) as server:
        server.http.get("/livez")
        return time.monotonic() - began


# --- delivery ---------------------------------------------------------------------------------------------------------


def delivery(seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds from making a price until an SSE client has read it."""
    delays: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(ROUNDS):
        for name, found in delays.items():
            with tempfile.TemporaryDirectory() as folder:
                options = ("--data", folder) if name == "with" else ()
                with quote_server(*options) as server:
                    found.extend(delays_of(server, seconds))
    return {
        name: {"p50 ms": median(found), "p99 ms": percentile(sorted(found), 0.99)} for name, found in delays.items()
    }


def delays_of(server: QuoteServer, seconds: float) -> list[float]:
    server.track(*TICKERS)
    ended, delays = threading.Event(), list[float]()

    def put() -> None:
        while not ended.wait(0.1 / len(TICKERS) / 2):
            for ticker in TICKERS:
                server.put((ticker, "live", str(time.monotonic_ns())))
                time.sleep(0.1 / len(TICKERS))

    writer = threading.Thread(target=put)
    writer.start()
    began, seen = time.monotonic(), set[str]()
    with httpx.stream("GET", f"{server.url}/api/stream", timeout=10) as answer:
        for line in answer.iter_lines():
            now = time.monotonic_ns()
            if line.startswith("data: ") and (batch := json.loads(line[6:])).get("updates"):
                fresh = {update["priceText"] for update in batch["updates"] if "priceText" in update} - seen
                seen |= fresh
                if time.monotonic() - began > 2:  # leaves out the start
                    delays.extend((now - int(made)) / 1e6 for made in fresh)
            if time.monotonic() - began > seconds + 2:
                break
    ended.set()
    writer.join()
    return delays


# --- DuckDB -----------------------------------------------------------------------------------------------------------


def duckdb(folder: Path) -> dict[str, Any]:
    """The changes of the filled file in DuckDB."""
    path = folder / "duck.db"
    connection = import_module("duckdb").connect(str(path))
    columns = 'ticker INTEGER, "at" BIGINT, n INTEGER, mark INTEGER, price VARCHAR, shown BIGINT, traded BIGINT'
    connection.execute(f"CREATE TABLE change ({columns})")
    with (
        closing(sqlite3.connect(folder / "pluto.db")) as source,
        tempfile.NamedTemporaryFile("w", suffix=".csv") as file,
    ):
        csv.writer(file).writerows(source.execute("SELECT * FROM change"))  # 10 million are too many to sort by time
        file.flush()
        connection.execute(f"COPY change FROM '{file.name}'")
    connection.execute("CHECKPOINT")
    (changes,) = connection.execute("SELECT count(*) FROM change").fetchone()
    query = (
        'SELECT "at" // {0} * {0} AS start, first(price ORDER BY "at"), max(price::DECIMAL(18, 8)), '
        'min(price::DECIMAL(18, 8)), last(price ORDER BY "at"), count(*) FROM change '
        'WHERE ticker = ? AND "at" >= ? AND "at" < ? GROUP BY start ORDER BY start'
    )
    number = {ticker: place for place, ticker in enumerate(TICKERS, 1)}

    def candles(width: int, span: int) -> Callable[[Ticker, int], Any]:
        text = query.format(width)
        return lambda t, end: connection.execute(text, (number[t], end - span, end)).fetchall()

    results = {
        "bytes/change": path.stat().st_size / changes,
        "a day of 1 m candles": timed(candles(MINUTE, DAY), 50),
        "a month of 1 h candles": timed(lambda t, end: candles(HOUR, 30 * DAY)(t, END), 50),
        "commit of 500": duckdb_commits(connection),
    }
    connection.close()
    return results


def duckdb_commits(connection: Any) -> dict[str, float]:
    spent = []
    for second in range(20):
        rows = [(place % 50 + 1, END + second * 1000 + place, 0, 67, "1.5", 20, 150) for place in range(500)]
        columns = [list(column) for column in zip(*rows, strict=True)]
        began = time.perf_counter()
        connection.execute("BEGIN")
        connection.execute(f"INSERT INTO change SELECT {', '.join(['unnest(?)'] * 7)}", columns)
        connection.execute("COMMIT")
        spent.append(1000 * (time.perf_counter() - began))
    return shares(spent)


def sqlite_commits(folder: Path) -> dict[str, float]:
    """Commits of 500 changes by the store's own file, with candles, in ms."""
    file, spent = StoreFile(folder / "pluto.db", 1.0), []
    for second in range(20):
        ats = [END + second * 1000 + place for place in range(500)]
        arrivals = [Arrival(at, TICKERS[at % 50], quote(TICKERS[at % 50], "1.5", at)) for at in ats]
        began = time.perf_counter()
        file.write(Batch({}, arrivals), ats[-1])
        spent.append(1000 * (time.perf_counter() - began))
    file.close()
    return shares(spent)


def show(name: str, figures: dict[str, Any]) -> None:
    print(name)
    for key, value in figures.items():
        text = ", ".join(f"{k} {v:.3g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,.6g}"
        print(f"  {key:24} {text}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--changes", type=int, default=10_000_000, help="in the filled file (default: 10 million)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of writing; delivery takes three times as long")
    parser.add_argument("--part", choices=["writing", "delivery", "file"])
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}

    def keep(name: str, figures: dict[str, Any]) -> None:
        results[name] = figures
        show(name, figures)

    if options.part in (None, "writing"):
        for name, interval in (("50 tickers × 10/s", 0.1), ("50 tickers × 0.5/s", 2.0)):
            with tempfile.TemporaryDirectory() as folder:
                keep(name, writing(Path(folder), interval, options.seconds))
    if options.part in (None, "delivery"):
        keep("delivery", delivery(options.seconds / 2))
    if options.part in (None, "file"):
        with tempfile.TemporaryDirectory() as folder:
            for name, figures in of_file(Path(folder), options.changes):
                keep(name, figures)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"store{options.part or ''}.json").write_text(json.dumps(results, indent=2))


def of_file(folder: Path, changes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "filling", filling(folder, changes)
    yield "reading", reading(folder)
    yield "restart", {"s": restart(folder)}
    if find_spec("duckdb") is None:
        print("DuckDB is left out: pip install -r bench/requirements.txt")
    else:
        yield "DuckDB", duckdb(folder)
    yield "SQLite", {"commit of 500": sqlite_commits(folder)}


if __name__ == "__main__":
    main()
