// Follows a bucket with the watcher of a package, "nats" or "@nats-io/kv", through the loss of servers, and
// prints a line with the revision of each entry after one with 0, when it begins. It runs until it is killed.
//
//   CLEAT_COMPAT_URLS=host:port,... node watch.js BUCKET PACKAGE [INCLUDE]
import { connect as connectOld } from "nats";
import { connect } from "@nats-io/transport-node";
import { Kvm } from "@nats-io/kv";

const [bucket, name, include = "history"] = process.argv.slice(2);
const options = { servers: process.env.CLEAT_COMPAT_URLS.split(","), noRandomize: true, maxReconnectAttempts: -1, reconnectTimeWait: 50 };
const kv = name === "nats"
  ? await (await connectOld(options)).jetstream().views.kv(bucket)
  : await new Kvm(await connect(options)).open(bucket);
const watch = await kv.watch({ include });
console.log(0);
for await (const entry of watch) {
  console.log(entry.revision);
}
