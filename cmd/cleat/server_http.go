package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// startMonitor begins to answer operators: those in the system account, and those who come by HTTP if there
// shall be a listener for them.
func (n *node) startMonitor() error {
	n.monitor = monitor.New(n.sources(), n.log.Logger)
	n.startSystem()
	c := n.cfg.Load()
	if !c.Monitor.Enabled() {
		return nil
	}
	scheme, port := "http", c.Monitor.Port
	var t *tls.Config
	if c.Monitor.HTTPSPort != 0 {
		scheme, port = "https", c.Monitor.HTTPSPort
		var err error
		if t, err = c.TLS.ServerConfig(); err != nil {
			return err
		}
		t.ClientAuth = tls.NoClientCert // Who may look need not be who may connect.
	}
	l, err := listen(c.Monitor.Host, port)
	if err != nil && c.Monitor.Optional {
		n.log.Warn(fmt.Sprintf("No monitoring, since nobody asked for it and its usual port is taken: %v", err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't listen to the monitor port: %w", err)
	}
	n.log.Info(fmt.Sprintf("Starting %s monitor on %s", scheme, server.Shown(c.Monitor.Host, l.Addr())))
	n.monitor.Serve(l, t)
	n.onStop(func() error { return closeHTTP(n.monitor.Close) })
	n.ports.Monitoring = portURLs(scheme, l.Addr())
	return nil
}

// sources are what the monitor shows of this server.
func (n *node) sources() monitor.Sources {
	cfg := n.cfg.Load
	src := monitor.Sources{
		ServerID: n.front.ID(), ServerName: n.front.Name(), Start: n.start,
		Config: cfg, Loaded: func() time.Time { return *n.loaded.Load() },
		Clients:  clientFigures{n.front, cfg},
		Accounts: accountFigures{n.broker, n.front, cfg},
		Health:   nodeHealth{n},
	}
	if n.routes != nil {
		src.Routes = func() []monitor.Route { return routeFigures(n.cluster) }
	}
	if n.streams != nil {
		src.JetStream = streamFigures{n.cluster, n.streams, cfg}
		src.Raft = n.cluster.Figures
		src.Operations = n.streams.Operations
	}
	return src
}

// startProfile opens the listener for Go profiles, if there shall be one.
func (n *node) startProfile() error {
	c := n.cfg.Load()
	if c.ProfPort == 0 {
		return nil
	}
	l, err := listen(c.Host, c.ProfPort)
	if err != nil {
		return fmt.Errorf("can't listen to the profiling port: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: stopTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error(fmt.Sprintf("Error serving the profiling port: %v", err))
		}
	}()
	n.log.Info(fmt.Sprintf("profiling port: %d", listenPort(l.Addr())))
	n.onStop(func() error {
		err := s.Close()
		<-done
		return err
	})
	n.ports.Profile = portURLs("http", l.Addr())
	return nil
}

// listen opens a TCP port; config.PortRandom is any free one.
func listen(host string, port int) (net.Listener, error) {
	if port == config.PortRandom {
		port = 0
	}
	return net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
}

// closeHTTP closes a listener and cuts off requests that take too long.
func closeHTTP(closeIt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := closeIt(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
