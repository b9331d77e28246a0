package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// statusRecord is a cluster.
type statusRecord struct {
	Cluster  string         `json:"cluster"`
	View     string         `json:"view"`    // system, or account: what one account sees
	Account  *string        `json:"account"` // that one
	Meta     *metaRecord    `json:"meta"`    // null unless the view is system
	Servers  []serverRecord `json:"servers"`
	Streams  int            `json:"streams"`
	Status   string         `json:"status"` // ok, warning, critical
	Problems []problem      `json:"problems"`
}

// metaRecord is the group that knows what exists where.
type metaRecord struct {
	Leader *string `json:"leader"`
	Size   int     `json:"size"`
	Quorum int     `json:"quorum"`
	Online int     `json:"online"`
}

// serverRecord is a server. What is not known is null.
type serverRecord struct {
	Name        string   `json:"name"`
	Online      bool     `json:"online"`
	MetaLeader  bool     `json:"meta_leader"`
	Version     *string  `json:"version"`
	Uptime      *string  `json:"uptime"`
	Memory      *int64   `json:"memory"`
	CPU         *float64 `json:"cpu_percent"`
	Connections *int     `json:"connections"`
	Streams     int      `json:"streams"`
	Leaders     int      `json:"leaders"`
	Behind      int      `json:"behind"`
	Lag         uint64   `json:"lag"`
	Silent      *float64 `json:"active_seconds"`
}

func newStatusRecord(v *clusterView) statusRecord {
	problems := v.problems(expectations{lag: lagMax})
	s := statusRecord{
		Cluster: v.Name, View: "system", Streams: len(v.Groups), Servers: []serverRecord{},
		Status: checkNames[verdict(problems)], Problems: append([]problem{}, problems...),
	}
	if !v.System {
		s.View, s.Account = "account", &v.Account
	}
	if m := v.Meta; m != nil {
		s.Meta = &metaRecord{Size: m.Size, Quorum: m.Quorum, Online: v.onlineServers()}
		if m.Leader != "" {
			s.Meta.Leader = &m.Leader
		}
	}
	for _, x := range v.Servers {
		r := serverRecord{
			Name: x.Name, Online: x.Online, MetaLeader: v.Meta != nil && v.Meta.Leader == x.Name,
			Streams: x.Streams, Leaders: x.Leaders, Behind: x.Behind, Lag: x.Lag,
		}
		if x.Online {
			r.Version = &x.Version
		}
		if x.Figures {
			r.Uptime, r.Memory, r.CPU, r.Connections = &x.Uptime, &x.Memory, &x.CPU, &x.Connections
		}
		if x.Silent > 0 {
			seconds := x.Silent.Seconds()
			r.Silent = &seconds
		}
		s.Servers = append(s.Servers, r)
	}
	return s
}

func (v *clusterView) onlineServers() (n int) {
	for _, s := range v.Servers {
		if s.Online {
			n++
		}
	}
	return n
}

// summary is the cluster in one line.
func (v *clusterView) summary() string {
	parts := []string{plural(v.onlineServers(), "server")}
	if v.Meta != nil && v.Meta.Leader != "" {
		parts = append(parts, "meta leader "+v.Meta.Leader)
	}
	return strings.Join(append(parts, plural(len(v.Groups), "stream")), ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return cli.Comma(n) + " " + what + "s"
}

func (k *clusterCommand) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Aliases: []string{"info", "ls"},
		Short:   "Show the servers, who leads, and what is wrong",
		Args:    cli.Args(""),
		RunE: k.run(func(ctx context.Context, r *clientRun, _ []string) error {
			v, err := r.look(ctx)
			if err != nil {
				return err
			}
			if r.out.Structured() {
				return r.out.Object(newStatusRecord(v))
			}
			r.showStatusOf(v)
			return nil
		}),
	}
}

func (r *clientRun) showStatusOf(v *clusterView) {
	heading := "A single server"
	if v.Name != "" {
		heading = "Cluster " + v.Name
	}
	headers := []any{"Server", "State", "Version", "Streams", "Leads", "Behind", "Lag"}
	if v.System {
		headers = append(headers, "Clients", "Memory", "CPU %", "Uptime")
	}
	t := r.style.NewTable(heading, headers...)
	for _, s := range v.Servers {
		row := []any{s.Name, v.state(s), s.Version, cli.Comma(s.Streams), cli.Comma(s.Leaders), cli.Comma(s.Behind), cli.Comma(s.Lag)}
		if s.Figures {
			row = append(row, cli.Comma(s.Connections), cli.Bytes(uint64(s.Memory)), fmt.Sprintf("%.0f", s.CPU), s.Uptime)
		}
		t.AppendRow(row)
	}
	cli.Render(r.out, t)
	if m := v.Meta; m != nil {
		leader := "led by " + m.Leader
		if m.Leader == "" {
			leader = "without a leader"
		}
		r.out.Printf("%s of %d online, %d are a quorum, %s. %s.\n", plural(v.onlineServers(), "server"), m.Size, m.Quorum, leader, plural(len(v.Groups), "stream"))
	}
	if !v.System {
		r.out.Printf("Seen from account %s. Users of the system account see the streams of all accounts, and who leads the cluster.\n", v.Account)
	}
	problems := v.problems(expectations{lag: lagMax})
	if len(problems) == 0 {
		r.out.Printf("No problems.\n")
		return
	}
	r.out.Printf("\nProblems:\n\n")
	r.showProblems(problems)
}

