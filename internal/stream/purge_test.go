package stream

import (
	"fmt"
	"testing"
)

// A purge in steps removes what one at once removes, and nothing of what is put between the steps.
func TestPurgeInSteps(t *testing.T) {
	for _, p := range []Purge{{}, {Filter: "a.>"}, {Filter: "a.3"}, {Filter: "a.*", Seq: 120}, {Seq: 77}, {Filter: ">"}} {
		for _, most := range []uint64{1, 7, 50, 1000} {
			t.Run(fmt.Sprintf("%+v/most=%d", p, most), func(t *testing.T) {
				whole, steps := newWorld(t), newWorld(t)
				for _, w := range []*world{whole, steps} {
					w.configure(`{"max_msgs":-1,"max_bytes":-1,"max_msgs_per_subject":-1}`)
					for i := range 200 {
						w.apply(AppendPublish(nil, fmt.Sprintf("%c.%d", 'a'+i%2, i%9), nil, nil))
					}
				}
				want := whole.apply(EncodePurge(&p))[0].Purged
				next, got, puts := p, uint64(0), uint64(0)
				for next.Most = most; ; {
					r := steps.apply(EncodePurge(&next))[0]
					if r.Err != nil || r.Purged > most {
						t.Fatalf("a step gave %+v", r)
					}
					got += r.Purged
					if r.Rest == nil {
						break
					}
					next = *r.Rest
					steps.apply(AppendPublish(nil, fmt.Sprintf("a.%d", puts%9), nil, nil))
					puts++
					if puts > 300 {
						t.Fatal("the purge does not end")
					}
				}
				if got != want || steps.s.State().Msgs != whole.s.State().Msgs+puts {
					t.Errorf("%d purged in steps, %d at once; %d messages left and %d put meanwhile, %d left at once",
						got, want, steps.s.State().Msgs, puts, whole.s.State().Msgs)
				}
			})
		}
	}
}
