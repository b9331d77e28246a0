package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/cleatkv/cleat/test/port"
)

// startTimeout is how long a server may take for anything in these tests.
const startTimeout = 20 * time.Second

// process is a server that runs as a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
	dir    string
	ports  ports
}

// logBuffer is what a process has written so far.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startProcess runs `cleat server` on free ports in a directory and waits until it is ready.
func startProcess(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: new(logBuffer), exited: make(chan struct{}), dir: dir}
	p.cmd = exec.Command("cleat", append([]string{"server", "-p", "-1", "-m", "-1", "-ports_file_dir", dir}, args...)...)
	p.cmd.Dir, p.cmd.Stderr = dir, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // Tests look at the exit code.
	}()
	t.Cleanup(func() {
		if !p.hasExited() {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
	})
	p.await("Server is ready")
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("cleat_%d.ports", p.cmd.Process.Pid)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &p.ports); err != nil || len(p.ports.Nats) == 0 {
		t.Fatalf("ports: %s %v", data, err)
	}
	return p
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// await waits until the log has a text.
func (p *process) await(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(startTimeout); !strings.Contains(p.log.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) || p.hasExited() {
			p.t.Fatalf("no %q in the log:\n%s", text, p.log)
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exits waits until the process has ended with a code.
func (p *process) exits(code int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(startTimeout):
		p.t.Fatalf("still running:\n%s", p.log)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d, want %d:\n%s", got, code, p.log)
	}
}

func (p *process) connect(options ...nats.Option) *nats.Conn {
	p.t.Helper()
	nc, err := nats.Connect(p.ports.Nats[0], options...)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, p.log)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	r, err := http.Get(p.ports.Monitoring[0] + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func writeConfig(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServerLife is a server nobody configured: it keeps a value over a restart and shows it.
func TestServerLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	dir := t.TempDir()
	p := startProcess(t, dir)
	if want := "nats://127.0.0.1:"; !strings.HasPrefix(p.ports.Nats[0], want) {
		t.Errorf("listens on %s, want %s", p.ports.Nats[0], want)
	}
	for _, text := range []string{"  Version:  ", "  Git:      [", "  Name:     ", "  ID:       ", "Listening for client connections on 127.0.0.1:", "-a 0.0.0.0"} {
		if !strings.Contains(p.log.String(), text) {
			t.Errorf("no %q in the log:\n%s", text, p.log)
		}
	}
	js, err := jetstream.New(p.connect())
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if _, body := p.get("/jsz?streams=1"); !strings.Contains(body, `"name": "KV_B"`) || !strings.Contains(body, `"messages": 1`) {
		t.Errorf("/jsz: %s", body)
	}
	for path, code := range map[string]int{
		"/healthz": 200, "/healthz?js-server-only=true": 200, "/healthz?js-enabled-only=true": 200, "/healthz?js-meta-only=1": 200,
		"/healthz?account=$G&stream=KV_B": 200, "/healthz?account=$G&stream=KV_C": 404, "/healthz?account=X": 404,
		"/healthz?account=$G&stream=KV_B&consumer=c": 404,
	} {
		if got, body := p.get(path); got != code {
			t.Errorf("%s: %d %s", path, got, body)
		}
	}
	if _, body := p.get("/connz?subs=1"); !strings.Contains(body, `"lang": "go"`) || !strings.Contains(body, `"num_connections": 1`) {
		t.Errorf("/connz: %s", body)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)

	p = startProcess(t, dir)
	if js, err = jetstream.New(p.connect()); err != nil {
		t.Fatal(err)
	}
	if bucket, err = js.KeyValue(ctx, "B"); err != nil {
		t.Fatal(err)
	}
	if e, err := bucket.Get(ctx, "k"); err != nil || string(e.Value()) != "v" || e.Revision() != 1 {
		t.Errorf("after a restart: %v %v", e, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cleat-data")); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGINT)
	p.exits(0)
	if left, _ := filepath.Glob(filepath.Join(dir, "*.ports")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestServerDefaults are chosen for streams that choose nothing, once: a client that does not know
// them neither changes them later nor is refused for creating the stream again.
func TestServerDefaults(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	dir := t.TempDir()
	create := func(p *process, name string) map[string]string {
		js, err := jetstream.New(p.connect())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
			t.Fatal(err)
		}
		s, err := js.UpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Description: "d"})
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().Config.Metadata
	}
	p := startProcess(t, dir, "-stale_reads")
	if m := create(p, "S"); m["cleat.reads"] != "stale" {
		t.Errorf("metadata %v", m)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	p = startProcess(t, dir)
	if m := create(p, "L"); m["cleat.reads"] != "" {
		t.Errorf("metadata without the flag %v", m)
	}
	js, err := jetstream.New(p.connect())
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"S"}, Description: "d"})
	if err != nil {
		t.Fatalf("created again: %v", err)
	}
	if m := s.CachedInfo().Config.Metadata; m["cleat.reads"] != "stale" {
		t.Errorf("metadata after creating it again %v", m)
	}
}

// TestServerReload takes over what can change, refuses the rest whole, and goes on either way.
func TestServerReload(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.conf")
	const rest = "\njetstream: enabled\nhost: 127.0.0.1\n"
	writeConfig(t, file, `max_payload: 1000, authorization { users [ { user: a, password: b } ] }`+rest)
	p := startProcess(t, dir, "-c", file, "-P", "the.pid")
	a := p.connect(nats.UserInfo("a", "b"), nats.NoReconnect())
	if a.MaxPayload() != 1000 {
		t.Errorf("max payload %d", a.MaxPayload())
	}
	if pid, err := os.ReadFile(filepath.Join(dir, "the.pid")); err != nil || string(pid) != fmt.Sprint(p.cmd.Process.Pid) {
		t.Errorf("pid file: %q %v", pid, err)
	}

	writeConfig(t, file, `max_payload: 2000, debug: true, authorization { users [ { user: c, password: d } ] }`+rest)
	p.signal(syscall.SIGHUP)
	p.await("Reloaded server configuration")
	if c := p.connect(nats.UserInfo("c", "d")); c.MaxPayload() != 2000 {
		t.Errorf("max payload after reload %d", c.MaxPayload())
	}
	for deadline := time.Now().Add(startTimeout); !a.IsClosed(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a user who is gone is still connected")
		}
	}
	p.await("[DBG]")

	writeConfig(t, file, `port: x`)
	p.signal(syscall.SIGHUP)
	p.await(`Failed to reload server configuration: ` + file + `:1:0: field "port" should be a number, got "x"`)
	writeConfig(t, file, `max_payload: 3000, server_name: other`+rest)
	p.signal(syscall.SIGHUP)
	p.await("Failed to reload server configuration: config reload not supported for server_name")
	if c := p.connect(nats.UserInfo("c", "d")); c.MaxPayload() != 2000 {
		t.Errorf("max payload after a refused reload %d", c.MaxPayload())
	}

	// An operator asks for it by a request, and is told what came of it.
	const operated = `accounts { $SYS { users: [{user: s, password: s}] } }`
	writeConfig(t, file, operated+rest)
	p.signal(syscall.SIGHUP)
	var sys *nats.Conn
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if sys, err = nats.Connect(p.ports.Nats[0], nats.UserInfo("s", "s")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer sys.Close()
	request := "$SYS.REQ.SERVER." + sys.ConnectedServerId() + ".RELOAD"
	for _, c := range []struct{ text, wrong string }{{`port: x`, "should be a number"}, {`max_payload: 2500, ` + operated + rest, ""}} {
		writeConfig(t, file, c.text)
		m, err := sys.Request(request, nil, startTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if refused := strings.Contains(string(m.Data), `"error"`); refused != (c.wrong != "") || !strings.Contains(string(m.Data), c.wrong) {
			t.Errorf("%s: %s", c.text, m.Data)
		}
	}
	if c := p.connect(); c.MaxPayload() != 2500 {
		t.Errorf("max payload after a reload by request %d", c.MaxPayload())
	}
}

// TestServerSignals are those of log rotation and of leaving; the flag sends them.
func TestServerSignals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.log")
	file := filepath.Join(dir, "f.conf")
	writeConfig(t, file, `lame_duck_duration: "30s", lame_duck_grace_period: "1ms", host: 127.0.0.1`)
	p := startProcess(t, dir, "-c", file, "-P", "the.pid")
	if out, err := exec.Command("cleat", "server", "-sl", "reload="+filepath.Join(dir, "the.pid")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	p.await("Reloaded server configuration")
	nc := p.connect(nats.NoReconnect())
	told := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(told) })
	if out, err := exec.Command("cleat", "server", "--signal", fmt.Sprintf("ldm=%d", p.cmd.Process.Pid)).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	p.await("Entering lame duck mode")
	p.signal(syscall.SIGTERM) // It leaves already, and not faster for this.
	select {
	case <-told:
	case <-time.After(startTimeout):
		t.Fatal("a client is still connected")
	}
	p.signal(syscall.SIGINT)
	p.exits(0)

	// A log file, moved away and opened again. It is all the log there is, so the ports tell when the
	// server is ready.
	q := exec.Command("cleat", "-p", "-1", "-m", "0", "-l", path, "-js=false")
	q.Dir = dir
	if err := q.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Process.Kill(); err == nil {
			_ = q.Wait()
		}
	}()
	awaitFile(t, path, "Server is ready")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := q.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, path, "File log re-opened")
}

