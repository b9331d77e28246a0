package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// offline marks commands that do not connect to a server: the connection flags are nothing to them.
var offline = map[string]string{"offline": "true"}

// usageTemplate is cobra's, but that the connection flags, which are many and the same everywhere, have a
// page of their own.
const usageTemplate = `Usage:{{if and .Runnable (not .HasAvailableSubCommands)}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if gt (len .Aliases) 0}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Available Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if not (or (index .Annotations "offline") (and .HasParent (index .Parent.Annotations "offline")))}}

Flags for the connection to a server, such as --server, --user and --context: cleat help connection{{end}}{{if .HasAvailableSubCommands}}

Use "{{.CommandPath}} [command] --help" for more information about a command.{{end}}
`

// newConnectionTopic is the page about the flags that root has for all commands.
func newConnectionTopic(root *cobra.Command) *cobra.Command {
	topic := &cobra.Command{Use: "connection", Short: "How to connect to a server"}
	topic.SetHelpFunc(func(c *cobra.Command, _ []string) {
		fmt.Fprintf(c.OutOrStdout(), `Every command that talks to a server takes these flags, before or after its name. A flag goes before its
environment variable, and both before the context: the one that --context names, or the one that the nats tool has
selected.

%s`, root.PersistentFlags().FlagUsages())
	})
	return topic
}
