package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

func (k *kvCommand) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info [bucket]",
		Aliases:           []string{"view", "status"},
		Short:             "View the status of a KV store",
		Long:              "Views the status of a bucket. Without a name, asks which one.",
		Args:              cli.Args("[bucket]"),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			if len(args) == 0 || args[0] == "" {
				bucket, err := r.selectBucket(ctx)
				if err != nil {
					return err
				}
				args = []string{bucket}
			}
			kv, err := r.JS.KeyValue(ctx, args[0])
			if err != nil {
				return explain(err, args[0], "")
			}
			return r.showStatus(ctx, kv)
		}),
	}
}

// bucketNames lists the buckets, sorted by name.
func (r *clientRun) bucketNames(ctx context.Context) ([]string, error) {
	var names []string
	lister := r.JS.StreamNames(ctx)
	for stream := range lister.Name() {
		if name, ok := strings.CutPrefix(stream, "KV_"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, lister.Err()
}

func (r *clientRun) selectBucket(ctx context.Context) (string, error) {
	names, err := r.bucketNames(ctx)
	if err != nil {
		return "", explain(err, "", "")
	}
	if len(names) == 0 {
		return "", &cli.Error{Code: cli.ExitNotFound, Err: fmt.Errorf("no KV buckets found"),
			Hints: []string{"create one: cleat kv add NAME"}}
	}
	return r.ask.Select(ctx, "Select a Bucket", names)
}

// streamInfo is the state of the stream behind a bucket.
func streamInfo(ctx context.Context, kv jetstream.KeyValue) (*jetstream.StreamInfo, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, explain(err, kv.Bucket(), "")
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("bucket %s is kept in %s, not in JetStream", kv.Bucket(), status.BackingStore())
	}
	return s.StreamInfo(), nil
}

// settleTime is how long the replicas of a new bucket have to follow their leader before they are shown
// as outdated. They take a moment; a user would take it for a fault.
const settleTime = time.Second

// settle waits for that.
func (r *clientRun) settle(ctx context.Context, kv jetstream.KeyValue) {
	for end := time.Now().Add(settleTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		info, err := streamInfo(ctx, kv)
		if err != nil || info.Cluster == nil || info.Cluster.Leader != "" &&
			!slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current }) {
			return
		}
	}
}

// showStatus shows a bucket's configuration and state.
func (r *clientRun) showStatus(ctx context.Context, kv jetstream.KeyValue) error {
	info, err := streamInfo(ctx, kv)
	if err != nil {
		return err
	}
	if r.out.Structured() {
		return r.out.Object(newInfoRecord(kv.Bucket(), info))
	}
	s := cli.NewSections(fmt.Sprintf("Information for Key-Value Store Bucket %s created %s",
		kv.Bucket(), cli.Time(info.Created)))
	addConfiguration(s, kv.Bucket(), info)
	addOrigins(s, info)
	if meta := userMetadata(info.Config.Metadata); len(meta) > 0 {
		s.Title("Metadata")
		for _, key := range slices.Sorted(maps.Keys(meta)) {
			s.Add(key, meta[key])
		}
	}
	addCluster(s, info.Cluster)
	s.Render(r.out, r.style)
	return nil
}

func addConfiguration(s *cli.Sections, bucket string, info *jetstream.StreamInfo) {
	c := &info.Config
	s.Title("Configuration")
	s.Add("Bucket Name", bucket)
	s.Add("History Kept", cli.Comma(c.MaxMsgsPerSubject))
	s.Add("Values Stored", cli.Comma(info.State.Msgs))
	s.Add("Compressed", c.Compression != jetstream.NoCompression)
	s.Add("Per-Key TTL Supported", c.SubjectDeleteMarkerTTL > 0)
	if c.SubjectDeleteMarkerTTL > 0 {
		s.Add("Limit Marker TTL", cli.Age(c.SubjectDeleteMarkerTTL))
	}
	s.Add("Backing Store Kind", "JetStream")
	if c.Description != "" {
		s.Add("Description", c.Description)
	}
	s.Add("Bucket Size", cli.Bytes(info.State.Bytes))
	s.Add("Maximum Bucket Size", limit(c.MaxBytes))
	s.Add("Maximum Value Size", limit(int64(c.MaxMsgSize)))
	if c.MaxAge > 0 {
		s.Add("Maximum Age", cli.Age(c.MaxAge))
	} else {
		s.Add("Maximum Age", "unlimited")
	}
	s.Add("JetStream Stream", c.Name)
	s.Add("Storage", storageName(c))
	if p := c.RePublish; p != nil && p.HeadersOnly {
		s.Add("Republishing Headers", p.Source+" to "+p.Destination)
	} else if p != nil {
		s.Add("Republishing", p.Source+" to "+p.Destination)
	}
}

func limit(bytes int64) string {
	if bytes < 0 {
		return "unlimited"
	}
	return cli.Bytes(uint64(bytes))
}

func storageName(c *jetstream.StreamConfig) string {
	if engine(c) == api.StorageRocksDB {
		return "RocksDB"
	}
	return c.Storage.String()
}

// addOrigins adds where a mirror or a bucket with sources has its values from.
func addOrigins(s *cli.Sections, info *jetstream.StreamInfo) {
	add := func(label string, state *jetstream.StreamSourceInfo, configured []*jetstream.StreamSource) {
		o := newOriginRecord(state, configured)
		s.Add(label, o.Bucket)
		if o.ExternalAPI != "" {
			s.Add("External API", o.ExternalAPI)
		}
		s.Add("Last Seen", seen(state.Active, "never"))
		s.Add("Lag", cli.Comma(o.Lag))
	}
	if info.Mirror != nil {
		s.Title("Mirror Information")
		add("Origin Bucket", info.Mirror, []*jetstream.StreamSource{info.Config.Mirror})
	}
	if len(info.Sources) > 0 {
		s.Title("Sources Information")
		for _, source := range info.Sources {
			add("Source Bucket", source, info.Config.Sources)
		}
	}
}

// seen is how long ago something was seen, or never.
func seen(d time.Duration, never string) string {
	if d <= 0 || d == math.MaxInt64 {
		return never
	}
	return cli.Age(d)
}

func addCluster(s *cli.Sections, c *jetstream.ClusterInfo) {
	if c == nil || c.Name == "" && len(c.Replicas) == 0 {
		return // A server alone leads all it has.
	}
	s.Title("Cluster Information")
	s.Add("Name", c.Name)
	s.Add("Leader", c.Leader)
	for _, p := range c.Replicas {
		s.Add("Replica", replicaState(p))
	}
}

func replicaState(p *jetstream.PeerInfo) string {
	state := []string{p.Name, "outdated"}
	if p.Current {
		state[1] = "current"
	}
	if p.Offline {
		state = append(state, "OFFLINE")
	}
	if ago := seen(p.Active, ""); ago != "" {
		state = append(state, "seen "+ago+" ago")
	} else {
		state = append(state, "not seen")
	}
	switch {
	case p.Lag == 1:
		state = append(state, "1 operation behind")
	case p.Lag > 1:
		state = append(state, cli.Comma(p.Lag)+" operations behind")
	}
	return strings.Join(state, ", ")
}
