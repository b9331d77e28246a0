package jetstream

import (
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

// streamList describes streams.
func (c *call) streamList() {
	c.list(api.ListPage, func(page api.Page, streams []*meta.Stream) {
		resp := &api.StreamListResponse{Header: c.header(), Page: page, Streams: make([]*api.StreamInfo, 0, len(streams))}
		for _, ms := range streams {
			cs := c.svc.cluster.Stream(ms.Account, ms.Config.Name)
			if cs == nil || cs.Machine() == nil {
				resp.Missing = append(resp.Missing, ms.Config.Name)
				continue
			}
			info := c.describe(cs)
			info.Config = cs.Config().Stamped("")
			if c.svc.opts.Clustered {
				info.Cluster = c.clusterInfo(cs)
			}
			resp.Streams = append(resp.Streams, info)
		}
		c.respond(resp)
	})
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
