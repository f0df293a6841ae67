"""The browser: which Chromium is started, with which flags, and in which temporary folder it writes.

This file owns finding and launching Chromium. It opens no page and knows nothing of tickers. Everything runs on the
thread that drives Playwright.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Playwright

from quotes import PlutoError
from tradingview.site import BLOCKED_HOSTS

log = logging.getLogger("pluto.browser")

FOLDER_PREFIX = "pluto-"  # of one browser's files; Pluto's process id follows
MAX_ROOT = 36  # characters of the folder around it: a socket's whole path has 103 at most, Chromium takes 45 of them
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Chromium takes only the last list of features, so Playwright's own (for 1.65) is told again.
DISABLED_FEATURES = (
    "WebUIOmniboxPopup",  # else each context has a second renderer, 60 MB, for the address bar that nobody sees
    "WebUIOmniboxAimPopup",
    "SpareRendererForSitePerProcess",
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
)
BROWSER_ARGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--deny-permission-prompts",
    "--mute-audio",
    "--animation-duration-scale=0",  # of the browser's own windows: 30 ms of CPU per page that opens
    "--autoplay-policy=user-gesture-required",
    "--process-per-site",  # the pages of a context share one renderer: 10-12 MB a page instead of 57
    "--disable-features=" + ",".join(DISABLED_FEATURES),
    "--host-resolver-rules=" + ", ".join(f"MAP {host} ~NOTFOUND" for host in BLOCKED_HOSTS),
]
SLIM_ARGS = ["--blink-settings=imagesEnabled=false", "--disable-remote-fonts"]  # where nobody looks at the pages
# Playwright's own, that would let pages open windows unasked and change their address without end.
REFUSED_ARGS = ["--disable-popup-blocking", "--disable-ipc-flooding-protection"]


class BrowserMissing(PlutoError):
    code = "browser_missing"


def find_browser(path: str | None, playwrights_own: str | None = None) -> str:
    """The browser to start: the path if given, else Playwright's own if installed, else one on the PATH.

    Raises BrowserMissing with what to do about it.
    """
    if path:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        raise BrowserMissing(f"{path} is no program that can be run; set PLUTO_BROWSER to a Chromium, or unset it.")
    if playwrights_own and os.access(playwrights_own, os.X_OK):
        return playwrights_own
    for name in BROWSER_NAMES:
        if (found := shutil.which(name)) and _runs(found):
            return found
    raise BrowserMissing("No Chromium found: install the package 'chromium', or set PLUTO_BROWSER to a browser's path.")


def _runs(path: str) -> bool:
    """Whether this is a browser at all: Ubuntu's chromium-browser only says that one should install a snap."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def launch(playwright: Playwright, path: str | None, *, headed: bool) -> Browser:
    """Starts the browser at this path, or the one that `find_browser` finds."""
    found = find_browser(path, playwright.chromium.executable_path)
    browser = playwright.chromium.launch(
        executable_path=found,
        args=BROWSER_ARGS if headed else BROWSER_ARGS + SLIM_ARGS,
        ignore_default_args=REFUSED_ARGS,
        headless=not headed,
        chromium_sandbox=os.geteuid() != 0,  # Chromium refuses to be sandboxed as root
        handle_sigint=False,
        handle_sigterm=False,
        handle_sighup=False,
    )
    log.info("browser: %s (%s), version %s", found, "headed" if headed else "headless", browser.version)
    return browser


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A place for all that driver and browser write: a browser that is killed leaves its profile behind.

    So does a Pluto that is killed itself; what it left is removed here, by the next one.
    """
    root = temporary_root()
    for left in Path(root).glob(f"{FOLDER_PREFIX}*-*"):
        pid = left.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"{FOLDER_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root, ignore_cleanup_errors=True) as folder:
        yield folder


def temporary_root() -> str:
    """Where the user wants temporary files, even if it is full; else where the browser's sockets have short paths."""
    root = os.environ.get("TMPDIR") or tempfile.gettempdir()
    return root if len(root) <= MAX_ROOT or not os.path.isdir("/tmp") else "/tmp"


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Playwright starts its driver with this process's environment, and takes no other."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
