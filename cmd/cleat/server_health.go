package main

import (
	"net/http"

	"github.com/cleatkv/cleat/internal/monitor"
)

// nodeHealth tells the monitor whether the server can do its work.
type nodeHealth struct{ n *node }

// Check looks at the listener first: without it nothing else matters to anybody.
func (h nodeHealth) Check(q monitor.HealthQuery) []monitor.HealthProblem {
	if h.n.front.Addr() == nil {
		return []monitor.HealthProblem{{
			Code: http.StatusInternalServerError, Type: monitor.HealthConnection,
			Error: "server does not yet listen for clients",
		}}
	}
	return nil
}
