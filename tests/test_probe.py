"""The probe in a real Chromium tells what a page's sockets, header and title do, and no page can tell that it is there.

The page is the test's own, its quote socket speaks to a server of the test's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from pages import SYMBOL
from playwright.sync_api import BrowserContext, Page
from quote_site import Line, QuoteSite, quote_site
from running import wait_until

from tradingview.probe import BINDING, probe_script

SPEC = f'={{"adjustment":"splits","currency-id":"USD","symbol":"{SYMBOL}"}}'
PULSE_S = 0.1  # few tests are about the time between two pulses
SILENCE_S = 0.4  # the pulse of those that are
NO_PULSE_S = 3600.0
LIMIT_S = 20.0
Message = dict[str, Any]

HEADER = """
<div class="js-symbol-page-header-root">
  <div class="js-symbol-header-ticker" data-symbol="BINANCE:BTCUSD">
    <span class="last-KLji300y js-symbol-last" data-qa-id="symbol-last-value"></span>
    <span class="dataMode js-data-mode tv-data-mode--connecting i-hidden"></span>
    <div class="js-symbol-change-direction"><span></span><span class="js-symbol-change-pt"></span></div>
    <span class="js-symbol-lp-time"></span>
  </div>
</div>"""


class Probed:
    """A page with the probe in it, and all that it has told."""

    def __init__(self, page: Page, site: QuoteSite, pulse: float) -> None:
        self.page, self.site = page, site
        self.messages: list[Message] = []
        self._channel = page.context.new_cdp_session(page)
        self._channel.on("Runtime.bindingCalled", lambda event: self.messages.append(json.loads(event["payload"])))
        self._channel.send("Runtime.enable")
        self._channel.send("Runtime.addBinding", {"name": BINDING})
        page.add_init_script(probe_script(SYMBOL, slim=False, pulse=pulse, max_message=60_000, max_rate=1000))

    def open(self, body: str = HEADER, head: str = "") -> Probed:
        """A new document; what those before it told is forgotten."""
        facts = json.dumps({"symbolInfo": {"resolved_symbol": SYMBOL, "typespecs": ["crypto"], "currency": "USD"}})
        self.site.html = f"<!doctype html><script>window.initData = {facts}</script>{head}<body>{body}</body>"
        self.page.goto(f"http://{self.site.host}/symbols/BTCUSD/?exchange=BINANCE")
        document = self.run("performance.timeOrigin")
        self.messages[:] = [message for message in self.messages if message["page"] == document]
        return self

    def run(self, script: str) -> Any:
        """What it gives in the page. All that the page told before is heard then: both come by one channel."""
        called = f"(script => typeof script === 'function' ? script() : script)({script})"
        asked = {"expression": called, "awaitPromise": True, "returnByValue": True}
        answer = self._channel.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def now(self) -> float:
        """By the page's clock, as `at` in its messages."""
        now: float = self.run("performance.timeOrigin + performance.now()")
        return now

    def told(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["kind"] == kind]

    def wait_for(self, kind: str, matches: Callable[[Message], object] = bool, *, since: int = 0) -> Message:
        """The first message of this kind that matches, of those since so many had been told."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for message in self.messages[since:]:
                if message["kind"] == kind and matches(message):
                    return message
            self.page.wait_for_timeout(20)
        raise AssertionError(f"no such {kind} in {self.messages[since:]}")

    def connect(self) -> Line:
        """A quote socket of the page, open; `window.sockets` has them all."""
        count = len(self.site.lines)
        script = f"""() => new Promise((opened) => {{
            const socket = new WebSocket("ws://{self.site.host}/socket.io/websocket");
            (window.sockets ??= []).push(socket);
            window.heard ??= 0;
            socket.onmessage = () => heard++;
            socket.onopen = opened;
        }}).then(() => 0)"""
        self.run(script)
        return wait_until(lambda: self.site.lines[count:])[0]

    def order(self, name: str, *parameters: object, socket: int = 0) -> None:
        payload = json.dumps({"m": name, "p": parameters})
        self.run(f"() => sockets[{socket}].send({json.dumps(f'~m~{len(payload)}~m~{payload}')})")

    def frames_after(self, count: int = 0) -> list[Message]:
        """All frames told, once the page has heard all that its sockets said: the probe hears it before the page."""
        said = sum(line.said for line in self.site.lines)
        wait_until(lambda: self.run("() => heard") == said)
        return [frame for message in self.told("frames")[count:] for frame in message["frames"]]

    def pulse(self) -> Message:
        """The next one: told after this call began."""
        begun = self.now()
        return self.wait_for("pulse", lambda told: told["at"] >= begun)

    def show(self, selector: str, text: str) -> None:
        self.run(f"() => {{ document.querySelector({json.dumps(selector)}).textContent = {json.dumps(text)} }}")


@pytest.fixture(scope="module")
def probes(thrifty: BrowserContext) -> Iterator[Callable[[float], Probed]]:
    """The page whose pulses are so many s apart."""
    with quote_site() as site, ExitStack() as tabs:

        @cache
        def probe(pulse: float) -> Probed:
            tab = thrifty.new_page()
            tabs.callback(tab.close)
            return Probed(tab, site, pulse)

        yield probe


@pytest.fixture
def probed(probes: Callable[[float], Probed], request: pytest.FixtureRequest) -> Probed:
    """The page of a test before; `open` begins a document of the test's own. See `with_pulse`."""
    probed = probes(getattr(request, "param", PULSE_S))
    probed.site.lines.clear()
    return probed


