package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/backup"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/subject"
)

// Sizes of what a backup is sent in, as clients may ask for them, and how long a client may take
// until it asks for more.
const (
	chunkBytes, chunkBytesMin, chunkBytesMax    = 128 << 10, 1 << 10, 1 << 20
	windowBytes, windowBytesMin, windowBytesMax = 8 << 20, 1 << 10, 32 << 20
	backupStall                                 = 10 * time.Second
	subscribeWait, subscribePoll                = 500 * time.Millisecond, 2 * time.Millisecond
	backupsMax                                  = 16 // sent and taken in at a time
)

// backups are the backups that are on their way out or in. Each has goroutines of its own; they end
// with the service.
type backups struct {
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	n      int
	serial uint64 // of the next
	ended  bool
}

func newBackups() *backups {
	b := new(backups)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// begin takes one of the places there are; id tells it from all others of this server's life.
func (b *backups) begin() (id string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.n == backupsMax {
		return "", false
	}
	b.n++
	b.serial++
	b.group.Add(1)
	return randomName() + strconv.FormatUint(b.serial, 36), true
}

func (b *backups) end() {
	b.mu.Lock()
	b.n--
	b.mu.Unlock()
	b.group.Done()
}

// close stops all and waits for them.
func (b *backups) close() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.cancel()
	b.group.Wait()
}

// streamSnapshot sends a backup of a stream as it is at one moment, from a replica.
func (c *call) streamSnapshot() {
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	var req api.StreamSnapshotRequest
	if !c.decode(&req) {
		return
	}
	if !subject.ValidLiteral(req.DeliverSubject) {
		c.refuse(api.ErrDeliverSubjectNotValid)
		return
	}
	c.atReplica(cs, func() {
		c.read(cs, func(m *stream.Stream) {
			id, ok := c.svc.backups.begin()
			if !ok {
				c.refuse(api.ErrTooManyRequests)
				return
			}
			go c.sendSnapshot(cs, m, &req, id)
		})
	})
}

func (c *call) sendSnapshot(cs *cluster.Stream, m *stream.Stream, req *api.StreamSnapshotRequest, id string) {
	defer c.svc.backups.end()
	frozen := m.Freeze()
	defer frozen.Release()
	w := newChunks(c, cs.Name(), req, id)
	defer w.close()
	state := stream.StateOf(frozen)
	cfg, consumers := cs.Config().Stamped(""), consumersOf(m, req.NoConsumers)
	state.Consumers = len(consumers) // By which readers know where the messages begin.
	c.respond(&api.StreamSnapshotResponse{Header: c.header(), Config: &cfg, State: &state})
	w.awaitSubscriber()
	err := writeArchive(w, frozen, &state, consumers)
	if err == nil {
		err = w.finish()
	}
	if err != nil && c.svc.backups.ctx.Err() == nil {
		c.svc.log.Warn(fmt.Sprintf("Backup of stream %s > %s ended early: %v", cs.Account(), cs.Name(), err))
	}
	w.status(err)
}

// consumersOf lists the durable consumers of a stream for its backup.
func consumersOf(m *stream.Stream, none bool) (all []*backup.Consumer) {
	if none {
		return nil
	}
	for _, e := range m.Consumers().List() {
		if e.Config.Durable == "" {
			continue
		}
		acks := m.Consumers().Acks(e)
		at := acks.Floor() // What was delivered above it is to be delivered again.
		if e.Config.AckPolicy == api.AckNone {
			at = acks.Delivered()
		}
		pos := api.SequenceInfo{Consumer: at.Consumer, Stream: at.Stream}
		all = append(all, &backup.Consumer{Config: e.Config, State: backup.ConsumerState{Delivered: pos, AckFloor: pos}})
	}
	return all
}

func writeArchive(to *chunks, frozen storage.Frozen, state *api.StreamState, consumers []*backup.Consumer) error {
	at := state.LastTime.UnixNano()
	w, err := backup.NewWriter(to, state, at)
	if err != nil {
		return err
	}
	for _, c := range consumers {
		if err := w.Consumer(c, at); err != nil {
			return err
		}
	}
	if err := frozen.Walk(w.Message, func(string, []byte) error { return nil }); err != nil {
		return err
	}
	return w.Close()
}

