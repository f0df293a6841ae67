"""Who may call: foreign names, foreign pages, callers without the token, those who try too often; and what leaks.

Real sockets against a running server. An address other than this machine's is played by a trusted proxy, which is what
one looks like to Pluto.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect
from running import PROJECT, TLS, QuoteServer, alive, clean_environment, descendants, quote_server, wait_until

from quotes import PlutoError
from settings import Settings, hosts_of, origins_of, read_settings
from web import access
from web.errors import ForbiddenHost

SERVICE = "/crypto.v1.CryptoPriceService"
TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
EVERYTHING = [
    ("GET", "/"),
    ("GET", "/static/main.js"),
    ("GET", "/vendor/lightweight-charts.js"),
    ("GET", "/api/tickers"),
    ("POST", "/api/tickers"),
    ("DELETE", "/api/tickers/ETHUSD"),
    ("GET", "/api/tickers/BTCUSD"),
    ("GET", "/api/tickers/BTCUSD/why"),
    ("POST", "/api/tickers/BTCUSD/retry"),
    ("GET", "/api/stream"),
    ("GET", "/api/ws"),
    ("GET", "/health"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/api/performance"),
    ("GET", "/api/nothing"),
    ("POST", "/login"),
    ("POST", f"{SERVICE}/AddTicker"),
    ("POST", f"{SERVICE}/RemoveTicker"),
    ("POST", f"{SERVICE}/RetryTicker"),
    ("POST", f"{SERVICE}/GetTickers"),
    ("GET", f"{SERVICE}/GetTickers?encoding=json&message=%7B%7D"),
    ("POST", f"{SERVICE}/StreamPrices"),
    ("OPTIONS", "/api/tickers"),
]
PATIENCE_MS = 15_000  # for a page to open on a busy machine
OPEN = {"/", "/static/main.js", "/livez", "/readyz", "/login"}


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server("--allowed-hosts", "pluto.example.com") as server:
        server.track("BTCUSD")
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[QuoteServer]:
    """Asks for a token, and believes this machine about whom it forwards."""
    with quote_server(
        "--access-token", TOKEN, "--trusted-proxies", "127.0.0.1", "--allowed-hosts", "pluto.example.com"
    ) as server:
        server.http.headers.update(BEARER)
        server.track("BTCUSD")
        del server.http.headers["Authorization"]
        yield server


def call(server: QuoteServer, method: str, path: str, **headers: str) -> httpx.Response:
    """One request; of an answer that doesn't end, only the head."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    content = b"{}" if method == "POST" else None
    if content:
        given = {"Content-Type": "application/json", **given}
    with server.http.stream(method, path, content=content, headers=given) as answer:
        if answer.headers.get("content-type", "").startswith(("application/json", "text/html")):
            answer.read()
        return answer


ADVICE = re.compile(r"\b(Call|Send|Open|Start it|Check it|Try again|close one)\b")


def code_of(answer: httpx.Response) -> str:
    """The name of the error, whichever protocol says it; each is JSON and says what to do."""
    said = answer.json()
    assert ADVICE.search(said["message"]), said["message"]
    assert "Traceback" not in answer.text
    assert said.get("success", False) is False
    code: str = said["code"]
    return code


# --- by which name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
def test_a_foreign_host_gets_nothing_of_anything(server: QuoteServer, method: str, path: str) -> None:
    refused = call(server, method, path, Host="rebound.example:8080", **(WEBSOCKET if path == "/api/ws" else {}))
    assert refused.status_code == 403
    assert code_of(refused) == ("permission_denied" if path.startswith(SERVICE) else "forbidden_host")


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9", "LOCALHOST", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080", "pluto.example.com:443"],
)
def test_the_names_of_this_machine_and_those_allowed_are_fine(server: QuoteServer, host: str) -> None:
    assert call(server, "GET", "/livez", Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "evil.localhost", "localhost.", "192.168.1.2", "0.0.0.0",
        "[::2]", "127.1", "2130706433", "[::ffff:10.0.0.1]",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_name_of_this_machine_is_not(server: QuoteServer, host: str) -> None:
    assert code_of(call(server, "GET", "/livez", Host=host)) == "forbidden_host"


@pytest.mark.parametrize(
    "host", ["", "[::1", "localhost:port", "localhost:8080:9", "localhost, evil.example", "a@localhost", "localhost/"]
)
def test_what_is_no_name_at_all_is_malformed(server: QuoteServer, host: str) -> None:
    assert code_of(call(server, "GET", "/livez", Host=host)) == "malformed_request"


def test_a_request_that_names_no_host_or_two_is_refused(server: QuoteServer) -> None:
    for lines in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(f"GET /api/tickers HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")), answer[:100]
            assert b"BTCUSD" not in answer


