package config

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/conf"
)

// placed is what the parser wraps every value in when asked to keep positions.
type placed interface {
	Value() any
	Line() int
	IsUsedVariable() bool
	SourceFile() string
	Position() int
}

// place is where in which file a field stands.
type place struct {
	file      string
	line, col int
}

func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col) }

// problem is one complaint about the configuration.
type problem struct {
	at   place // zero when the complaint is about the whole
	text string
}

func (p problem) Error() string {
	if p.at.file == "" {
		return p.text
	}
	return p.at.String() + ": " + p.text
}

// value is one value of the file: its name as written, what stands there, and where. Elements of
// an array have no name.
type value struct {
	key      string
	raw      any // string, bool, int64, float64, time.Time, []any or map[string]any
	at       place
	variable bool // referred to elsewhere as $key
}

// newValue unwraps what the parser gives. Values of variables come wrapped twice; the outer place,
// where the variable is used, is the one a user looks for.
func newValue(key string, v any, parent place) value {
	out := value{key: key, raw: v, at: parent}
	for first := true; ; first = false {
		p, ok := out.raw.(placed)
		if !ok {
			return out
		}
		if first {
			out.at = place{p.SourceFile(), p.Line(), p.Position()}
			out.variable = p.IsUsedVariable()
		}
		out.raw = p.Value()
	}
}

// String says what a value is, for complaints about its type.
func (v value) String() string {
	switch r := v.raw.(type) {
	case string:
		return fmt.Sprintf("%q", r)
	case map[string]any:
		return "a block"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(r)
	}
}

// elements returns the values of a list; a single value counts as a list of one.
func (v value) elements() []value {
	list, ok := v.raw.([]any)
	if !ok {
		return []value{v}
	}
	out := make([]value, len(list))
	for i, e := range list {
		out[i] = newValue(v.key, e, v.at)
		if m := out[i].members(); len(m) > 0 {
			out[i].at = m[0].at // The parser has the end of a block; its first field says more.
		}
	}
	return out
}

// members returns the fields of a block in the order they are written.
func (v value) members() []value {
	m, _ := v.raw.(map[string]any)
	out := make([]value, 0, len(m))
	for k, e := range m {
		out = append(out, newValue(k, e, v.at))
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.at.file != b.at.file {
			return a.at.file < b.at.file
		}
		if a.at.line != b.at.line {
			return a.at.line < b.at.line
		}
		if a.at.col != b.at.col {
			return a.at.col < b.at.col
		}
		return a.key < b.key
	})
	return out
}

// loader reads one file into cfg. It collects all complaints before it gives up, so that a user
// corrects them in one go.
type loader struct {
	cfg      *Config
	strict   bool
	errs     []problem
	misuses  []problem // accepted by nats-server with a warning; -t refuses them
	warnings []problem // known, and without effect in this server

	// Things that can only be judged when the whole file is known.
	auth          authorization
	accountBlocks []accountBlock
	jetstreamSet  bool
	kvSet         bool
	rootStoreDir  value
}

// fail notes an error at v.
func (l *loader) fail(v value, format string, args ...any) {
	l.errs = append(l.errs, problem{v.at, fmt.Sprintf(format, args...)})
}

// misuse notes a value that works but should not be written that way.
func (l *loader) misuse(v value, format string, args ...any) {
	text := fmt.Sprintf("invalid use of field %q: ", v.key) + fmt.Sprintf(format, args...)
	l.misuses = append(l.misuses, problem{v.at, text})
}

// warn notes something accepted that will not do what it says, which strict mode refuses.
func (l *loader) warn(v value, format string, args ...any) {
	p := problem{v.at, fmt.Sprintf(format, args...)}
	if l.strict {
		l.errs = append(l.errs, p)
		return
	}
	l.warnings = append(l.warnings, p)
}

// err returns all complaints, one a line, or nil.
func (l *loader) err() error {
	if len(l.errs) == 0 {
		return nil
	}
	lines := make([]string, 0, len(l.misuses)+len(l.errs))
	for _, p := range slices.Concat(l.misuses, l.errs) {
		lines = append(lines, p.Error())
	}
	return errors.New(strings.Join(lines, "\n"))
}

// fields maps the names of a block's fields to what reads them. A key may hold several names of
// one field, separated by spaces.
type fields map[string]func(value)

// block reads the members of v by f, and complains about those f does not know in the given
// words; the words have one verb, for the name.
func (l *loader) block(v value, f fields, unknown string) {
	byName := make(map[string]func(value))
	var names []string
	for key, read := range f {
		for name := range strings.FieldsSeq(key) {
			byName[name] = read
			names = append(names, name)
		}
	}
	for _, m := range v.members() {
		read, ok := byName[strings.ToLower(m.key)]
		switch {
		case ok:
			read(m)
		case !m.variable: // A variable's definition may stand anywhere, once it is used.
			l.fail(m, unknown+"%s", m.key, suggestion(m.key, names))
		}
	}
}

