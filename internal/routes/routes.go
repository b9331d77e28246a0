// Package routes joins the brokers of a cluster's servers: what clients subscribe to on one server
// is known to the others, and a message that somebody there wants is carried over, once a server.
//
// It owns the book of remote interest and the frames that keep it true. It promises that the book
// about a server is empty while that server cannot be reached, and equal to what it announced once
// it answers again. Core messages are delivered at most once; what does not fit into a full queue
// is dropped and counted. It leaves matching to the broker and connections to package peer.
package routes

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/peer"
)

// Kinds of frames; see the functions that build them.
const (
	kindAsk      = cluster.KindOthers + iota // send me all your interest
	kindInterest                             // changes of interest, or all of it
	kindMessage
	kindURLs // where clients reach the sender
)

// Routes is the joint between one broker and the peers of its server.
type Routes struct {
	broker  *broker.Broker
	cluster *cluster.Cluster
	dropped atomic.Uint64

	// mu is held while announcements are queued, so that peers hear of them in order.
	mu    sync.Mutex
	local map[interest]bool // what clients here subscribe to
	far   map[uint64]*far
	urls  []string            // where clients reach this server
	known map[uint64][]string // where they reach the others
	heard func([]string)      // is told of changes of known
}

type interest struct{ account, subject, queue string }

// far is one other server.
type far struct {
	r      *Routes
	server uint64
	synced bool // it has been told everything, and is told changes; under r.mu

	mu   sync.Mutex
	subs map[interest]*broker.Sub // what it has told us
}

// New registers with the cluster; it must be called before the cluster starts.
func New(b *broker.Broker, c *cluster.Cluster) *Routes {
	r := &Routes{broker: b, cluster: c, local: make(map[interest]bool), far: make(map[uint64]*far), known: make(map[uint64][]string)}
	c.Handle(kindAsk, func(from uint64, _ []byte) error { r.tellAll(from); return nil })
	c.Handle(kindInterest, r.learn)
	c.Handle(kindMessage, r.deliver)
	c.Handle(kindURLs, r.learnURLs)
	c.WatchPeers(r.peerChanged)
	b.WatchAccounts(func(a *broker.Account) {
		name := a.Name()
		a.WatchLocal(func(subject, queue string, on bool) { r.changed(interest{name, subject, queue}, on) })
	})
	return r
}

// Dropped is the number of messages that did not fit into the queue to another server.
func (r *Routes) Dropped() uint64 { return r.dropped.Load() }

// peerChanged runs when a server becomes reachable or ceases to be.
func (r *Routes) peerChanged(server uint64, _ string, up bool) {
	if up {
		// Ask, since what it had told was forgotten when it went; and tell, since it may have asked
		// before there was a way back to it.
		r.send(server, kindAsk, func(b []byte) []byte { return b })
		r.tellAll(server)
		return
	}
	r.mu.Lock()
	f := r.far[server]
	delete(r.far, server)
	delete(r.known, server)
	r.mu.Unlock()
	if f != nil {
		f.forget()
	}
	r.tellURLs()
}

// Advertise says where clients reach this server, and has heard called with where they reach the
// others, now and whenever that changes.
func (r *Routes) Advertise(urls []string, heard func([]string)) {
	r.mu.Lock()
	r.urls, r.heard = urls, heard
	for _, f := range r.far { // order: each server is told alone
		r.sendURLs(f.server)
	}
	r.mu.Unlock()
	r.tellURLs()
}

func (r *Routes) sendURLs(server uint64) {
	// A server that cannot be told now asks when it is reachable again.
	r.send(server, kindURLs, func(b []byte) []byte { return appendStrings(b, r.urls...) })
}

func (r *Routes) learnURLs(from uint64, payload []byte) error {
	var urls []string
	for len(payload) > 0 {
		var s [1]string
		var ok bool
		if payload, ok = takeStrings(payload, s[:]); !ok {
			return errMalformed
		}
		urls = append(urls, s[0])
	}
	r.mu.Lock()
	r.known[from] = urls
	r.mu.Unlock()
	r.tellURLs()
	return nil
}

func (r *Routes) tellURLs() {
	r.mu.Lock()
	heard := r.heard
	var all []string
	for _, urls := range r.known { // order: sorted below
		all = append(all, urls...)
	}
	r.mu.Unlock()
	if heard != nil {
		slices.Sort(all)
		heard(all)
	}
}

