"""Pluto, composed: which parts exist, how they connect, and in which order they start and stop.

Read this file first. It owns the composition and the life of the process: it makes the parts from the settings, makes a
Flask application beside Connect from the parts, and on a signal stops them from the top down. It decides nothing about
prices, clients or requests. `main` runs on the hub thread, so nothing here may block once the parts run. The browser
lives on the scraper's thread, the simulator in its own process.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":  # before an import fails because of it
    sys.exit("pluto: Pluto doesn't run on Windows itself: install WSL2 (wsl --install), and start ./run.sh in there.")

import atexit
import errno
import gc
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from flask import Flask
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from alerts.book import AlertDesk, Alerts
from alerts.outbox import Outbox, couriers_of
from broadcast import Broadcaster, StreamLimits
from quotes import PlutoError, Quote, QuoteSource, Ticker
from settings import VERSION, Settings, forget_secrets, read_settings
from storage.remembered import BEFORE_RESTART, Remembered
from storage.retention import Keep
from storage.schema import path_of
from store import Store, StoreSettings
from watchlist import Subscriber, Watchlist
from web.access import SECURITY_HEADERS, Access, made_token
from web.alerting import announce, announce_fields
from web.alerts import alert_routes
from web.connect import ConnectApplication, refuse
from web.descriptors import KEPT_FREE, limit, raise_limit, room_for_streams
from web.desktop import open_page
from web.errors import failure
from web.history import history_routes
from web.limits import Ask, Share
from web.logs import Console, log_failure, start_logging
from web.parts import Parts
from web.reading import on_pool
from web.routes import Segment, routes
from web.server import Limits, Server, listen, reserve
from web.supervision import HubWatchdog, Simulator, Supervisor
from web.workers import Crew, Place, place_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from relay.link import RelaySettings
    from relay.reader import Reader
    from relay.source import Relay
    from scraper import Scraper

PROJECT = Path(__file__).parent
CANT_START, GAVE_UP = 1, 3  # exit codes; 2 is argparse's, for a wrong setting
OF_SCRAPERS = ("/health", "/livez", "/readyz", "/metrics", "/api/performance")  # all that --role scraper answers
ONLY_SCRAPES = "This process only scrapes. Ask one that runs with --role web or all."
CATCH_UP_S = 1.0  # for Redis to tell all that it has
LEAVE_GRACE_S = 0.1  # for clients that have just connected to begin
STOP_GRACE_S = 0.3  # for streams to send their last event

log = logging.getLogger("pluto")

# --- the application --------------------------------------------------------------------------------------------------


def assemble(
    settings: Settings,
    bound: str = "127.0.0.1",
    *,
    open_files: int | None = None,
    place: Place | None = None,
    **limits: Any,
) -> Parts:
    """The parts, connected but not started.

    A change of the watchlist goes to the broadcaster, the store, the alerts and the source, in this order. A quote
    goes through `Remembered` (prices from before the restart) to the broadcaster, to the store, and to the alerts.
    With --redis the source is the relay; what is remembered is shown until Redis tells more.

    `bound` is the server's listening address. `open_files` is the browser's soft limit of descriptors; None: Pluto's
    own. `place` is this worker's, if there are several. `limits` overrides some of StreamLimits; only tests do.
    """
    stream_limits = StreamLimits(settings.max_streams, settings.max_streams_per_address, **limits)
    broadcaster = Broadcaster(stream_limits, simulated=settings.demo)
    remembered = Remembered(broadcaster.put, _why_remembered(settings))
    store = Store(_store_settings(settings, "" if place is None else place.crew), remembered)
    show = broadcaster.put if settings.redis else remembered.put

    def tell(quote: Quote) -> None:
        show(quote)
        store.put(quote)
        alerts.put(quote)

    relay: Relay | None = None
    if settings.redis:
        relay, watchlist = _relay(settings, broadcaster, tell, open_files)
    else:
        watchlist = Watchlist(settings.max_tickers)
    alerts = _alerts(settings, store, broadcaster, relay)
    store.keep(alerts)
    source: QuoteSource = relay or make_scraper(settings, tell, open_files)
    subscribers: tuple[Subscriber, ...] = (broadcaster, store, alerts, source)
    for subscriber in subscribers:
        watchlist.subscribe(subscriber)
    supervisor = Supervisor(source, broadcaster, name="relay" if settings.role == "web" else "scraper")
    access = Access(settings, bound, share=None if relay is None else _share(relay.settings))
    return Parts(settings, watchlist, source, broadcaster, supervisor, access, store, alerts, relay=relay, place=place)


def _why_remembered(settings: Settings) -> str:
    """Why the prices from before the restart are still shown."""
    if not settings.redis:
        return BEFORE_RESTART
    from relay.link import NO_REDIS

    return NO_REDIS


def _alerts(settings: Settings, store: Store, broadcaster: Broadcaster, relay: Relay | None) -> AlertDesk:
    """With --redis all processes that serve share them; one that only scrapes has none."""
    couriers = couriers_of(settings.notify_urls if settings.role != "scraper" else [])
    if relay is None or relay.reader is None:
        outbox = Outbox(store, couriers)
        return Alerts(store, partial(announce, broadcaster), outbox, simulated=settings.demo)
    from relay.alerts import SharedAlerts

    tell = partial(announce_fields, broadcaster)
    again = relay.reader.tell_again
    return SharedAlerts(relay.settings, store, tell, couriers, tell_again=again, counters=relay.counters)


def _relay(
    settings: Settings, broadcaster: Broadcaster, tell: Callable[[Quote], None], open_files: int | None
) -> tuple[Relay, Watchlist]:
    """The relay, and the watchlist that it backs. Without --redis nothing imports what needs redis-py."""
    from relay.link import RelaySettings
    from relay.source import Relay

    name = f"{'-'.join(socket.gethostname().split()) or 'pluto'}-{os.getpid()}-{secrets.token_hex(2)}"
    capacity = settings.scraper_capacity or settings.max_tickers
    relay = Relay(RelaySettings(settings.redis, name, capacity, settings.max_tickers, settings.demo))
    hub, pool = gevent.get_hub(), ThreadPool(1)  # a thread for changes of the list alone: they wait for Redis

    def change(how: str, tickers: list[Ticker]) -> list[Ticker]:
        return on_pool(lambda: relay.change(how, tickers), pool)

    watchlist = Watchlist(settings.max_tickers, change)
    if settings.role != "web":
        relay.scrape(lambda put: make_scraper(settings, put, open_files))
    if settings.role != "scraper":
        reader = relay.serve(tell, broadcaster.mark)
        reader.on_list = partial(hub.loop.run_callback_threadsafe, partial(_follow, watchlist, reader))
        reader.observe = broadcaster.delays.relay.observe
        broadcaster.table.why_expired = reader.why_expired
    return relay, watchlist


def _share(settings: RelaySettings) -> Share:
    """Counts for all processes together, on a thread for that alone."""
    from relay.limits import ANSWER_LIMIT_S, RedisLimits

    limits, pool = RedisLimits(settings), ThreadPool(1)

    def share(name: str, rate: float, burst: float) -> Ask:
        def ask(key: str, cost: float) -> float | None:
            with gevent.Timeout(ANSWER_LIMIT_S, False):  # type: ignore[arg-type]
                waits: float | None = pool.apply(limits.wait_s, (name, key, rate, burst, cost))
                return waits
            return None

        return ask

    return share


def _follow(watchlist: Watchlist, reader: Reader) -> None:
    watchlist.follow(reader.tickers())
    reader.list_followed()


def make_scraper(settings: Settings, tell: Callable[[Quote], None], open_files: int | None) -> Scraper:
    """Imports Playwright, and nothing before it does: a process that only serves runs without it."""
    from scraper import Scraper, ScraperSettings

    scraper_settings = ScraperSettings(
        settings.source_url.rstrip("/"),
        settings.browser or None,
        settings.headed,
        or_headless=settings.browser_mode == "auto",
        sandbox=settings.sandbox,
        simulated=settings.demo,
        group_size=settings.group_size,
        opening_spacing=settings.opening_spacing,
        page_max_age=settings.page_max_age,
        page_max_heap=settings.page_max_heap,
        browser_max_memory=settings.browser_max_memory,
        open_files=open_files,
    )
    return Scraper(scraper_settings, tell)


def _store_settings(settings: Settings, crew: str) -> StoreSettings:
    keep = Keep(settings.keep_changes, settings.keep_minutes, settings.store_max_size)
    return StoreSettings(path_of(settings.data, demo=settings.demo) if settings.store else None, keep, crew=crew)


def create_app(parts: Parts) -> Flask:
    """Flask and Connect side by side, each behind the access checks."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.converters["default"] = Segment
    app.register_blueprint(routes)
    app.register_blueprint(history_routes)
    app.register_blueprint(alert_routes)
    app.extensions["pluto"] = parts
    connect = ConnectApplication(parts)
    guarded_connect = parts.access.guard(connect, f"{connect.path}AddTicker", refuse)
    guarded_flask = parts.access.guard(app.wsgi_app, "/api/tickers")

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if parts.settings.role == "scraper" and environ["PATH_INFO"] not in OF_SCRAPERS:
            return failure("not_found", ONLY_SCRAPES)(environ, start_response)
        is_connect = str(environ["PATH_INFO"]).startswith(connect.path)
        return (guarded_connect if is_connect else guarded_flask)(environ, start_response)

    app.wsgi_app = application  # type: ignore[method-assign]
    return app


