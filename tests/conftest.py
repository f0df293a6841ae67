"""Fixtures: one simulator and one Pluto for the whole run, and a browser for the tests that look at the page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from redis_server import RedisServer, redis_server
from running import Pluto, Simulator, running_pluto, running_simulator

from app import assemble, create_app
from settings import Settings
from tradingview.browser import DISABLED_FEATURES, find_browser

sys.dont_write_bytecode = False  # else each run compiles all the tests anew

LONGEST = [
    f"test_{name}"
    for name in (
        "hostile", "relay_faults", "simulator", "expiry", "patience", "supervision", "scraper", "shared_alerts",
        "streams", "link", "real_pace", "delivery", "workers", "walls", "page", "faults", "browser", "probe", "process",
        "run", "connect_clients", "page_history", "live", "doctor", "roles", "page_alerts", "original_page", "logs",
        "openapi", "relay", "server", "connect", "access", "broadcast",
    )
]  # fmt: skip
"""The files that take longest, begun first: else one worker is busy with the last one while the others wait. Those that
compute and those that wait take turns."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """Tests share it, so each uses tickers of its own."""
    with running_simulator("--weight", "20000", "--heartbeat", "2") as simulator:
        yield simulator


@pytest.fixture(scope="session")
def pluto(simulator: Simulator) -> Iterator[Pluto]:
    """Pluto against the simulator. Tests share it, so each removes the tickers it added."""
    with running_pluto("--source-url", simulator.url) as pluto:
        yield pluto


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests. The pages of a context share a renderer if their host is the same, as Pluto's pages do."""
    with sync_playwright() as playwright:
        path = find_browser(os.environ.get("PLUTO_BROWSER"), playwright.chromium.executable_path)
        arguments = ["--process-per-site", "--disable-features=" + ",".join(DISABLED_FEATURES)]
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that knows nothing of the pages before it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def thrifty(browser: Browser) -> Iterator[BrowserContext]:
    """Its pages of 127.0.0.1 share one renderer that is always there."""
    context = browser.new_context()
    keeper = context.new_page()  # while it is open, so is the renderer
    keeper.route("**/*", lambda route: route.fulfill(body=""))
    keeper.goto("http://127.0.0.1/")
    yield context
    context.close()


@pytest.fixture
def own_tab(thrifty: BrowserContext) -> Iterator[Page]:
    """A page of the test's own, for what can't be taken back: scripts, and what listens. Only cookies are shared."""
    tab = thrifty.new_page()
    yield tab
    tab.close()
    thrifty.clear_cookies()


@pytest.fixture(scope="session")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def redis(running_redis: RedisServer) -> RedisServer:
    """It is empty."""
    running_redis.client.flushall()
    return running_redis


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb here")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1400x900x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as lines:
            monkeypatch.setenv("DISPLAY", f":{lines.readline().strip()}")
        yield
    finally:
        server.terminate()
        server.wait(5)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a key and of its self-signed certificate for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def application() -> Flask:
    """The application of a Pluto that is not started."""
    return create_app(assemble(Settings(store=False)))
