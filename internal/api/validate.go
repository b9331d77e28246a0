package api

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/subject"
)

// Bounds on stream configurations.
const (
	nameBytesMax        = 255
	descriptionBytesMax = 4096
	metadataBytesMax    = 128 << 10
	replicasMax         = 5
	maxAgeMin           = 100 * time.Millisecond
	duplicateWindowMin  = 100 * time.Millisecond
	duplicateWindow     = 2 * time.Minute
	markerTTLMin        = time.Second
)

// Normalize returns a copy of c with every default in place, or the first rule that c breaks. It
// serves create and update alike; pedantic refuses where otherwise a value would be corrected.
// The order of the checks decides which error a client sees when several apply.
func (c StreamConfig) Normalize(pedantic bool) (StreamConfig, *Error) {
	c.Metadata = WithoutServerMetadata(c.Metadata)
	if c.Placement != nil && c.Placement.Cluster == "" && len(c.Placement.Tags) == 0 && c.Placement.Preferred == "" {
		c.Placement = nil
	}
	checks := []func(*StreamConfig, bool) *Error{
		(*StreamConfig).checkTexts,
		(*StreamConfig).normalizeReplicas,
		(*StreamConfig).normalizeLimits,
		(*StreamConfig).normalizeDuplicateWindow,
		(*StreamConfig).checkPolicies,
		(*StreamConfig).normalizeMarkers,
		(*StreamConfig).checkMirror,
		(*StreamConfig).checkSources,
		(*StreamConfig).normalizeSubjects,
		(*StreamConfig).checkTransform,
		(*StreamConfig).normalizeRepublish,
		(*StreamConfig).checkPlacement,
		(*StreamConfig).checkEngine,
		(*StreamConfig).checkSupported,
	}
	for _, check := range checks {
		if err := check(&c, pedantic); err != nil {
			return StreamConfig{}, err
		}
	}
	return c, nil
}

// CheckCreate refuses what only a new stream may not have. c is normalised.
func (c *StreamConfig) CheckCreate() *Error {
	if c.Sealed {
		return invalid("stream configuration for create can not be sealed")
	}
	if c.MirrorDirect && c.Mirror == nil {
		return invalid("stream has no mirror but does have mirror direct")
	}
	return nil
}

// CheckStreamName judges a name by itself.
func CheckStreamName(name string) *Error {
	if name == "" || strings.ContainsAny(name, ".*>/\\ \t\r\n\f") {
		return invalid(`stream name is required and can not contain '.', '*', '>', '\', '/'`)
	}
	if len(name) > nameBytesMax {
		return invalid("stream name is too long, maximum allowed is %d", nameBytesMax)
	}
	return nil
}

func invalid(format string, args ...any) *Error {
	return ErrInvalidConfig.With(fmt.Sprintf(format, args...))
}

func (c *StreamConfig) checkTexts(bool) *Error {
	if err := CheckStreamName(c.Name); err != nil {
		return err
	}
	if len(c.Description) > descriptionBytesMax {
		return invalid("stream description is too long, maximum allowed is %d", descriptionBytesMax)
	}
	size := 0
	for k, v := range c.Metadata {
		size += len(k) + len(v)
	}
	if size > metadataBytesMax {
		return invalid("stream metadata exceeds maximum size of %d bytes", metadataBytesMax)
	}
	return nil
}

func (c *StreamConfig) normalizeReplicas(bool) *Error {
	switch {
	case c.Replicas == 0:
		c.Replicas = 1
	case c.Replicas > replicasMax:
		return invalid("maximum replicas is %d", replicasMax)
	case c.Replicas < 0:
		return ErrReplicasNegative
	}
	return nil
}

// normalizeLimits makes -1 of every limit that is none.
func (c *StreamConfig) normalizeLimits(pedantic bool) *Error {
	maxConsumers, maxMsgSize := int64(c.MaxConsumers), int64(c.MaxMsgSize)
	limits := []struct {
		name  string
		value *int64
	}{
		{"max_msgs", &c.MaxMsgs},
		{"max_msgs_per_subject", &c.MaxMsgsPerSubject},
		{"max_bytes", &c.MaxBytes},
		{"max_msg_size", &maxMsgSize},
		{"max_consumers", &maxConsumers},
	}
	for _, l := range limits {
		if pedantic && *l.value < -1 {
			return ErrPedantic.With(l.name + " must be set to -1")
		}
		if *l.value <= 0 {
			*l.value = -1
		}
	}
	c.MaxConsumers, c.MaxMsgSize = int(maxConsumers), int32(maxMsgSize)

	if c.MaxAge < 0 {
		return invalid("max age can not be negative")
	}
	if c.MaxAge > 0 && c.MaxAge < maxAgeMin {
		return invalid("max age needs to be >= %v", maxAgeMin)
	}
	return nil
}

