package jetstream

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/peer"
)

// Kinds of frames between servers; see the functions that build them.
const (
	kindRequest  = cluster.KindOthers + 16 + iota // an API request for a server that can answer it
	kindAnswer                                    // what came of one
	kindDirect                                    // a direct get for a server with a replica
	kindWatchers                                  // of watchers that the sender delivers to
	kindTry                                       // kindDirect, that may be returned
	kindReturned                                  // a direct get that the sender can not answer
	kindPass                                      // kindRequest, to be passed on to the leader, which the sender can not reach
)

// verdict says what came of a request that was sent to another server.
type verdict byte

const (
	answered verdict = iota // the body is the reply
	notHere                 // definite: nothing was done there; who leads follows, if known there
	unsent                  // definite: the server cannot be reached
	lost                    // nobody knows
)

// outcome is the verdict with what belongs to it.
type outcome struct {
	verdict verdict
	from    uint64
	leader  uint64 // with notHere
	refused bool   // with answered: the reply is a refusal
	body    []byte
}

// How long the server of a client waits: for the answer of another server, and for one to come that
// can answer.
const (
	askFor  = 10 * time.Second
	holdFor = 3 * time.Second
	lookFor = time.Second // for an answer that can be done without
	// secondTry is after how long a read that is not answered is asked for again. Both tries end before a
	// client gives up, which is after five seconds mostly.
	secondTry = 1500 * time.Millisecond
	// expectFor is how long a server that was asked waits to be the one that can answer.
	expectFor = 250 * time.Millisecond
	retryGap  = 25 * time.Millisecond
)

// elsewhere carries requests to the servers that can answer them, and answers back. A request goes
// over one connection at most: whoever gets it answers, or says at once that it is the wrong server.
// What waits for a leader waits on the server of the client.
type elsewhere struct {
	svc     *Service
	cluster *cluster.Cluster

	mu      sync.Mutex
	next    uint64
	pending map[uint64]*question
	held    []*held
	closed  bool

	wake  chan struct{}
	done  chan struct{}
	group sync.WaitGroup
}

// question is a request on its way.
type question struct {
	to   uint64
	late time.Time
	done func(outcome)
}

// held is something that cannot be done yet. try tells whether it was taken care of; from then on it
// is somebody else's.
type held struct {
	until time.Time
	try   func() bool
	late  func()
}

// Attach lets requests pass between the servers of the cluster. It must be called before the cluster
// is started.
func (s *Service) Attach(c *cluster.Cluster) {
	e := &elsewhere{
		svc: s, cluster: c, pending: make(map[uint64]*question),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.cluster, s.elsewhere = c, e
	c.Handle(kindRequest, func(from uint64, payload []byte) error { return e.receive(from, payload, false) })
	c.Handle(kindPass, func(from uint64, payload []byte) error { return e.receive(from, payload, true) })
	c.Handle(kindAnswer, e.receiveAnswer)
	c.Handle(kindDirect, e.receiveDirect)
	c.Handle(kindTry, e.receiveTry)
	c.Handle(kindReturned, e.receiveReturned)
	c.Tell(returnsDirect, true)
	c.Tell(passesOn, true)
	c.WatchPeers(func(server uint64, _ string, up bool) {
		if !up {
			e.finish(func(q *question) bool { return q.to == server })
		}
		e.kick()
	})
	e.group.Go(e.run)
	s.revival = newRevival(s, c)
	s.revival.attach()
}

func (e *elsewhere) close() {
	e.mu.Lock()
	e.closed = true
	e.pending, e.held = nil, nil
	e.mu.Unlock()
	close(e.done)
	e.group.Wait()
}

// kick has what is held tried again: something has changed.
func (e *elsewhere) kick() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run tries what is held again, and gives up on what is late. While there is neither it only looks at
// the groups now and then.
func (e *elsewhere) run() {
	ticker := time.NewTicker(retryGap)
	defer ticker.Stop()
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	watcher := &watcher{svc: e.svc}
	for {
		tick := ticker.C
		if !e.busy() {
			tick = nil
		}
		select {
		case <-e.done:
			return
		case <-watch.C:
			watcher.look()
		case <-e.wake:
		case <-tick:
		}
		now := time.Now()
		e.retry(now)
		e.finish(func(q *question) bool { return q.late.Before(now) })
	}
}

func (e *elsewhere) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.held)+len(e.pending) > 0
}

// heldMax bounds what waits for leaders.
const heldMax = 16384

// hold tries, and if that fails tries again until the time is over.
func (e *elsewhere) hold(h *held) {
	if h.try() {
		return
	}
	e.mu.Lock()
	full := e.closed || len(e.held) >= heldMax
	if !full {
		e.held = append(e.held, h)
	}
	e.mu.Unlock()
	if full {
		h.late()
		return
	}
	e.kick()
}

