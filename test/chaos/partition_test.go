package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// partition is one way to part three servers.
type partition struct {
	name string
	// part cuts what is to be cut, given who leads, and returns which servers must go on meanwhile:
	// a majority that can talk. None: nobody may acknowledge anything.
	part func(f *fleet, lead int) []int
	// alone tells whether the leader is left with nobody, and must say so.
	alone bool
}

var partitions = []partition{
	{"leader isolated", func(f *fleet, lead int) []int {
		f.network.Isolate(lead, len(f.servers))
		return f.others(lead)
	}, true},
	{"leader hears nobody", func(f *fleet, lead int) []int {
		for _, i := range f.others(lead) {
			f.network.Cut(i, lead)
		}
		return f.others(lead)
	}, true},
	{"nobody hears the leader", func(f *fleet, lead int) []int {
		for _, i := range f.others(lead) {
			f.network.Cut(lead, i)
		}
		return f.others(lead)
	}, false}, // It hears of the new leader, so what it sends there has an unknown outcome.
	{"everybody alone", func(f *fleet, lead int) []int {
		for i := range f.servers {
			f.network.Isolate(i, len(f.servers))
		}
		return nil
	}, true},
	{"a follower isolated", func(f *fleet, lead int) []int {
		f.network.Isolate((lead+1)%3, len(f.servers))
		return f.others((lead + 1) % 3)
	}, false},
	{"leader and a follower parted, the third sees both", func(f *fleet, lead int) []int {
		f.network.Part(lead, (lead+1)%3)
		return f.others((lead + 1) % 3)
	}, false},
	{"a follower does not hear the leader", func(f *fleet, lead int) []int {
		f.network.Cut(lead, (lead+1)%3)
		return f.others((lead + 1) % 3)
	}, false},
	{"connections of the leader reset again and again", func(f *fleet, lead int) []int {
		for range 10 {
			f.network.Reset(lead, (lead+1)%3)
			f.network.Reset(lead, (lead+2)%3)
			time.Sleep(200 * time.Millisecond)
		}
		return f.all()
	}, false},
	{"leader isolated and back, again and again", func(f *fleet, lead int) []int {
		for range 5 {
			f.network.Isolate(lead, len(f.servers))
			time.Sleep(time.Duration(f.random.Int63n(int64(1500 * time.Millisecond))))
			f.network.Heal()
			time.Sleep(time.Duration(f.random.Int63n(int64(500 * time.Millisecond))))
		}
		return f.all()
	}, false},
}

// TestChaosPartition parts the servers in one way after the other. A majority that can talk goes on, in
// time; who is left alone says so, refuses clearly, and answers no reads; and in the end nothing is lost
// and all replicas are equal.
func TestChaosPartition(t *testing.T) {
	f := newFleet(t, true)
	f.writers()
	all := newProgress(t, f.servers, f.book)
	var during, after []time.Duration
	for n := range *kills {
		p := partitions[n%len(partitions)]
		f.calm()
		lead := f.leader()
		going := p.part(f, lead)
		at := time.Now()
		var alone sync.WaitGroup
		if p.alone {
			alone.Go(func() { f.refuses(lead) })
		}
		line := fmt.Sprintf("partition %d, n%d leading, %s:", n+1, lead, p.name)
		if len(going) > 0 {
			d := f.resumed(at, resumeMax+2*time.Second, going...)
			during = append(during, d)
			line += fmt.Sprintf(" n%v served after %s;", going, d.Round(time.Millisecond))
		}
		alone.Wait()
		time.Sleep(time.Until(at.Add(3 * time.Second)))
		for i := range f.servers {
			if len(going) == 0 && f.served[i].Load() > int64(at.Sub(f.begun)) {
				t.Errorf("n%d acknowledged a write with everybody alone", i)
			}
		}
		f.network.Heal()
		d := f.resumed(time.Now(), 2*resumeMax, f.all()...)
		after = append(after, d)
		t.Logf("%s healed, all served after %s", line, d.Round(time.Millisecond))
		for i := range f.servers {
			f.untilHealth(i, true, 30*time.Second)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("writes resumed in the majority, %s; everywhere after the heal, %s", spread(during), spread(after))
	all.everywhere("after the last partition")
	f.judge()
}

// refuses demands of a server without a majority that it turns unhealthy, and that it refuses writes
// and default reads in time and clearly.
func (f *fleet) refuses(server int) {
	f.t.Helper()
	red := f.untilHealth(server, false, 10*time.Second)
	f.t.Logf("n%d unhealthy %s after it was cut off", server, red.Round(10*time.Millisecond))
	// What was taken in the first second may still commit, so nothing is said of it. Each group of the
	// server notices for itself, a moment apart.
	time.Sleep(500 * time.Millisecond)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 18*time.Second)
	defer cancel()
	kv := f.kvs[server]
	value := fmt.Sprint("alone-", time.Since(f.begun))
	f.book.begin(value, write{key: "alone"})
	revision, err := kv.Put(ctx, "alone", []byte(value))
	f.book.end(value, judgeError(err), revision)
	if !isUnavailable(err) {
		f.t.Errorf("a put without a majority: %v", err)
	}
	put := time.Since(began)
	if e, err := kv.Get(ctx, "own.0.0"); err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrKeyNotFound) {
		f.t.Errorf("a get without a majority: %v %v", e, err)
	}
	f.t.Logf("refused: a put after %s, a get after %s", put.Round(10*time.Millisecond), (time.Since(began) - put).Round(10*time.Millisecond))
	f.answersStale(server)
}

// answersStale demands that a server without a majority still answers who asks for whatever it has.
func (f *fleet) answersStale(server int) {
	f.t.Helper()
	nc, err := nats.Connect(f.servers[server].URL(), nats.IgnoreDiscoveredServers())
	if err != nil {
		f.t.Error(err)
		return
	}
	defer nc.Close()
	ask := nats.NewMsg("$JS.API.DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".own.0.0")
	ask.Header.Set("Cleat-Reads", "stale")
	m, err := nc.RequestMsg(ask, time.Second)
	if err != nil || m.Header.Get("Nats-Sequence") == "" {
		f.t.Errorf("a get that may be stale: %+v %v", m, err)
	}
}

// isUnavailable tells whether a write was refused as 503.
func isUnavailable(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 503 || errors.Is(err, jetstream.ErrNoStreamResponse)
}
