package compat

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// runTAP runs a test program of another language, which reports in the Test Anything Protocol, and
// makes a subtest of each of its results.
func runTAP(t *testing.T, dir string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CLEAT_COMPAT_URL="+shared().Addr, fmt.Sprint("CLEAT_COMPAT_REPLICAS=", replicas()))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	results := parseTAP(out)
	if len(results) == 0 {
		t.Fatalf("%s reported no test: %v\n%s%s", strings.Join(command, " "), err, out, stderr.Bytes())
	}
	failed := false
	for _, r := range results {
		failed = failed || !r.ok
		t.Run(r.name, func(t *testing.T) {
			if !r.ok {
				t.Errorf("\n%s", r.details)
			}
		})
	}
	if err != nil && !failed { // It ended before it could report what failed.
		t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, stderr.Bytes())
	}
}

type tapResult struct {
	name    string
	ok      bool
	details string
}

var tapLine = regexp.MustCompile(`^(not )?ok \d+ - (.*)$`)

// parseTAP returns the outermost results; nested ones are indented and count as details.
func parseTAP(out []byte) []tapResult {
	var results []tapResult
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if m := tapLine.FindStringSubmatch(lines.Text()); m != nil {
			results = append(results, tapResult{name: m[2], ok: m[1] == ""})
		} else if n := len(results); n > 0 && strings.HasPrefix(lines.Text(), " ") {
			results[n-1].details += lines.Text() + "\n"
		}
	}
	return results
}

func TestParseTAP(t *testing.T) {
	got := parseTAP([]byte("TAP version 13\n# Subtest: a\nok 1 - a\n    ok 1 - nested\nnot ok 2 - b c\n  why\n1..2\n"))
	want := []tapResult{{"a", true, "    ok 1 - nested\n"}, {"b c", false, "  why\n"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got %+v", got)
	}
}
