package monitor

import (
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// queryReader reads the options of one request and keeps the first thing wrong with them.
type queryReader struct {
	values url.Values
	err    error
}

func (q *queryReader) flag(name string) bool {
	s := q.values.Get(name)
	if s == "" {
		return false
	}
	b, err := strconv.ParseBool(s)
	if err != nil && q.err == nil {
		q.err = fmt.Errorf("Error decoding boolean for '%s': %v", name, err)
	}
	return b
}

func (q *queryReader) number(name string) int {
	s := q.values.Get(name)
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil && q.err == nil {
		q.err = fmt.Errorf("Error decoding int for '%s': %v", name, err)
	}
	return n
}

func (q *queryReader) uint(name string) uint64 {
	s := q.values.Get(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && q.err == nil {
		q.err = fmt.Errorf("Error decoding uint64 for '%s': %v", name, err)
	}
	return n
}

// window cuts what lies from offset on, at most limit of it.
func window[T any](all []T, offset, limit int) []T {
	offset = min(max(offset, 0), len(all))
	all = all[offset:]
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// uptime writes a duration with days and years, as nats-server does.
func uptime(d time.Duration) string {
	s := int64(d / time.Second)
	minutes, hours, days := s/60, s/3600, s/86400
	years := days / 365
	switch {
	case years > 0:
		return fmt.Sprintf("%dy%dd%dh%dm%ds", years, days%365, hours%24, minutes%60, s%60)
	case days > 0:
		return fmt.Sprintf("%dd%dh%dm%ds", days, hours%24, minutes%60, s%60)
	case hours > 0:
		return fmt.Sprintf("%dh%dm%ds", hours, minutes%60, s%60)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, s%60)
	}
	return fmt.Sprintf("%ds", s)
}
