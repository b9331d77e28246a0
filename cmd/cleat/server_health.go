package main

import (
	"fmt"
	"net/http"

	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/monitor"
)

// nodeHealth tells the monitor whether the server can do its work.
type nodeHealth struct{ n *node }

// Check goes from what everybody needs to what few do, as far as the question asks, and stops at
// what makes the rest pointless.
func (h nodeHealth) Check(q monitor.HealthQuery) []monitor.HealthProblem {
	n := h.n
	switch {
	case n.front.Addr() == nil:
		return []monitor.HealthProblem{{
			Code: http.StatusInternalServerError, Type: monitor.HealthConnection,
			Error: "server does not yet listen for clients",
		}}
	case q.ServerOnly || n.streams == nil:
		return nil
	case q.EnabledOnly:
		return nil // Clients can connect, so what is stored is open.
	}
	if err := n.cluster.MetaHealthy(); err != nil {
		return []monitor.HealthProblem{{Type: monitor.HealthJetStream, Error: err.Error()}}
	}
	switch {
	case q.MetaOnly:
		return nil
	case q.Account != "":
		return h.named(q)
	}
	var problems []monitor.HealthProblem
	for _, s := range n.cluster.Streams() {
		problems = append(problems, streamProblem(s)...)
	}
	return problems
}

// named looks at one account, or at one of its streams, or at one consumer of it.
func (h nodeHealth) named(q monitor.HealthQuery) []monitor.HealthProblem {
	missing := func(kind, format string, args ...any) []monitor.HealthProblem {
		return []monitor.HealthProblem{{
			Code: http.StatusNotFound, Type: kind, Account: q.Account, Stream: q.Stream, Consumer: q.Consumer,
			Error: fmt.Sprintf(format, args...),
		}}
	}
	if _, ok := h.n.accountLimits(q.Account); !ok || h.n.broker.Lookup(q.Account) == nil {
		return missing(monitor.HealthAccount, "JetStream account %q not found", q.Account)
	}
	var problems []monitor.HealthProblem
	found := q.Stream == ""
	for _, s := range h.n.cluster.Streams() {
		if s.Account() != q.Account || (q.Stream != "" && s.Name() != q.Stream) {
			continue
		}
		found = true
		problems = append(problems, streamProblem(s)...)
		if q.Consumer != "" && !h.hasConsumer(s, q.Consumer) {
			return missing(monitor.HealthConsumer, "JetStream consumer %q not found for stream %q on account %q",
				q.Consumer, q.Stream, q.Account)
		}
	}
	if !found {
		return missing(monitor.HealthStream, "JetStream stream %q not found on account %q", q.Stream, q.Account)
	}
	return problems
}

func (h nodeHealth) hasConsumer(s *cluster.Stream, name string) bool {
	for _, c := range h.n.streams.Consumers(s) {
		if c.Name == name {
			return true
		}
	}
	return false
}

// streamProblem is what keeps a stream from taking writes, if anything does.
func streamProblem(s *cluster.Stream) []monitor.HealthProblem {
	err := s.Healthy()
	if err == nil {
		return nil
	}
	return []monitor.HealthProblem{{
		Type: monitor.HealthStream, Account: s.Account(), Stream: s.Name(),
		Error: fmt.Sprintf("JetStream stream '%s > %s' is not current: %v", s.Account(), s.Name(), err),
	}}
}
