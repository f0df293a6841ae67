"""What pages cost, and how long their prices take: Pluto's scraper and two others, on the simulator's heavy page.

    python bench/scraper.py [--counts 1,10,20,50] [--rates 2,10] [--seconds 8] [--weight real] [--json FILE]
    python bench/scraper.py --rates real      prices change as seldom as on real pages
    python bench/scraper.py --kills 50        kills renderer, browser and driver in turn

Contenders, each a process of its own:

    pluto          scraper.py as it is
    pluto headed   the same with visible windows; requires a DISPLAY
    pluto unslim   the same with pages that have a layout, as Pluto opens them where slim pages show no price
    shared         one browser, one context, an ordinary page per ticker; an observer in the page reports each change
    naive          a browser per ticker, whose page is read once a second, as the original design did

Latency ends when the hub's thread has the price. It is counted from when the page had the price, and from when the
simulator made it. Memory is PSS, which counts shared memory once. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
sys.path[0] = str(PROJECT)  # instead of this folder: else this file would be imported as scraper.py

import gevent  # noqa: E402
import gevent.socket  # noqa: E402
import httpx  # noqa: E402
import psutil  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from quotes import Quote, SourceState, State, Ticker, steady_ms  # noqa: E402
from scraper import Scraper, ScraperSettings  # noqa: E402
from tradingview.browser import find_browser  # noqa: E402
from tradingview.proof import PageClock  # noqa: E402
from tradingview.site import page_url  # noqa: E402

COIN_LINE = """
BTC ETH SOL BNB XRP ADA DOGE TRX AVAX DOT LINK TON LTC BCH ATOM UNI XLM NEAR APT SUI ARB OP FIL HBAR VET ICP ETC XMR
ALGO AAVE MKR GRT SAND MANA AXS THETA EOS XTZ FTM RUNE INJ SEI TIA STX IMX LDO CRV SNX COMP ZEC
"""
COINS = COIN_LINE.split()
SETTLE_S = 20.0  # until the garbage of opening pages is collected
RECOVERY_LIMIT_S = 60.0
NAIVE_TIMEOUT_MS = 120_000  # each further browser starts slower than the one before
LIMITS = {  # tickers; figures for more are extrapolated
    "pluto": 1000,
    "pluto headed": 20,
    "pluto unslim": 1000,
    "shared": 20,
    "naive": 20,
}
# Ticker, price text, when the hub's thread had it, and when the page showed it (0: unknown), in ms.
Receipts = list[tuple[str, str, float, float]]


# --- the contenders, each in a process of its own ---------------------------------------------------------------------


def run_pluto(url: str, count: int, report: Any, *, headed: bool, slim: bool) -> None:
    """Runs the scraper's thread beside a gevent hub. Quotes cross to the hub as in Pluto."""
    waiting: deque[Quote] = deque()
    states: dict[str, State] = {}
    receipts: Receipts = []

    def take() -> None:
        while waiting:
            quote = waiting.popleft()
            states[quote.ticker] = quote.state
            if quote.state is State.LIVE and quote.price_text is not None:
                receipts.append((quote.ticker, quote.price_text, time.time() * 1000, quote.timestamp or 0))

    watcher = gevent.get_hub().loop.async_()
    watcher.start(take)

    def emit(quote: Quote) -> None:
        waiting.append(quote)
        watcher.send()

    # The page's clock is this machine's: no need to convert it, which would count the least delay as none.
    ahead = steady_ms() - time.time() * 1000
    PageClock.ours = lambda self, at: at + ahead  # type: ignore[method-assign]
    settings = ScraperSettings(url, os.environ.get("PLUTO_BROWSER"), headed=headed)
    scraper = Scraper(settings, emit)
    scraper.slimness.is_given_up = not slim
    started = time.monotonic()
    scraper.start()
    for coin in COINS[:count]:
        scraper.add(Ticker(f"{coin}USD"))
    while sum(state is State.LIVE for state in states.values()) < count or scraper.state is not SourceState.RUNNING:
        gevent.sleep(0.02)
    report(live_s=time.monotonic() - started)
    for line in commands():
        if line == "receipts":
            report(receipts=receipts)
            receipts.clear()
        elif line == "states":
            report(live=sum(state is State.LIVE for state in states.values()))
    scraper.stop(10)


