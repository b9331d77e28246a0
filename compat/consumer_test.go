package compat

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// publish stores n messages with the numbers from first on as data.
func publish(t *testing.T, js jetstream.JetStream, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		_, err := js.Publish(testContext(t), name(t)+".a", []byte(fmt.Sprint(i)))
		must(t, err)
	}
}

// fetch takes n messages from a pull consumer and checks that they are the numbers from first on.
func fetch(t *testing.T, c jetstream.Consumer, first, n int, then func(jetstream.Msg) error) {
	t.Helper()
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(wait))
	must(t, err)
	want := first
	for msg := range batch.Messages() {
		equal(t, "data", string(msg.Data()), fmt.Sprint(want))
		must(t, then(msg))
		want++
	}
	must(t, batch.Error())
	equal(t, "messages", want-first, n)
}

func doubleAck(msg jetstream.Msg) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return msg.DoubleAck(ctx)
}

func noAck(jetstream.Msg) error { return nil }

func TestPullConsumer(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "durable", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second,
	})
	must(t, err)
	publish(t, js, 0, 10)

	fetch(t, c, 0, 4, doubleAck)
	fetch(t, c, 4, 2, noAck)
	info, err := c.Info(ctx)
	must(t, err)
	equal(t, "ack floor", info.AckFloor.Stream, 4)
	equal(t, "pending acks", info.NumAckPending, 2)
	equal(t, "pending", info.NumPending, 4)

	// What was not acknowledged comes again, marked so, before what is new.
	time.Sleep(1200 * time.Millisecond)
	fetch(t, c, 4, 2, func(msg jetstream.Msg) error {
		meta, err := msg.Metadata()
		must(t, err)
		equal(t, "deliveries", meta.NumDelivered, 2)
		return doubleAck(msg)
	})
	fetch(t, c, 6, 1, func(msg jetstream.Msg) error { return msg.Nak() })
	time.Sleep(200 * time.Millisecond) // Nothing tells when a nak was taken in.
	fetch(t, c, 6, 1, func(msg jetstream.Msg) error { return msg.TermWithReason("enough") })
	fetch(t, c, 7, 3, doubleAck)
	eventually(t, "everything is acknowledged", func() bool {
		info, err := c.Info(ctx)
		must(t, err)
		return info.AckFloor.Stream == 10 && info.NumAckPending == 0
	})

	batch, err := c.FetchNoWait(1)
	must(t, err)
	for msg := range batch.Messages() {
		t.Fatalf("there is nothing left, but %q came", msg.Data())
	}
}

func TestPullConsume(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	const n = 2000
	seen := make(chan int, n)
	consume, err := c.Consume(func(msg jetstream.Msg) {
		var number int
		_, _ = fmt.Sscan(string(msg.Data()), &number)
		_ = msg.Ack()
		seen <- number
	})
	must(t, err)
	defer consume.Stop()
	for i := range n {
		_, err := js.PublishAsync(name(t)+".a", []byte(fmt.Sprint(i)))
		must(t, err)
	}
	for want := range n {
		select {
		case got := <-seen:
			equal(t, "message", got, want)
		case <-time.After(wait):
			t.Fatalf("stopped after %d messages", want)
		}
	}
	eventually(t, "everything is acknowledged", func() bool {
		info, err := c.Info(ctx)
		must(t, err)
		return info.AckFloor.Stream == n
	})
}

func TestOrderedConsumer(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	publish(t, js, 0, 50)
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 11})
	must(t, err)
	fetch(t, c, 10, 40, noAck)
}

func TestConsumerFilters(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	for n := range 9 {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name(t), n%3), []byte(fmt.Sprint(n)))
		must(t, err)
	}
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubjects: []string{name(t) + ".0", name(t) + ".2"}, AckPolicy: jetstream.AckNonePolicy,
	})
	must(t, err)
	equal(t, "pending", c.CachedInfo().NumPending, 6)
	batch, err := c.Fetch(6, jetstream.FetchMaxWait(wait))
	must(t, err)
	seen := ""
	for msg := range batch.Messages() {
		seen += string(msg.Data())
	}
	equal(t, "data", seen, "023568")
}

func TestConsumerManagement(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	cfg := jetstream.ConsumerConfig{Durable: "one", AckPolicy: jetstream.AckExplicitPolicy, Description: "d"}
	_, err := s.CreateConsumer(ctx, cfg)
	must(t, err)
	_, err = s.CreateConsumer(ctx, cfg)
	must(t, err)
	changed := cfg
	changed.Description = "changed"
	_, err = s.CreateConsumer(ctx, changed)
	wantErr(t, err, jetstream.ErrConsumerExists)
	_, err = s.UpdateConsumer(ctx, changed)
	must(t, err)
	_, err = s.UpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "two"})
	wantErr(t, err, jetstream.ErrConsumerDoesNotExist)

	c, err := s.Consumer(ctx, "one")
	must(t, err)
	equal(t, "description", c.CachedInfo().Config.Description, "changed")
	names := s.ConsumerNames(ctx)
	for n := range names.Name() {
		equal(t, "name", n, "one")
	}
	must(t, names.Err())
	must(t, s.DeleteConsumer(ctx, "one"))
	_, err = s.Consumer(ctx, "one")
	wantErr(t, err, jetstream.ErrConsumerNotFound)
}

