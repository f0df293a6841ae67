"""The settings: one table of all options, each with its flag, variable, default, range and meaning.

This file owns what each option is called, what it means and which values it accepts. It starts nothing, knows no route
and keeps no state. The program reads it once, before any thread runs; the functions at its end may run on any thread.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Container
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

from quotes import InvalidTicker, Ticker, parse_tickers

VERSION = "0.1.0"
DEMO_TICKERS = "BTCUSD,ETHUSD,SOLUSD"
MIN_TOKEN = 16  # characters

_NEXT_URL = re.compile(r"[\s,;]+(?=[a-z0-9]{1,32}://)", re.IGNORECASE)  # as Apprise tells URLs apart
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# --- the table --------------------------------------------------------------------------------------------------------


def _setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    *,
    within: tuple[float, float] | None = None,
    secret: bool = False,
    repeats: bool = False,
) -> Any:
    """A row of the table. `within` is the range of a number, both ends included. The log never shows a secret, and no
    child's environment has it. An option that repeats adds a line each time."""
    metadata = {"help": help, "choices": choices, "within": within, "secret": secret, "repeats": repeats}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings table: a field's name gives its flag (--max-tickers) and its variable (PLUTO_MAX_TICKERS)."""

    version: ClassVar[str] = VERSION

    host: str = _setting("localhost", "address to listen on; localhost is both 127.0.0.1 and ::1")
    port: int = _setting(8080, "port to listen on; 0 picks a free one", within=(0, 65535))
    tickers: str = _setting("", "tickers to track from the start, separated by commas")
    max_tickers: int = _setting(50, "maximum number of tracked tickers", within=(1, 1000))
    max_streams: int = _setting(10_000, "maximum number of open streams", within=(1, 100_000))
    max_streams_per_address: int = _setting(
        100, "maximum number of open streams per address; this machine is exempt", within=(1, 100_000)
    )
    additions_per_minute: int = _setting(
        60, "maximum number of tickers that one address may add per minute", within=(1, 100_000)
    )
    access_token: str = _setting(
        "",
        f"access token, {MIN_TOKEN}+ characters. If empty: not required on loopback; generated for any other address",
        secret=True,
    )
    allowed_hosts: str = _setting(
        "", "host names under which callers may reach Pluto, besides localhost and its address; separated by commas"
    )
    allowed_origins: str = _setting(
        "http://localhost:3000,http://127.0.0.1:3000",
        "origins of other sites whose pages may call Pluto, separated by commas",
    )
    trusted_proxies: str = _setting(
        "", "addresses or networks of proxies whose X-Forwarded-… headers Pluto believes, separated by commas"
    )
    browser: str = _setting("", "path of the Chromium to use. If empty: Playwright's own, else one on the PATH")
    browser_mode: str = _setting(
        "auto", "auto is headed if there is a display, otherwise headless", ("auto", "headed", "headless")
    )
    sandbox: str = _setting("auto", "auto is on wherever the browser can use its sandbox", ("auto", "on", "off"))
    source_url: str = _setting("https://www.tradingview.com", "URL of the site that has the symbol pages")
    group_size: int = _setting(
        16, "number of tickers that share a renderer process; 1 gives each its own", within=(1, 1000)
    )
    opening_spacing: float = _setting(
        0.1, "seconds between opening two pages; longer after a refusal", within=(0.01, 60)
    )
    page_max_age: float = _setting(
        6.0, "hours after which a page is renewed; its price has no gap", within=(0.01, 1000)
    )
    page_max_heap: float = _setting(
        150.0, "MB of heap, on average over the pages of a renderer, above which they are renewed", within=(1, 10_000)
    )
    browser_max_memory: float = _setting(
        6000.0, "MB of memory (PSS) above which the browser is restarted", within=(100, 1_000_000)
    )
    store: bool = _setting(True, "keep the watchlist and every price in a file; off keeps nothing")
    data: str = _setting("", "folder of that file. If empty: the platform's own, such as ~/.local/share/pluto")
    keep_changes: float = _setting(
        7.0, "days for which every single change is kept, and candles of a second", within=(0.01, 100_000)
    )
    keep_minutes: float = _setting(
        365.0, "days for which candles of a minute are kept; those of an hour stay for ever", within=(0.05, 100_000)
    )
    store_max_size: float = _setting(
        2000.0, "MB above which the oldest changes go, then the oldest minutes", within=(1, 10_000_000)
    )
    notify: str = _setting(
        "",
        "where alerts go besides the page: Apprise URLs, such as ntfy://topic; several are separated by whitespace or "
        "commas. Prefer the variable: other users of the machine can read a program's options",
        secret=True,
        repeats=True,
    )
    redis: str = _setting(
        "",
        "URL of the Redis or Valkey by which several Plutos act as one: redis://, rediss:// (TLS) or unix://",
        secret=True,
    )
    role: str = _setting(
        "all",
        "with --redis: scraper only opens pages, web only serves clients",
        ("all", "scraper", "web"),
    )
    scraper_capacity: int = _setting(
        0, "with --redis, how many tickers this scraper takes; 0 is --max-tickers", within=(0, 1000)
    )
    workers: int = _setting(1, "with --redis, number of web processes that share the port", within=(1, 64))
    demo: bool = _setting(False, f"simulated prices, no internet required; starts with {DEMO_TICKERS}")
    open: bool = _setting(True, "open the page in your browser if started from a terminal on a desktop")
    log_level: str = _setting("info", "least severe level to log", ("debug", "info", "warning", "error"))
    log_format: str = _setting("plain", "plain is for people, json writes one object per line", ("plain", "json"))

    @property
    def headed(self) -> bool:
        has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        return self.browser_mode == "headed" or (self.browser_mode == "auto" and has_display)

    @property
    def start_tickers(self) -> list[Ticker]:
        return parse_tickers(self.tickers or (DEMO_TICKERS if self.demo else ""))

    @property
    def notify_urls(self) -> list[str]:
        return [url for url in _NEXT_URL.split(self.notify.strip(" \t\r\n,;")) if url]


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    return "PLUTO_" + name.upper()


