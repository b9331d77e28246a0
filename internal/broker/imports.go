package broker

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/subject"
)

// serviceImport passes requests on to another account, and the answers back.
type serviceImport struct {
	here, there *Account
	mapping     mapping
	many        bool
}

func (im *serviceImport) subscribe() *Sub {
	s := &Sub{account: im.here, subject: im.mapping.here, relay: im.request}
	im.here.insert(s)
	return s
}

// request tells whether somebody in the other account took the message.
func (im *serviceImport) request(d *delivery) bool {
	to, ok := im.mapping.toThere.Apply(d.to, 0)
	if !ok {
		return false
	}
	m := *d.msg
	if m.Subject == d.to {
		m.Subject = to
	} else {
		m.Subject = strings.Clone(m.Subject)
	}
	answer := ""
	if m.Reply != "" {
		answer = im.there.answers.expect(im.there, im.here, strings.Clone(m.Reply), im.many)
		m.Reply = answer
	}
	taken := d.batch.route(im.there, d.from, to, "", m, false) > 0
	if !taken && answer != "" {
		im.there.answers.forget(answer)
	}
	return taken
}

// Answers to requests from other accounts go to subjects of this form, which say nothing of who
// asked.
const (
	answerPrefix  = "_R_."
	answersMax    = 64 << 10
	answerTimeMax = 5 * time.Minute
)

// answers are the replies that other accounts wait for from this one.
type answers struct {
	mu      sync.Mutex
	prefix  string // Empty until the first request.
	last    uint64
	waiting map[string]*waiting
}

type waiting struct {
	account *Account
	reply   string
	many    bool
	since   time.Time
}

// expect makes up the subject for the answer to a request from another account.
func (r *answers) expect(here, asker *Account, reply string, many bool) string {
	r.mu.Lock()
	first := r.prefix == ""
	if first {
		r.prefix = answerPrefix + rand.Text() + "."
		r.waiting = make(map[string]*waiting)
	}
	if len(r.waiting) >= answersMax {
		r.prune()
	}
	r.last++
	subj := r.prefix + strconv.FormatUint(r.last, 36)
	r.waiting[subj] = &waiting{account: asker, reply: reply, many: many, since: time.Now()}
	prefix := r.prefix
	r.mu.Unlock()
	if first {
		here.insert(&Sub{account: here, subject: prefix + "*", relay: r.answer, wide: true})
	}
	return subj
}

// prune drops those that waited too long, and should there be none, any one. r.mu is held.
func (r *answers) prune() {
	victim := ""
	for subj, w := range r.waiting {
		if time.Since(w.since) > answerTimeMax {
			delete(r.waiting, subj)
		}
		victim = subj
	}
	if len(r.waiting) >= answersMax {
		delete(r.waiting, victim)
	}
}

func (r *answers) forget(subj string) {
	r.mu.Lock()
	delete(r.waiting, subj)
	r.mu.Unlock()
}

// answer passes an answer on to the account that waits for it.
func (r *answers) answer(d *delivery) bool {
	r.mu.Lock()
	w := r.waiting[d.to]
	if w != nil && !w.many {
		delete(r.waiting, d.to)
	}
	r.mu.Unlock()
	if w == nil {
		return false
	}
	d.own()
	m := *d.msg
	if m.Subject == d.to {
		m.Subject = w.reply
	}
	taken := d.batch.route(w.account, d.from, w.reply, "", m, false) > 0
	if !taken && w.many {
		r.forget(d.to) // Whoever asked has gone.
	}
	return taken
}

// streamImport lets subscriptions here receive messages of another account. Each subscription that
// overlaps the import has a shadow over there, so that interest is seen where messages come from.
type streamImport struct {
	there   *Account
	mapping mapping
}

// importStreams replaces the stream imports and makes the shadows anew.
func (a *Account) importStreams(list []*streamImport) {
	a.imports.mu.Lock()
	had := len(a.imports.list) > 0
	a.imports.list = list
	a.imports.any.Store(len(list) > 0)
	a.imports.mu.Unlock()
	if !had && len(list) == 0 {
		return
	}
	var subs []*Sub
	a.subs.Each(func(s *Sub) { subs = append(subs, s) })
	for _, s := range subs {
		a.unshadow(s)
		a.shadow(s)
	}
}

// imports are the stream imports of an account and the shadows they made.
type imports struct {
	any     atomic.Bool // Whether list has any: spares the lock where there is none.
	mu      sync.Mutex
	list    []*streamImport
	shadows map[*Sub][]*Sub
}

// shadow makes the shadows of a subscription. A shadow may have shadows in turn, but not in an
// account where the chain was already.
func (a *Account) shadow(s *Sub) {
	if s.relay != nil && s.shadowOf == nil || s.remote != nil {
		return // A service import receives requests, not streams; other servers make their own shadows.
	}
	a.imports.mu.Lock()
	var made []*Sub
	list := a.imports.list
	if len(a.imports.shadows[s]) > 0 {
		list = nil // Share and the subscriber met here; the other was first.
	}
	for _, im := range list {
		to, ok := im.mapping.narrow(s.subject)
		if !ok || s.within(im.there) {
			continue
		}
		made = append(made, &Sub{account: im.there, subject: to, queue: s.queue, shadowOf: s, relay: im.pass(s)})
	}
	if len(made) > 0 {
		if a.imports.shadows == nil {
			a.imports.shadows = make(map[*Sub][]*Sub)
		}
		a.imports.shadows[s] = append(a.imports.shadows[s], made...)
	}
	a.imports.mu.Unlock()
	for _, shadow := range made {
		shadow.account.insert(shadow)
	}
	if s.closed.Load() {
		a.unshadow(s) // It was closed meanwhile, perhaps before it had shadows.
	}
}

func (a *Account) unshadow(s *Sub) {
	a.imports.mu.Lock()
	shadows := a.imports.shadows[s]
	delete(a.imports.shadows, s)
	a.imports.mu.Unlock()
	for _, shadow := range shadows {
		shadow.Close()
	}
}

// within tells whether the subscription, or what it is the shadow of, is in the account.
func (s *Sub) within(a *Account) bool {
	for ; s != nil; s = s.shadowOf {
		if s.account == a {
			return true
		}
	}
	return false
}

// pass is how a shadow delivers: to the subscription it stands for, under the name the importer
// gave the subject. A message that bears another subject than it was sent to keeps it.
func (im *streamImport) pass(s *Sub) func(*delivery) bool {
	return func(d *delivery) bool {
		to, ok := im.mapping.toHere.Apply(d.to, 0)
		if !ok || !subject.Match(s.subject, to) {
			return false
		}
		d.own()
		m := *d.msg
		m.Account = s.account
		if m.Subject == d.to {
			m.Subject = to
		}
		next := delivery{batch: d.batch, msg: &m, from: d.from, to: to}
		return next.send(s)
	}
}
