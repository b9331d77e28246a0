package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
	"github.com/cleatkv/cleat/internal/wal"
)

// sample is a server with two clients, an account and a bucket.
type sample struct {
	problems []HealthProblem
	asked    HealthQuery
}

var started = time.Now().Add(-90 * time.Minute)

func (*sample) Addresses() Addresses {
	return Addresses{Host: "127.0.0.1", Port: 4242, ConnectURLs: []string{"127.0.0.1:4242"}}
}

func (*sample) Traffic() Traffic {
	return Traffic{Connections: 2, TotalConnections: 3, InMsgs: 10, InBytes: 100, OutMsgs: 20, OutBytes: 200, RouteInMsgs: 1, SlowConsumers: 1, StaleConnections: 1, Subscriptions: 3, SubscriptionInserts: 4, SubscriptionRemoves: 1}
}

func (*sample) Open() []Conn {
	return []Conn{
		{ID: 7, Type: "nats", IP: "127.0.0.1", Port: 5, Start: started, LastActivity: time.Now(), RTT: time.Millisecond,
			InMsgs: 5, OutMsgs: 1, Name: "b", Lang: "go", Version: "1", User: "u", Account: "A", NumSubs: 2,
			Subs: func() []Sub {
				return []Sub{{Account: "A", Subject: "x.*", SID: "1", Msgs: 3, Client: 7}, {Account: "A", Subject: "y", Queue: "q", SID: "2", Max: 4, Client: 7}}
			}},
		{ID: 4, Type: "nats", IP: "127.0.0.1", Port: 6, Start: started, LastActivity: started, InMsgs: 1, OutMsgs: 9,
			Stalls: 1, TLSVersion: "1.3", TLSCipher: "c", Account: "$G", NumSubs: 1,
			Subs: func() []Sub { return []Sub{{Account: "$G", Subject: ">", SID: "1", Client: 4}} }},
	}
}

func (*sample) Closed() []Conn {
	return []Conn{{ID: 2, Type: "nats", IP: "127.0.0.1", Port: 9, Start: started, LastActivity: started, Stop: time.Now(), Reason: "Client Closed"}}
}

func (*sample) Names() []string { return []string{"A", "$G"} }

func (*sample) Account(name string) (Account, bool) {
	return Account{Name: name, Connections: 1, TotalConnections: 2, Subscriptions: 3, JetStream: true, SentMsgs: 4}, name == "A" || name == "$G"
}

func (*sample) Usage() Usage {
	return Usage{MaxMemory: 1 << 20, MaxStorage: 1 << 30, Storage: 500, Accounts: 1, HAAssets: 1, APITotal: 9, APIErrors: 2, APIInflight: 1}
}

func (*sample) Requests(account string) (total, errors uint64) {
	if account == "A" {
		return 7, 2
	}
	return 0, 0
}

func (*sample) Meta() *MetaCluster {
	return &MetaCluster{Name: "C", Leader: "n1", Peer: "p", Size: 1, QuorumNeeded: 1, Replicas: []*api.PeerInfo{{Name: "n2", Current: true, Peer: "q"}}}
}

func (*sample) Groups(account string) map[string]RaftzGroup {
	name := map[string]string{"": "_meta_", "A": "g1"}[account]
	if name == "" {
		return nil
	}
	return map[string]RaftzGroup{name: {
		ID: "p", State: "LEADER", Size: 3, QuorumNeeded: 2, Committed: 12, Applied: 11, Leader: "p", LeaderSince: &started, EverHadLeader: true,
		Term: 3, Vote: "p", PTerm: 3, PIndex: 12, WAL: RaftzLog{Msgs: 2, FirstSeq: 11, LastSeq: 12},
		Peers: map[string]RaftzPeer{"q": {Name: "n2", Known: true, LastReplicatedIndex: 12, LastSeen: "100ms"}},
	}}
}

