// The README's program in JavaScript: opens the bucket my_kv_store, puts what its arguments say, if
// any, and prints what is there. Usage: node example.js URL KEY [VALUE]
import { connect } from "@nats-io/transport-node";
import { Kvm } from "@nats-io/kv";

const [url, key, value] = process.argv.slice(2);
const nc = await connect({ servers: url });
const kv = await new Kvm(nc).open("my_kv_store");
if (value !== undefined) {
  await kv.put(key, value);
}
console.log((await kv.get(key)).string());
await nc.close();
