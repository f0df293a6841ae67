// Checks Node's clients, and fetch's; comes after connect_checks.mjs on standard input, with the URL as argument.
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

const baseUrl = process.argv[2];
const grpc = createClient(CryptoPriceService, node.createGrpcTransport({ baseUrl }));
const refusal = await grpc.getTickers({}).then(() => new Error("answered"), (error) => error);
const results = {
  node: await checkAll(webTransports(node, { baseUrl, httpVersion: "1.1" })),
  fetch: await checkAll(webTransports(web, { baseUrl })),
  grpc: String(refusal),
};
console.log(JSON.stringify(results));
process.exit();
