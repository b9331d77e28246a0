// Package process runs the server under test the way a user runs it: as a process of its own,
// with a configuration file, a port and a directory.
//
// It owns starting, stopping, killing and restarting that process and nothing else; what is
// asked of the server is the business of the tests above. Nothing here imports the server: the
// black-box suites must see what any client sees.
//
// The command is taken from the environment variable CLEAT_COMPAT_SERVER, for example
// "bin/cleat server", or "nats-server" to hold a suite against the reference. Without it cleat is
// built from this tree.
package process

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cleatkv/cleat/test/port"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// Server is one server process, its address and its directory. The address and the directory
// survive restarts. A Server belongs to one goroutine; its fields may be read by any.
type Server struct {
	Addr string // host:port of the client listener
	HTTP string // host:port of the monitoring listener
	Dir  string // configuration, data and log

	// Command is what Launch runs, before the arguments that name the configuration; nil for
	// what the function Command says.
	Command []string

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
	log    *os.File
}

// New starts a server with an empty directory. extra is added to the configuration file as it
// is. The server is stopped, and its log shown if the test failed, when the test ends.
func New(t testing.TB, extra string) *Server {
	t.Helper()
	s, err := Open(t.TempDir(), extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("server log, last lines:\n%s", s.LogTail(40))
		}
		s.log.Close()
	})
	return s
}

// Open is New without a test: the caller calls Close.
func Open(dir, extra string) (*Server, error) {
	return OpenCommand(dir, extra, nil)
}

// OpenCommand is Open for a server that something else runs: the words of a command line in which
// the server's own are the last.
func OpenCommand(dir, extra string, command []string) (*Server, error) {
	s := &Server{Dir: dir, Command: command}
	var err error
	if s.Addr, err = port.Address(); err != nil {
		return nil, err
	}
	if s.HTTP, err = port.Address(); err != nil {
		return nil, err
	}
	host, number, _ := net.SplitHostPort(s.Addr)
	text := fmt.Sprintf("server_name: compat\nhost: %s\nport: %s\nhttp: %q\njetstream {\n  store_dir: %q\n}\n%s\n",
		host, number, s.HTTP, filepath.Join(dir, "data"), extra)
	if err := os.WriteFile(s.config(), []byte(text), 0o644); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "server.log")); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		return nil, fmt.Errorf("%w; log:\n%s", err, s.LogTail(40))
	}
	return s, nil
}

// Start runs the process and returns once JetStream answers. It is for a server that was stopped
// or killed; New and Open have started theirs.
func (s *Server) Start() error {
	if err := s.Launch(); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// Launch runs the process and does not wait for it to be ready.
func (s *Server) Launch() error {
	command := s.Command
	if command == nil {
		var err error
		if command, err = Command(); err != nil {
			return err
		}
	}
	s.cmd = exec.Command(command[0], slices.Concat(command[1:], []string{"-c", s.config()})...)
	s.cmd.Dir = s.Dir
	s.cmd.Stdout = s.log
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() { // Ends with the process, which Kill or Stop ends.
		_ = s.cmd.Wait()
		close(exited)
	}()
	return nil
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Wait waits until the process ends by itself, and tells how it ended.
func (s *Server) Wait(timeout time.Duration) (*os.ProcessState, error) {
	select {
	case <-s.exited:
		return s.cmd.ProcessState, nil
	case <-time.After(timeout):
		return nil, fmt.Errorf("process: still running after %s", timeout)
	}
}

// Stop asks the process to end, as an init system does, and reports a process that does not or
// that ends with an error.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM, stopTimeout) }

// Leave asks the process to end when all clients have gone elsewhere, and waits for that.
func (s *Server) Leave(within time.Duration) error { return s.end(syscall.SIGUSR2, within) }

func (s *Server) end(sig syscall.Signal, within time.Duration) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
	case <-time.After(within):
		s.Kill()
		return fmt.Errorf("process: still running %s after SIGTERM", stopTimeout)
	}
	// The reference exits with 1 on SIGTERM; a status says nothing that the two share. A signal
	// does: it means that the process crashed on its way out.
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("process: ended by signal %s", status.Signal())
	}
	return nil
}

// Close kills the process and closes its log.
func (s *Server) Close() error {
	s.Kill()
	return s.log.Close()
}

// Restart stops the process, as an operator does, and starts it again on the same data.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Pid is the process id of the running server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// URL is the address that clients connect to.
func (s *Server) URL() string { return "nats://" + s.Addr }

// Connect connects a client that gives up rather than reconnects, unless options say otherwise.
func (s *Server) Connect(t testing.TB, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), append([]nats.Option{nats.MaxReconnects(0)}, options...)...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// LogTail returns the last n lines that the server wrote.
func (s *Server) LogTail(n int) string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "server.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (s *Server) config() string { return filepath.Join(s.Dir, "server.conf") }

// ready waits until a client gets an answer from JetStream.
func (s *Server) ready() error {
	deadline := time.Now().Add(startTimeout)
	for last := error(nil); ; time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.exited:
			return fmt.Errorf("process: ended while starting: %s", s.cmd.ProcessState)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process: not ready within %s: %w", startTimeout, last)
		}
		if last = s.ask(); last == nil {
			return nil
		}
	}
}

func (s *Server) ask() error {
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(0), nats.Timeout(time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = nc.Request("$JS.API.INFO", nil, time.Second)
	return err
}

// Command is the server under test, as words: a program and its first arguments.
var Command = sync.OnceValues(func() ([]string, error) {
	if words := strings.Fields(os.Getenv("CLEAT_COMPAT_SERVER")); len(words) > 0 {
		if !strings.Contains(words[0], "/") {
			return words, nil
		}
		if !filepath.IsAbs(words[0]) { // Relative to the module, not to the test that happens to run.
			root, err := Root()
			if err != nil {
				return nil, err
			}
			words[0] = filepath.Join(root, words[0])
		}
		return words, nil
	}
	path, err := Build()
	return []string{path, "server"}, err
})

// Build builds cleat from this tree and returns its path. Tests of other packages may build at the
// same time: each moves its finished file into place, and who runs the old one keeps it.
var Build = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "test", "cleat")
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	build := exec.Command("go", "build", "-o", fresh, "./cmd/cleat")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("process: go build ./cmd/cleat: %w\n%s", err, out)
	}
	return path, os.Rename(fresh, path)
})

// Root is the directory of this module.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, os.ErrNotExist) || parent == dir {
			return "", fmt.Errorf("process: no go.mod above the working directory: %w", err)
		}
		dir = parent
	}
}
