package chaos

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

// repairMax is within which a damaged server must be whole again without an operator.
const repairMax = time.Minute

// damages are what can become of a server's files while it is down. Each tells what it did.
var damages = []struct {
	name string
	do   func(f *fleet, data string) string
}{
	{"flipped bits", func(f *fleet, data string) string {
		return f.edit(data, func(file *os.File, size int64) string {
			at := f.random.Int63n(size)
			var b [1]byte
			_, err := file.ReadAt(b[:], at)
			f.must(err)
			b[0] ^= 1 << f.random.Intn(8)
			_, err = file.WriteAt(b[:], at)
			f.must(err)
			return fmt.Sprintf("bit flipped at %d", at)
		})
	}},
	{"zeroed block", func(f *fleet, data string) string {
		return f.edit(data, func(file *os.File, size int64) string {
			at := f.random.Int63n(size) &^ 4095
			_, err := file.WriteAt(make([]byte, min(4096, size-at)), at)
			f.must(err)
			return fmt.Sprintf("zeroed from %d", at)
		})
	}},
	{"garbage", func(f *fleet, data string) string {
		return f.edit(data, func(file *os.File, size int64) string {
			at := f.random.Int63n(size) &^ 511
			b := make([]byte, min(2048, size-at))
			f.random.Read(b)
			_, err := file.WriteAt(b, at)
			f.must(err)
			return fmt.Sprintf("overwritten from %d", at)
		})
	}},
	{"truncated file", func(f *fleet, data string) string {
		return f.edit(data, func(file *os.File, size int64) string {
			to := f.random.Int63n(size)
			f.must(file.Truncate(to))
			return fmt.Sprintf("cut from %d to %d bytes", size, to)
		})
	}},
	{"missing file", func(f *fleet, data string) string {
		files := f.files(data)
		path := files[f.random.Intn(len(files))]
		f.must(os.Remove(path))
		return filepath.Base(path)
	}},
	{"empty disk", func(f *fleet, data string) string {
		f.must(os.RemoveAll(data))
		return "everything"
	}},
	{"disk of a while ago", func(f *fleet, data string) string {
		f.must(os.RemoveAll(data))
		f.must(os.CopyFS(data, os.DirFS(f.old)))
		return "everything"
	}},
}

// TestChaosDamage kills one of three servers under load, damages its files and starts it again, as often as it
// stops by itself. Whatever was damaged, the server comes back whole without an operator, or refuses to start and
// says why; then an operator gives it an empty disk. What was acknowledged stays, and nobody ever sees anything
// else.
func TestChaosDamage(t *testing.T) {
	f := newFleet(t, false)
	f.writers()
	refused, slowest := 0, time.Duration(0)
	for round := range *kills {
		victim, damage := round%len(f.servers), damages[round%len(damages)]
		s := f.servers[victim]
		data := filepath.Join(s.Dir, "data")
		f.calm()
		s.Kill()
		f.old = filepath.Join(t.TempDir(), "old")
		f.must(os.CopyFS(f.old, os.DirFS(data)))
		f.restart(victim)
		f.calm()
		s.Kill()
		what := damage.do(f, data)
		began := time.Now()
		how := "was whole again"
		if err := s.Start(); err != nil {
			refused++
			how = "refused to start, and was whole again with an empty disk"
			t.Logf("round %d: %v\n%s", round+1, err, s.LogTail(3))
			f.must(os.RemoveAll(data))
			f.restart(victim)
		}
		f.untilWhole(victim, began)
		slowest = max(slowest, time.Since(began))
		t.Logf("round %d: n%d, %s (%s): %s after %s", round+1, victim, damage.name, what, how, time.Since(began).Round(time.Millisecond))
		f.resumed(time.Now(), resumeMax, f.all()...)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d servers damaged, %d refused to start; slowest repair %s", *kills, refused, slowest.Round(time.Millisecond))
	f.judge()
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) restart(server int) {
	f.t.Helper()
	if err := f.servers[server].Start(); err != nil {
		f.t.Fatalf("restart of n%d: %v\n%s", server, err, f.servers[server].LogTail(30))
	}
}

// files lists the files below a directory that are not empty, sorted.
func (f *fleet) files(dir string) (all []string) {
	f.t.Helper()
	f.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > 0 {
			all = append(all, path)
		}
		return nil
	}))
	return all
}

// edit changes one file, any.
func (f *fleet) edit(dir string, change func(file *os.File, size int64) string) string {
	f.t.Helper()
	files := f.files(dir)
	path := files[f.random.Intn(len(files))]
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	info, err := file.Stat()
	f.must(err)
	what := change(file, info.Size())
	name, _ := filepath.Rel(dir, path)
	return name + ": " + what
}

