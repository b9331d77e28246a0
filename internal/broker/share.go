package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
)

// Export offers subjects of an account to others: as a service, whose requests they may send, or
// as a stream of messages, which they may receive.
type Export struct {
	Service  bool
	Subject  string
	Accounts []string // Who may import it; empty: everybody.
	Many     bool     // A request to the service may have several answers.
}

// Import takes up an export of another account.
type Import struct {
	Service bool
	Account string
	Subject string // As the other account names it.
	To      string // As this one does; "$1" stands for its first wildcard. Empty: the same.
	Prefix  string // Streams only, in place of To: put before the subject.
}

// Sharing is what one account exports and imports.
type Sharing struct {
	Exports []Export
	Imports []Import
}

// Share replaces all exports and imports of all accounts. Nothing changes if there is an error.
func (b *Broker) Share(all map[string]Sharing) error {
	streams := map[*Account][]*streamImport{}
	var services []*serviceImport
	for name, s := range all {
		for _, im := range s.Imports {
			export, err := findExport(all, name, im)
			if err != nil {
				return err
			}
			m, err := newMapping(im)
			if err != nil {
				return fmt.Errorf("broker: import of %q by account %q: %w", im.Subject, name, err)
			}
			here, there := b.Account(name), b.Account(im.Account)
			if im.Service {
				services = append(services, &serviceImport{here: here, there: there, mapping: m, many: export.Many})
			} else {
				streams[here] = append(streams[here], &streamImport{there: there, mapping: m})
			}
		}
	}
	b.sharing.Lock()
	defer b.sharing.Unlock()
	for _, s := range b.sharing.services {
		s.Close()
	}
	b.sharing.services = nil
	for _, im := range services {
		b.sharing.services = append(b.sharing.services, im.subscribe())
	}
	for _, a := range b.Accounts() {
		a.importStreams(streams[a])
	}
	return nil
}

func findExport(all map[string]Sharing, importer string, im Import) (Export, error) {
	for _, e := range all[im.Account].Exports {
		if e.Service == im.Service && subject.Subset(im.Subject, e.Subject) &&
			(len(e.Accounts) == 0 || slices.Contains(e.Accounts, importer)) {
			return e, nil
		}
	}
	return Export{}, fmt.Errorf("broker: account %q imports %q, which account %q does not export to it", importer, im.Subject, im.Account)
}

// mapping pairs the subject of an import as the exporter names it with that of the importer. Their
// wildcards correspond.
type mapping struct {
	there, here string
	toHere      *subject.Transform
	toThere     *subject.Transform
	order       []int // The k-th wildcard here is wildcard order[k] there, counted from zero.
}

func newMapping(im Import) (m mapping, err error) {
	if !subject.Valid(im.Subject) {
		return m, ErrInvalidSubject
	}
	to := im.To
	switch {
	case im.Prefix != "":
		to = strings.TrimSuffix(im.Prefix, ".") + "." + im.Subject
	case to == "":
		to = im.Subject
	}
	m.there = im.Subject
	// Wildcards that To does not number are taken in their order.
	var here, dest []string
	next := 0
	for _, tok := range strings.Split(to, ".") {
		n, numbered := wildcardNumber(tok)
		if tok == "*" {
			next++
			n, numbered = next, true
		}
		if numbered {
			m.order = append(m.order, n-1)
			here, dest = append(here, "*"), append(dest, "$"+strconv.Itoa(n))
			continue
		}
		here, dest = append(here, tok), append(dest, tok)
	}
	m.here = strings.Join(here, ".")
	if m.toHere, err = subject.NewTransform(m.there, strings.Join(dest, ".")); err != nil {
		return m, err
	}
	wild := 0
	back := strings.Split(m.there, ".")
	for i, tok := range back {
		if tok != "*" {
			continue
		}
		k := slices.Index(m.order, wild)
		if k < 0 {
			return m, fmt.Errorf("wildcard %d of %q is missing in %q", wild+1, m.there, to)
		}
		back[i] = "$" + strconv.Itoa(k+1)
		wild++
	}
	m.toThere, err = subject.NewTransform(m.here, strings.Join(back, "."))
	return m, err
}

// wildcardNumber reads "$1" and "{{wildcard(1)}}".
func wildcardNumber(tok string) (int, bool) {
	digits, ok := strings.CutPrefix(tok, "$")
	if !ok {
		digits = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(tok), "{{wildcard("), ")}}")
		if len(digits)+len("{{wildcard()}}") != len(tok) {
			return 0, false
		}
	}
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	return n, err == nil && n > 0
}

// narrow is the exporter's subject for what a subscription of the importer asks for: the import's
// own, with the wildcards filled in as far as the subscription is narrower. It is false if the two
// have nothing in common.
func (m *mapping) narrow(sub string) (string, bool) {
	if !subject.Overlap(sub, m.here) {
		return "", false
	}
	asked, ours := strings.Split(sub, "."), strings.Split(m.here, ".")
	at := func(i int) string { // What the subscription asks for at token i.
		if last := len(asked) - 1; i >= last && asked[last] == ">" {
			return "*"
		}
		return asked[i]
	}
	filled := make([]string, len(m.order))
	wild := 0
	for i, tok := range ours {
		if tok == "*" {
			filled[m.order[wild]] = at(i)
			wild++
		}
	}
	there := strings.Split(m.there, ".")
	wild = 0
	for i, tok := range there {
		if tok == "*" {
			there[i] = filled[wild]
			wild++
		}
	}
	if ours[len(ours)-1] == ">" {
		there = there[:len(there)-1]
		if len(asked) >= len(ours) {
			there = append(there, asked[len(ours)-1:]...)
		} else {
			there = append(there, ">")
		}
	}
	return strings.Join(there, "."), true
}
