package stream

import (
	"testing"
	"time"
)

// A new leader's clock may be hours behind that of the one before, or ahead. Times in the stream never go back, what
// expires does so no sooner than it was to, and an expiry of a clock that is behind removes nothing.
func TestLeadersWithClocksApart(t *testing.T) {
	w := newWorld(t)
	w.configure(`{"storage":"memory","allow_msg_ttl":true,"max_age":36000000000000}`) // ten hours
	publish := func(header string) uint64 {
		t.Helper()
		r := w.apply(AppendPublish(nil, "a.b", []byte(header), []byte("v")))[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r.Seq
	}
	const short = HeaderLine + "Nats-TTL: 60s\r\n\r\n"
	steps := []time.Duration{100 * time.Hour, 98 * time.Hour, 98*time.Hour + time.Second, 103 * time.Hour, 97 * time.Hour}
	last := time.Duration(0)
	for _, w.now = range steps {
		m, err := w.engine.Load(publish(short))
		if err != nil {
			t.Fatal(err)
		}
		if at := time.Duration(m.Time); at <= last || at < w.now {
			t.Errorf("a message of %s, behind one of %s, is of %s", w.now, last, at)
		} else {
			last = at
		}
		if left := time.Duration(m.Expires - m.Time); left != time.Minute {
			t.Errorf("it is to live for %s", left)
		}
	}
	expire := func(at time.Duration) uint64 {
		w.now = at
		return w.apply(EncodeExpire())[0].Purged
	}
	if n := expire(97 * time.Hour); n != 0 {
		t.Errorf("a clock that is behind removed %d", n)
	}
	if n := expire(100*time.Hour + 61*time.Second); n != 3 {
		t.Errorf("%d expired with the first clock, want the three of it and those behind", n)
	}
	if n := expire(103*time.Hour + 61*time.Second); n != 2 {
		t.Errorf("%d expired in the end", n)
	}
}
