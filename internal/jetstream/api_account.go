package jetstream

import (
	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

func accountRoutes() []route {
	return []route{{
		subject: "INFO", kind: "account_info_response", handle: (*call).accountInfo,
	}}
}

// accountInfo answers INFO: what the account uses, and may use.
func (c *call) accountInfo() {
	c.readMeta(func(m *meta.Machine) {
		a := c.account
		c.respond(&api.AccountInfoResponse{
			Header:      c.header(),
			AccountTier: a.usage(m, c.limits),
			Domain:      c.svc.opts.Domain,
			API:         api.APIStats{Level: api.Level, Total: a.total.Load(), Errors: a.errors.Load()},
		})
	})
}

// usage sums up the account's streams.
func (a *account) usage(m *meta.Machine, limits api.AccountLimits) api.AccountTier {
	t := api.AccountTier{Limits: limits}
	for _, ms := range m.Streams(a.broker.Name()) {
		t.Streams++
		cs := a.svc.cluster.Stream(ms.Account, ms.Config.Name)
		if cs == nil {
			continue
		}
		var bytes uint64
		if local := cs.Machine(); local != nil {
			bytes = local.State().Bytes
		}
		if h := a.svc.of(cs); h != nil {
			t.Consumers += h.consumers()
		}
		reserved := uint64(max(0, ms.Config.MaxBytes))
		if ms.Config.Storage == api.MemoryStorage {
			t.Memory += bytes
			t.ReservedMemory += reserved
		} else {
			t.Storage += bytes
			t.ReservedStorage += reserved
		}
	}
	return t
}
