"""Pluto's web layer and broadcaster without a browser: whoever writes to its standard input is the scraper.

Each line of standard input is a JSON list of quotes, [ticker, state, price text, proven until, more], put from a thread
of its own as the scraper does; a quote whose proof is null or absent is proven for ever, `more` are fields of a Quote.
Tickers are added and removed by REST.
Run by `running.quote_server`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from app import assemble, create_app
from quotes import Quote, Source, State, parse_ticker
from settings import Settings
from web.access import SECURITY_HEADERS
from web.parts import Parts
from web.server import Limits, Server, listen

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def put_lines(parts: Parts) -> None:
    shown: dict[str, tuple[str, int]] = {}  # the price of each ticker, and since when: a renewed proof changes neither
    for line in sys.stdin:
        quotes = []
        for ticker, state, price_text, *rest in json.loads(line):
            proven_until = math.inf if not rest or rest[0] is None else rest[0]
            if shown.get(ticker, ("", 0))[0] != price_text:
                shown[ticker] = price_text, round(time.time() * 1000)
            timestamp = shown[ticker][1]
            told = (parse_ticker(ticker), State(state), price_text, 0.5, timestamp, Source.SOCKET)
            quotes.append(replace(Quote(*told, proven_until=proven_until), **dict(*rest[1:])))
        for quote in quotes:  # as close together as can be: for one flush
            parts.broadcaster.put(quote)
        for quote in quotes:
            parts.store.put(quote)
            parts.alerts.put(quote)


def beside_trials(application: WSGIApplication) -> WSGIApplication:
    """With an address that Pluto doesn't have: /trial/fail raises."""

    def beside(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/trial/fail":
            raise RuntimeError("as was asked")
        return application(environ, start_response)

    return beside


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", default="", help="the folder of the store; without it nothing is stored")
    parser.add_argument("--heartbeat", type=float, default=5.0)
    parser.add_argument("--lag-limit", type=float, default=15.0)
    parser.add_argument("--max-streams", type=int, default=10_000)
    parser.add_argument("--max-tickers", type=int, default=1000)
    parser.add_argument("--max-streams-per-address", type=int, default=10_000)
    parser.add_argument("--additions-per-minute", type=int, default=100_000)
    parser.add_argument("--access-token", default="")
    parser.add_argument("--allowed-hosts", default="")
    parser.add_argument("--trusted-proxies", default="")
    parser.add_argument("--foreign", action="store_true", help="a WSGI server that gives no connection away")
    parser.add_argument("--limit", nargs=2, action="append", default=[], metavar=("NAME", "NUMBER"), help="see Limits")
    parser.add_argument("--demo", action="store_true", help="it is for simulated prices")
    parser.add_argument("--log-level", default="WARNING")
    parser.add_argument("--open-files", type=int, help="how many the kernel allows")
    options = parser.parse_args()
    logging.basicConfig(level=options.log_level)
    if options.open_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.open_files, options.open_files))

    settings = Settings(
        max_streams=options.max_streams,
        max_streams_per_address=options.max_streams_per_address,
        max_tickers=options.max_tickers,
        additions_per_minute=options.additions_per_minute,
        access_token=options.access_token,
        allowed_hosts=options.allowed_hosts,
        trusted_proxies=options.trusted_proxies,
        store=bool(options.data),
        data=options.data,
        demo=options.demo,
        notify=os.environ.pop("PLUTO_NOTIFY", ""),
    )
    parts = assemble(settings, heartbeat=options.heartbeat, lag_limit=options.lag_limit)
    broadcaster = parts.broadcaster
    application = beside_trials(create_app(parts))
    (listener,) = listen("127.0.0.1", options.port)
    if options.foreign:
        server: WSGIServer = WSGIServer(listener, application, log=None)
    else:
        limits = Limits(**{name: type(getattr(Limits, name))(number) for name, number in options.limit})
        server = Server(listener, application, headers=dict(SECURITY_HEADERS), limits=limits)
    for ticker in parts.store.start(lambda tickers: None):
        parts.watchlist.add(ticker)
    parts.alerts.start()
    broadcaster.start()
    server.start()
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=put_lines, args=[parts], daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    stop.wait()
    broadcaster.stop()
    server.stop(timeout=0.3)
    parts.alerts.stop()
    parts.store.stop()


if __name__ == "__main__":
    main()
