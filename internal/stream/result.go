package stream

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
)

// A result that has to go to another server is encoded as
//
//	| flags 1 | seq uvarint | purged uvarint | created varint |
//	| error: length uvarint, JSON |                               if flagged
//	| republish: three times length uvarint, bytes |              if flagged
//	| rest of a purge: length uvarint, the command |              if flagged
//
// It never reaches a disk; both servers are of one cluster.
const (
	resultRefused   = 1 << 0
	resultDuplicate = 1 << 1
	resultRepublish = 1 << 2
	resultRest      = 1 << 3
)

// AppendResult appends the encoding of r to b.
func AppendResult(b []byte, r *Result) []byte {
	var flags byte
	if r.Err != nil {
		flags |= resultRefused
	}
	if r.Duplicate {
		flags |= resultDuplicate
	}
	if r.Republish != nil {
		flags |= resultRepublish
	}
	if r.Rest != nil {
		flags |= resultRest
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, r.Seq)
	b = binary.AppendUvarint(b, r.Purged)
	b = binary.AppendVarint(b, r.Created)
	if r.Err != nil {
		j, err := json.Marshal(r.Err)
		if err != nil {
			panic(fmt.Sprintf("stream: encode refusal: %v", err)) // Numbers and a string, always encodable.
		}
		b = appendBytes(b, j)
	}
	if p := r.Republish; p != nil {
		b = appendBytes(b, []byte(p.Subject))
		b = appendBytes(b, p.Header)
		b = appendBytes(b, p.Data)
	}
	if r.Rest != nil {
		b = appendBytes(b, EncodePurge(r.Rest))
	}
	return b
}

// DecodeResult is the inverse. The result aliases b.
func DecodeResult(b []byte) (*Result, error) {
	if len(b) == 0 || b[0] > resultRefused|resultDuplicate|resultRepublish|resultRest {
		return nil, errCommand
	}
	flags, b := b[0], b[1:]
	r := &Result{Duplicate: flags&resultDuplicate != 0}
	var err error
	if r.Seq, b, err = takeUvarint(b); err != nil {
		return nil, err
	}
	if r.Purged, b, err = takeUvarint(b); err != nil {
		return nil, err
	}
	created, n := binary.Varint(b)
	if n <= 0 {
		return nil, errCommand
	}
	r.Created, b = created, b[n:]
	if flags&resultRefused != 0 {
		var j []byte
		if j, b, err = takeBytes(b); err != nil {
			return nil, err
		}
		r.Err = &api.Error{}
		if err := json.Unmarshal(j, r.Err); err != nil {
			return nil, fmt.Errorf("%w: %w", errCommand, err)
		}
	}
	if flags&resultRepublish != 0 {
		if r.Republish, b, err = takeRepublished(b); err != nil {
			return nil, err
		}
	}
	if flags&resultRest != 0 {
		if r.Rest, b, err = takeRest(b); err != nil {
			return nil, err
		}
	}
	if len(b) != 0 {
		return nil, errCommand
	}
	return r, nil
}

func takeRest(b []byte) (*Purge, []byte, error) {
	command, b, err := takeBytes(b)
	if err != nil || len(command) == 0 || Kind(command[0]) != KindPurgeSome {
		return nil, nil, errCommand
	}
	p, err := decodePurgeSome(command[1:])
	return &p, b, err
}

func takeRepublished(b []byte) (*Republished, []byte, error) {
	var parts [3][]byte
	for i := range parts {
		var err error
		if parts[i], b, err = takeBytes(b); err != nil {
			return nil, nil, err
		}
	}
	return &Republished{Subject: string(parts[0]), Header: parts[1], Data: parts[2]}, b, nil
}

func appendBytes(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}
