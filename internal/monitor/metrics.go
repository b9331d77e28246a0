package monitor

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cleatkv/cleat/internal/config"
)

// Names are those of the Prometheus exporter for NATS, so that its dashboards work without it; what
// only this server has is called kv_, raft_, storage_ and cleat_.
const varzPrefix = "gnatsd_varz"

// Labels of metrics, by what they are about; the values come in this order.
var (
	serverLabels   = []string{"server_id", "server_name", "cluster", "domain", "meta_leader", "is_meta_leader"}
	accountLabels  = with(serverLabels, "account", "account_id")
	streamLabels   = with(accountLabels, "stream_name", "stream_leader", "is_stream_leader", "stream_raft_group")
	consumerLabels = with(streamLabels, "consumer_name", "consumer_leader", "is_consumer_leader", "consumer_desc", "consumer_created")
	bucketLabels   = []string{"server_id", "account", "bucket"}
	groupLabels    = []string{"server_id", "group"}
)

func with(labels []string, more ...string) []string {
	return append(labels[:len(labels):len(labels)], more...)
}

// newMetrics makes the /metrics page.
func (m *Monitor) newMetrics() http.Handler {
	m.registry = prometheus.NewRegistry()
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&described{collect: m.collect},
		operations{m},
	)
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Register adds metrics another package owns.
func (m *Monitor) Register(c prometheus.Collector) error { return m.registry.Register(c) }

// described is a collector whose metrics are only known when they are collected.
type described struct {
	collect func(emit)
	// descs are by name, which says what a metric's labels are: to make one costs more than the metric itself.
	descs sync.Map
}

// Describe tells nothing beforehand.
func (*described) Describe(chan<- *prometheus.Desc) {}

// Collect makes the metrics.
func (c *described) Collect(ch chan<- prometheus.Metric) {
	c.collect(func(name, help string, v float64, labels, values []string) {
		d, ok := c.descs.Load(name)
		if !ok {
			d, _ = c.descs.LoadOrStore(name, prometheus.NewDesc(name, help, labels, nil))
		}
		kind := prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(d.(*prometheus.Desc), kind, v, values...)
	})
}

// emit takes one figure.
type emit func(name, help string, v float64, labels, values []string)

func (m *Monitor) collect(out emit) {
	id := []string{m.src.ServerID}
	v := m.Varz()
	flatten(varzPrefix, v, func(name string, f float64) {
		out(name, "A figure of /varz", f, []string{"server_id"}, id)
	})
	out("cleat_build_info", "What runs", 1, []string{"server_id", "version", "protocol_version", "commit"},
		[]string{m.src.ServerID, config.Version, config.ProtocolVersion, config.GitCommit()})
	sick := len(m.problems(HealthzQuery{})) > 0
	out("gnatsd_healthz_status", "0 if the server is healthy, 1 if not", boolean(sick), []string{"server_id"}, id)
	m.collectJetStream(out)
	m.collectRaft(out)
}

