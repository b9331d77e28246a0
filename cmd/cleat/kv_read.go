package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

func (k *kvCommand) getCommand() *cobra.Command {
	var revision uint64
	var raw bool
	cmd := &cobra.Command{
		Use:               "get <bucket> <key>",
		Short:             "Gets a value for a key",
		Args:              cli.Args("<bucket> <key>"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			e, err := r.get(ctx, args[0], args[1], revision)
			switch {
			case err != nil:
				return err
			case raw:
				_, err := r.out.Write(e.Value())
				return err
			case r.out.Structured():
				return r.out.Object(newEntryRecord(e))
			}
			r.showEntry(e)
			return nil
		}),
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "get this `REVISION`, not the last one")
	cmd.Flags().BoolVar(&raw, "raw", false, "show only the value, byte for byte")
	return cmd
}

// get reads a key, at a revision if that is not 0.
func (r *clientRun) get(ctx context.Context, bucket, key string, revision uint64) (jetstream.KeyValueEntry, error) {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return nil, explain(err, bucket, key)
	}
	if revision == 0 {
		e, err := kv.Get(ctx, key)
		return e, explain(err, bucket, key)
	}
	e, err := kv.GetRevision(ctx, key, revision)
	return e, explainRevision(err, bucket, key, revision)
}

func (r *clientRun) showEntry(e jetstream.KeyValueEntry) {
	r.out.Printf("%s > %s revision: %d created @ %s\n\n", e.Bucket(), e.Key(), e.Revision(), cli.Time(e.Created()))
	shown := cli.Display(e.Value())
	if len(shown) > 120 {
		r.out.Printf("Showing first 120 bytes of %s, use --raw for full data\n\n", cli.Comma(len(shown)))
		shown = shown[:120]
	}
	r.out.Printf("%s\n\n", shown)
	if !cli.Printable(e.Value()) {
		fmt.Fprintln(os.Stderr, "cleat: the value is not plain text and is shown in base64, use --raw for the bytes")
	}
}

func (k *kvCommand) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "history <bucket> <key>",
		Short:             "Shows the full history for a key",
		Args:              cli.Args("<bucket> <key>"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			kv, err := r.JS.KeyValue(ctx, args[0])
			if err != nil {
				return explain(err, args[0], args[1])
			}
			return r.showHistory(ctx, kv, args[0], args[1])
		}),
	}
}

// entries is every revision kept of a key, oldest first; at least one.
func (r *clientRun) entries(ctx context.Context, kv jetstream.KeyValue, key string) ([]jetstream.KeyValueEntry, error) {
	w, err := kv.Watch(ctx, key, jetstream.IncludeHistory())
	if err != nil {
		return nil, err
	}
	var all []jetstream.KeyValueEntry
	err = r.initial(ctx, w, func(e jetstream.KeyValueEntry) error {
		all = append(all, e)
		return nil
	})
	if err == nil && len(all) == 0 {
		err = jetstream.ErrKeyNotFound
	}
	return all, err
}

func (r *clientRun) showHistory(ctx context.Context, kv jetstream.KeyValue, bucket, key string) error {
	history, err := r.entries(ctx, kv, key)
	if err != nil {
		return explain(err, bucket, key)
	}
	if r.out.Structured() {
		records := make([]entryRecord, len(history))
		for i, e := range history {
			records[i] = newEntryRecord(e)
		}
		return r.out.List(records)
	}
	t := r.style.NewTable(fmt.Sprintf("History for %s > %s", bucket, key),
		"Key", "Revision", "Op", "Created", "Length", "Value")
	for _, e := range history {
		t.AppendRow([]any{e.Key(), e.Revision(), operation(e), cli.Time(e.Created()),
			cli.Comma(len(e.Value())), cli.Abbreviate(cli.Display(e.Value()))})
	}
	cli.Render(r.out, t)
	return nil
}

