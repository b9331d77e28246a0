package inspect

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/wal"
)

// A repair discards what is damaged, so that what is left can be served again. That is for streams that
// have this one replica: where there are others they have the data, and a replica that lacks some of what
// the others hold must not take part. Whatever is discarded is told beforehand, and is discarded only when
// the user names the replica. The damaged files of an engine are put aside, not removed.

// Repair is what can be done about the damage of one replica.
type Repair struct {
	Replica string   `json:"replica"` // the name of its engine, which is what --discard-damaged takes
	Stream  string   `json:"stream"`
	Damage  []Damage `json:"damage"`
	Lost    []string `json:"lost"`     // what a repair discards
	Can     bool     `json:"possible"` // a repair is possible
	Advice  string   `json:"advice"`
	Done    bool     `json:"done"`

	engine *Engine
	log    *Group // if it is damaged
}

const repairDir = "repair"

// Repairs finds all damage in a server's directory and says what can be done about each.
func Repairs(fs vfs.FS, root string) ([]*Repair, error) {
	if err := finish(fs, root); err != nil {
		return nil, err
	}
	engines, err := Engines(fs, root)
	if err != nil {
		return nil, err
	}
	log, err := ReadWAL(fs, fs.PathJoin(root, walDir))
	if err != nil {
		return nil, err
	}
	damaged := make(map[uint64]*Group)
	for i := range log.Groups {
		if g := &log.Groups[i]; g.Damage != nil {
			damaged[g.Group] = g
		}
	}
	var repairs []*Repair
	for i := range engines {
		e := &engines[i]
		group := groupOf(e.Name)
		if g := damaged[group]; len(e.Damage) > 0 || g != nil {
			repairs = append(repairs, plan(e, g))
			delete(damaged, group)
		}
	}
	for i := range log.Groups { // What is left has no engine, such as a replica in memory.
		if g := &log.Groups[i]; damaged[g.Group] != nil {
			repairs = append(repairs, plan(&Engine{Name: fmt.Sprintf("group %d", g.Group)}, g))
		}
	}
	if log.Doubt != nil {
		repairs = append(repairs, &Repair{Replica: "log", Damage: []Damage{*log.Doubt}, Advice: "groups that are not listed may have been lost: restore the server's directory from a backup, or begin a new server"})
	}
	return repairs, nil
}

func plan(e *Engine, g *Group) *Repair {
	r := &Repair{Replica: e.Name, Stream: e.Stream, Damage: append([]Damage{}, e.Damage...), Lost: []string{}, engine: e, log: g}
	for _, l := range e.Lost {
		r.Lost = append(r.Lost, fmt.Sprintf("sequence %d, subject %s", l.Seq, l.Subject))
	}
	if e.rebuilt != nil {
		r.Lost = append(r.Lost, e.lostOfIndex()...)
	}
	if g != nil {
		r.Damage = append(r.Damage, *g.Damage)
		r.Lost = append(r.Lost, lostOfLog(e, g))
	}
	group := groupOf(e.Name)
	switch {
	case group == 0:
		r.Advice = "not a stream's: restore the server's directory from a backup, or begin a new server"
	case e.Voters > 1:
		r.Advice = "the other replicas have the data: the server has this one made anew by itself when it is started while a majority of them is up"
	case e.Voters == 0:
		r.Advice = "what says which messages there are is damaged: restore the stream from a backup"
	case e.Kind != "file" && len(e.Damage) > 0:
		r.Advice = "parts of a database can not be discarded: restore the stream from a backup"
	case len(e.Damage) > 0 && len(e.Lost) == 0 && !e.readable():
		r.Advice = "what says which messages there are is damaged: restore the stream from a backup"
	default:
		r.Can = true
		r.Advice = fmt.Sprintf("restore the stream from a backup, or go on without what is lost: --discard-damaged %s", e.Name)
	}
	return r
}

// readable tells whether the index is right, so that the messages can be told.
func (e *Engine) readable() bool { return e.Stream != "" }

// lostOfIndex says what a rebuilt index does not know.
func (e *Engine) lostOfIndex() (lost []string) {
	x := e.rebuilt
	switch n := e.Messages; {
	case x.Exact:
		lost = append(lost, "no message: the index can be made anew out of them")
	case n > x.Want:
		lost = append(lost, fmt.Sprintf("that messages were removed: there were %d, and %d can be found, of which it can not be told any more which were removed", x.Want, n))
	default:
		lost = append(lost, fmt.Sprintf("messages: there were %d, and the %d that can be found are not all of them the same ones", x.Want, n))
	}
	if !x.Records {
		lost = append(lost, "perhaps what consumers have acknowledged, and which message ids were seen")
	}
	return lost
}

