package replica

import (
	"fmt"
	"math"

	"github.com/cleatkv/cleat/internal/wal"
)

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
	if r.cfg.Blind {
		r.compactBlind()
		return
	}
	durable := r.cfg.Machine.Durable().Index
	upTo := durable
	if !soleVoter(r.conf, r.cfg.ID) || len(r.conf.GetLearners()) > 0 {
		upTo = r.unneeded(upTo - min(upTo, keepEntries))
	}
	r.compactTo(upTo)
}

// Outlive is told that log entries can not be read any more. If the machine holds them durably the log goes on
// behind them, and whoever is later than that gets a snapshot; otherwise the replica stops, and Outlive
// returns false. Owner only (use Shard.Call).
func (r *Replica) Outlive(d *wal.DamageError) bool {
	if r.failed != nil {
		return false
	}
	last := uint64(math.MaxUint64)
	if n := len(d.Lost); n > 0 && !d.Unknown {
		last = d.Lost[n-1].Last
	}
	if r.cfg.Blind || r.installing || last > r.cfg.Machine.Durable().Index {
		r.fail(fmt.Errorf("its log cannot be read: %w", d))
		return false
	}
	r.compactTo(last)
	return true
}

// Name is what the replica is called in the server's log.
func (r *Replica) Name() string { return r.cfg.Name }

func (r *Replica) compactTo(upTo uint64) {
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
