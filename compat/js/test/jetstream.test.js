// @nats-io/jetstream, the current package: streams, consumers of every kind, direct gets.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { connect, headers, nanos } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { collect, drain, rejects, replicas } from "../suite.js";

const nc = await connect({ servers: process.env.CLEAT_COMPAT_URL });
after(() => nc.close());
const jsm = await jetstreamManager(nc);
const js = jetstream(nc);

let count = 0;
// stream creates a stream with n messages, of the subjects a and b in turn.
async function stream(n, options = {}) {
  const name = `js_${process.pid}_${count++}`;
  await jsm.streams.add({ name, subjects: [`${name}.>`], num_replicas: replicas, allow_direct: true, ...options });
  for (let i = 1; i <= n; i++) {
    assert.equal((await js.publish(`${name}.${i % 2 ? "a" : "b"}`, `${i}`)).seq, i);
  }
  return name;
}

const sequences = (from, to, step = 1) => Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);

test("publish with expectations", async () => {
  const name = await stream(2);
  const to = `${name}.a`;
  await rejects(js.publish(to, "", { expect: { lastSequence: 1 } }), 10071);
  await rejects(js.publish(to, "", { expect: { lastSubjectSequence: 2 } }), 10071);
  await rejects(js.publish(to, "", { expect: { streamName: "other" } }), 10060);
  assert.equal((await js.publish(to, "", { expect: { lastSubjectSequence: 1, streamName: name } })).seq, 3);
  assert.equal((await js.publish(to, "", { msgID: "id" })).seq, 4);
  await rejects(js.publish(to, "", { expect: { lastMsgID: "other" } }), 10070);
  assert.equal((await js.publish(to, "", { expect: { lastMsgID: "id" } })).seq, 5);
  await assert.rejects(js.publish(`nobody.${name}`, ""), /not enabled|no responders/i);
  await jsm.streams.delete(name);
});

test("stream management", async () => {
  const name = await stream(6);
  const s = await js.streams.get(name);
  assert.equal((await s.info(false, { subjects_filter: ">" })).state.subjects[`${name}.a`], 3);
  assert.equal((await jsm.streams.purge(name, { filter: `${name}.a`, keep: 1 })).purged, 2);
  assert.equal((await s.getMessage({ last_by_subj: `${name}.a` })).seq, 5);
  assert.equal(await s.deleteMessage(6), true);
  assert.deepEqual((await jsm.streams.info(name, { deleted_details: true })).state.deleted, [3, 6]);
  const updated = await jsm.streams.update(name, { max_msgs_per_subject: 1, description: "d" });
  assert.equal(updated.config.description, "d");
  assert.equal((await s.info()).state.messages, 2);
  assert.equal(await jsm.streams.find(`${name}.a`), name);
  assert.ok((await drain(await jsm.streams.names())).includes(name));
  assert.ok((await drain(await jsm.streams.list())).some((i) => i.config.name === name));
  await rejects(jsm.streams.add({ name, subjects: ["x"] }), 10058);
  await jsm.streams.delete(name);
  await rejects(jsm.streams.info(name), 10059);
});

test("direct gets", async () => {
  const name = await stream(20);
  assert.equal((await jsm.direct.getMessage(name, { seq: 3 })).string(), "3");
  assert.equal((await jsm.direct.getMessage(name, { last_by_subj: `${name}.b` })).seq, 20);
  assert.equal((await jsm.direct.getMessage(name, { seq: 3, next_by_subj: `${name}.b` })).seq, 4);
  assert.equal(await jsm.direct.getMessage(name, { seq: 99 }), null);
  const batch = await drain(await jsm.direct.getBatch(name, { seq: 5, batch: 4, next_by_subj: `${name}.a` }));
  assert.deepEqual(batch.map((m) => m.seq), [5, 7, 9, 11]);
  const last = await drain(await jsm.direct.getLastMessagesFor(name, { multi_last: [`${name}.*`] }));
  assert.deepEqual(last.map((m) => m.seq), [19, 20]);
  const before = await drain(await jsm.direct.getLastMessagesFor(name, { multi_last: [`${name}.a`, `${name}.b`], up_to_seq: 10 }));
  assert.deepEqual(before.map((m) => m.seq), [9, 10]);
  await jsm.streams.delete(name);
});

