package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is the unit on a connection between servers:
//
//	| length 4 | crc32c 4 | kind 1 | payload length-1 |
//
// length counts kind and payload, and the checksum covers them. TCP's own checksum is too weak to
// be counted: a damaged frame ends the connection, and nothing of it is used.
const (
	frameHeader   = 8
	frameBytesMax = 80 << 20 // the largest payload a client may send, with room for what we add
)

// Kind tells frames apart. The values are part of the protocol between servers.
type Kind uint8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errFrame = errors.New("peer: damaged frame")

// appendFrame encodes one frame. build appends the payload.
func appendFrame(dst []byte, kind Kind, build func([]byte) []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = append(dst, byte(kind))
	dst = build(dst)
	body := dst[start+frameHeader:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

// readFrame reads one frame. The payload is the caller's.
func readFrame(r *bufio.Reader) (Kind, []byte, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n == 0 || n > frameBytesMax {
		return 0, nil, fmt.Errorf("%w: length %d", errFrame, n)
	}
	// The length is not covered by a checksum yet: let memory grow with what really arrives.
	body, err := readAtMost(r, int(n))
	if err != nil {
		return 0, nil, err
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return 0, nil, fmt.Errorf("%w: checksum", errFrame)
	}
	return Kind(body[0]), body[1:], nil
}

func readAtMost(r io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	body := make([]byte, 0, min(n, step))
	for len(body) < n {
		k := min(step, n-len(body))
		at := len(body)
		if cap(body) < at+k {
			grown := make([]byte, at, min(n, 2*cap(body)+k))
			copy(grown, body)
			body = grown
		}
		body = body[:at+k]
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			return nil, err
		}
	}
	return body, nil
}
