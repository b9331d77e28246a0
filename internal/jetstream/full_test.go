package jetstream

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/sim/simfs"
)

// A volume of 32 MiB is filled again and again: when it is full puts are refused, gets and purges are not;
// after a purge puts are taken again, and in the end everything that was acknowledged is there.
func TestFullVolumeResumes(t *testing.T) {
	for name, metadata := range map[string]string{"file": "", "rocksdb": `,"metadata":{"cleat.storage":"rocksdb"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk, log := simfs.New(1, simfs.Journal), &text{}
			disk.SetCapacity(32 << 20)
			s := startServerOn(t, disk, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			s.ok("$JS.API.STREAM.CREATE.KV_b", fmt.Sprintf(`{"name":"KV_b","subjects":["$KV.b.>"],"storage":"file","num_replicas":1,"max_msgs_per_subject":1,`+
				`"allow_direct":true,"allow_rollup_hdrs":true,"discard":"new"%s}`, metadata))
			v := volume{t: t, s: s, rng: rand.New(rand.NewPCG(1, 1)), have: make(map[string]string)}
			for round := range 4 {
				begun := time.Now()
				n := v.fill(round)
				t.Logf("round %d: %d values in %v", round, n, time.Since(begun))
				if n < 20 {
					t.Fatalf("round %d: only %d values of 200 KB fit", round, n)
				}
				v.check()
				v.purge(3)
			}
			s.restart()
			v.check()
			if strings.Contains(log.String(), "out of service") {
				t.Errorf("something is out of service:\n%s", log)
			}
		})
	}
}

type volume struct {
	t    *testing.T
	s    *server
	rng  *rand.Rand
	have map[string]string // what is acknowledged and not purged
}

// fill puts values until they are refused for a second, and returns how many were not.
func (v *volume) fill(round int) (n int) {
	v.t.Helper()
	value := make([]byte, 200_000)
	for refused := 0; refused < 4 || n == 0 && refused < 60; { // It may take some seconds for what was purged to go.
		for i := range value {
			value[i] = byte(v.rng.Uint32())
		}
		key := fmt.Sprintf("r%d.%d", round, n)
		m := v.s.request("$KV.b."+key, "", string(value))
		switch {
		case strings.Contains(m.data, `"err_code":10023`):
			refused++
			time.Sleep(250 * time.Millisecond)
		case strings.Contains(m.data, `"error"`):
			v.t.Fatalf("round %d, put %d: %v", round, n, m)
		default:
			v.have[key] = string(bytes.Clone(value))
			n, refused = n+1, 0
		}
	}
	return n
}

// check gets everything.
func (v *volume) check() {
	v.t.Helper()
	for key, value := range v.have {
		if m := v.s.request("$JS.API.DIRECT.GET.KV_b.$KV.b."+key, "", ""); m.data != value {
			v.t.Fatalf("%s is not what was acknowledged: %.100s", key, m.header)
		}
	}
}

// purge purges all keys but a few.
func (v *volume) purge(keep int) {
	v.t.Helper()
	for key := range maps.Clone(v.have) {
		if keep--; keep >= 0 {
			continue
		}
		v.s.marker("$KV.b."+key, "KV-Operation: PURGE; Nats-Rollup: sub")
		delete(v.have, key)
	}
}

// marker publishes a marker, which has to be accepted.
func (s *server) marker(subj, header string) {
	s.t.Helper()
	if m := s.request(subj, header, ""); strings.Contains(m.data, `"error"`) || m.header != "" {
		s.t.Fatalf("%s: %v", subj, m)
	}
}
