package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

// How bad a problem is; the exit codes of checks that monitoring systems run.
const (
	checkOK       = 0
	checkWarning  = 1 // all works, the next loss may not be survived
	checkCritical = 2 // something does not work
)

var checkNames = []string{"ok", "warning", "critical"}

// problem is something that is not as it should be.
type problem struct {
	Level string `json:"level"`
	Text  string `json:"text"`
	level int
}

// expectations are what an operator wants beside that everything works.
type expectations struct {
	servers int    // 0: as many as there are
	lag     uint64 // log entries that a replica may be behind
}

// lagMax is how far a replica may be behind before anybody is bothered.
const lagMax = 1000

// problems judges a view.
func (v *clusterView) problems(want expectations) []problem {
	var all []problem
	add := func(level int, format string, args ...any) {
		all = append(all, problem{checkNames[level], fmt.Sprintf(format, args...), level})
	}
	if m := v.Meta; m != nil && m.Leader == "" {
		add(checkCritical, "the cluster has no meta leader: nothing can be created or changed")
	}
	offline := v.offlineReplicas()
	for _, name := range slices.Sorted(maps.Keys(offline)) {
		if v.server(name) == nil {
			add(checkWarning, "server %s is gone, and %s have their place there", name, plural(offline[name], "replica"))
		}
	}
	online := 0
	for _, s := range v.Servers {
		switch {
		case !s.Online && offline[s.Name] > 0:
			add(checkWarning, "server %s does not answer, and with it %s", s.Name, plural(offline[s.Name], "replica"))
			continue
		case !s.Online:
			add(checkWarning, "server %s does not answer", s.Name)
			continue
		case s.Unhealthy != "":
			add(checkCritical, "server %s is not healthy: %s", s.Name, s.Unhealthy)
		}
		online++
	}
	if want.servers > 0 && online != want.servers {
		add(checkWarning, "servers that answer: %d, expected: %d", online, want.servers)
	}
	for _, g := range v.Groups {
		v.judge(g, want, add)
	}
	return all
}

// offlineReplicas counts, by server, the replicas that their groups do without. They have one cause, the server.
func (v *clusterView) offlineReplicas() map[string]int {
	n := make(map[string]int)
	for _, g := range v.Groups {
		for _, m := range g.Members {
			if m.Offline {
				n[m.Name]++
			}
		}
	}
	return n
}

// judge looks at one group.
func (v *clusterView) judge(g *groupView, want expectations, add func(level int, format string, args ...any)) {
	name := title(g.Stream)
	if v.System && g.Account != "$G" {
		name += " of account " + g.Account
	}
	if v.Name == "" {
		return // A server alone is the leader of all it has.
	}
	online, quorum := v.online(g)
	switch {
	case online < quorum:
		add(checkCritical, "%s has %d of %d replicas and needs %d: it takes no writes", name, online, g.Replicas, quorum)
		return
	case g.Leader == "":
		add(checkCritical, "%s has no leader: it takes no writes", name)
		return
	}
	if have := len(g.Members) + 1; have < g.Replicas {
		add(checkWarning, "%s has %d replicas instead of %d", name, have, g.Replicas)
	}
	for _, m := range g.Members {
		switch {
		case m.Offline: // Told of with its server.
		case m.Lag > want.lag:
			add(checkWarning, "%s: the replica on %s is %d log entries behind", name, m.Name, m.Lag)
		case !m.Current:
			add(checkWarning, "%s: the replica on %s is not current", name, m.Name)
		}
	}
}

// verdict is the worst of the problems.
func verdict(problems []problem) int {
	worst := checkOK
	for _, p := range problems {
		worst = max(worst, p.level)
	}
	return worst
}

// problemsShown is how many problems people are shown; programs are told all.
const problemsShown = 20

// showProblems lists problems, the worst first.
func (r *clientRun) showProblems(problems []problem) {
	sorted := slices.Clone(problems)
	slices.SortStableFunc(sorted, func(a, b problem) int { return b.level - a.level })
	for _, p := range sorted[:min(len(sorted), problemsShown)] {
		r.out.Printf("  %s: %s\n", p.Level, p.Text)
	}
	if more := len(sorted) - problemsShown; more > 0 {
		r.out.Printf("  and %d more; all of them: -o json\n", more)
	}
}

// checkRecord is what `cleat cluster check` found.
type checkRecord struct {
	Status   string    `json:"status"`
	Problems []problem `json:"problems"`
}

func newCheckRecord(problems []problem) checkRecord {
	return checkRecord{checkNames[verdict(problems)], append([]problem{}, problems...)}
}

func (k *clusterCommand) checkCommand() *cobra.Command {
	want := expectations{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a cluster, for a monitoring system",
		Long: `Checks a cluster and exits with 0 if all is well, 1 if something needs attention but everything works, 2 if
something does not work, or no server can be asked. The first line of the output says which; the others say why.`,
		Args: cli.Args(""),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := k.run(func(ctx context.Context, r *clientRun, _ []string) error { return r.check(ctx, want) })(cmd, args)
			var verdict *cli.Error
			if err == nil || errors.As(err, &verdict) && verdict.Err == nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "CRITICAL: %v\n", err)
			return &cli.Error{Code: checkCritical}
		},
	}
	cmd.Flags().IntVar(&want.servers, "servers", 0, "warn unless there are `N` servers")
	cmd.Flags().Uint64Var(&want.lag, "lag", lagMax, "warn if a replica is more than `N` log entries behind")
	return cmd
}

func (r *clientRun) check(ctx context.Context, want expectations) error {
	v, err := r.look(ctx)
	if err != nil {
		return err
	}
	problems := v.problems(want)
	code := verdict(problems)
	if r.out.Structured() {
		if err := r.out.Object(newCheckRecord(problems)); err != nil {
			return err
		}
	} else {
		word := strings.ToUpper(checkNames[code])
		switch len(problems) {
		case 0:
			r.out.Printf("OK: %s\n", v.summary())
		case 1:
			r.out.Printf("%s: %s\n", word, problems[0].Text)
		default:
			r.out.Printf("%s: %d problems\n", word, len(problems))
			r.showProblems(problems)
		}
	}
	if code == checkOK {
		return nil
	}
	return &cli.Error{Code: code}
}
