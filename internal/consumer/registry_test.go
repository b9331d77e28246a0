package consumer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// dump shows everything that Acks remember.
func dump(a *Acks) string {
	var b strings.Builder
	fmt.Fprintf(&b, "delivered %+v floor %+v again %d\n", a.delivered, a.floor, a.again)
	a.pending.Scan(func(seq uint64, u unacked) bool {
		fmt.Fprintf(&b, "%d: %+v\n", seq, u)
		return true
	})
	if a.due != nil {
		a.due.Scan(func(k dueKey) bool {
			fmt.Fprintf(&b, "due %+v\n", k)
			return true
		})
	}
	return b.String()
}

// TestRegistryFollows has a consumer deliver and hear acknowledgements at random, sends its journal
// to a registry in pieces, and wants the registry, and one that is read from the records, to know
// what the consumer knows.
func TestRegistryFollows(t *testing.T) {
	for seed := range int64(40) {
		rng := rand.New(rand.NewSource(seed))
		s := newTestStream(t, 0)
		s.begin()
		for i := range 60 {
			s.put(fmt.Sprintf("k.%d", i%7), "v")
		}
		s.commit(nil)
		var reg Registry
		e := s.create(&reg, api.ConsumerConfig{
			Name: "c", Durable: "c", MaxDeliver: []int{-1, 3}[rng.Intn(2)], MaxAckPending: 10, AckWait: 5 * time.Second,
			AckPolicy: []api.AckPolicy{api.AckNone, api.AckAll, api.AckExplicit}[rng.Intn(3)],
		})
		c := New(s.engine, Spec{Stream: "S", Name: "c", Config: e.Config, Start: e.Start}, reg.Acks(e), 0)
		turn := Turn{Reader: s.engine, Interest: func(string, string) bool { return true }}
		var journal []byte
		for now := int64(0); now < int64(time.Minute); now += int64(time.Second) {
			turn.Reset(now)
			turn.MsgsMax, turn.BytesMax = 1+rng.Intn(5), 1<<20
			c.Ask(Pull{Reply: "r", Batch: 1 + rng.Intn(4), Expires: time.Second}, &turn)
			c.Run(&turn)
			for range rng.Intn(4) {
				c.Acknowledge(Ack{
					Kind:  []AckKind{Acked, Acked, Naked, Working, Finished}[rng.Intn(5)],
					Seq:   uint64(1 + rng.Intn(60)),
					Delay: time.Duration(rng.Intn(5)) * time.Second,
				}, &turn)
			}
			if rng.Intn(40) == 0 {
				c.Reset(s.engine, uint64(1+rng.Intn(60)))
			}
			journal = append(journal, c.TakeJournal()...)
			if rng.Intn(3) == 0 || now+int64(time.Second) >= int64(time.Minute) {
				s.apply(&reg, EncodeState("c", e.Created, journal))
				journal = nil
				if got, want := dump(e.acks), dump(c.acks); got != want {
					t.Fatalf("seed %d: the registry has\n%s\nthe consumer\n%s", seed, got, want)
				}
			}
		}
		var read Registry
		if err := read.Load(s.engine); err != nil {
			t.Fatal(err)
		}
		r, ok := read.Get("c")
		if !ok || !SameConfig(&r.Config, &e.Config) || r.Start != e.Start || r.Created != e.Created {
			t.Fatalf("seed %d: read %+v, was %+v", seed, r, e)
		}
		if got, want := dump(r.acks), dump(e.acks); got != want {
			t.Fatalf("seed %d: read\n%s\nwas\n%s", seed, got, want)
		}
		s.begin()
		if _, err := read.Gone(s.tx, (&Gone{Name: "c", Created: e.Created}).Encode()); err != nil {
			t.Fatal(err)
		}
		s.commit(nil)
		s.engine.AuxRange("consumer", func(key string, _ []byte) bool {
			t.Errorf("seed %d: record %q is left of a consumer that is gone", seed, key)
			return false
		})
	}
}

