package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// Registry is the replicated consumers of one stream: durable ones, and all consumers of a stream
// that removes what is acknowledged. It is a part of the stream's machine and changes only when
// that applies a command. It is kept in auxiliary records of the engine, see record.go; what is
// in memory is always what these say.
//
// Where the stream delivers for a consumer, its Consumer runs ahead of the entry here by what it
// has journaled and not seen applied yet.
//
// The commands are executed by the stream's owner; the other methods may be called by any
// goroutine.
type Registry struct {
	mu      sync.RWMutex // for the entries and their acks
	entries btree.Map[string, *Entry]
	version atomic.Uint64
	changes [changesMax]string // names; that of version v at v modulo changesMax
}

// changesMax is how many changes the registry remembers the names of.
const changesMax = 64

// Version goes up by one whenever a consumer is created, updated or deleted.
func (g *Registry) Version() uint64 { return g.version.Load() }

// ChangedSince returns the names of the consumers that changed after a version, and the version up
// to which that is true. Where they are too many, or everything was replaced, all is set instead.
func (g *Registry) ChangedSince(version uint64) (names []string, now uint64, all bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	now = g.version.Load()
	if now-version > changesMax {
		return nil, now, true
	}
	for v := version + 1; v <= now; v++ {
		names = append(names, g.changes[v%changesMax])
	}
	return names, now, false
}

// changed notes a change of one consumer. g.mu is held.
func (g *Registry) changed(name string) {
	v := g.version.Load() + 1
	g.changes[v%changesMax] = name
	g.version.Store(v)
}

// Entry is one replicated consumer. Everything but the acknowledgements is only replaced, never
// changed.
type Entry struct {
	Config  api.ConsumerConfig
	Created int64 // Unix nanoseconds; together with the name it tells consumers apart
	Start   Start
	acks    *Acks // changed under the registry's lock only
}

// Name is the consumer's name.
func (e *Entry) Name() string { return e.Config.Name }

// Acks returns a copy of a consumer's state as far as the log has been applied, for a Consumer to
// go on from. The copy journals what it does.
func (g *Registry) Acks(e *Entry) *Acks {
	g.mu.Lock() // A copy marks what it shares.
	defer g.mu.Unlock()
	a := e.acks.clone()
	a.journaling = true
	return a
}

// Create is the command that creates or updates a consumer. Config is checked, with its defaults
// and its name filled in. With Fresh nobody who could be asked knew of such a consumer when the
// command was proposed; should there be one by now that differs, whoever made it was first.
type Create struct {
	Config api.ConsumerConfig `json:"config"`
	Action api.ConsumerAction `json:"action,omitempty"`
	Fresh  bool               `json:"fresh,omitempty"`
	From   uint64             `json:"from,omitempty"` // the stream sequence that a consumer of a backup goes on from
}

// Gone is the command that deletes a consumer. With Created it concerns that one only and not a
// later one of the same name.
type Gone struct {
	Name    string `json:"name"`
	Created int64  `json:"created,omitempty"`
}

// Encode returns the body of the command in the log.
func (c *Create) Encode() []byte { return encode(c) }

// Encode returns the body of the command in the log.
func (g *Gone) Encode() []byte { return encode(g) }

func encode(command any) []byte {
	b, err := json.Marshal(command)
	if err != nil {
		panic(fmt.Sprintf("consumer: encode %T: %v", command, err)) // A checked one always encodes.
	}
	return b
}

// Load reads the registry from the engine's records, replacing what is in memory.
func (g *Registry) Load(r storage.Reader) error {
	entries, err := loadEntries(r)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = entries
	g.version.Add(changesMax + 1) // Everything may be another one.
	return nil
}

// Len is the number of replicated consumers.
func (g *Registry) Len() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.entries.Len()
}

// Get returns the entry of that name.
func (g *Registry) Get(name string) (*Entry, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.entries.Get(name)
}

// List returns the consumers in the order of their names.
func (g *Registry) List() []*Entry {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.entries.Values()
}

