"""The browser starts everywhere, or says in one sentence why not: sandbox, display, environment, driver, folder.

Chromium is the real one where a sandbox or a window is at stake. Elsewhere a script takes its place and prints what
Chromium printed when it died so: it is a process that Playwright's real driver has started.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import playwright
import psutil
import pytest
from playwright.sync_api import sync_playwright
from running import PROJECT, Simulator, clean_environment, commands, descendants, is_browser, running_pluto, wait_until
from stories import Outcomes, Stories, Story

from tradingview.browser import (
    BROWSER_NAMES,
    DISABLED_FEATURES,
    PLAYWRIGHTS_DISABLED_FEATURES,
    BrowserFailed,
    Launcher,
    LaunchSettings,
    check_sandbox,
    find_browser,
    main,
    sandbox_way_back,
)
from tradingview.driver import Driver, DriverFailed
from tradingview.machine import LOCK, temporary_folder, temporary_root, usable_cpus

T = TypeVar("T")

ORDINARY_USER, NOBODY = 1000, 65534
# Nobody may read everything here: Python itself may be in the home of root.
AS_NOBODY = (
    f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=+dac_read_search "
    "--ambient-caps=+dac_read_search"
)
NO_SANDBOX = (
    "[7:7:1125/230157.248271:ERROR:content/browser/zygote_host/zygote_host_impl_linux.cc:128] No usable sandbox! If "
    "you are running on Ubuntu 23.10+ or another Linux distro that has disabled unprivileged user namespaces, "
    "see https://chromium.googlesource.com/. If you want to live dangerously, you can try using --no-sandbox."
)
NO_NAMESPACE = (
    "The setuid sandbox is not running as root. Common causes:\n  * An unprivileged process using ptrace on it.\n"
    "Failed to move to new namespace: PID namespaces supported, Network namespace supported, but failed: "
    "errno = Operation not permitted\n"
    "[7:7:1125/230248.541607:FATAL:content/browser/zygote_host/zygote_host_impl_linux.cc:207] Check failed: . : "
    "No space left on device (28)"
)
NO_LIBRARY = "chrome: error while loading shared libraries: libnss3.so: cannot open shared object file: No such file"


NO_SERVER = ":987"  # no X server is there


def in_a_thread(work: Callable[[], T]) -> T:
    """Playwright's event loop belongs to its thread, and the one of the tests may have another Playwright."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Started:
    path: str
    sandbox: bool
    headed: bool


class Stage:
    """A thread with a driver that starts browsers, and finds none of Playwright's own."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._threads, self._ends = ThreadPoolExecutor(1), ExitStack()
        self._playwright = self._threads.submit(self._ends.enter_context, driver.running(nothing)).result()

    def close(self) -> None:
        self._threads.submit(self._ends.close).result()
        self._threads.shutdown()

    def start(self, launcher: Launcher) -> Started:
        """The browser that the launcher starts, closed again."""

        def run() -> Started:
            browser, path = launcher.launch(self._playwright, self._driver.kill_browsers)
            browser.close()
            assert launcher.sandbox is not None
            return Started(path, launcher.sandbox.is_on, launcher.headed)

        return self._threads.submit(run).result()

    def failure(self, launcher: Launcher) -> str:
        with pytest.raises(BrowserFailed) as failed:
            self.start(launcher)
        return str(failed.value)


@contextmanager
def stage_with(**environment: str) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch, temporary_folder() as folder, ExitStack() as ends:
        for name, value in {"PLAYWRIGHT_BROWSERS_PATH": "/no/such/folder", **environment}.items():
            patch.setenv(name, value)
        stage = Stage(Driver(folder))
        ends.callback(stage.close)
        yield stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with stage_with(DISPLAY=NO_SERVER) as stage:
        yield stage


@pytest.fixture(scope="module")
def chromium() -> str:
    def find() -> str:
        with sync_playwright() as playwright:
            return find_browser(os.environ.get("PLUTO_BROWSER"), playwright.chromium.executable_path)

    return in_a_thread(find)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def dying(path: Path, words: str, *, without_sandbox: str = "exit 1") -> str:
    """A browser that notes how it is started, and dies with these words as long as it is told to use a sandbox."""
    last_words = path.with_suffix(".words")
    last_words.write_text(f"{words}\n")
    return script(
        path,
        f'[ "$1" = --version ] && exit 0\necho "$0 $*" >> {path.parent}/starts\n'
        f'case " $* " in *" --no-sandbox "*) {without_sandbox};; esac\ncat {last_words} >&2\nexit 1',
    )


@dataclass(frozen=True)
class Found:
    """A PATH that has nothing but these browsers, in the order in which they are tried."""

    folder: Path

    def add(self, name: str, words: str, *, without_sandbox: str = "exit 1") -> str:
        assert name in BROWSER_NAMES
        return dying(self.folder / name, words, without_sandbox=without_sandbox)

    def starts(self) -> list[tuple[str, bool]]:
        """(name, with its sandbox?) of each start."""
        lines = (self.folder / "starts").read_text().splitlines()
        return [(Path(line.split()[0]).name, "--no-sandbox" not in line.split()) for line in lines]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    hide_browsers(tmp_path)
    return Found(tmp_path)


def hide_browsers(folder: Path) -> None:
    """Hides those of the machine, with this folder first in PATH, by ones that are none."""
    for name in BROWSER_NAMES:
        script(folder / name, "exit 1")


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is told that it is somebody else: its browsers are scripts here."""
    monkeypatch.setattr(os, "geteuid", lambda: ORDINARY_USER)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TMPDIR, with a short path."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


