"""The grammar of a quote socket: frames, and numbers and objects as JavaScript writes them.

Owns: composing and parsing messages. Never does: know what a message means. Any thread may use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

MARK = "\\u0001"  # the character around verbatim digits, as JSON writes it
VERBATIM = re.compile(r'"\\u0001([-+.\deE]+)\\u0001"')
FRAME_HEAD = re.compile(r"~m~(\d{1,6})~m~")


def verbatim(digits: str) -> str:
    """A number that `as_json` writes with exactly these digits."""
    return f"\x01{digits}\x01"


def as_json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return VERBATIM.sub(r"\1", text) if MARK in text else text


def as_number(value: Decimal | float) -> int | float:
    """The number as JavaScript writes it: a whole one has no point."""
    return int(value) if value == int(value) else float(value)


def frame(payload: str) -> str:
    units = len(payload.encode("utf-16-le")) // 2
    return f"~m~{units}~m~{payload}"


def unframe(message: str) -> Iterator[str]:
    """The payloads of a message. Its characters must be in the first Unicode plane: then length and index agree."""
    end = 0
    while head := FRAME_HEAD.match(message, end):
        end = head.end() + int(head[1])
        yield message[head.end() : end]
