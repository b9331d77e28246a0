package main

import (
	"slices"
	"strings"
	"testing"
)

// No page shows a password that stood in the command line.
func TestHideSecrets(t *testing.T) {
	for line, want := range map[string]string{
		"cleat server -p 1 --user u --pass secret":    "cleat server -p 1 --user u --pass [REDACTED]",
		"-pass=secret -auth secret":                   "-pass=[REDACTED] -auth [REDACTED]",
		"--auth=a=b -m 8222":                          "--auth=[REDACTED] -m 8222",
		"-routes nats://u:secret@h:1,nats://t@i:2 -D": "-routes nats://[REDACTED]@h:1,nats://[REDACTED]@i:2 -D",
		"-cluster=nats://u:secret@h:1":                "-cluster=nats://[REDACTED]@h:1",
		"pass x -c file --pass":                       "pass x -c file --pass",
	} {
		args := strings.Fields(line)
		hideSecrets(args)
		if !slices.Equal(args, strings.Fields(want)) {
			t.Errorf("%s: %s", line, strings.Join(args, " "))
		}
	}
}
