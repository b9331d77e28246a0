package broker

import "sync/atomic"

// watch follows the interest in one subject. Changes raise dirty; whoever raises it from zero
// looks and reports until nobody raised it meanwhile. So reports never overlap, the last one is
// always the present state, and fn may itself subscribe, unsubscribe or cancel.
type watch struct {
	account *Account
	subject string
	queue   string
	fn      func(has bool)
	dirty   atomic.Int64
	last    bool // Owned by whoever runs report.
	gone    atomic.Bool
}

// WatchInterest calls fn on each change of Interest(subj, queue) until cancel. No lock of the
// broker is held meanwhile; fn runs on the goroutine that subscribed or unsubscribed and must not
// block. A call that began before cancel may still end after it. To know the state to begin with,
// ask Interest after WatchInterest.
func (a *Account) WatchInterest(subj, queue string, fn func(has bool)) (cancel func()) {
	w := &watch{account: a, subject: subj, queue: queue, fn: fn}
	w.dirty.Store(1) // Holds reports back until the first state is known.
	a.watches.Insert(subj, "", w)
	w.last = a.Interest(subj, queue)
	w.report(1)
	return func() {
		if !w.gone.Swap(true) {
			a.watches.Remove(subj, "", w)
		}
	}
}

// report looks until every raise seen so far is accounted for; seen is what the caller knows of.
func (w *watch) report(seen int64) {
	for {
		if has := w.account.Interest(w.subject, w.queue); has != w.last {
			w.last = has
			if !w.gone.Load() {
				w.fn(has)
			}
		}
		if seen = w.dirty.Add(-seen); seen == 0 {
			return
		}
	}
}

func (a *Account) interestChanged(subj string) {
	if a.watches.Len() == 0 {
		return
	}
	var mine []*watch
	a.watches.Overlapping(subj, func(w *watch) {
		if w.dirty.Add(1) == 1 {
			mine = append(mine, w)
		}
	})
	for _, w := range mine {
		w.report(1)
	}
}
