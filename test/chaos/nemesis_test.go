package chaos

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

// field is where faults strike: servers of a cluster, and the network between them.
type field struct {
	servers []*process.Server
	network *process.Network
}

// nemesis is one kind of fault: strike causes it and returns what ends it.
type nemesis struct {
	name   string
	total  bool // nobody can write before it has ended
	strike func(f *field, victim int) (end func() error)
}

// nemeses are faults of one server, which any majority must outlive.
var nemeses = []nemesis{
	{"killed", false, func(f *field, victim int) func() error {
		f.servers[victim].Kill()
		return f.servers[victim].Start
	}},
	{"stopped", false, func(f *field, victim int) func() error {
		pid := f.servers[victim].Pid()
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		return func() error { return syscall.Kill(pid, syscall.SIGCONT) }
	}},
	{"isolated", false, func(f *field, victim int) func() error {
		f.network.Isolate(victim, len(f.servers))
		return f.heal
	}},
	{"deaf", false, func(f *field, victim int) func() error {
		for _, other := range f.others(victim) {
			f.network.Cut(other, victim)
		}
		return f.heal
	}},
	{"mute", false, func(f *field, victim int) func() error {
		for _, other := range f.others(victim) {
			f.network.Cut(victim, other)
		}
		return f.heal
	}},
}

// severe are faults of more than one server, or of one more than once.
var severe = []nemesis{
	{"killed with all others", true, func(f *field, _ int) func() error {
		for _, s := range f.servers {
			s.Kill()
		}
		return f.startAll
	}},
	{"in a minority of one less than half", false, func(f *field, victim int) func() error {
		f.split(victim)
		return f.heal
	}},
	{"in a minority, and killed with all of it", false, func(f *field, victim int) func() error {
		minority := f.split(victim)
		time.Sleep(500 * time.Millisecond)
		for _, i := range minority {
			f.servers[i].Kill()
		}
		return func() error {
			f.network.Heal()
			return f.start(minority)
		}
	}},
	{"hears only its follower, who hears all", false, func(f *field, victim int) func() error {
		for _, other := range f.others(victim)[1:] {
			f.network.Cut(other, victim)
		}
		return f.heal
	}},
	{"on a slow network, reset again and again", false, func(f *field, victim int) func() error {
		f.network.Slow(200 << 10)
		for range 8 {
			for _, other := range f.others(victim) {
				f.network.Reset(victim, other)
			}
			time.Sleep(100 * time.Millisecond)
		}
		return func() error { f.network.Slow(0); return nil }
	}},
	{"stopped for moments, again and again", false, func(f *field, victim int) func() error {
		for range 6 {
			_ = syscall.Kill(f.servers[victim].Pid(), syscall.SIGSTOP)
			time.Sleep(300 * time.Millisecond)
			_ = syscall.Kill(f.servers[victim].Pid(), syscall.SIGCONT)
			time.Sleep(100 * time.Millisecond)
		}
		return func() error { return nil }
	}},
	{"alone, like everybody", true, func(f *field, _ int) func() error {
		for i := range f.servers {
			f.network.Isolate(i, len(f.servers))
		}
		return f.heal
	}},
}

func (f *field) heal() error {
	f.network.Heal()
	return nil
}

func (f *field) others(than int) (all []int) {
	for n := 1; n < len(f.servers); n++ {
		all = append(all, (than+n)%len(f.servers))
	}
	return all
}

// split parts a minority that the victim is in from all others, and returns it.
func (f *field) split(victim int) []int {
	minority := append([]int{victim}, f.others(victim)[:(len(f.servers)-1)/2-1]...)
	for _, i := range minority {
		for _, other := range f.others(victim)[len(minority)-1:] {
			f.network.Part(i, other)
		}
	}
	return minority
}

func (f *field) startAll() error {
	all := []int{0}
	return f.start(append(all, f.others(0)...))
}

// start starts servers side by side: one may need another to be ready.
func (f *field) start(servers []int) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for n, i := range servers {
		wg.Go(func() { errs[n] = f.servers[i].Start() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