def with_pulse(seconds: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("probed", [seconds], indirect=True)


def quote(fields: object, *, name: object = SYMBOL, session: object = "qs_full", **more: object) -> Message:
    return {"m": "qsd", "p": [session, {"n": name, "s": "ok", "v": fields, **more}]}


# --- quote frames -----------------------------------------------------------------------------------------------------


def test_frames_of_the_symbol_are_told_with_their_session_and_name(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(
        quote({"lp": 64001.5, "lp_time": 1_795_000_000, "rtc": None, "x": "y" * 9000, "bid": None}),
        quote({"lp": 64001.5}, name=SPEC, session="qs_simple"),
        quote({"lp": 3001.5}, name="BINANCE:ETHUSD"),
        quote({"lp": 5}, name='={"adjustment":"splits"}'),
        quote({"lp": 5}, name="={not a spec"),
        {"m": "quote_completed", "p": ["qs_full", SYMBOL]},
        "~h~1",
    )
    assert probed.frames_after() == [
        {"session": "qs_full", "name": SYMBOL, "status": "ok", "fields": {"lp": 64001.5, "lp_time": 1_795_000_000}},
        {"session": "qs_simple", "name": SPEC, "status": "ok", "fields": {"lp": 64001.5}},
    ]


def test_parts_of_one_change_are_told_as_one_and_no_price_instead_of_another(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(
        quote({"lp": 1.5}),
        quote({"chp": 7}),
        quote({"lp": 1.5}, session="qs_other"),
        quote({"lp": 1.6}),
        quote({"chp": 8, "volume": 9}),
    )
    probed.frames_after()
    first, second = probed.told("frames")
    assert [frame["fields"] for frame in first["frames"]] == [{"lp": 1.5, "chp": 7}, {"lp": 1.5}]
    assert [frame["fields"] for frame in second["frames"]] == [{"lp": 1.6, "chp": 8, "volume": 9}]


def test_an_error_is_told_with_its_words(probed: Probed) -> None:
    line = probed.open().connect()
    error = {"n": SYMBOL, "s": "permission_denied", "errmsg": "no", "v": {"alternative": "BINANCE:X"}}
    line.say({"m": "qsd", "p": ["qs_full", error]})
    (frame,) = probed.wait_for("frames")["frames"]
    assert (frame["status"], frame["error"], frame["fields"]) == (
        "permission_denied",
        "no",
        {"alternative": "BINANCE:X"},
    )


GOOD = json.dumps(quote({"lp": 2.5}))
BROKEN = GOOD.replace("}", "", 1)


@pytest.mark.parametrize(
    "raw",
    [
        f"~m~{len(BROKEN)}~m~{BROKEN}~m~{len(GOOD)}~m~{GOOD}",
        f"~m~{len(GOOD) - 7}~m~{GOOD}~m~{len(GOOD)}~m~{GOOD}",
        f"~m~{len(GOOD) + 7}~m~{GOOD}~m~{len(GOOD)}~m~{GOOD}",
        f"~m~{len(GOOD) + 99999}~m~{GOOD}~m~{len(GOOD)}~m~{GOOD}",
        f"~m~{len(BROKEN) + len(GOOD) + len(str(len(GOOD))) + 6}~m~{BROKEN}~m~{len(GOOD)}~m~{GOOD}",
        f"rubbish~m~x~m~{GOOD}~m~{len(GOOD)}~m~{GOOD}",
    ],
    ids=["broken JSON", "too short", "too long", "beyond the end", "swallows the next", "no head"],
)
def test_a_good_part_after_a_broken_one_is_told(probed: Probed, raw: str) -> None:
    line = probed.open().connect()
    line.say(quote({"volume": 7}))
    probed.wait_for("frames")
    line.say_raw(raw)
    frames = probed.frames_after(1)
    assert frames[-1]["fields"] == {"lp": 2.5}
    assert raw.startswith("rubbish") or frames[0] == {"name": None, "fields": {}}, "and that there was a broken one"


def test_parts_that_are_merged_come_after_the_broken_ones_between_them(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 1.5}), {"m": "qsd", "p": ["qs_full", {"s": "ok", "v": {}}]}, quote({"volume": 7}))
    frames = probed.frames_after()
    assert [(frame["name"], frame["fields"]) for frame in frames] == [(None, {}), (SYMBOL, {"lp": 1.5, "volume": 7})]


@pytest.mark.parametrize(
    "told",
    [
        {"m": "qsd", "p": ["qs_full", {"s": "ok", "v": {"lp": 3.5}}]},
        {"m": "qsd", "p": ["qs_full", {"n": 7, "s": "ok", "v": {"lp": 3.5}}]},
        {"m": "qsd", "p": ["qs_full", {"n": SYMBOL, "s": "ok", "v": 3.5}]},
        {"m": "qsd", "p": ["qs_full", {"n": SYMBOL, "s": "ok"}]},
        {"m": "qsd", "p": ["qs_full", None]},
        {"m": "qsd", "p": ["qs_full"]},
    ],
)
def test_a_frame_that_cannot_be_read_is_told_as_one_and_proves_nothing(probed: Probed, told: Message) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 1.5}))
    heard = probed.wait_for("frames")["at"]
    line.say(told)
    (frame,) = probed.frames_after(1)
    assert (frame["session"], frame["name"]) == ("qs_full", None)
    assert probed.pulse()["sockets"][0]["heard"] <= heard
    line.say({**told, "p": ["qs_of_others", *told["p"][1:]]})
    if told["p"][1:] != [{"n": SYMBOL, "s": "ok", "v": 3.5}] and told["p"][1:] != [{"n": SYMBOL, "s": "ok"}]:
        assert len(probed.frames_after(1)) == 1, "another session's need not be ours"


