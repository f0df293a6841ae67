"""The browser: which Chromium Pluto starts, with which flags, with or without its sandbox.

This file owns finding and launching Chromium. It opens no page of a ticker. Everything runs on the thread that drives
Playwright; any thread may read `Launcher.sandbox`.

    python -m tradingview.browser     prints the path of a browser that works here; run.sh calls it once
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Playwright
from playwright.sync_api import Error as BrowserError

from quotes import PlutoError
from tradingview.diagnosis import OTHER_BROWSER, Death, Kind, death_of
from tradingview.driver import Driver, nothing, waiting
from tradingview.machine import is_full, temporary_folder, temporary_root
from tradingview.site import BLOCKED_HOSTS

log = logging.getLogger("pluto.browser")

LAUNCH_LIMIT_S = 60.0
VERSION_LIMIT_S = 10.0
PAGE_LIMIT_S = 20.0  # for a blank page, at set-up
NO_BROWSER_WORKS, NO_BROWSER_FOUND = 1, 3  # exit codes of this file as a program
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Chromium uses only the last list of features, so ours repeats Playwright's; a test compares the two.
PLAYWRIGHTS_DISABLED_FEATURES = (
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
    "TcpPortRandomizationWin",
    "ThirdPartyStoragePartitioning",
    "msEdgeUpdateLaunchServicesPreferredVersion",
    "msForceBrowserSignIn",
)
DISABLED_FEATURES = (
    *PLAYWRIGHTS_DISABLED_FEATURES,
    "WebUIOmniboxPopup",  # else each context has a second renderer (60 MB) for its address bar
    "WebUIOmniboxAimPopup",
    "SpareRendererForSitePerProcess",
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
    "--animation-duration-scale=0",  # the browser's own animations cost 30 ms of CPU per page that opens
    "--autoplay-policy=user-gesture-required",
    "--process-per-site",  # the pages of a context share one renderer: 10-12 MB a page instead of 57
    "--disable-features=" + ",".join(DISABLED_FEATURES),
    "--host-resolver-rules=" + ", ".join(f"MAP {host} ~NOTFOUND" for host in BLOCKED_HOSTS),
]
SLIM_ARGS = ["--blink-settings=imagesEnabled=false", "--disable-remote-fonts"]  # headless only
# Playwright's flags that would let pages open windows unasked and change their address without limit.
REFUSED_ARGS = ["--disable-popup-blocking", "--disable-ipc-flooding-protection"]
# Kernel switches that can forbid user namespaces, which the sandbox needs: name, value that forbids, value that allows.
USER_NAMESPACE_SWITCHES = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 23.10 and newer
    ("kernel.unprivileged_userns_clone", "0", "1"),  # older Debian
    ("user.max_user_namespaces", "0", "15000"),
)


class BrowserMissing(PlutoError):
    code = "browser_missing"


class BrowserFailed(PlutoError):
    """No browser starts as it should."""

    code = "browser_failed"


@dataclass(frozen=True)
class LaunchSettings:
    """`browser` is a path or None. `or_headless` allows headless where a headed browser can open no window.

    `sandbox` is on, off or auto (on wherever it works).
    """

    browser: str | None = None
    headed: bool = False
    or_headless: bool = False
    sandbox: str = "auto"


@dataclass(frozen=True)
class Sandbox:
    """Whether the browser is in its sandbox; if not, why."""

    is_on: bool
    reason: str = ""


# --- finding ----------------------------------------------------------------------------------------------------------


def find_browsers(path: str | None, playwrights_own: str | None = None) -> Iterator[str]:
    """The browsers to try: the given path only; without one, Playwright's own, then those on the PATH.

    Raises BrowserMissing, which says what to do.
    """
    if path:
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            raise BrowserMissing(f"{path} is not an executable: set PLUTO_BROWSER to a Chromium, or unset it.")
        yield path
        return
    found = 0
    for place in (playwrights_own, *map(shutil.which, BROWSER_NAMES)):
        if place and os.access(place, os.X_OK) and (place == playwrights_own or _is_browser(place)):
            found += 1
            yield place
    if not found:
        raise BrowserMissing(
            "No Chromium found: install the package 'chromium', or set PLUTO_BROWSER to a browser's path."
        )


def find_browser(path: str | None, playwrights_own: str | None = None) -> str:
    """The first of `find_browsers`."""
    return next(find_browsers(path, playwrights_own))


def _is_browser(path: str) -> bool:
    """Whether this is a browser. Ubuntu's chromium-browser isn't: it only tells users to install a snap."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=VERSION_LIMIT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# --- launching --------------------------------------------------------------------------------------------------------


