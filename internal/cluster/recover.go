package cluster

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A cluster that has lost the majority of its servers for good can go on from the directory of one that is
// left: offline, that one becomes a cluster of its own, with all that it has. The new cluster has another id,
// which every greeting between servers carries: whatever is left of the old one can never speak to it.
//
// The steps, each durable before the next one:
//
//	the mark: no server starts on the directory until all is done
//	-> every group's machine executes its whole log, and has this server as the only member; meta's is the last
//	-> another log, of the new cluster, in which each group begins where its machine is
//	-> the logs change places -> the identity names the new cluster -> the mark goes
//
// Until the logs change places all of it can be done again from the beginning; afterwards only the rest is left.
const (
	recoveryMark = "recovery"
	walDir       = "wal"
	walFresh     = "wal.new"
	walOld       = "wal.old"
)

// errRecovering refuses a directory whose recovery has not ended.
var errRecovering = errors.New(`a recovery of this directory was begun and did not end: run "cleat cluster recover" again`)

// Recovery is what a server can go on with alone.
type Recovery struct {
	Server  string            `json:"server"`
	Cluster string            `json:"cluster"` // id of the new cluster, "" if nothing was changed
	Former  string            `json:"former"`  // of the old one
	Removed []string          `json:"removed"` // names of the servers that are given up
	Streams []RecoveredStream `json:"streams"`
}

// RecoveredStream is what there is of one stream.
type RecoveredStream struct {
	Account  string `json:"account"`
	Stream   string `json:"stream"`
	Outcome  string `json:"outcome"` // one of the constants below
	Messages uint64 `json:"messages"`
	LastSeq  uint64 `json:"last_sequence"`
	Why      string `json:"why"` // of what is lost
}

// What becomes of a stream.
const (
	OutcomeKept  = "kept"
	OutcomeEmpty = "empty" // kept in memory: it begins anew
	OutcomeLost  = "lost"
)

// recovery is the state of a recovery.
type recovery struct {
	c    *Cluster
	mark struct {
		Cluster uint64 `json:"cluster"` // id of the new cluster
	}
	machine *meta.Machine
	kept    []*Stream
	updates []wal.Update // with which the groups begin in the new log
	report  *Recovery
}

// Recover makes the server of a directory a cluster of its own if accept is set; otherwise it only says what
// there is. The server must not run.
func Recover(o Options, accept bool) (report *Recovery, err error) {
	c := New(o)
	r := &recovery{c: c, report: &Recovery{Removed: []string{}, Streams: []RecoveredStream{}}}
	defer func() {
		if err = errors.Join(err, c.Close()); err != nil {
			report = nil
		}
	}()
	if err = r.open(); err != nil {
		return nil, err
	}
	if r.switching() {
		if !accept {
			return nil, fmt.Errorf("%s: %w", o.Dir, errRecovering)
		}
		return r.report, r.finish()
	}
	if err = c.founding.load(); err != nil {
		return nil, err
	}
	if err = c.openFiles(c.id); err != nil {
		return nil, err
	}
	if c.metaEngine, err = c.stores[storeMeta].Open("meta", storage.Options{}); err != nil {
		return nil, fmt.Errorf("open the meta group: %w", err)
	}
	if err = r.check(!accept); err != nil || !accept {
		return r.report, err
	}
	return r.report, r.do()
}

// open locks the directory and reads whose it is.
func (r *recovery) open() (err error) {
	c, o := r.c, r.c.opts
	if _, err = o.FS.Stat(filepath.Join(o.Dir, identityFile)); err != nil {
		return fmt.Errorf("%s is not the directory of a server: %w", o.Dir, err)
	}
	if c.lock, err = o.FS.Lock(filepath.Join(o.Dir, "lock")); err != nil {
		return fmt.Errorf("%s is in use: stop the server first (%w)", o.Dir, err)
	}
	if c.id, err = loadIdentity(o.FS, o.Dir); err != nil {
		return err
	}
	if c.id.blank() {
		return fmt.Errorf("the server of %s belongs to no cluster: there is nothing to recover", o.Dir)
	}
	r.report.Former = fmt.Sprintf("%016x", c.id.cluster)
	text, err := readFile(o.FS, filepath.Join(o.Dir, recoveryMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r.mark)
	}
	return err
}

// switching tells whether an earlier recovery came as far as to exchange the logs.
func (r *recovery) switching() bool {
	_, err := r.c.opts.FS.Stat(filepath.Join(r.c.opts.Dir, walOld))
	return r.mark.Cluster != 0 && (err == nil || r.c.id.cluster == r.mark.Cluster)
}

