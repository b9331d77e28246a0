package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

var (
	cycles  = flag.Int("cycles", 5, "how often the server is killed")
	clients = flag.Int("clients", 16, "how many clients write at once")
	seed    = flag.Int64("seed", 0, "seed of the kills; 0: one from the clock")
)

const (
	bucket = "chaos"

	// Between a server being ready and its next kill.
	killAfterMin = 50 * time.Millisecond
	killAfterMax = 1500 * time.Millisecond
)

func TestChaosKill(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("replay the kills with: go test ./test/chaos -run TestChaosKill -v -cycles %d -clients %d -seed %d", *cycles, *clients, *seed)
	random := rand.New(rand.NewSource(*seed))
	server := process.New(t, "")
	book := newLedger(bucket)
	createBucket(t, server, bucket, "file", 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var load sync.WaitGroup
	for n := range *clients {
		w := newWriter(t, server, book, n)
		load.Go(func() { w.run(ctx) })
	}

	var slowest time.Duration
	for cycle := range *cycles {
		time.Sleep(killAfterMin + time.Duration(random.Int63n(int64(killAfterMax-killAfterMin))))
		server.Kill()
		if random.Intn(4) == 0 { // Sometimes it does not even get up again.
			if err := server.Launch(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(random.Int63n(int64(100 * time.Millisecond))))
			server.Kill()
		}
		began := time.Now()
		if err := server.Start(); err != nil {
			t.Fatalf("cycle %d: %v\n%s", cycle+1, err, server.LogTail(40))
		}
		up := time.Since(began)
		slowest = max(slowest, up)
		known := book.snapshot()
		stored, err := readStored(t, server, bucket, book.verified+1)
		if err != nil {
			t.Fatalf("cycle %d: %v", cycle+1, err)
		}
		acked, lost := book.verifyAcked(known, stored)
		for _, line := range lost {
			t.Error(line)
		}
		t.Logf("cycle %d: up after %s; %d acknowledged so far, %d lost; checked after %s",
			cycle+1, up.Round(time.Millisecond), acked, len(lost), time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			break
		}
	}
	cancel()
	load.Wait()

	began := time.Now()
	stored, err := readStored(t, server, bucket, 1)
	if err != nil {
		t.Fatal(err)
	}
	read := time.Since(began)
	problems := book.verifyAll(t, stored)
	verifyGets(t, server, bucket, stored)
	t.Logf("all %d values read in %s, judged and their last ones got in %s", len(stored), read.Round(time.Millisecond), (time.Since(began) - read).Round(time.Millisecond))
	total := book.count()
	t.Logf("%d kills, %d clients, seed %d: %d writes acknowledged, %d lost or wrong; %d refused, %d of unknown outcome; slowest start %s",
		*cycles, *clients, *seed, total[acknowledged], problems, total[refused], total[unknown], slowest.Round(time.Millisecond))
	if total[acknowledged] < *cycles**clients {
		t.Errorf("only %d writes were acknowledged: there was no load", total[acknowledged])
	}
}

// createBucket creates a bucket that never drops a value, so that every acknowledged write can be
// looked up again, on the engine "file", "rocksdb" or "memory".
func createBucket(t *testing.T, server *process.Server, name, engine string, replicas int) {
	t.Helper()
	js, err := jetstream.New(server.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	config := jetstream.StreamConfig{
		Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1 << 40,
		Metadata: map[string]string{"cleat.storage": engine}, Replicas: replicas,
		AllowDirect: true, AllowRollup: true, DenyDelete: true, Discard: jetstream.DiscardNew,
	}
	if engine == "memory" {
		config.Storage, config.Metadata = jetstream.MemoryStorage, nil
	}
	if _, err := js.CreateStream(context.Background(), config); err != nil {
		t.Fatal(err)
	}
}

// record is one stored value.
type record struct {
	revision   uint64
	key, value string
}

// readStored reads what is stored in a bucket from a revision on, up to what is stored as the call
// begins.
func readStored(t *testing.T, server *process.Server, name string, from uint64) ([]record, error) {
	t.Helper()
	nc := server.Connect(t)
	defer nc.Close()
	js, err := nc.JetStream(nats.MaxWait(30 * time.Second)) // A start replays what no checkpoint holds yet.
	if err != nil {
		return nil, err
	}
	info, err := streamInfo(js, name)
	if err != nil || info.State.LastSeq < from {
		return nil, err
	}
	sub, err := js.SubscribeSync("$KV."+name+".>", nats.OrderedConsumer(), nats.StartSequence(from))
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	records := make([]record, 0, info.State.LastSeq-from+1)
	for revision := from - 1; revision < info.State.LastSeq; {
		msg, err := sub.NextMsg(10 * time.Second)
		if err != nil {
			return nil, fmt.Errorf("reading %s stopped after revision %d of %d: %w", name, revision, info.State.LastSeq, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return nil, err
		}
		revision = meta.Sequence.Stream
		records = append(records, record{revision, msg.Subject[len("$KV."+name+"."):], string(msg.Data)})
	}
	return records, nil
}

// streamInfo asks until the group has a leader again; for a replay may take long on
// a busy machine.
func streamInfo(js nats.JetStreamContext, name string) (*nats.StreamInfo, error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		info, err := js.StreamInfo("KV_" + name)
		var api *nats.APIError
		if err == nil || !errors.As(err, &api) || api.Code != 503 || time.Now().After(deadline) {
			return info, err
		}
	}
}

// verifyGets holds what a get answers against the last stored value of each key.
func verifyGets(t *testing.T, server *process.Server, name string, stored []record) {
	t.Helper()
	js, err := jetstream.New(server.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	kv, err := js.KeyValue(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]record{}
	for _, r := range stored {
		last[r.key] = r
	}
	for key, want := range last {
		entry, err := kv.Get(ctx, key)
		if err != nil {
			t.Fatalf("get %s: %v", key, err)
		}
		if got := (record{entry.Revision(), key, string(entry.Value())}); got != want {
			t.Errorf("get %s: got %+v, the last stored is %+v", key, got, want)
		}
	}
}
