package api

import (
	"strconv"
	"unicode/utf8"
)

// PubAck answers a publish. It is built by hand, one for each message stored.
type PubAck struct {
	Stream    string
	Seq       uint64
	Domain    string
	Duplicate bool
	Err       *Error
}

// AppendJSON appends the acknowledgement to b.
func (a *PubAck) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if a.Err != nil {
		b = a.Err.appendJSON(append(b, `"error":`...))
		b = append(b, ',')
	}
	b = appendString(append(b, `"stream":`...), a.Stream)
	if a.Domain != "" {
		b = appendString(append(b, `,"domain":`...), a.Domain)
	}
	b = strconv.AppendUint(append(b, `,"seq":`...), a.Seq, 10)
	if a.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return append(b, '}')
}

func (e *Error) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"code":`...), int64(e.Code), 10)
	b = strconv.AppendUint(append(b, `,"err_code":`...), uint64(e.ErrCode), 10)
	b = appendString(append(b, `,"description":`...), e.Description)
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r) // Bytes that are no UTF-8 become U+FFFD.
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
		i++
	}
	return append(b, '"')
}
