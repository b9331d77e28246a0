package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// parseSize reads bytes: a number (the parser has applied its suffix), or a string with one of the
// suffixes K, M, G and T.
func parseSize(raw any) (int64, error) {
	switch r := raw.(type) {
	case int64:
		return r, nil
	case string:
		if r == "" {
			return 0, nil
		}
		shift, ok := map[byte]int{'K': 10, 'M': 20, 'G': 30, 'T': 40}[r[len(r)-1]]
		if !ok {
			return 0, errors.New("sizes defined as strings must end in K, M, G, T")
		}
		n, err := strconv.ParseInt(r[:len(r)-1], 10, 64)
		if err != nil {
			return 0, err
		}
		if n > (1<<63-1)>>shift {
			return 0, fmt.Errorf("size %q is too big", r)
		}
		return n << shift, nil
	}
	return 0, errors.New("must be int64 or string")
}

// parseListen reads the ways to write an address to listen on.
func parseListen(raw any) (host string, port int, err error) {
	switch r := raw.(type) {
	case int64:
		return "", int(r), nil
	case string:
		host, p, err := net.SplitHostPort(r)
		if err != nil {
			return "", 0, fmt.Errorf("could not parse address string %q", r)
		}
		port, err := strconv.Atoi(p)
		if err != nil {
			return "", 0, fmt.Errorf("could not parse port %q", p)
		}
		return host, port, nil
	}
	return "", 0, fmt.Errorf("expected port or host:port, got %v", raw)
}

// parseRoute reads the URL of another server.
func parseRoute(s string) (*url.URL, error) {
	s = strings.TrimSpace(s)
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("error parsing route url [%q]", s)
	}
	return u, nil
}

// validSubject says whether s may stand in a permission: tokens between dots, none empty or with
// white space, ">" only at the end.
func validSubject(s string) bool {
	tokens := strings.Split(s, ".")
	for i, t := range tokens {
		if t == "" || strings.ContainsAny(t, " \t\n\r\f") {
			return false
		}
		if t == ">" && i != len(tokens)-1 {
			return false
		}
	}
	return true
}

// suggestion names the known word nearest to an unknown one, when one is near.
func suggestion(word string, known []string) string {
	word = strings.ToLower(word)
	best, bestDistance := "", len(word)/3+1
	for _, k := range known {
		d := distance(word, k)
		if d < bestDistance || d == bestDistance && best != "" && k < best {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours between a and b.
func distance(a, b string) int {
	var before, prev, cur []int
	for j := range len(b) + 1 {
		prev = append(prev, j)
	}
	for i := range len(a) {
		cur = append([]int{i + 1}, make([]int, len(b))...)
		for j := range len(b) {
			d := prev[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, prev[j+1]+1, cur[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			cur[j+1] = d
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}
