package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
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
// right, and the group stops (see tie.go). The meta group is compared as streams are.
//
//	leader: Compare in the log -> all: freeze, digest -> report -> leader: judge -> verdict
const (
	compareEvery = 10 * time.Minute
	compareShare = 20 // a digest may take at most this part of the time
	compareQueue = 8  // states held on to that wait for their digest
	compareStale = time.Minute
	comparePause = 3 // for so many times what it worked, a digest rests
)

// comparer makes the digests of this server's replicas, one after another, and judges those of the groups
// that it leads.
type comparer struct {
	c    *Cluster
	jobs chan *comparison

	trusted atomic.Bool // somebody has chosen what this server holds of the meta group, see tie.go

	mu      sync.Mutex
	mine    map[wal.GroupID]compareReport // what this server told last
	reports map[wal.GroupID]map[uint64]compareReport
}

// comparison is a state whose digest is to be made.
type comparison struct {
	g      *group
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
	Chosen bool          `json:"chosen,omitempty"` // somebody has chosen this one to be right, see tie.go

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

// comparing is when a group's replicas are compared; the plan loop's, but for took and equal.
type comparing struct {
	next    time.Time
	claimed time.Time // when the lead was last asked for

	mu    sync.Mutex
	took  time.Duration // the longest digest of the last comparison
	equal uint64        // log entry at which all were found equal
}

// compare has the replicas of a group compared where this server leads it, if it is time. Of one that
// has not changed since they were found equal, nothing is read again: Scrub does that.
func (g *group) compare(now time.Time) {
	every, r := g.c.opts.CompareEvery, g.rep.Load()
	if r != nil && g.c.comparer.trusts(g) {
		every = g.claim(r)
	}
	if every <= 0 || r == nil || !r.Status().Leading || !g.settled() {
		g.comparing.next = time.Time{}
		return
	}
	g.comparing.mu.Lock()
	took, equal := g.comparing.took, g.comparing.equal
	g.comparing.mu.Unlock()
	switch {
	case g.comparing.next.IsZero():
		g.comparing.next = now.Add(g.c.compareOffset(g.id, every)) // Not all groups of a server at once.
		return
	case now.Before(g.comparing.next):
		return
	}
	g.comparing.next = now.Add(max(every, compareShare*took))
	if r.Status().Applied == equal || !g.allCompare() {
		return
	}
	command := meta.Encode(meta.KindCompare, &meta.Compare{})
	if g.stream != nil {
		command = stream.EncodeCompare()
	}
	_ = r.Propose(command, WaiterFunc(func(any, error) {})) // The next time will do.
}

// settled tells whether a group has several replicas, and is to keep them.
func (g *group) settled() bool {
	if g.stream == nil {
		return len(g.seats()) > 1
	}
	a := g.stream.Assignment()
	return a.Plan == nil && !g.stream.gone.Load() && len(a.Replicas) > 1
}

// compareOffset spreads the first comparisons of streams.
func (c *Cluster) compareOffset(g wal.GroupID, every time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprint(h, g)
	return every/2 + time.Duration(h.Sum32())%(every/2+1)
}

// allCompare tells whether the servers of all members can be reached, and know the command.
func (g *group) allCompare() bool {
	p := g.c.peers
	seats := g.seats()
	p.mu.Lock()
	defer p.mu.Unlock()
	return !slices.ContainsFunc(seats, func(m meta.Replica) bool {
		greeted := p.extra[m.Server]
		knows := greeted.Compares
		if g.stream == nil {
			knows = greeted.MetaFormat == meta.Format
		}
		return m.Server != g.c.id.server && !(knows && p.up[m.Server])
	})
}

// freeze queues the state that a Compare command made the local machine hold on to. It runs on the
// replica's owner.
func (g *group) freeze(r *replica.Replica) {
	m, ok := r.Machine().(interface{ TakeFrozen() storage.Held })
	if !ok {
		return // It is blind.
	}
	f := m.TakeFrozen()
	if f.Frozen == nil {
		return
	}
	job := &comparison{g: g, member: r.ID(), frozen: f.Frozen}
	if g.c.ctx.Err() == nil && time.Since(time.Unix(0, f.Stamp)) < compareStale { // Else it comes from the log of an earlier life.
		select {
		case g.c.comparer.jobs <- job:
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
	g, began := job.g, time.Now()
	last := began
	d, err := storage.DigestOf(job.frozen, func() error {
		if r := g.rep.Load(); g.stream != nil && g.stream.gone.Load() || r == nil || r.ID() != job.member {
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
			p.c.opts.Logger.Debug(fmt.Sprintf("compare %s: %v", g.name(), err))
		}
		return
	}
	sum := asDigest(d)
	mine := compareReport{Group: uint64(g.id), Member: job.member, Index: sum.Applied, Sum: sum.Sum, Took: time.Since(began), Chosen: p.trusts(g)}
	p.mu.Lock()
	p.mine[g.id] = mine
	p.mu.Unlock()
	p.tell(g.leader(), &mine)
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
	if g == nil {
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

// judge takes a member's report, where the group is led.
func (p *comparer) judge(g *group, m *compareReport) {
	r := g.rep.Load()
	if r == nil || !r.Status().Leading {
		return
	}
	conf := r.Status().Conf
	if len(conf.GetVotersOutgoing()) > 0 {
		return // The next time.
	}
	members := append(slices.Clone(conf.GetVoters()), conf.GetLearners()...)
	sums, took, chosen := p.gather(g, m, members)
	if sums == nil || chosen != 0 && chosen != r.ID() {
		return // Of the past; or that is for the chosen one to judge, which is about to lead.
	}
	lost, tie := minority(sums, conf.GetVoters())
	unlikeWhom := "a majority of the replicas hold"
	if chosen != 0 {
		lost, tie = unlike(sums, chosen, len(members)), false
		unlikeWhom = "the replica holds that was chosen to be right"
	}
	if len(sums) == len(members) && len(lost) == 0 && !tie {
		g.comparing.mu.Lock()
		g.comparing.took, g.comparing.equal = took, m.Index
		g.comparing.mu.Unlock()
		p.served(g)
	}
	if tie {
		p.stopAll(g, m.Index, sums)
	}
	for _, id := range lost {
		p.tell(g.server(id), &compareReport{
			Group: m.Group, Member: id, Index: m.Index, Sum: sums[id], Lost: true,
			Why: fmt.Sprintf("what it holds at log entry %d is not what %s", m.Index, unlikeWhom),
		})
	}
}

// gather puts a report to the others of its log entry, and gives what these members hold there, as far as they
// have told, the longest that it took, and which of them was chosen to be right. A report of the past gives nothing.
func (p *comparer) gather(g *group, m *compareReport, members []uint64) (sums map[uint64]string, took time.Duration, chosen uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.reports[g.id]
	for _, old := range all { // order: all are of one index
		if old.Index > m.Index {
			return nil, 0, 0
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
	sums = make(map[uint64]string)
	for id, other := range all { // order: a map again, and the longest
		if slices.Contains(members, id) {
			sums[id] = other.Sum
			took = max(took, other.Took)
			if other.Chosen {
				chosen = id
			}
		}
	}
	return sums, took, chosen
}

// minority tells which members differ from a majority of the voters, and whether there can be none although
// all voters have been heard. Members that do not vote have no say.
func minority(sums map[uint64]string, voters []uint64) (lost []uint64, tie bool) {
	count, heard := make(map[string]int), 0
	for _, id := range voters {
		if sum, ok := sums[id]; ok {
			count[sum]++
			heard++
		}
	}
	for right, n := range count { // order: at most one is a majority
		if n > len(voters)/2 {
			return others(sums, right), false
		}
	}
	return nil, heard == len(voters) && len(count) > 1
}

// others lists the members that hold something else, in order.
func others(sums map[uint64]string, right string) (ids []uint64) {
	for id, sum := range sums { // order: sorted below
		if sum != right {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
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
	} else {
		p.c.markTied(g, m.Member, err)
	}
	g.shard.Call(func() {
		r.Fail(err)
		if g.stream != nil {
			g.stream.touched.Store(true)
		}
	})
}
