package stream

import (
	"errors"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
)

// A stream with interest retention keeps a message until every consumer that is to get it has
// acknowledged it, one with work queue retention until its one consumer has. All consumers of such
// a stream are replicated, so that removal is a matter of the log alone.

// consumerCommand runs a command about a replicated consumer.
func (a *apply) consumerCommand(kind Kind, body []byte, r *Result) error {
	if a.set == nil {
		r.Err = api.ErrUnavailable
		return nil
	}
	consumers := &a.s.consumers
	switch kind {
	case KindConsumer:
		e, refused := consumers.Create(a.tx, body, &a.set.Config, a.now())
		if r.Err = refused; refused == nil {
			r.Created = e.Created
		}
	case KindConsumerGone:
		e, refused := consumers.Gone(a.tx, body)
		if r.Err = refused; refused != nil {
			return nil
		}
		r.Created = e.Created
		if a.set.Config.Retention == api.InterestRetention {
			return a.removeSettled()
		}
	case KindConsumerState:
		acked, err := consumers.Apply(a.tx, body)
		if errors.Is(err, consumer.ErrSuperseded) {
			r.Err = api.ErrUnavailable
			return nil
		}
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		if a.set.Config.Retention != api.LimitsRetention {
			return a.removeAcked(acked)
		}
	}
	return nil
}

// removeAcked removes those of the messages that nobody is to get any more.
func (a *apply) removeAcked(acked []uint64) error {
	for _, seq := range acked {
		at, subj, ok := a.tx.NextSeq(nil, seq)
		if !ok || at != seq || !a.s.consumers.Settled(seq, subj) {
			continue
		}
		if err := a.remove(seq, subj); err != nil {
			return err
		}
	}
	return nil
}

// removeSettled removes all messages that nobody is to get any more.
func (a *apply) removeSettled() error {
	for from := uint64(0); ; {
		seq, subj, ok := a.tx.NextSeq(nil, from)
		if !ok {
			return nil
		}
		if a.s.consumers.Settled(seq, subj) {
			if err := a.remove(seq, subj); err != nil {
				return err
			}
		}
		from = seq + 1
	}
}

// unwanted tells whether a message is not worth storing: nobody is there to get it.
func (a *apply) unwanted(subj string) bool {
	return a.set.Config.Retention == api.InterestRetention && !a.s.consumers.Wants(subj)
}

// pass gives a message its sequence without storing it.
func (a *apply) pass(p *publish, r *Result, msg *storage.Message) error {
	if err := a.tx.SkipTo(msg.Seq); err != nil {
		return fmt.Errorf("stream: skip to sequence %d: %w", msg.Seq, err)
	}
	a.rememberID(p.marks.msgID, msg)
	r.Seq = msg.Seq
	return nil
}
