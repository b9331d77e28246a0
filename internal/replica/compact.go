package replica

import "github.com/cleatkv/cleat/internal/wal"

// keepEntries is how many log entries stay behind the machine's durable position for members that
// are a little late; whoever is later gets a snapshot.
const keepEntries = 1024

// Compact gives up the log entries that the machine holds durably. Owner only.
func (r *Replica) Compact() {
	if r.failed != nil || r.installing {
		return // While a snapshot comes in, the machine's position is not one of this log.
	}
	durable := r.cfg.Machine.Durable().Index
	upTo := durable
	if !soleVoter(r.conf, r.cfg.ID) || len(r.conf.GetLearners()) > 0 {
		upTo -= min(upTo, keepEntries)
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