def test_whoever_listens_everywhere_is_known_by_any_address_but_by_no_name() -> None:
    everywhere = access.Access(Settings(), "0.0.0.0").guard(_nothing, "", _raise)
    for host, is_fine in (("192.168.1.2:8080", True), ("[fe80::1]", True), ("evil.example", False)):
        with contextlib.nullcontext() if is_fine else pytest.raises(ForbiddenHost):
            everywhere(_environ(host), lambda *_: lambda _: None)


def _nothing(environ: object, start_response: object) -> list[bytes]:
    return []


def _raise(error: PlutoError) -> NoReturn:
    raise error


def _environ(host: str) -> dict[str, str]:
    return {"HTTP_HOST": host, "REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}


# --- from which page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
@pytest.mark.parametrize("sign", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}], ids=str)
def test_a_foreign_page_may_not_even_ask(server: QuoteServer, method: str, path: str, sign: dict[str, str]) -> None:
    refused = call(server, method, path, **sign, **(WEBSOCKET if path == "/api/ws" else {}))
    assert refused.status_code == 403
    assert code_of(refused) == ("permission_denied" if path.startswith(SERVICE) else "forbidden_origin")
    assert "access-control-allow-origin" not in refused.headers
    assert server.server()["clients"] == {}
    assert server.prices().keys() == {"BTCUSD"}


@pytest.mark.parametrize(
    "origin",
    ["null", "http://localhost:3001", "https://localhost:3000", "http://localhost", "http://pluto.example.com", ""],
)
def test_an_origin_is_the_same_only_if_all_of_it_is(server: QuoteServer, origin: str) -> None:
    assert call(server, "GET", "/api/tickers", Origin=origin).status_code == 403


def test_pages_of_this_and_of_allowed_origins_may(server: QuoteServer) -> None:
    assert call(server, "GET", "/api/stream", Origin=server.url, Sec_Fetch_Site="same-origin").status_code == 200
    theirs = call(server, "GET", "/api/stream", Origin="http://localhost:3000", Sec_Fetch_Site="same-site")
    assert theirs.status_code == 200
    assert theirs.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert call(server, "GET", "/api/ws", Origin=server.url, **WEBSOCKET).status_code == 101


