package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wallClocks are the files that make a number of the wall clock's time, or measure against one, and why they may. All else
// keeps the time.Time, whose monotonic part does not step when a clock is set: what waits until a number is reached may
// wait for hours after a step back.
var wallClocks = map[string]string{
	"cluster/cluster.go":  "the leader's stamp; the machine lets none go back in a stream",
	"cluster/recover.go":  "such a stamp, of a group that begins anew",
	"cluster/maintain.go": "expiry, which goes by the stamps",
	"cluster/compare.go":  "the age of a stamp",
	"jetstream/clock.go":  "the clock that does not step",
}

var wallClock = regexp.MustCompile(`(time\.Now\(\)|\bnow)(\.Add\(.*\))?\.UnixNano\(\)|(Since|Until|Sub|After|Before)\(time\.Unix`)

func TestNobodyWaitsForTheWallClock(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for n, line := range strings.Split(string(text), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if !wallClock.MatchString(code) {
				continue
			}
			used[filepath.ToSlash(path)] = true
			if wallClocks[filepath.ToSlash(path)] == "" {
				t.Errorf("%s:%d: the wall clock as a number: %s", path, n+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range wallClocks { // order: each is reported alone
		if !used[path] {
			t.Errorf("%s is listed and makes no such number any more", path)
		}
	}
}
