package cli

import (
	"encoding/base64"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Time is a time as the text format shows it: local, to the second.
func Time(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// Comma is a whole number with its thousands set apart.
func Comma[T ~int | ~int32 | ~int64 | ~uint32 | ~uint64](n T) string {
	s := fmt.Sprint(n)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Bytes is a size in binary units, to one decimal below ten: "503 B", "1.0 KiB", "12 MiB".
func Bytes(n uint64) string {
	if n < 10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 {
		value /= 1024
		unit++
	}
	value = math.Floor(value*10+0.5) / 10
	if value < 10 {
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}

const day = 24 * time.Hour

// Age is a duration for people: two decimals below a minute, then whole units from the largest on,
// days and years of 365 days included.
func Age(d time.Duration) string {
	switch {
	case d == math.MaxInt64:
		return "never"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	secs := int64(d / time.Second)
	parts := []struct {
		size int64
		unit string
	}{{365 * 86400, "y"}, {86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}}
	var b strings.Builder
	for _, p := range parts {
		if b.Len() > 0 || secs >= p.size {
			fmt.Fprintf(&b, "%d%s", secs/p.size, p.unit)
		}
		secs %= p.size
	}
	return b.String()
}

var (
	durationRe = regexp.MustCompile(`^([+-]?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|[smhdDwWMyY]))+)$`)
	unitRe     = regexp.MustCompile(`(\d+(?:\.\d+)?)([a-zA-Zµ]+)`)
)

// ParseDuration reads what time.ParseDuration reads, and days, weeks, months of 30 days (M) and years
// of 365 days, as the nats tool does.
func ParseDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	m := durationRe.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("invalid duration %q: write for example 90s, 15m, 24h, 7d or 1y", s)
	}
	units := map[string]time.Duration{
		"d": day, "D": day, "w": 7 * day, "W": 7 * day, "M": 30 * day, "y": 365 * day, "Y": 365 * day,
	}
	var total float64
	for _, part := range unitRe.FindAllStringSubmatch(m[2], -1) {
		unit, ok := units[part[2]]
		if !ok {
			unit, _ = time.ParseDuration("1" + part[2])
		}
		n, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return 0, fmt.Errorf("invalid duration %q: %w", s, err)
		}
		total += n * float64(unit)
	}
	if total > math.MaxInt64 {
		return 0, fmt.Errorf("invalid duration %q: too long", s)
	}
	if m[1] == "-" {
		total = -total
	}
	return time.Duration(total), nil
}

// Duration is a flag's value that ParseDuration reads.
type Duration struct{ d *time.Duration }

// NewDuration is a Duration that sets p, which starts as value.
func NewDuration(p *time.Duration, value time.Duration) Duration {
	*p = value
	return Duration{p}
}

func (d Duration) Type() string { return "DURATION" }

func (d Duration) Set(s string) (err error) {
	*d.d, err = ParseDuration(s)
	return err
}

// String is "" for zero, so that help shows no default where there is none.
func (d Duration) String() string {
	if d.d == nil || *d.d == 0 {
		return ""
	}
	return d.d.String()
}

var sizeRe = regexp.MustCompile(`^(\d+)([A-Za-z]*)$`)

// ParseBytes reads a size such as 512, 64KB or 1GiB; units are powers of 1024. Anything negative is
// -1, no limit. A size above limit is an error.
func ParseBytes(s string, limit int64) (int64, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "-") {
		return -1, nil
	}
	m := sizeRe.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("invalid bytes specification %s: bytes must end in B, K, KB, M, MB, G, GB, T or TB", s)
	}
	shifts := map[string]int{
		"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20,
		"G": 30, "GB": 30, "GIB": 30, "T": 40, "TB": 40, "TIB": 40,
	}
	shift, ok := shifts[strings.ToUpper(m[2])]
	if !ok {
		return 0, fmt.Errorf("invalid bytes specification %s: bytes must end in B, K, KB, M, MB, G, GB, T or TB", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > limit>>shift {
		return 0, fmt.Errorf("bytes value out of allowed range: maximum value %s", Comma(limit))
	}
	return n << shift, nil
}

// Size is a flag's value that ParseBytes reads.
type Size struct {
	n     *int64
	limit int64
	text  string
}

// NewSize is a Size that sets p, up to limit.
func NewSize(p *int64, limit int64) *Size { return &Size{n: p, limit: limit} }

func (s *Size) Type() string   { return "BYTES" }
func (s *Size) String() string { return s.text }

func (s *Size) Set(text string) (err error) {
	*s.n, err = ParseBytes(text, s.limit)
	s.text = text
	return err
}

// Printable reports whether a value is printable ASCII, which is what the text format shows as it is.
func Printable(value []byte) bool {
	for _, b := range value {
		if b > unicode.MaxASCII || !unicode.IsPrint(rune(b)) {
			return false
		}
	}
	return true
}

// Display is a value as the text format shows it: itself when it is printable ASCII, else its base64.
func Display(value []byte) string {
	if Printable(value) {
		return string(value)
	}
	return base64.StdEncoding.EncodeToString(value)
}

// Abbreviate shortens a text of over 40 characters to its two ends.
func Abbreviate(s string) string {
	if len(s) <= 40 {
		return s
	}
	return s[:15] + "..." + s[len(s)-15:]
}

// Encoded is a value for the structured formats: text when it is valid UTF-8, else base64, and which
// of the two.
func Encoded(value []byte) (text, encoding string) {
	if utf8.Valid(value) {
		return string(value), "text"
	}
	return base64.StdEncoding.EncodeToString(value), "base64"
}
