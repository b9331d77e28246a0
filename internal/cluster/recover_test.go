package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// recoverFrom makes a server that does not run a cluster of its own.
func (c *trio) recoverFrom(i int) *Recovery {
	c.t.Helper()
	report, err := Recover(Options{FS: c.fs[i], Dir: "data", Logger: logger(c.t)}, true)
	if err != nil {
		c.t.Fatal(err)
	}
	return report
}

func (r *Recovery) outcome(stream string) string {
	for _, s := range r.Streams {
		if s.Stream == stream {
			return s.Outcome
		}
	}
	return ""
}

// halfLost prepares three servers with a bucket each of several kinds, and stops them all; n2 is the one whose disk
// is to be left.
func halfLost(t *testing.T) (c *trio, fatal chan string) {
	c = prepareTrio(t, 3)
	fatal = make(chan string, 100)
	c.more = func(o *Options) {
		name := o.Name
		o.OnFatal = func(err error) { fatal <- name + ": " + err.Error() }
		o.Route.Tags = []string{name}
	}
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	rocks := bucket("r", 3, api.FileStorage)
	rocks.Metadata = map[string]string{api.MetadataStorage: api.StorageRocksDB}
	create(t, c.servers[0], rocks)
	create(t, c.servers[0], bucket("m", 3, api.MemoryStorage))
	for _, name := range []string{"n0", "n2"} {
		on := bucket("on-"+name, 1, api.FileStorage)
		on.Placement = &api.Placement{Tags: []string{name}}
		create(t, c.servers[0], on)
	}
	for i := range 60 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i))
	}
	c.putAnywhere(0, "KV_r", "$KV.r.k", "rocks")
	c.putAnywhere(0, "KV_m", "$KV.m.k", "memory")
	c.putAnywhere(0, "KV_on-n0", "$KV.on-n0.k", "there")
	c.putAnywhere(0, "KV_on-n2", "$KV.on-n2.k", "here")
	for _, name := range []string{"KV_b", "KV_r", "KV_m"} {
		c.settled(name, 3) // What only the others have is lost.
	}
	for _, s := range c.servers {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return c, fatal
}

// holds checks that a server answers with all that was put before the loss.
func (c *trio) holds(i int) {
	c.t.Helper()
	for k := range 60 {
		c.read(i, "KV_b", fmt.Sprintf("$KV.b.k%d", k), fmt.Sprint("v", k))
	}
	c.read(i, "KV_r", "$KV.r.k", "rocks")
	if i == 2 {
		c.read(i, "KV_on-n2", "$KV.on-n2.k", "here")
	}
}

// read waits until a server answers with a value.
func (c *trio) read(i int, name, subject, want string) {
	c.t.Helper()
	s := waitStream(c.t, c.servers[i], name)
	eventually(c.t, fmt.Sprintf("n%d reads %s", i, subject), func() bool {
		v, err := get(c.t, s, subject)
		return err == nil && v == want
	})
}

