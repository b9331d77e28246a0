package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// clients shows none.
type clients struct{}

func (clients) Addresses() monitor.Addresses { return monitor.Addresses{} }
func (clients) Traffic() monitor.Traffic     { return monitor.Traffic{} }
func (clients) Open() []monitor.Conn         { return nil }
func (clients) Closed() []monitor.Conn       { return nil }

type fixture struct {
	*Service
	broker  *broker.Broker
	answers chan answered
	reload  func() error
}

type answered struct {
	subject string
	header  []byte
	body    []byte
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{broker: broker.New(), answers: make(chan answered, 2*requestsMax), reload: func() error { return nil }}
	cfg, err := config.Load(&config.Flags{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	m := monitor.New(monitor.Sources{
		ServerID: "ID", ServerName: "n1", Start: time.Now(), Config: func() *config.Config { return cfg },
		Loaded: time.Now, Clients: clients{},
	}, log)
	f.Service = New(Options{
		Broker: f.broker, Monitor: m, Logger: log,
		Describe: func() server.ServerInfo {
			return server.ServerInfo{Name: "n1", ID: "ID", Cluster: "east", Host: "10.0.0.1", Domain: "hub", Tags: []string{"ssd", "big"}}
		},
		Reload: func() error { return f.reload() },
		Kick:   func(id uint64) bool { return id == 7 },
	})
	t.Cleanup(f.Service.Close)
	f.broker.System().Subscribe("inbox.>", "", func(m *broker.Msg) {
		f.answers <- answered{m.Subject, bytes.Clone(m.Header), bytes.Clone(m.Data)}
	})
	return f
}

// ask sends a request; next takes an answer, or none if there is none for a while.
func (f *fixture) ask(subject, body string) {
	f.broker.System().Publish(nil, subject, "inbox.1", nil, []byte(body))
}

func (f *fixture) next(t *testing.T) string {
	t.Helper()
	select {
	case a := <-f.answers:
		return string(a.body)
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return ""
	}
}

// A request may be for some servers only. A server it is not for says nothing.
func TestFilter(t *testing.T) {
	f := newFixture(t)
	for body, want := range map[string]bool{
		"": true, "{}": true, " ": true,
		`{"server_name":"n"}`:                      true,
		`{"server_name":"n","exact_match":true}`:   false,
		`{"server_name":"n1","exact_match":true}`:  true,
		`{"cluster":"eas"}`:                        true,
		`{"cluster":"west"}`:                       false,
		`{"host":"10.0"}`:                          true,
		`{"host":"10.0","exact_match":true}`:       false,
		`{"domain":"hub"}`:                         true,
		`{"domain":"hu"}`:                          false,
		`{"tags":["SSD","big"]}`:                   true,
		`{"tags":["ssd","small"]}`:                 false,
		`{"server_name":"n1","something":["new"]}`: true,
	} {
		f.ask(pingSubject+".IDZ", body)
		f.ask(serverSubject+"ID.VARZ", "") // Answers come in order: this one shows that the other is through.
		got := f.next(t)
		if answered := !strings.Contains(got, `"data"`); answered != want {
			t.Errorf("%s: answered is %v: %s", body, answered, got)
		}
		if want {
			f.next(t)
		}
	}
}

// What is wrong with a request is said, and by one server only if one was asked.
func TestRefusals(t *testing.T) {
	f := newFixture(t)
	f.reload = func() error { return errors.New("no file") }
	for _, c := range []struct{ subject, body, want string }{
		{pingSubject + ".VARZ", `{"server_name":`, `"code":400`},
		{pingSubject + ".JSZ", `{"limit":"many"}`, `"code":400`},
		{pingSubject + ".CONNZ", `{"sort":"beauty"}`, "invalid sorting option: beauty"},
		{pingSubject + ".SUBSZ", `{"test":"a.*"}`, "invalid test subject"},
		{accountSubject + "NONE.JSZ", ``, `account \"NONE\" not jetstream enabled`},
		{serverSubject + "ID.RELOAD", ``, "no file"},
		{serverSubject + "ID.KICK", `{"cid":8}`, "no such client id"},
	} {
		f.ask(c.subject, c.body)
		if got := f.next(t); !strings.Contains(got, c.want) || !strings.Contains(got, `"error"`) {
			t.Errorf("%s %s: %s", c.subject, c.body, got)
		}
	}
	f.ask(serverSubject+"ID.KICK", `{"cid":7}`)
	if got := f.next(t); strings.Contains(got, `"error"`) {
		t.Error(got)
	}
}

// Requests beyond the bound are refused at once, and those within it are answered.
func TestQueueBound(t *testing.T) {
	f := newFixture(t)
	running, release := make(chan struct{}), make(chan struct{})
	f.reload = func() error {
		close(running)
		<-release
		return nil
	}
	f.ask(serverSubject+"ID.RELOAD", "")
	<-running
	for range requestsMax {
		f.ask(pingSubject+".IDZ", "")
	}
	f.ask(pingSubject+".IDZ", "")
	if got := f.next(t); !strings.Contains(got, `"code":503`) {
		t.Errorf("the request beyond the bound: %s", got)
	}
	close(release)
	for range requestsMax + 1 {
		if got := f.next(t); strings.Contains(got, "503") {
			t.Fatalf("a request within the bound: %s", got)
		}
	}
}

// Answers are compressed for those who say that they can read that.
func TestCompression(t *testing.T) {
	f := newFixture(t)
	f.broker.System().Publish(nil, pingSubject+".VARZ", "inbox.1", []byte("NATS/1.0\r\nAccept-Encoding: snappy\r\n\r\n"), nil)
	a := <-f.answers
	if !strings.Contains(string(a.header), "Content-Encoding: snappy") {
		t.Fatalf("header %q", a.header)
	}
	plain, err := io.ReadAll(s2.NewReader(bytes.NewReader(a.body)))
	if err != nil || !json.Valid(plain) || len(plain) <= len(a.body) {
		t.Fatalf("%d bytes of %d: %v", len(a.body), len(plain), err)
	}
}

// Events are made for listeners only; closed, the service is gone from the broker.
func TestEvents(t *testing.T) {
	f := newFixture(t)
	described := 0
	describe := func() server.ConnInfo {
		described++
		return server.ConnInfo{ID: 3, Name: "app", InMsgs: 5, OutMsgs: 6, Reason: "Client Closed"}
	}
	f.Connection("A", true, describe)
	if described != 0 {
		t.Error("an event was made that nobody hears")
	}
	var got []string
	sub := f.broker.System().Subscribe("$SYS.>", "", func(m *broker.Msg) { got = append(got, m.Subject+" "+string(m.Data)) })
	f.Connection("A", true, describe)
	f.Connection("A", false, describe)
	f.Leaving()
	f.Stopping()
	want := []string{"$SYS.ACCOUNT.A.CONNECT ", "$SYS.ACCOUNT.A.DISCONNECT ", "$SYS.SERVER.ID.LAMEDUCK ", "$SYS.SERVER.ID.SHUTDOWN "}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i], w) {
			t.Errorf("%q instead of %q", got[i], w)
		}
	}
	var e clientEvent
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[1], want[1])), &e); err != nil || e.Sent.Msgs != 5 || e.Received.Msgs != 6 ||
		e.Reason != "Client Closed" || e.Client.Name != "app" || e.Type != disconnectEvent {
		t.Errorf("%s: %+v %v", got[1], e, err)
	}
	sub.Close()
	f.Service.Close()
	if f.broker.System().Interest(pingSubject, "") || f.broker.Account("$G").Interest(pingSubject+".CONNZ", "") {
		t.Error("a closed service still takes requests")
	}
}