// collectRaft emits figures of the log and of the groups that share it.
func (m *Monitor) collectRaft(out emit) {
	if m.src.Raft == nil {
		return
	}
	f := m.src.Raft()
	server := []string{m.src.ServerID}
	log := func(name, help string, v float64) { out("storage_wal_"+name, help, v, []string{"server_id"}, server) }
	log("syncs_total", "Batches written to the log, each with one sync", float64(f.Log.Batches))
	log("submissions_total", "Writes that shared those batches", float64(f.Log.Submissions))
	log("written_bytes_total", "Bytes written to the log", float64(f.Log.Bytes))
	log("sync_seconds_total", "Time of writing and syncing those batches", f.Log.Time.Seconds())

	leading, resting, stopped := 0.0, 0.0, 0.0
	for _, g := range f.Groups {
		leading += boolean(g.Leading)
		resting += boolean(g.Resting)
		stopped += boolean(g.Stopped)
		group := func(name, help string, v float64) {
			out("raft_group_"+name, help, v, groupLabels, []string{m.src.ServerID, g.Name})
		}
		group("leading", "1 if the group's leader is here", boolean(g.Leading))
		group("stopped", "1 if the replica here stopped because it cannot be trusted", boolean(g.Stopped))
		group("term", "Term of the group", float64(g.Term))
		group("committed_index", "Last log entry that is known to be committed", float64(g.Committed))
		group("applied_index", "Last log entry that the replica here has executed", float64(g.Applied))
	}
	out("raft_groups", "Groups with a replica here", float64(len(f.Groups)), []string{"server_id"}, server)
	out("raft_groups_leading", "Groups whose leader is here", leading, []string{"server_id"}, server)
	out("raft_groups_resting", "Groups whose replica here rests, as nobody uses them", resting, []string{"server_id"}, server)
	out("raft_groups_stopped", "Groups whose replica here stopped", stopped, []string{"server_id"}, server)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// flatten gives every number in v the name of its path. Times and texts are left out, and so are
// lists.
func flatten(prefix string, v any, out func(string, float64)) {
	data, err := json.Marshal(v)
	if err != nil {
		return
	}
	var tree map[string]any
	if json.Unmarshal(data, &tree) == nil {
		flattenTree(prefix, tree, out)
	}
}

func flattenTree(prefix string, tree map[string]any, out func(string, float64)) {
	for k, v := range tree {
		name := prefix + "_" + metricName(k)
		switch v := v.(type) {
		case float64:
			out(name, v)
		case bool:
			out(name, boolean(v))
		case map[string]any:
			if k != "tags" && k != "metadata" {
				flattenTree(name, v, out)
			}
		}
	}
}

// metricName replaces what may not stand in a name, as in "/varz" of the request counts.
func metricName(k string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, k)
}

// collectJetStream emits what /jsz shows of servers, accounts, streams and consumers.
func (m *Monitor) collectJetStream(out emit) {
	j := m.Jsz(JszQuery{Accounts: true, Streams: true, Consumers: true, Config: true, Raft: true})
	server := m.serverValues(j)
	gauge := func(name, help string, v float64) { out("jetstream_server_"+name, help, v, serverLabels, server) }
	gauge("jetstream_disabled", "1 if JetStream is off", boolean(j.Disabled))
	if j.Disabled {
		return
	}
	gauge("max_memory", "Memory JetStream may use, in bytes", float64(j.Config.MaxMemory))
	gauge("max_storage", "Disk JetStream may use, in bytes", float64(j.Config.MaxStorage))
	gauge("total_streams", "Streams with a replica here", float64(j.Streams))
	gauge("total_consumers", "Consumers of those streams", float64(j.Consumers))
	gauge("total_messages", "Messages stored here", float64(j.Messages))
	gauge("total_message_bytes", "Bytes stored here", float64(j.Bytes))
	watching := 0.0
	for _, a := range j.Accounts {
		values := with(server, a.Name, a.ID)
		out("jetstream_account_memory_used", "Memory the account uses, in bytes", float64(a.Memory), accountLabels, values)
		out("jetstream_account_storage_used", "Disk the account uses, in bytes", float64(a.Storage), accountLabels, values)
		m.collectAccountLimits(out, a.Name, values)
		for i := range a.Streams {
			m.collectStream(out, a.Name, values, &a.Streams[i])
			if isBucket(a.Streams[i].Name) {
				watching += watchers(a.Streams[i].Consumers)
			}
		}
	}
	out("kv_watchers", "Watchers of buckets that this server delivers to", watching, []string{"server_id"}, []string{m.src.ServerID})
}

func (m *Monitor) serverValues(j *Jsz) []string {
	cluster, leader, leads := "", "", "true"
	if j.Meta != nil {
		cluster, leader = j.Meta.Name, j.Meta.Leader
		leads = strconv.FormatBool(leader == m.src.ServerName)
	}
	return []string{m.src.ServerID, m.src.ServerName, cluster, j.Config.Domain, leader, leads}
}

