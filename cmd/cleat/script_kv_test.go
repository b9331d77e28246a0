package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cleatkv/cleat/test/port"
)

var updateScripts = flag.Bool("update", false, "write the output seen into the scripts; read the diff before keeping it")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cleat": main})
}

// TestScripts runs the command line tool as users do. Beside testscript's own, scripts have:
//
//	server start [flag...]         start a server on a free port and set $NATS_URL
//	server stop                    kill it
//	exits CODE program [arg...]    run a program, require its exit code; files out and err then hold what
//	                               it wrote, with what differs from run to run masked
//	follow start BUCKET program [arg...]   start a program and wait until it watches the bucket
//	follow until N                 wait until it wrote N lines, interrupt it, require exit code 130; file
//	                               out as above
//
// The server is `cleat server`, or the nats-server that $CLEAT_TEST_SERVER names. One run each way shows
// that the tool works against both, and that the two do not differ to it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *updateScripts,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[serverKey{}] = new(scriptServer)
			env.Values[followKey{}] = new(follower)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server": cmdServer,
			"exits":  cmdExits,
			"follow": cmdFollow,
		},
	})
}

type serverKey struct{}

// scriptServer is the server of one script. Its port stays the same when it is started again.
type scriptServer struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	port   int
}

func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: server start [flag...] | server stop")
	}
	s := ts.Value(serverKey{}).(*scriptServer)
	switch args[0] {
	case "start":
		ts.Check(s.start(ts, args[1:]))
		ts.Defer(s.stop)
	case "stop":
		s.stop()
	default:
		ts.Fatalf("unknown: server %s", args[0])
	}
}

func (s *scriptServer) start(ts *testscript.TestScript, flags []string) (err error) {
	if s.port == 0 {
		if s.port, err = port.Take(); err != nil {
			return err
		}
	}
	name, args := "cleat", []string{"server"}
	if other := os.Getenv("CLEAT_TEST_SERVER"); other != "" {
		name, args = other, nil
	}
	args = append(args, "-a", "127.0.0.1", "-p", strconv.Itoa(s.port), "-sd", ts.MkAbs("store"), "-js")
	s.cmd = exec.Command(name, append(args, flags...)...)
	s.cmd.Dir = ts.MkAbs(".")
	var log bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { // Ends with the server, which stop kills.
		cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	ts.Setenv("NATS_URL", "nats://"+address)
	ts.Setenv("HOSTPORT", address)
	for range 400 {
		select {
		case <-s.exited:
			return fmt.Errorf("the server ended: %s", log.String())
		case <-time.After(25 * time.Millisecond):
		}
		if greets(address) {
			return nil
		}
	}
	s.stop()
	return fmt.Errorf("the server did not come up: %s", log.String())
}

// greets reports whether a NATS server answers at the address.
func greets(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "INFO ")
}

func (s *scriptServer) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE program [arg...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	requireCode(ts, err, args[0])
	writeMasked(ts, "out", ts.ReadFile("stdout"))
	writeMasked(ts, "err", ts.ReadFile("stderr"))
}

func requireCode(ts *testscript.TestScript, err error, want string) {
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s\n%s", code, want, ts.ReadFile("stderr"))
	}
}

type followKey struct{}

// follower is a program that runs until it is interrupted.
type follower struct {
	cmd   *exec.Cmd
	lines chan string
	err   bytes.Buffer
}

func cmdFollow(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(followKey{}).(*follower)
	switch {
	case !neg && len(args) > 2 && args[0] == "start":
		known, err := consumers(ts.Getenv("NATS_URL"), args[1])
		ts.Check(err)
		ts.Check(f.start(ts, args[2], args[3:]))
		ts.Check(awaitWatch(ts.Getenv("NATS_URL"), args[1], known))
	case !neg && len(args) == 2 && args[0] == "until":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		f.until(ts, n)
	default:
		ts.Fatalf("usage: follow start BUCKET program [arg...] | follow until N")
	}
}

func (f *follower) start(ts *testscript.TestScript, name string, args []string) error {
	f.cmd = exec.Command(name, args...)
	f.cmd.Env = append(os.Environ(), "NATS_URL="+ts.Getenv("NATS_URL"), "TZ=UTC")
	f.cmd.Stderr = &f.err
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := f.cmd.Start(); err != nil {
		return err
	}
	ts.Defer(func() { f.cmd.Process.Kill() })
	f.lines = make(chan string, 1000)
	go func() { // Ends with the program, which Defer kills.
		defer close(f.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			f.lines <- s.Text()
		}
	}()
	return nil
}

// awaitWatch waits until the bucket has a consumer that is not among the known, which may be those of
// watches that just ended.
func awaitWatch(url, bucket string, known []string) error {
	for range 400 {
		names, err := consumers(url, bucket)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(known, n) }) {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("nobody watches bucket %s", bucket)
}

// consumers are the names of the bucket's consumers.
func consumers(url, bucket string) ([]string, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, err
	}
	var names []string
	lister := stream.ConsumerNames(ctx)
	for name := range lister.Name() {
		names = append(names, name)
	}
	return names, lister.Err()
}

func (f *follower) until(ts *testscript.TestScript, n int) {
	var seen strings.Builder
	deadline := time.After(20 * time.Second)
	for range n {
		select {
		case line, ok := <-f.lines:
			if !ok {
				ts.Fatalf("it ended early:\n%s%s", seen.String(), f.err.String())
			}
			seen.WriteString(line + "\n")
		case <-deadline:
			ts.Fatalf("it wrote no %d lines:\n%s%s", n, seen.String(), f.err.String())
		}
	}
	ts.Check(f.cmd.Process.Signal(os.Interrupt))
	for line := range f.lines {
		seen.WriteString(line + "\n")
	}
	requireCode(ts, f.cmd.Wait(), "130")
	writeMasked(ts, "out", seen.String())
}

// masks are replaced by texts of the same width where a table's columns depend on it.
var masks = []struct {
	re   *regexp.Regexp
	with func(string) string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), replaceBy("YYYY-MM-DD hh:mm:ss")},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), replaceBy("TIME")},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(s|ms|µs)) +│`), func(s string) string {
		return fmt.Sprintf("%-*s│", len([]rune(s))-1, "AGE")
	}},
	{regexp.MustCompile(`[Ll]eader"*: ?"*[A-Za-z0-9_-]+`), func(s string) string {
		return s[:strings.LastIndexAny(s, `": `)+1] + "SERVER"
	}},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), replaceBy("127.0.0.1:PORT")},
}

func replaceBy(s string) func(string) string { return func(string) string { return s } }

func writeMasked(ts *testscript.TestScript, file, text string) {
	for _, m := range masks {
		text = m.re.ReplaceAllStringFunc(text, m.with)
	}
	ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
}
