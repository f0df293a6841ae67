// What every Connect client must see of Pluto, for Node and browsers alike; run by test_connect_clients.py.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { CryptoPriceService, FailureSchema, State } from "./gen/crypto/v1/crypto_service_pb.js";

function equal(seen, expected, what) {
  if (seen !== expected) throw new Error(`${what}: ${seen}, not ${expected}`);
}

async function errorOf(stream) {
  try {
    for await (const _ of stream);
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the stream ended without an error");
}

async function checkUnary(client) {
  const added = await client.addTicker({ ticker: "dogeusd" });
  equal(added.success, true, "added");
  equal((await client.addTicker({ ticker: "a b" })).success, false, "a malformed ticker");
  const { tickers, prices } = await client.getTickers({});
  equal(tickers.join(), "BTCUSD,DOGEUSD,ETHUSD", "tickers");
  equal(prices[2].priceText, "2500.5", "price text");
  equal(prices[2].price, 2500.5, "price");
  equal(prices[1].changePercent, undefined, "an unknown change");
  equal(prices[2].state, State.STALE, "state");
  equal(typeof prices[2].sequence, "bigint", "sequence");
  equal((await client.removeTicker({ ticker: "DOGEUSD" })).message, "DOGEUSD is no longer tracked.", "removed");
}

async function checkStream(client) {
  const seen = [];
  for await (const price of client.streamPrices({ allStates: true })) {
    seen.push(price);
    if (seen.length === 8) break;
  }
  equal(seen.slice(0, 2).map(({ ticker }) => ticker).sort().join(), "BTCUSD,ETHUSD", "first");
  const sequences = seen.slice(2).map(({ sequence }) => sequence);
  equal(sequences.every((sequence, i) => i === 0 || sequence > sequences[i - 1]), true, "sequences grow");
}

async function checkErrors(client) {
  const late = await errorOf(client.streamPrices({}, { timeoutMs: 300 }));
  equal(late.code, Code.DeadlineExceeded, "late");
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 200);
  equal((await errorOf(client.streamPrices({}, { signal: controller.signal }))).code, Code.Canceled, "aborted");
  const refused = await errorOf(client.streamPrices({ maxRate: 50 }));
  equal(refused.code, Code.InvalidArgument, "refused");
  equal(refused.findDetails(FailureSchema)[0].code, "invalid_rate", "detail");
}

// The name of each transport with "passed", or what is wrong with what comes over it.
export async function checkAll(transports) {
  const results = Object.fromEntries(Object.keys(transports).map((name) => [name, "passed"]));
  const note = (name, checked) => checked.catch((error) => { results[name] = String(error); });
  const clients = Object.entries(transports).map(([name, transport]) => [name, createClient(CryptoPriceService, transport)]);
  for (const [name, client] of clients) await note(name, checkUnary(client)); // in turn: all add the same ticker
  await Promise.all(clients.map(([name, client]) => note(name, checkStream(client).then(() => checkErrors(client)))));
  return results;
}

export function webTransports({ createConnectTransport, createGrpcWebTransport }, options) {
  return {
    connectJson: createConnectTransport({ ...options, useBinaryFormat: false }),
    connectBinary: createConnectTransport({ ...options, useBinaryFormat: true }),
    connectGet: createConnectTransport({ ...options, useHttpGet: true }),
    grpcWebJson: createGrpcWebTransport({ ...options, useBinaryFormat: false }),
    grpcWebBinary: createGrpcWebTransport({ ...options, useBinaryFormat: true }),
  };
}