# --- the sandbox ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ordinary_user")
def test_every_browser_is_tried_with_its_sandbox_before_the_first_is_started_without(
    stage: Stage, found: Found, chromium: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = found.add("chromium", NO_SANDBOX, without_sandbox=f'exec {chromium} "$@"')
    found.add("google-chrome", NO_NAMESPACE)
    launcher = Launcher(LaunchSettings())
    assert stage.start(launcher) == Started(first, sandbox=False, headed=False)
    assert found.starts() == [("chromium", True), ("google-chrome", True), ("chromium", False)]
    assert launcher.sandbox is not None
    assert launcher.sandbox.reason.startswith("no browser finds a usable sandbox; to bring it back, ")
    stage.start(launcher)
    assert found.starts()[3:] == [("chromium", False)], "for this run"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"the browser runs without its sandbox: {launcher.sandbox.reason}"], "once"


@pytest.mark.usefixtures("ordinary_user")
def test_a_browser_that_has_its_sandbox_goes_before_one_that_has_not(stage: Stage, found: Found, chromium: str) -> None:
    found.add("chromium", NO_SANDBOX)
    # Root's Chromium has no sandbox: what matters is what it was asked for.
    second = found.add("google-chrome", "")
    script(Path(second), f'[ "$1" = --version ] || exec {chromium} --no-sandbox "$@"')
    assert stage.start(Launcher(LaunchSettings())) == Started(second, sandbox=True, headed=False)


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("words", [NO_LIBRARY, "[7:7:1125/230248.5:FATAL:x.cc:1] The SUID sandbox helper is wrong", ""])
def test_no_other_death_leads_to_a_browser_without_sandbox(stage: Stage, found: Found, words: str) -> None:
    found.add("chromium", NO_SANDBOX)
    found.add("google-chrome", words)
    sentence = stage.failure(Launcher(LaunchSettings()))
    assert found.starts() == [("chromium", True), ("google-chrome", True)]
    assert f"{found.folder}/chromium finds no usable sandbox; {found.folder}/google-chrome " in sentence


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("words", [NO_SANDBOX, NO_NAMESPACE])
def test_sandbox_on_refuses_with_what_brings_it_back(stage: Stage, found: Found, words: str) -> None:
    found.add("chromium", words)
    sentence = stage.failure(Launcher(LaunchSettings(sandbox="on")))
    assert sentence == f"no browser finds a usable sandbox, as --sandbox on asks; {sandbox_way_back()}"
    assert found.starts() == [("chromium", True)]


@pytest.mark.usefixtures("ordinary_user")
def test_sandbox_off_starts_without_trying(stage: Stage, found: Found, chromium: str) -> None:
    found.add("chromium", NO_SANDBOX, without_sandbox=f'exec {chromium} "$@"')
    launcher = Launcher(LaunchSettings(sandbox="off"))
    assert not stage.start(launcher).sandbox
    assert found.starts() == [("chromium", False)]
    assert launcher.sandbox is not None
    assert launcher.sandbox.reason == "--sandbox off"


