// Tracks a ticker and prints its prices: npm ci, then node node_client.mjs [URL [TICKER]].
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CryptoPriceService, State } from "./gen/crypto/v1/crypto_service_pb.js";

const [baseUrl = "http://localhost:8080", ticker = "BTCUSD"] = process.argv.slice(2);
const client = createClient(CryptoPriceService, createConnectTransport({ baseUrl, httpVersion: "1.1" }));

console.log((await client.addTicker({ ticker })).message);
for await (const price of client.streamPrices({ tickers: [ticker], allStates: true })) {
  console.log(price.ticker, price.priceText || "no price", State[price.state]);
}
