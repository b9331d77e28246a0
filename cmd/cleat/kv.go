package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

// kvCommand is what the kv commands share.
type kvCommand struct{ client }

// newKVCommand is `cleat kv`, the commands of `nats kv` with its arguments, flags and text.
func newKVCommand(options *cli.Options) *cobra.Command {
	k := &kvCommand{client{options: options, format: cli.Table}}
	cmd := cli.Group(&cobra.Command{
		Use:   "kv",
		Short: "Work with Key-Value buckets and their keys",
		Long: `Works with the Key-Value buckets of a cleat or NATS server.

A bucket holds keys, a key holds a value and, if the bucket keeps them, the values it had before.`,
		Example: `  cleat kv add CONFIG
  cleat kv put CONFIG greeting "hello world"
  cleat kv get CONFIG greeting --raw
  cleat kv watch CONFIG
  cleat kv ls CONFIG -o json`,
	})
	k.addOutputFlag(cmd)
	cmd.AddCommand(
		k.addCommand(), k.editCommand(), k.infoCommand(), k.compactCommand(),
		k.backupCommand(), k.restoreCommand(),
		k.putCommand(), k.createCommand(), k.updateCommand(),
		k.getCommand(), k.historyCommand(), k.revertCommand(),
		k.delCommand(), k.purgeCommand(), k.watchCommand(), k.lsCommand(),
	)
	return cmd
}

// initial calls fn with what a watcher holds at its start, then stops it. A server that falls silent
// for longer than the time-out is an error, not a wait without end.
func (r *clientRun) initial(ctx context.Context, w jetstream.KeyWatcher, fn func(jetstream.KeyValueEntry) error) error {
	defer w.Stop()
	silence := time.NewTimer(r.Timeout)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silence.C:
			return context.DeadlineExceeded
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the server ended the watch")
			case e == nil:
				return nil
			}
			if err := fn(e); err != nil {
				return err
			}
			silence.Reset(r.Timeout)
		}
	}
}
