package stream

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
)

// Auxiliary records of a stream. Package consumer keeps its own below "consumer/".
const (
	auxConfig = "config"  // JSON of Configure
	auxLastID = "last-id" // Nats-Msg-Id of the last message stored, absent if it had none
	auxDedup  = "dedup/"  // + sequence 8 bytes big endian: time varint | Nats-Msg-Id
)

// Stream is the machine of one stream replica. Its owner applies; any goroutine may read.
type Stream struct {
	engine  storage.Engine
	inPlace storage.InPlacer // engine, if it can; nil otherwise

	// mu is held to write while a change becomes visible and observers hear of it, to read by
	// views.
	mu        sync.RWMutex
	observers observers

	settings  atomic.Pointer[settings]
	deadline  atomic.Int64 // see NextDeadline; 0 if there is none
	consumers consumer.Registry

	// The rest belongs to the owner alone.
	dedup   dedup
	lastID  []byte
	ageHead ageHead
	events  []event // of the change in progress
	frozen  storage.Held
	scratch marks
}

// settings is a configuration with what is derived from it.
type settings struct {
	Configure
	republish *republisher
	transform *transformer
	sources   map[string]bool // keys of the sources
}

// Open makes the machine of what the engine holds. The position genesis, where the group's log
// begins, is recorded if the engine is new and the position is not zero; a replica that joins later
// has none and waits for a snapshot.
func Open(engine storage.Engine, genesis replica.Entry) (*Stream, error) {
	s := &Stream{engine: engine}
	s.inPlace, _ = engine.(storage.InPlacer)
	if engine.Applied().Index == 0 && genesis.Index != 0 {
		if err := engine.Begin().Commit(storage.Applied(genesis)); err != nil {
			return nil, fmt.Errorf("stream: record genesis: %w", err)
		}
	}
	return s, s.load()
}

// load derives everything that is kept in memory from the engine.
func (s *Stream) load() error {
	s.lastID, _ = s.engine.Aux(auxLastID)
	if b, ok := s.engine.Aux(auxConfig); ok {
		c, err := decodeConfigure(b)
		if err != nil {
			return fmt.Errorf("stream: recorded configuration: %w", err)
		}
		set, err := newSettings(c)
		if err != nil {
			return fmt.Errorf("stream: recorded configuration: %w", err)
		}
		s.settings.Store(set)
	}
	if err := s.dedup.load(s.engine); err != nil {
		return err
	}
	s.ageHead = ageHead{}
	deadline, err := s.nextDeadline(s.engine, s.settings.Load())
	if err != nil {
		return err
	}
	s.deadline.Store(deadline)
	if err := s.consumers.Load(s.engine); err != nil {
		return err
	}
	// A record that could not be read is not one that is missing.
	return s.engine.Err()
}

// newSettings derives what a configuration implies.
func newSettings(c *Configure) (*settings, error) {
	set := &settings{Configure: *c}
	var err error
	if set.republish, err = newRepublisher(&c.Config); err != nil {
		return nil, err
	}
	if set.transform, err = newTransformer(&c.Config); err != nil {
		return nil, err
	}
	set.sources = make(map[string]bool)
	for _, src := range c.Config.Sources {
		set.sources[src.Key()] = true
	}
	return set, nil
}

// Config is the configuration, nil before the first one was applied. It is not to be modified.
func (s *Stream) Config() *api.StreamConfig {
	if set := s.settings.Load(); set != nil {
		return &set.Config
	}
	return nil
}

// ConfigRevision is the revision of the configuration, 0 before the first one was applied.
func (s *Stream) ConfigRevision() uint64 {
	if set := s.settings.Load(); set != nil {
		return set.Revision
	}
	return 0
}

// Consumers are the replicated consumers of the stream.
func (s *Stream) Consumers() *consumer.Registry { return &s.consumers }

// Created is when the stream was created; the zero time before it is configured.
func (s *Stream) Created() time.Time {
	if set := s.settings.Load(); set != nil {
		return time.Unix(0, set.Created).UTC()
	}
	return time.Time{}
}

