package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// drift changes what one replica holds, behind the back of everybody.
func drift(t *testing.T, s *Stream, subject string) {
	t.Helper()
	done := make(chan error, 1)
	s.shard.Call(func() { // Where nothing else changes it.
		e := s.local.Load().engine
		at, found := e.Applied(), false
		tx := e.Begin()
		if was, ok := tx.Subject(subject); ok {
			found, _ = tx.Remove(was.Last)
		}
		err := tx.Commit(at)
		if !found {
			err = storage.ErrNotFound
		}
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A replica that holds something else than the others is found, and made anew from them, whether it leads or
// not.
func TestDriftedReplicaIsRebuilt(t *testing.T) {
	for name, kind := range map[string]api.StorageKind{"file": api.FileStorage, "memory": api.MemoryStorage} {
		t.Run(name, func(t *testing.T) {
			c := prepareTrio(t, 3)
			c.more = func(o *Options) { o.CompareEvery = 300 * time.Millisecond }
			c.startAll()
			create(t, c.servers[0], bucket("b", 3, kind))
			for i := range 60 {
				c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), strings.Repeat("v", 2000))
			}
			c.settled("KV_b", 3)
			for _, leads := range []bool{false, true} {
				i := slices.IndexFunc(c.servers, func(s *Cluster) bool { return s.Stream("$G", "KV_b").IsLeader() == leads })
				s := c.servers[i].Stream("$G", "KV_b")
				was, _ := s.Assignment().On(c.servers[i].id.server)
				drift(t, s, "$KV.b.k7")
				n := 0
				eventually(t, "another replica in its place", func() bool {
					n++
					c.putAnywhere((i+1)%3, "KV_b", "$KV.b.n", fmt.Sprint(n))
					now, ok := c.servers[(i+1)%3].Stream("$G", "KV_b").Assignment().On(c.servers[i].id.server)
					return ok && now.ID != was.ID
				})
				after := c.settled("KV_b", 3)
				for _, r := range after.Replicas {
					if r.ID == was.ID {
						t.Errorf("replica %d is a member still", was.ID)
					}
				}
				if v, err := get(t, waitStream(t, c.servers[i], "KV_b"), "$KV.b.k7"); err != nil || len(v) != 2000 {
					t.Errorf("%d bytes, %v", len(v), err)
				}
			}
			for i, s := range c.servers {
				if s.Stream("$G", "KV_b").rep.Load().Status().Stopped != nil {
					t.Errorf("server %d stopped", i)
				}
			}
		})
	}
}

// Equal replicas of a stream that nobody writes to are compared once, and others again and again.
func TestComparisonsFollowChanges(t *testing.T) {
	c := prepareTrio(t, 3)
	c.more = func(o *Options) { o.CompareEvery = 50 * time.Millisecond }
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	lead := func() *Stream {
		for _, s := range c.servers {
			if st := s.Stream("$G", "KV_b"); st != nil && st.IsLeader() {
				return st
			}
		}
		return nil
	}
	eventually(t, "compared", func() bool {
		s := lead()
		return s != nil && equalAt(s) > 0
	})
	time.Sleep(300 * time.Millisecond)
	s := lead()
	at := s.rep.Load().Status().Applied
	time.Sleep(300 * time.Millisecond)
	if now := s.rep.Load().Status().Applied; now != at || equalAt(s) != at {
		t.Errorf("compared at %d, applied %d, and %d a while later, with nothing to do", equalAt(s), at, now)
	}
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	eventually(t, "compared again", func() bool { return equalAt(s) > at })
}

func equalAt(s *Stream) uint64 {
	s.comparing.mu.Lock()
	defer s.comparing.mu.Unlock()
	return s.comparing.equal
}

func TestMinority(t *testing.T) {
	for _, c := range []struct {
		sums   []string // of members 1, 2, ...; "" has not told
		voters int
		lost   []uint64
		tie    bool
	}{
		{[]string{"a", "a", "a"}, 3, nil, false},
		{[]string{"a", "b", "a"}, 3, []uint64{2}, false},
		{[]string{"a", "b"}, 3, nil, false}, // The third decides.
		{[]string{"a", "", "a"}, 3, nil, false},
		{[]string{"a", "b", "c"}, 3, nil, true},
		{[]string{"a", "b"}, 2, nil, true},
		{[]string{"a", "a", "b", "b"}, 4, nil, true},
		{[]string{"a", "a", "b", "", "a"}, 5, []uint64{3}, false},
		{[]string{"a", "a", "b", "b", ""}, 5, nil, false},
		{[]string{"a", "b", "c", "a", "a"}, 5, []uint64{2, 3}, false},
		{[]string{"a", "a", "b", "b", "c"}, 5, nil, true},
		{[]string{"a", "a", "", "b"}, 3, []uint64{4}, false}, // Who does not vote is not asked who is right.
		{[]string{"a", "b", "", "b"}, 3, nil, false},
		{[]string{"a", "b", "c", "b"}, 3, nil, true},
		{[]string{"a", "a", "a", "a"}, 3, nil, false},
		{nil, 3, nil, false},
	} {
		var voters []uint64
		for id := range c.voters {
			voters = append(voters, uint64(id+1))
		}
		sums := make(map[uint64]string)
		for i, sum := range c.sums {
			if sum != "" {
				sums[uint64(i+1)] = sum
			}
		}
		if lost, tie := minority(sums, voters); !slices.Equal(lost, c.lost) || tie != c.tie {
			t.Errorf("%q of %d: lost %v, tie %v; want %v, %v", c.sums, c.voters, lost, tie, c.lost, c.tie)
		}
	}
}