func (k *kvCommand) watchCommand() *cobra.Command {
	var history, updates bool
	var deletes bool
	var revision uint64
	cmd := &cobra.Command{
		Use:               "watch <bucket> [key]",
		Short:             "Watch the bucket or a specific key for updates",
		Args:              cli.Args("<bucket> [key]"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			key := ">"
			if len(args) > 1 {
				key = args[1]
			}
			var opts []jetstream.WatchOpt
			if !deletes {
				opts = append(opts, jetstream.IgnoreDeletes())
			}
			if history {
				opts = append(opts, jetstream.IncludeHistory())
			}
			if updates {
				opts = append(opts, jetstream.UpdatesOnly())
			}
			if revision > 0 {
				opts = append(opts, jetstream.ResumeFromRevision(revision))
			}
			return r.watch(ctx, args[0], key, opts)
		}),
	}
	cmd.Flags().BoolVar(&history, "history", false, "include historic values")
	cli.Negatable(cmd.Flags(), &deletes, "deletes", true, "include deletes")
	cmd.Flags().BoolVar(&updates, "updates", false, "only show values written from now on")
	cmd.Flags().Uint64Var(&revision, "revision", 0, "start from this `REVISION`")
	return cmd
}

// watch shows what happens to keys until it is interrupted.
func (r *clientRun) watch(ctx context.Context, bucket, key string, opts []jetstream.WatchOpt) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, key)
	}
	w, err := kv.Watch(ctx, key, opts...)
	if err != nil {
		return explain(err, bucket, key)
	}
	defer w.Stop()
	show := r.showEvent
	if r.out.Structured() {
		stream := r.out.Stream(reflect.TypeFor[entryRecord]())
		show = func(e jetstream.KeyValueEntry) error { return stream.Write(newEntryRecord(e)) }
	}
	if err := r.out.Flush(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("the watch of %s > %s ended", bucket, key)
			}
			if e == nil {
				continue // All there was at the start has been shown.
			}
			if err := show(e); err != nil {
				return err
			}
		}
	}
}

func (r *clientRun) showEvent(e jetstream.KeyValueEntry) error {
	r.out.Printf("[%s] ", cli.Time(e.Created()))
	switch op := operation(e); op {
	case "PUT":
		r.out.Printf("%s %s > %s: %s\n", r.style.Color(text.FgGreen, op), e.Bucket(), e.Key(), e.Value())
	default:
		r.out.Printf("%s %s > %s\n", r.style.Color(text.FgRed, op), e.Bucket(), e.Key())
	}
	return r.out.Flush()
}

// lsFlags are what `kv ls` shows of what it lists.
type lsFlags struct{ names, verbose, values, sort bool }

func (k *kvCommand) lsCommand() *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:               "ls [bucket] [key]",
		Aliases:           []string{"list"},
		Short:             "List available buckets or the keys in a bucket",
		Long:              "Lists available buckets, or the keys in a bucket. A key may hold wildcards: 'users.*', 'users.>'.",
		Args:              cli.Args("[bucket] [key]"),
		ValidArgsFunction: k.completeKey,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			if len(args) == 0 || args[0] == "" {
				return r.listBuckets(ctx, f)
			}
			filter := ">"
			if len(args) > 1 && args[1] != "" {
				filter = args[1]
			}
			return r.listKeys(ctx, args[0], filter, f)
		}),
	}
	cmd.Flags().BoolVarP(&f.names, "names", "n", false, "show just the bucket names")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show detailed info about the key")
	cmd.Flags().BoolVar(&f.values, "display-value", false, "display value in verbose output (has no effect without 'verbose')")
	cmd.Flags().BoolVar(&f.sort, "sort", false, "sort by name")
	return cmd
}

