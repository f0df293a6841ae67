"""Several processes of one Pluto: web workers, the scraper, and the supervisor that starts and ends them.

This file owns these processes: what each is told, that one that dies is started again, that SIGHUP replaces the web
workers one after the other, and that none outlives the supervisor. It serves no request and knows no price. `Crew`
runs on the supervisor's main thread, which has no hub; `place_of` and `Place.tell_ready` are for a worker.

    supervisor ─ standard input: its settings; its end is the supervisor's ─▶ worker
               ◀─ standard output: that it is ready ─ standard error: the log ─

Settings go by standard input because everyone may read the arguments of a process.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from settings import Settings
from web.logs import Console

AS_WORKER = "--as-worker"  # the argument of a worker's process; its place's name follows, for people
READY = b"ready\n"
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 30.0  # before a dead worker is started again; doubled with each death
CALM_S = 60.0  # after so long a life the next pause is the first one again
START_LIMIT_S = 30.0  # for a worker that shall replace another one
END_S, WEB_END_S = 2.75, 1.5  # for all workers to end; for the web workers, which end first
LEAVE_S = 5.0  # for a worker that was replaced to end
READ_SIZE = 64 * 1024
MAX_LINE = 1024 * 1024  # bytes of a worker's line; a longer one is cut

log = logging.getLogger("pluto.workers")


@dataclass(frozen=True)
class Place:
    """What a worker is for. `crew` is the name that all workers of one Pluto share.

    `port` is where this worker alone answers, on this machine.
    """

    name: str
    crew: str
    port: int
    settings: Settings

    @property
    def is_web(self) -> bool:
        return self.settings.role == "web"

    def tell_ready(self) -> None:
        """In the worker: it serves from now on."""
        os.write(1, READY)


# --- in a worker ------------------------------------------------------------------------------------------------------


def place_of(arguments: list[str]) -> Place | None:
    """The worker's place, None for a Pluto of one process. From now on the worker ends with its supervisor."""
    if arguments[:1] != [AS_WORKER]:
        return None
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_supervisor, name="supervisor's end", daemon=True).start()
    return Place(**{**told, "settings": Settings(**told["settings"])})


def _end_with_supervisor() -> None:
    """Ends at once: a supervisor that was killed leaves no time, and its port and file are wanted again."""
    while os.read(0, READ_SIZE):
        pass
    os._exit(1)


# --- in the supervisor ------------------------------------------------------------------------------------------------


