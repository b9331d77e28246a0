//go:build unix

package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// A cluster starts with one command, tells where it is, survives the loss of a server, stops on an
// interrupt without leaving a process behind, and comes back with its data and with more servers.
func TestDevCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	d := startDev(t, dir, "--servers", "3")
	urls, pids := d.servers(t)
	if len(urls) != 3 {
		t.Fatalf("%d servers instead of 3:\n%s", len(urls), d.output())
	}
	if err := devBucket(t, urls[0], func(js jetstream.JetStream) error {
		kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B", Replicas: 3})
		if err == nil {
			_, err = kv.Put(ctx, "k", []byte("v"))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.until(t, "Server n2 has ended (signal: killed). To start it again: cleat server -c "+filepath.Join(dir, "n2", "server.conf"))
	d.end(t)
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d of a server is still there", pid)
		}
	}

	d = startDev(t, dir, "--servers", "4")
	more, _ := d.servers(t)
	if len(more) != 4 || strings.Join(more[:3], " ") != strings.Join(urls, " ") {
		t.Fatalf("the servers are %v, after %v", more, urls)
	}
	if err := devBucket(t, more[3], func(js jetstream.JetStream) error {
		kv, err := js.KeyValue(ctx, "B")
		if err != nil {
			return err
		}
		_, err = kv.Get(ctx, "k")
		return err
	}); err != nil {
		t.Fatalf("asked by way of the server that joined: %v", err)
	}
	second := exec.Command(d.cmd.Path, "dev", "--dir", dir)
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is this cluster running already?") {
		t.Errorf("started twice: %v\n%s", err, out)
	}
	d.end(t)
	out, err = exec.Command(d.cmd.Path, "dev", "--dir", dir, "--servers", "2").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "has 4 servers") {
		t.Errorf("two of four: %v\n%s", err, out)
	}
}

func devBucket(t *testing.T, url string, do func(jetstream.JetStream) error) error {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return do(js)
}

// devRun is a `cleat dev` under way.
type devRun struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended, once done is closed

	mu  sync.Mutex
	out bytes.Buffer
}

func (d *devRun) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(b)
}

func (d *devRun) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

func startDev(t *testing.T, dir string, args ...string) *devRun {
	t.Helper()
	exe, err := process.Build()
	if err != nil {
		t.Fatal(err)
	}
	d := &devRun{cmd: exec.Command(exe, append([]string{"dev", "--port", "21222", "--dir", dir}, args...)...), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // Ends with the process, which the end of the test waits for.
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(os.Interrupt)
		<-d.done
	})
	d.until(t, "Ctrl-C stops all of them")
	return d
}

// until waits until the output has a text.
func (d *devRun) until(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !strings.Contains(d.output(), text); time.Sleep(20 * time.Millisecond) {
		select {
		case <-d.done:
			t.Fatalf("ended before %q: %v\n%s", text, d.err, d.output())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in:\n%s", text, d.output())
		}
	}
}

func (d *devRun) end(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("does not end:\n%s", d.output())
	}
	if d.err != nil {
		t.Fatalf("ended with %v:\n%s", d.err, d.output())
	}
}

var devServerRe = regexp.MustCompile(`(?m)^  n\d  (nats://\S+)  http://\S+  pid (\d+)  `)

// servers reads the addresses and process ids that were told.
func (d *devRun) servers(t *testing.T) (urls []string, pids []int) {
	t.Helper()
	for _, m := range devServerRe.FindAllStringSubmatch(d.output(), -1) {
		pid, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		urls, pids = append(urls, m[1]), append(pids, pid)
	}
	return urls, pids
}