test("ordered consumers", async () => {
  const name = await stream(500);
  const all = await js.consumers.get(name);
  const seen = await collect(await all.consume({ max_messages: 50 }), 500);
  assert.deepEqual(seen.map((m) => m.seq), sequences(1, 500));
  const some = await js.consumers.get(name, { filter_subjects: `${name}.b`, deliver_policy: "by_start_sequence", opt_start_seq: 101 });
  const fetched = await drain(await some.fetch({ max_messages: 10, expires: 5000 }));
  assert.deepEqual(fetched.map((m) => m.seq), sequences(102, 120, 2));
  assert.equal((await some.next({ expires: 5000 })).seq, 122);
  await js.publish(`${name}.b`, "live");
  const tail = await js.consumers.get(name, { deliver_policy: "last_per_subject", filter_subjects: `${name}.>` });
  assert.deepEqual((await drain(await tail.fetch({ max_messages: 2, expires: 5000 }))).map((m) => m.seq), [499, 501]);
  const push = await js.consumers.getPushConsumer(name, { deliver_policy: "by_start_sequence", opt_start_seq: 490 });
  assert.deepEqual((await collect(await push.consume(), 12)).map((m) => m.seq), sequences(490, 501));
  await jsm.streams.delete(name);
});

test("acknowledgements", async () => {
  const name = await stream(4);
  await jsm.consumers.add(name, { durable_name: "d", ack_policy: "explicit", ack_wait: nanos(1000), max_deliver: 3 });
  const c = await js.consumers.get(name, "d");
  const [one, two, three, four] = await drain(await c.fetch({ max_messages: 4, expires: 5000 }));
  assert.equal(await one.ackAck(), true);
  two.nak();
  three.term("enough");
  four.working();
  for (const seq of [2, 4]) { // The second at once, the fourth after its time.
    const m = await c.next({ expires: 5000 });
    assert.deepEqual([m.seq, m.info.deliveryCount], [seq, 2]);
    assert.equal(await m.ackAck(), true);
  }
  const info = await c.info();
  assert.equal(info.ack_floor.stream_seq, 4);
  assert.equal(info.num_ack_pending, 0);
  assert.equal(await c.next({ expires: 1000 }), null);
  await jsm.streams.delete(name);
});

test("pull requests with bounds", async () => {
  const name = await stream(0);
  const h = headers();
  h.set("Kind", "big");
  for (let i = 0; i < 10; i++) {
    await js.publish(`${name}.a`, "x".repeat(1000), { headers: h });
  }
  await jsm.consumers.add(name, { durable_name: "d", ack_policy: "none" });
  const c = await js.consumers.get(name, "d");
  const some = [];
  try {
    for await (const m of await c.fetch({ max_bytes: 3500, expires: 2000 })) {
      some.push(m);
    }
  } catch (err) {
    assert.match(err.message, /maxbytes/i); // The next message is too large for the rest.
  }
  assert.ok(some.length > 0 && some.length < 4, `${some.length} messages`);
  assert.equal(some[0].headers.get("Kind"), "big");
  const rest = await drain(await c.fetch({ max_messages: 100, expires: 1000 }));
  assert.equal(some.length + rest.length, 10);
  const waiting = c.next({ expires: 5000 });
  await js.publish(`${name}.a`, "late");
  assert.equal((await waiting).string(), "late");
  await jsm.streams.delete(name);
});