// chunks is a Writer that sends what it is given, and no more than a window ahead of what the client
// has confirmed.
type chunks struct {
	ctx           context.Context
	account       *broker.Account
	to, ack       string // subjects: of the chunks, and what begins those of their confirmations
	chunk, window int
	buf           []byte
	index         int
	sub           *broker.Sub

	mu struct {
		sync.Mutex
		unconfirmed int
	}
	moved   chan struct{} // a chunk was confirmed, or somebody listens
	unwatch func()
}

// Why the client gets no more; their texts are those that clients know.
var (
	errNoInterest = errors.New("408 No Interest")
	errNoFlow     = errors.New("408 No Flow Response")
)

func newChunks(c *call, name string, req *api.StreamSnapshotRequest, id string) *chunks {
	bounded := func(n, usual, least, most int) int {
		if n <= 0 {
			return usual
		}
		return min(max(n, least), most)
	}
	w := &chunks{
		ctx: c.svc.backups.ctx, account: c.account.broker, to: req.DeliverSubject,
		ack:    "$JS.SNAPSHOT.ACK." + name + "." + id + ".",
		chunk:  bounded(req.ChunkSize, chunkBytes, chunkBytesMin, chunkBytesMax),
		window: bounded(req.WindowSize, windowBytes, windowBytesMin, windowBytesMax),
		moved:  make(chan struct{}, 1),
	}
	w.unwatch = c.account.broker.WatchInterest(w.to, "", func(bool) { w.wake() })
	w.sub = c.account.broker.SubscribeWide(w.ack+">", "", w.onConfirmed)
	return w
}

// onConfirmed hears that a chunk has arrived: its size is the token before the last of the subject.
func (w *chunks) onConfirmed(m *broker.Msg) {
	size, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, w.ack), ".")
	n, err := strconv.Atoi(size)
	if err != nil || n <= 0 {
		return
	}
	w.mu.Lock()
	w.mu.unconfirmed = max(0, w.mu.unconfirmed-n)
	w.mu.Unlock()
	w.wake()
}

func (w *chunks) wake() {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

func (w *chunks) Write(b []byte) (int, error) {
	n := len(b)
	for len(w.buf)+len(b) >= w.chunk {
		part := w.chunk - len(w.buf)
		w.buf, b = append(w.buf, b[:part]...), b[part:]
		if err := w.room(len(w.buf)); err != nil {
			return 0, err
		}
		w.index++
		w.account.Publish(nil, w.to, fmt.Sprintf("%s%d.%d", w.ack, len(w.buf), w.index), nil, w.buf)
		w.buf = w.buf[:0]
	}
	w.buf = append(w.buf, b...)
	return n, nil
}

// awaitSubscriber gives the client a moment to subscribe. Some do so only after the reply, and have
// had a wildcard for their inboxes before, behind which nobody knows the subject yet.
func (w *chunks) awaitSubscriber() {
	for end := time.Now().Add(subscribeWait); !w.account.Subscribed(w.to) && time.Now().Before(end); {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(subscribePoll):
		}
	}
}

// room waits until the client listens and n bytes more may be on their way.
func (w *chunks) room(n int) error {
	stall := time.NewTimer(backupStall)
	defer stall.Stop()
	for {
		listens := w.account.Interest(w.to, "")
		if listens && w.reserve(n) {
			return nil
		}
		select {
		case <-w.ctx.Done():
			return w.ctx.Err()
		case <-w.moved:
			stall.Reset(backupStall)
		case <-stall.C:
			if listens {
				return errNoFlow
			}
			return errNoInterest
		}
	}
}

func (w *chunks) reserve(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.unconfirmed > 0 && w.mu.unconfirmed+n > w.window {
		return false
	}
	w.mu.unconfirmed += n
	return true
}

// finish sends what is left, which nobody has to confirm.
func (w *chunks) finish() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.room(len(w.buf)); err != nil {
		return err
	}
	w.account.Publish(nil, w.to, "", nil, w.buf)
	return nil
}

func (w *chunks) close() {
	w.sub.Close()
	w.unwatch()
}

// status ends the transfer. Without it the client would take what it has for the whole.
func (w *chunks) status(err error) {
	text := "204"
	switch {
	case errors.Is(err, errNoInterest), errors.Is(err, errNoFlow):
		text = err.Error()
	case err != nil:
		text = "500 " + strings.Map(func(r rune) rune {
			if r == '\r' || r == '\n' {
				return ' '
			}
			return r
		}, err.Error())
	}
	w.account.Publish(nil, w.to, "", []byte("NATS/1.0 "+text+"\r\n\r\n"), nil)
}
