package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
	"github.com/cleatkv/cleat/internal/inspect"
	"github.com/cleatkv/cleat/internal/wal"
)

// errDamage is the error of a command that found damage and has written what it is.
var errDamage = errors.New("there is damage")

// newInspectCommand is `cleat inspect`: looking at the files of a server that does not run.
func newInspectCommand() *cobra.Command {
	k := &client{format: cli.Table}
	cmd := cli.Group(&cobra.Command{
		Use:         "inspect",
		Annotations: offline,
		Short:       "Check the files of a server that does not run",
		Long: `Reads every byte of a server's files, says what is in them and whether all of it is right. Nothing is changed,
except by "repair" where it is told to. The server has to be stopped.

The exit code is 1 if there is damage.`,
	})
	k.addOutputFlag(cmd)
	cmd.AddCommand(k.inspectWAL(), k.inspectEngine(), k.inspectSnapshot(), k.inspectRepair())
	return cmd
}

// offline runs do with the directory locked, and writes out what it printed.
func (k *client) offline(do func(out *cli.Printer, root, path string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		path, err := filepath.Abs(args[0]) // So that the directories above it are known.
		if err != nil {
			return err
		}
		root, lock, err := inspect.Lock(vfs.Default, path)
		if err != nil {
			return err
		}
		out := cli.NewPrinter(cmd.OutOrStdout(), k.format)
		err = do(out, root, path)
		return errors.Join(err, out.Flush(), lock.Close())
	}
}

func (k *client) inspectWAL() *cobra.Command {
	var dump bool
	var groups []uint
	cmd := &cobra.Command{
		Use:   "wal DIRECTORY",
		Short: "Check the Raft log",
		Long:  "Checks the Raft log in the directory of a server, or in the directory itself.",
		Args:  cli.Args("DIRECTORY"),
	}
	cmd.RunE = k.offline(func(out *cli.Printer, _, path string) error {
		dir := inspect.WALDir(vfs.Default, path)
		switch {
		case dump && out.Structured():
			return cli.Usagef("--dump is text only")
		case dump:
			var ids []wal.GroupID
			for _, g := range groups {
				ids = append(ids, wal.GroupID(g))
			}
			return inspect.DumpWAL(out, vfs.Default, dir, ids...)
		case out.Structured():
			l, err := inspect.ReadWAL(vfs.Default, dir)
			if err != nil {
				return err
			}
			return damageIf(!l.Right(), out.Object(l))
		}
		ok, err := inspect.CheckWAL(out, vfs.Default, dir)
		return damageIf(!ok && err == nil, err)
	})
	cmd.Flags().BoolVar(&dump, "dump", false, "list every batch instead, with what it did")
	cmd.Flags().UintSliceVar(&groups, "group", nil, "with --dump: only these groups, by `NUMBER`")
	return cmd
}

// damageIf is errDamage if there is damage and no other error.
func damageIf(damage bool, err error) error {
	if err == nil && damage {
		return errDamage
	}
	return err
}

func (k *client) inspectEngine() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "engine DIRECTORY",
		Short: "Check what streams and buckets are stored in",
		Long: `Checks the storage of all streams in the directory of a server, or one of them: streams/NAME for one kept in
files, rocksdb for those in the database.`,
		Args: cli.Args("DIRECTORY"),
	}
	cmd.RunE = k.offline(func(out *cli.Printer, _, path string) error {
		engines, err := inspect.Engines(vfs.Default, path)
		if err != nil {
			return err
		}
		damage := slices.ContainsFunc(engines, func(e inspect.Engine) bool { return len(e.Damage) > 0 })
		if out.Structured() {
			return damageIf(damage, out.List(engines))
		}
		for i := range engines {
			if err := inspect.WriteEngine(out, &engines[i], files); err != nil {
				return err
			}
		}
		return damageIf(damage, nil)
	})
	cmd.Flags().BoolVar(&files, "files", false, "list the files, too")
	return cmd
}

func (k *client) inspectSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Check a snapshot that one server sent to another",
		Args:  cli.Args("FILE"),
	}
	cmd.RunE = k.offline(func(out *cli.Printer, _, path string) error {
		s, err := inspect.CheckSnapshot(vfs.Default, path)
		if err != nil {
			return err
		}
		if out.Structured() {
			err = out.Object(s)
		} else {
			err = inspect.WriteSnapshot(out, s)
		}
		return damageIf(len(s.Damage) > 0, err)
	})
	return cmd
}

func (k *client) inspectRepair() *cobra.Command {
	var discard []string
	cmd := &cobra.Command{
		Use:   "repair DIRECTORY",
		Short: "Say what can be done about damage, and do it where told to",
		Long: `Says of every damaged replica in the directory of a server what it has lost and what can be done. Nothing is
changed, but for replicas that are named with --discard-damaged: what can not be read of them is given up for good, so
that the server serves the rest. That is possible where there is no other replica; otherwise the others have the data.
Damaged files are put aside, in the directory "damaged".`,
		Example: `  cleat inspect repair /var/lib/cleat
  cleat inspect repair /var/lib/cleat --discard-damaged g101-r102`,
		Args: cli.Args("DIRECTORY"),
	}
	cmd.RunE = k.offline(func(out *cli.Printer, root, path string) error {
		if root == "" {
			return fmt.Errorf("%s is not the directory of a server", path)
		}
		repairs, err := inspect.Repairs(vfs.Default, root)
		if err != nil {
			return err
		}
		err = discardDamaged(repairs, root, discard)
		left := slices.ContainsFunc(repairs, func(r *inspect.Repair) bool { return !r.Done })
		if out.Structured() {
			return errors.Join(err, damageIf(left && err == nil, out.List(repairs)))
		}
		for _, r := range repairs {
			if err := inspect.WriteRepair(out, r); err != nil {
				return err
			}
		}
		if len(repairs) == 0 {
			out.Printf("nothing is damaged\n")
		}
		return damageIf(left, err)
	})
	cmd.Flags().StringSliceVar(&discard, "discard-damaged", nil, "give up what is damaged of this `REPLICA`, by the name that the command shows")
	return cmd
}

// discardDamaged carries out the repairs of the replicas that are named.
func discardDamaged(repairs []*inspect.Repair, root string, names []string) error {
	for _, name := range names {
		i := slices.IndexFunc(repairs, func(r *inspect.Repair) bool { return r.Replica == name })
		if i < 0 {
			return cli.Usagef("--discard-damaged %s: no replica of that name is damaged", name)
		}
		if err := repairs[i].Discard(vfs.Default, root); err != nil {
			return err
		}
	}
	return nil
}
