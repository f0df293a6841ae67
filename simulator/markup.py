"""Makes recorded markup harmless: keeps known attributes, drops scripts, styles, all that loads a file, and the price.

Owns: which parts of a recorded header are served. Never does: judge what it shows. Any thread may use it.
"""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
DROPPED = {"script", "style", "iframe", "object", "embed", "link", "meta", "base", "img", "source", "svg", "template"}
KEPT = re.compile(r"class|translate|lang|dir|role|title|data-[\w-]+|aria-[\w-]+")
EMPTIED = "js-symbol-last"  # the price's class; its content is dropped, because a page comes without a price


class Cleaner(HTMLParser):
    """Writes the harmless parts of the markup that it is fed to `written`."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self._open: list[tuple[str, bool]] = []  # each open element, and whether its content is dropped

    @property
    def _is_inside_dropped(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        is_left_out = self._is_inside_dropped or tag in DROPPED
        if not is_left_out:
            kept = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs if KEPT.fullmatch(name))
            self.written.append(f"<{tag}{kept}>")
        if tag not in VOID:
            classes = (dict(attrs).get("class") or "").split()
            self._open.append((tag, is_left_out or EMPTIED in classes))

    def handle_endtag(self, tag: str) -> None:
        if tag not in [name for name, _ in self._open]:
            return
        while self._open:
            name, _ = self._open.pop()
            if not self._is_inside_dropped and name not in DROPPED:
                self.written.append(f"</{name}>")
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._is_inside_dropped:
            self.written.append(escape(data))

    def close(self) -> None:
        super().close()
        for name, _ in self._open[:1]:
            self.handle_endtag(name)


def clean(markup: str) -> str:
    cleaner = Cleaner()
    cleaner.feed(markup)
    cleaner.close()
    return "".join(cleaner.written)