// state is a server's in a word or two.
func (v *clusterView) state(s *serverView) string {
	switch {
	case !s.Online && s.Silent > 0:
		return "OFFLINE, seen " + cli.Age(s.Silent) + " ago"
	case !s.Online:
		return "OFFLINE"
	case s.Unhealthy != "":
		return "unhealthy"
	case v.Meta != nil && v.Meta.Leader == s.Name:
		return "online, meta leader"
	}
	return "online"
}

// peerRecord is a member of a group.
type peerRecord struct {
	Account *string  `json:"account"` // null for the meta group
	Stream  *string  `json:"stream"`
	Bucket  *string  `json:"bucket"` // null unless the stream is one
	Server  string   `json:"server"`
	Role    string   `json:"role"` // leader, replica
	Current bool     `json:"current"`
	Offline bool     `json:"offline"`
	Lag     uint64   `json:"lag"`
	Silent  *float64 `json:"active_seconds"`
}

// metaName stands for the meta group where a bucket could stand. A bucket of this name is "KV_meta".
const metaName = "meta"

func (k *clusterCommand) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers [bucket]",
		Short: "Show which servers have the replicas of buckets and streams",
		Long: `Shows which servers have the replicas of a bucket, or of all, and how far they are. The name of a stream will do too,
and "meta" is the group of all servers that knows which streams exist and where.`,
		Args:              cli.Args("[bucket]"),
		ValidArgsFunction: k.completeBucket,
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			v, err := r.look(ctx)
			if err != nil {
				return err
			}
			groups := v.Groups
			if len(args) > 0 && args[0] != metaName {
				groups = slices.DeleteFunc(groups, func(g *groupView) bool { return g.Stream != args[0] && bucketOf(g.Stream) != args[0] })
				if len(groups) == 0 {
					return noStream(args[0])
				}
			}
			var meta *metaView
			if len(args) == 0 || args[0] == metaName {
				meta = v.Meta
			}
			if len(args) > 0 && args[0] == metaName {
				groups = nil
				if meta == nil {
					return errors.New("the meta group is seen by users of the system account only, and in a cluster")
				}
			}
			return r.showPeers(v, meta, groups)
		}),
	}
}

func noStream(name string) error {
	return &cli.Error{Code: cli.ExitNotFound, Err: fmt.Errorf("no bucket and no stream: %s", name),
		Hints: []string{"list buckets: cleat kv ls", "see all there are: cleat cluster peers"}}
}

func (r *clientRun) showPeers(v *clusterView, meta *metaView, groups []*groupView) error {
	var records []peerRecord
	if meta != nil {
		records = appendPeers(records, peerRecord{}, meta.Leader, meta.Others)
	}
	for _, g := range groups {
		base := peerRecord{Account: &g.Account, Stream: &g.Stream}
		if b := bucketOf(g.Stream); b != "" {
			base.Bucket = &b
		}
		records = appendPeers(records, base, g.Leader, g.Members)
	}
	if r.out.Structured() {
		return r.out.List(records)
	}
	headers := []any{"Group", "Server", "Role", "State", "Lag", "Seen"}
	if v.System {
		headers = append([]any{"Account"}, headers...)
	}
	t := r.style.NewTable("Replicas", headers...)
	for _, p := range records {
		account, group := "", metaName
		if p.Stream != nil {
			account, group = *p.Account, title(*p.Stream)
		}
		row := []any{group, p.Server, p.Role, p.state(), cli.Comma(p.Lag), p.seen()}
		if v.System {
			row = append([]any{account}, row...)
		}
		t.AppendRow(row)
	}
	cli.Render(r.out, t)
	return nil
}

func appendPeers(to []peerRecord, base peerRecord, leader string, others []*api.PeerInfo) []peerRecord {
	if leader != "" {
		p := base
		p.Server, p.Role, p.Current = leader, "leader", true
		to = append(to, p)
	}
	for _, o := range others {
		p := base
		p.Server, p.Role, p.Current, p.Offline, p.Lag = o.Name, "replica", o.Current, o.Offline, o.Lag
		if o.Active > 0 {
			seconds := o.Active.Seconds()
			p.Silent = &seconds
		}
		to = append(to, p)
	}
	return to
}

func (p *peerRecord) state() string {
	switch {
	case p.Offline:
		return "OFFLINE"
	case !p.Current:
		return "outdated"
	}
	return "current"
}

func (p *peerRecord) seen() string {
	if p.Silent == nil {
		return ""
	}
	return cli.Age(time.Duration(*p.Silent*float64(time.Second))) + " ago"
}
