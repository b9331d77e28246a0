package stream

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cleatkv/cleat/internal/storage"
)

// expireMax bounds the messages that one Expire command removes, so that a large number of them
// does not hold up everything else. NextDeadline stays in the past until all are gone.
const expireMax = 8192

// ageHead is the oldest message that the stream's max age applies to. Everything before it never
// expires by age. It is found anew whenever that message is gone; seq 0 means not known.
type ageHead struct {
	seq  uint64
	time int64
}

// NextDeadline is the time (Unix nanoseconds) from which an Expire command has something to do; ok
// is false if there is none. Any goroutine may call it.
func (s *Stream) NextDeadline() (at int64, ok bool) {
	at = s.deadline.Load()
	return at, at != 0
}

// nextDeadline finds it in the state that r shows.
func (s *Stream) nextDeadline(r storage.Reader, set *settings) (int64, error) {
	var at int64
	if _, expires, ok := r.NextExpiry(); ok {
		at = expires
	}
	if set == nil || set.Config.MaxAge <= 0 {
		return at, nil
	}
	head, ok, err := s.oldestAging(r)
	if ok {
		if aged := head.time + int64(set.Config.MaxAge); at == 0 || aged < at {
			at = aged
		}
	}
	return at, err
}

// oldestAging finds the oldest message that can expire by age.
func (s *Stream) oldestAging(r storage.Reader) (head ageHead, ok bool, err error) {
	st := r.State()
	if st.Msgs == 0 {
		return ageHead{}, false, nil
	}
	from := max(s.ageHead.seq, st.FirstSeq)
	for {
		seq, _, ok := r.NextSeq(nil, from)
		if !ok {
			return ageHead{}, false, r.Err()
		}
		if seq == s.ageHead.seq {
			return s.ageHead, true, nil
		}
		m, err := r.Load(seq)
		if err != nil {
			return ageHead{}, false, fmt.Errorf("stream: find the oldest message: load message %d: %w", seq, err)
		}
		if m.Expires != storage.NeverExpires {
			s.ageHead = ageHead{seq, m.Time}
			return s.ageHead, true, nil
		}
		from = seq + 1
	}
}

// setExpiry gives a new message its expiry.
func (a *apply) setExpiry(msg *storage.Message, ttl messageTTL) {
	switch {
	case ttl.never:
		msg.Expires = storage.NeverExpires
	case ttl.after > 0:
		c := &a.set.Config
		if marker := c.SubjectDeleteMarkerTTL; ttl.after < marker && c.MaxMsgsPerSubject != 1 {
			// The marker must not outlive messages that came before it.
			ttl.after = marker
			msg.Header = setHeader(msg.Header, hdrTTL, fmt.Sprint(int64(marker/time.Second)))
		}
		msg.Expires = msg.Time + int64(ttl.after)
	}
}

// expire removes what has expired as of the command's stamp, leaving delete markers where the
// configuration wants them.
func (a *apply) expire(r *Result) error {
	if a.set == nil {
		return nil
	}
	now := a.stamp
	for n := 0; n < expireMax; n++ {
		seq, ok, err := a.nextExpired(now)
		if !ok || err != nil {
			return err
		}
		if err := a.expireOne(seq); err != nil {
			return err
		}
		r.Purged++
	}
	return nil
}

// nextExpired finds a message whose time has come.
func (a *apply) nextExpired(now int64) (seq uint64, ok bool, err error) {
	if seq, at, ok := a.tx.NextExpiry(); ok && at <= now {
		return seq, true, nil
	}
	if a.set.Config.MaxAge <= 0 {
		return 0, false, nil
	}
	head, ok, err := a.s.oldestAging(a.tx)
	return head.seq, ok && head.time+int64(a.set.Config.MaxAge) <= now, err
}

func (a *apply) expireOne(seq uint64) error {
	_, subj, ok := a.tx.NextSeq(nil, seq)
	if !ok {
		return errors.Join(a.tx.Err(), fmt.Errorf("stream: message %d is to expire but is not there", seq))
	}
	marked := false
	if a.set.Config.SubjectDeleteMarkerTTL > 0 {
		if s, ok := a.tx.Subject(subj); ok && s.Last == seq {
			m, err := a.tx.Load(seq)
			if err != nil {
				return fmt.Errorf("stream: load message %d: %w", seq, err)
			}
			marked = needsMarker(m.Header)
		}
	}
	if err := a.remove(seq, subj); err != nil {
		return err
	}
	if marked {
		return a.storeMarker(subj)
	}
	return nil
}

// needsMarker tells whether the end of a message with that header is worth telling: that of a marker
// or of a purge is not.
func needsMarker(header []byte) bool {
	return HeaderValue(header, hdrMarkerReason) == nil &&
		!bytes.Equal(HeaderValue(header, hdrKVOperation), []byte("PURGE"))
}

// storeMarker stores a message that says that the last message of the subject expired. It expires
// in turn, without another marker.
func (a *apply) storeMarker(subj string) error {
	ttl := a.set.Config.SubjectDeleteMarkerTTL
	header := HeaderLine +
		hdrMarkerReason + ": MaxAge\r\n" +
		hdrTTL + ": " + ttl.String() + "\r\n" +
		hdrRollup + ": sub\r\n\r\n"
	p := &publish{
		publishParts: publishParts{header: []byte(header)},
		name:         subj,
		marks:        &marks{},
		ttl:          messageTTL{after: ttl},
		rollup:       rollupSubject,
	}
	p.prior, _ = a.tx.Subject(subj)
	return a.store(p, &Result{})
}

// prune forgets what has left the duplicate window.
func (a *apply) prune() {
	if a.set != nil && len(a.s.dedup.byID) > 0 {
		a.s.dedup.prune(a.tx, a.now()-int64(a.set.Config.DuplicateWindow))
	}
}
