"""What Pluto counts and measures, as JSON for /api/performance and as text for Prometheus.

This file owns the names, units and words of all figures. It counts nothing itself: `Figures` reads once what each part
of Pluto counts, and both answers are written from it. No metric has a label for a ticker or a client, so a thousand
tickers have as many time series as one. Everything runs on the hub thread, and nothing here waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from quotes import SourceState, State
from store import StoreState
from web.descriptors import limit
from web.parts import Parts

__all__ = ["CONTENT_TYPE", "Figures", "performance", "prometheus_text"]

MAX_EVENTS = 200  # values of one label. The parts count under fixed words; this limit makes sure of it
TRANSPORTS = (
    "sse",
    "websocket",
    "board",
    "connect+json",
    "connect+proto",
    "grpc-web+json",
    "grpc-web+proto",
    "grpc-web-text",
)

# The broadcaster's counters that are metrics of their own: the counter, the metric, what it counts.
STREAM_COUNTERS = (
    ("flushes", "pluto_flushes", "Flushes in which anything had changed."),
    ("encodes", "pluto_encodes", "Frames encoded; each is encoded once for all clients that get it."),
    ("sends", "pluto_sends", "Frames written to sockets."),
    ("bytes", "pluto_sent_bytes", "Bytes of the frames written to sockets."),
    ("conflated", "pluto_sends_conflated", "Frames not sent because the client was lagging."),
    ("lagging", "pluto_streams_lagged", "Times that a client's socket was full."),
    ("refused", "pluto_streams_refused", "Streams refused because --max-streams were open."),
    ("prices_expired", "pluto_prices_expired", "Live prices that became stale because their proof ran out."),
)
# What the relay has at this moment: its name in Relay.figures, the metric, what it is.
RELAY_FIGURES = (
    ("up", "pluto_redis_up", "1 while Redis can be used."),
    ("round_trip", "pluto_redis_round_trip_seconds", "Time that Redis' last answer took."),
    ("behind", "pluto_relay_entries_behind", "Changes in Redis that this process had not read a second ago at most."),
    ("owned", "pluto_relay_owned_tickers", "Tickers that a scraper owns."),
    ("leases", "pluto_relay_leases", "Tickers that this process's scraper owns."),
    ("homeless", "pluto_relay_homeless_tickers", "Tickers for which no scraper has room."),
    ("scrapers", "pluto_relay_scrapers", "Scrapers: those alive, or in a process that only serves those that own."),
)
DELAYS = (
    ("page", "pluto_page_delay_seconds", "From the moment a page shows a live price until Pluto has it."),
    ("handoff", "pluto_handoff_delay_seconds", "From the moment Pluto has a live price until the flush that sends it."),
    ("relay", "pluto_relay_delay_seconds", "From the moment Redis has a change until this process has read it."),
    ("flush", "pluto_flush_duration_seconds", "Duration of a flush."),
    ("lateness", "pluto_flush_lateness_seconds", "From the moment a flush is due until it begins."),
    ("lag", "pluto_lag_duration_seconds", "From the moment a client's socket is full until the client has caught up."),
)
OTHER_COUNTERS = ("prices_", "refused: ", "relay_")  # of the source, which aren't events of pages and browser


class Figures(Collector):
    """Everything that Pluto counts, read at one moment.

    `http` is what the HTTP server that serves this request counts: {"connections": …, "counters": …}, or nothing if the
    server isn't Pluto's own.
    """

    def __init__(self, parts: Parts, http: Mapping[str, Any]) -> None:
        self.settings, self.http = parts.settings, http
        self.broadcaster = parts.broadcaster
        self.states = Counter(entry.quote.state for entry in parts.broadcaster.table.entries)
        self.clients = parts.broadcaster.clients.by_transport
        self.streams = parts.broadcaster.counters
        self.has_browser = parts.source.state is SourceState.RUNNING
        self.scraper = dict(parts.source.counters)  # copied in one step: the scraper's thread goes on counting
        self.relay = {} if parts.relay is None else parts.relay.figures
        self.supervision = parts.supervisor.counters
        self.store, self.alerts = parts.store, parts.alerts.figures
        self.refused_callers = parts.access.refused
        self.uptime_s = time.time() - parts.started_at
        self.silence_s = time.monotonic() - parts.source.last_tick

    def collect(self) -> Iterable[Metric]:
        """All metrics, as Prometheus' library asks for them."""
        families = (_settings, _tickers, _streams, _delays, _scraper, _relay, _store, _alerts, _http, _process)
        for family in families:
            yield from family(self)


