package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/transfer"
	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// A replica whose storage is damaged or gone, and whose log is whole, is blind: it goes on to vote and to append
// under its id (see replica.Config.Blind), and gets the state from another server. So a stream whose log is there
// goes on although most of its replicas have a damaged storage, as long as one has a good one.
//
//	mark, durably -> close it, put the storage aside -> open it blind -> ask one member after another
//	-> a state has come: into a new storage -> remove the mark -> open it with that
//
// As long as there is the mark, whatever lies in the storage's place is not used: a crash makes it ask again.
const (
	blindMarking = ".blind"
	stateSign    = 5 * time.Second // after so long without a sign from the member that was asked another one is
	blindFor     = 3 * time.Second // so long after it last asked, a member counts as blind
	statesMax    = 16              // states that have come and wait for the reconciler
)

// blindness is of one replica of this server. The reconciler's, but for id and cause.
type blindness struct {
	id    uint64
	cause error

	aside      bool // the storage is out of the way
	rebuilding bool // a state is being put into a new one
	asked      int  // how many members were asked
	from       uint64
	sign       time.Time // when that one was asked first, or said that it is sending
	grumbled   bool      // that there is nobody to ask was said
}

// arrivedState is a state for a blind replica, rebuiltState what has become of it.
type arrivedState struct {
	s  *Stream
	r  *replica.Replica
	at *pb.SnapshotMetadata
	a  *transfer.Arrival
}

type rebuiltState struct {
	s   *Stream
	b   *blindness
	l   *local
	err error
}

// staysVoter tells whether all that a replica lost is its state. What is kept in memory is founded anew when too much
// of it is gone, so that is replaced.
func (c *Cluster) staysVoter(s *Stream, err error) bool {
	var log *wal.DamageError
	var engine *storage.CorruptError
	st, ok := c.log.State(s.id)
	return ok && st.Damage == nil && storeOf(s.Config()) != storeMemory &&
		!errors.Is(err, replica.ErrLost) && !errors.As(err, &log) &&
		(errors.Is(err, replica.ErrStateLost) || errors.As(err, &engine))
}

// goBlind marks that the state of a replica must not be used any more. The reconciler does the rest.
func (c *Cluster) goBlind(s *Stream, id uint64, cause error) {
	if b := s.blind.Load(); b != nil && b.id == id {
		return
	}
	if err := c.mark(engineName(s.id, id)+blindMarking, cause); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: mark that the state of its replica is lost: %v", s.key.Account, s.key.Name, err))
		return // It is found again.
	}
	s.blind.Store(&blindness{id: id, cause: cause})
	c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: the state of replica %d of this server is lost, its log is whole: it goes on to vote, and gets the state from another server: %v",
		s.key.Account, s.key.Name, id, cause))
}

// tendBlind takes what step a blind replica needs next. The reconciler calls it now and then.
func (c *Cluster) tendBlind(s *Stream, b *blindness) {
	if s.local.Load() != nil {
		c.closeSighted(s)
	}
	if !b.aside && !c.clearStorage(s, b) {
		return
	}
	if c.startsOver(s, b) {
		return
	}
	r := s.rep.Load()
	var err error
	if r == nil {
		err = c.openBlind(s, b)
		r = s.rep.Load()
	} else {
		err = r.Status().Stopped
	}
	switch {
	case err != nil && isLoss(err):
		c.loseBlind(s, b, err)
		return
	case err != nil:
		return // This server ends, or cannot write its log any more.
	}
	if c.tight() {
		s.shard.Call(r.GiveUpKept)
	}
	s.shard.Call(r.Compact)
	if !b.rebuilding {
		c.askForState(s, b, r)
	}
}

// closeSighted lets go of a replica that ran until its storage was found damaged.
func (c *Cluster) closeSighted(s *Stream) {
	l := s.local.Load()
	s.closeReplica()
	s.local.Store(nil) // Whoever reads from it lets go before it is closed.
	c.opts.Hooks.StreamUpdated(s)
	if err := s.closeEngine(l); err != nil {
		c.opts.Logger.Debug(fmt.Sprintf("stream %s > %s: close its damaged storage: %v", s.key.Account, s.key.Name, err))
	}
}

// closeReplica stops the local replica and waits until what it had written is durable: it may be opened again.
func (s *Stream) closeReplica() {
	r := s.rep.Load()
	if r == nil {
		return
	}
	closed := make(chan struct{})
	s.shard.Call(func() {
		s.shard.Close(r)
		s.c.log.Submit(nil, func(error) { close(closed) })
	})
	<-closed
	s.rep.Store(nil)
}

