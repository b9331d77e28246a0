package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

const (
	// devReadyTimeout is for all servers together: they found a cluster when the last one is there.
	devReadyTimeout = 30 * time.Second
	// devStopTimeout is longer than a server takes when its clients do not go.
	devStopTimeout = 15 * time.Second
)

// newDevCommand is `cleat dev`: a cluster on this machine, each server a process of its own, so that
// one can be killed to see what happens.
func newDevCommand() *cobra.Command {
	var servers, port int
	var dir string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster on this machine, for trying things out",
		Long: `Runs a cluster of several servers on this machine until it is interrupted.

Each server is a process of its own, n1, n2 and so on, with its own directory below --dir that holds its
configuration, its data and its log. The same command again starts the same cluster with its data; with
more --servers, those that are new join it. Only this machine can connect. User and password of the system
account, for "cleat cluster", are "sys".`,
		Example: `  cleat dev
  cleat dev --servers 5 --port 14222 --dir /tmp/five`,
		Args:        cli.Args(""),
		Annotations: offline,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed("servers")
			switch {
			case given && (servers < 1 || servers > devServersMax):
				return cli.Usagef("--servers %d: use 1 to %d", servers, devServersMax)
			case port < 1024 || port > 60000:
				return cli.Usagef("--port %d: use 1024 to 60000", port)
			case !given:
				servers = 0 // As many as there are.
			}
			list, err := devLayout(dir, servers, port)
			if err != nil {
				return err
			}
			return newDevCluster(list, cmd.OutOrStdout()).run()
		},
	}
	f := cmd.Flags()
	f.IntVar(&servers, "servers", 3, "number of servers `N`; by default as many as there were before")
	f.IntVar(&port, "port", devClientPort, "first client `PORT`; the next free ones are taken")
	f.StringVar(&dir, "dir", filepath.Join("cleat-data", "dev"), "`DIRECTORY` of the servers")
	return cmd
}

// devCluster runs the servers. Only the goroutine of run touches it.
type devCluster struct {
	servers []*devServer
	out     io.Writer
	running map[string]*exec.Cmd // by name
	exits   chan devExit
}

// devExit is the end of a server's process.
type devExit struct {
	server *devServer
	err    error
}

func newDevCluster(servers []*devServer, out io.Writer) *devCluster {
	return &devCluster{servers: servers, out: out, running: make(map[string]*exec.Cmd), exits: make(chan devExit, len(servers))}
}

// run starts all servers, tells the user, and waits for an interrupt, or for the last server to end.
func (d *devCluster) run() error {
	// Where the kernel ends children with their parent it goes by the thread that made them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), devSignals...)
	defer stop()
	fmt.Fprintf(d.out, "Starting %d servers ...\n", len(d.servers))
	err := d.start(ctx)
	if err == nil {
		d.welcome()
		err = d.wait(ctx)
	}
	stop() // A second interrupt kills this process, and where that is possible the servers with it.
	fmt.Fprintf(d.out, "\nStopping ...\n")
	return errors.Join(err, d.stop())
}

// start starts every server and returns when each serves streams.
func (d *devCluster) start(ctx context.Context) error {
	for _, s := range d.servers {
		if err := d.launch(s); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(devReadyTimeout)
	for _, s := range d.servers {
		for !devReady(s) {
			select {
			case <-ctx.Done():
				return cli.ErrInterrupted
			case e := <-d.exits:
				delete(d.running, e.server.name)
				return fmt.Errorf("server %s ended before it was ready (%s); the end of its log:\n%s",
					e.server.name, ended(e.err), logTail(e.server.log()))
			case <-time.After(50 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("server %s is not ready after %s; the end of its log:\n%s", s.name, devReadyTimeout, logTail(s.log()))
			}
		}
	}
	return nil
}

func (d *devCluster) launch(s *devServer) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of server %s: %w", s.name, err)
	}
	defer log.Close() // The process has it.
	cmd := exec.Command(exe, "server", "-c", s.config())
	cmd.Stdout, cmd.Stderr = log, log
	separate(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start server %s: %w", s.name, err)
	}
	d.running[s.name] = cmd
	go func() { d.exits <- devExit{s, cmd.Wait()} }() // Ends with the process, which stop waits for.
	return nil
}

// devReady tells whether a server answers requests about streams.
func devReady(s *devServer) bool {
	nc, err := nats.Connect(s.url(), nats.Timeout(time.Second), nats.NoReconnect(), nats.IgnoreDiscoveredServers())
	if err != nil {
		return false
	}
	defer nc.Close()
	m, err := nc.Request("$JS.API.INFO", nil, time.Second)
	return err == nil && !strings.Contains(string(m.Data), `"error"`)
}

func (d *devCluster) welcome() {
	var urls []string
	fmt.Fprintf(d.out, "\nA cluster of %d servers is running:\n\n", len(d.servers))
	for _, s := range d.servers {
		urls = append(urls, s.url())
		fmt.Fprintf(d.out, "  %s  %s  %s  pid %d  %s\n", s.name, s.url(), s.monitor(), d.running[s.name].Process.Pid, s.log())
	}
	at, replicas := "", 1
	if len(d.servers) >= 3 {
		replicas = 3
	}
	if d.servers[0].client != devClientPort {
		at = " -s " + d.servers[0].url()
	}
	fmt.Fprintf(d.out, `
Clients may connect to any of them, or to all:

  %s

Try, in another terminal:

  cleat kv add my_kv_store --replicas %d%s
  cleat kv put my_kv_store greeting "hello world"%[3]s
  cleat cluster status --user %[4]s --password %[4]s%[3]s

Ctrl-C stops all of them. The data stays.
`, strings.Join(urls, ","), replicas, at, devOperator)
}

// wait reports servers that end, which is nothing unusual: it is what one tries.
func (d *devCluster) wait(ctx context.Context) error {
	for len(d.running) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.exits:
			delete(d.running, e.server.name)
			fmt.Fprintf(d.out, "\nServer %s has ended (%s). To start it again: cleat server -c %s\n",
				e.server.name, ended(e.err), e.server.config())
		}
	}
	return errors.New("no server is running any more")
}

// stop asks all servers to end, waits for them, and kills those that do not.
func (d *devCluster) stop() error {
	for _, cmd := range d.running { // order: all are asked
		_ = askToEnd(cmd.Process) // One that has ended meanwhile is what is wanted.
	}
	late := time.After(devStopTimeout)
	var errs []error
	for len(d.running) > 0 {
		select {
		case e := <-d.exits:
			delete(d.running, e.server.name)
			if e.err != nil {
				errs = append(errs, fmt.Errorf("server %s: %w; see %s", e.server.name, e.err, e.server.log()))
			}
		case <-late:
			for name, cmd := range d.running { // order: all are killed
				errs = append(errs, fmt.Errorf("server %s did not end in %s and was killed", name, devStopTimeout))
				_ = cmd.Process.Kill()
			}
		}
	}
	return errors.Join(errs...)
}

// ended says how a process ended.
func ended(err error) string {
	if err == nil {
		return "stopped"
	}
	return err.Error()
}

// logTail returns the last lines of a log.
func logTail(path string) string {
	const lines = 10
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
