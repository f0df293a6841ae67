"""What fan-out costs: Pluto's streams beside a send() loop in C, nginx with nchan, Node with Fastify and with Connect.

    .venv/bin/python bench/fanout.py                    everything, about fifteen minutes
    .venv/bin/python bench/fanout.py --quick            one short round, to check that it works
    .venv/bin/python bench/fanout.py --install-peers    first installs nginx, nchan (Debian, as root), and
                                                        Fastify and connect-node (npm)

One server after the other sends the same event of 500 bytes to 1,000 clients, ten times a second. There are three
rounds, of which the median counts. The server has one core and the clients another, if there are two. A server that
isn't installed is left out, and the table says so. Pluto runs without its browser: see peers/pluto_server.py.

- µs/event: CPU time of all the server's processes, by their CPU clocks, divided by the events that clients received.
- p50, p99: from when the event was made (its text says when) until a client has read it.
- KiB/client: how much the server's PSS grows from 10 idle clients to 1,000 and to 5,000, which connect 100 at a time.
  The kernel's socket buffers are the same for all servers, and are not counted.
- Connect: the same price as a PriceUpdate, in each format of Connect and gRPC-Web, beside Connect's own server in Node
  with the same service.
- GetTickers: 500 calls a second on one connection, while 20 tickers change ten times a second for 20 streams. Connect's
  own server in Node does the same.
- Stolen: the part of the cores' time that the host of a virtual machine gave to others meanwhile. It raises p99 most.
- Filters: the p99 of 100 clients without a filter, alone and beside 1,000 clients that each have a different filter of
  10 tickers. All 50 tickers change four times a second.
- Slow clients: the p99 of 450 clients, alone and beside 50 clients that don't read at all. Events have 8,000 bytes
  there, so that the 50 fall behind at once.

Prints tables, and writes results/fanout.json and, if matplotlib is installed (requirements.txt), results/fanout.png.
Linux only. Requires 10,500 open files a process.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import select
import socket
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

from clients import READ_SIZE, Receipts, connected, percentile
from contenders import (
    CLIENT_CORE,
    CONTENDERS,
    CORES,
    NCHAN,
    NODE_CONNECT,
    PLUTO_CONNECT,
    PLUTO_SSE,
    PLUTO_WEBSOCKET,
    RAW_SEND,
    SSE_REQUEST,
    Contender,
    install_peers,
    versions,
)

RESULTS = Path(__file__).parent / "results"
OPEN_FILES = 10_500
SPIN = len(CORES) > 1
LOAD_BEFORE = os.getloadavg()[0]
BUSY_LOAD = 0.5  # above it, other programs change the figures
CLIENTS = 1_000
RATE = 10.0  # events a second: slower than Pluto's flush, so that Pluto sends each event alone, like the others
SIZE = 500
FEW_IDLE = 10  # clients connected before memory is first read: what a server loads for its first client isn't counted
IDLE = (1_000, 5_000)
IDLE_S = 1.0  # for a server to come to rest
SCALE = (100, 1_000, 10_000)
SCALE_RATE = 4.0
SLOW_SIZE = 8_000
SLOW_RATE = 15.0
HEALTHY, DEAF = 450, 50
FILTERS, FILTER_TICKERS, FILTER_SIZE = 1_000, 50, 10  # distinct filters, of how many tickers, with how many each
OTHERS = 100  # clients without a filter beside them
CALL_RATE = 500.0  # GetTickers a second
FILTERS_LIMIT_S = 60.0  # for the clients with filters to connect
CALL_STREAMS = CALL_TICKERS = 20
CODECS = {"json": b"{}", "proto": b""}  # of the calls, each with an empty request
CALLED = {  # by codec and server, which take turns: p99 depends on the machine, too
    (codec, server): contenders[f"connect+{codec}"]
    for codec in CODECS
    for server, contenders in (("Pluto", PLUTO_CONNECT), ("Node", NODE_CONNECT))
}
CALL = (
    b"POST /crypto.v1.CryptoPriceService/GetTickers HTTP/1.1\r\nHost: localhost\r\nConnect-Protocol-Version: 1\r\n"
    b"Content-Type: application/%b\r\nContent-Length: %d\r\n\r\n%b"
)
THE_ORIGINAL = (100, 250.0)  # clients and ms that the original's headline claims
STAMP = re.compile(rb"at=(\d{16}) ")

Figures = dict[str, float]
Results = dict[str, Figures]


@dataclass(frozen=True)
class Length:
    """How long it takes: rounds, and seconds of warm-up and of measuring."""

    rounds: int
    warm_up_s: float
    seconds: float


FULL = Length(3, 2.0, 6.0)
QUICK = Length(1, 1.0, 2.0)


@dataclass(frozen=True)
class Target:
    name: str
    limit: float
    unit: str
    measured: float | None

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "reached" if self.measured <= self.limit else "MISSED"


# --- measuring --------------------------------------------------------------------------------------------------------


def measure_fanout(contender: Contender, length: Length, count: int, rate: float) -> Figures:
    with contender.run(rate, SIZE) as server, connected(server.port, contender.request, count, spin=SPIN) as clients:
        clients.listen(length.warm_up_s)
        before, clock = server.cpu_s(), time.monotonic()
        receipts = clients.listen(length.seconds)
        cpu_s, elapsed = server.cpu_s() - before, time.monotonic() - clock
        return delivery(receipts, count) | cost(receipts, cpu_s, elapsed) | {"lost": clients.lost}


def delivery(receipts: Receipts, count: int) -> Figures:
    """How many ms events took to the clients, and which part of all events arrived."""
    took, made = [], set()
    for data, times in receipts.items():
        for stamp in map(int, STAMP.findall(data)):
            made.add(stamp)
            took += [(at / 1000 - stamp) / 1000 for at in times]
    took.sort()
    return {
        "p50_ms": percentile(took, 0.50),
        "p99_ms": percentile(took, 0.99),
        "max_ms": took[-1],
        "delivered": len(took) / (len(made) * count),
    }


def cost(receipts: Receipts, cpu_s: float, elapsed: float) -> Figures:
    events = sum(len(STAMP.findall(data)) * len(times) for data, times in receipts.items())
    size = sum(len(data) * len(times) for data, times in receipts.items())
    return {
        "us_per_event": cpu_s / events * 1e6,
        "bytes_per_event": size / events,
        "events_per_s": events / elapsed,
        "cpu_share": cpu_s / elapsed,
    }


def measure_memory(contender: Contender) -> Figures:
    with contender.run(0, SIZE) as server, connected(server.port, contender.request, FEW_IDLE) as clients:
        clients.listen(IDLE_S)
        before, count, figures = server.memory(), FEW_IDLE, {}
        for idle in IDLE:
            clients.connect(idle - count)
            count = idle
            clients.listen(IDLE_S)
            figures[f"kib_{idle}"] = (server.memory() - before) / 1024 / (idle - FEW_IDLE)
        return figures


def measure_slow_clients(length: Length) -> Figures:
    alone, _ = _p99_beside_deaf(length, 0)
    beside, lagging = _p99_beside_deaf(length, DEAF)
    return {"alone_p99_ms": alone, "beside_p99_ms": beside, "ratio": beside / alone, "lagging": lagging}


def _p99_beside_deaf(length: Length, deaf: int) -> tuple[float, int]:
    """The p99 of the clients that read, and how many clients lag by Pluto's own count."""
    with (
        PLUTO_SSE.run(SLOW_RATE, SLOW_SIZE) as server,
        connected(server.port, PLUTO_SSE.request, HEALTHY, spin=SPIN) as clients,
    ):
        clients.connect_deaf(deaf)
        clients.listen(length.warm_up_s)
        receipts = clients.listen(length.seconds)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/performance", timeout=5) as answer:
            lagging = json.load(answer)["server"]["lagging"]
    return delivery(receipts, HEALTHY)["p99_ms"], lagging


