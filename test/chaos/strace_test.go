//go:build linux && faults

package chaos

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/test/process"
)

// traced is the command of a server whose system calls strace interferes with, as its options say. The
// server stays a child of the test, which can stop and kill it; strace ends with it.
func traced(t *testing.T, options ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatalf("%v; on Debian: apt-get install strace", err)
	}
	command, err := process.Command()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat([]string{"strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"}, options, command)
}
