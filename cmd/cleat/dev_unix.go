//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// devSignals end a development cluster.
var devSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// separate keeps the terminal's interrupt away from a server: who started it ends it, in order.
func separate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
}

func askToEnd(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
