package cluster

import (
	"testing"

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
		"from a member of nowhere":     message(pb.MsgHeartbeat, 0, self, 1),
		"from a member somewhere else": message(pb.MsgHeartbeat, third, self, 1),
		"from this member itself":      message(pb.MsgHeartbeat, self, self, 1),
	} {
		if g.admits(home[other], m) {
			t.Errorf("%s: admitted", what)
		}
	}
}

// The trap: a server that was away hears of the members that joined meanwhile only from themselves. If it
// took nothing from whom it does not know it would stay away for ever.
func TestNewcomerIsHeard(t *testing.T) {
	c := newTrio(t, 3)
	g := c.servers[0].metaGroup
	self := g.rep.Load().ID()
	home := c.servers[1].id.server
	var newest uint64
	for _, m := range g.members() {
		newest = max(newest, m.ID)
	}
	beat := func(from uint64) *pb.Message {
		return &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: &from, To: &self, Term: new(uint64(1))}
	}
	if !g.admits(home, beat(newest+2)) || g.server(newest+2) != home {
		t.Error("a member that joined meanwhile is not heard, or not answered")
	}
	if g.admits(c.servers[2].id.server, beat(newest+2)) {
		t.Error("a newcomer speaks from two servers")
	}
	if g.admits(home, beat(newest)) && g.server(newest) != home {
		t.Error("a known member speaks from elsewhere")
	}
	for member := range newest {
		if g.server(member) == 0 && g.admits(home, beat(member)) {
			t.Errorf("member %d, which was before those that are known, is heard", member)
		}
	}
}
