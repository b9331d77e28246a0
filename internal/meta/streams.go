package meta

import (
	"slices"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// create makes a stream, or finds that it exists with the same configuration already.
func (m *Machine) create(tx storage.Tx, c *CreateStream) *Result {
	k := Key{c.Account, c.Config.Name}
	if s := m.mu.streams[k]; s != nil {
		if !api.ConfigEqual(&s.Config, &c.Config) {
			return &Result{Err: api.ErrStreamNameExists}
		}
		return &Result{Stream: s}
	}
	if err := m.fits(c.Account, &c.Config, c.Limits); err != nil {
		return &Result{Err: err}
	}
	s := &Stream{Account: c.Account, Group: m.issue(tx), Revision: 1, Created: m.now, Config: c.Config}
	for _, server := range c.Servers {
		r := Replica{ID: m.issue(tx), Server: server}
		s.Replicas = append(s.Replicas, r)
		s.Genesis = append(s.Genesis, r.ID)
	}
	m.put(tx, s)
	return &Result{Stream: s, Created: true}
}

// update replaces a configuration. Whether the change is one that a stream allows is judged here,
// in log order, against the configuration that it really replaces.
func (m *Machine) update(tx storage.Tx, c *UpdateStream) *Result {
	old := m.mu.streams[Key{c.Account, c.Config.Name}]
	if old == nil {
		return &Result{Err: api.ErrStreamNotFound}
	}
	if api.ConfigEqual(&old.Config, &c.Config) {
		return &Result{Stream: old}
	}
	if err := api.CheckUpdate(&old.Config, &c.Config); err != nil {
		return &Result{Err: err}
	}
	if err := m.fits(c.Account, &c.Config, c.Limits); err != nil {
		return &Result{Err: err}
	}
	s := *old
	s.Config, s.Revision = c.Config, old.Revision+1
	if err := m.scale(tx, &s, c); err != nil {
		return &Result{Err: err}
	}
	m.put(tx, &s)
	return &Result{Stream: &s}
}

// scale plans what a new number of replicas asks for, or another place for them. It may replace a plan that is under way: those
// who were to come stay members until the new plan has seen them out.
func (m *Machine) scale(tx storage.Tx, s *Stream, c *UpdateStream) *api.Error {
	members := s.Members()
	var adding []Replica
	var leaving, lost []uint64 // Those that are lost go in any case, and do not count.
	for _, r := range members {
		if slices.Contains(c.Leave, r.ID) {
			lost = append(lost, r.ID)
		}
	}
	moves := len(lost) > 0
	if s.Plan != nil {
		adding = s.Plan.Add
		for _, id := range s.Plan.Remove {
			switch {
			case slices.Contains(lost, id):
			case slices.Contains(s.Lost, id):
				lost = append(lost, id)
			default:
				leaving = append(leaving, id)
			}
		}
	}
	members = slices.DeleteFunc(slices.Clone(members), func(r Replica) bool { return slices.Contains(lost, r.ID) })
	want := c.Config.Replicas
	if want == len(members)-len(leaving) && !moves {
		return nil
	}
	if more := want - len(members); more > 0 {
		free := slices.DeleteFunc(slices.Clone(c.Servers), func(server uint64) bool { _, has := s.On(server); return has })
		if more > len(free) {
			return api.ErrNoPeers.With("no suitable peers for placement")
		}
		return m.plan(tx, s, adding, free[:more], lost)
	}
	// Who is on the way out goes first, then the newest.
	remove := lost
	leave := func(id uint64) {
		if len(remove)-len(lost) < len(members)-want && id != c.Keep && !slices.Contains(remove, id) {
			remove = append(remove, id)
		}
	}
	for _, id := range leaving {
		leave(id)
	}
	for _, r := range slices.Backward(members) {
		leave(r.ID)
	}
	return m.plan(tx, s, adding, nil, remove)
}

func (m *Machine) remove(tx storage.Tx, c *DeleteStream) *Result {
	k := Key{c.Account, c.Name}
	s := m.mu.streams[k]
	if s == nil || c.Group != 0 && s.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	tx.DeleteAux(auxKey(k))
	delete(m.mu.streams, k)
	m.mu.changed = append(m.mu.changed, k)
	return &Result{Stream: s}
}

// fits checks a configuration against the account's other streams and limits.
func (m *Machine) fits(account string, c *api.StreamConfig, l Limits) *api.Error {
	if err := m.checkOrigins(account, c); err != nil {
		return err
	}
	streams := 1
	reserved := max(0, c.MaxBytes)
	for _, s := range m.mu.streams { // order: only sums and one verdict
		if s.Account != account || s.Config.Name == c.Name {
			continue
		}
		streams++
		if s.Config.Storage == c.Storage {
			reserved += max(0, s.Config.MaxBytes)
		}
		if api.SubjectsOverlap(s.Config.Subjects, c.Subjects) {
			return api.ErrStreamSubjectOverlap
		}
	}
	total, each, full := l.StoreBytes, l.StreamStore, api.ErrStorageResourcesExceeded
	if c.Storage == api.MemoryStorage {
		total, each, full = l.MemoryBytes, l.StreamMemory, api.ErrMemoryResourcesExceeded
	}
	switch {
	case l.Streams > 0 && streams > l.Streams:
		return api.ErrMaximumStreamsLimit
	case l.BytesNeeded && c.MaxBytes <= 0:
		return api.ErrStreamMaxBytesRequired
	case each > 0 && c.MaxBytes > each:
		return api.ErrStreamMaxStreamBytesExceeded
	case total > 0 && c.MaxBytes > 0 && reserved > total:
		return full
	}
	return nil
}

// checkOrigins checks a configuration against the streams that it copies from, as far as they exist.
func (m *Machine) checkOrigins(account string, c *api.StreamConfig) *api.Error {
	for _, o := range c.Origins() {
		origin := m.mu.streams[Key{account, o.Name}]
		if origin == nil || c.MaxMsgSize <= 0 || origin.Config.MaxMsgSize <= c.MaxMsgSize {
			continue // An origin without a limit of its own is taken as well.
		}
		if c.Mirror != nil {
			return api.ErrMirrorMaxMessageSize
		}
		return api.ErrSourceMaxMessageSize
	}
	// As clients know it: neither the stream itself nor an origin named earlier may come in by way of
	// another origin.
	into := map[string]bool{c.Name: true}
	for _, o := range c.Origins() {
		if o.Name == c.Name || m.reaches(account, o.Name, into, make(map[string]bool)) {
			return api.ErrInvalidConfig.With("detected cycle")
		}
		into[o.Name] = true
	}
	return nil
}

// reaches tells whether the named stream copies from one of the others, itself or through its origins.
func (m *Machine) reaches(account, name string, others, seen map[string]bool) bool {
	s := m.mu.streams[Key{account, name}]
	if s == nil || seen[name] {
		return false
	}
	seen[name] = true
	for _, o := range s.Config.Origins() {
		if others[o.Name] || m.reaches(account, o.Name, others, seen) {
			return true
		}
	}
	return false
}
