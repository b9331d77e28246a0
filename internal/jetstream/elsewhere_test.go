package jetstream

import (
	"testing"
	"time"
)

// A server that was started a moment ago may be asked before the others can send their answers to it. A read is
// asked for again then, soon enough for the client to have the answer.
func TestReadsAreAskedForAgain(t *testing.T) {
	now := time.Now()
	e := &errand{reads: true, until: now.Add(holdFor + secondTry)}
	first := e.patience(now)
	second := e.patience(now.Add(first))
	const client = 5 * time.Second
	if first < time.Second || first > 2*time.Second || second < holdFor || first+second > client {
		t.Errorf("asked for %s, then for %s", first, second)
	}
	if late := e.patience(e.until); late != lookFor {
		t.Errorf("asked for %s at the end", late)
	}
	if w := (&errand{until: now.Add(holdFor)}).patience(now); w != askFor {
		t.Errorf("a change is asked for %s", w)
	}
}