def test_a_link_from_elsewhere_leads_to_the_page_and_nowhere_else(server: QuoteServer) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert call(server, "GET", "/?tickers=BTCUSD", **visit).status_code == 200
    assert call(server, "GET", "/api/tickers", **visit).status_code == 403
    assert call(server, "GET", "/", **{**visit, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert call(server, "GET", "/", **{**visit, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("path", ["/api/tickers", f"{SERVICE}/AddTicker", f"{SERVICE}/RemoveTicker"])
def test_what_a_form_can_send_changes_nothing(server: QuoteServer, path: str, content_type: str) -> None:
    body = b'{"ticker":"FORMUSD"}' if path.endswith("AddTicker") or path.startswith("/api") else b'{"ticker":"BTCUSD"}'
    assert server.http.post(path, content=body, headers={"Content-Type": content_type}).status_code == 415
    assert server.prices().keys() == {"BTCUSD"}


# --- with the token ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
def test_without_the_token_nothing_but_the_door_is_open(guarded: QuoteServer, method: str, path: str) -> None:
    headers = WEBSOCKET if path == "/api/ws" else {}
    answer = call(guarded, method, path, X_Forwarded_For="203.0.113.1", **headers)
    if path in OPEN:
        assert "BTCUSD" not in (answer.text if path == "/" else "")
        return
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="Pluto"'
    assert code_of(answer) == "unauthenticated"
    if path != "/login":
        let_in = call(guarded, method, path, **BEARER, **headers)
        assert let_in.status_code not in (401, 403)


def test_a_token_is_asked_for_on_this_machine_too_once_there_is_one(guarded: QuoteServer) -> None:
    assert call(guarded, "GET", "/api/tickers").status_code == 401
    assert call(guarded, "GET", "/api/tickers", **BEARER).json()["tickers"] == ["BTCUSD"]
    assert call(guarded, "GET", "/api/tickers", Authorization=f"bearer {TOKEN}").status_code == 200


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer ", "Bearer ÿþ", f"Basic {TOKEN}", TOKEN]
)
def test_a_wrong_token_is_as_good_as_none(guarded: QuoteServer, header: str) -> None:
    sent = header.encode("latin-1").decode("latin-1")
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
        request = (
            "GET /api/tickers HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.2\r\n"
            f"Authorization: {sent}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_whoever_guesses_is_not_heard_for_a_while_and_nobody_else_suffers(guarded: QuoteServer) -> None:
    def guess(token: str, address: str) -> httpx.Response:
        return call(guarded, "GET", "/api/tickers", Authorization=f"Bearer {token}", X_Forwarded_For=address)

    for number in range(10):
        assert guess(f"wrong-token-number-{number}", "203.0.113.3").status_code == 401
    refused = guess("wrong-token-number-10", "203.0.113.3")
    assert (refused.status_code, code_of(refused)) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert guess(TOKEN, "203.0.113.3").status_code == 429, "or it could go on guessing"
    by_form = guarded.http.post("/login", data={"token": TOKEN}, headers={"X-Forwarded-For": "203.0.113.3"})
    assert by_form.status_code == 429
    assert "Too many" in by_form.text
    assert guess(TOKEN, "203.0.113.4").status_code == 200


def test_a_session_is_opened_by_the_form_and_is_not_the_token(guarded: QuoteServer) -> None:
    answer = guarded.http.post("/login?tickers=BTCUSD", data={"token": f" {TOKEN} "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?tickers=BTCUSD")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    session = cookie.partition(";")[0]
    assert call(guarded, "GET", "/api/tickers", Cookie=session).status_code == 200
    assert call(guarded, "GET", "/api/stream", Cookie=session).status_code == 200
    assert call(guarded, "GET", "/api/ws", Cookie=session, Origin=guarded.url, **WEBSOCKET).status_code == 101
    assert call(guarded, "GET", "/api/tickers", Cookie=f"{session}x").status_code == 401
    assert call(guarded, "GET", "/api/tickers", Cookie="pluto_session=.aaaaaa.bbbb").status_code == 401
    guarded.http.cookies.clear()


def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_only(guarded: QuoteServer) -> None:
    outside = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "pluto.example.com",
        "Origin": "https://pluto.example.com",
    }
    answer = guarded.http.post("/login", data={"token": TOKEN}, headers=outside)
    assert answer.status_code == 303
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    guarded.http.cookies.clear()
    foreign = guarded.http.get("/livez", headers={**outside, "X-Forwarded-Host": "evil.example"})
    assert code_of(foreign) == "forbidden_host"


def test_a_session_ends_with_its_time_and_with_its_token() -> None:
    one, other = (access.Access(Settings(access_token=token)) for token in (TOKEN, TOKEN[::-1]))
    past = access.Access(Settings(access_token=TOKEN), session_s=-1)
    cookie = one.log_in(TOKEN, {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http"})
    environ = {"HTTP_COOKIE": cookie.partition(";")[0]}
    assert one.is_authenticated(environ)
    assert not other.is_authenticated(environ)
    assert not past.is_authenticated(environ)


def test_beyond_this_machine_there_is_always_a_token() -> None:
    for bound in ("127.0.0.1", "127.3.2.1", "::1"):
        assert access.Access(Settings(), bound).is_authenticated({})
    beyond = [access.Access(Settings(), bound) for bound in ("0.0.0.0", "::", "192.168.1.2", "::ffff:10.0.0.1")]
    assert not any(one.is_authenticated({}) for one in beyond)
    made = {one.made_token for one in beyond}
    assert len(made) == 4
    assert min(map(len, made)) >= 32
    chosen = access.Access(Settings(access_token=TOKEN), "0.0.0.0")
    assert chosen.made_token == ""
    assert chosen.is_authenticated({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "REMOTE_ADDR": ""})
    assert TOKEN not in repr(Settings(access_token=TOKEN)) + repr(chosen)


# --- how often --------------------------------------------------------------------------------------------------------


def test_an_address_adds_so_many_tickers_a_minute_by_whatever_way() -> None:
    with quote_server("--additions-per-minute", "3", "--trusted-proxies", "127.0.0.0/8") as server:

        def add(path: str, address: str) -> httpx.Response:
            return server.http.post(path, json={"ticker": "BTCUSD"}, headers={"X-Forwarded-For": address})

        ways = ("/api/tickers", f"{SERVICE}/AddTicker")
        assert [add(way, "198.51.100.1").status_code for way in (*ways, ways[0])] == [201, 200, 200]
        for way, code in zip(ways, ("too_many_requests", "resource_exhausted"), strict=True):
            refused = add(way, "198.51.100.1")
            assert (refused.status_code, code_of(refused)) == (429, code)
            assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert add(ways[0], "198.51.100.2").status_code == 200
        assert server.server()["refusedRequests"] == {"too_many_requests": 2}


def test_an_address_has_so_many_streams_and_gets_the_place_of_one_that_ended() -> None:
    with (
        quote_server("--max-streams-per-address", "2", "--trusted-proxies", "127.0.0.1") as server,
        ExitStack() as open,
    ):

        def stream(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            return open.enter_context(server.http.stream("GET", "/api/stream", headers=headers)).status_code

        def by_connect() -> httpx.Response:
            headers = {"X-Forwarded-For": "198.51.100.1", "Content-Type": "application/connect+json"}
            return server.http.post(f"{SERVICE}/StreamPrices", content=b"\0\0\0\0\2{}", headers=headers)

        assert [stream("198.51.100.1") for _ in range(3)] == [200, 200, 429]
        refused = server.http.get("/api/stream", headers={"X-Forwarded-For": "198.51.100.1"})
        assert code_of(refused) == "too_many_streams_per_address"
        assert "retry-after" in refused.headers
        assert b"resource_exhausted" in by_connect().content
        assert stream("198.51.100.2") == 200
        assert [stream("127.0.0.1") for _ in range(3)] == [200, 200, 200], "this machine is exempt"
        assert [stream(f"2001:db8::{number}") for number in range(3)] == [200, 200, 429], "one network, one household"
        open.close()
        wait_until(lambda: server.server()["clients"] == {})
        assert stream("198.51.100.1") == 200


def test_only_a_trusted_proxy_is_believed_about_who_calls(server: QuoteServer) -> None:
    with quote_server("--additions-per-minute", "1") as server:
        answers = [
            server.http.post("/api/tickers", json={"ticker": "X"}, headers={"X-Forwarded-For": f"198.51.100.{number}"})
            for number in range(2)
        ]
        assert [answer.status_code for answer in answers] == [201, 429]
        assert call(server, "GET", "/livez", X_Forwarded_Host="evil.example").status_code == 200


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5", "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5, 10.1.2.3", "203.0.113.5"),
        ("nonsense", "127.0.0.1"),
        ("203.0.113.5, nonsense", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("10.0.0.1,10.0.0.2", "10.0.0.1"),
    ],
)
def test_the_client_is_the_nearest_that_is_no_proxy(forwarded_for: str, client: str) -> None:
    seen = []

    def application(environ: dict[str, str], start_response: object) -> list[bytes]:
        seen.append(environ["REMOTE_ADDR"])
        return []

    settings = Settings(trusted_proxies="127.0.0.1,10.0.0.0/8")
    environ = {**_environ("localhost"), "REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded_for}
    access.Access(settings).guard(application, "", _raise)(environ, lambda *_: lambda _: None)
    assert seen == [client]


# --- what is said -----------------------------------------------------------------------------------------------------


def test_every_answer_has_the_headers_that_protect_a_browser(guarded: QuoteServer) -> None:
    names = {name.lower() for name, _ in access.SECURITY_HEADERS}
    static = guarded.http.get("/static/main.js")
    answers = [
        static,
        guarded.http.get("/static/main.js", headers={"If-None-Match": static.headers["etag"]}),
        call(guarded, "GET", "/api/ws", **BEARER, **WEBSOCKET),
        *(call(guarded, method, path, **BEARER) for method, path in EVERYTHING),
        call(guarded, "GET", "/api/tickers"),
        call(guarded, "GET", "/", Host="evil.example"),
        call(guarded, "GET", "/"),
    ]
    assert {answer.status_code for answer in answers} >= {101, 200, 304, 400, 401, 403, 404}
    for answer in answers:
        assert names <= answer.headers.keys(), answer.request.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "*" not in answer.headers.get("access-control-allow-origin", "")


def test_neither_a_right_nor_a_wrong_token_is_ever_written(tmp_path: Path) -> None:
    wrong = "wrong-token-0123456789"
    said = tmp_path / "said"
    environment = {**clean_environment(), "PLUTO_ACCESS_TOKEN": TOKEN, "PLUTO_LOG_LEVEL": "debug"}
    options = ("--port", "0", "--browser-mode", "headless", "--demo", "--tickers", "BTCUSD")
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "app.py"), *options],
            stdout=out,
            stderr=out,
            env=environment,
        )
        try:
            url = wait_until(
                lambda: next(
                    (line.split()[1] for line in said.read_text().splitlines() if line.startswith("  page")), ""
                ),
                20,
            )
            assert httpx.get(f"{url}/api/tickers", headers=BEARER, verify=TLS).status_code == 200
            mistaken = {"Authorization": f"Bearer {wrong}"}
            assert httpx.get(f"{url}/api/tickers?token={wrong}", headers=mistaken, verify=TLS).status_code == 401
            assert httpx.post(f"{url}/login", data={"token": wrong}, verify=TLS).status_code == 401
            assert httpx.post(f"{url}/login", data={"token": TOKEN}, verify=TLS).status_code == 303
            wait_until(lambda: httpx.get(f"{url}/readyz", verify=TLS).status_code == 200, 20)
            processes = alive(descendants(process.pid))
            assert len(processes) >= 3, "simulator, driver and browser"
            for child in processes:
                with contextlib.suppress(psutil.Error):
                    assert "PLUTO_ACCESS_TOKEN" not in child.environ()
        finally:
            process.terminate()
            process.wait(10)
    text = said.read_text()
    assert "a wrong access token came from 127.0.0.1" in text
    assert TOKEN not in text
    assert wrong not in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--access-token", "short"], "--access-token: use at least 16 ASCII characters"),
        (["--access-token", "sixteen characters"], "none of them a space"),
        (["--access-token", "ünïcödé-is-not-for-headers"], "--access-token: use at least 16 ASCII characters"),
        (["--allowed-origins", "*"], "'*' is not an origin"),
        (["--allowed-origins", "http://localhost:3000/"], "is not an origin such as https://example.com"),
        (["--allowed-hosts", "http://pluto"], "is not a name or address without a port"),
        (["--trusted-proxies", "nginx"], "--trusted-proxies: 'nginx' does not appear to be an IPv4 or IPv6 network"),
        (["--additions-per-minute", "0"], "--additions-per-minute must be from 1 to 100000, not 0"),
    ],
)
def test_a_wrong_setting_is_refused_and_a_secret_is_not_repeated(
    capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(options)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert sentence in said.splitlines()[-1]
    assert "token" not in options[0] or options[1] not in said


def test_lists_are_read_with_and_without_spaces() -> None:
    assert hosts_of(" Pluto.example.com, [::1],") == {"pluto.example.com", "[::1]"}
    assert origins_of("https://a.example , http://b:81") == {"https://a.example", "http://b:81"}
    assert hosts_of("") == origins_of("") == frozenset()


@pytest.mark.parametrize("path", sorted(PROJECT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_every_package_is_pinned_with_its_hashes(path: Path) -> None:
    blocks = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    packages = [line for line in blocks if line.strip() and not line.strip().startswith("#")]
    assert packages
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_page(browser: Browser) -> Iterator[Page]:
    """A browser without script."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_the_page_asks_for_the_token_then_streams_and_is_there_for_links_but_not_for_foreign_pages(
    guarded: QuoteServer, browser_page: Page
) -> None:
    page, trouble = browser_page, []
    guarded.put(("BTCUSD", "live", "45000.10"))
    page.on("console", lambda message: trouble.append(message.text) if "Content Security" in message.text else None)
    assert (page.goto(f"{guarded.url}/?tickers=BTCUSD")).status == 401  # type: ignore[union-attr]
    page.get_by_label("Access token").fill("not the token at all")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not Pluto's access token")
    page.get_by_label("Access token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="45,000.10")).to_be_visible()
    assert page.url == f"{guarded.url}/?tickers=BTCUSD"
    opened = page.evaluate(
        "new Promise((done) => { const ws = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');"
        "ws.onmessage = (event) => done(JSON.parse(event.data).type); ws.onerror = () => done('refused'); })"
    )
    assert opened == "connected"
    assert page.evaluate("document.cookie") == ""
    assert trouble == []
    page.goto("data:text/html,<a href='" + guarded.url + "/'>there</a>")
    assert page.evaluate("(url) => fetch(url).then(() => 'read', () => 'refused')", f"{guarded.url}/livez") == "refused"
    page.get_by_role("link", name="there").click()
    expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)


def test_logging_in_needs_no_script(guarded: QuoteServer, plain_page: Page) -> None:
    page = plain_page
    page.goto(guarded.url)
    page.get_by_label("Access token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("add-ticker")).to_be_visible()
    assert page.url == f"{guarded.url}/"