class Launcher:
    """Starts the browser, each time Pluto needs one. It never again tries a sandbox or windows that it has given up.

    `sandbox` is None until a browser has started. Each browser has `limit` s to start. `show_alive` is called while the
    thread is blocked.
    """

    def __init__(
        self, settings: LaunchSettings, show_alive: Callable[[], object] = nothing, limit: float = LAUNCH_LIMIT_S
    ) -> None:
        self.sandbox: Sandbox | None = None
        self.headed = settings.headed
        self._settings, self._show_alive, self._limit = settings, show_alive, limit
        self._rejected: dict[str, Death] = {}
        self._no_sandbox = _reason_for_no_sandbox(settings.sandbox)

    def launch(self, playwright: Playwright, end_browsers: Callable[[], object]) -> tuple[Browser, str]:
        """The first browser that starts, and its path. Raises BrowserMissing if there is none, else BrowserFailed.

        `end_browsers` kills a browser that didn't answer in time.
        """
        check_sandbox(self._settings.sandbox)
        while True:
            deaths = []
            for path in self._browsers(playwright):
                try:
                    browser = self._start(playwright, path)
                except BrowserError as error:
                    root = temporary_root()
                    deaths.append(death_of(path, str(error), root, is_full=is_full(root)))
                    end_browsers()
                else:
                    self._note_start(browser, path, deaths)
                    return browser, path
            self._relent([*self._rejected.values(), *deaths])

    def reject(self, path: str, why: str) -> None:
        """Never starts this browser again."""
        self._rejected[path] = Death(Kind.OTHER, f"{path} {why}: update it, {OTHER_BROWSER}")

    def _browsers(self, playwright: Playwright) -> list[str]:
        with waiting(VERSION_LIMIT_S * len(BROWSER_NAMES), nothing, self._show_alive):
            found = list(find_browsers(self._settings.browser, playwright.chromium.executable_path))
        return [path for path in found if path not in self._rejected]

    def _start(self, playwright: Playwright, path: str) -> Browser:
        return playwright.chromium.launch(
            executable_path=path,
            args=BROWSER_ARGS if self.headed else BROWSER_ARGS + SLIM_ARGS,
            ignore_default_args=REFUSED_ARGS,
            headless=not self.headed,
            chromium_sandbox=not self._no_sandbox,
            timeout=self._limit * 1000,
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )

    def _note_start(self, browser: Browser, path: str, deaths: list[Death]) -> None:
        self.sandbox = Sandbox(not self._no_sandbox, self._no_sandbox)
        for death in deaths:
            log.info("another browser takes its place: %s", death.sentence)
        mode, sandbox = "headed" if self.headed else "headless", "off" if self._no_sandbox else "on"
        log.info("browser: %s (%s, sandbox %s), version %s", path, mode, sandbox, browser.version)

    def _relent(self, deaths: list[Death]) -> None:
        """Gives up windows or the sandbox if no browser started because of them; else raises BrowserFailed."""
        kinds = {death.kind for death in deaths}
        if Kind.NO_DISPLAY in kinds and self.headed:
            if not self._settings.or_headless:
                raise BrowserFailed(f"{_no_display()}; start one, or use --browser-mode headless")
            self.headed = False
            log.warning("%s, so the browser is headless", _no_display())
        elif kinds == {Kind.NO_SANDBOX} and not self._no_sandbox:
            if self._settings.sandbox == "on":
                raise BrowserFailed(f"no browser finds a usable sandbox, as --sandbox on asks; {sandbox_way_back()}")
            self._no_sandbox = f"no browser finds a usable sandbox; to bring it back, {sandbox_way_back()}"
            log.warning("the browser runs without its sandbox: %s", self._no_sandbox)
        else:
            raise BrowserFailed("; ".join(dict.fromkeys(death.sentence for death in deaths)))


def _reason_for_no_sandbox(sandbox: str) -> str:
    if sandbox == "off":
        return "--sandbox off"
    is_root = sandbox == "auto" and os.geteuid() == 0
    return "Pluto runs as root, for whom Chromium has no sandbox; start it as another user" if is_root else ""


def check_sandbox(sandbox: str) -> None:
    """Raises BrowserFailed where --sandbox on is impossible with any browser."""
    if sandbox == "on" and os.geteuid() == 0:
        raise BrowserFailed("--sandbox on needs another user: Chromium has no sandbox for root.")


def _no_display() -> str:
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    asked = " and ".join(f"{name} is {os.environ[name]}" for name in names if os.environ.get(name))
    return f"Chromium finds no display server ({asked or 'neither DISPLAY nor WAYLAND_DISPLAY is set'})"


def sandbox_way_back(switches: Path = Path("/proc/sys")) -> str:
    """How to make the sandbox work on this machine; `switches` is the folder of the kernel's switches."""
    for name, forbids, allows in USER_NAMESPACE_SWITCHES:
        try:
            value = (switches / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue
        if value == forbids:
            line = f"run: sudo sysctl -w {name}={allows}"
            profile = "give the browser the AppArmor profile in SECURITY.md, or " if "apparmor" in name else ""
            return f"{profile}{line}"
    return "let the container's seccomp profile allow user namespaces, or install Debian's package chromium-sandbox"


# --- as a program -----------------------------------------------------------------------------------------------------


def main(page_limit: float = PAGE_LIMIT_S) -> int:
    """Prints the path of the first browser that starts and opens a blank page in so many s, or why none does."""
    logging.getLogger().addHandler(logging.NullHandler())
    path = os.environ.get("PLUTO_BROWSER")
    launcher = Launcher(LaunchSettings(path))
    try:
        while not (works := _try_next(launcher, page_limit)):
            pass
    except (PlutoError, OSError) as error:
        print(error, file=sys.stderr)
        return NO_BROWSER_FOUND if isinstance(error, BrowserMissing) and not path else NO_BROWSER_WORKS
    print(works)
    return 0


def _try_next(launcher: Launcher, page_limit: float) -> str | None:
    """The path of a browser that works; None if this one was rejected. Each has its own driver: it may hang too."""
    with temporary_folder() as folder:
        driver = Driver(folder)
        with driver.running() as playwright:
            browser, path = launcher.launch(playwright, driver.kill_browsers)
            try:
                with waiting(page_limit, driver.kill):
                    browser.new_page().goto("about:blank")
            except BrowserError:
                launcher.reject(path, "starts, but opens no page")
                return None
    return path


if __name__ == "__main__":
    sys.exit(main())
