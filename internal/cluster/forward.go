package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/wal"
)

// forwardFor is how long the outcome of a forwarded command is waited for.
const forwardFor = 10 * time.Second

// forwarder carries commands to the servers that lead their groups, and outcomes back. A command is
// sent at most once: if its connection breaks, its outcome is unknown.
//
//	propose: | request 8 | group 8 | command |
//	outcome: | request 8 | status 1 | leader 8 or result |
type forwarder struct {
	c *Cluster

	mu       sync.Mutex
	next     uint64
	pending  map[uint64]*forwarded
	expireAt time.Time

	answers struct {
		sync.Mutex
		to []uint64 // servers for which outcomes are queued and not flushed
	}
}

type forwarded struct {
	to      uint64
	group   wal.GroupID
	command []byte
	waiter  replica.Waiter
	begun   time.Time
}

// status is what an outcome says first.
type status byte

const (
	statusResult status = iota
	statusUnavailable
	statusUnknown
	statusOverloaded
	statusNotLeader // definite: nothing was proposed; who leads, if known, follows
	statusNoSpace
)

func newForwarder(c *Cluster) *forwarder {
	return &forwarder{c: c, pending: make(map[uint64]*forwarded)}
}

// propose sends a command to a server. See offer.
func (f *forwarder) propose(to uint64, g wal.GroupID, command []byte, w replica.Waiter) error {
	f.mu.Lock()
	f.next++
	id := f.next
	f.pending[id] = &forwarded{to: to, group: g, command: slices.Clone(command), waiter: w, begun: time.Now()}
	f.mu.Unlock()
	err := f.c.send(to, peer.LaneRequests, kindPropose, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, id)
		b = binary.LittleEndian.AppendUint64(b, uint64(g))
		return append(b, command...)
	})
	if err == nil {
		return nil
	}
	// Nothing was sent. If the connection broke in this moment, lost may have answered already.
	if f.take(id) == nil {
		return nil
	}
	if errors.Is(err, peer.ErrFull) {
		return ErrOverloaded
	}
	return errNoLeader
}

func (f *forwarder) take(id uint64) *forwarded {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pending[id]
	delete(f.pending, id)
	return p
}

// serve executes a command that another server forwarded.
func (f *forwarder) serve(from uint64, payload []byte) error {
	if len(payload) < 16 {
		return errors.New("malformed forwarded command")
	}
	id, group := binary.LittleEndian.Uint64(payload), wal.GroupID(binary.LittleEndian.Uint64(payload[8:]))
	w := &forwardedHere{f, from, id, group}
	g := f.c.group(group)
	if g == nil || g.rep.Load() == nil {
		w.Done(nil, errNoLeader)
		return nil
	}
	err := g.propose(g.rep.Load(), payload[16:], w)
	if errors.Is(err, replica.ErrNotLeader) {
		err = errNoLeader
	}
	if err != nil {
		w.Done(nil, err)
	}
	return nil
}

// forwardedHere waits for the outcome of a command that another server forwarded, and sends it there.
type forwardedHere struct {
	f        *forwarder
	from, id uint64
	group    wal.GroupID
}

func (w *forwardedHere) Done(result any, err error) { w.f.answer(w.from, w.id, w.group, result, err) }

// flush sends the outcomes that were gathered.
func (f *forwarder) flush() {
	f.answers.Lock()
	to := f.answers.to
	f.answers.to = nil
	f.answers.Unlock()
	for _, server := range to {
		f.c.transport.Flush(server, peer.LaneRequests)
	}
}

