package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// hotKeys is how many keys are overwritten, again and again.
const hotKeys = 1000

// payload is what a put is about: its key and its value.
const payload = 30 + 100

// measureWrites measures what puts cost the disk, of unique keys and of few that are overwritten:
// bytes written for each byte put, and syncs for each put, seen by strace.
func measureWrites(s *system) (rows []row, err error) {
	r := row{title: s.title}
	base, server := s.dir, s.server
	defer func() { s.dir = base }()
	for _, w := range []struct {
		name string
		keys int
	}{{"unique", *keys}, {"overwrite", hotKeys}} {
		s.dir = filepath.Join(base, w.name)
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			return nil, err
		}
		syncs := filepath.Join(s.dir, "syncs")
		if err := s.start("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-c", "-e", "trace=fsync,fdatasync,sched_getaffinity", "-o", syncs); err != nil {
			return nil, err
		}
		took, err := s.load(bucket, *keys, func(i int) string { return key(i % w.keys) })
		if err != nil {
			return nil, err
		}
		time.Sleep(settle)
		bytes, disk := written(s.server.Pid()), s.disk()
		if err := s.server.Stop(); err != nil {
			return nil, err
		}
		n, err := countSyncs(syncs)
		if err != nil {
			return nil, err
		}
		r.cells = append(r.cells,
			cell{w.name + ": puts/s", fmt.Sprintf("%.0f", float64(*keys)/took.Seconds())},
			cell{"written / put", fmt.Sprintf("%.2f", float64(bytes)/float64(*keys*payload))},
			cell{"syncs / 1000 puts", fmt.Sprintf("%.1f", 1000*float64(n)/float64(*keys))},
			cell{"disk, MiB", fmt.Sprint(disk >> 20)})
		s.server, server = server, nil
	}
	return []row{r}, nil
}

// countSyncs reads the summary of strace, which it writes when the server has ended. It is empty if
// nothing was called, so a call that every Go program makes as it starts is traced as well.
func countSyncs(path string) (n int, err error) {
	var text []byte
	for deadline := time.Now().Add(10 * time.Second); len(text) == 0; time.Sleep(50 * time.Millisecond) {
		if text, err = os.ReadFile(path); err != nil || time.Now().After(deadline) {
			return 0, fmt.Errorf("the summary of strace in %s: %q %v", path, text, err)
		}
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasSuffix(fields[len(fields)-1], "sync") {
			calls, err := strconv.Atoi(fields[3])
			if err != nil {
				return 0, err
			}
			n += calls
		}
	}
	return n, nil
}
