package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/internal/cli"
)

// explain says of an error what it concerns and what to do about it. The words of the client library
// stay in the text, for scripts look for them.
func explain(err error, bucket, key string) error {
	advise := func(code int, text string, hints ...string) error {
		return &cli.Error{Code: code, Err: errors.New(text), Hints: hints}
	}
	name := bucket + " > " + key
	var own *cli.Error
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return advise(cli.ExitNotFound, "bucket not found: "+bucket,
			"create it: cleat kv add "+bucket, "list buckets: cleat kv ls")
	case errors.Is(err, jetstream.ErrBadBucket):
		return advise(cli.ExitGeneral, "bucket not valid key-value store: "+bucket,
			"stream KV_"+bucket+" exists, but was not made as a bucket")
	case errors.Is(err, jetstream.ErrInvalidBucketName):
		return advise(cli.ExitUsage, fmt.Sprintf("invalid bucket name: %q", bucket),
			"use letters, digits, - and _")
	case errors.Is(err, jetstream.ErrInvalidKey):
		return advise(cli.ExitUsage, fmt.Sprintf("invalid key: %q", key),
			"use letters, digits, - / _ = and single dots between them")
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return advise(cli.ExitNotFound, "key not found: "+name,
			"list keys: cleat kv ls "+bucket, "was it deleted? cleat kv history "+bucket+" "+key)
	case cli.IsWrongSequence(err):
		return conflict(err, bucket, key)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return advise(cli.ExitAuth, err.Error(),
			"connect as a user of another account, or enable JetStream for this one in the server's configuration")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrNoStreamResponse):
		return advise(cli.ExitUnavailable, err.Error(),
			"the server has JetStream off (start nats-server with -js), or the bucket has no leader now")
	case errors.Is(err, nats.ErrMaxPayload):
		return advise(cli.ExitGeneral, err.Error(), "the server's max_payload bounds the size of a value")
	case cli.ExitCode(err) == cli.ExitUnavailable && !answered(err):
		return &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("no answer: %w", err), Hints: []string{
			"a write may or may not have happened; wait longer: --timeout 30s"}}
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && apiHints[api.ErrorCode] != "" {
		return advise(cli.ExitCode(err), err.Error(), strings.ReplaceAll(apiHints[api.ErrorCode], "BUCKET", bucket))
	}
	return err
}

// answered tells whether err is what a server said, which is definite: nothing happened.
func answered(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api)
}

// apiHints is what to do about an answer of the server, with the bucket's name for BUCKET.
var apiHints = map[jetstream.ErrorCode]string{
	10002: "nothing was written; the account holds all it may: delete or purge keys, or raise its limits",
	10005: "there are fewer servers than replicas, or too few with those tags: cleat cluster status",
	10008: "the bucket has no leader now, and nothing was done: try again, and see who is there: cleat kv info BUCKET",
	10023: "nothing was written; the server's disk is full, or all of max_file or max_mem is used: delete or purge keys, or give it room",
	10054: "the bucket bounds the size of a value: cleat kv edit BUCKET --max-value-size SIZE",
	10074: "this server is alone: add BUCKET without --replicas, or to a cluster",
	10077: "the bucket is full: delete keys, or cleat kv edit BUCKET --max-bucket-size SIZE",
	10130: "delete it first, or restore to another server: cleat kv del BUCKET",
	10165: "a time to live is at least a second",
	10166: "keys of this bucket have no time to live of their own yet: cleat kv edit BUCKET --marker-ttl 1h",
}

var sequenceRe = regexp.MustCompile(`wrong last sequence: (\d+)`)

// conflict explains a failed create or update. The server says which revision it found.
func conflict(err error, bucket, key string) error {
	text := "wrong last sequence"
	revision := "REVISION"
	if m := sequenceRe.FindStringSubmatch(err.Error()); m != nil {
		text, revision = m[0], m[1]
	}
	name := bucket + " > " + key
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return &cli.Error{Code: cli.ExitConflict, Err: fmt.Errorf("%s: %s has changed", text, name),
			Hints: []string{fmt.Sprintf("see what it is now: cleat kv get %s %s", bucket, key)}}
	}
	return &cli.Error{Code: cli.ExitConflict, Err: fmt.Errorf("%s: key exists: %s", text, name), Hints: []string{
		fmt.Sprintf("replace it: cleat kv put %s %s VALUE", bucket, key),
		fmt.Sprintf("replace what is there now: cleat kv update %s %s VALUE %s", bucket, key, revision)}}
}

// explainRevision is explain for a read of one revision: what is missing then is the revision.
func explainRevision(err error, bucket, key string, revision uint64) error {
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) {
		return &cli.Error{Code: cli.ExitNotFound,
			Err:   fmt.Errorf("key not found: %s > %s at revision %d", bucket, key, revision),
			Hints: []string{fmt.Sprintf("see what is kept: cleat kv history %s %s", bucket, key)}}
	}
	return explain(err, bucket, key)
}