# --- what becomes of sockets and sessions -----------------------------------------------------------------------------


def test_what_the_page_orders_of_its_symbol_is_told(probed: Probed) -> None:
    line = probed.open().connect()
    probed.order("set_auth_token", "unauthorized_user_token")
    probed.order("quote_create_session", "qs_full")
    probed.order("quote_hibernate_all", "qs_full")
    probed.order("quote_add_symbols", "qs_full", "BINANCE:ETHUSD", SYMBOL, SPEC, {"flags": ["force_permission"]})
    probed.order("quote_fast_symbols", "qs_full", SYMBOL, "BINANCE:ETHUSD")
    probed.order("quote_fast_symbols", "qs_full", "BINANCE:ETHUSD")
    probed.order("quote_remove_symbols", "qs_full", SPEC)
    probed.order("quote_add_symbols", "qs_menu", "BINANCE:ETHUSD")
    probed.order("quote_fast_symbols", "qs_menu", "BINANCE:ETHUSD")
    probed.order("quote_delete_session", "qs_menu")
    probed.order("quote_delete_session", "qs_full")
    probed.wait_for("session", lambda told: told["event"] == "quote_delete_session")
    assert [(told["event"], told["session"], told["names"]) for told in probed.told("session")] == [
        ("quote_create_session", "qs_full", []),
        ("quote_hibernate_all", "qs_full", []),
        ("quote_add_symbols", "qs_full", [SYMBOL, SPEC]),
        ("quote_fast_symbols", "qs_full", [SYMBOL]),
        ("quote_fast_symbols", "qs_full", []),
        ("quote_remove_symbols", "qs_full", [SPEC]),
        ("quote_delete_session", "qs_full", []),
    ]
    wait_until(lambda: len(line.heard) == 11, what="all of it has reached the server as well")


