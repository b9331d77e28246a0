//go:build linux && faults

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// stall is a way in which disks of a cluster are slow for a while.
type stall struct {
	name   string
	delay  time.Duration // of each sync
	leader bool          // the leader's disk, else one of a follower
	also   bool          // and a follower's
	kill   bool          // the process does not live to see the disk go on
}

var stalls = []stall{
	{name: "a follower's syncs take 100 ms", delay: 100 * time.Millisecond},
	{name: "the leader's syncs take 100 ms", delay: 100 * time.Millisecond, leader: true},
	{name: "a follower's syncs take 3 s", delay: 3 * time.Second},
	{name: "the leader's syncs take 3 s", delay: 3 * time.Second, leader: true},
	{name: "a follower's disk stands still", delay: time.Hour},
	{name: "the leader's disk stands still", delay: time.Hour, leader: true},
	{name: "a follower's disk stands still, and it is killed", delay: time.Hour, kill: true},
	{name: "the leader's disk stands still, and it is killed", delay: time.Hour, leader: true, kill: true},
	{name: "the disks of the leader and a follower stand still", delay: time.Hour, leader: true, also: true},
}

const (
	stallFor = 8 * time.Second  // how long it lasts
	redMax   = 10 * time.Second // until a server whose disk stands still says that it is not healthy
)

// TestChaosStall makes the disks of servers slow, or has them stand still. Nobody but who has that disk may be slow
// for long, reads are right everywhere, health tells which disk it is, and what was acknowledged stays.
func TestChaosStall(t *testing.T) {
	f := newFleet(t, false)
	reads := f.read(f.writers())
	var pauses []time.Duration
	for n := range *kills {
		s := stalls[n%len(stalls)]
		f.calm()
		victim := f.leader()
		if !s.leader {
			victim = (victim + 1) % 3
		}
		if s.also {
			f.standStill(reads, s, victim)
		} else {
			pauses = append(pauses, f.stall(reads, s, victim))
		}
		for i := range f.servers {
			f.untilHealth(i, true, 30*time.Second)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("writes resumed, %s; %d, %d, %d reads, none stale", spread(pauses), reads.count[0].Load(), reads.count[1].Load(), reads.count[2].Load())
	f.judge()
}

// stall has one server meet a slow disk, which a majority must hardly notice.
func (f *fleet) stall(reads *readers, s stall, victim int) time.Duration {
	t := f.t
	t.Helper()
	heal := slowDisk(t, f.servers[victim], s.delay)
	at, before := time.Now(), f.book.count()[acknowledged]
	others := f.resumed(at, resumeMax, f.others(victim)...)
	pause := max(others, f.resumed(at, resumeMax, victim))
	read := reads.resumed(at, resumeMax, f.all()...)
	line := fmt.Sprintf("%s (n%d): writes at the others after %s, everywhere after %s, reads everywhere after %s",
		s.name, victim, others.Round(time.Millisecond), pause.Round(time.Millisecond), read.Round(time.Millisecond))
	if s.delay > redMax {
		f.untilHealth(victim, false, time.Until(at.Add(redMax)))
		if text := healthText(f.servers[victim]); !strings.Contains(text, "the disk of "+filepath.Join(f.servers[victim].Dir, "data")) {
			t.Errorf("health does not name the disk: %s", text)
		}
		line += fmt.Sprintf(", red after %s", time.Since(at).Round(100*time.Millisecond))
	}
	time.Sleep(time.Until(at.Add(stallFor)))
	// Nor may that have been for a moment only.
	f.resumed(time.Now(), resumeMax, f.all()...)
	reads.resumed(time.Now(), resumeMax, f.all()...)
	line += fmt.Sprintf(", %.0f writes/s", float64(f.book.count()[acknowledged]-before)/time.Since(at).Seconds())
	_, most := process.RSS(f.servers[victim].Pid())
	if s.kill {
		killStalled(t, f.servers[victim], heal)
	} else {
		heal()
	}
	healed := f.resumed(time.Now(), resumeMax, f.all()...)
	t.Logf("%s, at most %d MiB there; after the end everywhere after %s", line, most>>20, healed.Round(time.Millisecond))
	return pause
}

// standStill has the disks of a majority stand still: nothing may be acknowledged.
func (f *fleet) standStill(reads *readers, s stall, victim int) {
	t := f.t
	t.Helper()
	second := (victim + 1) % 3
	heal, healSecond := slowDisk(t, f.servers[victim], s.delay), slowDisk(t, f.servers[second], s.delay)
	at := time.Now()
	time.Sleep(stallFor)
	for i := range f.servers {
		if f.served[i].Load() > int64(at.Sub(f.begun)) {
			t.Errorf("n%d acknowledged a write that one disk of three has", i)
		}
	}
	heal()
	healSecond()
	healed := f.resumed(time.Now(), 2*resumeMax, f.all()...)
	read := reads.resumed(time.Now(), resumeMax, f.all()...)
	t.Logf("%s (n%d, n%d): nothing acknowledged; after the end writes everywhere after %s, reads after %s",
		s.name, victim, second, healed.Round(time.Millisecond), read.Round(time.Millisecond))
}

// TestChaosStallMeta lets the disk of the meta group's leader stand still: buckets can be created at the others
// within a few seconds, and are known to all in the end.
func TestChaosStallMeta(t *testing.T) {
	servers := process.NewCluster(t, 3, "")
	createBucket(t, servers[0], bucket, "file", 3)
	lead := metaLeader(t, servers)
	heal := slowDisk(t, servers[lead], time.Hour)
	for n, i := range []int{(lead + 1) % 3, (lead + 2) % 3} {
		began := time.Now()
		name := fmt.Sprintf("b%d", n)
		for err := error(nil); ; time.Sleep(100 * time.Millisecond) {
			if err = create(servers[i], name); err == nil {
				break
			}
			if time.Since(began) > 2*resumeMax {
				t.Fatalf("n%d creates no bucket: %v", i, err)
			}
		}
		t.Logf("n%d, where n%d led the meta group: bucket created after %s", i, lead, time.Since(began).Round(time.Millisecond))
	}
	if now := metaLeader(t, servers); now == lead {
		t.Errorf("n%d leads the meta group still", lead)
	}
	killStalled(t, servers[lead], heal)
	for _, s := range servers {
		for n := range 2 {
			js, err := jetstream.New(s.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.KeyValue(t.Context(), fmt.Sprintf("b%d", n)); err != nil {
				t.Errorf("bucket %d at %s: %v", n, s.Addr, err)
			}
		}
	}
}

func create(server *process.Server, name string) error {
	nc, err := nats.Connect(server.URL(), nats.MaxReconnects(0), nats.IgnoreDiscoveredServers())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Replicas: 3})
	return err
}

// metaLeader waits until all servers name the same leader of the meta group.
func metaLeader(t *testing.T, servers []*process.Server) int {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var leaders []int
		for _, s := range servers {
			var answer struct {
				Meta struct {
					Leader string `json:"leader"`
				} `json:"meta_cluster"`
			}
			n := -1
			if json.Unmarshal([]byte(ask(s, "/jsz")), &answer) == nil {
				_, _ = fmt.Sscanf(answer.Meta.Leader, "n%d", &n)
			}
			leaders = append(leaders, n)
		}
		if slices.Min(leaders) == slices.Max(leaders) && leaders[0] >= 0 {
			return leaders[0]
		}
	}
	t.Fatal("the servers do not agree who leads the meta group")
	return -1
}

