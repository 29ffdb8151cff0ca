// The core protocol with @nats-io/transport-node. Usage: walk.mjs URL, with MESH_TEST_NODE naming where it is installed.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.MESH_TEST_NODE, "package.json"));
const { connect, headers } = require("@nats-io/transport-node");

setTimeout(() => {
  console.error("took more than a minute");
  process.exit(1);
}, 60_000).unref();

async function take(subscription, count) {
  const messages = [];
  for await (const message of subscription) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

const nc = await connect({ servers: process.argv[2].replace("nats://", ""), name: "walk.mjs" });
console.log("connected");

const plain = nc.subscribe("walk.plain");
const numbers = Array.from({ length: 1000 }, (_, n) => String(n));
for (const n of numbers) nc.publish("walk.plain", n);
assert.deepEqual((await take(plain, 1000)).map((m) => m.string()), numbers);
console.log("published and received in order");

const star = nc.subscribe("walk.*.c");
const tail = nc.subscribe("walk.w.>");
nc.publish("walk.w.c", "both");
nc.publish("walk.w.c.d", "tail");
assert.deepEqual((await take(tail, 2)).map((m) => m.subject), ["walk.w.c", "walk.w.c.d"]);
assert.equal(star.getReceived(), 1);
console.log("wildcards");

const got = [0, 0];
for (const at of [0, 1]) {
  nc.subscribe("walk.work", { queue: "workers", callback: () => (got[at] += 1) });
}
for (let n = 0; n < 200; n++) nc.publish("walk.work", "job");
await nc.flush();
assert.equal(got[0] + got[1], 200);
assert.ok(Math.min(...got) > 0, String(got));
console.log("queue group shares the work");

const withHeaders = nc.subscribe("walk.headers");
const colors = headers();
colors.set("Color", "blue");
nc.publish("walk.headers", "body", { headers: colors });
const [message] = await take(withHeaders, 1);
assert.deepEqual([message.string(), message.headers.get("Color")], ["body", "blue"]);
console.log("headers");

nc.subscribe("walk.shout", { callback: (_, m) => m.respond(m.string().toUpperCase()) });
assert.equal((await nc.request("walk.shout", "hey", { timeout: 10_000 })).string(), "HEY");
console.log("request and reply");

await assert.rejects(nc.request("walk.nobody", "?", { timeout: 10_000 }), /no responders/i);
console.log("no responders");

const limited = nc.subscribe("walk.limited", { max: 2 });
for (let n = 0; n < 5; n++) nc.publish("walk.limited", "x");
await nc.flush();
assert.equal(limited.getReceived(), 2);
console.log("limit of a subscription");

await nc.drain();
assert.ok(nc.isClosed());
console.log("drained");
