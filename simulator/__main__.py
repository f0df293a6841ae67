"""The simulator's process: its options, its start and its end. `python -m simulator --help` lists the options."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.socket import wait_read

from simulator.controls import MAX_RATE
from simulator.frames import as_number
from simulator.server import SimulatorServer
from simulator.simulation import Simulation


def within(low: float, high: float) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        value = as_number(float(text))
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return number


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A TradingView of our own: symbol pages with simulated prices, and faults on demand.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=within(0, 65_535), default=8090, help="port to listen on; 0 takes a free one")
    parser.add_argument("--rate", type=within(0, MAX_RATE), default=2, help="changes a second of each price")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same prices")
    parser.add_argument("--weight", type=within(0, 10**9), default=2_000_000, help="bytes of a page; 0: light, no ad")
    parser.add_argument("--heartbeat", type=within(0.05, 3600), default=5, help="seconds between heartbeats")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input does")
    return parser.parse_args()


def main() -> None:
    options = read_arguments()
    atexit.register(gc.freeze)  # no search for garbage when it ends: whoever started it waits
    simulation = Simulation(options.seed, options.rate, options.heartbeat, options.weight)
    server = SimulatorServer(options.host, options.port, simulation)
    try:
        server.start()
    except OSError as error:
        reason = str(error.strerror).partition(": (")[0]  # gevent appends the address
        sys.exit(f"simulator: can't listen on {options.host}:{options.port}: {reason}; try another --port")
    print(f"simulator: http://{options.host}:{server.server_port}", flush=True)
    wait_for_the_end(options.until_stdin_closes)


def wait_for_the_end(until_stdin_closes: bool) -> None:
    ended = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signal_number, ended.set)
    if until_stdin_closes:
        gevent.spawn(watch_stdin, ended)
    ended.wait()


def watch_stdin(ended: Event) -> None:
    """At the end of standard input whoever started this process is gone."""
    while not ended.is_set():
        wait_read(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()


if __name__ == "__main__":
    main()
