package backup

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/s2"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

const (
	magic          = "NATSARC1"
	stateName      = "state.json"
	consumerPrefix = "consumers/"
)

// Consumer is a durable consumer in an archive.
type Consumer struct {
	Config api.ConsumerConfig `json:"config"`
	State  ConsumerState      `json:"state"`
}

// ConsumerState is how far a consumer is. What was delivered above the floor and not acknowledged is
// delivered again after a restore.
type ConsumerState struct {
	Delivered api.SequenceInfo `json:"delivered"`
	AckFloor  api.SequenceInfo `json:"ack_floor"`
}

// Writer writes an archive: the state, the consumers, the messages, in this order.
type Writer struct {
	to  *s2.Writer
	buf []byte
}

// NewWriter begins an archive of a stream in that state, at a time in Unix nanoseconds.
func NewWriter(w io.Writer, state *api.StreamState, at int64) (*Writer, error) {
	a := &Writer{to: s2.NewWriter(w, s2.WriterConcurrency(1))}
	if _, err := io.WriteString(a.to, magic); err != nil {
		return nil, err
	}
	return a, a.json(stateName, state, at)
}

// Consumer adds a consumer.
func (a *Writer) Consumer(c *Consumer, at int64) error {
	return a.json(consumerPrefix+c.Config.Name, c, at)
}

func (a *Writer) json(name string, what any, at int64) error {
	b, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("backup: encode %s: %w", name, err)
	}
	return a.entry(name, at, 0, nil, b)
}

// Message adds a message.
func (a *Writer) Message(m *storage.Message) error {
	return a.entry(m.Subject, m.Time, m.Seq, m.Header, m.Data)
}

func (a *Writer) entry(name string, at int64, seq uint64, header, data []byte) error {
	b := binary.AppendUvarint(a.buf[:0], uint64(len(name)))
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(header)))
	b = binary.AppendUvarint(b, uint64(len(data)))
	b = append(b, name...)
	b = append(b, header...)
	a.buf = append(b, data...)
	_, err := a.to.Write(a.buf)
	return err
}

// Close ends the archive. It does not close what it is written to.
func (a *Writer) Close() error {
	if err := a.entry("", 0, 0, nil, nil); err != nil {
		return err
	}
	return a.to.Close()
}
