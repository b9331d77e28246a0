package jetstream

import (
	"encoding/json"

	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/peer"
)

// What servers tell each other of watchers. See revival.

const newsMax = 64 // consumers in one frame

// watchNews is a frame about watchers of one stream.
type watchNews struct {
	Account string
	Stream  string
	Began   []watch  `json:",omitempty"`
	Ended   []string `json:",omitempty"`
	Lost    []string `json:",omitempty"` // can no longer be delivered for there
	Orphans []watch  `json:",omitempty"` // had a server that is lost; the leader is to bring them back
	Ask     bool     `json:",omitempty"` // what the receiver has; of no stream
}

// others are the servers that may come to lead the stream.
func (r *revival) others(cs *cluster.Stream) []uint64 {
	var all []uint64
	for _, id := range cs.Servers() {
		if id != r.cluster.ServerID() {
			all = append(all, id)
		}
	}
	return all
}

// tell sends news. A server that cannot be reached is told everything when it comes back.
func (r *revival) tell(cs *cluster.Stream, news watchNews, to []uint64) {
	news.Account, news.Stream = cs.Account(), cs.Name()
	r.send(&news, to)
}

// send gives a frame to the transport; what it does not take is lost.
func (r *revival) send(news *watchNews, to []uint64) {
	b, err := json.Marshal(news)
	if err != nil {
		return // Configurations have come as JSON.
	}
	for _, id := range to {
		_ = r.cluster.SendPeer(id, peer.LaneRequests, kindWatchers, func(frame []byte) []byte { return append(frame, b...) })
	}
}

func (r *revival) receive(from uint64, payload []byte) error {
	var news watchNews
	if json.Unmarshal(payload, &news) != nil {
		return errMalformed
	}
	r.hear(from, &news)
	if len(news.Began) > 0 && !r.reachable(from) {
		// The last words of a server may be heard after it was lost. One that is only not reached yet is asked again
		// when it is. Who is lost from here on is lost with what was heard.
		r.peerLost(from)
	}
	r.kick()
	return nil
}

func (r *revival) hear(from uint64, news *watchNews) {
	key := func(name string) farKey { return farKey{news.Account, news.Stream, name} }
	r.mu.Lock()
	defer r.mu.Unlock()
	if news.Ask {
		r.met = append(r.met, from)
	}
	for _, w := range news.Began {
		r.remember(key(w.Config.Name), &farWatch{server: from, watch: w})
	}
	for _, w := range news.Orphans {
		if k := key(w.Config.Name); r.far[k] == nil {
			r.orphaned(k, &farWatch{server: from, watch: w})
		}
	}
	for _, name := range news.Ended {
		if w := r.far[key(name)]; w != nil && w.server == from {
			r.forget(key(name))
		}
	}
	for _, name := range news.Lost {
		if w := r.far[key(name)]; w != nil && w.server == from {
			r.lose(w)
		}
	}
}

// announce tells the servers of each stream, or those of them that are in only, of consumers.
func (r *revival) announce(feeds []*feed, only []uint64) {
	news := make(map[*cluster.Stream][]watch)
	send := func(cs *cluster.Stream) {
		to := r.others(cs)
		if only != nil {
			to = intersect(to, only)
		}
		r.tell(cs, watchNews{Began: news[cs]}, to)
		delete(news, cs)
	}
	for _, f := range feeds {
		cs := f.set.st
		if f.set.get(f.name) != f {
			continue // It has ended meanwhile.
		}
		if news[cs] = append(news[cs], watchOf(f)); len(news[cs]) == newsMax {
			send(cs)
		}
	}
	for cs := range news { // order: frames of different streams
		send(cs)
	}
}

func intersect(a, b []uint64) (both []uint64) {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				both = append(both, x)
				break
			}
		}
	}
	return both
}

// pass tells the leaders of streams of lost consumers of which they may not know, each leader once.
func (r *revival) pass(due map[farKey]*farWatch) {
	orphans := make(map[*cluster.Stream][]watch)
	send := func(cs *cluster.Stream, to uint64) {
		r.tell(cs, watchNews{Orphans: orphans[cs]}, []uint64{to})
		delete(orphans, cs)
	}
	to := make(map[*cluster.Stream]uint64)
	for k, w := range due { // order: each is independent
		cs := r.cluster.Stream(k.account, k.stream)
		if cs == nil {
			continue
		}
		leader, known := to[cs]
		if !known {
			if leader = cs.Leader(); leader == r.cluster.ServerID() || !r.reachable(leader) {
				leader = 0
			}
			to[cs] = leader
		}
		if !r.mayPass(k, w, leader) {
			continue
		}
		if orphans[cs] = append(orphans[cs], w.watch); len(orphans[cs]) == newsMax {
			send(cs, leader)
		}
	}
	for cs := range orphans { // order: frames of different streams
		send(cs, to[cs])
	}
}

// mayPass tells whether that leader has still to be told, and notes that it is.
func (r *revival) mayPass(k farKey, w *farWatch, leader uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if leader == 0 || w.passed == leader || r.far[k] != w {
		return false
	}
	w.passed = leader
	return true
}
