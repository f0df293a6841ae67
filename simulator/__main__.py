"""The simulator's process: its options, its start and its end. `python -m simulator --help` lists the options."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from urllib.parse import quote

import gevent
from gevent.event import Event
from gevent.socket import wait_read

from simulator.controls import MAX_RATE, PACES
from simulator.faults import FAULTS
from simulator.frames import as_number
from simulator.paces import TRADED_RATE
from simulator.replay import NotARecording, read_recordings
from simulator.server import SimulatorServer
from simulator.simulation import LIVELY_RATE, Options, Simulation
from simulator.weight import REAL, Weight


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
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=within(0, 65_535), default=8090, help="port to listen on (default: 8090); 0: a free one"
    )
    parser.add_argument(
        "--pace", choices=PACES, default="lively", help="lively: a steady rate (default); real: as seldom as recorded"
    )
    parser.add_argument(
        "--rate",
        type=within(0, MAX_RATE),
        help=f"changes a second of each price (default: {LIVELY_RATE:g}); with --pace real, only of pairs that an "
        f"exchange trades (default: {TRADED_RATE:g})",
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same prices (default: 1)")
    parser.add_argument(
        "--weight",
        type=read_weight,
        default=Weight.of(2_000_000),
        help="bytes of a page (default: 2000000); 0: a light page without an ad; real: as many as TradingView's",
    )
    parser.add_argument(
        "--heartbeat", type=within(0.05, 3600), default=10, help="seconds between heartbeats (default: 10, as recorded)"
    )
    parser.add_argument("--fault", action="append", choices=FAULTS, metavar="NAME", help="a fault of every ticker")
    parser.add_argument(
        "--delays", type=within(0.001, 10), default=1, help="factor for all times of faults (default: 1)"
    )
    parser.add_argument("--replay", metavar="FILE", help="a recorded page to serve; replay.py describes the formats")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input ends")
    return parser.parse_args()


def read_weight(text: str) -> Weight:
    return REAL if text == "real" else Weight.of(int(within(0, 10**9)(text)))


def simulation_options(options: argparse.Namespace) -> Options:
    return Options(
        weight=options.weight,
        seed=options.seed,
        pace=options.pace,
        rate=options.rate,
        heartbeat=options.heartbeat,
        delays=options.delays,
        faults=tuple(options.fault or ()),
    )


def main() -> None:
    options = read_arguments()
    atexit.register(gc.freeze)  # skip garbage collection at exit: the starter waits for it
    try:
        recordings = read_recordings(options.replay) if options.replay else []
    except NotARecording as error:
        sys.exit(f"simulator: {error}")
    simulation = Simulation(simulation_options(options), recordings)
    server = SimulatorServer(options.host, options.port, simulation)
    try:
        server.start()
    except OSError as error:
        reason = str(error.strerror).partition(": (")[0]  # gevent appends the address
        sys.exit(f"simulator: can't listen on {options.host}:{options.port}: {reason}; try another --port")
    print(f"simulator: http://{options.host}:{server.server_port}", flush=True)
    for recording in recordings:
        exchange, ticker = recording.symbol.exchange, quote(recording.symbol.ticker, safe="")
        print(f"replays   http://{options.host}:{server.server_port}/symbols/{ticker}/?exchange={exchange}", flush=True)
    print(f"pace      {describe_pace(simulation.options)}", flush=True)
    wait_for_the_end(options.until_stdin_closes)


def describe_pace(options: Options) -> str:
    if options.pace == "real":
        return "real: prices of calculated pairs change as seldom as recorded"
    rate = LIVELY_RATE if options.rate is None else options.rate
    return f"lively: each price changes {rate:g} times a second; --pace real: as seldom as recorded"


def wait_for_the_end(until_stdin_closes: bool) -> None:
    ended = Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signal_number, ended.set)
    if until_stdin_closes:
        gevent.spawn(watch_stdin, ended)
    ended.wait()


def watch_stdin(ended: Event) -> None:
    """Sets `ended` when standard input ends: the process that started this one is gone."""
    while not ended.is_set():
        wait_read(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()


if __name__ == "__main__":
    main()
