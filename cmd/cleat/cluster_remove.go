package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// removeRecord is a server that belongs to the cluster no more.
type removeRecord struct {
	Server  string `json:"server"`
	Removed bool   `json:"removed"`
}

func (k *clusterCommand) removeCommand() *cobra.Command {
	var force, lose bool
	cmd := &cobra.Command{
		Use:   "remove <server>",
		Short: "Declare a server gone for good",
		Long: `Declares that a server is gone for good. The cluster counts on it no more, and other servers get the replicas that it
had, as far as there are servers without one. It cannot come back: with an empty data directory it joins as a new one.

A server that still has what no other has, or without which a bucket could not reach a majority, is not removed,
unless --accept-data-loss says that this is known. To replace a server no command is needed: start one of the same name
with an empty data directory.`,
		Args:              cli.Args("<server>"),
		ValidArgsFunction: k.completeServer,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			return r.removeServer(ctx, args[0], force, lose)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&lose, "accept-data-loss", false, "remove the server even if data or a majority is lost with it")
	return cmd
}

func (r *clientRun) removeServer(ctx context.Context, name string, force, lose bool) error {
	v, err := r.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case !v.System:
		return notSystem()
	case v.Meta == nil:
		return errors.New("this server is alone: there is no cluster to remove it from")
	case v.server(name) == nil:
		e := &cli.Error{Code: cli.ExitNotFound, Err: fmt.Errorf("no server of the cluster is called %s", name)}
		for _, s := range v.Servers {
			e.Hints = append(e.Hints, s.Name)
		}
		return e
	}
	if losses := v.losses(name); len(losses) > 0 && !lose {
		return &cli.Error{Code: cli.ExitConflict, Err: fmt.Errorf("server %s is still needed", name), Hints: append(losses,
			"move or delete these first, or remove it all the same: --accept-data-loss")}
	}
	question := fmt.Sprintf("Really remove server %s from cluster %s for good", name, v.Name)
	if v.server(name).Online {
		question = fmt.Sprintf("Server %s is running. Really remove it from cluster %s for good", name, v.Name)
	}
	if err := r.confirm(ctx, force, question, "nothing was done"); err != nil {
		return err
	}
	if err := r.change(ctx, jetstream.DefaultAPIPrefix+"SERVER.REMOVE", api.ServerRemoveRequest{Peer: name}); err != nil {
		return systemOnly(err)
	}
	if r.out.Structured() {
		return r.out.Object(removeRecord{name, true})
	}
	r.out.Printf("Server %s does not belong to cluster %s any more\n", name, v.Name)
	return nil
}

// losses are what would be lost with a server.
func (v *clusterView) losses(name string) []string {
	var all []string
	if others := v.onlineServers(); v.Meta.Leader == "" {
		all = append(all, "the cluster has no leader now, so nothing can be decided")
	} else if s := v.server(name); s.Online && others-1 < (v.Meta.Size-1)/2+1 {
		all = append(all, fmt.Sprintf("%s would be left, and %d are a quorum", plural(others-1, "server"), (v.Meta.Size-1)/2+1))
	}
	for _, g := range v.Groups {
		on := g.Leader == name || slices.ContainsFunc(g.Members, func(m *api.PeerInfo) bool { return m.Name == name })
		if !on {
			continue
		}
		what := title(g.Stream)
		if g.Account != "$G" {
			what += " of account " + g.Account
		}
		online, quorum := v.online(g)
		if s := v.server(name); s.Online {
			online--
		}
		switch {
		case g.Replicas == 1:
			all = append(all, what+" has its only replica there")
		case online < quorum:
			all = append(all, fmt.Sprintf("%s would have %d of %d replicas, and %d are a majority", what, online, g.Replicas, quorum))
		}
	}
	return all
}
