package config

import (
	"errors"
	"math"
	"path"
	"strings"
	"time"
)

// root reads the whole file.
func (l *loader) root(v value) {
	c := l.cfg
	if len(v.members()) == 0 {
		l.misuses = append(l.misuses, problem{text: v.at.file + ": config has no values or is empty"})
	}
	l.block(v, merge(
		l.identityFields(), l.limitFields(), l.logFields(), l.monitorFields(), l.operatorFields(),
		l.foreignFields(),
		fields{
			"authorization":                          l.authorization,
			"accounts":                               l.accounts,
			"no_auth_user":                           l.str(&c.NoAuthUser),
			"no_system_account no_system no_sys_acc": l.boolean(&l.auth.noSystem),
			"system_account system":                  l.str(&c.SystemAccount),
			"tls":                                    l.tlsInto(&c.TLS),
			"allow_non_tls":                          l.boolean(&c.AllowNonTLS),
			"websocket ws":                           l.websocket,
			"jetstream":                              l.jetstream,
			"store_dir storedir":                     func(v value) { l.rootStoreDir = v },
			"cluster":                                l.cluster,
			"lame_duck_duration":                     l.lameDuckDuration,
			"lame_duck_grace_period":                 l.lameDuckGrace,
			"pidfile pid_file":                       l.str(&c.PidFile),
			"ports_file_dir":                         l.str(&c.PortsFileDir),
			"prof_port":                              integer(l, &c.ProfPort, 0, 65535),
			"kv":                                     l.kv,
		}), unknownField)
}

func merge(all ...fields) fields {
	out := make(fields)
	for _, f := range all {
		for k, read := range f {
			out[k] = read
		}
	}
	return out
}

func (l *loader) identityFields() fields {
	c := l.cfg
	return fields{
		"listen":           l.listen(&c.Host, &c.Port),
		"port":             l.port(&c.Port),
		"host net":         l.str(&c.Host),
		"client_advertise": l.str(&c.ClientAdvertise),
		"server_name":      l.name(&c.ServerName, "server name cannot contain spaces"),
		"server_tags":      l.strs(&c.ServerTags),
		"server_metadata":  l.strMap(&c.ServerMetadata),
	}
}

// traceToo turns tracing on, which is what there is of finer kinds.
func (l *loader) traceToo(v value) {
	var on bool
	l.boolean(&on)(v)
	l.cfg.Log.Trace = l.cfg.Log.Trace || on
}

// name reads a string without spaces.
func (l *loader) name(dst *string, spaces string) func(value) {
	return func(v value) {
		var s string
		l.str(&s)(v)
		if strings.Contains(s, " ") {
			l.fail(v, "%s", spaces)
			return
		}
		*dst = s
	}
}

func (l *loader) limitFields() fields {
	lim := &l.cfg.Limits
	return fields{
		"max_control_line":                       integer(l, &lim.MaxControlLine, 0, math.MaxInt32),
		"max_payload":                            integer(l, &lim.MaxPayload, 0, math.MaxInt32),
		"max_pending":                            integer(l, &lim.MaxPending, 0, math.MaxInt64),
		"max_connections max_conn":               integer(l, &lim.MaxConnections, -1, math.MaxInt32),
		"max_subscriptions max_subs":             integer(l, &lim.MaxSubscriptions, -1, math.MaxInt32),
		"max_sub_tokens max_subscription_tokens": integer(l, &lim.MaxSubTokens, 0, math.MaxUint8),
		"write_deadline":                         l.duration(&lim.WriteDeadline),
		"ping_interval":                          l.duration(&lim.PingInterval),
		"ping_max":                               integer(l, &lim.PingMax, 0, math.MaxInt32),
		"no_header_support":                      l.boolean(&lim.NoHeaderSupport),
	}
}

func (l *loader) logFields() fields {
	log := &l.cfg.Log
	return fields{
		"debug":                             l.boolean(&log.Debug),
		"trace":                             l.boolean(&log.Trace),
		"trace_verbose":                     l.traceToo,
		"trace_headers":                     l.traceToo,
		"logtime":                           l.boolean(&log.Time),
		"logtime_utc":                       l.boolean(&log.TimeUTC),
		"logfile log_file":                  l.str(&log.File),
		"logfile_size_limit log_size_limit": integer(l, &log.FileSizeLimit, 0, math.MaxInt64),
		"logfile_max_num log_max_num":       integer(l, &log.FileMaxNum, 0, math.MaxInt32),
		"syslog":                            l.boolean(&log.Syslog),
		"remote_syslog":                     l.str(&log.RemoteSyslog),
		"max_traced_msg_len":                l.ignore("payloads are not logged"),
	}
}

func (l *loader) monitorFields() fields {
	m := &l.cfg.Monitor
	return fields{
		"http":                   l.listen(&m.Host, &m.Port),
		"https":                  l.listen(&m.Host, &m.HTTPSPort),
		"http_port monitor_port": l.port(&m.Port),
		"https_port":             l.port(&m.HTTPSPort),
		"http_base_path":         func(v value) { l.str(&m.BasePath)(v); m.BasePath = basePath(m.BasePath) },
	}
}

