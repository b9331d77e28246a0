package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// State is what is to be sent.
type State struct {
	ID    uint64 // drawn at random: no two are the same, also across restarts
	To    uint64 // server
	Label []byte // tells the receiver what it is

	// Write writes the state. The trailer tells what is known only then.
	Write func(io.Writer) (trailer []byte, err error)
	// Wanted tells whether it is still to be sent: nil, or why not.
	Wanted func() error
}

// Sent says what a sending took.
type Sent struct {
	Bytes  int64 // of the state
	Again  int64 // sent more than once
	Broken int   // times that something was lost on its way
}

// outgoing is one sending. Send owns it, but for what is under mu.
type outgoing struct {
	id, to uint64
	t      *Transfers
	state  State
	spool  *spool

	asked      uint32    // the last question
	questioned time.Time // when it was asked
	synced     bool      // the question was answered, and nothing was lost since, as far as is known
	sent       int64     // goes on here
	acked      int64     // is there
	high       int64     // most that was ever sent
	ended      bool      // the end was sent
	frame      []byte    // to make chunks in
	figure     Sent

	wake chan struct{}
	mu   sync.Mutex
	news news
}

// news is what was heard since the last look.
type news struct {
	any      bool
	answered uint32
	have     int64
	gap      bool
	result   bool
	err      error // of the result
}

// Send sends a state, and returns when the receiver has made use of it, or why that will not be.
func (t *Transfers) Send(s State) (Sent, error) {
	p, err := newSpool(t.opts.FS, t.path(key{s.To, s.ID}, ".out"))
	if err != nil {
		return Sent{}, err
	}
	o := &outgoing{id: s.ID, to: s.To, t: t, state: s, spool: p, wake: make(chan struct{}, 1)}
	t.mu.Lock()
	t.outgoing[o.id] = o
	t.mu.Unlock()
	var writer sync.WaitGroup
	writer.Go(func() { p.fill(s.Write) })
	err = o.run(t.opts.Ctx)
	t.mu.Lock()
	delete(t.outgoing, o.id)
	t.mu.Unlock()
	p.giveUp()
	writer.Wait()
	p.remove()
	o.figure.Bytes, _, _ = p.state()
	return o.figure, err
}

// hear takes what the receiver says.
func (o *outgoing) hear(f frame) {
	o.mu.Lock()
	o.news.any = true
	switch f.step {
	case stepHave:
		o.news.have = f.offset
		if f.question != 0 {
			o.news.answered = f.question
		}
	case stepGap:
		o.news.gap = true
	case stepResult:
		o.news.result = true
		if !f.ok {
			o.news.err = fmt.Errorf("the receiver could not use it: %s", f.rest)
		}
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outgoing) takeNews() news {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.news
	o.news = news{}
	return n
}

// run goes on until there is a result.
func (o *outgoing) run(ctx context.Context) error {
	heard := time.Now() // when a word of the receiver came last
	var next time.Time  // nothing is sent before
	for {
		n, now := o.takeNews(), time.Now()
		if n.any {
			heard = now
		}
		if n.result {
			return n.err
		}
		size, done, err := o.spool.state()
		if err == nil {
			err = o.state.Wanted()
		}
		if err == nil && now.Sub(heard) > giveUp {
			err = fmt.Errorf("nothing was heard from the receiver for %s", giveUp)
		}
		if err != nil {
			o.t.post(o.to, head(stepAbort, o.id))
			return err
		}
		o.learn(n)
		if (o.sent > o.acked || o.ended) && now.Sub(heard) >= askAgain {
			o.synced = false // What was sent may be lost, or the word that it came.
		}
		if !now.Before(next) {
			next = now.Add(o.say(now, size, done))
		}
		wait := askAgain
		if now.Before(next) {
			wait = next.Sub(now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.wake:
		case <-o.spool.grown:
		case <-time.After(wait):
		}
	}
}

// learn takes over what was heard.
func (o *outgoing) learn(n news) {
	switch {
	case n.gap:
		o.synced, o.questioned = false, time.Time{}
	case !o.synced && n.answered != 0 && n.answered == o.asked:
		// All that was sent before the question has arrived, or never will.
		if n.have < o.high {
			o.figure.Broken++
		}
		o.synced, o.ended = true, false
		o.sent, o.acked = n.have, n.have
	case o.synced:
		o.acked = max(o.acked, n.have)
	}
}

// say sends what can be sent now, and tells for how long to be silent then.
func (o *outgoing) say(now time.Time, size int64, done bool) (pause time.Duration) {
	var err error
	switch {
	case o.synced:
		pause, err = o.advance(now, size, done)
	case now.Sub(o.questioned) >= askAgain:
		o.asked++
		o.questioned = now
		err = o.t.opts.Post(o.to, offerFrame(o.id, o.asked, o.state.Label))
	}
	switch {
	case err == nil:
		return pause
	case errors.Is(err, ErrFull):
		if !o.synced {
			o.questioned = time.Time{}
		}
		return fullAfter
	}
	o.synced, o.questioned = false, time.Time{}
	return retryAfter
}

// advance sends what there is, as far as the window and the rate go, and the end behind the last chunk.
func (o *outgoing) advance(now time.Time, size int64, done bool) (pause time.Duration, err error) {
	for o.sent < min(size, o.acked+windowBytes) {
		if !done && size-o.sent < chunkBytes {
			return 0, nil // A whole chunk soon.
		}
		if o.frame, err = o.spool.chunk(beginChunk(o.frame[:0], o.id, o.sent), o.sent, size); err != nil {
			o.spool.fail(err)
			return 0, nil
		}
		sealChunk(o.frame)
		if err := o.t.opts.Post(o.to, o.frame); err != nil {
			return 0, err
		}
		n := len(o.frame) - chunkHead
		next := o.sent + int64(n)
		o.figure.Again += max(0, min(next, o.high)-o.sent)
		o.sent, o.high = next, max(o.high, next)
		if pause = pay(o.t.out, now, n); pause > 0 {
			return pause, nil
		}
	}
	if !done || o.sent < size || o.ended {
		return 0, nil
	}
	err = o.t.opts.Post(o.to, endFrame(o.id, size, o.spool.sum.Sum(nil), o.spool.trailer))
	o.ended = err == nil
	return 0, err
}
