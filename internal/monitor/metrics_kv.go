package monitor

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cleatkv/cleat/internal/api"
)

// operations collects what clients do with keys. Its labels have a handful of values each, however
// many buckets there are.
type operations struct{ m *Monitor }

var (
	opsTotal = prometheus.NewDesc("kv_ops_total", "Operations on keys of buckets, by what came of them",
		[]string{"server_id", "op", "result"}, nil)
	opSeconds = prometheus.NewDesc("kv_op_seconds", "Time of an operation on a key, from the request to its answer",
		[]string{"server_id", "op"}, nil)
)

func (operations) Describe(ch chan<- *prometheus.Desc) { ch <- opsTotal; ch <- opSeconds }

func (o operations) Collect(ch chan<- prometheus.Metric) {
	if o.m.src.Operations == nil {
		return
	}
	id := o.m.src.ServerID
	for _, op := range o.m.src.Operations() {
		for result, n := range op.Results { // order: the page is sorted
			ch <- prometheus.MustNewConstMetric(opsTotal, prometheus.CounterValue, float64(n), id, op.Name, result)
		}
		ch <- prometheus.MustNewConstHistogram(opSeconds, op.Count(), op.Seconds, op.Within, id, op.Name)
	}
}

// bucketPrefix begins the name of a stream that is a bucket.
const bucketPrefix = "KV_"

func isBucket(stream string) bool { return strings.HasPrefix(stream, bucketPrefix) }

// watchers counts the consumers that follow keys for a client: those that nobody acknowledges to and
// that end with their client. Their state is in no log.
func watchers(all []ConsumerDetail) float64 {
	n := 0
	for _, c := range all {
		if cfg := c.Config; cfg != nil && cfg.Durable == "" && cfg.AckPolicy == api.AckNone {
			n++
		}
	}
	return float64(n)
}
