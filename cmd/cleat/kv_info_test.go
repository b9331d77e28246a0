package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/pflag"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// farInfo is a bucket as a script cannot make it on one server: replicated, mirrored, with sources,
// some of them never seen.
func farInfo() *jetstream.StreamInfo {
	return &jetstream.StreamInfo{
		Config: jetstream.StreamConfig{
			Name: "KV_B", MaxBytes: -1, MaxMsgSize: -1, MaxMsgsPerSubject: 1, Replicas: 5,
			Placement: &jetstream.Placement{Cluster: "east", Tags: []string{"ssd"}},
			Metadata:  map[string]string{"_nats.ver": "2", api.MetadataStorage: api.StorageRocksDB, "team": "x"},
			Mirror: &jetstream.StreamSource{Name: "KV_ORIGIN",
				External: &jetstream.ExternalStream{APIPrefix: "$JS.hub.API"}},
			Sources: []*jetstream.StreamSource{{Name: "KV_S1"}, {Name: "KV_S2"}},
		},
		Mirror: &jetstream.StreamSourceInfo{Name: "KV_ORIGIN", Lag: 1234, Active: 250 * time.Millisecond},
		Sources: []*jetstream.StreamSourceInfo{
			{Name: "KV_S1", Active: 3 * time.Second},
			{Name: "KV_S2", Active: -1},
		},
		Cluster: &jetstream.ClusterInfo{Name: "C1", Leader: "n1", Replicas: []*jetstream.PeerInfo{
			{Name: "n2", Current: true, Active: 22 * time.Millisecond},
			{Name: "n3", Current: true, Offline: true, Active: 3420 * time.Millisecond},
			{Name: "n4", Lag: 1, Active: 90 * time.Second},
			{Name: "n5", Lag: 4096, Active: math.MaxInt64},
		}},
	}
}

func TestOriginsAndClusterText(t *testing.T) {
	s := cli.NewSections("Heading")
	info := farInfo()
	addOrigins(s, info)
	addCluster(s, info.Cluster)
	var b strings.Builder
	s.Render(&b, cli.Style{})
	want := `Heading

Mirror Information:

  Origin Bucket: ORIGIN
   External API: $JS.hub.API
      Last Seen: 250ms
            Lag: 1,234

Sources Information:

  Source Bucket: S1
      Last Seen: 3.00s
            Lag: 0
  Source Bucket: S2
      Last Seen: never
            Lag: 0

Cluster Information:

           Name: C1
         Leader: n1
        Replica: n2, current, seen 22ms ago
        Replica: n3, current, OFFLINE, seen 3.42s ago
        Replica: n4, outdated, seen 1m30s ago, 1 operation behind
        Replica: n5, outdated, not seen, 4,096 operations behind
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestInfoRecord(t *testing.T) {
	data, err := json.Marshal(newInfoRecord("B", farInfo()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"storage":"rocksdb"`, `"metadata":{"team":"x"}`, `"placement":{"cluster":"east","tags":["ssd"]}`,
		`"mirror":{"bucket":"ORIGIN","external_api":"$JS.hub.API","lag":1234,"active_seconds":0.25}`,
		`{"bucket":"S2","external_api":"","lag":0,"active_seconds":null}`,
		`{"name":"n3","current":true,"offline":true,"lag":0,"active_seconds":3.42}`,
		`{"name":"n5","current":false,"offline":false,"lag":4096,"active_seconds":null}`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in\n%s", want, data)
		}
	}
}

// An edit keeps what it is not told to change, and what is reserved in the metadata even if it is.
func TestEditKeepsTheRest(t *testing.T) {
	edit := func(args ...string) jetstream.KeyValueConfig {
		b := new(bucketFlags)
		fs := pflag.NewFlagSet("edit", pflag.ContinueOnError)
		b.addFlags(fs)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		is := farInfo().Config
		return b.edited("B", &is)
	}
	c := edit()
	if c.Mirror == nil || c.Placement.Cluster != "east" || c.Replicas != 5 || c.Metadata["team"] != "x" ||
		len(c.Sources) != 2 || c.History != 1 || c.MaxBytes != -1 {
		t.Errorf("an edit without flags changes: %+v", c)
	}
	c = edit("--metadata", "a=b", "--replicas", "3", "--source", "S3", "--tags", "nvme")
	if c.Metadata["team"] != "" || c.Metadata["a"] != "b" || c.Metadata[api.MetadataStorage] != api.StorageRocksDB {
		t.Errorf("metadata: %v", c.Metadata)
	}
	if c.Replicas != 3 || len(c.Sources) != 3 || c.Placement.Tags[0] != "nvme" {
		t.Errorf("changes are not there: %+v", c)
	}
}
