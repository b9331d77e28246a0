package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// A replica that is lost asks the servers of the other members what there is. If it can be mended (see
// replica.Mend) it is. If not, and one of them leads, there is a majority without it, and the meta group is told to
// replace it. Until then what it has stays where it is: if there is no majority of undamaged replicas it is
// needed.

const (
	suspectMarking = ".suspect" // of a replica that is lost as far as its log is damaged, and it is known what is
	mendEvery      = 500 * time.Millisecond
	mendFor        = 3 * time.Second // how long that is tried before the replica is replaced, if it can be
	mendsMax       = 256             // answers that wait for the reconciler
)

// mendFrame asks on behalf of a lost replica, or answers.
type mendFrame struct {
	Group  uint64       `json:"group"`
	Member uint64       `json:"member"` // who asks; in an answer, who answers
	Ask    *replica.Ask `json:"ask,omitempty"`

	Blind bool `json:"blind,omitempty"` // who asks is not lost, but has no state
	State bool `json:"state,omitempty"` // it wants that of who is asked; in an answer, it did

	// Remains is what the member has, of a group that nobody leads; see reform.go.
	Remains *replica.Remains `json:"remains,omitempty"`

	Answer  bool        `json:"answer,omitempty"`
	Sending bool        `json:"sending,omitempty"` // the state
	Leads   bool        `json:"leads,omitempty"`   // with a majority
	Entries []wal.Entry `json:"entries,omitempty"`
	Lacks   bool        `json:"lacks,omitempty"` // the first entry, for good
	Conf    []byte      `json:"conf,omitempty"`
}

// suspect tells whether all that a replica lost is entries of its log of which is known which.
func suspect(err error) bool {
	var d *wal.DamageError
	return errors.As(err, &d) && !d.Unknown
}

// askForLost asks on behalf of all replicas that are lost, or have lost their state. The reconciler calls it now and then.
func (c *Cluster) askForLost() {
	for _, s := range c.local() {
		if !s.gone.Load() {
			c.tendStuck(s)
		}
		if l := s.lost.Load(); l != nil && !s.gone.Load() {
			c.beginMend(s, l)
			c.askMembers(s, l)
		} else if b := s.blind.Load(); b != nil && !s.gone.Load() {
			c.tendBlind(s, b)
		}
	}
}

// beginMend reads what is left of the log of a suspect.
func (c *Cluster) beginMend(s *Stream, lost *loss) {
	l := s.local.Load()
	switch {
	case !suspect(lost.cause):
		s.mend = nil // It lost more meanwhile.
		return
	case s.mend != nil || l == nil || l.id != lost.id:
		return
	}
	if st, ok := c.log.State(s.id); !ok || st.Damage == nil {
		return // It was found while the replica ran; a start will see what is damaged.
	}
	m, err := replica.NewMend(c.log, s.id, l.id, l.machine.Applied())
	if err != nil {
		c.lose(s, l.id, fmt.Errorf("%w: %w", replica.ErrLost, err))
		return
	}
	s.mend = m
	c.tryMend(s)
}

func (c *Cluster) askMembers(s *Stream, l *loss) {
	f := mendFrame{Group: uint64(s.id), Member: l.id}
	if s.mend != nil {
		if a, more := s.mend.Wants(); more {
			f.Ask = &a
		}
	}
	for _, m := range s.members() {
		if m.Server != c.id.server {
			c.sendMend(m.Server, &f)
		}
	}
}

func (c *Cluster) sendMend(server uint64, f *mendFrame) {
	b, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode %T: %v", f, err)) // Our own type, always encodable.
	}
	// Asked again soon.
	_ = c.send(server, peer.LaneBulk, kindMend, func(dst []byte) []byte { return append(dst, b...) })
}

// receiveMend takes a question, or an answer, which is the reconciler's.
func (c *Cluster) receiveMend(from uint64, payload []byte) error {
	var f mendFrame
	if err := json.Unmarshal(payload, &f); err != nil {
		return fmt.Errorf("malformed question for a lost replica: %w", err)
	}
	g := c.group(wal.GroupID(f.Group))
	switch {
	case g == nil || g.stream == nil || g.server(f.Member) != from:
	case f.Answer || f.Remains != nil:
		select {
		case c.mends <- &f:
		default: // Asked again soon.
		}
	default:
		c.answerMend(g, from, &f)
	}
	return nil
}

