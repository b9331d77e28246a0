package jetstream

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
)

// Operation is what this server did for clients to the keys of buckets, of one kind. Each operation is
// counted once in a cluster: a write by the server that the client is connected to, a get by the one
// that read the key.
type Operation struct {
	Name    string            // put, delete, purge or get
	Results map[string]uint64 // ok, not_found, conflict, refused, unavailable or unknown
	Seconds float64           // that all of them took together, from the request to the answer
	Within  map[float64]uint64
}

// Count is the number of operations.
func (o *Operation) Count() (n uint64) {
	for _, v := range o.Results { // order: a sum
		n += v
	}
	return n
}

type op uint8

const (
	opNone op = iota // not on a bucket
	opPut
	opDelete
	opPurge
	opGet
	opCount
)

var opNames = [opCount]string{"", "put", "delete", "purge", "get"}

type opResult uint8

const (
	resultOK          opResult = iota
	resultNotFound             // there is no such key, or revision
	resultConflict             // the revision is not the expected one
	resultRefused              // by a limit, or because the request is wrong
	resultUnavailable          // nobody can answer; nothing was done
	resultUnknown              // nobody knows whether it was done
	resultCount
)

var resultNames = [resultCount]string{"ok", "not_found", "conflict", "refused", "unavailable", "unknown"}

// opBounds are the upper bounds of the histogram of times.
var opBounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// operations counts without a lock. Whoever counts takes any of the shards, so that many cores seldom
// write to one cache line.
type operations struct {
	shards [opShards]struct {
		kinds [opCount]opFigures
		_     [64]byte // nothing else on the last cache line
	}
}

const opShards = 8

type opFigures struct {
	results [resultCount]atomic.Uint64
	nanos   atomic.Int64
	within  [len(opBounds)]atomic.Uint64 // each time in the first bound that it does not exceed
}

// epoch is what times are measured from: reading one clock is cheaper than two.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// done counts an operation that began at that time.
func (o *operations) done(kind op, r opResult, begun time.Duration) {
	if kind == opNone {
		return
	}
	took := sinceEpoch() - begun
	f := &o.shards[rand.Uint32()%opShards].kinds[kind]
	f.results[r].Add(1)
	f.nanos.Add(int64(took))
	for i, bound := range opBounds {
		if took <= bound {
			f.within[i].Add(1)
			return
		}
	}
}

// Operations tells what was done since the server was started, one entry for each kind.
func (s *Service) Operations() []Operation {
	var out []Operation
	for kind := opPut; kind < opCount; kind++ {
		all := Operation{Name: opNames[kind], Results: make(map[string]uint64), Within: make(map[float64]uint64)}
		for i := range s.ops.shards {
			f := &s.ops.shards[i].kinds[kind]
			all.Seconds += time.Duration(f.nanos.Load()).Seconds()
			for r := range f.results {
				all.Results[resultNames[r]] += f.results[r].Load()
			}
			for b := range f.within {
				all.Within[opBounds[b].Seconds()] += f.within[b].Load()
			}
		}
		out = append(out, all)
	}
	for i := range out { // A bucket of a histogram holds what the smaller ones do, too.
		sum := uint64(0)
		for _, bound := range opBounds {
			sum += out[i].Within[bound.Seconds()]
			out[i].Within[bound.Seconds()] = sum
		}
	}
	return out
}

// isBucket tells whether a stream holds keys.
func isBucket(name string) bool { return strings.HasPrefix(name, "KV_") }

// writeOp is the kind of a write to a bucket.
func writeOp(header []byte) op {
	if len(header) > 0 {
		switch v := stream.HeaderValue(header, "KV-Operation"); {
		case bytes.Equal(v, []byte("DEL")):
			return opDelete
		case bytes.Equal(v, []byte("PURGE")):
			return opPurge
		}
	}
	return opPut
}

// writeResult is the result of a write that was decided: err is nil, or why it was refused.
func writeResult(err *api.Error) opResult {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, api.ErrWrongLastSequence):
		return resultConflict
	}
	return resultRefused
}

// failure is the result of a write that was not decided.
func failure(answer *api.Error) opResult {
	switch answer {
	case nil:
		return resultUnknown
	case api.ErrUnavailable:
		return resultUnavailable
	}
	return resultRefused
}