def forget_secrets() -> None:
    """Takes them out of the environment: no child needs them."""
    for entry in fields(Settings):
        if entry.metadata["secret"]:
            os.environ.pop(variable_of(entry.name), None)


def settings_table() -> list[tuple[str, str, str, str]]:
    """(flag, variable, default, help) of every setting. --help prints it and docs/settings.md shows it."""
    return [
        (flag_of(entry.name), variable_of(entry.name), _default_text(entry.default), _help_text(entry.metadata))
        for entry in fields(Settings)
    ]


def _default_text(default: object) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def _help_text(metadata: Any) -> str:
    before = f"{', '.join(metadata['choices'])}: " if metadata["choices"] else ""
    after = " ({} to {})".format(*metadata["within"]) if metadata["within"] else ""
    return f"{before}{metadata['help']}{after}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_settings(arguments: list[str]) -> Settings:
    """The settings from flags, else PLUTO_… variables, else defaults. A wrong one ends the program with a sentence."""
    parser = argparse.ArgumentParser(
        prog="./run.sh",
        description="Pluto: live crypto prices from TradingView pages, for your browser, curl and programs.",
        epilog="Each option can also be set by the variable named beside it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # else an option of a later version changes what a shortened one means
    )
    parser.add_argument("--version", action="version", version=f"Pluto {VERSION}")
    add_options(parser, [entry.name for entry in fields(Settings)])
    return settings_of(parser, parser.parse_args(arguments))


def add_options(parser: argparse.ArgumentParser, names: Container[str]) -> None:
    """The options of these settings."""
    for entry, (flag, variable, default, help) in zip(fields(Settings), settings_table(), strict=True):
        if entry.name not in names:
            continue
        shown = f"{help} [{variable}, default: {default or 'none'}]".replace("%", "%%")
        given = os.environ.get(variable)
        if isinstance(entry.default, bool):
            on = entry.default if given is None else _parse_bool(parser, variable, given)
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=on, help=shown)
        else:
            kind = type(entry.default)
            choices = entry.metadata["choices"] or None
            if given == "" and (choices or kind is not str):  # an empty text is a text
                parser.error(f"{variable} is empty: give it a value, such as {default}, or unset it")
            value = entry.default if given is None else given
            action = _Repeated if entry.metadata["repeats"] else "store"
            parser.add_argument(
                flag, action=action, type=kind, choices=choices, default=value, help=shown, metavar=entry.name.upper()
            )


