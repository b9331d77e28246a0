package broker

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cleatkv/cleat/internal/auth"
)

// fakeConn is a socket that takes up to room bytes at once, or all if room is negative.
type fakeConn struct {
	mu      sync.Mutex
	client  *Client
	got     bytes.Buffer
	room    int
	writers int
	slow    bool
	aborted bool
	flushed bool
}

func (f *fakeConn) Offer(p []byte) (int, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(p)
	if f.room >= 0 {
		n = min(n, f.room)
		f.room -= n
	}
	f.got.Write(p[:n])
	return n, true, nil
}

func (f *fakeConn) StartWriter()             { f.writers++ }
func (f *fakeConn) Abort(slow bool, _ error) { f.slow, f.aborted = slow, true }
func (f *fakeConn) Flushed()                 { f.flushed = true }

// take returns what was written since the last call.
func (f *fakeConn) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.got.String()
	f.got.Reset()
	return strings.ReplaceAll(s, "\r\n", "|")
}

func connect(t *testing.T, a *Account, id uint64, rules *auth.Rules) (*Client, *fakeConn) {
	t.Helper()
	p, err := auth.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeConn{room: -1}
	c := a.Broker().NewClient(id, f, 1<<20)
	f.client = c
	c.Bind(a, Identity{Permissions: p}, Traits{Echo: true, Headers: true, NoResponders: true})
	return c, f
}

func publish(c *Client, subj, reply, data string) {
	var out Batch
	c.Publish(&out, []byte(subj), []byte(reply), nil, []byte(data))
	out.Flush()
}

