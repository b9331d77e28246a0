package main

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cleatkv/cleat/internal/config"
)

// reload reads the configuration again and takes over what can change while the server runs. If
// anything else changed nothing is taken over.
func (n *node) reload() error {
	if n.flags.ConfigFile == "" {
		return errors.New("can only reload config when a file is provided using -c or --config")
	}
	next, err := config.Load(n.flags)
	if err != nil {
		return err
	}
	if err := unreloadable(n.cfg.Load(), next); err != nil {
		return err
	}
	op, err := newOperator(next.Operator)
	if err != nil {
		return err
	}
	o, err := frontOptions(next, op, n.log.Logger)
	if err != nil {
		return err
	}
	if err := n.broker.Share(sharing(next)); err != nil {
		return err
	}
	if err := n.front.Reload(o); err != nil {
		return err
	}
	n.operator.Store(op)
	n.complain(next)
	n.log.setLevel(next.Log)
	n.configure(next)
	n.log.Info(fmt.Sprintf("Reloaded server configuration (%s)", next.Digest))
	return nil
}

// unreloadable returns an error for the first thing that differs and cannot change without a restart.
func unreloadable(old, next *config.Config) error {
	for _, f := range []struct {
		name      string
		old, next any
	}{
		{"server_name", old.ServerName, next.ServerName},
		{"host", old.Host, next.Host},
		{"port", old.Port, next.Port},
		{"jetstream", fixedJetStream(old), fixedJetStream(next)},
		{"cluster", old.Cluster, next.Cluster},
		{"websocket", old.WebSocket, next.WebSocket},
		{"http", old.Monitor, next.Monitor},
		{"prof_port", old.ProfPort, next.ProfPort},
		{"system_account", old.SystemAccount, next.SystemAccount},
		{"pid_file", old.PidFile, next.PidFile},
		{"ports_file_dir", old.PortsFileDir, next.PortsFileDir},
		{"kv", old.KV, next.KV},
		{"log", fixedLog(old.Log), fixedLog(next.Log)},
	} {
		if !reflect.DeepEqual(f.old, f.next) {
			return fmt.Errorf("config reload not supported for %s", f.name)
		}
	}
	return nil
}

// fixedJetStream is what of JetStream cannot change. How much an account may store can.
func fixedJetStream(c *config.Config) config.JetStream {
	js := c.JetStream
	js.MaxMemory, js.MaxFile = 0, 0
	return js
}

// fixedLog is what of the log cannot change: how much is logged can.
func fixedLog(l config.Log) config.Log {
	l.Debug, l.Trace = false, false
	return l
}
