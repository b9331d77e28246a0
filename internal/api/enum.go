package api

import (
	"encoding/json"
	"fmt"
)

// The enums of configurations. The zero value of each is its default, and what an absent member
// means. In JSON they are strings; a value outside its range fails to marshal.

// RetentionPolicy says what makes a stream forget a message.
type RetentionPolicy uint8

const (
	LimitsRetention    RetentionPolicy = iota // its limits alone
	InterestRetention                         // also: acknowledged by all consumers
	WorkQueueRetention                        // also: acknowledged by one consumer
)

// DiscardPolicy says which message gives way when a stream is full.
type DiscardPolicy uint8

const (
	DiscardOld DiscardPolicy = iota
	DiscardNew
)

// StorageKind is the storage that clients know of. The engine behind file may also be chosen by
// bucket metadata, see package kv.
type StorageKind uint8

const (
	FileStorage StorageKind = iota
	MemoryStorage
)

// Compression of stored messages.
type Compression uint8

const (
	NoCompression Compression = iota
	S2Compression
)

// PersistMode says whether an acknowledgement waits for the disk.
type PersistMode uint8

const (
	DefaultPersist PersistMode = iota
	AsyncPersist
)

// AckPolicy says how messages of a consumer are acknowledged.
type AckPolicy uint8

const (
	AckNone AckPolicy = iota
	AckAll
	AckExplicit
	AckFlowControl
)

// ReplayPolicy says at which pace a consumer delivers stored messages.
type ReplayPolicy uint8

const (
	ReplayInstant ReplayPolicy = iota
	ReplayOriginal
)

// DeliverPolicy says where in the stream a consumer starts.
type DeliverPolicy uint8

const (
	DeliverAll DeliverPolicy = iota
	DeliverLast
	DeliverNew
	DeliverByStartSequence
	DeliverByStartTime
	DeliverLastPerSubject
)

// PriorityPolicy says how pull requests of a priority group are chosen.
type PriorityPolicy uint8

const (
	PriorityNone PriorityPolicy = iota
	PriorityOverflow
	PriorityPinnedClient
	PriorityPrioritized
)

var (
	retentionNames   = []string{"limits", "interest", "workqueue"}
	discardNames     = []string{"old", "new"}
	storageNames     = []string{"file", "memory"}
	compressionNames = []string{"none", "s2"}
	persistNames     = []string{"default", "async"}
	ackNames         = []string{"none", "all", "explicit", "flow_control"}
	replayNames      = []string{"instant", "original"}
	deliverNames     = []string{"all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"}
	priorityNames    = []string{"none", "overflow", "pinned_client", "prioritized"}
)

func (p RetentionPolicy) String() string { return enumName(retentionNames, p) }
func (p DiscardPolicy) String() string   { return enumName(discardNames, p) }
func (k StorageKind) String() string     { return enumName(storageNames, k) }
func (c Compression) String() string     { return enumName(compressionNames, c) }
func (m PersistMode) String() string     { return enumName(persistNames, m) }
func (p AckPolicy) String() string       { return enumName(ackNames, p) }
func (p ReplayPolicy) String() string    { return enumName(replayNames, p) }
func (p DeliverPolicy) String() string   { return enumName(deliverNames, p) }
func (p PriorityPolicy) String() string  { return enumName(priorityNames, p) }

func (p RetentionPolicy) MarshalJSON() ([]byte, error) { return marshalEnum(retentionNames, p) }
func (p DiscardPolicy) MarshalJSON() ([]byte, error)   { return marshalEnum(discardNames, p) }
func (k StorageKind) MarshalJSON() ([]byte, error)     { return marshalEnum(storageNames, k) }
func (c Compression) MarshalJSON() ([]byte, error)     { return marshalEnum(compressionNames, c) }
func (m PersistMode) MarshalJSON() ([]byte, error)     { return marshalEnum(persistNames, m) }
func (p AckPolicy) MarshalJSON() ([]byte, error)       { return marshalEnum(ackNames, p) }
func (p ReplayPolicy) MarshalJSON() ([]byte, error)    { return marshalEnum(replayNames, p) }
func (p DeliverPolicy) MarshalJSON() ([]byte, error)   { return marshalEnum(deliverNames, p) }
func (p PriorityPolicy) MarshalJSON() ([]byte, error)  { return marshalEnum(priorityNames, p) }

func (p *RetentionPolicy) UnmarshalJSON(b []byte) error { return unmarshalEnum(retentionNames, p, b) }
func (p *DiscardPolicy) UnmarshalJSON(b []byte) error   { return unmarshalEnum(discardNames, p, b) }
func (k *StorageKind) UnmarshalJSON(b []byte) error     { return unmarshalEnum(storageNames, k, b) }
func (c *Compression) UnmarshalJSON(b []byte) error     { return unmarshalEnum(compressionNames, c, b) }
func (m *PersistMode) UnmarshalJSON(b []byte) error     { return unmarshalEnum(persistNames, m, b) }
func (p *AckPolicy) UnmarshalJSON(b []byte) error       { return unmarshalEnum(ackNames, p, b) }
func (p *ReplayPolicy) UnmarshalJSON(b []byte) error    { return unmarshalEnum(replayNames, p, b) }
func (p *PriorityPolicy) UnmarshalJSON(b []byte) error  { return unmarshalEnum(priorityNames, p, b) }

// UnmarshalJSON also takes "undefined", which old clients send for the default.
func (p *DeliverPolicy) UnmarshalJSON(b []byte) error {
	if string(b) == `"undefined"` {
		*p = DeliverAll
		return nil
	}
	return unmarshalEnum(deliverNames, p, b)
}

func enumName[E ~uint8](names []string, e E) string {
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("unknown(%d)", uint8(e))
}

func marshalEnum[E ~uint8](names []string, e E) ([]byte, error) {
	if int(e) >= len(names) {
		return nil, fmt.Errorf("can not marshal %d", uint8(e))
	}
	return []byte(`"` + names[e] + `"`), nil
}

func unmarshalEnum[E ~uint8](names []string, e *E, b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		for i, name := range names {
			if s == name {
				*e = E(i)
				return nil
			}
		}
	}
	return &enumError{raw: string(b)}
}

// enumError is an unknown enum string; its text is what clients see.
type enumError struct{ raw string }

func (e *enumError) Error() string { return fmt.Sprintf("can not unmarshal %q", e.raw) }