func subscribe(t *testing.T, c *Client, subj, queue, sid string) {
	t.Helper()
	if err := c.Subscribe(subj, queue, sid); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, f *fakeConn, want string) {
	t.Helper()
	if got := f.take(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPublishReachesClientsAndInternal(t *testing.T) {
	a := New().Account(GlobalAccount)
	c1, f1 := connect(t, a, 1, nil)
	c2, f2 := connect(t, a, 2, nil)
	subscribe(t, c1, "a.*", "", "7")
	var seen []string
	s := a.Subscribe("a.>", "", func(m *Msg) {
		seen = append(seen, fmt.Sprint(m.Subject, m.Reply, string(m.Data), m.Client.ID()))
		m.Respond(nil, []byte("ack"))
	})
	subscribe(t, c2, "inbox.>", "", "x")
	publish(c2, "a.b", "inbox.1", "hi")
	expect(t, f1, "MSG a.b 7 inbox.1 2|hi|")
	expect(t, f2, "MSG inbox.1 x 3|ack|")
	if want := "[a.binbox.1hi2]"; fmt.Sprint(seen) != want {
		t.Errorf("internal subscription saw %v, want %v", seen, want)
	}
	s.Close()
	publish(c2, "a.b.c", "inbox.1", "hi")
	expect(t, f2, "HMSG inbox.1 x 37 37|NATS/1.0 503|Nats-Subject: a.b.c|||")
}

func TestStringsOfAMessageMayBeKept(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, _ := connect(t, a, 1, nil)
	var kept Msg
	a.Subscribe(">", "", func(m *Msg) { kept = *m })
	subj, reply := []byte("subject"), []byte("reply")
	var out Batch
	c.Publish(&out, subj, reply, nil, nil)
	copy(subj, "XXXXXXX")
	copy(reply, "XXXXX")
	if kept.Subject != "subject" || kept.Reply != "reply" {
		t.Errorf("kept %q %q", kept.Subject, kept.Reply)
	}
	c.Publish(&out, subj, nil, nil, nil)
	copy(subj, "YYYYYYY")
	if kept.Subject != "XXXXXXX" {
		t.Errorf("kept %q", kept.Subject)
	}
}

func TestDeliverBearsAnotherSubject(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, f := connect(t, a, 1, nil)
	subscribe(t, c, "_INBOX.*", "", "1")
	subscribe(t, c, "_INBOX.*", "q", "2")
	if n := a.Deliver(nil, "_INBOX.x", "", "$KV.b.k", "ack", nil, []byte("v")); n != 2 {
		t.Errorf("delivered to %d", n)
	}
	expect(t, f, "MSG $KV.b.k 1 ack 1|v|MSG $KV.b.k 2 ack 1|v|")
	if n := a.Deliver(nil, "_INBOX.x", "q", "$KV.b.k", "", []byte("NATS/1.0\r\n\r\n"), nil); n != 1 {
		t.Errorf("delivered to %d of the group", n)
	}
	expect(t, f, "HMSG $KV.b.k 2 12 12|NATS/1.0|||")
}

func TestQueueGroupGetsOneCopy(t *testing.T) {
	a := New().Account(GlobalAccount)
	counts := make([]int, 3)
	for i, subj := range []string{"q.a", "q.*", "q.>"} {
		a.Subscribe(subj, "workers", func(*Msg) { counts[i]++ })
	}
	for range 300 {
		if n := a.Publish(nil, "q.a", "", nil, nil); n != 1 {
			t.Fatalf("delivered %d copies", n)
		}
	}
	for i, n := range counts {
		if n < 50 {
			t.Errorf("member %d got only %d of 300", i, n)
		}
	}
}

func TestUnsubscribeAfterMax(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, f := connect(t, a, 1, nil)
	subscribe(t, c, "x", "", "1")
	a.Publish(nil, "x", "", nil, nil)
	c.Unsubscribe("1", 2)
	for range 3 {
		a.Publish(nil, "x", "", nil, nil)
	}
	expect(t, f, "MSG x 1 0||MSG x 1 0||")
	if a.Interest("x", "") || c.NumSubscriptions() != 0 {
		t.Error("the subscription outlived its bound")
	}
}

func TestWatchInterest(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, _ := connect(t, a, 1, nil)
	var plain, group []bool
	cancel := a.WatchInterest("d.1", "", func(has bool) { plain = append(plain, has) })
	a.WatchInterest("d.1", "q", func(has bool) { group = append(group, has) })
	subscribe(t, c, "d.*", "q", "1")
	subscribe(t, c, "d.1", "", "2")
	subscribe(t, c, "e.1", "", "3")
	c.Unsubscribe("1", 0)
	c.Close()
	if want := "[true false]"; fmt.Sprint(plain) != want || fmt.Sprint(group) != want {
		t.Errorf("plain %v, group %v, want %v each", plain, group, want)
	}
	cancel()
	a.Subscribe("d.1", "", func(*Msg) {})
	if len(plain) != 2 {
		t.Error("called after cancel")
	}
}

func TestPermissions(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, f := connect(t, a, 1, &auth.Rules{
		Publish:   auth.Subjects{Allow: []string{"ok.>"}},
		Subscribe: auth.Subjects{Deny: []string{"in.secret", "no.>"}},
		Responses: &auth.Responses{Max: 1},
	})
	publish(c, "bad", "", "")
	expect(t, f, `-ERR 'Permissions Violation for Publish to "bad"'|`)
	if err := c.Subscribe("no.*", "q", "1"); err == nil ||
		err.Error() != `Permissions Violation for Subscription to "no.*" using queue "q"` {
		t.Errorf("subscribe: %v", err)
	}
	subscribe(t, c, "in.*", "", "2")
	a.Publish(nil, "in.secret", "", nil, nil)
	a.Publish(nil, "in.open", "answer.me", nil, nil)
	expect(t, f, "MSG in.open 2 answer.me 0||")
	publish(c, "answer.me", "", "")
	expect(t, f, "")
	publish(c, "answer.me", "", "")
	expect(t, f, `-ERR 'Permissions Violation for Publish to "answer.me"'|`)
}

func TestOutputContinuesInWriter(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, f := connect(t, a, 1, nil)
	f.room = 5
	subscribe(t, c, "x", "", "1")
	a.Publish(nil, "x", "", nil, []byte("one"))
	a.Publish(nil, "x", "", nil, []byte("two"))
	if f.writers != 1 {
		t.Fatalf("%d writers started", f.writers)
	}
	f.room = -1
	c.Finish()
	c.Drain(func(p []byte) error { f.got.Write(p); return nil })
	expect(t, f, "MSG x 1 3|one|MSG x 1 3|two|")
	if !f.flushed {
		t.Error("the connection was not told that all is written")
	}
}

func TestSlowConsumerIsCutOff(t *testing.T) {
	a := New().Account(GlobalAccount)
	c, f := connect(t, a, 1, nil)
	f.room = 0
	subscribe(t, c, "x", "", "1")
	for range 20 {
		a.Publish(nil, "x", "", nil, make([]byte, 64<<10))
	}
	if !f.slow {
		t.Error("a client that takes nothing was not cut off")
	}
	if _, _, pending := c.Output(); pending > 1<<20+70<<10 {
		t.Errorf("%d bytes wait, the bound is %d", pending, 1<<20)
	}
}
