"""The weight of a page: scripts, images and fonts of any size, the same at each start.

Owns: what these files hold and how many a page has. Never does: serve them. Any thread may use it.
"""

from __future__ import annotations

import functools
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

MODULE = """
(self.bundle=self.bundle||{{}}).m{name}=((e,t,n)=>{{const o="{text}";let r={base};
for(let i=0;i<o.length;i++)r=(r*{factor}+o.charCodeAt(i))%65521;
return{{sum:r,words:o.match(/.{{8}}/g),run(a){{return a.map(u=>u*r+{base}).filter(u=>u%{factor})}}}}}})();"""
MODULE_BYTES = 543


def make_script(noise: random.Random, size: int) -> bytes:
    """Modules as a bundler writes them: each is parsed, run once, and partly kept."""
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
    """Noise as well: a browser has loaded all of it before it can tell."""
    return noise.randbytes(size)


@dataclass(frozen=True)
class AssetKind:
    share: int  # percent of a page's weight
    size: int  # bytes of one file at most
    mimetype: str
    make: Callable[[random.Random, int], bytes]


ASSETS = {
    "bundles": AssetKind(60, 240_000, "text/javascript", make_script),
    "images": AssetKind(25, 100_000, "image/bmp", make_image),
    "fonts": AssetKind(15, 100_000, "font/woff2", make_font),
}


def count_assets(weight: int) -> dict[str, int]:
    return {name: math.ceil(weight * kind.share / 100 / kind.size) for name, kind in ASSETS.items()}


@functools.cache
def make_asset(name: str, number: int, weight: int) -> bytes:
    """The same at each start, so that a browser may keep it. Only numbers that exist get here."""
    size = weight * ASSETS[name].share // 100 // count_assets(weight)[name]
    return ASSETS[name].make(random.Random(f"{name} {number}"), size)
