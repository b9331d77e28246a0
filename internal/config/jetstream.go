package config

import (
	"math"
	"strings"
	"time"
)

// jetstream reads the block of that name, or the short forms: true, enabled, disabled.
func (l *loader) jetstream(v value) {
	js := &l.cfg.JetStream
	l.jetstreamSet = true
	switch r := v.raw.(type) {
	case bool:
		js.Enabled = r
	case string:
		on, ok := enabledWord(r)
		if !ok {
			l.fail(v, "Expected 'enabled' or 'disabled' for string value, got '%s'", r)
		}
		js.Enabled = on
	case map[string]any:
		js.Enabled = true
		l.block(v, l.jetstreamFields(), unknownField)
	default:
		l.fail(v, "Expected map, bool or string to define JetStream, got %s", v)
	}
}

// enabledWord reads the words for on and off.
func enabledWord(s string) (on, ok bool) {
	switch strings.ToLower(s) {
	case "enabled", "enable":
		return true, true
	case "disabled", "disable":
		return false, true
	}
	return false, false
}

func (l *loader) jetstreamFields() fields {
	js := &l.cfg.JetStream
	const tuning = "it works differently here and needs no such setting"
	const encrypt = "data would lie unencrypted on the disk"
	return fields{
		"enabled enable":           l.boolean(&js.Enabled),
		"store store_dir storedir": l.storeDir,
		"sync sync_interval":       l.syncInterval,
		"max_memory_store max_mem_store max_mem max_memory": l.sizeNamed(&js.MaxMemory, "max_mem_store"),
		"max_file_store max_file":                           l.sizeNamed(&js.MaxFile, "max_file_store"),
		"domain":                                            l.str(&js.Domain),
		"limits":                                            l.jetstreamLimits,
		"unique_tag":                                        l.uniqueTag,
		"key ek encryption_key":                             l.refuse(encrypt),
		"prev_key prev_ek prev_encryption_key":              l.refuse(encrypt),
		"cipher":                                            l.refuse(encrypt),
		"tpm":                                               l.refuse(encrypt),
		"strict":                                            l.ignore(tuning),
		"extension_hint":                                    l.ignore(tuning),
		"max_outstanding_catchup":                           l.ignore(tuning),
		"max_buffered_size":                                 l.ignore(tuning),
		"max_buffered_msgs":                                 l.ignore(tuning),
		"request_queue_limit":                               l.ignore(tuning),
		"info_queue_limit":                                  l.ignore(tuning),
		"meta_compact":                                      l.ignore(tuning),
		"meta_compact_size":                                 l.ignore(tuning),
		"meta_compact_sync":                                 l.ignore(tuning),
		"max_concurrent_io":                                 l.ignore(tuning),
	}
}

func (l *loader) storeDir(v value) {
	if l.cfg.JetStream.StoreDir != "" {
		l.fail(v, "Duplicate 'store_dir' configuration")
		return
	}
	l.str(&l.cfg.JetStream.StoreDir)(v)
}

// sizeNamed is size with the name nats-server gives the field in complaints.
func (l *loader) sizeNamed(dst *int64, name string) func(value) {
	return func(v value) {
		n, err := parseSize(v.raw)
		if err != nil {
			l.fail(v, "%s %v", name, err)
			return
		}
		*dst = n
	}
}

// syncInterval accepts what nats-server does. Any interval is stronger kept than asked for:
// writes are synced before they are acknowledged.
func (l *loader) syncInterval(v value) {
	if s, ok := v.raw.(string); ok && strings.EqualFold(s, "always") {
		return
	}
	var interval time.Duration
	l.duration(&interval)(v)
	if interval > 0 {
		l.warn(v, "field %q is ignored in this server: every write is synced before it is acknowledged", v.key)
	}
}

func (l *loader) uniqueTag(v value) {
	l.str(&l.cfg.JetStream.UniqueTag)(v)
	l.ignore("replicas are placed without regard to tags")(v)
}

func (l *loader) jetstreamLimits(v value) {
	if !l.isBlock(v, "limits") {
		return
	}
	lim := &l.cfg.JetStream.Limits
	l.block(v, fields{
		"max_ack_pending":       integer(l, &lim.MaxAckPending, -1, math.MaxInt32),
		"max_ha_assets":         l.ignore("the number of replicas is not limited"),
		"max_request_batch":     integer(l, &lim.MaxRequestBatch, -1, math.MaxInt32),
		"default_max_consumers": integer(l, &lim.DefaultMaxConsumers, -1, math.MaxInt32),
		"duplicate_window":      l.textDuration(&lim.DuplicateWindow),
		"batch":                 l.ignore("atomic batches are not supported"),
	}, unknownField)
}

// accountJetStream reads what one account may use.
func (l *loader) accountJetStream(v value) *AccountJetStream {
	js := &AccountJetStream{
		MaxMemory: -1, MaxFile: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1,
		MemoryMaxStreamBytes: -1, MaxStreamBytes: -1,
	}
	switch r := v.raw.(type) {
	case bool:
		if !r {
			return nil
		}
	case string:
		on, ok := enabledWord(r)
		if !ok {
			l.fail(v, "Expected 'enabled' or 'disabled' for string value, got '%s'", r)
		}
		if !on {
			return nil
		}
	case map[string]any:
		l.block(v, fields{
			"max_memory max_mem mem memory":                 l.parseable(&js.MaxMemory),
			"max_store max_file max_disk store disk":        l.parseable(&js.MaxFile),
			"max_streams streams":                           l.parseable(&js.MaxStreams),
			"max_consumers consumers":                       l.parseable(&js.MaxConsumers),
			"max_bytes_required max_stream_bytes max_bytes": l.boolean(&js.MaxBytesRequired),
			"mem_max_stream_bytes memory_max_stream_bytes":  l.parseable(&js.MemoryMaxStreamBytes),
			"disk_max_stream_bytes store_max_stream_bytes":  l.parseable(&js.MaxStreamBytes),
			"max_ack_pending":                               l.parseable(&js.MaxAckPending),
			"cluster_traffic":                               l.ignore("replication has connections of its own"),
		}, unknownField)
	default:
		l.fail(v, "Expected map, bool or string to define JetStream, got %s", v)
	}
	return js
}

// parseable reads one of an account's limits.
func (l *loader) parseable(dst *int64) func(value) {
	return func(v value) {
		n, ok := v.raw.(int64)
		if !ok {
			l.fail(v, "Expected a parseable size for %q, got %v", v.key, v.raw)
			return
		}
		*dst = n
	}
}

// finishJetStream decides what depends on the whole file.
func (l *loader) finishJetStream() {
	js := &l.cfg.JetStream
	if l.rootStoreDir.raw != nil {
		l.storeDir(l.rootStoreDir)
	}
	if l.kvSet && !l.jetstreamSet {
		js.Enabled = true
	}
}
