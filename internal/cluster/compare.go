package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/wal"
)

// Replicas that have applied the same log hold the same, unless memory, a disk or this program is at
// fault, and nothing else would ever notice: each would go on with what it has. So they are compared now
// and then. The leader has a command applied that makes all hold on to their state at that place of the
// log; each makes the digest of it in the background and tells the leader. Who differs from a majority is
// lost, and replaced as any lost replica (see lost.go); if there is no majority nobody can tell who is
// right, and the stream stops.
//
//	leader: Compare in the log -> all: freeze, digest -> report -> leader: judge -> verdict
const (
	compareEvery = 10 * time.Minute
	compareShare = 20 // a digest may take at most this part of the time
	compareQueue = 8  // states held on to that wait for their digest
	compareStale = time.Minute
	comparePause = 3 // for so many times what it worked, a digest rests
)

// comparer makes the digests of this server's replicas, one after another, and judges those of the streams
// that it leads.
type comparer struct {
	c    *Cluster
	jobs chan *comparison

	mu      sync.Mutex
	mine    map[wal.GroupID]compareReport // what this server told last
	reports map[wal.GroupID]map[uint64]compareReport
}

// comparison is a state whose digest is to be made.
type comparison struct {
	s      *Stream
	member uint64
	frozen storage.Frozen
}

// compareReport is what a member tells the leader, and what the leader tells a member.
type compareReport struct {
	Group  uint64        `json:"group"`
	Member uint64        `json:"member"`
	Index  uint64        `json:"index"`
	Sum    string        `json:"sum"`
	Took   time.Duration `json:"took,omitempty"`

	// Of a verdict: the member is to stop, and why; it is lost if it alone is at fault.
	Why  string `json:"why,omitempty"`
	Lost bool   `json:"lost,omitempty"`
}

func newComparer(c *Cluster) *comparer {
	return &comparer{
		c: c, jobs: make(chan *comparison, compareQueue),
		mine: make(map[wal.GroupID]compareReport), reports: make(map[wal.GroupID]map[uint64]compareReport),
	}
}

// comparing is when a stream's replicas are compared; the plan loop's, but for took and equal.
type comparing struct {
	next time.Time

	mu    sync.Mutex
	took  time.Duration // the longest digest of the last comparison
	equal uint64        // log entry at which all were found equal
}

// compare has the replicas of a stream compared where this server leads it, if it is time. Of a stream that
// has not changed since they were found equal, nothing is read again: Scrub does that.
func (s *Stream) compare(now time.Time) {
	every := s.c.opts.CompareEvery
	r, a := s.rep.Load(), s.Assignment()
	if every <= 0 || r == nil || a.Plan != nil || s.gone.Load() || len(a.Replicas) < 2 || !r.Status().Leading {
		s.comparing.next = time.Time{}
		return
	}
	s.comparing.mu.Lock()
	took, equal := s.comparing.took, s.comparing.equal
	s.comparing.mu.Unlock()
	switch {
	case s.comparing.next.IsZero():
		s.comparing.next = now.Add(s.c.compareOffset(s.id, every)) // Not all streams of a server at once.
		return
	case now.Before(s.comparing.next):
		return
	}
	s.comparing.next = now.Add(max(every, compareShare*took))
	if r.Status().Applied == equal || !s.c.allCompare(a.Replicas) {
		return
	}
	_ = r.Propose(stream.EncodeCompare(), WaiterFunc(func(any, error) {})) // The next time will do.
}

// compareOffset spreads the first comparisons of streams.
func (c *Cluster) compareOffset(g wal.GroupID, every time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprint(h, g)
	return every/2 + time.Duration(h.Sum32())%(every/2+1)
}

// allCompare tells whether all these servers can be reached, and know the command.
func (c *Cluster) allCompare(replicas []meta.Replica) bool {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return !slices.ContainsFunc(replicas, func(r meta.Replica) bool {
		return r.Server != c.id.server && (!c.peers.up[r.Server] || !c.peers.extra[r.Server].Compares)
	})
}

// freeze queues the state that a Compare command made the local machine hold on to. It runs on the
// replica's owner.
func (s *Stream) freeze(r *replica.Replica) {
	l := s.local.Load()
	if l == nil {
		return
	}
	f := l.machine.TakeFrozen()
	if f.Frozen == nil {
		return
	}
	job := &comparison{s: s, member: r.ID(), frozen: f.Frozen}
	if s.c.ctx.Err() == nil && time.Since(time.Unix(0, f.Stamp)) < compareStale { // Else it comes from the log of an earlier life.
		select {
		case s.c.comparer.jobs <- job:
			return
		default: // Too much to do: this replica is left out this time.
		}
	}
	f.Release()
}

// run makes digests until the server is closed.
func (p *comparer) run() {
	defer p.drain()
	for {
		select {
		case <-p.c.ctx.Done():
			return
		case job := <-p.jobs:
			p.work(job)
		}
	}
}

// drain lets go of what waits. Close calls it again, when nothing can come any more.
func (p *comparer) drain() {
	for {
		select {
		case job := <-p.jobs:
			job.frozen.Release()
		default:
			return
		}
	}
}

var errCompareStopped = errors.New("cluster: the comparison was given up")

