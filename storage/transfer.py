"""The watchlist out of the store's file and into it, for ./run.sh export and import.

This file owns what these two commands read, write and say. It needs nothing but the standard library. It runs in a
process of its own: it reads the file also while Pluto runs, and then asks Pluto itself to import.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from quotes import PlutoError, Ticker, parse_ticker, wall_ms
from settings import Settings, read_settings
from storage.file import StoreFile
from storage.intake import Batch
from storage.schema import FromTheFuture, Lock, StoreInUse, is_unusable, path_of, read_watchlist

PATIENCE_S = 5.0


def main(arguments: list[str]) -> int:
    """`export` prints a ticker a line; `import` replaces the watchlist by the lines of the standard input."""
    command, *options = arguments
    settings = read_settings(options)
    path = path_of(settings.data, demo=settings.demo)
    try:
        return export(path) if command == "export" else take_in(path, settings, sys.stdin.read())
    except (sqlite3.Error, OSError, FromTheFuture) as error:
        what = "is damaged or of a newer Pluto" if is_unusable(error) else "can't be used"
        return complain(f"{path} {what}: {error}.")


def export(path: Path) -> int:
    if not path.exists():
        return complain(f"There is no {path}: nothing has been kept. Name another folder with --data.")
    for name, _ in read_watchlist(path, PATIENCE_S):
        print(name)
    return 0


def take_in(path: Path, settings: Settings, text: str) -> int:
    tickers = read_lines(text)[: settings.max_tickers]
    if not tickers:
        return complain("No line holds a ticker, so nothing has changed.")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = Lock(path)
    except StoreInUse:
        return ask_pluto(settings, tickers)
    try:
        with closing(StoreFile(path, PATIENCE_S)) as file:
            gone = dict.fromkeys(file.watchlist(), False)
            file.write(Batch({**gone, **dict.fromkeys(tickers, True)}, []), wall_ms())
    finally:
        lock.release()
    print(f"{len(tickers)} tickers are tracked from the next start on.")
    return 0


def read_lines(text: str) -> list[Ticker]:
    """The tickers; prints the lines that hold none."""
    tickers: dict[Ticker, None] = {}
    for line in filter(str.strip, text.removeprefix("\ufeff").splitlines()):
        try:
            tickers[parse_ticker(line)] = None
        except PlutoError as error:
            complain(f"{line[:100]!r} is left out: {error}")
    return list(tickers)


def ask_pluto(settings: Settings, tickers: list[Ticker]) -> int:
    """Imports by way of the Pluto that runs."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/api/watchlist"
    headers = {"Content-Type": "application/json"}
    if settings.access_token:
        headers["Authorization"] = f"Bearer {settings.access_token}"
    body = json.dumps({"tickers": tickers}).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers, method="PUT"), timeout=PATIENCE_S
        ) as answer:
            print(json.load(answer)["message"])
    except urllib.error.HTTPError as error:
        return complain(f"Pluto at {url} refused: {error.read().decode(errors='replace')}")
    except OSError as error:
        return complain(f"A Pluto uses that file, but doesn't answer at {url} ({error}): name its --host and --port.")
    return 0


def complain(sentence: str) -> int:
    print(f"pluto: {sentence}", file=sys.stderr)
    return 1
