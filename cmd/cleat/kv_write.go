package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatkv/cleat/internal/cli"
)

// valueSource is where the value of a write comes from: the argument, or with "-" standard input, or
// the file of --file.
type valueSource struct{ file string }

func (v *valueSource) addFlag(fs *pflag.FlagSet) {
	fs.StringVar(&v.file, "file", "", "read the value from a `FILE`, - for standard input")
}

// read returns the value, and what to echo of it: an argument as it is, of anything read nothing. arg
// is nil when there is no argument; then standard input is read, unless it is a terminal.
func (v *valueSource) read(ctx context.Context, arg *string) (value []byte, echo string, err error) {
	switch {
	case v.file != "" && arg != nil:
		return nil, "", cli.Usagef("give the value as an argument or with --file, not both")
	case v.file != "" && v.file != "-":
		value, err = os.ReadFile(v.file)
		return value, "", err
	case arg != nil && *arg != "-":
		return []byte(*arg), *arg, nil
	case arg == nil && v.file == "" && cli.IsTerminal(os.Stdin):
		e := cli.Usagef("required argument 'value' not provided")
		e.Hints = []string{`give it as an argument ("" is the empty value), with --file, or - to type it`}
		return nil, "", e
	}
	value, err = cli.ReadAll(ctx, os.Stdin)
	return value, "", err
}

// argument is args[i], nil if there are fewer.
func argument(args []string, i int) *string {
	if i < len(args) {
		return &args[i]
	}
	return nil
}

// write is what put, create and update do: get the bucket and the value, store it, show it.
func (r *clientRun) write(ctx context.Context, bucket, key string, v *valueSource, arg *string,
	store func(jetstream.KeyValue, []byte) (uint64, error)) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, key)
	}
	value, echo, err := v.read(ctx, arg)
	if err != nil {
		return err
	}
	revision, err := store(kv, value)
	if err != nil {
		return explain(err, bucket, key)
	}
	if r.out.Structured() {
		return r.out.Object(writeRecord{bucket, key, &revision, "PUT"})
	}
	r.out.Printf("%s\n", echo)
	return nil
}

func (k *kvCommand) putCommand() *cobra.Command {
	var v valueSource
	cmd := &cobra.Command{
		Use:   "put <bucket> <key> [value]",
		Short: "Puts a value into a key",
		Long: `Puts a value into a key.

Without a value, or with "-", the value is read from standard input.`,
		Args:              cli.Args("<bucket> <key> [value]"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			return r.write(ctx, args[0], args[1], &v, argument(args, 2),
				func(kv jetstream.KeyValue, value []byte) (uint64, error) {
					return kv.Put(ctx, args[1], value)
				})
		}),
	}
	v.addFlag(cmd.Flags())
	return cmd
}

func (k *kvCommand) createCommand() *cobra.Command {
	var v valueSource
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:               "create <bucket> <key> [value]",
		Short:             "Puts a value into a key only if the key is new or its last operation was a delete",
		Args:              cli.Args("<bucket> <key> [value]"),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			var opts []jetstream.KVCreateOpt
			if ttl > 0 {
				opts = append(opts, jetstream.KeyTTL(ttl))
			}
			return r.write(ctx, args[0], args[1], &v, argument(args, 2),
				func(kv jetstream.KeyValue, value []byte) (uint64, error) {
					return kv.Create(ctx, args[1], value, opts...)
				})
		}),
	}
	v.addFlag(cmd.Flags())
	cmd.Flags().Var(cli.NewDuration(&ttl, 0), "ttl", "how long the key lives; the bucket must have --marker-ttl")
	return cmd
}

func (k *kvCommand) updateCommand() *cobra.Command {
	var v valueSource
	const pattern = "<bucket> <key> <value> <revision>"
	cmd := &cobra.Command{
		Use:               "update " + pattern,
		Short:             "Updates a key with a new value if the previous value matches the given revision",
		Long:              "Updates a key with a new value if the previous value matches the given revision.\n\nWith --file there is no value argument.",
		ValidArgsFunction: k.completeKey,
		Args: func(cmd *cobra.Command, args []string) error {
			if v.file != "" {
				return endingInRevision("<bucket> <key> <revision>")(cmd, args)
			}
			return endingInRevision(pattern)(cmd, args)
		},
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			last := len(args) - 1
			revision, err := parseRevision(args[last])
			if err != nil {
				return err
			}
			return r.write(ctx, args[0], args[1], &v, argument(args[:last], 2),
				func(kv jetstream.KeyValue, value []byte) (uint64, error) {
					return kv.Update(ctx, args[1], value, revision)
				})
		}),
	}
	v.addFlag(cmd.Flags())
	return cmd
}

