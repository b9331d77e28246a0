package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Exit codes. Scripts depend on them: they are documented in docs/cli.md and do not change.
const (
	ExitOK          = 0
	ExitGeneral     = 1
	ExitUsage       = 2
	ExitNotFound    = 3 // no such bucket, key or revision
	ExitConflict    = 4 // it exists already, or changed in the meantime
	ExitUnavailable = 5 // no server, no leader, or no answer in time: the outcome may be unknown
	ExitAuth        = 6 // not who may do this
	ExitCancelled   = 7 // the user said no
	ExitInterrupted = 130
)

// ErrCancelled is the error of a command whose question was answered with no. It prints nothing more.
var ErrCancelled = &Error{Code: ExitCancelled}

// ErrInterrupted is the error of a command ended by SIGINT. It prints nothing.
var ErrInterrupted = &Error{Code: ExitInterrupted}

// Error is an error with its exit code and advice for the user, a line each. Err is nil when there is
// nothing to print.
type Error struct {
	Code  int
	Err   error
	Hints []string
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Usagef is an error in how the command was called.
func Usagef(format string, args ...any) *Error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Report prints an error and its advice and returns the exit code.
func Report(w io.Writer, err error) int {
	code := ExitCode(err)
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Err: err}
	}
	if e.Err == nil {
		return code
	}
	fmt.Fprintf(w, "cleat: error: %s\n", message(err))
	for _, h := range e.Hints {
		fmt.Fprintf(w, "  %s\n", h)
	}
	return code
}

// message is the error's text without the client library's name before each part of it.
func message(err error) string {
	return strings.ReplaceAll(err.Error(), "nats: ", "")
}

// ExitCode is the exit code of an error by its class; nil is ExitOK.
func ExitCode(err error) int {
	var own *Error
	if errors.As(err, &own) {
		return own.Code
	}
	if api := apiError(err); api != nil {
		return apiExitCode(api)
	}
	for _, class := range errorClasses {
		for _, known := range class.errors {
			if errors.Is(err, known) {
				return class.code
			}
		}
	}
	var dial *net.OpError
	var name *net.DNSError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &dial), errors.As(err, &name):
		return ExitUnavailable
	default:
		return ExitGeneral
	}
}

var errorClasses = []struct {
	code   int
	errors []error
}{
	{ExitInterrupted, []error{context.Canceled}},
	{ExitNotFound, []error{
		jetstream.ErrBucketNotFound, jetstream.ErrKeyNotFound, jetstream.ErrKeyDeleted,
		jetstream.ErrNoKeysFound, jetstream.ErrStreamNotFound, jetstream.ErrMsgNotFound,
	}},
	{ExitConflict, []error{
		jetstream.ErrBucketExists, jetstream.ErrKeyExists, jetstream.ErrStreamNameAlreadyInUse,
	}},
	{ExitUsage, []error{
		jetstream.ErrInvalidKey, jetstream.ErrInvalidBucketName, jetstream.ErrHistoryTooLarge,
	}},
	{ExitAuth, []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrPermissionViolation,
		nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported,
	}},
	{ExitUnavailable, []error{
		nats.ErrNoServers, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrConnectionClosed,
		nats.ErrDisconnected, nats.ErrStaleConnection, nats.ErrNoStreamResponse,
		nats.ErrMaxConnectionsExceeded, nats.ErrMaxAccountConnectionsExceeded,
		jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled,
		context.DeadlineExceeded,
	}},
}

// apiError is the server's answer behind an error, nil if there is none.
func apiError(err error) *jetstream.APIError {
	var js jetstream.JetStreamError
	if errors.As(err, &js) {
		return js.APIError()
	}
	return nil
}

// IsWrongSequence reports whether an expected revision was not the one found.
func IsWrongSequence(err error) bool {
	api := apiError(err)
	return api != nil && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// nameInUseRestore is the refusal to restore a stream that is there.
const nameInUseRestore jetstream.ErrorCode = 10130

func apiExitCode(e *jetstream.APIError) int {
	switch e.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant,
		jetstream.JSErrCodeStreamNameInUse, nameInUseRestore:
		return ExitConflict
	case jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return ExitAuth
	}
	switch e.Code {
	case 404:
		return ExitNotFound
	case 401, 403:
		return ExitAuth
	case 408, 503:
		return ExitUnavailable
	default:
		return ExitGeneral
	}
}
