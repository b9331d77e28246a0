package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/routes"
	"github.com/cleatkv/cleat/internal/server"
	"github.com/cleatkv/cleat/internal/system"
)

// stopTimeout is how long clients and requests under way may take when the server stops. Service
// managers and container runtimes kill after ten seconds or more.
const stopTimeout = 5 * time.Second

// handOverTimeout is how long it may take to let others lead. A group that has no leader for a moment
// costs its clients no more than that anyway.
const handOverTimeout = 2 * time.Second

// node is a server: its parts, in the order in which they start.
type node struct {
	flags   *config.Flags
	cfg     atomic.Pointer[config.Config] // replaced as a whole when the file is read again
	loaded  atomic.Pointer[time.Time]     // when cfg was read
	log     *logger
	start   time.Time
	signals chan os.Signal
	fatal   chan error    // a part cannot go on
	left    chan struct{} // closed when lame duck mode has ended

	operator atomic.Pointer[auth.Operator] // nil without operator mode

	broker  *broker.Broker
	front   *server.Server
	streams *jetstream.Service // nil without JetStream
	cluster *cluster.Cluster   // nil without JetStream and without other servers
	routes  *routes.Routes     // nil on a single server
	serving chan struct{}      // closed when streams are served, or the server stops before
	monitor *monitor.Monitor
	system  *system.Service
	reloads chan chan error // requests to read the configuration again
	ports   ports

	leaving bool           // lame duck mode has begun; of wait alone
	stops   []func() error // how to stop what has started, in the order of starting
}

// serve runs a server until a signal ends it.
func serve(f *config.Flags, c *config.Config) error {
	log, err := newLogger(c.Log)
	if err != nil {
		return err
	}
	n := &node{
		flags: f, log: log, start: time.Now(),
		serving: make(chan struct{}), signals: make(chan os.Signal, 8), fatal: make(chan error, 1), left: make(chan struct{}),
		reloads: make(chan chan error),
	}
	n.configure(c)
	err = n.run(context.Background())
	if err != nil {
		n.log.Log(context.Background(), levelFatal, err.Error())
	}
	return errors.Join(err, log.Close())
}

func (n *node) configure(c *config.Config) {
	now := time.Now()
	n.cfg.Store(c)
	n.loaded.Store(&now)
}

// run is the life of a server. Whatever was started when a step fails is stopped again.
func (n *node) run(ctx context.Context) (err error) {
	stopNotify := notify(n.signals)
	defer stopNotify()
	defer func() { err = errors.Join(err, n.stop()) }()
	for _, step := range []func() error{
		n.writePidFile,
		n.relaxMonitor,
		n.boundMemory,
		n.makeFront,
		n.makeStreams,
		n.startMonitor, // First of all listeners: it tells how far the start has come.
		n.startProfile,
		n.startStreams,
		n.startWebSocket, // Late: whoever can connect shall find everything.
		n.startClients,   // Stops first of all, for the clients that came by WebSocket too.
		n.advertise,
		n.writePortsFile,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	n.log.Info("Server is ready")
	return n.wait(ctx)
}

// onStop notes how to undo the step that just succeeded.
func (n *node) onStop(f func() error) { n.stops = append(n.stops, f) }

// stop stops in the reverse order of starting, and goes on when a part fails to.
func (n *node) stop() error {
	n.log.Info("Initiating Shutdown...")
	var errs []error
	for _, f := range slices.Backward(n.stops) {
		errs = append(errs, f())
	}
	n.log.Info("Server Exiting..")
	return errors.Join(errs...)
}

func (n *node) writePidFile() error {
	path := n.cfg.Load().PidFile
	if path == "" {
		return nil
	}
	n.onStop(func() error { return removeFile(path) })
	return writePid(path)
}

// makeFront makes the client front end and says who this server is. Clients come later.
func (n *node) makeFront() error {
	c := n.cfg.Load()
	n.broker = broker.New()
	if c.SystemAccount != "" {
		n.broker.SetSystem(c.SystemAccount)
	}
	op, err := newOperator(c.Operator)
	if err != nil {
		return err
	}
	o, err := frontOptions(c, op, n.log.Logger)
	if err != nil {
		return err
	}
	n.operator.Store(op)
	if n.front, err = server.New(o, n.broker); err != nil {
		return err
	}
	if err := n.broker.Share(sharing(c)); err != nil {
		return err
	}
	n.banner(c)
	return nil
}

// banner is the beginning of the log. Scripts look for some of its words.
func (n *node) banner(c *config.Config) {
	n.log.Info("Starting cleat")
	n.log.Info("  Version:  " + config.Version + " (NATS " + config.ProtocolVersion + ")")
	commit := config.GitCommit()
	if commit == "" {
		commit = "not set"
	}
	n.log.Info("  Git:      [" + commit + "]")
	if c.Cluster.Enabled() {
		n.log.Info("  Cluster:  " + c.Cluster.Name)
	}
	n.log.Info("  Name:     " + n.front.Name())
	n.log.Info("  ID:       " + n.front.ID())
	if c.File != "" {
		n.log.Info(fmt.Sprintf("Using configuration file: %s (%s)", c.File, c.Digest))
	}
	n.complain(c)
	if c.LoopbackOnly {
		n.log.Info("Without a configuration file and without authentication only this machine can connect; to open the server to all: -a 0.0.0.0")
	}
	if !c.JetStream.Enabled {
		n.log.Warn("JetStream is off, so there are no buckets; to turn it on: jetstream: enabled in the configuration file, or -js")
	}
}

// complain logs what a configuration says in vain or in a doubtful way.
func (n *node) complain(c *config.Config) {
	for _, w := range slices.Concat(c.Misuses, c.Warnings) {
		n.log.Warn(w)
	}
}

// startClients opens the listener.
func (n *node) startClients() error {
	if err := n.front.Start(); errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: is another server running? then stop it, or choose another port with -p", err)
	} else if err != nil {
		return err
	}
	n.onStop(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		n.system.Stopping()
		n.handOver(ctx)
		if n.streams != nil {
			n.streams.Drain()
		}
		if err := n.front.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil // Those who took too long were cut off.
	})
	c := n.cfg.Load()
	if c.TLS != nil {
		n.log.Info("TLS required for client connections")
	}
	n.ports.Nats = portURLs(map[bool]string{false: "nats", true: "tls"}[c.TLS != nil], n.front.Addr())
	return nil
}