def test_root_has_no_sandbox_and_is_told_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, found: Found, chromium: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found.add("chromium", NO_SANDBOX, without_sandbox=f'exec {chromium} "$@"')
    launcher = Launcher(LaunchSettings())
    stage.start(launcher)
    assert found.starts() == [("chromium", False)]
    assert launcher.sandbox is not None
    assert launcher.sandbox.reason.startswith("Pluto runs as root")
    with pytest.raises(BrowserFailed, match="--sandbox on needs another user"):
        check_sandbox("on")


@pytest.mark.parametrize(
    ("switch", "value", "words"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "the AppArmor profile in SECURITY.md, or run: sudo sysctl",
        ),
        ("kernel/unprivileged_userns_clone", "0", "run: sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "run: sudo sysctl -w user.max_user_namespaces=15000"),
        ("user/max_user_namespaces", "9000", "let the container's seccomp profile allow user namespaces"),
    ],
)
def test_the_way_back_is_that_of_the_kernel_s_own_switch(tmp_path: Path, switch: str, value: str, words: str) -> None:
    (tmp_path / switch).parent.mkdir()
    (tmp_path / switch).write_text(f"{value}\n")
    assert words in sandbox_way_back(tmp_path)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_without_an_x_server_headed_refuses_in_words(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, chromium: str
) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", NO_SERVER)  # the stage has no other
    assert stage.failure(Launcher(LaunchSettings(chromium, headed=True, sandbox="off"))) == (
        f"Chromium finds no display server (DISPLAY is {NO_SERVER}); start one, or use --browser-mode headless"
    )


# --- other deaths -----------------------------------------------------------------------------------------------------

OTHER = "or choose another browser with --browser"
SHARED_MEMORY = "Creating shared memory in /dev/shm/.org.chromium.Chromium.HVQ2Vb failed: No space left on device (28)"
NOISE = "[7:7:1125/230256.391166:ERROR:dbus/bus.cc:405] Failed to connect to the bus: Could not parse server address"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (NO_LIBRARY, "lacks the library libnss3.so: install what it needs (Debian, Ubuntu: sudo .venv/bin/python"),
        (
            f"[7:7:1/2:FATAL:x.cc:1] {SHARED_MEMORY}",
            f"ended as it started and said: {SHARED_MEMORY}; mend that, {OTHER}",
        ),
        (f"one\ntwo\n{NOISE}", f"ended as it started and said: two; mend that, {OTHER}"),
        (f"[7:7:1/2:FATAL:x.cc:1] first\n#0 0x55\n{NOISE}", f"ended as it started and said: first; mend that, {OTHER}"),
        ("", f"ended as it started, with exit code 1 and without a word: try it by hand, {OTHER}"),
    ],
)
def test_a_death_at_launch_is_the_browser_s_own_last_words(
    stage: Stage, tmp_path: Path, words: str, sentence: str
) -> None:
    path = dying(tmp_path / "browser", words, without_sandbox=":")
    assert stage.failure(Launcher(LaunchSettings(path))).startswith(f"{path} {sentence}")


def test_a_browser_that_can_t_be_executed_is_said(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "browser"
    path.write_text("#!/no/such/shell\n")
    path.chmod(0o755)
    assert (
        stage.failure(Launcher(LaunchSettings(str(path))))
        == f"{path} can't be run (ENOENT): check its permissions, {OTHER}"
    )


def test_a_browser_that_is_too_old_is_said(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "browser"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os\n"
        "while chunk := os.read(3, 65536):\n"
        "    if b'Browser.close' in chunk: break\n"
        "    for message in chunk.split(b'\\0')[:-1]:\n"
        "        error = {'code': -32601, 'message': \"'It' wasn't found\"}\n"
        "        os.write(4, json.dumps({'id': json.loads(message)['id'], 'error': error}).encode() + b'\\0')\n"
    )
    path.chmod(0o755)
    sentence = stage.failure(Launcher(LaunchSettings(str(path))))
    assert re.fullmatch(f"{path} is too old for this Playwright, it doesn't know [\\w.]+: update it, {OTHER}", sentence)


def test_a_browser_that_never_answers_is_ended_and_said(stage: Stage, tmp_path: Path) -> None:
    path = script(tmp_path / "browser", f"echo $$ > {tmp_path}/pid\nexec sleep 600")
    sentence = stage.failure(Launcher(LaunchSettings(path), limit=1.0))
    assert sentence.startswith(f"{path} gave no answer within 1 s: ")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(pid), what="it doesn't stay beside the next")


