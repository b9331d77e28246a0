package cluster

import (
	"testing"

	"github.com/cleatkv/cleat/internal/replica"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// The trap: Raft takes messages of its own storage threads, and of members that it does not know, from
// anybody. Only what members send each other passes, from the server where the member lives.
func TestPeerMessageFilter(t *testing.T) {
	c := newTrio(t, 3)
	g := c.servers[0].metaGroup
	self := g.rep.Load().ID()
	var other, third uint64 // members
	home := map[uint64]uint64{}
	for _, m := range g.members() {
		home[m.ID] = m.Server
		switch {
		case m.ID == self:
		case other == 0:
			other = m.ID
		default:
			third = m.ID
		}
	}
	message := func(typ pb.MessageType, from, to, term uint64) *pb.Message {
		return &pb.Message{Type: typ.Enum(), From: &from, To: &to, Term: &term}
	}
	network := map[pb.MessageType]bool{
		pb.MsgApp: true, pb.MsgAppResp: true, pb.MsgVote: true, pb.MsgVoteResp: true, pb.MsgPreVote: true, pb.MsgPreVoteResp: true,
		pb.MsgHeartbeat: true, pb.MsgHeartbeatResp: true, pb.MsgTimeoutNow: true, pb.MsgReadIndex: true, pb.MsgReadIndexResp: true, pb.MsgTransferLeader: true,
	}
	for value, name := range pb.MessageType_name {
		typ := pb.MessageType(value)
		if got := g.admits(home[other], message(typ, other, self, 1)); got != network[typ] {
			t.Errorf("%s: admitted %v", name, got)
		}
	}
	for what, m := range map[string]*pb.Message{
		"from Raft's append thread":    message(pb.MsgAppResp, raft.LocalAppendThread, self, 1),
		"from Raft's apply thread":     message(pb.MsgHeartbeatResp, raft.LocalApplyThread, self, 1),
		"to another member":            message(pb.MsgHeartbeat, other, third, 1),
		"without a term":               message(pb.MsgVote, other, self, 0),
		"from a member of nowhere":     message(pb.MsgHeartbeat, 987654, self, 1),
		"from a member somewhere else": message(pb.MsgHeartbeat, third, self, 1),
		"from this member itself":      message(pb.MsgHeartbeat, self, self, 1),
	} {
		if g.admits(home[other], m) {
			t.Errorf("%s: admitted", what)
		}
	}
}

// The trap: a server whose disk shows that it has forgotten what it acknowledged is started again by its
// init system, as what it was. It stops, durably.
func TestServerWithAmnesiaIsNotStartedAgain(t *testing.T) {
	c := newTrio(t, 3)
	fatal := make(chan error, 1)
	s := c.servers[1]
	s.opts.OnFatal = func(err error) { fatal <- err }
	r := s.metaGroup.rep.Load()
	s.shards[0].Call(func() { r.Fail(replica.ErrLost) })
	if err := <-fatal; !isLoss(err) {
		t.Fatal(err)
	}
	s.Close()
	o := s.opts
	again := New(o)
	if err := again.Start(); err == nil {
		again.Close()
		t.Fatal("started again as what it was")
	}
	// Emptied, it comes in the place of the old one.
	if err := c.fs[1].RemoveAll("data"); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.formed(1)
	if c.servers[1].id.server == s.id.server {
		t.Fatal("it has its old id")
	}
}
