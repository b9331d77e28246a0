package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		events string
		want   string // the last line
		shows  string // somewhere before
	}{
		"pass": {
			`{"Action":"output","Package":"p","Test":"A","Output":"quiet\n"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p","Elapsed":1}`,
			"1 passed, 0 failed, 0 skipped", "pass p 1.0s",
		},
		"fail": {
			`{"Action":"output","Package":"p","Test":"A","Output":"broken\n"}
			{"Action":"fail","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p","Test":"B"}
			{"Action":"fail","Package":"p"}`,
			"1 passed, 1 failed, 0 skipped", "broken",
		},
		"skip": {
			`{"Action":"output","Package":"p","Test":"A","Output":"no compiler\n"}
			{"Action":"skip","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`,
			"0 passed, 0 failed, 1 skipped", "no compiler",
		},
		"panic": {
			`{"Action":"output","Package":"p","Test":"A","Output":"goroutine 1\n"}
			{"Action":"fail","Package":"p"}`,
			"0 passed, 1 failed, 0 skipped", "goroutine 1",
		},
		"build": {
			`{"Action":"build-output","ImportPath":"p [p.test]","Output":"undefined: x\n"}
			{"Action":"build-fail","ImportPath":"p [p.test]"}
			{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			"0 passed, 1 failed, 0 skipped", "undefined: x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(c.events)); err != nil {
				t.Fatal(err)
			}
			r.close()
			if lines := strings.TrimSpace(out.String()); !strings.HasSuffix(lines, c.want) || !strings.Contains(lines, c.shows) {
				t.Errorf("printed:\n%s\nwant %q shown, and at the end %q", lines, c.shows, c.want)
			}
			if strings.Contains(out.String(), "quiet") {
				t.Error("the output of a test that passed is shown")
			}
		})
	}
}
