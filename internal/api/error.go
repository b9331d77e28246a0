// Package api holds the JSON requests and replies of the JetStream API, and the one table of its
// error codes.
package api

import "fmt"

// Error is an API error as clients see it.
type Error struct {
	Code        int    `json:"code"`
	ErrCode     uint16 `json:"err_code,omitempty"`
	Description string `json:"description,omitempty"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }
