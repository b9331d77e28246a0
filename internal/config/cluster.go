package config

import (
	"math"
	"strings"
)

// cluster reads how servers find each other.
func (l *loader) cluster(v value) {
	if !l.isBlock(v, "cluster") {
		return
	}
	c := &l.cfg.Cluster
	const isolate = "all traffic between servers is replication and carries every account"
	l.block(v, fields{
		"name":                        l.name(&c.Name, "cluster name cannot contain spaces"),
		"listen":                      l.listen(&c.Host, &c.Port),
		"port":                        l.port(&c.Port),
		"host net":                    l.str(&c.Host),
		"authorization":               l.clusterAuth,
		"routes":                      l.routes,
		"tls":                         l.tlsInto(&c.TLS, clusterSide),
		"cluster_advertise advertise": l.str(&c.Advertise),
		"no_advertise":                l.boolean(&c.NoAdvertise),
		"connect_retries":             integer(l, &c.ConnectRetries, 0, math.MaxInt32),
		"connect_backoff":             l.boolean(&c.ConnectBackoff),
		"pool_size":                   integer(l, &c.PoolSize, -1, math.MaxInt32),
		"compression":                 l.compression(&c.Compression),
		"ping_interval":               l.duration(&c.PingInterval),
		"ping_max":                    integer(l, &c.PingMax, 0, math.MaxInt32),
		"write_deadline":              l.duration(&c.WriteDeadline),
		"write_timeout":               l.ignore("a peer that does not read is always cut off"),
		"accounts":                    l.ignore(isolate),
		"permissions":                 l.refuse(isolate + ", so the filter would not hold"),
	}, unknownField)
}

// clusterAuth reads the one user that other servers name themselves by.
func (l *loader) clusterAuth(v value) {
	a := l.readAuthorization(v)
	c := &l.cfg.Cluster
	switch {
	case a.users != nil:
		l.fail(v, "Cluster authorization does not allow multiple users")
	case a.token != "":
		l.fail(v, "Cluster authorization does not support tokens")
	default:
		c.User, c.Password, c.AuthTimeout = a.user, a.password, a.timeout
	}
}

// routes reads the URLs of the other servers; the own one may be among them.
func (l *loader) routes(v value) {
	var urls []string
	l.strs(&urls)(v)
	seen := make(map[string]bool)
	for _, s := range urls {
		if seen[s] {
			l.misuse(v, "Duplicate route entry detected: %s", s)
			continue
		}
		seen[s] = true
		u, err := parseRoute(s)
		if err != nil {
			l.fail(v, "%v", err)
			continue
		}
		l.cfg.Cluster.Routes = append(l.cfg.Cluster.Routes, u)
	}
}

// compression reads a mode, on or off, or a block with a mode.
func (l *loader) compression(dst *string) func(value) {
	return func(v value) {
		switch r := v.raw.(type) {
		case bool:
			*dst = map[bool]string{true: "s2_fast", false: "off"}[r]
		case string:
			*dst = strings.ToLower(r)
		case map[string]any:
			l.block(v, fields{
				"mode":                               l.str(dst),
				"rtt_thresholds thresholds rtts rtt": func(value) {},
			}, unknownField)
		default:
			l.fail(v, "field %q should be a boolean or a structure, got %s", v.key, v)
		}
		switch *dst {
		case "", "not supported", "off", "accept", "s2_auto", "s2_uncompressed", "s2_fast", "s2_better", "s2_best":
		case "disabled":
			*dst = "off"
		case "on", "enabled", "true":
			*dst = "s2_fast"
		case "auto":
			*dst = "s2_auto"
		default:
			l.fail(v, "unsupported compression mode %q", *dst)
		}
	}
}
