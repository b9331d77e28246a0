package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stream creates a stream that takes the subjects below its name, and deletes it with the test.
func stream(t *testing.T, s jetstream.JetStream, cfg jetstream.StreamConfig) jetstream.Stream {
	t.Helper()
	cfg.Name = name(t)
	if cfg.Subjects == nil {
		cfg.Subjects = []string{name(t) + ".>"}
	}
	created, err := s.CreateStream(testContext(t), cfg)
	must(t, err)
	t.Cleanup(func() { _ = s.DeleteStream(context.Background(), cfg.Name) })
	return created
}

func TestPublishExpectations(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{})
	a, b := name(t)+".a", name(t)+".b"
	publish := func(subject string, opts ...jetstream.PublishOpt) error {
		_, err := js.Publish(ctx, subject, []byte("v"), opts...)
		return err
	}

	must(t, publish(a, jetstream.WithExpectLastSequence(0), jetstream.WithMsgID("one")))
	must(t, publish(b, jetstream.WithExpectLastSequence(1), jetstream.WithMsgID("two")))
	wantCode(t, publish(a, jetstream.WithExpectLastSequence(1)), 10071)
	must(t, publish(a, jetstream.WithExpectLastSequencePerSubject(1)))
	wantCode(t, publish(a, jetstream.WithExpectLastSequencePerSubject(2)), 10071)
	wantCode(t, publish(a, jetstream.WithExpectLastSequencePerSubject(0)), 10071)
	must(t, publish(b, jetstream.WithExpectLastSequenceForSubject(3, a)))
	wantCode(t, publish(b, jetstream.WithExpectLastSequenceForSubject(1, a)), 10071)
	must(t, publish(b, jetstream.WithExpectStream(name(t)), jetstream.WithMsgID("last")))
	wantCode(t, publish(b, jetstream.WithExpectStream("other")), 10060)
	must(t, publish(b, jetstream.WithExpectLastMsgID("last")))
	wantCode(t, publish(b, jetstream.WithExpectLastMsgID("two")), 10070)
}

func TestPublishDuplicates(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{Duplicates: 500 * time.Millisecond})
	publish := func() *jetstream.PubAck {
		ack, err := js.Publish(ctx, name(t)+".a", []byte("v"), jetstream.WithMsgID("id"))
		must(t, err)
		equal(t, "stream", ack.Stream, name(t))
		return ack
	}
	first, second := publish(), publish()
	equal(t, "first is a duplicate", first.Duplicate, false)
	equal(t, "second is a duplicate", second.Duplicate, true)
	equal(t, "sequence of the second", second.Sequence, first.Sequence)
	eventually(t, "the window has passed", func() bool { return !publish().Duplicate })
	info, err := s.Info(ctx)
	must(t, err)
	equal(t, "messages", info.State.Msgs, 2)
}

func TestStreamLimits(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{MaxMsgs: 3, Discard: jetstream.DiscardOld})
	for n := range 5 {
		_, err := js.Publish(ctx, name(t)+".a", []byte(fmt.Sprint(n)))
		must(t, err)
	}
	info, err := s.Info(ctx)
	must(t, err)
	equal(t, "messages", info.State.Msgs, 3)
	equal(t, "first sequence", info.State.FirstSeq, 3)
	equal(t, "last sequence", info.State.LastSeq, 5)

	cfg := info.Config
	cfg.Discard = jetstream.DiscardNew
	_, err = js.UpdateStream(ctx, cfg)
	must(t, err)
	_, err = js.Publish(ctx, name(t)+".a", nil)
	wantCode(t, err, 10077)
}

func TestStreamPurge(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	for n := range 10 {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name(t), n%2), []byte(fmt.Sprint(n)))
		must(t, err)
	}
	left := func() uint64 {
		info, err := s.Info(ctx)
		must(t, err)
		return info.State.Msgs
	}
	must(t, s.Purge(ctx, jetstream.WithPurgeSubject(name(t)+".0"), jetstream.WithPurgeKeep(2)))
	equal(t, "messages after purging one subject but two", left(), 7)
	must(t, s.Purge(ctx, jetstream.WithPurgeSequence(7)))
	equal(t, "messages after purging up to 7", left(), 4)
	must(t, s.Purge(ctx))
	equal(t, "messages after purging", left(), 0)
	ack, err := js.Publish(ctx, name(t)+".0", nil)
	must(t, err)
	equal(t, "sequence after purging", ack.Sequence, 11)
}

