package monitor

import (
	"fmt"
	"net/http"
	"net/url"
)

// Healthz is /healthz: whether the server can do its work.
type Healthz struct {
	Status string        `json:"status"`
	Code   int           `json:"status_code,omitempty"` // only where there is no HTTP status
	Error  string        `json:"error,omitempty"`
	Errors []HealthError `json:"errors,omitempty"`
}

// HealthError is one thing that is wrong, when details are asked for.
type HealthError struct {
	Type     string `json:"type"`
	Account  string `json:"account,omitempty"`
	Stream   string `json:"stream,omitempty"`
	Consumer string `json:"consumer,omitempty"`
	Error    string `json:"error,omitempty"`
}

// HealthzQuery is a HealthQuery and how to write the answer.
type HealthzQuery struct {
	HealthQuery
	Details bool `json:"details"`
}

func parseHealthzQuery(values url.Values) (HealthzQuery, error) {
	q := queryReader{values: values}
	old := q.flag("js-enabled")
	h := HealthzQuery{Details: q.flag("details"), HealthQuery: HealthQuery{
		EnabledOnly: q.flag("js-enabled-only") || old,
		ServerOnly:  q.flag("js-server-only"),
		MetaOnly:    q.flag("js-meta-only"),
		Account:     values.Get("account"),
		Stream:      values.Get("stream"),
		Consumer:    values.Get("consumer"),
	}}
	return h, q.err
}

// Healthz returns what /healthz shows and its HTTP status.
func (m *Monitor) Healthz(q HealthzQuery) (*Healthz, int) {
	problems := m.problems(q)
	if len(problems) == 0 {
		return &Healthz{Status: "ok"}, http.StatusOK
	}
	first := problems[0]
	m.log.Warn(fmt.Sprintf("Healthcheck failed: %q", first.Error))
	code := first.Code
	if code == 0 {
		code = http.StatusServiceUnavailable
	}
	if !q.Details {
		status := "unavailable"
		if code == http.StatusBadRequest || code == http.StatusInternalServerError {
			status = "error"
		}
		return &Healthz{Status: status, Error: first.Error}, code
	}
	out := &Healthz{Status: "error"}
	for _, p := range problems {
		out.Errors = append(out.Errors, HealthError{
			Type: p.Type, Account: p.Account, Stream: p.Stream, Consumer: p.Consumer, Error: p.Error,
		})
	}
	return out, code
}

func (m *Monitor) problems(q HealthzQuery) []HealthProblem {
	if p := q.wrong(); p != nil || m.src.Health == nil {
		return p
	}
	return m.src.Health.Check(q.HealthQuery)
}

// wrong returns what is wrong with the question itself.
func (q *HealthzQuery) wrong() []HealthProblem {
	var text string
	switch {
	case q.Account == "" && q.Stream != "":
		text = `"account" must not be empty when checking stream health`
	case q.Stream == "" && q.Consumer != "":
		text = `"stream" must not be empty when checking consumer health`
	default:
		return nil
	}
	return []HealthProblem{{Code: http.StatusBadRequest, Type: HealthBadRequest, Error: text}}
}
