package cli

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs a command tree on arguments and returns the exit code. Errors are printed here and
// nowhere else.
func Main(root *cobra.Command, args []string) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		e := Usagef("%w", err)
		e.Hints = []string{"see " + cmd.CommandPath() + " --help"}
		return e
	})
	root.SetArgs(NumericArgs(root, args))
	if err := root.Execute(); err != nil {
		return Report(root.ErrOrStderr(), err)
	}
	return ExitOK
}

// Args checks the number of arguments against a pattern such as "<bucket> [key]".
func Args(pattern string) cobra.PositionalArgs {
	names := strings.Fields(pattern)
	return func(cmd *cobra.Command, args []string) error {
		usage := "usage: " + cmd.CommandPath() + " " + pattern
		if len(args) > len(names) {
			e := Usagef("unexpected argument %q", args[len(names)])
			e.Hints = []string{usage}
			return e
		}
		if len(args) < len(names) && names[len(args)][0] == '<' {
			e := Usagef("required argument '%s' not provided", strings.Trim(names[len(args)], "<>"))
			e.Hints = []string{usage}
			return e
		}
		return nil
	}
}

// suggestionDistance is how many letters a command's name may be off to be suggested.
const suggestionDistance = 2

// natsCommands are those of the nats tool that people look for here.
var natsCommands = []string{"account", "bench", "con", "consumer", "context", "ctx", "events", "object", "pub", "rep", "reply", "req", "request",
	"rtt", "s", "schema", "service", "str", "stream", "sub", "top", "traffic"}

// Group makes cmd one that only holds others: alone it prints its help, an unknown subcommand is an
// error.
func Group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		e := Usagef("unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = suggestionDistance
		for _, s := range cmd.SuggestionsFor(args[0]) {
			e.Hints = append(e.Hints, "did you mean "+s+"?")
		}
		if !cmd.HasParent() && slices.Contains(natsCommands, args[0]) {
			e.Hints = append(e.Hints, "the nats tool has this command, and works with cleat: nats "+strings.Join(args, " "))
		}
		e.Hints = append(e.Hints, "see "+cmd.CommandPath()+" --help")
		return e
	}
	return cmd
}

// Negatable declares a switch and its opposite: --name and --no-name.
func Negatable(fs *pflag.FlagSet, p *bool, name string, value bool, usage string) {
	fs.BoolVar(p, name, value, usage+" (or --no-"+name+")")
	fs.Var(inverse{p}, "no-"+name, "")
	no := fs.Lookup("no-" + name)
	no.NoOptDefVal, no.Hidden = "true", true
}

// inverse is a switch that clears what it points to.
type inverse struct{ p *bool }

func (i inverse) Type() string   { return "bool" }
func (i inverse) String() string { return "false" }

func (i inverse) Set(s string) error {
	off, err := strconv.ParseBool(s)
	*i.p = !off
	return err
}

// Changed reports whether a flag, or its opposite, was given.
func Changed(fs *pflag.FlagSet, name string) bool {
	return fs.Changed(name) || fs.Changed("no-"+name)
}

// NumericArgs makes negative numbers, which look like flags, arguments: it moves all arguments behind
// a "--". No command has a flag that is a digit.
func NumericArgs(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root || cmd.DisableFlagParsing {
		return args
	}
	cmd.InheritedFlags() // Merges the parents' flags into cmd's.
	var options, values []string
	found := false
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		switch {
		case a == "--":
			values = append(values, rest[i+1:]...)
			i = len(rest)
		case negativeRe.MatchString(a):
			found = true
			values = append(values, a)
		case a == "-" || !strings.HasPrefix(a, "-"):
			values = append(values, a)
		default:
			options = append(options, a)
			if takesNext(cmd.Flags(), a) && i+1 < len(rest) {
				i++
				options = append(options, rest[i])
			}
		}
	}
	if !found {
		return args
	}
	out := strings.Fields(cmd.CommandPath())[1:]
	out = append(append(out, options...), "--")
	return append(out, values...)
}

var negativeRe = regexp.MustCompile(`^-\.?[0-9]`)

// takesNext reports whether the argument after the flag is its value.
func takesNext(fs *pflag.FlagSet, arg string) bool {
	if strings.Contains(arg, "=") {
		return false
	}
	var f *pflag.Flag
	if name, long := strings.CutPrefix(arg, "--"); long {
		f = fs.Lookup(name)
	} else if len(arg) == 2 {
		f = fs.ShorthandLookup(arg[1:])
	}
	return f != nil && f.NoOptDefVal == ""
}
