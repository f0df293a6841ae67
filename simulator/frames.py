"""The grammar of a quote socket: frames, and numbers and objects as JavaScript writes them.

Owns: how a message is put together and taken apart. Never does: know what a message means. Any thread may use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

MARK = "\\u0001"  # as JSON writes the character that encloses verbatim digits
VERBATIM = re.compile(r'"\\u0001([-+.\deE]+)\\u0001"')
FRAME_HEAD = re.compile(r"~m~(\d{1,6})~m~")


def verbatim(digits: str) -> str:
    """A number that JSON shall have in exactly these digits."""
    return f"\x01{digits}\x01"


def as_json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return VERBATIM.sub(r"\1", text) if MARK in text else text


def as_number(value: Decimal | float) -> int | float:
    """As JavaScript writes numbers: a whole one has no point."""
    return int(value) if value == int(value) else float(value)


def frame(payload: str) -> str:
    units = len(payload.encode("utf-16-le")) // 2
    return f"~m~{units}~m~{payload}"


def unframe(message: str) -> Iterator[str]:
    """The payloads of a page's message; none of its characters lies outside of the first plane."""
    end = 0
    while head := FRAME_HEAD.match(message, end):
        end = head.end() + int(head[1])
        yield message[head.end() : end]
