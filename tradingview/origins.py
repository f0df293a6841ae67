"""Origins: the hosts from which Pluto requests a page, and to which the site may redirect it.

This file owns the comparison of addresses and the rule for redirects. It is pure; any thread may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
SITE = ".tradingview.com"


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of an address, normalized: `https://WWW.tradingview.com:443` has the default port."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == DEFAULT_PORTS.get(self.scheme) else f"{shown}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self}"


def origin_of(url: str) -> Origin:
    """The origin of an address. An unreadable one has an empty host, to which no redirect may lead."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return Origin("", "", None)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").rstrip(".")
    return Origin(scheme, host, port if port is not None else DEFAULT_PORTS.get(scheme))


def may_lead(source: Origin, target: Origin) -> bool:
    """Whether the site may redirect a page from the first origin to the second.

    TradingView may redirect to its regions' hosts. Another site may redirect to itself and, if its name begins with
    `www.`, to that host's siblings. No site may redirect from https to http.
    """
    is_same_port = (source.scheme, source.port) == (target.scheme, target.port)
    is_upgrade = (source.scheme, source.port, target.scheme, target.port) == ("http", 80, "https", 443)
    if not target.host or not (is_same_port or is_upgrade):
        return False
    if target.host == source.host:
        return True
    if source.host.endswith(SITE):
        return target.host.endswith(SITE)
    name, _, siblings = source.host.partition(".")
    return name == "www" and target.host.partition(".")[2] == siblings and "." in target.host
