"""Halves of relays in the test's own process: scrapers that tell what a test says, and readers that keep a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis_server import RedisServer
from running import wait_until
from told import Told, settings_for

from quotes import Quote, State, Ticker
from relay.link import Link, RelaySettings
from relay.publisher import Peer, Publisher, assign
from relay.reader import Reader
from relay.scripts import CHANGE, QUOTES, How, from_json


class Table:
    """What a reader has told."""

    def __init__(self) -> None:
        self.quotes: dict[Ticker, Quote] = {}
        self.history: list[Quote] = []
        self.mark: tuple[str, int] = ("", 0)

    def tell(self, quote: Quote) -> None:
        self.quotes[quote.ticker] = quote
        self.history.append(quote)

    def note(self, epoch: str, position: int) -> None:
        self.mark = epoch, position

    def price(self, ticker: Ticker) -> str | None:
        quote = self.quotes.get(ticker)
        return None if quote is None else quote.price_text

    def state(self, ticker: Ticker) -> State | None:
        quote = self.quotes.get(ticker)
        return None if quote is None else quote.state


@contextmanager
def scraping(settings: RelaySettings) -> Iterator[tuple[Told, Publisher]]:
    publisher = Publisher(settings, Told)
    assert isinstance(publisher.scraper, Told)
    publisher.start()
    try:
        yield publisher.scraper, publisher
    finally:
        publisher.stop()


@contextmanager
def reading(settings: RelaySettings, table: Table | None = None) -> Iterator[tuple[Table, Reader]]:
    """It tracks what Redis has, as the watchlist of a web process does."""
    table = table or Table()

    def follow() -> None:
        tickers = set(reader.tickers())
        for ticker in table.quotes.keys() - tickers:
            reader.remove(ticker)
            del table.quotes[ticker]
        for ticker in tickers - table.quotes.keys():
            reader.add(ticker)
        reader.list_followed()

    reader = Reader(settings, Counter(), table.tell, table.note)
    reader.on_list = follow
    reader.start()
    try:
        yield table, reader
    finally:
        reader.stop()


def in_redis(client: Any) -> dict[str, tuple[State, str | None, int]]:
    """Each ticker's state, price and position as Redis has them."""
    found = {}
    for ticker, value in client.hgetall(QUOTES).items():
        position, _, text = value.partition(" ")
        quote, _ = from_json(text, int(position))
        found[ticker] = quote.state, quote.price_text, int(position)
    return found


def shown(table: Table) -> dict[str, tuple[State, str | None, int | None]]:
    return {ticker: (quote.state, quote.price_text, quote.position) for ticker, quote in dict(table.quotes).items()}


def change(redis: RedisServer, how: How, *tickers: Ticker, max_tickers: int = 50) -> list[str]:
    """Changes the list in Redis. Returns the tickers for which there is no room."""
    settings = settings_for(redis.url, "changer", max_tickers=max_tickers)
    link = Link(settings, Counter())
    link.begin()
    refused: list[str] = link.run(CHANGE, *settings.change(how, tickers))[1]
    link.redis.close()
    return refused


def owns(publisher: Publisher, *tickers: Ticker) -> None:
    """Waits until it owns them and their pages are open."""
    scraper = publisher.scraper
    assert isinstance(scraper, Told)
    wait_until(lambda: set(tickers) <= scraper.pages & publisher.owned.keys(), what=f"{tickers} are owned")


def ticker_for(scraper: str, tickers: Iterable[str], *, beside: str) -> Ticker:
    """One of these that this scraper should own when there is one more."""
    both = {name: Peer(50, has_browser=True) for name in (scraper, beside)}
    return next(ticker for ticker, name in assign(tickers, both).items() if name == scraper)
