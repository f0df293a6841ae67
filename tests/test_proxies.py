"""Pluto behind real proxies and as a service: what examples/ has for it, with only addresses and paths changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import websocket
from httpx_sse import connect_sse
from running import PROJECT, QuoteServer, quote_server, wait_until

EXAMPLES = PROJECT / "examples"
STREAM_PRICES = "/crypto.v1.CryptoPriceService/StreamPrices"
PROMPTLY_S = 5.0  # a buffer would keep it for ever: there is nothing more to come that could fill one


class Proxy(NamedTuple):
    """A running proxy, which speaks TLS on 127.0.0.1, and the certificate it shows."""

    port: int
    plain_port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, **options: object) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.url, verify=trust, timeout=10.0, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server("--heartbeat", "300") as server:
        server.track("BTCUSD", "ETHUSD")
        server.put(("BTCUSD", "live", "1.5"))
        yield server


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not here")
    return kind


@pytest.fixture(scope="module")
def proxy(
    kind: str, server: QuoteServer, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with running_proxy(kind, server.port, certificate, tmp_path_factory.mktemp(kind)) as proxy:
        yield proxy


@contextmanager
def running_proxy(kind: str, upstream: int, certificate: tuple[Path, Path], folder: Path) -> Iterator[Proxy]:
    """The proxy before that port. Neither takes a port of the system's choice, so another is tried if one is lost."""
    for _ in range(5):
        proxy = Proxy(*free_ports(), certificate[1])
        command = {"nginx": nginx_command, "caddy": caddy_command}[kind](proxy, upstream, certificate[0], folder)
        with (folder / "log").open("wb") as log:
            environment = {**os.environ, "HOME": str(folder)}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            if wait_until(lambda process=process, proxy=proxy: ends_or_listens(process, proxy)) == "listens":  # type: ignore[misc]
                yield proxy
                return
        finally:
            process.terminate()
            process.wait(10)
        assert "in use" in (folder / "log").read_text(), (folder / "log").read_text()
    raise AssertionError("no port stayed free")


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def ends_or_listens(process: subprocess.Popen[bytes], proxy: Proxy) -> str:
    if process.poll() is not None:
        return "ends"
    return "listens" if is_open(proxy.port) and is_open(proxy.plain_port) else ""


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"the example has no {old}"
        text = text.replace(old, new)
    return text


