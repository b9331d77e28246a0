package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// restFaults take a server away. What each returns brings it back.
var restFaults = []struct {
	name string
	take func(f *fleet, server int) (back func())
}{
	{"killed", func(f *fleet, server int) func() {
		f.servers[server].Kill()
		return func() {
			if err := f.servers[server].Start(); err != nil {
				f.t.Fatalf("restart: %v\n%s", err, f.servers[server].LogTail(30))
			}
		}
	}},
	{"stopped", func(f *fleet, server int) func() {
		pid := f.servers[server].Pid()
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	}},
	{"not heard by anybody", func(f *fleet, server int) func() {
		for _, other := range f.others(server) {
			f.network.Cut(server, other)
		}
		return f.network.Heal
	}},
	{"deaf", func(f *fleet, server int) func() {
		for _, other := range f.others(server) {
			f.network.Cut(other, server)
		}
		return f.network.Heal
	}},
}

// restBuckets is how many buckets rest when a server is taken away; each server leads a third of them.
const restBuckets = 18

// TestChaosRest takes servers away whose groups rest: nobody hears of their death by a heartbeat that does
// not come. Every bucket must take a write soon, and show it at the server that is back.
func TestChaosRest(t *testing.T) {
	f := newFleet(t, true)
	var kvs [3][restBuckets]jetstream.KeyValue
	for i, s := range f.servers {
		nc := s.Connect(t, nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
		js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for n := range restBuckets {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			if i == 0 {
				kvs[i][n], err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: fmt.Sprint("rest", n), Replicas: 3})
			} else {
				kvs[i][n], err = js.KeyValue(ctx, fmt.Sprint("rest", n))
			}
			cancel()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var pauses []time.Duration
	for round := range *kills {
		fault, victim := restFaults[round%len(restFaults)], round%3
		f.untilRest()
		back := fault.take(f, victim)
		at, value := time.Now(), fmt.Sprint("round ", round)
		var all sync.WaitGroup
		for n := range restBuckets {
			all.Go(func() { f.putSoon(kvs[(victim+1)%3][n], value, at) })
		}
		all.Wait()
		pauses = append(pauses, time.Since(at))
		time.Sleep(time.Until(at.Add(4 * time.Second)))
		back()
		began := time.Now()
		for n := range restBuckets {
			f.getSoon(kvs[victim][n], value, began)
		}
		t.Logf("round %d: n%d %s: every bucket took a write after %s, and it had all of them %s after it was back",
			round+1, victim, fault.name, pauses[round].Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
	t.Logf("all buckets took writes, %s", spread(pauses))
}

// untilRest waits until all buckets rest on all servers.
func (f *fleet) untilRest() {
	f.t.Helper()
	want := fmt.Sprintf("} %d\n", restBuckets+2) // The fleet has one of its own, and there is the meta group.
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		resting := 0
		for _, s := range f.servers {
			if _, rest, ok := strings.Cut(metrics(s.HTTP), "\nraft_groups_resting{"); ok {
				line, _, _ := strings.Cut(rest, "\n")
				if strings.HasSuffix(line+"\n", want) {
					resting++
				}
			}
		}
		if resting == len(f.servers) {
			return
		}
	}
	f.t.Fatal("not all buckets rest after a minute without use")
}

func metrics(addr string) string {
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // What is cut off is not found.
	return string(body)
}

// putSoon puts until a put is acknowledged.
func (f *fleet) putSoon(kv jetstream.KeyValue, value string, began time.Time) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := kv.Put(ctx, "k", []byte(value))
		cancel()
		if err == nil {
			return
		}
		if time.Since(began) > resumeMax {
			f.t.Errorf("bucket %s takes no writes after %s: %v", kv.Bucket(), resumeMax, err)
			return
		}
	}
}

// getSoon gets until a get is answered, which must show the value.
func (f *fleet) getSoon(kv jetstream.KeyValue, value string, began time.Time) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		e, err := kv.Get(ctx, "k")
		cancel()
		if err == nil {
			if string(e.Value()) != value {
				f.t.Errorf("bucket %s: a stale read of %q after %q was acknowledged", kv.Bucket(), e.Value(), value)
			}
			return
		}
		if time.Since(began) > 2*resumeMax {
			f.t.Errorf("bucket %s answers no reads %s after its server is back: %v", kv.Bucket(), 2*resumeMax, err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
