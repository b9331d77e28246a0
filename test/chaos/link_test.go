package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

// badLink is a way in which the network of three servers is bad for a while. All of them keep their connections, or get
// them again; spoil says which servers have to be served all the same.
type badLink struct {
	name  string
	spoil func(f *fleet, lead int) (going []int)
}

// worsen gives ways between servers a quality: those that leave one, those that end there, or both.
func (f *fleet) worsen(server int, out, in bool, q process.Quality) {
	for _, other := range f.others(server) {
		if out {
			f.network.Worsen(server, other, q)
		}
		if in {
			f.network.Worsen(other, server, q)
		}
	}
}

var badLinks = []badLink{
	{"what the leader sends is swallowed", func(f *fleet, lead int) []int {
		f.worsen(lead, true, false, process.Quality{Swallow: true})
		return f.others(lead)
	}},
	{"what the leader should hear is swallowed", func(f *fleet, lead int) []int {
		f.worsen(lead, false, true, process.Quality{Swallow: true})
		return f.others(lead)
	}},
	{"what one sends breaks off in its midst, again and again", func(f *fleet, lead int) []int {
		for n := range 40 {
			from := n % 3
			f.network.Tear(from, (from+1+n/3%2)%3)
			time.Sleep(50 * time.Millisecond)
		}
		return f.all()
	}},
	{"50 ms each way, everywhere", func(f *fleet, lead int) []int {
		for i := range f.servers {
			f.worsen(i, true, false, process.Quality{Delay: 50 * time.Millisecond})
		}
		return f.all()
	}},
	{"300 ms each way to and from the leader", func(f *fleet, lead int) []int {
		f.worsen(lead, true, true, process.Quality{Delay: 300 * time.Millisecond})
		return f.all()
	}},
	{"a second each way to and from a follower", func(f *fleet, lead int) []int {
		f.worsen((lead+1)%3, true, true, process.Quality{Delay: time.Second})
		return f.all()
	}},
	{"one part in twenty lost everywhere, 10 ms each way", func(f *fleet, lead int) []int {
		for i := range f.servers {
			f.worsen(i, true, false, process.Quality{Delay: 10 * time.Millisecond, Loss: 0.05})
		}
		return f.all()
	}},
	{"100 kB/s to a follower", func(f *fleet, lead int) []int {
		f.worsen((lead+1)%3, false, true, process.Quality{Rate: 100_000})
		return f.others((lead + 1) % 3)
	}},
	{"100 kB/s from the leader", func(f *fleet, lead int) []int {
		f.worsen(lead, true, false, process.Quality{Rate: 100_000})
		return nil // All it sends waits behind what it could not send yet.
	}},
	{"what the leader sends to a follower is swallowed", func(f *fleet, lead int) []int {
		f.network.Worsen(lead, (lead+1)%3, process.Quality{Swallow: true})
		return f.others((lead + 1) % 3)
	}},
	{"what a follower sends to the leader is swallowed", func(f *fleet, lead int) []int {
		f.network.Worsen((lead+1)%3, lead, process.Quality{Swallow: true})
		return f.others((lead + 1) % 3)
	}},
}

const (
	linkFor = 8 * time.Second // how long a link stays bad
	// termsMax is how often the bucket may elect meanwhile: a link in one direction is no reason to do it again and again.
	termsMax = 4
)

// TestChaosLinks makes links slow, narrow, lossy, or dead in one direction with connections that stay. Whoever is well
// connected to a majority goes on, in time and without electing for ever; all do when links are good again; and no read is
// stale.
func TestChaosLinks(t *testing.T) {
	f := newFleet(t, true)
	reads := f.read(f.writers())
	var during, after []time.Duration
	for n := range *kills {
		bad := badLinks[n%len(badLinks)]
		f.calm()
		lead := f.leader()
		term, before := f.term(), f.book.count()[acknowledged]
		began := time.Now()
		going := bad.spoil(f, lead)
		at := time.Now()
		line := fmt.Sprintf("links %d, n%d leading, %s:", n+1, lead, bad.name)
		if len(going) > 0 {
			w := f.resumed(at, resumeMax+2*time.Second, going...)
			r := reads.resumed(at, resumeMax+2*time.Second, going...)
			during = append(during, w)
			line += fmt.Sprintf(" n%v wrote after %s, read after %s,", going, w.Round(time.Millisecond), r.Round(time.Millisecond))
		}
		time.Sleep(time.Until(at.Add(linkFor)))
		if len(going) > 0 { // Nor for a moment only.
			f.resumed(time.Now(), resumeMax, going...)
		}
		line += fmt.Sprintf(" %.0f writes/s;", float64(f.book.count()[acknowledged]-before)/time.Since(began).Seconds())
		f.network.Heal()
		healed := time.Now()
		d := f.resumed(healed, 2*resumeMax, f.all()...)
		r := reads.resumed(healed, 2*resumeMax, f.all()...)
		after = append(after, d)
		terms := f.term() - term
		t.Logf("%s healed, all wrote after %s, read after %s; %d elections", line, d.Round(time.Millisecond), r.Round(time.Millisecond), terms)
		if terms > termsMax {
			t.Errorf("%d elections", terms)
		}
		for i := range f.servers {
			f.untilHealth(i, true, 30*time.Second)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("writes resumed where links were good enough, %s; everywhere after the end, %s; %d, %d, %d reads, none stale",
		spread(during), spread(after), reads.count[0].Load(), reads.count[1].Load(), reads.count[2].Load())
	f.judge()
}

// term is the highest term of the bucket's group that a server knows of.
func (f *fleet) term() (highest int) {
	f.t.Helper()
	for _, s := range f.servers {
		var groups map[string]map[string]struct {
			Term int `json:"term"`
		}
		client := http.Client{Timeout: 2 * time.Second}
		resp, err := client.Get("http://" + s.HTTP + "/raftz?acc=$G")
		if err != nil {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || json.Unmarshal(text, &groups) != nil {
			continue
		}
		for _, g := range groups["$G"] { // order: the highest is looked for
			highest = max(highest, g.Term)
		}
	}
	if highest == 0 {
		f.t.Error("no server tells the term of the bucket")
	}
	return highest
}
