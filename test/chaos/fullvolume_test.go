//go:build linux && faults

package chaos

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

var fillings = flag.Int("fillings", 10, "how many times a volume is filled")

// TestFullVolume fills a volume of 32 MiB again and again, with values, and for a bucket in files by turns with
// a file of somebody else. When it is full puts are refused and gets are not; when it is not any more puts are taken again, and everything
// acknowledged is there, also after a restart.
func TestFullVolume(t *testing.T) {
	for _, engine := range []string{"file", "rocksdb"} {
		t.Run(engine, func(t *testing.T) {
			dir := t.TempDir()
			newVolumeOf(t, filepath.Join(dir, "data"), 32<<20)
			server := openServer(t, dir, nil)
			defer server.Kill()
			v := &filled{t: t, nc: connect(t, server.URL()), dir: filepath.Join(dir, "data"), have: make(map[string]byte)}
			v.create(engine)
			for round := range *fillings {
				// A database may have more in memory than the reserve has room for.
				other := round%2 == 1 && engine == "file"
				if other {
					v.others()
				}
				n := v.puts(round)
				v.check()
				v.purge()
				if other {
					if err := os.Remove(v.other()); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("round %d: %d values of 100 kB, the other one's file: %v", round, n, other)
			}
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			v.nc = connect(t, server.URL())
			v.check()
			if n := v.puts(*fillings); n < 20 {
				t.Errorf("only %d values fit after all is purged", n)
			}
			if strings.Contains(server.LogTail(1000), "out of service") {
				t.Errorf("something is out of service:\n%s", server.LogTail(50))
			}
		})
	}
}

// filled is a bucket on a small volume.
type filled struct {
	t    *testing.T
	nc   *nats.Conn
	dir  string
	have map[string]byte // what is acknowledged, and what its value consists of
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (v *filled) create(engine string) {
	v.t.Helper()
	js, err := v.nc.JetStream(nats.MaxWait(20 * time.Second))
	if err != nil {
		v.t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{
		Name: "KV_b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 1, AllowDirect: true, AllowRollup: true, Discard: nats.DiscardNew,
		Metadata: map[string]string{"cleat.storage": engine},
	}); err != nil {
		v.t.Fatal(err)
	}
}

// puts puts values until they are refused for a second, and returns how many were taken.
func (v *filled) puts(round int) (n int) {
	v.t.Helper()
	for refused := 0; refused < 10; {
		key, fill := fmt.Sprintf("r%d.%d", round, n), byte('a'+n%26)
		m, err := v.nc.Request("$KV.b."+key, []byte(strings.Repeat(string(fill), 100_000)), 20*time.Second)
		if err != nil {
			v.t.Fatalf("put %s: %v", key, err)
		}
		if strings.Contains(string(m.Data), `"error"`) {
			refused++
			time.Sleep(100 * time.Millisecond)
			continue
		}
		v.have[key] = fill
		n, refused = n+1, 0
	}
	return n
}

// check gets everything that is acknowledged.
func (v *filled) check() {
	v.t.Helper()
	for key, fill := range v.have {
		m, err := v.nc.Request("$JS.API.DIRECT.GET.KV_b.$KV.b."+key, nil, 20*time.Second)
		if err != nil || len(m.Data) != 100_000 || m.Data[0] != fill || m.Data[len(m.Data)-1] != fill {
			v.t.Fatalf("get %s: %v", key, err)
		}
	}
}

func (v *filled) purge() {
	v.t.Helper()
	m, err := v.nc.Request("$JS.API.STREAM.PURGE.KV_b", nil, 20*time.Second)
	if err != nil || !strings.Contains(string(m.Data), `"success":true`) {
		v.t.Fatalf("purge: %v", err)
	}
	clear(v.have)
	// What was purged goes with the next checkpoint.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var st syscall.Statfs_t
		if err := syscall.Statfs(v.dir, &st); err != nil {
			v.t.Fatal(err)
		}
		if free := st.Bavail * uint64(st.Bsize); free > 4<<20 {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("what was purged is not given back: %d KiB are free", st.Bavail*uint64(st.Bsize)>>10)
		}
	}
}

func (v *filled) other() string { return filepath.Join(v.dir, "somebody-else's") }

// others has somebody else take all that is free, after some values have been put.
func (v *filled) others() {
	v.t.Helper()
	for i := range 60 {
		key := fmt.Sprintf("before.%d", i)
		m, err := v.nc.Request("$KV.b."+key, []byte(strings.Repeat("x", 100_000)), 20*time.Second)
		if err != nil {
			v.t.Fatal(err)
		}
		if strings.Contains(string(m.Data), `"error"`) {
			break
		}
		v.have[key] = 'x'
	}
	f, err := os.Create(v.other())
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4<<10; {
		_, err := f.Write(make([]byte, size))
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			size /= 2
		} else if err != nil {
			v.t.Fatal(err)
		}
	}
}
