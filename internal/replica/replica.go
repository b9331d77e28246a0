package replica

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Raft's timing, in ticks of the shard.
const (
	heartbeatTicks = 2
	electionTicks  = 15

	// A waiter whose pack vanished with a lost leadership is told ErrUnknown after this long.
	waiterTicksMax = 100
	// A read index that was not confirmed is asked for again after this long, and given up
	// after readTicksMax.
	readRetryTicks = electionTicks
	readTicksMax   = 40
)

// Bounds of one replica.
const (
	intakeBytesMax   = 64 << 20 // commands that wait to be proposed
	inflightBytesMax = 8 << 20  // packs proposed and not yet applied
	appendsMax       = 2        // WAL writes in flight before packs are held back to grow
)

// Waiter hears the outcome of one command, once, on the goroutine of the replica's owner. It must
// not block.
type Waiter interface {
	Done(result any, err error)
}

// Config says which member of which group a replica is.
type Config struct {
	Group wal.GroupID
	ID    uint64 // raft id of this member, never used by another
	Name  string // for log lines, e.g. "$G/KV_config"

	Log         *wal.Log
	Machine     Machine
	Incarnation uint64 // drawn at random by whoever opens the replica

	Logger *slog.Logger

	// First is set on the one member that should lead a new group: it does not wait for a
	// timeout, so that a new stream serves at once.
	First bool

	// Again is given commands that Raft did not take, as it does while the lead is handed over, in the order in which
	// they came: nothing was done, and the next leader may be asked. Until it returns Propose takes no others. It runs
	// on the owner; the commands are valid during the call. Nil refuses such commands as unavailable.
	Again func(commands [][]byte, waiters []Waiter)

	// Home tells on which server a member lives, 0 if that is not known. With it the group rests when nobody
	// uses it, and relies on Shard.Beat; without it never. It is called on the owner's goroutine.
	Home func(member uint64) uint64

	// Blind opens a member that has its log and not its state, see blind.go. Machine is nil then.
	Blind bool

	// TrailFrom is how many rounds a tick may have before a member may trail, see trail.go; 0: as many as suit
	// production, -1: none.
	TrailFrom int

	// Owner is whatever the opener wants to find again through Replica.Owner.
	Owner any
}

// Status is what others may know about a replica, as of its last turn.
type Status struct {
	Leader    uint64 // raft id, 0 if unknown
	Term      uint64
	Committed uint64
	Applied   uint64
	Leading   bool
	Conf      *pb.ConfState
	Members   []Member // what a leader knows of the members, itself included
	CutOff    bool     // nothing was heard for a while of a majority, if it leads, or of the leader
	Resting   bool     // nobody uses the group, and this member waits for somebody to
	Blind     bool     // it has its log and not its state, see Config.Blind
	Stopped   error    // why the replica stopped, or nil
}

// Replica is one member of a group. All methods but Propose, ReadIndex, Status and Deliver belong to
// the shard that owns it.
type Replica struct {
	cfg   Config
	shard *Shard
	raft  *raft.RawNode
	log   *raftLog

	// status is replaced as a whole at the end of a turn that changed it.
	status atomic.Pointer[Status]

	// localReads is set while this is the only voter, leads, and has applied an entry of its
	// own term: then the machine holds every acknowledged write at every moment.
	localReads atomic.Bool

	intake struct {
		sync.Mutex
		packs     []*pack
		bytes     int
		queued    bool // the shard knows that there is something
		returning bool // what is there is about to be given back: nothing may pass it
		closed    error
	}

	// The rest belongs to the owner.
	dirty       bool
	failed      error
	ticks       uint64
	counter     uint64
	conf        *pb.ConfState
	confBytes   []byte // of conf, as the machine stores it
	applied     uint64
	appliedTerm uint64
	term        uint64
	lead        uint64
	inflight    map[uint64]*pack // by counter
	bytesFlying int
	round       uint64 // counter of the last pack proposed
	appends     int    // WAL writes submitted and not finished
	held        bool   // packs wait in intake for room
	reads       readQueue
	applies     []*pb.Message     // MsgStorageApply of this turn
	installing  bool              // a snapshot is on its way into the machine
	behind      []*pb.Message     // MsgStorageAppend that wait for it
	passed      uint64            // of a blind member: the last committed entry that it did not execute
	kept        map[uint64]uint64 // by member that is being sent a snapshot: the log is needed from behind this index on
	commands    [][]byte          // scratch
	membersDue  bool              // the list of members in status is a tick old
	paces       []pace            // of the other members
	isLate      bool              // some of them wait for news
	heardLead   uint64            // tick at which the leader was last heard of, or began to lead
	rest        rest
	heldUp      int    // how much this leader's disk holds the others up, see yield
	yields      uint64 // how often it has tried to hand over for that
	rushAt      uint64 // campaign at this tick, without waiting for a timeout; 0: do not
	led         bool   // some leader was seen since the replica was opened
}

