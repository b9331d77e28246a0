package consumer

import (
	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// Start is where a consumer begins, decided once when it is created.
type Start struct {
	Seq  uint64 // first stream sequence to look at
	Snap uint64 // see Cursor; 0 except for last_per_subject
}

// StartOf finds the start that a configuration asks for, in the stream as it is now.
func StartOf(r storage.Reader, cfg *api.ConsumerConfig) Start {
	st := r.State()
	first, end := max(st.FirstSeq, 1), st.LastSeq+1
	filters := Filters(cfg)
	switch cfg.DeliverPolicy {
	case api.DeliverLast:
		return Start{Seq: newest(r, filters, end)}
	case api.DeliverNew:
		return Start{Seq: end}
	case api.DeliverByStartSequence:
		return Start{Seq: max(cfg.OptStartSeq, first)}
	case api.DeliverByStartTime:
		return Start{Seq: max(r.SeqAtTime(cfg.OptStartTime.UnixNano()), first)}
	case api.DeliverLastPerSubject:
		return lastPerSubject(r, filters, first, end)
	}
	return Start{Seq: first}
}

// newest is the sequence of the newest message that matches a filter, end if there is none.
func newest(r storage.Reader, filters []string, end uint64) uint64 {
	if len(filters) == 0 {
		filters = []string{">"}
	}
	var last uint64
	for _, filter := range filters {
		if seq, ok := r.LastSeq(filter, 0); ok {
			last = max(last, seq)
		}
	}
	if last == 0 {
		return end
	}
	return last
}

// lastPerSubject starts at the first message that is the newest of its subject. Where every
// subject has one message only, as in most buckets, it amounts to delivering everything.
func lastPerSubject(r storage.Reader, filters []string, first, end uint64) Start {
	if st := r.State(); st.Msgs == st.Subjects || r.Count(filters, 0, false) == r.Count(filters, 0, true) {
		return Start{Seq: first}
	}
	snap := end - 1
	for seq := first; ; seq++ {
		next, subject, ok := r.NextSeq(filters, seq)
		if !ok {
			return Start{Seq: end}
		}
		if newestBelow(r, subject, next, snap) {
			return Start{Seq: next, Snap: snap}
		}
		seq = next
	}
}
