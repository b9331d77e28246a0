package api

import (
	"bytes"
	"encoding/json"

	"github.com/cleatkv/cleat/internal/subject"
)

// CheckUpdate judges whether a stream may change from one normalised configuration to another, and
// completes the new one with what follows from the change.
func CheckUpdate(old, updated *StreamConfig) *Error {
	const cannot = "stream configuration update can not "
	workqueue := old.Retention == WorkQueueRetention || updated.Retention == WorkQueueRetention
	switch {
	case old.Name != updated.Name:
		return invalid("stream configuration name must match original")
	case old.Storage != updated.Storage, old.Engine() != updated.Engine():
		return invalid(cannot + "change storage type")
	case old.Retention != updated.Retention && workqueue:
		return invalid(cannot + "change retention policy to/from workqueue")
	case old.Sealed && !updated.Sealed:
		return invalid(cannot + "unseal a sealed stream")
	case old.DenyDelete && !updated.DenyDelete && !updated.Sealed:
		return invalid(cannot + "cancel deny message deletes")
	case old.DenyPurge && !updated.DenyPurge && !updated.Sealed:
		return invalid(cannot + "cancel deny purge")
	case updated.Mirror != nil && !jsonEqual(old.Mirror, updated.Mirror):
		return ErrMirrorNotUpdatable
	case old.AllowMsgTTL && !updated.AllowMsgTTL:
		return invalid("message TTL status can not be disabled")
	case old.AllowMsgCounter != updated.AllowMsgCounter:
		return invalid(cannot + "change message counter setting")
	case old.AllowMsgSchedules && !updated.AllowMsgSchedules:
		return invalid("message schedules can not be disabled")
	case old.PersistMode != updated.PersistMode:
		return invalid(cannot + "change persist mode")
	case old.Replicas != updated.Replicas && !jsonEqual(old.Placement, updated.Placement):
		return ErrMoveAndScale
	}
	if updated.Sealed {
		updated.seal()
	}
	return nil
}

// seal makes the configuration of a stream that nothing enters or leaves any more.
func (c *StreamConfig) seal() {
	c.MaxAge = 0
	c.Discard = DiscardNew
	c.DenyDelete, c.DenyPurge = true, true
	c.AllowRollup = false
}

// ConfigEqual tells whether two normalised configurations are the same to a client: creating a
// stream again is answered like the first time if they are. The server's own metadata does not
// count.
func ConfigEqual(a, b *StreamConfig) bool {
	x, y := *a, *b
	x.Metadata = WithoutServerMetadata(a.Metadata)
	y.Metadata = WithoutServerMetadata(b.Metadata)
	return jsonEqual(x, y)
}

// jsonEqual compares values by what of them a client would see.
func jsonEqual(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// SubjectsOverlap tells whether some subject belongs to both lists.
func SubjectsOverlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if subject.Overlap(x, y) {
				return true
			}
		}
	}
	return false
}
