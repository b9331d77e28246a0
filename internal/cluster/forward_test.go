package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
)

// outsider creates a bucket of three replicas on four servers, and finds the server without one, and the one
// that leads.
func outsider(t *testing.T, c *trio) (out, lead *Cluster) {
	t.Helper()
	return outsiderOf(t, c, bucket("b", 3, api.FileStorage))
}

// outsiderOf is outsider for a bucket b with another configuration.
func outsiderOf(t *testing.T, c *trio, config *api.StreamConfig) (out, lead *Cluster) {
	t.Helper()
	create(t, c.servers[0], config)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, s := range c.servers {
			switch cs := s.Stream("$G", "KV_b"); {
			case cs == nil:
			case cs.IsLeader():
				lead = s
			case cs.hasNoReplica():
				out = s
			}
		}
		if out != nil && lead != nil {
			return out, lead
		}
	}
	t.Fatal("nobody leads, or every server has a replica")
	return nil, nil
}

// known waits until a server knows of the bucket b.
func known(t *testing.T, c *Cluster) *Stream {
	t.Helper()
	eventually(t, "the bucket is known", func() bool { return c.Stream("$G", "KV_b") != nil })
	return c.Stream("$G", "KV_b")
}

// A server without a replica was told who leads; when that one is gone it has to ask others.
func TestForwardAfterTheLeaderIsGone(t *testing.T) {
	c := newTrio(t, 4)
	out, lead := outsider(t, c)
	s := out.Stream("$G", "KV_b")
	s.LeaderHint(lead.ServerID())
	if r, err := put(t, s, "$KV.b.k", "v"); err != nil || r.Err != nil {
		t.Fatal(r, err)
	}
	lead.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := put(t, s, "$KV.b.k", "v2")
		if err == nil && r.Err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("with a majority, and ten seconds after the leader's end: %v %v", r, err)
		}
	}
	if to := s.Nearest(); to == 0 || to == lead.ServerID() {
		t.Errorf("reads are sent to %d; the leader that is gone is %d", to, lead.ServerID())
	}
}

// A server that can be reached may be cut off from the others: it must not be the only one to be asked.
func TestForwardAsksOneAfterTheOther(t *testing.T) {
	c := newTrio(t, 4)
	out, _ := outsider(t, c)
	s := out.Stream("$G", "KV_b")
	s.hint.Store(0)
	asked := make(map[uint64]int)
	for range 6 {
		asked[s.Nearest()]++
	}
	for _, m := range s.Servers() {
		if asked[m] != 2 {
			t.Errorf("server %d is asked %d times of 6; all: %v", m, asked[m], asked)
		}
	}
	// Commands go on to the next one only when one has said that it does not know.
	first := s.memberAfter(s.unknowing.Load())
	if again := s.memberAfter(s.unknowing.Load()); again != first {
		t.Errorf("commands go to %d, then %d", first, again)
	}
	s.held.close() // What is redirected ends at once.
	refused := make(chan error, 1)
	waiter := WaiterFunc(func(_ any, err error) { refused <- err })
	out.forward.redirect(&forwarded{group: s.group, heldCommand: heldCommand{waiter: waiter}}, make([]byte, 8), first)
	if err := <-refused; !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if next := s.memberAfter(s.unknowing.Load()); next == first || next == 0 {
		t.Errorf("a command that %d has refused goes to %d", first, next)
	}
}

// A command that servers send back ends when its time is over, however fast it goes to and fro.
func TestForwardEndsInTime(t *testing.T) {
	c := newTrio(t, 4)
	out, lead := outsider(t, c)
	s := out.Stream("$G", "KV_b")
	s.away.Lock()
	s.away.send(lead.ServerID())
	epoch := s.away.epoch
	s.away.Unlock()
	refused := make(chan error, 1)
	h := heldCommand{order: 1, until: time.Now().Add(-time.Millisecond), waiter: WaiterFunc(func(_ any, err error) { refused <- err })}
	out.forward.redirect(&forwarded{group: s.group, epoch: epoch, heldCommand: h}, make([]byte, 8), lead.ServerID())
	select {
	case err := <-refused:
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is sent for ever")
	}
	if !s.away.home() {
		t.Error("it counts as away")
	}
}

// Who can not reach the leader has another member pass commands on, which does so if it knows of the same leader; from
// one that knows another leader the sender hears of that.
func TestForwardThroughAnotherMember(t *testing.T) {
	c := newTrio(t, 4)
	out, lead := outsider(t, c)
	s := out.Stream("$G", "KV_b")
	var through uint64
	for _, id := range s.Servers() {
		if id != lead.ServerID() {
			through = id
		}
	}
	for _, unreached := range []uint64{lead.ServerID(), through} {
		s.hint.Store(0)
		r, err := call(t, func(done func(any, error)) {
			h := heldCommand{command: stream.AppendPublish(nil, "$KV.b.k", nil, []byte("v")), waiter: WaiterFunc(done)}
			if err := out.forward.propose(through, unreached, s.group, h); err != nil {
				done(nil, err)
			}
		})
		if err != nil || r.(*stream.Result).Err != nil {
			t.Fatalf("%v %v", r, err)
		}
		want := uint64(0)
		if unreached != lead.ServerID() {
			want = lead.ServerID()
		}
		if got := s.hint.Load(); got != want {
			t.Errorf("with %d out of reach: the leader is said to be %d, want %d", unreached, got, want)
		}
	}
}

// A server without a replica knows who leads from hearsay at best, and does not pass that on: two of them would send
// a third one to each other for ever.
func TestForwardTellsNoHearsay(t *testing.T) {
	c := newTrio(t, 4)
	_, lead := outsiderOf(t, c, bucket("b", 1, api.FileStorage))
	var streams []*Stream // of those without a replica
	var ids []uint64
	for _, s := range c.servers {
		if s != lead {
			streams, ids = append(streams, known(t, s)), append(ids, s.ServerID())
		}
	}
	streams[0].LeaderHint(ids[1])
	streams[1].LeaderHint(ids[2])
	streams[2].LeaderHint(ids[1])
	if r, err := put(t, streams[0], "$KV.b.k", "v"); err != nil || r.Err != nil {
		t.Fatal(r, err)
	}
}