def test_how_the_server_ends_a_session_is_told(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 1.5}))
    line.say({"m": "critical_error", "p": ["qs_other", "invalid_parameters"]})
    line.say({"m": "critical_error", "p": ["qs_full", "invalid_parameters"]})
    line.say({"m": "protocol_error", "p": ["wrong data"]})
    probed.wait_for("session", lambda told: told["event"] == "protocol_error")
    assert [told["event"] for told in probed.told("session")] == ["critical_error", "protocol_error"]


def beats(pulse: dict[str, Any]) -> int:
    """Of all sockets; a pulse may come before the first one is heard."""
    return sum(len(socket["beats"]) for socket in pulse["sockets"])


@with_pulse(SILENCE_S)
def test_what_speaks_after_a_silence_is_told_at_once(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 1.5}))
    heard = probed.wait_for("frames")["at"]
    for count in (1, 2, 3):
        silence_ends = heard + SILENCE_S * 1000 + 100 * count
        wait_until(lambda silence_ends=silence_ends: probed.now() > silence_ends)  # type: ignore[misc]
        line.say(f"~h~{count}")
        pulse = probed.wait_for("pulse", lambda told, count=count: beats(told) == count)  # type: ignore[misc]
        heard = pulse["sockets"][0]["heard"]
        assert pulse["at"] - heard < 100, "not with the next of the regular ones"
        assert 0 <= heard - pulse["sockets"][0]["beats"][-1] < 100


def test_a_page_that_was_held_up_says_so_until_its_timers_are_on_time_again(probed: Probed) -> None:
    line = probed.open().connect()
    probed.wait_for("pulse", lambda pulse: "late" not in pulse)
    line.say(quote({"lp": 1.25}))
    assert "late" not in probed.wait_for("frames")
    begun = len(probed.messages)
    hold_up = "sockets[0].send('busy'); for (const end = Date.now() + 1500; Date.now() < end; );"
    probed.run(f"() => {{ setTimeout(() => {{ {hold_up} }}) }}")
    wait_until(lambda: line.heard == ["busy"])
    line.say(quote({"lp": 2.5}))
    late = probed.wait_for("frames", since=begun)
    assert 700 < late["late"] < 10_000
    probed.wait_for("pulse", lambda pulse: "late" not in pulse, since=probed.messages.index(late))
    line.say(quote({"lp": 3.75}))
    assert "late" not in probed.wait_for("frames", lambda told: told["frames"][0]["fields"] == {"lp": 3.75})


def test_a_socket_that_closes_is_told_at_once_and_then_forgotten(probed: Probed) -> None:
    first, second = probed.open().connect(), probed.connect()
    first.say(quote({"lp": 1.5}))
    probed.wait_for("frames")  # the sockets are told in the order in which they were first heard
    second.say(quote({"lp": 1.5}, session="qs_simple"))
    probed.wait_for("pulse", lambda told: len(told["sockets"]) == 2)
    first.close()
    pulse = probed.wait_for("pulse", lambda told: not all(socket["open"] for socket in told["sockets"]))
    assert [socket["open"] for socket in pulse["sockets"]] == [False, True]
    assert [socket["open"] for socket in probed.pulse()["sockets"]] == [True]


def test_sockets_of_others_are_not_told(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 5}, name="BINANCE:ETHUSD"), "~h~1", {"redirect": "prodata.tradingview.com"}, "text")
    assert probed.frames_after() == []
    assert probed.pulse()["sockets"] == []


