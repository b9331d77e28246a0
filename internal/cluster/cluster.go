package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Outcomes other than a result. See package replica.
var (
	ErrUnavailable = replica.ErrUnavailable
	ErrUnknown     = replica.ErrUnknown
	ErrOverloaded  = replica.ErrOverloaded

	// ErrNoSpace is definite too: the disk of the leader has no room for more messages, or its streams hold all
	// they may hold.
	ErrNoSpace = errors.New("cluster: no space left for more messages")
)

// Waiter hears the outcome of one command; see replica.Waiter.
type Waiter = replica.Waiter

// WaiterFunc is a Waiter made of a function.
type WaiterFunc func(result any, err error)

// Done calls the function.
func (f WaiterFunc) Done(result any, err error) { f(result, err) }

// Hooks are told what happens to streams. None may block.
type Hooks interface {
	// StreamStarted, StreamUpdated and StreamStopped follow the meta group's decisions, in
	// order for each stream. They run on the goroutine that reconciles.
	StreamStarted(*Stream)
	StreamUpdated(*Stream)
	StreamStopped(*Stream)

	// LeaderChanged and Applied run on the goroutine that owns the stream's replica: the
	// replica began or ceased to lead; something was applied.
	LeaderChanged(*Stream)
	Applied(*Stream)

	// TurnEnd comes after a batch of waiters was answered: flush what they wrote.
	TurnEnd()
}

// Options say where a server keeps its data and who it is.
type Options struct {
	FS     vfs.FS
	Dir    string // data of this server and of no other
	Name   string // server name
	Route  *Route // nil: a single server
	Hooks  Hooks
	Logger *slog.Logger

	// MessagesOnly makes a server without streams: see startMessages. It needs a Route, and neither
	// FS nor Dir nor Hooks.
	MessagesOnly bool

	// ReplaceAfter is how long a server may be out of reach before its replicas are made anew on others;
	// 0: for ever.
	ReplaceAfter time.Duration

	// TransferRate bounds the bytes a second of replicas' states that are sent to other servers, and those
	// that are received; 0: no bound.
	TransferRate int64

	// Allowance is how many bytes the streams of either storage may hold on this server, below 0: as many as there
	// is room for. It may change. nil: no limit.
	Allowance func() (memory, file int64)

	// CompareEvery is how often the replicas of a stream are compared; 0: every ten minutes, below 0: never.
	CompareEvery time.Duration

	balanceAfter time.Duration // see balance; of tests
	stuckAfter   time.Duration // see reform.go; 0: stuckAfter
	mendEvery    time.Duration // see mend.go; 0: mendEvery

	// OnFatal is called once if the server must stop because its log can no longer be
	// trusted. It must not block.
	OnFatal func(error)
}

// Cluster is the set of replicas on this server.
type Cluster struct {
	opts   Options
	id     identity
	idMu   sync.Mutex // over id.cluster, id.member and id.founder, which change once
	lock   io.Closer
	log    *wal.Log
	shards []*replica.Shard // shards[0] is the meta group's alone
	stores map[storeKind]storage.Store

	transport *peer.Transport
	peers     *peers
	forward   *forwarder
	healer    healer // the plan loop's
	founding  *founding
	snapshots *snapshots
	comparer  *comparer

	metaMachine atomic.Pointer[meta.Machine]
	metaEngine  storage.Engine
	metaGroup   *group
	newcomers   newcomers

	mu      sync.RWMutex
	streams map[meta.Key]*Stream
	byGroup map[wal.GroupID]*group
	issued  atomic.Uint64    // the last id that was issued before this server was started; 0: not known yet
	wasLost map[string]error // replicas quarantined in an earlier life, by name of their engine

	tied      map[string]error   // replicas that differ, and nobody knows which are right; by name of their engine
	suspects  map[string]bool    // of those, the ones that could be mended; the reconciler's
	mends     chan *mendFrame    // answers, see mend.go
	wasFrozen map[string]*frozen // replicas that froze themselves in an earlier life, by name; the reconciler's
	wasBlind  map[string]error   // replicas that had lost their state in an earlier life, by name; the reconciler's
	states    chan *arrivedState
	rebuilt   chan *rebuiltState

	waiting map[meta.Key][]*readyWait // for a stream to serve a revision, or to be gone

	formed chan struct{} // closed when this server belongs to a cluster
	kick   chan struct{} // wakes the reconciler
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fatal  atomic.Pointer[error]

	heldCommands atomic.Int64 // of all groups
	timed        timed
	plansChanged atomic.Bool // a stream was given a plan, or has lost its replica; for the plan loop

	disk      disk
	allowance allowance

	closed   sync.Once
	closeErr error
}

