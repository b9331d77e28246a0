package stream

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// The reads below may be called by any goroutine. Each one sees the stream at one moment, except
// where said otherwise. ok is false if there is no such message; an error says that the engine could
// not tell, and what comes with it is no answer.

// Err is the first error that kept the engine from answering, or nil. See storage.Reader.
func (s *Stream) Err() error { return s.engine.Err() }

// Get returns the message with that sequence.
func (s *Stream) Get(seq uint64) (m storage.Message, ok bool, err error) {
	return found(s.engine.Load(seq))
}

// Last returns the newest message whose subject matches the filter.
func (s *Stream) Last(filter string) (m storage.Message, ok bool, err error) {
	for {
		var seq uint64
		if subject.HasWildcard(filter) {
			seq, ok = s.engine.LastSeq(filter, 0)
		} else {
			var st storage.SubjectState
			st, ok = s.engine.Subject(filter)
			seq = st.Last
		}
		if !ok {
			return m, false, s.engine.Err()
		}
		m, ok, err = found(s.engine.Load(seq))
		if ok || err != nil {
			return m, ok, err
		}
		// It was removed between the two steps, most likely by a newer one: look again.
	}
}

// Next returns the first message at or above from whose subject matches the filter.
func (s *Stream) Next(filter string, from uint64) (m storage.Message, ok bool, err error) {
	return s.NextOf(filterList(filter), from)
}

// NextOf is Next for any number of filters.
func (s *Stream) NextOf(filters []string, from uint64) (m storage.Message, ok bool, err error) {
	for {
		seq, _, there := s.engine.NextSeq(filters, from)
		if !there {
			return m, false, s.engine.Err()
		}
		m, ok, err = found(s.engine.Load(seq))
		if ok || err != nil {
			return m, ok, err
		}
		from = seq // Removed meanwhile; what was behind it is still behind it.
	}
}

// SeqAtTime returns the first sequence stored at or after t.
func (s *Stream) SeqAtTime(t time.Time) (uint64, error) {
	return s.engine.SeqAtTime(t.UnixNano()), s.engine.Err()
}

// Count returns the number of messages at or above from whose subject matches the filter.
func (s *Stream) Count(filter string, from uint64) (uint64, error) {
	return s.CountOf(filterList(filter), from)
}

// CountOf is Count for any number of filters.
func (s *Stream) CountOf(filters []string, from uint64) (uint64, error) {
	return s.engine.Count(filters, from, false), s.engine.Err()
}

func found(m storage.Message, err error) (storage.Message, bool, error) {
	if errors.Is(err, storage.ErrNotFound) {
		return m, false, nil
	}
	return m, err == nil, err
}

func filterList(filter string) []string {
	if filter == "" || filter == ">" {
		return nil
	}
	return []string{filter}
}

// ErrTooMany says that more subjects match than MultiLast may return.
var ErrTooMany = errors.New("stream: too many subjects match")

// MultiLast lists, in ascending order, the newest sequence at or below upTo (0: no bound) of every
// subject that matches a filter, and returns the bound that was used. The messages are in held, whatever
// happens to them in the stream; unless there is an error the caller releases it.
func (s *Stream) MultiLast(filters []string, upTo uint64, limit int) (held storage.Frozen, seqs []uint64, bound uint64, err error) {
	failed := s.View(func(r storage.Reader) {
		held = s.Freeze()
		bound = r.State().LastSeq
		if upTo != 0 && upTo < bound {
			bound = upTo
		}
		r.Subjects(filters, "", func(subj string, st storage.SubjectState) bool {
			if st.First > bound {
				return true
			}
			last := st.Last
			if last > bound {
				last, _ = r.LastSeq(subj, bound)
			}
			if len(seqs) == limit {
				err = ErrTooMany
				return false
			}
			seqs = append(seqs, last)
			return true
		})
	})
	if err = errors.Join(failed, held.Err(), err); err != nil {
		held.Release()
		return nil, nil, 0, err
	}
	slices.Sort(seqs)
	return held, seqs, bound, nil
}

// State summarises the stream for a reply; Consumers is for the caller to fill in.
func (s *Stream) State() api.StreamState { return stateOf(s.engine.State()) }

// StateOf is what clients are told of the state that an engine is or was in.
func StateOf(r storage.Reader) api.StreamState { return stateOf(r.State()) }

func stateOf(st storage.State) api.StreamState {
	out := api.StreamState{
		Msgs: st.Msgs, Bytes: st.Bytes, FirstSeq: st.FirstSeq, LastSeq: st.LastSeq,
		FirstTime: timeOf(st.FirstTime), LastTime: timeOf(st.LastTime), NumSubjects: st.Subjects,
	}
	if st.LastSeq == 0 {
		out.FirstSeq = 0 // Nothing was ever stored.
	}
	if st.Msgs > 0 {
		out.NumDeleted = st.LastSeq + 1 - st.FirstSeq - st.Msgs
	}
	return out
}

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// Details is what an information request may ask for besides the state.
type Details struct {
	SubjectsFilter string // list subjects that match, with their numbers of messages
	Offset, Limit  int    // of the subjects
	Deleted        bool   // list the sequences of interior gaps
}

// deletedMax bounds the list of interior gaps in a reply.
const deletedMax = 500_000

// Describe is State with details; total is the number of subjects that match.
func (s *Stream) Describe(d Details) (state api.StreamState, total int, err error) {
	err = s.View(func(r storage.Reader) {
		st := r.State()
		state = stateOf(st)
		if d.SubjectsFilter != "" {
			state.Subjects = make(map[string]uint64)
			r.Subjects([]string{d.SubjectsFilter}, "", func(subj string, ss storage.SubjectState) bool {
				if total >= d.Offset && total < d.Offset+d.Limit {
					state.Subjects[subj] = ss.Msgs
				}
				total++
				return true
			})
		}
		if d.Deleted {
			state.Deleted = gaps(r, st)
		}
	})
	return state, total, err
}

// gaps lists the sequences between the first and the last one that have no message.
func gaps(r storage.Reader, st storage.State) (deleted []uint64) {
	if st.Msgs == 0 || st.LastSeq+1-st.FirstSeq == st.Msgs {
		return nil
	}
	for next := st.FirstSeq; next <= st.LastSeq; {
		seq, _, ok := r.NextSeq(nil, next)
		if !ok {
			seq = st.LastSeq + 1
		}
		for ; next < seq; next++ {
			if len(deleted) == deletedMax {
				return deleted
			}
			deleted = append(deleted, next)
		}
		next = seq + 1
	}
	return deleted
}

// String describes the stream in one line, for tests and logs.
func (s *Stream) String() string {
	st := s.engine.State()
	return fmt.Sprintf("revision %d, msgs %d, bytes %d, seqs %d..%d, subjects %d", s.ConfigRevision(), st.Msgs, st.Bytes, st.FirstSeq, st.LastSeq, st.Subjects)
}
