"""Facts about TradingView's site: addresses, hosts, walls, cookie, errors.

This file owns the facts and never acts on them. Any thread may read it. Sources: recordings and the site's own bundles,
2018 to September 2026.
"""

from __future__ import annotations

from urllib.parse import quote as url_quote

from quotes import Ticker, split_ticker

# No price comes from these hosts. Chromium refuses to resolve their names, which costs nothing per request.
BLOCKED_HOSTS = (
    "telemetry.*",  # TradingView's own measurements
    "snowplow-pixel.*",
    "pushstream.*",  # notifications; quotes come from the host data.*
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
COOKIE_NAME, COOKIE_CHOICE = "cookiePrivacyPreferenceBannerProduction", "ignored"  # hides the banner, accepts nothing

QUOTE_SOCKET_PATH = "/socket.io/websocket"  # of quote sockets, on any host

# What the site shows instead of a symbol page.
NOT_FOUND_TITLE = "Page not found"
WALL_STATUSES = (403, 405, 429)
WALL_HEADERS = ("cf-mitigated", "x-amzn-waf-action")
WALL_TITLES = (  # beginnings of titles
    "Just a moment",
    "Verify you are human",
    "Attention Required!",
    "Just one more step",
    "Please confirm that you are not a robot",
)
WALL_FORMS = "form[action*='captcha'], #challenge-form, .g-recaptcha, .h-captcha, .cf-turnstile, #captcha-container"
WALL_TEXTS = "just one more step|confirm that you are not a robot|verify you are human"  # a pattern, in any case

# Sources of a check's iframes: host and beginning of the path; a host that begins with a dot means all its subdomains.
# A person may solve the check in a headed window; Pluto refuses all other iframes of a wall.
CHALLENGES = (
    "challenges.cloudflare.com/",
    "hcaptcha.com/",
    ".hcaptcha.com/",
    "www.google.com/recaptcha/",
    "www.recaptcha.net/recaptcha/",
    ".awswaf.com/",
)

# Chromium's names of network errors, in a user's words.
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
    "ERR_UNSAFE_REDIRECT": "it redirected the page to an address that web pages may not open",
}


def page_url(source_url: str, ticker: Ticker) -> str:
    exchange, symbol = split_ticker(ticker)
    return f"{source_url}/symbols/{url_quote(symbol, safe='')}/?exchange={url_quote(exchange, safe='')}"