func lostOfLog(e *Engine, g *Group) string {
	if g.Last <= e.Index && !g.Unknown {
		return "nothing: all log entries are applied"
	}
	more := ""
	if g.Unknown {
		more = ", and perhaps later ones"
	}
	return fmt.Sprintf("log entries %d to %d that are not applied yet%s", e.Index+1, max(g.Last, e.Index), more)
}

// Discard carries out a repair.
func (r *Repair) Discard(fs vfs.FS, root string) error {
	if !r.Can {
		return fmt.Errorf("%s can not be repaired: %s", r.Replica, r.Advice)
	}
	if len(r.engine.Damage) > 0 {
		if err := r.replaceEngine(fs, root); err != nil {
			return fmt.Errorf("repair %s: %w", r.Replica, err)
		}
	}
	if r.log != nil {
		if err := r.resetLog(fs, root); err != nil {
			return fmt.Errorf("repair the log of %s: %w", r.Replica, err)
		}
	}
	r.Done = true
	return nil
}

// replaceEngine puts an engine with all that can be read in the place of the damaged one.
func (r *Repair) replaceEngine(fs vfs.FS, root string) error {
	streams, fresh, aside := fs.PathJoin(root, streamsDir), fs.PathJoin(root, repairDir), fs.PathJoin(root, damagedDir)
	if err := fs.RemoveAll(fs.PathJoin(fresh, r.Replica)); err != nil {
		return err
	}
	if _, err := filelog.Salvage(fs, streams, r.Replica, fresh, history); err != nil {
		return err
	}
	if err := fs.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	to := fs.PathJoin(aside, r.Replica)
	for n := 2; isDir(fs, to); n++ {
		to = fs.PathJoin(aside, fmt.Sprintf("%s-%d", r.Replica, n))
	}
	if err := fs.Rename(fs.PathJoin(streams, r.Replica), to); err != nil {
		return err
	}
	if err := errors.Join(syncDir(fs, aside), syncDir(fs, root)); err != nil {
		return err
	}
	return finish(fs, root)
}

// finish ends a repair that was interrupted between taking the damaged engine away and putting the other
// in its place.
func finish(fs vfs.FS, root string) error {
	fresh, streams := fs.PathJoin(root, repairDir), fs.PathJoin(root, streamsDir)
	names, err := list(fs, fresh)
	if err != nil || !isDir(fs, fresh) {
		return err
	}
	for _, name := range names {
		if hasManifest(fs, fs.PathJoin(fresh, name)) && !isDir(fs, fs.PathJoin(streams, name)) {
			if err := fs.Rename(fs.PathJoin(fresh, name), fs.PathJoin(streams, name)); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(syncDir(fs, streams), syncDir(fs, fresh)); err != nil {
		return err
	}
	return errors.Join(fs.RemoveAll(fresh), syncDir(fs, root))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// resetLog has the group's log begin where its engine is. The group has this one voter: nobody else knows
// of its terms.
func (r *Repair) resetLog(fs vfs.FS, root string) error {
	dir := fs.PathJoin(root, walDir)
	report, err := wal.Check(fs, dir)
	if err != nil {
		return err
	}
	l, err := wal.Open(wal.Options{FS: fs, Dir: dir, ServerID: report.Server, ClusterID: report.Cluster, Stepped: true})
	if err != nil {
		return err
	}
	at := wal.Position{Index: r.engine.Index, Term: r.engine.Term}
	failed := errors.New("the log took nothing")
	l.Submit([]wal.Update{{
		Group: wal.GroupID(r.log.Group),
		Reset: &at,
		Hard:  &wal.HardState{Term: max(r.log.Term, at.Term), Commit: at.Index},
	}}, func(err error) { failed = err })
	for l.Step() {
	}
	return errors.Join(failed, l.Close())
}

// WriteRepair writes what can be done about the damage of a replica, for people.
func WriteRepair(w io.Writer, r *Repair) error {
	p := printer{w: w}
	p.line("%s, stream %s", r.Replica, r.Stream)
	for _, d := range r.Damage {
		p.line("  DAMAGED: %s at offset %d: %s", d.File, d.Offset, d.Reason)
	}
	did := "to be lost"
	if r.Done {
		did = "discarded"
	}
	for _, l := range r.Lost {
		p.line("  %s: %s", did, l)
	}
	if !r.Done {
		p.line("  %s", r.Advice)
	}
	return p.err
}
