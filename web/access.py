"""Who may call: every request passes these checks before Flask or Connect does any work for it.

This file owns the checks (the host names under which Pluto answers, the sites whose pages may call, the access token
and the sessions it opens, how often an address may try), the address of a caller behind a proxy, and the headers that
every answer carries. It knows no route but those that need no token, and never logs a secret. Everything runs on the
hub thread. Nothing here waits but for what other processes have counted, if there are any.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from itsdangerous import BadSignature, TimestampSigner
from werkzeug.http import dump_cookie, parse_cookie

from quotes import PlutoError
from settings import Settings, address_of, host_name, hosts_of, is_loopback, networks_of, origins_of
from web.errors import ForbiddenHost, ForbiddenOrigin, TooManyRequests, Unauthenticated, answer
from web.limits import Share, limit_of
from web.wsgi import ADDRESS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FAILURES_PER_MINUTE = 10  # wrong tokens from one address
COOKIE = "pluto_session"
SESSION_S = 30 * 24 * 3600
OPEN_PATHS = frozenset({"/", "/login", "/livez", "/readyz"})  # without a token, "/" shows the login form
WATCHLIST_PATH = "/api/watchlist"
OPEN_FOLDER = "/static/"  # the login form needs its files; they are the same for everyone

SECURITY_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # with no-referrer, a form's own Origin would be "null"
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),  # doesn't concern the CORS requests of allowed origins
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Vary", "Origin"),
]
CORS_HEADERS = [
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"),
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

Refuse = Callable[[PlutoError], "WSGIApplication"]

log = logging.getLogger("pluto.access")


class Access:
    """Checks callers of a server that listens on the address `bound`. `refused` counts refusals, by the error's code.

    Without a token in the settings, a server beyond this machine makes one: `made_token`. A server on loopback then
    requires none. `share` counts for all processes together.
    """

    def __init__(
        self,
        settings: Settings,
        bound: str = "127.0.0.1",
        session_s: float = SESSION_S,
        share: Share | None = None,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._session_s = session_s
        self.made_token = made_token(settings, bound)
        self._token = (settings.access_token or self.made_token).encode()
        self._proxies, self._origins = networks_of(settings.trusted_proxies), origins_of(settings.allowed_origins)
        address = address_of(bound)
        self._has_any_address = address is not None and address.is_unspecified
        own = f"[{bound}]" if ":" in bound else bound
        self._hosts = {"localhost", "127.0.0.1", "[::1]", own, settings.host.lower()} | hosts_of(settings.allowed_hosts)
        self._headers = {
            origin: [*SECURITY_HEADERS, ("Access-Control-Allow-Origin", origin), *CORS_HEADERS]
            for origin in self._origins
        }
        self._signer = TimestampSigner(self._token, salt="pluto.session", digest_method=hashlib.sha256)
        self._failures = limit_of("failures", FAILURES_PER_MINUTE, share)
        self._additions = limit_of("additions", settings.additions_per_minute, share)

    def guard(self, application: WSGIApplication, addition_path: str, refuse: Refuse = answer) -> WSGIApplication:
        """The application, for those who may call it. `refuse` makes the answer for all others.

        A POST to `addition_path` counts as adding a ticker, and so does a PUT of the whole list.
        """

        def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            more = self._headers.get(environ.get("HTTP_ORIGIN", ""), SECURITY_HEADERS)

            def start(status: str, headers: list[tuple[str, str]], *failure: object) -> Callable[[bytes], object]:
                return start_response(status, headers + more, *failure)  # type: ignore[arg-type]

            try:
                self._check(environ, addition_path)
            except PlutoError as error:
                self.refused[error.code] += 1
                return refuse(error)(environ, start)
            if _is_preflight(environ):
                start("204 No Content", [])
                return []
            return application(environ, start)

        return guarded

    def _check(self, environ: WSGIEnvironment, addition_path: str) -> None:
        """Raises an error if this caller may not call."""
        self._find_caller(environ)
        self._check_host(environ.get("HTTP_HOST", ""))
        self._check_site(environ)
        if _is_preflight(environ):  # it has no token: it only asks whether the origin may call
            return
        path = environ["PATH_INFO"]
        if not (path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or self.is_authenticated(environ)):
            raise Unauthenticated(
                "Send Pluto's access token in the header Authorization: Bearer …. "
                "In a browser, open Pluto's page and log in."
            )
        if (environ["REQUEST_METHOD"], path) in (("POST", addition_path), ("PUT", WATCHLIST_PATH)):
            self._check_additions(_counted_as(environ["REMOTE_ADDR"]))

    # --- the caller's address -----------------------------------------------------------------------------------------

    def _find_caller(self, environ: WSGIEnvironment) -> None:
        """Sets the caller's address, scheme and host as a trusted proxy reports them. No other sender is believed."""
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
        """The last address that isn't a trusted proxy. Its owner may have invented the addresses before it."""
        for text in reversed(forwarded_for.split(",")):
            behind = address_of(text.strip())
            if behind is None or not self._is_proxy(address):
                break
            address = str(behind)
        return address

    # --- its host and origin ------------------------------------------------------------------------------------------

    def _check_host(self, host: str) -> None:
        """Defends against DNS rebinding: a foreign page whose name now points to this machine still sends that name."""
        name = host_name(host)
        if name in self._hosts:
            return
        address = address_of((name or "").strip("[]"))  # an address is safe: the browser looked up no name
        if address is None or not (address.is_loopback or self._has_any_address):
            raise ForbiddenHost(
                f"Call Pluto by localhost or its address, not by {host[:100]!r}, "
                "or start it with --allowed-hosts and that name."
            )

    def _check_site(self, environ: WSGIEnvironment) -> None:
        """Defends against pages of other sites: they may link to Pluto's page, but not call Pluto."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            site = environ.get("HTTP_SEC_FETCH_SITE", "none")
            if site in ("none", "same-origin") or _is_visit(environ):
                return
            raise ForbiddenOrigin("Open Pluto's page itself: pages of other sites may only link to it.")
        if origin not in self._origins and origin != f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}":
            raise ForbiddenOrigin(
                f"Pages of {origin[:100]!r} may not call Pluto. Start it with --allowed-origins and that origin; "
                "behind a proxy, with --trusted-proxies."
            )

    # --- its token ----------------------------------------------------------------------------------------------------

    def is_authenticated(self, environ: WSGIEnvironment) -> bool:
        """Whether the request has a session or the token, if one is required. Raises an error for a wrong token."""
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
        """Returns the cookie of a new session if the token is right. Raises Unauthenticated or TooManyRequests."""
        self._check_token(token.strip(), environ)
        return dump_cookie(
            COOKIE,
            self._signer.sign("").decode(),
            max_age=int(self._session_s),
            secure=environ["wsgi.url_scheme"] == "https",
            httponly=True,
            samesite="Strict",
        )

    def _is_session(self, text: str) -> bool:
        try:
            self._signer.unsign(text, max_age=int(self._session_s))
        except BadSignature:
            return False
        return True

    def _check_token(self, token: str, environ: WSGIEnvironment) -> None:
        """Refuses even the right token from an address with too many wrong ones: otherwise it could go on guessing."""
        address = _counted_as(environ["REMOTE_ADDR"])
        if wait_s := self._failures.wait_s(address):
            raise TooManyRequests("wrong access tokens", wait_s)
        if not hmac.compare_digest(token.encode(), self._token):
            self._failures.take(key=address)
            log.warning("a wrong access token came from %s", address)
            raise Unauthenticated("This is not Pluto's access token. Check it and try again.")

    def _check_additions(self, address: str) -> None:
        if wait_s := self._additions.wait_s(address):
            raise TooManyRequests("tickers added", wait_s)
        self._additions.take(key=address)


def made_token(settings: Settings, bound: str) -> str:
    """A token for a server that needs one and was given none; empty if it needs none."""
    return "" if settings.access_token or is_loopback(bound) else secrets.token_urlsafe(24)


def _counted_as(text: str) -> str:
    """The key under which an address is counted. For IPv6 it is the /64 network: one machine may use all of it."""
    address = address_of(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
    return text


def _is_preflight(environ: WSGIEnvironment) -> bool:
    return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def _is_visit(environ: WSGIEnvironment) -> bool:
    """Whether a browser opens the page, for example from a link on another site."""
    return (
        environ["PATH_INFO"] == "/"
        and environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    )


def _last_part(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get(name, "")).rpartition(",")[2].strip()