func (c *StreamConfig) normalizeDuplicateWindow(pedantic bool) *Error {
	if c.DuplicateWindow == 0 && c.Mirror == nil && len(c.Sources) == 0 {
		c.DuplicateWindow = duplicateWindow
		if c.MaxAge > 0 {
			c.DuplicateWindow = min(c.DuplicateWindow, c.MaxAge)
		}
	}
	switch {
	case c.DuplicateWindow < 0:
		return invalid("duplicates window can not be negative")
	case c.MaxAge > 0 && c.DuplicateWindow > c.MaxAge:
		return invalid("duplicates window can not be larger then max age")
	case c.DuplicateWindow > 0 && c.DuplicateWindow < duplicateWindowMin:
		return invalid("duplicates window needs to be >= %v", duplicateWindowMin)
	}
	return nil
}

func (c *StreamConfig) checkPolicies(bool) *Error {
	if c.DenyPurge && c.AllowRollup && c.SubjectDeleteMarkerTTL == 0 {
		return invalid("roll-ups require the purge permission")
	}
	if c.AllowMsgCounter {
		switch {
		case c.Discard == DiscardNew:
			return invalid("counter stream cannot use discard new")
		case c.AllowMsgTTL || c.SubjectDeleteMarkerTTL != 0:
			return invalid("counter stream cannot use message TTLs")
		case c.AllowMsgSchedules:
			return invalid("counter stream cannot use message schedules")
		case c.Retention != LimitsRetention:
			return invalid("counter stream can only use limits retention")
		}
	}
	if c.DiscardNewPerSubject {
		if c.Discard != DiscardNew {
			return invalid("discard new per subject requires discard new policy to be set")
		}
		if c.MaxMsgsPerSubject <= 0 {
			return invalid("discard new per subject requires max msgs per subject > 0")
		}
	}
	return nil
}

// normalizeMarkers turns on what delete markers stand on.
func (c *StreamConfig) normalizeMarkers(pedantic bool) *Error {
	ttl := c.SubjectDeleteMarkerTTL
	switch {
	case ttl < 0:
		return invalid("subject delete marker TTL must not be negative")
	case ttl > 0 && ttl < markerTTLMin:
		return invalid("subject delete marker TTL must be at least 1 second")
	case ttl > 0 && pedantic && !c.AllowMsgTTL:
		return invalid("subject delete marker cannot be set if message TTLs are disabled")
	case ttl > 0 && pedantic && !c.AllowRollup:
		return invalid("subject delete marker cannot be set if roll-ups are disabled")
	case ttl > 0:
		c.AllowMsgTTL, c.AllowRollup, c.DenyPurge = true, true, false
	}
	if c.AllowMsgSchedules && c.Discard == DiscardNew {
		return invalid("message scheduling cannot use discard new")
	}
	if c.PersistMode == AsyncPersist {
		switch {
		case c.Storage != FileStorage:
			return invalid("async persist mode is only supported on file storage")
		case c.Replicas > 1:
			return invalid("async persist mode is not supported on replicated streams")
		case c.AllowAtomicPublish:
			return invalid("async persist mode is not supported with atomic batch publish")
		}
	}
	return nil
}

