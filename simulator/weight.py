"""The weight of a page: its scripts, images, fonts and ads, and filler that makes its document as long as a real one.

Owns: the content and number of these files, which are the same at each start. Never does: serve them. Any thread may
use it.
"""

from __future__ import annotations

import functools
import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weight:
    """What a page weighs, in bytes where nothing else is said."""

    html: int = 0  # length of the document with filler
    bundles: int = 0
    images: int = 0
    fonts: int = 0
    heap: int = 0  # of script data beside the bundles; if not 0, the page also sends telemetry
    ideas: int = 0  # articles below the header
    ads: int = 0  # iframes
    has_foreign_ads: bool = False  # they come from another host

    @classmethod
    def of(cls, size: int) -> Weight:
        """A page of this many bytes; 0: light, without an ad."""
        return cls(0, size * 60 // 100, size * 25 // 100, size * 15 // 100, 0, size // 10_000, bool(size))


# As heavy as the real page. HTML and scripts: as seen. Images, fonts, the number of ads, and the heap of 40 MB (the
# bundles keep about 20 of it): assumed.
REAL = Weight(570_000, 7_000_000, 1_500_000, 400_000, 20_000_000, 100, 4, has_foreign_ads=True)

MODULE = """
(self.bundle=self.bundle||{{}}).m{name}=((e,t,n)=>{{const o="{text}";let r={base};
for(let i=0;i<o.length;i++)r=(r*{factor}+o.charCodeAt(i))%65521;
return{{sum:r,words:o.match(/.{{8}}/g),run(a){{return a.map(u=>u*r+{base}).filter(u=>u%{factor})}}}}}})();"""
MODULE_BYTES = 543


def make_script(noise: random.Random, size: int) -> bytes:
    """Modules as a bundler writes them: the browser parses each, runs it once, and keeps a part of it in memory."""
    count = size // MODULE_BYTES
    numbers = [(noise.randrange(10**9), noise.randrange(999), noise.randrange(3, 99)) for _ in range(count)]
    modules = (
        MODULE.format(name=name, base=base, factor=factor, text=noise.randbytes(160).hex())
        for name, base, factor in numbers
    )
    return "".join(modules).encode()


def make_image(noise: random.Random, size: int) -> bytes:
    """A square bitmap of coloured noise."""
    side = math.isqrt(size // 3) // 4 * 4
    pixels = noise.randbytes(side * side * 3)
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54 + len(pixels), 0, 54, 40, side, side, 1, 24, *[0] * 6)
    return header + pixels


def make_font(noise: random.Random, size: int) -> bytes:
    """Noise: the browser loads the whole file before it finds that it is no font."""
    return noise.randbytes(size)


@dataclass(frozen=True)
class AssetKind:
    size: int  # bytes of one file at most
    mimetype: str
    make: Callable[[random.Random, int], bytes]


ASSETS = {
    "bundles": AssetKind(240_000, "text/javascript", make_script),
    "images": AssetKind(100_000, "image/bmp", make_image),
    "fonts": AssetKind(100_000, "font/woff2", make_font),
}


def count_assets(weight: Weight) -> dict[str, int]:
    return {name: math.ceil(getattr(weight, name) / kind.size) for name, kind in ASSETS.items()}


@functools.cache
def make_asset(name: str, number: int, weight: Weight) -> bytes:
    """A file, the same at each start, so that browsers may cache it. `number` must be below `count_assets`."""
    size = getattr(weight, name) // count_assets(weight)[name]
    return ASSETS[name].make(random.Random(f"{name} {number}"), size)


@functools.cache
def make_filler(size: int) -> str:
    """Style rules and server state, as a real document has them, of at least this many characters."""
    noise = random.Random("filler")
    rules: list[str] = []
    state: list[dict[str, Any]] = []
    while sum(map(len, rules)) < size // 2:
        rules.append("".join(f".{noise.randbytes(4).hex()}-{n}{{margin:{n}px;color:#{n:06x}}}" for n in range(100)))
        state += [{"id": noise.randrange(10**9), "text": noise.randbytes(1200).hex()}]
    while len(json.dumps(state)) < size // 2:
        state += [{"id": noise.randrange(10**9), "text": noise.randbytes(600).hex()}]
    data = f'<script type="application/prs.init-data+json">{json.dumps({"state": state})}</script>'
    return f"<style>{''.join(rules)}</style>\n{data}"
