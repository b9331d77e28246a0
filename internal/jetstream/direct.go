package jetstream

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

const directPrefix = apiPrefix + "DIRECT.GET."

// Status answers of direct gets. Clients compare some of these texts.
const (
	statusNotFound    = "404 Message Not Found"
	statusNoResults   = "404 No Results"
	statusEmpty       = "408 Empty Request"
	statusBad         = "408 Bad Request"
	statusMalformed   = "408 Malformed Request"
	statusLevel       = "412 Required Api Level"
	statusTooMany     = "413 Too Many Results"
	statusUnavailable = "503 Temporarily Unavailable"
)

// direct answers the direct gets of a stream: the message itself is the answer.
type direct struct {
	h      *hosted
	prefix string // of the subject form
	subs   []*broker.Sub
	failed func() // of one request of another server: told in place of the client that there is no answer
}

func newDirect(h *hosted) part {
	return &direct{h: h, prefix: directPrefix + h.stream.Name() + "."}
}

// updated listens if the configuration allows direct gets. Where there is no replica they are passed
// on to a server that has one.
func (d *direct) updated() {
	switch wanted := d.h.stream.Config().AllowDirect; {
	case wanted && d.subs == nil:
		a := d.h.account
		d.subs = []*broker.Sub{
			a.Subscribe(d.prefix+">", "", d.orElsewhere(d.subjectForm)),
			a.Subscribe(strings.TrimSuffix(d.prefix, "."), "", d.orElsewhere(d.wholeForm)),
		}
	case !wanted:
		d.stop()
	}
}

func (d *direct) leaderChanged() {}
func (d *direct) applied()       {}

func (d *direct) stop() {
	for _, sub := range d.subs {
		sub.Close()
	}
	d.subs = nil
}

// answer is where the answer to one direct get goes.
type answer struct {
	d     *direct
	out   *broker.Batch
	reply string
	op    op // what is counted once one message, or none, was sent
	begun time.Duration
	asked *broker.Msg // the request, while another server may have to answer it
}

// answerOne is for a request for one message.
func (d *direct) answerOne(m *broker.Msg) answer {
	w := answer{d: d, out: m.Out, reply: m.Reply, asked: m}
	if d.h.bucket {
		w.op, w.begun = opGet, sinceEpoch()
	}
	return w
}

func (w *answer) status(line string) {
	if w.reply != "" {
		w.d.h.account.Publish(w.out, w.reply, "", []byte("NATS/1.0 "+line+"\r\n\r\n"), nil)
	}
}

// subjectForm serves DIRECT.GET.<stream>.<subject>: the newest message of the subject. It is what
// every get of a key is.
func (d *direct) subjectForm(m *broker.Msg) {
	subj, noHeaders := m.Subject[len(d.prefix):], false
	if len(m.Data) > 0 || len(m.Header) > 0 {
		var req api.MsgGetRequest
		w := &answer{d: d, out: m.Out, reply: m.Reply}
		if !w.accepts(m, &req) {
			return
		}
		noHeaders, req.NoHeaders = req.NoHeaders, false
		if !isZero(&req) {
			w.status(statusBad)
			return
		}
	}
	d.read(m, func(w *answer, s *stream.Stream) {
		msg, ok, err := s.Last(subj)
		w.one(&msg, ok, err, noHeaders)
	})
}

// wholeForm serves DIRECT.GET.<stream>, whose body says what is wanted.
func (d *direct) wholeForm(m *broker.Msg) {
	w := &answer{d: d, out: m.Out, reply: m.Reply}
	if len(bytes.TrimSpace(m.Data)) == 0 {
		w.status(statusEmpty)
		return
	}
	req := new(api.MsgGetRequest)
	if !w.accepts(m, req) {
		return
	}
	switch {
	case !selects(req) && len(req.MultiLast) == 0 && req.Batch == 0:
		w.status(statusEmpty)
	case conflicting(req) || conflictingDirect(req):
		w.status(statusBad)
	case len(req.MultiLast) > 0:
		d.later(m, func(w *answer, s *stream.Stream) { w.multiLast(s, req) })
	case req.Batch > 0:
		d.later(m, func(w *answer, s *stream.Stream) { w.batch(s, req) })
	default:
		d.read(m, func(w *answer, s *stream.Stream) {
			msg, ok, err := lookup(s, req)
			w.one(&msg, ok, err, req.NoHeaders)
		})
	}
}

// accepts reads a request, leniently; one that is not accepted is answered.
func (w *answer) accepts(m *broker.Msg, req *api.MsgGetRequest) bool {
	if api.CheckLevel(stream.HeaderValue(m.Header, api.RequiredLevelHeader)) != nil {
		w.status(statusLevel)
		return false
	}
	if len(m.Data) > 0 && api.DecodeLenient(m.Data, req) != nil {
		w.status(statusMalformed)
		return false
	}
	return true
}

func isZero(r *api.MsgGetRequest) bool {
	return !selects(r) && r.Batch == 0 && r.MaxBytes == 0 && len(r.MultiLast) == 0 && r.UpToSeq == 0 && r.UpToTime == nil
}

// conflictingDirect is conflicting for what direct gets know besides.
func conflictingDirect(r *api.MsgGetRequest) bool {
	last, next, multi := r.LastFor != "", r.NextFor != "", len(r.MultiLast) > 0
	return r.Batch < 0 || r.MaxBytes < 0 || last && (r.Batch > 0 || multi) || next && multi || r.UpToSeq != 0 && r.UpToTime != nil
}

