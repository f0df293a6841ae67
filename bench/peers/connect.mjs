// Node + Connect as a server of Pluto's service: node connect.mjs RATE SIZE [TICKERS] prints its port.
// Plain use of the library: each client's stream is an async generator, and the library encodes for each.
import http from "node:http";
import { EventEmitter, on } from "node:events";
import { create } from "@bufbuild/protobuf";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { CryptoPriceService, PriceUpdateSchema, Source, State } from "../../examples/gen/crypto/v1/crypto_service_pb.js";

const [rate, size, count = 1] = process.argv.slice(2).map(Number);
const tickers = ["BTCUSD", ...Array.from({ length: count - 1 }, (_, index) => `COIN${index + 1}USD`)];
const prices = new EventEmitter().setMaxListeners(0);
const latest = new Map(tickers.map((ticker) => [ticker, price(ticker, "")]));

// The same price as Pluto's, with a description that carries the time and pads the message as Pluto's does.
function price(ticker, description) {
  const now = BigInt(Date.now());
  return create(PriceUpdateSchema, {
    ticker, price: 67012.45, priceText: "67012.45", changePercent: 1.25, timestamp: now, receivedAt: now,
    state: State.LIVE, source: Source.SOCKET, sequence: 100n, simulated: true, description,
  });
}

function routes(router) {
  router.service(CryptoPriceService, {
    getTickers: () => ({ tickers, prices: [...latest.values()] }),
    async *streamPrices(_, context) {
      yield* latest.values();
      for await (const [message] of on(prices, "price", { signal: context.signal })) yield message;
    },
  });
}

if (rate > 0) {
  setInterval(() => {
    const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
    for (const ticker of tickers) {
      latest.set(ticker, price(ticker, `at=${microseconds} ${"x".repeat(size)}`));
      prices.emit("price", latest.get(ticker));
    }
  }, 1000 / rate);
}
const server = http.createServer(connectNodeAdapter({ routes }));
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(`port ${server.address().port}`));