test("consumer management", async () => {
  const name = await stream(3);
  const made = await jsm.consumers.add(name, { durable_name: "d", ack_policy: "explicit", filter_subjects: [`${name}.a`], metadata: { k: "v" } });
  assert.equal(made.num_pending, 2);
  assert.equal(made.config.metadata.k, "v");
  const updated = await jsm.consumers.update(name, "d", { filter_subjects: [`${name}.a`, `${name}.b`], description: "d" });
  assert.equal(updated.num_pending, 3);
  const paused = await jsm.consumers.pause(name, "d", new Date(Date.now() + 60_000));
  assert.equal(paused.paused, true);
  const c = await js.consumers.get(name, "d");
  assert.equal(await c.next({ expires: 1000 }), null);
  assert.equal((await jsm.consumers.resume(name, "d")).paused, false);
  assert.equal((await c.next({ expires: 5000 })).seq, 1);
  assert.deepEqual((await drain(await jsm.consumers.list(name))).map((i) => i.name), ["d"]);
  assert.equal(await c.delete(), true);
  await rejects(jsm.consumers.info(name, "d"), 10014);
  await jsm.streams.delete(name);
});

test("mirrors and sources", async () => {
  const name = await stream(10);
  await jsm.streams.add({ name: `${name}_m`, mirror: { name }, num_replicas: replicas });
  await jsm.streams.add({ name: `${name}_s`, sources: [{ name, filter_subject: `${name}.a` }], num_replicas: replicas });
  for (const [copy, want] of [[`${name}_m`, 10], [`${name}_s`, 5]]) {
    for (let tries = 0; (await jsm.streams.info(copy)).state.messages !== want; tries++) {
      assert.ok(tries < 200, `${copy} does not get ${want} messages`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  assert.equal((await jsm.streams.getMessage(`${name}_m`, { seq: 7 })).string(), "7");
  for (const n of [name, `${name}_m`, `${name}_s`]) {
    await jsm.streams.delete(n);
  }
});

test("purge of delete markers", async () => {
  const kv = await new Kvm(nc).create(`js_markers_${process.pid}`, { history: 3, replicas });
  for (const key of ["a", "b", "c"]) {
    await kv.put(key, "v");
  }
  await kv.delete("a");
  await kv.purge("b");
  assert.equal((await kv.purgeDeletes(-1)).purged, 3); // The value and the marker of a, the marker of b.
  assert.equal(await kv.get("a"), null);
  assert.equal((await kv.status()).values, 1);
  await kv.destroy();
});

test("writers race for a key", async () => {
  const kv = await new Kvm(nc).create(`js_race_${process.pid}`, { replicas });
  await kv.create("n", "0");
  const increment = async () => {
    for (;;) {
      const e = await kv.get("n");
      try {
        return await kv.update("n", `${Number(e.string()) + 1}`, e.revision);
      } catch (err) {
        assert.equal(err.code, 10071, err.message);
      }
    }
  };
  const revisions = await Promise.all(Array.from({ length: 20 }, increment));
  assert.equal(new Set(revisions).size, 20);
  assert.equal((await kv.get("n")).string(), "20");
  await kv.destroy();
});

test("objects in parts, links, seal", async () => {
  const os = await new Objm(nc).create(`js_obj_${process.pid}`, { replicas });
  const content = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 31) % 253);
  const info = await os.putBlob({ name: "big", options: { max_chunk_size: 10_000 } }, content);
  assert.equal(info.chunks, Math.ceil(content.length / 10_000));
  assert.deepEqual(Buffer.from(await os.getBlob("big")), Buffer.from(content));
  await os.link("link", await os.info("big"));
  assert.equal((await os.getBlob("link")).length, content.length);
  await os.update("big", { name: "renamed", description: "d" });
  assert.equal((await os.info("renamed")).description, "d");
  await os.putBlob({ name: "renamed" }, content.slice(0, 5)); // The old parts go.
  assert.equal((await os.status()).size < 100_000, true);
  assert.equal((await os.seal()).sealed, true);
  await assert.rejects(os.putBlob({ name: "no" }, content.slice(0, 5)));
  await os.destroy();
});