// Clients may name a durable consumer in the subject alone when they update it. It stays what it was.
func TestConsumerUpdateByName(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{Replicas: replicas()})
	_, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "one", MaxDeliver: 10})
	must(t, err)
	c, err := s.UpdateConsumer(ctx, jetstream.ConsumerConfig{Name: "one", MaxDeliver: 20})
	must(t, err)
	equal(t, "max deliver", c.CachedInfo().Config.MaxDeliver, 20)
	equal(t, "inactive threshold", c.CachedInfo().Config.InactiveThreshold, 0)
	c, err = s.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Name: "one", MaxDeliver: 30})
	must(t, err)
	equal(t, "max deliver", c.CachedInfo().Config.MaxDeliver, 30)
	_, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{Name: "one", MaxDeliver: 40})
	wantErr(t, err, jetstream.ErrConsumerExists)
}

func TestPushConsumer(t *testing.T) {
	t.Parallel()
	js := jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{})
	publish(t, js, 0, 5)
	old := legacyJetStream(t, shared())
	sub, err := old.SubscribeSync(name(t)+".a", nats.Durable("push"), nats.AckExplicit(), nats.ManualAck(), nats.AckWait(time.Second))
	must(t, err)
	for n := range 5 {
		msg, err := sub.NextMsg(wait)
		must(t, err)
		equal(t, "data", string(msg.Data), fmt.Sprint(n))
		if n != 2 {
			must(t, msg.AckSync())
		}
	}
	msg, err := sub.NextMsg(wait)
	must(t, err)
	equal(t, "delivered again", string(msg.Data), "2")
	meta, err := msg.Metadata()
	must(t, err)
	equal(t, "deliveries", meta.NumDelivered, 2)
	must(t, msg.AckSync())
	must(t, sub.Unsubscribe())
}

func TestPushQueue(t *testing.T) {
	t.Parallel()
	js := jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{})
	got := make(chan string, 100)
	for range 3 {
		old := legacyJetStream(t, shared())
		_, err := old.QueueSubscribe(name(t)+".a", "workers", func(msg *nats.Msg) { got <- string(msg.Data) })
		must(t, err)
	}
	const n = 60
	publish(t, js, 0, n)
	seen := map[string]bool{}
	for range n {
		select {
		case data := <-got:
			if seen[data] {
				t.Fatalf("message %s was given to two members", data)
			}
			seen[data] = true
		case <-time.After(wait):
			t.Fatalf("stopped after %d messages", len(seen))
		}
	}
}

func TestIdleHeartbeatFlowControl(t *testing.T) {
	t.Parallel()
	js := jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{})
	publish(t, js, 0, 3)
	nc := shared().Connect(t)
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	must(t, nc.Flush())
	old, err := nc.JetStream()
	must(t, err)
	_, err = old.AddConsumer(name(t), &nats.ConsumerConfig{
		DeliverSubject: inbox, AckPolicy: nats.AckNonePolicy, Heartbeat: 200 * time.Millisecond, FlowControl: true,
	})
	must(t, err)
	for range 3 {
		msg, err := sub.NextMsg(wait)
		must(t, err)
		equal(t, "subject", msg.Subject, name(t)+".a")
	}
	beats := 0
	for deadline := time.Now().Add(wait); beats < 3; {
		msg, err := sub.NextMsg(time.Until(deadline))
		must(t, err)
		if msg.Header.Get("Status") != "100" {
			t.Fatalf("unexpected message %+v", msg)
		}
		if msg.Reply != "" { // A flow control request: answer, or nothing more comes.
			must(t, msg.Respond(nil))
			continue
		}
		equal(t, "description", msg.Header.Get("Description"), "Idle Heartbeat")
		equal(t, "last consumer sequence", msg.Header.Get("Nats-Last-Consumer"), "3")
		equal(t, "last stream sequence", msg.Header.Get("Nats-Last-Stream"), "3")
		beats++
	}
}

func TestNoStream(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	_, err := js.Stream(ctx, "no_such_stream")
	wantErr(t, err, jetstream.ErrStreamNotFound)
	_, err = js.Publish(ctx, "no.such.subject", nil)
	wantErr(t, err, jetstream.ErrNoStreamResponse)
	_, err = shared().Connect(t).Request("no.such.service", nil, wait)
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("error %v, want no responders", err)
	}
}
