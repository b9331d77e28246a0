package jetstream

import (
	"fmt"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/stream"
)

func streamRoutes() []route {
	purged := func(h api.Header) any { return &api.StreamPurgeResponse{Header: h} }
	info := func(h api.Header) any { return &api.StreamInfoResponse{Header: h} }
	names := func(h api.Header) any { return &api.StreamNamesResponse{Header: h} }
	list := func(h api.Header) any { return &api.StreamListResponse{Header: h} }
	return []route{
		{subject: "STREAM.CREATE.*", kind: "stream_create_response", handle: (*call).streamCreate, decides: true},
		{subject: "STREAM.UPDATE.*", kind: "stream_update_response", handle: (*call).streamUpdate, decides: true},
		{subject: "STREAM.DELETE.*", kind: "stream_delete_response", handle: (*call).streamDelete, decides: true},
		{subject: "STREAM.INFO.*", kind: "stream_info_response", handle: (*call).streamInfo, failed: info, reads: true},
		{subject: "STREAM.NAMES", kind: "stream_names_response", handle: (*call).streamNames, failed: names},
		{subject: "STREAM.LIST", kind: "stream_list_response", handle: (*call).streamList, failed: list},
		{subject: "STREAM.PURGE.*", kind: "stream_purge_response", handle: (*call).streamPurge, failed: purged},
		{subject: "STREAM.MSG.GET.*", kind: "stream_msg_get_response", handle: (*call).msgGet, reads: true},
		{subject: "STREAM.MSG.DELETE.*", kind: "stream_msg_delete_response", handle: (*call).msgDelete},
		{subject: "STREAM.SNAPSHOT.*", kind: "stream_snapshot_response", handle: (*call).streamSnapshot},
		{subject: "STREAM.RESTORE.*", kind: "stream_restore_response", handle: (*call).streamRestore, decides: true},
	}
}

// streamCreate makes a stream, or finds that it is there already just as asked for.
func (c *call) streamCreate() {
	cfg, ok := c.streamConfig()
	if !ok {
		return
	}
	if err := cfg.CheckCreate(); err != nil {
		c.refuse(err)
		return
	}
	c.svc.cluster.CreateStream(c.account.broker.Name(), cfg, c.metaLimits(), func(cs *cluster.Stream, created bool, err error) {
		c.configured(cs, created || !c.svc.opts.Clustered, err)
	})
}

// streamUpdate replaces the configuration of a stream.
func (c *call) streamUpdate() {
	cfg, ok := c.streamConfig()
	if !ok {
		return
	}
	c.svc.cluster.UpdateStream(c.account.broker.Name(), cfg, c.metaLimits(), func(cs *cluster.Stream, err error) {
		c.configured(cs, false, err)
	})
}

// streamConfig reads the configuration in a request and completes it; what is wrong with it is
// answered.
func (c *call) streamConfig() (*api.StreamConfig, bool) {
	var req api.StreamConfigRequest
	if len(c.body) > 0 && !c.decode(&req) {
		return nil, false
	}
	cfg, err := c.checkConfig(&req)
	if err != nil {
		c.refuse(err)
		return nil, false
	}
	c.complete(&cfg)
	return &cfg, true
}

