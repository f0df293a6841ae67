"""A process that sends messages to one notify URL, by Apprise: `python -m alerts.send`.

It reads JSON lines: first {"url", "limit"}, then {"title", "body"} for each message. It answers each by one: first
{"service", "pause"} or {"problem"}, then {"error"} for each message, which is empty if the receiver has it. `pause` is
how many seconds Apprise waits between two messages. No answer has any part of the URL, and what plugins print or log
goes nowhere. The process ends when its input ends; and by SIGALRM if a message takes too long, should Pluto be gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

NOT_INSTALLED, NOT_UNDERSTOOD = "apprise", "url"  # problems

_STATUS = re.compile(r"\berror=(\d{3})\b")


def main() -> None:
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a plugin prints is no answer

        def answer(**fields: object) -> None:
            answers.write(json.dumps(fields) + "\n")

        try:
            serve(sys.stdin, answer)
        except ImportError:
            answer(problem=NOT_INSTALLED)
        answers.flush()
        os._exit(0)  # a thread of a plugin may still wait


def serve(lines: Iterable[str], answer: Callable[..., None]) -> None:
    from apprise import Apprise, AppriseAsset, NotifyFormat, URLBase

    lines = iter(lines)
    first = json.loads(next(lines))
    service = Apprise.instantiate(first["url"], asset=AppriseAsset(service_timeout=0))
    if service is None:
        answer(problem=NOT_UNDERSTOOD)
        return
    if service.socket_read_timeout == URLBase.socket_read_timeout:  # Apprise's own is 4 s; a URL may have another
        service.socket_read_timeout = first["limit"]
    apprise = Apprise()
    apprise.add(service)
    pause = float(service.request_rate_per_sec)
    answer(service=str(service.service_name), pause=pause)
    for line in lines:
        message = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, first["limit"] + pause + 1)
        try:
            error = error_of(apprise.notify(**message, body_format=NotifyFormat.TEXT))
        except Exception as failure:
            error = f"Apprise failed: {type(failure).__name__}."
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer(error=error)


def error_of(result: Any) -> str:
    """Why a message was not sent, in words that can't have any part of the URL; empty if it was."""
    if result:
        return ""
    said = "\n".join(entry.message for entry in result.logs())
    if match := _STATUS.search(said):
        return f"The receiver answered {match[1]}{_phrase(int(match[1]))}."
    if "connection error" in said.lower():
        return "The receiver can't be reached, or it broke off or refused the message."
    return "Apprise could not send it."


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


if __name__ == "__main__":
    main()
