package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// fleet is a cluster of three servers, and the load on it from clients that stay with one server each.
type fleet struct {
	t       *testing.T
	servers []*process.Server

	replicas int              // of the bucket
	network  *process.Network // nil unless asked for
	book     *ledger
	random   *rand.Rand

	stop context.CancelFunc
	load sync.WaitGroup
	// served is, by server, when the newest write was begun that was acknowledged there.
	served [3]atomic.Int64
	// newest is, by server, the highest revision that its probe was told of.
	newest [3]atomic.Int64
	begun  time.Time

	kvs []jetstream.KeyValue // one of each server, for single requests

	old string // a copy of one server's files
}

// writersEach is how many clients write without pause at each server of a fleet.
const writersEach = 2

// probeEvery is how often one more write is begun at each server, whatever became of those before.
// Their acknowledgements tell when a server serves again.
const probeEvery = 20 * time.Millisecond

func newFleet(t *testing.T, networked bool) *fleet {
	t.Helper()
	return newFleetWith(t, networked, len(fleet{}.served))
}

// newFleetWith is newFleet with another number of replicas of the bucket.
func newFleetWith(t *testing.T, networked bool, replicas int) *fleet {
	t.Helper()
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("faults are drawn from -seed %d", *seed)
	f := &fleet{t: t, replicas: replicas, book: newLedger(bucket), random: rand.New(rand.NewSource(*seed)), begun: time.Now()}
	if networked {
		f.servers, f.network = process.NewNetworkedCluster(t, len(f.served), "")
	} else {
		f.servers = process.NewCluster(t, len(f.served), "")
	}
	createBucket(t, f.servers[0], bucket, "file", replicas)
	for i := range f.servers {
		f.kvs = append(f.kvs, f.pinned(i))
	}
	return f
}

// writers puts the servers under load, until the context that it returns is done.
func (f *fleet) writers() context.Context {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	for i, s := range f.servers {
		for n := range writersEach {
			w := newWriter(f.t, s, f.book, i*10+n)
			f.load.Go(func() { w.run(ctx) })
		}
		p := newWriter(f.t, s, f.book, i*10+9)
		f.load.Go(func() { f.probe(ctx, p, i) })
	}
	f.t.Cleanup(func() {
		cancel()
		f.load.Wait()
	})
	return ctx
}

// probe begins a write every now and then and does not wait for it before the next.
func (f *fleet) probe(ctx context.Context, w *writer, server int) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		<-ticker.C
		value, key := fmt.Sprintf("%d-%d", w.id, n), fmt.Sprintf("probe.%d", server)
		began := time.Since(f.begun)
		f.book.begin(value, write{key: key})
		f.load.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
			defer cancel()
			revision, err := w.kv.Put(ctx, key, []byte(value))
			f.book.end(value, judgeError(err), revision)
			if err == nil {
				raise(&f.newest[server], int64(revision))
				raise(&f.served[server], int64(began))
			}
		})
	}
}

// resumed waits until a write that was begun after the moment is acknowledged at each of the servers,
// and returns how long after the moment that was.
func (f *fleet) resumed(after time.Time, limit time.Duration, servers ...int) time.Duration {
	f.t.Helper()
	return f.await("writes", &f.served, after, limit, servers)
}

func (f *fleet) await(what string, served *[3]atomic.Int64, after time.Time, limit time.Duration, servers []int) time.Duration {
	f.t.Helper()
	moment := int64(after.Sub(f.begun))
	for left := slices.Clone(servers); ; time.Sleep(time.Millisecond) {
		left = slices.DeleteFunc(left, func(i int) bool { return served[i].Load() > moment })
		if len(left) == 0 {
			break
		}
		if time.Since(after) > limit {
			f.t.Errorf("no %s at servers %v within %s", what, left, limit)
			break
		}
	}
	return time.Since(after)
}

// leader waits until somebody leads the bucket.
func (f *fleet) leader() int {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if i := leaderOf(f.servers); i >= 0 {
			return i
		}
	}
	f.t.Fatal("nobody leads the bucket")
	return -1
}

func (f *fleet) others(than int) (all []int) {
	for i := range f.servers {
		if i != than {
			all = append(all, i)
		}
	}
	return all
}

