package kv

import (
	"bytes"
	"strings"
)

// Operation is what an entry did to its key.
type Operation uint8

const (
	Put    Operation = iota
	Delete           // a marker; older revisions are still there
	Purge            // a marker; older revisions are gone
)

func (o Operation) String() string {
	switch o {
	case Delete:
		return "DEL"
	case Purge:
		return "PURGE"
	}
	return "PUT"
}

// Header is the header block of an entry that is written for the operation; nil for a put.
func (o Operation) Header() []byte {
	switch o {
	case Delete:
		return []byte("NATS/1.0\r\nKV-Operation: DEL\r\n\r\n")
	case Purge:
		return []byte("NATS/1.0\r\nKV-Operation: PURGE\r\nNats-Rollup: sub\r\n\r\n")
	}
	return nil
}

// OperationOf reads the operation from the header block of an entry. The markers that the server
// leaves for what has expired count as purges, and those for removed messages as deletes.
func OperationOf(header []byte) Operation {
	for line := range bytes.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":")
		value = strings.TrimLeft(value, " ")
		switch name {
		case "KV-Operation":
			switch value {
			case "DEL":
				return Delete
			case "PURGE":
				return Purge
			}
		case "Nats-Marker-Reason":
			switch value {
			case "MaxAge", "Purge":
				return Purge
			case "Remove":
				return Delete
			}
		}
	}
	return Put
}
