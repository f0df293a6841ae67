"""The user's desktop: opens Pluto's page for whoever started Pluto in a terminal there.

This file owns whether there is a desktop, and which program opens an address on it. It waits for nothing and says
nothing: the program runs on a thread of its own, without the terminal, so that no text browser can take that over.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing

WITH_LIMIT = ("/bin/sh", "-c", 'ulimit -Sn "$0"; exec "$@"')  # then the limit, the program and its arguments

log = logging.getLogger("pluto")


def open_page(url: str, environment: Mapping[str, str], open_files: int) -> None:
    """Opens the address in the user's browser, if there is a user who would see it."""
    if (program := opener(environment)) is not None:
        command = [*WITH_LIMIT, str(open_files), program, url]
        threading.Thread(target=_run, args=(command, environment), name="opener", daemon=True).start()


def opener(environment: Mapping[str, str]) -> str | None:
    """The program that opens addresses; None without a terminal, for root, from afar, and where there is no display."""
    if sys.stdout is None or not sys.stdout.isatty() or os.geteuid() == 0 or environment.get("SSH_CONNECTION"):
        return None
    if sys.platform == "darwin":
        return shutil.which("open")
    if environment.get("WSL_DISTRO_NAME") and (program := shutil.which("wslview")):
        return program
    return shutil.which("xdg-open") if has_display(environment) else None


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether a Wayland or an X server of this machine answers."""
    addresses = []
    if wayland := environment.get("WAYLAND_DISPLAY"):
        addresses.append(os.path.join(environment.get("XDG_RUNTIME_DIR", ""), wayland))
    if (display := environment.get("DISPLAY", "")).startswith(":"):
        path = f"/tmp/.X11-unix/X{display[1:].partition('.')[0]}"
        addresses += [path, f"\0{path}"]
    return any(_answers(address) for address in addresses)


def _answers(address: str) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(address)
        except (OSError, ValueError):
            return False
    return True


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    nothing = subprocess.DEVNULL
    try:
        status = subprocess.run(
            command, stdin=nothing, stdout=nothing, stderr=nothing, env=environment, start_new_session=True
        ).returncode
        log.debug("%s ended with %d", command[-2], status)
    except OSError as error:
        log.debug("the page can't be opened: %s", error)
