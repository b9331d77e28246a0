package jetstream

import (
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/consumer"
)

// Advisories tell whoever listens what happens to consumers. Nothing depends on them.

const (
	advisorySubject = "$JS.EVENT.ADVISORY.CONSUMER."
	advisoryType    = "io.nats.jetstream.advisory.v1."
)

// advisory is the body of all of them; members that do not apply are left out.
type advisory struct {
	Type        string     `json:"type"`
	ID          string     `json:"id"`
	Time        time.Time  `json:"timestamp"`
	Stream      string     `json:"stream"`
	Consumer    string     `json:"consumer"`
	Action      string     `json:"action,omitempty"`
	ConsumerSeq uint64     `json:"consumer_seq,omitempty"`
	StreamSeq   uint64     `json:"stream_seq,omitempty"`
	Deliveries  int        `json:"deliveries,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	Group       string     `json:"group,omitempty"`
	PinnedID    string     `json:"pinned_id,omitempty"`
	Paused      *bool      `json:"paused,omitempty"`
	PauseUntil  *time.Time `json:"pause_until,omitempty"`
	Domain      string     `json:"domain,omitempty"`
}

// advisoryNames are the subject token and the type of what a machine reports.
var advisoryNames = map[consumer.AdvisoryKind][2]string{
	consumer.AdvisoryMaxDeliver: {"MAX_DELIVERIES", "max_deliver"},
	consumer.AdvisoryNak:        {"MSG_NAKED", "nak"},
	consumer.AdvisoryTerminated: {"MSG_TERMINATED", "terminated"},
	consumer.AdvisoryPinned:     {"PINNED", "consumer_group_pinned"},
	consumer.AdvisoryUnpinned:   {"UNPINNED", "consumer_group_unpinned"},
}

// advise publishes an event that a machine reported.
func (s *consumerSet) advise(out *broker.Batch, name string, a *consumer.Advisory) {
	names := advisoryNames[a.Kind]
	s.publishAdvisory(out, names[0], &advisory{
		Type: advisoryType + names[1], Consumer: name,
		ConsumerSeq: a.ConsumerSeq, StreamSeq: a.StreamSeq, Deliveries: a.Count, Reason: a.Reason,
		Group: a.Group, PinnedID: a.PinID,
	})
}

// adviseAction tells that a consumer was created or deleted.
func (s *consumerSet) adviseAction(name, token, action string) {
	s.publishAdvisory(nil, token, &advisory{Type: advisoryType + "consumer_action", Consumer: name, Action: action})
}

// advisePause tells that a consumer was paused, or resumed.
func (s *consumerSet) advisePause(name string, until *time.Time) {
	paused := until != nil
	s.publishAdvisory(nil, "PAUSE", &advisory{Type: advisoryType + "consumer_pause", Consumer: name, Paused: &paused, PauseUntil: until})
}

func (s *consumerSet) publishAdvisory(out *broker.Batch, token string, a *advisory) {
	subject := advisorySubject + token + "." + s.st.Name() + "." + a.Consumer
	if !s.account.Interest(subject, "") {
		return
	}
	a.ID, a.Time, a.Stream, a.Domain = rand.Text(), time.Now().UTC(), s.st.Name(), s.svc.opts.Domain
	body, err := json.Marshal(a)
	if err != nil {
		s.svc.log.Error("advisory: " + err.Error())
		return
	}
	s.account.Publish(out, subject, "", nil, body)
}
