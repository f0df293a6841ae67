"""The log: one line an event on standard error, for eyes or for programs, that no text from outside can forge.

This file owns how a line looks, what is hidden in it, how long it gets, and how it reaches the stream. What is worth a
line is decided where it happens; requests are never logged. It may be called on any thread and never makes one wait: a
terminal stopped by Ctrl-S, a pager that waits and a pipe that nobody reads block their writers, so each stream has a
thread of its own that writes. It needs only the standard library.

A ticker, a page's words, a path or a header may hold anything. Whatever could end a line, move the cursor or turn the
reading direction is written as its escape (\\n, \\x1b, \\u202e), in both formats, so that a message is safe wherever it
is shown, and an exception's lines are indented, so that none can pass for a line of its own.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

MAX_LINE = 4_000  # characters of a record's message, and of a line of its traceback
MAX_LINES = 60  # of a traceback, whose end matters most
MAX_WAITING = 256 * 1024  # characters that wait for a stream; what comes beyond them is dropped and counted
END_S = 1.0  # for what still waits to be written when Pluto ends
RETRY_S = 0.02
PLAIN_LINE = "{time:%H:%M:%S} {level:<7} {worker}{message}"

# C0, DEL, C1, surrogates, and what has no width: directions, joiners, line and paragraph separators, byte order marks.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)

# No line of ours holds a secret; a library's exception, or a header in it, might.
_SECRET = re.compile(
    r"""(?ix)
    ( \b(?:proxy-)?authorization ["']? \s*[:=]\s* ["']? | \b(?:set-)?cookie ["']? \s*[:=]\s* ["']? ) [^"'\r\n]+
    | ( \b(?:bearer|basic)\s+ ) [\w.~+/=-]{6,}
    | ( (?:token|password|passwd|secret|api[_-]?key) ["']? \s*[:=]\s* ["']? ) [^\s"'&,;]+
    | ( ://[^\s/:@]{0,100}: ) [^\s/@]{1,200} (?=@)
    """
)
_HIDDEN = "[hidden]"

log = logging.getLogger("pluto")

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None


class WorkerFormatter(logging.Formatter):
    """`worker` names the process among those of this Pluto; empty if there is only one."""

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._worker = worker


class PlainFormatter(WorkerFormatter):
    """12:34:56 WARNING its words, or 12:34:56 WARNING web 2: its words"""

    def format(self, record: logging.LogRecord) -> str:
        line = PLAIN_LINE.format(
            time=datetime.fromtimestamp(record.created),
            level=record.levelname,
            worker=f"{self._worker}: " if self._worker else "",
            message=message_of(record),
        )
        return "\n    ".join([line, *exception_lines_of(record)])


class JsonFormatter(WorkerFormatter):
    """An object a line: time (RFC 3339, UTC, ms), level, worker if there are several, logger, message, and exception
    where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {
            "time": time,
            "level": record.levelname.lower(),
            **({"worker": self._worker} if self._worker else {}),
            "logger": record.name,
            "message": message_of(record),
        }
        if lines := exception_lines_of(record):
            fields["exception"] = "\n".join(lines)
        return json.dumps(fields)


FORMATTERS: dict[str, type[WorkerFormatter]] = {"plain": PlainFormatter, "json": JsonFormatter}


def message_of(record: logging.LogRecord) -> str:
    """The record's words, safe to show."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError):  # a library's words and their arguments don't fit
        text = f"{record.msg} {record.args}"
    return _safe(text.rstrip())


def exception_lines_of(record: logging.LogRecord) -> list[str]:
    """The lines of the record's traceback, safe to show."""
    if not record.exc_info:
        return []
    lines = logging.Formatter().formatException(record.exc_info).split("\n")
    return [_safe(line) for line in lines[-MAX_LINES:]]


def _safe(text: str) -> str:
    shown = text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…"
    hidden = _SECRET.sub(lambda match: f"{next(filter(None, match.groups()))}{_HIDDEN}", shown)
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], hidden)


# --- the streams ------------------------------------------------------------------------------------------------------


class Outlet:
    """Texts on their way to a stream. `put` never waits; the outlet's own thread does.

    The thread writes to the descriptor, not to Python's own stream: that has a lock, and a thread that holds it while
    the interpreter ends would abort the process. `note` words how many texts were dropped.
    """

    def __init__(self, stream: TextIO | None, note: Callable[[int], str]) -> None:
        self._stream, self._note = stream, note
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._size = 0  # characters that wait
        self._dropped = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        with self._changed:
            if self._waiting and self._size + len(text) > MAX_WAITING:
                self._dropped += 1
                return
            self._waiting.append(text)
            self._size += len(text)
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Writes what waits, for at most `timeout` s."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while texts := self._take():
            try:
                self._write("".join(texts))
            except OSError:  # nobody reads it any more, or its disk is full
                with self._changed:
                    self._dropped += len(texts)

    def _take(self) -> list[str]:
        """All that waits, and how many were dropped after it. Nothing once all is written and the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            texts, self._waiting, self._size = self._waiting, [], 0
            dropped, self._dropped = self._dropped, 0
        return [*texts, self._note(dropped)] if dropped else texts

    def _write(self, text: str) -> None:
        if self._stream is None:  # closed when Python started: its number may be a client's by now
            return
        left = memoryview(text.encode(self._stream.encoding, "backslashreplace"))
        while left:
            try:
                left = left[os.write(self._stream.fileno(), left) :]
            except BlockingIOError:  # Playwright's driver shares standard error and makes a pipe non-blocking
                time.sleep(RETRY_S)


class LineHandler(logging.Handler):
    """Each record is a line on its way out. What a record holds may change, so the line is made at once."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            line = self.format(record_of("a record of %s can't be shown", record.name, exc_info=sys.exc_info()))
        self._outlet.put(f"{line}\n")


def record_of(message: str, *arguments: object, exc_info: ExceptionInfo = None) -> logging.LogRecord:
    return logging.LogRecord(log.name, logging.ERROR, __file__, 0, message, arguments, exc_info)


class Console:
    """What Pluto says to whoever started it: the log on standard error, and announcements on standard output.

    Where programs read the log, all of it is a line of that; so is all that a worker says.
    """

    def __init__(self, format: str, worker: str = "") -> None:
        formatter = FORMATTERS[format](worker)

        def note(dropped: int) -> str:
            return f"{formatter.format(record_of('%d lines were dropped: nobody took them', dropped))}\n"

        self._has_only_lines = format == "json" or worker != ""
        self._errors = Outlet(sys.stderr, note)
        self._output = Outlet(sys.stdout, note)
        self.handler = LineHandler(self._errors)
        self.handler.setFormatter(formatter)

    def announce(self, text: str) -> None:
        self._tell(text, logging.INFO, self._output)

    def complain(self, text: str, level: int = logging.ERROR) -> None:
        self._tell(text, level, self._errors)

    def pass_on(self, lines: str) -> None:
        """Lines of a worker's log, as they are."""
        self._errors.put(lines)

    def close(self) -> None:
        """Writes what waits, for at most END_S."""
        deadline = time.monotonic() + END_S
        for outlet in (self._errors, self._output):
            outlet.close(max(0.0, deadline - time.monotonic()))

    def _tell(self, text: str, level: int, outlet: Outlet) -> None:
        if self._has_only_lines:
            log.log(level, "%s", " ".join(text.split()))
        else:
            outlet.put(f"{text}\n")


def start_logging(level: str, format: str, worker: str = "") -> Console:
    """From now on all that is logged, warned of or raised unseen is a line on standard error.

    `worker` names this process in each line.
    """
    console = Console(format, worker)
    atexit.register(console.close)
    logging.basicConfig(level=level.upper(), handlers=[console.handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    threading.excepthook = _log_thread_death
    return console


# --- what nobody caught -----------------------------------------------------------------------------------------------


def log_failure(
    context: object, kind: type[BaseException] | None, error: BaseException | str | None, trace: TracebackType | None
) -> None:
    """What failed where nobody caught it; takes the place of gevent's hub's own, which prints it."""
    if isinstance(error, BaseException):
        log.error("%s failed", _name_of(context), exc_info=error.with_traceback(trace))
    else:
        log.error("%s failed: %s %s", _name_of(context), kind, error)


def _name_of(context: object) -> str:
    """What failed, in at most a line: a WSGI environment would be pages long, and not for the log."""
    if isinstance(context, dict):
        return f"the request {context.get('REQUEST_METHOD')} {str(context.get('PATH_INFO'))[:100]!r}"
    return f"{context!r:.200}"


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("Pluto ends with %s", kind.__name__, exc_info=(kind, error, trace))


def _log_thread_death(death: threading.ExceptHookArgs) -> None:
    name = "a thread" if death.thread is None else f"the thread {death.thread.name!r}"
    log.critical("%s died", name, exc_info=(death.exc_type, death.exc_value or death.exc_type(), death.exc_traceback))