def commands() -> Iterator[str]:
    """The parent's questions, a line each. The hub works on while this waits."""
    while True:
        gevent.socket.wait_read(sys.stdin.fileno())
        line = sys.stdin.readline().strip()
        if line in ("", "end"):
            return
        yield line


OBSERVE = """() => {
  const element = document.querySelector('.js-symbol-page-header-root .js-symbol-last');
  const tell = () => told(element.textContent.replaceAll(",", ""));
  new MutationObserver(tell).observe(element, { childList: true, subtree: true, characterData: true });
  tell();
}"""


def run_shared(url: str, count: int, report: Any) -> None:
    receipts: Receipts = []
    started = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(playwright), chromium_sandbox=os.geteuid() != 0
        )
        context = browser.new_context(locale="en-US")
        for coin in COINS[:count]:
            ticker = f"{coin}USD"
            page = context.new_page()
            page.expose_function("told", lambda text, t=ticker: receipts.append((t, text, time.time() * 1000, 0)))
            page.goto(page_url(url, Ticker(ticker)), wait_until="load")
            page.evaluate(OBSERVE)
        while len({ticker for ticker, text, *_ in receipts if text}) < count:
            page.wait_for_timeout(20)
        report(live_s=time.monotonic() - started)
        answer_while(lambda: page.wait_for_timeout(10), receipts, report)


def run_naive(url: str, count: int, report: Any) -> None:
    receipts: Receipts = []
    started = time.monotonic()
    with sync_playwright() as playwright:
        path = browser_path(playwright)
        pages = []
        for coin in COINS[:count]:
            browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
            page = browser.new_page(locale="en-US")
            page.set_default_timeout(NAIVE_TIMEOUT_MS)
            page.goto(page_url(url, Ticker(f"{coin}USD")), wait_until="load")
            pages.append((f"{coin}USD", page))

        def poll() -> None:
            begun = time.monotonic()
            for ticker, page in pages:
                text = page.locator(".js-symbol-page-header-root .js-symbol-last").text_content() or ""
                receipts.append((ticker, text.replace(",", ""), time.time() * 1000, 0))
            page.wait_for_timeout(max(1, 1000 * (1 - (time.monotonic() - begun))))

        while len({ticker for ticker, text, *_ in receipts if text}) < count:
            poll()
        report(live_s=time.monotonic() - started)
        answer_while(poll, receipts, report)


def browser_path(playwright: Any) -> str:
    return find_browser(os.environ.get("PLUTO_BROWSER"), playwright.chromium.executable_path)


def answer_while(work: Any, receipts: Receipts, report: Any) -> None:
    """Works, and answers the parent's questions, until the parent says "end"."""
    lines: deque[str] = deque()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: lines.append(sys.stdin.readline().strip()))
    while not lines or lines[0] not in ("", "end"):
        if lines and lines.popleft() == "receipts":
            report(receipts=receipts)
        work()