func awaitFile(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		if strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %s: %s", text, path, b)
		}
	}
}

// TestServerAccounts keeps accounts apart, shares what they share, and leaves the global one open
// when only the system account has users.
func TestServerAccounts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.conf")
	writeConfig(t, file, `host: 127.0.0.1
		accounts {
			A { users [ { user: a, password: a } ], exports [ { service: q }, { stream: "s.>" } ] }
			B { users [ { user: b, password: b, permissions { publish: ["q", "_INBOX.>"] } } ], imports [ { service: { account: A, subject: q } }, { stream: { account: A, subject: "s.>" }, prefix: from } ] }
		}
		no_auth_user: b`)
	p := startProcess(t, dir, "-c", file)
	a, b := p.connect(nats.UserInfo("a", "a")), p.connect()
	if _, err := a.Subscribe("q", func(m *nats.Msg) { _ = m.Respond([]byte("from A")) }); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Request("q", nil, startTimeout); err != nil || string(m.Data) != "from A" {
		t.Errorf("service: %v %v", m, err)
	}
	stream, err := b.SubscribeSync("from.s.x")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := a.Publish("s.x", []byte("m")); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.NextMsg(startTimeout); err != nil || string(m.Data) != "m" {
		t.Errorf("stream: %v %v", m, err)
	}
	if _, body := p.get("/accountz"); !strings.Contains(body, `"A"`) || !strings.Contains(body, `"$SYS"`) {
		t.Errorf("/accountz: %s", body)
	}

	writeConfig(t, file, `host: 127.0.0.1, accounts { $SYS { users [ { user: s, password: s } ] } }`)
	p = startProcess(t, dir, "-c", file)
	p.connect()
	if _, err := nats.Connect(p.ports.Nats[0], nats.UserInfo("s", "wrong")); err == nil {
		t.Error("a wrong password was accepted")
	}
	p.connect(nats.UserInfo("s", "s"))
}

