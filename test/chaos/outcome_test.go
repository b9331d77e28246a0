package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// verdict is what a client was told of one write.
type verdict struct {
	server   int
	value    string
	revision uint64
	err      error
}

func (v verdict) String() string {
	if v.err != nil {
		return fmt.Sprintf("%s at n%d: %v", v.value, v.server, v.err)
	}
	return fmt.Sprintf("%s at n%d: acknowledged as revision %d", v.value, v.server, v.revision)
}

// TestIsolatedServersOneOutcome is the story of docs/consistency.md: two servers that cannot talk to
// each other receive different values for one key. Exactly one outcome survives, on all servers, and a
// value that was acknowledged is never the one that loses.
func TestIsolatedServersOneOutcome(t *testing.T) {
	f := newFleet(t, true)
	create := func(ctx context.Context, kv jetstream.KeyValue, key, value string) (uint64, error) {
		return kv.Create(ctx, key, []byte(value))
	}
	put := func(ctx context.Context, kv jetstream.KeyValue, key, value string) (uint64, error) {
		return kv.Put(ctx, key, []byte(value))
	}
	for n, c := range []struct {
		name string
		// all: nobody can talk to anybody, otherwise two can talk. settled: the writes begin when the
		// two have found a leader, otherwise at once.
		all, settled bool
		exclusive    bool
		write        func(context.Context, jetstream.KeyValue, string, string) (uint64, error)
	}{
		{"create, one against two", false, true, true, create},
		{"put, one against two", false, true, false, put},
		{"create, one against two, at once", false, false, true, create},
		{"create, everybody alone", true, false, true, create},
	} {
		t.Run(c.name, func(t *testing.T) {
			lead := f.leader()
			f.network.Isolate(lead, 3)
			if c.all {
				f.network.Part((lead+1)%3, (lead+2)%3)
			}
			if c.settled {
				f.untilServed((lead + 1) % 3)
			}
			key := fmt.Sprint("story.", n)
			told := make([]verdict, 2)
			var both sync.WaitGroup
			for i, server := range []int{lead, (lead + 1) % 3} {
				both.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
					defer cancel()
					v := verdict{server: server, value: fmt.Sprint("value-of-n", server)}
					v.revision, v.err = c.write(ctx, f.kvs[server], key, v.value)
					told[i] = v
				})
			}
			both.Wait()
			for _, v := range told {
				t.Log(v)
			}
			switch {
			case told[0].err == nil:
				t.Error("a server that nobody could hear acknowledged a write")
			case c.all && told[1].err == nil:
				t.Error("a write was acknowledged without a majority")
			case c.settled && told[1].err != nil:
				t.Error("a majority did not take a write")
			}
			f.network.Heal()
			for i := range f.servers {
				f.untilHealth(i, true, 30*time.Second)
			}
			f.oneOutcome(t, key, told, c.exclusive)
			if !c.exclusive {
				return
			}
			// Who knows nothing for sure tries again: one of the two wins, or one has won already.
			winners := 0
			for _, again := range told {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				again.revision, again.err = create(ctx, f.kvs[again.server], key, again.value+", again")
				cancel()
				again.value += ", again"
				told = append(told, again)
				t.Log(again)
			}
			for _, v := range told {
				if v.err == nil {
					winners++
				}
			}
			f.oneOutcome(t, key, told, true)
			if lost := errors.Is(told[2].err, jetstream.ErrKeyExists) && errors.Is(told[3].err, jetstream.ErrKeyExists); winners != 1 && !(winners == 0 && lost) {
				t.Errorf("%d of the writes won: %v", winners, told)
			}
		})
	}
	f.equal()
}

// untilServed puts at a server until it is acknowledged.
func (f *fleet) untilServed(server int) {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := f.kvs[server].Put(ctx, "warm", []byte("x"))
		cancel()
		if err == nil {
			return
		}
	}
	f.t.Fatalf("n%d takes no writes", server)
}

// oneOutcome demands that all servers tell the same of the key, and that it agrees with what clients
// were told. exclusive: only one of the values may have come about at all.
func (f *fleet) oneOutcome(t *testing.T, key string, told []verdict, exclusive bool) {
	t.Helper()
	var first string
	for i, kv := range f.kvs {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		entry, err := kv.Get(ctx, key)
		cancel()
		var now string
		switch {
		case err == nil:
			now = fmt.Sprintf("%s, revision %d", entry.Value(), entry.Revision())
		case errors.Is(err, jetstream.ErrKeyNotFound):
			now = "nothing"
		default:
			t.Fatalf("get at n%d: %v", i, err)
		}
		if i == 0 {
			first = now
			t.Logf("outcome: %s", now)
		}
		if now != first {
			t.Errorf("n%d has %s, n0 %s", i, now, first)
		}
	}
	var of []record
	stored, err := readStored(t, f.servers[0], bucket, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range stored {
		if r.key == key {
			of = append(of, r)
		}
	}
	if exclusive && len(of) > 1 {
		t.Errorf("two servers created one key: %+v", of)
	}
	for _, v := range told {
		stored := slices.Contains(of, record{v.revision, key, v.value})
		switch judgeError(v.err) {
		case acknowledged:
			if !stored {
				t.Errorf("%s was acknowledged as revision %d, and lost: %+v", v.value, v.revision, of)
			}
			if exclusive && (len(of) != 1 || of[0].value != v.value) {
				t.Errorf("%s was acknowledged, but the outcome is %+v", v.value, of)
			}
		case refused:
			if slices.ContainsFunc(of, func(r record) bool { return r.value == v.value }) {
				t.Errorf("%s was refused, and is stored: %+v", v.value, of)
			}
		}
	}
}
