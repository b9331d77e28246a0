package jetstream

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
)

// revival brings the consumers of watchers back whose server was lost.
//
// Such a consumer lives in the memory of one server. When that is lost, its client finds out by the
// heartbeats that it misses, some clients after a minute only. So each server tells the others that have
// a replica of the stream which watchers it delivers to, and notes it in a file for itself; when it is lost,
// the leader of the stream makes their consumers again, for those whose clients are connected now. A leader may
// have been started later than a watcher: who knows of a lost one tells it.
//
// How far a consumer had come is noted when it is told of, and not again. The new one goes on from there. If
// nothing was delivered since, that is where its client is, also one that has never got anything. Else
// what it sends bears a number that the client does not expect: the client takes that for a sign that
// deliveries are missing, throws the message away and asks for a consumer from the revision on that it saw
// last. That is the logic of ordered consumers (ADR-17), and only their consumers are brought back.
type revival struct {
	svc       *Service
	cluster   *cluster.Cluster
	reachable func(server uint64) bool

	mu    sync.Mutex
	fresh []*feed            // of this server, which nobody has been told of yet, oldest first
	lasts []*feed            // of these, those that will not end at once: others are told without delay
	told  map[*feed]struct{} // of this server, which others know of
	over  []ending           // of what others know
	met   []uint64           // servers that know of none yet
	ask   []uint64           // servers that have to say what they have
	far   map[farKey]*farWatch
	lost  int // of far, how many have no server

	unsaved bool // told has changed since the file was written
	saved   bool // for the last time
	saveAt  time.Time

	wake  chan struct{}
	note  chan struct{} // wake, for keep
	done  chan struct{}
	group sync.WaitGroup
}

// ending is the end of a consumer, of which others have to hear.
type ending struct {
	feed *feed
	lost bool // it can no longer be delivered for here; its client is still there
}

type farKey struct{ account, stream, name string }

// farWatch is a consumer that another server delivers for, or this one did before it was started again.
type farWatch struct {
	watch
	server uint64
	lost   time.Time // zero while the server has it
	passed uint64    // the leader that was told that it is lost
}

// watch is what is told and noted of a consumer.
type watch struct {
	Config    api.ConsumerConfig
	Start     consumer.Start
	Delivered consumer.Mark
}

func watchOf(f *feed) watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := watch{Config: *f.machine.Config()}
	w.Config.Name = f.name
	w.Start, w.Delivered = f.machine.Progress()
	return w
}

const (
	// tellAfter spares the others what most watchers are: a list of keys that ends at once. One that
	// goes on from somewhere is no list.
	tellAfter = 200 * time.Millisecond
	// A server that only lost a connection says within reviveAfter that it still has its watchers. For
	// reviveFor a client may look for another server.
	reviveAfter = 500 * time.Millisecond
	reviveFor   = 5 * time.Minute
	reviveEvery = 200 * time.Millisecond

	// Saving takes a fiftieth of the time at most.
	saveEvery = time.Second
	saveShare = 50

	watchersFile = "watchers"

	farMax = 1 << 17 // consumers of others that are remembered
)

func newRevival(s *Service, c *cluster.Cluster) *revival {
	r := &revival{
		svc: s, cluster: c, reachable: c.Reachable, told: make(map[*feed]struct{}), far: make(map[farKey]*farWatch),
		wake: make(chan struct{}, 1), note: make(chan struct{}, 1), done: make(chan struct{}),
	}
	return r
}

// attach has the servers of a cluster tell each other. It must be called before the cluster is started.
func (r *revival) attach() {
	r.cluster.Handle(kindWatchers, r.receive)
	r.cluster.WatchPeers(r.peerChanged)
}

// start begins with the watchers that there were when the server stopped.
func (r *revival) start() {
	r.restore()
	r.group.Go(r.run)
	r.group.Go(r.keep)
}

func (r *revival) close() {
	close(r.done)
	r.group.Wait()
}

