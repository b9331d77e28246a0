// Package inspect dumps and checks the files of a server offline, without changing them.
//
// It owns how findings are shown to people. What files mean, and whether they are right, is for the
// packages that write them.
package inspect

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/wal"
)

// DumpWAL writes one line for each thing in the Raft log in dir, and one for each row of a batch. If
// groups are given, rows of others are left out.
func DumpWAL(w io.Writer, fs vfs.FS, dir string, groups ...wal.GroupID) error {
	wanted := map[wal.GroupID]bool{}
	for _, g := range groups {
		wanted[g] = true
	}
	return wal.Walk(fs, dir, func(p wal.Part) error {
		if _, err := fmt.Fprintln(w, partLine(&p)); err != nil {
			return err
		}
		for i := range p.Rows {
			if len(wanted) > 0 && !wanted[p.Rows[i].Group] {
				continue
			}
			if _, err := fmt.Fprintln(w, "  "+rowLine(&p.Rows[i])); err != nil {
				return err
			}
		}
		return nil
	})
}

func partLine(p *wal.Part) string {
	s := fmt.Sprintf("%s %d %s", p.File, p.Offset, p.Kind)
	switch p.Kind {
	case wal.KindBatch, wal.KindBroken, wal.KindFooter:
		s += fmt.Sprintf(" %d", p.Seq)
	}
	if p.Kind != wal.KindMissing {
		s += fmt.Sprintf(" sectors=%d", p.Sectors)
	}
	if p.Kind != wal.KindZeros && p.Zero > 0 {
		s += fmt.Sprintf(" zero=%d", p.Zero)
	}
	if p.Bad > 0 {
		s += fmt.Sprintf(" bad=%d", p.Bad)
	}
	return s
}

func rowLine(r *wal.Row) string {
	s := fmt.Sprintf("group %d", r.Group)
	if r.Remove {
		return s + " removed"
	}
	if r.Reset {
		s += " reset"
	}
	s += fmt.Sprintf(" term=%d vote=%d commit=%d start=%d/%d", r.Hard.Term, r.Hard.Vote, r.Hard.Commit, r.Start.Index, r.Start.Term)
	if r.Count > 0 {
		s += fmt.Sprintf(" entries=%d-%d term=%d", r.First, r.First+r.Count-1, r.Term)
	}
	return s
}

// CheckWAL verifies every byte of the Raft log in dir and writes what it found: a line for each
// finding, a line for each group, and a summary. ok is false if any group lost something or may have.
func CheckWAL(w io.Writer, fs vfs.FS, dir string) (ok bool, err error) {
	r, err := wal.Check(fs, dir)
	if err != nil {
		return false, err
	}
	p := printer{w: w}
	damaged := 0
	for _, f := range r.Findings {
		p.line("found: %v", f)
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		log := fmt.Sprintf("log entries %d to %d", g.First, g.Last)
		if g.First > g.Last {
			log = fmt.Sprintf("no log entries behind %d", g.Last)
		}
		p.line("group %d: term %d, vote %d, commit %d, %s", g.Group, g.Hard.Term, g.Hard.Vote, g.Hard.Commit, log)
		if g.Damage != nil {
			damaged++
			p.damage(g.Damage)
		}
	}
	if r.Doubt != nil {
		p.line("groups that are not listed may have been lost: %s at offset %d: %s", r.Doubt.File, r.Doubt.Offset, r.Doubt.Reason)
	}
	if r.TornBytes > 0 {
		p.line("torn tail of %d bytes, never acknowledged; the next start cuts it", r.TornBytes)
	}
	p.line("server %016x of cluster %016x: %d segments from %d, %d batches, %d groups, %d of them damaged, %d findings",
		r.Server, r.Cluster, r.Segments, r.FirstSegment, r.Batches, len(r.Groups), damaged, len(r.Findings))
	return damaged == 0 && r.Doubt == nil, p.err
}

// printer writes lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// damage says what one group lost, where, and what to do.
func (p *printer) damage(d *wal.DamageError) {
	p.line("  damaged: %s at offset %d: %s", d.File, d.Offset, d.Reason)
	for _, l := range d.Lost {
		p.line("  lost: log entries %d to %d of term %d", l.First, l.Last, l.Term)
	}
	if d.Unknown {
		p.line("  what it held is unknown: this replica must be replaced; it is rebuilt from the others under a new id")
	} else {
		p.line("  the entries are known: the other replicas of the group can restore them")
	}
}

// WAL is what CheckWAL says, for programs.
type WAL struct {
	Path         string   `json:"path"`
	Server       string   `json:"server"`
	Cluster      string   `json:"cluster"`
	Segments     int      `json:"segments"`
	FirstSegment uint64   `json:"first_segment"`
	Batches      uint64   `json:"batches"`
	TornBytes    int64    `json:"torn_bytes"`
	Groups       []Group  `json:"groups"`
	Findings     []Damage `json:"findings"`
	Doubt        *Damage  `json:"doubt"` // groups that are not listed may have been lost
}

// Group is the log of one Raft group.
type Group struct {
	Group   uint64      `json:"group"`
	Term    uint64      `json:"term"`
	Vote    uint64      `json:"vote"`
	Commit  uint64      `json:"commit"`
	First   uint64      `json:"first"`
	Last    uint64      `json:"last"`
	Damage  *Damage     `json:"damage"`
	Lost    []LostRange `json:"lost"`
	Unknown bool        `json:"unknown"` // what is lost is not known
}

// LostRange is a range of log entries that can not be read.
type LostRange struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Term  uint64 `json:"term"`
}

// ReadWAL is CheckWAL for programs.
func ReadWAL(fs vfs.FS, dir string) (*WAL, error) {
	r, err := wal.Check(fs, dir)
	if err != nil {
		return nil, err
	}
	l := &WAL{
		Path: dir, Server: fmt.Sprintf("%016x", r.Server), Cluster: fmt.Sprintf("%016x", r.Cluster), Segments: r.Segments,
		FirstSegment: r.FirstSegment, Batches: r.Batches, TornBytes: r.TornBytes, Groups: []Group{}, Findings: []Damage{},
	}
	for i := range r.Groups {
		l.Groups = append(l.Groups, groupOfReport(&r.Groups[i]))
	}
	for _, f := range r.Findings {
		l.Findings = append(l.Findings, Damage{f.File, f.Offset, f.What})
	}
	if d := r.Doubt; d != nil {
		l.Doubt = &Damage{d.File, d.Offset, d.Reason}
	}
	return l, nil
}

func groupOfReport(r *wal.GroupReport) Group {
	g := Group{
		Group: uint64(r.Group), Term: r.Hard.Term, Vote: r.Hard.Vote, Commit: r.Hard.Commit, First: r.First, Last: r.Last,
		Lost: []LostRange{},
	}
	if d := r.Damage; d != nil {
		g.Damage, g.Unknown = &Damage{d.File, d.Offset, d.Reason}, d.Unknown
		for _, l := range d.Lost {
			g.Lost = append(g.Lost, LostRange{l.First, l.Last, l.Term})
		}
	}
	return g
}

// Right tells whether no group lost anything, or may have.
func (l *WAL) Right() bool {
	for i := range l.Groups {
		if l.Groups[i].Damage != nil {
			return false
		}
	}
	return l.Doubt == nil
}
