//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// devSignals end a development cluster.
var devSignals = []os.Signal{os.Interrupt}

func separate(*exec.Cmd) {}

// askToEnd kills: there is no other way, and nothing acknowledged is lost by it.
func askToEnd(p *os.Process) error { return p.Kill() }
