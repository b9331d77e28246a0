package broker

import (
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
)

// repliesMax bounds how many messages a client may hold unanswered and still answer.
const repliesMax = 64 << 10

// replies are the reply subjects a client with allow_responses may publish to.
type replies struct {
	mu    sync.Mutex
	known map[string]*right
}

// right is what is left of the right to answer one message.
type right struct {
	left  int       // Negative: no bound.
	until time.Time // Zero: no bound.
}

func (r *replies) note(reply string, rule *auth.Responses) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[string]*right)
	}
	if len(r.known) >= repliesMax {
		r.prune()
	}
	fresh := &right{left: -1}
	if rule.Max > 0 {
		fresh.left = rule.Max
	}
	if rule.TTL > 0 {
		fresh.until = time.Now().Add(rule.TTL)
	}
	r.known[strings.Clone(reply)] = fresh
}

// prune drops what has expired, and should nothing have, any one. r.mu is held.
func (r *replies) prune() {
	now, victim := time.Now(), ""
	for reply, have := range r.known {
		if !have.until.IsZero() && now.After(have.until) {
			delete(r.known, reply)
		}
		victim = reply
	}
	if len(r.known) >= repliesMax {
		delete(r.known, victim)
	}
}

// allow uses up one answer, if there is a right to it.
func (r *replies) allow(reply string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.known[reply]
	if have == nil {
		return false
	}
	if !have.until.IsZero() && time.Now().After(have.until) {
		delete(r.known, reply)
		return false
	}
	if have.left > 0 {
		if have.left--; have.left == 0 {
			delete(r.known, reply)
		}
	}
	return true
}
