// Package meta is the deterministic machine of the meta group: which streams exist, what they are
// configured to be, which Raft group carries each, and on which servers its replicas are.
//
// It promises that names and subjects are unique in an account, that ids of groups and replicas
// are issued once and never again, and that nothing disappears without a committed command. What
// is inside a stream is not its business; it tells its owner what changed, and the owner
// (package cluster) makes this server match.
package meta

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
)

// MetaGroup is the id of the meta group itself.
const MetaGroup = 1

// firstIssued is where issuing begins: below are the meta group and its first members.
const firstIssued = 100

// Auxiliary records of the engine.
const (
	auxStream = "stream/" // + account + "\x00" + name: JSON of Stream
	auxNext   = "next"    // the last id issued, 8 bytes little endian
)

// Stream is one stream as the meta group knows it. It is never modified: a change makes a new one.
type Stream struct {
	Account  string           `json:"account"`
	Group    uint64           `json:"group"`
	Revision uint64           `json:"revision"` // of Config, from 1
	Created  int64            `json:"created"`  // Unix nanoseconds
	Config   api.StreamConfig `json:"config"`
	Replicas []Replica        `json:"replicas"`

	Genesis []uint64 `json:"genesis"`        // raft ids of the first members
	Epoch   uint64   `json:"epoch"`          // of the last plan
	Lost    []uint64 `json:"lost,omitempty"` // raft ids of replicas that have lost what they held
	Plan    *Plan    `json:"plan,omitempty"` // a change of replicas that is on its way

	// Reformed is the epoch in which the group began anew from one replica, see Reform; 0 for never.
	Reformed uint64 `json:"reformed,omitempty"`

	// GivenUp is set when the cluster was recovered without any replica that has the data. What is left is
	// the configuration, until somebody deletes the stream.
	GivenUp bool `json:"given_up,omitempty"`
}

// Replica is one member of a stream's group.
type Replica struct {
	ID     uint64 `json:"id"` // raft id
	Server uint64 `json:"server"`
}

// Key names a stream.
type Key struct{ Account, Name string }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Account, o.Account), strings.Compare(k.Name, o.Name))
}

// Machine is the state of the meta group. Its owner applies; any goroutine may read.
type Machine struct {
	engine storage.Engine

	mu struct {
		sync.RWMutex
		streams map[Key]*Stream
		servers map[uint64]*Server
		former  map[uint64]Former // by cluster id
		changed []Key             // since the last TakeChanges, in log order
	}
	next uint64 // the last id issued
	now  int64  // time of the last command

	freeze bool // the state behind the log entry that is being executed is to be held on to
	frozen storage.Held
}

// Format is raised with each change after which the same commands leave other records; a new field of what a command
// carries is one, for older servers drop it. Only servers that have the same one compare what they hold: the others
// differ rightly.
const Format = 2

// New opens the machine on what the engine holds. If the engine is new and genesis has a position,
// that is recorded with the first servers; a member that joins later has no genesis and waits for
// a snapshot.
func New(engine storage.Engine, genesis replica.Entry, first []Server) (*Machine, error) {
	m := &Machine{engine: engine}
	if engine.Applied().Index == 0 {
		if genesis.Index == 0 {
			m.mu.streams, m.mu.servers, m.mu.former = make(map[Key]*Stream), make(map[uint64]*Server), make(map[uint64]Former)
			return m, nil
		}
		m.mu.servers = make(map[uint64]*Server)
		tx := engine.Begin()
		tx.SetAux(auxNext, binary.LittleEndian.AppendUint64(nil, firstIssued))
		for i := range first {
			m.putServer(tx, &first[i])
		}
		if err := tx.Commit(storage.Applied(genesis)); err != nil {
			return nil, fmt.Errorf("meta: record genesis: %w", err)
		}
	}
	return m, m.load()
}

// load fills the maps from the engine's records.
func (m *Machine) load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.streams = make(map[Key]*Stream)
	m.mu.servers = make(map[uint64]*Server)
	b, ok := m.engine.Aux(auxNext)
	if !ok || len(b) != 8 {
		return fmt.Errorf("meta: the record of issued ids is missing or malformed")
	}
	m.next = binary.LittleEndian.Uint64(b)
	var err error
	m.engine.AuxRange(auxStream, func(key string, value []byte) bool {
		s := &Stream{}
		if err = json.Unmarshal(value, s); err != nil {
			err = fmt.Errorf("meta: record %q: %w", key, err)
			return false
		}
		k := Key{s.Account, s.Config.Name}
		m.mu.streams[k] = s
		m.mu.changed = append(m.mu.changed, k)
		m.now = max(m.now, s.Created)
		return true
	})
	if err != nil {
		return err
	}
	m.engine.AuxRange(auxServer, func(key string, value []byte) bool {
		s := &Server{}
		if err = json.Unmarshal(value, s); err != nil {
			err = fmt.Errorf("meta: record %q: %w", key, err)
			return false
		}
		m.mu.servers[s.ID] = s
		m.now = max(m.now, s.Joined)
		return true
	})
	if err != nil {
		return err
	}
	return m.loadFormer()
}

// Stream returns a stream, or nil.
func (m *Machine) Stream(k Key) *Stream {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.streams[k]
}

// Streams returns the streams of an account sorted by name; with account "" those of all, sorted
// by account and name.
func (m *Machine) Streams(account string) []*Stream {
	m.mu.RLock()
	all := make([]*Stream, 0, len(m.mu.streams))
	for _, s := range m.mu.streams { // order: sorted below
		if account == "" || s.Account == account {
			all = append(all, s)
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Stream) int {
		return Key{a.Account, a.Config.Name}.compare(Key{b.Account, b.Config.Name})
	})
	return all
}

