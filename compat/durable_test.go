package compat

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// ends are the ways in which a server ends; what was acknowledged before survives each.
var ends = map[string]func(*process.Server) error{
	"Stop": func(s *process.Server) error { return s.Restart() },
	"Kill": func(s *process.Server) error { s.Kill(); return s.Start() },
}

func TestDurableBucket(t *testing.T) {
	for end, restart := range ends {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			ctx, s := testContext(t), process.New(t, "")
			js := jetStream(t, s)
			kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
				Bucket: "my_kv_store", History: 3, Description: "kept", LimitMarkerTTL: ttl,
			})
			must(t, err)
			_, err = kv.PutString(ctx, "greeting", "hello")
			must(t, err)
			_, err = kv.PutString(ctx, "greeting", "hello world")
			must(t, err)
			_, err = kv.PutString(ctx, "deleted", "v")
			must(t, err)
			must(t, kv.Delete(ctx, "deleted"))
			_, err = kv.PutString(ctx, "purged", "v")
			must(t, err)
			must(t, kv.Purge(ctx, "purged"))
			_, err = kv.Create(ctx, "expiring", []byte("v"), jetstream.KeyTTL(2*time.Second))
			must(t, err)
			before, err := kv.Status(ctx)
			must(t, err)

			must(t, restart(s))
			kv, err = jetStream(t, s).KeyValue(ctx, "my_kv_store")
			must(t, err)
			after, err := kv.Status(ctx)
			must(t, err)
			equal(t, "values", after.Values(), before.Values())
			equal(t, "bytes", after.Bytes(), before.Bytes())
			equal(t, "description", after.Config().Description, "kept")
			entry, err := kv.Get(ctx, "greeting")
			must(t, err)
			equal(t, "value", string(entry.Value()), "hello world")
			equal(t, "revision", entry.Revision(), 2)
			history, err := kv.History(ctx, ">")
			must(t, err)
			equal(t, "history", operations(history), "PUT PUT PUT DEL PURGE PUT")
			_, err = kv.Update(ctx, "greeting", []byte("x"), 1)
			wantCode(t, err, 10071)
			revision, err := kv.Update(ctx, "greeting", []byte("hello again"), 2)
			must(t, err)
			equal(t, "revision goes on", revision, 8)
			eventually(t, "the key expires after the restart as well", func() bool {
				_, err := kv.Get(ctx, "expiring")
				return err != nil
			})
		})
	}
}

func TestDurableConsumers(t *testing.T) {
	t.Parallel()
	durableConsumers(t, ends["Stop"])
}

// The reference writes acknowledgements down some time later and forgets the last after a kill.
func TestPromiseDurableConsumersKill(t *testing.T) {
	t.Parallel()
	durableConsumers(t, ends["Kill"])
}

func durableConsumers(t *testing.T, restart func(*process.Server) error) {
	ctx, s := testContext(t), process.New(t, "")
	js := jetStream(t, s)
	created, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name(t), Subjects: []string{name(t) + ".>"}})
	must(t, err)
	c, err := created.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "pull", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second})
	must(t, err)
	publish(t, js, 0, 10)
	fetch(t, c, 0, 4, doubleAck)
	fetch(t, c, 4, 2, noAck)

	old, err := s.Connect(t).JetStream()
	must(t, err)
	push, err := old.SubscribeSync(name(t)+".a", nats.Durable("push"), nats.AckExplicit(), nats.AckWait(2*time.Second), nats.DeliverSubject("to.me"))
	must(t, err)
	for n := range 3 {
		msg, err := push.NextMsg(wait)
		must(t, err)
		equal(t, "data", string(msg.Data), fmt.Sprint(n))
		must(t, msg.AckSync())
	}

	must(t, restart(s))
	js = jetStream(t, s)
	c, err = js.Consumer(ctx, name(t), "pull")
	must(t, err)
	equal(t, "ack floor", c.CachedInfo().AckFloor.Stream, 4)
	equal(t, "pending acks", c.CachedInfo().NumAckPending, 2)
	time.Sleep(2200 * time.Millisecond) // Past the ack wait of the two.
	fetch(t, c, 4, 2, doubleAck)
	fetch(t, c, 6, 4, doubleAck)

	// The push consumer goes on behind what was acknowledged. What was delivered but not
	// acknowledged may come first or later, so only the set is certain.
	nc := s.Connect(t)
	sub, err := nc.SubscribeSync("to.me")
	must(t, err)
	missing := map[string]bool{}
	for n := 3; n < 10; n++ {
		missing[fmt.Sprint(n)] = true
	}
	for len(missing) > 0 {
		msg, err := sub.NextMsg(wait)
		must(t, err)
		if msg.Header.Get("Status") != "" {
			continue
		}
		if n := string(msg.Data); n < "3" {
			t.Fatalf("acknowledged message %s was delivered again", n)
		}
		delete(missing, string(msg.Data))
		must(t, msg.Respond([]byte("+ACK")))
	}
}

// Deduplication remembers what it acknowledged before a crash.
func TestDurableDuplicates(t *testing.T) {
	for end, restart := range ends {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			ctx, s := testContext(t), process.New(t, "")
			js := jetStream(t, s)
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "dedup", Subjects: []string{"dedup"}})
			must(t, err)
			first, err := js.Publish(ctx, "dedup", nil, jetstream.WithMsgID("id"))
			must(t, err)
			must(t, restart(s))
			second, err := jetStream(t, s).Publish(ctx, "dedup", nil, jetstream.WithMsgID("id"))
			must(t, err)
			equal(t, "duplicate", second.Duplicate, true)
			equal(t, "sequence", second.Sequence, first.Sequence)
		})
	}
}
