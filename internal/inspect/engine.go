package inspect

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/internal/stream"
)

// Engine is what the files of one engine say.
type Engine struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"` // meta, file or rocksdb
	Path     string    `json:"path"`
	Stream   string    `json:"stream"`
	Voters   int       `json:"voters"` // replicas of the group that have a vote, this one among them
	Index    uint64    `json:"index"`  // how far the Raft log is applied
	Term     uint64    `json:"term"`
	Messages uint64    `json:"messages"`
	Bytes    uint64    `json:"bytes"`
	Last     uint64    `json:"last_sequence"`
	LastTime time.Time `json:"last_time"`
	Files    []File    `json:"files"`
	Left     []string  `json:"left"` // files that the next start removes
	Damage   []Damage  `json:"damage"`
	Lost     []Lost    `json:"lost"`

	rebuilt *storage.Rebuilt
}

// File is one file of an engine.
type File struct {
	Name        string `json:"name"`
	Bytes       int64  `json:"bytes"`
	LiveBytes   int64  `json:"live_bytes"`
	Records     int    `json:"records"`
	LiveRecords int    `json:"live_records"`
	Erased      int    `json:"erased"`
}

// Damage is a place that is not as it was written.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
}

// Lost is a message that can not be read.
type Lost struct {
	Seq     uint64 `json:"sequence"`
	Subject string `json:"subject"`
}

// Engines looks at the engines in a server's directory, in one of its stores, or at a single one, and
// checks every byte of them. Damage that is not that of one engine comes with an Engine without a name.
func Engines(fs vfs.FS, path string) (engines []Engine, err error) {
	switch {
	case isServer(fs, path):
		for _, part := range []struct {
			dir  string
			look func(vfs.FS, string, string) ([]Engine, error)
		}{{metaDir, fileEngines}, {streamsDir, fileEngines}, {rocksDir, rocksEngines}} {
			dir := fs.PathJoin(path, part.dir)
			if !isDir(fs, dir) {
				continue
			}
			found, err := part.look(fs, dir, kindOf(part.dir))
			if err != nil {
				return nil, err
			}
			engines = append(engines, found...)
		}
		return engines, nil
	case fs.PathBase(path) == rocksDir || isDatabase(fs, path):
		return rocksEngines(fs, path, kindOf(rocksDir))
	case hasManifest(fs, path):
		e, err := fileEngine(fs, fs.PathDir(path), fs.PathBase(path), kindOf(fs.PathBase(fs.PathDir(path))))
		return []Engine{e}, err
	}
	engines, err = fileEngines(fs, path, kindOf(fs.PathBase(path)))
	if err == nil && len(engines) == 0 {
		err = fmt.Errorf("%s is neither the directory of a server nor that of an engine", path)
	}
	return engines, err
}

func kindOf(dir string) string {
	switch dir {
	case metaDir, rocksDir:
		return dir
	}
	return "file"
}

func isDatabase(fs vfs.FS, dir string) bool {
	names, _ := list(fs, dir)
	return slices.Contains(names, "FLOOR")
}

func hasManifest(fs vfs.FS, dir string) bool {
	_, err := fs.Stat(fs.PathJoin(dir, "MANIFEST"))
	return err == nil
}

func fileEngines(fs vfs.FS, root, kind string) (engines []Engine, err error) {
	names, err := list(fs, root)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if !isDir(fs, fs.PathJoin(root, name)) {
			continue
		}
		e, err := fileEngine(fs, root, name, kind)
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
	}
	return engines, nil
}

func fileEngine(fs vfs.FS, root, name, kind string) (Engine, error) {
	i, err := filelog.Inspect(fs, root, name, history, stream.ConfigRecord)
	if err != nil {
		return Engine{}, err
	}
	return describe(i, kind, fs.PathJoin(root, name)), nil
}

// history is how many messages of a subject the stream of an engine keeps.
var history = filelog.History{Aux: stream.ConfigRecord, Decode: func(value []byte) (int, error) {
	c, err := stream.RecordedConfig(value)
	if err != nil {
		return 0, err
	}
	return int(c.MaxMsgsPerSubject), nil
}}

func rocksEngines(fs vfs.FS, dir, kind string) (engines []Engine, err error) {
	found, damage, err := lsm.Inspect(fs, dir, stream.ConfigRecord)
	if err != nil {
		return nil, err
	}
	if len(damage) > 0 {
		engines = append(engines, describe(&storage.Inspection{Damage: damage}, kind, dir))
	}
	for _, i := range found {
		engines = append(engines, describe(i, kind, dir))
	}
	return engines, nil
}

func describe(i *storage.Inspection, kind, path string) Engine {
	e := Engine{
		Name: i.Name, Kind: kind, Path: path, Index: i.Applied.Index, Term: i.Applied.Term,
		Messages: i.State.Msgs, Bytes: i.State.Bytes, Last: i.State.LastSeq, LastTime: time.Unix(0, i.State.LastTime).UTC(),
		Files: []File{}, Left: append([]string{}, i.Left...), Damage: []Damage{}, Lost: []Lost{},
	}
	if c, err := stream.RecordedConfig(i.Aux[stream.ConfigRecord]); err == nil {
		e.Stream = c.Name
	}
	if conf, err := replica.DecodeConf(i.Applied.Conf); err == nil && conf != nil {
		e.Voters = len(conf.GetVoters())
	}
	for _, f := range i.Files {
		e.Files = append(e.Files, File(f))
	}
	for _, d := range i.Damage {
		e.Damage = append(e.Damage, Damage{d.Path, d.Offset, d.Detail})
	}
	for _, l := range i.Lost {
		e.Lost = append(e.Lost, Lost(l))
	}
	e.rebuilt = i.Rebuilt
	return e
}

// WriteEngine writes what is known of an engine for people; with files also what is in them.
func WriteEngine(w io.Writer, e *Engine, files bool) error {
	p := printer{w: w}
	what := e.Name
	if e.Stream != "" {
		what += ", stream " + e.Stream
	}
	if e.Name == "" {
		what = "the whole of it"
	}
	p.line("%s (%s): %s", e.Path, e.Kind, what)
	if e.Name != "" {
		p.line("  applied up to log entry %d of term %d; last sequence %d; %d messages, %d bytes; %d voters", e.Index, e.Term, e.Last, e.Messages, e.Bytes, e.Voters)
	}
	if files {
		for _, f := range e.Files {
			if f.Records == 0 {
				p.line("  %s: %d bytes", f.Name, f.Bytes)
				continue
			}
			p.line("  %s: %d bytes, %d live; %d records, %d live, %d erased", f.Name, f.Bytes, f.LiveBytes, f.Records, f.LiveRecords, f.Erased)
		}
		for _, name := range e.Left {
			p.line("  %s: left over; the next start removes it", name)
		}
	}
	for _, d := range e.Damage {
		p.line("  DAMAGED: %s at offset %d: %s", d.File, d.Offset, d.Reason)
	}
	for _, l := range e.Lost {
		p.line("  lost: sequence %d, subject %s", l.Seq, l.Subject)
	}
	return p.err
}