// TakeChanges returns the keys whose stream came, changed or went since the last call, in order,
// each once. After New these are all streams.
func (m *Machine) TakeChanges() []Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.mu.changed
	m.mu.changed = nil
	seen := make(map[Key]bool, len(keys))
	return slices.DeleteFunc(keys, func(k Key) bool {
		dup := seen[k]
		seen[k] = true
		return dup
	})
}

// Apply executes the commands of one log entry. See replica.Machine.
func (m *Machine) Apply(at replica.Entry, stamp int64, commands [][]byte) ([]any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tx := m.engine.Begin()
	m.freeze = false
	results := make([]any, len(commands))
	for i, c := range commands {
		m.now = max(stamp, m.now+1)
		r, err := m.execute(tx, c)
		if err != nil {
			tx.Discard()
			return nil, err
		}
		results[i] = r
	}
	if err := tx.Commit(storage.Applied(at)); err != nil {
		return nil, err
	}
	if m.freeze {
		m.TakeFrozen().Release()
		m.frozen = storage.Held{Frozen: m.engine.Freeze(), Stamp: stamp}
	}
	return results, nil
}

// TakeFrozen gives the state that a Compare command had it hold on to last, once, for the caller to release; its
// Frozen is nil if there is none. Owner only.
func (m *Machine) TakeFrozen() storage.Held {
	f := m.frozen
	m.frozen = storage.Held{}
	return f
}

// execute runs one command. An error is damage; a refusal is a result.
func (m *Machine) execute(tx storage.Tx, command []byte) (*Result, error) {
	if len(command) == 0 {
		return nil, fmt.Errorf("meta: empty command")
	}
	body := command[1:]
	switch kind := Kind(command[0]); kind {
	case KindCreateStream:
		return decodeAnd(body, func(c *CreateStream) *Result { return m.create(tx, c) })
	case KindUpdateStream:
		return decodeAnd(body, func(c *UpdateStream) *Result { return m.update(tx, c) })
	case KindDeleteStream:
		return decodeAnd(body, func(c *DeleteStream) *Result { return m.remove(tx, c) })
	case KindJoinServer:
		return decodeAnd(body, func(c *JoinServer) *Result { return m.join(tx, c) })
	case KindRemoveServer:
		return decodeAnd(body, func(c *RemoveServer) *Result { return m.removeServer(tx, c) })
	case KindChangeReplicas:
		return decodeAnd(body, func(c *ChangeReplicas) *Result { return m.changeReplicas(tx, c) })
	case KindPlanDone:
		return decodeAnd(body, func(c *PlanDone) *Result { return m.planDone(tx, c) })
	case KindCancelPlan:
		return decodeAnd(body, func(c *CancelPlan) *Result { return m.cancelPlan(tx, c) })
	case KindReplicaLost:
		return decodeAnd(body, func(c *ReplicaLost) *Result { return m.replicaLost(tx, c) })
	case KindCompare:
		m.freeze = true
		return &Result{}, nil
	case KindReform:
		return decodeAnd(body, func(c *Reform) *Result { return m.reform(tx, c) })
	case KindRecover:
		return decodeAnd(body, func(c *Recover) *Result { return m.recover(tx, c) })
	default:
		return nil, fmt.Errorf("meta: command kind %d is unknown; was the log written by a newer version?", kind)
	}
}

func decodeAnd[C any](body []byte, f func(*C) *Result) (*Result, error) {
	c := new(C)
	if err := json.Unmarshal(body, c); err != nil {
		return nil, fmt.Errorf("meta: malformed command: %w", err)
	}
	return f(c), nil
}

// put stores a stream; the caller holds the lock.
func (m *Machine) put(tx storage.Tx, s *Stream) {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("meta: encode stream: %v", err)) // Our own type, always encodable.
	}
	k := Key{s.Account, s.Config.Name}
	tx.SetAux(auxKey(k), b)
	m.mu.streams[k] = s
	m.mu.changed = append(m.mu.changed, k)
}

func auxKey(k Key) string { return auxStream + k.Account + "\x00" + k.Name }

// Issued is the last id that was issued.
func (m *Machine) Issued() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.next
}

// issue gives an id that was never given before.
func (m *Machine) issue(tx storage.Tx) uint64 {
	m.next++
	tx.SetAux(auxNext, binary.LittleEndian.AppendUint64(nil, m.next))
	return m.next
}

// ApplyConf records a membership change of the meta group, or an empty entry.
func (m *Machine) ApplyConf(at replica.Entry) error {
	return m.engine.Begin().Commit(storage.Applied(at))
}

// Applied, Durable, WriteSnapshot and Checkpoint are the engine's.
func (m *Machine) Applied() replica.Entry { return replica.Entry(m.engine.Applied()) }

// Durable is how far a crash would leave the machine at least.
func (m *Machine) Durable() replica.Entry { return replica.Entry(m.engine.Durable()) }

// WriteSnapshot writes the whole state.
func (m *Machine) WriteSnapshot(w io.Writer) (replica.Entry, error) {
	at, err := m.engine.WriteSnapshot(w)
	return replica.Entry(at), err
}

// InstallSnapshot replaces the whole state.
func (m *Machine) InstallSnapshot(r io.Reader) error {
	if err := m.engine.InstallSnapshot(r); err != nil {
		return err
	}
	gone := m.Streams("")
	if err := m.load(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range gone {
		m.mu.changed = append(m.mu.changed, Key{s.Account, s.Config.Name})
	}
	return nil
}

// Checkpoint makes what is applied durable.
func (m *Machine) Checkpoint() error { return m.engine.Checkpoint() }