// revives tells whether a consumer is one whose client starts anew when deliveries are missing.
func revives(cfg *api.ConsumerConfig) bool {
	return cfg.DeliverSubject != "" && cfg.DeliverGroup == "" && cfg.AckPolicy == api.AckNone && cfg.Durable == "" &&
		cfg.MaxDeliver == 1 && cfg.FlowControl && cfg.IdleHeartbeat > 0
}

func (r *revival) kick() { ring(r.wake) }

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// began and ended are told of the consumers of this server. again says of one that it was brought back. r is
// nil before the service is started.
func (r *revival) began(f *feed, cfg *api.ConsumerConfig, again bool) {
	if r == nil || !revives(cfg) {
		return
	}
	r.mu.Lock()
	switch cfg.DeliverPolicy {
	case api.DeliverByStartSequence, api.DeliverByStartTime, api.DeliverNew:
		again = true
	}
	if again {
		r.lasts = append(r.lasts, f)
	} else {
		r.fresh = append(r.fresh, f)
	}
	r.mu.Unlock()
	r.kick()
}

func (r *revival) ended(f *feed, status string) {
	if r == nil || status == consumer.EndShutdown {
		return // It is lost with the server, and its client is still there.
	}
	lost := status == consumer.EndLeader && !f.logged && revives(f.machine.Config())
	r.mu.Lock()
	_, told := r.told[f]
	if told {
		delete(r.told, f)
		r.unsaved = true
	}
	if told || lost {
		r.over = append(r.over, ending{f, lost})
	}
	r.mu.Unlock()
	if told || lost {
		r.kick()
	}
}

func (r *revival) peerChanged(server uint64, _ string, up bool) {
	if up {
		r.mu.Lock()
		r.met, r.ask = append(r.met, server), append(r.ask, server)
		r.mu.Unlock()
	} else {
		r.peerLost(server)
	}
	r.kick()
}

func (r *revival) peerLost(server uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.far { // order: each is independent
		if w.server == server {
			r.lose(w)
		}
		if w.passed == server {
			w.passed = 0 // It may come back without what it was told.
		}
	}
}

// lose notes that a consumer has no server. r.mu is held.
func (r *revival) lose(w *farWatch) {
	if w.lost.IsZero() {
		w.lost = time.Now()
		r.lost++
	}
}

// forget and remember keep count. r.mu is held.
func (r *revival) forget(k farKey) {
	if w := r.far[k]; w != nil && !w.lost.IsZero() {
		r.lost--
	}
	delete(r.far, k)
}

func (r *revival) remember(k farKey, w *farWatch) {
	r.forget(k)
	if len(r.far) < farMax {
		r.far[k] = w
	}
}

// orphaned remembers a consumer that has no server. r.mu is held.
func (r *revival) orphaned(k farKey, w *farWatch) {
	r.remember(k, w)
	if r.far[k] == w {
		r.lose(w)
	}
}

// run tells of consumers that have lived for a while, and brings back what is lost. It sleeps while
// there is neither.
func (r *revival) run() {
	ticker := time.NewTicker(reviveEvery)
	defer ticker.Stop()
	for {
		r.mu.Lock()
		busy, unsaved := len(r.fresh) > 0 || r.lost > 0, r.unsaved && !r.saved
		r.mu.Unlock()
		if unsaved {
			ring(r.note)
		}
		tick := ticker.C
		if !busy {
			tick = nil
		}
		select {
		case <-r.done:
			return
		case <-r.wake:
		case <-tick:
		}
		r.spread(r.svc.sched.clock.now())
		due := r.due(time.Now())
		for k, w := range due { // order: each is independent
			r.revive(k, w)
		}
		r.pass(due)
	}
}

// keep writes the file. It is not run's to do: others are not to wait for the disk to hear of a watcher.
func (r *revival) keep() {
	for {
		select {
		case <-r.done:
			return
		case <-r.note:
		}
		r.mu.Lock()
		wait := time.Until(r.saveAt)
		r.mu.Unlock()
		select {
		case <-r.done:
			return
		case <-time.After(wait):
		}
		r.save(time.Now(), false)
	}
}

