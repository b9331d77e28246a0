package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// bucketFlags are the configuration flags of add and edit.
type bucketFlags struct {
	set *pflag.FlagSet

	description  string
	history      int
	storage      string
	ttl          time.Duration
	markerTTL    time.Duration
	replicas     uint
	maxValueSize int64
	maxBytes     int64
	tags         []string
	cluster      string
	compress     bool
	metadata     []string
	republish    jetstream.RePublish
	mirror       string
	mirrorDomain string
	noMirror     bool
	sources      []string
}

func (b *bucketFlags) addFlags(fs *pflag.FlagSet) {
	b.set = fs
	fs.StringVar(&b.description, "description", "", "a description for the bucket")
	fs.IntVar(&b.history, "history", 1, "how many historic values to keep per key, 1 to 64")
	fs.Var(cli.NewDuration(&b.ttl, 0), "ttl", "how long to keep values for")
	fs.Var(cli.NewDuration(&b.markerTTL, 0), "marker-ttl", "enables per-key TTLs and limit markers")
	fs.UintVar(&b.replicas, "replicas", 1, "how many replicas of the data to store")
	fs.Var(cli.NewSize(&b.maxValueSize, math.MaxInt32), "max-value-size", "maximum size for any single value")
	fs.Var(cli.NewSize(&b.maxBytes, math.MaxInt64), "max-bucket-size", "maximum size for the bucket")
	fs.StringArrayVar(&b.tags, "tags", nil, "place the bucket on servers that have this `TAG`; may be repeated")
	fs.StringVar(&b.cluster, "cluster", "", "place the bucket on a specific `CLUSTER`")
	cli.Negatable(fs, &b.compress, "compress", false, "compress the bucket data")
	fs.StringArrayVar(&b.metadata, "metadata", nil, "adds metadata, `KEY=VALUE`; may be repeated")
	fs.StringVar(&b.republish.Source, "republish-source", "", "republish messages on `SUBJECT` to --republish-destination")
	fs.StringVar(&b.republish.Destination, "republish-destination", "", "republish `SUBJECT` for messages in --republish-source")
	fs.BoolVar(&b.republish.HeadersOnly, "republish-headers", false, "republish only message headers, no bodies")
	fs.StringArrayVar(&b.sources, "source", nil, "source from a different `BUCKET`; may be repeated")
}

// check is what can be said of the flags without a server.
func (b *bucketFlags) check() error {
	if b.set.Changed("history") && (b.history < 1 || b.history > jetstream.KeyValueMaxHistory) {
		return cli.Usagef("invalid --history %d: it is 1 to %d", b.history, jetstream.KeyValueMaxHistory)
	}
	if b.ttl < 0 || b.markerTTL < 0 {
		return cli.Usagef("invalid --ttl or --marker-ttl: a time to live is not negative; 0 is forever")
	}
	if b.storage != "" && !slices.Contains(storages, b.storage) {
		return cli.Usagef("unknown storage %q: use one of file, memory, rocksdb", b.storage)
	}
	for _, m := range b.metadata {
		if strings.IndexAny(m, "=:") < 1 {
			return cli.Usagef("invalid --metadata %q: write KEY=VALUE", m)
		}
	}
	return nil
}

// metadataMap is the --metadata flags as a map; the first "=" or ":" ends the key.
func (b *bucketFlags) metadataMap() map[string]string {
	m := map[string]string{}
	for _, kv := range b.metadata {
		i := strings.IndexAny(kv, "=:")
		m[kv[:i]] = kv[i+1:]
	}
	return m
}

func (b *bucketFlags) placement() *jetstream.Placement {
	if b.cluster == "" && len(b.tags) == 0 {
		return nil
	}
	return &jetstream.Placement{Cluster: b.cluster, Tags: b.tags}
}

func (b *bucketFlags) streamSources() []*jetstream.StreamSource {
	var out []*jetstream.StreamSource
	for _, name := range b.sources {
		out = append(out, &jetstream.StreamSource{Name: name})
	}
	return out
}

// storages are the values of --storage; f and m are the nats tool's short forms.
var storages = []string{"file", "memory", api.StorageRocksDB, "f", "m"}