# --- as JSON ----------------------------------------------------------------------------------------------------------


def performance(figures: Figures) -> dict[str, Any]:
    """The body of /api/performance, without its timestamp. Eight names are those of the original."""
    broadcaster, memory = figures.broadcaster, psutil.Process().memory_info()
    return {
        "scraper": {
            "activeTickers": figures.states.total(),
            "callbacksRegistered": 1,
            "queuedUpdates": broadcaster.waiting,
            "monitoringActive": figures.has_browser,
            "counters": figures.scraper,
        },
        "server": {
            "activeSSEClients": figures.clients["sse"],
            "queuedBroadcasts": broadcaster.clients.lagging,
            "uptime": round(figures.uptime_s, 3),
            "memoryUsage": {"rss": memory.rss, "vms": memory.vms},
            "clients": dict(figures.clients),
            "handoffDepth": broadcaster.waiting,
            "lagging": broadcaster.clients.lagging,
            "sequence": broadcaster.table.sequence,
            "flushSecondsMax": round(broadcaster.flush_max_s, 6),
            "latenessSecondsMax": round(broadcaster.lateness_max_s, 6),
            "counters": {**figures.streams, **figures.supervision},
            "http": figures.http,
            "refusedRequests": dict(figures.refused_callers),
        },
    }


# --- for Prometheus ---------------------------------------------------------------------------------------------------


