"""The parts of one running Pluto, as the web modules see them.

This file owns one record and nothing else: no code runs here, on any thread. Each part stays the owner of its state.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alerts.book import AlertDesk
from broadcast import Broadcaster
from quotes import QuoteSource
from settings import Settings
from store import Store
from watchlist import Watchlist
from web.access import Access
from web.supervision import Simulator, Supervisor
from web.workers import Place

if TYPE_CHECKING:
    from relay.source import Relay


@dataclass(frozen=True)
class Parts:
    """`source` feeds the broadcaster; with --redis it is the `relay`. A demo has a `simulator`.
    `place` is this worker's, if there are several.

    `started_at` is in seconds since the epoch.
    """

    settings: Settings
    watchlist: Watchlist
    source: QuoteSource
    broadcaster: Broadcaster
    supervisor: Supervisor
    access: Access
    store: Store
    alerts: AlertDesk
    simulator: Simulator | None = None
    relay: Relay | None = None
    place: Place | None = None
    started_at: float = field(default_factory=time.time)