// config is the bucket that add asks for.
func (b *bucketFlags) config(bucket string) jetstream.KeyValueConfig {
	cfg := jetstream.KeyValueConfig{
		Bucket: bucket, Description: b.description, MaxValueSize: int32(b.maxValueSize),
		History: uint8(b.history), TTL: b.ttl, MaxBytes: b.maxBytes, Replicas: int(b.replicas),
		Placement: b.placement(), Compression: b.compress, LimitMarkerTTL: b.markerTTL,
		Metadata: b.metadataMap(), Sources: b.streamSources(),
	}
	switch b.storage {
	case "memory", "m":
		cfg.Storage = jetstream.MemoryStorage
	case api.StorageRocksDB:
		// The protocol knows file and memory only.
		cfg.Metadata[api.MetadataStorage] = api.StorageRocksDB
	}
	if b.republish.Destination != "" {
		cfg.RePublish = &b.republish
	}
	if b.mirror != "" {
		cfg.Mirror = &jetstream.StreamSource{Name: b.mirror, Domain: b.mirrorDomain}
	}
	return cfg
}

func (k *kvCommand) addCommand() *cobra.Command {
	b := new(bucketFlags)
	cmd := &cobra.Command{
		Use:               "add <bucket>",
		Aliases:           []string{"new"},
		Short:             "Adds a new KV Store Bucket",
		Args:              bucketArgs(b),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			cfg := b.config(args[0])
			kv, err := r.JS.CreateKeyValue(ctx, cfg)
			if errors.Is(err, jetstream.ErrBucketExists) {
				return r.explainExists(ctx, cfg)
			}
			if err != nil {
				return explain(err, args[0], "")
			}
			r.settle(ctx, kv)
			return r.showStatus(ctx, kv)
		}),
	}
	b.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&b.storage, "storage", "", "storage backend to use: file, memory or rocksdb")
	cmd.Flags().StringVar(&b.mirror, "mirror", "", "creates a mirror of a different `BUCKET`")
	cmd.Flags().StringVar(&b.mirrorDomain, "mirror-domain", "", "when mirroring find the bucket in a different `DOMAIN`")
	register(cmd, "storage", cobra.FixedCompletions(storages[:3], cobra.ShellCompDirectiveNoFileComp))
	register(cmd, "mirror", k.completeBuckets)
	register(cmd, "source", k.completeBuckets)
	return cmd
}

// bucketArgs checks the one argument and the flags of add and edit.
func bucketArgs(b *bucketFlags) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cli.Args("<bucket>")(cmd, args); err != nil {
			return err
		}
		return b.check()
	}
}

// explainExists says how a bucket that exists differs from the one to be added. With no difference it
// would have been accepted.
func (r *clientRun) explainExists(ctx context.Context, want jetstream.KeyValueConfig) error {
	e := &cli.Error{Code: cli.ExitConflict, Err: fmt.Errorf("bucket name already in use: %s", want.Bucket)}
	if kv, err := r.JS.KeyValue(ctx, want.Bucket); err == nil {
		if info, err := streamInfo(ctx, kv); err == nil {
			e.Hints = differences(info.Config, want)
		}
	}
	e.Hints = append(e.Hints, "see what it is: cleat kv info "+want.Bucket,
		"change it: cleat kv edit "+want.Bucket+" ...")
	return e
}

func differences(is jetstream.StreamConfig, want jetstream.KeyValueConfig) []string {
	wanted := jetstream.StreamConfig{Storage: want.Storage, Metadata: want.Metadata}
	noLimit := func(n int64) int64 {
		if n == 0 {
			return -1
		}
		return n
	}
	var out []string
	for _, d := range []struct{ what, is, want string }{
		{"description", fmt.Sprintf("%q", is.Description), fmt.Sprintf("%q", want.Description)},
		{"history", fmt.Sprint(is.MaxMsgsPerSubject), fmt.Sprint(max(1, want.History))},
		{"storage", engine(&is), engine(&wanted)},
		{"ttl", is.MaxAge.String(), want.TTL.String()},
		{"marker-ttl", is.SubjectDeleteMarkerTTL.String(), want.LimitMarkerTTL.String()},
		{"replicas", fmt.Sprint(is.Replicas), fmt.Sprint(max(1, want.Replicas))},
		{"max-value-size", fmt.Sprint(is.MaxMsgSize), fmt.Sprint(noLimit(int64(want.MaxValueSize)))},
		{"max-bucket-size", fmt.Sprint(is.MaxBytes), fmt.Sprint(noLimit(want.MaxBytes))},
		{"compress", fmt.Sprint(is.Compression != jetstream.NoCompression), fmt.Sprint(want.Compression)},
	} {
		if d.is != d.want {
			out = append(out, fmt.Sprintf("%s is %s there, %s was asked for", d.what, d.is, d.want))
		}
	}
	return out
}

