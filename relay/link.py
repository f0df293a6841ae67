"""A connection to Redis: how it begins, how it fails, and Redis' clock beside ours.

This file owns what is said when Redis can't be used, never with a secret, and notices that what a connection leads to
is not the Redis it was. It keeps no ticker. A Link belongs to one thread at a time.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from quotes import NOT_OPENED, PlutoError, Quote, State, Ticker, steady_ms
from relay.scripts import BEGIN, CHANGE, KEYS, PRELUDE, How, to_json
from storage.ledger import AlertLimits

log = logging.getLogger("pluto.relay")

STREAM_LENGTH = 10_000  # entries, about
NOT_YET = "Redis has not been reached yet"
CALL_LIMIT_S = 3.0  # for an answer of Redis; more than any XREAD waits
NO_REDIS = "Redis, which brings the prices, can't be reached"  # for clients, who needn't know where it is
MAY_BE_DONE = " The change may have been made: look before you repeat it."  # Redis got the command, and hasn't answered
SIMULATED_THERE = "has the simulated prices of a demo: give real ones another Redis, or another database of this one"
REAL_THERE = "has real prices: give a demo another Redis, or another database of this one, such as redis://host:6379/1"
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 1.0  # before another try to reach Redis
MAX_PROOF_MS = 60_000  # no proof holds longer; keeps a jump of Redis' clock from prolonging one

T = TypeVar("T")


@dataclass(frozen=True)
class RelaySettings:
    """`name` is this process's own, without spaces. `capacity` is how many tickers its scraper takes. `alerts` are the
    limits of those that Redis keeps.
    """

    url: str = field(repr=False)
    name: str
    capacity: int
    max_tickers: int
    simulated: bool = False
    stream_length: int = STREAM_LENGTH
    alerts: AlertLimits = field(default_factory=AlertLimits)

    def change(self, how: How, tickers: Iterable[Ticker]) -> list[str | int]:
        """The arguments of CHANGE. An added ticker is starting until a scraper tells more."""
        first = [Quote(ticker, State.STARTING, simulated=self.simulated, reason=NOT_OPENED) for ticker in tickers]
        return [self.stream_length, how, self.max_tickers, *chain(*((quote.ticker, to_json(quote)) for quote in first))]


class RedisRefused(PlutoError):
    """Redis answers, and refuses Pluto. Trying again is of no use."""

    code = "redis_refused"


class EpochEnded(RedisError):
    """Redis was emptied or restarted since this connection began."""


class OtherPrices(RedisError):
    """Redis has simulated prices and ours are real, or the other way round."""


class RedisClock:
    """Redis' clock beside ours, `steady_ms`. A time is translated to the earliest one that it may be."""

    def __init__(self) -> None:
        self._measured: deque[tuple[float, float]] = deque(maxlen=8)  # (uncertainty, offset), in ms

    def note(self, asked: float, answered: float, told: tuple[str | int, str | int]) -> float:
        """Redis told this TIME between these two moments of ours. Returns the ms by which it has moved ahead of us."""
        uncertainty = (answered - asked) / 2
        offset = int(told[0]) * 1000 + int(told[1]) / 1000 - (asked + answered) / 2
        ahead = 0.0
        if self._measured and abs(offset - self.offset) > uncertainty + self.uncertainty + 1:
            ahead = offset - self.offset
            self._measured.clear()  # one of the clocks was set, or ours stood still
        self._measured.append((uncertainty, offset))
        return ahead

    @property
    def uncertainty(self) -> float:
        return min(self._measured)[0]

    @property
    def offset(self) -> float:
        return min(self._measured)[1]

    def theirs(self, ours: float) -> int:
        return int(ours + self.offset - self.uncertainty)

    def ours(self, theirs: float) -> float:
        return theirs - self.offset - self.uncertainty

    def proof(self, quote: Quote) -> int | None:
        """The end of the quote's proof as Redis gets it."""
        return None if quote.proven_until is None else self.theirs(min(quote.proven_until, steady_ms() + MAX_PROOF_MS))

    def proven(self, quote: Quote, proof: int | None) -> Quote:
        """The quote with the end of its proof as Redis has it."""
        ends = None if proof is None else min(self.ours(proof), steady_ms() + MAX_PROOF_MS)
        return replace(quote, proven_until=ends)


