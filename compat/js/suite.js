// What both generations of the JavaScript packages expect of a bucket. The packages send different
// requests for the same calls (see docs/protocol.md), so each runs all of it.
import assert from "node:assert/strict";
import { test } from "node:test";

const WAIT = 10_000;

// replicas is how many a bucket or stream has that does not care.
export const replicas = Number(process.env.CLEAT_COMPAT_REPLICAS ?? 1);

// collect reads n entries of an iterator, and fails rather than wait for ever.
export async function collect(iterator, n) {
  const seen = [];
  if (n === 0) {
    return seen;
  }
  const timer = setTimeout(() => iterator.stop(new Error(`only ${seen.length} of ${n} came`)), WAIT);
  for await (const entry of iterator) {
    if (seen.push(entry) === n) {
      break;
    }
  }
  clearTimeout(timer);
  assert.equal(seen.length, n, "entries");
  return seen;
}

// drain reads an iterator that ends by itself.
export async function drain(iterator) {
  const seen = [];
  for await (const item of iterator) {
    seen.push(item);
  }
  return seen;
}

const text = (e) => `${e.operation} ${e.key}=${e.string()}@${e.revision}`;

// rejects waits for the API error with a code, whichever class the package wraps it in.
export async function rejects(promise, code) {
  await assert.rejects(promise, (err) => {
    const got = err.api_error?.err_code ?? err.code;
    assert.equal(got, code, `${err.name}: ${err.message}`);
    return true;
  });
}