func (s *testStream) create(reg *Registry, cfg api.ConsumerConfig) *Entry {
	s.t.Helper()
	stream := &api.StreamConfig{Name: "S", Replicas: 1}
	Normalize(&cfg, stream)
	s.begin()
	e, err := reg.Create(s.tx, (&Create{Config: cfg}).Encode(), stream, 77)
	if err != nil {
		s.t.Fatal(err)
	}
	s.commit(nil)
	return e
}

func (s *testStream) apply(reg *Registry, body []byte) []uint64 {
	s.t.Helper()
	s.begin()
	acked, err := reg.Apply(s.tx, body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.commit(nil)
	return acked
}

// TestRegistryDecides goes through what a registry refuses, and what it says of messages.
func TestRegistryDecides(t *testing.T) {
	s := newTestStream(t, 0)
	s.begin()
	s.put("k.a", "1")
	s.put("k.b", "2")
	s.commit(nil)
	var reg Registry
	queue := &api.StreamConfig{Name: "S", Replicas: 1, Retention: api.WorkQueueRetention, MaxConsumers: 2}
	create := func(c Create) *api.Error {
		Normalize(&c.Config, queue)
		s.begin()
		defer s.commit(nil)
		_, err := reg.Create(s.tx, c.Encode(), queue, 77)
		return err
	}
	on := func(name, filter string) api.ConsumerConfig {
		return api.ConsumerConfig{Name: name, FilterSubject: filter, AckPolicy: api.AckExplicit}
	}
	described := on("a", "k.a")
	described.Description = "changed"
	all := on("x", "k.x")
	all.AckPolicy = api.AckAll
	newer := on("x", "k.x")
	newer.DeliverPolicy = api.DeliverNew
	other := on("a", "k.a")
	other.AckPolicy = api.AckNone
	for i, step := range []struct {
		c    Create
		want error
	}{
		{Create{Config: on("a", "k.a"), Action: api.ActionUpdate}, api.ErrConsumerDoesNotExist},
		{Create{Config: on("a", "k.a"), Fresh: true}, nil},
		{Create{Config: on("a", "k.a"), Fresh: true, Action: api.ActionCreate}, nil},
		{Create{Config: described, Fresh: true}, api.ErrConsumerNameInUse},
		{Create{Config: described, Action: api.ActionCreate}, api.ErrConsumerAlreadyExists},
		{Create{Config: described}, nil},
		{Create{Config: on("x", "")}, api.ErrWorkQueueMultipleUnfiltered},
		{Create{Config: on("x", "k.*")}, api.ErrWorkQueueNotUnique},
		{Create{Config: all}, api.ErrWorkQueueRequiresExplicitAck},
		{Create{Config: newer}, api.ErrWorkQueueDeliverAll},
		{Create{Config: other}, api.ErrWorkQueueRequiresExplicitAck},
		{Create{Config: on("b", "k.b")}, nil},
		{Create{Config: on("c", "k.c")}, api.ErrMaximumConsumers},
	} {
		err := create(step.c)
		if step.want == nil && err != nil || step.want != nil && (err == nil || !errors.Is(err, step.want)) {
			t.Errorf("step %d: want %v, got %v", i, step.want, err)
		}
	}
	if !reg.Wants("k.a") || reg.Wants("k.c") {
		t.Error("the registry is wrong about who wants what")
	}
	if reg.Settled(1, "k.a") || !reg.Settled(1, "k.c") {
		t.Error("the registry is wrong about what is settled before a delivery")
	}
	journal := op{kind: opDeliver, seq: 1, at: 5}.append(nil)
	s.apply(&reg, EncodeState("a", 77, journal))
	if reg.Settled(1, "k.a") {
		t.Error("a message that is not acknowledged is settled")
	}
	if acked := s.apply(&reg, EncodeState("a", 76, op{kind: opAck, seq: 1, at: 6}.append(nil))); acked != nil || reg.Settled(1, "k.a") {
		t.Error("the journal of another consumer of that name counts")
	}
	acked := s.apply(&reg, EncodeState("a", 77, op{kind: opAck, seq: 1, at: 6}.append(nil)))
	if len(acked) != 1 || acked[0] != 1 || !reg.Settled(1, "k.a") {
		t.Errorf("acknowledged %v", acked)
	}
	s.begin()
	if _, err := reg.Gone(s.tx, (&Gone{Name: "a", Created: 5}).Encode()); err == nil {
		t.Error("another consumer of that name was deleted")
	}
	if _, err := reg.Apply(s.tx, EncodeState("b", 77, []byte{99})); err == nil {
		t.Error("a journal that does not decode was applied")
	}
	s.commit(nil)
}

// TestRegistryChanges makes sure that whoever follows a registry hears of every change.
func TestRegistryChanges(t *testing.T) {
	s := newTestStream(t, 0)
	var reg Registry
	seen := reg.Version()
	for i := range 3 * changesMax {
		s.create(&reg, api.ConsumerConfig{Name: fmt.Sprint(i)})
		if i%10 != 0 {
			continue
		}
		names, now, all := reg.ChangedSince(seen)
		if all || now != reg.Version() || names[len(names)-1] != fmt.Sprint(i) {
			t.Fatalf("after %d: %v %d %v", i, names, now, all)
		}
		seen = now
	}
	if _, _, all := reg.ChangedSince(0); !all {
		t.Error("a follower that is far behind is not told so")
	}
	if err := reg.Load(s.engine); err != nil {
		t.Fatal(err)
	}
	if _, _, all := reg.ChangedSince(seen); !all {
		t.Error("a follower is not told that everything was replaced")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(EncodeState("c", 77, op{kind: opDelay, seq: 1 << 40, at: -5}.append(op{kind: opReset, seq: 3}.append(nil))))
	f.Fuzz(func(t *testing.T, body []byte) {
		name, created, ops, err := decodeState(body)
		if err != nil {
			return
		}
		a := newAcks(AckRule{Policy: api.AckExplicit}, 1)
		var again []byte
		for rest := ops; len(rest) > 0; {
			var o op
			if o, rest, err = nextOp(rest); err != nil {
				return
			}
			a.apply(o)
			again = o.append(again)
		}
		n, at, ops2, err := decodeState(EncodeState(name, created, again))
		if err != nil || n != name || at != created || !bytes.Equal(ops2, again) {
			t.Fatalf("%q %d %x, then %q %d %x: %v", name, created, again, n, at, ops2, err)
		}
	})
}

// A journal counts only where the one before it did: not behind one that was lost, and not behind that of another
// server which has taken over. Else messages would count as delivered that nobody knows of any more, or be
// outstanding again though their acknowledgement was confirmed.
func TestRegistryRefusesSuperseded(t *testing.T) {
	s := newTestStream(t, 0)
	s.begin()
	for range 5 {
		s.put("k", "v")
	}
	s.commit(nil)
	var reg Registry
	e := s.create(&reg, api.ConsumerConfig{Name: "c", Durable: "c", AckPolicy: api.AckExplicit, AckWait: time.Second})
	apply := func(journal []byte) error {
		s.begin()
		_, err := reg.Apply(s.tx, EncodeState("c", e.Created, journal))
		s.commit(nil)
		return err
	}
	refused := func(what string, journal []byte) {
		t.Helper()
		before := reg.Acks(e)
		err := apply(journal)
		if after := reg.Acks(e); !errors.Is(err, ErrSuperseded) || after.Delivered() != before.Delivered() || after.Outstanding() != before.Outstanding() {
			t.Errorf("%s: %v; at %+v, where it was at %+v", what, err, after.Delivered(), before.Delivered())
		}
	}
	before, now := reg.Acks(e), reg.Acks(e)
	before.Deliver(1, 1)
	late := before.TakeJournal()
	now.Deliver(1, 2)
	now.Ack(1, 3)
	if err := apply(now.TakeJournal()); err != nil {
		t.Fatal(err)
	}
	refused("of who led before", late)

	now.Deliver(2, 4)
	now.TakeJournal() // Lost.
	now.Ack(2, 5)
	now.Deliver(3, 6)
	refused("behind one that was lost", now.TakeJournal())

	again := reg.Acks(e)
	again.Deliver(2, 7)
	if err := apply(again.TakeJournal()); err != nil {
		t.Fatal(err)
	}
}
