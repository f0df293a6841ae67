"""Who is shown the page without asking: a user at a terminal of this machine's desktop, and nobody else."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import PROJECT, clean_environment, wait_until

from web.desktop import has_display, opener

OPENERS = ("xdg-open", "open", "wslview")
# Says what it was called with, what it may do to the terminal, and that it takes its time.
OPENER = """#!/bin/sh
{
  echo "$@"
  ulimit -Sn
  tty < /dev/tty || echo no terminal
  echo "${TMPDIR:-no TMPDIR}"
  echo $$
} > "$0.called.new" 2> /dev/null
mv "$0.called.new" "$0.called"
echo "a text browser" > /dev/tty
echo "a text browser"
exec sleep 30
"""
# A user who isn't root, which these tests may be.
AS_A_USER = "import os, sys; os.geteuid = lambda: 1000; import app; sys.exit(app.main(sys.argv[1:]))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a program of each name that may open an address, and a display server. Its path is short, for the socket."""
    with tempfile.TemporaryDirectory() as path, socket.socket(socket.AF_UNIX) as display:
        folder = Path(path)
        for name in OPENERS:
            (folder / name).write_text(OPENER)
            (folder / name).chmod(0o755)
        display.bind(str(folder / "wayland-0"))
        display.listen()
        yield folder


class Terminal:
    """A terminal, and all that was written to it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self._data = b""

    @property
    def text(self) -> str:
        with suppress(OSError):  # nothing new
            self._data += os.read(self.master, 65536)
        return self._data.decode()

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def desktop(folder: Path) -> dict[str, str]:
    """The environment of a user's terminal on a desktop."""
    return {"WAYLAND_DISPLAY": "wayland-0", "XDG_RUNTIME_DIR": str(folder), "DISPLAY": ""}


@pytest.mark.parametrize(
    ("platform", "changes", "expected"),
    [
        ("linux", {}, "xdg-open"),
        ("linux", {"WAYLAND_DISPLAY": "wayland-9"}, None),
        ("linux", {"WAYLAND_DISPLAY": "", "DISPLAY": ":977"}, None),
        ("linux", {"WAYLAND_DISPLAY": "", "DISPLAY": "localhost:10.0"}, None),
        ("linux", {"WAYLAND_DISPLAY": ""}, None),
        ("linux", {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}, None),
        ("linux", {"WAYLAND_DISPLAY": "", "WSL_DISTRO_NAME": "Ubuntu"}, "wslview"),
        ("darwin", {"WAYLAND_DISPLAY": ""}, "open"),
        ("darwin", {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}, None),
    ],
)
def test_what_opens_the_page(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    terminal: Terminal,
    platform: str,
    changes: dict[str, str],
    expected: str | None,
) -> None:
    environment = desktop(folder) | changes
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with open(terminal.slave, "w", closefd=False) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert opener(environment) == (expected and str(folder / expected))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert opener(environment) is None, "root has no desktop"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with open(os.devnull, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert opener(environment) is None, "nobody sits there"


def test_an_x_server_of_this_machine_is_a_display(folder: Path) -> None:
    """Its socket of Linux's abstract kind, which needs no folder that belongs to X."""
    assert not has_display({"DISPLAY": ":976.0"})
    with socket.socket(socket.AF_UNIX) as display:
        display.bind("\0/tmp/.X11-unix/X976")
        display.listen()
        assert has_display({"DISPLAY": ":976.0"})


def run_in(terminal: Terminal, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["prlimit", "--nofile=512:4096", sys.executable, "-c", AS_A_USER, "--port", "0", *options],
        stdin=terminal.slave,
        stdout=terminal.slave,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
        start_new_session=True,
        env={
            **clean_environment(),
            **desktop(folder),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PLUTO_BROWSER": "/bin/false",  # there is no price to wait for
            "PLUTO_ACCESS_TOKEN": "s3cr3t-s3cr3t-s3cr3t",
        },
    )


def test_the_page_is_opened_once_without_the_terminal_and_without_secrets(folder: Path, terminal: Terminal) -> None:
    process = run_in(terminal, folder)
    try:
        called = folder / "xdg-open.called"
        wait_until(called.exists, 20)
        url, limit, tty, temporary, pid = called.read_text().splitlines()
        wait_until(lambda: url in terminal.text)
        assert (limit, tty, temporary) == ("512", "no terminal", "no TMPDIR")
        assert url.startswith("http://localhost:")
        assert "s3cr3t" not in url
        assert "text browser" not in terminal.text
        started = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - started < 5, "what it opened isn't waited for"
        os.kill(int(pid), signal.SIGTERM)  # and lives on
    finally:
        process.kill()
        process.wait()


def test_the_page_is_not_opened_by_who_says_so(folder: Path, terminal: Terminal) -> None:
    process = run_in(terminal, folder, "--no-open")
    try:
        wait_until(lambda: "http://localhost:" in terminal.text, 20)
        process.terminate()
        assert process.wait(10) == 0
        assert not (folder / "xdg-open.called").exists()
    finally:
        process.kill()
        process.wait()
