package server

import "errors"

// Reason says why a connection ended, in the words monitoring shows.
type Reason uint8

// The reasons.
const (
	ClientClosed Reason = iota + 1
	AuthenticationTimeout
	AuthenticationViolation
	AuthenticationExpired
	TLSHandshakeError
	SlowConsumer
	WriteError
	ReadError
	ParseError
	StaleConnection
	ProtocolViolation
	BadClientProtocolVersion
	MaxConnectionsExceeded
	MaxAccountConnectionsExceeded
	MaxPayloadExceeded
	MaxControlLineExceeded
	ServerShutdown
	CredentialsRevoked
	NoRespondersRequiresHeaders
	Kicked
)

var reasonTexts = [...]string{
	ClientClosed:                  "Client Closed",
	AuthenticationTimeout:         "Authentication Timeout",
	AuthenticationViolation:       "Authentication Failure",
	AuthenticationExpired:         "Authentication Expired",
	TLSHandshakeError:             "TLS Handshake Failure",
	SlowConsumer:                  "Slow Consumer (Pending Bytes)",
	WriteError:                    "Write Error",
	ReadError:                     "Read Error",
	ParseError:                    "Parse Error",
	StaleConnection:               "Stale Connection",
	ProtocolViolation:             "Protocol Violation",
	BadClientProtocolVersion:      "Bad Client Protocol Version",
	MaxConnectionsExceeded:        "Maximum Connections Exceeded",
	MaxAccountConnectionsExceeded: "Maximum Account Connections Exceeded",
	MaxPayloadExceeded:            "Maximum Message Payload Exceeded",
	MaxControlLineExceeded:        "Maximum Control Line Exceeded",
	ServerShutdown:                "Server Shutdown",
	CredentialsRevoked:            "Credentials Revoked",
	NoRespondersRequiresHeaders:   "No Responders Requires Headers",
	Kicked:                        "Kicked",
}

func (r Reason) String() string {
	if r == 0 {
		return ""
	}
	return reasonTexts[r]
}

// told tells whether the client was sent an error line, or ought to see that the end was meant.
func (r Reason) told() bool {
	switch r {
	case ClientClosed, SlowConsumer, WriteError, ReadError, TLSHandshakeError:
		return false
	}
	return true
}

// Error lines, as clients know them.
var (
	errAuthorization   = errors.New("Authorization Violation")
	errAuthTimeout     = errors.New("Authentication Timeout")
	errAuthExpired     = errors.New("User Authentication Expired")
	errConnections     = errors.New("maximum connections exceeded")
	errAccountConns    = errors.New("maximum account active connections exceeded")
	errStale           = errors.New("Stale Connection")
	errTLSRequired     = errors.New("Secure Connection - TLS Required")
	errProtocolVersion = errors.New("invalid client protocol")
	errNeedsHeaders    = errors.New("no responders requires headers support")
	errPublishSubject  = errors.New("Invalid Publish Subject")
)