// threeServers starts servers 0, 1 and 2 of a cluster by calling start, which may be called again for
// one that has ended. more goes into the configuration, with the server's number for each %d.
func threeServers(t *testing.T, more string) (start func(i int) *process) {
	t.Helper()
	dir := t.TempDir()
	var routes []string
	for range 3 {
		number, err := port.Take()
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", number))
	}
	return func(i int) *process {
		t.Helper()
		file := filepath.Join(dir, fmt.Sprintf("%d.conf", i))
		writeConfig(t, file, fmt.Sprintf("host: 127.0.0.1, cluster { name: C, listen: %q, routes: [%s] }\n%s",
			strings.TrimPrefix(routes[i], "nats://"), strings.Join(routes, ", "), strings.ReplaceAll(more, "%d", fmt.Sprint(i))))
		return startProcess(t, dir, "-c", file)
	}
}

// TestServerCluster shows three servers to monitoring, and that what cannot work is said to.
func TestServerCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*startTimeout)
	defer cancel()
	start := threeServers(t, "server_name: n%d, jetstream { store_dir: data%d }")
	servers := make([]*process, 3)
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() { servers[i] = start(i) }) // They wait for each other.
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	js, err := jetstream.New(servers[0].connect())
	if err != nil {
		t.Fatal(err)
	}
	for { // The meta group may still be electing.
		if _, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B", Replicas: 3}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	await := func(p *process, path string, ok func(code int, body string) bool) {
		t.Helper()
		for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
			code, body := p.get(path)
			if ok(code, body) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d %s\n%s", path, code, body, p.log)
			}
		}
	}
	for _, p := range servers {
		await(p, "/healthz", func(code int, _ string) bool { return code == 200 })
		await(p, "/jsz?streams=1", func(_ int, body string) bool {
			return strings.Contains(body, `"cluster_size": 3`) && strings.Contains(body, `"name": "KV_B"`) && strings.Contains(body, `"leader": "n`)
		})
		await(p, "/routez", func(_ int, body string) bool { return strings.Contains(body, `"num_routes": 2`) })
		await(p, "/varz", func(_ int, body string) bool { return strings.Contains(body, `"remotes": 2`) })
	}

	// A server that stops lets others lead first: those who know it by its word, not by its silence.
	leading := func(p *process) bool {
		_, body := p.get("/jsz")
		return strings.Contains(body, `"streams_leader": 1`)
	}
	stopped := slices.IndexFunc(servers, leading)
	if stopped < 0 {
		t.Fatal("nobody leads the stream")
	}
	servers[stopped].signal(syscall.SIGTERM)
	servers[stopped].exits(0)
	if next := servers[(stopped+1)%3]; !leading(next) && !leading(servers[(stopped+2)%3]) {
		t.Errorf("nobody leads the stream after its leader has gone:\n%s\n%s", next.log, servers[stopped].log)
	}
	servers[stopped] = start(stopped)
	for _, p := range servers[1:] {
		p.signal(syscall.SIGKILL)
	}
	await(servers[0], "/healthz", func(code int, _ string) bool { return code == 503 })
	await(servers[0], "/healthz?js-enabled-only=true", func(code int, _ string) bool { return code == 200 })
	await(servers[0], "/routez", func(_ int, body string) bool { return strings.Contains(body, `"num_routes": 0`) })
}

