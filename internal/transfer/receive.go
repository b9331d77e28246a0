package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Arrival is a state that has come whole and sound.
type Arrival struct {
	From    uint64
	Label   []byte
	Trailer []byte
	Path    string // of the file that holds it, until Done is called

	done func(error)
}

// Done says what became of the state, once; the sender is told.
func (a *Arrival) Done(err error) { a.done(err) }

// incoming is one state on its way in. Its goroutine owns it; frames come through the inbox, and those
// for which there is no room are lost, as on any network.
type incoming struct {
	t     *Transfers
	k     key
	label []byte
	path  string
	inbox chan frame
	gone  chan struct{} // closed when another state has come in its place
	ended chan error    // the check's outcome, then that of Arrival.Done

	got atomic.Int64 // size, for others

	file    vfs.File
	size    int64
	gap     bool // it was said that something is missing
	working bool // the end came
	over    bool
	err     error // the result, when over
}

// open begins to receive a state, if it is wanted.
func (t *Transfers) open(k key, label []byte) (*incoming, error) {
	if err := t.opts.Admit(k.from, label); err != nil {
		return nil, err
	}
	in := &incoming{
		t: t, k: k, label: label, path: t.path(k, ".in"), inbox: make(chan frame, inboxFrames),
		gone: make(chan struct{}), ended: make(chan error, 2),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.incoming[k]; have != nil {
		return have, nil
	}
	for other, old := range t.incoming { // order: there is at most one
		if bytes.Equal(old.label, label) && t.opts.Ctx.Err() == nil {
			close(old.gone)
			delete(t.incoming, other)
		}
	}
	if t.arriving >= arrivalsMax {
		return nil, fmt.Errorf("%d states are on their way to it already", arrivalsMax)
	}
	t.incoming[k] = in
	t.arriving++
	t.opts.Go(in.run)
	return in, nil
}

// Incoming tells whether a state with that label is on its way here, and how much of it has come.
func (t *Transfers) Incoming(label []byte) (size int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, in := range t.incoming { // order: there is at most one
		if bytes.Equal(in.label, label) {
			return in.got.Load(), true
		}
	}
	return 0, false
}

func (in *incoming) put(f frame) {
	select {
	case in.inbox <- f:
	default:
	}
}

// run handles frames until the transfer is over and the sender had time to hear of it.
func (in *incoming) run() {
	defer in.close()
	if in.file, in.err = in.t.opts.FS.Create(in.path, vfs.WriteCategoryUnspecified); in.err != nil {
		in.finish(in.err)
	}
	idle := time.NewTimer(idleMax)
	defer idle.Stop()
	for {
		select {
		case <-in.t.opts.Ctx.Done():
			return
		case <-in.gone:
			if !in.working || in.over {
				return
			}
			in.gone = nil // Somebody makes use of it already.
		case err := <-in.ended:
			in.finish(err)
			idle.Reset(lingerFor)
		case <-idle.C:
			if !in.working || in.over {
				return
			}
			idle.Reset(idleMax)
		case f := <-in.inbox:
			if f.step == stepAbort && !in.working {
				return
			}
			in.handle(f)
			if !in.over {
				idle.Reset(idleMax)
			}
		}
	}
}

// close lets go of everything.
func (in *incoming) close() {
	in.t.mu.Lock()
	if in.t.incoming[in.k] == in {
		delete(in.t.incoming, in.k)
	}
	in.t.mu.Unlock()
	if !in.over {
		in.discard()
	}
}

// discard is called once, when nobody needs the file any more.
func (in *incoming) discard() {
	in.t.mu.Lock()
	in.t.arriving--
	in.t.mu.Unlock()
	if in.file != nil {
		_ = in.file.Close()
		_ = in.t.opts.FS.Remove(in.path) // What is left over is removed at the next start.
	}
}

func (in *incoming) finish(err error) {
	in.over, in.err = true, err
	in.discard()
	in.t.post(in.k.from, resultFrame(in.k.id, err))
}

func (in *incoming) handle(f frame) {
	switch {
	case in.over:
		if f.step == stepOffer {
			in.t.post(in.k.from, resultFrame(in.k.id, in.err))
		}
	case f.step == stepOffer:
		in.gap = false
		in.t.post(in.k.from, haveFrame(in.k.id, f.question, in.size))
	case in.working: // What comes now was sent twice.
	case f.step == stepChunk:
		in.chunk(f)
	case f.step == stepEnd:
		in.end(f)
	}
}

// chunk takes what follows what is there.
func (in *incoming) chunk(f frame) {
	if f.damaged || f.offset > in.size || f.offset < in.size && f.offset+int64(len(f.rest)) > in.size {
		in.missing()
		return
	}
	if f.offset == in.size {
		err := in.t.opts.Room()
		if err == nil {
			_, err = in.file.Write(f.rest)
		}
		if err != nil {
			in.finish(err)
			return
		}
		in.size += int64(len(f.rest))
		in.got.Store(in.size)
		in.gap = false
		select { // The sender hears of it after that, and waits when it has sent a window.
		case <-in.t.opts.Ctx.Done():
			return
		case <-time.After(pay(in.t.in, time.Now(), len(f.rest))):
		}
	}
	in.t.post(in.k.from, haveFrame(in.k.id, 0, in.size))
}

// missing says once that something was lost on the way.
func (in *incoming) missing() {
	if !in.gap {
		in.gap = true
		in.t.post(in.k.from, head(stepGap, in.k.id))
	}
}

// end has the whole checked, and handed on if it is sound.
func (in *incoming) end(f frame) {
	if f.offset != in.size {
		in.missing()
		return
	}
	in.working = true
	in.t.opts.Go(func() {
		if err := in.check(f); err != nil {
			in.ended <- err
			return
		}
		in.t.opts.Take(&Arrival{
			From: in.k.from, Label: in.label, Trailer: f.rest, Path: in.path,
			done: func(err error) { in.ended <- err },
		})
	})
}

// check reads back what was written: it is that which will be used.
func (in *incoming) check(f frame) error {
	file, err := in.t.opts.FS.Open(in.path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	state := io.TeeReader(file, sum)
	if err := in.t.opts.Check(in.label, state, f.rest); err != nil {
		return fmt.Errorf("it is damaged: %w", err)
	}
	rest, err := io.Copy(io.Discard, state)
	switch {
	case err != nil:
		return err
	case rest > 0:
		return fmt.Errorf("it is damaged: %d bytes follow its end", rest)
	case !bytes.Equal(sum.Sum(nil), f.sum):
		return errors.New("it is damaged: its checksum is not that of what was sent")
	}
	return nil
}
