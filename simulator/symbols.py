"""The symbols that this TradingView knows: coins, exchanges, and the names under which pages and sockets ask for them.

Owns: the table of coins and how a ticker is read. Never does: anything with a price that moves, or with a page.
Any thread may read it.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

EXCHANGES = ("BINANCE", "COINBASE", "BITSTAMP", "KRAKEN", "BYBIT", "OKX")
CURRENCIES = {"USD": "U.S. Dollar", "USDT": "TetherUS", "USDC": "USD Coin", "EUR": "Euro"}
EURO = Decimal("0.92")

# Code, name, and a price with as many decimals as the coin is quoted with. The first ten are the "top 10".
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
"""


class Unknown(Exception):
    """There is no such symbol, fault or file; the text says which."""


@dataclass(frozen=True)
class Coin:
    code: str
    name: str
    price: Decimal
    rank: int

    @property
    def decimals(self) -> int:
        return -int(self.price.as_tuple().exponent)


def read_coins(table: str) -> dict[str, Coin]:
    rows = re.findall(r"(\w+),([^,]+),([\d.]+)", table)
    return {code: Coin(code, name, Decimal(price), rank) for rank, (code, name, price) in enumerate(rows, 1)}


COIN_TABLE = read_coins(COINS)
TICKER = re.compile(r"([0-9A-Z]+?)(USDT|USDC|USD|EUR)(\.P)?")


@dataclass(frozen=True)
class Symbol:
    exchange: str
    ticker: str
    coin: Coin
    currency: str
    perpetual: bool

    @property
    def name(self) -> str:
        return f"{self.exchange}:{self.ticker}"

    @property
    def calculated(self) -> bool:
        """Binance trades nothing against the U.S. dollar: TradingView computes those pairs."""
        return self.exchange == "BINANCE" and self.currency == "USD"

    @property
    def description(self) -> str:
        contract = " Perpetual Contract" if self.perpetual else ""
        origin = " (calculated by TradingView)" if self.calculated else ""
        return f"{self.coin.name} / {CURRENCIES[self.currency]}{contract}{origin}"

    @property
    def title(self) -> str:
        if self.currency != "USD":
            return f"{self.ticker} Charts and Quotes — TradingView"
        top = ", a Top 10 Coin" if self.coin.rank <= 10 else ""
        return f"{self.coin.code} USD — {self.coin.name} Price and Chart{top} — TradingView"

    @property
    def home(self) -> int:
        """The price around which its market walks, in ticks; a little different on each exchange."""
        price = self.coin.price * (EURO if self.currency == "EUR" else 1)
        return round(price.scaleb(self.coin.decimals) * (1 + Decimal(EXCHANGES.index(self.exchange)) / 2000))

    def price_text(self, ticks: int) -> str:
        return f"{Decimal(ticks).scaleb(-self.coin.decimals):f}"

    def elsewhere(self) -> Symbol:
        """The same pair on another exchange."""
        return find_symbol(self.ticker, "KRAKEN" if self.exchange == "COINBASE" else "COINBASE")


@functools.cache
def find_symbol(ticker: str, exchange: str) -> Symbol:
    """The symbol behind `BTCUSD` and an exchange, or behind the path form `BINANCE-BTCUSD`."""
    if "-" in ticker:
        exchange, _, ticker = ticker.partition("-")
    pair = TICKER.fullmatch(ticker)
    if pair is None or pair[1] not in COIN_TABLE or exchange not in EXCHANGES:
        raise Unknown(f"there is no {exchange}:{ticker} here")
    return Symbol(exchange, ticker, COIN_TABLE[pair[1]], pair[2], pair[3] is not None)


def symbol_of_page(address: str) -> Symbol:
    """The symbol whose page is `symbols/BTCUSD/?exchange=BINANCE`."""
    parts = urlsplit(address)
    exchange = parse_qs(parts.query).get("exchange", ["BITSTAMP"])[0]
    return find_symbol(parts.path.strip("/").split("/")[-1], exchange)


def symbol_of_quote(name: str) -> Symbol:
    """The symbol that `BINANCE:BTCUSD` or a spec string names on a quote socket."""
    if name.startswith("="):
        name = json.loads(name[1:])["symbol"]
    exchange, _, ticker = name.partition(":")
    return find_symbol(ticker, exchange)
