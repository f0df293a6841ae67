"""What Pluto measures, as Prometheus reads it: the counters and the state of the layers below, at the moment it asks.

This file owns the metrics' names, units and words. It counts nothing itself and keeps nothing between two questions:
each answer is made anew of what the broadcaster and the scraper count. No metric has a label for a ticker or a client,
so there are as many time series with a thousand tickers as with one. It runs on the hub thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from broadcast import Broadcaster, Histogram
from quotes import QuoteSource, State
from settings import VERSION, Settings
from web.descriptors import limit
from web.parts import Parts

__all__ = ["CONTENT_TYPE", "Metrics"]

MAX_EVENTS = 200  # values of a label; the words that are counted are fixed ones, and this keeps it so
TRANSPORTS = ("sse", "websocket", "connect+json", "connect+proto", "grpc-web+json", "grpc-web+proto")

# The broadcaster's counters that have a metric of their own: their names there, here, and what they count.
STREAM_COUNTERS = (
    ("flushes", "pluto_flushes", "Flushes that changed anything."),
    ("encodes", "pluto_encodes", "Frames encoded, each once for all clients that get it."),
    ("sends", "pluto_sends", "Frames given to sockets."),
    ("bytes", "pluto_sent_bytes", "Bytes of the frames given to sockets."),
    ("conflated", "pluto_sends_conflated", "Frames not sent because the client was lagging."),
    ("lagging", "pluto_streams_lagged", "Times that a client's socket was full."),
    ("refused", "pluto_streams_refused", "Streams refused because --max-streams were open."),
)
DELAYS = (
    ("page", "pluto_page_delay_seconds", "From a page showing a live price until Pluto had it."),
    ("handoff", "pluto_handoff_delay_seconds", "From Pluto having a live price until the flush that sent it."),
    ("flush", "pluto_flush_duration_seconds", "How long a flush took."),
    ("lateness", "pluto_flush_lateness_seconds", "How much later than its time a flush could begin."),
    ("lag", "pluto_lag_duration_seconds", "From a client's socket being full until the client had caught up."),
)


class Metrics:
    """All metrics of one Pluto, in a registry of their own.

    `refused` counts callers that may not call, by error code.
    """

    def __init__(self, parts: Parts, refused: Mapping[str, int]) -> None:
        self._layers = LayersCollector(parts, refused)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._layers)
        self._registry.register(ProcessFigures())

    def text(self, connections: int, http: Mapping[str, int]) -> bytes:
        """In Prometheus' text format, CONTENT_TYPE; with what the HTTP server that was asked holds and counts."""
        self._layers.connections, self._layers.http = connections, http
        return generate_latest(self._registry)