// TestServerMessages connects three servers without JetStream: messages, queue groups and answers go
// between them, and clients hear of all. One that starts again is found again.
func TestServerMessages(t *testing.T) {
	start := threeServers(t, "")
	servers := []*process{start(0), start(1), start(2)}
	awaitServers := func(nc *nats.Conn) {
		t.Helper()
		for deadline := time.Now().Add(startTimeout); len(nc.Servers()) < 3; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("a client knows of %v\n%s", nc.Servers(), servers[0].log)
			}
		}
	}
	request := func(from *nats.Conn) {
		t.Helper()
		for deadline := time.Now().Add(startTimeout); ; {
			m, err := from.Request("q", []byte("x"), time.Second)
			if err == nil && string(m.Data) == "answer" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no answer: %v", err)
			}
		}
	}
	a, b := servers[0].connect(), servers[2].connect()
	awaitServers(a)
	if _, err := b.QueueSubscribe("q", "group", func(m *nats.Msg) { _ = m.Respond([]byte("answer")) }); err != nil {
		t.Fatal(err)
	}
	request(a)
	if code, body := servers[0].get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	a.Close()
	servers[0].signal(syscall.SIGTERM)
	servers[0].exits(0)
	again := start(0).connect()
	awaitServers(again)
	request(again)
}

