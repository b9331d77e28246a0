package jetstream

import (
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/meta"
)

// clusterRoutes are the requests about who leads and who takes part. Those of the meta group are for
// the system account alone.
func clusterRoutes() []route {
	return []route{
		{subject: "STREAM.LEADER.STEPDOWN.*", kind: "stream_leader_stepdown_response", handle: (*call).streamStepDown},
		{subject: "ACCOUNT.STREAM.LEADER.STEPDOWN.*.*", kind: "stream_leader_stepdown_response", handle: (*call).accountStepDown, decides: true, system: true},
		{subject: "STREAM.PEER.REMOVE.*", kind: "stream_remove_peer_response", handle: (*call).peerRemove},
		{subject: "CONSUMER.LEADER.STEPDOWN.*.*", kind: "consumer_leader_stepdown_response", handle: (*call).consumerStepDown},
		{subject: "META.LEADER.STEPDOWN", kind: "meta_leader_stepdown_response", handle: (*call).metaStepDown, system: true},
		{subject: "STREAM.GONE.*", kind: "stream_gone_response", handle: (*call).streamGone, decides: true, servers: true},
		{subject: "STREAM.SETTLED.*", kind: "stream_info_response", handle: (*call).streamSettled, decides: true, reads: true, servers: true},
		{subject: "STREAM.PAGE.*", kind: "stream_page_response", handle: (*call).streamPage, servers: true},
		{subject: "SERVER.REMOVE", kind: "meta_server_remove_response", handle: (*call).serverRemove, system: true},
	}
}

// clustered tells whether there are other servers; if not it is answered.
func (c *call) clustered() bool {
	if c.svc.elsewhere == nil {
		c.refuse(api.ErrClusterRequired)
		return false
	}
	return true
}

// preferred reads the body of a step-down: who is to lead next, or "".
func (c *call) preferred() (name string, ok bool) {
	var req api.StepDownRequest
	if !api.EmptyRequest(c.body) && !c.decode(&req) {
		return "", false
	}
	if req.Placement != nil {
		name = req.Placement.Preferred
	}
	return name, true
}

// changed answers a change that has nothing to tell.
func (c *call) changed(err error) {
	if err != nil {
		c.failed(err)
		return
	}
	c.success()
}

func (c *call) streamStepDown() {
	if !c.clustered() {
		return
	}
	to, ok := c.preferred()
	if !ok {
		return
	}
	if cs := c.find(c.name()); cs != nil {
		c.atLeader(cs, func() { cs.StepDown(to, c.changed) })
	}
}

// accountStepDown is streamStepDown for a stream of any account.
func (c *call) accountStepDown() {
	if !c.clustered() {
		return
	}
	to, ok := c.preferred()
	if !ok {
		return
	}
	c.svc.cluster.FindStream(c.tokens[len(c.tokens)-2], c.name(), func(cs *cluster.Stream, err error) {
		switch {
		case err != nil:
			c.refuse(api.ErrUnavailable)
		case cs == nil:
			c.refuse(api.ErrStreamNotFound)
		default:
			c.atLeader(cs, func() { cs.StepDown(to, c.changed) })
		}
	})
}

// consumerStepDown moves a replicated consumer together with its stream. Any other has no other server
// to go to.
func (c *call) consumerStepDown() {
	if !c.clustered() {
		return
	}
	to, ok := c.preferred()
	if !ok {
		return
	}
	cs := c.find(c.tokens[len(c.tokens)-2])
	if cs == nil {
		return
	}
	c.withFeed(cs, func(f *feed) {
		if !f.logged {
			c.success()
			return
		}
		cs.StepDown(to, c.changed)
	}, func() { c.refuse(api.ErrConsumerNotFound) })
}

func (c *call) peerRemove() {
	if !c.clustered() {
		return
	}
	var req api.PeerRemoveRequest
	if !c.decode(&req) {
		return
	}
	if req.Peer == "" {
		c.refuse(api.ErrBadRequest)
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	name := req.Peer
	for _, id := range cs.Servers() {
		if PeerID(id) == req.Peer {
			name = c.svc.cluster.PeerName(id)
		}
	}
	cs.RemovePeer(name, c.changed)
}

// metaStepDown is executed where the meta group's leader is.
func (c *call) metaStepDown() {
	if !c.clustered() {
		return
	}
	to, ok := c.preferred()
	if !ok {
		return
	}
	cl, far := c.svc.cluster, c.svc.elsewhere
	begun := time.Now()
	far.hold(&held{until: begun.Add(holdFor), late: func() { c.refuse(api.ErrUnavailable) }, try: func() bool {
		lead := cl.MetaLeader()
		switch {
		case lead == 0:
			return false
		case lead == cl.ServerID():
			cl.StepDownMeta(to, c.changed)
		case c.via != nil:
			far.answer(*c.via, notHere, lead, nil)
		default:
			far.ask(lead, c.account.broker.Name(), c.subject(), c.body, askFor, func(o outcome) {
				switch o.verdict {
				case answered:
					c.relay(o)
				case notHere, unsent:
					c.refuse(api.ErrUnavailable)
				}
			})
		}
		return true
	}})
}

// serverRemove declares a server gone.
func (c *call) serverRemove() {
	if !c.clustered() {
		return
	}
	var req api.ServerRemoveRequest
	if !c.decode(&req) {
		return
	}
	c.readMeta(func(m *meta.Machine) {
		servers := m.Servers()
		i := slices.IndexFunc(servers, func(s *meta.Server) bool {
			return req.PeerID != "" && PeerID(s.ID) == req.PeerID || req.PeerID == "" && s.Name == req.Peer
		})
		if i < 0 {
			c.refuse(api.ErrServerNotMember)
			return
		}
		c.svc.cluster.RemoveServer(servers[i].ID, c.changed)
	})
}
