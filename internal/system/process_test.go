package system

import (
	"encoding/json"
	"strings"
	"testing"
)

// The process shows its figures and its profiles to operators.
func TestProcess(t *testing.T) {
	f := newFixture(t)
	f.ask(serverSubject+"ID.EXPVARZ", "")
	var vars struct {
		Data struct {
			Memstats struct{ HeapAlloc uint64 }
			Cmdline  []string
		}
	}
	if err := json.Unmarshal([]byte(f.next(t)), &vars); err != nil || vars.Data.Memstats.HeapAlloc == 0 || len(vars.Data.Cmdline) == 0 {
		t.Errorf("%+v %v", vars, err)
	}
	for body, want := range map[string]string{
		`{"name":"goroutine","debug":1}`: "goroutine profile", "": "not specified", `{"name":"cpu"}`: "prof_port", `{"name":"none"}`: "none not found",
	} {
		f.ask(pingSubject+".PROFILEZ", body)
		var got struct {
			Data struct {
				Profile []byte
				Error   string
			}
		}
		if err := json.Unmarshal([]byte(f.next(t)), &got); err != nil || !strings.Contains(string(got.Data.Profile)+got.Data.Error, want) {
			t.Errorf("%s: %s%s %v", body, got.Data.Profile, got.Data.Error, err)
		}
	}
}
