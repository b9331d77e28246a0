package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// moveRecord is a change of leader.
type moveRecord struct {
	Account *string `json:"account,omitempty"` // of all accounts, which one's
	Stream  *string `json:"stream"`            // null for the meta group
	Bucket  *string `json:"bucket"`            // null unless the stream is one
	From    string  `json:"from"`
	To      string  `json:"to"`
}

func (k *clusterCommand) stepDownCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "step-down <bucket>",
		Short: "Have another server lead a bucket, a stream, or the cluster",
		Long: `Has the leader of a bucket hand over to another server. The name of a stream will do too, and "meta" is the group
that knows which streams exist and where, for users of the system account. Nothing is lost, and writes under way are
answered or tried again by clients.`,
		Args:              cli.Args("<bucket>"),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			if args[0] == metaName {
				return r.stepDownMeta(ctx, to)
			}
			g, err := r.group(ctx, args[0])
			if err != nil {
				return err
			}
			if g.Replicas == 1 {
				return &cli.Error{Code: cli.ExitConflict, Err: fmt.Errorf("%s has one replica, on %s: no other server could lead it", title(g.Stream), g.Leader),
					Hints: []string{"give it more: cleat kv edit " + args[0] + " --replicas 3"}}
			}
			m, err := r.stepDown(ctx, g, to)
			if err != nil {
				return err
			}
			return r.showMoves([]moveRecord{m})
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "the `SERVER` that is to lead; else the one that is most up to date")
	k.completeTo(cmd, "to")
	return cmd
}

// group finds a stream by the name of a bucket or by its own, as its leader sees it.
func (r *clientRun) group(ctx context.Context, name string) (*groupView, error) {
	for _, stream := range []string{"KV_" + name, name} {
		s, err := r.JS.Stream(ctx, stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, explain(err, name, "")
		}
		return groupOf(s.CachedInfo()), nil
	}
	return nil, noStream(name)
}

func groupOf(info *jetstream.StreamInfo) *groupView {
	g := &groupView{Stream: info.Config.Name, Replicas: max(1, info.Config.Replicas)}
	if c := info.Cluster; c != nil {
		g.Leader = c.Leader
		for _, p := range c.Replicas {
			g.Members = append(g.Members, &api.PeerInfo{Name: p.Name, Current: p.Current, Offline: p.Offline, Active: p.Active, Lag: p.Lag})
		}
	}
	return g
}

// stepDown moves the lead of a stream and waits until somebody else has it.
func (r *clientRun) stepDown(ctx context.Context, g *groupView, to string) (moveRecord, error) {
	m := moveRecord{Stream: &g.Stream, From: g.Leader}
	if b := bucketOf(g.Stream); b != "" {
		m.Bucket = &b
	}
	if err := r.change(ctx, r.apiPrefix()+"STREAM.LEADER.STEPDOWN."+g.Stream, preference(to)); err != nil {
		return m, explain(err, bucketOf(g.Stream), "")
	}
	return m, r.await(ctx, func() (bool, error) {
		s, err := r.JS.Stream(ctx, g.Stream)
		if err != nil {
			return false, err
		}
		if c := s.CachedInfo().Cluster; c != nil {
			m.To = c.Leader
		}
		return m.To != "" && m.To != m.From, nil
	})
}

func preference(to string) api.StepDownRequest {
	if to == "" {
		return api.StepDownRequest{}
	}
	return api.StepDownRequest{Placement: &api.Placement{Preferred: to}}
}

func (r *clientRun) stepDownMeta(ctx context.Context, to string) error {
	v, err := r.look(ctx)
	if err != nil {
		return err
	}
	if err := r.change(ctx, jetstream.DefaultAPIPrefix+"META.LEADER.STEPDOWN", preference(to)); err != nil {
		return systemOnly(err)
	}
	m := moveRecord{}
	if v.Meta != nil {
		m.From = v.Meta.Leader
	}
	if err := r.await(ctx, func() (bool, error) {
		v, err := r.look(ctx)
		if err == nil && v.Meta != nil {
			m.To = v.Meta.Leader
		}
		return m.To != "" && m.To != m.From, err
	}); err != nil {
		return err
	}
	return r.showMoves([]moveRecord{m})
}

