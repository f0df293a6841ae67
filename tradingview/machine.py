"""The machine: the folder for the browser's temporary files, and the usable processors.

This file owns both. It starts no process and knows no browser. Any thread may call it.

Pluto keeps a lock file in each folder it made, locked while the folder is in use. The lock ends with its process,
however that ends. Containers that share the folder, but not their process ids, see it too.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quotes import PlutoError

log = logging.getLogger("pluto.browser")

FOLDER_PREFIX = "pluto-"
LOCK = ".pluto-lock"  # marks a folder as Pluto's
MAX_ROOT = 36  # characters of the parent folder: a socket's path has at most 103, Chromium takes 45 of them
CLEARINGS = 3  # tries: a browser process that is still ending may write during the removal
SPARE_BYTES = 4 * 1024 * 1024  # Chromium doesn't start with less

environment = threading.RLock()
"""Held by whoever changes this process's environment for a moment, or must read its true one."""


class FolderMissing(PlutoError):
    code = "folder_missing"


def usable_cpus(root: Path = Path("/")) -> int:
    """How many processors this process may use: in a container perhaps fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cpu_quota(root))))


def _cpu_quota(root: Path) -> float:
    """The least `cpu.max` (cgroup v2) of this process's control group and its parents, in processors."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    except (OSError, StopIteration):
        return math.inf
    quota = math.inf
    for group in (mounted / own, *(mounted / own).parents):
        with suppress(OSError, ValueError, ZeroDivisionError):
            limit, period = (group / "cpu.max").read_text().split()
            quota = min(quota, int(limit) / int(period))
        if group == mounted:
            break
    return quota


def temporary_root() -> str:
    """TMPDIR if it is writable, even if full; else Python's choice. Raises FolderMissing.

    Takes /tmp if that path would be too long for the browser's sockets.
    """
    try:
        with environment:
            wanted = os.environ.get("TMPDIR")
            root = os.path.abspath(wanted) if wanted and _is_writable(wanted) else tempfile.gettempdir()
    except FileNotFoundError:
        raise FolderMissing(
            "no folder for temporary files can be written to: free some space in /tmp, or set TMPDIR to another folder"
        ) from None
    return "/tmp" if len(root) > MAX_ROOT and _is_writable("/tmp") else root


def _is_writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def is_full(folder: str) -> bool:
    """Whether too little space is left there for a browser to start."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < SPARE_BYTES or (state.f_files > 0 and state.f_favail == 0)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A new folder for all files of driver and browser; it is removed at the end, also after a browser was killed.

    If Pluto itself is killed, the folder stays until the next Pluto removes it here.
    """
    with environment:
        root, wanted = temporary_root(), os.environ.get("TMPDIR")
    if wanted and not _is_writable(wanted):
        log.warning("Pluto can't write to TMPDIR (%s); temporary files go to %s", wanted, root)
    for folder in Path(root).glob(f"{FOLDER_PREFIX}*"):
        _remove_if_left_behind(folder)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=root))
    lock = _mark(folder)
    try:
        yield str(folder)
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def _mark(folder: Path) -> int | None:
    """The descriptor that holds the lock; None where files can't be locked. The file is locked before it is named."""
    with suppress(OSError):
        unnamed = folder / f"{LOCK}-new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(folder / LOCK)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _remove_if_left_behind(folder: Path) -> None:
    """Removes the folder if a Pluto of this user made it and no longer uses it."""
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Removes the lock file last: if interrupted, the next Pluto can remove the rest."""
    for _ in range(CLEARINGS):
        with suppress(OSError):
            for path in folder.iterdir():
                if path.name != LOCK:
                    _remove_one(path)
            if {path.name for path in folder.iterdir()} <= {LOCK}:
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
                return


def _remove_one(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
