package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// on places a stream with a single replica on one server of a cluster.
func on(server int, cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Replicas = 1
	cfg.Placement = &jetstream.Placement{Tags: []string{fmt.Sprint("n", server)}}
	return cfg
}

// awaitInfo waits until a stream is as it is to become.
func awaitInfo(t *testing.T, js jetstream.JetStream, stream string, is func(*jetstream.StreamInfo) bool) *jetstream.StreamInfo {
	t.Helper()
	ctx := testContext(t)
	var last any
	for end := time.Now().Add(2 * wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			last = err
			continue
		}
		if last = s.CachedInfo(); is(s.CachedInfo()) {
			return s.CachedInfo()
		}
	}
	shown, _ := json.Marshal(last)
	t.Fatalf("stream %s stays %s (%v)", stream, shown, last)
	return nil
}

// A stream is copied to servers that have no replica of it, in full and filtered, once and in order,
// whichever of the servers goes away meanwhile.
func TestPromiseClusterCopiesFromAfar(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	create := func(cfg jetstream.StreamConfig) jetstream.Stream {
		t.Helper()
		s, err := p.js[2].CreateStream(ctx, cfg)
		must(t, err)
		return s
	}
	published := 0
	publish := func(n int) {
		t.Helper()
		for range n {
			untilDone(t, func() error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				subject := fmt.Sprint("o.", []string{"keep.", "drop."}[published%2], published)
				_, err := p.js[2].Publish(ctx, subject, fmt.Append(nil, "m", published), jetstream.WithMsgID(fmt.Sprint(published)))
				return err
			})
			published++
		}
	}
	o := create(on(0, jetstream.StreamConfig{Name: "O", Subjects: []string{"o.>"}}))
	publish(700) // More than a page.
	must(t, o.DeleteMsg(ctx, 10))
	must(t, o.DeleteMsg(ctx, uint64(published)))
	middle, err := o.GetMsg(ctx, 300)
	must(t, err)
	create(on(1, jetstream.StreamConfig{Name: "M", Mirror: &jetstream.StreamSource{Name: "O"}}))
	create(on(2, jetstream.StreamConfig{Name: "A", Sources: []*jetstream.StreamSource{
		{Name: "O", SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: "o.keep.*", Destination: "a.$1"}}},
	}}))
	create(on(2, jetstream.StreamConfig{Name: "B", Sources: []*jetstream.StreamSource{{Name: "O", OptStartTime: &middle.Time}}}))

	same := func(client jetstream.JetStream) {
		t.Helper()
		s, err := client.Stream(ctx, "O")
		must(t, err)
		want := s.CachedInfo().State
		i := awaitInfo(t, client, "M", func(i *jetstream.StreamInfo) bool {
			return i.State.Msgs == want.Msgs && i.State.LastSeq == want.LastSeq && i.State.FirstSeq == want.FirstSeq &&
				i.Mirror.Lag == 0 && i.Mirror.Active >= 0
		})
		if i.Cluster.Leader != "n1" || i.Mirror.Name != "O" || i.Mirror.Active > wait || i.Mirror.Error != nil {
			t.Fatalf("mirror: %+v of %+v", i.Mirror, i.Cluster)
		}
		awaitInfo(t, client, "A", func(i *jetstream.StreamInfo) bool {
			return i.State.Msgs == uint64(published+1)/2 && i.Sources[0].Lag == 0
		})
		awaitInfo(t, client, "B", func(i *jetstream.StreamInfo) bool { return i.State.Msgs == want.Msgs-298 })
		m, err := client.Stream(ctx, "M")
		must(t, err)
		for seq := want.FirstSeq; seq < want.LastSeq; seq += 37 {
			a, err := s.GetMsg(ctx, seq)
			must(t, err)
			b, err := m.GetMsg(ctx, seq)
			must(t, err)
			if a.Subject != b.Subject || string(a.Data) != string(b.Data) || !a.Time.Equal(b.Time) || a.Header.Get("Nats-Msg-Id") != b.Header.Get("Nats-Msg-Id") {
				t.Fatalf("%+v became %+v", a, b)
			}
		}
	}
	same(p.js[0])
	for _, victim := range []int{0, 1} {
		p.servers[victim].Kill()
		if victim != 0 {
			publish(50)
		}
		must(t, p.servers[victim].Start())
		publish(50)
		same(jetStream(t, p.servers[victim]))
	}

	// What is made anew is another stream: sources begin again, a mirror does not.
	must(t, p.js[2].DeleteStream(ctx, "O"))
	create(on(2, jetstream.StreamConfig{Name: "O", Subjects: []string{"o.>"}}))
	before := uint64(published+1) / 2
	published = 0
	publish(4)
	awaitInfo(t, p.js[2], "A", func(i *jetstream.StreamInfo) bool { return i.State.Msgs == before+2 })
	i := awaitInfo(t, p.js[2], "M", func(i *jetstream.StreamInfo) bool { return i.Mirror.Error != nil })
	if i.Mirror.Error.ErrorCode != 10029 {
		t.Fatalf("mirror of another stream: %+v", i.Mirror.Error)
	}
}
