"""The settings: one table of what can be chosen, by a flag or a variable, with what each means.

This file owns every option's name, default, words and check. It starts nothing and knows nothing of routes.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from quotes import InvalidTicker, Ticker, parse_ticker

VERSION = "0.1.0"
DEMO_TICKERS = "BTCUSD,ETHUSD,SOLUSD"
MIN_TOKEN = 16  # characters

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _setting(default: Any, help: str, choices: tuple[str, ...] = (), *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """The settings table: a field's name gives its flag (--max-tickers) and its variable (PLUTO_MAX_TICKERS)."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 takes a free one")
    tickers: str = _setting("", "tickers at start, separated by commas")
    max_tickers: int = _setting(50, "how many tickers may be tracked at once")
    max_streams: int = _setting(10_000, "how many streams may be open at once")
    max_streams_per_address: int = _setting(100, "how many of them to one address; this machine is exempt")
    additions_per_minute: int = _setting(60, "how many tickers one address may add in a minute")
    access_token: str = _setting(
        "",
        f"what a caller must know, at least {MIN_TOKEN} characters; empty: nothing here, one is made elsewhere",
        secret=True,
    )
    allowed_hosts: str = _setting("", "names by which Pluto may be called, beside localhost and its address")
    allowed_origins: str = _setting(
        "http://localhost:3000,http://127.0.0.1:3000", "origins of other pages that may call Pluto"
    )
    trusted_proxies: str = _setting("", "addresses or networks of proxies whose X-Forwarded-… is believed")
    browser: str = _setting("", "path of the Chromium to use; empty: Playwright's own, else one on the PATH")
    browser_mode: str = _setting(
        "auto", "auto is headed where there is a display, headless elsewhere", ("auto", "headed", "headless")
    )
    sandbox: str = _setting("auto", "auto is on wherever the browser can use its sandbox", ("auto", "on", "off"))
    source_url: str = _setting("https://www.tradingview.com", "where the symbol pages are")
    isolation: str = _setting(
        "group", "group lets several tickers share a renderer, page gives each its own", ("group", "page")
    )
    group_size: int = _setting(16, "how many tickers share a renderer")
    opening_spacing: float = _setting(0.1, "seconds between two pages that open; more after a refusal")
    page_max_age: float = _setting(6.0, "hours after which a page is renewed, without a gap")
    page_max_heap: float = _setting(150.0, "MB of heap, on average of a renderer's pages, before they are renewed")
    browser_max_memory: float = _setting(6000.0, "MB (PSS) that the browser may take before it is started anew")
    demo: bool = _setting(False, f"simulated prices, no internet needed; starts with {DEMO_TICKERS}")
    open: bool = _setting(True, "opens the page in your browser, when started from a terminal on a desktop")
    log_level: str = _setting("info", "how much is logged", ("debug", "info", "warning", "error"))
    log_format: str = _setting("plain", "lines for eyes, or an object a line for programs", ("plain", "json"))

    @property
    def headed(self) -> bool:
        has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        return self.browser_mode == "headed" or (self.browser_mode == "auto" and has_display)

    @property
    def start_tickers(self) -> list[Ticker]:
        text = self.tickers or (DEMO_TICKERS if self.demo else "")
        return [parse_ticker(part) for part in text.split(",") if part.strip()]


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    return "PLUTO_" + name.upper()


def settings_table() -> list[tuple[str, str, str, str]]:
    """(flag, variable, default, help) of every setting: what --help prints and the README shows."""
    return [
        (flag_of(entry.name), variable_of(entry.name), _default_text(entry.default), _help_text(entry.metadata))
        for entry in fields(Settings)
    ]


def _default_text(default: object) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def _help_text(metadata: Any) -> str:
    choices = metadata["choices"]
    return f"{', '.join(choices)}: {metadata['help']}" if choices else str(metadata["help"])


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
    for entry, (flag, variable, default, help) in zip(fields(Settings), settings_table(), strict=True):
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
            parser.add_argument(flag, type=kind, choices=choices, default=value, help=shown, metavar=entry.name.upper())
    settings = Settings(**vars(parser.parse_args(arguments)))
    _check(parser, settings)
    return settings


