package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// TestReplicasAgree applies random commands to two replicas, of which one is restarted from a
// snapshot now and then and packs its log entries alike: results and states must be the same.
func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			a, b := newWorld(t), newWorld(t)
			reconfigure(r, a, b)
			now := time.Duration(0)
			for step := range 300 {
				now += time.Duration(r.IntN(int(400 * time.Millisecond)))
				a.now = now
				if r.IntN(20) == 0 {
					a.now -= time.Second // Another leader, whose clock is behind.
				}
				b.now = a.now
				switch r.IntN(25) {
				case 0:
					reconfigure(r, a, b)
				case 1:
					b.restart()
				}
				commands := randomCommands(r)
				x, y := joinResults(a.apply(commands...)), joinResults(b.apply(commands...))
				if x != y {
					t.Fatalf("step %d: results differ:\n%s\n%s", step, x, y)
				}
			}
			if x, y := a.dump(), b.dump(); x != y {
				t.Fatalf("states differ:\n%s\n%s", x, y)
			}
			checkLimits(t, a)
		})
	}
}

func reconfigure(r *rand.Rand, worlds ...*world) {
	marker := []int{0, 1, 3}[r.IntN(3)]
	discard := []string{"old", "new"}[r.IntN(2)]
	text := fmt.Sprintf(`{"max_msgs":%d,"max_bytes":%d,"max_msgs_per_subject":%d,"max_age":%d,"discard":%q,"allow_msg_ttl":true,"allow_rollup_hdrs":true,"subject_delete_marker_ttl":%d,"duplicate_window":1000000000}`,
		r.IntN(30), r.IntN(3000), r.IntN(5), int64(1+r.IntN(10))*int64(time.Second), discard, int64(marker)*int64(time.Second))
	for _, w := range worlds {
		w.configure(text)
	}
}

func randomCommands(r *rand.Rand) (commands [][]byte) {
	for range 1 + r.IntN(5) {
		subj := fmt.Sprintf("a.%d", r.IntN(8))
		var command []byte
		switch r.IntN(13) {
		case 0:
			command = EncodeExpire()
		case 1:
			command = EncodePurge(&Purge{Filter: []string{"", subj, "a.*"}[r.IntN(3)], Keep: uint64(r.IntN(3))})
		case 2:
			command = EncodePurge(&Purge{Filter: []string{"", subj, "a.*"}[r.IntN(3)], Most: uint64(1 + r.IntN(4)), After: "a.1"})
		case 3:
			command = EncodeDelete(&Delete{Seq: uint64(r.IntN(300)), Erase: r.IntN(2) == 0})
		default:
			command = AppendPublish(nil, subj, randomHeader(r), make([]byte, r.IntN(100)))
		}
		commands = append(commands, command)
	}
	return commands
}

func randomHeader(r *rand.Rand) []byte {
	lines := []string{
		"", "", "",
		fmt.Sprintf("%s: id%d\r\n", hdrMsgID, r.IntN(20)),
		fmt.Sprintf("%s: %d\r\n", hdrExpectedSubjSeq, r.IntN(3)*r.IntN(100)),
		fmt.Sprintf("%s: %ds\r\n", hdrTTL, 1+r.IntN(5)),
		hdrTTL + ": never\r\n",
		hdrRollup + ": sub\r\n",
		hdrKVOperation + ": PURGE\r\n" + hdrRollup + ": sub\r\n" + hdrTTL + ": 1s\r\n",
	}
	line := lines[r.IntN(len(lines))]
	if line == "" {
		return nil
	}
	return []byte(HeaderLine + line + "\r\n")
}

// checkLimits holds the state against the configuration.
func checkLimits(t *testing.T, w *world) {
	c, st := w.s.Config(), w.s.State()
	if c.Discard == api.DiscardOld {
		if c.MaxMsgs > 0 && st.Msgs > uint64(c.MaxMsgs) {
			t.Errorf("%d messages, at most %d are allowed", st.Msgs, c.MaxMsgs)
		}
		if c.MaxBytes > 0 && st.Bytes > uint64(c.MaxBytes) {
			t.Errorf("%d bytes, at most %d are allowed", st.Bytes, c.MaxBytes)
		}
	}
	details, total, err := w.s.Describe(Details{SubjectsFilter: ">", Limit: 1000, Deleted: true})
	if err != nil {
		t.Fatal(err)
	}
	if uint64(total) != st.NumSubjects || uint64(len(details.Deleted)) != st.NumDeleted {
		t.Errorf("details %+v do not fit the state %+v", details, st)
	}
	for subj, n := range details.Subjects {
		if c.MaxMsgsPerSubject > 0 && n > uint64(c.MaxMsgsPerSubject) {
			t.Errorf("%s has %d messages, at most %d are allowed", subj, n, c.MaxMsgsPerSubject)
		}
		m, ok, err := w.s.Last(subj)
		if !ok || err != nil || m.Subject != subj {
			t.Errorf("the last message on %s: %+v %v %v", subj, m, ok, err)
		}
	}
}
