package cluster

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Kinds of frames between servers. The values are part of the protocol between servers. Kinds from
// KindOthers on are given out by packages above, through Handle.
const (
	kindRaft     = peer.KindFirst + iota // Raft messages, one after another
	kindPropose                          // see forwarder
	kindOutcome                          // see forwarder
	kindGenesis                          // see founding
	kindJoin                             // see founding
	kindSnapshot                         // see snapshots.go
	kindCompare                          // see compare.go
	kindBeat                             // see beats.go
	kindMend                             // see mend.go
	kindCommand                          // see forwarder

	KindOthers = peer.KindFirst + 32
)

// Route says where a server meets the other servers of its cluster.
type Route struct {
	Cluster        string   // the cluster's name
	Listen         string   // host:port
	Advertise      string   // host:port that others are to use, "" for Listen
	Seeds          []string // host:port of the configured routes, this server's own included
	User, Password string
	TLS            *tls.Config
	Tags           []string
}

// greeting is what servers of a cluster tell each other beyond their names.
type greeting struct {
	Cluster uint64   `json:"cluster"` // id; 0: blank
	Seeds   []string `json:"seeds"`
	Route   string   `json:"route"`
	Tags    []string `json:"tags,omitempty"`
	// Former are the ids of clusters that this one was, see Recover.
	Former []uint64 `json:"former,omitempty"`
	// MessagesOnly is set by servers without streams.
	MessagesOnly bool `json:"messages_only,omitempty"`
	// Beats is set by servers that want to be told that others live.
	Beats bool `json:"beats,omitempty"`
	// Commands is set by servers that take commands in order; see forwarder.
	Commands bool `json:"commands,omitempty"`
	// Compares is set by servers that know the command for it; see compare.go.
	Compares bool `json:"compares,omitempty"`
	// MetaFormat tells what its meta machine writes, see meta.Format; 0: it does not know the command to compare.
	MetaFormat int `json:"meta_format,omitempty"`
	// Others is what packages above want all servers to know.
	Others map[string]json.RawMessage `json:"others,omitempty"`
}

// peers is the book of servers that were met.
type peers struct {
	mu       sync.Mutex
	greeted  map[uint64]peer.Hello
	extra    map[uint64]greeting
	up       map[uint64]bool
	since    map[uint64]time.Time // when up last became true
	beat     map[uint64]time.Time // when it last told that it lives
	handlers map[peer.Kind]func(from uint64, payload []byte) error
	others   map[string]json.RawMessage
	watchers []func(server uint64, name string, up bool)
}

func newPeers() *peers {
	return &peers{
		greeted: make(map[uint64]peer.Hello), extra: make(map[uint64]greeting), up: make(map[uint64]bool),
		since: make(map[uint64]time.Time), beat: make(map[uint64]time.Time),
		handlers: make(map[peer.Kind]func(uint64, []byte) error), others: make(map[string]json.RawMessage),
	}
}

// ServerID is this server's id.
func (c *Cluster) ServerID() uint64 { return c.id.server }

// Clustered tells whether this server is meant to have peers.
func (c *Cluster) Clustered() bool { return c.opts.Route != nil }

// Handle registers the handler of a kind of frame. It must be called before Start.
func (c *Cluster) Handle(kind peer.Kind, f func(from uint64, payload []byte) error) {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	c.peers.handlers[kind] = f
}

// Tell puts a named value into what this server tells others when it meets them. It must be called
// before Start.
func (c *Cluster) Tell(name string, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode %s: %v", name, err)) // Callers give plain values.
	}
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	c.peers.others[name] = b
}

// Told gives what a server told under a name when it was met.
func (c *Cluster) Told(server uint64, name string) json.RawMessage {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return c.peers.extra[server].Others[name]
}

// WatchPeers registers a function that is told when a server becomes reachable or ceases to be. It
// must be called before Start, must not block, and is called by several goroutines.
func (c *Cluster) WatchPeers(f func(server uint64, name string, up bool)) {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	c.peers.watchers = append(c.peers.watchers, f)
}