class LayersCollector(Collector):
    """Reads the layers whenever the registry asks."""

    def __init__(self, parts: Parts, refused: Mapping[str, int]) -> None:
        self._parts, self._refused = parts, refused
        self.connections = 0
        self.http: Mapping[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        yield _info(self._parts.settings)
        yield from _watched(self._parts)
        yield from _streams(self._parts.broadcaster)
        yield from _delays(self._parts.broadcaster)
        yield from _scraper(self._parts.source)
        yield from _http(self.connections, self.http, self._refused)
        yield _labelled_counter(
            "pluto_supervision_events",
            "What hung or died inside Pluto, by event.",
            "event",
            self._parts.supervisor.counters,
        )


class ProcessFigures(Collector):
    """Pluto's own process, by the names that all of Prometheus' clients use. Python's client takes /proc for them."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterable[Metric]:
        with self._process.oneshot():
            memory, cpu = self._process.memory_info(), self._process.cpu_times()
            started_at, descriptors = self._process.create_time(), self._process.num_fds()
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.", memory.vms)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", memory.rss)
        yield GaugeMetricFamily("process_start_time_seconds", "Start time since the epoch in seconds.", started_at)
        yield CounterMetricFamily("process_cpu_seconds", "User and system CPU time in seconds.", cpu.user + cpu.system)
        yield GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.", limit())
        yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", descriptors)


def _info(settings: Settings) -> Metric:
    info = GaugeMetricFamily(
        "pluto_build_info", "Always 1: the version, and whether prices are simulated.", labels=["version", "simulated"]
    )
    info.add_metric([VERSION, str(settings.demo).lower()], 1)
    return info


def _watched(parts: Parts) -> Iterator[Metric]:
    states = [entry.quote.state for entry in parts.broadcaster.entries]
    counts = {str(state): states.count(state) for state in State}
    yield _labelled_gauge("pluto_tickers", "Tracked tickers, by state.", "state", counts)
    yield GaugeMetricFamily("pluto_tickers_limit", "--max-tickers.", parts.settings.max_tickers)
    yield GaugeMetricFamily("pluto_streams_limit", "--max-streams.", parts.settings.max_streams)


def _streams(broadcaster: Broadcaster) -> Iterator[Metric]:
    clients, counters = broadcaster.clients, broadcaster.counters
    streams = {transport: clients[transport] for transport in TRANSPORTS}
    yield _labelled_gauge("pluto_streams", "Open streams, by transport.", "transport", streams)
    yield GaugeMetricFamily("pluto_streams_lagging", "Streams whose socket is full.", broadcaster.lagging)
    yield GaugeMetricFamily("pluto_handoff_quotes", "Quotes that wait for the next flush.", broadcaster.waiting)
    for counted, name, help in STREAM_COUNTERS:
        yield CounterMetricFamily(name, help, counters[counted])
    ends = _after(counters, "left: "), _after(counters, "dropped: ")
    yield _labelled_counter("pluto_streams_left", "Streams ended in order, by reason.", "reason", ends[0])
    yield _labelled_counter(
        "pluto_streams_dropped", "Streams cut off or left by clients, by reason.", "reason", ends[1]
    )


def _delays(broadcaster: Broadcaster) -> Iterator[Metric]:
    for part, name, help in DELAYS:
        histogram: Histogram = getattr(broadcaster.delays, part)
        bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        yield HistogramMetricFamily(name, help, buckets, histogram.total_s)


def _scraper(source: QuoteSource) -> Iterator[Metric]:
    counters = dict(source.counters)  # one step: the scraper's thread goes on counting
    prices, refused = _after(counters, "prices_"), _after(counters, "refused: ")
    events = {name: count for name, count in counters.items() if not name.startswith(("prices_", "refused: "))}
    silence = time.monotonic() - source.last_tick
    yield GaugeMetricFamily("pluto_browser_up", "1 while there is a browser.", source.has_browser)
    yield GaugeMetricFamily(
        "pluto_scraper_silence_seconds", "Since the scraper's thread was last seen running.", silence
    )
    yield _labelled_counter("pluto_prices", "Prices read, by source; stale ones are counted too.", "source", prices)
    yield _labelled_counter("pluto_prices_refused", "Texts not taken for a price, by reason.", "reason", refused)
    yield _labelled_counter("pluto_scraper_events", "What happened to pages and browser, by event.", "event", events)


def _http(connections: int, counters: Mapping[str, int], refused: Mapping[str, int]) -> Iterator[Metric]:
    malformed, closed = _after(counters, "refused: "), _after(counters, "closed: ")
    failed = counters.get("accept failed", 0)
    yield GaugeMetricFamily("pluto_connections", "Open connections, streams not counted.", connections)
    yield _labelled_counter(
        "pluto_requests_refused", "Requests refused before they were looked at, by error.", "error", malformed
    )
    yield _labelled_counter("pluto_callers_refused", "Requests of who may not ask, by error.", "error", refused)
    yield _labelled_counter("pluto_connections_closed", "Connections Pluto closed, by reason.", "reason", closed)
    yield CounterMetricFamily("pluto_accepts_failed", "Times that no connection could be taken.", failed)


def _after(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}


def _labelled_gauge(name: str, help: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _labelled_counter(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help, labels=[label])
    for value, count in sorted(values.items())[:MAX_EVENTS]:
        family.add_metric([value], count)
    return family
