package groups

import (
	"bytes"
	crand "crypto/rand"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

const (
	group   = wal.GroupID(7)
	members = 3
)

// ledger is the machine: it keeps all commands that it has executed. What it holds durably is what its
// last checkpoint held; a crash goes back to that.
type ledger struct {
	at       replica.Entry
	commands []string
	saved    struct {
		at       replica.Entry
		commands []string
	}
	w *world
}

func (l *ledger) Apply(at replica.Entry, _ int64, commands [][]byte) ([]any, error) {
	results := make([]any, len(commands))
	for i, c := range commands {
		l.commands = append(l.commands, string(c))
		results[i] = len(l.commands)
	}
	l.at = at
	return results, l.w.applied(at, l.commands)
}

func (l *ledger) ApplyConf(at replica.Entry) error {
	l.at = at
	return l.w.applied(at, l.commands)
}

func (l *ledger) Applied() replica.Entry { return l.at }
func (l *ledger) Durable() replica.Entry { return l.saved.at }

func (l *ledger) Checkpoint() error {
	l.saved.at, l.saved.commands = l.at, l.commands[:len(l.commands):len(l.commands)]
	return nil
}

// WriteSnapshot and InstallSnapshot are not used: states travel as values, see node.Send.
func (l *ledger) WriteSnapshot(io.Writer) (replica.Entry, error) { return l.at, nil }
func (l *ledger) InstallSnapshot(io.Reader) error                { return nil }

// node is one server.
type node struct {
	w     *world
	id    uint64 // its member
	disk  *simfs.FS
	log   *wal.Log
	shard *replica.Shard
	rep   *replica.Replica
	m     *ledger
	lives uint64

	backup *simfs.FS // of the disk, as it was at an early crash
	up     bool

	whole *simfs.FS     // the disk before it was damaged; see mend_test.go
	mend  *replica.Mend // of a suspect, which is not up
	blind bool          // it has its log and not its state; see blind_test.go

	reform reformNode // see reform_test.go

	installs map[string]*ledger // states that came with snapshots, by token
}

// packet is a message on its way, or a server's beat.
type packet struct {
	to    uint64
	m     *pb.Message // nil: a beat
	state *ledger     // with a snapshot
	from  *node
}

// world is everything, and the one source of chance.
type world struct {
	t     reporter
	plant string // a fault of the servers that the checks must find
	seed  uint64
	rng   *rand.Rand
	nodes []*node
	net   []packet
	cut   map[[2]uint64]bool
	now   int64
	trace uint64

	history   map[uint64]uint64 // digest of the state at each index, as whoever came first had it
	next      int               // number of the next command
	acked     []string
	refused   map[string]bool // definite: never to be seen
	reads     int
	snaps     int
	rests     int // replicas that were seen at rest
	pieces    int // of several rounds, sent to members that trailed
	mending   mending
	blinding  blinding
	reforming reforming

	elections []int // how many ticks they took that resting groups had to wake for
}

// mayRest tells whether the servers of this world beat, so that its group rests when nobody uses it. Worlds of
// odd seeds are as they were before there was rest: they keep what their seeds once found.
func (w *world) mayRest() bool { return w.seed%2 == 0 }

// mayTrail tells whether members of this world trail as soon as two rounds follow one another. Most worlds are as
// they were before there was that, for the same reason.
func (w *world) mayTrail() bool { return w.seed%5 == 0 }

// reporter is told of a failure and does not return.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newWorld(t reporter, seed uint64, plant string) *world {
	return newWorldOf(t, seed, plant, members)
}

