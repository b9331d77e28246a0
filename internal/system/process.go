package system

import (
	"bytes"
	"encoding/json"
	"expvar"
	"runtime/pprof"
)

// expvarz shows the figures of the Go runtime.
func (r *request) expvarz() {
	if !r.read(nil) {
		return
	}
	figure := func(name string) json.RawMessage {
		if v := expvar.Get(name); v != nil {
			return json.RawMessage(v.String())
		}
		return nil
	}
	r.respond(struct {
		Memstats json.RawMessage `json:"memstats"`
		Cmdline  json.RawMessage `json:"cmdline"`
	}{figure("memstats"), figure("cmdline")})
}

// profilez takes a profile that is there at once. One of the CPU would keep other requests waiting.
func (r *request) profilez() {
	var q struct {
		Name  string `json:"name"`
		Debug int    `json:"debug"`
	}
	if !r.read(&q) {
		return
	}
	var result struct {
		Profile []byte `json:"profile"`
		Error   string `json:"error,omitempty"`
	}
	var buf bytes.Buffer
	switch p := pprof.Lookup(q.Name); {
	case q.Name == "":
		result.Error = "Profile name not specified"
	case q.Name == "cpu":
		result.Error = "CPU profiles are not taken by request: set prof_port and use /debug/pprof/profile there"
	case p == nil:
		result.Error = "Profile " + q.Name + " not found"
	default:
		if err := p.WriteTo(&buf, q.Debug); err != nil {
			result.Error = err.Error()
		} else {
			result.Profile = buf.Bytes()
		}
	}
	r.respond(result)
}