// checkMirror judges what a mirror may not have besides, and the mirror itself.
func (c *StreamConfig) checkMirror(bool) *Error {
	if c.Mirror == nil {
		return nil
	}
	switch {
	case c.FirstSeq > 0:
		return ErrMirrorFirstSeq
	case len(c.Subjects) > 0:
		return ErrMirrorWithSubjects
	case len(c.Sources) > 0:
		return ErrMirrorWithSources
	case c.AllowMsgCounter:
		return ErrMirrorWithCounters
	case c.AllowAtomicPublish:
		return ErrMirrorWithAtomic
	case c.AllowBatchPublish:
		return ErrMirrorWithBatch
	case c.AllowMsgSchedules:
		return ErrMirrorWithSchedules
	case c.Mirror.Consumer != nil:
		return ErrMirrorConsumerInvalid
	case c.Mirror.FilterSubject != "" && len(c.Mirror.SubjectTransforms) > 0:
		return ErrMirrorFilterAndTransforms
	case c.SubjectDeleteMarkerTTL > 0:
		return invalid("subject delete markers forbidden on mirrors")
	}
	if err := c.Mirror.checkSubjects(ErrMirrorTransformSource, ErrMirrorTransform, ErrMirrorFiltersOverlap); err != nil {
		return err
	}
	if CheckStreamName(c.Mirror.Name) != nil {
		return ErrMirrorNameInvalid
	}
	return nil
}

func (c *StreamConfig) normalizeSubjects(bool) *Error {
	if len(c.Subjects) == 0 {
		if c.Mirror == nil && len(c.Sources) == 0 {
			c.Subjects = []string{c.Name}
		}
		return nil
	}
	for i, s := range c.Subjects {
		if !subject.Valid(s) {
			return invalid("invalid subject")
		}
		if !c.NoAck {
			if err := checkReserved(s); err != nil {
				return err
			}
		}
		if s == subjectAll && c.Replicas > 1 {
			return invalid("capturing all subjects requires replicas of 1")
		}
		for _, earlier := range c.Subjects[:i] {
			if subject.Overlap(earlier, s) {
				return invalid("subject %q overlaps with %q", earlier, s)
			}
		}
	}
	return nil
}

const subjectAll = ">"

// checkReserved refuses subjects that would capture requests to the server itself, whose answers
// an acknowledgement would then be mistaken for. Events may be captured.
func checkReserved(s string) *Error {
	if s == subjectAll {
		return invalid("capturing all subjects requires no-ack to be true")
	}
	for _, reserved := range []string{"$JS.>", "$JSC.>", "$NRG.>"} {
		if subject.Overlap(s, reserved) && !subject.Subset(s, "$JS.EVENT.>") {
			return invalid("subjects that overlap with jetstream api require no-ack to be true")
		}
	}
	if subject.Overlap(s, "$SYS.>") && !subject.Subset(s, "$SYS.ACCOUNT.>") {
		return invalid("subjects that overlap with system api require no-ack to be true")
	}
	return nil
}

func (c *StreamConfig) checkTransform(bool) *Error {
	t := c.SubjectTransform
	if t == nil || t.Source == "" && t.Destination == "" {
		return nil
	}
	switch _, err := subject.NewTransform(t.Source, t.Destination); {
	case errors.Is(err, subject.ErrInvalid):
		return ErrTransformSource.With(err)
	case err != nil:
		return ErrTransformDestination.With(err)
	}
	return nil
}

func (c *StreamConfig) normalizeRepublish(pedantic bool) *Error {
	if c.Republish == nil {
		return nil
	}
	r := *c.Republish // Shared with the caller's copy until here.
	c.Republish = &r
	if r.Source == "" {
		if pedantic {
			return ErrPedantic.With("republish source can not be empty")
		}
		r.Source = subjectAll
	}
	for _, s := range c.Subjects {
		if subject.Overlap(r.Destination, s) {
			return invalid("stream configuration for republish destination forms a cycle")
		}
	}
	if _, err := subject.NewTransform(r.Source, r.Destination); err != nil {
		return invalid("stream configuration for republish with transform from '%s' to '%s' not valid", r.Source, r.Destination)
	}
	return nil
}

func (c *StreamConfig) checkPlacement(bool) *Error {
	if c.Placement != nil && c.Placement.Preferred != "" {
		return invalid("preferred server not permitted in placement")
	}
	return nil
}

// checkSupported refuses, after everything else was found right, what is not built: it must never
// be stored and then ignored. What came with a higher API level is refused by that.
func (c *StreamConfig) checkSupported(bool) *Error {
	switch {
	case c.AllowMsgCounter, c.AllowAtomicPublish, c.AllowMsgSchedules, c.AllowBatchPublish, c.PersistMode != DefaultPersist:
		return ErrRequiredAPILevel
	case c.Mirror != nil && c.Mirror.External != nil:
		return invalid("external mirrors are not supported")
	}
	for _, s := range c.Sources {
		if s.External != nil {
			return invalid("external sources are not supported")
		}
	}
	return nil
}
