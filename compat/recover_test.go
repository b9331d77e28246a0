package compat

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// recoverFrom runs `cleat cluster recover` on the directory of a server that does not run.
func recoverFrom(t *testing.T, s *process.Server, flags ...string) (string, error) {
	t.Helper()
	command, err := process.Command()
	must(t, err)
	args := append([]string{"cluster", "recover", "--from", filepath.Join(s.Dir, "data")}, flags...)
	out, err := exec.Command(command[0], args...).CombinedOutput()
	return string(out), err
}

// Two of three disks are lost for good. From the third the cluster goes on, with all that was acknowledged; new
// servers take the places of the others; and the old ones, should they come back, are told that it is over.
func TestPromiseClusterRecover(t *testing.T) {
	servers := process.NewCluster(t, 3, "")
	js := jetStream(t, servers[0])
	kv, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "SAVED", Replicas: 3})
	must(t, err)
	const keys = 200
	for i := range keys {
		_, err := kv.Put(testContext(t), fmt.Sprint("k", i), fmt.Append(nil, "v", i))
		must(t, err)
	}
	whole(t, servers, "KV_SAVED")
	left := servers[2]
	out, err := recoverFrom(t, left, "--i-accept-loss")
	if err == nil || !strings.Contains(out, "stop the server first") {
		t.Fatalf("a server that runs: %v\n%s", err, out)
	}
	for _, s := range servers {
		s.Kill()
	}
	out, err = recoverFrom(t, left)
	if err == nil || !strings.Contains(out, "Server n2 could go on alone, without n0, n1") || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = recoverFrom(t, left, "--i-accept-loss")
	if err != nil || !strings.Contains(out, "bucket SAVED: kept, 200 messages, last sequence 200") {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, left.Start())
	js = jetStream(t, left)
	kv, err = js.KeyValue(testContext(t), "SAVED")
	must(t, err)
	for i := range keys {
		e, err := kv.Get(testContext(t), fmt.Sprint("k", i))
		must(t, err)
		if string(e.Value()) != fmt.Sprint("v", i) || e.Revision() != uint64(i+1) {
			t.Fatalf("k%d is %q at %d", i, e.Value(), e.Revision())
		}
	}
	_, err = kv.Put(testContext(t), "alone", []byte("yes"))
	must(t, err)

	for _, s := range servers[:2] {
		must(t, s.Launch())
	}
	for i, s := range servers[:2] {
		state, err := s.Wait(20 * time.Second)
		if err != nil || state.ExitCode() != 1 || !strings.Contains(s.LogTail(20), "this server was given up") {
			t.Errorf("n%d of the old cluster: %v, %v", i, state, err)
		}
		must(t, os.RemoveAll(filepath.Join(s.Dir, "data")))
		must(t, s.Start())
	}
	whole(t, servers, "KV_SAVED")
	left.Kill()
	kv, err = jetStream(t, servers[0]).KeyValue(testContext(t), "SAVED")
	must(t, err)
	eventually(t, "the new servers serve without the one that was left", func() bool {
		e, err := kv.Get(testContext(t), "alone")
		return err == nil && string(e.Value()) == "yes"
	})
}

// All three servers die at once, and the logs of two have a damaged sector each, at another place. Everything that was
// acknowledged is there, and the bucket goes on without anybody doing anything.
func TestPromiseClusterMendsLogs(t *testing.T) {
	servers := process.NewCluster(t, 3, "")
	kv, err := jetStream(t, servers[0]).CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "MENDED", Replicas: 3})
	must(t, err)
	const keys = 60
	for i := range keys {
		_, err := kv.Put(testContext(t), fmt.Sprint("k", i), fmt.Appendf(nil, "<value %d>", i))
		must(t, err)
	}
	whole(t, servers, "KV_MENDED")
	for _, s := range servers {
		s.Kill()
	}
	spoilLog(t, servers[1], "<value 20>")
	spoilLog(t, servers[2], "<value 40>")
	for _, s := range servers {
		must(t, s.Launch())
	}
	for _, s := range servers {
		eventually(t, "the server listens", func() bool {
			nc, err := nats.Connect(s.URL(), nats.IgnoreDiscoveredServers())
			if err == nil {
				nc.Close()
			}
			return err == nil
		})
	}
	whole(t, servers, "KV_MENDED")
	kv, err = jetStream(t, servers[1]).KeyValue(testContext(t), "MENDED")
	must(t, err)
	for i := range keys {
		e, err := kv.Get(testContext(t), fmt.Sprint("k", i))
		must(t, err)
		if want := fmt.Sprintf("<value %d>", i); string(e.Value()) != want || e.Revision() != uint64(i+1) {
			t.Fatalf("k%d is %q at %d", i, e.Value(), e.Revision())
		}
	}
	for i := 1; i < 3; i++ {
		if log := servers[i].LogTail(200); !strings.Contains(log, "is whole again") {
			t.Errorf("n%d has not mended its log:\n%s", i, log)
		}
	}
}

// spoilLog changes a bit in the log of a server that does not run, where a word stands.
func spoilLog(t *testing.T, s *process.Server, word string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.Dir, "data", "wal", "*.wal"))
	must(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		must(t, err)
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			text[at] ^= 4
			must(t, os.WriteFile(name, text, 0o600))
			return
		}
	}
	t.Fatalf("%q stands nowhere in the log of %s", word, s.Dir)
}
