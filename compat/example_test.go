package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatkv/cleat/test/process"
)

// TestExample runs what the README shows first, with cleat as the server whatever is under test.
func TestExample(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		needs(t, "node", "install Node.js 20 or later")
	}
	if _, err := os.Stat("js/node_modules"); err != nil {
		needs(t, "compat/js/node_modules", "run: make deps")
	}
	command, err := process.Command()
	must(t, err)
	binary := command[0]
	if filepath.Base(binary) != "cleat" {
		binary, err = process.Build()
		must(t, err)
	}
	cmd := exec.Command("../scripts/example.sh")
	cmd.Env = append(os.Environ(), "CLEAT="+binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
