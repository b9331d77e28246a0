package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/cleatkv/cleat/internal/inspect"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/wal"
)

// stoppedServer makes a directory as a server with one stream leaves it.
func stoppedServer(t *testing.T) (dir, block string) {
	t.Helper()
	dir = t.TempDir()
	l, err := wal.Open(wal.Options{FS: vfs.Default, Dir: filepath.Join(dir, "wal"), ServerID: 1, ClusterID: 2, Stepped: true})
	if err != nil {
		t.Fatal(err)
	}
	l.Submit([]wal.Update{{Group: 101, Reset: &wal.Position{Index: 12, Term: 1}, Hard: &wal.HardState{Term: 1, Commit: 12}}}, nil)
	store, err := filelog.OpenStore(vfs.Default, filepath.Join(dir, "streams"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Open("g101-r102", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tx := e.Begin()
	tx.SetAux("config", []byte(`{"config":{"name":"KV_b"},"revision":1}`))
	if err := tx.Append(storage.Message{Seq: 1, Time: 1, Subject: "$KV.b.k", Data: bytes.Repeat([]byte("v"), 500)}); err != nil {
		t.Fatal(err)
	}
	at := storage.Applied{Index: 12, Term: 1, Conf: replica.EncodeConf(&pb.ConfState{Voters: []uint64{102}})}
	if err := errors.Join(tx.Commit(at), e.Checkpoint(), e.Close(), l.Close(), os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "streams", "g101-r102", "block-00000001")
}

// inspected runs `cleat inspect`.
func inspected(args ...string) (string, error) {
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SilenceErrors, root.SilenceUsage = true, true // cli.Main reports.
	root.SetArgs(append([]string{"inspect"}, args...))
	err := root.Execute()
	return out.String(), err
}

func TestInspect(t *testing.T) {
	dir, block := stoppedServer(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"wal", dir}, "group 101: term 1, vote 0, commit 12"},
		{[]string{"wal", dir, "--dump"}, "group 101 reset"},
		{[]string{"wal", dir, "-o", "json"}, `"group": 101`},
		{[]string{"engine", dir}, "stream KV_b"},
		{[]string{"engine", filepath.Dir(block), "--files"}, "block-00000001: "},
		{[]string{"engine", dir, "-o", "csv"}, "name,kind,path,stream"},
		{[]string{"repair", dir}, "nothing is damaged"},
	} {
		if out, err := inspected(c.args...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v, %q is not in\n%s", c.args, err, c.want, out)
		}
	}
	b, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.WriteFile(block, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := inspected("engine", dir, "-o", "json")
	var engines []inspect.Engine
	if jerr := json.Unmarshal([]byte(out), &engines); jerr != nil || !errors.Is(err, errDamage) || len(engines[0].Lost) != 1 {
		t.Fatalf("%v, %v: %s", err, jerr, out)
	}
	if out, err := inspected("repair", dir); !errors.Is(err, errDamage) || !strings.Contains(out, "to be lost: sequence 1, subject $KV.b.k") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := inspected("repair", dir, "--discard-damaged", "g1-r1"); err == nil || errors.Is(err, errDamage) {
		t.Errorf("a replica that is not damaged: %v", err)
	}
	if again, err := os.ReadFile(block); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("something was changed without being told to: %v", err)
	}
	if out, err := inspected("repair", dir, "--discard-damaged", "g101-r102"); err != nil || !strings.Contains(out, "discarded: sequence 1") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := inspected("engine", dir); err != nil || !strings.Contains(out, "0 messages") {
		t.Errorf("%v: %s", err, out)
	}
}

// The files of a server that runs are not looked at.
func TestInspectRefusesRunning(t *testing.T) {
	dir, _ := stoppedServer(t)
	l, err := vfs.Default.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, what := range []string{"wal", "engine", "repair"} {
		if _, err := inspected(what, dir); err == nil || !strings.Contains(err.Error(), "stop the server first") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