// The trap: two of three disks are lost for good, the third goes on alone, and then the two come back, a majority
// of what the cluster was. They must never be of it again.
func TestForceRecoverFencesOldMajority(t *testing.T) {
	c, fatal := halfLost(t)
	report := c.recoverFrom(2)
	for name, want := range map[string]string{
		"KV_b": OutcomeKept, "KV_r": OutcomeKept, "KV_m": OutcomeEmpty, "KV_on-n0": OutcomeLost, "KV_on-n2": OutcomeKept,
	} {
		if got := report.outcome(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if report.Server != "n2" || fmt.Sprint(report.Removed) != "[n0 n1]" || report.Cluster == report.Former {
		t.Errorf("report: %+v", report)
	}
	// The old majority is back meanwhile, goes on by itself, and is told when it meets the one that is alone.
	c.start(0)
	c.start(1)
	c.putAnywhere(0, "KV_b", "$KV.b.k0", "of the old majority")
	c.start(2)
	c.formed(2)
	told := map[string]bool{}
	for len(told) < 2 {
		select {
		case text := <-fatal:
			if !strings.Contains(text, "this server was given up") {
				t.Fatal(text)
			}
			told[text[:2]] = true
		case <-time.After(20 * time.Second):
			t.Fatalf("told: %v", told)
		}
	}
	if told["n2"] {
		t.Error("the one that went on was stopped")
	}
	eventually(t, "the one that is alone serves", func() bool { return c.servers[2].Healthy() == nil })
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		st := c.servers[2].metaGroup.rep.Load().Status()
		if c.servers[2].Healthy() != nil || !st.Leading || len(st.Conf.GetVoters()) != 1 || len(c.servers[2].PeerIDs()) > 0 {
			t.Fatalf("the meta group: %+v; peers %v, %v", st, c.servers[2].PeerIDs(), c.servers[2].Healthy())
		}
	}
	c.holds(2)
	c.putAnywhere(2, "KV_b", "$KV.b.k", "alone")
	c.putAnywhere(2, "KV_m", "$KV.m.k", "anew")
	if s := c.servers[2].Stream("$G", "KV_on-n0"); s == nil || s.IsLeader() {
		t.Error("what is lost does not stand there as that")
	}
	if err := deleteStream(t, c.servers[2], "KV_on-n0"); err != nil {
		t.Errorf("delete what is lost: %v", err)
	}

	// With empty disks they are new servers, and the bucket has three replicas again.
	old := c.fs[0]
	for i := range 2 {
		c.servers[i].Close()
		c.fs[i] = vfs.NewMem()
		c.start(i)
	}
	c.formed(0)
	c.formed(1)
	c.settled("KV_b", 3)
	c.settled("KV_r", 3)
	c.settled("KV_m", 3)
	c.holds(0)
	c.crash(2)
	c.putAnywhere(1, "KV_b", "$KV.b.k", "with two of the new three")

	// The new ones know as well of whom not to listen to.
	c.servers[2].Close()
	start(t, Options{FS: old, Name: "n9", Route: &Route{Cluster: "C", Listen: "127.0.0.1:0", Seeds: c.routes}, OnFatal: func(err error) { fatal <- "n9: " + err.Error() }})
	for text := range fatal {
		if strings.HasPrefix(text, "n9: this server was given up") {
			break
		}
	}
}

// Without the word that the loss is accepted nothing is changed, and nothing at all where there is nothing to
// recover.
func TestRecoverOnlyLooks(t *testing.T) {
	c, _ := halfLost(t)
	report, err := Recover(Options{FS: c.fs[2], Dir: "data", Logger: logger(t)}, false)
	if err != nil || report.Cluster != "" || report.outcome("KV_b") != OutcomeKept || report.outcome("KV_on-n0") != OutcomeLost {
		t.Fatalf("%+v %v", report, err)
	}
	c.startAll()
	c.putAnywhere(2, "KV_b", "$KV.b.k", "all three")
	c.settled("KV_b", 3)
	if _, err := Recover(Options{FS: c.fs[2], Dir: "data", Logger: logger(t)}, true); err == nil || !strings.Contains(err.Error(), "stop the server") {
		t.Errorf("a server that runs: %v", err)
	}
	for what, want := range map[string]string{"nothing": "not the directory of a server", "alone": "is the only one of its cluster", "blank": "belongs to no cluster"} {
		fs := vfs.NewMem()
		switch what {
		case "alone":
			if err := start(t, Options{FS: fs, Name: "solo"}).Close(); err != nil {
				t.Fatal(err)
			}
		case "blank":
			if err := start(t, Options{FS: fs, Name: "blank", Route: &Route{Cluster: "C", Listen: "127.0.0.1:0", Seeds: c.routes[:1]}}).Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Recover(Options{FS: fs, Dir: "data", Logger: logger(t)}, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A recovery that loses power anywhere on its way is ended by the next one, and no server starts between.
func TestRecoverCrashEveryStep(t *testing.T) {
	c := prepareTrio(t, 3)
	disk := simfs.New(1, simfs.Journal)
	c.fs[2] = disk
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 20 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i))
	}
	c.settled("KV_b", 3)
	left := disk.CrashClone(simfs.Nothing, 1) // What a power cut leaves: no clean end, most of it in the log.
	for _, s := range c.servers {
		s.Close()
	}
	steps, unfinished := 0, 0
	for failed := true; failed; {
		steps++
		disk := left.CrashClone(simfs.Everything, uint64(steps))
		var ops atomic.Int64
		gone := int64(steps)
		disk.SetHook(func(op simfs.Op) error {
			// Power goes at what makes something durable; how much of the writes before is left, varies.
			if strings.HasPrefix(op.Kind, "sync") || strings.HasPrefix(op.Kind, "re") && op.Kind != "read" || ops.Load() >= gone {
				if ops.Add(1) >= gone {
					return errDiskGone
				}
			}
			return nil
		})
		_, err := Recover(Options{FS: disk, Dir: "data", Logger: slog.New(slog.DiscardHandler)}, true)
		failed = ops.Load() >= gone
		if err != nil && !failed {
			t.Fatal(err)
		}
		disk.SetHook(nil)
		disk = disk.CrashClone(simfs.Outcome(steps%4), uint64(steps))
		c.fs[2] = disk
		id, err := loadIdentity(disk, "data")
		if err != nil {
			t.Fatal(err)
		}
		_, err = disk.Stat("data/" + recoveryMark)
		marked := err == nil
		if marked {
			unfinished++
			early := New(Options{FS: disk, Dir: "data", Name: "n2", Hooks: deaf{}, Logger: logger(t), Route: &Route{Cluster: "C", Listen: c.routes[2], Seeds: c.routes}})
			if err := early.Start(); !errors.Is(err, errRecovering) {
				t.Fatalf("step %d: started in the middle of it: %v", steps, err)
			}
		}
		if marked || id.cluster == c.servers[0].id.cluster {
			c.recoverFrom(2)
		}
		c.start(2)
		c.formed(2)
		for i := range 20 {
			c.read(2, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i))
		}
		c.putAnywhere(2, "KV_b", "$KV.b.k", "alone")
		if err := c.servers[2].Close(); err != nil {
			t.Fatal(err)
		}
		if c.servers[2].id.cluster == c.servers[0].id.cluster {
			t.Fatalf("step %d: of the old cluster still", steps)
		}
	}
	t.Logf("%d steps, %d of them after the mark", steps, unfinished)
	if unfinished < 20 {
		t.Error("hardly any step was interrupted: the test shows nothing")
	}
}