def measure_filters(length: Length) -> Figures:
    alone, beside = _p99_beside_filters(length, 0), _p99_beside_filters(length, FILTERS)
    return {"alone_p99_ms": alone, "beside_p99_ms": beside, "ratio": beside / alone}


def _p99_beside_filters(length: Length, filters: int) -> float:
    """The p99 of the clients without a filter."""
    with PLUTO_SSE.run(SCALE_RATE, SIZE, FILTER_TICKERS) as server:
        are_connected = multiprocessing.Event()
        others = multiprocessing.Process(target=read_filtered, args=(server.port, filters, are_connected), daemon=True)
        others.start()
        if not are_connected.wait(FILTERS_LIMIT_S):
            raise TimeoutError("the clients with filters got no answer")
        with connected(server.port, PLUTO_SSE.request, OTHERS) as clients:
            clients.listen(length.warm_up_s)
            receipts = clients.listen(length.seconds)
        others.terminate()
        others.join()
    return delivery(receipts, OTHERS)["p99_ms"]


def read_filtered(port: int, count: int, are_connected: Event) -> None:
    """Reads `count` streams, each with a filter of its own, until it is ended. Runs niced, behind the measurement."""
    os.nice(10)
    poll = select.epoll()
    streams = {}
    for number in range(count):
        chosen = random.Random(number).sample(range(1, FILTER_TICKERS), FILTER_SIZE)
        tickers = ",".join(f"COIN{index}USD" for index in chosen)
        stream = socket.create_connection(("127.0.0.1", port))
        stream.sendall(SSE_REQUEST % f"/api/stream?tickers={tickers}".encode())
        stream.recv(READ_SIZE)
        streams[stream.fileno()] = stream
        poll.register(stream, select.EPOLLIN)
    are_connected.set()
    while True:
        for descriptor, _ in poll.poll():
            streams[descriptor].recv(READ_SIZE)