func newWorldOf(t reporter, seed uint64, plant string, size uint64) *world {
	w := &world{t: t, seed: seed, plant: plant, rng: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]uint64]bool{}, history: map[uint64]uint64{}, refused: map[string]bool{}}
	// Raft draws its election timeouts from there.
	crand.Reader = reader{rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})}
	var voters []uint64
	for i := range size {
		voters = append(voters, i+1)
	}
	for i := range size {
		n := &node{w: w, id: i + 1, disk: simfs.New(seed<<8|i, simfs.Journal)}
		w.nodes = append(w.nodes, n)
		n.m = &ledger{w: w, at: replica.Entry{Index: replica.GenesisIndex, Term: replica.GenesisTerm, Conf: replica.EncodeConf(&pb.ConfState{Voters: voters})}}
		n.m.saved.at = n.m.at
		n.openLog()
		n.log.Submit([]wal.Update{replica.Genesis(group)}, nil)
		n.sync()
		n.open()
	}
	return w
}

// reader makes a source of crypto/rand of a seeded one.
type reader struct{ *rand.ChaCha8 }

// failf ends the run with how to repeat it.
func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	test := "TestSimSeeds"
	if w.mending.on {
		test = "TestSimSuspects"
	} else if w.blinding.on {
		test = "TestSimLostStates"
	} else if w.reforming.on {
		test = "TestSimReform"
	}
	w.t.Fatalf("seed %d, at %d: %s\nrepeat with: go test ./sim/groups -run %s -seed %d", w.seed, w.now, fmt.Sprintf(format, args...), test, w.seed)
}

// note enters something that happened into the trace, by which two runs are compared.
func (w *world) note(what ...any) {
	h := fnv.New64a()
	fmt.Fprint(h, w.trace, what)
	w.trace = h.Sum64()
}

// applied holds what a replica has at an index against what others had there: state machine safety.
func (w *world) applied(at replica.Entry, commands []string) error {
	h := fnv.New64a()
	fmt.Fprint(h, at.Term, len(commands))
	if len(commands) > 0 {
		fmt.Fprint(h, commands[len(commands)-1])
	}
	sum := h.Sum64()
	if was, known := w.history[at.Index]; known && was != sum {
		w.failf("replicas differ at log entry %d", at.Index)
	}
	w.history[at.Index] = sum
	w.note("applied", at.Index, sum)
	return nil
}

func (n *node) openLog() {
	var err error
	n.log, err = wal.Open(wal.Options{FS: n.disk, Dir: "wal", SegmentBytes: 1 << 16, ServerID: n.id, ClusterID: 1, Stepped: true})
	if err != nil && n.whole != nil {
		n.recoverDisk() // More is damaged than a log can be opened with.
		n.openLog()
		return
	}
	if err != nil {
		n.w.failf("node %d: open the log: %v", n.id, err)
	}
	n.shard = replica.NewShard(n, n.log, slog.New(slog.DiscardHandler))
	n.installs = map[string]*ledger{}
}

func (n *node) open() {
	n.lives++
	cfg := replica.Config{
		Group: group, ID: n.id, Name: fmt.Sprint("n", n.id), Log: n.log, Machine: n.m, Incarnation: n.id<<32 | n.lives,
		Logger: slog.New(slog.DiscardHandler),
	}
	if n.blind {
		cfg.Machine, cfg.Blind = nil, true
	}
	if n.w.mayTrail() {
		cfg.TrailFrom = -1
	}
	if n.w.mayRest() {
		cfg.Home = func(member uint64) uint64 { return member }
	}
	var err error
	n.rep, err = n.shard.Open(cfg)
	if err != nil {
		n.w.failf("node %d: %v", n.id, err)
	}
	n.up = true
}

// tick advances the node's clock, and tells the others that it lives.
func (n *node) tick() {
	n.shard.Turn(true)
	if n.w.mayRest() && n.shard.Ticks()%replica.BeatTicks == 0 {
		n.beat()
	}
}

func (n *node) beat() {
	for _, other := range n.w.nodes {
		if other != n {
			n.w.net = append(n.w.net, packet{to: other.id, from: n})
		}
	}
}

// sync writes all that is submitted.
func (n *node) sync() {
	for n.log.Step() {
	}
}