// await asks until the answer is yes, for as long as a request may take.
func (r *clientRun) await(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, errors.New("the change was decided, and is not seen yet: cleat cluster status"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *clientRun) showMoves(moves []moveRecord) error {
	if r.out.Structured() {
		return r.out.List(moves)
	}
	for _, m := range moves {
		r.out.Printf("%s leads %s now, after %s\n", m.To, m.title(), m.From)
	}
	return nil
}

// title says what moved.
func (m *moveRecord) title() string {
	switch {
	case m.Stream == nil:
		return "the cluster"
	case m.Account == nil:
		return title(*m.Stream)
	}
	return title(*m.Stream) + " of account " + *m.Account
}

// stepDownOf is stepDown for users of the system account, who move leads of any account.
func (r *clientRun) stepDownOf(ctx context.Context, g *groupView, to string) (moveRecord, error) {
	m := balanceMove{g, to}.record(true)
	err := r.change(ctx, jetstream.DefaultAPIPrefix+"ACCOUNT.STREAM.LEADER.STEPDOWN."+g.Account+"."+g.Stream, preference(to))
	return m, explain(err, bucketOf(g.Stream), "")
}

func (k *clusterCommand) balanceCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Spread the leaders of buckets and streams over the servers",
		Long: `Has servers that lead many buckets and streams hand over to replicas on servers that lead few, one by one, until no
hand-over would make them more even. Users of the system account do so for all accounts together, others for their own.`,
		Args: cli.Args(""),
		RunE: k.run(func(ctx context.Context, r *clientRun, _ []string) error { return r.balance(ctx, dry) }),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would be done, and do nothing")
	return cmd
}

func (r *clientRun) balance(ctx context.Context, dry bool) error {
	v, err := r.look(ctx)
	if err != nil {
		return err
	}
	stepDown := r.stepDown
	if v.System {
		stepDown = r.stepDownOf
	}
	groups := v.Groups
	moves := []moveRecord{}
	for _, m := range planBalance(groups) {
		if dry {
			moves = append(moves, m.record(v.System))
			continue
		}
		done, err := stepDown(ctx, m.group, m.to)
		if err != nil {
			return errors.Join(fmt.Errorf("after %s: %w", plural(len(moves), "change"), err), r.showMoves(moves))
		}
		moves = append(moves, done)
	}
	if r.out.Structured() {
		return r.out.List(moves)
	}
	switch {
	case len(moves) == 0:
		r.out.Printf("The leaders of %s are spread as evenly as they can be.\n", plural(len(groups), "stream"))
		return nil
	case dry:
		for _, m := range moves {
			r.out.Printf("%s would lead %s, after %s\n", m.To, m.title(), m.From)
		}
		return nil
	}
	return r.showMoves(moves)
}

// balanceMove is a change of leader that would make things more even.
type balanceMove struct {
	group *groupView
	to    string
}

func (m balanceMove) record(ofAll bool) moveRecord {
	r := moveRecord{Stream: &m.group.Stream, From: m.group.Leader, To: m.to}
	if ofAll {
		r.Account = &m.group.Account
	}
	if b := bucketOf(m.group.Stream); b != "" {
		r.Bucket = &b
	}
	return r
}

// planBalance moves a leader where the new server would lead fewer than the old one does, until there is no
// such move. Each move makes the sum of squares smaller, so it ends; no stream moves twice.
func planBalance(groups []*groupView) []balanceMove {
	leads := map[string]int{}
	for _, g := range groups {
		leads[g.Leader]++
	}
	groups = slices.DeleteFunc(slices.Clone(groups), func(g *groupView) bool { return g.Leader == "" || len(g.Members) == 0 })
	slices.SortFunc(groups, func(a, b *groupView) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Stream, b.Stream))
	})
	var moves []balanceMove
	for {
		best, gain := -1, 1
		var to string
		for i, g := range groups {
			for _, m := range g.Members {
				if d := leads[g.Leader] - leads[m.Name]; m.Current && !m.Offline && d > gain {
					best, gain, to = i, d, m.Name
				}
			}
		}
		if best < 0 {
			return moves
		}
		g := groups[best]
		leads[g.Leader]--
		leads[to]++
		moves = append(moves, balanceMove{g, to})
		groups = slices.Delete(groups, best, best+1)
	}
}