// spread tells others of what is new here and what has ended, and those that were met of everything.
func (r *revival) spread(now int64) {
	r.mu.Lock()
	n := 0
	for n < len(r.fresh) && r.fresh[n].created <= now-int64(tellAfter) {
		n++
	}
	fresh := append(r.lasts, r.fresh[:n]...)
	r.lasts, r.fresh = nil, r.fresh[n:]
	met, ask, over := r.met, r.ask, r.over
	r.met, r.ask, r.over = nil, nil, nil
	var told []*feed
	if len(met) > 0 {
		for f := range r.told { // order: no matter to the receiver
			told = append(told, f)
		}
	}
	for _, f := range fresh {
		if f.set.get(f.name) == f {
			r.told[f] = struct{}{}
			r.unsaved = true
		}
	}
	r.mu.Unlock()
	if len(ask) > 0 {
		r.send(&watchNews{Ask: true}, ask)
	}
	r.announce(fresh, nil)
	r.announce(told, met)
	for _, e := range over {
		news := watchNews{Ended: []string{e.feed.name}}
		if e.lost { // Who has a replica since it moved, or all others, may not have heard of the consumer.
			news = watchNews{Lost: []string{e.feed.name}, Orphans: []watch{watchOf(e.feed)}}
		}
		r.tell(e.feed.set.st, news, r.others(e.feed.set.st))
	}
}

// save writes the watchers of this server to a file if they have changed: now and then, and a last time
// before it stops.
func (r *revival) save(now time.Time, last bool) {
	r.mu.Lock()
	if r.saved || !r.unsaved || now.Before(r.saveAt) && !last {
		r.saved = r.saved || last
		r.mu.Unlock()
		return
	}
	r.unsaved, r.saved = false, last
	var told []*feed
	for f := range r.told { // order: no matter when read
		told = append(told, f)
	}
	r.mu.Unlock()
	var all []watchNews
	for _, f := range told {
		all = append(all, watchNews{Account: f.set.st.Account(), Stream: f.set.st.Name(), Began: []watch{watchOf(f)}})
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = r.cluster.Keep(watchersFile, b)
	}
	if err != nil {
		r.svc.log.Warn("note the watchers for the next start: " + err.Error())
	}
	r.mu.Lock()
	r.saveAt = now.Add(max(saveEvery, saveShare*time.Since(now)))
	r.mu.Unlock()
}

// restore remembers the watchers of this server before it was started, as lost.
func (r *revival) restore() {
	var all []watchNews
	b, err := r.cluster.Kept(watchersFile)
	if err == nil && b != nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		r.svc.log.Warn("read the watchers of before: " + err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, news := range all {
		for _, w := range news.Began {
			k := farKey{news.Account, news.Stream, w.Config.Name}
			if r.far[k] == nil { // No other server has said that it has it.
				r.orphaned(k, &farWatch{server: r.cluster.ServerID(), watch: w})
			}
		}
	}
}

// due returns the consumers that may be brought back now, and forgets those whose clients have not
// come back for too long.
func (r *revival) due(now time.Time) map[farKey]*farWatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == 0 {
		return nil
	}
	due := make(map[farKey]*farWatch)
	for k, w := range r.far { // order: each is independent
		switch since := now.Sub(w.lost); {
		case w.lost.IsZero() || since < reviveAfter:
		case since > reviveFor:
			r.forget(k)
		default:
			due[k] = w
		}
	}
	return due
}

// revive makes a consumer again if it is this server's to do, and its client is there.
func (r *revival) revive(k farKey, w *farWatch) {
	cs := r.cluster.Stream(k.account, k.stream)
	if cs == nil || !cs.IsLeader() {
		return
	}
	set, source := r.svc.setOf(cs), cs.Machine()
	if set == nil || source == nil || !set.interest(w.Config.DeliverSubject, "") {
		return
	}
	r.mu.Lock()
	mine := r.far[k] == w
	r.forget(k)
	r.mu.Unlock()
	if mine {
		set.revive(source, &w.watch)
	}
}
