package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
)

// elsewhere is another server, as far as the broker sees it. It keeps what it is given.
type elsewhere struct {
	sync.Mutex
	got []string
}

func (e *elsewhere) Forward(_ *broker.Account, to string, m *broker.Msg, _ bool, _ []string) {
	e.Lock()
	defer e.Unlock()
	e.got = append(e.got, to+" "+string(m.Data))
}

func (e *elsewhere) messages() string {
	e.Lock()
	defer e.Unlock()
	return strings.Join(e.got, "|")
}

// A client that is sent elsewhere loses nothing that it has under way: what it sent is done, even what it sent
// when the stream had already ended, and the answers reach it where it is next, each once and in order.
func TestLeavingClientIsAnsweredElsewhere(t *testing.T) {
	s := start(t, Options{Cluster: "c", LameDuckGrace: time.Millisecond, LameDuckDuration: time.Millisecond})
	s.SetPeerURLs([]string{"127.0.0.1:1"})
	a := s.Broker().Account(broker.GlobalAccount)
	asked := make(chan string, 10)
	a.Subscribe("svc", "", func(m *broker.Msg) { asked <- m.Reply })
	next := func() string {
		select {
		case reply := <-asked:
			return reply
		case <-time.After(10 * time.Second):
			t.Fatal("a request was not heard")
			return ""
		}
	}
	p := dial(t, s)
	p.send(quiet + "SUB _INBOX.a.* 1\r\nSUB news 2\r\nPUB svc _INBOX.a.1 0\r\n\r\n")
	p.until()
	first := next()
	done := make(chan error)
	go func() { done <- s.LameDuck(context.Background()) }()
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	p.send("PUB svc _INBOX.a.2 0\r\n\r\n")
	second := next()
	a.Publish(nil, first, "", nil, []byte("one"))
	a.Publish(nil, second, "", nil, []byte("two"))
	a.Publish(nil, "news", "", nil, []byte("of yesterday"))
	p.nc.Close()
	select {
	case err := <-done:
		t.Fatalf("the client is not back, and nobody waits for it: %v", err)
	case <-time.After(100 * time.Millisecond):
	}

	e := &elsewhere{}
	a.SubscribeRemote("news", "", e)
	a.SubscribeRemote("_INBOX.a.*", "", e)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, want := e.messages(), "_INBOX.a.1 one|_INBOX.a.2 two"; got != want {
		t.Errorf("elsewhere it got %q, not %q", got, want)
	}
	if n := len(s.Connections(false)); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// An answer that was on its way when the client appeared elsewhere goes there, though nobody there had asked for it
// when its receivers were looked up.
func TestLeavingClientGetsAnAnswerUnderWay(t *testing.T) {
	s := start(t, Options{Cluster: "c", LameDuckGrace: time.Millisecond, LameDuckDuration: time.Millisecond})
	s.SetPeerURLs([]string{"127.0.0.1:1"})
	a := s.Broker().Account(broker.GlobalAccount)
	e := &elsewhere{}
	var once sync.Once
	a.Subscribe("_INBOX.a.*", "", func(*broker.Msg) { // Before the client's turn comes.
		once.Do(func() { a.SubscribeRemote("_INBOX.a.*", "", e) })
	})
	p := dial(t, s)
	p.send(quiet + "SUB _INBOX.a.* 1\r\n")
	p.until()
	done := make(chan error)
	go func() { done <- s.LameDuck(context.Background()) }()
	p.rest()
	a.Publish(nil, "_INBOX.a.1", "", nil, []byte("one"))
	p.nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, want := e.messages(), "_INBOX.a.1 one"; got != want {
		t.Errorf("elsewhere it got %q, not %q", got, want)
	}
}

// A client that does not come back is not waited for without end, and what is kept for it is bounded.
func TestLeavingClientThatDoesNotComeBack(t *testing.T) {
	s := start(t, Options{Cluster: "c", LameDuckGrace: time.Millisecond, LameDuckDuration: time.Millisecond})
	s.SetPeerURLs([]string{"127.0.0.1:1"})
	a := s.Broker().Account(broker.GlobalAccount)
	p := dial(t, s)
	p.send(quiet + "SUB _INBOX.a.* 1\r\n")
	p.until()
	var c *conn
	for _, c = range s.connections() {
	}
	done := make(chan error)
	go func() { done <- s.LameDuck(context.Background()) }()
	p.rest()
	for i := range 2 * lateMessagesMax {
		a.Publish(nil, fmt.Sprint("_INBOX.a.", i), "", nil, make([]byte, 1024))
	}
	late := c.leaving.Load()
	late.mu.Lock()
	kept := len(late.msgs)
	late.mu.Unlock()
	if kept != lateMessagesMax {
		t.Errorf("%d messages are kept", kept)
	}
	begun := time.Now()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*leaveTimeout {
		t.Errorf("waited %s", took)
	}
}
