package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cleatkv/cleat/test/process"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	kills  = flag.Int("kills", 3, "how often a server of a cluster is killed or stopped for a while")
	opsMin = flag.Int("ops", 0, "end after so many operations, 0: with the last kill")
)

// One operation on one key, as its client saw it.
type input struct {
	op       string // put, update, get
	key      string
	value    string
	expected uint64 // of update
}

type output struct {
	unknown  bool // may or may not have happened
	refused  bool // did not happen: a lost compare-and-set
	value    string
	revision uint64 // 0 of a get: no such key
}

// state of one key. The revision of a write whose outcome nobody saw is not known yet: anything
// above floor.
type state struct {
	value    string
	revision uint64
	floor    uint64
	open     bool
}

// A model of one key of a bucket: revisions are witnesses, so almost every state is exact.
var keyModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, o := range history {
			k := o.Input.(input).key
			if byKey[k] == nil {
				keys = append(keys, k)
			}
			byKey[k] = append(byKey[k], o)
		}
		var parts [][]porcupine.Operation
		for _, k := range keys {
			parts = append(parts, byKey[k])
		}
		return parts
	},
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v -> %+v", in, out)
	},
}

func step(s state, in input, out output) (bool, state) {
	switch in.op {
	case "get":
		if out.value != s.value {
			return false, s
		}
		return s.learn(out.revision)
	case "put":
		if out.unknown {
			return true, state{value: in.value, floor: max(s.revision, s.floor), open: true}
		}
		return out.revision > max(s.revision, s.floor), state{value: in.value, revision: out.revision}
	default: // update
		if out.refused {
			return s.open || s.revision != in.expected, s
		}
		ok, before := s.learn(in.expected)
		if out.unknown {
			// Whether it happened decides the search: unknown operations may also be left
			// out, by standing after everything else.
			return true, pick(ok, state{value: in.value, floor: max(before.revision, before.floor), open: true}, s)
		}
		return ok && out.revision > in.expected, state{value: in.value, revision: out.revision}
	}
}

func pick(ok bool, a, b state) state {
	if ok {
		return a
	}
	return b
}

// learn holds a revision that somebody saw against the state.
func (s state) learn(revision uint64) (bool, state) {
	if !s.open {
		return s.revision == revision, s
	}
	return revision > s.floor, state{value: s.value, revision: revision}
}

// history collects operations of all clients.
type history struct {
	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *history) add(o porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// TestLinearizableWithNATSClient puts, updates and gets through official clients on every server of
// three while servers are killed, stopped and cut off, and demands that all that the clients saw is one
// order of operations.
func TestLinearizableWithNATSClient(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("replay the faults with: go test ./test/chaos -run TestLinearizable -v -kills %d -seed %d", *kills, *seed)
	l := newLinear(t, 3, jetstream.KeyValueConfig{})
	l.clients(t)
	random := rand.New(rand.NewSource(*seed))
	kinds := random.Perm(len(nemeses))
	var pauses []time.Duration
	for fault := range *kills {
		pauses = append(pauses, l.endure(t, fault+1, nemeses[kinds[fault%len(kinds)]], random))
	}
	for l.h.len() < *opsMin {
		time.Sleep(10 * time.Millisecond)
	}
	verdict, info := l.check()
	t.Logf("%d operations, %d writes acknowledged; writes resumed, %s", l.h.len(), l.acked.Load(), spread(pauses))
	if verdict != porcupine.Ok {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("cleat-linear-%d.html", *seed))
		if err := porcupine.VisualizePath(keyModel, info, path); err == nil {
			t.Logf("timeline: %s", path)
		}
		t.Fatalf("the history is not linearizable: %s", verdict)
	}
}

// TestStaleReadsAreFound is the control of the test above: with stale reads opted into and a server cut
// off, the same clients must see what is no single order of operations, or the check shows nothing.
func TestStaleReadsAreFound(t *testing.T) {
	l := newLinear(t, 3, jetstream.KeyValueConfig{Metadata: map[string]string{"cleat.reads": "stale"}})
	l.clients(t)
	time.Sleep(time.Second)
	lead := leaderOf(l.servers)
	if lead < 0 {
		t.Fatal("nobody leads the bucket")
	}
	l.network.Isolate((lead+1)%3, 3)
	time.Sleep(3 * time.Second)
	l.network.Heal()
	if verdict, _ := l.check(); verdict != porcupine.Illegal {
		t.Errorf("%d operations with stale reads and a partition: %s", l.h.len(), verdict)
	}
}

