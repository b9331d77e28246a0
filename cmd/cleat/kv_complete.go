package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
)

// A completion asks the server, with the connection flags already on the command line. It must be
// quick and silent: a shell is waiting, and what goes wrong is no concern of somebody who typed a tab.
const (
	completionTimeout = 2 * time.Second
	completionsMax    = 1000
)

// completeBucket completes a first argument that is a bucket; the others are not completed.
func (k *client) completeBucket(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return k.completeBuckets(cmd, args, prefix)
}

// completeBuckets completes the name of a bucket.
func (k *client) completeBuckets(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return k.complete(prefix, func(ctx context.Context, r *clientRun) []string {
		names, _ := r.bucketNames(ctx)
		return names
	})
}

// completeKey completes a bucket, then a key in it.
func (k *kvCommand) completeKey(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return k.completeBuckets(cmd, args, prefix)
	case 1:
		return k.complete(prefix, func(ctx context.Context, r *clientRun) []string {
			return r.keysWithPrefix(ctx, args[0], prefix)
		})
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func (k *client) complete(prefix string, list func(context.Context, *clientRun) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	k.options.Timeout = completionTimeout
	session, err := k.options.Connect(ctx, io.Discard)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer session.Close()
	var matches []string
	for _, name := range list(ctx, &clientRun{Session: session}) {
		if strings.HasPrefix(name, prefix) {
			matches = append(matches, name)
		}
	}
	return matches, cobra.ShellCompDirectiveNoFileComp
}

// keysWithPrefix is the first keys found that start with prefix, sorted. The server is asked only for
// those under the tokens that are complete.
func (r *clientRun) keysWithPrefix(ctx context.Context, bucket, prefix string) []string {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return nil
	}
	filter := ">"
	if i := strings.LastIndexByte(prefix, '.'); i >= 0 {
		filter = prefix[:i+1] + ">"
	}
	w, err := kv.Watch(ctx, filter, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil
	}
	var keys []string
	// Some completions are better than none: an error shows with the command itself.
	_ = r.initial(ctx, w, func(e jetstream.KeyValueEntry) error {
		if strings.HasPrefix(e.Key(), prefix) {
			keys = append(keys, e.Key())
		}
		if len(keys) == completionsMax {
			return io.EOF // Enough.
		}
		return nil
	})
	slices.Sort(keys)
	return keys
}