class Link:
    """A connection to Redis, for one thread at a time. It never tries a call again by itself.

    `trouble` is why Redis can't be used, for people; empty while it can. `limit_s` is for an answer. Without `counters`
    its connections and failures are not counted.
    """

    def __init__(
        self, settings: RelaySettings, counters: Counter[str] | None = None, limit_s: float = CALL_LIMIT_S
    ) -> None:
        self.place = place_of(settings.url)
        self.trouble = NOT_YET
        self.clock = RedisClock()
        self.epoch = ""
        self.round_trip_s = 0.0
        self.lost_ms = 0.0  # for which our clock stood still, as in a paused machine; whoever uses that sets it to 0
        self._counters = Counter() if counters is None else counters
        self.settings = settings
        self._connects = self._begun = 0
        self.redis = redis.Redis.from_url(
            settings.url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=limit_s,
            socket_connect_timeout=limit_s,
            client_name=f"pluto-{settings.name}",
            redis_connect_func=self._on_connect,
        )
        self._scripts: dict[str, Any] = {}  # by their text
        self._begin = self.redis.register_script(BEGIN)

    def _on_connect(self, connection: Any) -> None:
        connection.on_connect()
        self._connects += 1

    def begin(self) -> None:
        """Finds out which epoch it is. Raises OtherPrices and RedisError."""
        run, connects = self.redis.info("server")["run_id"], self._connects
        self.measure()
        epoch, simulated = self._begin(keys=KEYS, args=[run, secrets.token_hex(4), int(self.settings.simulated)])
        if simulated != str(int(self.settings.simulated)):
            raise OtherPrices(SIMULATED_THERE if simulated == "1" else REAL_THERE)
        self.epoch = str(epoch)
        self._begun = connects
        if self.trouble not in ("", NOT_YET):
            log.warning("Redis at %s is back", self.place)
        self._counters["relay_connections"] += bool(self.trouble)
        self.trouble = ""

    def check(self) -> None:
        """Raises EpochEnded if redis-py has connected again: what it is connected to may be another Redis."""
        if self._begun != self._connects:
            raise EpochEnded

    def call(self, call: Callable[[], T], begin: Callable[[], None]) -> T:
        """What the call returns. `begin` begins the connection first if it was cut since the last call, and again if it
        leads to another epoch. Raises RedisError.
        """
        if self.trouble or self._is_new():
            begin()
        try:
            return call()
        except EpochEnded:  # the script has done nothing, for it was meant for another epoch
            begin()
            return call()

    def _is_new(self) -> bool:
        """Whether redis-py has connected again, as it does without a word when the connection was cut."""
        pool = self.redis.connection_pool
        pool.release(pool.get_connection())
        return self._begun != self._connects

    def run(self, script: str, *args: str | int) -> Any:
        """Raises EpochEnded and RedisError."""
        if script not in self._scripts:
            self._scripts[script] = self.redis.register_script(PRELUDE + script)
        answer = self._scripts[script](keys=KEYS, args=[self.epoch, *args])
        self.check()
        if answer is None:
            raise EpochEnded
        return answer

    def refill(self, tickers: list[Ticker]) -> None:
        """Writes this list if Redis has none: the first process that does so wins."""
        sequence, *_ = self.run(CHANGE, *self.settings.change(How.REFILL, tickers))
        if sequence:
            log.warning("Redis had no watchlist: this process has refilled it with %d tickers", len(tickers))

    def measure(self) -> None:
        """Sets the clock."""
        asked = steady_ms()
        told = self.redis.time()
        self.note_time(asked, told)

    def note_time(self, asked: float, told: tuple[str | int, str | int]) -> None:
        answered = steady_ms()
        self.round_trip_s = (answered - asked) / 1000
        self.lost_ms += max(0.0, self.clock.note(asked, answered, told))

    def fail(self, error: RedisError) -> None:
        """Says once why Redis can't be used."""
        if not isinstance(error, EpochEnded):
            if not self.trouble:
                self._counters["relay_failures"] += 1
            if (trouble := sentence_of(error, self.place)) != self.trouble:
                log.warning("%s (%s)", trouble, error)
            self.trouble = trouble
        self.redis.close()


def check_redis(url: str, *, simulated: bool) -> None:
    """Raises RedisRefused if Redis answers and refuses us, so that a wrong password is told at once. Blocks."""
    link = Link(RelaySettings(url, "check", 0, 0, simulated))
    try:
        link.begin()
    except RedisError as error:
        if is_refusal(error):
            raise RedisRefused(f"{sentence_of(error, link.place)}.") from None
        log.warning("%s; Pluto keeps trying", sentence_of(error, link.place))
    finally:
        link.redis.close()


def place_of(url: str) -> str:
    """Where Redis is, without user and password."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def is_refusal(error: RedisError) -> bool:
    return isinstance(error, AuthenticationError | ResponseError | OtherPrices) or "ssl" in str(error).lower()


def sentence_of(error: RedisError, place: str) -> str:
    """Why Redis can't be used, without any secret."""
    if isinstance(error, AuthenticationError):
        return f"Redis at {place} refuses the password: correct it in PLUTO_REDIS"
    if isinstance(error, OtherPrices):
        return f"Redis at {place} {error}"
    if isinstance(error, ResponseError):
        return f"Redis at {place} refuses Pluto's command: {error}"
    if is_refusal(error):
        return f"no TLS connection to Redis at {place}: {error}"
    if isinstance(error, RedisTimeout):
        return f"Redis at {place} doesn't answer within {CALL_LIMIT_S:.0f} s"
    return f"Redis at {place} can't be reached"
