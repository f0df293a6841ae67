"""The grammar of a quote socket: frames, and numbers and objects as JavaScript writes them.

Owns: how a message is put together and taken apart. Never does: know what a message means. Any thread may use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

FRAME_HEAD = re.compile(r"~m~(\d{1,6})~m~")


def as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_number(value: Decimal | float) -> int | float:
    """As JavaScript writes numbers: a whole one has no point."""
    return int(value) if value == int(value) else float(value)


def frame(payload: str) -> str:
    units = len(payload.encode("utf-16-le")) // 2
    return f"~m~{units}~m~{payload}"


def unframe(message: str) -> Iterator[str]:
    """The payloads of a page's message; pages send nothing but ASCII."""
    end = 0
    while head := FRAME_HEAD.match(message, end):
        end = head.end() + int(head[1])
        yield message[head.end() : end]
