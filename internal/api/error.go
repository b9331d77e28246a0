// Package api holds the JSON requests and replies of the JetStream API, the rules for stream
// configurations, and the one table of its error codes.
//
// It owns the exact emission of every object (which members are always there, which only when
// set), strict decoding with the texts that clients know, and the normalisation and validation of
// a stream configuration as pure functions. It knows no broker, no stream and no clock; whoever
// fills in an answer gives it the values.
package api

import (
	"fmt"
	"strings"
)

// Error is an API error as clients see it. As an error value it means refused: the request had no
// effect and never will have.
type Error struct {
	Code        int    `json:"code"`
	ErrCode     uint16 `json:"err_code,omitempty"`
	Description string `json:"description,omitempty"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// Is makes errors.Is compare the code alone, so that a filled in error equals its definition.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.ErrCode == e.ErrCode
}

// With returns a copy of e with the placeholders of its description replaced, in order.
func (e *Error) With(values ...any) *Error {
	var b strings.Builder
	rest := e.Description
	for _, v := range values {
		open := strings.IndexByte(rest, '{')
		end := strings.IndexByte(rest, '}')
		if open < 0 || end < open {
			break
		}
		b.WriteString(rest[:open])
		fmt.Fprint(&b, v)
		rest = rest[end+1:]
	}
	b.WriteString(rest)
	return &Error{Code: e.Code, ErrCode: e.ErrCode, Description: b.String()}
}

func define(errCode uint16, code int, description string) *Error {
	return &Error{Code: code, ErrCode: errCode, Description: description}
}