def test_the_page_cannot_tell_that_its_sockets_are_heard(probed: Probed) -> None:
    probed.open().connect()
    look = """(window) => {
        const { WebSocket } = window;
        const send = Object.getOwnPropertyDescriptor(WebSocket.prototype, "send");
        return [WebSocket.name, WebSocket.length, Object.keys(WebSocket), send.value.name, send.value.length,
            send.enumerable, send.writable, send.configurable, Object.getOwnPropertyNames(WebSocket.prototype),
            typeof send.value.prototype, WebSocket.OPEN];
    }"""
    pure = """() => { const frame = document.createElement("iframe"); document.body.append(frame);
        window.pure = frame.contentWindow; }"""
    probed.run(pure)
    assert probed.run(f"() => ({look})(window)") == probed.run(f"() => ({look})(pure)")
    assert probed.run("() => [Object.getOwnPropertyNames(sockets[0]), sockets[0] instanceof WebSocket]") == [[], True]
    assert probed.run("() => sockets[0].send === WebSocket.prototype.send && sockets[0].constructor === WebSocket")
    for wrong in ("WebSocket('ws://127.0.0.1')", "new WebSocket('ws://127.0.0.1:9').send('x')", "sockets[0].send()"):
        error = f"(sockets, WebSocket) => {{ try {{ {wrong} }} catch (error) {{ return String(error) }} }}"
        ours = probed.run(f"() => ({error})(sockets, WebSocket)")
        assert ours == probed.run(f"() => ({error})([new pure.WebSocket('ws://127.0.0.1:9')], pure.WebSocket)") or (
            "sockets" in wrong and "1 argument required" in ours
        )


# --- the price element ------------------------------------------------------------------------------------------------

PRICE = ".js-symbol-last"


def header(symbol: str | None, price: str, classes: str = "") -> str:
    named = "" if symbol is None else f'data-symbol="{symbol}"'
    return f'<div class="js-symbol-header-ticker {classes}" {named}><b class="js-symbol-last">{price}</b></div>'


def root(*headers: str) -> str:
    return f'<div class="js-symbol-page-header-root">{"".join(headers)}</div>'


OTHER = "CME:BTC1!"
CARD = f'<article data-symbol="{OTHER}"><b class="js-symbol-last">3.77</b></article>'


@pytest.mark.parametrize(
    ("body", "text", "chosen", "count"),
    [
        (root(header(SYMBOL, "1")), "1", 1, 1),
        (root(header(OTHER, "4,321.09"), header(SYMBOL, "1")), "1", 2, 2),
        (root(header(SYMBOL, "4,321.09", "i-hidden"), header(SYMBOL, "1")), "1", 2, 2),
        (root(header(SYMBOL, "1"), header(SYMBOL, "2")), "1", 1, 2),
        (root(header(None, "1"), header(None, "2")), "1", 1, 2),
        (root(header(None, "1", "i-hidden"), header(None, "2")), "2", 2, 2),
        (root(header(None, "1"), header(SYMBOL, "2")), "2", 2, 2),
        (root(header(None, "1"), header(OTHER, "2")), None, 0, 2),
        (root(header(OTHER, "1")), None, 0, 1),
        (root(header(SYMBOL, "1", "i-hidden")), None, 0, 1),
        (root(header(SYMBOL, "1", "i-hidden"), header(OTHER, "2")), None, 0, 2),
        (header(OTHER, "2") + root(header(SYMBOL, "1")), "1", 1, 1),
        (CARD + root(header(SYMBOL, "1")), "1", 1, 1),
        (CARD + root('<b class="js-symbol-last">1</b>'), "1", 0, 0),
        (CARD + '<b data-qa-id="symbol-last-value">1</b>', "1", 0, 0),
        (2 * '<b data-qa-id="symbol-last-value">1</b>', None, 0, 0),
        (f'<p data-symbol="{OTHER}"><b data-qa-id="symbol-last-value">1</b></p>', None, 0, 0),
        ('<p class="i-hidden"><b data-qa-id="symbol-last-value">1</b></p>', None, 0, 0),
        (CARD, None, 0, 0),
    ],
)
def test_of_several_headers_the_symbols_own_is_read(
    probed: Probed, body: str, text: str | None, chosen: int, count: int
) -> None:
    pulse = probed.open(body).pulse()
    assert (pulse["element"] or {"text": None})["text"] == text
    assert (pulse["header"]["chosen"], pulse["header"]["count"]) == (chosen, count)


