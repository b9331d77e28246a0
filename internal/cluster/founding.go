package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
)

// founding turns a blank server into a member of a cluster, exactly once.
//
// The servers named in the routes are the seeds. If any server that is met belongs to a cluster, a
// blank one joins that. Otherwise the seeds found a cluster, and only when all of them are there,
// blank, and agree on who the seeds are: the one with the lowest id proposes a genesis, each seed
// durably accepts at most one, and when all have accepted it is committed. A crash anywhere
// repeats the same steps with the same genesis. Nothing is ever guessed from how many happen to
// answer.
type founding struct {
	c *Cluster

	mu        sync.Mutex
	accepted  *genesis        // what this server has durably accepted
	accepts   map[uint64]bool // of our own proposal
	committed *genesis
	joined    *joinAnswer
	said      string        // the last line logged about waiting
	intro     []meta.Server // whom a join answer named, until the meta group's state arrives
}

// genesis is a cluster about to be.
type genesis struct {
	Cluster uint64        `json:"cluster"`
	Servers []meta.Server `json:"servers"` // sorted by id, members numbered from 1
}

// genesisFrame is a step between seeds.
type genesisFrame struct {
	Step    string   `json:"step"` // propose, accept, commit
	Genesis *genesis `json:"genesis"`
}

// joinRequest and joinAnswer are a blank server's way in.
type joinRequest struct {
	Server *meta.Server `json:"server,omitempty"` // who wants to join
	Lost   uint64       `json:"lost,omitempty"`   // the member that it was, and must not be any more
	Answer *joinAnswer  `json:"answer,omitempty"`
}

type joinAnswer struct {
	Cluster uint64        `json:"cluster"`
	Member  uint64        `json:"member"`
	Servers []meta.Server `json:"servers"`
	Err     string        `json:"err,omitempty"`
}

const (
	genesisFile  = "genesis"
	foundingStep = 200 * time.Millisecond
)

func newFounding(c *Cluster) *founding { return &founding{c: c, accepts: make(map[uint64]bool)} }

