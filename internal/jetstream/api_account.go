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

// accountInfo answers INFO: what the account uses, and may use. What streams hold is told by the servers
// that lead them, and consumers by those that deliver for them; another server, which adds up what it
// hears, gets the part of this one.
func (c *call) accountInfo() {
	if c.via != nil {
		if m := c.svc.cluster.Meta(); m == nil {
			c.refuse(api.ErrUnavailable)
		} else {
			c.accountUses(c.account.usage(m, c.limits))
		}
		return
	}
	c.readMeta(func(m *meta.Machine) {
		c.account.gatherFrom(c.svc.cluster.PeerIDs(), apiPrefix+"INFO", nil, func(parts []outcome) {
			t := c.account.usage(m, c.limits)
			addUsage(&t, parts)
			c.accountUses(t)
		})
	})
}

// addUsage adds what other servers told of theirs.
func addUsage(t *api.AccountTier, parts []outcome) {
	for _, o := range parts {
		var r api.AccountInfoResponse
		if api.DecodeLenient(o.body, &r) == nil {
			t.Memory += r.Memory
			t.Storage += r.Storage
			t.Consumers += r.Consumers
		}
	}
}

func (c *call) accountUses(t api.AccountTier) {
	a := c.account
	c.respond(&api.AccountInfoResponse{
		Header:      c.header(),
		AccountTier: t,
		Domain:      c.svc.opts.Domain,
		API:         api.APIStats{Level: api.Level, Total: a.total.Load(), Errors: a.errors.Load()},
	})
}

// usage sums up the account's streams, with what those hold that this server leads and the consumers
// that it delivers for.
func (a *account) usage(m *meta.Machine, limits api.AccountLimits) api.AccountTier {
	t := api.AccountTier{Limits: limits}
	for _, ms := range m.Streams(a.broker.Name()) {
		t.Streams++
		var bytes uint64
		if cs := a.svc.cluster.Stream(ms.Account, ms.Config.Name); cs != nil {
			if local := cs.Machine(); local != nil && cs.IsLeader() {
				bytes = local.State().Bytes
			}
			if h := a.svc.of(cs); h != nil {
				t.Consumers += h.consumers()
			}
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