def test_the_header_is_chosen_anew_when_one_is_hidden_or_becomes_anothers(probed: Probed) -> None:
    """A hidden header's 4,321.09 was live for 10 s."""
    probed.open(root(header(SYMBOL, "4,321.09", "first"), header(SYMBOL, "1", "second")))
    assert probed.pulse()["element"]["text"] == "4,321.09"
    for change, text in [
        ("querySelector('.first').classList.add('i-hidden')", "1"),
        ("querySelector('.first').classList.remove('i-hidden')", "4,321.09"),
        (f"querySelector('.first').dataset.symbol = '{OTHER}'", "1"),
        (f"querySelector('.second').dataset.symbol = '{OTHER}'", None),
        (f"querySelector('.second').dataset.symbol = '{SYMBOL}'", "1"),
    ]:
        since = len(probed.messages)
        moment = probed.run(f"() => {{ document.{change}; return performance.timeOrigin + performance.now() }}")
        if text is not None:
            told = probed.wait_for("price", since=since)
            assert (told["element"]["text"], told["at"] - moment < 100) == (text, True)
        else:
            probed.wait_for("pulse", lambda told: told["element"] is None, since=since)


def test_a_text_that_comes_with_another_symbol_is_never_told(probed: Probed) -> None:
    """The price of another symbol was live until the header was looked at again."""
    probed.open(root(header(SYMBOL, "1", "own"))).pulse()
    since = len(probed.messages)
    probed.run(
        f"() => {{ document.querySelector('.own').dataset.symbol = '{OTHER}';"
        " document.querySelector('.js-symbol-last').textContent = '2' }"
    )
    probed.wait_for("pulse", lambda told: told["element"] is None, since=since)
    assert probed.told("price") == []
    probed.open(root(header(None, "1")))
    probed.run(
        f"() => {{ initData.symbolInfo.resolved_symbol = '{OTHER}';"
        " document.querySelector('.js-symbol-last').textContent = '2' }"
    )
    price = probed.wait_for("price")
    (before,) = [told for told in probed.told("page") if told["resolved"] == OTHER]
    assert price["element"]["text"] == "2"
    assert probed.messages.index(before) < probed.messages.index(price), "Python knows first"


def test_what_the_document_came_with_is_no_sign_of_life(probed: Probed) -> None:
    probed.open(HEADER.replace('value"></span>', 'value">64,001.50</span>'))
    element = probed.pulse()["element"]
    assert (element["text"], element["changed"]) == ("64,001.50", 0)
    assert probed.told("price") == [], "it is no news either"
    probed.show(PRICE, "64,002.50")
    element = probed.wait_for("price")["element"]
    assert element["changed"] == element["painted"] > 0


def test_an_element_that_scripts_fill_has_changed(probed: Probed) -> None:
    probed.open()
    probed.show(PRICE, "64,001.50")
    element = probed.wait_for("price")["element"]
    assert (element["text"], element["changed"] > 0) == ("64,001.50", True)


@with_pulse(SILENCE_S)
def test_a_change_of_what_stands_beside_the_price_is_a_sign_of_life(probed: Probed) -> None:
    probed.open()
    probed.show(PRICE, "64,001.50")
    painted = changed = probed.wait_for("price")["element"]["painted"]
    for part in (".js-symbol-change-pt", ".js-symbol-lp-time", ".js-symbol-change-direction > span"):
        wait_until(lambda: probed.now() > changed + SILENCE_S * 1000 + 50)  # noqa: B023
        moment = probed.now()
        probed.show(part, "+7")
        pulse = probed.wait_for("pulse", lambda told, moment=moment: told["element"]["changed"] > moment)  # type: ignore[misc]
        changed = pulse["element"]["changed"]
        assert pulse["at"] - changed < 100, f"{part} is told at once"
        assert pulse["element"]["painted"] == painted
        probed.run(f"() => {{ const node = document.querySelector('{part}'); node.textContent = node.textContent }}")
        assert probed.pulse()["element"]["changed"] == changed, f"an equal text of {part} is no change"


