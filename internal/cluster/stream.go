package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// Stream is one stream as seen from this server: what the meta group says of it, and the replica
// here, if there is one.
type Stream struct {
	*group
	key    meta.Key
	assign atomic.Pointer[meta.Stream]
	gone   atomic.Bool

	// Of the local replica; nil without one. They are set once, by the reconciler, before the
	// replica is shown to others.
	local atomic.Pointer[local]

	// maint is held by whoever works on the engine in the background.
	maint sync.Mutex

	configuring atomic.Bool // a change of configuration is on its way through the log
	expiring    atomic.Bool // an expiry command is
	isTimed     atomic.Bool // it is among those that have a deadline
	touched     atomic.Bool // something was done with it since it was last looked after
	unfinished  bool        // there was more to do then; the maintenance loop's
	planning    planner

	lost atomic.Pointer[loss] // the replica of this server that must not be used any more
	told time.Time            // when meta was last told of it; the plan loop's
	led  instant              // when another member was last known to lead without it
	mend *replica.Mend        // of its log; the reconciler's

	asked atomic.Uint64 // the server that Nearest has picked last, not knowing who leads

	blind atomic.Pointer[blindness] // the replica of this server that has its log and not its state

	frozen atomic.Pointer[frozen] // the replica of this server that waits for its group to begin anew
	stuck  stuck
	waits  atomic.Pointer[waiting] // why nobody leads it, if that is not going to change by itself

	refused atomic.Pointer[refusal] // why the local replica was not opened
}

// local is what a server keeps for a replica of a stream.
type local struct {
	id      uint64 // raft id
	engine  storage.Engine
	machine *stream.Stream
	kind    storeKind
	name    string // of the engine
	closed  bool   // under maint
	told    bool   // that it is out of service; under maint
	dirty   int64  // of the engine, when it was last looked after; under maint
}

// refusal is why a local replica could not be opened: it has to be replaced, or somebody has to see to it.
type refusal struct{ err error }

// refuse notes how the attempt to open the local replica ended.
func (s *Stream) refuse(err error) {
	if err == nil {
		s.refused.Store(nil)
	} else {
		s.refused.Store(&refusal{err})
	}
}

// Account and Name tell which stream this is.
func (s *Stream) Account() string { return s.key.Account }

// Name is the stream's name in its account.
func (s *Stream) Name() string { return s.key.Name }

// Assignment is what the meta group says of the stream: configuration, group, replicas. It is not
// to be modified.
func (s *Stream) Assignment() *meta.Stream { return s.assign.Load() }

// Config is the configuration that the meta group has decided; the stream itself may be a moment
// behind.
func (s *Stream) Config() *api.StreamConfig { return &s.assign.Load().Config }

// Machine is the machine of the local replica, or nil if there is none here.
func (s *Stream) Machine() *stream.Stream {
	if l := s.local.Load(); l != nil {
		return l.machine
	}
	return nil
}

// IsLeader tells whether the local replica leads.
func (s *Stream) IsLeader() bool { return s.leads() }

// Leader is the server whose replica leads, as far as is known here; 0 if unknown.
func (s *Stream) Leader() uint64 { return s.leader() }

// LeaderName is the name of that server, or "".
func (s *Stream) LeaderName() string {
	id := s.leader()
	if id == 0 {
		return ""
	}
	return s.c.PeerName(id)
}

// Propose offers a command to the stream's leader, here or on another server, at once or as soon
// as there is one. It copies the command. The waiter is always called, perhaps before Propose
// returns.
func (s *Stream) Propose(command []byte, w Waiter) {
	if s.gone.Load() {
		w.Done(nil, ErrUnavailable)
		return
	}
	s.held.propose(command, w)
}

// ReadIndex calls done(nil) once the local machine shows every write acknowledged before the call.
// Without a local replica it calls done(ErrNoReplica).
func (s *Stream) ReadIndex(done func(error)) {
	r := s.rep.Load()
	if r == nil || r.Blind() {
		done(ErrNoReplica)
		return
	}
	r.ReadIndex(done)
}

