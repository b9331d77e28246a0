package chaos

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

const (
	// goOnMax is within which every client goes on that has a way to a majority, and every one when a fault is over. It
	// leaves a slow machine room, and watchers whose messages do not arrive: their clients notice after ten seconds.
	goOnMax = 25 * time.Second

	// settleFor is how long after a fault a request may still be lost on a connection that is not known to be cut.
	settleFor = 7 * time.Second
)

// outsiders are five servers with buckets of three replicas and of one, so that each server is without a replica of
// some, and clients that stay with one server each.
type outsiders struct {
	field
	t       *testing.T
	buckets []outsiderBucket
	down    map[int]bool // servers that are killed or stopped
	random  *rand.Rand
	*progress
}

type outsiderBucket struct {
	name, engine string
	replicas     int
	book         *ledger
	members      []int // leader first
	forgot       bool  // what was acknowledged, as it may in memory
}

// strike is one kind of fault, aimed at the leader of a bucket, one more member of it, and a server without a
// replica of it. It returns what ends it.
type strike struct {
	name string
	do   func(o *outsiders, lead, member, outsider int) (end func())
}

var strikes = []strike{
	{"its leader killed", func(o *outsiders, lead, _, _ int) func() { return o.kill(lead) }},
	{"its leader and an outsider parted", func(o *outsiders, lead, _, outsider int) func() {
		o.network.Part(lead, outsider)
		return o.network.Heal
	}},
	{"its leader stopped", func(o *outsiders, lead, _, _ int) func() { return o.pause(lead) }},
	{"its leader isolated", func(o *outsiders, lead, _, _ int) func() {
		o.network.Isolate(lead, len(o.servers))
		return o.network.Heal
	}},
	{"a member killed", func(o *outsiders, _, member, _ int) func() { return o.kill(member) }},
	{"a member stopped", func(o *outsiders, _, member, _ int) func() { return o.pause(member) }},
	{"an outsider killed", func(o *outsiders, _, _, outsider int) func() { return o.kill(outsider) }},
	{"an outsider stopped", func(o *outsiders, _, _, outsider int) func() { return o.pause(outsider) }},
	{"its leader parted from all members, not from outsiders", func(o *outsiders, lead, member, outsider int) func() {
		for _, i := range o.members(o.buckets[0].name) {
			o.network.Part(lead, i)
		}
		return o.network.Heal
	}},
	{"a member parted from the others, not from outsiders", func(o *outsiders, lead, member, _ int) func() {
		for _, i := range o.members(o.buckets[0].name) {
			o.network.Part(member, i)
		}
		return o.network.Heal
	}},
	{"an outsider hears one member alone", func(o *outsiders, _, member, outsider int) func() {
		for _, i := range o.others(outsider) {
			if i != member {
				o.network.Part(outsider, i)
			}
		}
		return o.network.Heal
	}},
	{"an outsider does not hear the leader", func(o *outsiders, lead, _, outsider int) func() {
		o.network.Cut(lead, outsider)
		return o.network.Heal
	}},
	{"the leader does not hear an outsider", func(o *outsiders, lead, _, outsider int) func() {
		o.network.Cut(outsider, lead)
		return o.network.Heal
	}},
	{"the leader with an outsider on one side, all others on the other", func(o *outsiders, lead, _, outsider int) func() {
		for i := range o.servers {
			if i != lead && i != outsider {
				o.network.Part(i, lead)
				o.network.Part(i, outsider)
			}
		}
		return o.network.Heal
	}},
	{"all killed", func(o *outsiders, _, _, _ int) func() {
		for i := range o.servers {
			o.kill(i)
		}
		return func() {
			o.forgetful()
			if err := o.startAll(); err != nil {
				o.t.Fatal(err)
			}
			clear(o.down)
		}
	}},
	{"connections of outsider and leader reset, again and again", func(o *outsiders, lead, _, outsider int) func() {
		for range 10 {
			o.network.Reset(lead, outsider)
			time.Sleep(150 * time.Millisecond)
		}
		return func() {}
	}},
}

