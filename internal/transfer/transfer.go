package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"
)

// How long what is waited for. An offer is how a sender asks, so it repeats one whenever it has heard nothing
// for a while.
const (
	askAgain   = 2 * time.Second
	retryAfter = 100 * time.Millisecond // after a frame that could not be sent
	fullAfter  = 5 * time.Millisecond   // after one for which there was no room
	giveUp     = time.Minute            // without a word from the receiver
	idleMax    = 2 * time.Minute        // without a word from the sender
	lingerFor  = 30 * time.Second       // a result is kept for a sender that has not heard it

	windowBytes = 4 << 20 // sent, and not known to be there: what a broken connection costs at most
	arrivalsMax = 16
	inboxFrames = 4 * windowBytes / chunkBytes
)

// ErrFull is what Options.Post returns when there is no room for a frame now, but will be soon.
var ErrFull = errors.New("transfer: no room for a frame")

// Options say what a server's transfers work with.
type Options struct {
	FS  vfs.FS
	Dir string // for files of states on their way; of nobody else

	// Post sends one frame to a server, and does not keep it. An error other than ErrFull says that
	// there is no connection.
	Post func(server uint64, frame []byte) error

	// Rate bounds the bytes a second of all states that are sent, and of all that are received; 0: no bound.
	Rate int64

	// Go runs a function in the background; the owner waits for it when it closes. Ctx ends then.
	Go  func(func())
	Ctx context.Context

	// Admit judges an offer by its label; an error refuses it.
	Admit func(from uint64, label []byte) error
	// Check reads a whole state and says whether it is sound.
	Check func(label []byte, state io.Reader, trailer []byte) error
	// Take gets a state that is whole and sound. It must see to it that Done is called.
	Take func(*Arrival)
	// Room tells whether there is room on the disk for more of a state: nil, or why not.
	Room func() error
}

// Transfers are those of one server, in and out.
type Transfers struct {
	opts    Options
	out, in *rate.Limiter

	mu       sync.Mutex
	outgoing map[uint64]*outgoing
	incoming map[key]*incoming
	arriving int // of them, those that are not over
}

// key names a transfer that comes in.
type key struct {
	from uint64
	id   uint64
}

// New prepares them. Nothing is touched before Prepare.
func New(o Options) *Transfers {
	return &Transfers{
		opts: o, out: limiter(o.Rate), in: limiter(o.Rate),
		outgoing: make(map[uint64]*outgoing), incoming: make(map[key]*incoming),
	}
}

func limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), chunkBytes)
}

// pay takes what a chunk that was handled costs, and tells for how long the next one has to wait. Who pays
// later waits behind who paid before, so all get their share.
func pay(l *rate.Limiter, now time.Time, chunk int) time.Duration {
	return l.ReserveN(now, min(chunk, l.Burst())).DelayFrom(now) // More than a burst could never be paid.
}

// Prepare removes what transfers of an earlier life left behind.
func (t *Transfers) Prepare() error {
	if err := t.opts.FS.RemoveAll(t.opts.Dir); err != nil {
		return fmt.Errorf("remove what is left of transfers in %s: %w", t.opts.Dir, err)
	}
	return t.opts.FS.MkdirAll(t.opts.Dir, 0o750)
}

// Receive handles one frame of another server; the payload is its to keep. An error says that the other
// one does not speak this protocol.
func (t *Transfers) Receive(from uint64, payload []byte) error {
	f, err := parse(payload)
	if err != nil {
		return err
	}
	if f.step >= stepHave {
		t.mu.Lock()
		o := t.outgoing[f.id]
		t.mu.Unlock()
		if o != nil && o.to == from {
			o.hear(f)
		}
		return nil
	}
	k := key{from, f.id}
	t.mu.Lock()
	in := t.incoming[k]
	t.mu.Unlock()
	if in == nil && f.step == stepOffer {
		if in, err = t.open(k, f.rest); err != nil {
			t.post(from, resultFrame(f.id, err))
			return nil
		}
	}
	if in != nil {
		in.put(f)
	}
	return nil
}

// post sends what may be lost: the sender asks again.
func (t *Transfers) post(server uint64, frame []byte) { _ = t.opts.Post(server, frame) }

func (t *Transfers) path(k key, suffix string) string {
	return filepath.Join(t.opts.Dir, fmt.Sprintf("%016x-%016x%s", k.from, k.id, suffix))
}
