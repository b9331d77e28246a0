package auth

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/subject"
)

// Rules are the permissions of a user as configuration or a JWT states them.
type Rules struct {
	Publish   Subjects
	Subscribe Subjects // An entry may be "subject queue"; the queue may have wildcards too.
	Responses *Responses
}

// Subjects is a pair of lists: with an allow list only what it covers is allowed, and what the
// deny list covers never is.
type Subjects struct {
	Allow []string
	Deny  []string
}

// Responses lets a client publish to the reply subjects of messages it received.
type Responses struct {
	Max int           // Answers per message; none or negative means no bound.
	TTL time.Duration // How long after the message; zero or negative means no bound.
}

// The defaults of allow_responses where it is merely set to true.
const (
	ResponsesMaxDefault = 1
	ResponsesTTLDefault = 2 * time.Minute
)

// Permissions are compiled Rules. They do not change; a nil *Permissions allows everything.
type Permissions struct {
	rules     Rules
	pubAllow  *subject.Trie[bool]
	pubDeny   *subject.Trie[bool]
	subAllow  []grant
	subDeny   []grant
	responses *Responses
}

// grant is one entry of a subscribe list. An empty queue speaks of the subject as such.
type grant struct{ subject, queue string }

// Compile checks the rules and prepares them for use. No rules at all give nil.
func Compile(r *Rules) (*Permissions, error) {
	if r == nil {
		return nil, nil
	}
	p := &Permissions{rules: *r, responses: r.Responses}
	var err error
	if p.pubAllow, err = compileSubjects(r.Publish.Allow); err != nil {
		return nil, err
	}
	if p.pubDeny, err = compileSubjects(r.Publish.Deny); err != nil {
		return nil, err
	}
	if p.subAllow, err = compileGrants(r.Subscribe.Allow); err != nil {
		return nil, err
	}
	if p.subDeny, err = compileGrants(r.Subscribe.Deny); err != nil {
		return nil, err
	}
	// allow_responses without an allow list means: answers only.
	if p.responses != nil && p.pubAllow == nil {
		p.pubAllow = new(subject.Trie[bool])
	}
	return p, nil
}

func compileSubjects(list []string) (*subject.Trie[bool], error) {
	if len(list) == 0 {
		return nil, nil
	}
	t := new(subject.Trie[bool])
	for _, s := range list {
		if !subject.Valid(s) {
			return nil, fmt.Errorf("auth: permission subject %q is not a valid subject", s)
		}
		t.Insert(s, "", true)
	}
	return t, nil
}

func compileGrants(list []string) ([]grant, error) {
	var grants []grant
	for _, s := range list {
		fields := strings.Fields(s)
		if len(fields) < 1 || len(fields) > 2 || !subject.Valid(fields[0]) {
			return nil, fmt.Errorf("auth: permission subject %q is not a valid subject or subject and queue", s)
		}
		g := grant{subject: fields[0]}
		if len(fields) == 2 {
			if !subject.Valid(fields[1]) {
				return nil, fmt.Errorf("auth: permission queue %q is not valid", fields[1])
			}
			g.queue = fields[1]
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// Rules is what the permissions were made from.
func (p *Permissions) Rules() *Rules {
	if p == nil {
		return nil
	}
	return &p.rules
}

// Responses is the right to answer, nil if there is none.
func (p *Permissions) Responses() *Responses {
	if p == nil {
		return nil
	}
	return p.responses
}

// CanPublish tells whether the lists allow publishing to the subject, answers apart.
func (p *Permissions) CanPublish(subj string) bool {
	if p == nil {
		return true
	}
	if p.pubAllow != nil && !p.pubAllow.Has(subj) {
		return false
	}
	return p.pubDeny == nil || !p.pubDeny.Has(subj)
}

// CanSubscribe tells whether the subscription is allowed. A subscription that is wider than a
// denied subject is allowed; see Filtered.
func (p *Permissions) CanSubscribe(subj, queue string) bool {
	if p == nil {
		return true
	}
	if len(p.subAllow) > 0 && !allowed(p.subAllow, subj, queue) {
		return false
	}
	for _, g := range p.subDeny {
		if !subject.Subset(subj, g.subject) {
			continue
		}
		if g.queue == "" || queue != "" && subject.Match(g.queue, queue) {
			return false
		}
	}
	return true
}

// allowed judges by the allow list. Where entries name queues for the subject, a queue
// subscription must be one of them; elsewhere a plain entry allows any queue.
func allowed(list []grant, subj, queue string) bool {
	plain, named := false, false
	for _, g := range list {
		switch {
		case !subject.Subset(subj, g.subject):
		case g.queue == "":
			plain = true
		case queue != "" && subject.Match(g.queue, queue):
			return true
		default:
			named = true
		}
	}
	return plain && (queue == "" || !named)
}

// Filtered tells whether messages to an allowed subscription must be held against the deny list
// one by one, since the subscription reaches both allowed and denied subjects.
func (p *Permissions) Filtered(subj string) bool {
	return p != nil && slices.ContainsFunc(p.subDeny, func(g grant) bool {
		return g.queue == "" && subject.Overlap(subj, g.subject)
	})
}

// Denies tells whether a message with the subject must not reach the client.
func (p *Permissions) Denies(subj string) bool {
	return p != nil && slices.ContainsFunc(p.subDeny, func(g grant) bool {
		return g.queue == "" && subject.Match(g.subject, subj)
	})
}