# --- the driver -------------------------------------------------------------------------------------------------------


DRIVER_FAILURES = (  # what is in the place of Node.js, and what is said then
    (None, "Playwright's Node.js can't be run ({node}: No such file or directory): "),
    ("echo nonsense >&2; exit 1", "Playwright's Node.js can't run ({node} said: nonsense): "),
    (
        "echo node: error while loading shared libraries: libodd.so.9: no such file >&2; exit 127",
        "Playwright's driver lacks the library libodd.so.9: install the package that contains it",
    ),
    ('[ "$1" = --version ] && exit 0; exit 1', "Playwright's driver ended as it started ("),
    ('[ "$1" = --version ] && exit 0; sleep 600', "Playwright's driver did not start within 1 s and was ended: "),
    ("exec sleep 600", "Playwright's driver did not start within 1 s and was ended: "),
)


def test_a_driver_that_does_not_start_or_a_later_error_is_said_and_the_thread_can_start_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failure(folder: str, number: int, text: str | None) -> str:
        node = str(tmp_path / f"node {number}") if text is None else script(tmp_path / f"node {number}", text)
        monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", node)
        driver = Driver(folder, start_limit=1.0 if text is not None and "sleep" in text else 20.0)
        with pytest.raises(DriverFailed) as failed, driver.running(nothing):
            pass
        assert driver.process is None
        return str(failed.value).replace(node, "{node}")

    def run() -> list[str]:
        with temporary_folder() as folder:
            said = [failure(folder, number, text) for number, (text, _) in enumerate(DRIVER_FAILURES)]
            monkeypatch.delenv("PLAYWRIGHT_NODEJS_PATH")
            with pytest.raises(ZeroDivisionError), Driver(folder).running(nothing):
                raise ZeroDivisionError
            with Driver(folder).running(nothing):
                return said

    for said, (_, sentence) in zip(in_a_thread(run), DRIVER_FAILURES, strict=True):
        assert said.startswith(sentence)
    gc.collect()
    assert not caplog.records, "nor is anything else said"


def test_a_driver_is_killed_while_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = script(tmp_path / "node", '[ "$1" = --version ] && exit 0; sleep 600')
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", node)
    with temporary_folder() as folder, ThreadPoolExecutor(1) as threads:
        driver = Driver(folder)

        def run() -> None:
            with driver.running(nothing):
                pass

        started = threads.submit(run)
        wait_until(lambda: (process := driver.process) and descendants(process.pid), what="it hangs, after its version")
        driver.kill()
        with pytest.raises(DriverFailed):
            started.result(timeout=5)


# --- the folder for temporary files -----------------------------------------------------------------------------------


def test_only_folders_that_pluto_made_and_left_behind_are_removed(root: Path) -> None:
    photos, unmarked = root / "pluto-123-photos", root / "pluto-4194999-abcd"
    for folder in (photos, unmarked):
        folder.mkdir()
        (folder / "holiday.jpg").touch()
    (root / "pluto-notes").write_text("a file")
    (root / "pluto-link").symlink_to(photos)
    with temporary_folder() as ours:
        (Path(ours) / "profile").mkdir()
        (Path(ours) / "profile" / "file").touch()
        with temporary_folder() as other:
            assert Path(ours).exists(), "it is in use, also by a process of the same id"
        assert not Path(other).exists()
    assert {path.name for path in root.iterdir()} == {photos.name, unmarked.name, "pluto-notes", "pluto-link"}
    assert (photos / "holiday.jpg").exists()


