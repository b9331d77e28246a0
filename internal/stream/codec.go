package stream

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
)

// A command is a byte for its kind and then, by kind:
//
//	Publish         | subject length uvarint | subject | header length uvarint | header | data ... |
//	Delete          | seq uvarint | erase 1 |
//	Purge           | seq uvarint | keep uvarint | filter ... |
//	Configure       | JSON of Configure |
//	Expire, Compare nothing
//	Consumer...     what package consumer makes of it
//	Copied          see copiedParts
//	Mirrored        see mirroredParts
//	Restored        as Mirrored
//	PurgeSome       | seq uvarint | most uvarint | after length uvarint | after | filter ... |
//
// Decoded parts alias the command.

var errCommand = errors.New("stream: malformed command")

// AppendPublish appends the command that stores a message to b; header is a whole block or nil. The caller may reuse b once the command is proposed.
func AppendPublish(b []byte, subject string, header, data []byte) []byte {
	return appendMessage(append(b, byte(KindPublish)), subject, header, data)
}

func appendMessage(b []byte, subject string, header, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(subject)))
	b = append(b, subject...)
	b = binary.AppendUvarint(b, uint64(len(header)))
	b = append(b, header...)
	return append(b, data...)
}

// publishParts is a decoded publish.
type publishParts struct {
	subject, header, data []byte
}

func decodePublish(b []byte) (p publishParts, err error) {
	if p.subject, b, err = takeBytes(b); err != nil {
		return p, err
	}
	if p.header, p.data, err = takeBytes(b); err != nil {
		return p, err
	}
	if len(p.subject) == 0 {
		return p, errCommand
	}
	if len(p.header) == 0 {
		p.header = nil
	}
	return p, nil
}

// EncodeDelete gives the bytes of the command.
func EncodeDelete(d *Delete) []byte {
	b := binary.AppendUvarint([]byte{byte(KindDelete)}, d.Seq)
	if d.Erase {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeDelete(b []byte) (d Delete, err error) {
	if d.Seq, b, err = takeUvarint(b); err != nil {
		return d, err
	}
	if len(b) != 1 || b[0] > 1 {
		return d, errCommand
	}
	d.Erase = b[0] == 1
	return d, nil
}

// EncodePurge gives the bytes of the command.
func EncodePurge(p *Purge) []byte {
	if p.Most > 0 {
		b := binary.AppendUvarint([]byte{byte(KindPurgeSome)}, p.Seq)
		b = binary.AppendUvarint(b, p.Most)
		return append(appendBytes(b, []byte(p.After)), p.Filter...)
	}
	b := binary.AppendUvarint([]byte{byte(KindPurge)}, p.Seq)
	b = binary.AppendUvarint(b, p.Keep)
	return append(b, p.Filter...)
}

func decodePurge(b []byte) (p Purge, err error) {
	if p.Seq, b, err = takeUvarint(b); err != nil {
		return p, err
	}
	if p.Keep, b, err = takeUvarint(b); err != nil {
		return p, err
	}
	p.Filter = string(b)
	return p, nil
}

func decodePurgeSome(b []byte) (p Purge, err error) {
	if p.Seq, b, err = takeUvarint(b); err != nil {
		return p, err
	}
	if p.Most, b, err = takeUvarint(b); err != nil {
		return p, err
	}
	after, b, err := takeBytes(b)
	if err == nil && p.Most == 0 {
		err = errCommand
	}
	p.After, p.Filter = string(after), string(b)
	return p, err
}

// EncodeConfigure gives the bytes of the command.
func EncodeConfigure(c *Configure) []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("stream: encode configuration: %v", err)) // A normalised one always encodes.
	}
	return append([]byte{byte(KindConfigure)}, b...)
}

// ConfigRecord is the key of the auxiliary record that holds a stream's configuration, which
// RecordedConfig decodes, for who looks at an engine without the machine.
const ConfigRecord = auxConfig

// RecordedConfig decodes that record.
func RecordedConfig(b []byte) (*api.StreamConfig, error) {
	c, err := decodeConfigure(b)
	if err != nil {
		return nil, err
	}
	return &c.Config, nil
}

func decodeConfigure(b []byte) (*Configure, error) {
	c := new(Configure)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %w", errCommand, err)
	}
	return c, nil
}

// EncodeCompare makes the command that has all replicas hold on to one state, see TakeFrozen.
func EncodeCompare() []byte { return []byte{byte(KindCompare)} }

// EncodeExpire gives the bytes of the command.
func EncodeExpire() []byte { return []byte{byte(KindExpire)} }

// EncodeConsumer gives the bytes of a command about a consumer; body is what package consumer makes
// of it.
func EncodeConsumer(kind Kind, body []byte) []byte {
	return append(append(make([]byte, 0, 1+len(body)), byte(kind)), body...)
}

func takeUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errCommand
	}
	return v, b[n:], nil
}

func takeBytes(b []byte) (part, rest []byte, err error) {
	n, b, err := takeUvarint(b)
	if err != nil || n > uint64(len(b)) {
		return nil, nil, errCommand
	}
	return b[:n:n], b[n:], nil
}
