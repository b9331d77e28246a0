// Command cleat is the server and the command line tool.
//
// It owns how a process begins and ends: which of its two faces it shows, the configuration, the
// log, signals, and the order in which the parts of a server start and stop. It leaves everything a
// server does to the packages below internal.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
	"github.com/cleatkv/cleat/internal/config"
)

// serverName is the name under which the binary behaves as nats-server does: images and units call
// it so.
const serverName = "nats-server"

func main() {
	os.Exit(dispatch(os.Args))
}

// dispatch shows the face that the arguments ask for and returns the exit code.
func dispatch(args []string) int {
	exe, args := programName(args[0]), args[1:]
	if exe == serverName {
		return serverMain(exe, args)
	}
	root := newRootCommand()
	if wantsServer(root, args) {
		return serverMain(exe, args)
	}
	if len(args) > 0 && args[0] == "server" {
		return serverMain(exe, args[1:])
	}
	return cli.Main(root, args)
}

// programName is what messages begin with, whatever the file is called by the build.
func programName(arg0 string) string {
	if strings.TrimSuffix(filepath.Base(arg0), ".exe") == serverName {
		return serverName
	}
	return "cleat"
}

// wantsServer says whether these are the flags of a server without the word: flags, and no command
// among them. nats-server's flags have one dash, which the tool's cannot have.
func wantsServer(root *cobra.Command, args []string) bool {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return false
	}
	if slices.Contains([]string{"-h", "--help", "-help", "-v", "--version", "-version"}, args[0]) {
		return false
	}
	return !slices.ContainsFunc(args, func(a string) bool {
		return slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == a })
	})
}

// newRootCommand is the tree of commands.
func newRootCommand() *cobra.Command {
	root := cli.Group(&cobra.Command{
		Use:   "cleat",
		Short: "A strongly consistent Key/Value store that speaks the NATS protocol",
		Example: `  cleat server                     a server for this machine; its data is in ./cleat-data
  cleat kv add my_kv_store         a bucket, in another terminal
  cleat dev                        a cluster of three, for trying things out`,
		Version: config.Version,
	})
	root.SetVersionTemplate(versionText("cleat") + "\n")
	options := connectionFlags(root)
	root.SetUsageTemplate(usageTemplate)
	root.AddCommand(newConnectionTopic(root), newServerCommand(), newDevCommand(), newVersionCommand(), newKVCommand(options), newClusterCommand(options), newInspectCommand())
	return root
}

// newServerCommand is in the tree for its help; dispatch never lets it run, since its flags are not
// of the kind the tree reads.
func newServerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                "server [options]",
		Annotations:        offline,
		Short:              "Run a server; it takes nats-server's options",
		DisableFlagParsing: true,
		Run:                func(*cobra.Command, []string) {},
	}
	cmd.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), usageText("cleat")) })
	return cmd
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "Show the version",
		Annotations: offline,
		Args:        cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), versionText("cleat"))
		},
	}
}

// versionText is one line; the first version is the product's, the second what clients are told.
func versionText(exe string) string {
	if exe == serverName {
		return fmt.Sprintf("%s: v%s (cleat v%s)", exe, config.ProtocolVersion, config.Version)
	}
	return fmt.Sprintf("%s: v%s (NATS protocol v%s)", exe, config.Version, config.ProtocolVersion)
}

// serverMain runs a server, or does one of the small things its flags ask for.
func serverMain(exe string, args []string) int {
	f, err := config.ParseFlags(exe, args)
	hideSecrets(os.Args)
	if err != nil {
		if exe == serverName { // Scripts may look for what it prints.
			fmt.Fprintf(os.Stderr, "%v\n\n%s", err, usageText(exe))
			return 2
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n  see cleat server --help\n", exe, err)
		return 2
	}
	if len(f.Args) > 0 {
		switch strings.ToLower(f.Args[0]) {
		case "version":
			f.Version = true
		case "help":
			f.Help = true
		default:
			return fail(exe, fmt.Errorf("unrecognized command: %q", f.Args[0]))
		}
	}
	switch {
	case f.Version:
		fmt.Println(versionText(exe))
		return 0
	case f.Help:
		fmt.Print(usageText(exe))
		return 0
	case f.HelpTLS:
		fmt.Print(tlsUsageText())
		return 0
	case f.Signal != "":
		return fail(exe, sendSignal(exe, f.Signal))
	case f.Check && f.ConfigFile == "":
		return fail(exe, errors.New("must specify [-c, --config] option to check configuration file syntax"))
	}
	f.AsNATS = exe == serverName
	c, err := config.Load(f)
	if err != nil {
		return fail(exe, err)
	}
	if f.Check {
		return checked(exe, c)
	}
	err = serve(f, c)
	if err != nil && c.Log.OnStderr() {
		return 1 // It stands there already.
	}
	return fail(exe, err)
}

// checked reports on a configuration that could be read.
func checked(exe string, c *config.Config) int {
	if len(c.Misuses) > 0 {
		return fail(exe, errors.New(strings.Join(c.Misuses, "\n")))
	}
	for _, w := range c.Warnings {
		fmt.Fprintf(os.Stderr, "%s: warning: %s\n", exe, w)
	}
	fmt.Fprintf(os.Stderr, "%s: configuration file %s is valid (%s)\n", exe, c.File, c.Digest)
	return 0
}

// fail prints an error, if there is one, and returns the exit code.
func fail(exe string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", exe, err)
	return 1
}