func (*sample) Streams() []Stream {
	cluster := &api.ClusterInfo{Name: "C", Leader: "n1"}
	return []Stream{{
		Account: "A", Leader: true, RaftGroup: "g1", NumConsumers: 1,
		Info: api.StreamInfo{
			Config: api.StreamConfig{Name: "KV_b", MaxMsgs: -1}, Created: started, Cluster: cluster,
			State: api.StreamState{Msgs: 5, Bytes: 500, FirstSeq: 1, LastSeq: 9, NumSubjects: 4, Consumers: 1},
		},
		Digest: func() ReplicaDigest { return ReplicaDigest{Applied: 34, Term: 2, SHA256: "ff"} },
		Consumers: func() []api.ConsumerInfo {
			return []api.ConsumerInfo{{Stream: "KV_b", Name: "c", Created: started, Config: api.ConsumerConfig{Description: "d"}, NumPending: 3, Cluster: cluster}}
		},
	}}
}

func (*sample) Lost() []LostStream {
	return []LostStream{{Account: "A", Name: "gone", Replicas: 1, Servers: []string{"n9"}}}
}

func (*sample) MetaDigest() ReplicaDigest { return ReplicaDigest{Applied: 12, Term: 2, SHA256: "00"} }

func (s *sample) Check(q HealthQuery) []HealthProblem {
	s.asked = q
	return s.problems
}

// start serves the sample and returns where.
func start(t *testing.T, s *sample, text string) string {
	t.Helper()
	f, err := config.ParseFlags("test", strings.Fields(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	m := New(Sources{
		ServerID: "NID", ServerName: "n1", Start: started,
		Config: func() *config.Config { return c }, Loaded: func() time.Time { return started },
		Clients: s, Accounts: s, JetStream: s, Health: s,
		Routes: func() []Route { return []Route{{ID: 1, RemoteID: "p", RemoteName: "n2", Start: started}} },
		Operations: func() []jetstream.Operation {
			return []jetstream.Operation{{Name: "put", Seconds: 1.5, Results: map[string]uint64{"ok": 4, "conflict": 1},
				Within: map[float64]uint64{0.001: 3, 1: 5}}}
		},
		Raft: func() cluster.Figures {
			return cluster.Figures{
				Log:    wal.Figures{Batches: 7, Submissions: 30, Bytes: 4096, Time: 2 * time.Second},
				Groups: []cluster.GroupFigures{{Name: "A/KV_b", Leading: true, Resting: true, Term: 3, Committed: 12, Applied: 11}, {Name: "meta", Stopped: true}},
			}
		},
	}, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.Serve(l, nil)
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body), r.Header
}

// TestShapes holds every page against the struct nats-server fills for it: no field it does not
// know, no field missing that it always sends, every type the same.
func TestShapes(t *testing.T) {
	base := start(t, &sample{}, "")
	for path, want := range map[string]any{
		"/varz":                                  new(server.Varz),
		"/connz":                                 new(server.Connz),
		"/connz?subs=1&auth=1":                   new(server.Connz),
		"/connz?subs=detail&state=any":           new(server.Connz),
		"/jsz":                                   new(server.JSInfo),
		"/jsz?consumers=true&config=true&raft=1": new(server.JSInfo),
		"/accountz":                              new(server.Accountz),
		"/accountz?acc=A":                        new(server.Accountz),
		"/accstatz":                              new(server.AccountStatz),
		"/subsz":                                 new(server.Subsz),
		"/subscriptionsz?subs=1":                 new(server.Subsz),
		"/raftz":                                 new(server.RaftzStatus),
		"/raftz?acc=A&group=g1":                  new(server.RaftzStatus),
		"/routez":                                new(server.Routez),
		"/gatewayz":                              new(server.Gatewayz),
		"/leafz":                                 new(server.Leafz),
	} {
		code, body, header := get(t, base+path)
		if code != 200 || header.Get("Content-Type") != "application/json" || header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: status %d, header %v", path, code, header)
		}
		d := json.NewDecoder(bytes.NewReader([]byte(body)))
		d.DisallowUnknownFields()
		if err := d.Decode(want); err != nil {
			t.Errorf("%s: %v in %s", path, err, body)
			continue
		}
		var got any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		missing(t, path, reflect.TypeOf(want), got)
	}
}

// missing reports fields that typ always writes and got does not have.
func missing(t *testing.T, at string, typ reflect.Type, got any) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch g := got.(type) {
	case []any:
		for _, e := range g {
			missing(t, at+"[]", typ.Elem(), e)
		}
	case map[string]any:
		if typ.Kind() == reflect.Map {
			for name, e := range g {
				missing(t, at+"."+name, typ.Elem(), e)
			}
			return
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for _, f := range reflect.VisibleFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || name == "" || name == "-" || !f.IsExported() {
				continue
			}
			v, ok := g[name]
			if !ok && !strings.Contains(options, "omit") {
				t.Errorf("%s: no field %q", at, name)
			}
			if ok && v != nil && f.Type.PkgPath() != "time" {
				missing(t, at+"."+name, f.Type, v)
			}
		}
	}
}

