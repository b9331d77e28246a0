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
//	command: | request 8 | group 8 | life 8 | epoch 8 | unreached 8 | command |
//	outcome: | request 8 | status 1 | leader 8 or result |
//
// A command says in which order it belongs, see away. If the sender can not reach the leader, it names that and asks
// another member to pass the command on. Servers that do not know of it are sent a propose.
type forwarder struct {
	c    *Cluster
	life uint64 // names this process

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
	heldCommand
	to    uint64
	group *group
	epoch uint64
	begun time.Time
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
	return &forwarder{c: c, life: randomID(), pending: make(map[uint64]*forwarded)}
}

// propose sends a command to a server. See offer. If unreached is not 0 that is the leader, and the server is another
// member.
func (f *forwarder) propose(to, unreached uint64, g *group, h heldCommand) error {
	g.away.Lock()
	defer g.away.Unlock()
	if !g.away.send(to) {
		return errNoLeader
	}
	p := &forwarded{heldCommand: h, to: to, group: g, epoch: g.away.epoch, begun: time.Now()}
	if p.order == 0 {
		p.order, p.command, p.until = g.held.orders.Add(1), slices.Clone(h.command), p.begun.Add(holdFor)
	}
	f.mu.Lock()
	f.next++
	id := f.next
	f.pending[id] = p
	f.mu.Unlock()
	err := f.send(to, id, unreached, p)
	if err == nil {
		g.away.last = p.order
		return nil
	}
	// Nothing was sent. If the connection broke in this moment, lost has taken it, and answers.
	if f.take(id) == nil {
		return nil
	}
	g.away.count.Add(-1)
	if errors.Is(err, peer.ErrFull) {
		return ErrOverloaded
	}
	return errNoLeader
}

func (f *forwarder) send(to, id, unreached uint64, p *forwarded) error {
	kind := kindPropose
	if f.c.takesCommands(to) {
		kind = kindCommand
	}
	return f.c.send(to, peer.LaneRequests, kind, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, id)
		b = binary.LittleEndian.AppendUint64(b, uint64(p.group.id))
		if kind == kindCommand {
			b = binary.LittleEndian.AppendUint64(b, f.life)
			b = binary.LittleEndian.AppendUint64(b, p.epoch)
			b = binary.LittleEndian.AppendUint64(b, unreached)
		}
		return append(b, p.command...)
	})
}

func (f *forwarder) take(id uint64) *forwarded {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pending[id]
	delete(f.pending, id)
	return p
}

// serve executes a command that another server forwarded without an order.
func (f *forwarder) serve(from uint64, payload []byte) error {
	if len(payload) < 16 {
		return errors.New("malformed forwarded command")
	}
	w := &forwardedHere{f: f, from: from, id: binary.LittleEndian.Uint64(payload), group: wal.GroupID(binary.LittleEndian.Uint64(payload[8:]))}
	f.proposeHere(w, 0, payload[16:])
	return nil
}

// serveCommand executes a command that another server forwarded.
func (f *forwarder) serveCommand(from uint64, payload []byte) error {
	if len(payload) < 40 {
		return errors.New("malformed forwarded command")
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(payload[i:]) }
	w := &forwardedHere{f: f, from: from, id: at(0), group: wal.GroupID(at(8)), life: at(16), epoch: at(24)}
	f.proposeHere(w, at(32), payload[40:])
	return nil
}

func (f *forwarder) proposeHere(w *forwardedHere, unreached uint64, command []byte) {
	err := f.offerHere(w, unreached, command)
	if errors.Is(err, replica.ErrNotLeader) {
		err = errNoLeader
	}
	if err != nil {
		w.Done(nil, err)
	}
}

// offerHere proposes to the local replica or, if the sender can not reach the leader, passes on what it sent.
func (f *forwarder) offerHere(w *forwardedHere, unreached uint64, command []byte) error {
	g := f.c.group(w.group)
	if g == nil || w.epoch != 0 && !g.gates.admit(w.from, w.life, w.epoch) {
		return errNoLeader
	}
	r := g.rep.Load()
	switch {
	case r == nil:
		return errNoLeader
	case unreached == 0 || g.leads():
		return g.propose(r, command, w)
	case g.leaderHere() != unreached:
		return errNoLeader // The sender does not know of that one yet.
	}
	w.passed = true
	g.held.propose(command, w)
	return nil
}

// forwardedHere waits for the outcome of a command that another server forwarded, and sends it there.
type forwardedHere struct {
	f           *forwarder
	from, id    uint64
	group       wal.GroupID
	life, epoch uint64
	passed      bool // it is this server's to find the leader
}

func (w *forwardedHere) Done(result any, err error) {
	if g := w.f.c.group(w.group); g != nil && w.epoch != 0 && errors.Is(err, errNoLeader) {
		g.gates.shut(w.from, w.life, w.epoch)
	}
	w.f.answer(w.from, w.id, w.group, result, err)
}

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
				leader = g.leaderHere() // What this server was told itself may be long over.
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
	st, body := status(payload[8]), payload[9:]
	if st == statusNotLeader {
		f.redirect(p, body, from)
	} else {
		result, err := any(nil), st.err()
		if err == nil {
			if result, err = decodeResult(p.group.id, body); err != nil {
				f.end(p, nil, ErrUnknown)
				return fmt.Errorf("outcome of a command for group %d: %w", p.group.id, err)
			}
		}
		f.end(p, result, err)
	}
	return nil
}

// err is what a status tells, nil for a result.
func (s status) err() error {
	switch s {
	case statusResult:
		return nil
	case statusUnavailable:
		return ErrUnavailable
	case statusOverloaded:
		return ErrOverloaded
	case statusNoSpace:
		return ErrNoSpace
	}
	return ErrUnknown
}

// end tells who waits for a command what became of it.
func (f *forwarder) end(p *forwarded, result any, err error) {
	if p.group.away.heard(p.epoch, false, time.Now()) && p.group.held.count.Load() > 0 {
		p.group.held.flush()
	}
	p.waiter.Done(result, err)
}

// redirect notes who leads and keeps the command, which was definitely not proposed, for another
// attempt.
func (f *forwarder) redirect(p *forwarded, body []byte, from uint64) {
	g := p.group
	var leader uint64
	if len(body) == 8 {
		leader = binary.LittleEndian.Uint64(body)
		if leader != from {
			g.hint.Store(leader)
		}
		if leader == 0 {
			g.unknowing.Store(from)
		}
	}
	now := time.Now()
	kept := g.away.current(p.epoch) && now.Before(p.until)
	if kept {
		g.held.keep(p.heldCommand)
	}
	if g.away.heard(p.epoch, true, now) && leader != 0 && leader != from && g.away.lasted(now) {
		g.held.flush()
	}
	if !kept { // What came behind it has gone elsewhere, or its time is over.
		p.waiter.Done(nil, ErrUnavailable)
	}
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
		p.group.away.heard(p.epoch, true, time.Now())
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