// TestServerWebSocket is the same server for browsers.
func TestServerWebSocket(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.conf")
	writeConfig(t, file, `host: 127.0.0.1, websocket { host: 127.0.0.1, port: -1, no_tls: true, compression: true, allowed_origins: ["http://good"] }`)
	p := startProcess(t, dir, "-c", file)
	for _, options := range [][]nats.Option{nil, {nats.Compression(true)}} {
		nc, err := nats.Connect(p.ports.WebSocket[0], options...)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := nc.SubscribeSync("a")
		if err != nil {
			t.Fatal(err)
		}
		payload := bytes.Repeat([]byte("0123456789"), 10_000)
		if err := p.connect().Publish("x", nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish("a", payload); err != nil {
			t.Fatal(err)
		}
		if m, err := sub.NextMsg(startTimeout); err != nil || !bytes.Equal(m.Data, payload) {
			t.Errorf("through a websocket: %v", err)
		}
		if _, body := p.get("/connz"); !strings.Contains(body, `"type": "websocket"`) {
			t.Errorf("/connz: %s", body)
		}
		nc.Close()
	}
	for origin, want := range map[string]int{"http://good": 101, "http://evil": 403, "": 101} {
		req, err := http.NewRequest(http.MethodGet, "http"+strings.TrimPrefix(p.ports.WebSocket[0], "ws"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": origin} {
			if v != "" {
				req.Header.Set(k, v)
			}
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("origin %q: %d, want %d", origin, r.StatusCode, want)
		}
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// TestServerOperator lets in users whose JWTs the operator's keys vouch for, with the JetStream limits
// of their account.
func TestServerOperator(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	dir := t.TempDir()
	op, acc, user := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateUser)
	account := jwt.NewAccountClaims(acc.public)
	account.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: 1 << 20, DiskStorage: 1 << 20, Streams: 1, Consumer: -1}
	accountToken, err := account.Encode(op.pair)
	if err != nil {
		t.Fatal(err)
	}
	userToken, err := jwt.NewUserClaims(user.public).Encode(acc.pair)
	if err != nil {
		t.Fatal(err)
	}
	operatorToken, err := jwt.NewOperatorClaims(op.public).Encode(op.pair)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "f.conf")
	for name, text := range map[string]string{
		"preload":   fmt.Sprintf("resolver: MEMORY, resolver_preload { %s: %q }", acc.public, accountToken),
		"directory": fmt.Sprintf("resolver { type: full, dir: %q }", filepath.Join(dir, "jwt")),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Join(dir, "jwt"), 0o700); err != nil {
				t.Fatal(err)
			}
			writeConfig(t, filepath.Join(dir, "jwt", acc.public+".jwt"), accountToken)
			writeConfig(t, file, fmt.Sprintf("host: 127.0.0.1, jetstream { store_dir: %q }, operator: %q\n%s", filepath.Join(dir, name), operatorToken, text))
			p := startProcess(t, dir, "-c", file)
			sign := func(nonce []byte) ([]byte, error) { return user.pair.Sign(nonce) }
			js, err := jetstream.New(p.connect(nats.UserJWT(func() (string, error) { return userToken, nil }, sign)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B"}); err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "C"}); err == nil {
				t.Error("a second stream in an account for one")
			}
			if _, err := nats.Connect(p.ports.Nats[0]); err == nil {
				t.Error("a connection without a JWT was accepted")
			}
		})
	}
}

type keyPair struct {
	pair   nkeys.KeyPair
	public string
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) keyPair {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{pair, public}
}

