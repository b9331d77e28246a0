package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type sample struct {
	Name  string   `json:"name"`
	Count uint64   `json:"count"`
	On    bool     `json:"on"`
	Maybe *int     `json:"maybe"`
	Tags  []string `json:"tags"`
}

var samples = []sample{
	{Name: "a, \"quoted\" <b>", Count: 1 << 63, On: true, Tags: []string{"x", "y"}},
	{Name: "yes", Maybe: new(int), Tags: []string{}},
}

func TestFormats(t *testing.T) {
	want := map[Format]struct{ object, list, empty string }{
		JSON: {
			object: `{
  "name": "yes",
  "count": 0,
  "on": false,
  "maybe": 0,
  "tags": []
}
`,
			list: `[
  {
    "name": "a, \"quoted\" <b>",
    "count": 9223372036854775808,
    "on": true,
    "maybe": null,
    "tags": [
      "x",
      "y"
    ]
  },
  {
    "name": "yes",
    "count": 0,
    "on": false,
    "maybe": 0,
    "tags": []
  }
]
`,
			empty: "[]\n",
		},
		JSONL: {
			object: `{"name":"yes","count":0,"on":false,"maybe":0,"tags":[]}` + "\n",
			list: `{"name":"a, \"quoted\" <b>","count":9223372036854775808,"on":true,"maybe":null,"tags":["x","y"]}` + "\n" +
				`{"name":"yes","count":0,"on":false,"maybe":0,"tags":[]}` + "\n",
		},
		YAML: {
			object: "name: \"yes\"\ncount: 0\n\"on\": false\nmaybe: 0\ntags: []\n",
			list: `- name: a, "quoted" <b>
  count: 9223372036854775808
  "on": true
  maybe: null
  tags:
    - x
    - "y"
- name: "yes"
  count: 0
  "on": false
  maybe: 0
  tags: []
`,
			empty: "[]\n",
		},
		CSV: {
			object: "name,count,on,maybe,tags\nyes,0,false,0,[]\n",
			list: "name,count,on,maybe,tags\n" +
				`"a, ""quoted"" <b>",9223372036854775808,true,,"[""x"",""y""]"` + "\nyes,0,false,0,[]\n",
			empty: "name,count,on,maybe,tags\n",
		},
	}
	for format, w := range want {
		check := func(what, want string, write func(*Printer) error) {
			var b bytes.Buffer
			p := NewPrinter(&b, format)
			if err := write(p); err != nil {
				t.Errorf("%s %s: %v", format, what, err)
			}
			if b.String() != want {
				t.Errorf("%s %s:\n%s\nwant:\n%s", format, what, b.String(), want)
			}
		}
		check("object", w.object, func(p *Printer) error { return p.Object(samples[1]) })
		check("list", w.list, func(p *Printer) error { return p.List(samples) })
		check("empty list", w.empty, func(p *Printer) error { return p.List([]sample(nil)) })
	}
}

// A stream of YAML is a stream of documents, one of JSON a stream of lines.
func TestStream(t *testing.T) {
	for format, want := range map[Format]string{
		JSON: `{"name":"yes","count":0,"on":false,"maybe":0,"tags":[]}` + "\n",
		YAML: "---\nname: \"yes\"\ncount: 0\n\"on\": false\nmaybe: 0\ntags: []\n",
		CSV:  "name,count,on,maybe,tags\nyes,0,false,0,[]\n",
	} {
		var b bytes.Buffer
		s := NewPrinter(&b, format).Stream(reflect.TypeFor[sample]())
		if err := s.Write(samples[1]); err != nil || b.String() != want {
			t.Errorf("%s: %v\n%s\nwant:\n%s", format, err, b.String(), want)
		}
	}
}

// Any text survives YAML and JSON, control characters and what looks like another type included.
func FuzzTextRoundTrip(f *testing.F) {
	for _, s := range []string{"", "null", "1e3", "~", "a: b", "\x7f\x00\x1b", "line\r\nline\n", "- x", "\u2028\u0085", "0x1f", "2026-01-01", "'", "\ufeff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in := sample{Name: strings.ToValidUTF8(s, "?"), Tags: []string{}}
		for _, format := range []Format{JSON, JSONL, YAML} {
			var b bytes.Buffer
			if err := NewPrinter(&b, format).Object(in); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			var out map[string]any
			unmarshal := json.Unmarshal
			if format == YAML {
				unmarshal = yaml.Unmarshal
			}
			if err := unmarshal(b.Bytes(), &out); err != nil {
				t.Fatalf("%s of %q: %v\n%s", format, in.Name, err, b.String())
			}
			if out["name"] != in.Name {
				t.Fatalf("%s of %q reads back as %q", format, in.Name, out["name"])
			}
		}
	})
}
