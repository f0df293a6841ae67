"""A courier: the child process that sends to one notify URL, as long as Pluto runs.

This file owns that process: its start, its time limits and its end. The URL goes through a pipe, so that it is in no
process's arguments or environment; no error has any part of it. One thread uses a courier; any thread may kill its
process.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from copy import copy
from pathlib import Path
from typing import Any

from alerts.messages import Message
from alerts.send import NOT_INSTALLED, NOT_UNDERSTOOD
from quotes import PlutoError

PROJECT = Path(__file__).parent.parent
START_LIMIT_S = 30.0
LOOPBACK = "localhost,127.0.0.0/8,::1"  # never by a proxy


class CantNotify(PlutoError):
    """The settings of notify URLs are of no use as they are."""

    code = "cant_notify"


class Gone(Exception):
    """The process has ended, or has not answered in time. The text is for people."""


class Courier:
    """Sends to the URL that is number `ordinal` of the settings.

    A message may take `limit` seconds, and the pause that its service wants after the one before.
    """

    def __init__(self, ordinal: int, url: str, limit: float) -> None:
        self.target = target_of(url)
        self.name = str(ordinal)  # and the service's name, once that is known: "2: ntfy"
        self.knows_url = False  # that it is one which Apprise understands
        self._ordinal, self._url, self._limit = ordinal, url, limit
        self._pause = 0.0  # that the service wants between two messages
        self._environment = _environment()
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    def another(self) -> Courier:
        """One more for the same URL, with a process of its own."""
        courier = copy(self)
        courier._process, courier._heard = None, b""
        return courier

    def start(self) -> None:
        """Begins the process, and doesn't wait for it."""
        self._heard = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "alerts.send"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=PROJECT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is Pluto's to handle
        )

    def greet(self) -> None:
        """Waits until the process knows its URL. Raises CantNotify, and Gone if the process fails."""
        answer = self._ask({"url": self._url, "limit": self._limit}, START_LIMIT_S)
        problem = answer.get("problem")
        if problem == NOT_INSTALLED:
            raise CantNotify("Apprise is not installed: start Pluto by ./run.sh, or install requirements-notify.txt.")
        if problem == NOT_UNDERSTOOD:
            raise CantNotify(
                f"Notify URL {self._ordinal} is none that Apprise understands: compare it with Apprise's own list "
                "(https://github.com/caronc/apprise/wiki)."
            )
        self.name, self._pause = f"{self._ordinal}: {answer['service']}", answer["pause"]
        self.knows_url = True

    def send(self, message: Message) -> str:
        """Sends it. Returns why it may not have arrived, for people; empty if the receiver has it."""
        try:
            if self._process is None:
                self.start()
                self.greet()
            return str(self._ask(message._asdict(), self._limit + self._pause)["error"])
        except (Gone, CantNotify) as error:
            self.stop()
            return str(error)
        except OSError as error:
            self.stop()
            return f"No process to send with: {error.strerror}."

    def kill(self) -> None:
        """Any thread: ends the process at once, also while another thread waits for its answer."""
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _ask(self, question: dict[str, Any], limit: float) -> dict[str, Any]:
        """The process's answer. Raises Gone."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + limit
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            poll = select.poll()
            poll.register(process.stdout, select.POLLIN)
            while b"\n" not in self._heard:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise Gone(f"No answer within {limit:g} s.")
                if not (heard := os.read(process.stdout.fileno(), 65_536)):
                    raise Gone("The process that sends has ended.")
                self._heard += heard
        except BrokenPipeError:
            raise Gone("The process that sends has ended.") from None
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def target_of(url: str) -> str:
    """The key by which the store knows a notify URL; slow to compute, so that it can't be guessed from."""
    return hashlib.pbkdf2_hmac("sha256", url.encode(), b"Pluto notify URL", 200_000, 8).hex()


def _environment() -> dict[str, str]:
    """Pluto's own, but no proxy for this machine."""
    environment = dict(os.environ)
    around = environment.get("no_proxy") or environment.get("NO_PROXY")
    if around != "*":  # no proxy for anything
        around = f"{around},{LOOPBACK}" if around else LOOPBACK
    return {**environment, "no_proxy": around, "NO_PROXY": around}
