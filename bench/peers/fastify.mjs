// Node + Fastify as a server of one event stream: node fastify.mjs RATE SIZE prints its port.
// The event is encoded once; each response gets the same buffer.
import Fastify from "fastify";

const [rate, size] = process.argv.slice(2).map(Number);
const clients = new Set();
const app = Fastify();

app.get("/stream", (request, reply) => {
  reply.hijack();
  reply.raw.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  reply.raw.write(": connected\n\n");
  clients.add(reply.raw);
  request.raw.on("close", () => clients.delete(reply.raw));
});

function event() {
  const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const [start, end] = [`{"type":"batch_update","description":"at=${microseconds} `, '"}'];
  return Buffer.from(`data: ${start}${"x".repeat(size - start.length - end.length)}${end}\n\n`);
}

if (rate > 0) {
  setInterval(() => {
    const bytes = event();
    for (const client of clients) client.write(bytes);
  }, 1000 / rate);
}
await app.listen({ host: "127.0.0.1", port: 0, backlog: 4096 });
console.log(`port ${app.server.address().port}`);
