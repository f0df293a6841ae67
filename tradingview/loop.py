"""The loop of Playwright's thread: runs work that calls the browser.

This file owns one rule: a sync Playwright call in a bare callback of the event loop would hang, so work runs in a
greenlet of its own. It never blocks and knows nothing of pages. Any thread may use `call`; all else runs on the thread
that drives Playwright.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from greenlet import greenlet
from playwright.sync_api import Error as BrowserError

log = logging.getLogger("pluto.browser")


class Loop:
    """The event loop of the thread that makes this object, after `sync_playwright().start()`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # When the browser ends, no caller is left for the errors of pending calls.
        self._loop.set_exception_handler(lambda _, context: log.debug("%s", context["message"]))

    def call(self, work: Callable[..., object], *arguments: object) -> None:
        """Any thread: runs the work on Playwright's thread. Nothing happens once the loop is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_run, work, *arguments)

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Runs the work at the loop's next turn, never at once: the caller may itself be a greenlet."""
        self._loop.call_soon(_run, work, *arguments)

    def later(self, seconds: float, work: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, _run, work, *arguments)


def _run(work: Callable[..., object], *arguments: object) -> None:
    """Runs the work in a greenlet. No error may escape: it would resurface in an unrelated Playwright call."""
    name = getattr(work, "__name__", repr(work))

    def body() -> None:
        try:
            work(*arguments)
        except BrowserError as error:
            log.debug("%s: %s", name, error)
        except Exception:
            log.exception("%s failed", name)

    greenlet(body).switch()
