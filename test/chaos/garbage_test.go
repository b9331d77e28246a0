package chaos

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// garbleTail makes garbage of the last batches in a server's log, so that nobody knows what they held.
func (f *fleet) garbleTail(server int) {
	f.t.Helper()
	const header = 4096 // There is a copy of it at the very end of each segment.
	var last string
	var used int
	for _, path := range f.files(filepath.Join(f.servers[server].Dir, "data", "wal")) {
		b, err := os.ReadFile(path)
		f.must(err)
		if n := len(bytes.TrimRight(b[:max(0, len(b)-header)], "\x00")); strings.HasSuffix(path, ".wal") && n > header {
			last, used = path, n
		}
	}
	file, err := os.OpenFile(last, os.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	garbage := make([]byte, 8<<10)
	f.random.Read(garbage)
	at := max(header, used-len(garbage))
	_, err = file.WriteAt(garbage[:used-at], int64(at))
	f.must(err)
	f.must(file.Sync())
}

// TestChaosGarbageTail kills all servers under load, and makes garbage of the end of the log of one of the two that have
// a replica of the bucket. Nobody can lead it any more; what the other one has is all that was acknowledged, so the bucket
// comes back with that, by itself, and with two replicas.
func TestChaosGarbageTail(t *testing.T) {
	f := newFleetWith(t, false, 2)
	f.writers()
	for round := range *kills {
		f.calm()
		for _, s := range f.servers {
			s.Kill()
		}
		homes := f.homes()
		if len(homes) != 2 {
			t.Fatalf("servers %v have the bucket", homes)
		}
		f.garbleTail(homes[round%2])
		began := time.Now()
		for _, s := range f.servers {
			f.must(s.Launch())
		}
		serves := f.resumed(began, time.Minute, f.all()...)
		for i := range f.servers {
			f.untilHealth(i, true, time.Minute)
		}
		f.untilReplicated() // Or the next one would be one fault too many.
		t.Logf("round %d: the end of the log of n%d is garbage: writes at all servers after %s, all well after %s", round+1, homes[round%2], serves.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			break
		}
	}
	anew := 0
	for _, s := range f.servers {
		anew += strings.Count(s.LogTail(1<<20), "begun anew from replica")
	}
	t.Logf("begun anew %d times", anew)
	if anew == 0 {
		t.Error("the bucket never began anew: the test shows nothing")
	}
	f.judgeStored()
}

// TestChaosGarbageTails does that to the logs of two servers of three, that of the meta group's as well. What they held at the
// end may have been acknowledged by the two alone, and nothing can tell: nobody serves, and all say why.
func TestChaosGarbageTails(t *testing.T) {
	f := newFleet(t, false)
	f.writers()
	f.calm()
	for _, s := range f.servers {
		s.Kill()
	}
	f.garbleTail(0)
	f.garbleTail(1)
	began := time.Now()
	for _, s := range f.servers {
		f.must(s.Launch())
	}
	f.untilSaid("asks the other servers to be admitted", 0, 1)
	time.Sleep(10 * time.Second)
	for i, s := range f.servers {
		if f.served[i].Load() > int64(began.Sub(f.begun)) {
			t.Errorf("a write was acknowledged at n%d", i)
		}
		resp, err := http.Get("http://" + s.HTTP + "/healthz")
		f.must(err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		t.Logf("n%d: %s", i, body)
		if resp.StatusCode == http.StatusOK {
			t.Errorf("n%d says that it is well", i)
		}
	}
}

// untilReplicated waits until all groups have as many members as they are to have, which vote and keep up.
func (f *fleet) untilReplicated() {
	f.t.Helper()
	var missing map[string]string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		missing = map[string]string{"meta": "no leader", "KV_" + bucket: "no leader"}
		for i, s := range f.servers {
			name := fmt.Sprint("n", i)
			if err := f.lacking(s, name, missing); err != nil {
				missing[name] = err.Error()
			}
		}
		if len(missing) == 0 {
			return
		}
	}
	f.t.Errorf("not whole: %v", missing)
}

// untilSaid waits until servers have said something in their logs.
func (f *fleet) untilSaid(what string, servers ...int) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !slices.ContainsFunc(servers, func(i int) bool { return !strings.Contains(f.servers[i].LogTail(1<<20), what) }) {
			return
		}
	}
	f.t.Errorf("servers %v never said %q", servers, what)
}

// homes are the servers that have a replica of a stream in files.
func (f *fleet) homes() (all []int) {
	for i, s := range f.servers {
		if len(f.files(filepath.Join(s.Dir, "data", "streams"))) > 0 {
			all = append(all, i)
		}
	}
	return all
}

// judgeStored ends the load and holds what clients were told against what is stored.
func (f *fleet) judgeStored() {
	f.t.Helper()
	f.stop()
	f.load.Wait()
	stored, err := readStored(f.t, f.servers[0], bucket, 1)
	f.must(err)
	problems := f.book.verifyAll(f.t, stored)
	for _, s := range f.servers {
		verifyGets(f.t, s, bucket, stored)
	}
	total := f.book.count()
	f.t.Logf("%d writes acknowledged, %d lost or wrong; %d refused, %d of unknown outcome", total[acknowledged], problems, total[refused], total[unknown])
}
