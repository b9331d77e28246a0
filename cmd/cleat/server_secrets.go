package main

import (
	"regexp"
	"slices"
	"strings"
)

var (
	secretFlags = []string{"pass", "auth"}
	urlSecretRe = regexp.MustCompile(`(://)[^/@\s]+@`)
)

const redacted = "[REDACTED]"

// hideSecrets replaces passwords and tokens in a command line that was read. The monitoring pages show it,
// to whoever can reach them.
func hideSecrets(args []string) {
	for i, arg := range args {
		args[i] = urlSecretRe.ReplaceAllString(arg, "${1}"+redacted+"@")
		name, _, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-") || !slices.Contains(secretFlags, name):
		case given:
			args[i] = arg[:strings.Index(arg, "=")+1] + redacted
		case i+1 < len(args):
			args[i+1] = redacted
		}
	}
}