// shardCount leaves a processor to connections. More than 16 shards would wait for the one log.
func shardCount() int { return min(max(runtime.GOMAXPROCS(0)-1, 1), 16) }

// New prepares a cluster. Nothing is opened before Start, so that others may register with Handle,
// Tell and WatchPeers.
func New(o Options) *Cluster {
	c := &Cluster{
		opts: o, kick: make(chan struct{}, 1), formed: make(chan struct{}),
		streams: make(map[meta.Key]*Stream), byGroup: make(map[wal.GroupID]*group), waiting: make(map[meta.Key][]*readyWait),
		peers: newPeers(), mends: make(chan *mendFrame, mendsMax),
		states: make(chan *arrivedState, statesMax), rebuilt: make(chan *rebuiltState),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.forward, c.founding, c.snapshots = newForwarder(c), newFounding(c), newSnapshots(c)
	c.comparer = newComparer(c)
	c.opts.CompareEvery = cmp.Or(o.CompareEvery, compareEvery)
	c.disk.init()
	c.allowance.init()
	return c
}

// Start opens what is below the directory and starts it. A server that is to found a cluster or to
// join one returns from Start before it belongs to it; Formed tells when.
func (c *Cluster) Start() error {
	if err := c.start(); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

func (c *Cluster) start() (err error) {
	o := c.opts
	if o.MessagesOnly {
		return c.startMessages()
	}
	if c.lock, err = lockDir(o.FS, o.Dir); err != nil {
		return err
	}
	if c.id, err = loadIdentity(o.FS, o.Dir); err != nil {
		return err
	}
	if err = c.checkRecovered(); err != nil {
		return err
	}
	if err = c.founding.load(); err != nil {
		return err
	}
	if err = c.snapshots.transfers.Prepare(); err != nil {
		return err
	}
	if o.Route == nil {
		return c.startSingle()
	}
	if err = c.listen(); err != nil {
		return err
	}
	if !c.id.blank() {
		err := c.open(nil)
		if !isLoss(err) || c.stores == nil {
			return err
		}
		c.wg.Go(func() { c.rejoin(err) })
		return nil
	}
	c.wg.Go(c.found)
	return nil
}

// startSingle opens a server without peers. Blank, it founds a cluster of its own.
func (c *Cluster) startSingle() error {
	if !c.id.blank() {
		return c.open(nil)
	}
	// The cluster has the server's number, which is durable. With one that is drawn now, a start that
	// fails or loses power on the way would leave a log that the next start takes for a stranger's.
	id := c.id
	id.cluster, id.member, id.founder = id.server, 1, true
	self := c.self()
	self.Member = id.member
	return c.become(id, []meta.Server{self})
}

// found waits until this server belongs to a cluster, and opens it.
func (c *Cluster) found() {
	id, first, err := c.founding.run()
	if err == nil {
		err = c.become(id, first)
	}
	if err != nil && c.ctx.Err() == nil {
		c.onFatal(err)
	}
}

// become makes this server a member, durably, and opens what members have.
func (c *Cluster) become(id identity, first []meta.Server) error {
	if err := c.open(&newcomer{id, first}); err != nil {
		return err
	}
	c.opts.Logger.Debug(fmt.Sprintf("member %d of cluster %016x", id.member, id.cluster))
	return nil
}

// newcomer is what a blank server has become.
type newcomer struct {
	id    identity
	first []meta.Server // of a founder
}

// open opens log, stores and the meta group, and starts everything.
func (c *Cluster) open(n *newcomer) (err error) {
	id := c.identity()
	if n != nil {
		id = n.id
	}
	o := c.opts
	if err = c.openFiles(id); err != nil {
		return err
	}
	if err = c.disk.reserve.open(o.FS, o.Dir, time.Now()); err != nil {
		return err
	}
	for range 1 + shardCount() {
		c.shards = append(c.shards, replica.NewShard(env{c}, c.log, o.Logger))
	}
	var first []meta.Server
	if n != nil {
		first = n.first
	}
	if err = c.openMeta(id, first); err != nil {
		return err
	}
	if n != nil {
		// Last: until now a crash finds a blank server, which does all this again.
		if err = id.save(o.FS, o.Dir); err != nil {
			return err
		}
		c.idMu.Lock()
		c.id.cluster, c.id.member, c.id.founder = id.cluster, id.member, id.founder
		c.idMu.Unlock()
	}
	c.run()
	return nil
}

// openFiles opens the log and the stores, and reads what is quarantined.
func (c *Cluster) openFiles(id identity) (err error) {
	o := c.opts
	c.log, err = wal.Open(wal.Options{
		FS: o.FS, Dir: filepath.Join(o.Dir, walDir), ServerID: id.server, ClusterID: id.cluster, OnError: c.diskFailed,
	})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	for _, f := range c.log.Findings() {
		o.Logger.Warn("log: " + f.String())
	}
	if c.stores, err = openStores(o.FS, o.Dir, c.warn); err != nil {
		return err
	}
	return c.loadLost()
}

// run starts everything that works on what was opened.
func (c *Cluster) run() {
	for _, s := range c.shards {
		c.wg.Go(func() { s.Run(c.ctx) })
	}
	c.wg.Go(c.reconcileLoop)
	c.wg.Go(c.maintainLoop)
	c.wg.Go(c.tickLoop)
	c.wg.Go(c.learnIssued)
	if c.Clustered() {
		c.wg.Go(c.comparer.run)
		c.wg.Go(c.planLoop)
		c.wg.Go(c.beatLoop)
	}
	c.wakeReconciler()
	close(c.formed)
}

// openMeta opens the meta group's machine and member, or fails with one of its losses (see lost.go).
func (c *Cluster) openMeta(id identity, first []meta.Server) (err error) {
	const gid = wal.GroupID(meta.MetaGroup)
	if err := cmp.Or(c.wasLost[metaMark], c.tied[metaMark]); err != nil {
		return err
	}
	defer func() {
		if err != nil && c.metaEngine != nil {
			err = errors.Join(err, c.metaEngine.Close())
			c.metaEngine = nil
		}
	}()
	if c.metaEngine, err = c.stores[storeMeta].Open("meta", storage.Options{}); err != nil {
		return fmt.Errorf("open the meta group: %w", err)
	}
	first, begin := c.metaBegin(id, first)
	if err := c.beginLog(gid, c.metaEngine, begin, "the meta group"); err != nil {
		return err
	}
	m, err := meta.New(c.metaEngine, begin, first)
	if err != nil {
		return err
	}
	c.metaGroup = newGroup(c, gid, c.shards[0], nil)
	r, err := c.shards[0].Open(replica.Config{
		Group: gid, ID: id.member, Name: "meta", Log: c.log, Machine: m,
		Incarnation: rand.Uint64(), Logger: c.opts.Logger, Owner: c.metaGroup, Again: c.metaGroup.again,
		Home:  c.metaGroup.server,
		First: id.founder && id.member == 1,
	})
	if err != nil {
		return err
	}
	c.metaGroup.rep.Store(r)
	c.mu.Lock()
	c.byGroup[gid] = c.metaGroup
	c.mu.Unlock()
	c.metaMachine.Store(m)
	return nil
}

// metaBegin says with which servers and where the meta group begins; for a member that joins, nowhere.
func (c *Cluster) metaBegin(id identity, first []meta.Server) ([]meta.Server, replica.Entry) {
	if !id.founder {
		return nil, replica.Entry{}
	}
	if first == nil {
		first = c.founders(id)
	}
	members := make([]uint64, len(first))
	for i, s := range first {
		members[i] = s.Member
	}
	return first, genesisEntry(members)
}

// founders are the first servers, as they were when this server founded the cluster. They are needed
// again for as long as the meta group has no checkpoint.
func (c *Cluster) founders(id identity) []meta.Server {
	if f := c.founding.accepted; f != nil && f.Cluster == id.cluster {
		return f.Servers
	}
	self := c.self()
	self.Member = id.member
	return []meta.Server{self}
}

// genesisEntry is the position at which a group with these first members begins.
func genesisEntry(members []uint64) replica.Entry {
	return replica.Entry{
		Index: replica.GenesisIndex, Term: replica.GenesisTerm,
		Conf: replica.EncodeConf(&pb.ConfState{Voters: members}),
	}
}

// beginLog gives a group that has no log here one: from the genesis on for a first member, an empty
// one for a member that waits for a snapshot.
func (c *Cluster) beginLog(g wal.GroupID, e storage.Engine, begin replica.Entry, what string) error {
	st, ok := c.log.State(g)
	switch {
	case ok:
		return nil // Damage, if there is any, is the replica's to refuse.
	case st.Damage != nil:
		// The log may have held the group. To begin anew would be to forget what was voted for.
		return fmt.Errorf("%s cannot begin a log: %w", what, st.Damage)
	}
	if at := e.Applied(); at.Index > begin.Index {
		return fmt.Errorf("%w: %s has data (up to log entry %d) but no log: files in %s are missing", replica.ErrLost, what, at.Index, filepath.Join(c.opts.Dir, walDir))
	}
	u := replica.Genesis(g)
	if begin.Index == 0 {
		u = replica.Joining(g)
	}
	c.log.Submit([]wal.Update{u}, func(error) {})
	return nil
}

// Formed is closed when this server belongs to a cluster and has opened its part.
func (c *Cluster) Formed() <-chan struct{} { return c.formed }

// Done is closed when the cluster is being closed.
func (c *Cluster) Done() <-chan struct{} { return c.ctx.Done() }

// Close stops everything. Whoever waits for an outcome is answered first; then all state is made
// durable, so that the next start has little to replay.
func (c *Cluster) Close() error {
	c.closed.Do(func() { c.closeErr = c.close() })
	return c.closeErr
}

func (c *Cluster) close() error {
	c.cancel()
	var errs []error
	if c.transport != nil {
		errs = append(errs, c.transport.Close())
	}
	c.wg.Wait()
	c.comparer.drain()
	for _, g := range c.groups() {
		g.held.close()
	}
	c.forward.finish(func(*forwarded) bool { return true })
	if c.fatal.Load() == nil && c.metaMachine.Load() != nil {
		c.checkpointAll()
	}
	for _, s := range c.local() {
		errs = append(errs, s.closeEngine(s.local.Load()))
	}
	if c.metaEngine != nil {
		if m := c.metaMachine.Load(); m != nil {
			m.TakeFrozen().Release()
		}
		errs = append(errs, c.metaEngine.Close())
	}
	if c.log != nil {
		errs = append(errs, c.log.Close())
	}
	for _, s := range c.stores { // order: independent closes
		errs = append(errs, s.Close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}

// onFatal is called when this server cannot go on: its log failed, or it cannot become what it is
// meant to be. Nothing is acknowledged from then on; the owner of the cluster stops the process.
func (c *Cluster) onFatal(err error) {
	if c.fatal.CompareAndSwap(nil, &err) && c.opts.OnFatal != nil {
		c.opts.OnFatal(err)
	}
}

// diskFailed stops this server because of an error of the disk below its directory. What was acknowledged
// was synced before, so a start finds it.
func (c *Cluster) diskFailed(err error) {
	c.onFatal(fmt.Errorf("%w: the disk of %s can not be trusted any more; nothing acknowledged is lost: check the disk, then start the server again", err, c.opts.Dir))
}

func (c *Cluster) identity() identity {
	c.idMu.Lock()
	defer c.idMu.Unlock()
	return c.id
}

// Meta gives read access to what the meta group has decided; nil before Formed.
func (c *Cluster) Meta() *meta.Machine { return c.metaMachine.Load() }

// ServerName is the name of this server.
func (c *Cluster) ServerName() string { return c.opts.Name }

// Stream finds a stream that this server knows of, or nil.
func (c *Cluster) Stream(account, name string) *Stream {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.streams[meta.Key{Account: account, Name: name}]; s != nil && !s.gone.Load() {
		return s
	}
	return nil
}

func (c *Cluster) group(id wal.GroupID) *group {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byGroup[id]
}

// groups lists the groups that are known here, in no order.
func (c *Cluster) groups() []*group {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*group, 0, len(c.byGroup))
	for _, g := range c.byGroup { // order: each is handled alone
		all = append(all, g)
	}
	return all
}

// groupOf finds the group that a replica is the local member of.
func (c *Cluster) groupOf(r *replica.Replica) *group {
	g, _ := r.Owner().(*group)
	return g
}

// Healthy tells whether a write would commit now: nil, or why not.
func (c *Cluster) Healthy() error {
	if err := c.MetaHealthy(); err != nil {
		return err
	}
	for _, s := range c.local() {
		if err := s.healthy(); err != nil {
			return fmt.Errorf("stream %s > %s: %w", s.key.Account, s.key.Name, err)
		}
	}
	return nil
}

// env is what the shards need of the world.
type env struct{ c *Cluster }

func (e env) Now() int64 { return time.Now().UnixNano() }

// Applied is called for each replica that executed something in a turn.
func (e env) Applied(r *replica.Replica) {
	g := e.c.groupOf(r)
	g.freeze(r)
	if s := g.stream; s != nil {
		s.applied()
		e.c.opts.Hooks.Applied(s)
		return
	}
	e.c.wakeReconciler()
}

// LeaderChanged is called when a replica begins or ceases to lead, or learns of another leader.
func (e env) LeaderChanged(r *replica.Replica) {
	g := e.c.groupOf(r)
	g.since.set(time.Now())
	g.held.flush()
	if g.stream != nil {
		g.stream.leaderChanged()
		e.c.opts.Hooks.LeaderChanged(g.stream)
	}
}

// TurnEnd sends the answers that were gathered, to other servers and to clients.
func (e env) TurnEnd() {
	e.c.forward.flush()
	if e.c.opts.Hooks != nil { // A server without streams has none, but peers whose frames end turns.
		e.c.opts.Hooks.TurnEnd()
	}
}
