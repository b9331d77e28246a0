package consumer

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// Priority groups (ADR-42) choose among the pull requests that wait. With overflow a request may
// say how much must be waiting before it wants any; with prioritized, lower numbers go first; with
// pinned_client one client gets everything until it stays away for too long.

// pins are the pinned clients of a consumer's groups.
type pins struct {
	groups   []pin
	issued   uint64
	deadline int64 // when the earliest pin runs out, 0: never
}

type pin struct {
	group string
	id    string
	since int64
	until int64
}

func (p *pins) of(group string) *pin {
	for i := range p.groups {
		if p.groups[i].group == group {
			return &p.groups[i]
		}
	}
	p.groups = append(p.groups, pin{group: group})
	return &p.groups[len(p.groups)-1]
}

func (p *pins) schedule() {
	p.deadline = 0
	for i := range p.groups {
		p.deadline = earlier(p.deadline, p.groups[i].until)
	}
}

// groupRefusal is the status for a request whose group members do not fit the consumer, empty if
// they do.
func (c *Consumer) groupRefusal(p *Pull) string {
	policy := c.cfg.PriorityPolicy
	switch {
	case (p.MinPending > 0 || p.MinAckPending > 0) && policy != api.PriorityOverflow:
		return "400 Bad Request - Not a Overflow Priority consumer"
	case p.PinID != "" && policy != api.PriorityPinnedClient:
		return "400 Bad Request - Not a Pinned Client Priority consumer"
	case p.Priority < 0 || p.Priority > 9:
		return "400 Bad Request - Priority must be between 0 and 9"
	case policy == api.PriorityNone:
		return ""
	case p.Group == "":
		return "400 Bad Request - Priority Group missing"
	case !slices.Contains(c.cfg.PriorityGroups, p.Group):
		return "400 Bad Request - Invalid Priority Group"
	}
	return ""
}

// admitPinned refuses a request that bears the pin of another time, and prolongs the right one.
func (c *Consumer) admitPinned(w *waiting, t *Turn) bool {
	if c.cfg.PriorityPolicy != api.PriorityPinnedClient || w.PinID == "" {
		return true
	}
	p := c.pins.of(w.Group)
	if p.id != w.PinID {
		t.status(w.Reply, "423 Nats-Pin-Id mismatch", nil)
		return false
	}
	p.until = t.Now + int64(c.cfg.PriorityTimeout)
	c.pins.schedule()
	return true
}

// choose returns the request that gets the next message, nil if none may have it.
func (c *Consumer) choose(t *Turn) *waiting {
	for i := 0; i < len(c.pulls.list); i++ {
		w := c.pulls.list[i]
		switch c.cfg.PriorityPolicy {
		case api.PriorityOverflow:
			if !c.overflows(w) {
				continue
			}
		case api.PriorityPinnedClient:
			switch c.matchPin(w, t) {
			case pinOther:
				continue
			case pinWrong:
				t.status(w.Reply, "423 Nats-Wrong-Pin-Id", w)
				c.pulls.list = slices.Delete(c.pulls.list, i, i+1)
				i--
				continue
			}
		}
		return w
	}
	return nil
}

// overflows tells whether enough is waiting for a request that only wants to help out.
func (c *Consumer) overflows(w *waiting) bool {
	if w.MinPending <= 0 && w.MinAckPending <= 0 {
		return true
	}
	return w.MinPending > 0 && int64(c.pending()) >= w.MinPending ||
		w.MinAckPending > 0 && int64(c.acks.Outstanding()) >= w.MinAckPending
}

type pinMatch uint8

const (
	pinOwn   pinMatch = iota // the pinned client's request
	pinOther                 // of a client that waits for its chance
	pinWrong                 // of a client that was pinned before
)

func (c *Consumer) matchPin(w *waiting, t *Turn) pinMatch {
	p := c.pins.of(w.Group)
	switch {
	case p.id == "" && w.PinID == "":
		c.pins.issued++
		p.id = c.newPin()
		p.since = t.Now
		p.until = t.Now + int64(c.cfg.PriorityTimeout)
		w.PinID = p.id
		c.pins.schedule()
		t.advise(Advisory{Kind: AdvisoryPinned, Group: w.Group, PinID: p.id})
		return pinOwn
	case p.id == w.PinID:
		return pinOwn
	case w.PinID == "":
		return pinOther
	}
	return pinWrong
}

// newPin makes an id that no earlier pin of this consumer had.
func (c *Consumer) newPin() string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d %d", c.stream, c.name, c.created, c.pins.issued)
	return strconv.FormatUint(h.Sum64(), 36) + "-" + strconv.FormatUint(c.pins.issued, 36)
}

// pinOf is the pin that messages for a request bear.
func (c *Consumer) pinOf(w *waiting) string {
	if c.cfg.PriorityPolicy == api.PriorityPinnedClient {
		return w.PinID
	}
	return ""
}

// expirePin lets go of clients that stayed away for too long.
func (c *Consumer) expirePin(t *Turn) {
	if c.pins.deadline == 0 || c.pins.deadline > t.Now {
		return
	}
	for i := range c.pins.groups {
		if p := &c.pins.groups[i]; p.id != "" && p.until <= t.Now {
			c.unpin(p, t)
		}
	}
	c.pins.schedule()
}

// Unpin lets go of a group's pinned client.
func (c *Consumer) Unpin(group string, t *Turn) {
	if p := c.pins.of(group); p.id != "" {
		c.unpin(p, t)
		c.pins.schedule()
	}
}

func (c *Consumer) unpin(p *pin, t *Turn) {
	t.advise(Advisory{Kind: AdvisoryUnpinned, Group: p.group, PinID: p.id})
	*p = pin{group: p.group}
}

func (c *Consumer) groupStates() []api.PriorityGroupState {
	if c.cfg.PriorityPolicy == api.PriorityNone {
		return nil
	}
	var list []api.PriorityGroupState
	for _, group := range c.cfg.PriorityGroups {
		s := api.PriorityGroupState{Group: group}
		if p := c.pins.of(group); p.id != "" {
			since := time.Unix(0, p.since).UTC()
			s.PinnedClientID, s.PinnedTime = p.id, &since
		}
		list = append(list, s)
	}
	return list
}