def test_the_change_beside_the_price_is_told_with_it(probed: Probed) -> None:
    probed.open()
    probed.run("""() => {
        document.querySelector(".js-symbol-change-direction > span").textContent = "\u22121,234.50";
        document.querySelector(".js-symbol-change-pt").textContent = "\u22121.89%";
        document.querySelector(".js-symbol-last").textContent = "64,001.50";
    }""")
    element = probed.wait_for("price")["element"]
    assert (element["change"], element["percent"]) == ("\u22121,234.50", "\u22121.89%")
    probed.run("() => document.querySelector('.js-symbol-change-direction > span').remove()")
    assert probed.pulse()["element"]["change"] == "", "a percentage is no change"


def test_a_repaint_that_a_frame_explains_is_not_told(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 64001.5}))
    probed.wait_for("frames")
    probed.show(PRICE, "64,001.50")
    line.say(quote({"lp": 64002.5}))
    probed.frames_after()
    probed.show(PRICE, "64,001.5")
    probed.show(PRICE, "64,003.00")
    told = probed.wait_for("price")
    assert told["element"]["text"] == "64,003.00"


@with_pulse(NO_PULSE_S)
def test_a_text_that_stands_is_told_as_soon_as_it_can_be_a_disagreement(probed: Probed) -> None:
    line = probed.open().connect()
    line.say(quote({"lp": 64001.5}))
    probed.wait_for("frames")
    probed.show(PRICE, "64,001.50")
    pulse = probed.wait_for("pulse", lambda told: told["element"] and told["at"] - told["element"]["painted"] > 2000)
    assert pulse["at"] - pulse["element"]["painted"] < 3000


def test_the_marks_of_the_header_are_told_unless_they_are_hidden(probed: Probed) -> None:
    status = '<i class="tv-market-status tv-market-status--delisted js-symbol-session-status"></i>'
    probed.open(HEADER.replace('<div class="js-symbol-change', f'{status}<div class="js-symbol-change'))
    assert (probed.pulse()["header"].get("mode", ""), probed.pulse()["header"]["market"]) == ("", "delisted")
    probed.run("() => { document.querySelector('.js-data-mode').classList.remove('i-hidden') }")
    assert probed.pulse()["header"]["mode"] == "connecting"


def test_a_price_in_several_parts_is_told_whole(probed: Probed) -> None:
    probed.open()
    probed.run("""() => { document.querySelector(".js-symbol-last").innerHTML =
        '4,45<span class="">6.8</span><sup>0</sup>'; }""")
    assert probed.wait_for("price")["element"]["text"] == "4,456.80"


# --- the title, and the page's facts ----------------------------------------------------------------------------------


def test_only_a_title_that_changes_is_told(probed: Probed) -> None:
    probed.open(body="", head="<title>BTCUSD 64,001.50 ▲ +0.79%</title>")
    assert probed.pulse()["title"] is None
    probed.run("() => { document.title = 'BTCUSD 64,002.50 ▲ +0.79%' }")
    told = probed.wait_for("title")["title"]
    assert (told["text"], told["changed"] > 0) == ("BTCUSD 64,002.50 ▲ +0.79%", True)
    assert probed.pulse()["title"] == told


def test_the_facts_are_told_with_what_sort_of_symbol_it_is(probed: Probed) -> None:
    told = probed.open().wait_for("page")
    assert (told["resolved"], told["typespecs"], told["currency"]) == (SYMBOL, ["crypto"], "USD")


def test_a_page_without_facts_is_told_too(probed: Probed) -> None:
    """The probe must not stumble over what isn't there."""
    probed.open()
    probed.site.html = "<!doctype html><title>Just a moment...</title>"
    probed.page.reload()
    assert probed.wait_for("page", lambda told: told["title"] == "Just a moment...")["kind"] == "page"
    assert probed.pulse()["element"] is None