// answerMend tells what this server has of what a lost replica of another one asks for.
func (c *Cluster) answerMend(g *group, from uint64, f *mendFrame) {
	answer := &mendFrame{Group: f.Group, Answer: true, State: f.State}
	if f.Blind {
		g.blinds.note(f.Member)
	}
	r := g.rep.Load()
	if r != nil {
		st := r.Status()
		answer.Member, answer.Leads = r.ID(), st.Leading && !st.CutOff
		answer.Sending = f.State && c.sendState(g, r, from, f.Member)
	} else if l := g.stream.lost.Load(); l != nil {
		answer.Member = l.id
	}
	if f.Ask == nil {
		c.sendMend(from, answer)
		return
	}
	answer.Entries = replica.Wanted(c.log, g.id, *f.Ask)
	if r == nil || len(answer.Entries) > 0 {
		c.sendMend(from, answer)
		return
	}
	conf, lacks, early := r.NeverHad(*f.Ask)
	if early {
		g.shard.Call(func() { r.Outgrow(f.Ask.Above, f.Member) })
	}
	if !lacks {
		c.sendMend(from, answer)
		return
	}
	answer.Ask, answer.Lacks, answer.Conf = f.Ask, true, replica.EncodeConf(conf)
	// What makes it true has to be durable.
	c.log.Submit(nil, func(err error) {
		if err == nil {
			c.sendMend(from, answer)
		}
	})
}

// takeMend takes an answer. The reconciler calls it.
func (c *Cluster) takeMend(f *mendFrame) {
	g := c.group(wal.GroupID(f.Group))
	if g == nil || g.stream == nil {
		return
	}
	if f.Remains != nil {
		if f.Remains.Member == f.Member {
			g.stream.hearRemains(*f.Remains)
		}
		return
	}
	if b := g.stream.blind.Load(); b != nil && f.State && g.server(f.Member) == b.from {
		b.sign = time.Now()
		if !f.Sending {
			b.sign = time.Time{} // Somebody else is asked.
		}
	}
	if g.stream.lost.Load() == nil {
		return
	}
	s := g.stream
	if f.Leads {
		s.led.set(time.Now())
	}
	if s.mend == nil {
		return
	}
	was, _ := s.mend.Wants()
	s.mend.Restore(f.Entries)
	if f.Lacks && f.Ask != nil {
		if conf, err := replica.DecodeConf(f.Conf); err == nil {
			s.mend.Nack(*f.Ask, f.Member, conf)
		}
	}
	if now, more := s.mend.Wants(); !more {
		c.tryMend(s)
	} else if now != was {
		c.askMembers(s, s.lost.Load())
	}
}

// tryMend ends the quarantine of a replica if nothing is missing any more. The mark goes first: as long as the
// log is not repaired, a start finds the damage and marks it again.
func (c *Cluster) tryMend(s *Stream) {
	if _, more := s.mend.Wants(); more {
		return
	}
	lost := s.lost.Load()
	u, dropped, err := s.mend.Update()
	s.mend = nil
	if err != nil {
		c.lose(s, lost.id, err)
		return
	}
	dir := filepath.Join(c.opts.Dir, damagedDir)
	err = errors.Join(removeFile(c.opts.FS, filepath.Join(dir, engineName(s.id, lost.id)+suspectMarking)), syncDir(c.opts.FS, dir))
	if err == nil {
		written := make(chan error, 1)
		c.log.Submit([]wal.Update{u}, func(err error) { written <- err })
		err = <-written
	}
	if err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: mend replica %d: %v", s.key.Account, s.key.Name, lost.id, err))
		return
	}
	delete(c.suspects, engineName(s.id, lost.id))
	s.lost.Store(nil)
	how := "what was damaged came from the others, or is in the storage already"
	if dropped > 0 {
		how = fmt.Sprintf("log entry %d, which was damaged, and what was behind it are dropped, since so many others never had it that it was not committed", dropped)
	}
	c.opts.Logger.Info(fmt.Sprintf("stream %s > %s: the log of replica %d is whole again: %s", s.key.Account, s.key.Name, lost.id, how))
	if err := c.openReplica(s); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: %v", s.key.Account, s.key.Name, err))
	}
}