class Worker:
    """A worker's process, as the supervisor has it."""

    def __init__(self, place: Place, program: Path) -> None:
        self.place, self.started_at, self.is_ready = place, time.monotonic(), False
        self.process = subprocess.Popen(
            [sys.executable, str(program), AS_WORKER, place.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the supervisor's to handle
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died already
            self.process.stdin.write(json.dumps(asdict(place)).encode() + b"\n")

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def fate(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


class Seat:
    """A place, the worker in it, and when the next one may start if there is none."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.worker: Worker | None = None
        self.due_at = 0.0
        self._pause_s = 0.0

    def clear(self) -> float:
        """The worker has died. Returns the seconds until the next one starts."""
        assert self.worker is not None
        now = time.monotonic()
        is_calm = not self._pause_s or now - self.worker.started_at > CALM_S
        self._pause_s = FIRST_PAUSE_S if is_calm else min(2 * self._pause_s, MAX_PAUSE_S)
        self.worker, self.due_at = None, now + self._pause_s
        return self._pause_s


class Crew:
    """All workers. `program` is what each executes."""

    def __init__(self, program: Path, places: list[Place], console: Console) -> None:
        self._program, self._console = program, console
        self._seats = [Seat(place) for place in places]
        self._workers: list[Worker] = []  # all that have not ended, also those without a seat
        self._selector = selectors.DefaultSelector()
        self._has_started = False
        self._shall_replace = False
        self._exit_code: int | None = None  # once Pluto shall end
        self._had_terminal = os.isatty(0)

    def run(self, on_start: Callable[[], None]) -> int:
        """Runs the workers until a signal; calls `on_start` once all serve.

        Returns the exit code: 0, or that of a worker that could not start at first.
        """
        self._watch_signals()
        for seat in self._seats:
            seat.worker = self._start(seat.place)
        self._turn_until(lambda: all(seat.worker is not None and seat.worker.is_ready for seat in self._seats))
        if self._exit_code is None:
            self._has_started = True
            on_start()
        while self._exit_code is None:
            self._turn_until(lambda: self._shall_replace)
            self._replace_web_workers()
        self._end()
        return self._exit_code

    def _start(self, place: Place) -> Worker:
        worker = Worker(place, self._program)
        self._workers.append(worker)
        assert worker.process.stdout is not None
        assert worker.process.stderr is not None
        self._read(worker.process.stderr, Lines(self._console.pass_on).take)
        self._read(worker.process.stdout, lambda data: setattr(worker, "is_ready", worker.is_ready or READY in data))
        return worker

    # --- what it hears ------------------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._read(open(heard, "rb", buffering=0), self._on_signals)  # noqa: SIM115

    def _on_signals(self, numbers: bytes) -> None:
        is_hangup = signal.SIGHUP in numbers
        is_end = signal.SIGINT in numbers or signal.SIGTERM in numbers
        if is_end or (is_hangup and self._had_terminal and not os.isatty(0)):  # its terminal was closed
            self._exit_code = 0
        elif is_hangup:
            self._shall_replace = True

    def _read(self, source: IO[bytes], take: Callable[[bytes], None]) -> None:
        """From now on gives `take` what comes from there, and an empty text at its end."""
        os.set_blocking(source.fileno(), False)

        def read() -> None:
            data = source.read(READ_SIZE)
            if data is None:
                return
            take(data)
            if not data:
                self._selector.unregister(source)
                source.close()

        self._selector.register(source, selectors.EVENT_READ, read)

    # --- what it does -------------------------------------------------------------------------------------------------

    def _turn_until(self, condition: Callable[[], bool], limit_s: float = float("inf")) -> None:
        """Looks after the workers until the condition holds, Pluto shall end or the time is over."""
        deadline = time.monotonic() + limit_s
        while self._exit_code is None and not condition() and time.monotonic() < deadline:
            due = [seat.due_at for seat in self._seats if seat.worker is None]
            self._hear(min([deadline, *due]))
            for seat in self._seats:
                self._look_after(seat)

    def _hear(self, until: float) -> None:
        """Waits for news, but not beyond that moment."""
        wait_s = None if until == float("inf") else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(wait_s):
            key.data()
        self._workers = [worker for worker in self._workers if not worker.has_ended]

    def _look_after(self, seat: Seat) -> None:
        worker = seat.worker
        if worker is None:
            if seat.due_at <= time.monotonic() and self._exit_code is None:
                seat.worker = self._start(seat.place)
        elif worker.has_ended and not self._has_started:
            log.error("%s could not start (%s)", seat.place.name, worker.fate)
            self._exit_code = max(1, worker.process.returncode)
        elif worker.has_ended and self._exit_code is None:
            log.error("%s has ended (%s); it starts again in %.2f s", seat.place.name, worker.fate, seat.clear())

    def _replace_web_workers(self) -> None:
        """One after the other; each begins to serve before the one that it replaces ends."""
        self._shall_replace = False
        for seat in self._seats:
            if not seat.place.is_web:
                continue
            new = self._start(seat.place)
            self._turn_until(lambda new=new: new.is_ready or new.has_ended, START_LIMIT_S)  # type: ignore[misc]
            if self._exit_code is not None:
                return
            if not new.is_ready:
                log.error("the new %s does not start, so the web workers are not replaced", seat.place.name)
                new.process.kill()
                return
            old, seat.worker = seat.worker, new
            self._stop([] if old is None else [old], time.monotonic() + LEAVE_S)
            log.info("%s was replaced", seat.place.name)

    def _end(self) -> None:
        """The web workers end first, so that clients are told of Pluto's end before prices end."""
        deadline = time.monotonic() + END_S
        self._ask_to_end([worker for worker in self._workers if worker.place.is_web], time.monotonic() + WEB_END_S)
        self._stop(self._workers, deadline)

    def _stop(self, workers: list[Worker], deadline: float) -> None:
        """Ends these; kills those that have not ended in time."""
        self._ask_to_end(workers, deadline)
        for worker in workers:
            if not worker.has_ended:
                log.error("%s did not end in time and was killed", worker.place.name)
                worker.process.kill()
                worker.process.wait()
        self._hear(0.0)  # their last lines

    def _ask_to_end(self, workers: list[Worker], deadline: float) -> None:
        """Waits for their end, but not beyond the deadline."""
        for worker in workers:
            worker.process.terminate()
        while time.monotonic() < deadline and not all(worker.has_ended for worker in workers):
            self._hear(deadline)


class Lines:
    """Passes a worker's log on in whole lines, so that the lines of several workers never mix."""

    def __init__(self, pass_on: Callable[[str], None]) -> None:
        self._pass_on = pass_on
        self._rest = b""

    def take(self, data: bytes) -> None:
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if self._rest and (not data or len(self._rest) > MAX_LINE):
            whole, newline, self._rest = whole + newline + self._rest, b"\n", b""
        if newline:
            self._pass_on((whole + newline).decode(errors="backslashreplace"))