// untilWhole waits until every server is healthy, every group has three members that keep up, and the one that was
// damaged can read all that it has: damage that nobody has met yet would make one fault too many of the next.
func (f *fleet) untilWhole(victim int, began time.Time) {
	f.t.Helper()
	var missing map[string]string
	for ; time.Since(began) < repairMax; time.Sleep(50 * time.Millisecond) {
		missing = map[string]string{"meta": "no leader", "KV_" + bucket: "no leader"}
		for i, s := range f.servers {
			name := fmt.Sprint("n", i)
			if _, err := s.Wait(time.Millisecond); err == nil { // It ended by itself: an init system starts it again.
				if err := s.Start(); err != nil {
					missing[name] = err.Error()
					continue
				}
			}
			if !healthy(s) {
				missing[name] = "not healthy"
			}
			if err := f.lacking(s, name, missing); err != nil {
				missing[name] = err.Error()
			}
		}
		if len(missing) > 0 {
			continue
		}
		all, ok := digests(f.servers[victim])
		if ok && all[0].Error == "" && all[1].Error == "" {
			return
		}
		missing[fmt.Sprint("n", victim)] = fmt.Sprintf("cannot read all that it has: %+v", all)
		_, _ = readStored(f.t, f.servers[victim], bucket, 1) // Whoever reads it finds it.
	}
	for _, what := range slices.Sorted(maps.Keys(missing)) {
		f.t.Errorf("after %s %s: %s", repairMax, what, missing[what])
	}
}

// members is what a leader says of the other members of its group.
type members struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Name    string `json:"name"`
		Current bool   `json:"current"`
		Offline bool   `json:"offline"`
	} `json:"replicas"`
}

// lacking notes what the groups miss that a server leads.
func (f *fleet) lacking(s *process.Server, name string, missing map[string]string) error {
	var answer struct {
		Meta     members `json:"meta_cluster"`
		Accounts []struct {
			Streams []struct {
				Name    string  `json:"name"`
				Cluster members `json:"cluster"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + s.HTTP + "/jsz?streams=true")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	note := func(group string, m members, others int) {
		if m.Leader != name {
			return
		}
		delete(missing, group)
		if len(m.Replicas) != others {
			missing[group] = fmt.Sprintf("%d members beside its leader", len(m.Replicas))
		}
		for _, r := range m.Replicas {
			if !r.Current || r.Offline {
				missing[group] = fmt.Sprintf("member %s: current %v, offline %v", r.Name, r.Current, r.Offline)
			}
		}
	}
	note("meta", answer.Meta, len(f.servers)-1)
	for _, a := range answer.Accounts {
		for _, st := range a.Streams {
			note(st.Name, st.Cluster, f.replicas-1)
		}
	}
	return nil
}

// TestChaosTwoStatesLost kills all three servers under load, spoils what two of them hold of the bucket beside its log,
// and starts them again, as often as it is told. The bucket goes on with the third one's state and the logs of all; the
// others get the state from it, and nothing that was acknowledged is missing.
func TestChaosTwoStatesLost(t *testing.T) {
	f := newFleet(t, false)
	f.writers()
	f.untilCheckpoint()
	var slowest time.Duration
	for round := range *kills {
		f.calm()
		for _, s := range f.servers {
			s.Kill()
		}
		sighted := round % len(f.servers)
		for _, i := range f.others(sighted) {
			f.spoilState(filepath.Join(f.servers[i].Dir, "data"))
		}
		began := time.Now()
		for _, s := range f.servers {
			f.must(s.Launch()) // All at once: none is ready alone.
		}
		serves := f.resumed(time.Now(), resumeMax, f.all()...)
		for i := range f.servers {
			f.untilWhole(i, began)
		}
		slowest = max(slowest, time.Since(began))
		t.Logf("round %d: the states of n%v spoiled: writes at all servers after %s, whole after %s", round+1, f.others(sighted), serves.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			break
		}
	}
	rebuilt := 0
	for _, s := range f.servers {
		rebuilt += strings.Count(s.LogTail(1<<20), "has a state again")
	}
	t.Logf("%d states rebuilt from another server; slowest %s", rebuilt, slowest.Round(time.Millisecond))
	if rebuilt == 0 {
		t.Error("no state was rebuilt: the test shows nothing")
	}
	f.judge()
}

// untilCheckpoint waits until the bucket's replicas have given up the beginning of their logs, so that a log alone is
// not enough to make a state again.
func (f *fleet) untilCheckpoint() { time.Sleep(25 * time.Second) }

// spoilState changes a byte in the middle of each file that a server has of the states of its streams.
func (f *fleet) spoilState(data string) {
	f.t.Helper()
	for _, path := range f.files(filepath.Join(data, "streams")) {
		b, err := os.ReadFile(path)
		f.must(err)
		b[len(b)/2] ^= 0x10
		f.must(os.WriteFile(path, b, 0o600))
	}
}