def main(arguments: list[str]) -> int:
    """Runs Pluto until SIGINT or SIGTERM. Returns the exit code: 0, or CANT_START or GAVE_UP after a sentence why."""
    place = place_of(arguments)
    settings = read_settings(arguments) if place is None else place.settings
    forget_secrets()
    console = start_logging(settings.log_level, settings.log_format, "" if place is None else place.name)
    atexit.register(gc.freeze)  # skip garbage collection at exit: it takes 0.2 s and more
    sys.setswitchinterval(0.0005)  # else the hub waits up to 5 ms at a time for a busy scraper thread
    try:
        if settings.workers > 1:
            return lead(settings, console)
        run(settings, console, place)
    except GaveUp as error:
        console.complain(f"pluto: {error}", logging.CRITICAL)
        return GAVE_UP
    except (PlutoError, OSError) as error:
        console.complain(f"pluto: {_start_failure(error, settings)}")
        return CANT_START
    return 0


class GaveUp(PlutoError):
    """Pluto can't go on, and only a new process helps."""

    code = "gave_up"


def _start_failure(error: Exception, settings: Settings) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken: stop what listens there, or choose another with --port."
    return f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."


def lead(settings: Settings, console: Console) -> int:
    """Starts this Pluto as several processes and looks after them until a signal. Returns the exit code."""
    holders = reserve(settings.host, settings.port)
    bound, port = holders[0].getsockname()[:2]
    token = made_token(settings, bound)
    told = replace(settings, port=port, workers=1, open=False, access_token=settings.access_token or token)

    def on_start() -> None:
        shown = replace(settings, source_url="an address of its own") if settings.demo else settings
        _tell_start(shown, console, port, token, os.environ, limit())

    code = Crew(Path(__file__), places_of(told, settings.workers), console).run(on_start)
    for holder in holders:
        holder.close()
    return code


