package wire

import (
	"bytes"
	"errors"
)

// What Next rejects. The first three are told to the client before the connection is closed; after
// ErrArguments it is closed without a word, since clients take an error text they do not know for
// final and would not reconnect.
var (
	ErrUnknownOperation = errors.New("Unknown Protocol Operation")
	ErrControlLine      = errors.New("maximum control line exceeded")
	ErrPayload          = errors.New("Maximum Payload Violation")
	ErrArguments        = errors.New("wrong arguments of a protocol operation")
)

// Kind says which operation an Op is.
type Kind uint8

// The operations a client may send. Ignored stands for those without effect: INFO, +OK, -ERR.
const (
	Ignored Kind = iota
	Connect
	Pub
	HPub
	Sub
	Unsub
	PingOp
	PongOp
)

// Op is one operation. Its slices lie in the buffer that Next was given.
type Op struct {
	Kind    Kind
	Subject []byte // Pub, HPub, Sub
	Reply   []byte // Pub, HPub
	Queue   []byte // Sub
	Sid     []byte // Sub, Unsub
	Max     int64  // Unsub: end after so many messages; 0 or less: now
	Header  []byte // HPub: the header block, nil if it is empty
	Data    []byte // Pub, HPub: the payload. Connect: the JSON
}

// Limits bound what Next accepts.
type Limits struct {
	ControlLine int // Bytes of arguments in one line.
	Payload     int // Bytes of header and payload together.
}

// sizeDigitsMax bounds a size in a control line, so that it cannot overflow.
const sizeDigitsMax = 9

// Next reads the operation at the start of buf into op and returns how many bytes it took. With
// n == 0 and no error the operation is not complete; then buf must hold at least need bytes before
// another try is worth while. Nothing is kept between calls: the same bytes are given again, with
// more behind them.
func (l Limits) Next(buf []byte, op *Op) (n, need int, err error) {
	if len(buf) == 0 {
		return 0, 1, nil
	}
	kind, word, err := operation(buf)
	if err != nil {
		return 0, 0, err
	}
	if word == 0 {
		return 0, len(buf) + 1, nil
	}
	end := bytes.IndexByte(buf[word:], '\n')
	if end < 0 {
		if len(buf)-word > l.ControlLine+1 { // One byte may be the CR of the line end.
			return 0, 0, ErrControlLine
		}
		return 0, len(buf) + 1, nil
	}
	arg := buf[word : word+end]
	line := word + end + 1
	if len(arg) > 0 && arg[len(arg)-1] == '\r' {
		arg = arg[:len(arg)-1]
	}
	if len(arg) > l.ControlLine {
		return 0, 0, ErrControlLine
	}
	*op = Op{Kind: kind}
	switch kind {
	case Pub, HPub:
		return l.publish(buf, arg, line, op)
	case Sub:
		err = op.subscribe(arg)
	case Unsub:
		err = op.unsubscribe(arg)
	case Connect:
		op.Data = bytes.TrimSpace(arg)
	}
	if err != nil {
		return 0, 0, err
	}
	return line, 0, nil
}

// operation recognizes the word at the start of buf and returns its length, 0 if buf ends before
// it is certain. Words that take arguments need white space behind them.
func operation(buf []byte) (Kind, int, error) {
	var kind Kind
	var word string
	spaced := true
	switch buf[0] {
	case 'P', 'p':
		kind, word = Pub, "PUB"
		if len(buf) > 1 {
			switch buf[1] {
			case 'I', 'i':
				kind, word, spaced = PingOp, "PING", false
			case 'O', 'o':
				kind, word, spaced = PongOp, "PONG", false
			}
		}
	case 'H', 'h':
		kind, word = HPub, "HPUB"
	case 'S', 's':
		kind, word = Sub, "SUB"
	case 'U', 'u':
		kind, word = Unsub, "UNSUB"
	case 'C', 'c':
		kind, word, spaced = Connect, "CONNECT", false
	case 'I', 'i':
		kind, word = Ignored, "INFO"
	case '+':
		kind, word, spaced = Ignored, "+OK", false
	case '-':
		kind, word = Ignored, "-ERR"
	default:
		return 0, 0, ErrUnknownOperation
	}
	for i := 0; i < len(word) && i < len(buf); i++ {
		c := buf[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != word[i] {
			return 0, 0, ErrUnknownOperation
		}
	}
	switch {
	case len(buf) < len(word) || spaced && len(buf) == len(word):
		return kind, 0, nil
	case spaced && buf[len(word)] != ' ' && buf[len(word)] != '\t':
		return 0, 0, ErrUnknownOperation
	}
	return kind, len(word), nil
}

// argsMax is one more than any operation has, so that too many are noticed.
const argsMax = 5

// split cuts a line at white space.
func split(arg []byte, into *[argsMax][]byte) (n int) {
	start := -1
	for i, c := range arg {
		if c == ' ' || c == '\t' || c == '\r' {
			if start >= 0 {
				if n == argsMax {
					return n
				}
				into[n] = arg[start:i]
				n++
				start = -1
			}
		} else if start < 0 {
			start = i
		}
	}
	if start >= 0 && n < argsMax {
		into[n] = arg[start:]
		n++
	}
	return n
}

// publish reads the arguments of PUB or HPUB and the payload behind the line.
func (l Limits) publish(buf, arg []byte, line int, op *Op) (n, need int, err error) {
	var args [argsMax][]byte
	count := split(arg, &args)
	sizes := 1
	if op.Kind == HPub {
		sizes = 2
	}
	if count != sizes+1 && count != sizes+2 {
		return 0, 0, ErrArguments
	}
	op.Subject = args[0]
	if count == sizes+2 {
		op.Reply = args[1]
	}
	total := size(args[count-1])
	header := 0
	if op.Kind == HPub {
		header = size(args[count-2])
	}
	if total < 0 || header < 0 || header > total {
		return 0, 0, ErrArguments
	}
	if total > l.Payload {
		return 0, 0, ErrPayload
	}
	end := line + total
	if len(buf) > end && buf[end] != '\r' || len(buf) > end+1 && buf[end+1] != '\n' {
		return 0, 0, ErrUnknownOperation
	}
	if len(buf) < end+2 {
		return 0, end + 2, nil
	}
	if header > 0 {
		op.Header = buf[line : line+header]
	}
	op.Data = buf[line+header : end]
	return end + 2, 0, nil
}

func (op *Op) subscribe(arg []byte) error {
	var args [argsMax][]byte
	switch split(arg, &args) {
	case 2:
		op.Subject, op.Sid = args[0], args[1]
	case 3:
		op.Subject, op.Queue, op.Sid = args[0], args[1], args[2]
	default:
		return ErrArguments
	}
	return nil
}

func (op *Op) unsubscribe(arg []byte) error {
	var args [argsMax][]byte
	switch split(arg, &args) {
	case 1:
	case 2:
		op.Max = int64(size(args[1])) // What is no number means: now.
	default:
		return ErrArguments
	}
	op.Sid = args[0]
	return nil
}

// size reads a decimal number, -1 if it is none.
func size(b []byte) int {
	if len(b) == 0 || len(b) > sizeDigitsMax {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