// endingInRevision is cli.Args, and the last argument must be a revision.
func endingInRevision(pattern string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cli.Args(pattern)(cmd, args); err != nil {
			return err
		}
		if _, err := parseRevision(args[len(args)-1]); err != nil {
			return cli.Usagef("invalid revision %q: it is a whole number", args[len(args)-1])
		}
		return nil
	}
}

func parseRevision(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }

func (k *kvCommand) delCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "del <bucket> [key]",
		Aliases:           []string{"rm"},
		Short:             "Deletes a key or the entire bucket",
		Args:              cli.Args("<bucket> [key]"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			if len(args) == 1 || args[1] == "" {
				return r.deleteBucket(ctx, args[0], force)
			}
			return r.mark(ctx, args[0], args[1], force, "DELETE", "Delete key %s > %s?", "Skipping delete",
				func(kv jetstream.KeyValue) error { return kv.Delete(ctx, args[1]) })
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "act without confirmation")
	return cmd
}

func (k *kvCommand) purgeCommand() *cobra.Command {
	var force bool
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:               "purge <bucket> <key>",
		Short:             "Deletes a key from the bucket, clearing history before creating a delete marker",
		Args:              cli.Args("<bucket> <key>"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			var opts []jetstream.KVDeleteOpt
			if ttl > 0 {
				opts = append(opts, jetstream.PurgeTTL(ttl))
			}
			return r.mark(ctx, args[0], args[1], force, "PURGE", "Purge key %s > %s?", "Skipping purge",
				func(kv jetstream.KeyValue) error { return kv.Purge(ctx, args[1], opts...) })
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "act without confirmation")
	cmd.Flags().Var(cli.NewDuration(&ttl, 0), "ttl", "how long the purge marker lives")
	return cmd
}

func (k *kvCommand) revertCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "revert <bucket> <key> <revision>",
		Short:             "Reverts a value to a previous revision using put",
		Args:              endingInRevision("<bucket> <key> <revision>"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			revision, err := parseRevision(args[2])
			if err != nil {
				return err
			}
			return r.revert(ctx, args[0], args[1], revision, force)
		}),
	}
	cli.Negatable(cmd.Flags(), &force, "force", false, "revert without confirmation")
	return cmd
}

// revert stores the value of an old revision again, as an update of the newest, so that a write made
// while the user thinks is not lost.
func (r *clientRun) revert(ctx context.Context, bucket, key string, revision uint64, force bool) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, key)
	}
	history, err := r.entries(ctx, kv, key)
	if err != nil {
		return explain(err, bucket, key)
	}
	if len(history) <= 1 {
		return errors.New("cannot revert key in a bucket where history=1")
	}
	old, err := kv.GetRevision(ctx, key, revision)
	if err != nil {
		return explainRevision(err, bucket, key, revision)
	}
	if !force {
		r.out.Printf("Revision: %d\n\n%s\n\n", old.Revision(), cli.Abbreviate(cli.Display(old.Value())))
	}
	if err := r.confirm(ctx, force, "Really revert to revision "+strconv.FormatUint(revision, 10), ""); err != nil {
		return err
	}
	if _, err := kv.Update(ctx, key, old.Value(), history[len(history)-1].Revision()); err != nil {
		return explain(err, bucket, key)
	}
	return r.showHistory(ctx, kv, bucket, key)
}

// mark asks, then writes a marker over a key.
func (r *clientRun) mark(ctx context.Context, bucket, key string, force bool, op, question, skipped string,
	write func(jetstream.KeyValue) error) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, key)
	}
	if err := r.confirm(ctx, force, fmt.Sprintf(question, bucket, key), skipped); err != nil {
		return err
	}
	if err := write(kv); err != nil {
		return explain(err, bucket, key)
	}
	if r.out.Structured() {
		return r.out.Object(writeRecord{bucket, key, nil, op})
	}
	return nil
}
