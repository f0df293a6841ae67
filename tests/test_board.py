"""The board in a terminal: what its table says, and that the live one follows the prices in place."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from running import QuoteServer, quote_server, wait_until

from broadcast import Batch, Entry
from quotes import Quote, State, Ticker
from web.board import age_text, board_format, cut, grouped, width

NOW_MS = round(time.time() * 1000)


def drawn(*quotes: Quote, columns: int = 80, rows: int | None = None, plain: bool = True, **more: object) -> list[str]:
    passed = round(time.time() * 1000) - NOW_MS  # since the quotes below were made
    aged = [replace(quote, timestamp=quote.timestamp and quote.timestamp + passed) for quote in quotes]
    entries = [Entry(quote, 1, 1, "") for quote in aged]
    batch = Batch("x-1", NOW_MS, [quote.ticker for quote in quotes], entries[:1], entries[1:], **more)  # type: ignore[arg-type]
    return board_format(columns, rows, is_plain=plain, is_live=False).encode(batch).decode().splitlines()


LIVE = Quote(Ticker("BTCUSD"), State.LIVE, "66751.91", -1.25, timestamp=NOW_MS - 72_000, currency="USD", simulated=True)
CHINESE = Quote(
    Ticker("币安人生USDT"),
    State.STALE,
    "0.00001742",
    3.5,
    timestamp=NOW_MS - 9_000_000,
    reason="a\x1b[2J reason",
)
UNKNOWN = Quote(Ticker("FOO"), State.NOT_FOUND, reason="TradingView has no symbol BINANCE:FOO")


def test_the_table_has_states_ages_and_simulated() -> None:
    title, *lines = drawn(LIVE, CHINESE, UNKNOWN, not_tracked=(Ticker("BAR"),))
    assert re.fullmatch(r"Pluto   SIMULATED   3 tickers  \d\d:\d\d:\d\d UTC", title)
    assert lines == [
        "TICKER             PRICE     24 H  STATE          AGE",
        "BTCUSD         66,751.91  \u22121.25 %  live         1 min  USD at BINANCE",
        "FOO                    –           not_found           TradingView has no symbo…",
        "币安人生USDT  0.00001742  +3.50 %  stale          2 h  a [2J reason",
        "BAR                    –           not tracked",
    ]


@pytest.mark.parametrize("columns", [48, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    lines = drawn(LIVE, CHINESE, UNKNOWN, columns=columns)
    assert max(map(width, lines)) <= columns
    assert all("…" in line or columns > 48 for line in lines[3:4])


def test_colours_are_for_who_wants_them_and_rows_are_bounded() -> None:
    assert "\x1b[32mlive" in drawn(LIVE, plain=False)[2]
    assert "\x1b" not in "".join(drawn(LIVE, CHINESE))
    assert drawn(LIVE, CHINESE, UNKNOWN, rows=5)[-1] == "… and 1 more"
    untracked = [Ticker(f"COIN{number}USD") for number in range(4)]
    assert drawn(LIVE, rows=5, not_tracked=untracked)[3:] == [
        "COIN0USD          –           not tracked",
        "… and 3 more",
    ]
    assert "No tickers" in drawn()[1]


def test_numbers_ages_and_cuts() -> None:
    assert [grouped(text) for text in ("66751.91", "0.00000812", "1234567")] == ["66,751.91", "0.00000812", "1,234,567"]
    assert [age_text(s) for s in (-1, 0, 59.9, 60, 7200, 200_000)] == ["0 s", "0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [cut("币安人生", columns) for columns in (8, 7, 2, 0)] == ["币安人生", "币安人…", "…", ""]


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server() as server:
        server.track("BTCUSD", "ETHUSD")
        server.put(("BTCUSD", "live", "45000.10"))
        wait_until(lambda: server.prices()["BTCUSD"] == "45000.10")
        yield server


def test_the_board_is_printed_once(server: QuoteServer) -> None:
    printed = server.http.get("/board?plain&ticker=BTCUSD")
    assert printed.headers["content-type"] == "text/plain; charset=utf-8"
    assert re.search(r"^BTCUSD  45,000\.10 .* live +\d+ s$", printed.text, re.MULTILINE)
    assert "ETHUSD" not in printed.text
    assert printed.text.endswith("\n")
    refused = server.http.get("/board?columns=1")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_size")


def test_the_live_board_follows_in_place(server: QuoteServer) -> None:
    with httpx.stream("GET", f"{server.url}/board?live&plain", timeout=10) as answer:
        parts = answer.iter_text()
        shown = next(parts)
        assert shown.startswith("\x1b[2J\x1b[H")
        assert "45,000.10" in shown
        server.put(("ETHUSD", "live", "2500.5"))
        changed = next(part for part in parts if "2,500.5" in part)
        assert changed.startswith("\x1b[H"), "it begins where the one before began"
        assert "45,000.10" in changed, "it is whole"
        again = next(parts)
        assert "2,500.5" in again, "it comes every second, for the ages"
        assert server.server()["clients"]["board"] == 1
        assert 'pluto_streams{transport="board"} 1.0' in server.http.get("/metrics").text
    wait_until(lambda: not any(server.server()["clients"].values()))