// PeerIDs lists the servers that can be reached now, sorted.
func (c *Cluster) PeerIDs() []uint64 {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	var all []uint64
	for id, up := range c.peers.up { // order: sorted below
		if up {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// PeerName gives the name of a server that was met or that meta knows, or "".
func (c *Cluster) PeerName(server uint64) string {
	if server == c.id.server {
		return c.opts.Name
	}
	if m := c.Meta(); m != nil {
		if s := m.Server(server); s != nil {
			return s.Name
		}
	}
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return c.peers.greeted[server].Name
}

// SendPeer queues a frame for another server; see peer.Transport.Send.
func (c *Cluster) SendPeer(server uint64, lane peer.Lane, kind peer.Kind, build func([]byte) []byte) error {
	return c.send(server, lane, kind, build)
}

func (c *Cluster) send(server uint64, lane peer.Lane, kind peer.Kind, build func([]byte) []byte) error {
	if c.transport == nil {
		return peer.ErrUnreachable
	}
	return c.transport.Send(server, lane, kind, build)
}

func (c *Cluster) reachable(server uint64) bool {
	return c.transport != nil && c.transport.Reachable(server)
}

// unheardMax is how long a server may not tell that it lives before others are asked rather than it. A connection is
// taken for broken much later.
const unheardMax = 5 * replica.BeatTicks * replica.TickInterval

// responsive tells whether a server can be reached and was heard of lately.
func (c *Cluster) responsive(server uint64) bool {
	if !c.reachable(server) {
		return false
	}
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	last := c.peers.beat[server]
	return last.Before(c.peers.since[server]) || time.Since(last) < unheardMax // It tells so since it belongs to the cluster.
}

// takesCommands tells whether a server knows of the order of commands.
func (c *Cluster) takesCommands(server uint64) bool {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return c.peers.extra[server].Commands
}

// peerHandler is the cluster as the transport sees it.
type peerHandler struct{ c *Cluster }

// Hello greets.
func (h peerHandler) Hello() json.RawMessage {
	g := greeting{Cluster: h.c.identity().cluster, Seeds: h.c.seeds(), Route: h.c.advertised(), Tags: h.c.opts.Route.Tags, MessagesOnly: h.c.opts.MessagesOnly, Beats: !h.c.opts.MessagesOnly, Commands: true, Compares: true, MetaFormat: meta.Format}
	if m := h.c.Meta(); m != nil {
		g.Former = m.FormerIDs()
	}
	h.c.peers.mu.Lock()
	defer h.c.peers.mu.Unlock()
	g.Others = h.c.peers.others
	b, err := json.Marshal(g)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode greeting: %v", err)) // Our own type, always encodable.
	}
	return b
}

// Greet judges who greets.
func (h peerHandler) Greet(from peer.Hello) error {
	var g greeting
	if err := json.Unmarshal(from.Extra, &g); err != nil {
		return fmt.Errorf("its greeting is malformed: %w", err)
	}
	id := h.c.identity()
	switch {
	case id.cluster != 0 && g.Cluster != 0 && id.cluster != g.Cluster:
		return h.c.foreign(from.Name, &g)
	case g.MessagesOnly || h.c.opts.MessagesOnly: // They found nothing, so they need not agree.
	case id.cluster == 0 && g.Cluster == 0 && !slices.Equal(g.Seeds, h.c.seeds()):
		return fmt.Errorf("neither server has data and their routes differ: it has %v, this server %v", g.Seeds, h.c.seeds())
	}
	if m := h.c.Meta(); m != nil {
		if s := m.Server(from.Server); s != nil && s.Removed {
			return fmt.Errorf("server %q (id %016x) was removed from the cluster", from.Name, from.Server)
		}
	}
	h.c.peers.mu.Lock()
	h.c.peers.greeted[from.Server], h.c.peers.extra[from.Server] = from, g
	h.c.peers.mu.Unlock()
	h.c.meet(g)
	return nil
}

// Refused looks whether the other side knows something that this one does not.
func (h peerHandler) Refused(by peer.Hello) {
	var g greeting
	if err := json.Unmarshal(by.Extra, &g); err == nil {
		h.c.checkGivenUp(by.Name, &g)
	}
}

// Frame dispatches what arrives.
func (h peerHandler) Frame(from uint64, kind peer.Kind, payload []byte) error {
	switch c := h.c; kind {
	case kindRaft:
		return c.receiveRaft(from, payload)
	case kindPropose:
		return c.forward.serve(from, payload)
	case kindCommand:
		return c.forward.serveCommand(from, payload)
	case kindOutcome:
		return c.forward.outcome(from, payload)
	case kindGenesis:
		return c.founding.receive(from, payload)
	case kindJoin:
		return c.founding.receiveJoin(from, payload)
	case kindCompare:
		return c.comparer.receive(from, payload)
	case kindSnapshot:
		return c.snapshots.transfers.Receive(from, payload)
	case kindBeat:
		c.beaten(from)
		return nil
	case kindMend:
		return c.receiveMend(from, payload)
	}
	h.c.peers.mu.Lock()
	f := h.c.peers.handlers[kind]
	h.c.peers.mu.Unlock()
	if f == nil {
		return fmt.Errorf("frame of unknown kind %d", kind)
	}
	return f(from, payload)
}

// TurnEnd sends what forwarded commands and their outcomes gave to send.
func (h peerHandler) TurnEnd() { env(h).TurnEnd() }

// Up and Down keep the book and tell whom it concerns.
func (h peerHandler) Up(server uint64) {
	h.c.opts.Logger.Info(fmt.Sprintf("connected to server %q", h.c.PeerName(server)))
	h.c.setUp(server, true)
}

// Down is told of a lost connection.
func (h peerHandler) Down(server uint64, refused bool) {
	if h.c.setUp(server, false) {
		h.c.opts.Logger.Warn(fmt.Sprintf("lost the connection to server %q", h.c.PeerName(server)))
	}
	h.c.forward.lost(server)
	h.c.lostBeat(server)
	if refused {
		h.c.peerGone(server)
	}
}

func (c *Cluster) setUp(server uint64, up bool) (changed bool) {
	c.peers.mu.Lock()
	changed = c.peers.up[server] != up
	c.peers.up[server] = up
	if changed && up {
		c.peers.since[server] = time.Now()
	}
	watchers, name := c.peers.watchers, c.peers.greeted[server].Name
	c.peers.mu.Unlock()
	if changed {
		for _, f := range watchers {
			f(server, name, up)
		}
	}
	return changed
}

// peerGone is told that the process of a server is certainly dead: its groups need not wait for a
// timeout to elect another leader.
func (c *Cluster) peerGone(server uint64) {
	for _, g := range c.groups() {
		r := g.rep.Load()
		if r == nil {
			continue
		}
		if lead := r.Status().Leader; lead != 0 && g.server(lead) == server {
			g.shard.Call(func() { r.PeerGone(lead) })
		}
	}
}

// Send hands Raft messages to the transport, those for one server together.
func (e env) Send(messages []replica.Outgoing) {
	if e.c.transport == nil {
		return
	}
	frames := make(map[uint64][]replica.Outgoing, 4)
	var order []uint64
	for _, o := range messages {
		g := e.c.groupOf(o.From)
		if g == nil {
			continue
		}
		to := g.server(o.Message.GetTo())
		if o.Message.GetType() == pb.MsgSnap {
			e.c.snapshots.send(g, o.From, to, o.Message)
			continue
		}
		if frames[to] == nil {
			order = append(order, to)
		}
		frames[to] = append(frames[to], o)
	}
	for _, to := range order {
		for rest := frames[to]; len(rest) > 0; {
			// What cannot be sent is lost, which Raft expects of a network.
			err := e.c.transport.Queue(to, peer.LaneRaft, kindRaft, func(b []byte) []byte {
				for start := len(b); len(rest) > 0 && len(b)-start < raftFrameBytes; rest = rest[1:] {
					b = peer.AppendMessage(b, uint64(rest[0].From.Group()), rest[0].Message)
				}
				return b
			})
			if err != nil {
				break
			}
		}
		e.c.transport.Flush(to, peer.LaneRaft)
	}
}

// raftFrameBytes is the size at which a frame of Raft messages takes no more of them: the bound of a
// lane is looked at once a frame.
const raftFrameBytes = 4 << 20

// receiveRaft hands what a peer sent to the replicas that it is for: those of one shard together, as the peer's
// shard sent them together.
func (c *Cluster) receiveRaft(from uint64, payload []byte) error {
	type batch struct {
		shard    *replica.Shard
		messages []replica.Incoming
	}
	var batches []batch
	for len(payload) > 0 {
		id, m, rest, err := peer.DecodeMessage(payload)
		if err != nil {
			return err
		}
		payload = rest
		g := c.group(wal.GroupID(id))
		if g == nil || !g.admits(from, m) {
			continue
		}
		i := slices.IndexFunc(batches, func(b batch) bool { return b.shard == g.shard })
		if i < 0 {
			i, batches = len(batches), append(batches, batch{shard: g.shard})
		}
		batches[i].messages = append(batches[i].messages, replica.Incoming{To: g.rep.Load(), Message: m})
	}
	for _, b := range batches {
		b.shard.ReceiveAll(b.messages)
	}
	return nil
}

// admits is the filter in front of Raft: only messages that members send each other, from the
// server where that member lives, to the member that lives here. Raft itself would take messages
// of its own storage threads from anybody.
func (g *group) admits(from uint64, m *pb.Message) bool {
	r := g.rep.Load()
	if r == nil || m.GetTo() != r.ID() || raft.IsLocalMsgTarget(m.GetFrom()) {
		return false
	}
	switch m.GetType() {
	case pb.MsgApp, pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp,
		pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow:
		if m.GetTerm() == 0 {
			return false
		}
	case pb.MsgReadIndex, pb.MsgReadIndexResp, pb.MsgTransferLeader:
	default:
		return false
	}
	return g.isHome(r, m.GetFrom(), from)
}

// isHome tells whether a member lives on a server, as far as is known here.
func (g *group) isHome(r *replica.Replica, member, server uint64) bool {
	home := g.server(member)
	// A member that has just joined knows nobody yet.
	return home == server || home == 0 && (len(r.Status().Conf.GetVoters()) == 0 || g.stream == nil && g.c.newcomers.admit(g.c.Meta(), member, server))
}

// newcomers are members of the meta group that this server learned of from themselves, because what it knows
// of the group is older than they are. Among them may be the leader, and without admitting that it would
// never learn of them otherwise.
type newcomers struct {
	mu   sync.Mutex
	home map[uint64]uint64 // server, by member
}

// newcomersMax bounds the book; there are as many as servers joined while this one was away.
const newcomersMax = 256

// admit tells whether a member that is not known may live on a server. Ids are issued in order and never again,
// so one that is lower than any known is of the past.
func (n *newcomers) admit(m *meta.Machine, member, server uint64) bool {
	for _, s := range m.AllServers() {
		if member <= s.Member {
			return false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.home) >= newcomersMax {
		n.home = nil
	}
	if n.home == nil {
		n.home = make(map[uint64]uint64)
	}
	if _, known := n.home[member]; !known {
		n.home[member] = server
	}
	return n.home[member] == server
}

// list returns those that the meta group, as known here, does not have.
func (n *newcomers) list() (all []meta.Replica) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for member, server := range n.home { // order: looked up by id
		all = append(all, meta.Replica{ID: member, Server: server})
	}
	return all
}

// metaMembers lists the members of the meta group that this server knows.
func (c *Cluster) metaMembers() []meta.Replica {
	m := c.Meta()
	if m == nil {
		return nil
	}
	var all []meta.Replica
	for _, s := range m.AllServers() {
		all = append(all, meta.Replica{ID: s.Member, Server: s.ID})
	}
	all = append(all, c.founding.introduced()...)
	return append(all, c.newcomers.list()...) // Last: what the group says comes first.
}
