"""Clients of others against the Connect surface: curl, Node, Chromium from another origin; and what is generated."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from running import QuoteServer, npm_packages, quote_server, wait_until

PROJECT = Path(__file__).parent.parent
EXAMPLES = PROJECT / "examples"
CHECKS = (PROJECT / "tests/connect_checks.mjs").read_text(encoding="utf-8")
CHECKS_PAGE = """<!doctype html>
%s
<script type="module">
import * as web from "@connectrpc/connect-web";
import { checkAll, webTransports } from "./checks.mjs";
const baseUrl = new URLSearchParams(location.search).get("server");
window.results = await checkAll(webTransports(web, { baseUrl }));
</script>
"""
IMPORT_MAP = re.compile(r'<script type="importmap">.*?</script>', re.DOTALL)
TOOLS = ("buf", "python-grpc-tools-protoc", "protoc-gen-connectrpc")
TOOLS_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
PASSED = dict.fromkeys(["connectJson", "connectBinary", "connectGet", "grpcWebJson", "grpcWebBinary"], "passed")

# The original's messages and fields, which its clients know by number.
CONTRACT = """syntax = "proto3";
package crypto.v1;
service CryptoPriceService {
  rpc AddTicker(AddTickerRequest) returns (AddTickerResponse);
  rpc RemoveTicker(RemoveTickerRequest) returns (RemoveTickerResponse);
  rpc GetTickers(GetTickersRequest) returns (GetTickersResponse) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc StreamPrices(StreamPricesRequest) returns (stream PriceUpdate);
}
message AddTickerRequest { string ticker = 1; }
message AddTickerResponse { bool success = 1; string message = 2; }
message RemoveTickerRequest { string ticker = 1; }
message RemoveTickerResponse { bool success = 1; string message = 2; }
message GetTickersRequest {}
message GetTickersResponse { repeated string tickers = 1; repeated PriceUpdate prices = 2; }
message StreamPricesRequest { repeated string tickers = 1; double max_rate = 2; bool all_states = 3; }
message PriceUpdate { string ticker = 1; double price = 2; double change_percent = 3; int64 timestamp = 4; }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuoteServer]:
    """Two tickers: ETHUSD stands still, BTCUSD changes all the time, and has done so long enough to have a history."""
    with quote_server("--data", str(tmp_path_factory.mktemp("data"))) as server:
        server.track("BTCUSD", "ETHUSD")
        server.put(("ETHUSD", "stale", "2500.5"))
        stop = threading.Event()
        writer = threading.Thread(target=keep_changing, args=[server, stop])
        writer.start()
        wait_until(lambda: server.http.get("/api/tickers/BTCUSD/history").json().get("points"))
        yield server
        stop.set()
        writer.join()


def keep_changing(server: QuoteServer, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.06):
        number += 1
        server.put(("BTCUSD", "live", f"45{number:03}.5"))


@pytest.fixture(scope="module")
def packages() -> Path:
    """The examples' packages."""
    return npm_packages(EXAMPLES)


# --- what is generated ------------------------------------------------------------------------------------------------


def buf(*arguments: str, cwd: Path = PROJECT) -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=TOOLS_PATH)]
    if missing:
        pytest.skip(f"the generators are not there ({', '.join(missing)}): requirements-dev.txt has them")
    done = subprocess.run(
        ["buf", *arguments], cwd=cwd, env={**os.environ, "PATH": TOOLS_PATH}, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files_of(folder: Path, *suffixes: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_the_generated_python_is_what_the_proto_file_gives(tmp_path: Path) -> None:
    buf("generate", "--output", str(tmp_path))
    assert files_of(PROJECT / "proto", ".py", ".pyi") == files_of(tmp_path / "proto", ".py", ".pyi")


def test_the_generated_javascript_is_what_the_proto_file_gives(packages: Path, tmp_path: Path) -> None:
    buf("generate", "--template", "examples/buf.gen.yaml", "--output", str(tmp_path))
    assert files_of(EXAMPLES / "gen", ".js") == files_of(tmp_path / "examples/gen", ".js")


def test_the_proto_file_is_clean() -> None:
    buf("lint")
    buf("format", "--diff", "--exit-code")


def test_the_proto_file_keeps_what_clients_of_the_original_know(tmp_path: Path) -> None:
    contract = tmp_path / "proto/crypto/v1/crypto_service.proto"
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT)
    shutil.copy(PROJECT / "buf.yaml", tmp_path)
    buf("breaking", "--against", str(tmp_path))


# --- curl and the examples --------------------------------------------------------------------------------------------


def curl_lines() -> list[str]:
    text = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if "curl " in line and "crypto.v1.CryptoPriceService" in line]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
@pytest.mark.parametrize("line", curl_lines())
def test_the_documented_curl_lines_work_as_they_stand(server: QuoteServer, line: str) -> None:
    command = line.replace("localhost:8080", f"127.0.0.1:{server.port}")
    assert command != line
    command = command.replace("connect-timeout-ms: 3000", "connect-timeout-ms: 1000")
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=15)
    assert done.returncode == 0, done.stderr
    output = done.stdout.decode(errors="replace")
    assert re.search(r'"success": true|"tickers":\["BTCUSD"|"(priceText|open)": ?"45\d\d\d\.5"', output), output
    assert "error" not in output or "deadline_exceeded" in output
    server.untrack("ADAUSD")