func TestMessageGetDelete(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{})
	msg := nats.NewMsg(name(t) + ".a")
	msg.Header.Set("Color", "blue")
	msg.Data = []byte("v")
	_, err := js.PublishMsg(ctx, msg)
	must(t, err)

	for how, get := range map[string]func() (*jetstream.RawStreamMsg, error){
		"by sequence": func() (*jetstream.RawStreamMsg, error) { return s.GetMsg(ctx, 1) },
		"by subject":  func() (*jetstream.RawStreamMsg, error) { return s.GetLastMsgForSubject(ctx, name(t)+".*") },
	} {
		got, err := get()
		must(t, err)
		equal(t, how+": data", string(got.Data), "v")
		equal(t, how+": header", got.Header.Get("Color"), "blue")
		equal(t, how+": sequence", got.Sequence, 1)
		equal(t, how+": subject", got.Subject, msg.Subject)
	}
	must(t, s.DeleteMsg(ctx, 1))
	_, err = s.GetMsg(ctx, 1)
	wantErr(t, err, jetstream.ErrMsgNotFound)
	if err = s.DeleteMsg(ctx, 1); err == nil {
		t.Fatal("a message was deleted twice")
	}
}

func TestStreamInfo(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{Description: "d", Metadata: map[string]string{"k": "v"}})
	for n := range 10 {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name(t), n%3), nil)
		must(t, err)
	}
	must(t, s.DeleteMsg(ctx, 5))
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"), jetstream.WithDeletedDetails(true))
	must(t, err)
	equal(t, "messages", info.State.Msgs, 9)
	equal(t, "subjects", info.State.NumSubjects, 3)
	equal(t, "messages of one subject", info.State.Subjects[name(t)+".0"], 4)
	equal(t, "deleted", fmt.Sprint(info.State.Deleted), "[5]")
	equal(t, "metadata", info.Config.Metadata["k"], "v")

	other, err := js.StreamNameBySubject(ctx, name(t)+".0")
	must(t, err)
	equal(t, "stream of the subject", other, name(t))
	overlap := jetstream.StreamConfig{Name: name(t) + "_2", Subjects: []string{name(t) + ".0"}}
	_, err = js.CreateStream(ctx, overlap)
	wantCode(t, err, 10065)
}

// directGet asks for messages and reads answers until the one that ends the batch.
func directGet(t *testing.T, nc *nats.Conn, stream, request string) (answers []*nats.Msg, end *nats.Msg) {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	defer sub.Unsubscribe()
	must(t, nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, []byte(request)))
	for {
		msg, err := sub.NextMsg(wait)
		must(t, err)
		if msg.Header.Get("Status") != "" {
			return answers, msg
		}
		answers = append(answers, msg)
	}
}

func TestDirectGetBatch(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{AllowDirect: true})
	for n := range 10 {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name(t), n%2), []byte(fmt.Sprint(n)))
		must(t, err)
	}
	nc := shared().Connect(t)
	request := fmt.Sprintf(`{"batch":3,"seq":2,"next_by_subj":"%s.1"}`, name(t))
	answers, end := directGet(t, nc, name(t), request)
	equal(t, "data", joinData(answers), "1 3 5")
	equal(t, "end", end.Header.Get("Status")+" "+end.Header.Get("Description"), "204 EOB")
	equal(t, "subject of the first", answers[0].Header.Get("Nats-Subject"), name(t)+".1")
	equal(t, "sequence of the first", answers[0].Header.Get("Nats-Sequence"), "2")
	equal(t, "left after the first", answers[0].Header.Get("Nats-Num-Pending"), "4")
	equal(t, "left at the end", end.Header.Get("Nats-Num-Pending"), "2")

	_, end = directGet(t, nc, name(t), `{"batch":3,"seq":100}`)
	equal(t, "nothing there", end.Header.Get("Status"), "404")
	_, end = directGet(t, nc, name(t), ``)
	equal(t, "an empty request", end.Header.Get("Status"), "408")
}

func TestDirectGetMultiLast(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	stream(t, js, jetstream.StreamConfig{AllowDirect: true})
	for n := range 9 {
		_, err := js.Publish(ctx, fmt.Sprintf("%s.%d.x", name(t), n%3), []byte(fmt.Sprint(n)))
		must(t, err)
	}
	nc := shared().Connect(t)
	ask := func(filters ...string) map[string]any { return map[string]any{"multi_last": filters} }
	get := func(request map[string]any) (string, *nats.Msg) {
		body, err := json.Marshal(request)
		must(t, err)
		answers, end := directGet(t, nc, name(t), string(body))
		return joinData(answers), end
	}
	data, end := get(ask(name(t)+".0.x", name(t)+".2.*"))
	equal(t, "two subjects", data, "6 8")
	equal(t, "end", end.Header.Get("Status"), "204")
	equal(t, "sequence of the view", end.Header.Get("Nats-UpTo-Sequence"), "9")
	data, _ = get(ask(name(t) + ".>"))
	equal(t, "all subjects", data, "6 7 8")
	earlier := ask(name(t) + ".>")
	earlier["up_to_seq"] = 5
	data, _ = get(earlier)
	equal(t, "all subjects as of sequence 5", data, "2 3 4")
	data, end = get(ask(name(t) + ".9.x"))
	equal(t, "no subject", data+end.Header.Get("Status"), "404")
}

func joinData(msgs []*nats.Msg) string {
	words := make([]string, len(msgs))
	for i, m := range msgs {
		words[i] = string(m.Data)
	}
	return strings.Join(words, " ")
}
