"""The symbols of this TradingView: coins, a few stocks, and the names that pages and sockets use for them.

Owns: the table of symbols, and how names are read. Never does: move a price or make a page. Any thread may read it.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import parse_qs, unquote, urlsplit

from simulator.scale import Scale

EXCHANGES = ("BINANCE", "COINBASE", "BITSTAMP", "KRAKEN", "BYBIT", "OKX")  # of coins
CURRENCIES = {"USD": "U.S. Dollar", "USDT": "TetherUS", "USDC": "USD Coin", "EUR": "Euro", "INR": "Indian Rupee"}
CURRENCY_IDS = {"USDT": "XTVCUSDT", "USDC": "XTVCUSDC"}  # TradingView's ids; the id of a national currency is its code
RATES = {"USD": 1.0, "EUR": 0.92, "INR": 83.5, "XTVCUSDT": 1.0004, "XTVCUSDC": 0.9998}  # for one U.S. dollar
RENAMED = {"MATICUSD": "POLUSD", "MATICUSDT": "POLUSDT"}  # the page of the old name redirects to the new name's
REGULAR = "regular"

# Code, name, and start price. The price has as many decimals as the coin's quotes. The first ten are the "top 10".
COINS = """
BTC,Bitcoin,67012.45       ETH,Ethereum,2641.38       SOL,Solana,171.62          BNB,BNB,598.41
XRP,XRP,0.5423             ADA,Cardano,0.3647         DOGE,Dogecoin,0.15842      TRX,TRON,0.16215
AVAX,Avalanche,27.91       DOT,Polkadot,4.312         LINK,Chainlink,11.84       TON,Toncoin,5.127
LTC,Litecoin,70.53         BCH,Bitcoin Cash,361.7     ATOM,Cosmos,4.486          UNI,Uniswap,7.634
XLM,Stellar,0.09512        NEAR,NEAR Protocol,4.871   APT,Aptos,9.16             SUI,Sui,1.9832
ARB,Arbitrum,0.5614        OP,Optimism,1.672          FIL,Filecoin,3.718         HBAR,Hedera,0.05233
VET,VeChain,0.02264        ICP,Internet Computer,8.03 ETC,Ethereum Classic,18.94 XMR,Monero,158.2
ALGO,Algorand,0.1201       AAVE,Aave,148.37           MKR,Maker,1247.0           GRT,The Graph,0.1683
SAND,The Sandbox,0.2563    MANA,Decentraland,0.2901   AXS,Axie Infinity,4.83     THETA,Theta,1.246
EOS,EOS,0.4718             XTZ,Tezos,0.6732           FTM,Fantom,0.6918          RUNE,THORChain,5.274
INJ,Injective,20.61        SEI,Sei,0.4137             TIA,Celestia,5.382         STX,Stacks,1.714
IMX,Immutable,1.3521       LDO,Lido DAO,1.128         CRV,Curve DAO,0.2664       SNX,Synthetix,1.463
COMP,Compound,44.52        ZEC,Zcash,38.17            DASH,Dash,24.86            KAVA,Kava,0.3294
SHIB,Shiba Inu,0.00001742  PEPE,Pepe,0.00000812       BONK,Bonk,0.00002135       FLOKI,Floki,0.00013867
WIF,dogwifhat,2.346        JUP,Jupiter,0.8712         ENA,Ethena,0.3716          1000SATS,1000SATS,0.00021430
POL,Polygon Ecosystem Token,0.4512   币安人生,币安人生,0.1342
"""


class Unknown(Exception):
    """There is no such symbol, fault or file; the text says which."""


@dataclass(frozen=True)
class Coin:
    code: str
    name: str
    price: Decimal
    rank: int


def read_coins(table: str) -> dict[str, Coin]:
    rows = re.findall(r"(\w+),([^,]+),([\d.]+)", table)
    return {code: Coin(code, name, Decimal(price), rank) for rank, (code, name, price) in enumerate(rows, 1)}


COIN_TABLE = read_coins(COINS)
TICKER = re.compile(r"([^\W_a-z]+?)(USDT|USDC|USD|EUR)(\.P)?(_OI)?")


@dataclass(frozen=True, eq=False)
class Symbol:
    """There is one object per symbol, so equality is identity."""

    exchange: str
    ticker: str
    base: str
    base_name: str
    currency: str
    home: Decimal  # the price around which its market walks
    scale: Scale
    description: str
    currency_id: str = ""
    kind: str = "spot"
    typespecs: tuple[str, ...] = ("crypto",)
    session: str = "24x7"
    rank: int = 0

    @property
    def name(self) -> str:
        return f"{self.exchange}:{self.ticker}"

    @property
    def calculated(self) -> bool:
        """Whether TradingView computes the price: Binance trades nothing against the U.S. dollar."""
        return self.exchange == "BINANCE" and self.currency == "USD"

    @property
    def title(self) -> str:
        if self.currency != "USD" or not self.rank:
            return f"{self.ticker} Charts and Quotes — TradingView"
        top = ", a Top 10 Coin" if self.rank <= 10 else ""
        return f"{self.base} USD — {self.base_name} Price and Chart{top} — TradingView"

    def elsewhere(self) -> Symbol:
        """The same pair on another exchange; if there is none, another symbol."""
        try:
            return find_symbol(self.ticker, "KRAKEN" if self.exchange == "COINBASE" else "COINBASE")
        except Unknown:
            return find_symbol("BTCUSD", "BITSTAMP")

    def related(self) -> list[str]:
        """The names of the symbols on its page's cards."""
        names = [self.elsewhere().name, f"BITSTAMP:{self.base}EUR" if self.rank else "BITSTAMP:ETHEUR"]
        return [name for name in names if name != self.name]


