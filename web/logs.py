"""The log: one line an event on standard error, for eyes or for programs, that no text from outside can forge.

This file owns how a line looks, what is hidden in it and how long it gets. What is worth a line is decided where it
happens; requests are never logged. It may be called on any thread, and needs only the standard library.

A ticker, a page's words, a path or a header may hold anything. Whatever could end a line, move the cursor or turn the
reading direction is written as its escape (\\n, \\x1b, \\u202e), in both formats, so that a message is safe wherever it
is shown, and an exception's lines are indented, so that none can pass for a line of its own.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

MAX_LINE = 4_000  # characters of a record's message, and of a line of its traceback
MAX_LINES = 60  # of a traceback, whose end matters most
PLAIN_LINE = "{time:%H:%M:%S} {level:<7} {message}"

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


class PlainFormatter(logging.Formatter):
    """12:34:56 WARNING its words"""

    def format(self, record: logging.LogRecord) -> str:
        line = PLAIN_LINE.format(
            time=datetime.fromtimestamp(record.created), level=record.levelname, message=message_of(record)
        )
        return "\n    ".join([line, *exception_lines_of(record)])


class JsonFormatter(logging.Formatter):
    """An object a line: time (RFC 3339, UTC, ms), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        if lines := exception_lines_of(record):
            fields["exception"] = "\n".join(lines)
        return json.dumps(fields)


FORMATTERS: dict[str, type[logging.Formatter]] = {"plain": PlainFormatter, "json": JsonFormatter}


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


def start_logging(level: str, format: str) -> None:
    """From now on all that is logged, warned of or raised unseen is a line on standard error."""
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[to_stderr], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    threading.excepthook = _log_thread_death


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
