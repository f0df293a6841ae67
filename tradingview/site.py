"""TradingView's site, as facts: its addresses and hosts, what its walls look like, its cookie, and the probe's text.

This file owns what is known of the site and nothing that is done with it. Any thread may read it. Sources of the facts:
recordings and the site's own bundles, 2018 to September 2026.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote as url_quote

from quotes import Ticker, split_ticker

BINDING = "plutoProbe"
PROBE = (Path(__file__).parent / "probe.js").read_text(encoding="utf-8")

# No price comes from these hosts. They are refused where names are resolved, which costs nothing per request.
BLOCKED_HOSTS = (
    "telemetry.*",  # TradingView's own measurements
    "snowplow-pixel.*",
    "pushstream.*",  # notices; the quotes come from the data. socket
    "s3-symbol-logo.*",  # images
    "*.googletagmanager.com",
    "*.google-analytics.com",
    "*.doubleclick.net",
    "*.googlesyndication.com",
    "*.facebook.com",
    "*.facebook.net",
    "*.twitter.com",
    "*.amplitude.com",
    "*.segment.com",
    "*.segment.io",
)
COOKIE_NAME, COOKIE_CHOICE = "cookiePrivacyPreferenceBannerProduction", "ignored"  # no banner, nothing accepted

QUOTE_SOCKET_PATH = "/socket.io/websocket"  # of the sockets that quotes come from, whatever their host

# What stands in place of a symbol page.
NOT_FOUND_TITLE = "Page not found"
WALL_STATUSES = (403, 405, 429)
WALL_HEADERS = ("cf-mitigated", "x-amzn-waf-action")
WALL_TITLES = (  # how they begin
    "Just a moment",
    "Verify you are human",
    "Attention Required!",
    "Just one more step",
    "Please confirm that you are not a robot",
)
WALL_FORMS = "form[action*='captcha'], #challenge-form, .g-recaptcha, .h-captcha, .cf-turnstile, #captcha-container"
WALL_TEXTS = "just one more step|confirm that you are not a robot|verify you are human"  # a pattern, in any case

# Where the iframes of a check come from: host and beginning of the path; a host that begins with a dot stands for all
# below it. A person may solve the check in a headed window; all other iframes of a wall are refused.
CHALLENGES = (
    "challenges.cloudflare.com/",
    "hcaptcha.com/",
    ".hcaptcha.com/",
    "www.google.com/recaptcha/",
    "www.recaptcha.net/recaptcha/",
    ".awswaf.com/",
)

# What Chromium calls a failed request, in a user's words.
NETWORK_ERRORS = {
    "ERR_NAME_NOT_RESOLVED": "its name is not resolved",
    "ERR_CONNECTION_REFUSED": "the connection was refused",
    "ERR_CONNECTION_RESET": "the connection was reset",
    "ERR_CONNECTION_CLOSED": "the connection was closed",
    "ERR_INTERNET_DISCONNECTED": "there is no network",
    "ERR_NETWORK_CHANGED": "the network changed",
    "ERR_TIMED_OUT": "it doesn't answer",
    "ERR_CONNECTION_TIMED_OUT": "it doesn't answer",
    "ERR_PROXY_CONNECTION_FAILED": "the proxy can't be reached",
    "ERR_TUNNEL_CONNECTION_FAILED": "the proxy refused",
    "ERR_EMPTY_RESPONSE": "it sent an empty answer",
    "ERR_TOO_MANY_REDIRECTS": "it sends the page round in circles",
    "ERR_UNSAFE_REDIRECT": "it sent the page where no web page may go",
}


def page_url(source_url: str, ticker: Ticker) -> str:
    exchange, symbol = split_ticker(ticker)
    return f"{source_url}/symbols/{url_quote(symbol, safe='')}/?exchange={url_quote(exchange, safe='')}"