def measure_calls(contender: Contender, codec: str, length: Length) -> Figures:
    """GetTickers at a steady rate, while another process reads streams. A call that starts late counts as longer."""
    with contender.run(RATE, SIZE, CALL_TICKERS) as server:
        streams = multiprocessing.Process(target=read_streams, args=(server.port, length.warm_up_s + length.seconds))
        streams.start()
        time.sleep(length.warm_up_s)
        took = sorted(call_steadily(server.port, codec, length.seconds))
        streams.join()
    if streams.exitcode:
        raise RuntimeError("the streams beside the calls failed; what was printed above says why")
    return {"calls": len(took), "p50_ms": percentile(took, 0.50), "p99_ms": percentile(took, 0.99)}


def read_streams(port: int, seconds: float) -> None:
    with connected(port, PLUTO_CONNECT["connect+proto"].request, CALL_STREAMS) as clients:
        clients.listen(seconds)


def call_steadily(port: int, codec: str, seconds: float) -> Iterator[float]:
    """Calls one after the other. Yields the ms that each took."""
    body = CODECS[codec]
    request = CALL % (codec.encode(), len(body), body)
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = begun = time.monotonic()
        for number in range(int(seconds * CALL_RATE)):
            due = begun + number / CALL_RATE
            time.sleep(max(0.0, due - time.monotonic()))
            asked = due if ended > due else time.monotonic()  # counts the wait for the answer before
            connection.sendall(request)
            size = 0
            for line in iter(answers.readline, b"\r\n"):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            if not answers.read(size):
                raise RuntimeError("GetTickers had no answer")
            ended = time.monotonic()
            yield (ended - asked) * 1000


Measurement = tuple[str, Callable[[], Figures]]


