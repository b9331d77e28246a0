// @nats-io/kv and @nats-io/obj, the current packages.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { connect } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { bucketSuite, collect } from "../suite.js";

const nc = await connect({ servers: process.env.CLEAT_COMPAT_URL });
after(() => nc.close());
const kvm = new Kvm(nc);

bucketSuite("kv", (name, options) => kvm.create(name, options));

test("open", async () => {
  const name = `kv_open_${process.pid}`;
  const kv = await kvm.create(name);
  await kv.put("key", "v");
  const opened = await kvm.open(name);
  assert.equal((await opened.get("key")).string(), "v");
  await kv.destroy();
});

test("list buckets", async () => {
  const names = [1, 2, 3].map((n) => `kv_list_${process.pid}_${n}`);
  const kvs = await Promise.all(names.map((name) => kvm.create(name)));
  const listed = [];
  for await (const status of kvm.list()) {
    listed.push(status.bucket);
  }
  assert.deepEqual(listed.filter((name) => names.includes(name)).sort(), names);
  await Promise.all(kvs.map((kv) => kv.destroy()));
});

test("key TTL and markers", async () => {
  const kv = await kvm.create(`kv_ttl_${process.pid}`, { markerTTL: 1000, history: 3 });
  const watch = await kv.watch();
  await kv.create("key", "v", "1s");
  const [put, marker] = await collect(watch, 2);
  assert.equal(put.operation, "PUT");
  assert.equal(marker.operation, "PURGE");
  assert.equal(marker.revision, 2);
  await kv.destroy();
});

test("a watch tells first values from updates", async () => {
  const kv = await kvm.create(`kv_update_${process.pid}`);
  await kv.put("a", "1");
  await kv.put("b", "1");
  const watch = await kv.watch();
  await kv.put("c", "1");
  const entries = await collect(watch, 3);
  // The package counts the last of the first values as an update: the pending count is exact.
  assert.deepEqual(entries.map((e) => e.isUpdate), [false, true, true]);
  await kv.destroy();
});

test("pull consumer", async () => {
  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  const stream = `js_pull_${process.pid}`;
  await jsm.streams.add({ name: stream, subjects: [`${stream}.>`] });
  await jsm.consumers.add(stream, { durable_name: "d", ack_policy: "explicit" });
  for (let n = 0; n < 20; n++) {
    const ack = await js.publish(`${stream}.a`, `${n}`, { msgID: `${n}` });
    assert.equal(ack.seq, n + 1);
  }
  assert.equal((await js.publish(`${stream}.a`, "again", { msgID: "3" })).duplicate, true);
  const consumer = await js.consumers.get(stream, "d");
  let n = 0;
  for await (const m of await consumer.fetch({ max_messages: 20, expires: 5000 })) {
    assert.equal(m.string(), `${n++}`);
    assert.equal(await m.ackAck(), true);
  }
  assert.equal(n, 20);
  assert.equal((await consumer.info()).ack_floor.stream_seq, 20);
  await jsm.streams.delete(stream);
});

test("object store", async () => {
  const os = await new Objm(nc).create(`obj_${process.pid}`);
  const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7) % 251);
  await os.putBlob({ name: "file", description: "d" }, content);
  assert.deepEqual(Buffer.from(await os.getBlob("file")), Buffer.from(content));
  const watch = await os.watch({ includeHistory: true });
  await os.putBlob({ name: "second" }, content.slice(0, 10));
  const infos = await collect(watch, 2);
  assert.deepEqual(infos.map((i) => i.name), ["file", "second"]);
  assert.deepEqual((await os.list()).map((i) => i.name).sort(), ["file", "second"]);
  await os.delete("file");
  assert.equal((await os.info("file")).deleted, true);
  assert.equal(await os.get("nothing"), null);
  await os.destroy();
});
