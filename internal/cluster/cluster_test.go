package cluster

import (
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/sim/simfs"
)

// deaf hooks hear nothing.
type deaf struct{}

func (deaf) StreamStarted(*Stream) {}
func (deaf) StreamUpdated(*Stream) {}
func (deaf) StreamStopped(*Stream) {}
func (deaf) LeaderChanged(*Stream) {}
func (deaf) Applied(*Stream)       {}
func (deaf) TurnEnd()              {}

// listener hears which streams were started.
type listener struct {
	deaf
	started sync.Map // by name
}

func (l *listener) StreamStarted(s *Stream) { l.started.Store(s.Name(), true) }

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.Hooks == nil {
		o.Hooks = deaf{}
	}
	o.Logger = logger(t)
	if o.Dir == "" {
		o.Dir = "data"
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	c := New(o)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func bucket(name string, replicas int, storage api.StorageKind) *api.StreamConfig {
	cfg := &api.StreamConfig{
		Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1,
		MaxConsumers: -1, Replicas: replicas, Storage: storage, AllowDirect: true, Discard: api.DiscardNew,
	}
	return cfg
}

// call runs an asynchronous operation to its end.
func call[T any](t *testing.T, f func(done func(T, error))) (T, error) {
	t.Helper()
	type outcome struct {
		v   T
		err error
	}
	ch := make(chan outcome, 1)
	f(func(v T, err error) { ch <- outcome{v, err} })
	select {
	case o := <-ch:
		return o.v, o.err
	case <-time.After(20 * time.Second):
		t.Fatal("no outcome")
		panic("unreachable")
	}
}

func create(t *testing.T, c *Cluster, cfg *api.StreamConfig) *Stream {
	t.Helper()
	s, err := call(t, func(done func(*Stream, error)) {
		c.CreateStream("$G", cfg, meta.Limits{}, func(s *Stream, _ bool, err error) { done(s, err) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Stream, subject, value string) (*stream.Result, error) {
	t.Helper()
	r, err := call(t, func(done func(any, error)) {
		s.Propose(stream.AppendPublish(nil, subject, nil, []byte(value)), WaiterFunc(done))
	})
	if err != nil {
		return nil, err
	}
	return r.(*stream.Result), nil
}

func get(t *testing.T, s *Stream, subject string) (string, error) {
	t.Helper()
	if _, err := call(t, func(done func(any, error)) { s.ReadIndex(func(err error) { done(nil, err) }) }); err != nil {
		return "", err
	}
	m, ok, err := s.Machine().Last(subject)
	if err != nil || !ok {
		return "", fmt.Errorf("not found: %v", err)
	}
	return string(m.Data), nil
}

func TestSingleServerKeepsWhatItAcknowledged(t *testing.T) {
	fs := vfs.NewMem()
	c := start(t, Options{FS: fs, Name: "solo"})
	s := create(t, c, bucket("b", 1, api.FileStorage))
	for i := range 100 {
		r, err := put(t, s, fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i))
		if err != nil || r.Err != nil || r.Seq != uint64(i+1) {
			t.Fatalf("put %d: %+v %v", i, r, err)
		}
	}
	if v, err := get(t, s, "$KV.b.k42"); err != nil || v != "v42" {
		t.Fatal(v, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, Options{FS: fs, Name: "solo"})
	s = waitStream(t, c, "KV_b")
	if v, err := get(t, s, "$KV.b.k42"); err != nil || v != "v42" {
		t.Fatal(v, err)
	}
	if r, err := put(t, s, "$KV.b.k42", "new"); err != nil || r.Seq != 101 {
		t.Fatalf("%+v %v", r, err)
	}
}

var noLimits meta.Limits

func waitStream(t *testing.T, c *Cluster, name string) *Stream {
	t.Helper()
	var s *Stream
	eventually(t, "stream "+name, func() bool {
		s = c.Stream("$G", name)
		return s != nil && s.Leader() != 0
	})
	return s
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("not reached: %s", what)
}

// A crash leaves what was synced only. Everything acknowledged must be in that.
func TestSingleServerCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	c := start(t, Options{FS: fs, Name: "solo"})
	s := create(t, c, bucket("b", 1, api.FileStorage))
	for i := range 200 {
		if r, err := put(t, s, fmt.Sprintf("$KV.b.k%d", i%50), fmt.Sprint("v", i)); err != nil || r.Err != nil {
			t.Fatalf("put %d: %+v %v", i, r, err)
		}
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	c = start(t, Options{FS: after, Name: "solo"})
	s = waitStream(t, c, "KV_b")
	for i := 150; i < 200; i++ {
		if v, err := get(t, s, fmt.Sprintf("$KV.b.k%d", i%50)); err != nil || v != fmt.Sprint("v", i) {
			t.Fatalf("k%d: %q %v", i%50, v, err)
		}
	}
}

func TestDeletedStreamLeavesNothing(t *testing.T) {
	fs := vfs.NewMem()
	c := start(t, Options{FS: fs, Name: "solo"})
	for round := range 3 {
		s := create(t, c, bucket("b", 1, api.FileStorage))
		if r, err := put(t, s, "$KV.b.k", "v"); err != nil || r.Seq != 1 {
			t.Fatalf("round %d: %+v %v", round, r, err)
		}
		if _, err := call(t, func(done func(any, error)) {
			c.DeleteStream("$G", "KV_b", func(_ *meta.Stream, err error) { done(nil, err) })
		}); err != nil {
			t.Fatal(err)
		}
		if names, _ := c.stores[storeFile].Names(); len(names) != 0 {
			t.Fatalf("left: %v", names)
		}
	}
	if groups := c.log.Groups(); len(groups) != 1 {
		t.Fatalf("groups in the log: %v", groups)
	}
}

func TestUpdateReachesTheStream(t *testing.T) {
	c := start(t, Options{Name: "solo"})
	s := create(t, c, bucket("b", 1, api.MemoryStorage))
	cfg := bucket("b", 1, api.MemoryStorage)
	cfg.MaxMsgSize = 10
	if _, err := call(t, func(done func(*Stream, error)) { c.UpdateStream("$G", cfg, meta.Limits{}, done) }); err != nil {
		t.Fatal(err)
	}
	if r, err := put(t, s, "$KV.b.k", "longer than ten bytes"); err != nil || r.Err == nil || r.Err.ErrCode != 10054 {
		t.Fatalf("%+v %v", r, err)
	}
	other := bucket("b", 3, api.MemoryStorage)
	if _, err := call(t, func(done func(*Stream, error)) { c.UpdateStream("$G", other, meta.Limits{}, done) }); err == nil {
		t.Fatal("three replicas on one server")
	}
}

func TestSecondServerOnTheSameDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, Options{FS: vfs.Default, Dir: dir, Name: "solo"})
	c := New(Options{FS: vfs.Default, Dir: dir, Name: "other", Hooks: deaf{}, Logger: logger(t)})
	if err := c.Start(); err == nil {
		t.Fatal("started")
	}
}

func TestEveryStorageServes(t *testing.T) {
	dir := t.TempDir()
	c := start(t, Options{FS: vfs.Default, Dir: dir, Name: "solo"})
	rocks := bucket("rocks", 1, api.FileStorage)
	rocks.Metadata = map[string]string{api.MetadataStorage: api.StorageRocksDB}
	for _, cfg := range []*api.StreamConfig{rocks, bucket("mem", 1, api.MemoryStorage), bucket("file", 1, api.FileStorage)} {
		s := create(t, c, cfg)
		key := "$KV." + cfg.Name[3:] + ".k"
		if r, err := put(t, s, key, cfg.Name); err != nil || r.Err != nil {
			t.Fatalf("%s: %+v %v", cfg.Name, r, err)
		}
		if v, err := get(t, s, key); err != nil || v != cfg.Name {
			t.Fatalf("%s: %q %v", cfg.Name, v, err)
		}
	}
	if k := c.Stream("$G", "KV_rocks").local.Load().kind; k != storeRocks {
		t.Fatalf("the rocksdb bucket is in store %d", k)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, Options{FS: vfs.Default, Dir: dir, Name: "solo"})
	if v, err := get(t, waitStream(t, c, "KV_rocks"), "$KV.rocks.k"); err != nil || v != "KV_rocks" {
		t.Fatalf("after a restart: %q %v", v, err)
	}
	if err := deleteStream(t, c, "KV_rocks"); err != nil {
		t.Fatal(err)
	}
}

func deleteStream(t *testing.T, c *Cluster, name string) error {
	_, err := call(t, func(done func(any, error)) {
		c.DeleteStream("$G", name, func(_ *meta.Stream, err error) { done(nil, err) })
	})
	return err
}

// A first start that fails anywhere on its way does not stand in the way of the next one.
func TestFirstStartThatFailsIsDoneAgain(t *testing.T) {
	for k, more := 1, true; more; k++ {
		synctest.Test(t, func(t *testing.T) { more = failFirstStart(t, k) })
	}
}

// failFirstStart fails the k-th call to the file system; false: there are less.
func failFirstStart(t *testing.T, k int) (failed bool) {
	fs := simfs.New(1, simfs.Strict)
	fs.SetHook(func(op simfs.Op) error {
		if op.Seq == k {
			failed = true
			return syscall.EIO
		}
		return nil
	})
	c := New(Options{FS: fs, Dir: "data", Name: "solo", Hooks: deaf{}, Logger: logger(t)})
	err := c.Start()
	if err == nil {
		err = c.Close()
	}
	if err != nil && !failed {
		t.Fatal(err)
	}
	fs.SetHook(nil)
	fs.Crash(simfs.Outcome(k % 4))
	if err := start(t, Options{FS: fs, Name: "solo"}).Close(); err != nil {
		t.Errorf("after call %d failed: %v", k, err)
	}
	return failed
}