// bucketSuite registers the tests. open(name, options) creates a bucket and returns it.
export function bucketSuite(prefix, open) {
  let count = 0;
  const bucket = (options = {}) => open(`${prefix}_${process.pid}_${count++}`, { history: 5, allow_direct: true, replicas, ...options });

  test("put and get", async () => {
    const kv = await bucket();
    assert.equal(await kv.put("greeting", "hello"), 1);
    assert.equal(await kv.put("greeting", "hello world"), 2);
    const entry = await kv.get("greeting");
    assert.equal(text(entry), "PUT greeting=hello world@2");
    assert.ok(Math.abs(entry.created.getTime() - Date.now()) < 60_000, `created ${entry.created}`);
    assert.equal(await kv.get("nothing"), null);
    assert.equal((await kv.get("greeting", { revision: 1 })).string(), "hello");
    assert.equal(await kv.get("greeting", { revision: 9 }), null);
    await kv.destroy();
  });

  test("put and get through MSG.GET", async () => {
    const kv = await bucket({ allow_direct: false });
    await kv.put("key", "1");
    await kv.put("key", "2");
    assert.equal(text(await kv.get("key")), "PUT key=2@2");
    assert.equal((await kv.get("key", { revision: 1 })).string(), "1");
    assert.equal(await kv.get("nothing"), null);
    await kv.destroy();
  });

  test("binary values", async () => {
    const kv = await bucket();
    const value = Uint8Array.from({ length: 100_000 }, (_, i) => i % 256);
    await kv.put("binary", value);
    assert.deepEqual(Buffer.from((await kv.get("binary")).value), Buffer.from(value));
    await kv.put("empty", "");
    assert.equal((await kv.get("empty")).value.length, 0);
    await kv.destroy();
  });

  test("create", async () => {
    const kv = await bucket();
    assert.equal(await kv.create("key", "1"), 1);
    await rejects(kv.create("key", "2"), 10071);
    await kv.delete("key");
    assert.equal(await kv.create("key", "3"), 3);
    await kv.purge("key");
    assert.equal(await kv.create("key", "4"), 5);
    await kv.destroy();
  });

  test("update", async () => {
    const kv = await bucket();
    const first = await kv.put("key", "1");
    await kv.put("other", "x");
    assert.equal(await kv.update("key", "2", first), 3);
    await rejects(kv.update("key", "3", first), 10071);
    assert.equal((await kv.get("key")).string(), "2");
    await rejects(kv.put("key", "4", { previousSeq: 1 }), 10071);
    await kv.destroy();
  });

  test("delete and purge", async () => {
    const kv = await bucket();
    await kv.put("key", "1");
    await kv.put("key", "2");
    await rejects(kv.delete("key", { previousSeq: 1 }), 10071);
    await kv.delete("key", { previousSeq: 2 });
    assert.equal((await kv.get("key")).operation, "DEL");
    await kv.purge("key");
    const history = await drain(await kv.history({ key: "key" }));
    assert.deepEqual(history.map(text), ["PURGE key=@4"]);
    await kv.destroy();
  });

  test("keys", async () => {
    const kv = await bucket();
    assert.deepEqual(await drain(await kv.keys()), []);
    for (const key of ["a", "b.1", "b.2", "gone"]) {
      await kv.put(key, "v");
    }
    await kv.delete("gone");
    assert.deepEqual((await drain(await kv.keys())).sort(), ["a", "b.1", "b.2"]);
    assert.deepEqual((await drain(await kv.keys("b.*"))).sort(), ["b.1", "b.2"]);
    assert.deepEqual((await drain(await kv.keys(["a", "b.2"]))).sort(), ["a", "b.2"]);
    await kv.destroy();
  });

  test("history", async () => {
    const kv = await bucket({ history: 2 });
    for (const value of ["1", "2", "3"]) {
      await kv.put("key", value);
      await kv.put("other", value);
    }
    const history = await drain(await kv.history({ key: "key" }));
    assert.deepEqual(history.map(text), ["PUT key=2@3", "PUT key=3@5"]);
    assert.equal((await drain(await kv.history())).length, 4);
    await kv.destroy();
  });

  const watches = {
    "last values": [{}, ["PUT a=2@2", "DEL b=@4", "PUT c=1@5", "PUT a=end@6"]],
    "history": [{ include: "history" }, ["PUT a=1@1", "PUT a=2@2", "PUT b=1@3", "DEL b=@4", "PUT c=1@5", "PUT a=end@6"]],
    "updates only": [{ include: "updates" }, ["PUT a=end@6"]],
    "no deletes": [{ ignoreDeletes: true }, ["PUT a=2@2", "PUT c=1@5", "PUT a=end@6"]],
    "headers only": [{ headers_only: true }, ["PUT a=@2", "DEL b=@4", "PUT c=@5", "PUT a=@6"]],
    "one key": [{ key: "a" }, ["PUT a=2@2", "PUT a=end@6"]],
    "several keys": [{ key: ["a", "c"] }, ["PUT a=2@2", "PUT c=1@5", "PUT a=end@6"]],
    "resumed from a revision": [{ resumeFromRevision: 4 }, ["DEL b=@4", "PUT c=1@5", "PUT a=end@6"]],
  };
  for (const [name, [options, want]] of Object.entries(watches)) {
    test(`watch: ${name}`, async () => {
      const kv = await bucket();
      await kv.put("a", "1");
      await kv.put("a", "2");
      await kv.put("b", "1");
      await kv.delete("b");
      await kv.put("c", "1");
      const watch = await kv.watch(options);
      await kv.put("a", "end");
      const entries = await collect(watch, want.length);
      assert.deepEqual(entries.map(text), want);
      await kv.destroy();
    });
  }

  test("watch many keys", async () => {
    const kv = await bucket();
    const keys = 5000;
    const puts = [];
    for (let n = 0; n < keys; n++) {
      puts.push(kv.put(`key.${n}`, `value ${n}`));
    }
    await Promise.all(puts);
    const entries = await collect(await kv.watch(), keys);
    assert.deepEqual(entries.map((e) => e.revision), Array.from({ length: keys }, (_, i) => i + 1));
    await kv.destroy();
  });

  test("status", async () => {
    const kv = await bucket({ description: "d", ttl: 3_600_000, max_bytes: 1 << 20, maxValueSize: 100, storage: "memory" });
    await kv.put("key", "v");
    const status = await kv.status();
    assert.equal(status.values, 1);
    assert.equal(status.history, 5);
    assert.equal(status.description, "d");
    assert.equal(status.ttl, 3_600_000);
    assert.equal(status.maxValueSize, 100);
    assert.equal(status.max_bytes, 1 << 20);
    assert.equal(status.storage, "memory");
    assert.equal(status.replicas, replicas);
    assert.ok(status.size > 0);
    await rejects(kv.put("key", "v".repeat(101)), 10054);
    await kv.destroy();
  });

  test("bucket TTL", async () => {
    const kv = await bucket({ ttl: 1000 });
    await kv.put("key", "v");
    for (let tries = 0; (await kv.get("key")) !== null; tries++) {
      assert.ok(tries < 100, "the key does not expire");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await kv.destroy();
  });

  test("destroy", async () => {
    const kv = await bucket();
    await kv.put("key", "v");
    assert.equal(await kv.destroy(), true);
    await rejects(kv.status(), 10059);
  });
}