// Groups are chosen by account and name, and there are none of others.
func TestRaftz(t *testing.T) {
	base := start(t, &sample{}, "")
	for query, want := range map[string]string{
		"":                    `"$SYS": {` + "\n" + `    "_meta_"`,
		"?acc=$SYS":           `"_meta_"`,
		"?acc=A":              `"A": {` + "\n" + `    "g1"`,
		"?acc=A&group=g1":     `"g1"`,
		"?acc=A&group=g2":     "{}",
		"?acc=B":              "{}",
		"?group=_meta_":       `"traffic_account": "$SYS"`,
		"?acc=A&group=_meta_": "{}",
	} {
		if code, body, _ := get(t, base+"/raftz"+query); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, no %s in %s", query, code, want, body)
		}
	}
}

// TestConnz chooses and sorts.
func TestConnz(t *testing.T) {
	base := start(t, &sample{}, "")
	for query, want := range map[string][]uint64{
		"":                          {4, 7},
		"sort=msgs_to":              {4, 7},
		"sort=msgs_from":            {7, 4},
		"sort=subs":                 {7, 4},
		"sort=idle":                 {4, 7},
		"sort=rtt":                  {7, 4},
		"limit=1":                   {4},
		"offset=1":                  {7},
		"offset=5":                  {},
		"cid=7":                     {7},
		"cid=9":                     {},
		"state=closed":              {2},
		"state=any":                 {2, 4, 7},
		"state=closed&sort=stop":    {2},
		"user=u":                    {7},
		"acc=$G":                    {4},
		"acc=A&filter_subject=x.y":  {7},
		"filter_subject=nosuch":     {4},
		"acc=A&filter_subject=none": {},
	} {
		code, body, _ := get(t, base+"/connz?"+query)
		var c Connz
		if err := json.Unmarshal([]byte(body), &c); err != nil || code != 200 {
			t.Fatalf("%s: %d %v %s", query, code, err, body)
		}
		got := []uint64{}
		for _, i := range c.Conns {
			got = append(got, i.Cid)
		}
		if !slices.Equal(got, want) || c.NumConns != len(want) {
			t.Errorf("%s: connections %v, want %v", query, got, want)
		}
	}
}

// TestBadQueries are refused in nats-server's words.
func TestBadQueries(t *testing.T) {
	base := start(t, &sample{}, "")
	for path, want := range map[string]string{
		"/connz?sort=foo":                "invalid sorting option: foo",
		"/connz?sort=stop":               "sort by stop only valid on closed connections",
		"/connz?subs=x":                  `Error decoding boolean for 'subs': strconv.ParseBool: parsing "x": invalid syntax`,
		"/connz?limit=a":                 `Error decoding int for 'limit': strconv.Atoi: parsing "a": invalid syntax`,
		"/accountz?acc=zz":               "Account zz does not exist",
		"/healthz?js-enabled-only=x":     `Error decoding boolean for 'js-enabled-only': strconv.ParseBool: parsing "x": invalid syntax`,
		"/subsz?test=a.*":                "invalid test subject, must be valid publish subject: a.*",
		"/varz?callback=alert(1)//":      "invalid callback name",
		"/jsz?consumers=1&offset=middle": `Error decoding int for 'offset': strconv.Atoi: parsing "middle": invalid syntax`,
	} {
		if code, body, _ := get(t, base+path); code != 400 || body != want {
			t.Errorf("%s: %d %q, want 400 %q", path, code, body, want)
		}
	}
	if code, _, _ := get(t, base+"/nosuch"); code != 404 {
		t.Errorf("/nosuch: %d", code)
	}
}