HOLD = """
import sys
from tradingview.machine import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("starter", [(), ("unshare", "--user", "--map-root-user", "--pid", "--fork")])
def test_a_folder_in_use_stays_until_its_pluto_ends_however_that_ends(root: Path, starter: tuple[str, ...]) -> None:
    if starter and subprocess.run([*starter, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process ids of its own here, as a container has them")
    command = [*starter, sys.executable, "-c", HOLD]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert folder.parent == root
        (folder / "file").touch()
        with temporary_folder():
            assert (folder / "file").exists()
        processes = [*descendants(holder.pid), psutil.Process(holder.pid)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=5)
    assert folder.exists()
    with temporary_folder():
        assert not folder.exists()


def test_pluto_leaves_another_pluto_s_folder_alone_across_process_ids(root: Path) -> None:
    """From within a container, where no process has the number of ours."""
    starter = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    if subprocess.run([*starter, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process ids of its own here, as a container has them")
    with temporary_folder() as ours:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        subprocess.run([*starter, sys.executable, "-c", HOLD], check=True, input="", text=True, env=environment)
        assert Path(ours, LOCK).exists()


@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_a_bad_tmpdir_falls_back_like_python_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    bad = Path("/proc/sys") if kind == "read-only" else tmp_path / "x"
    if kind == "file":
        bad.touch()
    monkeypatch.setenv("TMPDIR", str(bad))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what Python remembers
    assert temporary_root() == tempfile.gettempdir() != str(bad)
    with temporary_folder() as folder:
        assert Path(folder).parent == Path(tempfile.gettempdir())
    assert f"Pluto can't write to TMPDIR ({bad}); temporary files go to " in caplog.text


# --- Pluto and its set-up as programs of their own --------------------------------------------------------------------

AT_ONCE = 3
LIMIT_S = 60.0  # until a price is live, with so many browsers beside it


stories = Stories()  # each gets the simulator, the path of Chromium and a folder of its own; the longest first


def real_node() -> Path:
    return Path(playwright.__file__).parent / "driver" / "node"


def set_up(
    *starter: str, program: tuple[str, ...] = ("-m", "tradingview.browser"), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*starter, sys.executable, *program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        env={**clean_environment(), **environment},
    )


def restricted(folder: Path) -> str:
    """Runs a command as an ordinary user for whom the kernel makes no user namespaces any more."""
    outer = "echo 1 > /proc/sys/user/max_user_namespaces"
    inner = f"unshare --user --map-user={ORDINARY_USER} --map-group={ORDINARY_USER}"
    starter = script(
        folder / "restricted", f'exec unshare --user --map-root-user sh -c \'{outer} && exec {inner} "$@"\' sh "$@"'
    )
    tried = subprocess.run([starter, "unshare", "--user", "true"], capture_output=True, text=True)
    if "No space left on device" not in tried.stderr:  # what the kernel says when the limit is reached
        pytest.skip(f"user namespaces can't be restricted here: {tried.stderr}")
    return starter


def without_helper(folder: Path, chromium: str) -> str:
    """The real Chromium, without Debian's setuid helper: as Playwright's own comes."""
    return script(folder / "without_helper", f'exec {chromium} --disable-setuid-sandbox "$@"')


# No user namespaces, but all user ids, so that a setuid program still becomes root. Takes root itself.
ONLY_SETUID = """
import ctypes, os, sys
ready_to_map, mapped = os.pipe(), os.pipe()
pid = os.getpid()
if os.fork() == 0:
    os.read(ready_to_map[0], 1)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{pid}/{name}", "w").write("0 0 65536")
    os.write(mapped[1], b".")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
os.write(ready_to_map[1], b".")
os.read(mapped[0], 1)
os.wait()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@stories
def neither_a_bad_environment_nor_a_slow_driver_keeps_a_price_away(
    simulator: Simulator, chromium: str, folder: Path
) -> None:
    """A TMPDIR that isn't there, variables that can only harm, no X server, and a driver that takes 6 s to start."""
    slow = f'[ "$1" = --version ] || [ -e {folder}/was_slow ] || {{ touch {folder}/was_slow; sleep 6; }}'
    node = script(folder / "node", f'{slow}\nexec {real_node()} "$@"')
    harm = {"NODE_OPTIONS": "--require /no/such/file.js", "PWDEBUG": "1", "SELENIUM_REMOTE_URL": "http://127.0.0.1:9"}
    odd = {"TMPDIR": "/no/such/folder", "PLAYWRIGHT_NODEJS_PATH": node, "DISPLAY": NO_SERVER, "WAYLAND_DISPLAY": ""}
    log = folder / "log"
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD", "--browser-mode", "auto")
    with running_pluto(*options, log=str(log), **harm, **odd) as pluto:
        started = time.monotonic()
        pluto.wait_for("BTCUSD", "live", LIMIT_S)
        assert time.monotonic() - started > 5, "Pluto listens long before its browser is there"
        assert pluto.http.get("/health").json()["scraper"] == "running"
        processes = commands(descendants(pluto.process.pid))
        drivers = [process for process, command in processes.items() if "run-driver" in command]
        browser = next(process for process, command in processes.items() if is_browser(command))
        assert drivers
        assert "--headless" in processes[browser]
        for process in (*drivers, browser):
            assert harm.keys().isdisjoint(process.environ()), "they reach neither driver nor browser"
        browser.kill()
        wait_until(lambda: pluto.quote("BTCUSD")["state"] != "live", 20)
        pluto.wait_for("BTCUSD", "live", LIMIT_S)
    said = log.read_text()
    assert "hangs" not in said
    no_server = f"Chromium finds no display server (DISPLAY is {NO_SERVER}), so the browser is headless"
    assert said.count(no_server) == 1, "once"


