"""File descriptors: how many this process may open, and how many of them clients may take.

This file owns the process's limit and its arithmetic. It opens nothing and decides nothing about a client: the server
asks `left` before it accepts one. `raise_limit` is called once, before any client; all else on any thread.

The usual soft limit is low (1,024; 256 on macOS) for the sake of programs that use select(), which knows no higher
numbers, or that close every possible descriptor when they start. Pluto does neither, and one client takes one
descriptor. Programs that Pluto starts may do either: they get the old soft limit back.
"""

from __future__ import annotations

import os
import resource

from quotes import PlutoError

WANTED = (65_536, 10_240)  # the second where the first isn't possible: OPEN_MAX of macOS
MIN_LIMIT = 256
OWN = 64  # of Pluto itself: 15 or so, and what is to come
KEPT_FREE = 64  # by the server, for what comes up: the start of a driver and its browser, files
REQUESTS = 2_000  # connections that aren't streams need no more; where there are few descriptors, they get a quarter


class TooFewDescriptors(PlutoError):
    code = "too_few_descriptors"


def raise_limit() -> int:
    """Raises the soft limit as far as the hard one allows. Returns what it was. Raises TooFewDescriptors."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WANTED:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if limit() >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
        except (ValueError, OSError):  # the system has a lower one than it says
            continue
    if limit() < MIN_LIMIT:
        raise TooFewDescriptors(
            f"Only {limit()} files may be open at once, and Pluto needs {MIN_LIMIT}: raise ulimit -n."
        )
    return before


def limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED[0] if soft == resource.RLIM_INFINITY else soft


def room_for_streams() -> int:
    """How many streams may be open beside all else that takes a descriptor."""
    free = limit() - OWN - KEPT_FREE
    return free - min(REQUESTS, free // 4)


def left(descriptor: int) -> int:
    """How many descriptors are free. The system gives out the lowest free number: it shows how many are used."""
    lowest = os.dup(descriptor)
    os.close(lowest)
    return limit() - lowest