// TestServerWords are the small things a server's flags ask for, with their exit codes.
func TestServerWords(t *testing.T) {
	dir := t.TempDir()
	good, bad, old := filepath.Join(dir, "good.conf"), filepath.Join(dir, "bad.conf"), filepath.Join(dir, "old.conf")
	writeConfig(t, good, "port: 4222\n")
	writeConfig(t, bad, "port: 4222\nfoo: 1\n")
	writeConfig(t, old, "ping_interval: 120\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"server -t -c " + good, 0, "cleat: configuration file " + good + " is valid (sha256:797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e)\n"},
		{"server -t -c " + bad, 1, "cleat: " + bad + `:2:1: unknown field "foo"` + "\n"},
		{"server -t -c " + old, 1, "cleat: " + old + `:1:0: invalid use of field "ping_interval": ping_interval should be converted to a duration` + "\n"},
		{"server -t", 1, "cleat: must specify [-c, --config] option to check configuration file syntax\n"},
		{"-t -c " + bad, 1, "cleat: " + bad + `:2:1: unknown field "foo"` + "\n"},
		{"server -c " + bad, 1, "cleat: " + bad + `:2:1: unknown field "foo"` + "\n"},
		{"server foo", 1, "cleat: unrecognized command: \"foo\"\n"},
		{"server -sl foo", 1, "cleat: unknown signal \"foo\"\n"},
		{"server -sl reload=x", 1, "cleat: invalid pid: x: it is no process id, nor a file that holds one\n"},
		{"server -sl reload=1=2", 1, "cleat: invalid signal parameters: [2]\n"},
		{"server -sl reload=999999999", 1, "cleat: \nsignal \"reload\" 999999999: no such process\n"},
		{"server -v", 0, "cleat: v0.1.0 (NATS protocol v2.11.0)\n"},
		{"server version", 0, "cleat: v0.1.0 (NATS protocol v2.11.0)\n"},
		{"version", 0, "cleat: v0.1.0 (NATS protocol v2.11.0)\n"},
		{"--version", 0, "cleat: v0.1.0 (NATS protocol v2.11.0)\n"},
	} {
		out, err := exec.Command("cleat", strings.Fields(c.args)...).CombinedOutput()
		code := 0
		if err != nil {
			code = err.(*exec.ExitError).ExitCode()
		}
		if code != c.code || string(out) != c.want {
			t.Errorf("%s: %d %q, want %d %q", c.args, code, out, c.code, c.want)
		}
	}
	for args, want := range map[string]string{
		"server -h": "Usage: cleat server [options]", "server --help": "--ports_file_dir", "server help": "-sd, --store_dir",
		"help server": "Usage: cleat server [options]", "server --help_tls": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--help": "kv",
	} {
		if out, err := exec.Command("cleat", strings.Fields(args)...).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: no %q: %s %v", args, want, out, err)
		}
	}
	out, err := exec.Command("cleat", "server", "-zz").CombinedOutput()
	if err == nil || err.(*exec.ExitError).ExitCode() != 2 || string(out) != "cleat: flag provided but not defined: -zz\n  see cleat server --help\n" {
		t.Errorf("-zz: %v %s", err, out)
	}
}

// TestFaces decides between the server and the tool.
func TestFaces(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "-js": true, "-c x -p 1": true, "--config x": true, "-D": true, "-m 8222": true,
		"kv ls": false, "-h": false, "--help": false, "-v": false, "--version": false,
		"--timeout 5s kv ls": false, "-s nats://x kv get b k": false, "unknown": false,
	} {
		if got := wantsServer(newRootCommand(), strings.Fields(args)); got != want {
			t.Errorf("cleat %s: server %v, want %v", args, got, want)
		}
	}
	for arg0, want := range map[string]string{"nats-server": "nats-server", "/usr/bin/nats-server": "nats-server", "cleat": "cleat", "/x/cleat-1.2": "cleat"} {
		if got := programName(arg0); got != want {
			t.Errorf("%s is %s, want %s", arg0, got, want)
		}
	}
	if help := usageText(serverName); strings.Contains(help, "configuration file)") || strings.Contains(help, ": 8222") || strings.Contains(help, "127.0.0.1)") {
		t.Error("nats-server -h names defaults that it does not have:\n", help)
	}
	if got := versionText(serverName); got != "nats-server: v2.11.0 (cleat v0.1.0)" {
		t.Error(got)
	}
}