// work makes one digest, a little at a time, and tells the leader.
func (p *comparer) work(job *comparison) {
	s, began := job.s, time.Now()
	last := began
	d, err := storage.DigestOf(job.frozen, func() error {
		if r := s.rep.Load(); s.gone.Load() || r == nil || r.ID() != job.member {
			return errCompareStopped
		}
		select {
		case <-p.c.ctx.Done():
			return errCompareStopped
		case <-time.After(comparePause * time.Since(last)):
		}
		last = time.Now()
		return nil
	})
	job.frozen.Release()
	if err != nil {
		if !errors.Is(err, errCompareStopped) { // Damage is found by those who look for it.
			p.c.opts.Logger.Debug(fmt.Sprintf("compare %s: %v", s.name(), err))
		}
		return
	}
	sum := asDigest(d)
	mine := compareReport{Group: uint64(s.id), Member: job.member, Index: sum.Applied, Sum: sum.Sum, Took: time.Since(began)}
	p.mu.Lock()
	p.mine[s.id] = mine
	p.mu.Unlock()
	p.tell(s.leader(), &mine)
}

// tell sends a report or a verdict to a server, which may be this one.
func (p *comparer) tell(server uint64, m *compareReport) {
	if server == p.c.id.server {
		p.heard(server, m)
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode report: %v", err)) // Our own type, always encodable.
	}
	_ = p.c.send(server, peer.LaneRequests, kindCompare, func(to []byte) []byte { return append(to, b...) })
}

func (p *comparer) receive(from uint64, payload []byte) error {
	m := &compareReport{}
	if err := json.Unmarshal(payload, m); err != nil {
		return err
	}
	p.heard(from, m)
	return nil
}

func (p *comparer) heard(from uint64, m *compareReport) {
	g := p.c.group(wal.GroupID(m.Group))
	if g == nil || g.stream == nil {
		return
	}
	if m.Why != "" {
		p.obey(g, from, m)
		return
	}
	if g.server(m.Member) == from {
		p.judge(g, m)
	}
}

// judge takes a member's report, where the stream is led.
func (p *comparer) judge(g *group, m *compareReport) {
	r := g.rep.Load()
	if r == nil || !r.Status().Leading {
		return
	}
	conf := r.Status().Conf
	if len(conf.GetVotersOutgoing()) > 0 {
		return // The next time.
	}
	p.mu.Lock()
	all := p.reports[g.id]
	for _, old := range all { // order: all are of one index
		if old.Index > m.Index {
			p.mu.Unlock()
			return
		}
		if old.Index < m.Index {
			all = nil
			break
		}
	}
	if all == nil {
		all = make(map[uint64]compareReport)
		p.reports[g.id] = all
	}
	all[m.Member] = *m
	sums := make(map[uint64]string)
	took := time.Duration(0)
	for id, other := range all { // order: a map again, and the longest
		if slices.Contains(conf.GetVoters(), id) {
			sums[id] = other.Sum
			took = max(took, other.Took)
		}
	}
	p.mu.Unlock()

	lost, tie := minority(sums, len(conf.GetVoters()))
	if len(sums) == len(conf.GetVoters()) && len(lost) == 0 && !tie {
		g.stream.comparing.mu.Lock()
		g.stream.comparing.took, g.stream.comparing.equal = took, m.Index
		g.stream.comparing.mu.Unlock()
	}
	if tie {
		p.stopAll(g, m.Index, sums)
	}
	for _, id := range lost {
		p.tell(g.server(id), &compareReport{
			Group: m.Group, Member: id, Index: m.Index, Sum: sums[id], Lost: true,
			Why: fmt.Sprintf("what it holds at log entry %d is not what a majority of the replicas hold", m.Index),
		})
	}
}

// minority tells which members differ from a majority of the voters, and whether there can be none although
// all have been heard.
func minority(sums map[uint64]string, voters int) (lost []uint64, tie bool) {
	count := make(map[string]int)
	for _, sum := range sums { // order: a count
		count[sum]++
	}
	for right, n := range count { // order: at most one is a majority
		if n <= voters/2 {
			continue
		}
		for id, sum := range sums { // order: sorted below
			if sum != right {
				lost = append(lost, id)
			}
		}
		slices.Sort(lost)
		return lost, false
	}
	return nil, len(sums) == voters && len(count) > 1
}

// stopAll stops a stream of which nobody can tell what it holds.
func (p *comparer) stopAll(g *group, index uint64, sums map[uint64]string) {
	var who, ids []string
	var members []uint64
	for id := range sums { // order: sorted below
		members = append(members, id)
	}
	slices.Sort(members)
	for _, id := range members {
		who = append(who, fmt.Sprintf("%q has %.12s", p.c.PeerName(g.server(id)), sums[id]))
		ids = append(ids, sums[id])
	}
	why := fmt.Sprintf("the replicas of %s differ at log entry %d, and no majority of them agrees: %s. It is stopped on all servers, since nobody can tell which is right: compare them with \"cleat inspect engine\", remove the stream's replica from the servers that are wrong, and restart all of them",
		g.name(), index, strings.Join(who, ", "))
	p.c.opts.Logger.Error(why)
	self := uint64(0)
	for i, id := range members {
		if g.server(id) == p.c.id.server {
			self = id // Last: who leads tells the others first.
			continue
		}
		p.tell(g.server(id), &compareReport{Group: uint64(g.id), Member: id, Index: index, Sum: ids[i], Why: why})
	}
	if self != 0 {
		p.tell(p.c.id.server, &compareReport{Group: uint64(g.id), Member: self, Index: index, Sum: sums[self], Why: why})
	}
}

// obey stops the local replica if the verdict is about what it told.
func (p *comparer) obey(g *group, from uint64, m *compareReport) {
	r := g.rep.Load()
	p.mu.Lock()
	mine := p.mine[g.id]
	p.mu.Unlock()
	if r == nil || r.ID() != m.Member || mine.Member != m.Member || mine.Index != m.Index || mine.Sum != m.Sum || g.leader() != from {
		return
	}
	err := errors.New(m.Why)
	if m.Lost {
		err = fmt.Errorf("%w: %s", replica.ErrLost, m.Why)
	}
	g.shard.Call(func() { r.Fail(err) })
}
