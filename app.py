"""Pluto, composed: which parts there are, how they are joined, and in which order they start and stop.

Read this file first. It owns the composition and the life of the process: the settings become parts, the parts become
a Flask application beside Connect, a signal ends them from the top down. It decides nothing about prices, clients or
requests. `main` runs on the hub thread, so nothing here may block once the parts run: the browser lives on the
scraper's thread, the simulator in a process of its own.
"""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import gevent
from flask import Flask
from gevent.event import AsyncResult

from broadcast import Broadcaster
from quotes import PlutoError
from scraper import Scraper, ScraperSettings
from settings import VERSION, Settings, read_settings, variable_of
from tradingview.browser import find_browser
from watchlist import Watchlist
from web.access import SECURITY_HEADERS, Access, AccessSettings, access_settings
from web.connect import ConnectApplication, refuse
from web.logs import log_failure, start_logging
from web.parts import Parts
from web.routes import routes
from web.server import Server, listen
from web.supervision import HubWatchdog, Supervisor

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PROJECT = Path(__file__).parent
CANT_START, GAVE_UP = 1, 3  # exit codes; 2 is argparse's, for a wrong setting
STOP_GRACE_S = 0.3  # for streams to send their last event

log = logging.getLogger("pluto")

# --- the application --------------------------------------------------------------------------------------------------


def assemble(
    settings: Settings, source_url: str = "", access: AccessSettings | None = None, **patience: float
) -> Parts:
    """The parts, joined and not yet started. The broadcaster, then the scraper, hear of each change of the watchlist.

    `access` is that of a server on loopback unless given. `patience` is the broadcaster's own, in seconds; the product
    leaves it as it is.
    """
    broadcaster = Broadcaster(
        simulated=settings.demo,
        max_streams=settings.max_streams,
        max_streams_per_address=settings.max_streams_per_address,
        **patience,
    )
    scraper = Scraper(_scraper_settings(settings, source_url or settings.source_url), broadcaster.put)
    watchlist = Watchlist(settings.max_tickers)
    watchlist.subscribe(broadcaster.follow)
    watchlist.subscribe(scraper.follow)
    access = access or access_settings(settings, "127.0.0.1")
    return Parts(settings, watchlist, scraper, broadcaster, Supervisor(scraper, broadcaster), Access(access))


def _scraper_settings(settings: Settings, source_url: str) -> ScraperSettings:
    return ScraperSettings(
        source_url.rstrip("/"),
        settings.browser or None,
        settings.headed,
        simulated=settings.demo,
        group_size=settings.group_size,
        opening_spacing=settings.opening_spacing,
        page_max_age=settings.page_max_age,
        page_max_heap=settings.page_max_heap,
        browser_max_memory=settings.browser_max_memory,
    )


def create_app(parts: Parts) -> Flask:
    """Flask and Connect beside each other. Each is behind the checks of who may call."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(routes)
    app.extensions["pluto"] = parts
    connect = ConnectApplication(parts.watchlist, parts.broadcaster)
    guarded_connect = parts.access.guard(connect, f"{connect.path}AddTicker", refuse)
    guarded_flask = parts.access.guard(app.wsgi_app, "/api/tickers")

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        is_connect = str(environ["PATH_INFO"]).startswith(connect.path)
        return (guarded_connect if is_connect else guarded_flask)(environ, start_response)

    app.wsgi_app = application  # type: ignore[method-assign]
    return app


class Simulator:
    """The simulator's process, for as long as Pluto runs: it ends when the pipe to it closes, however Pluto ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator", "--port", "0", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            start_new_session=True,  # Ctrl-C is Pluto's to handle
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("simulator: "):
            raise SimulatorFailed("The simulator didn't start; what it printed above says why.")
        self.url = line.split()[1]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()


class SimulatorFailed(PlutoError):
    code = "simulator_failed"


def main(arguments: list[str]) -> int:
    """Runs Pluto until SIGINT or SIGTERM. Returns the exit code: 0, or after one sentence CANT_START or GAVE_UP."""
    settings = read_settings(arguments)
    os.environ.pop(variable_of("access_token"), None)  # the browser and the simulator have no use for it
    start_logging(settings.log_level, settings.log_format)
    atexit.register(gc.freeze)  # else the interpreter looks for garbage in all libraries before it ends: 0.2 s and more
    sys.setswitchinterval(0.0005)  # else a busy scraper thread keeps the hub waiting for 5 ms at a time
    try:
        run(settings)
    except GaveUp as error:
        _tell(settings, log.critical, f"pluto: {error}", sys.stderr)
        return GAVE_UP
    except (PlutoError, OSError) as error:
        _tell(settings, log.error, f"pluto: {_start_failure(error, settings)}", sys.stderr)
        return CANT_START
    return 0


class GaveUp(PlutoError):
    """Pluto runs no more, and only a new process can help."""

    code = "gave_up"


def _start_failure(error: Exception, settings: Settings) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken: stop what listens there, or choose another with --port."
    return f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."


def run(settings: Settings) -> None:
    """Starts the layers from the bottom up, waits for a signal, stops them from the top down. Raises GaveUp."""
    if settings.browser:
        find_browser(settings.browser)
    gevent.get_hub().print_exception = log_failure  # type: ignore[assignment, method-assign]
    stop: AsyncResult[None] = AsyncResult()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    listener = listen(settings.host, settings.port)
    with ExitStack() as layers:
        source_url = settings.source_url.rstrip("/")
        if settings.demo:
            simulator = Simulator()
            layers.callback(simulator.stop)
            source_url = simulator.url
        access = access_settings(settings, listener.getsockname()[0])
        parts = assemble(settings, source_url, access)
        scraper, broadcaster, supervisor = parts.source, parts.broadcaster, parts.supervisor
        server = Server(listener, create_app(parts), headers=dict(SECURITY_HEADERS))
        scraper.start()
        layers.callback(scraper.stop)
        server.start()
        layers.callback(server.stop, timeout=STOP_GRACE_S)
        broadcaster.start()
        layers.callback(broadcaster.stop)
        layers.callback(scraper.begin_stop)
        supervisor.start(lambda sentence: stop.set_exception(GaveUp(sentence)))
        layers.callback(supervisor.stop)
        watchdog = HubWatchdog(supervisor.counters)
        watchdog.start()
        layers.callback(watchdog.stop)
        for ticker in settings.start_tickers:
            parts.watchlist.add(ticker)
        _announce(settings, listener.getsockname()[1], source_url, "" if settings.access_token else access.token)
        layers.callback(log.info, "stopping")
        stop.get()


def _announce(settings: Settings, port: int, source_url: str, made_token: str) -> None:
    """Says where Pluto is, and the token it made: the only time that one is written anywhere."""
    host = "localhost" if settings.host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::") else settings.host
    mode = "headed" if settings.headed else "headless"
    source = f"SIMULATED, by a simulator at {source_url}" if settings.demo else source_url
    token = (f"  token    {made_token}",) if made_token else ()
    lines = (
        f"Pluto {VERSION}",
        f"  page     http://{host}:{port}",
        *token,
        f"  prices   {source}",
        f"  browser  {mode}",
    )
    _tell(settings, log.info, "\n".join(lines), sys.stdout)


def _tell(settings: Settings, log_it: Callable[..., None], text: str, stream: TextIO) -> None:
    """What a user in front of a terminal is told; where programs read the log, it is a line of that."""
    if settings.log_format == "json":
        log_it("%s", " ".join(text.split()))
    else:
        print(text, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