// clearStorage moves the storage of a blind replica aside. What a rebuilding left that came to no end goes.
func (c *Cluster) clearStorage(s *Stream, b *blindness) bool {
	l := &local{id: b.id, kind: storeOf(s.Config()), name: engineName(s.id, b.id)}
	_, err := c.opts.FS.Stat(filepath.Join(c.opts.Dir, damagedDir, l.name))
	if errors.Is(err, fs.ErrNotExist) {
		err = c.keepAside(l)
	}
	if err == nil {
		err = c.dropStorage(l)
	}
	if err != nil {
		c.grumble(s, b, fmt.Errorf("make room for another state: %w", err))
		return false
	}
	b.aside = true
	return true
}

func (c *Cluster) dropStorage(l *local) error {
	store, err := c.store(l.kind)
	if err != nil {
		return err
	}
	return store.Drop(l.name)
}

// grumble says once what keeps a blind replica from its state; it is tried again.
func (c *Cluster) grumble(s *Stream, b *blindness, err error) {
	if !b.grumbled {
		b.grumbled = true
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: replica %d of this server has no state yet: %v. It is tried again", s.key.Account, s.key.Name, b.id, err))
	}
}

// startsOver opens a replica whose log reaches back to the beginning of the group: that is all it needs.
func (c *Cluster) startsOver(s *Stream, b *blindness) bool {
	st, ok := c.log.State(s.id)
	if !ok || st.Damage != nil || !s.Assignment().Founded(b.id) || st.First > replica.GenesisIndex+1 || b.rebuilding {
		return false
	}
	s.closeReplica()
	if err := c.unmarkBlind(s, b); err != nil {
		c.grumble(s, b, err)
		return false
	}
	err := c.openLocal(s)
	if err == nil {
		err = c.openReplica(s)
	}
	if err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: %v", s.key.Account, s.key.Name, err))
		return true
	}
	c.opts.Hooks.StreamUpdated(s)
	c.opts.Logger.Info(fmt.Sprintf("stream %s > %s: replica %d of this server makes its state again from its log, which has all", s.key.Account, s.key.Name, b.id))
	return true
}

// unmarkBlind ends the blindness: from here on what is in the storage counts.
func (c *Cluster) unmarkBlind(s *Stream, b *blindness) error {
	dir, name := filepath.Join(c.opts.Dir, damagedDir), engineName(s.id, b.id)
	if err := errors.Join(removeFile(c.opts.FS, filepath.Join(dir, name+blindMarking)), syncDir(c.opts.FS, dir)); err != nil {
		return err
	}
	delete(c.wasBlind, name)
	s.blind.Store(nil)
	return nil
}

// openBlind starts the member without its state.
func (c *Cluster) openBlind(s *Stream, b *blindness) error {
	err := s.start(replica.Config{ID: b.id, Blind: true})
	s.refuse(err)
	return err
}

// loseBlind gives a blind replica up: its log is not whole either. It is replaced then.
func (c *Cluster) loseBlind(s *Stream, b *blindness, err error) {
	s.closeReplica()
	c.lose(s, b.id, fmt.Errorf("%w: its log: %v; its state: %v", replica.ErrLost, err, b.cause)) // Nothing to mend a log with.
	s.blind.CompareAndSwap(b, nil)
}

// dropBlind removes a blind replica that is not to be any more.
func (c *Cluster) dropBlind(s *Stream, b *blindness) {
	s.closeReplica()
	c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
	err := c.unmarkBlind(s, b)
	if !b.rebuilding { // Else it goes when that has ended.
		err = errors.Join(err, c.dropStorage(&local{kind: storeOf(s.Config()), name: engineName(s.id, b.id)}))
	}
	c.report(s.name(), err)
}

// askForState tells all members that this one is blind, and asks one of them for the state.
func (c *Cluster) askForState(s *Stream, b *blindness, r *replica.Replica) {
	if time.Since(b.sign) > stateSign {
		b.from = 0
		if may := s.withState(); len(may) > 0 {
			b.from, b.sign = may[b.asked%len(may)], time.Now()
			if lead := s.leader(); b.asked == 0 && slices.Contains(may, lead) {
				b.from = lead // It has the newest.
			}
			b.asked++
			s.shard.Call(func() {
				r.GiveUpKept()
				r.KeepLog(r.ID())
			})
		}
	}
	for _, m := range s.members() {
		if m.Server != c.id.server {
			c.sendMend(m.Server, &mendFrame{Group: uint64(s.id), Member: b.id, Blind: true, State: m.Server == b.from})
		}
	}
}