func (c *call) checkConfig(req *api.StreamConfigRequest) (cfg api.StreamConfig, err *api.Error) {
	if strings.ContainsAny(c.name(), `/\`) {
		return cfg, api.ErrStreamNamePathSeparators
	}
	if req.Name != c.name() {
		return cfg, api.ErrStreamMismatch
	}
	if cfg, err = req.Local(c.svc.opts.Domain).Normalize(req.Pedantic); err != nil {
		return cfg, err
	}
	if most := c.svc.opts.Limits.DuplicateWindow; most > 0 && cfg.DuplicateWindow > most {
		if req.DuplicateWindow != 0 {
			return cfg, api.ErrInvalidConfig.With(fmt.Sprintf("duplicates window can not be larger then server limit of %v", most))
		}
		cfg.DuplicateWindow = most
	}
	if !c.followDirect(&cfg) && req.Pedantic {
		return cfg, api.ErrPedantic.With("origin stream has direct get set, mirror has it disabled")
	}
	if cfg.Replicas > 1 && !c.svc.opts.Clustered {
		return cfg, api.ErrReplicasNotSupported
	}
	return cfg, nil
}

// configured answers a creation or update once the stream serves.
func (c *call) configured(cs *cluster.Stream, created bool, err error) {
	if err != nil {
		c.failed(err)
		return
	}
	if h := c.svc.of(cs); h != nil {
		h.updated() // Who hears of the stream shall find it.
	}
	c.inform(cs, settledSubject, holdFor, func(info *api.StreamInfo) {
		c.respond(&api.StreamCreateResponse{Header: c.header(), StreamInfo: info, DidCreate: created})
	})
}

// describe is what create, update and info tell of a stream.
func (c *call) describe(cs *cluster.Stream) *api.StreamInfo {
	info := &api.StreamInfo{
		Config:    cs.Config().Stamped(c.svc.opts.Version),
		Created:   time.Unix(0, cs.Assignment().Created).UTC(),
		Domain:    c.svc.opts.Domain,
		TimeStamp: time.Now().UTC(),
	}
	if m := cs.Machine(); m != nil {
		info.State = m.State()
	}
	if h := c.svc.of(cs); h != nil {
		info.State.Consumers = h.consumers()
		h.sourcing().describe(info)
	}
	return info
}

// streamDelete deletes a stream and all that is in it. Who hears that it is deleted finds it nowhere.
func (c *call) streamDelete() {
	if !c.empty() {
		return
	}
	c.svc.cluster.DeleteStream(c.account.broker.Name(), c.name(), func(was *meta.Stream, err error) {
		if err != nil {
			c.failed(err)
			return
		}
		c.untilGone(was, c.success)
	})
}

// streamInfo describes a stream.
func (c *call) streamInfo() {
	var req api.StreamInfoRequest
	if !c.decodeOptional(&req) {
		return
	}
	if cs := c.find(c.name()); cs != nil {
		c.informed(cs, &req)
	}
}

// streamSettled is streamInfo for a server that has just had a configuration decided, and has no
// replica to see when the stream works under it.
func (c *call) streamSettled() {
	c.svc.cluster.FindStream(c.account.broker.Name(), c.name(), func(cs *cluster.Stream, err error) {
		switch {
		case err != nil:
			c.refuse(api.ErrUnavailable)
		case cs == nil:
			c.refuse(api.ErrStreamNotFound)
		default:
			c.informed(cs, &api.StreamInfoRequest{})
		}
	})
}

func (c *call) informed(cs *cluster.Stream, req *api.StreamInfoRequest) {
	c.atLeader(cs, func() {
		c.read(cs, func(m *stream.Stream) {
			c.countFar(cs, func(n int) {
				resp, err := c.streamInfoResponse(cs, m, req, n)
				if err != nil {
					c.broken(cs, err)
					return
				}
				c.respond(resp)
			})
		})
	})
}

func (c *call) streamInfoResponse(cs *cluster.Stream, m *stream.Stream, req *api.StreamInfoRequest, far int) (*api.StreamInfoResponse, error) {
	resp := &api.StreamInfoResponse{Header: c.header(), StreamInfo: c.describe(cs)}
	resp.Cluster = c.svc.clusterInfo(cs)
	resp.Alternates = c.alternates(cs.Config())
	consumers := resp.State.Consumers + far
	if req.SubjectsFilter != "" || req.DeletedDetails {
		d := stream.Details{SubjectsFilter: req.SubjectsFilter, Offset: max(0, req.Offset), Limit: api.SubjectPage, Deleted: req.DeletedDetails}
		state, total, err := m.Describe(d)
		if err != nil {
			return nil, err
		}
		resp.State = state
		if req.SubjectsFilter != "" {
			resp.Page = api.Page{Total: total, Offset: min(d.Offset, total), Limit: api.SubjectPage}
		}
	}
	resp.State.Consumers = consumers
	return resp, nil
}

// streamPurge removes many messages.
func (c *call) streamPurge() {
	var req api.StreamPurgeRequest
	if !api.EmptyRequest(c.body) && !c.decode(&req) {
		return
	}
	if req.Seq > 0 && req.Keep > 0 {
		c.refuse(api.ErrBadRequest)
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	p := &stream.Purge{Filter: req.Filter, Seq: req.Seq, Keep: req.Keep}
	if req.Keep == 0 {
		p.Most = purgeMost
		if cs.Config().Engine() == api.StorageRocksDB {
			p.Most = purgeMostRocks
		}
	}
	c.propose(cs, stream.EncodePurge(p), func(r *stream.Result) { c.purgeRest(cs, r, 0) })
}

// How many messages one command of a purge removes, so that puts and gets go on meanwhile, and how long these have
// then for themselves. A command takes a few milliseconds.
const (
	purgeMost      = 5000
	purgeMostRocks = 250
	purgePause     = 3 * time.Millisecond
)

// purgeRest goes on with a purge as long as something is left of it. If that fails nobody can say that
// nothing was done, so nothing is said.
func (c *call) purgeRest(cs *cluster.Stream, r *stream.Result, before uint64) {
	purged := before + r.Purged
	if r.Rest == nil {
		c.respond(&api.StreamPurgeResponse{Header: c.header(), Success: true, Purged: purged})
		return
	}
	time.AfterFunc(purgePause, func() { // Refused once the server has stopped.
		cs.Propose(stream.EncodePurge(r.Rest), cluster.WaiterFunc(func(result any, err error) {
			if err != nil {
				return
			}
			if next := result.(*stream.Result); next.Err == nil {
				c.purgeRest(cs, next, purged)
			}
		}))
	})
}

// msgDelete removes one message.
func (c *call) msgDelete() {
	if api.EmptyRequest(c.body) {
		c.refuse(api.ErrBadRequest)
		return
	}
	var req api.MsgDeleteRequest
	if !c.decode(&req) {
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	command := stream.EncodeDelete(&stream.Delete{Seq: req.Seq, Erase: !req.NoErase})
	c.propose(cs, command, func(*stream.Result) { c.success() })
}
