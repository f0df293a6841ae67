"""Who may call: every request passes here before any work is done for it, whatever would answer it.

This file owns the checks that stand around Flask and Connect alike (which names the server goes by, whose pages may
call, the access token and the sessions it opens, how often an address may try), whose address counts behind a proxy,
and the headers that every answer carries. It knows no route but those that need no token, writes no answer, and never
logs a secret. Everything runs on the hub thread, and nothing here waits.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from itsdangerous import BadSignature, TimestampSigner
from werkzeug.http import dump_cookie, parse_cookie

from quotes import PlutoError
from settings import Network, Settings, address_of, host_name, hosts_of, is_loopback, networks_of, origins_of
from web.wsgi import ADDRESS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FAILURES_PER_MINUTE = 10  # wrong tokens from an address
MAX_ADDRESSES = 10_000  # that a limiter remembers
COOKIE = "pluto_session"
SESSION_S = 30 * 24 * 3600
OPEN_PATHS = frozenset({"/", "/login", "/livez", "/readyz"})  # without a token, "/" shows the login form
OPEN_FOLDER = "/static/"  # what the login form looks like; the same files for everyone

SECURITY_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # with no-referrer a form's own Origin would be "null"
    ("Cross-Origin-Opener-Policy", "same-origin"),
    (
        "Cross-Origin-Resource-Policy",
        "same-origin",
    ),  # a page of an allowed origin asks by CORS, which this leaves alone
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Vary", "Origin"),
]
CORS_HEADERS = [
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Last-Event-ID, Connect-Protocol-Version, Connect-Timeout-Ms, "
        "Connect-Content-Encoding, Connect-Accept-Encoding, X-Grpc-Web, X-User-Agent, Grpc-Timeout, Grpc-Encoding, "
        "Grpc-Accept-Encoding",
    ),
    (
        "Access-Control-Expose-Headers",
        "Content-Encoding, Retry-After, Connect-Content-Encoding, Grpc-Encoding, Grpc-Status, Grpc-Message, "
        "Grpc-Status-Details-Bin",
    ),
    ("Access-Control-Max-Age", "600"),
]


Refuse = Callable[[PlutoError, "WSGIEnvironment"], "WSGIApplication"]

log = logging.getLogger("pluto.access")


# --- what may be chosen -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccessSettings:
    """Who may call a server that listens on the address `bound`. Without a token, everyone who gets that far."""

    bound: str = "127.0.0.1"
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()
    token: str = field(default="", repr=False)
    additions_per_minute: int = 60


def access_settings(settings: Settings, bound: str) -> AccessSettings:
    """For a server that listens on this address: beyond the machine itself, never without a token."""
    return AccessSettings(
        bound,
        hosts_of(settings.allowed_hosts) | {settings.host.lower()},
        origins_of(settings.allowed_origins),
        networks_of(settings.trusted_proxies),
        settings.access_token or ("" if is_loopback(bound) else secrets.token_urlsafe(24)),
        settings.additions_per_minute,
    )


# --- errors -----------------------------------------------------------------------------------------------------------


class ForbiddenHost(PlutoError):
    code = "forbidden_host"


class ForbiddenOrigin(PlutoError):
    code = "forbidden_origin"


class Unauthenticated(PlutoError):
    code = "unauthenticated"


class TooManyRequests(PlutoError):
    """An address asks for something too often. `retry_after_s` is when it may again."""

    code = "too_many_requests"

    def __init__(self, what: str, wait_s: float) -> None:
        self.retry_after_s = math.ceil(wait_s)
        super().__init__(f"Too many {what} from your address; try again in {self.retry_after_s} s.")


# --- addresses --------------------------------------------------------------------------------------------------------


def _counted_as(text: str) -> str:
    """What an address is counted as: of IPv6 its network of 64 bits, in which one machine may have any address."""
    address = address_of(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
    return text


class Limiter:
    """So many a minute from each address, at once or spread out.

    One number an address: when its minute's worth will be whole again. Of more than MAX_ADDRESSES, the one that has
    not asked for the longest time is forgotten.
    """

    def __init__(self, per_minute: int) -> None:
        self._interval = 60 / per_minute
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until the address may again; 0 when it may now."""
        now = time.monotonic()
        wait = max(self._whole_at.get(address, 0.0), now) + self._interval - now - 60
        return wait if wait > 1e-6 else 0.0

    def count(self, address: str) -> None:
        self._whole_at[address] = max(self._whole_at.get(address, 0.0), time.monotonic()) + self._interval
        self._whole_at.move_to_end(address)
        if len(self._whole_at) > MAX_ADDRESSES:
            self._whole_at.popitem(last=False)


