"""A page told by hand: what the probe would say of it, at times of one's own, to a feed that has no other clock.

`Feed` is pure, so its tests are the page and the clocks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from quotes import Quote, Source, State, Ticker
from tradingview.feed import Feed, PageTrouble, Trouble

NOW = 1_795_000_000_000  # by the wall, and by the page's clock, in ms
UPTIME = 50_000_000  # by our own clock at that moment
SYMBOL = "BINANCE:BTCUSD"
URL = "https://www.tradingview.com/symbols/BTCUSD/?exchange=BINANCE"
TITLE = "BTCUSD Charts and Quotes — TradingView"
OFFER = {"price": "63,000.10", "priceCurrency": "USD", "priceValidUntil": "2026-11-18T12:00:00Z"}
OFFER_TIME = 1_795_003_200_000

Shown = tuple[State, str | None, Source | None]


@dataclass
class Part:
    """A quote frame as the probe tells it."""

    fields: object = field(default_factory=dict)
    name: object = SYMBOL
    session: object = "qs_1"
    status: object = "ok"
    error: object = None

    def told(self) -> dict[str, object]:
        return vars(self)


class Stage:
    """A feed, the page that talks to it, and the time. Messages take 2 ms from the page to us."""

    def __init__(
        self, *, simulated: bool = False, host: str = "", ticker: str = "BTCUSD", proof_factor: float = 1.0
    ) -> None:
        self.now = NOW
        self.document = 0
        self.counters: Counter[str] = Counter()
        self.feed = Feed(
            Ticker(ticker), simulated=simulated, counters=self.counters, host=host, proof_factor=proof_factor
        )
        self.start()

    @property
    def uptime(self) -> int:
        return self.now - NOW + UPTIME

    @property
    def quote(self) -> Quote:
        return self.feed.quote(self.uptime).as_of(self.uptime)

    @property
    def shown(self) -> Shown:
        quote = self.quote
        return quote.state, quote.price_text, quote.source

    @property
    def refused(self) -> dict[str, int]:
        refused: dict[str, int] = self.feed.why(self.uptime, self.now)["refused"]
        return refused

    def tick(self) -> None:
        """What the scraper does once a second."""
        self.feed.choose(self.uptime, self.now)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1000)

    def hear(self, message: dict[str, Any]) -> None:
        self.feed.hear(message, self.uptime, self.now)

    def tell(self, kind: object, **message: object) -> None:
        self.hear({"kind": kind, "page": self.document, "at": self.now - 2, **message})

    def start(self) -> None:
        """The page's next document begins."""
        self.document += 1
        self.tell("start")

    def page(self, **facts: object) -> None:
        self.tell("page", **{"title": TITLE, "resolved": SYMBOL, "url": URL, **facts})

    def frame(self, **fields: object) -> None:
        """A quote frame under the plain name, in the first session of the first socket."""
        self.frames(Part(fields=fields))

    def frames(self, *parts: Part, socket: object = 1) -> None:
        self.tell("frames", socket=socket, frames=[part.told() for part in parts])

    def session(self, event: str, *names: object, session: object = "qs_1", socket: object = 1) -> None:
        """The page's order, or the server's end of a quote session."""
        self.tell("session", socket=socket, event=event, session=session, names=[*names])

    def price(self, text: object, **told: object) -> None:
        """The price element shows another text."""
        at = self.now - 2
        self.tell("price", element={"text": text, "painted": at, "changed": at, **told})

    def title(self, text: object) -> None:
        self.tell("title", title={"text": text, "changed": self.now - 2})

    def pulse(
        self,
        *,
        socket: float | None = None,
        dom: float | None = None,
        text: object = "",
        is_open: bool = True,
        sockets: object = None,
        title: object = None,
        **header: object,
    ) -> None:
        """`socket`: how many seconds ago it was heard; `dom`: how many ago the element's text became this one."""
        at = self.now - 2
        heard = 0 if socket is None else at - socket * 1000
        changed = 0 if dom is None else at - dom * 1000
        self.tell(
            "pulse",
            sockets=[{"id": 1, "open": is_open, "heard": heard, "beats": []}] if sockets is None else sockets,
            element={"text": text, "painted": changed, "changed": changed} if text else None,
            title=title,
            header=header,
        )

    def fail(self, trouble: PageTrouble) -> None:
        """What the scraper does with a page it gives up."""
        self.feed.fail(Trouble(trouble.state, trouble.reason, self.now + 1000), void_price=trouble.void_price)