// crash cuts the power; the log, the shard and those who wait are gone with it.
func (n *node) crash(o simfs.Outcome) {
	n.w.note("crash", n.id, o)
	if n.w.plant == "the disk forgets" && n.backup != nil {
		n.disk = n.backup // Synced or not.
	}
	n.disk = n.disk.CrashClone(o, n.w.rng.Uint64())
	if n.backup == nil && n.lives > 1 {
		n.backup = n.disk.CrashClone(simfs.Everything, 1)
	}
	n.up, n.mend, n.reform.alone, n.reform.heard = false, nil, nil, nil
	m := &ledger{w: n.w, at: n.m.saved.at, commands: n.m.saved.commands, saved: n.m.saved}
	n.m = m
}

func (n *node) restart() {
	n.w.note("restart", n.id)
	if n.reform.lost || n.reform.frozen != nil {
		return
	}
	n.openLog()
	n.forgetLog()
	if n.whole == nil || !n.suspect() {
		n.open()
	}
}

// What the shard needs of the world.

func (n *node) Now() int64               { return n.w.now }
func (n *node) Applied(*replica.Replica) {}
func (n *node) LeaderChanged(r *replica.Replica) {
	n.w.note("leader", n.id, r.Status().Leader, r.Status().Term)
}
func (n *node) TurnEnd() {}

func (n *node) Send(messages []replica.Outgoing) {
	rounds := map[uint64]int{}
	for _, o := range messages {
		if o.Message.GetType() == pb.MsgApp && len(o.Message.GetEntries()) > 0 {
			if rounds[o.Message.GetTo()]++; rounds[o.Message.GetTo()] == 2 {
				n.w.pieces++
			}
		}
		p := packet{to: o.Message.GetTo(), m: o.Message, from: n}
		if o.Message.GetType() == pb.MsgSnap {
			// The state as it is now, with its true position: as the server sends it.
			p.state = n.state()
			conf, err := replica.DecodeConf(n.m.at.Conf)
			if err != nil {
				n.w.failf("node %d: %v", n.id, err)
			}
			p.m.Snapshot = &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(n.m.at.Index), Term: new(n.m.at.Term), ConfState: conf}}
		}
		n.w.net = append(n.w.net, p)
	}
}

func (n *node) Install(r *replica.Replica, token []byte, done func(error)) {
	state := n.installs[string(token)]
	delete(n.installs, string(token))
	if state == nil {
		n.w.failf("node %d: no state for token %q", n.id, token)
	}
	n.m.at, n.m.commands = state.at, state.commands
	_ = n.m.Checkpoint() // Durably, and at once.
	n.w.snaps++
	done(nil)
}

// deliver takes a message off the network.
func (w *world) deliver(i int, repeat bool) {
	p := w.net[i]
	if !repeat {
		w.net[i] = w.net[len(w.net)-1]
		w.net = w.net[:len(w.net)-1]
	}
	n := w.nodes[p.to-1]
	lost := !n.up || w.cut[[2]uint64{p.from.id, p.to}]
	w.note("deliver", p.m.GetType(), p.from.id, p.to, p.m.GetTerm(), p.m.GetIndex(), lost)
	if p.state != nil {
		ok := !lost && w.rng.IntN(5) > 0
		blind := n.blind
		if ok && blind {
			ok = n.regain(p.state) // Not by way of Raft.
		}
		from, life, member := p.from, p.from.lives, p.to
		if from.up && from.lives == life {
			from.shard.Call(func() { from.rep.ReportSnapshot(member, ok) })
		}
		if !ok || blind {
			return
		}
		token := fmt.Sprint(w.now, "-", len(n.installs))
		n.installs[token] = p.state
		p.m.Snapshot.Data = bytes.Clone([]byte(token))
	}
	switch {
	case lost:
	case p.m == nil:
		n.shard.Beat(p.from.id)
	default:
		n.shard.Receive(n.rep, p.m)
	}
}