// changed notes interest of this server's clients and tells those who know the rest.
func (r *Routes) changed(i interest, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.local[i] = true
	} else {
		delete(r.local, i)
	}
	for _, f := range r.far { // order: each server is told alone
		if !f.synced {
			continue
		}
		// One that cannot be told asks for everything when it is reachable again; while its
		// queue is full it is out of step, so it is told everything at the next change.
		if !r.send(f.server, kindInterest, func(b []byte) []byte { return appendInterest(b, i, on) }) {
			f.synced = false
			r.tellAllLocked(f)
		}
	}
}

// tellAll answers a server that asks for everything.
func (r *Routes) tellAll(server uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellAllLocked(r.farLocked(server))
	r.sendURLs(server)
}

func (r *Routes) tellAllLocked(f *far) {
	f.synced = r.send(f.server, kindInterest, func(b []byte) []byte {
		b = append(b, opReset)
		for i := range r.local { // order: a set
			b = appendInterest(b, i, true)
		}
		return b
	})
}

func (r *Routes) farLocked(server uint64) *far {
	f := r.far[server]
	if f == nil {
		f = &far{r: r, server: server, subs: make(map[interest]*broker.Sub)}
		r.far[server] = f
	}
	return f
}

func (r *Routes) send(server uint64, kind peer.Kind, build func([]byte) []byte) bool {
	return r.cluster.SendPeer(server, peer.LaneRequests, kind, build) == nil
}

// Changes of interest stand one after another: an operation, and for all but a reset the lengths
// and bytes of account, subject and queue.
const (
	opReset = iota
	opOn
	opOff
)

func appendInterest(b []byte, i interest, on bool) []byte {
	op := byte(opOff)
	if on {
		op = opOn
	}
	b = append(b, op)
	return appendStrings(b, i.account, i.subject, i.queue)
}

var errMalformed = errors.New("routes: malformed frame")

// learn takes what another server announces.
func (r *Routes) learn(from uint64, payload []byte) error {
	r.mu.Lock()
	f := r.farLocked(from)
	r.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(payload) > 0 {
		op := payload[0]
		payload = payload[1:]
		if op == opReset {
			f.forgetLocked()
			continue
		}
		var s [3]string
		var ok bool
		if payload, ok = takeStrings(payload, s[:]); !ok {
			return errMalformed
		}
		i := interest{s[0], s[1], s[2]}
		switch {
		case op == opOn && f.subs[i] == nil:
			f.subs[i] = r.broker.Account(i.account).SubscribeRemote(i.subject, i.queue, f)
		case op == opOff && f.subs[i] != nil:
			f.subs[i].Close()
			delete(f.subs, i)
		}
	}
	return nil
}

func (f *far) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked()
}

func (f *far) forgetLocked() {
	for i, s := range f.subs { // order: all are closed
		s.Close()
		delete(f.subs, i)
	}
}

// Forward carries a message over. See broker.Remote.
//
//	| plain 1 | queues uvarint | account, to, subject, reply, queues..., header, data |
func (f *far) Forward(a *broker.Account, to string, m *broker.Msg, plain bool, queues []string) {
	ok := f.r.send(f.server, kindMessage, func(b []byte) []byte {
		var p byte
		if plain {
			p = 1
		}
		b = binary.AppendUvarint(append(b, p), uint64(len(queues)))
		b = appendStrings(b, a.Name(), to, m.Subject, m.Reply)
		b = appendStrings(b, queues...)
		b = binary.AppendUvarint(b, uint64(len(m.Header)))
		b = append(b, m.Header...)
		return append(b, m.Data...)
	})
	if !ok {
		f.r.dropped.Add(1)
	}
}

// deliver gives a message that was carried over to this server's subscribers.
func (r *Routes) deliver(_ uint64, payload []byte) error {
	if len(payload) < 2 {
		return errMalformed
	}
	plain := payload[0] == 1
	n, k := binary.Uvarint(payload[1:])
	if k <= 0 || n > uint64(len(payload)) {
		return errMalformed
	}
	payload = payload[1+k:]
	s := make([]string, 4+n)
	var ok bool
	if payload, ok = takeStrings(payload, s); !ok {
		return errMalformed
	}
	h, k := binary.Uvarint(payload)
	if k <= 0 || h > uint64(len(payload)-k) {
		return errMalformed
	}
	header, data := payload[k:k+int(h)], payload[k+int(h):]
	if len(header) == 0 {
		header = nil
	}
	var out broker.Batch
	r.broker.Account(s[0]).DeliverLocal(&out, s[1], s[2], s[3], header, data, plain, s[4:])
	out.Flush()
	return nil
}

func appendStrings(b []byte, all ...string) []byte {
	for _, s := range all {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// takeStrings fills dst and returns what follows.
func takeStrings(b []byte, dst []string) (rest []byte, ok bool) {
	for i := range dst {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, false
		}
		dst[i] = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	return b, true
}