// withState lists the servers that may have a state of the stream and can be reached.
func (s *Stream) withState() (all []uint64) {
	for _, m := range s.members() {
		if m.Server != s.c.id.server && s.c.reachable(m.Server) && !s.blinds.has(m.ID) {
			all = append(all, m.Server)
		}
	}
	return all
}

// sendState begins to send the state of the replica here to a blind one, and tells whether that is under way. Any
// state will do that is good.
func (c *Cluster) sendState(g *group, r *replica.Replica, to, member uint64) bool {
	st := r.Status()
	if r.Blind() || st.Stopped != nil || st.Applied < replica.GenesisIndex {
		return false
	}
	id := r.ID()
	m := &pb.Message{Type: pb.MsgSnap.Enum(), From: &id, To: &member, Term: &st.Term}
	wanted := func() error {
		if stopped := r.Status().Stopped; stopped != nil {
			return fmt.Errorf("the replica stopped: %w", stopped)
		}
		return nil
	}
	err := c.snapshots.begin(g, r, to, m, wanted, func(error) {})
	return err == nil || errors.Is(err, errStateUnderWay)
}

// takeState hands a whole state for a blind replica to the reconciler.
func (c *Cluster) takeState(s *Stream, r *replica.Replica, at *pb.SnapshotMetadata, a *transfer.Arrival) {
	select {
	case c.states <- &arrivedState{s: s, r: r, at: at, a: a}:
	default:
		a.Done(errors.New("too many states wait on this server"))
	}
}

// rebuild puts a state into a new storage, in the background. The reconciler calls it.
func (c *Cluster) rebuild(x *arrivedState) {
	s, b := x.s, x.s.blind.Load()
	if b == nil || b.id != x.r.ID() || s.gone.Load() || b.rebuilding || !b.aside {
		x.a.Done(errors.New("it is not wanted any more"))
		return
	}
	store, err := c.store(storeOf(s.Config()))
	if err == nil {
		err = replica.Fits(c.log, s.id, replica.Entry{Index: x.at.GetIndex(), Term: x.at.GetTerm()})
	}
	if err != nil {
		x.a.Done(err)
		b.sign = time.Time{} // Somebody else may have a better one.
		return
	}
	b.rebuilding = true
	l := &local{id: b.id, kind: storeOf(s.Config()), name: engineName(s.id, b.id)}
	c.wg.Go(func() {
		err := c.fill(s, l, store, x.a.Path)
		x.a.Done(err)
		select {
		case c.rebuilt <- &rebuiltState{s: s, b: b, l: l, err: err}:
		case <-c.ctx.Done():
			if l.engine != nil {
				c.report(s.name(), l.engine.Close())
			}
		}
	})
}

// fill makes a storage of a state, durably.
func (c *Cluster) fill(s *Stream, l *local, store storage.Store, path string) error {
	err := store.Drop(l.name)
	if err != nil {
		return err
	}
	if l.engine, err = store.Open(l.name, engineOptions(s.Config())); err != nil {
		return err
	}
	if l.machine, err = stream.Open(l.engine, replica.Entry{}); err != nil {
		return err
	}
	f, err := c.opts.FS.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.machine.InstallSnapshot(f)
}

// regain opens a replica that was blind with the state that it has now. The reconciler calls it.
func (c *Cluster) regain(x *rebuiltState) {
	s, b, err := x.s, x.b, x.err
	if s.blind.Load() == b {
		b.rebuilding = false
		if err == nil {
			s.closeReplica() // So that its log stays as it is.
			err = replica.Fits(c.log, s.id, x.l.machine.Applied())
		}
		if err == nil {
			err = c.unmarkBlind(s, b)
		}
		if err == nil {
			s.local.Store(x.l)
			c.opened(s, b)
			return
		}
		b.sign, b.grumbled = time.Time{}, false
		c.grumble(s, b, err)
	}
	if x.l.engine != nil {
		err = x.l.engine.Close()
	}
	c.report(s.name(), errors.Join(err, c.dropStorage(x.l)))
}

func (c *Cluster) opened(s *Stream, b *blindness) {
	at := s.local.Load().machine.Applied()
	if err := c.openReplica(s); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: %v", s.key.Account, s.key.Name, err))
		return
	}
	c.opts.Hooks.StreamUpdated(s)
	c.checkKey(s.key)
	c.opts.Logger.Info(fmt.Sprintf("stream %s > %s: replica %d of this server has a state again, of log entry %d, and goes on from there", s.key.Account, s.key.Name, b.id, at.Index))
}
