package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
	"github.com/cleatkv/cleat/internal/routes"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// makeStreams makes what serves streams, and what connects this server to others. Nothing is opened
// yet.
func (n *node) makeStreams() error {
	c := n.cfg.Load()
	if !c.JetStream.Enabled && !c.Cluster.Enabled() {
		return nil
	}
	route, err := routeOptions(c)
	if err != nil {
		return err
	}
	o := cluster.Options{
		Name: n.front.Name(), Route: route, Logger: n.log.Logger, MessagesOnly: !c.JetStream.Enabled,
		ReplaceAfter: c.Cluster.ReplaceAfter,
		TransferRate: max(0, c.Cluster.TransferRate),
		Allowance: func() (memory, file int64) {
			js := &n.cfg.Load().JetStream
			return js.MaxMemory, js.MaxFile
		},
		OnFatal: func(err error) {
			select {
			case n.fatal <- err:
			default: // The server is stopping for another reason already.
			}
		},
	}
	if c.JetStream.Enabled {
		if o.Dir, err = filepath.Abs(c.JetStream.StoreDir); err != nil {
			return fmt.Errorf("store_dir: %w", err)
		}
		n.streams = jetstream.New(n.streamOptions(c))
		o.FS, o.Hooks = vfs.Default, n.streams
	}
	n.cluster = cluster.New(o)
	if route != nil {
		n.routes = routes.New(n.broker, n.cluster)
	}
	if route != nil && n.streams != nil {
		n.streams.Attach(n.cluster)
	}
	return nil
}

func (n *node) streamOptions(c *config.Config) jetstream.Options {
	return jetstream.Options{
		Broker: n.broker, Logger: n.log.Logger, Version: config.ProtocolVersion, Domain: c.JetStream.Domain,
		Clustered: c.Cluster.Enabled(), Account: n.accountLimits, Quota: n.accountQuota,
		Limits: jetstream.Limits{
			DuplicateWindow: c.JetStream.Limits.DuplicateWindow,
			MaxAckPending:   c.JetStream.Limits.MaxAckPending,
			MaxRequestBatch: c.JetStream.Limits.MaxRequestBatch,
			MaxConsumers:    c.JetStream.Limits.DefaultMaxConsumers,
		},
		Defaults: jetstream.Defaults{RocksDB: c.KV.Storage == config.StorageRocksDB, StaleReads: c.KV.StaleReads},
	}
}

// advertise tells the other servers where clients reach this one, and clients where the others are.
func (n *node) advertise() error {
	if n.cluster != nil && n.cluster.RouteAddr() != nil {
		n.ports.Cluster = portURLs("nats", n.cluster.RouteAddr())
	}
	if n.routes == nil || n.cfg.Load().Cluster.NoAdvertise {
		return nil
	}
	n.routes.Advertise(n.front.OwnURLs(), n.front.SetPeerURLs)
	return nil
}

// startStreams opens what is stored and begins to serve it. A server that is to found a cluster or
// to join one serves streams from the moment when it belongs to it; clients may connect before.
func (n *node) startStreams() error {
	if n.streams == nil {
		return n.startMessages()
	}
	n.log.Info("Starting JetStream")
	n.log.Info("  Store Directory: " + strconv.Quote(n.cfg.Load().JetStream.StoreDir))
	if err := n.cluster.Start(); err != nil {
		n.streams.Close()
		return err
	}
	go n.serveStreams()
	n.onStop(func() error {
		err := n.cluster.Close()
		<-n.serving
		n.streams.Close()
		return err
	})
	// Whoever can connect shall find streams. Only a cluster that cannot form yet, because servers
	// are missing, leaves clients with plain messages.
	var late <-chan time.Time
	if n.cluster.Clustered() {
		late = time.After(formTimeout)
	}
	select {
	case <-n.serving:
	case <-late:
		n.log.Warn("The cluster has not formed yet; clients may connect, streams are not served")
	case err := <-n.fatal:
		return err
	}
	return nil
}

// formTimeout is how long clients are kept waiting for a cluster to form.
const formTimeout = 5 * time.Second

