"""Tracks a ticker and prints its prices: python examples/python_client.py [URL [TICKER]], with Pluto's requirements."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import AddTickerRequest, State, StreamPricesRequest


def main(url: str = "http://localhost:8080", ticker: str = "BTCUSD") -> None:
    client = CryptoPriceServiceClientSync(url)
    print(client.add_ticker(AddTickerRequest(ticker=ticker)).message)
    for price in client.stream_prices(StreamPricesRequest(tickers=[ticker], all_states=True)):
        print(price.ticker, price.price_text or "no price", State.Name(price.state), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
