package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/backup"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// Bounds on what of a backup is on its way into the log, and how long a client may take from one
// piece to the next.
const (
	restoringMax      = 256
	restoringBytesMax = 8 << 20
	restorePieces     = 64
	restoreStall      = 30 * time.Second
)

// streamRestore makes a stream of a backup that the client sends next. The stream exists from now on,
// marked and without subjects (see api.StreamConfig.ForRestore), and is what it was once everything is
// there; if that does not happen it goes again.
func (c *call) streamRestore() {
	var req api.StreamRestoreRequest
	if !c.decode(&req) {
		return
	}
	cfg, err := c.checkConfig(&api.StreamConfigRequest{StreamConfig: req.Config})
	if err == nil {
		err = cfg.CheckCreate()
	}
	if err == nil && cfg.Mirror != nil {
		err = api.ErrRestore.With("a mirror is not restored but created again: what it holds is its origin's")
	}
	if err != nil {
		c.refuse(err)
		return
	}
	delete(cfg.Metadata, api.MetadataRestoring)
	c.complete(&cfg)
	id, ok := c.svc.backups.begin()
	if !ok {
		c.refuse(api.ErrTooManyRequests)
		return
	}
	c.svc.cluster.CreateStream(c.account.broker.Name(), cfg.ForRestore(), c.metaLimits(), func(cs *cluster.Stream, created bool, err error) {
		switch {
		case errors.Is(err, api.ErrStreamNameExists), err == nil && !created:
			c.refuse(api.ErrRestoreNameInUse)
		case err != nil:
			c.failed(err)
		default:
			go newRestore(c, cs, &cfg, &req.State, id).run()
			return
		}
		c.svc.backups.end()
	})
}

// restore is one backup on its way in.
type restore struct {
	c      *call
	cs     *cluster.Stream
	cfg    *api.StreamConfig // what the stream will be
	state  *api.StreamState  // what it was
	sub    *broker.Sub
	pieces chan piece

	// Of the goroutine that reads the archive.
	last      uint64 // the last sequence proposed
	buf       []byte
	removed   []uint64
	consumers []*backup.Consumer

	mu struct {
		sync.Mutex
		messages, bytes int // proposed and not yet heard of
		err             error
	}
	moved chan struct{} // something was heard of
	ctx   context.Context
	stop  context.CancelFunc
}

// piece is a part of the archive; the last one is empty.
type piece struct {
	data  []byte
	reply string
}

var (
	errRestoreStalled = errors.New("the client sent nothing for too long")
	errRestoreFlood   = errors.New("the client does not wait for confirmations")
)

func newRestore(c *call, cs *cluster.Stream, cfg *api.StreamConfig, state *api.StreamState, id string) *restore {
	r := &restore{c: c, cs: cs, cfg: cfg, state: state, pieces: make(chan piece, restorePieces), moved: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(c.svc.backups.ctx)
	r.sub = c.account.broker.SubscribeWide("$JS.SNAPSHOT.RESTORE."+cs.Name()+"."+id, "", func(m *broker.Msg) {
		select {
		case r.pieces <- piece{data: bytes.Clone(m.Data), reply: m.Reply}:
		default:
			r.fail(errRestoreFlood)
		}
	})
	return r
}

// run takes the archive in, piece by piece.
func (r *restore) run() {
	c := r.c
	defer c.svc.backups.end()
	defer r.stop()
	defer r.sub.Close()
	c.respond(&api.StreamRestoreResponse{Header: c.header(), DeliverSubject: r.sub.Subject()})

	in, out := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := backup.Read(in, r.cs.Name(), r)
		in.CloseWithError(err) // Who writes on hears of it.
		read <- err
	}()
	reply, err := r.feed(out)
	out.CloseWithError(err)
	if failed := <-read; failed != nil {
		err = failed
	}
	if err == nil {
		err = r.complete()
	}
	if err != nil {
		r.abandon(reply, err)
		return
	}
	c.svc.cluster.UpdateStream(c.account.broker.Name(), r.cfg, c.metaLimits(), func(cs *cluster.Stream, err error) {
		switch refused := refusal(err); {
		case err == nil:
			r.answer(reply).configured(cs, true, nil)
		case refused != nil:
			r.abandon(reply, refused)
		}
	})
}

// feed hands on pieces until the last one, whose reply it returns. Each is confirmed when it was
// taken, so that the client sends no faster than the stream takes.
func (r *restore) feed(out io.Writer) (reply string, err error) {
	stall := time.NewTimer(restoreStall)
	defer stall.Stop()
	for {
		select {
		case p := <-r.pieces:
			if len(p.data) == 0 {
				return p.reply, nil
			}
			if _, err := out.Write(p.data); err != nil {
				return p.reply, err
			}
			if p.reply != "" {
				r.c.account.broker.Publish(nil, p.reply, "", nil, nil)
			}
			stall.Reset(restoreStall)
		case <-stall.C:
			return "", errRestoreStalled
		case <-r.ctx.Done():
			return r.lastReply(), r.failure()
		}
	}
}

// lastReply waits a moment for the piece that a client may be about to send, to tell it why there need
// be no other.
func (r *restore) lastReply() string {
	select {
	case p := <-r.pieces:
		return p.reply
	case <-time.After(time.Second):
	case <-r.c.svc.backups.ctx.Done():
	}
	return ""
}

