// The package "nats", the previous generation, still the one most programs install.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { connect } from "nats";
import { bucketSuite, collect } from "../suite.js";

const nc = await connect({ servers: process.env.CLEAT_COMPAT_URL });
after(() => nc.close());
const js = nc.jetstream();

bucketSuite("nats2", (name, options) => js.views.kv(name, options));

test("object store", async () => {
  const os = await js.views.os(`nats2_obj_${process.pid}`);
  const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7) % 251);
  await os.putBlob({ name: "file" }, content);
  assert.deepEqual(Buffer.from(await os.getBlob("file")), Buffer.from(content));
  assert.deepEqual((await os.list()).map((i) => i.name), ["file"]);
  await os.delete("file");
  assert.equal((await os.info("file")).deleted, true);
  await os.destroy();
});

test("push and pull subscriptions", async () => {
  const jsm = await nc.jetstreamManager();
  const stream = `nats2_push_${process.pid}`;
  await jsm.streams.add({ name: stream, subjects: [stream] });
  for (let n = 0; n < 10; n++) {
    await js.publish(stream, `${n}`);
  }
  await jsm.consumers.add(stream, { durable_name: "push", ack_policy: "explicit", deliver_subject: `to.${stream}` });
  const sub = nc.subscribe(`to.${stream}`);
  const pushed = await collect(sub, 10);
  assert.deepEqual(pushed.map((m) => m.string()), Array.from({ length: 10 }, (_, i) => `${i}`));

  await jsm.consumers.add(stream, { durable_name: "pull", ack_policy: "explicit" });
  const consumer = await js.consumers.get(stream, "pull");
  const pulled = [];
  for await (const m of await consumer.fetch({ max_messages: 10, expires: 5000 })) {
    pulled.push(m.string());
    m.ack();
  }
  assert.equal(pulled.length, 10);
  await jsm.streams.delete(stream);
});
