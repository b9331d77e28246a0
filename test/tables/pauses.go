package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// What runs while latencies are measured: clients that put and get, far from what the server can take, and
// beside them probes of what neither the server nor its storage answers for.
const (
	clients     = 8                     // that put, and as many that get
	opEvery     = 10 * time.Millisecond // of each client
	probeEvery  = 2 * time.Millisecond
	phase       = 40 * time.Second
	purged      = 100_000 // keys that are purged at once
	doomed      = 4       // buckets that are deleted
	doomedKeys  = 100_000 // of each
	writesEvery = time.Millisecond
	writesBatch = 4 // each writesEvery: what keeps checkpoints and compaction busy
)

// measurePauses measures how long puts and gets of a bucket with many keys take while the storage has work to do
// in the background, and while it has not.
func measurePauses(s *system) (rows []row, err error) {
	if err := s.start(); err != nil {
		return nil, err
	}
	if err := s.fill(); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	if *first {
		if err := errors.Join(realtime(os.Getpid()), realtime(s.server.Pid())); err != nil {
			return nil, err
		}
	}
	for _, p := range []struct {
		name string
		work func(ctx context.Context) error
	}{
		{"nothing else", func(ctx context.Context) error { return nil }},
		{fmt.Sprintf("%d puts/s more", writesBatch*time.Second/writesEvery), s.overwrite},
		{fmt.Sprintf("%d keys purged, then compaction", purged), s.purge},
		{fmt.Sprintf("%d buckets of %d keys deleted", doomed, doomedKeys), s.deleteBuckets},
	} {
		l, err := s.during(p.work)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		rows = append(rows, row{s.title + ", " + p.name, []cell{
			{"put, ms: p50 / p99 / p99.9 / max", l.puts.times()},
			{"less what the probes waited", l.puts.beyond(l.timers, l.syncs).times()},
			{"get", l.gets.times()},
			{"less what the timer was late", l.gets.beyond(l.timers).times()},
			{"fdatasync", l.syncs.times()},
			{"timer", l.timers.times()},
		}})
	}
	return rows, nil
}

// realtime has all threads of a process run whenever they can.
func realtime(pid int) error {
	out, err := exec.Command("chrt", "--all-tasks", "--rr", "--pid", "1", strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("chrt: %w: %s", err, out)
	}
	return nil
}

// fill makes the bucket, of whose first keys every second one is to be purged, and the buckets to be deleted.
func (s *system) fill() error {
	_, err := s.load(bucket, *keys, func(i int) string {
		if i < 2*purged && i%2 == 0 {
			return fmt.Sprintf("purge.%024d", i)
		}
		return key(i)
	})
	for i := 0; i < doomed && err == nil; i++ {
		_, err = s.load(doomedBucket(i), doomedKeys, key)
	}
	return err
}

func doomedBucket(i int) string { return fmt.Sprintf("doomed-%d", i) }

// liveKey is one of the keys that are not purged.
func liveKey(random *rand.Rand) string { return key(2*purged + random.IntN(*keys-2*purged)) }

// observed is what was measured at one time.
type observed struct{ puts, gets, syncs, timers samples }

// during measures puts and gets, syncs of the disk and the timer while work runs, for as long as a phase takes.
func (s *system) during(work func(ctx context.Context) error) (o observed, err error) {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return o, err
	}
	defer nc.Close()
	probe, err := newProbe(filepath.Join(s.dir, "probe"))
	if err != nil {
		return o, err
	}
	defer probe.close()
	ctx, cancel := context.WithTimeout(context.Background(), phase)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	run := func(into *samples, clients int, every time.Duration, op func(random *rand.Rand) error) {
		for range clients {
			wg.Go(func() {
				l, e := paced(ctx, every, op)
				mu.Lock()
				defer mu.Unlock()
				*into, err = append(*into, l...), errors.Join(err, e)
			})
		}
	}
	run(&o.puts, clients, opEvery, s.put(nc))
	run(&o.gets, clients, opEvery, func(random *rand.Rand) error { return getFrom(nc, liveKey(random), time.Minute) })
	run(&o.syncs, 1, probeEvery, probe.sync)
	run(&o.timers, 1, probeEvery, func(*rand.Rand) error { return nil })
	failed := work(ctx)
	wg.Wait()
	return o, errors.Join(err, failed)
}

// paced does an operation at fixed times, and takes the time of each from when it was due: who waits for a
// late answer is late with the next one, too.
func paced(ctx context.Context, every time.Duration, op func(*rand.Rand) error) (l samples, err error) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	due := time.Now().Add(time.Duration(random.Int64N(int64(every))))
	for ; ctx.Err() == nil; due = due.Add(every) {
		time.Sleep(time.Until(due))
		if err := op(random); err != nil {
			return l, err
		}
		l = append(l, sample{due, time.Since(due)})
	}
	return l, nil
}

func (s *system) put(nc *natsgo.Conn) func(*rand.Rand) error {
	value := make([]byte, 100)
	return func(random *rand.Rand) error {
		m, err := nc.Request("$KV."+bucket+"."+liveKey(random), value, time.Minute)
		if err == nil && bytes.Contains(m.Data, []byte(`"error"`)) {
			err = errors.New(string(m.Data))
		}
		return err
	}
}

// overwrite puts at a steady rate, without waiting for answers one by one.
func (s *system) overwrite(ctx context.Context) error {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream(natsgo.PublishAsyncMaxPending(outstanding))
	if err != nil {
		return err
	}
	value := make([]byte, 100)
	_, err = paced(ctx, writesEvery, func(random *rand.Rand) error {
		for range writesBatch {
			if _, err := js.PublishAsync("$KV."+bucket+"."+liveKey(random), value, natsgo.StallWait(time.Minute)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// purge removes many keys by one request.
func (s *system) purge(ctx context.Context) error {
	return s.manage(func(js natsgo.JetStreamManager) error {
		return js.PurgeStream("KV_"+bucket, &natsgo.StreamPurgeRequest{Subject: "$KV." + bucket + ".purge.>"})
	})
}

func (s *system) deleteBuckets(ctx context.Context) error {
	return s.manage(func(js natsgo.JetStreamManager) error {
		for i := range doomed {
			if err := js.DeleteStream("KV_" + doomedBucket(i)); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	})
}

func (s *system) manage(fn func(js natsgo.JetStreamManager) error) error {
	nc, err := natsgo.Connect(s.server.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream(natsgo.MaxWait(time.Minute))
	if err != nil {
		return err
	}
	return fn(js)
}

// probe writes to a file of its own on the server's disk, and syncs it: what a put takes at least.
type probe struct {
	f  *os.File
	at int64
}

// probeBytes is how long the file is. It is there before it is written to, as a segment of the log is.
const probeBytes = 16 << 20

func newProbe(path string) (*probe, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, probeBytes)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &probe{f: f}, f.Sync()
}

func (p *probe) sync(*rand.Rand) error {
	if _, err := p.f.WriteAt(make([]byte, 512), p.at); err != nil {
		return err
	}
	p.at = (p.at + 512) % probeBytes
	return syscall.Fdatasync(int(p.f.Fd()))
}

func (p *probe) close() {
	_ = p.f.Close()
	_ = os.Remove(p.f.Name())
}