func (e *elsewhere) retry(now time.Time) {
	e.mu.Lock()
	all := e.held
	e.held = nil
	e.mu.Unlock()
	rest := slices.DeleteFunc(all, func(h *held) bool {
		if h.try() {
			return true
		}
		late := h.until.Before(now)
		if late {
			h.late()
		}
		return late
	})
	e.mu.Lock()
	e.held = append(rest, e.held...)
	e.mu.Unlock()
}

// ask sends an API request to another server. done is called once, perhaps before ask returns.
//
//	request: | id 8 | length-prefixed account, subject | body |
func (e *elsewhere) ask(to uint64, account, subject string, body []byte, within time.Duration, done func(outcome)) {
	e.send(kindRequest, to, account, subject, body, within, done)
}

// passesOn is the name under which servers tell that they know kindPass.
const passesOn = "passes_on"

// askLeader is ask for what only the leader of a stream can do.
func (e *elsewhere) askLeader(cs *cluster.Stream, to uint64, subject string, body []byte, within time.Duration, done func(outcome)) {
	kind := kindRequest
	if cs.LeaderOutOfReach() && e.cluster.Told(to, passesOn) != nil {
		kind = kindPass
	}
	e.send(kind, to, cs.Account(), subject, body, within, done)
}

func (e *elsewhere) send(kind peer.Kind, to uint64, account, subject string, body []byte, within time.Duration, done func(outcome)) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.next++
	id := e.next
	e.pending[id] = &question{to: to, late: time.Now().Add(within), done: done}
	first := len(e.pending) == 1
	e.mu.Unlock()
	if first {
		e.kick()
	}
	err := e.cluster.SendPeer(to, peer.LaneRequests, kind, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, id)
		b = appendString(appendString(b, account), subject)
		return append(b, body...)
	})
	if err != nil {
		if q := e.take(id); q != nil {
			q.done(outcome{verdict: unsent, from: to})
		}
	}
}

func (e *elsewhere) take(id uint64) *question {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.pending[id]
	delete(e.pending, id)
	return q
}

// finish ends questions whose outcome will not be known.
func (e *elsewhere) finish(which func(*question) bool) {
	var ended []*question
	e.mu.Lock()
	for id, q := range e.pending { // order: each is independent
		if which(q) {
			ended = append(ended, q)
			delete(e.pending, id)
		}
	}
	e.mu.Unlock()
	for _, q := range ended {
		q.done(outcome{verdict: lost, from: q.to})
	}
}

var errMalformed = errors.New("jetstream: malformed frame")

// asker is where the answer to a request from another server goes.
type asker struct {
	server uint64
	id     uint64
	pass   bool // it can not reach the leader
}

// receive takes a request of another server's client.
func (e *elsewhere) receive(from uint64, payload []byte, pass bool) error {
	if len(payload) < 8 {
		return errMalformed
	}
	to := asker{from, binary.LittleEndian.Uint64(payload), pass}
	account, rest, ok := takeString(payload[8:])
	subject, body, ok2 := takeString(rest)
	if !ok || !ok2 {
		return errMalformed
	}
	e.svc.mu.RLock()
	a := e.svc.accounts[account]
	e.svc.mu.RUnlock()
	if a == nil || !a.serveFor(to, subject, body) {
		e.answer(to, notHere, 0, nil)
	}
	return nil
}

// answer says what came of a request.
//
//	answer: | id 8 | verdict 1 | leader 8, or refused 1 and body |
func (e *elsewhere) answer(to asker, v verdict, leader uint64, build func([]byte) []byte) {
	// If it cannot be sent, the connection is gone, and the asker calls the outcome unknown.
	_ = e.cluster.SendPeer(to.server, peer.LaneRequests, kindAnswer, func(b []byte) []byte {
		b = append(binary.LittleEndian.AppendUint64(b, to.id), byte(v))
		if v == notHere {
			return binary.LittleEndian.AppendUint64(b, leader)
		}
		return build(b)
	})
}

func (e *elsewhere) receiveAnswer(from uint64, payload []byte) error {
	if len(payload) < 10 {
		return errMalformed
	}
	q := e.take(binary.LittleEndian.Uint64(payload))
	o := outcome{verdict: verdict(payload[8]), from: from}
	switch body := payload[9:]; o.verdict {
	case answered:
		o.refused, o.body = body[0] != 0, body[1:]
	case notHere:
		if len(body) != 8 {
			return errMalformed
		}
		o.leader = binary.LittleEndian.Uint64(body)
	default:
		return errMalformed
	}
	if q != nil {
		q.done(o)
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func takeString(b []byte) (s string, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return "", nil, false
	}
	return string(b[k : k+int(n)]), b[k+int(n):], true
}
