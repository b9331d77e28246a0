package api

import (
	"errors"
	"slices"
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
)

// Key tells the sources of a stream apart, and is how far each has been copied is remembered under:
// the origin's name, the filters, and what subjects become. It stands in Nats-Stream-Source too, so
// the parts are separated by blanks and have none.
func (s *StreamSource) Key() string {
	filters, destinations := []string{s.FilterSubject}, []string{""}
	if len(s.SubjectTransforms) > 0 {
		filters, destinations = nil, nil
		for _, t := range s.SubjectTransforms {
			filters = append(filters, t.Source)
			destinations = append(destinations, t.Destination)
		}
	}
	return s.Name + " " + keyPart(filters) + " " + keyPart(destinations)
}

func keyPart(subjects []string) string {
	out := make([]string, len(subjects))
	for i, s := range subjects {
		if s == "" {
			s = subjectAll
		}
		out[i] = strings.ReplaceAll(s, " ", "")
	}
	return strings.Join(out, "\f")
}

// Filters are the subjects that the source copies, at least one.
func (s *StreamSource) Filters() []string {
	if len(s.SubjectTransforms) == 0 {
		return []string{orAll(s.FilterSubject)}
	}
	filters := make([]string, len(s.SubjectTransforms))
	for i, t := range s.SubjectTransforms {
		filters[i] = orAll(t.Source)
	}
	return filters
}

func orAll(s string) string {
	if s == "" {
		return subjectAll
	}
	return s
}

// Origins are the streams that the configuration copies from: its mirror or its sources.
func (c *StreamConfig) Origins() []*StreamSource {
	if c.Mirror != nil {
		return []*StreamSource{c.Mirror}
	}
	return c.Sources
}

// Local is a copy of the configuration in which origins that are reached by the API prefix of the
// server's own domain are like those named without one.
func (c StreamConfig) Local(domain string) StreamConfig {
	if domain == "" {
		return c
	}
	prefix := "$JS." + domain + ".API"
	local := func(s *StreamSource) *StreamSource {
		if s == nil || s.External == nil || s.External.APIPrefix != prefix || s.External.DeliverPrefix != "" {
			return s
		}
		l := *s
		l.External = nil
		return &l
	}
	c.Mirror = local(c.Mirror)
	c.Sources = slices.Clone(c.Sources)
	for i, s := range c.Sources {
		c.Sources[i] = local(s)
	}
	return c
}

// checkSources judges the sources, each by itself and against the others.
func (c *StreamConfig) checkSources(bool) *Error {
	if len(c.Sources) > 0 && c.AllowMsgSchedules {
		return ErrSourceWithSchedules
	}
	keys := make(map[string]bool)
	for _, s := range c.Sources {
		if s == nil || CheckStreamName(s.Name) != nil {
			return ErrSourceNameInvalid
		}
		if s.FilterSubject != "" && len(s.SubjectTransforms) > 0 {
			return ErrSourceFilterAndTransforms
		}
		if err := s.checkSubjects(ErrSourceTransformSource, ErrSourceTransform, ErrSourceFiltersOverlap); err != nil {
			return err
		}
		if s.External == nil && keys[s.Key()] {
			return ErrSourceDuplicate
		}
		keys[s.Key()] = s.External == nil
		if s.Consumer != nil {
			return ErrSourceConsumerInvalid
		}
	}
	return nil
}

// checkSubjects judges the subjects of one source or mirror; the refusals are those of its kind.
func (s *StreamSource) checkSubjects(source, destination, overlap *Error) *Error {
	if s.FilterSubject != "" && !subject.Valid(s.FilterSubject) {
		return source.With("invalid subject " + s.FilterSubject)
	}
	for i, t := range s.SubjectTransforms {
		if t.Source != "" && !subject.Valid(t.Source) {
			return source.With("invalid subject " + t.Source)
		}
		if t.Destination != "" {
			switch _, err := subject.NewTransform(t.Source, t.Destination); {
			case errors.Is(err, subject.ErrInvalid):
				return source.With(err)
			case err != nil:
				return destination.With(err)
			}
		}
		for _, earlier := range s.SubjectTransforms[:i] {
			if subject.Overlap(orAll(earlier.Source), orAll(t.Source)) {
				return overlap
			}
		}
	}
	return nil
}