// load reads what was accepted in an earlier life.
func (f *founding) load() error {
	text, err := readFile(f.c.opts.FS, filepath.Join(f.c.opts.Dir, genesisFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the accepted genesis: %w", err)
	}
	f.accepted = &genesis{}
	if text, err = unseal(text); err == nil {
		err = json.Unmarshal(text, f.accepted)
	}
	if err != nil {
		return fmt.Errorf("%s is damaged: %w; %s", filepath.Join(f.c.opts.Dir, genesisFile), err, adviceStartAnew)
	}
	return nil
}

// run blocks until this server belongs to a cluster, and returns its identity with the first
// servers if it is a founder.
func (f *founding) run() (identity, []meta.Server, error) {
	ticker := time.NewTicker(foundingStep)
	defer ticker.Stop()
	for {
		if id, first, ok := f.outcome(); ok {
			return id, first, nil
		}
		if err := f.step(); err != nil {
			return identity{}, nil, err
		}
		select {
		case <-f.c.ctx.Done():
			return identity{}, nil, f.c.ctx.Err()
		case <-ticker.C:
		}
	}
}

// outcome tells whether the server has become a member.
func (f *founding) outcome() (identity, []meta.Server, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.c.identity()
	switch {
	case f.committed != nil:
		i := slices.IndexFunc(f.committed.Servers, func(s meta.Server) bool { return s.ID == id.server })
		id.cluster, id.member, id.founder = f.committed.Cluster, f.committed.Servers[i].Member, true
		return id, f.committed.Servers, true
	case f.joined != nil:
		id.cluster, id.member, id.founder = f.joined.Cluster, f.joined.Member, false
		return id, nil, true
	}
	return id, nil, false
}

// step does what can be done now.
func (f *founding) step() error {
	met := f.c.met()
	f.mu.Lock()
	accepted := f.accepted
	f.mu.Unlock()
	if accepted == nil {
		for id, g := range met { // order: any member will do
			if g.Cluster != 0 {
				f.say(fmt.Sprintf("asking server %q to let this server join its cluster", f.c.PeerName(id)))
				self := f.c.self()
				f.tell(id, kindJoin, joinRequest{Server: &self})
				return nil
			}
		}
		g := f.propose(met)
		if g == nil {
			return nil
		}
		if err := f.accept(g); err != nil {
			return err
		}
		accepted = g
	}
	// Accepted and not committed: remind everybody. Whoever has committed answers with that.
	self := f.c.identity().server
	for _, s := range accepted.Servers {
		if s.ID == self {
			continue
		}
		step := "accept"
		if accepted.Servers[0].ID == self {
			step = "propose"
		}
		f.tell(s.ID, kindGenesis, genesisFrame{Step: step, Genesis: accepted})
	}
	return nil
}

// propose makes a genesis if this server is the one to do it and everybody is there.
func (f *founding) propose(met map[uint64]greeting) *genesis {
	self := f.c.self()
	seeds, missing := f.c.seedServers()
	if len(missing) > 0 {
		f.say(fmt.Sprintf("waiting for all servers named in the routes to found the cluster; no answer yet from %v", missing))
		return nil
	}
	if !slices.Contains(seeds, self.ID) {
		f.say("this server is not named in the routes: it waits for a cluster to join")
		return nil
	}
	if slices.Min(seeds) != self.ID {
		return nil
	}
	g := &genesis{Cluster: randomID(), Servers: []meta.Server{self}}
	for _, id := range seeds {
		if id == self.ID {
			continue
		}
		about, ok := met[id]
		if !ok || about.Cluster != 0 {
			return nil
		}
		g.Servers = append(g.Servers, meta.Server{ID: id, Name: f.c.PeerName(id), Route: about.Route, Tags: about.Tags})
	}
	slices.SortFunc(g.Servers, func(a, b meta.Server) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	for i := range g.Servers {
		g.Servers[i].Member = uint64(i + 1)
	}
	return g
}

// accept makes a genesis this server's only one.
func (f *founding) accept(g *genesis) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted != nil {
		if f.accepted.Cluster != g.Cluster {
			return fmt.Errorf("this server has accepted another founding already (cluster %016x, now proposed %016x); if one of the founders lost its disk, empty the data directory %s of this server too and start it again",
				f.accepted.Cluster, g.Cluster, f.c.opts.Dir)
		}
		return nil
	}
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := writeFileAtomically(f.c.opts.FS, f.c.opts.Dir, genesisFile, seal(append(text, '\n'))); err != nil {
		return fmt.Errorf("accept the founding of the cluster: %w", err)
	}
	f.accepted = g
	return nil
}

// receive handles a step of another seed.
func (f *founding) receive(from uint64, payload []byte) error {
	var m genesisFrame
	if err := json.Unmarshal(payload, &m); err != nil || m.Genesis == nil || len(m.Genesis.Servers) == 0 {
		return errors.New("malformed founding step")
	}
	id := f.c.identity()
	if id.cluster != 0 {
		// Done here already: tell those who have not heard.
		if id.cluster == m.Genesis.Cluster && m.Step != "commit" {
			f.tell(from, kindGenesis, genesisFrame{Step: "commit", Genesis: m.Genesis})
		}
		return nil
	}
	if !slices.ContainsFunc(m.Genesis.Servers, func(s meta.Server) bool { return s.ID == id.server }) {
		return nil
	}
	switch m.Step {
	case "propose":
		if err := f.accept(m.Genesis); err != nil {
			f.say(err.Error())
			return nil
		}
		f.tell(from, kindGenesis, genesisFrame{Step: "accept", Genesis: m.Genesis})
	case "accept":
		f.count(from, m.Genesis)
	case "commit":
		if err := f.accept(m.Genesis); err != nil {
			f.say(err.Error())
			return nil
		}
		f.mu.Lock()
		f.committed = m.Genesis
		f.mu.Unlock()
	}
	return nil
}

// count notes an accept. When all have accepted, the genesis is committed.
func (f *founding) count(from uint64, g *genesis) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted == nil || f.accepted.Cluster != g.Cluster {
		return
	}
	f.accepts[from] = true
	f.accepts[f.c.identity().server] = true
	for _, s := range f.accepted.Servers {
		if !f.accepts[s.ID] {
			return
		}
	}
	f.committed = f.accepted
}

