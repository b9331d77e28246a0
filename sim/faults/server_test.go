package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/jetstream"
)

// answerTimeout is how long a client waits, in the time of the bubble.
const answerTimeout = 30 * time.Second

// errNoAnswer says nothing about what became of a request.
var errNoAnswer = errors.New("no answer")

// server is a whole server but for its listeners, with one client.
type server struct {
	service *jetstream.Service
	cluster *cluster.Cluster
	account *broker.Account
	inbox   chan *message
	fatal   chan error // gets why the server stops, if it does
	n       int
}

// message is what the client gets.
type message struct {
	subject, reply string
	header         map[string]string
	status         string // the first line of the header, without the version
	data           []byte
}

// startServer starts a server on what a disk holds.
func startServer(fs vfs.FS, log *journal) (*server, error) {
	s := &server{inbox: make(chan *message, 1<<12), fatal: make(chan error, 1)}
	b := broker.New()
	logger := slog.New(slog.NewTextHandler(log, nil))
	s.service = jetstream.New(jetstream.Options{
		Broker: b, Logger: logger, Version: "2.11.0",
		Account: func(string) (api.AccountLimits, bool) { return api.Unlimited, true },
	})
	s.cluster = cluster.New(cluster.Options{
		FS: fs, Dir: "data", Name: "S1", Hooks: s.service, Logger: logger,
		OnFatal: func(err error) { s.fatal <- err },
	})
	if err := s.cluster.Start(); err != nil {
		s.service.Close()
		return nil, err
	}
	s.account = b.Account("$G")
	s.service.Start(s.cluster)
	s.account.Subscribe("_INBOX.>", "", func(m *broker.Msg) { s.inbox <- newMessage(m) })
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	if err := s.service.Ready(ctx); err != nil { // A process would listen all the same.
		fmt.Fprintf(log, "not ready: %v\n", err)
	}
	return s, nil
}

func (s *server) close() error {
	err := s.cluster.Close()
	s.service.Close()
	return err
}

// stopped tells why the server has stopped by itself; nil if it has not.
func (s *server) stopped() error {
	select {
	case err := <-s.fatal:
		s.fatal <- err
		return err
	default:
		return nil
	}
}

func newMessage(m *broker.Msg) *message {
	out := &message{subject: m.Subject, reply: m.Reply, data: bytes.Clone(m.Data), header: map[string]string{}}
	for i, line := range strings.Split(strings.TrimSpace(string(m.Header)), "\r\n") {
		if i == 0 {
			out.status = strings.TrimSpace(strings.TrimPrefix(line, "NATS/1.0"))
		} else if name, value, ok := strings.Cut(line, ": "); ok {
			out.header[name] = value
		}
	}
	return out
}

// send publishes with a reply subject, on which the answers come; false: nobody listens.
func (s *server) send(subject, header string, data []byte) (inbox string, ok bool) {
	s.n++
	inbox = fmt.Sprint("_INBOX.", s.n)
	var h []byte
	if header != "" {
		h = []byte("NATS/1.0\r\n" + header + "\r\n\r\n")
	}
	var out broker.Batch
	defer out.Flush()
	return inbox, s.account.Publish(&out, subject, inbox, h, data) > 0
}

// await returns the next message for an inbox; errNoAnswer if the server stops or takes too long.
func (s *server) await(inbox string) (*message, error) {
	timeout := time.After(answerTimeout)
	for {
		select {
		case m := <-s.inbox:
			if inbox == "" || m.subject == inbox {
				return m, nil
			}
		case err := <-s.fatal:
			s.fatal <- err
			return nil, errNoAnswer
		case <-timeout:
			return nil, errNoAnswer
		}
	}
}

// request returns one answer. Without anybody to take the request it is a definite error.
func (s *server) request(subject, header string, data []byte) (*message, error) {
	inbox, ok := s.send(subject, header, data)
	if !ok {
		return nil, fmt.Errorf("%w: no responders for %s", errRefused, subject)
	}
	return s.await(inbox)
}

// journal is the log of the servers of one run.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
