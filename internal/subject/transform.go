package subject

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// ErrInvalid says that a pattern is not a subject.
var ErrInvalid = errors.New("invalid subject")

// Transform maps subjects that match a pattern to others, by the language of NATS: tokens of the
// destination are literal or take up what a wildcard of the source matched, as "$1" or in
// functions such as "{{partition(10,1)}}". A last token ">" in both maps the rest of the subject.
// A Transform is never modified and safe for concurrent use.
type Transform struct {
	source string
	parts  []part
	rest   bool // both end in ">"
	// wildcards are the positions of "*" in the source, counted in tokens from 0.
	wildcards []int
	tokens    int // of the source, without ">"
}

// part is one token of the destination.
type part struct {
	text  string // literal, if fn is nil
	fn    function
	args  []int // wildcards the function reads, from 1
	n     int   // number argument
	delim string
}

type function func(p *part, token func(wildcard int) string, salt uint64) string

// NewTransform compiles a transform. An empty source stands for ">". The error wraps ErrInvalid if
// the source is at fault.
func NewTransform(source, destination string) (*Transform, error) {
	if source == "" {
		source = ">"
	}
	if !Valid(source) {
		return nil, fmt.Errorf("%w %s", ErrInvalid, source)
	}
	t := &Transform{source: source}
	tokens := strings.Split(source, ".")
	if tokens[len(tokens)-1] == ">" {
		t.rest = true
		tokens = tokens[:len(tokens)-1]
	}
	t.tokens = len(tokens)
	for i, tok := range tokens {
		if tok == star {
			t.wildcards = append(t.wildcards, i)
		}
	}
	return t, t.compile(destination)
}

func (t *Transform) compile(destination string) error {
	tokens := splitDestination(destination)
	last := len(tokens) - 1
	if (tokens[last] == ">") != t.rest {
		return errors.New("invalid mapping destination: a full wildcard must end both subjects or none")
	}
	if t.rest {
		tokens = tokens[:last]
	}
	for _, tok := range tokens {
		p, err := t.parsePart(tok)
		if err != nil {
			return fmt.Errorf("invalid mapping destination: %w", err)
		}
		t.parts = append(t.parts, p)
	}
	return nil
}

// splitDestination splits at the dots that are not inside of a function.
func splitDestination(s string) (tokens []string) {
	depth, start := 0, 0
	for i := range len(s) {
		switch {
		case strings.HasPrefix(s[i:], "{{"):
			depth = 1
		case strings.HasPrefix(s[i:], "}}"):
			depth = 0
		case s[i] == sep && depth == 0:
			tokens = append(tokens, s[start:i])
			start = i + 1
		}
	}
	return append(tokens, s[start:])
}

func (t *Transform) parsePart(tok string) (part, error) {
	if n, err := strconv.Atoi(strings.TrimPrefix(tok, "$")); err == nil && strings.HasPrefix(tok, "$") {
		p := part{fn: wildcard, args: []int{n}}
		return p, t.checkArgs(&p, tok)
	}
	if strings.HasPrefix(tok, "{{") && strings.HasSuffix(tok, "}}") {
		return t.parseFunction(tok)
	}
	if tok == star || tok == ">" || !ValidToken(tok) {
		return part{}, fmt.Errorf("invalid subject in %s", tok)
	}
	return part{text: tok}, nil
}

// functions of the language, by lower case name, with the kinds of their arguments: w a wildcard,
// n a number, d a delimiter, * any number of wildcards.
var functions = map[string]struct {
	args string
	fn   function
}{
	"wildcard":       {"w", wildcard},
	"partition":      {"n*", partition},
	"split":          {"wd", split},
	"splitfromleft":  {"wn", splitFromLeft},
	"splitfromright": {"wn", splitFromRight},
	"slicefromleft":  {"wn", sliceFromLeft},
	"slicefromright": {"wn", sliceFromRight},
	"left":           {"wn", left},
	"right":          {"wn", right},
	"random":         {"n", random},
}

