"""The board as text: a table of all prices for a terminal, printed once or kept up to date in place.

This file owns how a batch becomes that table: its columns, its width, its colours. It reads nothing, sends nothing and
decides nothing: pure functions, for any thread. No text that comes from a page can steer the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple
from unicodedata import east_asian_width

from broadcast import Batch, Format
from quotes import PlutoError, Quote, State, split_ticker, wall_ms

COLUMNS, MIN_COLUMNS, MAX_COLUMNS = 80, 48, 400
MIN_ROWS, MAX_ROWS = 5, 1_000
BOLD, DIM, RED, GREEN, YELLOW, REVERSE = 1, 2, 31, 32, 33, 7  # ANSI's codes
CLEAR, HOME, TO_END_OF_LINE, TO_END_OF_SCREEN = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
STATE_COLOURS = {State.LIVE: GREEN, State.CLOSED: DIM, State.STARTING: DIM, State.SNAPSHOT: DIM, State.STALE: YELLOW}
AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))  # seconds of a unit


class InvalidSize(PlutoError):
    code = "invalid_size"


def size_of(text: str, low: int, high: int) -> int:
    """Columns or rows, as a caller asks for them. Raises InvalidSize."""
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and low <= int(text) <= high):
        raise InvalidSize(f"Give a number of columns or rows from {low} to {high}, not {text[:20]!r}.")
    return int(text)


@lru_cache(64)
def board_format(columns: int, rows: int | None, *, is_plain: bool, is_live: bool) -> Format:
    """The format of a board of this width, with colours unless it `is_plain`; of at most `rows` lines, if given."""
    draw = partial(board, columns=columns, rows=rows, paint=_unpainted if is_plain else _painted)
    if not is_live:
        return Format("board", lambda batch: "\n".join([*draw(batch), ""]).encode())
    return Format(
        "board",
        lambda batch: in_place(draw(batch)),
        greet=lambda client_id: CLEAR.encode(),
        end=lambda retry_ms: b"Pluto is stopping.\n",
        is_whole=True,
    )


def in_place(lines: list[str]) -> bytes:
    """The lines over those before, without flicker: nothing is cleared before something else stands there."""
    return (HOME + "".join(f"{line}{TO_END_OF_LINE}\r\n" for line in lines) + TO_END_OF_SCREEN).encode()


# --- the table --------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of the table: its texts, and the colours of its change and its state."""

    ticker: str
    price: str
    change: str
    state: str
    age: str
    note: str = ""
    change_colour: int = 0
    state_colour: int = 0


HEAD = Row("TICKER", "PRICE", "24 H", "STATE", "AGE")
Paint = Callable[[str, int], str]


def board(batch: Batch, *, columns: int, rows: int | None, paint: Paint) -> list[str]:
    """The lines of the table. `batch` has all tickers."""
    now_ms = wall_ms()
    quotes = sorted((entry.quote for entry in (*batch.updates, *batch.statuses)), key=lambda quote: quote.ticker)
    title = _title(quotes, now_ms, paint)
    if not quotes:
        return [title, 'No tickers. Add one: curl -X POST …/api/tickers with {"ticker":"BTCUSD"}'[:columns]]
    whole = [_row(quote, now_ms) for quote in quotes]
    whole += [Row(ticker, "–", "", "not tracked", "") for ticker in batch.not_tracked]
    shown = whole if rows is None else whole[: rows - 3]
    table = [HEAD, *shown]
    widths = [max(map(width, column)) for column in zip(*(row[:5] for row in table), strict=True)]
    lines = [title, *(_line(row, widths, columns, paint) for row in table)]
    if len(shown) < len(whole):
        lines.append(f"… and {len(whole) - len(shown)} more")
    return lines


def _title(quotes: list[Quote], now_ms: float, paint: Paint) -> str:
    simulated = paint(" SIMULATED ", REVERSE) + "  " if any(quote.simulated for quote in quotes) else ""
    count = f"{len(quotes)} ticker{'' if len(quotes) == 1 else 's'}"
    return f"{paint('Pluto', BOLD)}  {simulated}{count}  {time.strftime('%H:%M:%S', time.gmtime(now_ms / 1000))} UTC"


def _row(quote: Quote, now_ms: float) -> Row:
    change = "" if quote.change_percent is None else f"{quote.change_percent:+.2f} %".replace("-", "\u2212")
    rising = {True: GREEN, False: RED}[(quote.change_percent or 0) >= 0]
    age = "" if quote.timestamp is None else age_text((now_ms - quote.timestamp) / 1000)
    note = quote.reason or (f"{quote.currency} at {split_ticker(quote.ticker)[0]}" if quote.currency else "")
    price = "–" if quote.price_text is None else grouped(quote.price_text)
    state_colour = STATE_COLOURS.get(quote.state, RED)
    return Row(quote.ticker, price, change, quote.state, age, printable(note), rising, state_colour)


def _line(row: Row, widths: list[int], columns: int, paint: Paint) -> str:
    """The texts in their columns; what is too long for the line is cut, the ticker and the price last."""
    left, right = str.ljust, str.rjust
    cells = [
        (padded(row.ticker, widths[0], left), 0),
        (padded(row.price, widths[1], right), 0),
        (padded(row.change, widths[2], right), row.change_colour),
        (padded(row.state, widths[3], left), row.state_colour),
        (padded(row.age, widths[4], right), 0),
        (row.note, DIM),
    ]
    texts, room = [], columns
    for text, colour in cells:
        text = cut(text, room)
        room -= width(text) + 2
        texts.append(paint(text, colour))
        if room <= 0:
            break
    return "  ".join(texts).rstrip()


# --- texts ------------------------------------------------------------------------------------------------------------


def grouped(price_text: str) -> str:
    """66751.91 as 66,751.91."""
    whole, point, decimals = price_text.partition(".")
    return f"{int(whole):,}{point}{decimals}"


def age_text(seconds: float) -> str:
    """12 s, 3 min, 2 h, 5 d: whole units, rounded down."""
    unit_s, unit = next(((unit_s, unit) for unit_s, unit in AGES if seconds >= unit_s), (1, "s"))
    return f"{max(0, int(seconds / unit_s))} {unit}"


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def width(text: str) -> int:
    """How many columns the text takes in a terminal: Chinese letters take two."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def padded(text: str, columns: int, justify: Callable[[str, int], str]) -> str:
    return justify(text, columns - width(text) + len(text))


def cut(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    while text and width(text) >= columns:
        text = text[:-1]
    return f"{text}…" if columns > 0 else ""


def _painted(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and text.strip() else text


def _unpainted(text: str, colour: int) -> str:
    return text