# --- the middleware ---------------------------------------------------------------------------------------------------


class Access:
    """The application, for those who may call it. `refuse` makes the answer for all others.

    `additions` are the paths that add a ticker when posted to.
    """

    def __init__(
        self, application: WSGIApplication, settings: AccessSettings, refuse: Refuse, additions: frozenset[str]
    ) -> None:
        self.refused: Counter[str] = Counter()  # by the error's code
        self._application, self._refuse, self._addition_paths = application, refuse, additions
        self._token, self._origins, self._proxies = settings.token.encode(), settings.origins, settings.proxies
        bound = address_of(settings.bound)
        self._has_any_address = bound is not None and bound.is_unspecified
        own = f"[{settings.bound}]" if ":" in settings.bound else settings.bound
        self._hosts = {"localhost", "127.0.0.1", "[::1]", own, *settings.hosts}
        self._headers = {
            origin: [*SECURITY_HEADERS, ("Access-Control-Allow-Origin", origin), *CORS_HEADERS]
            for origin in settings.origins
        }
        self._signer = TimestampSigner(self._token, salt="pluto.session", digest_method=hashlib.sha256)
        self._failures = Limiter(FAILURES_PER_MINUTE)
        self._additions = Limiter(settings.additions_per_minute)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        more = self._headers.get(environ.get("HTTP_ORIGIN", ""), SECURITY_HEADERS)

        def start(status: str, headers: list[tuple[str, str]], *failure: object) -> Callable[[bytes], object]:
            return start_response(status, headers + more, *failure)  # type: ignore[arg-type]

        try:
            self._check(environ)
        except PlutoError as error:
            self.refused[error.code] += 1
            return self._refuse(error, environ)(environ, start)
        if _is_preflight(environ):
            start("204 No Content", [])
            return []
        return self._application(environ, start)

    def _check(self, environ: WSGIEnvironment) -> None:
        """Raises why this caller may not."""
        self._find_client(environ)
        self._check_host(environ.get("HTTP_HOST", ""))
        self._check_site(environ)
        if _is_preflight(environ):  # which carries no token; it only asks whether the origin may call
            return
        path = environ["PATH_INFO"]
        if not (path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or self.is_authenticated(environ)):
            raise Unauthenticated(
                "Send the access token that Pluto was started with, as the header Authorization: Bearer …; "
                "in a browser, open the page and log in."
            )
        if path in self._addition_paths and environ["REQUEST_METHOD"] == "POST":
            self._check_additions(_counted_as(environ["REMOTE_ADDR"]))

    # --- who calls ----------------------------------------------------------------------------------------------------

    def _find_client(self, environ: WSGIEnvironment) -> None:
        """Puts what a trusted proxy says of the client where the connection says it; nobody else is believed."""
        address = environ.setdefault("REMOTE_ADDR", "")
        if self._proxies and self._is_proxy(address):
            address = environ["REMOTE_ADDR"] = self._address_behind(address, environ.get("HTTP_X_FORWARDED_FOR", ""))
            if (scheme := _last_part(environ, "HTTP_X_FORWARDED_PROTO")) in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            if host := _last_part(environ, "HTTP_X_FORWARDED_HOST"):
                environ["HTTP_HOST"] = host
        if not is_loopback(address):
            environ[ADDRESS] = _counted_as(address)

    def _is_proxy(self, text: str) -> bool:
        address = address_of(text)
        return address is not None and any(address in network for network in self._proxies)

    def _address_behind(self, address: str, forwarded_for: str) -> str:
        """The nearest address that is no trusted proxy: what stands left of it, its owner may have made up."""
        for text in reversed(forwarded_for.split(",")):
            behind = address_of(text.strip())
            if behind is None or not self._is_proxy(address):
                break
            address = str(behind)
        return address

    # --- from where ---------------------------------------------------------------------------------------------------

    def _check_host(self, host: str) -> None:
        """Against DNS rebinding: a foreign page whose name suddenly means this machine still sends that name."""
        name = host_name(host)
        if name in self._hosts:
            return
        address = address_of((name or "").strip("[]"))  # a browser that was sent to an address has looked no name up
        if address is None or not (address.is_loopback or self._has_any_address):
            raise ForbiddenHost(
                f"Pluto is not known here as {host[:100]!r}: call it by localhost or its address, "
                "or start it with --allowed-hosts and that name."
            )

    def _check_site(self, environ: WSGIEnvironment) -> None:
        """Against foreign pages, which may neither read nor change anything, nor open a stream; a link here is fine."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            site = environ.get("HTTP_SEC_FETCH_SITE", "none")
            if site in ("none", "same-origin") or _is_visit(environ):
                return
            raise ForbiddenOrigin("Pages of other sites may link to Pluto's page, and nothing else.")
        if origin not in self._origins and origin != f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}":
            raise ForbiddenOrigin(
                f"Pages of {origin[:100]!r} may not call Pluto: start it with --allowed-origins and that origin "
                "or, behind a proxy, with --trusted-proxies."
            )

    # --- with what ----------------------------------------------------------------------------------------------------

    def is_authenticated(self, environ: WSGIEnvironment) -> bool:
        """Whether the request comes with a session or the token, if one is needed. Raises if a token is wrong."""
        if not self._token:
            return True
        session = parse_cookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
        if session is not None and self._is_session(session):
            return True
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        self._check_token(token.strip(), environ)
        return True

    def log_in(self, token: str, environ: WSGIEnvironment) -> str:
        """The cookie that opens a session, for the right token. Raises Unauthenticated or TooManyRequests."""
        self._check_token(token.strip(), environ)
        return dump_cookie(
            COOKIE,
            self._signer.sign("").decode(),
            max_age=SESSION_S,
            secure=environ["wsgi.url_scheme"] == "https",
            httponly=True,
            samesite="Strict",
        )

    def _is_session(self, text: str) -> bool:
        try:
            self._signer.unsign(text, max_age=SESSION_S)
        except BadSignature:
            return False
        return True

    def _check_token(self, token: str, environ: WSGIEnvironment) -> None:
        """An address that has been wrong too often isn't even heard: else it could go on guessing."""
        address = _counted_as(environ["REMOTE_ADDR"])
        if wait_s := self._failures.wait_s(address):
            raise TooManyRequests("wrong access tokens", wait_s)
        if not hmac.compare_digest(token.encode(), self._token):
            self._failures.count(address)
            log.warning("a wrong access token came from %s", address)
            raise Unauthenticated("That is not the access token that Pluto was started with.")

    def _check_additions(self, address: str) -> None:
        if wait_s := self._additions.wait_s(address):
            raise TooManyRequests("tickers added", wait_s)
        self._additions.count(address)


def _is_preflight(environ: WSGIEnvironment) -> bool:
    return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def _is_visit(environ: WSGIEnvironment) -> bool:
    """Somebody follows a link to the page."""
    return (
        environ["PATH_INFO"] == "/"
        and environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    )


def _last_part(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get(name, "")).rpartition(",")[2].strip()