def measurements(contenders: Iterable[Contender], length: Length) -> list[Measurement]:
    """All measurements of a round, by name, in their order."""
    plan: list[Measurement] = []
    for it in contenders:
        plan.append((it.name, lambda it=it: measure_fanout(it, length, CLIENTS, RATE)))  # type: ignore[misc]
    for it in contenders:
        plan.append((f"{it.name}, idle", lambda it=it: measure_memory(it)))  # type: ignore[misc]
    for it in (*PLUTO_CONNECT.values(), *NODE_CONNECT.values()):
        if not it.missing():
            plan.append((it.name, lambda it=it: measure_fanout(it, length, CLIENTS, RATE)))  # type: ignore[misc]
    for (codec, server), it in CALLED.items():
        if not it.missing():
            plan.append(
                (calls_name(codec, server), lambda it=it, codec=codec: measure_calls(it, codec, length))  # type: ignore[misc]
            )
    for count in SCALE:
        plan.append(
            (scale_name(count), lambda count=count: measure_fanout(PLUTO_SSE, length, count, SCALE_RATE))  # type: ignore[misc]
        )
    plan.append(("filters", lambda: measure_filters(length)))
    plan.append(("slow clients", lambda: measure_slow_clients(length)))
    return plan


def calls_name(codec: str, server: str = "Pluto") -> str:
    return f"GetTickers, {codec}, {server}"


def scale_name(count: int) -> str:
    return f"Pluto, {count:,} clients"


def measure(contenders: list[Contender], length: Length) -> dict[str, list[Figures]]:
    rounds: dict[str, list[Figures]] = defaultdict(list)
    for number in range(length.rounds):
        for name, run in measurements(contenders, length):
            gc.collect()
            gc.disable()  # a collection in the clients would look like a late delivery
            stolen, began = stolen_s(), time.monotonic()
            figures = run()
            figures["stolen"] = (stolen_s() - stolen) / (time.monotonic() - began) / (os.cpu_count() or 1)
            gc.enable()
            rounds[name].append(figures)
            shown = "  ".join(f"{key} {value:.3g}" for key, value in figures.items())
            print(f"round {number + 1}  {name}: {shown}", file=sys.stderr, flush=True)
    return dict(rounds)


