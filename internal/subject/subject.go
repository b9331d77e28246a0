// Package subject holds the rules of subjects: what is valid, what a wildcard matches, when two
// patterns overlap, the trie that finds subscriptions by subject, and the transform language.
//
// It owns names only. Permissions, delivery and storage are the business of those who import it;
// it imports nothing of ours. All functions are pure; Trie is safe for concurrent use.
//
// A subject is a list of tokens joined by dots; a token is one or more bytes without white space.
// In a pattern the token "*" stands for exactly one token and a last token ">" for one or more.
package subject

import "strings"

const (
	sep  = '.'
	star = "*"
	tail = ">"
)

// Valid tells whether s may be subscribed to: no empty token, no white space, and ">" only as
// the last token.
func Valid(s string) bool {
	if s == "" {
		return false
	}
	for rest, more := s, true; more; {
		var tok string
		tok, rest, more = strings.Cut(rest, ".")
		if tok == "" {
			return false
		}
		if tok == tail && more {
			return false
		}
	}
	return !hasSpace(s)
}

// ValidLiteral tells whether s is a valid subject without wildcards, so that a message may bear it.
func ValidLiteral(s string) bool { return Valid(s) && !HasWildcard(s) }

// ValidToken tells whether s can stand as one literal token of a subject.
func ValidToken(s string) bool {
	return s != "" && s != star && s != tail && !hasSpace(s) && strings.IndexByte(s, sep) < 0
}

func hasSpace(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ', '\t', '\n', '\r', '\f':
			return true
		}
	}
	return false
}

// HasWildcard tells whether s has a token that is a wildcard. "foo*" and ">x" are literal tokens.
func HasWildcard(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '*' && s[i] != '>' {
			continue
		}
		first := i == 0 || s[i-1] == sep
		last := i+1 == len(s) || s[i+1] == sep
		if s[i] == '>' {
			last = i+1 == len(s)
		}
		if first && last {
			return true
		}
	}
	return false
}

// Match tells whether the pattern matches the subject, whose tokens are all taken literally.
func Match(pattern, subject string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, ".")
		if p == tail && !pmore {
			return true
		}
		s, srest, smore := strings.Cut(subject, ".")
		if p != s && p != star {
			return false
		}
		if !pmore || !smore {
			return pmore == smore
		}
		pattern, subject = prest, srest
	}
}

// Overlap tells whether some literal subject is matched by both patterns.
func Overlap(a, b string) bool {
	for {
		x, xrest, xmore := strings.Cut(a, ".")
		y, yrest, ymore := strings.Cut(b, ".")
		if x == tail && !xmore || y == tail && !ymore {
			return true
		}
		if x != y && x != star && y != star {
			return false
		}
		if !xmore || !ymore {
			return xmore == ymore
		}
		a, b = xrest, yrest
	}
}

// Subset tells whether every subject that a matches is matched by b too.
func Subset(a, b string) bool {
	for {
		x, xrest, xmore := strings.Cut(a, ".")
		y, yrest, ymore := strings.Cut(b, ".")
		if y == tail && !ymore {
			return true
		}
		if x == tail && !xmore {
			return false
		}
		if x != y && y != star {
			return false
		}
		if !xmore || !ymore {
			return xmore == ymore
		}
		a, b = xrest, yrest
	}
}

// CountTokens is the number of tokens of s; none for the empty subject.
func CountTokens(s string) int {
	if s == "" {
		return 0
	}
	return strings.Count(s, ".") + 1
}

// Token is the i-th token of s, counted from one; empty if there is none.
func Token(s string, i int) string {
	for ; i >= 1; i-- {
		tok, rest, more := strings.Cut(s, ".")
		if i == 1 {
			return tok
		}
		if !more {
			return ""
		}
		s = rest
	}
	return ""
}
