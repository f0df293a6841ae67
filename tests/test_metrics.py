"""What Prometheus reads at /metrics: names and words it accepts, figures that are right, and no series per ticker."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from running import PROJECT, Pluto, QuoteServer, quote_server, wait_until
from test_live import tracked
from test_streams import raw_stream, track_only

from app import assemble
from broadcast import Histogram
from quotes import Quote, Source, State, Ticker
from settings import VERSION, Settings
from web.metrics import DELAYS, MAX_EVENTS, Figures, performance, prometheus_text
from web.parts import Parts

BTC = Ticker("BTCUSD")
SAMPLE_NAME = re.compile(r"\b(?:pluto|process)_\w+")


@pytest.fixture(scope="module")
def server() -> Iterator[QuoteServer]:
    with quote_server() as server:
        yield server


class Reading:
    """All of /metrics at one moment."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        [value] = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        return value


def read(server: QuoteServer | Pluto) -> Reading:
    return Reading(server.http.get("/metrics").raise_for_status().text)


@pytest.fixture
def parts() -> Parts:
    """The layers without a browser or a client, in this process, none of them started."""
    return assemble(Settings(demo=True, store=False))


def reading_of(parts: Parts) -> Reading:
    return Reading(prometheus_text(Figures(parts, {})).decode())