def places_of(settings: Settings, web_workers: int) -> list[Place]:
    """The workers of this Pluto: so many web workers and, unless it only serves the web, the scraper."""
    names = [f"web {number}" for number in range(1, web_workers + 1)] + ["scraper"] * (settings.role == "all")
    crew = secrets.token_hex(8)
    return [
        Place(name, crew, settings.port + number, replace(settings, role=name.split(" ")[0]))
        for number, name in enumerate(names, 1)
    ]


def run(settings: Settings, console: Console, place: Place | None = None) -> None:
    """Starts the layers from the bottom up, waits for a signal, and stops them from the top down. Raises GaveUp."""
    if settings.role == "scraper":  # what is told goes to Redis, and the web processes' stores
        settings = replace(settings, store=False)
    environment = dict(os.environ)  # the user's own: the scraper's thread changes os.environ for the driver
    _check(settings)
    gevent.get_hub().print_exception = log_failure  # type: ignore[assignment, method-assign]
    stop = _on_signal()
    listeners = _listeners(settings, place)
    bound, port = listeners[0].getsockname()[:2]
    with ExitStack() as layers:
        simulator = layers.enter_context(_simulator(settings))
        if simulator is not None:
            settings = replace(settings, source_url=simulator.url)
        open_files = raise_limit()  # after the simulator's start, which keeps the old limit
        settings = replace(settings, max_streams=_possible_streams(settings))
        parts = replace(assemble(settings, bound, open_files=open_files, place=place), simulator=simulator)
        source, broadcaster, supervisor = parts.source, parts.broadcaster, parts.supervisor
        stored = _start_store(parts)
        layers.callback(parts.store.stop)
        _track_from_start(parts, stored)
        parts.alerts.start()
        layers.callback(parts.alerts.stop)
        source.start()
        layers.callback(source.stop)
        _catch_up(parts)
        servers = layers.enter_context(serving(listeners, create_app(parts)))
        broadcaster.start()
        layers.callback(broadcaster.stop)
        layers.callback(source.begin_stop)
        supervisor.start(lambda sentence: stop.set_exception(GaveUp(sentence)))
        layers.callback(supervisor.stop)
        watchdog = HubWatchdog(supervisor.counters)
        watchdog.start()
        layers.callback(watchdog.stop)
        if place is None:
            _tell_start(settings, console, port, parts.access.made_token, environment, open_files)
        else:
            place.tell_ready()
            layers.callback(_leave_port, servers)
        layers.callback(log.info, "stopping")
        stop.get()