def prometheus_text(figures: Figures) -> bytes:
    """The body of /metrics, in the format CONTENT_TYPE."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    return generate_latest(registry)


def _settings(figures: Figures) -> Iterator[Metric]:
    settings = figures.settings
    info = GaugeMetricFamily(
        "pluto_build_info", "Always 1: the version, and whether prices are simulated.", labels=["version", "simulated"]
    )
    info.add_metric([settings.version, str(settings.demo).lower()], 1)
    yield info
    yield GaugeMetricFamily("pluto_tickers_limit", "--max-tickers.", settings.max_tickers)
    yield GaugeMetricFamily("pluto_streams_limit", "--max-streams.", settings.max_streams)


def _tickers(figures: Figures) -> Iterator[Metric]:
    states = {str(state): figures.states[state] for state in State}
    yield _labelled(GaugeMetricFamily, "pluto_tickers", "Tracked tickers, by state.", "state", states)


def _streams(figures: Figures) -> Iterator[Metric]:
    broadcaster, counters = figures.broadcaster, figures.streams
    streams = {transport: figures.clients[transport] for transport in TRANSPORTS}
    yield _labelled(GaugeMetricFamily, "pluto_streams", "Open streams, by transport.", "transport", streams)
    yield GaugeMetricFamily("pluto_streams_lagging", "Streams whose socket is full.", broadcaster.clients.lagging)
    yield GaugeMetricFamily("pluto_handoff_quotes", "Quotes that wait for the next flush.", broadcaster.waiting)
    for counted, name, help in STREAM_COUNTERS:
        yield CounterMetricFamily(name, help, counters[counted])
    yield _counter("pluto_streams_left", "Streams that Pluto ended in order, by reason.", "reason", counters, "left: ")
    yield _counter(
        "pluto_streams_dropped", "Streams cut off or ended by the client, by reason.", "reason", counters, "dropped: "
    )


def _delays(figures: Figures) -> Iterator[Metric]:
    for part, name, help in DELAYS:
        histogram = getattr(figures.broadcaster.delays, part)
        bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        yield HistogramMetricFamily(name, help, buckets, histogram.total_s)


def _scraper(figures: Figures) -> Iterator[Metric]:
    counters = figures.scraper
    events = {name: count for name, count in counters.items() if not name.startswith(OTHER_COUNTERS)}
    if figures.settings.role != "web":
        yield GaugeMetricFamily("pluto_browser_up", "1 while there is a browser.", figures.has_browser)
    yield GaugeMetricFamily(
        "pluto_scraper_silence_seconds", "Time since the scraper's thread was last seen running.", figures.silence_s
    )
    yield _counter("pluto_prices", "Prices read, by source, stale ones included.", "source", counters, "prices_")
    yield _counter("pluto_prices_refused", "Texts not accepted as a price, by reason.", "reason", counters, "refused: ")
    yield _counter("pluto_scraper_events", "Events of the pages and the browser.", "event", events)
    yield _counter("pluto_supervision_events", "Hangs and deaths inside Pluto.", "event", figures.supervision)


def _relay(figures: Figures) -> Iterator[Metric]:
    for figure, name, help in RELAY_FIGURES:
        if figure in figures.relay:
            yield GaugeMetricFamily(name, help, figures.relay[figure])
    if figures.relay:
        yield _counter("pluto_relay_events", "Events of the relay.", "event", figures.scraper, "relay_")


def _store(figures: Figures) -> Iterator[Metric]:
    store = figures.store
    degraded = store.state is StoreState.DEGRADED
    yield GaugeMetricFamily("pluto_store_degraded", "1 while the store can't write its file.", degraded)
    yield GaugeMetricFamily("pluto_store_waiting", "Changes that wait for the store's writer.", store.intake.waiting)
    yield CounterMetricFamily("pluto_store_changes", "Changes written by the store.", store.written)
    yield CounterMetricFamily(
        "pluto_store_changes_left_out", "Changes left out because too many waited.", store.intake.left_out
    )


def _alerts(figures: Figures) -> Iterator[Metric]:
    alerts = figures.alerts
    raised = {"kept": alerts.raised_kept, "not_kept": alerts.raised_unkept}
    yield GaugeMetricFamily("pluto_alerts", "Alerts that are held.", alerts.held)
    yield _labelled(CounterMetricFamily, "pluto_alerts_raised", "Alerts that have rung, by outcome.", "outcome", raised)
    deliveries = CounterMetricFamily(
        "pluto_deliveries", "Deliveries that have ended, by notify URL and state.", labels=["to", "state"]
    )
    waiting = GaugeMetricFamily("pluto_deliveries_waiting", "Deliveries that wait, by notify URL.", labels=["to"])
    oldest = GaugeMetricFamily(
        "pluto_deliveries_oldest_seconds", "Age of the oldest delivery that waits, by notify URL.", labels=["to"]
    )
    for lane in alerts.lanes:
        deliveries.add_metric([lane.name, "delivered"], lane.delivered)
        deliveries.add_metric([lane.name, "failed"], lane.failed)
        waiting.add_metric([lane.name], lane.waiting)
        oldest.add_metric([lane.name], lane.oldest_s)
    yield from (deliveries, waiting, oldest)
    if alerts.lease is not None:
        yield GaugeMetricFamily(
            "pluto_alert_lease_held", "1 while this process judges and delivers all alerts.", alerts.lease.is_held
        )
        yield CounterMetricFamily(
            "pluto_alert_leases_taken", "Times that this process began to judge all alerts.", alerts.lease.taken
        )


def _http(figures: Figures) -> Iterator[Metric]:
    connections, counters = figures.http.get("connections", 0), figures.http.get("counters", {})
    yield GaugeMetricFamily("pluto_connections", "Open connections, streams not counted.", connections)
    yield _counter(
        "pluto_requests_refused", "Requests refused by the HTTP server, by error.", "error", counters, "refused: "
    )
    yield _counter(
        "pluto_callers_refused", "Requests from callers without access, by error.", "error", figures.refused_callers
    )
    yield _counter(
        "pluto_connections_closed", "Connections closed by Pluto, by reason.", "reason", counters, "closed: "
    )
    yield CounterMetricFamily(
        "pluto_accepts_failed", "Times that no connection could be accepted.", counters.get("accept failed", 0)
    )


def _process(figures: Figures) -> Iterator[Metric]:
    """Pluto's own process, under the names that all Prometheus clients use. Python's client reads them from /proc."""
    process = psutil.Process()
    with process.oneshot():
        memory, cpu = process.memory_info(), process.cpu_times()
        started_at, descriptors = process.create_time(), process.num_fds()
    yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.", memory.vms)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", memory.rss)
    yield GaugeMetricFamily("process_start_time_seconds", "Start time since the epoch in seconds.", started_at)
    yield CounterMetricFamily("process_cpu_seconds", "User and system CPU time in seconds.", cpu.user + cpu.system)
    yield GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.", limit())
    yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", descriptors)


def _counter(name: str, help: str, label: str, counters: Mapping[str, int], prefix: str = "") -> Metric:
    """The counters that begin with the prefix, each as a value of the label."""
    values = {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
    return _labelled(CounterMetricFamily, name, help, label, dict(sorted(values.items())[:MAX_EVENTS]))


def _labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, help: str, label: str, values: Mapping[str, int]
) -> Metric:
    family = kind(name, help, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
