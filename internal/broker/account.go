package broker

import (
	"slices"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/subject"
)

// Account is a space of subjects of its own: nothing passes between two accounts unless one
// exports and the other imports it.
type Account struct {
	name    string
	broker  *Broker
	subs    subject.Trie[*Sub]
	watches subject.Trie[*watch] // Keyed by the watched subject.
	clients atomic.Int64
	imports imports
	answers answers

	announcements announcements
}

func newAccount(b *Broker, name string) *Account { return &Account{name: name, broker: b} }

// Name is the name of the account.
func (a *Account) Name() string { return a.name }

// Broker is the broker the account belongs to.
func (a *Account) Broker() *Broker { return a.broker }

// Clients is the number of client connections bound to the account.
func (a *Account) Clients() int { return int(a.clients.Load()) }

// Subscriptions is the number of subscriptions in the account, internal ones included.
func (a *Account) Subscriptions() int { return a.subs.Len() }

// Subscribe makes an internal subscription. fn runs on the publisher's goroutine and must not
// block. The subject must be valid.
func (a *Account) Subscribe(subj, queue string, fn func(*Msg)) *Sub {
	s := &Sub{account: a, subject: subj, queue: queue, fn: fn}
	a.insert(s)
	return s
}

// insert and remove keep the trie and tell the watches that look at the subject.
func (a *Account) insert(s *Sub) {
	a.subs.Insert(s.subject, s.queue, s)
	a.announce(s, 1)
	a.interestChanged(s.subject)
	if a.imports.any.Load() {
		a.shadow(s)
	}
}

func (a *Account) remove(s *Sub) {
	if !a.subs.Remove(s.subject, s.queue, s) {
		return
	}
	a.announce(s, -1)
	a.interestChanged(s.subject)
	if a.imports.any.Load() {
		a.unshadow(s)
	}
}

// Publish routes a message as a client's publish would be, to client and internal subscriptions,
// and returns how many took it. With a nil out it is flushed before Publish returns.
func (a *Account) Publish(out *Batch, subj, reply string, hdr, data []byte) (delivered int) {
	return a.Deliver(out, subj, "", subj, reply, hdr, data)
}

// Deliver sends a message to the subscriptions that match `to`, while the message bears subj. With
// queue "" it goes to all plain subscriptions and one member of each queue group, otherwise to one
// member of that queue group only. With a nil out it is flushed before Deliver returns.
func (a *Account) Deliver(out *Batch, to, queue, subj, reply string, hdr, data []byte) (delivered int) {
	if out != nil {
		return out.route(a, nil, to, queue, Msg{Subject: subj, Reply: reply, Header: hdr, Data: data}, false)
	}
	out = new(Batch)
	defer out.Flush()
	return out.route(a, nil, to, queue, Msg{Subject: subj, Reply: reply, Header: hdr, Data: data}, false)
}

// Interest tells whether a message to the subject would find a subscription; with a queue, whether
// it would find a member of that queue group.
func (a *Account) Interest(subj, queue string) bool {
	if queue == "" {
		return a.subs.Has(subj)
	}
	var r subject.Result[*Sub]
	a.subs.Match(subj, &r)
	return len(r.Group(queue)) > 0
}

// Subscribed tells whether somebody has subscribed to exactly that subject, and not just to a wildcard.
func (a *Account) Subscribed(subj string) bool {
	var r subject.Result[*Sub]
	a.subs.Match(subj, &r)
	for _, list := range r.Plain {
		if slices.ContainsFunc(list, func(s *Sub) bool { return s.subject == subj }) {
			return true
		}
	}
	return false
}

// Imported tells whether messages on the subject pass to another account that exports a service.
func (a *Account) Imported(subj string) bool {
	var r subject.Result[*Sub]
	a.subs.Match(subj, &r)
	for _, list := range r.Plain {
		for _, s := range list {
			if s.relay != nil {
				return true
			}
		}
	}
	return false
}
