package compat

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestC compiles the suite in c against the installed C library and runs it.
func TestC(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		needs(t, "a C compiler", "install one as cc")
	}
	if exec.Command(compiler, "-E", "-include", "nats/nats.h", "-x", "c", "/dev/null").Run() != nil {
		needs(t, "the NATS library for C", "on Debian: apt-get install libnats-dev")
	}
	program := filepath.Join(t.TempDir(), "kv")
	out, err := exec.Command(compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-o", program, "c/kv.c", "-lnats").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	runTAP(t, ".", program)
}