// complete waits for all that was proposed, and does what comes behind the messages.
func (r *restore) complete() error {
	if last := r.state.LastSeq; last > r.last { // What was last is gone, but not its sequence.
		if err := r.propose(&stream.Restored{Prev: r.last, Seq: last}); err != nil {
			return err
		}
	}
	for _, seq := range r.removed {
		if err := r.offer(stream.EncodeDelete(&stream.Delete{Seq: seq}), unlessMissing); err != nil {
			return err
		}
	}
	for _, bc := range r.consumers {
		if err := r.consumer(bc); err != nil {
			return err
		}
	}
	return r.wait(func() bool { return r.mu.messages == 0 })
}

// consumer makes a durable consumer that goes on behind what was acknowledged to it.
func (r *restore) consumer(bc *backup.Consumer) error {
	q := &api.ConsumerCreateRequest{Config: bc.Config}
	q.Config.Name = q.Config.Durable
	consumer.Normalize(&q.Config, r.cfg)
	if err := consumer.Check(&q.Config, r.cfg, consumer.Limits{}); err != nil {
		return fmt.Errorf("consumer %s: %w", q.Config.Name, err)
	}
	done := bc.State.AckFloor.Stream
	if q.Config.AckPolicy == api.AckNone {
		done = bc.State.Delivered.Stream
	}
	return r.offer(createCommand(&consumer.Create{Config: q.Config, Fresh: true, From: done + 1}), anyRefusal)
}

// abandon takes the unfinished stream away, unless another one has its name by now, and says why.
func (r *restore) abandon(reply string, err error) {
	c := r.c
	r.fail(err)
	c.svc.log.Warn(fmt.Sprintf("Restore of stream %s > %s failed: %v", r.cs.Account(), r.cs.Name(), err))
	refuse := func() { r.answer(reply).refuse(api.ErrRestore.With(err)) }
	c.svc.cluster.DeleteExactly(r.cs, func(was *meta.Stream, err error) {
		if err != nil {
			refuse() // It goes later, or an operator has to see to it: it is marked.
			return
		}
		c.untilGone(was, refuse)
	})
}

// answer is the call that the client waits for in the end.
func (r *restore) answer(reply string) *call {
	c := *r.c
	c.reply, c.route = reply, &route{kind: "stream_create_response"}
	return &c
}

// Consumer implements backup.Visitor.
func (r *restore) Consumer(bc *backup.Consumer) error {
	if bc.Config.Durable != "" { // Others ended with their clients.
		r.consumers = append(r.consumers, bc)
	}
	return nil
}

// Message implements backup.Visitor.
func (r *restore) Message(m *storage.Message) error {
	if m.Seq < r.state.FirstSeq {
		return nil // Removed in a way that left no trace in the archive.
	}
	return r.propose(&stream.Restored{Prev: r.last, Seq: m.Seq, Time: m.Time, Subject: m.Subject, Header: m.Header, Data: m.Data})
}

// Removed implements backup.Visitor.
func (r *restore) Removed(seq uint64) error {
	r.removed = append(r.removed, seq)
	return nil
}

// propose offers a message once there is room.
func (r *restore) propose(m *stream.Restored) error {
	r.last = m.Seq
	r.buf = stream.AppendRestored(r.buf[:0], m)
	return r.offer(r.buf, anyRefusal)
}

// anyRefusal is the judge of commands that have to succeed.
func anyRefusal(r *stream.Result) *api.Error { return r.Err }

// unlessMissing is the judge of deletions.
func unlessMissing(r *stream.Result) *api.Error {
	if r.Err != nil && errors.Is(r.Err, api.ErrSequenceNotFound) {
		return nil
	}
	return r.Err
}

// offer proposes a command once there is room; judge finds the refusal in its result.
func (r *restore) offer(command []byte, judge func(*stream.Result) *api.Error) error {
	size := len(command)
	err := r.wait(func() bool {
		ok := r.mu.messages == 0 || r.mu.messages < restoringMax && r.mu.bytes+size <= restoringBytesMax
		if ok {
			r.mu.messages, r.mu.bytes = r.mu.messages+1, r.mu.bytes+size
		}
		return ok
	})
	if err != nil {
		return err
	}
	r.cs.Propose(command, cluster.WaiterFunc(func(result any, err error) {
		if err == nil {
			if refused := judge(result.(*stream.Result)); refused != nil {
				err = refused
			}
		}
		r.mu.Lock()
		r.mu.messages, r.mu.bytes = r.mu.messages-1, r.mu.bytes-size
		r.mu.Unlock()
		if err != nil {
			r.fail(err)
		}
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}))
	return nil
}

// wait waits until ok, which is asked with r.mu held, or something has failed.
func (r *restore) wait(ok func() bool) error {
	for {
		r.mu.Lock()
		err, done := r.mu.err, ok()
		r.mu.Unlock()
		if err != nil || done {
			return err
		}
		select {
		case <-r.moved:
		case <-r.ctx.Done():
			return r.failure()
		}
	}
}

// fail ends the restore; the first reason counts.
func (r *restore) fail(err error) {
	r.mu.Lock()
	if r.mu.err == nil {
		r.mu.err = err
	}
	r.mu.Unlock()
	r.stop()
}

func (r *restore) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err == nil && r.ctx.Err() != nil {
		return errors.New("the server is about to stop")
	}
	return r.mu.err
}
