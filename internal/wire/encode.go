package wire

import "strconv"

// Lines the server sends as they stand.
const (
	OK   = "+OK\r\n"
	Ping = "PING\r\n"
	Pong = "PONG\r\n"
)

// msgOverhead bounds what a MSG or HMSG line has beyond its names: the operation, the spaces, two
// sizes of at most 19 digits and two line ends.
const msgOverhead = 56

// MsgSizeMax bounds the size of what AppendMsg appends.
func MsgSizeMax(subject, sid, reply string, hdr, data []byte) int {
	return msgOverhead + len(subject) + len(sid) + len(reply) + len(hdr) + len(data)
}

// AppendMsg appends a MSG, or a HMSG if there is a header block.
func AppendMsg(dst []byte, subject, sid, reply string, hdr, data []byte) []byte {
	if len(hdr) > 0 {
		dst = append(dst, 'H')
	}
	dst = append(dst, "MSG "...)
	dst = append(dst, subject...)
	dst = append(dst, ' ')
	dst = append(dst, sid...)
	dst = append(dst, ' ')
	if reply != "" {
		dst = append(dst, reply...)
		dst = append(dst, ' ')
	}
	if len(hdr) > 0 {
		dst = strconv.AppendInt(dst, int64(len(hdr)), 10)
		dst = append(dst, ' ')
	}
	dst = strconv.AppendInt(dst, int64(len(hdr)+len(data)), 10)
	dst = append(dst, "\r\n"...)
	dst = append(dst, hdr...)
	dst = append(dst, data...)
	return append(dst, "\r\n"...)
}

// AppendErr appends an error line.
func AppendErr(dst []byte, text string) []byte {
	dst = append(dst, "-ERR '"...)
	dst = append(dst, text...)
	return append(dst, "'\r\n"...)
}

// AppendInfo appends an INFO line around JSON that has no line break.
func AppendInfo(dst, json []byte) []byte {
	dst = append(dst, "INFO "...)
	dst = append(dst, json...)
	return append(dst, " \r\n"...)
}

// NoResponders is the header block that tells a requester that nobody took its message.
func NoResponders(subject string) []byte {
	return []byte("NATS/1.0 503\r\nNats-Subject: " + subject + "\r\n\r\n")
}