// Open starts a member on what the log and the machine hold. A group's first members are opened
// after Genesis has been written.
func (s *Shard) open(cfg Config) (_ *Replica, err error) {
	defer func() { // As in rescue.
		switch p := recover().(type) {
		case nil:
		case logFailure:
			err = fmt.Errorf("replica %s: its log cannot be read: %w", cfg.Name, p.err)
		default:
			panic(p)
		}
	}()
	st, ok := cfg.Log.State(cfg.Group)
	if !ok {
		return nil, fmt.Errorf("replica %s: group %d has no log", cfg.Name, cfg.Group)
	}
	if st.Damage != nil {
		return nil, fmt.Errorf("replica %s: %w", cfg.Name, st.Damage)
	}
	at := startOf(&cfg, &st)
	if at.Index+1 < st.First {
		return nil, fmt.Errorf("replica %s: %w: the state ends at log entry %d and the log begins at %d: entries between are missing", cfg.Name, ErrStateLost, at.Index, st.First)
	}
	conf, err := DecodeConf(at.Conf)
	if err != nil || len(at.Conf) == 0 && at.Index > 0 && !cfg.Blind {
		return nil, fmt.Errorf("replica %s: no membership at log entry %d: %v", cfg.Name, at.Index, err)
	}
	if !follows(cfg.Log, cfg.Group, at, &st) {
		// A snapshot was installed in the machine and the crash fell before the log was reset. The log
		// may reach beyond it, with entries of another history.
		st.Snapshot = wal.Position{Index: at.Index, Term: at.Term}
		cfg.Log.Submit([]wal.Update{{Group: cfg.Group, Reset: &st.Snapshot}}, func(error) {})
	}
	r := &Replica{cfg: cfg, shard: s, conf: conf, confBytes: at.Conf, applied: at.Index, appliedTerm: at.Term, inflight: make(map[uint64]*pack)}
	// The commit index is not synced by itself, so the machine may know of a later one.
	hard := st.Hard
	hard.Commit = max(hard.Commit, at.Index)
	hard.Term = max(hard.Term, at.Term)
	r.log = &raftLog{
		wal: cfg.Log, group: cfg.Group, conf: conf, snapshot: r.snapshotHeader,
		hard: &pb.HardState{Term: &hard.Term, Vote: &hard.Vote, Commit: &hard.Commit},
	}
	r.raft, err = raft.NewRawNode(&raft.Config{
		ID: cfg.ID, Storage: r.log, Applied: at.Index,
		ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		PreVote: true, CheckQuorum: true, AsyncStorageWrites: true,
		ReadOnlyOption: raft.ReadOnlySafe, DisableProposalForwarding: true, StepDownOnRemoval: true,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256, MaxInflightBytes: 16 << 20,
		MaxUncommittedEntriesSize: 64 << 20, MaxCommittedSizePerReady: 4 << 20,
		Logger: raftLogger{cfg.Logger, cfg.Name},
	})
	if err != nil {
		return nil, fmt.Errorf("replica %s: %w", cfg.Name, err)
	}
	r.status.Store(&Status{Term: hard.Term, Committed: hard.Commit, Applied: at.Index, Conf: conf, Blind: cfg.Blind})
	if cfg.Blind {
		return r, nil
	}
	if soleVoter(conf, cfg.ID) {
		// Nobody else can win: do not wait for a timeout.
		if err := r.raft.Campaign(); err != nil {
			return nil, fmt.Errorf("replica %s: %w", cfg.Name, err)
		}
	} else if at.Index > GenesisIndex {
		r.rushAt = openedRush + r.slot()
	}
	return r, nil
}

