package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Format is how results are written.
type Format string

// Table is the text for people, the same as the nats tool's. The others are for programs: their fields
// are documented in docs/cli.md, always all there, and in the same order.
const (
	Table Format = "table"
	JSON  Format = "json"  // one indented value
	JSONL Format = "jsonl" // one value a line
	YAML  Format = "yaml"
	CSV   Format = "csv" // a header, then a line a record; a cell that is no scalar holds JSON
)

// Formats lists the formats' names.
func Formats() []string {
	return []string{string(Table), string(JSON), string(JSONL), string(YAML), string(CSV)}
}

func (f *Format) String() string { return string(*f) }
func (f *Format) Type() string   { return "FORMAT" }

func (f *Format) Set(s string) error {
	for _, known := range Formats() {
		if s == known {
			*f = Format(s)
			return nil
		}
	}
	return fmt.Errorf("use one of %s", strings.Join(Formats(), ", "))
}

// Printer writes results. A record is a struct with json tags, or a pointer to one; a list a slice of
// them.
type Printer struct {
	Format Format
	w      *bufio.Writer
}

// NewPrinter is a Printer on w. What it writes shows after Flush.
func NewPrinter(w io.Writer, f Format) *Printer {
	return &Printer{Format: f, w: bufio.NewWriter(w)}
}

// Structured reports whether the format is one for programs.
func (p *Printer) Structured() bool { return p.Format != Table }

// Printf writes text as it is.
func (p *Printer) Printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// Write writes bytes as they are.
func (p *Printer) Write(b []byte) (int, error) { return p.w.Write(b) }

// Flush makes what was written appear.
func (p *Printer) Flush() error { return p.w.Flush() }

// Object writes one record.
func (p *Printer) Object(record any) error {
	switch p.Format {
	case JSON:
		return p.json(record, "  ")
	case YAML:
		return p.yaml(record)
	default:
		return p.each(reflect.TypeOf(record), []any{record})
	}
}

// List writes a slice of records.
func (p *Printer) List(records any) error {
	v := reflect.ValueOf(records)
	if v.IsNil() {
		v = reflect.MakeSlice(v.Type(), 0, 0) // An empty list, not null.
	}
	switch p.Format {
	case JSON:
		return p.json(v.Interface(), "  ")
	case YAML:
		return p.yaml(v.Interface())
	}
	items := make([]any, v.Len())
	for i := range items {
		items[i] = v.Index(i).Interface()
	}
	return p.each(v.Type().Elem(), items)
}

// each writes records as lines of JSON or CSV.
func (p *Printer) each(t reflect.Type, records []any) error {
	s := p.Stream(t)
	for _, r := range records {
		if err := s.Write(r); err != nil {
			return err
		}
	}
	return p.Flush()
}

// Stream writes records one by one, each at once: JSON as lines, YAML as documents, for a list that
// has no end cannot be one value.
type Stream struct {
	p    *Printer
	kind reflect.Type
	head bool // the header of CSV is written
}

// Stream starts a list of records of the type.
func (p *Printer) Stream(record reflect.Type) *Stream {
	s := &Stream{p: p, kind: record}
	s.header()
	return s
}

func (s *Stream) header() {
	if s.p.Format != CSV || s.head {
		return
	}
	s.head = true
	s.csvLine(fieldNames(s.kind))
}

// Write writes a record.
func (s *Stream) Write(record any) error {
	switch s.p.Format {
	case YAML:
		s.p.Printf("---\n")
		return s.p.yaml(record)
	case CSV:
		cells, err := cells(record)
		if err != nil {
			return err
		}
		s.csvLine(cells)
		return s.p.Flush()
	default:
		return s.p.json(record, "")
	}
}

func (s *Stream) csvLine(cells []string) {
	w := csv.NewWriter(s.p.w)
	_ = w.Write(cells) // A broken pipe ends the program anyway.
	w.Flush()
}

func (p *Printer) json(v any, indent string) error {
	enc := json.NewEncoder(p.w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return p.Flush()
}

// yaml writes what json writes, as YAML: the same names in the same order.
func (p *Printer) yaml(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	node, err := yamlNode(dec)
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(p.w)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	return p.Flush()
}

// yamlNode reads one JSON value as a YAML node. It goes by way of tokens because maps lose the order
// of the fields.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		n := new(yaml.Node)
		if number, ok := tok.(json.Number); ok {
			n.Kind, n.Value = yaml.ScalarNode, number.String()
			return n, nil
		}
		return n, n.Encode(tok)
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if delim == '{' {
		n.Kind = yaml.MappingNode
	}
	for dec.More() {
		child, err := yamlNode(dec)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle // [] and {}
	}
	_, err = dec.Token() // The closing bracket.
	return n, err
}

// fieldNames are the json names of a record's fields.
func fieldNames(t reflect.Type) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var names []string
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}

// cells are a record's fields as text: a string as it is, null as nothing, the rest as JSON.
func cells(record any) ([]string, error) {
	v := reflect.Indirect(reflect.ValueOf(record))
	var out []string
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v.Field(i).Interface()); err != nil {
			return nil, err
		}
		text := strings.TrimSuffix(b.String(), "\n")
		switch {
		case text == "null":
			text = ""
		case text[0] == '"':
			if err := json.Unmarshal(b.Bytes(), &text); err != nil {
				return nil, err
			}
		}
		out = append(out, text)
	}
	return out, nil
}
