// Follows a bucket with the watcher of the package "nats", through the loss of servers, and prints a
// line with the revision of each entry after one with 0, when it begins. It runs until it is killed.
//
//   CLEAT_COMPAT_URLS=host:port,... node watch.js BUCKET
//
// The watcher of @nats-io/kv misses nothing either, but looks for a lost consumer after 60 s only.
import { connect } from "nats";

const servers = process.env.CLEAT_COMPAT_URLS.split(",");
const nc = await connect({ servers, noRandomize: true, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
const kv = await nc.jetstream().views.kv(process.argv[2]);
const watch = await kv.watch({ include: "history" });
console.log(0);
for await (const entry of watch) {
  console.log(entry.revision);
}
