package chaos

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// TestChaosWorkers shares a durable consumer among workers on all servers, under faults. Each stored message must
// be handed out, and none again of which a worker was told that its acknowledgement counts.
func TestChaosWorkers(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("faults are drawn from -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	l := &linear{begun: time.Now()}
	l.servers, l.network = process.NewNetworkedCluster(t, 3, "")
	createBucket(t, l.servers[0], bucket, "file", 3)
	book := newLedger(bucket)
	js, err := jetstream.New(l.servers[0].Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(context.Background(), "KV_"+bucket, jetstream.ConsumerConfig{
		Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 3 * time.Second, MaxAckPending: 200,
	}); err != nil {
		t.Fatal(err)
	}
	w := &work{acked: map[uint64]time.Time{}, given: map[uint64]int{}}
	l.run(t, 9, func(ctx context.Context, n int) {
		if n < 3 {
			wr := newWriter(t, l.servers[n], book, n)
			for i := 0; ctx.Err() == nil; i++ {
				wr.put("k", fmt.Sprint(n, "-", i))
				l.acked.Store(int64(book.count()[acknowledged]))
				time.Sleep(5 * time.Millisecond)
			}
			return
		}
		w.live(ctx, t, l.servers[n%3])
	})
	faults := append(nemeses, severe...)
	kinds := random.Perm(len(faults))
	for fault := range *kills {
		l.endure(t, fault+1, faults[kinds[fault%len(kinds)]], random)
	}
	l.finish(t, w, book)
}

// finish waits until all that was stored was handed out, or is not for too long.
func (l *linear) finish(t *testing.T, w *work, book *ledger) {
	t.Helper()
	last, stored := uint64(0), book.snapshot()
	for _, write := range stored {
		last = max(last, write.revision)
	}
	for end := time.Now().Add(time.Minute); w.missing(last) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	l.stop()
	l.load.Wait()
	if n := w.missing(last); n > 0 {
		t.Errorf("%d of %d messages were never handed out", n, last)
	}
	w.Lock()
	defer w.Unlock()
	for _, again := range w.again {
		t.Errorf("message %d was handed out again %s after its acknowledgement was confirmed", again.seq, again.after)
	}
	t.Logf("%d messages, %d handed out, %d confirmed", last, len(w.given), len(w.acked))
}

// work is what workers of one consumer know together.
type work struct {
	sync.Mutex
	acked map[uint64]time.Time // when the acknowledgement of each was confirmed
	given map[uint64]int       // how often each was handed out
	again []redelivery
}

type redelivery struct {
	seq   uint64
	after time.Duration
}

func (w *work) missing(last uint64) (n int) {
	w.Lock()
	defer w.Unlock()
	for seq := uint64(1); seq <= last; seq++ {
		if w.given[seq] == 0 {
			n++
		}
	}
	return n
}

// live takes messages from one server, one batch at a time, and acknowledges them.
func (w *work) live(ctx context.Context, t *testing.T, server *process.Server) {
	nc, err := nats.Connect(server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreDiscoveredServers(), nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	js, _ := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	for ctx.Err() == nil {
		c, err := js.Consumer(ctx, "KV_"+bucket, "workers")
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		asked := time.Now()
		batch, err := c.Fetch(5, jetstream.FetchMaxWait(500*time.Millisecond))
		if err != nil {
			continue
		}
		for m := range batch.Messages() {
			w.take(m, asked)
		}
	}
}

// take acknowledges a message. If that was confirmed before the message was even asked for it must not be here.
func (w *work) take(m jetstream.Msg, asked time.Time) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	seq := meta.Sequence.Stream
	w.Lock()
	w.given[seq]++
	if at := w.acked[seq]; !at.IsZero() && at.Before(asked) {
		w.again = append(w.again, redelivery{seq, asked.Sub(at)})
	}
	w.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if m.DoubleAck(ctx) != nil {
		return
	}
	w.Lock()
	if w.acked[seq].IsZero() {
		w.acked[seq] = time.Now()
	}
	w.Unlock()
}
