package system

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/server"
)

// request is one question.
type request struct {
	service  *Service
	account  *broker.Account // in which it was asked, and is answered
	subject  string
	reply    string
	body     []byte
	compress bool
}

// answer is the envelope around all answers but a few old ones.
type answer struct {
	Server server.ServerInfo `json:"server"`
	Data   any               `json:"data,omitempty"`
	Error  *failure          `json:"error,omitempty"`
}

type failure struct {
	Code        int    `json:"code"`
	Description string `json:"description"`
}

// filter chooses among the servers that hear a request.
type filter struct {
	Name    string   `json:"server_name"`
	Cluster string   `json:"cluster"`
	Host    string   `json:"host"`
	Exact   bool     `json:"exact_match"` // else a part of the name is enough
	Tags    []string `json:"tags"`        // all of them
	Domain  string   `json:"domain"`
}

func (f *filter) admits(i server.ServerInfo) bool {
	fits := func(want, have string) bool {
		return want == "" || want == have || !f.Exact && strings.Contains(have, want)
	}
	for _, tag := range f.Tags {
		if !slices.ContainsFunc(i.Tags, func(t string) bool { return strings.EqualFold(t, tag) }) {
			return false
		}
	}
	return fits(f.Name, i.Name) && fits(f.Cluster, i.Cluster) && fits(f.Host, i.Host) && (f.Domain == "" || f.Domain == i.Domain)
}

// read decodes the body into options and tells whether the request is for this server and there is
// somebody to answer. What cannot be decoded is refused.
func (r *request) read(options any) bool {
	if r.reply == "" {
		return false
	}
	var f filter
	if len(bytes.TrimSpace(r.body)) > 0 {
		err := json.Unmarshal(r.body, &f)
		if err == nil && options != nil {
			err = json.Unmarshal(r.body, options)
		}
		if err != nil {
			r.refuse(400, err.Error())
			return false
		}
	}
	return f.admits(r.service.opts.Describe())
}

func (r *request) respond(data any) {
	r.send(answer{Server: r.service.opts.Describe(), Data: data})
}

func (r *request) refuse(code int, why string) {
	r.send(answer{Server: r.service.opts.Describe(), Error: &failure{code, why}})
}

func (r *request) send(message any) {
	if r.reply == "" {
		return
	}
	var header []byte
	if r.compress {
		header = compressedHeader
	}
	r.service.publish(r.account, r.reply, header, message)
}

// compressedHeader marks a body that is compressed, in the words of the tools.
var compressedHeader = []byte("NATS/1.0\r\nContent-Encoding: snappy\r\n\r\n")

// encode compresses a body if its header says so.
func encode(header, data []byte) ([]byte, []byte) {
	if header == nil {
		return nil, data
	}
	var b bytes.Buffer
	w := s2.NewWriter(&b, s2.WriterConcurrency(1), s2.WriterSnappyCompat())
	if err := w.EncodeBuffer(data); err != nil {
		return nil, data // It is no less right for being long.
	}
	if err := w.Close(); err != nil {
		return nil, data
	}
	return header, b.Bytes()
}

// accepts tells whether who asks reads compressed answers.
func accepts(header []byte) bool {
	for line := range strings.SplitSeq(string(header), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if value = strings.ToLower(value); ok && strings.EqualFold(name, "Accept-Encoding") {
			return strings.Contains(value, "snappy") || strings.Contains(value, "s2")
		}
	}
	return false
}