// ErrNoReplica says that this server has no replica of the stream to read from.
var ErrNoReplica = errors.New("cluster: no replica of the stream on this server")

// leaderChanged runs on the replica's owner.
func (s *Stream) leaderChanged() {
	s.touched.Store(true)
	s.c.timed.note(s)
	s.configure()
	s.c.checkReady(s)
}

// applied runs on the replica's owner.
func (s *Stream) applied() {
	if !s.touched.Load() { // So that processors need not pass it on with each write.
		s.touched.Store(true)
	}
	s.c.timed.note(s)
	s.c.checkReady(s)
}

// configure proposes the configuration that the meta group has decided, if the stream has an older
// one and leads here. It is called whenever one of the two may have become true.
func (s *Stream) configure() {
	a, m, r := s.assign.Load(), s.Machine(), s.rep.Load()
	if s.gone.Load() || m == nil || r == nil || !r.Status().Leading || m.ConfigRevision() >= a.Revision {
		return
	}
	if !s.configuring.CompareAndSwap(false, true) {
		return
	}
	command := stream.EncodeConfigure(&stream.Configure{Config: a.Config, Revision: a.Revision, Created: a.Created})
	err := r.Propose(command, WaiterFunc(func(result any, err error) {
		s.configuring.Store(false)
		if err != nil && !errors.Is(err, replica.ErrStopped) {
			s.c.opts.Logger.Warn(fmt.Sprintf("configure stream %s > %s: %v; trying again", s.key.Account, s.key.Name, err))
		}
		// A still newer revision may have come meanwhile; failures are repeated by the
		// maintenance loop.
		if err == nil {
			s.configure()
		}
	}))
	if err != nil {
		s.configuring.Store(false)
	}
}

// serves tells whether the stream works under the given revision or a later one, as far as can be
// seen from here. Without a replica here, a known leader has to do.
func (s *Stream) serves(revision uint64) bool {
	if s.Assignment().Revision < revision {
		return false
	}
	m := s.Machine()
	if m == nil {
		return s.hasNoReplica() || s.refused.Load() != nil || s.blind.Load() != nil || s.frozen.Load() != nil
	}
	return s.leader() != 0 && m.ConfigRevision() >= revision
}

// hasNoReplica tells whether this server is not meant to have a replica.
func (s *Stream) hasNoReplica() bool {
	_, ok := s.Assignment().On(s.c.id.server)
	return !ok
}

func (s *Stream) healthy() error {
	if s.hasNoReplica() {
		return nil
	}
	if w := s.waits.Load(); w != nil {
		return errors.New(w.text)
	}
	if lost := s.lost.Load(); lost != nil {
		return fmt.Errorf("its replica here is lost, and being replaced: %w", lost.cause)
	}
	if f := s.frozen.Load(); f != nil {
		return errors.New("its replica here is frozen: the group is to begin anew from the best of those that are left")
	}
	if b := s.blind.Load(); b != nil {
		return fmt.Errorf("the state of its replica here is lost; it votes, keeps the log, and gets the state from another server: %w", b.cause)
	}
	if refused := s.refused.Load(); refused != nil {
		return refused.err
	}
	r := s.rep.Load()
	if r == nil {
		return errors.New("not started yet")
	}
	switch st := r.Status(); {
	case st.Stopped != nil:
		return st.Stopped
	case st.Leader == 0:
		return errors.New("no leader")
	case st.CutOff && st.Leading:
		return errors.New("no quorum")
	case st.CutOff:
		return errors.New("no word from the leader")
	case st.Applied < replica.GenesisIndex:
		return s.c.snapshots.awaited(s.group, r.ID(), time.Now())
	}
	return nil
}

// closeEngine waits for background work and closes the engine, once.
func (s *Stream) closeEngine(l *local) error {
	s.maint.Lock()
	defer s.maint.Unlock()
	if l == nil || l.closed {
		return nil
	}
	l.closed = true
	l.machine.TakeFrozen().Release() // The replica is closed: nobody else takes it.
	return l.engine.Close()
}