// listKeys lists the keys of a bucket in the order of their last revisions, or sorted.
func (r *clientRun) listKeys(ctx context.Context, bucket, filter string, f lsFlags) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, filter)
	}
	opts := []jetstream.WatchOpt{jetstream.IgnoreDeletes()}
	if !f.verbose || !f.values {
		opts = append(opts, jetstream.MetaOnly())
	}
	w, err := kv.Watch(ctx, filter, opts...)
	if err != nil {
		return explain(err, bucket, filter)
	}
	// Only the plain list is written as it arrives: the others need all of it, to sort or to align.
	stream := !f.sort && !f.verbose && !r.out.Structured()
	var found []keyRecord
	count := 0
	err = r.initial(ctx, w, func(e jetstream.KeyValueEntry) error {
		count++
		if stream {
			r.out.Printf("%s\n", e.Key())
			return nil
		}
		found = append(found, newKeyRecord(e))
		return nil
	})
	if err != nil {
		return explain(err, bucket, filter)
	}
	if f.sort {
		slices.SortStableFunc(found, func(a, b keyRecord) int { return strings.Compare(a.Key, b.Key) })
	}
	switch {
	case r.out.Structured():
		return r.keyRecords(found, f)
	case count == 0 && !f.names:
		if f.verbose {
			r.showKeys(bucket, found, f)
		}
		r.out.Printf("No keys found in bucket\n")
	case f.verbose:
		r.showKeys(bucket, found, f)
	case !stream:
		for _, k := range found {
			r.out.Printf("%s\n", k.Key)
		}
	}
	return nil
}

// keyRecords writes the fields that were asked for.
func (r *clientRun) keyRecords(found []keyRecord, f lsFlags) error {
	switch {
	case f.verbose && f.values:
		return r.out.List(found)
	case f.verbose:
		return r.out.List(project(found, func(k keyRecord) keyInfoRecord { return k.keyInfoRecord() }))
	default:
		return r.out.List(project(found, func(k keyRecord) keyNameRecord { return keyNameRecord{k.Key} }))
	}
}

func (r *clientRun) showKeys(bucket string, found []keyRecord, f lsFlags) {
	headers := []any{"Key", "Created", "Delta", "Revision"}
	if f.values {
		headers = append(headers, "Value")
	}
	t := r.style.NewTable(fmt.Sprintf("Contents for bucket '%s'", bucket), headers...)
	for _, k := range found {
		// Delta is how many revisions a value is behind its key's last: these are the last.
		row := []any{k.Key, cli.Time(k.Created), 0, k.Revision}
		if f.values {
			row = append(row, k.cell())
		}
		t.AppendRow(row)
	}
	cli.Render(r.out, t)
}

// listBuckets lists the buckets, the smallest first, or sorted by name.
func (r *clientRun) listBuckets(ctx context.Context, f lsFlags) error {
	var found []bucketRecord
	lister := r.JS.ListStreams(ctx)
	for info := range lister.Info() {
		if name, ok := strings.CutPrefix(info.Config.Name, "KV_"); ok {
			found = append(found, newBucketRecord(name, info))
		}
	}
	if err := lister.Err(); err != nil {
		return explain(err, "", "")
	}
	slices.SortStableFunc(found, func(a, b bucketRecord) int {
		if !f.sort && !f.names && a.Bytes != b.Bytes {
			return int(min(1, max(-1, int64(a.Bytes-b.Bytes))))
		}
		return strings.Compare(a.Bucket, b.Bucket)
	})
	switch {
	case r.out.Structured() && f.names:
		return r.out.List(project(found, func(b bucketRecord) bucketNameRecord { return bucketNameRecord{b.Bucket} }))
	case r.out.Structured():
		return r.out.List(found)
	case f.names:
		for _, b := range found {
			r.out.Printf("%s\n", b.Bucket)
		}
	case len(found) == 0:
		r.out.Printf("No Key-Value buckets found\n")
	default:
		r.showBuckets(found)
	}
	return nil
}

func (r *clientRun) showBuckets(found []bucketRecord) {
	t := r.style.NewTable("Key-Value Buckets", "Bucket", "Description", "Created", "Size", "Values", "Last Update")
	for _, b := range found {
		age := "never"
		if b.LastUpdate != nil {
			age = cli.Age(time.Since(*b.LastUpdate))
		}
		t.AppendRow([]any{b.Bucket, b.Description, cli.Time(b.Created), cli.Bytes(b.Bytes), cli.Comma(b.Values), age})
	}
	cli.Render(r.out, t)
}
