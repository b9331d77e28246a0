package jetstream

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
)

// server is a whole server but for its listeners: a broker, a service and a cluster of one on a
// file system in memory.
type server struct {
	t       testing.TB
	fs      vfs.FS
	opts    Options
	service *Service
	cluster *cluster.Cluster
	account *broker.Account
	inbox   chan message
	n       int
}

// message is what a client would get.
type message struct{ subject, reply, header, data string }

func startServer(t testing.TB, change func(*Options)) *server {
	return startServerOn(t, vfs.NewCrashableMem(), change)
}

func startServerOn(t testing.TB, fs vfs.FS, change func(*Options)) *server {
	s := &server{t: t, fs: fs, inbox: make(chan message, 1<<16)}
	s.opts = Options{
		Version: "2.11.0",
		Account: func(name string) (api.AccountLimits, bool) { return api.Unlimited, name != "OFF" },
	}
	if change != nil {
		change(&s.opts)
	}
	s.open()
	t.Cleanup(func() { s.close() })
	return s
}

func (s *server) open() {
	s.opts.Broker = broker.New()
	s.service = New(s.opts)
	s.cluster = cluster.New(cluster.Options{FS: s.fs, Dir: "data", Name: "S1", Hooks: s.service, Logger: s.service.log})
	if err := s.cluster.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.account = s.opts.Broker.Account("$G")
	s.service.Start(s.cluster)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.service.Ready(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.account.Subscribe("_INBOX.>", "", func(m *broker.Msg) {
		s.inbox <- message{m.Subject, m.Reply, string(m.Header), string(m.Data)}
	})
}

func (s *server) close() {
	if err := s.cluster.Close(); err != nil {
		s.t.Error(err)
	}
	s.service.Close()
}

// restart stops the server and starts it again on the same files.
func (s *server) restart() {
	s.close()
	s.open()
}

// publish sends a message with a fresh inbox for the reply.
func (s *server) publish(subj, header, data string) (delivered int) {
	s.n++
	var h []byte
	if header != "" {
		h = []byte("NATS/1.0\r\n" + strings.ReplaceAll(header, "; ", "\r\n") + "\r\n\r\n")
	}
	var out broker.Batch
	defer out.Flush()
	return s.account.Publish(&out, subj, fmt.Sprintf("_INBOX.%d", s.n), h, []byte(data))
}

// request sends a request and waits for the reply.
func (s *server) request(subj, header, data string) message {
	s.t.Helper()
	if s.publish(subj, header, data) == 0 {
		return message{header: "no responders"}
	}
	want := fmt.Sprintf("_INBOX.%d", s.n)
	for timeout := time.After(10 * time.Second); ; {
		select {
		case m := <-s.inbox:
			if m.subject == want {
				return m
			}
		case <-timeout:
			s.t.Fatalf("no reply to %s", subj)
		}
	}
}

// all sends a request and gathers replies until one is a status.
func (s *server) all(subj, data string) (ms []message) {
	s.t.Helper()
	m := s.request(subj, "", data)
	for {
		ms = append(ms, m)
		if m.data == "" && !strings.HasPrefix(m.header, "NATS/1.0\r\n") {
			return ms
		}
		select {
		case m = <-s.inbox:
		case <-time.After(10 * time.Second):
			s.t.Fatalf("the answer to %s does not end: %v", subj, ms)
		}
	}
}

var (
	timeText  = regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`)
	jsonBreak = regexp.MustCompile(`"(config|created|state|limits|api)":`)
)

// String shows a message with times masked.
func (m message) String() string {
	var b strings.Builder
	if m.header != "" {
		b.WriteString(strings.ReplaceAll(strings.TrimSuffix(m.header, "\r\n\r\n"), "\r\n", " | "))
		b.WriteString("\n")
	}
	if m.data != "" {
		data := strings.TrimPrefix(m.data, `{"type":"io.nats.jetstream.api.v1.`)
		b.WriteString(jsonBreak.ReplaceAllString(data, "\n  $0"))
		b.WriteString("\n")
	}
	return timeText.ReplaceAllString(b.String(), "TIME")
}

// TestRequests replays requests and compares the answers, byte for byte but for times.
func TestRequests(t *testing.T) {
	datadriven.Walk(t, "testdata/requests", func(t *testing.T, path string) {
		s := startServer(t, nil)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			switch d.Cmd {
			case "req", "all": // SUBJECT, then lines of [HEADERS] BODY, one for each request; "-": no body
				var b bytes.Buffer
				for line := range strings.Lines(d.Input + "\n") {
					header, body := splitHeader(strings.TrimSuffix(line, "\n"))
					if d.Cmd == "req" {
						fmt.Fprint(&b, s.request(d.CmdArgs[0].Key, header, body))
						continue
					}
					for _, m := range s.all(d.CmdArgs[0].Key, body) {
						fmt.Fprint(&b, m)
					}
				}
				return b.String()
			case "restart":
				s.restart()
				return "ok\n"
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func splitHeader(line string) (header, body string) {
	if line == "-" {
		return "", ""
	}
	if !strings.HasPrefix(line, "[") {
		return "", line
	}
	header, body, _ = strings.Cut(line[1:], "]")
	return header, strings.TrimPrefix(body, " ")
}