// read calls fn once the local machine shows every write that was acknowledged before: at once, on
// the publisher's goroutine, if that is known to be so, else on a worker.
func (d *direct) read(m *broker.Msg, fn func(*answer, *stream.Stream)) {
	if m.Reply == "" {
		return
	}
	w := d.answerOne(m)
	if d.mayBeStale(m) {
		d.run(&w, nil, fn)
		return
	}
	if d.cutOff() {
		w.unavailable()
		return
	}
	var wait struct {
		sync.Mutex
		answered, left bool
		err            error
	}
	d.h.stream.ReadIndex(func(err error) {
		wait.Lock()
		left := wait.left
		wait.answered, wait.err = true, err
		wait.Unlock()
		if left {
			w.out = nil // It was the publisher's.
			d.work(w, err, fn)
		}
	})
	wait.Lock()
	wait.left = true
	answered, err := wait.answered, wait.err
	if !answered {
		w.asked = d.keep(m)
	}
	wait.Unlock()
	if answered {
		d.run(&w, err, fn)
	}
}

// keep copies a request that is passed on to another server if this one loses its replica before it can answer.
func (d *direct) keep(m *broker.Msg) *broker.Msg {
	if d.h.svc.elsewhere == nil {
		return nil
	}
	c := *m
	c.Out = nil // It is the publisher's.
	c.Header, c.Data = bytes.Clone(m.Header), bytes.Clone(m.Data)
	return &c
}

// later is read for what is too much for the publisher's goroutine.
func (d *direct) later(m *broker.Msg, fn func(*answer, *stream.Stream)) {
	if m.Reply == "" {
		return
	}
	w := answer{d: d, reply: m.Reply, asked: d.keep(m)}
	if d.mayBeStale(m) {
		d.work(w, nil, fn)
		return
	}
	if d.cutOff() {
		w.unavailable()
		return
	}
	d.h.stream.ReadIndex(func(err error) { d.work(w, err, fn) })
}

// cutOff tells of a request that another replica may answer that this one hardly can: it would find out only when it
// has waited.
func (d *direct) cutOff() bool { return d.failed != nil && d.h.stream.Leader() == 0 }

// work runs fn on a worker.
func (d *direct) work(w answer, err error, fn func(*answer, *stream.Stream)) {
	run := func(out *broker.Batch) {
		w.out = out
		d.run(&w, err, fn)
	}
	if !d.h.svc.jobs.do(run) {
		w.unavailable()
	}
}

// mayBeStale tells whether the answer need not show every acknowledged write: the bucket says so for
// all of its reads, or the request for itself.
func (d *direct) mayBeStale(m *broker.Msg) bool {
	return d.h.stream.Config().StaleReads() || len(m.Header) > 0 && string(stream.HeaderValue(m.Header, api.HeaderReads)) == api.ReadsStale
}

func (d *direct) run(w *answer, err error, fn func(*answer, *stream.Stream)) {
	s := d.h.stream.Machine()
	if err != nil || s == nil { // The replica may have gone meanwhile.
		cs, far := d.h.stream, d.h.svc.elsewhere
		gone := s == nil || d.h.svc.leaving(cs)
		if d.failed != nil || !gone || far == nil || w.asked == nil || !far.forwardDirect(cs, w.asked, attempt{begun: time.Now()}) {
			w.unavailable()
		}
		return
	}
	fn(w, s)
}

// one sends the message that was looked up, or says that there is none.
func (w *answer) one(msg *storage.Message, ok bool, err error, noHeaders bool) {
	switch {
	case err != nil:
		w.broken(err)
	case !ok:
		w.done(resultNotFound)
		w.status(statusNotFound)
	case noHeaders:
		w.done(resultOK)
		w.d.h.account.Publish(w.out, w.reply, "", nil, msg.Data)
	default:
		w.done(resultOK)
		w.message(msg, nil)
	}
}

// done counts the operation, just before its answer is sent.
func (w *answer) done(r opResult) { w.d.h.svc.ops.done(w.op, r, w.begun) }

func (w *answer) unavailable() {
	if w.d.failed != nil {
		w.d.failed()
		return
	}
	w.done(resultUnavailable)
	w.status(statusUnavailable)
}

func (w *answer) broken(err error) {
	h := w.d.h
	h.svc.log.Error("read a message of stream " + h.stream.Account() + " > " + h.stream.Name() + ": " + err.Error())
	w.unavailable()
}

// headerBuffers are reused: the broker copies what it sends.
var headerBuffers = sync.Pool{New: func() any { return new([]byte) }}

// message sends a stored message with the headers that say what it is; more, if given, appends
// further ones.
func (w *answer) message(msg *storage.Message, more func([]byte) []byte) {
	if w.d.failed != nil {
		w.d.failed = nil // The client has a part of its answer.
	}
	buf := headerBuffers.Get().(*[]byte)
	h := stream.AppendWithin((*buf)[:0], msg.Header)
	h = stream.AppendLine(h, stream.HdrStream, w.d.h.stream.Name())
	h = stream.AppendLine(h, stream.HdrSubject, msg.Subject)
	h = stream.AppendUintLine(h, stream.HdrSequence, msg.Seq)
	h = stream.AppendTimeLine(h, stream.HdrTimeStamp, msg.Time)
	if more != nil {
		h = more(h)
	}
	h = append(h, "\r\n"...)
	w.d.h.account.Publish(w.out, w.reply, "", h, msg.Data)
	*buf = h
	headerBuffers.Put(buf)
}