func healthText(s *process.Server) string { return ask(s, "/healthz") }

// ask returns what the server answers to a request for monitoring.
func ask(s *process.Server, path string) string {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + s.HTTP + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// slowDisk has every sync of a running server take so much longer, until heal is called: strace holds up
// the threads that sync, and no others.
func slowDisk(t *testing.T, server *process.Server, delay time.Duration) (heal func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatalf("%v; on Debian: apt-get install strace", err)
	}
	pid := server.Pid()
	strace := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-p", fmt.Sprint(pid), "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d", min(delay, 30*time.Minute).Microseconds()))
	var said strings.Builder
	strace.Stderr = &said
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	healed := false
	heal = func() {
		if !healed {
			healed = true
			_ = strace.Process.Kill() // The kernel lets the threads go on.
			_ = strace.Wait()
		}
	}
	t.Cleanup(heal)
	for end := time.Now().Add(10 * time.Second); untraced(pid) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			heal()
			t.Fatalf("strace does not attach: %s", said.String())
		}
	}
	return heal
}

// killStalled kills a server whose disk is slow, and starts it again. Who traces a process has to let go of it before
// others see it end; none of its threads does anything then.
func killStalled(t *testing.T, server *process.Server, heal func()) {
	t.Helper()
	_ = syscall.Kill(server.Pid(), syscall.SIGKILL)
	heal()
	server.Kill()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
}

// untraced counts the threads of a process that nobody traces.
func untraced(pid int) (n int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		if text, err := os.ReadFile(task); err == nil && strings.Contains(string(text), "\nTracerPid:\t0\n") {
			n++
		}
	}
	return n
}
