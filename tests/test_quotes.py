"""The shared words: what a ticker may be, how a price is read and written exactly, and a quote's JSON object.

Pure functions, so tables of examples, and properties where no table would be long enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from running import PROJECT

from quotes import (
    MAX_PRICE_DIGITS,
    DidYouMean,
    InvalidTicker,
    Quote,
    SeveralTickers,
    Source,
    State,
    Ticker,
    UnreadablePrice,
    parse_price,
    parse_ticker,
    parse_tickers,
    split_ticker,
    wire_fields,
)
from tradingview.site import page_url

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

REASONS = {  # refusals are counted by these, so there are no others
    "no price yet",
    "negative",
    "rounded to a unit",
    "more than one number",
    "not a number",
    "too many digits",
    "zero",
}

# What price texts are made of, right ones and nearly right ones.
PRICE_LIKE = st.text("0123456789.,,,-+eEKMBT \u00a0\u2006\u202f\u2212\u200e\u202a\u202c—$٣", max_size=30)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def price_unless_refused(read: Callable[..., str], *arguments: object) -> str | None:
    """What `read` gives; None when it refuses, for one of the fixed reasons."""
    try:
        return read(*arguments)
    except UnreadablePrice as refused:
        reason = refused.reason
    assert reason in REASONS
    return None


# --- tickers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "ticker"),
    [
        ("BTCUSD", "BTCUSD"),
        ("  btcusd\n", "BTCUSD"),
        ("1000SATSUSDT", "1000SATSUSDT"),
        ("BTCUSDT.P", "BTCUSDT.P"),
        ("ZECUSDT.3L", "ZECUSDT.3L"),
        ("TXF1!", "TXF1!"),
        ("a_b", "A_B"),
        ("X", "X"),
        ("X" * 32, "X" * 32),
        ("BINANCE:BTCUSD", "BTCUSD"),
        ("binance:btcusd", "BTCUSD"),
        ("coinbase:btcusd", "COINBASE:BTCUSD"),
        ("E" * 32 + ":" + "X" * 32, "E" * 32 + ":" + "X" * 32),
        ("BTC/USDT", "BTCUSDT"),
        ("BTC-USD", "BTCUSD"),
        ("BTC USDT", "BTCUSDT"),
        ("BTC / USDT", "BTCUSDT"),
        ("BTC\u2011USDT", "BTCUSDT"),  # a hyphen that doesn't break
        ("BTC/USDT.P", "BTCUSDT.P"),
        ("ETH/BTC", "ETHBTC"),
        ("COINBASE:BTC-USD", "COINBASE:BTCUSD"),
        ("COINBASE-BTC-USD", "COINBASE:BTCUSD"),
        ("coinbase btc usd", "COINBASE:BTCUSD"),
        ("BINANCE-BTCUSDT", "BTCUSDT"),
        ("DYDX-USDT", "DYDXUSDT"),
        ("$btcusd", "BTCUSD"),
        ("\u200bbtc\u200c\u2060usd\ufeff\u202e", "BTCUSD"),
        ("ＢＴＣＵＳＤ", "BTCUSD"),
        ("NSE:M&M", "NSE:M&M"),
        ("NYSE:NEE/PW", "NYSE:NEE/PW"),
        ("币安人生usdt", "币安人生USDT"),
        ("БTC", "БTC"),  # Cyrillic: TradingView says whether there is such a symbol
        ("https://www.tradingview.com/symbols/BTCUSD/?exchange=BINANCE", "BTCUSD"),
        ("https://www.tradingview.com/symbols/BTCUSD/technicals/?exchange=COINBASE#x", "COINBASE:BTCUSD"),
        ("tradingview.com/symbols/BINANCE-BTCUSDT/", "BTCUSDT"),
        ("https://de.tradingview.com/symbols/NYSE-NEE%2FPW/", "NYSE:NEE/PW"),
        ("https://in.tradingview.com/symbols/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT/", "币安人生USDT"),
        ("https://www.tradingview.com/chart/?symbol=BINANCE%3ABTCUSDT", "BTCUSDT"),
        ("https://www.tradingview.com/chart/AbCdEfGh/?symbol=COINBASE%3abtcusd", "COINBASE:BTCUSD"),
    ],
)
def test_a_ticker_is_made_canonical(typed: str, ticker: str) -> None:
    assert parse_ticker(typed) == ticker


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "   ",
        "X" * 33,
        "E" * 33 + ":BTCUSD",
        "BTC-PERP",
        "NEE/PW",  # without its exchange
        "/USD",
        "NYSE:NEE/",
        "NYSE:../PW",
        "NYSE:BRK-B",
        "https://www.tradingview.com/",
        "https://www.tradingview.com/symbols/",
        "https://www.tradingview.com/chart/AbCdEfGh/",
        "https://tradingview.com.example.com/symbols/BTCUSD/",
        "https://www.tradingview.com/?symbol=tradingview.com:80",
        "B" * 2_001,
        "../etc/passwd",
        ".",
        "..",
        "BINANCE:..",
        "..:BTCUSD",
        ":",
        ":BTCUSD",
        "BINANCE:",
        "BINANCE::BTCUSD",
        "A:B:C",
        "BTC%2FUSD",
        "BTCUSD?x=1",
        "BTCUSD#",
        "BTC\x00",
        "<b>",
        "ß",  # upper-cased, it would be SS
        "ıcp",  # …ICP
        "\ud800",
        None,
        7,
        True,
        b"BTCUSD",
        ["BTCUSD"],
        {"ticker": "BTCUSD"},
    ],
)
def test_anything_else_is_refused_with_what_to_do_instead(typed: object) -> None:
    with pytest.raises(InvalidTicker, match="BTCUSD") as refused:
        parse_ticker(typed)
    assert refused.value.code == "invalid_ticker"


@pytest.mark.parametrize(
    ("typed", "proposals"),
    [
        ("btc", ["BTCUSD", "BTCUSDT"]),
        ("$BTC", ["BTCUSD", "BTCUSDT"]),
        ("BINANCE:BTC", ["BTCUSD", "BTCUSDT"]),
        ("Bitcoin", ["BTCUSD", "BTCUSDT"]),
        ("Bitcoin Cash", ["BCHUSD", "BCHUSDT"]),
        ("ſol", ["SOLUSD", "SOLUSDT"]),
        ("Monero", ["KRAKEN:XMRUSD", "KUCOIN:XMRUSDT"]),  # BINANCE doesn't have it
        ("MATIC", ["POLUSD", "POLUSDT"]),  # renamed
        ("币安人生", ["币安人生USDT"]),
    ],
)
def test_a_coin_gets_proposals(typed: str, proposals: list[str]) -> None:
    with pytest.raises(DidYouMean, match=proposals[0]) as refused:
        parse_ticker(typed)
    assert refused.value.code == "did_you_mean"
    assert refused.value.proposals == proposals


@pytest.mark.parametrize(
    ("typed", "texts", "tickers"),
    [
        ("BTCUSD ETHUSD", ["BTCUSD", "ETHUSD"], ["BTCUSD", "ETHUSD"]),
        ("btcusd, eth/usdt;kraken sol usd\n$XRPUSD,", ["BTCUSD", "ETH/USDT", "KRAKEN:SOL/USD", "XRPUSD"], None),
        ("BTC USDT ETH USDT", ["BTC/USDT", "ETH/USDT"], ["BTCUSDT", "ETHUSDT"]),
        ("BTCUSD ETH", ["BTCUSD", "ETH"], DidYouMean),  # a coin that others are priced in is a ticker after a space
    ],
)
def test_several_tickers_are_told_apart(typed: str, texts: list[str], tickers: list[str] | type | None) -> None:
    with pytest.raises(SeveralTickers) as refused:
        parse_ticker(typed)
    assert refused.value.proposals == texts
    if isinstance(tickers, type):
        with pytest.raises(tickers):
            parse_tickers(typed)
    else:
        assert parse_tickers(typed) == (tickers or [parse_ticker(text) for text in texts])


@pytest.mark.parametrize(
    ("unknown", "proposals"),
    [
        ("MATICUSDT", ["POLUSDT", "POLUSD"]),
        ("COINBASE:MATICUSD", ["COINBASE:POLUSD", "POLUSD", "POLUSDT"]),
        ("XMRUSDT", ["KRAKEN:XMRUSD", "KUCOIN:XMRUSDT"]),
        ("COINBASE:BTC", ["COINBASE:BTCUSD", "BTCUSD", "BTCUSDT"]),
        ("SOLUSDD", ["SOLUSD", "SOLUSDT", "POLUSD"]),
        ("AAPL", []),
    ],
)
def test_an_unknown_symbol_gets_proposals(unknown: str, proposals: list[str]) -> None:
    ticker = parse_ticker(unknown)
    assert Quote(ticker, State.NOT_FOUND).proposals == proposals
    assert Quote(ticker, State.LIVE).proposals == []
    assert Quote(ticker, State.ERROR, alternative="BINANCE:POLUSD").proposals == ["POLUSD"]
    assert Quote(ticker, State.ERROR, alternative="javascript:alert(1)").proposals == []


def test_the_facts_about_coins_agree() -> None:
    facts = json.loads((PROJECT / "static" / "coins.json").read_text(encoding="utf-8"))
    codes = {coin["code"] for coin in facts["coins"]}
    assert len(facts["coins"]) == len(codes) == 200
    assert codes.isdisjoint(facts["exchanges"]), "X-USDT would be a ticker at the exchange X"
    assert codes.isdisjoint(facts["renamed"])
    for coin in facts["coins"]:
        assert [parse_ticker(ticker) for ticker in coin["tickers"]] == coin["tickers"]
        for way in (coin["code"], coin["name"]):
            with pytest.raises(DidYouMean) as refused:
                parse_ticker(way)
            assert refused.value.proposals == coin["tickers"], way


# What people paste, and what nearly is that.
PASTED = st.lists(
    st.sampled_from(
        ["BTC", "usdt", "币安人生", "NYSE", "BINANCE", "tradingview.com", "https://", "/symbols/", "?symbol=", "%2F"]
    )
    | st.sampled_from([*"-/: .&$_,;\n\u200b\u202eßıǆ!"])
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@unhurried
@given(PASTED | st.text(max_size=70))
def test_whatever_is_pasted_is_a_ticker_or_refused(typed: str) -> None:
    try:
        ticker = parse_ticker(typed)
    except InvalidTicker as refused:
        json.dumps([str(refused), refused.proposals], ensure_ascii=False).encode()
        return
    assert parse_ticker(ticker) == ticker
    assert parse_tickers(typed) == [ticker]
    assert re.fullmatch(r"([\w.!&]{1,32}:)?[\w.!&/]{1,32}", ticker)
    assert ticker == ticker.upper()
    assert not {"", ".", ".."} & set(re.split("[:/]", ticker))
    assert unquote(page_url("https://www.tradingview.com", ticker)).count("?exchange=") == 1


def test_a_ticker_splits_into_exchange_and_symbol() -> None:
    assert split_ticker(parse_ticker("btcusd")) == ("BINANCE", "BTCUSD")
    assert split_ticker(parse_ticker("coinbase:btcusd")) == ("COINBASE", "BTCUSD")


# --- prices from text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("45,554", "45554"),
        ("5,042.740", "5042.740"),
        ("1,234,567.89", "1234567.89"),
        ("1234567.89", "1234567.89"),
        ("999", "999"),
        ("0.00000812", "0.00000812"),
        ("0.10", "0.10"),
        ("7", "7"),
        ("  64,001.50\n", "64001.50"),
        ("\u00a064,001.50\u202f", "64001.50"),
        ("\u202a64,001.50\u202c", "64001.50"),
        ("\u200e1.5\u200f", "1.5"),
        ("1,10,910.19", "110910.19"),  # an Indian page
        ("1,23,456", "123456"),
        ("12,34,567", "1234567"),
        ("1,23,45,67,890.5", "1234567890.5"),
        ("12.340e-9", "0.000000012340"),  # TradingView's form of many decimals
        ("1.2E-7", "0.00000012"),
        ("8.12e-06", "0.00000812"),
        ("1e5", "100000"),
        ("1.5e+3", "1500"),
        ("12345678901234567890", "12345678901234567890"),
        ("0.0000000000000000001", "0.0000000000000000001"),
    ],
)
def test_a_price_keeps_every_digit_the_page_shows(text: str, price: str) -> None:
    assert parse_price(text) == price


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no price yet"),
        (" \n", "no price yet"),
        ("—", "no price yet"),
        ("---", "no price yet"),
        ("–", "no price yet"),
        ("-5.00", "negative"),
        ("\u22125.00", "negative"),
        ("\u202a\u22121,234.5\u202c", "negative"),
        ("3.77\u2006T", "rounded to a unit"),
        ("3.77 T", "rounded to a unit"),
        ("1.2K", "rounded to a unit"),
        ("45M", "rounded to a unit"),
        ("1,234.5 B", "rounded to a unit"),
        ("64,001.50 64,002.00", "more than one number"),
        ("64,001.50 (+0.79%)", "more than one number"),
        ("64,001.50\u20130.79", "more than one number"),
        ("5 042,74", "more than one number"),  # a French page
        ("5\u202f042,74", "more than one number"),
        ("5\u00a0042,74", "more than one number"),
        ("1.234,5", "not a number"),  # a German page
        ("1.234.567", "not a number"),
        ("1,23,45", "not a number"),
        ("1,234,56,789", "not a number"),  # neither English nor Indian
        ("12,34,567,89", "not a number"),
        ("123,45,678", "not a number"),
        ("01,23,456", "not a number"),
        ("1,2345", "not a number"),
        ("1234,567", "not a number"),
        (",123", "not a number"),
        ("12,", "not a number"),
        ("1.", "not a number"),
        (".5", "not a number"),
        ("1..5", "not a number"),
        ("007", "not a number"),
        ("0,123", "not a number"),
        ("+5", "not a number"),
        ("$5", "not a number"),
        ("5 USD", "not a number"),
        ("5%", "not a number"),
        ("(5)", "not a number"),
        ("-8.12e-06", "negative"),
        ("8.12e-006", "more than one number"),
        ("8.12e", "not a number"),
        ("e-06", "not a number"),
        ("8,120e-06", "more than one number"),
        ("8.12e-0.6", "more than one number"),
        ("1e21", "too many digits"),
        ("1e-99", "too many digits"),
        ("0e5", "zero"),
        ("٣", "not a number"),
        ("１２", "not a number"),
        ("5²", "not a number"),
        ("NaN", "not a number"),
        ("Infinity", "not a number"),
        ("null", "not a number"),
        ("0", "zero"),
        ("0.00", "zero"),
        ("123456789012345678901", "too many digits"),
        ("1.00000000000000000000", "too many digits"),
        ("0." + "0" * 300 + "1", "too many digits"),
    ],
)
def test_what_is_not_certainly_one_positive_price_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(UnreadablePrice) as refused:
        parse_price(text)
    assert refused.value.reason == reason
    assert refused.value.code == "unreadable_price"
    assert reason in REASONS


@unhurried
@given(st.decimals(min_value=0, max_value=10**14, places=None, allow_nan=False, allow_infinity=False))
def test_any_decimal_written_for_the_us_is_read_digit_by_digit(number: Decimal) -> None:
    plain, grouped = f"{number:f}", f"{number:,f}"
    assume(number > 0)
    assume(len(plain.replace(".", "")) <= MAX_PRICE_DIGITS)
    assert parse_price(grouped) == plain
    assert parse_price(plain) == plain


@unhurried
@given(st.integers(0, 10**12 - 1), st.text("0123456789", max_size=8))
def test_trailing_zeros_survive(whole: int, fraction: str) -> None:
    assume(whole > 0 or fraction.strip("0"))
    tail = f".{fraction}" if fraction else ""
    assert parse_price(f"{whole:,}{tail}") == f"{whole}{tail}"


@unhurried
@given(st.text() | PRICE_LIKE)
@example("1\u202a2")
@example("-—")
def test_any_text_is_refused_for_a_fixed_reason_or_is_a_price_whose_digits_stand_there(text: str) -> None:
    price = price_unless_refused(parse_price, text)
    if price is None:
        return
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", price)
    assert Decimal(price) > 0
    if "e" not in text.lower():
        assert price.replace(".", "") == "".join(re.findall("[0-9]", text))
    assert len(price.replace(".", "")) <= MAX_PRICE_DIGITS


# --- a quote on the wire ----------------------------------------------------------------------------------------------


def test_a_quote_has_exactly_the_wire_contracts_fields() -> None:
    quote = Quote(
        ticker=Ticker("SHIBUSDT"),
        state=State.STALE,
        price_text="0.00000812",
        change_percent=-1.25,
        timestamp=1_795_000_000_000,
        source=Source.SOCKET,
        source_time=1_794_999_999_000,
        received_at=1_795_000_000_002,
        change=-0.0000001,
        volume=1e9,
        high=9e-06,
        low=8e-06,
        open=8.2e-06,
        bid=8.11e-06,
        ask=8.13e-06,
        currency="USDT",
        exchange="BINANCE",
        description="Shiba Inu / TetherUS",
        calculated=True,
        simulated=True,
        reason="the page is frozen",
        next_try_at=1_795_000_060_000,
        alternative="BINANCE:SHIBUSD",  # stays between Pluto's own processes, as the next two
        proven_until=1e9,
        position=7,
    )
    assert {getattr(quote, field.name) for field in fields(quote)}.isdisjoint({None}), "a field the test left out"
    assert wire_fields(quote, 1042) == {
        "ticker": "SHIBUSDT",
        "price": 8.12e-06,
        "changePercent": -1.25,
        "timestamp": 1_795_000_000_000,
        "priceText": "0.00000812",
        "state": "stale",
        "source": "socket",
        "sourceTime": 1_794_999_999_000,
        "receivedAt": 1_795_000_000_002,
        "sequence": 1042,
        "change": -0.0000001,
        "volume": 1e9,
        "high": 9e-06,
        "low": 8e-06,
        "open": 8.2e-06,
        "bid": 8.11e-06,
        "ask": 8.13e-06,
        "currency": "USDT",
        "exchange": "BINANCE",
        "description": "Shiba Inu / TetherUS",
        "calculated": True,
        "simulated": True,
        "reason": "the page is frozen",
        "nextTryAt": 1_795_000_060_000,
    }


def test_what_is_unknown_is_left_out_and_what_is_false_is_said() -> None:
    wire = wire_fields(Quote(Ticker("BTCUSD"), State.STARTING), 0)
    assert wire == {"ticker": "BTCUSD", "state": "starting", "calculated": False, "simulated": False, "sequence": 0}


def test_states_and_sources_are_plain_words_in_json() -> None:
    assert (
        json.dumps([*State]) == '["starting", "snapshot", "live", "stale", "closed", "not_found", "blocked", "error"]'
    )
    assert json.dumps([*Source]) == '["socket", "dom", "script", "title"]'


@pytest.mark.parametrize("state", State)
def test_only_a_live_price_or_the_last_one_of_a_closed_market_is_current(state: State) -> None:
    is_current = Quote(Ticker("BTCUSD"), state, price_text="1.5").is_current
    assert is_current == (state in ("live", "closed"))
    assert not Quote(Ticker("BTCUSD"), state).is_current
