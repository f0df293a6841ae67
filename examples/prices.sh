#!/usr/bin/env bash
# Tracks a ticker and prints its prices, with curl alone: examples/prices.sh [URL [TICKER]].
set -euo pipefail
export LC_ALL=C # bytes, not characters

service="${1:-http://localhost:8080}/crypto.v1.CryptoPriceService"
ticker="${2:-BTCUSD}"

curl -sS "$service/AddTicker" -H 'Content-Type: application/json' -d "{\"ticker\":\"$ticker\"}"

# A message of a stream comes in an envelope: a byte of flags, four of length, then the JSON.
request="{\"tickers\":[\"$ticker\"],\"allStates\":true}"
{ printf '\0\0\0\0'"\\$(printf %o ${#request})"; printf %s "$request"; } |
  curl -sSN "$service/StreamPrices" -H 'Content-Type: application/connect+json' --data-binary @- |
  while IFS= read -r -d '}' message; do
    [[ "$message" != *'{'* ]] || echo "{${message#*\{}}"
  done
