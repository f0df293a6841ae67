"""Prints a ticker's candles of the last day as CSV, with Pluto's requirements.

python examples/history.py [URL [TICKER]]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from proto.crypto.v1.crypto_service_connect import CryptoPriceServiceClientSync
from proto.crypto.v1.crypto_service_pb2 import GetHistoryRequest, Interval


def main(url: str = "http://localhost:8080", ticker: str = "BTCUSD") -> None:
    client = CryptoPriceServiceClientSync(url)
    request = GetHistoryRequest(ticker=ticker, since="24h", interval=Interval.INTERVAL_1M)
    while True:
        page = client.get_history(request)
        for candle in page.candles:
            print(candle.start, candle.open, candle.high, candle.low, candle.close, sep=",")
        if not page.next:
            break
        request.cursor = page.next


if __name__ == "__main__":
    main(*sys.argv[1:])