def test_every_call_is_documented_with_curl() -> None:
    called = {match[1] for line in curl_lines() if (match := re.search(r"Service/(\w+)", line))}
    assert called == {"AddTicker", "RemoveTicker", "GetTickers", "GetHistory", "StreamPrices"}


@contextmanager
def example(*command: str, cwd: Path = PROJECT) -> Iterator[Iterator[str]]:
    """The lines that an example prints."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield iter(process.stdout)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(5)
        process.stdout.close()


def test_the_python_example_prints_prices(server: QuoteServer) -> None:
    with example(sys.executable, "examples/python_client.py", server.url, "BTCUSD") as lines:
        assert next(lines) == "BTCUSD is tracked already.\n"
        for _ in range(3):
            assert re.fullmatch(r"BTCUSD 45\d\d\d\.5 STATE_LIVE\n", next(lines))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
def test_the_shell_example_prints_prices(server: QuoteServer) -> None:
    with example("examples/prices.sh", server.url, "BTCUSD") as lines:
        prices = (json.loads(line) for line in lines if line.startswith('{"ticker"'))
        for _ in range(3):
            assert re.fullmatch(r"45\d\d\d\.5", next(prices)["priceText"])


def test_the_node_example_prints_prices(server: QuoteServer, packages: Path) -> None:
    with example("node", "node_client.mjs", server.url, "BTCUSD", cwd=EXAMPLES) as lines:
        assert next(lines) == "BTCUSD is tracked already.\n"
        for _ in range(3):
            assert re.fullmatch(r"BTCUSD 45\d\d\d\.5 LIVE\n", next(lines))


def test_the_examples_are_short() -> None:
    for name in ("python_client.py", "node_client.mjs", "browser.html", "prices.sh"):
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 40, name


# --- connect-node and connect-web -------------------------------------------------------------------------------------


def test_nodes_clients_see_what_they_should(server: QuoteServer, packages: Path) -> None:
    program = CHECKS + (PROJECT / "tests/connect_node.mjs").read_text(encoding="utf-8")
    done = subprocess.run(  # on standard input, so that packages are looked for where it runs
        ["node", "--input-type=module", "-", server.url],
        cwd=EXAMPLES, input=program, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["node"] == PASSED
    assert results["fetch"] == PASSED
    assert results["grpc"].startswith("ConnectError: ["), "it fails, and doesn't hang"
    wait_until(lambda: not server.server()["clients"])


class Pages(http.server.SimpleHTTPRequestHandler):
    """The examples' folder, and a page with the checks."""

    def do_GET(self) -> None:
        example = (EXAMPLES / "browser.html").read_text(encoding="utf-8")
        import_map = IMPORT_MAP.search(example)
        assert import_map is not None
        ours = {"/checks.html": ("text/html", CHECKS_PAGE % import_map[0]), "/checks.mjs": ("text/javascript", CHECKS)}
        content = ours.get(self.path.partition("?")[0])
        if content is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", content[0])
        self.end_headers()
        self.wfile.write(content[1].encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def pages(port: int) -> Iterator[str]:
    """Serves them on this port of localhost; 0 takes a free one."""
    handler = functools.partial(Pages, directory=str(EXAMPLES))
    try:
        site = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        pytest.skip(f"port {port}, the origin that Pluto allows, is taken")
    thread = threading.Thread(target=site.serve_forever, args=[0.05])
    thread.start()
    with contextlib.closing(site.socket):
        yield f"http://localhost:{site.server_port}"
        site.shutdown()
        thread.join()


def test_connect_web_in_chromium_works_from_the_original_front_ends_origin(
    server: QuoteServer, packages: Path, own_tab: Page
) -> None:
    with pages(3000) as origin:
        own_tab.goto(f"{origin}/checks.html?server={server.url}")
        own_tab.wait_for_function("window.results", timeout=30_000)
        assert own_tab.evaluate("window.results") == PASSED
        own_tab.close()


def test_a_page_of_another_origin_is_kept_out(server: QuoteServer, packages: Path, own_tab: Page) -> None:
    with pages(0) as origin:
        own_tab.goto(f"{origin}/checks.html?server={server.url}")
        own_tab.wait_for_function("window.results", timeout=30_000)
        results = own_tab.evaluate("window.results")
        assert all("Failed to fetch" in result for result in results.values()), results
        own_tab.close()


def test_the_browser_example_shows_prices(server: QuoteServer, packages: Path, own_tab: Page) -> None:
    with pages(3000) as origin:
        own_tab.goto(f"{origin}/browser.html?server={server.url}")
        cell = own_tab.locator("tr", has_text="BTCUSD").locator("td").nth(1)
        expect(cell).to_have_text(re.compile(r"^45\d\d\d\.5$"))
        first = cell.inner_text()
        expect(cell).not_to_have_text(first)
        own_tab.close()