def run_contender(name: str, url: str, count: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    sys.setswitchinterval(0.0005)  # as app.py does

    def report(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    if name == "shared":
        run_shared(url, count, report)
    elif name == "naive":
        run_naive(url, count, report)
    else:
        run_pluto(url, count, report, headed=name == "pluto headed", slim=name != "pluto unslim")


# --- the measurement --------------------------------------------------------------------------------------------------


class Contender:
    """A running contender, from the parent's side."""

    def __init__(self, name: str, url: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--contender", name, "--url", url, "--counts", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.live_s = float(self._answer()["live_s"])

    def ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the contender ended; what it printed above says why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def parts(self) -> dict[str, list[psutil.Process]]:
        """The processes: Python itself, Playwright's driver, and Chromium's."""
        own = psutil.Process(self._process.pid)
        parts: dict[str, list[psutil.Process]] = {"python": [own], "driver": [], "chromium": []}
        for child in own.children(recursive=True):
            parts["driver" if "run-driver" in command_of(child) else "chromium"].append(child)
        return parts

    def end(self) -> None:
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                process.kill()
            self._process.kill()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return total


def memory_mb(processes: list[psutil.Process], kind: str = "Pss") -> float:
    """PSS. With "Pss_Anon" only its written part, which doesn't depend on other copies of the same browser."""
    total = 0.0
    for process in processes:
        with suppress(OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
            total += sum(int(line.split()[1]) / 1000 for line in rollup.splitlines() if line.startswith(f"{kind}:"))
    return total


def measure(name: str, count: int, rate: float | None, seconds: float, weight: str) -> dict[str, Any]:
    """Without a rate: at the real pace."""
    with simulator("--weight", weight, *(["--pace", "real"] if rate is None else [])) as (url, http):
        for coin in COINS[:count] if rate is not None else ():
            http.post(f"/rate/{coin}USD/{rate}").raise_for_status()
        contender = Contender(name, url, count)
        try:
            time.sleep(SETTLE_S)
            contender.ask("receipts")  # of the opening
            parts, begun = contender.parts(), time.time()
            before = {part: cpu_s(processes) for part, processes in parts.items()}
            time.sleep(seconds)
            took = time.time() - begun
            row: dict[str, Any] = {
                "contender": name,
                "tickers": count,
                "rate": rate or "real",
                "live_s": contender.live_s,
            }
            for part, processes in parts.items():
                row[f"{part}_ms_per_s"] = 1000 * (cpu_s(processes) - before[part]) / took
            everything = [process for processes in contender.parts().values() for process in processes]
            row |= {"pss_mb": memory_mb(everything), "anon_mb": memory_mb(everything, "Pss_Anon")}
            receipts = contender.ask("receipts")["receipts"]
            return row | latencies(receipts, http, begun * 1000)
        finally:
            contender.end()


def latencies(receipts: Receipts, http: httpx.Client, since: float) -> dict[str, Any]:
    """How long new prices took to the hub's thread, since the simulator made them and since the page showed them."""
    made = {ticker: http.get(f"/truth/{ticker}").json()["changes"] for ticker in {receipt[0] for receipt in receipts}}
    from_site, from_page = [], []
    last: dict[str, str] = {}
    for ticker, price, at, shown_at in receipts:
        if price != last.get(ticker, price) and at >= since:  # the first price may be an old one
            times = [change["time"] for change in made[ticker] if change["price"] == price and change["time"] <= at]
            from_site += [at - time_made for time_made in times[-1:]]
            from_page += [at - shown_at] if shown_at else []
        last[ticker] = price
    return {"prices": len(from_site), **percentiles("", from_site), **percentiles("page_", from_page)}


def percentiles(name: str, waits: list[float]) -> dict[str, float | None]:
    cuts = statistics.quantiles(waits, n=100) if len(waits) >= 10 else [None] * 99
    return {f"{name}p50_ms": cuts[49], f"{name}p99_ms": cuts[98]}


@contextmanager
def simulator(*options: str) -> Iterator[tuple[str, httpx.Client]]:
    command = [sys.executable, "-m", "simulator", "--port", "0", "--until-stdin-closes", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        with httpx.Client(base_url=url, timeout=10) as http:
            yield url, http
        assert process.stdin is not None
        process.stdin.close()


# --- kills ------------------------------------------------------------------------------------------------------------


def measure_kills(kills: int, count: int) -> list[dict[str, Any]]:
    """Kills a renderer, the browser, the driver, and so on. Measures how long until all tickers are live again."""
    rows = []
    with simulator() as (url, _):
        contender = Contender("pluto", url, count)
        try:
            for number in range(kills):
                part = ("renderer", "browser", "driver")[number % 3]
                time.sleep(5.5)  # Pluto doesn't restart a browser at once that lasted less
                before = contender.parts()["driver"] + contender.parts()["chromium"]
                victims = pick(part, contender)
                begun = time.monotonic()
                for victim in victims:
                    victim.kill()
                row = {"killed": part, "live_again_s": wait_until_all_live(contender, count, begun)}
                left = 0 if part == "renderer" else len(psutil.wait_procs(before, timeout=3)[1])
                rows.append({**row, "processes_left": left})
                print(f"{number + 1:3} {part:9} {row['live_again_s']:5.1f} s, processes left: {left}", flush=True)
        finally:
            contender.end()
    return rows


def pick(part: str, contender: Contender) -> list[psutil.Process]:
    parts = contender.parts()
    if part == "driver":
        return parts["driver"]
    if part == "browser":
        return [process for process in parts["chromium"] if "--remote-debugging-pipe" in command_of(process)][:1]
    renderers = [process for process in parts["chromium"] if "--type=renderer" in command_of(process)]
    return sorted(renderers, key=lambda process: process.memory_info().rss)[-1:]  # the one with most pages


def wait_until_all_live(contender: Contender, count: int, begun: float) -> float:
    while contender.ask("states")["live"] == count and time.monotonic() - begun < 3:
        time.sleep(0.01)
    while contender.ask("states")["live"] < count:
        if time.monotonic() - begun > RECOVERY_LIMIT_S:
            raise RuntimeError(f"not live again within {RECOVERY_LIMIT_S} s")
        time.sleep(0.02)
    return time.monotonic() - begun


# --- the report -------------------------------------------------------------------------------------------------------

COLUMNS = {
    "contender": "contender",
    "tickers": "tickers",
    "rate": "per s",
    "live_s": "all live, s",
    "page_p50_ms": "page p50",
    "page_p99_ms": "p99 ms",
    "p50_ms": "site p50",
    "p99_ms": "p99 ms",
    "python_ms_per_s": "Python ms/s",
    "driver_ms_per_s": "driver ms/s",
    "chromium_ms_per_s": "Chromium ms/s",
    "pss_mb": "PSS MB",
    "anon_mb": "written MB",
}


def cell(value: Any) -> str:
    return "–" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def print_row(row: dict[str, Any]) -> None:
    print("| " + " | ".join(cell(row[name]) for name in COLUMNS) + " |", flush=True)


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """PSS per added ticker of each contender, and Pluto's at the most tickers as a part of naive's, in proportion."""
    result = {}
    for name in {row["contender"] for row in rows}:
        points = sorted(
            {(row["tickers"], row["pss_mb"]) for row in rows if row["contender"] == name and row["tickers"]}
        )
        (few, least), (many, most) = points[0], points[-1]
        if many > few:
            result[f"{name}: MB per added ticker"] = (most - least) / (many - few)
            result[f"{name}: MB at {many}"] = most
            result[f"{name}: MB at 50, in proportion"] = least + (most - least) / (many - few) * (50 - few)
    if {"pluto", "naive"} <= {row["contender"] for row in rows}:
        pluto, naive = (result.get(f"{name}: MB at 50, in proportion", 0.0) for name in ("pluto", "naive"))
        if naive:
            result["pluto's part of naive's memory at 50"] = pluto / naive
    return result


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="0,1,10,20,50", help="tickers, separated by commas")
    parser.add_argument("--rates", default="2,10", help="changes of each price a second, separated by commas; or real")
    parser.add_argument("--weight", default="2000000", help="of a page, as the simulator takes it")
    parser.add_argument("--contenders", default="pluto,shared,naive", help="which, separated by commas")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each is measured")
    parser.add_argument("--kills", type=int, default=0, help="instead: kill so often")
    parser.add_argument("--kill-tickers", type=int, default=20, help="how many tickers there are then")
    parser.add_argument("--json", help="file to write the results to")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    counts = [int(count) for count in options.counts.split(",")]
    if options.contender:
        run_contender(options.contender, options.url, counts[0])
        return
    if options.kills:
        results: dict[str, Any] = {"kills": measure_kills(options.kills, options.kill_tickers)}
    else:
        results = {"rows": (rows := measure_all(options, counts)), "summary": summary(rows)}
        for name, value in results["summary"].items():
            print(f"{name}: {value:.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure_all(options: argparse.Namespace, counts: list[int]) -> list[dict[str, Any]]:
    print("| " + " | ".join(COLUMNS.values()) + " |\n" + "|---" * len(COLUMNS) + "|")
    rows = []
    for name in options.contenders.split(","):
        for count in counts:
            for rate in [None if rate == "real" else float(rate) for rate in options.rates.split(",")]:
                if count <= LIMITS[name] and (count or name.startswith("pluto")):
                    rows.append(measure(name, count, rate, options.seconds, options.weight))
                    print_row(rows[-1])
    return rows


if __name__ == "__main__":
    main()
