package consumer

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// released counts how often what is held is let go of.
type released struct {
	storage.Frozen
	times *int
}

func (r released) Release() { *r.times++; r.Frozen.Release() }

// The first messages are as many as were counted, those that there were when the consumer was made, whatever
// happens while they are delivered; then comes what was stored since and is still there.
func TestFirstValuesAreHeld(t *testing.T) {
	for seed := range int64(300) {
		random := rand.New(rand.NewSource(seed))
		s := newTestStream(t, 1+random.Intn(3))
		var c *Consumer
		change := func(n int) {
			s.begin()
			for range n {
				switch subject := fmt.Sprint("k.", random.Intn(12)); {
				case random.Intn(20) == 0:
					s.purge("k.>")
				case random.Intn(5) == 0:
					s.remove(1 + uint64(random.Intn(int(s.tx.State().LastSeq)+1)))
				default:
					s.put(subject, "v")
				}
			}
			observers := map[observer][]string{}
			if c != nil {
				observers[consumerObserver{c}] = nil
			}
			s.commit(observers)
		}
		change(40)
		cfg := api.ConsumerConfig{DeliverPolicy: api.DeliverLastPerSubject, DeliverSubject: "d", MaxDeliver: 1, AckPolicy: api.AckNone}
		if random.Intn(2) == 0 {
			cfg.DeliverPolicy = api.DeliverAll
		}
		want, end := expected(s, &cfg)
		times := 0
		c = New(s.engine, Spec{Stream: "S", Name: "C", Config: cfg, Start: StartOf(s.engine, &cfg), First: released{s.engine.Freeze(), &times}}, nil, 0)
		if c.Pending() != uint64(len(want)) {
			t.Fatalf("seed %d: %d pending of %d", seed, c.Pending(), len(want))
		}
		var got []uint64
		turn := func() {
			var tn Turn
			tn.Reset(0)
			tn.Reader, tn.MsgsMax, tn.BytesMax = s.engine, 1+random.Intn(20), 1<<30
			tn.Interest = func(string, string) bool { return true }
			c.Run(&tn)
			for _, o := range tn.Out {
				got = append(got, seqOf(t, o.Reply))
			}
		}
		for len(got) < len(want) {
			turn()
			change(1 + random.Intn(8))
		}
		for range 40 {
			turn()
		}
		if !slices.Equal(got[:len(want)], want) {
			t.Fatalf("seed %d: first\n%v, where there were\n%v", seed, got[:len(want)], want)
		}
		rest := map[uint64]bool{}
		for i, seq := range got[len(want):] {
			if rest[seq] = true; seq < end || i > 0 && seq <= got[len(want)+i-1] {
				t.Fatalf("seed %d: then %v", seed, got[len(want):])
			}
		}
		for seq, _, ok := s.engine.NextSeq(nil, end); ok; seq, _, ok = s.engine.NextSeq(nil, seq+1) {
			if !rest[seq] {
				t.Fatalf("seed %d: %d is missing of %v", seed, seq, got[len(want):])
			}
		}
		if c.Release(); c.Pending() != 0 || times != 1 {
			t.Fatalf("seed %d: %d pending, released %d times", seed, c.Pending(), times)
		}
	}
}

// expected lists what a consumer is to deliver of what the stream holds, and the end of that.
func expected(s *testStream, cfg *api.ConsumerConfig) (want []uint64, end uint64) {
	for seq, subject, ok := s.engine.NextSeq(nil, 0); ok; seq, subject, ok = s.engine.NextSeq(nil, seq+1) {
		if of, _ := s.engine.Subject(subject); cfg.DeliverPolicy == api.DeliverAll || of.Last == seq {
			want = append(want, seq)
		}
	}
	return want, s.engine.State().LastSeq + 1
}

func seqOf(t *testing.T, reply string) (seq uint64) {
	t.Helper()
	var count, consumer, at, pending uint64
	if _, err := fmt.Sscanf(reply, "$JS.ACK.S.C.%d.%d.%d.%d.%d", &count, &seq, &consumer, &at, &pending); err != nil {
		t.Fatalf("%q: %v", reply, err)
	}
	return seq
}

// Nothing is held for a client that does not take it.
func TestFirstValuesAreNotHeldForEver(t *testing.T) {
	s := newTestStream(t, 1)
	s.begin()
	for n := range 10 {
		s.put(fmt.Sprint("k.", n), "v")
	}
	s.commit(nil)
	cfg := api.ConsumerConfig{DeliverPolicy: api.DeliverLastPerSubject, DeliverSubject: "d", MaxDeliver: 1, AckPolicy: api.AckNone}
	times := 0
	c := New(s.engine, Spec{Stream: "S", Name: "C", Config: cfg, Start: StartOf(s.engine, &cfg), First: released{s.engine.Freeze(), &times}}, nil, 0)
	run := func(now int64, most int) (got []uint64) {
		var tn Turn
		tn.Reset(now)
		tn.Reader, tn.MsgsMax, tn.BytesMax = s.engine, most, 1<<30
		tn.Interest = func(string, string) bool { return true }
		c.Run(&tn)
		for _, o := range tn.Out {
			got = append(got, seqOf(t, o.Reply))
		}
		return got
	}
	got := run(0, 4)
	s.begin()
	s.put("k.6", "w")
	s.commit(map[observer][]string{consumerObserver{c}: nil})
	got = append(got, run(int64(firstMax)-1, 1)...)
	if times != 0 || c.Deadline() != int64(firstMax) {
		t.Errorf("released %d times, deadline %s", times, time.Duration(c.Deadline()))
	}
	got = append(got, run(int64(firstMax), 100)...)
	if want := []uint64{1, 2, 3, 4, 5, 6, 8, 9, 10, 11}; !slices.Equal(got, want) || times != 1 {
		t.Errorf("delivered %v, not %v; released %d times", got, want, times)
	}
}
