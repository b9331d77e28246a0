// Package kv maps Key/Value terms to stream terms and back: bucket and stream, key and subject,
// operation and header, a bucket's settings and a stream configuration.
//
// The server itself knows streams only: a bucket is what clients make of one. This package is for
// those who show streams as buckets, and the one place that knows the convention. It checks names
// by the rules that clients have; the server does not impose them.
package kv

import (
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
)

const (
	streamPrefix  = "KV_"
	subjectPrefix = "$KV."

	// AllBuckets matches the subjects of every bucket.
	AllBuckets = subjectPrefix + "*.>"
)

// StreamName is the stream that holds a bucket.
func StreamName(bucket string) string { return streamPrefix + bucket }

// BucketName is the bucket that a stream holds; ok is false if it holds none.
func BucketName(stream string) (bucket string, ok bool) {
	bucket, ok = strings.CutPrefix(stream, streamPrefix)
	return bucket, ok && ValidBucket(bucket)
}

// Subject is where a key, or a pattern of keys, is stored.
func Subject(bucket, key string) string { return subjectPrefix + bucket + "." + key }

// Key is the key stored under a subject; ok is false if it belongs to no key of the bucket.
func Key(bucket, subj string) (key string, ok bool) {
	key, ok = strings.CutPrefix(subj, subjectPrefix+bucket+".")
	return key, ok && key != ""
}

// ValidBucket tells whether clients accept the name.
func ValidBucket(name string) bool {
	return onlyOf(name, letters+"_-")
}

// ValidKey tells whether clients accept the key.
func ValidKey(key string) bool {
	return onlyOf(key, letters+"-/_=.") && subject.ValidLiteral(key)
}

// ValidPattern tells whether clients accept a pattern of keys, to watch or to list: tokens may be
// "*", and the last one ">".
func ValidPattern(pattern string) bool {
	return onlyOf(pattern, letters+"-/_=.*>") && subject.Valid(pattern)
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func onlyOf(s, set string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(set, r) }) < 0
}