// TestJszDigest computes checksums only if asked to: they cost a read of everything.
func TestJszDigest(t *testing.T) {
	base := start(t, &sample{}, "-js")
	if _, body, _ := get(t, base+"/jsz?streams=1"); strings.Contains(body, "sha256") {
		t.Errorf("digests that nobody asked for: %s", body)
	}
	_, body, _ := get(t, base+"/jsz?streams=1&digest=1")
	for _, want := range []string{`"sha256": "00"`, `"sha256": "ff"`, `"applied": 34`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
}

// TestJszLevels shows more the more is asked for.
func TestJszLevels(t *testing.T) {
	base := start(t, &sample{}, "")
	jsz := func(query string) server.JSInfo {
		var j server.JSInfo
		_, body, _ := get(t, base+"/jsz?"+query)
		if err := json.Unmarshal([]byte(body), &j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	if j := jsz(""); j.Streams != 1 || j.Consumers != 1 || j.Messages != 5 || j.Bytes != 500 || j.AccountDetails != nil || j.Meta.Leader != "n1" || j.API.Level != config.APILevel {
		t.Errorf("totals: %+v", j)
	}
	if j := jsz("accounts=1"); len(j.AccountDetails) != 2 || j.AccountDetails[1].Name != "A" || j.AccountDetails[1].Store != 500 || j.AccountDetails[1].Streams != nil ||
		j.AccountDetails[1].API.Total != 7 || j.AccountDetails[1].API.Errors != 2 || j.AccountDetails[0].API.Total != 0 {
		t.Errorf("accounts: %+v", j.AccountDetails)
	}
	if j := jsz("acc=A&streams=1"); len(j.AccountDetails) != 1 || len(j.AccountDetails[0].Streams) != 1 || j.AccountDetails[0].Streams[0].Config != nil || j.AccountDetails[0].Streams[0].Consumer != nil {
		t.Errorf("streams: %+v", j.AccountDetails)
	}
	s := jsz("consumers=1&config=1&acc=A").AccountDetails[0].Streams[0]
	if s.Config.Name != "KV_b" || len(s.Consumer) != 1 || s.Consumer[0].Config.Description != "d" || s.Consumer[0].NumPending != 3 {
		t.Errorf("consumers: %+v", s)
	}
	if s := jsz("consumers=1&acc=A").AccountDetails[0].Streams[0]; s.Consumer[0].Config != nil {
		t.Errorf("consumer configuration unasked: %+v", s.Consumer[0])
	}
}

// TestHealthz tells the truth of the probe, in nats-server's shape.
func TestHealthz(t *testing.T) {
	s := &sample{}
	base := start(t, s, "")
	check := func(query string, wantCode int, want string) {
		t.Helper()
		if code, body, _ := get(t, base+"/healthz?"+query); code != wantCode || body != want {
			t.Errorf("%s: %d %s, want %d %s", query, code, body, wantCode, want)
		}
	}
	check("", 200, `{"status":"ok"}`)
	check("js-server-only=true&account=a&stream=b&consumer=c", 200, `{"status":"ok"}`)
	if want := (HealthQuery{ServerOnly: true, Account: "a", Stream: "b", Consumer: "c"}); s.asked != want {
		t.Errorf("asked %+v, want %+v", s.asked, want)
	}
	check("stream=x", 400, `{"status":"error","error":"\"account\" must not be empty when checking stream health"}`)
	check("account=a&consumer=x", 400, `{"status":"error","error":"\"stream\" must not be empty when checking consumer health"}`)
	s.problems = []HealthProblem{{Type: HealthJetStream, Error: "JetStream has not established contact with a meta leader"}}
	check("", 503, `{"status":"unavailable","error":"JetStream has not established contact with a meta leader"}`)
	check("details=1", 503, `{"status":"error","errors":[{"type":"JETSTREAM","error":"JetStream has not established contact with a meta leader"}]}`)
	s.problems = []HealthProblem{{Code: 404, Type: HealthStream, Account: "A", Stream: "x", Error: "no"}}
	check("account=A&stream=x", 404, `{"status":"unavailable","error":"no"}`)
	for _, kind := range []string{HealthConnection, HealthBadRequest, HealthJetStream, HealthAccount, HealthStream, HealthConsumer} {
		var h server.HealthzError
		if err := json.Unmarshal([]byte(`{"type":"`+kind+`"}`), &h); err != nil || h.Type.String() != kind {
			t.Errorf("nats-server reads %s as %v, %v", kind, h.Type, err)
		}
	}
}

// TestForms are the pages that are not plain JSON.
func TestForms(t *testing.T) {
	base := start(t, &sample{}, "")
	if _, body, h := get(t, base+"/varz?callback=show.it"); !strings.HasPrefix(body, "show.it({") || h.Get("Content-Type") != "application/javascript" {
		t.Errorf("JSONP: %v %.50s", h, body)
	}
	if _, body, _ := get(t, base+"/"); !strings.Contains(body, `href="/connz"`) {
		t.Errorf("index: %s", body)
	}
	if _, body, _ := get(t, base+"/stacksz"); !strings.Contains(body, "goroutine") {
		t.Errorf("stacks: %s", body)
	}
	if _, body, _ := get(t, base+"/debug/vars"); !strings.Contains(body, "memstats") {
		t.Errorf("vars: %s", body)
	}
	get(t, base+"/connz")
	_, body, _ := get(t, base+"/varz")
	var v server.Varz
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if v.HTTPReqStats["/connz"] != 1 || v.HTTPReqStats["/varz"] != 2 || v.Port != 4242 || v.Uptime != "1h30m0s" || v.Mem == 0 || v.InMsgs != 11 || v.InClientMsgs != 10 || v.Routes != 1 || v.Remotes != 1 {
		t.Errorf("varz: %+v", v)
	}
}

// TestMetrics has the exporter's names.
func TestMetrics(t *testing.T) {
	base := start(t, &sample{}, "")
	code, body, _ := get(t, base+"/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{
		`gnatsd_varz_connections{server_id="NID"} 2`,
		`gnatsd_varz_jetstream_stats_storage{server_id="NID"} 500`,
		`gnatsd_varz_jetstream_config_max_memory{server_id="NID"} 1.048576e+06`,
		`gnatsd_healthz_status{server_id="NID"} 0`,
		`jetstream_server_total_streams{cluster="C",domain="",is_meta_leader="true",meta_leader="n1",server_id="NID",server_name="n1"} 1`,
		`jetstream_stream_last_seq{account="A",account_id="A",cluster="C",domain="",is_meta_leader="true",is_stream_leader="true",meta_leader="n1",server_id="NID",server_name="n1",stream_leader="n1",stream_name="KV_b",stream_raft_group="g1"} 9`,
		`kv_bucket_keys{account="A",bucket="b",server_id="NID"} 4`,
		`kv_bucket_watchers{account="A",bucket="b",server_id="NID"} 1`, `kv_watchers{server_id="NID"} 1`,
		"# TYPE kv_ops_total counter", `kv_ops_total{op="put",result="ok",server_id="NID"} 4`, `kv_ops_total{op="put",result="conflict",server_id="NID"} 1`,
		`kv_op_seconds_bucket{op="put",server_id="NID",le="0.001"} 3`, `kv_op_seconds_bucket{op="put",server_id="NID",le="+Inf"} 5`,
		`kv_op_seconds_sum{op="put",server_id="NID"} 1.5`, `kv_op_seconds_count{op="put",server_id="NID"} 5`,
		"# TYPE storage_wal_syncs_total counter", `storage_wal_syncs_total{server_id="NID"} 7`,
		`storage_wal_sync_seconds_total{server_id="NID"} 2`, `raft_group_applied_index{group="A/KV_b",server_id="NID"} 11`,
		`raft_groups{server_id="NID"} 2`, `raft_groups_leading{server_id="NID"} 1`, `raft_groups_stopped{server_id="NID"} 1`, `raft_groups_resting{server_id="NID"} 1`,
		"jetstream_consumer_num_pending{", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestUptime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 61 * time.Second: "1m1s", 25 * time.Hour: "1d1h0m0s", 366 * 24 * time.Hour: "1y1d0h0m0s",
		time.Hour + 2*time.Minute + 3*time.Second + 999*time.Millisecond: "1h2m3s",
	} {
		if got := uptime(d); got != want {
			t.Errorf("uptime(%v) = %s, want %s", d, got, want)
		}
	}
}