// check executes what is in the meta group's log on a copy of its state, to see whether the server may go on
// alone, and with what.
func (r *recovery) check(streams bool) error {
	c := r.c
	e, err := c.stores[storeMemory].Open("meta", storage.Options{})
	if err != nil {
		return err
	}
	if c.metaEngine.Applied().Index > 0 {
		var state bytes.Buffer
		if _, err = c.metaEngine.WriteSnapshot(&state); err != nil {
			return err
		}
		if err = e.InstallSnapshot(&state); err != nil {
			return err
		}
	}
	_, err = r.metaAlone(e, func(replica.Entry) error {
		if err := r.checkServers(); err != nil || !streams {
			return err
		}
		r.look()
		return nil
	})
	return errors.Join(err, e.Close())
}

// metaAlone opens the meta group's machine on an engine and makes this server its only member.
func (r *recovery) metaAlone(e storage.Engine, end func(replica.Entry) error) (u wal.Update, err error) {
	first, begin := r.c.metaBegin(r.c.id, nil)
	if r.machine, err = meta.New(e, begin, first); err == nil {
		u, err = replica.Alone(r.c.log, meta.MetaGroup, r.c.id.member, r.machine, end)
	}
	if err != nil {
		err = fmt.Errorf("the meta group: %w", err)
	}
	return u, err
}

// checkServers tells whether there are others to go on without.
func (r *recovery) checkServers() error {
	self := r.machine.Server(r.c.id.server)
	switch {
	case self == nil:
		return errors.New("the server had not received the state of its cluster yet: there is nothing to recover")
	case self.Removed:
		return fmt.Errorf("server %q was removed from its cluster: what it has is not the latest", self.Name)
	}
	r.report.Server = self.Name
	for _, s := range r.machine.Servers() {
		if s != self {
			r.report.Removed = append(r.report.Removed, s.Name)
		}
	}
	if len(r.report.Removed) == 0 && r.mark.Cluster == 0 {
		return fmt.Errorf("server %q is the only one of its cluster: there is nothing to recover; start it", self.Name)
	}
	return nil
}

// look says what can be kept, and opens that.
func (r *recovery) look() {
	for _, a := range r.machine.Streams("") {
		r.report.Streams = append(r.report.Streams, r.lookAt(a))
	}
}

// lookAt opens this server's replica of a stream, if there is one.
func (r *recovery) lookAt(a *meta.Stream) RecoveredStream {
	found := RecoveredStream{Account: a.Account, Stream: a.Config.Name, Outcome: OutcomeLost}
	self, has := a.On(r.c.id.server)
	switch {
	case storeOf(&a.Config) == storeMemory:
		found.Outcome = OutcomeEmpty
		return found
	case a.GivenUp:
		found.Why = "it was given up earlier"
		return found
	case !has:
		found.Why = "the server has no replica of it"
		return found
	}
	s := &Stream{key: meta.Key{Account: a.Account, Name: a.Config.Name}}
	s.group = newGroup(r.c, wal.GroupID(a.Group), nil, s)
	s.assign.Store(a)
	l := &local{id: self.ID, kind: storeOf(&a.Config), name: engineName(s.id, self.ID)}
	if err := r.openReplica(s, l); err != nil {
		if l.engine != nil {
			err = errors.Join(err, l.engine.Close())
		}
		found.Why = err.Error()
		return found
	}
	s.local.Store(l)
	r.c.streams[s.key] = s // So that it is closed with the rest.
	r.kept = append(r.kept, s)
	st := l.engine.State()
	found.Outcome, found.Messages, found.LastSeq = OutcomeKept, st.Msgs, st.LastSeq
	return found
}

func (r *recovery) openReplica(s *Stream, l *local) error {
	if err := cmp.Or(r.c.wasLost[l.name], r.c.wasBlind[l.name]); err != nil {
		return err
	}
	if st, ok := r.c.log.State(s.id); !ok && st.Damage == nil || ok && st.Last == 0 && st.Damage == nil {
		return errors.New("the server's replica had not received anything yet")
	}
	store, err := r.c.store(l.kind)
	if err != nil {
		return err
	}
	if l.engine, err = store.Open(l.name, storage.Options{}); err != nil {
		return err
	}
	var begin replica.Entry
	if a := s.Assignment(); a.Founded(l.id) {
		begin = genesisEntry(a.Genesis)
	}
	if l.machine, err = stream.Open(l.engine, begin); err != nil {
		return err
	}
	if st, _ := r.c.log.State(s.id); l.machine.Applied().Index+1 < st.First {
		return fmt.Errorf("%w: its storage ends at log entry %d and its log begins at %d", replica.ErrLost, l.machine.Applied().Index, st.First)
	}
	return nil
}

