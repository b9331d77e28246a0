package chaos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// writeTimeout is how long a client waits for an answer. A write that was under way when the
// connection broke waits no longer: the answer will not come.
const writeTimeout = 5 * time.Second

// sharedKeys is how many keys all clients compare and set.
const sharedKeys = 4

// session is the connection of one client, which comes back after every kill.
type session struct {
	js jetstream.JetStream

	// giveUp cancels the operation under way, if any. The connection calls it when it breaks.
	giveUp atomic.Pointer[context.CancelFunc]
}

func newSession(t *testing.T, server *process.Server) *session {
	t.Helper()
	s := &session{}
	none := context.CancelFunc(func() {})
	s.giveUp.Store(&none)
	nc := server.Connect(t, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0), nats.IgnoreDiscoveredServers(),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { (*s.giveUp.Load())() }))
	var err error
	if s.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return s
}

// operation returns the context of one operation. The end of the run does not cancel it: a write that
// is given up on arrives later, when everything stored has been read.
func (s *session) operation() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	s.giveUp.Store(&cancel)
	return ctx, cancel
}

// writer is one client: one write at a time, three puts of its own keys for each compare-and-set
// of a shared one, until told to stop.
type writer struct {
	*session
	id   int
	kv   jetstream.KeyValue
	book *ledger
}

// newWriter connects a client of the ledger's bucket.
func newWriter(t *testing.T, server *process.Server, book *ledger, id int) *writer {
	t.Helper()
	w := &writer{session: newSession(t, server), id: id, book: book}
	var err error
	if w.kv, err = w.js.KeyValue(context.Background(), book.bucket); err != nil {
		t.Fatal(err)
	}
	return w
}

// run writes until ctx is done.
func (w *writer) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("%d-%d", w.id, n)
		if n%4 == 3 {
			w.compareAndSet(fmt.Sprintf("shared.%d", n/4%sharedKeys), value)
		} else {
			w.put("own."+strconv.Itoa(w.id)+"."+strconv.Itoa(n%50), value)
		}
	}
}

func (w *writer) put(key, value string) {
	w.book.begin(value, write{key: key})
	ctx, cancel := w.operation()
	defer cancel()
	revision, err := w.kv.Put(ctx, key, []byte(value))
	w.book.end(value, judgeError(err), revision)
}

func (w *writer) compareAndSet(key, value string) {
	ctx, cancel := w.operation()
	defer cancel()
	var last uint64
	switch entry, err := w.kv.Get(ctx, key); {
	case err == nil:
		last = entry.Revision()
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return // No answer; nothing was written.
	}
	w.book.begin(value, write{key: key, cas: true, expected: last})
	revision, err := w.kv.Update(ctx, key, []byte(value), last)
	w.book.end(value, judgeError(err), revision)
}

// judgeError tells what an error says about the write: an answer of the server is definite, and so
// is that nobody was there to take it; anything else leaves it open.
func judgeError(err error) outcome {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return acknowledged
	case errors.As(err, &api), errors.Is(err, jetstream.ErrNoStreamResponse):
		return refused
	default:
		return unknown
	}
}
