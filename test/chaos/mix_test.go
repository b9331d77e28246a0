package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

const (
	// markerTTL is how long what an expired key left is kept: longer than any run.
	markerTTL = time.Hour

	// mixPause is how long a client rests between operations, on average. The checker keeps all of a bucket
	// together, so that its work grows with the square of the operations.
	mixPause = 8 * time.Millisecond

	// header by which each write is told apart, also deletes.
	headerID = "Chaos-Id"
)

// TestLinearizableMix has clients do all that a bucket can do, on five servers under faults of up to
// all of them: guarded and unguarded puts, deletes and purges, keys with a time to live, reads of a key, of a
// revision, of all keys at once by a batch and by a consumer. All that they see must be one order of the
// whole bucket; nothing refused may show up; and what watchers see must be that order, too. A short run takes one
// engine.
func TestLinearizableMix(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	engines := []string{"file", "rocksdb", "memory"}
	if *kills < len(engines)*2 {
		engines = engines[*seed%3:][:1]
	}
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) { mixOn(t, engine) })
	}
}

func mixOn(t *testing.T, engine string) {
	t.Logf("draw the same faults with: go test ./test/chaos -run TestLinearizableMix/%s -v -kills %d -seed %d", engine, *kills, *seed)
	random := rand.New(rand.NewSource(*seed))
	faults := slices.Concat(nemeses, severe)
	config := jetstream.KeyValueConfig{LimitMarkerTTL: markerTTL, Metadata: map[string]string{"cleat.storage": engine}}
	if engine == "memory" { // It may forget when a majority is killed.
		config.Storage, config.Metadata = jetstream.MemoryStorage, nil
		faults = slices.DeleteFunc(faults, func(n nemesis) bool { return n.name == "killed with all others" })
	}
	l := newLinear(t, 5, config)
	m := &mix{linear: l, watched: map[string]uint64{}, refused: map[string]string{}}
	for i := range l.servers {
		m.watch(t, i)
	}
	l.run(t, 10, func(ctx context.Context, n int) {
		(&mixer{t: t, mix: m, server: l.servers[n%len(l.servers)], random: rand.New(rand.NewSource(*seed + int64(n)))}).live(ctx)
	})
	kinds := random.Perm(len(faults))
	var pauses []time.Duration
	for fault := range *kills {
		pauses = append(pauses, l.endure(t, fault+1, faults[kinds[fault%len(kinds)]], random))
	}
	time.Sleep(2 * time.Second)
	l.stop()
	l.load.Wait()
	m.judge(t, engine)
	t.Logf("%d writes acknowledged; writes resumed, %s", l.acked.Load(), spread(pauses))
}

// mix is what the clients and watchers of one run know.
type mix struct {
	*linear
	mu      sync.Mutex
	watched map[string]uint64 // revision of each write that a watcher was shown
	refused map[string]string // errors of writes that are not to have happened
}

func (m *mix) now() int64 { return int64(time.Since(m.begun)) }

// watch follows the bucket from one server and notes which write got which revision.
func (m *mix) watch(t *testing.T, server int) {
	nc := m.servers[server].Connect(t, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreDiscoveredServers())
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	if _, err := js.Subscribe("$KV."+bucket+".>", func(msg *nats.Msg) {
		meta, err := msg.Metadata()
		if err != nil {
			t.Errorf("watcher at n%d: %v", server, err)
			return
		}
		if meta.Sequence.Stream <= last {
			t.Errorf("watcher at n%d: revision %d after %d", server, meta.Sequence.Stream, last)
		}
		last = meta.Sequence.Stream
		m.show(t, msg.Header.Get(headerID), last)
	}, nats.OrderedConsumer()); err != nil {
		t.Fatal(err)
	}
}

// show notes that somebody was shown a write at a revision.
func (m *mix) show(t *testing.T, id string, revision uint64) {
	if id == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if before := m.watched[id]; before != 0 && before != revision {
		t.Errorf("write %s has the revisions %d and %d", id, before, revision)
	}
	m.watched[id] = revision
}

// refuse notes that a write is said not to have happened.
func (m *mix) refuse(id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[id] = err.Error()
}