// answer queues an outcome; flush sends it.
func (f *forwarder) answer(to, id uint64, group wal.GroupID, result any, err error) {
	st := statusResult
	switch {
	case err == nil:
	case errors.Is(err, errNoLeader):
		st = statusNotLeader
	case errors.Is(err, ErrOverloaded):
		st = statusOverloaded
	case errors.Is(err, ErrNoSpace):
		st = statusNoSpace
	case errors.Is(err, ErrUnavailable), errors.Is(err, replica.ErrStopped):
		st = statusUnavailable
	default:
		st = statusUnknown
	}
	// If the answer cannot be sent, the connection is gone, and the asker calls it unknown.
	_ = f.c.transport.Queue(to, peer.LaneRequests, kindOutcome, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, id)
		b = append(b, byte(st))
		switch st {
		case statusResult:
			b = appendResult(b, result)
		case statusNotLeader:
			var leader uint64
			if g := f.c.group(group); g != nil {
				leader = g.leader()
			}
			b = binary.LittleEndian.AppendUint64(b, leader)
		}
		return b
	})
	f.answers.Lock()
	if !slices.Contains(f.answers.to, to) {
		f.answers.to = append(f.answers.to, to)
	}
	f.answers.Unlock()
}

// outcome takes an answer.
func (f *forwarder) outcome(from uint64, payload []byte) error {
	if len(payload) < 9 {
		return errors.New("malformed outcome")
	}
	p := f.take(binary.LittleEndian.Uint64(payload))
	if p == nil {
		return nil // Given up already.
	}
	switch body := payload[9:]; status(payload[8]) {
	case statusResult:
		result, err := decodeResult(p.group, body)
		if err != nil {
			p.waiter.Done(nil, ErrUnknown)
			return fmt.Errorf("outcome of a command for group %d: %w", p.group, err)
		}
		p.waiter.Done(result, nil)
	case statusUnavailable:
		p.waiter.Done(nil, ErrUnavailable)
	case statusOverloaded:
		p.waiter.Done(nil, ErrOverloaded)
	case statusNoSpace:
		p.waiter.Done(nil, ErrNoSpace)
	case statusNotLeader:
		f.redirect(p, body, from)
	default:
		p.waiter.Done(nil, ErrUnknown)
	}
	return nil
}

// redirect notes who leads and keeps the command, which was definitely not proposed, for another
// attempt.
func (f *forwarder) redirect(p *forwarded, body []byte, from uint64) {
	g := f.c.group(p.group)
	if g == nil {
		p.waiter.Done(nil, ErrUnavailable)
		return
	}
	if len(body) == 8 {
		leader := binary.LittleEndian.Uint64(body)
		if leader != from {
			g.hint.Store(leader)
		}
		if leader == 0 {
			g.unknowing.Store(from)
		}
	}
	g.held.keep(heldCommand{p.command, p.waiter, p.begun.Add(holdFor)})
}

// lost is told that the connection to a server broke.
func (f *forwarder) lost(server uint64) {
	f.finish(func(p *forwarded) bool { return p.to == server })
}

// expire gives up on outcomes that do not come. It looks at all of them, so not at every tick.
func (f *forwarder) expire(now time.Time) {
	if now.Before(f.expireAt) {
		return
	}
	f.expireAt = now.Add(forwardFor / 10)
	f.finish(func(p *forwarded) bool { return now.Sub(p.begun) > forwardFor })
}

func (f *forwarder) finish(which func(*forwarded) bool) {
	var ended []*forwarded
	f.mu.Lock()
	for id, p := range f.pending { // order: each outcome is independent
		if which(p) {
			ended = append(ended, p)
			delete(f.pending, id)
		}
	}
	f.mu.Unlock()
	for _, p := range ended {
		p.waiter.Done(nil, ErrUnknown)
	}
}

// appendResult encodes a result of either machine.
func appendResult(b []byte, result any) []byte {
	if r, ok := result.(*stream.Result); ok {
		return stream.AppendResult(b, r)
	}
	j, err := json.Marshal(result)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode result %T: %v", result, err)) // Our own types, always encodable.
	}
	return append(b, j...)
}

func decodeResult(g wal.GroupID, body []byte) (any, error) {
	if g == meta.MetaGroup {
		r := &meta.Result{}
		return r, json.Unmarshal(body, r)
	}
	return stream.DecodeResult(body)
}