def _listeners(settings: Settings, place: Place | None) -> list[socket.socket]:
    """A worker has an address of its own besides the common one: for its health and metrics."""
    if place is None:
        return listen(settings.host, settings.port)
    common = listen(settings.host, settings.port, shared=True) if place.is_web else []
    try:
        return [*common, *listen("localhost", place.port, shared=True)]
    except (OSError, OverflowError) as error:
        own = listen("localhost", 0)
        log.warning(
            "port %d can't be had (%s): use %d for health and metrics", place.port, error, own[0].getsockname()[1]
        )
        return [*common, *own]


def _check(settings: Settings) -> None:
    """Raises PlutoError for what can never work with these settings."""
    if settings.role != "web":
        from tradingview.browser import check_sandbox, find_browser

        if settings.browser:
            find_browser(settings.browser)
        check_sandbox(settings.sandbox)
    if settings.redis:
        from relay.link import check_redis

        check_redis(settings.redis, simulated=settings.demo)


@contextmanager
def serving(listeners: list[socket.socket], app: Flask) -> Iterator[list[Server]]:
    """Serves the application on all of these, as one server: they share its limits and counters."""
    headers, limits = dict(SECURITY_HEADERS), Limits(kept_descriptors=KEPT_FREE)
    servers: list[Server] = []
    for listener in listeners:
        servers.append(Server(listener, app, headers=headers, limits=limits, beside=servers[0] if servers else None))
    for server in servers:
        server.start()
    try:
        yield servers
    finally:
        gevent.joinall([gevent.spawn(server.stop, timeout=STOP_GRACE_S) for server in servers])


