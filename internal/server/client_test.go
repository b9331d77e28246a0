package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/bcrypt"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
)

// These tests speak through the official Go client.

func connectTo(t testing.TB, s *Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://"+s.Addr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestClientPublishesAndRequests(t *testing.T) {
	s := start(t, Options{})
	a, b := connectTo(t, s), connectTo(t, s, nats.NoEcho())
	sub, err := a.SubscribeSync("news.*")
	if err != nil {
		t.Fatal(err)
	}
	a.Flush()
	m := nats.NewMsg("news.x")
	m.Header.Set("K", "v")
	m.Data = []byte("hello")
	if err := b.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	got, err := sub.NextMsg(time.Second)
	if err != nil || string(got.Data) != "hello" || got.Header.Get("K") != "v" {
		t.Fatalf("%+v, %v", got, err)
	}
	b.Subscribe("svc", func(m *nats.Msg) { m.Respond(append([]byte("re:"), m.Data...)) })
	b.Flush()
	r, err := a.Request("svc", []byte("x"), time.Second)
	if err != nil || string(r.Data) != "re:x" {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := a.Request("nobody", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("request to nobody: %v", err)
	}
	if id, err := a.GetClientID(); err != nil || id == 0 {
		t.Error(id, err)
	}
	if _, err := a.RTT(); err != nil {
		t.Error(err)
	}
}

func TestClientQueueGroupSharesWork(t *testing.T) {
	s := start(t, Options{})
	pub := connectTo(t, s)
	var counts [3]atomic.Int64
	for i := range counts {
		nc := connectTo(t, s)
		nc.QueueSubscribe("work", "q", func(*nats.Msg) { counts[i].Add(1) })
		nc.Flush()
	}
	const msgs = 3000
	for range msgs {
		pub.Publish("work", nil)
	}
	total := func() (n int64) {
		for i := range counts {
			n += counts[i].Load()
		}
		return n
	}
	for end := time.Now().Add(5 * time.Second); total() < msgs && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := total(); n != msgs {
		t.Fatalf("%d of %d messages arrived", n, msgs)
	}
	for i := range counts {
		if n := counts[i].Load(); n < msgs/6 {
			t.Errorf("member %d got %d", i, n)
		}
	}
}

func TestClientDrainLosesNothing(t *testing.T) {
	s := start(t, Options{})
	pub, recv := connectTo(t, s), connectTo(t, s)
	var got atomic.Int64
	recv.Subscribe("d", func(*nats.Msg) { got.Add(1) })
	recv.Flush()
	for range 5000 {
		pub.Publish("d", []byte("x"))
	}
	pub.Flush()
	closed := make(chan struct{})
	recv.SetClosedHandler(func(*nats.Conn) { close(closed) })
	if err := recv.Drain(); err != nil {
		t.Fatal(err)
	}
	<-closed
	if n := got.Load(); n != 5000 {
		t.Errorf("%d of 5000 arrived", n)
	}
}

func TestClientAuthentication(t *testing.T) {
	kp, _ := nkeys.CreateUser()
	public, _ := kp.PublicKey()
	hashed, _ := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	s := start(t, Options{Auth: users(t, auth.Options{
		Users: []auth.User{{Name: "u", Password: string(hashed)}},
		NKeys: []auth.NKey{{Public: public, Account: "A"}},
	})})
	connectTo(t, s, nats.UserInfo("u", "secret"))
	nc := connectTo(t, s, nats.Nkey(public, kp.Sign))
	r, err := nc.Request("$SYS.REQ.USER.INFO", nil, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info userInfo
	if err := json.Unmarshal(r.Data, &info); err != nil || info.Data.User != public || info.Data.Account != "A" ||
		info.Server.ID != s.ID() {
		t.Errorf("%s: %v", r.Data, err)
	}
	for _, opts := range [][]nats.Option{
		{nats.UserInfo("u", "wrong")}, {nats.Token("x")}, {},
		{nats.Nkey(public, func([]byte) ([]byte, error) { return []byte("no signature"), nil })},
	} {
		if _, err := nats.Connect(s.Addr().String(), opts...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("connected with %v", err)
		}
	}
}

func TestClientPermissionViolations(t *testing.T) {
	s := start(t, Options{Auth: users(t, auth.Options{Users: []auth.User{{Name: "u", Password: "p",
		Permissions: &auth.Rules{Publish: auth.Subjects{Allow: []string{"ok"}}, Subscribe: auth.Subjects{Deny: []string{"no"}}}}}})})
	errs := make(chan error, 10)
	nc := connectTo(t, s, nats.UserInfo("u", "p"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	nc.Publish("bad", nil)
	nc.SubscribeSync("no")
	for _, want := range []string{`Publish to "bad"`, `Subscription to "no"`} {
		select {
		case err := <-errs:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%v, want a violation of %s", err, want)
			}
		case <-time.After(2 * time.Second):
			t.Fatalf("no error about %s", want)
		}
	}
	if !nc.IsConnected() {
		t.Error("a violation ended the connection")
	}
}

func TestClientAccountsAreKeptApart(t *testing.T) {
	s := start(t, Options{Auth: users(t, auth.Options{Users: []auth.User{
		{Name: "a", Password: "p", Account: "A"}, {Name: "b", Password: "p", Account: "B"}}})})
	a, b := connectTo(t, s, nats.UserInfo("a", "p")), connectTo(t, s, nats.UserInfo("b", "p"))
	sa, _ := a.SubscribeSync(">")
	sb, _ := b.SubscribeSync(">")
	a.Flush()
	b.Flush()
	a.Publish("x", nil)
	a.Flush()
	b.Flush()
	if _, err := sa.NextMsg(time.Second); err != nil {
		t.Error(err)
	}
	if m, err := sb.NextMsg(20 * time.Millisecond); err == nil {
		t.Errorf("%q crossed over", m.Subject)
	}
}

func TestClientReconnectsAfterShutdown(t *testing.T) {
	first, second := start(t, Options{}), start(t, Options{})
	reconnected := make(chan struct{}, 1)
	nc := connectTo(t, first, nats.ReconnectWait(10*time.Millisecond), nats.ReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }))
	sub, _ := nc.SubscribeSync("x")
	nc.SetServerPool([]string{"nats://" + second.Addr().String()})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := first.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reconnected:
	case <-ctx.Done():
		t.Fatal("the client did not come back")
	}
	nc.Flush()
	second.Broker().Account(broker.GlobalAccount).Publish(nil, "x", "", nil, nil)
	if _, err := sub.NextMsg(time.Second); err != nil {
		t.Error(err)
	}
}

