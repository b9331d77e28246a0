package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

// kvCommand is what the kv commands share: the flags above them all.
type kvCommand struct {
	options *cli.Options
	format  cli.Format
}

// newKVCommand is `cleat kv`, the commands of `nats kv` with its arguments, flags and text.
func newKVCommand(options *cli.Options) *cobra.Command {
	k := &kvCommand{options: options, format: cli.Table}
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
	cmd.PersistentFlags().VarP(&k.format, "output", "o", "how to write results: table, json, jsonl, yaml or csv")
	register(cmd, "output", cobra.FixedCompletions(cli.Formats(), cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(
		k.addCommand(), k.editCommand(), k.infoCommand(), k.compactCommand(),
		k.putCommand(), k.createCommand(), k.updateCommand(),
		k.getCommand(), k.historyCommand(), k.revertCommand(),
		k.delCommand(), k.purgeCommand(), k.watchCommand(), k.lsCommand(),
	)
	return cmd
}

// connectionFlags adds the connection flags to root, so that they may stand before or after a
// command's name.
func connectionFlags(root *cobra.Command) *cli.Options {
	options := new(cli.Options)
	options.AddFlags(root.PersistentFlags())
	register(root, "context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return cli.ContextNames(), cobra.ShellCompDirectiveDefault
	})
	register(root, "colors", cobra.FixedCompletions(cli.ColorSchemes(), cobra.ShellCompDirectiveNoFileComp))
	return options
}

// register adds the completion of a flag's values.
func register(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // The flag does not exist, or has a completion already: a mistake made here.
	}
}

// kvRun is one run of a kv command: its connection, its output, its user.
type kvRun struct {
	*cli.Session
	out   *cli.Printer
	style cli.Style
	ask   *cli.Prompter
}

// run connects, runs do until it returns or the user interrupts it, and writes out what it printed.
func (k *kvCommand) run(do func(ctx context.Context, r *kvRun, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		session, err := k.options.Connect(ctx, os.Stderr)
		if err != nil {
			return interrupted(ctx, err)
		}
		defer session.Close()
		r := &kvRun{
			Session: session,
			out:     cli.NewPrinter(os.Stdout, k.format),
			style:   cli.StyleFor(os.Stdout, session.Colors),
			ask:     &cli.Prompter{In: os.Stdin, Out: os.Stdout, Context: session.Context},
		}
		err = do(ctx, r, args)
		if flushErr := r.out.Flush(); err == nil {
			err = flushErr
		}
		return interrupted(ctx, session.Explain(err))
	}
}

// interrupted is err, unless the interrupt that ended ctx is what caused it.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return cli.ErrInterrupted
	}
	return err
}

// confirm asks the question unless force is set. On a no it prints skipped, if there is any.
func (r *kvRun) confirm(ctx context.Context, force bool, question, skipped string) error {
	if force {
		return nil
	}
	if err := r.out.Flush(); err != nil {
		return err
	}
	err := r.ask.Confirm(ctx, question)
	if errors.Is(err, cli.ErrCancelled) && skipped != "" {
		r.out.Printf("%s\n", skipped)
	}
	return err
}

// initial calls fn with what a watcher holds at its start, then stops it. A server that falls silent
// for longer than the time-out is an error, not a wait without end.
func (r *kvRun) initial(ctx context.Context, w jetstream.KeyWatcher, fn func(jetstream.KeyValueEntry) error) error {
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
