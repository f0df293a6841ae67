"""Playwright's driver: the Node.js process that starts the browser.

This file owns the driver's process from start to end, the environment that driver and browser get, and how long the
driver may take to start. It opens no browser. A `Driver` runs on the thread that drives Playwright; any thread may call
`kill`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Playwright, sync_playwright

from quotes import PlutoError
from tradingview.diagnosis import first_line, shown
from tradingview.machine import environment

START_LIMIT_S = 45.0
BEAT_S = 0.5
# Variables that would do harm: options for another Node.js, Playwright's debugger, another machine's browser.
HARMFUL = ("NODE_OPTIONS", "PWDEBUG", "SELENIUM_REMOTE_URL")
SET_UP_ANEW = "remove the folder .venv and start ./run.sh again"
LIBRARY_PACKAGES = {"libatomic.so.1": "libatomic1", "libstdc++.so.6": "libstdc++6"}


class DriverFailed(PlutoError):
    code = "driver_failed"


def nothing() -> None:
    """Shows nobody that this thread is alive: for programs in which nobody watches it."""


class Driver:
    """One life of the driver. It writes into `folder`, which also identifies it. It has `start_limit` s to start."""

    def __init__(self, folder: str, start_limit: float = START_LIMIT_S) -> None:
        self._folder, self._start_limit = folder, start_limit
        self._is_too_slow = False

    @contextmanager
    def running(self, show_alive: Callable[[], object] = nothing) -> Iterator[Playwright]:
        """Starts the driver, and always stops it: its event loop must not stay behind in the thread.

        Raises DriverFailed. The start blocks this thread; meanwhile another thread calls `show_alive`.
        """
        with ExitStack() as running:
            with environment, waiting(self._start_limit, self._on_limit, show_alive), _environment(self._folder):
                self._try_node()
                try:
                    playwright = running.enter_context(sync_playwright())
                except Exception as error:  # Playwright raises any kind of error when its driver dies
                    raise self._failure(error) from None
            yield playwright

    def _on_limit(self) -> None:
        self._is_too_slow = True
        self.kill()

    def _failure(self, error: Exception) -> DriverFailed:
        if self._is_too_slow:
            return DriverFailed(
                f"Playwright's driver did not start within {self._start_limit:.0f} s and was ended: "
                f"the machine is too busy, or the driver is broken; wait, or {SET_UP_ANEW}"
            )
        return DriverFailed(f"Playwright's driver ended as it started ({shown(str(error))}): {SET_UP_ANEW}")

    def _try_node(self) -> None:
        """Checks Node.js first: if it can't run, Playwright only prints that to standard error, with a traceback."""
        try:
            node = compute_driver_executable()[0]
            tried = subprocess.run(
                [node, "--version"], capture_output=True, text=True, errors="replace", timeout=self._start_limit
            )
        except BrowserError as error:
            raise DriverFailed(f"Playwright has no Node.js ({shown(first_line(error))}): {SET_UP_ANEW}") from None
        except subprocess.TimeoutExpired as error:
            self._is_too_slow = True
            raise self._failure(error) from None
        except OSError as error:
            raise DriverFailed(f"Playwright's Node.js can't be run ({node}: {error.strerror}): {SET_UP_ANEW}") from None
        if self._is_too_slow:
            raise self._failure(DriverFailed())
        if tried.returncode != 0:
            raise DriverFailed(node_failure(node, tried.stderr or f"exit code {tried.returncode}"))

    @property
    def process(self) -> psutil.Process | None:
        """The driver's process, also while it starts; None if it doesn't run."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.environ().get("TMPDIR") == self._folder:
                    return child
        return None

    def limit_open_files(self, soft: int) -> None:
        """Sets the soft limit of descriptors for the driver and for the browser that it starts.

        Pluto's own high limit can harm programs that use select() or close every possible descriptor. Call this after
        the driver's first answer: Node.js raises its limit to the hard limit when it starts. Playwright has no hook
        between fork and exec, and lowering Pluto's own limit could leave no descriptor for the driver's pipes. Only
        Linux can set another process's limit; on macOS Node.js decides.
        """
        if (driver := self.process) is not None and hasattr(driver, "rlimit"):
            with suppress(psutil.Error):
                driver.rlimit(psutil.RLIMIT_NOFILE, (soft, driver.rlimit(psutil.RLIMIT_NOFILE)[1]))

    def kill(self) -> None:
        """Any thread: kills the driver and all it started."""
        driver = self.process
        self.kill_browsers()
        if driver is not None:
            with suppress(psutil.NoSuchProcess):
                driver.kill()

    def kill_browsers(self) -> None:
        """Any thread: kills all that the driver started. Playwright doesn't kill a browser that answers too late."""
        with suppress(psutil.NoSuchProcess):
            for process in () if (driver := self.process) is None else driver.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def node_failure(node: str, said: str) -> str:
    if found := re.search(r"error while loading shared libraries: ([^\s:]+)", said):
        package = LIBRARY_PACKAGES.get(found[1])
        install = f"it (Debian, Ubuntu: sudo apt install {package})" if package else "the package that contains it"
        return f"Playwright's driver lacks the library {found[1]}: install {install}"
    last = ([line for line in said.splitlines() if line.strip()] or [""])[-1]
    return f"Playwright's Node.js can't run ({node} said: {shown(last)}): {SET_UP_ANEW}"


@contextmanager
def waiting(limit: float, give_up: Callable[[], object], show_alive: Callable[[], object] = nothing) -> Iterator[None]:
    """While the block keeps this thread busy, another thread calls `show_alive`, and after `limit` s `give_up`."""
    ended = threading.Event()
    deadline = time.monotonic() + limit

    def watch() -> None:
        while not ended.wait(BEAT_S):
            (show_alive if time.monotonic() < deadline else give_up)()

    watcher = threading.Thread(target=watch, name="start watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Sets this process's environment: Playwright passes it to the driver and the browser, and accepts no other."""
    with suppress(OSError):
        tempfile.gettempdir()  # caches its first answer, which must not be our folder
    names = ("TMPDIR", *HARMFUL)
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        os.environ.update(before)
