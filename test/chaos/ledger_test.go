package chaos

import (
	"fmt"
	"sync"
	"testing"
)

// outcome is what a client knows of a write.
type outcome int

const (
	pending outcome = iota
	acknowledged
	refused // A definite error: it did not happen and will not.
	unknown // A time-out or a lost connection: it may have happened.
)

// write is one attempt to write. Its value is unique among all attempts.
type write struct {
	key      string
	outcome  outcome
	revision uint64 // if acknowledged
	expected uint64 // of a compare-and-set: the revision it builds on
	cas      bool

	// When it began and when its outcome was known, in ticks of the ledger.
	began, ended uint64
}

// ledger is what the clients know about their writes to one bucket, and judges what the server has
// stored by it.
type ledger struct {
	bucket string

	mu struct {
		sync.Mutex
		writes map[string]*write // by value
		clock  uint64
	}
	verified uint64 // Every acknowledged revision up to this one was found again.
}

func newLedger(bucket string) *ledger {
	l := &ledger{bucket: bucket}
	l.mu.writes = map[string]*write{}
	return l
}

// begin notes an attempt before it is sent.
func (l *ledger) begin(value string, w write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.clock++
	w.began = l.mu.clock
	l.mu.writes[value] = &w
}

// end notes what became of the attempt.
func (l *ledger) end(value string, o outcome, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.mu.writes[value]
	l.mu.clock++
	w.outcome, w.revision, w.ended = o, revision, l.mu.clock
}

func (l *ledger) count() map[outcome]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[outcome]int{}
	for _, w := range l.mu.writes {
		n[w.outcome]++
	}
	return n
}

// snapshot returns the writes as of now.
func (l *ledger) snapshot() map[string]write {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]write, len(l.mu.writes))
	for value, w := range l.mu.writes {
		all[value] = *w
	}
	return all
}

// verifyAcked looks for what was acknowledged before the records, which begin after l.verified, were
// read: known is a snapshot from then. It returns how many writes are acknowledged, and a line for
// each that is lost.
func (l *ledger) verifyAcked(known map[string]write, stored []record) (acked int, lost []string) {
	byRevision := map[uint64]record{}
	through := l.verified
	for _, r := range stored {
		byRevision[r.revision] = r
		through = r.revision
	}
	for value, w := range known {
		if w.outcome != acknowledged {
			continue
		}
		acked++
		if w.revision <= l.verified {
			continue // Checked before.
		}
		if r := byRevision[w.revision]; r.key != w.key || r.value != value {
			lost = append(lost, fmt.Sprintf("LOST: %s=%s of %s was acknowledged as revision %d, where %q=%q is stored",
				w.key, value, l.bucket, w.revision, r.key, r.value))
		}
	}
	l.verified = through
	return acked, lost
}

// verifyAll judges everything that is stored, after the last client has stopped, and returns how
// much of it is wrong.
func (l *ledger) verifyAll(t *testing.T, stored []record) int {
	t.Helper()
	problems := judge(l.snapshot(), stored)
	for _, problem := range problems {
		t.Error(problem)
	}
	return len(problems)
}
