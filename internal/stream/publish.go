package stream

import (
	"bytes"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// headerBytesMax bounds the header block of a stored message.
const headerBytesMax = 65535

// publish is one message on its way into the stream.
type publish struct {
	publishParts
	name   string // the subject, after the stream's transform
	marks  *marks
	ttl    messageTTL
	rollup rollup
	prior  storage.SubjectState // of the subject, before this message
	seq    uint64               // in a mirror, where the origin says; 0: the next one
	time   int64                // as seq
}

// rollup says which earlier messages a new one replaces.
type rollup uint8

const (
	rollupNone rollup = iota
	rollupSubject
	rollupAll
)

// publish stores a message if nothing speaks against it.
func (a *apply) publish(parts publishParts, r *Result) error {
	if a.set == nil {
		r.Err = api.ErrUnavailable
		return nil
	}
	p := &publish{publishParts: parts}
	a.prepare(p)
	if r.Err = a.checkMessage(p); r.Err != nil {
		return nil
	}
	// Before the expectations: a publish that is sent again has succeeded, not lost.
	if seq, ok := a.duplicateOf(p); ok {
		r.Seq, r.Duplicate = seq, true
		return nil
	}
	p.prior, _ = a.tx.Subject(p.name)
	if r.Err = a.checkExpectations(p); r.Err != nil {
		return nil
	}
	if err := a.checkRoom(p, r); err != nil || r.Err != nil {
		return err
	}
	return a.store(p, r)
}

// prepare finds what a message's header asks for, and its subject.
func (a *apply) prepare(p *publish) {
	p.marks = &a.s.scratch
	*p.marks = marks{}
	if p.header != nil {
		p.header = withoutStatus(p.header)
		p.marks.scan(p.header)
	}
	p.name = a.set.transform.apply(string(p.subject), a.tx.State().LastSeq+1)
}

// duplicateOf finds the message of the same id in the duplicate window.
func (a *apply) duplicateOf(p *publish) (seq uint64, ok bool) {
	if len(p.marks.msgID) == 0 {
		return 0, false
	}
	return a.s.dedup.find(p.marks.msgID, a.now()-int64(a.set.Config.DuplicateWindow))
}

// checkMessage judges the message by itself against the configuration.
func (a *apply) checkMessage(p *publish) *api.Error {
	c, m := &a.set.Config, p.marks
	switch {
	case len(m.batchID) > 0:
		return api.ErrAtomicDisabled
	case c.Sealed:
		return api.ErrSealed
	case c.Mirror != nil:
		return api.ErrUnavailable // About to become a stream of its own.
	case c.MaxMsgSize >= 0 && len(p.header)+len(p.data) > int(c.MaxMsgSize):
		return api.ErrMessageExceedsMaximum
	case len(p.header) > headerBytesMax:
		return api.ErrHeaderExceedsMaximum
	case len(m.incr) > 0 && !isInteger(m.incr):
		return api.ErrCounterIncrementInvalid
	case len(m.incr) > 0:
		return api.ErrCounterDisabled
	case len(m.expectedStream) > 0 && string(m.expectedStream) != c.Name:
		return api.ErrExpectedStream
	}
	if len(m.ttl) > 0 {
		if !c.AllowMsgTTL {
			return api.ErrTTLDisabled
		}
		ttl, ok := parseTTL(m.ttl)
		if !ok {
			return api.ErrInvalidTTL
		}
		p.ttl = ttl
	}
	switch {
	case len(m.schedule) > 0:
		return api.ErrSchedulesDisabled
	case len(m.streamSource) > 0:
		return api.ErrSourceHeaderNotAllowed
	}
	return p.parseRollup(c.AllowRollup)
}

func (p *publish) parseRollup(allowed bool) *api.Error {
	v := p.marks.rollup
	switch {
	case len(v) == 0:
	case !allowed:
		return api.ErrRollupFailed.With("rollup not permitted")
	case bytes.EqualFold(v, []byte("sub")):
		p.rollup = rollupSubject
	case bytes.EqualFold(v, []byte("all")):
		p.rollup = rollupAll
	default:
		return api.ErrRollupFailed.With(fmt.Sprintf("rollup value invalid: %q", v))
	}
	return nil
}

// checkExpectations compares what the publisher believes of the stream with what is true now.
func (a *apply) checkExpectations(p *publish) *api.Error {
	m := p.marks
	if len(m.expectedSubjSeq) > 0 {
		last := a.lastOn(p)
		if want, ok := parseUint(m.expectedSubjSeq); !ok || want != last {
			return api.ErrWrongLastSequence.With(last)
		}
	} else if len(m.expectedSubject) > 0 {
		return api.ErrExpectedSubjectWithoutSequence
	}
	if len(m.expectedSeq) > 0 {
		last := a.tx.State().LastSeq
		if want, ok := parseUint(m.expectedSeq); !ok || want != last {
			return api.ErrWrongLastSequence.With(last)
		}
	}
	if len(m.expectedMsgID) > 0 && !bytes.Equal(m.expectedMsgID, a.s.lastID) {
		return api.ErrWrongLastMsgID.With(string(a.s.lastID))
	}
	return nil
}

// lastOn is the last sequence on the subject that the publisher's expectation is about, 0 if it has
// no message.
func (a *apply) lastOn(p *publish) uint64 {
	if len(p.marks.expectedSubject) > 0 {
		seq, _ := a.tx.LastSeq(string(p.marks.expectedSubject), 0)
		return seq
	}
	return p.prior.Last
}

// checkRoom refuses what does not fit, where the policy is to discard new messages. An entry that
// makes room for itself, by history or rollup, fits.
func (a *apply) checkRoom(p *publish, r *Result) error {
	c := &a.set.Config
	size := storage.RecordSize(len(p.name), len(p.header), len(p.data))
	if c.MaxBytes > 0 && size > uint64(c.MaxBytes) {
		// Storing it would remove everything, this message included.
		r.Err = api.ErrStoreFailed.With("maximum bytes exceeded")
		return nil
	}
	if c.Discard != api.DiscardNew {
		return nil
	}
	full := c.MaxMsgsPerSubject > 0 && p.prior.Msgs >= uint64(c.MaxMsgsPerSubject)
	if full && c.DiscardNewPerSubject && p.rollup == rollupNone {
		r.Err = api.ErrStoreFailed.With("maximum messages per subject exceeded")
		return nil
	}
	st := a.tx.State()
	evicts := full || p.rollup == rollupAll || p.rollup == rollupSubject && p.prior.Msgs > 0
	if c.MaxMsgs > 0 && st.Msgs >= uint64(c.MaxMsgs) && !evicts {
		r.Err = api.ErrStoreFailed.With("maximum messages exceeded")
		return nil
	}
	if c.MaxBytes <= 0 || st.Bytes+size <= uint64(c.MaxBytes) {
		return nil
	}
	over, freed := st.Bytes+size-uint64(c.MaxBytes), uint64(0)
	if evicts {
		var err error
		if freed, err = a.freedBy(p, full, over); err != nil {
			return err
		}
	}
	if freed < over {
		r.Err = api.ErrStoreFailed.With("maximum bytes exceeded")
	}
	return nil
}

// freedBy is how many bytes the message removes by history or rollup, counted as far as enough.
func (a *apply) freedBy(p *publish, full bool, enough uint64) (freed uint64, err error) {
	if p.rollup == rollupAll {
		return a.tx.State().Bytes, nil
	}
	evicted := p.prior.Msgs
	if p.rollup == rollupNone {
		evicted = 0
		if full {
			evicted = p.prior.Msgs + 1 - uint64(a.set.Config.MaxMsgsPerSubject)
		}
	}
	a.tx.SubjectSeqs(p.name, 0, func(seq uint64) bool {
		if evicted == 0 || freed >= enough {
			return false
		}
		evicted--
		var m storage.Message
		if m, err = a.tx.Load(seq); err != nil {
			err = fmt.Errorf("stream: load message %d: %w", seq, err)
			return false
		}
		freed += m.Size()
		return true
	})
	return freed, err
}

// store writes the message, with all that follows from it.
func (a *apply) store(p *publish, r *Result) error {
	st := a.tx.State()
	msg := storage.Message{
		Seq:     st.LastSeq + 1,
		Time:    max(a.stamp, st.LastTime+1),
		Subject: p.name,
		Header:  p.header,
		Data:    p.data,
	}
	if p.seq != 0 {
		msg.Seq, msg.Time = p.seq, max(p.time, st.LastTime+1)
	}
	if a.unwanted(p.name) {
		return a.pass(p, r, &msg)
	}
	a.setExpiry(&msg, p.ttl)
	if err := a.tx.Append(msg); err != nil {
		return fmt.Errorf("stream: store message %d: %w", msg.Seq, err)
	}
	a.s.events = append(a.s.events, event{seq: msg.Seq, subject: p.name})
	a.rememberID(p.marks.msgID, &msg)
	r.Seq = msg.Seq
	r.Republish = a.set.republish.make(&msg, p.prior.Last)

	if err := a.makeRoom(p, msg.Seq); err != nil {
		return err
	}
	return a.trimTotals()
}

// makeRoom removes the older messages that the new one replaces.
func (a *apply) makeRoom(p *publish, seq uint64) error {
	switch p.rollup {
	case rollupSubject:
		if subject.HasWildcard(p.name) { // So clients purge many keys with one message.
			_, err := a.removeFirst([]string{p.name}, seq, 1<<63)
			return err
		}
		return a.removeSubjectBelow(p.name, seq)
	case rollupAll:
		return a.removeBelow(seq)
	}
	return a.trimHistory(p)
}

// trimHistory removes what the message pushes out of its subject's history.
func (a *apply) trimHistory(p *publish) error {
	n, have := a.set.Config.MaxMsgsPerSubject, p.prior.Msgs+1
	switch {
	case n <= 0 || have <= uint64(n):
		return nil
	case have == uint64(n)+1:
		return a.remove(p.prior.First, p.name)
	}
	return a.trimSubject(p.name, have-uint64(n))
}

// rememberID keeps what later publishes are compared with: the last id, and the ids of the
// deduplication window.
func (a *apply) rememberID(id []byte, msg *storage.Message) {
	if !bytes.Equal(id, a.s.lastID) {
		a.s.lastID = bytes.Clone(id)
		if len(id) > 0 {
			a.tx.SetAux(auxLastID, id)
		} else {
			a.tx.DeleteAux(auxLastID)
		}
	}
	if len(id) > 0 && a.set.Config.DuplicateWindow > 0 {
		a.s.dedup.add(a.tx, id, msg.Seq, msg.Time)
	}
}

// isInteger tells whether b is a decimal integer of any size, perhaps with a sign.
func isInteger(b []byte) bool {
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		b = b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}