func newOutsiders(t *testing.T, engines ...string) *outsiders {
	t.Helper()
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("faults are drawn from -seed %d", *seed)
	o := &outsiders{t: t, down: make(map[int]bool), random: rand.New(rand.NewSource(*seed))}
	o.servers, o.network = process.NewNetworkedCluster(t, 5, "")
	var books []*ledger
	for _, engine := range engines {
		for _, replicas := range []int{3, 1} {
			b := outsiderBucket{name: fmt.Sprintf("%s-r%d", engine, replicas), engine: engine, replicas: replicas}
			b.book = newLedger(b.name)
			createBucket(t, o.servers[0], b.name, engine, replicas)
			o.buckets, books = append(o.buckets, b), append(books, b.book)
		}
	}
	o.progress = newProgress(t, o.servers, books...)
	return o
}

func (o *outsiders) kill(server int) func() {
	o.servers[server].Kill()
	o.down[server] = true
	return func() {
		o.forgetful()
		if err := o.servers[server].Start(); err != nil {
			o.t.Fatalf("restart n%d: %v\n%s", server, err, o.servers[server].LogTail(30))
		}
		delete(o.down, server)
	}
}

// forgetful has watches begun again of a bucket in memory that has lost what it had with the servers that are killed. Nothing
// of that is judged any more.
func (o *outsiders) forgetful() {
	for i := range o.buckets {
		b := &o.buckets[i]
		killed := slices.DeleteFunc(slices.Clone(b.members), func(m int) bool { return !o.down[m] })
		if b.engine != "memory" || len(killed) <= b.replicas/2 {
			continue
		}
		b.forgot = true
		for _, l := range o.lines {
			if l.bucket == b.name {
				l.anew()
			}
		}
	}
}

func (o *outsiders) pause(server int) func() {
	pid := o.servers[server].Pid()
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	o.down[server] = true
	return func() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
		delete(o.down, server)
	}
}

// survey asks who has replicas of the buckets.
func (o *outsiders) survey() {
	o.t.Helper()
	js, err := jetstream.New(o.servers[0].Connect(o.t))
	if err != nil {
		o.t.Fatal(err)
	}
	defer js.Conn().Close()
	for i := range o.buckets {
		b := &o.buckets[i]
		untilDone(o.t, "ask who has replicas", func(ctx context.Context) error {
			s, err := js.Stream(ctx, "KV_"+b.name)
			if err != nil {
				return err
			}
			c := s.CachedInfo().Cluster
			if c == nil || c.Leader == "" || len(c.Replicas) != b.replicas-1 {
				return fmt.Errorf("not complete: %+v", c)
			}
			names := []string{c.Leader}
			for _, r := range c.Replicas {
				names = append(names, r.Name)
			}
			b.members = nil
			for _, name := range names {
				b.members = append(b.members, int(name[1]-'0'))
			}
			return nil
		})
	}
}

func (o *outsiders) members(bucket string) []int {
	i := slices.IndexFunc(o.buckets, func(b outsiderBucket) bool { return b.name == bucket })
	return o.buckets[i].members
}

// able tells whether a client can go on: its server is up and can talk to a member that is in a majority, or, being a
// member itself, to all that are in one.
func (o *outsiders) able(l *line) bool {
	members := o.members(l.bucket)
	var in []int // some majority
	for set := range 1 << len(members) {
		var q []int
		for n, m := range members {
			if set>>n&1 == 1 {
				q = append(q, m)
			}
		}
		apart := func(a int) bool {
			return slices.ContainsFunc(q, func(b int) bool { return o.down[b] || !o.network.Linked(a, b) })
		}
		if len(q) > len(members)/2 && !slices.ContainsFunc(q, apart) {
			in = append(in, q...)
		}
	}
	linked := func(m int) bool { return o.network.Linked(l.server, m) }
	switch {
	case o.down[l.server]:
		return false
	case slices.Contains(members, l.server):
		return slices.Contains(in, l.server) && !slices.ContainsFunc(in, func(m int) bool { return !linked(m) })
	}
	return slices.ContainsFunc(in, linked)
}