class _Repeated(argparse.Action):
    """Each use of the option adds a line; the first one replaces the variable's value."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is self.default else f"{before}\n{values}")


def settings_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    """The settings as far as there are options for them, else defaults. A wrong one ends the program."""
    given = {
        entry.name: value for entry in fields(Settings) if (value := getattr(options, entry.name, None)) is not None
    }
    settings = Settings(**given)
    try:
        check(settings)
    except ValueError as error:
        parser.error(str(error))
    return settings


def _parse_bool(parser: argparse.ArgumentParser, variable: str, text: str) -> bool:
    values = {"": False, "0": False, "off": False, "false": False, "1": True, "on": True, "true": True}
    value = values.get(text.lower())
    if value is None:
        parser.error(f"{variable} is on or off, not {text!r}")
    return value


def check(settings: Settings) -> None:
    """Raises ValueError for the first wrong value. The message says what the option accepts."""
    for entry in fields(Settings):
        value, flag = getattr(settings, entry.name), flag_of(entry.name)
        choices, within = entry.metadata["choices"], entry.metadata["within"]
        if choices and value not in choices:  # argparse doesn't check values from variables
            raise ValueError(f"{flag} must be one of {', '.join(choices)}, not {value!r}")
        if within and not within[0] <= value <= within[1]:
            raise ValueError(f"{flag} must be from {within[0]} to {within[1]}, not {value}")
        if entry.name in _TEXTS:
            try:
                _TEXTS[entry.name](value)
            except (ValueError, InvalidTicker) as error:
                raise ValueError(f"{flag}: {error}") from None
    if settings.role != "all" and not settings.redis:
        raise ValueError(f"--role {settings.role} needs --redis: the processes find each other there")
    if settings.workers > 1 and not settings.redis:
        raise ValueError(
            "--workers above 1 needs --redis, by which they share the prices: start a Redis or Valkey server "
            "and give its URL, such as --redis redis://127.0.0.1:6379"
        )
    if settings.workers > 1 and settings.role == "scraper":
        raise ValueError("--workers is for web processes: omit it with --role scraper")
    if (number := len(settings.start_tickers)) > settings.max_tickers:
        raise ValueError(f"--tickers has {number} tickers, but --max-tickers allows only {settings.max_tickers}")


# --- what a text may hold: each function raises ValueError for what it doesn't accept ---------------------------------


def hosts_of(text: str) -> frozenset[str]:
    """Host names or addresses, separated by commas."""
    hosts = frozenset(part.lower() for part in _parts(text))
    for host in hosts:
        if host_name(host) != host:
            raise ValueError(f"{host!r} is not a name or address without a port, such as pluto.example.com or [::1]")
    return hosts


def origins_of(text: str) -> frozenset[str]:
    """Origins as browsers send them, separated by commas."""
    origins = frozenset(part.lower() for part in _parts(text))
    for origin in origins:
        url = urlsplit(origin)
        if url.scheme not in ("http", "https") or host_name(url.netloc) is None or origin != url.geturl() or url.path:
            raise ValueError(f"{origin!r} is not an origin such as https://example.com or http://localhost:3000")
    return origins


def networks_of(text: str) -> tuple[Network, ...]:
    """Addresses or networks, separated by commas."""
    return tuple(ipaddress.ip_network(part) for part in _parts(text))


def _check_host(host: str) -> None:
    if not host:
        raise ValueError("give an address, such as 127.0.0.1, or 0.0.0.0 for all addresses of this machine")


def _check_token(token: str) -> None:
    """The message never repeats the token."""
    if token and (len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token):
        raise ValueError(f"use at least {MIN_TOKEN} ASCII characters, none of them a space")


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} does not begin with http:// or https://")


def _check_redis(url: str) -> None:
    """The message never repeats the URL, which may have a password."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if url and not (is_good or url.startswith("unix:///")):
        raise ValueError("give a URL such as redis://127.0.0.1:6379, rediss://user:password@host or unix:///path")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_TEXTS = {
    "host": _check_host,
    "tickers": parse_tickers,
    "access_token": _check_token,
    "allowed_hosts": hosts_of,
    "allowed_origins": origins_of,
    "trusted_proxies": networks_of,
    "source_url": _check_url,
    "redis": _check_redis,
}


# --- addresses and host names -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def address_of(text: str) -> Address | None:
    """An address as a socket or a header writes it. An IPv4 address mapped into IPv6 becomes the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.is_loopback


def host_name(host: str) -> str | None:
    """A Host header without its port; None if the header is malformed."""
    match = _HOST.fullmatch(host.lower())
    return match[1] if match else None
