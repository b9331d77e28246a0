package cli

import (
	"math"
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                            "0s",
		1500 * time.Nanosecond:       "2µs",
		22*time.Millisecond + 400000: "22ms",
		3420 * time.Millisecond:      "3.42s",
		30 * time.Second:             "30.00s",
		90 * time.Second:             "1m30s",
		2 * time.Hour:                "2h0m0s",
		24 * time.Hour:               "1d0h0m0s",
		366*day + 61*time.Second:     "1y1d0h1m1s",
		math.MaxInt64:                "never",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestBytesAndComma(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 9: "9 B", 503: "503 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB",
		1536: "1.5 KiB", 12<<20 + 3<<18: "13 MiB", 1 << 40: "1.0 TiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -1: "-1"} {
		if got := Comma(n); got != want {
			t.Errorf("Comma(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1d": day, "1d12h": 36 * time.Hour,
		"2w": 14 * day, "1M": 30 * day, "1y": 365 * day, "1.5d": 36 * time.Hour, "-1d": -day, "0": 0,
		"1d500ms": day + 500*time.Millisecond,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "1", "d", "1x", "1d garbage", "999999999y"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", s, got)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{
		"512": 512, "1K": 1024, "64KB": 64 << 10, "10mb": 10 << 20, "1GiB": 1 << 30, "2T": 2 << 40,
		"-1": -1, " 7B ": 7,
	} {
		if got, err := ParseBytes(s, math.MaxInt64); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "K", "10X", "1.5K", "9999999999999999999", "9999999T"} {
		if got, err := ParseBytes(s, math.MaxInt64); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", s, got)
		}
	}
	if got, err := ParseBytes("2G", math.MaxInt32); err == nil {
		t.Errorf("2G in 32 bits = %d, want an error", got)
	}
}

func TestDisplayAndEncoded(t *testing.T) {
	for _, c := range []struct{ value, display, text, encoding string }{
		{"plain", "plain", "plain", "text"},
		{"", "", "", "text"},
		{"two\nlines", "dHdvCmxpbmVz", "two\nlines", "text"},
		{"é", "w6k=", "é", "text"},
		{"\xff\x00", "/wA=", "/wA=", "base64"},
	} {
		if got := Display([]byte(c.value)); got != c.display {
			t.Errorf("Display(%q) = %q, want %q", c.value, got, c.display)
		}
		if text, encoding := Encoded([]byte(c.value)); text != c.text || encoding != c.encoding {
			t.Errorf("Encoded(%q) = %q, %q, want %q, %q", c.value, text, encoding, c.text, c.encoding)
		}
	}
	long := "the first fifteen are kept, and the last too"
	if got, want := Abbreviate(long), "the first fifte...nd the last too"; got != want {
		t.Errorf("Abbreviate = %q, want %q", got, want)
	}
}