func (o *outsiders) up(l *line) bool { return !o.down[l.server] }

// endure lets a fault strike and demands of all clients what is possible, and all when it is over.
func (o *outsiders) endure(number int, s strike, last time.Duration) (during, after [kinds]time.Duration) {
	o.t.Helper()
	o.survey()
	target := &o.buckets[0]
	in := target.members
	var out []int
	for i := range o.servers {
		if !slices.Contains(in, i) {
			out = append(out, i)
		}
	}
	lead, member, outsider := in[0], in[1+o.random.Intn(2)], out[o.random.Intn(2)]
	what := fmt.Sprintf("fault %d, %s (%v without n%v): %s", number, target.name, in, out, s.name)
	at := time.Now()
	end := s.do(o, lead, member, outsider)
	struck := time.Now()
	during = o.resumed(what, struck, goOnMax, o.able)
	time.Sleep(time.Until(struck.Add(last)))
	o.clear(what, at.Add(settleFor), time.Now(), o.up)
	end()
	all := func(*line) bool { return true }
	after = o.resumed(what+", ended", time.Now(), goOnMax, all)
	o.t.Logf("%s: went on after %s; all after its end in %s", what, told(during), told(after))
	return during, after
}

func told(took [kinds]time.Duration) string {
	return fmt.Sprintf("%s, %s, %s", took[0].Round(time.Millisecond), took[1].Round(time.Millisecond), took[2].Round(time.Millisecond))
}

// TestChaosOutsiders has clients on servers without a replica of their bucket, as well as on those with one, under faults
// of one of them and of the ways between some of them. Whoever has a way to a majority goes on to write, to read and
// to see what is written, and everybody does when the fault is over; what fails, fails with an answer; and
// nothing that was acknowledged is lost.
//
// A short run takes one engine and two faults, and does not wait for watchers, whose clients may notice late.
func TestChaosOutsiders(t *testing.T) {
	engines, faults, last := []string{"file", "rocksdb", "memory"}, *kills, 14*time.Second
	if brief := *kills <= 3; brief {
		if *seed == 0 {
			*seed = time.Now().UnixNano()
		}
		engines, faults, last = engines[*seed%3:][:1], 2, 0
	}
	o := newOutsiders(t, engines...)
	order := o.random.Perm(len(strikes))
	if last == 0 {
		order, o.upTo = []int{0, 1}, watching
	}
	var during, after [kinds][]time.Duration
	for n := range faults {
		d, a := o.endure(n+1, strikes[order[n%len(order)]], last)
		for k := range kinds {
			during[k], after[k] = append(during[k], d[k]), append(after[k], a[k])
		}
		if t.Failed() {
			break
		}
	}
	for k := range kinds {
		t.Logf("%s: went on under a fault, %s; after it, %s", k, spread(during[k]), spread(after[k]))
	}
	o.judge()
}

// judge ends the load and holds what is stored against what clients were told.
func (o *outsiders) judge() {
	o.t.Helper()
	o.end()
	for _, b := range o.buckets {
		if b.forgot {
			continue
		}
		stored, err := readStored(o.t, o.servers[0], b.name, 1)
		if err != nil {
			o.t.Fatal(err)
		}
		problems := b.book.verifyAll(o.t, stored)
		total := b.book.count()
		o.t.Logf("%s: %d writes acknowledged, %d lost or wrong; %d refused, %d of unknown outcome", b.name, total[acknowledged], problems, total[refused], total[unknown])
		if total[acknowledged] == 0 {
			o.t.Errorf("%s: nothing was acknowledged", b.name)
		}
	}
}