func (m *Monitor) collectAccountLimits(out emit, name string, values []string) {
	a := m.src.Config().Account(name)
	if a == nil || a.JetStream == nil {
		return
	}
	out("jetstream_account_max_memory", "Memory the account may use, in bytes", float64(a.JetStream.MaxMemory), accountLabels, values)
	out("jetstream_account_max_storage", "Disk the account may use, in bytes", float64(a.JetStream.MaxFile), accountLabels, values)
}

func (m *Monitor) collectStream(out emit, account string, base []string, s *StreamDetail) {
	leader, leads := "", "true"
	if s.Cluster != nil {
		leader = s.Cluster.Leader
		leads = strconv.FormatBool(leader == m.src.ServerName)
	}
	values := with(base, s.Name, leader, leads, s.RaftGroup)
	gauge := func(name, help string, v float64) { out("jetstream_stream_"+name, help, v, streamLabels, values) }
	gauge("total_messages", "Messages in the stream", float64(s.State.Msgs))
	gauge("total_bytes", "Bytes in the stream", float64(s.State.Bytes))
	gauge("first_seq", "Sequence of the oldest message", float64(s.State.FirstSeq))
	gauge("last_seq", "Sequence of the newest message", float64(s.State.LastSeq))
	gauge("consumer_count", "Consumers of the stream", float64(s.State.Consumers))
	gauge("subject_count", "Subjects with a message", float64(s.State.NumSubjects))
	if s.Config != nil {
		gauge("limit_messages", "Messages the stream may have", float64(s.Config.MaxMsgs))
		gauge("limit_bytes", "Bytes the stream may have", float64(s.Config.MaxBytes))
	}
	if s.Mirror != nil {
		gauge("mirror_lag", "Messages a mirror is behind", float64(s.Mirror.Lag))
	}
	for _, c := range s.Consumers {
		m.collectConsumer(out, values, c)
	}
	if isBucket(s.Name) {
		values := []string{m.src.ServerID, account, s.Name[len(bucketPrefix):]}
		out("kv_bucket_keys", "Keys of the bucket, deleted ones with a marker included", float64(s.State.NumSubjects), bucketLabels, values)
		out("kv_bucket_messages", "Revisions kept in the bucket", float64(s.State.Msgs), bucketLabels, values)
		out("kv_bucket_bytes", "Bytes in the bucket", float64(s.State.Bytes), bucketLabels, values)
		out("kv_bucket_watchers", "Watchers of the bucket that this server delivers to", watchers(s.Consumers), bucketLabels, values)
	}
}

func (m *Monitor) collectConsumer(out emit, base []string, c ConsumerDetail) {
	leader, leads, description := "", "true", ""
	if c.Cluster != nil {
		leader = c.Cluster.Leader
		leads = strconv.FormatBool(leader == m.src.ServerName)
	}
	if c.Config != nil {
		description = c.Config.Description
	}
	values := with(base, c.Name, leader, leads, description, c.Created.Format(time.RFC3339))
	gauge := func(name, help string, v float64) { out("jetstream_consumer_"+name, help, v, consumerLabels, values) }
	gauge("delivered_consumer_seq", "Deliveries so far", float64(c.Delivered.Consumer))
	gauge("delivered_stream_seq", "Sequence of the last message delivered", float64(c.Delivered.Stream))
	gauge("ack_floor_consumer_seq", "All deliveries up to this one are acknowledged", float64(c.AckFloor.Consumer))
	gauge("ack_floor_stream_seq", "All messages up to this one are acknowledged", float64(c.AckFloor.Stream))
	gauge("num_ack_pending", "Messages delivered and not acknowledged", float64(c.NumAckPending))
	gauge("num_redelivered", "Messages delivered more than once and not acknowledged", float64(c.NumRedelivered))
	gauge("num_waiting", "Pull requests that wait", float64(c.NumWaiting))
	gauge("num_pending", "Messages not yet delivered", float64(c.NumPending))
}