// judge looks for one order of all operations, and for refused writes that happened.
func (m *mix) judge(t *testing.T, engine string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, why := range m.refused {
		if r := m.watched[id]; r != 0 {
			t.Errorf("write %s was refused (%s), and has revision %d", id, why, r)
		}
	}
	ops, unknown, found := m.h.ops, 0, 0
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for i := range ops {
		in, out := ops[i].Input.(mixInput), ops[i].Output.(mixOutput)
		if !out.unknown {
			continue
		}
		unknown++
		if r := m.watched[in.id]; r != 0 {
			// Somebody saw it, so it happened, and when is known.
			found++
			out.unknown, out.revision = false, r
			ops[i].Output = out
		}
	}
	began := time.Now()
	model := mixModel(ops)
	verdict, info := porcupine.CheckOperationsVerbose(model, ops, 5*time.Minute)
	t.Logf("%d operations, %d of unknown outcome, of which %d were seen to have happened; %d refused: %s after %s",
		len(ops), unknown, found, len(m.refused), verdict, time.Since(began).Round(time.Millisecond))
	if verdict != porcupine.Ok {
		tellStuck(t, model, ops, info)
		base := filepath.Join(os.TempDir(), fmt.Sprintf("cleat-mix-%s-%d", engine, *seed))
		_ = porcupine.VisualizePath(model, info, base+".html")
		var text strings.Builder
		for _, o := range ops {
			fmt.Fprintf(&text, "%d %d %+v %+v\n", o.Call, o.Return, o.Input, o.Output)
		}
		_ = os.WriteFile(base+".txt", []byte(text.String()), 0o644)
		t.Fatalf("the history is not linearizable: %s; %s.html", verdict, base)
	}
}

// mixer issues one operation at a time on one server.
type mixer struct {
	*mix
	t      *testing.T
	server *process.Server
	random *rand.Rand
	nc     *nats.Conn
	js     jetstream.JetStream
	old    nats.JetStreamContext
	id     int
	known  [mixKeys]uint64
}

func (c *mixer) live(ctx context.Context) {
	var err error
	c.nc, err = nats.Connect(c.server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreDiscoveredServers(), nats.RetryOnFailedConnect(true))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer c.nc.Close()
	c.js, _ = jetstream.New(c.nc, jetstream.WithDefaultTimeout(2*time.Second))
	c.old, _ = c.nc.JetStream(nats.MaxWait(2 * time.Second))
	c.id = int(c.ids.Add(1))
	for ctx.Err() == nil {
		c.operation()
		time.Sleep(time.Duration(c.random.Int63n(int64(2 * mixPause))))
	}
}

func (c *mixer) operation() {
	in := mixInput{op: "write", key: c.random.Intn(mixKeys), id: fmt.Sprint(c.id, ".", c.ids.Add(1)), call: c.now()}
	var out mixOutput
	var done bool
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	switch r := c.random.Intn(100); {
	case r < 25:
		in.op = "read"
		out, done = c.read(ctx, in.key, 0)
	case r < 32:
		in.op, in.expected = "at", c.known[in.key]
		if done = in.expected != 0; done {
			out, done = c.read(ctx, in.key, in.expected)
		}
	case r < 40:
		in.op = "all"
		out, done = c.batch()
	case r < 46:
		in.op = "all"
		out, done = c.view()
	default:
		c.vary(&in, r)
		out, done = c.write(ctx, in)
	}
	out.done = c.now()
	o := porcupine.Operation{ClientId: c.id, Input: in, Output: out, Call: in.call, Return: out.done}
	switch {
	case !done: // A read without an answer says nothing; nor does a write that was definitely not taken.
	case out.unknown:
		out.done = int64(1 << 62)
		o.Output, o.Return = out, out.done
		c.h.add(o)
		c.id = int(c.ids.Add(1))
	default:
		c.h.add(o)
		c.learn(in, out)
	}
}

// vary draws what kind of write it is.
func (c *mixer) vary(in *mixInput, r int) {
	switch {
	case r < 62: // An unguarded put.
	case r < 70:
		in.ttl = int64(time.Second) * int64(1+c.random.Intn(3))
	case r < 84:
		in.guarded, in.expected = true, c.known[in.key]
	case r < 88: // A create of a key that never was.
		in.guarded = true
	case r < 94:
		in.marker = true
	default:
		in.marker, in.guarded, in.expected = true, true, c.known[in.key]
	}
}

func (c *mixer) learn(in mixInput, out mixOutput) {
	if in.op == "write" {
		c.known[in.key] = max(c.known[in.key], out.revision)
	}
	for k, s := range out.seen {
		c.known[k] = max(c.known[k], s.revision)
		c.show(c.t, s.id, s.revision)
	}
}

