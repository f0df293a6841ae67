"""Web processes' alerts over Redis, in the test's own process: each with a reader of the relay, maybe with a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis_server import RedisServer
from told import settings_for

from alerts.outbox import Pace, couriers_of
from quotes import Quote, Ticker
from relay.alerts import SharedAlerts
from relay.reader import Reader
from storage.remembered import Remembered
from store import Store, StoreSettings

ABOVE = {"ticker": "BTCUSD", "condition": "above", "value": "100"}
QUICK = Pace(limit=5.0, first_pause=0.05, longest_pause=0.2)


class Desk:
    """One process's alerts. `announced` is what its streams would get."""

    def __init__(
        self, server: RedisServer, name: str, path: Path | None = None, crew: str = "", urls: Iterable[str] = ()
    ) -> None:
        settings = settings_for(server.url, name)
        self.announced: list[Mapping[str, Any]] = []
        self.store = Store(StoreSettings(path, turn=0.05, crew=crew), Remembered(lambda quote: None))
        self.reader = Reader(settings, Counter(), self.tell, lambda epoch, position: None)
        self.reader.on_list = self.follow
        self.alerts = SharedAlerts(
            settings,
            self.store,
            self.announced.append,
            couriers_of(urls, QUICK.limit),
            QUICK,
            tell_again=self.reader.tell_again,
            counters=Counter(),
        )
        self.store.keep(self.alerts)
        self.tracked: set[Ticker] = set()

    def tell(self, quote: Quote) -> None:
        self.alerts.put(quote)

    def follow(self) -> None:
        tickers = set(self.reader.tickers())
        for ticker in self.tracked - tickers:
            self.alerts.remove(ticker)
            self.reader.remove(ticker)
        for ticker in tickers - self.tracked:
            self.alerts.add(ticker)
            self.reader.add(ticker)
        self.tracked = tickers
        self.reader.list_followed()

    def make(self, **fields: Any) -> str:
        return self.alerts.make({**ABOVE, **fields})[0].id

    @property
    def is_holder(self) -> bool:
        lease = self.alerts.figures.lease
        assert lease is not None
        return lease.is_held

    @property
    def has_loaded(self) -> bool:
        """Whether its streams are told of all that rings from now on."""
        return self.alerts._has_loaded

    @property
    def terms(self) -> int:
        """How often it began to hold the lease."""
        lease = self.alerts.figures.lease
        assert lease is not None
        return lease.taken

    @property
    def ids(self) -> list[str]:
        return [alert.id for alert in self.alerts.all()]

    @property
    def rang(self) -> list[str]:
        """The alerts that its streams were told of, in this order."""
        return [raised["alert"] for raised in self.announced]


@contextmanager
def desk(server: RedisServer, name: str, **options: Any) -> Iterator[Desk]:
    desk = Desk(server, name, **options)
    with ExitStack() as layers:
        desk.store.start(lambda tickers: None)
        layers.callback(desk.store.stop)
        desk.alerts.start()
        layers.callback(desk.alerts.stop)
        desk.reader.start()
        layers.callback(desk.reader.stop)
        yield desk
