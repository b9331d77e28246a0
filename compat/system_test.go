package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/jsm.go/monitor"
	"github.com/nats-io/jsm.go/serverdata"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// operators may use the system account; everybody else has the global one.
const operators = `accounts { $SYS { users: [{user: sys, password: sys}] } }`

// ask sends a request as the nats tool does, with the library it is built on, and returns what n servers
// answered.
func ask[T any](t *testing.T, nc *nats.Conn, subject string, req any, n int) []T {
	t.Helper()
	raw, err := serverdata.DoReq(context.Background(), req, subject, n, nc, wait, api.NewDiscardLogger())
	must(t, err)
	if len(raw) != n {
		t.Fatalf("%d servers of %d answered %s: %s", len(raw), n, subject, raw)
	}
	all := make([]T, n)
	for i, b := range raw {
		must(t, json.Unmarshal(b, &all[i]))
	}
	return all
}

// Who looks with the nats tool sees the truth: `server list`, `server info`, `server report jetstream`,
// `server report connections`, `server check` read these answers, in these types.
func TestClusterSystemAccount(t *testing.T) {
	servers := process.NewCluster(t, 3, operators)
	sys := servers[0].Connect(t, nats.UserInfo("sys", "sys"), nats.IgnoreDiscoveredServers())
	user := servers[1].Connect(t, nats.Name("somebody"), nats.IgnoreDiscoveredServers())
	js, err := jetstream.New(user)
	must(t, err)
	kv, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "B", Replicas: 3})
	must(t, err)
	for i := range 10 {
		_, err := kv.Put(testContext(t), fmt.Sprint("k", i), []byte("v"))
		must(t, err)
	}

	t.Run("list", func(t *testing.T) {
		names := map[string]bool{}
		for _, s := range ask[server.ServerStatsMsg](t, sys, "$SYS.REQ.SERVER.PING", nil, 3) {
			names[s.Server.Name] = true
			if s.Server.Cluster != "C" || !s.Server.JetStreamEnabled() || s.Stats.Mem == 0 || s.Stats.JetStream == nil ||
				s.Stats.ActiveServers != 3 || len(s.Stats.Routes) < 2 {
				t.Errorf("%+v", s)
			}
		}
		if len(names) != 3 {
			t.Errorf("answers of %v", names)
		}
		n, err := serverdata.CurrentActiveServers(context.Background(), sys, "", wait, api.NewDiscardLogger())
		if err != nil || n != 3 {
			t.Errorf("%d servers are active, %v", n, err)
		}
	})

	t.Run("one", func(t *testing.T) {
		exact := server.VarzEventOptions{EventFilterOptions: server.EventFilterOptions{Name: "n1", ExactMatch: true}}
		v := ask[server.ServerAPIVarzResponse](t, sys, "$SYS.REQ.SERVER.PING.VARZ", exact, 1)[0]
		if v.Data == nil || v.Data.Name != "n1" || v.Data.Cluster.Name != "C" {
			t.Fatalf("%+v", v.Data)
		}
		same := ask[server.ServerAPIVarzResponse](t, sys, "$SYS.REQ.SERVER."+v.Data.ID+".VARZ", nil, 1)[0]
		if same.Server.ID != v.Data.ID || same.Data.Name != "n1" {
			t.Errorf("asked by id %s: %+v", v.Data.ID, same.Server)
		}
		for suffix, want := range map[string]string{"HEALTHZ": `"status":"ok"`, "ROUTEZ": `"num_routes"`, "SUBSZ": `"num_subscriptions"`,
			"LEAFZ": `"leafnodes"`, "GATEWAYZ": `"outbound_gateways"`, "ACCOUNTZ": `"$G"`, "IDZ": v.Data.ID} {
			raw := ask[json.RawMessage](t, sys, "$SYS.REQ.SERVER."+v.Data.ID+"."+suffix, nil, 1)[0]
			if !strings.Contains(string(raw), want) {
				t.Errorf("%s: %s", suffix, raw)
			}
		}
		e := ask[server.ServerAPIResponse](t, sys, "$SYS.REQ.SERVER."+v.Data.ID+".CONNZ", `{"sort":"beauty"}`, 1)[0]
		if e.Error == nil {
			t.Error("sorted by what does not exist")
		}
		e = ask[server.ServerAPIResponse](t, sys, "$SYS.REQ.SERVER."+v.Data.ID+".CONNZ", `{"sort":`, 1)[0]
		if e.Error == nil || e.Error.Code != 400 {
			t.Errorf("%+v about what is no JSON", e.Error)
		}
	})

	t.Run("jetstream", func(t *testing.T) {
		live, err := serverdata.NewLive(sys, func(req any, subject string, n int, nc *nats.Conn) ([][]byte, error) {
			return serverdata.DoReq(context.Background(), req, subject, n, nc, wait, api.NewDiscardLogger())
		}, 3)
		must(t, err)
		var all []*server.ServerAPIJszResponse
		for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
			all, err = live.Jsz(server.JszEventOptions{JSzOptions: server.JSzOptions{Streams: true, Config: true, RaftGroups: true}})
			must(t, err)
			// A follower hears of the last commit a moment after the client does.
			behind := func(j *server.ServerAPIJszResponse) bool { return j.Data.Messages < 10 }
			if !slices.ContainsFunc(all, behind) || time.Now().After(end) {
				break
			}
		}
		var leads []string
		for _, j := range all {
			if j.Data.Streams != 1 || j.Data.Messages != 10 || j.Data.Bytes == 0 || j.Data.Meta == nil || j.Data.Meta.Size != 3 {
				t.Errorf("%s: %+v", j.Server.Name, j.Data)
				continue
			}
			if j.Data.Meta.Leader == j.Server.Name {
				leads = append(leads, j.Server.Name)
				if len(j.Data.Meta.Replicas) != 2 {
					t.Errorf("the leader tells of %d others", len(j.Data.Meta.Replicas))
				}
			}
			s := j.Data.AccountDetails[0].Streams[0]
			if s.Name != "KV_B" || s.Cluster == nil || s.Cluster.Leader == "" || s.RaftGroup == "" || s.Config == nil {
				t.Errorf("%s: %+v", j.Server.Name, s)
			}
		}
		if len(leads) != 1 {
			t.Errorf("%v lead the meta group", leads)
		}
		// Asked of the leader alone, nobody else answers.
		leader := ask[server.ServerAPIJszResponse](t, sys, "$SYS.REQ.SERVER.PING.JSZ", `{"leader_only":true}`, 1)[0]
		if !slices.Equal(leads, []string{leader.Server.Name}) {
			t.Errorf("%s answers as the leader, but %v lead", leader.Server.Name, leads)
		}
		accounts, err := live.CollectAccounts()
		if err != nil || len(accounts) != 1 || accounts[0].Name != "$G" {
			t.Errorf("%+v, %v", accounts, err)
		}
	})

	t.Run("connections", func(t *testing.T) {
		find := func(nc *nats.Conn, subject string) (n int) {
			for _, c := range ask[server.ServerAPIConnzResponse](t, nc, subject, `{"auth":true}`, 3) {
				for _, conn := range c.Data.Conns {
					global := conn.Account == "$G" || conn.Account == "" // nats-server leaves it out.
					if conn.Name == "somebody" && global {
						n++
					}
					if !global && nc == user {
						t.Errorf("a client sees one of account %s", conn.Account)
					}
				}
			}
			return n
		}
		if n := find(sys, "$SYS.REQ.SERVER.PING.CONNZ"); n != 1 {
			t.Errorf("the system account sees the client %d times", n)
		}
		for _, subject := range []string{"$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"} {
			if n := find(user, subject); n != 1 {
				t.Errorf("%s: a client of the account sees itself %d times", subject, n)
			}
		}
		stats := ask[server.ServerAPIResponse](t, sys, "$SYS.REQ.ACCOUNT.$G.STATZ", nil, 1)[0]
		if text := fmt.Sprint(stats.Data); !strings.Contains(text, "conns:1") {
			t.Errorf("%s", text)
		}
		info := ask[server.ServerAPIResponse](t, sys, "$SYS.REQ.ACCOUNT.$G.INFO", nil, 3)[0]
		if text := fmt.Sprint(info.Data); !strings.Contains(text, "jetstream_enabled:true") {
			t.Errorf("%s", text)
		}
	})

	t.Run("strangers", func(t *testing.T) {
		for _, subject := range []string{"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.ACCOUNT.$G.INFO"} {
			if m, err := user.Request(subject, nil, wait); err == nil {
				t.Errorf("%s answers a client that is no operator: %s", subject, m.Data)
			}
		}
	})

	t.Run("events", func(t *testing.T) {
		sub, err := sys.SubscribeSync("$SYS.ACCOUNT.*.*")
		must(t, err)
		must(t, sys.Flush())
		eventually(t, "a client that comes is told of", func() bool { // The other server has to learn that somebody listens.
			nc := servers[2].Connect(t, nats.Name("visitor"))
			nc.Close()
			m, err := sub.NextMsg(200 * time.Millisecond)
			return err == nil && m.Subject == "$SYS.ACCOUNT.$G.CONNECT" && strings.Contains(string(m.Data), "visitor")
		})
		m, err := sub.NextMsg(wait)
		must(t, err)
		var e server.DisconnectEventMsg
		must(t, json.Unmarshal(m.Data, &e))
		if m.Subject != "$SYS.ACCOUNT.$G.DISCONNECT" || e.Client.Name != "visitor" || e.Server.Name != "n2" || e.Reason == "" {
			t.Errorf("%s %s", m.Subject, m.Data)
		}
	})

	t.Run("kick", func(t *testing.T) {
		nc := servers[1].Connect(t, nats.IgnoreDiscoveredServers())
		id, err := nc.GetClientID()
		must(t, err)
		one := ask[server.ServerAPIVarzResponse](t, sys, "$SYS.REQ.SERVER.PING.VARZ", `{"server_name":"n1"}`, 1)[0]
		ask[server.ServerAPIResponse](t, sys, "$SYS.REQ.SERVER."+one.Data.ID+".KICK", fmt.Sprintf(`{"cid":%d}`, id), 1)
		eventually(t, "the client is closed", nc.IsClosed)
	})

	t.Run("check", func(t *testing.T) {
		// All is well, or will be in a moment: a leader has to hear of the others first.
		check := func(what string, fn func(*monitor.Result)) {
			t.Helper()
			r := &monitor.Result{}
			for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
				if fn(r); len(r.Criticals) == 0 && len(r.OKs)+len(r.PerfData) > 0 {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%s: critical %v, well %v", what, r.Criticals, r.OKs)
				}
				r = &monitor.Result{}
			}
		}
		mgr, err := jsm.New(user, jsm.WithTimeout(wait))
		must(t, err)
		check("server", func(r *monitor.Result) {
			must(t, monitor.CheckServerWithConnection(sys, r, wait, monitor.CheckServerOptions{Name: "n2", JetStreamRequired: true}))
		})
		check("bucket", func(r *monitor.Result) {
			must(t, monitor.CheckKVBucketAndKeyWithConnection(user, r, monitor.CheckKVBucketAndKeyOptions{Bucket: "B", Key: "k3", ValuesWarning: -1, ValuesCritical: -1}))
		})
		check("account", func(r *monitor.Result) {
			must(t, monitor.CheckJetStreamAccountWithConnection(mgr, r, monitor.CheckJetStreamAccountOptions{
				MemoryWarning: -1, MemoryCritical: -1, FileWarning: -1, FileCritical: -1, StreamWarning: -1, StreamCritical: -1,
				ConsumersWarning: -1, ConsumersCritical: -1, CheckReplicas: true, ReplicaSeenCritical: 5, ReplicaLagCritical: 100}))
		})
		meta := func(r *monitor.Result) {
			must(t, monitor.CheckJetstreamMetaWithConnection(sys, r, monitor.CheckJetstreamMetaOptions{ExpectServers: 3, LagCritical: 100, SeenCritical: 3}))
		}
		check("meta", meta)
		// A server is lost: the others tell, and so does who leads after it.
		servers[2].Kill()
		r := &monitor.Result{}
		for end := time.Now().Add(3 * wait); !slices.ContainsFunc(r.Criticals, func(s string) bool { return strings.Contains(s, "1 not current") }); {
			if time.Sleep(100 * time.Millisecond); time.Now().After(end) {
				t.Fatalf("a server is lost, and the check says %v %v", r.Criticals, r.OKs)
			}
			r = &monitor.Result{}
			_ = monitor.CheckJetstreamMetaWithConnection(sys, r, monitor.CheckJetstreamMetaOptions{ExpectServers: 3})
		}
		ask[server.ServerStatsMsg](t, sys, "$SYS.REQ.SERVER.PING", nil, 2)
	})
}