func (t *Transform) parseFunction(tok string) (part, error) {
	body := strings.TrimSpace(tok[2 : len(tok)-2])
	name, list, ok := strings.Cut(body, "(")
	f, known := functions[strings.ToLower(strings.TrimSpace(name))]
	if !ok || !known || !strings.HasSuffix(list, ")") {
		return part{}, fmt.Errorf("unknown function in %s", tok)
	}
	args := strings.Split(strings.TrimSuffix(list, ")"), ",")
	p := part{fn: f.fn}
	kinds := f.args
	for i, arg := range args {
		if i >= len(kinds) {
			return p, fmt.Errorf("too many arguments passed to the function in %s", tok)
		}
		if kinds[i] == 'd' {
			p.delim = arg
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(arg))
		if err != nil || n < 0 {
			return p, fmt.Errorf("function argument is invalid or in the wrong format in %s", tok)
		}
		switch kinds[i] {
		case 'n':
			p.n = n
		case 'w':
			p.args = append(p.args, n)
		case '*':
			p.args = append(p.args, n)
			kinds += "*"
		}
	}
	if len(args) < len(strings.TrimRight(kinds, "*")) {
		return p, fmt.Errorf("not enough arguments passed to the function in %s", tok)
	}
	needsNumber := strings.Contains(f.args, "n")
	if needsNumber && p.n == 0 || strings.Contains(f.args, "d") && (p.delim == "" || strings.ContainsAny(p.delim, " .")) {
		return p, fmt.Errorf("function argument is invalid or in the wrong format in %s", tok)
	}
	return p, t.checkArgs(&p, tok)
}

func (t *Transform) checkArgs(p *part, tok string) error {
	for _, w := range p.args {
		if w < 1 || w > len(t.wildcards) {
			return fmt.Errorf("wildcard index out of range in %s: [%d]", tok, w)
		}
	}
	return nil
}

// Apply maps a literal subject; ok is false if it does not match. salt is what random numbers are
// drawn from, so that whoever must have the same result again can.
func (t *Transform) Apply(s string, salt uint64) (mapped string, ok bool) {
	if !Match(t.source, s) {
		return "", false
	}
	tokens := strings.SplitN(s, ".", t.tokens+1)
	token := func(w int) string {
		if w == 0 {
			return s
		}
		return tokens[t.wildcards[w-1]]
	}
	var b strings.Builder
	for i := range t.parts {
		if i > 0 {
			b.WriteByte(sep)
		}
		p := &t.parts[i]
		if p.fn == nil {
			b.WriteString(p.text)
		} else {
			b.WriteString(p.fn(p, token, salt))
		}
	}
	if t.rest {
		if len(t.parts) > 0 {
			b.WriteByte(sep)
		}
		b.WriteString(tokens[t.tokens])
	}
	return b.String(), true
}

func wildcard(p *part, token func(int) string, _ uint64) string { return token(p.args[0]) }

// partition gives the number of the bucket that the tokens hash to; without tokens the whole
// subject does.
func partition(p *part, token func(int) string, _ uint64) string {
	h := fnv.New32a()
	if len(p.args) == 0 {
		h.Write([]byte(token(0)))
	}
	for _, w := range p.args {
		h.Write([]byte(token(w)))
	}
	return strconv.Itoa(int(h.Sum32() % uint32(p.n)))
}

func random(p *part, token func(int) string, salt uint64) string {
	h := fnv.New64a()
	fmt.Fprint(h, salt, " ", token(0))
	return strconv.FormatUint(h.Sum64()%uint64(p.n), 10)
}

func split(p *part, token func(int) string, _ uint64) string {
	var kept []string
	for _, s := range strings.Split(token(p.args[0]), p.delim) {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, ".")
}

func splitFromLeft(p *part, token func(int) string, _ uint64) string {
	s := token(p.args[0])
	return splitAt(s, p.n)
}

func splitFromRight(p *part, token func(int) string, _ uint64) string {
	s := token(p.args[0])
	return splitAt(s, len(s)-p.n)
}

func splitAt(s string, i int) string {
	if i <= 0 || i >= len(s) {
		return s
	}
	return s[:i] + "." + s[i:]
}

func sliceFromLeft(p *part, token func(int) string, _ uint64) string {
	return slice(token(p.args[0]), p.n, 0)
}

func sliceFromRight(p *part, token func(int) string, _ uint64) string {
	s := token(p.args[0])
	return slice(s, p.n, len(s)%p.n)
}

// slice cuts s into pieces of n bytes, the first one of first bytes if that is not 0.
func slice(s string, n, first int) string {
	var b strings.Builder
	for i := range len(s) {
		if i > 0 && (i-first)%n == 0 {
			b.WriteByte(sep)
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func left(p *part, token func(int) string, _ uint64) string {
	s := token(p.args[0])
	return s[:min(p.n, len(s))]
}

func right(p *part, token func(int) string, _ uint64) string {
	s := token(p.args[0])
	return s[max(0, len(s)-p.n):]
}
