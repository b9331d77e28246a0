package faults

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/cleatkv/cleat/sim/simfs"
)

var (
	operations = flag.Int("operations", 500, "how many operations a run has")
	call       = flag.Int("call", 0, "only this call fails, or is the last before a power cut")
	step       = flag.Int("step", 0, "every how many calls one fails, or is the last before a power cut; 0: as many as a short test takes")
)

// shortRuns is how many runs a test has that does not take every call.
const shortRuns = 24

// TestCleanRun holds the workload against the model on a disk without faults: what the other tests take for a
// fault must not be the test's own.
func TestCleanRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun(1)
		if err := r.work(*operations); err != nil {
			t.Error(err)
		}
		if r.client.refused+r.client.silent > 0 {
			t.Errorf("%d requests refused, %d not answered\n%s", r.client.refused, r.client.silent, r.log)
		}
		if err := r.check(); err != nil {
			t.Errorf("%v\n%s", err, r.log)
		}
		r.close()
		t.Logf("%d calls to the file system", r.disk.Ops())
	})
}

// TestFailEveryIO fails every call to the file system of a run, one in each. Whatever the call was
// for: no answer is wrong, the server says what failed if it does not do its work, and after a power cut
// and a start on a healthy disk everything acknowledged is there and every bucket serves.
func TestFailEveryIO(t *testing.T) {
	for k := range sample(t) {
		t.Run(fmt.Sprint("call", k), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) *journal { return failCall(t, k) })
		})
	}
}

// sample yields the calls that a test is about.
func sample(t *testing.T) iter.Seq[int] {
	if *call > 0 {
		return slices.Values([]int{*call})
	}
	calls := countCalls(t)
	every, first := *step, 1
	if every == 0 {
		every = max(1, calls/shortRuns)
		first += rand.IntN(every) // Each time others.
	}
	return func(yield func(int) bool) {
		for k := first; k <= calls; k += every {
			if !yield(k) {
				return
			}
		}
	}
}

// countCalls counts the calls of a run without faults.
func countCalls(t *testing.T) (calls int) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun(1)
		if err := r.work(*operations); err != nil {
			t.Error(err)
		}
		r.close()
		calls = r.disk.Ops()
	})
	return calls
}

// bubble runs a test in a bubble, in which everything that was started has to end. Pebble leaves a
// goroutine behind when it could not open a database; nothing else is forgiven.
func bubble(t *testing.T, f func(*testing.T) *journal) {
	var log *journal
	defer func() {
		if p := recover(); p != nil {
			if text := fmt.Sprint(p); !strings.Contains(text, "blocked goroutines remain") || !strings.Contains(log.String(), "open the database of rocksdb") {
				panic(p)
			}
		}
	}()
	synctest.Test(t, func(t *testing.T) { log = f(t) })
}

func failCall(t *testing.T, k int) *journal {
	r := newRun(1)
	failed := ""
	r.disk.SetHook(func(op simfs.Op) error {
		if op.Seq == k {
			failed = op.String()
			return syscall.EIO
		}
		return nil
	})
	err := r.work(*operations)
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Errorf("%s failed: the server stops for another reason: %v\n%s", failed, err, r.log)
	}
	if err == nil && r.client.refused+r.client.silent > 0 && !strings.Contains(r.log.String(), syscall.EIO.Error()) {
		t.Errorf("%s failed: %d requests refused, %d not answered, and the log does not say why\n%s", failed, r.client.refused, r.client.silent, r.log)
	}
	outcome := simfs.Outcome(k % 4)
	if after := r.disk.CrashClone(outcome, uint64(k)); k%8 < 4 {
		r.close()
		r.disk = after // The process was killed.
	} else {
		r.close()
		r.disk.SetHook(nil)
		r.disk.Crash(outcome)
	}
	if err := r.recover(); err != nil {
		t.Errorf("%s failed, %s of what was not synced is left: %v\n%s", failed, outcome, err, r.log)
	}
	r.close()
	return r.log
}

// run is one life of a disk, with the servers on it.
type run struct {
	disk   *simfs.FS
	log    *journal
	server *server // nil: none runs
	client *client
	done   int // operations
}

func newRun(seed uint64) *run {
	r := &run{disk: simfs.New(seed, simfs.Strict), log: &journal{}}
	r.client = newClient(r.log, seed)
	return r
}

func (r *run) start() (err error) {
	if r.server, err = startServer(r.disk, r.log); err == nil {
		r.client.server = r.server
	}
	return err
}

func (r *run) close() {
	if r.server != nil {
		if err := r.server.close(); err != nil {
			fmt.Fprintf(r.log, "close: %v\n", err)
		}
		r.server = nil
	}
}

// work lets the client do its operations, with restarts between them, until they are done or the
// server stops and says why.
func (r *run) work(n int) error {
	for ; r.done < n; r.done++ {
		if r.done%(n/3+1) == n/4 {
			r.close()
		}
		if r.server == nil {
			if err := r.start(); err != nil {
				return err
			}
		}
		r.client.work(r.done)
		if err := r.server.stopped(); err != nil {
			return err
		}
	}
	return nil
}

// recover starts a server on a healthy disk, does what is left of the operations, and looks at
// everything before and after them.
func (r *run) recover() error {
	if err := r.start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := r.check(); err != nil {
		return err
	}
	c := r.client
	c.refused, c.silent = 0, 0
	if err := r.work(*operations); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	if c.refused+c.silent > 0 {
		return fmt.Errorf("go on: %d requests refused, %d not answered", c.refused, c.silent)
	}
	return r.check()
}

// check holds all buckets against the books, and lets each take one more value.
func (r *run) check() error {
	c := r.client
	for _, b := range c.buckets {
		found, err := r.server.read(b)
		if err != nil {
			return fmt.Errorf("read %s: %w", b.name, err)
		}
		if err := judge(b.name, found, b.possible(len(b.states)-1)); err != nil {
			return err
		}
		b.unknown = nil
		b.states = append(b.states, found)
		refused, silent := c.refused, c.silent
		if found != nil {
			c.put(b, effect{kind: puts, key: "k0", value: "after"}, "")
			c.get(b, "k0")
		}
		if c.refused > refused || c.silent > silent {
			return fmt.Errorf("%s does not take one more value", b.name)
		}
	}
	if c.buckets[0].now() != nil {
		c.consume(c.buckets[0])
	}
	return c.wrong
}
