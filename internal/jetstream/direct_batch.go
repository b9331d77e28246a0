package jetstream

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

const (
	batchBytesMax = 64 << 20 // of one answer, unless the request says otherwise
	multiLastMax  = 1024     // subjects in one answer

	// A batch pauses when its client has this much unsent, longer each time, and gives up on one
	// that takes too long in all.
	batchBacklogMax = 4 << 20
	batchPauseMin   = 2 * time.Millisecond
	batchPauseMax   = 256 * time.Millisecond
	batchPausesMax  = 10 * time.Second
	batchFlushed    = 64 // messages between flushes
)

// sequence sends a series of messages to one requester.
type sequence struct {
	*answer
	req     *api.MsgGetRequest
	pending uint64 // messages that match and were not sent
	last    uint64 // the sequence sent last
	left    int    // messages that may still be sent
	bytes   int    // bytes that may still be sent
	sent    int

	pause, paused time.Duration // the last one, and all together
}

func (w *answer) newSequence(req *api.MsgGetRequest, pending uint64) *sequence {
	s := &sequence{answer: w, req: req, pending: pending, left: req.Batch, bytes: req.MaxBytes}
	if s.left <= 0 {
		s.left = math.MaxInt
	}
	if s.bytes <= 0 {
		s.bytes = batchBytesMax
	}
	return s
}

// send sends one message and tells whether there may be more. At least one is always sent.
func (s *sequence) send(msg *storage.Message) (more bool) {
	size := len(msg.Subject) + len(msg.Header) + len(msg.Data)
	if s.sent > 0 && size > s.bytes {
		return false
	}
	if s.pending > 0 {
		s.pending--
	}
	if s.req.NoHeaders && len(s.req.MultiLast) == 0 {
		s.d.h.account.Publish(s.out, s.reply, "", nil, msg.Data)
	} else {
		s.message(msg, func(h []byte) []byte {
			h = stream.AppendUintLine(h, stream.HdrNumPending, s.pending)
			return stream.AppendUintLine(h, stream.HdrLastSequence, s.last)
		})
	}
	s.last = msg.Seq
	s.left--
	s.bytes -= size
	s.sent++
	return s.left > 0 && s.bytes > 0 && s.keepsUp()
}

// keepsUp waits for a requester that is slow, and tells whether to go on.
func (s *sequence) keepsUp() bool {
	if s.sent%batchFlushed != 0 {
		return true
	}
	s.out.Flush()
	if s.out.Backlog() <= batchBacklogMax {
		s.pause = 0
		return true
	}
	s.pause = min(max(2*s.pause, batchPauseMin), batchPauseMax)
	s.paused += s.pause
	time.Sleep(s.pause)
	return s.paused < batchPausesMax && s.d.h.account.Interest(s.reply, "")
}

// end says that the answer is complete.
func (s *sequence) end(upTo uint64) {
	line := "204 EOB\r\n" + stream.HdrNumPending + ": " + strconv.FormatUint(s.pending, 10) +
		"\r\n" + stream.HdrLastSequence + ": " + strconv.FormatUint(s.last, 10)
	if upTo > 0 {
		line += "\r\nNats-UpTo-Sequence: " + strconv.FormatUint(upTo, 10)
	}
	s.status(line)
}

// batch sends messages from a place in the stream on.
func (w *answer) batch(m *stream.Stream, req *api.MsgGetRequest) {
	from := max(req.Seq, 1)
	if req.StartTime != nil {
		var err error
		if from, err = m.SeqAtTime(*req.StartTime); err != nil {
			w.broken(err)
			return
		}
	}
	msg, ok, err := m.Next(req.NextFor, from)
	if err != nil || !ok {
		w.one(&msg, ok, err, false)
		return
	}
	pending, err := m.Count(req.NextFor, msg.Seq)
	if err != nil {
		w.broken(err)
		return
	}
	s := w.newSequence(req, pending)
	for s.send(&msg) {
		msg, ok, err = m.Next(req.NextFor, msg.Seq+1)
		if err != nil {
			w.broken(err)
			return
		}
		if !ok {
			break
		}
	}
	s.end(0)
}

// multiLast sends the newest message of every subject that matches, as of one moment.
func (w *answer) multiLast(m *stream.Stream, req *api.MsgGetRequest) {
	upTo := req.UpToSeq
	if req.UpToTime != nil {
		var err error
		if upTo, err = m.SeqAtTime(*req.UpToTime); err != nil {
			w.broken(err)
			return
		}
		if upTo <= 1 {
			w.status(statusNoResults)
			return
		}
		upTo--
	}
	held, seqs, bound, err := m.MultiLast(req.MultiLast, upTo, multiLastMax)
	if errors.Is(err, stream.ErrTooMany) {
		w.status(statusTooMany)
		return
	}
	if err != nil {
		w.broken(err)
		return
	}
	defer held.Release()
	for len(seqs) > 0 && seqs[0] < req.Seq {
		seqs = seqs[1:]
	}
	if len(seqs) == 0 {
		w.status(statusNoResults)
		return
	}
	s := w.newSequence(req, uint64(len(seqs)))
	for _, seq := range seqs {
		msg, err := held.Load(seq)
		if err != nil { // Damaged or erased: the stream can tell.
			var ok bool
			if msg, ok, err = m.Get(seq); err != nil {
				w.broken(err)
				return
			} else if !ok {
				s.pending--
				continue
			}
		}
		if !s.send(&msg) {
			break
		}
	}
	s.end(bound)
}