func (f *fleet) all() []int { return f.others(-1) }

// calm lets the load run for a moment.
func (f *fleet) calm() {
	time.Sleep(300*time.Millisecond + time.Duration(f.random.Int63n(int64(700*time.Millisecond))))
}

// judge ends the load and judges everything: what clients were told, and that the replicas are equal.
func (f *fleet) judge() {
	f.t.Helper()
	f.judgeFrom(1)
}

// judgeFrom is judge where the load began with that revision.
func (f *fleet) judgeFrom(revision uint64) {
	f.t.Helper()
	f.stop()
	f.load.Wait()
	f.equal()
	stored, err := readStored(f.t, f.servers[0], bucket, revision)
	if err != nil {
		f.t.Fatal(err)
	}
	problems := f.book.verifyAll(f.t, stored)
	for _, s := range f.servers {
		verifyGets(f.t, s, bucket, stored)
	}
	total := f.book.count()
	f.t.Logf("%d writes acknowledged, %d lost or wrong; %d refused, %d of unknown outcome", total[acknowledged], problems, total[refused], total[unknown])
	if total[acknowledged] == 0 {
		f.t.Error("nothing was acknowledged: there was no load")
	}
}

// held is what a server says of one replica.
type held struct {
	Applied uint64 `json:"applied"`
	SHA256  string `json:"sha256"`
	Error   string `json:"error"`
}

// equal waits until all replicas of the bucket, and of the meta group, have applied the same, and
// demands that they hold the same then.
func (f *fleet) equal() {
	f.t.Helper()
	var last [][2]held
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		last = nil
		for _, s := range f.servers {
			if h, ok := digests(s); ok {
				last = append(last, h)
			}
		}
		if len(last) < len(f.servers) || slices.ContainsFunc(last, func(h [2]held) bool {
			return h[0].Applied != last[0][0].Applied || h[1].Applied != last[0][1].Applied
		}) {
			continue
		}
		for i, h := range last {
			if h != last[0] || h[0].SHA256 == "" || h[1].SHA256 == "" {
				f.t.Errorf("replicas differ: n%d holds %+v, n0 %+v", i, h, last[0])
			}
		}
		f.t.Logf("all replicas equal: log entry %d, sha256 %.16s...", last[0][0].Applied, last[0][0].SHA256)
		return
	}
	f.t.Errorf("the replicas do not come to the same position: %+v", last)
}

// digests asks a server what its replicas of the bucket and of the meta group hold.
func digests(s *process.Server) (h [2]held, ok bool) {
	var answer struct {
		Meta struct {
			Digest held `json:"digest"`
		} `json:"meta_cluster"`
		Accounts []struct {
			Streams []struct {
				Name   string `json:"name"`
				Digest held   `json:"digest"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	resp, err := http.Get("http://" + s.HTTP + "/jsz?streams=true&digest=true")
	if err != nil {
		return h, false
	}
	defer resp.Body.Close()
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return h, false
	}
	h[1] = answer.Meta.Digest
	for _, a := range answer.Accounts {
		for _, st := range a.Streams {
			if st.Name == "KV_"+bucket {
				h[0] = st.Digest
				return h, true
			}
		}
	}
	return h, false
}

// healthy asks a server whether all is well with it.
func healthy(s *process.Server) bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + s.HTTP + "/healthz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// untilHealth waits until a server's health is as wanted and returns how long that took.
func (f *fleet) untilHealth(server int, want bool, limit time.Duration) time.Duration {
	f.t.Helper()
	began := time.Now()
	for healthy(f.servers[server]) != want {
		if time.Since(began) > limit {
			f.t.Errorf("n%d: healthy is not %v after %s", server, want, limit)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// pinned connects a client to one server, for good.
func (f *fleet) pinned(server int) jetstream.KeyValue {
	f.t.Helper()
	nc := f.servers[server].Connect(f.t, nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(10*time.Second))
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		f.t.Fatal(err)
	}
	return kv
}

// spread describes durations by their order.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b time.Duration) int { return cmp.Compare(a, b) })
	at := func(q float64) time.Duration {
		return sorted[int(q*float64(len(sorted)-1)+0.5)].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d times: p50 %s, p99 %s, longest %s", len(sorted), at(0.5), at(0.99), at(1))
}