// linear is a cluster under the load of clients who note what they see.
type linear struct {
	field
	h     history
	acked atomic.Int64
	ids   atomic.Int64
	begun time.Time
	stop  context.CancelFunc
	load  sync.WaitGroup
}

// newLinear starts so many servers, with a replica of the bucket on each.
func newLinear(t *testing.T, servers int, config jetstream.KeyValueConfig) *linear {
	t.Helper()
	l := &linear{begun: time.Now()}
	l.servers, l.network = process.NewNetworkedCluster(t, servers, "")
	config.Bucket, config.Replicas = bucket, servers
	createReplicated(t, l.servers[0], config)
	return l
}

// run calls a client's life for each of so many clients.
func (l *linear) run(t *testing.T, clients int, live func(ctx context.Context, n int)) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for n := range clients {
		l.load.Go(func() { live(ctx, n) })
	}
	t.Cleanup(func() {
		cancel()
		l.load.Wait()
	})
}

func (l *linear) clients(t *testing.T) {
	l.run(t, 12, func(ctx context.Context, n int) {
		(&client{t: t, server: l.servers[n%len(l.servers)], h: &l.h, ids: &l.ids, acked: &l.acked, begun: l.begun, random: rand.New(rand.NewSource(*seed + int64(n)))}).run(ctx)
	})
}

// endure lets a fault strike, ends it some seconds later, and returns how long no write was acknowledged.
func (l *linear) endure(t *testing.T, number int, n nemesis, random *rand.Rand) time.Duration {
	t.Helper()
	time.Sleep(time.Second + time.Duration(random.Int63n(int64(time.Second))))
	victim := random.Intn(len(l.servers))
	if lead := leaderOf(l.servers); lead >= 0 && random.Intn(3) > 0 {
		victim = lead
	}
	at := time.Now()
	end := n.strike(&l.field, victim)
	if n.total {
		time.Sleep(time.Until(at.Add(2 * time.Second)))
		if err := end(); err != nil {
			t.Fatalf("n%d %s: %v", victim, n.name, err)
		}
	}
	pause := untilAcked(&l.acked, 30*time.Second)
	t.Logf("fault %d (n%d %s): next write acknowledged after %s", number, victim, n.name, pause.Round(time.Millisecond))
	if pause > 10*time.Second {
		t.Errorf("writes did not resume")
	}
	if n.total {
		return pause
	}
	time.Sleep(time.Until(at.Add(4 * time.Second)))
	if err := end(); err != nil {
		t.Fatalf("n%d: %v\n%s", victim, err, l.servers[victim].LogTail(30))
	}
	return pause
}

// check ends the load and looks for one order of all operations.
func (l *linear) check() (porcupine.CheckResult, porcupine.LinearizationInfo) {
	l.stop()
	l.load.Wait()
	return porcupine.CheckOperationsVerbose(keyModel, l.h.ops, 5*time.Minute)
}

