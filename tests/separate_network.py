"""A network namespace of its own, behind a link that can be cut: what is sent over it is lost, as by a pulled cable.

Only root can make one, on Linux, with `ip` (Debian's iproute2). Nothing of it leaves the machine: the addresses are of
198.18.0.0/15, which RFC 2544 keeps for benchmarks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class SeparateNetwork:
    """`address` is where a server inside listens; `starter` starts it there."""

    def __init__(self) -> None:
        number = os.getpid() % 32_768
        self.name = f"pluto-{number}"
        self.address, self._near = (f"198.18.{number // 64 % 256}.{number % 64 * 4 + end}" for end in (2, 1))
        self.starter = ("ip", "netns", "exec", self.name)

    def make(self) -> None:
        """Raises CalledProcessError where there may be none."""
        here, there = f"{self.name}-n", "far"
        ip("netns", "add", self.name)
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
        ip("address", "add", f"{self._near}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", there)
        ip("-n", self.name, "link", "set", there, "up")

    def cut(self) -> None:
        """What is sent from inside gets lost from now on."""
        ip("-n", self.name, "route", "add", "blackhole", f"{self._near}/32")

    def mend(self) -> None:
        ip("-n", self.name, "route", "delete", "blackhole", f"{self._near}/32")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


@contextmanager
def separate_network() -> Iterator[SeparateNetwork | None]:
    """None where none can be made."""
    network = SeparateNetwork()
    if shutil.which("ip") is None:
        yield None
        return
    try:
        try:
            network.make()
        except subprocess.SubprocessError:
            yield None
        else:
            yield network
    finally:
        subprocess.run(["ip", "netns", "delete", network.name], capture_output=True, timeout=10)