def stolen_s() -> float:
    """Seconds of all cores that the host of this virtual machine gave to others while we could have run."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def medians(rounds: dict[str, list[Figures]]) -> Results:
    return {
        name: {key: median(f[key] for f in all_of_it) for key in all_of_it[0]} for name, all_of_it in rounds.items()
    }


# --- telling ----------------------------------------------------------------------------------------------------------


def targets(results: Results) -> list[Target]:
    pluto, idle = results[PLUTO_SSE.name], results[f"{PLUTO_SSE.name}, idle"]
    websocket = results[PLUTO_WEBSOCKET.name]
    return [
        Target("µs/event, SSE, to the send() loop in C", 1.15, "×", ratio(pluto, results.get(RAW_SEND.name))),
        Target("µs/event, WebSocket, to the send() loop in C", 1.15, "×", ratio(websocket, results.get(RAW_SEND.name))),
        Target("µs/event, SSE, to nginx + nchan", 0.75, "×", ratio(pluto, results.get(NCHAN.name))),
        Target("µs/event, WebSocket, to nginx + nchan", 0.75, "×", ratio(websocket, results.get(NCHAN.name))),
        Target("memory of an idle client at 5,000", 3.0, "KiB", idle["kib_5000"]),
        Target("p99 beside 1,000 filters, to that without them", 1.2, "×", results["filters"]["ratio"]),
        Target("p99 with 10,000 clients, 4 events a second", 250.0, "ms", results[scale_name(10_000)]["p99_ms"]),
        *(
            Target(f"µs/event, {format}, to SSE", 1.2, "×", ratio(results[it.name], pluto))
            for format, it in PLUTO_CONNECT.items()
        ),
        *(
            Target(f"µs/event, {format}, to Node + Connect", 0.5, "×", ratio(results[it.name], results.get(node.name)))
            for (format, it), node in zip(PLUTO_CONNECT.items(), NODE_CONNECT.values(), strict=True)
        ),
        *(
            Target(f"p99 of GetTickers, {codec}, {CALL_RATE:g} a second", 5.0, "ms", results[name]["p99_ms"])
            for codec in CODECS
            for name in [calls_name(codec)]
        ),
    ]


def ratio(figures: Figures, to: Figures | None) -> float | None:
    return figures["us_per_event"] / to["us_per_event"] if to else None


def report(results: Results) -> str:
    slow, filters = results["slow clients"], results["filters"]
    return "\n\n".join(
        (
            f"{CLIENTS:,} clients, {RATE:g} events a second of {SIZE} bytes",
            markdown(HEADINGS, [contender_row(contender, results) for contender in CONTENDERS]),
            "The same by Connect",
            markdown(("format", "Pluto, µs/event", "× SSE", "Node, µs/event", "× Node"), connect_rows(results)),
            f"GetTickers, {CALL_RATE:g} calls a second",
            markdown(("codec", "server", "p50 ms", "p99 ms", "stolen"), call_rows(results)),
            f"Pluto, SSE, {SCALE_RATE:g} events a second",
            markdown(("clients", "µs/event", "p50 ms", "p99 ms"), scale_rows(results)),
            f"{OTHERS} clients alone: p99 {filters['alone_p99_ms']:.1f} ms; beside {FILTERS:,} with a filter each: "
            f"{filters['beside_p99_ms']:.1f} ms, {filters['ratio']:.2f} ×",
            f"{HEALTHY} clients alone: p99 {slow['alone_p99_ms']:.1f} ms; beside {DEAF} that don't read "
            f"({slow['lagging']:.0f} lag, says Pluto): {slow['beside_p99_ms']:.1f} ms, {slow['ratio']:.2f} ×",
            markdown(("target", "at most", "measured", ""), [target_row(target) for target in targets(results)]),
        )
    )


HEADINGS = ("server", "µs/event", "× C", "× nchan", "p50 ms", "p99 ms", "KiB/client, 1,000", "KiB/client, 5,000")


def contender_row(contender: Contender, results: Results) -> list[str]:
    if missing := contender.missing():
        return [contender.name, missing, *[""] * (len(HEADINGS) - 2)]
    figures, idle = results[contender.name], results[f"{contender.name}, idle"]
    ratios = [ratio(figures, results.get(other.name)) for other in (RAW_SEND, NCHAN)]
    return [
        contender.name,
        f"{figures['us_per_event']:.2f}",
        *("–" if value is None else f"{value:.2f}" for value in ratios),
        f"{figures['p50_ms']:.1f}",
        f"{figures['p99_ms']:.1f}",
        *(f"{idle[f'kib_{count}']:.1f}" for count in IDLE),
    ]


def connect_rows(results: Results) -> list[list[str]]:
    rows = []
    for (format, contender), peer in zip(PLUTO_CONNECT.items(), NODE_CONNECT.values(), strict=True):
        pluto, node = results[contender.name], results.get(peer.name)
        node_cells = [f"{node['us_per_event']:.1f}", f"{ratio(pluto, node):.2f}"] if node else [peer.missing(), "–"]
        pluto_cells = [f"{pluto['us_per_event']:.1f}", f"{ratio(pluto, results[PLUTO_SSE.name]):.2f}"]
        rows.append([format, *pluto_cells, *node_cells])
    return rows


def call_rows(results: Results) -> list[list[str]]:
    rows = []
    for codec, server in CALLED:
        if figures := results.get(calls_name(codec, server)):
            times = [f"{figures[key]:.2f}" for key in ("p50_ms", "p99_ms")]
            rows.append([codec, server, *times, f"{figures['stolen']:.1%}"])
    return rows


def scale_rows(results: Results) -> list[list[str]]:
    rows = [[f"the original's headline: {THE_ORIGINAL[0]}", "–", "–", f"{THE_ORIGINAL[1]:.0f}"]]
    for count in SCALE:
        figures = results[scale_name(count)]
        rows.append([f"{count:,}", *(f"{figures[key]:.1f}" for key in ("us_per_event", "p50_ms", "p99_ms"))])
    return rows


def target_row(target: Target) -> list[str]:
    measured = "–" if target.measured is None else f"{target.measured:.2f} {target.unit}"
    return [target.name, f"{target.limit:g} {target.unit}", measured, target.verdict]


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings), ["---"] * len(list(headings)), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def keep(path: Path, **results: Any) -> None:
    """Writes results as JSON, with a description of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", info)
    return {
        "cores": len(CORES),
        "cpu": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "load_before": LOAD_BEFORE,
        "versions": versions(),
    }