// Apply executes the commands of one log entry. See replica.Machine. A verdict that rests on a read
// that failed goes nowhere: such a change can not be committed.
func (s *Stream) Apply(at replica.Entry, stamp int64, commands [][]byte) ([]any, error) {
	tx, locked := s.begin(commands)
	if locked {
		defer s.mu.Unlock()
	}
	a := &apply{s: s, tx: tx, stamp: stamp, set: s.settings.Load()}
	s.events = s.events[:0]
	results := make([]any, len(commands))
	values := make([]Result, len(commands))
	for i, c := range commands {
		results[i] = &values[i]
		if err := a.execute(c, &values[i]); err != nil {
			a.tx.Discard()
			return nil, err
		}
	}
	a.prune()
	deadline, err := s.nextDeadline(a.tx, a.set)
	if err != nil {
		a.tx.Discard()
		return nil, err
	}

	if !locked {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	if err := a.tx.Commit(storage.Applied(at)); err != nil {
		return nil, fmt.Errorf("stream: commit entry %d: %w", at.Index, err)
	}
	s.deadline.Store(deadline)
	if a.set != s.settings.Load() {
		s.settings.Store(a.set)
	}
	s.observers.tell(s.engine, s.events)
	if a.freeze {
		s.TakeFrozen().Release()
		s.frozen = storage.Held{Frozen: s.engine.Freeze(), Stamp: stamp}
	}
	return results, nil
}

// begin starts the change of a log entry. If it is short and nobody observes the stream, it is made in
// place and mu is held from now on: a View that had taken mu would wait for the change, and the change
// for the View.
func (s *Stream) begin(commands [][]byte) (tx storage.Tx, locked bool) {
	if s.inPlace == nil || slices.ContainsFunc(commands, func(c []byte) bool { return len(c) == 0 || Kind(c[0]) != KindPublish }) {
		return s.engine.Begin(), false
	}
	s.mu.Lock()
	if len(s.observers.all) > 0 {
		s.mu.Unlock()
		return s.engine.Begin(), false
	}
	return s.inPlace.BeginInPlace(), true
}

// TakeFrozen gives the state that a Compare command had it hold on to last, once, for the caller to release; its
// Frozen is nil if there is none. Owner only.
func (s *Stream) TakeFrozen() storage.Held {
	f := s.frozen
	s.frozen = storage.Held{}
	return f
}

// apply is one change in progress: one log entry's commands.
type apply struct {
	s     *Stream
	tx    storage.Tx
	stamp int64
	set   *settings // current within the change; nil before the first configuration

	freeze bool // hold on to the state behind the change
}

// execute runs one command. A refusal is a result; an error is damage, and ends the replica.
func (a *apply) execute(command []byte, r *Result) error {
	if len(command) == 0 {
		return errCommand
	}
	kind, body := Kind(command[0]), command[1:]
	switch kind {
	case KindPublish:
		p, err := decodePublish(body)
		if err != nil {
			return err
		}
		return a.publish(p, r)
	case KindDelete:
		d, err := decodeDelete(body)
		if err != nil {
			return err
		}
		return a.delete(d, r)
	case KindPurge:
		p, err := decodePurge(body)
		if err != nil {
			return err
		}
		return a.purge(p, r)
	case KindPurgeSome:
		p, err := decodePurgeSome(body)
		if err != nil {
			return err
		}
		return a.purge(p, r)
	case KindConfigure:
		c, err := decodeConfigure(body)
		if err != nil {
			return err
		}
		return a.configure(c, r)
	case KindExpire:
		return a.expire(r)
	case KindCompare:
		a.freeze = true
		return nil
	case KindConsumer, KindConsumerGone, KindConsumerState:
		return a.consumerCommand(kind, body, r)
	case KindCopied:
		c, err := decodeCopied(body)
		if err != nil {
			return err
		}
		return a.copied(c, r)
	case KindMirrored:
		m, err := decodeMirrored(body)
		if err != nil {
			return err
		}
		return a.mirrored(m, r)
	case KindRestored:
		m, err := decodeMirrored(body)
		if err != nil {
			return err
		}
		return a.restored(m, r)
	}
	return fmt.Errorf("stream: command kind %d is unknown; was the log written by a newer version?", kind)
}

// now is the time of the command in progress. It never goes back behind a message: a new leader's
// clock may be behind the old one's.
func (a *apply) now() int64 { return max(a.stamp, a.tx.State().LastTime) }

// ApplyConf records a membership change, or an empty entry.
func (s *Stream) ApplyConf(at replica.Entry) error {
	return s.engine.Begin().Commit(storage.Applied(at))
}

// Applied is how far the log has been executed.
func (s *Stream) Applied() replica.Entry { return replica.Entry(s.engine.Applied()) }

// Durable is how far a crash would leave the machine at least.
func (s *Stream) Durable() replica.Entry { return replica.Entry(s.engine.Durable()) }

// Checkpoint makes what is applied durable.
func (s *Stream) Checkpoint() error { return s.engine.Checkpoint() }

// WriteSnapshot writes the whole state.
func (s *Stream) WriteSnapshot(w io.Writer) (replica.Entry, error) {
	at, err := s.engine.WriteSnapshot(w)
	return replica.Entry(at), err
}

// InstallSnapshot replaces the whole state. Observers count anew.
func (s *Stream) InstallSnapshot(r io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.engine.InstallSnapshot(r); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	s.observers.replaced(s.engine)
	return nil
}

// configure replaces the configuration and trims the stream to smaller limits.
func (a *apply) configure(c *Configure, r *Result) error {
	if a.set != nil && c.Revision <= a.set.Revision {
		return nil // Proposed twice; the first one counts.
	}
	set, err := newSettings(c)
	if err != nil {
		// Validation lets none of this through; refusing keeps the old configuration.
		r.Err = api.ErrInvalidConfig.With(err)
		return nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("stream: encode configuration: %w", err)
	}
	first := a.set == nil
	a.set = set
	a.tx.SetAux(auxConfig, b)
	a.s.ageHead = ageHead{}
	if first && c.Config.FirstSeq > 1 && a.tx.State().LastSeq == 0 {
		if err := a.tx.SkipTo(c.Config.FirstSeq - 1); err != nil {
			return fmt.Errorf("stream: start at sequence %d: %w", c.Config.FirstSeq, err)
		}
	}
	return a.trim()
}
