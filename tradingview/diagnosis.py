"""The diagnosis: why a browser didn't start, in one sentence that says what to do.

This file owns the meaning of Chromium's last words and Playwright's errors. It is pure: it starts nothing and reads
only the texts it is given. Any thread may call it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tradingview.messages import printable

OTHER_BROWSER = "or choose another browser with --browser"

# The browser's own lines and its exit, in Playwright's errors.
_LINE = re.compile(r"^\s*(?:- )?\[pid=\d+\]\[(?:err|out)\] (.*)$", re.MULTILINE)
_EXIT = re.compile(r"<process did exit: exitCode=(\w+), signal=(\w+)>")
# [1234:1234:1125/230102.562131:FATAL:content/browser/zygote_host_impl_linux.cc:128] message
_CHROMIUM_PREFIX = re.compile(r"^\[[\d:/.]+:([A-Z]+):[^\]]*\] ")
# Lines that Chromium prints at every start, even a good one; lines of a shell, a usage text and a stack trace.
_NOISE = re.compile(
    r"[:/](?:dbus|crashpad)/|unexpected operator|The platform failed to initialize"
    r"|^\s*(?:usage:|Try ['`\"]|#\d+ 0x|r\d+: |$|\[end of stack trace\]|Calling _exit)",
    re.IGNORECASE,
)
_NO_SANDBOX = ("No usable sandbox", "Failed to move to new namespace")
_NO_DISPLAY = ("Missing X server or $DISPLAY", "Failed to connect to Wayland display")

# Pattern in the error, and the sentence for it: {path} is the browser's, {0} the pattern's group.
_KNOWN = [
    (
        r"error while loading shared libraries: ([^\s:]+)",
        "{path} lacks the library {0}: install what it needs (Debian, Ubuntu: sudo .venv/bin/python -m playwright "
        "install-deps chromium), ",
    ),
    (r"Protocol error \(([\w.]+)\)", "{path} is too old for this Playwright, it doesn't know {0}: update it, "),
    (
        r"Timeout (\d+)000ms exceeded",
        "{path} gave no answer within {0} s: the machine is too busy, or it is no Chromium; wait, ",
    ),
    (r"Failed to launch: Error: spawn .*?(\w+)$", "{path} can't be run ({0}): check its permissions, "),
]


class Kind(StrEnum):
    """What Pluto can do: start without a sandbox, start without windows, or nothing."""

    NO_SANDBOX = "no sandbox"
    NO_DISPLAY = "no display"
    OTHER = "other"


@dataclass(frozen=True)
class Death:
    """Why a browser ended before Pluto could use it."""

    kind: Kind
    sentence: str


def death_of(path: str, error: str, folder: str, *, is_full: bool) -> Death:
    """Reads Playwright's error about starting the browser at this path.

    `folder` holds the temporary files. If it is full, Chromium dies without a message.
    """
    lines = _LINE.findall(error)
    if any(words in line for line in lines for words in _NO_SANDBOX):
        return Death(Kind.NO_SANDBOX, f"{path} finds no usable sandbox")
    if any(words in line for line in lines for words in _NO_DISPLAY):
        return Death(Kind.NO_DISPLAY, f"{path} can't open a window")
    full_folder = folder if is_full or "ENOSPC" in error else ""
    return Death(Kind.OTHER, _known(path, error, full_folder) or _last_words(path, error, lines))


def disk_is_full(folder: str) -> str:
    return f"the folder for temporary files is full ({folder}): free some space there, or set TMPDIR to another folder"


def _known(path: str, error: str, full_folder: str) -> str:
    for pattern, sentence in _KNOWN:
        if found := re.search(pattern, error, re.MULTILINE):
            return sentence.format(found[1], path=path) + OTHER_BROWSER
    return disk_is_full(full_folder) if full_folder else ""


def _last_words(path: str, error: str, lines: list[str]) -> str:
    if words := _meaningful(lines):
        return f"{path} ended as it started and said: {words}; mend that, {OTHER_BROWSER}"
    if ending := _EXIT.search(error):
        code, signal = ending.groups()
        how = f"exit code {code}" if signal == "null" else signal
        return f"{path} ended as it started, with {how} and without a word: try it by hand, {OTHER_BROWSER}"
    if "has been closed" in error or "onnection closed" in error:
        return f"{path} ended soon after its start, without a word: try it by hand, {OTHER_BROWSER}"
    return f"{path} doesn't start: {shown(first_line(error))}; mend that, {OTHER_BROWSER}"


def _meaningful(lines: list[str]) -> str:
    """The last line that says why; a fatal one if there is any."""
    telling = [line for line in lines if not _NOISE.search(line)]
    fatal = [line for line in telling if (found := _CHROMIUM_PREFIX.match(line)) and found[1] == "FATAL"]
    return shown(_CHROMIUM_PREFIX.sub("", (fatal or telling or [""])[-1]))


def first_line(error: BaseException | str) -> str:
    """The first line of an error's text, made printable; the error's type if it has no text."""
    return printable(next(iter(str(error).splitlines()), type(error).__name__))


def shown(text: str) -> str:
    """A program's output made printable, without the stop at its end."""
    return printable(text).rstrip(".;")
