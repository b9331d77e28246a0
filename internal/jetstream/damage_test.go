package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/sim/simfs"
)

// text gathers what is logged.
type text struct {
	sync.Mutex
	bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.Lock()
	defer t.Unlock()
	return t.Buffer.Write(p)
}

func (t *text) String() string {
	t.Lock()
	defer t.Unlock()
	return t.Buffer.String()
}

const keysStored = 400

// sick is a server whose bucket "bad" has all its values on disk and none in memory; "good" is another
// bucket.
func sick(t *testing.T, metadata string) (*server, *simfs.FS, *text) {
	disk, log := simfs.New(1, simfs.Journal), &text{}
	s := startServerOn(t, disk, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	for name, more := range map[string]string{"bad": metadata, "good": ""} {
		s.ok("$JS.API.STREAM.CREATE.KV_"+name, fmt.Sprintf(`{"name":"KV_%s","subjects":["$KV.%[1]s.>"],"storage":"file","num_replicas":1,"max_msgs_per_subject":1,`+
			`"allow_direct":true,"discard":"new","max_age":0%s}`, name, more))
	}
	for i := range keysStored {
		s.ok(fmt.Sprintf("$KV.bad.k%d", i), strings.Repeat("v", 1000))
	}
	s.ok("$KV.good.k", "value")
	s.restart()
	return s, disk, log
}

// outOfService checks that no answer of the bucket is wrong from the moment on in which something can
// not be read any more, that it goes out of service saying why, and that nothing else does.
func outOfService(t *testing.T, s *server, log *text, why string) {
	t.Helper()
	refused := 0
	for i := range keysStored {
		m := s.request(fmt.Sprintf("$JS.API.DIRECT.GET.KV_bad.$KV.bad.k%d", i), "", "")
		switch {
		case strings.HasPrefix(m.header, "NATS/1.0 503"):
			refused++
		case m.data != strings.Repeat("v", 1000):
			t.Fatalf("wrong answer for k%d: %v", i, m)
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused")
	}
	m := s.request("$JS.API.CONSUMER.CREATE.KV_bad.w", "", `{"stream_name":"KV_bad","config":{"name":"w","deliver_policy":"last_per_subject","deliver_subject":"_INBOX.w","ack_policy":"none"}}`)
	if !strings.Contains(m.data, `"error"`) {
		t.Errorf("a watch was begun: %v", m)
	}
	if m := s.request("$JS.API.STREAM.INFO.KV_bad", "", `{"subjects_filter":">"}`); !strings.Contains(m.data, `"error"`) {
		t.Errorf("the keys were listed: %.100v", m)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), "out of service"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the bucket is not out of service:\n%s", log)
		}
	}
	if m := s.request("$KV.bad.new", "", "x"); !strings.Contains(m.data, `"error"`) {
		t.Errorf("a put was acknowledged: %v", m)
	}
	for _, part := range []string{why, "KV_bad", "cleat inspect engine data/"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q:\n%s", part, log)
		}
	}
	s.ok("$KV.good.more", "value")
	if m := s.request("$JS.API.DIRECT.GET.KV_good.$KV.good.k", "", ""); m.data != "value" {
		t.Errorf("another bucket answers %v", m)
	}
}

func TestDamagedBlockStopsBucket(t *testing.T) {
	s, disk, log := sick(t, "")
	path, size := "", int64(0)
	for _, p := range filesBelow(t, disk, "data/streams") {
		if info, err := disk.Stat(p); err == nil && strings.Contains(p, "block-") && info.Size() > size {
			path, size = p, info.Size()
		}
	}
	for at := int64(5000); at < size; at += 50_000 {
		if err := disk.FlipBit(path, at, 3); err != nil {
			t.Fatal(err)
		}
	}
	outOfService(t, s, log, path+" is damaged at offset ")
}

func TestUnreadableTableStopsBucket(t *testing.T) {
	s, disk, log := sick(t, `,"metadata":{"cleat.storage":"rocksdb"}`)
	disk.SetHook(func(o simfs.Op) error {
		if o.Kind == "read" && strings.HasSuffix(o.Path, ".sst") {
			return errors.New("the disk does not answer")
		}
		return nil
	})
	defer disk.SetHook(nil)
	outOfService(t, s, log, "data/rocksdb: ")
}

func filesBelow(t *testing.T, fs vfs.FS, dir string) (paths []string) {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		p := fs.PathJoin(dir, n)
		if info, err := fs.Stat(p); err == nil && info.IsDir() {
			paths = append(paths, filesBelow(t, fs, p)...)
		} else {
			paths = append(paths, p)
		}
	}
	return paths
}
