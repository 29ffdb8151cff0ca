// Streams, consumers, buckets and objects with @nats-io/jetstream, kv and obj. Usage: streams.mjs URL, with
// MESH_TEST_NODE naming where they are installed.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.MESH_TEST_NODE, "package.json"));
const { connect } = require("@nats-io/transport-node");
const { AckPolicy, jetstream, jetstreamManager } = require("@nats-io/jetstream");
const { Kvm } = require("@nats-io/kv");
const { Objm } = require("@nats-io/obj");

setTimeout(() => {
  console.error("took more than a minute");
  process.exit(1);
}, 60_000).unref();

async function take(messages, count) {
  const taken = [];
  for await (const message of messages) {
    taken.push(message);
    if (taken.length === count) break;
  }
  return taken;
}

const nc = await connect({ servers: process.argv[2].replace("nats://", ""), name: "streams.mjs" });
const js = jetstream(nc);
const jsm = await jetstreamManager(nc);

await jsm.streams.add({ name: "S", subjects: ["s.>"] });
for (let n = 0; n < 100; n++) await js.publish(`s.${n % 4}`, String(n));
await jsm.consumers.add("S", { durable_name: "WORK", ack_policy: AckPolicy.Explicit, filter_subject: "s.1" });
const work = await js.consumers.get("S", "WORK");
const fetched = await take(await work.fetch({ max_messages: 10, expires: 10_000 }), 10);
assert.deepEqual(fetched.map((m) => Number(m.string())), Array.from({ length: 10 }, (_, n) => 4 * n + 1));
for (const message of fetched) assert.equal(await message.ackAck(), true);
const info = await work.info();
assert.deepEqual([info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq], [15, 0, 38]);
const consumed = await take(await work.consume(), 15);
for (const message of consumed) message.ack();
assert.equal(await work.next({ expires: 1_000 }), null);
console.log("pull");

const ordered = await js.consumers.get("S", { filter_subjects: ["s.2", "s.3"] });
const inOrder = await take(await ordered.consume(), 50);
assert.deepEqual(inOrder.map((m) => Number(m.string()) % 4), Array.from({ length: 50 }, (_, n) => 2 + (n % 2)));
console.log("ordered");

await jsm.consumers.pause("S", "WORK", new Date(Date.now() + 3600_000));
assert.equal((await work.info()).paused, true);
await jsm.consumers.resume("S", "WORK");
assert.equal(await jsm.consumers.delete("S", "WORK"), true);
await assert.rejects(js.consumers.get("S", "WORK"), /consumer not found/);
console.log("paused and deleted");

const kv = await new Kvm(nc).create("B", { history: 5, markerTTL: 1_000 });
assert.deepEqual([await kv.put("a", "1"), await kv.put("a", "2")], [1, 2]);
assert.equal((await kv.get("a")).string(), "2");
assert.equal((await kv.get("a", { revision: 1 })).string(), "1");
assert.equal(await kv.create("b", "new"), 3);
await assert.rejects(kv.create("b", "again"), /wrong last sequence/);
await assert.rejects(kv.update("a", "3", 1), /wrong last sequence/);
assert.equal(await kv.update("a", "3", 2), 4);
console.log("bucket");

const watcher = await kv.watch();
const entries = [];
const watching = (async () => {
  for await (const entry of watcher) {
    entries.push([entry.key, entry.operation, entry.string(), entry.isUpdate]);
    if (entries.length === 5) break;
  }
})();
while (entries.length < 2) await new Promise((done) => setTimeout(done, 5));
await kv.put("c", "live");
await kv.delete("b");
await kv.purge("a");
await watching;
assert.deepEqual(entries, [
  ["b", "PUT", "new", false],
  ["a", "PUT", "3", true],
  ["c", "PUT", "live", true],
  ["b", "DEL", "", true],
  ["a", "PURGE", "", true],
]);
console.log("watch");

const keys = [];
for await (const key of await kv.keys()) keys.push(key);
assert.deepEqual(keys, ["c"]);
assert.equal((await kv.get("b")).operation, "DEL");
const history = [];
for await (const entry of await kv.history({ key: "b" })) history.push(entry.operation);
assert.deepEqual(history, ["PUT", "DEL"]);
assert.ok((await kv.create("b", "over the marker")) > 0);
await kv.create("short", "x", "1s");
const deadline = Date.now() + 20_000;
while ((await kv.get("short"))?.string() === "x") {
  assert.ok(Date.now() < deadline, "it outlives its time");
  await new Promise((done) => setTimeout(done, 50));
}
assert.equal((await kv.status()).history, 5);
assert.equal(await kv.destroy(), true);
console.log("history, markers and time to live");

const store = await new Objm(nc).create("O");
const data = randomBytes(Number(process.env.MESH_TEST_OBJECT_MIB ?? "3") << 20);
const put = await store.putBlob({ name: "big/one.bin" }, data);
assert.equal(put.size, data.length);
assert.ok(data.equals(Buffer.from(await store.getBlob("big/one.bin"))));
const watched = await store.watch({ includeHistory: true });
assert.equal((await take(watched, 1))[0].name, "big/one.bin");
await store.putBlob({ name: "small" }, Buffer.from("tiny"));
assert.deepEqual((await store.list()).map((o) => o.name).sort(), ["big/one.bin", "small"]);
await store.putBlob({ name: "small" }, Buffer.from("other"));
assert.equal(Buffer.from(await store.getBlob("small")).toString(), "other");
await store.delete("big/one.bin");
assert.equal(await store.getBlob("big/one.bin"), null);
assert.equal((await store.info("big/one.bin")).deleted, true);
assert.equal(await store.destroy(), true);
console.log("objects");

await nc.drain();
