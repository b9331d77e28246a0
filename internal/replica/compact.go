package replica

import "github.com/cleatkv/cleat/internal/wal"

const (
	// keepEntries is how many log entries stay behind the machine's durable position for members that
	// are a little late.
	keepEntries = 1024
	// laggardEntries is how many more stay for members that are late, and there: who is later still,
	// or away, gets a snapshot.
	laggardEntries = 4 * keepEntries
)

// Compact gives up the log entries that the machine holds durably. Owner only.
func (r *Replica) Compact() {
	if r.failed != nil || r.installing {
		return // While a snapshot comes in, the machine's position is not one of this log.
	}
	durable := r.cfg.Machine.Durable().Index
	upTo := durable
	if !soleVoter(r.conf, r.cfg.ID) || len(r.conf.GetLearners()) > 0 {
		upTo = r.unneeded(upTo - min(upTo, keepEntries))
	}
	st, ok := r.cfg.Log.State(r.cfg.Group)
	if !ok || upTo < st.First {
		return
	}
	term, err := r.cfg.Log.Term(r.cfg.Group, upTo)
	if err != nil {
		return
	}
	r.cfg.Log.Submit([]wal.Update{{Group: r.cfg.Group, Compact: wal.Position{Index: upTo, Term: term}}}, func(error) {})
}

// unneeded bounds what may be given up by what other members need: those that are sent a snapshot, and those
// that are late.
func (r *Replica) unneeded(upTo uint64) uint64 {
	least := upTo - min(upTo, laggardEntries)
	for _, m := range r.listMembers() {
		if m.Active {
			upTo = min(upTo, max(m.Match, least))
		}
	}
	for _, index := range r.kept { // order: the least counts
		upTo = min(upTo, index)
	}
	return upTo
}
