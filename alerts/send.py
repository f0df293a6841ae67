"""A process that sends messages to one notify URL, by Apprise: `python -m alerts.send`.

It reads JSON lines: first {"url", "limit"}, then {"title", "body"} for each message. It answers each by one: first
{"service", "pause"} or {"problem"}, then {"error"} for each message, which is empty if the receiver has it. `pause` is
how many seconds Apprise waits between two messages. No answer has any part of the URL, and what plugins print or log
goes nowhere. The process ends when its input ends; and by SIGALRM if a message takes too long, should Pluto be gone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

NOT_INSTALLED, NOT_UNDERSTOOD = "apprise", "url"  # problems

_STATUS = re.compile(r"\berror=(\d{3})\b")
_SMTP = re.compile(r"\(([45]\d\d), b")
_LOGIN = (
    "The mail server refused the login: check the user name and the password in the notify URL "
    "(some services want an app password)."
)
_CAUSES = {
    "AUTH extension not supported": (
        "The mail server takes no login here: check the port and the mode in the notify URL."
    ),
    r"STARTTLS extension|\[SSL\b": (
        "TLS with the receiver fails: check the port in the notify URL, and the receiver's certificate."
    ),
    "Failed to resolve|[Nn]ame or service not|nodename nor servname|in name resolution|No address associated": (
        "The receiver's host is not known: check it in the notify URL, and this machine's network."
    ),
    "Connection refused|timed out|No route to host|is unreachable": (
        "Nothing answers at the receiver's host and port: check them in the notify URL, and whether the receiver runs."
    ),
}
"""What an exception's text has, and what to do then."""


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

    logging.getLogger("apprise").setLevel(logging.DEBUG)  # only there it says what went wrong with a connection
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
            error = error_of(apprise.notify(**message, body_format=NotifyFormat.TEXT, log_level=logging.DEBUG))
        except Exception as failure:
            error = f"Apprise failed: {type(failure).__name__}."
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer(error=error)


def error_of(result: Any) -> str:
    """Why a message was not sent, in words that can't have any part of the URL; empty if it was."""
    if result:
        return ""
    logs = list(result.logs())
    said = "\n".join(entry.message for entry in logs if entry.level != "DEBUG")
    if match := _STATUS.search(said):
        return f"The receiver answered {match[1]}{_phrase(int(match[1]))}."
    cause = "\n".join(entry.message for entry in logs if entry.message.startswith("Socket Exception: "))
    if match := _SMTP.search(cause):
        sentence = f"The mail server answered {match[1]}: check the sender and the recipient in the notify URL."
        return _LOGIN if match[1] in ("534", "535") else sentence
    for pattern, sentence in _CAUSES.items():
        if re.search(pattern, cause):
            return sentence
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
