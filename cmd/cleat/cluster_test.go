//go:build unix

package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/test/process"
)

// tool runs the command line tool against a server.
type tool struct {
	t   *testing.T
	exe string
	url string
}

// run returns what a command wrote and its exit code.
func (c tool) run(args ...string) (out string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, c.exe, append([]string{"--no-context", "-s", c.url}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(b), code
}

// expect runs a command until it ends with a code and says all of the words; a cluster needs a moment to see
// what has happened.
func (c tool) expect(code int, words []string, args ...string) {
	c.t.Helper()
	var out string
	var got int
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		out, got = c.run(args...)
		missing := false
		for _, w := range words {
			missing = missing || !strings.Contains(out, w)
		}
		if got == code && !missing {
			return
		}
	}
	c.t.Fatalf("%v: exit code %d, not %d with %q:\n%s", args, got, code, words, out)
}

// raftz asks all servers for their groups, of which each has one leader that knows how far the others are.
func raftz(t *testing.T, nc *nats.Conn) {
	t.Helper()
	for account, groups := range map[string]int{"": 1, "MAIN": 4, "OTHER": 0} {
		answers := nc.NewRespInbox()
		sub, err := nc.SubscribeSync(answers)
		if err == nil {
			err = nc.PublishRequest("$SYS.REQ.SERVER.PING.RAFTZ", answers, []byte(`{"account":"`+account+`"}`))
		}
		if err != nil {
			t.Fatal(err)
		}
		leaders := make(map[string]int)
		for range 3 {
			m, err := sub.NextMsg(10 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var answer server.ServerAPIRaftzResponse
			if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error != nil || answer.Data == nil {
				t.Fatalf("%v: %s", err, m.Data)
			}
			for _, all := range *answer.Data {
				for name, g := range all {
					leaders[name] += 0
					if g.Size != 3 || g.QuorumNeeded != 2 || len(g.Peers) != 2 || g.Applied == 0 || g.PIndex < g.Committed || g.Leader == "" || !g.EverHadLeader {
						t.Errorf("%s: %+v", name, g)
					}
					for id, p := range g.Peers {
						if p.Name == "" || !p.Known || (g.State == "LEADER") != (p.LastReplicatedIndex > 0) || g.Leader == id && g.State == "LEADER" {
							t.Errorf("%s, %s: %s is %+v", name, g.State, id, p)
						}
					}
					if g.State == "LEADER" && g.Leader == g.ID && g.LeaderSince != nil {
						leaders[name]++
					}
				}
			}
		}
		for name, n := range leaders {
			if n != 1 {
				t.Errorf("%s has %d leaders", name, n)
			}
		}
		if len(leaders) != groups {
			t.Errorf("account %q has groups %v", account, leaders)
		}
	}
}

// An operator's day: look, move leaders, lose a server, be told, declare it gone.
func TestClusterCommands(t *testing.T) {
	servers := process.NewCluster(t, 3, `accounts {
  $SYS { users: [{user: sys, password: sys}] }
  MAIN { jetstream: enabled, users: [{user: main, password: main}] }
  OTHER { jetstream: enabled, users: [{user: other, password: other}] }
}
no_auth_user: main`)
	exe, err := process.Build()
	if err != nil {
		t.Fatal(err)
	}
	user := tool{t, exe, servers[0].URL()}
	sys := tool{t, exe, "nats://sys:sys@" + servers[0].Addr}
	js, err := jetstream.New(servers[0].Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for i := range 4 {
		if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: fmt.Sprint("B", i), Replicas: 3}); err != nil {
			t.Fatal(err)
		}
	}

	// Who makes a bucket sees its replicas at work, not how they begin.
	for i, args := range [][]string{{"kv", "add", "FRESH", "--replicas", "3"}, {"kv", "info", "FRESH"}} {
		out, code := user.run(args...)
		if code != 0 || strings.Count(out, ", current, seen ") != 2 {
			t.Errorf("%d: exit code %d: %s", i, code, out)
		}
	}
	user.expect(0, nil, "kv", "del", "FRESH", "--force")

	sys.expect(0, []string{"Cluster C", "n0", "n1", "n2", config.Version, "meta leader", "3 servers of 3 online", "4 streams", "No problems"}, "cluster", "status")
	user.expect(0, []string{"Cluster C", "n0", "n1", "n2", config.Version, "Seen from account MAIN"}, "cluster", "status")
	user.expect(0, []string{"OK: 3 servers, 4 streams"}, "cluster", "check")
	sys.expect(0, []string{"OK: 3 servers, meta leader n", "4 streams"}, "cluster", "check", "--servers", "3")
	sys.expect(1, []string{"WARNING: servers that answer: 3, expected: 5"}, "cluster", "check", "--servers", "5")

	raftz(t, servers[0].Connect(t, nats.UserInfo("sys", "sys")))

	out, _ := user.run("cluster", "peers", "B0", "-o", "json")
	var peers []struct {
		Bucket, Server, Role string
		Current              bool
	}
	if err := json.Unmarshal([]byte(out), &peers); err != nil || len(peers) != 3 || peers[0].Role != "leader" || peers[0].Bucket != "B0" {
		t.Fatalf("%v: %s", err, out)
	}
	user.expect(0, []string{peers[1].Server + " leads bucket B0 now, after " + peers[0].Server}, "cluster", "step-down", "B0", "--to", peers[1].Server)
	user.expect(1, []string{`preferred server "n9" not known`}, "cluster", "step-down", "B0", "--to", "n9")
	user.expect(3, []string{"no bucket and no stream: nope"}, "cluster", "step-down", "nope")
	user.expect(6, []string{"only users of the system account"}, "cluster", "step-down", "meta")
	user.expect(6, []string{"only users of the system account"}, "cluster", "remove", "n1")
	sys.expect(0, []string{"leads the cluster now, after n"}, "cluster", "step-down", "meta")

	for i := range 4 {
		if out, code := user.run("cluster", "step-down", fmt.Sprint("B", i), "--to", "n0"); code != 0 && !strings.Contains(out, "already leader") {
			t.Fatalf("exit code %d: %s", code, out)
		}
	}
	user.expect(0, []string{"n1 would lead", "n2 would lead"}, "cluster", "balance", "--dry-run")
	user.expect(0, []string{"n1 leads", "n2 leads"}, "cluster", "balance")
	user.expect(0, []string{"as evenly as they can be"}, "cluster", "balance")
	balanceAll(t, tool{t, exe, "nats://other:other@" + servers[0].Addr}, sys, user)

	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "SOLO"}); err != nil {
		t.Fatal(err)
	}
	out, _ = user.run("cluster", "peers", "SOLO", "-o", "csv")
	owner := int(out[strings.LastIndex(out, ",n")+2] - '0')
	lost := 2
	if owner == 2 { // Lose another first.
		lost = 1
	}
	name := fmt.Sprint("n", lost)
	servers[lost].Kill()
	sys.expect(1, []string{"WARNING: server " + name + " does not answer, and with it 4 replicas"}, "cluster", "check")
	user.expect(0, []string{"OFFLINE, seen", "warning: server " + name}, "cluster", "status")
	sys.expect(4, []string{"is still needed", "bucket SOLO of account MAIN has its only replica there"}, "cluster", "remove", fmt.Sprint("n", owner))
	sys.expect(2, []string{"without a terminal"}, "cluster", "remove", name)
	sys.expect(3, []string{"no server of the cluster is called n9"}, "cluster", "remove", "n9")
	sys.expect(0, []string{"Server " + name + " does not belong to cluster C any more"}, "cluster", "remove", name, "--force")
	sys.expect(0, []string{"2 servers of 2 online"}, "cluster", "status")

	// Without a majority nothing works, and whoever still answers says so.
	servers[3-lost].Kill()
	sys.expect(2, []string{"CRITICAL", "no meta leader", "needs 2"}, "cluster", "check")
	servers[0].Kill()
	sys.expect(2, []string{"CRITICAL: cannot connect to nats://xxxxx@"}, "cluster", "check", "--timeout", "1s")
}

// balanceAll has one account lead all of its own on one server, which the system account evens out over all
// accounts.
func balanceAll(t *testing.T, other, sys, user tool) {
	t.Helper()
	for i := range 3 {
		bucket := fmt.Sprint("O", i)
		other.expect(0, nil, "kv", "add", bucket, "--replicas", "3")
		if out, code := other.run("cluster", "step-down", bucket, "--to", "n1"); code != 0 && !strings.Contains(out, "already leader") {
			t.Fatalf("exit code %d: %s", code, out)
		}
	}
	// Alone each account has nothing to move, or moves its own.
	user.expect(0, []string{"as evenly as they can be"}, "cluster", "balance", "--dry-run")
	sys.expect(0, []string{"would lead bucket ", " of account ", ", after n1"}, "cluster", "balance", "--dry-run")
	sys.expect(0, []string{" leads bucket ", " of account ", " now, after n1"}, "cluster", "balance")
	sys.expect(0, []string{"The leaders of 7 streams are spread as evenly as they can be"}, "cluster", "balance")
	for i := range 3 {
		other.expect(0, nil, "kv", "del", fmt.Sprint("O", i), "--force")
	}
}