func (k *kvCommand) editCommand() *cobra.Command {
	b := new(bucketFlags)
	cmd := &cobra.Command{
		Use:               "edit <bucket>",
		Short:             "Edits an existing KV Store Bucket",
		Long:              "Edits an existing bucket: changes what flags say and leaves the rest.",
		Args:              bucketArgs(b),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			kv, err := r.JS.KeyValue(ctx, args[0])
			if err != nil {
				return explain(err, args[0], "")
			}
			info, err := streamInfo(ctx, kv)
			if err != nil {
				return err
			}
			kv, err = r.JS.UpdateKeyValue(ctx, b.edited(args[0], &info.Config))
			if err != nil {
				return explain(err, args[0], "")
			}
			return r.showStatus(ctx, kv)
		}),
	}
	b.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&b.noMirror, "no-mirror", false, "removes mirror configuration from a bucket")
	register(cmd, "source", k.completeBuckets)
	return cmd
}

// edited is a bucket's present configuration with the changes the flags ask for.
func (b *bucketFlags) edited(bucket string, is *jetstream.StreamConfig) jetstream.KeyValueConfig {
	cfg := jetstream.KeyValueConfig{
		Bucket: bucket, Description: is.Description, MaxValueSize: is.MaxMsgSize,
		History: uint8(is.MaxMsgsPerSubject), TTL: is.MaxAge, MaxBytes: is.MaxBytes,
		Storage: is.Storage, Replicas: is.Replicas, Placement: is.Placement, RePublish: is.RePublish,
		Sources: append(is.Sources, b.streamSources()...), Mirror: is.Mirror,
		Compression: is.Compression != jetstream.NoCompression, LimitMarkerTTL: is.SubjectDeleteMarkerTTL,
		Metadata: is.Metadata,
	}
	change := func(flag string, do func()) {
		if cli.Changed(b.set, flag) {
			do()
		}
	}
	change("description", func() { cfg.Description = b.description })
	change("history", func() { cfg.History = uint8(b.history) })
	change("ttl", func() { cfg.TTL = b.ttl })
	change("marker-ttl", func() { cfg.LimitMarkerTTL = b.markerTTL })
	change("replicas", func() { cfg.Replicas = int(b.replicas) })
	change("max-value-size", func() { cfg.MaxValueSize = int32(b.maxValueSize) })
	change("max-bucket-size", func() { cfg.MaxBytes = b.maxBytes })
	change("tags", func() { cfg.Placement = b.placement() })
	change("cluster", func() { cfg.Placement = b.placement() })
	change("compress", func() { cfg.Compression = b.compress })
	change("metadata", func() { cfg.Metadata = b.editedMetadata(is.Metadata) })
	change("republish-destination", func() { cfg.RePublish = &b.republish })
	if b.noMirror {
		cfg.Mirror = nil
	}
	return cfg
}

// editedMetadata replaces what users set and keeps what is reserved, such as the storage engine, which
// cannot change.
func (b *bucketFlags) editedMetadata(is map[string]string) map[string]string {
	m := b.metadataMap()
	kept := maps.Clone(is)
	maps.DeleteFunc(kept, func(k, _ string) bool {
		return !strings.HasPrefix(k, "_nats.") && k != api.MetadataStorage
	})
	maps.Copy(m, kept)
	return m
}

func (r *clientRun) deleteBucket(ctx context.Context, bucket string, force bool) error {
	if err := r.confirm(ctx, force, fmt.Sprintf("Delete bucket %s?", bucket), "Skipping delete"); err != nil {
		return err
	}
	if err := r.JS.DeleteKeyValue(ctx, bucket); err != nil {
		return explain(err, bucket, "")
	}
	if r.out.Structured() {
		return r.out.Object(deletedRecord{bucket, true})
	}
	return nil
}

func (k *kvCommand) compactCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "compact <bucket>",
		Short:             "Reclaim space used by deleted keys",
		Long:              "Reclaims the space of deleted keys. Delete markers younger than 30 minutes stay, for watchers that are away.",
		Args:              cli.Args("<bucket>"),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			return r.compact(ctx, args[0], force)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "act without confirmation")
	return cmd
}

func (r *clientRun) compact(ctx context.Context, bucket string, force bool) error {
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, "")
	}
	before, err := streamInfo(ctx, kv)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Purge all historic values and audit trails for deleted keys in bucket %s?", bucket)
	if err := r.confirm(ctx, force, question, "Skipping delete"); err != nil {
		return err
	}
	if err := kv.PurgeDeletes(ctx); err != nil {
		return explain(err, bucket, "")
	}
	if !r.out.Structured() {
		return nil
	}
	after, err := streamInfo(ctx, kv)
	if err != nil {
		return err
	}
	return r.out.Object(compactRecord{bucket, before.State.Msgs, after.State.Msgs})
}