@stories
def a_browser_whose_pages_don_t_open_is_passed_over_at_set_up(
    simulator: Simulator, chromium: str, folder: Path
) -> None:
    """Playwright may wait for its page forever, also once the browser has ended."""
    hide_browsers(folder)
    script(folder / "chromium", f'[ "$1" = --version ] || exec {chromium} --renderer-cmd-prefix=/bin/false "$@"')
    works = script(folder / "google-chrome", f'[ "$1" = --version ] || exec {chromium} "$@"')
    ended = set_up(
        program=("-c", "from tradingview.browser import main; exit(main(page_limit=10.0))"),
        PATH=f"{folder}:/usr/bin:/bin",
        PLUTO_BROWSER="",
        PLAYWRIGHT_BROWSERS_PATH="/no/such/folder",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{works}\n", "")


@stories
def where_the_kernel_gives_no_namespaces_prices_come_without_sandbox_and_it_is_said(
    simulator: Simulator, chromium: str, folder: Path
) -> None:
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD")
    log, browser = folder / "log", without_helper(folder, chromium)
    with running_pluto(*options, starter=restricted(folder), log=str(log), PLUTO_BROWSER=browser) as pluto:
        pluto.wait_for("BTCUSD", "live", LIMIT_S)
        health = pluto.http.get("/health").json()
        assert health["sandbox"] == "off"
        assert "no browser finds a usable sandbox" in health["sandboxReason"]
        assert any("--no-sandbox" in command for command in commands(descendants(pluto.process.pid)).values())
    assert log.read_text().count("the browser runs without its sandbox: ") == 1


@stories
def a_setuid_helper_keeps_the_sandbox_on(simulator: Simulator, chromium: str, folder: Path) -> None:
    helper = Path("/usr/lib/chromium/chrome-sandbox")
    if os.geteuid() != 0 or shutil.which("setpriv") is None or not helper.exists():
        pytest.skip("takes root, setpriv and Debian's package chromium-sandbox")
    (folder / "only_setuid.py").write_text(ONLY_SETUID)
    starter = f"{sys.executable} {folder}/only_setuid.py {AS_NOBODY}"
    tried = subprocess.run([*starter.split(), "unshare", "--user", "true"], capture_output=True, text=True)
    if "No space left on device" not in tried.stderr:
        pytest.skip(f"user namespaces can't be restricted here: {tried.stderr}")
    options = ("--source-url", simulator.url, "--tickers", "BTCUSD")
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, NOBODY, NOBODY)
        with running_pluto(*options, starter=starter, HOME=home, TMPDIR=home, PLUTO_BROWSER=chromium) as pluto:
            pluto.wait_for("BTCUSD", "live", LIMIT_S)
            assert pluto.http.get("/health").json()["sandbox"] == "on"
            assert not any("--no-sandbox" in command for command in commands(descendants(pluto.process.pid)).values())


@stories
def a_death_at_launch_is_one_line_of_the_log_and_each_ticker_s_reason(
    simulator: Simulator, chromium: str, folder: Path
) -> None:
    path = dying(folder / "browser", NO_LIBRARY, without_sandbox=":")
    log = folder / "log"
    with running_pluto("--tickers", "BTCUSD", log=str(log), PLUTO_BROWSER=path) as pluto:
        reason = pluto.wait_for("BTCUSD", "error", LIMIT_S)["reason"]
        assert "sandbox" not in pluto.http.get("/health").json()
    assert reason.startswith(f"no browser: {path} lacks the library libnss3.so: install what it needs")
    lines = log.read_text().splitlines()
    assert any(reason in line for line in lines)
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in lines), "no riddle, no traceback"


