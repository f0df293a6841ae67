"""The probe: the script that runs in a page before the page's own scripts, and the settings it shares with Python.

This file owns these settings. The script is probe.js. It never judges the script's messages (document.py). Any thread
may use it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tradingview.frames import FRAME_FIELDS
from tradingview.messages import DISAGREEMENT_LIMIT_MS, MAX_TEXT
from tradingview.site import WALL_FORMS, WALL_TEXTS

PROBE = (Path(__file__).parent / "probe.js").read_text(encoding="utf-8")
BINDING = "plutoProbe"  # the function of the page by which the probe sends
EXPLAINED_MS = 2_500  # if the page paints a price that a frame told this recently, the repaint proves nothing


def probe_script(symbol: str, *, slim: bool, pulse: float, max_message: int, max_rate: float) -> str:
    """The script text. `pulse` is in seconds, `max_message` in characters, `max_rate` in messages a second."""
    settings = {
        "symbol": symbol,
        "binding": BINDING,
        "slim": slim,
        "pulse": pulse * 1000,
        "fields": sorted(FRAME_FIELDS),
        "maxText": MAX_TEXT,
        "maxMessage": max_message,
        "maxRate": max_rate,
        "explained": EXPLAINED_MS,
        "disagreement": DISAGREEMENT_LIMIT_MS,
        "wallForms": WALL_FORMS,
        "wallTexts": WALL_TEXTS,
    }
    return f"{PROBE}({json.dumps(settings)})"