// Create executes that command. An existing consumer with the same configuration is returned as
// it is.
func (g *Registry) Create(tx storage.Tx, body []byte, stream *api.StreamConfig, stamp int64) (*Entry, *api.Error) {
	var cmd Create
	if err := json.Unmarshal(body, &cmd); err != nil {
		return nil, api.ErrInvalidJSON.With(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, exists := g.entries.Get(cmd.Config.Name)
	if err := CheckAction(cmd.Action, exists, func() bool { return SameConfig(&old.Config, &cmd.Config) }); err != nil {
		return nil, err
	}
	if exists && SameConfig(&old.Config, &cmd.Config) {
		return old, nil
	}
	if exists && cmd.Fresh {
		return nil, api.ErrConsumerNameInUse
	}
	if err := g.checkWorkQueue(&cmd.Config, stream); err != nil {
		return nil, err
	}
	if exists {
		return g.update(tx, old, cmd.Config)
	}
	if stream.MaxConsumers > 0 && g.entries.Len() >= stream.MaxConsumers {
		return nil, api.ErrMaximumConsumers
	}
	return g.add(tx, &cmd, stamp), nil
}

func (g *Registry) add(tx storage.Tx, cmd *Create, stamp int64) *Entry {
	cfg := cmd.Config
	start := StartOf(tx, &cfg)
	if cmd.From > 0 {
		start = Start{Seq: cmd.From}
	}
	e := &Entry{Config: cfg, Created: stamp, Start: start, acks: newAcks(ruleOf(&cfg), start.Seq)}
	g.entries.Set(e.Name(), e)
	g.changed(e.Name())
	e.store(tx)
	e.storeMarks(tx)
	return e
}

func (g *Registry) update(tx storage.Tx, old *Entry, cfg api.ConsumerConfig) (*Entry, *api.Error) {
	if err := CheckUpdate(&old.Config, &cfg); err != nil {
		return nil, err
	}
	e := &Entry{Config: cfg, Created: old.Created, Start: old.Start, acks: old.acks}
	e.acks.setRule(ruleOf(&cfg))
	g.entries.Set(e.Name(), e)
	g.changed(e.Name())
	e.store(tx)
	return e, nil
}

// checkWorkQueue makes sure that no message of a work queue would go to two consumers.
func (g *Registry) checkWorkQueue(cfg *api.ConsumerConfig, stream *api.StreamConfig) *api.Error {
	if stream.Retention != api.WorkQueueRetention {
		return nil
	}
	if cfg.AckPolicy != api.AckExplicit {
		return api.ErrWorkQueueRequiresExplicitAck
	}
	if cfg.DeliverPolicy != api.DeliverAll {
		return api.ErrWorkQueueDeliverAll
	}
	mine := Filters(cfg)
	var err *api.Error
	g.entries.Scan(func(_ string, e *Entry) bool {
		theirs := Filters(&e.Config)
		switch {
		case e.Name() == cfg.Name:
		case len(mine) == 0 || len(theirs) == 0:
			err = api.ErrWorkQueueMultipleUnfiltered
		case overlap(mine, theirs):
			err = api.ErrWorkQueueNotUnique
		}
		return err == nil
	})
	return err
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if subject.Overlap(x, y) {
				return true
			}
		}
	}
	return false
}

// Gone executes that command.
func (g *Registry) Gone(tx storage.Tx, body []byte) (*Entry, *api.Error) {
	var cmd Gone
	if err := json.Unmarshal(body, &cmd); err != nil {
		return nil, api.ErrInvalidJSON.With(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.entries.Get(cmd.Name)
	if !ok || cmd.Created != 0 && cmd.Created != e.Created {
		return nil, api.ErrConsumerNotFound
	}
	e.erase(tx)
	g.entries.Delete(cmd.Name)
	g.changed(cmd.Name)
	return e, nil
}

// ErrSuperseded says that a journal was not executed, since it does not go on from where the consumer is: the
// one before it was lost, or another server delivers for the consumer by now.
var ErrSuperseded = errors.New("consumer: the journal does not go on from where the consumer is")

// Apply executes a journal, see EncodeState, and returns the messages that are acknowledged by it,
// in order, so that the stream may remove what nobody needs any more. A journal of a consumer that
// is gone has no effect.
func (g *Registry) Apply(tx storage.Tx, body []byte) (acked []uint64, err error) {
	name, created, ops, err := decodeState(body)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e, ok := g.entries.Get(name)
	if !ok || e.Created != created {
		return nil, nil
	}
	if o, _, err := nextOp(ops); err == nil && o.kind == opBase && o.seq != e.acks.delivered.Consumer+1 {
		return nil, ErrSuperseded
	}
	settled := func(seq uint64) { acked = append(acked, seq) }
	for len(ops) > 0 {
		var o op
		if o, ops, err = nextOp(ops); err != nil {
			return nil, fmt.Errorf("consumer %q: %w", name, err)
		}
		e.apply(tx, o, settled)
	}
	e.storeMarks(tx)
	return acked, nil
}

// apply executes one op and keeps the records of outstanding messages in step.
func (e *Entry) apply(tx storage.Tx, o op, settled func(uint64)) {
	switch o.kind {
	case opDeliver, opDelay:
		e.acks.apply(o)
		if u, ok := e.acks.pending.Get(o.seq); ok {
			e.storeUnacked(tx, o.seq, u)
		} else if o.kind == opDeliver {
			settled(o.seq)
		}
	case opAck, opGiveUp:
		if _, ok := e.acks.pending.Get(o.seq); ok {
			e.eraseUnacked(tx, o.seq)
		}
		e.acks.apply(o)
		if o.kind == opAck {
			settled(o.seq)
		}
	case opAckAll, opReset:
		var gone []uint64
		e.acks.pending.Scan(func(seq uint64, _ unacked) bool {
			if o.kind == opAckAll && seq > o.seq {
				return false
			}
			gone = append(gone, seq)
			return true
		})
		e.acks.apply(o)
		for _, seq := range gone {
			e.eraseUnacked(tx, seq)
			if o.kind == opAckAll {
				settled(seq)
			}
		}
	default:
		e.acks.apply(o)
	}
}

// Wants tells whether any consumer is to get messages of that subject.
func (g *Registry) Wants(subj string) bool {
	for _, e := range g.List() {
		if e.matches(subj) {
			return true
		}
	}
	return false
}

// Settled tells whether every consumer that is to get the message has acknowledged it, or given it
// up.
func (g *Registry) Settled(seq uint64, subj string) bool {
	for _, e := range g.List() {
		if e.matches(subj) && !e.settled(seq) {
			return false
		}
	}
	return true
}

func (e *Entry) matches(subj string) bool {
	filters := Filters(&e.Config)
	if len(filters) == 0 {
		return true
	}
	for _, f := range filters {
		if subject.Match(f, subj) {
			return true
		}
	}
	return false
}

func (e *Entry) settled(seq uint64) bool {
	if seq < e.Start.Seq {
		return true
	}
	if seq > e.acks.delivered.Stream {
		return false
	}
	_, outstanding := e.acks.pending.Get(seq)
	return !outstanding
}
