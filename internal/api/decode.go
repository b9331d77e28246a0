package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Level is the JetStream API level that is really implemented: 1 is per-message TTL, delete
// markers, consumer pause and priority groups. Counters, atomic batches and schedules are 2.
const Level = 1

// RequiredLevelHeader is the request header by which a client names the level it needs.
const RequiredLevelHeader = "Nats-Required-Api-Level"

// CheckLevel judges the value of RequiredLevelHeader; an empty one asks for nothing.
func CheckLevel(value []byte) *Error {
	if len(value) == 0 {
		return nil
	}
	n, err := strconv.Atoi(string(value))
	if err != nil || n > Level {
		return ErrRequiredAPILevel
	}
	return nil
}

// Decode reads a request body strictly: an unknown member or anything behind the object is
// refused, so that an option of a newer client is never silently ignored.
func Decode(body []byte, into any) *Error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		err = expectEnd(dec)
	}
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return ErrInvalidJSON.With(fmt.Sprintf("%s at offset %d", syntax, syntax.Offset))
	}
	return ErrInvalidJSON.With(err)
}

// expectEnd makes sure that the decoder has nothing but white space left.
func expectEnd(dec *json.Decoder) error {
	var extra json.RawMessage
	err := dec.Decode(&extra)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("unexpected data after the object")
	default:
		return err
	}
}

// DecodeLenient reads a request body of the calls that ignore members they do not know.
func DecodeLenient(body []byte, into any) *Error {
	if err := json.Unmarshal(body, into); err != nil {
		return ErrInvalidJSON.With(err)
	}
	return nil
}

// EmptyRequest tells whether a body is one: nothing, or an object without members.
func EmptyRequest(body []byte) bool {
	b := bytes.TrimSpace(body)
	if len(b) == 0 {
		return true
	}
	return b[0] == '{' && b[len(b)-1] == '}' && len(bytes.TrimSpace(b[1:len(b)-1])) == 0 && len(b) > 1
}

// IsObject tells whether a body looks like a JSON object at all. Some calls take anything else
// for no request.
func IsObject(body []byte) bool {
	b := bytes.TrimSpace(body)
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}
