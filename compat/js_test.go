package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestJS runs the suites of js with the packages that "npm ci" installed there.
func TestJS(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		needs(t, "node", "install Node.js 20 or later")
	}
	if _, err := os.Stat("js/node_modules"); err != nil {
		needs(t, "compat/js/node_modules", "run: make deps")
	}
	files, err := filepath.Glob("js/test/*.test.js")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no suites")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".test.js"), func(t *testing.T) {
			t.Parallel()
			runTAP(t, "js", node, "--test-reporter=tap", "test/"+filepath.Base(file))
		})
	}
}