def stock(name: str, base_name: str, currency: str, home: str, scale: Scale, session: str) -> Symbol:
    exchange, _, ticker = name.partition(":")
    return Symbol(
        exchange,
        ticker,
        ticker,
        base_name,
        currency,
        Decimal(home),
        scale,
        base_name,
        currency,
        "stock",
        ("common",),
        session,
    )


STOCKS = [
    stock("NSE:JUNIPER", "Juniper Hotels Limited", "INR", "253.40", Scale(100, 5, "0.01 250 0.05"), "0915-1530"),
    stock("NSE:M&M", "Mahindra & Mahindra Limited", "INR", "2841.00", Scale(100, 10), "0915-1530"),
    stock("NYSE:NEE/PW", "NextEra Energy, Inc. Units", "USD", "45.12", Scale(), "0930-1600"),
    stock("NASDAQ:AAPL", "Apple Inc.", "USD", "229.87", Scale(), "0930-1600"),
]
LISTED = {symbol.name: symbol for symbol in STOCKS}  # recorded symbols are added: they precede invented ones


@functools.cache
def make_pair(exchange: str, ticker: str) -> Symbol:
    pair = TICKER.fullmatch(ticker)
    if pair is None or pair[1] not in COIN_TABLE or exchange not in EXCHANGES:
        raise Unknown(f"there is no {exchange}:{ticker} here")
    coin, currency = COIN_TABLE[pair[1]], pair[2]
    scale = Scale(10 ** -int(coin.price.as_tuple().exponent))
    price = coin.price * Decimal(str(RATES.get(currency, 1))) * (1 + Decimal(EXCHANGES.index(exchange)) / 2000)
    calculated = exchange == "BINANCE" and currency == "USD"
    notes = [" Perpetual Contract" if pair[3] else "", " Open Interest" if pair[4] else ""]
    notes += [" (calculated by TradingView)" if calculated else ""]
    return Symbol(
        exchange,
        ticker,
        coin.code,
        coin.name,
        currency,
        round(price, scale.decimals),
        scale,
        f"{coin.name} / {CURRENCIES[currency]}{''.join(notes)}",
        CURRENCY_IDS.get(currency, currency),
        kind="swap" if pair[3] else "spot",
        rank=coin.rank,
    )


def find_symbol(ticker: str, exchange: str) -> Symbol:
    """The symbol of a ticker such as `BTCUSD`, or of `BINANCE-BTCUSD`, whose exchange counts. Raises Unknown."""
    if "-" in ticker:
        exchange, _, ticker = ticker.partition("-")
    return LISTED.get(f"{exchange}:{ticker}") or make_pair(exchange, ticker)


def symbol_of_page(address: str) -> Symbol:
    """The symbol of a page's address, such as `symbols/BTCUSD/?exchange=BINANCE`. Raises Unknown."""
    parts = urlsplit(address)
    exchange = parse_qs(parts.query).get("exchange", ["BITSTAMP"])[0]
    return find_symbol(unquote(parts.path.strip("/").removeprefix("symbols/")), exchange)


@dataclass(frozen=True)
class Quoted:
    """What a name on a quote socket means: a symbol in a currency and a session."""

    symbol: Symbol
    currency_id: str
    session: str = REGULAR

    @property
    def is_plain(self) -> bool:
        """Whether its price is the symbol's own."""
        return self.currency_id == self.symbol.currency_id and self.session == REGULAR


def read_name(name: str) -> Quoted:
    """Reads `BINANCE:BTCUSD` or a spec such as `={"currency-id":"EUR","symbol":"BINANCE:BTCUSD"}`. Raises Unknown."""
    spec = json.loads(name[1:]) if name.startswith("=") else {"symbol": name}
    exchange, _, ticker = spec["symbol"].partition(":")
    symbol = find_symbol(ticker, exchange)
    currency = spec.get("currency-id", symbol.currency_id)
    if currency == symbol.currency:
        currency = symbol.currency_id
    if currency not in (symbol.currency_id, *RATES):
        raise Unknown(f"there is no currency {currency} here")
    return Quoted(symbol, currency, spec.get("session", REGULAR))