// receiveJoin handles a request to join, or the answer to ours.
func (f *founding) receiveJoin(from uint64, payload []byte) error {
	var m joinRequest
	if err := json.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("malformed join request: %w", err)
	}
	if a := m.Answer; a != nil {
		if a.Err != "" {
			f.say("not admitted to the cluster yet: " + a.Err)
			return nil
		}
		f.mu.Lock()
		f.joined, f.intro = a, a.Servers
		f.mu.Unlock()
		return nil
	}
	if m.Server == nil || m.Server.ID != from || f.c.Meta() == nil {
		return nil
	}
	command := meta.Encode(meta.KindJoinServer, &meta.JoinServer{Server: *m.Server, Lost: m.Lost})
	f.c.ProposeMeta(command, WaiterFunc(func(result any, err error) {
		a := &joinAnswer{Cluster: f.c.identity().cluster}
		switch r, _ := result.(*meta.Result); {
		case err != nil:
			a.Err = err.Error()
		case r.Err != nil:
			a.Err = r.Err.Error()
		default:
			a.Member = r.Server.Member
			for _, s := range f.c.Meta().Servers() {
				a.Servers = append(a.Servers, *s)
			}
		}
		f.tell(from, kindJoin, joinRequest{Answer: a})
	}))
	return nil
}

// introduced lists the meta group's members as a join answer named them: the way to answer the
// leader before its snapshot has arrived.
func (f *founding) introduced() []meta.Replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []meta.Replica
	for _, s := range f.intro {
		all = append(all, meta.Replica{ID: s.Member, Server: s.ID})
	}
	return all
}

func (f *founding) tell(server uint64, kind peer.Kind, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode %T: %v", v, err)) // Our own types, always encodable.
	}
	// Steps are repeated until they have had their effect.
	_ = f.c.send(server, peer.LaneRequests, kind, func(dst []byte) []byte { return append(dst, b...) })
}

// say logs a line unless it was the last one already.
func (f *founding) say(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said != line {
		f.said = line
		f.c.opts.Logger.Info(line)
	}
}

// met gives the greetings of the servers with streams that can be reached now.
func (c *Cluster) met() map[uint64]greeting {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	all := make(map[uint64]greeting)
	for id, up := range c.peers.up { // order: a map again
		if up {
			if g := c.peers.extra[id]; !g.MessagesOnly {
				all[id] = g
			}
		}
	}
	return all
}

// self describes this server.
func (c *Cluster) self() meta.Server {
	s := meta.Server{ID: c.id.server, Name: c.opts.Name}
	if c.opts.Route != nil {
		s.Route, s.Tags = c.advertised(), c.opts.Route.Tags
	}
	return s
}

// seeds lists the configured routes, sorted and each once.
func (c *Cluster) seeds() []string {
	if c.opts.Route == nil {
		return nil
	}
	all := slices.Clone(c.opts.Route.Seeds)
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *Cluster) advertised() string {
	if a := c.opts.Route.Advertise; a != "" {
		return a
	}
	if c.transport != nil {
		return c.transport.Addr().String()
	}
	return c.opts.Route.Listen
}

// seedServers resolves the seeds to server ids, less those without streams; missing are the addresses that have not answered.
func (c *Cluster) seedServers() (ids []uint64, missing []string) {
	targets := c.transport.Targets()
	for _, address := range c.seeds() {
		id := targets[address]
		if id == 0 || id != c.id.server && !c.reachable(id) {
			missing = append(missing, address)
			continue
		}
		if !c.messagesOnly(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), missing
}