def draw(results: Results, path: Path) -> None:
    pyplot = import_module("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    present = [contender.name for contender in CONTENDERS if contender.name in results][::-1]
    colours = ["#0b7a75" if name.startswith("Pluto") else "#b8bec4" for name in present]
    figure, (cpu, memory, scale) = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for axes, title, values in (
        (cpu, "Server CPU per delivered event, µs", [results[name]["us_per_event"] for name in present]),
        (memory, "Memory per idle client at 5,000, KiB", [results[f"{name}, idle"]["kib_5000"] for name in present]),
    ):
        axes.bar_label(axes.barh(present, values, color=colours), fmt="%.1f", padding=3)
        axes.set_title(title, loc="left")
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    for key, style in (("p99_ms", "o-"), ("p50_ms", "o:")):
        scale.plot(
            SCALE, [results[scale_name(n)][key] for n in SCALE], style, color="#0b7a75", label=f"Pluto {key[:3]}"
        )
    scale.plot(*THE_ORIGINAL, "x", color="#c0392b", label="the original's headline")
    scale.set(xscale="log", yscale="log", xlabel="clients")
    scale.set_title(f"Delivery at {SCALE_RATE:g} events a second, ms", loc="left")
    scale.spines[["top", "right"]].set_visible(False)
    scale.legend(frameon=False)
    figure.savefig(path, dpi=110)


# --- the program ------------------------------------------------------------------------------------------------------


def raise_open_files() -> None:
    """Raises the limit of this process and of the servers that it starts. Exits if the machine doesn't allow it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        sys.exit(
            f"fanout: needs {OPEN_FILES} open files a process, and {hard} is the most here: raise ulimit -Hn first."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warn_of_company() -> None:
    if len(CORES) < 2:
        print("One core only: servers and clients share it, so delivery takes longer.", file=sys.stderr)
    if LOAD_BEFORE > BUSY_LOAD:
        print(f"Other programs are busy (load {LOAD_BEFORE:.1f}): times are longer, p99 most.", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--install-peers", action="store_true", help="install nginx, nchan and Fastify first")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [bench/results]")
    arguments = parser.parse_args()
    raise_open_files()
    if arguments.install_peers:
        install_peers()
    warn_of_company()
    os.sched_setaffinity(0, {CLIENT_CORE})
    length = QUICK if arguments.quick else FULL
    rounds = measure([contender for contender in CONTENDERS if not contender.missing()], length)
    write(rounds, length, arguments.out)


def write(rounds: dict[str, list[Figures]], length: Length, out: Path) -> None:
    results = medians(rounds)
    print(report(results))
    keep(out / "fanout.json", length=vars(length), medians=results, rounds=rounds)
    if find_spec("matplotlib"):
        draw(results, out / "fanout.png")
    else:
        print("\nNo plot: matplotlib isn't installed (bench/requirements.txt).")


if __name__ == "__main__":
    main()