// startMessages opens the connections to other servers of a server without streams.
func (n *node) startMessages() error {
	if n.cluster == nil {
		return nil
	}
	if err := n.cluster.Start(); err != nil {
		return err
	}
	n.onStop(n.cluster.Close)
	return nil
}

// serveStreams begins to serve once this server belongs to a cluster. onStop of startStreams waits
// for it.
func (n *node) serveStreams() {
	defer close(n.serving)
	select {
	case <-n.cluster.Formed():
	case <-n.cluster.Done():
		return
	}
	n.streams.Start(n.cluster)
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	go func() {
		select {
		case <-n.cluster.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := n.streams.Ready(ctx); err != nil {
		n.log.Warn("Not all streams are served yet: " + err.Error())
	}
}

// readyTimeout is how long clients are kept waiting for streams that are stored here to be served.
const readyTimeout = 30 * time.Second

// ownLimits tells whether an account has JetStream, and within which limits of its own.
func (n *node) ownLimits(name string) (limits api.AccountLimits, ok bool) {
	c := n.cfg.Load()
	if op := n.operator.Load(); op != nil {
		limits, ok = claimedLimits(op.Account(name))
	} else if a := c.Account(name); a != nil && a.JetStream != nil {
		j := a.JetStream
		limits, ok = api.AccountLimits{
			MaxMemory: j.MaxMemory, MaxStorage: j.MaxFile, MaxStreams: int(j.MaxStreams), MaxConsumers: int(j.MaxConsumers),
			MaxAckPending: int(j.MaxAckPending), MemoryMaxStreamBytes: j.MemoryMaxStreamBytes,
			StoreMaxStreamBytes: j.MaxStreamBytes, MaxBytesRequired: j.MaxBytesRequired,
		}, true
	}
	return limits, ok
}

// accountQuota is how much the streams of an account may hold, if it has limits of its own.
func (n *node) accountQuota(name string) (memory, file int64) {
	if limits, ok := n.ownLimits(name); ok {
		return limits.MaxMemory, limits.MaxStorage
	}
	return -1, -1
}

// accountLimits tells whether an account has JetStream, and within which limits.
func (n *node) accountLimits(name string) (limits api.AccountLimits, ok bool) {
	limits, ok = n.ownLimits(name)
	c := n.cfg.Load()
	// An account without a limit of its own has the server's.
	if limits.MaxMemory < 0 {
		limits.MaxMemory = c.JetStream.MaxMemory
	}
	if limits.MaxStorage < 0 {
		limits.MaxStorage = c.JetStream.MaxFile
	}
	return limits, ok
}

// routeOptions says how to meet the other servers, nil for a server of its own.
func routeOptions(c *config.Config) (*cluster.Route, error) {
	if !c.Cluster.Enabled() {
		return nil, nil
	}
	r := &cluster.Route{
		Cluster: c.Cluster.Name, Listen: net.JoinHostPort(c.Cluster.Host, strconv.Itoa(c.Cluster.Port)),
		Advertise: c.Cluster.Advertise, User: c.Cluster.User, Password: c.Cluster.Password, Tags: c.ServerTags,
	}
	for _, u := range c.Cluster.Routes {
		r.Seeds = append(r.Seeds, routeAddress(u))
	}
	if c.Cluster.TLS != nil {
		var err error
		if r.TLS, err = peerTLS(c.Cluster.TLS); err != nil {
			return nil, fmt.Errorf("cluster tls: %w", err)
		}
	}
	return r, nil
}

func routeAddress(u *url.URL) string {
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "6222")
	}
	return u.Host
}

// peerTLS serves both directions: servers present their certificates to each other.
func peerTLS(t *config.TLS) (*tls.Config, error) {
	server, err := t.ServerConfig()
	if err != nil {
		return nil, err
	}
	client, err := t.ClientConfig()
	if err != nil {
		return nil, err
	}
	server.RootCAs, server.InsecureSkipVerify = client.RootCAs, client.InsecureSkipVerify
	server.ClientCAs, server.ClientAuth = client.RootCAs, tls.RequireAndVerifyClientCert
	return server, nil
}
