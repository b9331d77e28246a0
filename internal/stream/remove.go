package stream

import (
	"errors"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// remove removes one message that is there.
func (a *apply) remove(seq uint64, subj string) error {
	ok, err := a.tx.Remove(seq)
	if err != nil {
		return fmt.Errorf("stream: remove message %d: %w", seq, err)
	}
	if ok {
		a.s.events = append(a.s.events, event{seq: seq, subject: subj, removed: true})
	}
	return nil
}

// removeSeqs removes messages of one subject.
func (a *apply) removeSeqs(subj string, seqs []uint64) error {
	for _, seq := range seqs {
		if err := a.remove(seq, subj); err != nil {
			return err
		}
	}
	return nil
}

// oldest lists up to limit sequences of a subject, those below bound (0: all).
func (a *apply) oldest(subj string, bound, limit uint64) (seqs []uint64) {
	a.tx.SubjectSeqs(subj, 0, func(seq uint64) bool {
		if bound != 0 && seq >= bound || uint64(len(seqs)) == limit {
			return false
		}
		seqs = append(seqs, seq)
		return true
	})
	return seqs
}

// trimSubject removes the n oldest messages of a subject.
func (a *apply) trimSubject(subj string, n uint64) error {
	return a.removeSeqs(subj, a.oldest(subj, 0, n))
}

// removeSubjectBelow removes the messages of a subject before seq.
func (a *apply) removeSubjectBelow(subj string, seq uint64) error {
	return a.removeSeqs(subj, a.oldest(subj, seq, 1<<63))
}

// removeBelow removes all messages before seq.
func (a *apply) removeBelow(seq uint64) error {
	_, err := a.removeFirst(nil, seq, 1<<63)
	return err
}

// removeFirst removes up to limit of the oldest messages that match the filters and are below
// bound (0: no bound), and tells how many there were.
func (a *apply) removeFirst(filters []string, bound, limit uint64) (n uint64, err error) {
	from := a.tx.State().FirstSeq
	for ; n < limit; n++ {
		seq, subj, ok := a.tx.NextSeq(filters, from)
		if !ok || bound != 0 && seq >= bound {
			break
		}
		if err := a.remove(seq, subj); err != nil {
			return n, err
		}
		from = seq + 1
	}
	return n, nil
}

// trimTotals removes the oldest messages until the limits on the whole stream hold.
func (a *apply) trimTotals() error {
	c := &a.set.Config
	if c.Discard != api.DiscardOld || c.MaxMsgs <= 0 && c.MaxBytes <= 0 {
		return nil
	}
	for {
		st := a.tx.State()
		over := c.MaxMsgs > 0 && st.Msgs > uint64(c.MaxMsgs) || c.MaxBytes > 0 && st.Bytes > uint64(c.MaxBytes)
		if !over {
			return nil
		}
		if n, err := a.removeFirst(nil, 0, 1); err != nil || n == 0 {
			return err
		}
	}
}

// trim makes the whole stream obey a new configuration.
func (a *apply) trim() error {
	if n := a.set.Config.MaxMsgsPerSubject; n > 0 {
		err := a.eachSubject(nil, "", func(subj string, s storage.SubjectState) error {
			if s.Msgs <= uint64(n) {
				return nil
			}
			return a.trimSubject(subj, s.Msgs-uint64(n))
		})
		if err != nil {
			return err
		}
	}
	return a.trimTotals()
}

// eachSubject calls fn, which may change the stream, for the subjects that match the filters and are greater than
// after.
func (a *apply) eachSubject(filters []string, after string, fn func(subj string, s storage.SubjectState) error) error {
	const batch = 1024
	type found struct {
		name  string
		state storage.SubjectState
	}
	subjects := make([]found, 0, batch)
	for ; ; after = subjects[len(subjects)-1].name {
		subjects = subjects[:0]
		a.tx.Subjects(filters, after, func(name string, s storage.SubjectState) bool {
			subjects = append(subjects, found{name, s})
			return len(subjects) < batch
		})
		for _, f := range subjects {
			if err := fn(f.name, f.state); err != nil {
				return err
			}
		}
		if len(subjects) < batch {
			return nil
		}
	}
}

// delete removes one message by sequence.
func (a *apply) delete(d Delete, r *Result) error {
	switch {
	case a.set == nil:
		r.Err = api.ErrUnavailable
		return nil
	case a.set.Config.Sealed:
		r.Err = api.ErrSealed
		return nil
	case a.set.Config.DenyDelete:
		r.Err = api.ErrMessageDelete.With("message delete not permitted")
		return nil
	}
	seq, subj, ok := a.tx.NextSeq(nil, d.Seq)
	if !ok || seq != d.Seq { // Commit fails if it could not be told.
		r.Err = api.ErrSequenceNotFound.With(d.Seq)
		return nil
	}
	if d.Erase {
		if _, err := a.tx.Erase(seq); err != nil {
			return fmt.Errorf("stream: erase message %d: %w", seq, err)
		}
		a.s.events = append(a.s.events, event{seq: seq, subject: subj, removed: true})
		return nil
	}
	return a.remove(seq, subj)
}

// purge removes many messages.
func (a *apply) purge(p Purge, r *Result) (err error) {
	switch {
	case a.set == nil:
		r.Err = api.ErrUnavailable
	case p.Seq > 0 && p.Keep > 0:
		r.Err = api.ErrBadRequest
	case a.set.Config.Sealed:
		r.Err = api.ErrSealed
	case a.set.Config.DenyPurge:
		r.Err = api.ErrStreamPurge.With("stream purge not permitted")
	}
	if r.Err != nil || p.Filter != "" && !subject.Valid(p.Filter) {
		return nil
	}
	if p.Most > 0 {
		r.Purged, r.Rest, err = a.purgeSome(p)
		return err
	}
	r.Purged, err = a.purgeMatching(p)
	return err
}

// errEnough ends a walk over subjects.
var errEnough = errors.New("stream: enough")

// purgeSome removes at most so many messages as the purge says, and returns what is left to be done.
func (a *apply) purgeSome(p Purge) (purged uint64, rest *Purge, err error) {
	if p.Seq == 0 {
		p.Seq = a.tx.State().LastSeq + 1
	}
	if p.Filter == "" || p.Filter == ">" {
		purged, err = a.removeFirst(nil, p.Seq, p.Most)
	} else {
		err = a.eachSubject([]string{p.Filter}, p.After, func(subj string, _ storage.SubjectState) error {
			seqs := a.oldest(subj, p.Seq, p.Most-purged)
			purged += uint64(len(seqs))
			if err := a.removeSeqs(subj, seqs); err != nil {
				return err
			}
			if purged == p.Most {
				return errEnough // The same subject comes first again: more of it may be left.
			}
			p.After = subj
			return nil
		})
		if err == errEnough {
			err = nil
		}
	}
	if err != nil || purged < p.Most {
		return purged, nil, err
	}
	return purged, &p, nil
}

func (a *apply) purgeMatching(p Purge) (purged uint64, err error) {
	var filters []string
	if p.Filter != "" && p.Filter != ">" {
		filters = []string{p.Filter}
	}
	limit := uint64(1 << 63)
	if p.Keep > 0 {
		total := a.tx.Count(filters, 0, false)
		if total <= p.Keep {
			return 0, nil
		}
		limit = total - p.Keep
	}
	if filters == nil || p.Keep > 0 && subject.HasWildcard(p.Filter) {
		return a.removeFirst(filters, p.Seq, limit)
	}
	// By subject, so that the cost follows what matches.
	err = a.eachSubject(filters, "", func(subj string, _ storage.SubjectState) error {
		seqs := a.oldest(subj, p.Seq, limit)
		purged += uint64(len(seqs))
		return a.removeSeqs(subj, seqs)
	})
	return purged, err
}
