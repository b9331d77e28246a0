package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

var schemeColors = map[string]text.Color{
	"yellow": text.FgYellow, "blue": text.FgBlue, "cyan": text.FgCyan,
	"green": text.FgGreen, "magenta": text.FgMagenta, "red": text.FgRed,
}

// ColorSchemes are the values of --colors.
func ColorSchemes() []string {
	return append([]string{"rounded", "double"}, slices.Sorted(maps.Keys(schemeColors))...)
}

// Style is how text is drawn: plainly into a file, to the width and in the colors of a terminal.
type Style struct {
	Terminal bool
	Width    int // columns of the terminal, 0 if unknown
	Scheme   string
}

// StyleFor is the style for output to f.
func StyleFor(f *os.File, scheme string) Style {
	s := Style{Terminal: IsTerminal(f), Scheme: scheme}
	if s.Terminal {
		s.Width, _, _ = term.GetSize(int(f.Fd()))
	}
	return s
}

// IsTerminal reports whether f is one.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Color is s in a color on a terminal that is not told otherwise by $NO_COLOR, else s.
func (s Style) Color(c text.Color, word string) string {
	if !s.Terminal || os.Getenv("NO_COLOR") != "" {
		return word
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", int(c), word)
}

// NewTable is a table with a title and column headers.
func (s Style) NewTable(title string, headers ...any) table.Writer {
	t := table.NewWriter()
	t.SuppressTrailingSpaces()
	style := table.StyleRounded
	if s.Terminal {
		if s.Scheme == "double" {
			style = table.StyleDouble
		}
		if c, ok := schemeColors[s.Scheme]; ok {
			style.Color.Border = text.Colors{c}
			style.Color.Separator = text.Colors{c}
		}
		style.Size.WidthMax = s.Width
	}
	style.Title.Align = text.AlignCenter
	style.Format.Header = text.FormatDefault
	t.SetStyle(style)
	t.SetTitle(title)
	t.AppendHeader(headers)
	return t
}

// Render draws a table, as $NATS_TABLE_FORMAT says (csv, tsv, md) or in a box.
func Render(w io.Writer, t table.Writer) {
	var s string
	switch strings.ToLower(os.Getenv("NATS_TABLE_FORMAT")) {
	case "md", "markdown":
		s = t.RenderMarkdown()
	case "csv":
		s = t.RenderCSV()
	case "tsv":
		s = t.RenderTSV()
	default:
		s = t.Render()
	}
	fmt.Fprintf(w, "%s\n\n", s)
}

// Sections is a list of labels and values under titles, the labels aligned on their colons:
//
//	Heading
//
//	Title:
//
//	        Label: value
//	  Other Label: value
type Sections struct {
	heading string
	rows    []sectionRow
}

// sectionRow is a label and its value, or a title, which has no label.
type sectionRow struct{ label, value string }

// NewSections is an empty list below a heading.
func NewSections(heading string) *Sections { return &Sections{heading: heading} }

// Title starts a section.
func (s *Sections) Title(title string) {
	s.rows = append(s.rows, sectionRow{value: title})
}

// Add adds a labelled value to the section.
func (s *Sections) Add(label string, value any) {
	s.rows = append(s.rows, sectionRow{label, fmt.Sprint(value)})
}

// Render draws the list.
func (s *Sections) Render(w io.Writer, style Style) {
	longest := 0
	for _, r := range s.rows {
		longest = max(longest, utf8.RuneCountInString(r.label))
	}
	colon := ":"
	if c, ok := schemeColors[style.Scheme]; ok {
		colon = style.Color(c, colon)
	}
	fmt.Fprintf(w, "%s\n\n", s.heading)
	for i, r := range s.rows {
		if r.label == "" {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s:\n\n", r.value)
			continue
		}
		pad := strings.Repeat(" ", longest-utf8.RuneCountInString(r.label)+2)
		fmt.Fprintf(w, "%s%s%s %s\n", pad, r.label, colon, r.value)
	}
}