def nginx_command(proxy: Proxy, upstream: int, key: Path, folder: Path) -> list[str]:
    server = changed(
        (EXAMPLES / "nginx.conf").read_text(encoding="utf-8"),
        {
            "127.0.0.1:8080": f"127.0.0.1:{upstream}",
            "listen 80;": f"listen 127.0.0.1:{proxy.plain_port};",
            "listen 443": f"listen 127.0.0.1:{proxy.port}",
            "pluto.example;": "localhost;",
            "/etc/ssl/pluto.example/fullchain.pem": str(proxy.certificate),
            "/etc/ssl/pluto.example/privkey.pem": str(key),
        },
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not enter the test's folder
    main = f"daemon off; {user} pid {folder}/pid; error_log stderr; events {{}}\n"
    path = folder / "nginx.conf"
    path.write_text(f"{main}http {{ access_log off;\n{temporary}{server}}}\n", encoding="utf-8")
    return ["nginx", "-e", "stderr", "-c", str(path)]


def caddy_command(proxy: Proxy, upstream: int, key: Path, folder: Path) -> list[str]:
    site = changed(
        (EXAMPLES / "Caddyfile").read_text(encoding="utf-8"),
        {
            "pluto.example {": f"localhost {{\n\tbind 127.0.0.1\n\ttls {proxy.certificate} {key}",
            "127.0.0.1:8080": f"127.0.0.1:{upstream}",
        },
    )
    options = f"{{\n\tadmin off\n\thttp_port {proxy.plain_port}\n\thttps_port {proxy.port}\n}}\n"
    path = folder / "Caddyfile"
    path.write_text(options + site, encoding="utf-8")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


def streams(server: QuoteServer) -> int:
    return sum(server.server()["clients"].values())


# --- what flows through -----------------------------------------------------------------------------------------------


def test_a_server_sent_event_arrives_promptly(proxy: Proxy, server: QuoteServer) -> None:
    price = f"{time.time():.3f}"
    with proxy.client() as client, connect_sse(client, "GET", "/api/stream") as source:
        assert source.response.headers["content-type"] == "text/event-stream"
        events = (event.data for event in source.iter_sse() if event.data)
        assert '"connected"' in next(events)
        while "batch_update" not in next(events):
            pass
        put_at = time.monotonic()
        server.put(("BTCUSD", "live", price))
        while price not in next(events):
            pass
        assert time.monotonic() - put_at < PROMPTLY_S
    wait_until(lambda: streams(server) == 0, what="the proxy tells Pluto that the client has left")


def test_a_connect_message_arrives_promptly(proxy: Proxy, server: QuoteServer) -> None:
    price = f"{time.time():.3f}"
    request = {"content": struct.pack(">BI", 0, 2) + b"{}", "headers": {"Content-Type": "application/connect+json"}}
    with proxy.client() as client, client.stream("POST", STREAM_PRICES, **request) as answer:  # type: ignore[arg-type]
        parts = answer.iter_raw()
        received = next(parts)
        while b"BTCUSD" not in received:
            received += next(parts)
        put_at = time.monotonic()
        server.put(("BTCUSD", "live", price))
        while price.encode() not in received:
            received += next(parts)
        assert time.monotonic() - put_at < PROMPTLY_S
    wait_until(lambda: streams(server) == 0, what="the proxy tells Pluto that the client has left")


def test_a_websocket_goes_through_both_ways(proxy: Proxy, server: QuoteServer) -> None:
    trust = {"ca_certs": str(proxy.certificate)}
    url = f"wss://localhost:{proxy.port}/api/ws"
    with closing(websocket.create_connection(url, timeout=10, sslopt=trust, suppress_origin=True)) as connection:
        assert json.loads(connection.recv())["type"] == "connected"
        connection.send('{"tickers":["ETHUSD"]}')

        def tells_only_ethusd() -> bool:
            return bool(json.loads(connection.recv()).get("tickers") == ["ETHUSD"])

        wait_until(tells_only_ethusd)
    wait_until(lambda: streams(server) == 0, what="the proxy tells Pluto that the client has left")


def test_a_failure_stays_pluto_s_own(proxy: Proxy) -> None:
    with proxy.client() as client:
        missing = client.get("/api/tickers/NOTTRACKED")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_tracked")
        assert client.get("/api/tickers/NYSE%3ANEE%2FPW").json()["code"] == "not_tracked", "its slash is left encoded"
        large = client.post("/api/tickers", json={"ticker": "B" * 70_000})
        assert (large.status_code, large.json()["code"]) == (413, "too_large")
        assert client.get("/").headers["content-security-policy"].startswith("default-src 'none'")


def test_pluto_s_own_refusal_of_a_stream_stays_a_refusal(
    kind: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    with (
        quote_server("--max-streams", "1") as full,
        httpx.stream("GET", f"{full.url}/api/stream", timeout=10) as first,
        running_proxy(kind, full.port, certificate, tmp_path) as proxy,
        proxy.client() as client,
    ):
        lines = first.iter_lines()
        next(lines)
        refused = client.get("/api/stream", headers={"Accept": "text/event-stream"})
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")


def test_plain_http_is_sent_to_tls(proxy: Proxy) -> None:
    answer = httpx.get(f"http://localhost:{proxy.plain_port}/?tickers=BTCUSD", timeout=10)
    assert answer.status_code in (301, 308)
    assert answer.headers["location"].startswith("https://localhost")
    assert answer.headers["location"].endswith("/?tickers=BTCUSD")


def test_metrics_are_for_the_machine_itself(proxy: Proxy) -> None:
    with proxy.client() as client:
        assert "pluto_build_info" in client.get("/metrics").text
    with proxy.client(transport=other_address(proxy)) as client:
        refused = client.get("/metrics")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.get("/livez").status_code == 200


def other_address(proxy: Proxy) -> httpx.HTTPTransport:
    trust = ssl.create_default_context(cafile=str(proxy.certificate))
    return httpx.HTTPTransport(verify=trust, local_address="127.0.0.2")


# --- what is told to Pluto --------------------------------------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers it got, as JSON pairs."""

    def do_GET(self) -> None:
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_what_a_client_says_of_itself_is_replaced(kind: str, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil.example"}
    lies |= {"Forwarded": "for=6.6.6.6;host=evil.example", "Connection": "Upgrade", "Upgrade": "h2c"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        with running_proxy(kind, echo.server_port, certificate, tmp_path) as proxy, proxy.client() as client:
            told = client.get("/", headers=lies).json()
        echo.shutdown()
    host = f"localhost:{proxy.port}"
    assert [value for name, value in told if name == "x-forwarded-for"] == ["127.0.0.1"]
    assert [value for name, value in told if name == "x-forwarded-proto"] == ["https"]
    assert [value for name, value in told if name == "x-forwarded-host"] == [host]
    assert [value for name, value in told if name == "host"] == [host]
    assert not re.search("6.6.6.6|evil|gopher|h2c", json.dumps(told))


def test_without_a_proxy_nobody_is_who_he_says(server: QuoteServer) -> None:
    lies = [f"X-Forwarded-Host: {name}" for name in ("evil.example", "localhost")] + ["X-Forwarded-Proto: https"]
    url = f"ws://127.0.0.1:{server.port}/api/ws"
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(url, timeout=10, origin="http://evil.example", header=lies)
    assert refused.value.status_code == 403


def test_without_pluto_the_proxy_says_so_in_its_form(kind: str, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with socket.socket() as nobody:  # nobody else can take the port meanwhile
        nobody.bind(("127.0.0.1", 0))
        with (
            running_proxy(kind, nobody.getsockname()[1], certificate, tmp_path) as proxy,
            proxy.client() as client,
        ):
            away = client.get("/api/tickers")
            events = client.get("/api/stream", headers={"Accept": "text/event-stream"})
    assert (away.status_code, away.json()["code"]) == (503, "unavailable")
    assert away.headers["content-type"].startswith("application/json")
    assert away.headers["retry-after"] == "5"
    assert (events.status_code, events.text) == (200, "retry: 5000\n\n"), "an EventSource comes back by itself"
    assert events.headers["content-type"] == "text/event-stream"
    assert "retry-after" not in events.headers


# --- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the project where it is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    text = (EXAMPLES / "pluto.service").read_text(encoding="utf-8")
    path = tmp_path / "pluto.service"
    path.write_text(changed(text, {"/opt/pluto": str(PROJECT)}), encoding="utf-8")
    return path


def test_systemd_understands_the_whole_unit(unit: Path) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=20
    )
    assert verified.returncode == 0, verified.stderr
    assert "pluto.service" not in verified.stderr, verified.stderr  # what it doesn't know it only warns of


def test_the_unit_s_exposure_is_low(unit: Path) -> None:
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    if "unrecognized option" in rated.stderr:
        pytest.skip("this systemd-analyze can't rate a file")
    score = re.search(r"Overall exposure level for pluto.service: ([\d.]+)", rated.stdout)
    assert score is not None, rated.stderr
    assert float(score[1]) <= 2.5