def _simulator(settings: Settings) -> AbstractContextManager[Simulator | None]:
    return Simulator().running() if settings.demo and settings.role != "web" else nullcontext()


def _catch_up(parts: Parts) -> None:
    """Before it serves, a process has what the clients of others have, who may come next. It doesn't wait long."""
    reads_stream = parts.relay is not None and parts.relay.reader is not None
    deadline = time.monotonic() + CATCH_UP_S
    while reads_stream and not parts.broadcaster.table.stream and time.monotonic() < deadline:
        gevent.sleep(0.005)
        parts.broadcaster.flush()


def _leave_port(servers: list[Server]) -> None:
    """New clients go to other workers from now on. Those that have just come still get an answer, and its end."""
    for server in servers:
        server.leave_port()
    gevent.sleep(LEAVE_GRACE_S)


def _start_store(parts: Parts) -> list[Ticker]:
    """Returns the watchlist from before the restart. Tickers that the store reads later are tracked then, unless Redis
    has the list.
    """
    loop = gevent.get_hub().loop

    def restore(tickers: list[Ticker]) -> None:
        if parts.relay is None:
            loop.run_callback_threadsafe(_track, parts.watchlist, tickers)

    return parts.store.start(restore)


def _track(watchlist: Watchlist, tickers: list[Ticker]) -> None:
    """Tracks the tickers up to the limit, and logs the rest; the store keeps those."""
    if beyond := watchlist.begin(tickers):
        log.warning("%s is not tracked: %s", ", ".join(ticker for ticker, _ in beyond), beyond[0][1])


def _track_from_start(parts: Parts, stored: list[Ticker]) -> None:
    """Tracks what the store and the settings have. A relay does so itself, because the list may be in Redis already."""
    settings, watchlist = parts.settings, parts.watchlist
    wanted = settings.start_tickers if settings.tickers or not stored else []
    if (relay := parts.relay) is not None:
        if relay.reader is not None:
            watchlist.follow(stored)  # shown as stale until Redis tells its list
            relay.offer(stored, wanted)
    else:
        _track(watchlist, stored)
        _track(watchlist, wanted)


def _on_signal() -> AsyncResult[None]:
    """Set when a signal tells Pluto to end."""
    stop: AsyncResult[None] = AsyncResult()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    return stop


def _possible_streams(settings: Settings) -> int:
    """--max-streams, or fewer if the descriptors allow fewer."""
    if settings.max_streams <= (room := room_for_streams()):
        return settings.max_streams
    log.warning("%d streams at most, not --max-streams %d: raise ulimit -n for more", room, settings.max_streams)
    return room


def host_in_url(host: str) -> str:
    """The listening host's name for clients on this machine."""
    if host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _tell_start(
    settings: Settings, console: Console, port: int, token: str, environment: Mapping[str, str], open_files: int
) -> None:
    """Says where the page is, and opens it."""
    address = f"http://{host_in_url(settings.host)}:{port}"
    console.announce(_announcement(settings, address, token))
    if settings.open:
        open_page(address, environment, open_files)


def _announcement(settings: Settings, address: str, made_token: str) -> str:
    """Pluto's address, and the token it made: the only place where Pluto writes that."""
    mode = "headed" if settings.headed else "headless"
    simulated = "SIMULATED, livelier than real ones, by a simulator at " if settings.demo else ""
    token = (f"  token    {made_token}",) if made_token else ()
    browser = () if settings.role == "web" else (f"  prices   {simulated}{settings.source_url}", f"  browser  {mode}")
    lines = (f"Pluto {VERSION}", f"  page     {address}", *token, *browser, *_redis_line(settings))
    return "\n".join(lines)


def _redis_line(settings: Settings) -> tuple[str, ...]:
    if not settings.redis:
        return ()
    from relay.link import place_of

    return (f"  redis    {place_of(settings.redis)}, role {settings.role}",)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
