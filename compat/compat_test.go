package compat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// fleet serves all tests that do not restart their server: one server, or a cluster of as many as
// CLEAT_COMPAT_SERVERS says. Each test uses buckets and streams named after itself, and so they can
// run at the same time.
var fleet []*process.Server

var turn atomic.Int64

// shared is the server for the next client; those of a cluster take turns.
func shared() *process.Server { return fleet[int(turn.Add(1))%len(fleet)] }

// replicas is how many the buckets of tests have that do not care.
func replicas() int { return min(len(fleet), 3) }

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cleat-compat-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	err = openFleet(dir)
	for _, s := range fleet {
		defer s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		for i, s := range fleet {
			fmt.Printf("log of shared server %d, last lines:\n%s\n", i, s.LogTail(40))
		}
	}
	return code
}

func openFleet(dir string) error {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("CLEAT_COMPAT_SERVERS"), "1"))
	if err != nil || n < 1 {
		return fmt.Errorf("CLEAT_COMPAT_SERVERS: %q is no number of servers", os.Getenv("CLEAT_COMPAT_SERVERS"))
	}
	if n > 1 {
		fleet, err = process.OpenCluster(dir, n, "")
		return err
	}
	s, err := process.Open(dir, "")
	if err == nil {
		fleet = append(fleet, s)
	}
	return err
}

// TestOnThreeServers runs the tests that share a server against a cluster, in a process of its own.
// Buckets have three replicas there unless a test says otherwise, and clients connect to the servers
// in turn.
func TestOnThreeServers(t *testing.T) {
	if len(fleet) > 1 {
		return // They are on a cluster.
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.skip", "Cluster|^TestExample$|^TestParseTAP$|^TestOnThreeServers$")
	cmd.Env = append(os.Environ(), "CLEAT_COMPAT_SERVERS=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// wait bounds everything that a test waits for.
const wait = 10 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*wait)
	t.Cleanup(cancel)
	return ctx
}

func jetStream(t *testing.T, s *process.Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(s.Connect(t))
	must(t, err)
	return js
}

func legacyJetStream(t *testing.T, s *process.Server) nats.JetStreamContext {
	t.Helper()
	js, err := s.Connect(t).JetStream(nats.MaxWait(wait))
	must(t, err)
	return js
}

// bucket creates a bucket named after the test and deletes it with the test.
func bucket(t *testing.T, cfg jetstream.KeyValueConfig) jetstream.KeyValue {
	t.Helper()
	ctx, js := testContext(t), jetStream(t, shared())
	if cfg.Bucket == "" {
		cfg.Bucket = name(t)
	}
	cfg.Replicas = cmp.Or(cfg.Replicas, replicas())
	kv, err := js.CreateKeyValue(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { _ = js.DeleteKeyValue(context.Background(), cfg.Bucket) })
	return kv
}

// name is a bucket or stream name of the test's own.
func name(t *testing.T) string {
	return strings.NewReplacer("/", "_", " ", "_", ".", "_").Replace(t.Name())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// wantErr stops the test unless err is one of the errors wanted.
func wantErr(t *testing.T, err error, wanted ...error) {
	t.Helper()
	for _, w := range wanted {
		if errors.Is(err, w) {
			return
		}
	}
	t.Fatalf("error %v, want %v", err, wanted)
}

// wantCode stops the test unless err is the JetStream API error with that code.
func wantCode(t *testing.T, err error, code jetstream.ErrorCode) {
	t.Helper()
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != code {
		t.Fatalf("error %v, want API error %d", err, code)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", wait, what)
		}
	}
}

// needs skips the test where a user's machine lacks a tool. CI has them all, or fails.
func needs(t *testing.T, missing, install string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; %s", missing, install)
	}
	t.Skipf("SKIPPED: %s is missing; %s", missing, install)
}