// do carries it out.
func (r *recovery) do() error {
	c, o := r.c, r.c.opts
	r.mark.Cluster = cmp.Or(r.mark.Cluster, randomID())
	text, err := json.Marshal(r.mark)
	if err != nil {
		return err
	}
	if err := writeFileAtomically(o.FS, o.Dir, recoveryMark, text); err != nil {
		return fmt.Errorf("mark that the recovery has begun: %w", err)
	}
	if err := r.stayAlone(); err != nil {
		return err
	}
	if err := r.writeLog(); err != nil {
		return fmt.Errorf("write the log of the new cluster: %w", err)
	}
	if err := c.log.Close(); err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	c.log = nil
	if err := o.FS.Rename(filepath.Join(o.Dir, walDir), filepath.Join(o.Dir, walOld)); err != nil {
		return err
	}
	if err := syncDir(o.FS, o.Dir); err != nil {
		return err
	}
	return r.finish()
}

// stayAlone makes this server the only member of every group that it has a replica of. Which those are is known
// when the meta group's log is executed; that group itself is the last.
func (r *recovery) stayAlone() error {
	u, err := r.metaAlone(r.c.metaEngine, func(at replica.Entry) error {
		r.look()
		if err := r.streamsAlone(); err != nil {
			return err
		}
		command := meta.Recover{Cluster: r.c.id.cluster, Server: r.c.id.server}
		for _, s := range r.kept {
			command.Groups = append(command.Groups, uint64(s.id))
		}
		results, err := r.machine.Apply(at, time.Now().UnixNano(), [][]byte{meta.Encode(meta.KindRecover, &command)})
		if err != nil {
			return err
		}
		if refused := results[0].(*meta.Result).Err; refused != nil {
			return refused
		}
		return nil
	})
	r.updates = append(r.updates, u)
	return err
}

func (r *recovery) streamsAlone() error {
	for _, s := range r.kept {
		l := s.local.Load()
		u, err := replica.Alone(r.c.log, s.id, l.id, l.machine, l.machine.ApplyConf)
		if err != nil {
			return fmt.Errorf("stream %s > %s: %w", s.key.Account, s.key.Name, err)
		}
		r.updates = append(r.updates, u)
		r.count(s, l)
	}
	return nil
}

// count corrects what the report says of a stream whose log has been executed.
func (r *recovery) count(s *Stream, l *local) {
	st := l.engine.State()
	for i := range r.report.Streams {
		if f := &r.report.Streams[i]; f.Account == s.key.Account && f.Stream == s.key.Name {
			f.Messages, f.LastSeq = st.Msgs, st.LastSeq
		}
	}
}

// writeLog makes the log of the new cluster, beside the old one.
func (r *recovery) writeLog() error {
	o, dir := r.c.opts, filepath.Join(r.c.opts.Dir, walFresh)
	if err := o.FS.RemoveAll(dir); err != nil {
		return err
	}
	l, err := wal.Open(wal.Options{FS: o.FS, Dir: dir, ServerID: r.c.id.server, ClusterID: r.mark.Cluster})
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	l.Submit(r.updates, func(err error) { written <- err })
	return errors.Join(<-written, l.Close())
}

// finish puts the new log in its place and makes the server a member of the new cluster. What it does may be
// done already.
func (r *recovery) finish() error {
	c, o := r.c, r.c.opts
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	if _, err := o.FS.Stat(in(walDir)); errors.Is(err, fs.ErrNotExist) {
		if err := o.FS.Rename(in(walFresh), in(walDir)); err != nil {
			return fmt.Errorf("put the new log in its place: %w", err)
		}
	}
	if err := syncDir(o.FS, o.Dir); err != nil {
		return err
	}
	id := c.id
	id.cluster, id.founder = r.mark.Cluster, false
	if err := id.save(o.FS, o.Dir); err != nil {
		return err
	}
	r.report.Cluster = fmt.Sprintf("%016x", id.cluster)
	if err := removeFile(o.FS, filepath.Join(o.Dir, damagedDir, metaMark+lostMarking)); err != nil {
		return err
	}
	if err := removeTies(o.FS, filepath.Join(o.Dir, damagedDir)); err != nil {
		return err // What this server has was chosen.
	}
	if err := c.thawAll(); err != nil {
		return err
	}
	if err := o.FS.RemoveAll(in(walOld)); err != nil {
		return fmt.Errorf("remove the old log: %w", err)
	}
	return errors.Join(removeFile(o.FS, in(recoveryMark)), syncDir(o.FS, o.Dir))
}

// removeFile removes a file that may be gone already.
func removeFile(fsys vfs.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkRecovered refuses to start on a directory whose recovery has not ended.
func (c *Cluster) checkRecovered() error {
	_, err := c.opts.FS.Stat(filepath.Join(c.opts.Dir, recoveryMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(err, fmt.Errorf("%s: %w", c.opts.Dir, errRecovering))
}
