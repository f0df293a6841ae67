"""The servers that are measured: what each requires, how it is started, and what its processes cost.

Each server sends the same event to every client: a line of JSON with `at=` and the microsecond in which the event was
made; over Connect, a PriceUpdate whose description says so. On two cores or more, each server has one and the clients
another. Linux only.
"""

from __future__ import annotations

import os
import shutil
import socket
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PEERS = Path(__file__).parent / "peers"
PROJECT = Path(__file__).parent.parent
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")  # where Debian puts it
DEBIAN_PACKAGES = ("nginx", "libnginx-mod-nchan")
START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
SSE_REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
CONNECT_REQUEST = (
    b"POST /crypto.v1.CryptoPriceService/StreamPrices HTTP/1.1\r\nHost: localhost\r\nConnect-Protocol-Version: 1\r\n"
    b"Content-Type: application/%b\r\nContent-Length: %d\r\n\r\n%b"
)
WEBSOCKET_REQUEST = (
    b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def connect_request(format: str) -> bytes:
    """The request for a stream of all prices in this format of Connect or gRPC-Web."""
    body = b"{}" if format.endswith("json") else b""
    envelope = struct.pack(">BI", 0, len(body)) + body
    return CONNECT_REQUEST % (format.encode(), len(envelope), envelope)


@dataclass(frozen=True)
class Server:
    """A running server and its child processes."""

    port: int
    process: psutil.Process

    @property
    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU time of all its processes, by the CPU clock of each: see clock_getcpuclockid(3)."""
        return sum(time.clock_gettime(~process.pid << 3 | 2) for process in self.family)

    def memory(self) -> int:
        """Bytes of memory: PSS, which counts shared memory once, without the kernel's socket buffers."""
        return sum(process.memory_full_info().pss for process in self.family)


Runner = Callable[..., AbstractContextManager[Server]]


@dataclass(frozen=True)
class Contender:
    """A server to measure. `missing` says what it requires and this machine lacks; empty if it can run.

    `run` takes events a second (0: none) and the size of an event's JSON in bytes; Pluto and Connect's server also take
    the number of tickers.
    """

    name: str
    request: bytes
    missing: Callable[[], str]
    run: Runner


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes that start in this block run on this core, also later."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with pinned(SERVER_CORE):
        started = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        assert started.stdout is not None
        started.stdout.close()


@contextmanager
def announced(*command: str | Path, **environment: str) -> Iterator[Server]:
    """A server that prints its port when it listens."""
    with process(*command, **environment) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line.startswith("port "):
            raise RuntimeError(f"{command[0]} didn't start")
        yield Server(int(line.split()[1]), psutil.Process(started.pid))


# --- Pluto ------------------------------------------------------------------------------------------------------------


def run_pluto(rate: float, size: int, tickers: int = 1) -> AbstractContextManager[Server]:
    arguments = map(str, (rate, size, tickers))
    return announced(sys.executable, PEERS / "pluto_server.py", *arguments, PYTHONPATH=str(PROJECT))


# --- a send() loop in C -----------------------------------------------------------------------------------------------


def missing_for_raw_send() -> str:
    return "" if shutil.which("cc") else "not installed: no C compiler (cc)"


@contextmanager
def run_raw_send(rate: float, size: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "raw_send"
        subprocess.run(["cc", "-O2", "-o", program, PEERS / "raw_send.c"], check=True)
        with announced(program, str(rate), str(size)) as server:
            yield server


# --- nginx with nchan -------------------------------------------------------------------------------------------------


def missing_for_nchan() -> str:
    if not shutil.which("nginx"):
        return "not installed: no nginx (--install-peers)"
    return "" if NCHAN_MODULE.exists() else "not installed: no nchan module for nginx (--install-peers)"


@contextmanager
def run_nchan(rate: float, size: int) -> Iterator[Server]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        template = string.Template((PEERS / "nchan.conf").read_text())
        (folder / "nginx.conf").write_text(template.substitute(FOLDER=folder, PORT=port))
        nginx = stack.enter_context(process("nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"))
        wait_for_port(port)
        if rate:
            stop = threading.Event()
            publisher = threading.Thread(target=publish, args=(port, rate, size, stop))
            publisher.start()
            stack.callback(publisher.join)
            stack.callback(stop.set)
        yield Server(port, psutil.Process(nginx.pid))


def publish(port: int, rate: float, size: int, stop: threading.Event) -> None:
    """Sends events to nchan, on the clients' core: only nginx's own work counts as its cost."""
    start, end = '{"type":"batch_update","description":"at=%d ', '"}'
    head = f"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic()
        while not stop.wait(max(0.0, due + 1 / rate - time.monotonic())):
            due += 1 / rate
            text = start % (time.time_ns() // 1000)
            connection.sendall(head + (text.ljust(size - len(end), "x") + end).encode())
            connection.recv(4096)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# --- Node with Fastify ------------------------------------------------------------------------------------------------


def missing_for_fastify() -> str:
    if not shutil.which("node"):
        return "not installed: no node"
    return "" if (PEERS / "node_modules" / "fastify").is_dir() else "not installed: no fastify (--install-peers)"


def run_fastify(rate: float, size: int) -> AbstractContextManager[Server]:
    return announced("node", PEERS / "fastify.mjs", str(rate), str(size))


# --- Node with Connect ------------------------------------------------------------------------------------------------


def missing_for_connect_node() -> str:
    if not shutil.which("node"):
        return "not installed: no node"
    modules = (PEERS / "node_modules" / "@connectrpc", PROJECT / "examples" / "node_modules" / "@bufbuild")
    return "" if all(folder.is_dir() for folder in modules) else "not installed: no connect-node (--install-peers)"


def run_connect_node(rate: float, size: int, tickers: int = 1) -> AbstractContextManager[Server]:
    return announced("node", PEERS / "connect.mjs", *map(str, (rate, size, tickers)))


# --- all --------------------------------------------------------------------------------------------------------------

PLUTO_SSE = Contender("Pluto, SSE", SSE_REQUEST % b"/api/stream", str, run_pluto)
PLUTO_WEBSOCKET = Contender("Pluto, WebSocket", WEBSOCKET_REQUEST, str, run_pluto)
RAW_SEND = Contender("send() loop in C", SSE_REQUEST % b"/", missing_for_raw_send, run_raw_send)
NCHAN = Contender("nginx + nchan", SSE_REQUEST % b"/stream", missing_for_nchan, run_nchan)
FASTIFY = Contender("Node + Fastify", SSE_REQUEST % b"/stream", missing_for_fastify, run_fastify)
CONTENDERS = (PLUTO_SSE, PLUTO_WEBSOCKET, RAW_SEND, NCHAN, FASTIFY)

PLUTO_CONNECT, NODE_CONNECT = (
    {
        format: Contender(f"{name}, {format}", connect_request(format), missing, run)
        for format in ("connect+json", "connect+proto", "grpc-web+json", "grpc-web+proto")
    }
    for name, missing, run in (
        ("Pluto", str, run_pluto),
        ("Node + Connect", missing_for_connect_node, run_connect_node),
    )
)


def install_peers() -> None:
    """Installs nginx and nchan from Debian (as root, without starting them), and the peers' packages from npm."""
    debian = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # 1: installed, but not started
    subprocess.run(["apt-get", "update", "-q"], check=True, env=debian)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *DEBIAN_PACKAGES], check=True, env=debian)
    if shutil.which("npm"):
        options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", *options], check=True, cwd=PEERS)
        # The service's generated code imports packages that must lie beside it.
        subprocess.run(["npm", "ci", *options[1:]], check=True, cwd=PROJECT / "examples")


def versions() -> dict[str, str]:
    """The versions of the programs that were measured."""
    commands = {"cc": ["cc", "--version"], "nginx": ["nginx", "-v"], "node": ["node", "--version"]}
    found = {"python": sys.version.split()[0]}
    for name, command in commands.items():
        if shutil.which(command[0]):
            shown = subprocess.run(command, capture_output=True, text=True)
            found[name] = (shown.stdout + shown.stderr).splitlines()[0]
    return found