func (n *node) writePortsFile() error {
	path := portsPath(n.cfg.Load().PortsFileDir)
	if path == "" {
		return nil
	}
	n.onStop(func() error { return removeFile(path) })
	return n.ports.write(path)
}

// wait answers signals until one of them, or a part that cannot go on, ends the server.
func (n *node) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-n.fatal:
			return err
		case <-n.left:
			return nil
		case done := <-n.reloads:
			done <- n.reload()
		case sig := <-n.signals:
			n.log.Info(fmt.Sprintf("Trapped %q signal", sig))
			if n.act(ctx, meaning(sig)) {
				return nil
			}
		}
	}
}

// action is what a signal asks for.
type action int

const (
	actInterrupt action = iota // stop
	actTerminate               // stop, unless already leaving
	actReload
	actReopen
	actLameDuck
)

// act does what a signal asks for and tells whether it is to stop.
func (n *node) act(ctx context.Context, a action) (stop bool) {
	switch a {
	case actInterrupt:
		return true
	case actTerminate:
		return !n.leaving
	case actReload:
		if err := n.reload(); err != nil {
			n.log.Error(fmt.Sprintf("Failed to reload server configuration: %v", err))
		}
	case actReopen:
		if err := n.log.Reopen(); err != nil {
			n.log.Error(fmt.Sprintf("Failed to reopen the log file: %v", err))
			return false
		}
		n.log.Info("File log re-opened")
	case actLameDuck:
		n.leave(ctx)
	}
	return false
}

// handOver lets other servers lead what this one does, before its clients go there.
func (n *node) handOver(ctx context.Context) {
	if n.streams == nil || !n.cluster.Clustered() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	n.cluster.HandOver(ctx)
}

// leave begins lame duck mode: clients are asked to go elsewhere, and the server stops when all have
// gone.
func (n *node) leave(ctx context.Context) {
	if n.leaving {
		return
	}
	n.leaving = true
	go func() {
		defer close(n.left)
		n.system.Leaving()
		n.handOver(ctx)
		if err := n.front.LameDuck(ctx); err != nil && !errors.Is(err, context.Canceled) {
			n.log.Error(fmt.Sprintf("Error in lame duck mode: %v", err))
		}
	}()
	n.onStop(func() error { <-n.left; return nil })
}
