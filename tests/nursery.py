"""Starts Pluto and the simulator in a tenth of the time: one process imports what they need, and forks for each.

`Forked` is the tests' side. As a program, this file is the nursery: each request on its standard input, a socket, is a
program's arguments and environment as JSON, beside four descriptors: its standard input, output and error, and where to
say its process id and, in the end, its exit code. Linux only.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

PRELOADED = ("app", "scraper", "relay.source", "relay.alerts", "simulator.server", "simulator.replay", "gevent.pywsgi")
MAX_REQUEST = 128 * 1024  # bytes
_asking = threading.Lock()


class Forked(subprocess.Popen[str]):
    """A Python program as a process of its own, used as if it were started: `python ARGUMENTS…`.

    Its output is a pipe, unless `output` says where it goes; `errors` is by default the tests' own.
    """

    def __init__(
        self, arguments: list[str], environment: dict[str, str], output: int | None = None, errors: int | None = None
    ) -> None:
        (its_input, our_input), (our_output, its_output), (our_report, its_report) = os.pipe(), os.pipe(), os.pipe()
        request = json.dumps([arguments, environment]).encode()
        assert len(request) < MAX_REQUEST
        standard = [its_input, its_output if output is None else output, 2 if errors is None else errors]
        with _asking:
            nursery = _nursery()
        socket.send_fds(nursery, [request], [*standard, its_report])
        for descriptor in (its_input, its_output, its_report):
            os.close(descriptor)
        self.args, self.returncode = arguments, None
        self.stdin, self.stdout, self.stderr = os.fdopen(our_input, "w"), os.fdopen(our_output), None
        self._report = os.fdopen(our_report)
        self.pid = int(self._report.readline())

    def poll(self) -> int | None:
        if self.returncode is None and self._has_reported(0):
            with self._report:
                self.returncode = int(self._report.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self._has_reported(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def _has_reported(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


@cache
def _nursery() -> socket.socket:
    """The socket to the nursery of this process, which ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path}
    with its:
        process = subprocess.Popen(
            [sys.executable, __file__], stdin=its.fileno(), env=environment, start_new_session=True
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def main(requests: socket.socket) -> None:
    """Forks for each request until the tests have ended. Returns in the programs: they are to run what is asked for."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the children share these pages
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
        if not request:
            sys.exit()
        if not os.fork():
            requests.close()
            return _keep(*json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        while _reap():
            pass


def _reap() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _keep(arguments: list[str], environment: dict[str, str], *descriptors: int) -> None:
    """Waits for the program, as the nursery can't. Returns in the program."""
    *standard, report = descriptors
    if program := os.fork():
        for descriptor in standard:
            os.close(descriptor)
        os.write(report, f"{program}\n".encode())
        status = os.waitpid(program, 0)[1]
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.setsid()  # a process group of its own, as a terminal gives it
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.close(report)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments


def run(file: str) -> None:
    if file == "-m":
        runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(file).parent)
        runpy.run_path(file, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=0))
    run(sys.argv[0])
