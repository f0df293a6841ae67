"""The database file: where it is, who may write it, what its tables are, and what becomes of one that is unusable.

This file owns the schema with its migrations, the lock that keeps a second Pluto out, and the setting aside of a file
that can't be used. It never writes a price. The thread that opens a file uses it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from quotes import PlutoError

log = logging.getLogger("pluto.store")

NAMING_S = 0.1  # for the holder of a lock to write whose it is
WATCHLIST = "SELECT name, quote FROM ticker WHERE tracked ORDER BY name"
UNUSABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

MIGRATIONS = (
    """
    CREATE TABLE ticker (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        tracked INTEGER NOT NULL,
        quote TEXT,               -- the newest one with a price, as JSON
        cut_at INTEGER NOT NULL DEFAULT 0,   -- changes before it are deleted
        cut_mark INTEGER NOT NULL DEFAULT 0  -- of the last change before it
    );
    CREATE TABLE change (
        ticker INTEGER NOT NULL,
        at INTEGER NOT NULL,
        n INTEGER NOT NULL,
        mark INTEGER NOT NULL,
        price TEXT,
        shown INTEGER,
        traded INTEGER,
        PRIMARY KEY (ticker, at, n)
    ) WITHOUT ROWID;
    CREATE TABLE candle (
        width INTEGER NOT NULL,
        ticker INTEGER NOT NULL,
        start INTEGER NOT NULL,
        mark INTEGER NOT NULL,
        count INTEGER NOT NULL,
        open TEXT NOT NULL,
        high TEXT NOT NULL,
        low TEXT NOT NULL,
        close TEXT NOT NULL,
        PRIMARY KEY (width, ticker, start)
    ) WITHOUT ROWID;
    CREATE TABLE pulse (
        last_at INTEGER NOT NULL,  -- of the newest change
        alive_at INTEGER NOT NULL  -- when Pluto last wrote
    );
    INSERT INTO pulse VALUES (0, 0);
    """,
    """
    CREATE TABLE alert (
        id TEXT NOT NULL UNIQUE,
        fields TEXT NOT NULL,  -- as JSON
        armed INTEGER NOT NULL,
        raised_at INTEGER      -- when it last rang
    );
    CREATE TABLE raised (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        at INTEGER NOT NULL,
        fields TEXT NOT NULL   -- as JSON
    );
    """,
    """
    CREATE TABLE delivery (
        raised TEXT NOT NULL,  -- its id
        target TEXT NOT NULL,  -- the key of a notify URL
        name TEXT NOT NULL,    -- of the target, for people
        state TEXT NOT NULL,   -- waiting, delivered or failed
        tries INTEGER NOT NULL,
        at INTEGER NOT NULL,   -- when this became of it
        next_try_at INTEGER,
        error TEXT NOT NULL,   -- of the last try, for people
        UNIQUE (raised, target)
    );
    CREATE INDEX waiting ON delivery (target) WHERE state = 'waiting';
    CREATE TRIGGER forget_deliveries AFTER DELETE ON raised BEGIN
        DELETE FROM delivery WHERE raised = old.id;
    END;
    """,
)
"""What makes each version of the schema of the one before; a file's `user_version` counts those it has had."""


class StoreInUse(PlutoError):
    code = "store_in_use"


class WrittenByCrew(Exception):
    """Another worker of the same Pluto writes the file."""


class FromTheFuture(Exception):
    """A newer Pluto made the file."""


def default_folder() -> Path:
    """Where this platform keeps the data of programs."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Pluto"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pluto"


def path_of(folder: str, *, demo: bool) -> Path:
    """The file in the folder, by default the platform's. Simulated prices have a file of their own."""
    return (Path(folder).expanduser() if folder else default_folder()) / ("demo.db" if demo else "pluto.db")


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """The connection that writes. `patience` is how many seconds it waits for another program's lock."""
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # else a power cut takes more than the last second
        connection.execute("PRAGMA journal_size_limit = 16000000")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, patience: float, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that can only read; `immutable` for a file in a folder that can't be written."""
    mode = "immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=patience, isolation_level=None)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the file to the newest version, each step in a transaction. Raises FromTheFuture."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise FromTheFuture("a newer Pluto made it")
    for number in range(version, len(MIGRATIONS)):
        script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        try:
            connection.executescript(script)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def is_unusable(error: BaseException) -> bool:
    """Whether the file itself is at fault, so that no later try can succeed."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return isinstance(error, FromTheFuture) or code & 0xFF in UNUSABLE


def set_aside(path: Path, why: BaseException) -> Path:
    """Renames the file and what belongs to it, so that a fresh one can begin.

    Returns its new name, or the old one where the folder can't be written.
    """
    kind = "newer" if isinstance(why, FromTheFuture) else "damaged"
    aside = path.with_name(f"{path.name}.{kind}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm", ""):
        try:
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        except FileNotFoundError:
            pass
        except OSError as error:  # it is tried again
            log.error("%s is unusable (%s) and can't be set aside: %s", path, why, error)
            return path
    log.error("%s can't be used: %s. It is %s now, and a fresh one begins", path, why, aside.name)
    return aside


class Lock:
    """The right to write a file, held as long as this object or its process lives.

    `crew` is the name that all workers of one Pluto share; empty if it has one process. Raises WrittenByCrew if another
    worker holds it, StoreInUse if another Pluto does, or OSError.
    """

    def __init__(self, path: Path, crew: str = "") -> None:
        self._path = path.with_name(f"{path.name}.lock")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, crew.encode(), 0)
        except OSError as error:
            is_ours = isinstance(error, BlockingIOError) and crew and self._is_held_by(crew)
            os.close(self._file)
            if is_ours:
                raise WrittenByCrew from None
            if not isinstance(error, BlockingIOError):
                raise
            raise StoreInUse(
                f"Another Pluto uses {path}: stop it, or start this one with another --data folder, or --no-store."
            ) from None

    def _is_held_by(self, crew: str) -> bool:
        """Looks twice: whoever has just got it has not written its name yet."""
        for pause_s in (0.0, NAMING_S):
            time.sleep(pause_s)
            if os.pread(self._file, len(crew), 0) == crew.encode():
                return True
        return False

    @property
    def is_lost(self) -> bool:
        """Whether its file was deleted, so that others could get it, too."""
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return True

    def release(self) -> None:
        os.close(self._file)


def read_watchlist(path: Path, patience: float) -> list[tuple[str, str | None]]:
    """The tracked tickers and their quotes, of a file that can't be written. Raises sqlite3.Error."""
    try:
        with closing(connect_reader(path, patience)) as connection:
            return connection.execute(WATCHLIST).fetchall()
    except sqlite3.Error:
        with closing(connect_reader(path, patience, immutable=True)) as connection:
            return connection.execute(WATCHLIST).fetchall()
