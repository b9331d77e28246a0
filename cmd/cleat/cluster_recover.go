package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
	"github.com/cleatkv/cleat/internal/cluster"
)

func (k *clusterCommand) recoverCommand() *cobra.Command {
	var from string
	var accept bool
	cmd := &cobra.Command{
		Use:         "recover --from DIRECTORY [--i-accept-loss]",
		Annotations: offline,
		Short:       "Go on from one server when most are lost for good",
		Long: `Makes the server of a data directory a cluster of its own, with all that it has: for when the majority of the servers
is lost for good and there is no other way. While a majority can be brought back, bring it back instead.

What only the lost servers had is lost: writes that they acknowledged without this one, and buckets and streams that
have no replica here. Without --i-accept-loss the command only says what there is, and changes nothing.

The server has to be stopped, and so have all others: whatever is left of them is of the old cluster, which must not
serve any more. A server of the old cluster that meets the new one is refused, and stops. New servers with empty
directories join as ever, and buckets get as many replicas as they had.`,
		Example: `  cleat cluster recover --from /var/lib/cleat
  cleat cluster recover --from /var/lib/cleat --i-accept-loss`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if from == "" {
			return cli.Usagef("--from is missing: the data directory of the server that is left")
		}
		dir, err := filepath.Abs(from)
		if err != nil {
			return err
		}
		warnings := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		report, err := cluster.Recover(cluster.Options{FS: vfs.Default, Dir: dir, Logger: warnings}, accept)
		if err != nil {
			return err
		}
		out := cli.NewPrinter(cmd.OutOrStdout(), k.format)
		if out.Structured() {
			err = out.Object(report)
		} else {
			printRecovery(out, report)
		}
		return errors.Join(err, out.Flush(), accepted(accept))
	}
	cmd.Flags().StringVar(&from, "from", "", "data `DIRECTORY` (store_dir) of the server that is left")
	cmd.Flags().BoolVar(&accept, "i-accept-loss", false, "do it, and give up for good what only the other servers had")
	return cmd
}

// accepted is the error of a command that was not told to do anything: a script that has forgotten the flag
// must not go on as if it were done.
func accepted(accept bool) error {
	if accept {
		return nil
	}
	return &cli.Error{Code: cli.ExitConflict, Err: errors.New("nothing was changed"), Hints: []string{
		"keep a copy of the directory, and stop whatever is left of the other servers",
		"to go on from this server, and give up what is lost: --i-accept-loss"}}
}

// printRecovery writes for people what a server goes on with.
func printRecovery(out *cli.Printer, r *cluster.Recovery) {
	switch {
	case r.Server == "":
		out.Printf("An interrupted recovery was ended: cluster %s, which was %s\n", r.Cluster, r.Former)
		return
	case r.Cluster == "":
		out.Printf("Server %s could go on alone, without %s\n", r.Server, strings.Join(r.Removed, ", "))
	default:
		out.Printf("Server %s goes on alone, without %s, as cluster %s, which was %s\n", r.Server, strings.Join(r.Removed, ", "), r.Cluster, r.Former)
	}
	for i := range r.Streams {
		s := &r.Streams[i]
		what := title(s.Stream)
		if s.Account != "$G" {
			what += " of account " + s.Account
		}
		switch s.Outcome {
		case cluster.OutcomeKept:
			out.Printf("  %s: kept, %s, last sequence %d\n", what, plural(int(s.Messages), "message"), s.LastSeq)
		case cluster.OutcomeEmpty:
			out.Printf("  %s: begins anew, empty, since it is kept in memory\n", what)
		default:
			out.Printf("  %s: LOST: %s\n", what, s.Why)
		}
	}
	if r.Cluster != "" {
		out.Printf("Start the server. Others join it with empty data directories; those of the old cluster are refused.\n")
	}
}