// unknownField is how most blocks complain.
const unknownField = "unknown field %q"

// isBlock complains when v is not a block.
func (l *loader) isBlock(v value, what string) bool {
	if _, ok := v.raw.(map[string]any); ok {
		return true
	}
	l.fail(v, "expected %s to be a map, got %s", what, v)
	return false
}

func (l *loader) str(dst *string) func(value) {
	return func(v value) {
		s, ok := v.raw.(string)
		if !ok {
			l.fail(v, "field %q should be a string, got %s", v.key, v)
			return
		}
		*dst = s
	}
}

func (l *loader) boolean(dst *bool) func(value) {
	return func(v value) {
		b, ok := v.raw.(bool)
		if !ok {
			l.fail(v, "field %q should be a boolean, got %s", v.key, v)
			return
		}
		*dst = b
	}
}

// integer reads a whole number, with or without a size suffix, of at least min and at most max.
func integer[T int | int64](l *loader, dst *T, min, max int64) func(value) {
	return func(v value) {
		n, ok := v.raw.(int64)
		switch {
		case !ok:
			l.fail(v, "field %q should be a number, got %s", v.key, v)
		case n > max:
			l.fail(v, "%s value is too big", v.key)
		case n < min:
			l.fail(v, "%s value can not be less than %d", v.key, min)
		default:
			*dst = T(n)
		}
	}
}

// duration reads a text like "2m". A bare number means seconds, as it did long ago.
func (l *loader) duration(dst *time.Duration) func(value) {
	return func(v value) {
		switch r := v.raw.(type) {
		case string:
			d, err := time.ParseDuration(r)
			if err != nil {
				l.fail(v, "error parsing %s: %v", v.key, err)
				return
			}
			*dst = d
		case int64:
			l.misuse(v, "%s should be converted to a duration", v.key)
			*dst = seconds(float64(r))
		default:
			l.fail(v, "field %q should be a duration like \"2m\", got %s", v.key, v)
		}
	}
}

// timeout reads seconds, whole or not, or a duration.
func (l *loader) timeout(dst *time.Duration, where string) func(value) {
	return func(v value) {
		switch r := v.raw.(type) {
		case int64:
			*dst = seconds(float64(r))
		case float64:
			*dst = seconds(r)
		case string:
			d, err := time.ParseDuration(r)
			if err != nil {
				l.fail(v, "error parsing %s config, 'timeout' %v", where, err)
				return
			}
			*dst = d
		default:
			l.fail(v, "error parsing %s config, 'timeout' wrong type", where)
		}
	}
}

// strs reads a list of strings; a single string counts as a list of one.
func (l *loader) strs(dst *[]string) func(value) {
	return func(v value) {
		var out []string
		for _, e := range v.elements() {
			s, ok := e.raw.(string)
			if !ok {
				l.fail(e, "error parsing %s: expected a string, got %s", v.key, e)
				return
			}
			out = append(out, s)
		}
		*dst = out
	}
}

// strMap reads a block of names and strings.
func (l *loader) strMap(dst *map[string]string) func(value) {
	return func(v value) {
		if !l.isBlock(v, v.key) {
			return
		}
		m := make(map[string]string)
		for _, e := range v.members() {
			s, ok := e.raw.(string)
			if !ok {
				l.fail(e, "field %q should be a string, got %s", e.key, e)
				continue
			}
			m[e.key] = s
		}
		*dst = m
	}
}

// listen reads "port", port or "host:port".
func (l *loader) listen(host *string, port *int) func(value) {
	return func(v value) {
		h, p, err := parseListen(v.raw)
		if err != nil {
			l.fail(v, "%v", err)
			return
		}
		*host, *port = h, p
	}
}

// port reads a port number; -1 asks for a free one.
func (l *loader) port(dst *int) func(value) {
	return integer(l, dst, PortRandom, 65535)
}

// ignore accepts a field that has no effect in this server, and says so.
func (l *loader) ignore(why string) func(value) {
	return func(v value) {
		if v.raw == false {
			return // Switched off, which is what happens.
		}
		l.warn(v, "field %q is ignored in this server: %s", v.key, why)
	}
}

// refuse rejects a field of nats-server whose absence would weaken security or durability.
func (l *loader) refuse(why string) func(value) {
	return func(v value) {
		l.fail(v, "field %q is not supported in this server: %s", v.key, why)
	}
}

// readFile parses the syntax of a file.
func readFile(path string) (root value, digest string, err error) {
	m, digest, err := conf.ParseFileWithChecksDigest(path)
	if err != nil {
		return value{}, "", err
	}
	return value{raw: m, at: place{file: path}}, digest, nil
}
