package compat

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A bucket whose placement changes moves to servers that carry the new tags, all of its replicas and the lead,
// while clients of every server write and one watches: every write succeeds, and the watcher sees each
// once, in order, and soon.
func TestPromiseClusterBucketMoves(t *testing.T) {
	p := newPinned(t, 5)
	for _, replicas := range []int{1, 2} {
		t.Run(fmt.Sprint("R", replicas), func(t *testing.T) { p.bucketMoves(t, replicas) })
	}
}

func (p *pinned) bucketMoves(t *testing.T, replicas int) {
	ctx := testContext(t)
	place := func(tags ...string) jetstream.KeyValueConfig {
		return jetstream.KeyValueConfig{
			Bucket: fmt.Sprint("R", replicas), Replicas: replicas, History: 64,
			Placement: &jetstream.Placement{Tags: tags},
		}
	}
	kv, err := p.js[4].CreateKeyValue(ctx, place("low"))
	must(t, err)
	w, err := kv.WatchAll(ctx, jetstream.IncludeHistory())
	must(t, err)
	defer w.Stop()

	acked := make(map[uint64]bool)
	var mu sync.Mutex
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i, js := range p.js {
		own, err := js.KeyValue(ctx, kv.Bucket())
		must(t, err)
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				rev, err := own.PutString(ctx, fmt.Sprint("k", i, ".", n/50), "v")
				if err != nil {
					t.Errorf("put on server %d: %v", i, err)
					return
				}
				mu.Lock()
				acked[rev] = true
				mu.Unlock()
				if _, err := own.GetRevision(ctx, fmt.Sprint("k", i, ".", n/50), rev); err != nil {
					t.Errorf("get on server %d: %v", i, err)
				}
				if _, err := own.Keys(ctx, jetstream.MetaOnly()); err != nil {
					t.Errorf("keys on server %d: %v", i, err)
				}
			}
		})
	}
	for _, move := range []struct {
		tag string
		to  []string
	}{{"HIGH", []string{"n2", "n3", "n4"}}, {"low", []string{"n0", "n1"}}, {"n3", []string{"n3"}}} {
		if len(move.to) < replicas {
			_, err := p.js[0].UpdateKeyValue(ctx, place(move.tag))
			wantCode(t, err, 10005)
			continue
		}
		_, err := p.js[0].UpdateKeyValue(ctx, place(move.tag))
		must(t, err)
		p.atLast(t, "KV_"+kv.Bucket(), replicas, move.to)
	}
	close(stop)
	writers.Wait()
	soon := time.After(wait) // Its client would find out in 17 seconds by itself.
	last := uint64(0)
	for left := len(acked); left > 0; {
		select {
		case e := <-w.Updates():
			if e == nil {
				continue
			}
			if e.Revision() <= last {
				t.Fatalf("revision %d after %d", e.Revision(), last)
			}
			if last = e.Revision(); acked[last] {
				left--
			}
		case <-soon:
			t.Fatalf("%d of %d writes were not seen; the last one seen is %d", left, len(acked), last)
		}
	}
	t.Logf("%d writes", len(acked))
}

// atLast waits until every server tells that the stream has so many replicas, all current, on some of those servers.
func (p *pinned) atLast(t *testing.T, stream string, replicas int, servers []string) {
	t.Helper()
	for i, js := range p.js {
		info := awaitInfo(t, js, stream, func(info *jetstream.StreamInfo) bool {
			at := []string{info.Cluster.Leader}
			for _, r := range info.Cluster.Replicas {
				if r.Current && !r.Offline {
					at = append(at, r.Name)
				}
			}
			return len(at) == replicas && len(info.Cluster.Replicas) == replicas-1 &&
				!slices.ContainsFunc(at, func(name string) bool { return !slices.Contains(servers, name) })
		})
		if info == nil {
			t.Fatalf("server %d: %s is not on %s", i, stream, strings.Join(servers, ", "))
		}
	}
}

// A placement that no server satisfies is refused, and says why.
func TestClusterPlacementRefused(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	for _, c := range []struct {
		at       jetstream.Placement
		replicas int
		want     string
	}{
		{jetstream.Placement{Tags: []string{"nowhere"}}, 1, "no suitable peers for placement, tags not matched ['nowhere']"},
		{jetstream.Placement{Tags: []string{"n1"}}, 3, "no suitable peers for placement, tags not matched ['n1']"},
		{jetstream.Placement{Cluster: "D"}, 1, "no suitable peers for placement"},
	} {
		_, err := p.js[0].CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: c.replicas, Placement: &c.at})
		wantCode(t, err, 10005)
		if text := err.Error(); !strings.HasSuffix(text, "description="+c.want) {
			t.Errorf("%+v: %s, want %s", c.at, text, c.want)
		}
	}
	_, err := p.js[0].CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Placement: &jetstream.Placement{Cluster: "C", Tags: []string{"N1", "low"}}})
	wantCode(t, err, 10005) // n1 is in the upper half.
	s, err := p.js[0].CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Placement: &jetstream.Placement{Cluster: "C", Tags: []string{"N1", "high"}}})
	must(t, err)
	equal(t, "leader", s.CachedInfo().Cluster.Leader, "n1")
	_, err = p.js[0].UpdateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Placement: &jetstream.Placement{Cluster: "D"}})
	wantCode(t, err, 10005)
}