func createReplicated(t *testing.T, server *process.Server, config jetstream.KeyValueConfig) {
	t.Helper()
	js, err := jetstream.New(server.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := js.CreateKeyValue(ctx, config); err != nil {
		t.Fatal(err)
	}
}

// leaderOf asks the servers who leads the bucket.
func leaderOf(servers []*process.Server) int {
	for _, s := range servers {
		nc, err := nats.Connect(s.URL(), nats.Timeout(300*time.Millisecond), nats.MaxReconnects(0))
		if err != nil {
			continue
		}
		js, _ := jetstream.New(nc)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		st, err := js.Stream(ctx, "KV_"+bucket)
		cancel()
		nc.Close()
		if err != nil || st.CachedInfo().Cluster == nil {
			continue
		}
		for i := range servers {
			if st.CachedInfo().Cluster.Leader == fmt.Sprint("n", i) {
				return i
			}
		}
	}
	return -1
}

func untilAcked(acked *atomic.Int64, limit time.Duration) time.Duration {
	began := time.Now()
	// What was on its way when the fault struck may still be answered.
	time.Sleep(20 * time.Millisecond)
	before := acked.Load()
	for acked.Load() == before && time.Since(began) < limit {
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// client issues one operation at a time on one server. After one of unknown outcome it goes on
// under a new id, as the checker demands.
type client struct {
	t      *testing.T
	server *process.Server
	h      *history
	ids    *atomic.Int64
	acked  *atomic.Int64
	begun  time.Time
	random *rand.Rand
	id     int
	known  map[string]uint64
}

func (c *client) run(ctx context.Context) {
	nc, err := nats.Connect(c.server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreDiscoveredServers(), nats.RetryOnFailedConnect(true))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer nc.Close()
	js, _ := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	c.known = map[string]uint64{}
	c.id = int(c.ids.Add(1))
	var kv jetstream.KeyValue
	for ctx.Err() == nil {
		if kv == nil {
			if kv, err = js.KeyValue(ctx, bucket); err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
		}
		c.operation(kv)
	}
}

func (c *client) operation(kv jetstream.KeyValue) {
	in := input{key: fmt.Sprint("k", c.random.Intn(10)), value: fmt.Sprint(c.ids.Load(), ".", c.random.Int63())}
	switch r := c.random.Intn(10); {
	case r < 5:
		in.op, in.value = "get", ""
	case r < 8:
		in.op = "put"
	default:
		in.op, in.expected = "update", c.known[in.key]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	o := porcupine.Operation{ClientId: c.id, Input: in, Call: int64(time.Since(c.begun))}
	out, done := c.do(ctx, kv, in)
	o.Output, o.Return = out, int64(time.Since(c.begun))
	switch {
	case out.unknown && in.op == "get", !done:
		// A read without an answer says nothing; nor does a write that was definitely not taken.
	case out.unknown:
		o.Return = int64(1 << 62)
		c.h.add(o)
		c.id = int(c.ids.Add(1))
	default:
		c.h.add(o)
		c.known[in.key] = max(out.revision, c.known[in.key])
	}
}

// do runs the operation; done is false if it was definitely not taken, for reasons that say nothing
// of the state.
func (c *client) do(ctx context.Context, kv jetstream.KeyValue, in input) (out output, done bool) {
	var err error
	switch in.op {
	case "get":
		var e jetstream.KeyValueEntry
		if e, err = kv.Get(ctx, in.key); err == nil {
			return output{value: string(e.Value()), revision: e.Revision()}, true
		}
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return output{}, true
		}
	case "put":
		out.revision, err = kv.Put(ctx, in.key, []byte(in.value))
	default:
		out.revision, err = kv.Update(ctx, in.key, []byte(in.value), in.expected)
	}
	var api *jetstream.APIError
	switch {
	case err == nil:
		c.acked.Add(1)
		return out, true
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return output{refused: true}, true
	case errors.As(err, &api), errors.Is(err, jetstream.ErrNoStreamResponse):
		return output{}, false
	}
	return output{unknown: true}, true
}

// The checker must be able to fail: a stale read, a lost write and a wrong refusal.
func TestKeyModelFindsPlanted(t *testing.T) {
	op := func(id int, call, ret int64, in input, out output) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{ClientId: id, Input: in, Output: out, Call: call, Return: ret}
	}
	put1 := op(1, 1, 2, input{op: "put", value: "a"}, output{revision: 1})
	put2 := op(1, 3, 4, input{op: "put", value: "b"}, output{revision: 2})
	for name, c := range map[string]struct {
		ops []porcupine.Operation
		ok  bool
	}{
		"right":         {[]porcupine.Operation{put1, put2, op(2, 5, 6, input{op: "get"}, output{value: "b", revision: 2})}, true},
		"stale read":    {[]porcupine.Operation{put1, put2, op(2, 5, 6, input{op: "get"}, output{value: "a", revision: 1})}, false},
		"lost write":    {[]porcupine.Operation{put1, op(2, 5, 6, input{op: "get"}, output{})}, false},
		"wrong refusal": {[]porcupine.Operation{put1, op(2, 5, 6, input{op: "update", expected: 1}, output{refused: true})}, false},
		"two winners": {[]porcupine.Operation{put1,
			op(2, 3, 6, input{op: "update", value: "x", expected: 1}, output{revision: 2}),
			op(3, 3, 6, input{op: "update", value: "y", expected: 1}, output{revision: 3})}, false},
		"unknown seen":     {[]porcupine.Operation{put1, op(2, 3, 1<<62, input{op: "put", value: "u"}, output{unknown: true}), op(3, 5, 6, input{op: "get"}, output{value: "u", revision: 9})}, true},
		"unknown not seen": {[]porcupine.Operation{put1, op(2, 3, 1<<62, input{op: "put", value: "u"}, output{unknown: true}), op(3, 5, 6, input{op: "get"}, output{value: "a", revision: 1})}, true},
	} {
		if got := porcupine.CheckOperations(keyModel, c.ops); got != c.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}
