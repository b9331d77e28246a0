package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cleatkv/cleat/test/process"
	natsgo "github.com/nats-io/nats.go"
)

const (
	bucket      = "b"
	groups      = 100 // of keys: a filter for one is a filter for 1 %
	connections = 4
	outstanding = 1000 // of each connection
	settle      = 15 * time.Second
	patience    = 15 * time.Minute
)

// key is the i-th key: 30 bytes, in no order.
func key(i int) string {
	mixed := uint64(i) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("g%02d.device.%019x", i%groups, mixed>>8)
}

// measureKeys measures a bucket with many keys from its first to a restart.
func measureKeys(s *system) (rows []row, err error) {
	r := row{title: s.title}
	note := func(name, format string, args ...any) {
		r.cells = append(r.cells, cell{name, fmt.Sprintf(format, args...)})
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	took, err := s.load(bucket, *keys, key)
	if err != nil {
		return nil, err
	}
	pid := s.server.Pid()
	note("load, keys/s", "%.0f", float64(*keys)/took.Seconds())
	note("server CPU per put, µs", "%.1f", 1e6*process.CPU(pid).Seconds()/float64(*keys))
	time.Sleep(settle)
	now, most := process.RSS(pid)
	note("RSS, MiB (peak)", "%d (%d)", now>>20, most>>20)
	note("disk, MiB", "%d", s.disk()>>20)

	kv, done, err := s.connect()
	if err != nil {
		return nil, err
	}
	steps := []struct {
		name string
		want int
		do   func() (int, error)
	}{
		{"list keys, s", *keys, func() (int, error) { return list(kv.ListKeys()) }},
		{"watch all, s", *keys, func() (int, error) { return watch(kv.WatchAll()) }},
		{"list 1 %, ms", *keys / groups, func() (int, error) { return watch(kv.Watch("g07.>", natsgo.MetaOnly(), natsgo.IgnoreDeletes())) }},
	}
	for i, step := range steps {
		began := time.Now()
		n, err := step.do()
		took := time.Since(began)
		switch {
		case err != nil:
			note(step.name, "%v after %.0f s", err, took.Seconds())
		case n != step.want:
			note(step.name, "%d keys of %d after %.0f s", n, step.want, took.Seconds())
		case i < 2:
			note(step.name, "%.1f", took.Seconds())
		default:
			note(step.name, "%.0f", 1e3*took.Seconds())
		}
	}
	done()
	now, most = process.RSS(pid)
	note("RSS after lists (peak)", "%d (%d)", now>>20, most>>20)
	if s.storage == "memory" {
		note("SIGKILL to first get, s", "-")
		note("RSS after restart", "-")
		return []row{r}, nil
	}
	first, err := s.restart()
	if err != nil {
		return nil, err
	}
	note("SIGKILL to first get, s", "%.1f", first.Seconds())
	now, _ = process.RSS(s.server.Pid())
	note("RSS after restart", "%d", now>>20)
	return []row{r}, nil
}

// connect returns the bucket, with time-outs that fit millions of keys.
func (s *system) connect() (kv natsgo.KeyValue, done func(), err error) {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return nil, nil, err
	}
	js, err := nc.JetStream(natsgo.MaxWait(patience))
	if err == nil {
		kv, err = js.KeyValue(bucket)
	}
	return kv, nc.Close, err
}

// load creates a bucket and puts n values, the i-th under key(i), with many puts under way at once.
func (s *system) load(bucket string, n int, key func(i int) string) (time.Duration, error) {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		return 0, err
	}
	storage := map[string]natsgo.StorageType{"file": natsgo.FileStorage, "memory": natsgo.MemoryStorage}[s.storage]
	_, err = js.AddStream(&natsgo.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, MaxMsgsPerSubject: 1, Storage: storage, Metadata: s.metadata,
		AllowDirect: true, AllowRollup: true, DenyDelete: true, Discard: natsgo.DiscardNew,
	})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for c := range connections {
		wg.Go(func() { errs[c] = s.publish(bucket, c, n, key) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// publish does one connection's share of the puts, and waits for all acknowledgements.
func (s *system) publish(bucket string, c, n int, key func(i int) string) error {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	failed := make(chan error, 1)
	js, err := nc.JetStream(natsgo.PublishAsyncMaxPending(outstanding), natsgo.PublishAsyncErrHandler(
		func(_ natsgo.JetStream, m *natsgo.Msg, err error) {
			select {
			case failed <- fmt.Errorf("put %s: %w", m.Subject, err):
			default:
			}
		}))
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(uint64(c), 1))
	for i := c; i < n; i += connections {
		value := make([]byte, 100)
		for j := range value {
			value[j] = byte(random.Uint32())
		}
		if _, err := js.PublishAsync("$KV."+bucket+"."+key(i), value, natsgo.StallWait(time.Minute)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patience):
		return errors.New("not all puts are acknowledged")
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func list(l natsgo.KeyLister, err error) (n int, _ error) {
	if err != nil {
		return 0, err
	}
	for range l.Keys() {
		n++
	}
	return n, nil
}

// watch counts the first values of a watch.
func watch(w natsgo.KeyWatcher, err error) (n int, _ error) {
	if err != nil {
		return 0, err
	}
	for e := range w.Updates() {
		if e == nil {
			return n, w.Stop()
		}
		n++
	}
	return n, errors.New("the watch ended")
}

// restart kills the server, starts it again and waits for the value of a key.
func (s *system) restart() (time.Duration, error) {
	s.server.Kill()
	began := time.Now()
	if err := s.server.Launch(); err != nil {
		return 0, err
	}
	for {
		err := s.get(key(*keys / 2))
		if err == nil {
			return time.Since(began), nil
		}
		if time.Since(began) > patience {
			return 0, fmt.Errorf("no get after a restart: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *system) get(key string) error {
	nc, err := natsgo.Connect(s.server.URL(), natsgo.Timeout(time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	return getFrom(nc, key, time.Second)
}

func getFrom(nc *natsgo.Conn, key string, patience time.Duration) error {
	m, err := nc.Request("$JS.API.DIRECT.GET.KV_"+bucket+".$KV."+bucket+"."+key, nil, patience)
	if err != nil {
		return err
	}
	if len(m.Data) != 100 {
		return fmt.Errorf("got %q", m.Header.Get("Status"))
	}
	return nil
}