// basePath brings a path prefix into the form "/" or "/a/b".
func basePath(p string) string {
	if p == "" {
		return "/"
	}
	return path.Clean("/" + p)
}

// foreignFields are those nats-server knows and this server does without.
func (l *loader) foreignFields() fields {
	const tuning = "it works differently here and needs no such setting"
	return fields{
		"gateway":                                l.ignore("clusters are not joined into super-clusters"),
		"leaf leafnodes":                         l.ignore("leaf nodes are not accepted"),
		"mqtt":                                   l.ignore("MQTT is not spoken"),
		"mappings maps":                          l.ignore("subjects are not mapped"),
		"msg_trace":                              l.ignore("messages are not traced"),
		"feature_flags":                          l.ignore("it has no such features"),
		"default_js_domain":                      l.ignore("there is one JetStream domain"),
		"default_sentinel":                       l.ignore("there is no authorization callout"),
		"connect_error_reports":                  l.ignore(tuning),
		"reconnect_error_reports":                l.ignore(tuning),
		"max_closed_clients":                     l.ignore(tuning),
		"no_fast_producer_stall":                 l.ignore(tuning),
		"disable_sublist_cache no_sublist_cache": l.ignore(tuning),
		"write_timeout":                          l.ignore(tuning),
		"prof_block_rate":                        l.ignore(tuning),
		"ocsp":                                   l.ignore("certificate status is not stapled"),
		"ocsp_cache":                             l.ignore("certificate status is not checked"),
		"proxy_protocol":                         l.refuse("connections through a PROXY protocol balancer would not work"),
		"proxies":                                l.refuse("connections would not be bound to the trusted proxies"),
	}
}

func (l *loader) lameDuckDuration(v value) {
	d := &l.cfg.LameDuck.Duration
	l.textDuration(d)(v)
	if *d < 30*time.Second {
		l.fail(v, "invalid lame_duck_duration of %v, minimum is 30 seconds", *d)
	}
}

func (l *loader) lameDuckGrace(v value) {
	d := &l.cfg.LameDuck.Grace
	l.textDuration(d)(v)
	if *d < 0 {
		l.fail(v, "invalid lame_duck_grace_period, needs to be positive")
	}
}

// textDuration is duration without the old bare numbers.
func (l *loader) textDuration(dst *time.Duration) func(value) {
	return func(v value) {
		s, ok := v.raw.(string)
		d, err := time.ParseDuration(s)
		if !ok || err != nil {
			l.fail(v, "field %q should be a duration like \"2m\", got %s", v.key, v)
			return
		}
		*dst = d
	}
}

// kv reads the one block nats-server does not know.
func (l *loader) kv(v value) {
	l.kvSet = true
	c := l.cfg
	if !l.isBlock(v, "kv") {
		return
	}
	l.block(v, fields{
		"storage":       l.oneOf(&c.KV.Storage, StorageFile, StorageRocksDB),
		"stale_reads":   l.boolean(&c.KV.StaleReads),
		"replace_after": l.replaceAfter,
		"transfer_rate": l.transferRate,
		"log_format":    l.oneOf(&c.Log.Format, LogFormatNATS, LogFormatJSON),
	}, unknownField)
}

// replaceAfter reads a duration, of which 0 stands for ever.
func (l *loader) replaceAfter(v value) {
	d := &l.cfg.Cluster.ReplaceAfter
	l.textDuration(d)(v)
	if *d < 0 {
		l.fail(v, "invalid replace_after, needs to be positive, or \"0s\" for never")
	}
	*d = never(*d)
}

func (l *loader) transferRate(v value) {
	n, err := asTransferRate(v.raw)
	if err != nil {
		l.fail(v, "transfer_rate %v", err)
	}
	l.cfg.Cluster.TransferRate = n
}

// transferRateMin lets a chunk of a state pass in good time: who hears nothing for long gives up.
const transferRateMin = 1 << 20

// asTransferRate reads bytes a second, of which 0 stands for no bound.
func asTransferRate(raw any) (int64, error) {
	if raw == "0" {
		raw = int64(0)
	}
	n, err := parseSize(raw)
	if err == nil && n != 0 && n < transferRateMin {
		err = errors.New("should be at least 1M a second, or 0 for no bound")
	}
	return never(n), err
}

// never keeps a 0 that was given apart from one that was not.
func never[T time.Duration | int64](d T) T {
	if d == 0 {
		return -1
	}
	return d
}

// oneOf reads one of a few words.
func (l *loader) oneOf(dst *string, words ...string) func(value) {
	return func(v value) {
		s, ok := v.raw.(string)
		for _, w := range words {
			if ok && s == w {
				*dst = s
				return
			}
		}
		l.fail(v, "field %q should be one of %q, got %s", v.key, words, v)
	}
}
