package jetstream

import (
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// streamNames lists the names of streams.
func (c *call) streamNames() {
	c.list(api.NamesPage, func(page api.Page, streams []*meta.Stream) {
		resp := &api.StreamNamesResponse{Header: c.header(), Page: page, Streams: make([]string, 0, len(streams))}
		for _, ms := range streams {
			resp.Streams = append(resp.Streams, ms.Config.Name)
		}
		c.respond(resp)
	})
}

// streamList describes streams. Those whose leader does not answer in time are told to be missing.
func (c *call) streamList() {
	c.list(api.ListPage, func(page api.Page, streams []*meta.Stream) {
		infos := make([]*api.StreamInfo, len(streams))
		var left atomic.Int64
		left.Store(1)
		finish := func() {
			if left.Add(-1) == 0 {
				c.streamListed(page, streams, infos)
			}
		}
		for i, ms := range streams {
			cs := c.svc.cluster.Stream(ms.Account, ms.Config.Name)
			if cs == nil {
				continue
			}
			left.Add(1)
			c.inform(cs, infoSubject, lookFor, func(info *api.StreamInfo) {
				info.Config = cs.Config().Stamped("")
				infos[i] = info
				finish()
			})
		}
		finish()
	})
}

func (c *call) streamListed(page api.Page, streams []*meta.Stream, infos []*api.StreamInfo) {
	resp := &api.StreamListResponse{Header: c.header(), Page: page, Streams: make([]*api.StreamInfo, 0, len(streams))}
	for i, info := range infos {
		if info == nil {
			resp.Missing = append(resp.Missing, streams[i].Config.Name)
		} else {
			resp.Streams = append(resp.Streams, info)
		}
	}
	c.respond(resp)
}

// list finds a page of the account's streams, by name, that a request asks for.
func (c *call) list(limit int, answer func(api.Page, []*meta.Stream)) {
	var req api.StreamListRequest
	if !c.decodeOptional(&req) {
		return
	}
	c.readMeta(func(m *meta.Machine) {
		all := m.Streams(c.account.broker.Name())
		if req.Subject != "" {
			filter := []string{req.Subject}
			matching := all[:0]
			for _, ms := range all {
				if api.SubjectsOverlap(ms.Config.Subjects, filter) {
					matching = append(matching, ms)
				}
			}
			all = matching
		}
		page := api.Page{Total: len(all), Offset: req.Offset, Limit: limit}
		from, to := page.Slice()
		answer(page, all[from:to])
	})
}
