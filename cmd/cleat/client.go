package main

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

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

// client is what all commands that talk to a server share: the flags above them.
type client struct {
	options *cli.Options
	format  cli.Format
}

// addOutputFlag adds the choice of how results are written.
func (k *client) addOutputFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().VarP(&k.format, "output", "o", "how to write results: table, json, jsonl, yaml or csv")
	register(cmd, "output", cobra.FixedCompletions(cli.Formats(), cobra.ShellCompDirectiveNoFileComp))
}

// clientRun is one run of a command: its connection, its output, its user.
type clientRun struct {
	*cli.Session
	out   *cli.Printer
	style cli.Style
	ask   *cli.Prompter
}

// run connects, runs do until it returns or the user interrupts it, and writes out what it printed.
func (k *client) run(do func(ctx context.Context, r *clientRun, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		session, err := k.options.Connect(ctx, os.Stderr)
		if err != nil {
			return interrupted(ctx, err)
		}
		defer session.Close()
		r := &clientRun{
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
func (r *clientRun) confirm(ctx context.Context, force bool, question, skipped string) error {
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