// write sends what nats.go sends for Put, Create, Update, Delete and Purge, with a name for the write. done is
// false if it was definitely not taken, for reasons that say nothing of the state.
func (c *mixer) write(ctx context.Context, in mixInput) (out mixOutput, done bool) {
	msg := nats.NewMsg(subjectOf(in.key))
	msg.Header.Set(headerID, in.id)
	if in.marker {
		msg.Header.Set("KV-Operation", "DEL")
		if c.random.Intn(2) == 0 {
			msg.Header.Set("KV-Operation", "PURGE")
			msg.Header.Set("Nats-Rollup", "sub")
		}
	} else {
		msg.Data = []byte(in.id)
	}
	if in.ttl > 0 {
		msg.Header.Set("Nats-TTL", time.Duration(in.ttl).String())
	}
	if in.guarded {
		msg.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(in.expected, 10))
	}
	ack, err := c.js.PublishMsg(ctx, msg)
	var api *jetstream.APIError
	switch {
	case err == nil:
		c.acked.Add(1)
		return mixOutput{revision: ack.Sequence}, true
	case errors.As(err, &api), errors.Is(err, jetstream.ErrNoStreamResponse):
		c.refuse(in.id, err)
		if api != nil && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			_, last, _ := strings.Cut(api.Description, ": ")
			revision, err := strconv.ParseUint(last, 10, 64)
			if err != nil {
				c.t.Errorf("which is the last revision? %q", api.Description)
			}
			return mixOutput{refused: true, revision: revision}, true
		}
		return out, false
	}
	return mixOutput{unknown: true}, true
}

// read gets the last value of a key, or one at a revision.
func (c *mixer) read(ctx context.Context, key int, revision uint64) (out mixOutput, done bool) {
	stream, err := c.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return out, false
	}
	var msg *jetstream.RawStreamMsg
	if revision != 0 {
		msg, err = stream.GetMsg(ctx, revision)
	} else {
		msg, err = stream.GetLastMsgForSubject(ctx, subjectOf(key))
	}
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return out, true
	case err != nil:
		return out, false
	}
	if msg.Subject != subjectOf(key) {
		c.t.Errorf("asked for %s at %d, got %s", subjectOf(key), revision, msg.Subject)
	}
	out.seen[key] = seen{msg.Sequence, msg.Header.Get(headerID)}
	return out, true
}

// batch reads all keys by one direct get.
func (c *mixer) batch() (out mixOutput, done bool) {
	ask, _ := json.Marshal(map[string]any{"multi_last": []string{"$KV." + bucket + ".>"}})
	inbox := nats.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return out, false
	}
	defer sub.Unsubscribe()
	if err := c.nc.PublishRequest("$JS.API.DIRECT.GET.KV_"+bucket, inbox, ask); err != nil {
		return out, false
	}
	for {
		msg, err := sub.NextMsg(2 * time.Second)
		if err != nil {
			return out, false
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
			revision, _ := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
			c.place(&out, msg.Header.Get("Nats-Subject"), seen{revision, msg.Header.Get(headerID)})
		case "204", "404":
			return out, true
		default:
			return out, false
		}
	}
}

// view reads all keys by a consumer of the last value of each.
func (c *mixer) view() (out mixOutput, done bool) {
	sub, err := c.old.SubscribeSync("$KV."+bucket+".>", nats.BindStream("KV_"+bucket), nats.DeliverLastPerSubject(), nats.AckNone())
	if err != nil {
		return out, false
	}
	defer sub.Unsubscribe()
	pending, err := sub.InitialConsumerPending()
	if err != nil {
		return out, false
	}
	for range pending {
		msg, err := sub.NextMsg(2 * time.Second)
		if err != nil {
			return out, false
		}
		meta, err := msg.Metadata()
		if err != nil {
			return out, false
		}
		c.place(&out, msg.Subject, seen{meta.Sequence.Stream, msg.Header.Get(headerID)})
	}
	return out, true
}

func (c *mixer) place(out *mixOutput, subject string, s seen) {
	key, err := strconv.Atoi(strings.TrimPrefix(subject, "$KV."+bucket+".k"))
	if err != nil || key >= mixKeys {
		c.t.Errorf("a key that nobody wrote: %q", subject)
		return
	}
	if out.seen[key].revision != 0 {
		c.t.Errorf("key %q twice in one read: %+v and %+v", subject, out.seen[key], s)
	}
	out.seen[key] = s
}

func subjectOf(key int) string { return fmt.Sprintf("$KV.%s.k%d", bucket, key) }

// tellStuck shows how far the longest order of operations comes that was found, and what could not follow.
func tellStuck(t *testing.T, model porcupine.Model, ops []porcupine.Operation, info porcupine.LinearizationInfo) {
	t.Helper()
	var longest []porcupine.Operation
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(longest) {
			longest = order
		}
	}
	placed := make(map[int64]bool)
	state := model.Init()
	for i, o := range longest {
		placed[o.Call] = true
		if _, state = model.Step(state, o.Input, o.Output); i >= len(longest)-3 {
			t.Logf("placed %d-%d %+v %+v", o.Call, o.Return, o.Input, o.Output)
		}
	}
	t.Logf("%d of %d placed: %+v", len(longest), len(ops), state)
	shown, end := 0, int64(1<<62)
	for _, o := range ops {
		if placed[o.Call] || o.Call > end || shown == 20 {
			continue
		}
		shown, end = shown+1, min(end, o.Return)
		t.Logf("stuck at %d-%d %+v %+v", o.Call, o.Return, o.Input, o.Output)
	}
}