def _parse_bool(parser: argparse.ArgumentParser, variable: str, text: str) -> bool:
    values = {"": False, "0": False, "off": False, "false": False, "1": True, "on": True, "true": True}
    value = values.get(text.lower())
    if value is None:
        parser.error(f"{variable} is on or off, not {text!r}")
    return value


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    for entry in fields(Settings):  # argparse checks choices of flags, but not of defaults from variables
        value, choices = getattr(settings, entry.name), entry.metadata["choices"]
        if choices and value not in choices:
            parser.error(f"{flag_of(entry.name)} is one of {', '.join(choices)}, not {value!r}")
    if not settings.host:
        parser.error("--host is an address, such as 127.0.0.1 or, for all of this machine's, 0.0.0.0; it is empty")
    if not 0 <= settings.port <= 65535:
        parser.error(f"--port is a number from 0 to 65535, not {settings.port}")
    if not 1 <= settings.max_tickers <= 1000:
        parser.error(f"--max-tickers is a number from 1 to 1000, not {settings.max_tickers}")
    if not 1 <= settings.max_streams <= 100_000:
        parser.error(f"--max-streams is a number from 1 to 100000, not {settings.max_streams}")
    for name in ("max_streams_per_address", "additions_per_minute"):
        if not 1 <= getattr(settings, name) <= 100_000:
            parser.error(f"{flag_of(name)} is a number from 1 to 100000, not {getattr(settings, name)}")
    for name in ("group_size", "opening_spacing", "page_max_age", "page_max_heap", "browser_max_memory"):
        if not 0 < getattr(settings, name) < 1e9:
            parser.error(f"{flag_of(name)} is a number above 0, not {getattr(settings, name)}")
    if not settings.source_url.startswith(("http://", "https://")):
        parser.error(f"--source-url begins with http:// or https://, not {settings.source_url!r}")
    _check_access(parser, settings)
    try:
        tickers = settings.start_tickers
    except InvalidTicker as invalid:
        parser.error(f"--tickers: {invalid}")
    if len(tickers) > settings.max_tickers:
        parser.error(f"--tickers names {len(tickers)}, more than --max-tickers {settings.max_tickers} allows")


def _check_access(parser: argparse.ArgumentParser, settings: Settings) -> None:
    token = settings.access_token
    if token and (len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token):
        parser.error(f"--access-token has at least {MIN_TOKEN} ASCII characters, none of them a space")
    for name, read in (("allowed_hosts", hosts_of), ("allowed_origins", origins_of), ("trusted_proxies", networks_of)):
        try:
            read(getattr(settings, name))
        except ValueError as error:
            parser.error(f"{flag_of(name)}: {error}")


# --- what an option may hold ---


def hosts_of(text: str) -> frozenset[str]:
    """Names or addresses, separated by commas. Raises ValueError."""
    hosts = frozenset(part.lower() for part in _parts(text))
    for host in hosts:
        if host_name(host) != host:
            raise ValueError(f"{host!r} is not a name or address without a port, such as pluto.example.com or [::1]")
    return hosts


def origins_of(text: str) -> frozenset[str]:
    """Origins as browsers send them, separated by commas. Raises ValueError."""
    origins = frozenset(part.lower() for part in _parts(text))
    for origin in origins:
        url = urlsplit(origin)
        if url.scheme not in ("http", "https") or host_name(url.netloc) is None or origin != url.geturl() or url.path:
            raise ValueError(f"{origin!r} is not an origin such as https://example.com or http://localhost:3000")
    return origins


def networks_of(text: str) -> tuple[Network, ...]:
    """Addresses or networks, separated by commas. Raises ValueError."""
    return tuple(ipaddress.ip_network(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@lru_cache(maxsize=1024)
def address_of(text: str) -> Address | None:
    """An address as written by a socket or a header; an IPv4 address in IPv6's clothes is the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.is_loopback


def host_name(host: str) -> str | None:
    """A Host header without its port; None when it is malformed."""
    match = _HOST.fullmatch(host.lower())
    return match[1] if match else None
