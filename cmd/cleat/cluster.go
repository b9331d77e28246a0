package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

// clusterCommand is what the cluster commands share.
type clusterCommand struct{ client }

// newClusterCommand is `cleat cluster`: what an operator sees of a cluster, and does to it.
func newClusterCommand(options *cli.Options) *cobra.Command {
	k := &clusterCommand{client{options: options, format: cli.Table}}
	cmd := cli.Group(&cobra.Command{
		Use:   "cluster",
		Short: "Look at a cluster and look after it",
		Long: `Shows the servers of a cluster and where buckets and streams have their replicas, and moves leaders.

A user of the system account sees all servers and all accounts, and may change which servers belong to the
cluster. Every other user sees the servers and what its own account has.`,
		Example: `  cleat cluster status --user sys --password sys
  cleat cluster peers CONFIG
  cleat cluster step-down CONFIG --to n2
  cleat cluster check --servers 3 || alert`,
	})
	k.addOutputFlag(cmd)
	cmd.AddCommand(k.statusCommand(), k.peersCommand(), k.stepDownCommand(), k.removeCommand(), k.balanceCommand(), k.checkCommand(), k.recoverCommand())
	return cmd
}

// apiPrefix is what subjects of the JetStream API begin with for this user.
func (r *clientRun) apiPrefix() string {
	o := r.JS.Options()
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// change makes a request that changes something and has no more to tell than that it did.
func (r *clientRun) change(ctx context.Context, subject string, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	m, err := r.Conn.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Success bool                `json:"success"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("the answer of the server cannot be read: %w", err)
	}
	switch {
	case answer.Error != nil:
		return &cli.Error{Code: cli.ExitCode(answer.Error), Err: errors.New(answer.Error.Description)}
	case !answer.Success:
		return errors.New("the server did not say that it is done: " + string(m.Data))
	}
	return nil
}

// systemOnly says of an error who might have been answered.
func systemOnly(err error) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return notSystem()
	}
	return explain(err, "", "")
}

func notSystem() error {
	return &cli.Error{Code: cli.ExitAuth, Err: errors.New("only users of the system account may do this"), Hints: []string{
		"say who you are: --user, --creds or --context",
		"who they are stands in the servers' configuration: accounts { $SYS { users: [...] } }"}}
}

// title is how people call a stream: by the bucket it is, if it is one.
func title(stream string) string {
	if bucket, ok := strings.CutPrefix(stream, "KV_"); ok {
		return "bucket " + bucket
	}
	return "stream " + stream
}

// bucketOf is the bucket that a stream is, or "".
func bucketOf(stream string) string {
	bucket, ok := strings.CutPrefix(stream, "KV_")
	if !ok {
		return ""
	}
	return bucket
}

// completeServer completes the name of a server.
func (k *clusterCommand) completeServer(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return k.completeServers(prefix)
}

func (k *clusterCommand) completeServers(prefix string) ([]string, cobra.ShellCompDirective) {
	return k.complete(prefix, func(ctx context.Context, r *clientRun) []string {
		v, err := r.look(ctx)
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range v.Servers {
			names = append(names, s.Name)
		}
		return names
	})
}

// completeTo adds the completion of a flag that names a server.
func (k *clusterCommand) completeTo(cmd *cobra.Command, flag string) {
	register(cmd, flag, func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return k.completeServers(prefix)
	})
}
