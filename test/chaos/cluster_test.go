package chaos

import (
	"flag"
	"syscall"
	"testing"
	"time"
)

var pauseFor = flag.Duration("pause", 4*time.Second, "how long a stopped server of a cluster stays stopped")

// resumeMax is within which writes go on after a leader was lost. It leaves a slow machine some room
// beyond what the design promises (3 s), which is held against what long runs record.
const resumeMax = 8 * time.Second

// TestChaosClusterKill kills the leader again and again, as kill -9 does.
func TestChaosClusterKill(t *testing.T) {
	f := newFleet(t, false)
	f.writers()
	p := newProgress(t, f.servers, f.book)
	var pauses []time.Duration
	for kill := range *kills {
		f.calm()
		lead := f.leader()
		f.servers[lead].Kill()
		at := time.Now()
		pause := f.resumed(at, resumeMax, f.others(lead)...)
		pauses = append(pauses, pause)
		t.Logf("kill %d of n%d, which led: both others served again after %s", kill+1, lead, pause.Round(time.Millisecond))
		if err := f.servers[lead].Start(); err != nil {
			t.Fatalf("restart: %v\n%s", err, f.servers[lead].LogTail(30))
		}
		f.resumed(time.Now(), resumeMax, f.all()...)
		f.untilHealth(lead, true, 30*time.Second)
		if t.Failed() {
			break
		}
	}
	t.Logf("writes resumed, %s", spread(pauses))
	p.everywhere("after the last kill")
	f.judge()
}

// TestChaosClusterPause stops the leader for a while, as a debugger or a machine that is being moved does,
// and lets it wake up as what it believes to be the leader.
func TestChaosClusterPause(t *testing.T) {
	f := newFleet(t, false)
	f.writers()
	all := newProgress(t, f.servers, f.book)
	var pauses, woken []time.Duration
	for pause := range max(1, *kills/2) {
		f.calm()
		lead := f.leader()
		pid := f.servers[lead].Pid()
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		at := time.Now()
		p := f.resumed(at, resumeMax, f.others(lead)...)
		pauses = append(pauses, p)
		time.Sleep(time.Until(at.Add(*pauseFor)))
		_ = syscall.Kill(pid, syscall.SIGCONT)
		w := f.resumed(time.Now(), 2*resumeMax, f.all()...)
		woken = append(woken, w)
		t.Logf("stop %d of n%d, which led: both others served again after %s, and it %s after it woke up", pause+1, lead, p.Round(time.Millisecond), w.Round(time.Millisecond))
		f.untilHealth(lead, true, 30*time.Second)
		if t.Failed() {
			break
		}
	}
	t.Logf("writes resumed, %s; all three after the wake-up, %s", spread(pauses), spread(woken))
	all.everywhere("after the last stop")
	f.judge()
}