func TestReloadKeepsWhoStillStands(t *testing.T) {
	user := func(name, pass string, deny ...string) auth.User {
		return auth.User{Name: name, Password: pass, Permissions: &auth.Rules{Subscribe: auth.Subjects{Deny: deny}}}
	}
	s := start(t, Options{Auth: users(t, auth.Options{Users: []auth.User{user("stays", "p"), user("goes", "p")}})})
	errs := make(chan error, 10)
	stays := connectTo(t, s, nats.UserInfo("stays", "p"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	stays.SubscribeSync("now.denied")
	stays.Flush()
	goes := connectTo(t, s, nats.UserInfo("goes", "p"), nats.MaxReconnects(0))
	o := *s.options()
	o.Auth = users(t, auth.Options{Users: []auth.User{user("stays", "p", "now.*"), user("goes", "changed")}})
	if err := s.Reload(o); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-errs:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Error(err)
		}
	case <-time.After(2 * time.Second):
		t.Error("the subscription still stands")
	}
	if err := stays.Flush(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(2 * time.Second); !goes.IsClosed(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a user stands whose password changed")
		}
	}
	o.Port = 1
	if err := s.Reload(o); !errors.Is(err, errReload) {
		t.Errorf("another port: %v", err)
	}
}

func TestClientLargePayload(t *testing.T) {
	s := start(t, Options{})
	nc := connectTo(t, s)
	sub, _ := nc.SubscribeSync("big")
	for i, size := range []int{1 << 20, 1<<20 - 1, 16 << 10, 64 << 10, 0, 300_000} {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(j * (i + 1))
		}
		if err := nc.Publish("big", data); err != nil {
			t.Fatal(err)
		}
		m, err := sub.NextMsg(2 * time.Second)
		if err != nil || string(m.Data) != string(data) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := nc.Publish("big", make([]byte, 1<<20+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Error(fmt.Sprint("beyond the bound: ", err))
	}
}

func TestReloadClosesExcessConnections(t *testing.T) {
	account := func(limit int) *auth.Authenticator {
		return users(t, auth.Options{Users: []auth.User{{Name: "u", Password: "p", Account: "A"}},
			Accounts: map[string]auth.Limits{"A": {Connections: limit}}})
	}
	s := start(t, Options{Auth: account(2)})
	first := connectTo(t, s, nats.UserInfo("u", "p"))
	connectTo(t, s, nats.UserInfo("u", "p"), nats.NoReconnect())
	if _, err := nats.Connect(s.Addr().String(), nats.UserInfo("u", "p")); !errors.Is(err, nats.ErrMaxAccountConnectionsExceeded) {
		t.Errorf("the third connection of the account: %v", err)
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.Auth = account(1) },
		func(o *Options) { o.ConnectionsMax = 1 },
	} {
		lost := make(chan error, 1)
		o := *s.options()
		o.Auth, o.ConnectionsMax = account(0), 0
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
		nc := connectTo(t, s, nats.UserInfo("u", "p"), nats.MaxReconnects(0), nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { lost <- err }))
		change(&o)
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-lost:
			if !errors.Is(err, nats.ErrMaxAccountConnectionsExceeded) && !errors.Is(err, nats.ErrMaxConnectionsExceeded) {
				t.Error(err)
			}
		case <-time.After(2 * time.Second):
			t.Error("a connection beyond the bound stays")
		}
		nc.Close()
	}
	if !first.IsConnected() {
		t.Error("the first connection had to stay")
	}
}