def test_every_metric_has_its_words_and_a_name_of_ours(server: QuoteServer) -> None:
    answer = server.http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=9.x,*/*"})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = Reading(answer.text).families
    assert all(family.documentation for family in families)
    assert all(family.name.startswith(("pluto_", "process_")) for family in families)
    assert len({family.name for family in families}) == len(families)


def test_promtool_finds_nothing_to_complain_of(server: QuoteServer) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool (Debian's package prometheus) is not here")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=read(server).text, capture_output=True, text=True, timeout=20
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_tickers_and_streams_are_counted(server: QuoteServer) -> None:
    server.track("BTCUSD", "ETHUSD", "SOLUSD")
    server.put(("BTCUSD", "live", "67000.1"), ("ETHUSD", "stale", None))
    wait_until(lambda: read(server).value("pluto_tickers", state="live") == 1)
    before = read(server)
    assert before.value("pluto_tickers", state="stale") == 1
    assert before.value("pluto_tickers", state="starting") == 1
    assert before.value("pluto_tickers", state="blocked") == 0
    assert before.value("pluto_build_info", version=VERSION, simulated="false") == 1
    with raw_stream(server) as stream:
        stream.read_until(lambda: stream.last_id)
        wait_until(lambda: read(server).value("pluto_streams", transport="sse") == 1)
        server.put(("BTCUSD", "live", "67000.2"))
        stream.read_until(lambda: stream.table["BTCUSD"] == "67000.2")
        flushes = "pluto_flush_duration_seconds_count"
        wait_until(lambda: read(server).value(flushes) > before.value(flushes))
        after = read(server)
        assert after.value("pluto_sends_total") > before.value("pluto_sends_total")
        assert after.value("pluto_sent_bytes_total") > before.value("pluto_sent_bytes_total") + 100
    wait_until(lambda: 'pluto_streams_dropped_total{reason="closed"} 1.0' in read(server).text)


def test_a_thousand_tickers_have_as_many_series_as_one(parts: Parts) -> None:
    few = reading_of(parts)
    for number in range(1000):
        parts.broadcaster.add(Ticker(f"COIN{number}USD"))
    many = reading_of(parts)
    assert many.value("pluto_tickers", state="starting") == 1000
    assert [(sample.name, sample.labels) for sample in many.samples] == [
        (sample.name, sample.labels) for sample in few.samples
    ]


def test_hostile_words_are_escaped_and_bounded(parts: Parts) -> None:
    parts.source.counters.update({f'refused: "}}\n{number}': 1 for number in range(MAX_EVENTS * 2)})
    reading = reading_of(parts)
    reasons = [sample.labels["reason"] for sample in reading.samples if sample.name == "pluto_prices_refused_total"]
    assert len(reasons) == MAX_EVENTS
    assert reasons[0] == '"}\n0'


def test_refusals_are_counted_by_their_error(server: QuoteServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as malformed:
        malformed.sendall(b"GET / HTTP/1.1\n\n")
        assert malformed.recv(64).startswith(b"HTTP/1.1 400")
    assert server.http.get("/api/tickers", headers={"Host": "rebound.example"}).status_code == 403
    reading = read(server)
    assert reading.value("pluto_requests_refused_total", error="malformed_request") == 1
    assert reading.value("pluto_callers_refused_total", error="forbidden_host") == 1
    assert reading.value("pluto_connections") >= 1
    assert reading.value("pluto_accepts_failed_total") == 0


def test_what_hung_or_died_is_counted(parts: Parts) -> None:
    parts.supervisor.counters["scraper_deaths"] += 2
    reading = reading_of(parts)
    assert reading.value("pluto_supervision_events_total", event="scraper_deaths") == 2


def test_json_and_prometheus_tell_the_same(parts: Parts) -> None:
    parts.source.counters.update({"pages_opened": 3, "prices_dom": 5})
    parts.supervisor.counters["hub_blocked"] += 2
    parts.broadcaster.counters.update({"sends": 7, "dropped: reset": 4})
    parts.access.refused["forbidden_host"] += 6
    http = {"connections": 8, "counters": {"refused: too_large": 9, "closed: idle": 1}}
    figures = Figures(parts, http)
    shown, reading = performance(figures), Reading(prometheus_text(figures).decode())
    assert shown["scraper"]["counters"] == {"pages_opened": 3, "prices_dom": 5}
    assert reading.value("pluto_scraper_events_total", event="pages_opened") == 3
    assert reading.value("pluto_prices_total", source="dom") == 5
    assert shown["server"]["counters"] == {"hub_blocked": 2, "sends": 7, "dropped: reset": 4}
    assert reading.value("pluto_supervision_events_total", event="hub_blocked") == 2
    assert reading.value("pluto_sends_total") == 7
    assert reading.value("pluto_streams_dropped_total", reason="reset") == 4
    assert shown["server"]["refusedRequests"] == {"forbidden_host": 6}
    assert reading.value("pluto_callers_refused_total", error="forbidden_host") == 6
    assert shown["server"]["http"] == http
    assert reading.value("pluto_connections") == 8
    assert reading.value("pluto_requests_refused_total", error="too_large") == 9
    assert reading.value("pluto_connections_closed_total", reason="idle") == 1


def test_without_a_browser_it_says_so(server: QuoteServer) -> None:
    reading = read(server)
    assert reading.value("pluto_browser_up") == 0
    wait_until(
        lambda: read(server).value("pluto_scraper_silence_seconds") > reading.value("pluto_scraper_silence_seconds")
    )
    assert server.http.post("/metrics").status_code == 405


def test_a_price_is_timed_on_its_way_once(parts: Parts) -> None:
    broadcaster, now_ms = parts.broadcaster, round(time.time() * 1000)
    broadcaster.add(BTC)
    price = {"price_text": "1.5", "source": Source.SOCKET, "timestamp": now_ms - 400, "received_at": now_ms - 100}
    price |= {"proven_until": math.inf}
    for state in (State.LIVE, State.STALE, State.LIVE):  # one price; proven, doubted, and proven again
        broadcaster.put(Quote(BTC, state, **price))  # type: ignore[arg-type]
        broadcaster.flush()
    page, handoff = broadcaster.delays.page, broadcaster.delays.handoff
    assert (sum(page.counts), page.total_s) == (1, 0.3)
    assert sum(handoff.counts) == 1
    assert 0.1 <= handoff.total_s < 5
    reading = reading_of(parts)
    assert reading.value("pluto_page_delay_seconds_bucket", le="0.25") == 0
    assert reading.value("pluto_page_delay_seconds_bucket", le="0.5") == 1
    assert reading.value("pluto_page_delay_seconds_bucket", le="+Inf") == 1
    assert reading.value("pluto_page_delay_seconds_sum") == 0.3


def test_what_was_never_live_and_a_clock_set_back_distort_nothing(parts: Parts) -> None:
    broadcaster, now_ms = parts.broadcaster, round(time.time() * 1000)
    broadcaster.add(BTC)
    day_ms = 86_400_000
    for state, shown_at, received_at in (
        (State.SNAPSHOT, now_ms - day_ms, now_ms),
        (State.LIVE, now_ms + 2 * day_ms, now_ms + day_ms),
    ):
        quote = Quote(BTC, state, "1.5", timestamp=shown_at, received_at=received_at, proven_until=math.inf)
        broadcaster.put(quote)
        broadcaster.flush()
    assert (broadcaster.delays.page.counts[0], broadcaster.delays.page.total_s) == (1, 0)
    assert (broadcaster.delays.handoff.counts[0], broadcaster.delays.handoff.total_s) == (1, 0)


def test_a_histogram_counts_at_its_bounds_and_beyond_them() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.10001, 1.0, 99.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]


def test_a_client_that_lagged_is_timed_until_it_has_caught_up(server: QuoteServer) -> None:
    coins = [f"COIN{number}USD" for number in range(200)]
    track_only(server, coins)
    with raw_stream(server, buffer=4096) as slow:
        slow.read_until(lambda: slow.last_id)

        def lags() -> bool:
            server.put(*[(coin, "live", f"{time.time():.4f}") for coin in coins])
            return bool(read(server).value("pluto_streams_lagging"))

        wait_until(lags, timeout=20)
        before = read(server).value("pluto_lag_duration_seconds_count")
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.put(*[(coin, "live", "7.7") for coin in coins])
        slow.read_until(lambda: all(slow.table.get(coin) == "7.7" for coin in coins))
        wait_until(lambda: read(server).value("pluto_lag_duration_seconds_count") > before)
        assert 0 < read(server).value("pluto_lag_duration_seconds_sum") < 20
        assert read(server).value("pluto_streams_lagging") == 0
    track_only(server, ["BTCUSD"])


def test_a_real_page_s_prices_are_timed(pluto: Pluto) -> None:
    with tracked(pluto, "DOTUSD"):
        pluto.wait_for("DOTUSD", "live")
        wait_until(lambda: read(pluto).value("pluto_page_delay_seconds_count") >= 3)
        reading = read(pluto)
    assert reading.value("pluto_page_delay_seconds_bucket", le="1.0") >= 1
    assert reading.value("pluto_browser_up") == 1
    assert reading.value("pluto_scraper_events_total", event="pages_opened") >= 1
    assert sum(sample.value for sample in reading.samples if sample.name == "pluto_prices_total") >= 3


def test_the_dashboard_asks_for_nothing_that_is_not_there(server: QuoteServer) -> None:
    dashboard = json.loads((PROJECT / "examples" / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    names = {name for expression in asked for name in SAMPLE_NAME.findall(expression)}
    with_redis = reading_of(assemble(Settings(store=False, redis="redis://127.0.0.1:9")))
    families = [*read(server).families, *with_redis.families]
    offered = {sample.name for family in families for sample in family.samples}
    offered |= {family.name + "_total" * (family.type == "counter") for family in families}  # also those not begun
    assert len(asked) >= 12
    assert names <= offered
    assert {f"{name}_bucket" for _, name, _ in DELAYS} <= names, "the whole way of a price is shown"
    assert {name for name in offered if name.startswith(("pluto_alert", "pluto_deliveries"))} <= names
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