@stories
def set_up_accepts_one_that_works_only_without_its_sandbox(simulator: Simulator, chromium: str, folder: Path) -> None:
    browser = without_helper(folder, chromium)
    ended = set_up(restricted(folder), PLUTO_BROWSER=browser)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{browser}\n", "")


@stories
def sandbox_on_as_root_ends_pluto_with_one_sentence(simulator: Simulator, chromium: str, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root")
    command = [sys.executable, str(PROJECT / "app.py"), "--port", "0", "--sandbox", "on"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment())
    assert ended.returncode == 1
    assert ended.stderr == "pluto: --sandbox on needs another user: Chromium has no sandbox for root.\n"


@stories
def a_driver_that_lacks_a_library_is_said_in_one_line(simulator: Simulator, chromium: str, folder: Path) -> None:
    words = "node: error while loading shared libraries: libatomic.so.1: cannot open shared object file"
    node = script(folder / "node", f"echo '{words}' >&2\nexit 127")
    log = folder / "log"
    with running_pluto("--tickers", "BTCUSD", log=str(log), PLAYWRIGHT_NODEJS_PATH=node) as pluto:
        reason = pluto.wait_for("BTCUSD", "error", LIMIT_S)["reason"]
    assert reason == (
        "no browser: Playwright's driver lacks the library libatomic.so.1: "
        "install it (Debian, Ubuntu: sudo apt install libatomic1)"
    )
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in log.read_text().splitlines())


@pytest.fixture(scope="module")
def outcomes(
    simulator: Simulator, chromium: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Outcomes:
    """What has become of the stories that this run selects. Some are told at the same time: they wait, too."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {
            story: pool.submit(story, simulator, chromium, tmp_path_factory.mktemp("story"))
            for story in stories.selected(request)
        }


@pytest.mark.timeout(240)  # for the first, that waits for them all
@stories.each
def test_of_a_program(outcomes: Outcomes, story: Story) -> None:
    outcomes[story].result()


# --- the processors ---------------------------------------------------------------------------------------------------


def test_only_the_allowed_processors_count() -> None:
    limit = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{limit}; from tradingview.patience import Patience; print(Patience().max_loading)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "3\n"


@pytest.mark.parametrize(
    ("own", "around", "cpus"),
    [("150000 100000", "max 100000", 2), ("max 100000", "50000 100000", 1), ("max 100000", None, 8), (None, None, 8)],
)
def test_a_container_s_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, around: str | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpuset:/elsewhere\n0::/pluto/scraper\n")
    group = tmp_path / "sys/fs/cgroup/pluto/scraper"
    group.mkdir(parents=True)
    for folder, quota in ((group, own), (group.parent, around)):
        if quota is not None:
            (folder / "cpu.max").write_text(f"{quota}\n")
    assert usable_cpus(tmp_path) == cpus


def test_where_proc_is_not_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus(tmp_path) == os.cpu_count()
    assert "sandbox" in sandbox_way_back(tmp_path)


# --- at set-up --------------------------------------------------------------------------------------------------------


def test_set_up_says_in_one_sentence_why_none_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dying(tmp_path / "browser", NO_LIBRARY, without_sandbox=":")
    monkeypatch.setenv("PLUTO_BROWSER", path)
    assert in_a_thread(main) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path} lacks the library libnss3.so: ")
    assert len(err.splitlines()) == 1


def test_set_up_says_when_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PATH", tmp_path), ("PLAYWRIGHT_BROWSERS_PATH", tmp_path), ("PLUTO_BROWSER", "")):
        monkeypatch.setenv(name, str(value))
    assert in_a_thread(main) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("No Chromium found: install the package 'chromium'")


# --- the flags --------------------------------------------------------------------------------------------------------


def test_playwright_s_own_list_of_disabled_features_is_repeated(stage: Stage, tmp_path: Path) -> None:
    """Chromium takes only the last list it is given: one that an upgrade of Playwright changes must be copied anew."""
    path = dying(tmp_path / "browser", "dead", without_sandbox=":")
    stage.failure(Launcher(LaunchSettings(path)))
    playwrights, ours = re.findall(r"--disable-features=(\S+)", (tmp_path / "starts").read_text())
    assert set(playwrights.split(",")) == set(PLAYWRIGHTS_DISABLED_FEATURES)
    assert ours.split(",") == list(DISABLED_FEATURES)
