// Package search answers the questions of storage.Reader that concern wildcards, for any engine that
// has its messages in order of sequence and its subjects in order of bytes. It reaches both through
// cursors, and jumps: what does not match costs next to nothing.
package search

import (
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
)

// Filter is a subject with wildcards, prepared for walking an ordered set of subjects.
type Filter struct {
	text    string
	prefix  string // literal bytes that every match starts with
	subtree bool   // whatever starts with the prefix, and goes on, matches; tokens are not set
	tokens  []string
	lit     int // number of literal tokens at the front
}

// NewFilter prepares a filter.
func NewFilter(text string) Filter {
	if rest, ok := strings.CutSuffix(text, ">"); ok && !strings.ContainsAny(rest, "*>") && (rest == "" || rest[len(rest)-1] == '.') {
		return Filter{text: text, prefix: rest, subtree: true}
	}
	f := Filter{text: text, tokens: strings.Split(text, ".")}
	for f.lit < len(f.tokens) && !wild(f.tokens[f.lit]) {
		f.lit++
	}
	f.prefix = strings.Join(f.tokens[:f.lit], ".")
	if f.lit > 0 && f.lit < len(f.tokens) {
		f.prefix += "."
	}
	return f
}

func wild(token string) bool { return token == "*" || token == ">" }

// Literal tells that the filter matches one subject only: itself.
func (f *Filter) Literal() bool { return !f.subtree && f.lit == len(f.tokens) }

// Subtree tells that the filter matches exactly the subjects that begin with its prefix, and go on:
// those from its prefix up to, and without, to.
func (f *Filter) Subtree() (prefix, to string, ok bool) {
	if !f.subtree || f.prefix == "" {
		return "", "", false
	}
	return f.prefix, f.prefix[:len(f.prefix)-1] + "/", true
}

// Match tells whether the subject matches.
func (f *Filter) Match(s string) bool {
	if !strings.HasPrefix(s, f.prefix) {
		return false
	}
	return f.subtree && len(s) > len(f.prefix) || subject.Match(f.text, s)
}

// step judges a subject. If it does not match, seek is a string greater than the subject such that
// no subject from this one up to there matches; more is false if there is none at all from here
// on. Jumping to seek is what makes a wildcard in the middle cost what it matches: the subjects
// between are never visited.
func (f *Filter) step(subject string) (ok bool, seek string, more bool) {
	if !strings.HasPrefix(subject, f.prefix) {
		return false, f.prefix, subject < f.prefix
	}
	if f.subtree {
		return len(subject) > len(f.prefix), subject + "\x00", true
	}
	at := 0 // where the current token begins
	for i, want := range f.tokens {
		if at > len(subject) {
			return f.short(i, subject)
		}
		if want == ">" {
			return true, "", true
		}
		end := len(subject)
		if n := strings.IndexByte(subject[at:], '.'); n >= 0 {
			end = at + n
		}
		if want != "*" && want != subject[at:end] {
			return f.mismatch(i, subject, at)
		}
		at = end + 1
	}
	if at > len(subject) {
		return true, "", true
	}
	// The subject goes on where the filter ends, and so do all that share these tokens.
	return f.past(subject[:at])
}

// short continues step where the subject ends before token i of the filter. Under a literal token
// the matches are below the subject; a token that a wildcard took may also grow by bytes that sort
// before the dot: "a-.b" is between "a" and "a.b".
func (f *Filter) short(i int, subject string) (bool, string, bool) {
	if wild(f.tokens[i-1]) {
		return false, subject + "\x00", true
	}
	return false, subject + "." + f.least(i), true
}

// mismatch continues step where the literal token i of the filter is not the one of the subject.
func (f *Filter) mismatch(i int, subject string, at int) (bool, string, bool) {
	if to := subject[:at] + f.least(i); to > subject {
		return false, to, true
	}
	if i <= f.lit {
		return false, "", false
	}
	return f.past(subject[:at])
}

// least is the smallest possible continuation of a match from token i on.
func (f *Filter) least(i int) string {
	n := i
	for n < len(f.tokens) && !wild(f.tokens[n]) {
		n++
	}
	s := strings.Join(f.tokens[i:n], ".")
	if n > i && n < len(f.tokens) {
		s += "."
	}
	return s
}

// past goes on behind all subjects that start with head, which ends in a dot.
func (f *Filter) past(head string) (bool, string, bool) {
	return false, head[:len(head)-1] + "/", true // '/' is the byte after '.'
}
