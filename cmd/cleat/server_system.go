package main

import (
	"errors"
	"time"

	"github.com/cleatkv/cleat/internal/system"
)

// reloadTimeout is how long a request to read the configuration again may wait for its turn.
const reloadTimeout = 5 * time.Second

// startSystem begins to answer the system account, and to tell it of clients.
func (n *node) startSystem() {
	n.system = system.New(system.Options{
		Broker: n.broker, Monitor: n.monitor, Describe: n.front.Describe,
		Reload: n.requestReload, Kick: n.front.Kick, Logger: n.log.Logger,
	})
	n.front.WatchConnections(n.system.Connection)
	n.onStop(func() error {
		n.system.Close()
		return nil
	})
}

// requestReload has the configuration read again by who owns it. It is for other goroutines.
func (n *node) requestReload() error {
	late := time.NewTimer(reloadTimeout)
	defer late.Stop()
	done := make(chan error, 1)
	select {
	case n.reloads <- done:
		return <-done
	case <-late.C:
		return errors.New("the server is starting or stopping")
	}
}