// follows tells whether the log goes on from a position of the machine.
func follows(l *wal.Log, g wal.GroupID, at Entry, st *wal.State) bool {
	if at.Index > st.Last {
		return false
	}
	term, err := l.Term(g, at.Index)
	return err != nil || term == at.Term
}

// Status may be called by any goroutine.
func (r *Replica) Status() Status { return *r.status.Load() }

// Group is the group this is a member of.
func (r *Replica) Group() wal.GroupID { return r.cfg.Group }

// ID is the member's raft id.
func (r *Replica) ID() uint64 { return r.cfg.ID }

// Owner is the value given in the Config.
func (r *Replica) Owner() any { return r.cfg.Owner }

// Machine is the machine this replica applies to, nil if it is blind; what may be called on it by whom is the
// machine's to say.
func (r *Replica) Machine() Machine { return r.cfg.Machine }

// tick advances Raft's clock and the age of all that waits.
func (r *Replica) tick() {
	defer r.rescue()
	r.ticks++
	r.considerRest()
	r.raft.Tick()
	r.campaignFirst()
	r.stepAside()
	r.yield()
	r.membersDue = !soleVoter(r.conf, r.cfg.ID) || len(r.conf.GetLearners()) > 0
	r.retryReads()
	if r.ticks%electionTicks == 0 {
		r.forgetOld()
	}
}

// step feeds one message to Raft: from a peer, or the completion of a local write.
func (r *Replica) step(m *pb.Message) {
	if r.failed != nil {
		return
	}
	defer r.rescue()
	if r.cfg.Blind && !forBlind(m) {
		return
	}
	if err := r.amnesia(m); err != nil {
		r.fail(err)
		return
	}
	if err := r.raft.Step(m); err != nil && err != raft.ErrProposalDropped && err != raft.ErrStepPeerNotFound {
		r.cfg.Logger.Debug("raft refused a message", "group", r.cfg.Name, "type", m.GetType().String(), "err", err)
	}
}

// Fail stops the replica because of something that its owner has seen of the machine. Owner only (use
// Shard.Call).
func (r *Replica) Fail(err error) { r.fail(err) }

// fail stops the replica: its machine or its log cannot be trusted any more. The evidence stays.
func (r *Replica) fail(err error) {
	if r.failed != nil {
		return
	}
	r.failed = err
	r.cfg.Logger.Error(fmt.Sprintf("%s stopped: %v", r.cfg.Name, err))
	r.close(err)
}

// close answers everybody who waits. Proposed packs may still be executed elsewhere, or after a
// restart.
func (r *Replica) close(cause error) {
	r.nudgeAll()
	r.localReads.Store(false)
	r.intake.Lock()
	if r.intake.closed == nil {
		r.intake.closed = ErrStopped
	}
	packs := r.intake.packs
	r.intake.packs, r.intake.bytes = nil, 0
	r.intake.Unlock()
	for _, p := range packs {
		p.refuse(ErrStopped)
	}
	for _, p := range r.sortedInflight() {
		p.refuse(ErrUnknown)
	}
	clear(r.inflight)
	r.reads.failAll(ErrStopped)
	st := r.Status()
	st.Stopped, st.Leading, st.Leader = cause, false, 0
	r.status.Store(&st)
}

// snapshotHeader is what Raft puts into a MsgSnap. The peer layer replaces position and token by
// those of the state that it really sends.
func (r *Replica) snapshotHeader() (*pb.Snapshot, error) {
	at := r.cfg.Machine.Applied()
	conf, err := DecodeConf(at.Conf)
	if err != nil {
		return nil, err
	}
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: conf}}, nil
}

// Genesis is the log of a group that begins with the given membership: position 10 in term 1, as
// if a snapshot had been installed there. Every first member writes the same; the machine must
// report the position and conf as Applied before the replica is opened.
func Genesis(group wal.GroupID) wal.Update {
	return wal.Update{
		Group: group,
		Reset: &wal.Position{Index: GenesisIndex, Term: GenesisTerm},
		Hard:  &wal.HardState{Term: GenesisTerm, Commit: GenesisIndex},
	}
}

// The position at which every group begins.
const (
	GenesisIndex = 10
	GenesisTerm  = 1
)

// Joining is the log of a member that joins later: empty, waiting for a snapshot.
func Joining(group wal.GroupID) wal.Update {
	return wal.Update{Group: group, Reset: &wal.Position{}, Hard: &wal.HardState{}}
}
